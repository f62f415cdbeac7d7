//! The frame: the one header that no version changes.
//!
//! Everything on a connection is a frame: a kind byte, the transfer it belongs to (0: the connection itself) and the
//! length of its payload, both as varints, then the payload. A peer that does not know a kind, or a whole version, can
//! still step over it, which is what lets a client speak before it has heard the server.
//!
//! A payload that is kept must not keep what came with it: small ones are copied out of the buffer, and only those that
//! are a good part of it are views of it. Fresh memory for a large frame costs more than the copy into it, so the memory
//! of large payloads is taken back once nobody else has it.
//!
//! Invariant: a [`FrameDecoder`] holds at most one frame and what came with it in the same piece of input, and the memory
//! of at most [`LENT`] large payloads; a length over the limit is refused when the header has been read, before any of the
//! payload is waited for.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::{Buf, Bytes, BytesMut};
use deltasync_core::{LimitExceeded, Malformed, Reader, write_varint};

use crate::{InvalidMessage, TransferId};

/// One frame as it came: its payload is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is, see `WIRE.md`.
    pub kind: u8,
    /// Which transfer it belongs to; 0 is the connection itself.
    pub transfer: TransferId,
    /// The bytes after the header.
    pub payload: Bytes,
}

/// The longest header: kind, a varint of 32 bits, and one that may hold any length before it is refused.
const HEADER_MAX: usize = 1 + 5 + 10;

/// A payload that is a view of the buffer is at least one part in so many of it.
const VIEW_PART: usize = 2;

/// The memory of so many large payloads may be taken back.
const LENT: usize = 8;
/// What a large payload is, in bytes: longer ones than pieces are rare.
const LARGE: core::ops::RangeInclusive<usize> = 64 << 10..=640 << 10;

/// Appends the header of a frame whose payload has `len` bytes.
///
/// # Panics
///
/// When `len` passes 2^32 - 1: no payload of ours comes near.
pub fn encode_header(out: &mut Vec<u8>, kind: u8, transfer: TransferId, len: usize) {
    out.push(kind);
    write_varint(out, u64::from(transfer.get()));
    write_varint(out, u64::from(u32::try_from(len).expect("a payload is far shorter than 2^32 bytes")));
}

/// Cuts received bytes, split anywhere, into frames.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    /// How many bytes the allocation has that the buffer is a part of.
    allocated: usize,
    longest: usize,
    /// Large payloads, the latest last.
    lent: VecDeque<Bytes>,
}

impl FrameDecoder {
    /// A decoder that refuses payloads of more than `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self { buffer: BytesMut::new(), allocated: 0, longest, lent: VecDeque::new() }
    }

    /// Refuses payloads of more than `longest` bytes from the next frame on.
    pub fn set_longest(&mut self, longest: usize) {
        self.longest = longest;
    }

    /// Takes in received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage`] when the header is damaged or announces more than the limit. The decoder is of no use
    /// afterwards, since where the next frame starts is unknown.
    ///
    /// # Security
    ///
    /// Takes hostile bytes; never buffers more than it was given.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, InvalidMessage> {
        let Some(header) = Header::read(&self.buffer)? else { return Ok(None) };
        LimitExceeded::check("frame payload", header.payload, self.longest as u64)?;
        let payload = header.payload as usize;
        if self.buffer.len() - header.len < payload {
            self.reserve(header.len + payload - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(header.len);
        let payload = match payload >= self.allocated / VIEW_PART {
            true => self.lend(payload),
            false => {
                let copy = Bytes::copy_from_slice(&self.buffer[..payload]);
                self.buffer.advance(payload);
                copy
            }
        };
        Ok(Some(Frame { kind: header.kind, transfer: header.transfer, payload }))
    }

    /// The first byte of what waits, for telling strangers early.
    pub fn first_byte(&self) -> Option<u8> {
        self.buffer.first().copied()
    }

    /// Gives up what was kept to be used again: no large frames are expected.
    pub fn rest(&mut self) {
        self.lent.clear();
    }

    fn lend(&mut self, len: usize) -> Bytes {
        let payload = self.buffer.split_to(len).freeze();
        if LARGE.contains(&len) && LARGE.contains(&self.allocated) {
            self.lent.push_back(payload.clone());
            if self.lent.len() > LENT {
                self.lent.pop_front();
            }
        }
        payload
    }

    /// Takes back the memory of a payload that nobody else has any more, if it has room for `len` bytes.
    fn take_back(&mut self, len: usize) -> Option<BytesMut> {
        let free = self.lent.iter().position(Bytes::is_unique)?;
        let mut back = self.lent.remove(free)?.try_into_mut().ok()?;
        back.clear();
        // Also what stood before the payload.
        back.try_reclaim(len).then_some(back)
    }

    fn reserve(&mut self, more: usize) {
        let before = self.buffer.capacity();
        let wanted = self.buffer.len() + more;
        if wanted > before
            && LARGE.contains(&wanted)
            && let Some(mut back) = self.take_back(wanted)
        {
            back.extend_from_slice(&self.buffer);
            self.allocated = back.capacity();
            self.buffer = back;
            return;
        }
        self.buffer.reserve(more);
        // It grows by another allocation, or by taking this one back from its start.
        if self.buffer.capacity() > before {
            self.allocated = self.buffer.capacity();
        }
    }

    /// How many received bytes wait for the rest of their frame.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }
}

struct Header {
    kind: u8,
    transfer: TransferId,
    payload: u64,
    len: usize,
}

impl Header {
    /// The header at the front of `bytes`, or `None` when it is not whole.
    fn read(bytes: &[u8]) -> Result<Option<Self>, InvalidMessage> {
        let head = &bytes[..bytes.len().min(HEADER_MAX)];
        let mut reader = Reader::new(head);
        let mut fields = || Ok((reader.byte()?, reader.varint()?, reader.varint()?));
        let (kind, transfer, payload) = match fields() {
            Ok(fields) => fields,
            Err(Malformed::Truncated) if head.len() < HEADER_MAX => return Ok(None),
            Err(cause) => return Err(InvalidMessage::Header(cause)),
        };
        let transfer = u32::try_from(transfer)
            .map_err(|_| InvalidMessage::Header(Malformed::Value("transfer number passes 32 bits")))?;
        let len = head.len() - reader.rest().len();
        Ok(Some(Self { kind, transfer: TransferId::new(transfer), payload, len }))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, transfer: u32, payload: &[u8]) -> Frame {
        Frame { kind, transfer: TransferId::new(transfer), payload: Bytes::copy_from_slice(payload) }
    }

    fn encode(frames: &[Frame]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            encode_header(&mut out, frame.kind, frame.transfer, frame.payload.len());
            out.extend_from_slice(&frame.payload);
        }
        out
    }

    fn check_any_split_gives_the_same_frames(frames: &[Frame], piece: usize) {
        let mut decoder = FrameDecoder::new(1 << 20);
        let mut decoded = Vec::new();
        for bytes in encode(frames).chunks(piece) {
            decoder.push(bytes);
            while let Some(frame) = decoder.next_frame().expect("valid frames") {
                decoded.push(frame);
            }
        }
        assert_eq!(decoded, frames);
        assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn frames_survive_any_split_at_every_length_of_header() {
        let frames =
            [frame(0, 0, b""), frame(255, u32::MAX, &[1; 127]), frame(7, 300, &[2; 128]), frame(7, 1, &[3; 70_000])];
        for piece in [1, 2, 3, 7, 4096, 1 << 20] {
            check_any_split_gives_the_same_frames(&frames, piece);
        }
    }

    /// Payloads that somebody still has keep their bytes, whatever memory is used again for later ones.
    fn check_memory_is_used_again_when_it_is_free(lens: &[usize], piece: usize, keep: usize) {
        let payloads: Vec<Vec<u8>> =
            lens.iter().zip(1u8..).map(|(len, first)| (first..=255).cycle().take(*len).collect()).collect();
        let frames: Vec<_> = payloads.iter().map(|payload| frame(1, 1, payload)).collect();
        let mut decoder = FrameDecoder::new(1 << 20);
        let (mut held, mut seen) = (VecDeque::new(), 0);
        for bytes in encode(&frames).chunks(piece) {
            decoder.push(bytes);
            while let Some(frame) = decoder.next_frame().expect("valid frames") {
                held.push_back((seen, frame.payload));
                seen += 1;
                assert!(decoder.lent.len() <= LENT);
                for (nth, payload) in &held {
                    assert!(payload == &payloads[*nth], "frame {nth} of {}", payloads[*nth].len());
                }
                if held.len() > keep {
                    held.pop_front();
                }
            }
        }
        assert_eq!(seen, frames.len());
        decoder.rest();
        assert!(decoder.lent.is_empty());
    }

    #[test]
    fn memory_is_used_again_when_it_is_free() {
        let lens = [256 << 10; 12];
        for keep in [0, 1, 3, 20] {
            check_memory_is_used_again_when_it_is_free(&lens, 256 << 10, keep);
            check_memory_is_used_again_when_it_is_free(
                &[64 << 10, 600_000, 3, 100_000, 640 << 10, 70_000],
                50_000,
                keep,
            );
        }
        let mut decoder = FrameDecoder::new(1 << 20);
        let mut places = alloc::collections::BTreeSet::new();
        for bytes in encode(&vec![frame(1, 1, &vec![1; 256 << 10]); 40]).chunks(128 << 10) {
            decoder.push(bytes);
            while let Some(frame) = decoder.next_frame().expect("valid frames") {
                places.insert(frame.payload.as_ptr() as usize);
            }
        }
        assert!(places.len() < 20, "{} places for 40 payloads that nobody keeps", places.len());
    }

    #[test]
    fn a_payload_over_the_limit_is_refused_at_its_header() {
        let mut header = vec![1, 0];
        write_varint(&mut header, 1 << 63);
        let mut decoder = FrameDecoder::new(100);
        decoder.push(&header);
        let error = decoder.next_frame().expect_err("2^63 bytes");
        assert!(matches!(error, InvalidMessage::Limit(LimitExceeded { wanted, .. }) if wanted == 1 << 63), "{error}");
        let mut decoder = FrameDecoder::new(100);
        decoder.push(&encode(&[frame(1, 0, &[0; 101])]));
        assert!(decoder.next_frame().is_err());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            frames in prop::collection::vec(
                (any::<u8>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..300)), 0..10),
            piece in 1usize..50,
        ) {
            let frames: Vec<_> = frames.into_iter().map(|(kind, id, payload)| frame(kind, id, &payload)).collect();
            check_any_split_gives_the_same_frames(&frames, piece);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut decoder = FrameDecoder::new(1000);
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }
}
