//! Watch: a directory is pushed whenever something in it has changed, until it is told to end.
//!
//! A notice of a change only says when to push, and each push compares the whole tree, which costs about a thousand bytes
//! and one round trip where little differs, whatever the size of the tree. So nothing hangs on what notices say, on their
//! order, or on all of them arriving. Directories are watched before a push looks at them; what changes while it runs
//! leads to another one. A server that is away is tried for ever, in the midst of a push, and the push then sees what has
//! changed meanwhile. Each push has a connection of its own: its first flight carries the comparison, so a connection
//! that stands would save the round trip of TCP and no more.
//!
//! `schedule` decides when, `notices` listens; here both meet the push.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use deltasync_core::Digest;
use deltasync_proto::{Condition, Extra, FaultKind, Outcome, Stats, TransferError};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::notices::{NoNotices, Notices};
use crate::retries::random;
use crate::route::sum;
use crate::schedule::{Schedule, WatchOptions};
use crate::shown::{Counted, Grouped, Size, Span};
use crate::tree::is_of_entries;
use crate::{ClientError, Options, Place, Retries, Shown, Summary, Update, UsageError, push};

/// What a watch tells while it runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum WatchUpdate {
    /// A push begins.
    Pushing,
    /// Something happened in the push that runs.
    Push(Update),
    /// The push has ended.
    Pushed {
        /// What it came to. What went wrong in it is tried again.
        summary: Summary,
        /// It found something to do, or something went wrong.
        changed: bool,
    },
    /// The system does not tell of changes, or not of all. It is compared now and then.
    NoNotices {
        /// Why, on one line; safe to print once control characters are escaped.
        why: String,
        /// How long after a push the next one begins.
        every: Duration,
    },
}

/// What a watch came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchSummary {
    /// How often the trees were compared.
    pub compared: u64,
    /// How many of these pushes found something to do, or something went wrong.
    pub changed: u64,
    /// What all connections carried.
    pub carried: Stats,
    /// How long it took.
    pub elapsed: Duration,
}

impl WatchSummary {
    /// One line for people, such as `compared 12 times, 3 of them with changes: 5.8 KiB sent and 3.1 KiB received, 2 h 05
    /// min`.
    pub fn line(&self) -> String {
        format!(
            "compared {}, {} of them with changes: {} sent and {} received, {}",
            Counted(self.compared, "time"),
            Grouped(self.changed),
            Size(self.carried.wire_sent),
            Size(self.carried.wire_received),
            Span(self.elapsed),
        )
    }

    /// One JSON object on one line, without a line end; the keys are drawn in the help of the program.
    pub fn to_json(&self) -> String {
        let object = serde_json::json!({
            "compared": self.compared,
            "changed": self.changed,
            "wire_sent": self.carried.wire_sent,
            "wire_received": self.carried.wire_received,
            "elapsed_ms": u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
        });
        object.to_string()
    }
}

/// Keeps the tree at `destination` equal to `source`, a directory of this machine, until it is cancelled.
///
/// Each time something has changed it is as [`push`] of that directory with these options. A server that cannot be reached
/// is tried as often as it takes, whatever [`Options::retries`] says of how often; a push that fails otherwise is begun
/// again later. [`Options::condition`] is on what the first push replaces. What changes below [`Options::state`] does not
/// count.
///
/// Cancelling ends it within two seconds, a push that runs included; what was published stays.
///
/// # Errors
///
/// As [`push`]; and when `source` is no directory, or is not the one any more that it was at the start. What goes wrong
/// with the first push as a whole ends the watch too, unless it is for the sake of single files or of changes meanwhile:
/// later ones tell it in their summary.
pub async fn watch(
    source: &Path,
    destination: &Place,
    options: &Options,
    watching: &WatchOptions,
    cancel: &CancellationToken,
    mut report: impl FnMut(WatchUpdate),
) -> Result<WatchSummary, ClientError> {
    let start = Instant::now();
    let root = WatchedRoot::find(source)?;
    let mut options = options.clone();
    options.retries.most = Retries::ENDLESS;
    let left_out = options.state.as_ref().and_then(|state| absolute(&state.directory));
    let mut schedule = Schedule::new(*watching);
    let mut notices = match Notices::new(root.path.clone(), left_out) {
        Ok(notices) => Some(notices),
        Err(why) => give_up_notices(why, &mut schedule, start, &mut report),
    };
    let mut all = WatchSummary::default();
    let mut last: Option<Digest> = None;
    while !cancel.is_cancelled() {
        let due = schedule.due().expect("no push runs");
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            () = sleep_until(start + due) => {}
            () = changed(notices.as_ref()) => {
                schedule.changed(start.elapsed());
                continue;
            }
        }
        root.check(source)?;
        if let Some(mut listening) = notices.take() {
            let covering = spawn_blocking(move || listening.cover().map(|()| listening));
            notices = match covering.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
                Ok(listening) => Some(listening),
                Err(why) => give_up_notices(why, &mut schedule, start, &mut report),
            };
        }
        schedule.begin(start.elapsed());
        report(WatchUpdate::Pushing);
        let sources = [source.to_owned()];
        let pushing = push(&sources, destination, &options, cancel, |update| report(WatchUpdate::Push(update)));
        let mut summary = while_listening(pushing, notices.as_ref(), || schedule.changed(start.elapsed())).await?;
        all.carried = sum(all.carried, summary.carried);
        if cancel.is_cancelled() {
            break;
        }
        all.compared += 1;
        let fine = summary.errors().next().is_none();
        schedule.end(start.elapsed(), fine, random());
        if all.compared == 1
            && let Some(error) = failure(&mut summary)
        {
            return Err(error);
        }
        options.condition = Condition::Any;
        let changed = !fine || has_changed(&summary, options.tree.extra, last);
        last = outcome(&summary).map(|outcome| outcome.root).or(last);
        all.changed += u64::from(changed);
        report(WatchUpdate::Pushed { summary, changed });
    }
    all.elapsed = start.elapsed();
    Ok(all)
}

/// The directory that is watched: the very one.
#[derive(Debug)]
struct WatchedRoot {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl WatchedRoot {
    fn find(source: &Path) -> Result<Self, ClientError> {
        let fault = || ClientError::file("watch", source);
        let meta = fs::metadata(source).map_err(fault())?;
        if !meta.is_dir() {
            return Err(UsageError::NotADirectory(Shown::path(source).to_string()).into());
        }
        Ok(Self { path: source.canonicalize().map_err(fault())?, identity: (meta.dev(), meta.ino()) })
    }

    /// That it is still there, under its name: another one in its place is not what was to be pushed.
    fn check(&self, source: &Path) -> Result<(), ClientError> {
        let meta = fs::metadata(source).map_err(ClientError::file("watch", source))?;
        if (meta.dev(), meta.ino()) == self.identity {
            return Ok(());
        }
        Err(ClientError::Replaced { path: Shown::path(source).to_string() })
    }
}

/// Carries out work, and calls `on_change` for each notice meanwhile.
async fn while_listening<T>(
    work: impl Future<Output = T>,
    notices: Option<&Notices>,
    mut on_change: impl FnMut(),
) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = changed(notices) => on_change(),
        }
    }
}

async fn changed(notices: Option<&Notices>) {
    match notices {
        Some(notices) => notices.changed().await,
        None => std::future::pending().await,
    }
}

/// Goes on without notices, and says so.
fn give_up_notices(
    NoNotices(why): NoNotices,
    schedule: &mut Schedule,
    start: Instant,
    report: &mut impl FnMut(WatchUpdate),
) -> Option<Notices> {
    let every = schedule.untold(start.elapsed());
    report(WatchUpdate::NoNotices { why, every });
    None
}

/// Notices name directories without symbolic links.
fn absolute(path: &Path) -> Option<PathBuf> {
    path.canonicalize().or_else(|_| std::path::absolute(path)).ok()
}

fn outcome(summary: &Summary) -> Option<&Outcome> {
    summary.files.first()?.result.as_ref().ok()
}

/// Why the push failed as a whole.
fn failure(summary: &mut Summary) -> Option<ClientError> {
    let file = summary.files.pop()?;
    let error = match file.result {
        Err(ClientError::Transfer(error)) if !may_pass(&error) => ClientError::Transfer(error),
        Err(ClientError::Transfer(_)) | Ok(_) => {
            summary.files.push(file);
            return None;
        }
        Err(error) => error,
    };
    // A connection that failed says more than the transfer that lost it.
    Some(if summary.failures.is_empty() { error } else { summary.failures.remove(0) })
}

/// Whether a push that failed so may do better the next time: some entries failed, or the tree changed too fast.
fn may_pass(error: &TransferError) -> bool {
    match error {
        TransferError::Changed { .. } => true,
        TransferError::Storage(fault) if matches!(fault.kind, FaultKind::Changed | FaultKind::NotFound) => true,
        error => is_of_entries(error),
    }
}

/// Whether a push has changed something. A receiver that keeps what only it has publishes the tree each time it is
/// compared, equal to what was there.
fn has_changed(summary: &Summary, extra: Extra, last: Option<Digest>) -> bool {
    let Some(outcome) = outcome(summary) else { return true };
    let members = summary.files.iter().filter_map(|file| file.tree.as_ref()).any(|tree| tree.members > 0);
    let moved = members || outcome.progress.literal.get() > 0 || last.is_some_and(|last| last != outcome.root);
    outcome.generation.is_some() && (moved || last.is_none() || extra != Extra::Keep)
}
