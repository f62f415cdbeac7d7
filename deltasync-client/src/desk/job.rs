//! One entry of the queue: what is to be done, where it is, and what it came to.
//!
//! ```text
//! Queued -> Running -> Done / Failed
//!   |  ^      |   |
//!   |  |      |   +-> Cancelling -> Cancelled
//!   v  |      v
//!  Paused <- Pausing
//! ```
//!
//! To pause is to end the transfer and keep what was staged of it; to resume is to begin it again, and the engine takes up
//! what was staged. An end that comes while it is being paused or cancelled counts as what it is: what is done is done.

use std::path::PathBuf;
use std::time::Duration;

use deltasync_core::{ByteLen, Digest};
use deltasync_proto::Verb;

use super::live::Live;
use super::words::Trouble;
use crate::shown::{Counted, Size, Span};
use crate::{RemotePlace, Shown, Summary, Verified};

/// Which entry of the queue; no two of one desk are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub(crate) u64);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// A file or directory of this machine goes into a directory at a server.
    Push {
        /// What goes.
        source: PathBuf,
        /// The directory.
        to: RemotePlace,
    },
    /// A file or directory of a server goes into a directory of this machine.
    Pull {
        /// What comes.
        source: RemotePlace,
        /// The directory.
        to: PathBuf,
    },
    /// A file here is compared with a file there.
    Verify {
        /// The file here.
        file: PathBuf,
        /// The file there.
        place: RemotePlace,
    },
    /// A directory of this machine is pushed whenever something in it changes.
    Watch {
        /// The directory.
        source: PathBuf,
        /// The directory at the server that it goes into.
        to: RemotePlace,
    },
}

impl Task {
    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Push { .. } => "Push",
            Self::Pull { .. } => "Pull",
            Self::Verify { .. } => "Verify",
            Self::Watch { .. } => "Watch",
        }
    }

    /// The name of what is moved, safe to draw.
    pub fn name(&self) -> String {
        match self {
            Self::Push { source: path, .. } | Self::Watch { source: path, .. } | Self::Verify { file: path, .. } => {
                path.file_name()
                    .map_or_else(|| Shown::path(path).to_string(), |name| Shown::path(name.as_ref()).to_string())
            }
            Self::Pull { source, .. } => {
                source.name().map_or_else(|| source.to_string(), |name| Shown(name.as_bytes()).to_string())
            }
        }
    }

    /// Where it goes, safe to draw.
    pub fn to(&self) -> String {
        match self {
            Self::Push { to, .. } | Self::Watch { to, .. } => to.to_string(),
            Self::Pull { to, .. } => Shown::path(to).to_string(),
            Self::Verify { place, .. } => place.to_string(),
        }
    }

    /// A watch ends when it is told to.
    pub const fn is_watch(&self) -> bool {
        matches!(self, Self::Watch { .. })
    }

    /// Whether it changes what is in this directory of a server.
    pub(crate) fn changes(&self, place: &RemotePlace) -> bool {
        match self {
            Self::Push { to, .. } | Self::Watch { to, .. } => to.server == place.server && to.path == place.path,
            Self::Pull { .. } | Self::Verify { .. } => false,
        }
    }
}

/// Where an entry of the queue is.
#[derive(Clone, Debug, PartialEq)]
pub enum JobState {
    /// It waits for its turn.
    Queued,
    /// It runs.
    Running,
    /// It is being ended, to go on later.
    Pausing,
    /// It waits to be resumed.
    Paused,
    /// It is being ended for good.
    Cancelling,
    /// It was ended for good.
    Cancelled,
    /// It is done.
    Done(Report),
    /// It failed.
    Failed(Trouble),
}

impl JobState {
    /// The word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Running => "Running",
            Self::Pausing => "Pausing",
            Self::Paused => "Paused",
            Self::Cancelling => "Cancelling",
            Self::Cancelled => "Cancelled",
            Self::Done(_) => "Done",
            Self::Failed(_) => "Failed",
        }
    }

    /// True while a verb runs for it.
    pub const fn is_active(&self) -> bool {
        matches!(self, Self::Running | Self::Pausing | Self::Cancelling)
    }

    /// True when nothing more happens unless somebody asks for it.
    pub const fn has_ended(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Done(_) | Self::Failed(_))
    }
}

/// An entry of the queue.
#[derive(Clone, Debug)]
pub struct Job {
    /// Which.
    pub id: JobId,
    /// What is to be done.
    pub task: Task,
    /// Where it is.
    pub state: JobState,
    /// What its transfer is doing, or did last.
    pub live: Live,
    /// How often a watch has pushed something, and what its last push came to.
    pub pushes: (u64, Option<Result<Moved, Trouble>>),
}

impl Job {
    pub(crate) fn new(id: JobId, task: Task) -> Self {
        Self { id, task, state: JobState::Queued, live: Live::default(), pushes: (0, None) }
    }
}

/// What an entry of the queue came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Bytes were moved, or nothing had to be.
    Moved(Moved),
    /// Both files have this length and root.
    Same(ByteLen, Digest),
    /// The files differ: length and root here, length and root there.
    Differ((ByteLen, Digest), (ByteLen, Digest)),
    /// A watch was ended.
    Watched(String),
}

impl Report {
    /// In one line.
    pub fn line(&self) -> String {
        match self {
            Self::Moved(moved) => moved.line(),
            Self::Same(len, root) => format!("the same here and there: {}, root {}", Size(len.get()), short(root)),
            Self::Differ(here, there) => {
                let side = |(len, root): &(ByteLen, Digest)| format!("{}, root {}", Size(len.get()), short(root));
                format!("not the same: {} here; {} there", side(here), side(there))
            }
            Self::Watched(line) => line.clone(),
        }
    }
}

impl From<Verified> for Report {
    fn from(verified: Verified) -> Self {
        match verified.equal() {
            true => Self::Same(verified.local.0, verified.local.1),
            false => Self::Differ(verified.local, verified.remote),
        }
    }
}

/// What a push or pull moved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moved {
    pull: bool,
    tree: bool,
    len: ByteLen,
    reused: f64,
    sent: u64,
    received: u64,
    round_trips: u32,
    repairs: u32,
    elapsed: Duration,
    /// What a person should know, such as that another writer was there too.
    pub notes: Vec<String>,
}

impl Moved {
    pub(crate) fn of(summary: &Summary) -> Self {
        let sums = summary.sums();
        Self {
            pull: summary.verb == Verb::Pull,
            tree: summary.files.iter().any(|file| file.tree.is_some()),
            len: sums.target,
            reused: sums.reused(),
            sent: summary.carried.wire_sent,
            received: summary.carried.wire_received,
            round_trips: summary.carried.round_trips,
            repairs: sums.repairs,
            elapsed: summary.elapsed,
            notes: summary.notes().map(|(_, note)| note).collect(),
        }
    }

    /// What it saved, such as `1.2 KiB sent for a file of 10.0 MiB, 99.98 % reused`.
    pub fn line(&self) -> String {
        let (moved, word) = if self.pull { (self.received, "received") } else { (self.sent, "sent") };
        let what = if self.tree { "folder" } else { "file" };
        format!("{} {word} for a {what} of {}, {} reused", Size(moved), Size(self.len.get()), Share(self.reused))
    }

    /// What it cost beside, such as `300 B received, 2 round trips, no repairs, 0.12 s`.
    pub fn cost(&self) -> String {
        let (other, word) = if self.pull { (self.sent, "sent") } else { (self.received, "received") };
        let repairs = match self.repairs {
            0 => "no repairs".to_owned(),
            repairs => Counted(repairs.into(), "repair").to_string(),
        };
        let trips = Counted(self.round_trips.into(), "round trip");
        format!("{} {word}, {trips}, {repairs}, {}", Size(other), Span(self.elapsed))
    }
}

/// The first digits of a root, enough to tell two apart at a glance.
pub(crate) fn short(root: &Digest) -> String {
    let mut text = root.to_string();
    text.truncate(12);
    text + "…"
}

/// A share from 0 to 1 in per cent with two decimals, rounded down so that 100 means all of it; nothing where it is none.
struct Share(f64);

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0 * 10_000.0 + 1e-9).floor() / 100.0 {
            100.0 => f.write_str("100 %"),
            0.0 => f.write_str("nothing"),
            share => write!(f, "{share:.2} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_says_what_it_saved_and_what_it_cost() {
        let moved = Moved {
            len: ByteLen::new(10 << 20),
            reused: 0.999_899,
            sent: 1229,
            received: 300,
            round_trips: 1,
            elapsed: Duration::from_millis(120),
            ..Moved::default()
        };
        assert_eq!(moved.line(), "1.2 KiB sent for a file of 10.0 MiB, 99.98 % reused");
        assert_eq!(moved.cost(), "300 B received, 1 round trip, no repairs, 0.12 s");
        let pulled = Moved { pull: true, tree: true, reused: 1.0, repairs: 2, ..moved };
        assert_eq!(pulled.line(), "300 B received for a folder of 10.0 MiB, 100 % reused");
        assert_eq!(pulled.cost(), "1.2 KiB sent, 1 round trip, 2 repairs, 0.12 s");
        assert!(Moved::default().line().ends_with("nothing reused"));
    }

    #[test]
    fn names_are_safe_to_draw() {
        let to = crate::desk_address("h/x").expect("an address");
        let task = Task::Push { source: "/a/b\u{202e}\n".into(), to: to.clone() };
        assert_eq!((task.name(), task.to()), ("b\\u{202e}\\n".to_owned(), "deltasync://h/x/".to_owned()));
        assert_eq!(Task::Push { source: "/".into(), to }.name(), "/");
    }
}
