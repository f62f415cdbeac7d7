//! Two sessions over a link with faults, as a list of operations: how the files differ, what the link does, what is asked.
//!
//! Each run ends by itself, and then the receiver's file is the old one or the new one, whole. Without a fault of the
//! link it is the new one; with one, a transfer that failed says why. A flipped bit may turn a request into another valid
//! one (nothing below us seals the bytes), so after one only the files are judged.

use std::time::Duration;

use deltasync_core::{Algorithm, RelPath};
use deltasync_proto::{Command, Config, RootId};

use super::take::Take;
use crate::{Direction, Link, Pair, Rng, Seed, file, pull, push};

/// No file of a run is longer, in bytes: single bytes over the link must stay quick.
const LEN_MAX: usize = 40_000;
const SERVED: RootId = RootId::new(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Loss,
    Flip,
}

struct Run {
    old: Option<Vec<u8>>,
    new: Vec<u8>,
    link: Link,
    fault: Fault,
    pull: bool,
    config: Config,
    others: usize,
}

/// A seed of 4 bytes, then operations: a byte for its kind and two numbers of two bytes each.
pub(super) fn pair(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let seed = (take.short() | take.short() << 16) as u64;
    let Run { old, new, link, fault, pull: pulls, config, others } = run_of(&mut take, seed);
    let mut pair = Pair::new(seed).link(link).config(config);
    let second = Rng::new(seed ^ 1).bytes(6000);
    let (at_receiver, receiver) = match pulls {
        false => {
            if let Some(old) = &old {
                pair = pair.basis(old.clone());
            }
            pair = pair.target(new.clone());
            (pair.remote.clone(), file())
        }
        true => {
            pair = pair.basis(new.clone()).pulled_onto(old.clone());
            (pair.local.clone(), file())
        }
    };
    let path = |name: &str| RelPath::new(name).expect("a plain name");
    pair.local.insert(SERVED, path("second"), second.clone());
    for command in 0..others {
        pair = pair.command(match command {
            0 => push(path("second"), path("second")),
            1 => Command::List { path: RelPath::ROOT, after: None },
            2 => Command::Root { path: path("second") },
            _ => pull(path("missing"), path("missing")),
        });
    }
    let remote = pair.remote.clone();
    let ran = pair.run_to_end();

    for error in ran.outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert!(!error.to_string().is_empty());
    }
    let there = at_receiver.get(SERVED, &receiver).map(|bytes| bytes.to_vec());
    assert!(there == old || there.as_ref() == Some(&new), "the file is neither the old one nor the new one");
    let second_there = remote.get(SERVED, &path("second"));
    assert!(second_there.is_none_or(|bytes| bytes == second), "half of the second file");
    match fault {
        Fault::None => {
            assert!(ran.outcomes[0].is_ok(), "nothing was in the way: {:?}", ran.outcomes[0]);
            assert!(ran.client.is_ok() && ran.server.is_ok(), "{:?} {:?}", ran.client, ran.server);
        }
        Fault::Loss | Fault::Flip => {}
    }
    if fault != Fault::Flip && ran.outcomes[0].is_ok() {
        assert!(there.as_ref() == Some(&new), "a transfer that went well leaves the new file");
    }
}

fn run_of(take: &mut Take<'_>, seed: u64) -> Run {
    let mut rng = Rng::new(seed);
    let mut run = Run {
        old: None,
        new: Vec::new(),
        link: Link::perfect(),
        fault: Fault::None,
        pull: false,
        config: Config::default(),
        others: 0,
    };
    // At most so many, or edits of edits take all the time.
    for _ in 0..64 {
        if take.is_empty() {
            break;
        }
        let (kind, a, b) = (take.byte(), take.short(), take.short());
        apply(&mut run, &mut rng, kind % 16, a, b);
        run.new.truncate(LEN_MAX);
    }
    run
}

fn apply(run: &mut Run, rng: &mut Rng, kind: u8, a: usize, b: usize) {
    let link = run.link.clone();
    let direction = if b & 1 == 0 { Direction::Up } else { Direction::Down };
    let at = run.new.len().min(a);
    match kind {
        0 => run.new.extend(rng.bytes(a)),
        1 => run.new.resize((run.new.len() + a).min(LEN_MAX), b as u8),
        2 => {
            let pattern = rng.bytes(1 + b % 2000);
            run.new.extend(pattern.into_iter().cycle().take(a));
        }
        // What stands so far is the old file, what follows edits it.
        3 => run.old = Some(run.new.clone()),
        4 => drop(run.new.splice(at..at, rng.bytes(b % 3000))),
        5 => drop(run.new.drain(at..run.new.len().min(at + b))),
        6 => run.new.rotate_left(at),
        7 => run.new.iter_mut().skip(a).take(1).for_each(|byte| *byte ^= b as u8),
        8 => run.link = if b & 1 == 0 { Link::split_every(1 + a % 5000) } else { Link::split_randomly(1 + a % 5000) },
        // There and back within the time that a hello may take.
        9 => run.link = link.delay(Duration::from_millis((a % 4000) as u64)),
        10 => (run.link, run.fault) = (link.cut(direction, a as u64), Fault::Loss),
        11 => (run.link, run.fault) = (link.stall(direction, a as u64), Fault::Loss),
        12 => (run.link, run.fault) = (link.flip(direction, a as u64), Fault::Flip),
        13 => run.pull = true,
        14 => run.config = std::mem::take(&mut run.config).tag_bits(1 + (a % 48) as u32).level((b % 4) as i32),
        _ => {
            run.config = std::mem::take(&mut run.config).algorithm(Algorithm::ALL[a % 2]);
            run.others = b % 5;
        }
    }
    if kind == 8 {
        // A new link has no fault.
        run.fault = Fault::None;
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
        with("cut-up", &[(10, 400, 0)]),
        with("cut-down", &[(10, 60, 1)]),
        with("cut-in-the-delta", &[(10, 900, 0)]),
        with("stalled", &[(11, 500, 0)]),
        with("stalled-down-pulled", &[(13, 0, 0), (11, 300, 1)]),
        with("flipped-hello", &[(12, 3, 0)]),
        with("flipped-tags", &[(12, 250, 0)]),
        with("flipped-want", &[(12, 45, 1)]),
        with("flipped-literals", &[(12, 1500, 0)]),
        with("collisions", &[(14, 2, 0)]),
        with("with-others", &[(15, 1, 4)]),
        seed("zeros", &[(1, 30_000, 0), (3, 0, 0), (7, 5000, 1), (4, 100, 3)]),
        seed("pattern-moved", &[(2, 30_000, 700), (3, 0, 0), (6, 1234, 0)]),
        seed("shortened-to-nothing", &[(0, 9000, 0), (3, 0, 0), (5, 0, 9000)]),
    ]
}
