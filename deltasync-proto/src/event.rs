//! What an embedder tells a session to do, and what it hears back: one stream of progress for every face.

use alloc::boxed::Box;
use alloc::vec::Vec;

use deltasync_core::{Attributes, ByteLen, Digest, Generation, Name, Offset, Placed, RelPath};

use serde::{Deserialize, Serialize};

use crate::{
    Destination, Entry, FileHandle, Omits, Place, StageHandle, TransferError, TransferId, TreeOptions, Version,
};

/// A transfer to start, or to stop. Only a client starts transfers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Bring a file at the server up to date with one of ours.
    Push {
        /// Our file.
        source: Place,
        /// Where it goes at the server: there, or into there by `name` when that is a directory.
        path: RelPath,
        /// The source's own name.
        name: Name,
        /// The destination was written with a `/` at its end: it is a directory.
        directory: bool,
        /// What may be replaced.
        condition: Condition,
    },
    /// Bring a file of ours up to date with one at the server.
    Pull {
        /// The server's file.
        path: RelPath,
        /// Where it goes here.
        destination: Destination,
        /// What may be replaced.
        condition: Condition,
    },
    /// Make a directory at the server the tree that one of ours is.
    PushTree {
        /// Our directory.
        source: Place,
        /// The directory at the server, which need not be there.
        path: RelPath,
        /// How.
        options: TreeOptions,
        /// What may be replaced.
        condition: Condition,
    },
    /// Make a directory of ours the tree that one at the server is.
    PullTree {
        /// The server's directory.
        path: RelPath,
        /// Ours, which need not be there.
        place: Place,
        /// How.
        options: TreeOptions,
        /// What may be replaced.
        condition: Condition,
    },
    /// Bring a file of a tree at the server up to date with one of ours, its permissions and time too.
    PushMember {
        /// Our file.
        source: Place,
        /// The file at the server, in a directory that is there.
        path: RelPath,
        /// What it gets beside its content.
        attributes: Attributes,
        /// It becomes visible with its tree.
        atomic: bool,
    },
    /// Bring a file of a tree of ours up to date with one at the server, its permissions and time too.
    PullMember {
        /// The server's file.
        path: RelPath,
        /// Ours, in a directory that is there.
        place: Place,
        /// What it gets beside its content.
        attributes: Attributes,
        /// It becomes visible with its tree.
        atomic: bool,
    },
    /// Tell what a push would move, and change nothing at either end: it goes as far as the delta, counts that and cancels
    /// itself. Its [`Outcome`] is what the push's would be: [`Progress::wire`] to within some bytes, for what else the
    /// receiver might ask at its commit is not known; and no generation. What a receiver has already, under whatever
    /// name, counts as copied.
    Predict {
        /// A [`Command::Push`], [`Command::PushTree`] or [`Command::PushMember`]; anything else is
        /// [`ApiMisuse::NotAPush`](crate::ApiMisuse::NotAPush).
        push: Box<Command>,
    },
    /// List a directory at the server; comes back as [`EventKind::Listed`], a page at a time.
    List {
        /// The directory.
        path: RelPath,
        /// Only names after this one.
        after: Option<Name>,
    },
    /// Ask for the root of a file at the server; comes back as [`EventKind::Root`].
    Root {
        /// The file.
        path: RelPath,
    },
    /// Make a directory at the server, in one that is there.
    MakeDirectory {
        /// The directory.
        path: RelPath,
    },
    /// Give a file or directory at the server another path, where nothing is.
    Rename {
        /// What is there.
        from: RelPath,
        /// Its new path, in a directory that is there.
        to: RelPath,
    },
    /// Remove a file or directory at the server.
    Remove {
        /// What is there.
        path: RelPath,
        /// A directory with all that is in it; else only one that is empty.
        recursive: bool,
    },
    /// The files of a [`Command::PushTree`] that do not travel with it have ended, under numbers of their own, well or not, or
    /// there are none: what waits for them goes on. To be given after each [`EventKind::Differs`].
    Complete,
    /// End a transfer that runs or waits.
    Cancel,
}

/// What a transfer may replace. A target that is there already with its root needs no replacing, whatever the condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Whatever is there. A push that finds, at its commit, a version that another writer has published meanwhile replaces
    /// that one, and tells so by [`EventKind::Conflict`]; a pull fails.
    #[default]
    Any,
    /// Nothing: no file may be there.
    Absent,
    /// Only the file with this root, in the algorithm of the target's root.
    Root(Digest),
}

/// Something happened to a transfer.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Which transfer.
    pub transfer: TransferId,
    /// What happened.
    pub kind: EventKind,
}

/// What can happen to a transfer, in about this order. [`EventKind::Ended`] comes last, exactly once.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// It runs. On the server this is the first anyone hears of it.
    Started {
        /// What it is.
        verb: Verb,
        /// The path at the server.
        path: RelPath,
    },
    /// It is at this point now.
    Phase(Phase),
    /// Where ranges of the target, made (receiver) or sent (sender), came from; in order, but that it begins again at the start
    /// with a repair, or when what was presumed does not hold. Told before the progress that counts them. Of a target that was
    /// there already it is one range.
    Placed {
        /// The length of the target.
        total: ByteLen,
        /// The next ranges.
        ranges: Vec<Placed>,
    },
    /// So much of the target has been made (receiver) or sent (sender).
    Progress(Progress),
    /// The result was not the announced one, or did not decode: it is being sent again.
    Repairing,
    /// The source changed while it was read: it starts over.
    Restarted,
    /// Another writer has published at the same place meanwhile: the transfer goes on, to replace that version.
    Conflict {
        /// What is there now; `None` when nothing is.
        current: Option<Version>,
    },
    /// Of this tree the sender cannot send everything as it is: told at both ends of a pull, at the sender's of a push. It comes
    /// when the tree was listed, and again where a file of it could not be read as it was listed: the transfer starts over
    /// then, or fails.
    ///
    /// Where [`Omits::hides`], what the receiver has beyond the sender's tree is kept.
    Omits(Omits),
    /// The sender of a tree knows what of it the receiver lacks: ranges of the archive. Files in there that do not travel
    /// with the tree are for the embedder to send, by [`Command::PushMember`]. A receiver waits for
    /// [`Command::Complete`] before it ends the tree's own transfer, unless the tree becomes visible as one change: then it fails, and
    /// they come after it.
    Differs {
        /// The described tree.
        tree: FileHandle,
        /// What the receiver lacks, in order; nothing when it has it all.
        ranges: Vec<(Offset, ByteLen)>,
    },
    /// The receiver of a tree has made it, but for files that did not travel with it, which are for the embedder to fetch.
    Made {
        /// The staged tree.
        stage: StageHandle,
    },
    /// A page of a listing.
    Listed {
        /// In the order of the names' bytes.
        entries: Vec<Entry>,
        /// True when there are more after the last one.
        more: bool,
    },
    /// The root of a file.
    Root {
        /// Its length.
        len: ByteLen,
        /// Its root, in the algorithm we asked for.
        root: Digest,
    },
    /// It was not begun, since too many run already or the session ends; nothing else is told of it.
    Refused {
        /// What it would have been.
        verb: Verb,
    },
    /// It is over.
    Ended(Result<Outcome, TransferError>),
}

/// What a transfer does, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// A file goes to the server.
    Push,
    /// A file comes from the server.
    Pull,
    /// A directory is listed.
    List,
    /// A root is asked for.
    Root,
    /// A directory is made.
    MakeDirectory,
    /// Something gets another path.
    Rename,
    /// Something is removed.
    Remove,
}

impl Verb {
    /// The word for logs and faces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
            Self::List => "list",
            Self::Root => "root",
            Self::MakeDirectory => "mkdir",
            Self::Rename => "rename",
            Self::Remove => "remove",
        }
    }
}

/// Where a transfer is, which is also what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Our storage reads and cuts a file.
    Describing,
    /// The peer compares, or prepares its part.
    Waiting,
    /// We look for the target's chunks in the basis.
    Matching,
    /// Copies and literals move.
    Moving,
    /// The result is compared with the announced root.
    Verifying,
    /// The result is made durable and published.
    Committing,
}

impl Phase {
    /// The word for logs and faces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Describing => "describing",
            Self::Waiting => "waiting for the peer",
            Self::Matching => "matching",
            Self::Moving => "moving",
            Self::Verifying => "verifying",
            Self::Committing => "committing",
        }
    }
}

/// How far a transfer is, and where its bytes came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The length of the target.
    pub total: ByteLen,
    /// Bytes of the target that the basis gave.
    pub copied: ByteLen,
    /// Bytes of the target that were sent.
    pub literal: ByteLen,
    /// Bytes of the wire that carried the literals and operations so far, this transfer alone, both ways.
    pub wire: ByteLen,
}

impl Progress {
    /// Bytes of the target that were made or sent.
    pub fn made(&self) -> ByteLen {
        self.copied + self.literal
    }
}

/// How a transfer went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The length of the target.
    pub len: ByteLen,
    /// Its root.
    pub root: Digest,
    /// The generation it was published as, where the receiver counts them; `None` when nothing had to be done.
    pub generation: Option<Generation>,
    /// Where the bytes came from, and what carried them.
    pub progress: Progress,
    /// How often a result had to be sent again.
    pub repairs: u32,
    /// The sender knew what the receiver had, or that it had the target, so the ends compared nothing.
    pub known: bool,
}
