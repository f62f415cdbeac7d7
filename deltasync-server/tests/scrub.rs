//! Damage on the disk of the real program: found when asked, found in the background, kept from who pulls, mended by who
//! pushes. All inside the sandbox, where this kernel has it.
#![cfg(target_os = "linux")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltasync_core::{Algorithm, Name, RelPath};
use deltasync_io::{Control, LocalOptions, LocalStorage, MemoryStorage, Report, Threads, drive, entropy};
use deltasync_proto::{
    Condition, Config, Destination, EventKind, Outcome, Place, RefusalCode, RootId, Session, TransferError, TransferId,
};
use deltasync_server::State;
use deltasync_testkit::Rng;
use serde_json::Value;
use support::{Server, get, until};
use tempfile::{TempDir, tempdir};
use tokio::sync::mpsc;

/// One transfer by a client that comes for it and goes.
fn transfer(
    server: SocketAddr,
    storage: &Arc<MemoryStorage>,
    push: bool,
    name: &str,
) -> Result<Outcome, TransferError> {
    let place = Place { root: RootId::new(0), path: RelPath::new(name.as_bytes()).expect("a path") };
    let command = if push {
        let name = Name::new(name.as_bytes()).expect("a name");
        let path = place.path.clone();
        deltasync_proto::Command::Push { source: place, name, path, directory: false, condition: Condition::Any }
    } else {
        let path = place.path.clone();
        let destination = Destination { place, name: Name::new(*b"unused").expect("a name"), directory: false };
        deltasync_proto::Command::Pull { path, destination, condition: Condition::Any }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server).await.expect("it listens");
        let (controls, steered) = mpsc::unbounded_channel();
        let (ends, mut ended) = mpsc::unbounded_channel();
        let after = controls.clone();
        let report = move |report| {
            if let Report::Event(deltasync_proto::Event { kind: EventKind::Ended(result), .. }) = report {
                let _ = ends.send(result);
                let _ = after.send(Control::Finish);
            }
        };
        let transfer = TransferId::new(1);
        controls.send(Control::Command { transfer, command }).expect("it runs");
        let session = Session::client(Config::default(), entropy().expect("the system has some"));
        let threads = Arc::new(Threads::new(storage.clone(), Threads::FEWEST));
        let driven = drive(session, stream, threads, steered, report);
        let _ = tokio::time::timeout(Duration::from_secs(60), driven).await.expect("it ends");
        ended.try_recv().expect("the transfer has ended")
    })
}

/// A client that has one file.
fn having(name: &str, bytes: &[u8]) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::new());
    storage.insert(RootId::new(0), RelPath::new(name.as_bytes()).expect("a path"), bytes.to_vec());
    storage
}

/// Changes one byte and no time that a program can set.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("it is there");
    let modified = file.metadata().expect("it is open").modified().expect("it has one");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is as long");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
    file.set_modified(modified).expect("set");
}

fn scrub_command(root: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltasync-server"));
    command.args(["scrub", "--root"]).arg(root).args(more).env_remove("RUST_LOG");
    command
}

/// The exit code, standard output and standard error of a scrub.
fn scrub(root: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let run = scrub_command(root, more).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (run.status.code(), text(run.stdout), text(run.stderr))
}

fn lines(json: &str) -> Vec<Value> {
    json.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
}

/// A directory that a server has served and left, with three files in it.
fn served() -> (TempDir, Vec<u8>) {
    let directory = tempdir().expect("a directory can be made");
    let server = Server::start_in(directory, &["--scrub-interval", "off"]);
    let bytes = Rng::new(5).bytes(1 << 20);
    for name in ["a.bin", "b.bin", "c.bin"] {
        transfer(server.clients, &having(name, &bytes), true, name).expect("it arrives");
    }
    server.signal("TERM");
    let (status, log, directory) = server.end_and_keep();
    assert_eq!(status.code(), Some(0), "{log}");
    (directory, bytes)
}

#[test]
fn what_a_running_server_has_lost_is_found_told_kept_back_and_mended() {
    let server = Server::start(&["--sandbox", "on", "--scrub-interval", "off"]);
    let at = server.dashboard.expect("it has one");
    let bytes = Rng::new(3).bytes(3 << 20);
    let client = having("a.bin", &bytes);
    transfer(server.clients, &client, true, "a.bin").expect("it arrives");
    let (code, told, log) = scrub(server.root.path(), &[]);
    assert_eq!((code, told.as_str()), (Some(0), "checked 1 file, 3.1 MB: all is well\n"), "{log}");

    flip(&server.root.path().join("a.bin"), 2_000_000);
    let (code, told, log) = scrub(server.root.path(), &["--json"]);
    assert_eq!(code, Some(5), "{log}");
    let told = lines(&told);
    let finding = told.iter().find(|line| line["event"] == "finding").expect("it is found");
    assert_eq!((&finding["kind"], &finding["path"]), (&"damaged".into(), &"a.bin".into()));
    let end = told.last().expect("it ends");
    assert_eq!((&end["event"], &end["damage"], &end["pass"]["damaged"]), (&"end".into(), &true.into(), &1.into()));
    let state = until(at, "/api/state", |answer| answer.json()["scrub"]["findings"][0]["path"] == "a.bin");
    let state: State = serde_json::from_str(&state.body).expect("a state");
    assert_eq!((state.scrub.total.files, state.scrub.total.damaged, state.scrub.pass.damaged), (2, 1, 1));
    assert!(state.scrub.running.is_empty() && state.scrub.finished > 0 && state.scrub.due == 0);
    let metrics = get(at, "/metrics").body;
    assert!(metrics.contains("deltasync_scrub_findings_total{kind=\"damaged\"} 1\n"), "{metrics}");

    let refused = transfer(server.clients, &Arc::new(MemoryStorage::new()), false, "a.bin").expect_err("it is damaged");
    let TransferError::Refused(refusal) = &refused else { panic!("{refused:?}") };
    assert_eq!(refusal.code, RefusalCode::Damaged);
    assert_eq!(refusal.current.expect("what it should be").root, Algorithm::Blake3.digest(&bytes));

    transfer(server.clients, &client, true, "a.bin").expect("it is mended");
    assert_eq!(fs::read(server.root.path().join("a.bin")).expect("it is there"), bytes);
    let puller = Arc::new(MemoryStorage::new());
    let outcome = transfer(server.clients, &puller, false, "a.bin").expect("it is right again");
    assert_eq!(outcome.root, Algorithm::Blake3.digest(&bytes));
    assert_eq!(scrub(server.root.path(), &[]).0, Some(0));
    server.signal("TERM");
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("ERROR") && log.contains("damaged"), "{log}");
}

#[test]
fn where_no_server_runs_the_command_does_it_and_the_next_server_knows() {
    let (directory, bytes) = served();
    let root = directory.path();
    assert_eq!(scrub(root, &[]).0, Some(0));
    flip(&root.join("b.bin"), 77);
    fs::remove_file(root.join("c.bin")).expect("it is there");
    let (code, told, log) = scrub(root, &["--rate", "100000000"]);
    assert_eq!(code, Some(5), "{log}");
    assert!(told.starts_with("damaged: b.bin: it should be "), "{told}");
    assert!(told.contains("gone: c.bin: ") && told.ends_with("1 damaged, 1 removed by other programs\n"), "{told}");
    let server = Server::start_in(directory, &["--scrub-interval", "off"]);
    let nothing = Arc::new(MemoryStorage::new());
    let refused = transfer(server.clients, &nothing, false, "b.bin").expect_err("it is damaged");
    assert!(matches!(&refused, TransferError::Refused(refusal) if refusal.code == RefusalCode::Damaged), "{refused:?}");
    transfer(server.clients, &having("b.bin", &bytes), true, "b.bin").expect("it is mended");
    transfer(server.clients, &nothing, false, "b.bin").expect("it is right again");
}

#[test]
fn a_server_finds_damage_by_itself_and_goes_on_after_a_restart() {
    let (directory, _) = served();
    flip(&directory.path().join("c.bin"), 1000);
    // A day is 86,400 s: two passes a second, each slow enough to be cut in its middle.
    let slow = ["--scrub-interval", "0.000005", "--scrub-rate", "1000000"];
    let server = Server::start_in(directory, &slow);
    let at = server.dashboard.expect("it has one");
    until(at, "/api/state", |answer| answer.json()["scrub"]["position"] == "b.bin");
    server.signal("TERM");
    let (status, log, directory) = server.end_and_keep();
    assert!(status.success() && log.contains("checking stored files"), "{log}");
    let server = Server::start_in(directory, &["--scrub-interval", "0.000005"]);
    let at = server.dashboard.expect("it has one");
    let state = until(at, "/api/state", |answer| answer.json()["scrub"]["findings"][0]["path"] == "c.bin");
    let state: State = serde_json::from_str(&state.body).expect("a state");
    assert!(state.scrub.pass.files < 3, "it went on after a.bin: {:?}", state.scrub);
    until(at, "/api/state", |answer| {
        let scrub = &answer.json()["scrub"];
        scrub["total"]["damaged"].as_u64() >= Some(2) && scrub["finished"].as_u64() > Some(0)
    });
}

/// A scrub that runs, and its lines.
struct Running {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(root: &Path, rate: &str) -> Self {
        let command = &mut scrub_command(root, &["--json", "--rate", rate]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, out }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("text");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn one_pass_at_a_time_and_who_goes_away_stops_his() {
    let (directory, _) = served();
    // One in the background that takes forever steps aside.
    let server = Server::start_in(directory, &["--scrub-interval", "0.000005", "--scrub-rate", "1000"]);
    let at = server.dashboard.expect("it has one");
    until(at, "/api/state", |answer| answer.json()["scrub"]["running"] == "background");
    let mut first = Running::start(server.root.path(), "1000");
    // It waits for a moment, until the other has stepped aside.
    while first.next()["event"] != "progress" {}
    until(at, "/api/state", |answer| answer.json()["scrub"]["running"] == "asked");
    let mut second = Running::start(server.root.path(), "100000000");
    assert_eq!(second.next()["event"], "waiting");
    let begun = Instant::now();
    drop(first);
    while second.next()["event"] != "end" {}
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(second.child.wait().expect("it ends").code(), Some(0));
    until(at, "/api/state", |answer| answer.json()["scrub"]["running"] == "background");
    server.signal("TERM");
    let begun = Instant::now();
    assert_eq!(server.end().0.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "the pass ends with the server: {:?}", begun.elapsed());
}

#[test]
fn nonsense_on_the_socket_is_answered_and_harms_nobody() {
    let server = Server::start(&["--scrub-interval", "off"]);
    let socket = server.root.path().join(".deltasync/control");
    // It is there a moment after the server is.
    let until = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        assert!(Instant::now() < until, "there is no socket");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mode = |path: &Path| fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().expect("it has one"))), (0o600, 0o700));
    let long = [b"x".repeat(10_000), b"\n".to_vec()].concat();
    for question in [&b"\n"[..], b"hello\n", b"{\"scrub\":{\"rate\":-1}}\n", b"{\"stop\":{}}\n", b"\xff\xfe\n", &long] {
        let mut stream = UnixStream::connect(&socket).expect("it listens");
        // It may have heard enough before the end.
        let _ = stream.write_all(question);
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let is_error = answer.starts_with("{\"event\":\"error\"") && answer.lines().count() == 1;
        assert!(is_error || answer.is_empty() && (read.is_err() || question[0] == 0xff), "{question:?}: {answer}");
    }
    // More of them than are served at a time, who say nothing: the next in line waits, and clients do not.
    let silent: Vec<_> = (0..20).map(|_| UnixStream::connect(&socket).expect("it listens")).collect();
    let client = having("a", b"content");
    transfer(server.clients, &client, true, "a").expect("it arrives");
    drop(silent);
    assert_eq!(scrub(server.root.path(), &[]).0, Some(0));
}

#[test]
fn what_cannot_be_scrubbed_is_told_with_exit_code_1() {
    let check = |root: &Path, what: &str| {
        let (code, told, log) = scrub(root, &[]);
        assert!(code == Some(1) && told.is_empty() && log.contains(what), "{code:?} {told} {log}");
    };
    check(Path::new("/nowhere/at/all"), "cannot scrub /nowhere/at/all: No such file");
    let directory = tempdir().expect("a directory can be made");
    check(directory.path(), "no server has ever served it");
    assert!(!directory.path().join(".deltasync").exists(), "and nothing is left there");
    // One that has the lock and does not listen.
    let _storage = LocalStorage::serve(directory.path(), LocalOptions::default()).expect("it can be served");
    check(directory.path(), "does not listen");
    let usage = Command::new(env!("CARGO_BIN_EXE_deltasync-server")).arg("scrub").output().expect("it runs");
    assert_eq!(usage.status.code(), Some(2));
    for interval in ["0", "-1", "x", "1e9"] {
        let command = &mut Command::new(env!("CARGO_BIN_EXE_deltasync-server"));
        let usage = command.args(["--root", ".", "--scrub-interval", interval]).output().expect("it runs");
        assert_eq!(usage.status.code(), Some(2), "{interval}");
    }
}
