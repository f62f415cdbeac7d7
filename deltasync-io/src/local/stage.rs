//! A target in the making: a file that nobody sees, then, in one step, the one that everybody sees.
//!
//! Steps are appended through one buffer, so that many small ones cost one write, and hashed as they are written. A
//! commit makes the data durable, counts the generation, renames over the target and makes the directory durable, in
//! this order; only then is it answered. Whatever fails before the rename, the old file stays as it was, and a sync that
//! failed is never tried again: the system may have dropped what it could not write. When the directory's sync fails the
//! new file is in place, whole, and the fault says that it may not last.
//!
//! Invariant: a stage that is dropped before its commit leaves nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltasync_core::{
    Algorithm, ByteLen, Digest, Generation, Hasher, LimitExceeded, Limits, Name, Plan, RelPath, Step,
};
use deltasync_proto::{FaultKind, Place, StorageFault};
use rustix::fs::{FileType, Mode, Stat};

use super::opened::Opened;
use super::root::{Dir, Root, Trouble, staged_name};
use crate::fault::{fault, system_fault};
use crate::source::{Looks, Source, with_buffer};

/// What a [`StageHandle`](deltasync_proto::StageHandle) of ours holds.
#[derive(Debug)]
pub(super) struct Stage {
    place: Place,
    /// The target's name in its directory.
    target: Name,
    len: u64,
    file: File,
    /// Where the staged file is, and its name there.
    directory: Arc<Dir>,
    name: Name,
    /// Where the target goes, or `None` when that directory is still to be made.
    parent: Option<Arc<Dir>>,
    /// Directories that were made for it, the deepest last.
    made: Vec<(Dir, Name)>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many bytes have been appended.
    written: u64,
    hasher: Hasher,
    /// What has become of it, once a commit was tried.
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Failed,
    Published,
}

/// How often a stage looks for a name that is not taken, or a directory that stays.
const TRIES: u32 = 8;

impl Stage {
    /// Begins a target of `len` bytes in `staging`, or beside the target when there is no such directory or it lies on
    /// another file system.
    pub(super) fn begin(
        root: &Root,
        staging: Option<&Arc<Dir>>,
        place: Place,
        len: ByteLen,
        algorithm: Algorithm,
        limits: &Limits,
    ) -> Result<Self, StorageFault> {
        let at_place = |trouble: Trouble| trouble.at(&place.path);
        LimitExceeded::check("file length", len.get(), limits.file.get())
            .map_err(|error| fault(FaultKind::TooLarge, &place.path, error))?;
        let (parent_path, target) = place.path.split_last().ok_or_else(|| at_place(Trouble::Directory))?;
        let replaced = root.stat(&place.path).map_err(at_place)?;
        check_target(replaced.as_ref()).map_err(at_place)?;
        // Never the bits that lend a user's rights; and what is new gets what the process gives to new files.
        let mode = replaced.map(|stat| Mode::from_raw_mode(stat.st_mode & 0o777));

        let mut begun = None;
        for _ in 0..TRIES {
            match Self::create(root, staging, &parent_path, &target, mode) {
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
        let Created { file, directory, name, parent, made } =
            begun.expect("it was tried at least once").map_err(at_place)?;
        let state = State { written: 0, hasher: algorithm.hasher(), end: None };
        let stage =
            Self { target, len: len.get(), file, directory, name, parent, made, state: Mutex::new(state), place };
        stage.prepare(mode).map_err(|error| system_fault(&stage.place.path, &error))?;
        Ok(stage)
    }

    /// Where it will be published.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Appends the steps of a plan.
    pub(super) fn apply(&self, basis: Option<&Opened>, plan: &Plan, literals: &[u8]) -> Result<(), StorageFault> {
        let mut state = self.open_state()?;
        with_buffer(|buffer| {
            let mut filled = 0;
            for step in plan.steps() {
                match *step {
                    Step::Literal { start, len } => {
                        let end = start.checked_add(len);
                        let piece = end.and_then(|end| literals.get(start..end));
                        let mut piece = piece.ok_or_else(|| self.fault("fewer literals than the plan has"))?;
                        if piece.len() >= buffer.len() {
                            self.append(&mut state, &buffer[..std::mem::take(&mut filled)])?;
                            self.append(&mut state, std::mem::take(&mut piece))?;
                        }
                        while !piece.is_empty() {
                            let len = piece.len().min(buffer.len() - filled);
                            let (now, later) = piece.split_at(len);
                            buffer[filled..filled + len].copy_from_slice(now);
                            filled = self.filled(&mut state, buffer, filled + len)?;
                            piece = later;
                        }
                    }
                    Step::Copy { from, len } => {
                        let basis = basis.ok_or_else(|| self.fault("a copy without a basis"))?;
                        let (mut from, mut rest) = (from.get(), len.get());
                        while rest > 0 {
                            let room = buffer.len() - filled;
                            let len = usize::try_from(rest).map_or(room, |rest| rest.min(room));
                            basis.read_exactly(&mut buffer[filled..filled + len], from)?;
                            filled = self.filled(&mut state, buffer, filled + len)?;
                            (from, rest) = (from + len as u64, rest - len as u64);
                        }
                    }
                }
            }
            self.append(&mut state, &buffer[..filled])
        })
    }

    /// The digest of all that was appended.
    pub(super) fn seal(&self) -> Result<Digest, StorageFault> {
        Ok(self.open_state()?.hasher.clone().finish())
    }

    /// Opens what was appended, for reading.
    pub(super) fn reopen(&self) -> Result<Opened, StorageFault> {
        let state = self.open_state()?;
        let system = |error: io::Error| system_fault(&self.place.path, &error);
        let file = self.file.try_clone().map_err(system)?;
        drop(state);
        Opened::unnamed(Source::File(file), self.place.path.clone()).map_err(system)
    }

    /// Publishes the target. `publish` is called between the data's sync and the directory's: it counts the commit, and
    /// has the file put in place.
    pub(super) fn commit(
        &self,
        root: &Root,
        publish: impl FnOnce(&Ready<'_>) -> io::Result<Generation>,
    ) -> Result<Generation, StorageFault> {
        let mut state = self.open_state()?;
        if state.written != self.len {
            return Err(self.fault(format_args!("{} of {} bytes are staged", state.written, self.len)));
        }
        // Whatever happens from here on happens once.
        state.end = Some(End::Failed);
        let system = |error: io::Error| system_fault(&self.place.path, &error);
        self.file.sync_data().map_err(system)?;
        let parent = match &self.parent {
            Some(parent) => Arc::clone(parent),
            None => {
                let (path, _) = self.place.path.split_last().unwrap_or_else(|| (RelPath::ROOT, self.target.clone()));
                Arc::new(root.make_directory(&path).map_err(|trouble| trouble.at(&self.place.path))?.0)
            }
        };
        let ready = Ready { stage: self, parent: &parent, digest: state.hasher.clone().finish() };
        let generation = publish(&ready).map_err(system)?;
        state.end = Some(End::Published);
        let unsure = |error| self.fault(format_args!("in place, but it may not outlast a power cut: {error}"));
        parent.sync().map_err(unsure)?;
        Ok(generation)
    }

    fn create(
        root: &Root,
        staging: Option<&Arc<Dir>>,
        parent: &RelPath,
        target: &Name,
        mode: Option<Mode>,
    ) -> Result<Created, Trouble> {
        let number = getrandom::u32().map_err(io::Error::from)?;
        let name = staged_name(target, number);
        // What replaces a file that others must not read is not readable by others for a moment.
        let mode = mode.map_or(Mode::from_raw_mode(0o666), |_| Mode::RUSR | Mode::WUSR);
        if let Some(staging) = staging {
            let parent = match root.directory(parent) {
                Ok(dir) => Some(Arc::new(dir)),
                Err(trouble) if trouble.is_absent() => None,
                Err(trouble) => return Err(trouble),
            };
            let same =
                parent.as_ref().map_or(Ok(true), |dir| Ok::<_, io::Error>(dir.device()? == staging.device()?))?;
            if same {
                let file = staging.create(&name, mode)?;
                return Ok(Created { file, directory: Arc::clone(staging), name, parent, made: Vec::new() });
            }
        }
        let (dir, made) = root.make_directory(parent)?;
        let dir = Arc::new(dir);
        match dir.create(&name, mode) {
            Ok(file) => Ok(Created { file, directory: Arc::clone(&dir), name, parent: Some(dir), made }),
            Err(error) => {
                remove_dirs(&made);
                Err(error.into())
            }
        }
    }

    /// Sets the mode, and has the system set the space aside, so that a full disk shows before anything is sent.
    fn prepare(&self, mode: Option<Mode>) -> io::Result<()> {
        if let Some(mode) = mode {
            rustix::fs::fchmod(&self.file, mode)?;
        }
        set_aside(&self.file, self.len)
    }

    /// Writes the buffer out when it is full; returns how much of it is filled then.
    fn filled(&self, state: &mut State, buffer: &[u8], filled: usize) -> Result<usize, StorageFault> {
        if filled < buffer.len() {
            return Ok(filled);
        }
        self.append(state, buffer)?;
        Ok(0)
    }

    fn append(&self, state: &mut State, piece: &[u8]) -> Result<(), StorageFault> {
        if piece.len() as u64 > self.len - state.written {
            return Err(self.fault(format_args!("more than the announced {} bytes", self.len)));
        }
        self.file.write_all_at(piece, state.written).map_err(|error| system_fault(&self.place.path, &error))?;
        state.hasher.update(piece);
        state.written += piece.len() as u64;
        Ok(())
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
    parent: &'a Dir,
    digest: Digest,
}

impl Ready<'_> {
    /// Puts it in place, in one step.
    pub(super) fn put_in_place(&self) -> io::Result<()> {
        self.stage.directory.rename(&self.stage.name, self.parent, &self.stage.target)
    }

    /// The directory it goes into.
    pub(super) fn parent(&self) -> &Dir {
        self.parent
    }

    /// Its name there.
    pub(super) fn target(&self) -> &Name {
        &self.stage.target
    }

    /// Its root.
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// How it looks.
    pub(super) fn looks(&self) -> io::Result<Looks> {
        Looks::of(&self.stage.file)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.state().end == Some(End::Published) {
            return;
        }
        // There is nobody to tell of a failure here; what stays in a served directory is swept at the next start.
        let _ = self.directory.remove(&self.name);
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
    file: File,
    directory: Arc<Dir>,
    name: Name,
    parent: Option<Arc<Dir>>,
    made: Vec<(Dir, Name)>,
}

#[cfg(target_os = "linux")]
fn set_aside(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;
    if len == 0 {
        return Ok(());
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, len) {
            Err(Errno::INTR) => {}
            // Not every file system can.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn set_aside(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

/// Only a regular file is replaced.
fn check_target(replaced: Option<&Stat>) -> Result<(), Trouble> {
    match replaced.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        None | Some(FileType::RegularFile) => Ok(()),
        Some(FileType::Directory) => Err(Trouble::Directory),
        Some(FileType::Symlink) => Err(Trouble::Symlink),
        Some(_) => Err(Trouble::NotFile),
    }
}
