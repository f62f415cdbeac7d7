//! Sums up how far all sources of a verb are, and tells it among the updates.
//!
//! Lengths of targets become known one by one; the total, and with it the time left, once all of them are. A
//! [`Pace`] is told at most every [`APART`], when it is another one than before, and at the end.

use std::time::{Duration, Instant};

use deltasync_core::ByteLen;
use deltasync_io::Walked;
use deltasync_proto::EventKind;

use crate::pace::Estimator;
use crate::{Pace, TreeProgress, Update};

/// How far apart two paces are told at least.
const APART: Duration = Duration::from_millis(200);

/// Passes updates on, and puts those on the pace among them.
pub(crate) struct Gauged<F> {
    gauge: Gauge,
    begun: Instant,
    /// When a pace was told last, and which.
    told: Option<(Duration, Pace)>,
    report: F,
}

impl<F: FnMut(Update)> Gauged<F> {
    /// For so many sources, from this moment on.
    pub(crate) fn new(sources: usize, begun: Instant, report: F) -> Self {
        Self { gauge: Gauge::new(sources), begun, told: None, report }
    }

    /// Takes in one update.
    pub(crate) fn update(&mut self, update: Update) {
        let now = self.begun.elapsed();
        self.gauge.update(now, &update);
        (self.report)(update);
        if self.told.is_none_or(|(told, _)| now >= told + APART) {
            self.tell(now);
        }
    }

    /// Tells what it has come to.
    pub(crate) fn finish(mut self) {
        self.tell(self.begun.elapsed());
    }

    fn tell(&mut self, now: Duration) {
        let pace = self.gauge.pace(now);
        if self.told.is_none_or(|(_, told)| told != pace) {
            self.told = Some((now, pace));
            (self.report)(Update::Pace(pace));
        }
    }
}

/// How far the sources of a verb are.
#[derive(Clone, Debug)]
struct Gauge {
    sources: Vec<Source>,
    estimator: Estimator,
}

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    total: Option<ByteLen>,
    made: ByteLen,
    ended: bool,
    /// It is a tree. Its own total and bytes are a part of this.
    tree: Option<TreeProgress>,
}

impl Gauge {
    fn new(sources: usize) -> Self {
        Self { sources: vec![Source::default(); sources], estimator: Estimator::default() }
    }

    fn update(&mut self, now: Duration, update: &Update) {
        match update {
            Update::File { index, kind } => {
                if let Some(source) = self.sources.get_mut(*index) {
                    source.take(kind);
                }
            }
            Update::Tree { index, progress } => {
                if let Some(source) = self.sources.get_mut(*index) {
                    source.tree = Some(*progress);
                }
            }
            _ => return,
        }
        let (total, made) = self.bytes();
        self.estimator.update(now, total, made);
    }

    fn pace(&mut self, now: Duration) -> Pace {
        let (total, made) = self.bytes();
        let (rate, left) = self.estimator.at(now);
        let mut pace = Pace { total: total.map(ByteLen::new), made: ByteLen::new(made), rate, left, ..Pace::default() };
        for source in &self.sources {
            let tree = source.tree.unwrap_or(TreeProgress {
                files: 1,
                files_done: source.ended.into(),
                ..TreeProgress::default()
            });
            pace.files += tree.files;
            pace.files_done += tree.files_done;
            let Walked { entries, len } = tree.looked;
            pace.looked.entries += entries;
            pace.looked.len += len;
        }
        pace
    }

    fn bytes(&self) -> (Option<u64>, u64) {
        let is_known = |source: &Source| source.total().is_some() || source.ended;
        let total = || self.sources.iter().filter_map(Source::total).map(ByteLen::get).sum();
        let made = self.sources.iter().map(|source| source.made().get()).sum();
        (self.sources.iter().all(is_known).then(total), made)
    }
}

impl Source {
    fn total(&self) -> Option<ByteLen> {
        self.tree.map_or(self.total, |tree| tree.total)
    }

    fn made(&self) -> ByteLen {
        self.tree.map_or(self.made, |tree| tree.made)
    }

    fn take(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Started { .. } | EventKind::Restarted => self.made = ByteLen::ZERO,
            EventKind::Progress(progress) => (self.total, self.made) = (Some(progress.total), progress.made()),
            EventKind::Ended(result) => {
                self.ended = true;
                if let Ok(outcome) = result {
                    (self.total, self.made) = (Some(outcome.len), outcome.len);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use deltasync_core::RelPath;
    use deltasync_proto::{Outcome, Progress, Verb};

    use super::*;
    use crate::TimeLeft;

    const LEN: fn(u64) -> ByteLen = ByteLen::new;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn made(index: usize, made: u64) -> Update {
        let progress = Progress { total: LEN(100), copied: LEN(made), ..Progress::default() };
        Update::File { index, kind: EventKind::Progress(progress) }
    }

    #[test]
    fn the_total_is_known_once_every_length_is() {
        let mut gauge = Gauge::new(2);
        gauge.update(s(0), &made(0, 40));
        assert_eq!((gauge.pace(s(0)).total, gauge.pace(s(0)).left), (None, TimeLeft::Unknown));
        gauge.update(s(2), &made(1, 40));
        let pace = gauge.pace(s(2));
        assert_eq!((pace.total, pace.made, pace.files, pace.files_done), (Some(LEN(200)), LEN(80), 2, 0));
        assert_eq!((pace.rate, pace.left), (40, TimeLeft::About(s(3))));
        gauge.update(s(3), &Update::File { index: 0, kind: EventKind::Ended(Ok(Outcome::default())) });
        assert_eq!(gauge.pace(s(3)).files_done, 1);
        gauge.update(s(3), &made(9, 1));
    }

    #[test]
    fn a_file_that_is_tried_again_starts_at_its_beginning() {
        let mut gauge = Gauge::new(1);
        gauge.update(s(0), &made(0, 40));
        let started = EventKind::Started { verb: Verb::Push, path: RelPath::ROOT };
        gauge.update(s(1), &Update::File { index: 0, kind: started });
        assert_eq!((gauge.pace(s(1)).made, gauge.pace(s(1)).total), (LEN(0), Some(LEN(100))));
    }

    #[test]
    fn a_tree_is_what_it_tells_of_itself() {
        let mut gauge = Gauge::new(1);
        let looked = Walked { entries: 70, len: LEN(7000) };
        let mut progress = TreeProgress { made: LEN(90), looked, ..TreeProgress::default() };
        gauge.update(s(0), &Update::Tree { index: 0, progress });
        // Its own bytes are most, but what is to follow is not known.
        gauge.update(s(0), &made(0, 90));
        assert_eq!((gauge.pace(s(0)).total, gauge.pace(s(0)).looked), (None, looked));
        (progress.total, progress.files, progress.files_done) = (Some(LEN(1000)), 12, 5);
        gauge.update(s(0), &Update::Tree { index: 0, progress });
        let pace = gauge.pace(s(0));
        assert_eq!((pace.total, pace.made), (Some(LEN(1000)), LEN(90)));
        assert_eq!((pace.files, pace.files_done), (12, 5));
    }

    #[test]
    fn a_pace_is_told_when_it_is_another_one_and_at_the_end() {
        let mut told = Vec::new();
        let report = |update| told.extend(if let Update::Pace(pace) = update { Some(pace) } else { None });
        let mut gauged = Gauged::new(1, Instant::now(), report);
        (0..50).for_each(|i| gauged.update(made(0, i)));
        gauged.update(made(0, 100));
        gauged.finish();
        assert!(told.len() < 20, "{told:?}");
        let last = told.last().expect("it told");
        assert_eq!((last.made, last.left), (LEN(100), TimeLeft::About(Duration::ZERO)));
        assert!(told.windows(2).all(|two| two[0] != two[1]));
    }
}
