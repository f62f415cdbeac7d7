//! What of a tree is not sent as it is, and named in the end.
//!
//! What is no file, directory or symbolic link is in no list. Nor is what may not be read: nothing is deleted then, since what
//! the receiver has in its place is not extra.
//!
//! A file that travels with its tree is read when it is sent. Where it cannot be all the same, the tree's transfer fails; where
//! it is no longer what was listed, it starts over, and fails when that happens again and again. Then those files are excluded by one
//! more pattern each, and the tree begins anew: both ends have the filter, so such a file is neither sent, nor replaced or
//! deleted at the destination.
//!
//! A byte that no line of a filter can have stands there as `?`: a file whose name differs in nothing else is left out too.

use std::collections::{BTreeMap, BTreeSet};

use deltasync_core::RelPath;
use deltasync_proto::{Filter, Omits, Omitted, TransferError, Why};

use crate::ClientError;

/// How often a tree begins anew for the sake of files that cannot be read as they were listed.
const ANEW_MAX: u32 = 10;

/// What of a tree is not sent as it is.
#[derive(Debug, Default)]
pub(crate) struct Omissions {
    /// What is not kept of it, or cannot be listed, as of the last comparison.
    unlisted: BTreeSet<(RelPath, String)>,
    /// What its list lacks, with all that is in it.
    hidden: BTreeSet<RelPath>,
    /// What could not be read as it was listed, in the transfer that is under way.
    met: BTreeMap<RelPath, Unread>,
    /// What a pattern leaves out for that.
    left_out: BTreeMap<RelPath, Unread>,
    anew: u32,
}

#[derive(Clone, Debug)]
enum Unread {
    /// It has changed while it was read, so often.
    Changed(u32),
    /// What the system says.
    Unreadable(String),
}

impl Omissions {
    /// The tree is compared, perhaps once more: what is still omitted is told again.
    pub(crate) fn forget(&mut self) {
        self.unlisted.clear();
        self.hidden.clear();
        self.met.clear();
    }

    /// Takes in what its sender says.
    pub(crate) fn take(&mut self, omits: Omits) {
        if omits.more > 0 {
            self.unlisted.insert((RelPath::ROOT, format!("and {} entries more", omits.more)));
        }
        for Omitted { path, why } in omits.entries {
            match why {
                Why::NotKept(what) => drop(self.unlisted.insert((path, what))),
                Why::Unlisted(_) => {
                    self.unlisted.insert((path.clone(), why.to_string()));
                    self.hidden.insert(path);
                }
                Why::Unreadable(what) => drop(self.met.insert(path, Unread::Unreadable(what))),
                Why::Changed => match self.met.entry(path).or_insert(Unread::Changed(0)) {
                    Unread::Changed(times) => *times += 1,
                    Unread::Unreadable(_) => {}
                },
            }
        }
    }

    /// Where a transfer has failed with this error since something could not be read as it was listed: leaves that out by the
    /// filter of the next attempt.
    pub(crate) fn leave_out_after(&mut self, error: &TransferError, filter: &mut Filter) -> bool {
        if !self.may_explain(error) {
            return false;
        }
        let Some(next) = self.leave_out(filter) else { return false };
        *filter = next;
        self.forget();
        true
    }

    /// True where a transfer that has failed with this error may go well without what could not be read.
    pub(crate) fn may_explain(&self, error: &TransferError) -> bool {
        let of_reading =
            matches!(error, TransferError::Changed { .. } | TransferError::Storage(_) | TransferError::Refused(_));
        of_reading && !self.met.is_empty()
    }

    /// Leaves out what could not be read as it was listed; the filter of the next attempt, if that is of use.
    fn leave_out(&mut self, filter: &Filter) -> Option<Filter> {
        self.anew += 1;
        let met = std::mem::take(&mut self.met);
        if met.is_empty() || self.anew > ANEW_MAX {
            return None;
        }
        // One change may be by chance.
        let is_certain = |unread: &Unread| !matches!(unread, Unread::Changed(0 | 1));
        let some_are = met.values().any(is_certain);
        let mut filter = filter.clone();
        for (path, unread) in met.into_iter().filter(|(_, unread)| !some_are || is_certain(unread)) {
            filter = filter.exclude(&pattern(&path)).ok()?;
            let times = |unread: &Unread| if let Unread::Changed(times) = unread { *times } else { 0 };
            let before = self.left_out.get(&path).map_or(0, times);
            let unread = if let Unread::Changed(times) = unread { Unread::Changed(before + times) } else { unread };
            self.left_out.insert(path, unread);
        }
        Some(filter)
    }

    /// True where a path is left out or hidden, or in what is.
    pub(crate) fn holds(&self, path: &RelPath) -> bool {
        self.left_out.keys().chain(&self.hidden).any(|omitted| omitted == path || omitted.holds(path))
    }

    /// True where the list that was compared last lacks something of the source.
    pub(crate) fn hides(&self) -> bool {
        !self.hidden.is_empty()
    }

    /// Each entry that is not there as it is, and why; `deletes` where what is extra was to be deleted.
    pub(crate) fn into_errors(self, deletes: bool) -> Vec<(RelPath, ClientError)> {
        let left_out = |reason| ClientError::LeftOut { reason };
        let kept = deletes && self.hides();
        let kept = kept.then(|| "nothing is deleted, since not all of the source can be read".to_owned());
        let mut errors: Vec<_> = kept.into_iter().map(|reason| (RelPath::ROOT, left_out(reason))).collect();
        let met = self.met.into_iter().filter(|(_, unread)| matches!(unread, Unread::Unreadable(_)));
        for (path, unread) in self.left_out.into_iter().chain(met) {
            let error = match unread {
                Unread::Changed(times) => TransferError::Changed { times }.into(),
                Unread::Unreadable(what) => left_out(Why::Unreadable(what).to_string()),
            };
            errors.push((path, error));
        }
        errors.extend(self.unlisted.into_iter().map(|(path, reason)| (path, left_out(reason))));
        errors
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
        let mut omissions = Omissions::default();
        let changed = TransferError::Changed { times: 3 };
        assert!(!omissions.may_explain(&changed) && omissions.leave_out(&Filter::default()).is_none());
        tell(&mut omissions, &[("a", Why::Changed), ("b", Why::Changed), ("b", Why::Changed)]);
        assert!(omissions.may_explain(&changed) && !omissions.may_explain(&TransferError::Cancelled));
        let filter = omissions.leave_out(&Filter::default()).expect("one has");
        assert_eq!(filter.patterns(), ["/b"]);
        tell(&mut omissions, &[("a", Why::Changed)]);
        let filter = omissions.leave_out(&filter).expect("the other");
        assert_eq!(filter.patterns(), ["/b", "/a"]);
        let ends = (0..ANEW_MAX).find(|_| {
            tell(&mut omissions, &[("a", Why::Changed)]);
            omissions.leave_out(&filter).is_none()
        });
        assert_eq!(ends, Some(ANEW_MAX - 3));
        let errors = omissions.into_errors(true);
        assert!(errors.iter().map(|(path, _)| path).eq([&path("a"), &path("b")]), "{errors:?}");
    }

    #[test]
    fn what_cannot_be_read_is_left_out_at_once_and_nothing_is_deleted_while_a_directory_cannot() {
        let unreadable = || Why::Unreadable("no".to_owned());
        let mut omissions = Omissions::default();
        tell(&mut omissions, &[("a", Why::Changed), ("b", unreadable()), ("pipe", Why::NotKept("a pipe".into()))]);
        let filter = omissions.leave_out(&Filter::default()).expect("one has");
        assert_eq!(filter.patterns(), ["/b"]);
        assert!(omissions.holds(&path("b")) && omissions.holds(&path("b/c")) && !omissions.holds(&path("bc")));
        omissions.forget();
        tell(&mut omissions, &[("closed", Why::Unlisted("no".into())), ("pipe", Why::NotKept("a pipe".into()))]);
        let shown: Vec<_> =
            omissions.into_errors(true).iter().map(|(path, error)| format!("{path}: {error}")).collect();
        let kept = ": left out: nothing is deleted, since not all of the source can be read";
        let others =
            ["b: left out: cannot be read: no", "closed: left out: cannot be read: no", "pipe: left out: a pipe"];
        assert_eq!(shown, [&[kept][..], &others].concat());
    }

    fn path(name: &str) -> RelPath {
        RelPath::new(name).expect("valid")
    }

    fn tell(omissions: &mut Omissions, entries: &[(&str, Why)]) {
        for (name, why) in entries {
            omissions.take(Omits { entries: vec![Omitted { path: path(name), why: why.clone() }], more: 0 });
        }
    }
}
