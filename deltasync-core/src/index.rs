//! The blocks of a signature, ready to be found in a target.
//!
//! Two tables: the blocks that have an anchor under the key of its bytes, and those that have none under their weak sum,
//! for which a window has to roll. In a signature without anchors that is all of them. Blocks of one anchor key stand
//! sorted by position of the anchor, the last first, since those start first in the target; then by weak and by strong
//! sum. So whoever stands at an anchor of the target needs one weak sum for each position that occurs under its key, and
//! searches among the blocks that have it, however many share it.
//!
//! Invariant: every full block, or an equal one before it, is in one of the tables.

use core::cmp::Reverse;

use alloc::vec::Vec;

use crate::Signature;
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
    /// Indexes the blocks of `signature`, in O(blocks * log blocks) and about 32 bytes a block beside it.
    pub fn new(signature: Signature) -> Self {
        let blocks = u32::try_from(signature.full_blocks()).expect("a signature has less than 2^32 blocks");
        let (mut anchored, mut rolled) = (Vec::new(), Vec::new());
        for block in 0..blocks {
            match signature.anchor(block as usize) {
                Some(anchor) => anchored.push(Entry { key: anchor.key, block }),
                None => rolled.push(Entry { key: mix(signature.weak(block as usize)), block }),
            }
        }
        let strong = |entry: &Entry| signature.strong(entry.block as usize);
        let place = |entry: &Entry| {
            let block = entry.block as usize;
            (signature.anchor(block).map(|anchor| Reverse(anchor.at)), signature.weak(block))
        };
        let by_anchor = |a: &Entry, b: &Entry| place(a).cmp(&place(b)).then_with(|| strong(a).cmp(strong(b)));
        let anchored = Table::new(anchored, ANCHORED, by_anchor);
        let rolled = Table::new(rolled, ROLLED, |a, b| strong(a).cmp(strong(b)));
        Self { signature, anchored, rolled }
    }

    /// The signature that was indexed.
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The first of `entries`, sorted by strong sum, that has this one.
    pub(crate) fn find(&self, entries: &[Entry], strong: &[u8]) -> Option<usize> {
        let found = entries.binary_search_by(|entry| self.signature.strong(entry.block as usize).cmp(strong));
        found.ok().map(|at| entries[at].block as usize)
    }

    /// The entries with this weak sum, sorted by strong sum, of entries with the same anchor.
    pub(crate) fn of_weak<'a>(&self, entries: &'a [Entry], weak: u32) -> &'a [Entry] {
        equal_range(entries, |entry| self.signature.weak(entry.block as usize).cmp(&weak))
    }
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
            let entries = match signature.anchor(block) {
                Some(anchor) => {
                    assert!(index.anchored.may_hold(anchor.key));
                    let at = |entry: &Entry| signature.anchor(entry.block as usize).map(|anchor| anchor.at);
                    let with_key = index.anchored.with_key(anchor.key);
                    assert!(with_key.is_sorted_by_key(|entry| Reverse(at(entry))));
                    index.of_weak(equal_range(with_key, |entry| Some(anchor.at).cmp(&at(entry))), weak)
                }
                None => {
                    assert!(index.rolled.may_hold(mix(weak)));
                    index.rolled.with_key(mix(weak))
                }
            };
            let same = |i: &usize| signature.weak(*i) == weak && signature.strong(*i) == strong;
            assert_eq!(index.find(entries, strong), (0..=block).find(same), "block {block}");
            assert_eq!(index.find(entries, &[0; 8]), None, "no such strong sum");
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
