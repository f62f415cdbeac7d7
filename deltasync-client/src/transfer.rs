//! Push and pull: files and directories to one place, or from several places to one directory.
//!
//! The destination decides what has to be known first. A directory takes each source by its own name, so two sources of one
//! name cannot both go there. Whether a place at a server is a directory only the server knows: that wish travels with
//! the transfer, and what is pulled is taken for a file until it shows to be a tree. All transfers with one server share a
//! connection; files of this machine are reached by a session in this process, one for each directory that a pull takes
//! files from.
//!
//! A directory goes by its name into a destination that ends in `/`, and is made the destination itself otherwise, so that
//! the same call again does the same. One whose contents are meant (`dir/`) is always made the destination itself.
//!
//! A pull may learn that the server's copy lost its content. Who still has that content is likely to be who pulls: then it
//! is pushed back, and the pull is satisfied.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use deltasync_core::{ByteLen, Name, RelPath};
use deltasync_io::{Walks, check_filter};
use deltasync_proto::{
    Command, Condition, Destination, EventKind, Extra, Outcome, Place as StoragePlace, RootId, TransferError,
    TreeOptions, Verb,
};
use tokio_util::sync::CancellationToken;

use crate::exchange::{Batch, Exchanged, exchange};
use crate::gauge::Gauged;
use crate::link::{LinkPlan, Peer};
use crate::local::{LocalFound, LocalTarget, LocalTree, is_contents};
use crate::route::{Start, sum};
use crate::spare::{Damage, Repair, Spare};
use crate::tree::{Step, Tree, Way};
use crate::{ClientError, FileReport, Options, Place, Shown, Summary, Update, UsageError};

/// Brings what is at `destination` up to date with `sources`, files and directories of this machine.
///
/// Several sources need a directory as destination. A destination on this machine is written by a session in this
/// process. Cancelling ends the transfers in order within two seconds; what was published stays.
///
/// A directory goes with all that is in it: files, directories and symbolic links as such, with their permissions and
/// times. It becomes the destination itself, or one of its name in a destination that ends in `/` or takes several
/// sources; `dir/` means what is in it, and becomes the destination itself. What only the destination has stays, unless
/// [`Options::tree`] says otherwise, and only what that says takes part. What cannot be transferred, or has
/// failed by itself, is told in [`FileReport::tree`]; all else is done.
///
/// A connection that cannot be made or is lost is made again, see [`Options::retries`]. A transfer that had not ended is
/// then asked again, also where the server had published it and only its last word was lost: it ends as being there
/// already. What it may replace is said by [`Options::condition`], for a single source. Without one, a version that
/// another writer publishes meanwhile is replaced too, and [`FileReport::replaced`] tells of it; with one, the transfer ends
/// with [`ClientError::Conflict`] where it does not hold.
///
/// # Errors
///
/// [`ClientError::Usage`] or [`ClientError::File`] when a source or the destination cannot be used, there is a
/// condition and more than one source, or a pattern means nothing; nothing has begun then. What goes wrong later
/// stands in the summary, so that it tells of every file.
pub async fn push(
    sources: &[PathBuf],
    destination: &Place,
    options: &Options,
    cancel: &CancellationToken,
    report: impl FnMut(Update),
) -> Result<Summary, ClientError> {
    let begun = Instant::now();
    let plan = plan_push(sources, destination, options)?;
    Ok(run(plan, options, cancel, report, begun).await)
}

/// What a push has to do.
pub(crate) fn plan_push(sources: &[PathBuf], destination: &Place, options: &Options) -> Result<Plan, ClientError> {
    let several = sources.len() > 1;
    check_condition(options, sources.len())?;
    let found = sources.iter().map(|source| LocalFound::find(source)).collect::<Result<Vec<_>, _>>()?;
    let has_tree = found.iter().any(|found| matches!(found, LocalFound::Tree(_)));
    check_for_trees(options, has_tree)?;
    let into = several || goes_into(destination);
    let (peer, path, directory) = match destination {
        Place::Remote(place) => (Peer::Server(place.server.clone()), place.path.clone(), into),
        Place::Local(path) => {
            let is_contents = matches!(&found[..], [LocalFound::Tree(LocalTree { name: None, .. })]);
            let is_itself = is_contents || !into;
            let target = LocalTarget::find(path, several || has_tree)?.in_parent(options.tree.atomic && is_itself);
            (Peer::Directory(target.root), target.path, target.directory)
        }
    };
    let mut reports = Reports::new(destination);
    let (mut trees, walks) = (BTreeMap::new(), Walks::default());
    let mut roots: Vec<PathBuf> = Vec::new();
    let mut commands = Vec::with_capacity(found.len());
    for (number, (source, found)) in sources.iter().zip(found).enumerate() {
        let shown = Shown::path(source).to_string();
        match found {
            LocalFound::File(file) => {
                reports.add(&shown, Some(&file.name).filter(|_| directory))?;
                let source = StoragePlace { root: root_id(&mut roots, file.root), path: file.path };
                let (path, condition) = (path.clone(), options.condition);
                commands.push((number, Command::Push { source, path, name: file.name, directory, condition }));
            }
            LocalFound::Tree(tree) => {
                let name = name_in(&shown, tree.name.as_ref(), into, several)?;
                let target = reports.add(&shown, name)?;
                let path = join(&shown, &path, name)?;
                check_apart(&shown, &tree.root, &target, &peer, &path)?;
                let directory = tree.root.clone();
                let source = StoragePlace { root: root_id(&mut roots, tree.root), path: RelPath::ROOT };
                let way = Way::Push { source, directory, path };
                let mut tree = Tree::new(number, way, options, walks.clone(), (shown, target));
                commands.push(tree.begin());
                trees.insert(number, tree);
            }
        }
    }
    let files = reports.finish()?;
    // Both files of a push within this machine are at hand.
    let known = match (&peer, &options.state) {
        (Peer::Server(server), Some(state)) => Some(state.of(server)),
        (Peer::Directory(_), _) | (_, None) => None,
    };
    let batches = vec![Batch { link: LinkPlan { peer, roots, known, walks }, commands }];
    Ok(Plan { verb: Verb::Push, files, batches, spares: BTreeMap::new(), trees })
}

/// Brings what this machine has at `destination` up to date with `sources`.
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
    let plan = plan_pull(sources, destination, options)?;
    let options = options.shared(plan.batches.len()).map_err(UsageError::Bandwidth)?;
    Ok(run(plan, &options, cancel, report, begun).await)
}

/// What a pull has to do.
pub(crate) fn plan_pull(sources: &[Place], destination: &Path, options: &Options) -> Result<Plan, ClientError> {
    let several = sources.len() > 1;
    check_condition(options, sources.len())?;
    let found = sources.iter().map(|source| Pulled::find(source, options)).collect::<Result<Vec<_>, _>>()?;
    let has_tree = found.iter().any(|found| found.is == Is::Tree);
    check_for_trees(options, has_tree)?;
    let place = Place::Local(destination.to_owned());
    let into = several || goes_into(&place);
    let is_itself = !into || matches!(&found[..], [Pulled { name: None, .. }]);
    let target = LocalTarget::find(destination, several || has_tree)?.in_parent(options.tree.atomic && is_itself);
    let mut reports = Reports::new(&place);
    let mut batches: Vec<Batch> = Vec::new();
    let (mut spares, mut trees) = (BTreeMap::new(), BTreeMap::new());
    // All links write to one directory.
    let walks = Walks::default();
    for (number, (source, found)) in sources.iter().zip(found).enumerate() {
        let shown = source.to_string();
        let Pulled { peer, path, name, is } = found;
        let mut tree = None;
        if is != Is::File {
            let name = name_in(&shown, name.as_ref(), into, several)?;
            let at = StoragePlace { root: RootId::new(0), path: join(&shown, &target.path, name)? };
            let to = reports.target(&shown, name)?;
            if let Peer::Directory(root) = &peer {
                check_apart(&shown, root, &to, &Peer::Directory(target.root.clone()), &at.path)?;
            }
            let way = Way::Pull { path: path.clone(), place: at };
            tree = Some(Tree::new(number, way, options, walks.clone(), (shown.clone(), to)));
        }
        let command = match (is, &mut tree, name) {
            (Is::Tree, Some(tree), name) => {
                reports.add(&shown, name_in(&shown, name.as_ref(), into, several)?)?;
                tree.begin()
            }
            (_, _, name) => {
                let name = name.ok_or_else(|| UsageError::SourceDirectory(shown.clone()))?;
                reports.add(&shown, Some(&name).filter(|_| target.directory))?;
                let place = StoragePlace { root: RootId::new(0), path: target.path.clone() };
                let destination = Destination { place, name, directory: target.directory };
                let spare = Spare {
                    peer: peer.clone(),
                    remote: path.clone(),
                    root: target.root.clone(),
                    target: destination.clone(),
                    condition: options.condition,
                };
                spares.insert(number, spare);
                (number, Command::Pull { path, destination, condition: options.condition })
            }
        };
        trees.extend(tree.map(|tree| (number, tree)));
        match batches.iter_mut().find(|batch| batch.link.peer == peer) {
            Some(batch) => batch.commands.push(command),
            None => {
                let link = LinkPlan { peer, roots: vec![target.root.clone()], known: None, walks: walks.clone() };
                batches.push(Batch { link, commands: vec![command] });
            }
        }
    }
    Ok(Plan { verb: Verb::Pull, files: reports.finish()?, batches, spares, trees })
}

/// A source of a pull.
struct Pulled {
    peer: Peer,
    path: RelPath,
    /// `None` where the contents of a directory are meant.
    name: Option<Name>,
    is: Is,
}

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    File,
    Tree,
    /// Only the server knows.
    Either,
}

impl Pulled {
    fn find(source: &Place, options: &Options) -> Result<Self, ClientError> {
        Ok(match source {
            Place::Remote(place) => {
                let (peer, path) = (Peer::Server(place.server.clone()), place.path.clone());
                let name = place.name().filter(|_| !place.directory);
                // Where something is to be deleted, or to take no part, a tree is meant.
                let is_tree =
                    name.is_none() || options.tree.extra != Extra::Keep || !options.tree.scope.filter.is_empty();
                let is = if is_tree { Is::Tree } else { Is::Either };
                Self { peer, path, name, is }
            }
            Place::Local(path) => match LocalFound::find(path)? {
                LocalFound::File(file) => {
                    Self { peer: Peer::Directory(file.root), path: file.path, name: Some(file.name), is: Is::File }
                }
                LocalFound::Tree(tree) => {
                    Self { peer: Peer::Directory(tree.root), path: RelPath::ROOT, name: tree.name, is: Is::Tree }
                }
            },
        })
    }
}

/// What is said of directories means nothing without any, and what is said must mean something.
fn check_for_trees(options: &Options, has_tree: bool) -> Result<(), UsageError> {
    let TreeOptions { extra, scope, .. } = &options.tree;
    if *extra != Extra::Keep && !has_tree {
        return Err(UsageError::DeleteForFiles);
    }
    if !scope.filter.is_empty() && !has_tree {
        return Err(UsageError::FilterForFiles);
    }
    Ok(check_filter(&scope.filter)?)
}

fn check_condition(options: &Options, sources: usize) -> Result<(), UsageError> {
    if options.condition != Condition::Any && sources > 1 {
        return Err(UsageError::ConditionOfSeveral(sources));
    }
    Ok(())
}

/// Whether a destination written like this takes directories by their names.
fn goes_into(destination: &Place) -> bool {
    match destination {
        Place::Remote(place) => place.directory,
        Place::Local(path) => is_contents(path),
    }
}

/// The name under which a directory goes into the destination; `None` when it becomes the destination itself.
fn name_in<'a>(
    source: &str,
    name: Option<&'a Name>,
    into: bool,
    several: bool,
) -> Result<Option<&'a Name>, UsageError> {
    match name {
        None if several => Err(UsageError::ContentsOfSeveral(source.to_owned())),
        name => Ok(name.filter(|_| into)),
    }
}

fn join(source: &str, path: &RelPath, name: Option<&Name>) -> Result<RelPath, UsageError> {
    let invalid = |cause| UsageError::Path { path: source.to_owned(), cause };
    name.map_or_else(|| Ok(path.clone()), |name| path.join(name).map_err(invalid))
}

/// A directory of this machine cannot be transferred into itself, nor replaced by a part of itself.
fn check_apart(source: &str, from: &Path, target: &str, peer: &Peer, path: &RelPath) -> Result<(), UsageError> {
    let Peer::Directory(root) = peer else { return Ok(()) };
    let to = if path.is_root() { root.clone() } else { root.join(OsStr::from_bytes(path.as_bytes())) };
    // What is there may be reached by a link.
    let to = to.canonicalize().unwrap_or(to);
    if to.starts_with(from) || from.starts_with(&to) {
        return Err(UsageError::Nested { source_dir: source.to_owned(), target: target.to_owned() });
    }
    Ok(())
}

fn root_id(roots: &mut Vec<PathBuf>, root: PathBuf) -> RootId {
    let index = roots.iter().position(|other| *other == root).unwrap_or_else(|| {
        roots.push(root);
        roots.len() - 1
    });
    RootId::new(u32::try_from(index).expect("fewer sources than 2^32"))
}

/// A report for each source, with where it goes as far as that is known here.
struct Reports<'a> {
    destination: &'a Place,
    /// What goes to each name in the destination.
    taken: BTreeMap<Name, String>,
    reports: Vec<FileReport>,
}

impl<'a> Reports<'a> {
    fn new(destination: &'a Place) -> Self {
        Self { destination, taken: BTreeMap::new(), reports: Vec::new() }
    }

    /// Adds a source that goes to the destination itself, or into it by a name; the answer is where that is.
    fn add(&mut self, source: &str, name: Option<&Name>) -> Result<String, UsageError> {
        let target = self.target(source, name)?;
        if let Some(name) = name
            && let Some(first) = self.taken.insert(name.clone(), source.to_owned())
        {
            return Err(UsageError::Collision { first, second: source.to_owned(), target });
        }
        self.reports.push(FileReport::new(source.to_owned(), target.clone()));
        Ok(target)
    }

    fn target(&self, source: &str, name: Option<&Name>) -> Result<String, UsageError> {
        let destination = self.destination;
        let Some(name) = name else { return Ok(destination.to_string()) };
        Ok(match destination {
            Place::Local(path) => {
                let slash = if path.as_os_str().as_bytes().ends_with(b"/") { "" } else { "/" };
                format!("{destination}{slash}{}", Shown(name.as_bytes()))
            }
            Place::Remote(place) => {
                let joined = place.join(name);
                joined.map_err(|cause| UsageError::Path { path: source.to_owned(), cause })?.to_string()
            }
        })
    }

    fn finish(self) -> Result<Vec<FileReport>, UsageError> {
        if self.reports.is_empty() { Err(UsageError::NoSource) } else { Ok(self.reports) }
    }
}

/// What a verb has to do.
pub(crate) struct Plan {
    pub(crate) verb: Verb,
    /// The reports of all sources, whose numbers are those of their transfers.
    pub(crate) files: Vec<FileReport>,
    pub(crate) batches: Vec<Batch>,
    spares: BTreeMap<usize, Spare>,
    /// The sources that are trees, or may turn out to be.
    pub(crate) trees: BTreeMap<usize, Tree>,
}

/// The sources while their transfers run.
struct Running<'a> {
    files: Vec<FileReport>,
    spares: &'a BTreeMap<usize, Spare>,
    trees: BTreeMap<usize, Tree>,
    /// The source that each transfer of a tree's member belongs to, by the number of the transfer; `next` is free.
    owners: BTreeMap<usize, usize>,
    next: usize,
    damages: Vec<Damage>,
}

impl Running<'_> {
    fn on(&mut self, update: Update, report: &mut impl FnMut(Update)) -> Start {
        let Update::File { index: number, kind } = update else {
            self.trees.values_mut().filter(|tree| tree.has_begun()).for_each(|tree| tree.look(report));
            report(update);
            return Vec::new();
        };
        let index = self.owners.get(&number).copied().unwrap_or(number);
        match self.trees.get_mut(&index) {
            Some(tree) if tree.has_begun() => return self.on_tree(index, number, kind, report),
            Some(tree) => {
                if let Some(command) = tree.begin_after(&kind) {
                    return vec![command];
                }
            }
            None => {}
        }
        if let Some(damage) = self.spares.get(&index).and_then(|_| Damage::of(index, &kind)) {
            // It is not over yet.
            self.damages.push(damage);
            return Vec::new();
        }
        self.files[index].take(&kind);
        report(Update::File { index, kind });
        Vec::new()
    }

    fn on_tree(&mut self, index: usize, number: usize, kind: EventKind, report: &mut impl FnMut(Update)) -> Start {
        let Some(tree) = self.trees.get_mut(&index) else { return Vec::new() };
        let file = &mut self.files[index];
        match &kind {
            EventKind::Conflict { .. } => file.take(&kind),
            EventKind::Ended(_) => drop(self.owners.remove(&number)),
            _ => {}
        }
        match tree.take(number, kind, &mut self.next, report) {
            Step::Start(start) => {
                self.owners.extend(start.iter().map(|(number, _)| (*number, index)));
                start
            }
            Step::Ended(result) => {
                if let Some(tree) = self.trees.remove(&index) {
                    let (target, tree) = tree.into_report();
                    (file.target, file.tree) = (target, Some(tree));
                }
                let kind = EventKind::Ended(result);
                file.take(&kind);
                report(Update::File { index, kind });
                Vec::new()
            }
        }
    }
}

async fn run(
    plan: Plan,
    options: &Options,
    cancel: &CancellationToken,
    report: impl FnMut(Update),
    begun: Instant,
) -> Summary {
    let Plan { verb, files, batches, spares, trees } = plan;
    let (owners, next, damages) = (BTreeMap::new(), files.len(), Vec::new());
    let mut gauged = Gauged::new(files.len(), begun, report);
    let mut report = |update| gauged.update(update);
    let mut running = Running { files, spares: &spares, trees, owners, next, damages };
    let on = |update| running.on(update, &mut report);
    let Exchanged { mut carried, mut retried, mut failures } = exchange(batches, options, cancel, on).await;
    let Running { mut files, damages, .. } = running;
    for damage in damages {
        let (index, spare) = (damage.index, &spares[&damage.index]);
        let whole = spare.is_whole(&damage, options.config.algorithm, cancel).await;
        let mut step = whole.then_some(Repair::Push(damage.published()));
        let mut ended = Err(damage.error());
        let mut pushed = false;
        while let Some(now) = step {
            let on = |mut update: Update| {
                match &mut update {
                    Update::File { kind: EventKind::Ended(result), .. } => {
                        ended = result.clone();
                        return Vec::new();
                    }
                    Update::Carried(stats) => *stats = sum(carried, *stats),
                    _ => {}
                }
                report(update);
                Vec::new()
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
    gauged.finish();
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
