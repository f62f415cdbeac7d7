//! What holds of every storage, each law a function that the tests of the back ends call.

use bytes::Bytes;
use deltasync_core::{
    Algorithm, ByteLen, ChunkList, Cutter, Digest, Generation, Limits, Name, Offset, Op, Ops, Plan, Planner, RelPath,
};
use deltasync_proto::{
    Answer, Ask, Cutting, Destination, Entry, EntryKind, FaultKind, FileHandle, OpenedFile, Place, Replaces, RootId,
    StageHandle, StorageFault,
};

use crate::BlockingStorage;

#[path = "laws/altering.rs"]
pub(crate) mod altering;
#[path = "laws/recalls.rs"]
pub(crate) mod recalls;
#[path = "laws/swaps.rs"]
pub(crate) mod swaps;

/// A storage and ways around it to put files there and to look at them.
pub(crate) trait Fixture {
    fn storage(&self) -> &dyn BlockingStorage;
    /// Writes a file in place, as another program would.
    fn put(&self, path: &str, bytes: &[u8]);
    fn get(&self, path: &str) -> Option<Vec<u8>>;
    fn make_directory(&self, path: &str);
    /// The names a listing of the root would show if nothing were hidden, to see what stages leave.
    fn leftovers(&self) -> Vec<String>;
    /// The generation of the `n`-th commit.
    fn generation(&self, n: u64) -> Generation;
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("a test names valid paths")
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a test uses valid names")
}

pub(crate) fn place(text: &str) -> Place {
    Place { root: RootId::new(0), path: path(text) }
}

pub(crate) fn describe(storage: &dyn BlockingStorage, at: &str) -> Result<OpenedFile, StorageFault> {
    let ask =
        Ask::Describe { place: place(at), cutting: Cutting::ByContent, algorithm: Algorithm::Blake3, remember: None };
    match storage.answer(ask)? {
        Answer::Described(file) => Ok(file),
        other => panic!("asked to describe, got {other:?}"),
    }
}

pub(crate) fn basis(
    storage: &dyn BlockingStorage,
    at: &str,
    directory: bool,
) -> Result<(Place, Option<OpenedFile>), StorageFault> {
    let destination = Destination { place: place(at), name: name("source"), directory };
    let ask = Ask::Basis { destination, cutting: Cutting::ByContent, algorithm: Algorithm::Blake3, wanted: None };
    match storage.answer(ask)? {
        Answer::Basis { place, file, .. } => Ok((place, file)),
        other => panic!("asked for a basis, got {other:?}"),
    }
}

pub(crate) fn read(
    storage: &dyn BlockingStorage,
    file: &FileHandle,
    ranges: &[(u64, u64)],
) -> Result<Bytes, StorageFault> {
    let ranges = ranges.iter().map(|(start, len)| (Offset::new(*start), ByteLen::new(*len))).collect();
    match storage.answer(Ask::Read { file: file.clone(), ranges })? {
        Answer::Read(bytes) => Ok(bytes),
        other => panic!("asked to read, got {other:?}"),
    }
}

pub(crate) fn is_unchanged(storage: &dyn BlockingStorage, file: &FileHandle) -> bool {
    match storage.answer(Ask::Recheck { file: file.clone() }) {
        Ok(Answer::Rechecked { unchanged }) => unchanged,
        other => panic!("asked to recheck, got {other:?}"),
    }
}

pub(crate) fn stage(storage: &dyn BlockingStorage, at: &str, len: u64) -> Result<StageHandle, StorageFault> {
    let ask =
        Ask::Stage { place: place(at), len: ByteLen::new(len), algorithm: Algorithm::Blake3, root: Digest::default() };
    match storage.answer(ask)? {
        Answer::Staged(stage) => Ok(stage),
        other => panic!("asked to stage, got {other:?}"),
    }
}

pub(crate) fn apply(
    storage: &dyn BlockingStorage,
    stage: &StageHandle,
    basis: Option<&FileHandle>,
    plan: Plan,
    literals: &[u8],
) -> Result<(), StorageFault> {
    let literals = Bytes::copy_from_slice(literals);
    match storage.answer(Ask::Apply { stage: stage.clone(), basis: basis.cloned(), plan, literals })? {
        Answer::Applied => Ok(()),
        other => panic!("asked to apply, got {other:?}"),
    }
}

pub(crate) fn append(storage: &dyn BlockingStorage, stage: &StageHandle, bytes: &[u8]) -> Result<(), StorageFault> {
    let plan = plan(0, &[Op::Literal { len: ByteLen::of(bytes) }]);
    apply(storage, stage, None, plan, bytes)
}

pub(crate) fn seal(storage: &dyn BlockingStorage, stage: &StageHandle) -> Result<[u8; 32], StorageFault> {
    match storage.answer(Ask::Seal { stage: stage.clone() })? {
        Answer::Sealed { root, .. } => Ok(*root.as_bytes()),
        other => panic!("asked to seal, got {other:?}"),
    }
}

/// Commits where nothing is.
pub(crate) fn commit(storage: &dyn BlockingStorage, stage: &StageHandle) -> Result<Generation, StorageFault> {
    commit_over(storage, stage, Replaces::Nothing)
}

pub(crate) fn commit_over(
    storage: &dyn BlockingStorage,
    stage: &StageHandle,
    replaces: Replaces,
) -> Result<Generation, StorageFault> {
    match storage.answer(Ask::Commit { stage: stage.clone(), replaces })? {
        Answer::Committed(generation) => Ok(generation),
        other => panic!("asked to commit, got {other:?}"),
    }
}

/// What a commit at this place replaces now.
pub(crate) fn there(storage: &dyn BlockingStorage, at: &str) -> Replaces {
    describe(storage, at).map_or(Replaces::Nothing, |file| Replaces::File(file.file))
}

/// Stages and commits a whole file.
pub(crate) fn publish(storage: &dyn BlockingStorage, at: &str, bytes: &[u8]) -> Result<Generation, StorageFault> {
    let staged = stage(storage, at, bytes.len() as u64)?;
    append(storage, &staged, bytes)?;
    commit_over(storage, &staged, there(storage, at))
}

pub(crate) fn list(
    storage: &dyn BlockingStorage,
    at: &str,
    after: Option<&str>,
    most: usize,
) -> Result<(Vec<Entry>, bool), StorageFault> {
    match storage.answer(Ask::List { place: place(at), after: after.map(name), most })? {
        Answer::Listed { entries, more } => Ok((entries, more)),
        other => panic!("asked to list, got {other:?}"),
    }
}

/// The plan of these operations over a basis of `basis` bytes.
pub(crate) fn plan(basis: u64, ops: &[Op]) -> Plan {
    let ops: Ops = ops.iter().copied().collect();
    let target = ops.copied_len() + ops.literal_len();
    let mut planner = Planner::new(ByteLen::new(basis), target, &Limits::default()).expect("within the limits");
    planner.plan(&ops, ops.literal_len()).expect("a test plans what fits")
}

/// Bytes that look random and are the same each time.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[track_caller]
pub(crate) fn assert_fault<T: std::fmt::Debug>(result: Result<T, StorageFault>, kind: FaultKind, names: &str) {
    let fault = result.expect_err("it has to be refused");
    assert_eq!(fault.kind, kind, "{fault}");
    assert!(fault.message.starts_with(names), "{fault}");
}

pub(crate) fn a_description_has_the_chunks_of_the_bytes(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    const EDGE: usize = 256 << 10;
    for len in [0, 1, 1023, EDGE - 1, EDGE, EDGE + 1, 3 * EDGE + 7] {
        let bytes = noise(len, 7);
        fixture.put("file", &bytes);
        let file = describe(storage, "file").expect("it is there");
        let cutter = Cutter::for_len(ByteLen::of(&bytes));
        assert_eq!(*file.chunks, ChunkList::of(&bytes, cutter, Algorithm::Blake3), "{len} bytes");

        fixture.put("again", &bytes);
        let cutting = Cutting::Exactly(Cutter::FIXED_4096);
        let asked = storage.answer(Ask::Describe {
            place: place("again"),
            cutting,
            algorithm: Algorithm::Sha256,
            remember: None,
        });
        let Ok(Answer::Described(file)) = asked else { panic!("{asked:?}") };
        assert_eq!(*file.chunks, ChunkList::of(&bytes, Cutter::FIXED_4096, Algorithm::Sha256), "{len} bytes");
    }
}

pub(crate) fn what_cannot_be_described_is_named(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    fixture.put("a/file", b"content");
    assert_fault(describe(storage, "none"), FaultKind::NotFound, "none: ");
    assert_fault(describe(storage, "a/none"), FaultKind::NotFound, "a/none: ");
    assert_fault(describe(storage, "none/none"), FaultKind::NotFound, "none/none: ");
    assert_fault(describe(storage, "a"), FaultKind::WrongKind, "a: ");
    assert_fault(describe(storage, ""), FaultKind::WrongKind, "/: ");
    assert_fault(describe(storage, "a/file/below"), FaultKind::WrongKind, "a/file/below: ");
    let other = Place { root: RootId::new(9), path: path("a/file") };
    let ask = Ask::Describe { place: other, cutting: Cutting::ByContent, algorithm: Algorithm::Blake3, remember: None };
    assert!(storage.answer(ask).is_err_and(|fault| fault.kind == FaultKind::NotFound));
}

/// The fixture allows files of 1 MiB.
pub(crate) fn a_file_over_the_limit_is_refused(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    fixture.put("fits", &[1; 1 << 20]);
    fixture.put("long", &[1; (1 << 20) + 1]);
    assert_eq!(describe(storage, "fits").expect("at the limit").chunks.len().get(), 1 << 20);
    assert_fault(describe(storage, "long"), FaultKind::TooLarge, "long: ");
    assert_fault(basis(storage, "long", false), FaultKind::TooLarge, "long: ");
    assert_fault(stage(storage, "new", (1 << 20) + 1), FaultKind::TooLarge, "new: ");
    assert_fault(stage(storage, "new", u64::MAX), FaultKind::TooLarge, "new: ");
}

pub(crate) fn a_basis_resolves_its_destination(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    fixture.put("file", b"old");
    fixture.put("dir/source", b"older");
    fixture.make_directory("empty");
    let resolved = |at: &str, directory| {
        let (place, file) = basis(storage, at, directory).expect("it can go there");
        (place.path.to_string(), file.map(|file| file.chunks.len().get()))
    };
    assert_eq!(resolved("file", false), ("file".into(), Some(3)));
    assert_eq!(resolved("new", false), ("new".into(), None));
    assert_eq!(resolved("new", true), ("new/source".into(), None));
    assert_eq!(resolved("deep/new", false), ("deep/new".into(), None));
    for directory in [false, true] {
        assert_eq!(resolved("dir", directory), ("dir/source".into(), Some(5)));
        assert_eq!(resolved("empty", directory), ("empty/source".into(), None));
        assert_eq!(resolved("", directory), ("source".into(), None));
    }
    assert_fault(basis(storage, "file", true), FaultKind::WrongKind, "file: ");
    assert_fault(basis(storage, "file/below", false), FaultKind::WrongKind, "file/below: ");
    fixture.make_directory("empty/source");
    assert_fault(basis(storage, "empty", false), FaultKind::WrongKind, "empty/source: ");
}

pub(crate) fn ranges_are_read_into_one_piece(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let bytes = noise(300_000, 3);
    fixture.put("file", &bytes);
    let file = describe(storage, "file").expect("it is there").file;
    assert_eq!(read(storage, &file, &[(0, 300_000)]).expect("all"), bytes);
    assert_eq!(read(storage, &file, &[]).expect("nothing"), b""[..]);
    let parts = read(storage, &file, &[(299_999, 1), (5, 0), (10, 3), (0, 2)]).expect("parts");
    assert_eq!(parts, [&bytes[299_999..], &bytes[10..13], &bytes[..2]].concat());
    for past in [(0, 300_001), (300_000, 1), (1, u64::MAX), (u64::MAX, 1)] {
        assert_fault(read(storage, &file, &[(0, 1), past]), FaultKind::Changed, "file: ");
    }
}

pub(crate) fn a_recheck_sees_a_change(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    fixture.put("file", b"content");
    let file = describe(storage, "file").expect("it is there").file;
    assert!(is_unchanged(storage, &file));
    // The clock that stamps files ticks every few milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(30));
    fixture.put("file", b"CONTENT");
    assert!(!is_unchanged(storage, &file));
    let file = describe(storage, "file").expect("it is there").file;
    publish(storage, "file", b"another").expect("published");
    assert!(!is_unchanged(storage, &file));
    assert_eq!(read(storage, &file, &[(0, 7)]).expect("an opened file stays"), b"CONTENT"[..]);
}

pub(crate) fn a_plan_makes_the_target_and_only_a_commit_shows_it(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let old = noise(1 << 20, 1);
    fixture.put("file", &old);
    let (at, file) = basis(storage, "file", false).expect("it is there");
    assert_eq!(at, place("file"));
    let file = file.expect("it is there").file;

    // Small steps, steps that fill the buffer to the byte, and steps far longer than it.
    let mut target = Vec::new();
    let pieces: [&[(bool, usize)]; 4] = [
        &[(true, 1), (false, 1), (true, 5), (false, 4096)],
        &[(false, (256 << 10) - 4103), (true, 256 << 10), (false, 1)],
        &[(true, 700_000), (false, 300_000), (true, 3)],
        &[],
    ];
    let made: usize = pieces.iter().flat_map(|piece| piece.iter()).map(|(_, len)| len).sum();
    let staged = stage(storage, "file", made as u64).expect("there is room");
    for (seed, piece) in (10u64..).zip(pieces) {
        let literal_len: usize = piece.iter().filter(|(copy, _)| !copy).map(|(_, len)| len).sum();
        let literals = noise(literal_len, seed);
        let (mut ops, mut used) = (Vec::new(), 0);
        for &(copy, len) in piece {
            let from = old.len() - len - 100;
            if copy {
                ops.push(Op::Copy { from: Offset::new(from as u64), len: ByteLen::new(len as u64) });
                target.extend_from_slice(&old[from..from + len]);
            } else {
                ops.push(Op::Literal { len: ByteLen::new(len as u64) });
                target.extend_from_slice(&literals[used..used + len]);
                used += len;
            }
        }
        apply(storage, &staged, Some(&file), plan(1 << 20, &ops), &literals).expect("applied");
        assert_eq!(seal(storage, &staged).expect("sealed"), *Algorithm::Blake3.digest(&target).as_bytes());
    }
    assert!(fixture.get("file").expect("there") == old, "the old file stays until the commit");
    let replaces = Replaces::File(file.clone());
    assert_eq!(commit_over(storage, &staged, replaces).expect("published"), fixture.generation(1));
    assert!(fixture.get("file").expect("there") == target);
    // What was opened before stays what it was.
    assert!(read(storage, &file, &[(0, 1 << 20)]).expect("pinned") == old);
    drop(staged);
    assert!(fixture.get("file").expect("there") == target);
    assert_eq!(fixture.leftovers(), ["file"]);
}

pub(crate) fn a_stage_that_is_dropped_leaves_nothing(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    fixture.put("file", b"old");
    for at in ["file", "new", "deep/down/new"] {
        let staged = stage(storage, at, 5).expect("there is room");
        append(storage, &staged, b"new").expect("applied");
        let (shown, _) = list(storage, "", None, 10).expect("the root");
        assert!(shown.iter().all(|entry| ["file", "deep"].contains(&entry.name.to_string().as_str())), "{shown:?}");
        drop(staged);
    }
    assert_eq!(fixture.get("file").as_deref(), Some(&b"old"[..]));
    assert_eq!(fixture.leftovers(), ["file"]);
}

pub(crate) fn a_stage_publishes_only_what_was_announced_and_once(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let staged = stage(storage, "new", 3).expect("there is room");
    append(storage, &staged, b"ne").expect("applied");
    assert_fault(commit(storage, &staged), FaultKind::Other, "new: ");
    assert_fault(append(storage, &staged, b"west"), FaultKind::Other, "new: ");
    append(storage, &staged, b"w").expect("applied");
    commit(storage, &staged).expect("whole now");
    assert_fault(commit(storage, &staged), FaultKind::Other, "new: ");
    assert_fault(append(storage, &staged, b""), FaultKind::Other, "new: ");
    assert!(seal(storage, &staged).is_err());
    assert_eq!(fixture.get("new").as_deref(), Some(&b"new"[..]));
}

pub(crate) fn missing_directories_are_made(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let (at, _) = basis(storage, "a/b", true).expect("it can go there");
    assert_eq!(at, place("a/b/source"));
    publish(storage, "a/b/source", b"one").expect("published");
    publish(storage, "a/b/c/d", b"").expect("an empty file too");
    assert_eq!(fixture.get("a/b/source").as_deref(), Some(&b"one"[..]));
    assert_eq!(fixture.get("a/b/c/d").as_deref(), Some(&b""[..]));
}

pub(crate) fn what_cannot_be_a_target_is_named(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    fixture.put("a/file", b"content");
    for at in ["a", "a/file/below"] {
        assert_fault(stage(storage, at, 1), FaultKind::WrongKind, &format!("{at}: "));
    }
    assert_fault(stage(storage, "", 1), FaultKind::WrongKind, "/: ");
    // It becomes a directory while we are staging.
    let staged = stage(storage, "b", 1).expect("there is room");
    append(storage, &staged, b"x").expect("applied");
    fixture.put("b/file", b"content");
    assert_fault(commit(storage, &staged), FaultKind::WrongKind, "b: ");
    drop(staged);
    assert_eq!(fixture.get("b/file").as_deref(), Some(&b"content"[..]));
    assert_eq!(fixture.leftovers(), ["a", "b"]);
}

pub(crate) fn a_listing_comes_in_order_and_in_pages(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    for text in ["b", "a", "a.x", "a-b", "dir/inside", "z"] {
        fixture.put(text, text.as_bytes());
    }
    fixture.make_directory("empty");
    let all = ["a", "a-b", "a.x", "b", "dir", "empty", "z"];
    let names = |entries: &[Entry]| entries.iter().map(|entry| entry.name.to_string()).collect::<Vec<_>>();
    let (entries, more) = list(storage, "", None, 100).expect("the root");
    assert_eq!(names(&entries), all);
    assert!(!more);
    assert_eq!((entries[2].kind, entries[2].len), (EntryKind::File, ByteLen::new(3)));
    assert_eq!((entries[4].kind, entries[4].len), (EntryKind::Directory, ByteLen::ZERO));
    for most in 1..=8 {
        let (mut got, mut after) = (Vec::new(), None);
        loop {
            let (page, more) = list(storage, "", after.as_deref(), most).expect("the root");
            assert!(page.len() == most || !more);
            got.extend(names(&page));
            after = got.last().cloned();
            if !more {
                break;
            }
        }
        assert_eq!(got, all, "pages of {most}");
    }
    let (entries, more) = list(storage, "dir/inside", None, 10).expect("a file lists itself");
    assert_eq!((names(&entries), more), (vec!["inside".into()], false));
    assert_eq!(list(storage, "empty", None, 10), Ok((Vec::new(), false)));
    assert_eq!(list(storage, "", Some("zz"), 10), Ok((Vec::new(), false)));
    assert_fault(list(storage, "none", None, 10), FaultKind::NotFound, "none: ");
}

/// Calls every law as a test of its own; `$fixture` takes the limits.
macro_rules! laws {
    ($fixture:expr) => {
        crate::laws::laws! { $fixture;
            a_description_has_the_chunks_of_the_bytes
            what_cannot_be_described_is_named
            a_basis_resolves_its_destination
            ranges_are_read_into_one_piece
            a_recheck_sees_a_change
            a_plan_makes_the_target_and_only_a_commit_shows_it
            a_stage_that_is_dropped_leaves_nothing
            a_stage_publishes_only_what_was_announced_and_once
            missing_directories_are_made
            what_cannot_be_a_target_is_named
            a_listing_comes_in_order_and_in_pages
        }

        #[test]
        fn a_file_over_the_limit_is_refused() {
            let limits = deltasync_core::Limits::default().file(deltasync_core::ByteLen::new(1 << 20));
            crate::laws::a_file_over_the_limit_is_refused(&$fixture(limits));
        }
    };
    ($fixture:expr; $($law:ident)*) => {
        $(
            #[test]
            fn $law() {
                crate::laws::$law(&$fixture(deltasync_core::Limits::default()));
            }
        )*
    };
}
pub(crate) use laws;
