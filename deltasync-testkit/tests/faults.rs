//! Twelve scenarios of two real storages on simulated disks, in which every call to either disk goes wrong in turn.
//!
//! A scenario is two disks, what the client asks for, and what has to come of it. It is run once undisturbed, to count the
//! calls, and then once for each call and each way in which that can go wrong. After each run the target is the old file or
//! the new one, whole; nothing else has changed; a server that is started again has no stage left; and a second attempt,
//! undisturbed, succeeds. What was reported as done stays when the power is cut afterwards.
//!
//! An interrupted call and a short write are no failures, and must not show. All others may be survived or end the transfer,
//! with the system's own words.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltasync_core::{Algorithm, ByteLen, Digest, Generation, RelPath};
use deltasync_io::{BlockingStorage, LocalOptions, LocalStorage};
use deltasync_proto::{
    Answer, Ask, Command, Config, EventKind, FaultKind, Outcome, Place, Replaces, RootId, StorageFault, TransferError,
};
use deltasync_testkit::{Pair, Rng, SimCall, SimDisk, SimFault, pull, push};
use rustix::io::Errno;

/// Two disks and what is done between them.
struct Scenario {
    local: SimDisk,
    remote: SimDisk,
    command: Command,
    config: Config,
    /// Where something may change, if anywhere, and what it becomes.
    target: Option<(Side, &'static str, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Local,
    Remote,
}

/// From this length on, in bytes, what a stage has left may be kept.
const PARTIAL: usize = 64 << 10;

/// The disks of one run, and how it ended.
struct Ran {
    local: SimDisk,
    remote: SimDisk,
    /// What the client, or the user who started the server, was told.
    result: Result<Outcome, String>,
    events: Vec<EventKind>,
    /// How many calls each disk had had when the client was told.
    told_at: [usize; 2],
}

impl Ran {
    /// As which the server published it, as far as the client was told.
    fn generation(&self) -> Option<Generation> {
        self.result.as_ref().ok()?.generation.filter(|generation| *generation != Generation::ZERO)
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("a test names valid paths")
}

fn serve(disk: &SimDisk) -> std::io::Result<LocalStorage> {
    LocalStorage::serve_on(disk.root(), LocalOptions::default().history(ByteLen::new(1 << 20)))
}

/// A server starts, a client connects and does one thing, and both end.
fn run_on(local: SimDisk, remote: SimDisk, command: &Command, config: &Config) -> Ran {
    let mut ran = Ran { local, remote, result: Err(String::new()), events: Vec::new(), told_at: [0; 2] };
    let server = match serve(&ran.remote) {
        Ok(server) => Arc::new(server),
        Err(error) => {
            ran.result = Err(error.to_string());
            ran.told_at = [&ran.local, &ran.remote].map(|disk| disk.calls().len());
            return ran;
        }
    };
    let client = Arc::new(LocalStorage::roots_on(vec![ran.local.root()], LocalOptions::default()));
    let pair = Pair::new(1).config(config.clone()).storages(client.clone(), server.clone() as Arc<dyn BlockingStorage>);
    let mut ended = pair.command(command.clone()).run_to_end();
    ran.told_at = [&ran.local, &ran.remote].map(|disk| disk.calls().len());
    ran.events = ended.events.into_iter().map(|event| event.kind).collect();
    ran.result = ended.outcomes.remove(0).map_err(|error: TransferError| error.to_string());
    assert!(ended.client.is_ok() && ended.server.is_ok(), "a disk ends no connection");
    ran
}

/// What a user sees on a disk: all but what is the server's own, and staged files, whose names no user sees.
fn seen(disk: &SimDisk) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut tree = disk.tree();
    tree.retain(|path, _| !path.starts_with(".deltasync") && !path.contains(".deltasync-"));
    tree
}

/// Publishes a new file, and returns its generation.
fn commit_something(disk: &SimDisk) -> Result<Generation, StorageFault> {
    let server = serve(disk).map_err(|error| StorageFault::new(FaultKind::Other, error.to_string()))?;
    let (len, algorithm) = (ByteLen::ZERO, Algorithm::Blake3);
    let place = Place { root: RootId::new(0), path: path("something else") };
    let Answer::Staged(stage) = server.answer(Ask::Stage { place, len, algorithm, root: Digest::default() })? else {
        panic!("asked for a stage");
    };
    match server.answer(Ask::Commit { stage, replaces: Replaces::Nothing })? {
        Answer::Committed(generation) => Ok(generation),
        other => panic!("asked to commit, got {other:?}"),
    }
}

/// What was staged and is left, but for what is long enough to be gone on from.
fn stages(disk: &SimDisk) -> Vec<String> {
    let mut staged = all_stages(disk);
    staged.retain(|path| disk.get(path).is_none_or(|bytes| bytes.len() < PARTIAL));
    staged
}

fn all_stages(disk: &SimDisk) -> Vec<String> {
    let staged = |path: &String| path.starts_with(".deltasync/staging/") || path.contains(".deltasync-");
    disk.tree().into_keys().filter(staged).collect()
}

impl Scenario {
    fn new(local: SimDisk, remote: SimDisk, command: Command) -> Self {
        Self { local, remote, command, config: Config::default(), target: None }
    }

    fn becomes(mut self, side: Side, path: &'static str, new: &[u8]) -> Self {
        self.target = Some((side, path, new.to_vec()));
        self
    }

    fn run(&self, fault: impl FnOnce(&SimDisk, &SimDisk)) -> Ran {
        let (local, remote) = (self.local.copy(), self.remote.copy());
        fault(&local, &remote);
        run_on(local, remote, &self.command, &self.config)
    }

    /// The disk of the target has the old or the new file, and nothing else has changed on any; returns whether it is the
    /// new one.
    fn check_trees(&self, local: &SimDisk, remote: &SimDisk, case: &str) -> bool {
        let mut new = false;
        for (side, before, after) in [(Side::Local, &self.local, local), (Side::Remote, &self.remote, remote)] {
            let (mut before, after) = (seen(before), seen(after));
            if let Some((_, path, content)) = self.target.as_ref().filter(|(at, ..)| *at == side) {
                new = after.get(*path) == Some(&Some(content.clone()));
                if new {
                    before.insert((*path).into(), Some(content.clone()));
                }
                // Directories on the way to it may have been made, and stay when nothing came into them.
                let above = |dir: &String| path.strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/'));
                after.keys().filter(|dir| above(dir)).for_each(|dir| drop(before.insert(dir.clone(), None)));
            }
            let brief = |tree: &BTreeMap<String, Option<Vec<u8>>>| {
                tree.iter().map(|(path, bytes)| (path.clone(), bytes.as_ref().map(Vec::len))).collect::<Vec<_>>()
            };
            assert!(before == after, "{case}: {side:?} was {:?}, is {:?}", brief(&before), brief(&after));
        }
        new
    }

    /// Starts the server again and does it all once more.
    fn check_again(&self, local: &SimDisk, remote: &SimDisk, told: Option<Generation>, case: &str) {
        let server = serve(remote).unwrap_or_else(|error| panic!("{case}: the server does not start again: {error}"));
        assert_eq!(stages(remote), [""; 0], "{case}: left in staging");
        drop(server);
        if let Some(told) = told {
            let next = commit_something(&remote.copy()).unwrap_or_else(|fault| panic!("{case}: {fault}"));
            assert!(next > told, "{case}: generation {told} was told, and {next} comes next");
        }
        let again = run_on(local.copy(), remote.copy(), &self.command, &self.config);
        let outcome = again.result.unwrap_or_else(|error| panic!("{case}: a second attempt: {error}"));
        // What had come of it is of no use once the target is there; but who has nothing to do looks for nothing. The stage of
        // an earlier version may have got its name back by a power cut.
        let of_target = |path: &String| {
            let staged = again.remote.get(path).unwrap_or_default();
            self.target.as_ref().is_none_or(|(_, _, content)| content.starts_with(&staged))
        };
        let left = all_stages(&again.remote).iter().any(of_target);
        assert!(outcome.generation.is_none() || !left, "{case}: a second attempt");
        if let Some((side, path, content)) = &self.target {
            let disk = if *side == Side::Local { &again.local } else { &again.remote };
            assert!(disk.get(path).as_ref() == Some(content), "{case}: a second attempt: {outcome:?}");
        }
    }

    /// What was told as done is there after a power cut.
    fn check_lasts(&self, ran: &Ran, case: &str) {
        let Some((side, path, content)) = &self.target else { return };
        if ran.result.is_err() {
            return;
        }
        let disk = if *side == Side::Local { &ran.local } else { &ran.remote };
        for seed in 0..3 {
            let left = disk.power_cut(&mut Rng::new(seed)).get(path);
            assert!(left.as_ref() == Some(content), "{case}: done, and not there after power cut {seed}");
        }
    }

    /// Lets every call to either disk go wrong in each way; those to the index in two, unless `all`.
    fn check_faults(&self, all: bool) {
        let clean = self.run(|_, _| {});
        let outcome = clean.result.as_ref().expect("an undisturbed run succeeds");
        assert!(self.check_trees(&clean.local, &clean.remote, "undisturbed") || self.target.is_none(), "{outcome:?}");
        self.check_lasts(&clean, "undisturbed");
        assert_eq!(stages(&clean.local), [""; 0]);
        self.check_again(&clean.local, &clean.remote, clean.generation(), "undisturbed");
        let mut runs = [0, 0];
        for side in [Side::Local, Side::Remote] {
            let disk_of = |ran: &Ran| if side == Side::Local { ran.local.clone() } else { ran.remote.clone() };
            let calls = disk_of(&clean).calls_to();
            for n in 1..=calls.len() {
                let errors = [Errno::IO, Errno::NOSPC, Errno::ACCESS, Errno::INTR].map(Errno::raw_os_error);
                let mut faults: Vec<_> = errors.into_iter().map(SimFault::Errno).collect();
                let (call, at) = &calls[n - 1];
                if *call == SimCall::Write {
                    faults.extend([SimFault::Short, SimFault::Torn(100, errors[0])]);
                }
                // Most calls are to the index, which is closed whatever the error is.
                if !all && at == ".deltasync/index" {
                    let other = 1 + n % (faults.len() - 1);
                    faults = vec![faults[0], faults[other]];
                }
                for fault in faults {
                    let ran = self.run(|local, remote| {
                        let disk = if side == Side::Local { local } else { remote };
                        disk.fail(n as u64, None, fault);
                    });
                    let hit = disk_of(&ran).hit();
                    let case = format!("{side:?} call {n} of {}, {hit:?}: {fault:?}", calls.len());
                    let hit = hit.as_ref().map(|(call, at)| (*call, at.as_str()));
                    self.check_fault(&ran, fault, hit, side, n, &case);
                    runs[usize::from(ran.result.is_ok())] += 1;
                }
            }
        }
        println!("{} runs failed, {} were done", runs[0], runs[1]);
        assert!(runs[0] > 0 && runs[1] > 0);
    }

    fn check_fault(&self, ran: &Ran, fault: SimFault, hit: Option<(SimCall, &str)>, side: Side, n: usize, case: &str) {
        let new = self.check_trees(&ran.local, &ran.remote, case);
        let told = n <= ran.told_at[side as usize];
        match (&ran.result, fault) {
            (Ok(_), _) => {
                assert!(new || self.target.is_none(), "{case}: done, and the target is old");
                let (call, at) = hit.unwrap_or((SimCall::Lock, ""));
                // What lies beside the stages is a help, or written anew: what is lost of it is not missed.
                let ours = at.starts_with(".deltasync") && !at.starts_with(".deltasync/staging/");
                let promised = matches!(call, SimCall::SyncData | SimCall::SyncDir) && !ours;
                let interrupted = fault == SimFault::Errno(Errno::INTR.raw_os_error());
                assert!(!(promised && told) || interrupted, "{case}: done after a sync that failed");
            }
            (Err(error), SimFault::Errno(errno) | SimFault::Torn(_, errno)) => {
                assert!(errno != Errno::INTR.raw_os_error(), "{case}: {error}");
                let words = std::io::Error::from_raw_os_error(errno).to_string();
                let words = words.split(" (os error").next().unwrap_or(&words);
                assert!(error.contains(words), "{case}: {error}");
            }
            (Err(error), SimFault::Short | SimFault::Crash) => panic!("{case}: {error}"),
        }
        self.check_lasts(ran, case);
        // Nobody sweeps beside a client's target: what could not be removed there stays.
        if side == Side::Remote || hit.is_none_or(|(call, _)| call != SimCall::Remove) {
            assert_eq!(stages(&ran.local), [""; 0], "{case}: left beside the target");
        }
        // Whatever the error, it leaves the same behind.
        if fault == SimFault::Errno(Errno::IO.raw_os_error()) || call_failed_in_part(fault) {
            self.check_again(&ran.local.copy(), &ran.remote.copy(), ran.generation(), case);
        }
    }

    /// Cuts the power at every call to either disk.
    fn check_power_cuts(&self, cuts: u64) {
        let clean = self.run(|_, _| {});
        let (mut runs, mut done) = (0, 0);
        for side in [Side::Local, Side::Remote] {
            let calls = if side == Side::Local { clean.local.calls_to() } else { clean.remote.calls_to() };
            for n in 1..=calls.len() {
                let ran = self.run(|local, remote| {
                    let disk = if side == Side::Local { local } else { remote };
                    disk.fail(n as u64, None, SimFault::Crash);
                });
                done += u32::from(ran.result.is_ok());
                for seed in 0..cuts {
                    let (call, at) = &calls[n - 1];
                    let case = format!("power cut {seed} at {side:?} call {n}, {call:?} {at:?}");
                    let mut rng = Rng::new(n as u64 * 1000 + seed);
                    let [local, remote] = [(Side::Local, &ran.local), (Side::Remote, &ran.remote)]
                        .map(|(at, disk)| if at == side { disk.power_cut(&mut rng) } else { disk.copy() });
                    let new = self.check_trees(&local, &remote, &case);
                    assert!(new || self.target.is_none() || ran.result.is_err(), "{case}: done, and not there");
                    self.check_again(&local, &remote, ran.generation(), &case);
                    runs += 1;
                }
            }
        }
        println!("{runs} power cuts, {done} runs were done before");
    }
}

fn call_failed_in_part(fault: SimFault) -> bool {
    matches!(fault, SimFault::Short | SimFault::Torn(..))
}

/// Old and new, edited in places.
fn edited(seed: u64, len: usize) -> (Vec<u8>, Vec<u8>) {
    let mut rng = Rng::new(seed);
    let old = rng.bytes(len);
    let mut new = old.clone();
    for _ in 0..4 {
        let at = rng.below(len - 600);
        let inserted = rng.below(500);
        new.splice(at..at + 100, rng.bytes(inserted));
    }
    (old, new)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    Rng::new(seed).bytes(len)
}

/// A disk with these files.
fn disk(files: &[(&str, &[u8])]) -> SimDisk {
    let disk = SimDisk::new();
    files.iter().for_each(|(path, bytes)| disk.put(path, bytes));
    disk
}

/// A server's disk to which these files were pushed, one after the other.
fn pushed(files: &[(&str, &[u8])]) -> SimDisk {
    let mut remote = disk(&[("bystander", b"stays")]);
    for (at, bytes) in files {
        let ran = run_on(disk(&[("file", bytes)]), remote, &push(path("file"), path(at)), &Config::default());
        ran.result.expect("it is pushed");
        remote = ran.remote.copy();
    }
    remote
}

/// Pushes `file`.
fn pushes(new: &[u8], remote: SimDisk, to: &'static str) -> Scenario {
    let local = disk(&[("file", new), ("bystander", b"stays")]);
    Scenario::new(local, remote, push(path("file"), path(to))).becomes(Side::Remote, to, new)
}

/// Pulls `file`.
fn pulls(old: Option<&[u8]>, remote: SimDisk, new: &[u8]) -> Scenario {
    let local = disk(&[("bystander", b"stays")]);
    old.iter().for_each(|old| local.put("file", old));
    Scenario::new(local, remote, pull(path("file"), path("file"))).becomes(Side::Local, "file", new)
}

fn first_push() -> Scenario {
    pushes(&noise(1, 40_000), disk(&[("bystander", b"stays")]), "file")
}

fn tiny_push() -> Scenario {
    pushes(b"hello", disk(&[("bystander", b"stays")]), "file")
}

fn delta_push() -> Scenario {
    let (old, new) = edited(2, 40_000);
    pushes(&new, disk(&[("file", &old), ("bystander", b"stays")]), "file")
}

/// With sums this short, some match that should not.
fn repaired_push() -> Scenario {
    let mut seeds = 0..1000;
    let (scenario, _) = seeds
        .find_map(|seed| {
            let (old, new) = edited(seed, 60_000);
            let mut scenario = pushes(&new, disk(&[("file", &old)]), "file");
            scenario.config = Config::default().tag_bits(8);
            let repairs = scenario.run(|_, _| {}).result.expect("an undisturbed run succeeds").repairs;
            (repairs > 0).then_some((scenario, repairs))
        })
        .expect("one of a thousand is repaired");
    scenario
}

fn push_of_a_twin() -> Scenario {
    let new = noise(3, 40_000);
    pushes(&new, pushed(&[("dir/twin", &new), ("file", b"old")]), "file")
}

fn push_into_a_missing_directory() -> Scenario {
    pushes(&noise(4, 20_000), disk(&[("bystander", b"stays")]), "a/b/file")
}

fn push_over_a_file_that_was_pushed() -> Scenario {
    let (old, new) = edited(5, 40_000);
    pushes(&new, pushed(&[("file", &noise(6, 10_000)), ("file", &old)]), "file")
}

/// What is there was pushed over something like it, and its chunk list is in the index.
fn push_over_a_listed_file() -> Scenario {
    let (old, new) = edited(14, 300_000);
    let mut first = old.clone();
    first[1000..1100].fill(7);
    pushes(&new, pushed(&[("file", &first), ("file", &old)]), "file")
}

fn pull_of_a_new_file() -> Scenario {
    let new = noise(7, 40_000);
    pulls(None, disk(&[("file", &new)]), &new)
}

fn pull_over_a_basis() -> Scenario {
    let (old, new) = edited(8, 40_000);
    pulls(Some(&old), disk(&[("file", &new)]), &new)
}

fn pull_over_what_the_server_replaced() -> Scenario {
    let (old, new) = edited(9, 40_000);
    pulls(Some(&old), pushed(&[("file", &old), ("file", &new)]), &new)
}

fn listing() -> Scenario {
    let remote = disk(&[("a", b"1"), ("b/c", b"2"), ("d", b"3")]);
    Scenario::new(SimDisk::new(), remote, Command::List { path: RelPath::ROOT, after: None })
}

fn root_of_a_file() -> Scenario {
    Scenario::new(SimDisk::new(), disk(&[("file", &noise(10, 40_000))]), Command::Root { path: path("file") })
}

/// Most of it has come before.
fn push_that_goes_on() -> Scenario {
    let new = noise(13, 300_000);
    let first = pushes(&new, disk(&[("bystander", b"stays")]), "file");
    let failed = |n| {
        let ran =
            first.run(|_, remote| remote.fail(n, Some(SimCall::Write), SimFault::Errno(Errno::IO.raw_os_error())));
        (ran.result.is_err() && !all_stages(&ran.remote).is_empty()).then(|| ran.remote.copy())
    };
    pushes(&new, (1..100).find_map(failed).expect("one of them was to a stage"), "file")
}

/// A server starts where one has crashed: in the middle of a push, with files in its history that no note knows.
fn restart() -> Scenario {
    let (old, new) = edited(11, 40_000);
    let remote = pushed(&[("file", &noise(12, 10_000)), ("file", &old)]);
    for left in ["staging/.file.deltasync-01234567", "history/00000000000000ff.file", "history/other"] {
        remote.put(&format!(".deltasync/{left}"), b"left by a crash");
    }
    pushes(&new, remote, "file")
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        mod faults {
            $(
                #[test]
                fn $name() {
                    super::$name().check_faults(false);
                }
            )*
        }

        mod all_faults {
            $(
                #[test]
                #[ignore = "half a minute: run .ci/run"]
                fn $name() {
                    super::$name().check_faults(true);
                }
            )*
        }

        mod power_cuts {
            $(
                #[test]
                fn $name() {
                    super::$name().check_power_cuts(2);
                }
            )*
        }
    };
}

scenarios! {
    first_push
    tiny_push
    delta_push
    repaired_push
    push_of_a_twin
    push_into_a_missing_directory
    push_over_a_file_that_was_pushed
    pull_of_a_new_file
    pull_over_a_basis
    pull_over_what_the_server_replaced
    listing
    root_of_a_file
    restart
    push_that_goes_on
    push_over_a_listed_file
}

/// A disk of any size that is too small for a push: what is there stays, and what is in the way of the old file is told.
#[test]
fn a_disk_that_fills_up_keeps_the_old_file() {
    let full = std::io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error()).to_string();
    let full = full.split(" (os error").next().expect("the words");
    for scenario in [first_push(), delta_push(), push_into_a_missing_directory(), push_over_a_file_that_was_pushed()] {
        let [mut refused, mut done] = [0, 0];
        for pages in 0..100 {
            let ran = scenario.run(|_, remote| remote.limit(Some(pages * 4096)));
            let case = format!("{pages} pages");
            let new = scenario.check_trees(&ran.local, &ran.remote, &case);
            match &ran.result {
                Ok(_) => assert!(new, "{case}"),
                Err(error) => {
                    assert!((error.contains(full) || error.contains("no room for")) && !new, "{case}: {error}")
                }
            }
            *(if new { &mut done } else { &mut refused }) += 1;
            scenario.check_lasts(&ran, &case);
            ran.remote.limit(None);
            scenario.check_again(&ran.local.copy(), &ran.remote.copy(), ran.generation(), &case);
        }
        assert!(refused > 0 && done > 0, "{refused} refused, {done} done");
    }
}

/// The scenarios are what they are called.
#[test]
fn the_scenarios_go_their_ways() {
    let clean = |scenario: Scenario| scenario.run(|_, _| {});
    let outcome = |scenario| clean(scenario).result.expect("an undisturbed run succeeds");
    assert!(outcome(repaired_push()).repairs > 0);
    assert_eq!(outcome(push_of_a_twin()).progress.literal, ByteLen::ZERO);
    for delta in [delta_push(), push_over_a_file_that_was_pushed(), pull_over_a_basis()] {
        let outcome = outcome(delta);
        assert!(outcome.progress.literal < ByteLen::new(10_000), "{outcome:?}");
    }
    assert!(outcome(pull_over_what_the_server_replaced()).known, "it was in the history");
    let went_on = outcome(push_that_goes_on());
    assert!(went_on.progress.literal < ByteLen::new(100_000), "{went_on:?}");
    let kept = |disk: &SimDisk| disk.tree().into_keys().filter(|path| path.ends_with(".file")).count();
    let replaced = push_over_a_file_that_was_pushed();
    assert_eq!(kept(&clean(replaced).remote), 2);
    // What was replaced is in the history, and was only read to be copied.
    let reads = |scenario: Scenario| {
        let calls = clean(scenario).remote.calls_to();
        calls.iter().filter(|(call, at)| *call == SimCall::Read && at.ends_with(".file")).count()
    };
    let not_listed = push_over_a_listed_file();
    not_listed.remote.put("file", &not_listed.remote.get("file").expect("it is there"));
    let (listed, not_listed) = (reads(push_over_a_listed_file()), reads(not_listed));
    assert!((1..not_listed).contains(&listed), "{listed} reads, {not_listed} without a list");
    let listed = clean(listing()).events;
    assert!(
        listed.iter().any(|event| matches!(event, EventKind::Listed { entries, .. } if entries.len() == 3)),
        "{listed:?}"
    );
}
