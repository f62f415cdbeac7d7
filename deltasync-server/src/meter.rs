//! Throughput over the last minutes: how many bytes each second moved, of files and on the wire.
//!
//! Bytes are added to the second that runs; when it is over, its count becomes a sample. Seconds in which nobody called
//! are filled with zeros. A sample costs 16 bytes, and there are at most [`SAMPLES`].

use std::collections::VecDeque;
use std::time::Duration;

use crate::Throughput;

/// How many seconds are kept: five minutes.
pub(crate) const SAMPLES: usize = 300;

#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// The second that runs, counted from the start.
    second: u64,
    file: u64,
    wire: u64,
    samples: VecDeque<(u64, u64)>,
}

impl Meter {
    /// Counts bytes into the second of `now`.
    pub(crate) fn add(&mut self, now: Duration, file: u64, wire: u64) {
        self.tick(now);
        self.file = self.file.saturating_add(file);
        self.wire = self.wire.saturating_add(wire);
    }

    /// Closes the seconds that are over; true when one was.
    pub(crate) fn tick(&mut self, now: Duration) -> bool {
        let over = now.as_secs().saturating_sub(self.second);
        for _ in 0..over.min(SAMPLES as u64 + 1) {
            self.samples.push_back((std::mem::take(&mut self.file), std::mem::take(&mut self.wire)));
        }
        let excess = self.samples.len().saturating_sub(SAMPLES);
        self.samples.drain(..excess);
        self.second = self.second.max(now.as_secs());
        over > 0
    }

    /// The samples, oldest first.
    pub(crate) fn throughput(&self) -> Throughput {
        let (file, wire) = self.samples.iter().copied().unzip();
        Throughput { interval_ms: 1000, file, wire }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quiet_time_is_filled_with_zeros() {
        let mut meter = Meter::default();
        meter.add(Duration::from_millis(200), 5, 1);
        meter.add(Duration::from_millis(900), 5, 1);
        assert!(meter.tick(Duration::from_millis(3_100)));
        assert!(!meter.tick(Duration::from_millis(3_900)));
        let Throughput { file, wire, .. } = meter.throughput();
        assert_eq!((file, wire), (vec![10, 0, 0], vec![2, 0, 0]));
        meter.tick(Duration::from_secs(u64::MAX));
        assert_eq!(meter.throughput().file, vec![0; SAMPLES]);
    }

    proptest! {
        #[test]
        fn every_byte_is_in_one_sample(steps in prop::collection::vec((0u64..3_000, 0u64..100), 0..80)) {
            let mut meter = Meter::default();
            let mut at = 0;
            for &(wait, bytes) in &steps {
                at += wait;
                meter.add(Duration::from_millis(at), bytes, 2 * bytes);
            }
            meter.tick(Duration::from_millis(at + 1_000));
            let Throughput { file, wire, .. } = meter.throughput();
            prop_assert_eq!(file.iter().sum::<u64>(), steps.iter().map(|&(_, bytes)| bytes).sum::<u64>());
            prop_assert_eq!(wire.iter().sum::<u64>(), 2 * file.iter().sum::<u64>());
            prop_assert_eq!(file.len() as u64, (at + 1_000) / 1_000);
        }
    }
}
