//! Files in a map: for tests, examples and embedders whose files are no files.
//!
//! It answers as the local back end does: a directory is there when it was made or when something lies in it, a stage is
//! visible only once it is committed, and a commit replaces what was there in one step. Contents are [`Bytes`], so an
//! opened file costs nothing and stays as it was when its name is reused; for the same reason the versions that were
//! remembered or replaced are kept whole, a few for each name, and described only when they are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use deltasync_core::{
    Algorithm, ByteLen, ChunkList, Chunker, Digest, FineKey, FineShape, FineSummer, Generation, Hasher, Limits, Name,
    Offset, Plan, RelPath, Step,
};
use deltasync_proto::{
    Answer, Ask, Cutting, Destination, Entry, EntryKind, FaultKind, FileHandle, Kept, Known, OpenedFile, Place,
    Remembered, Replaces, RootId, StageHandle, StorageFault,
};

use crate::destination::resolve;
use crate::fault::{exists, fault, into_itself, not_empty, not_the_root};
use crate::lock::lock;
use crate::{BlockingStorage, KeepForm};

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
    /// What was to be remembered, the newest last.
    known: BTreeMap<Known, Vec<Version>>,
    /// What commits replaced below root 0, the newest last.
    replaced: BTreeMap<RelPath, Vec<Version>>,
    form: KeepForm,
}

#[derive(Clone, Debug)]
struct File {
    bytes: Bytes,
    /// Unlike that of any other content that was ever there.
    version: u64,
    /// Of the commit, or zero when it was put there.
    generation: Generation,
}

/// A content that a name once had.
#[derive(Clone, Debug)]
struct Version {
    bytes: Bytes,
    generation: Generation,
    /// `None` for what a commit replaced, as a commit reads nothing.
    chunks: Option<Arc<ChunkList>>,
}

/// How many versions of a name are kept.
const VERSIONS: usize = 4;

/// What a [`FileHandle`] of ours holds.
struct Opened {
    place: Place,
    file: File,
    /// Not the content of its place, but of a stage or a version: it stays what it is.
    aside: bool,
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
        Self { limits, ..Self::default() }
    }

    /// Puts a file there, replacing one that is there. Below root 0 peers see it.
    pub fn insert(&self, root: RootId, path: RelPath, bytes: impl Into<Bytes>) {
        self.tree().put(root, path, bytes.into(), Generation::ZERO);
    }

    /// The content of a file.
    pub fn get(&self, root: RootId, path: &RelPath) -> Option<Bytes> {
        self.tree().file(root, path).map(|file| file.bytes.clone())
    }

    /// Makes a directory, which may stay empty.
    pub fn make_directory(&self, root: RootId, path: RelPath) {
        self.tree().directories.insert((root, path));
    }

    /// Sets what is kept of files that are to be remembered: their bytes, which is the default, or the sums of their
    /// blocks. What is remembered already is given in the new form too.
    ///
    /// # Security
    ///
    /// The secret of the sums is no secret here, so that a run can be repeated to the byte.
    pub fn keep(&self, form: KeepForm) {
        self.tree().form = form;
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        lock(&self.tree)
    }

    fn open(&self, place: Place, cutting: Cutting, algorithm: Algorithm) -> Result<OpenedFile, StorageFault> {
        if let Cutting::Tree(_) = cutting {
            return Err(fault(FaultKind::WrongKind, &place.path, "trees are not kept in memory"));
        }
        let file = {
            let tree = self.tree();
            tree.check_kind(&place)?;
            tree.file(place.root, &place.path).cloned()
        };
        let file = file.ok_or_else(|| fault(FaultKind::NotFound, &place.path, "no such file"))?;
        let cutter = cutting.cutter(ByteLen::of(&file.bytes), &file.bytes);
        let mut chunker = Chunker::new(cutter, algorithm, &self.limits);
        let chunks = chunker.push(&file.bytes).and_then(|()| chunker.finish());
        let chunks = chunks.map_err(|error| fault(FaultKind::TooLarge, &place.path, error))?;
        let (generation, chunks) = (file.generation, Arc::new(chunks));
        Ok(OpenedFile {
            file: FileHandle::new(Opened { place, file, aside: false }),
            chunks,
            generation,
            omitted: Arc::default(),
        })
    }

    fn basis(
        &self,
        destination: Destination,
        cutting: Cutting,
        algorithm: Algorithm,
        wanted: Option<(Digest, ByteLen)>,
    ) -> Result<Answer, StorageFault> {
        let Place { root, path } = &destination.place;
        let is = self.tree().kind(*root, path);
        let place = resolve(destination, is)?;
        let file = match self.open(place.clone(), cutting, algorithm) {
            Ok(file) => Some(file),
            Err(absent) if absent.kind == FaultKind::NotFound => None,
            Err(fault) => return Err(fault),
        };
        let twin = wanted.and_then(|(digest, len)| self.twin(&place, digest, len, algorithm));
        Ok(Answer::Basis { place, file, twin, partial: None })
    }

    /// A file of the same root directory elsewhere that has this digest. It reads all that have the length.
    fn twin(&self, place: &Place, digest: Digest, len: ByteLen, algorithm: Algorithm) -> Option<FileHandle> {
        let tree = self.tree();
        let mut alike = tree.files.iter().filter(|((root, path), file)| {
            *root == place.root && *path != place.path && ByteLen::of(&file.bytes) == len
        });
        let ((root, path), file) = alike.find(|(_, file)| algorithm.digest(&file.bytes) == digest)?;
        let place = Place { root: *root, path: path.clone() };
        Some(FileHandle::new(Opened { place, file: file.clone(), aside: false }))
    }

    fn recall(&self, key: Known, root: Option<Digest>) -> Option<Remembered> {
        let (version, chunks, form) = {
            let mut tree = self.tree();
            let form = tree.form;
            let Tree { known, replaced, .. } = &mut *tree;
            let mut known = known.get_mut(&key).into_iter().flatten().rev();
            let found = match root {
                None => known.next().and_then(|version| Some((version.clone(), version.chunks.clone()?))),
                Some(root) => {
                    let replaced = replaced.get_mut(&key.path).filter(|_| key.name.is_none());
                    let mut all = known.chain(replaced.into_iter().flatten().rev());
                    all.find_map(|version| Some((version.clone(), version.chunks_of(root)?)))
                }
            };
            let (version, chunks) = found?;
            (version, chunks, form)
        };
        let handle = |bytes| {
            let place = Place { root: RootId::new(0), path: key.path.clone() };
            let file = File { bytes, version: 0, generation: version.generation };
            FileHandle::new(Opened { place, file, aside: true })
        };
        let kept = match form {
            KeepForm::Auto | KeepForm::Copy => Kept::Copy(handle(version.bytes)),
            KeepForm::Sums => {
                let secret = *chunks.root().as_bytes();
                let mut summer = FineSummer::new(FineKey::kept(&secret), FineShape::KEPT);
                summer.push(&version.bytes);
                let sums = summer.finish().into_iter().flat_map(|sum| (sum as u32).to_le_bytes());
                Kept::Sums { file: handle(sums.collect()), secret }
            }
        };
        Some(Remembered { generation: version.generation, chunks, kept })
    }

    fn remember(&self, key: Known, generation: Generation, file: &OpenedFile) -> Result<(), StorageFault> {
        let bytes = opened(&file.file)?.file.bytes.clone();
        let version = Version { bytes, generation, chunks: Some(Arc::clone(&file.chunks)) };
        add(self.tree().known.entry(key).or_default(), version);
        Ok(())
    }

    fn stage(&self, place: Place, len: ByteLen, algorithm: Algorithm) -> Result<Answer, StorageFault> {
        self.tree().check_kind(&place)?;
        if len > self.limits.file {
            return Err(fault(FaultKind::TooLarge, &place.path, format_args!("{len} bytes are over the limit")));
        }
        let made = Mutex::new(Some(Made { bytes: Vec::new(), hasher: algorithm.hasher() }));
        Ok(Answer::Staged(StageHandle::new(Stage { place, len, made })))
    }

    fn commit(&self, stage: &Stage, replaces: Option<&Opened>) -> Result<Answer, StorageFault> {
        let Place { root, path } = &stage.place;
        let mut made = lock(&stage.made);
        let len = made.as_ref().map(|made| ByteLen::of(&made.bytes));
        if len != Some(stage.len) {
            return Err(fault(FaultKind::Other, path, "the stage is not whole"));
        }
        let mut tree = self.tree();
        tree.check_kind(&stage.place)?;
        if tree.file(*root, path).map(|file| file.version) != replaces.map(|opened| opened.file.version) {
            return Err(fault(FaultKind::Conflict, path, "another version is there"));
        }
        let bytes = made.take().map(|made| made.bytes).unwrap_or_default();
        tree.generation = tree.generation.next();
        let generation = tree.generation;
        let replaced = tree.put(*root, path.clone(), bytes.into(), generation);
        if let Some(File { bytes, generation, .. }) = replaced.filter(|_| root.get() == 0) {
            add(tree.replaced.entry(path.clone()).or_default(), Version { bytes, generation, chunks: None });
        }
        Ok(Answer::Committed(generation))
    }
}

impl BlockingStorage for MemoryStorage {
    fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
        match ask {
            Ask::Describe { place, cutting, algorithm, .. } => {
                self.open(place, cutting, algorithm).map(Answer::Described)
            }
            Ask::Basis { destination, cutting, algorithm, wanted } => {
                self.basis(destination, cutting, algorithm, wanted)
            }
            // There are no permissions here, and no times.
            Ask::Adorn { .. } => Ok(Answer::Adorned),
            Ask::Recall { key, root } => Ok(Answer::Recalled(self.recall(key, root))),
            Ask::Remember { key, generation, file } => {
                self.remember(key, generation, &file).map(|()| Answer::Remembered)
            }
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
                let Opened { place, file, aside } = opened(&file)?;
                let now = || self.tree().file(place.root, &place.path).map(|file| file.version);
                Ok(Answer::Rechecked { unchanged: *aside || now() == Some(file.version) })
            }
            Ask::Alike { .. } => Ok(Answer::Alike(None)),
            Ask::Stage { place, len, algorithm, root: _ } => self.stage(place, len, algorithm),
            Ask::Apply { stage, basis, plan, literals } => {
                let basis = basis.as_ref().map(opened).transpose()?;
                staged(&stage)?.apply(basis, &plan, &literals)
            }
            Ask::Seal { stage } => {
                let stage = staged(&stage)?;
                match &*lock(&stage.made) {
                    Some(made) => Ok(Answer::Sealed { root: made.hasher.clone().finish(), members: None }),
                    None => Err(stage.spent()),
                }
            }
            Ask::Reopen { stage } => staged(&stage)?.reopen().map(Answer::Reopened),
            Ask::Commit { stage, replaces } => {
                let replaces = match &replaces {
                    Replaces::Nothing => None,
                    Replaces::File(file) => Some(opened(file)?),
                };
                self.commit(staged(&stage)?, replaces)
            }
            Ask::MakeDirectory { place } => self.tree().make_directory(place),
            Ask::Rename { from, to } => self.tree().rename(&from, &to),
            Ask::Remove { place, recursive } => self.tree().remove(place, recursive),
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

    fn reopen(&self) -> Result<FileHandle, StorageFault> {
        let bytes = lock(&self.made).as_ref().ok_or_else(|| self.spent())?.bytes.clone().into();
        let file = File { bytes, version: 0, generation: Generation::ZERO };
        Ok(FileHandle::new(Opened { place: self.place.clone(), file, aside: true }))
    }

    fn spent(&self) -> StorageFault {
        fault(FaultKind::Other, &self.place.path, "the stage was committed before")
    }
}

impl Tree {
    fn file(&self, root: RootId, path: &RelPath) -> Option<&File> {
        self.files.get(&(root, path.clone()))
    }

    /// Puts a file there, and returns the one that it replaced.
    fn put(&mut self, root: RootId, path: RelPath, bytes: Bytes, generation: Generation) -> Option<File> {
        self.version += 1;
        self.files.insert((root, path), File { bytes, version: self.version, generation })
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

    /// The directory that holds a place is there.
    fn check_parent(&self, root: RootId, path: &RelPath) -> Result<(), StorageFault> {
        match path.split_last().and_then(|(above, _)| self.kind(root, &above)) {
            Some(EntryKind::Directory) => Ok(()),
            Some(_) => Err(fault(FaultKind::WrongKind, path, "not a directory")),
            None => self.check_kind(&Place { root, path: path.clone() }).and_then(|()| Err(absent(path))),
        }
    }

    fn make_directory(&mut self, place: Place) -> Result<Answer, StorageFault> {
        let Place { root, path } = place;
        if self.kind(root, &path).is_some() {
            return Err(exists(&path));
        }
        self.check_parent(root, &path)?;
        self.directories.insert((root, path));
        Ok(Answer::Altered)
    }

    fn rename(&mut self, from: &Place, to: &RelPath) -> Result<Answer, StorageFault> {
        let (root, path) = (from.root, &from.path);
        not_the_root(path)?;
        if path.holds(to) {
            return Err(into_itself(path));
        }
        self.check_parent(root, path)?;
        self.kind(root, path).ok_or_else(|| absent(path))?;
        if self.kind(root, to).is_some() {
            return Err(exists(to));
        }
        self.check_parent(root, to)?;
        self.keep_parent(root, path);
        let moved = |other: &RelPath| {
            let rest = &other.as_bytes()[path.as_bytes().len()..];
            RelPath::new([to.as_bytes(), rest].concat()).map_err(|error| fault(FaultKind::Other, other, error))
        };
        let (files, directories) = self.at_or_below(root, path);
        // All are looked at before the first one moves.
        let files = files.into_iter().map(|at| Ok((moved(&at)?, at))).collect::<Result<Vec<_>, StorageFault>>()?;
        let directories = directories.into_iter().map(|at| Ok((moved(&at)?, at))).collect::<Result<Vec<_>, _>>()?;
        for (to, at) in files {
            if let Some(file) = self.files.remove(&(root, at)) {
                // A commit goes by the generation of its own place.
                self.put(root, to, file.bytes, Generation::ZERO);
            }
        }
        for (to, at) in directories {
            self.directories.remove(&(root, at));
            self.directories.insert((root, to));
        }
        Ok(Answer::Altered)
    }

    fn remove(&mut self, place: Place, recursive: bool) -> Result<Answer, StorageFault> {
        let Place { root, path } = place;
        not_the_root(&path)?;
        self.check_parent(root, &path)?;
        self.kind(root, &path).ok_or_else(|| absent(&path))?;
        if !recursive && self.below(root, &path).next().is_some() {
            return Err(not_empty(&path));
        }
        self.keep_parent(root, &path);
        let (files, directories) = self.at_or_below(root, &path);
        files.into_iter().for_each(|at| drop(self.files.remove(&(root, at))));
        self.directories.retain(|(at, path)| *at != root || !directories.contains(path));
        Ok(Answer::Altered)
    }

    /// A directory stays when the last thing in it goes.
    fn keep_parent(&mut self, root: RootId, path: &RelPath) {
        self.directories
            .extend(path.split_last().map(|(above, _)| (root, above)).filter(|(_, above)| !above.is_root()));
    }

    /// The files and the directories at or below a path.
    fn at_or_below(&self, root: RootId, path: &RelPath) -> (Vec<RelPath>, Vec<RelPath>) {
        let is_there = |(at, other): &&(RootId, RelPath)| *at == root && (other == path || path.holds(other));
        let files = self.files.keys().filter(is_there).map(|(_, path)| path.clone()).collect();
        (files, self.directories.iter().filter(is_there).map(|(_, path)| path.clone()).collect())
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

impl Version {
    /// Its chunks, when it has this root under any algorithm.
    fn chunks_of(&mut self, root: Digest) -> Option<Arc<ChunkList>> {
        if self.chunks.is_none() {
            let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.digest(&self.bytes) == root)?;
            let cutter = deltasync_core::Cutter::for_len(ByteLen::of(&self.bytes));
            self.chunks = Some(Arc::new(ChunkList::of(&self.bytes, cutter, algorithm)));
        }
        self.chunks.clone().filter(|chunks| chunks.root() == root)
    }
}

/// Adds the newest version, and forgets the oldest when there are too many.
fn add(versions: &mut Vec<Version>, version: Version) {
    versions.push(version);
    if versions.len() > VERSIONS {
        versions.remove(0);
    }
}

fn opened(file: &FileHandle) -> Result<&Opened, StorageFault> {
    file.downcast_ref().ok_or_else(|| StorageFault::new(FaultKind::Other, "a file of another storage"))
}

fn staged(stage: &StageHandle) -> Result<&Stage, StorageFault> {
    stage.downcast_ref().ok_or_else(|| StorageFault::new(FaultKind::Other, "a stage of another storage"))
}

fn absent(path: &RelPath) -> StorageFault {
    fault(FaultKind::NotFound, path, "nothing is there")
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
    use crate::laws::altering::altering_laws;
    use crate::laws::recalls::{known, recall, remembering_laws, replacing_laws};
    use crate::laws::swaps::swapping_laws;
    use crate::laws::{Fixture, laws, path, publish};

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
    altering_laws! { MemoryStorage::with_limits }
    swapping_laws! { MemoryStorage::with_limits }
    replacing_laws! { MemoryStorage::with_limits }
    remembering_laws! { |form| {
        let storage = MemoryStorage::new();
        storage.keep(form);
        storage
    } }

    #[test]
    fn only_the_last_versions_are_kept() {
        let storage = MemoryStorage::new();
        for n in 0..10u8 {
            publish(&storage, "file", &[n]).expect("published");
        }
        let known = |n: u8| recall(&storage, known("file"), Some(Algorithm::Blake3.digest(&[n]))).is_some();
        assert_eq!((0..10).map(known).collect::<Vec<_>>(), [[false; 5], [true, true, true, true, false]].concat());
    }
}
