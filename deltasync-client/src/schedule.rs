//! When a watched directory is pushed.
//!
//! A notice of a change says only that there is something to compare, so all that is decided here is the moment of the
//! next push. It is at the start; when nothing has changed for [`WatchOptions::settle`], since files tend to change many
//! at a time; but no later than [`UNSETTLED`] times that after the first change, so that a file that is always written
//! holds up no other; when [`WatchOptions::every`] has passed, should a notice have been lost; and some time after a push
//! that has failed. What changes during a push leads to another one. Where a push takes longer than changes may wait, they
//! may wait as long as that, so that at most half of the time is spent on pushes.
//!
//! Times are spans since the watch began; nothing here looks at a clock.
//!
//! Invariant: a change that was told is followed by the begin of a push, and while none runs there is always a moment at
//! which the next one is due.

use std::time::Duration;

use crate::Retries;

/// How many times the settling time a change waits at most while others follow.
const UNSETTLED: u32 = 10;
/// The longest first wait after a push that has failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How far apart pushes are at most where no changes are told.
const UNTOLD: Duration = Duration::from_secs(15);

/// When a watched directory is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// How long nothing must have changed before what has is pushed (default 200 ms). While changes follow each other they
    /// wait ten times as long at most.
    pub settle: Duration,
    /// After which time the trees are compared though no change was told (default 5 minutes); where the system tells of
    /// none, after 15 s at most.
    pub every: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { settle: Duration::from_millis(200), every: Duration::from_secs(300) }
    }
}

/// Decides when the next push begins.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    options: WatchOptions,
    /// What was told since the last push began.
    changes: Option<Changes>,
    state: State,
    /// How long the last push took.
    took: Duration,
    /// How many have failed in a row.
    failures: u32,
}

/// The first and the last of changes that wait for a push.
#[derive(Clone, Copy, Debug)]
struct Changes {
    first: Duration,
    last: Duration,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The next push is due then, changes or not.
    Waiting { next: Duration },
    /// A push runs, since then.
    Pushing { since: Duration },
}

impl Schedule {
    /// The first push is due at once.
    pub(crate) fn new(options: WatchOptions) -> Self {
        let state = State::Waiting { next: Duration::ZERO };
        Self { options, changes: None, state, took: Duration::ZERO, failures: 0 }
    }

    /// No more changes are told; the answer is how far apart pushes are from now on.
    pub(crate) fn untold(&mut self, now: Duration) -> Duration {
        self.options.every = self.options.every.min(UNTOLD);
        if let State::Waiting { next } = &mut self.state {
            *next = (*next).min(now + self.options.every);
        }
        self.options.every
    }

    /// A change was told.
    pub(crate) fn changed(&mut self, now: Duration) {
        self.changes.get_or_insert(Changes { first: now, last: now }).last = now;
    }

    /// When the next push is due; `None` while one runs.
    pub(crate) fn due(&self) -> Option<Duration> {
        let State::Waiting { next } = self.state else { return None };
        let settled = |Changes { first, last }| {
            let longest = self.options.settle.saturating_mul(UNSETTLED).max(self.took);
            (last + self.options.settle).min(first + longest)
        };
        Some(self.changes.map_or(next, |changes| next.min(settled(changes))))
    }

    /// A push begins: it will see all that was told.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.changes = None;
        self.state = State::Pushing { since: now };
    }

    /// The push has ended, and made all equal or not; `random` is any number.
    pub(crate) fn end(&mut self, now: Duration, all: bool, random: u64) {
        if let State::Pushing { since } = self.state {
            self.took = now.saturating_sub(since);
        }
        // What changed meanwhile has not waited yet.
        if let Some(changes) = &mut self.changes {
            changes.first = now;
        }
        self.failures = if all { 0 } else { self.failures.saturating_add(1) };
        let every = self.options.every;
        let wait = match self.failures {
            0 => every,
            failures => {
                let retries = Retries { most: Retries::ENDLESS, first: AFTER_FAILURE, longest: every };
                retries.wait(failures, random)
            }
        };
        self.state = State::Waiting { next: now + wait };
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// After a first push from 0 to 1 s.
    fn pushed() -> Schedule {
        let mut schedule = Schedule::new(WatchOptions { settle: ms(200), every: ms(60_000) });
        assert_eq!(schedule.due(), Some(ms(0)), "the trees are compared at the start");
        schedule.begin(ms(0));
        assert_eq!(schedule.due(), None);
        schedule.end(ms(1000), true, 0);
        schedule
    }

    #[test]
    fn a_change_is_pushed_when_it_has_settled() {
        let mut schedule = pushed();
        assert_eq!(schedule.due(), Some(ms(61_000)), "without a change it is compared now and then");
        schedule.changed(ms(5000));
        assert_eq!(schedule.due(), Some(ms(5200)));
        schedule.changed(ms(5150));
        assert_eq!(schedule.due(), Some(ms(5350)));
        schedule.begin(ms(5350));
        schedule.end(ms(5400), true, 0);
        assert_eq!(schedule.due(), Some(ms(65_400)));
    }

    #[test]
    fn what_changes_all_the_time_does_not_starve_the_rest() {
        let mut schedule = pushed();
        (5000..7000).step_by(100).for_each(|now| schedule.changed(ms(now)));
        assert_eq!(schedule.due(), Some(ms(7000)), "ten times the settling time after the first");
    }

    #[test]
    fn changes_wait_as_long_as_a_push_takes() {
        let mut schedule = pushed();
        schedule.begin(ms(2000));
        schedule.changed(ms(3000));
        schedule.end(ms(12_000), true, 0);
        assert_eq!(schedule.due(), Some(ms(3200)), "it has settled long ago");
        (12_000..30_000).step_by(100).for_each(|now| schedule.changed(ms(now)));
        assert_eq!(schedule.due(), Some(ms(22_000)), "but while it goes on, half of the time is enough");
    }

    #[test]
    fn a_change_during_a_push_leads_to_another_one() {
        let mut schedule = pushed();
        schedule.begin(ms(2000));
        schedule.changed(ms(2950));
        schedule.end(ms(3000), true, 0);
        assert_eq!(schedule.due(), Some(ms(3150)));
    }

    #[test]
    fn a_push_that_failed_is_tried_again_later_and_later_and_at_once_after_a_change() {
        let mut schedule = pushed();
        let mut now = ms(10_000);
        let mut waits = Vec::new();
        for _ in 0..8 {
            schedule.begin(now);
            schedule.end(now, false, u64::MAX);
            waits.push((schedule.due().expect("none runs") - now).as_secs());
            now += ms(100_000);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        schedule.begin(now);
        schedule.end(now, false, u64::MAX);
        schedule.changed(now);
        assert_eq!(schedule.due(), Some(now + ms(200)));
        schedule.begin(now);
        schedule.end(now, true, 0);
        assert_eq!(schedule.due(), Some(now + ms(60_000)), "and that is forgotten");
    }

    #[test]
    fn where_no_change_is_told_it_is_compared_more_often() {
        let mut schedule = pushed();
        assert_eq!(schedule.untold(ms(2000)), UNTOLD);
        assert_eq!(schedule.due(), Some(ms(17_000)));
        schedule.begin(ms(17_000));
        schedule.end(ms(18_000), true, 0);
        assert_eq!(schedule.due(), Some(ms(33_000)));
        let mut often = Schedule::new(WatchOptions { every: ms(3000), ..WatchOptions::default() });
        assert_eq!(often.untold(ms(0)), ms(3000));
        assert_eq!(often.due(), Some(ms(0)));
    }

    /// Whatever happens, each change is seen by a push that begins in time.
    fn check_no_change_is_lost(steps: &[(u64, u8)]) {
        let options = WatchOptions { settle: ms(200), every: ms(60_000) };
        let mut schedule = Schedule::new(options);
        let (mut now, mut unseen, mut longest) = (ms(0), None, ms(2000));
        let mut pushing: Option<Duration> = None;
        for (wait, what) in steps {
            let then = now + ms(*wait);
            if let Some(due) = schedule.due().filter(|due| *due <= then) {
                now = due.max(now);
                schedule.begin(now);
                assert!(unseen.is_none_or(|since| now <= since + longest), "{steps:?}: at {now:?} since {unseen:?}");
                (pushing, unseen) = (Some(now), None);
            }
            now = then.max(now);
            match (what, pushing) {
                (0..=1, _) => {
                    schedule.changed(now);
                    unseen.get_or_insert(now);
                }
                (_, Some(since)) => {
                    longest = longest.max(now - since).max(ms(2000));
                    schedule.end(now, what % 2 == 0, u64::from(*what) << 56);
                    pushing = None;
                    unseen = unseen.map(|_| now);
                }
                _ => {}
            }
            assert_eq!(schedule.due().is_none(), pushing.is_some(), "{steps:?}");
            assert!(schedule.due().is_none_or(|due| due <= now + options.every), "{steps:?}");
        }
    }

    proptest! {
        #[test]
        fn no_change_is_lost(steps in vec((0_u64..3000, 0_u8..5), 0..60)) {
            check_no_change_is_lost(&steps);
        }
    }
}
