//! What went wrong, in words for somebody at a window: what it is, and what to do now.
//!
//! The hints of [`ClientError::hint`] name commands and options; here the same causes name what a window offers.

use std::io::ErrorKind;

use deltasync_io::DriveError;
use deltasync_proto::{CloseCode, FaultKind, RefusalCode, SessionError, TransferError};

use crate::summary::chain;
use crate::{ClientError, ConnectError, InvalidPlace, Shown};

/// Something that went wrong. Both texts are safe to draw on one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What went wrong, as one sentence without a full stop.
    pub what: String,
    /// What to do now, as one sentence without a full stop; empty where there is nothing to be done.
    pub todo: String,
}

impl Trouble {
    pub(crate) fn new(what: impl AsRef<str>, todo: &str) -> Self {
        let what = without_numbers(what.as_ref());
        Self { what: sentence(&Shown(what.as_bytes()).to_string()), todo: todo.to_owned() }
    }
}

impl From<&ClientError> for Trouble {
    fn from(error: &ClientError) -> Self {
        Self::new(chain(error), todo(error))
    }
}

impl From<&InvalidPlace> for Trouble {
    fn from(error: &InvalidPlace) -> Self {
        Self::new(error.to_string(), "Write the address as HOST, HOST:PORT or deltasync://HOST/FOLDER")
    }
}

/// Without the numbers that the system gives its errors: they stand behind the words.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| match part.split_once(')') {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => text + rest,
        _ => text + " (os error " + part,
    })
}

/// With a capital at its beginning.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn todo(error: &ClientError) -> &'static str {
    match error {
        ClientError::Connect(ConnectError::Resolve { .. }) => "Check the spelling of the server's name",
        ClientError::Connect(_) => "Check that the server runs and that the port is right (7440 unless given)",
        ClientError::Connection { source, .. } => match source {
            DriveError::Session(SessionError::PeerMisbehaved(_) | SessionError::InvalidMessage(_)) => {
                "Check that it is a deltasync server that answers at this address"
            }
            DriveError::Session(SessionError::Unsupported { .. }) => "Use a client and a server of the same version",
            DriveError::Session(SessionError::ClosedByPeer { code: CloseCode::Busy, .. }) => {
                "The server is busy: try again in a moment"
            }
            _ => "Check the network and try again: what has arrived is kept",
        },
        ClientError::Transfer(error) => todo_of_transfer(error),
        ClientError::File { source, .. } => match source.kind() {
            ErrorKind::NotFound => "Check that it is still there under this name",
            ErrorKind::PermissionDenied => "Check that you may read and write there",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "Free some space on this machine and try again",
            _ => "Check the disk and try again",
        },
        ClientError::Conflict { .. } => {
            "Somebody else changed it meanwhile and nothing was replaced: look, then try again"
        }
        ClientError::Damaged { .. } => "Push a good copy of this file to repair the one at the server",
        ClientError::Differ { .. } => "Push yours or pull theirs to make them equal",
        ClientError::Changed(_) => "Try again when nothing writes to the file",
        ClientError::Replaced { .. } => "Start to watch again if it is the folder to watch now",
        ClientError::Unanswered { .. } => "Refresh the list to see whether it was done",
        ClientError::LeftOut { .. } => "All else was transferred",
        ClientError::Usage(_) | ClientError::Shape(_) => "Choose another source or another place",
        ClientError::Signature { .. }
        | ClientError::Patch { .. }
        | ClientError::NoServer { .. }
        | ClientError::Interrupted => "",
    }
}

fn todo_of_transfer(error: &TransferError) -> &'static str {
    match error {
        TransferError::Refused(refusal) => match refusal.code {
            RefusalCode::NotFound => "It is not there any more: refresh the list",
            RefusalCode::WrongKind => "A folder stands where a file is meant, or the other way round: refresh the list",
            RefusalCode::Exists => "Choose another name: this one is taken",
            RefusalCode::NotEmpty => "Something was put into the folder meanwhile: look, then delete it again",
            RefusalCode::Full => "Free some space at the server; nothing was changed there",
            RefusalCode::Busy | RefusalCode::Stalled => "The server is busy: try again in a moment",
            RefusalCode::Damaged => "Push a good copy of this file to repair the one at the server",
            RefusalCode::Integrity => "Nothing was published: try again, and check memory and disks if it recurs",
            _ => "Ask whoever runs the server",
        },
        TransferError::Integrity { .. } => "Nothing was published: try again, and check memory and disks if it recurs",
        TransferError::Storage(fault) => match fault.kind {
            FaultKind::NotFound => "Check that it is still there under this name",
            FaultKind::Full => "Free some space on this machine and try again",
            _ => "Check the disk and try again",
        },
        TransferError::Changed { .. } => "Try again when nothing writes to the source",
        TransferError::Stalled { .. } | TransferError::ConnectionLost(_) => {
            "Check the network and try again: what has arrived is kept"
        }
        TransferError::CancelledByPeer => "The server ended it: try again in a moment",
        _ => "Try again",
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use deltasync_proto::Refusal;

    use super::*;
    use crate::Place;

    fn refused(code: RefusalCode) -> ClientError {
        TransferError::Refused(Refusal { code, message: "no".into(), current: None }).into()
    }

    #[test]
    fn every_cause_a_person_can_do_something_about_says_what() {
        let Ok(Place::Remote(place)) = Place::parse("deltasync://h/".as_ref()) else { panic!("a place") };
        let connect = |kind: ErrorKind| {
            let server = place.server.clone();
            ClientError::from(ConnectError::Connect { server, tried: 1, source: kind.into() })
        };
        let file = |kind: ErrorKind| ClientError::File { doing: "read", path: "f".into(), source: kind.into() };
        for (error, says) in [
            (connect(ErrorKind::ConnectionRefused), "server runs"),
            (ConnectError::Resolve { host: "h".into(), source: io::Error::other("no") }.into(), "spelling"),
            (file(ErrorKind::NotFound), "still there"),
            (file(ErrorKind::PermissionDenied), "may read"),
            (file(ErrorKind::StorageFull), "space on this machine"),
            (refused(RefusalCode::NotFound), "refresh"),
            (refused(RefusalCode::Full), "space at the server"),
            (refused(RefusalCode::Conflict), "Somebody else"),
            (refused(RefusalCode::Damaged), "good copy"),
            (TransferError::Changed { times: 3 }.into(), "nothing writes"),
        ] {
            let trouble = Trouble::from(&error);
            assert!(trouble.todo.contains(says), "{trouble:?}");
            assert!(trouble.what.chars().next().is_some_and(char::is_uppercase), "{trouble:?}");
        }
    }

    #[test]
    fn words_of_strangers_are_drawn_on_one_line() {
        let message = "no\nDelete everything\u{202e}".to_owned();
        let error: ClientError =
            TransferError::Refused(Refusal { code: RefusalCode::Busy, message, current: None }).into();
        let trouble = Trouble::from(&error);
        assert!(!trouble.what.contains(['\n', '\u{202e}']), "{trouble:?}");
    }

    #[test]
    fn the_numbers_of_errors_are_left_out() {
        for (text, expected) in [
            ("no (os error 111)", "No"),
            ("no (os error 1), and 2 more", "No, and 2 more"),
            ("(os error x) (os error", "(os error x) (os error"),
        ] {
            assert_eq!(Trouble::new(text, "").what, expected);
        }
    }

    #[test]
    fn an_address_that_is_none_says_how_to_write_one() {
        let error = Place::parse("deltasync://h:x/".as_ref()).expect_err("no port");
        assert!(Trouble::from(&error).todo.contains("HOST:PORT"));
    }
}
