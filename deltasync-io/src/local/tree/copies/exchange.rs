//! A copy becomes the tree, in one step.
//!
//! What is there of it then: what came, as the tree's list says; what the list has as the tree has it, and what is not in
//! the list and stays, linked from the tree; nothing else. All of it is durable before the step. The step replaces the tree
//! only if that is what it was when the transfer began; of the commits of this storage none comes between the last look at
//! it and the step. A window remains for other programs, as for a file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::Mutex;

use deltasync_core::{RelPath, TreeEntry, TreeKind, TreeList};
use deltasync_proto::{FaultKind, StorageFault};
use rustix::io::Errno;

use super::{Listing, PATIENCE, State, Taken, TreeCopy, busy, list, remove_all};
use crate::disk::{AnyFile, DiskKind, DiskStat};
use crate::fault::{fault, system_fault};
use crate::local::root::{Trouble, is_staged};
use crate::local::tree::making::make_durable;
use crate::local::tree::{attributes, below, looks_like, mode_of, xattrs};
use crate::lock::lock;

/// What is to take the place of a tree.
pub(in crate::local::tree) struct Wanted<'a> {
    pub(in crate::local::tree) list: &'a TreeList,
    /// The entries of the list that are to be what the tree has.
    pub(in crate::local::tree) as_before: &'a BTreeSet<usize>,
    /// The files that are still to come, whatever stands in their places.
    pub(in crate::local::tree) missing: &'a BTreeSet<RelPath>,
    /// What the tree has that is not in the list, and is not to be there any more.
    pub(in crate::local::tree) deleted: &'a BTreeSet<RelPath>,
    /// The entries tell the extended attributes too.
    pub(in crate::local::tree) xattrs: bool,
}

impl Taken {
    /// Makes the copy what is wanted, and exchanges it for the tree.
    ///
    /// # Errors
    ///
    /// A fault of kind [`FaultKind::Conflict`] when the tree is not what it was: it can be tried again then, in place of
    /// what the tree is now. Another when files are missing that travel by themselves. Whatever fails before the exchange,
    /// the tree is what it was.
    pub(in crate::local::tree) fn exchange(&self, wanted: &Wanted<'_>, turn: &Mutex<()>) -> Result<(), StorageFault> {
        let copy = &self.copy;
        let path = &copy.place.path;
        let live = self.look(None)?;
        let copied = list(&copy.root, path, self.most)?;
        copy.unlock_directories(&copied)?;
        let kept = copy.settle(wanted, &live, &copied)?;
        let made = list(&copy.root, path, self.most)?;
        copy.check(wanted.list, &kept, &made)?;
        let also: Vec<RelPath> =
            kept.iter().filter(|(_, is)| is.kind == DiskKind::Directory).map(|(path, _)| path.clone()).collect();
        make_durable(&copy.root, &copy.place, wanted.list, &also)?;
        let old = copy.lock_old(live.get(&RelPath::ROOT))?;
        {
            let _turn = lock(turn);
            self.look(Some(&live))?;
            // A file of an earlier transfer may have come into it.
            if !is_same(&made, &list(&copy.root, path, self.most)?) {
                return Err(fault(FaultKind::Other, path, "its copy has changed meanwhile: try again"));
            }
            self.changing.while_none(&copy.place, || {
                copy.live.exchange();
                copy.put_in_place(old.is_some()).map_err(|error| system_fault(path, &error))?;
                *lock(&copy.state) = State::Exchanged;
                Ok(())
            })?;
        }
        let synced = copy.parent.sync();
        // A power cut may still undo what was not synced, and what was there is the tree again.
        if old.is_some() && synced.is_ok() {
            // What cannot be removed is hidden, and the next copy is made of it.
            let _ = remove_all(&copy.parent, &copy.hidden);
        }
        *lock(&copy.state) = State::Gone;
        synced.map_err(|error| {
            copy.live.doubt();
            fault(FaultKind::Other, path, format_args!("in place, but it may not outlast a power cut: {error}"))
        })
    }

    /// The tree as it is, which must be what it was.
    fn look(&self, listed: Option<&Listing>) -> Result<Listing, StorageFault> {
        let copy = &self.copy;
        let live = list(&copy.live, &copy.place.path, self.most)?;
        let mut before = lock(&self.before);
        let was = listed.or(before.as_ref());
        if was.is_some_and(|was| is_same(was, &live)) {
            return Ok(live);
        }
        *before = Some(live);
        Err(fault(FaultKind::Conflict, &copy.place.path, "it has changed meanwhile"))
    }
}

impl TreeCopy {
    /// Makes the copy what is wanted. Returns what it has beside that, which stays.
    fn settle(
        &self,
        wanted: &Wanted<'_>,
        live: &Listing,
        copied: &Listing,
    ) -> Result<BTreeMap<RelPath, DiskStat>, StorageFault> {
        let list = wanted.list;
        let changed = |path: &RelPath| {
            let at = below(&self.place.path, path).unwrap_or_default();
            fault(FaultKind::Other, &at, "changed meanwhile: try again")
        };
        let mut missing = 0;
        for index in 0..list.len() {
            let entry = list.entry(index);
            if wanted.as_before.contains(&index) {
                let is = live.get(&entry.path).filter(|is| looks_like(is, &entry));
                self.carry(&entry.path, is.ok_or_else(|| changed(&entry.path))?)?;
                continue;
            }
            let looks_well = copied.get(&entry.path).is_some_and(|is| looks_like(is, &entry));
            let is_there = looks_well && !wanted.missing.contains(&entry.path);
            // And so may be what is another name of one.
            let comes_later = match entry.kind {
                TreeKind::File { .. } => entry.inline().is_none(),
                TreeKind::HardLink { len, .. } => len > TreeEntry::INLINE,
                TreeKind::Directory | TreeKind::Symlink { .. } => false,
            };
            if !is_there && comes_later {
                missing += 1;
            } else if !is_there {
                return Err(changed(&entry.path));
            }
        }
        let mut kept = BTreeMap::new();
        if missing > 0 {
            self.settle_directories(wanted, &kept, live, true)?;
            let what = format_args!("nothing is replaced yet: files of over 64 KiB are missing, {missing} in all");
            return Err(fault(FaultKind::Other, &self.place.path, what));
        }
        let is_directory = |path: &RelPath, kept: &BTreeMap<RelPath, DiskStat>| match list.find(path) {
            Some(index) => list.entry(index).kind == TreeKind::Directory,
            None => kept.get(path).is_some_and(|is: &DiskStat| is.kind == DiskKind::Directory),
        };
        for (path, is) in live {
            if list.find(path).is_some() || wanted.deleted.contains(path) {
                continue;
            }
            let above = path.split_last().map_or(RelPath::ROOT, |(above, _)| above);
            if !is_directory(&above, &kept) {
                let at = below(&self.place.path, path).unwrap_or_default();
                return Err(fault(FaultKind::Denied, &at, "it stays, and its directory would be deleted"));
            }
            self.carry(path, is)?;
            kept.insert(path.clone(), *is);
        }
        for path in copied.keys().rev().filter(|path| list.find(path).is_none() && !kept.contains_key(*path)) {
            self.remove(path)?;
        }
        for (path, is) in copied {
            if is.kind == DiskKind::Directory && is_directory(path, &kept) {
                self.sweep(path)?;
            }
        }
        self.settle_directories(wanted, &kept, live, false)?;
        Ok(kept)
    }

    /// Removes from a directory what transfers that were cut have left under names of ours, and nobody holds: it would be
    /// in the tree for good.
    fn sweep(&self, path: &RelPath) -> Result<(), StorageFault> {
        let at = below(&self.place.path, path)?;
        let system = |error: io::Error| system_fault(&at, &error);
        let dir = self.root.directory(&at).map_err(|trouble| trouble.at(&at))?;
        let names = dir.names().map_err(system)?.collect::<io::Result<Vec<_>>>().map_err(system)?;
        for name in names.iter().filter(|name| is_staged(name.as_bytes())) {
            if let Some(is) = dir.stat(name).map_err(system)?
                && dir.is_nobodys(name, is.kind).map_err(system)?
            {
                dir.remove(name).map_err(system)?;
            }
        }
        Ok(())
    }

    /// Looks whether all that is wanted is there, and nothing else.
    fn check(&self, list: &TreeList, kept: &BTreeMap<RelPath, DiskStat>, made: &Listing) -> Result<(), StorageFault> {
        let is_there = made.len() == list.len() + kept.len()
            && kept.keys().all(|path| made.contains_key(path))
            && list.entries().all(|entry| made.get(&entry.path).is_some_and(|is| looks_like(is, &entry)));
        if is_there {
            return Ok(());
        }
        Err(fault(FaultKind::Other, &self.place.path, "its copy has changed meanwhile: try again"))
    }

    /// Gives the directories their permissions and times, the deepest first; those of a tree that is to be gone on with can
    /// be written.
    fn settle_directories(
        &self,
        wanted: &Wanted<'_>,
        kept: &BTreeMap<RelPath, DiskStat>,
        live: &Listing,
        goes_on: bool,
    ) -> Result<(), StorageFault> {
        let (list, has_xattrs) = (wanted.list, wanted.xattrs);
        let mut wanted: BTreeMap<RelPath, (u32, (i64, u32))> = BTreeMap::new();
        for (path, is) in kept.iter().filter(|(_, is)| is.kind == DiskKind::Directory) {
            wanted.insert(path.clone(), (is.mode, attributes(is).modified()));
        }
        for entry in list.entries().filter(|entry| entry.kind == TreeKind::Directory) {
            let is = live.get(&entry.path).filter(|is| is.kind == DiskKind::Directory).map_or(0, |is| is.mode);
            wanted.insert(entry.path, (mode_of(entry.attributes, is), entry.attributes.modified()));
        }
        for (path, (mode, modified)) in wanted.iter().rev() {
            let at = below(&self.place.path, path)?;
            let dir = self.root.directory(&at).map_err(|trouble| trouble.at(&at))?;
            // Nobody else looks into it before it is the tree.
            let mode = match goes_on {
                true if path.is_root() => 0o700,
                true => *mode | 0o700,
                false => *mode,
            };
            if let Some(index) = list.find(path).filter(|_| has_xattrs) {
                // Nothing is to be replaced by what lacks some.
                let set = xattrs::write(dir.attributed(), &list.entry(index).xattrs);
                set.map_err(|error| fault(FaultKind::Other, &at, format_args!("its extended attributes: {error}")))?;
            }
            let set = dir.set_mode(mode).and_then(|()| dir.set_modified(*modified));
            set.map_err(|error| system_fault(&at, &error))?;
        }
        Ok(())
    }

    fn remove(&self, path: &RelPath) -> Result<(), StorageFault> {
        let Some((above, name)) = path.split_last() else { return Ok(()) };
        let at = below(&self.place.path, &above)?;
        match self.root.directory(&at) {
            Ok(dir) => remove_all(&dir, &name).map_err(|error| system_fault(&at, &error)),
            // It has gone with its directory, in place of which a file may be.
            Err(Trouble::NotDirectory | Trouble::Symlink) => Ok(()),
            Err(trouble) if trouble.is_absent() => Ok(()),
            Err(trouble) => Err(trouble.at(&at)),
        }
    }

    /// Locks the tree that is to be replaced: no other process may take it for a copy while it is removed.
    fn lock_old(&self, was: Option<&DiskStat>) -> Result<Option<AnyFile>, StorageFault> {
        let Some(was) = was else { return Ok(None) };
        let system = |error: io::Error| system_fault(&self.place.path, &error);
        let old = self.parent.open_file(&self.name).map_err(system)?;
        let is = old.stat().map_err(system)?;
        if (is.device, is.inode) != (was.device, was.inode) {
            return Err(fault(FaultKind::Conflict, &self.place.path, "it has changed meanwhile"));
        }
        let (times, pause) = PATIENCE;
        for _ in 0..times {
            if old.lock(false).map_err(system)? {
                return Ok(Some(old));
            }
            std::thread::sleep(pause);
        }
        Err(busy(&self.place.path))
    }

    fn put_in_place(&self, is_there: bool) -> io::Result<()> {
        if is_there {
            return self.parent.exchange(&self.hidden, &self.name);
        }
        match self.parent.rename_to_vacant(&self.hidden, &self.parent, &self.name) {
            // It cannot look and move in one step; over a directory that is not empty it does not move either.
            Err(error)
                if [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP]
                    .iter()
                    .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
                    || error.kind() == ErrorKind::Unsupported =>
            {
                self.parent.rename(&self.hidden, &self.parent, &self.name)
            }
            done => done,
        }
    }
}

/// True when two looks at a tree have found the same. A new name of a file is no change of it.
fn is_same(one: &Listing, other: &Listing) -> bool {
    let looks = |is: &DiskStat| (is.kind, is.mode, is.device, is.inode, is.len, is.modified);
    let same =
        |((a, one), (b, other)): ((&RelPath, &DiskStat), (&RelPath, &DiskStat))| a == b && looks(one) == looks(other);
    one.len() == other.len() && one.iter().zip(other).all(same)
}
