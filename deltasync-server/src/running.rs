//! One running transfer as the server sees it, and how fast it moves.

use std::time::Duration;

use deltasync_proto::{Phase, Progress, Verb};

/// A rate is measured over spans of at least this long.
const RATE_SPAN: Duration = Duration::from_millis(250);
/// What has not moved for so long has no rate.
const RATE_STALE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) verb: Verb,
    pub(crate) path: String,
    pub(crate) phase: Phase,
    pub(crate) since: Duration,
    pub(crate) progress: Progress,
    /// The most bytes of the target that were ever done: what the meter has counted.
    pub(crate) counted: u64,
    rate: Rate,
    pub(crate) repairs: u32,
    pub(crate) restarts: u32,
}

impl Running {
    /// A transfer that starts now.
    pub(crate) fn new(now: Duration, verb: Verb, path: String) -> Self {
        Self {
            verb,
            path,
            phase: Phase::Waiting,
            since: now,
            progress: Progress::default(),
            counted: 0,
            rate: Rate { mark: now, done: 0, rate: 0.0 },
            repairs: 0,
            restarts: 0,
        }
    }

    /// It starts over because its source changed.
    pub(crate) fn restart(&mut self) {
        self.restarts = self.restarts.saturating_add(1);
        self.progress = Progress::default();
    }

    /// It is this far now; returns how many bytes of the target are done for the first time.
    pub(crate) fn advance(&mut self, now: Duration, progress: Progress) -> u64 {
        self.progress = progress;
        let done = progress.copied.get().saturating_add(progress.literal.get());
        self.rate.update(now, done);
        let more = done.saturating_sub(self.counted);
        self.counted = self.counted.max(done);
        more
    }

    /// Bytes of the target a second, lately.
    pub(crate) fn rate(&self, now: Duration) -> u64 {
        self.rate.at(now)
    }
}

/// Bytes a second of late, smoothed.
#[derive(Debug)]
struct Rate {
    mark: Duration,
    done: u64,
    rate: f64,
}

impl Rate {
    fn update(&mut self, now: Duration, done: u64) {
        let span = now.saturating_sub(self.mark);
        if done < self.done {
            *self = Self { mark: now, done, rate: self.rate };
        } else if span >= RATE_SPAN {
            let lately = (done - self.done) as f64 / span.as_secs_f64();
            // A long span tells enough by itself.
            let weight = if self.rate == 0.0 { 1.0 } else { (span.as_secs_f64() / 2.0).clamp(0.2, 1.0) };
            *self = Self { mark: now, done, rate: self.rate + weight * (lately - self.rate) };
        }
    }

    fn at(&self, now: Duration) -> u64 {
        if now.saturating_sub(self.mark) > RATE_STALE { 0 } else { self.rate as u64 }
    }
}

#[cfg(test)]
mod tests {
    use deltasync_core::ByteLen;

    use super::*;

    fn progress(copied: u64, literal: u64) -> Progress {
        let len = ByteLen::new;
        Progress { total: len(1 << 30), copied: len(copied), literal: len(literal), wire: len(literal) }
    }

    #[test]
    fn a_steady_transfer_shows_its_rate_and_a_stalled_one_none() {
        let mut running = Running::new(Duration::ZERO, Verb::Push, "a".to_owned());
        for tenth in 1..=50u64 {
            running.advance(Duration::from_millis(100 * tenth), progress(900_000 * tenth, 100_000 * tenth));
        }
        let rate = running.rate(Duration::from_secs(5));
        assert!((9_900_000..=10_100_000).contains(&rate), "{rate}");
        assert_eq!(running.rate(Duration::from_secs(9)), 0);
    }

    #[test]
    fn bytes_done_again_after_a_restart_are_counted_once() {
        let mut running = Running::new(Duration::ZERO, Verb::Pull, "a".to_owned());
        let at = Duration::from_secs;
        assert_eq!(running.advance(at(1), progress(50, 10)), 60);
        running.restart();
        assert_eq!(running.advance(at(2), progress(20, 0)), 0);
        assert_eq!(running.advance(at(3), progress(60, 10)), 10);
        assert_eq!(running.restarts, 1);
    }
}
