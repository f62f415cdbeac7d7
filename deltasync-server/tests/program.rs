//! The program itself: its ready lines, its signals, its exit codes.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use deltasync_core::Limits;
use deltasync_proto::{Close, CloseCode, FrameDecoder, Hello, Message, VERSION};
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

/// The closing frame at the end of what a server said.
fn closing(bytes: &[u8]) -> Close {
    let mut decoder = FrameDecoder::new(1 << 16);
    decoder.push(bytes);
    while let Some(frame) = decoder.next_frame().expect("a frame") {
        if let Ok(Message::Close(close)) = Message::decode(&frame, &Limits::default()) {
            return close;
        }
    }
    panic!("no close: {bytes:?}");
}

#[test]
fn one_address_takes_only_its_own_places() {
    let server = Server::start(&["--limit-loopback", "--max-connections-per-address", "2"]);
    let _held = [(); 2].map(|()| TcpStream::connect(server.clients).expect("it listens"));
    let at = server.dashboard.expect("it has one");
    until(at, "/api/state", |answer| answer.json()["server"]["clients"] == 2);
    let mut third = TcpStream::connect(server.clients).expect("it listens");
    let mut bytes = Vec::new();
    third.read_to_end(&mut bytes).expect("it is answered and closed");
    let close = closing(&bytes);
    assert_eq!(close.code, CloseCode::Busy);
    assert!(close.message.contains("all 2 connections of your address"), "{}", close.message);
    let state = until(at, "/api/state", |answer| answer.json()["totals"]["sessions_refused"] == 1).json();
    assert_eq!(state["server"]["clients"], 2, "nobody else is disturbed");
}

#[test]
fn who_says_no_hello_and_who_does_nothing_is_ended_as_the_flags_say() {
    let server = Server::start(&["--handshake-timeout", "1", "--idle-timeout", "2"]);
    let at = server.dashboard.expect("it has one");
    let hello = Message::Hello(Hello::ours(VERSION, [7; 16])).encode().head;
    for (said, seconds, text) in
        [(&hello[..7], 1.0, "no hello from the peer within"), (&hello[..], 2.0, "no transfer from the peer within 2s")]
    {
        let begin = Instant::now();
        let mut stream = TcpStream::connect(server.clients).expect("it listens");
        stream.write_all(said).expect("it is read");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("it is told and closed");
        let close = closing(&bytes);
        assert_eq!(close.code, CloseCode::TimedOut);
        assert!(close.message.contains(text), "{}", close.message);
        let after = begin.elapsed().as_secs_f32();
        assert!((seconds - 0.1..seconds + 8.0).contains(&after), "{after} s");
    }
    let state = until(at, "/api/state", |answer| answer.json()["totals"]["sessions_timed_out"] == 2).json();
    assert_eq!(state["totals"]["sessions_failed"], 1, "being idle is no failure");
    assert!(get(at, "/metrics").body.contains("\ndeltasync_sessions_timed_out_total 2\n"));
}

#[test]
fn every_limit_is_told_with_its_default() {
    let run = Command::new(env!("CARGO_BIN_EXE_deltasync-server")).arg("--help").output().expect("it runs");
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    for (flag, default) in [
        ("--max-connections", "8192"),
        ("--max-connections-per-address", "64"),
        ("--max-requests", "5000"),
        ("--max-requests-per-address", "10000"),
        ("--max-transfers", "256"),
        ("--max-memory", "134217728"),
        ("--max-file", "17592186044416"),
        ("--handshake-timeout", "10"),
        ("--idle-timeout", "600"),
        ("--stall-timeout", "30"),
    ] {
        let at = text.find(&format!("{flag} <")).unwrap_or_else(|| panic!("{flag} in\n{text}"));
        assert!(text[at..].contains(&format!("[default: {default}]")), "{flag}");
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
    let close = closing(&bytes);
    assert_eq!(close.code, CloseCode::Busy);
    assert!(close.message.contains("all 1 connections of this server"), "{}", close.message);
    until(at, "/api/state", |answer| answer.json()["totals"]["sessions_refused"] == 1);
    server.signal("TERM");
    assert_eq!(server.end().0.code(), Some(0));
}

#[test]
fn a_dashboard_for_other_machines_has_a_token_or_is_said_to_be_open() {
    let root = tempfile::tempdir().expect("a directory can be made");
    let token = root.path().join("token");
    std::fs::write(&token, "a-secret-of-some-length\n").expect("room");
    let program = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deltasync-server"));
        command.args(["--listen", "127.0.0.1:0", "--dashboard", "0.0.0.0:0", "--root"]).arg(root.path()).args(more);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command
    };
    let refused = program(&[]).output().expect("it runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("--dashboard-token-file"), "{said}");
    let missing = program(&["--dashboard-token-file", "/nowhere/at/all"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(missing.status.code() == Some(1) && said.contains("/nowhere/at/all"), "{said}");
    for more in [&["--dashboard-open"][..], &["--dashboard-token-file", &token.display().to_string()]] {
        let mut server = program(more).spawn().expect("it starts");
        let mut lines = BufReader::new(server.stdout.take().expect("it is piped")).lines();
        let ready = lines.nth(1).expect("a second line").expect("text");
        server.kill().and_then(|()| server.wait()).expect("it ends");
        assert!(ready.starts_with("dashboard on http://0.0.0.0:"), "{ready}");
    }
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
