//! A run: blocks of the basis that follow one another in the target, many of them compared at once.
//!
//! Digests of many blocks fill the SIMD lanes, so they are computed as far as the weak sums of the blocks agree. Where all
//! blocks have one weak sum that is in vain, and where a run is long the weak sums are: so as much is compared at once as
//! has been equal before, and a run that has been [`SURE`] for long is compared by digests alone.
//!
//! Cost: one weak and one strong sum a byte, of a long run only the strong one. What is hashed in vain comes to no more than
//! a block for each comparison, and beside that to what has been equal and [`FIRST`].
//!
//! Invariant: what is equal does not depend on how much is compared at once, where weak sums are those of the basis.

use alloc::vec::Vec;

use crate::rolling::weak_sum;
use crate::{Digest, Signature};

/// How much is compared at once at first, in bytes: it fills the lanes of a digest.
const FIRST: usize = 16 << 10;
/// How much is compared at once at most, in bytes: it stays in the cache.
const MOST: usize = 64 << 10;
/// How long a run has to be until weak sums would only find out what digests do, in bytes.
const SURE: usize = 2 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// How much is compared at once, in bytes.
    at_once: usize,
    /// How much has been equal since something was not, in bytes.
    unbroken: usize,
    /// Of blocks one after another, the first of them at `digested` of the target.
    digests: Vec<Digest>,
    digested: u64,
    /// How much has been hashed, in bytes.
    #[cfg(test)]
    pub(crate) hashed: usize,
}

impl Run {
    pub(crate) const fn new() -> Self {
        Self {
            at_once: FIRST,
            unbroken: 0,
            digests: Vec::new(),
            digested: 0,
            #[cfg(test)]
            hashed: 0,
        }
    }

    /// How many blocks from `block` on are compared at once, at least one.
    pub(crate) fn blocks(&self, signature: &Signature, block: usize) -> usize {
        (self.at_once / signature.block_len()).max(1).min(signature.full_blocks() - block)
    }

    /// How many of `blocks`, which stand one after another at `position` of the target, are those of the basis from `block`
    /// on. What comes `ahead` of them is fetched into the cache, as much as they are long.
    pub(crate) fn equal(
        &mut self,
        signature: &Signature,
        position: u64,
        blocks: &[&[u8]],
        block: usize,
        ahead: &mut &[u8],
    ) -> usize {
        let alike = if self.unbroken < SURE { alike(signature, blocks, block) } else { blocks.len() };
        self.digest(signature, position, &blocks[..alike], ahead);
        let equal = self.equal_digests(signature, block);
        self.unbroken =
            if equal < blocks.len() { 0 } else { self.unbroken.saturating_add(equal * signature.block_len()) };
        equal
    }

    /// The digest of the first of `blocks`, of which at least that one has the weak sum of `block`: those behind it are
    /// likely to be wanted next.
    pub(crate) fn first(
        &mut self,
        signature: &Signature,
        position: u64,
        blocks: &[&[u8]],
        block: usize,
    ) -> Option<&Digest> {
        let alike = alike(signature, blocks, block);
        self.digest(signature, position, &blocks[..alike], &mut &[][..]);
        self.digests.first()
    }

    /// How many of the blocks whose digests were computed last are those of the basis from `block` on.
    pub(crate) fn equal_digests(&mut self, signature: &Signature, block: usize) -> usize {
        let block_len = signature.block_len();
        let known = self.digests.iter().zip(block..signature.full_blocks());
        let equal = known.take_while(|(digest, block)| digest.as_bytes().starts_with(signature.strong(*block))).count();
        let in_vain = equal < self.digests.len();
        self.at_once = if in_vain { equal.max(1) * block_len } else { (self.at_once + equal * block_len).min(MOST) };
        equal
    }

    /// None of the blocks whose digests were computed last is in the basis.
    pub(crate) fn refuse(&mut self, signature: &Signature) {
        self.at_once = signature.block_len();
    }

    /// Computes the digests of `blocks`, unless that of the first is there.
    fn digest(&mut self, signature: &Signature, position: u64, blocks: &[&[u8]], ahead: &mut &[u8]) {
        if !blocks.is_empty() && !self.digests.is_empty() && self.digested == position {
            return;
        }
        let len = blocks.len() * signature.block_len();
        let (next, after) = ahead.split_at(ahead.len().min(len));
        *ahead = after;
        #[cfg(test)]
        {
            self.hashed += len;
        }
        self.digests.clear();
        self.digested = position;
        signature.algorithm().digest_all_ahead(blocks, next, &mut self.digests);
    }
}

/// How many of `blocks` have the weak sums of those from `block` on.
fn alike(signature: &Signature, blocks: &[&[u8]], block: usize) -> usize {
    blocks.iter().zip(block..).take_while(|(bytes, block)| weak_sum(bytes) == signature.weak(*block)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cut::tests::random;
    use crate::{ByteLen, Limits};

    const BLOCK: usize = 512;

    fn sign(basis: &[u8]) -> Signature {
        let builder = Signature::builder(ByteLen::of(basis)).block_len(BLOCK);
        let mut signer = builder.build(&Limits::default()).expect("in range");
        signer.push(basis);
        signer.finish().expect("as long as announced")
    }

    /// Compares all of `target` with the basis at the same place; gives back which blocks are equal and how many were
    /// hashed.
    fn compare(signature: &Signature, target: &[u8]) -> (Vec<bool>, usize) {
        let blocks: Vec<&[u8]> = target.chunks_exact(BLOCK).collect();
        let (mut run, mut equal) = (Run::new(), Vec::new());
        while equal.len() < blocks.len() {
            let block = equal.len();
            let most = run.blocks(signature, block);
            let some = &blocks[block..blocks.len().min(block + most)];
            let count = run.equal(signature, (block * BLOCK) as u64, some, block, &mut &[][..]);
            equal.resize(block + count, true);
            if count < some.len() {
                equal.push(false);
            }
        }
        (equal, run.hashed / BLOCK)
    }

    #[test]
    fn what_is_equal_does_not_depend_on_what_was_before() {
        let basis = random(1, 3 * SURE);
        let signature = sign(&basis);
        let mut target = basis.clone();
        // Close together, in a run that is sure, in one that is not any more.
        let edited = [0, 1, 2, 5, 30, 100, 101, 200, SURE / BLOCK + 500, SURE / BLOCK + 510, 3 * SURE / BLOCK - 1];
        edited.iter().for_each(|block| target[block * BLOCK + 7] ^= 1);
        let (equal, _) = compare(&signature, &target);
        let differ: Vec<usize> = (0..equal.len()).filter(|block| !equal[*block]).collect();
        assert_eq!(differ, edited);
    }

    #[test]
    fn blocks_of_one_weak_sum_are_hashed_about_once() {
        // Words whose bytes are as much more or less than 100, by the bits of their places.
        let word = |by: u8| (0..128u32).map(move |i| if i.count_ones() & 1 == 0 { 100 - by } else { 100 + by });
        let block = |by: u8| core::iter::repeat_with(move || word(by)).flatten().take(BLOCK);
        let basis: Vec<u8> = (0..2000).flat_map(|i| block(i as u8 % 100)).collect();
        let signature = sign(&basis);
        assert!((0..2000).all(|block| signature.weak(block) == signature.weak(0)));
        // No block is where it was, then every other one.
        for every in [1, 2, 7] {
            let target: Vec<u8> =
                (0..2000).flat_map(|i| block((i + usize::from(i % every == 0)) as u8 % 100)).collect();
            let (equal, hashed) = compare(&signature, &target);
            assert!(equal.iter().zip(0..).all(|(equal, i)| *equal == (i % every != 0)));
            assert!(hashed <= 2 * 2000 + 2 * FIRST / BLOCK, "{hashed} hashed, one in {every} moved");
        }
    }

    #[test]
    fn the_digest_of_a_refused_block_is_kept() {
        let basis = random(2, 4 * BLOCK);
        let signature = sign(&basis);
        let mut run = Run::new();
        let blocks = [&basis[BLOCK..2 * BLOCK]];
        let digest = *run.first(&signature, 77, &blocks, 1).expect("of its weak sum");
        assert_eq!(digest, signature.algorithm().digest(blocks[0]));
        run.refuse(&signature);
        assert_eq!(run.blocks(&signature, 0), 1, "more are hashed once they are equal");
        // Other bytes, as nothing is hashed again at this position.
        assert_eq!(run.equal(&signature, 77, &[&basis[BLOCK..2 * BLOCK]], 1, &mut &[][..]), 1);
        assert_eq!(
            run.first(&signature, 78, &[&basis[..BLOCK]], 0),
            Some(&signature.algorithm().digest(&basis[..BLOCK]))
        );
    }
}
