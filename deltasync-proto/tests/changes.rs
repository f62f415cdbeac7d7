//! Sources that change while they are read, at any moment, whatever was remembered and whatever is at the server.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use common::{Ends, content, meddling, put, random};
use deltasync_core::Algorithm;
use deltasync_io::{BlockingStorage, KeepForm};
use deltasync_proto::{EventKind, TransferError};
use deltasync_testkit::{file, pull, push};

const FORMS: [KeepForm; 2] = [KeepForm::Copy, KeepForm::Sums];
/// More requests than the client's storage gets in an undisturbed run.
const REQUESTS: u64 = 16;

fn old() -> Vec<u8> {
    random(1, 30_000)
}

/// The old file with a place changed.
fn new() -> Vec<u8> {
    let mut new = old();
    new.splice(10_000..10_050, random(2, 300));
    new
}

/// The old file as somebody else has changed it.
fn others() -> Vec<u8> {
    let mut others = old();
    others[20_000..20_100].fill(7);
    others
}

/// The source becomes `changed` at the n-th request of a run, for each n, over what is at the server.
#[track_caller]
fn check_changes(form: Option<KeepForm>, there: &[u8], target: &[u8], changed: &[u8]) {
    let (mut late, mut restarted) = (0, 0);
    for at in 0..REQUESTS {
        for seed in 0..6 {
            let mut ends = Ends::forgetful(1000 * at + 100 * seed);
            put(&ends.remote, &file(), there);
            if let Some(form) = form {
                ends = Ends::remembering(1000 * at + 100 * seed, form);
                ends.push(&old());
                put(&ends.remote, &file(), there);
            }
            put(&ends.local, &file(), target);
            let asked = AtomicU64::new(0);
            let bytes = Bytes::copy_from_slice(changed);
            let local = meddling(&ends.local, move |memory, ask| {
                if asked.fetch_add(1, Ordering::Relaxed) == at {
                    put(memory, &file(), &bytes);
                }
                memory.answer(ask)
            });
            let remote = ends.remote.clone();
            let ran = ends.pair().storages(local, remote).command(push(file(), file())).run_to_end();
            assert!(ran.outcomes[0].is_ok(), "{form:?}, at request {at}: {:?} {:?}", ran.outcomes, ran.client);
            assert_eq!(ran.outcome().repairs, 0);
            let made = content(&ends.remote).expect("a file");
            assert_eq!(Algorithm::Blake3.digest(&made), ran.outcome().root);
            assert!(made == target || made == changed, "a mixture, {form:?}, at request {at}");
            let has_restarted = ran.events.iter().any(|event| matches!(event.kind, EventKind::Restarted));
            if has_restarted {
                restarted += 1;
                assert!(made == changed, "it started over for the version that was there");
            }
            late += u32::from(content(&ends.local).as_deref() == Some(target));
        }
    }
    println!("{form:?}: {restarted} restarts, {late} changes after the end");
    assert!(late > 0, "every request had its turn");
    assert!(restarted > 0, "some came in between");
}

#[test]
fn a_source_that_changes_at_any_moment_is_sent_as_it_was_or_as_it_is() {
    let target = new();
    let mut changed = target.clone();
    changed[25_000..25_500].fill(9);
    for changed in [changed, target[..15_000].to_vec(), b"short".to_vec(), [&target[..], b"longer"].concat()] {
        check_changes(None, &old(), &target, &changed);
        for form in FORMS {
            check_changes(Some(form), &old(), &target, &changed);
        }
    }
}

#[test]
fn a_source_that_changes_while_its_basis_proves_stale_is_no_quarrel() {
    let target = new();
    let mut changed = target.clone();
    changed[25_000..25_500].fill(9);
    for changed in [changed, b"short".to_vec()] {
        for form in FORMS {
            check_changes(Some(form), &others(), &target, &changed);
        }
    }
}

/// Somebody has pushed the target already: whether the source changes before that is found out or after it.
#[test]
fn a_source_that_changes_while_its_delta_proves_needless_is_no_quarrel() {
    let target = new();
    let mut changed = target.clone();
    changed[25_000..25_500].fill(9);
    for changed in [changed, b"short".to_vec()] {
        for form in FORMS {
            check_changes(Some(form), &target, &target, &changed);
        }
    }
}

#[test]
fn a_large_delta_of_a_source_that_changes_starts_over_too() {
    let target = [&new()[..], &random(5, 100_000)].concat();
    let mut changed = target.clone();
    changed[60_000..60_500].fill(9);
    for there in [old(), others()] {
        for form in FORMS {
            check_changes(Some(form), &there, &target, &changed);
        }
    }
}

/// It becomes another once more before anything was offered of what it had become.
#[test]
fn a_source_that_changes_twice_is_sent_as_it_is_in_the_end() {
    let versions = [1u8, 2].map(|fill| {
        let mut changed = new();
        changed[25_000..25_500].fill(fill);
        changed
    });
    let mut restarts = 0;
    for form in [None, Some(KeepForm::Copy), Some(KeepForm::Sums)] {
        for (first, second) in (0..8).flat_map(|first| (1..6).map(move |later| (first, first + later))) {
            let seed = 100 * first + second;
            let mut ends = Ends::forgetful(seed);
            put(&ends.remote, &file(), &old());
            if let Some(form) = form {
                ends = Ends::remembering(seed, form);
                ends.push(&old());
            }
            put(&ends.local, &file(), &new());
            let asked = AtomicU64::new(0);
            let versions = versions.clone();
            let local = meddling(&ends.local, move |memory, ask| {
                let now = asked.fetch_add(1, Ordering::Relaxed);
                if let Some(version) = [first, second].iter().position(|at| *at == now) {
                    put(memory, &file(), &versions[version]);
                }
                memory.answer(ask)
            });
            let ran = ends.pair().storages(local, ends.remote.clone()).command(push(file(), file())).run_to_end();
            assert!(ran.client.is_ok() && ran.outcomes[0].is_ok(), "{form:?}, {first}, {second}: {:?}", ran.client);
            let made = content(&ends.remote).expect("a file");
            assert_eq!(Algorithm::Blake3.digest(&made), ran.outcome().root);
            restarts += ran.events.iter().filter(|event| matches!(event.kind, EventKind::Restarted)).count();
        }
    }
    assert!(restarts > 30, "{restarts} restarts");
}

/// The server's file becomes another while it is pulled, at any request.
#[test]
fn a_pulled_source_that_changes_arrives_as_it_was_or_as_it_is() {
    let target = new();
    let mut same_length = target.clone();
    same_length[25_000..25_500].fill(9);
    for changed in [same_length, b"short".to_vec()] {
        for remembers in [false, true] {
            let mut restarted = 0;
            for at in 0..REQUESTS {
                for seed in 0..6 {
                    let mut ends = Ends::forgetful(1000 * at + 100 * seed);
                    if remembers {
                        // What a commit replaced is what the client has.
                        ends.push(&old());
                        ends.push(&target);
                    }
                    put(&ends.remote, &file(), &target);
                    put(&ends.local, &file(), &old());
                    let asked = AtomicU64::new(0);
                    let bytes = Bytes::copy_from_slice(&changed);
                    let remote = meddling(&ends.remote, move |memory, ask| {
                        if asked.fetch_add(1, Ordering::Relaxed) == at {
                            put(memory, &file(), &bytes);
                        }
                        memory.answer(ask)
                    });
                    let local = ends.local.clone();
                    let ran = ends.pair().storages(local, remote).pulled_onto(None).run_to_end();
                    assert!(ran.outcomes[0].is_ok(), "at request {at}: {:?} {:?}", ran.outcomes, ran.client);
                    let made = content(&ends.local).expect("a file");
                    assert!(made == target || made == changed, "a mixture, at request {at}");
                    restarted += ran.events.iter().filter(|event| matches!(event.kind, EventKind::Restarted)).count();
                }
            }
            assert!(restarted > 0, "some came in between");
        }
    }
}

/// The source becomes what the puller has said it has, and that changes too. `remembered`: the server has the puller's
/// first file among its old versions, and offers a delta for it.
fn check_both_change(remembered: bool) {
    for (at, mine, seed) in (0..10).flat_map(|at| (1..5).flat_map(move |mine| (0..4).map(move |seed| (at, mine, seed))))
    {
        let seed = 1000 * at + 100 * mine + seed;
        let mut ends = Ends::forgetful(seed);
        put(&ends.remote, &file(), &new());
        if remembered {
            ends = Ends::remembering(seed, KeepForm::Copy);
            ends.push(&old());
            ends.push(&new());
        }
        put(&ends.local, &file(), &old());
        let change = |storage, at, bytes: Vec<u8>| {
            let asked = AtomicU64::new(0);
            meddling(storage, move |memory, ask| {
                if asked.fetch_add(1, Ordering::Relaxed) == at {
                    put(memory, &file(), &bytes);
                }
                memory.answer(ask)
            })
        };
        let (local, remote) = (change(&ends.local, mine, others()), change(&ends.remote, at, old()));
        let ran = ends.pair().storages(local, remote).command(pull(file(), file())).run_to_end();
        assert!(ran.client.is_ok() && ran.server.is_ok(), "at {at} and {mine}: {:?} {:?}", ran.client, ran.server);
        let stalled = matches!(ran.outcomes[0], Err(TransferError::Stalled { .. }));
        assert!(!stalled, "at {at} and {mine}: both ends wait for each other");
    }
}

/// Found by the simulation, seed 9928.
#[test]
fn a_pull_of_which_both_files_change_ends_no_connection() {
    check_both_change(false);
}

/// Found by the simulation, seed 4745: the word that the second offer is stale was taken to be about the first.
#[test]
fn a_pull_of_which_both_files_change_does_not_stall_over_an_offer_that_was_taken_back() {
    check_both_change(true);
}
