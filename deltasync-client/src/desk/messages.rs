//! What goes into a desk and what comes out of it: actions, the effects they have, and what has come of these.

use std::path::PathBuf;

use deltasync_core::{ByteLen, Digest, Name, RelPath};
use deltasync_proto::Entry;

use super::{Alteration, JobId, KeptText, Live, Moved, Report, SortBy, Task, Trouble};
use crate::RemotePlace;

/// What somebody at a window does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeskAction {
    /// Look at this server, an address as people write it.
    Connect(String),
    /// Take this server out of the address book.
    Forget(RemotePlace),
    /// Look away from the server.
    Leave,
    /// Look into a directory that is listed.
    Open(Name),
    /// Look into this directory of the server.
    GoTo(RelPath),
    /// Look into the directory that holds this one.
    Up,
    /// List the directory again.
    Refresh,
    /// Order the rows, the other way round when they are in that order already.
    Sort(SortBy),
    /// Select an entry, alone or with what is selected.
    Select {
        /// Which.
        name: Name,
        /// Add it to what is selected, or take it away.
        add: bool,
    },
    /// Ask for the root of a file.
    AskRoot(Name),
    /// Push files and directories of this machine into the directory.
    Push(Vec<PathBuf>),
    /// Pull the selected entries into this directory of this machine.
    Pull(PathBuf),
    /// Compare a file of this machine with the selected one.
    Verify(PathBuf),
    /// Push a directory of this machine into the directory whenever something in it changes.
    Watch(PathBuf),
    /// Make a directory with this name in the directory.
    MakeDirectory(String),
    /// Give an entry another name.
    Rename {
        /// Which.
        name: Name,
        /// Its new name.
        to: String,
    },
    /// Remove what is selected, directories with all that is in them.
    Remove,
    /// End a transfer, to go on later.
    Pause(JobId),
    /// Go on with it.
    Resume(JobId),
    /// End a transfer for good.
    Cancel(JobId),
    /// Begin what has ended again.
    Retry(JobId),
    /// Take what has ended out of the queue.
    Dismiss(JobId),
    /// Take all that has ended out of the queue.
    DismissEnded,
    /// Forget what was done.
    ClearHistory,
    /// What went wrong was read.
    DismissTrouble,
}

/// Work that takes time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeskEffect {
    /// List a directory; a listing that runs is of no use any more.
    List {
        /// Comes back with the listing.
        ticket: u64,
        /// The directory.
        place: RemotePlace,
    },
    /// Fetch the root of a file.
    Root(RemotePlace),
    /// Change a directory of a server.
    Alter(Alteration),
    /// Begin a transfer.
    Start(JobId, Task),
    /// End a transfer; what was staged of it is kept.
    Stop(JobId),
    /// Keep this text.
    Keep(KeptText),
}

/// What has come of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DeskTold {
    /// What was kept by earlier runs.
    Kept(KeptText),
    /// Something a person should know that concerns no single transfer.
    Trouble(Trouble),
    /// A directory, and whether there is more in it than this.
    Listed(u64, Result<(Vec<Entry>, bool), Trouble>),
    /// The root of a file.
    Root(RemotePlace, Result<(ByteLen, Digest), Trouble>),
    /// What was to be changed in a directory of a server is changed, or is not.
    Altered(Alteration, Result<(), Trouble>),
    /// What a transfer does.
    Live(JobId, Box<Live>),
    /// A watch has pushed something, and what that came to.
    Pushed(JobId, Result<Moved, Trouble>),
    /// A transfer has ended.
    Ended(JobId, Result<Report, Trouble>),
}
