//! How fast a verb is and how long it will still take, told so that the time left never goes up.
//!
//! The rate is what was made within the last [`WINDOW`], so that it follows the link, and what is left divided by it is the
//! estimate. Told is the least estimate so far. While the estimate falls, what is told falls with it, faster or slower than
//! the clock; when it rises, what is told stands still, and once it is far from the truth it is called what it is: more than
//! that ([`TimeLeft::MoreThan`]). When nothing was made within the window there is no estimate ([`TimeLeft::Stalled`]). The
//! first comes after [`SETTLING`], since the first pieces of a transfer say little of it.
//!
//! What is made again, after a transfer has started over, counts once it gets further than ever before.
//!
//! Nothing here looks at a clock: times are spans since the verb began. Cost: one sample for each [`STEP`] of the window.
//!
//! Invariant: of two times that are told the later is not longer, and none is zero while something is left.

use std::collections::VecDeque;
use std::time::Duration;

use deltasync_core::ByteLen;
use deltasync_io::Walked;

/// How far back the rate looks.
const WINDOW: Duration = Duration::from_secs(5);
/// How far apart samples are at least.
const STEP: Duration = Duration::from_millis(250);
/// How long something has to move before it is told how long it takes.
const SETTLING: Duration = Duration::from_secs(1);
/// What is told may be wrong by half and by this.
const GRACE: Duration = Duration::from_secs(3);

/// How far a verb is with all its sources together, and how fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// The bytes of all targets, once they are known of each that has not failed.
    pub total: Option<ByteLen>,
    /// The bytes of them that were made or sent. Less than before where a transfer starts over.
    pub made: ByteLen,
    /// Sources, and files of trees that differ, as far as they are known.
    pub files: u64,
    /// Those of them that are done, or have failed.
    pub files_done: u64,
    /// What was looked at in trees at our end.
    pub looked: Walked,
    /// Bytes made a second, over the last five seconds.
    pub rate: u64,
    /// How long it will still take.
    pub left: TimeLeft,
}

/// How long something will still take. No time that is told is longer than one that was told before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeLeft {
    /// It cannot be said yet.
    #[default]
    Unknown,
    /// About so long, at this rate.
    About(Duration),
    /// Longer than was told before: it goes slower than it did.
    MoreThan(Duration),
    /// Nothing has been made for five seconds.
    Stalled,
}

/// Makes times left of what was made when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Estimator {
    /// What was made at which time: one sample from before the window, then those in it, the newest last.
    samples: VecDeque<(Duration, u64)>,
    total: Option<u64>,
    /// The most that was ever made, and since when.
    made: u64,
    moved: Duration,
    /// The least estimate so far.
    told: Option<Duration>,
}

impl Estimator {
    /// Takes in how much was made of how much, if that is known; `now` is the time since the verb began.
    pub(crate) fn update(&mut self, now: Duration, total: Option<u64>, made: u64) {
        self.total = total;
        if made > self.made {
            if self.samples.is_empty() {
                self.samples.push_back((now, self.made));
            }
            (self.made, self.moved) = (made, now);
        }
        self.sample(now);
    }

    /// Bytes a second over the window, and the time left.
    pub(crate) fn at(&mut self, now: Duration) -> (u64, TimeLeft) {
        self.sample(now);
        let Some((begun, before)) = self.samples.front().copied() else { return (0, TimeLeft::Unknown) };
        let (span, made) = (now.saturating_sub(begun), self.made - before);
        if now >= self.moved + WINDOW && self.total.is_none_or(|total| self.made < total) {
            return (0, self.total.map_or(TimeLeft::Unknown, |_| TimeLeft::Stalled));
        }
        let rate = made as f64 / span.max(STEP).as_secs_f64();
        let left = match self.total.map(|total| total.saturating_sub(self.made)) {
            None => TimeLeft::Unknown,
            Some(0) => TimeLeft::About(Duration::ZERO),
            Some(_) if made == 0 || span < SETTLING && self.told.is_none() => TimeLeft::Unknown,
            Some(left) => self.tell(left, rate),
        };
        (rate as u64, left)
    }

    fn tell(&mut self, left: u64, rate: f64) -> TimeLeft {
        // A century is no less than any time that is told.
        let estimate = Duration::try_from_secs_f64(left as f64 / rate).unwrap_or(Duration::MAX).min(CENTURY);
        let estimate = estimate.max(Duration::from_millis(1));
        let told = self.told.map_or(estimate, |told| told.min(estimate));
        self.told = Some(told);
        if estimate > told.saturating_mul(2).saturating_add(GRACE) {
            return TimeLeft::MoreThan(told);
        }
        TimeLeft::About(told)
    }

    fn sample(&mut self, now: Duration) {
        let Some((last, _)) = self.samples.back() else { return };
        if now < *last + STEP {
            return;
        }
        self.samples.push_back((now, self.made));
        let from = now.saturating_sub(WINDOW);
        while self.samples.len() > 1 && self.samples[1].0 <= from {
            self.samples.pop_front();
        }
    }
}

/// Longer than anybody waits.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Runs at `rate` bytes a second from `from` to `to`, an update each 100 ms; the last that is told.
    fn run(estimator: &mut Estimator, made: &mut u64, total: u64, rate: u64, from: u64, to: u64) -> (u64, TimeLeft) {
        for at in (from..=to).step_by(100) {
            *made = total.min(*made + rate / 10);
            estimator.update(ms(at), Some(total), *made);
        }
        estimator.at(ms(to))
    }

    #[test]
    fn at_an_even_rate_the_time_left_follows_the_clock() {
        let (mut estimator, mut made) = (Estimator::default(), 0);
        assert_eq!(estimator.at(ms(0)), (0, TimeLeft::Unknown));
        assert_eq!(run(&mut estimator, &mut made, 100 * MIB, MIB, 100, 500).1, TimeLeft::Unknown, "too early");
        run(&mut estimator, &mut made, 100 * MIB, MIB, 600, 1000);
        for second in 2..99 {
            let (rate, left) = run(&mut estimator, &mut made, 100 * MIB, MIB, (second - 1) * 1000 + 100, second * 1000);
            assert!(rate.abs_diff(MIB) < MIB / 4, "{second}: {rate}");
            let TimeLeft::About(left) = left else { panic!("{second}: {left:?}") };
            let expected = 100.0 - second as f64;
            assert!((left.as_secs_f64() - expected).abs() < 1.0 + expected / 4.0, "{second}: {left:?}");
        }
    }

    #[test]
    fn when_the_rate_collapses_the_time_stands_still_and_then_is_more_than_that() {
        let (mut estimator, mut made) = (Estimator::default(), 0);
        let (_, first) = run(&mut estimator, &mut made, 100 * MIB, 10 * MIB, 100, 5000);
        let TimeLeft::About(told) = first else { panic!("{first:?}") };
        let (rate, left) = run(&mut estimator, &mut made, 100 * MIB, MIB / 2, 5100, 15_000);
        assert!(rate < MIB, "{rate}");
        let TimeLeft::MoreThan(left) = left else { panic!("{left:?}") };
        assert!(left <= told && told - left < ms(1000), "{left:?} after {told:?}");
        assert_eq!(estimator.at(ms(17_000)).1, TimeLeft::MoreThan(left), "nothing has come for 2 s");
        assert_eq!(estimator.at(ms(20_500)), (0, TimeLeft::Stalled));
        // It recovers, and is told anew once it is less than ever.
        let (_, left) = run(&mut estimator, &mut made, 100 * MIB, 10 * MIB, 20_600, 24_000);
        assert!(matches!(left, TimeLeft::About(left) if left < told), "{left:?}");
    }

    #[test]
    fn what_is_all_there_takes_no_time_and_what_is_not_known_none_that_is_told() {
        let mut estimator = Estimator::default();
        estimator.update(ms(0), None, 10);
        estimator.update(ms(3000), None, 20);
        assert_eq!(estimator.at(ms(3000)).1, TimeLeft::Unknown);
        estimator.update(ms(3100), Some(20), 20);
        assert_eq!(estimator.at(ms(3100)).1, TimeLeft::About(Duration::ZERO));
    }

    #[test]
    fn what_is_made_again_moves_nothing() {
        let mut estimator = Estimator::default();
        for (at, made) in [(0, 0), (100, 500), (1200, 800), (1300, 0), (2000, 700), (7000, 790)] {
            estimator.update(ms(at), Some(1000), made);
        }
        assert_eq!(estimator.at(ms(7000)).1, TimeLeft::Stalled);
    }

    /// Whatever comes: no time is longer than one before, none is zero before the end, and `About` is no lie at the rate told.
    fn check_never_backwards(story: &[(u64, u64, bool)]) {
        let total: u64 = story.iter().map(|(_, made, _)| made).sum::<u64>() + 1;
        let (mut estimator, mut now, mut made) = (Estimator::default(), Duration::ZERO, 0);
        let mut before = Duration::MAX;
        for (millis, more, is_update) in story {
            now += ms(*millis);
            if *is_update {
                made += more;
                estimator.update(now, Some(total), made);
            }
            let (rate, left) = estimator.at(now);
            let told = match left {
                TimeLeft::About(told) => {
                    let honest = (total - made) as f64 / (rate + 1) as f64;
                    assert!(honest <= 2.0 * told.as_secs_f64() + 3.1, "{story:?} at {now:?}: {rate}, {left:?}");
                    told
                }
                TimeLeft::MoreThan(told) => told,
                TimeLeft::Unknown => continue,
                TimeLeft::Stalled => {
                    assert_eq!(rate, 0, "{story:?}");
                    continue;
                }
            };
            assert!(told > Duration::ZERO, "{story:?} at {now:?}: something is left");
            assert!(told <= before, "{story:?} at {now:?}: {told:?} after {before:?}");
            before = told;
            assert!(estimator.samples.len() <= 24, "{}", estimator.samples.len());
        }
    }

    proptest! {
        #[test]
        fn time_left_never_runs_backwards(story in vec((0_u64..3000, 0_u64..50_000_000, any::<bool>()), 1..60)) {
            check_never_backwards(&story);
        }

        #[test]
        fn nor_does_it_where_updates_come_often(story in vec((0_u64..40, 0_u64..100_000, any::<bool>()), 100..600)) {
            check_never_backwards(&story);
        }
    }
}
