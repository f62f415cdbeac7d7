//! Directories that are made, and what is renamed and removed, at a server and on this machine.

mod common;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::time::Duration;

use common::{Scratch, Server, deltasync};
use deltasync_client::{
    ClientError, ConnectError, ExitStatus, Options, Place, Retries, Update, UsageError, make_directory, remove, rename,
};
use deltasync_proto::{FaultKind, RefusalCode, TransferError};
use deltasync_testkit::{Cut, CuttingRelay, Direction};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

fn place(text: &str) -> Place {
    Place::parse(text.as_ref()).expect("a place")
}

fn at(address: SocketAddr, path: &str) -> Place {
    place(&format!("deltasync://{address}/{path}"))
}

/// As the program, but without the patience that people have.
fn quick(most: u32) -> Options {
    let (first, longest) = (Duration::from_millis(10), Duration::from_millis(50));
    Options::default().retries(Retries { most, first, longest })
}

/// What a verb came to, and how often it was tried again.
fn run(
    verb: impl AsyncFnOnce(&Options, &CancellationToken, &mut dyn FnMut(Update)) -> Result<(), ClientError>,
) -> (Result<(), ClientError>, usize) {
    let mut retries = 0;
    let mut report = |update| retries += usize::from(matches!(update, Update::Retrying(_)));
    let never = CancellationToken::new();
    let result = Runtime::new().expect("threads to be had").block_on(verb(&quick(3), &never, &mut report));
    (result, retries)
}

#[test]
fn the_program_makes_renames_and_removes_at_a_server() {
    let (server, dir) = (Server::start(), Scratch::new());
    let go = |args: &[&str]| deltasync(dir.path(), args);
    let [photos, deep, file, moved] =
        ["photos", "photos/deep%20one", "photos/file", "photos/deep%20one/"].map(|path| server.url(path));
    go(&["mkdir", &photos, &deep]).fine();
    go(&["mkdir", &photos]).failed(4, "photos: something is there already");
    go(&["mkdir", &server.url("none/new")]).failed(4, "none/new: No such file or directory");
    dir.write("file", b"content");
    go(&["push", "file", &file]).fine();
    go(&["mv", &file, &moved]).fine();
    assert_eq!(server.dir.read("photos/deep one/file"), b"content");
    go(&["mv", &file, &server.url("new")]).failed(4, "photos/file: No such file or directory");
    go(&["mv", &photos, &moved]).failed(4, "photos: it cannot be moved into itself");
    go(&["mv", &deep, &photos]).failed(4, "photos: something is there already");
    go(&["mv", &deep, &server.url("moved")]).fine();
    assert_eq!(server.dir.read("moved/file"), b"content");
    assert_eq!(server.dir.names("photos"), [] as [&str; 0]);

    let ran = go(&["rm", &server.url("moved"), &photos, &server.url("none")]);
    assert!(ran.stderr.contains("deltasync rm -r"), "{ran:?}");
    let ran = ran.failed(4, "moved: the directory is not empty");
    assert!(ran.stderr.contains("none: No such file or directory"), "{ran:?}");
    assert_eq!(server.dir.names(""), [".deltasync", "moved"], "what could be removed is");
    go(&["rm", "-r", &server.url("moved")]).fine();
    for hidden in [".deltasync", ""] {
        go(&["rm", "-r", &server.url(hidden)]).failed(4, "deltasync: refused by the peer: ");
        go(&["mv", &server.url(hidden), &server.url("new")]).failed(4, "deltasync: refused by the peer: ");
    }
    assert_eq!(server.dir.names(""), [".deltasync"]);
    go(&["mkdir"]).code.filter(|code| *code == 2).expect("a place is wanted");
    go(&["mv", &photos]).code.filter(|code| *code == 2).expect("two places are wanted");
    go(&["mv", &photos, "here"]).failed(2, "are not at the same server, nor both on this machine");
}

#[test]
fn what_was_removed_or_moved_does_not_meet_a_condition() {
    let (server, dir) = (Server::start(), Scratch::new());
    let go = |args: &[&str]| deltasync(dir.path(), args);
    dir.write("file", b"one");
    let summary = go(&["push", "file", &server.url(""), "--json"]).fine().json();
    let root = summary["root"].as_str().expect("a root").to_owned();
    dir.write("file", b"two");
    let conditional = ["push", "file", &server.url(""), "--if-match", &root];
    go(&["mv", &server.url("file"), &server.url("moved")]).fine();
    go(&conditional).failed(4, "what is there now is not what was to be replaced");
    go(&["mv", &server.url("moved"), &server.url("file")]).fine();
    go(&["rm", &server.url("file")]).fine();
    go(&conditional).failed(4, "what is there now is not what was to be replaced");
    assert_eq!(server.dir.names(""), [".deltasync"]);
    go(&["push", "file", &server.url(""), "--if-match", "absent"]).fine();
    assert_eq!(server.dir.read("file"), b"two");
}

#[test]
fn on_this_machine_it_goes_without_a_server() {
    let dir = Scratch::new();
    let outside = Scratch::new();
    outside.write("file", b"outside");
    dir.mkdir("a/b");
    dir.write("a/b/file", b"content");
    symlink(outside.path(), dir.join("a/link")).expect("linked");
    let local = |path: &str| Place::Local(dir.join(path));
    run(async |options, never, report| make_directory(&local("new"), options, never, report).await).0.expect("new");
    let moves = [("a/b/file", "new/"), ("new/file", "new/other"), ("a/link", "new/link"), ("a", "new/a")];
    for (from, to) in moves {
        let moved = run(async |options, never, report| rename(&local(from), &local(to), options, never, report).await);
        moved.0.unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
    }
    assert_eq!(dir.read("new/other"), b"content");
    assert_eq!(dir.names("new"), ["a", "link", "other"]);
    let removed = |path: &str, recursive| {
        run(async |options, never, report| remove(&local(path), recursive, options, never, report).await).0
    };
    let Err(ClientError::Transfer(TransferError::Storage(fault))) = removed("new", false) else {
        panic!("it is not empty");
    };
    assert_eq!(fault.kind, FaultKind::NotEmpty);
    removed("new/link", false).expect("the link itself");
    removed("new", true).expect("with all that is in it");
    assert!(matches!(removed("new/none", false), Err(ClientError::File { doing: "find", .. })));
    assert!(matches!(removed("..", true), Err(ClientError::Usage(UsageError::Path { .. }))));
    assert_eq!(dir.names(""), [] as [&str; 0]);
    assert_eq!(outside.read("file"), b"outside");
    let elsewhere = place("deltasync://localhost/file");
    let moved = run(async |options, never, report| rename(&local("x"), &elsewhere, options, never, report).await);
    assert!(matches!(moved.0, Err(ClientError::Usage(UsageError::OtherServer { .. }))), "{moved:?}");
}

/// The answer is lost: it is not asked again, and nobody is told that it failed, or did not.
#[test]
fn what_may_have_been_heard_is_not_asked_again() {
    let server = Server::start();
    server.dir.write("once", b"1");
    let gone = |address, path: &str| {
        run(async |options, never, report| remove(&at(address, path), false, options, never, report).await)
    };
    server.carried();
    gone(server.address, "once").0.expect("it is there");
    let (up, down) = server.carried();
    // Of the bytes on the way up the last are the end of the stream.
    for (direction, after) in [(Direction::Down, down - 1), (Direction::Down, 1), (Direction::Up, up - 1)] {
        server.dir.write("file", b"content");
        let relay = CuttingRelay::start(server.address, [Cut { direction, after }]).expect("a free port");
        let (result, retries) = gone(relay.address(), "file");
        let error = result.expect_err("no answer came");
        assert!(matches!(error, ClientError::Unanswered { .. }), "{direction:?} {after}: {error:?}");
        assert_eq!(ExitStatus::from(&error), ExitStatus::Failed);
        assert_eq!((retries, relay.accepted()), (0, 1), "{direction:?} {after}");
        let is_there = server.dir.join("file").exists();
        assert_eq!(is_there, (direction, after) != (Direction::Down, down - 1), "{direction:?} {after}");
    }
}

#[test]
fn what_nobody_heard_is_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let made = run(async |options, never, report| make_directory(&at(address, "new"), options, never, report).await);
    assert!(matches!(made.0, Err(ClientError::Connect(ConnectError::Connect { .. }))), "{made:?}");
    assert_eq!(made.1, 3);
}

#[test]
fn a_refusal_has_its_code() {
    let server = Server::start();
    server.dir.mkdir("dir/inner");
    let refused = |result: Result<(), ClientError>| match result {
        Err(ClientError::Transfer(TransferError::Refused(refusal))) => refusal.code,
        other => panic!("{other:?}"),
    };
    let dir = || at(server.address, "dir");
    let made = run(async |options, never, report| make_directory(&dir(), options, never, report).await);
    assert_eq!((refused(made.0), made.1), (RefusalCode::Exists, 0));
    let gone = run(async |options, never, report| remove(&dir(), false, options, never, report).await);
    assert_eq!((refused(gone.0), gone.1), (RefusalCode::NotEmpty, 0));
}
