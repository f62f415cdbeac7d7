//! How many differences two sets have, as far as cells that were too few to tell them show.
//!
//! The counts tell it. With d differences and x more elements at our end, cell i should differ by p x, p = 2/(i + 2);
//! that it differs by c instead has the variance d p (1 - p), for each difference falls into it or does not. So each
//! cell but the first estimates d as (c - p x)^2 / p (1 - p), and m cells do with a standard error of about 1.4/sqrt(m)
//! of it: 26 % of 32 cells, 5 % of 1,024. What is asked for covers that error 99 times in 100.
//!
//! Invariant: what is asked for is at least a quarter more than there was, up to the most that a sketch has; the
//! estimate is never more than both sets have elements, whatever the cells.
//!
//! Source: ours; the quantile is that of Wilson and Hilferty (1931), the cells for a number of differences were
//! measured.

use crate::Sketch;
use crate::sketch::Cell;

/// How far apart two sets seem to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The number of differences, most likely.
    pub differences: u64,
    /// The number of cells, counted from the first, that tells them 99 times in 100; more than there were, unless those
    /// were [`Sketch::CELLS_MAX`].
    pub cells: usize,
}

impl Estimate {
    /// How many cells tell `differences` differences at least 999 times in 1,000: 1.36 for each, and a margin of 4.4
    /// times their square root and 38. At most [`Sketch::CELLS_MAX`], which are enough for 383,000.
    pub const fn cells_for(differences: u64) -> usize {
        if differences < 2 {
            return 1;
        }
        if differences >= Sketch::CELLS_MAX as u64 {
            return Sketch::CELLS_MAX;
        }
        let cells = (differences * 34).div_ceil(25) + (19 * differences).isqrt() + 38;
        if cells < Sketch::CELLS_MAX as u64 { cells as usize } else { Sketch::CELLS_MAX }
    }

    /// From the cells of a difference that were too few, between sets of so many `elements` together.
    pub(crate) fn of(cells: &[Cell], elements: u64) -> Self {
        let excess = cells.first().map_or(0.0, |cell| f64::from(cell.count));
        let squares = cells.iter().enumerate().skip(1).map(|(position, cell)| {
            let share = 2.0 / (position as f64 + 2.0);
            let off = f64::from(cell.count) - share * excess;
            off * off / (share * (1.0 - share))
        });
        let freedom = cells.len().saturating_sub(1).max(1);
        let mean = squares.sum::<f64>() / freedom as f64;
        // Half as many differences as there were cells would have been told.
        let least = (excess.abs() as u64).max(cells.len() as u64 / 2).max(1);
        let likely = |differences: f64| (differences as u64).max(least).min(elements);
        // The margin covers how the number of cells varies for one number of differences, too: that is far less.
        let most = likely(mean * Self::margin(freedom));
        let enough = match most {
            0..0x10_0000 => (most * 34).div_ceil(25) + most.isqrt() + 16,
            _ => Sketch::CELLS_MAX as u64,
        };
        let enough = enough.min(Sketch::CELLS_MAX as u64) as usize;
        let more = cells.len() + cells.len() / 4 + 1;
        Self { differences: likely(mean), cells: enough.max(more).min(Sketch::CELLS_MAX) }
    }

    /// One over the hundredth part of a chi-square distribution over its mean, so that the product with an estimate is
    /// too small in one case of a hundred.
    fn margin(freedom: usize) -> f64 {
        const ONE: u64 = 1 << 20;
        let ninths = 2.0 / (9.0 * freedom as f64);
        let root = ((ninths * (ONE * ONE) as f64) as u64).isqrt() as f64 / ONE as f64;
        let quantile = (1.0 - ninths - 2.326 * root).max(0.3);
        1.0 / (quantile * quantile * quantile)
    }
}
