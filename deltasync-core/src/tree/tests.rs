//! Laws of trees and their archives, and small trees for the tests of others.

use alloc::format;
use alloc::string::String;

use proptest::collection::btree_map;
use proptest::prelude::*;

use super::*;
use crate::ArchiveReader;

pub(crate) fn path(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).expect("a valid path")
}

pub(crate) fn attributes(seconds: i64) -> Attributes {
    Attributes::new(0o644, seconds, 999_999_999).expect("in range")
}

pub(crate) fn file(at: &str, len: u64) -> TreeEntry {
    let kind = TreeKind::File { len: ByteLen::new(len), root: None };
    TreeEntry::new(path(at), kind, attributes(7))
}

pub(crate) fn directory(at: &str) -> TreeEntry {
    TreeEntry::new(path(at), TreeKind::Directory, attributes(-7))
}

pub(crate) fn link(at: &str, target: &str) -> TreeEntry {
    let kind = TreeKind::Symlink { target: target.as_bytes().to_vec() };
    TreeEntry::new(path(at), kind, attributes(0))
}

/// Another name of `first`.
pub(crate) fn hard_link(at: &str, first: &TreeEntry) -> TreeEntry {
    let TreeKind::File { len, root } = first.kind else { panic!("only of files") };
    TreeEntry { path: path(at), kind: TreeKind::HardLink { to: first.path.clone(), len, root }, ..first.clone() }
}

pub(crate) fn with_xattrs(mut entry: TreeEntry, xattrs: &[(&str, &[u8])]) -> TreeEntry {
    xattrs.iter().for_each(|(name, value)| entry.xattrs.push(name.as_bytes(), value).expect("in order"));
    entry
}

pub(crate) fn with_root(mut entry: TreeEntry) -> TreeEntry {
    let TreeKind::File { root, .. } = &mut entry.kind else { panic!("only of files") };
    *root = Some(Algorithm::Blake3.digest(entry.path.as_bytes()));
    entry
}

pub(crate) fn content(entry: &TreeEntry) -> Vec<u8> {
    let seed = entry.path.as_bytes().iter().map(|byte| u32::from(*byte)).sum::<u32>();
    (0..entry.inline().map_or(0, ByteLen::get) as u32).map(|i| (i * 7 + seed) as u8).collect()
}

pub(crate) fn list(entries: &[TreeEntry]) -> TreeList {
    let mut lister = TreeLister::new(Algorithm::Blake3, &Limits::default());
    entries.iter().for_each(|entry| lister.push(entry).expect("in order"));
    lister.finish()
}

pub(crate) fn archive(list: &TreeList) -> Vec<u8> {
    let mut archive = Vec::new();
    for (index, entry) in list.entries().enumerate() {
        let content = content(&entry);
        archive.extend_from_slice(list.header(index));
        if entry.inline().is_some() {
            archive.extend_from_slice(&content_check(&content));
        }
        archive.extend_from_slice(&content);
    }
    archive
}

/// What a list says of an archive is so, and the archive gives the entries back however it is split.
fn check_a_tree(entries: &[TreeEntry], piece: usize) {
    let list = list(entries);
    let archive = archive(&list);
    assert_eq!(list.entries().collect::<Vec<_>>(), entries);
    assert_eq!(list.chunks().len(), ByteLen::of(&archive));
    assert_eq!(list.chunks().chunk_count(), entries.len() as u64);
    for (index, entry) in entries.iter().enumerate() {
        let (start, len) = list.span(index);
        assert_eq!(list.find(&entry.path), Some(index));
        assert_eq!(list.chunks().offset_of(index as u64), start);
        assert_eq!(list.index_at(start), index);
        assert_eq!(list.index_at(start + (len - ByteLen::new(1))), index);
        let header = list.header(index);
        assert_eq!(&archive[start.to_usize().expect("short")..][..header.len()], header);
    }
    assert_eq!(list.index_at(list.chunks().len_offset()), entries.len());
    let mut reader = ArchiveReader::default();
    let mut read = Vec::new();
    for piece in archive.chunks(piece.max(1)) {
        reader.push(piece);
        while let Some(entry) = reader.next().expect("as written") {
            assert!(entry.is_whole);
            assert_eq!(entry.content, content(&entry.entry));
            read.push(entry.entry);
        }
    }
    assert_eq!(read, entries);
    assert!(reader.is_between());
}

trait EndOffset {
    fn len_offset(&self) -> Offset;
}

impl EndOffset for ChunkList {
    fn len_offset(&self) -> Offset {
        Offset::new(self.len().get())
    }
}

pub(crate) fn small_tree() -> Vec<TreeEntry> {
    vec![
        directory(""),
        file("a", 0),
        directory("b"),
        file("b/a", 5),
        directory("b/c"),
        link("b/c/x", "../../elsewhere"),
        file("b-", 70_000),
        directory("c"),
    ]
}

/// The same with all that is told only when it is asked for.
pub(crate) fn told_tree() -> Vec<TreeEntry> {
    let first = with_xattrs(with_root(file("b/a", 5)), &[("name", b"value"), ("other", b"")]);
    let large = with_root(file("b-", 70_000));
    vec![
        with_xattrs(directory(""), &[("of", b"the top")]),
        with_root(file("a", 0)),
        directory("b"),
        first.clone(),
        directory("b/c"),
        link("b/c/x", "../../elsewhere"),
        hard_link("b/c/y", &first),
        large.clone(),
        with_xattrs(directory("c"), &[("of", &[7; 5000])]),
        hard_link("c/first", &first),
        hard_link("c/large", &large),
        file("d", 7),
        hard_link("e", &file("d", 7)),
    ]
}

#[test]
fn a_tree_is_its_archive() {
    check_a_tree(&small_tree(), 3);
    check_a_tree(&told_tree(), 3);
    check_a_tree(&[directory("")], 1);
    let longest = vec!["x".repeat(255); 16].join("/")[..4095].into();
    let target: String = "y".repeat(TreeEntry::TARGET_MAX);
    let mut deep = vec![directory("")];
    let mut at = String::new();
    let end: String = longest;
    for part in end.split('/') {
        at = if at.is_empty() { part.into() } else { format!("{at}/{part}") };
        deep.push(directory(&at));
    }
    *deep.last_mut().expect("there are") = link(&at, &target);
    check_a_tree(&deep, 1000);
    let most = vec![7; Xattrs::MAX - 8];
    *deep.last_mut().expect("there are") = with_xattrs(with_root(file(&at, 64 << 10)), &[("most", &most)]);
    let other = format!("{}zz", &at[..at.len() - 2]);
    deep.push(hard_link(&other, &deep[deep.len() - 1]));
    check_a_tree(&deep, 10_000);
    assert!((HEADER_MAX - 50..=HEADER_MAX).contains(&list(&deep).header(deep.len() - 1).len()), "not far from it");
    *deep.last_mut().expect("there are") = link(&other, &target);
    assert!(list(&deep).header(deep.len() - 1).len() <= HEADER_MAX);
}

#[test]
fn headers_are_what_the_wire_says() {
    let at = |seconds| Attributes::new(0o644, seconds, 5).expect("in range");
    let first = TreeEntry { attributes: at(1), ..with_xattrs(file("b", 2), &[("x", b"yz")]) };
    let rooted = TreeEntry { attributes: at(1), ..with_root(file("c", 3)) };
    let top = TreeEntry { attributes: at(-1), ..directory("") };
    let tree = [top, first.clone(), rooted.clone(), hard_link("d", &first), hard_link("e", &rooted)];
    let list = list(&tree);
    let (mode, time, xattrs) = ([0xa4, 3], [2, 5], [5, 1, b'x', 2, b'y', b'z']);
    let root = Algorithm::Blake3.digest(b"c");
    let expected = [
        [&[0][..], &mode, &[0, 1, 5]].concat(),
        [&[0x81][..], &mode, &[1, b'b', 2], &time, &xattrs].concat(),
        [&[3][..], &mode, &[1, b'c', 3], root.as_bytes(), &time].concat(),
        [&[0x84][..], &mode, &[1, b'd', 1, b'b', 2], &time, &xattrs].concat(),
        [&[5][..], &mode, &[1, b'e', 1, b'c', 3], root.as_bytes(), &time].concat(),
    ];
    (0..5).for_each(|index| assert_eq!(list.header(index), expected[index], "{index}"));
}

#[test]
fn what_is_in_a_directory_stands_behind_it_and_before_what_follows_that() {
    let sorted = ["", "a", "a/\x01", "a/b", "a/b/c", "a/bc", "a\x01", "a-", "a0", "ab"];
    for (i, a) in sorted.iter().enumerate() {
        for (j, b) in sorted.iter().enumerate() {
            assert_eq!(tree_order(&path(a), &path(b)), i.cmp(&j), "{a:?} {b:?}");
        }
    }
}

#[test]
fn a_chunk_tells_what_is_looked_at() {
    let usual = list(&small_tree());
    for (index, change) in [(1, file("a", 1)), (3, link("b/a", "5")), (7, directory("d"))] {
        let mut tree = small_tree();
        tree[index] = change;
        let changed = list(&tree);
        assert_ne!(changed.chunks().root(), usual.chunks().root());
        let differ = changed.chunks().runs().iter().zip(usual.chunks().runs()).filter(|(a, b)| a != b);
        assert_eq!(differ.count(), 1);
    }
    let mut touched = small_tree();
    touched[1].attributes = Attributes::new(0o644, 7, 0).expect("in range");
    assert_ne!(list(&touched).chunks().root(), usual.chunks().root());
}

#[test]
fn what_is_no_tree_is_refused() {
    let refused = |entries: &[TreeEntry]| {
        let mut lister = TreeLister::new(Algorithm::Blake3, &Limits::default());
        entries.iter().find_map(|entry| lister.push(entry).err()).expect("not a tree")
    };
    assert_eq!(refused(&[file("a", 1)]), InvalidTree::Start);
    assert_eq!(refused(&[link("", "a")]), InvalidTree::Start);
    assert_eq!(refused(&[directory(""), file("b", 1), file("a", 1)]), InvalidTree::Order);
    assert_eq!(refused(&[directory(""), file("a", 1), directory("a")]), InvalidTree::Order);
    assert_eq!(refused(&[directory(""), file("a", 1), file("a/b", 1)]), InvalidTree::Orphan);
    assert_eq!(refused(&[directory(""), link("a", "b"), file("a/b", 1)]), InvalidTree::Orphan);
    assert_eq!(refused(&[directory(""), file("a/b", 1)]), InvalidTree::Orphan);
    assert_eq!(refused(&[directory(""), directory("ab"), file("a/b", 1)]), InvalidTree::Order);
    assert_eq!(refused(&[directory(""), directory("a"), file("ab/c", 1)]), InvalidTree::Orphan);
    let limits = Limits::default().chunks(2).file(ByteLen::new(200));
    let mut lister = TreeLister::new(Algorithm::Blake3, &limits);
    lister.push(&directory("")).expect("the first");
    assert!(matches!(lister.push(&file("a", 500)), Err(InvalidTree::Limit(_))));
    lister.push(&file("a", 5)).expect("the second");
    assert!(matches!(lister.push(&file("b", 1)), Err(InvalidTree::Limit(_))));
    assert_eq!(lister.finish().entries().collect::<Vec<_>>(), [directory(""), file("a", 5)]);
}

#[test]
fn a_hard_link_differs_when_its_file_does() {
    let usual = list(&told_tree());
    let changes: [fn(&mut TreeEntry); 4] = [
        |entry| entry.attributes = attributes(8),
        |entry| entry.xattrs.push(b"z", b"new").expect("in order"),
        |entry| {
            let (TreeKind::File { len, .. } | TreeKind::HardLink { len, .. }) = &mut entry.kind else { return };
            *len = ByteLen::new(4);
        },
        |entry| {
            let (TreeKind::File { root, .. } | TreeKind::HardLink { root, .. }) = &mut entry.kind else { return };
            *root = None;
        },
    ];
    for change in changes {
        let mut tree = told_tree();
        [3, 6, 9].into_iter().for_each(|index| change(&mut tree[index]));
        let changed = list(&tree);
        let differ = changed.chunks().runs().iter().zip(usual.chunks().runs()).filter(|(a, b)| a != b);
        assert_eq!(differ.count(), 3);
    }
}

#[test]
fn hard_links_to_what_is_no_file_before_them_are_refused() {
    let usual = [directory(""), file("a", 1), directory("b"), file("c", 1), link("d", "a"), file("f", 1)];
    let refused = |link: TreeEntry| {
        let mut lister = TreeLister::new(Algorithm::Blake3, &Limits::default());
        usual[..5].iter().for_each(|entry| lister.push(entry).expect("in order"));
        let before = lister.clone().finish();
        let error = lister.push(&link).err();
        assert_eq!(lister.finish() == before, error.is_some());
        error
    };
    let first = file("a", 1);
    assert_eq!(refused(hard_link("e", &first)), None);
    let to = |to: &str| TreeEntry { kind: hard_link("e", &file(to, 1)).kind, ..file("e", 1) };
    for at in ["", "b", "d", "e", "f", "a/b", "absent"] {
        assert_eq!(refused(to(at)), Some(InvalidTree::Link), "{at:?}");
    }
    let other = [
        hard_link("e", &file("a", 2)),
        hard_link("e", &with_root(file("a", 1))),
        with_xattrs(hard_link("e", &first), &[("a", b"")]),
        TreeEntry { attributes: attributes(8), ..hard_link("e", &first) },
    ];
    other.into_iter().for_each(|link| assert_eq!(refused(link), Some(InvalidTree::Link)));
    // Not even to another link.
    let mut lister = TreeLister::new(Algorithm::Blake3, &Limits::default());
    let tree = [directory(""), file("a", 1), hard_link("b", &file("a", 1))];
    tree.iter().for_each(|entry| lister.push(entry).expect("in order"));
    assert_eq!(lister.push(&hard_link("c", &file("b", 1))), Err(InvalidTree::Link));
}

#[test]
fn symbolic_links_with_extended_attributes_are_refused() {
    let mut lister = TreeLister::new(Algorithm::Blake3, &Limits::default());
    lister.push(&directory("")).expect("the first");
    let link = with_xattrs(link("a", "b"), &[("a", b"")]);
    assert!(matches!(lister.push(&link), Err(InvalidTree::Malformed(_))));
}

proptest! {
    #[test]
    fn any_tree_is_its_archive(
        files in btree_map("[ab./]{1,6}", (0u64..300, any::<i64>(), 0u16..=0o7777), 0..20),
        piece in 1usize..400,
    ) {
        let mut entries = vec![directory("")];
        for (at, (len, seconds, mode)) in files {
            let Ok(path) = RelPath::new(at.into_bytes()) else { continue };
            // Every component but the last is a directory.
            let mut parent = RelPath::ROOT;
            let names: Vec<_> = path.components().collect();
            for name in &names {
                parent = parent.join(name).expect("short");
                let kind = match parent == path {
                    true => TreeKind::File { len: ByteLen::new(len), root: None },
                    false => TreeKind::Directory,
                };
                let attributes = Attributes::new(mode, seconds, 5).expect("in range");
                entries.push(TreeEntry::new(parent.clone(), kind, attributes));
            }
        }
        // Of two entries of one path a directory wins: something may stand in it.
        entries.sort_by(|a, b| {
            tree_order(&a.path, &b.path)
                .then((a.kind != TreeKind::Directory).cmp(&(b.kind != TreeKind::Directory)))
        });
        entries.dedup_by(|a, b| a.path == b.path);
        check_a_tree(&entries, piece);
    }
}

#[test]
fn an_archive_without_contents_has_the_same_entries_and_digests() {
    let entries = small_tree();
    let usual = list(&entries);
    let mut lister = TreeLister::new(Algorithm::Blake3, &Limits::default()).headers_only(true);
    entries.iter().for_each(|entry| lister.push(entry).expect("in order"));
    let headers = lister.finish();
    assert_eq!(headers.chunks().root(), usual.chunks().root());
    let mut reader = crate::ArchiveReader::default().headers_only(true);
    for index in 0..headers.len() {
        assert_eq!(headers.span(index).1, ByteLen::of(headers.header(index)));
        reader.push(headers.header(index));
    }
    let read: Vec<_> = core::iter::from_fn(|| reader.next().expect("as written")).map(|read| read.entry).collect();
    assert_eq!((read, reader.is_between()), (entries, true));
}
