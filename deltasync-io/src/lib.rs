//! What deltasync does with the operating system: storage back ends, and the driver of a session.
//!
//! The story of one sync, from here: an embedder makes a [`Storage`] for its files, draws [`entropy()`], makes a
//! [`Session`](deltasync_proto::Session) and lets [`drive`] run it over a stream. The session asks for files by data; the
//! storage describes a basis, reads ranges, stages a target, applies plans to it and at last commits it: made durable
//! first, then put in place in one step, so that a reader never sees half a file. Requests come back as answers, jobs as
//! results, and the embedder sees one stream of [`Report`]s.
//!
//! [`LocalStorage`] keeps files below a directory, in plain form, and opens nothing outside of it; [`MemoryStorage`]
//! keeps them in a map. Both answer while the caller waits; [`Threads`] makes a [`Storage`] of them. Other back ends
//! implement [`BlockingStorage`], or [`Storage`] itself.
//!
//! ```
//! use std::sync::Arc;
//!
//! use deltasync_core::{Algorithm, RelPath};
//! use deltasync_io::{BlockingStorage, MemoryStorage};
//! use deltasync_proto::{Answer, Ask, Cutting, Place, RootId};
//!
//! let storage = MemoryStorage::new();
//! let place = Place { root: RootId::new(0), path: RelPath::new(*b"greeting")? };
//! storage.insert(place.root, place.path.clone(), "hello");
//! let (cutting, algorithm) = (Cutting::ByContent, Algorithm::Blake3);
//! let answer = storage.answer(Ask::Describe { place, cutting, algorithm, remember: None })?;
//! let Answer::Described(file) = answer else { unreachable!("a description was asked for") };
//! assert_eq!(file.chunks.len().get(), 5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod storage;
pub use storage::{BlockingStorage, Reply, Storage};

mod threads;
pub use threads::Threads;

#[cfg(test)]
mod laws;

mod contained;
pub use contained::hush_contained_panics;

mod checked;
mod database;
mod disk;
pub use disk::{DiskDir, DiskFile, DiskKind, DiskSpace, DiskStat, DiskXattrs, Names};

mod buffers;
mod destination;
mod fault;
mod lock;
mod source;

mod patterns;
pub use patterns::{InvalidPattern, check_filter};

mod known;
pub use known::{KeepForm, KnownFiles};

mod memory;
pub use memory::MemoryStorage;

mod local;
pub use local::{
    Finding, FindingKind, LastScrub, LocalOptions, LocalStorage, Reached, Recovery, Scrub, ScrubEvent, ScrubOptions,
    ScrubReport, TreeMember, Walked, Walks, compared_lists, connect_control, files_made, files_to_send,
    members_to_fetch, members_to_send, tree_list,
};

#[cfg(feature = "tokio")]
mod bandwidth;
#[cfg(feature = "tokio")]
pub use bandwidth::{Bandwidth, BandwidthTooLow};

#[cfg(feature = "tokio")]
mod line;

#[cfg(feature = "tokio")]
mod driver;
#[cfg(feature = "tokio")]
pub use driver::{Control, DriveError, Report, drive};

mod entropy;
pub use entropy::entropy;
