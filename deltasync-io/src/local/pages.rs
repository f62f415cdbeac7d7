//! The pages of the index in a file of whatever disk, each read as it was before.
//!
//! The database checks all of its pages when it is opened, and trusts them from then on: a page that reads otherwise later
//! makes it panic, and some of those panics cannot be caught, as its destructors panic too. So it gets none to see. What was
//! read or written once is remembered by a check of 8 bytes for each 4 KiB, and what reads otherwise is an error, like
//! any of the disk; so is what was cut off.
//!
//! Cost: a BLAKE3 of every page that is read or written, about a microsecond, and 2 MiB of memory for each GiB.
//!
//! Invariant: after it was read or written, a byte is returned as it was, or not at all. Other processes are kept out by the
//! lock of the directory.

use std::io::{self, ErrorKind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use deltasync_core::Algorithm;
use redb::StorageBackend;

use crate::disk::AnyFile;

/// A file of pages.
#[derive(Debug)]
pub(super) struct Pages {
    file: AnyFile,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// As the database made it, whatever has become of the file.
    len: u64,
    /// By the number of a block, as far as they were read or written.
    checks: Vec<Option<Check>>,
}

type Check = [u8; 8];

/// How many bytes have a check, except for the last.
const BLOCK: u64 = 4096;

impl Pages {
    /// The pages that are in the file now.
    pub(super) fn new(file: AnyFile) -> io::Result<Self> {
        let seen = Seen { len: file.len()?, checks: Vec::new() };
        Ok(Self { file, seen: Mutex::new(seen) })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the whole blocks that hold a range within the file; returns where they start.
    fn read_blocks(&self, seen: &mut Seen, start: u64, end: u64) -> io::Result<(u64, Vec<u8>)> {
        let start = start - start % BLOCK;
        let end = end.next_multiple_of(BLOCK).min(seen.len);
        let mut bytes = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, start)?;
        seen.check(start, &bytes)?;
        Ok((start, bytes))
    }
}

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        Ok(self.seen().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut seen = self.seen();
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= seen.len);
        let end = end.ok_or(ErrorKind::UnexpectedEof)?;
        let (start, bytes) = self.read_blocks(&mut seen, offset, end)?;
        let at = (offset - start) as usize;
        out.copy_from_slice(&bytes[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut seen = self.seen();
        self.file.set_len(len)?;
        // The last block is another one when it becomes shorter or longer.
        let whole = usize::try_from(len.min(seen.len) / BLOCK).unwrap_or(usize::MAX);
        seen.checks.truncate(whole);
        seen.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut seen = self.seen();
        let end = offset.checked_add(data.len() as u64).ok_or(ErrorKind::FileTooLarge)?;
        // What is written in part is read before.
        let whole = offset.is_multiple_of(BLOCK) && (end.is_multiple_of(BLOCK) || end >= seen.len);
        let blocks = if whole {
            None
        } else {
            let (start, mut bytes) = self.read_blocks(&mut seen, offset, end)?;
            let at = (offset - start) as usize;
            bytes.get_mut(at..at + data.len()).ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
            Some((start, bytes))
        };
        self.file.write_all_at(data, offset)?;
        seen.len = seen.len.max(end);
        match &blocks {
            Some((start, bytes)) => seen.note(*start, bytes),
            None => seen.note(offset, data),
        }
        Ok(())
    }
}

impl Seen {
    /// Compares whole blocks with what they were, and notes those that are new.
    fn check(&mut self, start: u64, bytes: &[u8]) -> io::Result<()> {
        for (block, bytes) in (start / BLOCK..).zip(bytes.chunks(BLOCK as usize)) {
            let (check, known) = (check_of(bytes), self.slot(block)?);
            if *known.get_or_insert(check) != check {
                return Err(io::Error::new(ErrorKind::InvalidData, "a page changed on the disk"));
            }
        }
        Ok(())
    }

    /// Notes what whole blocks are from now on.
    fn note(&mut self, start: u64, bytes: &[u8]) {
        for (block, bytes) in (start / BLOCK..).zip(bytes.chunks(BLOCK as usize)) {
            if let Ok(slot) = self.slot(block) {
                *slot = Some(check_of(bytes));
            }
        }
    }

    fn slot(&mut self, block: u64) -> io::Result<&mut Option<Check>> {
        let at = usize::try_from(block).map_err(io::Error::other)?;
        if self.checks.len() <= at {
            self.checks.resize(at + 1, None);
        }
        Ok(&mut self.checks[at])
    }
}

fn check_of(bytes: &[u8]) -> Check {
    *Algorithm::Blake3.digest(bytes).as_bytes().first_chunk().expect("a digest is longer")
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn pages(content: &[u8]) -> (Pages, File) {
        let file = tempfile::tempfile().expect("a temporary file");
        file.write_all_at(content, 0).expect("written");
        let other = file.try_clone().expect("it is open");
        (Pages::new(file.into()).expect("it has a length"), other)
    }

    fn read(pages: &Pages, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0; len];
        pages.read(at, &mut out).map(|()| out)
    }

    /// Any reads, writes and changes of length, in blocks and across them, do what they do to bytes in memory.
    fn check_pages_are_bytes(steps: &[(u8, usize, usize)]) {
        let mut model = vec![7u8; 10_000];
        let (pages, _) = pages(&model);
        for (n, &(kind, at, len)) in steps.iter().enumerate() {
            let (start, end) = (at.min(model.len()), (at + len).min(model.len()));
            match kind % 4 {
                0 => {
                    pages.set_len(at as u64).expect("it can be so long");
                    model.resize(at, 0);
                }
                1 => {
                    let data = vec![n as u8; end - start];
                    pages.write(start as u64, &data).expect("written");
                    model[start..end].copy_from_slice(&data);
                }
                _ => assert_eq!(read(&pages, start as u64, end - start).expect("read"), model[start..end]),
            }
            assert_eq!(pages.len().expect("known"), model.len() as u64);
        }
        assert_eq!(read(&pages, 0, model.len()).expect("read"), model);
        assert!(read(&pages, 1, model.len()).is_err());
    }

    #[test]
    fn pages_are_bytes_around_the_edges_of_blocks() {
        for at in [0, 1, 4095, 4096, 4097, 8191, 8192, 9999, 10_000] {
            for len in [0, 1, 2, 4095, 4096, 4097, 10_000] {
                check_pages_are_bytes(&[
                    (1, at, len),
                    (2, at, len),
                    (0, at, 0),
                    (2, 0, at),
                    (0, at + len, 0),
                    (1, at, len),
                ]);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn pages_are_bytes(steps in proptest::collection::vec((0..4u8, 0..20_000usize, 0..9000usize), 0..40)) {
            check_pages_are_bytes(&steps);
        }
    }

    #[test]
    fn what_changes_on_the_disk_is_an_error() {
        for (at, len) in [(0, 10_000), (4096, 4096), (5000, 1), (8192, 1808)] {
            let (pages, file) = pages(&[1; 10_000]);
            read(&pages, 0, 10_000).expect("read");
            pages.write(100, &[2; 50]).expect("written");
            file.write_all_at(&[9], at + len as u64 / 2).expect("written");
            assert_eq!(read(&pages, at, len).expect_err("it changed").kind(), ErrorKind::InvalidData);
            // And nothing is written beside it.
            let partly = pages.write(at + len as u64 / 2 + 1, &[3; 3]);
            assert_eq!(partly.expect_err("it changed").kind(), ErrorKind::InvalidData);
        }
        let (pages, file) = pages(&[1; 10_000]);
        file.set_len(5000).expect("cut");
        assert_eq!(pages.len().expect("known"), 10_000);
        assert_eq!(read(&pages, 4096, 4096).expect_err("it is cut").kind(), ErrorKind::UnexpectedEof);
    }
}
