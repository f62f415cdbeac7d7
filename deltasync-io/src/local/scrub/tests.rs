//! What a scrub finds in a directory that is harmed in every way, what peers get of it, and how it is mended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use deltasync_core::{Algorithm, ByteLen};
use deltasync_proto::{Answer, Ask, Cutting, Destination, Place, RootId};
use deltasync_testkit::Rng;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::laws::{append, basis, commit_over, describe};
use crate::local::Opened;
use crate::{BlockingStorage, LocalOptions};

/// A served directory.
struct Bench {
    storage: LocalStorage,
    directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let storage = LocalStorage::serve(directory.path(), LocalOptions::default()).expect("it can be served");
        Self { storage, directory }
    }

    fn restart(self) -> Self {
        drop(self.storage);
        let storage = LocalStorage::serve(self.directory.path(), LocalOptions::default()).expect("served again");
        Self { storage, directory: self.directory }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Pushes as a session does: over whatever is there.
    fn push(&self, at: &str, bytes: &[u8]) {
        self.push_over(at, bytes, |file| file);
    }

    /// The same, with something that happens to the description of the file that is there.
    fn push_over(&self, at: &str, bytes: &[u8], meanwhile: impl FnOnce(OpenedFile) -> OpenedFile) {
        let (place, file) = basis(&self.storage, at, false).expect("it can go there");
        let file = file.map(meanwhile);
        let algorithm = Algorithm::Blake3;
        let ask = Ask::Stage { place, len: ByteLen::of(bytes), algorithm, root: algorithm.digest(bytes) };
        let Answer::Staged(stage) = self.storage.answer(ask).expect("staged") else { panic!("no stage") };
        append(&self.storage, &stage, bytes).expect("written");
        self.storage.answer(Ask::Seal { stage: stage.clone() }).expect("sealed");
        let replaces =
            file.map_or(deltasync_proto::Replaces::Nothing, |file| deltasync_proto::Replaces::File(file.file));
        commit_over(&self.storage, &stage, replaces).expect("published");
    }

    fn scrub(&self) -> (Vec<Finding>, ScrubReport) {
        let mut scrub = self.storage.scrub(ScrubOptions::default()).expect("it is served");
        let mut found = Vec::new();
        while let Some(event) = scrub.step().expect("there is an index") {
            if let ScrubEvent::Found(finding) = event {
                found.push(finding);
            }
        }
        (found, scrub.report())
    }

    fn kinds(&self) -> BTreeMap<String, FindingKind> {
        self.scrub().0.into_iter().map(|finding| (finding.path.to_string(), finding.kind)).collect()
    }

    fn recorded(&self, at: &str) -> Option<Recorded> {
        let served = self.storage.served.as_ref().expect("it is served");
        served.index.recorded(&RelPath::new(at.as_bytes()).expect("a path"))
    }
}

/// Changes one byte and no time that a program can set, as a bad disk does.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("it is there");
    let modified = file.metadata().expect("it is open").modified().expect("it has one");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is as long");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
    file.set_modified(modified).expect("set");
}

fn set_other_time(path: &Path) {
    let file = File::options().write(true).open(path).expect("it is there");
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000)).expect("set");
}

/// What happens to a file behind the back of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    None,
    /// A disk loses a byte.
    Flipped,
    /// Another program writes it.
    Rewritten,
    Cut,
    Removed,
    /// The same bytes, another time.
    Touched,
    /// The same bytes in another file of the same name, as a restored copy is.
    Copied,
    /// Other bytes of the same length and time in another file, as some programs install.
    Replaced,
    Chmodded,
    BecomesDirectory,
}

const HARMS: [Harm; 10] = [
    Harm::None,
    Harm::Flipped,
    Harm::Rewritten,
    Harm::Cut,
    Harm::Removed,
    Harm::Touched,
    Harm::Copied,
    Harm::Replaced,
    Harm::Chmodded,
    Harm::BecomesDirectory,
];

impl Harm {
    fn happen(self, path: &Path, bytes: &[u8], seed: u64) {
        let copy = |bytes: &[u8]| {
            let modified = fs::metadata(path).and_then(|is| is.modified()).expect("it is there");
            let other = path.with_extension("other");
            fs::write(&other, bytes).expect("written");
            File::options().write(true).open(&other).and_then(|file| file.set_modified(modified)).expect("set");
            fs::rename(&other, path).expect("renamed");
        };
        match self {
            Self::None => {}
            Self::Flipped => flip(path, seed % bytes.len() as u64),
            Self::Rewritten => {
                fs::write(path, vec![b'w'; bytes.len()]).expect("written");
                set_other_time(path);
            }
            Self::Cut => File::options().write(true).open(path).and_then(|file| file.set_len(0)).expect("cut"),
            Self::Removed => fs::remove_file(path).expect("removed"),
            Self::Touched => set_other_time(path),
            Self::Copied => copy(bytes),
            Self::Replaced => copy(&vec![b'r'; bytes.len()]),
            Self::Chmodded => fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set"),
            Self::BecomesDirectory => {
                fs::remove_file(path).expect("removed");
                fs::create_dir(path).expect("made");
            }
        }
    }

    fn is_found_as(self) -> Option<FindingKind> {
        match self {
            Self::None | Self::Touched | Self::Copied | Self::Chmodded => None,
            Self::Flipped => Some(FindingKind::Damaged),
            Self::Rewritten | Self::Cut | Self::Replaced | Self::BecomesDirectory => Some(FindingKind::Changed),
            Self::Removed => Some(FindingKind::Gone),
        }
    }
}

/// Each file is found as what happened to it; the second time only what is still damaged; peers get what is right and what
/// another program wrote; and a push mends.
fn check_found(harms: &[(usize, Harm)], seed: u64) {
    let bench = Bench::new();
    let names: Vec<String> = (0..harms.len()).map(|n| format!("d{}/f{n}", n % 3)).collect();
    let contents: Vec<Vec<u8>> = harms.iter().zip(0..).map(|((len, _), n)| Rng::new(seed ^ n).bytes(*len)).collect();
    for (name, bytes) in names.iter().zip(&contents) {
        bench.push(name, bytes);
    }
    assert_eq!(bench.scrub().0, []);
    let before: Vec<_> = names.iter().map(|name| bench.recorded(name).expect("it is recorded")).collect();
    for ((name, bytes), (_, harm)) in names.iter().zip(&contents).zip(harms) {
        harm.happen(&bench.at(name), bytes, seed);
    }
    let found = |keep: fn(FindingKind) -> bool| -> BTreeMap<String, FindingKind> {
        let found = names.iter().zip(harms).filter_map(|(name, (_, harm))| Some((name.clone(), harm.is_found_as()?)));
        found.filter(|(_, kind)| keep(*kind)).collect()
    };
    assert_eq!(bench.kinds(), found(|_| true));
    let bench = bench.restart();
    assert_eq!(bench.kinds(), found(FindingKind::is_damage));
    for (((name, bytes), (_, harm)), before) in names.iter().zip(&contents).zip(harms).zip(before) {
        let described = describe(&bench.storage, name);
        match harm.is_found_as() {
            Some(FindingKind::Damaged) => {
                let fault = described.expect_err("it is damaged");
                assert_eq!(fault.kind, FaultKind::Damaged);
                let current = Version { generation: before.generation, root: before.root };
                assert_eq!(fault.current, Some(current));
            }
            Some(FindingKind::Gone) => assert_eq!(described.expect_err("it is gone").kind, FaultKind::NotFound),
            Some(_) => {
                assert_eq!(bench.recorded(name), None, "{harm:?}");
                assert!(described.is_ok() != (*harm == Harm::BecomesDirectory), "{harm:?}");
            }
            None => {
                assert_eq!(described.expect("it is right").chunks.root(), before.root);
                let after = bench.recorded(name).expect("it is recorded");
                assert_eq!((after.root, after.generation), (before.root, before.generation));
                let looks = File::open(bench.at(name)).map(AnyFile::from).and_then(|file| Looks::of(&file));
                assert!(after.looks.under_any_name().still(&looks.expect("it is there")), "{harm:?}");
            }
        }
        if *harm != Harm::BecomesDirectory {
            bench.push(name, bytes);
            assert_eq!(describe(&bench.storage, name).expect("it is mended").chunks.root(), before.root);
            assert_eq!(fs::read(bench.at(name)).expect("it is there"), *bytes);
        }
    }
    assert_eq!(bench.scrub().0, []);
}

#[test]
fn each_harm_is_found_as_what_it_is() {
    for harm in HARMS {
        check_found(&[(1, harm)], 0);
        check_found(&[(5000, Harm::None), (70_000, harm), (1, Harm::None)], 1);
    }
    check_found(&HARMS.map(|harm| (600_000, harm)), 599_999);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_harms_are_found(
        harms in prop::collection::vec((1usize..40_000, prop::sample::select(&HARMS[..])), 1..12),
        seed: u64,
    ) {
        check_found(&harms, seed);
    }
}

#[test]
fn damage_that_a_pull_meets_is_marked_without_a_scrub() {
    let bench = Bench::new();
    bench.push("a", &[7; 100_000]);
    let root = Algorithm::Blake3.digest(&[7; 100_000]);
    flip(&bench.at("a"), 50_000);
    assert_eq!(describe(&bench.storage, "a").expect_err("it is damaged").kind, FaultKind::Damaged);
    let served = bench.storage.served.as_ref().expect("it is served");
    let path = RelPath::new(*b"a").expect("a path");
    assert_eq!(served.index.damaged(&path).expect("it is marked").recorded.root, root);
    // A push looks at what there is, as ever.
    let (_, file) = basis(&bench.storage, "a", false).expect("a push may come");
    assert_ne!(file.expect("it is there").chunks.root(), root);
    // The byte comes back.
    flip(&bench.at("a"), 50_000);
    assert_eq!(describe(&bench.storage, "a").expect("it is right").chunks.root(), root);
    assert_eq!(served.index.damaged(&path), None);
    assert_eq!(bench.scrub().0, []);
}

#[test]
fn a_mark_is_heeded_whatever_digest_a_peer_asks_by() {
    let bench = Bench::new();
    bench.push("a", &[7; 1000]);
    flip(&bench.at("a"), 500);
    let sha256 = || {
        let place = Place { root: RootId::new(0), path: RelPath::new(*b"a").expect("a path") };
        bench.storage.answer(Ask::Describe {
            place,
            cutting: Cutting::ByContent,
            algorithm: Algorithm::Sha256,
            remember: None,
        })
    };
    assert_eq!(bench.kinds().len(), 1);
    assert_eq!(sha256().expect_err("it is marked").kind, FaultKind::Damaged);
    bench.push("a", &[7; 1000]);
    assert!(sha256().is_ok());
}

#[test]
fn a_damaged_file_is_no_twin() {
    let bench = Bench::new();
    bench.push("a", &[7; 100_000]);
    let twin = || {
        let place = Place { root: RootId::new(0), path: RelPath::new(*b"b").expect("a path") };
        let name = deltasync_core::Name::new(*b"b").expect("a name");
        let wanted = Some((Algorithm::Blake3.digest(&[7; 100_000]), ByteLen::new(100_000)));
        let destination = Destination { place, name, directory: false };
        let ask = Ask::Basis { destination, cutting: Cutting::ByContent, algorithm: Algorithm::Blake3, wanted };
        match bench.storage.answer(ask).expect("a push may come") {
            Answer::Basis { twin, .. } => twin.is_some(),
            other => panic!("{other:?}"),
        }
    };
    assert!(twin());
    flip(&bench.at("a"), 3);
    assert_eq!(bench.kinds().len(), 1);
    assert!(!twin());
}

#[test]
fn an_old_version_that_was_harmed_is_thrown_away_and_told() {
    for (harmed, other) in [("file", "chunks"), ("chunks", "file")] {
        let bench = Bench::new();
        let (old, new) = (Rng::new(1).bytes(50_000), Rng::new(2).bytes(50_000));
        bench.push("a", &old);
        bench.push("a", &new);
        bench.push("b", &old);
        bench.push("b", &new);
        let (found, report) = bench.scrub();
        assert_eq!((found, report.files), (Vec::new(), 4));
        let version = |extension: &str| {
            let names = fs::read_dir(bench.at(".deltasync/history")).expect("it is there");
            let paths = names.map(|name| name.expect("an entry").path());
            paths.filter(|path| path.extension().is_some_and(|is| is == extension)).min().expect("two are kept")
        };
        let (harmed, other) = (version(harmed), version(other));
        flip(&harmed, 100);
        let (found, report) = bench.scrub();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].kind, found[0].path.to_string().as_str()), (FindingKind::OldVersion, "a"));
        assert_eq!(found[0].recorded, Algorithm::Blake3.digest(&old));
        assert!(report.is_damaged() && !harmed.exists() && !other.exists());
        let (found, report) = bench.scrub();
        assert_eq!((found, report.files, report.is_damaged()), (Vec::new(), 3, false));
    }
}

#[test]
fn an_old_version_is_compared_by_its_content() {
    let bench = Bench::new();
    let (old, other) = (Rng::new(1).bytes(50_000), Rng::new(2).bytes(50_000));
    bench.push("a", &old);
    // No program can change a byte and leave the time of the last change; so the list is that of other bytes.
    bench.push_over("a", b"new", |file| {
        let chunks = deltasync_core::ChunkList::of(&other, file.chunks.cutter(), Algorithm::Blake3);
        let looks = opened(&file.file).expect("it is ours").looks();
        let bytes = bench.storage.roots[0].file(&RelPath::new(b"a").expect("valid")).expect("it is there");
        Opened::known(bytes, RelPath::ROOT, looks).described(chunks.into())
    });
    let (found, report) = bench.scrub();
    assert_eq!((found.len(), report.files), (1, 2));
    assert_eq!((found[0].kind, found[0].recorded), (FindingKind::OldVersion, Algorithm::Blake3.digest(&other)));
    assert_eq!(found[0].found, Some(Algorithm::Blake3.digest(&old)));
    assert_eq!(bench.scrub().0, []);
}

#[test]
fn what_was_stopped_goes_on_where_it_was_also_after_a_restart() {
    let mut bench = Bench::new();
    for n in 0..20 {
        bench.push(&format!("{n:02}"), &Rng::new(n).bytes(300_000));
    }
    bench.push("00", b"another");
    let options = ScrubOptions::default().resume(true);
    let (mut files, mut bytes, mut stops) = (0, 0, 0);
    loop {
        let mut scrub = bench.storage.scrub(options).expect("it is served");
        let ended = (0..9).any(|_| scrub.step().expect("there is an index").is_none());
        files += scrub.report().files;
        bytes += scrub.report().bytes;
        drop(scrub);
        assert_eq!(bench.storage.last_scrub().expect("it is served").unfinished, !ended);
        if ended {
            break;
        }
        stops += 1;
        assert!(stops < 100, "it does not get on");
        bench = bench.restart();
    }
    assert!(stops > 5, "{stops}");
    assert_eq!(files, 21, "each file once, and the old version");
    let all = 20 * 300_000 + 7;
    assert!(bytes >= all && bytes <= all + stops * (256 << 10), "{bytes} of {all} with {stops} stops");
    let last = bench.storage.last_scrub().expect("it is served").finished.expect("it has ended");
    assert!(last.elapsed().is_ok_and(|ago| ago < Duration::from_secs(60)));
    // One that is not to be resumed leaves that alone.
    let mut scrub = bench.storage.scrub(ScrubOptions::default()).expect("it is served");
    scrub.step().expect("there is an index");
    drop(scrub);
    assert!(!bench.storage.last_scrub().expect("it is served").unfinished);
}

#[test]
fn a_rate_is_kept_to() {
    let bench = Bench::new();
    bench.push("a", &Rng::new(1).bytes(1 << 20));
    bench.push("b", &Rng::new(2).bytes(1 << 20));
    let begun = Instant::now();
    let mut scrub = bench.storage.scrub(ScrubOptions::default().rate(4 << 20)).expect("it is served");
    while scrub.step().expect("there is an index").is_some() {
        let most = begun.elapsed().as_secs_f64() * f64::from(4 << 20) + f64::from(256 << 10);
        assert!(scrub.report().bytes as f64 <= most, "{} bytes", scrub.report().bytes);
    }
    assert_eq!(scrub.report().bytes, 2 << 20);
    assert!(begun.elapsed() >= Duration::from_millis(430), "{:?}", begun.elapsed());
    // A very low one waits in steps that can be stopped.
    let mut scrub = bench.storage.scrub(ScrubOptions::default().rate(1)).expect("it is served");
    let begun = Instant::now();
    (0..5).for_each(|_| assert!(scrub.step().expect("there is an index").is_some()));
    assert!(scrub.report().bytes <= 256 << 10 && begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn commits_that_come_meanwhile_are_never_found_to_be_anything() {
    let bench = Bench::new();
    let paths: Vec<String> = (0..4).map(|n| format!("f{n}")).collect();
    for path in &paths {
        bench.push(path, &Rng::new(9).bytes(20_000));
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for (path, seed) in paths.iter().zip(0u64..) {
            let (bench, stop) = (&bench, &stop);
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // Lengths that come again, so that only times and inodes tell.
                    bench.push(path, &Rng::new(seed << 32 | n).bytes(20_000 + n as usize % 2));
                    describe(&bench.storage, path).expect("nothing is damaged");
                }
            });
        }
        let (mut passes, until) = (0, Instant::now() + Duration::from_secs(2));
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while passes < 2 || Instant::now() < until {
                let (found, _) = bench.scrub();
                assert_eq!(found, [], "after {passes} passes");
                passes += 1;
            }
        }));
        stop.store(true, Ordering::Relaxed);
        assert!(found.is_ok(), "after {passes} passes");
    });
}

#[test]
fn only_a_served_directory_can_be_scrubbed() {
    let directory = TempDir::new().expect("a temporary directory");
    let storage = LocalStorage::roots(vec![directory.path().to_owned()], LocalOptions::default()).expect("opened");
    let refused = storage.scrub(ScrubOptions::default()).expect_err("nothing is recorded");
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn positions_are_read_as_they_were_written() {
    let path = RelPath::new(*b"a/b").expect("a path");
    for position in [Position::Files(None), Position::Files(Some(path)), Position::Versions(7)] {
        assert_eq!(Position::decode(&position.encode()), Some(position));
    }
    for bytes in [&[][..], &[3], &[0, 1], &[1, b'/'], &[2, 1]] {
        assert_eq!(Position::decode(bytes), None, "{bytes:?}");
    }
}
