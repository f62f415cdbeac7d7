//! The pairs of files, made by a process of its own: whoever starts programs must stay small, as their memory is measured.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use deltasync_benches::{Shape, run_client, workload};

use crate::Measuring;

/// The length of small files, in bytes.
const SMALL: usize = 4 << 20;

/// Whether a size on the command line is the small one.
pub(crate) fn is_small(size: &str) -> Option<bool> {
    match size {
        "small" => Some(true),
        "full" => Some(false),
        _ => None,
    }
}

/// Makes `old` and `new` of a workload in `dir`.
///
/// # Errors
///
/// When they cannot be made, which may be for want of a program: see the workload.
pub(crate) fn prepare(measuring: &Measuring, name: &str, dir: &Path) -> io::Result<()> {
    let size = if measuring.small { "small" } else { "full" };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--make", name, &measuring.seed.to_string(), size]).arg(dir);
    run_client(&mut command).map(drop)
}

/// What the process of [`prepare`] does.
pub(crate) fn make(name: &str, seed: &str, size: &str, dir: &Path) -> io::Result<()> {
    let seed = seed.parse().map_err(io::Error::other)?;
    let workload = workload(name).ok_or_else(|| io::Error::other(format!("{name} is no workload")))?;
    let [old, new] = if is_small(size) == Some(true) {
        let shape = match name {
            "W6" => Shape::Identical,
            "W9" => Shape::RowsEdited,
            "W10" | "W11" => Shape::ArchiveWithNewHeaders,
            "W14" => Shape::Unrelated,
            _ => Shape::ScatteredEdits,
        };
        let case = shape.case(seed, SMALL);
        [case.basis.into(), case.target.into()]
    } else {
        let files = workload.files(seed).map_err(io::Error::other)?;
        [files.old, files.new]
    };
    for (name, bytes) in [("old", old), ("new", new)] {
        fs::write(dir.join(name), bytes)?;
        // No push pays for it.
        fs::File::open(dir.join(name))?.sync_all()?;
    }
    Ok(())
}
