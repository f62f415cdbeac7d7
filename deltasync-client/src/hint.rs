//! One line of advice for each error, where there is an honest one: what to do next, not the error once more.
//!
//! Whoever meets an error knows what they wanted, and seldom what of it failed. So a hint names a command, an option or a
//! place to look, and says what has not happened where that is a relief.

use std::io;

use deltasync_core::PatchError;
use deltasync_io::DriveError;
use deltasync_proto::{CloseCode, FaultKind, RefusalCode, SessionError, TransferError};

use crate::{ClientError, ConnectError, UsageError};

impl ClientError {
    /// What to try next, where something can be said beyond the error itself.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Usage(error) => usage(error),
            Self::File { source, .. } => file(source.kind()),
            Self::Connect(error) => Some(connect(error)),
            Self::Connection { source: DriveError::Session(error), .. } => Some(session(error)),
            Self::Connection { .. } => Some(AGAIN),
            Self::Transfer(error) => transfer(error),
            Self::Conflict { .. } => Some(
                "nothing was changed; see what is there now, and name its root with --if-match if that may be replaced",
            ),
            Self::Damaged { .. } => Some("`deltasync push` of a file with that root repairs it"),
            Self::LeftOut { .. } => Some("all else is there; --exclude it, and it is not named any more"),
            Self::Differ { .. } => {
                Some("`deltasync push` or `deltasync pull` makes them equal, and moves only what differs")
            }
            Self::Patch { source: PatchError::OtherBasis { .. } | PatchError::OtherRoot { .. }, .. } => {
                Some("check that it is the basis that the signature was made of; the output is untouched")
            }
            Self::Patch { .. } => Some("make or fetch the delta again; the output is untouched"),
            Self::Signature { .. } => Some("make it with `deltasync signature`"),
            Self::Shape(_) => Some("leave --block-len out: the length that fits the file is taken then"),
            Self::NoServer { .. } => Some("`cargo build --release` builds both, one beside the other"),
            Self::Unanswered { .. } => Some(LOOK),
            // They say it themselves.
            Self::Changed(_) | Self::Replaced { .. } | Self::Interrupted => None,
        }
    }
}

const AGAIN: &str = "run the same command again: what was published stays; --retries lets it try more often by itself";
const BUSY: &str = "try again later, or let it try longer by itself with --retries";
const LOOK: &str = "`deltasync ls` shows what is there";
const KIND: &str = "a DST with a `/` at its end is a directory; `deltasync ls` shows what is there";
const QUIET: &str = "try again when nothing writes to the source";
const MEMORY: &str = "nothing was published; try again, and check the memory and disks if it recurs";
const LIMITS: &str = "whoever runs the server sets its limits, see `deltasync-server --help`";
const SPACE: &str = "free some space on this machine; nothing was replaced";
const MAY_NOT: &str = "check its owner and permissions, and those of its directory: `ls -ld` shows them";

const fn usage(error: &UsageError) -> Option<&'static str> {
    match error {
        UsageError::SourceDirectory(_) => Some("name a file in it; `push` and `pull` take directories"),
        UsageError::NotAFile(_) | UsageError::NotASource(_) => {
            Some("devices, pipes and sockets have no content to compare: write it to a file first")
        }
        UsageError::Nested { .. } => Some("choose a DST outside of SRC"),
        UsageError::WatchOfSeveral(_) => Some("start one `deltasync watch` for each directory"),
        UsageError::DeleteForFiles => Some("leave --delete out, or name the directory instead of the files in it"),
        UsageError::FilterForFiles => Some("leave them out: a file that is named takes part"),
        UsageError::Pattern(_) => Some("a pattern is a line of a .gitignore, see `deltasync --help`"),
        UsageError::NotADirectory(_) => Some("make that directory first, or name a single SRC and where it is to be"),
        UsageError::DanglingLink(_) => Some("mend the link or remove it: `ls -l` shows where it points"),
        UsageError::Collision { .. } => Some("transfer them one by one, to different names"),
        UsageError::Path { .. } => Some("rename it, or choose another DST"),
        UsageError::Bandwidth(_) => Some("give it more, or fewer --connections"),
        UsageError::NoSource => Some("name what is to be transferred before the place where it goes"),
        UsageError::ConditionOfSeveral(_) => Some("transfer them one by one, each with its --if-match"),
        // They name the way out.
        UsageError::RemoteSource(_)
        | UsageError::RemoteDestination(_)
        | UsageError::ContentsOfSeveral(_)
        | UsageError::WatchDry
        | UsageError::OtherServer { .. } => None,
    }
}

const fn file(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::NotFound => Some("check the spelling of the path, and the directory you are in"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Some(MAY_NOT),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(SPACE),
        io::ErrorKind::IsADirectory => Some("name a file, not a directory"),
        io::ErrorKind::NotADirectory => Some("a part of the path is a file: check where it leads with `ls -ld`"),
        _ => None,
    }
}

fn connect(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Resolve { .. } => "check the spelling of the host",
        ConnectError::Connect { source, .. } => match source.kind() {
            io::ErrorKind::TimedOut => {
                "check the address and whether a firewall drops the port, or give it longer with --connect-timeout"
            }
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                "check the network of this machine, and the address"
            }
            _ => "check that deltasync-server runs there, and its port (7440 unless given)",
        },
    }
}

const fn session(error: &SessionError) -> &'static str {
    match error {
        SessionError::PeerMisbehaved(_) | SessionError::InvalidMessage(_) => {
            "check that it is a deltasync-server that listens there, and of the version of this program"
        }
        SessionError::Unsupported { .. } | SessionError::ClosedByPeer { code: CloseCode::Unsupported, .. } => {
            "use a client and a server of the same version; `--version` tells it"
        }
        SessionError::ClosedByPeer { code: CloseCode::Busy, .. } => BUSY,
        SessionError::ClosedByPeer { code: CloseCode::Limit, .. } => LIMITS,
        SessionError::ClosedByPeer { code: CloseCode::ShuttingDown, .. } => {
            "try again when it runs again, or let it try longer by itself with --retries"
        }
        _ => AGAIN,
    }
}

const fn transfer(error: &TransferError) -> Option<&'static str> {
    match error {
        TransferError::Refused(refusal) => refused(refusal.code),
        TransferError::Storage(fault) => fault_here(fault.kind),
        TransferError::Integrity { .. } => Some(MEMORY),
        TransferError::Stalled { .. } => Some("run the same command again, and see what the peer is busy with"),
        TransferError::Changed { .. } => Some(QUIET),
        TransferError::Memory { .. } => Some(BUSY),
        TransferError::CancelledByPeer => Some("run the same command again; the server's log tells why it ended it"),
        TransferError::ConnectionLost(_) => Some(AGAIN),
        _ => None,
    }
}

/// What the server said.
const fn refused(code: RefusalCode) -> Option<&'static str> {
    match code {
        RefusalCode::NotFound => Some(LOOK),
        RefusalCode::Denied => {
            Some("choose another path, or let the user that the server runs as read and write there")
        }
        RefusalCode::WrongKind => Some(KIND),
        RefusalCode::Exists => Some("choose another name, or remove what is there first"),
        RefusalCode::NotEmpty => Some("`deltasync rm -r` removes a directory with all that is in it"),
        RefusalCode::Full => Some("free some space there; nothing was replaced"),
        RefusalCode::Limit => Some(LIMITS),
        RefusalCode::Changed => Some("try again when nothing writes to it there"),
        RefusalCode::Integrity => Some(MEMORY),
        RefusalCode::Busy => Some(BUSY),
        RefusalCode::Stalled => Some(AGAIN),
        RefusalCode::Storage => Some("the server's log and its disk tell more; nothing was replaced"),
        // They have an error of their own.
        RefusalCode::Conflict | RefusalCode::Damaged => None,
        _ => None,
    }
}

/// What the storage of this machine said.
const fn fault_here(kind: FaultKind) -> Option<&'static str> {
    match kind {
        FaultKind::NotFound => Some("it went away meanwhile, or its directory is not there: check the path"),
        FaultKind::Denied => Some(MAY_NOT),
        FaultKind::WrongKind => Some(KIND),
        FaultKind::Full => Some(SPACE),
        FaultKind::TooLarge => Some("it is longer than the limits of this program allow: split it"),
        FaultKind::Changed => Some(QUIET),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_one_line_that_ends_without_a_dot() {
        let kinds = [FaultKind::NotFound, FaultKind::Denied, FaultKind::WrongKind, FaultKind::Full, FaultKind::Changed];
        let codes = [
            RefusalCode::NotFound,
            RefusalCode::Denied,
            RefusalCode::WrongKind,
            RefusalCode::Exists,
            RefusalCode::NotEmpty,
            RefusalCode::Full,
            RefusalCode::Limit,
            RefusalCode::Changed,
            RefusalCode::Integrity,
            RefusalCode::Busy,
            RefusalCode::Stalled,
            RefusalCode::Storage,
        ];
        let all = kinds.map(fault_here).into_iter().chain(codes.map(refused));
        for hint in all.chain([io::ErrorKind::NotFound, io::ErrorKind::StorageFull].map(file)) {
            let hint = hint.expect("each of these has one");
            assert!(!hint.contains('\n') && !hint.ends_with('.') && hint.len() < 120, "{hint}");
        }
    }
}
