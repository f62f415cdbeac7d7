//! Real sessions against the real program: what arrives on its disk, and what its dashboard says about it.

mod support;

use std::time::Duration;

use deltasync_core::Algorithm;
use deltasync_io::DriveError;
use deltasync_proto::{CloseCode, SessionError};
use deltasync_server::State;
use support::client::{Client, noise};
use support::{Answer, Server, get, until};

fn parse(answer: &Answer) -> State {
    serde_json::from_str(&answer.body).expect("a state")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_and_another_after_an_edit_arrive_and_are_told_with_their_savings() {
    let server = Server::start(&[]);
    let at = server.dashboard.expect("it has one");
    let mut client = Client::connect(server.clients).await;
    let mut bytes = noise(4 << 20, 7);
    client.push("a.bin", bytes.clone());
    client.ended().await.expect("it arrives");
    bytes[2_000_000..2_000_100].fill(0);
    client.push("a.bin", bytes.clone());
    client.ended().await.expect("it arrives");
    assert_eq!(std::fs::read(server.root.path().join("a.bin")).expect("it is there"), bytes);
    let stats = client.finish().await;

    tokio::task::spawn_blocking(move || {
        // What is published may be from before the client came: it has come and gone when both are told.
        let gone = |state: &State| state.totals.sessions == 1 && state.server.clients == 0;
        until(at, "/api/state", |answer| gone(&parse(answer)));
        let state = parse(&get(at, "/api/state"));
        assert_eq!((state.totals.push.done, state.totals.push.failed, state.totals.sessions_failed), (2, 0, 0));
        assert_eq!(state.totals.file_bytes, 2 * (4 << 20));
        assert_eq!(state.history[0].path, "a.bin");
        assert!(state.history[0].literal < 100_000, "{:?}", state.history[0]);
        assert_eq!((state.totals.wire_received, state.totals.wire_sent), (stats.wire_sent, stats.wire_received));
        assert!(state.errors.is_empty(), "{:?}", state.errors);
    })
    .await
    .expect("as it should be");
}

/// Brings a client up to date that is two versions behind; returns how often it waited.
async fn pull_after_two_pushes(more: &[&str]) -> u32 {
    let server = Server::start(more);
    let mut bytes = noise(4 << 20, 7);
    let mut reader = Client::connect(server.clients).await;
    let mut writer = Client::connect(server.clients).await;
    for version in 0..3 {
        bytes[version * 1_000_000] ^= 1;
        writer.push("a.bin", bytes.clone());
        writer.ended().await.expect("it arrives");
        if version == 0 {
            reader.pull("a.bin");
            reader.ended().await.expect("it arrives");
            reader = Client::connect_with(server.clients, reader.storage).await;
        }
    }
    writer.finish().await;
    reader.pull("a.bin");
    let outcome = reader.ended().await.expect("it arrives");
    assert_eq!(outcome.root, Algorithm::Blake3.digest(&bytes));
    let stats = reader.finish().await;
    assert!(stats.wire_received < 20_000, "{stats:?}");
    assert_eq!(outcome.known, stats.round_trips == 1);
    stats.round_trips
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_save_a_round_trip_unless_none_are_kept() {
    assert_eq!(pull_after_two_pushes(&[]).await, 1);
    assert_eq!(pull_after_two_pushes(&["--history", "20000000"]).await, 1);
    assert_eq!(pull_after_two_pushes(&["--history", "0"]).await, 2);
    assert_eq!(pull_after_two_pushes(&["--history", "1000000"]).await, 2, "less than one version");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_a_running_push_end_and_takes_no_new_client() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.clients).await;
    let bytes = noise(64 << 20, 11);
    client.push("big.bin", bytes.clone());
    while client.moved.recv().await.expect("it moves") == 0 {}
    server.signal("TERM");
    client.ended().await.expect("it arrives all the same");
    assert_eq!(std::fs::read(server.root.path().join("big.bin")).expect("it is there"), bytes);
    assert!(tokio::net::TcpStream::connect(server.clients).await.is_err(), "it takes no more");
    let end = client.driven.await.expect("no panic").expect_err("the server says why it goes");
    let said = matches!(&end, DriveError::Session(SessionError::ClosedByPeer { code: CloseCode::ShuttingDown, .. }));
    assert!(said, "{end}");
    let (status, log) = tokio::task::spawn_blocking(move || server.end()).await.expect("no panic");
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("transfer done") && !log.contains("cut off") && !log.contains("connection failed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_client_does_not_hold_up_the_end() {
    let server = Server::start(&[]);
    let mut client = Client::connect(server.clients).await;
    client.push("small.txt", b"hello".to_vec());
    client.ended().await.expect("it arrives");
    server.signal("TERM");
    let (status, log) = tokio::task::spawn_blocking(move || server.end()).await.expect("no panic");
    assert_eq!(status.code(), Some(0));
    assert!(!log.contains("cut off"), "{log}");
}

/// Waits until the directory holds a history that has come after `begin`.
fn kept_since(root: &std::path::Path, begin: std::time::SystemTime) {
    let file = root.join(".deltasync/dashboard.kept");
    let written = || std::fs::metadata(&file).and_then(|is| is.modified()).is_ok_and(|at| at > begin);
    for _ in 0..400 {
        if written() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("nothing is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_survives_a_stop_and_a_kill() {
    let mut root = tempfile::tempdir().expect("a directory can be made");
    for (round, signal) in ["TERM", "KILL", "TERM"].into_iter().enumerate() {
        let server = tokio::task::spawn_blocking(move || Server::start_in(root, &[])).await.expect("no panic");
        let at = server.dashboard.expect("it has one");
        let begin = std::time::SystemTime::now();
        let mut client = Client::connect(server.clients).await;
        client.push(&format!("round-{round}.bin"), noise(100_000, 3));
        client.ended().await.expect("it arrives");
        client.finish().await;
        let look = move || {
            let there = |answer: &Answer| parse(answer).history.len() == round + 1;
            let state = parse(&until(at, "/api/state", there));
            let numbers: Vec<u64> = state.history.iter().map(|ended| ended.number).collect();
            assert_eq!(numbers, (1..=round as u64 + 1).rev().collect::<Vec<_>>());
            assert_eq!(state.history[round].path, "round-0.bin");
            assert_eq!(state.savings.day.file, 100_000 * (round as u64 + 1));
            assert_eq!((state.totals.push.done, state.server.disk_total > 0), (1, true));
            if signal == "KILL" {
                kept_since(server.root.path(), begin);
            }
            server.signal(signal);
            server.end_and_keep().2
        };
        root = tokio::task::spawn_blocking(look).await.expect("as it should be");
    }
}
