//! A file that has other names gets one of its own before anything about it is changed in place: what has the others is not
//! of this tree, or is another entry of it.

use std::io;

use deltasync_core::RelPath;

use super::making::hidden;
use super::xattrs;
use crate::disk::AnyFile;
use crate::local::root::{Root, Trouble};
use crate::source::{Looks, with_buffer};

/// Puts a copy in the place of a file, durably, with its bytes, permissions, time and extended attributes as they were.
pub(super) fn own_copy(root: &Root, path: &RelPath) -> Result<AnyFile, Trouble> {
    own_copy_of(root, path, &root.file(path)?)
}

/// The same of a file that is open; what else has come to its place stays.
pub(in crate::local) fn own_copy_of(root: &Root, path: &RelPath, from: &AnyFile) -> Result<AnyFile, Trouble> {
    let (above, name) = path.split_last().ok_or(Trouble::Directory)?;
    let dir = root.directory(&above)?;
    let is_there = || {
        let (there, is) = (dir.stat(&name)?, from.stat()?);
        match there {
            Some(there) if (there.device, there.inode) == (is.device, is.inode) => Ok(()),
            _ => Err(io::Error::other("another file has come to its place")),
        }
    };
    let (hidden, file) = hidden(&name, |hidden| dir.create(hidden, 0o600))?;
    let put = copy(from, &file).and_then(|()| is_there()).and_then(|()| dir.rename(&hidden, &dir, &name));
    put.inspect_err(|_| drop(dir.remove(&hidden)))?;
    Ok(file)
}

/// Copies all of a file, durably; what is a hole stays one.
pub(super) fn copy(from: &AnyFile, to: &AnyFile) -> io::Result<()> {
    let is = from.stat()?;
    let looks = Looks::of_stat(&is);
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
    let _ = xattrs::read(from.attributed(), |_| {}).and_then(|xattrs| xattrs::write(to.attributed(), &xattrs));
    to.set_mode(is.mode & super::MODE)?;
    to.set_modified((is.modified.0, u32::try_from(is.modified.1).map_err(io::Error::other)?))?;
    if !looks.under_any_name().still(&Looks::of(from)?) {
        return Err(io::Error::other("changed while it was copied"));
    }
    to.sync_data()
}
