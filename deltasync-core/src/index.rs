//! Finds the blocks of a signature by the weak sum of a window.
//!
//! Most windows of a target match nothing, so a bitmap of the weak sums answers first: 64 to 128 bits a block, at most
//! 4 MiB, so that it stays in the cache. Behind it the full blocks stand sorted by mixed weak sum, then strong sum, then
//! position, in buckets of about one; a lookup is a search in one bucket, O(log blocks) at worst, however many blocks
//! share a weak sum. Of blocks with equal sums the first stands for all.
//!
//! Invariant: `find` yields a block exactly when some full block has the sums asked for.

use alloc::vec;
use alloc::vec::Vec;

use crate::{RollingSum, Signature};

/// The most bits in the bitmap, as a power of two: 4 MiB.
const MOST_FILTER_BITS: u32 = 25;

/// A signature with its blocks in order of their sums. Read-only, so differs on several threads can share one.
#[derive(Clone, Debug)]
pub struct SignatureIndex {
    signature: Signature,
    /// One bit for each value of the top bits of a mixed weak sum, set when a block has it.
    filter: Vec<u64>,
    filter_shift: u32,
    entries: Vec<Entry>,
    /// Where the entries begin whose mixed sum has the top bits i; one more than there are buckets.
    buckets: Vec<u32>,
    bucket_shift: u32,
}

/// A full block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    mixed: u32,
    block: u32,
}

impl SignatureIndex {
    /// Indexes the blocks of `signature`, in O(blocks * log blocks) and about 32 bytes a block beside it.
    pub fn new(signature: Signature) -> Self {
        let blocks = u32::try_from(signature.full_blocks()).expect("a signature has less than 2^32 blocks");
        let entry = |block: u32| Entry { mixed: mix(signature.weak(block as usize)), block };
        let mut entries: Vec<Entry> = (0..blocks).map(entry).collect();
        let strong = |entry: &Entry| signature.strong(entry.block as usize);
        entries.sort_unstable_by(|a, b| {
            a.mixed.cmp(&b.mixed).then_with(|| strong(a).cmp(strong(b))).then(a.block.cmp(&b.block))
        });
        entries.dedup_by(|later, first| later.mixed == first.mixed && strong(later) == strong(first));

        let bucket_bits = (entries.len() as u64).next_power_of_two().trailing_zeros().clamp(1, 31);
        let filter_bits = (bucket_bits + 6).clamp(6, MOST_FILTER_BITS);
        let (bucket_shift, filter_shift) = (u32::BITS - bucket_bits, u32::BITS - filter_bits);
        let mut filter = vec![0; 1 << (filter_bits - 6)];
        let mut buckets = vec![0u32; (1 << bucket_bits) + 1];
        for entry in &entries {
            let bit = entry.mixed >> filter_shift;
            filter[(bit / 64) as usize] |= 1u64 << (bit % 64);
            buckets[(entry.mixed >> bucket_shift) as usize + 1] += 1;
        }
        let mut before = 0;
        for bucket in &mut buckets {
            before += *bucket;
            *bucket = before;
        }
        Self { signature, filter, filter_shift, entries, buckets, bucket_shift }
    }

    /// The signature that was indexed.
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// True when no window can match: there is no full block.
    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// False when no block has this weak sum; true when one may have.
    #[inline]
    pub(crate) fn may_hold(&self, weak: u32) -> bool {
        let bit = mix(weak) >> self.filter_shift;
        self.filter[(bit / 64) as usize] >> (bit % 64) & 1 != 0
    }

    /// Rolls `sum` on by one byte after another, from `leaving[0]` and `entering[0]`, until a block may have it; yields how
    /// many bytes it rolled and whether it stopped for a block.
    pub(crate) fn roll_to_candidate(&self, sum: &mut RollingSum, leaving: &[u8], entering: &[u8]) -> (usize, bool) {
        let mut rolling = *sum;
        let mut pairs = leaving.iter().zip(entering);
        let mut rolled = 0;
        let stopped = pairs.any(|(&old, &new)| {
            rolling.roll(old, new);
            rolled += 1;
            self.may_hold(rolling.value())
        });
        *sum = rolling;
        (rolled, stopped)
    }

    /// The entries with this weak sum, sorted by strong sum.
    pub(crate) fn candidates(&self, weak: u32) -> &[Entry] {
        if !self.may_hold(weak) {
            return &[];
        }
        let mixed = mix(weak);
        let bucket = (mixed >> self.bucket_shift) as usize;
        let bucket = &self.entries[self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize];
        let start = bucket.partition_point(|entry| entry.mixed < mixed);
        let len = bucket[start..].partition_point(|entry| entry.mixed == mixed);
        &bucket[start..start + len]
    }

    /// The first block among `candidates` with this strong sum.
    pub(crate) fn find(&self, candidates: &[Entry], strong: &[u8]) -> Option<usize> {
        let block = |entry: &Entry| entry.block as usize;
        let found = candidates.binary_search_by(|entry| self.signature.strong(block(entry)).cmp(strong));
        found.ok().map(|at| block(&candidates[at]))
    }
}

/// A bijection whose top bits depend on all bits of the sum; another multiplier than that of the rolling sum, or mixing
/// would be no more than rolling in a zero.
#[inline]
const fn mix(weak: u32) -> u32 {
    weak.wrapping_mul(0x85EB_CA6B)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::{ByteLen, Limits};

    fn index_of(basis: &[u8], block_len: usize) -> SignatureIndex {
        let builder = Signature::builder(ByteLen::of(basis)).block_len(block_len);
        let mut signer = builder.build(&Limits::default()).expect("in range");
        signer.push(basis);
        SignatureIndex::new(signer.finish().expect("as long as announced"))
    }

    fn check_every_full_block_is_found_at_its_first_occurrence(basis: &[u8], block_len: usize) {
        let index = index_of(basis, block_len);
        let signature = index.signature();
        for block in 0..signature.full_blocks() {
            let (weak, strong) = (signature.weak(block), signature.strong(block));
            assert!(index.may_hold(weak));
            let first = (0..=block).find(|i| signature.weak(*i) == weak && signature.strong(*i) == strong);
            assert_eq!(index.find(index.candidates(weak), strong), first, "block {block}");
            assert_eq!(index.find(index.candidates(weak), &[0; 8]), None, "no such strong sum");
        }
    }

    #[test]
    fn blocks_are_found_around_the_sizes_of_the_table() {
        let basis: Vec<u8> = (0..16 * 130u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for blocks in [0, 1, 2, 3, 63, 64, 65, 130] {
            check_every_full_block_is_found_at_its_first_occurrence(&basis[..blocks * 16], 16);
        }
    }

    #[test]
    fn a_shorter_last_block_is_not_among_the_candidates() {
        let index = index_of(&[1; 100], 64);
        assert!(index.candidates(index.signature().weak(1)).is_empty());
        assert!(index_of(&[1; 63], 64).is_empty());
    }

    #[test]
    fn equal_blocks_are_one_entry() {
        let index = index_of(&[0; 64 * 1000], 64);
        assert_eq!(index.entries.len(), 1);
        check_every_full_block_is_found_at_its_first_occurrence(&[0; 64 * 20], 64);
    }

    proptest! {
        #[test]
        fn every_full_block_is_found(basis in prop::collection::vec(0u8..2, 0..800), block_len in 16usize..40) {
            check_every_full_block_is_found_at_its_first_occurrence(&basis, block_len);
        }
    }
}
