//! Pairs that other programs make: a database edited by SQLite, two releases of a package from its registry.
//!
//! Both are made by `python3` in a directory that is thrown away, so they need that program, and the releases need `pip`
//! and a way to the registry. What lies between old and new is known to nobody here, so the floor is the content alone: the
//! literals of the exact delta with both files at hand, packed behind what lies beside them, see [`ExactSizes`]. Places are
//! thousands and as regular as pages and headers are, so what they cost at least is anyone's guess; they are not counted.

use std::process::Command;

use crate::{ExactSizes, Files, MakeError};

const PYTHON: &str = "python3";

/// 400,000 rows in pages of 4 KiB with an index, then a thousand updates and insertions.
pub(crate) fn database(seed: u64) -> Result<Files, MakeError> {
    fetch(include_str!("../python/database.py"), &seed.to_string())
}

/// Two consecutive releases as uncompressed tar; the seed changes nothing.
pub(crate) fn releases(_seed: u64) -> Result<Files, MakeError> {
    fetch(include_str!("../python/releases.py"), "")
}

/// Runs a script that leaves the files `old` and `new` in the directory it is given.
fn fetch(script: &str, argument: &str) -> Result<Files, MakeError> {
    let failed = |source| MakeError::Io { program: PYTHON, source };
    let dir = tempfile::tempdir().map_err(failed)?;
    let run = Command::new(PYTHON).args(["-c", script]).arg(dir.path()).arg(argument).output().map_err(failed)?;
    if !run.status.success() {
        let errors = String::from_utf8_lossy(&run.stderr);
        let message = errors.trim_end().lines().last().unwrap_or("it says nothing").to_owned();
        return Err(MakeError::Failed { program: PYTHON, message });
    }
    let read = |name| std::fs::read(dir.path().join(name)).map_err(failed);
    let (old, new) = (read("old")?, read("new")?);
    let floor = ExactSizes::of(&old, &new).packed as u64;
    Ok(Files { old: old.into(), new: new.into(), floor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs python3: run .ci/run"]
    fn a_script_leaves_two_files_or_says_why_not() {
        let script =
            "import sys\nfor name in ('old', 'new'): open(f'{sys.argv[1]}/{name}', 'w').write(name * 10 + sys.argv[2])";
        let files = fetch(script, "!").expect("python3 is there");
        assert_eq!((&files.old[..4], &files.new[..4], files.new.last()), (&b"oldo"[..], &b"newn"[..], Some(&b'!')));
        let error = fetch("raise ValueError('so')", "").expect_err("it raises");
        assert_eq!(error.to_string(), "python3 failed: ValueError: so");
    }
}
