//! What a session asks of whoever holds the files, as data.
//!
//! A session never touches a file. It emits a [`Request`], the driver hands it to its storage, and the [`Answer`] comes
//! back when it comes. Requests of different transfers are independent; of one transfer a session has at most one
//! [`Ask::Apply`], [`Ask::Seal`] or [`Ask::Commit`] under way for a stage.
//!
//! An opened file and a stage are opaque tokens: the storage puts in what it likes, and when the last clone is dropped
//! the file is closed, or the stage thrown away. So nothing leaks however a transfer ends.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;

use bytes::Bytes;
use deltasync_core::{
    Algorithm, Attributes, ByteLen, ChunkList, Cutter, Digest, Generation, Name, Offset, Ops, Plan, RelPath,
    Resemblance,
};
use serde::{Deserialize, Serialize};

use crate::{Omitted, RequestId, RootId, Scope, TreeOptions};

/// A path below one of the directories that the storage was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which directory; 0 is what peers see.
    pub root: RootId,
    /// The path below it.
    pub path: RelPath,
}

/// Where a target should go: exactly there, or into there by its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The place as it was named.
    pub place: Place,
    /// The source's own name, for when the place is a directory.
    pub name: Name,
    /// The place was written with a `/` at its end: it is a directory, to be made if it is not there.
    pub directory: bool,
}

impl Place {
    /// The same place in the tree that is being made beside it, if it is to become visible with that.
    #[must_use]
    pub fn beside_if(self, atomic: bool) -> Self {
        Self { root: if atomic { self.root.beside() } else { self.root }, ..self }
    }
}

impl Destination {
    /// Exactly there, whatever is there.
    pub fn exactly(place: Place) -> Self {
        let name = place.path.split_last().map_or_else(Name::any, |(_, name)| name);
        Self { place, name, directory: false }
    }
}

/// How a file is to be cut into chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cutting {
    /// As its length and its first bytes suggest, see [`Cutter::for_file`].
    ByContent,
    /// A file as [`Cutting::ByContent`], a directory as [`Cutting::Tree`]: whichever is there.
    ByKind(Scope),
    /// A tree, and no file: of what its list is.
    Tree(Scope),
    /// So, because the peer's file was.
    Exactly(Cutter),
    /// So, because an earlier version was, unless its length has become quite another.
    Like(Cutter),
}

impl Cutting {
    /// By this cutter and no other; of a tree, by this scope.
    pub fn by(cutter: Cutter, scope: Scope) -> Self {
        match cutter {
            Cutter::Entries => Self::Tree(scope),
            cutter => Self::Exactly(cutter),
        }
    }

    /// Of what the list of a tree is.
    pub fn scope(&self) -> Scope {
        match self {
            Self::ByKind(scope) | Self::Tree(scope) => scope.clone(),
            Self::ByContent | Self::Exactly(_) | Self::Like(_) => Scope::default(),
        }
    }

    /// The cutter for a file of `len` bytes that starts with `start`, which holds the first 100 bytes or all.
    pub fn cutter(&self, len: ByteLen, start: &[u8]) -> Cutter {
        match self {
            Self::Tree(_) => Cutter::Entries,
            Self::Exactly(cutter) => *cutter,
            Self::Like(cutter) if cutter.suits(len) => *cutter,
            Self::ByContent | Self::ByKind(_) | Self::Like(_) => Cutter::for_file(len, start),
        }
    }
}

/// One request: the driver answers with `Input::Answered` and the same id.
#[derive(Clone, Debug)]
pub struct Request {
    /// To be given back with the answer.
    pub id: RequestId,
    /// What to do.
    pub ask: Ask,
}

/// What a storage can be asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Ask {
    /// Open a file to send it, cut it and compute its root; or list a tree, where that is asked for. Answer:
    /// [`Answer::Described`].
    Describe {
        /// Which file or directory.
        place: Place,
        /// How to cut it.
        cutting: Cutting,
        /// Which digests.
        algorithm: Algorithm,
        /// The name under which it may be remembered later: what that needs can be made while the file is read.
        remember: Option<Known>,
    },
    /// Find out where a target goes; if a file is there, open it as the basis, cut it and compute its root. Answer:
    /// [`Answer::Basis`]. A file that is not there is no fault; a directory where the file should be is one. For a tree
    /// ([`Cutting::Tree`]) the place is the directory itself, whatever its name, which is listed if it is there;
    /// one with the wanted root is durable then, and has a generation where commits are counted. Of a tree that is to become
    /// visible as one change ([`RootId::beside`]) the file is the one that is visible, and the part what is there of the
    /// other, for which the answer's place stands.
    Basis {
        /// Where the target should go.
        destination: Destination,
        /// How to cut the basis.
        cutting: Cutting,
        /// Which digests.
        algorithm: Algorithm,
        /// The root and length of the target: where the storage knows of a file elsewhere that has them, it opens it. When
        /// the file at the place has them it is durable once this is answered, as after a commit.
        wanted: Option<(Digest, ByteLen)>,
    },
    /// Is there a file that resembles one which is to be published at a place where none is? It is opened as a basis, cut and
    /// digested so. Answer: [`Answer::Alike`]. The storage may note what will be at the place, if that comes.
    Alike {
        /// Where the target goes.
        place: Place,
        /// How to cut the file.
        cutter: Cutter,
        /// Which digests.
        algorithm: Algorithm,
        /// What the target resembles.
        resembles: Resemblance,
        /// It is about to come; else somebody only wants to know what it would take, and nothing is noted.
        comes: bool,
    },
    /// What was the file at this place, as far as it is remembered? Answer: [`Answer::Recalled`]. Nothing is no fault.
    Recall {
        /// The file, by the name that was given with it.
        key: Known,
        /// Only with this root; otherwise the newest.
        root: Option<Digest>,
    },
    /// Remember how a file or tree looks that both ends have now. Answer: [`Answer::Remembered`], also when nothing could be.
    /// Of a tree without a generation the other end has more, so what was remembered of it is of no use.
    Remember {
        /// The file, by a name to find it again.
        key: Known,
        /// Where it was published.
        generation: Generation,
        /// What it looks like, still open.
        file: OpenedFile,
    },
    /// Read these ranges of an opened file, one after the other into one piece. Answer: [`Answer::Read`] with exactly
    /// the sum of their lengths, or a fault of kind [`FaultKind::Changed`] when the file has become shorter.
    Read {
        /// The opened file.
        file: FileHandle,
        /// Start and length of each range.
        ranges: Vec<(Offset, ByteLen)>,
    },
    /// Of the operations that make an opened tree, put copies in place of literals where the content of a file is that of
    /// another one that they copy. Answer: [`Answer::Refined`], with operations that make the same.
    Refine {
        /// The opened tree.
        file: FileHandle,
        /// The operations.
        ops: Ops,
    },
    /// Is an opened file still as it was described (length, times, the same file)? Answer: [`Answer::Rechecked`].
    Recheck {
        /// The opened file.
        file: FileHandle,
    },
    /// Begin a target that becomes visible only at its commit. Answer: [`Answer::Staged`].
    Stage {
        /// Where it will be published, as a [`Answer::Basis`] named it.
        place: Place,
        /// How long it will be.
        len: ByteLen,
        /// Which digest its root is.
        algorithm: Algorithm,
        /// The root it will have. What a stage that came to nothing has of it may be kept under this root, to go on from:
        /// see [`Answer::Basis`].
        root: Digest,
    },
    /// Begin to make a tree of what is at a place, a directory, which may not be there yet. The target is an archive, see
    /// [`TreeList`](deltasync_core::TreeList); each file in it is published as soon as it is whole, and only when its path
    /// still holds what the basis says. Applying, sealing and reopening go as for a file; the commit sets the times of
    /// directories, deletes what is extra, and fails when anything of the tree could not be made, which it names. Answer:
    /// [`Answer::Staged`].
    ///
    /// At a place beside a tree ([`RootId::beside`]) nothing is visible before the commit, and all of it after that: it takes
    /// the place of the visible tree, if that is what it was, else the fault is of kind [`FaultKind::Conflict`]. While files
    /// are missing that travel by themselves the commit fails, with [`FaultKind::Other`], and they can come.
    StageTree {
        /// The directory, as a [`Answer::Basis`] named it.
        place: Place,
        /// How long the archive will be.
        len: ByteLen,
        /// Which digest its root is.
        algorithm: Algorithm,
        /// The tree that is there.
        basis: Option<FileHandle>,
        /// What becomes of what only that has, and how it becomes visible.
        options: TreeOptions,
    },
    /// Append the steps of a plan to a stage, and hash what was appended. Answer: [`Answer::Applied`].
    Apply {
        /// The stage.
        stage: StageHandle,
        /// The opened basis, when the plan copies from one.
        basis: Option<FileHandle>,
        /// What to append; every copy lies within the basis as it was described.
        plan: Plan,
        /// The literal bytes that the plan refers to.
        literals: Bytes,
    },
    /// Tell the digest of all that was appended, and whether members of a tree come beside it. Answer: [`Answer::Sealed`].
    Seal {
        /// The stage.
        stage: StageHandle,
    },
    /// Open what was appended to a stage, as a file to read and to copy from; nothing more is appended to it. Answer:
    /// [`Answer::Reopened`].
    Reopen {
        /// The stage.
        stage: StageHandle,
    },
    /// Set permissions and time of a file, staged or there already. Answer: [`Answer::Adorned`].
    Adorn {
        /// Which one.
        file: Adorned,
        /// What it gets; never the bits that lend a user's or a group's rights.
        attributes: Attributes,
    },
    /// Make the staged target durable and publish it in one step, if what it replaces is still what is there; otherwise
    /// the fault is of kind [`FaultKind::Conflict`], nothing has changed, and the stage can be committed again. Answer:
    /// [`Answer::Committed`], only when a power cut can no longer undo it.
    Commit {
        /// The stage.
        stage: StageHandle,
        /// What is there, as far as the committer knows.
        replaces: Replaces,
    },
    /// List a directory, or a single file, in the order of the names' bytes. Answer: [`Answer::Listed`].
    List {
        /// The directory or file.
        place: Place,
        /// Only names after this one.
        after: Option<Name>,
        /// How many entries at most.
        most: usize,
    },
    /// Make a directory in one that is there. Answer: [`Answer::Altered`], only when a power cut can no longer undo it, as of
    /// the two that follow. A fault of kind [`FaultKind::Exists`] when something is there.
    MakeDirectory {
        /// The directory.
        place: Place,
    },
    /// Give a file, a link, a directory or whatever is at a place another path below the same directory, in one step; never
    /// over what is there, then the fault is of kind [`FaultKind::Exists`]. Answer: [`Answer::Altered`].
    Rename {
        /// What is there.
        from: Place,
        /// Its new path, in a directory that is there.
        to: RelPath,
    },
    /// Remove what is at a place, a link itself. Answer: [`Answer::Altered`]. A fault of kind [`FaultKind::NotEmpty`] when it
    /// is a directory that is not empty, unless all that is in it goes too; what fails in the middle leaves a part of that.
    Remove {
        /// What is there.
        place: Place,
        /// A directory with all that is in it.
        recursive: bool,
    },
}

/// A file whose permissions and time are set.
#[derive(Clone, Debug)]
pub enum Adorned {
    /// All of it is staged, and it is not committed.
    Staged(StageHandle),
    /// It is at this place.
    There(Place, FileHandle),
}

/// What a commit replaces: of two who saw the same, only the first one's commit succeeds.
#[derive(Clone, Debug)]
pub enum Replaces {
    /// Nothing: there is no file at the place.
    Nothing,
    /// The file that was opened as this, which is still at the place and looks as it did.
    File(FileHandle),
}

/// What a storage answers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// To [`Ask::Describe`].
    Described(OpenedFile),
    /// To [`Ask::Basis`].
    Basis {
        /// Where the target goes, a directory resolved.
        place: Place,
        /// The file that is there, if any.
        file: Option<OpenedFile>,
        /// A file elsewhere that has the wanted root, if one is known. Its content is checked like any other.
        twin: Option<FileHandle>,
        /// What an earlier stage of the wanted root at this place had got to, or else one of any root, with the file that is
        /// there behind it as one basis, where that is kept. Its own root and generation mean nothing.
        partial: Option<OpenedFile>,
    },
    /// To [`Ask::Alike`]: the file, if there is one. Its generation means nothing.
    Alike(Option<OpenedFile>),
    /// To [`Ask::Recall`].
    Recalled(Option<Remembered>),
    /// To [`Ask::Remember`].
    Remembered,
    /// To [`Ask::Read`].
    Read(Bytes),
    /// To [`Ask::Refine`].
    Refined(Ops),
    /// To [`Ask::Recheck`]: true when nothing has changed.
    Rechecked {
        /// True when the file is as it was described.
        unchanged: bool,
    },
    /// To [`Ask::Stage`].
    Staged(StageHandle),
    /// To [`Ask::Apply`].
    Applied,
    /// To [`Ask::Reopen`]: the staged bytes.
    Reopened(FileHandle),
    /// To [`Ask::Seal`].
    Sealed {
        /// The digest of the staged bytes.
        root: Digest,
        /// For a tree that is made in its place, some of whose files travel by themselves beside it: about how many bytes of
        /// memory it takes to wait for them. A commit gives their directories the times that they are to have, so it is
        /// better made then.
        members: Option<ByteLen>,
    },
    /// To [`Ask::Adorn`].
    Adorned,
    /// To [`Ask::Commit`]: published as this generation.
    Committed(Generation),
    /// To [`Ask::List`].
    Listed {
        /// In the order of the names' bytes.
        entries: Vec<Entry>,
        /// True when there are more after the last one.
        more: bool,
    },
    /// To [`Ask::MakeDirectory`], [`Ask::Rename`] and [`Ask::Remove`].
    Altered,
}

/// A file that was opened and described in one go.
#[derive(Clone, Debug)]
pub struct OpenedFile {
    /// Stays the same file however the name is reused.
    pub file: FileHandle,
    /// Its chunks, length and root.
    pub chunks: Arc<ChunkList>,
    /// The commit that published it as it is; [`Generation::ZERO`] where commits are not counted, or when it was changed
    /// by other means.
    pub generation: Generation,
    /// Of a tree: what is not in it as it is, for whatever reason but a filter.
    pub omitted: Arc<[Omitted]>,
}

impl OpenedFile {
    /// True for a directory that was listed as a tree.
    pub fn is_tree(&self) -> bool {
        self.chunks.cutter() == Cutter::Entries
    }

    /// Which version of the file this is.
    pub fn version(&self) -> Version {
        Version { generation: self.generation, root: self.chunks.root() }
    }
}

/// One published state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The commit that published it; [`Generation::ZERO`] when that is not known.
    pub generation: Generation,
    /// Its root.
    pub root: Digest,
}

/// The name under which a file is remembered: what a command called it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Known {
    /// The path at the server, as it was named.
    pub path: RelPath,
    /// The source's own name, where the path may be a directory.
    pub name: Option<Name>,
}

/// How a file looked when both ends had it.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// Where it was published.
    pub generation: Generation,
    /// Its chunks, length and root.
    pub chunks: Arc<ChunkList>,
    /// What is kept of its bytes.
    pub kept: Kept,
}

/// What is kept of the bytes of a remembered file.
#[derive(Clone, Debug)]
pub enum Kept {
    /// All of them.
    Copy(FileHandle),
    /// The sums of its blocks, [`FineShape::KEPT`](deltasync_core::FineShape::KEPT), one after the other in 4 bytes each
    /// (least significant first), to be read like a file.
    Sums {
        /// The sums.
        file: FileHandle,
        /// The secret under which they were made, see [`FineKey::kept`](deltasync_core::FineKey::kept).
        secret: [u8; 32],
    },
}

/// One path in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in its directory.
    pub name: Name,
    /// What it is.
    pub kind: EntryKind,
    /// The length of a file in bytes; 0 for what is not a file.
    pub len: ByteLen,
    /// When it was last modified, in seconds since 1970.
    pub modified: i64,
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, a device or something else that is not followed.
    Other,
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Arc<dyn Any + Send + Sync>);

        impl $name {
            /// A token for whatever the storage keeps for it.
            pub fn new(inner: impl Any + Send + Sync) -> Self {
                Self(Arc::new(inner))
            }

            /// What the storage put in, when it is of this type.
            pub fn downcast_ref<T: Any>(&self) -> Option<&T> {
                self.0.downcast_ref()
            }
        }

        /// Of the very same thing.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

token! {
    /// An opened file. Dropping the last clone closes it.
    FileHandle
}
token! {
    /// A staged target. Dropping the last clone before the commit throws it away.
    StageHandle
}

/// Why a storage could not do what it was asked. It ends the transfer, not the session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StorageFault {
    /// What kind of trouble, for code.
    pub kind: FaultKind,
    /// What happened, for people: the path as the peer knows it and the system's message, never a path of the machine.
    pub message: String,
    /// What is there, or should be, where that is the trouble.
    pub current: Option<Version>,
    /// Of a tree that was to be read: the files that could not be, or were not what was listed.
    pub omitted: Vec<Omitted>,
}

/// The kinds of trouble a storage can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FaultKind {
    /// Nothing is there.
    NotFound,
    /// It may not be read or written, or the path leaves the root.
    Denied,
    /// A directory is where a file should be, or the other way round.
    WrongKind,
    /// No space is left, or a quota is reached.
    Full,
    /// A file is longer than the limits allow.
    TooLarge,
    /// A file changed while it was read.
    Changed,
    /// What a commit would replace is not what is there.
    Conflict,
    /// The content is not what was published: a disk lost it, or a program changed it unseen. `current` is what it should
    /// be; who has that may push it.
    Damaged,
    /// Something is there already.
    Exists,
    /// A directory is not empty.
    NotEmpty,
    /// Anything else the system said.
    Other,
}

impl StorageFault {
    /// A fault with its message.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), current: None, omitted: Vec::new() }
    }

    /// With what is there, or should be.
    #[must_use]
    pub fn with_current(mut self, current: Version) -> Self {
        self.current = Some(current);
        self
    }

    /// With the files of a tree that it is about.
    #[must_use]
    pub fn with_omitted(mut self, omitted: Vec<Omitted>) -> Self {
        self.omitted = omitted;
        self
    }
}
