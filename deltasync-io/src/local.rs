//! Files below directories of this machine, in plain form.
//!
//! [`LocalStorage::serve`] opens one directory to peers. `.deltasync/` inside it is ours: what is being staged, the index
//! with the count of commits and what they published, and the files that they replaced. It does not exist for peers.
//! [`LocalStorage::roots`] opens the directories that a client's own user named, and keeps nothing there but the files: a
//! target is staged beside its place, as `.NAME.deltasync-XXXXXXXX`, and the generation of every commit is 0. Names of
//! that form are hidden and refused everywhere. What a client remembers lies elsewhere, see [`KnownFiles`].
//!
//! A stage that was cut leaves what it has got to, here or there, when that is 64 KiB or more, and the next transfer to the
//! same place goes on from it (`staging`, `beside`).
//!
//! Directories that are missing on the way to a target are made when it is staged, or in a served directory when it is
//! committed. Of two who write one path at once each has a stage of its own; who commits names what it replaces, and only
//! the first of those who saw the same succeeds (`swap`). What opens files is in `root`, and nothing else here can.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use deltasync_core::{
    Algorithm, Attributes, ByteLen, ChunkList, Digest, Generation, Limits, Name, Offset, Op, Ops, PlanError, Planner,
    RelPath, Resemblance,
};
use deltasync_proto::{
    Adorned, Answer, Ask, Cutting, Destination, FaultKind, FileHandle, Kept, Known, OpenedFile, Place, Remembered,
    Replaces, StageHandle, StorageFault,
};

use crate::destination::resolve;
use crate::disk::{DiskDir, SystemDir};
use crate::fault::{fault, system_fault};
use crate::known::Found;
use crate::lock::lock;
use crate::source::{Looks, Source};
use crate::{BlockingStorage, KnownFiles};

mod alike;
mod altering;
mod beside;
mod chunked;
mod control;
mod generations;
mod history;
mod index;
mod kept;
mod listed;
mod listing;
mod opened;
mod pages;
mod recorded;
mod recorded_trees;
mod recovery;
pub use recovery::Recovery;
mod root;
mod scrub;
mod stage;
mod staging;
mod swap;
mod syncing;
mod tree;

use chunked::{Chunking, Helpers};
use generations::Generations;
use history::{Aside, History, Replaced};
use index::Index;
use opened::{Opened, absent};
use recorded::Recorded;
use root::{Dir, Root, entry_kind};
use stage::{Directories, Ready, Stage};
use staging::{Staging, Target};
use tree::{Copies, Way, abandoned};

pub use control::{Reached, connect_control};
pub use tree::{
    TreeMember, Walked, Walks, compared_lists, files_made, files_to_send, members_to_fetch, members_to_send, tree_list,
};

pub use scrub::{Finding, FindingKind, LastScrub, Scrub, ScrubEvent, ScrubOptions, ScrubReport};

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
    /// What all that is being staged in a served directory may take at once (default 1 TiB); a file that is longer is
    /// refused. What is left of it, at most 64 GiB, may be taken by what transfers that were cut have left, for a week, so
    /// that the next ones go on from there.
    pub staging: ByteLen,
    /// Where it is told how far trees are listed, and what of them changes meanwhile; `None` for nowhere.
    pub walks: Option<Walks>,
    /// On how many threads a file of 8 MiB or more is cut and digested (default: as many as there are cores, but at most
    /// 4). Beside those that answer, all files together get one less than that.
    pub chunking_threads: usize,
    /// Walks paths component by component, as where the kernel cannot, to test that.
    #[doc(hidden)]
    pub components: bool,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            known: None,
            history: ByteLen::new(1 << 30),
            staging: ByteLen::new(1 << 40),
            walks: None,
            chunking_threads: thread::available_parallelism().map_or(1, |cores| cores.get().min(4)),
            components: false,
        }
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

    /// Sets how many bytes may be staged in a served directory at once.
    #[must_use]
    pub fn staging(mut self, staging: ByteLen) -> Self {
        self.staging = staging;
        self
    }

    /// Sets where it is told how far trees are listed.
    #[must_use]
    pub fn walks(mut self, walks: Walks) -> Self {
        self.walks = Some(walks);
        self
    }

    /// Sets on how many threads a long file is cut and digested.
    #[must_use]
    pub fn chunking_threads(mut self, threads: usize) -> Self {
        self.chunking_threads = threads;
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
    roots: Vec<Arc<Root>>,
    /// The copies of trees that are to be replaced as one change.
    copies: Copies,
    limits: Limits,
    helpers: Helpers,
    known: Option<KnownFiles>,
    served: Option<Served>,
    /// Where a commit is in place whose directory could not be synced.
    unsure: Mutex<BTreeSet<RelPath>>,
    /// The directories that commits are syncing.
    syncing: Directories,
    /// Held by a commit where nothing is served.
    replacing: Mutex<()>,
    walks: Option<Walks>,
    recovery: Recovery,
}

/// How many files that resemble a target are looked at to find one that is still there.
const ALIKE: usize = 8;

/// How many files of one content are looked at to find one that is still there.
const TWINS: usize = 8;

/// What is kept for a served directory.
#[derive(Debug)]
struct Served {
    staging: Arc<Staging>,
    /// Held from the count of a commit to its note, so that of two commits the later count is the one that stays.
    commits: Mutex<()>,
    generations: Generations,
    index: Index,
    history: History,
    /// Held, and with it the lock that keeps other servers out.
    private: Arc<Dir>,
}

impl LocalStorage {
    /// Serves a directory to peers as root 0. Of what an earlier server left in staging, that is kept which can be gone on
    /// from, and all else removed.
    ///
    /// # Errors
    ///
    /// What the system says, with the path; [`io::ErrorKind::WouldBlock`] when another server serves this directory.
    pub fn serve(directory: impl AsRef<Path>, options: LocalOptions) -> io::Result<Self> {
        let directory = directory.as_ref();
        let at_directory = |error: io::Error| named(directory, &error);
        let start = SystemDir::start(directory, options.components).map_err(at_directory)?;
        Self::serve_on(Arc::new(start), options).map_err(at_directory)
    }

    /// As [`serve`](Self::serve), a directory of any disk.
    ///
    /// # Errors
    ///
    /// As there, without a path.
    pub fn serve_on(directory: Arc<dyn DiskDir>, options: LocalOptions) -> io::Result<Self> {
        let mut root = Root::new(directory);
        let private = root.reserve()?;
        if !private.lock()? {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "another server is serving this directory"));
        }
        let mut recovery = Recovery::default();
        let served = Some(Served::open(private, &options, &mut recovery)?);
        let helpers = Helpers::new(options.chunking_threads.saturating_sub(1));
        let root = Arc::new(root);
        if let Some(served) = &served {
            // What cannot be removed now may be at the next start.
            let _ = abandoned::remove_old(&served.private, &root, served.staging.now());
        }
        let (roots, limits, replacing) = (vec![root], options.limits, Mutex::default());
        Ok(Self {
            roots,
            limits,
            helpers,
            known: None,
            served,
            replacing,
            walks: options.walks,
            recovery,
            unsure: Mutex::default(),
            syncing: Directories::default(),
            copies: Copies::default(),
        })
    }

    /// Opens directories of the user's own; root `i` is the `i`-th. Each may be named through symbolic links; below them
    /// none is followed.
    ///
    /// # Errors
    ///
    /// What the system says, with the path of the directory that could not be opened.
    pub fn roots(directories: Vec<PathBuf>, options: LocalOptions) -> io::Result<Self> {
        let open = |path: &PathBuf| match SystemDir::start(path, options.components) {
            Ok(start) => Ok(Arc::new(start) as Arc<dyn DiskDir>),
            Err(error) => Err(named(path, &error)),
        };
        Ok(Self::roots_on(directories.iter().map(open).collect::<io::Result<_>>()?, options))
    }

    /// As [`roots`](Self::roots), directories of any disk.
    pub fn roots_on(directories: Vec<Arc<dyn DiskDir>>, options: LocalOptions) -> Self {
        let roots = directories.into_iter().map(|directory| Arc::new(Root::new(directory))).collect();
        let (limits, known, walks) = (options.limits, options.known, options.walks);
        let (recovery, syncing) = (Recovery::default(), Directories::default());
        let helpers = Helpers::new(options.chunking_threads.saturating_sub(1));
        let (replacing, unsure, copies) = (Mutex::default(), Mutex::default(), Copies::default());
        Self { roots, limits, helpers, known, served: None, replacing, walks, recovery, unsure, syncing, copies }
    }

    /// What was not in order when a directory was opened to be served.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Makes durable what a served directory has noted lately, beside the files themselves: to be called now and then. What a
    /// crash takes before that costs second trips later, and no content.
    pub fn flush(&self) {
        if let Some(served) = &self.served {
            served.index.flush();
        }
    }

    /// What leads to a place: its root, or the copy of a tree that is beside it.
    fn root(&self, place: &Place) -> Result<Way, StorageFault> {
        let root = self.root_itself(place)?;
        if !place.root.is_beside() {
            return Ok(Way::Root(Arc::clone(root)));
        }
        let copy = self.copies.find(root, place)?;
        let none = || fault(FaultKind::Other, &place.path, "its tree is not being replaced as one change");
        copy.map(Way::Copy).ok_or_else(none)
    }

    fn root_itself(&self, place: &Place) -> Result<&Arc<Root>, StorageFault> {
        let root = place.root.itself();
        let found = usize::try_from(root.get()).ok().and_then(|index| self.roots.get(index));
        found.ok_or_else(|| StorageFault::new(FaultKind::NotFound, format!("there is no root {root}")))
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

    /// What an earlier stage at a place has left, with the file that is there behind it: that of this root, or else the
    /// newest.
    fn partial(
        &self,
        place: &Place,
        file: Option<&OpenedFile>,
        chunking: Chunking<'_>,
        root: Digest,
    ) -> Option<OpenedFile> {
        let left = self.served.as_ref().and_then(|served| {
            let target = Target::new(place, chunking.algorithm, root);
            served.staging.find(&target)
        });
        let beside = || {
            let (parent, name) = place.path.split_last()?;
            let parent = self.root(place).ok()?.directory(&parent).ok()?;
            let elsewhere = |served: &Served| Some(served.staging.directory().device().ok()? != parent.device().ok()?);
            let looked_for = self.served.as_ref().is_none_or(|served| elsewhere(served).unwrap_or(false));
            looked_for.then(|| beside::find(&parent, &name, self.limits.file.get())).flatten()
        };
        let file = file.and_then(|file| file.file.downcast_ref());
        Opened::of_partial(left.or_else(beside)?, file, &place.path, chunking)
    }

    fn chunking<'a>(&'a self, cutting: &'a Cutting, algorithm: Algorithm) -> Chunking<'a> {
        Chunking { cutting, algorithm, limits: &self.limits, helpers: &self.helpers, sums: None }
    }

    fn commit(&self, stage: &Stage, replaces: Option<&Opened>) -> Result<Generation, StorageFault> {
        let place = stage.place();
        let root = &*self.root(place)?;
        // Directories are not made again for what should still be in them.
        if replaces.is_some() && root.stat(&place.path).is_ok_and(|is| is.is_none()) {
            return Err(fault(FaultKind::Conflict, &place.path, "nothing is there any more"));
        }
        let (mut aside, mut listed) = (None, None);
        let generation = stage.commit(root, &self.syncing, |ready| match &self.served {
            None => self.replace(ready, replaces).map(|()| Generation::ZERO),
            Some(served) => {
                let (generation, replaced) = served.publish(ready, replaces)?;
                (aside, listed) = (replaced, ready.listed());
                Ok(generation)
            }
        });
        // Also when it may not outlast a power cut: the old file has been replaced.
        if let Some(served) = self.served.as_ref().filter(|_| stage.is_published()) {
            served.index.forget_trees_around(&place.path);
        }
        if let (Some(served), Some(aside)) = (&self.served, aside) {
            served.history.keep(&aside, &place.path, &served.index);
        }
        if let (Some(served), Some((looks, chunks))) = (&self.served, listed) {
            served.index.note_list(&looks, &chunks);
            if let Some(resembles) = Resemblance::of(&chunks) {
                served.index.note_features(&place.path, &resembles);
            }
        }
        match (&generation, stage.is_published()) {
            (Ok(_), _) => _ = lock(&self.unsure).remove(&place.path),
            (Err(_), true) => _ = lock(&self.unsure).insert(place.path.clone()),
            (Err(_), false) => {}
        }
        generation
    }

    /// Puts a target in place where commits are not counted.
    fn replace(&self, ready: &Ready<'_>, replaces: Option<&Opened>) -> Result<(), StorageFault> {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        // Who works in the copy of a tree has that locked, so that no other process comes there.
        let _turn = (!ready.place().root.is_beside()).then(|| swap::turn(ready.parent()));
        swap::check(ready, replaces)?;
        swap::put_in_place(ready, replaces)
    }

    /// Makes a file durable that somebody will be told is there: whoever put it there may not have come to that yet.
    fn secure(&self, place: &Place, file: &mut OpenedFile) -> Result<(), StorageFault> {
        let system = |error: io::Error| system_fault(&place.path, &error);
        let there = opened(&file.file)?;
        if lock(&self.unsure).contains(&place.path) {
            file.generation = self.publish_again(place, there, &file.chunks)?;
            return Ok(());
        }
        there.source().sync().map_err(system)?;
        let Some((parent, _)) = place.path.split_last() else { return Ok(()) };
        let parent = self.root(place)?.directory(&parent).map_err(|trouble| trouble.at(&place.path))?;
        let which = parent.identity().map_err(system)?;
        self.syncing.sync(&which, self.syncing.turn(), Arc::new(parent), |parent| parent.sync()).map_err(system)
    }

    /// Publishes a file once more whose directory could not be synced: no later sync makes that name last, a new one may.
    fn publish_again(&self, place: &Place, there: &Opened, chunks: &ChunkList) -> Result<Generation, StorageFault> {
        let too_large = |error: PlanError| fault(FaultKind::TooLarge, &place.path, error);
        let len = chunks.len();
        let ops: Ops = [Op::Copy { from: Offset::ZERO, len }].into_iter().collect();
        let mut planner = Planner::new(len, len, &self.limits).map_err(too_large)?;
        let plan = planner.plan(&ops, ByteLen::ZERO).map_err(too_large)?;
        let staging = self.served.as_ref().map(|served| &served.staging);
        let target = (len, chunks.algorithm(), chunks.root());
        let stage = Stage::begin(&*self.root(place)?, staging, place.clone(), target, &self.limits)?;
        stage.apply(Some(there), &plan, &[])?;
        self.commit(&stage, Some(there))
    }

    /// A description by what the index knows, without reading the file; not of one that is marked as damaged.
    fn listed(&self, place: &Place, chunking: Chunking<'_>) -> Result<Option<OpenedFile>, StorageFault> {
        let Some(served) = &self.served else { return Ok(None) };
        let listed = Opened::listed(&*self.root(place)?, place, chunking, &served.index);
        Ok(listed.filter(|_| served.index.damaged(&place.path).is_none()))
    }

    /// Sets the permissions and the time of a file that is at its place; what is noted of it stays noted.
    fn adorn(&self, place: &Place, there: &Opened, attributes: Attributes) -> Result<(), StorageFault> {
        let system = |error: io::Error| system_fault(&place.path, &error);
        let Some(file) = there.source().as_any_file() else { return Ok(()) };
        let before = there.looks();
        let is = file.stat().map_err(system)?;
        let root = self.root(place)?;
        let there_now = root.stat(&place.path).ok().flatten();
        if there_now.is_none_or(|now| (now.device, now.inode) != (is.device, is.inode)) {
            // Another file has come to its place, and this one may have other names: whoever compares again finds that.
            return Ok(());
        }
        let copied;
        let file = match is.links {
            ..=1 => file,
            _ if tree::has(&is, attributes) => return Ok(()),
            // Whoever has changed it meanwhile did not look at other names either.
            _ if !there.is_still(&is) => file,
            _ => {
                let own = tree::own_copy_of(&root, &place.path, file);
                copied = own.map_err(|trouble| trouble.at(&place.path))?;
                &copied
            }
        };
        file.set_mode(tree::mode_of(attributes, is.mode)).map_err(system)?;
        file.set_modified(attributes.modified()).map_err(system)?;
        let Some(served) = &self.served else { return Ok(()) };
        served.index.forget_trees_around(&place.path);
        let looks = Looks::of(file).map_err(system)?;
        let _committing = served.committing();
        if let Some(recorded) = served.index.recorded(&place.path).filter(|recorded| recorded.looks == before) {
            served.index.publish(&place.path, &Recorded { looks, ..recorded });
        }
        if let Some(chunks) = there.chunks().filter(|_| served.index.recorded(&place.path).is_some()) {
            served.index.note_list(&looks, chunks);
        }
        Ok(())
    }

    /// A description with the generation of the file.
    fn versioned(&self, place: &Place, file: OpenedFile) -> Result<OpenedFile, StorageFault> {
        let Some(served) = &self.served else { return Ok(file) };
        let looks = opened(&file.file)?.looks();
        // A commit that put it in place may not have noted it yet.
        let _committing = served.committing();
        Ok(OpenedFile { generation: served.generation(&place.path, file.chunks.root(), &looks), ..file })
    }
}

impl BlockingStorage for LocalStorage {
    fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
        if let Some(answer) = self.answer_of_tree(&ask) {
            return answer;
        }
        let describe = |place: &Place, cutting: &Cutting, algorithm, key: Option<&Known>| {
            let root = &*self.root(place)?;
            let sums = |source: &Source, looks: &Looks| self.known.as_ref()?.begin(key?, source, looks);
            let file = Opened::describe(root, place, self.chunking(cutting, algorithm), sums)?;
            if let (Some(served), None) = (&self.served, &file) {
                served.forget(root, &place.path);
            }
            file.map(|file| self.versioned(place, file)).transpose()
        };
        match ask {
            Ask::Describe { place, cutting, algorithm, remember } => {
                let file = describe(&place, &cutting, algorithm, remember.as_ref());
                let Some(served) = &self.served else {
                    return file?.map(Answer::Described).ok_or_else(|| absent(&place));
                };
                let file = file.map_err(|fault| served.explain(&place.path, fault))?;
                let file = file.ok_or_else(|| absent(&place))?;
                served.check(&*self.root(&place)?, &place.path, &file)?;
                Ok(Answer::Described(file))
            }
            Ask::Basis { destination, cutting, algorithm, wanted } => {
                let place = self.basis_place(destination)?;
                // That it has the wanted root is not said for the sake of a list.
                let other = |file: &OpenedFile| wanted.is_some_and(|(root, _)| root != file.chunks.root());
                let listed = self.listed(&place, self.chunking(&cutting, algorithm))?.filter(other);
                let is_listed = listed.is_some();
                let mut file = match listed {
                    Some(file) => Some(self.versioned(&place, file)?),
                    None => describe(&place, &cutting, algorithm, None)?,
                };
                if let (Some(served), Some(file)) = (&self.served, &mut file) {
                    let looks = opened(&file.file)?.looks();
                    if !is_listed && listed::is_settled(&looks, served.staging.now()) {
                        served.index.note_list(&looks, &file.chunks);
                    }
                    if wanted.is_some_and(|(root, _)| root == file.chunks.root()) {
                        self.secure(&place, file)?;
                    }
                }
                let twin = || {
                    let ((wanted, len), served) = (wanted?, self.served.as_ref()?);
                    served.twin(&*self.root(&place).ok()?, &place, wanted, len, &self.limits)
                };
                let twin = twin().map(FileHandle::new);
                let root = wanted.map_or(Digest::default(), |(root, _)| root);
                let is_here = twin.is_some() || file.as_ref().is_some_and(|file| file.chunks.root() == root);
                let chunking = self.chunking(&cutting, algorithm);
                let partial = || self.partial(&place, file.as_ref(), chunking, root);
                let partial = (!is_here).then(partial).flatten();
                Ok(Answer::Basis { place, file, twin, partial })
            }
            Ask::Alike { place, cutter, algorithm, resembles, comes } => {
                let Some(served) = &self.served else { return Ok(Answer::Alike(None)) };
                let cutting = Cutting::Exactly(cutter);
                // What cannot be opened or is damaged is none.
                let open = |path: &RelPath| {
                    let place = Place { path: path.clone(), ..place.clone() };
                    let listed = self.listed(&place, self.chunking(&cutting, algorithm)).ok().flatten();
                    let file = listed.or_else(|| describe(&place, &cutting, algorithm, None).ok().flatten());
                    // It may also be on its way.
                    if file.is_none() && served.index.recorded(path).is_some() {
                        served.index.forget_features(path);
                    }
                    file.filter(|_| served.index.damaged(path).is_none())
                };
                let paths = served.index.alike(&resembles, ALIKE);
                let alike = paths.iter().filter(|path| **path != place.path).find_map(open);
                if comes {
                    served.index.note_features(&place.path, &resembles);
                }
                Ok(Answer::Alike(alike))
            }
            Ask::Read { file, ranges } => opened(&file)?.read(&ranges).map(Answer::Read),
            Ask::Recheck { file } => opened(&file)?.is_unchanged().map(|unchanged| Answer::Rechecked { unchanged }),
            Ask::Stage { place, len, algorithm, root } => {
                let staging = self.served.as_ref().map(|served| &served.staging);
                let stage = Stage::begin(&*self.root(&place)?, staging, place, (len, algorithm, root), &self.limits)?;
                Ok(Answer::Staged(StageHandle::new(stage)))
            }
            Ask::Apply { stage, basis, plan, literals } => {
                let basis = basis.as_ref().map(opened).transpose()?;
                staged(&stage)?.apply(basis, &plan, &literals).map(|()| Answer::Applied)
            }
            Ask::Seal { stage } => {
                let sealed = staged(&stage)?.seal()?;
                if let (Some(served), Some(looks)) = (&self.served, sealed.doubtful) {
                    served.index.forget_list(&looks);
                }
                Ok(Answer::Sealed { root: sealed.digest, members: None })
            }
            Ask::Reopen { stage } => {
                let opened = staged(&stage)?.reopen()?;
                Ok(Answer::Reopened(FileHandle::new(opened)))
            }
            Ask::Recall { key, root } => self.recall(&key, root).map(Answer::Recalled),
            Ask::Remember { key, generation, file } => {
                let opened = opened(&file.file)?;
                if let Some(known) = &self.known {
                    let (looks, sums) = (opened.looks(), opened.take_sums());
                    known.remember(&key, generation, opened.source(), &looks, &file.chunks, sums);
                }
                Ok(Answer::Remembered)
            }
            Ask::Adorn { file: Adorned::Staged(stage), attributes } => {
                staged(&stage)?.adorn(attributes).map(|()| Answer::Adorned)
            }
            Ask::Adorn { file: Adorned::There(place, file), attributes } => {
                self.adorn(&place, opened(&file)?, attributes).map(|()| Answer::Adorned)
            }
            Ask::Commit { stage, replaces } => {
                let replaces = match &replaces {
                    Replaces::Nothing => None,
                    Replaces::File(file) => Some(opened(file)?),
                };
                self.commit(staged(&stage)?, replaces).map(Answer::Committed)
            }
            Ask::MakeDirectory { place } => self.make_directory(&place),
            Ask::Rename { from, to } => self.rename(&from, &to),
            Ask::Remove { place, recursive } => self.remove(&place, recursive),
            Ask::List { place, after, most } => {
                let listed = listing::list(&*self.root(&place)?, &place.path, after.as_ref(), most);
                listed.map_err(|trouble| trouble.at(&place.path))
            }
            _ => Err(StorageFault::new(FaultKind::Other, "local files do not know this request")),
        }
    }
}

impl Served {
    fn open(private: Dir, options: &LocalOptions, recovery: &mut Recovery) -> io::Result<Self> {
        let (staging, removed) = Staging::open(private.own_dir(&own("staging"))?, options.staging)?;
        recovery.stages_removed = removed;
        let private = Arc::new(private);
        let index = Index::open(Arc::clone(&private), recovery);
        let history_dir = private.own_dir(&own("history"))?;
        let (generations, marks) = Generations::open(Arc::clone(&private), &index, History::last(&history_dir)?)?;
        recovery.count_lost = marks.are_lost().then(|| Generation::new(marks.last()));
        let (history, removed) = History::open(history_dir, options.history.get(), &index)?;
        recovery.history_removed = removed;
        let (staging, commits) = (Arc::new(staging), Mutex::default());
        Ok(Self { staging, commits, generations, index, history, private })
    }

    fn committing(&self) -> MutexGuard<'_, ()> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a commit and puts it in place; what it replaced may be set aside.
    fn publish(
        &self,
        ready: &Ready<'_>,
        replaces: Option<&Opened>,
    ) -> Result<(Generation, Option<Aside>), StorageFault> {
        let path = &ready.place().path;
        self.generations.prepare(&self.index);
        let _committing = self.committing();
        swap::check(ready, replaces)?;
        let generation = self.generations.next(&self.index).map_err(|error| system_fault(path, &error))?;
        let aside = self.set_aside(path, ready, replaces, generation);
        let modified = ready.is_of_a_tree().then(|| ready.parent().modified());
        if let Err(fault) = swap::put_in_place(ready, replaces) {
            aside.iter().for_each(|aside| self.history.discard(aside));
            return Err(fault);
        }
        // Where that fails the tree is seen to differ when it is compared once more.
        if let Some(Ok(modified)) = modified {
            let _ = ready.parent().set_modified(modified);
        }
        // It is published, whether that is noted or not.
        if let Ok(recorded) = ready.recorded(generation) {
            self.index.publish(path, &recorded);
        }
        Ok((generation, aside))
    }

    /// Counts the commit of a tree that is in place; not where no number is left, or the tree is no longer there.
    fn publish_tree(&self, root: &Root, path: &RelPath, tree: &ChunkList) -> Generation {
        self.generations.prepare(&self.index);
        let _committing = self.committing();
        match root.stat(path) {
            Ok(Some(is)) => self.note_tree(path, tree, Looks::of_stat(&is)),
            Ok(None) | Err(_) => Generation::ZERO,
        }
    }

    /// The commit that published a tree whose directory looks so; one that is at its place as it is `wanted` is counted
    /// as published now, if no such commit is known.
    fn generation_of_tree(&self, path: &RelPath, tree: &ChunkList, looks: Looks, is_wanted: bool) -> Generation {
        let _committing = self.committing();
        let recorded = self.index.recorded_tree(path);
        match recorded.filter(|recorded| recorded.root == tree.root() && recorded.looks == looks) {
            Some(recorded) => recorded.generation,
            None if is_wanted => self.note_tree(path, tree, looks),
            None => Generation::ZERO,
        }
    }

    fn note_tree(&self, path: &RelPath, tree: &ChunkList, looks: Looks) -> Generation {
        let Ok(generation) = self.generations.next(&self.index) else { return Generation::ZERO };
        let (root, algorithm) = (tree.root(), tree.algorithm());
        self.index.publish_tree(path, &Recorded { root, algorithm, generation, looks });
        generation
    }

    /// Forgets what was published at a path where nothing is any more.
    fn forget(&self, root: &Root, path: &RelPath) {
        if let Some(recorded) = self.index.recorded(path)
            && root.stat(path).is_ok_and(|is| is.is_none())
        {
            self.index.forget(path, &recorded);
        }
    }

    fn set_aside(
        &self,
        path: &RelPath,
        ready: &Ready<'_>,
        replaces: Option<&Opened>,
        number: Generation,
    ) -> Option<Aside> {
        let is = ready.parent().stat(ready.target()).ok().flatten()?;
        let looks = Looks::of_stat(&is);
        let described = replaces.filter(|replaces| replaces.looks() == looks)?;
        let chunks = Arc::clone(described.chunks()?);
        let generation = self.generation(path, chunks.root(), &looks);
        // The system counts in 512 bytes, and fewer than it is long where it has holes.
        let bytes = is.blocks.saturating_mul(512);
        self.history.set_aside(ready.parent(), ready.target(), chunks, (looks, bytes), generation, number)
    }

    /// A file other than that at `place` that has this root: published elsewhere, or once there itself.
    fn twin(&self, root: &Root, place: &Place, wanted: Digest, len: ByteLen, limits: &Limits) -> Option<Opened> {
        let elsewhere = self.published(root, place, wanted, len, limits);
        elsewhere.or_else(|| {
            let replaced = self.history.recall(&place.path, wanted, &self.index, limits)?;
            let same = replaced.chunks.len() == len;
            same.then(|| Opened::unnamed(Source::File(replaced.file), place.path.clone()).ok()).flatten()
        })
    }

    fn published(&self, root: &Root, place: &Place, wanted: Digest, len: ByteLen, limits: &Limits) -> Option<Opened> {
        if len > limits.file {
            return None;
        }
        let paths = self.index.paths_of(wanted, TWINS);
        paths.iter().filter(|path| **path != place.path).find_map(|path| self.published_at(root, path, wanted))
    }

    /// The file at this path, when it still is what was published there with this root.
    fn published_at(&self, root: &Root, path: &RelPath, wanted: Digest) -> Option<Opened> {
        let recorded = self.index.recorded(path).filter(|recorded| recorded.root == wanted);
        let Some(recorded) = recorded else {
            self.index.forget_root(path, wanted);
            return None;
        };
        if self.index.damaged(path).is_some() {
            return None;
        }
        match root.file(path) {
            Ok(file) => {
                let looks = Looks::of(&file).ok()?;
                if recorded.looks.under_any_name().still(&looks) {
                    return Some(Opened::known(file, path.clone(), looks));
                }
                self.index.forget_root(path, wanted);
            }
            Err(trouble) if trouble.is_absent() => self.index.forget(path, &recorded),
            Err(_) => self.index.forget_root(path, wanted),
        }
        None
    }

    /// The commit that published a file, when it is still what was published: it has that root, and nobody has written it
    /// since.
    fn generation(&self, path: &RelPath, root: Digest, looks: &Looks) -> Generation {
        let recorded = self.index.recorded(path).filter(|recorded| recorded.root == root);
        let same = recorded.filter(|recorded| recorded.looks.under_any_name().still(looks));
        same.map_or(Generation::ZERO, |recorded| recorded.generation)
    }

    fn recall(&self, key: &Known, root: Digest, limits: &Limits) -> Option<Found> {
        if key.name.is_some() {
            return None;
        }
        let replaced = self.history.recall(&key.path, root, &self.index, limits)?;
        let Replaced { generation, chunks, file } = replaced;
        Some(Found { generation, chunks: Arc::new(chunks), bytes: Source::File(file), secret: None })
    }
}

/// A name in the directory that is ours.
fn own(name: &str) -> Name {
    Name::new(name).expect("letters are a name")
}

impl Drop for Served {
    fn drop(&mut self) {
        self.generations.release(&self.index);
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
