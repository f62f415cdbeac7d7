//! What storage promises, tried with the real program on the real kernel: killed at any moment, with system calls that
//! fail, with the power cut, on full and broken file systems, against hostile paths, with many writers of one file.
//!
//! Each module says at its head which promise it tries to break. What the promises have in common is checked in one
//! place, [`ledger`]: every file is one of its versions, whole, and never older than one that was acknowledged.
//!
//! Most of it wants root, programs of the system or time, and is ignored; `.ci/run` has the steps.

mod client;
mod ledger;
mod mounted;
mod served;

mod cas;
mod confined;
mod full;
mod injected;
mod killed;
mod power;
