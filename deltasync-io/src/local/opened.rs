//! An opened file: read once to be cut and hashed, then at any place, and known again by how it looked.
//!
//! How it looks is its device, inode, length and times, taken before the first byte is read and compared after the last
//! one; a file that changed meanwhile is read again from the start, a few times.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use deltasync_core::{ByteLen, ChunkList, Generation, LimitExceeded, Offset, RelPath};
use deltasync_proto::{FaultKind, FileHandle, OpenedFile, Place, StorageFault};

use super::chunked::{Chunking, NoList, START};
use super::index::Index;
use super::listed::LEAST;
use super::root::{Root, Trouble};
use crate::buffers::Buffer;
use crate::disk::{AnyFile, DiskStat};
use crate::fault::{fault, system_fault};
use crate::known::Summing;
use crate::lock::lock;
use crate::source::{Looks, Source};

/// What a [`FileHandle`] of ours holds.
#[derive(Debug)]
pub(super) struct Opened {
    source: Source,
    /// What it is called in a fault.
    path: RelPath,
    len: u64,
    looks: Looks,
    /// How many names it had when it was opened.
    links: u64,
    /// Its chunks, where it was described.
    chunks: Option<Arc<ChunkList>>,
    /// It has holes.
    sparse: bool,
    /// The sums that were made when it was described, until it is remembered.
    sums: Mutex<Option<Summing>>,
}

/// How often a file is read that changes meanwhile.
const TRIES: u32 = 3;

/// The most bytes that one request reads; sessions ask for pieces of 256 KiB.
const READ_MAX: u64 = 64 << 20;

impl Opened {
    /// Opens a file, cuts it and hashes it, and makes the sums that `begin` begins; `None` when it is not there.
    pub(super) fn describe(
        root: &Root,
        place: &Place,
        chunking: Chunking<'_>,
        begin: impl Fn(&Source, &Looks) -> Option<Summing>,
    ) -> Result<Option<OpenedFile>, StorageFault> {
        for _ in 0..TRIES {
            let file = match root.file(&place.path) {
                Ok(file) => file,
                Err(trouble) if trouble.is_absent() => return Ok(None),
                Err(trouble) => return Err(trouble.at(&place.path)),
            };
            let at_place = |error: io::Error| system_fault(&place.path, &error);
            let looks = Looks::of(&file).map_err(at_place)?;
            let opened = Self::known(file, place.path.clone(), looks);
            let sums = begin(&opened.source, &looks);
            // No further than its end: it may grow faster than we read.
            let read = |piece: &mut [u8], at| opened.read_or_hole(piece, at);
            let chunks = match (Chunking { sums: sums.as_ref(), ..chunking }).list(looks.len, read) {
                Ok(chunks) => Arc::new(chunks),
                Err(NoList::Shorter) => continue,
                Err(NoList::System(error)) => return Err(at_place(error)),
                Err(NoList::TooLarge(error)) => return Err(fault(FaultKind::TooLarge, &place.path, error)),
            };
            if opened.source.looks().map_err(at_place)? == looks {
                return Ok(Some(Self { sums: Mutex::new(sums), ..opened }.described(chunks)));
            }
        }
        Err(fault(FaultKind::Changed, &place.path, format_args!("changed while it was read, {TRIES} times in a row")))
    }

    /// Cuts what an earlier stage of a target has left, with the file that is there behind it, as one file. `None` when
    /// that cannot be read, or together is longer than a file may be.
    ///
    /// # Security
    ///
    /// It may be anything: nobody has checked it, and it may change while it is read, as any basis may.
    pub(super) fn of_partial(
        partial: AnyFile,
        file: Option<&Self>,
        path: &RelPath,
        chunking: Chunking<'_>,
    ) -> Option<OpenedFile> {
        let first = partial.len().ok()?;
        let behind = file.and_then(|file| Some((file.source.as_any_file()?.clone(), file.len)));
        let source = match behind.filter(|(_, len)| first.saturating_add(*len) <= chunking.limits.file.get()) {
            Some(behind) => Source::Joined([(partial, first), behind]),
            None => Source::File(partial),
        };
        let opened = Self::unnamed(source, path.clone()).ok().filter(|opened| opened.len > 0)?;
        let chunks = chunking.list(opened.len, |piece, at| opened.source.read_exact_at(piece, at)).ok()?;
        Some(opened.described(Arc::new(chunks)))
    }

    /// Opens a file whose chunks the index knows, and reads at most its first bytes; `None` when it has to be read, or is
    /// not there.
    pub(super) fn listed(root: &Root, place: &Place, chunking: Chunking<'_>, index: &Index) -> Option<OpenedFile> {
        let file = root.file(&place.path).ok()?;
        let longest = chunking.limits.file.get();
        let looks = Looks::of(&file).ok().filter(|looks| (LEAST..=longest).contains(&looks.len))?;
        let mut start = [0; START];
        file.read_exact_at(&mut start, 0).ok()?;
        let cutter = chunking.cutting.cutter(ByteLen::new(looks.len), &start);
        let chunks = index.list_of(&looks, cutter, chunking.algorithm, chunking.limits)?;
        Some(Self::known(file, place.path.clone(), looks).described(Arc::new(chunks)))
    }

    /// A file that is known to have looked so when it was read.
    pub(super) fn known(file: AnyFile, path: RelPath, looks: Looks) -> Self {
        let (sparse, links) = (file.is_sparse(), file.stat().map_or(1, |is| is.links));
        let (source, len) = (Source::File(file), looks.len);
        Self { source, path, len, looks, links, chunks: None, sparse, sums: Mutex::default() }
    }

    /// What lies open already, as it looks now; `path` is what it is called in a fault. It is known by no name of its own:
    /// that it gets one, or loses the one it has, is no change.
    pub(super) fn unnamed(source: Source, path: RelPath) -> io::Result<Self> {
        let (len, looks) = (source.len()?, source.looks()?.under_any_name());
        let sparse = source.as_any_file().is_some_and(AnyFile::is_sparse);
        // By no name is it looked at again.
        Ok(Self { source, path, len, looks, links: 0, chunks: None, sparse, sums: Mutex::default() })
    }

    /// The same with its chunks; no commit of it is known.
    pub(super) fn described(self, chunks: Arc<ChunkList>) -> OpenedFile {
        let opened = Self { chunks: Some(Arc::clone(&chunks)), ..self };
        OpenedFile { file: FileHandle::new(opened), chunks, generation: Generation::ZERO, omitted: Arc::default() }
    }

    /// Its chunks, where it was described.
    pub(super) fn chunks(&self) -> Option<&Arc<ChunkList>> {
        self.chunks.as_ref()
    }

    /// The sums that were made when it was described, once.
    pub(super) fn take_sums(&self) -> Option<Summing> {
        lock(&self.sums).take()
    }

    /// Where its bytes are read from.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// How it looked when it was described.
    pub(super) fn looks(&self) -> Looks {
        self.looks
    }

    /// True when what has a name now is this file, as it looked. That it has got or lost another name since it was opened
    /// is no change.
    pub(super) fn is_still(&self, is: &DiskStat) -> bool {
        let now = Looks::of_stat(is);
        self.looks.still(&now) || is.links != self.links && self.looks.under_any_name().still(&now)
    }

    /// Reads ranges one after the other into one piece.
    pub(super) fn read(&self, ranges: &[(Offset, ByteLen)]) -> Result<Bytes, StorageFault> {
        let mut total = 0u64;
        for (start, len) in ranges {
            if start.checked_add(*len).is_none_or(|end| end.get() > self.len) {
                return Err(self.changed());
            }
            total = total.saturating_add(len.get());
        }
        LimitExceeded::check("bytes of one read", total, READ_MAX)
            .map_err(|error| fault(FaultKind::TooLarge, &self.path, error))?;
        let mut bytes = Buffer::new(usize::try_from(total).expect("at most 64 MiB"));
        let mut rest = &mut bytes[..];
        for (start, len) in ranges {
            let (piece, more) = rest.split_at_mut(len.to_usize().expect("a part of 64 MiB"));
            self.read_exactly(piece, start.get())?;
            rest = more;
        }
        let len = bytes.len();
        Ok(bytes.freeze(len))
    }

    /// Fills `piece` from offset `at` on.
    ///
    /// # Errors
    ///
    /// A fault of kind [`FaultKind::Changed`] when the file ends before that.
    pub(super) fn read_exactly(&self, piece: &mut [u8], at: u64) -> Result<(), StorageFault> {
        self.read_or_hole(piece, at).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.changed(),
            _ => system_fault(&self.path, &error),
        })
    }

    fn read_or_hole(&self, piece: &mut [u8], at: u64) -> io::Result<()> {
        match self.source.as_any_file().filter(|_| self.sparse) {
            Some(file) => file.read_exact_or_hole_at(piece, at),
            None => self.source.read_exact_at(piece, at),
        }
    }

    /// True when the file looks as it did.
    pub(super) fn is_unchanged(&self) -> Result<bool, StorageFault> {
        let now = self.source.looks().map_err(|error| system_fault(&self.path, &error))?;
        Ok(self.looks.still(&now))
    }

    fn changed(&self) -> StorageFault {
        fault(FaultKind::Changed, &self.path, "the file became shorter")
    }
}

/// An absent file as a fault, where there must be one.
pub(super) fn absent(place: &Place) -> StorageFault {
    Trouble::System(io::Error::from(rustix::io::Errno::NOENT)).at(&place.path)
}
