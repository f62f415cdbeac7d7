//! Where the bytes of a target came from.
//!
//! One transfer counts its own; sums of them tell the story of a connection or a server.
//!
//! Invariant: once a transfer is done, `copied` and `literal` sum to `target`.

use core::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use crate::ByteLen;

/// Counts of one transfer, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The length of the target.
    pub target: ByteLen,
    /// Bytes of the target taken from the basis.
    pub copied: ByteLen,
    /// Bytes of the target that were sent, before compression.
    pub literal: ByteLen,
    /// How many times the result was not right and ranges of it were sent again.
    pub repairs: u32,
}

impl Stats {
    /// The share of the target that was not sent, from 0 to 1; an empty target needed nothing and counts as 1.
    pub fn reused(&self) -> f64 {
        match self.target.get() {
            0 => 1.0,
            target => (self.copied.get() as f64 / target as f64).min(1.0),
        }
    }
}

/// Sums stay at the greatest value rather than pass it: they are for people.
impl Add for Stats {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let sum = |a: ByteLen, b: ByteLen| ByteLen::new(a.get().saturating_add(b.get()));
        Self {
            target: sum(self.target, other.target),
            copied: sum(self.copied, other.copied),
            literal: sum(self.literal, other.literal),
            repairs: self.repairs.saturating_add(other.repairs),
        }
    }
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl core::iter::Sum for Stats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(target: u64, copied: u64, literal: u64, repairs: u32) -> Stats {
        let len = ByteLen::new;
        Stats { target: len(target), copied: len(copied), literal: len(literal), repairs }
    }

    #[test]
    fn sums_add_every_count_and_stop_at_the_greatest() {
        let sum: Stats = [stats(10, 8, 2, 0), stats(6, 0, 6, 1)].into_iter().sum();
        assert_eq!(sum, stats(16, 8, 8, 1));
        let full = stats(u64::MAX, 1, u64::MAX, u32::MAX);
        assert_eq!(full + sum, stats(u64::MAX, 9, u64::MAX, u32::MAX));
    }

    #[test]
    fn the_reused_share_is_of_the_target() {
        assert_eq!(stats(16, 12, 4, 0).reused(), 0.75);
        assert_eq!(stats(0, 0, 0, 0).reused(), 1.0);
    }
}
