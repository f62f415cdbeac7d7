//! Sessions over a link with faults, as a list of operations: how the files differ, what the link does, what is asked.
//!
//! A run is some transfers in a row over the same storages, so that what the first leaves and remembers, the next has. Each
//! ends by itself, and then the receiver's file is the one it had or the new one, whole. Without a fault of the link it is
//! the new one, however many tags collide; with one, a transfer that failed says why. A flipped bit may turn a request into
//! another valid one (nothing below us seals the bytes), so after one only the files are judged.

use std::sync::Arc;
use std::time::Duration;

use deltasync_core::{Algorithm, RelPath};
use deltasync_io::{KeepForm, MemoryStorage};
use deltasync_proto::{Command, Config, RootId};

use super::take::Take;
use crate::{Direction, Link, Pair, Ran, Rng, Seed, file, pull, push};

/// No file of a run is longer, in bytes: enough for sketches of cells.
const LEN_MAX: usize = 200_000;
/// A file is delivered in so many pieces at most: single bytes over the link must stay quick.
const PIECES_MAX: usize = 40_000;
/// No more operations are carried out, or edits of edits take all the time.
const OPERATIONS_MAX: usize = 64;
/// No more transfers follow each other.
const ROUNDS_MAX: usize = 5;
const SERVED: RootId = RootId::new(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Cut(Direction, u64),
    Stall(Direction, u64),
    Flip(Direction, u64),
}

/// What the operations so far have made.
struct Run {
    local: Arc<MemoryStorage>,
    remote: Arc<MemoryStorage>,
    seed: u64,
    /// Puts this at the receiver before the next transfer.
    old: Option<Vec<u8>>,
    new: Vec<u8>,
    /// What an operation put aside.
    aside: Vec<u8>,
    split: Option<(bool, usize)>,
    delay: Duration,
    fault: Fault,
    pull: bool,
    config: Config,
    others: usize,
    rounds: Vec<Ran>,
    /// A bit was flipped once: a path may be a directory now.
    flipped: bool,
}

/// A seed of 4 bytes, then operations: a byte for its kind and two numbers of two bytes each.
pub(super) fn pair(bytes: &[u8]) {
    transfers(bytes);
}

/// How each transfer of a run went.
fn transfers(bytes: &[u8]) -> Vec<Ran> {
    let mut take = Take::new(bytes);
    let seed = (take.short() | take.short() << 16) as u64;
    let mut rng = Rng::new(seed);
    let mut run = Run::new(seed);
    for _ in 0..OPERATIONS_MAX {
        if take.is_empty() || run.rounds.len() == ROUNDS_MAX - 1 {
            break;
        }
        let (kind, a, b) = (take.byte(), take.short(), take.short());
        run.apply(&mut rng, kind % 24, a, b);
        run.new.truncate(LEN_MAX);
    }
    run.transfer();
    run.rounds
}

fn path(name: &str) -> RelPath {
    RelPath::new(name).expect("a plain name")
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            local: Arc::default(),
            remote: Arc::default(),
            seed,
            old: None,
            new: Vec::new(),
            aside: Vec::new(),
            split: None,
            delay: Duration::ZERO,
            fault: Fault::None,
            pull: false,
            config: Config::default(),
            others: 0,
            rounds: Vec::new(),
            flipped: false,
        }
    }

    fn apply(&mut self, rng: &mut Rng, kind: u8, a: usize, b: usize) {
        let direction = if b & 1 == 0 { Direction::Up } else { Direction::Down };
        let new = &mut self.new;
        let at = new.len().min(a);
        match kind {
            0 => new.extend(rng.bytes(a)),
            1 => new.resize((new.len() + a).min(LEN_MAX), b as u8),
            2 => {
                let pattern = rng.bytes(1 + b % 2000);
                new.extend(pattern.into_iter().cycle().take(a));
            }
            // What stands so far is the old file, what follows edits it.
            3 => self.old = Some(new.clone()),
            4 => drop(new.splice(at..at, rng.bytes(b % 3000))),
            5 => drop(new.drain(at..new.len().min(at + b))),
            6 => new.rotate_left(at),
            7 => new.iter_mut().skip(a).take(1).for_each(|byte| *byte ^= b as u8),
            8 => self.split = Some((b & 1 != 0, 1 + a % 5000)),
            // There and back within the time that a hello may take.
            9 => self.delay = Duration::from_millis((a % 4000) as u64),
            10 => self.fault = Fault::Cut(direction, a as u64),
            11 => self.fault = Fault::Stall(direction, a as u64),
            12 => self.fault = Fault::Flip(direction, a as u64),
            13 => self.pull = !self.pull,
            14 => self.config = self.config.clone().tag_bits(1 + (a % 48) as u32).level((b % 4) as i32),
            15 => {
                self.config = self.config.clone().algorithm(Algorithm::ALL[a % 2]);
                self.others = b % 5;
            }
            // What follows edits what was transferred.
            16 => self.transfer(),
            17 => {
                self.config = self.config.clone().remember(a & 1 != 0);
                self.local.keep(if b & 1 != 0 { KeepForm::Sums } else { KeepForm::Copy });
            }
            18 => self.aside.clone_from(new),
            // The receiver's file becomes another behind the sender's back.
            19 => self.old = Some(self.aside.clone()),
            20 => self.receiver().insert(SERVED, path("twin"), self.new.clone()),
            21 => self.config.piece = 1 + a,
            // Scattered edits.
            22 => {
                for byte in new.iter_mut().skip(a).step_by(1 + b.max(500)) {
                    *byte ^= 0x55;
                }
            }
            // A text that packs.
            _ => new.extend((0..a / 16).flat_map(|row| format!("row {:4},{:6}\n", b, row * 31 % 977).into_bytes())),
        }
    }

    fn receiver(&self) -> &MemoryStorage {
        if self.pull { &self.local } else { &self.remote }
    }

    fn link(&self) -> Link {
        let link = match self.split {
            None => Link::perfect(),
            Some((random, len)) => {
                let len = len.max(self.new.len() / PIECES_MAX);
                if random { Link::split_randomly(len) } else { Link::split_every(len) }
            }
        };
        let link = link.delay(self.delay);
        match self.fault {
            Fault::None => link,
            Fault::Cut(direction, at) => link.cut(direction, at),
            Fault::Stall(direction, at) => link.stall(direction, at),
            Fault::Flip(direction, at) => link.flip(direction, at),
        }
    }

    /// One transfer, and perhaps others beside it; then the link is sound again.
    fn transfer(&mut self) {
        let seed = self.seed.wrapping_add(self.rounds.len() as u64);
        let (sender, command) = match self.pull {
            false => (&self.local, push(file(), file())),
            true => (&self.remote, pull(file(), file())),
        };
        sender.insert(SERVED, file(), self.new.clone());
        if let Some(old) = self.old.take() {
            self.receiver().insert(SERVED, file(), old);
        }
        let before = self.receiver().get(SERVED, &file());
        let second = Rng::new(self.seed ^ 1).bytes(6000);
        self.local.insert(SERVED, path("second"), second.clone());
        let pair = Pair::new(seed).over(self.local.clone(), self.remote.clone());
        let mut pair = pair.link(self.link()).config(self.config.clone()).command(command);
        for command in 0..self.others {
            pair = pair.command(match command {
                0 => push(path("second"), path("second")),
                1 => Command::List { path: RelPath::ROOT, after: None },
                2 => Command::Root { path: path("second") },
                _ => pull(path("missing"), path("missing")),
            });
        }
        let ran = pair.run_to_end();

        for error in ran.outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert!(!error.to_string().is_empty());
        }
        let there = self.receiver().get(SERVED, &file());
        let is_new = there.as_ref().is_some_and(|bytes| *bytes == self.new);
        assert!(there == before || is_new, "the file is neither the old one nor the new one");
        let second_there = self.remote.get(SERVED, &path("second"));
        assert!(second_there.is_none_or(|bytes| bytes == second), "half of the second file");
        self.flipped |= matches!(self.fault, Fault::Flip(..));
        if self.fault == Fault::None && !self.flipped {
            assert!(ran.outcomes[0].is_ok(), "nothing was in the way: {:?}", ran.outcomes[0]);
            assert!(ran.client.is_ok() && ran.server.is_ok(), "{:?} {:?}", ran.client, ran.server);
        }
        if !self.flipped && ran.outcomes[0].is_ok() {
            assert!(is_new, "a transfer that went well leaves the new file");
        }
        self.fault = Fault::None;
        self.rounds.push(ran);
    }
}

pub(super) fn pair_seeds() -> Vec<Seed> {
    let seed = |name: &str, operations: &[(u8, u16, u16)]| {
        let mut bytes = vec![7, 0, 0, 0];
        for (kind, a, b) in operations {
            bytes.push(*kind);
            bytes.extend_from_slice(&a.to_le_bytes());
            bytes.extend_from_slice(&b.to_le_bytes());
        }
        Seed::new(name, bytes)
    };
    let large = (0, 65_535, 0);
    let edited = [(0, 20_000, 0), (3, 0, 0), (4, 9000, 50)];
    let with = |name: &str, more: &[(u8, u16, u16)]| seed(name, &[&edited, more].concat());
    vec![
        seed("nothing", &[]),
        seed("no-basis", &[(0, 30_000, 0)]),
        seed("same", &[(0, 20_000, 0), (3, 0, 0)]),
        with("edited", &[]),
        with("pulled", &[(13, 0, 0)]),
        with("single-bytes", &[(8, 0, 0)]),
        with("slow", &[(8, 999, 1), (9, 2000, 0)]),
        with("cut-up", &[(10, 150, 0)]),
        with("cut-down", &[(10, 60, 1)]),
        with("cut-in-the-delta", &[(4, 100, 2500), (10, 900, 0)]),
        with("stalled", &[(11, 150, 0)]),
        with("stalled-down-pulled", &[(13, 0, 0), (11, 150, 1)]),
        with("flipped-hello", &[(12, 3, 0)]),
        with("flipped-tags", &[(12, 130, 0)]),
        with("flipped-want", &[(12, 45, 1)]),
        with("flipped-literals", &[(4, 100, 2500), (12, 1500, 0)]),
        with("collisions", &[(14, 2, 0)]),
        with("with-others", &[(15, 1, 4)]),
        seed("zeros", &[(1, 30_000, 0), (3, 0, 0), (7, 5000, 1), (4, 100, 3)]),
        seed("pattern-moved", &[(2, 30_000, 700), (3, 0, 0), (6, 1234, 0)]),
        seed("shortened-to-nothing", &[(0, 9000, 0), (3, 0, 0), (5, 0, 9000)]),
        seed("shortened-to-nothing-pulled", &[(0, 9000, 0), (3, 0, 0), (5, 0, 9000), (13, 0, 0)]),
        seed("cells", &[large, large, large, (3, 0, 0), (4, 9000, 50), (22, 5000, 50_000)]),
        seed("cells-pulled", &[large, large, large, (3, 0, 0), (13, 0, 0), (4, 9000, 50), (8, 3000, 1)]),
        seed("more-cells", &[large, large, large, (3, 0, 0), (5, 10, 55_000), (22, 10_000, 20_000)]),
        seed("moved", &[large, large, large, (3, 0, 0), (6, 50_000, 0)]),
        seed("moved-pulled", &[large, large, large, (3, 0, 0), (6, 50_000, 0), (7, 20_000, 1), (13, 0, 0)]),
        seed("repaired", &[large, (3, 0, 0), (22, 1200, 30_000), (14, 7, 3)]),
        seed(
            "remembered",
            &[large, large, large, (17, 1, 0), (16, 0, 0), (4, 9000, 50), (16, 0, 0), (16, 0, 0), (22, 9, 9999)],
        ),
        seed(
            "remembered-sums",
            &[large, large, large, (17, 1, 1), (16, 0, 0), (4, 9000, 50), (16, 0, 0), (5, 20_000, 4000)],
        ),
        seed(
            "remembered-and-stale",
            &[
                large,
                large,
                large,
                (18, 0, 0),
                (17, 1, 1),
                (16, 0, 0),
                (4, 9000, 50),
                (19, 0, 0),
                (16, 0, 0),
                (19, 0, 0),
                (5, 9, 9999),
            ],
        ),
        seed("remembered-large", &[large, large, large, (17, 1, 0), (16, 0, 0), (0, 65_535, 0), (0, 65_535, 0)]),
        seed(
            "remembered-stale-large",
            &[large, large, large, (18, 0, 0), (17, 1, 0), (16, 0, 0), (0, 65_535, 0), (0, 65_535, 0), (19, 0, 0)],
        ),
        seed("twin", &[large, large, large, (3, 0, 0), (4, 9000, 50), (20, 0, 0)]),
        seed(
            "history",
            &[large, large, large, (18, 0, 0), (16, 0, 0), (4, 900, 50), (16, 0, 0), (13, 0, 0), (19, 0, 0)],
        ),
        seed("small-pieces", &[(23, 30_000, 5), (3, 0, 0), (0, 9000, 0), (23, 60_000, 6), (21, 99, 0)]),
        with("cut-and-again", &[(10, 150, 0), (16, 0, 0)]),
        with("flipped-and-again", &[(17, 1, 0), (12, 50, 1), (16, 0, 0), (4, 10, 10)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_do_what_they_are_called() {
        let seeds = pair_seeds();
        let run = |name: &str| {
            let seed = seeds.iter().find(|seed| seed.name == name).expect("a seed of this name");
            transfers(&seed.bytes)
        };
        let last = |name: &str| {
            let rounds = run(name);
            let last = rounds.last().expect("a transfer");
            let outcome = last.outcomes[0].as_ref().expect("a link without a fault");
            println!("{name}: {outcome:?}, {} round trips, {} up, {} down", last.round_trips(), last.up, last.down);
            (*outcome, last.round_trips(), last.wire())
        };
        assert!(last("repaired").0.repairs > 0);
        assert_eq!(last("cells").1, 2);
        assert!(last("more-cells").1 > 2);
        assert!(last("moved").1 > 2 && last("moved").0.progress.literal.get() < 20_000);
        for name in ["remembered", "remembered-sums", "history"] {
            assert_eq!(last(name).1, 1, "{name} goes at once");
        }
        assert!(last("remembered-and-stale").1 > 1);
        assert!(last("twin").2 < 2000, "no content moves");
        for name in ["cut-and-again", "cut-up", "cut-down", "cut-in-the-delta", "stalled", "stalled-down-pulled"] {
            assert!(
                run(name).iter().any(|ran| ran.client.is_err() || ran.outcomes[0].is_err()),
                "{name}: the fault is met"
            );
        }
    }
}
