//! Finds what a target has of a basis, to the byte, when both are at hand.
//!
//! The target is walked once. Where a copy has just ended, the search first looks whether the target goes on at the
//! same shift, as it does after an overwrite; then among all windows near that place ([`NearIndex`]), as after an
//! insertion or a deletion; then among the windows of the whole basis ([`WindowIndex`], made when an edit is first
//! longer than [`PATCH`]). Of at most [`WAYS`] + 2 candidates the longest is taken, grown to both sides. A short copy
//! from elsewhere in the middle of an edit is given up when the target goes on at the old shift behind it: as a literal
//! it costs less than two jumps. Where that is so for all of the next [`HOME_REACH`] bytes, as after a byte changed
//! here and there, nothing is looked for.
//!
//! Unrelated data is walked in strides that grow to at most 67 bytes and are one byte again behind every copy;
//! [`BATCH`] places are looked up at once. As copies grow backwards too, a long one loses nothing by that: one of the
//! stride × the distance of indexed windows (2 KiB in a basis of 100 MiB, 21 KiB in one of 1 GiB) is found for certain,
//! from its first byte on, however much that is nowhere stands before it. Ranges known to be common, from an
//! [`Alignment`](crate::Alignment), are tried before anything is searched, and the basis is indexed densely between
//! them. They are hints: bytes are compared, so a wrong hint costs a comparison.
//!
//! Cost: a comparison of what is common, a few nanoseconds for a byte that is not, one look at the basis at the first
//! longer edit. Memory, whatever the lengths of the files: the index (16 MiB unless told otherwise, and 72 bytes for
//! each common range), 32 KiB for what is near by, and the pieces that have not been taken. Those are about 3 MiB when
//! they are taken after steps of up to 1 MiB: an edit that goes on and on is let go but for its last 2 MiB. The two
//! files are slices, of which the walk touches the target in order and the basis mostly so. A caller maps files, or
//! reads them when others may write to them meanwhile; what does not fit the address space is for a
//! [`Signature`](crate::Signature).
//!
//! Invariants: the pieces make the target from the basis, whatever the hints; work grows linearly with the lengths of
//! both files for any content, see [`ExactDiffer::work`]; steps of any size make the same pieces.

use alloc::vec::Vec;

use crate::common::gaps_between;
use crate::equal::{common_prefix, common_suffix};
use crate::piece::Pieces;
use crate::window::{BATCH, NEAR_WINDOW, NearIndex, WAYS, WindowIndex, hash};
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
/// How far the target is compared with the old shift before it is left, and with a candidate before it is taken, in
/// bytes.
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
/// How much of a long edit waits for a copy that grows back into it, in bytes.
const WAITING: usize = 1 << 20;
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
    /// Up to here the target is known to go on at that shift, but for so little that nothing else is looked for.
    stays: usize,
    /// Up to here the target has been compared with that shift, and goes on there for too much.
    leaves: usize,
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
            stays: 0,
            leaves: 0,
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
        match self.continued_or_known().or_else(|| self.found()) {
            Some(found) => self.take(found),
            None => self.miss(),
        }
    }

    /// Moves on where nothing was found, the farther the longer nothing was.
    fn miss(&mut self) {
        let most = if self.misses < PATIENCE * 8 { 1 } else { self.index.as_ref().map_or(1, WindowIndex::stride) };
        let stride = (1 + self.misses / PATIENCE * 2).min(most);
        self.at = self.target.len().min(self.at + stride);
        self.misses += 1;
        if self.at - self.copied > NEAR_REACH && self.index.is_some() {
            self.skip(stride);
            self.let_go();
        }
    }

    /// Passes the next places, each `stride` behind the last, where nothing can be found: several lookups at once.
    fn skip(&mut self, stride: usize) {
        let index = self.index.as_ref().expect("checked by the caller");
        let until = self.common.get(self.next_common).and_then(|range| range.target.to_usize());
        let ahead = self.target.get(self.at..until.unwrap_or(usize::MAX).min(self.target.len())).unwrap_or_default();
        let most = (0..BATCH.min(ahead.len() / stride))
            .position(|i| {
                let at = self.at + i * stride;
                self.goes_on(at, self.place.wrapping_sub(self.copied)) || self.goes_on(at, self.shift)
            })
            .unwrap_or(BATCH);
        let passed = index.absent(ahead, stride, most);
        self.at = self.target.len().min(self.at + passed * stride);
        self.misses += passed;
        self.work += passed as u64;
    }

    /// Emits of a long edit what no copy will grow back to, so that no more than a piece of it waits in memory.
    fn let_go(&mut self) {
        if self.at - self.floor() < 2 * WAITING {
            return;
        }
        if let Some(trial) = self.trial.take() {
            self.settle(trial);
        }
        let end = self.at - WAITING;
        self.pieces.literal(&self.target[self.settled..end]);
        self.settled = end;
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
        self.grow(usize::try_from(place).ok()?, usize::MAX).filter(|found| found.len >= CONTINUES)
    }

    /// The copy at the last shifts, if the target goes on there.
    fn continued(&mut self) -> Option<Match> {
        let last = self.place.wrapping_sub(self.copied);
        let at_last = self.at_shift(last);
        if last == self.shift || at_last.is_some_and(|found| found.len >= TRIAL) {
            return at_last;
        }
        let at_home = self.at_shift(self.shift);
        longest(at_last, at_home)
    }

    /// The copy at this shift.
    fn at_shift(&mut self, shift: usize) -> Option<Match> {
        if !self.goes_on(self.at, shift) {
            return None;
        }
        self.grow(self.at.wrapping_add(shift), usize::MAX).filter(|found| self.is_worth(found))
    }

    /// True when the next few bytes, fewer than make a copy, are equal at this shift.
    fn goes_on(&self, at: usize, shift: usize) -> bool {
        let few = |bytes: &'a [u8], at: usize| bytes.get(at..)?.first_chunk::<{ CONTINUES / 2 }>();
        few(self.target, at).is_some_and(|new| few(self.basis, at.wrapping_add(shift)) == Some(new))
    }

    /// True for a copy at an old shift that is long enough, or reaches the end.
    fn is_worth(&self, found: &Match) -> bool {
        found.len >= CONTINUES || found.at + found.len == self.target.len() && found.len >= CONTINUES / 2
    }

    /// True when the next `len` bytes of the target go on at the old shift but for less than leaving and coming back
    /// would cost; then nothing else is looked for until their end.
    fn is_to_stay(&mut self, len: usize) -> bool {
        let ahead = &self.target[self.at..self.target.len().min(self.at + len)];
        let home = self.basis.get(self.at.wrapping_add(self.shift)..).unwrap_or_default();
        let home = &home[..home.len().min(ahead.len())];
        if home.len() < ahead.len() {
            return false;
        }
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
        self.work += 1 + at as u64 / 64;
        let stays = cost < LEAVING;
        *(if stays { &mut self.stays } else { &mut self.leaves }) = self.at + at;
        stays
    }

    /// The longest copy by the indexes that is worth leaving the old shift for.
    ///
    /// A candidate is grown so far as it takes to decide, and only one that is taken to its ends: many that are long
    /// and given up would cost time without end.
    fn found(&mut self) -> Option<Match> {
        // Whatever is found would be judged by that, so where an edit begins it is known before anything is looked for.
        let begins = self.at == self.copied && self.leaves <= self.at;
        if self.at < self.stays || begins && self.is_to_stay(HOME_REACH) {
            return None;
        }
        let near = self.near_by();
        let far = if near.is_some() && self.index.is_none() { [None; WAYS] } else { self.far_away() };
        let mut best = near;
        for place in far.into_iter().flatten() {
            best = longest(best, self.grow(place, HOME_REACH).filter(|found| found.len >= SHORTEST_FAR));
        }
        let mut best = best?;
        if best.shift() != self.shift && self.is_to_stay((best.at + best.len - self.at).clamp(TRIAL, HOME_REACH)) {
            return None;
        }
        if best.len >= HOME_REACH {
            let near = near.map(|near| self.at.wrapping_add(near.shift()));
            for place in near.into_iter().chain(far.into_iter().flatten()) {
                best = self.grow(place, usize::MAX).filter(|found| found.len > best.len).unwrap_or(best);
            }
        }
        Some(best)
    }

    /// The places of the whole basis where the next window may stand, once it is worth an index.
    fn far_away(&mut self) -> [Option<usize>; WAYS] {
        let mut places = [None; WAYS];
        if self.index.is_none() {
            if self.at - self.copied < PATCH {
                return places;
            }
            self.index = Some(WindowIndex::of(self.basis, &gaps_between(&self.common, self.basis.len()), self.memory));
            self.work += self.basis.len() as u64 / 16;
            self.at = self.copied;
            self.misses = 0;
        }
        if let (Some(index), Some(window)) = (&self.index, self.target[self.at..].first_chunk()) {
            places.iter_mut().zip(index.candidates(hash(window))).for_each(|(slot, place)| *slot = Some(place));
            self.work += 1;
        }
        places
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
        self.grow(place, HOME_REACH).filter(|found| found.len >= SHORTEST_NEAR)
    }

    /// What is equal around `at` in the target and `place` in the basis, at most `most` bytes to either side.
    fn grow(&mut self, place: usize, most: usize) -> Option<Match> {
        let (before, behind) = self.basis.split_at_checked(place)?;
        let ahead = common_prefix(&behind[..most.min(behind.len())], &self.target[self.at..]);
        let before = &before[before.len().saturating_sub(most)..];
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
    fn a_long_edit_between_copies_is_made_in_steps_of_any_size() {
        let basis = noise(300_000, 1);
        let (before, between) = (noise(150_000, 2), noise(2 * WAITING + 300_000, 3));
        let target = [&before, &basis[70_000..75_000], &between, &basis[200_001..206_000], &[0; 100_000]].concat();
        let literal = (target.len() - 5000 - 5999) as u64;
        let hint = |len| CommonRange {
            basis: Offset::new(200_001),
            target: Offset::new((before.len() + 5000 + between.len()) as u64),
            len: ByteLen::new(len),
        };
        for hints in [&[][..], &[hint(5999)], &[hint(100)]] {
            let ops = check_delta_makes_the_target(&basis, &target, hints);
            // The noise on either side may begin as the copies go on.
            assert!((literal - 8..=literal).contains(&ops.literal_len().get()), "{ops:?}");
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

    /// The work on a basis and a target, and what of the target is literal.
    fn cost(basis: &[u8], target: &[u8]) -> (u64, u64) {
        let mut differ = ExactDiffer::new(basis, target, &Limits::default());
        let literals = differ.by_ref().map(|piece| piece.literals.len() as u64).sum();
        (differ.work(), literals)
    }

    #[test]
    fn misses_skip_ahead() {
        let basis = noise(1 << 20, 1);
        let work = |len: usize| cost(&basis, &noise(len, 2)).0;
        let (short, long) = (work(1 << 20), work(5 << 20));
        // The near search has given up long before, and each window is looked up for 60 bytes.
        assert!(long - short < (4 << 20) / 55, "{} for 4 MiB more", long - short);
        assert!(short < 320_000, "{short}");
    }

    #[test]
    fn a_copy_after_a_long_miss_is_found_whole_and_ends_the_skipping() {
        let basis = noise(4 << 20, 1);
        // What is indexed is 16 bytes apart, and the strides reach 67.
        let certain = 16 * 67 + 32;
        for (miss, seed) in [(70_000, 2), (500_000, 3), (3_000_000, 4), (5_000_001, 5)] {
            for start in [0, 7, 1_000_003, basis.len() - certain] {
                let copy = &basis[start..start + certain];
                let target = [&noise(miss, seed), copy, &noise(300, seed + 10), &basis[2_000_000..2_000_100]].concat();
                let (_, literals) = cost(&basis, &target);
                // A byte of the noise may be equal by chance.
                assert!(
                    (miss as u64 + 290..=miss as u64 + 300).contains(&literals),
                    "{literals} behind {miss}, {start}"
                );
            }
        }
    }

    #[test]
    fn a_long_edit_does_not_wait_in_memory() {
        const STEP: usize = 64 << 10;
        let (basis, target) = (noise(1 << 20, 1), noise(8 << 20, 2));
        let mut differ = ExactDiffer::new(&basis, &target, &Limits::default().piece(STEP));
        let (mut done, mut made) = (0, 0);
        while !differ.advance(ByteLen::new(STEP as u64)) {
            done += STEP;
            made += core::iter::from_fn(|| differ.next_piece()).map(|piece| piece.literals.len()).sum::<usize>();
            assert!(made + 2 * WAITING + STEP >= done, "{made} of {done}");
        }
        assert!(made > 5 << 20, "{made}");
    }

    #[test]
    fn long_candidates_that_are_given_up_again_and_again_stay_cheap() {
        // What is wanted stands in the basis twice: at the shift of the start but for a few bytes in 1600, and whole.
        // The edits are as long as leaving costs, so at their ninth byte, where the first indexed window of the whole
        // stands, it is given up.
        let work = |len: usize| {
            let whole = noise(len, 1);
            let mut home = whole.clone();
            home.chunks_mut(1600).for_each(|part| part.iter_mut().take(LEAVING + 1).for_each(|byte| *byte ^= 1));
            let basis = [&noise(408, 2)[..], &home, &whole].concat();
            let target = [&noise(408, 3)[..], &whole].concat();
            let (work, literals) = cost(&basis, &target);
            assert!(literals < 408 + len as u64 / 50, "{literals}");
            work
        };
        let (once, eight) = (work(200_000), work(1_600_000));
        assert!(eight < 10 * once, "{once} for one length, {eight} for eight times as much");
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
