//! A copy of a file in compressed frames, read at any place.
//!
//! Each 32 KiB of the file are a zstd frame of their own, or stand as they are where that is not smaller; the table at
//! the end says where each begins and what its bytes are checked by. A read unpacks the frames that it touches, and the last
//! one is kept, so that a run of small reads unpacks each frame once.
//!
//! | field | bytes | |
//! |---|---|---|
//! | frames | | one after the other |
//! | table | 12 a frame | 4: its length here, in bytes; as it is when that is its length in the file. 8: the start of the BLAKE3 of its bytes here |
//! | length | 8 | of the file, in bytes |
//! | magic | 4 | `D5 'p' 'c' '3'` |
//!
//! All numbers have their least significant byte first. Cost: a frame unpacks in some 30 µs. It is short since a delta of a tree
//! reads a little in many places; longer ones of 128 KiB took an eighth less disk, and 50 ms more where a push read 44 MB.
//!
//! Invariant: what is read is what was pushed, as long as the table and what is behind it are what was written, which the
//! holder of the copy knows by their digest.
//!
//! Source: RFC 8878 (Zstandard).

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Mutex, PoisonError};

use deltasync_core::{Algorithm, pack, unpack};

use super::record::Check;
use crate::disk::AnyFile;

/// The bytes of the file in a frame.
const FRAME: usize = 32 << 10;

const MAGIC: [u8; 4] = *b"\xd5pc3";

/// The bytes of a frame's entry in the table, and of the check in it.
const ENTRY: usize = 4 + CHECK;
const CHECK: usize = 8;

/// The bytes after the table.
const END: usize = 12;

/// Fast, as a push may wait for it.
const LEVEL: i32 = 1;

/// Writes a packed copy from bytes that come in pieces.
#[derive(Debug)]
pub(super) struct Packer<W> {
    out: W,
    pending: Vec<u8>,
    table: Vec<u8>,
    raw: u64,
    packed: u64,
}

impl<W: Write> Packer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, pending: Vec::with_capacity(FRAME), table: Vec::new(), raw: 0, packed: 0 }
    }

    /// How long the copy is so far, in bytes; less than a frame more may be pending.
    pub(super) fn packed(&self) -> u64 {
        self.packed
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(FRAME - self.pending.len()));
            self.pending.extend_from_slice(head);
            bytes = rest;
            if self.pending.len() == FRAME {
                self.end_frame()?;
            }
        }
        Ok(())
    }

    /// Writes the last frame and the table, and gives back what it wrote to, with what the copy is checked by.
    pub(super) fn finish(mut self) -> io::Result<(W, Check)> {
        if !self.pending.is_empty() {
            self.end_frame()?;
        }
        let mut end = self.table;
        end.extend_from_slice(&self.raw.to_le_bytes());
        end.extend_from_slice(&MAGIC);
        self.out.write_all(&end)?;
        self.out.flush()?;
        Ok((self.out, check_of_table(&end)))
    }

    fn end_frame(&mut self) -> io::Result<()> {
        let packed = pack(&self.pending, LEVEL);
        let frame = packed.as_ref().unwrap_or(&self.pending);
        self.out.write_all(frame)?;
        self.table.extend_from_slice(&u32::try_from(frame.len()).expect("at most 32 KiB").to_le_bytes());
        self.table.extend_from_slice(&check_of_frame(frame));
        self.packed += frame.len() as u64;
        self.raw += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

/// A packed copy, open for reading.
#[derive(Debug)]
pub(crate) struct PackedFile {
    file: AnyFile,
    len: u64,
    /// Where each frame begins, and where the last one ends.
    starts: Vec<u64>,
    /// What each frame is checked by.
    checks: Vec<[u8; CHECK]>,
    /// Who is told when a frame turns out damaged.
    holder: Option<Holder>,
    /// The frame that was unpacked last, and which one it is.
    last: Mutex<(Option<usize>, Vec<u8>)>,
}

impl PackedFile {
    /// Opens a copy that was written with this check; `holder` is told when a frame of it turns out damaged.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidData`] when the file is none, is cut, or is another one.
    pub(super) fn open(file: AnyFile, check: Check, holder: Option<Holder>) -> io::Result<Self> {
        let whole = file.len()?;
        let at_end = whole.checked_sub(END as u64).ok_or_else(damaged)?;
        let mut end = [0; END];
        file.read_exact_at(&mut end, at_end)?;
        let (len, magic) = end.split_first_chunk().expect("8 of 12 bytes");
        let len = u64::from_le_bytes(*len);
        let frames = len.div_ceil(FRAME as u64);
        // A table that is longer than the file is not read.
        let table =
            frames.checked_mul(ENTRY as u64).filter(|table| *table <= at_end && *magic == MAGIC).ok_or_else(damaged)?;
        let mut behind = vec![0; usize::try_from(table).map_err(|_| damaged())? + END];
        file.read_exact_at(&mut behind, at_end - table)?;
        if check_of_table(&behind) != check {
            return Err(damaged());
        }
        let (mut starts, mut checks) = (vec![0], Vec::new());
        let mut at = 0u64;
        for entry in behind[..behind.len() - END].as_chunks::<ENTRY>().0 {
            let (len, its) = entry.split_first_chunk().expect("4 of 12 bytes");
            at += u64::from(u32::from_le_bytes(*len));
            starts.push(at);
            checks.push(its.try_into().expect("8 of 12 bytes"));
        }
        if at != at_end - table {
            return Err(damaged());
        }
        Ok(Self { file, len, starts, checks, holder, last: Mutex::default() })
    }

    /// The number of bytes of the file that was copied.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The copy itself.
    pub(crate) fn file(&self) -> &AnyFile {
        &self.file
    }

    /// Fills `piece` with the bytes of the file that was copied, from offset `at` on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnexpectedEof`] when it had fewer; [`ErrorKind::InvalidData`] when a frame is damaged.
    pub(crate) fn read_exact_at(&self, mut piece: &mut [u8], mut at: u64) -> io::Result<()> {
        if at.checked_add(piece.len() as u64).is_none_or(|end| end > self.len) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (which, raw) = &mut *last;
        while !piece.is_empty() {
            let frame = usize::try_from(at / FRAME as u64).expect("there are less frames than addresses");
            if *which != Some(frame) {
                *which = None;
                *raw = self.unpack(frame).inspect_err(|error| self.tell(error))?;
                *which = Some(frame);
            }
            let skipped = usize::try_from(at % FRAME as u64).expect("less than a frame");
            let len = piece.len().min(raw.len() - skipped);
            let (now, later) = piece.split_at_mut(len);
            now.copy_from_slice(&raw[skipped..skipped + len]);
            piece = later;
            at += len as u64;
        }
        Ok(())
    }

    fn tell(&self, error: &io::Error) {
        if let Some(holder) = self.holder.as_ref().filter(|_| error.kind() != ErrorKind::Interrupted) {
            holder.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(holder.id);
        }
    }

    fn unpack(&self, frame: usize) -> io::Result<Vec<u8>> {
        let (start, end) = (self.starts[frame], self.starts[frame + 1]);
        let raw_len = (self.len - frame as u64 * FRAME as u64).min(FRAME as u64) as usize;
        let len = usize::try_from(end - start).ok().filter(|len| *len <= raw_len).ok_or_else(damaged)?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, start)?;
        if check_of_frame(&bytes) != self.checks[frame] {
            return Err(damaged());
        }
        if len == raw_len { Ok(bytes) } else { unpack(&bytes, raw_len).map_err(|_| damaged()) }
    }
}

/// Whoever has a copy under this id.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) id: u64,
    /// The copies that turned out damaged.
    pub(super) damaged: Arc<Mutex<BTreeSet<u64>>>,
}

fn check_of_frame(frame: &[u8]) -> [u8; CHECK] {
    *Algorithm::Blake3.digest(frame).as_bytes().first_chunk().expect("a digest is longer")
}

/// The digest of the table and what is behind it.
fn check_of_table(behind: &[u8]) -> Check {
    *Algorithm::Blake3.digest(behind).as_bytes().first_chunk().expect("a digest is longer")
}

pub(super) fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "a kept copy is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::noise;

    /// Half of it compresses.
    fn content(len: usize) -> Vec<u8> {
        let mut bytes = noise(len, 5);
        bytes.chunks_mut(2 * FRAME).for_each(|pair| pair.iter_mut().take(FRAME).for_each(|byte| *byte &= 1));
        bytes
    }

    fn packed(bytes: &[u8], split: usize) -> (Vec<u8>, Check) {
        let mut packer = Packer::new(Vec::new());
        bytes.chunks(split).for_each(|piece| packer.push(piece).expect("memory takes it"));
        packer.finish().expect("memory takes it")
    }

    fn open((packed, check): &(Vec<u8>, Check)) -> io::Result<PackedFile> {
        let file = AnyFile::from(tempfile::tempfile().expect("a temporary file"));
        file.write_all_at(packed, 0).expect("written");
        PackedFile::open(file, *check, None)
    }

    fn check_reads_what_was_pushed(len: usize, split: usize) {
        let bytes = content(len);
        let file = open(&packed(&bytes, split)).expect("it is whole");
        assert_eq!(file.len(), len as u64);
        let ends = [0, 1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, len / 2, len.saturating_sub(1), len];
        for (start, end) in ends.into_iter().flat_map(|start| ends.map(|end| (start, end))) {
            if start <= end && end <= len {
                let mut piece = vec![0; end - start];
                file.read_exact_at(&mut piece, start as u64).expect("it is there");
                assert!(piece == bytes[start..end], "{start}..{end} of {len}");
            }
        }
        for (start, past) in [(len as u64, 1), (0, len + 1), (u64::MAX, 1)] {
            let error = file.read_exact_at(&mut vec![0; past], start).expect_err("past its end");
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn reads_give_what_was_pushed_around_a_frame() {
        for len in [0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME + 7] {
            for split in [1000, FRAME, 1 << 20] {
                check_reads_what_was_pushed(len, split);
            }
        }
    }

    #[test]
    fn what_does_not_compress_costs_only_its_table() {
        let len = 10 * FRAME;
        assert_eq!(packed(&noise(len, 1), 1 << 20).0.len(), len + ENTRY * 10 + END);
        assert!(packed(&vec![7; len], 1 << 20).0.len() < len / 100);
    }

    #[test]
    fn a_cut_copy_is_refused() {
        let (packed, check) = packed(&content(3 * FRAME), 1 << 20);
        for cut in [0, 1, END, packed.len() / 2, packed.len() - 1] {
            assert!(open(&(packed[..cut].to_vec(), check)).is_err(), "{cut} bytes");
        }
        // A length that lies, as if it had more frames than bytes.
        let mut lying = packed.clone();
        let at = lying.len() - END;
        lying[at..at + 8].fill(0xff);
        assert!(open(&(lying, check)).is_err());
    }

    #[test]
    fn a_damaged_frame_is_noticed_and_told_and_the_others_are_read() {
        let bytes = content(2 * FRAME + 100);
        let (packed, check) = packed(&bytes, 1 << 20);
        for at in 0..200 {
            let mut damaged = packed.clone();
            damaged[at * 3037 % packed.len()] ^= 0x55;
            let file = AnyFile::from(tempfile::tempfile().expect("a temporary file"));
            file.write_all_at(&damaged, 0).expect("written");
            let holder = Holder { id: 7, damaged: Arc::default() };
            let Ok(copy) = PackedFile::open(file, check, Some(holder.clone())) else { continue };
            let frames = [(0, FRAME), (FRAME, FRAME), (2 * FRAME, 100)];
            let well = frames.into_iter().filter(|(start, len)| {
                let mut piece = vec![0; *len];
                let read = copy.read_exact_at(&mut piece, *start as u64);
                assert!(read.is_err() || piece == bytes[*start..][..*len], "byte {at}");
                read.is_ok()
            });
            assert_eq!(well.count(), 2, "byte {at}");
            assert!(holder.damaged.lock().expect("nobody panics").contains(&7));
        }
    }
}
