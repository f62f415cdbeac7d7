//! A directory of a server as a window shows it: its rows in order, what is selected, and the roots that were asked for.
//!
//! A server may name as many entries as it likes; [`Browser::ROWS_MAX`] of them are kept, and that there are more is said.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use deltasync_core::{ByteLen, Digest, Name, RelPath};
use deltasync_proto::{Entry, EntryKind};

use super::words::Trouble;
use crate::shown::{Moment, Size};
use crate::{RemotePlace, Shown};

/// A directory of a server.
#[derive(Clone, Debug)]
pub struct Browser {
    /// The directory.
    pub place: RemotePlace,
    /// How its listing is.
    pub listing: Listing,
    /// What is selected, all of it in the rows.
    pub selected: BTreeSet<Name>,
    /// By what the rows are ordered, and whether the other way round.
    pub sort: (SortBy, bool),
    /// There are more entries than are kept.
    pub cut: bool,
    rows: Vec<Entry>,
    roots: BTreeMap<Name, RootState>,
}

/// How a listing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// It is being fetched; the rows are those of before, or none.
    Loading,
    /// It is all there.
    Ready,
    /// It could not be had.
    Failed(Trouble),
}

/// By what rows are ordered. Directories come first in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortBy {
    /// By the bytes of the names.
    #[default]
    Name,
    /// By length.
    Size,
    /// By the time of the last change.
    Modified,
}

/// What is known of the root of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootState {
    /// It was asked for.
    Asked,
    /// This is it.
    Known(ByteLen, Digest),
    /// It could not be had.
    Failed(Trouble),
}

impl Browser {
    /// The most rows that are kept.
    pub const ROWS_MAX: usize = 100_000;

    pub(crate) fn new(place: RemotePlace) -> Self {
        Self {
            place,
            listing: Listing::Loading,
            selected: BTreeSet::new(),
            sort: (SortBy::Name, false),
            cut: false,
            rows: Vec::new(),
            roots: BTreeMap::new(),
        }
    }

    /// The entries, in order.
    pub fn rows(&self) -> &[Entry] {
        &self.rows
    }

    /// The entry with this name.
    pub fn row(&self, name: &Name) -> Option<&Entry> {
        self.rows.iter().find(|entry| entry.name == *name)
    }

    /// The selected entry, when it is the only one.
    pub fn single(&self) -> Option<&Entry> {
        let name = self.selected.first().filter(|_| self.selected.len() == 1)?;
        self.row(name)
    }

    /// What is known of the root of this file.
    pub fn root(&self, name: &Name) -> Option<&RootState> {
        self.roots.get(name)
    }

    /// The directories from the served one on down to this, each with its name.
    pub fn crumbs(&self) -> Vec<(String, RelPath)> {
        let mut crumbs = vec![(self.place.server.to_string(), RelPath::ROOT)];
        let mut path = RelPath::ROOT;
        for name in self.place.path.components() {
            path = path.join(&name).expect("it is a part of a path");
            crumbs.push((Shown(name.as_bytes()).to_string(), path.clone()));
        }
        crumbs
    }

    /// The place of an entry with this name; `None` when its path would be too long.
    pub fn place_of(&self, name: &Name) -> Option<RemotePlace> {
        self.place.join(name).ok()
    }

    /// The size of an entry for its row.
    pub fn size_of(entry: &Entry) -> String {
        match entry.kind {
            EntryKind::File => Size(entry.len.get()).to_string(),
            EntryKind::Directory => "folder".to_owned(),
            _ => "not a file".to_owned(),
        }
    }

    /// When an entry was changed, in UTC, to the minute.
    pub fn modified_of(entry: &Entry) -> String {
        let mut text = Moment(entry.modified).to_string();
        text.truncate(text.len().saturating_sub(3));
        text
    }

    pub(crate) fn listed(&mut self, result: Result<(Vec<Entry>, bool), Trouble>) {
        match result {
            Ok((rows, cut)) => {
                // A root is that of the file that was there.
                let same = |name: &Name| rows.iter().any(|new| new.name == *name && self.row(name) == Some(new));
                let kept: Vec<Name> = self.roots.keys().filter(|name| same(name)).cloned().collect();
                self.roots.retain(|name, _| kept.contains(name));
                (self.rows, self.cut, self.listing) = (rows, cut, Listing::Ready);
                self.arrange();
                let there: BTreeSet<Name> = self.rows.iter().map(|entry| entry.name.clone()).collect();
                self.selected.retain(|name| there.contains(name));
            }
            Err(trouble) => self.listing = Listing::Failed(trouble),
        }
    }

    pub(crate) fn select(&mut self, name: &Name, add: bool) {
        if self.row(name).is_none() {
            return;
        }
        let was = self.selected.contains(name);
        if !add {
            self.selected.clear();
        }
        if !(add && was) {
            self.selected.insert(name.clone());
        } else {
            self.selected.remove(name);
        }
    }

    pub(crate) fn sort(&mut self, by: SortBy) {
        self.sort = if self.sort.0 == by { (by, !self.sort.1) } else { (by, false) };
        self.arrange();
    }

    pub(crate) fn set_root(&mut self, name: Name, root: RootState) {
        if self.row(&name).is_some() {
            self.roots.insert(name, root);
        }
    }

    fn arrange(&mut self) {
        let (by, down) = self.sort;
        let key = |a: &Entry, b: &Entry| match by {
            SortBy::Name => a.name.cmp(&b.name),
            SortBy::Size => a.len.cmp(&b.len).then_with(|| a.name.cmp(&b.name)),
            SortBy::Modified => a.modified.cmp(&b.modified).then_with(|| a.name.cmp(&b.name)),
        };
        let turned = |order: Ordering| if down { order.reverse() } else { order };
        let is_file = |entry: &Entry| entry.kind != EntryKind::Directory;
        self.rows.sort_by(|a, b| is_file(a).cmp(&is_file(b)).then_with(|| turned(key(a, b))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn entry(text: &str, kind: EntryKind, len: u64, modified: i64) -> Entry {
        Entry { name: name(text), kind, len: ByteLen::new(len), modified }
    }

    fn browser() -> Browser {
        let mut browser = Browser::new(crate::desk_address("h/a/b").expect("an address"));
        let rows = vec![
            entry("b", EntryKind::File, 1, 30),
            entry("a", EntryKind::File, 2, 20),
            entry("z", EntryKind::Directory, 0, 10),
        ];
        browser.listed(Ok((rows, false)));
        browser
    }

    fn names(browser: &Browser) -> Vec<String> {
        browser.rows().iter().map(|entry| Shown(entry.name.as_bytes()).to_string()).collect()
    }

    #[test]
    fn rows_are_in_the_order_that_is_asked_for_with_directories_first() {
        let mut browser = browser();
        assert_eq!(names(&browser), ["z", "a", "b"]);
        for (by, expected) in [
            (SortBy::Size, ["z", "b", "a"]),
            (SortBy::Size, ["z", "a", "b"]),
            (SortBy::Modified, ["z", "a", "b"]),
            (SortBy::Name, ["z", "a", "b"]),
            (SortBy::Name, ["z", "b", "a"]),
        ] {
            browser.sort(by);
            assert_eq!(names(&browser), expected, "{:?}", browser.sort);
        }
    }

    #[test]
    fn a_click_selects_one_and_with_control_it_adds_or_takes_away() {
        let mut browser = browser();
        browser.select(&name("a"), false);
        browser.select(&name("b"), false);
        assert_eq!(browser.single().map(|entry| &entry.name), Some(&name("b")));
        browser.select(&name("a"), true);
        assert_eq!(browser.selected.len(), 2);
        assert!(browser.single().is_none());
        browser.select(&name("b"), true);
        browser.select(&name("nobody"), false);
        assert_eq!(browser.single().map(|entry| &entry.name), Some(&name("a")));
    }

    #[test]
    fn what_is_gone_is_not_selected_any_more_and_a_root_is_that_of_the_file_that_was_there() {
        let mut browser = browser();
        for file in ["a", "b"] {
            browser.select(&name(file), true);
            browser.set_root(name(file), RootState::Asked);
        }
        browser.set_root(name("nobody"), RootState::Asked);
        let rows = vec![entry("a", EntryKind::File, 2, 20), entry("b", EntryKind::File, 1, 31)];
        browser.listed(Ok((rows, true)));
        assert_eq!(browser.selected.len(), 2);
        assert!(browser.cut);
        assert_eq!((browser.root(&name("a")), browser.root(&name("b"))), (Some(&RootState::Asked), None));
        browser.listed(Ok((vec![entry("b", EntryKind::File, 1, 31)], false)));
        assert_eq!(browser.single().map(|entry| &entry.name), Some(&name("b")));
        assert_eq!(browser.root(&name("nobody")), None);
    }

    #[test]
    fn a_listing_that_fails_keeps_the_rows() {
        let mut browser = browser();
        browser.listed(Err(Trouble::new("no", "")));
        assert!(matches!(browser.listing, Listing::Failed(_)));
        assert_eq!(browser.rows().len(), 3);
    }

    #[test]
    fn the_way_down_is_there_to_go_back_up() {
        let crumbs = browser().crumbs();
        let names: Vec<&str> = crumbs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["h", "a", "b"]);
        assert_eq!(crumbs[2].1, browser().place.path);
    }

    #[test]
    fn sizes_and_times_look_like_this() {
        assert_eq!(Browser::size_of(&entry("a", EntryKind::File, 2048, 0)), "2.0 KiB");
        assert_eq!(Browser::size_of(&entry("a", EntryKind::Directory, 0, 0)), "folder");
        assert_eq!(Browser::modified_of(&entry("a", EntryKind::File, 0, 90)), "1970-01-01 00:01");
    }
}
