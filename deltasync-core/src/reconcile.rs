//! What to ask the other end for until it is known how two sets of tags differ, or that it is not worth knowing.
//!
//! A sketch costs by the differences, a sorted list by the elements; whichever is cheaper is asked for, once, from the
//! estimate that the first cells give. Where little seems to be common the estimate cannot tell little from nothing, as
//! its error is that of the differences: then the lowest thousand tags of the list are asked for, a sample which can, and
//! when next to none of them is known, everything is sent without comparing more.
//!
//! Invariant: each answer asks for more than the last, so that a comparison ends after a few.

use alloc::vec::Vec;

use crate::bits::rice_for;
use crate::{Differences, Elements, Sketch, Tag, Undecided};

/// What one end has received of the other's set.
#[derive(Clone, Debug)]
pub enum Received {
    /// Cells from the first on.
    Cells(Sketch),
    /// The lowest tags in ascending order, of a set of `elements`.
    Tags {
        /// The tags.
        tags: Vec<Tag>,
        /// How many elements the whole set has.
        elements: usize,
    },
}

/// What comes of comparing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// How the sets differ.
    Differences(Differences),
    /// More must be known.
    More(Wanted),
    /// Next to nothing is common: ask for everything.
    Nothing,
}

/// What is to come of the other end's set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All cells below this position.
    Cells(usize),
    /// All tags below this rank.
    Tags(usize),
}

/// A set of at most this many elements is sent as a list at once: the first cells cost as much.
pub const LIST_AT_ONCE: usize = 64;

/// How many of the lowest tags tell whether anything is common.
const SAMPLE: usize = 1000;
/// Of the sample so many must be known, one in this, for the rest to be worth its bytes.
const WORTH: usize = 50;
/// The bytes of a cell.
const CELL: usize = 9;

impl Compared {
    /// Compares our elements with what came.
    ///
    /// # Panics
    ///
    /// When the cells do not start at the first.
    ///
    /// # Security
    ///
    /// What came may be hostile: time and memory follow its length and our own set.
    pub fn of(ours: &Elements, theirs: &Received) -> Self {
        if ours.is_empty() {
            return Self::Nothing;
        }
        match theirs {
            Received::Cells(theirs) => Self::of_cells(ours, theirs),
            Received::Tags { tags, elements } if tags.len() >= *elements => {
                Self::Differences(Differences::of_sorted(ours.tags(), tags.iter().copied()))
            }
            Received::Tags { tags, elements } => {
                let known = tags.iter().filter(|tag| ours.contains(**tag)).count();
                if known * WORTH < tags.len() { Self::Nothing } else { Self::More(Wanted::Tags(*elements)) }
            }
        }
    }

    fn of_cells(ours: &Elements, theirs: &Sketch) -> Self {
        let own = Sketch::of(theirs.key(), theirs.range(), ours.tags());
        let elements = theirs.elements() as usize;
        let estimate = match Differences::between(&own, theirs) {
            Ok(differences) => return Self::Differences(differences),
            // Not of two sets, or so it seems: the list tells.
            Err(Undecided::Repeated) => return Self::More(Wanted::Tags(elements)),
            Err(Undecided::TooFew(estimate)) => estimate,
        };
        let both = elements + ours.len();
        let common = both.saturating_sub(estimate.differences as usize) / 2;
        if common < elements / 5 * 2 && elements > 2 * SAMPLE {
            return Self::More(Wanted::Tags(SAMPLE));
        }
        let bits = rice_for(1 << Tag::BITS, elements as u64) as usize + 2;
        let more = estimate.cells.saturating_sub(theirs.range().end);
        if more == 0 || elements * bits / 8 < more * CELL {
            return Self::More(Wanted::Tags(elements));
        }
        Self::More(Wanted::Cells(estimate.cells))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SketchKey;

    fn elements(range: core::ops::Range<u64>) -> Elements {
        Elements::of_tags(range.map(|i| Tag::of_number((i + 1).wrapping_mul(0xda94_2042_e4dd_58b5) >> 16)).collect())
    }

    /// Answers whatever is asked for; returns the bytes that took and what came of it.
    fn check_a_comparison_ends(ours: &Elements, theirs: &Elements) -> (usize, Compared) {
        let key = SketchKey::new(&[1; 16], 1);
        let cells = Sketch::first_flight(theirs.len() as u64);
        let mut received = if theirs.len() <= LIST_AT_ONCE {
            Received::Tags { tags: theirs.tags().collect(), elements: theirs.len() }
        } else {
            Received::Cells(Sketch::of(key, 0..cells, theirs.tags()))
        };
        let mut bytes = 0;
        for asked in 0..8 {
            let compared = Compared::of(ours, &received);
            let Compared::More(wanted) = compared else {
                if let Compared::Differences(differences) = &compared {
                    let expected = Differences::of_sorted(ours.tags(), theirs.tags());
                    assert_eq!(*differences, expected, "asked {asked} times");
                }
                return (bytes, compared);
            };
            received = match (wanted, received) {
                (Wanted::Cells(end), Received::Cells(sketch)) => {
                    assert!(end > sketch.range().end);
                    bytes += CELL * (end - sketch.range().end);
                    Received::Cells(Sketch::of(key, 0..end, theirs.tags()))
                }
                (Wanted::Tags(end), was) => {
                    assert!(!matches!(was, Received::Tags { tags, .. } if tags.len() >= end));
                    bytes += 5 * end;
                    Received::Tags { tags: theirs.tags().take(end).collect(), elements: theirs.len() }
                }
                (Wanted::Cells(_), Received::Tags { .. }) => panic!("cells after tags"),
            };
        }
        panic!("asked for ever");
    }

    #[test]
    fn few_differences_are_told_by_cells_and_many_by_a_list() {
        for (ours, theirs, most) in [
            (0..50, 20..70, 0),
            (0..5000, 0..5000, 0),
            (0..5000, 100..5100, 10_000),
            (0..20_000, 5_000..25_000, 100_000),
            (0..100, 0..20_000, 100_000),
        ] {
            let (bytes, compared) = check_a_comparison_ends(&elements(ours.clone()), &elements(theirs.clone()));
            assert!(
                matches!(compared, Compared::Differences(_)) || ours.end == 100,
                "{ours:?} {theirs:?}: {compared:?}"
            );
            assert!(bytes <= most, "{bytes} bytes for {ours:?} and {theirs:?}");
        }
    }

    #[test]
    fn nothing_in_common_is_found_out_for_little() {
        let (bytes, compared) = check_a_comparison_ends(&elements(0..25_000), &elements(100_000..125_000));
        assert_eq!(compared, Compared::Nothing);
        assert!(bytes <= 5 * SAMPLE, "{bytes} bytes");
        assert_eq!(check_a_comparison_ends(&elements(0..0), &elements(0..5000)), (0, Compared::Nothing));
    }

    #[test]
    fn a_tenth_in_common_is_worth_knowing() {
        let (_, compared) = check_a_comparison_ends(&elements(0..25_000), &elements(22_500..47_500));
        assert!(matches!(compared, Compared::Differences(_)), "{compared:?}");
    }
}
