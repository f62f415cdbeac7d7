//! What of a tree is made last, when its files are in place: the hard links to them; and what files get that are there as
//! they should be but for their permissions and extended attributes.
//!
//! All links of the list are looked at, not only those that came: a file that was put in place anew is not what its other
//! names have.

use deltasync_core::{TreeEntry, TreeKind, TreeList, Xattrs};
use deltasync_proto::StorageFault;

use super::{Failed, Making, State, hidden, listed_in};
use crate::disk::{AnyFile, DiskStat};
use crate::local::root::Root;
use crate::local::tree::{below, looks_like, mode_of, own_copy, xattrs};

impl Making {
    /// Makes the hard links.
    pub(super) fn make_links(&self, state: &mut State, root: &Root, made: &TreeList) -> Result<(), StorageFault> {
        if state.links == 0 {
            return Ok(());
        }
        for index in 0..made.len() {
            let entry = made.entry(index);
            if !matches!(entry.kind, TreeKind::HardLink { .. }) {
                continue;
            }
            match self.make_link(state, root, &entry) {
                Ok(()) => {}
                Err(Failed::Here(what)) => state.trouble(below(&self.place.path, &entry.path)?, &what),
                Err(Failed::All(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    fn make_link(&self, state: &mut State, root: &Root, entry: &TreeEntry) -> Result<(), Failed> {
        let TreeKind::HardLink { to, len, .. } = &entry.kind else { return Ok(()) };
        let (Some((parent, name)), Some((first_parent, first_name))) = (entry.path.split_last(), to.split_last())
        else {
            return Ok(());
        };
        for (parent, name) in [(&parent, &name), (&first_parent, &first_name)] {
            if root.hides(&below(&self.place.path, parent).map_err(Failed::All)?, name.as_bytes()) {
                return Err(Failed::Here("a name of this form is reserved".to_owned()));
            }
        }
        let first_dir = self.directory(state, root, &first_parent)?;
        let Some(first) = first_dir.stat(&first_name)?.filter(|is| looks_like(is, entry)) else {
            // The transfer of the file has yet to come; when it has, the tree is compared again.
            if *len > TreeEntry::INLINE {
                return Ok(());
            }
            return Err(Failed::Here("the file that it is to be another name of is not there".to_owned()));
        };
        let dir = self.directory(state, root, &parent)?;
        if let Some(is) = dir.stat(&name)? {
            if (is.device, is.inode) == (first.device, first.inode) {
                return Ok(());
            }
            self.make_way(state, root, entry, &dir, &name, &is)?;
        }
        let (hidden, ()) = hidden(&name, |hidden| first_dir.link(&first_name, &dir, hidden))?;
        if let Err(error) = dir.rename(&hidden, &dir, &name) {
            let _ = dir.remove(&hidden);
            return Err(error.into());
        }
        state.touched.insert(parent);
        Ok(())
    }

    /// True when a file has the content that an entry tells, as far as length and time and, where it is told, the digest of
    /// what was listed there can say that.
    pub(super) fn has_content(&self, state: &State, is: &DiskStat, entry: &TreeEntry) -> bool {
        let TreeKind::File { root: Some(wanted), .. } = entry.kind else { return looks_like(is, entry) };
        let left = state.left.as_ref().and_then(|left| listed_in(left, entry));
        let listed = left.or_else(|| self.listed(entry)).map(|listed| listed.kind);
        let (Some(TreeKind::File { root, .. }) | Some(TreeKind::HardLink { root, .. })) = listed else { return false };
        looks_like(is, entry) && root == Some(wanted)
    }

    /// Gives a file that is in place its permissions and extended attributes. Other names of it stand for other entries, or
    /// for what is not of this tree: they keep what they have.
    pub(super) fn adorn(&self, state: &mut State, root: &Root, entry: &TreeEntry, is: &DiskStat) -> Result<(), Failed> {
        let path = below(&self.place.path, &entry.path).map_err(Failed::All)?;
        let file = match is.links {
            ..=1 => root.file(&path)?,
            _ => {
                state.touched.extend(entry.path.split_last().map(|(parent, _)| parent));
                own_copy(root, &path)?
            }
        };
        let mode = mode_of(entry.attributes, is.mode);
        if self.xattrs {
            // That takes the right to write.
            file.set_mode(mode | 0o200)?;
            self.set_xattrs(state, entry, |wanted| xattrs::write(file.attributed(), wanted))?;
        }
        Ok(file.set_mode(mode)?)
    }

    /// Sets extended attributes, where they are told; that some cannot be set is told at the end.
    pub(super) fn set_xattrs(
        &self,
        state: &mut State,
        entry: &TreeEntry,
        set: impl FnOnce(&Xattrs) -> std::io::Result<()>,
    ) -> Result<(), Failed> {
        if self.xattrs
            && let Err(error) = set(&entry.xattrs)
        {
            let path = below(&self.place.path, &entry.path).map_err(Failed::All)?;
            state.trouble(path, &format!("its extended attributes cannot be set: {error}"));
        }
        Ok(())
    }

    /// Sets those of a file that is not in place yet.
    pub(super) fn set_xattrs_of_new(&self, state: &mut State, entry: &TreeEntry, file: &AnyFile) -> Result<(), Failed> {
        if entry.xattrs.is_empty() {
            return Ok(());
        }
        self.set_xattrs(state, entry, |wanted| xattrs::write(file.attributed(), wanted))
    }
}
