//! Of what a tree is listed, and what becomes of the one that it replaces.

use deltasync_core::Malformed;
use serde::{Deserialize, Serialize};

use crate::Filter;

/// What a list of a tree says of it. Both ends list theirs alike, so this travels with the wish of a push and the request
/// of a pull.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(Filter, u8)", into = "(Filter, u8)")]
pub struct Scope {
    /// Which entries take part.
    pub filter: Filter,
    /// Of several names of one file in the tree, all but the first are links to that; else each is a file of its own.
    pub hard_links: bool,
    /// Entries have their extended attributes, of the namespace of users.
    pub xattrs: bool,
    /// Files have the digest of their content, which is read: length and time are not trusted to tell whether it is the
    /// same.
    pub checksum: bool,
    /// The archive holds no content of files, see [`TreeLister::headers_only`](deltasync_core::TreeLister::headers_only).
    /// Whoever asks for such a tree wants the list alone: nothing is made of it.
    pub headers_only: bool,
}

const HARD_LINKS: u8 = 1;
const XATTRS: u8 = 2;
const CHECKSUM: u8 = 4;
const HEADERS_ONLY: u8 = 8;

impl TryFrom<(Filter, u8)> for Scope {
    type Error = Malformed;
    fn try_from((filter, flags): (Filter, u8)) -> Result<Self, Malformed> {
        if flags & !(HARD_LINKS | XATTRS | CHECKSUM | HEADERS_ONLY) != 0 {
            return Err(Malformed::Value("flags of a tree's list are not known"));
        }
        let is = |flag| flags & flag != 0;
        Ok(Self {
            filter,
            hard_links: is(HARD_LINKS),
            xattrs: is(XATTRS),
            checksum: is(CHECKSUM),
            headers_only: is(HEADERS_ONLY),
        })
    }
}

impl From<Scope> for (Filter, u8) {
    fn from(scope: Scope) -> Self {
        let flag = |is: bool, flag: u8| u8::from(is) * flag;
        let links = flag(scope.hard_links, HARD_LINKS);
        let content = flag(scope.checksum, CHECKSUM) | flag(scope.headers_only, HEADERS_ONLY);
        (scope.filter, links | flag(scope.xattrs, XATTRS) | content)
    }
}

/// How a tree is transferred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeOptions {
    /// What becomes of what only the receiver has.
    pub extra: Extra,
    /// Of what the lists are.
    pub scope: Scope,
    /// The tree becomes visible as one change; else each file by itself.
    pub atomic: bool,
}

/// What becomes of what only the receiver's tree has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extra {
    /// It stays.
    #[default]
    Keep,
    /// It is deleted once all else is in place, unless that would be too much.
    Delete {
        /// How many entries at most, beyond which nothing is deleted and the commit fails; `None` for half of the tree.
        most: Option<u64>,
    },
}

impl TreeOptions {
    /// Sets what becomes of what only the receiver has.
    #[must_use]
    pub fn extra(mut self, extra: Extra) -> Self {
        self.extra = extra;
        self
    }

    /// Sets of what the lists are.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Sets whether the tree becomes visible as one change.
    #[must_use]
    pub fn atomic(mut self, atomic: bool) -> Self {
        self.atomic = atomic;
        self
    }
}

impl From<Filter> for Scope {
    /// What the filter lets take part, without anything that costs more.
    fn from(filter: Filter) -> Self {
        Self { filter, ..Self::default() }
    }
}
