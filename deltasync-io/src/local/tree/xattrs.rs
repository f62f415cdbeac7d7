//! Extended attributes of files and directories: read to be listed, and made what an entry says.
//!
//! # Security
//!
//! Names come from a peer without their namespace, see [`Xattrs`]: the only one they get is [`USER`], which the system does
//! not go by.

use std::io::{self, ErrorKind};

use deltasync_core::Xattrs;

use crate::disk::{DiskXattrs, uninterrupted};

/// The namespace of users.
const USER: &[u8] = b"user.";

/// The extended attributes of users that something has, none where its disk has none. What is not kept is told: those
/// beyond [`Xattrs::MAX`] bytes, and those of other namespaces that mean something on another system too.
pub(super) fn read(of: &dyn DiskXattrs, mut left_out: impl FnMut(String)) -> io::Result<Xattrs> {
    let mut xattrs = Xattrs::default();
    let mut names = match uninterrupted(|| of.xattrs()) {
        Ok(names) => names,
        Err(error) if is_unsupported(&error) => return Ok(xattrs),
        Err(error) => return Err(error),
    };
    names.sort_unstable();
    for name in names {
        let shown = || String::from_utf8_lossy(&name).into_owned();
        let Some(short) = name.strip_prefix(USER) else {
            if means_something_elsewhere(&name) {
                left_out(format!("its extended attribute {} is not kept", shown()));
            }
            continue;
        };
        // It may have gone since it was named.
        let Some(value) = uninterrupted(|| of.xattr(&name))? else { continue };
        if let Err(error) = xattrs.push(short, &value) {
            left_out(format!("its extended attribute {} is not kept: {error}", shown()));
        }
    }
    Ok(xattrs)
}

/// Makes the extended attributes of users what is wanted; no others are touched.
pub(super) fn write(of: &dyn DiskXattrs, wanted: &Xattrs) -> io::Result<()> {
    let there = match uninterrupted(|| of.xattrs()) {
        Err(error) if wanted.is_empty() && is_unsupported(&error) => return Ok(()),
        names => names?,
    };
    let named = |name: &[u8]| [USER, name].concat();
    for name in there.iter().filter(|name| name.starts_with(USER)) {
        if !wanted.iter().any(|(wanted, _)| named(wanted) == *name) {
            uninterrupted(|| of.set_xattr(name, None))?;
        }
    }
    for (name, value) in wanted.iter() {
        let name = named(name);
        if !there.contains(&name) || uninterrupted(|| of.xattr(&name))?.as_deref() != Some(value) {
            uninterrupted(|| of.set_xattr(&name, Some(value)))?;
        }
    }
    Ok(())
}

/// Labels of a security module are its own system's.
fn means_something_elsewhere(name: &[u8]) -> bool {
    !name.starts_with(b"security.") || name == b"security.capability"
}

fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == ErrorKind::Unsupported
}
