//! What holds of every storage when several write one path: of those who saw the same, exactly one wins.

use std::sync::Barrier;
use std::thread;

use super::*;

fn staged(storage: &dyn BlockingStorage, at: &str, bytes: &[u8]) -> StageHandle {
    let staged = stage(storage, at, bytes.len() as u64).expect("there is room");
    append(storage, &staged, bytes).expect("applied");
    staged
}

/// Of `writers` who saw the same at this place, one wins, and its content is there.
fn check_one_wins(storage: &dyn BlockingStorage, at: &str, writers: u8) -> Vec<u8> {
    let (seen, barrier) = (there(storage, at), Barrier::new(writers.into()));
    let contents: Vec<_> = (0..writers).map(|n| vec![n; 100 + usize::from(n)]).collect();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let write = |content: &Vec<u8>| {
            let staged = staged(storage, at, content);
            barrier.wait();
            commit_over(storage, &staged, seen.clone())
        };
        let threads: Vec<_> = contents.iter().map(|content| scope.spawn(move || write(content))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let won: Vec<_> = (0..).zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).map(|(n, _)| n).collect();
    let [winner] = won[..] else { panic!("{outcomes:?}") };
    for outcome in outcomes.into_iter().filter(Result::is_err) {
        assert_fault(outcome, FaultKind::Conflict, &format!("{at}: "));
    }
    contents[winner as usize].clone()
}

pub(crate) fn of_many_who_saw_the_same_one_wins(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    for round in 0..20 {
        for at in ["file".to_owned(), format!("new/{round}/file")] {
            let won = check_one_wins(storage, &at, 8);
            assert_eq!(fixture.get(&at), Some(won), "{at} in round {round}");
        }
    }
    assert_eq!(fixture.leftovers(), ["file", "new"]);
}

/// Many count one file up, each as often; no count is lost, and the generations are a line.
pub(crate) fn no_update_is_lost(fixture: &dyn Fixture) {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 15;
    let storage = fixture.storage();
    publish(storage, "count", b"0").expect("published");
    let count_up = || {
        let seen = describe(storage, "count").expect("it is there");
        let len = seen.chunks.len().get();
        let bytes = read(storage, &seen.file, &[(0, len)]).expect("all");
        let count: usize = str::from_utf8(&bytes).expect("digits").parse().expect("a number");
        let staged = staged(storage, "count", (count + 1).to_string().as_bytes());
        (count + 1, commit_over(storage, &staged, Replaces::File(seen.file)))
    };
    let mut line: Vec<_> = thread::scope(|scope| {
        let writer = || {
            let mut won = Vec::new();
            while won.len() < ROUNDS {
                match count_up() {
                    (count, Ok(generation)) => won.push((count, generation)),
                    (_, Err(fault)) => assert_eq!(fault.kind, FaultKind::Conflict, "{fault}"),
                }
            }
            won
        };
        let threads: Vec<_> = (0..WRITERS).map(|_| scope.spawn(writer)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it does not panic")).collect()
    });
    line.sort_unstable();
    // The first commit made the file.
    let wanted: Vec<_> = (1..=WRITERS * ROUNDS).map(|n| (n, fixture.generation(n as u64 + 1))).collect();
    assert_eq!(line, wanted);
    assert_eq!(fixture.get("count"), Some((WRITERS * ROUNDS).to_string().into_bytes()));
}

pub(crate) fn only_what_was_seen_is_replaced(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    publish(storage, "other", b"old").expect("published");
    let other = there(storage, "other");
    // Nobody was there, and it is said that somebody was.
    let unseen = staged(storage, "file", b"unseen");
    assert_fault(commit_over(storage, &unseen, other.clone()), FaultKind::Conflict, "file: ");
    assert_eq!(fixture.get("file"), None);
    publish(storage, "file", b"old").expect("published");
    let first = there(storage, "file");
    // Somebody is there, and it is said that nobody was, or another.
    for wrong in [Replaces::Nothing, other] {
        assert_fault(commit_over(storage, &unseen, wrong), FaultKind::Conflict, "file: ");
    }
    // The same bytes again are another version.
    let again = staged(storage, "file", b"old");
    commit_over(storage, &again, first.clone()).expect("it is still there");
    assert_fault(commit_over(storage, &unseen, first), FaultKind::Conflict, "file: ");
    assert_eq!(fixture.get("file").as_deref(), Some(&b"old"[..]));
}

pub(crate) fn what_others_put_there_is_not_replaced_unseen(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let late = staged(storage, "new", b"late");
    fixture.put("new", b"of another program");
    assert_fault(commit(storage, &late), FaultKind::Conflict, "new: ");
    let seen = there(storage, "new");
    // The clock that stamps files ticks every few milliseconds.
    thread::sleep(std::time::Duration::from_millis(30));
    fixture.put("new", b"OF ANOTHER PROGRAM");
    assert_fault(commit_over(storage, &late, seen), FaultKind::Conflict, "new: ");
    assert_eq!(fixture.get("new").as_deref(), Some(&b"OF ANOTHER PROGRAM"[..]));
    commit_over(storage, &late, there(storage, "new")).expect("it was seen now");
    assert_eq!(fixture.get("new").as_deref(), Some(&b"late"[..]));
}

pub(crate) fn a_stage_outlives_conflicts_and_is_published_once(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let [first, second] = [&b"first"[..], b"second"].map(|bytes| staged(storage, "dir/file", bytes));
    assert_eq!(commit(storage, &first), Ok(fixture.generation(1)));
    for _ in 0..3 {
        assert_fault(commit(storage, &second), FaultKind::Conflict, "dir/file: ");
        assert_eq!(fixture.get("dir/file").as_deref(), Some(&b"first"[..]));
        let file = recalls::reopen(storage, &second);
        assert_eq!(read(storage, &file, &[(0, 6)]).expect("it is still staged"), b"second"[..]);
    }
    assert_eq!(commit_over(storage, &second, there(storage, "dir/file")), Ok(fixture.generation(2)));
    assert_fault(commit_over(storage, &second, there(storage, "dir/file")), FaultKind::Other, "dir/file: ");
    assert_eq!(fixture.get("dir/file").as_deref(), Some(&b"second"[..]));
    assert_eq!(fixture.leftovers(), ["dir"]);
}

pub(crate) fn a_stage_that_is_dropped_after_a_conflict_leaves_nothing(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let late = staged(storage, "file", b"late");
    fixture.put("file", b"there");
    assert_fault(commit(storage, &late), FaultKind::Conflict, "file: ");
    publish(storage, "old", b"old").expect("published");
    let elsewhere = staged(storage, "a/b/file", b"late");
    assert_fault(commit_over(storage, &elsewhere, there(storage, "old")), FaultKind::Conflict, "a/b/file: ");
    drop((late, elsewhere));
    assert_eq!(fixture.get("file").as_deref(), Some(&b"there"[..]));
    assert_eq!(fixture.leftovers(), ["file", "old"]);
}

pub(crate) fn a_description_names_the_commit_that_published_it(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let generation = |at: &str| {
        let described = describe(storage, at).expect("it is there").generation;
        let (_, file) = basis(storage, at, false).expect("it is there");
        assert_eq!(file.map(|file| file.generation), Some(described));
        described
    };
    // There and back: the bytes are the same, and the version is not.
    for (n, bytes) in [b"one", b"two", b"one"].iter().enumerate() {
        publish(storage, "dir/file", *bytes).expect("published");
        assert_eq!(generation("dir/file"), fixture.generation(n as u64 + 1));
    }
    publish(storage, "other", b"one").expect("published");
    assert_eq!(generation("other"), fixture.generation(4));
    assert_eq!(generation("dir/file"), fixture.generation(3));
    fixture.put("dir/new", b"of another program");
    assert_eq!(generation("dir/new"), Generation::ZERO);
    thread::sleep(std::time::Duration::from_millis(30));
    fixture.put("dir/file", b"ONE");
    assert_eq!(generation("dir/file"), Generation::ZERO);
}

/// Calls every law of who wins; `$fixture` takes the limits.
macro_rules! swapping_laws {
    ($fixture:expr) => {
        crate::laws::swaps::swapping_laws! { $fixture;
            of_many_who_saw_the_same_one_wins
            no_update_is_lost
            only_what_was_seen_is_replaced
            what_others_put_there_is_not_replaced_unseen
            a_stage_outlives_conflicts_and_is_published_once
            a_stage_that_is_dropped_after_a_conflict_leaves_nothing
            a_description_names_the_commit_that_published_it
        }
    };
    ($fixture:expr; $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                crate::laws::swaps::$law(&$fixture(deltasync_core::Limits::default()));
            }
        )*
    };
}
pub(crate) use swapping_laws;
