//! What has to change for one tree to become another, told from their lists alone.
//!
//! Both lists are in the order of [`tree_order`], so one pass over the two side by side finds every path of which they say
//! different things; both entries are given then, and [`TreeChange::reasons`] says in what they differ. That what is
//! listed alike is alike, the comparison trusts as a transfer does: length and time of a file tell, or its root where the
//! lists have that.
//!
//! Cost: one pass, each entry decoded once; memory: two entries.
//!
//! Invariant: the changes come in order, one for each path that the lists do not have alike, and none for any other.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::{RelPath, TreeEntry, TreeKind, TreeList, tree_order};

/// A path of which two lists say different things: at least one has it, and they are not equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeChange {
    /// What is there, if anything is.
    pub old: Option<TreeEntry>,
    /// What is wanted, if anything is.
    pub new: Option<TreeEntry>,
}

/// In what a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ChangeReason {
    /// Nothing is there.
    New,
    /// Nothing is wanted there.
    Extra,
    /// A directory, a file or a symbolic link is there, and another of these is wanted.
    Kind,
    /// The length of a file.
    Length,
    /// The content of a file, by its root.
    Content,
    /// Where a symbolic link points.
    Target,
    /// Of which file it is another name, or that it is one.
    HardLink,
    /// The permissions.
    Permissions,
    /// The extended attributes.
    Xattrs,
    /// The time of the last change.
    Time,
    /// Something else that an entry tells.
    Other,
}

impl ChangeReason {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Extra => "extra",
            Self::Kind => "kind",
            Self::Length => "length",
            Self::Content => "content",
            Self::Target => "target",
            Self::HardLink => "hard link",
            Self::Permissions => "permissions",
            Self::Xattrs => "extended attributes",
            Self::Time => "time",
            Self::Other => "other",
        }
    }
}

impl TreeChange {
    /// The path.
    pub fn path(&self) -> &RelPath {
        let entry = self.new.as_ref().or(self.old.as_ref());
        &entry.expect("a change has an entry at least").path
    }

    /// In what the two differ, in the order of [`ChangeReason`], at least one. Where there is no pair of one kind, that
    /// alone is told.
    pub fn reasons(&self) -> Vec<ChangeReason> {
        let (old, new) = match (&self.old, &self.new) {
            (Some(old), Some(new)) => (old, new),
            (None, _) => return [ChangeReason::New].into(),
            (Some(_), None) => return [ChangeReason::Extra].into(),
        };
        let mut reasons = Vec::new();
        let mut differ = |differ: bool, reason| reasons.extend(differ.then_some(reason));
        match (&old.kind, &new.kind) {
            (TreeKind::Directory, TreeKind::Directory) => {}
            (TreeKind::File { len, root }, TreeKind::File { len: new_len, root: new_root }) => {
                differ(len != new_len, ChangeReason::Length);
                differ(matches!((root, new_root), (Some(a), Some(b)) if a != b), ChangeReason::Content);
            }
            (TreeKind::Symlink { target }, TreeKind::Symlink { target: new_target }) => {
                differ(target != new_target, ChangeReason::Target);
            }
            (TreeKind::HardLink { to, len, root }, TreeKind::HardLink { to: new_to, len: new_len, root: new_root }) => {
                differ(len != new_len, ChangeReason::Length);
                differ(matches!((root, new_root), (Some(a), Some(b)) if a != b), ChangeReason::Content);
                differ(to != new_to, ChangeReason::HardLink);
            }
            (TreeKind::File { .. }, TreeKind::HardLink { .. }) | (TreeKind::HardLink { .. }, TreeKind::File { .. }) => {
                differ(true, ChangeReason::HardLink);
            }
            _ => return [ChangeReason::Kind].into(),
        }
        differ(old.attributes.mode() != new.attributes.mode(), ChangeReason::Permissions);
        differ(old.xattrs != new.xattrs, ChangeReason::Xattrs);
        differ(old.attributes.modified() != new.attributes.modified(), ChangeReason::Time);
        if reasons.is_empty() {
            reasons.push(ChangeReason::Other);
        }
        reasons
    }

    /// True where the content of a file is sent, or may be: it is new, or is not known to be that of the file which is
    /// there.
    pub fn moves_content(&self) -> bool {
        let Some(TreeEntry { kind: TreeKind::File { len, root }, attributes, .. }) = &self.new else { return false };
        match self.old.as_ref().map(|old| (&old.kind, old.attributes.modified())) {
            Some((TreeKind::File { len: old_len, root: old_root }, old_modified)) => match (old_root, root) {
                (Some(old_root), Some(root)) => old_root != root,
                _ => old_len != len || old_modified != attributes.modified(),
            },
            _ => true,
        }
    }
}

/// What has to change for `old` to become `new`, in order. No list stands for a tree that is not there.
pub fn tree_changes<'a>(old: Option<&'a TreeList>, new: Option<&'a TreeList>) -> impl Iterator<Item = TreeChange> + 'a {
    let mut old = old.into_iter().flat_map(TreeList::entries).peekable();
    let mut new = new.into_iter().flat_map(TreeList::entries).peekable();
    core::iter::from_fn(move || {
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(old), Some(new)) => tree_order(&old.path, &new.path),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            let change = match order {
                Ordering::Less => TreeChange { old: old.next(), new: None },
                Ordering::Equal => TreeChange { old: old.next(), new: new.next() },
                Ordering::Greater => TreeChange { old: None, new: new.next() },
            };
            if change.old != change.new {
                return Some(change);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use alloc::collections::{BTreeMap, BTreeSet};
    use alloc::vec;

    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;
    use crate::{Algorithm, Attributes, ByteLen, Digest, Limits, TreeLister};

    fn entry(path: &str, kind: TreeKind, mode: u16, seconds: i64) -> TreeEntry {
        let path = RelPath::new(path).expect("valid");
        TreeEntry::new(path, kind, Attributes::new(mode, seconds, 0).expect("in range"))
    }

    fn file(len: u64) -> TreeKind {
        TreeKind::File { len: ByteLen::new(len), root: None }
    }

    fn rooted(len: u64, root: u8) -> TreeKind {
        TreeKind::File { len: ByteLen::new(len), root: Some(Digest::from_bytes([root; 32])) }
    }

    fn link(target: &str) -> TreeKind {
        TreeKind::Symlink { target: target.into() }
    }

    fn list(entries: &[TreeEntry]) -> TreeList {
        let mut lister = TreeLister::new(Algorithm::Blake3, &Limits::default()).headers_only(true);
        lister.push(&entry("", TreeKind::Directory, 0o755, 0)).expect("the first");
        entries.iter().for_each(|entry| lister.push(entry).expect("in order"));
        lister.finish()
    }

    fn check(old: TreeKind, new: TreeKind, reasons: &[ChangeReason], moves: bool) {
        let (old, new) = (entry("a", old, 0o644, 1), entry("a", new, 0o644, 1));
        let change = TreeChange { old: Some(old), new: Some(new) };
        assert_eq!((&change.reasons()[..], change.moves_content()), (reasons, moves), "{change:?}");
    }

    #[test]
    fn each_reason_is_told() {
        use ChangeReason::{Content, Extra, HardLink, Kind, Length, New, Permissions, Target, Time};
        check(file(1), file(2), &[Length], true);
        check(rooted(1, 1), rooted(1, 2), &[Content], true);
        check(rooted(1, 1), rooted(2, 2), &[Length, Content], true);
        check(link("a"), link("b"), &[Target], false);
        check(TreeKind::Directory, file(0), &[Kind], true);
        let to =
            |to: &str| TreeKind::HardLink { to: RelPath::new(to).expect("valid"), len: ByteLen::new(1), root: None };
        check(to("x"), to("y"), &[HardLink], false);
        check(file(1), to("x"), &[HardLink], false);
        check(to("x"), link("x"), &[Kind], false);
        check(file(0), link("a"), &[Kind], false);
        let both = |a: TreeEntry, b: TreeEntry| TreeChange { old: Some(a), new: Some(b) };
        let change = both(entry("a", file(1), 0o644, 1), entry("a", file(1), 0o600, 1));
        assert_eq!((change.reasons(), change.moves_content()), (vec![Permissions], false));
        let change = both(entry("a", file(1), 0o644, 1), entry("a", file(1), 0o600, 2));
        assert_eq!((change.reasons(), change.moves_content()), (vec![Permissions, Time], true));
        let change = both(entry("a", rooted(1, 1), 0o644, 1), entry("a", rooted(1, 1), 0o644, 2));
        assert_eq!((change.reasons(), change.moves_content()), (vec![Time], false), "the roots tell");
        let new = TreeChange { old: None, new: Some(entry("a", file(1), 0, 0)) };
        assert_eq!((new.reasons(), new.moves_content()), (vec![New], true));
        let extra = TreeChange { old: new.new, new: None };
        assert_eq!((extra.reasons(), extra.moves_content()), (vec![Extra], false));
    }

    #[test]
    fn a_tree_that_is_not_there_is_all_new() {
        let one = list(&[entry("a", file(1), 0o644, 0)]);
        let paths = |changes: &mut dyn Iterator<Item = TreeChange>| -> Vec<(usize, ChangeReason)> {
            changes.map(|change| (change.path().as_bytes().len(), change.reasons()[0])).collect()
        };
        assert_eq!(paths(&mut tree_changes(None, Some(&one))), [(0, ChangeReason::New), (1, ChangeReason::New)]);
        assert_eq!(paths(&mut tree_changes(Some(&one), None)), [(0, ChangeReason::Extra), (1, ChangeReason::Extra)]);
        assert_eq!(tree_changes(None, None).count(), 0);
        assert_eq!(tree_changes(Some(&one), Some(&one)).count(), 0);
    }

    /// A list of entries from names, each a file or a link at the top, or in a directory of one name.
    fn entries(named: &BTreeMap<(u8, u8), (u8, u16, i64)>) -> Vec<TreeEntry> {
        let directories: BTreeSet<u8> = named.keys().map(|(directory, _)| *directory).collect();
        let name = |at: u8| alloc::string::String::from(["a", "a.", "b", "B-", "\u{1}"][at as usize % 5]);
        let mut all: Vec<TreeEntry> =
            directories.iter().map(|at| entry(&name(*at), TreeKind::Directory, 0o755, 0)).collect();
        for ((directory, file_name), (what, mode, seconds)) in named {
            let kind = match what % 3 {
                0 => file(u64::from(*what)),
                1 => rooted(1, *what),
                _ => link(&name(*what)),
            };
            let path = alloc::format!("{}/{}", name(*directory), name(*file_name));
            all.push(entry(&path, kind, *mode, *seconds));
        }
        all.sort_by(|a, b| tree_order(&a.path, &b.path));
        all
    }

    proptest! {
        /// The judge looks each path up in maps.
        #[test]
        fn changes_are_those_of_two_maps(
            old in btree_map((0u8..5, 0u8..5), (0u8..6, 0o640u16..0o642, 0i64..2), 0..12),
            new in btree_map((0u8..5, 0u8..5), (0u8..6, 0o640u16..0o642, 0i64..2), 0..12),
        ) {
            let (old, new) = (entries(&old), entries(&new));
            let map = |entries: &[TreeEntry]| -> BTreeMap<RelPath, TreeEntry> {
                entries.iter().map(|entry| (entry.path.clone(), entry.clone())).collect()
            };
            let (old_map, new_map) = (map(&old), map(&new));
            let mut paths: Vec<_> = old_map.keys().chain(new_map.keys()).cloned().collect();
            paths.sort_by(tree_order);
            paths.dedup();
            let expected: Vec<_> = paths
                .iter()
                .map(|path| TreeChange { old: old_map.get(path).cloned(), new: new_map.get(path).cloned() })
                .filter(|change| change.old != change.new)
                .collect();
            let (old, new) = (list(&old), list(&new));
            let found: Vec<_> = tree_changes(Some(&old), Some(&new)).collect();
            prop_assert!(found.iter().all(|change| !change.reasons().is_empty()));
            prop_assert_eq!(found, expected);
        }
    }
}
