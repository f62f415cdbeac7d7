//! The program itself: its ready lines, its signals, its exit codes.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use deltasync_core::Limits;
use deltasync_proto::{CloseCode, FrameDecoder, Message};
use support::{get, until};

/// A server on free ports over an empty directory, ended when dropped.
struct Server {
    child: Child,
    clients: SocketAddr,
    dashboard: Option<SocketAddr>,
    _root: tempfile::TempDir,
}

impl Server {
    fn start(more: &[&str]) -> Self {
        let root = tempfile::tempdir().expect("a directory can be made");
        let mut child = Command::new(env!("CARGO_BIN_EXE_deltasync-server"))
            .args(["--listen", "127.0.0.1:0", "--root"])
            .arg(root.path())
            .args(more)
            .args(if more.contains(&"off") { &[][..] } else { &["--dashboard", "127.0.0.1:0"] })
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut ready = |start: &str| {
            let mut line = String::new();
            out.read_line(&mut line).expect("it can be read");
            let address = line.strip_prefix(start).unwrap_or_else(|| panic!("{start} in {line:?}")).trim_end();
            address.trim_end_matches('/').parse().expect("an address")
        };
        let clients = ready("listening on ");
        let dashboard = (!more.contains(&"off")).then(|| ready("dashboard on http://"));
        Self { child, clients, dashboard, _root: root }
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
    }

    /// How it ended and what it had logged.
    fn end(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + Duration::from_secs(20);
        let status = loop {
            match self.child.try_wait().expect("it can be waited for") {
                Some(status) => break status,
                None => assert!(Instant::now() < until, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut log = String::new();
        self.child.stderr.take().expect("it is piped").read_to_string(&mut log).expect("text");
        (status, log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn both_signals_end_it_well() {
    for signal in ["TERM", "INT"] {
        let server = Server::start(&[]);
        assert_eq!(get(server.dashboard.expect("it has one"), "/healthz").status, 200);
        server.signal(signal);
        let (status, log) = server.end();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("stopped"), "{log}");
    }
}

#[test]
fn the_log_can_be_json_and_the_dashboard_off() {
    let server = Server::start(&["--log-format", "json", "--dashboard", "off"]);
    drop(TcpStream::connect(server.clients).expect("it listens"));
    std::thread::sleep(Duration::from_millis(200));
    server.signal("TERM");
    let (status, log) = server.end();
    assert_eq!(status.code(), Some(0));
    assert!(log.contains("client connected"), "{log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("one JSON object a line");
        assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
    }
}

#[test]
fn one_client_too_many_is_told_so() {
    let server = Server::start(&["--max-connections", "1", "--shutdown-timeout", "0"]);
    let _first = TcpStream::connect(server.clients).expect("it listens");
    let at = server.dashboard.expect("it has one");
    until(at, "/api/state", |answer| answer.json()["server"]["clients"] == 1);
    let mut second = TcpStream::connect(server.clients).expect("it listens");
    second.write_all(b"whatever it says first").expect("it is read");
    let mut bytes = Vec::new();
    second.read_to_end(&mut bytes).expect("it is answered and closed");
    let mut decoder = FrameDecoder::new(1 << 16);
    decoder.push(&bytes);
    let frame = decoder.next_frame().expect("a frame").expect("a whole one");
    let Ok(Message::Close(close)) = Message::decode(&frame, &Limits::default()) else { panic!("no close: {bytes:?}") };
    assert_eq!(close.code, CloseCode::Busy);
    until(at, "/api/state", |answer| answer.json()["totals"]["sessions_refused"] == 1);
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));
}

#[test]
fn random_bytes_are_an_error_on_the_board_and_the_next_client_is_served() {
    let server = Server::start(&[]);
    let mut noise = TcpStream::connect(server.clients).expect("it listens");
    noise.write_all(&[0xa7; 100_000]).expect("it is read");
    let _ = noise.read_to_end(&mut Vec::new());
    let at = server.dashboard.expect("it has one");
    let state = until(at, "/api/state", |answer| answer.json()["totals"]["sessions_failed"] == 1).json();
    assert!(state["errors"][0]["message"].as_str().is_some_and(|message| !message.is_empty()), "{state}");
    let _next = TcpStream::connect(server.clients).expect("it still listens");
    until(at, "/api/state", |answer| answer.json()["server"]["clients"] == 1);
}

#[test]
fn exit_codes_tell_usage_from_failure() {
    let code = |args: &[&str]| {
        let run = Command::new(env!("CARGO_BIN_EXE_deltasync-server")).args(args).output().expect("it runs");
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    let (status, text) = code(&[]);
    assert!(status == Some(2) && text.contains("--root"), "{text}");
    let (status, text) = code(&["--root", "/nowhere/at/all"]);
    assert!(status == Some(1) && text.contains("cannot serve /nowhere/at/all"), "{text}");
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let taken = held.local_addr().expect("it is bound").to_string();
    let root = tempfile::tempdir().expect("a directory can be made");
    let (status, text) = code(&["--root", &root.path().display().to_string(), "--listen", &taken]);
    assert!(status == Some(1) && text.contains(&format!("cannot listen on {taken}")), "{text}");
    drop(held);
    let (status, text) = code(&["--help"]);
    assert!(status == Some(0) && text.is_empty());
}
