//! The program that carries out a delta and verifies the result, beside a process that copies the same bytes.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use deltasync_benches::{beside, fresh_file, run_client};

use crate::table::{Cost, Of, Row};
use crate::{Measuring, pairs};

/// As much as a copy reads and writes at once, in bytes.
const PIECE: usize = 256 << 10;

/// W5: a GiB with 200 small edits.
pub(crate) fn edited(on: &Measuring) -> io::Result<Vec<Row>> {
    let dir = tempfile::tempdir_in(&on.dir)?;
    pairs::prepare(on, "W5", dir.path())?;
    let [old, new, signature, delta, out] =
        ["old", "new", "signature", "delta", "out"].map(|name| dir.path().join(name));
    let program = |verb: &str| {
        let mut command = Command::new(beside("deltasync")?);
        command.arg(verb);
        io::Result::Ok(command)
    };
    run_client(program("signature")?.args([&old, &signature]))?;
    run_client(program("delta")?.args([&signature, &new, &delta]))?;
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..on.rounds {
        for (copies, costs) in [false, true].into_iter().zip(&mut costs) {
            let mut command;
            if copies {
                command = Command::new(std::env::current_exe()?);
                command.arg("--copy").args([&new, &out]);
            } else {
                command = program("patch")?;
                command.args([&old, &delta, &out]);
            }
            costs.push(Cost::new(run_client(&mut command)?, None));
            // Both write a fresh file.
            fs::remove_file(&out)?;
        }
    }
    let [patches, copies] = costs;
    let row = |of| Row::new("patch of W5, verified", of, patches.clone()).beside("pwrite copy", &copies);
    Ok(vec![row(Of::Wall).most(1.0 / 0.6), row(Of::Cpu)])
}

/// What the process of a copy does.
pub(crate) fn copy(from: &str, to: &str) -> io::Result<()> {
    let mut from = File::open(from)?;
    let to = fresh_file(Path::new(to), from.metadata()?.len())?;
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            // As a patch does before its file counts.
            return to.sync_all();
        }
        to.write_all_at(&piece[..read], at)?;
        at += read as u64;
    }
}
