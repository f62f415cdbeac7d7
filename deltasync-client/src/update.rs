//! What a verb tells while it runs.

use deltasync_core::{ByteLen, RelPath};
use deltasync_io::Walked;
use deltasync_proto::{EventKind, Stats};

use crate::{Pace, Retry};

/// What a verb tells while it runs: the one stream that every face draws. [`Waits`](crate::Waits) makes of it what the verb
/// waits for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// Something happened to the file with this index among the sources, from 0; a verb of one file has index 0.
    File {
        /// Which source.
        index: usize,
        /// What happened; `Ended` is the last of each file, however often it was tried. A file that is tried again starts
        /// anew with `Started`, and so does a tree that is compared again.
        kind: EventKind,
    },
    /// Something happened to a large file of a tree, which has a transfer of its own.
    Member {
        /// Which source.
        index: usize,
        /// The path below the directory.
        path: RelPath,
        /// What happened; `Ended` is the last, unless it changed and is transferred again.
        kind: EventKind,
    },
    /// A source is a tree, and has got so far. This is told before all else of a tree.
    Tree {
        /// Which source.
        index: usize,
        /// How far.
        progress: TreeProgress,
    },
    /// How far all sources together are, how fast they move and how long that will take. Told a few times a second, and last
    /// of all.
    Pace(Pace),
    /// What the connections have carried so far, all together. Told again now and then when nothing has moved.
    Carried(Stats),
    /// A connection to this server is being made.
    Connecting {
        /// The server, as it is printed.
        peer: String,
    },
    /// The connection to this server is there. The server has not said anything yet.
    Connected {
        /// The server.
        peer: String,
    },
    /// Something went wrong that another try may mend, for files that have not ended.
    Retrying(Retry),
}

/// How far a tree is, with all its large files. No number of it ever becomes less, and `total` stays once it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeProgress {
    /// What was looked at of it at our end: all that is in it, where it is listed; its files are not read for that.
    pub looked: Walked,
    /// Files that differ, small ones and large ones, as far as they are known.
    pub files: u64,
    /// Those of them that are done, or have failed.
    pub files_done: u64,
    /// Large files to transfer, each by itself, as far as that is known.
    pub members: u64,
    /// Those of them that are done, or have failed.
    pub members_done: u64,
    /// The bytes of the tree and of those files, once it is known which these are.
    pub total: Option<ByteLen>,
    /// The bytes of it that were made or sent.
    pub made: ByteLen,
}
