//! Entries of a tree that its sender cannot send as they are.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use deltasync_core::RelPath;
use serde::{Deserialize, Serialize};

use crate::TEXT_MAX;

/// An entry of a tree that is not sent, or not as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Omitted {
    /// Where it is below the directory of the tree.
    pub path: RelPath,
    /// Why.
    pub why: Why,
}

/// Why an entry of a tree is not sent as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Why {
    /// It is no file, directory or symbolic link, or something about it is not kept. What, for people.
    NotKept(String),
    /// It may not be read, or what is in it not be listed: it is not in the tree. What the system says, for people.
    Unlisted(String),
    /// A file that travels with its tree, and is in its list, cannot be read. What the system says, for people.
    Unreadable(String),
    /// A file that travels with its tree was not what was listed when it was read.
    Changed,
}

/// What the sender of a tree omits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omits {
    /// The entries, as many as are told one by one.
    pub entries: Vec<Omitted>,
    /// How many more there are.
    pub more: u64,
}

impl Omits {
    /// The most entries that are told one by one.
    pub const ENTRIES_MAX: usize = 1000;
    /// The most bytes of their paths and texts, so that a message of them stays below
    /// [`CONTROL_MAX`](crate::CONTROL_MAX).
    const BYTES_MAX: usize = 48 << 10;

    /// As many of the entries as are told, those that are not listed first, and how many more there are.
    pub fn of(entries: &[Omitted]) -> Self {
        let mut left = Self::BYTES_MAX;
        let fits = |omitted: &&Omitted| {
            let bytes = omitted.path.as_bytes().len() + omitted.why.text().map_or(0, |text| text.len().min(TEXT_MAX));
            left.checked_sub(bytes).inspect(|after| left = *after).is_some()
        };
        let (unlisted, others): (Vec<_>, Vec<_>) = entries.iter().partition(|omitted| omitted.is_unlisted());
        let told = unlisted.into_iter().chain(others).take(Self::ENTRIES_MAX).take_while(fits);
        let told: Vec<_> = told.cloned().map(Omitted::bounded).collect();
        Self { more: (entries.len() - told.len()) as u64, entries: told }
    }

    /// True where there is more in the tree than its list says.
    pub fn hides(&self) -> bool {
        self.entries.iter().any(Omitted::is_unlisted)
    }

    /// The bytes of its longest text.
    pub(crate) fn longest_text(&self) -> usize {
        self.entries.iter().filter_map(|omitted| omitted.why.text()).map(str::len).max().unwrap_or(0)
    }
}

impl Omitted {
    /// True for what is not in the list of its tree.
    pub fn is_unlisted(&self) -> bool {
        matches!(self.why, Why::Unlisted(_))
    }

    fn bounded(self) -> Self {
        let why = match self.why {
            Why::NotKept(text) => Why::NotKept(crate::message::bounded_text(text)),
            Why::Unlisted(text) => Why::Unlisted(crate::message::bounded_text(text)),
            Why::Unreadable(text) => Why::Unreadable(crate::message::bounded_text(text)),
            Why::Changed => Why::Changed,
        };
        Self { why, ..self }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotKept(what) => f.write_str(what),
            Self::Unlisted(what) | Self::Unreadable(what) => write!(f, "cannot be read: {what}"),
            Self::Changed => f.write_str("changed while it was read"),
        }
    }
}

impl Why {
    fn text(&self) -> Option<&str> {
        match self {
            Self::NotKept(text) | Self::Unlisted(text) | Self::Unreadable(text) => Some(text),
            Self::Changed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::{CONTROL_MAX, Message, TransferId, TransferMessage};

    #[test]
    fn what_is_told_fits_a_message_and_what_is_not_listed_comes_first() {
        let omitted = |path: String, why| Omitted { path: RelPath::new(path).expect("valid"), why };
        let long = vec!["n".repeat(250); 16].join("/");
        for (count, path, text) in
            [(3, "a".into(), 3), (5000, "a".into(), 3), (5000, long, 3), (5000, "a".into(), 5000)]
        {
            let not_kept = || Why::NotKept("x".repeat(text));
            let mut entries = vec![omitted(path.clone(), not_kept()); count];
            entries.push(omitted("hidden".into(), Why::Unlisted("no".into())));
            let omits = Omits::of(&entries);
            assert_eq!(omits.entries.len() as u64 + omits.more, count as u64 + 1);
            assert!(omits.hides() && omits.entries.len() > 3 && omits.longest_text() <= TEXT_MAX);
            let payload = Message::Transfer(TransferId::new(1), TransferMessage::Omits(omits)).encode().payload;
            assert!(payload < CONTROL_MAX && (count == 3 || payload > 7_000), "{payload} bytes");
        }
    }
}
