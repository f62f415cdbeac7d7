//! Files that change while they are read, and what cannot be read at all, by the program itself: what does not settle is
//! named, and all else arrives.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::program::{Program, bound_by_permissions};
use common::snapshot::{assert_equal, assert_holds, snapshot};
use common::{Ran, Scratch, command, deltasync, noise};
use deltasync_testkit::Relay;

/// What is appended at a time.
const LINE: &[u8] = b"one more line of a log that is never quiet\n";

/// Logs that grow by a line about every millisecond, until it is dropped.
struct Busy {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    fn start(logs: &[&Path]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let append = |path: &&Path| File::options().append(true).open(path).expect("there");
        let mut files: Vec<File> = logs.iter().map(append).collect();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                files.iter_mut().for_each(|file| file.write_all(LINE).expect("space"));
                thread::sleep(Duration::from_micros(500));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, None | Some(Ok(()))) || thread::panicking());
    }
}

/// A version of a log: so many whole lines.
#[track_caller]
fn assert_is_a_version(path: &Path) {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(bytes.len().is_multiple_of(LINE.len()), "{}: {} bytes", path.display(), bytes.len());
    assert!(bytes.chunks(LINE.len()).all(|line| line == LINE), "{}", path.display());
}

/// A tree of 200 small files that are quiet.
fn make_files(dir: &Scratch) {
    for i in 0..200_u64 {
        dir.mkdir(&format!("tree/dir{}", i % 9));
        dir.write(&format!("tree/dir{}/file{i}", i % 9), &noise(i, 100 + 40 * i as usize));
    }
}

fn named(ran: &Ran) -> Vec<(String, String)> {
    let json = ran.json();
    let failed = json["failed"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let mut named: Vec<_> = failed.iter().map(|file| (text(&file["source"]), text(&file["error"]))).collect();
    named.sort();
    named
}

#[test]
fn what_grows_all_the_time_is_named_and_the_rest_of_the_tree_arrives() {
    let (root, dir) = (Scratch::new(), Scratch::new());
    make_files(&dir);
    dir.write("tree/other-large", &noise(1000, 200_000));
    // A small one and a large one; the odd name has to be left out as any other.
    let (small, large) = ("tree/dir1/busy [log]*\n", "tree/large.log");
    dir.write(small, &LINE.repeat(5));
    dir.write(large, &LINE.repeat(4000));
    let server = Program::start(root.path());
    // So much time between a look at a file and its reading that it is never quiet meanwhile.
    let relay = Relay::start(server.address.parse().expect("an address"), Duration::from_millis(5), 50_000_000);
    let relay = relay.expect("a free port");
    let url = format!("deltasync://{}/tree", relay.address());
    let push = |more: &[&str]| {
        deltasync(dir.path(), &[&["push", "tree", &url, "--no-state", "--json", "--delete"], more].concat())
    };
    let there = root.join("tree");
    for round in 0..3_u64 {
        // The first push finds nothing there, the next ones old versions.
        let busy = Busy::start(&[&dir.join(small), &dir.join(large)]);
        (0..50).for_each(|i| dir.write(&format!("tree/dir{}/file{i}", i % 9), &noise(500 * (round + 1) + i, 3000)));
        if round > 0 {
            fs::remove_file(dir.join(format!("tree/dir{}/file{}", (199 - round) % 9, 199 - round))).expect("there");
        }
        let ran = push(&[]);
        drop(busy);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let named = named(&ran);
        let names: Vec<_> = named.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["tree/dir1/busy [log]*\\n", "tree/large.log"], "{ran:?}");
        assert!(named.iter().all(|(_, error)| error.contains("changed")), "{named:?}");
        let is_busy = |path: &Vec<u8>| path.ends_with(b"busy [log]*\n") || path.ends_with(b"large.log");
        let (mut source, mut target) = (snapshot(&dir.join("tree")), snapshot(&there));
        source.retain(|path, _| !is_busy(path));
        target.retain(|path, _| !is_busy(path));
        assert_holds(&source, &target, &BTreeMap::new());
        for log in [small, large] {
            let path = root.join(log);
            assert!(round == 0 || path.exists(), "{log} was deleted");
            if path.exists() {
                assert_is_a_version(&path);
            }
        }
        // When it is quiet all of it goes.
        push(&[]).fine();
        assert_equal(&dir.join("tree"), &there);
    }
}

#[test]
fn a_small_file_that_became_large_does_not_fail_the_tree_that_copies_from_it() {
    let (root, dir) = (Scratch::new(), Scratch::new());
    dir.mkdir("tree");
    let old = noise(1, 60_000);
    dir.write("tree/a", &old);
    (0..200_u64).for_each(|i| dir.write(&format!("tree/m{i}"), &noise(10 + i, 5000)));
    let server = Program::start(root.path());
    let relay = Relay::start(server.address.parse().expect("an address"), Duration::from_millis(5), 1_000_000);
    let relay = relay.expect("a free port");
    let url = format!("deltasync://{}/tree", relay.address());
    deltasync(dir.path(), &["push", "tree", &server.url("tree"), "--no-state"]).fine();
    // It has a transfer of its own now, which is long over when the last of the tree comes.
    dir.write("tree/a", &[&old[..], &noise(2, 10_000)].concat());
    (0..200_u64).for_each(|i| dir.write(&format!("tree/m{i}"), &noise(1000 + i, 5000)));
    dir.write("tree/z", &old[1000..50_000]);
    deltasync(dir.path(), &["push", "tree", &url, "--no-state"]).fine();
    assert_equal(&dir.join("tree"), &root.join("tree"));
}

#[test]
fn what_grows_all_the_time_is_named_when_it_is_pulled_and_the_rest_of_the_tree_arrives() {
    let (root, dir) = (Scratch::new(), Scratch::new());
    make_files(&root);
    let small = "tree/dir1/busy [log]*\n";
    root.write(small, &LINE.repeat(5));
    let server = Program::start(root.path());
    let relay = Relay::start(server.address.parse().expect("an address"), Duration::from_millis(5), 50_000_000);
    let relay = relay.expect("a free port");
    let url = format!("deltasync://{}/tree", relay.address());
    let pull = || deltasync(dir.path(), &["pull", &url, "copy", "--json", "--delete"]);
    for round in 0..3_u64 {
        let busy = Busy::start(&[&root.join(small)]);
        (0..50).for_each(|i| root.write(&format!("tree/dir{}/file{i}", i % 9), &noise(500 * (round + 1) + i, 3000)));
        let ran = pull();
        drop(busy);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let named = named(&ran);
        let [(name, error)] = &named[..] else { panic!("{named:?}") };
        assert!(name.ends_with("/tree/dir1/busy [log]*\\n") && error.contains("changed"), "{named:?}");
        let is_busy = |path: &Vec<u8>| path.ends_with(b"busy [log]*\n");
        let (mut source, mut target) = (snapshot(&root.join("tree")), snapshot(&dir.join("copy")));
        source.retain(|path, _| !is_busy(path));
        target.retain(|path, _| !is_busy(path));
        assert_holds(&source, &target, &BTreeMap::new());
        let log = dir.join("copy/dir1/busy [log]*\n");
        assert!(round == 0 || log.exists(), "it was deleted");
        if log.exists() {
            assert_is_a_version(&log);
        }
        pull().fine();
        assert_equal(&root.join("tree"), &dir.join("copy"));
    }
}

/// A tree of which two files and two directories cannot be read.
fn make_secrets(dir: &Scratch) {
    for (path, mode) in [("closed", 0o000), ("shown", 0o444), ("open", 0o755)] {
        dir.mkdir(&format!("tree/{path}"));
        dir.write(&format!("tree/{path}/in"), path.as_bytes());
        dir.write(&format!("tree/{path}.file"), path.as_bytes());
        let mode = Permissions::from_mode(mode);
        fs::set_permissions(dir.join(format!("tree/{path}")), mode.clone()).expect("ours");
        fs::set_permissions(dir.join(format!("tree/{path}.file")), mode).expect("ours");
    }
    dir.write("tree/large", &noise(7, 100_000));
    fs::set_permissions(dir.join("tree/large"), Permissions::from_mode(0o000)).expect("ours");
    let made = Command::new("mkfifo").arg(dir.join("tree/pipe")).status().expect("there is mkfifo");
    assert!(made.success());
}

const SECRETS: [&str; 6] = ["", "closed", "closed.file", "large", "pipe", "shown"];

#[track_caller]
fn check_secrets(ran: &Ran) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let named = named(ran);
    let below: Vec<_> = named.iter().map(|(name, _)| name.split_once("tree/").expect("below it").1).collect();
    assert_eq!(below, SECRETS, "{ran:?}");
    for (name, error) in &named {
        let what = match name.split_once("tree/").expect("below it").1 {
            "" => "nothing is deleted, since not all of the source can be read",
            "pipe" => "neither file, directory nor symbolic link",
            _ => "Permission denied",
        };
        assert!(error.contains(what), "{name}: {error}");
    }
}

#[test]
fn what_cannot_be_read_is_named_and_kept_and_the_rest_of_the_tree_arrives() {
    let (root, dir) = (Scratch::new(), Scratch::new());
    make_secrets(&dir);
    let server = Program::start(root.path());
    let bound = |args: &[&str]| {
        let mut command = command(dir.path());
        command.args(args).args(["--no-state", "--json", "--delete"]);
        Ran::new(bound_by_permissions(command).output().expect("it runs"))
    };
    // There are older ones of what cannot be read.
    for path in ["closed", "shown", "old"] {
        root.mkdir(&format!("tree/{path}"));
        root.write(&format!("tree/{path}/in"), b"older");
    }
    for path in ["closed.file", "open.file", "large"] {
        root.write(&format!("tree/{path}"), b"older");
    }
    let url = server.url("tree");
    for _ in 0..2 {
        check_secrets(&bound(&["push", "tree/", &url]));
        let read = |path: &str| String::from_utf8(root.read(&format!("tree/{path}"))).expect("text");
        for path in ["closed/in", "shown/in", "old/in", "closed.file", "large"] {
            assert_eq!(read(path), "older", "{path}");
        }
        assert_eq!([read("open/in"), read("open.file"), read("shown.file")], ["open", "open", "shown"]);
    }
    let dry = bound(&["push", "tree/", &url, "--dry-run"]).json();
    assert_eq!(dry["left_out"].as_array().map(Vec::len), Some(SECRETS.len()), "{dry}");
    assert_eq!(dry["changes"], serde_json::json!([]), "{dry}");

    let server = Program::start_bound(dir.path());
    let url = format!("{}/", server.url("tree"));
    let (there, target) = (Scratch::new(), |path: &str| format!("copy/{path}"));
    for path in ["closed/in", "old/in"] {
        there.mkdir(target(path).strip_suffix("/in").expect("in one"));
        there.write(&target(path), b"older");
    }
    for _ in 0..2 {
        let ran = deltasync(there.path(), &["pull", &url, "copy", "--json", "--delete"]);
        check_secrets(&ran);
        assert_eq!([there.read("copy/closed/in"), there.read("copy/old/in")], [b"older"; 2]);
        assert_eq!([there.read("copy/open/in"), there.read("copy/shown.file")], [&b"open"[..], b"shown"]);
        assert!(!there.join("copy/closed.file").exists());
    }
    // For whom nothing is secret, all of it goes.
    fs::remove_file(dir.join("tree/pipe")).expect("there");
    drop(server);
    if rustix::process::geteuid().is_root() {
        let server = Program::start(dir.path());
        deltasync(there.path(), &["pull", &format!("{}/", server.url("tree")), "copy", "--delete"]).fine();
        assert_equal(&dir.join("tree"), &there.join("copy"));
    }
    for path in ["closed", "shown"] {
        fs::set_permissions(dir.join(format!("tree/{path}")), Permissions::from_mode(0o755)).expect("ours");
    }
}
