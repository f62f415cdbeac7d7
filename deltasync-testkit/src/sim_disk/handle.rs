//! An open file or directory of a simulated disk: each call to it is counted, and goes wrong if that is its turn.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use deltasync_core::{Name, RelPath};
use deltasync_io::{DiskDir, DiskFile, DiskKind, DiskSpace, DiskStat, DiskXattrs};
use rustix::io::Errno;

use super::image::{Image, Inode};
use super::{SimCall, SimDisk, SimFault, State};

/// An open file or directory.
pub(super) struct Handle {
    disk: SimDisk,
    inode: Inode,
    writable: bool,
    /// The failed syncs that it has been told of, or that were before it: each is told once through each handle.
    told: AtomicU64,
    /// Whether it holds a lock, and a shared one.
    lock: Mutex<Option<bool>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.inode)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if let Some(shared) = *self.lock.get_mut().unwrap_or_else(PoisonError::into_inner) {
            state.image.unlock(self.inode, shared);
        }
        state.image.close(self.inode);
    }
}

impl Handle {
    pub(super) fn new(disk: SimDisk, inode: Inode, writable: bool, failed_syncs: u64) -> Self {
        Self { disk, inode, writable, told: AtomicU64::new(failed_syncs), lock: Mutex::default() }
    }

    /// One call: `f` does it, unless the plan says otherwise.
    fn call<T>(&self, call: SimCall, f: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        match state.begin(call, self.inode)? {
            Some(SimFault::Errno(errno) | SimFault::Torn(_, errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(SimFault::Crash) => {
                // What it did may last or not, as all that is not synced. A handle that it opened takes the lock to close.
                let done = f(&mut state);
                drop(state);
                drop(done);
                Err(Errno::IO.into())
            }
            Some(SimFault::Short) | None => f(&mut state),
        }
    }

    fn open_file(&self, state: &mut State, inode: Inode, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        match state.image.stat(inode).kind {
            DiskKind::Symlink => Err(Errno::LOOP.into()),
            DiskKind::Directory if writable => Err(Errno::ISDIR.into()),
            _ => Ok(self.disk.handle(state, inode, writable)),
        }
    }

    fn open_directory(&self, state: &mut State, inode: Inode) -> io::Result<Arc<dyn DiskDir>> {
        state.image.names(inode)?;
        Ok(self.disk.handle(state, inode, false))
    }

    /// Another directory of this disk.
    fn other(&self, dir: &dyn DiskDir) -> io::Result<Inode> {
        let other: &Self = dir.as_any().downcast_ref().ok_or(Errno::XDEV)?;
        if Arc::ptr_eq(&self.disk.0, &other.disk.0) { Ok(other.inode) } else { Err(Errno::XDEV.into()) }
    }

    /// Takes a lock, in place of the one it holds.
    fn take(&self, shared: bool) -> io::Result<bool> {
        self.call(SimCall::Lock, |state| {
            let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(shared) = held.take() {
                state.image.unlock(self.inode, shared);
            }
            *held = state.image.lock(self.inode, shared).then_some(shared);
            Ok(held.is_some())
        })
    }

    fn written(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(Errno::BADF.into()) }
    }

    fn sync_call(&self, call: SimCall, f: impl FnOnce(&mut Image) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.disk.state();
        match state.begin(call, self.inode)? {
            Some(SimFault::Errno(errno) | SimFault::Torn(_, errno)) => {
                if errno != Errno::INTR.raw_os_error() {
                    state.image.fail_sync(self.inode);
                    self.told.store(state.image.failed_syncs(self.inode), Ordering::Relaxed);
                }
                Err(io::Error::from_raw_os_error(errno))
            }
            Some(SimFault::Crash) => Err(Errno::IO.into()),
            Some(SimFault::Short) | None => {
                let failed = state.image.failed_syncs(self.inode);
                f(&mut state.image)?;
                // Through another handle, since this one was opened.
                if self.told.swap(failed, Ordering::Relaxed) < failed { Err(Errno::IO.into()) } else { Ok(()) }
            }
        }
    }
}

impl DiskXattrs for Handle {}

impl DiskDir for Handle {
    fn file_beneath(&self, path: &RelPath) -> io::Result<Arc<dyn DiskFile>> {
        self.call(SimCall::Open, |state| {
            let inode = state.image.walk(self.inode, path)?;
            self.open_file(state, inode, false)
        })
    }

    fn dir_beneath(&self, path: &RelPath) -> io::Result<Arc<dyn DiskDir>> {
        self.call(SimCall::OpenDir, |state| {
            let inode = state.image.walk(self.inode, path)?;
            self.open_directory(state, inode)
        })
    }

    fn stat_beneath(&self, path: &RelPath) -> io::Result<DiskStat> {
        self.call(SimCall::Stat, |state| Ok(state.image.stat(state.image.walk(self.inode, path)?)))
    }

    fn create(&self, name: &Name, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        self.call(SimCall::Create, |state| {
            let inode = state.image.create(self.inode, name, mode)?;
            self.open_file(state, inode, true)
        })
    }

    fn open(&self, name: &Name) -> io::Result<Arc<dyn DiskFile>> {
        self.call(SimCall::Open, |state| {
            let inode = state.image.find(self.inode, name)?;
            self.open_file(state, inode, false)
        })
    }

    fn open_own(&self, name: &Name, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        self.call(SimCall::Open, |state| {
            let found = state.image.find(self.inode, name);
            let inode = found.or_else(|_| state.image.create(self.inode, name, mode))?;
            self.open_file(state, inode, true)
        })
    }

    fn open_dir(&self, name: &Name) -> io::Result<Arc<dyn DiskDir>> {
        self.call(SimCall::OpenDir, |state| {
            let inode = state.image.find(self.inode, name)?;
            self.open_directory(state, inode)
        })
    }

    fn make_dir(&self, name: &Name, mode: u32) -> io::Result<()> {
        self.call(SimCall::MakeDir, |state| state.image.make_dir(self.inode, name, mode).map(drop))
    }

    fn stat(&self, name: &Name) -> io::Result<DiskStat> {
        self.call(SimCall::Stat, |state| Ok(state.image.stat(state.image.find(self.inode, name)?)))
    }

    fn names(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Name>> + '_>> {
        let names = self.call(SimCall::Names, |state| state.image.names(self.inode))?;
        Ok(Box::new(names.into_iter().map(Ok)))
    }

    fn rename(&self, from: &Name, into: &dyn DiskDir, to: &Name, vacant: bool) -> io::Result<()> {
        let into = self.other(into)?;
        self.call(SimCall::Rename, |state| state.image.rename((self.inode, from), (into, to), vacant))
    }

    fn exchange(&self, one: &Name, other: &Name) -> io::Result<()> {
        self.call(SimCall::Rename, |state| state.image.exchange(self.inode, one, other))
    }

    fn link(&self, from: &Name, into: &dyn DiskDir, to: &Name) -> io::Result<()> {
        let into = self.other(into)?;
        self.call(SimCall::Link, |state| state.image.link((self.inode, from), (into, to)))
    }

    fn remove(&self, name: &Name) -> io::Result<()> {
        self.call(SimCall::Remove, |state| state.image.remove(self.inode, name, false))
    }

    fn remove_dir(&self, name: &Name) -> io::Result<()> {
        self.call(SimCall::RemoveDir, |state| state.image.remove(self.inode, name, true))
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_call(SimCall::SyncDir, |image| image.sync_dir(self.inode))
    }

    fn lock(&self) -> io::Result<bool> {
        self.take(false)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        DiskFile::set_mode(self, mode)
    }

    fn set_modified(&self, modified: (i64, u32)) -> io::Result<()> {
        DiskFile::set_modified(self, modified)
    }

    fn space(&self) -> io::Result<Option<DiskSpace>> {
        self.call(SimCall::Space, |state| Ok(state.image.space()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl DiskFile for Handle {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.call(SimCall::Read, |state| state.image.read(self.inode, buffer, at))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.written()?;
        let mut state = self.disk.state();
        let part = |len: usize| &bytes[..len.min(bytes.len())];
        match state.begin(SimCall::Write, self.inode)? {
            Some(SimFault::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(SimFault::Short) => state.image.write(self.inode, part(1), at),
            Some(SimFault::Torn(len, errno)) => {
                state.image.write(self.inode, part(len), at)?;
                Err(io::Error::from_raw_os_error(errno))
            }
            Some(SimFault::Crash) => {
                let _ = state.image.write(self.inode, bytes, at);
                Err(Errno::IO.into())
            }
            None => state.image.write(self.inode, bytes, at),
        }
    }

    fn lock(&self, shared: bool) -> io::Result<bool> {
        self.take(shared)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_call(SimCall::SyncData, |image| image.sync_data(self.inode))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written()?;
        self.call(SimCall::SetLen, |state| state.image.set_len(self.inode, len))
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.call(SimCall::SetMode, |state| {
            state.image.set_mode(self.inode, mode);
            Ok(())
        })
    }

    fn set_modified(&self, modified: (i64, u32)) -> io::Result<()> {
        self.call(SimCall::SetModified, |state| {
            state.image.set_modified(self.inode, modified);
            Ok(())
        })
    }

    fn set_aside(&self, len: u64) -> io::Result<()> {
        self.written()?;
        self.call(SimCall::SetAside, |state| state.image.set_aside(self.inode, len))
    }

    fn stat(&self) -> io::Result<DiskStat> {
        self.call(SimCall::Stat, |state| Ok(state.image.stat(self.inode)))
    }
}
