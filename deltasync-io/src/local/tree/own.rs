//! A file that has other names gets one of its own before anything about it is changed in place: what has the others is not
//! of this tree, or is another entry of it.

use std::io;

use deltasync_core::RelPath;
use deltasync_proto::{FaultKind, StorageFault};

use super::making::hidden;
use super::xattrs;
use crate::disk::{AnyFile, DiskKind};
use crate::fault::{fault, system_fault};
use crate::local::root::Root;
use crate::source::{Looks, with_buffer};

/// Puts a copy in the place of a file, durably, with its bytes, permissions, time and extended attributes as they were.
pub(in crate::local) fn own_copy(root: &Root, path: &RelPath) -> Result<AnyFile, StorageFault> {
    let Some((above, name)) = path.split_last() else { return Err(fault(FaultKind::WrongKind, path, "no file")) };
    let dir = root.directory(&above).map_err(|trouble| trouble.at(&above))?;
    let copied = || {
        let from = dir.open_file(&name)?;
        let (hidden, file) = hidden(&name, |hidden| dir.create(hidden, 0o600))?;
        let put = copy(&from, &file).and_then(|()| dir.rename(&hidden, &dir, &name));
        put.inspect_err(|_| drop(dir.remove(&hidden)))?;
        Ok(file)
    };
    copied().map_err(|error: io::Error| system_fault(path, &error))
}

/// Copies all of a file, durably; what is a hole stays one.
fn copy(from: &AnyFile, to: &AnyFile) -> io::Result<()> {
    let (is, looks) = (from.stat()?, Looks::of(from)?);
    if is.kind != DiskKind::File {
        return Err(io::Error::other("it is no file any more"));
    }
    to.set_len(is.len)?;
    let sparse = from.is_sparse();
    with_buffer(|buffer| {
        let mut at = 0;
        while at < is.len {
            let len = (is.len - at).min(buffer.len() as u64);
            let piece = &mut buffer[..usize::try_from(len).expect("no longer than the buffer")];
            if !sparse || !from.is_hole(at, len) {
                from.read_exact_at(piece, at)?;
                to.write_all_at(piece, at)?;
            }
            at += len;
        }
        io::Result::Ok(())
    })?;
    // Where some cannot be read or set, the file matters more.
    let _ = xattrs::read(from, |_| {}).and_then(|xattrs| xattrs::write(to, &xattrs));
    to.set_mode(is.mode & super::MODE)?;
    to.set_modified((is.modified.0, u32::try_from(is.modified.1).map_err(io::Error::other)?))?;
    if Looks::of(from)? != looks {
        return Err(io::Error::other("changed while it was copied"));
    }
    to.sync_data()
}
