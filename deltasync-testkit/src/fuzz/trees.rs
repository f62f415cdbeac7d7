//! The archive of a tree: any bytes, in any split.

use deltasync_core::{
    Algorithm, ArchiveReader, ArchivedEntry, Attributes, ByteLen, InvalidTree, Limits, RelPath, TreeEntry, TreeKind,
    TreeLister, Xattrs, content_check,
};

use super::take::Take;
use crate::{Rng, Seed};

/// The lengths of two pieces, which come in turn; then an archive.
pub(super) fn tree(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let pieces = [take.short().max(1), take.short().max(1)];
    let archive = take.rest();
    for headers_only in [false, true] {
        let whole = read(archive, &[archive.len().max(1)], headers_only);
        assert_eq!(whole, read(archive, &pieces, headers_only), "any split reads alike");
        check_what_came(archive, &whole, headers_only);
    }
}

/// What comes of an archive in such pieces.
fn read(mut archive: &[u8], pieces: &[usize], headers_only: bool) -> Vec<ArchivedEntry> {
    let mut reader = ArchiveReader::default().headers_only(headers_only);
    let mut read = Vec::new();
    for piece in pieces.iter().cycle() {
        if archive.is_empty() {
            break;
        }
        let (piece, rest) = archive.split_at(archive.len().min(*piece));
        archive = rest;
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(entry)) => read.push(entry),
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return read;
                }
            }
        }
    }
    read
}

/// It is a tree as far as its links are such, and its list tells the same of it.
fn check_what_came(archive: &[u8], entries: &[ArchivedEntry], headers_only: bool) {
    let mut lister = TreeLister::new(Algorithm::Blake3, &Limits::default()).headers_only(headers_only);
    let refused = entries.iter().position(|archived| match lister.push(&archived.entry) {
        Ok(()) => false,
        Err(InvalidTree::Link) if matches!(archived.entry.kind, TreeKind::HardLink { .. }) => true,
        Err(error) => panic!("it was read as a tree: {error}"),
    });
    let entries = &entries[..refused.unwrap_or(entries.len())];
    for TreeEntry { kind, xattrs, .. } in entries.iter().map(|archived| &archived.entry) {
        assert!(xattrs.is_empty() || !matches!(kind, TreeKind::Symlink { .. }));
        let names: Vec<_> = xattrs.iter().map(|(name, _)| name).collect();
        assert!(names.is_sorted_by(|a, b| a < b) && names.iter().all(|name| !name.is_empty() && !name.contains(&0)));
        if let TreeKind::HardLink { to, .. } = kind {
            let first = entries.iter().find(|archived| archived.entry.path == *to).expect("it is listed");
            assert!(matches!(first.entry.kind, TreeKind::File { .. }));
        }
    }
    let list = lister.finish();
    assert_eq!(list.len(), entries.len());
    assert!(list.chunks().len().get() <= archive.len() as u64, "headers are written in their shortest form");
    for (index, archived) in entries.iter().enumerate() {
        assert_eq!(list.entry(index), archived.entry);
        assert_eq!(list.find(&archived.entry.path), Some(index));
        let (start, len) = list.span(index);
        assert_eq!(list.index_at(start), index);
        let inline = archived.entry.inline().filter(|_| !headers_only);
        let content = inline.map_or(0, |len| 8 + len.get());
        assert_eq!(len.get(), list.header(index).len() as u64 + content);
        assert_eq!(archived.content.len() as u64, content.saturating_sub(8));
    }
}

pub(super) fn tree_seeds() -> Vec<Seed> {
    let path = |path: &str| RelPath::new(path.as_bytes()).expect("a path");
    let attributes = |mode| Attributes::new(mode, 1_700_000_000, 123_456_789).expect("in range");
    let entry = |at: &str, kind| TreeEntry::new(path(at), kind, attributes(0o644));
    let file = |len| TreeKind::File { len: ByteLen::new(len), root: None };
    let rooted = TreeKind::File { len: ByteLen::new(3), root: Some(Algorithm::Blake3.digest(b"abc")) };
    let link = TreeKind::Symlink { target: b"../elsewhere".to_vec() };
    let entries = [
        entry("", TreeKind::Directory),
        entry("a", file(0)),
        entry("dir", TreeKind::Directory),
        entry("dir/deep", TreeKind::Directory),
        entry("dir/deep/file", file(100)),
        entry("dir/link", link),
        entry("dir-", rooted),
        entry("long", file(1 << 20)),
    ];
    let mut lister = TreeLister::new(Algorithm::Blake3, &Limits::default());
    entries.iter().for_each(|entry| lister.push(entry).expect("in order"));
    let list = lister.finish();
    let mut archive = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        archive.extend_from_slice(list.header(index));
        if let Some(len) = entry.inline() {
            let content = Rng::new(index as u64).bytes(len.get() as usize);
            archive.extend_from_slice(&content_check(&content));
            archive.extend_from_slice(&content);
        }
    }
    let seed = |name: &str, pieces: [u16; 2], archive: &[u8]| Seed {
        name: name.to_owned(),
        bytes: [&pieces[0].to_le_bytes()[..], &pieces[1].to_le_bytes(), archive].concat(),
    };
    let told = told_archive();
    let mut mistaken = archive.clone();
    let middle = mistaken.len() / 2;
    mistaken[middle] ^= 1;
    vec![
        seed("tree", [1000, 1000], &archive),
        seed("tree-in-pieces", [1, 7], &archive),
        seed("tree-damaged", [30, 3], &mistaken),
        seed("tree-cut", [64, 64], &archive[..archive.len() - 3]),
        seed("tree-without-start", [64, 64], &archive[5..]),
        seed("tree-told", [1000, 1000], &told),
        seed("tree-told-in-pieces", [5, 11], &told),
    ]
}

/// An archive with hard links and extended attributes.
fn told_archive() -> Vec<u8> {
    let path = |path: &str| RelPath::new(path.as_bytes()).expect("a path");
    let attributes = Attributes::new(0o644, 1_700_000_000, 1).expect("in range");
    let mut xattrs = Xattrs::default();
    xattrs.push(b"name", b"value").and_then(|()| xattrs.push(b"other", b"")).expect("in order");
    let told = |at: &str, kind| TreeEntry { xattrs: xattrs.clone(), ..TreeEntry::new(path(at), kind, attributes) };
    let plain = |at: &str, kind| TreeEntry::new(path(at), kind, attributes);
    let (len, root) = (ByteLen::new(3), Some(Algorithm::Blake3.digest(b"abc")));
    let entries = [
        told("", TreeKind::Directory),
        told("a", TreeKind::File { len, root }),
        told("b", TreeKind::HardLink { to: path("a"), len, root }),
        plain("c", TreeKind::File { len, root: None }),
        plain("d", TreeKind::HardLink { to: path("c"), len, root: None }),
    ];
    let mut lister = TreeLister::new(Algorithm::Blake3, &Limits::default());
    entries.iter().for_each(|entry| lister.push(entry).expect("in order"));
    let list = lister.finish();
    let mut archive = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        archive.extend_from_slice(list.header(index));
        if entry.inline().is_some() {
            archive.extend_from_slice(&content_check(b"abc"));
            archive.extend_from_slice(b"abc");
        }
    }
    archive
}
