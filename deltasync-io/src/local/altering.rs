//! Which names there are, changed without a transfer: a directory is made, something gets another path, or is removed.
//!
//! All of it is durable before it is answered: the directories whose names have changed are synced, of two that one first into
//! which something moves, so that a power cut between the syncs leaves two names and never none. Nothing is ever replaced.
//!
//! Commits, renames and removals take turns, so that of a commit's look at its place and its rename none of these comes
//! between. A commit that has its directory open while that is moved finds that it is another one's by then, and fails; nor
//! are directories made in it on the way to a file meanwhile. One below which a tree is being made or replaced is not moved.
//!
//! What is removed with all that is in it goes name by name, deepest first, in a memory that does not grow with it: each
//! directory is opened anew beneath the one that goes, and no link is followed. What fails in the middle leaves the rest.
//! The turn is given back after each name. Until all is gone no directory in it can be moved out of it by us, since what is
//! in that would go too.
//!
//! What the index says of a path is forgotten with it. Of what gets another path nothing is said any more, until it is
//! published there; the chunk lists of files go by what they look like, and stay.

use std::io::{self, ErrorKind};
use std::sync::{Arc, MutexGuard};

use deltasync_core::{Name, RelPath};
use deltasync_proto::{Answer, FaultKind, Place, StorageFault};

use super::root::{Dir, Root, Trouble};
use super::{LocalStorage, Served, swap};
use crate::disk::{DiskKind, DiskStat};
use crate::fault::{exists, fault, into_itself, not_empty, not_the_root, system_fault};
use crate::lock::lock;

/// How often a directory that should be empty is gone through again, since something has come into it.
const TRIES: u32 = 64;

/// How many records of the index are looked at at a time.
const PAGE: usize = 1024;

/// The turn of one who changes names, until it is dropped.
struct Turn<'a> {
    _commits: MutexGuard<'a, ()>,
    /// Directories that other processes change too, locked.
    _locks: Vec<Dir>,
}

impl LocalStorage {
    /// Makes a directory in one that is there.
    pub(super) fn make_directory(&self, place: &Place) -> Result<Answer, StorageFault> {
        let (root, path) = (self.root_itself(place)?, &place.path);
        if !root.make_one_directory(path).map_err(|trouble| trouble.at(path))? {
            return Err(exists(path));
        }
        self.forget_trees(path);
        Ok(Answer::Altered)
    }

    /// Gives what is at a place another path.
    pub(super) fn rename(&self, from: &Place, to: &RelPath) -> Result<Answer, StorageFault> {
        let (root, path) = (self.root_itself(from)?, &from.path);
        not_the_root(path)?;
        if path.holds(to) {
            return Err(into_itself(path));
        }
        let commits = self.commits();
        let (source, name, is) = find(root, path)?;
        let (target, new) = parent_of(root, to)?.ok_or_else(|| exists(to))?;
        let turn = self.turn(commits, &[&source, &target]).map_err(|error| system_fault(path, &error))?;
        let rename =
            || move_to_vacant(&source, &name, &target, &new, to).map_err(|fault| fault.unwrap_or_else(|| exists(to)));
        let is_directory = is.kind == DiskKind::Directory;
        if is_directory {
            let place = Place { root: from.root.itself(), path: path.clone() };
            self.copies.while_still(&place, || {
                root.exchange();
                root.while_none_is_made(rename)
            })?;
        } else {
            rename()?;
        }
        self.rebase_unsure(path, Some(to));
        drop(turn);
        let above = |path: &RelPath| path.split_last().map(|(above, _)| above);
        let is_one = above(path) == above(to);
        let synced = target.sync().and_then(|()| if is_one { Ok(()) } else { source.sync() });
        self.forget_gone(root, path);
        [path, to].into_iter().for_each(|path| self.forget_trees(path));
        synced.map_err(|error| {
            if is_directory {
                root.doubt();
            }
            lock(&self.unsure).insert(to.clone());
            fault(FaultKind::Other, path, format_args!("moved, but it may not outlast a power cut: {error}"))
        })?;
        Ok(Answer::Altered)
    }

    /// Removes what is at a place; a directory that is not empty only if `recursive`.
    pub(super) fn remove(&self, place: &Place, recursive: bool) -> Result<Answer, StorageFault> {
        let (root, path) = (self.root_itself(place)?, &place.path);
        not_the_root(path)?;
        let is_directory = find(root, path)?.2.kind == DiskKind::Directory;
        let removed = match is_directory && recursive {
            true => {
                let _changed = self.copies.change(&Place { root: place.root.itself(), path: path.clone() });
                let mut any = false;
                let removed = self.remove_below(root, path, &mut any).and_then(|()| self.remove_one(root, path));
                removed.map_err(|fault| if any { in_part(fault) } else { fault })
            }
            false => self.remove_one(root, path),
        };
        self.forget_gone(root, path);
        self.forget_trees(path);
        let parent = removed?;
        parent.sync().map_err(|error| {
            fault(FaultKind::Other, path, format_args!("removed, but a power cut may bring it back: {error}"))
        })?;
        Ok(Answer::Altered)
    }

    /// Removes a file, a link or an empty directory; returns what it was in.
    fn remove_one(&self, root: &Root, path: &RelPath) -> Result<Dir, StorageFault> {
        let commits = self.commits();
        let (parent, name, is) = find(root, path)?;
        let turn = self.turn(commits, &[&parent]).map_err(|error| system_fault(path, &error))?;
        let removed = match is.kind {
            // What stages have left in it nobody sees.
            DiskKind::Directory => parent.remove_dir_and_staged(&name),
            _ => parent.remove(&name),
        };
        removed.map_err(|error| match error.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::IsADirectory => not_empty(path),
            _ => system_fault(path, &error),
        })?;
        self.rebase_unsure(path, None);
        drop(turn);
        Ok(parent)
    }

    /// Removes all that is in a directory; `any` tells that something was.
    fn remove_below(&self, root: &Root, path: &RelPath, any: &mut bool) -> Result<(), StorageFault> {
        let top = root.directory(path).map_err(|trouble| trouble.at(path))?;
        let (mut below, mut tries) = (RelPath::ROOT, TRIES);
        loop {
            let at = |below: &RelPath| path.below(below).unwrap_or_else(|_| path.clone());
            let system = |error: io::Error| Trouble::from(error).at(&at(&below));
            let dir = top.dir_beneath(&below).map_err(system)?;
            if let Some(inner) = self.remove_all_but_directories(&dir, any).map_err(system)? {
                let deeper = below.join(&inner);
                below = deeper.map_err(|error| fault(FaultKind::Other, &at(&below), error))?;
                continue;
            }
            let Some((above, name)) = below.split_last() else { return Ok(()) };
            let parent = top.dir_beneath(&above).map_err(system)?;
            let turn = self.turn(self.commits(), &[&parent]).map_err(system)?;
            match parent.remove_dir(&name) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && tries > 0 => tries -= 1,
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(system(error)),
                Ok(()) | Err(_) => (*any, below) = (true, above),
            }
            drop(turn);
        }
    }

    /// Removes what is in a directory, up to the first directory in it, which it returns.
    fn remove_all_but_directories(&self, dir: &Dir, any: &mut bool) -> io::Result<Option<Name>> {
        let mode = dir.mode()?;
        if mode & 0o700 != 0o700 {
            dir.set_mode(mode | 0o700)?;
        }
        for name in dir.names()? {
            let name = name?;
            let _turn = self.turn(self.commits(), &[dir])?;
            match dir.stat(&name)? {
                Some(is) if is.kind == DiskKind::Directory => return Ok(Some(name)),
                Some(_) => {
                    dir.remove(&name)?;
                    *any = true;
                }
                None => {}
            }
        }
        Ok(None)
    }

    /// What those hold who commit.
    fn commits(&self) -> MutexGuard<'_, ()> {
        lock(self.served.as_ref().map_or(&self.replacing, |served| &served.commits))
    }

    /// The turn to change names in these directories.
    fn turn<'a>(&self, commits: MutexGuard<'a, ()>, directories: &[&Dir]) -> io::Result<Turn<'a>> {
        let mut locks = Vec::new();
        if self.served.is_none() {
            let mut known = directories.iter().map(|dir| Ok((dir.identity()?, dir))).collect::<io::Result<Vec<_>>>()?;
            // In an order that is the same for all, and each once: a lock stands in the way of another one of ours too.
            known.sort_by_key(|(identity, _)| *identity);
            known.dedup_by_key(|(identity, _)| *identity);
            locks.extend(known.into_iter().filter_map(|(_, dir)| swap::turn(dir)));
        }
        Ok(Turn { _commits: commits, _locks: locks })
    }

    /// What may not last of what is at or below a path is so at its new one, if there is one.
    fn rebase_unsure(&self, from: &RelPath, to: Option<&RelPath>) {
        let mut unsure = lock(&self.unsure);
        let there: Vec<_> = unsure.iter().filter(|path| *path == from || from.holds(path)).cloned().collect();
        for path in there {
            unsure.remove(&path);
            let rest = path.as_bytes()[from.as_bytes().len()..].to_vec();
            let moved = to.and_then(|to| RelPath::new([to.as_bytes(), &rest].concat()).ok());
            unsure.extend(moved);
        }
    }

    /// Forgets the records of files at and below a path that are not there any more.
    fn forget_gone(&self, root: &Arc<Root>, path: &RelPath) {
        let Some(Served { index, .. }) = &self.served else { return };
        let is_gone = |path: &RelPath| root.stat(path).is_ok_and(|is| is.is_none());
        if let Some(recorded) = index.recorded(path).filter(|_| is_gone(path)) {
            index.forget(path, &recorded);
        }
        let mut after = None;
        // Where there is no index nothing is recorded.
        while let Ok(page) = index.files_below(path, after.as_ref(), PAGE)
            && let Some((last, _)) = page.last()
        {
            after = Some(last.clone());
            let gone: Vec<_> = page.into_iter().filter(|(path, _)| is_gone(path)).collect();
            index.forget_all(&gone);
        }
    }

    /// Forgets the trees that a change at a path has changed.
    fn forget_trees(&self, path: &RelPath) {
        if let Some(Served { index, .. }) = &self.served {
            index.forget_trees_around(path);
            index.forget_tree(path);
        }
    }
}

/// The directory that holds a path, open, and the name in it; `None` for the root.
fn parent_of(root: &Root, path: &RelPath) -> Result<Option<(Dir, Name)>, StorageFault> {
    let at_path = |trouble: Trouble| trouble.at(path);
    let Some((above, name)) = path.split_last() else { return Ok(None) };
    // Names that are ours are not there, whatever is.
    root.stat(path).map_err(at_path)?;
    Ok(Some((root.directory(&above).map_err(at_path)?, name)))
}

/// What is at a path, and the directory that holds it.
fn find(root: &Root, path: &RelPath) -> Result<(Dir, Name, DiskStat), StorageFault> {
    let absent = || io::Error::from(rustix::io::Errno::NOENT);
    let (parent, name) = parent_of(root, path)?.ok_or_else(|| system_fault(path, &absent()))?;
    let is = parent.stat(&name).and_then(|is| is.ok_or_else(absent)).map_err(|error| system_fault(path, &error))?;
    Ok((parent, name, is))
}

/// Moves a name to another one that nothing has; the error is `None` when something has it.
fn move_to_vacant(from: &Dir, name: &Name, into: &Dir, new: &Name, to: &RelPath) -> Result<(), Option<StorageFault>> {
    let system = |error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty => None,
        _ => Some(system_fault(to, &error)),
    };
    match from.rename_to_vacant(name, into, new) {
        Err(error) if swap::is_unknown(&error) => match into.stat(new).map_err(system)? {
            Some(_) => Err(None),
            None => from.rename(name, into, new).map_err(system),
        },
        done => done.map_err(system),
    }
}

fn in_part(mut fault: StorageFault) -> StorageFault {
    fault.message.push_str("; a part of what was to go is removed");
    fault
}
