//! What the tests share: a small HTTP client that shows every byte, and made-up events for a board.
#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod client;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltasync_core::{ByteLen, Offset, Placed, RelPath};
use deltasync_proto::{Event, EventKind, Outcome, Phase, Progress, Stats, TransferError, TransferId, Verb};
use deltasync_server::{Access, ClientId, Guard, SharedBoard, Token, serve_dashboard};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A name that tries everything: markup, an attribute, control characters, marks that turn the direction.
pub(crate) const HOSTILE: &str = "x\"'><img src=x onerror=alert(1)>\n\r\t\u{1b}[31m\u{202e}gpj.exe\u{2066}\u{200b}";

/// A dashboard over a board of its own, on a free port.
pub(crate) struct Dashboard {
    pub(crate) address: SocketAddr,
    pub(crate) board: Arc<SharedBoard>,
    _runtime: Runtime,
}

impl Dashboard {
    pub(crate) fn start(hosts: &[&str]) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), hosts)
    }

    pub(crate) fn start_at(address: SocketAddr, hosts: &[&str]) -> Self {
        Self::start_guarded(address, hosts, &Guard::Loopback)
    }

    /// One that lets in only who knows this token.
    pub(crate) fn start_with_token(token: &str) -> Self {
        let guard = Guard::Token(Token::new(token).expect("a token"));
        Self::start_guarded(SocketAddr::from(([127, 0, 0, 1], 0)), &[], &guard)
    }

    fn start_guarded(address: SocketAddr, hosts: &[&str], guard: &Guard) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let board = SharedBoard::new(SocketAddr::from(([127, 0, 0, 1], 7440)));
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let access = Access::new(address, &hosts, guard).expect("loopback is always fine");
        runtime.spawn(serve_dashboard(listener, board.clone(), access));
        Self { address, board, _runtime: runtime }
    }
}

pub(crate) fn connect(board: &SharedBoard, port: u16) -> ClientId {
    board.with(|board, now| board.connected(now, SocketAddr::from(([192, 0, 2, 1], port))))
}

fn tell(board: &SharedBoard, client: ClientId, transfer: u32, kind: EventKind) {
    let event = Event { transfer: TransferId::new(transfer), kind };
    board.with(|board, now| board.event(now, client, event));
}

pub(crate) fn started(board: &SharedBoard, client: ClientId, transfer: u32, verb: Verb, path: &str) {
    let path = RelPath::new(path.as_bytes()).expect("a path");
    tell(board, client, transfer, EventKind::Started { verb, path });
}

pub(crate) fn progress(
    board: &SharedBoard,
    client: ClientId,
    transfer: u32,
    phase: Phase,
    total: u64,
    parts: [u64; 3],
) {
    let [copied, literal, wire] = parts.map(ByteLen::new);
    let progress = Progress { total: ByteLen::new(total), copied, literal, wire };
    tell(board, client, transfer, EventKind::Phase(phase));
    tell(board, client, transfer, EventKind::Progress(progress));
}

/// Ranges of a target of `total` bytes: how long each is, and whether it was there already.
pub(crate) fn placed(board: &SharedBoard, client: ClientId, transfer: u32, total: u64, ranges: &[(u64, bool)]) {
    let mut at = Offset::ZERO;
    let range = |&(len, copied): &(u64, bool)| {
        let len = ByteLen::new(len);
        let range = Placed { at, len, copied: if copied { len } else { ByteLen::ZERO } };
        at += len;
        range
    };
    let ranges = ranges.iter().map(range).collect();
    tell(board, client, transfer, EventKind::Placed { total: ByteLen::new(total), ranges });
}

pub(crate) fn repairing(board: &SharedBoard, client: ClientId, transfer: u32) {
    tell(board, client, transfer, EventKind::Repairing);
}

pub(crate) fn done(board: &SharedBoard, client: ClientId, transfer: u32, total: u64, literal: u64, wire: u64) {
    let len = ByteLen::new;
    let progress = Progress { total: len(total), copied: len(total - literal), literal: len(literal), wire: len(wire) };
    let outcome = Outcome { len: len(total), progress, ..Outcome::default() };
    tell(board, client, transfer, EventKind::Ended(Ok(outcome)));
}

pub(crate) fn failed(board: &SharedBoard, client: ClientId, transfer: u32, error: TransferError) {
    tell(board, client, transfer, EventKind::Ended(Err(error)));
}

/// A board with something of everything on it.
pub(crate) fn busy() -> Dashboard {
    let dashboard = Dashboard::start(&["board.example"]);
    let board = &dashboard.board;
    let client = connect(board, 50_001);
    board.with(|b, now| b.carried(now, client, Stats { wire_sent: 300, wire_received: 4_000, round_trips: 2 }));
    started(board, client, 1, Verb::Push, "docs/report.pdf");
    done(board, client, 1, 10_000, 400, 512);
    started(board, client, 2, Verb::Pull, HOSTILE);
    failed(board, client, 2, TransferError::ConnectionLost(HOSTILE.to_owned()));
    started(board, client, 3, Verb::Push, "docs/now.bin");
    progress(board, client, 3, Phase::Moving, 1_000, [500, 100, 120]);
    // A state may have been taken between any two of these events.
    until(dashboard.address, "/api/state", |answer| answer.json()["transfers"][0]["wire"] == 120);
    dashboard
}

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// Sends a request as it stands, and reads the answer until the connection ends.
pub(crate) fn send(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("it answers and closes");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    send(address, &format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"))
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path)
}

/// Asks until the answer is as it should be; what is shown may be a moment old.
pub(crate) fn until(address: SocketAddr, path: &str, good: impl Fn(&Answer) -> bool) -> Answer {
    for _ in 0..200 {
        let answer = get(address, path);
        if good(&answer) {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{path} never came right: {:?}", get(address, path));
}

/// A server on free ports over an empty directory, ended when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) clients: SocketAddr,
    pub(crate) dashboard: Option<SocketAddr>,
    pub(crate) root: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory can be made"), more)
    }

    pub(crate) fn start_in(root: tempfile::TempDir, more: &[&str]) -> Self {
        Self::start_as(root, "info", more)
    }

    /// In a directory of its own, logging only so much.
    pub(crate) fn start_logging(level: &str, more: &[&str]) -> Self {
        Self::start_as(tempfile::tempdir().expect("a directory can be made"), level, more)
    }

    fn start_as(root: tempfile::TempDir, level: &str, more: &[&str]) -> Self {
        let dashboard = !more.windows(2).any(|pair| pair == ["--dashboard", "off"]);
        let mut child = Command::new(env!("CARGO_BIN_EXE_deltasync-server"))
            .args(["--listen", "127.0.0.1:0", "--root"])
            .arg(root.path())
            .args(more)
            .args(if dashboard { &["--dashboard", "127.0.0.1:0"][..] } else { &[] })
            .env("RUST_LOG", level)
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
        let dashboard = dashboard.then(|| ready("dashboard on http://"));
        Self { child, clients, dashboard, root }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// A field of what the system says of its memory, in bytes.
    pub(crate) fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(field)).expect("Linux tells");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
    }

    /// How it ended and what it had logged.
    pub(crate) fn end(self) -> (ExitStatus, String) {
        let (status, log, _) = self.end_and_keep();
        (status, log)
    }

    /// The same, and its directory.
    pub(crate) fn end_and_keep(mut self) -> (ExitStatus, String, tempfile::TempDir) {
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
        let root = std::mem::replace(&mut self.root, tempfile::tempdir().expect("a directory can be made"));
        (status, log, root)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
