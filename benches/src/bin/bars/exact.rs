//! The exact delta of two files at hand, beside xdelta3's.
//!
//! Both are a process that reads two files and writes one. xdelta3 has its best level, its second compressor and a window of
//! the size of the file.

use std::fs;
use std::io;
use std::process::Command;

use deltasync_benches::{exact_delta, run_client};

use crate::table::{Cost, Of, Row};
use crate::{Measuring, installed, pairs};

/// xdelta3 takes minutes for some of them.
const ROUNDS: usize = 3;

/// Measures the workloads that have a bar.
pub(crate) fn all(on: &Measuring) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, most) in [("W9", 0.3), ("W10", 0.3), ("W11", 0.3), ("W5", 0.3), ("W14", 0.1)] {
        match measure(on, name) {
            Ok([ours, theirs]) => {
                let row = Row::new(&format!("exact delta of {name}"), Of::Cpu, ours).beside("xdelta3", &theirs);
                rows.push(row.most(most).most_len(1.05));
            }
            // Some need python3 and a network.
            Err(error) => eprintln!("exact, {name}: left out: {error}"),
        }
    }
    Ok(rows)
}

/// What the process that is measured does.
pub(crate) fn one(old: &str, new: &str, out: &str) -> io::Result<()> {
    fs::write(out, exact_delta(&fs::read(old)?, &fs::read(new)?))
}

fn measure(on: &Measuring, name: &str) -> io::Result<[Vec<Cost>; 2]> {
    let dir = tempfile::tempdir_in(&on.dir)?;
    pairs::prepare(on, name, dir.path())?;
    let paths = ["old", "new", "out"].map(|name| dir.path().join(name));
    let window = fs::metadata(&paths[0])?.len().next_power_of_two().max(1 << 20).to_string();
    let has_xdelta3 = installed("xdelta3", "-V");
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..on.rounds.min(ROUNDS) {
        for (xdelta3, costs) in [false, true].into_iter().zip(&mut costs) {
            let mut command;
            if xdelta3 {
                command = Command::new("xdelta3");
                command.args(["-9", "-S", "djw", "-e", "-f", "-B", &window, "-s"]);
            } else {
                command = Command::new(std::env::current_exe()?);
                command.arg("--exact");
            }
            if !xdelta3 || has_xdelta3 {
                let used = run_client(command.args(&paths))?;
                costs.push(Cost { len: fs::metadata(&paths[2])?.len(), ..Cost::new(used, None) });
            }
        }
    }
    Ok(costs)
}
