//! What the embedded database (redb) may say instead of an answer.
//!
//! Two things matter to who uses one: whether the file itself is no good any more, so that a new one is to be begun; and
//! whether it is the time that is bad (another process, a full disk), so that the file stays. A damaged file may also show
//! by a panic, see [`contained`](crate::contained).

use std::io;

use redb::{Builder, CommitError, DatabaseError, StorageError, TableError, TransactionError};
use rustix::io::Errno;

/// Why a step was left out, with a message for people.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Another process has it, the disk is full, or the like: another time.
    Unavailable(String),
    /// The disk does not give it back.
    Unreadable(String),
    /// It is no database of ours any more.
    Damaged(String),
}

/// A builder of databases that are small; a damaged one is told by an error, as far as redb notices.
///
/// `cache` is how much of it is kept in memory, in bytes.
pub(crate) fn builder(cache: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache).set_check_integrity_on_open(true);
    builder
}

impl Trouble {
    /// What happened.
    pub(crate) fn into_message(self) -> String {
        let (Self::Unavailable(message) | Self::Unreadable(message) | Self::Damaged(message)) = self;
        message
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        let message = error.to_string();
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged(message),
            _ if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Self::Unreadable(message),
            _ => Self::Unavailable(message),
        }
    }
}

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) | redb::Error::TableTypeMismatch { .. } => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

macro_rules! trouble_from {
    ($($error:ident)*) => {$(
        impl From<$error> for Trouble {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}

trouble_from! { DatabaseError TransactionError TableError StorageError CommitError }
