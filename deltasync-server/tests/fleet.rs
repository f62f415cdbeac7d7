//! The dashboard over several servers, one of them honest, one gone, one hostile.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use deltasync_proto::{Phase, Verb};
use deltasync_server::Fleet;
use support::{Answer, Dashboard, connect, done, get, progress, started, until};

/// The program, ended when dropped.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start(servers: &[SocketAddr]) -> Self {
        Self::start_with(servers, &[])
    }

    fn start_with(servers: &[SocketAddr], more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_deltasync-dashboard"))
            .args(["--listen", "127.0.0.1:0", "--server"])
            .args(servers.iter().map(SocketAddr::to_string))
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("it is piped");
        while !line.ends_with('\n') {
            let mut byte = [0];
            out.read_exact(&mut byte).expect("a ready line comes");
            line.push(byte[0].into());
        }
        let address = line.trim().strip_prefix("dashboard on http://").and_then(|rest| rest.strip_suffix('/'));
        let address = address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("ready line {line:?}"));
        Self { child, address }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().expect("it can be ended");
        self.child.wait().expect("it has ended");
    }
}

fn fleet(answer: &Answer) -> Fleet {
    serde_json::from_str(&answer.body).expect("a fleet")
}

#[test]
fn several_servers_are_shown_beside_each_other() {
    let one = Dashboard::start(&[]);
    let client = connect(&one.board, 1);
    started(&one.board, client, 1, Verb::Push, "one.bin");
    progress(&one.board, client, 1, Phase::Matching, 10, [5, 0, 0]);
    let other = Dashboard::start(&[]);
    let client = connect(&other.board, 2);
    started(&other.board, client, 1, Verb::Pull, "other.bin");
    done(&other.board, client, 1, 1_000, 10, 20);

    let program = Program::start(&[one.address, other.address]);
    // What a server answers with may have been taken between any two of these events.
    let good = |answer: &Answer| {
        let states: Vec<_> = fleet(answer).servers.into_iter().filter_map(|server| server.state).collect();
        states.len() == 2 && states[0].transfers.iter().any(|t| t.total == 10) && states[1].totals.pull.done == 1
    };
    let fleet = fleet(&until(program.address, "/api/state", good));
    assert_eq!(fleet.servers[0].address, one.address.to_string());
    let states: Vec<_> = fleet.servers.iter().map(|server| server.state.as_ref().expect("it answered")).collect();
    assert_eq!((states[0].transfers[0].path.as_str(), states[0].transfers[0].phase.as_str()), ("one.bin", "matching"));
    assert_eq!((states[1].history[0].path.as_str(), states[1].totals.copied), ("other.bin", 990));
    let page = get(program.address, "/");
    assert!(page.body.contains("/dashboard.js") && page.header("content-security-policy").is_some());
    let metrics = get(program.address, "/metrics").body;
    assert!(metrics.contains(&format!("deltasync_server_up{{server=\"{}\"}} 1\n", other.address)), "{metrics}");
}

#[test]
fn a_server_with_a_token_is_asked_with_it() {
    let server = Dashboard::start_with_token("a-secret-of-some-length");
    let directory = tempfile::tempdir().expect("a directory can be made");
    let file = directory.path().join("token");
    std::fs::write(&file, "a-secret-of-some-length\n").expect("room");
    let knows = Program::start_with(&[server.address], &["--server-token-file", &file.display().to_string()]);
    until(knows.address, "/api/state", |answer| fleet(answer).servers[0].reachable);
    let knows_not = Program::start(&[server.address]);
    let told = |answer: &Answer| fleet(answer).servers[0].error.as_deref().is_some_and(|error| error.contains("token"));
    until(knows_not.address, "/api/state", told);
}

#[test]
fn a_server_that_goes_away_is_shown_as_such_and_what_it_said_stays() {
    let one = Dashboard::start(&[]);
    let client = connect(&one.board, 1);
    started(&one.board, client, 1, Verb::Push, "kept.bin");
    done(&one.board, client, 1, 1_000, 10, 20);
    let program = Program::start(&[one.address]);
    let kept = |fleet: &Fleet| fleet.servers[0].state.as_ref().is_some_and(|state| !state.history.is_empty());
    until(program.address, "/api/state", |answer| kept(&fleet(answer)));
    drop(one);
    let fleet = fleet(&until(program.address, "/api/state", |answer| !fleet(answer).servers[0].reachable));
    assert!(kept(&fleet));
    assert!(fleet.servers[0].error.is_some(), "{fleet:?}");
}

/// Answers every connection with the same bytes.
fn answering(bytes: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&bytes);
        }
    });
    address
}

#[test]
fn a_hostile_server_is_an_error_and_no_more() {
    let endless = [b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec(), vec![b' '; 5 << 20]].concat();
    let head = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 1 << 20]].concat();
    let moved = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n".to_vec();
    let page = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n<html></html>".to_vec();
    let cases = [endless, head, moved, page, b"SSH-2.0-x\r\n".to_vec()];
    let addresses: Vec<SocketAddr> = cases.into_iter().map(answering).collect();
    let program = Program::start(&addresses);
    let asked = |answer: &Answer| {
        fleet(answer).servers.iter().all(|server| server.error.as_deref().is_some_and(|error| error != "not asked yet"))
    };
    let fleet = fleet(&until(program.address, "/api/state", asked));
    let errors: Vec<&str> = fleet.servers.iter().filter_map(|server| server.error.as_deref()).collect();
    assert_eq!(errors[0], "its answer has more than 4194304 bytes");
    assert!(errors[1].starts_with("its answer is no HTTP"), "{errors:?}");
    assert_eq!(errors[2], "it answered 302 Found");
    assert!(errors[3].starts_with("its answer is no state of a deltasync server"), "{errors:?}");
    assert!(errors[4].starts_with("its answer is no HTTP"), "{errors:?}");
    assert!(fleet.servers.iter().all(|server| !server.reachable && server.state.is_none()));
}
