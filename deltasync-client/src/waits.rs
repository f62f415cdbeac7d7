//! What a verb waits for, whenever nothing has moved for a while.
//!
//! The stream of [`Update`]s says which connection is being made, when the next try is, which phase each file is in and how
//! many bytes the wire has carried. From these, and from a clock that the caller reads, follows who has to move next: our
//! own disk, this machine at work, the server, or the network. Answers and keep-alives of a few bytes say that the peer
//! lives, not that anything moves.
//!
//! Nothing here looks at a clock or a terminal: times are spans since the verb began. Cost: a few words a file.
//!
//! Invariant: [`Waits::at`] tells nothing while something moved less than [`Waits::AFTER`] ago, and as long as a file has not
//! ended it tells something from then on.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use deltasync_core::{ByteLen, RelPath};
use deltasync_io::Walked;
use deltasync_proto::{EventKind, Phase, Stats, Verb};

use crate::Update;
use crate::shown::{Tries, Whole};

/// Fewer bytes than these, both ways, are signs of life.
const MOVED: u64 = 256;

/// Takes in the updates of one verb and tells what it waits for.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    servers: BTreeMap<String, ServerState>,
    /// By source and, for a large file of a tree, its path.
    files: BTreeMap<(usize, Option<RelPath>), FileState>,
    /// What was looked at in each source that is a tree.
    looked: BTreeMap<usize, Walked>,
    carried: Stats,
    /// What the wire had carried when enough for a movement had come together.
    marked: u64,
    moved: Duration,
    /// When bytes last came in.
    heard: Duration,
    said: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum ServerState {
    Connecting,
    /// Connected when so many bytes had been received: until there are more it has said nothing.
    Connected {
        received: u64,
    },
    Retrying {
        at: Duration,
        number: u32,
        of: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct FileState {
    verb: Verb,
    phase: Option<Phase>,
    total: Option<ByteLen>,
    made: ByteLen,
}

/// What a verb waits for, and how long nothing has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wait {
    /// Who has to move.
    pub waiting_for: WaitingFor,
    /// How long nothing has moved.
    pub since: Duration,
}

/// Who has to move for a verb to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitingFor {
    /// A connection to this server.
    Connection(String),
    /// The first word of this server.
    Greeting(String),
    /// The moment of the next try at a server.
    NextTry {
        /// The server.
        peer: String,
        /// How long until then.
        left: Duration,
        /// Which try in a row it is, from 1.
        number: u32,
        /// How many there are at most, see [`Retry::of`](crate::Retry::of).
        of: u32,
    },
    /// The server to find out what a file has.
    ServerToDescribe,
    /// The server to compare what both ends have.
    ServerToCompare,
    /// The server to verify a file and to publish it.
    ServerToCommit,
    /// Our own disk, to be read.
    DiskToRead,
    /// Our own disk, to have it durable.
    DiskToCommit,
    /// This machine, which compares.
    OurComparison,
    /// The network: bytes are to move, and none came in for so long.
    Network(Duration),
}

impl Waits {
    /// How long nothing has to move until it is told what that waits for.
    pub const AFTER: Duration = Duration::from_secs(2);
    /// How far apart two lines about it are at least.
    pub const LINES: Duration = Duration::from_secs(10);

    /// Takes in one update; `now` is the time since the verb began.
    pub fn update(&mut self, now: Duration, update: &Update) {
        let moved = match update {
            Update::Carried(stats) => {
                if stats.wire_received != self.carried.wire_received {
                    self.heard = now;
                }
                self.carried = *stats;
                let wire = stats.wire_sent + stats.wire_received;
                let moved = wire >= self.marked + MOVED;
                if moved {
                    self.marked = wire;
                }
                moved
            }
            Update::Connecting { peer } => self.set(peer, ServerState::Connecting),
            Update::Connected { peer } => {
                self.heard = now;
                self.set(peer, ServerState::Connected { received: self.carried.wire_received })
            }
            Update::Retrying(retry) => {
                let at = now + retry.after;
                self.set(&retry.peer, ServerState::Retrying { at, number: retry.number, of: retry.of })
            }
            Update::File { index, kind } => self.on_file((*index, None), kind),
            Update::Member { index, path, kind } => self.on_file((*index, Some(path.clone())), kind),
            // What else it counts was told of its files.
            Update::Tree { index, progress } => {
                self.looked.insert(*index, progress.looked).is_none_or(|before| before != progress.looked)
            }
            Update::Pace(_) => false,
        };
        if moved {
            self.moved = now;
        }
    }

    /// What it waits for, `now` being the time since the verb began; `None` while something moves.
    pub fn at(&self, now: Duration) -> Option<Wait> {
        let since = now.saturating_sub(self.moved);
        if since < Self::AFTER {
            return None;
        }
        // A file of this machine is not held up by a server that is not there: whoever moves resets the clock above.
        let waiting_for = self.server(now).or_else(|| self.file(now))?;
        Some(Wait { waiting_for, since })
    }

    /// A line about what it waits for, when one is due: [`Waits::LINES`] after the last one at the earliest.
    pub fn line(&mut self, now: Duration) -> Option<String> {
        let wait = self.at(now)?;
        if self.said.is_some_and(|said| now < said + Self::LINES) {
            return None;
        }
        self.said = Some(now);
        Some(wait.to_string())
    }

    fn set(&mut self, peer: &str, state: ServerState) -> bool {
        self.servers.insert(peer.to_owned(), state);
        true
    }

    fn on_file(&mut self, which: (usize, Option<RelPath>), kind: &EventKind) -> bool {
        if let EventKind::Started { verb, .. } = kind {
            self.files.insert(which, FileState { verb: *verb, phase: None, total: None, made: ByteLen::ZERO });
            return true;
        }
        if let EventKind::Ended(_) = kind {
            self.files.remove(&which);
            return true;
        }
        let Some(file) = self.files.get_mut(&which) else { return true };
        match kind {
            EventKind::Phase(phase) => file.phase.replace(*phase) != Some(*phase),
            EventKind::Progress(progress) => {
                let before = (file.total, file.made);
                (file.total, file.made) = (Some(progress.total), progress.made());
                (file.total, file.made) != before
            }
            _ => true,
        }
    }

    fn server(&self, now: Duration) -> Option<WaitingFor> {
        self.servers.iter().find_map(|(peer, state)| match *state {
            ServerState::Connecting => Some(WaitingFor::Connection(peer.clone())),
            ServerState::Connected { received } if received == self.carried.wire_received => {
                (!self.files.is_empty()).then(|| WaitingFor::Greeting(peer.clone()))
            }
            ServerState::Connected { .. } => None,
            ServerState::Retrying { at, number, of } => {
                Some(WaitingFor::NextTry { peer: peer.clone(), left: at.saturating_sub(now), number, of })
            }
        })
    }

    fn file(&self, now: Duration) -> Option<WaitingFor> {
        let ((index, _), own) = self.files.first_key_value()?;
        // A tree waits for its large files.
        let member = self.files.iter().nth(1).filter(|((of, _), _)| of == index);
        let file = member.map_or(own, |(_, member)| member);
        // Both ends are in this process.
        let local = self.servers.is_empty();
        Some(match (file.phase.unwrap_or(Phase::Describing), file.verb) {
            (Phase::Describing, _) => WaitingFor::DiskToRead,
            (Phase::Matching, _) => WaitingFor::OurComparison,
            (Phase::Verifying, _) => WaitingFor::DiskToRead,
            (Phase::Committing, _) => WaitingFor::DiskToCommit,
            (Phase::Waiting, Verb::Push) if file.total == Some(file.made) => match local {
                true => WaitingFor::DiskToCommit,
                false => WaitingFor::ServerToCommit,
            },
            (Phase::Waiting, _) if local => WaitingFor::DiskToRead,
            (Phase::Waiting, Verb::Push) => WaitingFor::ServerToCompare,
            (Phase::Waiting, _) => WaitingFor::ServerToDescribe,
            (Phase::Moving, _) if local => WaitingFor::DiskToCommit,
            _ => WaitingFor::Network(now.saturating_sub(self.heard)),
        })
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = Whole(self.since);
        match &self.waiting_for {
            WaitingFor::Connection(peer) => write!(f, "waiting {since} for a connection to {peer}"),
            WaitingFor::Greeting(peer) => write!(f, "waiting {since} for the first word of {peer}"),
            WaitingFor::NextTry { peer, left, number, of } => {
                write!(f, "waiting for the next try at {peer} ({}), in {}", Tries(*number, *of), Whole(*left))
            }
            WaitingFor::ServerToDescribe => write!(f, "waiting {since} for the server to look at its file"),
            WaitingFor::ServerToCompare => write!(f, "waiting {since} for the server to compare"),
            WaitingFor::ServerToCommit => write!(f, "waiting {since} for the server to verify and publish"),
            WaitingFor::DiskToRead => write!(f, "waiting {since} for our own disk"),
            WaitingFor::DiskToCommit => write!(f, "waiting {since} for our own disk to have it"),
            WaitingFor::OurComparison => write!(f, "waiting {since} for the comparison here"),
            WaitingFor::Network(silent) => {
                write!(f, "waiting {since} for the network: no byte for {}", Whole(*silent))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use deltasync_core::RelPath;
    use deltasync_proto::{Outcome, Progress};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::{Retry, TreeProgress};

    const PEER: &str = "h:7440";

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn file(kind: EventKind) -> Update {
        Update::File { index: 0, kind }
    }

    fn started(verb: Verb) -> Update {
        file(EventKind::Started { verb, path: RelPath::ROOT })
    }

    fn phase(phase: Phase) -> Update {
        file(EventKind::Phase(phase))
    }

    fn made(total: u64, made: u64) -> Update {
        let len = ByteLen::new;
        file(EventKind::Progress(Progress { total: len(total), copied: len(made), ..Progress::default() }))
    }

    fn carried(wire_sent: u64, wire_received: u64) -> Update {
        Update::Carried(Stats { wire_sent, wire_received, round_trips: 0 })
    }

    fn connecting() -> Update {
        Update::Connecting { peer: PEER.into() }
    }

    fn connected() -> Update {
        Update::Connected { peer: PEER.into() }
    }

    fn ended() -> Update {
        file(EventKind::Ended(Ok(Outcome::default())))
    }

    /// What is waited for 3 s after updates that came at one moment.
    fn after(updates: &[Update]) -> Option<WaitingFor> {
        let mut waits = Waits::default();
        updates.iter().for_each(|update| waits.update(s(100), update));
        assert_eq!(waits.at(s(101)), None, "it has just moved");
        let wait = waits.at(s(103))?;
        assert_eq!(wait.since, s(3));
        Some(wait.waiting_for)
    }

    #[test]
    fn each_point_of_a_push_says_who_has_to_move() {
        let mut story = vec![connecting(), started(Verb::Push), phase(Phase::Describing)];
        assert_eq!(after(&story), Some(WaitingFor::Connection(PEER.into())));
        story.push(connected());
        assert_eq!(after(&story), Some(WaitingFor::Greeting(PEER.into())));
        story.push(carried(300, 40));
        assert_eq!(after(&story), Some(WaitingFor::DiskToRead));
        story.push(phase(Phase::Waiting));
        assert_eq!(after(&story), Some(WaitingFor::ServerToCompare));
        story.push(phase(Phase::Matching));
        assert_eq!(after(&story), Some(WaitingFor::OurComparison));
        story.extend([phase(Phase::Moving), made(1000, 400)]);
        assert_eq!(after(&story), Some(WaitingFor::Network(s(3))));
        story.extend([made(1000, 1000), phase(Phase::Waiting)]);
        assert_eq!(after(&story), Some(WaitingFor::ServerToCommit));
        story.push(ended());
        assert_eq!(after(&story), None);
    }

    #[test]
    fn each_point_of_a_pull_says_who_has_to_move() {
        let mut story = vec![connecting(), started(Verb::Pull), connected(), carried(300, 40)];
        assert_eq!(after(&story), Some(WaitingFor::DiskToRead));
        story.push(phase(Phase::Waiting));
        assert_eq!(after(&story), Some(WaitingFor::ServerToDescribe));
        story.extend([phase(Phase::Moving), made(1000, 400)]);
        assert_eq!(after(&story), Some(WaitingFor::Network(s(3))));
        story.push(phase(Phase::Verifying));
        assert_eq!(after(&story), Some(WaitingFor::DiskToRead));
        story.push(phase(Phase::Committing));
        assert_eq!(after(&story), Some(WaitingFor::DiskToCommit));
    }

    #[test]
    fn between_two_files_of_this_machine_there_is_no_server() {
        for (verb, at, waiting_for) in [
            (Verb::Push, Phase::Waiting, WaitingFor::DiskToRead),
            (Verb::Pull, Phase::Waiting, WaitingFor::DiskToRead),
            (Verb::Pull, Phase::Moving, WaitingFor::DiskToCommit),
        ] {
            assert_eq!(after(&[started(verb), phase(at)]), Some(waiting_for), "{verb:?} {at:?}");
        }
        let all = [started(Verb::Push), made(10, 10), phase(Phase::Waiting)];
        assert_eq!(after(&all), Some(WaitingFor::DiskToCommit));
    }

    #[test]
    fn a_next_try_counts_down_and_a_new_connection_has_to_greet_again() {
        let mut waits = Waits::default();
        for update in [connecting(), started(Verb::Pull), connected(), carried(100, 900)] {
            waits.update(s(0), &update);
        }
        let retry = Retry { peer: PEER.into(), why: "cut".into(), after: s(8), number: 2, of: 5 };
        waits.update(s(10), &Update::Retrying(retry));
        let next = waits.at(s(13)).expect("nothing moves");
        let expected = WaitingFor::NextTry { peer: PEER.into(), left: s(5), number: 2, of: 5 };
        assert_eq!((&next.waiting_for, next.since), (&expected, s(3)));
        assert_eq!(next.to_string(), "waiting for the next try at h:7440 (2 of 5), in 5 s");
        for update in [connecting(), connected(), started(Verb::Pull)] {
            waits.update(s(18), &update);
        }
        assert_eq!(waits.at(s(20)).map(|wait| wait.waiting_for), Some(WaitingFor::Greeting(PEER.into())));
    }

    #[test]
    fn signs_of_life_do_not_hide_a_wait_and_tell_how_long_the_network_is_silent() {
        let mut waits = Waits::default();
        for update in [connecting(), connected(), started(Verb::Push), carried(500, 500), phase(Phase::Moving)] {
            waits.update(s(0), &update);
        }
        waits.update(s(5), &carried(505, 505));
        let wait = waits.at(s(9)).expect("five bytes are no movement");
        assert_eq!((wait.waiting_for, wait.since), (WaitingFor::Network(s(4)), s(9)));
        // What we sent does not say that anything arrives.
        waits.update(s(20), &carried(900, 505));
        let wait = waits.at(s(23)).expect("nothing came in");
        assert_eq!(wait.to_string(), "waiting 3 s for the network: no byte for 18 s");
    }

    #[test]
    fn a_phase_or_a_count_that_is_told_again_is_no_movement() {
        let mut waits = Waits::default();
        for update in [started(Verb::Push), phase(Phase::Moving), made(1000, 10)] {
            waits.update(s(0), &update);
        }
        waits.update(s(2), &phase(Phase::Moving));
        waits.update(s(2), &made(1000, 10));
        assert_eq!(waits.at(s(3)).map(|wait| wait.since), Some(s(3)));
        waits.update(s(3), &made(1000, 11));
        assert_eq!(waits.at(s(4)), None);
    }

    #[test]
    fn a_tree_that_is_being_listed_moves() {
        let mut waits = Waits::default();
        waits.update(s(0), &started(Verb::Push));
        let looked =
            |entries| TreeProgress { looked: Walked { entries, ..Walked::default() }, ..TreeProgress::default() };
        for (at, entries) in [(1, 100), (3, 200), (4, 200)] {
            waits.update(s(at), &Update::Tree { index: 0, progress: looked(entries) });
        }
        assert_eq!(waits.at(s(4)), None);
        assert_eq!(waits.at(s(5)).map(|wait| (wait.waiting_for, wait.since)), Some((WaitingFor::DiskToRead, s(2))));
    }

    #[test]
    fn lines_come_after_two_seconds_and_then_every_ten() {
        let mut waits = Waits::default();
        waits.update(s(0), &connecting());
        let said: Vec<u64> = (0..=30).filter(|second| waits.line(s(*second)).is_some()).collect();
        assert_eq!(said, [2, 12, 22]);
        waits.update(s(31), &connecting());
        assert_eq!(waits.line(s(32)), None, "it moved");
        assert_eq!(waits.line(s(33)).as_deref(), Some("waiting 2 s for a connection to h:7440"));
        waits.update(s(34), &connecting());
        assert_eq!(waits.line(s(37)), None, "one line in ten seconds, whatever moves between");
    }

    /// Whatever happens: nothing is told within two seconds of a movement, and an open file never waits unexplained.
    fn check_explained(story: &[(u64, u8)]) {
        let mut waits = Waits::default();
        let (mut now, mut open) = (Duration::ZERO, false);
        for (millis, what) in story {
            now += Duration::from_millis(*millis);
            let update = match what % 8 {
                0 => connecting(),
                1 => connected(),
                2 => started(if what & 8 == 0 { Verb::Push } else { Verb::Pull }),
                3 => phase([Phase::Describing, Phase::Waiting, Phase::Moving][usize::from(what / 8 % 3)]),
                4 => made(1000, u64::from(*what)),
                5 => carried(u64::from(*what) * 10, u64::from(*what)),
                6 => {
                    let retry = Retry { peer: PEER.into(), why: String::new(), after: s(3), number: 1, of: 2 };
                    Update::Retrying(retry)
                }
                _ => ended(),
            };
            open = (open || what % 8 == 2) && what % 8 != 7;
            waits.update(now, &update);
            let moved = now.saturating_sub(waits.moved);
            let told = waits.at(now + s(2)).is_some();
            assert!(told || !open, "{story:?} at {now:?}: unexplained");
            let just = Duration::from_millis(1999).saturating_sub(moved);
            assert_eq!(waits.at(now + just).filter(|_| moved < s(2)), None, "{story:?} at {now:?}: too early");
        }
    }

    proptest! {
        #[test]
        fn an_open_file_never_waits_unexplained(story in vec((0_u64..5000, any::<u8>()), 1..40)) {
            check_explained(&story);
        }
    }
}
