//! Trees: the entries below a directory, listed without reading a file, and their archive, read as if it were one.
//!
//! How a tree becomes an archive is told in [`TreeList`]. Here its bytes are looked up: a header in the list, a content in
//! the file, which must still look as it was listed. `walk` makes the list, `making` makes a directory what an archive
//! says, and `asked` answers a session. `filtering` tells what takes part, `asking` what is told only when it is asked for:
//! `xattrs` reads and writes extended attributes. `own` gives a file with several names one of its own. By which commit a
//! served tree became what it is, `recorded_trees` knows.
//!
//! The bits of a mode that lend a user's or a group's rights, and the one that restricts deletion, are not ours to give:
//! no list has them, and what has them keeps them. Devices, sockets and pipes are left out, and named.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use deltasync_core::{
    Attributes, ByteLen, Generation, LimitExceeded, Offset, RelPath, TreeEntry, TreeKind, TreeList, content_check,
};
use deltasync_proto::{FaultKind, FileHandle, Omitted, OpenedFile, Place, StageHandle, StorageFault, Why};

use self::leftovers::Leftovers;
use super::root::{Root, Trouble};
use crate::disk::{DiskKind, DiskStat};
use crate::fault::{fault, kind_of};
use crate::lock::lock;

mod asked;
mod asking;
mod copies;
mod filtering;
mod leftovers;
mod listing;
mod making;
mod own;
mod twins;
mod walk;
mod walks;
pub use walks::{Walked, Walks};
mod xattrs;

pub(super) use copies::{Copies, Way, abandoned};
use filtering::Excluded;
use listing::Listing;
use making::Making;
use own::own_copy;
pub(super) use own::own_copy_of;
use walk::walk;

#[cfg(test)]
mod tests;

/// A file of a tree that does not travel with it: it is longer than [`TreeEntry::INLINE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeMember {
    /// Where it is below the directory of the tree.
    pub path: RelPath,
    /// Its length.
    pub len: ByteLen,
    /// What it gets beside its content.
    pub attributes: Attributes,
}

/// The members in these ranges of a described tree's archive, in order; none when it was not described by a
/// [`LocalStorage`](crate::LocalStorage).
pub fn members_to_send(tree: &FileHandle, ranges: &[(Offset, ByteLen)]) -> Vec<TreeMember> {
    let mut members = Vec::new();
    in_ranges(tree, ranges, |list, index| members.extend(TreeMember::of(list.entry(index))));
    members
}

/// Looks at each entry of a described tree that lies in these ranges of its archive.
fn in_ranges(tree: &FileHandle, ranges: &[(Offset, ByteLen)], mut look: impl FnMut(&TreeList, usize)) {
    let Some(tree) = tree.downcast_ref::<Tree>() else { return };
    let list = &tree.list;
    let mut next = 0;
    for (start, len) in ranges {
        let Some(end) = start.checked_add(*len) else { break };
        next = list.index_at(*start).max(next);
        while next < list.len() && list.span(next).0 < end {
            look(list, next);
            next += 1;
        }
    }
}

/// The members of a staged tree that are not there yet, or are not what they should be, in order.
pub fn members_to_fetch(stage: &StageHandle) -> Vec<TreeMember> {
    stage.downcast_ref::<Making>().map_or_else(Vec::new, Making::members)
}

/// The lists that a transfer of headers only has compared, see
/// [`Scope::headers_only`](deltasync_proto::Scope::headers_only): that of the tree which is there, if one is, and the
/// peer's; `None` for any other stage.
pub fn compared_lists(stage: &StageHandle) -> Option<(Option<Arc<TreeList>>, Arc<TreeList>)> {
    stage.downcast_ref::<Listing>()?.lists()
}

/// The list of a described tree; `None` when it was not described by a [`LocalStorage`](crate::LocalStorage).
pub fn tree_list(tree: &FileHandle) -> Option<Arc<TreeList>> {
    tree.downcast_ref::<Tree>().map(|tree| Arc::clone(&tree.list))
}

/// How many files that travel with their tree a staged one has made so far, content or attributes.
pub fn files_made(stage: &StageHandle) -> u64 {
    stage.downcast_ref::<Making>().map_or(0, Making::files)
}

/// Where each file ends in a described tree's archive that travels with it and lies in these ranges, in order; none when it
/// was not described by a [`LocalStorage`](crate::LocalStorage).
pub fn files_to_send(tree: &FileHandle, ranges: &[(Offset, ByteLen)]) -> Vec<Offset> {
    let mut ends = Vec::new();
    in_ranges(tree, ranges, |list, index| {
        if list.entry(index).inline().is_some() {
            let (start, len) = list.span(index);
            ends.extend(start.checked_add(len));
        }
    });
    ends
}

impl TreeMember {
    fn of(entry: TreeEntry) -> Option<Self> {
        match entry.kind {
            TreeKind::File { len, .. } if entry.inline().is_none() => {
                Some(Self { path: entry.path, len, attributes: entry.attributes })
            }
            _ => None,
        }
    }
}

/// What a [`FileHandle`] of ours holds for a tree.
#[derive(Debug)]
pub(super) struct Tree {
    place: Place,
    list: Arc<TreeList>,
    /// Devices, sockets and pipes, what is not kept of others, what cannot be read, and lines of ignore files that mean
    /// nothing. Not what a filter excludes.
    omitted: Arc<[Omitted]>,
    excluded: Arc<Excluded>,
    /// What earlier transfers may have left.
    leftovers: Leftovers,
    /// Entries whose content is not there, or not right: read as zeros.
    blank: BTreeSet<usize>,
    /// Of one that was made in part: what is left to do for entries that are made, by their index.
    left: BTreeMap<usize, Left>,
    /// The content that was read last: a piece may end in the middle of one.
    last: Mutex<Option<(usize, Bytes)>>,
}

/// What is left to do for an entry that was made, where it is taken over.
#[derive(Clone, Debug)]
enum Left {
    /// It is a member that is not there yet.
    Member(TreeMember),
    /// It is a directory that gets its permissions and time at the commit.
    Directory,
}

/// The most bytes that one request reads, as of a file.
const READ_MAX: u64 = 64 << 20;

impl Tree {
    fn new(place: Place, list: Arc<TreeList>) -> Self {
        let (omitted, excluded, leftovers) = (Arc::default(), Arc::default(), Leftovers::default());
        let (blank, left) = (BTreeSet::new(), BTreeMap::new());
        Self { place, list, omitted, excluded, leftovers, blank, left, last: Mutex::default() }
    }

    /// As it is described to a session.
    fn described(self) -> OpenedFile {
        let (chunks, omitted) = (Arc::clone(self.list.chunks()), Arc::clone(&self.omitted));
        OpenedFile { file: FileHandle::new(self), chunks, generation: Generation::ZERO, omitted }
    }

    /// Reads ranges of the archive one after the other into one piece.
    ///
    /// # Errors
    ///
    /// A fault that names each file which cannot be read, of the kind of the first one; else of kind
    /// [`FaultKind::Changed`] where files are no longer what was listed.
    fn read(&self, root: &Root, ranges: &[(Offset, ByteLen)]) -> Result<Bytes, StorageFault> {
        let mut total = 0u64;
        for (start, len) in ranges {
            if start.checked_add(*len).is_none_or(|end| end.to_len() > self.list.chunks().len()) {
                return Err(fault(FaultKind::Changed, &self.place.path, "there are fewer entries"));
            }
            total = total.saturating_add(len.get());
        }
        LimitExceeded::check("bytes of one read", total, READ_MAX)
            .map_err(|error| fault(FaultKind::TooLarge, &self.place.path, error))?;
        let mut out = BytesMut::with_capacity(usize::try_from(total).expect("at most 64 MiB"));
        let mut unread = Vec::new();
        for (start, len) in ranges {
            self.read_range(root, start.get(), start.get() + len.get(), &mut out, &mut unread)?;
        }
        if unread.is_empty() {
            return Ok(out.freeze());
        }
        let first = unread.iter().position(|(error, _)| *error != Unread::Changed).unwrap_or(0);
        let (error, entry) = &unread[first];
        let path = below(&self.place.path, &entry.path).unwrap_or_else(|_| entry.path.clone());
        let fault = error.at(&path);
        let omitted = unread.into_iter().map(|(error, entry)| Omitted { path: entry.path, why: error.into() });
        Err(fault.with_omitted(omitted.collect()))
    }

    /// Reads on behind a file that is not as it was listed, to find all of them.
    fn read_range(
        &self,
        root: &Root,
        start: u64,
        end: u64,
        out: &mut BytesMut,
        unread: &mut Vec<(Unread, TreeEntry)>,
    ) -> Result<(), StorageFault> {
        let mut index = self.list.index_at(Offset::new(start));
        let mut at = start;
        while at < end {
            let (from, len) = self.list.span(index);
            let (from, to) = (from.get(), from.get() + len.get());
            let header = self.list.header(index);
            let within = |at: u64, from: u64| usize::try_from(at - from).expect("within a chunk");
            let stop = end.min(to);
            let (skip, stop) = (within(at, from), within(stop, from));
            out.put_slice(&header[skip.min(header.len())..stop.min(header.len())]);
            if stop > header.len() {
                let skip = skip.saturating_sub(header.len());
                match self.content(root, index) {
                    Ok(content) => out.put_slice(&content[skip..stop - header.len()]),
                    Err(error) if unread.len() < UNREAD_MAX => unread.push((error, self.list.entry(index))),
                    Err(_) => return Ok(()),
                }
            }
            at = from + stop as u64;
            index += 1;
        }
        Ok(())
    }

    /// What stands behind the header of an entry: the check of its content, and that.
    fn content(&self, root: &Root, index: usize) -> Result<Bytes, Unread> {
        if let Some((_, content)) = lock(&self.last).as_ref().filter(|(last, _)| *last == index) {
            return Ok(content.clone());
        }
        let entry = self.list.entry(index);
        let len = entry.inline().map_or(0, ByteLen::get) as usize;
        let mut bytes = BytesMut::zeroed(CHECK + len);
        if !self.blank.contains(&index) {
            self.read_file(root, &entry, &mut bytes[CHECK..])?;
            let told = if let TreeKind::File { root, .. } = entry.kind { root } else { None };
            if told.is_some_and(|told| told != self.list.chunks().algorithm().digest(&bytes[CHECK..])) {
                return Err(Unread::Changed);
            }
            let check = content_check(&bytes[CHECK..]);
            bytes[..CHECK].copy_from_slice(&check);
        }
        let bytes = bytes.freeze();
        *lock(&self.last) = Some((index, bytes.clone()));
        Ok(bytes)
    }

    fn read_file(&self, root: &Root, entry: &TreeEntry, content: &mut [u8]) -> Result<(), Unread> {
        let path = below(&self.place.path, &entry.path).map_err(|fault| Unread::of(fault.kind, fault.message))?;
        let file = match root.file(&path) {
            Ok(file) => file,
            Err(Trouble::System(error)) => return Err(error.into()),
            Err(_) => return Err(Unread::Changed),
        };
        file.read_exact_at(content, 0)?;
        if looks_like(&file.stat()?, entry) { Ok(()) } else { Err(Unread::Changed) }
    }
}

/// The most files that one fault names: others are found when these are left out.
const UNREAD_MAX: usize = 10_000;

/// Why a file of a tree could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unread {
    /// It is gone, or no longer what was listed.
    Changed,
    /// The system does not let us.
    Unreadable(FaultKind, String),
}

impl Unread {
    fn of(kind: FaultKind, what: impl Into<String>) -> Self {
        Self::Unreadable(kind, what.into())
    }

    fn at(&self, path: &RelPath) -> StorageFault {
        match self {
            Self::Changed => fault(FaultKind::Changed, path, "changed since it was listed"),
            Self::Unreadable(kind, what) => fault(*kind, path, what),
        }
    }
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => Self::Changed,
            _ => Self::of(kind_of(&error), error.to_string()),
        }
    }
}

impl From<Unread> for Why {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Changed => Self::Changed,
            Unread::Unreadable(_, what) => Self::Unreadable(what),
        }
    }
}

/// The bytes of a content's check.
const CHECK: usize = 8;

/// The path of an entry below the root of its place.
fn below(place: &RelPath, path: &RelPath) -> Result<RelPath, StorageFault> {
    place.below(path).map_err(|error| fault(FaultKind::Other, path, error))
}

/// The permission bits that are kept, and that a peer may set.
const MODE: u32 = 0o777;

/// The permission bits that something gets which has the bits `is`: those of `attributes`, but never those that lend a
/// user's or a group's rights, nor the one that restricts deletion.
///
/// # Security
///
/// Attributes come from a peer, with any bits: this is the only way from them to a mode.
pub(super) fn mode_of(attributes: Attributes, is: u32) -> u32 {
    is & !MODE | u32::from(attributes.mode()) & MODE
}

/// The permissions and time of what stands somewhere, as a tree tells them.
fn attributes(is: &DiskStat) -> Attributes {
    // The kernel gives nanoseconds below a second.
    let nanoseconds = u32::try_from(is.modified.1).unwrap_or(0).min(999_999_999);
    Attributes::new((is.mode & MODE) as u16, is.modified.0, nanoseconds).expect("both are in range")
}

/// True when something has these permissions and this time.
pub(super) fn has(is: &DiskStat, wanted: Attributes) -> bool {
    is.mode == mode_of(wanted, is.mode) && attributes(is).modified() == wanted.modified()
}

/// True when a path has a file of this length and time.
fn looks_like(is: &DiskStat, entry: &TreeEntry) -> bool {
    let same_time = attributes(is).modified() == entry.attributes.modified();
    match entry.kind {
        TreeKind::File { len, .. } | TreeKind::HardLink { len, .. } => {
            is.kind == DiskKind::File && is.len == len.get() && same_time
        }
        TreeKind::Symlink { .. } => is.kind == DiskKind::Symlink && same_time,
        TreeKind::Directory => is.kind == DiskKind::Directory,
    }
}
