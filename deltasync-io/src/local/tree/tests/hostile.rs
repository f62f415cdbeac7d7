//! What a peer may say that is no tree, or not one that may be made.

use super::*;

/// An entry as a peer may write it, with any path: a directory, an empty file, or a link to `target`.
fn raw_entry(kind: char, path: &[u8], target: &[u8]) -> Vec<u8> {
    let mut out = vec![b"dfl".iter().position(|known| char::from(*known) == kind).expect("a kind") as u8];
    // Permissions, then the path.
    deltasync_core::write_varint(&mut out, 0o755);
    deltasync_core::write_varint(&mut out, path.len() as u64);
    out.extend_from_slice(path);
    match kind {
        'f' => out.push(0),
        'l' => {
            deltasync_core::write_varint(&mut out, target.len() as u64);
            out.extend_from_slice(target);
        }
        _ => {}
    }
    out.extend_from_slice(&[0, 0]);
    if kind == 'f' {
        out.extend_from_slice(&content_check(b""));
    }
    out
}

#[test]
fn archives_whose_paths_lead_out_or_stand_nowhere_make_nothing_there() {
    let outside = TempDir::new().expect("a temporary directory");
    fs::write(outside.path().join("file"), b"outside").expect("made");
    let absolute = outside.path().as_os_str().as_bytes();
    let name = outside.path().file_name().expect("it has a name").as_bytes();
    let to_outside = |before: &[u8]| [before, b"../", name, b"/new"].concat();
    for (served, components) in [(true, false), (true, true), (false, false)] {
        for kind in ['d', 'f', 'l'] {
            for (before, path, why) in [
                (vec![], to_outside(b""), "a path in a tree is not valid"),
                (vec![], to_outside(b"../t/../"), "a path in a tree is not valid"),
                (vec![('d', "d")], to_outside(b"d/../../"), "a path in a tree is not valid"),
                (vec![], [absolute, b"/new"].concat(), "a path in a tree is not valid"),
                (vec![], [absolute, b"/file"].concat(), "a path in a tree is not valid"),
                (vec![], b"./new".to_vec(), "a path in a tree is not valid"),
                (vec![], b"n\0ew".to_vec(), "a path in a tree is not valid"),
                (vec![], vec![b'n'; 256], "a path in a tree is not valid"),
                (vec![('l', "link")], b"link/new".to_vec(), "an entry of a tree stands in no directory"),
                (vec![('l', "link")], b"link/file".to_vec(), "an entry of a tree stands in no directory"),
                (vec![('f', "f")], b"f/new".to_vec(), "an entry of a tree stands in no directory"),
                (vec![], b"no/new".to_vec(), "an entry of a tree stands in no directory"),
                (vec![('d', "link")], b"link".to_vec(), "entries of a tree are not in order"),
                (vec![('l', "link")], b"link".to_vec(), "entries of a tree are not in order"),
                (vec![('f', "new")], b"new".to_vec(), "entries of a tree are not in order"),
                (vec![('f', "z")], b"new".to_vec(), "entries of a tree are not in order"),
            ] {
                let to = Ground::with(served, LocalOptions::default().components(components));
                let mut archive = raw_entry('d', b"", b"");
                before.iter().for_each(|(kind, path)| archive.extend(raw_entry(*kind, path.as_bytes(), absolute)));
                archive.extend(raw_entry(kind, &path, absolute));
                let len = ByteLen::of(&archive);
                let stage = to.stage(len, None, ALL);
                let mut planner = Planner::new(ByteLen::ZERO, len, &deltasync_core::Limits::default()).expect("fits");
                let ops: Ops = [Op::Literal { len }].into_iter().collect();
                let fault = to.apply(&stage, &mut planner, None, &ops, archive.into()).expect_err("no tree");
                assert_eq!(fault.message, format!("t: {why}"), "{kind} {:?}", path.escape_ascii().to_string());
                drop(stage);
                // What came before it may be there, and nothing else.
                let allowed = |seen: &[u8]| seen.is_empty() || before.iter().any(|(_, path)| path.as_bytes() == seen);
                let seen: Vec<_> = to.see().into_keys().collect();
                assert!(seen.iter().all(|seen| allowed(seen)), "{seen:?} {:?}", path.escape_ascii().to_string());
            }
        }
    }
    assert_eq!(fs::read(outside.path().join("file")).expect("there"), b"outside");
    assert_eq!(fs::read_dir(outside.path()).expect("there").count(), 1);
}

#[test]
fn the_longest_names_and_paths_are_made_and_listed_or_named() {
    let name = [b'n'; 254];
    // 4,095 bytes are the most that a system call takes in one path, 4,096 the most that a peer may say.
    for last in [15, 16] {
        let to = Ground::new(true);
        let mut archive = raw_entry('d', b"", b"");
        let mut deepest = Vec::new();
        for depth in 1..=16 {
            deepest = vec![&name[..]; depth].join(&b'/');
            archive.extend(raw_entry('d', &deepest, b""));
        }
        let path = [&deepest[..], b"/", &vec![b'e'; last]].concat();
        assert_eq!(path.len(), 4080 + last);
        archive.extend(raw_entry('f', &path, b""));
        archive.extend(raw_entry('f', &[b'z'; 255], b""));
        let make = |path| {
            let (place, len) = (Place { root: RootId::new(0), path }, ByteLen::of(&archive));
            let ask = Ask::StageTree {
                place,
                len,
                algorithm: Algorithm::Blake3,
                basis: None,
                options: TreeOptions::default().extra(ALL),
            };
            let Ok(Answer::Staged(stage)) = to.storage.answer(ask) else { panic!("it can be staged") };
            let mut planner = Planner::new(ByteLen::ZERO, len, &deltasync_core::Limits::default()).expect("fits");
            let ops: Ops = [Op::Literal { len }].into_iter().collect();
            to.apply(&stage, &mut planner, None, &ops, archive.clone().into())?;
            to.seal(&stage);
            to.commit(&stage)
        };
        let list = |path| {
            let place = Place { root: RootId::new(0), path };
            let ask = Ask::Describe {
                place,
                cutting: Cutting::Tree(Scope::default()),
                algorithm: Algorithm::Blake3,
                remember: None,
            };
            let Ok(Answer::Described(tree)) = to.storage.answer(ask) else { panic!("it can be listed") };
            (tree.chunks.chunk_count(), tree.omitted.len())
        };
        make(RelPath::ROOT).expect("all of it");
        assert_eq!(list(RelPath::ROOT), (19, 0));
        // Two bytes further down it is too long for a peer to say where it stands, but not to be made and listed there.
        let below = RelPath::new(*b"t").expect("a path");
        make(below.clone()).expect("all of it");
        assert_eq!(list(below), (19, 0));
        assert_eq!(list(RelPath::ROOT), (37, 1));
    }
}

#[test]
fn names_that_are_ours_are_not_made_for_peers() {
    let to = Ground::new(true);
    let attributes = Attributes::new(0o755, 7, 0).expect("in range");
    let entry = |path: &str, kind| TreeEntry::new(RelPath::new(path.as_bytes()).expect("a path"), kind, attributes);
    let empty = || TreeKind::File { len: ByteLen::ZERO, root: None };
    let link = || TreeKind::Symlink { target: b"/etc".to_vec() };
    for (name, kind) in [
        (".deltasync", TreeKind::Directory),
        (".deltasync", empty()),
        (".DeltaSync", link()),
        (".file.deltasync-01234567", empty()),
        (".file.deltasync-01234567", TreeKind::Directory),
    ] {
        let names = || see(to.directory.path()).into_keys().collect::<Vec<_>>();
        let before = names();
        let fault =
            make_by_word(&to, &[entry("", TreeKind::Directory), entry(name, kind)]).expect_err("the name is ours");
        assert_eq!(fault.message, format!("/: not all could be made: {name}: a name of this form is reserved"));
        assert_eq!(names(), before, "{name}");
        assert!(to.directory.path().join(".deltasync").is_dir());
    }
}

#[test]
fn no_peer_sets_the_bits_that_lend_rights() {
    let to = Ground::new(true);
    let mode = |name: &str| fs::metadata(to.directory.path().join(name)).expect("there").mode() & 0o7777;
    fs::create_dir(to.directory.path().join("kept")).expect("made");
    fs::set_permissions(to.directory.path().join("kept"), Permissions::from_mode(0o2700)).expect("ours");
    let attributes = Attributes::new(0o7755, 7, 0).expect("in range");
    let entry = |path: &str, kind| TreeEntry::new(RelPath::new(path.as_bytes()).expect("a path"), kind, attributes);
    let file = TreeKind::File { len: ByteLen::ZERO, root: None };
    let entries =
        [("", TreeKind::Directory), ("file", file), ("kept", TreeKind::Directory), ("new", TreeKind::Directory)];
    make_by_word(&to, &entries.map(|(path, kind)| entry(path, kind))).expect("made");
    assert_eq!(["file", "kept", "new"].map(mode), [0o755, 0o2755, 0o755]);
    // Nor those of a file by itself, staged or there already.
    for round in 0..2 {
        let place = Place { root: RootId::new(0), path: RelPath::new(*b"member").expect("a path") };
        let (algorithm, root) = (Algorithm::Blake3, Algorithm::Blake3.digest(b""));
        let file = match round {
            0 => {
                let ask = Ask::Stage { place: place.clone(), len: ByteLen::ZERO, algorithm, root };
                let Ok(Answer::Staged(stage)) = to.storage.answer(ask) else { panic!("it can be staged") };
                deltasync_proto::Adorned::Staged(stage)
            }
            _ => {
                let ask =
                    Ask::Describe { place: place.clone(), cutting: Cutting::ByContent, algorithm, remember: None };
                let Ok(Answer::Described(file)) = to.storage.answer(ask) else { panic!("it is there") };
                deltasync_proto::Adorned::There(place, file.file)
            }
        };
        to.storage.answer(Ask::Adorn { file: file.clone(), attributes }).expect("set");
        if let deltasync_proto::Adorned::Staged(stage) = file {
            to.commit(&stage).expect("published");
        }
        assert_eq!(mode("member"), 0o755);
    }
}

#[test]
fn hard_links_to_what_is_no_file_of_the_tree_are_not_made() {
    let hard = |at: &str, to: &str| {
        let mut out = vec![4, 0xed, 3, at.len() as u8];
        out.extend_from_slice(at.as_bytes());
        out.push(to.len() as u8);
        out.extend_from_slice(to.as_bytes());
        // Length and time.
        out.extend_from_slice(&[0, 0, 0]);
        out
    };
    let to = Ground::new(true);
    let outside = TempDir::new().expect("a temporary directory");
    fs::write(outside.path().join("file"), b"").expect("made");
    to.put("there", b"");
    let link = "t: a hard link of a tree is one to no file before it";
    let not_valid = "t: a path in a tree is not valid";
    let out = format!("../{}/file", outside.path().file_name().expect("it has a name").to_str().expect("ASCII"));
    for (first, why) in [
        // It is there, but the archive does not say so.
        ("there", link),
        ("", link),
        ("d", link),
        ("f", ""),
        ("l", link),
        ("m", link),
        ("z", link),
        (".deltasync/lock", link),
        (&out, not_valid),
        (outside.path().join("file").to_str().expect("ASCII"), not_valid),
    ] {
        let outside = outside.path().as_os_str().as_bytes();
        let before = [('d', &b""[..]), ('d', b"d"), ('f', b"f"), ('l', b"l")];
        let mut archive: Vec<u8> = before.iter().flat_map(|(kind, at)| raw_entry(*kind, at, outside)).collect();
        archive.extend(hard("m", first));
        archive.extend(raw_entry('f', b"z", b""));
        let len = ByteLen::of(&archive);
        let stage = to.stage(len, None, Extra::Keep);
        let mut planner = Planner::new(ByteLen::ZERO, len, &deltasync_core::Limits::default()).expect("fits");
        let ops: Ops = [Op::Literal { len }].into_iter().collect();
        let applied = to.apply(&stage, &mut planner, None, &ops, archive.into());
        match why {
            "" => {
                applied.expect("a tree");
                to.seal(&stage);
                to.commit(&stage).expect("made");
                let inode = |path: &str| fs::metadata(to.at(path)).expect("there").ino();
                assert_eq!(inode("m"), inode("f"));
                fs::remove_file(to.at("m")).expect("there");
            }
            _ => {
                let fault = applied.expect_err("no tree");
                assert!(fault.message.starts_with(why), "{first}: {fault}");
                assert!(!to.at("m").exists(), "{first}");
            }
        }
    }
    assert_eq!(fs::metadata(outside.path().join("file")).expect("there").nlink(), 1);
}
