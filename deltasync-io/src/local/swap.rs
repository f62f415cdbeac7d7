//! What a commit replaces: it names what it saw at its place, and is refused when that is no longer so.
//!
//! A place where nothing was is taken by a rename that fails when something is there, so that not even a stranger's file is
//! lost. A file that was opened is looked at by its name just before the rename over it: it must be the same one, and look
//! as it did; that it has got or lost another name is no matter. Among the commits of one server these two steps are one, as
//! they take turns. Of two pulls into one directory, also by two processes, each waits for the other by a lock (flock) on the
//! directory.
//!
//! A window remains for programs that know nothing of us, and where the system lacks one of these means: what such a program
//! writes to the old file, or puts in its place, after our look and before our rename (some microseconds) is replaced
//! unseen. So is a change that leaves the length and the times, which a system may stamp only every few milliseconds. And a
//! lock that somebody keeps for longer than [`PATIENCE`] is not waited for, since anyone who can read a directory can lock
//! it.

use std::io;
use std::thread;
use std::time::Duration;

use deltasync_proto::{FaultKind, StorageFault};
use rustix::io::Errno;

use super::opened::Opened;
use super::root::Dir;
use super::stage::{Ready, check_target};
use crate::fault::{fault, system_fault};

/// How often and after how long another process's lock is looked at again.
const PATIENCE: (u32, Duration) = (1000, Duration::from_millis(1));

/// Looks whether what a commit replaces is what is there; `None` is nothing.
///
/// # Errors
///
/// A fault of kind [`FaultKind::Conflict`] when it is not; another when no file can be put there.
pub(super) fn check(ready: &Ready<'_>, replaces: Option<&Opened>) -> Result<(), StorageFault> {
    let path = &ready.place().path;
    // A tree that holds it may have been replaced as one change.
    if !ready.is_parent_there()? {
        return Err(fault(FaultKind::Other, path, "its directory has been replaced meanwhile: try again"));
    }
    let is = ready.parent().stat(ready.target()).map_err(|error| system_fault(path, &error))?;
    check_target(is.as_ref()).map_err(|trouble| trouble.at(path))?;
    let same = match (is, replaces) {
        (None, None) => true,
        (Some(is), Some(opened)) => opened.is_still(&is),
        (Some(_), None) | (None, Some(_)) => false,
    };
    if same { Ok(()) } else { Err(conflict(ready)) }
}

/// Puts a target in place, where [`check`] has just found what it replaces.
///
/// # Errors
///
/// A fault of kind [`FaultKind::Conflict`] when there was nothing, and now there is something; what the system says.
pub(super) fn put_in_place(ready: &Ready<'_>, replaces: Option<&Opened>) -> Result<(), StorageFault> {
    let system = |error: io::Error| system_fault(&ready.place().path, &error);
    if replaces.is_some() {
        return ready.put_in_place().map_err(system);
    }
    match ready.put_in_vacant_place() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(check(ready, None).err().unwrap_or_else(|| {
                // It went again at once.
                conflict(ready)
            }))
        }
        Err(error) if is_unknown(&error) => {
            check(ready, None)?;
            ready.put_in_place().map_err(system)
        }
        done => done.map_err(system),
    }
}

/// Waits for the turn to change a directory that other processes of ours change too; the turn ends with what is returned.
/// `None` where there is no such lock, or when it is not to be had.
pub(super) fn turn(directory: &Dir) -> Option<Dir> {
    // Not by a handle that lives on, since the lock lives as long.
    let handle = directory.reopen().ok()?;
    let (times, pause) = PATIENCE;
    for _ in 0..times {
        if handle.lock().ok()? {
            return Some(handle);
        }
        thread::sleep(pause);
    }
    None
}

fn conflict(ready: &Ready<'_>) -> StorageFault {
    fault(FaultKind::Conflict, &ready.place().path, "another version is there")
}

/// True when a system says that it cannot look and move in one step.
pub(super) fn is_unknown(error: &io::Error) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
