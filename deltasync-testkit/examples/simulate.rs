//! Runs simulations: many seeds, or one with all that happens in it.
//!
//! ```text
//! simulate --seeds 1000000 [--start N] [--threads N]
//! simulate --seed N [--trace]
//! ```
//!
//! Ends with 1 when a run broke a promise, or when what it is meant to exercise never happened.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use deltasync_testkit::{Simulated, Tally, simulate};

/// Failures are told up to this many.
const TOLD: usize = 20;
/// What so many runs have not met, no run meets.
const ENOUGH: u64 = 5_000;

fn main() -> ExitCode {
    match arguments() {
        Ok(Asked { seed: Some(seed), trace, .. }) => one(seed, trace),
        Ok(asked) => many(&asked),
        Err(wrong) => {
            eprintln!("{wrong}\nusage: simulate --seeds COUNT [--start N] [--threads N] | --seed N [--trace]");
            ExitCode::from(2)
        }
    }
}

struct Asked {
    seed: Option<u64>,
    trace: bool,
    seeds: u64,
    start: u64,
    threads: u64,
}

fn arguments() -> Result<Asked, String> {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let mut asked = Asked { seed: None, trace: false, seeds: 10_000, start: 0, threads: cores };
    let mut arguments = env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a number"))?;
            value.parse().map_err(|error| format!("{name} {value}: {error}"))
        };
        match name.as_str() {
            "--seed" => asked.seed = Some(number()?),
            "--seeds" => asked.seeds = number()?,
            "--start" => asked.start = number()?,
            "--threads" => asked.threads = number()?.max(1),
            "--trace" => asked.trace = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(asked)
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let Simulated { failure, trace: number, tally, steps, lines, .. } = simulate(seed, trace);
    print!("{}", lines.unwrap_or_default());
    print!("{tally}");
    println!("seed {seed}: {steps} steps, trace {number:016x}");
    match failure {
        Some(failure) => {
            println!("FAILED: {failure}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn many(asked: &Asked) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(asked.start);
    let end = asked.start + asked.seeds;
    let run = || {
        let (mut tally, mut steps, mut failures) = (Tally::default(), 0, Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return (tally, steps, failures);
            }
            let ran = simulate(seed, false);
            tally += &ran.tally;
            steps += ran.steps;
            if let Some(failure) = ran.failure {
                eprintln!("seed {seed}: {failure}");
                failures.push((seed, failure));
            }
        }
    };
    let (mut tally, mut steps, mut failures) = (Tally::default(), 0, Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..asked.threads).map(|_| scope.spawn(run)).collect();
        for thread in threads {
            let (counts, more, failed) = thread.join().expect("runs catch their panics");
            tally += &counts;
            steps += more;
            failures.extend(failed);
        }
    });
    let took = begun.elapsed().max(Duration::from_millis(1));
    print!("{tally}");
    let pace = asked.seeds as f64 / took.as_secs_f64();
    println!("{} runs, {steps} steps in {:.1} s: {pace:.0} runs/s", asked.seeds, took.as_secs_f64());
    failures.sort_unstable();
    for (seed, failure) in failures.iter().take(TOLD) {
        println!("FAILED: seed {seed}: {failure}");
    }
    let never = tally.never();
    if asked.seeds >= ENOUGH && !never.is_empty() {
        println!("never happened: {}", never.join(", "));
        return ExitCode::FAILURE;
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
