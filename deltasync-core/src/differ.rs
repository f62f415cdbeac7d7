//! Finds the blocks of a signature in a target, at any byte offset, and emits the delta between the two.
//!
//! A window of one block slides over the target. Where its weak sum is that of a block and its strong sum confirms it,
//! the window becomes a copy and the search goes on behind it; a byte that leaves the window unmatched is a literal. Of
//! several equal blocks the one that continues the last copy is taken, or keeps its shift, else the first. The shorter
//! last block is looked for behind its predecessor and at the end of the target.
//!
//! Cost: two multiplications and one probe of a bitmap for a literal byte, one strong sum for a block that matches.
//! Strong sums taken in vain are rationed, see [`Ration`], so that equal weak sums cost matches and not time.
//! Memory: the index, a window of at most two blocks and [`STEP`], and the pieces that have not been taken.
//!
//! Invariants: any split of the target gives the same pieces, and each `Literal` and `Copy` stands for bytes pushed.
//!
//! Source: A. Tridgell, "Efficient Algorithms for Sorting and Synchronization" (1999), chapter 3.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::piece::Pieces;
use crate::ration::Ration;
use crate::{ByteLen, DeltaPiece, DeltaSummary, Hasher, Limits, RollingSum, SignatureIndex};

/// How much of a long push is searched before what is decided leaves the window, in bytes.
const STEP: usize = 256 << 10;
/// A shorter last block that does not follow its predecessor is left to the literals below this, in bytes: a copy would
/// cost as much.
const WORTHWHILE: usize = 8;

/// Makes a delta from a signature and the bytes of a target, pushed in any split.
#[derive(Clone, Debug)]
pub struct Differ {
    index: Arc<SignatureIndex>,
    hasher: Hasher,
    pieces: Pieces,
    /// The end of the target so far, from `base` on: first literals that have not been handed over, then, from `at` on,
    /// what is undecided.
    window: Vec<u8>,
    /// Where the window starts in the target.
    base: u64,
    /// Where the literals start in the window.
    literal: usize,
    /// Where the undecided bytes start in the window.
    at: usize,
    /// The weak sum of the block at `at`, once it has been computed.
    rolling: Option<RollingSum>,
    /// True when the block at `at` is known not to match.
    looked: bool,
    last: Option<LastCopy>,
    ration: Ration,
}

/// Where the last copy ended. Nothing copied yet counts as a copy of nothing at the start of both.
#[derive(Clone, Copy, Debug)]
struct LastCopy {
    in_basis: u64,
    in_target: u64,
}

impl Differ {
    /// A differ against the basis behind `index`; its pieces keep within `limits`.
    pub fn new(index: impl Into<Arc<SignatureIndex>>, limits: &Limits) -> Self {
        let index = index.into();
        Self {
            hasher: index.signature().algorithm().hasher(),
            pieces: Pieces::new(limits),
            window: Vec::new(),
            base: 0,
            literal: 0,
            at: 0,
            rolling: None,
            looked: false,
            last: Some(LastCopy { in_basis: 0, in_target: 0 }),
            ration: Ration::new(index.signature().block_len()),
            index,
        }
    }

    /// Takes in the next bytes of the target, in time proportional to their number; then
    /// [`next_piece`](Self::next_piece) has what is decided.
    pub fn push(&mut self, target: &[u8]) {
        self.hasher.update(target);
        for part in target.chunks(STEP) {
            self.window.extend_from_slice(part);
            self.search();
            self.settle();
        }
    }

    /// The next complete piece of the delta, `None` when more of the target is needed.
    pub fn next_piece(&mut self) -> Option<DeltaPiece> {
        self.pieces.next()
    }

    /// The pieces that are left and what the delta came to, once the whole target has been pushed.
    pub fn finish(mut self) -> (Vec<DeltaPiece>, DeltaSummary) {
        let tail = self.index.signature().tail_len();
        let start = self.window.len().saturating_sub(tail);
        if tail >= WORTHWHILE && start >= self.at && self.is_tail(start) {
            self.at = start;
            self.take(self.index.signature().full_blocks());
        }
        self.at = self.window.len();
        self.settle();
        self.pieces.close();
        let summary = DeltaSummary {
            copied: self.pieces.copied_len(),
            literal: self.pieces.literal_len(),
            root: self.hasher.finish(),
        };
        (core::iter::from_fn(|| self.pieces.next()).collect(), summary)
    }

    /// Decides as much as the bytes at hand allow.
    fn search(&mut self) {
        while let Some(block) = self.seek() {
            self.take(block);
        }
    }

    /// Moves on to the next match; `None` when more bytes are needed to decide.
    fn seek(&mut self) -> Option<usize> {
        let index = Arc::clone(&self.index);
        let signature = index.signature();
        let block_len = signature.block_len();
        if let Some(last) = self.last
            && last.in_target == self.position()
            && signature.tail_len() > 0
            && last.in_basis == signature.start(signature.full_blocks()).get()
        {
            if self.window.len() - self.at < signature.tail_len() {
                return None;
            }
            if self.is_tail(self.at) {
                return Some(signature.full_blocks());
            }
            self.last = None;
        }
        if index.is_empty() {
            // Nothing but the last block can match, and that only at the end.
            self.at = self.at.max((self.window.len() + 1).saturating_sub(block_len));
            return None;
        }
        loop {
            let block = self.window.get(self.at..self.at + block_len)?;
            let mut sum = self.rolling.unwrap_or_else(|| RollingSum::of(block));
            self.rolling = Some(sum);
            if !self.looked {
                if let Some(found) = self.look(sum.value()) {
                    return Some(found);
                }
                self.looked = true;
            }
            let (leaving, entering) = (&self.window[self.at..], &self.window[self.at + block_len..]);
            let (rolled, stopped) = index.roll_to_candidate(&mut sum, leaving, entering);
            self.at += rolled;
            self.rolling = Some(sum);
            self.looked = !stopped;
            if !stopped {
                return None;
            }
        }
    }

    /// The block that the window at `at` is, if it is one.
    fn look(&mut self, weak: u32) -> Option<usize> {
        let signature = self.index.signature();
        let candidates = self.index.candidates(weak);
        if candidates.is_empty() {
            return None;
        }
        // A block at the shift of the last copy is not rationed: that is one look in the length of a block.
        let aligned = self.aligned().filter(|block| signature.weak(*block) == weak);
        if aligned.is_none() && !self.ration.allows(self.position()) {
            return None;
        }
        let digest = signature.algorithm().digest(&self.window[self.at..][..signature.block_len()]);
        let strong = &digest.as_bytes()[..signature.strong_len()];
        let equal = |block: &usize| signature.strong(*block) == strong;
        let found = aligned.filter(equal).or_else(|| self.index.find(candidates, strong));
        if found.is_none() {
            self.ration.spend();
        }
        found
    }

    /// The full block that stands at `at` if the shift of the last copy still holds.
    fn aligned(&self) -> Option<usize> {
        let last = self.last?;
        let signature = self.index.signature();
        let offset = last.in_basis.checked_add(self.position() - last.in_target)?;
        let block_len = signature.block_len() as u64;
        let block = usize::try_from(offset / block_len).ok()?;
        (offset.is_multiple_of(block_len) && block < signature.full_blocks()).then_some(block)
    }

    /// True when the shorter last block of the basis stands at `start` in the window.
    fn is_tail(&self, start: usize) -> bool {
        let signature = self.index.signature();
        let Some(bytes) = self.window[start..].get(..signature.tail_len()) else { return false };
        let tail = signature.full_blocks();
        RollingSum::of(bytes).value() == signature.weak(tail)
            && signature.algorithm().digest(bytes).as_bytes().starts_with(signature.strong(tail))
    }

    /// Makes the window at `at` a copy of `block`.
    fn take(&mut self, block: usize) {
        self.pieces.literal(&self.window[self.literal..self.at]);
        let signature = self.index.signature();
        let len = if block < signature.full_blocks() { signature.block_len() } else { signature.tail_len() };
        let from = signature.start(block);
        self.pieces.copy(from, ByteLen::new(len as u64));
        self.at += len;
        self.literal = self.at;
        self.rolling = None;
        self.looked = false;
        let in_basis = from + ByteLen::new(len as u64);
        self.last = Some(LastCopy { in_basis: in_basis.get(), in_target: self.position() });
    }

    /// Hands the literals over and, once half of the window is decided, drops that half.
    fn settle(&mut self) {
        self.pieces.literal(&self.window[self.literal..self.at]);
        self.literal = self.at;
        if self.at > self.window.len() / 2 {
            self.window.drain(..self.at);
            self.base += self.at as u64;
            (self.literal, self.at) = (0, 0);
        }
    }

    /// Where `at` is in the target.
    const fn position(&self) -> u64 {
        self.base + self.at as u64
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::{Algorithm, Op, Ops, Signature, reference};

    fn index_of(basis: &[u8], block_len: usize) -> Arc<SignatureIndex> {
        let builder = Signature::builder(ByteLen::of(basis)).block_len(block_len);
        let mut signer = builder.build(&Limits::default()).expect("in range");
        signer.push(basis);
        Arc::new(SignatureIndex::new(signer.finish().expect("as long as announced")))
    }

    fn diff(index: &Arc<SignatureIndex>, target: &[u8], split: usize, limits: &Limits) -> Vec<DeltaPiece> {
        let mut differ = Differ::new(Arc::clone(index), limits);
        let mut pieces = Vec::new();
        for part in target.chunks(split) {
            differ.push(part);
            pieces.extend(core::iter::from_fn(|| differ.next_piece()));
        }
        let (last, summary) = differ.finish();
        pieces.extend(last);
        let ops = joined(&pieces);
        assert_eq!((summary.literal, summary.copied), (ops.literal_len(), ops.copied_len()));
        assert_eq!(summary.root, Algorithm::Blake3.digest(target));
        pieces
    }

    fn joined(pieces: &[DeltaPiece]) -> Ops {
        pieces.iter().flat_map(|piece| piece.ops.as_slice().iter().copied()).collect()
    }

    /// The laws: the delta makes the target, any split makes the same pieces, and a matcher that compares bytes does not
    /// find more.
    fn check_diff(basis: &[u8], target: &[u8], block_len: usize, split: usize) -> Ops {
        let index = index_of(basis, block_len);
        let limits = Limits::default().piece(4096).ops(64);
        let pieces = diff(&index, target, usize::MAX, &limits);
        assert_eq!(diff(&index, target, split, &limits), pieces, "split every {split}");
        let literals: Vec<u8> = pieces.iter().flat_map(|piece| piece.literals.iter().copied()).collect();
        let ops = joined(&pieces);
        assert_eq!(reference::patch(basis, &ops, &literals), target);
        let naive = reference::diff(basis, target, block_len);
        assert_eq!(ops.literal_len(), naive.literal_len(), "literal bytes of a basis of {}", basis.len());
        ops
    }

    fn random(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(step).collect()
    }

    fn text(len: usize) -> Vec<u8> {
        let words: [&[u8]; 8] = [b"the ", b"basis ", b"and ", b"target ", b"of ", b"a ", b"sync\n", b"are "];
        let picks = random(len, 11);
        picks.iter().flat_map(|pick| words[usize::from(pick % 8)]).copied().take(len).collect()
    }

    #[test]
    fn an_identical_target_is_one_copy() {
        for len in [1, 63, 64, 65, 20_000] {
            let basis = random(len, 1);
            let ops = check_diff(&basis, &basis, 64, 7);
            assert_eq!(ops.as_slice(), [Op::Copy { from: crate::Offset::ZERO, len: ByteLen::of(&basis) }], "{len}");
        }
        assert!(check_diff(&[], &[], 64, 7).is_empty());
    }

    #[test]
    fn lengths_around_a_block() {
        let data = random(300, 2);
        for basis in [0, 1, 63, 64, 65, 127, 128, 129] {
            for target in [0, 1, 63, 64, 65, 127, 128, 129] {
                check_diff(&data[..basis], &data[..target], 64, 1);
                check_diff(&data[..basis], &data[5..5 + target], 64, 13);
                check_diff(&data[100..100 + basis], &data[..target], 64, 64);
            }
        }
    }

    #[test]
    fn one_byte_changed_costs_one_block() {
        let basis = random(20_000, 3);
        let mut target = basis.clone();
        target[9_999] ^= 1;
        assert_eq!(check_diff(&basis, &target, 128, 1000).literal_len().get(), 128);
    }

    #[test]
    fn an_insertion_at_the_front_costs_what_was_inserted() {
        let basis = random(20_000, 4);
        let target = [b"new", &basis[..]].concat();
        let ops = check_diff(&basis, &target, 128, 777);
        assert_eq!((ops.literal_len().get(), ops.len()), (3, 2));
    }

    #[test]
    fn moved_regions_are_found_where_they_went() {
        let basis = random(30_000, 5);
        let target = [&basis[20_000..], &basis[5_000..9_000], &basis[..7_000]].concat();
        let ops = check_diff(&basis, &target, 128, 4096);
        assert!(ops.literal_len().get() < 128 * 6, "{}", ops.literal_len());
    }

    #[test]
    fn unrelated_data_is_all_literal() {
        let ops = check_diff(&random(20_000, 6), &random(20_000, 7), 128, 100);
        assert_eq!(ops.literal_len().get(), 20_000);
    }

    #[test]
    fn zeros_of_any_length_are_copies() {
        for (basis, target) in [(10_000, 10_000), (10_000, 30_001), (128, 5000), (130, 5000), (20_000, 77)] {
            let ops = check_diff(&vec![0; basis], &vec![0; target], 128, 999);
            assert!(ops.literal_len().get() < 128, "{basis} to {target}: {}", ops.literal_len());
        }
    }

    #[test]
    fn edits_within_text() {
        let basis = text(30_000);
        let mut target = basis.clone();
        target.splice(10_000..10_010, *b"something else");
        target.drain(20_000..20_100);
        target.splice(25_000..25_000, random(50, 8));
        let ops = check_diff(&basis, &target, 64, 555);
        assert!(ops.literal_len().get() < 600, "{}", ops.literal_len());
    }

    #[test]
    fn of_equal_blocks_the_one_that_keeps_the_shift_is_taken() {
        let block = random(64, 9);
        let basis = block.repeat(100);
        let mut target = basis.clone();
        target[64 * 50] ^= 1;
        let ops = check_diff(&basis, &target, 64, 100);
        assert_eq!(ops.len(), 3, "copy, literal, copy at the same shift: {ops:?}");
    }

    /// Blocks of equal weak sums: a Thue-Morse word or its complement in each of `bits`, between random bytes.
    fn collide(bits: &[u8], seed: u64) -> Vec<u8> {
        let block = |bit: u8| (0..1024u32).map(move |i| (i.count_ones() as u8 & 1) ^ bit);
        let mut data: Vec<u8> = bits.iter().copied().flat_map(block).collect();
        data.extend(random(100, seed));
        data
    }

    #[test]
    fn different_blocks_of_equal_weak_sums_are_told_apart() {
        let basis = collide(&[0, 1, 1, 0, 1], 1);
        check_diff(&basis, &collide(&[1, 0, 0, 1, 1, 1, 0], 2), 1024, 1000);
    }

    #[test]
    fn a_target_of_nothing_but_vain_candidates_makes_the_same_pieces_in_any_split() {
        // Every window has the weak sum of every block, and none is a block.
        let block = |k: u8| (0..1024u32).map(move |i| if i.count_ones() & 1 == 0 { 100 - k } else { 100 + k });
        let basis: Vec<u8> = (1..=20).flat_map(block).collect();
        let index = index_of(&basis, 1024);
        assert_eq!(index.candidates(RollingSum::of(&[100; 1024]).value()).len(), 20);
        // Once the burst is used up, which of these blocks are found depends on what was spent before each.
        let mut target = vec![100; 3000];
        for i in 0..100 {
            target.resize(target.len() + 1024 + i * 13 % 80, 100);
            target.extend_from_slice(&basis[i % 20 * 1024..][..1024]);
        }
        let whole = diff(&index, &target, usize::MAX, &Limits::default());
        let copied = joined(&whole).copied_len().get() / 1024;
        assert!((10..90).contains(&copied), "{copied} of 100 blocks found");
        for split in [1, 50, 4096, 99_999] {
            assert_eq!(diff(&index, &target, split, &Limits::default()), whole, "split every {split}");
        }
    }

    #[test]
    fn a_window_keeps_no_more_than_two_blocks_and_a_step() {
        let basis = random(100_000, 10);
        let mut differ = Differ::new(index_of(&basis, 4096), &Limits::default());
        for part in random(3_000_000, 11).chunks(1_000_000) {
            differ.push(part);
            assert!(differ.window.len() <= 2 * 4096, "{}", differ.window.len());
            assert!(differ.window.capacity() <= 4 * STEP, "{}", differ.window.capacity());
            while differ.next_piece().is_some() {}
        }
    }

    proptest! {
        #[test]
        fn edited_targets(
            (basis, target) in edited(),
            block_len in 16usize..100,
            split in 1usize..500,
        ) {
            check_diff(&basis, &target, block_len, split);
        }
    }

    /// A basis over an alphabet of 2 to 256 letters, and a target of some ranges of it between some new bytes.
    fn edited() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let part = (any::<prop::sample::Index>(), 0usize..600, vec(any::<u8>(), 0..40));
        (0u32..8, vec(any::<u8>(), 1..2000), vec(part, 0..8)).prop_map(|(shift, mut basis, parts)| {
            basis.iter_mut().for_each(|byte| *byte >>= shift);
            let mut target = Vec::new();
            for (start, len, new) in parts {
                let start = start.index(basis.len());
                target.extend_from_slice(&basis[start..(start + len).min(basis.len())]);
                target.extend(new);
            }
            (basis, target)
        })
    }
}
