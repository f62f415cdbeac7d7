//! What goes wrong in a verb, sorted by what decides the exit status and the next step of whoever called it.

use std::io;

use deltasync_core::{BasisChanged, Digest, InvalidPath, InvalidShape, InvalidSignature, PatchError, TargetChanged};
use deltasync_io::{BandwidthTooLow, DriveError, InvalidPattern};
use deltasync_proto::{FaultKind, RefusalCode, TransferError, Version};

use crate::ConnectError;
use crate::shown::There;

/// How a verb fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The verb was called in a way it cannot work. Fix the call.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// A file of this machine cannot be read or written.
    #[error("cannot {doing} {path}")]
    File {
        /// What was being done to it, as a verb.
        doing: &'static str,
        /// The path as it was named, safe to print.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no connection to the server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection ended before its transfers did.
    #[error("connection to {peer} failed")]
    Connection {
        /// The other end.
        peer: String,
        /// Why.
        source: DriveError,
    },
    /// One transfer failed.
    #[error(transparent)]
    Transfer(TransferError),
    /// What is there is not what was to be replaced; it is as it was.
    #[error("what is there now is not what was to be replaced: {}", There(.current.as_ref()))]
    Conflict {
        /// What is there now; `None` when no file is.
        current: Option<Version>,
    },
    /// The copy of the peer lost its content: a disk failed, or a program changed it unseen. It could not be repaired.
    #[error("the copy there does not have the content it was published with{}", behind_colon(.published.as_ref()))]
    Damaged {
        /// What it was published as, where that is known.
        published: Option<Version>,
        /// How pushing our copy there failed, where ours has that content.
        #[source]
        repair: Option<Box<TransferError>>,
    },
    /// Something in a tree that cannot be transferred, such as a device. All else is.
    #[error("left out: {reason}")]
    LeftOut {
        /// Why.
        reason: String,
    },
    /// Two files that should be equal are not.
    #[error("files differ: {local} here, {remote} there")]
    Differ {
        /// The root of ours.
        local: Digest,
        /// The root of the other.
        remote: Digest,
    },
    /// A signature cannot be read.
    #[error("cannot use signature {path}")]
    Signature {
        /// Where it was read from, safe to print.
        path: String,
        /// What is wrong with it.
        source: InvalidSignature,
    },
    /// No signature can be made with these settings.
    #[error("cannot make a signature")]
    Shape(#[from] InvalidShape),
    /// A file changed while it was read.
    #[error("{0}; try again")]
    Changed(ChangedFile),
    /// A delta could not be carried out, or made something else than it announces; nothing was published.
    #[error("cannot patch {basis} with {delta}")]
    Patch {
        /// The basis, safe to print.
        basis: String,
        /// The delta, safe to print.
        delta: String,
        /// What is wrong.
        source: PatchError,
    },
    /// A directory that was watched is another one now.
    #[error("{path} is not the directory any more that was watched; begin again if it is the one to watch now")]
    Replaced {
        /// The directory as it was named, safe to print.
        path: String,
    },
    /// A server may have heard what was asked of it, and did not answer: it was done or not. It was not asked again.
    #[error("no answer came: it may have been done, or not")]
    Unanswered {
        /// Why no answer came.
        source: Box<ClientError>,
    },
    /// The server program that a demo needs is not there.
    #[error("there is no deltasync-server beside this program: {path}")]
    NoServer {
        /// Where it was looked for, safe to print.
        path: String,
    },
    /// Whoever called the verb ended it.
    #[error("interrupted")]
    Interrupted,
}

/// A file that has another length than when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangedFile {
    /// The basis of a signature.
    #[error(transparent)]
    Basis(#[from] BasisChanged),
    /// The target of a delta.
    #[error(transparent)]
    Target(#[from] TargetChanged),
}

/// A call that cannot work. Paths in it are safe to print.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// A push from a server.
    #[error("push takes files of this machine, {0} is at a server: use `pull`")]
    RemoteSource(String),
    /// A pull to a server.
    #[error("pull writes to this machine, {0} is at a server: use `push`")]
    RemoteDestination(String),
    /// A directory where only a file will do.
    #[error("{0} is a directory, not a file")]
    SourceDirectory(String),
    /// A device, a pipe or a socket.
    #[error("{0} is not a regular file")]
    NotAFile(String),
    /// The same as a source of a transfer, which may be a directory too.
    #[error("{0} is neither a regular file nor a directory")]
    NotASource(String),
    /// The contents of a directory, and more sources.
    #[error(
        "{0} means what is in that directory, which can only go alone: write it without a `/` at its end, or alone"
    )]
    ContentsOfSeveral(String),
    /// Two directories of this machine, one in the other.
    #[error("{source_dir} and {target} lie in each other")]
    Nested {
        /// The source.
        source_dir: String,
        /// The destination.
        target: String,
    },
    /// What is to be renamed, and its new place, are not at one server.
    #[error("{from} and {to} are not at the same server, nor both on this machine")]
    OtherServer {
        /// What is to be renamed.
        from: String,
        /// Its new place.
        to: String,
    },
    /// A watch of several directories.
    #[error("watch takes a single directory of this machine, {0} sources are given")]
    WatchOfSeveral(usize),
    /// A dry run of a watch.
    #[error("watch has no dry run: `push --dry-run` tells what it would do")]
    WatchDry,
    /// Something is to be deleted, and no source is a directory.
    #[error(
        "what only the destination has can be deleted (--delete) where a directory is transferred, and none is given"
    )]
    DeleteForFiles,
    /// Something is to take no part, and no source is a directory.
    #[error("what takes part (--exclude, --include, --ignore-files) can be said of a directory, and none is given")]
    FilterForFiles,
    /// A pattern of what takes part means nothing.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// Several sources, or a `/` at the end, and a file in that place.
    #[error("{0} is not a directory")]
    NotADirectory(String),
    /// A symbolic link to nothing.
    #[error("{0} is a symbolic link to nothing")]
    DanglingLink(String),
    /// Two sources with the same name.
    #[error("{first} and {second} would both be written to {target}")]
    Collision {
        /// The first source.
        first: String,
        /// The second source.
        second: String,
        /// Where both would go.
        target: String,
    },
    /// A path that cannot be named to the other end.
    #[error("{path}: {cause}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        cause: InvalidPath,
    },
    /// A bandwidth that is too low, shared by all connections of a pull.
    #[error("cannot share the bandwidth among the connections (--bwlimit): {0}")]
    Bandwidth(BandwidthTooLow),
    /// Nothing to transfer.
    #[error("no source is given")]
    NoSource,
    /// A condition on what may be replaced, and several sources.
    #[error("what may be replaced (--if-match) can be said of a single file, {0} are given")]
    ConditionOfSeveral(usize),
}

fn behind_colon(version: Option<&Version>) -> String {
    version.map_or_else(String::new, |_| format!(": {}", There(version)))
}

/// Conflicts and damage come to the caller in one way, whichever end found them.
impl From<TransferError> for ClientError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Conflict { current } => Self::Conflict { current },
            TransferError::Refused(refusal) if refusal.code == RefusalCode::Conflict => {
                Self::Conflict { current: refusal.current }
            }
            TransferError::Refused(refusal) if refusal.code == RefusalCode::Damaged => {
                Self::Damaged { published: refusal.current, repair: None }
            }
            TransferError::Storage(fault) if fault.kind == FaultKind::Conflict => {
                Self::Conflict { current: fault.current }
            }
            TransferError::Storage(fault) if fault.kind == FaultKind::Damaged => {
                Self::Damaged { published: fault.current, repair: None }
            }
            error => Self::Transfer(error),
        }
    }
}

impl ClientError {
    pub(crate) fn file(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { doing, path: crate::Shown::path(path).to_string(), source }
    }
}

impl From<BasisChanged> for ClientError {
    fn from(error: BasisChanged) -> Self {
        Self::Changed(error.into())
    }
}

impl From<TargetChanged> for ClientError {
    fn from(error: TargetChanged) -> Self {
        Self::Changed(error.into())
    }
}
