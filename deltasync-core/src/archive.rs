//! The archive of a tree as it comes: the bytes of its entries, in pieces, read back as entries.

use alloc::vec::Vec;

use crate::tree::{CHECK, HEADER_MAX, PlaceInTree};
use crate::{InvalidTree, Malformed, Reader, TreeEntry, content_check};

/// An entry as it came, with its content if that travels with the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedEntry {
    /// The entry.
    pub entry: TreeEntry,
    /// What the file holds; empty for what has no content here.
    pub content: Vec<u8>,
    /// The content is what it is said to be; true for what has none here.
    pub is_whole: bool,
}

/// Reads an archive that comes in pieces.
///
/// # Security
///
/// Takes hostile bytes: holds one chunk and the last piece at most, and what comes out has valid paths in order, each in a
/// directory before it. Whether a symbolic link stands on the way to one is for the storage to see to.
#[derive(Clone, Debug, Default)]
pub struct ArchiveReader {
    headers_only: bool,
    place: PlaceInTree,
    pending: Vec<u8>,
    /// Where in `pending` the next entry starts.
    at: usize,
}

impl ArchiveReader {
    /// Sets whether the archive holds no content of files, see [`TreeLister::headers_only`](crate::TreeLister::headers_only):
    /// set before the first bytes.
    #[must_use]
    pub fn headers_only(mut self, headers_only: bool) -> Self {
        self.headers_only = headers_only;
        self
    }

    /// Takes in the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.drain(..core::mem::take(&mut self.at));
        self.pending.extend_from_slice(bytes);
    }

    /// Goes on to an entry of which only the header is looked at: it stands between two others, whole.
    ///
    /// # Errors
    ///
    /// [`InvalidTree`] when it may not stand here, or in the middle of an entry.
    pub fn pass(&mut self, entry: &TreeEntry) -> Result<(), InvalidTree> {
        if !self.is_between() {
            return Err(InvalidTree::Cut);
        }
        self.place.next(entry)
    }

    /// True when what came ends with an entry.
    pub fn is_between(&self) -> bool {
        self.at == self.pending.len()
    }

    /// The next entry, once it has come whole.
    ///
    /// # Errors
    ///
    /// [`InvalidTree`] when the bytes are no entry, or one that may not stand here. Nothing is to be read then.
    #[expect(clippy::should_implement_trait, reason = "it ends only for now")]
    pub fn next(&mut self) -> Result<Option<ArchivedEntry>, InvalidTree> {
        let rest = &self.pending[self.at..];
        let mut reader = Reader::new(rest);
        let entry = match TreeEntry::decode(&mut reader) {
            Ok(entry) => entry,
            Err(InvalidTree::Malformed(Malformed::Truncated)) if rest.len() < HEADER_MAX => return Ok(None),
            Err(error) => return Err(error),
        };
        let (mut content, mut is_whole) = (Vec::new(), true);
        if let Some(len) = entry.inline().filter(|_| !self.headers_only) {
            if (reader.rest().len() as u64) < CHECK as u64 + len.get() {
                return Ok(None);
            }
            let check = reader.array::<CHECK>()?;
            content = reader.bytes(len.get() as usize)?.to_vec();
            is_whole = content_check(&content) == check;
        }
        let left = reader.rest().len();
        self.place.next(&entry)?;
        self.at = self.pending.len() - left;
        Ok(Some(ArchivedEntry { entry, content, is_whole }))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::tree::tests::{archive, list, small_tree};
    use crate::tree::{DIRECTORY, FILE, SYMLINK};
    use crate::{InvalidPath, LimitExceeded, write_varint};

    #[test]
    fn damaged_archives_are_refused() {
        let read = |bytes: &[u8]| {
            let mut reader = ArchiveReader::default();
            reader.push(bytes);
            loop {
                match reader.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(error) => return Some(error),
                }
            }
        };
        let root = [0, 0, 0, 0, 0];
        assert_eq!(read(&root), None);
        assert!(matches!(read(&[6, 0, 0, 0, 0]), Some(InvalidTree::Malformed(_))), "kind");
        assert!(matches!(read(&[0, 0x80, 0x20, 0, 0, 0]), Some(InvalidTree::Malformed(_))), "mode");
        assert!(matches!(read(&[&root[..], &[0, 0, 2, b'.', b'.', 0, 0]].concat()), Some(InvalidTree::Path(_))));
        assert!(matches!(read(&[0, 0, 0x81, 0x20]), Some(InvalidTree::Limit(_))), "path length");
        assert!(matches!(read(&[&root[..], &[2, 0, 1, b'a', 0, 0, 0]].concat()), Some(InvalidTree::Malformed(_))));
        assert!(matches!(read(&[&root[..], &[2, 0, 1, b'a', 0x81, 0x20]].concat()), Some(InvalidTree::Limit(_))));
        for (kind, after) in [
            (SYMLINK | 0x80, &[1, b'x', 0, 0, 3, 1, b'a', 0][..]),
            (DIRECTORY | 0x80, &[0, 0, 0]),
            (DIRECTORY | 0x80, &[0, 0, 2, 1, b'a']),
            (DIRECTORY | 0x80, &[0, 0, 6, 1, b'b', 0, 1, b'a', 0]),
            (DIRECTORY | 0x80, &[0, 0, 3, 1, 0, 0]),
            (DIRECTORY | 0x40, &[0, 0]),
        ] {
            let entry = [&root[..], &[kind, 0, 1, b'a'], after].concat();
            assert!(matches!(read(&entry), Some(InvalidTree::Malformed(_))), "{kind} {after:?}");
        }
        let too_many = [&root[..], &[DIRECTORY | 0x80, 0, 1, b'a', 0, 0, 0x81, 0x80, 4]].concat();
        assert!(matches!(read(&too_many), Some(InvalidTree::Limit(_))), "extended attributes");
        assert!(matches!(
            read(&[&root[..], &[4, 0, 1, b'b', 2, b'.', b'.', 0, 0, 0]].concat()),
            Some(InvalidTree::Path(_))
        ));
        assert!(matches!(read(&[&root[..], &[4, 0, 1, b'b', 0x81, 0x20]].concat()), Some(InvalidTree::Limit(_))));
        let nanoseconds = [0x80, 0x94, 0xeb, 0xdc, 3];
        assert!(matches!(read(&[&root[..4], &nanoseconds].concat()), Some(InvalidTree::Malformed(_))));
        assert_eq!(read(&[root, root].concat()), Some(InvalidTree::Order));
        // What a hash mistook.
        let mut reader = ArchiveReader::default();
        reader.push(&[&root[..], &[1, 0, 1, b'a', 2, 0, 0], &content_check(b"hi"), b"ho"].concat());
        assert!(reader.next().expect("valid").expect("whole").is_whole);
        assert!(!reader.next().expect("valid").expect("whole").is_whole);
    }

    /// An entry as a peer may write it that has no content, with any path.
    fn raw_entry(kind: u8, path: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0];
        write_varint(&mut out, path.len() as u64);
        out.extend_from_slice(path);
        match kind {
            FILE => out.push(0),
            SYMLINK => out.extend_from_slice(&[1, b'x']),
            _ => {}
        }
        out.extend_from_slice(&[0, 0]);
        if kind == FILE {
            out.extend_from_slice(&content_check(b""));
        }
        out
    }

    /// What an archive of such entries is refused for, and how many of them came before that.
    fn check_hostile(entries: &[(u8, &[u8])], error: InvalidTree) {
        let archive: Vec<u8> = entries.iter().flat_map(|(kind, path)| raw_entry(*kind, path)).collect();
        for piece in [1, 7, archive.len()] {
            let mut reader = ArchiveReader::default();
            let mut came = Ok(0);
            for piece in archive.chunks(piece) {
                reader.push(piece);
                while let Ok(so_far) = came {
                    match reader.next() {
                        Ok(Some(_)) => came = Ok(so_far + 1),
                        Ok(None) => break,
                        Err(error) => came = Err((so_far, error)),
                    }
                }
            }
            assert_eq!(came, Err((entries.len() - 1, error)), "{entries:?}");
        }
    }

    #[test]
    fn archives_with_paths_that_lead_out_or_stand_nowhere_are_refused() {
        const ROOT: (u8, &[u8]) = (DIRECTORY, b"");
        let long = vec![b'x'; 256];
        let in_long = [b"d/", &long[..]].concat();
        let too_long = [&[b'x'; 255][..], b"/"].concat().repeat(17)[..4097].to_vec();
        for kind in [DIRECTORY, FILE, SYMLINK] {
            for (path, error) in [
                (&b".."[..], InvalidPath::Dots),
                (b".", InvalidPath::Dots),
                (b"../a", InvalidPath::Dots),
                (b"d/..", InvalidPath::Dots),
                (b"d/../../a", InvalidPath::Dots),
                (b"d/./a", InvalidPath::Dots),
                (b"/", InvalidPath::Absolute),
                (b"/etc/passwd", InvalidPath::Absolute),
                (b"//a", InvalidPath::Absolute),
                (b"d/", InvalidPath::EmptyComponent),
                (b"d//a", InvalidPath::EmptyComponent),
                (b"a\0b", InvalidPath::ForbiddenByte),
                (&long, InvalidPath::LongName(256)),
                (&in_long, InvalidPath::LongName(256)),
            ] {
                check_hostile(&[ROOT, (DIRECTORY, b"d"), (kind, path)], error.into());
            }
            let error = LimitExceeded { what: "path length", wanted: 4097, allowed: 4096 };
            check_hostile(&[ROOT, (kind, &too_long)], error.into());
            for file in [FILE, SYMLINK] {
                check_hostile(&[ROOT, (file, b"a"), (kind, b"a/b")], InvalidTree::Orphan);
                check_hostile(&[ROOT, (file, b"a"), (kind, b"a")], InvalidTree::Order);
                check_hostile(&[ROOT, (DIRECTORY, b"a"), (file, b"a")], InvalidTree::Order);
                check_hostile(&[ROOT, (DIRECTORY, b"a"), (file, b"a/b"), (kind, b"a/b/c")], InvalidTree::Orphan);
                check_hostile(&[(file, b"")], InvalidTree::Start);
            }
            check_hostile(&[ROOT, (kind, b"")], InvalidTree::Order);
            check_hostile(&[ROOT, (kind, b"a/b")], InvalidTree::Orphan);
            check_hostile(&[ROOT, (kind, b"b"), (kind, b"a")], InvalidTree::Order);
            check_hostile(&[ROOT, (DIRECTORY, b"a"), (kind, b"a/b"), (kind, b"a/b")], InvalidTree::Order);
            check_hostile(&[ROOT, (DIRECTORY, b"a"), (kind, b"b"), (kind, b"a/b")], InvalidTree::Order);
            check_hostile(&[(kind, b"a")], InvalidTree::Start);
        }
    }

    #[test]
    fn entries_that_are_known_pass_between_others() {
        let list = list(&small_tree());
        let archive = archive(&list);
        let mut reader = ArchiveReader::default();
        reader.pass(&list.entry(0)).expect("the first");
        let (start, _) = list.span(1);
        let (end, _) = list.span(3);
        let range = start.to_usize().expect("short")..end.to_usize().expect("short");
        reader.push(&archive[range.start..range.end - 1]);
        assert_eq!(reader.next().map(|read| read.map(|read| read.entry)), Ok(Some(list.entry(1))));
        assert_eq!(reader.next(), Ok(None));
        assert_eq!(reader.pass(&list.entry(3)), Err(InvalidTree::Cut));
        reader.push(&archive[range.end - 1..range.end]);
        assert_eq!(reader.next().map(|read| read.map(|read| read.entry)), Ok(Some(list.entry(2))));
        assert_eq!(reader.pass(&list.entry(5)), Err(InvalidTree::Orphan));
        reader.pass(&list.entry(3)).expect("in order");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300), piece in 1usize..50) {
            let mut reader = ArchiveReader::default();
            for piece in bytes.chunks(piece) {
                reader.push(piece);
                while let Ok(Some(_)) = reader.next() {}
            }
        }
    }
}
