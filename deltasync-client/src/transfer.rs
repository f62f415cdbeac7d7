//! Push and pull: files to one place, or from several places to one directory.
//!
//! The destination decides what has to be known first. A directory takes each file by its own name, so two sources of one
//! name cannot both go there. Whether a place at a server is a directory only the server knows: that wish travels with
//! the transfer. All transfers with one server share a connection; files of this machine are reached by a session in this
//! process, one for each directory that a pull takes files from.
//!
//! A pull may learn that the server's copy lost its content. Who still has that content is likely to be who pulls: then it
//! is pushed back, and the pull is satisfied.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use deltasync_core::{ByteLen, Name};
use deltasync_proto::{
    Command, Condition, Destination, EventKind, Outcome, Place as StoragePlace, RootId, TransferError, Verb,
};
use tokio_util::sync::CancellationToken;

use crate::exchange::{Batch, Exchanged, exchange};
use crate::link::{LinkPlan, Peer};
use crate::local::{LocalSource, LocalTarget};
use crate::route::sum;
use crate::spare::{Damage, Repair, Spare};
use crate::{ClientError, FileReport, Options, Place, RemotePlace, Shown, Summary, Update, UsageError};

/// Brings files at `destination` up to date with `sources`, files of this machine.
///
/// Several sources need a directory as destination. A destination on this machine is written by a session in this
/// process. Cancelling ends the transfers in order within two seconds; what was published stays.
///
/// A connection that cannot be made or is lost is made again, see [`Options::retries`]. A transfer that had not ended is
/// then asked again, also where the server had published it and only its last word was lost: it ends as being there
/// already. What it may replace is said by [`Options::condition`], for a single source. Without one, a version that
/// another writer publishes meanwhile is replaced too, and [`FileReport::replaced`] tells of it; with one, the transfer ends
/// with [`ClientError::Conflict`] where it does not hold.
///
/// # Errors
///
/// [`ClientError::Usage`] or [`ClientError::File`] when a source or the destination cannot be used, or there is a
/// condition and more than one source; nothing has begun then. What goes wrong later stands in the summary, so that it
/// tells of every file.
pub async fn push(
    sources: &[PathBuf],
    destination: &Place,
    options: &Options,
    cancel: &CancellationToken,
    report: impl FnMut(Update),
) -> Result<Summary, ClientError> {
    let begun = Instant::now();
    check_condition(options, sources.len())?;
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
        let condition = options.condition;
        let command = Command::Push { source, path: path.clone(), name: file.name, directory, condition };
        commands.push((number, command));
    }
    // Both files of a push within this machine are at hand.
    let known = match (&peer, &options.state) {
        (Peer::Server(server), Some(state)) => Some(state.of(server)),
        (Peer::Directory(_), _) | (_, None) => None,
    };
    let batch = Batch { link: LinkPlan { peer, roots, known }, commands };
    Ok(run(Verb::Push, reports, vec![batch], &[], options, cancel, report, begun).await)
}

/// Brings files of this machine at `destination` up to date with `sources`.
///
/// As [`push`], the other way round; a condition is on the file of this machine. Sources may lie at several servers, and on
/// this machine. A file of this machine that another program changes meanwhile is a [`ClientError::Conflict`], with or
/// without a condition.
///
/// Where the server's copy is damaged and the file of this machine is what it should be, that one is pushed back, and
/// [`FileReport::restored`] tells of it; else the transfer ends with [`ClientError::Damaged`].
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
    check_condition(options, sources.len())?;
    let target = LocalTarget::find(destination, sources.len() > 1)?;
    let mut batches: Vec<Batch> = Vec::new();
    let mut names = Vec::with_capacity(sources.len());
    let mut spares = Vec::with_capacity(sources.len());
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
        spares.push(Spare {
            peer: peer.clone(),
            remote: path.clone(),
            root: target.root.clone(),
            target: destination.clone(),
            condition: options.condition,
        });
        names.push(name);
        let command = (number, Command::Pull { path, destination, condition: options.condition });
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
    Ok(run(Verb::Pull, reports, batches, &spares, options, cancel, report, begun).await)
}

fn check_condition(options: &Options, sources: usize) -> Result<(), UsageError> {
    if options.condition != Condition::Any && sources > 1 {
        return Err(UsageError::ConditionOfSeveral(sources));
    }
    Ok(())
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
        reports.push(FileReport::new(source, target));
    }
    if reports.is_empty() { Err(UsageError::NoSource) } else { Ok(reports) }
}

#[allow(clippy::too_many_arguments, reason = "what a verb consists of, in one place")]
async fn run(
    verb: Verb,
    mut files: Vec<FileReport>,
    batches: Vec<Batch>,
    spares: &[Spare],
    options: &Options,
    cancel: &CancellationToken,
    mut report: impl FnMut(Update),
    begun: Instant,
) -> Summary {
    let mut damages: Vec<Damage> = Vec::new();
    let on = |update: Update| {
        if let Update::File { index, kind } = &update {
            if let Some(damage) = spares.get(*index).and_then(|_| Damage::of(*index, kind)) {
                // It is not over yet.
                damages.push(damage);
                return None;
            }
            files[*index].take(kind);
        }
        report(update);
        None
    };
    let Exchanged { mut carried, mut retried, mut failures } = exchange(batches, options, cancel, on).await;
    for damage in damages {
        let (index, spare) = (damage.index, &spares[damage.index]);
        let whole = spare.is_whole(&damage, options.config.algorithm, cancel).await;
        let mut step = whole.then_some(Repair::Push(damage.published()));
        let mut ended = Err(damage.error());
        let mut pushed = false;
        while let Some(now) = step {
            let on = |mut update: Update| {
                match &mut update {
                    Update::File { kind: EventKind::Ended(result), .. } => {
                        ended = result.clone();
                        return None;
                    }
                    Update::Carried(stats) => *stats = sum(carried, *stats),
                    _ => {}
                }
                report(update);
                None
            };
            let exchanged = exchange(vec![spare.batch(index, now)], options, cancel, on).await;
            carried = sum(carried, exchanged.carried);
            retried += exchanged.retried;
            failures.extend(exchanged.failures);
            pushed = matches!(now, Repair::Push(_));
            step = damage.after(now, &ended);
        }
        let file = &mut files[index];
        file.take(&EventKind::Ended(ended.clone()));
        match &ended {
            // Where nothing was published, somebody else had repaired it.
            Ok(outcome) if pushed => file.restored = outcome.generation.map(|_| damage.published()),
            Err(error) if pushed && *error != TransferError::Cancelled => {
                file.result = Err(damage.unrepaired(error.clone()));
            }
            _ => {}
        }
        report(Update::File { index, kind: EventKind::Ended(ended) });
    }
    Summary { verb, files, carried, retried, failures, elapsed: begun.elapsed() }
}

/// A result that nothing was reported moved for was there already: all of it counts as copied.
pub(crate) fn whole(mut outcome: Outcome) -> Outcome {
    let progress = &mut outcome.progress;
    if progress.copied == ByteLen::ZERO && progress.literal == ByteLen::ZERO {
        progress.copied = outcome.len;
    }
    outcome
}
