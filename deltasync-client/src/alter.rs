//! Making a directory, renaming and removing, at a server or on this machine.
//!
//! Each is one question and one answer, and is durable when it is answered. Asked a second time a rename finds nothing, and a
//! removal might take what has come there since: so none of them is asked again once a server may have heard it. It is tried
//! again only while no connection is made, or the server turns it away because it is busy.

use deltasync_core::RelPath;
use deltasync_proto::{Command, EventKind, TransferError};
use tokio_util::sync::CancellationToken;

use crate::exchange::ask;
use crate::link::Peer;
use crate::local::{in_directory, in_one_directory};
use crate::retries::may_have_been_heard;
use crate::{ClientError, Options, Place, Update, UsageError};

/// Makes the directory `place`, in one that is there. `report` hears what happens, as file 0.
///
/// # Errors
///
/// [`ClientError`] by cause; something that is there already is
/// [`RefusalCode::Exists`](deltasync_proto::RefusalCode::Exists) at a server, and
/// [`FaultKind::Exists`](deltasync_proto::FaultKind::Exists) on this machine. [`ClientError::Unanswered`] when nobody can tell
/// whether it was done.
pub async fn make_directory(
    place: &Place,
    options: &Options,
    cancel: &CancellationToken,
    report: impl FnMut(Update),
) -> Result<(), ClientError> {
    let (peer, path) = found(place)?;
    alter(peer, Command::MakeDirectory { path }, options, cancel, report).await
}

/// Gives what is at `from` the place `to`, where nothing is, in a directory that is there; a `to` that is written with a `/` at
/// its end takes it by its name. A symbolic link is moved itself. `report` hears what happens, as file 0.
///
/// # Errors
///
/// As [`make_directory`], and [`UsageError::OtherServer`] unless both are at the same server or both on this machine.
pub async fn rename(
    from: &Place,
    to: &Place,
    options: &Options,
    cancel: &CancellationToken,
    report: impl FnMut(Update),
) -> Result<(), ClientError> {
    let other = || UsageError::OtherServer { from: from.to_string(), to: to.to_string() };
    let (peer, from, to) = match (from, to) {
        (Place::Remote(from), Place::Remote(to)) if from.server == to.server => {
            let inside = from.name().filter(|_| to.directory);
            let inside = inside.map(|name| to.join(&name)).transpose().map_err(|cause| {
                let path = to.to_string();
                UsageError::Path { path, cause }
            })?;
            let to = inside.map_or_else(|| to.path.clone(), |inside| inside.path);
            (Peer::Server(from.server.clone()), from.path.clone(), to)
        }
        (Place::Local(from), Place::Local(to)) => {
            let (root, from, to) = in_one_directory(from, to)?;
            (Peer::Directory(root), from, to)
        }
        _ => return Err(other().into()),
    };
    alter(peer, Command::Rename { from, to }, options, cancel, report).await
}

/// Removes the file, symbolic link or directory at `place`; a directory that is not empty only if `recursive`, with all that
/// is in it. `report` hears what happens, as file 0. One that is cancelled may go on to its end at the server.
///
/// # Errors
///
/// As [`make_directory`]; a directory that is not empty is
/// [`RefusalCode::NotEmpty`](deltasync_proto::RefusalCode::NotEmpty). What fails in the middle leaves a part, and says so.
pub async fn remove(
    place: &Place,
    recursive: bool,
    options: &Options,
    cancel: &CancellationToken,
    report: impl FnMut(Update),
) -> Result<(), ClientError> {
    let (peer, path) = found(place)?;
    alter(peer, Command::Remove { path, recursive }, options, cancel, report).await
}

fn found(place: &Place) -> Result<(Peer, RelPath), ClientError> {
    Ok(match place {
        Place::Remote(place) => (Peer::Server(place.server.clone()), place.path.clone()),
        Place::Local(path) => {
            let (root, path) = in_directory(path)?;
            (Peer::Directory(root), path)
        }
    })
}

async fn alter(
    peer: Peer,
    command: Command,
    options: &Options,
    cancel: &CancellationToken,
    mut report: impl FnMut(Update),
) -> Result<(), ClientError> {
    let mut result = Err(TransferError::Cancelled);
    let on = |update: Update| {
        if let Update::File { kind: EventKind::Ended(ended), .. } = &update {
            result = ended.clone();
        }
        report(update);
        Vec::new()
    };
    let asked = ask(peer, command, options, cancel, on).await.and_then(|()| Ok(result.map(drop)?));
    asked.map_err(|error| match may_have_been_heard(&error) {
        true => ClientError::Unanswered { source: Box::new(error) },
        false => error,
    })
}
