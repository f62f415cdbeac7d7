//! Push and pull: files to one place, or from several places to one directory.
//!
//! The destination decides what has to be known first. A directory takes each file by its own name, so two sources of one
//! name cannot both go there. Whether a place at a server is a directory only the server knows: that wish travels with
//! the transfer. All transfers with one server share a connection; files of this machine are reached by a session in this
//! process, one for each directory that a pull takes files from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use deltasync_core::{ByteLen, Name};
use deltasync_proto::{
    Command, Destination, EventKind, Outcome, Place as StoragePlace, RootId, Stats, TransferError, Verb,
};
use tokio_util::sync::CancellationToken;

use crate::exchange::{Batch, Exchanged, Happening, exchange};
use crate::link::{LinkPlan, Peer};
use crate::local::{LocalSource, LocalTarget};
use crate::{ClientError, FileReport, Options, Place, RemotePlace, Shown, Summary, UsageError};

/// What a verb tells while it runs: the one stream that every face draws.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// Something happened to the file with this index among the sources, from 0.
    File {
        /// Which source.
        index: usize,
        /// What happened; `Ended` is the last of each file.
        kind: EventKind,
    },
    /// What the connections have carried so far, all together.
    Carried(Stats),
}

/// Brings files at `destination` up to date with `sources`, files of this machine.
///
/// Several sources need a directory as destination. A destination on this machine is written by a session in this
/// process. Cancelling ends the transfers in order within two seconds; what was published stays.
///
/// # Errors
///
/// [`ClientError::Usage`] or [`ClientError::File`] when a source or the destination cannot be used; nothing has begun
/// then. What goes wrong later stands in the summary, so that it tells of every file.
pub async fn push(
    sources: &[PathBuf],
    destination: &Place,
    options: &Options,
    cancel: &CancellationToken,
    report: impl FnMut(Update),
) -> Result<Summary, ClientError> {
    let begun = Instant::now();
    let files = sources.iter().map(|source| LocalSource::find(source)).collect::<Result<Vec<_>, _>>()?;
    let (peer, path, directory) = match destination {
        Place::Remote(place) => {
            let directory = place.directory || files.len() > 1;
            (Peer::Server(place.server.clone()), place.path.clone(), directory)
        }
        Place::Local(path) => {
            let target = LocalTarget::find(path, files.len() > 1)?;
            (Peer::Directory(target.root), target.path, target.directory)
        }
    };
    let named: Vec<_> = sources.iter().zip(&files).map(|(source, file)| (Shown::path(source), &file.name)).collect();
    let reports = reports(&named, destination, directory)?;

    let mut roots: Vec<PathBuf> = Vec::new();
    let mut commands = Vec::with_capacity(files.len());
    for (number, file) in files.into_iter().enumerate() {
        let root = roots.iter().position(|root| *root == file.root).unwrap_or_else(|| {
            roots.push(file.root);
            roots.len() - 1
        });
        let root = RootId::new(u32::try_from(root).expect("fewer sources than 2^32"));
        let source = StoragePlace { root, path: file.path };
        commands.push((number, Command::Push { source, path: path.clone(), name: file.name, directory }));
    }
    // Both files of a push within this machine are at hand.
    let known = match (&peer, &options.state) {
        (Peer::Server(server), Some(state)) => Some(state.of(server)),
        (Peer::Directory(_), _) | (_, None) => None,
    };
    let batch = Batch { link: LinkPlan { peer, roots, known }, commands };
    Ok(run(Verb::Push, reports, vec![batch], options, cancel, report, begun).await)
}

/// Brings files of this machine at `destination` up to date with `sources`.
///
/// As [`push`], the other way round. Sources may lie at several servers, and on this machine.
///
/// # Errors
///
/// As [`push`].
pub async fn pull(
    sources: &[Place],
    destination: &Path,
    options: &Options,
    cancel: &CancellationToken,
    report: impl FnMut(Update),
) -> Result<Summary, ClientError> {
    let begun = Instant::now();
    let target = LocalTarget::find(destination, sources.len() > 1)?;
    let mut batches: Vec<Batch> = Vec::new();
    let mut names = Vec::with_capacity(sources.len());
    for (number, source) in sources.iter().enumerate() {
        let (peer, path, name) = match source {
            Place::Remote(place) => {
                let name = file_name(place)?;
                (Peer::Server(place.server.clone()), place.path.clone(), name)
            }
            Place::Local(path) => {
                let file = LocalSource::find(path)?;
                (Peer::Directory(file.root), file.path, file.name)
            }
        };
        let place = StoragePlace { root: RootId::new(0), path: target.path.clone() };
        let destination = Destination { place, name: name.clone(), directory: target.directory };
        names.push(name);
        let command = (number, Command::Pull { path, destination });
        match batches.iter_mut().find(|batch| batch.link.peer == peer) {
            Some(batch) => batch.commands.push(command),
            None => {
                let link = LinkPlan { peer, roots: vec![target.root.clone()], known: None };
                batches.push(Batch { link, commands: vec![command] });
            }
        }
    }
    let named: Vec<_> = sources.iter().zip(&names).collect();
    let reports = reports(&named, &Place::Local(destination.to_owned()), target.directory)?;
    Ok(run(Verb::Pull, reports, batches, options, cancel, report, begun).await)
}

/// The name of a file at a server; a place written as a directory is none.
fn file_name(place: &RemotePlace) -> Result<Name, UsageError> {
    place.name().filter(|_| !place.directory).ok_or_else(|| UsageError::SourceDirectory(place.to_string()))
}

/// A report for each source, with where it goes as far as that is known here.
fn reports(
    named: &[(impl fmt::Display, &Name)],
    destination: &Place,
    directory: bool,
) -> Result<Vec<FileReport>, UsageError> {
    let mut taken: BTreeMap<&Name, String> = BTreeMap::new();
    let mut reports = Vec::with_capacity(named.len());
    for (source, name) in named {
        let source = source.to_string();
        let target = match destination {
            _ if !directory => destination.to_string(),
            Place::Local(path) => {
                let slash = if path.as_os_str().as_encoded_bytes().ends_with(b"/") { "" } else { "/" };
                format!("{destination}{slash}{}", Shown(name.as_bytes()))
            }
            Place::Remote(place) => {
                let joined = place.join(name);
                joined.map_err(|cause| UsageError::Path { path: source.clone(), cause })?.to_string()
            }
        };
        if directory && let Some(first) = taken.insert(name, source.clone()) {
            return Err(UsageError::Collision { first, second: source, target });
        }
        reports.push(FileReport { source, target, result: Err(TransferError::Cancelled.into()) });
    }
    if reports.is_empty() { Err(UsageError::NoSource) } else { Ok(reports) }
}

async fn run(
    verb: Verb,
    mut files: Vec<FileReport>,
    batches: Vec<Batch>,
    options: &Options,
    cancel: &CancellationToken,
    mut report: impl FnMut(Update),
    begun: Instant,
) -> Summary {
    let on = |happening| {
        match happening {
            Happening::Carried(stats) => report(Update::Carried(stats)),
            Happening::Transfer(index, kind) => {
                if let EventKind::Ended(result) = &kind {
                    files[index].result = result.clone().map(whole).map_err(ClientError::from);
                }
                report(Update::File { index, kind });
            }
        }
        None
    };
    let Exchanged { carried, failures } = exchange(batches, options, cancel, on).await;
    Summary { verb, files, carried, failures, elapsed: begun.elapsed() }
}

/// A result that nothing was reported moved for was there already: all of it counts as copied.
fn whole(mut outcome: Outcome) -> Outcome {
    let progress = &mut outcome.progress;
    if progress.copied == ByteLen::ZERO && progress.literal == ByteLen::ZERO {
        progress.copied = outcome.len;
    }
    outcome
}
