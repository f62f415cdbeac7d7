//! A disk in memory that fails, tears and forgets on demand: for the real storage to run over.
//!
//! A [`SimDisk`] does what a file system does, counts the calls and lets one of them go wrong as planned: fail with any
//! error number, write less than it was given, write a part and fail, or be the last before the machine is dead.
//! [`SimDisk::power_cut`] makes the disk that is found afterwards: what was synced is there, and of the rest whatever a
//! seed draws; see `cut` for what that may be.
//!
//! There is no clock and no chance in it: the times of files count the changes made to the disk.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltasync_core::{Name, RelPath};
use deltasync_io::{DiskDir, DiskKind};
use rustix::io::Errno;

use crate::Rng;

mod cut;
mod handle;
mod image;

use handle::Handle;
use image::{Image, Inode, TOP};

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// What can go wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimFault {
    /// It does nothing and fails with this error number. A sync that fails, unless interrupted, has lost what it should
    /// have made durable: no later one will.
    Errno(i32),
    /// A write takes one byte where it could take more. Other calls are not touched.
    Short,
    /// A write takes so many bytes at most and then fails with this error number. Other calls just fail.
    Torn(usize, i32),
    /// The machine dies: the call is done or not, and it and all after it fail.
    Crash,
}

/// What can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SimCall {
    /// [`DiskDir::file_beneath`], [`DiskDir::open`], [`DiskDir::open_own`].
    Open,
    /// [`DiskDir::dir_beneath`], [`DiskDir::open_dir`].
    OpenDir,
    /// [`DiskDir::stat`], [`DiskDir::stat_beneath`], [`DiskFile::stat`](deltasync_io::DiskFile::stat).
    Stat,
    /// [`DiskDir::create`].
    Create,
    /// [`DiskDir::make_dir`].
    MakeDir,
    /// [`DiskDir::names`].
    Names,
    /// [`DiskDir::rename`], [`DiskDir::exchange`].
    Rename,
    /// [`DiskDir::link`].
    Link,
    /// [`DiskDir::remove`].
    Remove,
    /// [`DiskDir::remove_dir`].
    RemoveDir,
    /// [`DiskDir::sync`].
    SyncDir,
    /// [`DiskDir::lock`], [`DiskFile::lock`](deltasync_io::DiskFile::lock).
    Lock,
    /// [`DiskDir::space`].
    Space,
    /// [`DiskFile::read_at`](deltasync_io::DiskFile::read_at).
    Read,
    /// [`DiskFile::write_at`](deltasync_io::DiskFile::write_at).
    Write,
    /// [`DiskFile::sync_data`](deltasync_io::DiskFile::sync_data).
    SyncData,
    /// [`DiskFile::set_len`](deltasync_io::DiskFile::set_len).
    SetLen,
    /// [`DiskFile::set_mode`](deltasync_io::DiskFile::set_mode), [`DiskDir::set_mode`].
    SetMode,
    /// [`DiskFile::set_modified`](deltasync_io::DiskFile::set_modified), [`DiskDir::set_modified`].
    SetModified,
    /// [`DiskFile::set_aside`](deltasync_io::DiskFile::set_aside).
    SetAside,
}

struct State {
    image: Image,
    /// All calls so far.
    calls: Vec<(SimCall, Inode)>,
    plan: Option<Plan>,
    /// What the plan has hit.
    hit: Option<(SimCall, String)>,
    dead: bool,
}

/// The call `left` calls from now, of those that it is about, goes wrong.
struct Plan {
    left: u64,
    of: Option<SimCall>,
    fault: SimFault,
}

impl SimDisk {
    /// An empty disk.
    #[allow(clippy::new_without_default, reason = "an empty disk is no default of anything")]
    pub fn new() -> Self {
        Self::of(Image::new())
    }

    /// The directory that holds everything.
    pub fn root(&self) -> Arc<dyn DiskDir> {
        self.handle(&mut self.state(), TOP, false)
    }

    /// A second disk with the same on it, nothing open and nothing planned.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self::of(self.state().image.closed())
    }

    /// The disk as it is found after the power was cut now: all that was synced, and of the rest what `rng` draws.
    #[must_use]
    pub fn power_cut(&self, rng: &mut Rng) -> Self {
        Self::of(self.state().image.power_cut(rng))
    }

    /// Lets the `n`-th call from now go wrong, from 1 on; only calls of one kind count if `of` says so. Takes the place of
    /// what was planned before.
    pub fn fail(&self, n: u64, of: Option<SimCall>, fault: SimFault) {
        let mut state = self.state();
        (state.plan, state.hit) = (Some(Plan { left: n, of, fault }), None);
    }

    /// The call that went wrong as planned, if one has, and the file or directory that it was to: by a path, or empty when
    /// it had none, or was the root.
    pub fn hit(&self) -> Option<(SimCall, String)> {
        self.state().hit.clone()
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<SimCall> {
        self.state().calls.iter().map(|(call, _)| *call).collect()
    }

    /// All calls so far, each with the file or directory that it was to: by a path that it has now, or empty as for
    /// [`hit`](Self::hit).
    pub fn calls_to(&self) -> Vec<(SimCall, String)> {
        let state = self.state();
        let paths: BTreeMap<_, _> = state.image.paths().into_iter().map(|(path, inode)| (inode, path)).collect();
        let path = |inode: &Inode| paths.get(inode).cloned().unwrap_or_default();
        state.calls.iter().map(|(call, inode)| (*call, path(inode))).collect()
    }

    /// Bounds what all files may take, in bytes.
    pub fn limit(&self, bytes: Option<u64>) {
        self.state().image.limit = bytes;
    }

    /// Writes a file as another program would, in place; directories on the way are made. It is durable at once, with
    /// all else on the disk, and no call.
    ///
    /// # Panics
    ///
    /// When something else stands there.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let mut state = self.state();
        let (dir, name) = state.image.parent_of(path);
        let file = state.image.find(dir, &name).or_else(|_| state.image.create(dir, &name, 0o644));
        let file = file.expect("a file can be there");
        state.image.set_len(file, 0).expect("it is a file");
        state.image.write(file, bytes, 0).expect("there is room");
        state.image.settle();
    }

    /// Makes a directory and those on the way, durably.
    ///
    /// # Panics
    ///
    /// When something else stands there.
    pub fn make_dir(&self, path: &str) {
        let mut state = self.state();
        let (dir, name) = state.image.parent_of(path);
        if state.image.find(dir, &name).is_err() {
            state.image.make_dir(dir, &name, 0o755).expect("nothing is there");
        }
        state.image.settle();
    }

    /// Makes a symbolic link, durably. Nothing follows one here, so it leads nowhere.
    ///
    /// # Panics
    ///
    /// When something stands there.
    pub fn symlink(&self, path: &str) {
        let mut state = self.state();
        let (dir, name) = state.image.parent_of(path);
        state.image.symlink(dir, &name).expect("nothing is there");
        state.image.settle();
    }

    /// Moves what stands at a path, durably, as another program would.
    ///
    /// # Panics
    ///
    /// When that cannot be.
    pub fn rename(&self, from: &str, to: &str) {
        let mut state = self.state();
        let ((dir, name), (into, to)) = (state.image.parent_of(from), state.image.parent_of(to));
        state.image.rename((dir, &name), (into, &to), false).expect("it can be moved");
        state.image.settle();
    }

    /// The bytes of a file; `None` when there is none.
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        let path = RelPath::new(path.as_bytes()).ok()?;
        let state = self.state();
        let inode = state.image.walk(TOP, &path).ok()?;
        state.image.bytes(inode)
    }

    /// Everything on it by path: the bytes of files, `None` for what is no file.
    pub fn tree(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let state = self.state();
        state.image.paths().into_iter().map(|(path, inode)| (path, state.image.bytes(inode))).collect()
    }

    fn of(image: Image) -> Self {
        Self(Arc::new(Mutex::new(State { image, calls: Vec::new(), plan: None, hit: None, dead: false })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, state: &mut State, inode: Inode, writable: bool) -> Arc<Handle> {
        state.image.open(inode);
        Arc::new(Handle::new(self.clone(), inode, writable, state.image.failed_syncs(inode)))
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

impl State {
    /// Counts a call; fails on a dead machine, and says whether the plan is about this call.
    fn begin(&mut self, call: SimCall, inode: Inode) -> io::Result<Option<SimFault>> {
        if self.dead {
            return Err(Errno::IO.into());
        }
        self.calls.push((call, inode));
        let Some(plan) = self.plan.as_mut().filter(|plan| plan.of.is_none_or(|of| of == call)) else { return Ok(None) };
        plan.left = plan.left.saturating_sub(1);
        if plan.left > 0 {
            return Ok(None);
        }
        let fault = plan.fault;
        (self.plan, self.hit, self.dead) = (None, Some((call, self.image.path_of(inode))), fault == SimFault::Crash);
        Ok(Some(fault))
    }
}

impl Image {
    /// The directory of a path, made if it is missing, and the name in it.
    fn parent_of(&mut self, path: &str) -> (Inode, Name) {
        let path = RelPath::new(path.as_bytes()).expect("a test names valid paths");
        let (parent, name) = path.split_last().expect("it has a name");
        let dir = parent.components().fold(TOP, |dir, name| {
            self.find(dir, &name).or_else(|_| self.make_dir(dir, &name, 0o755)).expect("a directory can be there")
        });
        (dir, name)
    }

    /// Everything by its path.
    fn paths(&self) -> BTreeMap<String, Inode> {
        let mut paths = BTreeMap::new();
        let mut dirs = vec![(String::new(), TOP)];
        while let Some((path, dir)) = dirs.pop() {
            for name in self.names(dir).into_iter().flatten() {
                let inode = self.find(dir, &name).expect("it was listed");
                let path = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
                if self.stat(inode).kind == DiskKind::Directory {
                    dirs.push((path.clone(), inode));
                }
                paths.insert(path, inode);
            }
        }
        paths
    }

    fn path_of(&self, inode: Inode) -> String {
        self.paths().into_iter().find(|(_, at)| *at == inode).map_or_else(String::new, |(path, _)| path)
    }

    fn bytes(&self, inode: Inode) -> Option<Vec<u8>> {
        let stat = self.stat(inode);
        let mut bytes = vec![0; usize::try_from(stat.len).expect("it is in memory")];
        self.read(inode, &mut bytes, 0).ok()?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests;
