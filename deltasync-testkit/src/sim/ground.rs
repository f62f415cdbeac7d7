//! What is below the watching: the storage that really keeps the files, and loses its power.
//!
//! In memory a commit is one step: it becomes visible and durable at the same moment, some time before its answer. At a
//! power cut the world decides for each commit that is under way whether that moment had come; stages and handles go with
//! the sessions that held them.
//!
//! On a disk the real [`LocalStorage`] runs over a [`SimDisk`], whose calls fail, tear, and die in the middle of a commit.
//! What a commit that failed has left may be the old file or the new one, until a power cut shows.

use std::sync::Arc;

use bytes::Bytes;
use deltasync_core::{Algorithm, ByteLen, Cutter, Digest, Offset, RelPath};
use deltasync_io::{BlockingStorage, LocalOptions, LocalStorage, MemoryStorage};
use deltasync_proto::{Answer, Ask, Cutting, FileHandle, Place, RootId, StorageFault};
use rustix::io::Errno;

use crate::{Rng, SimCall, SimDisk, SimFault};

/// What peers see lies below this root.
const SERVED: RootId = RootId::new(0);
/// Where bytes lie that a disk gives instead of those it was given.
const ROTTEN: RootId = RootId::new(99);
/// What a server keeps of replaced files, in bytes.
const HISTORY: ByteLen = ByteLen::new(256 << 10);

/// A storage whose files can be read past it.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one in a run")]
pub(super) enum Ground {
    /// Files in a map.
    Memory(Arc<MemoryStorage>),
    /// Files on a disk; nothing is stored on one that is not served yet.
    Disk(SimDisk, Option<Box<LocalStorage>>),
}

impl Ground {
    /// Files in a map, none yet.
    pub(super) fn memory() -> Self {
        Self::Memory(Arc::default())
    }

    /// A disk, still empty.
    pub(super) fn disk() -> Self {
        Self::Disk(SimDisk::new(), None)
    }

    /// Begins to serve.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub(super) fn serve(&mut self) -> Result<(), String> {
        let Self::Disk(disk, served) = self else { return Ok(()) };
        let storage = LocalStorage::serve_on(disk.root(), LocalOptions::default().history(HISTORY));
        *served = Some(Box::new(storage.map_err(|error| format!("the server does not start: {error}"))?));
        Ok(())
    }

    pub(super) fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
        match self {
            Self::Memory(storage) => storage.answer(ask),
            Self::Disk(_, storage) => storage.as_ref().expect("it is served").answer(ask),
        }
    }

    pub(super) fn put(&self, path: &RelPath, bytes: Bytes) {
        match self {
            Self::Memory(storage) => storage.insert(SERVED, path.clone(), bytes),
            Self::Disk(disk, _) => disk.put(&path.to_string(), &bytes),
        }
    }

    /// The root of what is there, in BLAKE3.
    pub(super) fn root(&self, path: &RelPath) -> Option<Digest> {
        match self {
            Self::Memory(storage) => storage.get(SERVED, path).map(|bytes| Algorithm::Blake3.digest(&bytes)),
            Self::Disk(disk, _) => disk.get(&path.to_string()).map(|bytes| Algorithm::Blake3.digest(&bytes)),
        }
    }

    /// Lets one of the next calls to the disk go wrong.
    pub(super) fn fail_soon(&self, rng: &mut Rng) {
        let Self::Disk(disk, _) = self else { return };
        let errno = [Errno::IO, Errno::NOSPC, Errno::ACCESS, Errno::INTR][rng.below(4)].raw_os_error();
        let fault = match rng.below(6) {
            0 => SimFault::Short,
            1 => SimFault::Torn(rng.below(5000), errno),
            _ => SimFault::Errno(errno),
        };
        let calls = [SimCall::Rename, SimCall::SyncDir, SimCall::SyncData, SimCall::Write, SimCall::Create];
        let of = (rng.below(3) > 0).then(|| calls[rng.below(calls.len())]);
        let within = if of.is_some() { 2 } else { 30 };
        disk.fail(1 + rng.below(within) as u64, of, fault);
    }

    /// True when the call that was to go wrong has come.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self, Self::Disk(disk, _) if disk.hit().is_some())
    }

    /// Lets one of the next calls to the disk be its last.
    pub(super) fn die_soon(&self, rng: &mut Rng) {
        if let Self::Disk(disk, _) = self {
            disk.fail(1 + rng.below(24) as u64, None, SimFault::Crash);
        }
    }

    /// The power is cut, and the server starts again on what is left.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub(super) fn lose_power(&mut self, rng: &mut Rng) -> Result<(), String> {
        if let Self::Disk(disk, _) = self {
            *self = Self::Disk(disk.power_cut(rng), None);
        }
        self.serve()
    }

    /// An opened file as it looks to who reads it after one of its bits has flipped.
    pub(super) fn rotten(&self, file: &FileHandle, len: ByteLen, rng: &mut Rng) -> Option<FileHandle> {
        let Self::Memory(storage) = self else { return None };
        let ranges = vec![(Offset::ZERO, len)];
        let Ok(Answer::Read(bytes)) = storage.answer(Ask::Read { file: file.clone(), ranges }) else { return None };
        let mut bytes = bytes.to_vec();
        let at = rng.below(bytes.len().max(1));
        *bytes.get_mut(at)? ^= 1 << rng.below(8);
        let path = RelPath::new(*b"rotten").expect("a plain name");
        storage.insert(ROTTEN, path.clone(), bytes);
        let place = Place { root: ROTTEN, path };
        let cutting = Cutting::Exactly(Cutter::for_len(len));
        match storage.answer(Ask::Describe { place, cutting, algorithm: Algorithm::Blake3, remember: None }) {
            Ok(Answer::Described(file)) => Some(file.file),
            _ => None,
        }
    }
}
