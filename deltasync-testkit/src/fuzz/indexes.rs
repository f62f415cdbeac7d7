//! A served directory whose index, or the mark beside it, is damaged: the server starts, serves, and knows nothing wrong.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use deltasync_core::{Algorithm, ByteLen, Digest, Generation, Limits, Name, Offset, Op, Ops, Planner, RelPath};
use deltasync_io::{BlockingStorage, LocalOptions, LocalStorage};
use deltasync_proto::{
    Answer, Ask, Cutting, Destination, FileHandle, Kept, Known, OpenedFile, Place, Replaces, RootId, StorageFault,
};

use super::take::Take;
use crate::{Seed, SimDisk};

/// A directory that was served for a while.
struct Served {
    /// As a server leaves it, and as one that crashes does.
    ended: SimDisk,
    crashed: SimDisk,
    /// The versions of each path, the newest last.
    versions: BTreeMap<&'static str, Vec<Version>>,
}

/// A content, and the commit that published it.
struct Version {
    bytes: Vec<u8>,
    generation: Generation,
}

const INDEX: &str = ".deltasync/index";
const MARK: &str = ".deltasync/generation";

/// The most bytes that a damaged index may be longer than a good one.
const LONGER: usize = 1 << 16;

/// What is done to an index in one step; a place in it is three bytes.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// Flips bits of a byte.
    Flip,
    /// The same, of a byte in the header of the file.
    FlipHeader,
    /// Cuts it.
    Cut,
    /// Zeros a page of it.
    Zero,
    /// Copies a page of it to another, as a write that went astray.
    Stray,
    /// Writes bytes into it, or appends them.
    Write,
}

impl Harm {
    const ALL: [Self; 6] = [Self::Flip, Self::FlipHeader, Self::Cut, Self::Zero, Self::Stray, Self::Write];
    const PAGE: usize = 4096;

    fn of(byte: u8) -> Self {
        Self::ALL[usize::from(byte) % Self::ALL.len()]
    }

    fn apply(self, index: &mut Vec<u8>, take: &mut Take<'_>) {
        let at = place(take).min(index.len());
        match self {
            Self::Flip | Self::FlipHeader => {
                let (at, bits) = (if matches!(self, Self::Flip) { at } else { at % 320 }, take.byte());
                index.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= bits);
            }
            Self::Cut => index.truncate(at),
            Self::Zero => {
                let start = at - at % Self::PAGE;
                index.iter_mut().skip(start).take(Self::PAGE).for_each(|byte| *byte = 0);
            }
            Self::Stray => {
                let to = place(take).min(index.len());
                let (from, to) = (at - at % Self::PAGE, to - to % Self::PAGE);
                let page: Vec<u8> = index.iter().skip(from).take(Self::PAGE).copied().collect();
                index.iter_mut().skip(to).zip(page).for_each(|(byte, other)| *byte = other);
            }
            Self::Write => {
                let len = take.short();
                let bytes = take.bytes(len);
                let overlap = bytes.len().min(index.len() - at);
                index[at..at + overlap].copy_from_slice(&bytes[..overlap]);
                index.extend_from_slice(&bytes[overlap..]);
            }
        }
    }
}

fn place(take: &mut Take<'_>) -> usize {
    take.short() | usize::from(take.byte()) << 16
}

/// How the server ended and what became of the mark, in a byte; then what is done to the index.
pub(super) fn index(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let served = served();
    let how = take.byte();
    let disk = if how & 1 == 0 { served.ended.copy() } else { served.crashed.copy() };
    let mark_is_kept = match how >> 1 & 3 {
        0 | 1 => true,
        2 => {
            disk.rename(MARK, "gone");
            false
        }
        _ => {
            let mut mark = disk.get(MARK).expect("a server leaves it");
            let (at, bits) = (usize::from(take.byte()) % mark.len(), take.byte());
            mark[at] ^= bits;
            disk.put(MARK, &mark);
            bits == 0
        }
    };
    let good = disk.get(INDEX).expect("a server leaves it");
    let index_is_kept = if how & 8 == 0 {
        let mut index = good.clone();
        // As many as may come to anything; the rest is not looked at.
        for _ in 0..64 {
            if take.is_empty() || index.len() > good.len() + LONGER {
                break;
            }
            Harm::of(take.byte()).apply(&mut index, &mut take);
        }
        disk.put(INDEX, &index);
        index == good
    } else {
        disk.rename(INDEX, "gone too");
        false
    };
    check(&served.versions, &disk, mark_is_kept || index_is_kept);
}

/// `counted` when the count of commits is still known.
fn check(versions: &BTreeMap<&str, Vec<Version>>, disk: &SimDisk, counted: bool) {
    let generations = || versions.values().flatten().map(|version| version.generation);
    let last = generations().max().expect("something was published");
    // What the last commit that replaced something was.
    let replaced = versions.values().filter(|versions| versions.len() > 1).filter_map(|versions| versions.last());
    let replaced = replaced.map(|version| version.generation).max().expect("something was replaced");
    let mut given = if counted { last } else { replaced };
    for life in 0..2 {
        let storage = serve(disk);
        let (recovery, again) = (storage.recovery(), life > 0);
        assert!(!(again && recovery.index_rebuilt.is_some()), "it was put right before: {recovery:?}");
        assert_eq!(recovery.index_unavailable, None);
        for (at, versions) in versions {
            let newest = versions.last().expect("it was published");
            let file = describe(&storage, at);
            assert!(content(&storage, &file.file, newest.bytes.len()) == newest.bytes, "{at}");
            let known = [Generation::ZERO, newest.generation].contains(&file.generation);
            assert!(known, "{at}: {} for {}", file.generation, newest.generation);
            for version in versions {
                let root = Algorithm::Blake3.digest(&version.bytes);
                if let Some((generation, file)) = recall(&storage, at, root) {
                    assert!(content(&storage, &file, version.bytes.len()) == version.bytes, "{at}");
                    let known = [Generation::ZERO, version.generation].contains(&generation);
                    assert!(known, "{at}: {generation} for {}", version.generation);
                }
                if let Some(twin) = twin(&storage, &version.bytes, root) {
                    assert!(content(&storage, &twin, version.bytes.len()) == version.bytes, "{at}");
                }
            }
        }
        for at in ["written", "written"] {
            let bytes = given.get().to_le_bytes();
            let generation = publish(&storage, at, &bytes).expect("it is served");
            assert!(generation > given, "{generation} was given before, the last one was {given}");
            assert_eq!(describe(&storage, at).generation, generation);
            given = generation;
        }
    }
    let damaged = disk.tree().into_keys().filter(|path| path.starts_with(".deltasync/index.damaged-")).count();
    assert!(damaged <= 1);
}

/// The directory that all runs start from.
fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| {
        let disk = SimDisk::new();
        let mut versions = BTreeMap::<_, Vec<_>>::new();
        let storage = serve(&disk);
        let paths =
            ["a", "a/b", "long/way/down/file", "twin", "z"].map(|path| if path == "a/b" { "b/c" } else { path });
        for round in 0..4u8 {
            for (n, at) in (0u8..).zip(paths) {
                // Some are published more often than others, and one content lies at two paths.
                if round <= n {
                    let bytes = vec![if at == "twin" { n + 1 } else { n } ^ round << 4; 50 + usize::from(round)];
                    let generation = publish(&storage, at, &bytes).expect("it is served");
                    versions.entry(at).or_default().push(Version { bytes, generation });
                }
            }
            if round == 2 {
                storage.flush();
            }
        }
        let crashed = disk.copy();
        drop(storage);
        Served { ended: disk, crashed, versions }
    })
}

fn serve(disk: &SimDisk) -> LocalStorage {
    LocalStorage::serve_on(disk.root(), LocalOptions::default()).expect("it can be served whatever is damaged")
}

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("a valid path")
}

fn place_of(text: &str) -> Place {
    Place { root: RootId::new(0), path: path(text) }
}

fn basis(
    storage: &LocalStorage,
    at: &str,
    wanted: Option<(Digest, ByteLen)>,
) -> (Option<OpenedFile>, Option<FileHandle>) {
    let name = Name::new("source").expect("a valid name");
    let destination = Destination { place: place_of(at), name, directory: false };
    let ask = Ask::Basis { destination, cutting: Cutting::ByContent, algorithm: Algorithm::Blake3, wanted };
    match storage.answer(ask) {
        Ok(Answer::Basis { file, twin, .. }) => (file, twin),
        other => panic!("{at}: {other:?}"),
    }
}

fn describe(storage: &LocalStorage, at: &str) -> OpenedFile {
    basis(storage, at, None).0.expect("it is there")
}

fn twin(storage: &LocalStorage, bytes: &[u8], root: Digest) -> Option<FileHandle> {
    basis(storage, "elsewhere", Some((root, ByteLen::of(bytes)))).1
}

fn recall(storage: &LocalStorage, at: &str, root: Digest) -> Option<(Generation, FileHandle)> {
    match storage.answer(Ask::Recall { key: Known { path: path(at), name: None }, root: Some(root) }) {
        Ok(Answer::Recalled(found)) => found.map(|found| match found.kept {
            Kept::Copy(file) => (found.generation, file),
            Kept::Sums { .. } => panic!("a server keeps no sums"),
        }),
        other => panic!("{at}: {other:?}"),
    }
}

fn content(storage: &LocalStorage, file: &FileHandle, len: usize) -> Bytes {
    let ranges = vec![(Offset::new(0), ByteLen::new(len as u64))];
    match storage.answer(Ask::Read { file: file.clone(), ranges }) {
        Ok(Answer::Read(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

/// Publishes over what is there, as a session does.
fn publish(storage: &LocalStorage, at: &str, bytes: &[u8]) -> Result<Generation, StorageFault> {
    let (place, len) = (place_of(at), ByteLen::of(bytes));
    let seen = basis(storage, at, None).0.map_or(Replaces::Nothing, |file| Replaces::File(file.file));
    let root = Algorithm::Blake3.digest(bytes);
    let staged = storage.answer(Ask::Stage { place, len, algorithm: Algorithm::Blake3, root })?;
    let Answer::Staged(stage) = staged else { panic!("{staged:?}") };
    let mut planner = Planner::new(ByteLen::ZERO, len, &Limits::default()).expect("within the limits");
    let plan = planner.plan(&Ops::from_iter([Op::Literal { len }]), len).expect("it fits");
    let literals = Bytes::copy_from_slice(bytes);
    storage.answer(Ask::Apply { stage: stage.clone(), basis: None, plan, literals })?;
    match storage.answer(Ask::Commit { stage, replaces: seen })? {
        Answer::Committed(generation) => Ok(generation),
        other => panic!("{other:?}"),
    }
}

pub(super) fn index_seeds() -> Vec<Seed> {
    let harm = |how: u8, harm: Harm, rest: &[u8]| {
        let code = Harm::ALL.iter().position(|other| *other as u8 == harm as u8).expect("it is one of them") as u8;
        [&[how, code], rest].concat()
    };
    vec![
        Seed::new("ended", [0]),
        Seed::new("crashed", [1]),
        Seed::new("no-mark", [4]),
        Seed::new("no-mark-after-a-crash", [5]),
        Seed::new("other-mark", [6, 9, 1]),
        Seed::new("no-index", [8]),
        Seed::new("neither", [12]),
        Seed::new("empty", harm(0, Harm::Cut, &[0, 0, 0])),
        Seed::new("cut", harm(1, Harm::Cut, &[0, 0x20, 0])),
        Seed::new("magic", harm(0, Harm::FlipHeader, &[0, 0, 0, 1])),
        Seed::new("other-slot", harm(0, Harm::FlipHeader, &[9, 0, 0, 1])),
        Seed::new("page-size", harm(0, Harm::FlipHeader, &[14, 0, 0, 0xff])),
        Seed::new("region-len", harm(1, Harm::FlipHeader, &[22, 0, 0, 0xff])),
        Seed::new("root-page", harm(0, Harm::FlipHeader, &[72, 0, 0, 2])),
        Seed::new("first-page", harm(0, Harm::Zero, &[0, 0x10, 0])),
        Seed::new("stray", harm(0, Harm::Stray, &[0, 0x20, 0, 0, 0x30, 0])),
        Seed::new("text", harm(4, Harm::Write, b"\0\0\0\x10\0not an index at all")),
    ]
}
