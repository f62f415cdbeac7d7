//! How two sets of tags differ, taken element by element from the sketches of both.
//!
//! Cell by cell, ours less theirs: what both sets have cancels. A cell that holds one difference names it by its tag
//! and proves it by its check sum; taken out of all its cells it leaves others with one, and so on until every cell is
//! empty or none holds a single one, and more cells are needed: an [`Estimate`] says how many. d differences take 1.35
//! d cells (thousands) to 1.8 d (tens) on average.
//!
//! A cell of several differences passes for one when its count is odd, its check sum is right (one in 2^24, in 2^16 from
//! cell 64 on) and so is the place of the supposed tag (one in i/2 + 1). Summed over all cells and all that is taken out
//! of them, that is about once in a thousand sketches, and then the false element is left behind in a dozen other cells: it is taken back from
//! the first of them that empties otherwise, or the cells are too few. No wrong answer comes of it; for that,
//! differences would have to cancel in 72 bits of cell 0 and of every other cell.
//!
//! Invariant: a tag twice on one side and never on the other cancels in tags and check sums but not in counts, so it
//! ends in `Repeated` once all else is out, never in a wrong answer; twice against once is one difference. A cell gives
//! at most one element, and any cells at all end after 64 steps a cell, in 60 bytes a cell; those of no two sets at all
//! end as too few.
//!
//! Source: Yang, Gilad, Alizadeh, "Practical Rateless Set Reconciliation" (SIGCOMM 2024).

use alloc::vec::Vec;

use crate::sketch::Cell;
use crate::{Estimate, Sketch, SketchKey, Tag};

/// Steps of peeling for each cell. The most differences that the largest sketch tells take about 40.
const STEPS: usize = 64;

/// The tags that only one of two sets has, in order.
///
/// ```
/// use deltasync_core::{Differences, Limits, Reader, Sketch, SketchKey, Tag, Undecided};
///
/// let key = SketchKey::new(&[7; 16], 1);
/// let tag = |number: u8| Tag::from_bytes([number, 1, 2, 3, 4, 5]);
/// let (ours, theirs) = ((0..100).map(tag), (40..200).map(tag));
///
/// let cells = Sketch::first_flight(160);
/// let mut wire = Vec::new();
/// Sketch::of(key, 0..cells, theirs.clone()).encode(&mut wire);
///
/// let limits = Limits::default();
/// let mut sent = Sketch::decode(key, 0..cells, 160, &mut Reader::new(&wire), &limits)?;
/// let mut own = Sketch::of(key, 0..cells, ours.clone());
/// let Err(Undecided::TooFew(estimate)) = Differences::between(&own, &sent) else { panic!("32 cells for 140") };
///
/// let more = cells..estimate.cells;
/// sent.append(Sketch::of(key, more.clone(), theirs));
/// own.append(Sketch::of(key, more, ours));
/// let differences = Differences::between(&own, &sent).expect("enough, in 99 cases of 100");
/// assert_eq!((differences.ours().len(), differences.theirs().len()), (40, 100));
/// # Ok::<(), deltasync_core::InvalidSketch>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    ours: Vec<Tag>,
    theirs: Vec<Tag>,
}

impl Differences {
    /// The differences between two sets, given equally many cells of both from the first on.
    ///
    /// # Errors
    ///
    /// [`Undecided`]: the cells are too few, with the number to ask for; or a tag is twice in one set.
    ///
    /// # Panics
    ///
    /// When the sketches do not start at cell 0, or differ in length or key.
    ///
    /// # Security
    ///
    /// Either sketch may be hostile: time and memory follow the number of cells. A hostile sketch can name any tags,
    /// also as ours that we have not: look each up.
    pub fn between(ours: &Sketch, theirs: &Sketch) -> Result<Self, Undecided> {
        assert_eq!((ours.range().start, ours.range()), (0, theirs.range()), "the same cells from the first on");
        assert!(ours.key() == theirs.key(), "cells under one key");
        let pairs = ours.cells().iter().zip(theirs.cells());
        let cells: Vec<Cell> = pairs.map(|(ours, theirs)| ours.less(*theirs)).collect();
        let elements = u64::from(ours.elements()) + u64::from(theirs.elements());
        let peeling = Peeling::of(ours.key(), cells.clone());
        if peeling.cells.is_empty() || !peeling.cells.iter().all(Cell::cancels) {
            return Err(Undecided::TooFew(Estimate::of(&cells, elements)));
        }
        if peeling.cells.iter().any(|cell| cell.count != 0) {
            return Err(Undecided::Repeated);
        }
        Self::from_found(peeling.found)
    }

    /// The differences between two sets that are both at hand, each in ascending order.
    pub fn of_sorted(ours: impl Iterator<Item = Tag>, theirs: impl Iterator<Item = Tag>) -> Self {
        let mut differences = Self::default();
        let (mut ours, mut theirs) = (ours.peekable(), theirs.peekable());
        loop {
            match (ours.peek(), theirs.peek()) {
                (Some(a), Some(b)) if a == b => drop((ours.next(), theirs.next())),
                (Some(a), b) if b.is_none_or(|b| a < b) => differences.ours.extend(ours.next()),
                (_, Some(_)) => differences.theirs.extend(theirs.next()),
                (_, None) => return differences,
            }
        }
    }

    /// What our set has and theirs has not.
    pub fn ours(&self) -> &[Tag] {
        &self.ours
    }

    /// What their set has and ours has not.
    pub fn theirs(&self) -> &[Tag] {
        &self.theirs
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ours.len() + self.theirs.len()
    }

    /// True when the sets are equal.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sorts what was found. One that was taken out falsely was found once on either side.
    fn from_found(mut found: Vec<(Tag, i32)>) -> Result<Self, Undecided> {
        found.sort_unstable();
        let mut differences = Self::default();
        for same in found.chunk_by(|(a, _), (b, _)| a == b) {
            match same.iter().map(|(_, count)| i64::from(*count)).sum() {
                0 => {}
                1 => differences.ours.push(same[0].0),
                -1 => differences.theirs.push(same[0].0),
                _ => return Err(Undecided::Repeated),
            }
        }
        Ok(differences)
    }
}

/// What is left of the cells while differences are taken out.
struct Peeling {
    key: SketchKey,
    cells: Vec<Cell>,
    /// Cells that looked like one element, each at most once.
    waiting: Vec<usize>,
    /// Which cells wait, or have given their element.
    closed: Vec<bool>,
    /// What was taken out and how often, above zero for ours and below for theirs.
    found: Vec<(Tag, i32)>,
    /// How many steps are left.
    steps: usize,
}

impl Peeling {
    /// The cells after all that can be taken out is.
    fn of(key: SketchKey, cells: Vec<Cell>) -> Self {
        let len = cells.len();
        let (waiting, closed) = (Vec::new(), alloc::vec![false; len]);
        let mut peeling = Self { key, cells, waiting, closed, found: Vec::new(), steps: len * STEPS };
        (0..len).for_each(|cell| peeling.look_at(cell));
        while let Some(cell) = peeling.waiting.pop().filter(|_| peeling.steps > 0) {
            peeling.closed[cell] = peeling.take_from(cell);
        }
        peeling
    }

    /// Queues the cell when it looks like one element.
    fn look_at(&mut self, cell: usize) {
        if !self.closed[cell] && self.cells[cell].single(cell, &self.key, 0).is_some() {
            self.closed[cell] = true;
            self.waiting.push(cell);
        }
    }

    /// Takes the element of a cell out of all its cells, if it is one and belongs here.
    fn take_from(&mut self, cell: usize) -> bool {
        let held = self.cells[cell];
        let Some((tag, places)) = held.single(cell, &self.key, self.cells.len()) else { return false };
        let steps = places.clone().take_while(|place| *place < cell).count() + 1;
        self.spend(steps);
        if places.clone().nth(steps - 1) != Some(cell) {
            return false;
        }
        self.found.push((tag, held.count));
        let (element, _) = Cell::of(&self.key, tag, 0);
        for place in places {
            self.spend(1);
            self.cells[place] = self.cells[place].less(Cell { count: held.count, ..element.at(place) });
            self.look_at(place);
        }
        true
    }

    fn spend(&mut self, steps: usize) {
        self.steps = self.steps.saturating_sub(steps);
    }
}

/// Why two sketches do not tell the differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undecided {
    /// More cells are needed.
    #[error("about {} differences need about {} cells", .0.differences, .0.cells)]
    TooFew(Estimate),
    /// A tag occurs more than once in one set. More cells do not help: send a list.
    #[error("a tag occurs more than once in one set")]
    Repeated,
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::sketch::tests::{key, tags};
    use crate::{Limits, Reader};

    /// Two sets that share `common` tags, of which each has its own besides.
    struct Sets {
        ours: Vec<Tag>,
        theirs: Vec<Tag>,
        differences: Differences,
    }

    impl Sets {
        fn of(seed: u64, common: usize, ours: usize, theirs: usize) -> Self {
            let all = tags(seed, common + ours + theirs);
            let (shared, own) = all.split_at(common);
            let (ours, theirs) = own.split_at(ours);
            let sorted = |tags: &[Tag]| {
                let mut tags = tags.to_vec();
                tags.sort();
                tags
            };
            Self {
                ours: [shared, ours].concat(),
                theirs: [theirs, shared].concat(),
                differences: Differences { ours: sorted(ours), theirs: sorted(theirs) },
            }
        }

        fn sketches(&self, transfer: u32, cells: usize) -> [Sketch; 2] {
            [&self.ours, &self.theirs].map(|tags| Sketch::of(key(transfer), 0..cells, tags.iter().copied()))
        }

        fn between(&self, transfer: u32, cells: usize) -> Result<Differences, Undecided> {
            let [ours, theirs] = self.sketches(transfer, cells);
            Differences::between(&ours, &theirs)
        }
    }

    /// Asks for more until the differences are told; returns how often, and for how many cells in the end.
    fn check_differences_are_told(sets: &Sets, transfer: u32, mut cells: usize) -> (usize, usize) {
        for asked in 0..20 {
            match sets.between(transfer, cells) {
                Ok(differences) => {
                    assert_eq!(differences, sets.differences);
                    return (asked, cells);
                }
                Err(Undecided::TooFew(estimate)) => {
                    assert!(estimate.cells > cells, "{estimate:?} after {cells} cells");
                    assert!(estimate.differences <= (sets.ours.len() + sets.theirs.len()) as u64);
                    cells = estimate.cells;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("never told, not even from {cells} cells");
    }

    /// The least number of cells that tell the differences.
    fn cost(sets: &Sets, transfer: u32) -> usize {
        let [ours, theirs] = sets.sketches(transfer, 600 + 2 * sets.differences.len());
        let cells: Vec<Cell> = ours.cells().iter().zip(theirs.cells()).map(|(a, b)| a.less(*b)).collect();
        let tells = |len: usize| {
            let peeling = Peeling::of(key(transfer), cells[..len].to_vec());
            peeling.cells.iter().all(|cell| *cell == Cell::default())
        };
        let (mut too_few, mut enough) = (0, cells.len());
        while enough - too_few > 1 {
            let middle = usize::midpoint(too_few, enough);
            if tells(middle) { enough = middle } else { too_few = middle }
        }
        enough
    }

    /// A sketch of hostile cells: `(tags, checks, count)` each.
    fn hostile(cells: &[(Tag, u32, i32)], elements: u32) -> Result<Sketch, crate::InvalidSketch> {
        let mut bytes = Vec::new();
        for (position, (tag, checks, count)) in cells.iter().enumerate() {
            let parts = position as i64 + 2;
            bytes.extend_from_slice(&tag.to_bytes());
            let checks = checks.to_le_bytes();
            bytes.extend_from_slice(if position < 64 { &checks[..3] } else { &checks[..2] });
            crate::write_signed(&mut bytes, i64::from(*count) - (2 * i64::from(elements) + parts / 2) / parts);
        }
        let mut reader = Reader::new(&bytes);
        Sketch::decode(key(1), 0..cells.len(), elements.into(), &mut reader, &Limits::default())
    }

    #[test]
    fn differences_of_every_size_are_told() {
        for (seed, (common, ours, theirs)) in
            [(0, 0, 0), (0, 1, 0), (0, 0, 1), (5, 0, 0), (0, 40, 0), (1000, 1, 1), (1000, 0, 300), (3000, 700, 1300)]
                .into_iter()
                .enumerate()
        {
            let sets = Sets::of(seed as u64, common, ours, theirs);
            for cells in [0, 1, 2, 32, Estimate::cells_for((ours + theirs) as u64)] {
                check_differences_are_told(&sets, seed as u32, cells);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_elements_cost_what_their_differences_cost() {
        let sets = Sets::of(1, 100_000, 4, 4);
        assert!(check_differences_are_told(&sets, 1, Sketch::first_flight(100_000)).0 == 0);
        assert!(cost(&sets, 1) < 60);
    }

    /// The paper: 1.72 at the worst, 1.35 in the end. Measured over thousands of runs: 1.745, 1.417, 1.369.
    #[test]
    fn a_difference_costs_less_than_two_cells_and_many_cost_less() {
        for (differences, runs, most) in [(8, 300, 1.85), (200, 20, 1.46), (2000, 3, 1.40)] {
            let costs = (0..runs).map(|run| cost(&Sets::of(run, 10, differences / 2, differences / 2), run as u32));
            let mean = costs.sum::<usize>() as f64 / (runs as f64 * differences as f64);
            assert!((1.3..most).contains(&mean), "{mean:.3} cells for each of {differences}");
        }
    }

    #[test]
    fn as_many_cells_as_said_are_enough() {
        for (differences, runs) in [(0, 1), (1, 50), (2, 500), (3, 500), (8, 500), (30, 200), (100, 40), (500, 10)] {
            let cells = Estimate::cells_for(differences as u64);
            let tells = |run: &u64| Sets::of(*run, 3, differences, 0).between(*run as u32, cells).is_ok();
            let too_few = runs - (0..runs).filter(tells).count() as u64;
            assert!(too_few <= runs.div_ceil(500), "{cells} cells were too few {too_few} times of {runs}");
        }
        let most = [380_000, 500_000, u64::MAX].map(Estimate::cells_for);
        assert!(most[0] < Sketch::CELLS_MAX && most[1..] == [Sketch::CELLS_MAX; 2], "{most:?}");
    }

    #[test]
    fn more_is_asked_for_once() {
        let mut asked_twice = 0;
        for run in 0..60 {
            let (ours, theirs) = [(100, 100), (900, 20), (0, 400), (500, 500)][run as usize % 4];
            let (asked, cells) = check_differences_are_told(&Sets::of(run, 500, ours, theirs), run as u32, 32);
            asked_twice += usize::from(asked > 1);
            assert!(asked > 0 && cells < 6 * (ours + theirs), "{cells} cells for {ours} and {theirs}");
        }
        assert!(asked_twice <= 2, "{asked_twice} of 60");
    }

    #[test]
    fn the_estimate_is_near() {
        for (run, cells, most) in [(1, 256, 0.3), (2, 1024, 0.15)] {
            let sets = Sets::of(run, 1000, 1500, 2500);
            let Err(Undecided::TooFew(estimate)) = sets.between(run as u32, cells) else { panic!("they are too few") };
            let off = estimate.differences as f64 / 4000.0 - 1.0;
            assert!(off.abs() < most, "{estimate:?} from {cells} cells");
        }
    }

    #[test]
    fn a_tag_twice_on_one_side_is_said_and_twice_against_once_is_a_difference() {
        let mut sets = Sets::of(1, 100, 3, 2);
        let twice = sets.differences.ours[0];
        sets.ours.push(twice);
        assert_eq!(sets.between(1, 200), Err(Undecided::Repeated));
        sets.ours.push(twice);
        assert_eq!(sets.between(1, 200), Err(Undecided::Repeated), "thrice against never");
        sets.theirs.extend([twice; 2]);
        assert_eq!(sets.between(1, 200).as_ref(), Ok(&sets.differences), "thrice against twice");
        sets.theirs.push(twice);
        assert_eq!(sets.between(1, 200).map(|differences| differences.len()), Ok(4), "thrice on both sides");
    }

    /// Taking it out of cell 0 makes it missing from the others, taking that out puts it back into cell 0.
    #[test]
    fn an_element_that_is_in_one_of_its_cells_only_ends() {
        let lone = tags(1, 1)[0];
        let (element, _) = Cell::of(&key(1), lone, 0);
        for cells in [2, 3, 50, 1000] {
            let mut list = vec![(Tag::from_bytes([0; 6]), 0, 0); cells];
            list[0] = (lone, element.checks, 1);
            let theirs = hostile(&list, 1).expect("each cell is possible");
            let told = Differences::between(&Sketch::new(key(1), 0..cells), &theirs);
            let is_alone = key(1).place(lone, cells).1.count() == 1;
            assert_eq!(told.is_ok(), is_alone, "{told:?}");
        }
    }

    #[test]
    fn cells_that_each_claim_an_element_end() {
        let len = 3000;
        let claim = |tag: Tag| (tag, Cell::of(&key(1), tag, 0).0.checks, 1);
        // Each cell claims an element that belongs there and whose removal spoils hundreds of others.
        let mut candidates = tags(5, 60_000);
        candidates.sort_by_key(|tag| core::cmp::Reverse(key(1).place(*tag, len).1.count()));
        let mut list: Vec<_> = candidates.iter().take(len).map(|tag| claim(*tag)).collect();
        for tag in candidates.iter().rev() {
            key(1).place(*tag, len).1.for_each(|cell| list[cell] = claim(*tag));
        }
        let theirs = hostile(&list, 1).expect("each cell is possible");
        let cells: Vec<Cell> = theirs.cells().iter().map(|cell| Cell::default().less(*cell)).collect();
        let peeling = Peeling::of(key(1), cells);
        assert!(peeling.found.len() <= len && peeling.waiting.len() <= len);
        let told = Differences::between(&Sketch::new(key(1), 0..len), &theirs);
        assert!(matches!(told, Err(Undecided::TooFew(_))), "{told:?}");
    }

    #[test]
    #[should_panic(expected = "the same cells")]
    fn other_cells_are_a_bug() {
        let _ = Differences::between(&Sketch::new(key(1), 0..5), &Sketch::new(key(1), 0..6));
    }

    proptest! {
        #[test]
        fn the_symmetric_difference_is_told(
            seed: u64,
            common in 0usize..300,
            ours in 0usize..150,
            theirs in 0usize..150,
            cells in 0usize..200,
        ) {
            check_differences_are_told(&Sets::of(seed, common, ours, theirs), seed as u32, cells);
        }

        #[test]
        fn a_damaged_cell_is_never_a_wrong_answer(
            seed: u64,
            own in (0usize..20, 0usize..20),
            cells in 1usize..100,
            at: prop::sample::Index,
            change in 1u64..1 << 48,
        ) {
            let sets = Sets::of(seed, 50, own.0, own.1);
            let [ours, theirs] = sets.sketches(1, cells);
            let mut bytes = Vec::new();
            theirs.encode(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= (change as u8).max(1);
            let mut reader = Reader::new(&bytes);
            let elements = theirs.elements().into();
            if let Ok(damaged) = Sketch::decode(key(1), 0..cells, elements, &mut reader, &Limits::default()) {
                prop_assert!(Differences::between(&ours, &damaged).is_err());
            }
        }

        #[test]
        fn any_cells_end(
            seed: u64,
            cells in prop::collection::vec((0usize..8, any::<bool>(), 0i32..4), 1..200),
        ) {
            let pool = tags(seed, 8);
            let mut list: Vec<_> = cells
                .iter()
                .map(|(tag, is_right, count)| {
                    let checks = Cell::of(&key(1), pool[*tag], 0).0.checks;
                    (pool[*tag], if *is_right { checks } else { 0 }, *count)
                })
                .collect();
            list[0].2 = 3;
            let theirs = hostile(&list, 3).expect("each cell is possible");
            let ours = Sketch::of(key(1), 0..list.len(), tags(seed, 2));
            if let Ok(differences) = Differences::between(&ours, &theirs) {
                prop_assert!(differences.len() <= list.len());
            }
        }
    }
}
