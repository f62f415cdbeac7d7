//! Finds what a new stretch of the target has of old stretches of which only short sums are at hand.
//!
//! A sum is too short to be believed anywhere, so how many equal sums it takes depends on how likely the place is:
//!
//! 1. From the edges inwards one is enough. Old and new stretch stand between the same neighbours, so block after block
//!    is compared from the left while sums are equal, then from the right. Each run can go wrong once: behind its end.
//! 2. Between the two runs, where the bytes would stand if they had the shift of the left edge, of the right edge or of the
//!    last match, two in a row are needed.
//! 3. Anywhere else it takes three in a row with three different sums, looked up at every byte of the middle
//!    ([`FineIndex`]), if three blocks fit into it at all.
//!
//! A match in the middle is grown block by block to both sides, again by single sums. So a single sum decides at about
//! two places for each edit, on which [`FineShape::for_gaps`](crate::FineShape::for_gaps) counts.
//!
//! The whole digest of the file has the last word: a false match costs a repair, never a wrong file.
//!
//! Cost: a fresh sum of what is common, three or four nanoseconds for a byte that is not and has room for three blocks.
//! Memory: 8 bytes for each of some thousand offsets, or of four blocks' where that is more, and the copies found.
//!
//! Invariants: the operations make exactly the target's length; the copies are disjoint in the target, and each lies within
//! one stretch; work grows linearly with the target, whatever the sums are.

use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use crate::fine_index::Stretch;
use crate::{ByteLen, FineIndex, Op, Ops};

/// The most offsets that are rolled over at once, or two blocks' where that is more.
const BATCH: usize = 4096;

/// Which old stretch stands where a new one stands, and which neighbours they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairing {
    /// The number of the old stretch. One that does not exist pairs with nothing.
    pub stretch: usize,
    /// They start behind the same common chunk.
    pub left: bool,
    /// They end before the same common chunk.
    pub right: bool,
}

impl FineIndex {
    /// The copies from old stretches that `target` has, and literals for the rest: operations that make it, in order.
    ///
    /// # Security
    ///
    /// Sums and pairing may come from a peer: work is linear in the length of `target` and copies lie within the
    /// stretches, whatever they are. What the copies make may differ from the target, by chance about as often as the
    /// bits of a sum say, or whenever the peer wants; the digest of the whole file decides. Suits a fuzzer as it is:
    /// any sums that [`FineIndex::new`] takes, any target, any pairing.
    pub fn find(&self, target: &[u8], pair: Option<Pairing>) -> Ops {
        self.search(target, pair).0
    }

    /// What was found, and how much was done for it: bytes summed, offsets rolled over and sums compared.
    fn search(&self, target: &[u8], pair: Option<Pairing>) -> (Ops, u64) {
        let mut search = Search {
            index: self,
            target,
            block: self.shape().block(),
            rolled: Vec::new(),
            rolled_from: 0,
            matches: Vec::new(),
            work: 0,
        };
        search.run(pair);
        (search.ops(), search.work)
    }
}

/// The state of one search.
struct Search<'a> {
    index: &'a FineIndex,
    target: &'a [u8],
    block: usize,
    /// The sums of the windows at the offsets from `rolled_from` on.
    rolled: Vec<u64>,
    rolled_from: usize,
    /// In the order of the target.
    matches: Vec<Match>,
    work: u64,
}

/// A stretch laid beside the target.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Line {
    stretch: usize,
    /// Where the first byte of the stretch stands in the target, or would stand before it.
    start: i64,
}

/// A range of the target that stands in the stretch at this line.
struct Match {
    line: Line,
    range: Range<usize>,
}

/// A line at which two equal sums are enough, and the next place at which they could begin.
#[derive(Clone, Copy)]
struct Likely {
    line: Line,
    next: Option<usize>,
}

impl<'a> Search<'a> {
    fn run(&mut self, pair: Option<Pairing>) {
        let mut middle = 0..self.target.len();
        let Some((pair, old)) = pair.and_then(|pair| Some((pair, self.index.stretches().get(pair.stretch)?))) else {
            return self.scan(middle, [None; 3], 0..0);
        };
        let left = Line { stretch: pair.stretch, start: 0 };
        let right = Line { start: self.target.len() as i64 - old.len as i64, ..left };
        if pair.left {
            middle.start = self.forwards(left, 0, middle.end);
            self.matches.push(Match { line: left, range: 0..middle.start });
        }
        if pair.right {
            middle.end = self.backwards(right, middle.end, middle.start);
        }
        let right_run = Match { line: right, range: middle.end..self.target.len() };
        let likely = [Some(left), (right != left).then_some(right), None];
        self.scan(middle, likely, old.sums.clone());
        self.matches.push(right_run);
    }

    /// Searches what lies between the runs from the edges.
    fn scan(&mut self, middle: Range<usize>, lines: [Option<Line>; 3], mut home: Range<usize>) {
        let block = self.block;
        // The last places at which two and three blocks fit.
        let fits = |blocks: usize| middle.len().checked_sub(blocks * block).map(|room| middle.start + room);
        let Some(last_pair) = fits(2) else { return };
        let last_triple = fits(3).filter(|_| !self.index.has_no_triples());
        let mut near = home.start;
        let mut at = middle.start;
        let mut likely = lines.map(|line| line.map(|line| self.likely(line, at)));
        while at <= last_pair {
            let next = likely.iter().flatten().filter_map(|likely| likely.next).min();
            let stop = next.map_or(last_pair + 1, |next| next.min(last_pair + 1));
            let triple = last_triple.and_then(|last| self.triple(at..stop.min(last + 1), last, &home, near));
            let found = triple.map(|(at, block)| (self.line_of(block, at), at, 3)).or_else(|| {
                at = stop;
                let pair = if stop <= last_pair { self.pair(stop, &mut likely) } else { None };
                pair.map(|line| (line, stop, 2))
            });
            let Some((line, found, blocks)) = found else { continue };
            let start = self.backwards(line, found, self.matched());
            at = self.forwards(line, found + blocks * block, middle.end);
            self.matches.push(Match { line, range: start..at });
            home = self.stretch(line).sums.clone();
            near = home.start + ((at as i64 - line.start) as u64 / block as u64) as usize;
            likely[2] = (!likely[..2].iter().flatten().any(|likely| likely.line == line))
                .then_some(Likely { line, next: None })
                .or(likely[2]);
            likely = likely.map(|likely| likely.map(|likely| self.likely(likely.line, at)));
        }
    }

    /// The first place in `range` at which three blocks in a row are known, and the number of their first sum. `last` is
    /// the last place that may be asked for later.
    fn triple(
        &mut self,
        mut range: Range<usize>,
        last: usize,
        home: &Range<usize>,
        near: usize,
    ) -> Option<(usize, usize)> {
        let block = self.block;
        while !range.is_empty() {
            self.roll_to(range.start, last);
            let from = range.start - self.rolled_from;
            let len = range.len().min(self.rolled.len() - 2 * block - from);
            let windows = |nth: usize| &self.rolled[from + nth * block..from + nth * block + len];
            let (first, second, third) = (windows(0), windows(1), windows(2));
            let mut i = 0;
            while let Some(next) = self.index.next_candidate(&first[i..], &second[i..], &third[i..]) {
                i += next;
                self.work += 16;
                if let Some(found) = self.index.triple([first[i], second[i], third[i]], home, near) {
                    return Some((range.start + i, found));
                }
                i += 1;
            }
            range.start += len;
        }
        None
    }

    /// The first of the lines at which two blocks in a row are equal from `at` on; moves on those at which they are not.
    fn pair(&mut self, at: usize, likely: &mut [Option<Likely>; 3]) -> Option<Line> {
        for likely in likely.iter_mut().flatten().filter(|likely| likely.next == Some(at)) {
            let block = self.block;
            let first = self.is_equal(likely.line, at);
            if first && self.is_equal(likely.line, at + block) {
                return Some(likely.line);
            }
            // If the first is equal, the second is not, so none begins there.
            *likely = self.likely(likely.line, at + if first { 2 * block } else { block });
        }
        None
    }

    /// The line with the next place from `at` on at which two whole blocks of its stretch begin.
    fn likely(&self, line: Line, at: usize) -> Likely {
        let block = self.block as u64;
        let into = (at as i64 - line.start).max(0) as u64;
        let next = into.next_multiple_of(block);
        let holds = next + 2 * block <= self.stretch(line).len;
        // Not before `at`, as it is not before `into`.
        Likely { line, next: holds.then_some((line.start + next as i64) as usize) }
    }

    /// The line at which the block with this number stands at `at`.
    fn line_of(&self, block: usize, at: usize) -> Line {
        let stretch = self.index.stretch_of(block);
        let into = (block - self.index.stretches()[stretch].sums.start) as i64 * self.block as i64;
        Line { stretch, start: at as i64 - into }
    }

    /// Where the blocks of the line that follow `at` cease to be equal, or pass `end`. `at` is where a block begins.
    fn forwards(&mut self, line: Line, mut at: usize, end: usize) -> usize {
        while let Some(len) = self.block_len(line, at).filter(|len| *len <= end - at) {
            if !self.is_equal(line, at) {
                break;
            }
            at += len;
        }
        at
    }

    /// Where the blocks of the line before `at` cease to be equal; `floor` where they go on beyond. `at` is where a
    /// block ends.
    fn backwards(&mut self, line: Line, mut at: usize, floor: usize) -> usize {
        while at > floor && at as i64 > line.start {
            let into = (at as i64 - line.start) as u64;
            let len = (into - 1) % self.block as u64 + 1;
            let Some(start) = at.checked_sub(len as usize).filter(|start| self.is_equal(line, *start)) else { break };
            // A block that is equal is so in its parts.
            at = start.max(floor);
        }
        at
    }

    /// True when the block of the line that begins at `at` has the sum of the target there. Both must exist.
    fn is_equal(&mut self, line: Line, at: usize) -> bool {
        let stretch = self.stretch(line);
        let into = (at as i64 - line.start) as u64;
        let sum = self.index.sums()[stretch.sums.start + (into / self.block as u64) as usize];
        let len = self.block_len(line, at).expect("asked for a block that exists");
        self.work += 1;
        let rolled = at.checked_sub(self.rolled_from).and_then(|i| self.rolled.get(i)).filter(|_| len == self.block);
        let fresh = || self.index.polynomial().cut(self.index.polynomial().fresh(&self.target[at..at + len]));
        self.work += if rolled.is_some() { 0 } else { len as u64 };
        rolled.copied().unwrap_or_else(fresh) == sum
    }

    /// The length of the block of the line that begins at `at`, if one does.
    fn block_len(&self, line: Line, at: usize) -> Option<usize> {
        let into = (at as i64 - line.start) as u64;
        let left = self.stretch(line).len.checked_sub(into).filter(|left| *left > 0)?;
        Some(left.min(self.block as u64) as usize)
    }

    fn stretch(&self, line: Line) -> &'a Stretch {
        &self.index.stretches()[line.stretch]
    }

    /// Where the last match ends.
    fn matched(&self) -> usize {
        self.matches.last().map_or(0, |last| last.range.end)
    }

    /// Makes the sums at `at` and at one and two blocks behind it be among the rolled ones, and some more up to two
    /// blocks behind `last`.
    fn roll_to(&mut self, at: usize, last: usize) {
        let reach = 2 * self.block;
        let have = self.rolled_from + self.rolled.len();
        if at >= self.rolled_from && at + reach < have {
            return;
        }
        // What is kept is shorter than what is added, so moving it costs nothing much.
        let kept = at.checked_sub(self.rolled_from).filter(|_| at < have);
        match kept {
            Some(unused) => drop(self.rolled.drain(..unused)),
            None => self.rolled.clear(),
        }
        self.rolled_from = at;
        let from = at + self.rolled.len();
        // Few at first, as the next match is often near.
        let more = (2 * (at - self.matched())).min(BATCH).max(reach);
        let to = (at + reach + more).min(last + reach + 1);
        self.work += (to - from + self.block) as u64;
        let windows = &self.target[from..to - 1 + self.block];
        self.index.polynomial().roll_over(windows, &mut self.rolled);
    }

    /// The matches as copies, and literals between them.
    fn ops(&mut self) -> Ops {
        let mut ops = Ops::new();
        let mut at = 0;
        let literal = |range: Range<usize>| Op::Literal { len: ByteLen::new(range.len() as u64) };
        for Match { line, range } in mem::take(&mut self.matches) {
            ops.push(literal(at..range.start));
            let into = ByteLen::new((range.start as i64 - line.start) as u64);
            let from = self.stretch(line).from + into;
            ops.push(Op::Copy { from, len: ByteLen::new(range.len() as u64) });
            at = range.end;
        }
        ops.push(literal(at..self.target.len()));
        ops
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a list of stretches may have one")]
mod tests {
    extern crate std;

    use alloc::vec;
    use alloc::vec::Vec;
    use core::ops::Range;

    use proptest::collection::vec as vec_of;
    use proptest::prelude::*;

    use super::*;
    use crate::{FineKey, FineShape, FineSummer, Offset, OldStretch};

    const BOTH: Option<Pairing> = Some(Pairing { stretch: 0, left: true, right: true });

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let byte = |_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 56) as u8
        };
        (0..len).map(byte).collect()
    }

    fn shape(block: u32, bits: u32) -> FineShape {
        FineShape::new(block, bits).expect("in range")
    }

    fn index_of(basis: &[u8], stretches: &[Range<usize>], shape: FineShape, transfer: u32) -> FineIndex {
        let key = FineKey::new(&[1; 16], &[2; 16], transfer);
        let mut summer = FineSummer::new(key, shape);
        for stretch in stretches {
            summer.push(&basis[stretch.clone()]);
            summer.end();
        }
        let old = |range: &Range<usize>| OldStretch {
            from: Offset::new(range.start as u64),
            len: ByteLen::new(range.len() as u64),
        };
        FineIndex::new(key, shape, stretches.iter().map(old).collect(), summer.finish()).expect("summed as asked")
    }

    /// Checks that the operations make a target of this length from within the stretches, and counts the copies that
    /// make other bytes.
    fn false_copies(basis: &[u8], stretches: &[Range<usize>], target: &[u8], ops: &Ops) -> usize {
        let (mut at, mut wrong) = (0, 0);
        for op in ops.as_slice() {
            let len = op.len().get() as usize;
            if let Op::Copy { from, .. } = *op {
                let from = from.get() as usize;
                // Copies join where stretches do.
                let inside = |byte: usize| stretches.iter().any(|stretch| stretch.contains(&byte));
                assert!((from..from + len).all(inside), "copy of {len} at {from}");
                wrong += usize::from(basis[from..from + len] != target[at..at + len]);
            }
            at += len;
        }
        assert_eq!(at, target.len());
        wrong
    }

    /// Finds with sums that are long enough to be right.
    fn check_copies_are_equal(
        basis: &[u8],
        stretches: &[Range<usize>],
        target: &[u8],
        pair: Option<Pairing>,
        block: u32,
    ) -> Ops {
        let index = index_of(basis, stretches, shape(block, 40), 1);
        let (ops, work) = index.search(target, pair);
        assert_eq!(false_copies(basis, stretches, target, &ops), 0, "{ops:?}");
        assert!(work <= 30 * (target.len() as u64 + u64::from(block)), "{work} for {}", target.len());
        ops
    }

    /// An edit inside a gap leaves at most itself and two blocks to be sent.
    fn check_edit_costs_two_blocks(old: &[u8], at: usize, deleted: usize, inserted: &[u8], block: u32) {
        let target = [&old[..at], inserted, &old[at + deleted..]].concat();
        let stretch = 0..old.len();
        let ops = check_copies_are_equal(old, &[stretch], &target, BOTH, block);
        let most = inserted.len() + 2 * block as usize;
        assert!(ops.literal_len().get() <= most as u64, "{} of {} at {at}: {ops:?}", ops.literal_len(), target.len());
    }

    /// Three different blocks in a row of one stretch are not sent anew, wherever in the target they stand.
    fn check_no_three_blocks_are_left(
        basis: &[u8],
        stretches: &[Range<usize>],
        target: &[u8],
        ops: &Ops,
        block: usize,
    ) {
        let mut at = 0;
        for op in ops.as_slice() {
            let range = at..at + op.len().get() as usize;
            at = range.end;
            if !matches!(op, Op::Literal { .. }) {
                continue;
            }
            for window in target[range].windows(3 * block) {
                let (a, bc) = window.split_at(block);
                let (b, c) = bc.split_at(block);
                let stands = |stretch: &Range<usize>| {
                    let old = &basis[stretch.clone()];
                    (0..old.len()).step_by(block).any(|start| old[start..].starts_with(window))
                };
                assert!(a == b || b == c || a == c || !stretches.iter().any(stands), "left at {at}: {ops:?}");
            }
        }
    }

    fn literal(len: usize) -> Op {
        Op::Literal { len: ByteLen::new(len as u64) }
    }

    fn copy(from: usize, len: usize) -> Op {
        Op::Copy { from: Offset::new(from as u64), len: ByteLen::new(len as u64) }
    }

    #[test]
    fn edits_cost_themselves_and_two_blocks_around_the_edges_of_blocks() {
        for old in [noise(1000, 1), noise(1024, 2), vec![0; 1000], b"the same again, ".repeat(70), noise(20, 3)] {
            for at in [0, 1, 63, 64, 65, 500, 512, 960, 999, 1000].map(|at| old.len().min(at)) {
                for len in [0, 1, 30, 64, 200, 1000] {
                    let deleted = len.min(old.len() - at);
                    check_edit_costs_two_blocks(&old, at, deleted, &[], 64);
                    check_edit_costs_two_blocks(&old, at, 0, &noise(len, 4), 64);
                    check_edit_costs_two_blocks(&old, at, deleted, &noise(deleted, 5), 64);
                    check_edit_costs_two_blocks(&old, at, 0, &vec![0; len], 64);
                }
            }
        }
    }

    #[test]
    fn what_is_the_same_is_one_copy_whatever_its_length() {
        for len in [1, 15, 16, 17, 160, 1000] {
            for old in [noise(len, 1), vec![0; len]] {
                let ops = check_copies_are_equal(&old, &[0..len], &old, BOTH, 16);
                assert_eq!(ops.as_slice(), [copy(0, len)]);
            }
        }
    }

    #[test]
    fn zeros_of_other_lengths_are_copies_that_are_disjoint_in_the_target() {
        for (old, new) in [(1000, 990), (1000, 1010), (1000, 1500), (1000, 3000), (1000, 40), (64, 1000)] {
            let ops = check_copies_are_equal(&vec![0; old], &[0..old], &vec![0; new], BOTH, 64);
            assert!(ops.literal_len().get() <= (new as u64).saturating_sub(2 * old as u64 - 64), "{ops:?}");
        }
    }

    #[test]
    fn nothing_to_compare_is_all_literal() {
        let old = noise(1000, 1);
        assert!(check_copies_are_equal(&old, &[0..1000], &[], BOTH, 64).is_empty());
        assert!(check_copies_are_equal(&old, &[0..0], &[], BOTH, 64).is_empty());
        for stretches in [&[][..], &[0..0], &[5..5, 1000..1000]] {
            for pair in [BOTH, None] {
                let ops = check_copies_are_equal(&old, stretches, &old, pair, 64);
                assert_eq!(ops.as_slice(), [literal(1000)]);
            }
        }
        let beyond = Some(Pairing { stretch: 1, left: true, right: true });
        let ops = check_copies_are_equal(&old, &[0..1000], &old[..900], beyond, 64);
        assert_eq!(ops.as_slice(), [copy(0, 896), literal(4)], "found by three blocks in a row");
    }

    #[test]
    fn a_target_shorter_than_a_block_is_a_literal_unless_a_short_block_ends_it() {
        let old = noise(1000, 1);
        assert_eq!(check_copies_are_equal(&old, &[0..960], &old[..63], BOTH, 64).as_slice(), [literal(63)]);
        assert_eq!(
            check_copies_are_equal(&old, &[0..1000], &old[950..], BOTH, 64).as_slice(),
            [literal(10), copy(960, 40)]
        );
        assert_eq!(check_copies_are_equal(&old, &[0..40], &old[..40], BOTH, 64).as_slice(), [copy(0, 40)]);
    }

    #[test]
    fn swapped_halves_are_found_by_three_blocks_in_a_row() {
        let old = noise(2000, 1);
        let target = [&old[1010..], &old[..1010]].concat();
        for pair in [BOTH, None] {
            let ops = check_copies_are_equal(&old, &[0..2000], &target, pair, 64);
            // What 1010 lacks to the next block, then the block that the cut went through.
            assert_eq!(ops.as_slice(), [literal(14), copy(1024, 976), copy(0, 960), literal(50)]);
        }
    }

    #[test]
    fn a_passage_moved_from_another_gap_is_found_at_any_offset() {
        let (mut basis, stretches) = (noise(10_000, 1), [1000..3000, 3000..3100, 6000..9000]);
        basis[2000..2100].fill(0);
        let target = [&basis[1000..1500], &noise(7, 2), &basis[7000..7300], &basis[1500..3000]].concat();
        let ops = check_copies_are_equal(&basis, &stretches, &target, BOTH, 64);
        let moved = ops.as_slice().iter().find(|op| matches!(op, Op::Copy { from, .. } if from.get() > 6000));
        assert_eq!(moved, Some(&copy(7024, 256)));
        assert!(ops.literal_len().get() <= 7 + 4 * 64, "{ops:?}");
    }

    #[test]
    fn after_an_edit_the_search_goes_on_at_the_shift_of_the_last_match() {
        // Two inserted bytes, then an overwrite every three blocks: only pairs are left whole.
        let old = noise(64 * 40, 1);
        let mut target = [&old[..100], b"ab", &old[100..]].concat();
        for at in (64 * 12..64 * 30).step_by(64 * 3) {
            target[2 + at + 5] ^= 1;
        }
        let pair = Some(Pairing { stretch: 0, left: true, right: false });
        let ops = check_copies_are_equal(&old, &[0..old.len()], &target, pair, 64);
        assert_eq!(ops.literal_len().get(), 64 + 2 + 6 * 64, "{ops:?}");
    }

    #[test]
    fn between_the_runs_two_blocks_at_the_shift_of_an_edge_are_enough_and_one_is_not() {
        let old = noise(64 * 20, 1);
        for (whole, literals) in [(2, 2), (1, 3)] {
            let mut target = old.clone();
            target[64 * 9 + 7] ^= 1;
            target[64 * (10 + whole) + 7] ^= 1;
            for (left, right) in [(true, true), (true, false), (false, true)] {
                let pair = Some(Pairing { stretch: 0, left, right });
                let ops = check_copies_are_equal(&old, &[0..old.len()], &target, pair, 64);
                assert_eq!(ops.literal_len().get(), literals * 64, "{left} {right}: {ops:?}");
            }
        }
    }

    #[test]
    fn of_equal_places_the_one_behind_the_last_match_is_taken() {
        let page = noise(64 * 5, 1);
        let old = [page.repeat(30), noise(100, 2)].concat();
        let target = [noise(10, 3), page.repeat(10), noise(33, 4), page.repeat(10)].concat();
        let ops = check_copies_are_equal(&old, &[0..old.len()], &target, None, 64);
        assert_eq!(ops.as_slice(), [literal(10), copy(0, 3200), literal(33), copy(3200, 3200)]);
    }

    #[test]
    fn hostile_sums_take_no_more_work_than_honest_ones() {
        const BLOCKS: usize = 100_000;
        let target = [vec![0; 100_000], noise(100_000, 1), b"0123456789abcdef".repeat(10_000)].concat();
        let polynomial_of = |bits| crate::fine::Polynomial::new(FineKey::kept(&[1; 32]), shape(16, bits));
        for bits in [1, 8, 40] {
            let zero = polynomial_of(bits).cut(polynomial_of(bits).fresh(&[0; 16]));
            let triples = |i: usize| polynomial_of(bits).cut(i as u64 % 3);
            for sums in
                [vec![zero; BLOCKS], vec![1; BLOCKS], vec![u64::MAX; BLOCKS], (0..BLOCKS).map(triples).collect()]
            {
                let from = Offset::new(u64::MAX - 16 * BLOCKS as u64);
                let old = vec![OldStretch { from, len: ByteLen::new(16 * BLOCKS as u64) }];
                let index =
                    FineIndex::new(FineKey::kept(&[1; 32]), shape(16, bits), old, sums).expect("ends below 2^64");
                for pair in [BOTH, None] {
                    let (ops, work) = index.search(&target, pair);
                    assert_eq!(ops.literal_len().get() + ops.copied_len().get(), target.len() as u64);
                    assert!(work <= 30 * target.len() as u64, "{work} at {bits} bits");
                }
            }
        }
    }

    #[test]
    fn false_matches_are_as_rare_as_the_bits_promise() {
        const GAPS: u64 = 2000;
        const LEN: usize = 9000;
        let shape = FineShape::for_gaps(1, LEN as u64, 1024);
        assert_eq!(shape.bits(), 13);
        let rate = |edit: &dyn Fn(&mut Vec<u8>, u64), what: &str| {
            let gap = |seed: u64| {
                let old = noise(LEN, seed);
                let mut target = old.clone();
                edit(&mut target, seed);
                let index = index_of(&old, &[0..LEN], shape, seed as u32);
                false_copies(&old, &[0..LEN], &target, &index.find(&target, BOTH)).min(1)
            };
            let wrong: usize = (1..=GAPS).map(gap).sum();
            std::println!("{what}: {wrong} of {GAPS} gaps have a false match");
            assert!(wrong as u64 * 500 < GAPS, "{what}: {wrong} of {GAPS}");
        };
        rate(&|target, seed| target[3000..3400].copy_from_slice(&noise(400, !seed)), "a passage overwritten");
        rate(&|target, seed| drop(target.splice(3000..3000, noise(400, !seed))), "a passage inserted");
        rate(&|target, seed| *target = noise(LEN, !seed), "all overwritten");
    }

    #[test]
    fn unrelated_data_is_all_literal() {
        for seed in 0..20 {
            let (old, target) = (noise(20_000, seed), noise(20_000, !seed));
            for pair in [BOTH, None] {
                let ops = check_copies_are_equal(&old, &[0..20_000], &target, pair, 32);
                assert_eq!(ops.as_slice(), [literal(20_000)], "seed {seed}");
            }
        }
    }

    /// Pieces of a target: of the basis, fresh, or zeros.
    fn piece() -> impl Strategy<Value = (u8, usize, usize)> {
        (0u8..4, 0usize..2000, 0usize..300)
    }

    proptest! {
        #[test]
        fn edits_cost_themselves_and_two_blocks(
            len in 0usize..3000,
            alphabet in 1u8..5,
            (at, deleted, inserted) in (any::<prop::sample::Index>(), 0usize..500, 0usize..500),
            block in 16u32..200,
            seed in any::<u64>(),
        ) {
            // Few letters in long words: blocks repeat.
            let old: Vec<u8> = noise(len / 40 + 1, seed).iter().flat_map(|byte| [byte % alphabet; 40]).take(len).collect();
            for old in [noise(len, seed), old] {
                let at = at.index(old.len() + 1);
                let deleted = deleted.min(old.len() - at);
                check_edit_costs_two_blocks(&old, at, deleted, &noise(inserted, !seed), block);
                check_edit_costs_two_blocks(&old, at, deleted, &[], block);
                check_edit_costs_two_blocks(&old, at, 0, &noise(inserted, !seed), block);
            }
        }

        #[test]
        fn three_blocks_in_a_row_are_found_anywhere(
            pieces in vec_of(piece(), 0..12),
            cuts in vec_of(0usize..2000, 0..5),
            repeats in 1usize..40,
            (stretch, left, right) in (0usize..6, any::<bool>(), any::<bool>()),
            block in 16u32..70,
            seed in any::<u64>(),
        ) {
            let mut basis = noise(2000 / repeats, seed).repeat(repeats);
            basis.resize(2000, 0);
            let mut target = Vec::new();
            for (kind, from, len) in pieces {
                match kind {
                    0 => target.extend(noise(len, from as u64)),
                    1 => target.resize(target.len() + len, 0),
                    _ => target.extend_from_slice(&basis[from..2000.min(from + len * 3)]),
                }
            }
            let mut cuts = cuts;
            cuts.extend([0, 2000]);
            cuts.sort_unstable();
            let stretches: Vec<_> = cuts.windows(2).map(|cut| cut[0]..cut[1]).collect();
            for pair in [None, Some(Pairing { stretch, left, right })] {
                let ops = check_copies_are_equal(&basis, &stretches, &target, pair, block);
                check_no_three_blocks_are_left(&basis, &stretches, &target, &ops, block as usize);
            }
        }

        #[test]
        fn any_sums_make_the_targets_length_within_the_stretches(
            lens in vec_of(0u64..400, 0..8),
            from in prop::sample::select(vec![0, 1 << 32, u64::MAX - 3200]),
            sums in vec_of(0u64..4, 200),
            target in vec_of(0u8..2, 0..1500),
            pair in prop::option::of((0usize..9, any::<bool>(), any::<bool>())),
            block in 16u32..40,
            bits in 1u32..4,
        ) {
            let shape = shape(block, bits);
            let mut end = from;
            let old: Vec<_> = lens.iter().map(|len| {
                end += len;
                OldStretch { from: Offset::new(end - len), len: ByteLen::new(*len) }
            }).collect();
            let sums: Vec<u64> = sums[..lens.iter().map(|len| shape.sums_of(*len) as usize).sum()].to_vec();
            let index = FineIndex::new(FineKey::kept(&[1; 32]), shape, old, sums).expect("as many sums as blocks");
            let (ops, work) = index.search(&target, pair.map(|(stretch, left, right)| Pairing { stretch, left, right }));
            let made: u64 = ops.as_slice().iter().map(|op| op.len().get()).sum();
            prop_assert_eq!(made, target.len() as u64);
            prop_assert!(work <= 30 * (target.len() as u64 + u64::from(block)), "{} for {}", work, target.len());
            for op in ops.as_slice() {
                if let Op::Copy { from: at, len } = *op {
                    prop_assert!(at.get() >= from && at.checked_add(len).is_some_and(|to| to.get() <= end));
                }
            }
        }
    }
}
