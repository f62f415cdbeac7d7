//! The blocks of a signature, ready to be found in a target.
//!
//! Two tables: the blocks that have an anchor under the key of its bytes, and those that have none under their weak sum,
//! for which a window has to roll. In a signature without anchors that is all of them. Blocks of one anchor key stand
//! sorted by position of the anchor, the last first, since those start first in the target; then by weak and by strong
//! sum. So whoever stands at an anchor of the target needs one weak sum for each position that occurs under its key, and
//! searches among the blocks that have it, however many share it. Those of one rolled sum stand by strong sum, so that
//! one digest of the target tells whether any of them is equal.
//!
//! Invariant: every full block, or an equal one before it, is in one of the tables.

use alloc::vec::Vec;

use crate::Signature;
use crate::anchor::Anchor;
use crate::table::{Entry, FilterSize, Table, equal_range};

/// A MiB at most for anchors: the filter stays in the second-level cache.
const ANCHORED: FilterSize = FilterSize { an_entry: 6, most: 23 };
/// 4 MiB at most for weak sums, which are looked up at every byte.
const ROLLED: FilterSize = FilterSize { an_entry: 6, most: 25 };

/// A signature with its blocks in tables. Read-only, so differs on several threads can share one.
#[derive(Clone, Debug)]
pub struct SignatureIndex {
    signature: Signature,
    /// The blocks with an anchor.
    pub(crate) anchored: Table,
    /// The blocks without one, under their [`mix`]ed weak sums.
    pub(crate) rolled: Table,
}

impl SignatureIndex {
    /// Indexes the blocks of `signature`, in O(blocks * log blocks) and about 40 bytes a block beside it.
    pub fn new(signature: Signature) -> Self {
        let blocks = u32::try_from(signature.full_blocks()).expect("a signature has less than 2^32 blocks");
        let (mut anchored, mut rolled) = (Vec::new(), Vec::new());
        for block in 0..blocks {
            let (weak, strong) = (signature.weak(block as usize), signature.strong(block as usize));
            match signature.anchor(block as usize) {
                Some(Anchor { at, key }) => {
                    anchored.push(Entry { key, block, order: anchored_order(at, weak, strong) })
                }
                None => rolled.push(Entry { key: mix(weak), block, order: rolled_order(strong) }),
            }
        }
        let strong = |entry: &Entry| signature.strong(entry.block as usize);
        let by_strong = |a: &Entry, b: &Entry| strong(a).cmp(strong(b));
        let anchored = Table::new(anchored, ANCHORED, by_strong);
        let rolled = Table::new(rolled, ROLLED, by_strong);
        Self { signature, anchored, rolled }
    }

    /// The signature that was indexed.
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The first block with this strong sum of `entries` that have this `order`, of others or of none.
    pub(crate) fn find(&self, entries: &[Entry], order: u64, strong: &[u8]) -> Option<usize> {
        let compare = |entry: &Entry| {
            entry.order.cmp(&order).then_with(|| self.signature.strong(entry.block as usize).cmp(strong))
        };
        let found = entries.binary_search_by(compare);
        found.ok().map(|at| entries[at].block as usize)
    }
}

/// The order of an entry under the key of its anchor: by where in the block that is, the last first, by weak sum, and
/// by the first byte of the strong sum.
pub(crate) const fn anchored_order(at: u32, weak: u32, strong: &[u8]) -> u64 {
    ((LAST_PLACE - at) as u64) << 40 | (weak as u64) << 8 | strong[0] as u64
}

/// No anchor is further back in its block: the longest blocks have 2^24 bytes.
const LAST_PLACE: u32 = (1 << 24) - 1;

/// Where in its block the anchor of an entry is.
pub(crate) const fn place(entry: &Entry) -> usize {
    (LAST_PLACE - (entry.order >> 40) as u32) as usize
}

/// The entries with this weak sum, of entries with the same anchor at the same place.
pub(crate) fn of_weak(entries: &[Entry], weak: u32) -> &[Entry] {
    equal_range(entries, |entry| ((entry.order >> 8) as u32).cmp(&weak))
}

/// The order of an entry under its weak sum: by the first bytes of the strong sum.
pub(crate) fn rolled_order(strong: &[u8]) -> u64 {
    u64::from_be_bytes(*strong.first_chunk().expect("no strong sum is shorter"))
}

/// The key of a weak sum. A bijection whose top bits depend on all bits of the sum; another multiplier than that of the
/// rolling sum, or mixing would be no more than rolling in a zero.
#[inline]
pub(crate) const fn mix(weak: u32) -> u32 {
    weak.wrapping_mul(0x85EB_CA6B)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::cmp::Reverse;

    use proptest::prelude::*;

    use super::*;
    use crate::{ByteLen, Limits};

    fn sign(basis: &[u8], block_len: usize) -> Signature {
        let builder = Signature::builder(ByteLen::of(basis)).block_len(block_len);
        let mut signer = builder.build(&Limits::default()).expect("in range");
        signer.push(basis);
        signer.finish().expect("as long as announced")
    }

    fn check_every_full_block_is_found_at_its_first_occurrence(basis: &[u8], block_len: usize) {
        let signature = sign(basis, block_len);
        check_index(SignatureIndex::new(signature.clone()));
        check_index(SignatureIndex::new(Signature { anchors: None, ..signature }));
    }

    fn check_index(index: SignatureIndex) {
        let signature = index.signature();
        for block in 0..signature.full_blocks() {
            let (weak, strong) = (signature.weak(block), signature.strong(block));
            let (entries, order) = match signature.anchor(block) {
                Some(anchor) => {
                    assert!(index.anchored.may_hold(anchor.key));
                    let with_key = index.anchored.with_key(anchor.key);
                    assert!(with_key.is_sorted_by_key(|entry| Reverse(place(entry))));
                    let same_place = equal_range(with_key, |entry| (anchor.at as usize).cmp(&place(entry)));
                    (of_weak(same_place, weak), anchored_order(anchor.at, weak, strong))
                }
                None => {
                    assert!(index.rolled.may_hold(mix(weak)));
                    (index.rolled.with_key(mix(weak)), rolled_order(strong))
                }
            };
            let same = |i: &usize| signature.weak(*i) == weak && signature.strong(*i) == strong;
            assert_eq!(index.find(entries, order, strong), (0..=block).find(same), "block {block}");
            assert_eq!(index.find(entries, order, &[0; 8]), None, "no such strong sum");
        }
    }

    #[test]
    fn blocks_are_found_around_the_sizes_of_the_tables() {
        let basis: Vec<u8> = (0..64 * 130u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for blocks in [0, 1, 2, 3, 63, 64, 65, 130] {
            for block_len in [16, 64] {
                check_every_full_block_is_found_at_its_first_occurrence(&basis[..blocks * block_len], block_len);
            }
        }
    }

    #[test]
    fn a_shorter_last_block_is_in_no_table() {
        let index = SignatureIndex::new(sign(&[1; 100], 64));
        assert!(index.rolled.with_key(mix(index.signature().weak(1))).is_empty());
        let index = SignatureIndex::new(sign(&[1; 63], 64));
        assert!(index.rolled.is_empty() && index.anchored.is_empty());
    }

    proptest! {
        #[test]
        fn every_full_block_is_found(
            basis in prop::collection::vec(0u8..2, 0..800),
            block_len in prop_oneof![16usize..40, 64usize..100],
        ) {
            check_every_full_block_is_found_at_its_first_occurrence(&basis, block_len);
        }
    }
}
