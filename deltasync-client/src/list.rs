//! The listing of a directory, page by page until it ends, and the root of a file elsewhere.

use deltasync_core::{ByteLen, Digest, RelPath};
use deltasync_proto::{Command, Entry, EventKind, TransferError};
use tokio_util::sync::CancellationToken;

use crate::exchange::ask;
use crate::link::Peer;
use crate::local::{LocalSource, LocalTarget};
use crate::{ClientError, Options, Place, Update};

/// Lists the directory at `place`, or the single file that is there, in the order of the names' bytes. `page` gets the
/// entries as they come, at least one page unless something fails; `report` hears what happens, as file 0. A connection
/// that is lost is made again, and the listing goes on behind the last page.
///
/// # Errors
///
/// [`ClientError`] by cause; pages that came before have been handed over.
pub async fn list(
    place: &Place,
    options: &Options,
    cancel: &CancellationToken,
    mut report: impl FnMut(Update),
    mut page: impl FnMut(Vec<Entry>),
) -> Result<(), ClientError> {
    let (peer, path) = match place {
        Place::Remote(place) => (Peer::Server(place.server.clone()), place.path.clone()),
        Place::Local(path) => {
            let target = LocalTarget::find(path, false)?;
            (Peer::Directory(target.root), target.path)
        }
    };
    let list = |after| Command::List { path: path.clone(), after };
    let mut next = None;
    let mut result = Ok(());
    let on = |update: Update| {
        report(update.clone());
        let Update::File { kind, .. } = update else { return Vec::new() };
        match kind {
            EventKind::Listed { entries, more } => {
                next = entries.last().filter(|_| more).map(|last| list(Some(last.name.clone())));
                page(entries);
            }
            EventKind::Ended(Ok(_)) => return next.take().map(|command| (0, command)).into_iter().collect(),
            EventKind::Ended(Err(error)) => result = Err(error),
            _ => {}
        }
        Vec::new()
    };
    ask(peer, list(None), options, cancel, on).await?;
    Ok(result?)
}

/// The length and root of the file at `place`, in the algorithm of `options`. `report` hears what happens, as file 0.
///
/// # Errors
///
/// [`ClientError`] by cause.
pub async fn root_at(
    place: &Place,
    options: &Options,
    cancel: &CancellationToken,
    mut report: impl FnMut(Update),
) -> Result<(ByteLen, Digest), ClientError> {
    let (peer, path): (Peer, RelPath) = match place {
        Place::Remote(place) => (Peer::Server(place.server.clone()), place.path.clone()),
        Place::Local(path) => {
            let source = LocalSource::find(path)?;
            (Peer::Directory(source.root), source.path)
        }
    };
    let mut found = Err(TransferError::Cancelled);
    let on = |update: Update| {
        if let Update::File { kind, .. } = &update {
            match kind {
                EventKind::Root { len, root } => found = Ok((*len, *root)),
                EventKind::Ended(Err(error)) => found = Err(error.clone()),
                _ => {}
            }
        }
        report(update);
        Vec::new()
    };
    ask(peer, Command::Root { path }, options, cancel, on).await?;
    Ok(found?)
}
