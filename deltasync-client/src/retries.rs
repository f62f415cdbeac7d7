//! When a connection that was lost, refused or never made is tried again, and what of its errors says that this may help.
//!
//! The n-th wait is between half and all of `first * 2^(n - 1)`, at most `longest`: doubling spares a server that is
//! down, and the random half keeps the clients of one that restarts from coming back all at the same moment. At least
//! half of the sum is waited in all, so the defaults bridge 3.8 s and give up within 7.8 s, connecting not counted. Tries are
//! counted in a row: a transfer that got further than ever before starts the count anew, since a connection that is cut
//! again and again may still carry a file to its end. One that is cut at the same byte each time does not.
//!
//! Not tried again: what was refused for a reason, damaged or hostile bytes, conflicts, and names without an address, for
//! the same question gets the same answer.
//!
//! Source: M. Brooker, "Exponential Backoff And Jitter" (2015), the variant called equal jitter.

use std::io::ErrorKind;
use std::time::Duration;

use deltasync_io::{DriveError, entropy};
use deltasync_proto::{CloseCode, RefusalCode, SessionError, TransferError};

use crate::{ClientError, ConnectError};

/// How often and how patiently a connection to a server is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// The most tries in a row that bring no transfer further, beyond the first (default 5; 0 for none,
    /// [`Retries::ENDLESS`] for any number).
    pub most: u32,
    /// The longest first wait (default 0.25 s); each that follows may be twice as long.
    pub first: Duration,
    /// The longest wait (default 15 s).
    pub longest: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { most: 5, first: Duration::from_millis(250), longest: Duration::from_secs(15) }
    }
}

impl Retries {
    /// The first failure is the last.
    pub const NONE: Self = Self { most: 0, first: Duration::ZERO, longest: Duration::ZERO };

    /// As many tries as it takes.
    pub const ENDLESS: u32 = u32::MAX;

    /// How long to wait before the `number`-th try beyond the first, from 1; `random` is any number.
    pub fn wait(&self, number: u32, random: u64) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(number.saturating_sub(1)).unwrap_or(u32::MAX));
        let most = doubled.min(self.longest);
        let share = random as f64 / u64::MAX as f64;
        most.mul_f64(0.5 + share / 2.0).min(most)
    }

    /// As [`Retries::wait`], with a number of the system's.
    pub(crate) fn wait_at_random(&self, number: u32) -> Duration {
        self.wait(number, random())
    }
}

/// A number of the system's. Without any no session can start either, and says so.
pub(crate) fn random() -> u64 {
    entropy().ok().and_then(|bytes| bytes.first_chunk().copied()).map_or(0, u64::from_le_bytes)
}

/// A try that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// The server.
    pub peer: String,
    /// What happened, with its causes, on one line; safe to print once control characters are escaped.
    pub why: String,
    /// After which time it is tried again.
    pub after: Duration,
    /// Which try in a row this is, from 1.
    pub number: u32,
    /// How many there are at most; [`Retries::ENDLESS`] for any number.
    pub of: u32,
}

/// Whether a link that ended so may do better the next time; `connected` says that one has connected before.
pub(crate) fn link_may_recover(error: &ClientError, connected: bool) -> bool {
    match error {
        // A name that was found before is likely to be there again.
        ClientError::Connect(ConnectError::Resolve { source, .. }) => connected || source.kind() == ErrorKind::TimedOut,
        ClientError::Connect(ConnectError::Connect { source, .. }) => {
            !matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported)
        }
        ClientError::Connection { source, .. } => match source {
            DriveError::Io(_) => true,
            DriveError::Session(SessionError::TimedOut { .. } | SessionError::ConnectionLost { .. }) => true,
            DriveError::Session(SessionError::ClosedByPeer { code, .. }) => {
                matches!(code, CloseCode::Busy | CloseCode::ShuttingDown | CloseCode::TimedOut)
            }
            _ => false,
        },
        _ => false,
    }
}

/// Whether a transfer that ended so may do better the next time.
pub(crate) fn transfer_may_recover(error: &TransferError) -> bool {
    match error {
        TransferError::ConnectionLost(_) | TransferError::Stalled { .. } => true,
        TransferError::Refused(refusal) => matches!(refusal.code, RefusalCode::Busy | RefusalCode::Stalled),
        _ => false,
    }
}

/// Whether a server may have heard what was asked of it on a link, or of a transfer, that ended so, and not have told.
pub(crate) fn may_have_been_heard(error: &ClientError) -> bool {
    match error {
        ClientError::Connection { source: DriveError::Session(SessionError::ClosedByPeer { code, .. }), .. } => {
            *code != CloseCode::Busy
        }
        ClientError::Connection { source: DriveError::Session(SessionError::Unsupported { .. }), .. } => false,
        ClientError::Connection { .. } => true,
        ClientError::Transfer(TransferError::ConnectionLost(_) | TransferError::Stalled { .. }) => true,
        ClientError::Transfer(TransferError::Refused(refusal)) => refusal.code == RefusalCode::Stalled,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use deltasync_core::Digest;
    use deltasync_proto::{FaultKind, PeerMisbehaved, Refusal, StorageFault};
    use proptest::prelude::*;

    use super::*;
    use crate::UsageError;

    fn check_wait(retries: Retries, number: u32, random: u64) {
        let wait = retries.wait(number, random);
        let most = (1..number).fold(retries.first, |most, _| most.saturating_mul(2)).min(retries.longest);
        assert!(wait <= most, "{wait:?} > {most:?}");
        assert!(wait + Duration::from_nanos(1) >= most / 2, "{wait:?} < {most:?} / 2");
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let retries = Retries::default();
        let longest: Vec<_> = (1..=8).map(|number| retries.wait(number, u64::MAX).as_millis()).collect();
        assert_eq!(longest, [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        let shortest: Vec<_> = (1..=8).map(|number| retries.wait(number, 0).as_millis()).collect();
        assert_eq!(shortest, [125, 250, 500, 1000, 2000, 4000, 7500, 7500]);
        assert_eq!(Retries::NONE.wait(u32::MAX, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn the_random_half_differs_from_try_to_try() {
        let retries = Retries { first: Duration::from_secs(1000), longest: Duration::from_secs(1000), most: 1 };
        let waits: Vec<_> = (0..8).map(|_| retries.wait_at_random(1)).collect();
        assert!(waits.windows(2).any(|two| two[0] != two[1]), "{waits:?}");
    }

    proptest! {
        #[test]
        fn a_wait_is_at_least_half_of_what_it_may_be(
            first in 0_u64..100_000, longest in 0_u64..100_000, number in 1_u32..200, random: u64,
        ) {
            let (first, longest) = (Duration::from_millis(first), Duration::from_millis(longest));
            check_wait(Retries { most: 1, first, longest }, number, random);
        }
    }

    fn connect(kind: ErrorKind) -> ClientError {
        let server = crate::Place::parse("deltasync://h/".as_ref());
        let Ok(crate::Place::Remote(place)) = server else { panic!("{server:?}") };
        ConnectError::Connect { server: place.server, tried: 1, source: kind.into() }.into()
    }

    fn session(error: SessionError) -> ClientError {
        ClientError::Connection { peer: "h".into(), source: DriveError::Session(error) }
    }

    fn closed(code: CloseCode) -> ClientError {
        session(SessionError::ClosedByPeer { code, message: String::new() })
    }

    fn resolve() -> ClientError {
        ConnectError::Resolve { host: "h".into(), source: io::Error::other("no such name") }.into()
    }

    #[test]
    fn a_link_is_made_again_when_it_was_cut_and_not_when_it_was_refused() {
        for error in [
            connect(ErrorKind::ConnectionRefused),
            connect(ErrorKind::TimedOut),
            connect(ErrorKind::NetworkUnreachable),
            ClientError::Connection { peer: "h".into(), source: io::Error::from(ErrorKind::ConnectionReset).into() },
            session(SessionError::ConnectionLost { open: 1 }),
            session(SessionError::TimedOut { what: "hello", after: Duration::from_secs(10) }),
            closed(CloseCode::Busy),
            closed(CloseCode::ShuttingDown),
            closed(CloseCode::TimedOut),
        ] {
            assert!(link_may_recover(&error, false), "{error:?}");
        }
        for error in [
            connect(ErrorKind::PermissionDenied),
            resolve(),
            session(SessionError::PeerMisbehaved(PeerMisbehaved::NoHello)),
            session(SessionError::Unsupported { peer_min: 3, peer_max: 3, ours: 2 }),
            closed(CloseCode::Misbehaved),
            closed(CloseCode::Invalid),
            closed(CloseCode::Limit),
            closed(CloseCode::Unsupported),
            UsageError::NoSource.into(),
            ClientError::Interrupted,
        ] {
            assert!(!link_may_recover(&error, false), "{error:?}");
        }
        assert!(link_may_recover(&resolve(), true), "the name was found before");
    }

    #[test]
    fn a_transfer_is_asked_again_when_nobody_decided_against_it() {
        let refused = |code| TransferError::Refused(Refusal { code, message: String::new(), current: None });
        for error in [
            TransferError::ConnectionLost("cut".into()),
            TransferError::Stalled { after: Duration::from_secs(30) },
            refused(RefusalCode::Busy),
            refused(RefusalCode::Stalled),
        ] {
            assert!(transfer_may_recover(&error), "{error:?}");
        }
        let zero = Digest::default();
        for error in [
            refused(RefusalCode::NotFound),
            refused(RefusalCode::Full),
            refused(RefusalCode::Conflict),
            refused(RefusalCode::Damaged),
            refused(RefusalCode::Integrity),
            TransferError::Conflict { current: None },
            TransferError::Integrity { announced: zero, made: zero },
            TransferError::Storage(StorageFault::new(FaultKind::Full, "full")),
            TransferError::Changed { times: 3 },
            TransferError::Cancelled,
            TransferError::CancelledByPeer,
        ] {
            assert!(!transfer_may_recover(&error), "{error:?}");
        }
    }
}
