//! What is told only when it is asked for: hard links, extended attributes, and the digest of each content.

use deltasync_core::Xattrs;
use rustix::fs::XattrFlags;

use super::*;

/// Two directories, trees in which are told like this.
fn grounds(scope: Scope) -> (Ground, Ground) {
    let (mut from, mut to) = (Ground::new(false), Ground::new(true));
    (from.scope, to.scope) = (scope.clone(), scope);
    (from, to)
}

fn hard_links() -> Scope {
    Scope { hard_links: true, ..Scope::default() }
}

fn inode(ground: &Ground, path: &str) -> u64 {
    fs::symlink_metadata(ground.at(path)).expect("there").ino()
}

#[track_caller]
fn assert_linked(ground: &Ground, paths: &[&str], is: bool) {
    let first = inode(ground, paths[0]);
    paths[1..].iter().for_each(|path| assert_eq!(inode(ground, path) == first, is, "{path}"));
}

fn link(ground: &Ground, from: &str, to: &str) {
    let _ = fs::remove_file(ground.at(to));
    fs::hard_link(ground.at(from), ground.at(to)).expect("linked");
}

/// The same file as another one, and no other name of it.
fn unlink(ground: &Ground, path: &str) {
    let (at, is) = (ground.at(path), fs::metadata(ground.at(path)).expect("there"));
    let content = fs::read(&at).expect("there");
    fs::remove_file(&at).expect("there");
    fs::write(&at, content).expect("written");
    fs::set_permissions(&at, is.permissions()).expect("ours");
    set_time(&at, is.mtime() as u64, is.mtime_nsec() as u32);
}

/// A file goes by a transfer of its own.
fn carry(from: &Ground, to: &Ground, path: &str) {
    let (at, is) = (to.at(path), fs::metadata(from.at(path)).expect("there"));
    let _ = fs::remove_file(&at);
    fs::write(&at, fs::read(from.at(path)).expect("there")).expect("written");
    fs::set_permissions(&at, is.permissions()).expect("ours");
    set_time(&at, is.mtime() as u64, is.mtime_nsec() as u32);
}

#[test]
fn further_names_of_a_file_are_links_where_that_is_asked_for() {
    let names = ["b/x", "b/z", "c", "d/e"];
    for piece in [7, 1 << 20] {
        let (from, to) = grounds(hard_links());
        from.put("b/x", b"hello");
        from.put("d/other", b"hello");
        names[1..].iter().for_each(|name| link(&from, names[0], name));
        check_brought(&from, &to, piece);
        assert_linked(&to, &names, true);
        assert_linked(&to, &["d/other", "b/x"], false);
        // An edit of the one file under all its names, and of nothing but what is kept beside its content.
        fs::write(from.at("c"), b"edited").expect("written");
        check_brought(&from, &to, piece);
        assert_linked(&to, &names, true);
        fs::set_permissions(from.at("c"), Permissions::from_mode(0o600)).expect("ours");
        check_brought(&from, &to, piece);
        assert_linked(&to, &names, true);
        // A link that was broken there, though nothing else tells it from what it should be.
        unlink(&to, "c");
        check_brought(&from, &to, piece);
        assert_linked(&to, &names, true);
        // The first name too, and one with another content.
        unlink(&to, "b/x");
        fs::remove_file(to.at("d/e")).expect("there");
        to.put("d/e", b"something else");
        check_brought(&from, &to, piece);
        assert_linked(&to, &names, true);
        // What is linked there, and is not here.
        link(&to, "d/other", "b/z");
        check_brought(&from, &to, piece);
        assert_linked(&to, &names, true);
        unlink(&from, "d/e");
        check_brought(&from, &to, piece);
        assert_linked(&to, &["b/x", "d/e"], false);
        assert_linked(&to, &names[..3], true);
        // Something else stands where a link goes, and the first name goes.
        fs::remove_file(to.at("c")).expect("there");
        fs::create_dir(to.at("c")).expect("made");
        fs::remove_file(from.at("b/x")).expect("there");
        check_brought(&from, &to, piece);
        assert_linked(&to, &["b/z", "c"], true);
        symlink("elsewhere", to.at("link")).expect("made");
        fs::remove_file(from.at("c")).expect("there");
        link(&from, "b/z", "link");
        check_brought(&from, &to, piece);
        assert_linked(&to, &["b/z", "link"], true);
    }
}

#[test]
fn names_of_one_file_are_files_of_their_own_where_links_are_not_asked_for() {
    let (from, to) = grounds(Scope::default());
    from.put("a", b"one");
    link(&from, "a", "b");
    check_brought(&from, &to, 1 << 20);
    assert_linked(&to, &["a", "b"], false);
}

#[test]
fn links_to_long_files_are_made_when_those_have_come() {
    let (from, to) = grounds(hard_links());
    from.put("a/long", &noise(100_000, 1));
    link(&from, "a/long", "b");
    for round in 0..3 {
        let (stage, done) = bring(&from, &to, ALL, 1 << 20);
        done.expect("what is missing comes");
        let members: Vec<_> = members_to_fetch(&stage).into_iter().map(|member| member.path).collect();
        assert_eq!(members, [RelPath::new(*b"a/long").expect("valid")]);
        carry(&from, &to, "a/long");
        // In the next one it takes the place of a file that has the other name.
        check_brought(&from, &to, 1 << 20);
        assert_linked(&to, &["a/long", "b"], true);
        fs::write(from.at("b"), noise(100_000 + round, 2)).expect("written");
    }
}

#[test]
fn long_files_that_are_linked_only_there_are_given_files_of_their_own() {
    let (from, to) = grounds(hard_links());
    from.put("a", &noise(100_000, 1));
    from.put("b", &noise(100_000, 1));
    ["a", "b"].iter().for_each(|path| set_time(&from.at(path), 7, 8));
    fs::create_dir(to.at("")).expect("made");
    carry(&from, &to, "a");
    link(&to, "a", "b");
    check_brought(&from, &to, 1 << 20);
    assert_linked(&to, &["a", "b"], false);
}

#[test]
fn a_name_outside_of_the_tree_keeps_what_it_has() {
    for scope in [Scope::default(), hard_links()] {
        let (from, to) = grounds(scope);
        from.put("long", &noise(100_000, 1));
        from.put("short", b"short");
        fs::create_dir(to.at("")).expect("made");
        carry(&from, &to, "long");
        carry(&from, &to, "short");
        let outside = to.directory.path().join("outside");
        let short = to.directory.path().join("outside-too");
        fs::hard_link(to.at("long"), &outside).expect("linked");
        fs::hard_link(to.at("short"), &short).expect("linked");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o777;
        let before = (mode(&outside), mode(&short));
        for path in ["long", "short"] {
            fs::set_permissions(from.at(path), Permissions::from_mode(0o700)).expect("ours");
        }
        check_brought(&from, &to, 1 << 20);
        assert_eq!((mode(&outside), mode(&short)), before);
        assert_eq!(fs::read(&outside).expect("there"), noise(100_000, 1));
    }
}

/// The permissions and times of one name are set where a file with two names is there: the other keeps its own.
#[test]
fn what_a_transfer_of_its_own_sets_is_not_set_under_another_name() {
    let to = Ground::new(true);
    to.put("a", &noise(100_000, 1));
    link(&to, "a", "b");
    set_time(&to.at("b"), 5, 6);
    let place = Place { root: RootId::new(0), path: RelPath::new(*b"t/a").expect("a path") };
    let (cutting, algorithm) = (Cutting::ByContent, Algorithm::Blake3);
    let ask = Ask::Describe { place: place.clone(), cutting, algorithm, remember: None };
    let Ok(Answer::Described(file)) = to.storage.answer(ask) else { panic!("it is there") };
    let attributes = |seconds| Attributes::new(0o640, seconds, 8).expect("in range");
    let adorn = |attributes| {
        let file = deltasync_proto::Adorned::There(place.clone(), file.file.clone());
        to.storage.answer(Ask::Adorn { file, attributes }).expect("set");
    };
    adorn(attributes(7));
    assert_linked(&to, &["a", "b"], false);
    let time = |path: &str| fs::metadata(to.at(path)).expect("there").mtime();
    assert_eq!((time("a"), time("b")), (7, 5));
    assert_eq!(fs::read(to.at("a")).expect("there"), noise(100_000, 1));
}

#[test]
fn of_equal_length_and_time_only_the_content_tells() {
    let checksum = Scope { checksum: true, ..Scope::default() };
    let lengths = [("short", 1000), ("d/short", 64 << 10), ("long", 100_000), ("d/long", 300_000)];
    let fill = |ground: &Ground| {
        for (path, len) in lengths {
            ground.put(path, &noise(len, len as u64));
            set_time(&ground.at(path), 7, 8);
        }
        set_time(&ground.at("d"), 7, 8);
    };
    for scope in [Scope::default(), checksum.clone()] {
        let (from, to) = grounds(scope.clone());
        fill(&from);
        fill(&to);
        check_brought(&from, &to, 1 << 20);
        for path in ["d/short", "d/long"] {
            let mut content = fs::read(to.at(path)).expect("there");
            content[500] ^= 1;
            fs::write(to.at(path), content).expect("written");
            set_time(&to.at(path), 7, 8);
        }
        let (stage, done) = bring(&from, &to, ALL, 1 << 20);
        done.expect("made");
        let members: Vec<_> = members_to_fetch(&stage).into_iter().map(|member| member.path).collect();
        let same = |path: &str| fs::read(from.at(path)).expect("there") == fs::read(to.at(path)).expect("there");
        if scope == checksum {
            assert_eq!(members, [RelPath::new(*b"d/long").expect("valid")]);
            assert!(same("d/short") && !same("d/long"));
            carry(&from, &to, "d/long");
            check_brought(&from, &to, 1 << 20);
        } else {
            assert!(members.is_empty() && !same("d/short"));
        }
    }
}

#[test]
fn a_content_that_is_not_what_was_listed_is_not_read() {
    let (from, _) = grounds(Scope { checksum: true, ..Scope::default() });
    from.put("file", b"content");
    set_time(&from.at("file"), 7, 8);
    let tree = from.describe();
    fs::write(from.at("file"), b"CONTENT").expect("written");
    set_time(&from.at("file"), 7, 8);
    let ranges = vec![(Offset::ZERO, tree.chunks.len())];
    let fault = from.storage.answer(Ask::Read { file: tree.file, ranges }).expect_err("it changed");
    assert_eq!(fault.kind, FaultKind::Changed);
}

fn xattrs() -> Scope {
    Scope { xattrs: true, ..Scope::default() }
}

/// Directories on a disk that has extended attributes; what has none is passed over aloud.
fn grounds_with_xattrs(scope: Scope) -> Option<(Ground, Ground)> {
    let (from, to) = grounds(scope);
    let has =
        |ground: &Ground| rustix::fs::setxattr(ground.directory.path(), "user.try", b"", XattrFlags::empty()).is_ok();
    if has(&from) && has(&to) {
        return Some((from, to));
    }
    eprintln!("PASSED OVER: no extended attributes in {}", from.directory.path().display());
    None
}

fn set(ground: &Ground, path: &str, name: &str, value: &[u8]) {
    rustix::fs::setxattr(ground.at(path), name, value, XattrFlags::empty()).expect("set");
}

fn get(ground: &Ground, path: &str, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 70_000];
    let len = rustix::fs::getxattr(ground.at(path), name, &mut value[..]).ok()?;
    Some(value[..len].to_vec())
}

#[test]
fn extended_attributes_of_users_are_kept() {
    let Some((from, to)) = grounds_with_xattrs(Scope { hard_links: true, ..xattrs() }) else { return };
    from.put("dir/short", b"short");
    from.put("dir/long", &noise(100_000, 1));
    from.put("read-only", b"read-only");
    link(&from, "read-only", "other-name");
    set(&from, "", "user.top", b"of the top");
    set(&from, "dir", "user.dir", b"");
    set(&from, "dir/short", "user.b", &noise(600, 1));
    set(&from, "dir/short", "user.a", b"\0\xff");
    set(&from, "dir/long", "user.of-long", b"long");
    set(&from, "read-only", "user.a", b"1");
    let modes = |mode: u32| {
        for (path, more) in [("read-only", 0), ("dir/long", 0), ("dir", 0o111)] {
            fs::set_permissions(from.at(path), Permissions::from_mode(mode | more)).expect("ours");
        }
    };
    modes(0o444);
    let (_, done) = bring(&from, &to, ALL, 1 << 20);
    done.expect("made");
    fs::set_permissions(to.at("dir"), Permissions::from_mode(0o755)).expect("ours");
    carry(&from, &to, "dir/long");
    let check = || {
        check_brought(&from, &to, 1 << 20);
        for (path, names) in [
            ("", &["user.top"][..]),
            ("dir", &["user.dir"]),
            ("dir/short", &["user.a", "user.b", "user.c"]),
            ("dir/long", &["user.of-long"]),
            ("read-only", &["user.a"]),
            ("other-name", &["user.a"]),
        ] {
            names.iter().for_each(|name| assert_eq!(get(&to, path, name), get(&from, path, name), "{path} {name}"));
        }
    };
    check();
    assert_eq!(get(&to, "dir/long", "user.of-long"), Some(b"long".to_vec()));
    modes(0o644);
    // One is changed, one comes, one goes; a file with nothing else.
    set(&from, "dir/short", "user.c", b"new");
    set(&from, "dir/short", "user.a", b"changed");
    set(&from, "dir/long", "user.of-long", b"changed");
    set(&from, "read-only", "user.a", b"changed");
    rustix::fs::removexattr(from.at("dir/short"), "user.b").expect("there");
    rustix::fs::removexattr(from.at(""), "user.top").expect("there");
    modes(0o444);
    fs::set_permissions(to.at("dir"), Permissions::from_mode(0o755)).expect("ours");
    check();
    assert_linked(&to, &["read-only", "other-name"], true);
    assert_eq!(get(&to, "dir/short", "user.b"), None);
    // What only is there goes.
    fs::set_permissions(to.at("dir"), Permissions::from_mode(0o755)).expect("ours");
    set(&to, "dir", "user.extra", b"");
    fs::set_permissions(to.at("dir/long"), Permissions::from_mode(0o644)).expect("ours");
    set(&to, "dir/long", "user.extra", b"");
    check();
    assert_eq!((get(&to, "dir", "user.extra"), get(&to, "dir/long", "user.extra")), (None, None));
}

#[test]
fn extended_attributes_are_as_they_were_where_they_are_not_asked_for() {
    let Some((from, to)) = grounds_with_xattrs(Scope::default()) else { return };
    from.put("dir/long", &noise(100_000, 1));
    set(&from, "dir", "user.of-source", b"");
    fs::create_dir_all(to.at("dir")).expect("made");
    carry(&from, &to, "dir/long");
    set(&to, "dir", "user.a", b"stays");
    set(&to, "dir/long", "user.a", b"stays");
    // Also where the file gets one of its own.
    link(&to, "dir/long", "extra");
    fs::set_permissions(from.at("dir/long"), Permissions::from_mode(0o600)).expect("ours");
    check_brought(&from, &to, 1 << 20);
    for path in ["dir", "dir/long"] {
        assert_eq!(get(&to, path, "user.a"), Some(b"stays".to_vec()), "{path}");
        assert_eq!(get(&to, path, "user.of-source"), None);
    }
}

#[test]
fn extended_attributes_of_the_system_are_named_and_left_alone() {
    let Some((from, to)) = grounds_with_xattrs(xattrs()) else { return };
    from.put("file", b"file");
    if rustix::fs::setxattr(from.at("file"), "trusted.test", b"1", XattrFlags::empty()).is_err() {
        eprintln!("PASSED OVER: only root sets such attributes");
        return;
    }
    set(&from, "file", "user.a", b"1");
    let tree = from.describe();
    assert_eq!(omitted(&tree), ["file: its extended attribute trusted.test is not kept"]);
    check_brought(&from, &to, 1 << 20);
    assert_eq!((get(&to, "file", "trusted.test"), get(&to, "file", "user.a")), (None, Some(b"1".to_vec())));
    set(&to, "file", "trusted.test", b"2");
    set(&from, "file", "user.a", b"2");
    set(&to, "", "trusted.test", b"2");
    set(&from, "", "user.a", b"2");
    check_brought(&from, &to, 1 << 20);
    assert_eq!(get(&to, "", "trusted.test"), Some(b"2".to_vec()));
}

#[test]
fn a_peer_sets_no_attribute_of_the_system_and_what_has_no_room_is_named() {
    let Some((_, to)) = grounds_with_xattrs(xattrs()) else { return };
    let entry = |at: &str, kind, xattrs: &[(&str, &[u8])]| {
        let mut of = Xattrs::default();
        xattrs.iter().for_each(|(name, value)| of.push(name.as_bytes(), value).expect("in order"));
        let attributes = Attributes::new(0o755, 7, 8).expect("in range");
        TreeEntry { xattrs: of, ..TreeEntry::new(RelPath::new(at).expect("valid"), kind, attributes) }
    };
    let file = || TreeKind::File { len: ByteLen::ZERO, root: None };
    let system: &[(&str, &[u8])] = &[("security.capability", b"1"), ("trusted.x", b"1")];
    let most = vec![7; 60_000];
    let done = make_by_word(
        &to,
        &[
            entry("", TreeKind::Directory, &[]),
            entry("t", TreeKind::Directory, system),
            entry("t/file", file(), system),
            entry("t/full", file(), &[("most", &most)]),
            entry("t/full-dir", TreeKind::Directory, &[("most", &most)]),
            entry("t/too", file(), &[("a", b"1")]),
        ],
    );
    for path in ["", "file"] {
        for (name, _) in system {
            assert_eq!(get(&to, path, name), None);
            assert_eq!(get(&to, path, &format!("user.{name}")), Some(b"1".to_vec()));
        }
    }
    assert_eq!(get(&to, "too", "user.a"), Some(b"1".to_vec()));
    assert!(to.at("full").exists() && to.at("full-dir").exists());
    match done {
        // Not every disk has room for it.
        Err(fault) => {
            assert_eq!(fault.message.matches("its extended attributes cannot be set").count(), 2, "{fault}");
        }
        Ok(()) => assert_eq!(get(&to, "full", "user.most"), Some(most)),
    }
}
