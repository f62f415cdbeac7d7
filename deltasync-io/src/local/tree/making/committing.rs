//! The end of a tree in the making: it becomes what its list says, file by file or in one step, all of it durable.
//!
//! In place, hard links are made, now that the files are there that they are other names of; what is extra is taken away, if
//! that is wanted and not too much; directories get their permissions and times, and all of them are synced: what was there
//! already may be left by an attempt that was not. What could not be made is named by the fault, and then nothing is taken
//! away.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use deltasync_core::{Attributes, RelPath, TreeEntry, TreeKind, TreeList, tree_order};
use deltasync_proto::{Extra, FaultKind, Place, StorageFault};

use super::{DISK, Failed, Making, State, changed};
use crate::disk::DiskKind;
use crate::fault::{fault, system_fault};
use crate::local::root::{Root, Trouble};
use crate::local::tree::copies::{Taken, Wanted};
use crate::local::tree::{below, looks_like, mode_of, xattrs};

/// Makes the names in all directories of a tree durable, also in those where nothing was done now: an attempt before this
/// one may have failed, or its process ended, before it came to that. Once a sync has failed nothing is called durable any
/// more: what that should have kept no later one will. `also` are directories that the list has not, as far as they are
/// there.
pub(in crate::local::tree) fn make_durable(
    root: &Root,
    place: &Place,
    list: &TreeList,
    also: &[RelPath],
) -> Result<(), StorageFault> {
    if root.is_doubtful() {
        let why =
            "a directory could not be synced before, so what is in it may not last: start anew when the disk is well";
        return Err(fault(FaultKind::Other, &place.path, why));
    }
    let failed = |error: io::Error| {
        root.doubt();
        system_fault(&place.path, &error)
    };
    let open = |path: &RelPath| root.directory(path).map_err(|trouble| trouble.at(path));
    let directories = || list.entries().filter(|entry| entry.kind == TreeKind::Directory);
    if directories().take(DISK).count() == DISK && open(&place.path)?.sync_disk().map_err(failed)? {
        return Ok(());
    }
    for path in also {
        if let Ok(dir) = root.directory(&below(&place.path, path)?) {
            dir.sync().map_err(failed)?;
        }
    }
    directories().try_for_each(|entry| open(&below(&place.path, &entry.path)?)?.sync().map_err(failed))
}

impl Making {
    /// Takes away what is extra, and gives directories what they are to have, all of it durable. Returns the tree that is
    /// there now, once its members are; `None` where more is there.
    pub(in crate::local) fn commit(&self, root: &Root) -> Result<Option<Arc<TreeList>>, StorageFault> {
        let mut state = self.open()?;
        state.ended = true;
        let list = state.made();
        // The directory itself looks another way after each commit, whatever that changes.
        state.touched.insert(RelPath::ROOT);
        self.settle_members(&mut state, root, &list)?;
        self.make_links(&mut state, root, &list)?;
        let extra = self.extra(&list);
        let is_all = extra.is_empty() || self.allowed().is_some();
        if state.troubles == 0
            && let Some(allowed) = self.allowed()
        {
            self.delete(&mut state, root, extra, allowed)?;
        }
        self.settle_directories(&mut state, root, &list)?;
        // A directory that stays for what is excluded in it is not in the list, and something may have been deleted there.
        let also: Vec<RelPath> = state.touched.iter().filter(|path| list.find(path).is_none()).cloned().collect();
        let durable = make_durable(root, &self.place, &list, &also);
        self.check_made(&state)?;
        durable?;
        Ok(is_all.then_some(list))
    }

    /// Makes the copy that it was made in what is wanted, and has that take the place of what was there, as one change
    /// while `turn` is held. Returns as [`commit`](Self::commit).
    ///
    /// # Errors
    ///
    /// As there, also while members are missing: nothing is exchanged then. After a fault of kind [`FaultKind::Conflict`]
    /// it can be tried again.
    pub(in crate::local::tree) fn commit_as_one(
        &self,
        copy: &Taken,
        turn: &Mutex<()>,
    ) -> Result<Option<Arc<TreeList>>, StorageFault> {
        let mut state = self.open()?;
        let list = state.made();
        state.ended = true;
        self.make_links(&mut state, copy.root(), &list)?;
        self.check_made(&state)?;
        let extra = self.extra(&list);
        let is_all = extra.is_empty() || self.allowed().is_some();
        let mut deleted = BTreeSet::new();
        if let (Some(allowed), Some(there)) = (self.allowed(), &self.there) {
            self.check_allowed(extra.len() as u64, there, allowed)?;
            deleted = extra.into_iter().map(|index| there.entry(index).path).collect();
        }
        let missing = state.members.iter().map(|member| member.path.clone()).collect();
        let (as_before, xattrs) = (&state.as_before, self.xattrs);
        let wanted = Wanted { list: &list, as_before, missing: &missing, deleted: &deleted, xattrs };
        match copy.exchange(&wanted, turn) {
            Err(fault) if fault.kind == FaultKind::Conflict => {
                state.ended = false;
                Err(fault)
            }
            exchanged => exchanged.map(|()| is_all.then_some(list)),
        }
    }

    /// What members have changed that came by themselves: their directories look another way, and they have no extended
    /// attributes yet.
    fn settle_members(&self, state: &mut State, root: &Root, list: &TreeList) -> Result<(), StorageFault> {
        for path in state.beside.clone() {
            let (Some((parent, name)), Some(index)) = (path.split_last(), list.find(&path)) else { continue };
            let entry = list.entry(index);
            let mut adorn = || -> Result<(), Failed> {
                let is = self.directory(state, root, &parent)?.stat(&name)?;
                match is.filter(|is| looks_like(is, &entry)) {
                    Some(is) => self.adorn(state, root, &entry, &is),
                    None => Ok(()),
                }
            };
            match if self.xattrs { adorn() } else { Ok(()) } {
                Ok(()) => {}
                Err(Failed::Here(what)) => state.trouble(below(&self.place.path, &path)?, &what),
                Err(Failed::All(fault)) => return Err(fault),
            }
            state.touched.insert(parent);
        }
        Ok(())
    }

    /// Names what could not be made.
    fn check_made(&self, state: &State) -> Result<(), StorageFault> {
        if state.troubles == 0 {
            return Ok(());
        }
        let more = state.troubles - state.trouble.len() as u64;
        let told = state.trouble.join("; ");
        Err(self.fault(match more {
            0 => format!("not all could be made: {told}"),
            more => format!("not all could be made: {told}; and {more} more"),
        }))
    }

    fn check_allowed(&self, count: u64, there: &TreeList, allowed: u64) -> Result<(), StorageFault> {
        if count > allowed {
            let what = format!("{count} of {} entries would be deleted, over {allowed}: none was", there.len() - 1);
            return Err(fault(FaultKind::Denied, &self.place.path, what));
        }
        Ok(())
    }

    /// How many entries may be deleted; `None` when none is to be.
    pub(super) fn allowed(&self) -> Option<u64> {
        let half = self.there.as_ref().map_or(0, |there| there.len() as u64 / 2);
        match self.extra {
            Extra::Keep => None,
            Extra::Delete { most } => Some(most.unwrap_or(half)),
        }
    }

    /// What was there that is not wanted, as indices of that list.
    fn extra(&self, made: &TreeList) -> Vec<usize> {
        let Some(there) = &self.there else { return Vec::new() };
        let mut extra = Vec::new();
        let mut wanted = (0..made.len()).map(|index| made.entry(index).path).peekable();
        for index in 0..there.len() {
            let path = there.entry(index).path;
            while wanted.next_if(|wanted| tree_order(wanted, &path).is_lt()).is_some() {}
            if wanted.peek() != Some(&path) && !self.excluded.are_in(&path) {
                extra.push(index);
            }
        }
        extra
    }

    /// Takes away what only was there, unless it is too much.
    fn delete(&self, state: &mut State, root: &Root, extra: Vec<usize>, allowed: u64) -> Result<(), StorageFault> {
        let Some(there) = &self.there else { return Ok(()) };
        self.check_allowed(extra.len() as u64, there, allowed)?;
        for index in extra.into_iter().rev() {
            let listed = there.entry(index);
            match self.remove(state, root, &listed) {
                Ok(()) => {}
                Err(Failed::Here(what)) => {
                    state.trouble(below(&self.place.path, &listed.path).unwrap_or_default(), &what);
                }
                Err(Failed::All(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Takes away what was listed, if it is still that.
    pub(super) fn remove(&self, state: &mut State, root: &Root, listed: &TreeEntry) -> Result<(), Failed> {
        let Some((parent, name)) = listed.path.split_last() else { return Ok(()) };
        let dir = match self.directory(state, root, &parent) {
            Ok(dir) => dir,
            Err(Failed::Here(what)) => {
                let at = below(&self.place.path, &parent).map_err(Failed::All)?;
                return match root.stat(&at) {
                    // It has gone with the directory that it was in; a file may have taken the place of that.
                    Ok(None) | Err(Trouble::NotDirectory | Trouble::Symlink) => Ok(()),
                    Ok(Some(is)) if is.kind != DiskKind::Directory => Ok(()),
                    Ok(Some(_)) | Err(_) => Err(Failed::Here(what)),
                };
            }
            Err(failed) => return Err(failed),
        };
        let Some(is) = dir.stat(&name)? else { return Ok(()) };
        if !looks_like(&is, listed) {
            return Err(changed());
        }
        match listed.kind {
            TreeKind::Directory => {
                dir.remove_dir_and_staged(&name)?;
                state.touched.remove(&listed.path);
                state.last = None;
            }
            TreeKind::File { .. } | TreeKind::HardLink { .. } | TreeKind::Symlink { .. } => dir.remove(&name)?,
        }
        state.touched.insert(parent);
        Ok(())
    }

    /// Gives directories their permissions and times, the deepest first.
    fn settle_directories(&self, state: &mut State, root: &Root, made: &TreeList) -> Result<(), StorageFault> {
        let mut wanted: BTreeMap<RelPath, Attributes> = std::mem::take(&mut state.directories).into_iter().collect();
        for path in &state.touched {
            if let Some(index) = made.find(path) {
                wanted.entry(path.clone()).or_insert_with(|| made.entry(index).attributes);
            }
        }
        for (path, attributes) in wanted.iter().rev() {
            let at = below(&self.place.path, path)?;
            let mut set = || -> Result<(), Failed> {
                let dir = root.directory(&at)?;
                let mode = mode_of(*attributes, dir.mode()?);
                if self.xattrs
                    && let Some(index) = made.find(path)
                {
                    // That takes the right to write.
                    dir.set_mode(mode | 0o200)?;
                    self.set_xattrs(state, &made.entry(index), |wanted| xattrs::write(dir.attributed(), wanted))?;
                }
                dir.set_mode(mode)?;
                Ok(dir.set_modified(attributes.modified())?)
            };
            match set() {
                Ok(()) => {}
                Err(Failed::Here(what)) => state.trouble(at, &what),
                Err(Failed::All(fault)) => return Err(fault),
            }
        }
        Ok(())
    }
}
