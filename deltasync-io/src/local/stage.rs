//! A target in the making: a file that nobody sees, then, in one step, the one that everybody sees.
//!
//! Steps are appended and hashed as they come, see `output`. A commit makes the data durable, counts the generation,
//! renames over the target and makes the directory durable, in this order; only then is it answered. Whatever fails
//! before the rename, the old file stays as it was, and a sync that failed is never tried again: the system may have
//! dropped what it could not write. When the directory's sync fails the new file is in place, whole, and the fault says
//! that it may not last. Directories are synced for many commits at once, see `syncing`.
//!
//! A target that could not fit, by what the disk says is free, is refused before anything is sent. Room is set aside
//! only as bytes come, some way ahead of them, so an announced length costs nothing.
//!
//! Invariant: a stage that is dropped before its commit leaves nothing, or, when 64 KiB or more of it had come, a
//! partial that the next transfer goes on from: see `staging` and `beside`.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltasync_core::{
    Algorithm, Attributes, ByteLen, ChunkList, Digest, Generation, Hasher, LimitExceeded, Limits, Name, RelPath,
};
use deltasync_proto::{FaultKind, Place, StorageFault};

use super::beside;
use super::listed::{is_told_apart, outwait};
use super::opened::Opened;
use super::recorded::Recorded;
use super::root::{Dir, Root, Trouble};
use super::staging::{LEAST, Staging, Target};
use super::syncing::Syncing;
use super::tree::mode_of;
use crate::disk::{AnyFile, DiskKind, DiskStat};
use crate::fault::{fault, system_fault};
use crate::source::{Looks, Source};

mod output;
use output::Listing;
pub(super) use output::Sealed;

/// What a [`StageHandle`](deltasync_proto::StageHandle) of ours holds.
#[derive(Debug)]
pub(super) struct Stage {
    place: Place,
    /// The target's name in its directory.
    target: Name,
    len: u64,
    algorithm: Algorithm,
    /// The root it will have.
    root: Digest,
    /// The bounds of its chunk list, where lists are kept.
    listing: Option<Limits>,
    file: AnyFile,
    /// The staging of the directory that is ours, when it is staged there, and as what.
    ours: Option<(Arc<Staging>, Target)>,
    /// Where the staged file is, and its name there.
    directory: Arc<Dir>,
    name: Name,
    /// Where the target goes, or `None` when that directory is still to be made.
    parent: Option<Arc<Dir>>,
    /// Directories that were made for it, the deepest last.
    made: Vec<(Dir, Name)>,
    /// What was at its place when it began.
    replaced: Option<DiskStat>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many bytes have been appended.
    written: u64,
    /// It has the permissions and the time that it will have.
    adorned: bool,
    /// How much room it has claimed, in bytes.
    claimed: u64,
    /// How much room the disk has set aside, in bytes.
    aside: u64,
    /// How long the file is, in bytes: shorter than what was appended where the end of that was left out.
    file_len: u64,
    /// Something was left out.
    sparse: bool,
    hasher: Hasher,
    /// Its chunk list in the making.
    listing: Option<Listing>,
    /// Its chunk list, once it is sealed.
    list: Option<Arc<ChunkList>>,
    /// All of its data has been synced.
    durable: bool,
    /// What has become of it, once a commit was tried.
    end: Option<End>,
}

impl State {
    fn new(algorithm: Algorithm) -> Self {
        Self {
            written: 0,
            adorned: false,
            claimed: 0,
            aside: 0,
            file_len: 0,
            sparse: false,
            hasher: algorithm.hasher(),
            listing: None,
            list: None,
            durable: false,
            end: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Failed,
    Published,
}

/// How often a stage looks for a name that is not taken, or a directory that stays.
const TRIES: u32 = 8;

/// How far ahead of what has come room is claimed, and set aside at most, in bytes.
const AHEAD: u64 = 64 << 20;

/// What a served directory leaves free: a hundredth of the disk, but no more than this, in bytes.
const SPARE_MAX: u64 = 64 << 20;

/// The directories of a storage that commits are syncing, by device and inode.
pub(super) type Directories = Syncing<(u64, u64), Arc<Dir>>;

impl Stage {
    /// Begins a target of `len` bytes, which will have the root `digest`, in `staging`, or beside the target when there
    /// is no such directory or it lies on another file system.
    pub(super) fn begin(
        root: &Root,
        staging: Option<&Arc<Staging>>,
        place: Place,
        (len, algorithm, digest): (ByteLen, Algorithm, Digest),
        limits: &Limits,
    ) -> Result<Self, StorageFault> {
        let at_place = |trouble: Trouble| trouble.at(&place.path);
        LimitExceeded::check("file length", len.get(), limits.file.get())
            .map_err(|error| fault(FaultKind::TooLarge, &place.path, error))?;
        let (parent_path, target) = place.path.split_last().ok_or_else(|| at_place(Trouble::Directory))?;
        let replaced = root.stat(&place.path).map_err(at_place)?;
        check_target(replaced.as_ref()).map_err(at_place)?;
        // Never the bits that lend a user's rights; and what is new gets what the process gives to new files.
        let mode = replaced.map(|stat| stat.mode & 0o777);

        let ours = staging.map(|staging| (staging, Target::new(&place, algorithm, digest)));
        let mut begun = None;
        for _ in 0..TRIES {
            match Self::create(root, ours, &parent_path, &target, mode) {
                // The name is taken, or another stage has just taken away the directory that it had made.
                Err(Trouble::System(error))
                    if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) =>
                {
                    begun = Some(Err(Trouble::System(error)));
                }
                done => {
                    begun = Some(done);
                    break;
                }
            }
        }
        let Created { file, ours, directory, name, parent, made } =
            begun.expect("it was tried at least once").map_err(at_place)?;
        let (len, state) = (len.get(), Mutex::new(State::new(algorithm)));
        let (root, listing) = (digest, staging.map(|_| limits.clone()));
        let stage = Self {
            target,
            len,
            algorithm,
            root,
            listing,
            file,
            ours,
            directory,
            name,
            parent,
            made,
            replaced,
            state,
            place,
        };
        // It is likely to have as many holes as what it replaces.
        let holes = replaced.map_or(0, |is| is.len.saturating_sub(is.blocks.saturating_mul(512)));
        stage.check_room(stage.len.saturating_sub(holes))?;
        if let Some(mode) = mode {
            stage.file.set_mode(mode).map_err(|error| system_fault(&stage.place.path, &error))?;
        }
        Ok(stage)
    }

    /// Where it will be published.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// True once it has been put in place, whether that lasts or not.
    pub(super) fn is_published(&self) -> bool {
        self.state().end == Some(End::Published)
    }

    /// Sets the permissions and the time that it will have.
    pub(super) fn adorn(&self, attributes: Attributes) -> Result<(), StorageFault> {
        let mut state = self.open_state()?;
        // That would give it a new time: its end may be a hole.
        self.settle_len(&mut state).map_err(|error| system_fault(&self.place.path, &error))?;
        let set = self.file.set_mode(mode_of(attributes, 0));
        set.and_then(|()| self.file.set_modified(attributes.modified()))
            .map_err(|error| system_fault(&self.place.path, &error))?;
        state.adorned = true;
        Ok(())
    }

    /// The digest of all that was appended.
    pub(super) fn seal(&self) -> Result<Sealed, StorageFault> {
        let mut state = self.open_state()?;
        let digest = state.hasher.clone().finish();
        let doubtful = state.listing.take_if(|_| digest != self.root).map(|listing| listing.looks);
        Ok(Sealed { digest, doubtful })
    }

    /// Opens what was appended, for reading.
    pub(super) fn reopen(&self) -> Result<Opened, StorageFault> {
        let mut state = self.open_state()?;
        self.settle_len(&mut state).map_err(|error| system_fault(&self.place.path, &error))?;
        drop(state);
        Opened::unnamed(Source::File(self.file.clone()), self.place.path.clone())
            .map_err(|error| system_fault(&self.place.path, &error))
    }

    /// Publishes the target. `publish` is called between the data's sync and the directory's: it counts the commit, and
    /// has the file put in place. After a fault of kind [`FaultKind::Conflict`] from it the stage can be committed
    /// again.
    pub(super) fn commit(
        &self,
        root: &Root,
        directories: &Directories,
        publish: impl FnOnce(&Ready<'_>) -> Result<Generation, StorageFault>,
    ) -> Result<Generation, StorageFault> {
        let mut state = self.open_state()?;
        if state.written != self.len {
            return Err(self.fault(format_args!("{} of {} bytes are staged", state.written, self.len)));
        }
        // Whatever happens from here on happens once, unless another version is there.
        state.end = Some(End::Failed);
        let system = |error: io::Error| system_fault(&self.place.path, &error);
        if !state.durable {
            self.settle_len(&mut state).map_err(system)?;
            self.file.sync_data().map_err(system)?;
            state.durable = true;
        }
        let digest = state.hasher.clone().finish();
        let list = self.finish_list(&mut state, digest).and_then(|list| Some((self.file.stat().ok()?, list)));
        list.iter().for_each(|(before, _)| outwait(before));
        let parent = match &self.parent {
            Some(parent) => Arc::clone(parent),
            None => {
                let (path, _) = self.place.path.split_last().unwrap_or_else(|| (RelPath::ROOT, self.target.clone()));
                Arc::new(root.make_directory(&path).map_err(|trouble| trouble.at(&self.place.path))?.0)
            }
        };
        let which = parent.identity().map_err(system)?;
        let ready = Ready { stage: self, root, parent: &parent, digest, list, adorned: state.adorned };
        let turn = directories.turn();
        let published = publish(&ready);
        state.end = match &published {
            Ok(_) => Some(End::Published),
            Err(fault) => (fault.kind != FaultKind::Conflict).then_some(End::Failed),
        };
        let generation = published?;
        let unsure = |error| self.fault(format_args!("in place, but it may not outlast a power cut: {error}"));
        directories.sync(&which, turn, parent, |parent| parent.sync()).map_err(unsure)?;
        self.forget_partials();
        Ok(generation)
    }

    fn create(
        root: &Root,
        ours: Option<(&Arc<Staging>, Target)>,
        parent: &RelPath,
        target: &Name,
        mode: Option<u32>,
    ) -> Result<Created, Trouble> {
        // What replaces a file that others must not read is not readable by others for a moment.
        let mode = mode.map_or(0o666, |_| 0o600);
        if let Some((staging, which)) = ours {
            let parent = match root.directory(parent) {
                Ok(dir) => Some(Arc::new(dir)),
                Err(trouble) if trouble.is_absent() => None,
                Err(trouble) => return Err(trouble),
            };
            let same = parent
                .as_ref()
                .map_or(Ok(true), |dir| Ok::<_, io::Error>(dir.device()? == staging.directory().device()?))?;
            if same {
                let (name, directory) = (which.name(getrandom::u32().map_err(io::Error::from)?), staging.directory());
                let file = directory.create(&name, mode)?;
                let (ours, directory) = (Some((Arc::clone(staging), which)), Arc::clone(directory));
                return Ok(Created { file, ours, directory, name, parent, made: Vec::new() });
            }
        }
        let (dir, made) = root.make_directory(parent)?;
        let dir = Arc::new(dir);
        match beside::create(&dir, target, mode) {
            Ok((name, file)) => {
                Ok(Created { file, ours: None, directory: Arc::clone(&dir), name, parent: Some(dir), made })
            }
            Err(error) => {
                remove_dirs(&made);
                Err(error.into())
            }
        }
    }

    /// Refuses what the disk has no room for, before anything is sent, if it takes `bytes`. Partials give way.
    fn check_room(&self, bytes: u64) -> Result<(), StorageFault> {
        let full = |what: std::fmt::Arguments<'_>| Err(fault(FaultKind::Full, &self.place.path, what));
        let quota = self.ours.as_ref().map_or(u64::MAX, |(staging, _)| staging.quota());
        if self.len > quota {
            return full(format_args!("{} bytes are more than may be staged at once ({quota})", self.len));
        }
        // What cannot be told now shows when bytes come.
        while let Ok(Some(space)) = self.directory.space()
            && bytes > 0
        {
            let spare = self.ours.as_ref().map_or(0, |_| (space.total / 100).min(SPARE_MAX));
            let wanted = bytes.saturating_add(spare);
            if wanted <= space.free {
                break;
            }
            let could = |staging: &Staging| space.free.saturating_add(staging.partial_bytes()) >= wanted;
            if !self.ours.as_ref().is_some_and(|(staging, _)| could(staging) && staging.give_way()) {
                return full(format_args!("no room for {bytes} bytes: {} are free on the disk", space.free));
            }
        }
        Ok(())
    }

    /// Does something that may find the disk full; partials give way then. Never a sync.
    fn making_room(&self, f: impl Fn() -> io::Result<()>) -> io::Result<()> {
        loop {
            match f() {
                Err(error)
                    if error.kind() == io::ErrorKind::StorageFull
                        && self.ours.as_ref().is_some_and(|(staging, _)| staging.give_way()) => {}
                done => return done,
            }
        }
    }

    /// The target is there: what is kept of it is of no use.
    fn forget_partials(&self) {
        match &self.ours {
            Some((staging, target)) => staging.forget(target),
            None => beside::forget(&self.directory, &self.target),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_state(&self) -> Result<MutexGuard<'_, State>, StorageFault> {
        let state = self.state();
        if state.end.is_some() { Err(self.fault("a commit of it was tried before")) } else { Ok(state) }
    }

    fn fault(&self, what: impl std::fmt::Display) -> StorageFault {
        fault(FaultKind::Other, &self.place.path, what)
    }
}

/// A target whose data is durable, about to be put in place.
pub(super) struct Ready<'a> {
    stage: &'a Stage,
    root: &'a Root,
    parent: &'a Dir,
    digest: Digest,
    /// Its chunk list, and how the file was stamped when it was synced.
    list: Option<(DiskStat, Arc<ChunkList>)>,
    /// It has the permissions and the time that it is to have.
    adorned: bool,
}

impl Ready<'_> {
    /// It is a file of a tree, which says when its directory was modified.
    pub(super) fn is_of_a_tree(&self) -> bool {
        self.adorned
    }

    /// False when the directory that it goes into may have been taken away with a tree that was exchanged: it is not the
    /// one at its path. Into one that was only moved it may go.
    pub(super) fn is_parent_there(&self) -> Result<bool, StorageFault> {
        if !self.root.is_exchanged() {
            return Ok(true);
        }
        let path = self.stage.place.path.split_last().map_or(RelPath::ROOT, |(path, _)| path);
        let system = |error: io::Error| system_fault(&path, &error);
        match self.root.directory(&path) {
            Ok(parent) => Ok(parent.identity().map_err(system)? == self.parent.identity().map_err(system)?),
            Err(trouble) if trouble.is_absent() => Ok(false),
            Err(trouble) => Err(trouble.at(&path)),
        }
    }

    /// Puts it in place, in one step.
    pub(super) fn put_in_place(&self) -> io::Result<()> {
        self.stage.directory.rename(&self.stage.name, self.parent, &self.stage.target)
    }

    /// Puts it in place, in one step, unless something is there.
    pub(super) fn put_in_vacant_place(&self) -> io::Result<()> {
        self.stage.directory.rename_to_vacant(&self.stage.name, self.parent, &self.stage.target)
    }

    /// Where it goes.
    pub(super) fn place(&self) -> &Place {
        &self.stage.place
    }

    /// The directory it goes into.
    pub(super) fn parent(&self) -> &Dir {
        self.parent
    }

    /// Its name there.
    pub(super) fn target(&self) -> &Name {
        &self.stage.target
    }

    /// What is to be noted of it, once it is in place as this generation.
    pub(super) fn recorded(&self, generation: Generation) -> io::Result<Recorded> {
        let looks = Looks::of(&self.stage.file)?;
        Ok(Recorded { root: self.digest, algorithm: self.stage.algorithm, generation, looks })
    }

    /// Its chunk list and how it looks, once it is in place, where that tells it apart from what is written later.
    pub(super) fn listed(&self) -> Option<(Looks, Arc<ChunkList>)> {
        let (before, list) = self.list.as_ref()?;
        let looks = Looks::of(&self.stage.file).ok()?;
        is_told_apart(before, &looks).then(|| (looks, Arc::clone(list)))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let (end, written, claimed) = {
            let state = self.state();
            (state.end, state.written, state.claimed)
        };
        if let Some((staging, _)) = &self.ours {
            staging.release(claimed);
        }
        if end == Some(End::Published) {
            return;
        }
        // There is nobody to tell of a failure here; what stays in a served directory is looked at at the next start.
        let kept = end.is_none() && written >= LEAST && self.file.set_len(written).is_ok();
        match &self.ours {
            Some((staging, target)) if kept => staging.keep(*target, self.name.clone()),
            // Whoever has published there meanwhile has taken away what others had left, and this will not be looked for.
            None if kept && self.directory.stat(&self.target).is_ok_and(|is| is == self.replaced) => {}
            Some(_) | None => drop(self.directory.remove(&self.name)),
        }
        remove_dirs(&self.made);
    }
}

/// Removes directories that were made for a stage, as far as nothing has come into them.
fn remove_dirs(made: &[(Dir, Name)]) {
    for (parent, name) in made.iter().rev() {
        let _ = parent.remove_dir(name);
    }
}

/// A staged file and all about its place.
struct Created {
    file: AnyFile,
    ours: Option<(Arc<Staging>, Target)>,
    directory: Arc<Dir>,
    name: Name,
    parent: Option<Arc<Dir>>,
    made: Vec<(Dir, Name)>,
}

/// Only a regular file is replaced.
pub(super) fn check_target(replaced: Option<&DiskStat>) -> Result<(), Trouble> {
    match replaced.map(|stat| stat.kind) {
        None | Some(DiskKind::File) => Ok(()),
        Some(DiskKind::Directory) => Err(Trouble::Directory),
        Some(DiskKind::Symlink) => Err(Trouble::Symlink),
        Some(DiskKind::Other) => Err(Trouble::NotFile),
    }
}
