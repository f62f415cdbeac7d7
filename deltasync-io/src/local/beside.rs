//! Targets that are staged beside their place, in directories that are not ours: a client's, or another file system that
//! is mounted below a served directory.
//!
//! Such a stage has one of a few names that the target's own name gives, `.NAME.deltasync-XXXXXXXX`, so that what a stage
//! that came to nothing has left is found again without reading the directory: a partial, to go on from. Who stages holds
//! an exclusive lock on the file, which ends with the process however that ends; what is not locked is nobody's. Who goes
//! on from a partial shares a lock, and who finds several goes on from the longest and removes the others, as does who has
//! published the target; a stage that comes to nothing only after that leaves nothing.
//!
//! # Security
//!
//! Others may write in the directory. A partial is a regular file of this user's own, no link, and no older than seven
//! days; its content is only ever a basis.

use std::io;

use deltasync_core::{Algorithm, Name};

use super::root::{Dir, staged_name};
use super::staging::{AGE_MAX, LEAST};
use crate::disk::{AnyFile, DiskKind, DiskStat};

/// How many stages of one target can be found again; others may run, too.
const SLOTS: u32 = 4;

/// How many more names are tried, when all are taken.
const MORE: u32 = 8;

/// Makes the file of a stage and locks it.
pub(super) fn create(directory: &Dir, target: &Name, mode: u32) -> io::Result<(Name, AnyFile)> {
    for attempt in 0..SLOTS + MORE {
        let name = if attempt < SLOTS {
            slot(target, attempt)
        } else {
            staged_name(target, getrandom::u32().map_err(io::Error::from)?)
        };
        let file = match directory.create(&name, mode) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        // Where nothing can be locked, nothing is taken for a partial either.
        let Ok(locked) = file.lock(false) else { return Ok((name, file)) };
        // Who looked for partials in between has it, or has removed it.
        match is_at(directory, &name, &file) {
            Ok(true) if locked => return Ok((name, file)),
            Ok(_) => {}
            Err(error) => {
                let _ = directory.remove(&name);
                return Err(error);
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Opens the longest partial of a target, and removes all others.
pub(super) fn find(directory: &Dir, target: &Name, longest: u64) -> Option<AnyFile> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    let now = i64::try_from(now.as_secs()).ok()?;
    let useful = |is: &DiskStat| (LEAST..=longest).contains(&is.len) && now.saturating_sub(is.modified.0) <= AGE_MAX;
    let mut best: Option<(Name, AnyFile, u64)> = None;
    for (name, file, is) in left(directory, target) {
        if !useful(&is) || best.as_ref().is_some_and(|(_, _, len)| *len >= is.len) {
            let _ = directory.remove(&name);
        } else if let Some((name, ..)) = best.replace((name, file, is.len)) {
            let _ = directory.remove(&name);
        }
    }
    best.map(|(_, file, _)| file)
}

/// Removes what stages of a target have left.
pub(super) fn forget(directory: &Dir, target: &Name) {
    for (name, ..) in left(directory, target) {
        let _ = directory.remove(&name);
    }
}

/// What stages of a target have left, each with a shared lock.
fn left(directory: &Dir, target: &Name) -> impl Iterator<Item = (Name, AnyFile, DiskStat)> {
    (0..SLOTS).filter_map(|number| {
        let name = slot(target, number);
        let file = directory.open_file(&name).ok()?;
        let is = file.stat().ok()?;
        let ours = is.kind == DiskKind::File && file.is_ours().ok()? && file.lock(true).ok()?;
        (ours && is_at(directory, &name, &file).ok()?).then_some((name, file, is))
    })
}

/// The names under which what is left is found.
fn slot(target: &Name, number: u32) -> Name {
    let hash = Algorithm::Blake3.digest(&[b"deltasync staged name ", target.as_bytes()].concat());
    let (start, _) = hash.as_bytes().split_first_chunk().expect("4 of 32 bytes");
    staged_name(target, u32::from_be_bytes(*start).wrapping_add(number))
}

/// True when the file still has this name.
fn is_at(directory: &Dir, name: &Name, file: &AnyFile) -> io::Result<bool> {
    let (there, is) = (directory.stat(name)?, file.stat()?);
    Ok(there.is_some_and(|there| (there.device, there.inode) == (is.device, is.inode)))
}
