//! The progress bar of a terminal: one bar for all files of a command, with rate, time left and what it waits for.
//!
//! It draws the stream of [`Update`]s and holds no state that the transfers need. When nothing moves it says what is waited
//! for, as [`Waits`](crate::Waits) tells. Lengths of targets become known one by one, so the total grows at first; time left
//! is shown once every length is known, that of a tree with its large files.

use std::time::Duration;

use deltasync_core::ByteLen;
use deltasync_proto::{EventKind, Phase, Stats};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::shown::Size;
use crate::{TreeProgress, Update, Wait};

/// Draws the updates of one verb on the standard error.
#[derive(Debug)]
pub struct Bars {
    bar: ProgressBar,
    files: Vec<FileState>,
    carried: Stats,
    timed: bool,
    wait: Option<Wait>,
}

#[derive(Clone, Copy, Debug, Default)]
struct FileState {
    total: Option<ByteLen>,
    made: ByteLen,
    phase: Option<Phase>,
    restarted: bool,
    repairing: bool,
    ended: bool,
    /// It is a tree. Its own total and bytes are a part of this.
    tree: Option<TreeProgress>,
}

// What is behind the bar is cut to the width of the terminal.
const PLAIN: &str = "{spinner} {wide_msg}";
const TIMED: &str = "[{bar:16}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left, {wide_msg}";

impl Bars {
    /// A bar for `files` files.
    pub fn new(files: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        bar.set_style(style(PLAIN));
        bar.set_message("connecting");
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, files: vec![FileState::default(); files], carried: Stats::default(), timed: false, wait: None }
    }

    /// Takes in one update.
    pub fn update(&mut self, update: &Update) {
        match update {
            Update::Carried(stats) => self.carried = *stats,
            Update::File { index, kind } => {
                let Some(file) = self.files.get_mut(*index) else { return };
                file.take(kind);
            }
            Update::Member { index, kind: EventKind::Phase(phase), .. } => {
                let Some(file) = self.files.get_mut(*index) else { return };
                file.phase = Some(*phase);
            }
            Update::Tree { index, progress } => {
                let Some(file) = self.files.get_mut(*index) else { return };
                file.tree = Some(*progress);
            }
            Update::Member { .. } | Update::Connecting { .. } | Update::Connected { .. } | Update::Retrying(_) => {}
        }
        self.wait = None;
        self.draw();
    }

    /// Says what is waited for until the next update; `None` when something moves.
    pub fn wait(&mut self, wait: Option<Wait>) {
        if self.wait != wait {
            self.wait = wait;
            self.draw();
        }
    }

    /// Prints above the bar.
    pub(crate) fn aside(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Removes the bar from the terminal.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn draw(&mut self) {
        let total: u64 = self.files.iter().filter_map(FileState::total).map(ByteLen::get).sum();
        let made: u64 = self.files.iter().map(|file| file.made().get()).sum();
        if !self.timed && made > 0 && self.files.iter().all(|file| file.total().is_some() || file.ended) {
            self.timed = true;
            self.bar.set_style(style(TIMED));
            self.bar.reset_eta();
        }
        self.bar.set_length(total);
        self.bar.set_position(made);
        self.bar.set_message(self.message());
    }

    /// What happens, and what it costs.
    fn message(&self) -> String {
        let running = || self.files.iter().filter(|file| !file.ended);
        let doing = match running().filter_map(|file| file.phase).max() {
            _ if running().any(|file| file.repairing) => "repairing",
            _ if running().any(|file| file.restarted) => "source changed, starting over",
            Some(phase) => phase.name(),
            None if running().next().is_some() => "connecting",
            None => "closing",
        };
        let doing = self.wait.as_ref().map_or_else(|| doing.to_owned(), Wait::to_string);
        let wire = Size(self.carried.wire_sent + self.carried.wire_received);
        let ended = self.files.iter().filter(|file| file.ended).count();
        let trees = || self.files.iter().filter_map(|file| file.tree);
        let (members, done) = trees().fold((0, 0), |(all, done), tree| (all + tree.members, done + tree.members_done));
        let members = if members > 0 { format!("{done} of {members} large files, ") } else { String::new() };
        match self.files.len() {
            1 => format!("{members}{doing}, {wire} on the wire"),
            all if trees().next().is_some() => format!("{ended} of {all}, {members}{doing}, {wire} on the wire"),
            all => format!("{ended} of {all} files, {doing}, {wire} on the wire"),
        }
    }
}

impl FileState {
    fn total(&self) -> Option<ByteLen> {
        self.tree.map_or(self.total, |tree| tree.total)
    }

    fn made(&self) -> ByteLen {
        self.tree.map_or(self.made, |tree| tree.made)
    }

    fn take(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Started { .. } => *self = Self { total: self.total, tree: self.tree, ..Self::default() },
            EventKind::Phase(phase) => self.phase = Some(*phase),
            EventKind::Progress(progress) => {
                self.total = Some(progress.total);
                self.made = progress.copied + progress.literal;
            }
            EventKind::Repairing => self.repairing = true,
            EventKind::Restarted => (self.restarted, self.made) = (true, ByteLen::ZERO),
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

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the templates above are well-formed");
    style.progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use deltasync_core::RelPath;
    use deltasync_proto::{Outcome, Progress, Verb};

    use super::*;
    use crate::Waits;

    #[test]
    fn the_message_follows_the_slowest_phase_and_counts_files() {
        let mut bars = Bars::new(2);
        bars.bar.set_draw_target(ProgressDrawTarget::hidden());
        assert_eq!(bars.message(), "0 of 2 files, connecting, 0 B on the wire");
        bars.update(&Update::File { index: 0, kind: EventKind::Phase(Phase::Moving) });
        bars.update(&Update::Carried(Stats { wire_sent: 1024, wire_received: 1024, round_trips: 1 }));
        assert_eq!(bars.message(), "0 of 2 files, moving, 2.0 KiB on the wire");
        bars.update(&Update::File { index: 0, kind: EventKind::Ended(Ok(Outcome::default())) });
        bars.update(&Update::File { index: 1, kind: EventKind::Restarted });
        assert_eq!(bars.message(), "1 of 2 files, source changed, starting over, 2.0 KiB on the wire");
    }

    #[test]
    fn time_left_is_shown_once_every_length_is_known() {
        let mut bars = Bars::new(2);
        bars.bar.set_draw_target(ProgressDrawTarget::hidden());
        let len = ByteLen::new;
        let progress = Progress { total: len(100), copied: len(30), literal: len(10), wire: len(10) };
        bars.update(&Update::File { index: 0, kind: EventKind::Progress(progress) });
        assert!(!bars.timed);
        bars.update(&Update::File { index: 1, kind: EventKind::Progress(progress) });
        assert!(bars.timed);
        assert_eq!((bars.bar.position(), bars.bar.length()), (80, Some(200)));
        bars.update(&Update::File { index: 9, kind: EventKind::Repairing });
    }

    #[test]
    fn a_file_that_is_tried_again_starts_at_its_beginning() {
        let mut bars = Bars::new(1);
        bars.bar.set_draw_target(ProgressDrawTarget::hidden());
        let len = ByteLen::new;
        let progress = Progress { total: len(100), copied: len(30), literal: len(10), wire: len(10) };
        bars.update(&Update::File { index: 0, kind: EventKind::Progress(progress) });
        let started = EventKind::Started { verb: Verb::Push, path: RelPath::ROOT };
        bars.update(&Update::File { index: 0, kind: started });
        assert_eq!((bars.bar.position(), bars.bar.length()), (0, Some(100)));
    }

    #[test]
    fn a_tree_is_drawn_as_one_once_its_large_files_are_known() {
        let mut bars = Bars::new(1);
        bars.bar.set_draw_target(ProgressDrawTarget::hidden());
        let len = ByteLen::new;
        let progress = Progress { total: len(100), copied: len(90), ..Progress::default() };
        let mut tree = TreeProgress { made: len(90), ..TreeProgress::default() };
        bars.update(&Update::Tree { index: 0, progress: tree });
        // Its own bytes are most, but what is to follow is not known.
        bars.update(&Update::File { index: 0, kind: EventKind::Progress(progress) });
        assert_eq!(bars.bar.length(), Some(0));
        (tree.total, tree.members, tree.members_done) = (Some(len(1000)), 3, 1);
        bars.update(&Update::Tree { index: 0, progress: tree });
        bars.update(&Update::Member { index: 0, path: RelPath::ROOT, kind: EventKind::Phase(Phase::Moving) });
        assert!(bars.timed);
        assert_eq!((bars.bar.position(), bars.bar.length()), (90, Some(1000)));
        assert_eq!(bars.message(), "1 of 3 large files, moving, 0 B on the wire");
    }

    #[test]
    fn a_wait_is_shown_until_something_moves() {
        let mut bars = Bars::new(1);
        bars.bar.set_draw_target(ProgressDrawTarget::hidden());
        let mut waits = Waits::default();
        let update = Update::Connecting { peer: "h:7440".into() };
        waits.update(Duration::ZERO, &update);
        bars.wait(waits.at(Duration::from_secs(5)));
        assert_eq!(bars.message(), "waiting 5 s for a connection to h:7440, 0 B on the wire");
        bars.update(&update);
        assert_eq!(bars.message(), "connecting, 0 B on the wire");
    }
}
