//! Trouble as a peer may hear of it: the path as the peer knows it, then what happened.
//!
//! Invariant: no message holds a path of the machine. All are made here, from a [`RelPath`] and either our own words or
//! what the system says of an error number.

use std::fmt;
use std::io::{self, ErrorKind};

use deltasync_core::RelPath;
use deltasync_proto::{FaultKind, StorageFault};

/// A fault at `path`.
pub(crate) fn fault(kind: FaultKind, path: &RelPath, what: impl fmt::Display) -> StorageFault {
    if path.is_root() {
        StorageFault::new(kind, format!("/: {what}"))
    } else {
        StorageFault::new(kind, format!("{path}: {what}"))
    }
}

/// What the system said about `path`.
pub(crate) fn system_fault(path: &RelPath, error: &io::Error) -> StorageFault {
    fault(kind_of(error), path, error)
}

fn kind_of(error: &io::Error) -> FaultKind {
    match error.kind() {
        ErrorKind::NotFound => FaultKind::NotFound,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => FaultKind::Denied,
        ErrorKind::IsADirectory | ErrorKind::NotADirectory => FaultKind::WrongKind,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FaultKind::Full,
        ErrorKind::FileTooLarge => FaultKind::TooLarge,
        _ => FaultKind::Other,
    }
}
