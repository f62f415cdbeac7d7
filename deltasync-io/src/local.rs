//! Files below directories of this machine, in plain form.
//!
//! [`LocalStorage::serve`] opens one directory to peers. `.deltasync/` inside it is ours: what is being staged, and the
//! index with the count of commits. It does not exist for peers. [`LocalStorage::roots`] opens the directories that a
//! client's own user named, and keeps nothing there but the files: a target is staged beside its place, as
//! `.NAME.deltasync-XXXXXXXX`, and the generation of every commit is 0. Names of that form are hidden and refused
//! everywhere.
//!
//! Directories that are missing on the way to a target are made when it is staged, or in a served directory when it is
//! committed. Of two who write one path at once each has a stage of its own, and the last commit wins. What opens files
//! is in `root`, and nothing else here can.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use deltasync_core::{Generation, Limits};
use deltasync_proto::{Answer, Ask, Destination, FaultKind, FileHandle, OpenedFile, Place, StageHandle, StorageFault};

use crate::BlockingStorage;
use crate::destination::resolve;

mod index;
mod listing;
mod opened;
mod root;
mod stage;

use index::Index;
use opened::{Opened, absent};
use root::{Dir, Root, entry_kind};
use stage::Stage;

/// How a [`LocalStorage`] behaves. The defaults work.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LocalOptions {
    /// Files longer than this are refused.
    pub limits: Limits,
    /// Walks paths component by component, as where the kernel cannot, to test that.
    #[doc(hidden)]
    pub components: bool,
}

impl LocalOptions {
    /// Sets the bounds on files.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
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
    served: Option<Served>,
}

/// What is kept for a served directory.
#[derive(Debug)]
struct Served {
    staging: Arc<Dir>,
    /// Locked from the count of a commit to its rename, so that of two commits the later count is the one that stays.
    index: Mutex<Index>,
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
        let served = Served::open(private).map_err(at_directory)?;
        Ok(Self { roots: vec![root], limits: options.limits, served: Some(served) })
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
        Ok(Self { roots, limits: options.limits, served: None })
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

    fn commit(&self, stage: &Stage) -> Result<Answer, StorageFault> {
        let root = self.root(stage.place())?;
        let generation = stage.commit(root, |put_in_place| match &self.served {
            None => put_in_place().map(|()| Generation::ZERO),
            Some(served) => {
                let index = served.index.lock().unwrap_or_else(PoisonError::into_inner);
                let generation = index.next().map_err(|error| io::Error::other(format!("index: {error}")))?;
                put_in_place().map(|()| generation)
            }
        })?;
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
            Ask::Basis { destination, cutting, algorithm } => {
                let place = self.basis_place(destination)?;
                let file = describe(&place, cutting, algorithm)?;
                Ok(Answer::Basis { place, file })
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
    fn open(private: Dir) -> io::Result<Self> {
        let staging = private.own_dir("staging")?;
        for name in staging.names()? {
            staging.remove(&name?)?;
        }
        let index = Index::open(private.open_own("index")?)?;
        Ok(Self { staging: Arc::new(staging), index: Mutex::new(index), _private: private })
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
