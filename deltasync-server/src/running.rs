//! One running transfer as the server sees it, and how fast it moves.

use std::time::Duration;

use deltasync_core::{BlockMap, ByteLen, Placed};
use deltasync_proto::{Phase, Progress, Verb};

use crate::{BlockState, Moved};

/// A rate is measured over spans of at least this long.
const RATE_SPAN: Duration = Duration::from_millis(250);
/// What has not moved for so long has no rate.
const RATE_STALE: Duration = Duration::from_secs(3);

/// In how many cells a target is shown.
pub(crate) const CELLS: usize = 200;

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) verb: Verb,
    pub(crate) path: String,
    pub(crate) phase: Phase,
    pub(crate) since: Duration,
    pub(crate) progress: Progress,
    /// The most bytes of the target that were ever done: what the meter has counted.
    pub(crate) counted: u64,
    /// The most that were ever taken from the basis.
    pub(crate) counted_copied: u64,
    rate: Rate,
    /// It is kept where in the target its bytes come from.
    mapped: bool,
    /// That, once something is known of it.
    map: Option<BlockMap>,
    pub(crate) repairs: u32,
    pub(crate) restarts: u32,
}

impl Running {
    /// A transfer that starts now; `mapped` when it is kept where in the target its bytes come from.
    pub(crate) fn new(now: Duration, verb: Verb, path: String, mapped: bool) -> Self {
        Self {
            verb,
            path,
            phase: Phase::Waiting,
            since: now,
            progress: Progress::default(),
            counted: 0,
            counted_copied: 0,
            rate: Rate { mark: now, done: 0, rate: 0.0 },
            mapped,
            map: None,
            repairs: 0,
            restarts: 0,
        }
    }

    /// It starts over because its source changed.
    pub(crate) fn restart(&mut self) {
        self.restarts = self.restarts.saturating_add(1);
        self.progress = Progress::default();
        self.map = None;
    }

    /// Ranges of the target, of so many bytes in all, have come from here or there.
    pub(crate) fn place(&mut self, total: ByteLen, ranges: &[Placed]) {
        if !self.mapped {
            return;
        }
        let map = BlockMap::kept_in(&mut self.map, total, CELLS);
        ranges.iter().for_each(|range| map.place(range));
    }

    /// Where in the target its bytes come from; nothing while that is not known.
    pub(crate) fn blocks(&self) -> Vec<BlockState> {
        let runs = self.map.as_ref().map(BlockMap::runs).unwrap_or_default();
        runs.iter().map(|run| BlockState { len: run.len.get(), origin: run.origin.name().to_owned() }).collect()
    }

    /// It is this far now; returns what of the target is done for the first time.
    pub(crate) fn advance(&mut self, now: Duration, progress: Progress) -> Moved {
        self.progress = progress;
        let copied = progress.copied.get();
        let done = progress.copied.get().saturating_add(progress.literal.get());
        self.rate.update(now, done);
        let file = done.saturating_sub(self.counted);
        let more = Moved { file, copied: copied.saturating_sub(self.counted_copied), ..Moved::default() };
        self.counted = self.counted.max(done);
        self.counted_copied = self.counted_copied.max(copied);
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
    use deltasync_core::{ByteLen, Offset};

    use super::*;

    fn progress(copied: u64, literal: u64) -> Progress {
        let len = ByteLen::new;
        Progress { total: len(1 << 30), copied: len(copied), literal: len(literal), wire: len(literal) }
    }

    #[test]
    fn a_steady_transfer_shows_its_rate_and_a_stalled_one_none() {
        let mut running = Running::new(Duration::ZERO, Verb::Push, "a".to_owned(), false);
        for tenth in 1..=50u64 {
            running.advance(Duration::from_millis(100 * tenth), progress(900_000 * tenth, 100_000 * tenth));
        }
        let rate = running.rate(Duration::from_secs(5));
        assert!((9_900_000..=10_100_000).contains(&rate), "{rate}");
        assert_eq!(running.rate(Duration::from_secs(9)), 0);
    }

    #[test]
    fn bytes_done_again_after_a_restart_are_counted_once() {
        let mut running = Running::new(Duration::ZERO, Verb::Pull, "a".to_owned(), false);
        let at = Duration::from_secs;
        let more = |running: &mut Running, now, copied, literal| {
            let more = running.advance(at(now), progress(copied, literal));
            (more.file, more.copied)
        };
        assert_eq!(more(&mut running, 1, 50, 10), (60, 50));
        running.restart();
        assert_eq!(more(&mut running, 2, 20, 0), (0, 0));
        assert_eq!(more(&mut running, 3, 60, 10), (10, 10));
        assert_eq!(running.restarts, 1);
    }

    #[test]
    fn ranges_are_shown_as_they_are_told_and_forgotten_at_a_restart() {
        let range = |at, len, copied| {
            let len_of = ByteLen::new;
            Placed { at: Offset::new(at), len: len_of(len), copied: len_of(copied) }
        };
        let told = |running: &Running| -> Vec<(u64, String)> {
            running.blocks().into_iter().map(|block| (block.len, block.origin)).collect()
        };
        let at = Duration::from_secs(1);
        let (half, total) = (1 << 29, ByteLen::new(1 << 30));
        let mut running = Running::new(at, Verb::Push, "a".to_owned(), true);
        running.place(total, &[range(0, half, half)]);
        assert_eq!(told(&running), [(half, "copied".to_owned()), (half, "missing".to_owned())]);
        running.advance(at, progress(half, 0));
        running.place(total, &[range(half, half, 0)]);
        assert_eq!(told(&running), [(half, "copied".to_owned()), (half, "sent".to_owned())]);
        running.restart();
        assert_eq!(told(&running), []);
        running.advance(at, progress(half, 0));
        assert_eq!(told(&running), [], "nothing is known of it");
        let mut unmapped = Running::new(at, Verb::Push, "a".to_owned(), false);
        unmapped.place(total, &[range(0, half, half)]);
        assert_eq!(told(&unmapped), []);
    }
}
