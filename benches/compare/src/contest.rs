//! Measures several ways to do one thing, in turn, so that whatever else the machine does meets all of them.
//!
//! Each round runs every entrant once, in the order given; the first round of an entrant is not counted unless it is slow.
//! What counts is the time of the processor that the process used, or, where several threads work or a file is written,
//! the time on the clock.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// One way to do it.
pub(crate) struct Entrant<'a> {
    name: &'static str,
    rounds: Option<usize>,
    run: Box<dyn FnMut() -> u64 + 'a>,
}

/// What one entrant took.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Who.
    pub(crate) name: &'static str,
    /// What the run gave back: literal bytes, or how many of something.
    pub(crate) gave: Option<u64>,
    /// Seconds of the processor, ascending.
    pub(crate) cpu: Vec<f64>,
    /// Seconds on the clock, ascending.
    pub(crate) wall: Vec<f64>,
}

impl<'a> Entrant<'a> {
    /// An entrant; what `run` gives back must be the same each time.
    pub(crate) fn new(name: &'static str, run: impl FnMut() -> u64 + 'a) -> Self {
        Self { name, rounds: None, run: Box::new(run) }
    }

    /// Measures it in three rounds at most, and in none before: it takes seconds.
    pub(crate) fn slow(mut self) -> Self {
        self.rounds = Some(3);
        self
    }
}

impl Measured {
    /// The middle, or the later of the two in the middle.
    pub(crate) fn median(sorted: &[f64]) -> f64 {
        sorted[sorted.len() / 2]
    }
}

/// Measures the entrants in turn, `rounds` times each.
pub(crate) fn contest(rounds: usize, mut entrants: Vec<Entrant<'_>>) -> Vec<Measured> {
    let mut all: Vec<Measured> = (entrants.iter())
        .map(|entrant| Measured { name: entrant.name, gave: None, cpu: Vec::new(), wall: Vec::new() })
        .collect();
    for (entrant, measured) in entrants.iter_mut().zip(&mut all) {
        if entrant.rounds.is_none() {
            measured.gave = Some((entrant.run)());
        }
    }
    for round in 0..rounds {
        for (entrant, measured) in entrants.iter_mut().zip(&mut all) {
            if entrant.rounds.is_some_and(|most| round >= most) {
                continue;
            }
            let (begun, used) = (Instant::now(), cpu());
            let gave = (entrant.run)();
            measured.cpu.push((cpu() - used).as_secs_f64());
            measured.wall.push(begun.elapsed().as_secs_f64());
            let before = *measured.gave.get_or_insert(gave);
            assert_eq!(gave, before, "{} gives back something else", entrant.name);
        }
    }
    for measured in &mut all {
        measured.cpu.sort_by(f64::total_cmp);
        measured.wall.sort_by(f64::total_cmp);
    }
    all
}

/// What this process has used of the processor so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
