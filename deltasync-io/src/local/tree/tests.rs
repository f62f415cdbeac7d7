//! Trees on real files: what is listed, and that a directory becomes what an archive says and nothing else changes.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use deltasync_core::{Algorithm, Op, Ops, Planner};
use deltasync_proto::{
    Answer, Ask, Cutting, Destination, Extra, Filter, Omitted, Replaces, RootId, Scope, TreeOptions, Why,
};
use rustix::fs::{CWD, FileType, Mode};
use rustix::thread::{CapabilitySet, CapabilitySets};
use tempfile::TempDir;

use super::*;
use crate::laws::noise;
use crate::{BlockingStorage, LocalOptions, LocalStorage};

mod atomic;
mod filters;
mod generations;
mod hostile;
mod scope;

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
    /// What takes part, and what is told of it.
    scope: Scope,
    /// Its tree is replaced as one change.
    atomic: bool,
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
        Self { storage: storage.expect("it can be opened"), directory, scope: Scope::default(), atomic: false }
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
        self.describe_as(&self.scope)
    }

    fn describe_as(&self, scope: &Scope) -> OpenedFile {
        let (place, algorithm) = (place(), Algorithm::Blake3);
        let cutting = Cutting::ByKind(scope.clone());
        match self.storage.answer(Ask::Describe { place, cutting, algorithm, remember: None }) {
            Ok(Answer::Described(tree)) => tree,
            other => panic!("{other:?}"),
        }
    }

    fn basis(&self) -> Option<OpenedFile> {
        self.basis_and_part().0
    }

    /// What is there, and what an earlier transfer has left.
    fn basis_and_part(&self) -> (Option<OpenedFile>, Option<OpenedFile>) {
        let place = place().beside_if(self.atomic);
        let destination = Destination { place, name: deltasync_core::Name::any(), directory: false };
        let (algorithm, wanted) = (Algorithm::Blake3, None);
        match self.storage.answer(Ask::Basis {
            destination,
            cutting: Cutting::Tree(self.scope.clone()),
            algorithm,
            wanted,
        }) {
            Ok(Answer::Basis { file, partial, .. }) => (file, partial),
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
            place: place().beside_if(self.atomic),
            len,
            algorithm,
            basis,
            options: TreeOptions::default().extra(extra).scope(self.scope.clone()).atomic(self.atomic),
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
            Ok(Answer::Sealed { root, .. }) => root,
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
        let place = place.beside_if(self.atomic);
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
        options: TreeOptions::default().extra(ALL).scope(to.scope.clone()),
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
    let stage = send(from, to, extra, piece);
    let committed = stage.as_ref().map_err(Clone::clone).and_then(|stage| to.commit(stage));
    (stage.unwrap_or_else(|_| StageHandle::new(())), committed)
}

/// Sends all of it, which is staged then.
fn send(from: &Ground, to: &Ground, extra: Extra, piece: u64) -> Result<StageHandle, StorageFault> {
    let (target, (basis, partial)) = (from.describe(), to.basis_and_part());
    let stage = to.stage(target.chunks.len(), basis.as_ref(), extra);
    let basis = partial.or(basis);
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
                to.apply(&stage, &mut planner, file.clone(), &ops, bytes)?;
                done += part.get();
            }
        }
        at += len;
    }
    assert_eq!(to.seal(&stage), target.chunks.root());
    Ok(stage)
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
    // What is left to do for these at the end is not forgotten.
    from.put("dir/file", b"file");
    from.put("long", &noise(100_000, 3));
    fs::set_permissions(from.at("dir"), Permissions::from_mode(0o705)).expect("ours");
    set_time(&from.at("dir"), 3, 4);
    let target = from.describe();
    let len = target.chunks.len();
    let bytes = from.read(&target, Offset::ZERO, len);
    let mut wrong = bytes.to_vec();
    // In the content of the first file.
    let start = target.chunks.offset_of(1).get() as usize;
    wrong[start + 200] ^= 1;
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
    let members = members_to_fetch(&second);
    assert_eq!(members.iter().map(|member| member.path.as_bytes()).collect::<Vec<_>>(), [b"long"]);
    to.commit(&second).expect("all of it");
    let mut expected = from.see();
    expected.remove(&b"long"[..]);
    assert_eq!(to.see(), expected);
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
    assert_eq!(
        omitted(&tree),
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

#[test]
fn a_read_names_each_file_that_has_changed_and_a_look_for_copies_takes_from_none() {
    let ground = Ground::new(false);
    for path in ["a", "b/a", "c"] {
        ground.put(path, &noise(1000, 1));
    }
    let tree = ground.describe();
    ground.put("a", &noise(999, 2));
    ground.put("b/a", &noise(999, 3));
    fs::remove_file(ground.at("c")).expect("there");
    let (file, len) = (tree.file.clone(), tree.chunks.len());
    let ops: Ops = [Op::Literal { len }].into_iter().collect();
    match ground.storage.answer(Ask::Refine { file: file.clone(), ops: ops.clone() }) {
        Ok(Answer::Refined(refined)) => assert_eq!(refined, ops, "there is nothing to take from"),
        other => panic!("{other:?}"),
    }
    let fault = ground.storage.answer(Ask::Read { file, ranges: vec![(Offset::ZERO, len)] }).expect_err("they changed");
    assert_eq!(fault.kind, FaultKind::Changed);
    let changed = |path| Omitted { path: RelPath::new(path).expect("valid"), why: Why::Changed };
    assert_eq!(fault.omitted, ["a", "b/a", "c"].map(changed));
}

/// What it says of a tree beside its list.
fn omitted(tree: &OpenedFile) -> Vec<String> {
    tree.omitted.iter().map(|Omitted { path, why }| format!("{path}: {why}")).collect()
}

/// Runs something in a thread whom permissions bind, also where the others are root's.
fn bound_by_permissions<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let begin = || {
        if rustix::process::geteuid().is_root() {
            let caps = rustix::thread::capabilities(None).expect("ours");
            let (override_all, read_all) = (CapabilitySet::DAC_OVERRIDE, CapabilitySet::DAC_READ_SEARCH);
            let effective = caps.effective - override_all - read_all;
            rustix::thread::set_capabilities(None, CapabilitySets { effective, ..caps }).expect("less is allowed");
        }
        run()
    };
    std::thread::scope(|threads| threads.spawn(begin).join().expect("no panic"))
}

#[test]
fn what_cannot_be_read_is_named_and_all_else_listed() {
    let (from, to) = (Ground::new(false), Ground::new(true));
    for path in ["a", "closed/b", "dumb/.gitignore", "dumb/c", "secret", "shown/d", "z"] {
        from.put(path, b"file");
    }
    let modes = [("closed", 0o000), ("dumb/.gitignore", 0o000), ("secret", 0o000), ("shown", 0o444)];
    modes
        .iter()
        .for_each(|(path, mode)| fs::set_permissions(from.at(path), Permissions::from_mode(*mode)).expect("ours"));
    let denied = "cannot be read: Permission denied (os error 13)";
    let tree = bound_by_permissions(|| from.describe());
    let closed = ["closed", "dumb/.gitignore", "secret", "shown"];
    assert_eq!(omitted(&tree), closed.map(|path| format!("{path}: {denied}")));
    // One may be closed after it was listed.
    fs::set_permissions(from.at("z"), Permissions::from_mode(0o000)).expect("ours");
    let ask = Ask::Read { file: tree.file.clone(), ranges: vec![(Offset::ZERO, tree.chunks.len())] };
    let fault = bound_by_permissions(|| from.storage.answer(ask)).expect_err("one is closed");
    assert_eq!((fault.kind, fault.message.as_str()), (FaultKind::Denied, "t/z: Permission denied (os error 13)"));
    let why = Why::Unreadable("Permission denied (os error 13)".into());
    assert_eq!(fault.omitted, [Omitted { path: RelPath::new(*b"z").expect("valid"), why }]);
    // A directory whose ignore file cannot be read may hide anything.
    let filter = Filter::default().ignore_files(true);
    let tree = bound_by_permissions(|| from.describe_as(&filter.into()));
    let ignoring = "cannot be read: t/dumb/.gitignore: Permission denied (os error 13)";
    assert!(omitted(&tree).contains(&format!("dumb: {ignoring}")), "{:?}", omitted(&tree));
    assert!(tree_list(&tree.file).expect("ours").entries().all(|entry| entry.path.as_bytes() != b"dumb/c"));
    // What a receiver cannot list it cannot make equal.
    if rustix::process::geteuid().is_root() {
        let (_, done) = bring(&from, &to, ALL, 1 << 20);
        done.expect("it may");
        let place = place();
        let destination = Destination { place, name: deltasync_core::Name::any(), directory: false };
        let (cutting, algorithm) = (Cutting::Tree(Scope::default()), Algorithm::Blake3);
        let ask = Ask::Basis { destination, cutting, algorithm, wanted: None };
        let fault = bound_by_permissions(|| to.storage.answer(ask)).expect_err("it has closed ones too");
        assert_eq!((fault.kind, fault.message), (FaultKind::Denied, format!("t/closed: {denied}")));
    }
}
