//! What is said when something goes wrong: each error that a user can meet, made to happen, with its status and its advice.

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use common::{Ran, Scratch, Server, command, deltasync, noise};
use deltasync_core::ByteLen;
use deltasync_io::{BlockingStorage, LocalStorage};
use deltasync_proto::{Answer, Ask, FaultKind, StorageFault};
use deltasync_server::{ServerConfig, ServerLimits};

/// The run failed so, with this in its first line, and one line of advice that begins so.
#[track_caller]
fn check(ran: Ran, code: i32, message: &str, hint: &str) {
    let ran = ran.failed(code, message);
    let hints: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("hint: ")).collect();
    let [said] = &hints[..] else { panic!("one hint: {ran:?}") };
    assert!(said.starts_with(&format!("hint: {hint}")), "{ran:?}");
    assert_eq!(ran.stderr.lines().last(), Some(*said), "{ran:?}");
}

#[test]
fn without_a_server() {
    let dir = Scratch::new();
    dir.write("file", b"x");
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let push =
        |url: &str, more: &[&str]| deltasync(dir.path(), &[&["push", "file", url, "--retries=0"], more].concat());
    let ran = push(&format!("deltasync://{nobody}/"), &[]);
    check(ran, 3, "cannot connect to 127.0.0.1:", "check that deltasync-server runs there");
    let ran = push("deltasync://host.invalid/", &[]);
    check(ran, 3, "cannot find the address of host.invalid", "check the spelling of the host");

    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let other = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").expect("it reads");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let ran = push(&format!("deltasync://{address}/"), &[]);
    check(ran, 1, "connection to 127.0.0.1:", "check that it is a deltasync-server that listens there");
    other.join().expect("no panic");
}

#[test]
fn what_a_server_refuses() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.write("file", &noise(1, 1000));
    dir.mkdir("tree");
    server.dir.write("file", &noise(2, 1000));
    server.dir.mkdir("dir");
    let run = |args: &[&str]| deltasync(dir.path(), args);
    check(run(&["pull", &server.url("none"), "x"]), 4, "none", "`deltasync ls` shows what is there");
    check(run(&["ls", &server.url("none")]), 4, "none", "`deltasync ls` shows what is there");
    check(run(&["verify", "file", &server.url("dir")]), 4, "dir", "a DST with a `/` at its end is a directory");
    let absent = ["push", "file", &server.url("file"), "--if-match=absent"];
    check(
        run(&absent),
        4,
        "what is there now is not what was to be replaced",
        "nothing was changed; see what is there",
    );
    let differ = run(&["verify", "file", &server.url("file")]);
    check(differ, 5, "files differ", "`deltasync push` or `deltasync pull` makes them equal");
}

/// Has a fault where something is staged, or described.
struct Faulty {
    storage: LocalStorage,
    kind: FaultKind,
}

impl BlockingStorage for Faulty {
    fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
        match ask {
            Ask::Stage { .. } | Ask::Describe { .. } => Err(StorageFault::new(self.kind, "file: a fault")),
            ask => self.storage.answer(ask),
        }
    }
}

#[test]
fn what_goes_wrong_with_the_disk_of_a_server() {
    for (kind, verb, code, hint) in [
        (FaultKind::Denied, "push", 4, "choose another path, or let the user that the server runs as"),
        (FaultKind::Full, "push", 4, "free some space there; nothing was replaced"),
        (FaultKind::TooLarge, "push", 4, "whoever runs the server sets its limits"),
        (FaultKind::Other, "push", 4, "the server's log and its disk tell more"),
        (FaultKind::Damaged, "pull", 5, "`deltasync push` of a file with that root repairs it"),
    ] {
        let server = Server::with(ServerConfig::default(), |storage| Faulty { storage, kind });
        let dir = Scratch::new();
        dir.write("file", &noise(1, 100_000));
        let ran = match verb {
            "push" => deltasync(dir.path(), &["push", "file", &server.url("file")]),
            _ => deltasync(dir.path(), &["pull", &server.url("file"), "copy"]),
        };
        check(ran, code, "file", hint);
        assert!(!server.dir.join("file").exists() && !dir.join("copy").exists());
    }
}

#[test]
fn limits_of_a_server() {
    let dir = Scratch::new();
    dir.write("file", &noise(1, 100_000));
    let mut limits = ServerLimits::default();
    limits.file = ByteLen::new(50_000);
    let server = Server::with(ServerConfig::default().limits(limits), |storage| storage);
    let ran = deltasync(dir.path(), &["push", "file", &server.url("file")]);
    check(ran, 4, "over the limit of 50000", "whoever runs the server sets its limits");

    let mut limits = ServerLimits::default();
    limits.connections = 1;
    let server = Server::with(ServerConfig::default().limits(limits), |storage| storage);
    let _first = TcpStream::connect(server.address).expect("listening");
    let push = || deltasync(dir.path(), &["push", "file", &server.url("file"), "--retries=0"]);
    // It takes a moment until the first one is taken.
    let ran = (0..50).map(|_| push()).find(|ran| ran.code != Some(0)).expect("one is all it takes");
    check(ran, 4, "Busy", "try again later, or let it try longer by itself with --retries");
}

#[test]
fn files_of_this_machine() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.write("file", &noise(1, 100_000));
    dir.write("other", &[&noise(1, 100_000)[..], b"more"].concat());
    dir.write("third", &noise(3, 100_000));
    dir.mkdir("tree");
    let run = |args: &[&str]| deltasync(dir.path(), args);
    check(run(&["push", "none", &server.url("")]), 1, "cannot ", "check the spelling of the path");
    check(run(&["push", "file/x", &server.url("")]), 1, "cannot ", "a part of the path is a file");
    check(run(&["push", "file", "tree", "other"]), 2, "other is not a directory", "make that directory first");
    check(run(&["push", "file", "x", "--delete"]), 2, "--delete", "leave --delete out");
    check(run(&["signature", "file", "sig", "--block-len=1"]), 2, "cannot make", "leave --block-len out");

    let made = Command::new("mkfifo").arg(dir.join("tree/pipe")).status().expect("mkfifo");
    assert!(made.success());
    check(run(&["push", "tree/pipe", "x"]), 2, "neither a regular file", "devices, pipes and sockets have no content");
    check(run(&["push", "tree", "copy"]), 1, "left out: ", "all else is there; --exclude it");

    let full = File::options().write(true).open("/dev/full").expect("Linux");
    let mut signature = command(dir.path());
    let ran = signature.args(["signature", "file", "-"]).stdout(full).output().expect("it starts");
    check(Ran::new(ran), 1, "cannot write ", "free some space on this machine");

    run(&["signature", "file", "sig"]).fine();
    run(&["delta", "sig", "other", "delta"]).fine();
    check(run(&["patch", "third", "delta", "out"]), 5, "cannot patch", "check that it is the basis");
    check(run(&["patch", "file", "sig", "out"]), 5, "cannot patch", "make or fetch the delta again");
    check(
        run(&["delta", "file", "other", "delta"]),
        1,
        "cannot use signature file",
        "make it with `deltasync signature`",
    );
}
