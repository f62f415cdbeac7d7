//! The server killed at any moment, 200 times: nothing acknowledged is lost, no file is ever half of one, generations
//! only grow, and what was being staged does not stay, but for what can be gone on from.
//!
//! A client pushes without a pause: a file of several megabytes as deltas and anew, and many small ones at once. The
//! moments come from a seed. Half of them lie anywhere, half right after all of a target was sent, where its commit is
//! next and a kill hurts most; and some lie in the start of the server itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deltasync_proto::TransferError;
use deltasync_testkit::Rng;
use tempfile::TempDir;

use crate::client::{Client, Told, path};
use crate::ledger::{Attempt, Ledger, names};
use crate::served::Served;

const RUNS: usize = 200;

/// Where targets are made, in a served directory.
const STAGING: &str = ".deltasync/staging";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute"]
async fn nothing_acknowledged_is_lost_by_a_kill_at_any_moment() {
    let mut phases = BTreeMap::new();
    for seed in 0..4 {
        let directory = TempDir::new().expect("a directory");
        let ledger = Arc::new(Mutex::new(Ledger::new(seed)));
        let mut rng = Rng::new(!seed);
        for run in 0..RUNS / 4 {
            let phase = check_kill(directory.path(), &ledger, &mut rng).await;
            *phases.entry(phase).or_insert(0) += 1;
            // What the message of a failure does not say.
            println!("seed {seed}, run {run}: {phase}");
        }
    }
    println!("killed {RUNS} times: {phases:?}");
    for phase in ["staging", "staged whole", "published, and nobody told"] {
        assert!(phases.contains_key(phase), "no kill came while {phase}: {phases:?}");
    }
}

/// Lets a client push, kills the server at some moment, and starts it again; returns what the kill came into.
async fn check_kill(root: &Path, ledger: &Arc<Mutex<Ledger>>, rng: &mut Rng) -> &'static str {
    if rng.below(8) == 0 {
        let mut starting = Served::begin(root);
        tokio::time::sleep(Duration::from_micros(rng.below(15_000) as u64)).await;
        starting.kill().expect("it runs");
        starting.wait().expect("it ends");
        ledger.lock().expect("no panic").check(root);
        check_restart(root, ledger).await;
        return "starting";
    }
    let history = ["0", "20000000"][rng.below(2)];
    let server = Served::start_with(root, &["--history", history]);
    let before = names(&root.join(STAGING));
    let client = Client::connect(server.address).await.expect("it listens");
    let told = client.told();
    let traffic = tokio::spawn(push_until_lost(client, Arc::clone(ledger), rng.next_u64()));
    let moment = if rng.below(2) == 0 {
        Duration::from_micros(rng.below(300_000) as u64)
    } else {
        all_sent(&told, 1 + rng.below(6)).await;
        Duration::from_micros(rng.below(4000) as u64)
    };
    tokio::time::sleep(moment).await;
    server.kill();
    traffic.await.expect("what was told was right");
    let phase = phase_of(root, ledger, &before);
    check_restart(root, ledger).await;
    phase
}

/// Waits until so many targets have been sent.
async fn all_sent(told: &Told, count: usize) {
    let until = Instant::now() + Duration::from_secs(20);
    while told.sent() < count && Instant::now() < until {
        tokio::time::sleep(Duration::from_micros(50)).await;
    }
}

/// Pushes version after version until the connection is lost.
pub(crate) async fn push_until_lost(mut client: Client, ledger: Arc<Mutex<Ledger>>, seed: u64) {
    let mut rng = Rng::new(seed);
    loop {
        let attempts: Vec<Attempt> = {
            let mut ledger = ledger.lock().expect("no panic");
            match rng.below(3) {
                0 => {
                    (0..1 + rng.below(12)).map(|i| ledger.attempt(&format!("small/{i}"), 1 + rng.below(9000))).collect()
                }
                1 => vec![ledger.attempt("deep/er/file", 300_000)],
                _ => vec![ledger.attempt("big", 4_000_000)],
            }
        };
        let begun = attempts.iter().map(|attempt| {
            client.begin_push(&path(&attempt.path), attempt.bytes.clone(), deltasync_proto::Condition::Any)
        });
        let ids: Vec<_> = begun.collect();
        for _ in &ids {
            let Some((id, result)) = client.next_end().await else { return };
            match result {
                Ok(outcome) => {
                    let index = ids.iter().position(|begun| *begun == id).expect("it was begun");
                    ledger.lock().expect("no panic").acknowledge(&attempts[index], &outcome);
                }
                Err(TransferError::ConnectionLost(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// What the kill came into, by what it left beside what was in staging before.
fn phase_of(root: &Path, ledger: &Mutex<Ledger>, before: &[String]) -> &'static str {
    let ledger = ledger.lock().expect("no panic");
    if ledger.check(root) > 0 {
        return "published, and nobody told";
    }
    let staging = root.join(STAGING);
    let staged: Vec<u64> = names(&staging)
        .iter()
        .filter(|name| !before.contains(name))
        .filter_map(|name| staging.join(name).metadata().ok().map(|metadata| metadata.len()))
        .collect();
    let open: Vec<u64> = ledger.open().map(|(_, len)| len).collect();
    match (open.is_empty(), staged.is_empty()) {
        (true, _) => "between two pushes",
        (false, true) => "comparing",
        _ if staged.iter().any(|len| open.contains(len)) => "staged whole",
        _ => "staging",
    }
}

/// Starts the server again: it serves what is there, counts on, and has nothing stale in staging.
pub(crate) async fn check_restart(root: &Path, ledger: &Mutex<Ledger>) {
    let server = Served::start(root);
    check_staging(root);
    ledger.lock().expect("no panic").check(root);
    ledger.lock().expect("no panic").adopt(root);
    let mut client = Client::connect(server.address).await.expect("it listens");
    let paths = ledger.lock().expect("no panic").paths();
    for name in paths.iter().take(3) {
        let pulled = client.pull(&path(name)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(pulled, std::fs::read(root.join(name)).expect("it is there"), "{name}");
    }
    let attempt = ledger.lock().expect("no panic").attempt("after", 1000);
    let outcome = client.push(&path("after"), attempt.bytes.clone()).await.expect("it is taken");
    ledger.lock().expect("no panic").acknowledge(&attempt, &outcome);
    client.finish().await;
    server.kill();
    ledger.lock().expect("no panic").check(root);
}

/// What an earlier server was staging is gone, but for what can be gone on from: 64 KiB or more of a target, once each,
/// under a name that says of which.
#[track_caller]
pub(crate) fn check_staging(root: &Path) {
    let staging = root.join(STAGING);
    let mut targets = Vec::new();
    for name in names(&staging) {
        let parts: Vec<&str> = name.split('-').collect();
        let lens: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let digits = parts.concat().bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(lens == [32, 16, 8] && digits, "{name} is not of a target");
        let len = staging.join(&name).metadata().expect("it stays").len();
        assert!(len >= 64 << 10, "{name}: {len} bytes are not worth being kept");
        targets.push(name[..49].to_owned());
    }
    let count = targets.len();
    targets.dedup();
    assert_eq!(targets.len(), count, "two are of one target");
}
