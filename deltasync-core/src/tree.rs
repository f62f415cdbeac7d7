//! A tree of files as one target: the entries below a directory, each a chunk of a virtual file, the *archive*.
//!
//! The archive of a tree is its entries in the order of [`tree_order`], each a header and, for a file of at most
//! [`TreeEntry::INLINE`] bytes, its content. Both ends know what their own would hold without reading a file: the chunk of
//! an entry has half the digest of its path and half that of its header, which tells path, kind, permissions, time and
//! length, and, where that is asked for, the digest of the content and the extended attributes. So trees are compared
//! as the chunks of two files are, by sketches of tags, at a cost that follows what differs; small files that differ are
//! the gaps, and their content moves by fine sums and a delta as that of any gap does. Longer files are named only: each
//! is a target of its own. A hard link has no content, but all else that the file has which it is another name of: so it
//! differs where that does.
//!
//! A file's content stands behind a check of 8 bytes, the start of its BLAKE3: short hashes may have supplied a part of it.
//! The root of the archive is the digest of its chunks' digests, in order.
//!
//! Memory: the headers, and 56 bytes an entry.
//!
//! Invariant: a [`TreeList`] is in order, its first entry is the directory itself, and each other stands in a directory
//! that is listed before it. A hard link is one to a file that is listed before it, and tells the same of it.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::{
    Algorithm, ByteLen, ChunkList, ChunkRun, Cutter, Digest, InvalidPath, InvalidXattr, LimitExceeded, Limits,
    Malformed, Offset, Reader, RelPath, Xattrs, write_signed, write_varint,
};

/// What a tree says of one of its paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// Where it is, below the directory of the tree; that directory itself is [`RelPath::ROOT`].
    pub path: RelPath,
    /// What it is.
    pub kind: TreeKind,
    /// Its permissions and time.
    pub attributes: Attributes,
    /// Its extended attributes, where they are told; a symbolic link has none.
    pub xattrs: Xattrs,
}

/// What an entry of a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its length.
        len: ByteLen,
        /// The digest of its content, where length and time are not trusted to tell whether that is the same.
        root: Option<Digest>,
    },
    /// Another name of a file that is listed before it, of which it tells the same.
    HardLink {
        /// The first name of that file.
        to: RelPath,
        /// Its length.
        len: ByteLen,
        /// The digest of its content, where that is told.
        root: Option<Digest>,
    },
    /// A symbolic link, which is never followed.
    Symlink {
        /// Where it points, as it was written: 1 to [`TreeEntry::TARGET_MAX`] bytes, none of them NUL.
        target: Vec<u8>,
    },
}

/// What is kept of a path beside its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u16, i64, u32)", into = "(u16, i64, u32)")]
pub struct Attributes {
    mode: u16,
    seconds: i64,
    nanoseconds: u32,
}

impl Attributes {
    /// All permission bits: read, write and execute of three, and the three above them.
    pub const MODE_MAX: u16 = 0o7777;

    /// Permission bits, at most [`Attributes::MODE_MAX`], and when the content was last modified: seconds since 1970, and
    /// nanoseconds, below 1,000,000,000.
    ///
    /// # Errors
    ///
    /// [`Malformed::Value`] when one is out of range.
    pub fn new(mode: u16, seconds: i64, nanoseconds: u32) -> Result<Self, Malformed> {
        if mode > Self::MODE_MAX {
            return Err(Malformed::Value("permissions beyond 07777"));
        }
        if nanoseconds >= 1_000_000_000 {
            return Err(Malformed::Value("nanoseconds of a second or more"));
        }
        Ok(Self { mode, seconds, nanoseconds })
    }

    /// The permission bits.
    pub const fn mode(&self) -> u16 {
        self.mode
    }

    /// When the content was last modified, in seconds since 1970 and nanoseconds.
    pub const fn modified(&self) -> (i64, u32) {
        (self.seconds, self.nanoseconds)
    }
}

impl TryFrom<(u16, i64, u32)> for Attributes {
    type Error = Malformed;
    fn try_from((mode, seconds, nanoseconds): (u16, i64, u32)) -> Result<Self, Malformed> {
        Self::new(mode, seconds, nanoseconds)
    }
}

impl From<Attributes> for (u16, i64, u32) {
    fn from(attributes: Attributes) -> Self {
        (attributes.mode, attributes.seconds, attributes.nanoseconds)
    }
}

impl TreeEntry {
    /// Files of at most this many bytes travel with their tree.
    pub const INLINE: ByteLen = ByteLen::new(64 << 10);

    /// The longest target of a symbolic link, in bytes.
    pub const TARGET_MAX: usize = 4096;

    /// The longest chunk of an entry, in bytes.
    pub(crate) const LONGEST: usize = HEADER_MAX + CHECK + Self::INLINE.get() as usize;

    /// An entry without extended attributes.
    pub fn new(path: RelPath, kind: TreeKind, attributes: Attributes) -> Self {
        Self { path, kind, attributes, xattrs: Xattrs::default() }
    }

    /// The length of the file when it travels with the tree, `None` for a longer one, for another name of a file, and for
    /// what is no file.
    pub fn inline(&self) -> Option<ByteLen> {
        match self.kind {
            TreeKind::File { len, .. } => (len <= Self::INLINE).then_some(len),
            TreeKind::Directory | TreeKind::HardLink { .. } | TreeKind::Symlink { .. } => None,
        }
    }

    /// Appends the header.
    fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            TreeKind::Directory => DIRECTORY,
            TreeKind::File { root: None, .. } => FILE,
            TreeKind::File { root: Some(_), .. } => FILE_WITH_ROOT,
            TreeKind::HardLink { root: None, .. } => HARD_LINK,
            TreeKind::HardLink { root: Some(_), .. } => HARD_LINK_WITH_ROOT,
            TreeKind::Symlink { .. } => SYMLINK,
        };
        out.push(if self.xattrs.is_empty() { kind } else { kind | WITH_XATTRS });
        write_varint(out, self.attributes.mode.into());
        write_varint(out, self.path.as_bytes().len() as u64);
        out.extend_from_slice(self.path.as_bytes());
        match &self.kind {
            TreeKind::Directory => {}
            TreeKind::File { len, root } => {
                write_varint(out, len.get());
                root.iter().for_each(|root| out.extend_from_slice(root.as_bytes()));
            }
            TreeKind::HardLink { to, len, root } => {
                write_varint(out, to.as_bytes().len() as u64);
                out.extend_from_slice(to.as_bytes());
                write_varint(out, len.get());
                root.iter().for_each(|root| out.extend_from_slice(root.as_bytes()));
            }
            TreeKind::Symlink { target } => {
                write_varint(out, target.len() as u64);
                out.extend_from_slice(target);
            }
        }
        write_signed(out, self.attributes.seconds);
        write_varint(out, self.attributes.nanoseconds.into());
        if !self.xattrs.is_empty() {
            write_varint(out, self.xattrs.as_bytes().len() as u64);
            out.extend_from_slice(self.xattrs.as_bytes());
        }
    }

    /// Reads a header; what follows it is left in the reader.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, InvalidTree> {
        let byte = reader.byte()?;
        let mode = u16::try_from(reader.varint()?).unwrap_or(u16::MAX);
        let path = RelPath::new(bytes(reader, RelPath::MAX, "path length")?)?;
        let kind = match byte & !WITH_XATTRS {
            DIRECTORY => TreeKind::Directory,
            FILE => TreeKind::File { len: ByteLen::new(reader.varint()?), root: None },
            FILE_WITH_ROOT => {
                let len = ByteLen::new(reader.varint()?);
                TreeKind::File { len, root: Some(Digest::from_bytes(reader.array()?)) }
            }
            kind @ (HARD_LINK | HARD_LINK_WITH_ROOT) => {
                let to = RelPath::new(bytes(reader, RelPath::MAX, "length of a hard link's path")?)?;
                let len = ByteLen::new(reader.varint()?);
                let root = (kind == HARD_LINK_WITH_ROOT).then(|| reader.array()).transpose()?;
                TreeKind::HardLink { to, len, root: root.map(Digest::from_bytes) }
            }
            SYMLINK => {
                let target = bytes(reader, Self::TARGET_MAX, "length of a link's target")?;
                if target.is_empty() || target.contains(&0) {
                    return Err(Malformed::Value("a link to nothing, or with a NUL").into());
                }
                TreeKind::Symlink { target: target.to_vec() }
            }
            _ => return Err(Malformed::Value("kind of an entry is not known").into()),
        };
        let seconds = reader.signed()?;
        let nanoseconds = u32::try_from(reader.varint()?).unwrap_or(u32::MAX);
        let attributes = Attributes::new(mode, seconds, nanoseconds)?;
        let xattrs = match byte & WITH_XATTRS {
            0 => Xattrs::default(),
            _ if matches!(kind, TreeKind::Symlink { .. }) => {
                return Err(XATTRS_OF_LINK.into());
            }
            _ => Xattrs::decode(bytes(reader, Xattrs::MAX, "extended attributes of an entry, in bytes")?)?,
        };
        Ok(Self { path, kind, attributes, xattrs })
    }
}

pub(crate) const DIRECTORY: u8 = 0;
pub(crate) const FILE: u8 = 1;
pub(crate) const SYMLINK: u8 = 2;
const FILE_WITH_ROOT: u8 = 3;
pub(crate) const HARD_LINK: u8 = 4;
const HARD_LINK_WITH_ROOT: u8 = 5;

/// Beside any of them but the link: extended attributes stand at the end of the header.
const WITH_XATTRS: u8 = 0x80;

/// The bytes of the check before a content.
pub(crate) const CHECK: usize = 8;

/// No header is longer: the kind, the mode, a path, another one or the target of a link, a length and a root, the time, and
/// extended attributes.
pub(crate) const HEADER_MAX: usize =
    1 + 3 + (2 + RelPath::MAX) + (2 + TreeEntry::TARGET_MAX) + (10 + Digest::LEN) + (10 + 5) + (3 + Xattrs::MAX);

const XATTRS_OF_LINK: Malformed = Malformed::Value("extended attributes of a symbolic link");

/// All extended attributes of a tree take so many bytes at most.
const XATTRS_MAX: u64 = 512 << 20;

fn bytes<'a>(reader: &mut Reader<'a>, most: usize, what: &'static str) -> Result<&'a [u8], InvalidTree> {
    let len = reader.varint()?;
    LimitExceeded::check(what, len, most as u64)?;
    Ok(reader.bytes(len as usize)?)
}

/// What stands before a content in the archive.
pub fn content_check(content: &[u8]) -> [u8; 8] {
    *blake3::hash(content).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// The order of a tree: a directory before what is in it, and that in the order of the names' bytes.
pub fn tree_order(a: &RelPath, b: &RelPath) -> Ordering {
    order(a.as_bytes(), b.as_bytes())
}

fn order(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.iter().zip(b).position(|(a, b)| a != b);
    // A slash ends a name, and no other byte of a name is below 1.
    let key = |path: &[u8], at: usize| match path.get(at) {
        None => 0,
        Some(b'/') => 1,
        Some(byte) => u16::from(*byte) + 1,
    };
    let at = common.unwrap_or(a.len().min(b.len()));
    key(a, at).cmp(&key(b, at))
}

/// The entries of a tree in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeList {
    headers: Vec<u8>,
    /// Where each header ends.
    header_ends: Vec<u64>,
    /// Where each chunk ends.
    ends: Vec<u64>,
    chunks: Arc<ChunkList>,
}

impl TreeList {
    /// What an entry takes of memory, about, in bytes: measured with names of some ten bytes.
    pub const ENTRY_MEMORY: u64 = 128;

    /// The archive's chunks, one for each entry.
    pub fn chunks(&self) -> &Arc<ChunkList> {
        &self.chunks
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when nothing is listed, not even a directory.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The entry with this index.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn entry(&self, index: usize) -> TreeEntry {
        TreeEntry::decode(&mut Reader::new(self.header(index))).expect("it was encoded here")
    }

    /// The header of the entry with this index, as it stands in the archive.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn header(&self, index: usize) -> &[u8] {
        header(&self.headers, &self.header_ends, index)
    }

    /// The entries in order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = TreeEntry> + '_ {
        (0..self.len()).map(|index| self.entry(index))
    }

    /// Where the chunk of an entry starts, and its length; the index behind the last gives the end.
    ///
    /// # Panics
    ///
    /// When there is no such entry.
    pub fn span(&self, index: usize) -> (Offset, ByteLen) {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let end = self.ends.get(index).copied().unwrap_or(start);
        (Offset::new(start), ByteLen::new(end - start))
    }

    /// The entry whose chunk holds the byte at this offset, or how many there are where none does.
    pub fn index_at(&self, offset: Offset) -> usize {
        self.ends.partition_point(|end| *end <= offset.get())
    }

    /// The index of the entry with this path, if it is listed.
    pub fn find(&self, path: &RelPath) -> Option<usize> {
        find(&self.headers, &self.header_ends, path)
    }
}

fn header<'a>(headers: &'a [u8], ends: &[u64], index: usize) -> &'a [u8] {
    let start = index.checked_sub(1).map_or(0, |before| ends[before]);
    &headers[start as usize..ends[index] as usize]
}

fn find(headers: &[u8], ends: &[u64], path: &RelPath) -> Option<usize> {
    let path_of = |index| {
        let mut reader = Reader::new(header(headers, ends, index));
        reader.byte().and_then(|_| reader.varint()).expect("it was encoded here");
        bytes(&mut reader, RelPath::MAX, "path length").expect("it was encoded here")
    };
    let (mut low, mut high) = (0, ends.len());
    while low < high {
        let middle = low.midpoint(high);
        match order(path_of(middle), path.as_bytes()) {
            Ordering::Less => low = middle + 1,
            Ordering::Equal => return Some(middle),
            Ordering::Greater => high = middle,
        }
    }
    None
}

/// Makes the list of a tree from its entries in order.
#[derive(Clone, Debug)]
pub struct TreeLister {
    headers_only: bool,
    algorithm: Algorithm,
    most: usize,
    longest: ByteLen,
    place: PlaceInTree,
    headers: Vec<u8>,
    header_ends: Vec<u64>,
    ends: Vec<u64>,
    /// The bytes that extended attributes take.
    xattrs: u64,
    runs: Vec<ChunkRun>,
}

impl TreeLister {
    /// A list without entries, of at most as many as `limits` allow chunks.
    pub fn new(algorithm: Algorithm, limits: &Limits) -> Self {
        Self {
            headers_only: false,
            algorithm,
            most: limits.chunks,
            longest: limits.file,
            place: PlaceInTree::default(),
            headers: Vec::new(),
            header_ends: Vec::new(),
            ends: Vec::new(),
            xattrs: 0,
            runs: Vec::new(),
        }
    }

    /// How many entries it has so far.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True before the first entry.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The entry with this index.
    ///
    /// # Panics
    ///
    /// When there is none so far.
    pub fn entry(&self, index: usize) -> TreeEntry {
        let header = header(&self.headers, &self.header_ends, index);
        TreeEntry::decode(&mut Reader::new(header)).expect("it was encoded here")
    }

    /// Sets whether the archive holds no content of files, for whoever only wants to know what is there: set before the
    /// first entry. The digests of chunks are the same.
    #[must_use]
    pub fn headers_only(mut self, headers_only: bool) -> Self {
        self.headers_only = headers_only;
        self
    }

    /// Takes in the next entry.
    ///
    /// # Errors
    ///
    /// [`InvalidTree`] when it does not stand behind those before it, or in no directory among them, it is a hard link to
    /// no file among them, or the limits are passed. The list is as before then.
    pub fn push(&mut self, entry: &TreeEntry) -> Result<(), InvalidTree> {
        LimitExceeded::check("entries of a tree", self.ends.len() as u64 + 1, self.most as u64)?;
        let start = self.headers.len();
        entry.encode(&mut self.headers);
        let inline = entry.inline().filter(|_| !self.headers_only);
        let content = inline.map_or(0, |len| CHECK as u64 + len.get());
        let len = (self.headers.len() - start) as u64 + content;
        let end = self.ends.last().copied().unwrap_or(0).saturating_add(len);
        let xattrs = self.xattrs + entry.xattrs.as_bytes().len() as u64;
        let checked = LimitExceeded::check("archive of a tree", end, self.longest.get())
            .and_then(|()| LimitExceeded::check("extended attributes of a tree, in bytes", xattrs, XATTRS_MAX))
            .map_err(InvalidTree::from)
            .and_then(|()| self.check(entry))
            .and_then(|()| self.place.next(entry));
        if let Err(error) = checked {
            self.headers.truncate(start);
            return Err(error);
        }
        let (mut digest, header) = ([0; Digest::LEN], self.algorithm.digest(&self.headers[start..]));
        let (path, rest) = digest.split_at_mut(Digest::LEN / 2);
        path.copy_from_slice(&self.algorithm.digest(entry.path.as_bytes()).as_bytes()[..Digest::LEN / 2]);
        rest.copy_from_slice(&header.as_bytes()[..Digest::LEN / 2]);
        let digest = Digest::from_bytes(digest);
        let len = u32::try_from(len).expect("no chunk is longer than LONGEST");
        self.runs.push(ChunkRun { digest, len, count: 1 });
        self.header_ends.push(self.headers.len() as u64);
        self.ends.push(end);
        self.xattrs = xattrs;
        Ok(())
    }

    /// A hard link is one to a file that is listed, and tells the same of it; a symbolic link has no extended attributes.
    fn check(&self, entry: &TreeEntry) -> Result<(), InvalidTree> {
        let TreeKind::HardLink { to, len, root } = &entry.kind else {
            let is_link = matches!(entry.kind, TreeKind::Symlink { .. });
            return if is_link && !entry.xattrs.is_empty() { Err(XATTRS_OF_LINK.into()) } else { Ok(()) };
        };
        let first = find(&self.headers, &self.header_ends, to).map(|index| self.entry(index));
        let is_same = first.is_some_and(|first| {
            let kind = TreeKind::File { len: *len, root: *root };
            first.kind == kind && first.attributes == entry.attributes && first.xattrs == entry.xattrs
        });
        if is_same { Ok(()) } else { Err(InvalidTree::Link) }
    }

    /// The list.
    pub fn finish(mut self) -> TreeList {
        let mut root = self.algorithm.hasher();
        self.runs.iter().for_each(|run| root.update(run.digest.as_bytes()));
        self.headers.shrink_to_fit();
        let chunks = Arc::new(ChunkList::new(Cutter::Entries, self.algorithm, root.finish(), self.runs));
        TreeList { headers: self.headers, header_ends: self.header_ends, ends: self.ends, chunks }
    }
}

/// Where a list of entries has got to.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlaceInTree {
    /// The path of the entry before; `None` at the start.
    last: Option<RelPath>,
    /// How long the paths of the directories are that it stands in, or is, from the first on.
    directories: Vec<usize>,
}

impl PlaceInTree {
    /// Goes on to an entry, if it may stand here.
    pub(crate) fn next(&mut self, entry: &TreeEntry) -> Result<(), InvalidTree> {
        let path = entry.path.as_bytes();
        let is_directory = entry.kind == TreeKind::Directory;
        let Some(last) = &self.last else {
            if !entry.path.is_root() || !is_directory {
                return Err(InvalidTree::Start);
            }
            (self.last, self.directories) = (Some(entry.path.clone()), vec![0]);
            return Ok(());
        };
        if order(last.as_bytes(), path) != Ordering::Less {
            return Err(InvalidTree::Order);
        }
        let last = last.as_bytes();
        let holds = |len: usize| len == 0 || path.starts_with(&last[..len]) && path.get(len) == Some(&b'/');
        let kept = self.directories.iter().take_while(|len| holds(**len)).count();
        let parent = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        if self.directories[..kept].last() != Some(&parent) {
            return Err(InvalidTree::Orphan);
        }
        self.directories.truncate(kept);
        if is_directory {
            self.directories.push(path.len());
        }
        self.last = Some(entry.path.clone());
        Ok(())
    }
}

impl From<InvalidXattr> for InvalidTree {
    fn from(error: InvalidXattr) -> Self {
        match error {
            InvalidXattr::Malformed(malformed) => malformed.into(),
            InvalidXattr::Limit(limit) => limit.into(),
        }
    }
}

/// Why entries are no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTree {
    /// An entry is damaged.
    #[error("damaged entry of a tree")]
    Malformed(#[from] Malformed),
    /// A path is none.
    #[error("a path in a tree is not valid")]
    Path(#[from] InvalidPath),
    /// There is too much of it.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// The first entry is not the directory itself.
    #[error("a tree does not start with its directory")]
    Start,
    /// An entry does not stand behind the one before it, or is there twice.
    #[error("entries of a tree are not in order")]
    Order,
    /// An entry is in no directory of the tree.
    #[error("an entry of a tree stands in no directory")]
    Orphan,
    /// An entry is a hard link to what is no file before it, or tells something else of it than that.
    #[error("a hard link of a tree is one to no file before it, or tells something else of it")]
    Link,
    /// An entry begins in the middle of another.
    #[error("an entry of a tree is cut off")]
    Cut,
}

#[cfg(test)]
pub(crate) mod tests;
