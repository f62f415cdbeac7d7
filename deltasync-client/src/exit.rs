//! The exit status of the program: one number for each thing a script may want to do next.

use std::process::ExitCode;

use deltasync_core::{InvalidSignature, PatchError};
use deltasync_io::DriveError;
use deltasync_proto::{CloseCode, FaultKind, RefusalCode, SessionError, TransferError};

use crate::ClientError;

/// How a run of the program ended. Of several failures the greatest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ExitStatus {
    /// 0: done.
    #[default]
    Done,
    /// 1: a transfer failed, or a file could not be read or written.
    Failed,
    /// 2: the command line cannot work.
    Usage,
    /// 3: no connection.
    Connect,
    /// 4: the peer refused, or what is there is not what was to be replaced.
    Refused,
    /// 5: content is not what it should be; nothing was published.
    Integrity,
    /// 130: interrupted, as shells count Ctrl-C.
    Interrupted,
}

impl ExitStatus {
    /// The number the system sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Connect => 3,
            Self::Refused => 4,
            Self::Integrity => 5,
            Self::Interrupted => 130,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

impl From<&ClientError> for ExitStatus {
    fn from(error: &ClientError) -> Self {
        match error {
            ClientError::Usage(_) | ClientError::Shape(_) => Self::Usage,
            ClientError::File { .. }
            | ClientError::Changed(_)
            | ClientError::LeftOut { .. }
            | ClientError::NoServer { .. }
            | ClientError::Replaced { .. }
            | ClientError::Unanswered { .. } => Self::Failed,
            ClientError::Connect(_) => Self::Connect,
            ClientError::Connection { source, .. } => match source {
                DriveError::Session(error) => error.into(),
                _ => Self::Failed,
            },
            ClientError::Transfer(error) => error.into(),
            ClientError::Conflict { .. } => Self::Refused,
            ClientError::Damaged { .. } => Self::Integrity,
            ClientError::Differ { .. } => Self::Integrity,
            ClientError::Signature { source, .. } => match source {
                InvalidSignature::Opening(_) => Self::Failed,
                _ => Self::Integrity,
            },
            ClientError::Patch { source, .. } => match source {
                PatchError::BasisEnded { .. } | PatchError::Unasked { .. } => Self::Failed,
                _ => Self::Integrity,
            },
            ClientError::Interrupted => Self::Interrupted,
        }
    }
}

/// Errors of the protocol are open-ended: a kind that this program does not know yet is a failure.
impl From<&SessionError> for ExitStatus {
    fn from(error: &SessionError) -> Self {
        match error {
            SessionError::Unsupported { .. } => Self::Refused,
            SessionError::ClosedByPeer { code, .. } => match code {
                CloseCode::Limit | CloseCode::Unsupported | CloseCode::ShuttingDown | CloseCode::Busy => Self::Refused,
                CloseCode::Misbehaved | CloseCode::Invalid | CloseCode::TimedOut => Self::Failed,
                _ => Self::Failed,
            },
            SessionError::PeerMisbehaved(_)
            | SessionError::InvalidMessage(_)
            | SessionError::TimedOut { .. }
            | SessionError::ConnectionLost { .. } => Self::Failed,
            _ => Self::Failed,
        }
    }
}

impl From<&TransferError> for ExitStatus {
    fn from(error: &TransferError) -> Self {
        match error {
            TransferError::Refused(refusal) => match refusal.code {
                RefusalCode::Integrity | RefusalCode::Damaged => Self::Integrity,
                _ => Self::Refused,
            },
            TransferError::Conflict { .. } | TransferError::CancelledByPeer => Self::Refused,
            TransferError::Integrity { .. } => Self::Integrity,
            TransferError::Storage(fault) if fault.kind == FaultKind::Conflict => Self::Refused,
            TransferError::Storage(fault) if fault.kind == FaultKind::Damaged => Self::Integrity,
            TransferError::Cancelled => Self::Interrupted,
            TransferError::Storage(_)
            | TransferError::Changed { .. }
            | TransferError::Stalled { .. }
            | TransferError::ConnectionLost(_) => Self::Failed,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use deltasync_core::{Digest, Limits, Signature};
    use deltasync_proto::{InvalidMessage, PeerMisbehaved, Refusal, StorageFault};

    use super::*;
    use crate::UsageError;

    fn refused(code: RefusalCode) -> ClientError {
        TransferError::Refused(Refusal { code, message: "no".into(), current: None }).into()
    }

    fn session(error: SessionError) -> ClientError {
        ClientError::Connection { peer: "h".into(), source: DriveError::Session(error) }
    }

    fn closed(code: CloseCode) -> ClientError {
        session(SessionError::ClosedByPeer { code, message: String::new() })
    }

    fn signature(bytes: &[u8]) -> ClientError {
        let source = Signature::decode(bytes, &Limits::default()).expect_err("no signature");
        ClientError::Signature { path: "s".into(), source }
    }

    #[test]
    fn each_kind_of_failure_has_its_status() {
        let zero = Digest::default();
        let file = |kind| ClientError::file("read", "x".as_ref())(io::Error::from(kind));
        for (error, code) in [
            (UsageError::NoSource.into(), 2),
            (file(io::ErrorKind::NotFound), 1),
            (refused(RefusalCode::NotFound), 4),
            (refused(RefusalCode::Full), 4),
            (refused(RefusalCode::Integrity), 5),
            (refused(RefusalCode::Conflict), 4),
            (refused(RefusalCode::Damaged), 5),
            (TransferError::Conflict { current: None }.into(), 4),
            (TransferError::Storage(StorageFault::new(FaultKind::Conflict, "conflict")).into(), 4),
            (TransferError::Storage(StorageFault::new(FaultKind::Damaged, "damaged")).into(), 5),
            (UsageError::ConditionOfSeveral(2).into(), 2),
            (TransferError::Integrity { announced: zero, made: zero }.into(), 5),
            (TransferError::Changed { times: 3 }.into(), 1),
            (TransferError::Stalled { after: Duration::from_secs(30) }.into(), 1),
            (TransferError::CancelledByPeer.into(), 4),
            (TransferError::Cancelled.into(), 130),
            (TransferError::Storage(StorageFault::new(FaultKind::Full, "full")).into(), 1),
            (session(SessionError::PeerMisbehaved(PeerMisbehaved::NoHello)), 1),
            (session(SessionError::InvalidMessage(InvalidMessage::UnknownKind(9))), 1),
            (session(SessionError::Unsupported { peer_min: 2, peer_max: 3, ours: 1 }), 4),
            (session(SessionError::ConnectionLost { open: 1 }), 1),
            (closed(CloseCode::Busy), 4),
            (closed(CloseCode::Misbehaved), 1),
            (ClientError::Differ { local: zero, remote: zero }, 5),
            (signature(b"#!/bin/sh"), 1),
            (signature(b"\xd5sig\x01\x00\x08\x00"), 5),
            (ClientError::Interrupted, 130),
        ] {
            assert_eq!(ExitStatus::from(&error).code(), code, "{error:?}");
        }
    }

    #[test]
    fn a_conflict_has_one_status_whoever_found_it() {
        let fault = |kind| TransferError::Storage(StorageFault::new(kind, "no"));
        let refused = |code| TransferError::Refused(Refusal { code, message: "no".into(), current: None });
        let conflicts =
            [TransferError::Conflict { current: None }, fault(FaultKind::Conflict), refused(RefusalCode::Conflict)];
        for error in conflicts {
            assert_eq!(ExitStatus::from(&error), ExitStatus::Refused, "{error:?}");
            assert!(matches!(ClientError::from(error), ClientError::Conflict { current: None }));
        }
        for error in [fault(FaultKind::Damaged), refused(RefusalCode::Damaged)] {
            assert_eq!(ExitStatus::from(&error), ExitStatus::Integrity, "{error:?}");
            assert!(matches!(ClientError::from(error), ClientError::Damaged { published: None, repair: None }));
        }
    }

    #[test]
    fn of_several_failures_the_greatest_counts() {
        let all = [ExitStatus::Failed, ExitStatus::Integrity, ExitStatus::Refused];
        assert_eq!(all.into_iter().max(), Some(ExitStatus::Integrity));
    }
}
