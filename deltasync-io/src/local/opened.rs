//! An opened file: read once to be cut and hashed, then at any place, and known again by how it looked.
//!
//! How it looks is its device, inode, length and times, taken before the first byte is read and compared after the last
//! one; a file that changed meanwhile is read again from the start, a few times.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use bytes::Bytes;
use deltasync_core::{Algorithm, ByteLen, Chunker, Generation, LimitExceeded, Limits, Offset, RelPath};
use deltasync_proto::{Cutting, FaultKind, FileHandle, OpenedFile, Place, StorageFault};

use super::root::{Root, Trouble};
use crate::disk::AnyFile;
use crate::fault::{fault, system_fault};
use crate::source::{Looks, Source, with_buffer};

/// What a [`FileHandle`] of ours holds.
#[derive(Debug)]
pub(super) struct Opened {
    source: Source,
    /// What it is called in a fault.
    path: RelPath,
    len: u64,
    looks: Looks,
}

/// How often a file is read that changes meanwhile.
const TRIES: u32 = 3;

/// The most bytes that one request reads; sessions ask for pieces of 256 KiB.
const READ_MAX: u64 = 64 << 20;

impl Opened {
    /// Opens a file, cuts it and hashes it; a file that is not there is `Trouble` of the system's.
    pub(super) fn describe(
        root: &Root,
        place: &Place,
        cutting: Cutting,
        algorithm: Algorithm,
        limits: &Limits,
    ) -> Result<Option<OpenedFile>, StorageFault> {
        for _ in 0..TRIES {
            let file = match root.file(&place.path) {
                Ok(file) => file,
                Err(trouble) if trouble.is_absent() => return Ok(None),
                Err(trouble) => return Err(trouble.at(&place.path)),
            };
            let at_place = |error: io::Error| system_fault(&place.path, &error);
            let too_large = |error: LimitExceeded| fault(FaultKind::TooLarge, &place.path, error);
            let looks = Looks::of(&file).map_err(at_place)?;
            LimitExceeded::check("file length", looks.len, limits.file.get()).map_err(too_large)?;
            let chunker =
                |start: &[u8]| Chunker::new(cutting.cutter(ByteLen::new(looks.len), start), algorithm, limits);
            let mut begun = None;
            let read = with_buffer(|buffer| {
                let mut at = 0;
                // No further than its end: it may grow faster than we read.
                while at < looks.len {
                    let len = file.read_at(buffer, at).map_err(at_place)?;
                    if len == 0 {
                        break;
                    }
                    begun.get_or_insert_with(|| chunker(&buffer[..len])).push(&buffer[..len]).map_err(too_large)?;
                    at += len as u64;
                }
                Ok(at)
            })?;
            if read == looks.len && Looks::of(&file).map_err(at_place)? == looks {
                let chunker = begun.unwrap_or_else(|| chunker(&[]));
                let chunks = Arc::new(chunker.finish().map_err(too_large)?);
                let opened = Self::known(file, place.path.clone(), looks);
                return Ok(Some(OpenedFile { file: FileHandle::new(opened), chunks, generation: Generation::ZERO }));
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
        (cutting, algorithm): (Cutting, Algorithm),
        limits: &Limits,
    ) -> Option<OpenedFile> {
        let first = partial.len().ok()?;
        let behind = file.and_then(|file| Some((file.source.as_any_file()?.clone(), file.len)));
        let source = match behind.filter(|(_, len)| first.saturating_add(*len) <= limits.file.get()) {
            Some(behind) => Source::Joined([(partial, first), behind]),
            None => Source::File(partial),
        };
        let opened = Self::unnamed(source, path.clone()).ok().filter(|opened| opened.len <= limits.file.get())?;
        let chunks = with_buffer(|buffer| {
            let mut chunker: Option<Chunker> = None;
            let mut at = 0;
            while at < opened.len {
                let len = usize::try_from(opened.len - at).map_or(buffer.len(), |left| left.min(buffer.len()));
                let piece = &mut buffer[..len];
                opened.source.read_exact_at(piece, at).ok()?;
                let new =
                    |start: &[u8]| Chunker::new(cutting.cutter(ByteLen::new(opened.len), start), algorithm, limits);
                chunker.get_or_insert_with(|| new(piece)).push(piece).ok()?;
                at += len as u64;
            }
            chunker?.finish().ok()
        })?;
        let generation = Generation::ZERO;
        Some(OpenedFile { file: FileHandle::new(opened), chunks: Arc::new(chunks), generation })
    }

    /// A file that is known to have looked so when it was read.
    pub(super) fn known(file: AnyFile, path: RelPath, looks: Looks) -> Self {
        Self { source: Source::File(file), path, len: looks.len, looks }
    }

    /// What lies open already, as it looks now; `path` is what it is called in a fault. It is known by no name of its own:
    /// that it gets one, or loses the one it has, is no change.
    pub(super) fn unnamed(source: Source, path: RelPath) -> io::Result<Self> {
        let (len, looks) = (source.len()?, source.looks()?.under_any_name());
        Ok(Self { source, path, len, looks })
    }

    /// Where its bytes are read from.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// How it looked when it was described.
    pub(super) fn looks(&self) -> Looks {
        self.looks
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
        let mut bytes = vec![0; usize::try_from(total).expect("at most 64 MiB")];
        let mut rest = bytes.as_mut_slice();
        for (start, len) in ranges {
            let (piece, more) = rest.split_at_mut(len.to_usize().expect("a part of 64 MiB"));
            self.read_exactly(piece, start.get())?;
            rest = more;
        }
        Ok(bytes.into())
    }

    /// Fills `piece` from offset `at` on.
    ///
    /// # Errors
    ///
    /// A fault of kind [`FaultKind::Changed`] when the file ends before that.
    pub(super) fn read_exactly(&self, piece: &mut [u8], at: u64) -> Result<(), StorageFault> {
        self.source.read_exact_at(piece, at).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.changed(),
            _ => system_fault(&self.path, &error),
        })
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
