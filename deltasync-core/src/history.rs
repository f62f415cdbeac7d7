//! The literals of a whole delta packed as one frame, with the old bytes around each edit as its history.
//!
//! What an edit puts in resembles what it replaced: a row with one field changed, a page with one cell more. So the old
//! bytes on both sides of each literal, and those between, are laid before the literals as the prefix of their zstd
//! frame; both ends have them, and they are never sent. [`History`] names the ranges of the basis from the operations
//! alone, at most [`History::MOST`] bytes in order of the delta, so that sender and receiver name the same.
//!
//! Cost: packing takes the time of packing history and literals together, see [`history_level`]; unpacking is a copy.
//!
//! Invariant: `unpack_with_history(pack_with_history(raw, history), history, raw.len()) == raw`. With another history
//! the result is damaged, or an error: the root tells.
//!
//! Source: RFC 8878 (Zstandard), raw content dictionaries.

use alloc::vec::Vec;
use core::ops::Range;

use crate::{ByteLen, Offset, Op, Ops, UnpackError};

/// How many bytes on either side of an edit belong to its history.
const AROUND: u64 = 64;
/// The most bytes of history for one edit.
const MOST_FOR_ONE: u64 = 256 << 10;

/// Which ranges of the basis are the history of a delta's literals.
#[derive(Clone, Debug)]
pub struct History {
    basis: u64,
    ranges: Vec<Range<Offset>>,
    len: u64,
    /// Where the last copy ended.
    copied: u64,
    /// The length of the literal since then.
    literal: u64,
}

impl History {
    /// The most history of one delta, in bytes.
    pub const MOST: u64 = 8 << 20;

    /// No literals yet, of a delta for a basis of so many bytes.
    pub const fn new(basis: ByteLen) -> Self {
        Self { basis: basis.get(), ranges: Vec::new(), len: 0, copied: 0, literal: 0 }
    }

    /// Takes in the next operations of the delta, in pieces of any size.
    ///
    /// # Security
    ///
    /// Operations may come from a peer, whether checked by a planner or not: the ranges lie within the basis and are at
    /// most two for each operation.
    pub fn push(&mut self, ops: &Ops) {
        for op in ops.as_slice() {
            match *op {
                Op::Literal { len } => self.literal = self.literal.saturating_add(len.get()),
                Op::Copy { from, len } => {
                    self.replaced_until(from.get());
                    self.copied = from.get().saturating_add(len.get()).min(self.basis);
                }
            }
        }
    }

    /// The ranges of the basis, in the order in which their bytes make the history; once all operations were pushed.
    pub fn finish(mut self) -> Vec<Range<Offset>> {
        self.replaced_until(self.basis);
        self.ranges
    }

    /// Adds the history of the literal between the last copy and one that starts at `next`.
    fn replaced_until(&mut self, next: u64) {
        let literal = core::mem::take(&mut self.literal);
        if literal == 0 {
            return;
        }
        // A literal far shorter than the old bytes in its place resembles their beginning and end.
        let reach = literal.saturating_mul(2).saturating_add(2 * AROUND).min(MOST_FOR_ONE / 2);
        let end = self.copied.saturating_add(reach);
        self.add(self.copied.saturating_sub(AROUND)..end.min(next.max(self.copied).saturating_add(AROUND)));
        if next > end {
            self.add(next.saturating_sub(reach).max(end)..next.saturating_add(AROUND));
        }
    }

    fn add(&mut self, range: Range<u64>) {
        // What the last range has is not repeated.
        let start = match self.ranges.last() {
            Some(last) if (last.start.get()..=last.end.get()).contains(&range.start) => last.end.get(),
            _ => range.start,
        };
        let end = range.end.min(self.basis).min(start.saturating_add(Self::MOST - self.len));
        if start >= end {
            return;
        }
        self.len += end - start;
        match self.ranges.last_mut() {
            Some(last) if last.end.get() == start => last.end = Offset::new(end),
            _ => self.ranges.push(Offset::new(start)..Offset::new(end)),
        }
    }
}

/// The level at which packing or unpacking so many bytes of history and literals stays within about a quarter of a
/// second.
pub const fn history_level(bytes: usize) -> i32 {
    match bytes {
        0..0x8_0000 => 19,
        0x8_0000..0x20_0000 => 12,
        0x20_0000..0x80_0000 => 6,
        _ => 3,
    }
}

/// Packs `raw` behind `history` at `level` (1 fastest, 3 usual, 19 smallest); `None` when that would not make it
/// smaller.
#[cfg(feature = "zstd")]
pub fn pack_with_history(raw: &[u8], history: &[u8], level: i32) -> Option<Vec<u8>> {
    use zstd_safe::CParameter::{CompressionLevel, ContentSizeFlag, WindowLog};
    // Both ends know the length; a frame without it is shorter. The window reaches back over all history.
    let window = (raw.len() + history.len()).next_power_of_two().trailing_zeros().clamp(10, 27);
    let mut context = zstd_safe::CCtx::try_create()?;
    for parameter in [CompressionLevel(level), WindowLog(window), ContentSizeFlag(false)] {
        context.set_parameter(parameter).ok()?;
    }
    context.ref_prefix(history).ok()?;
    let mut packed = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
    context.compress2(&mut packed, raw).ok()?;
    packed.shrink_to_fit();
    (packed.len() < raw.len()).then_some(packed)
}

/// Packs nothing: this build has no compression.
#[cfg(not(feature = "zstd"))]
pub fn pack_with_history(_raw: &[u8], _history: &[u8], _level: i32) -> Option<Vec<u8>> {
    None
}

/// Unpacks what must become exactly `raw_len` bytes behind the same `history`.
///
/// # Errors
///
/// [`UnpackError`] when the frame is damaged, makes another length, or this build has no compression.
///
/// # Security
///
/// Allocates `raw_len` bytes, which the caller has checked against its limits, and never more: they and the history are
/// the window, whatever the frame says of its own.
#[cfg(feature = "zstd")]
pub fn unpack_with_history(packed: &[u8], history: &[u8], raw_len: usize) -> Result<Vec<u8>, UnpackError> {
    let mut context = zstd_safe::DCtx::try_create().ok_or(UnpackError::Damaged)?;
    context.ref_prefix(history).map_err(|_| UnpackError::Damaged)?;
    let mut raw = Vec::with_capacity(raw_len);
    let made = context.decompress(&mut raw, packed).map_err(|_| UnpackError::Damaged)?;
    if made != raw_len {
        return Err(UnpackError::Length { wanted: raw_len, made });
    }
    Ok(raw)
}

/// Refuses: this build has no compression.
///
/// # Errors
///
/// Always [`UnpackError::Unsupported`].
#[cfg(not(feature = "zstd"))]
pub fn unpack_with_history(_packed: &[u8], _history: &[u8], _raw_len: usize) -> Result<Vec<u8>, UnpackError> {
    Err(UnpackError::Unsupported)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn literal(len: u64) -> Op {
        Op::Literal { len: ByteLen::new(len) }
    }

    const fn copy(from: u64, len: u64) -> Op {
        Op::Copy { from: Offset::new(from), len: ByteLen::new(len) }
    }

    fn ranges(basis: u64, ops: &[Op]) -> Vec<(u64, u64)> {
        let mut history = History::new(ByteLen::new(basis));
        history.push(&ops.iter().copied().collect());
        history.finish().into_iter().map(|range| (range.start.get(), range.end.get())).collect()
    }

    #[test]
    fn history_is_what_stood_where_the_literals_stand() {
        assert_eq!(ranges(10_000, &[copy(0, 10_000)]), []);
        assert_eq!(ranges(10_000, &[copy(0, 5000), literal(10), copy(5010, 4990)]), [(4936, 5074)]);
        assert_eq!(ranges(10_000, &[copy(0, 5000), literal(10), copy(5000, 5000)]), [(4936, 5064)], "an insertion");
        assert_eq!(ranges(10_000, &[literal(10)]), [(0, 148), (9852, 10_000)], "both ends of what is gone");
        assert_eq!(ranges(10_000, &[copy(9000, 1000), literal(10), copy(0, 9000)]), [(9936, 10_000)]);
        assert_eq!(ranges(0, &[literal(10)]), []);
        let near = [copy(0, 5000), literal(10), copy(5010, 20), literal(10), copy(5040, 4960)];
        assert_eq!(ranges(10_000, &near), [(4936, 5104)], "what two edits share is there once");
    }

    #[test]
    fn history_is_bounded_whatever_the_operations_say() {
        let ops: Vec<Op> = (0..200).flat_map(|i| [literal(1 << 30), copy(i << 24, 1)]).collect();
        let ranges = ranges(1 << 40, &ops);
        assert_eq!(ranges.iter().map(|(start, end)| end - start).sum::<u64>(), History::MOST);
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn what_resembles_its_history_packs_to_almost_nothing() {
        let row = b"INSERT INTO orders VALUES (17,'alpha bravo',42.50,'2024-01-02 03:04:05','pending');";
        let mut edited = row.to_vec();
        edited[40] = b'9';
        let packed = pack_with_history(&edited, row, 19).expect("packs");
        assert!(packed.len() < 30, "{}", packed.len());
        assert_eq!(unpack_with_history(&packed, row, edited.len()), Ok(edited));
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn another_length_or_history_is_no_danger() {
        let raw = alloc::vec![5; 1000];
        let packed = pack_with_history(&raw, &raw, 3).expect("packs");
        assert_eq!(unpack_with_history(&packed, &raw, 999), Err(UnpackError::Damaged));
        assert_eq!(unpack_with_history(&packed, &raw, 1001), Err(UnpackError::Length { wanted: 1001, made: 1000 }));
        assert!(unpack_with_history(&packed, &raw[..500], 1000).is_err() || raw.len() == 1000);
        assert_eq!(unpack_with_history(b"no frame at all", &raw, 10), Err(UnpackError::Damaged));
        assert_eq!(pack_with_history(b"", b"", 3), None);
    }

    proptest! {
        #[test]
        #[cfg(feature = "zstd")]
        fn packing_round_trips(
            raw in prop::collection::vec(0u8..4, 0..2000),
            history in prop::collection::vec(0u8..4, 0..2000),
            level in 1i32..20,
        ) {
            if let Some(packed) = pack_with_history(&raw, &history, level) {
                prop_assert_eq!(unpack_with_history(&packed, &history, raw.len()), Ok(raw));
            }
        }

        #[test]
        fn ranges_lie_within_the_basis(
            parts in prop::collection::vec((any::<bool>(), any::<u64>(), any::<u64>()), 0..20),
            basis: u64,
        ) {
            // As a decoder would yield them, before any check; literals in a row are one sum.
            let mut history = History::new(ByteLen::new(basis));
            for (is_copy, from, len) in parts {
                let op = if is_copy { copy(from, len) } else { literal(len) };
                history.push(&[op].into_iter().collect());
            }
            let ranges = history.finish();
            prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end.get() <= basis));
            prop_assert!(ranges.iter().map(|range| range.end.get() - range.start.get()).sum::<u64>() <= History::MOST);
        }

        #[test]
        fn any_bytes_unpack_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..100), raw_len in 0usize..200) {
            if let Ok(raw) = unpack_with_history(&bytes, &[7; 50], raw_len) {
                prop_assert_eq!(raw.len(), raw_len);
            }
        }
    }
}
