//! The program killed at any moment: what it writes to, at a server or here, is the old file or the new one, whole;
//! what it left goes with the next one that gets through; and what the server was still doing for it when it went never
//! undoes what came after it.
//!
//! The moments come from a seed, and lie anywhere in the time that an undisturbed run takes, and somewhat after.

mod common;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Scratch, Server, command, deltasync, noise};
use deltasync_testkit::Rng;

const RUNS: u64 = 100;

/// Versions of a file of a few megabytes: an edit or two after the one before, and sometimes anew.
struct Versions {
    rng: Rng,
    bytes: Vec<u8>,
}

impl Versions {
    fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), bytes: noise(seed, 3_000_000) }
    }

    fn next(&mut self) -> &[u8] {
        if self.rng.below(4) == 0 {
            let len = 2_000_000 + self.rng.below(1_000_000);
            self.bytes = self.rng.bytes(len);
        }
        for _ in 0..2 {
            let at = self.rng.below(self.bytes.len() - 8);
            let edit = self.rng.bytes(8);
            self.bytes[at..at + 8].copy_from_slice(&edit);
        }
        &self.bytes
    }
}

/// Runs the program and kills it some time before or after it would end; true when it had ended well.
fn killed(dir: &Scratch, args: &[&str], rng: &mut Rng, usual: &mut Duration) -> bool {
    let mut command = command(dir.path());
    let begun = Instant::now();
    let mut child = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    let most = usize::try_from(usual.as_micros() * 5 / 4).expect("a moment");
    let moment = begun + Duration::from_micros(rng.below(most + 1) as u64);
    while Instant::now() < moment {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            learn(usual, begun.elapsed());
            assert!(status.success(), "{status}");
            return true;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().expect("it runs or has ended");
    child.wait().expect("it ends").success()
}

/// How long the program takes when nobody disturbs it.
fn undisturbed(dir: &Scratch, args: &[&str]) -> Duration {
    let begun = Instant::now();
    deltasync(dir.path(), args).fine();
    begun.elapsed()
}

/// The machine is as fast as it is now, and was lately.
fn learn(usual: &mut Duration, now: Duration) {
    *usual = (*usual * 3 + now) / 4;
}

/// The names beside a file that are not its own.
fn beside(dir: &Scratch, at: &str) -> Vec<String> {
    dir.names(at).into_iter().filter(|name| !matches!(&**name, "file" | "copy" | ".deltasync" | "state")).collect()
}

#[test]
#[ignore = "takes half a minute"]
fn a_killed_push_leaves_old_or_new_and_never_undoes_the_next() {
    let server = Server::start();
    let dir = Scratch::new();
    let (mut versions, mut rng) = (Versions::new(1), Rng::new(2));
    dir.write("file", versions.next());
    let args = ["push", "file", &server.url("copy"), "--state", "state", "--quiet"];
    let mut usual = undisturbed(&dir, &args);
    let (mut acknowledged, mut phases) = (dir.read("file"), BTreeMap::new());
    for run in 0..RUNS {
        assert!(server.dir.read("copy") == acknowledged, "run {run}: what was pushed last has gone");
        dir.write("file", versions.next());
        let new = dir.read("file");
        let done = killed(&dir, &args, &mut rng, &mut usual);
        let is = server.dir.read("copy");
        assert!(is == acknowledged || is == new, "run {run}: {} bytes are neither old nor new", is.len());
        assert!(!done || is == new, "run {run}: it was told to be done");
        assert_eq!(beside(&server.dir, ""), [""; 0], "run {run}");
        let phase = if done {
            "done"
        } else if is == new {
            "published, not told"
        } else {
            "not published"
        };
        *phases.entry(phase).or_insert(0) += 1;
        // Half of the time with the very next breath, when the server may still be at it.
        if run % 2 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        dir.write("file", versions.next());
        learn(&mut usual, undisturbed(&dir, &args));
        acknowledged = dir.read("file");
        assert!(server.dir.read("copy") == acknowledged, "run {run}: done, and not there");
    }
    println!("{RUNS} killed pushes: {phases:?}");
    assert!(phases.len() > 1, "all were killed at the same point");
}

#[test]
#[ignore = "takes half a minute"]
fn a_killed_pull_leaves_old_or_new_and_nothing_that_stays() {
    let server = Server::start();
    let dir = Scratch::new();
    let (mut versions, mut rng) = (Versions::new(3), Rng::new(4));
    server.dir.write("file", versions.next());
    let args = ["pull", &server.url("file"), "copy", "--quiet"];
    let mut usual = undisturbed(&dir, &args);
    let (mut old, mut phases) = (dir.read("copy"), BTreeMap::new());
    for run in 0..RUNS {
        server.dir.write("file", versions.next());
        let new = server.dir.read("file");
        let done = killed(&dir, &args, &mut rng, &mut usual);
        let is = dir.read("copy");
        assert!(is == old || is == new, "run {run}: {} bytes are neither old nor new", is.len());
        assert!(!done || is == new, "run {run}: it was told to be done");
        let left = beside(&dir, "");
        let staged = |name: &String| name.starts_with(".copy.deltasync-") && name.len() == ".copy.deltasync-".len() + 8;
        assert!(left.iter().all(staged) && left.len() <= 4, "run {run}: {left:?}");
        let phase = match (done, is == new, left.is_empty()) {
            (true, ..) => "done",
            (_, true, _) => "published, not told",
            (_, _, false) => "staging",
            _ => "before that",
        };
        *phases.entry(phase).or_insert(0) += 1;
        old = is;
        if run % 3 == 0 {
            learn(&mut usual, undisturbed(&dir, &args));
            old = dir.read("copy");
            assert!(old == new, "run {run}: done, and not there");
            assert_eq!(beside(&dir, ""), [""; 0], "run {run}: what killed ones had left");
        }
    }
    println!("{RUNS} killed pulls: {phases:?}");
    assert!(phases.len() > 2, "all were killed at the same point");
}
