//! Trees on real files: what is listed, and that a directory becomes what an archive says and nothing else changes.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use deltasync_core::{Algorithm, Op, Ops, Planner};
use deltasync_proto::{Answer, Ask, Cutting, Destination, Extra, Filter, Replaces, RootId, Scope, TreeOptions};
use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

use super::*;
use crate::laws::noise;
use crate::{BlockingStorage, LocalOptions, LocalStorage};

const ALL: Extra = Extra::Delete { most: Some(u64::MAX) };

/// What a path is, for comparisons: kind, mode, time, and content or target.
type Seen = BTreeMap<Vec<u8>, (char, u32, (i64, i64), Vec<u8>)>;

fn see(directory: &Path) -> Seen {
    fn look(top: &Path, at: &Path, seen: &mut Seen) {
        let is = fs::symlink_metadata(at).expect("it is there");
        let path = at.strip_prefix(top).expect("below").as_os_str().as_bytes().to_vec();
        if path == b".deltasync" {
            return;
        }
        let (kind, content) = match is.file_type() {
            kind if kind.is_dir() => ('d', Vec::new()),
            kind if kind.is_symlink() => ('l', fs::read_link(at).expect("a link").into_os_string().into_vec()),
            _ => ('f', fs::read(at).expect("readable")),
        };
        seen.insert(path, (kind, is.mode() & 0o777, (is.mtime(), is.mtime_nsec()), content));
        if kind == 'd' {
            for entry in fs::read_dir(at).expect("readable") {
                look(top, &entry.expect("an entry").path(), seen);
            }
        }
    }
    let mut seen = Seen::new();
    look(directory, directory, &mut seen);
    seen
}

struct Ground {
    storage: LocalStorage,
    directory: TempDir,
    /// What takes part.
    filter: Filter,
}

impl Ground {
    fn new(served: bool) -> Self {
        Self::with(served, LocalOptions::default())
    }

    fn with(served: bool, options: LocalOptions) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let storage = match served {
            true => LocalStorage::serve(directory.path(), options),
            false => LocalStorage::roots(vec![directory.path().to_owned()], options),
        };
        Self { storage: storage.expect("it can be opened"), directory, filter: Filter::default() }
    }

    fn put(&self, path: &str, content: &[u8]) {
        let path = self.directory.path().join("t").join(path);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("made");
        fs::write(path, content).expect("written");
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.directory.path().join("t").join(path)
    }

    fn see(&self) -> Seen {
        see(&self.directory.path().join("t"))
    }

    fn describe(&self) -> OpenedFile {
        let (place, algorithm) = (place(), Algorithm::Blake3);
        match self.storage.answer(Ask::Describe {
            place,
            cutting: Cutting::ByKind(self.filter.clone().into()),
            algorithm,
            remember: None,
        }) {
            Ok(Answer::Described(tree)) => tree,
            other => panic!("{other:?}"),
        }
    }

    fn basis(&self) -> Option<OpenedFile> {
        let destination = Destination { place: place(), name: deltasync_core::Name::any(), directory: false };
        let (algorithm, wanted) = (Algorithm::Blake3, None);
        match self.storage.answer(Ask::Basis {
            destination,
            cutting: Cutting::Tree(self.filter.clone().into()),
            algorithm,
            wanted,
        }) {
            Ok(Answer::Basis { file, .. }) => file,
            other => panic!("{other:?}"),
        }
    }

    fn read(&self, tree: &OpenedFile, start: Offset, len: ByteLen) -> Bytes {
        let ask = Ask::Read { file: tree.file.clone(), ranges: vec![(start, len)] };
        match self.storage.answer(ask) {
            Ok(Answer::Read(bytes)) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn stage(&self, len: ByteLen, basis: Option<&OpenedFile>, extra: Extra) -> StageHandle {
        let (basis, algorithm) = (basis.map(|basis| basis.file.clone()), Algorithm::Blake3);
        match self.storage.answer(Ask::StageTree {
            place: place(),
            len,
            algorithm,
            basis,
            options: TreeOptions::default().extra(extra),
        }) {
            Ok(Answer::Staged(stage)) => stage,
            other => panic!("{other:?}"),
        }
    }

    fn apply(
        &self,
        stage: &StageHandle,
        planner: &mut Planner,
        basis: Option<FileHandle>,
        ops: &Ops,
        literals: Bytes,
    ) -> Result<(), StorageFault> {
        let plan = planner.plan(ops, ByteLen::of(&literals)).expect("it fits");
        self.storage.answer(Ask::Apply { stage: stage.clone(), basis, plan, literals }).map(drop)
    }

    fn seal(&self, stage: &StageHandle) -> deltasync_core::Digest {
        match self.storage.answer(Ask::Seal { stage: stage.clone() }) {
            Ok(Answer::Sealed(digest)) => digest,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&self, stage: &StageHandle) -> Result<(), StorageFault> {
        let replaces = deltasync_proto::Replaces::Nothing;
        self.storage.answer(Ask::Commit { stage: stage.clone(), replaces }).map(drop)
    }

    /// The commit that made the tree what it is.
    fn generation(&self) -> u64 {
        self.basis().expect("it is there").generation.get()
    }

    /// Publishes a file of a tree that goes by itself.
    fn publish(&self, path: &str, content: &[u8]) {
        let place = Place { root: RootId::new(0), path: RelPath::new(path.as_bytes()).expect("a path") };
        let (len, algorithm) = (ByteLen::of(content), Algorithm::Blake3);
        let (destination, cutting) = (Destination::exactly(place.clone()), Cutting::ByContent);
        let ask = Ask::Basis { destination, cutting, algorithm, wanted: None };
        let Ok(Answer::Basis { file, .. }) = self.storage.answer(ask) else { panic!("it can be looked at") };
        let replaces = file.map_or(Replaces::Nothing, |file| Replaces::File(file.file));
        let ask = Ask::Stage { place, len, algorithm, root: algorithm.digest(content) };
        let Ok(Answer::Staged(stage)) = self.storage.answer(ask) else { panic!("it can be staged") };
        let mut planner = Planner::new(ByteLen::ZERO, len, &deltasync_core::Limits::default()).expect("within limits");
        let ops: Ops = [Op::Literal { len }].into_iter().collect();
        self.apply(&stage, &mut planner, None, &ops, Bytes::copy_from_slice(content)).expect("applied");
        let (file, attributes) = (deltasync_proto::Adorned::Staged(stage.clone()), Attributes::new(0o644, 7, 8));
        self.storage.answer(Ask::Adorn { file, attributes: attributes.expect("in range") }).expect("set");
        self.storage.answer(Ask::Commit { stage, replaces }).expect("published");
    }
}

/// An archive comes whole, in one frame.
fn make_whole(to: &Ground, stage: &StageHandle, basis: Option<&OpenedFile>, archive: Bytes) {
    let (basis_len, len) = (basis.map_or(ByteLen::ZERO, |basis| basis.chunks.len()), ByteLen::of(&archive));
    let mut planner = Planner::new(basis_len, len, &deltasync_core::Limits::default()).expect("within limits");
    let ops: Ops = [Op::Literal { len }].into_iter().collect();
    let basis = basis.map(|basis| basis.file.clone());
    to.apply(stage, &mut planner, basis, &ops, archive).expect("what cannot be made is told at the end");
}

/// A peer says that these entries, which have no bytes, are the tree at the top of what is served.
fn make_by_word(to: &Ground, entries: &[TreeEntry]) -> Result<(), StorageFault> {
    let mut lister = deltasync_core::TreeLister::new(Algorithm::Blake3, &deltasync_core::Limits::default());
    entries.iter().for_each(|entry| lister.push(entry).expect("in order"));
    let list = lister.finish();
    let mut archive = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        archive.extend_from_slice(list.header(index));
        entry.inline().iter().for_each(|_| archive.extend_from_slice(&content_check(b"")));
    }
    let (place, len) = (Place { root: RootId::new(0), path: RelPath::ROOT }, list.chunks().len());
    let ask = Ask::StageTree {
        place,
        len,
        algorithm: Algorithm::Blake3,
        basis: None,
        options: TreeOptions::default().extra(ALL),
    };
    let Ok(Answer::Staged(stage)) = to.storage.answer(ask) else { panic!("{entries:?}") };
    make_whole(to, &stage, None, archive.into());
    to.seal(&stage);
    to.commit(&stage)
}

fn place() -> Place {
    Place { root: RootId::new(0), path: RelPath::new(*b"t").expect("a path") }
}

/// Brings `to` up to date with `from` by what their lists say, in frames of about `piece` bytes.
fn bring(from: &Ground, to: &Ground, extra: Extra, piece: u64) -> (StageHandle, Result<(), StorageFault>) {
    let (target, basis) = (from.describe(), to.basis());
    let stage = to.stage(target.chunks.len(), basis.as_ref(), extra);
    let basis_len = basis.as_ref().map_or(ByteLen::ZERO, |basis| basis.chunks.len());
    let mut planner =
        Planner::new(basis_len, target.chunks.len(), &deltasync_core::Limits::default()).expect("within limits");
    let mut at = Offset::ZERO;
    for run in target.chunks.runs() {
        let len = run.bytes();
        let same = basis.as_ref().and_then(|basis| {
            let mut at = 0;
            basis.chunks.runs().iter().find_map(|old| {
                let start = at;
                at += old.bytes().get();
                (old.digest == run.digest).then_some(Offset::new(start))
            })
        });
        let file = basis.as_ref().map(|basis| basis.file.clone());
        if let Some(start) = same {
            let ops: Ops = [Op::Copy { from: start, len }].into_iter().collect();
            to.apply(&stage, &mut planner, file, &ops, Bytes::new()).expect("applied");
        } else {
            let mut done = 0;
            while done < len.get() {
                let part = ByteLen::new(piece.min(len.get() - done));
                let bytes = from.read(&target, at + ByteLen::new(done), part);
                let ops: Ops = [Op::Literal { len: part }].into_iter().collect();
                if let Err(fault) = to.apply(&stage, &mut planner, file.clone(), &ops, bytes) {
                    return (stage, Err(fault));
                }
                done += part.get();
            }
        }
        at += len;
    }
    assert_eq!(to.seal(&stage), target.chunks.root());
    let committed = to.commit(&stage);
    (stage, committed)
}

fn check_brought(from: &Ground, to: &Ground, piece: u64) {
    let (stage, committed) = bring(from, to, ALL, piece);
    committed.expect("all can be made");
    assert!(members_to_fetch(&stage).is_empty());
    assert_eq!(to.see(), from.see());
    assert_eq!(to.describe().chunks.root(), from.describe().chunks.root());
}

fn set_time(path: &Path, seconds: u64, nanoseconds: u32) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    File::open(path).expect("there").set_times(FileTimes::new().set_modified(time)).expect("ours");
}

fn fill(ground: &Ground) {
    ground.put("a", b"");
    ground.put("b/x", b"hello");
    ground.put("b/y/z", &noise(60_000, 7));
    ground.put("b-", &noise(64 << 10, 8));
    ground.put("odd\n\u{202e}name", b"odd");
    fs::create_dir(ground.at("empty")).expect("made");
    symlink("../../../etc/passwd", ground.at("b/link")).expect("made");
    fs::write(ground.at("").join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), b"bytes").expect("made");
    fs::set_permissions(ground.at("b/x"), Permissions::from_mode(0o751)).expect("ours");
    fs::set_permissions(ground.at("empty"), Permissions::from_mode(0o705)).expect("ours");
    set_time(&ground.at("b/x"), 1_000_000_000, 123_456_789);
    set_time(&ground.at("b/y"), 3, 999_999_999);
    set_time(&ground.at(""), 1_234_567, 1);
}

#[test]
fn a_directory_becomes_the_tree() {
    for (served, piece) in [(true, 1000), (false, 1 << 20), (true, 7)] {
        let (from, to) = (Ground::new(false), Ground::new(served));
        fill(&from);
        if piece == 7 {
            fs::remove_file(from.at("b/y/z")).expect("there");
            fs::remove_file(from.at("b-")).expect("there");
        }
        check_brought(&from, &to, piece);
        check_brought(&from, &to, piece);
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
        }
        fs::set_permissions(from.at("odd\n\u{202e}name"), Permissions::from_mode(0o600)).expect("ours");
        fs::rename(from.at("empty"), from.at("b/moved")).expect("moved");
        check_brought(&from, &to, piece);
        fs::remove_dir_all(from.at("b")).expect("there");
        check_brought(&from, &to, piece);
    }
}

#[test]
fn what_a_killed_one_has_left_does_not_keep_a_directory() {
    let (from, to) = (Ground::new(false), Ground::new(true));
    fill(&from);
    check_brought(&from, &to, 1 << 20);
    fs::write(to.at("b/y/.z.deltasync-0123abcd"), b"left").expect("space");
    fs::remove_dir_all(from.at("b/y")).expect("there");
    let (_, done) = bring(&from, &to, Extra::Delete { most: None }, 1 << 20);
    done.expect("deleted");
    assert!(to.at("b").exists() && !to.at("b/y").exists());
}

#[test]
fn what_is_extra_stays_unless_it_is_to_go_and_is_not_too_much() {
    let (from, to) = (Ground::new(false), Ground::new(true));
    fill(&from);
    check_brought(&from, &to, 1 << 20);
    fs::remove_dir_all(from.at("b")).expect("there");
    from.put("new", b"new");
    let (_, kept) = bring(&from, &to, Extra::Keep, 1 << 20);
    kept.expect("made");
    assert!(to.at("b/y/z").exists() && to.at("new").exists());
    // All of b are 5 of 11 entries, and with what is named here they are more than half.
    for path in ["a", "b-", "odd\n\u{202e}name"] {
        fs::remove_file(from.at(path)).expect("there");
    }
    for most in [None, Some(7)] {
        let (_, refused) = bring(&from, &to, Extra::Delete { most }, 1 << 20);
        let fault = refused.expect_err("too much");
        assert_eq!(fault.kind, FaultKind::Denied);
        assert!(fault.message.contains("8 of 11 entries would be deleted"), "{fault}");
        assert!(to.at("b/y/z").exists());
    }
    let (_, done) = bring(&from, &to, Extra::Delete { most: Some(8) }, 1 << 20);
    done.expect("few enough");
    assert_eq!(to.see(), from.see());
}

#[test]
fn what_somebody_changed_meanwhile_stays_and_is_named() {
    let (from, to) = (Ground::new(false), Ground::new(true));
    for (path, content) in [("changed", b"first"), ("gone", b"first"), ("same", b"first"), ("way", b"first")] {
        from.put(path, content);
    }
    check_brought(&from, &to, 1 << 20);
    for path in ["changed", "gone", "same"] {
        from.put(path, b"second version");
    }
    fs::remove_file(from.at("way")).expect("there");
    let (target, basis) = (from.describe(), to.basis().expect("it is there"));
    to.put("changed", b"by somebody else");
    fs::remove_file(to.at("gone")).expect("there");
    to.put("way", b"by somebody else");
    let len = target.chunks.len();
    let stage = to.stage(len, Some(&basis), ALL);
    make_whole(&to, &stage, Some(&basis), from.read(&target, Offset::ZERO, len));
    to.seal(&stage);
    let fault = to.commit(&stage).expect_err("not all");
    assert_eq!(fault.message, "t: not all could be made: t/changed: changed meanwhile");
    let get = |path: &str| fs::read(to.at(path)).expect("there");
    assert_eq!(get("changed"), b"by somebody else");
    assert_eq!((get("gone"), get("same")), (b"second version".to_vec(), b"second version".to_vec()));
    assert_eq!(get("way"), b"by somebody else", "nothing is taken away when not all could be made");
    let left: Vec<_> = to.see().into_keys().filter(|path| path.windows(9).any(|part| part == b"deltasync")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn nothing_outside_is_touched_through_a_link_that_is_there() {
    let (from, to) = (Ground::new(false), Ground::new(true));
    let outside = TempDir::new().expect("a temporary directory");
    fs::write(outside.path().join("file"), b"outside").expect("made");
    from.put("dir/file", b"inside");
    from.put("file", b"inside");
    fs::create_dir(to.at("")).expect("made");
    symlink(outside.path(), to.at("dir")).expect("made");
    symlink(outside.path().join("file"), to.at("file")).expect("made");
    check_brought(&from, &to, 1 << 20);
    // Or one that comes meanwhile.
    from.put("dir/file", b"changed");
    let (target, basis) = (from.describe(), to.basis().expect("it is there"));
    fs::remove_dir_all(to.at("dir")).expect("there");
    symlink(outside.path(), to.at("dir")).expect("made");
    let len = target.chunks.len();
    let stage = to.stage(len, Some(&basis), ALL);
    make_whole(&to, &stage, Some(&basis), from.read(&target, Offset::ZERO, len));
    to.seal(&stage);
    to.commit(&stage).expect_err("a link has come");
    assert_eq!(fs::read(outside.path().join("file")).expect("there"), b"outside");
    assert_eq!(fs::read_dir(outside.path()).expect("there").count(), 1);
}

#[test]
fn a_content_that_a_hash_mistook_is_made_anew_from_what_was_made() {
    let (from, to) = (Ground::new(false), Ground::new(true));
    from.put("a", &noise(3000, 1));
    from.put("b", &noise(3000, 2));
    let target = from.describe();
    let len = target.chunks.len();
    let bytes = from.read(&target, Offset::ZERO, len);
    let mut wrong = bytes.to_vec();
    let at = wrong.len() - 3000 - 50;
    // In the content of the first file.
    wrong[at - 100] ^= 1;
    let stage = to.stage(len, None, ALL);
    make_whole(&to, &stage, None, wrong.into());
    assert_ne!(to.seal(&stage), target.chunks.root());
    assert!(!to.at("a").exists() && to.at("b").exists());
    let Ok(Answer::Reopened(made)) = to.storage.answer(Ask::Reopen { stage: stage.clone() }) else { panic!() };
    let made = OpenedFile { file: made, ..target.clone() };
    let again = to.read(&made, Offset::ZERO, len);
    let wrong: Vec<usize> = (0..again.len()).filter(|i| again[*i] != bytes[*i]).collect();
    let (first, last) = (wrong[0], wrong[wrong.len() - 1]);
    assert!(last - first < 3008, "{first} {last}");
    // The sender says: a part of that is right, the rest is this.
    let second = to.stage(len, None, ALL);
    drop(stage);
    let mut planner = Planner::new(len, len, &deltasync_core::Limits::default()).expect("fits");
    let ops: Ops = [
        Op::Copy { from: Offset::ZERO, len: ByteLen::new(first as u64) },
        Op::Literal { len: ByteLen::new((last + 1 - first) as u64) },
        Op::Copy { from: Offset::new(last as u64 + 1), len: ByteLen::new((bytes.len() - last - 1) as u64) },
    ]
    .into_iter()
    .collect();
    let literals = bytes.slice(first..=last);
    to.apply(&second, &mut planner, Some(made.file.clone()), &ops, literals).expect("applied");
    assert_eq!(to.seal(&second), target.chunks.root());
    to.commit(&second).expect("all of it");
    assert_eq!(to.see(), from.see());
}

#[test]
fn long_files_are_named_and_get_what_else_they_are_to_have() {
    let (from, to) = (Ground::new(false), Ground::new(true));
    from.put("d/long", &noise((64 << 10) + 1, 1));
    from.put("short", &noise(64 << 10, 2));
    let (stage, done) = bring(&from, &to, ALL, 1 << 20);
    done.expect("made");
    let tree = from.describe();
    let members = members_to_send(&tree.file, &[(Offset::ZERO, tree.chunks.len())]);
    assert_eq!(members.len(), 1);
    assert_eq!((members[0].path.as_bytes(), members[0].len), (&b"d/long"[..], ByteLen::new((64 << 10) + 1)));
    assert_eq!(members_to_fetch(&stage), members);
    let (start, _) = (tree.chunks.offset_of(3), ());
    assert_eq!(members_to_send(&tree.file, &[(start, ByteLen::new(1))]), [], "that is another entry");
    assert!(!to.at("d/long").exists() && to.at("short").exists());
    // It comes by another way, and then only its permissions change.
    fs::copy(from.at("d/long"), to.at("d/long")).expect("copied");
    let is = fs::metadata(from.at("d/long")).expect("there");
    set_time(&to.at("d/long"), is.mtime() as u64, is.mtime_nsec() as u32);
    fs::set_permissions(from.at("d/long"), Permissions::from_mode(0o640)).expect("ours");
    check_brought(&from, &to, 1 << 20);
}

#[test]
fn what_is_no_file_is_left_out_and_named() {
    let (from, to) = (Ground::new(false), Ground::new(true));
    from.put("file", b"file");
    from.put("lent", b"file");
    fs::set_permissions(from.at("lent"), Permissions::from_mode(0o4755)).expect("ours");
    rustix::fs::mknodat(CWD, from.at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("made");
    let tree = from.describe();
    let left: Vec<String> = left_out(&tree.file).iter().map(|(path, why)| format!("{path}: {why}")).collect();
    assert_eq!(
        left,
        ["lent: its permission bits 4000 are not kept", "pipe: neither file, directory nor symbolic link"]
    );
    let (_, done) = bring(&from, &to, ALL, 1 << 20);
    done.expect("the rest");
    assert!(!to.at("pipe").exists());
    assert_eq!(fs::metadata(to.at("lent")).expect("there").mode() & 0o7777, 0o755);
    // A pipe in the way of a file is replaced by nobody.
    fs::remove_file(to.at("file")).expect("there");
    rustix::fs::mknodat(CWD, to.at("file"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("made");
    let (_, failed) = bring(&from, &to, ALL, 1 << 20);
    assert_eq!(failed.expect_err("a pipe").message, "t: not all could be made: t/file: changed meanwhile");
}

#[test]
fn a_file_that_changes_after_it_was_listed_is_not_read() {
    let from = Ground::new(false);
    from.put("file", b"12345");
    let tree = from.describe();
    from.put("file", b"123456");
    let ranges = vec![(Offset::ZERO, tree.chunks.len())];
    let fault = from.storage.answer(Ask::Read { file: tree.file.clone(), ranges }).expect_err("it changed");
    assert_eq!(fault.kind, FaultKind::Changed);
    fs::remove_file(from.at("file")).expect("there");
    let ranges = vec![(Offset::ZERO, tree.chunks.len())];
    let fault = from.storage.answer(Ask::Read { file: tree.file, ranges }).expect_err("it is gone");
    assert_eq!(fault.kind, FaultKind::Changed);
}

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
            (tree.chunks.chunk_count(), left_out(&tree.file).len())
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
    let entry = |path: &str, kind| TreeEntry { path: RelPath::new(path.as_bytes()).expect("a path"), kind, attributes };
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
    let entry = |path: &str, kind| TreeEntry { path: RelPath::new(path.as_bytes()).expect("a path"), kind, attributes };
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
fn deep_trees_and_long_names_are_listed() {
    let from = Ground::new(false);
    let deep = vec!["d"; 200].join("/");
    from.put(&format!("{deep}/end"), b"deep");
    from.put(&"n".repeat(255), b"long");
    from.put("d/after", b"the handle was closed meanwhile");
    let to = Ground::new(true);
    check_brought(&from, &to, 1 << 20);
}

/// The paths of what takes part, but for the top.
fn listed(ground: &Ground) -> Vec<String> {
    let tree = ground.describe();
    let list = &tree.file.downcast_ref::<Tree>().expect("ours").list;
    list.entries().skip(1).map(|entry| entry.path.to_string()).collect()
}

fn excluding(patterns: &[&str]) -> Filter {
    let add = |filter: Filter, pattern: &&str| filter.exclude(pattern).expect("a line");
    patterns.iter().fold(Filter::default(), add)
}

#[test]
fn what_a_filter_excludes_is_not_looked_at() {
    let mut ground = Ground::new(true);
    for path in ["a", "a.x", "b/a", "b/y/z", "b/y.x/deep/z", "c"] {
        ground.put(path, b"content");
    }
    symlink("a", ground.at("link.x")).expect("made");
    rustix::fs::mknodat(CWD, ground.at("pipe.x"), FileType::Fifo, Mode::RUSR, 0).expect("made");
    assert_eq!(left_out(&ground.describe().file).len(), 1);
    ground.filter = excluding(&["*.x", "/b/y"]);
    assert_eq!(listed(&ground), ["a", "b", "b/a", "c"]);
    assert!(left_out(&ground.describe().file).is_empty(), "what is excluded is not named");
    let whole = ground.describe().chunks.root();
    ground.put("b/y/z", b"changed");
    assert_eq!(ground.describe().chunks.root(), whole);
}

#[test]
fn an_ignore_file_is_a_short_file_of_the_tree_itself() {
    let mut ground = Ground::new(true);
    let outside = TempDir::new().expect("a temporary directory");
    fs::write(outside.path().join("all"), b"*").expect("made");
    ground.put("a/x", b"x");
    ground.put("b/x", b"x");
    symlink(outside.path().join("all"), ground.at(".gitignore")).expect("made");
    fs::create_dir(ground.at(".deltasyncignore")).expect("made");
    fs::write(ground.directory.path().join(".gitignore"), b"*").expect("above the tree");
    ground.filter = Filter::default().ignore_files(true);
    assert_eq!(listed(&ground), [".deltasyncignore", ".gitignore", "a", "a/x", "b", "b/x"]);
    ground.put("a/.gitignore", b"x");
    assert_eq!(listed(&ground), [".deltasyncignore", ".gitignore", "a", "a/.gitignore", "b", "b/x"]);
    let too_long = vec![b'#'; filtering::FILE_MAX as usize + 1];
    ground.put("b/.deltasyncignore", &too_long[1..]);
    assert_eq!(listed(&ground).len(), 7);
    ground.put("b/.deltasyncignore", &too_long);
    let (place, cutting) = (place(), Cutting::Tree(ground.filter.clone().into()));
    let ask = Ask::Describe { place, cutting, algorithm: Algorithm::Blake3, remember: None };
    let fault = ground.storage.answer(ask).expect_err("too long");
    assert_eq!(fault.kind, FaultKind::TooLarge);
    assert!(fault.message.starts_with("t/b/.deltasyncignore: bytes of an ignore file"), "{fault}");
}

#[test]
fn a_pattern_that_means_nothing_is_refused_by_its_name() {
    let ground = Ground::new(true);
    ground.put("a", b"x");
    let (place, cutting) = (place(), Cutting::ByKind(excluding(&["*.o", "[z-a]"]).into()));
    let ask = Ask::Describe { place, cutting, algorithm: Algorithm::Blake3, remember: None };
    let fault = ground.storage.answer(ask).expect_err("no pattern");
    assert!(fault.message.starts_with("t: the pattern \"[z-a]\" is not valid: "), "{fault}");
}

#[test]
fn a_directory_that_holds_what_is_excluded_stays_and_does_not_count() {
    let (from, mut to) = (Ground::new(false), Ground::new(true));
    from.put("kept", b"kept");
    for path in ["gone/in/a", "gone/in/b.x", "gone/c", "plain/d"] {
        to.put(path, b"there");
    }
    to.filter = excluding(&["*.x"]);
    // Of what is listed these go: a, c, and plain with d.
    let (_, refused) = bring(&from, &to, Extra::Delete { most: Some(3) }, 1 << 20);
    assert!(refused.expect_err("too much").message.contains("4 of 6 entries would be deleted"));
    let (_, done) = bring(&from, &to, Extra::Delete { most: Some(4) }, 1 << 20);
    done.expect("few enough");
    let there: Vec<_> = to.see().into_keys().map(|path| String::from_utf8(path).expect("plain")).collect();
    assert_eq!(there, ["", "gone", "gone/in", "gone/in/b.x", "kept"]);
}

#[test]
fn a_tree_that_is_brought_back_is_another_generation() {
    let (from, to) = (Ground::new(false), Ground::new(true));
    let bring_version = |bytes: &[u8]| {
        from.put("d/file", bytes);
        for path in ["d/file", "d", ""] {
            set_time(&from.at(path), 1_000 + bytes.len() as u64, 0);
        }
        bring(&from, &to, ALL, 1 << 20).1.expect("made");
        (to.generation(), to.basis().expect("there").chunks.root())
    };
    let (first, old) = bring_version(b"old");
    let (second, new) = bring_version(b"newer");
    let (third, back) = bring_version(b"old");
    assert!(0 < first && first < second && second < third, "{first}, {second}, {third}");
    assert!(old == back && old != new);
    assert_eq!(to.generation(), third, "as long as nothing happens");
    // Also when the server is another one meanwhile.
    let Ground { storage, directory, filter } = to;
    drop(storage);
    let storage = LocalStorage::serve(directory.path(), LocalOptions::default()).expect("it can be served");
    assert_eq!(Ground { storage, directory, filter }.generation(), third);
}

#[test]
fn a_tree_that_others_have_changed_is_of_no_known_commit() {
    let (from, to) = (Ground::new(false), Ground::new(true));
    from.put("d/file", b"file");
    from.put("other", b"other");
    let again = || {
        bring(&from, &to, ALL, 1 << 20).1.expect("made");
        assert_ne!(to.generation(), 0);
    };
    again();
    fs::write(to.at("d/file"), b"changed").expect("written");
    assert_eq!(to.generation(), 0);
    again();
    fs::write(to.at("more"), b"more").expect("written");
    assert_eq!(to.generation(), 0);
    again();
    // By the server itself, under another name: the tree is not what its own commit made even once it looks so again.
    let before = to.describe().chunks.root();
    let is = fs::metadata(to.at("other")).expect("there");
    to.publish("t/other", b"OTHER");
    to.publish("t/other", b"other");
    set_time(&to.at("other"), is.mtime() as u64, is.mtime_nsec() as u32);
    fs::set_permissions(to.at("other"), Permissions::from_mode(is.mode())).expect("ours");
    assert_eq!(to.describe().chunks.root(), before);
    assert_eq!(to.generation(), 0);
    again();
}

#[test]
fn a_tree_that_is_there_as_it_is_wanted_is_counted_as_published() {
    let to = Ground::new(true);
    to.put("file", b"made by somebody else");
    assert_eq!(to.generation(), 0);
    let target = to.describe();
    let destination = Destination { place: place(), name: deltasync_core::Name::any(), directory: false };
    let (algorithm, cutting) = (Algorithm::Blake3, Cutting::Tree(Scope::default()));
    let wanted = |root| {
        let wanted = Some((root, target.chunks.len()));
        let ask = Ask::Basis { destination: destination.clone(), cutting: cutting.clone(), algorithm, wanted };
        let Ok(Answer::Basis { file: Some(file), .. }) = to.storage.answer(ask) else { panic!("it is there") };
        file.generation.get()
    };
    assert_eq!(wanted(algorithm.digest(b"another")), 0);
    let generation = wanted(target.chunks.root());
    assert_ne!(generation, 0);
    assert_eq!((wanted(target.chunks.root()), to.generation()), (generation, generation), "once");
}

/// Then a tree is what it should be as soon as the last of them is there.
#[test]
fn a_file_of_a_tree_that_goes_by_itself_leaves_the_time_of_its_directory() {
    let to = Ground::new(true);
    to.put("d/file", b"file");
    set_time(&to.at("d"), 1_234_567, 890);
    to.publish("t/d/large", &noise(100_000, 1));
    to.publish("t/d/file", b"another");
    let is = fs::metadata(to.at("d")).expect("there");
    assert_eq!((is.mtime(), is.mtime_nsec()), (1_234_567, 890));
    assert_eq!(fs::read(to.at("d/file")).expect("there"), b"another");
}
