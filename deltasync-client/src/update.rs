//! What a verb tells while it runs.

use deltasync_proto::{EventKind, Stats};

use crate::Retry;

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
        /// anew with `Started`.
        kind: EventKind,
    },
    /// What the connections have carried so far, all together.
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
