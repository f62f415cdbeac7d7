//! Finds what a target has of a basis, to the byte, when both are at hand.
//!
//! The target is walked once. Where a copy has just ended, the search first looks whether the target goes on at the same
//! shift, as it does after an overwrite; then among all windows near that place ([`NearIndex`]), as after an insertion or
//! a deletion; then among the windows of the whole basis ([`WindowIndex`], made when an edit is first longer than [`PATCH`]). Of at most
//! [`WAYS`] + 2 candidates the longest is taken, grown to both sides. A short copy from elsewhere in the middle of an
//! edit is given up when the target goes on at the old shift behind it: as a literal it costs less than two jumps.
//!
//! Unrelated data is walked in growing strides; as copies grow backwards too, a long one loses nothing by that. Ranges
//! known to be common, from an [`Alignment`](crate::Alignment), are tried before anything is searched, and the basis is indexed densely
//! between them. They are hints: bytes are compared, so a wrong hint costs a comparison.
//!
//! Cost: a comparison of what is common, a few nanoseconds for a byte that is not, one look at the basis at the first
//! longer edit. Memory: the index (16 MiB unless told otherwise) and the pieces that have not been taken; the two files are
//! slices, of which the walk touches the target in order and the basis mostly so. A caller maps files, or reads them
//! when others may write to them meanwhile; what does not fit the address space is for a [`Signature`](crate::Signature).
//!
//! Invariants: the pieces make the target from the basis, whatever the hints; work grows linearly with the lengths of
//! both files for any content, see [`ExactDiffer::work`]; steps of any size make the same pieces.

use alloc::vec::Vec;

use crate::common::gaps_between;
use crate::equal::{common_prefix, common_suffix};
use crate::piece::Pieces;
use crate::window::{NEAR_WINDOW, NearIndex, WAYS, WINDOW, WindowIndex, hash};
use crate::{ByteLen, CommonRange, DeltaPiece, Limits, Offset};

/// An edit that is shorter, in bytes, is no reason to index the whole basis.
const PATCH: usize = 256;
/// The shortest copy that continues at the last shift, in bytes.
const CONTINUES: usize = 16;
/// A copy at another shift that is shorter, in bytes, is given up when the target returns to the old shift behind it.
const TRIAL: usize = 64;
/// The shortest copy from near by, in bytes; below, history and zstd do as well.
const SHORTEST_NEAR: usize = 40;
/// The shortest copy from anywhere else, in bytes.
const SHORTEST_FAR: usize = 48;
/// What a jump to another shift and back costs, in bytes, and what an edit costs that is left as a literal, beside its
/// bytes.
const LEAVING: usize = 24;
const STAYING: usize = 4;
/// How far the target is compared with the old shift before it is left, in bytes.
const HOME_REACH: usize = 1024;
/// How far before and behind the end of the last copy the basis is searched near by, in bytes.
const NEAR: usize = 1024;
/// How far into an edit the search near by goes on, in bytes.
const NEAR_REACH: usize = 64 << 10;
/// So many windows near by may be indexed for each byte of the target, and at once.
const NEAR_RATION: usize = 2;
const NEAR_BURST: usize = 1 << 18;
/// After so many misses in a row the stride grows by two.
const PATIENCE: usize = 512;
/// The memory of the index unless told otherwise, in bytes.
const MEMORY: usize = 16 << 20;

/// Makes a delta from a basis and a target in memory, piece by piece.
///
/// ```
/// use deltasync_core::{ExactDiffer, Limits};
///
/// let basis: Vec<u8> = (0..2000u32).flat_map(|row| row.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
/// let target = [&basis[..5000], b"a byte more or two", &basis[5000..]].concat();
/// let differ = ExactDiffer::new(&basis, &target, &Limits::default());
/// let literals: Vec<u8> = differ.flat_map(|piece| piece.literals).collect();
/// assert_eq!(literals, b"a byte more or two");
/// ```
#[derive(Clone, Debug)]
pub struct ExactDiffer<'a> {
    basis: &'a [u8],
    target: &'a [u8],
    common: Vec<CommonRange>,
    /// The first common range that does not end before `at`.
    next_common: usize,
    memory: usize,
    index: Option<WindowIndex>,
    near: NearIndex,
    /// How many windows near by may still be indexed.
    ration: usize,
    pieces: Pieces,
    /// Where the undecided bytes of the target start.
    settled: usize,
    /// A short copy behind them that may still be given up.
    trial: Option<Match>,
    /// Where the search stands in the target.
    at: usize,
    /// Where the last copy ended in the target: the trial, or what comes before `settled`.
    copied: usize,
    /// The place in the basis that `copied` is at by the last copy.
    place: usize,
    /// What to add to a place in the target, wrapping, for the one in the basis: at the last copy that was no trial.
    shift: usize,
    misses: usize,
    work: u64,
}

/// Equal bytes in both files.
#[derive(Clone, Copy, Debug)]
struct Match {
    at: usize,
    place: usize,
    len: usize,
}

impl Match {
    const fn shift(&self) -> usize {
        self.place.wrapping_sub(self.at)
    }
}

impl<'a> ExactDiffer<'a> {
    /// A differ for these bytes; its pieces keep within `limits`.
    pub fn new(basis: &'a [u8], target: &'a [u8], limits: &Limits) -> Self {
        Self {
            basis,
            target,
            common: Vec::new(),
            next_common: 0,
            memory: MEMORY,
            index: None,
            near: NearIndex::new(),
            ration: NEAR_BURST,
            pieces: Pieces::new(limits),
            settled: 0,
            trial: None,
            at: 0,
            copied: 0,
            place: 0,
            shift: 0,
            misses: 0,
            work: 0,
        }
    }

    /// Says which ranges are thought to be common, in any order (default none); what is wrong about them is ignored.
    #[must_use]
    pub fn common(mut self, ranges: impl IntoIterator<Item = CommonRange>) -> Self {
        self.common = ranges.into_iter().filter(|range| !range.len.eq(&ByteLen::ZERO)).collect();
        self.common.sort_unstable_by_key(|range| range.target);
        self
    }

    /// Sets the memory of the index, in bytes (default 16 MiB). More finds shorter copies in a large basis.
    #[must_use]
    pub const fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// Searches the next `most` bytes of the target, or a little more where a copy passes them; true once all of it is
    /// decided. The index is made in one pass over the basis besides, at the first edit of some length.
    pub fn advance(&mut self, most: ByteLen) -> bool {
        let most = most.to_usize().unwrap_or(usize::MAX).max(1);
        let stop = self.at.saturating_add(most).min(self.target.len());
        while self.at < stop {
            self.search();
        }
        let done = self.at == self.target.len();
        if done {
            self.end();
        }
        done
    }

    /// The next piece that is complete, `None` when more of the target must be searched.
    pub fn next_piece(&mut self) -> Option<DeltaPiece> {
        self.pieces.next()
    }

    /// How much was done so far, as a number that is the same on any machine: windows hashed or looked up, and bytes
    /// compared in 64ths.
    pub const fn work(&self) -> u64 {
        self.work
    }

    /// Decides what is at `at`, and moves on.
    fn search(&mut self) {
        match self.continued_or_known().or_else(|| self.found().filter(|found| self.is_worth_leaving_for(found))) {
            Some(found) => self.take(found),
            None => {
                let most =
                    if self.misses < PATIENCE * 8 { 1 } else { self.index.as_ref().map_or(1, WindowIndex::stride) };
                self.at = self.target.len().min(self.at + (1 + self.misses / PATIENCE * 2).min(most));
                self.misses += 1;
            }
        }
    }

    /// The copy at the last shifts, or the common range around `at`.
    fn continued_or_known(&mut self) -> Option<Match> {
        match self.continued() {
            Some(found) if found.len >= TRIAL => Some(found),
            short => longest(short, self.known()),
        }
    }

    /// The common range around `at`, if it is one.
    fn known(&mut self) -> Option<Match> {
        let at = self.at as u64;
        let ended = |range: &CommonRange| range.target.checked_add(range.len).is_none_or(|end| end.get() <= at);
        while self.common.get(self.next_common).is_some_and(ended) {
            self.next_common += 1;
        }
        let range = self.common.get(self.next_common).filter(|range| range.target.get() <= at)?;
        let place = range.basis.get().checked_add(at - range.target.get())?;
        self.grow(usize::try_from(place).ok()?).filter(|found| found.len >= CONTINUES)
    }

    /// The copy at the last shifts, if the target goes on there.
    fn continued(&mut self) -> Option<Match> {
        let last = self.place.wrapping_sub(self.copied);
        let at_last = self.grow(self.at.wrapping_add(last)).filter(|found| self.is_worth(found));
        if last == self.shift || at_last.is_some_and(|found| found.len >= TRIAL) {
            return at_last;
        }
        let at_home = self.grow(self.at.wrapping_add(self.shift)).filter(|found| self.is_worth(found));
        longest(at_last, at_home)
    }

    /// True for a copy at an old shift that is long enough, or reaches the end.
    fn is_worth(&self, found: &Match) -> bool {
        found.len >= CONTINUES || found.at + found.len == self.target.len() && found.len >= CONTINUES / 2
    }

    /// True unless the target goes on at the old shift but for less than leaving and coming back would cost.
    fn is_worth_leaving_for(&mut self, found: &Match) -> bool {
        if found.shift() == self.shift {
            return true;
        }
        let len = (found.at + found.len - self.at).clamp(TRIAL, HOME_REACH);
        let ahead = &self.target[self.at..self.target.len().min(self.at + len)];
        let home = self.basis.get(self.at.wrapping_add(self.shift)..).unwrap_or_default();
        let home = &home[..home.len().min(ahead.len())];
        if home.len() < ahead.len() {
            return true;
        }
        self.work += 1 + ahead.len() as u64 / 64;
        let (mut cost, mut at) = (0, 0);
        while at < ahead.len() && cost < LEAVING {
            let equal = common_prefix(&ahead[at..], &home[at..]);
            // A few equal bytes within an edit are no copy.
            if equal < CONTINUES && at + equal < ahead.len() {
                cost += equal + 1;
            } else {
                cost += STAYING;
            }
            at += equal + 1;
        }
        cost >= LEAVING
    }

    /// The longest copy by the indexes.
    fn found(&mut self) -> Option<Match> {
        let near = self.near_by();
        if self.index.is_none() {
            if self.at - self.copied < PATCH || near.is_some() {
                return near;
            }
            self.index = Some(WindowIndex::of(self.basis, &gaps_between(&self.common, self.basis.len()), self.memory));
            self.work += self.basis.len() as u64 / 16;
            self.at = self.copied;
            self.misses = 0;
        }
        let Some(window) = self.target[self.at..].first_chunk::<WINDOW>() else { return near };
        let hash = hash(window);
        self.work += 1;
        let index = self.index.as_ref().expect("made at the first need");
        let mut candidates = [None; WAYS];
        candidates.iter_mut().zip(index.candidates(hash)).for_each(|(slot, place)| *slot = Some(place));
        let mut best = near;
        for place in candidates.into_iter().flatten() {
            let found = self.grow(place).filter(|found| found.len >= SHORTEST_FAR);
            best = longest(best, found);
        }
        best
    }

    /// The copy from around the place where the last copy ended.
    fn near_by(&mut self) -> Option<Match> {
        let window = self.target[self.at..].first_chunk::<NEAR_WINDOW>()?;
        let into = self.at - self.copied;
        if into > NEAR_REACH {
            return None;
        }
        let around = self.place.checked_add(into)?.min(self.basis.len());
        let range = self.place.saturating_sub(NEAR)..self.place.saturating_add(NEAR + 2 * into).min(self.basis.len());
        if range.len() <= self.ration {
            let added = self.near.cover(self.basis, range);
            self.ration -= added;
            self.work += added as u64;
        }
        self.work += 1;
        let place = self.near.find(window, around)?;
        self.grow(place).filter(|found| found.len >= SHORTEST_NEAR)
    }

    /// What is equal around `at` in the target and `place` in the basis.
    fn grow(&mut self, place: usize) -> Option<Match> {
        let (before, behind) = self.basis.split_at_checked(place)?;
        let ahead = common_prefix(behind, &self.target[self.at..]);
        // Not even a byte is equal: nothing to grow.
        let back = if ahead < 4 { 0 } else { common_suffix(before, &self.target[self.floor()..self.at]) };
        let len = back + ahead;
        self.work += 1 + len as u64 / 64;
        (ahead > 0).then(|| Match { at: self.at - back, place: place - back, len })
    }

    /// Where copies that grow backwards must stop.
    fn floor(&self) -> usize {
        self.trial.map_or(self.settled, |trial| trial.at + trial.len)
    }

    /// Makes `found` the last copy.
    fn take(&mut self, mut found: Match) {
        if let Some(trial) = self.trial.take() {
            if found.shift() == self.shift {
                // Back at the old shift: the trial becomes part of the literal, or of this copy where it fits.
                let before = &self.basis[..found.place];
                let back = common_suffix(before, &self.target[self.settled..found.at]);
                found = Match { at: found.at - back, place: found.place - back, len: found.len + back };
                self.work += back as u64 / 64;
            } else {
                if found.shift() == trial.shift() {
                    self.shift = found.shift();
                }
                self.settle(trial);
            }
        }
        let end = found.at + found.len;
        self.ration = NEAR_BURST.min(self.ration + NEAR_RATION * (end - self.copied));
        if found.len < TRIAL && found.shift() != self.shift {
            self.trial = Some(found);
        } else {
            self.shift = found.shift();
            self.settle(found);
        }
        self.at = end;
        self.copied = end;
        self.place = found.place + found.len;
        self.misses = 0;
    }

    /// Emits a copy and the literal before it.
    fn settle(&mut self, found: Match) {
        self.pieces.literal(&self.target[self.settled..found.at]);
        self.pieces.copy(Offset::new(found.place as u64), ByteLen::new(found.len as u64));
        self.settled = found.at + found.len;
    }

    /// Emits what is left.
    fn end(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.settle(trial);
        }
        self.pieces.literal(&self.target[self.settled..]);
        self.settled = self.target.len();
        self.pieces.close();
    }
}

impl Iterator for ExactDiffer<'_> {
    type Item = DeltaPiece;

    /// The next piece, after as much searching as it takes.
    fn next(&mut self) -> Option<DeltaPiece> {
        /// How much is searched before looking for a piece, in bytes.
        const STEP: ByteLen = ByteLen::new(256 << 10);
        loop {
            if let Some(piece) = self.next_piece() {
                return Some(piece);
            }
            if self.advance(STEP) {
                return self.next_piece();
            }
        }
    }
}

/// The longer of two, the first when they are equal.
fn longest(first: Option<Match>, second: Option<Match>) -> Option<Match> {
    match (first, second) {
        (Some(a), Some(b)) if b.len > a.len => Some(b),
        (first, second) => first.or(second),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::collection::vec as vec_of;
    use proptest::prelude::*;

    use super::*;
    use crate::{Algorithm, Alignment, ChunkList, Cutter, Ops, Planner, TagKey, reference, tag_runs};

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let byte = |_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 56) as u8
        };
        (0..len).map(byte).collect()
    }

    /// The operations and the literals of all pieces, which keep within `limits` and fit the two files.
    fn join(basis: &[u8], target: &[u8], pieces: &[DeltaPiece], limits: &Limits) -> (Ops, Vec<u8>) {
        let mut planner = Planner::new(ByteLen::of(basis), ByteLen::of(target), limits).expect("short enough");
        for piece in pieces {
            planner.plan(&piece.ops, ByteLen::of(&piece.literals)).expect("each piece fits");
            assert!(piece.literals.len() <= limits.piece && piece.ops.len() <= limits.ops);
        }
        planner.finish().expect("the pieces make all of the target");
        let ops = pieces.iter().flat_map(|piece| piece.ops.as_slice().to_vec()).collect();
        (ops, pieces.iter().flat_map(|piece| piece.literals.clone()).collect())
    }

    fn check_delta_makes_the_target(basis: &[u8], target: &[u8], hints: &[CommonRange]) -> Ops {
        let limits = Limits::default().piece(1000).ops(20);
        let differ = ExactDiffer::new(basis, target, &limits).common(hints.iter().copied()).memory(64 << 10);
        let whole: Vec<DeltaPiece> = differ.clone().collect();
        let (ops, literals) = join(basis, target, &whole, &limits);
        assert_eq!(reference::patch(basis, &ops, &literals), target);
        for step in [1, 77] {
            let mut differ = differ.clone();
            let mut pieces = Vec::new();
            loop {
                let done = differ.advance(ByteLen::new(step));
                pieces.extend(core::iter::from_fn(|| differ.next_piece()));
                if done {
                    break;
                }
            }
            assert_eq!(pieces, whole, "in steps of {step}");
        }
        ops
    }

    /// What the chunks of both have in common, and the bytes of the target that no common chunk has.
    fn chunk_level(basis: &[u8], target: &[u8]) -> (Vec<CommonRange>, u64) {
        let cutter = Cutter::for_len(ByteLen::of(target));
        let [old, new] = [basis, target].map(|bytes| ChunkList::of(bytes, cutter, Algorithm::Blake3));
        let key = TagKey::new(&[3; 16], 1);
        let ranges = CommonRange::of(&Alignment::of(&tag_runs(&old, &key), &tag_runs(&new, &key)), &old, &new);
        let common: u64 = ranges.iter().map(|range| range.len.get()).sum();
        (ranges, target.len() as u64 - common)
    }

    /// Pairs of the shapes that users have, and of some that nobody should.
    fn shapes(len: usize) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
        let basis = noise(len, 1);
        let (third, half) = (len / 3, len / 2);
        let edit = |start: usize, gone: usize, new: &[u8]| [&basis[..start], new, &basis[start + gone..]].concat();
        let row = |i: usize| alloc::format!("{i},alpha bravo,{},pending\n", i.wrapping_mul(2_654_435_761) % 9000);
        let rows = |skip: usize| (0..len / 28).filter(|i| i % 97 != skip).map(row).collect::<alloc::string::String>();
        // A window that stands everywhere, and what follows it nowhere else.
        let windows =
            |seed| noise(len / 8, seed).chunks(8).flat_map(|new| [&[9; 56], new].concat()).collect::<Vec<u8>>();
        let pattern: Vec<u8> = noise(100, 5).into_iter().cycle().take(len).collect();
        let shuffled: Vec<u8> = noise(len / 48, 6)
            .iter()
            .flat_map(|i| basis[usize::from(*i) * (len - 48) / 256..][..48].to_vec())
            .collect();
        vec![
            ("the same", basis.clone(), basis.clone()),
            ("a byte changed", basis.clone(), edit(half, 1, &[!basis[half]])),
            ("a byte in front", basis.clone(), edit(0, 0, b"x")),
            ("an overwrite", basis.clone(), edit(half, 700, &noise(700, 2))),
            ("a deletion", basis.clone(), edit(third, 900, b"")),
            ("an insertion", basis.clone(), edit(third, 0, &noise(900, 3))),
            ("swapped", basis.clone(), [&basis[half..], &basis[..half]].concat()),
            ("rows", rows(0).into_bytes(), rows(3).into_bytes()),
            ("zeros", vec![0; len], [&vec![0; third][..], b"edit", &vec![0; half]].concat()),
            ("a pattern", pattern.clone(), [&pattern[..third], b"edit", &pattern[half..]].concat()),
            ("zeros to unrelated", vec![0; len], basis.clone()),
            ("unrelated", basis.clone(), noise(len, 4)),
            ("windows that stand everywhere", windows(7), windows(8)),
            ("pieces from all over", basis.clone(), shuffled),
            ("nothing from something", basis.clone(), Vec::new()),
            ("something from nothing", Vec::new(), basis),
        ]
    }

    #[test]
    fn all_shapes_are_made_with_no_more_literals_than_by_whole_chunks() {
        for (name, basis, target) in shapes(40_000) {
            check_delta_makes_the_target(&basis, &target, &[]);
            let (hints, literal) = chunk_level(&basis, &target);
            let ops = check_delta_makes_the_target(&basis, &target, &hints);
            assert!(ops.literal_len().get() <= literal, "{name}: {} for {literal}", ops.literal_len());
        }
    }

    #[test]
    fn edits_are_found_to_the_byte() {
        let basis = noise(100_000, 1);
        let literal = |target: &[u8]| check_delta_makes_the_target(&basis, target, &[]).literal_len().get();
        let edit = |start: usize, gone: usize, new: &[u8]| [&basis[..start], new, &basis[start + gone..]].concat();
        let flipped: Vec<u8> = basis[50_000..50_100].iter().map(|byte| !byte).collect();
        for start in [0, 16, 40, 50_000, 99_800] {
            assert_eq!(literal(&edit(start, 0, &flipped)), 100, "inserted at {start}");
            assert_eq!(literal(&edit(start, 60, b"")), 0, "deleted at {start}");
        }
        assert_eq!(literal(&edit(50_000, 100, &flipped)), 100);
        assert_eq!(literal(&[&basis[70_000..], &basis[..70_000]].concat()), 0);
    }

    #[test]
    fn a_short_copy_within_an_edit_is_given_up_for_a_literal() {
        let basis = noise(10_000, 1);
        let mut target = basis.clone();
        target[5000..5200].copy_from_slice(&noise(200, 2));
        target[5080..5120].copy_from_slice(&basis[5400..5440]);
        let ops = check_delta_makes_the_target(&basis, &target, &[]);
        assert_eq!((ops.len(), ops.literal_len().get()), (3, 200), "{ops:?}");
    }

    #[test]
    fn wrong_hints_change_no_byte() {
        let (basis, target) = (noise(5000, 1), [&noise(5000, 1)[1000..], &noise(300, 2)].concat());
        let range = |basis, target, len| CommonRange {
            basis: Offset::new(basis),
            target: Offset::new(target),
            len: ByteLen::new(len),
        };
        let wrong = [range(0, 0, 5000), range(u64::MAX, 0, 1), range(4990, 5, u64::MAX), range(1, u64::MAX, 7)];
        check_delta_makes_the_target(&basis, &target, &wrong);
        let ops = check_delta_makes_the_target(&basis, &target, &[range(1000, 0, 4000), range(0, 100, 0)]);
        assert_eq!((ops.len(), ops.literal_len().get()), (2, 300));
    }

    #[test]
    fn work_is_linear_for_any_shape() {
        let work = |len: usize| {
            let measure = |(name, basis, target): (&'static str, Vec<u8>, Vec<u8>)| {
                let mut differ = ExactDiffer::new(&basis, &target, &Limits::default());
                differ.by_ref().for_each(drop);
                let most = 8 * (basis.len() + target.len()) + NEAR_BURST;
                assert!(differ.work() < most as u64, "{name}: {}", differ.work());
                (name, differ.work())
            };
            shapes(len).into_iter().map(measure).collect::<Vec<_>>()
        };
        for ((name, once), (_, four)) in work(60_000).into_iter().zip(work(240_000)) {
            assert!(
                four < 5 * once + NEAR_BURST as u64,
                "{name}: {once} for one length, {four} for four times as much"
            );
        }
    }

    #[test]
    fn unrelated_data_is_walked_in_strides() {
        let (basis, target) = (noise(1 << 20, 1), noise(2 << 20, 2));
        let mut differ = ExactDiffer::new(&basis, &target, &Limits::default());
        differ.by_ref().for_each(drop);
        assert!(differ.work() < 600_000, "{}", differ.work());
    }

    proptest! {
        #[test]
        fn deltas_make_their_targets(
            basis in vec_of(0u8..3, 0..2000),
            cuts in vec_of((any::<prop::sample::Index>(), 0usize..200, vec_of(any::<u8>(), 0..60)), 0..12),
            hint in (0u64..2000, 0u64..2000, 0u64..2000),
        ) {
            let mut target = Vec::new();
            for (start, len, new) in cuts {
                let start = start.index(basis.len() + 1);
                target.extend_from_slice(&basis[start..basis.len().min(start + len)]);
                target.extend_from_slice(&new);
            }
            check_delta_makes_the_target(&basis, &target, &[]);
            let (basis_at, target_at, len) = hint;
            let hint =
                CommonRange { basis: Offset::new(basis_at), target: Offset::new(target_at), len: ByteLen::new(len) };
            check_delta_makes_the_target(&basis, &target, &[hint]);
        }
    }
}
