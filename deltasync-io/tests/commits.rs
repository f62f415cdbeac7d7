//! Many commits at once, on a disk that fails and is cut off: what was acknowledged stays, and who is told of a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use deltasync_core::{Algorithm, ByteLen, Limits, Name, Op, Ops, Planner, RelPath};
use deltasync_io::{BlockingStorage, LocalOptions, LocalStorage};
use deltasync_proto::{
    Answer, Ask, Cutting, Destination, OpenedFile, Place, Replaces, RootId, StageHandle, StorageFault,
};
use deltasync_testkit::{Rng, SimCall, SimDisk, SimFault};

/// `EIO`, and what the system says of it.
const EIO: SimFault = SimFault::Errno(5);
const SAYS: &str = "Input/output error";

fn place(path: &str) -> Place {
    Place { root: RootId::new(0), path: RelPath::new(path.as_bytes()).expect("a valid path") }
}

fn serve(disk: &SimDisk) -> LocalStorage {
    LocalStorage::serve_on(disk.root(), LocalOptions::default()).expect("it can be served")
}

fn stage(storage: &LocalStorage, path: &str, content: &[u8], first: usize) -> Result<StageHandle, StorageFault> {
    let (len, algorithm, first) = (ByteLen::of(content), Algorithm::Blake3, &content[..first]);
    let ask = Ask::Stage { place: place(path), len, algorithm, root: algorithm.digest(content) };
    let Answer::Staged(stage) = storage.answer(ask)? else { panic!("asked for a stage") };
    let ops: Ops = [Op::Literal { len: ByteLen::of(first) }].into_iter().collect();
    let mut planner = Planner::new(ByteLen::ZERO, ByteLen::of(first), &Limits::default()).expect("within the limits");
    let plan = planner.plan(&ops, ByteLen::of(first)).expect("it fits");
    storage.answer(Ask::Apply { stage: stage.clone(), basis: None, plan, literals: first.to_vec().into() })?;
    Ok(stage)
}

fn publish(storage: &LocalStorage, path: &str, content: &[u8]) -> Result<(), StorageFault> {
    let stage = stage(storage, path, content, content.len())?;
    storage.answer(Ask::Commit { stage, replaces: Replaces::Nothing }).map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic")
}

/// The content of a file by its name: long enough that a stage of it is worth being kept.
fn content(path: &str) -> Vec<u8> {
    Rng::new(u64::from_le_bytes(*Algorithm::Blake3.digest(path.as_bytes()).as_bytes().first_chunk().expect("8 of 32")))
        .bytes(70_000)
}

/// Publishes files in two directories from 8 threads; `watch` runs meanwhile, with those that have been acknowledged.
/// Returns what each was told.
fn publish_many(
    storage: &LocalStorage,
    each: usize,
    watch: impl FnOnce(&Mutex<BTreeMap<String, Result<(), StorageFault>>>),
) -> BTreeMap<String, Result<(), StorageFault>> {
    let told = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for number in 0..8 {
            let told = &told;
            scope.spawn(move || {
                for file in 0..each {
                    let path = format!("dir{}/{number}-{file}", file % 2);
                    let result = publish(storage, &path, &content(&path));
                    lock(told).insert(path, result);
                }
            });
        }
        watch(&told);
    });
    told.into_inner().expect("no panic")
}

fn assert_there(disk: &SimDisk, paths: impl IntoIterator<Item = String>) {
    for path in paths {
        assert!(disk.get(&path).is_some_and(|bytes| bytes == content(&path)), "{path} was acknowledged");
    }
}

fn acknowledged(told: &BTreeMap<String, Result<(), StorageFault>>) -> BTreeSet<String> {
    told.iter().filter(|(_, result)| result.is_ok()).map(|(path, _)| path.clone()).collect()
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    (0..2).for_each(|number| disk.make_dir(&format!("dir{number}")));
    disk
}

#[test]
fn what_is_acknowledged_among_many_outlasts_a_power_cut() {
    for seed in 0..6 {
        let disk = disk();
        let storage = serve(&disk);
        let mut rng = Rng::new(seed);
        let told = publish_many(&storage, 12, |told| {
            for _ in 0..10 {
                let before = acknowledged(&lock(told));
                assert_there(&disk.power_cut(&mut rng), before);
                thread::yield_now();
            }
        });
        assert!(told.values().all(Result::is_ok), "{told:?}");
        assert_there(&disk.power_cut(&mut rng), acknowledged(&told));
    }
}

/// The `n`-th sync of data fails while many commit: the one whose data it was is told, and nobody else.
#[test]
fn a_sync_of_data_that_fails_fails_its_own_commit_only() {
    let mut own = 0;
    for n in 1..30 {
        let disk = disk();
        let storage = serve(&disk);
        disk.fail(n, Some(SimCall::SyncData), EIO);
        let told = publish_many(&storage, 4, |_| {});
        let failed: Vec<_> = told.iter().filter_map(|(path, result)| Some((path, result.as_ref().err()?))).collect();
        let Some((_, at)) = disk.hit() else { panic!("32 files have as many syncs") };
        if at.starts_with(".deltasync/staging/") {
            own += 1;
            let [(path, fault)] = &failed[..] else { panic!("{n}, {at}: {failed:?}") };
            assert!(fault.message.starts_with(path.as_str()) && fault.message.contains(SAYS), "{fault}");
            assert_eq!(disk.get(path), None, "the file never came");
        }
        let cut = disk.power_cut(&mut Rng::new(n));
        assert_there(&cut, acknowledged(&told));
        let staged = |path: &String| path.starts_with(".deltasync/staging/");
        assert!(!disk.tree().into_keys().any(|path| staged(&path)), "what a sync has lost is not gone on from");
    }
    assert!(own > 15, "{own}: most syncs are of the files themselves");
}

/// The `n`-th sync of a directory fails: all who waited for that one are told, and nobody else.
#[test]
fn a_sync_of_a_directory_that_fails_is_told_to_who_waited_for_it() {
    let mut of_targets = 0;
    for n in 1..30 {
        let disk = disk();
        let storage = serve(&disk);
        disk.fail(n, Some(SimCall::SyncDir), EIO);
        let told = publish_many(&storage, 6, |_| {});
        let Some((_, at)) = disk.hit() else { continue };
        let failed = told.iter().filter_map(|(path, result)| Some((path, result.as_ref().err()?)));
        if at.starts_with("dir") {
            of_targets += 1;
            assert!(failed.clone().count() > 0);
            for (path, fault) in failed {
                let says = format!("{path}: in place, but it may not outlast a power cut: {SAYS}");
                assert!(path.starts_with(&at) && fault.message.starts_with(&says), "{at}: {fault}");
                assert!(disk.get(path).is_some_and(|bytes| bytes == content(path)), "it is in place");
            }
        }
        assert_there(&disk.power_cut(&mut Rng::new(n)), acknowledged(&told));
    }
    assert!(of_targets > 0, "no sync of the targets' directories was hit");
}

/// What a power cut leaves of a stage may be anything; it is found, read and gone on from, or it is not there.
#[test]
fn what_a_power_cut_leaves_of_a_stage_is_only_a_basis() {
    let (mut found, mut torn) = (0, 0);
    let target = content("file");
    let look = |storage: &LocalStorage| -> Option<OpenedFile> {
        let (len, algorithm) = (ByteLen::of(&target), Algorithm::Blake3);
        let name = Name::new(*b"file").expect("a name");
        let destination = Destination { place: place("file"), name, directory: false };
        let wanted = Some((algorithm.digest(&target), len));
        match storage.answer(Ask::Basis { destination, cutting: Cutting::ByContent, algorithm, wanted }) {
            Ok(Answer::Basis { partial, .. }) => partial,
            other => panic!("asked for a basis, got {other:?}"),
        }
    };
    for seed in 0..200 {
        let disk = disk();
        let storage = serve(&disk);
        let stage = stage(&storage, "file", &target, 68_000).expect("it can be staged");
        let cut = disk.power_cut(&mut Rng::new(seed));
        drop((stage, storage));
        let storage = serve(&cut);
        if let Some(partial) = look(&storage) {
            found += 1;
            let ranges = vec![(deltasync_core::Offset::ZERO, partial.chunks.len())];
            let read = storage.answer(Ask::Read { file: partial.file.clone(), ranges });
            let Ok(Answer::Read(bytes)) = read else { panic!("seed {seed}: {read:?}") };
            assert_eq!(partial.chunks.root(), Algorithm::Blake3.digest(&bytes), "seed {seed}");
            torn += u32::from(bytes[..] != target[..68_000]);
        }
        publish(&storage, "file", &target).expect("it goes well");
        assert_there(&cut, ["file".to_owned()]);
        let staged = cut.tree().into_keys().filter(|path| path.starts_with(".deltasync/staging/")).count();
        assert_eq!(staged, 0, "seed {seed}");
    }
    assert!(found > 0 && torn > 0, "{found} found, {torn} of them torn");
}
