//! A directory and a file that flip into links to outside and back while a storage reads, stages, publishes and lists
//! through them, by the kernel's walk and by components: nothing outside is read or written.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use deltasync_core::{
    Algorithm, Attributes, ByteLen, Limits, Name, Offset, Op, Ops, Planner, RelPath, TreeEntry, TreeKind, TreeLister,
    content_check,
};
use deltasync_io::{BlockingStorage, LocalOptions, LocalStorage};
use deltasync_proto::{
    Answer, Ask, Cutting, Destination, Extra, FileHandle, OpenedFile, Place, Replaces, RootId, Scope, StorageFault,
    TreeOptions,
};
use rustix::fs::{CWD, RenameFlags};
use tempfile::TempDir;

const INSIDE: &[u8] = b"inside, and nothing else";
/// How often each thing happens at the least, before a run says something.
const ENOUGH: u64 = 50;
const MARK: &[u8] = b"this must never come back";

fn place(at: &str) -> Place {
    Place { root: RootId::new(0), path: RelPath::new(at.as_bytes()).expect("a path") }
}

fn read(storage: &LocalStorage, file: FileHandle, len: ByteLen) -> Result<Bytes, StorageFault> {
    match storage.answer(Ask::Read { file, ranges: vec![(Offset::ZERO, len)] })? {
        Answer::Read(bytes) => Ok(bytes),
        other => panic!("asked to read, got {other:?}"),
    }
}

/// Opens a file as a source, and reads it.
fn pull(storage: &LocalStorage, at: &str) -> Result<Bytes, StorageFault> {
    let ask =
        Ask::Describe { place: place(at), cutting: Cutting::ByContent, algorithm: Algorithm::Blake3, remember: None };
    match storage.answer(ask)? {
        Answer::Described(file) => {
            assert_ne!(file.chunks.root(), Algorithm::Blake3.digest(MARK), "the root of what lies outside");
            read(storage, file.file, file.chunks.len())
        }
        other => panic!("asked to describe, got {other:?}"),
    }
}

/// Opens what is there as a basis, and publishes another content over it.
fn push(storage: &LocalStorage, at: &str, bytes: &[u8]) -> Result<(), StorageFault> {
    let algorithm = Algorithm::Blake3;
    let (root, len) = (algorithm.digest(bytes), ByteLen::new(bytes.len() as u64));
    let destination = Destination { place: place(at), name: Name::new(*b"unused").expect("a name"), directory: false };
    let wanted = Some((algorithm.digest(MARK), ByteLen::new(MARK.len() as u64)));
    let basis = storage.answer(Ask::Basis { destination, cutting: Cutting::ByContent, algorithm, wanted })?;
    let Answer::Basis { place, file, twin, .. } = basis else { panic!("asked for a basis, got {basis:?}") };
    assert!(twin.is_none(), "what lies outside is nobody's twin");
    let replaces = match file {
        Some(file) => {
            let old = read(storage, file.file.clone(), file.chunks.len())?;
            assert!(old != MARK, "what lies outside came back as a basis");
            Replaces::File(file.file)
        }
        None => Replaces::Nothing,
    };
    let staged = storage.answer(Ask::Stage { place, len, algorithm, root })?;
    let Answer::Staged(stage) = staged else { panic!("asked to stage, got {staged:?}") };
    let ops: Ops = [Op::Literal { len }].into_iter().collect();
    let mut planner = Planner::new(ByteLen::ZERO, len, &Limits::default()).expect("within the limits");
    let plan = planner.plan(&ops, ops.literal_len()).expect("it fits");
    let literals = Bytes::copy_from_slice(bytes);
    storage.answer(Ask::Apply { stage: stage.clone(), basis: None, plan, literals })?;
    storage.answer(Ask::Commit { stage, replaces }).map(|_| ())
}

/// Lists a tree, and reads all of its archive.
fn pull_tree(storage: &LocalStorage, at: &str) -> Result<(), StorageFault> {
    let ask = Ask::Describe {
        place: place(at),
        cutting: Cutting::Tree(Scope::default()),
        algorithm: Algorithm::Blake3,
        remember: None,
    };
    let Answer::Described(tree) = storage.answer(ask)? else { panic!("asked to describe") };
    let bytes = read(storage, tree.file, tree.chunks.len())?;
    for outside in [MARK, b"only-outside"] {
        assert!(!bytes.windows(outside.len()).any(|bytes| bytes == outside), "what lies outside is in the tree");
    }
    Ok(())
}

/// Makes of what is there a tree of a file, a link, and a directory with a file.
fn push_tree(storage: &LocalStorage, at: &str) -> Result<(), StorageFault> {
    let (algorithm, attributes) = (Algorithm::Blake3, Attributes::new(0o755, 7, 0).expect("in range"));
    let path = |path: &str| RelPath::new(path.as_bytes()).expect("a path");
    let file = TreeKind::File { len: ByteLen::of(INSIDE), root: None };
    let link = TreeKind::Symlink { target: b"deep/file".to_vec() };
    let entries = [("", TreeKind::Directory), ("deep", TreeKind::Directory), ("deep/file", file.clone())];
    let mut lister = TreeLister::new(algorithm, &Limits::default());
    for (at, kind) in entries.into_iter().chain([("file", file), ("link", link)]) {
        lister.push(&TreeEntry::new(path(at), kind, attributes)).expect("in order");
    }
    let list = lister.finish();
    let mut archive = Vec::new();
    for (index, entry) in list.entries().enumerate() {
        archive.extend_from_slice(list.header(index));
        if entry.inline().is_some() {
            archive.extend_from_slice(&content_check(INSIDE));
            archive.extend_from_slice(INSIDE);
        }
    }
    let destination = Destination { place: place(at), name: Name::any(), directory: false };
    let basis = storage.answer(Ask::Basis {
        destination,
        cutting: Cutting::Tree(Scope::default()),
        algorithm,
        wanted: None,
    })?;
    let Answer::Basis { place, file: basis, .. } = basis else { panic!("asked for a basis, got {basis:?}") };
    let basis = basis.filter(OpenedFile::is_tree);
    let basis_len = basis.as_ref().map_or(ByteLen::ZERO, |basis| basis.chunks.len());
    let (basis, len) = (basis.map(|basis| basis.file), ByteLen::of(&archive));
    let ask = Ask::StageTree {
        place,
        len,
        algorithm,
        basis: basis.clone(),
        options: TreeOptions::default().extra(Extra::Delete { most: Some(9) }),
    };
    let staged = storage.answer(ask)?;
    let Answer::Staged(stage) = staged else { panic!("asked to stage, got {staged:?}") };
    let ops: Ops = [Op::Literal { len }].into_iter().collect();
    let mut planner = Planner::new(basis_len, len, &Limits::default()).expect("within the limits");
    let plan = planner.plan(&ops, ops.literal_len()).expect("it fits");
    storage.answer(Ask::Apply { stage: stage.clone(), basis, plan, literals: archive.into() })?;
    storage.answer(Ask::Seal { stage: stage.clone() })?;
    storage.answer(Ask::Commit { stage, replaces: Replaces::Nothing }).map(|_| ())
}

fn list(storage: &LocalStorage, at: &str) -> Result<(), StorageFault> {
    match storage.answer(Ask::List { place: place(at), after: None, most: 100 })? {
        Answer::Listed { entries, .. } => {
            assert!(entries.iter().all(|entry| entry.name.as_bytes() != b"only-outside"), "{entries:?}");
            Ok(())
        }
        other => panic!("asked to list, got {other:?}"),
    }
}

fn counted<T, E>(result: Result<T, E>, [made, not_made]: &[AtomicU64; 2]) -> Result<T, E> {
    (if result.is_ok() { made } else { not_made }).fetch_add(1, Ordering::Relaxed);
    result
}

/// Names, contents and times of a directory and of one below it.
fn snapshot(outside: &Path) -> Vec<(PathBuf, Vec<u8>, i64, i64)> {
    let mut found = Vec::new();
    for directory in [outside.to_owned(), outside.join("deep")] {
        let mut paths: Vec<_> =
            fs::read_dir(&directory).expect("listed").map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths.push(directory);
        for path in paths {
            let metadata = path.symlink_metadata().expect("there");
            found.push((path.clone(), fs::read(&path).unwrap_or_default(), metadata.mtime(), metadata.mtime_nsec()));
        }
    }
    found
}

/// Tells the other threads to end, also when this one panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn check_flips(served: bool, components: bool, time: Duration) {
    let (directory, outside) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(outside.path().join("deep")).expect("made");
    for name in ["file", "only-outside", "deep/file"] {
        fs::write(outside.path().join(name), MARK).expect("written");
    }
    fs::create_dir_all(at("way/deep")).expect("made");
    for name in ["file", "way/file", "way/deep/file"] {
        fs::write(at(name), INSIDE).expect("written");
    }
    symlink(outside.path(), at("swap")).expect("linked");
    symlink(outside.path().join("file"), at("swap-file")).expect("linked");
    let before = snapshot(outside.path());
    let options = LocalOptions::default().components(components);
    let storage = if served {
        LocalStorage::serve(directory.path(), options)
    } else {
        LocalStorage::roots(vec![directory.path().to_owned()], options)
    };
    let storage = &storage.expect("opened");
    let (done, flips) = (&AtomicBool::new(false), &AtomicU64::new(0));
    let (passed, refused, crossed) = (&AtomicU64::new(0), &AtomicU64::new(0), &AtomicU64::new(0));
    let trees = &[const { AtomicU64::new(0) }; 2];
    let counts = [&trees[0], &trees[1], passed, refused, crossed];
    let met = &|| counts.map(|count| count.load(Ordering::SeqCst));
    thread::scope(|scope| {
        let _stop = Stop(done);
        scope.spawn(|| {
            let pairs = [("way", "swap"), ("file", "swap-file")].map(|(one, other)| (at(one), at(other)));
            while !done.load(Ordering::Relaxed) {
                for (one, other) in &pairs {
                    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("both are there");
                    flips.fetch_add(1, Ordering::SeqCst);
                }
                // Most pauses are as long as a few calls, some as long as the making of a whole tree.
                let count = flips.load(Ordering::Relaxed);
                thread::sleep(Duration::from_micros(if count.is_multiple_of(64) { 5_000 } else { count % 90 }));
            }
        });
        let workers = (0..3).map(|worker| {
            scope.spawn(move || {
                let begun = Instant::now();
                for round in 0.. {
                    // How often one side wins is the machine's: it goes on until both have, within reason.
                    let few = met().iter().any(|count| *count <= ENOUGH);
                    if begun.elapsed() > if few { time * 8 } else { time } {
                        break;
                    }
                    let flips_before = flips.load(Ordering::SeqCst);
                    let whole = |bytes: Bytes| assert_eq!(bytes, INSIDE, "round {round}");
                    let result = match round % 16 {
                        3 => push(storage, "way/deep/file", INSIDE),
                        7 => push(storage, &format!("way/made {worker}/deep/{round}"), INSIDE),
                        11 => push(storage, "way/file", INSIDE),
                        1 => list(storage, "way"),
                        9 => pull_tree(storage, "way"),
                        2 | 10 => counted(push_tree(storage, "way"), trees),
                        14 => counted(push_tree(storage, "way/deep"), trees),
                        5 | 13 => pull(storage, "way/deep/file").map(whole),
                        round if round % 4 == 0 => pull(storage, "file").map(whole),
                        _ => pull(storage, "way/file").map(whole),
                    };
                    (if result.is_ok() { passed } else { refused }).fetch_add(1, Ordering::Relaxed);
                    let now = flips.load(Ordering::SeqCst);
                    crossed.fetch_add(u64::from(now != flips_before), Ordering::Relaxed);
                }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.join().expect("nothing outside came back");
        }
    });
    let [made, not_made, passed, refused, crossed] = met();
    let (way, flips) = (if components { "by components" } else { "by the kernel" }, flips.load(Ordering::SeqCst));
    println!(
        "{way}, served {served}: {flips} flips; {passed} requests done, {refused} refused, {crossed} crossed a flip"
    );
    println!("of these {made} trees were made, {not_made} were not");
    assert!(met().iter().all(|count| *count > ENOUGH), "too few met");
    assert_eq!(snapshot(outside.path()), before);
}

#[test]
#[ignore = "takes half a minute"]
fn flips_while_the_kernel_walks_lead_nowhere() {
    check_flips(true, false, Duration::from_secs(10));
    check_flips(false, false, Duration::from_secs(5));
}

#[test]
#[ignore = "takes half a minute"]
fn flips_while_we_walk_by_components_lead_nowhere() {
    check_flips(true, true, Duration::from_secs(10));
    check_flips(false, true, Duration::from_secs(5));
}
