//! The progress bar of a terminal: one bar for all files of a command, with rate, time left and what it waits for.
//!
//! It draws the stream of [`Update`]s and holds no state that the transfers need. When nothing moves it says what is waited
//! for, as [`Waits`](crate::Waits) tells. While trees are listed it says how much was looked at; bar, rate and time left are
//! shown once every length is known, that of a tree with its large files. What matters most stands first, since a line is cut
//! where the terminal ends: 40 columns have bar, rate and time left, fewer have the share and the rate, without a bar.

use std::time::Duration;

use deltasync_core::ByteLen;
use deltasync_proto::{EventKind, Phase, Stats};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::shown::{Grouped, Size, Whole};
use crate::terminal::columns;
use crate::{Pace, TimeLeft, Update, Wait};

/// Draws the updates of one verb on the standard error.
#[derive(Debug)]
pub struct Bars {
    bar: ProgressBar,
    files: Vec<FileState>,
    carried: Stats,
    pace: Pace,
    timed: bool,
    /// The template that draws it.
    template: &'static str,
    /// How wide the terminal is now.
    columns: fn() -> Option<u16>,
    wait: Option<Wait>,
}

#[derive(Clone, Copy, Debug, Default)]
struct FileState {
    phase: Option<Phase>,
    restarted: bool,
    repairing: bool,
    ended: bool,
}

// What is behind the bar is cut to the width of the terminal.
const PLAIN: &str = "{spinner} {wide_msg}";
const TIMED: &str = "[{bar:8}] {percent:>3} % {wide_msg}";
const TIMED_NARROW: &str = "{percent:>3} % {wide_msg}";
/// With fewer columns a bar would leave no room for what it means.
const NARROW: u16 = 36;

impl Bars {
    /// A bar for `files` files.
    pub fn new(files: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        bar.set_style(style(PLAIN));
        bar.set_message("connecting");
        bar.enable_steady_tick(Duration::from_millis(200));
        let files = vec![FileState::default(); files];
        let (carried, pace, columns) = (Stats::default(), Pace::default(), || columns(std::io::stderr()));
        Self { bar, files, carried, pace, timed: false, template: PLAIN, columns, wait: None }
    }

    /// Takes in one update.
    pub fn update(&mut self, update: &Update) {
        match update {
            // It is told again when nothing has moved.
            Update::Carried(stats) if self.carried == *stats => return,
            Update::Carried(stats) => self.carried = *stats,
            Update::Pace(pace) => {
                self.pace = *pace;
                return self.draw();
            }
            Update::File { index, kind } => {
                let Some(file) = self.files.get_mut(*index) else { return };
                file.take(kind);
            }
            Update::Member { index, kind: EventKind::Phase(phase), .. } => {
                let Some(file) = self.files.get_mut(*index) else { return };
                file.phase = Some(*phase);
            }
            Update::Tree { .. }
            | Update::Member { .. }
            | Update::Connecting { .. }
            | Update::Connected { .. }
            | Update::Retrying(_) => {}
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
        if !self.timed && self.pace.total.is_some() && self.pace.made > ByteLen::ZERO {
            self.timed = true;
        }
        let template = match (self.timed, (self.columns)()) {
            (false, _) => PLAIN,
            (true, Some(..NARROW)) => TIMED_NARROW,
            (true, _) => TIMED,
        };
        if self.template != template {
            self.template = template;
            self.bar.set_style(style(template));
        }
        self.bar.set_length(self.pace.total.map_or(0, ByteLen::get));
        self.bar.set_position(self.pace.made.get());
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
        let Pace { total, made, files, files_done, looked, rate, left } = self.pace;
        let mut parts = Vec::new();
        match (&self.wait, self.timed) {
            (Some(wait), _) => parts.push(wait.to_string()),
            (None, true) => {
                parts.push(format!("{}/s", Size(rate)));
                parts.extend(left_text(left));
            }
            (None, false) => parts.push(doing.to_owned()),
        }
        if total.is_none() && looked.entries > 0 {
            parts.push(format!("{} entries and {} looked at", Grouped(looked.entries), Size(looked.len.get())));
        }
        if files > 1 {
            parts.push(format!("{} of {} files", Grouped(files_done), Grouped(files)));
        }
        if let (Some(total), true) = (total, self.timed) {
            parts.push(format!("{} of {}", Size(made.get()), Size(total.get())));
            if self.wait.is_none() {
                parts.push(doing.to_owned());
            }
        }
        parts.push(format!("{} on the wire", Size(self.carried.wire_sent + self.carried.wire_received)));
        parts.join(", ")
    }
}

/// A time left in whole seconds, and never none while something is left.
pub(crate) fn left_text(left: TimeLeft) -> Option<String> {
    let seconds = |left: Duration| Whole(Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0)));
    match left {
        TimeLeft::Unknown | TimeLeft::About(Duration::ZERO) => None,
        TimeLeft::About(left) => Some(format!("{} left", seconds(left))),
        TimeLeft::MoreThan(left) => Some(format!("over {} left", seconds(left))),
        TimeLeft::Stalled => Some("stalled".to_owned()),
    }
}

impl FileState {
    fn take(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Started { .. } => *self = Self::default(),
            EventKind::Phase(phase) => self.phase = Some(*phase),
            EventKind::Repairing => self.repairing = true,
            EventKind::Restarted => self.restarted = true,
            EventKind::Ended(_) => self.ended = true,
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
    use std::io;
    use std::sync::{Arc, Mutex};

    use deltasync_core::RelPath;
    use deltasync_io::Walked;
    use deltasync_proto::Outcome;
    use indicatif::TermLike;

    use super::*;
    use crate::Waits;

    fn hidden(files: usize) -> Bars {
        let bars = Bars::new(files);
        bars.bar.set_draw_target(ProgressDrawTarget::hidden());
        bars
    }

    fn pace(total: Option<u64>, made: u64, rate: u64, left: TimeLeft) -> Update {
        let (total, made) = (total.map(ByteLen::new), ByteLen::new(made));
        Update::Pace(Pace { total, made, rate, left, files: 40, files_done: 12, ..Pace::default() })
    }

    #[test]
    fn the_message_follows_the_slowest_phase() {
        let mut bars = hidden(2);
        assert_eq!(bars.message(), "connecting, 0 B on the wire");
        bars.update(&Update::File { index: 0, kind: EventKind::Phase(Phase::Moving) });
        bars.update(&Update::Carried(Stats { wire_sent: 1024, wire_received: 1024, round_trips: 1 }));
        assert_eq!(bars.message(), "moving, 2.0 KiB on the wire");
        bars.update(&Update::File { index: 0, kind: EventKind::Ended(Ok(Outcome::default())) });
        bars.update(&Update::File { index: 1, kind: EventKind::Restarted });
        assert_eq!(bars.message(), "source changed, starting over, 2.0 KiB on the wire");
        bars.update(&Update::Member { index: 1, path: RelPath::ROOT, kind: EventKind::Phase(Phase::Moving) });
        bars.update(&Update::File { index: 9, kind: EventKind::Repairing });
    }

    #[test]
    fn what_was_looked_at_is_shown_until_every_length_is_known_and_then_the_time_left() {
        let mut bars = hidden(1);
        bars.update(&Update::File { index: 0, kind: EventKind::Phase(Phase::Describing) });
        let looked = Walked { entries: 12_345, len: ByteLen::new(5 << 20) };
        bars.update(&Update::Pace(Pace { looked, files: 1, ..Pace::default() }));
        assert_eq!(bars.message(), "describing, 12,345 entries and 5.0 MiB looked at, 0 B on the wire");
        assert!(!bars.timed);
        bars.update(&pace(Some(10 << 20), 5 << 20, 1 << 20, TimeLeft::About(Duration::from_millis(4100))));
        assert!(bars.timed);
        assert_eq!((bars.bar.position(), bars.bar.length()), (5 << 20, Some(10 << 20)));
        let rest = "12 of 40 files, 5.0 MiB of 10.0 MiB, describing, 0 B on the wire";
        assert_eq!(bars.message(), format!("1.0 MiB/s, 5 s left, {rest}"));
        for (left, text) in [
            (TimeLeft::MoreThan(Duration::from_secs(700)), ", over 11 min 40 s left"),
            (TimeLeft::Stalled, ", stalled"),
            (TimeLeft::Unknown, ""),
            (TimeLeft::About(Duration::ZERO), ""),
            (TimeLeft::About(Duration::from_millis(1)), ", 1 s left"),
        ] {
            bars.update(&pace(Some(10 << 20), 5 << 20, 1 << 20, left));
            assert_eq!(bars.message(), format!("1.0 MiB/s{text}, {rest}"));
        }
    }

    #[test]
    fn a_wait_is_shown_until_something_moves() {
        let mut bars = hidden(1);
        let mut waits = Waits::default();
        let update = Update::Connecting { peer: "h:7440".into() };
        waits.update(Duration::ZERO, &update);
        bars.wait(waits.at(Duration::from_secs(5)));
        assert_eq!(bars.message(), "waiting 5 s for a connection to h:7440, 0 B on the wire");
        // Told again, though nothing has moved.
        bars.update(&Update::Carried(Stats::default()));
        bars.update(&Update::Pace(Pace { files: 1, ..Pace::default() }));
        assert_eq!(bars.message(), "waiting 5 s for a connection to h:7440, 0 B on the wire");
        bars.update(&update);
        assert_eq!(bars.message(), "connecting, 0 B on the wire");
    }

    /// A terminal of so many columns, and the lines that were written to it.
    #[derive(Clone, Debug)]
    struct Narrow(u16, Arc<Mutex<Vec<String>>>);

    impl TermLike for Narrow {
        fn width(&self) -> u16 {
            self.0
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, line: &str) -> io::Result<()> {
            self.write_str(line)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.1.lock().expect("no panic").push(text.to_owned());
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn forty_columns_hold_bar_rate_and_time_left_in_one_line() {
        type Told = fn() -> Option<u16>;
        const WIDTHS: [(u16, Told); 5] =
            [(12, || Some(12)), (20, || Some(20)), (40, || Some(40)), (80, || Some(80)), (200, || None)];
        for (columns, told) in WIDTHS {
            let lines = Arc::default();
            let mut bars = Bars::new(1);
            bars.columns = told;
            let target = Box::new(Narrow(columns, Arc::clone(&lines)));
            bars.bar.set_draw_target(ProgressDrawTarget::term_like_with_hz(target, 255));
            bars.update(&Update::File { index: 0, kind: EventKind::Phase(Phase::Moving) });
            for made in 1..100 {
                let left = TimeLeft::About(Duration::from_secs(100 - made));
                bars.update(&pace(Some(100 << 20), made << 20, 1023 << 20, left));
                bars.bar.force_draw();
            }
            bars.bar.abandon();
            let lines = lines.lock().expect("no panic");
            let longest = lines.iter().map(|line| line.trim_end().chars().count()).max();
            assert!(longest <= Some(columns.into()), "{columns}: {lines:?}");
            let has = |text: &str| lines.iter().any(|line| line.contains(text));
            assert!(columns < 20 || has("MiB/s"), "{columns}: {lines:?}");
            assert_eq!(has("[==="), columns >= NARROW, "{columns}: {lines:?}");
            if columns >= 40 {
                assert!(lines.iter().any(|line| line.contains("MiB/s, 1 s left")), "{columns}: {lines:?}");
            }
        }
    }
}
