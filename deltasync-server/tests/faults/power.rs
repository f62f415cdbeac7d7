//! The power cut, on ext4 and on xfs: what was acknowledged is there afterwards, and what was not is old or new, whole.
//!
//! The file systems lie on loop devices, and are shut down without their log being flushed, as if the machine had lost
//! its power. ext4 is told to flush its log once in five minutes at most, so that only what the server syncs lasts.
//! Half of the cuts come the instant after an acknowledgement, half at any moment of the traffic of several clients.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use deltasync_proto::TransferError;
use deltasync_testkit::Rng;

use crate::client::{Client, path};
use crate::killed::check_staging;
use crate::ledger::Ledger;
use crate::mounted::Mounted;
use crate::served::Served;

const CUTS: u64 = 30;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants root, mkfs.ext4 and xfs_io"]
async fn what_is_acknowledged_outlasts_a_power_cut_on_ext4() {
    check_cuts(&["mkfs.ext4", "-q", "-F"], 256, "commit=300").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants root, mkfs.xfs and xfs_io"]
async fn what_is_acknowledged_outlasts_a_power_cut_on_xfs() {
    check_cuts(&["mkfs.xfs", "-q", "-f"], 512, "defaults").await;
}

async fn check_cuts(make: &[&str], megabytes: u64, options: &str) {
    let mounted = Mounted::on_loop(make, megabytes, options);
    let ledger = Arc::new(Mutex::new(Ledger::new(megabytes)));
    let mut rng = Rng::new(megabytes);
    let mut told_nobody = 0;
    for cut in 0..CUTS {
        let server = Served::start_with(mounted.path(), &["--history", "20000000"]);
        if cut % 2 == 0 {
            cut_after_acknowledgement(&mounted, &server, &ledger, cut).await;
        } else {
            cut_in_traffic(&mounted, &server, &ledger, &mut rng).await;
        }
        server.kill();
        mounted.remount();
        let ledger = &mut *ledger.lock().expect("no panic");
        let server = Served::start(mounted.path());
        check_staging(mounted.path());
        told_nobody += ledger.check(mounted.path());
        ledger.adopt(mounted.path());
        server.kill();
    }
    println!("{}: {CUTS} cuts, {told_nobody} files newer than what anybody was told", make[0]);
}

/// The instant its client knows of a push, to an old place or to directories that were not there, the power goes.
async fn cut_after_acknowledgement(mounted: &Mounted, server: &Served, ledger: &Mutex<Ledger>, cut: u64) {
    let mut client = Client::connect(server.address).await.expect("it listens");
    let name = if cut.is_multiple_of(4) { "big".to_owned() } else { format!("new/{cut}/a/b/file") };
    // Twice, so that the second replaces something.
    for _ in 0..1 + cut % 3 {
        let attempt = ledger.lock().expect("no panic").attempt(&name, 2_000_000);
        let outcome = client.push(&path(&name), attempt.bytes.clone()).await.expect("it is taken");
        ledger.lock().expect("no panic").acknowledge(&attempt, &outcome);
    }
    mounted.cut();
    // And afterwards nothing is acknowledged any more.
    let attempt = ledger.lock().expect("no panic").attempt(&name, 2_000_000);
    let error = client.push(&path(&name), attempt.bytes.clone()).await.expect_err("there is no disk");
    assert!(error.to_string().contains("Input/output error"), "{error}");
}

async fn cut_in_traffic(mounted: &Mounted, server: &Served, ledger: &Arc<Mutex<Ledger>>, rng: &mut Rng) {
    let mut traffic = Vec::new();
    for writer in 0..3 {
        let client = Client::connect(server.address).await.expect("it listens");
        let seed = rng.next_u64();
        traffic.push(if writer == 0 {
            tokio::spawn(push_small_until_refused(client, Arc::clone(ledger)))
        } else {
            tokio::spawn(push_one_until_refused(client, Arc::clone(ledger), format!("by/{writer}"), seed))
        });
    }
    tokio::time::sleep(Duration::from_micros(rng.below(200_000) as u64)).await;
    ledger.lock().expect("no panic").cut();
    mounted.cut();
    for traffic in traffic {
        traffic.await.expect("what was told was right");
    }
}

async fn push_small_until_refused(mut client: Client, ledger: Arc<Mutex<Ledger>>) {
    for round in 0.. {
        let name = format!("small/{}", round % 20);
        if !push_once(&mut client, &ledger, &name, 5000).await {
            return;
        }
    }
}

async fn push_one_until_refused(mut client: Client, ledger: Arc<Mutex<Ledger>>, name: String, seed: u64) {
    let mut rng = Rng::new(seed);
    while push_once(&mut client, &ledger, &name, 200_000 + rng.below(2_000_000)).await {}
}

async fn push_once(client: &mut Client, ledger: &Mutex<Ledger>, name: &str, len: usize) -> bool {
    let attempt = ledger.lock().expect("no panic").attempt(name, len);
    match client.push(&path(name), attempt.bytes.clone()).await {
        Ok(outcome) => {
            ledger.lock().expect("no panic").acknowledge(&attempt, &outcome);
            true
        }
        Err(TransferError::Refused(_)) => false,
        Err(error) => panic!("{error}"),
    }
}
