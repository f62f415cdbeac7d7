//! After every kind of run rsync, told to compare contents, finds nothing to do between source and destination.
//!
//! Needs `rsync`.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt as _, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::program::Program;
use common::{Scratch, command, deltasync, noise};
use deltasync_testkit::{Cut, CuttingRelay, Direction, Relay};

/// What rsync would do to make the target what the source is, as it prints it, and what it complains of.
fn left_to_do(source: &Path, target: &Path, more: &[&str]) -> String {
    let slash = |path: &Path| [path.as_os_str().as_bytes(), b"/"].concat();
    let mut rsync = Command::new("rsync");
    rsync.args(["-aX", "--checksum", "--dry-run", "--itemize-changes", "--delete"]).args(more);
    let output = rsync.arg(OsStr::from_bytes(&slash(source))).arg(OsStr::from_bytes(&slash(target))).output();
    let output = output.expect("there is rsync");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[track_caller]
fn assert_done(source: &Path, target: &Path, run: &str) {
    assert_eq!(left_to_do(source, target, &[]), "", "after {run}");
    // Zeros from 64 KiB on are holes; it has 131,072 blocks of 512 bytes, and data in two places.
    let blocks = fs::metadata(target.join("sparse")).expect("there").blocks();
    assert!(blocks <= 512, "after {run}: a sparse file has {blocks} blocks");
}

fn at(root: &Path, name: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(name))
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

/// As deep as the system names a path by, this side of 4,096 bytes from its root.
fn make_deep(root: &Path) {
    let mut path = root.to_owned();
    while path.as_os_str().len() + 251 + 20 < 4096 - 64 {
        path.push("d".repeat(250));
    }
    fs::create_dir_all(&path).expect("space");
    fs::write(path.join("deep"), noise(5, 3000)).expect("space");
}

fn write_sparse(path: &Path, len: u64, seed: u64) {
    let file = File::create(path).expect("space");
    file.set_len(len).expect("space");
    file.write_all_at(&noise(seed, 5000), len / 2).expect("space");
}

/// All that is likely to be got wrong.
fn make(root: &Path) {
    fs::create_dir(root).expect("new");
    let names: [&[u8]; 9] =
        [b"\xff\xfe\x80", b"new\nline", b"-rf", b"--delete", b" ", b"*?[a]{b}", b"back\\slash", b"...", b"\x01\x7f"];
    for (i, name) in names.into_iter().enumerate() {
        fs::write(at(root, name), noise(i as u64, 1000)).expect("space");
        let dir = at(root, &[name, b".d"].concat());
        fs::create_dir(&dir).expect("new");
        fs::write(at(&dir, name), noise(100 + i as u64, 70_000)).expect("space");
    }
    fs::write(at(root, &[b'n'; 255]), noise(200, 300)).expect("space");
    fs::write(at(root, "\u{e9}".repeat(127).as_bytes()), noise(201, 100_000)).expect("space");
    write_sparse(&root.join("sparse"), 64 << 20, 202);
    write_sparse(&root.join("sparse-small"), 65_536, 203);
    make_deep(root);
    fs::create_dir_all(root.join("empty/er")).expect("new");
    for (name, to) in [("loop-a", "loop-b"), ("loop-b", "loop-a"), ("self", "self"), ("up", ".."), ("out", "/etc")] {
        symlink(to, root.join(name)).expect("new");
    }
    fs::create_dir(root.join("read-only")).expect("new");
    fs::write(root.join("read-only/file"), noise(204, 500)).expect("space");
    fs::write(root.join("read-only/large"), noise(205, 80_000)).expect("space");
    fs::write(root.join("no-write"), noise(206, 80_000)).expect("space");
    fs::create_dir_all(root.join("dir-then-file/sub")).expect("new");
    fs::write(root.join("dir-then-file/sub/file"), noise(207, 400)).expect("space");
    fs::write(root.join("file-then-dir"), noise(208, 90_000)).expect("space");
    set_mode(&root.join("read-only/file"), 0o400);
    set_mode(&root.join("no-write"), 0o444);
    set_mode(&root.join("read-only"), 0o555);
}

/// The same tree some time later.
fn change(root: &Path) {
    fs::remove_dir_all(root.join("dir-then-file")).expect("there");
    fs::write(root.join("dir-then-file"), noise(300, 90_000)).expect("space");
    fs::remove_file(root.join("file-then-dir")).expect("there");
    fs::create_dir_all(root.join("file-then-dir/sub")).expect("new");
    fs::write(root.join("file-then-dir/sub/file"), noise(301, 400)).expect("space");
    fs::write(at(root, b"new\nline"), noise(302, 1200)).expect("space");
    fs::remove_file(at(root, b"-rf")).expect("there");
    fs::remove_dir(root.join("empty/er")).expect("empty");
    fs::rename(at(root, b"\xff\xfe\x80.d"), at(root, b"moved\n")).expect("there");
    fs::remove_file(root.join("loop-b")).expect("there");
    symlink("loop-b", root.join("loop-b")).expect("new");
    set_mode(&root.join("read-only"), 0o755);
    fs::write(root.join("read-only/added"), noise(303, 100)).expect("space");
    fs::write(root.join("read-only/large"), noise(304, 80_000)).expect("space");
    set_mode(&root.join("read-only"), 0o555);
    File::options()
        .write(true)
        .open(root.join("sparse"))
        .expect("there")
        .write_all_at(b"edited", 1 << 20)
        .expect("space");
}

/// Runs it over the tree as it is first, again, and as it is later.
fn check(source: &Path, target: &Path, run: &str, go: impl Fn(&[&str])) {
    make(source);
    for (more, what) in [(&[][..], "the first"), (&[], "the second"), (&["--delete"], "--delete")] {
        go(more);
        assert_done(source, target, &format!("{what} {run}"));
    }
    change(source);
    go(&["--delete"]);
    assert_done(source, target, &format!("{run} of changes"));
    go(&["--delete"]);
    assert_done(source, target, &format!("{run} of nothing"));
}

#[test]
#[ignore = "needs rsync"]
fn rsync_finds_nothing_to_do_after_a_push() {
    for state in [&["--no-state"][..], &["--state=state"]] {
        let (root, dir) = (Scratch::new(), Scratch::new());
        let server = Program::start(root.path());
        let url = server.url("tree");
        check(&dir.join("tree"), &root.join("tree"), "push", |more| {
            deltasync(dir.path(), &[&["push", "tree", &url], state, more].concat()).fine();
        });
    }
}

#[test]
#[ignore = "needs rsync"]
fn rsync_finds_nothing_to_do_after_a_pull() {
    let (root, dir) = (Scratch::new(), Scratch::new());
    let server = Program::start(root.path());
    let url = server.url("tree/");
    check(&root.join("tree"), &dir.join("tree"), "pull", |more| {
        deltasync(dir.path(), &[&["pull", &url, "tree"], more].concat()).fine();
    });
}

#[test]
#[ignore = "needs rsync"]
fn rsync_finds_nothing_to_do_after_a_copy_within_this_machine() {
    for verb in ["push", "pull"] {
        let dir = Scratch::new();
        check(&dir.join("a"), &dir.join("b"), verb, |more| {
            deltasync(dir.path(), &[&[verb, "a", "b"], more].concat()).fine();
        });
    }
}

#[test]
#[ignore = "needs rsync"]
fn rsync_finds_nothing_to_do_after_a_push_that_was_resumed() {
    let (root, dir) = (Scratch::new(), Scratch::new());
    let server = Program::start(root.path());
    make(&dir.join("tree"));
    // Cut three times by itself, and killed once at about the middle.
    let cut = |after| Cut { direction: Direction::Up, after };
    let to = server.address.parse().expect("an address");
    let cutting = CuttingRelay::start(to, [cut(100_000), cut(300_000), cut(200_000)]).expect("a free port");
    let slow = Relay::start(to, Duration::ZERO, 2_000_000).expect("a free port");
    let mut first = command(dir.path());
    first.args(["push", "tree", &format!("deltasync://{}/tree", slow.address()), "--no-state", "--quiet"]);
    let mut first = first.spawn().expect("the program starts");
    std::thread::sleep(Duration::from_millis(400));
    let _ = first.kill();
    let _ = first.wait();
    let url = format!("deltasync://{}/tree", cutting.address());
    let ran = deltasync(dir.path(), &["push", "tree", &url, "--no-state", "--delete", "--force"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(cutting.cut() > 0, "nothing was cut");
    assert_done(&dir.join("tree"), &root.join("tree"), "a resumed push");
}

#[test]
#[ignore = "needs rsync"]
fn pipes_and_sockets_are_named_and_rsync_finds_nothing_else_to_do() {
    let (root, dir) = (Scratch::new(), Scratch::new());
    let server = Program::start(root.path());
    make(&dir.join("tree"));
    let made = Command::new("mkfifo").arg(dir.join("tree/empty/a pipe")).status().expect("there is mkfifo");
    assert!(made.success());
    let _socket = UnixListener::bind(dir.join("tree/socket")).expect("new");
    for _ in 0..2 {
        let ran = deltasync(dir.path(), &["push", "tree", &server.url("tree"), "--no-state", "--delete", "--json"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let json = ran.json();
        let failed = json["failed"].as_array().expect("a list");
        let named: Vec<_> = failed.iter().map(|file| file["source"].as_str().expect("text")).collect();
        assert_eq!(named, ["tree/empty/a pipe", "tree/socket"], "{ran:?}");
        let rest = left_to_do(&dir.join("tree"), &root.join("tree"), &["--exclude=/empty/a pipe", "--exclude=/socket"]);
        assert_eq!(rest, "");
    }
}
