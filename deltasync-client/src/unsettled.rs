//! Small files of a tree that change all the time: they are left out, so that the rest arrives.
//!
//! A file that travels with its tree is looked at again when it is read. When it is no longer what was listed, the tree's
//! transfer starts over, and fails when that happens again and again. Then those that did not hold still are excluded by one
//! more pattern each, and the tree begins anew: both ends have the filter, so such a file is neither sent, nor replaced or
//! deleted at the destination. It is named in the end.
//!
//! A byte that no line of a filter can have stands there as `?`: a file whose name differs in nothing else is left out too.

use std::collections::BTreeMap;

use deltasync_core::RelPath;
use deltasync_proto::Filter;

/// How often a tree begins anew for the sake of such files.
const ANEW_MAX: u32 = 10;

/// The files that were left out, and how often each has changed while it was read.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    files: BTreeMap<RelPath, u32>,
    anew: u32,
}

impl Unsettled {
    /// Leaves out what has changed while it was read, each so often; the filter of the next attempt, if that is of use.
    pub(crate) fn leave_out(&mut self, changed: BTreeMap<RelPath, u32>, filter: &Filter) -> Option<Filter> {
        self.anew += 1;
        if changed.is_empty() || self.anew > ANEW_MAX {
            return None;
        }
        // One change may be by chance.
        let again = changed.values().any(|times| *times > 1);
        let mut filter = filter.clone();
        for (path, times) in changed.into_iter().filter(|(_, times)| !again || *times > 1) {
            filter = filter.exclude(&pattern(&path)).ok()?;
            *self.files.entry(path).or_default() += times;
        }
        Some(filter)
    }

    /// The files, and how often each has changed.
    pub(crate) fn into_files(self) -> BTreeMap<RelPath, u32> {
        self.files
    }
}

/// The line of a `.gitignore` at the top of a tree that matches this path.
fn pattern(path: &RelPath) -> String {
    let mut out = String::from("/");
    for chunk in path.as_bytes().utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '/' => out.push('/'),
                ' ' | '!'..='~' => {
                    if !letter.is_ascii_alphanumeric() {
                        out.push('\\');
                    }
                    out.push(letter);
                }
                _ if letter.is_control() || letter.is_whitespace() => {
                    (0..letter.len_utf8()).for_each(|_| out.push('?'));
                }
                _ => out.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|_| out.push('?'));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use deltasync_core::{Algorithm, ByteLen, Offset};
    use deltasync_io::{BlockingStorage as _, files_to_send};
    use deltasync_io::{LocalOptions, LocalStorage, check_filter};
    use deltasync_proto::{Answer, Ask, Cutting, Place, RootId, Scope};

    use super::*;

    /// Names that something is likely to get wrong.
    const NAMES: [&[u8]; 16] = [
        b"plain",
        b"#xy",
        b"!xy",
        b" lead",
        b"trail ",
        b"tab\t",
        b"new\nline",
        b"*?[a-z]",
        b"{a,b}",
        b"back\\slash",
        b"\xff\xfe",
        "\u{fc}\u{202e}\u{3000}".as_bytes(),
        b"[",
        b"\\",
        b"-rf",
        b"...",
    ];

    fn files(root: &std::path::Path, filter: Filter) -> usize {
        let storage = LocalStorage::roots(vec![root.to_owned()], LocalOptions::default()).expect("ours");
        let place = Place { root: RootId::new(0), path: RelPath::ROOT };
        let cutting = Cutting::Tree(Scope { filter, ..Scope::default() });
        let ask = Ask::Describe { place, cutting, algorithm: Algorithm::Blake3, remember: None };
        let Ok(Answer::Described(tree)) = storage.answer(ask) else { panic!("a tree") };
        files_to_send(&tree.file, &[(Offset::new(0), ByteLen::new(tree.chunks.len().get()))]).len()
    }

    #[test]
    fn each_name_is_matched_by_its_pattern_and_by_no_other() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        std::fs::create_dir(dir.path().join("sub")).expect("new");
        for parent in ["", "sub/"] {
            for name in NAMES {
                let path = dir.path().join(parent).join(OsStr::from_bytes(name));
                std::fs::write(path, b"x").expect("space");
            }
        }
        assert_eq!(files(dir.path(), Filter::default()), 2 * NAMES.len());
        for name in NAMES {
            for parent in [&b""[..], b"sub/"] {
                let path = RelPath::new([parent, name].concat()).expect("valid");
                let filter = Filter::default().exclude(&pattern(&path)).expect("a line");
                check_filter(&filter).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(files(dir.path(), filter), 2 * NAMES.len() - 1, "{path:?} as {}", pattern(&path));
            }
        }
    }

    #[test]
    fn what_changed_more_than_once_is_left_out_or_else_all_of_it_and_not_without_end() {
        let path = |name: &str| RelPath::new(name).expect("valid");
        let mut unsettled = Unsettled::default();
        assert_eq!(unsettled.leave_out(BTreeMap::new(), &Filter::default()), None);
        let changed = || BTreeMap::from([(path("a"), 1), (path("b"), 2)]);
        let filter = unsettled.leave_out(changed(), &Filter::default()).expect("one has");
        assert_eq!(filter.patterns(), ["/b"]);
        let filter = unsettled.leave_out(BTreeMap::from([(path("a"), 1)]), &filter).expect("the other");
        assert_eq!(filter.patterns(), ["/b", "/a"]);
        let ends = (0..ANEW_MAX).find(|_| unsettled.leave_out(changed(), &filter).is_none());
        assert_eq!(ends, Some(ANEW_MAX - 3));
        assert!(unsettled.into_files().keys().eq([&path("a"), &path("b")]));
    }
}
