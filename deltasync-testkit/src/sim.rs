//! Whole runs of a server and its clients, with everything that can go wrong, from one number.
//!
//! A run has one server storage and one to three clients with files of their own, who push and pull a few paths, some of
//! them the same, some under conditions, each over its own connections, and who connect again when one is lost. The link
//! delays, splits, cuts, falls silent or damages bytes; recorded connections are played again later; storages fail, take
//! long, and give wrong bytes; the server loses its power at any moment and comes back on what is left. There are no
//! threads and there is no time but a number: what happens next is drawn from the seed, so a run that failed is run again
//! by its seed alone.
//!
//! What must hold is written where it is seen: `history` (what commits do), `store` (what a storage is asked), `world`
//! (what a session does), `judge` (what a client is told, and the end of a run).
//!
//! Two things are counted and not held against a run. A client that gives up a connection and comes back on another may
//! still have bytes under way on the first: a late offer of these, with the sign of life that was sent along, replaces what
//! has been published since. And over a link that alters bytes only contents are protected, by their roots; what a frame
//! says of paths and conditions is safe only where the link sees to it.
//!
//! A run takes a few milliseconds. `cargo run --release -p deltasync-testkit --example simulate -- --seeds 1000000` runs
//! many; with `--seed N --trace` it tells all that happens in one.
//!
//! Source: the way of testing is that of FoundationDB (Zhou et al., "FoundationDB: A Distributed Unbundled Transactional
//! Key Value Store", SIGMOD 2021, section 6.1).

mod client;
mod ground;
mod history;
mod judge;
mod plan;
mod store;
mod tally;
mod trace;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use tally::{Seen, Tally};

use world::World;

/// In nanoseconds.
const MILLISECOND: u64 = 1_000_000;
/// In nanoseconds.
const SECOND: u64 = 1_000 * MILLISECOND;

/// What came of one run.
#[derive(Clone, Debug)]
pub struct Simulated {
    /// The number it was made from.
    pub seed: u64,
    /// Which promise was broken; `None` when all held.
    pub failure: Option<String>,
    /// Of everything that happened, in order: the same for the same seed.
    pub trace: u64,
    /// What the run has been through.
    pub tally: Tally,
    /// How many things happened.
    pub steps: u64,
    /// Everything that happened, a line each, when it was asked for.
    pub lines: Option<String>,
}

/// Runs a server and its clients as `seed` has it; with `lines` it keeps a line for each thing that happens.
pub fn simulate(seed: u64, lines: bool) -> Simulated {
    let mut world = World::new(seed, lines);
    let failure = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(result) => result.err(),
        Err(panic) => Some(format!("panicked: {}", message(&*panic))),
    };
    let steps = world.steps();
    let tally = world.tally.clone();
    let (trace, lines) = world.trace.finish();
    Simulated { seed, failure, trace, tally, steps, lines }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("with a payload that is no text")
}
