//! A copy of a file in compressed frames, read at any place.
//!
//! Each 128 KiB of the file are a zstd frame of their own, or stand as they are where that is not smaller; the table at
//! the end says where each begins. A read unpacks the frames that it touches, and the last one is kept, so that a run of
//! small reads unpacks each frame once.
//!
//! | field | bytes | |
//! |---|---|---|
//! | frames | | one after the other |
//! | table | 4 a frame | its length here, in bytes; as it is when that is its length in the file |
//! | length | 8 | of the file, in bytes |
//! | magic | 4 | `D5 'p' 'c' '1'` |
//!
//! All numbers have their least significant byte first. Cost: a frame unpacks in about 0.1 ms.
//!
//! Invariant: what is read is what was pushed. That the copy is undamaged is for its holder to know.
//!
//! Source: RFC 8878 (Zstandard).

use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

use deltasync_core::{pack, unpack};

use crate::disk::AnyFile;

/// The bytes of the file in a frame.
const FRAME: usize = 128 << 10;

const MAGIC: [u8; 4] = *b"\xd5pc1";

/// The bytes after the table.
const END: usize = 12;

/// Fast, as a push may wait for it.
const LEVEL: i32 = 1;

/// Writes a packed copy from bytes that come in pieces.
#[derive(Debug)]
pub(super) struct Packer<W> {
    out: W,
    pending: Vec<u8>,
    lens: Vec<u32>,
    raw: u64,
    packed: u64,
}

impl<W: Write> Packer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, pending: Vec::with_capacity(FRAME), lens: Vec::new(), raw: 0, packed: 0 }
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

    /// Writes the last frame and the table, and gives back what it wrote to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.pending.is_empty() {
            self.end_frame()?;
        }
        let mut end: Vec<u8> = self.lens.iter().flat_map(|len| len.to_le_bytes()).collect();
        end.extend_from_slice(&self.raw.to_le_bytes());
        end.extend_from_slice(&MAGIC);
        self.out.write_all(&end)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_frame(&mut self) -> io::Result<()> {
        let packed = pack(&self.pending, LEVEL);
        let frame = packed.as_ref().unwrap_or(&self.pending);
        self.out.write_all(frame)?;
        self.lens.push(u32::try_from(frame.len()).expect("at most 128 KiB"));
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
    /// The frame that was unpacked last, and which one it is.
    last: Mutex<(Option<usize>, Vec<u8>)>,
}

impl PackedFile {
    /// Opens a copy.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidData`] when the file is none, or is cut.
    pub(super) fn open(file: AnyFile) -> io::Result<Self> {
        let whole = file.len()?;
        let at_end = whole.checked_sub(END as u64).ok_or_else(damaged)?;
        let mut end = [0; END];
        file.read_exact_at(&mut end, at_end)?;
        let (len, magic) = end.split_first_chunk().expect("8 of 12 bytes");
        let len = u64::from_le_bytes(*len);
        let frames = len.div_ceil(FRAME as u64);
        // A table that is longer than the file is not read.
        let table = frames.checked_mul(4).filter(|table| *table <= at_end && *magic == MAGIC).ok_or_else(damaged)?;
        let mut lens = vec![0; usize::try_from(table).map_err(|_| damaged())?];
        file.read_exact_at(&mut lens, at_end - table)?;
        let mut starts = vec![0];
        let mut at = 0u64;
        for frame in lens.as_chunks().0 {
            at += u64::from(u32::from_le_bytes(*frame));
            starts.push(at);
        }
        if at != at_end - table {
            return Err(damaged());
        }
        Ok(Self { file, len, starts, last: Mutex::default() })
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
                *raw = self.unpack(frame)?;
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

    fn unpack(&self, frame: usize) -> io::Result<Vec<u8>> {
        let (start, end) = (self.starts[frame], self.starts[frame + 1]);
        let raw_len = (self.len - frame as u64 * FRAME as u64).min(FRAME as u64) as usize;
        let len = usize::try_from(end - start).ok().filter(|len| *len <= raw_len).ok_or_else(damaged)?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, start)?;
        if len == raw_len { Ok(bytes) } else { unpack(&bytes, raw_len).map_err(|_| damaged()) }
    }
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

    fn packed(bytes: &[u8], split: usize) -> Vec<u8> {
        let mut packer = Packer::new(Vec::new());
        bytes.chunks(split).for_each(|piece| packer.push(piece).expect("memory takes it"));
        packer.finish().expect("memory takes it")
    }

    fn open(packed: &[u8]) -> io::Result<PackedFile> {
        let file = AnyFile::from(tempfile::tempfile().expect("a temporary file"));
        file.write_all_at(packed, 0).expect("written");
        PackedFile::open(file)
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
        assert_eq!(packed(&noise(len, 1), 1 << 20).len(), len + 4 * 10 + END);
        assert!(packed(&vec![7; len], 1 << 20).len() < len / 100);
    }

    #[test]
    fn a_cut_copy_is_refused() {
        let packed = packed(&content(3 * FRAME), 1 << 20);
        for cut in [0, 1, END, packed.len() / 2, packed.len() - 1] {
            assert!(open(&packed[..cut]).is_err(), "{cut} bytes");
        }
        // A length that lies, as if it had more frames than bytes.
        let mut lying = packed.clone();
        let at = lying.len() - END;
        lying[at..at + 8].fill(0xff);
        assert!(open(&lying).is_err());
    }

    #[test]
    fn a_damaged_frame_never_panics() {
        let bytes = content(FRAME + 100);
        let packed = packed(&bytes, 1 << 20);
        for at in 0..200 {
            let mut damaged = packed.clone();
            damaged[at * 37 % packed.len()] ^= 0x55;
            if let Ok(file) = open(&damaged) {
                let mut piece = vec![0; bytes.len()];
                let _ = file.read_exact_at(&mut piece, 0);
            }
        }
    }
}
