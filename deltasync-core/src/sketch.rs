//! A sketch of a set of tags: cells from which two ends find how their sets differ, at a cost that follows the number
//! of differences and not the size of the sets.
//!
//! Each cell sums the elements that it holds (`SketchKey` says which): their tags and their check sums by exclusive or,
//! and how many there are. One sketch taken off another leaves a sketch of the differences, from which
//! [`Differences::between`](crate::Differences::between) takes them one by one. The cells of a set go on without end,
//! so a sketch that proves too short is continued and nothing of it was in vain.
//!
//! A sketch holds a range of the cells and is made in one pass over the tags: n tags into the first m cells take n (1 +
//! 2 ln m) steps of some nanoseconds and 16 bytes a cell, nothing for a tag. Continuing it is another pass, which steps
//! over the cells before the range and is therefore as long as one from the start; no state between the two.
//!
//! On the wire a cell is its 6 bytes of tags, its check sums, and a signed varint that says how many more elements it
//! holds than expected: with n elements in the set, cell i is expected to hold 2 n / (i + 2), rounded to the nearest.
//! The check sums of the first 64 cells are 3 bytes and those of all others 2, as the place of an element, which must be
//! right too, says more the further behind it is. About 9 bytes.
//!
//! Invariant: the cells depend on the key and the set only, not on the order of the tags nor on how the range is split.
//! A tag that a side has twice leaves its cells as they were, but for the count: see `Differences`.
//!
//! Source: Yang, Gilad, Alizadeh, "Practical Rateless Set Reconciliation" (SIGCOMM 2024).

use alloc::vec::Vec;
use core::ops::Range;

use crate::sketch_key::{Cells, POSITIONS};
use crate::{LimitExceeded, Limits, Malformed, Reader, SketchKey, Tag, write_signed};

/// Elements summed: by exclusive or their tags and check sums, and how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    /// 48 bits.
    pub(crate) tags: u64,
    /// 24 bits, or 16 from cell [`LONG_CHECKS`] on.
    pub(crate) checks: u32,
    /// In a difference: ours less theirs.
    pub(crate) count: i32,
}

impl Cell {
    /// One element of ours, and the cells below `end` that hold it.
    #[inline]
    pub(crate) fn of(key: &SketchKey, tag: Tag, end: usize) -> (Self, Cells) {
        let (checks, cells) = key.place(tag, end);
        (Self { tags: tag.number(), checks, count: 1 }, cells)
    }

    /// This as it stands in a cell: with as many bits of the check sum as that has.
    #[inline]
    pub(crate) const fn at(self, position: usize) -> Self {
        Self { checks: if position < LONG_CHECKS { self.checks } else { self.checks & 0xffff }, ..self }
    }

    #[inline]
    fn add(&mut self, other: Self) {
        self.tags ^= other.tags;
        self.checks ^= other.checks;
        self.count += other.count;
    }

    /// This without what `other` holds. Counts of hostile cells wrap.
    pub(crate) const fn less(self, other: Self) -> Self {
        Self {
            tags: self.tags ^ other.tags,
            checks: self.checks ^ other.checks,
            count: self.count.wrapping_sub(other.count),
        }
    }

    /// The element that is alone in this cell of a difference, if it looks so, and its cells below `end`. It may be
    /// there several times: an even number cancels, an odd one leaves the tag.
    pub(crate) fn single(&self, position: usize, key: &SketchKey, end: usize) -> Option<(Tag, Cells)> {
        if self.count % 2 == 0 {
            return None;
        }
        let tag = Tag::of_number(self.tags);
        let (element, cells) = Self::of(key, tag, end);
        (element.at(position).checks == self.checks).then_some((tag, cells))
    }

    /// True when its tags and check sums are those of no element.
    pub(crate) const fn cancels(&self) -> bool {
        self.tags == 0 && self.checks == 0
    }
}

/// So many cells have check sums of 24 bits.
const LONG_CHECKS: usize = 64;

/// The bytes of the check sums of a cell.
const fn check_bytes(position: usize) -> usize {
    if position < LONG_CHECKS { 3 } else { 2 }
}

/// The fewest bytes of a cell on the wire.
const FEWEST: usize = Tag::LEN + 3;

/// A range of the cells of a set of tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    key: SketchKey,
    start: usize,
    elements: u32,
    cells: Vec<Cell>,
}

impl Sketch {
    /// The most cells: so many tell about 380,000 differences.
    pub const CELLS_MAX: usize = POSITIONS - 1;

    /// The most elements of a set.
    pub const ELEMENTS_MAX: u32 = i32::MAX as u32;

    /// How many cells to send first for a set of `elements`, before anything is known of the other set: a 200th as
    /// many, at least 32 and at most 1,024.
    pub const fn first_flight(elements: u64) -> usize {
        match elements / 200 {
            0..32 => 32,
            cells @ 32..1024 => cells as usize,
            _ => 1024,
        }
    }

    /// How many cells to send first for a tree of `elements` entries: a hundredth as many, at least 96 and at most 160. A
    /// small change of a tree is a dozen entries with their directories, each of them two differences, and of an equal tree
    /// of any size no more than that is in vain.
    pub const fn first_flight_of_tree(elements: u64) -> usize {
        match elements / 100 {
            0..96 => 96,
            cells @ 96..160 => cells as usize,
            _ => 160,
        }
    }

    /// The sketch of no tags that holds the given cells.
    ///
    /// # Panics
    ///
    /// When the range is backwards or ends behind [`Sketch::CELLS_MAX`].
    pub fn new(key: SketchKey, cells: Range<usize>) -> Self {
        let in_range = cells.start <= cells.end && cells.end <= Self::CELLS_MAX;
        assert!(in_range, "cells {cells:?} of a sketch of at most {}", Self::CELLS_MAX);
        let Range { start, end } = cells;
        Self { key, start, elements: 0, cells: alloc::vec![Cell::default(); end - start] }
    }

    /// The given cells of the set of all `tags`.
    ///
    /// # Panics
    ///
    /// As [`Sketch::new`] and [`Sketch::push`].
    pub fn of(key: SketchKey, cells: Range<usize>, tags: impl IntoIterator<Item = Tag>) -> Self {
        let mut sketch = Self::new(key, cells);
        tags.into_iter().for_each(|tag| sketch.push(tag));
        sketch
    }

    /// Adds a tag to the set.
    ///
    /// # Panics
    ///
    /// When the set has [`Sketch::ELEMENTS_MAX`] elements.
    #[inline]
    pub fn push(&mut self, tag: Tag) {
        assert!(self.elements < Self::ELEMENTS_MAX, "a sketch of more than {} elements", Self::ELEMENTS_MAX);
        self.elements += 1;
        let (element, cells) = Cell::of(&self.key, tag, self.end());
        for position in cells.filter(|position| *position >= self.start) {
            self.cells[position - self.start].add(element.at(position));
        }
    }

    /// Appends the cells that follow, of the same set under the same key.
    ///
    /// # Panics
    ///
    /// When `next` does not start where this ends, or has another key or number of elements.
    pub fn append(&mut self, next: Self) {
        assert_eq!(self.end(), next.start, "cells that follow");
        assert!(self.key == next.key && self.elements == next.elements, "cells of one set");
        self.cells.extend(next.cells);
    }

    /// The key that places the elements.
    pub const fn key(&self) -> SketchKey {
        self.key
    }

    /// Which cells this holds.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end()
    }

    /// How many elements the set has.
    pub const fn elements(&self) -> u32 {
        self.elements
    }

    /// Appends the cells as they travel; key, range and number of elements are not among them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.cells.len() * (FEWEST + 1));
        for (position, cell) in (self.start..).zip(&self.cells) {
            out.extend_from_slice(&cell.tags.to_le_bytes()[..Tag::LEN]);
            out.extend_from_slice(&cell.checks.to_le_bytes()[..check_bytes(position)]);
            write_signed(out, i64::from(cell.count) - expected(self.elements, position));
        }
    }

    /// Reads cells that [`Sketch::encode`] wrote: the given range, of a set of `elements`.
    ///
    /// # Errors
    ///
    /// [`InvalidSketch`] when the bytes are damaged, when a cell holds more elements than the set has or cell 0 not all
    /// of them, or when there are more cells or elements than [`Limits::chunks`] or this type allows.
    ///
    /// # Security
    ///
    /// Takes hostile bytes, range and number of elements: allocates 16 bytes for each cell that the bytes at hand can
    /// fill. What the cells add up to is for the peer to say: see [`Differences`](crate::Differences).
    pub fn decode(
        key: SketchKey,
        cells: Range<usize>,
        elements: u64,
        reader: &mut Reader<'_>,
        limits: &Limits,
    ) -> Result<Self, InvalidSketch> {
        let chunks = limits.chunks as u64;
        LimitExceeded::check("elements of a sketch", elements, chunks.min(Self::ELEMENTS_MAX.into()))?;
        // Where a set is tiny, its first flight has more cells than it has elements.
        let most = limits.chunks.clamp(Self::first_flight(0), Self::CELLS_MAX);
        LimitExceeded::check("cells of a sketch", cells.start.max(cells.end) as u64, most as u64)?;
        if cells.len() > reader.rest().len() / FEWEST {
            return Err(Malformed::Truncated.into());
        }
        let elements = u32::try_from(elements).expect("checked above");
        let mut sketch = Self { key, start: cells.start, elements, cells: Vec::with_capacity(cells.len()) };
        for position in cells {
            let tags = Tag::from_bytes(reader.array()?).number();
            let mut checks = [0; 4];
            let len = check_bytes(position);
            checks[..len].copy_from_slice(reader.bytes(len)?);
            let count = reader.signed()?.checked_add(expected(elements, position));
            let count = count.filter(|count| (0..=i64::from(elements)).contains(count));
            let count = count.filter(|count| position > 0 || *count == i64::from(elements));
            sketch.cells.push(Cell {
                tags,
                checks: u32::from_le_bytes(checks),
                count: count.ok_or(Malformed::Value("a cell holds a number of elements that it cannot"))? as i32,
            });
        }
        Ok(sketch)
    }

    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    fn end(&self) -> usize {
        self.start + self.cells.len()
    }
}

/// How many of `elements` a cell holds on average, rounded to the nearest.
fn expected(elements: u32, position: usize) -> i64 {
    let parts = position as i64 + 2;
    (2 * i64::from(elements) + parts / 2) / parts
}

/// Why bytes are no cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSketch {
    /// The bytes are damaged.
    #[error("cells are damaged: {0}")]
    Malformed(#[from] Malformed),
    /// There are too many.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

#[cfg(test)]
pub(crate) mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::cut::tests::random;

    pub(crate) fn key(transfer: u32) -> SketchKey {
        SketchKey::new(&[7; 16], transfer)
    }

    /// `len` tags that follow from `seed`.
    pub(crate) fn tags(seed: u64, len: usize) -> Vec<Tag> {
        let bytes = random(seed, Tag::LEN * len);
        let (tags, _) = bytes.as_chunks();
        tags.iter().copied().map(Tag::from_bytes).collect()
    }

    fn decode(bytes: &[u8], cells: Range<usize>, elements: u64) -> Result<Sketch, InvalidSketch> {
        Sketch::decode(key(1), cells, elements, &mut Reader::new(bytes), &Limits::default().chunks(10_000))
    }

    fn encode(sketch: &Sketch) -> Vec<u8> {
        let mut bytes = Vec::new();
        sketch.encode(&mut bytes);
        bytes
    }

    fn check_round_trip(sketch: &Sketch) {
        let mut bytes = encode(sketch);
        bytes.push(7);
        let mut reader = Reader::new(&bytes);
        let (elements, limits) = (sketch.elements().into(), Limits::default());
        let decoded = Sketch::decode(sketch.key(), sketch.range(), elements, &mut reader, &limits);
        assert_eq!(decoded.as_ref(), Ok(sketch));
        assert_eq!(reader.rest(), [7], "and no byte more");
    }

    fn check_any_split_gives_the_same_cells(tags: &[Tag], splits: &[usize]) {
        let mut at = 0;
        let mut parts = splits.iter().map(|len| {
            at += len;
            Sketch::of(key(1), at - len..at, tags.iter().copied())
        });
        let mut joined = parts.next().expect("at least one part");
        parts.for_each(|part| joined.append(part));
        assert_eq!(joined, Sketch::of(key(1), 0..at, tags.iter().rev().copied()), "whole, and in another order");
    }

    #[test]
    fn cells_are_the_sums_of_their_elements() {
        let tags = tags(1, 50);
        let sketch = Sketch::of(key(1), 3..40, tags.iter().copied());
        for (position, cell) in (3..).zip(sketch.cells()) {
            let mut sum = Cell::default();
            for tag in &tags {
                let (element, mut cells) = Cell::of(&key(1), *tag, 40);
                cells.any(|cell| cell == position).then(|| sum.add(element));
            }
            assert_eq!(*cell, sum, "cell {position}");
        }
    }

    #[test]
    fn splits_at_the_edges_give_the_same_cells() {
        for splits in [&[0, 1][..], &[1, 0, 31], &[32, 1, 1000], &[1000, 1000]] {
            check_any_split_gives_the_same_cells(&tags(2, 300), splits);
            check_any_split_gives_the_same_cells(&[], splits);
        }
    }

    #[test]
    fn a_cell_takes_nine_bytes_and_one_of_the_first_64_a_byte_more() {
        for (elements, cells) in [(0, 1000), (1, 1), (6000, 32), (100_000, 1024)] {
            let sketch = Sketch::of(key(1), 0..cells, tags(3, elements));
            check_round_trip(&sketch);
            let len = encode(&sketch).len();
            let least = cells * 9 + cells.min(64);
            assert!(len >= least && len * 100 <= least * 104 + 100, "{len} bytes for {cells} cells");
        }
        check_round_trip(&Sketch::of(key(1), 900..1024, tags(3, 1000)));
    }

    #[test]
    fn first_flights_follow_the_number_of_elements_between_their_bounds() {
        let flights = [0, 6599, 6600, 131_072, 204_799, 204_800, u64::MAX].map(Sketch::first_flight);
        assert_eq!(flights, [32, 32, 33, 655, 1023, 1024, 1024]);
    }

    #[test]
    fn a_tag_twice_leaves_its_cells_but_for_the_count() {
        let once = Sketch::of(key(1), 0..20, tags(4, 3));
        let thrice = Sketch::of(key(1), 0..20, tags(4, 3).into_iter().chain(vec![tags(4, 1)[0]; 2]));
        for (once, thrice) in once.cells().iter().zip(thrice.cells()) {
            assert_eq!((once.tags, once.checks, (thrice.count - once.count) % 2), (thrice.tags, thrice.checks, 0));
        }
    }

    #[test]
    fn more_cells_or_elements_than_allowed_are_refused_before_anything_is_allocated() {
        let limit = |what, wanted, allowed| Err(InvalidSketch::Limit(LimitExceeded { what, wanted, allowed }));
        assert_eq!(decode(&[], 0..10_001, 5), limit("cells of a sketch", 10_001, 10_000));
        assert_eq!(decode(&[], usize::MAX..usize::MAX, 5), limit("cells of a sketch", u64::MAX, 10_000));
        assert_eq!(decode(&[], 0..1, 10_001), limit("elements of a sketch", 10_001, 10_000));
        let wide = Limits::default().chunks(usize::MAX);
        let decode_wide = |cells, elements| Sketch::decode(key(1), cells, elements, &mut Reader::new(&[]), &wide);
        let most = Sketch::CELLS_MAX as u64;
        assert_eq!(decode_wide(0..1 << 40, 5), limit("cells of a sketch", 1 << 40, most));
        assert_eq!(decode_wide(0..1, 1 << 31), limit("elements of a sketch", 1 << 31, Sketch::ELEMENTS_MAX.into()));
        assert_eq!(decode(&[0; 99], 0..10, 5), Err(Malformed::Truncated.into()));
        let backwards = |start, end| decode(&[], Range { start, end }, 5).map(|sketch| sketch.range());
        assert_eq!(backwards(10, 0), Ok(10..10), "no cells");
        assert_eq!(backwards(10_001, 0), limit("cells of a sketch", 10_001, 10_000).map(|_: Sketch| 0..0));
    }

    #[test]
    fn counts_that_no_set_of_so_many_elements_has_are_refused() {
        let cell = |position: usize, count: i64| {
            let mut bytes = vec![0; FEWEST];
            write_signed(&mut bytes, count - expected(9, position));
            decode(&bytes, position..position + 1, 9).is_ok()
        };
        assert_eq!([8, 9, 10].map(|count| cell(0, count)), [false, true, false]);
        assert_eq!([-1, 0, 9, 10].map(|count| cell(5, count)), [false, true, true, false]);
        assert_eq!([i64::MAX, i64::MIN + 9].map(|count| cell(5, count)), [false, false]);
    }

    #[test]
    #[should_panic(expected = "cells that follow")]
    fn cells_with_a_hole_between_them_are_a_bug() {
        Sketch::new(key(1), 0..5).append(Sketch::new(key(1), 6..7));
    }

    #[test]
    #[should_panic(expected = "of a sketch of at most 524287")]
    fn too_many_cells_are_a_bug() {
        Sketch::new(key(1), 5..Sketch::CELLS_MAX + 1);
    }

    proptest! {
        #[test]
        fn any_cells_round_trip(seed: u64, elements in 0usize..300, start in 0usize..200, len in 0usize..200) {
            check_round_trip(&Sketch::of(key(1), start..start + len, tags(seed, elements)));
        }

        #[test]
        fn any_split_gives_the_same_cells(
            seed: u64,
            elements in 0usize..200,
            splits in prop::collection::vec(0usize..100, 1..6),
        ) {
            check_any_split_gives_the_same_cells(&tags(seed, elements), &splits);
        }

        #[test]
        fn any_bytes_decode_to_cells_with_those_bytes_or_fail(
            bytes in prop::collection::vec(prop_oneof![0u8..16, any::<u8>()], 0..300),
            start in 0usize..3,
            elements in 0u64..64,
        ) {
            let cells = start..start + bytes.len() / 12;
            if let Ok(sketch) = decode(&bytes, cells, elements) {
                prop_assert!(bytes.starts_with(&encode(&sketch)));
            }
        }
    }
}
