//! All literals of a transfer as one zstd frame, made and read in pieces, behind bytes that both ends have.
//!
//! Pieces packed apart forget what stood in the piece before, and pay for a header each. So the literals of a transfer
//! are one frame: each piece of the delta carries the next blocks of it, flushed, so that it can be unpacked when it
//! comes. A prefix, such as the bytes that [`History`](crate::History) names, stands before the frame as if it had been
//! unpacked already; both ends have it and it is never sent.
//!
//! The frame has no magic number, no length and no checksum (the peers know that it is one, the piece names its length,
//! and the root tells what is right), so that it costs two bytes and three for each block of at most 128 KiB. The prefix
//! is raw content: one that happens to begin like a trained dictionary of zstd loses its first byte on both ends, so
//! that the library never takes it for one.
//!
//! Cost: packing takes the time of packing prefix and literals together, see [`history_level`](crate::history_level).
//! The window holds at most 8 MiB, and each end holds a copy of the prefix; the packer also holds the tables of its
//! level. Measured in all: 10 MB for 230 kB at level 19, 42 MB for 2 MB at level 12, 30 MB for 10 MB at level 9.
//!
//! Invariant: whatever the pieces, `unpacker.push(packer.push(raw)) == raw` for each in order. Behind another prefix the
//! result is other bytes, or an error: the root tells.
//!
//! Source: RFC 8878 (Zstandard), frames without their magic number and raw content dictionaries.

#[cfg(feature = "zstd")]
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

#[cfg(feature = "zstd")]
use zstd_safe::{CCtx, CParameter, DCtx, DParameter, FrameFormat, InBuffer, OutBuffer, zstd_sys::ZSTD_EndDirective};

use crate::{ByteLen, UnpackError};

/// The binary logarithms of the smallest and the largest window.
#[cfg(feature = "zstd")]
const WINDOW_LOGS: (u32, u32) = (10, 23);
/// How a trained dictionary begins.
#[cfg(feature = "zstd")]
const DICTIONARY_MAGIC: [u8; 4] = 0xec30_a437_u32.to_le_bytes();
/// The shortest dictionary that the library does not ignore.
#[cfg(feature = "zstd")]
const SHORTEST_PREFIX: usize = 8;

/// Packs the literals of a transfer, piece by piece.
pub struct LiteralPacker {
    /// Gone once the frame has ended or the library failed.
    #[cfg(feature = "zstd")]
    context: Option<CCtx<'static>>,
    #[cfg(not(feature = "zstd"))]
    none: core::convert::Infallible,
}

#[cfg(feature = "zstd")]
impl LiteralPacker {
    /// A frame behind `prefix` in which about `total` bytes of literals will follow, packed at `level` (as for
    /// [`pack`](crate::pack())); `None` when the library fails.
    ///
    /// The window becomes just large enough for both, within 1 KiB and 8 MiB. Another total than follows costs bytes or
    /// memory, never correctness.
    pub fn new(prefix: &[u8], total: ByteLen, level: i32) -> Option<Self> {
        let window = window_log(prefix, total);
        let hint = total.get().min(i32::MAX as u64) as u32;
        let mut context = CCtx::try_create()?;
        for parameter in [
            CParameter::Format(FrameFormat::Magicless),
            CParameter::ContentSizeFlag(false),
            CParameter::CompressionLevel(level),
            CParameter::WindowLog(window),
            CParameter::SrcSizeHint(hint),
        ] {
            context.set_parameter(parameter).ok()?;
        }
        if let Some(prefix) = raw_content(prefix) {
            context.load_dictionary(prefix).ok()?;
        }
        Some(Self { context: Some(context) })
    }

    /// Packs the next bytes. The output until now unpacks to exactly the bytes until now; `last` ends the frame.
    ///
    /// `None` when the library fails or the frame has ended, and ever after.
    pub fn push(&mut self, raw: &[u8], last: bool) -> Option<Vec<u8>> {
        let mut context = self.context.take()?;
        let directive = if last { ZSTD_EndDirective::ZSTD_e_end } else { ZSTD_EndDirective::ZSTD_e_flush };
        let mut packed = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
        let mut input = InBuffer::around(raw);
        loop {
            let len = packed.len();
            let mut output = OutBuffer::around_pos(&mut packed, len);
            let left = context.compress_stream2(&mut output, &mut input, directive).ok()?;
            if left == 0 && input.pos() == raw.len() {
                break;
            }
            packed.reserve(left.max(1024));
        }
        packed.shrink_to_fit();
        if !last {
            self.context = Some(context);
        }
        Some(packed)
    }
}

#[cfg(not(feature = "zstd"))]
impl LiteralPacker {
    /// `None`: this build has no compression.
    pub fn new(_prefix: &[u8], _total: ByteLen, _level: i32) -> Option<Self> {
        None
    }

    /// Never called: there is none.
    pub fn push(&mut self, _raw: &[u8], _last: bool) -> Option<Vec<u8>> {
        match self.none {}
    }
}

impl fmt::Debug for LiteralPacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiteralPacker").finish_non_exhaustive()
    }
}

/// Unpacks the literals of a transfer, piece by piece.
pub struct LiteralUnpacker {
    /// Gone once the frame has ended or an error was found.
    #[cfg(feature = "zstd")]
    context: Option<DCtx<'static>>,
    #[cfg(not(feature = "zstd"))]
    none: core::convert::Infallible,
}

#[cfg(feature = "zstd")]
impl LiteralUnpacker {
    /// The reader of a frame that was packed behind the same `prefix`.
    ///
    /// # Errors
    ///
    /// [`UnpackError`] when the library fails or this build has no compression.
    pub fn new(prefix: &[u8]) -> Result<Self, UnpackError> {
        Self::with_window_log(prefix, WINDOW_LOGS.1)
    }

    /// The same for a frame whose packer was told this `total`: it may ask for no larger window.
    pub(crate) fn for_total(prefix: &[u8], total: ByteLen) -> Result<Self, UnpackError> {
        Self::with_window_log(prefix, window_log(prefix, total))
    }

    fn with_window_log(prefix: &[u8], window: u32) -> Result<Self, UnpackError> {
        let context = || -> Option<_> {
            let mut context = DCtx::try_create()?;
            context.set_parameter(DParameter::Format(FrameFormat::Magicless)).ok()?;
            context.set_parameter(DParameter::WindowLogMax(window)).ok()?;
            if let Some(prefix) = raw_content(prefix) {
                context.load_dictionary(prefix).ok()?;
            }
            Some(context)
        };
        Ok(Self { context: Some(context().ok_or(UnpackError::Damaged)?) })
    }

    /// Unpacks the next packed bytes, which must make exactly `raw_len` bytes.
    ///
    /// # Errors
    ///
    /// [`UnpackError`] when the bytes are damaged, make another length, go on behind the end of the frame, or an earlier
    /// push failed. Damage and another prefix may as well make other bytes without an error.
    ///
    /// # Security
    ///
    /// Takes hostile bytes: allocates `raw_len` and one bytes, which the caller has checked against its limits, and
    /// stops there, however much the frame would make. The window that the frame asks for is at most 8 MiB.
    pub fn push(&mut self, packed: &[u8], raw_len: usize) -> Result<Vec<u8>, UnpackError> {
        if packed.is_empty() && raw_len == 0 {
            return Ok(Vec::new());
        }
        let mut context = self.context.take().ok_or(UnpackError::Damaged)?;
        // One byte of room more than is right: a frame that makes more fills it, one that does not is read to its end.
        let mut raw = vec![0; raw_len + 1];
        let (mut made, mut input, mut ended) = (0, InBuffer::around(packed), false);
        while input.pos() < packed.len() {
            let before = (made, input.pos());
            let mut output = OutBuffer::around_pos(raw.as_mut_slice(), made);
            let left = context.decompress_stream(&mut output, &mut input).map_err(|_| UnpackError::Damaged)?;
            made = output.pos();
            ended = left == 0;
            if ended || made > raw_len || (made, input.pos()) == before {
                break;
            }
        }
        if input.pos() < packed.len() || made > raw_len {
            return Err(UnpackError::Damaged);
        }
        if made < raw_len {
            return Err(UnpackError::Length { wanted: raw_len, made });
        }
        raw.truncate(made);
        if !ended {
            self.context = Some(context);
        }
        Ok(raw)
    }
}

#[cfg(not(feature = "zstd"))]
impl LiteralUnpacker {
    /// Refuses: this build has no compression.
    ///
    /// # Errors
    ///
    /// Always [`UnpackError::Unsupported`].
    pub fn new(_prefix: &[u8]) -> Result<Self, UnpackError> {
        Err(UnpackError::Unsupported)
    }

    pub(crate) fn for_total(_prefix: &[u8], _total: ByteLen) -> Result<Self, UnpackError> {
        Err(UnpackError::Unsupported)
    }

    /// Never called: there is none.
    ///
    /// # Errors
    ///
    /// None.
    pub fn push(&mut self, _packed: &[u8], _raw_len: usize) -> Result<Vec<u8>, UnpackError> {
        match self.none {}
    }
}

impl fmt::Debug for LiteralUnpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiteralUnpacker").finish_non_exhaustive()
    }
}

#[cfg(feature = "zstd")]
fn window_log(prefix: &[u8], total: ByteLen) -> u32 {
    let len = total.get().saturating_add(prefix.len() as u64);
    (u64::BITS - len.saturating_sub(1).leading_zeros()).clamp(WINDOW_LOGS.0, WINDOW_LOGS.1)
}

/// What of a prefix the library gets, so that it takes it for raw content on both ends; `None` for nothing.
#[cfg(feature = "zstd")]
fn raw_content(prefix: &[u8]) -> Option<&[u8]> {
    let prefix = &prefix[usize::from(prefix.starts_with(&DICTIONARY_MAGIC))..];
    (prefix.len() >= SHORTEST_PREFIX).then_some(prefix)
}

#[cfg(all(test, feature = "zstd"))]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A sentence of a few hundred bytes, one number of it given.
    fn row(n: u32) -> Vec<u8> {
        let words = "INSERT INTO orders VALUES (17,'alpha bravo',42.50,'2024-01-02 03:04:05','pending')";
        alloc::format!("{words}, ('charlie', 'delta', 'echo', {n}), the quick brown fox jumps over it\n").into_bytes()
    }

    /// Bytes that nothing packs.
    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for n in 0.. {
            bytes.extend_from_slice(blake3::hash(&u64::to_le_bytes(n)).as_bytes());
            if bytes.len() >= len {
                break;
            }
        }
        bytes.truncate(len);
        bytes
    }

    /// Packs pieces and yields the packed ones, each of which unpacks to its piece by itself.
    fn check_in_step(prefix: &[u8], pieces: &[&[u8]], level: i32) -> Vec<Vec<u8>> {
        let total = pieces.iter().map(|piece| ByteLen::of(piece)).sum();
        let mut packer = LiteralPacker::new(prefix, total, level).expect("memory suffices");
        let mut unpackers = [LiteralUnpacker::new(prefix), LiteralUnpacker::for_total(prefix, total)];
        let mut all = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            let packed = packer.push(piece, i + 1 == pieces.len()).expect("memory suffices");
            for unpacker in &mut unpackers {
                let unpacker = unpacker.as_mut().expect("memory suffices");
                let raw = unpacker.push(&packed, piece.len());
                assert!(raw.as_deref() == Ok(piece), "piece {i} of {} bytes", piece.len());
            }
            all.push(packed);
        }
        for unpacker in unpackers.iter_mut().filter(|_| !pieces.is_empty()) {
            let unpacker = unpacker.as_mut().expect("memory suffices");
            assert_eq!(unpacker.push(&[], 0), Ok(Vec::new()), "nothing follows");
            assert_eq!(unpacker.push(&[0], 0), Err(UnpackError::Damaged), "the frame has ended");
            assert_eq!(packer.push(&[], true), None, "the frame has ended");
        }
        all
    }

    fn check_sizes_in_step(prefix: &[u8], raw: &[u8], sizes: &[usize], level: i32) {
        let (mut pieces, mut rest) = (Vec::new(), raw);
        for size in sizes {
            let (piece, behind) = rest.split_at((*size).min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        check_in_step(prefix, &pieces, level);
    }

    fn packed_len(prefix: &[u8], raw: &[u8]) -> usize {
        check_in_step(prefix, &[raw], 19).concat().len()
    }

    #[test]
    fn pieces_come_back_one_by_one_at_the_edges() {
        check_in_step(&[], &[], 3);
        check_in_step(&[], &[&[]], 3);
        check_in_step(&[], &[&[], &[], &[1], &[], &[2, 3], &[]], 3);
        check_in_step(&[7; 300], &[&[][..]; 40], 3);
        check_in_step(&[7; 300], &[&[7][..]; 40], 19);
        let long = noise(300_000);
        for len in [1023, 1024, 1025, 131_071, 131_072, 131_073, 300_000] {
            check_in_step(&long, &[&long[..len]], 1);
            check_in_step(&[], &[&long[..len], &long[..len], b"and then"], 1);
        }
    }

    #[test]
    fn a_piece_that_resembles_the_prefix_or_an_earlier_piece_packs_to_almost_nothing() {
        let [old, new, newer] = [row(1), row(2), row(3)];
        assert_eq!(new.len(), 151);
        assert!((130..150).contains(&packed_len(&[], &new)), "text by itself");
        assert!(packed_len(&old, &new) <= 20, "{}", packed_len(&old, &new));
        let packed = check_in_step(&[], &[&new, &newer], 19);
        assert!(packed[1].len() <= 20, "{}", packed[1].len());
        // The pieces between fill the window almost up.
        let between = noise(7 << 20);
        let packed = check_in_step(&old, &[&between, &new], 3);
        assert!(packed[1].len() <= 30, "{}", packed[1].len());
    }

    #[test]
    fn what_nothing_packs_grows_by_a_few_bytes() {
        for len in [0, 1, 100, 1000, 131_072, 131_073, 1_000_000] {
            let raw = noise(len);
            for level in [1, 19] {
                let grown = check_in_step(b"a prefix of no use", &[&raw], level).concat().len() - len;
                assert!(grown <= 2 + 3 * len.div_ceil(128 << 10).max(1), "{grown} bytes more than {len}");
            }
        }
    }

    #[test]
    fn a_prefix_that_begins_like_a_dictionary_is_none() {
        let mut prefix = DICTIONARY_MAGIC.to_vec();
        check_in_step(&prefix, &[&row(1)], 3);
        prefix.extend_from_slice(&row(1));
        assert!(packed_len(&prefix, &row(2)) <= 20);
        prefix.splice(0..0, DICTIONARY_MAGIC);
        assert!(packed_len(&prefix, &row(2)) <= 20);
        // The library itself refuses it: what the test tests is there.
        assert!(DCtx::try_create().expect("memory suffices").load_dictionary(&prefix).is_err());
    }

    #[test]
    fn prefixes_of_every_short_length_work() {
        for len in 0..40 {
            check_in_step(&row(1)[..len], &[&row(2), &row(3)], 19);
        }
    }

    #[test]
    fn more_prefix_than_the_window_holds_works() {
        let prefix = noise(9 << 20);
        let raw = &prefix[8 << 20..];
        let packed = check_in_step(&prefix, &[raw, &noise(10 << 20), raw], 9);
        assert!(packed[0].len() < raw.len() / 50, "{}", packed[0].len());
    }

    #[test]
    fn another_total_than_follows_is_no_danger() {
        for total in [0, 1, 100, u64::MAX] {
            let mut packer = LiteralPacker::new(&row(1), ByteLen::new(total), 6).expect("memory suffices");
            let mut unpacker = LiteralUnpacker::new(&row(1)).expect("memory suffices");
            for (piece, last) in [(row(2), false), (noise(200_000), false), (row(2), false), (row(1), true)] {
                let packed = packer.push(&piece, last).expect("memory suffices");
                assert!(unpacker.push(&packed, piece.len()) == Ok(piece), "total {total}");
            }
        }
    }

    #[test]
    fn a_frame_that_makes_more_than_was_announced_stops_there() {
        let bomb = check_in_step(&[], &[&vec![0; 64 << 20]], 19).concat();
        assert!(bomb.len() < 10_000, "{}", bomb.len());
        for raw_len in [0, 1, 1000, 1 << 20] {
            let mut unpacker = LiteralUnpacker::new(&[]).expect("memory suffices");
            assert_eq!(unpacker.push(&bomb, raw_len), Err(UnpackError::Damaged));
            assert_eq!(unpacker.push(&bomb, 64 << 20), Err(UnpackError::Damaged), "an error is final");
        }
    }

    #[test]
    fn a_window_over_the_most_is_refused() {
        // Frame header: no content size, a window of 2^(10 + n / 8); then one last raw block of one byte.
        let frame = |log: u8| [0, (log - 10) << 3, 0b1001, 0, 0, 5];
        let push = |log, unpacker: Result<LiteralUnpacker, UnpackError>| unpacker?.push(&frame(log), 1);
        assert_eq!(push(23, LiteralUnpacker::new(&[])), Ok(vec![5]));
        assert_eq!(push(24, LiteralUnpacker::new(&[])), Err(UnpackError::Damaged));
        assert_eq!(push(12, LiteralUnpacker::for_total(&[1; 2049], ByteLen::new(2047))), Ok(vec![5]));
        assert_eq!(push(13, LiteralUnpacker::for_total(&[1; 2049], ByteLen::new(2047))), Err(UnpackError::Damaged));
        assert_eq!(push(13, LiteralUnpacker::for_total(&[1; 2049], ByteLen::new(2048))), Ok(vec![5]));
    }

    #[test]
    fn other_lengths_and_bytes_behind_the_end_are_refused() {
        let (prefix, raw) = (row(1), row(2));
        let packed = check_in_step(&prefix, &[&raw], 19).concat();
        let push = |packed: &[u8], len| LiteralUnpacker::new(&prefix)?.push(packed, len);
        assert_eq!(push(&packed, raw.len() - 1), Err(UnpackError::Damaged));
        let (wanted, made) = (raw.len() + 1, raw.len());
        assert_eq!(push(&packed, wanted), Err(UnpackError::Length { wanted, made }));
        assert_eq!(push(&[], 1), Err(UnpackError::Length { wanted: 1, made: 0 }));
        assert_eq!(push(&[&packed[..], &[0]].concat(), raw.len()), Err(UnpackError::Damaged));
        assert_eq!(push(&[&packed[..], &packed].concat(), raw.len() * 2), Err(UnpackError::Damaged));
        for len in 0..packed.len() {
            assert!(push(&packed[..len], raw.len()).is_err(), "cut to {len} bytes");
        }
        assert_ne!(LiteralUnpacker::new(&prefix[..100]).and_then(|mut other| other.push(&packed, raw.len())), Ok(raw));
    }

    #[test]
    fn machines_travel_between_threads_and_show_no_bytes() {
        const fn travels<T: Send + 'static>(_: &T) {}
        let packer = LiteralPacker::new(b"secret", ByteLen::ZERO, 3).expect("memory suffices");
        let unpacker = LiteralUnpacker::new(b"secret").expect("memory suffices");
        travels(&packer);
        travels(&unpacker);
        assert_eq!(alloc::format!("{packer:?} {unpacker:?}"), "LiteralPacker { .. } LiteralUnpacker { .. }");
    }

    proptest! {
        #[test]
        fn any_split_comes_back_in_step(
            raw in vec(0u8..4, 0..3000),
            prefix in vec(0u8..4, 0..2000),
            sizes in vec(0usize..1000, 0..6),
            level in 1i32..20,
        ) {
            check_sizes_in_step(&prefix, &raw, &sizes, level);
        }

        #[test]
        fn a_flipped_bit_is_an_error_or_other_bytes_of_the_same_length(
            bit: prop::sample::Index,
            raw in vec(0u8..4, 1..500),
            prefix in vec(0u8..4, 0..500),
        ) {
            let mut packed = check_in_step(&prefix, &[&raw, &raw], 19);
            let bit = bit.index(packed[0].len() * 8);
            packed[0][bit / 8] ^= 1 << (bit % 8);
            let mut unpacker = LiteralUnpacker::new(&prefix).expect("memory suffices");
            for packed in &packed {
                if let Ok(made) = unpacker.push(packed, raw.len()) {
                    prop_assert_eq!(made.len(), raw.len());
                }
            }
        }

        #[test]
        fn any_bytes_unpack_or_fail(pieces in vec((vec(any::<u8>(), 0..60), 0usize..200), 0..4), prefix in vec(0u8..9, 0..50)) {
            let mut unpacker = LiteralUnpacker::new(&prefix).expect("memory suffices");
            for (packed, raw_len) in pieces {
                if let Ok(raw) = unpacker.push(&packed, raw_len) {
                    prop_assert_eq!(raw.len(), raw_len);
                }
            }
        }
    }
}

#[cfg(all(test, not(feature = "zstd")))]
mod tests {
    use super::*;

    #[test]
    fn without_compression_nothing_is_packed_and_packed_bytes_are_refused() {
        assert!(LiteralPacker::new(b"prefix", ByteLen::new(1), 3).is_none());
        assert_eq!(LiteralUnpacker::new(b"prefix").err(), Some(UnpackError::Unsupported));
    }
}
