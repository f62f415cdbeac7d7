//! What holds of every storage when directories are made, and when something gets another path or is removed.

use std::sync::Barrier;
use std::thread;

use super::*;

fn altered(answer: Result<Answer, StorageFault>) -> Result<(), StorageFault> {
    match answer? {
        Answer::Altered => Ok(()),
        other => panic!("asked for a change, got {other:?}"),
    }
}

pub(crate) fn make(storage: &dyn BlockingStorage, at: &str) -> Result<(), StorageFault> {
    altered(storage.answer(Ask::MakeDirectory { place: place(at) }))
}

pub(crate) fn rename(storage: &dyn BlockingStorage, from: &str, to: &str) -> Result<(), StorageFault> {
    altered(storage.answer(Ask::Rename { from: place(from), to: path(to) }))
}

pub(crate) fn remove(storage: &dyn BlockingStorage, at: &str, recursive: bool) -> Result<(), StorageFault> {
    altered(storage.answer(Ask::Remove { place: place(at), recursive }))
}

fn names(storage: &dyn BlockingStorage, at: &str) -> Vec<String> {
    let (entries, more) = list(storage, at, None, 100).expect("a directory");
    assert!(!more);
    entries.iter().map(|entry| entry.name.to_string()).collect()
}

pub(crate) fn a_directory_is_made_in_one_that_is_there_and_once(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    fixture.put("file", b"there");
    make(storage, "dir").expect("new");
    make(storage, "dir/inner").expect("new");
    assert_eq!(names(storage, ""), ["dir", "file"]);
    assert_eq!(names(storage, "dir"), ["inner"]);
    assert!(names(storage, "dir/inner").is_empty());
    for at in ["dir", "dir/inner", "file"] {
        assert_fault(make(storage, at), FaultKind::Exists, &format!("{at}: "));
    }
    assert_fault(make(storage, ""), FaultKind::Exists, "/: ");
    assert_fault(make(storage, "none/inner"), FaultKind::NotFound, "none/inner: ");
    assert_fault(make(storage, "file/inner"), FaultKind::WrongKind, "file/inner: ");
    publish(storage, "dir/inner/new", b"bytes").expect("published");
    assert_eq!(fixture.get("dir/inner/new").as_deref(), Some(&b"bytes"[..]));
}

pub(crate) fn a_rename_moves_all_of_it_and_replaces_nothing(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    fixture.put("a/file", b"content");
    fixture.put("a/deep/er/file", b"deeper");
    fixture.put("ab", b"not in a");
    fixture.make_directory("b");
    fixture.make_directory("a/empty");
    rename(storage, "a/file", "a/other").expect("in its directory");
    rename(storage, "a/other", "b/file").expect("into another");
    assert_eq!(fixture.get("b/file").as_deref(), Some(&b"content"[..]));
    rename(storage, "a", "b/c").expect("a directory");
    assert_eq!(fixture.get("b/c/deep/er/file").as_deref(), Some(&b"deeper"[..]));
    assert_eq!(names(storage, "b/c"), ["deep", "empty"]);
    assert_eq!(names(storage, ""), ["ab", "b"]);
    rename(storage, "b/c/deep/er/file", "b/c/deep/er/last").expect("the only one in its directory");
    rename(storage, "b/c/deep/er/last", "last").expect("up");
    assert!(names(storage, "b/c/deep/er").is_empty(), "it stays when it is empty");

    for to in ["ab", "b", "b/c", "b/c/empty", "last"] {
        assert_fault(rename(storage, "last", to), FaultKind::Exists, &format!("{to}: "));
        assert_fault(rename(storage, "b/c/empty", to), FaultKind::Exists, &format!("{to}: "));
    }
    assert_fault(rename(storage, "last", ""), FaultKind::Exists, "/: ");
    assert_fault(rename(storage, "none", "new"), FaultKind::NotFound, "none: ");
    assert_fault(rename(storage, "none/none", "new"), FaultKind::NotFound, "none/none: ");
    assert_fault(rename(storage, "last", "none/new"), FaultKind::NotFound, "none/new: ");
    assert_fault(rename(storage, "last", "ab/new"), FaultKind::WrongKind, "ab/new: ");
    assert_fault(rename(storage, "b", "b/new"), FaultKind::Denied, "b: ");
    assert_fault(rename(storage, "b", "b/c/new"), FaultKind::Denied, "b: ");
    assert_fault(rename(storage, "", "new"), FaultKind::Denied, "/: ");
    assert_eq!(fixture.get("last").as_deref(), Some(&b"deeper"[..]));
    assert_eq!(names(storage, ""), ["ab", "b", "last"]);
}

pub(crate) fn what_is_removed_is_gone_and_nothing_else(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    fixture.put("dir/file", b"one");
    fixture.put("dir-", b"beside");
    fixture.put("dir/deep/er/file", b"two");
    fixture.put("dir/deep/er/also", b"three");
    fixture.make_directory("dir/deep/empty");
    assert_fault(remove(storage, "dir", false), FaultKind::NotEmpty, "dir: ");
    assert_fault(remove(storage, "dir/deep", false), FaultKind::NotEmpty, "dir/deep: ");
    assert_fault(remove(storage, "none", true), FaultKind::NotFound, "none: ");
    assert_fault(remove(storage, "none/none", true), FaultKind::NotFound, "none/none: ");
    assert_fault(remove(storage, "dir/file/below", true), FaultKind::WrongKind, "dir/file/below: ");
    for recursive in [false, true] {
        assert_fault(remove(storage, "", recursive), FaultKind::Denied, "/: ");
    }
    assert_eq!(names(storage, "dir"), ["deep", "file"]);
    remove(storage, "dir/deep/empty", false).expect("it is empty");
    remove(storage, "dir/file", true).expect("a file, however it is asked");
    remove(storage, "dir/deep/er/file", false).expect("a file");
    remove(storage, "dir/deep/er/also", false).expect("the last one in its directory");
    assert!(names(storage, "dir/deep/er").is_empty(), "it stays when it is empty");
    fixture.put("dir/deep/er/file", b"four");
    remove(storage, "dir", true).expect("with all that is in it");
    assert_eq!(names(storage, ""), ["dir-"]);
    assert_eq!(fixture.get("dir-").as_deref(), Some(&b"beside"[..]));
    assert_fault(remove(storage, "dir", true), FaultKind::NotFound, "dir: ");
    publish(storage, "dir/file", b"again").expect("it can come again");
}

pub(crate) fn what_was_removed_or_moved_is_no_version_any_more(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let staged = |at: &str| {
        let staged = stage(storage, at, 4).expect("there is room");
        append(storage, &staged, b"late").expect("applied");
        staged
    };
    publish(storage, "file", b"old").expect("published");
    let (late, seen) = (staged("file"), there(storage, "file"));
    remove(storage, "file", false).expect("it is there");
    assert_fault(commit_over(storage, &late, seen.clone()), FaultKind::Conflict, "file: ");
    assert!(basis(storage, "file", false).expect("it can go there").1.is_none());
    publish(storage, "file", b"old").expect("published");
    assert_fault(commit_over(storage, &late, seen), FaultKind::Conflict, "file: ");

    let seen = there(storage, "file");
    rename(storage, "file", "moved").expect("it is there");
    assert_fault(commit_over(storage, &late, seen.clone()), FaultKind::Conflict, "file: ");
    assert_fault(describe(storage, "file"), FaultKind::NotFound, "file: ");
    let moved = describe(storage, "moved").expect("it is there");
    assert_eq!(moved.chunks.root(), Algorithm::Blake3.digest(b"old"));
    assert_eq!(moved.generation, Generation::ZERO, "it was published elsewhere");
    commit_over(storage, &late, Replaces::Nothing).expect("nothing is there now");
    publish(storage, "moved", b"new").expect("what is there can be replaced");
    assert_eq!(fixture.get("file").as_deref(), Some(&b"late"[..]));
    assert_eq!(fixture.get("moved").as_deref(), Some(&b"new"[..]));

    // There and back with its directory: what was published there is another one than what was moved there.
    publish(storage, "dir/file", b"one").expect("published");
    publish(storage, "two", b"two").expect("published");
    rename(storage, "dir", "away").expect("it is there");
    make(storage, "dir").expect("nothing is there");
    rename(storage, "two", "dir/file").expect("nothing is there");
    assert_eq!(describe(storage, "dir/file").expect("it is there").generation, Generation::ZERO);
    assert_eq!(describe(storage, "away/file").expect("it is there").generation, Generation::ZERO);
}

pub(crate) fn a_push_goes_to_its_path_or_nowhere(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    for at in ["moved/file", "moved/deep/file", "removed/file", "removed/deep/file"] {
        fixture.put("moved/deep/old", b"old");
        fixture.put("removed/deep/old", b"old");
        let staged = stage(storage, at, 4).expect("there is room");
        append(storage, &staged, b"late").expect("applied");
        rename(storage, "moved", "elsewhere").expect("it is there");
        remove(storage, "removed", true).expect("it is there");
        let done = commit(storage, &staged);
        assert_eq!(fixture.get(at).is_some(), done.is_ok(), "{at}: {done:?}");
        drop(staged);
        for other in ["elsewhere/file", "elsewhere/deep/file"] {
            assert_eq!(fixture.get(other), None, "{at}: {done:?}");
        }
        assert_eq!(names(storage, "elsewhere/deep"), ["old"]);
        // What has come to its path anew takes it as ever.
        let again = publish(storage, at, b"again");
        assert!(again.is_ok(), "{at}: {again:?}");
        for at in names(storage, "") {
            remove(storage, &at, true).expect("it is there");
        }
    }
    assert!(fixture.leftovers().is_empty(), "{:?}", fixture.leftovers());
}

/// Runs them all at once, and returns how many did it; the others were refused for this reason.
fn at_once(count: usize, refused: FaultKind, f: impl Fn(usize) -> Result<(), StorageFault> + Sync) -> usize {
    let barrier = Barrier::new(count);
    let (f, barrier) = (&f, &barrier);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let run = |n| {
            scope.spawn(move || {
                barrier.wait();
                f(n)
            })
        };
        let threads: Vec<_> = (0..count).map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    for fault in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(fault.kind, refused, "{fault}");
    }
    done
}

pub(crate) fn of_many_who_take_one_place_one_does(fixture: &dyn Fixture) {
    const COUNT: usize = 6;
    let storage = fixture.storage();
    for round in 0..20 {
        (0..COUNT).for_each(|n| fixture.put(&format!("from-{n}/file"), &[n as u8]));
        let to = format!("to-{round}");
        assert_eq!(at_once(COUNT, FaultKind::Exists, |n| rename(storage, &format!("from-{n}/file"), &to)), 1);
        let [won] = fixture.get(&to).expect("it is there")[..] else { panic!("one byte") };
        let left = |n: &usize| fixture.get(&format!("from-{n}/file")).is_some();
        assert_eq!((0..COUNT).filter(left).count(), COUNT - 1, "none of the others is lost");
        assert_eq!(fixture.get(&format!("from-{won}/file")), None);
        assert_eq!(at_once(COUNT, FaultKind::NotFound, |_| remove(storage, &to, false)), 1);
        assert_eq!(at_once(COUNT, FaultKind::Exists, |_| make(storage, &to)), 1);
        assert_eq!(at_once(COUNT, FaultKind::NotFound, |n| rename(storage, &to, &format!("by-{round}-{n}"))), 1);
    }
}

/// Calls every law of changes without a transfer; `$fixture` takes the limits.
macro_rules! altering_laws {
    ($fixture:expr) => {
        crate::laws::altering::altering_laws! { $fixture;
            a_directory_is_made_in_one_that_is_there_and_once
            a_rename_moves_all_of_it_and_replaces_nothing
            what_is_removed_is_gone_and_nothing_else
            what_was_removed_or_moved_is_no_version_any_more
            a_push_goes_to_its_path_or_nowhere
            of_many_who_take_one_place_one_does
        }
    };
    ($fixture:expr; $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                crate::laws::altering::$law(&$fixture(deltasync_core::Limits::default()));
            }
        )*
    };
}
pub(crate) use altering_laws;
