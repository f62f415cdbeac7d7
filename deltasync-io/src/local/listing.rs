//! A page of a directory, in the order of the names' bytes.
//!
//! The system lists names in no order, so a page costs a pass over the whole directory; memory is that of the page: of
//! the names after the last page only the smallest are kept, in a heap.

use std::collections::BinaryHeap;
use std::io;

use deltasync_core::{ByteLen, Name, RelPath};
use deltasync_proto::{Answer, Entry, EntryKind};

use super::root::{Dir, Root, Trouble, entry_kind};
use crate::disk::DiskStat;

/// The most entries of a page, whatever is asked for.
const MOST: usize = 1 << 16;

/// Lists a directory, or a single file as itself.
pub(super) fn list(root: &Root, path: &RelPath, after: Option<&Name>, most: usize) -> Result<Answer, Trouble> {
    let stat = root.stat(path)?.ok_or_else(|| Trouble::from(io::Error::from(rustix::io::Errno::NOENT)))?;
    if let (EntryKind::File | EntryKind::Other, Some((_, name))) = (entry_kind(&stat), path.split_last()) {
        let fits = after.is_none_or(|after| name > *after);
        let mut entries: Vec<_> = fits.then(|| entry(name, &stat)).into_iter().collect();
        let more = entries.len() > most;
        entries.truncate(most);
        return Ok(Answer::Listed { entries, more });
    }
    let dir = root.directory(path)?;
    let mut after = after.cloned();
    loop {
        let (names, more) = smallest(root, path, &dir, after.as_ref(), most.min(MOST))?;
        after = names.last().cloned();
        // A name may have gone since it was read.
        let found: io::Result<Vec<_>> =
            names.into_iter().map(|name| Ok(dir.stat(&name)?.map(|stat| entry(name, &stat)))).collect();
        let entries: Vec<_> = found?.into_iter().flatten().collect();
        // An empty page gives nothing to go on from.
        if !entries.is_empty() || !more || after.is_none() {
            return Ok(Answer::Listed { entries, more });
        }
    }
}

/// The `most` smallest names after `after`, in order, and whether there are more.
fn smallest(
    root: &Root,
    path: &RelPath,
    dir: &Dir,
    after: Option<&Name>,
    most: usize,
) -> io::Result<(Vec<Name>, bool)> {
    let mut heap = BinaryHeap::new();
    let mut more = false;
    for name in dir.names()? {
        let name = name?;
        if root.hides(path, name.as_bytes()) || after.is_some_and(|after| name <= *after) {
            continue;
        }
        if heap.len() < most {
            heap.push(name);
            continue;
        }
        more = true;
        if let Some(mut largest) = heap.peek_mut()
            && name < *largest
        {
            *largest = name;
        }
    }
    Ok((heap.into_sorted_vec(), more))
}

fn entry(name: Name, stat: &DiskStat) -> Entry {
    let kind = entry_kind(stat);
    let len = if kind == EntryKind::File { stat.len } else { 0 };
    Entry { name, kind, len: ByteLen::new(len), modified: stat.modified.0 }
}
