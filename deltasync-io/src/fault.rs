//! Trouble as a peer may hear of it: the path as the peer knows it, then what happened.
//!
//! Invariant: no message holds a path of the machine. All are made here, from a [`RelPath`] and either our own words or
//! what the system says of an error number.

use std::fmt;
use std::io::{self, ErrorKind};

use deltasync_core::RelPath;
use deltasync_proto::{FaultKind, StorageFault};

/// The most bytes of a path in a message, which peers cut after 512: what happened comes behind it.
const PATH_MOST: usize = 300;

/// A fault at `path`; of a long one only the end is told.
pub(crate) fn fault(kind: FaultKind, path: &RelPath, what: impl fmt::Display) -> StorageFault {
    if path.is_root() {
        return StorageFault::new(kind, format!("/: {what}"));
    }
    let path = path.to_string();
    match path.len().checked_sub(PATH_MOST) {
        None | Some(0) => StorageFault::new(kind, format!("{path}: {what}")),
        Some(cut) => StorageFault::new(kind, format!("…{}: {what}", &path[path.ceil_char_boundary(cut)..])),
    }
}

/// What the system said about `path`.
pub(crate) fn system_fault(path: &RelPath, error: &io::Error) -> StorageFault {
    fault(kind_of(error), path, error)
}

/// What has to be refused of the root itself, which is neither moved nor removed.
pub(crate) fn not_the_root(path: &RelPath) -> Result<(), StorageFault> {
    match path.is_root() {
        true => Err(fault(FaultKind::Denied, path, "the whole directory can be neither moved nor removed")),
        false => Ok(()),
    }
}

/// Nothing may be there, and something is.
pub(crate) fn exists(path: &RelPath) -> StorageFault {
    fault(FaultKind::Exists, path, "something is there already")
}

/// It would have to go into what is in it.
pub(crate) fn into_itself(path: &RelPath) -> StorageFault {
    fault(FaultKind::Denied, path, "it cannot be moved into itself")
}

/// A directory is not removed with what is in it.
pub(crate) fn not_empty(path: &RelPath) -> StorageFault {
    fault(FaultKind::NotEmpty, path, "the directory is not empty")
}

pub(crate) fn kind_of(error: &io::Error) -> FaultKind {
    match error.kind() {
        ErrorKind::NotFound => FaultKind::NotFound,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => FaultKind::Denied,
        ErrorKind::IsADirectory | ErrorKind::NotADirectory => FaultKind::WrongKind,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FaultKind::Full,
        ErrorKind::FileTooLarge => FaultKind::TooLarge,
        _ => FaultKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_told_however_long_the_path_is() {
        for (path, told) in [
            ("x".repeat(200), "x".repeat(200)),
            ("d/".repeat(2000) + "f", "…".to_owned() + &("/".to_owned() + &"d/".repeat(149) + "f")),
            ("ü/".repeat(1000) + "f", "…".to_owned() + &("/".to_owned() + &"ü/".repeat(99) + "f")),
        ] {
            let path = RelPath::new(path.as_bytes()).expect("a path");
            let fault = system_fault(&path, &io::Error::from_raw_os_error(28));
            assert_eq!(fault.kind, FaultKind::Full);
            assert_eq!(fault.message, format!("{told}: No space left on device (os error 28)"));
            assert!(fault.message.len() < 512);
        }
    }
}
