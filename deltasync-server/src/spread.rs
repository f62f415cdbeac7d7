//! How a quantity spreads over ended transfers: a histogram with fixed bounds, as Prometheus counts them.
//!
//! Invariant: a histogram has one count more than bounds, and their sum is the number of all observations.

use serde::{Deserialize, Serialize};

/// Seconds that transfers take, from a small file on a local network to an image over a slow link.
const SECONDS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0, 3_600.0, 14_400.0];
/// Bytes, in decades from a kilobyte to ten terabytes.
const BYTES: [f64; 11] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13];
/// The most bounds of a histogram that came from elsewhere.
const BOUNDS_MAX: usize = 32;

/// How the pushes and pulls that ended well spread, since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spreads {
    /// Of pushes.
    pub push: Spread,
    /// Of pulls.
    pub pull: Spread,
}

/// How the transfers of one kind that ended well spread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How long they took, in seconds.
    pub seconds: Histogram,
    /// The lengths of their targets, in bytes.
    pub file_bytes: Histogram,
    /// What they cost on the wire, in bytes.
    pub wire_bytes: Histogram,
}

/// How often a quantity was at most so much.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The upper bounds, rising; a value that is equal to a bound is below it.
    pub bounds: Vec<f64>,
    /// How many were at most each bound and above the one before it, and at the end how many were above all.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: f64,
}

impl Default for Spread {
    fn default() -> Self {
        let [file_bytes, wire_bytes] = [(); 2].map(|()| Histogram::new(&BYTES));
        Self { seconds: Histogram::new(&SECONDS), file_bytes, wire_bytes }
    }
}

impl Spread {
    /// One more has ended well.
    pub(crate) fn observe(&mut self, seconds: f64, file: u64, wire: u64) {
        self.seconds.observe(seconds);
        self.file_bytes.observe(file as f64);
        self.wire_bytes.observe(wire as f64);
    }
}

impl Histogram {
    fn new(bounds: &[f64]) -> Self {
        Self { bounds: bounds.to_vec(), counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|&bound| bound < value)] += 1;
        self.sum += value;
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Spreads {
    /// With lists of our lengths, for one that came from elsewhere.
    pub(crate) fn bound(mut self) -> Self {
        for Spread { seconds, file_bytes, wire_bytes } in [&mut self.push, &mut self.pull] {
            for histogram in [seconds, file_bytes, wire_bytes] {
                histogram.bounds.truncate(BOUNDS_MAX);
                histogram.counts.truncate(BOUNDS_MAX + 1);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_at_the_first_bound_that_is_not_below_it() {
        let mut spread = Spread::default();
        spread.observe(0.005, 0, 1_001);
        spread.observe(1e9, 1_000, u64::MAX);
        assert_eq!((spread.seconds.counts[0], spread.seconds.counts[SECONDS.len()]), (1, 1));
        assert_eq!((spread.file_bytes.counts[0], spread.file_bytes.sum), (2, 1_000.0));
        assert_eq!((spread.wire_bytes.counts[1], spread.wire_bytes.counts[BYTES.len()]), (1, 1));
        assert_eq!(spread.wire_bytes.count(), 2);
    }

    #[test]
    fn bounds_rise() {
        assert!(SECONDS.is_sorted() && BYTES.is_sorted());
    }
}
