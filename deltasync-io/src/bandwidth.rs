//! How many bytes a connection may carry in a second: a bucket of tokens that both directions draw from.
//!
//! The bucket holds a twentieth of a second's bytes and is filled by nineteen twentieths in a second, so that no second,
//! wherever it begins, sees more than the rate. Bytes move when half of the bucket is there, not one by one as they drip.
//!
//! What we read counts like what we write: a peer whose bytes nobody reads stops sending when the buffers between us are
//! full, so in the long run it is held to the rate too.
//!
//! Invariant: in any span of time t, at most `rate / 20 + t * rate * 19 / 20` bytes move.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// Which part of a second's bytes the bucket holds.
const PART: u64 = 20;

/// How many bytes a connection may carry in a second, both ways together, the headers of TCP not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bandwidth(u64);

/// A rate at which a connection could not keep alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} bytes a second are too few to keep a connection alive: {} are the least", Bandwidth::LEAST)]
pub struct BandwidthTooLow {
    /// What was asked for, in bytes a second.
    pub asked: u64,
}

impl Bandwidth {
    /// The lowest rate, in bytes a second: 32 KiB.
    ///
    /// A peer gives a connection up that it hears nothing of for 30 s, and one of whose transfers it hears nothing. Who
    /// receives speaks when it has used up 256 KiB of a transfer, and a frame may be 512 KiB: 16 s. For the same reason not
    /// more than one transfer may run for each of these units, see [`Bandwidth::transfers`].
    pub const LEAST: Self = Self(32 << 10);

    /// This many bytes a second.
    ///
    /// # Errors
    ///
    /// [`BandwidthTooLow`] below [`Bandwidth::LEAST`].
    pub fn new(bytes: u64) -> Result<Self, BandwidthTooLow> {
        if bytes < Self::LEAST.0 { Err(BandwidthTooLow { asked: bytes }) } else { Ok(Self(bytes)) }
    }

    /// In bytes a second.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// How many transfers may share it, so that none is silent for too long.
    pub fn transfers(self) -> usize {
        usize::try_from(self.0 / Self::LEAST.0).unwrap_or(usize::MAX)
    }

    /// The tokens that the bucket holds.
    fn most(self) -> u64 {
        self.0 / PART
    }

    /// The tokens that fill it in a second.
    fn refill(self) -> u64 {
        self.0 - self.most()
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The tokens of one connection.
#[derive(Debug)]
pub(crate) struct Bucket {
    bandwidth: Bandwidth,
    /// When it was full, or will be.
    full: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(bandwidth: Bandwidth, now: Instant) -> Self {
        Self { bandwidth, full: now }
    }

    /// How many bytes may move now, at least one.
    ///
    /// # Errors
    ///
    /// When there are too few, the moment at which there are enough.
    pub(crate) fn room(&self, now: Instant) -> Result<usize, Instant> {
        let lacking = self.full.saturating_duration_since(now);
        let half = self.time_of(self.bandwidth.most() / 2);
        if lacking > half {
            return Err(self.full - half);
        }
        let lacking = lacking.as_nanos() * u128::from(self.bandwidth.refill()) / NANOS;
        let room = u128::from(self.bandwidth.most()).saturating_sub(lacking + 1);
        Ok(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// So many bytes have moved.
    pub(crate) fn take(&mut self, now: Instant, bytes: usize) {
        self.full = self.full.max(now) + self.time_of(bytes as u64);
    }

    /// How long so many tokens take to come.
    fn time_of(&self, bytes: u64) -> Duration {
        let nanos = (u128::from(bytes) * NANOS).div_ceil(u128::from(self.bandwidth.refill()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Nanoseconds in a second.
const NANOS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Bytes that move as soon as they may, some at a time, after pauses. No second sees more than the rate.
    fn check_no_second_sees_more(bytes: u64, steps: &[(u64, usize)]) {
        let bandwidth = Bandwidth::new(bytes).expect("enough");
        let start = Instant::now();
        let mut bucket = Bucket::new(bandwidth, start);
        let (mut now, mut moved) = (start, Vec::new());
        for (pause, share) in steps {
            now += Duration::from_micros(*pause);
            let room = bucket.room(now).or_else(|then| {
                now = then;
                bucket.room(now)
            });
            let room = room.unwrap_or_else(|then| panic!("{then:?} is not enough at {now:?}"));
            assert!(room > 0);
            let len = (room * share / 100).max(1);
            bucket.take(now, len);
            moved.push((now, len));
        }
        for (i, (from, _)) in moved.iter().enumerate() {
            let within = moved[i..].iter().take_while(|(at, _)| *at < *from + Duration::from_secs(1));
            let sum: u64 = within.map(|(_, len)| *len as u64).sum();
            assert!(sum <= bytes, "{sum} of {bytes} bytes within a second");
        }
    }

    #[test]
    fn what_moves_all_the_time_moves_at_the_rate() {
        for bytes in [32 << 10, 1 << 20, 10_000_000_000] {
            let bandwidth = Bandwidth::new(bytes).expect("enough");
            let start = Instant::now();
            let mut bucket = Bucket::new(bandwidth, start);
            let (mut now, mut moved) = (start, 0);
            while now < start + Duration::from_secs(10) {
                match bucket.room(now) {
                    Ok(room) => {
                        bucket.take(now, room);
                        moved += room as u64;
                    }
                    Err(then) => now = then,
                }
            }
            let expected = bytes * 10 * 19 / 20;
            assert!((expected..expected + bytes / 10).contains(&moved), "{moved} of {expected}");
        }
        check_no_second_sees_more(100_000, &[(0, 100); 100]);
    }

    #[test]
    fn a_rate_that_cannot_work_is_refused() {
        assert_eq!(Bandwidth::new(0), Err(BandwidthTooLow { asked: 0 }));
        assert_eq!(Bandwidth::new(32_767), Err(BandwidthTooLow { asked: 32_767 }));
        assert_eq!(Bandwidth::new(32_768), Ok(Bandwidth::LEAST));
        assert_eq!(Bandwidth::LEAST.transfers(), 1);
        let said = BandwidthTooLow { asked: 7 }.to_string();
        assert_eq!(said, "7 bytes a second are too few to keep a connection alive: 32768 are the least");
        assert!(Bucket::new(Bandwidth::new(u64::MAX).expect("enough"), Instant::now()).room(Instant::now()).is_ok());
    }

    proptest! {
        #[test]
        fn no_second_sees_more_than_the_rate(
            bytes in (32_u64 << 10)..100_000_000, steps in vec((0_u64..100_000, 1_usize..=100), 1..200),
        ) {
            check_no_second_sees_more(bytes, &steps);
        }
    }
}
