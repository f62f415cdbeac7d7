//! Ranges that two files are thought to share, in bytes: what an [`Alignment`] says to those who have the bytes.
//!
//! Chunks align by tags, which may collide, and lists of chunks may be out of date: a range is a hint. Whoever takes one
//! compares.

use alloc::vec::Vec;
use core::ops::Range;

use crate::{Alignment, ByteLen, ChunkList, Offset, Segment};

/// A range that basis and target are thought to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommonRange {
    /// Where in the basis.
    pub basis: Offset,
    /// Where in the target.
    pub target: Offset,
    /// How many bytes.
    pub len: ByteLen,
}

impl CommonRange {
    /// The common runs of an alignment in bytes; `basis` and `target` are the lists whose chunks were aligned.
    pub fn of(alignment: &Alignment, basis: &ChunkList, target: &ChunkList) -> Vec<CommonRange> {
        let range = |segment: &Segment| match *segment {
            Segment::Common { basis: from, target: at, count } => {
                let (start, end) = (target.offset_of(at), target.offset_of(at + count));
                Some(CommonRange { basis: basis.offset_of(from), target: start, len: end - start })
            }
            Segment::Gap { .. } => None,
        };
        alignment.segments().iter().filter_map(range).collect()
    }
}

/// The ranges of a basis of `len` bytes that no common range covers, in order; none if nothing at all is covered.
pub(crate) fn gaps_between(common: &[CommonRange], len: usize) -> Vec<Range<usize>> {
    let clamp = |offset: Offset| offset.to_usize().map_or(len, |offset| offset.min(len));
    let covered = |range: &CommonRange| Some(clamp(range.basis)..clamp(range.basis.checked_add(range.len)?));
    let mut covered: Vec<_> = common.iter().filter_map(covered).collect();
    covered.sort_unstable_by_key(|range| range.start);
    let mut gaps = Vec::new();
    let mut at = 0;
    for range in covered {
        if range.start > at {
            gaps.push(at..range.start);
        }
        at = at.max(range.end);
    }
    if 0 < at && at < len {
        gaps.push(at..len);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::{Algorithm, Cutter, TagKey, tag_runs};

    fn range(basis: u64, len: u64) -> CommonRange {
        CommonRange { basis: Offset::new(basis), target: Offset::ZERO, len: ByteLen::new(len) }
    }

    #[test]
    fn gaps_are_what_no_range_covers() {
        assert!(gaps_between(&[], 100).is_empty(), "nothing is known");
        assert!(gaps_between(&[range(0, 100)], 100).is_empty());
        assert_eq!(gaps_between(&[range(40, 10), range(20, 5), range(22, 10)], 100), [0..20, 32..40, 50..100]);
        assert_eq!(gaps_between(&[range(90, 1000), range(u64::MAX, 9), range(u64::MAX - 9, 9)], 100), vec![0..90; 1]);
        assert!(gaps_between(&[range(0, 5)], 0).is_empty());
    }

    #[test]
    fn common_chunks_are_ranges_of_equal_bytes() {
        let basis: Vec<u8> = (0..60_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
        let target = [&basis[30_000..], &vec![1; 500], &basis[..30_000]].concat();
        let cutter = Cutter::for_len(ByteLen::of(&target));
        let [old, new] = [&basis, &target].map(|bytes| ChunkList::of(bytes, cutter, Algorithm::Blake3));
        let key = TagKey::new(&[1; 16], 1);
        let ranges = CommonRange::of(&Alignment::of(&tag_runs(&old, &key), &tag_runs(&new, &key)), &old, &new);
        assert!(ranges.iter().map(|range| range.len.get()).sum::<u64>() > 40_000);
        for CommonRange { basis: from, target: at, len } in ranges {
            let [from, at, len] = [from.get(), at.get(), len.get()].map(|n| n as usize);
            assert_eq!(basis[from..from + len], target[at..at + len]);
        }
    }
}
