//! Where in a file its bytes come from, coarse enough to be drawn and to be kept for many files at once.
//!
//! Whoever makes or sends a target tells a [`Placer`] each piece in order, and hands on the [`Placed`] ranges that come
//! out; whoever draws puts these into a [`BlockMap`]. Both lose what is finer than they are, never what is there: the
//! lengths and the bytes copied always add up.

use alloc::vec::Vec;
use core::mem;

use crate::{ByteLen, Offset};

/// What a [`Placer`] tells apart, in parts of the target: finer than any map is drawn.
const GRAINS: u64 = 1024;

/// A range of a target and how much of it came from the basis; the rest of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where it begins.
    pub at: Offset,
    /// How long it is, at least a byte.
    pub len: ByteLen,
    /// Bytes of it that came from the basis.
    pub copied: ByteLen,
}

impl Placed {
    /// A range all of which came from the basis.
    pub const fn copied(at: Offset, len: ByteLen) -> Self {
        Self { at, len, copied: len }
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        match self.copied {
            ByteLen::ZERO => Origin::Sent,
            copied if copied == self.len => Origin::Copied,
            _ => Origin::Mixed,
        }
    }

    /// Bytes of it that were sent.
    pub fn sent(&self) -> ByteLen {
        self.len - self.copied
    }
}

/// Gathers the pieces of a target, which are told in their order, into ranges.
///
/// Invariant: of two neighbours that were not taken apart by [`Placer::take`] one came wholly from the basis and the other
/// was sent, or together they are longer than a grain; so there are at most some 2,000 in all, and one for each `take`.
#[derive(Clone, Debug)]
pub struct Placer {
    at: Offset,
    grain: ByteLen,
    placed: Vec<Placed>,
}

impl Placer {
    /// At the start of a target of `total` bytes.
    pub fn new(total: ByteLen) -> Self {
        Self { at: Offset::ZERO, grain: ByteLen::new(total.get() / GRAINS), placed: Vec::new() }
    }

    /// The next `len` bytes come from the basis, or are sent.
    pub fn push(&mut self, len: ByteLen, copied: bool) {
        if len == ByteLen::ZERO {
            return;
        }
        let next = Placed { at: self.at, len, copied: if copied { len } else { ByteLen::ZERO } };
        match self.placed.last_mut() {
            Some(last) if last.origin() == next.origin() || last.len + len <= self.grain => {
                last.len += len;
                last.copied += next.copied;
            }
            _ => self.placed.push(next),
        }
        self.at += len;
    }

    /// Of what has been gathered since the last time, as much as ends before more bytes are sent than `sent`; takes those that
    /// were off `sent`. For operations that go ahead of their literals.
    pub fn take_within(&mut self, sent: &mut ByteLen) -> Vec<Placed> {
        let mut whole = 0;
        while let Some(rest) = self.placed.get(whole).and_then(|range| sent.checked_sub(range.sent())) {
            (*sent, whole) = (rest, whole + 1);
        }
        let mut taken: Vec<Placed> = self.placed.drain(..whole).collect();
        if let Some(next) =
            self.placed.first_mut().filter(|next| next.origin() == Origin::Sent && *sent > ByteLen::ZERO)
        {
            taken.push(Placed { len: *sent, ..*next });
            (next.at, next.len) = (next.at + *sent, next.len - *sent);
            *sent = ByteLen::ZERO;
        }
        taken
    }

    /// What has been gathered since the last time.
    pub fn take(&mut self) -> Vec<Placed> {
        mem::take(&mut self.placed)
    }
}

/// Where the bytes of a range come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Some of it is not there yet.
    Missing,
    /// All of it came from the basis.
    Copied,
    /// All of it was sent.
    Sent,
    /// Some of it came from the basis, the rest was sent.
    Mixed,
}

impl Origin {
    /// The word for faces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Copied => "copied",
            Self::Sent => "sent",
            Self::Mixed => "mixed",
        }
    }
}

/// Neighbouring cells of a [`BlockMap`] of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRun {
    /// Where it begins.
    pub at: Offset,
    /// How long it is, at least a byte.
    pub len: ByteLen,
    /// Where its bytes come from.
    pub origin: Origin,
}

/// A whole file as a strip of cells of equal length (to within a byte), each with what is known of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMap {
    len: u64,
    cells: Vec<Cell>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    copied: u64,
    sent: u64,
}

impl BlockMap {
    /// The map that is kept here if it is of a target of this length, else an empty one in its place.
    pub fn kept_in(place: &mut Option<Self>, total: ByteLen, cells: usize) -> &mut Self {
        if place.as_ref().is_none_or(|map| map.len() != total) {
            *place = None;
        }
        place.get_or_insert_with(|| Self::new(total, cells))
    }

    /// The map of a file of `len` bytes of which nothing is there, in at most so many cells (1 to 65,536), none of which is
    /// empty. The map of an empty file has none.
    pub fn new(len: ByteLen, cells: usize) -> Self {
        let len = len.get();
        let cells = (cells.clamp(1, 1 << 16) as u64).min(len);
        Self { len, cells: alloc::vec![Cell::default(); cells as usize] }
    }

    /// The length of the file.
    pub fn len(&self) -> ByteLen {
        ByteLen::new(self.len)
    }

    /// Of an empty file.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Notes where a range comes from. What lies outside the file counts for nothing. When a range comes again, as in a repair,
    /// what was sent of it stays sent.
    pub fn place(&mut self, placed: &Placed) {
        let (start, end) =
            (placed.at.get().min(self.len), placed.at.get().saturating_add(placed.len.get()).min(self.len));
        if start == end {
            return;
        }
        // Of each cell the share that the whole range has, exact in the sum.
        let copied_before = |at: u64| scale(placed.copied.get().min(placed.len.get()), at - start, placed.len.get());
        let mut cell = self.cell_of(start);
        let mut at = start;
        while at < end {
            let (cell_start, cell_end) = (self.start_of(cell), self.start_of(cell + 1));
            let until = cell_end.min(end);
            let copied = copied_before(until) - copied_before(at);
            let room = cell_end - cell_start;
            let noted = &mut self.cells[cell as usize];
            noted.sent = (noted.sent + (until - at - copied)).min(room);
            noted.copied = (noted.copied + copied).min(room - noted.sent);
            (at, cell) = (until, cell + 1);
        }
    }

    /// What is known of each cell, neighbours of one origin together; in order, they cover the file.
    pub fn runs(&self) -> Vec<BlockRun> {
        let mut runs: Vec<BlockRun> = Vec::new();
        for (index, cell) in (0..).zip(&self.cells) {
            let (at, end) = (self.start_of(index), self.start_of(index + 1));
            let origin = match *cell {
                Cell { copied, sent } if copied + sent < end - at => Origin::Missing,
                Cell { sent: 0, .. } => Origin::Copied,
                Cell { copied: 0, .. } => Origin::Sent,
                Cell { .. } => Origin::Mixed,
            };
            let len = ByteLen::new(end - at);
            match runs.last_mut() {
                Some(last) if last.origin == origin => last.len += len,
                _ => runs.push(BlockRun { at: Offset::new(at), len, origin }),
            }
        }
        runs
    }

    fn start_of(&self, cell: u64) -> u64 {
        scale(self.len, cell, self.cells.len() as u64)
    }

    fn cell_of(&self, at: u64) -> u64 {
        // The last cell that begins at or before it: one less than the first that begins behind it.
        let cells = self.cells.len() as u64;
        let near = scale(cells, at, self.len);
        if near + 1 < cells && self.start_of(near + 1) <= at { near + 1 } else { near }
    }
}

/// `whole * part / of`, rounded down; `part` is at most `of`.
fn scale(whole: u64, part: u64, of: u64) -> u64 {
    (u128::from(whole) * u128::from(part) / u128::from(of)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn len(bytes: u64) -> ByteLen {
        ByteLen::new(bytes)
    }

    fn runs(map: &BlockMap) -> Vec<(u64, u64, Origin)> {
        map.runs().iter().map(|run| (run.at.get(), run.len.get(), run.origin)).collect()
    }

    fn placed(at: u64, whole: u64, copied: u64) -> Placed {
        Placed { at: Offset::new(at), len: len(whole), copied: len(copied) }
    }

    #[test]
    fn each_range_stands_where_it_lies() {
        let mut map = BlockMap::new(len(1000), 10);
        assert_eq!(runs(&map), [(0, 1000, Origin::Missing)]);
        map.place(&placed(0, 300, 300));
        map.place(&placed(300, 150, 0));
        map.place(&placed(450, 50, 50));
        map.place(&placed(990, 10, 0));
        assert_eq!(
            runs(&map),
            [
                (0, 300, Origin::Copied),
                (300, 100, Origin::Sent),
                (400, 100, Origin::Mixed),
                (500, 500, Origin::Missing),
            ]
        );
    }

    #[test]
    fn a_range_that_comes_again_stays_sent_where_it_was() {
        let mut map = BlockMap::new(len(100), 4);
        map.place(&placed(0, 100, 100));
        map.place(&placed(25, 25, 0));
        let repaired = [(0, 25, Origin::Copied), (25, 25, Origin::Sent), (50, 50, Origin::Copied)];
        assert_eq!(runs(&map), repaired);
        map.place(&placed(0, 100, 100));
        assert_eq!(runs(&map), repaired);
    }

    #[test]
    fn what_lies_outside_counts_for_nothing_and_an_empty_file_has_no_cells() {
        let mut map = BlockMap::new(len(10), 100);
        map.place(&placed(10, 1, 0));
        map.place(&placed(u64::MAX, u64::MAX, 7));
        assert_eq!(runs(&map), [(0, 10, Origin::Missing)]);
        map.place(&placed(5, u64::MAX, u64::MAX));
        assert_eq!(runs(&map), [(0, 5, Origin::Missing), (5, 5, Origin::Copied)]);
        let mut none = BlockMap::new(ByteLen::ZERO, 8);
        none.place(&placed(0, 5, 5));
        assert!(none.is_empty() && none.runs().is_empty());
    }

    #[test]
    fn pieces_too_small_to_be_seen_are_gathered() {
        let mut placer = Placer::new(len(1 << 20));
        for _ in 0..(1 << 20) / 16 {
            placer.push(len(8), true);
            placer.push(len(8), false);
        }
        let all = placer.take();
        assert!((1024..=2049).contains(&all.len()), "{}", all.len());
        assert!(all.iter().all(|placed| placed.copied.get() * 2 == placed.len.get()));
        assert!(placer.take().is_empty());
    }

    #[test]
    fn what_is_not_sent_yet_stays_behind() {
        let mut placer = Placer::new(len(10_000));
        placer.push(len(1000), true);
        placer.push(len(3000), false);
        placer.push(len(500), true);
        assert_eq!(placer.take_within(&mut len(0)), [placed(0, 1000, 1000)]);
        assert_eq!(placer.take_within(&mut len(0)), []);
        assert_eq!(placer.take_within(&mut len(2999)), [placed(1000, 2999, 0)]);
        let mut sent = len(7);
        assert_eq!(placer.take_within(&mut sent), [placed(3999, 1, 0), placed(4000, 500, 500)]);
        assert_eq!(sent, len(6));
    }

    proptest! {
        #[test]
        fn a_map_has_what_was_told(
            pieces in prop::collection::vec((1u64..5000, any::<bool>(), any::<bool>()), 1..60),
            cells in 1usize..300,
        ) {
            let total: u64 = pieces.iter().map(|piece| piece.0).sum();
            let (mut placer, mut ranges) = (Placer::new(len(total)), Vec::new());
            for &(bytes, copied, take) in &pieces {
                placer.push(len(bytes), copied);
                if take {
                    ranges.extend(placer.take());
                }
            }
            ranges.extend(placer.take());
            let mut at = 0;
            for range in &ranges {
                prop_assert_eq!(range.at.get(), at);
                at += range.len.get();
            }
            prop_assert_eq!(at, total);
            let copied: u64 = pieces.iter().filter(|piece| piece.1).map(|piece| piece.0).sum();
            prop_assert_eq!(ranges.iter().map(|range| range.copied.get()).sum::<u64>(), copied);

            let mut map = BlockMap::new(len(total), cells);
            for range in &ranges {
                map.place(range);
            }
            let (in_map, sent) = map.cells.iter().fold((0, 0), |sum, cell| (sum.0 + cell.copied, sum.1 + cell.sent));
            prop_assert_eq!((in_map, sent), (copied, total - copied));
            let runs = map.runs();
            prop_assert!(runs.iter().all(|run| run.origin != Origin::Missing));
            prop_assert_eq!(runs.iter().map(|run| run.len.get()).sum::<u64>(), total);
            prop_assert!(runs.windows(2).all(|pair| pair[0].origin != pair[1].origin && pair[0].at + pair[0].len == pair[1].at));
        }
    }
}
