//! A disk that is asked for what it was told, and cut off from power many times.

use std::collections::BTreeSet;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn errno<T: fmt::Debug>(result: io::Result<T>) -> Errno {
    let number = result.expect_err("it has to fail").raw_os_error().expect("as the system says it");
    Errno::from_raw_os_error(number)
}

/// A file of 3 pages that was synced as `old` and then written over as `new`.
fn overwritten() -> SimDisk {
    let disk = SimDisk::new();
    disk.put("file", &[b'o'; 3 * 4096]);
    let file = disk.root().open_own(&name("file"), 0o600).expect("there");
    assert_eq!(file.write_at(&[b'n'; 3 * 4096], 0).expect("written"), 3 * 4096);
    disk
}

/// All that power cuts leave.
fn cuts<T: Ord>(disk: &SimDisk, look: impl Fn(&SimDisk) -> T) -> BTreeSet<T> {
    (0..500).map(|seed| look(&disk.power_cut(&mut Rng::new(seed)))).collect()
}

#[test]
fn what_was_synced_stays() {
    let disk = SimDisk::new();
    let root = disk.root();
    root.make_dir(&name("dir"), 0o700).expect("made");
    root.sync().expect("synced");
    let dir = root.open_dir(&name("dir")).expect("there");
    let file = dir.create(&name("file"), 0o600).expect("made");
    file.write_at(b"content", 0).expect("written");
    file.sync_data().expect("synced");
    dir.rename(&name("file"), &*root, &name("there"), false).expect("moved");
    root.sync().expect("synced");
    // The old name has gone, though its directory was not synced: a move is one step.
    assert_eq!(cuts(&disk, |disk| disk.get("there")), [Some(b"content".to_vec())].into());
    assert_eq!(cuts(&disk, |disk| disk.tree().contains_key("dir")), [true].into());
    dir.sync().expect("synced");
    assert_eq!(cuts(&disk, SimDisk::tree).len(), 1);
    assert_eq!(disk.power_cut(&mut Rng::new(1)).tree(), disk.tree());
}

#[test]
fn of_what_was_not_synced_each_page_is_old_or_new_or_torn() {
    let left = cuts(&overwritten(), |disk| disk.get("file").expect("its name is durable"));
    for bytes in &left {
        assert_eq!(bytes.len(), 3 * 4096);
        for page in bytes.chunks(4096) {
            let new = page.iter().take_while(|byte| **byte == b'n').count();
            assert!(page[new..].iter().all(|byte| *byte == b'o'));
        }
    }
    for wanted in [*b"ooo", *b"nnn", *b"non", *b"ono"] {
        assert!(left.contains(&wanted.map(|byte| [byte; 4096]).concat()));
    }
    assert!(left.iter().any(|bytes| bytes[..4096].contains(&b'n') && bytes[..4096].contains(&b'o')), "torn");
}

#[test]
fn a_length_that_was_not_synced_is_any_it_had() {
    let disk = SimDisk::new();
    disk.put("file", b"1234567890");
    let file = disk.root().open_own(&name("file"), 0o600).expect("there");
    file.set_len(3).expect("cut");
    file.write_at(b"abc", 5).expect("written");
    let left = cuts(&disk, |disk| disk.get("file").expect("its name is durable"));
    assert_eq!(left.iter().map(Vec::len).collect::<BTreeSet<_>>(), [3, 8, 10].into());
    assert!(left.contains(&b"123\0\0abc"[..]) && left.contains(&b"1234567890"[..]), "{left:?}");
}

#[test]
fn names_that_were_not_synced_are_a_prefix_in_each_directory() {
    let disk = SimDisk::new();
    ["one", "other"].iter().for_each(|at| disk.make_dir(at));
    let dirs = ["one", "other"].map(|at| disk.root().open_dir(&name(at)).expect("there"));
    for at in ["a", "b"] {
        dirs.iter().for_each(|dir| drop(dir.create(&name(at), 0o600).expect("made")));
    }
    let left = cuts(&disk, |disk| {
        let tree = disk.tree();
        ["one/a", "one/b", "other/a", "other/b"].map(|at| tree.contains_key(at))
    });
    assert!(left.iter().all(|[one_a, one_b, other_a, other_b]| one_a >= one_b && other_a >= other_b));
    assert_eq!(left.len(), 9, "all pairs of prefixes");
}

#[test]
fn a_move_that_was_not_synced_leaves_at_least_one_name() {
    let disk = SimDisk::new();
    disk.put("one/file", b"moved");
    disk.put("other/file", b"replaced");
    let dirs = ["one", "other"].map(|at| disk.root().open_dir(&name(at)).expect("there"));
    dirs[0].rename(&name("file"), &*dirs[1], &name("file"), false).expect("moved");
    let left = cuts(&disk, |disk| (disk.get("one/file"), disk.get("other/file")));
    let (moved, replaced) = (Some(b"moved".to_vec()), Some(b"replaced".to_vec()));
    assert_eq!(left, [(None, moved.clone()), (moved.clone(), moved.clone()), (moved, replaced)].into());
}

#[test]
fn what_a_failed_sync_lost_no_later_one_brings_back() {
    let disk = overwritten();
    let file = disk.root().open_own(&name("file"), 0o600).expect("there");
    disk.fail(1, Some(SimCall::SyncData), SimFault::Errno(Errno::INTR.raw_os_error()));
    assert_eq!(errno(file.sync_data()), Errno::INTR);
    file.sync_data().expect("a signal loses nothing");
    assert_eq!(cuts(&disk, |disk| disk.get("file")).len(), 1);

    let disk = overwritten();
    let file = disk.root().open_own(&name("file"), 0o600).expect("there");
    disk.fail(1, None, SimFault::Errno(Errno::IO.raw_os_error()));
    assert_eq!(errno(file.sync_data()), Errno::IO);
    file.sync_data().expect("it says so");
    let old = Some(vec![b'o'; 3 * 4096]);
    assert!(cuts(&disk, |disk| disk.get("file")).contains(&old));

    let root = disk.root();
    drop(root.create(&name("new"), 0o600).expect("made"));
    disk.fail(1, Some(SimCall::SyncDir), SimFault::Errno(Errno::IO.raw_os_error()));
    assert_eq!(errno(root.sync()), Errno::IO);
    root.sync().expect("it says so");
    assert!(cuts(&disk, |disk| disk.get("new")).contains(&None));

    // As Linux tells of an error: once through each handle that was open then.
    let (before, other) =
        (root.dir_beneath(&RelPath::ROOT).expect("open"), root.dir_beneath(&RelPath::ROOT).expect("open"));
    disk.fail(1, Some(SimCall::SyncDir), SimFault::Errno(Errno::NOSPC.raw_os_error()));
    assert_eq!(errno(before.sync()), Errno::NOSPC);
    before.sync().expect("it was told");
    root.dir_beneath(&RelPath::ROOT).expect("open").sync().expect("it was opened later");
    assert_eq!(errno(other.sync()), Errno::IO);
    other.sync().expect("it was told");
}

#[test]
fn the_planned_call_goes_wrong_and_no_other() {
    let disk = SimDisk::new();
    let root = disk.root();
    let file = root.create(&name("file"), 0o600).expect("made");
    let io = Errno::IO.raw_os_error();
    disk.fail(2, Some(SimCall::Write), SimFault::Errno(Errno::NOSPC.raw_os_error()));
    file.write_at(b"one", 0).expect("the first");
    file.stat().expect("another call");
    assert_eq!((errno(file.write_at(b"two", 3)), disk.hit()), (Errno::NOSPC, Some((SimCall::Write, "file".into()))));
    assert_eq!(file.write_at(b"two", 3).expect("the third"), 3);
    disk.fail(1, None, SimFault::Short);
    assert_eq!(file.write_at(b"three", 6).expect("a part"), 1);
    disk.fail(1, None, SimFault::Torn(2, io));
    assert_eq!(errno(file.write_at(b"3456", 6)), Errno::IO);
    assert_eq!(disk.get("file").as_deref(), Some(&b"onetwo34"[..]));
    disk.fail(2, None, SimFault::Crash);
    file.sync_data().expect("the first");
    assert_eq!(errno(root.remove(&name("file"))), Errno::IO);
    assert_eq!(errno(file.stat()), Errno::IO);
    assert_eq!(errno(root.open(&name("file"))), Errno::IO);
    let left = cuts(&disk, |disk| disk.get("file"));
    assert_eq!(left, [None, Some(b"onetwo34".to_vec())].into(), "its name was never synced, its bytes were");
    use SimCall::{Create, Remove, Stat, SyncData, Write};
    assert_eq!(disk.calls(), [Create, Write, Stat, Write, Write, Write, Write, SyncData, Remove]);
}

#[test]
fn a_crash_while_something_is_opened_closes_it() {
    let disk = SimDisk::new();
    disk.put("file", b"content");
    disk.fail(1, None, SimFault::Crash);
    assert_eq!(errno(disk.root().open(&name("file"))), Errno::IO);
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = SimDisk::new();
    disk.limit(Some(3 * 4096));
    let file = disk.root().create(&name("file"), 0o600).expect("made");
    assert_eq!(file.write_at(&[1; 20_000], 0).expect("a part"), 3 * 4096);
    assert_eq!(errno(file.write_at(&[1], 3 * 4096)), Errno::NOSPC);
    let other = disk.root().create(&name("other"), 0o600).expect("made");
    assert_eq!(errno(other.set_aside(1)), Errno::NOSPC);
    assert_eq!(disk.root().space().expect("told").map(|space| (space.free, space.total)), Some((0, 3 * 4096)));
    disk.root().remove(&name("file")).expect("removed");
    assert_eq!(errno(other.set_aside(1)), Errno::NOSPC, "it is open still");
    drop(file);
    other.set_aside(3 * 4096).expect("there is room");
    assert_eq!(other.write_at(&[1; 20_000], 0).expect("a part"), 3 * 4096);
}

#[test]
fn names_do_what_they_do_on_other_disks() {
    let disk = SimDisk::new();
    disk.put("dir/file", b"content");
    disk.symlink("link");
    let root = disk.root();
    let beneath = |path: &str| root.file_beneath(&RelPath::new(path).expect("a path"));
    assert_eq!(errno(beneath("link")), Errno::LOOP);
    assert_eq!(errno(beneath("link/file")), Errno::LOOP);
    assert_eq!(errno(beneath("dir/none")), Errno::NOENT);
    assert_eq!(errno(beneath("dir/file/below")), Errno::NOTDIR);
    assert_eq!(errno(root.remove(&name("dir"))), Errno::ISDIR);
    assert_eq!(errno(root.remove_dir(&name("dir"))), Errno::NOTEMPTY);
    assert_eq!(errno(root.create(&name("dir"), 0)), Errno::EXIST);
    let dir = root.open_dir(&name("dir")).expect("there");
    assert_eq!(errno(dir.rename(&name("file"), &*root, &name("dir"), false)), Errno::ISDIR);
    assert_eq!(errno(dir.rename(&name("file"), &*root, &name("link"), true)), Errno::EXIST);
    assert_eq!(errno(dir.rename(&name("file"), &*SimDisk::new().root(), &name("file"), false)), Errno::XDEV);
    dir.link(&name("file"), &*root, &name("second")).expect("linked");
    assert_eq!(errno(dir.link(&name("file"), &*root, &name("second"))), Errno::EXIST);
    dir.remove(&name("file")).expect("removed");
    root.remove_dir(&name("dir")).expect("it is empty");
    assert_eq!(errno(dir.create(&name("new"), 0o600)), Errno::NOENT);
    assert_eq!(disk.get("second").as_deref(), Some(&b"content"[..]));
    let reader = root.open(&name("second")).expect("there");
    assert_eq!(errno(reader.write_at(b"x", 0)), Errno::BADF);
}

#[test]
fn a_lock_ends_with_its_handle() {
    let disk = SimDisk::new();
    let first = disk.root();
    assert!(first.lock().expect("free") && first.lock().expect("ours"));
    assert!(!disk.root().lock().expect("taken"));
    drop(first);
    assert!(disk.root().lock().expect("free again"));
    disk.put("file", b"");
    let [first, second] = [(); 2].map(|()| disk.root().open(&name("file")).expect("there"));
    assert!(first.lock(true).expect("free") && second.lock(true).expect("shared"));
    assert!(!first.lock(false).expect("the other has it") && second.lock(false).expect("it lost its own"));
    drop(second);
    assert!(first.lock(false).expect("free again"));
}
