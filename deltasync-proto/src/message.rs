//! The messages: what each frame kind means in version 3.
//!
//! Control messages are small and written by postcard; the bulk ones have the layouts of `bulk.rs`. A message is decoded
//! as a whole or refused, and every limit that a payload can pass is checked here.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use deltasync_core::{
    Algorithm, Attributes, ByteLen, Cutter, Digest, Generation, InvalidPath, LimitExceeded, Limits, Malformed, Name,
    Reader, RelPath, Resemblance, write_varint,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{
    CloseCode, Condition, Delta, Edges, Entry, Frame, Hello, InvalidMessage, Omits, Order, Refusal, Repair, Scope,
    SetPart, TransferId, TreeOptions, Unsupported, Version, Want, encode_header,
};

/// The longest payload of a control message, in bytes.
pub const CONTROL_MAX: usize = 64 << 10;
/// The longest text a peer may put into a message, in bytes.
pub const TEXT_MAX: usize = 512;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// The frame kinds of version 3.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum MessageKind {
            $($(#[$doc])* $name,)*
        }

        impl MessageKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The kind byte of a frame.
            pub const fn code(self) -> u8 {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// The kind of a kind byte, if this version has it.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// The opening message of either end.
    Hello = 0xd5,
    /// The server does not know this version or hash.
    Unsupported = 0x01,
    /// The connection ends, and why.
    Close = 0x02,
    /// Are you there?
    Ping = 0x03,
    /// I am.
    Pong = 0x04,
    /// Client: I have seen your hello, this is no recording.
    Seen = 0x05,
    /// Sender: this is my target.
    Offer = 0x10,
    /// Sender: the lowest tags of my set, sorted.
    Tags = 0x11,
    /// Receiver: nothing to do.
    Same = 0x12,
    /// Receiver: which chunks I lack, and what I have in their place.
    Want = 0x13,
    /// Sender: a piece of the delta.
    Delta = 0x14,
    /// Receiver: rebuilt, verified, durable, published.
    Done = 0x15,
    /// Receiver: the root differs, this is what I have made.
    Repair = 0x16,
    /// Sender: my file changed while I read it, a new offer follows.
    Changed = 0x17,
    /// Sender: cells of the sketch of my set.
    Cells = 0x18,
    /// Receiver: I need more of the set, or of the edges.
    More = 0x19,
    /// Either: this transfer ends, and why.
    Refused = 0x1a,
    /// Client: end this transfer.
    Cancel = 0x1b,
    /// Either: room for more bulk bytes of this transfer.
    Credit = 0x1c,
    /// Either: I am still at work on this transfer.
    Working = 0x1d,
    /// Sender: cells of the sketch of the edges of what we share.
    Edges = 0x1e,
    /// Receiver: where my order breaks yours.
    Order = 0x1f,
    /// Client: offer me this file.
    Pull = 0x20,
    /// Client: list this directory.
    List = 0x21,
    /// Server: a page of a listing.
    Listing = 0x22,
    /// Client: what is the root of this file?
    AskRoot = 0x23,
    /// Server: this.
    RootIs = 0x24,
    /// Receiver: the basis you named is here, send the delta.
    Current = 0x25,
    /// Receiver: it is not, offer anew.
    Stale = 0x26,
    /// Receiver: this is what your target would replace; is that meant?
    Confirm = 0x27,
    /// Sender: replace that.
    Replace = 0x28,
    /// Client: make this directory.
    MakeDirectory = 0x29,
    /// Client: give this another path.
    Rename = 0x2a,
    /// Client: remove this.
    Remove = 0x2b,
    /// Server: done, and it lasts.
    Altered = 0x2c,
    /// Sender: the files of my tree that came by themselves are there.
    Complete = 0x2d,
    /// Sender: of my tree this is not sent as it is.
    Omits = 0x2e,
}

impl MessageKind {
    /// True for the kinds that are counted against the credit of their transfer.
    pub const fn is_bulk(self) -> bool {
        matches!(self, Self::Tags | Self::Want | Self::Delta | Self::Cells | Self::Edges | Self::Order | Self::Repair)
    }

    /// True for the kinds that belong to the connection and not to a transfer.
    pub const fn is_connection(self) -> bool {
        matches!(self, Self::Hello | Self::Unsupported | Self::Close | Self::Ping | Self::Pong | Self::Seen)
    }
}

/// Any message.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are of transfers")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The opening message of either end.
    Hello(Hello),
    /// The server does not know this version or hash.
    Unsupported(Unsupported),
    /// The connection ends, and why.
    Close(Close),
    /// Are you there?
    Ping,
    /// I am.
    Pong,
    /// The first 8 bytes of the server's nonce, which the client has seen.
    Seen(u64),
    /// A message of a transfer.
    Transfer(TransferId, TransferMessage),
}

/// A message that belongs to a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferMessage {
    /// This is my target.
    Offer(Offer),
    /// The lowest tags of my set.
    Tags(SetPart),
    /// Cells of the sketch of my set.
    Cells(SetPart),
    /// I need more of it.
    More(More),
    /// Nothing to do: this is the generation of what is there.
    Same(Generation),
    /// Which chunks I lack.
    Want(Want),
    /// Cells of the sketch of the edges of what we share.
    Edges(Edges),
    /// Where my order breaks yours.
    Order(Order),
    /// The basis you named is here.
    Current,
    /// It is not.
    Stale,
    /// A piece of the delta.
    Delta(Delta),
    /// Rebuilt, verified, durable, published as this generation.
    Done(Generation),
    /// This is what your target would replace.
    Confirm(Confirm),
    /// Replace that.
    Replace(Option<Version>),
    /// The root differs, this is what I have made.
    Repair(Repair),
    /// My file changed while I read it, a new offer follows.
    Changed,
    /// This transfer ends, and why.
    Refused(Refusal),
    /// End this transfer.
    Cancel,
    /// Room for so many more bulk bytes.
    Credit(u64),
    /// I am still at work on this.
    Working,
    /// Offer me this file.
    Pull(Pull),
    /// List this directory.
    List(List),
    /// A page of a listing.
    Listing(Listing),
    /// What is the root of this file?
    AskRoot(AskRoot),
    /// This.
    RootIs(RootIs),
    /// Make this directory.
    MakeDirectory(MakeDirectory),
    /// Give this another path.
    Rename(Rename),
    /// Remove this.
    Remove(Remove),
    /// Done, and it lasts.
    Altered,
    /// The files of my tree that came by themselves are there.
    Complete,
    /// Of my tree this is not sent as it is.
    Omits(Omits),
}

/// What a sender has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Where it should go, in a push; in a pull the receiver knows.
    pub to: Option<Wish>,
    /// Its length.
    pub len: ByteLen,
    /// Its root.
    pub root: Digest,
    /// Which hash made the root and the chunks' digests.
    pub algorithm: Algorithm,
    /// How it was cut into chunks.
    pub cutter: Cutter,
    /// How many offers of this transfer came before; one with 0 begins it.
    pub attempt: u8,
    /// What follows.
    pub content: Content,
}

/// Where a pushed target should go: only the receiver knows whether that is a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WishFields", into = "WishFields")]
pub struct Wish {
    /// The path as it was named.
    pub path: RelPath,
    /// The source's own name.
    pub name: Name,
    /// The path was written with a `/` at its end.
    pub directory: bool,
    /// Only as if: the receiver tells what it has and changes nothing, and the sender cancels where a delta would follow.
    pub dry: bool,
    /// What may be replaced there.
    pub condition: Condition,
    /// How a tree is transferred; it means nothing for a file.
    pub tree: TreeOptions,
    /// What the file gets beside its content, where it is one of a tree; it means nothing for a tree itself.
    pub attributes: Option<Attributes>,
    /// What a file of a tree resembles, with a set: where none is there, the receiver may have one that does elsewhere.
    pub resembles: Option<Resemblance>,
}

impl Wish {
    /// Exactly there, over whatever is there; of a tree what is extra stays, of a file only the content is meant.
    pub fn exactly(path: RelPath) -> Self {
        let name = path.split_last().map_or_else(Name::any, |(_, name)| name);
        let (condition, tree) = (Condition::Any, TreeOptions::default());
        Self { path, name, directory: false, dry: false, condition, tree, attributes: None, resembles: None }
    }
}

/// A [`Wish`] as it is on the wire.
#[derive(Serialize, Deserialize)]
struct WishFields {
    path: RelPath,
    name: Name,
    flags: u8,
    condition: Condition,
    tree: TreeOptions,
    attributes: Option<Attributes>,
    resembles: Option<Resemblance>,
}

const DIRECTORY: u8 = 1;
const DRY: u8 = 2;

impl TryFrom<WishFields> for Wish {
    type Error = Malformed;
    fn try_from(fields: WishFields) -> Result<Self, Malformed> {
        let WishFields { path, name, flags, condition, tree, attributes, resembles } = fields;
        if flags & !(DIRECTORY | DRY) != 0 {
            return Err(Malformed::Value("flags of a wish are not known"));
        }
        let (directory, dry) = (flags & DIRECTORY != 0, flags & DRY != 0);
        Ok(Self { path, name, directory, dry, condition, tree, attributes, resembles })
    }
}

impl From<Wish> for WishFields {
    fn from(wish: Wish) -> Self {
        let Wish { path, name, directory, dry, condition, tree, attributes, resembles } = wish;
        let flags = (u8::from(directory) * DIRECTORY) | (u8::from(dry) * DRY);
        Self { path, name, flags, condition, tree, attributes, resembles }
    }
}

/// What follows an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Nothing: the receiver has said that it has this root, or is remembered to have it.
    Known,
    /// The whole content as literals, at once: it is tiny, or the receiver said it has nothing.
    Whole,
    /// The beginning of the set of its elements: all their tags when they are few, else cells.
    Set {
        /// How many elements.
        elements: u32,
    },
    /// A delta for a basis that the receiver has said it has, or is remembered to have.
    Delta {
        /// The root of the basis.
        basis: Digest,
        /// Its length.
        len: ByteLen,
        /// In a push, the generation under which the receiver published it, as far as that is remembered.
        generation: Generation,
        /// The delta follows at once, else when the receiver says that the basis is there.
        follows: bool,
    },
}

/// Asks whether a target is to replace what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// What is there, if anything.
    pub current: Option<Version>,
    /// It has come since the offer was opened: somebody else has published there.
    pub since: bool,
}

/// What a receiver needs more of; each number counts from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum More {
    /// All cells below this position.
    Cells(u32),
    /// All tags below this rank.
    Tags(u32),
    /// All cells of the edges below this position.
    Edges(u32),
}

/// Asks for a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Which file.
    pub path: RelPath,
    /// In which hash its root should be.
    pub algorithm: Algorithm,
    /// The root and length of what the receiver has under that name, if anything.
    pub have: Option<(Digest, ByteLen)>,
    /// Of what the list of a tree is; it means nothing for a file.
    pub scope: Scope,
}

/// Asks for a page of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The directory.
    pub path: RelPath,
    /// Only names after this one.
    pub after: Option<Name>,
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// In the order of the names' bytes.
    pub entries: Vec<Entry>,
    /// True when there are more after the last one.
    pub more: bool,
}

/// Asks for the root of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskRoot {
    /// The file.
    pub path: RelPath,
    /// In which hash.
    pub algorithm: Algorithm,
}

/// The root of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootIs {
    /// The length of the file.
    pub len: ByteLen,
    /// Its root.
    pub root: Digest,
}

/// Asks for a directory to be made, in one that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeDirectory {
    /// The directory.
    pub path: RelPath,
}

/// Asks for a file or directory to be given another path, where nothing is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// What is there.
    pub from: RelPath,
    /// Its new path, in a directory that is there.
    pub to: RelPath,
}

/// Asks for a file or directory to be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// What is there.
    pub path: RelPath,
    /// A directory with all that is in it; else only one that is empty.
    pub recursive: bool,
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// For code.
    pub code: CloseCode,
    /// For people; at most [`TEXT_MAX`] bytes.
    pub message: String,
}

/// Cuts a text that goes to a peer down to [`TEXT_MAX`] bytes, at a character.
pub(crate) fn bounded_text(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}

/// A message as bytes: header and fields, then literal bytes that were not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The frame up to its literal bytes.
    pub head: Vec<u8>,
    /// The literal bytes of a delta, the bytes of a survey; empty for all other messages.
    pub tail: Bytes,
    /// How many bytes of this are payload.
    pub payload: usize,
}

impl TransferMessage {
    /// Which kind it is.
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Offer(_) => MessageKind::Offer,
            Self::Tags(_) => MessageKind::Tags,
            Self::Same(_) => MessageKind::Same,
            Self::Want(_) => MessageKind::Want,
            Self::Delta(_) => MessageKind::Delta,
            Self::Done(_) => MessageKind::Done,
            Self::Cells(_) => MessageKind::Cells,
            Self::More(_) => MessageKind::More,
            Self::Edges(_) => MessageKind::Edges,
            Self::Order(_) => MessageKind::Order,
            Self::Current => MessageKind::Current,
            Self::Stale => MessageKind::Stale,
            Self::Confirm(_) => MessageKind::Confirm,
            Self::Replace(_) => MessageKind::Replace,
            Self::Repair(_) => MessageKind::Repair,
            Self::Changed => MessageKind::Changed,
            Self::Refused(_) => MessageKind::Refused,
            Self::Cancel => MessageKind::Cancel,
            Self::Credit(_) => MessageKind::Credit,
            Self::Working => MessageKind::Working,
            Self::Pull(_) => MessageKind::Pull,
            Self::List(_) => MessageKind::List,
            Self::Listing(_) => MessageKind::Listing,
            Self::AskRoot(_) => MessageKind::AskRoot,
            Self::RootIs(_) => MessageKind::RootIs,
            Self::MakeDirectory(_) => MessageKind::MakeDirectory,
            Self::Rename(_) => MessageKind::Rename,
            Self::Remove(_) => MessageKind::Remove,
            Self::Altered => MessageKind::Altered,
            Self::Complete => MessageKind::Complete,
            Self::Omits(_) => MessageKind::Omits,
        }
    }
}

impl Message {
    /// Which kind it is.
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Hello(_) => MessageKind::Hello,
            Self::Unsupported(_) => MessageKind::Unsupported,
            Self::Close(_) => MessageKind::Close,
            Self::Ping => MessageKind::Ping,
            Self::Pong => MessageKind::Pong,
            Self::Seen(_) => MessageKind::Seen,
            Self::Transfer(_, message) => message.kind(),
        }
    }

    /// The frame of this message, for a peer that can unpack.
    pub fn encode(&self) -> Encoded {
        self.encode_for(true)
    }

    /// The frame of this message, for a peer that can unpack or one that cannot.
    pub fn encode_for(&self, unpacks: bool) -> Encoded {
        let mut payload = Vec::new();
        let mut tail = Bytes::new();
        let mut transfer = TransferId::new(0);
        match self {
            Self::Hello(hello) => hello.encode(&mut payload),
            Self::Unsupported(unsupported) => unsupported.encode(&mut payload),
            Self::Close(close) => postcard_into(close, &mut payload),
            Self::Ping | Self::Pong => {}
            Self::Seen(sum) => payload.extend_from_slice(&sum.to_le_bytes()),
            Self::Transfer(id, message) => {
                transfer = *id;
                tail = encode_transfer(message, unpacks, &mut payload);
            }
        }
        let len = payload.len() + tail.len();
        let mut head = Vec::with_capacity(payload.len() + 8);
        encode_header(&mut head, self.kind().code(), transfer, len);
        head.extend_from_slice(&payload);
        Encoded { head, tail, payload: len }
    }

    /// The message of a frame.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage`] when the kind is unknown, the payload damaged, or a limit passed.
    ///
    /// # Security
    ///
    /// Takes hostile bytes; allocates in proportion to the payload, which the frame decoder has bounded.
    pub fn decode(frame: &Frame, limits: &Limits) -> Result<Self, InvalidMessage> {
        let kind = MessageKind::from_code(frame.kind).ok_or(InvalidMessage::UnknownKind(frame.kind))?;
        let payload = &frame.payload;
        if !kind.is_bulk() {
            LimitExceeded::check("control payload", payload.len() as u64, CONTROL_MAX as u64)?;
        }
        let damaged = |cause| InvalidMessage::Payload { kind, cause };
        if kind.is_connection() != (frame.transfer.get() == 0) {
            return Err(damaged(Malformed::Value("transfer number does not go with the kind")));
        }
        // postcard keeps no text of what it was told: for a path it is found out again.
        let damaged_request = |path_at: usize| {
            move |cause| match refused_path(payload, path_at) {
                Some(reason) if cause == NOT_ALLOWED => damaged(Malformed::Value(reason)),
                _ => damaged(cause),
            }
        };
        let empty = || Reader::new(payload).finish().map_err(damaged);
        let message = match kind {
            MessageKind::Hello => return Hello::decode(payload).map(Self::Hello).map_err(damaged),
            MessageKind::Unsupported => return Unsupported::decode(payload).map(Self::Unsupported).map_err(damaged),
            MessageKind::Close => {
                let close: Close = from_postcard(payload).map_err(damaged)?;
                LimitExceeded::check("text", close.message.len() as u64, TEXT_MAX as u64)?;
                return Ok(Self::Close(close));
            }
            MessageKind::Ping => return empty().map(|()| Self::Ping),
            MessageKind::Pong => return empty().map(|()| Self::Pong),
            MessageKind::Seen => {
                let mut reader = Reader::new(payload);
                let sum = reader.array().and_then(|sum| reader.finish().map(|()| u64::from_le_bytes(sum)));
                return sum.map(Self::Seen).map_err(damaged);
            }
            MessageKind::Delta => TransferMessage::Delta(Delta::decode(payload, limits)?),
            MessageKind::Offer => {
                // Behind the byte that says that there is a wish.
                let offer: Offer = from_postcard(payload).map_err(damaged_request(1))?;
                LimitExceeded::check("file length", offer.len.get(), limits.file.get())?;
                match offer.content {
                    Content::Set { elements } => {
                        LimitExceeded::check("offered elements", u64::from(elements), limits.chunks as u64)?;
                    }
                    Content::Delta { len, .. } => {
                        LimitExceeded::check("file length", len.get(), limits.file.get())?;
                    }
                    Content::Known | Content::Whole => {}
                }
                let invalid = Malformed::Value("cutter outside its range");
                offer.cutter.validate().map_err(|_| damaged(invalid))?;
                TransferMessage::Offer(offer)
            }
            MessageKind::Tags => TransferMessage::Tags(SetPart::decode(payload).map_err(damaged)?),
            MessageKind::Cells => TransferMessage::Cells(SetPart::decode(payload).map_err(damaged)?),
            MessageKind::More => TransferMessage::More(from_postcard(payload).map_err(damaged)?),
            MessageKind::Edges => TransferMessage::Edges(Edges::decode(payload).map_err(damaged)?),
            MessageKind::Order => TransferMessage::Order(Order::decode(payload)?),
            MessageKind::Current => empty().map(|()| TransferMessage::Current)?,
            MessageKind::Stale => empty().map(|()| TransferMessage::Stale)?,
            MessageKind::Want => TransferMessage::Want(Want::decode(payload).map_err(damaged)?),
            MessageKind::Same => TransferMessage::Same(Generation::new(one_varint(payload).map_err(damaged)?)),
            MessageKind::Confirm => TransferMessage::Confirm(from_postcard(payload).map_err(damaged)?),
            MessageKind::Replace => TransferMessage::Replace(from_postcard(payload).map_err(damaged)?),
            MessageKind::Repair => TransferMessage::Repair(Repair::decode(payload).map_err(damaged)?),
            MessageKind::Changed => empty().map(|()| TransferMessage::Changed)?,
            MessageKind::Working => empty().map(|()| TransferMessage::Working)?,
            MessageKind::Cancel => empty().map(|()| TransferMessage::Cancel)?,
            MessageKind::Done => TransferMessage::Done(Generation::new(one_varint(payload).map_err(damaged)?)),
            MessageKind::Credit => TransferMessage::Credit(one_varint(payload).map_err(damaged)?),
            MessageKind::Refused => {
                let refusal: Refusal = from_postcard(payload).map_err(damaged)?;
                LimitExceeded::check("text", refusal.message.len() as u64, TEXT_MAX as u64)?;
                TransferMessage::Refused(refusal)
            }
            MessageKind::Pull => TransferMessage::Pull(from_postcard(payload).map_err(damaged_request(0))?),
            MessageKind::List => TransferMessage::List(from_postcard(payload).map_err(damaged_request(0))?),
            MessageKind::Listing => TransferMessage::Listing(from_postcard(payload).map_err(damaged)?),
            MessageKind::AskRoot => TransferMessage::AskRoot(from_postcard(payload).map_err(damaged_request(0))?),
            MessageKind::RootIs => TransferMessage::RootIs(from_postcard(payload).map_err(damaged)?),
            MessageKind::MakeDirectory => {
                TransferMessage::MakeDirectory(from_postcard(payload).map_err(damaged_request(0))?)
            }
            MessageKind::Rename => {
                // Of the two paths the first one may be all right.
                let at = || refused_path(payload, 0).map_or_else(|| behind_path(payload), |_| 0);
                TransferMessage::Rename(from_postcard(payload).map_err(|cause| damaged_request(at())(cause))?)
            }
            MessageKind::Remove => TransferMessage::Remove(from_postcard(payload).map_err(damaged_request(0))?),
            MessageKind::Altered => empty().map(|()| TransferMessage::Altered)?,
            MessageKind::Complete => empty().map(|()| TransferMessage::Complete)?,
            MessageKind::Omits => {
                let count = Reader::new(payload).varint().map_err(damaged)?;
                LimitExceeded::check("omitted entries", count, Omits::ENTRIES_MAX as u64)?;
                let omits: Omits = from_postcard(payload).map_err(damaged)?;
                LimitExceeded::check("text", omits.longest_text() as u64, TEXT_MAX as u64)?;
                TransferMessage::Omits(omits)
            }
        };
        Ok(Self::Transfer(frame.transfer, message))
    }
}

fn encode_transfer(message: &TransferMessage, unpacks: bool, out: &mut Vec<u8>) -> Bytes {
    match message {
        TransferMessage::Delta(delta) => return delta.encode(unpacks, out),
        TransferMessage::Offer(offer) => postcard_into(offer, out),
        TransferMessage::Tags(part) | TransferMessage::Cells(part) => part.encode(out),
        TransferMessage::More(more) => postcard_into(more, out),
        TransferMessage::Want(want) => return want.encode(out),
        TransferMessage::Edges(edges) => edges.encode(out),
        TransferMessage::Order(order) => order.encode(out),
        TransferMessage::Repair(repair) => repair.encode(out),
        TransferMessage::Current
        | TransferMessage::Stale
        | TransferMessage::Changed
        | TransferMessage::Cancel
        | TransferMessage::Working
        | TransferMessage::Altered
        | TransferMessage::Complete => {}
        TransferMessage::Same(generation) | TransferMessage::Done(generation) => write_varint(out, generation.get()),
        TransferMessage::Confirm(confirm) => postcard_into(confirm, out),
        TransferMessage::Replace(version) => postcard_into(version, out),
        TransferMessage::Credit(bytes) => write_varint(out, *bytes),
        TransferMessage::Refused(refusal) => postcard_into(refusal, out),
        TransferMessage::Pull(pull) => postcard_into(pull, out),
        TransferMessage::List(list) => postcard_into(list, out),
        TransferMessage::Listing(listing) => postcard_into(listing, out),
        TransferMessage::AskRoot(ask) => postcard_into(ask, out),
        TransferMessage::RootIs(root) => postcard_into(root, out),
        TransferMessage::MakeDirectory(make) => postcard_into(make, out),
        TransferMessage::Rename(rename) => postcard_into(rename, out),
        TransferMessage::Remove(remove) => postcard_into(remove, out),
        TransferMessage::Omits(omits) => postcard_into(omits, out),
    }
    Bytes::new()
}

fn one_varint(payload: &[u8]) -> Result<u64, Malformed> {
    let mut reader = Reader::new(payload);
    let value = reader.varint()?;
    reader.finish().map(|()| value)
}

fn postcard_into<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let bytes = postcard::to_allocvec(value).expect("our own messages have no part that postcard cannot write");
    out.extend_from_slice(&bytes);
}

/// A value that a type of ours refused.
const NOT_ALLOWED: Malformed = Malformed::Value("a name that is not allowed or a code that this version lacks");

/// What is wrong with the path that starts at `at`, if it is a path that we refuse.
fn refused_path(payload: &[u8], at: usize) -> Option<&'static str> {
    let mut reader = Reader::new(payload.get(at..)?);
    let len = usize::try_from(reader.varint().ok()?).ok()?;
    Some(match RelPath::new(reader.bytes(len).ok()?).err()? {
        InvalidPath::Absolute => "path is absolute",
        InvalidPath::Dots => "path has a component `.` or `..`",
        InvalidPath::EmptyComponent => "path has an empty component",
        InvalidPath::ForbiddenByte => "path has a NUL",
        InvalidPath::LongName(_) => "path has a component of over 255 bytes",
        InvalidPath::Long(_) => "path has over 4096 bytes",
        _ => "path is not allowed",
    })
}

/// Where the path ends that a payload starts with.
fn behind_path(payload: &[u8]) -> usize {
    let mut reader = Reader::new(payload);
    let _ = reader.varint().map(|len| reader.bytes(usize::try_from(len).unwrap_or(usize::MAX)));
    payload.len() - reader.rest().len()
}

fn from_postcard<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Malformed> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(Malformed::Trailing(rest.len())),
        Err(postcard::Error::DeserializeUnexpectedEnd) => Err(Malformed::Truncated),
        Err(postcard::Error::SerdeDeCustom) => Err(NOT_ALLOWED),
        Err(_) => Err(Malformed::Value("not the fields of this message")),
    }
}
