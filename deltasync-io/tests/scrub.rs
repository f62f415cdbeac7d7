//! A scrub over a disk that fails on demand: what it does not give back is told and marked, what it only refuses is not,
//! and no fault makes a scrub take a good file for a damaged one.

use deltasync_core::Algorithm;
use deltasync_io::{
    BlockingStorage, Finding, FindingKind, KeepForm, LocalOptions, LocalStorage, ScrubEvent, ScrubOptions,
};
use deltasync_proto::FaultKind;
use deltasync_testkit::{Rng, SimCall, SimDisk, SimFault};

#[path = "../src/laws.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "most of them are for other tests")]
mod laws;

use laws::{describe, publish};

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const EACCES: i32 = 13;

/// Three files, one of them longer than a step.
fn bench() -> (SimDisk, LocalStorage) {
    let disk = SimDisk::new();
    let storage = LocalStorage::serve_on(disk.root(), LocalOptions::default()).expect("it can be served");
    for (name, len) in [("a", 10), ("b", 600_000), ("d/c", 70_000)] {
        publish(&storage, name, &Rng::new(len).bytes(len as usize)).expect("published");
    }
    (disk, storage)
}

/// All that is found, or the error that ended it.
fn scrub(storage: &LocalStorage) -> std::io::Result<Vec<Finding>> {
    let mut scrub = storage.scrub(ScrubOptions::default())?;
    let mut found = Vec::new();
    while let Some(event) = scrub.step()? {
        if let ScrubEvent::Found(finding) = event {
            found.push(finding);
        }
    }
    Ok(found)
}

/// How often a call is made by a scrub when all goes well.
fn calls_of_a_scrub(of: SimCall) -> u64 {
    let (disk, storage) = bench();
    let before = disk.calls().len();
    assert_eq!(scrub(&storage).expect("all goes well"), []);
    disk.calls()[before..].iter().filter(|call| **call == of).count() as u64
}

/// Which files were hit, when each call of one kind in a scrub fails in turn.
fn each_failing(of: SimCall, errno: i32, mut check: impl FnMut(&str, &LocalStorage, Vec<Finding>)) {
    let calls = calls_of_a_scrub(of);
    assert!(calls > 0, "{of:?}");
    for n in 1..=calls {
        let (disk, storage) = bench();
        disk.fail(n, Some(of), SimFault::Errno(errno));
        let found = scrub(&storage);
        let (_, hit) = disk.hit().expect("it was called");
        if hit.starts_with(".deltasync") {
            continue;
        }
        check(&hit, &storage, found.expect("files are no errors"));
        for name in ["a", "b", "d/c"] {
            describe(&storage, name).expect("it is as it was");
        }
        assert_eq!(scrub(&storage).expect("all goes well again"), [], "{of:?} {n} {hit}");
    }
}

#[test]
fn what_a_disk_does_not_give_back_is_unreadable_and_marked_until_it_does() {
    let mut hit_files = Vec::new();
    each_failing(SimCall::Read, EIO, |hit, _, found| {
        assert_eq!(found.len(), 1, "{hit}: {found:?}");
        assert_eq!((found[0].kind, found[0].path.to_string().as_str()), (FindingKind::Unreadable, hit));
        hit_files.push(hit.to_owned());
    });
    hit_files.dedup();
    assert_eq!(hit_files, ["a", "b", "d/c"]);

    // While it is marked, a client that cannot be given it is told what it should be.
    let (disk, storage) = bench();
    disk.fail(1, Some(SimCall::Read), SimFault::Errno(EIO));
    assert_eq!(scrub(&storage).expect("files are no errors").len(), 1);
    disk.fail(1, Some(SimCall::Read), SimFault::Errno(EIO));
    let fault = describe(&storage, "a").expect_err("it cannot be read");
    assert_eq!(fault.kind, FaultKind::Damaged);
    assert_eq!(fault.current.expect("what it should be").root, Algorithm::Blake3.digest(&Rng::new(10).bytes(10)));
    // It comes back, and nobody minds any more.
    describe(&storage, "a").expect("it can be read");
    disk.fail(1, Some(SimCall::Read), SimFault::Errno(EIO));
    assert_eq!(describe(&storage, "a").expect_err("it cannot be read").kind, FaultKind::Other);
}

#[test]
fn who_only_may_not_look_just_now_marks_nothing() {
    for errno in [EMFILE, EACCES] {
        each_failing(SimCall::Open, errno, |hit, _, found| {
            assert_eq!(found.len(), 1, "{hit}: {found:?}");
            assert_eq!(found[0].kind, FindingKind::Unreadable);
        });
        let (disk, storage) = bench();
        disk.fail(1, Some(SimCall::Open), SimFault::Errno(errno));
        assert_eq!(scrub(&storage).expect("files are no errors").len(), 1);
        disk.fail(1, Some(SimCall::Read), SimFault::Errno(EIO));
        assert_eq!(describe(&storage, "a").expect_err("it cannot be read").kind, FaultKind::Other);
    }
}

#[test]
fn a_look_that_fails_never_makes_a_file_changed_gone_or_damaged() {
    each_failing(SimCall::Stat, EIO, |hit, _, found| {
        let unreadable = found.iter().all(|finding| finding.kind == FindingKind::Unreadable);
        assert!(found.len() <= 1 && unreadable, "{hit}: {found:?}");
    });
}
