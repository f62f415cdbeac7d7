//! Which old bytes stand where new ones are wanted.
//!
//! A gap is a maximal stretch that only one of two files has. A gap of the target pairs with the gap of the basis
//! behind the same left neighbour, else with the one before the same right neighbour; what is left over pairs in order.
//! The two ends of a file are neighbours that both files have.
//!
//! Invariant: each gap of the basis is given away once at most. Takes O(n log n).

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Chunks of the target that were not found, and where in the basis their neighbours stand.
#[derive(Clone, Debug)]
pub(crate) struct TargetGap {
    /// The chunks.
    pub(crate) target: Range<u64>,
    /// The run of the basis behind the one that was matched before the gap.
    pub(crate) left: usize,
    /// The run of the basis that was matched after the gap.
    pub(crate) right: usize,
}

/// For each gap of the target the runs of the basis it is paired with, or none: an empty range behind its left
/// neighbour. `old` are the gaps of the basis as ranges of runs, in order.
pub(crate) fn pair(wanted: &[TargetGap], old: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut paired: Vec<Option<usize>> = vec![None; wanted.len()];
    let mut free = vec![true; old.len()];
    let by_left = |gap: &TargetGap| old.binary_search_by_key(&gap.left, |old| old.start).ok();
    let by_right = |gap: &TargetGap| old.binary_search_by_key(&gap.right, |old| old.end).ok();
    for neighbour in [&by_left as &dyn Fn(&TargetGap) -> Option<usize>, &by_right] {
        for (gap, paired) in wanted.iter().zip(&mut paired).filter(|(_, paired)| paired.is_none()) {
            *paired = neighbour(gap).filter(|i| core::mem::take(&mut free[*i]));
        }
    }
    let mut pool = (0..old.len()).filter(|i| free[*i]);
    let runs = wanted.iter().zip(paired).map(|(gap, paired)| match paired.or_else(|| pool.next()) {
        Some(i) => old[i].clone(),
        None => gap.left..gap.left,
    });
    runs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(left: usize, right: usize) -> TargetGap {
        TargetGap { target: 0..1, left, right }
    }

    #[test]
    fn neighbours_on_the_left_come_first_then_on_the_right_then_the_pool() {
        let old = [0..2, 4..5, 8..9, 12..20];
        assert_eq!(pair(&[gap(30, 9), gap(0, 1)], &old), [8..9, 0..2]);
        assert_eq!(pair(&[gap(30, 5), gap(4, 40)], &old), [0..2, 4..5], "left wins, whichever gap comes first");
        assert_eq!(pair(&[gap(30, 31), gap(8, 31), gap(32, 33)], &old), [0..2, 8..9, 4..5]);
    }

    #[test]
    fn gaps_for_which_none_is_left_get_nothing() {
        assert_eq!(pair(&[gap(3, 4), gap(7, 8)], &[]), [3..3, 7..7]);
        assert_eq!(pair(&[gap(3, 4), gap(7, 8), gap(9, 9)], &[3..4, 5..8]), [3..4, 5..8, 9..9]);
        assert!(pair(&[], &[3..4, 5..8]).is_empty());
    }
}
