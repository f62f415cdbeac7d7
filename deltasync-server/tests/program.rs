//! The program itself: its ready lines, its signals, its exit codes.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use deltasync_core::Limits;
use deltasync_proto::{CloseCode, FrameDecoder, Message};
use support::{Server, get, until};

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
