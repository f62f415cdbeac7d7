//! An opened file: read once to be cut and hashed, then at any place, and known again by how it looked.
//!
//! How it looks is its device, inode, length and times, taken before the first byte is read and compared after the last
//! one; a file that changed meanwhile is read again from the start, a few times.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use bytes::Bytes;
use deltasync_core::{Algorithm, ByteLen, Chunker, Cutter, LimitExceeded, Limits, Offset};
use deltasync_proto::{Cutting, FaultKind, FileHandle, OpenedFile, Place, StorageFault};

use super::root::{Root, Trouble};
use crate::fault::{fault, system_fault};

/// What a [`FileHandle`] of ours holds.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    place: Place,
    looks: Looks,
}

/// How a file looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Looks {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
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
            let cutter = match cutting {
                Cutting::ByLength => Cutter::for_len(ByteLen::new(looks.len)),
                Cutting::Exactly(cutter) => cutter,
            };
            let mut chunker = Chunker::new(cutter, algorithm, limits);
            let read = with_buffer(|buffer| {
                let mut at = 0;
                // No further than its end: it may grow faster than we read.
                while at < looks.len {
                    let len = read_piece(&file, buffer, at).map_err(at_place)?;
                    if len == 0 {
                        break;
                    }
                    chunker.push(&buffer[..len]).map_err(too_large)?;
                    at += len as u64;
                }
                Ok(at)
            })?;
            if read == looks.len && Looks::of(&file).map_err(at_place)? == looks {
                let chunks = Arc::new(chunker.finish().map_err(too_large)?);
                let opened = Self { file, place: place.clone(), looks };
                return Ok(Some(OpenedFile { file: FileHandle::new(opened), chunks }));
            }
        }
        Err(fault(FaultKind::Changed, &place.path, format_args!("changed while it was read, {TRIES} times in a row")))
    }

    /// Reads ranges one after the other into one piece.
    pub(super) fn read(&self, ranges: &[(Offset, ByteLen)]) -> Result<Bytes, StorageFault> {
        let mut total = 0u64;
        for (start, len) in ranges {
            if start.checked_add(*len).is_none_or(|end| end.get() > self.looks.len) {
                return Err(self.changed());
            }
            total = total.saturating_add(len.get());
        }
        LimitExceeded::check("bytes of one read", total, READ_MAX)
            .map_err(|error| fault(FaultKind::TooLarge, &self.place.path, error))?;
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
        self.file.read_exact_at(piece, at).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.changed(),
            _ => system_fault(&self.place.path, &error),
        })
    }

    /// True when the file looks as it did.
    pub(super) fn is_unchanged(&self) -> Result<bool, StorageFault> {
        let now = Looks::of(&self.file).map_err(|error| system_fault(&self.place.path, &error))?;
        Ok(now == self.looks)
    }

    fn changed(&self) -> StorageFault {
        fault(FaultKind::Changed, &self.place.path, "the file became shorter")
    }
}

impl Looks {
    fn of(file: &File) -> io::Result<Self> {
        let is = file.metadata()?;
        Ok(Self {
            device: is.dev(),
            inode: is.ino(),
            len: is.len(),
            modified: (is.mtime(), is.mtime_nsec()),
            changed: (is.ctime(), is.ctime_nsec()),
        })
    }
}

/// The piece in which files are read and written, in bytes.
const PIECE: usize = 256 << 10;

/// Lends the buffer of this thread, so that there are as many as threads and not as many as transfers.
pub(super) fn with_buffer<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PIECE, 0);
        f(buffer)
    })
}

/// Reads at least one byte where there is one.
fn read_piece(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, at) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// An absent file as a fault, where there must be one.
pub(super) fn absent(place: &Place) -> StorageFault {
    Trouble::System(io::Error::from(rustix::io::Errno::NOENT)).at(&place.path)
}
