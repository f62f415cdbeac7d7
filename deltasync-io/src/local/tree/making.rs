//! A directory that becomes what an archive says, entry by entry.
//!
//! Whole entries that are copied from the tree that is there need nothing. Of all others the bytes come, are read back as
//! entries, and each is made at once: a directory, a symbolic link, or a file, written beside its place under a hidden
//! name, with its permissions and time, and put in place by a rename when its data is durable. Many share one sync, but what
//! comes slowly does not wait for others. What is replaced must look as it was listed: what somebody has changed meanwhile
//! stays, and is named.
//!
//! The commit is `committing`; what is made by then of files that are in place already is `linking`.
//!
//! What the filter of the tree that is there excludes is never taken away, and neither is a directory that holds some of it.
//! What the sender wants in its place comes there: the two ends may have other ignore files.
//!
//! Nothing is changed in place of a file that has several names: what that is to be gets a file of its own.
//!
//! Invariant: each file is the old one or the new one, whole, at any moment, and what is not of this tree is not touched.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use deltasync_core::{
    Algorithm, ArchiveReader, ArchivedEntry, Attributes, ByteLen, Digest, InvalidTree, LimitExceeded, Limits, Name,
    Offset, Plan, RelPath, Step, TreeEntry, TreeKind, TreeList, TreeLister,
};
use deltasync_proto::{Extra, FaultKind, Place, StorageFault, TreeOptions};

use super::copies::{Changed, Taken, remove_all};
use super::filtering::Excluded;
use super::{Left, Tree, TreeMember, below, looks_like, mode_of};
use crate::disk::{DiskKind, DiskStat};
use crate::fault::{fault, system_fault};
use crate::local::root::{Dir, Root, Trouble, staged_name};
use crate::lock::lock;

mod committing;
mod linking;
pub(super) use committing::make_durable;

/// What a [`StageHandle`](deltasync_proto::StageHandle) of ours holds for a tree.
#[derive(Debug)]
pub(in crate::local) struct Making {
    place: Place,
    len: u64,
    algorithm: Algorithm,
    extra: Extra,
    /// Entries tell extended attributes.
    xattrs: bool,
    /// What was there when it began.
    there: Option<Arc<TreeList>>,
    /// What is there and takes no part.
    excluded: Arc<Excluded>,
    /// The copy of what is there that all is made in, where it becomes visible as one change.
    copy: Option<Taken>,
    /// Held while what is there is changed file by file.
    changed: Option<Changed>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    reader: ArchiveReader,
    /// What came; `None` once it was made a list.
    lister: Option<TreeLister>,
    made: Option<Arc<TreeList>>,
    /// How many bytes of the archive have been appended.
    written: u64,
    /// How many entries came.
    entries: usize,
    /// How many of them are hard links.
    links: usize,
    /// How many of them were files with their content.
    files: u64,
    /// Those whose content is not right, or that could not be made.
    blank: BTreeSet<usize>,
    /// Those that are what was there.
    as_before: BTreeSet<usize>,
    /// What an earlier attempt has left in the copy that it is made in, as far as something is taken from that.
    left: Option<Arc<TreeList>>,
    /// How many entries were taken away to make way.
    deleted: u64,
    /// The content of one of them was not what its check says.
    mistaken: bool,
    /// Those that are to be fetched.
    members: Vec<TreeMember>,
    /// Where members are of which the header came: each has a transfer of its own, beside this one or after it.
    beside: Vec<RelPath>,
    trouble: Vec<String>,
    troubles: u64,
    /// Files that wait to be put in place.
    ready: Vec<Ready>,
    ready_bytes: usize,
    /// When files were last put in place, or it began.
    put: Instant,
    /// The directory that was used last.
    last: Option<(RelPath, Arc<Dir>)>,
    /// Directories in which something was made or taken away.
    touched: BTreeSet<RelPath>,
    /// What directories are to get that came.
    directories: Vec<(RelPath, Attributes)>,
    ended: bool,
}

/// A file under a hidden name.
#[derive(Debug)]
struct Ready {
    dir: Arc<Dir>,
    hidden: Name,
    name: Name,
    entry: usize,
    path: RelPath,
}

impl Ready {
    /// It is not put in place.
    fn give_up(&self) {
        // There is nobody to tell of a failure here; the name is hidden.
        let _ = self.dir.remove(&self.hidden);
    }
}

/// What a list says of the place of an entry.
fn listed_in(list: &TreeList, entry: &TreeEntry) -> Option<TreeEntry> {
    Some(list.entry(list.find(&entry.path)?))
}

/// Makes the data of files durable, all at once where they are many.
fn sync(ready: &[Ready]) -> io::Result<()> {
    if let Some(first) = ready.first()
        && ready.len() >= DISK
        && first.dir.sync_disk()?
    {
        return Ok(());
    }
    ready.iter().try_for_each(|ready| ready.dir.open_file(&ready.hidden)?.sync_data())
}

/// So many files, or bytes of them, share a sync at most.
const TOGETHER: (usize, usize) = (512, 16 << 20);
/// What comes slowly is put in place so often, for a transfer that is cut goes on from what is in place.
const APART: Duration = Duration::from_secs(1);
/// From so many files or directories on a sync of the whole disk costs less than one for each.
const DISK: usize = 8;
/// How many troubles are told.
const TOLD: usize = 5;
/// How often a hidden name is looked for.
const TRIES: u32 = 8;

impl Making {
    /// Begins to make of what is at a place what an archive of `len` bytes will say.
    pub(in crate::local) fn begin(
        root: &Root,
        place: Place,
        (len, algorithm): (ByteLen, Algorithm),
        there: Option<&Tree>,
        options: &TreeOptions,
        limits: &Limits,
    ) -> Result<Self, StorageFault> {
        LimitExceeded::check("archive of a tree", len.get(), limits.file.get())
            .map_err(|error| fault(FaultKind::TooLarge, &place.path, error))?;
        root.make_directory(&place.path).map_err(|trouble| trouble.at(&place.path))?;
        let state = Mutex::new(State {
            reader: ArchiveReader::default(),
            lister: Some(TreeLister::new(algorithm, limits)),
            made: None,
            written: 0,
            entries: 0,
            links: 0,
            files: 0,
            blank: BTreeSet::new(),
            as_before: BTreeSet::new(),
            left: None,
            deleted: 0,
            mistaken: false,
            members: Vec::new(),
            beside: Vec::new(),
            trouble: Vec::new(),
            troubles: 0,
            ready: Vec::new(),
            ready_bytes: 0,
            put: Instant::now(),
            last: None,
            touched: BTreeSet::new(),
            directories: Vec::new(),
            ended: false,
        });
        let (there, excluded) = there.map(|tree| (Arc::clone(&tree.list), Arc::clone(&tree.excluded))).unzip();
        let excluded = excluded.unwrap_or_default();
        let (extra, xattrs, copy, changed) = (options.extra, options.scope.xattrs, None, None);
        Ok(Self { place, len: len.get(), algorithm, extra, xattrs, there, excluded, copy, changed, state })
    }

    /// Begins to make it in a copy of what is at the place, of which that takes the place at the commit.
    pub(super) fn begin_in(
        copy: Taken,
        place: Place,
        target: (ByteLen, Algorithm),
        there: Option<&Tree>,
        options: &TreeOptions,
        limits: &Limits,
    ) -> Result<Self, StorageFault> {
        let mut making = Self::begin(copy.root(), place, target, there, options, limits)?;
        making.copy = Some(copy);
        Ok(making)
    }

    /// What earlier transfers have left where it is made is removed first.
    pub(super) fn sweeping(mut self, root: &Root, there: Option<&Tree>) -> Self {
        if let (Some(there), Ok(state)) = (there, self.state.get_mut()) {
            state.touched.extend(there.leftovers.sweep(root, &self.place));
        }
        self
    }

    /// As long as it lives nothing takes the place of the directories that it changes.
    pub(super) fn holding(mut self, changed: Changed) -> Self {
        self.changed = Some(changed);
        self
    }

    /// The copy that it is made in.
    pub(super) fn made_in(&self) -> Option<&Taken> {
        self.copy.as_ref()
    }

    /// Where the tree is.
    pub(in crate::local) fn place(&self) -> &Place {
        &self.place
    }

    /// Where members come beside it, to where they stay: about how many bytes it takes to wait for them.
    pub(super) fn waits_for_members(&self) -> Option<ByteLen> {
        let state = lock(&self.state);
        let lists = [&state.made, &self.there].into_iter().flatten();
        let entries: u64 = lists.map(|list| list.len() as u64).sum();
        let waits = self.copy.is_none() && !state.beside.is_empty();
        waits.then_some(ByteLen::new(entries * TreeList::ENTRY_MEMORY))
    }

    /// The members that are to be fetched.
    pub(super) fn members(&self) -> Vec<TreeMember> {
        lock(&self.state).members.clone()
    }

    /// How many files came with the tree.
    pub(super) fn files(&self) -> u64 {
        lock(&self.state).files
    }

    /// Appends the steps of a plan.
    pub(in crate::local) fn apply(
        &self,
        root: &Root,
        basis: Option<&Tree>,
        plan: &Plan,
        literals: &[u8],
    ) -> Result<(), StorageFault> {
        let mut state = self.open()?;
        if let Some(left) = basis.filter(|basis| basis.place.root.is_beside()) {
            state.left = Some(Arc::clone(&left.list));
        }
        for step in plan.steps() {
            let len = step.len().get();
            match *step {
                Step::Literal { start, len } => {
                    let part = start.checked_add(len).and_then(|end| literals.get(start..end));
                    let part = part.ok_or_else(|| self.fault("fewer literals than the plan has"))?;
                    self.take(&mut state, root, part)?;
                }
                Step::Copy { from, .. } => {
                    let basis = basis.ok_or_else(|| self.fault("there is nothing to copy from"))?;
                    self.copy(&mut state, root, basis, from.get(), len)?;
                }
            }
            state.written += len;
        }
        if !state.ready.is_empty() && state.put.elapsed() >= APART {
            self.put_in_place(&mut state)?;
        }
        Ok(())
    }

    /// The digest of the list that was made, or of nothing that any list has when a content is not right.
    pub(in crate::local) fn seal(&self) -> Result<Digest, StorageFault> {
        let mut state = self.open()?;
        self.put_in_place(&mut state)?;
        if state.written != self.len || !state.reader.is_between() {
            return Err(self.fault(format_args!("{} of {} bytes are there", state.written, self.len)));
        }
        let list = state.made();
        let digest = list.chunks().root();
        Ok(if state.mistaken { self.algorithm.digest(digest.as_bytes()) } else { digest })
    }

    /// What was made so far, to be read.
    pub(in crate::local) fn reopen(&self) -> Result<Tree, StorageFault> {
        let mut state = self.open()?;
        self.put_in_place(&mut state)?;
        let list = state.made();
        let members = state.members.iter().map(|member| (&member.path, Left::Member(member.clone())));
        let touched = state.touched.iter().chain(state.directories.iter().map(|(path, _)| path));
        let left = members.chain(touched.map(|path| (path, Left::Directory)));
        let left = left.filter_map(|(path, left)| Some((list.find(path)?, left))).collect();
        Ok(Tree { blank: state.blank.clone(), left, ..Tree::new(self.place.clone(), list) })
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, StorageFault> {
        let state = lock(&self.state);
        if state.ended { Err(self.fault("a commit of it was tried before")) } else { Ok(state) }
    }

    fn fault(&self, what: impl std::fmt::Display) -> StorageFault {
        fault(FaultKind::Other, &self.place.path, what)
    }

    fn damaged(&self, error: &InvalidTree) -> StorageFault {
        let kind = if matches!(error, InvalidTree::Limit(_)) { FaultKind::TooLarge } else { FaultKind::Other };
        fault(kind, &self.place.path, error)
    }

    /// Copies a part of the archive of a tree that is there: whole entries stay as they are.
    fn copy(&self, state: &mut State, root: &Root, basis: &Tree, mut from: u64, len: u64) -> Result<(), StorageFault> {
        let outside = || self.fault("a copy from outside of the tree");
        let end = from.checked_add(len).filter(|end| *end <= basis.list.chunks().len().get()).ok_or_else(outside)?;
        while from < end {
            let index = basis.list.index_at(Offset::new(from));
            let (start, len) = basis.list.span(index);
            let stop = end.min(start.get() + len.get());
            let is_whole = start.get() == from && stop == start.get() + len.get() && !basis.blank.contains(&index);
            if is_whole && state.reader.is_between() {
                let entry = basis.list.entry(index);
                state.reader.pass(&entry).map_err(|error| self.damaged(&error))?;
                self.list(state, &entry)?;
                match basis.left.get(&index) {
                    Some(Left::Member(member)) => {
                        state.beside.push(member.path.clone());
                        state.members.push(member.clone());
                    }
                    Some(Left::Directory) => state.directories.push((entry.path, entry.attributes)),
                    None => {}
                }
                if self.copy.is_some() && !basis.place.root.is_beside() {
                    state.as_before.insert(state.entries - 1);
                }
            } else {
                let range = (Offset::new(from), ByteLen::new(stop - from));
                let bytes = basis.read(root, &[range])?;
                self.take(state, root, &bytes)?;
            }
            from = stop;
        }
        Ok(())
    }

    /// Takes in bytes of the archive, and makes the entries that are whole.
    fn take(&self, state: &mut State, root: &Root, bytes: &[u8]) -> Result<(), StorageFault> {
        // Held at once are a chunk and a piece, not all.
        for piece in bytes.chunks(256 << 10) {
            state.reader.push(piece);
            while let Some(archived) = state.reader.next().map_err(|error| self.damaged(&error))? {
                self.list(state, &archived.entry)?;
                let index = state.entries - 1;
                if !archived.is_whole {
                    state.mistaken = true;
                    state.blank.insert(index);
                    continue;
                }
                match self.make(state, root, index, &archived) {
                    Ok(()) => {}
                    Err(Failed::Here(what)) => {
                        state.blank.insert(index);
                        state.trouble(below(&self.place.path, &archived.entry.path).unwrap_or_default(), &what);
                    }
                    Err(Failed::All(fault)) => return Err(fault),
                }
            }
        }
        Ok(())
    }

    fn list(&self, state: &mut State, entry: &TreeEntry) -> Result<(), StorageFault> {
        let lister = state.lister.as_mut().ok_or_else(|| self.fault("it was made before"))?;
        lister.push(entry).map_err(|error| self.damaged(&error))?;
        state.entries += 1;
        state.links += usize::from(matches!(entry.kind, TreeKind::HardLink { .. }));
        Ok(())
    }

    /// Makes one entry.
    fn make(&self, state: &mut State, root: &Root, index: usize, archived: &ArchivedEntry) -> Result<(), Failed> {
        let ArchivedEntry { entry, content, .. } = archived;
        let Some((parent, name)) = entry.path.split_last() else {
            state.directories.push((RelPath::ROOT, entry.attributes));
            return Ok(());
        };
        // From here on only names are used, and those that are ours do not exist for peers.
        if root.hides(&below(&self.place.path, &parent).map_err(Failed::All)?, name.as_bytes()) {
            return Err(Failed::Here("a name of this form is reserved".to_owned()));
        }
        let dir = self.directory(state, root, &parent)?;
        let is = dir.stat(&name)?;
        match &entry.kind {
            TreeKind::Directory => {
                if !is_directory(is) {
                    if let Some(is) = is {
                        self.check(entry, &is)?;
                        dir.remove(&name)?;
                    }
                    // The transfer of a file in it may have made it.
                    if !dir.make_dir_for_now(&name, 0o777)? && !is_directory(dir.stat(&name)?) {
                        return Err(Failed::Here("something has come to its place meanwhile".to_owned()));
                    }
                    state.touched.insert(parent);
                }
                state.directories.push((entry.path.clone(), entry.attributes));
            }
            TreeKind::File { .. } if entry.inline().is_none() => {
                let member = TreeMember::of(entry.clone()).expect("a file that is not inline");
                state.beside.push(member.path.clone());
                match is {
                    Some(is) if self.has_content(state, &is, entry) => self.adorn(state, root, entry, &is)?,
                    Some(is) if is.kind != DiskKind::File => {
                        self.make_way(state, root, entry, &dir, &name, &is)?;
                        // A transfer of its own replaces files only.
                        if is.kind != DiskKind::Directory {
                            dir.remove(&name)?;
                        }
                        state.touched.insert(parent);
                        state.members.push(member);
                    }
                    Some(_) | None => state.members.push(member),
                }
            }
            TreeKind::File { .. } => {
                if let Some(is) = &is {
                    self.make_way(state, root, entry, &dir, &name, is)?;
                }
                let (hidden, file) = hidden(&name, |hidden| dir.create(hidden, 0o600))?;
                let written = file
                    .write_all_at(content, 0)
                    .map_err(Failed::from)
                    .and_then(|()| self.set_xattrs_of_new(state, entry, &file))
                    .and_then(|()| Ok(file.set_mode(mode_of(entry.attributes, 0))?))
                    .and_then(|()| Ok(file.set_modified(entry.attributes.modified())?));
                if let Err(failed) = written {
                    let _ = dir.remove(&hidden);
                    return Err(failed);
                }
                state.touched.insert(parent);
                state.ready.push(Ready { dir, hidden, name, entry: index, path: entry.path.clone() });
                state.ready_bytes += content.len();
                state.files += 1;
                if state.ready.len() >= TOGETHER.0 || state.ready_bytes >= TOGETHER.1 {
                    self.put_in_place(state).map_err(Failed::All)?;
                }
            }
            // At the commit.
            TreeKind::HardLink { .. } => {}
            TreeKind::Symlink { target } => {
                if let Some(is) = &is {
                    if is.kind == DiskKind::Symlink && dir.read_symlink(&name)? == *target {
                        dir.set_symlink_modified(&name, entry.attributes.modified())?;
                        return Ok(());
                    }
                    self.make_way(state, root, entry, &dir, &name, is)?;
                }
                let (hidden, ()) = hidden(&name, |hidden| dir.make_symlink(hidden, target))?;
                let done = dir
                    .set_symlink_modified(&hidden, entry.attributes.modified())
                    .and_then(|()| dir.rename(&hidden, &dir, &name));
                if let Err(error) = done {
                    let _ = dir.remove(&hidden);
                    return Err(Failed::from(error));
                }
                state.touched.insert(parent);
            }
        }
        Ok(())
    }

    /// What is at a place may be replaced: it is what was listed, or what the tree wants there. A directory is taken away.
    fn make_way(
        &self,
        state: &mut State,
        root: &Root,
        entry: &TreeEntry,
        dir: &Dir,
        name: &Name,
        is: &DiskStat,
    ) -> Result<(), Failed> {
        if is.kind != DiskKind::Directory {
            return self.check(entry, is);
        }
        match dir.remove_dir(name) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => return Err(error.into()),
            Err(_) => {}
        }
        if self.excluded.covers(&entry.path) || self.excluded.are_in(&entry.path) {
            return Err(Failed::Here("a directory stands there that is excluded or holds what is".to_owned()));
        }
        let (Some(there), Some(allowed)) = (&self.there, self.allowed()) else {
            return Err(Failed::Here("a directory that is not empty stands there".to_owned()));
        };
        // All that was listed in it, the deepest first.
        let first = there.find(&entry.path).filter(|index| there.entry(*index).kind == TreeKind::Directory);
        let Some(first) = first else {
            return if self.copy.is_some() { Ok(remove_all(dir, name)?) } else { Err(changed()) };
        };
        let within = |index: &usize| entry.path.holds(&there.entry(*index).path);
        let end = (first + 1..there.len()).take_while(within).last().unwrap_or(first);
        state.deleted += (end + 1 - first) as u64;
        if state.deleted > allowed {
            let what = format!("{} entries of a directory would be deleted, over {allowed} in all", end + 1 - first);
            return Err(Failed::Here(what));
        }
        if self.copy.is_some() {
            return Ok(remove_all(dir, name)?);
        }
        for index in (first..=end).rev() {
            self.remove(state, root, &there.entry(index))?;
        }
        Ok(())
    }

    /// What stands at the place of an entry must be what was listed there, or what is wanted there.
    fn check(&self, entry: &TreeEntry, is: &DiskStat) -> Result<(), Failed> {
        // What it is copied from is looked at as a whole.
        if self.copy.is_some() {
            return Ok(());
        }
        let as_listed = self.listed(entry).is_some_and(|listed| looks_like(is, &listed));
        // How it looked is not known where it took no part here.
        let may = as_listed || looks_like(is, entry) || self.excluded.covers(&entry.path);
        if may { Ok(()) } else { Err(changed()) }
    }

    /// What was listed at the place of an entry.
    fn listed(&self, entry: &TreeEntry) -> Option<TreeEntry> {
        listed_in(self.there.as_deref()?, entry)
    }

    /// Makes the data of files durable that wait, and puts them in place.
    fn put_in_place(&self, state: &mut State) -> Result<(), StorageFault> {
        let ready = std::mem::take(&mut state.ready);
        state.ready_bytes = 0;
        state.put = Instant::now();
        if let Err(error) = sync(&ready) {
            ready.iter().for_each(Ready::give_up);
            return Err(system_fault(&self.place.path, &error));
        }
        for (index, next) in ready.iter().enumerate() {
            match next.dir.rename(&next.hidden, &next.dir, &next.name).map_err(Failed::from) {
                Ok(()) => {}
                Err(Failed::All(fault)) => {
                    ready[index..].iter().for_each(Ready::give_up);
                    return Err(fault);
                }
                Err(Failed::Here(what)) => {
                    next.give_up();
                    state.blank.insert(next.entry);
                    state.trouble(below(&self.place.path, &next.path)?, &what);
                }
            }
        }
        Ok(())
    }

    /// A directory of the tree.
    fn directory(&self, state: &mut State, root: &Root, path: &RelPath) -> Result<Arc<Dir>, Failed> {
        if let Some((_, dir)) = state.last.as_ref().filter(|(last, _)| last == path) {
            return Ok(Arc::clone(dir));
        }
        let at = below(&self.place.path, path).map_err(Failed::All)?;
        let dir = match (root.directory(&at), &self.copy) {
            (Ok(dir), _) => Arc::new(dir),
            (Err(_), Some(copy)) => Arc::new(copy.make_directory(path).map_err(Failed::All)?),
            (Err(trouble), None) => return Err(trouble.into()),
        };
        state.last = Some((path.clone(), Arc::clone(&dir)));
        Ok(dir)
    }
}

impl State {
    /// The list of what came, which is all: nothing is listed after that.
    fn made(&mut self) -> Arc<TreeList> {
        if let Some(lister) = self.lister.take() {
            self.made = Some(Arc::new(lister.finish()));
        }
        self.made.clone().expect("there is either a lister or its list")
    }

    fn trouble(&mut self, path: RelPath, what: &str) {
        self.troubles += 1;
        if self.trouble.len() < TOLD {
            self.trouble.push(format!("{path}: {what}"));
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        lock(&self.state).ready.iter().for_each(Ready::give_up);
    }
}

/// Why something could not be made.
enum Failed {
    /// The rest can.
    Here(String),
    /// And neither can the rest.
    All(StorageFault),
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::System(error) => error.into(),
            other => Self::Here(other.to_string()),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem => {
                Self::All(system_fault(&RelPath::ROOT, &error))
            }
            _ => Self::Here(error.to_string()),
        }
    }
}

fn is_directory(is: Option<DiskStat>) -> bool {
    is.is_some_and(|is| is.kind == DiskKind::Directory)
}

fn changed() -> Failed {
    Failed::Here("changed meanwhile".to_owned())
}

/// Makes something under a hidden name that is not taken.
pub(super) fn hidden<T>(name: &Name, make: impl Fn(&Name) -> io::Result<T>) -> io::Result<(Name, T)> {
    let mut last = None;
    for _ in 0..TRIES {
        let hidden = staged_name(name, getrandom::u32().map_err(io::Error::from)?);
        match make(&hidden) {
            Ok(made) => return Ok((hidden, made)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| ErrorKind::AlreadyExists.into()))
}
