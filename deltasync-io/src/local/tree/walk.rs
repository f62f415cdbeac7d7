//! The list of a tree: its directories are read one after the other, each sorted, and no file is opened unless more is asked
//! of it than a name tells.
//!
//! A filter leaves out entries with all that is in them; only ignore files are read then. Of several names of one file the
//! first that is met counts as that, where hard links are asked for, and the others as links to it, of which the same is
//! told, whatever has become of the file meanwhile.
//!
//! Memory: the list, what a filter has left out, the names that are left of the directories on the way, and the files that
//! have further names. At most [`HANDLES`] directories are open at a time; others are opened again when their turn comes.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use deltasync_core::{
    Algorithm, ByteLen, InvalidTree, LimitExceeded, Limits, Name, RelPath, TreeEntry, TreeKind, TreeLister,
};
use deltasync_proto::{FaultKind, Omitted, Place, Scope, StorageFault, Why};

use super::asking::{TOGETHER, Told, ask, is_asked_of};
use super::filtering::{Excluded, FILE_MAX, Filtering, IGNORE_FILES};
use super::leftovers::Leftovers;
use super::walks::Count;
use super::{MODE, Tree, attributes, below};
use crate::disk::{DiskKind, DiskStat};
use crate::fault::{fault, system_fault};
use crate::local::root::{Dir, Root, Trouble};

/// The permission bits of a file that all may read: it need not be asked for.
const READABLE: u32 = 0o444;
/// The same of a directory that all may list.
const LISTABLE: u32 = 0o555;
/// How many directories are held open.
const HANDLES: usize = 32;

/// Lists what is below a directory and takes part; `None` when nothing is there. Where `reads`, a file that may not be read
/// takes no part, and is named.
///
/// # Errors
///
/// A fault when something else stands there or on the way, that directory itself cannot be read, or a pattern means nothing; of
/// kind [`FaultKind::TooLarge`] when there are more entries than `limits` allow chunks, or matching them with
/// patterns takes too much.
pub(in crate::local) fn walk(
    root: &Root,
    place: &Place,
    scope: &Scope,
    algorithm: Algorithm,
    limits: &Limits,
    count: Option<Arc<Count>>,
    reads: bool,
) -> Result<Option<Tree>, StorageFault> {
    let start = match root.stat(&place.path) {
        Ok(Some(is)) if is.kind == DiskKind::Directory => is,
        Ok(None) => return Ok(None),
        Ok(Some(is)) => {
            let trouble = if is.kind == DiskKind::Symlink { Trouble::Symlink } else { Trouble::NotDirectory };
            return Err(trouble.at(&place.path));
        }
        Err(trouble) if trouble.is_absent() => return Ok(None),
        Err(trouble) => return Err(trouble.at(&place.path)),
    };
    let filtering = (!scope.filter.is_empty()).then(|| Filtering::begin(&scope.filter, &place.path)).transpose()?;
    let lister = TreeLister::new(algorithm, limits).headers_only(scope.headers_only);
    let (omitted, excluded) = (Vec::new(), Excluded::default());
    let (links, pending, leftovers) = (HashMap::new(), Vec::new(), Leftovers::default());
    let mut walk = Walk {
        root,
        place,
        limits,
        scope,
        algorithm,
        filtering,
        lister,
        links,
        pending,
        omitted,
        excluded,
        leftovers,
        count,
        reads,
    };
    walk.push(TreeEntry::new(RelPath::ROOT, TreeKind::Directory, attributes(&start)), None)?;
    let mut open = vec![walk.open(RelPath::ROOT, None)?];
    while let Some(level) = open.last_mut() {
        let Some(name) = level.names.pop() else {
            open.pop();
            continue;
        };
        let dir = match &level.dir {
            Some(dir) => dir,
            None => match walk.directory(&level.path) {
                Ok((_, dir)) => level.dir.insert(dir),
                Err(fault) => {
                    walk.lost(&level.path, fault)?;
                    open.pop();
                    continue;
                }
            },
        };
        let Some(next) = walk.entry(&level.path, dir, name)? else { continue };
        if let Some(above) = open.len().checked_sub(HANDLES) {
            open[above].dir = None;
        }
        open.push(next);
    }
    walk.list_pending()?;
    let Walk { lister, omitted, excluded, leftovers, .. } = walk;
    let (omitted, excluded) = (omitted.into(), Arc::new(excluded));
    Ok(Some(Tree { omitted, excluded, leftovers, ..Tree::new(place.clone(), Arc::new(lister.finish())) }))
}

struct Walk<'a> {
    root: &'a Root,
    place: &'a Place,
    limits: &'a Limits,
    scope: &'a Scope,
    algorithm: Algorithm,
    /// `None` where all takes part.
    filtering: Option<Filtering>,
    lister: TreeLister,
    /// Files that have names which were not met yet, by device and inode.
    links: HashMap<(u64, u64), Linked>,
    /// Entries of which more is asked, in order behind those that are listed, and which of all entries each is a link to.
    pending: Vec<(TreeEntry, Option<usize>)>,
    omitted: Vec<Omitted>,
    excluded: Excluded,
    leftovers: Leftovers,
    count: Option<Arc<Count>>,
    reads: bool,
}

/// A file that has several names.
struct Linked {
    /// Which entry the first one is.
    first: usize,
    /// How many names were not met yet.
    left: u64,
}

/// A directory on the way.
struct Level {
    path: RelPath,
    dir: Option<Dir>,
    /// The names that are still to be listed, the first one last.
    names: Vec<Name>,
}

impl Walk<'_> {
    fn omits(&mut self, path: &RelPath, why: Why) {
        self.omitted.push(Omitted { path: path.clone(), why });
    }

    /// A directory cannot be read, or not to its end. That is told unless it has gone since its name was read, or is something
    /// else now.
    fn lost(&mut self, path: &RelPath, fault: StorageFault) -> Result<(), StorageFault> {
        match fault.kind {
            FaultKind::NotFound | FaultKind::WrongKind => Ok(()),
            FaultKind::Denied | FaultKind::Other => {
                let shown = format!("{}: ", below(&self.place.path, path)?);
                let what = fault.message.strip_prefix(&shown).unwrap_or(&fault.message);
                self.omits(path, Why::Unlisted(what.to_owned()));
                Ok(())
            }
            _ => Err(fault),
        }
    }

    /// Lists one entry of a directory. The directory that it is, opened; one that cannot be is not listed.
    fn entry(&mut self, parent: &RelPath, dir: &Dir, name: Name) -> Result<Option<Level>, StorageFault> {
        let path = match parent.join(&name) {
            Ok(path) => path,
            Err(error) => {
                self.omits(parent, Why::NotKept(format!("{name}: {error}")));
                return Ok(None);
            }
        };
        let is = match dir.stat(&name) {
            Ok(Some(is)) => is,
            // It has gone since its name was read.
            Ok(None) => return Ok(None),
            Err(error) => {
                self.omits(&path, Why::Unlisted(error.to_string()));
                return Ok(None);
            }
        };
        if let Some(filtering) = &mut self.filtering
            && filtering.excludes(&path, is.kind == DiskKind::Directory)?
        {
            let excluded = self.excluded.push(path, self.limits.chunks);
            excluded.map_err(|error| fault(FaultKind::TooLarge, &self.place.path, error))?;
            return Ok(None);
        }
        let kind = match is.kind {
            DiskKind::Directory => TreeKind::Directory,
            DiskKind::File => TreeKind::File { len: ByteLen::new(is.len), root: None },
            DiskKind::Symlink => match dir.read_symlink(&name) {
                Ok(target) => TreeKind::Symlink { target },
                // It is gone, or something else now.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                    return Ok(None);
                }
                Err(error) => {
                    self.omits(&path, Why::Unlisted(error.to_string()));
                    return Ok(None);
                }
            },
            DiskKind::Other => {
                self.omits(&path, Why::NotKept("neither file, directory nor symbolic link".to_owned()));
                return Ok(None);
            }
        };
        let directory = is.kind == DiskKind::Directory;
        let asks = directory && is.mode & LISTABLE != LISTABLE
            || self.reads && is.kind == DiskKind::File && is.mode & READABLE != READABLE;
        if asks
            && let Err(error) = dir.may_read(&name, directory)
            && error.kind() == ErrorKind::PermissionDenied
        {
            self.omits(&path, Why::Unlisted(error.to_string()));
            return Ok(None);
        }
        let lost = is.mode & !MODE;
        if lost != 0 && kind != TreeKind::Directory {
            self.omits(&path, Why::NotKept(format!("its permission bits {lost:04o} are not kept")));
        }
        let mut next = None;
        if directory {
            match self.open(path.clone(), Some(dir)) {
                Ok(opened) => next = Some(opened),
                Err(fault) => {
                    self.lost(&path, fault)?;
                    return Ok(None);
                }
            }
        }
        let first = self.scope.hard_links.then(|| self.first_name(&is)).flatten();
        self.push(TreeEntry::new(path, kind, attributes(&is)), first)?;
        Ok(next)
    }

    /// Which entry is the first name of a file that is met by another one.
    fn first_name(&mut self, is: &DiskStat) -> Option<usize> {
        if is.kind != DiskKind::File || is.links < 2 {
            return None;
        }
        let key = (is.device, is.inode);
        let Some(linked) = self.links.get_mut(&key) else {
            let first = self.lister.len() + self.pending.len();
            self.links.insert(key, Linked { first, left: is.links - 1 });
            return None;
        };
        let first = linked.first;
        linked.left -= 1;
        if linked.left == 0 {
            self.links.remove(&key);
        }
        Some(first)
    }

    /// Takes in the next entry; `first` is the one that it is another name of.
    fn push(&mut self, entry: TreeEntry, first: Option<usize>) -> Result<(), StorageFault> {
        if self.pending.is_empty() && (first.is_some() || !is_asked_of(&entry.kind, self.scope)) {
            return self.list(entry, first, Told::default());
        }
        self.pending.push((entry, first));
        if self.pending.len() < TOGETHER { Ok(()) } else { self.list_pending() }
    }

    /// Lists those of which more is asked.
    fn list_pending(&mut self) -> Result<(), StorageFault> {
        let pending = std::mem::take(&mut self.pending);
        // A link tells what the first name does.
        let own: Vec<_> = pending.iter().filter(|(_, first)| first.is_none()).map(|(entry, _)| entry).collect();
        let mut told = ask(self.root, self.place, &own, self.scope, self.algorithm)?.into_iter();
        for (entry, first) in pending {
            let told = if first.is_none() { told.next() } else { None };
            self.list(entry, first, told.unwrap_or_default())?;
        }
        Ok(())
    }

    fn list(&mut self, mut entry: TreeEntry, first: Option<usize>, told: Told) -> Result<(), StorageFault> {
        if let Some(first) = first {
            let first = self.lister.entry(first);
            if let TreeKind::File { len, root } = first.kind {
                entry = TreeEntry { path: entry.path, kind: TreeKind::HardLink { to: first.path, len, root }, ..first };
            }
        } else if let TreeKind::File { root, .. } = &mut entry.kind {
            *root = told.root;
        }
        if first.is_none() {
            entry.xattrs = told.xattrs;
        }
        told.omitted.into_iter().for_each(|why| self.omits(&entry.path, why));
        if let Some(count) = &self.count {
            count.count(if let TreeKind::File { len, .. } = entry.kind { len.get() } else { 0 });
        }
        self.lister.push(&entry).map_err(|error| {
            let kind = if matches!(error, InvalidTree::Limit(_)) { FaultKind::TooLarge } else { FaultKind::Other };
            fault(kind, &self.place.path, error)
        })
    }

    fn directory(&self, path: &RelPath) -> Result<(RelPath, Dir), StorageFault> {
        let at = below(&self.place.path, path)?;
        let dir = self.root.directory(&at).map_err(|trouble| trouble.at(&at))?;
        Ok((at, dir))
    }

    /// A directory with its names, its ignore files read; `parent` is the one that it is in.
    fn open(&mut self, path: RelPath, parent: Option<&Dir>) -> Result<Level, StorageFault> {
        let (at, dir) = match parent.zip(path.split_last()) {
            Some((parent, (_, name))) => {
                let at = below(&self.place.path, &path)?;
                let dir = parent.open_dir(&name).map_err(|error| Trouble::from(error).at(&at))?;
                (at, dir)
            }
            None => self.directory(&path)?,
        };
        let leftovers = &mut self.leftovers;
        let shown = |name: &io::Result<Name>| {
            let Ok(name) = name else { return true };
            leftovers.meet(&path, name);
            !self.root.hides(&at, name.as_bytes())
        };
        let names = dir.names_as_opened().and_then(|names| names.filter(shown).collect::<io::Result<Vec<_>>>());
        let mut names = names.map_err(|error| system_fault(&at, &error))?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(filtering) = &mut self.filtering
            && names.iter().any(|name| filtering.reads(name))
        {
            let mut files = Vec::with_capacity(IGNORE_FILES.len());
            for name in IGNORE_FILES {
                files.push(ignore_file(self.root, &at.below(&file_name(name)).unwrap_or_default())?);
            }
            for (file, line, reason) in filtering.enter(&path, &files)? {
                let path = path.below(&file_name(IGNORE_FILES[file])).unwrap_or_default();
                self.omits(&path, Why::NotKept(format!("line {line} is no pattern: it {reason}")));
            }
        }
        Ok(Level { path, dir: Some(dir), names })
    }
}

fn file_name(name: &[u8]) -> RelPath {
    RelPath::new(name).expect("the name of an ignore file is a path")
}

/// What an ignore file says: nothing when there is none, or something else of its name.
fn ignore_file(root: &Root, path: &RelPath) -> Result<Vec<u8>, StorageFault> {
    let file = match root.file(path) {
        Ok(file) => file,
        Err(Trouble::System(error)) if error.kind() != ErrorKind::NotFound => return Err(system_fault(path, &error)),
        Err(_) => return Ok(Vec::new()),
    };
    let read = || {
        let len = file.stat()?.len;
        let mut bytes = vec![0; usize::try_from(len.min(FILE_MAX + 1)).expect("it is short")];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error: io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => fault(FaultKind::Changed, path, "changed while it was read"),
        _ => system_fault(path, &error),
    })?;
    LimitExceeded::check("bytes of an ignore file", bytes.len() as u64, FILE_MAX)
        .map_err(|error| fault(FaultKind::TooLarge, path, error))?;
    Ok(bytes)
}
