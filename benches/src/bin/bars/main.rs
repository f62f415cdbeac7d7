//! Measures what needs real processes, beside others, and prints it with the bars that hold for it.
//!
//! `bars [--only W5,W6,W14,upload,download,patch,exact,sparse] [--rounds 5] [--seed 1] [--size full|small] [--dir DIR] [--fsync]
//! [--perf DIR] [--strict]`. A push is a fresh server process on loopback, `deltasync-server` or an rsync daemon, that is
//! asked to end after it; what counts is the time of the processor of client and server together, from the start of the
//! programs to their end, or the time on the clock of the client. The ways take turns, and ratios are of medians.
//!
//! Files are below `--dir`, in a directory that is removed: up to 6 GiB (`--size small`: 100 MB). The default is
//! `/dev/shm`, where neither our syncs nor rsync's lack of them decide; on a disk give `--fsync`, which rsync then does.
//! The programs are looked for beside this one: `cargo build --release --workspace`. Where rsync or xdelta3 is not
//! installed its rows are left out. `--perf` records deltasync's processes with `perf` and lists where their time went;
//! the figures of such a run count perf's own work too.

mod exact;
mod pairs;
mod patch;
mod pushes;
mod sparse;
mod table;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use table::Row;

const USAGE: &str = "usage: bars [--only W5,W6,W14,upload,download,patch,exact,sparse] [--rounds 5] [--seed 1] \
                     [--size full|small] [--dir DIR] [--fsync] [--perf DIR] [--strict]";

/// What is measured: its name on the command line, and what does it.
type Case = (&'static str, fn(&Measuring) -> io::Result<Vec<Row>>);

const CASES: [Case; 8] = [
    ("W5", pushes::edited),
    ("W6", pushes::unchanged),
    ("W14", pushes::unrelated),
    ("upload", pushes::upload),
    ("download", pushes::download),
    ("patch", patch::edited),
    ("exact", exact::all),
    ("sparse", sparse::edited),
];

/// What all cases are measured by.
struct Measuring {
    rounds: usize,
    seed: u64,
    /// Files of a few MiB, so that the program is tried in seconds.
    small: bool,
    dir: PathBuf,
    fsync: bool,
    perf: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--make", name, seed, size, dir] => pairs::make(name, seed, size, Path::new(dir)).map(|()| 0),
        ["--exact", old, new, out] => exact::one(old, new, out).map(|()| 0),
        ["--copy", from, to] => patch::copy(from, to).map(|()| 0),
        _ => match parse(args.into_iter()) {
            Some((cases, measuring, strict)) => run(&cases, &measuring).map(|missed| if strict { missed } else { 0 }),
            None => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        },
    };
    match result {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bars: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and returns how many rows miss their bar.
fn run(cases: &[Case], measuring: &Measuring) -> io::Result<usize> {
    let Measuring { rounds, seed, dir, .. } = measuring;
    println!("Median of {rounds} rounds in turn (least to most), seed {seed}, files in {}.\n", dir.display());
    println!("{}", table::HEAD);
    let mut missed = 0;
    for (_, measure) in cases {
        for row in measure(measuring)? {
            println!("{row}");
            missed += usize::from(row.misses());
        }
    }
    println!("\n{missed} rows miss a bar.");
    if let Some(dir) = &measuring.perf {
        pushes::list_profiles(dir)?;
    }
    Ok(missed)
}

/// True when there is a program of this name.
fn installed(name: &str, version: &str) -> bool {
    let there = Command::new(name).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("{name} is not installed: left out");
    }
    there
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<(Vec<Case>, Measuring, bool)> {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    let mut cases = CASES.to_vec();
    let mut measuring = Measuring { rounds: 5, seed: 1, small: false, dir, fsync: false, perf: None };
    let mut strict = false;
    while let Some(option) = args.next() {
        match option.as_str() {
            "--strict" => strict = true,
            "--fsync" => measuring.fsync = true,
            "--only" => {
                let case = |name: &str| CASES.into_iter().find(|case| case.0 == name);
                cases = args.next()?.split(',').map(case).collect::<Option<_>>()?;
            }
            "--rounds" => measuring.rounds = args.next()?.parse().ok().filter(|rounds| *rounds > 0)?,
            "--seed" => measuring.seed = args.next()?.parse().ok()?,
            "--size" => measuring.small = pairs::is_small(&args.next()?)?,
            "--dir" => measuring.dir = args.next()?.into(),
            "--perf" => measuring.perf = Some(args.next()?.into()),
            _ => return None,
        }
    }
    Some((cases, measuring, strict))
}
