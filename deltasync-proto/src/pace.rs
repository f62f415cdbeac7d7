//! How often something may begin: a bucket of tokens as one point in time.
//!
//! Each beginning moves that point on by one interval; it may run ahead of the clock by as many intervals as the burst
//! has. So nothing ticks, and an idle bucket is full again without anybody looking at it.
//!
//! Invariant: in any span of time t, at most `burst + t * per_second` things begin.
//!
//! Source: the generic cell rate algorithm, ITU-T I.371.

use core::time::Duration;

use crate::Timestamp;

/// So many a second in the long run, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many a second, at least 1.
    pub per_second: u32,
    /// How many at once after a quiet time, at least 1.
    pub burst: u32,
}

impl Rate {
    /// So many a second, and twice as many at once.
    pub const fn of(per_second: u32) -> Self {
        Self { per_second, burst: per_second.saturating_mul(2) }
    }

    fn interval(self) -> u64 {
        1_000_000_000 / u64::from(self.per_second.max(1))
    }
}

/// Counts beginnings against a [`Rate`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// When the bucket is full again.
    full: Timestamp,
}

impl Pace {
    /// Counts one that begins now, whether it was due or not.
    pub fn count(&mut self, rate: Rate, now: Timestamp) {
        self.full = self.full.max(now).after(Duration::from_nanos(rate.interval()));
    }

    /// When the next may begin; not later than `now` when it may at once.
    pub fn next(&self, rate: Rate) -> Timestamp {
        let ahead = rate.interval().saturating_mul(u64::from(rate.burst.max(1) - 1));
        Timestamp::new(self.full.get().saturating_sub(ahead))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn check_rate(rate: Rate, waits: &[u64]) {
        let (mut pace, mut now, mut begun) = (Pace::default(), 0u64, Vec::new());
        for wait in waits {
            now += wait;
            if pace.next(rate).get() <= now {
                pace.count(rate, Timestamp::new(now));
                begun.push(now);
            }
        }
        for (i, from) in begun.iter().enumerate() {
            for (j, to) in begun.iter().enumerate().skip(i) {
                let earned = (to - from) / rate.interval();
                assert!((j - i + 1) as u64 <= earned + u64::from(rate.burst.max(1)), "{from} to {to}: {}", j - i + 1);
            }
        }
    }

    #[test]
    fn a_burst_passes_at_once_and_then_one_each_interval() {
        let rate = Rate { per_second: 10, burst: 3 };
        let mut pace = Pace::default();
        let at = |ms: u64| Timestamp::new(ms * 1_000_000);
        for _ in 0..3 {
            assert!(pace.next(rate) <= at(5000));
            pace.count(rate, at(5000));
        }
        assert_eq!(pace.next(rate), at(5100));
        pace.count(rate, at(5100));
        assert_eq!(pace.next(rate), at(5200));
        check_rate(rate, &[0; 10]);
    }

    proptest! {
        #[test]
        fn no_span_has_more_than_its_rate(
            per_second in 1u32..2000, burst in 0u32..20, waits in prop::collection::vec(0u64..30_000_000, 0..120),
        ) {
            check_rate(Rate { per_second, burst }, &waits);
        }
    }
}
