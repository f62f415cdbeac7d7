//! A push or pull that only tells what it would do.
//!
//! Of a tree the server's list comes, without contents, and is compared with ours; beside it a push runs the transfer of
//! the tree up to its delta, and then that of each member that would follow, see [`Command::Predict`]. Of a file the
//! server tells the root. Nothing is changed at either end.
//!
//! A directory that only the receiver has stays where it holds what takes no part, and no list says what that is. So where
//! something is to be deleted and not all takes part, a second list comes, of all there is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use deltasync_core::{
    ByteLen, Digest, Generation, RelPath, TreeChange, TreeEntry, TreeKind, TreeList, tree_changes, tree_order,
};
use deltasync_io::{TreeMember, compared_lists, members_to_send, tree_list};
use deltasync_proto::{
    Command, Condition, Destination, EventKind, Extra, FaultKind, Filter, Place as StoragePlace, RefusalCode,
    TransferError, TreeOptions, Version,
};
use tokio_util::sync::CancellationToken;

use crate::exchange::{Batch, Exchanged, exchange};
use crate::omissions::Omissions;
use crate::prediction::{Change, Predicted, PredictedChange, Prediction};
use crate::route::Start;
use crate::transfer::{Plan, plan_pull, plan_push};
use crate::tree::failed_below;
use crate::verify::root_of;
use crate::{ClientError, Options, Place, Shown, Update, UsageError};

/// Tells what [`push`](crate::push) would do with the same arguments, and changes nothing at either end.
///
/// # Errors
///
/// As there; what is wrong with one source is told in its [`Predicted::result`].
pub async fn predict_push(
    sources: &[PathBuf],
    destination: &Place,
    options: &Options,
    cancel: &CancellationToken,
    report: impl FnMut(Update),
) -> Result<Prediction, ClientError> {
    let begun = Instant::now();
    Ok(run(plan_push(sources, destination, options)?, options, cancel, report, begun).await)
}

/// Tells what [`pull`](crate::pull) would do with the same arguments, and changes nothing at either end.
///
/// # Errors
///
/// As there; what is wrong with one source is told in its [`Predicted::result`].
pub async fn predict_pull(
    sources: &[Place],
    destination: &Path,
    options: &Options,
    cancel: &CancellationToken,
    report: impl FnMut(Update),
) -> Result<Prediction, ClientError> {
    let begun = Instant::now();
    let plan = plan_pull(sources, destination, options)?;
    let options = options.shared(plan.batches.len()).map_err(UsageError::Bandwidth)?;
    Ok(run(plan, &options, cancel, report, begun).await)
}

/// The lists of a tree: what is there, and what is wanted.
type Lists = (Option<Arc<TreeList>>, Option<Arc<TreeList>>);

/// One source while it is looked into.
#[derive(Debug)]
struct Item {
    command: Command,
    /// Of a pull that may turn out to be one of a tree: as that.
    as_tree: Option<Command>,
    /// The directories of our end.
    roots: Vec<PathBuf>,
    told: Predicted,
    lists: Option<Lists>,
    /// The same of all there is.
    unfiltered: Option<Lists>,
    /// The list of what is pushed.
    pushed: Option<Arc<TreeList>>,
    members: Vec<TreeMember>,
    omissions: Omissions,
    /// Length and root of the server's file, once asked; `None` inside where none is there.
    remote: Option<Option<(ByteLen, Digest)>>,
    /// Length and root of our file, which was offered.
    local: Option<(ByteLen, Digest)>,
}

/// What a transfer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Job {
    /// The server's list.
    List,
    /// That of all there is.
    Unfiltered,
    /// The root of the server's file.
    Root,
    /// That of the one in the directory which stands there.
    RootInside,
    /// The push of a file or tree.
    Push,
    /// That of a member.
    Member(ByteLen),
}

struct Running {
    items: BTreeMap<usize, Item>,
    jobs: BTreeMap<usize, (usize, Job)>,
    next: usize,
}

impl Running {
    fn begin(&mut self, index: usize, job: Job, command: Command) -> (usize, Command) {
        let number = self.next;
        self.next += 1;
        self.jobs.insert(number, (index, job));
        (number, command)
    }

    /// What is asked first about a source.
    fn start(&mut self, index: usize, options: &TreeOptions) -> Start {
        let Some(item) = self.items.get(&index) else { return Vec::new() };
        let command = item.command.clone();
        let mut start = Vec::new();
        match &command {
            Command::Push { path, name, directory, .. } => {
                let at = if *directory { path.join(name).ok() } else { None };
                let job = if *directory { Job::RootInside } else { Job::Root };
                start.push(self.begin(index, job, Command::Root { path: at.unwrap_or_else(|| path.clone()) }));
            }
            Command::Pull { path, .. } => {
                let path = path.clone();
                start.push(self.begin(index, Job::RootInside, Command::Root { path }));
                return start;
            }
            _ => {}
        }
        start.extend(self.start_lists(index, &command, options));
        if matches!(command, Command::Push { .. } | Command::PushTree { .. }) {
            start.push(self.begin(index, Job::Push, Command::Predict { push: Box::new(command) }));
        }
        start
    }

    fn start_lists(&mut self, index: usize, command: &Command, options: &TreeOptions) -> Start {
        let (path, place, condition) = match command {
            Command::PushTree { source, path, .. } => (path, source, Condition::Any),
            Command::PullTree { path, place, condition, .. } => (path, place, *condition),
            _ => return Vec::new(),
        };
        if let Some(item) = self.items.get_mut(&index) {
            item.told.is_tree = true;
        }
        let list = |filter: Filter, condition| {
            let mut scope = options.scope.clone();
            (scope.filter, scope.headers_only) = (filter, true);
            let options = TreeOptions::default().scope(scope);
            Command::PullTree { path: path.clone(), place: place.clone(), options, condition }
        };
        let filter = &options.scope.filter;
        let mut start = vec![self.begin(index, Job::List, list(filter.clone(), condition))];
        if !filter.is_empty() && options.extra != Extra::Keep {
            start.push(self.begin(index, Job::Unfiltered, list(Filter::default(), Condition::Any)));
        }
        start
    }

    fn on(&mut self, number: usize, kind: EventKind, options: &TreeOptions) -> Start {
        let Some((index, job)) = self.jobs.get(&number).cloned() else { return Vec::new() };
        let Some(item) = self.items.get_mut(&index) else { return Vec::new() };
        let EventKind::Ended(result) = kind else {
            item.take(&job, kind);
            return Vec::new();
        };
        self.jobs.remove(&number);
        match (job, result) {
            (Job::List | Job::Unfiltered | Job::Root | Job::RootInside, Ok(_)) => {}
            (Job::List, Err(error)) if item.is_push() && is(&error, FaultKind::NotFound) => {
                item.lists = Some((None, None));
            }
            (Job::Unfiltered, Err(error)) if is(&error, FaultKind::NotFound) => {}
            (Job::Root | Job::RootInside, Err(error)) if item.is_push() && is(&error, FaultKind::NotFound) => {
                item.remote = Some(None);
            }
            (Job::Root, Err(error)) if is(&error, FaultKind::WrongKind) => {
                if let Command::Push { path, name, .. } = &item.command
                    && let Ok(path) = path.join(name)
                {
                    return vec![self.begin(index, Job::RootInside, Command::Root { path })];
                }
                item.fail(error);
            }
            (Job::RootInside, Err(error)) if is(&error, FaultKind::WrongKind) => {
                if let Some(command) = item.as_tree.take() {
                    return self.start_lists(index, &command, options);
                }
                item.fail(error);
            }
            (Job::Push, Ok(outcome)) => {
                item.told.wire += outcome.progress.wire;
                item.local = Some((outcome.len, outcome.root));
                item.told.known = outcome.known;
                let members = std::mem::take(&mut item.members);
                let commands: Vec<_> = members.into_iter().filter_map(|member| item.member(member)).collect();
                return commands.into_iter().map(|(len, push)| self.begin(index, Job::Member(len), push)).collect();
            }
            (Job::Member(_), Ok(outcome)) => item.told.wire += outcome.progress.wire,
            // Something stands in its way that the push of the tree would take away.
            (Job::Member(len), Err(TransferError::Storage(_) | TransferError::Refused(_))) => item.told.wire += len,
            // As the push itself would go on.
            (Job::Push, Err(error)) if item.leave_out(&error) => {
                let push = Box::new(item.command.clone());
                return vec![self.begin(index, Job::Push, Command::Predict { push })];
            }
            // As the push itself would fail.
            (Job::Push, Err(error)) => item.told.result = Err(error.into()),
            (_, Err(error)) => item.fail(error),
        }
        Vec::new()
    }
}

impl Item {
    fn is_push(&self) -> bool {
        matches!(self.command, Command::Push { .. } | Command::PushTree { .. })
    }

    /// Where the push has failed since small files cannot be read as they were listed: leaves these out.
    fn leave_out(&mut self, error: &TransferError) -> bool {
        let Command::PushTree { options, .. } = &mut self.command else { return false };
        self.omissions.leave_out_after(error, &mut options.scope.filter)
    }

    fn fail(&mut self, error: TransferError) {
        // Of several errors one is enough.
        if self.told.result.is_ok() {
            self.told.result = Err(error.into());
        }
    }

    fn take(&mut self, job: &Job, kind: EventKind) {
        match kind {
            // Perhaps not for the first time.
            EventKind::Started { .. } => match job {
                Job::List => self.lists = None,
                Job::Unfiltered => self.unfiltered = None,
                _ => {}
            },
            EventKind::Made { stage } => {
                let lists = compared_lists(&stage).map(|(ours, theirs)| match self.is_push() {
                    true => (Some(theirs), ours),
                    false => (ours, Some(theirs)),
                });
                match job {
                    Job::Unfiltered => self.unfiltered = lists,
                    _ => self.lists = lists,
                }
            }
            EventKind::Differs { tree, ranges, .. } => {
                self.pushed = tree_list(&tree);
                self.members = members_to_send(&tree, &ranges);
            }
            // What the receiver's list lacks is not the source's.
            EventKind::Omits(omits) if *job == if self.is_push() { Job::Push } else { Job::List } => {
                self.omissions.take(omits);
            }
            EventKind::Restarted => self.members.clear(),
            EventKind::Root { len, root } => self.remote = Some(Some((len, root))),
            _ => {}
        }
    }

    fn member(&self, member: TreeMember) -> Option<(ByteLen, Command)> {
        let Command::PushTree { source, path, .. } = &self.command else { return None };
        let TreeMember { path: name, len, attributes } = member;
        let source = StoragePlace { root: source.root, path: source.path.below(&name).ok()? };
        let push = Command::PushMember { source, path: path.below(&name).ok()?, attributes, atomic: false };
        Some((len, Command::Predict { push: Box::new(push) }))
    }

    /// What is known by now, as it is told.
    fn conclude(mut self, options: &Options, cancel: &CancellationToken) -> Predicted {
        if self.told.result.is_ok() {
            let compared = match self.told.is_tree {
                true => {
                    self.compare_lists(&options.tree);
                    self.name_omitted(options.tree.extra != Extra::Keep);
                    Ok(())
                }
                false => self.compare_roots(options, cancel),
            };
            self.told.result = compared;
        }
        self.told
    }

    fn compare_roots(&mut self, options: &Options, cancel: &CancellationToken) -> Result<(), ClientError> {
        let Some(remote) = self.remote else { return Ok(()) };
        let Command::Pull { destination, .. } = &self.command else {
            let change = self.local.and_then(|local| PredictedChange::of_file(remote, local));
            self.told.changes.extend(change);
            return Ok(());
        };
        let Some(remote) = remote else { return Ok(()) };
        let path = self.local_path(destination);
        let local = match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            _ => Some(root_of(&path, options.config.algorithm, cancel)?),
        };
        let current = local.map(|(_, root)| Version { generation: Generation::ZERO, root });
        if local != Some(remote) && !options.condition.holds(current.as_ref()) {
            return Err(ClientError::Conflict { current });
        }
        let change = PredictedChange::of_file(local, remote);
        self.told.wire = change.as_ref().map_or(ByteLen::ZERO, |change| change.content);
        self.told.changes.extend(change);
        Ok(())
    }

    fn compare_lists(&mut self, options: &TreeOptions) {
        // No lists came where they are equal.
        let Some((old, new)) = self.lists.take() else { return };
        let new = new.or_else(|| self.pushed.clone());
        let told = &mut self.told;
        let holding =
            self.unfiltered.take().map_or_else(BTreeSet::new, |(all, _)| holding(all.as_deref(), old.as_deref()));
        let there = old.as_ref().map_or(0, |list| list.len() as u64);
        let allowed = match options.extra {
            Extra::Keep => None,
            Extra::Delete { .. } if self.omissions.hides() => None,
            Extra::Delete { most } => Some(most.unwrap_or(there / 2)),
        };
        let mut extra = Vec::new();
        // The directory that is to be something else, until what is in it has passed.
        let mut in_the_way: Option<TreeChange> = None;
        for change in tree_changes(old.as_deref(), new.as_deref()) {
            if self.omissions.holds(change.path()) {
                continue;
            }
            let is_in = |way: &TreeChange| way.path().holds(change.path());
            if in_the_way.as_ref().is_some_and(is_in) && (allowed.is_none() || holding.contains(change.path())) {
                continue;
            }
            in_the_way = None;
            if change.new.is_none() {
                if allowed.is_some() && !holding.contains(change.path()) {
                    extra.push(PredictedChange::of(&change));
                }
                continue;
            }
            let is_directory =
                |entry: &Option<TreeEntry>| matches!(entry, Some(entry) if entry.kind == TreeKind::Directory);
            if is_directory(&change.old) && !is_directory(&change.new) {
                let within = |list: &TreeList| {
                    let next = list.find(change.path()).map_or(list.len(), |index| index + 1);
                    next < list.len() && change.path().holds(&list.entry(next).path)
                };
                let is_full = old.as_deref().is_some_and(within);
                let why = match holding.contains(change.path()) {
                    true => Some("a directory stands there that holds what is excluded"),
                    false if is_full && allowed.is_none() => {
                        Some("a directory that is not empty stands there, and stays")
                    }
                    false => None,
                };
                if let Some(why) = why {
                    told.refusals.push(format!("{}: {why}", Shown(change.path().as_bytes())));
                    in_the_way = Some(change);
                    continue;
                }
            }
            told.changes.push(PredictedChange::of(&change));
        }
        if let Some(allowed) = allowed.filter(|allowed| extra.len() as u64 > *allowed) {
            let (count, all) = (extra.len(), there.saturating_sub(1));
            told.refusals.push(format!("{count} of {all} entries would be deleted, over {allowed}: none would be"));
        }
        // Where not all can be made, nothing is deleted.
        if told.refusals.is_empty() {
            told.changes.extend(extra);
        }
        told.changes.sort_by(|a, b| tree_order(&a.path, &b.path));
        if !matches!(self.command, Command::PushTree { .. }) {
            let new = told.changes.iter().filter(|change| change.change != Change::Deleted);
            told.wire =
                new.map(|change| change.content + ByteLen::new(change.path.as_bytes().len() as u64 + HEADER)).sum();
        }
    }

    fn name_omitted(&mut self, deletes: bool) {
        let Predicted { source, target, .. } = &self.told;
        let omitted = std::mem::take(&mut self.omissions).into_errors(deletes).into_iter();
        self.told.left_out = omitted.map(|(path, error)| failed_below(source, target, &path, error)).collect();
    }

    fn local_path(&self, destination: &Destination) -> PathBuf {
        let root = self.roots.get(destination.place.root.get() as usize).cloned().unwrap_or_default();
        let at = |path: &RelPath| match path.is_root() {
            true => root.clone(),
            false => root.join(OsStr::from_bytes(path.as_bytes())),
        };
        let path = at(&destination.place.path);
        match destination.directory {
            true => path.join(OsStr::from_bytes(destination.name.as_bytes())),
            false => path,
        }
    }
}

/// About what an entry takes beside its path and content.
const HEADER: u64 = 24;

/// The directories that hold something which is there and not listed.
fn holding(all: Option<&TreeList>, listed: Option<&TreeList>) -> BTreeSet<RelPath> {
    let mut holding = BTreeSet::new();
    for change in tree_changes(all, listed).filter(|change| change.new.is_none()) {
        let mut path = change.path().clone();
        while let Some((parent, _)) = path.split_last() {
            if !holding.insert(parent.clone()) {
                break;
            }
            path = parent;
        }
    }
    holding
}

/// True for a fault of this kind, of our storage or the peer's.
fn is(error: &TransferError, kind: FaultKind) -> bool {
    let code = match kind {
        FaultKind::NotFound => RefusalCode::NotFound,
        _ => RefusalCode::WrongKind,
    };
    match error {
        TransferError::Storage(fault) => fault.kind == kind,
        TransferError::Refused(refusal) => refusal.code == code,
        _ => false,
    }
}

async fn run(
    plan: Plan,
    options: &Options,
    cancel: &CancellationToken,
    mut report: impl FnMut(Update),
    begun: Instant,
) -> Prediction {
    let Plan { verb, files, batches, mut trees, .. } = plan;
    let mut told: BTreeMap<usize, Predicted> = files.into_iter().map(Predicted::new).enumerate().collect();
    let mut running = Running { items: BTreeMap::new(), jobs: BTreeMap::new(), next: 0 };
    let mut first = Vec::with_capacity(batches.len());
    for Batch { link, commands } in batches {
        let mut start = Vec::new();
        for (index, command) in commands {
            let Some(told) = told.remove(&index) else { continue };
            let as_tree = match &command {
                Command::Pull { .. } => trees.get_mut(&index).map(|tree| tree.begin().1),
                _ => None,
            };
            running.items.insert(index, Item::new(command, as_tree, link.roots.clone(), told));
            start.extend(running.start(index, &options.tree));
        }
        first.push(Batch { link, commands: start });
    }
    let on = |update: Update| match update {
        Update::File { index: number, kind } => {
            let told = match running.jobs.get(&number) {
                Some((index, Job::Push)) if matches!(kind, EventKind::Placed { .. } | EventKind::Restarted) => {
                    Some(*index)
                }
                Some((index, _)) if matches!(kind, EventKind::Phase(_)) => Some(*index),
                _ => None,
            };
            if let Some(index) = told {
                report(Update::File { index, kind: kind.clone() });
            }
            running.on(number, kind, &options.tree)
        }
        update => {
            report(update);
            Vec::new()
        }
    };
    let Exchanged { carried, failures, .. } = exchange(first, options, cancel, on).await;
    let (items, (options_of, token)) = (running.items, (options.clone(), cancel.clone()));
    let conclude = move || items.into_values().map(|item| item.conclude(&options_of, &token)).collect();
    // Files of a pull are read here.
    let files = tokio::task::spawn_blocking(conclude).await;
    let files = files.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let has_condition = options.condition != Condition::Any;
    Prediction { verb, files, has_condition, carried, failures, elapsed: begun.elapsed() }
}

impl Item {
    fn new(command: Command, as_tree: Option<Command>, roots: Vec<PathBuf>, told: Predicted) -> Self {
        Self {
            command,
            as_tree,
            roots,
            told,
            lists: None,
            unfiltered: None,
            pushed: None,
            members: Vec::new(),
            omissions: Omissions::default(),
            remote: None,
            local: None,
        }
    }
}
