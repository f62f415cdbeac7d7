//! What goes wrong in a session, sorted by whose fault it is, since that decides what to do next.
//!
//! A [`TransferError`] ends one transfer and leaves the connection; a [`SessionError`] ends the connection with a
//! [`CloseCode`] that tells the peer why; [`ApiMisuse`] is a mistake of the embedding code.

use alloc::string::String;
use core::time::Duration;

use deltasync_core::{
    Digest, InvalidColumns, InvalidOps, InvalidSketch, InvalidSurvey, LimitExceeded, Malformed, PlanError,
};
use serde::{Deserialize, Serialize};

use crate::{MessageKind, StorageFault, TransferId, Version};

/// How a connection fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer broke the rules with a message that is well-formed. Close and report.
    #[error("peer misbehaved: {0}")]
    PeerMisbehaved(#[from] PeerMisbehaved),
    /// Damaged or hostile bytes. Close and report.
    #[error("invalid message: {0}")]
    InvalidMessage(#[from] InvalidMessage),
    /// The peer and we have no version or hash in common.
    #[error("no version or hash in common: peer speaks versions {peer_min} to {peer_max}, we speak {ours}")]
    Unsupported {
        /// The lowest version of the peer.
        peer_min: u8,
        /// The highest version of the peer.
        peer_max: u8,
        /// Ours.
        ours: u8,
    },
    /// The peer said nothing for too long. Try again.
    #[error("no {what} from the peer within {after:?}")]
    TimedOut {
        /// What we waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The connection ended while transfers were running. Try again.
    #[error("connection lost with {open} transfers running")]
    ConnectionLost {
        /// How many transfers had not ended.
        open: usize,
    },
    /// The peer closed the connection and said why.
    #[error("peer closed the connection ({code:?}): {message}")]
    ClosedByPeer {
        /// The peer's reason, for code.
        code: CloseCode,
        /// The peer's reason, for people.
        message: String,
    },
}

/// The reason in a closing frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CloseCode {
    /// The other side broke the rules.
    Misbehaved,
    /// The other side sent damaged bytes.
    Invalid,
    /// The other side passed a limit.
    Limit,
    /// There is no version or hash in common.
    Unsupported,
    /// The other side was silent for too long.
    TimedOut,
    /// This side is shutting down.
    ShuttingDown,
    /// This side has as many connections as it takes.
    Busy,
}

impl SessionError {
    /// What to tell the peer, or `None` when there is nobody to tell.
    pub fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::PeerMisbehaved(_) => Some(CloseCode::Misbehaved),
            Self::InvalidMessage(
                InvalidMessage::Limit(_)
                | InvalidMessage::Ops(InvalidColumns::Ops(InvalidOps::Limit(_)))
                | InvalidMessage::Sketch(InvalidSketch::Limit(_))
                | InvalidMessage::Survey(InvalidSurvey::Limit(_))
                | InvalidMessage::Plan(PlanError::Limit(_)),
            ) => Some(CloseCode::Limit),
            Self::InvalidMessage(_) => Some(CloseCode::Invalid),
            Self::Unsupported { .. } => Some(CloseCode::Unsupported),
            Self::TimedOut { .. } => Some(CloseCode::TimedOut),
            Self::ConnectionLost { .. } | Self::ClosedByPeer { .. } => None,
        }
    }
}

/// A well-formed message that must not come now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// Another message was due.
    #[error("{got:?} came while {state} (transfer {transfer})")]
    Unexpected {
        /// What came.
        got: MessageKind,
        /// What we were doing.
        state: &'static str,
        /// On which transfer.
        transfer: TransferId,
    },
    /// A message for a transfer that was never begun, or from the side that may not begin one.
    #[error("{got:?} for transfer {transfer}, which was never begun")]
    UnknownTransfer {
        /// What came.
        got: MessageKind,
        /// On which transfer.
        transfer: TransferId,
    },
    /// More bulk bytes than we gave credit for.
    #[error("transfer {transfer} sent {by} bytes more than it had credit for")]
    OverCredit {
        /// On which transfer.
        transfer: TransferId,
        /// How many too many.
        by: u64,
    },
    /// It asks for more of a set than it can need: what it has already, or beyond the end.
    #[error("more of a set was asked for than it has, or no more than was sent")]
    TooMuch {
        /// On which transfer.
        transfer: TransferId,
    },
    /// It says that it has seen our hello, and has not: it is a recording of another connection.
    #[error("it has not seen our hello: a recording of another connection")]
    Recorded,
    /// It began the connection with something that is not a hello.
    #[error("the first bytes are no hello of deltasync")]
    NoHello,
}

/// Bytes that are no message of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// A frame header is damaged.
    #[error("frame header: {0}")]
    Header(Malformed),
    /// A frame of a kind that this version does not have.
    #[error("unknown frame kind {0:#04x}")]
    UnknownKind(u8),
    /// A payload is damaged.
    #[error("{kind:?}: {cause}")]
    Payload {
        /// Which message it should be.
        kind: MessageKind,
        /// What is wrong.
        cause: Malformed,
    },
    /// A length or count over our limit.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// The operations of a delta are damaged.
    #[error(transparent)]
    Ops(#[from] InvalidColumns),
    /// The cells of a sketch are damaged.
    #[error(transparent)]
    Sketch(#[from] InvalidSketch),
    /// What the receiver says of its basis is damaged.
    #[error(transparent)]
    Survey(#[from] InvalidSurvey),
    /// A delta that does not fit its basis or its announced length.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// How a transfer fails; the connection and other transfers go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The peer will not or cannot.
    #[error("refused by the peer: {0}")]
    Refused(Refusal),
    /// Our own storage cannot. Retry, or free some space.
    #[error("{0}")]
    Storage(#[from] StorageFault),
    /// The result was not the announced one, also after sending everything again.
    #[error("rebuilt file has root {made}, {announced} was announced, also after a repair")]
    Integrity {
        /// The root the sender announced.
        announced: Digest,
        /// The root of what was rebuilt.
        made: Digest,
    },
    /// The source changed each time it was read.
    #[error("source changed while it was read, {times} times in a row")]
    Changed {
        /// How often.
        times: u32,
    },
    /// Another version is there than the one to be replaced.
    #[error("another version is there: {}", described(.current.as_ref()))]
    Conflict {
        /// What is there; `None` when nothing is.
        current: Option<Version>,
    },
    /// The transfers of this connection hold as much as they may. Try again.
    #[error("transfers of this connection hold {most} bytes already, try again later")]
    Memory {
        /// How many bytes they may hold of what was received.
        most: u64,
    },
    /// We ended it.
    #[error("cancelled")]
    Cancelled,
    /// The peer ended it.
    #[error("cancelled by the peer")]
    CancelledByPeer,
    /// The peer said nothing of it for too long, though it was the peer's turn. Try again.
    #[error("the peer said nothing of this transfer for {after:?}")]
    Stalled {
        /// How long.
        after: Duration,
    },
    /// The connection ended first.
    #[error("connection ended first: {0}")]
    ConnectionLost(String),
}

fn described(current: Option<&Version>) -> String {
    current.map_or_else(|| String::from("none"), |version| alloc::format!("root {}", version.root))
}

/// A peer's reason for not carrying out a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The reason, for code.
    pub code: RefusalCode,
    /// The reason, for people; at most 512 bytes.
    pub message: String,
    /// What is there now, where that is the reason.
    pub current: Option<Version>,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RefusalCode {
    /// Nothing is there.
    NotFound,
    /// Not allowed.
    Denied,
    /// A directory is where a file should be, or the other way round.
    WrongKind,
    /// No space is left.
    Full,
    /// Over a limit.
    Limit,
    /// The source kept changing.
    Changed,
    /// The result did not have the announced root.
    Integrity,
    /// No more transfers are taken.
    Busy,
    /// The other side said nothing of it for too long.
    Stalled,
    /// The storage failed.
    Storage,
    /// Another version is there than the one to be replaced.
    Conflict,
    /// The content there is not what was published; `current` is what it should be.
    Damaged,
    /// Something is there already.
    Exists,
    /// A directory is not empty.
    NotEmpty,
}

/// The embedding code called a session in a way it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// Input after `Output::Finished`.
    #[error("input after the session finished")]
    Finished,
    /// A server was told to start a transfer.
    #[error("only a client starts transfers")]
    NotAClient,
    /// A transfer was started under a number that is not larger than all before it.
    #[error("transfer number {0} is not larger than all before it")]
    TransferNumber(TransferId),
    /// Something else than a push was to be predicted.
    #[error("only of a push can be told what it would move")]
    NotAPush,
    /// An answer is of another kind than its request.
    #[error("answer of another kind than its request")]
    WrongAnswer,
    /// More bytes were reported written than were transmitted.
    #[error("more bytes written than transmitted")]
    Written,
}
