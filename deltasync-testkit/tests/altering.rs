//! Directories that are made, and what is renamed and removed, over a disk that fails at any call and loses its power.

use std::collections::BTreeMap;

use deltasync_core::RelPath;
use deltasync_io::{BlockingStorage, LocalOptions, LocalStorage};
use deltasync_proto::{Answer, Ask, FaultKind, Place, RootId, StorageFault};
use deltasync_testkit::{Rng, SimCall, SimDisk, SimFault};
use rustix::io::Errno;

/// How many power cuts are drawn after each end.
const CUTS: u64 = 40;

type Tree = BTreeMap<String, Option<Vec<u8>>>;

#[derive(Clone, Copy, Debug)]
enum Change {
    Make(&'static str),
    Rename(&'static str, &'static str),
    Remove(&'static str),
}

const ALL: [Change; 7] = [
    Change::Make("new"),
    Change::Make("dir/deep/new"),
    Change::Rename("file", "renamed"),
    Change::Rename("dir/file", "other/moved"),
    Change::Rename("dir/deep", "other/moved"),
    Change::Remove("file"),
    Change::Remove("dir"),
];

impl Change {
    fn ask(self) -> Ask {
        let path = |text: &str| RelPath::new(text.as_bytes()).expect("a path");
        let place = |text: &str| Place { root: RootId::new(0), path: path(text) };
        match self {
            Self::Make(at) => Ask::MakeDirectory { place: place(at) },
            Self::Rename(from, to) => Ask::Rename { from: place(from), to: path(to) },
            Self::Remove(at) => Ask::Remove { place: place(at), recursive: true },
        }
    }

    /// What the tree is after it.
    fn applied_to(self, tree: &Tree) -> Tree {
        let below = |path: &str, at: &str| path == at || path.starts_with(&format!("{at}/"));
        let mut after = tree.clone();
        match self {
            Self::Make(at) => drop(after.insert(at.to_owned(), None)),
            Self::Rename(from, to) => {
                after.retain(|path, _| !below(path, from));
                let moved = tree.iter().filter(|(path, _)| below(path, from));
                after.extend(moved.map(|(path, is)| (path.replacen(from, to, 1), is.clone())));
            }
            Self::Remove(at) => after.retain(|path, _| !below(path, at)),
        }
        after
    }
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    for at in ["file", "dir/file", "dir/deep/one", "dir/deep/two", "kept/file"] {
        disk.put(at, at.as_bytes());
    }
    for at in ["other", "dir/empty"] {
        disk.make_dir(at);
    }
    disk
}

/// What peers see.
fn seen(disk: &SimDisk) -> Tree {
    disk.tree().into_iter().filter(|(path, _)| !path.starts_with(".deltasync")).collect()
}

fn storage(disk: &SimDisk, served: bool) -> LocalStorage {
    match served {
        true => LocalStorage::serve_on(disk.root(), LocalOptions::default()).expect("it starts"),
        false => LocalStorage::roots_on(vec![disk.root()], LocalOptions::default()),
    }
}

fn change(storage: &LocalStorage, change: Change) -> Result<(), StorageFault> {
    match storage.answer(change.ask())? {
        Answer::Altered => Ok(()),
        other => panic!("asked for a change, got {other:?}"),
    }
}

#[test]
fn what_is_answered_outlasts_a_power_cut() {
    for (served, what) in [true, false].into_iter().flat_map(|served| ALL.map(|what| (served, what))) {
        let disk = disk();
        let storage = storage(&disk, served);
        let after = what.applied_to(&seen(&disk));
        change(&storage, what).expect("it can be done");
        assert_eq!(seen(&disk), after, "{what:?}");
        for seed in 0..CUTS {
            assert_eq!(seen(&disk.power_cut(&mut Rng::new(seed))), after, "{what:?}, seed {seed}");
        }
    }
}

/// Whichever call fails: what is answered is done and lasts, and what is not has lost nothing that was to stay.
#[test]
fn a_call_that_fails_is_told_or_does_no_harm() {
    for (served, what) in [true, false].into_iter().flat_map(|served| ALL.map(|what| (served, what))) {
        let (mut refused, mut n) = (0, 0);
        loop {
            n += 1;
            let disk = disk();
            let storage = storage(&disk, served);
            let before = seen(&disk);
            let after = what.applied_to(&before);
            disk.fail(n, None, SimFault::Errno(Errno::IO.raw_os_error()));
            let done = change(&storage, what);
            let Some((call, at)) = disk.hit() else { break };
            let name = format!("{what:?}, call {n}: {call:?} of {at}: {done:?}");
            refused += u32::from(done.is_err());
            match &done {
                Ok(()) => assert_eq!(seen(&disk), after, "{name}"),
                // A removal may be done in part; all else is done or not.
                Err(fault) => {
                    let left = seen(&disk);
                    let part = left.iter().all(|(path, is)| before.get(path) == Some(is))
                        && after.keys().all(|path| left.contains_key(path));
                    assert!(left == before || left == after || matches!(what, Change::Remove(_)) && part, "{name}");
                    if left != before && left != after {
                        assert!(fault.message.contains("a part of what was to go is removed"), "{name}");
                    }
                    assert!(!matches!(fault.kind, FaultKind::NotFound | FaultKind::Exists), "{name}");
                }
            }
            for seed in 0..CUTS {
                let cut = seen(&disk.power_cut(&mut Rng::new(seed)));
                if done.is_ok() {
                    assert_eq!(cut, after, "{name}, seed {seed}");
                }
                for (path, is) in &after {
                    let moved = |at: &String| matches!(what, Change::Rename(_, to) if at.starts_with(to));
                    let kept = cut.get(path) == Some(is) || !before.contains_key(path);
                    assert!(kept || moved(path), "{name}, seed {seed}: {path} is lost");
                }
                // What moves is there under one of its names, or both.
                if let Change::Rename(from, to) = what {
                    for path in before.keys().filter(|path| *path == from || path.starts_with(&format!("{from}/"))) {
                        let there = cut.contains_key(path) || cut.contains_key(&path.replacen(from, to, 1));
                        assert!(there, "{name}, seed {seed}: {path} is lost");
                    }
                }
            }
        }
        assert!(refused >= 3, "{what:?}: {refused} of {n} calls that failed were told");
    }
}

/// A sync that fails is told, whichever it is: a rename across directories has two.
#[test]
fn every_sync_that_fails_is_told() {
    for (what, syncs) in
        ALL.map(|what| (what, if matches!(what, Change::Rename("dir/file" | "dir/deep", _)) { 2 } else { 1 }))
    {
        for n in 1..=syncs {
            let disk = disk();
            let storage = storage(&disk, false);
            disk.fail(n, Some(SimCall::SyncDir), SimFault::Errno(Errno::IO.raw_os_error()));
            let fault = change(&storage, what).expect_err("a sync has failed");
            assert!(disk.hit().is_some(), "{what:?}: sync {n}");
            assert_eq!(fault.kind, FaultKind::Other, "{what:?}: {fault}");
        }
        let disk = disk();
        let storage = storage(&disk, false);
        disk.fail(syncs + 1, Some(SimCall::SyncDir), SimFault::Errno(Errno::IO.raw_os_error()));
        change(&storage, what).expect("no more syncs are waited for");
    }
}
