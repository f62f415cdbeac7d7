//! Signature, delta and patch by the program itself.

mod common;

use std::io::Write as _;
use std::process::Stdio;

use common::{Ran, Scratch, command, deltasync, noise};

/// A basis, and a target that has some of it in another order, with something new in between.
fn files(dir: &Scratch) -> (Vec<u8>, Vec<u8>) {
    let basis = noise(1, 700_001);
    let target = [&basis[300_000..], b"new", &noise(2, 5000), &basis[..300_000]].concat();
    dir.write("basis", &basis);
    dir.write("target", &target);
    (basis, target)
}

#[test]
fn the_three_verbs_rebuild_the_target() {
    for hash in ["blake3", "sha256"] {
        let dir = Scratch::new();
        let (_, target) = files(&dir);
        let run = |args: &[&str]| deltasync(dir.path(), args);
        assert_eq!(run(&["signature", "basis", "sig", "--hash", hash]).fine().stdout, "");
        run(&["delta", "sig", "target", "delta"]).fine();
        run(&["patch", "basis", "delta", "out"]).fine();
        assert_eq!(dir.read("out"), target);
        let delta = dir.read("delta").len();
        assert!(delta < 12_000, "{delta} bytes");
        // In place, too.
        run(&["patch", "basis", "delta", "basis"]).fine();
        assert_eq!(dir.read("basis"), target);
        assert_eq!(dir.names("."), ["basis", "delta", "out", "sig", "target"]);
    }
}

#[test]
fn edges_of_a_block_round_trip() {
    let dir = Scratch::new();
    let run = |args: &[&str]| deltasync(dir.path(), args).fine();
    for (basis, target) in [(0, 0), (0, 1), (1, 0), (512, 511), (511, 513), (262_144, 262_145), (1025, 1025)] {
        dir.write("basis", &noise(1, basis));
        dir.write("target", &noise(1, target));
        run(&["signature", "basis", "sig"]);
        run(&["delta", "sig", "target", "delta"]);
        run(&["patch", "basis", "delta", "out"]);
        assert_eq!(dir.read("out"), noise(1, target), "{basis} to {target}");
    }
}

#[test]
fn a_dash_is_the_standard_input_or_output() {
    let dir = Scratch::new();
    let (_, target) = files(&dir);
    let piped = |args: &[&str], input: &[u8]| {
        let mut command = command(dir.path());
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        // Less than a pipe holds, or read to the end before anything is printed.
        child.stdin.take().expect("piped").write_all(input).expect("the program reads");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        output.stdout
    };
    let signature = piped(&["signature", "basis", "-"], b"");
    let delta = piped(&["delta", "-", "target", "-"], &signature);
    assert_eq!(piped(&["patch", "basis", "-", "-"], &delta), target);
}

#[test]
fn a_damaged_delta_is_refused_and_the_output_untouched() {
    let dir = Scratch::new();
    files(&dir);
    deltasync(dir.path(), &["signature", "basis", "sig"]).fine();
    deltasync(dir.path(), &["delta", "sig", "target", "delta"]).fine();
    dir.write("out", b"precious");
    let delta = dir.read("delta");
    let mut damaged: Vec<Vec<u8>> = (0..delta.len()).step_by(delta.len() / 40).map(|at| flipped(&delta, at)).collect();
    damaged.extend([delta[..delta.len() - 1].to_vec(), delta[..delta.len() / 2].to_vec(), Vec::new()]);
    damaged.extend([[&delta[..], b"x"].concat(), noise(9, 10_000), b"#!/bin/sh\n".to_vec()]);
    for bytes in damaged {
        dir.write("bad", &bytes);
        deltasync(dir.path(), &["patch", "basis", "bad", "out"]).failed(5, "cannot patch basis with bad: ");
        assert_eq!(dir.read("out"), b"precious");
    }
    assert_eq!(dir.names("."), ["bad", "basis", "delta", "out", "sig", "target"], "nothing is left behind");
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 0x10;
    bytes
}

#[test]
fn another_basis_is_refused() {
    let dir = Scratch::new();
    let (mut basis, _) = files(&dir);
    deltasync(dir.path(), &["signature", "basis", "sig"]).fine();
    deltasync(dir.path(), &["delta", "sig", "target", "delta"]).fine();
    basis[400_000] ^= 1;
    dir.write("basis", &basis);
    deltasync(dir.path(), &["patch", "basis", "delta", "out"]).failed(5, "result has root");
    basis.push(0);
    dir.write("basis", &basis);
    let longer = deltasync(dir.path(), &["patch", "basis", "delta", "out"]);
    longer.failed(5, "delta is for a basis of 700001 bytes, this one has 700002");
    assert!(!dir.join("out").exists());
}

#[test]
fn what_is_no_signature_is_told_apart_from_a_damaged_one() {
    let dir = Scratch::new();
    files(&dir);
    deltasync(dir.path(), &["signature", "basis", "sig"]).fine();
    let run = |args: &[&str]| deltasync(dir.path(), args);
    run(&["delta", "basis", "target", "delta"]).failed(1, "not a signature of deltasync");
    let signature = dir.read("sig");
    dir.write("sig", &signature[..signature.len() - 1]);
    run(&["delta", "sig", "target", "delta"]).failed(5, "signature is damaged");
    run(&["signature", "basis", "out", "--block-len", "15"]).failed(2, "block length of 15 bytes");
    run(&["signature", "missing", "out"]).failed(1, "cannot read missing");
    run(&["signature", ".", "out"]).failed(2, ". is not a regular file");
    run(&["signature", "basis", "missing/out"]).failed(1, "cannot write to missing/out");
    assert!(!dir.join("delta").exists() && !dir.join("out").exists());
}

#[test]
fn verbose_says_what_was_copied() {
    let dir = Scratch::new();
    dir.write("basis", &noise(1, 100_000));
    deltasync(dir.path(), &["signature", "basis", "sig"]).fine();
    let ran: Ran = deltasync(dir.path(), &["delta", "-v", "sig", "basis", "delta"]);
    assert_eq!(ran.code, Some(0));
    let start = "deltasync: target 100,000 bytes: 100,000 copied and 0 literal (100.0 % reused), root ";
    assert!(ran.stderr.starts_with(start), "{ran:?}");
}
