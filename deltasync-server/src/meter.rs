//! How much moved lately: bytes of files and on the wire, in slots of a second, a minute and a quarter of an hour.
//!
//! Bytes are added to the slots that run; when one is over, its count becomes a sample. Slots in which nobody called are
//! filled with zeros. A sample costs 40 bytes, and there are at most [`SAMPLES`] + [`MINUTES`] + [`QUARTERS`]. Minutes and
//! quarters are those of the clock, so that they can be kept over a restart.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{Moved, Savings, Throughput};

/// How many seconds are kept: five minutes.
pub(crate) const SAMPLES: usize = 300;
/// How many minutes are kept: an hour.
const MINUTES: usize = 60;
/// How many quarters of an hour are kept: a day.
const QUARTERS: usize = 96;

#[derive(Debug)]
pub(crate) struct Meter {
    seconds: Slots,
    minutes: Slots,
    quarters: Slots,
}

/// What of a meter outlives a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptMeter {
    minutes: KeptSlots,
    quarters: KeptSlots,
}

/// The samples of one length, oldest first, and of which slot since 1970 the last one is, which still ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct KeptSlots {
    slot: u64,
    samples: Vec<Moved>,
}

impl Meter {
    /// One that begins now; times are in milliseconds since 1970.
    pub(crate) fn new(now: u64) -> Self {
        let slots = |interval, most| Slots::new(interval, most, now);
        Self { seconds: slots(1_000, SAMPLES), minutes: slots(60_000, MINUTES), quarters: slots(900_000, QUARTERS) }
    }

    /// Counts into the slots of `now`.
    pub(crate) fn add(&mut self, now: u64, more: Moved) {
        self.each().into_iter().for_each(|slots| slots.add(now, more));
    }

    /// Closes the slots that are over; true when a second was.
    pub(crate) fn tick(&mut self, now: u64) -> bool {
        self.each().map(|slots| slots.tick(now))[0]
    }

    /// The seconds that are over, oldest first.
    pub(crate) fn throughput(&self) -> Throughput {
        self.seconds.throughput()
    }

    /// The minutes of the last hour that are over.
    pub(crate) fn hour(&self) -> Throughput {
        self.minutes.throughput()
    }

    /// The quarters of the last day that are over.
    pub(crate) fn day(&self) -> Throughput {
        self.quarters.throughput()
    }

    /// The sums of the last minute, hour and day, what runs among them.
    pub(crate) fn savings(&self) -> Savings {
        Savings { minute: self.seconds.last(60), hour: self.minutes.last(MINUTES), day: self.quarters.last(QUARTERS) }
    }

    /// What is to be kept.
    pub(crate) fn keep(&self) -> KeptMeter {
        KeptMeter { minutes: self.minutes.keep(), quarters: self.quarters.keep() }
    }

    /// Goes on from what was kept, before anything is counted. What is from the future, since a clock was set back, is left out.
    pub(crate) fn restore(&mut self, kept: KeptMeter) {
        self.minutes.restore(kept.minutes);
        self.quarters.restore(kept.quarters);
    }

    fn each(&mut self) -> [&mut Slots; 3] {
        [&mut self.seconds, &mut self.minutes, &mut self.quarters]
    }
}

/// The last so many slots of one length.
#[derive(Debug)]
struct Slots {
    /// In milliseconds.
    interval: u64,
    most: usize,
    /// The one that runs, counted from 1970.
    slot: u64,
    running: Moved,
    over: VecDeque<Moved>,
}

impl Slots {
    fn new(interval: u64, most: usize, now: u64) -> Self {
        Self { interval, most, slot: now / interval, running: Moved::default(), over: VecDeque::new() }
    }

    fn add(&mut self, now: u64, more: Moved) {
        self.tick(now);
        self.running = self.running.plus(more);
    }

    fn tick(&mut self, now: u64) -> bool {
        let slot = now / self.interval;
        let over = slot.saturating_sub(self.slot);
        for _ in 0..over.min(self.most as u64 + 1) {
            self.over.push_back(std::mem::take(&mut self.running));
        }
        self.over.drain(..self.over.len().saturating_sub(self.most));
        self.slot = self.slot.max(slot);
        over > 0
    }

    /// The sum of the last so many, that which runs among them.
    fn last(&self, most: usize) -> Moved {
        let over = self.over.iter().rev().take(most.saturating_sub(1));
        over.fold(self.running, |sum, &moved| sum.plus(moved))
    }

    fn throughput(&self) -> Throughput {
        let list = |pick: fn(&Moved) -> u64| self.over.iter().map(pick).collect();
        Throughput {
            interval_ms: u32::try_from(self.interval).unwrap_or(u32::MAX),
            file: list(|moved| moved.file),
            wire: list(|moved| moved.wire),
            copied: list(|moved| moved.copied),
        }
    }

    fn keep(&self) -> KeptSlots {
        KeptSlots { slot: self.slot, samples: self.over.iter().copied().chain([self.running]).collect() }
    }

    fn restore(&mut self, mut kept: KeptSlots) {
        let Some(running) = kept.samples.pop().filter(|_| kept.slot <= self.slot) else { return };
        let now = self.slot.saturating_mul(self.interval);
        (self.slot, self.running, self.over) = (kept.slot, running, kept.samples.into());
        self.tick(now);
        self.over.drain(..self.over.len().saturating_sub(self.most));
    }
}

impl Moved {
    /// Both together; sums for people stay at the greatest value rather than pass it.
    fn plus(self, other: Self) -> Self {
        Self {
            file: self.file.saturating_add(other.file),
            copied: self.copied.saturating_add(other.copied),
            wire: self.wire.saturating_add(other.wire),
            done: self.done.saturating_add(other.done),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(file: u64, wire: u64) -> Moved {
        Moved { file, wire, ..Moved::default() }
    }

    #[test]
    fn a_quiet_time_is_filled_with_zeros() {
        let mut meter = Meter::new(0);
        meter.add(200, bytes(5, 1));
        meter.add(900, bytes(5, 1));
        assert!(meter.tick(3_100));
        assert!(!meter.tick(3_900));
        let Throughput { file, wire, .. } = meter.throughput();
        assert_eq!((file, wire), (vec![10, 0, 0], vec![2, 0, 0]));
        meter.tick(u64::MAX);
        assert_eq!(meter.throughput().file, vec![0; SAMPLES]);
        assert_eq!(meter.savings(), Savings::default());
    }

    #[test]
    fn a_minute_an_hour_and_a_day_are_summed() {
        let (mut meter, minute) = (Meter::new(0), 60_000);
        for at in 0..=(48 * 60) {
            meter.add(at * minute, bytes(2, 1));
        }
        let Savings { minute, hour, day } = meter.savings();
        assert_eq!([minute.file, hour.file, day.file], [2, 120, 2 * (95 * 15 + 1)]);
        assert_eq!((meter.hour().interval_ms, meter.hour().wire), (60_000, vec![1; 60]));
        assert_eq!((meter.day().interval_ms, meter.day().wire), (900_000, vec![15; 96]));
    }

    #[test]
    fn what_was_kept_goes_on_where_it_was() {
        let (mut meter, minute) = (Meter::new(1_000), 60_000);
        (0..10).for_each(|at| meter.add(at * minute, bytes(7, 1)));
        let kept = meter.keep();
        let json = serde_json::to_string(&kept).expect("plain data");
        let mut next = Meter::new(12 * minute);
        next.restore(serde_json::from_str(&json).expect("the same"));
        next.add(12 * minute, bytes(1, 0));
        assert_eq!((next.savings().hour.file, next.savings().minute.file), (71, 1));
        assert_eq!(next.hour().file, [&[7; 10][..], &[0, 0]].concat());
        // A day later, nothing of it is new any more.
        let mut late = Meter::new(3_000 * minute);
        late.restore(kept.clone());
        assert_eq!(late.savings(), Savings::default());
        // A clock that was set back.
        let mut early = Meter::new(2 * minute);
        early.restore(kept);
        assert_eq!((early.savings().hour.file, early.hour().file.len()), (0, 0));
        // And more than there should be.
        let mut crammed = Meter::new(0);
        let slots = KeptSlots { slot: 0, samples: vec![Moved::default(); 9_999] };
        crammed.restore(KeptMeter { minutes: slots.clone(), quarters: slots });
        assert_eq!((crammed.hour().file.len(), crammed.day().file.len()), (MINUTES, QUARTERS));
    }

    proptest! {
        #[test]
        fn every_byte_is_in_one_sample(steps in prop::collection::vec((0u64..3_000, 0u64..100), 0..80)) {
            let mut meter = Meter::new(0);
            let mut at = 0;
            for &(wait, count) in &steps {
                at += wait;
                meter.add(at, bytes(count, 2 * count));
            }
            meter.tick(at + 1_000);
            let Throughput { file, wire, .. } = meter.throughput();
            prop_assert_eq!(file.iter().sum::<u64>(), steps.iter().map(|&(_, bytes)| bytes).sum::<u64>());
            prop_assert_eq!(wire.iter().sum::<u64>(), 2 * file.iter().sum::<u64>());
            prop_assert_eq!(file.len() as u64, (at + 1_000) / 1_000);
            prop_assert_eq!(meter.savings().day.file, file.iter().sum::<u64>());
        }
    }
}
