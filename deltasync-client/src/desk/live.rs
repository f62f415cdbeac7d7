//! What a transfer is doing right now: its stream of updates, folded into what a window draws.
//!
//! Updates come many a second; a window needs the newest state of each transfer and nothing of how it came about. So the
//! fold is done where the updates arrive, and what crosses to the window is a copy of this. Its size is bounded: one block
//! map of [`CELLS`] cells for the transfer itself and one for each large file that moves right now.

use std::collections::BTreeMap;
use std::time::Duration;

use deltasync_core::{BlockMap, BlockRun, ByteLen, RelPath};
use deltasync_proto::{EventKind, Phase, Stats};

use crate::bars::left_text;
use crate::shown::{Counted, Grouped, Size};
use crate::{Pace, Shown, Update, Waits};

/// In how many cells a block map counts.
const CELLS: usize = 512;

/// What a transfer is doing right now.
#[derive(Clone, Debug, Default)]
pub struct Live {
    pace: Pace,
    carried: Stats,
    doing: Option<Doing>,
    /// What it waits for, or why it is tried again, in words.
    waiting: Option<String>,
    repairs: u32,
    waits: Waits,
    own: Strip,
    members: BTreeMap<RelPath, Strip>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Connecting,
    Phase(Phase),
    Repairing,
    StartingOver,
}

/// The block map of one file, once its length is known.
#[derive(Clone, Debug, Default)]
struct Strip(Option<BlockMap>);

impl Strip {
    fn take(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Started { .. } | EventKind::Restarted => *self = Self::default(),
            EventKind::Placed { total, ranges } => {
                let map = self.map(*total);
                ranges.iter().for_each(|range| map.place(range));
            }
            EventKind::Progress(progress) => {
                self.map(progress.total);
            }
            _ => {}
        }
    }

    /// The map of a file of this length.
    fn map(&mut self, len: ByteLen) -> &mut BlockMap {
        BlockMap::kept_in(&mut self.0, len, CELLS)
    }
}

impl Live {
    /// Takes in one update; `now` is the time since the transfer began.
    pub fn take(&mut self, now: Duration, update: &Update) {
        self.waits.update(now, update);
        match update {
            Update::Pace(pace) => self.pace = *pace,
            Update::Carried(stats) => self.carried = *stats,
            Update::Connecting { .. } | Update::Retrying(_) => self.doing = Some(Doing::Connecting),
            Update::File { kind, .. } => {
                self.take_kind(kind);
                self.own.take(kind);
            }
            Update::Member { path, kind, .. } => {
                self.take_kind(kind);
                match kind {
                    EventKind::Ended(_) if self.members.len() > 1 => {
                        self.members.remove(path);
                    }
                    _ => self.members.entry(path.clone()).or_default().take(kind),
                }
            }

            Update::Connected { .. } | Update::Tree { .. } => {}
        }
        self.waiting = self.waits.at(now).map(|wait| wait.to_string());
    }

    fn take_kind(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Phase(phase) => self.doing = Some(Doing::Phase(*phase)),
            EventKind::Restarted => self.doing = Some(Doing::StartingOver),
            EventKind::Repairing => {
                self.doing = Some(Doing::Repairing);
                self.repairs += 1;
            }
            _ => {}
        }
    }

    /// The share that is made, from 0 to 1, once that can be said.
    pub fn share(&self) -> Option<f32> {
        let total = self.pace.total?.get();
        (total > 0).then(|| (self.pace.made.get() as f64 / total as f64).min(1.0) as f32)
    }

    /// The bytes that the connection has carried both ways, and how often it was waited for an answer.
    pub fn carried(&self) -> Stats {
        self.carried
    }

    /// The block map to draw: that of the large file that moves, else that of the transfer itself. The name is that of the
    /// file where it is one of several.
    pub fn strip(&self) -> Option<(Option<String>, ByteLen, Vec<BlockRun>)> {
        let member = self.members.iter().find_map(|(path, strip)| Some((path, strip.0.as_ref()?)));
        match member {
            Some((path, map)) => Some((Some(Shown(path.as_bytes()).to_string()), map.len(), map.runs())),
            None => self.own.0.as_ref().map(|map| (None, map.len(), map.runs())),
        }
    }

    /// What it does, in one line, such as `3.1 MiB of 10.0 MiB, 2.0 MiB/s, 4 s left`.
    pub fn line(&self) -> String {
        if let Some(waiting) = &self.waiting {
            return Shown(waiting.as_bytes()).to_string();
        }
        let Pace { total, made, files, files_done, looked, rate, left } = self.pace;
        let mut parts = Vec::new();
        if files > 1 {
            parts.push(format!("{} of {} files", Grouped(files_done), Grouped(files)));
        }
        match total {
            Some(total) if made > ByteLen::ZERO => {
                parts.push(format!("{} of {}", Size(made.get()), Size(total.get())));
                if rate > 0 && made < total {
                    parts.push(format!("{}/s", Size(rate)));
                }
                parts.extend(left_text(left));
                if made >= total {
                    parts.extend(self.doing.filter(|doing| !matches!(doing, Doing::Phase(Phase::Moving))).map(words));
                }
            }
            _ => {
                parts.push(self.doing.map_or("starting", words_of).to_owned());
                if looked.entries > 0 {
                    parts.push(format!("{} looked at", Counted(looked.entries, "file")));
                }
            }
        }
        parts.join(", ")
    }

    /// What it has cost so far, such as `1.2 KiB sent, 300 B received, 2 round trips`.
    pub fn cost(&self) -> String {
        let Stats { wire_sent, wire_received, round_trips } = self.carried;
        let mut parts = vec![
            format!("{} sent", Size(wire_sent)),
            format!("{} received", Size(wire_received)),
            Counted(round_trips.into(), "round trip").to_string(),
        ];
        if self.repairs > 0 {
            parts.push(Counted(self.repairs.into(), "repair").to_string());
        }
        parts.join(", ")
    }
}

fn words(doing: Doing) -> String {
    words_of(doing).to_owned()
}

fn words_of(doing: Doing) -> &'static str {
    match doing {
        Doing::Connecting => "connecting",
        Doing::Phase(Phase::Describing) => "reading",
        Doing::Phase(Phase::Waiting) => "waiting for the server",
        Doing::Phase(Phase::Matching) => "comparing",
        Doing::Phase(phase) => phase.name(),
        Doing::Repairing => "repairing",
        Doing::StartingOver => "the source changed, starting over",
    }
}

#[cfg(test)]
mod tests {
    use deltasync_core::{Offset, Origin, Placed};
    use deltasync_proto::{Progress, Verb};

    use super::*;

    fn file(kind: EventKind) -> Update {
        Update::File { index: 0, kind }
    }

    fn placed(at: u64, len: u64, copied: u64) -> EventKind {
        let range = Placed { at: Offset::new(at), len: ByteLen::new(len), copied: ByteLen::new(copied) };
        EventKind::Placed { total: ByteLen::new(1024), ranges: vec![range] }
    }

    fn progress(total: u64, copied: u64) -> EventKind {
        EventKind::Progress(Progress {
            total: ByteLen::new(total),
            copied: ByteLen::new(copied),
            ..Progress::default()
        })
    }

    fn started() -> EventKind {
        EventKind::Started { verb: Verb::Push, path: RelPath::ROOT }
    }

    fn live(updates: &[Update]) -> Live {
        let mut live = Live::default();
        updates.iter().for_each(|update| live.take(Duration::ZERO, update));
        live
    }

    fn origins(live: &Live) -> Vec<(u64, u64, Origin)> {
        let (_, _, runs) = live.strip().expect("a map");
        runs.iter().map(|run| (run.at.get(), run.len.get(), run.origin)).collect()
    }

    #[test]
    fn ranges_that_come_before_any_progress_are_in_the_map() {
        let live =
            live(&[file(started()), file(placed(0, 512, 512)), file(progress(1024, 512)), file(placed(512, 256, 0))]);
        assert_eq!(origins(&live), [(0, 512, Origin::Copied), (512, 256, Origin::Sent), (768, 256, Origin::Missing)]);
    }

    #[test]
    fn a_transfer_that_starts_over_has_an_empty_map() {
        let mut live = live(&[file(started()), file(progress(1024, 0)), file(placed(0, 1024, 0))]);
        live.take(Duration::ZERO, &file(EventKind::Restarted));
        assert!(live.strip().is_none());
        live.take(Duration::ZERO, &file(progress(2048, 0)));
        assert_eq!(origins(&live), [(0, 2048, Origin::Missing)]);
    }

    #[test]
    fn the_large_file_of_a_tree_that_moves_is_the_one_that_is_drawn() {
        let path = RelPath::new("a/b\n").expect("a path");
        let member = |kind| Update::Member { index: 0, path: path.clone(), kind };
        let live = live(&[file(started()), file(progress(100, 0)), member(started()), member(progress(1000, 0))]);
        let (name, len, _) = live.strip().expect("a map");
        assert_eq!((name.as_deref(), len.get()), (Some("a/b\\n"), 1000));
    }

    #[test]
    fn the_line_says_how_far_how_fast_and_how_long() {
        let mut live = Live::default();
        assert_eq!(live.line(), "starting");
        live.take(Duration::ZERO, &file(EventKind::Phase(Phase::Matching)));
        assert_eq!(live.line(), "comparing");
        let pace = Pace {
            total: Some(ByteLen::new(4 << 20)),
            made: ByteLen::new(1 << 20),
            rate: 1 << 20,
            left: crate::TimeLeft::About(Duration::from_millis(2500)),
            ..Pace::default()
        };
        live.take(Duration::ZERO, &Update::Pace(pace));
        assert_eq!(live.line(), "1.0 MiB of 4.0 MiB, 1.0 MiB/s, 3 s left");
        assert_eq!(live.share(), Some(0.25));
    }

    #[test]
    fn what_does_not_move_says_what_it_waits_for() {
        let mut live = live(&[Update::Connecting { peer: "h".into() }]);
        live.take(Duration::from_secs(5), &Update::Pace(Pace::default()));
        assert_eq!(live.line(), "waiting 5 s for a connection to h");
    }

    #[test]
    fn repairs_are_counted() {
        let live = live(&[file(EventKind::Repairing), file(EventKind::Repairing)]);
        assert_eq!(live.cost(), "0 B sent, 0 B received, 0 round trips, 2 repairs");
    }
}
