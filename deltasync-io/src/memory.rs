//! Files in a map: for tests, examples and embedders whose files are no files.
//!
//! It answers as the local back end does: a directory is there when it was made or when something lies in it, a stage is
//! visible only once it is committed, and a commit replaces what was there in one step. Contents are [`Bytes`], so an
//! opened file costs nothing and stays as it was when its name is reused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use deltasync_core::{
    Algorithm, ByteLen, Chunker, Cutter, Generation, Hasher, Limits, Name, Offset, Plan, RelPath, Step,
};
use deltasync_proto::{
    Answer, Ask, Cutting, Destination, Entry, EntryKind, FaultKind, FileHandle, OpenedFile, Place, RootId, StageHandle,
    StorageFault,
};

use crate::BlockingStorage;
use crate::destination::resolve;
use crate::fault::fault;

/// A storage in memory. Wrap it in an `Arc` to keep a hand on it while [`Threads`](crate::Threads) run it.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    tree: Arc<Mutex<Tree>>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<(RootId, RelPath), File>,
    directories: BTreeSet<(RootId, RelPath)>,
    generation: Generation,
    /// Grows with every change of a file.
    version: u64,
}

#[derive(Clone, Debug)]
struct File {
    bytes: Bytes,
    version: u64,
}

/// What a [`FileHandle`] of ours holds.
struct Opened {
    place: Place,
    file: File,
}

/// What a [`StageHandle`] of ours holds.
struct Stage {
    place: Place,
    len: ByteLen,
    /// `None` once it is committed.
    made: Mutex<Option<Made>>,
}

struct Made {
    bytes: Vec<u8>,
    hasher: Hasher,
}

impl MemoryStorage {
    /// A storage without files, with the default limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// A storage without files; a file longer than `limits` allow is refused.
    pub fn with_limits(limits: Limits) -> Self {
        Self { tree: Arc::default(), limits }
    }

    /// Puts a file there, replacing one that is there. Below root 0 peers see it.
    pub fn insert(&self, root: RootId, path: RelPath, bytes: impl Into<Bytes>) {
        self.tree().put(root, path, bytes.into());
    }

    /// The content of a file.
    pub fn get(&self, root: RootId, path: &RelPath) -> Option<Bytes> {
        self.tree().file(root, path).map(|file| file.bytes.clone())
    }

    /// Makes a directory, which may stay empty.
    pub fn make_directory(&self, root: RootId, path: RelPath) {
        self.tree().directories.insert((root, path));
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        lock(&self.tree)
    }

    fn open(&self, place: Place, cutting: Cutting, algorithm: Algorithm) -> Result<OpenedFile, StorageFault> {
        let file = {
            let tree = self.tree();
            tree.check_kind(&place)?;
            tree.file(place.root, &place.path).cloned()
        };
        let file = file.ok_or_else(|| fault(FaultKind::NotFound, &place.path, "no such file"))?;
        let cutter = match cutting {
            Cutting::ByLength => Cutter::for_len(ByteLen::of(&file.bytes)),
            Cutting::Exactly(cutter) => cutter,
        };
        let mut chunker = Chunker::new(cutter, algorithm, &self.limits);
        let chunks = chunker.push(&file.bytes).and_then(|()| chunker.finish());
        let chunks = chunks.map_err(|error| fault(FaultKind::TooLarge, &place.path, error))?;
        Ok(OpenedFile { file: FileHandle::new(Opened { place, file }), chunks: Arc::new(chunks) })
    }

    fn basis(&self, destination: Destination, cutting: Cutting, algorithm: Algorithm) -> Result<Answer, StorageFault> {
        let Place { root, path } = &destination.place;
        let is = self.tree().kind(*root, path);
        let place = resolve(destination, is)?;
        match self.open(place.clone(), cutting, algorithm) {
            Ok(file) => Ok(Answer::Basis { place, file: Some(file) }),
            Err(absent) if absent.kind == FaultKind::NotFound => Ok(Answer::Basis { place, file: None }),
            Err(fault) => Err(fault),
        }
    }

    fn stage(&self, place: Place, len: ByteLen, algorithm: Algorithm) -> Result<Answer, StorageFault> {
        self.tree().check_kind(&place)?;
        if len > self.limits.file {
            return Err(fault(FaultKind::TooLarge, &place.path, format_args!("{len} bytes are over the limit")));
        }
        let made = Mutex::new(Some(Made { bytes: Vec::new(), hasher: algorithm.hasher() }));
        Ok(Answer::Staged(StageHandle::new(Stage { place, len, made })))
    }

    fn commit(&self, stage: &Stage) -> Result<Answer, StorageFault> {
        let Place { root, path } = &stage.place;
        let mut made = lock(&stage.made);
        let len = made.as_ref().map(|made| ByteLen::of(&made.bytes));
        if len != Some(stage.len) {
            return Err(fault(FaultKind::Other, path, "the stage is not whole"));
        }
        let mut tree = self.tree();
        tree.check_kind(&stage.place)?;
        let bytes = made.take().map(|made| made.bytes).unwrap_or_default();
        tree.put(*root, path.clone(), bytes.into());
        tree.generation = tree.generation.next();
        Ok(Answer::Committed(tree.generation))
    }
}

impl BlockingStorage for MemoryStorage {
    fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
        match ask {
            Ask::Describe { place, cutting, algorithm } => self.open(place, cutting, algorithm).map(Answer::Described),
            Ask::Basis { destination, cutting, algorithm } => self.basis(destination, cutting, algorithm),
            Ask::Read { file, ranges } => {
                let opened = opened(&file)?;
                let short = || fault(FaultKind::Changed, &opened.place.path, "the file became shorter");
                if let [(start, len)] = ranges[..] {
                    // One range needs no copy.
                    return part(&opened.file.bytes, start, len).map(Answer::Read).ok_or_else(short);
                }
                let mut bytes = Vec::new();
                for (start, len) in ranges {
                    bytes.extend_from_slice(&part(&opened.file.bytes, start, len).ok_or_else(short)?);
                }
                Ok(Answer::Read(bytes.into()))
            }
            Ask::Recheck { file } => {
                let Opened { place, file } = opened(&file)?;
                let now = self.tree().file(place.root, &place.path).map(|file| file.version);
                Ok(Answer::Rechecked { unchanged: now == Some(file.version) })
            }
            Ask::Stage { place, len, algorithm } => self.stage(place, len, algorithm),
            Ask::Apply { stage, basis, plan, literals } => {
                let basis = basis.as_ref().map(opened).transpose()?;
                staged(&stage)?.apply(basis, &plan, &literals)
            }
            Ask::Seal { stage } => {
                let stage = staged(&stage)?;
                match &*lock(&stage.made) {
                    Some(made) => Ok(Answer::Sealed(made.hasher.clone().finish())),
                    None => Err(stage.spent()),
                }
            }
            Ask::Commit { stage } => self.commit(staged(&stage)?),
            Ask::List { place, after, most } => self.tree().list(&place, after.as_ref(), most),
            _ => Err(StorageFault::new(FaultKind::Other, "memory does not know this request")),
        }
    }
}

impl Stage {
    fn apply(&self, basis: Option<&Opened>, plan: &Plan, literals: &[u8]) -> Result<Answer, StorageFault> {
        let mut made = lock(&self.made);
        let made = made.as_mut().ok_or_else(|| self.spent())?;
        let no_basis = Bytes::new();
        let basis = basis.map_or(&no_basis, |basis| &basis.file.bytes);
        for step in plan.steps() {
            let piece = match *step {
                Step::Literal { start, len } => literals.get(start..start.saturating_add(len)),
                Step::Copy { from, len } => range(basis, from, len),
            };
            let piece = piece.ok_or_else(|| fault(FaultKind::Changed, &self.place.path, "the basis became shorter"))?;
            if piece.len() as u64 > self.len.get() - made.bytes.len() as u64 {
                return Err(fault(FaultKind::Other, &self.place.path, "more than was announced"));
            }
            made.bytes.extend_from_slice(piece);
            made.hasher.update(piece);
        }
        Ok(Answer::Applied)
    }

    fn spent(&self) -> StorageFault {
        fault(FaultKind::Other, &self.place.path, "the stage was committed before")
    }
}

impl Tree {
    fn file(&self, root: RootId, path: &RelPath) -> Option<&File> {
        self.files.get(&(root, path.clone()))
    }

    fn put(&mut self, root: RootId, path: RelPath, bytes: Bytes) {
        self.version += 1;
        self.files.insert((root, path), File { bytes, version: self.version });
    }

    fn kind(&self, root: RootId, path: &RelPath) -> Option<EntryKind> {
        if self.file(root, path).is_some() {
            return Some(EntryKind::File);
        }
        let made = self.directories.contains(&(root, path.clone()));
        let is_directory = path.is_root() || made || self.below(root, path).next().is_some();
        is_directory.then_some(EntryKind::Directory)
    }

    /// What lies below a directory: its next component, and the file when it lies directly there.
    fn below<'a>(&'a self, root: RootId, path: &'a RelPath) -> impl Iterator<Item = (Name, Option<&'a File>)> + 'a {
        let depth = path.components().count();
        let next = move |at: RootId, other: &RelPath| -> Option<(Name, bool)> {
            let bytes = other.as_bytes().strip_prefix(path.as_bytes())?;
            if at != root || bytes.is_empty() || !path.is_root() && bytes[0] != b'/' {
                return None;
            }
            let mut rest = other.components().skip(depth);
            Some((rest.next()?, rest.next().is_none()))
        };
        let files = self.files.iter().filter_map(move |((at, other), file)| {
            let (name, last) = next(*at, other)?;
            Some((name, last.then_some(file)))
        });
        let directories = self.directories.iter().filter_map(move |(at, other)| Some((next(*at, other)?.0, None)));
        files.chain(directories)
    }

    /// A file can be at this place: it is no directory, and nothing on the way there is a file.
    fn check_kind(&self, place: &Place) -> Result<(), StorageFault> {
        if self.kind(place.root, &place.path) == Some(EntryKind::Directory) {
            return Err(fault(FaultKind::WrongKind, &place.path, "is a directory"));
        }
        let mut parent = place.path.split_last();
        while let Some((path, _)) = parent {
            if self.file(place.root, &path).is_some() {
                return Err(fault(FaultKind::WrongKind, &place.path, "a file is on the way there"));
            }
            parent = path.split_last();
        }
        Ok(())
    }

    fn list(&self, place: &Place, after: Option<&Name>, most: usize) -> Result<Answer, StorageFault> {
        let mut found = BTreeMap::new();
        match (self.file(place.root, &place.path), place.path.split_last()) {
            (Some(file), Some((_, name))) => drop(found.insert(name, Some(file))),
            _ if self.kind(place.root, &place.path).is_none() => {
                return Err(fault(FaultKind::NotFound, &place.path, "no such directory"));
            }
            _ => found.extend(self.below(place.root, &place.path)),
        }
        let mut entries = found.into_iter().filter(|(name, _)| after.is_none_or(|after| name > after));
        let page = entries.by_ref().take(most).map(|(name, file)| Entry {
            name,
            kind: if file.is_some() { EntryKind::File } else { EntryKind::Directory },
            len: file.map_or(ByteLen::ZERO, |file| ByteLen::of(&file.bytes)),
            // It keeps no clock, so that a run can be repeated to the byte.
            modified: 0,
        });
        Ok(Answer::Listed { entries: page.collect(), more: entries.next().is_some() })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever panicked, each change under these locks is a single step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn opened(file: &FileHandle) -> Result<&Opened, StorageFault> {
    file.downcast_ref().ok_or_else(|| StorageFault::new(FaultKind::Other, "a file of another storage"))
}

fn staged(stage: &StageHandle) -> Result<&Stage, StorageFault> {
    stage.downcast_ref().ok_or_else(|| StorageFault::new(FaultKind::Other, "a stage of another storage"))
}

fn bounds(start: Offset, len: ByteLen) -> Option<std::ops::Range<usize>> {
    let end = start.checked_add(len)?;
    Some(start.to_usize()?..end.to_usize()?)
}

fn range(bytes: &Bytes, start: Offset, len: ByteLen) -> Option<&[u8]> {
    bytes.get(bounds(start, len)?)
}

fn part(bytes: &Bytes, start: Offset, len: ByteLen) -> Option<Bytes> {
    let bounds = bounds(start, len)?;
    (bounds.end <= bytes.len()).then(|| bytes.slice(bounds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::{Fixture, laws, path};

    impl Fixture for MemoryStorage {
        fn storage(&self) -> &dyn BlockingStorage {
            self
        }

        fn put(&self, at: &str, bytes: &[u8]) {
            self.insert(RootId::new(0), path(at), bytes.to_vec());
        }

        fn get(&self, at: &str) -> Option<Vec<u8>> {
            Some(MemoryStorage::get(self, RootId::new(0), &path(at))?.to_vec())
        }

        fn make_directory(&self, at: &str) {
            MemoryStorage::make_directory(self, RootId::new(0), path(at));
        }

        fn leftovers(&self) -> Vec<String> {
            let tree = self.tree();
            let names: BTreeSet<_> = tree.below(RootId::new(0), &RelPath::ROOT).map(|(name, _)| name).collect();
            names.iter().map(Name::to_string).collect()
        }

        fn generation(&self, n: u64) -> Generation {
            Generation::new(n)
        }
    }

    laws! { MemoryStorage::with_limits }
}
