//! A change of a directory at a server that moves no content: made, renamed or removed.

use crate::RemotePlace;

/// What is to be changed at a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// Make this directory.
    Make(RemotePlace),
    /// Give something another place.
    Rename {
        /// Where it is.
        from: RemotePlace,
        /// Where it goes; nothing must be there.
        to: RemotePlace,
    },
    /// Remove this, a directory with all that is in it.
    Remove(RemotePlace),
}

impl Alteration {
    /// The word for it, what it concerns, and what is so once it is done.
    pub(crate) fn words(&self) -> (&'static str, &RemotePlace, String) {
        match self {
            Self::Make(place) => ("New folder", place, "made".to_owned()),
            Self::Rename { from, to } => ("Rename", from, format!("is {to} now")),
            Self::Remove(place) => ("Delete", place, "removed".to_owned()),
        }
    }
}
