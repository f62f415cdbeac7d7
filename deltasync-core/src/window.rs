//! Where in a basis that is at hand the windows of a target may stand.
//!
//! [`WindowIndex`] knows every `step`-th window of 32 bytes of the whole basis: a bit of table that stays within its
//! memory however large the basis is. Stretches that are known gaps are indexed densely, what both files are known to
//! have coarsely. [`NearIndex`] knows every window of 16 bytes around one place, where after an edit the rest of the
//! target most likely goes on, and is moved along.
//!
//! Both are hash tables without chains: a bucket of [`WAYS`] slots in the first, one slot in the second. Any number of
//! equal or colliding windows fills one bucket, so a lookup takes constant time and only finds less. Slots of the first
//! also hold some bits of the hash, so that a window which is nowhere is mostly told from the table alone.
//!
//! Invariant: what a lookup yields is a place in the basis where a whole window fits, and no more than a guess: the
//! caller compares bytes.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Length of a window of the whole basis, in bytes. Shorter copies from far away cost about as much as they save.
pub(crate) const WINDOW: usize = 32;
/// Length of a window near the last copy, in bytes.
pub(crate) const NEAR_WINDOW: usize = 16;
/// How many places a lookup in the whole basis yields at most.
pub(crate) const WAYS: usize = 4;
/// Windows of a known gap are indexed at least this far apart, in bytes.
const DENSE: usize = 4;
/// All other windows are indexed at least this far apart, in bytes.
const SPARSE: usize = 16;
/// How many windows are looked up at once.
pub(crate) const BATCH: usize = 16;
/// An empty slot; places count from 1.
const EMPTY: u32 = 0;

/// Places of the windows of a whole basis, by their hashes.
#[derive(Clone, Debug)]
pub(crate) struct WindowIndex {
    buckets: Vec<[u32; WAYS]>,
    /// How many low bits of a slot are the number of a window; those above are bits of its hash.
    number_bits: u32,
    /// Windows in order, in stretches that are indexed at one step.
    stretches: Vec<Stretch>,
}

/// Windows at equal distances.
#[derive(Clone, Debug)]
struct Stretch {
    /// The number of the first of them.
    first: u32,
    start: usize,
    step: usize,
}

impl WindowIndex {
    /// Indexes `basis` in at most about `memory` bytes (and at least a few). `gaps` are ranges of the basis in order,
    /// none overlapping, that the rest of the search is mostly about; none means nothing is known.
    pub(crate) fn of(basis: &[u8], gaps: &[Range<usize>], memory: usize) -> Self {
        // Numbers of windows are 31 bits at most, so that a slot keeps at least one bit of the hash.
        let slots = (memory / size_of::<u32>()).clamp(64, 1 << 31);
        let most = slots / 4 * 3;
        let in_gaps: usize = gaps.iter().map(Range::len).sum();
        let dense = (2 * in_gaps).div_ceil(most).max(DENSE);
        let elsewhere = most - in_gaps.div_ceil(dense);
        let sparse = (basis.len() - in_gaps).div_ceil(elsewhere).max(SPARSE).max(dense);
        let mut stretches = Vec::with_capacity(2 * gaps.len() + 1);
        let mut count = 0usize;
        let mut at = 0;
        let mut add = |range: Range<usize>, step: usize| {
            // Each stretch has a window at its start, so very many short ones would pass the memory: then few are kept.
            if !range.is_empty() && count < most {
                stretches.push(Stretch { first: count as u32, start: range.start, step });
                count += range.len().div_ceil(step).min(most - count);
            }
        };
        for gap in gaps {
            add(at..gap.start, sparse);
            add(gap.clone(), dense);
            at = gap.end;
        }
        add(at..basis.len(), sparse);
        let number_bits = usize::BITS - count.leading_zeros();
        let buckets = (count / 3 * 4 / WAYS).next_power_of_two().min(slots.next_power_of_two() / WAYS);
        let mut index = Self { buckets: vec![[EMPTY; WAYS]; buckets.max(2)], number_bits, stretches };
        index.fill(basis, count);
        index
    }

    fn fill(&mut self, basis: &[u8], count: usize) {
        /// So many buckets are fetched at once: the table is larger than the caches, and waiting for one after another
        /// would take most of the time.
        const TOGETHER: usize = 32;
        let mut batch = [(0, 0); TOGETHER];
        let mut filled = 0;
        for i in 0..self.stretches.len() {
            let Stretch { first, start, step } = self.stretches[i];
            let end = self.stretches.get(i + 1).map_or(count, |next| next.first as usize);
            for number in first as usize..end {
                let place = start + (number - first as usize) * step;
                let Some(window) = basis[place..].first_chunk() else { break };
                batch[filled] = (hash(window), number as u32);
                filled += 1;
                if filled == TOGETHER {
                    self.insert_all(&batch);
                    filled = 0;
                }
            }
        }
        self.insert_all(&batch[..filled]);
    }

    fn insert_all(&mut self, batch: &[(u64, u32)]) {
        let touched = batch.iter().fold(0, |sum, (hash, _)| sum ^ self.buckets[self.bucket(*hash)][0]);
        core::hint::black_box(touched);
        batch.iter().for_each(|(hash, number)| self.insert(*hash, *number));
    }

    fn insert(&mut self, hash: u64, number: u32) {
        let slot = self.tag(hash) | (number + 1);
        let bucket = self.bucket(hash);
        let ways = &mut self.buckets[bucket];
        // The first windows of a kind stay, and the last: in a run of equal ones both ends are worth knowing.
        let full = ways.iter().map(|way| usize::from(*way != EMPTY)).sum::<usize>();
        ways[full.min(WAYS - 1)] = slot;
    }

    /// The places where a window of this hash may stand.
    pub(crate) fn candidates(&self, hash: u64) -> impl Iterator<Item = usize> + '_ {
        let (tag, mask) = (self.tag(hash), (1 << self.number_bits) - 1);
        let ways = self.buckets[self.bucket(hash)];
        let numbers =
            ways.into_iter().filter(move |way| *way != EMPTY && way & !mask == tag).map(move |way| way & mask);
        numbers.map(|number| self.place(number - 1))
    }

    /// How many of the first windows of `target`, each `stride` behind the last, certainly stand nowhere that is known:
    /// at most `most` and [`BATCH`] of them. The table is larger than the caches, and a processor fetches many of its
    /// buckets while it would wait for one.
    pub(crate) fn absent(&self, target: &[u8], stride: usize, most: usize) -> usize {
        let most = most.min(BATCH).min((target.len() + stride).saturating_sub(WINDOW) / stride);
        let mask = (1 << self.number_bits) - 1;
        let mut present = 0u32;
        for i in 0..most {
            let hash = hash(target[i * stride..].first_chunk().expect("there is room for so many"));
            let (tag, ways) = (self.tag(hash), self.buckets[self.bucket(hash)]);
            // A slot of the same tag is 0 above the number, and not 0 in it.
            let stands = ways.iter().fold(false, |stands, way| stands | ((way ^ tag).wrapping_sub(1) < mask));
            present |= u32::from(stands) << i;
        }
        most.min(present.trailing_zeros() as usize)
    }

    /// Where the window of this number stands.
    fn place(&self, number: u32) -> usize {
        let stretch = match self.stretches.as_slice() {
            [only] => only,
            many => &many[many.partition_point(|stretch| stretch.first <= number) - 1],
        };
        stretch.start + (number - stretch.first) as usize * stretch.step
    }

    /// A step of the target that meets every place of the basis in turn, when it moves on by so much again and again.
    pub(crate) fn stride(&self) -> usize {
        const STRIDES: [usize; 2] = [61, 67];
        let meets = |stride: &usize| self.stretches.iter().all(|stretch| !stretch.step.is_multiple_of(*stride));
        STRIDES.into_iter().find(meets).unwrap_or(1)
    }

    const fn tag(&self, hash: u64) -> u32 {
        (hash as u32).unbounded_shl(self.number_bits)
    }

    fn bucket(&self, hash: u64) -> usize {
        (hash >> (u64::BITS - self.buckets.len().trailing_zeros())) as usize
    }
}

/// The hash of a window of the whole basis.
pub(crate) fn hash(window: &[u8; WINDOW]) -> u64 {
    const WORTH: [u64; 4] =
        [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0xd6e8_feb8_6659_fd93];
    let words: [u64; 4] = core::array::from_fn(|i| {
        u64::from_le_bytes(*window[i * 8..].first_chunk().expect("four words make a window")) ^ WORTH[i]
    });
    let (a, b) = (folded(words[0], words[1]), folded(words[2], words[3]));
    folded(a ^ WORTH[3], b ^ WORTH[1])
}

/// Both halves of the product: a multiplication mixes upwards only.
const fn folded(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// Places of all windows of a part of the basis, by their hashes.
#[derive(Clone, Debug)]
pub(crate) struct NearIndex {
    /// Places modulo 2^32.
    slots: Vec<u32>,
    covered: Range<usize>,
}

impl NearIndex {
    const SLOT_BITS: u32 = 13;

    pub(crate) fn new() -> Self {
        Self { slots: vec![0; 1 << Self::SLOT_BITS], covered: 0..0 }
    }

    /// Makes sure that the windows in `range` of the basis are known, and returns how many had to be added. Windows of
    /// earlier ranges may be known too.
    pub(crate) fn cover(&mut self, basis: &[u8], range: Range<usize>) -> usize {
        let end = range.end.min((basis.len() + 1).saturating_sub(NEAR_WINDOW));
        let moved_on = (self.covered.start..=self.covered.end).contains(&range.start);
        let start = if moved_on { self.covered.end } else { range.start };
        if start >= end {
            return 0;
        }
        for place in start..end {
            let window = basis[place..].first_chunk().expect("the end leaves room for a window");
            self.slots[Self::slot(window)] = place as u32;
        }
        self.covered = if moved_on { self.covered.start..end } else { start..end };
        end - start
    }

    /// The place nearest to `around` where a window like this may stand.
    pub(crate) fn find(&self, window: &[u8; NEAR_WINDOW], around: usize) -> Option<usize> {
        let place = self.slots[Self::slot(window)];
        let distance = place.wrapping_sub(around as u32) as i32;
        let place = around.checked_add_signed(distance as isize)?;
        self.covered.contains(&place).then_some(place)
    }

    fn slot(window: &[u8; NEAR_WINDOW]) -> usize {
        let word = u128::from_le_bytes(*window);
        let mixed = (word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((word >> 64) as u64).rotate_left(32);
        (mixed.wrapping_mul(0xc2b2_ae3d_27d4_eb4f) >> (u64::BITS - Self::SLOT_BITS)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let word = |i: u64| (i ^ i >> 7).wrapping_mul(0x9fb2_1c65_1e98_df25).rotate_left(17).wrapping_mul(i | 1);
        (0..len as u64).map(|i| (word(i + 1) >> 40) as u8).collect()
    }

    fn window_at(data: &[u8], place: usize) -> u64 {
        hash(data[place..].first_chunk().expect("a whole window"))
    }

    #[test]
    fn every_indexed_window_is_found_while_buckets_last() {
        let basis = noise(100_000);
        let index = WindowIndex::of(&basis, &[], 1 << 20);
        let places = (0..=basis.len() - WINDOW).step_by(SPARSE);
        let found = places.clone().filter(|place| index.candidates(window_at(&basis, *place)).any(|c| c == *place));
        assert!(found.count() * 100 > places.count() * 85);
        let strangers = (1..basis.len() - WINDOW).step_by(SPARSE).map(|place| window_at(&basis, place));
        let candidates: usize = strangers.map(|hash| index.candidates(hash).count()).sum();
        assert!(candidates < 10, "{candidates} candidates for windows that are not indexed");
    }

    /// What passes for absent has no candidate, and what ends it has one.
    fn check_absent_windows_have_no_candidates(index: &WindowIndex, target: &[u8], stride: usize, most: usize) {
        let absent = index.absent(target, stride, most);
        let places: Vec<usize> = (0..(target.len() + 1).saturating_sub(WINDOW)).step_by(stride).take(most).collect();
        let is_absent = |place: &&usize| index.candidates(window_at(target, **place)).next().is_none();
        let passed = places.iter().take(BATCH).take_while(is_absent).count();
        assert_eq!(absent, passed, "{} bytes, stride {stride}, most {most}", target.len());
    }

    #[test]
    fn absent_windows_have_no_candidates() {
        let basis = noise(50_000);
        // One with bits of the hash to spare, one that has few, one of zeros, one of nothing.
        let indexes = [(&basis[..], 1 << 20), (&basis, 2048), (&[0; 5000], 4096), (&[], 4096)]
            .map(|(basis, memory)| WindowIndex::of(basis, &[], memory));
        for index in &indexes {
            for start in (0..40_000).step_by(401) {
                let target = [&noise(90_000)[60_000..][..start % 700], &basis[start..start + 100]].concat();
                for (stride, most) in [(1, 0), (1, 1), (3, BATCH - 1), (17, BATCH), (61, 100), (67, usize::MAX)] {
                    check_absent_windows_have_no_candidates(index, &target, stride, most);
                }
            }
            for len in [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + 60, WINDOW + 61, WINDOW + 62] {
                check_absent_windows_have_no_candidates(index, &basis[7..7 + len], 61, BATCH);
                check_absent_windows_have_no_candidates(index, &[0; 200][..len], 61, BATCH);
            }
        }
    }

    #[test]
    fn gaps_are_dense_and_the_rest_within_memory() {
        let basis = noise(1 << 20);
        let gaps = [1000..3000, 500_000..501_000, (1 << 20) - 100..1 << 20];
        let index = WindowIndex::of(&basis, &gaps, 16 << 10);
        assert!(index.buckets.len() * size_of::<[u32; WAYS]>() <= 16 << 10);
        for gap in gaps {
            let places = gap.clone().take_while(|place| place + WINDOW <= basis.len()).step_by(DENSE);
            let found = places.clone().filter(|place| index.candidates(window_at(&basis, *place)).any(|c| c == *place));
            assert!(found.count() * 2 > places.count(), "{gap:?}");
        }
    }

    #[test]
    fn candidates_leave_room_for_a_window_and_equal_windows_share_a_bucket() {
        for len in [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 5000] {
            let basis = vec![7; len];
            let index = WindowIndex::of(&basis, &[], 4096);
            let candidates: Vec<usize> = index.candidates(hash(&[7; WINDOW])).collect();
            assert_eq!(candidates.is_empty(), len < WINDOW);
            assert!(candidates.len() <= WAYS);
            assert!(candidates.iter().all(|place| place + WINDOW <= len), "{candidates:?} of {len}");
        }
    }

    #[test]
    fn more_gaps_than_memory_has_room_for_are_left_out() {
        let basis = noise(10_000);
        let gaps: Vec<_> = (0..5000).map(|i| 2 * i..2 * i + 1).collect();
        let index = WindowIndex::of(&basis, &gaps, 0);
        assert!(index.buckets.len() <= 16, "{}", index.buckets.len());
        (0..9000).for_each(|place| assert!(index.candidates(window_at(&basis, place)).all(|c| c < basis.len())));
    }

    #[test]
    fn windows_near_by_are_found_as_the_place_moves_on() {
        let basis = noise(20_000);
        let mut near = NearIndex::new();
        assert_eq!(near.cover(&basis, 1000..2000), 1000);
        assert_eq!(near.cover(&basis, 1500..2500), 500, "only what is new");
        assert_eq!(near.cover(&basis, 19_990..30_000), 0, "no whole window is left");
        let window = |place: usize| basis[place..].first_chunk().expect("a whole window");
        let found = (1000..2500).filter(|place| near.find(window(*place), 2000) == Some(*place)).count();
        assert!(found > 1200, "{found}");
        assert_eq!(near.find(window(15_000), 2000).filter(|place| *place == 15_000), None);
    }
}
