//! Files below directories of this machine, in plain form.
//!
//! [`LocalStorage::serve`] opens one directory to peers. `.deltasync/` inside it is ours: what is being staged, the index
//! with the count of commits and what they published, and the files that they replaced. It does not exist for peers.
//! [`LocalStorage::roots`] opens the directories that a client's own user named, and keeps nothing there but the files: a
//! target is staged beside its place, as `.NAME.deltasync-XXXXXXXX`, and the generation of every commit is 0. Names of
//! that form are hidden and refused everywhere. What a client remembers lies elsewhere, see [`KnownFiles`].
//!
//! Directories that are missing on the way to a target are made when it is staged, or in a served directory when it is
//! committed. Of two who write one path at once each has a stage of its own, and the last commit wins. What opens files
//! is in `root`, and nothing else here can.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltasync_core::{ByteLen, Digest, Generation, Limits, RelPath};
use deltasync_proto::{
    Answer, Ask, Destination, FaultKind, FileHandle, Kept, Known, OpenedFile, Place, Remembered, StageHandle,
    StorageFault,
};

use crate::destination::resolve;
use crate::fault::system_fault;
use crate::known::Found;
use crate::source::{Looks, Source};
use crate::{BlockingStorage, KnownFiles};

mod described;
mod history;
mod index;
mod listing;
mod opened;
mod root;
mod stage;

use described::Described;
use history::{Aside, History, Replaced};
use index::{Index, Published};
use opened::{Opened, absent};
use root::{Dir, Root, entry_kind};
use stage::{Ready, Stage};

/// How a [`LocalStorage`] behaves. The defaults work.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LocalOptions {
    /// Files longer than this are refused.
    pub limits: Limits,
    /// Where a client remembers files; `None` when it remembers nothing. A served directory has its history instead.
    pub known: Option<KnownFiles>,
    /// What the files that commits replaced may take in a served directory (default 1 GiB); nothing is kept for zero.
    pub history: ByteLen,
    /// Walks paths component by component, as where the kernel cannot, to test that.
    #[doc(hidden)]
    pub components: bool,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { limits: Limits::default(), known: None, history: ByteLen::new(1 << 30), components: false }
    }
}

impl LocalOptions {
    /// Sets the bounds on files.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets where a client remembers files.
    #[must_use]
    pub fn known(mut self, known: KnownFiles) -> Self {
        self.known = Some(known);
        self
    }

    /// Sets how many bytes the files that commits replaced may take in a served directory.
    #[must_use]
    pub fn history(mut self, history: ByteLen) -> Self {
        self.history = history;
        self
    }

    /// Walks paths component by component.
    #[doc(hidden)]
    #[must_use]
    pub fn components(mut self, components: bool) -> Self {
        self.components = components;
        self
    }
}

/// A storage of files below directories. Wrap it in [`Threads`](crate::Threads): its answers wait for disks.
///
/// # Security
///
/// Nothing outside of the directories is read or written, whatever a path says and whatever symbolic links stand or
/// appear below them; they are not followed. Only regular files are opened.
#[derive(Debug)]
pub struct LocalStorage {
    roots: Vec<Root>,
    limits: Limits,
    known: Option<KnownFiles>,
    served: Option<Served>,
}

/// What is kept for a served directory.
#[derive(Debug)]
struct Served {
    staging: Arc<Dir>,
    /// Locked from the count of a commit to its rename, so that of two commits the later count is the one that stays.
    index: Mutex<Index>,
    described: Described,
    history: History,
    /// Held, and with it the lock that keeps other servers out.
    _private: Dir,
}

impl LocalStorage {
    /// Serves a directory to peers as root 0. What an earlier server left in staging is removed.
    ///
    /// # Errors
    ///
    /// What the system says, with the path; [`io::ErrorKind::WouldBlock`] when another server serves this directory.
    pub fn serve(directory: impl AsRef<Path>, options: LocalOptions) -> io::Result<Self> {
        let directory = directory.as_ref();
        let at_directory = |error: io::Error| named(directory, &error);
        let mut root = Root::open(directory, options.components).map_err(at_directory)?;
        let private = root.reserve().map_err(at_directory)?;
        if !private.lock().map_err(at_directory)? {
            let taken = io::Error::new(io::ErrorKind::WouldBlock, "another server is serving this directory");
            return Err(at_directory(taken));
        }
        let served = Served::open(private, options.history).map_err(at_directory)?;
        Ok(Self { roots: vec![root], limits: options.limits, known: None, served: Some(served) })
    }

    /// Opens directories of the user's own; root `i` is the `i`-th. Each may be named through symbolic links; below them
    /// none is followed.
    ///
    /// # Errors
    ///
    /// What the system says, with the path of the directory that could not be opened.
    pub fn roots(directories: Vec<PathBuf>, options: LocalOptions) -> io::Result<Self> {
        let open = |path: &PathBuf| Root::open(path, options.components).map_err(|error| named(path, &error));
        let roots = directories.iter().map(open).collect::<io::Result<_>>()?;
        Ok(Self { roots, limits: options.limits, known: options.known, served: None })
    }

    fn root(&self, place: &Place) -> Result<&Root, StorageFault> {
        let root = usize::try_from(place.root.get()).ok().and_then(|index| self.roots.get(index));
        root.ok_or_else(|| StorageFault::new(FaultKind::NotFound, format!("there is no root {}", place.root)))
    }

    fn basis_place(&self, destination: Destination) -> Result<Place, StorageFault> {
        let root = self.root(&destination.place)?;
        let path = &destination.place.path;
        let is = root.stat(path).map_err(|trouble| trouble.at(path))?;
        resolve(destination, is.as_ref().map(entry_kind))
    }

    fn recall(&self, key: &Known, root: Option<Digest>) -> Result<Option<Remembered>, StorageFault> {
        let known = || self.known.as_ref()?.recall(key, root, &self.limits);
        let replaced = || self.served.as_ref()?.recall(key, root?, &self.limits);
        let found = known().or_else(replaced);
        let Some(Found { generation, chunks, bytes, secret }) = found else { return Ok(None) };
        let opened = Opened::unnamed(bytes, key.path.clone()).map_err(|error| system_fault(&key.path, &error))?;
        let file = FileHandle::new(opened);
        let kept = match secret {
            Some(secret) => Kept::Sums { file, secret },
            None => Kept::Copy(file),
        };
        Ok(Some(Remembered { generation, chunks, kept }))
    }

    fn commit(&self, stage: &Stage) -> Result<Answer, StorageFault> {
        let root = self.root(stage.place())?;
        let mut aside = None;
        let generation = stage.commit(root, |ready| match &self.served {
            None => ready.put_in_place().map(|()| Generation::ZERO),
            Some(served) => {
                let (generation, replaced) = served.publish(&stage.place().path, ready)?;
                aside = replaced;
                Ok(generation)
            }
        });
        // Also when it may not outlast a power cut: the old file has been replaced.
        if let (Some(served), Some(aside)) = (&self.served, aside) {
            served.history.keep(&aside, &stage.place().path, &served.index());
        }
        let generation = generation?;
        Ok(Answer::Committed(generation))
    }
}

impl BlockingStorage for LocalStorage {
    fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
        let describe = |place: &Place, cutting, algorithm| -> Result<Option<OpenedFile>, StorageFault> {
            Opened::describe(self.root(place)?, place, cutting, algorithm, &self.limits)
        };
        match ask {
            Ask::Describe { place, cutting, algorithm } => {
                let file = describe(&place, cutting, algorithm)?;
                file.map(Answer::Described).ok_or_else(|| absent(&place))
            }
            Ask::Basis { destination, cutting, algorithm, wanted } => {
                let place = self.basis_place(destination)?;
                let file = describe(&place, cutting, algorithm)?;
                if let (Some(served), Some(file)) = (&self.served, &file) {
                    served.described.add(opened(&file.file)?.looks(), Arc::clone(&file.chunks));
                }
                let twin = || {
                    let ((wanted, len), served) = (wanted?, self.served.as_ref()?);
                    served.twin(self.root(&place).ok()?, &place, wanted, len, &self.limits)
                };
                let twin = twin().map(FileHandle::new);
                Ok(Answer::Basis { place, file, twin })
            }
            Ask::Read { file, ranges } => opened(&file)?.read(&ranges).map(Answer::Read),
            Ask::Recheck { file } => opened(&file)?.is_unchanged().map(|unchanged| Answer::Rechecked { unchanged }),
            Ask::Stage { place, len, algorithm } => {
                let staging = self.served.as_ref().map(|served| &served.staging);
                let stage = Stage::begin(self.root(&place)?, staging, place, len, algorithm, &self.limits)?;
                Ok(Answer::Staged(StageHandle::new(stage)))
            }
            Ask::Apply { stage, basis, plan, literals } => {
                let basis = basis.as_ref().map(opened).transpose()?;
                staged(&stage)?.apply(basis, &plan, &literals).map(|()| Answer::Applied)
            }
            Ask::Seal { stage } => staged(&stage)?.seal().map(Answer::Sealed),
            Ask::Reopen { stage } => {
                let opened = staged(&stage)?.reopen()?;
                Ok(Answer::Reopened(FileHandle::new(opened)))
            }
            Ask::Recall { key, root } => self.recall(&key, root).map(Answer::Recalled),
            Ask::Remember { key, generation, file } => {
                let opened = opened(&file.file)?;
                if let Some(known) = &self.known {
                    known.remember(&key, generation, opened.source(), &opened.looks(), &file.chunks);
                }
                Ok(Answer::Remembered)
            }
            Ask::Commit { stage } => self.commit(staged(&stage)?),
            Ask::List { place, after, most } => {
                let listed = listing::list(self.root(&place)?, &place.path, after.as_ref(), most);
                listed.map_err(|trouble| trouble.at(&place.path))
            }
            _ => Err(StorageFault::new(FaultKind::Other, "local files do not know this request")),
        }
    }
}

impl Served {
    fn open(private: Dir, history: ByteLen) -> io::Result<Self> {
        let staging = private.own_dir("staging")?;
        for name in staging.names()? {
            staging.remove(&name?)?;
        }
        let index = Index::open(private.open_own("index")?)?;
        let history = History::open(private.own_dir("history")?, history.get(), &index)?;
        let (staging, index, described) = (Arc::new(staging), Mutex::new(index), Described::default());
        Ok(Self { staging, index, described, history, _private: private })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a commit and puts it in place; what it replaced may be set aside.
    fn publish(&self, path: &RelPath, ready: &Ready<'_>) -> io::Result<(Generation, Option<Aside>)> {
        let index = self.index();
        let generation = index.next().map_err(|error| io::Error::other(format!("index: {error}")))?;
        let aside = self.set_aside(path, ready, &index, generation);
        if let Err(error) = ready.put_in_place() {
            aside.iter().for_each(|aside| self.history.discard(aside));
            return Err(error);
        }
        // It is published, whether that is noted or not.
        if let Ok(looks) = ready.looks() {
            let _ = index.publish(ready.digest(), &Published { path: path.clone(), generation, looks });
        }
        Ok((generation, aside))
    }

    fn set_aside(&self, path: &RelPath, ready: &Ready<'_>, index: &Index, number: Generation) -> Option<Aside> {
        let is = ready.parent().stat(ready.target()).ok().flatten()?;
        let looks = Looks::of_stat(&is);
        let chunks = self.described.take(&looks)?;
        let published = index.published(chunks.root()).ok().flatten().filter(|published| published.path == *path);
        let generation = published.map_or(Generation::ZERO, |published| published.generation);
        // The system counts in 512 bytes, and fewer than it is long where it has holes.
        let bytes = u64::try_from(is.st_blocks).unwrap_or(0).saturating_mul(512);
        self.history.set_aside(ready.parent(), ready.target(), chunks, (looks, bytes), generation, number)
    }

    /// A file other than that at `place` that has this root: published elsewhere, or once there itself.
    fn twin(&self, root: &Root, place: &Place, wanted: Digest, len: ByteLen, limits: &Limits) -> Option<Opened> {
        let elsewhere = self.published(root, place, wanted, len, limits);
        elsewhere.or_else(|| {
            let replaced = self.history.recall(&place.path, wanted, &self.index(), limits)?;
            let same = replaced.chunks.len() == len;
            same.then(|| Opened::unnamed(Source::File(replaced.file), place.path.clone()).ok()).flatten()
        })
    }

    fn published(&self, root: &Root, place: &Place, wanted: Digest, len: ByteLen, limits: &Limits) -> Option<Opened> {
        let published = self.index().published(wanted).ok().flatten()?;
        if published.path == place.path || published.looks.len != len.get() || len > limits.file {
            return None;
        }
        let opened =
            root.file(&published.path).ok().filter(|file| Looks::of(file).is_ok_and(|is| is == published.looks));
        if opened.is_none() {
            let _ = self.index().forget(wanted, &published.path);
        }
        Some(Opened::known(opened?, published.path, published.looks))
    }

    fn recall(&self, key: &Known, root: Digest, limits: &Limits) -> Option<Found> {
        if key.name.is_some() {
            return None;
        }
        let replaced = self.history.recall(&key.path, root, &self.index(), limits)?;
        let Replaced { generation, chunks, file } = replaced;
        Some(Found { generation, chunks: Arc::new(chunks), bytes: Source::File(file), secret: None })
    }
}

/// An error with the path of the user's own that it is about.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn opened(file: &FileHandle) -> Result<&Opened, StorageFault> {
    file.downcast_ref().ok_or_else(|| StorageFault::new(FaultKind::Other, "a file of another storage"))
}

fn staged(stage: &StageHandle) -> Result<&Stage, StorageFault> {
    stage.downcast_ref().ok_or_else(|| StorageFault::new(FaultKind::Other, "a stage of another storage"))
}

#[cfg(test)]
mod tests;
