//! What is on a simulated disk: all that was done, and what of it was made durable.
//!
//! A file has its bytes as they are read and its bytes as they were synced last, and every write and change of length in
//! between; a directory has its names likewise. A sync applies what came before it. One that failed marks it: a later sync
//! succeeds and does not make it durable, as Linux does with pages that it could not write.

use std::collections::BTreeMap;
use std::io;

use deltasync_core::{Name, RelPath};
use deltasync_io::{DiskKind, DiskSpace, DiskStat};
use rustix::io::Errno;

pub(super) type Inode = u64;

/// The directory that all lies in.
pub(super) const TOP: Inode = 1;

pub(super) const PAGE: usize = 4096;

/// Everything on a disk.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) nodes: BTreeMap<Inode, Node>,
    next: Inode,
    /// Counts all changes, and is the clock.
    ticks: u64,
    /// What fits on the disk, in bytes.
    pub(super) limit: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) body: Body,
    mode: u32,
    /// How many names it has, and how many handles.
    pub(super) names: u32,
    pub(super) open: u32,
    pub(super) locks: Locks,
    /// How many syncs of it have failed.
    failed_syncs: u64,
    pub(super) times: Times,
    /// The times that a power cut leaves at least.
    pub(super) synced_times: Times,
}

/// Who has locked it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Locks {
    alone: bool,
    shared: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// In seconds, each a tick unless it was set, and nanoseconds.
    modified: (i64, i64),
    changed: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    File(FileBody),
    Dir(DirBody),
    Symlink,
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileBody {
    pub(super) now: Vec<u8>,
    pub(super) synced: Vec<u8>,
    pub(super) pending: Vec<Pending<Change>>,
    pub(super) set_aside: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct DirBody {
    pub(super) now: BTreeMap<Name, Inode>,
    pub(super) synced: BTreeMap<Name, Inode>,
    pub(super) pending: Vec<Pending<NameChange>>,
}

/// What was done since the last sync.
#[derive(Clone, Debug)]
pub(super) struct Pending<T> {
    pub(super) what: T,
    /// A sync of it has failed, and no other will make it durable.
    failed: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Len(usize),
}

#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) tick: u64,
    /// What the names stand for from now on; one step, however many.
    names: Vec<(Name, Option<Inode>)>,
    /// The step in another directory that this one does not come without.
    pub(super) after: Option<(Inode, u64)>,
}

impl Image {
    /// An empty disk.
    pub(super) fn new() -> Self {
        let mut image = Self { nodes: BTreeMap::new(), next: TOP, ticks: 1_000_000_000, limit: None };
        let top = image.add(Body::Dir(DirBody::default()), 0o755);
        image.node_mut(top).names = 1;
        image
    }

    /// The same with nothing open.
    pub(super) fn closed(&self) -> Self {
        let mut image = self.clone();
        // What has no name any more stays: its name may come back at a power cut.
        image.nodes.values_mut().for_each(|node| (node.open, node.locks) = (0, Locks::default()));
        image
    }

    pub(super) fn open(&mut self, inode: Inode) {
        self.node_mut(inode).open += 1;
    }

    pub(super) fn close(&mut self, inode: Inode) {
        self.node_mut(inode).open -= 1;
    }

    /// Locks it alone or shared; false when others are in the way.
    pub(super) fn lock(&mut self, inode: Inode, shared: bool) -> bool {
        let locks = &mut self.node_mut(inode).locks;
        if locks.alone || !shared && locks.shared > 0 {
            return false;
        }
        if shared {
            locks.shared += 1
        } else {
            locks.alone = true
        }
        true
    }

    pub(super) fn unlock(&mut self, inode: Inode, shared: bool) {
        let locks = &mut self.node_mut(inode).locks;
        if shared { locks.shared -= 1 } else { locks.alone = false }
    }

    /// What is free and what there is, if that is bounded.
    pub(super) fn space(&self) -> Option<DiskSpace> {
        Some(DiskSpace { free: self.room()?, total: self.limit? })
    }

    pub(super) fn stat(&self, inode: Inode) -> DiskStat {
        let node = &self.nodes[&inode];
        let time = |ticks: u64| (ticks as i64, 0);
        let (kind, len) = match &node.body {
            Body::File(file) => (DiskKind::File, file.now.len() as u64),
            Body::Dir(_) => (DiskKind::Directory, 0),
            Body::Symlink => (DiskKind::Symlink, 0),
        };
        let (modified, changed) = (node.times.modified, time(node.times.changed));
        let (links, blocks) = (node.names.into(), node.takes() / 512);
        DiskStat { kind, mode: node.mode, device: 1, inode, links, len, blocks, modified, changed }
    }

    /// Finds what stands at a path below a directory. No link is followed.
    pub(super) fn walk(&self, from: Inode, path: &RelPath) -> io::Result<Inode> {
        path.components().try_fold(from, |dir, name| self.find(dir, &name))
    }

    pub(super) fn find(&self, dir: Inode, name: &Name) -> io::Result<Inode> {
        Ok(*self.dir(dir)?.now.get(name).ok_or(Errno::NOENT)?)
    }

    pub(super) fn names(&self, dir: Inode) -> io::Result<Vec<Name>> {
        Ok(self.dir(dir)?.now.keys().cloned().collect())
    }

    pub(super) fn create(&mut self, dir: Inode, name: &Name, mode: u32) -> io::Result<Inode> {
        self.add_at(dir, name, Body::File(FileBody::default()), mode)
    }

    pub(super) fn make_dir(&mut self, dir: Inode, name: &Name, mode: u32) -> io::Result<Inode> {
        self.add_at(dir, name, Body::Dir(DirBody::default()), mode)
    }

    pub(super) fn symlink(&mut self, dir: Inode, name: &Name) -> io::Result<Inode> {
        self.add_at(dir, name, Body::Symlink, 0o777)
    }

    pub(super) fn rename(
        &mut self,
        (dir, from): (Inode, &Name),
        (into, to): (Inode, &Name),
        vacant: bool,
    ) -> io::Result<()> {
        let moved = self.find(dir, from)?;
        self.check_lives(into)?;
        if let Some(replaced) = self.dir(into)?.now.get(to).copied() {
            if vacant {
                return Err(Errno::EXIST.into());
            }
            if replaced == moved {
                return Ok(());
            }
            match (self.is_dir(moved), self.is_dir(replaced)) {
                (false, true) => return Err(Errno::ISDIR.into()),
                (true, false) => return Err(Errno::NOTDIR.into()),
                (true, true) if !self.dir(replaced)?.now.is_empty() => return Err(Errno::NOTEMPTY.into()),
                _ => {}
            }
            self.unname(replaced);
        }
        if dir == into {
            self.change_names(dir, vec![(to.clone(), Some(moved)), (from.clone(), None)], None);
        } else {
            let added = self.change_names(into, vec![(to.clone(), Some(moved))], None);
            self.change_names(dir, vec![(from.clone(), None)], Some((into, added)));
        }
        self.touch(moved, false);
        Ok(())
    }

    /// Lets two names in a directory change places.
    pub(super) fn exchange(&mut self, dir: Inode, one: &Name, other: &Name) -> io::Result<()> {
        let (first, second) = (self.find(dir, one)?, self.find(dir, other)?);
        self.change_names(dir, vec![(one.clone(), Some(second)), (other.clone(), Some(first))], None);
        self.touch(first, false);
        self.touch(second, false);
        Ok(())
    }

    pub(super) fn link(&mut self, (dir, from): (Inode, &Name), (into, to): (Inode, &Name)) -> io::Result<()> {
        let linked = self.find(dir, from)?;
        if self.is_dir(linked) {
            return Err(Errno::PERM.into());
        }
        self.check_lives(into)?;
        if self.dir(into)?.now.contains_key(to) {
            return Err(Errno::EXIST.into());
        }
        self.node_mut(linked).names += 1;
        self.change_names(into, vec![(to.clone(), Some(linked))], None);
        self.touch(linked, false);
        Ok(())
    }

    pub(super) fn remove(&mut self, dir: Inode, name: &Name, directory: bool) -> io::Result<()> {
        let removed = self.find(dir, name)?;
        match (directory, self.is_dir(removed)) {
            (false, true) => return Err(Errno::ISDIR.into()),
            (true, false) => return Err(Errno::NOTDIR.into()),
            (true, true) if !self.dir(removed)?.now.is_empty() => return Err(Errno::NOTEMPTY.into()),
            _ => {}
        }
        self.change_names(dir, vec![(name.clone(), None)], None);
        self.unname(removed);
        Ok(())
    }

    /// Makes the names in a directory durable.
    pub(super) fn sync_dir(&mut self, dir: Inode) -> io::Result<()> {
        self.dir(dir)?;
        self.sync_names(dir, u64::MAX);
        Ok(())
    }

    /// How many syncs of it have failed.
    pub(super) fn failed_syncs(&self, inode: Inode) -> u64 {
        self.nodes.get(&inode).map_or(0, |node| node.failed_syncs)
    }

    /// What is pending in it will not be made durable by a sync.
    pub(super) fn fail_sync(&mut self, inode: Inode) {
        let node = self.node_mut(inode);
        node.failed_syncs += 1;
        match &mut node.body {
            Body::File(file) => file.pending.iter_mut().for_each(|pending| pending.failed = true),
            Body::Dir(dir) => dir.pending.iter_mut().for_each(|pending| pending.failed = true),
            Body::Symlink => {}
        }
    }

    pub(super) fn read(&self, inode: Inode, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let bytes = &self.file(inode)?.now;
        let rest = &bytes[bytes.len().min(usize::try_from(at).unwrap_or(usize::MAX))..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    /// Writes as much as fits.
    pub(super) fn write(&mut self, inode: Inode, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.file(inode)?;
        let at = usize::try_from(at).map_err(|_| Errno::FBIG)?;
        let takes = self.nodes[&inode].takes();
        let most = self.room().map_or(u64::MAX, |room| takes.saturating_add(room));
        let len = bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(at));
        if len == 0 && !bytes.is_empty() {
            return Err(Errno::NOSPC.into());
        }
        self.change(inode, Change::Write { at, bytes: bytes[..len].to_vec() })?;
        Ok(len)
    }

    pub(super) fn set_len(&mut self, inode: Inode, len: u64) -> io::Result<()> {
        self.change(inode, Change::Len(usize::try_from(len).map_err(|_| Errno::FBIG)?))
    }

    pub(super) fn set_modified(&mut self, inode: Inode, modified: (i64, u32)) {
        self.touch(inode, false);
        self.node_mut(inode).times.modified = (modified.0, modified.1.into());
    }

    pub(super) fn set_mode(&mut self, inode: Inode, mode: u32) {
        self.node_mut(inode).mode = mode & 0o7777;
        self.touch(inode, false);
    }

    pub(super) fn set_aside(&mut self, inode: Inode, len: u64) -> io::Result<()> {
        let more = len.saturating_sub(self.nodes[&inode].takes());
        if self.room().is_some_and(|room| more > room) {
            return Err(Errno::NOSPC.into());
        }
        let file = self.file_mut(inode)?;
        file.set_aside = file.set_aside.max(len);
        Ok(())
    }

    /// Makes the bytes of a file durable.
    pub(super) fn sync_data(&mut self, inode: Inode) -> io::Result<()> {
        let file = self.file_mut(inode)?;
        let FileBody { synced, pending, .. } = file;
        pending.iter().filter(|pending| !pending.failed).for_each(|pending| pending.what.apply(synced));
        pending.retain(|pending| pending.failed);
        let node = self.node_mut(inode);
        node.synced_times = node.times;
        Ok(())
    }

    /// All of it durable, as if the system had had the time.
    pub(super) fn settle(&mut self) {
        for node in self.nodes.values_mut() {
            node.synced_times = node.times;
            match &mut node.body {
                Body::File(file) => (file.synced, file.pending) = (file.now.clone(), Vec::new()),
                Body::Dir(dir) => (dir.synced, dir.pending) = (dir.now.clone(), Vec::new()),
                Body::Symlink => {}
            }
        }
    }

    fn sync_names(&mut self, dir: Inode, until: u64) {
        let Some(body) = self.nodes.get_mut(&dir).and_then(Node::as_dir_mut) else { return };
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut body.pending)
            .into_iter()
            .partition(|pending| !pending.failed && pending.what.tick <= until);
        body.pending = later;
        for Pending { what, .. } in due {
            if let Some((other, tick)) = what.after {
                self.sync_names(other, tick);
            }
            for inode in what.names.iter().filter_map(|(_, inode)| *inode) {
                if let Some(node) = self.nodes.get_mut(&inode) {
                    node.synced_times.changed = node.times.changed;
                }
            }
            if let Some(body) = self.nodes.get_mut(&dir).and_then(Node::as_dir_mut) {
                what.apply(&mut body.synced);
                // What a failed sync has left of an earlier change of the same name cannot come true any more.
                for earlier in body.pending.iter_mut().filter(|pending| pending.what.tick < what.tick) {
                    earlier.what.names.retain(|(name, _)| what.names.iter().all(|(newer, _)| newer != name));
                }
            }
        }
    }

    fn add(&mut self, body: Body, mode: u32) -> Inode {
        let inode = self.next;
        self.next += 1;
        self.ticks += 1;
        let times = Times { modified: (self.ticks as i64, 0), changed: self.ticks };
        let node = Node {
            body,
            mode,
            names: 0,
            open: 0,
            locks: Locks::default(),
            failed_syncs: 0,
            times,
            synced_times: times,
        };
        self.nodes.insert(inode, node);
        inode
    }

    fn add_at(&mut self, dir: Inode, name: &Name, body: Body, mode: u32) -> io::Result<Inode> {
        self.check_lives(dir)?;
        if self.dir(dir)?.now.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        let inode = self.add(body, mode);
        self.node_mut(inode).names = 1;
        self.change_names(dir, vec![(name.clone(), Some(inode))], None);
        Ok(inode)
    }

    /// Nothing comes into a directory that was removed.
    fn check_lives(&self, dir: Inode) -> io::Result<()> {
        if self.nodes[&dir].names > 0 { Ok(()) } else { Err(Errno::NOENT.into()) }
    }

    fn change_names(&mut self, dir: Inode, names: Vec<(Name, Option<Inode>)>, after: Option<(Inode, u64)>) -> u64 {
        self.touch(dir, true);
        let tick = self.ticks;
        let body = self.node_mut(dir).as_dir_mut().expect("names change in a directory");
        let what = NameChange { tick, names, after };
        what.apply(&mut body.now);
        body.pending.push(Pending { what, failed: false });
        tick
    }

    fn change(&mut self, inode: Inode, change: Change) -> io::Result<()> {
        let file = self.file_mut(inode)?;
        change.apply(&mut file.now);
        file.pending.push(Pending { what: change, failed: false });
        self.touch(inode, true);
        Ok(())
    }

    fn unname(&mut self, inode: Inode) {
        self.node_mut(inode).names -= 1;
        self.touch(inode, false);
    }

    fn touch(&mut self, inode: Inode, modified: bool) {
        self.ticks += 1;
        let ticks = self.ticks;
        let times = &mut self.node_mut(inode).times;
        times.changed = ticks;
        if modified {
            times.modified = (ticks as i64, 0);
        }
    }

    /// The bytes that still fit.
    fn room(&self) -> Option<u64> {
        let live = self.nodes.values().filter(|node| node.names > 0 || node.open > 0);
        Some(self.limit?.saturating_sub(live.map(Node::takes).sum()))
    }

    pub(super) fn node_mut(&mut self, inode: Inode) -> &mut Node {
        self.nodes.get_mut(&inode).expect("what was made stays")
    }

    fn is_dir(&self, inode: Inode) -> bool {
        self.nodes[&inode].as_dir().is_some()
    }

    fn dir(&self, inode: Inode) -> io::Result<&DirBody> {
        match &self.nodes[&inode].body {
            Body::Dir(dir) => Ok(dir),
            Body::File(_) => Err(Errno::NOTDIR.into()),
            Body::Symlink => Err(Errno::LOOP.into()),
        }
    }

    fn file(&self, inode: Inode) -> io::Result<&FileBody> {
        match &self.nodes[&inode].body {
            Body::File(file) => Ok(file),
            Body::Dir(_) => Err(Errno::ISDIR.into()),
            Body::Symlink => Err(Errno::LOOP.into()),
        }
    }

    fn file_mut(&mut self, inode: Inode) -> io::Result<&mut FileBody> {
        self.file(inode)?;
        match &mut self.node_mut(inode).body {
            Body::File(file) => Ok(file),
            Body::Dir(_) | Body::Symlink => unreachable!("it was looked at"),
        }
    }
}

impl Node {
    pub(super) fn as_dir(&self) -> Option<&DirBody> {
        if let Body::Dir(dir) = &self.body { Some(dir) } else { None }
    }

    fn as_dir_mut(&mut self) -> Option<&mut DirBody> {
        if let Body::Dir(dir) = &mut self.body { Some(dir) } else { None }
    }

    /// What it takes on the disk, in bytes.
    fn takes(&self) -> u64 {
        match &self.body {
            Body::File(file) => (file.now.len() as u64).max(file.set_aside).next_multiple_of(PAGE as u64),
            Body::Dir(_) | Body::Symlink => 0,
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes: written } => {
                bytes.resize(bytes.len().max(at + written.len()), 0);
                bytes[*at..at + written.len()].copy_from_slice(written);
            }
            Self::Len(len) => bytes.resize(*len, 0),
        }
    }
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<Name, Inode>) {
        for (name, inode) in &self.names {
            match inode {
                Some(inode) => drop(names.insert(name.clone(), *inode)),
                None => drop(names.remove(name)),
            }
        }
    }
}
