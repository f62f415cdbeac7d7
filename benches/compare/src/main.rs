//! Compares the engine with what others have: fast_rsync, librsync, fastcdc, BLAKE3 alone, a plain copy.
//!
//! `deltasync-compare [--only diff,patch] [--size-mib 256] [--rounds 7] [--seed 1] [--dir DIR] [--strict]`. All entrants of
//! a stage run in turn in one process, and the ratio is of their medians. Prints one table, with the bars where there are
//! some and a mark at those that are missed; that says nothing to the exit code without `--strict`.
//!
//! Files are four times `--size-mib` long; `--dir` (default `/dev/shm`, where it exists) holds three of them at most, the
//! memory takes about ten times `--size-mib`.

mod contest;
mod data;
mod delta_len;
mod librsync;
mod stages;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use stages::{Measuring, STAGES, Stage};

const USAGE: &str = "usage: deltasync-compare [--only STAGE,STAGE] [--size-mib 256] [--rounds 7] [--seed 1] [--dir DIR] \
                     [--strict]\nstages: chunks, cut, signature, diff, patch, adversarial";

struct Args {
    stages: Vec<Stage>,
    len: usize,
    rounds: usize,
    seed: u64,
    dir: PathBuf,
    strict: bool,
}

fn main() -> ExitCode {
    let Some(args) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&args) {
        Ok(missed) if missed > 0 && args.strict => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("deltasync-compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and returns how many rows miss their bar.
fn run(args: &Args) -> std::io::Result<usize> {
    let dir = tempfile::tempdir_in(&args.dir)?;
    let measuring = Measuring {
        len: args.len,
        file_len: 4 * args.len as u64,
        rounds: args.rounds,
        seed: args.seed,
        dir: dir.path(),
    };
    println!("Median of {} rounds in turn, seed {}, time of the processor.\n", args.rounds, args.seed);
    println!("{}", table::HEAD);
    let mut missed = 0;
    for (_, measure) in &args.stages {
        for row in measure(&measuring)? {
            println!("{row}");
            missed += usize::from(row.misses());
        }
    }
    println!("\n{missed} rows miss a bar.");
    Ok(missed)
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Args> {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    let mut parsed = Args { stages: STAGES.to_vec(), len: 256 << 20, rounds: 7, seed: 1, dir, strict: false };
    while let Some(option) = args.next() {
        if option == "--strict" {
            parsed.strict = true;
            continue;
        }
        let value = args.next()?;
        match option.as_str() {
            "--only" => {
                let stage = |name: &str| STAGES.into_iter().find(|stage| stage.0 == name);
                parsed.stages = value.split(',').map(stage).collect::<Option<_>>()?;
            }
            "--size-mib" => {
                let mib = value.parse::<usize>().ok().filter(|mib| (1..=4096).contains(mib))?;
                parsed.len = mib << 20;
            }
            "--rounds" => parsed.rounds = value.parse().ok().filter(|rounds| *rounds > 0)?,
            "--seed" => parsed.seed = value.parse().ok()?,
            "--dir" => parsed.dir = value.into(),
            _ => return None,
        }
    }
    Some(parsed)
}
