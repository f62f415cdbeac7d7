//! Trees that are replaced as one change.

use std::sync::atomic::{AtomicBool, Ordering};

use deltasync_proto::FaultKind;

use super::filters::excluding;
use super::*;

fn atomic(served: bool) -> Ground {
    Ground { atomic: true, ..Ground::new(served) }
}

/// The names in the directory that holds the tree.
fn around(ground: &Ground) -> Vec<String> {
    let names = fs::read_dir(ground.directory.path()).expect("readable");
    let mut names: Vec<_> = names.map(|entry| entry.expect("there").file_name().into_string().expect("text")).collect();
    names.retain(|name| name != ".deltasync");
    names.sort();
    names
}

#[track_caller]
fn check_alone(ground: &Ground) {
    assert_eq!(around(ground), ["t"], "nothing is left beside the tree");
}

#[test]
fn a_directory_becomes_the_tree_as_one_change() {
    for (served, piece) in [(true, 1000), (false, 1 << 20)] {
        let (from, to) = (Ground::new(false), atomic(served));
        fill(&from);
        check_brought(&from, &to, piece);
        check_alone(&to);
        // Every kind becomes every other.
        for (path, kind) in
            [("a", 'd'), ("b/x", 'l'), ("empty", 'f'), ("b/link", 'd'), ("b/y", 'f'), ("a", 'l'), ("a", 'f')]
        {
            let at = from.at(path);
            let _ = fs::remove_file(&at).or_else(|_| fs::remove_dir_all(&at));
            match kind {
                'd' => fs::create_dir(&at).and_then(|()| fs::write(at.join("in"), b"new")).expect("made"),
                'l' => symlink("elsewhere", &at).expect("made"),
                _ => fs::write(&at, b"now a file").expect("made"),
            }
            check_brought(&from, &to, piece);
            check_alone(&to);
        }
        fs::set_permissions(from.at("odd\n\u{202e}name"), Permissions::from_mode(0o600)).expect("ours");
        fs::rename(from.at("empty"), from.at("b/moved")).expect("moved");
        fs::set_permissions(from.at("b"), Permissions::from_mode(0o555)).expect("ours");
        check_brought(&from, &to, piece);
        fs::set_permissions(from.at("b"), Permissions::from_mode(0o755)).expect("ours");
        fs::remove_dir_all(from.at("b")).expect("there");
        check_brought(&from, &to, piece);
        check_alone(&to);
    }
}

/// A tree in which every file says the same.
fn fill_with(ground: &Ground, version: usize) {
    for at in 0..20 {
        ground.put(&format!("{}/{at}", at % 3), format!("{version:09}").as_bytes());
    }
    ground.put(&format!("only-{version}"), format!("{version:09}").as_bytes());
}

#[test]
fn whoever_looks_sees_the_old_tree_or_the_new_one() {
    let (from, to) = (Ground::new(false), atomic(true));
    fill_with(&from, 0);
    check_brought(&from, &to, 1 << 20);
    let over = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0;
            while !over.load(Ordering::Relaxed) {
                // By a handle of the directory, which stays the same tree until that is removed.
                let Ok(dir) = File::open(to.at("")) else { panic!("there is always a tree") };
                let at = std::path::PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir)));
                let read: Vec<_> = (0..20).map(|file| fs::read(at.join(format!("{}/{file}", file % 3)))).collect();
                // One that is being removed has lost some; what it has is of one version.
                let found: BTreeSet<_> = read.into_iter().flatten().collect();
                assert!(found.len() <= 1, "a mixture: {found:?}");
                looks += found.len();
            }
            looks
        });
        for version in 1..=100 {
            fs::remove_dir_all(from.at("")).expect("there");
            fill_with(&from, version);
            bring(&from, &to, ALL, 1 << 20).1.expect("replaced");
        }
        over.store(true, Ordering::Relaxed);
        reader.join().expect("it saw no mixture")
    });
    assert!(looks > 50, "{looks}");
    assert_eq!(to.see(), from.see());
}

#[test]
fn nothing_is_visible_before_the_commit_and_what_was_linked_is_not_changed() {
    for served in [true, false] {
        let (from, to) = (Ground::new(false), atomic(served));
        fill(&from);
        from.put("long", &noise(100_000, 1));
        bring(&from, &Ground { atomic: false, ..Ground::new(true) }, ALL, 1 << 20).1.expect("made");
        fill(&to);
        to.put("long", &noise(100_000, 1));
        for ground in [&from, &to] {
            set_time(&ground.at("long"), 5, 6);
        }
        let old: Vec<_> = ["b/x", "long"].map(|path| (File::open(to.at(path)).expect("there"), path)).into();
        let before = to.see();
        // Only permissions differ, of a file that travels with the tree and of one that does not.
        for path in ["b/x", "long"] {
            fs::set_permissions(from.at(path), Permissions::from_mode(0o640)).expect("ours");
        }
        from.put("new", b"has come");
        let stage = send(&from, &to, ALL, 1 << 20).expect("all can be made");
        assert_eq!(to.see(), before, "nothing is visible yet");
        assert_eq!(around(&to).len(), 2, "it is made beside the tree");
        to.commit(&stage).expect("replaced");
        assert_eq!(to.see(), from.see());
        check_alone(&to);
        for (old, path) in old {
            let (is, was) = (old.metadata().expect("open"), &before[path.as_bytes()]);
            assert_eq!((is.mode() & 0o777, (is.mtime(), is.mtime_nsec())), (was.1, was.2), "{path} as it was");
        }
    }
}

#[test]
fn what_takes_no_part_or_is_extra_is_there_after_it() {
    let (mut from, mut to) = (Ground::new(false), atomic(true));
    (from.scope.filter, to.scope.filter) = (excluding(&["*.log", "/cache"]), excluding(&["*.log", "/cache"]));
    fill(&from);
    for (path, content) in [("b/x.log", "a log"), ("cache/of/it", "kept"), ("gone/y.log", "too"), ("gone/z", "goes")] {
        to.put(path, content.as_bytes());
    }
    fs::set_permissions(to.at("cache/of"), Permissions::from_mode(0o750)).expect("ours");
    let inode = fs::metadata(to.at("cache/of/it")).expect("there").ino();
    rustix::fs::mknodat(CWD, to.at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("made");
    set_time(&to.at("cache/of"), 77, 88);
    let old = to.see_without_pipe();
    bring(&from, &to, ALL, 1 << 20).1.expect("replaced");
    check_alone(&to);
    let new = to.see_without_pipe();
    for path in ["b/x.log", "cache/of", "cache/of/it", "gone/y.log"] {
        assert_eq!(new.get(path.as_bytes()), old.get(path.as_bytes()), "{path}");
    }
    assert!(!to.at("gone/z").exists() && to.at("a").exists());
    assert_eq!(fs::metadata(to.at("cache/of/it")).expect("there").ino(), inode);
    assert!(fs::symlink_metadata(to.at("pipe")).is_ok());
    // Without being told to it deletes nothing.
    to.put("more", b"stays");
    from.put("a", b"other");
    bring(&from, &to, Extra::Keep, 1 << 20).1.expect("replaced");
    assert_eq!(
        (fs::read(to.at("more")).ok(), fs::read(to.at("a")).ok()),
        (Some(b"stays".into()), Some(b"other".into()))
    );
    // Nor too much.
    let before = to.see_without_pipe();
    from.put("a", b"another");
    let (_, refused) = bring(&from, &to, Extra::Delete { most: Some(0) }, 1 << 20);
    assert_eq!(refused.expect_err("too much").kind, FaultKind::Denied);
    assert_eq!(to.see_without_pipe(), before);
}

impl Ground {
    fn see_without_pipe(&self) -> Seen {
        let pipe = self.directory.path().join("pipe");
        let is_there = fs::rename(self.at("pipe"), &pipe).is_ok();
        let top = fs::metadata(self.at("")).expect("there").modified().expect("known");
        let seen = self.see();
        if is_there {
            fs::rename(&pipe, self.at("pipe")).expect("back");
        }
        File::open(self.at("")).and_then(|dir| dir.set_times(FileTimes::new().set_modified(top))).expect("ours");
        seen.into_iter().filter(|(path, _)| !path.is_empty()).collect()
    }
}

#[test]
fn what_somebody_changes_meanwhile_is_a_conflict_and_can_be_replaced_then() {
    for served in [true, false] {
        let (from, to) = (Ground::new(false), atomic(served));
        fill(&from);
        check_brought(&from, &to, 1 << 20);
        from.put("a", b"new");
        let stage = send(&from, &to, ALL, 1 << 20).expect("all can be made");
        to.put("b/x", b"by somebody else");
        to.put("theirs", b"new, too");
        let before = to.see();
        assert_eq!(to.commit(&stage).expect_err("it changed").kind, FaultKind::Conflict);
        assert_eq!(to.see(), before);
        // What is in the way of the sender's is what it meant to leave as it is.
        let fault = to.commit(&stage).expect_err("what is to stay is not what it was");
        assert!(fault.message.contains("b/x: changed meanwhile"), "{}", fault.message);
        assert_eq!(to.see(), before);
        drop(stage);
        check_brought(&from, &to, 1 << 20);
        from.put("a", b"newer");
        let stage = send(&from, &to, Extra::Keep, 1 << 20).expect("all can be made");
        to.put("theirs", b"again");
        assert_eq!(to.commit(&stage).expect_err("it changed").kind, FaultKind::Conflict);
        to.commit(&stage).expect("it is meant to be replaced");
        assert_eq!(fs::read(to.at("theirs")).expect("kept"), b"again");
        assert_eq!(fs::read(to.at("a")).expect("there"), b"newer");
        check_alone(&to);
    }
}

#[test]
fn one_that_was_cut_is_gone_on_with_and_leaves_nothing_of_its_own() {
    for served in [true, false] {
        let (first, from) = (Ground::new(false), Ground::new(false));
        let mut to = atomic(served);
        to.put("old", b"there");
        fill(&first);
        first.put("of-the-first", b"must not be seen");
        first.put("old", b"changed by the first");
        drop(send(&first, &to, Extra::Keep, 1 << 20).expect("all can be made"));
        let before = to.see();
        // It was killed while a file and a link of it had names of ours.
        let names = around(&to);
        let copy = to.directory.path().join(names.iter().find(|name| *name != "t").expect("a copy"));
        fs::write(copy.join("b/.x.deltasync-01234567"), b"a part").expect("space");
        symlink("nowhere", copy.join(".y.deltasync-89abcdef")).expect("space");
        // By another process.
        let options = LocalOptions::default();
        to.storage = LocalStorage::roots(Vec::new(), options.clone()).expect("nothing to open");
        to.storage = match served {
            true => LocalStorage::serve(to.directory.path(), options),
            false => LocalStorage::roots(vec![to.directory.path().to_owned()], options),
        }
        .expect("it can be opened");
        assert_eq!(to.see(), before);
        let part = to.basis_and_part().1.expect("what was made is a part");
        assert!(part.chunks.len() > first.describe().chunks.len());
        fill(&from);
        bring(&from, &to, Extra::Keep, 1 << 20).1.expect("replaced");
        for gone in ["of-the-first", "b/.x.deltasync-01234567", ".y.deltasync-89abcdef"] {
            assert!(fs::symlink_metadata(to.at(gone)).is_err(), "{gone}: what was not to be there");
        }
        assert_eq!(fs::read(to.at("old")).expect("kept"), b"there");
        fs::remove_file(to.at("old")).expect("there");
        set_time(&to.at(""), 1_234_567, 1);
        assert_eq!(to.see(), from.see());
        check_alone(&to);
    }
}

#[test]
fn files_that_travel_by_themselves_become_visible_with_the_tree() {
    for served in [true, false] {
        let (from, to) = (Ground::new(false), atomic(served));
        fill(&from);
        from.put("b/long", &noise(100_000, 1));
        fs::set_permissions(from.at("b/long"), Permissions::from_mode(0o644)).expect("ours");
        set_time(&from.at("b/long"), 7, 8);
        set_time(&from.at("b"), 9, 10);
        to.put("old", b"there");
        let before = to.see();
        let (stage, done) = bring(&from, &to, ALL, 1 << 20);
        let fault = done.expect_err("a file is missing yet");
        assert!(fault.kind == FaultKind::Other && fault.message.contains("1 in all"), "{}", fault.message);
        assert_eq!(members_to_fetch(&stage).len(), 1);
        assert_eq!(to.see(), before, "a file is missing yet");
        to.publish("t/b/long", &noise(100_000, 1));
        assert_eq!(to.see(), before, "it is where nobody sees it");
        assert!(to.basis_and_part().1.is_some(), "all of it is there");
        drop(stage);
        check_brought(&from, &to, 1 << 20);
        check_alone(&to);
        // There is no tree in the making any more.
        let place = Place { root: RootId::new(0), path: RelPath::new(*b"t/b/long").expect("a path") };
        let destination = Destination::exactly(place.beside_if(true));
        let ask = Ask::Basis { destination, cutting: Cutting::ByContent, algorithm: Algorithm::Blake3, wanted: None };
        assert!(to.storage.answer(ask).is_err());
    }
}

#[test]
fn a_file_that_is_published_into_a_tree_that_was_exchanged_is_not_lost_unseen() {
    let (from, to) = (Ground::new(false), atomic(true));
    fill(&from);
    check_brought(&from, &to, 1 << 20);
    let place = Place { root: RootId::new(0), path: RelPath::new(*b"t/b/late").expect("a path") };
    let (len, algorithm) = (ByteLen::of(b"late"), Algorithm::Blake3);
    let ask = Ask::Stage { place, len, algorithm, root: algorithm.digest(b"late") };
    let Ok(Answer::Staged(late)) = to.storage.answer(ask) else { panic!("it can be staged") };
    let mut planner = Planner::new(ByteLen::ZERO, len, &deltasync_core::Limits::default()).expect("within limits");
    let ops: Ops = [Op::Literal { len }].into_iter().collect();
    to.apply(&late, &mut planner, None, &ops, Bytes::from_static(b"late")).expect("applied");
    from.put("a", b"new");
    check_brought(&from, &to, 1 << 20);
    let fault = to.commit(&late).expect_err("its directory is another one");
    assert!(fault.message.contains("replaced meanwhile"), "{}", fault.message);
}

#[test]
fn two_do_not_make_a_tree_in_the_same_place() {
    let (from, to) = (Ground::new(false), atomic(false));
    fill(&from);
    let first = send(&from, &to, ALL, 1 << 20).expect("all can be made");
    let ask = || Ask::StageTree {
        place: place().beside_if(true),
        len: from.describe().chunks.len(),
        algorithm: Algorithm::Blake3,
        basis: None,
        options: TreeOptions::default().atomic(true),
    };
    let check_busy = |storage: &LocalStorage| {
        let fault = storage.answer(ask()).expect_err("another one is on its way");
        assert!(fault.message.contains("another transfer"), "{}", fault.message);
    };
    check_busy(&to.storage);
    // Nor in another process.
    let options = LocalOptions::default();
    let other = LocalStorage::roots(vec![to.directory.path().to_owned()], options).expect("it can be opened");
    check_busy(&other);
    to.commit(&first).expect("replaced");
    drop(first);
    assert_eq!(to.see(), from.see());
    assert!(other.answer(ask()).is_ok());
}

#[test]
fn what_cannot_be_replaced_as_one_change_is_refused() {
    let to = atomic(true);
    let place = Place { root: RootId::new(0), path: RelPath::ROOT }.beside_if(true);
    let (destination, algorithm) = (Destination::exactly(place), Algorithm::Blake3);
    let ask = Ask::Basis { destination, cutting: Cutting::Tree(Scope::default()), algorithm, wanted: None };
    let fault = to.storage.answer(ask).expect_err("there is nothing beside it");
    assert!(fault.kind == FaultKind::Denied && fault.message.contains("whole directory"), "{}", fault.message);
    // What a stranger may have put beside it is not gone into.
    to.put("a", b"there");
    let hidden = {
        let from = Ground::new(false);
        fill(&from);
        drop(send(&from, &to, ALL, 1 << 20).expect("all can be made"));
        around(&to).into_iter().find(|name| name != "t").expect("its copy")
    };
    let hidden = to.directory.path().join(hidden);
    fs::remove_dir_all(&hidden).expect("ours");
    symlink(to.at(""), &hidden).expect("made");
    assert!(to.basis_and_part().1.is_none());
    let ask = Ask::StageTree {
        place: super::place().beside_if(true),
        len: ByteLen::ZERO,
        algorithm,
        basis: None,
        options: TreeOptions::default().atomic(true),
    };
    assert_eq!(to.storage.answer(ask).expect_err("it is a link").kind, FaultKind::Denied);
}

#[test]
fn what_is_changed_file_by_file_is_not_taken_away_meanwhile() {
    let (from, to) = (Ground::new(false), atomic(true));
    fill(&from);
    check_brought(&from, &to, 1 << 20);
    let before = to.see();
    from.put("a", b"new");
    let stage = send(&from, &to, ALL, 1 << 20).expect("all can be made");
    let ask = |path: &[u8]| Ask::StageTree {
        place: Place { root: RootId::new(0), path: RelPath::new(path).expect("a path") },
        len: ByteLen::new(100),
        algorithm: Algorithm::Blake3,
        basis: None,
        options: TreeOptions::default(),
    };
    let elsewhere = to.storage.answer(ask(b"t2")).expect("begun");
    let within = to.storage.answer(ask(b"t/b")).expect("begun");
    let fault = to.commit(&stage).expect_err("it is being changed");
    assert!(fault.message.contains("file by file"), "{}", fault.message);
    assert_eq!(to.see(), before);
    drop(within);
    drop(stage);
    let stage = send(&from, &to, ALL, 1 << 20).expect("all can be made");
    to.commit(&stage).expect("replaced");
    drop(elsewhere);
    assert_eq!(to.see(), from.see());
}

#[test]
fn a_copy_that_nobody_comes_back_for_is_removed_after_a_week() {
    let (from, mut to) = (Ground::new(false), atomic(true));
    fill(&from);
    to.put("a", b"there");
    drop(send(&from, &to, ALL, 1 << 20).expect("all can be made"));
    let before = to.see();
    let notes = to.directory.path().join(".deltasync/copies");
    for (days, left) in [(0, 2), (6, 2), (8, 1)] {
        for note in fs::read_dir(&notes).expect("there") {
            let time = SystemTime::now() - Duration::from_secs(days * 86_400);
            let note = File::options().write(true).open(note.expect("a note").path()).expect("ours");
            note.set_times(FileTimes::new().set_modified(time)).expect("ours");
        }
        to.storage = LocalStorage::roots(Vec::new(), LocalOptions::default()).expect("nothing to open");
        to.storage = LocalStorage::serve(to.directory.path(), LocalOptions::default()).expect("it can be opened");
        assert_eq!(around(&to).len(), left, "after {days} days");
    }
    assert_eq!(to.see(), before);
    assert_eq!(fs::read_dir(&notes).expect("there").count(), 0);
    bring(&from, &to, ALL, 1 << 20).1.expect("replaced");
    assert_eq!(fs::read_dir(&notes).expect("there").count(), 0, "what is done is not noted");
}
