//! What a seed decides before its run: who has which files, who wants what, and what the weather will be.
//!
//! Contents of a path descend from each other as versions of a file do, by edits, insertions, appended and removed
//! parts; some go back to an earlier content of their path, some are another path's, some are new. So deltas have
//! something to find, equal targets occur, and a path can come to have again what it had before.

use bytes::Bytes;
use deltasync_core::RelPath;
use deltasync_proto::Config;

use super::store::Weather;
use super::wire::{Fault, FaultOf, Manner};
use super::{MILLISECOND, SECOND};
use crate::Rng;

/// What a run will be.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) server: Config,
    /// The server's files lie on a disk, not in memory.
    pub(super) disk: bool,
    pub(super) weather: Weather,
    /// What is at the server before anything happens.
    pub(super) files: Vec<(RelPath, Bytes)>,
    pub(super) clients: Vec<ClientPlan>,
    pub(super) crashes: Vec<Moment>,
    /// When recorded connections are played again.
    pub(super) replays: Vec<u64>,
    pub(super) links: Links,
}

/// When the server dies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    At(u64),
    /// While the commit of this number is under way.
    DuringCommit(usize),
}

#[derive(Debug)]
pub(super) struct ClientPlan {
    pub(super) config: Config,
    pub(super) weather: Weather,
    /// Batches of tasks, each with how long after the last one it begins.
    pub(super) batches: Vec<(u64, Vec<TaskPlan>)>,
}

/// One transfer that a client wants.
#[derive(Clone, Debug)]
pub(super) struct TaskPlan {
    pub(super) verb: TaskVerb,
    pub(super) path: RelPath,
    pub(super) condition: Wanted,
    /// How long after it was started it is cancelled.
    pub(super) cancel: Option<u64>,
    /// How long after it was started its local file is changed, and to what.
    pub(super) edit: Option<(u64, Bytes)>,
}

#[derive(Clone, Debug)]
pub(super) enum TaskVerb {
    Push(Bytes),
    Pull,
    Root,
    List,
}

/// What a transfer may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Any,
    Absent,
    /// What the path has when the transfer is started first.
    Current,
    /// What no path has.
    Other,
}

/// How links behave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    /// How many of 1000 connections have a fault.
    faulty: usize,
    /// The longest latency, in milliseconds.
    latency: usize,
    /// One connection in so many is slow, or pauses.
    slow: usize,
}

impl Links {
    /// How each direction of the next connection behaves, up first.
    pub(super) fn draw(self, rng: &mut Rng) -> [Manner; 2] {
        let latency = (1 + rng.below(self.latency)) as u64 * MILLISECOND;
        let piece = [1 << 20, 64 << 10, 1500, 100][rng.below(4)];
        let slow = rng.below(self.slow) == 0;
        let pace = if slow { [200, 4_000, 20_000][rng.below(3)] } else { 1 };
        let pauses = if slow { rng.below(4) } else { 0 };
        let unbuffered = rng.below(3) == 0;
        let manner = Manner { latency, piece, pace, unbuffered, pauses, fault: None };
        let mut manners = [manner.clone(), manner];
        if rng.below(1000) < self.faulty {
            let kinds = [
                FaultOf::Cut,
                FaultOf::Cut,
                FaultOf::CutSoftly,
                FaultOf::CutSoftly,
                FaultOf::CutLate,
                FaultOf::CutLate,
                FaultOf::Silence,
                FaultOf::Flip,
                FaultOf::Double,
                FaultOf::Drop,
                FaultOf::Lose,
                FaultOf::Lose,
            ];
            let kind = kinds[rng.below(kinds.len())];
            // Most of what is said is said in the first bytes.
            let bits = rng.below(19);
            let at = rng.below(1 << bits) as u64;
            manners[rng.below(2)].fault = Some(Fault { at, kind });
        }
        manners
    }

    /// A link that does not fail.
    pub(super) fn draw_sound(self, rng: &mut Rng) -> [Manner; 2] {
        Self { faulty: 0, ..self }.draw(rng)
    }
}

/// One run in so many has a disk.
const DISKS: usize = 6;
/// How long a run's clients begin new things, about, in nanoseconds.
pub(super) const EVENTFUL: u64 = 60 * SECOND;

impl Plan {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let names: [&[u8]; 4] = [b"a", b"b", b"d/c", b"d/e"];
        let paths: Vec<_> =
            names[..1 + rng.below(4)].iter().map(|name| RelPath::new(*name).expect("a plain path")).collect();
        let mut contents = Contents::new(paths.len(), rng);
        let mut files = Vec::new();
        for (number, path) in paths.iter().enumerate() {
            if rng.below(2) == 0 {
                files.push((path.clone(), contents.next(number, rng)));
            }
        }
        let links = Links { faulty: [0, 200, 500, 800][rng.below(4)], latency: [5, 50, 300][rng.below(3)], slow: 6 };
        let colliding = rng.below(10) == 0;
        let clients = (0..1 + rng.below(3)).map(|_| ClientPlan::draw(&paths, &mut contents, colliding, rng)).collect();
        let crashes = match rng.below(4) {
            0 => vec![Moment::At(rng.below(EVENTFUL as usize) as u64)],
            1 => vec![Moment::DuringCommit(1 + rng.below(4)), Moment::DuringCommit(5 + rng.below(4))],
            _ => Vec::new(),
        };
        let replays = match rng.below(3) {
            0 => (0..1 + rng.below(3)).map(|_| rng.below(2 * EVENTFUL as usize) as u64).collect(),
            _ => Vec::new(),
        };
        let disk = rng.below(DISKS) == 0;
        let mut weather = weather(rng);
        if disk && rng.below(2) == 0 {
            weather.disk = 60;
        }
        Self { server: config(rng, colliding), disk, weather, files, clients, crashes, replays, links }
    }
}

impl ClientPlan {
    fn draw(paths: &[RelPath], contents: &mut Contents, colliding: bool, rng: &mut Rng) -> Self {
        let batches = (0..1 + rng.below(4)).map(|_| {
            let wait =
                if rng.below(2) == 0 { rng.below(200) as u64 * MILLISECOND } else { rng.below(15) as u64 * SECOND };
            let tasks = (0..1 + rng.below(3)).map(|_| TaskPlan::draw(paths, contents, rng)).collect();
            (wait, tasks)
        });
        let batches = batches.collect();
        Self { config: config(rng, colliding), weather: weather(rng), batches }
    }
}

impl TaskPlan {
    /// True when this changes the local file of another pull of the client.
    pub(super) fn edits(&self, other: &Self) -> bool {
        let pulls = |task: &Self| matches!(task.verb, TaskVerb::Pull);
        self.edit.is_some() && pulls(self) && pulls(other) && self.path == other.path
    }

    fn draw(paths: &[RelPath], contents: &mut Contents, rng: &mut Rng) -> Self {
        // The first path is the one that is fought for.
        let number = if rng.below(2) == 0 { 0 } else { rng.below(paths.len()) };
        let (verb, edit) = match rng.below(20) {
            0 => (TaskVerb::Root, false),
            1 => (TaskVerb::List, false),
            2..7 => (TaskVerb::Pull, rng.below(8) == 0),
            _ => (TaskVerb::Push(contents.next(number, rng)), rng.below(12) == 0),
        };
        let edit = edit.then(|| (rng.below(1500) as u64 * MILLISECOND / 2, contents.next(number, rng)));
        let condition = match rng.below(20) {
            0..13 => Wanted::Any,
            13 | 14 => Wanted::Absent,
            15..19 => Wanted::Current,
            _ => Wanted::Other,
        };
        let cancel = (rng.below(20) == 0).then(|| rng.below(2000) as u64 * MILLISECOND);
        Self { verb, path: paths[number].clone(), condition, cancel, edit }
    }
}

fn config(rng: &mut Rng, colliding: bool) -> Config {
    let mut config = Config::default().remember(rng.below(2) == 0).level([0, 3][rng.below(2)]);
    config.piece = [256 << 10, 16 << 10, 1 << 10][rng.below(3)];
    config.transfers = [256, 256, 2, 1][rng.below(4)];
    if colliding { config.tag_bits(8) } else { config }
}

fn weather(rng: &mut Rng) -> Weather {
    let usual = [100_000, 5_000_000, 200_000_000][rng.below(3)];
    let calm = Weather { usual, ..Weather::default() };
    match rng.below(6) {
        0..3 => calm,
        3 => Weather { fault: 20, late_fault: 100, ..calm },
        4 => Weather { rot: 50, changed: 100, ..calm },
        _ => Weather { slow: 10, conflict: 150, ..calm },
    }
}

/// The contents that files have had.
struct Contents {
    of: Vec<Vec<Bytes>>,
    longest: usize,
}

impl Contents {
    fn new(paths: usize, rng: &mut Rng) -> Self {
        let longest = [900, 900, 8 << 10, 8 << 10, 64 << 10, 256 << 10][rng.below(6)];
        Self { of: vec![Vec::new(); paths], longest }
    }

    /// The next content of the path with this number.
    fn next(&mut self, number: usize, rng: &mut Rng) -> Bytes {
        let earlier = &self.of[number];
        let next = match rng.below(12) {
            0 => Bytes::new(),
            1 => rng_bytes(rng, 200),
            2 => rng_bytes(rng, self.longest),
            3 => {
                let all: Vec<_> = self.of.iter().flatten().collect();
                if all.is_empty() { rng_bytes(rng, self.longest) } else { all[rng.below(all.len())].clone() }
            }
            4 | 5 if !earlier.is_empty() => earlier[rng.below(earlier.len())].clone(),
            _ => match earlier.last() {
                Some(last) => edited(last, self.longest, rng),
                None => rng_bytes(rng, self.longest),
            },
        };
        self.of[number].push(next.clone());
        next
    }
}

fn rng_bytes(rng: &mut Rng, most: usize) -> Bytes {
    let len = rng.below(most + 1);
    rng.bytes(len).into()
}

/// The next version of a file.
fn edited(bytes: &Bytes, longest: usize, rng: &mut Rng) -> Bytes {
    let mut edited = bytes.to_vec();
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(edited.len() + 1);
        let len = rng.below(1 + (edited.len() - at).min(300));
        let new_len = 1 + rng.below(100);
        let new = rng.bytes(new_len);
        match rng.below(5) {
            0 => drop(edited.splice(at..at + len, new)),
            1 => drop(edited.splice(at..at, new)),
            2 => edited.extend(new),
            3 => drop(edited.drain(at..at + len)),
            _ => edited.rotate_left(at),
        }
    }
    edited.truncate(longest.max(100));
    edited.into()
}
