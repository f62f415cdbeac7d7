//! The names of a directory that peers may use, on whatever disk.
//!
//! A [`Root`] takes only [`RelPath`]s, and the disk walks them beneath the handle without following a symbolic link: see
//! [`DiskDir`]. A [`Dir`] is a directory that was reached so, and takes only single [`Name`]s, which cannot leave it. There
//! is no other way to a file.
//!
//! What is opened for reading is a regular file: others are refused without waiting on them. Names that belong to this
//! back end (its own directory in a served one, staged files anywhere) do not exist for a path. A call that a signal
//! interrupts is repeated.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use deltasync_core::{Name, RelPath};
use deltasync_proto::{EntryKind, FaultKind, StorageFault};
use rustix::io::Errno;

use crate::disk::{AnyFile, DiskDir, DiskKind, DiskSpace, DiskStat, DiskXattrs, SystemDir, uninterrupted};
use crate::fault::{fault, system_fault};

/// A directory that paths lie below.
#[derive(Debug)]
pub(super) struct Root {
    start: Arc<dyn DiskDir>,
    /// The path that leads to it: of all others nothing is there.
    stands_for: RelPath,
    /// [`PRIVATE`] is ours in here.
    served: bool,
    /// Held while directories are made: nobody takes one for durable that is not yet.
    making: Mutex<()>,
    /// A sync of a directory of a tree has failed.
    doubtful: Arc<AtomicBool>,
    /// A tree in it has been exchanged for another one.
    exchanged: AtomicBool,
}

/// A directory below a root, open for reading.
#[derive(Debug)]
pub(super) struct Dir(Arc<dyn DiskDir>);

/// Why something below a root could not be opened.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The name is one of ours.
    Reserved,
    /// A symbolic link stands there or on the way.
    Symlink,
    /// A directory stands where a file should be.
    Directory,
    /// Something else stands where a directory should be.
    NotDirectory,
    /// A device, a socket or the like stands where a file should be.
    NotFile,
    /// What the system says.
    System(io::Error),
}

/// The directory of a served root that is ours.
pub(super) const PRIVATE: &[u8] = b".deltasync";

/// What stands between the name of a target and 8 hexadecimal digits in the name of a file staged beside it.
const STAGED: &[u8] = b".deltasync-";

impl Root {
    /// The directory as a root.
    pub(super) fn new(start: Arc<dyn DiskDir>) -> Self {
        let (stands_for, making, doubtful) = (RelPath::ROOT, Mutex::default(), Arc::default());
        Self { start, stands_for, served: false, making, doubtful, exchanged: AtomicBool::new(false) }
    }

    /// A tree in it is being exchanged for another one: a directory that was opened before may be none of it any more.
    pub(super) fn exchange(&self) {
        self.exchanged.store(true, Ordering::Relaxed);
    }

    /// True once one has been, and for what may become one.
    pub(super) fn is_exchanged(&self) -> bool {
        self.exchanged.load(Ordering::Relaxed)
    }

    /// A root in which a directory stands for a path of this one: only what is below that is there. What is doubtful of one
    /// is of both.
    pub(super) fn with_in_place(&self, path: RelPath, directory: Dir) -> Self {
        let (doubtful, exchanged) = (Arc::clone(&self.doubtful), AtomicBool::new(true));
        Self { stands_for: path, doubtful, exchanged, ..Self::new(directory.0) }
    }

    /// A sync of a directory of a tree has failed: what is in it may not last, and nobody can tell of which.
    pub(super) fn doubt(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    /// True once one has.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed)
    }

    /// Makes the directory that is ours in a served root, if it is not there, and hides it from paths.
    pub(super) fn reserve(&mut self) -> io::Result<Dir> {
        let root = Dir(uninterrupted(|| self.start.dir_beneath(&RelPath::ROOT))?);
        self.served = true;
        let private = Name::new(PRIVATE).expect("letters after a dot are a name");
        root.make_dir(&private, 0o700)?;
        root.open_dir(&private)
    }

    /// Opens a regular file for reading. Does not wait, whatever stands there.
    pub(super) fn file(&self, path: &RelPath) -> Result<AnyFile, Trouble> {
        let path = &self.check(path)?;
        let file: AnyFile = match uninterrupted(|| self.start.file_beneath(path)) {
            Ok(file) => file.into(),
            // What open says of a socket.
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => return Err(Trouble::NotFile),
            Err(error) => return Err(error.into()),
        };
        match file.stat()?.kind {
            DiskKind::File => Ok(file),
            DiskKind::Directory => Err(Trouble::Directory),
            DiskKind::Symlink => Err(Trouble::Symlink),
            DiskKind::Other => Err(Trouble::NotFile),
        }
    }

    /// Opens a directory.
    pub(super) fn directory(&self, path: &RelPath) -> Result<Dir, Trouble> {
        let path = &self.check(path)?;
        Ok(Dir(uninterrupted(|| self.start.dir_beneath(path))?))
    }

    /// Opens a directory; makes it and those on the way there that are missing, each durable in the one that holds it.
    /// Also returns what was made, the deepest last.
    pub(super) fn make_directory(&self, path: &RelPath) -> Result<(Dir, Vec<(Dir, Name)>), Trouble> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        match self.directory(path) {
            Err(Trouble::System(error)) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found.map(|dir| (dir, Vec::new())),
        }
        let mut dir = self.directory(&self.stands_for)?;
        let mut made = Vec::new();
        for name in self.check(path)?.components() {
            let new = dir.make_dir(&name, 0o777)?;
            let next = dir.open_dir(&name)?;
            let parent = std::mem::replace(&mut dir, next);
            if new {
                made.push((parent, name));
            }
        }
        Ok((dir, made))
    }

    /// Does something while no directories are made.
    pub(super) fn while_none_is_made<T>(&self, f: impl FnOnce() -> T) -> T {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        f()
    }

    /// Makes a directory in one that is there, durably; false when something is there, and for the root.
    pub(super) fn make_one_directory(&self, path: &RelPath) -> Result<bool, Trouble> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((above, name)) = self.check(path)?.split_last() else { return Ok(false) };
        let parent = Dir(uninterrupted(|| self.start.dir_beneath(&above))?);
        Ok(parent.make_dir(&name, 0o777)?)
    }

    /// What stands at a path, links not followed; `None` when nothing does.
    pub(super) fn stat(&self, path: &RelPath) -> Result<Option<DiskStat>, Trouble> {
        let path = &self.check(path)?;
        match uninterrupted(|| self.start.stat_beneath(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => Ok(Some(found?)),
        }
    }

    /// True for a name that a listing of this directory leaves out.
    pub(super) fn hides(&self, directory: &RelPath, name: &[u8]) -> bool {
        // Without regard to case, for file systems that have none.
        is_staged(name) || self.served && directory.is_root() && name.eq_ignore_ascii_case(PRIVATE)
    }

    /// The path below the directory that it leads to.
    fn check(&self, path: &RelPath) -> Result<RelPath, Trouble> {
        let mut components = path.components();
        let first = components.next();
        let reserved = first.is_some_and(|name| self.hides(&RelPath::ROOT, name.as_bytes()))
            || components.any(|name| is_staged(name.as_bytes()));
        if reserved {
            return Err(Trouble::Reserved);
        }
        if self.stands_for.is_root() {
            return Ok(path.clone());
        }
        let below = path.as_bytes().strip_prefix(self.stands_for.as_bytes());
        let below = below.and_then(|below| if below.is_empty() { Some(below) } else { below.strip_prefix(b"/") });
        let below = below.and_then(|below| RelPath::new(below).ok());
        below.ok_or_else(|| Trouble::System(io::ErrorKind::NotFound.into()))
    }
}

impl Dir {
    /// Makes a file for writing and reading; fails when the name is taken.
    pub(super) fn create(&self, name: &Name, mode: u32) -> io::Result<AnyFile> {
        Ok(uninterrupted(|| self.0.create(name, mode))?.into())
    }

    /// Opens a file for reading; a link is not followed.
    pub(super) fn open_file(&self, name: &Name) -> io::Result<AnyFile> {
        Ok(uninterrupted(|| self.0.open(name))?.into())
    }

    /// Opens a file of ours for reading and writing, and makes it if it is not there.
    pub(super) fn open_own(&self, name: &Name) -> io::Result<AnyFile> {
        Ok(uninterrupted(|| self.0.open_own(name, 0o600))?.into())
    }

    /// Opens a directory of ours, and makes it if it is not there.
    pub(super) fn own_dir(&self, name: &Name) -> io::Result<Self> {
        self.make_dir(name, 0o700)?;
        self.open_dir(name)
    }

    /// What has this name, links not followed; `None` when nothing has.
    pub(super) fn stat(&self, name: &Name) -> io::Result<Option<DiskStat>> {
        match uninterrupted(|| self.0.stat(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// The device this directory lies on.
    pub(super) fn device(&self) -> io::Result<u64> {
        Ok(uninterrupted(|| self.0.stat_beneath(&RelPath::ROOT))?.device)
    }

    /// Which directory this is: none other has these as long as it is open.
    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        let is = uninterrupted(|| self.0.stat_beneath(&RelPath::ROOT))?;
        Ok((is.device, is.inode))
    }

    /// How much room there is for us; `None` where that is not known.
    pub(super) fn space(&self) -> io::Result<Option<DiskSpace>> {
        uninterrupted(|| self.0.space())
    }

    /// What the clock that stamps files shows, in seconds since 1970. It makes a file for that in this directory of ours.
    pub(super) fn now(&self) -> io::Result<i64> {
        let name = Name::new("clock").expect("letters are a name");
        let _ = self.remove(&name);
        self.now_by(&name)
    }

    /// The same by a file of this name, which must be free.
    pub(super) fn now_by(&self, name: &Name) -> io::Result<i64> {
        let now = self.create(name, 0o600)?.stat().map(|is| is.modified.0);
        self.remove(name)?;
        now
    }

    /// True for a name of this kind that nobody holds a lock on; only files are locked, and directories are never nobody's.
    pub(super) fn is_nobodys(&self, name: &Name, kind: DiskKind) -> io::Result<bool> {
        match kind {
            DiskKind::File => self.open_file(name)?.lock(false),
            DiskKind::Directory => Ok(false),
            DiskKind::Symlink | DiskKind::Other => Ok(true),
        }
    }

    /// Looks whether a file in it may be read, or a directory listed.
    pub(super) fn may_read(&self, name: &Name, directory: bool) -> io::Result<()> {
        uninterrupted(|| self.0.may_read(name, directory))
    }

    /// The names in it, in no order, without `.` and `..`, and without what cannot be a [`Name`].
    pub(super) fn names(&self) -> io::Result<impl Iterator<Item = io::Result<Name>>> {
        uninterrupted(|| self.0.names())
    }

    /// The same where this handle was opened just now, for less: what has come since may be missing.
    pub(super) fn names_as_opened(&self) -> io::Result<impl Iterator<Item = io::Result<Name>>> {
        uninterrupted(|| self.0.names_as_opened())
    }

    /// Moves a file to a name in this or another directory, in one step, over what has that name.
    pub(super) fn rename(&self, from: &Name, into: &Self, to: &Name) -> io::Result<()> {
        uninterrupted(|| self.0.rename(from, &*into.0, to, false))
    }

    /// Moves a file to a name in this or another directory, in one step, unless that is taken.
    pub(super) fn rename_to_vacant(&self, from: &Name, into: &Self, to: &Name) -> io::Result<()> {
        uninterrupted(|| self.0.rename(from, &*into.0, to, true))
    }

    /// Lets two names in it change places, in one step.
    pub(super) fn exchange(&self, one: &Name, other: &Name) -> io::Result<()> {
        uninterrupted(|| self.0.exchange(one, other))
    }

    /// Gives a file another name in this or another directory, unless that is taken. Of a link it is the link itself.
    pub(super) fn link(&self, from: &Name, into: &Self, to: &Name) -> io::Result<()> {
        uninterrupted(|| self.0.link(from, &*into.0, to))
    }

    /// Removes a file.
    pub(super) fn remove(&self, name: &Name) -> io::Result<()> {
        uninterrupted(|| self.0.remove(name))
    }

    /// Removes a directory that is empty.
    pub(super) fn remove_dir(&self, name: &Name) -> io::Result<()> {
        uninterrupted(|| self.0.remove_dir(name))
    }

    /// Removes a directory that is empty but for files that were staged in it and came to nothing.
    pub(super) fn remove_dir_and_staged(&self, name: &Name) -> io::Result<()> {
        match self.remove_dir(name) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            done => return done,
        }
        let dir = self.open_dir(name)?;
        let names = dir.names()?.collect::<io::Result<Vec<_>>>()?;
        if names.iter().all(|name| is_staged(name.as_bytes())) {
            names.iter().try_for_each(|name| dir.remove(name))?;
        }
        self.remove_dir(name)
    }

    /// Makes a directory, which is durable when this one is synced; false when the name was taken.
    pub(super) fn make_dir_for_now(&self, name: &Name, mode: u32) -> io::Result<bool> {
        match uninterrupted(|| self.0.make_dir(name, mode)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            made => made.map(|()| true),
        }
    }

    /// Where a symbolic link points.
    pub(super) fn read_symlink(&self, name: &Name) -> io::Result<Vec<u8>> {
        uninterrupted(|| self.0.read_symlink(name))
    }

    /// Makes a symbolic link; fails when the name is taken.
    pub(super) fn make_symlink(&self, name: &Name, target: &[u8]) -> io::Result<()> {
        uninterrupted(|| self.0.make_symlink(name, target))
    }

    /// Sets when a symbolic link was modified.
    pub(super) fn set_symlink_modified(&self, name: &Name, modified: (i64, u32)) -> io::Result<()> {
        uninterrupted(|| self.0.set_symlink_modified(name, modified))
    }

    /// Sets its own permission bits.
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        uninterrupted(|| self.0.set_mode(mode))
    }

    /// Sets when it was modified itself.
    pub(super) fn set_modified(&self, modified: (i64, u32)) -> io::Result<()> {
        uninterrupted(|| self.0.set_modified(modified))
    }

    /// Its own extended attributes.
    pub(super) fn attributed(&self) -> &dyn DiskXattrs {
        &*self.0
    }

    /// Its own permission bits.
    pub(super) fn mode(&self) -> io::Result<u32> {
        Ok(uninterrupted(|| self.0.stat_beneath(&RelPath::ROOT))?.mode)
    }

    /// When it was modified itself, in seconds since 1970 and nanoseconds.
    pub(super) fn modified(&self) -> io::Result<(i64, u32)> {
        let (seconds, nanoseconds) = uninterrupted(|| self.0.stat_beneath(&RelPath::ROOT))?.modified;
        Ok((seconds, u32::try_from(nanoseconds).map_err(io::Error::other)?))
    }

    /// Makes all that was written to its disk durable; false when that cannot be done at once. Once it has failed it must
    /// not be tried again.
    pub(super) fn sync_disk(&self) -> io::Result<bool> {
        uninterrupted(|| self.0.sync_disk())
    }

    /// Makes the names in it durable. Once it has failed it must not be tried again.
    pub(super) fn sync(&self) -> io::Result<()> {
        uninterrupted(|| self.0.sync())
    }

    /// The same directory by another handle.
    pub(super) fn reopen(&self) -> io::Result<Self> {
        self.dir_beneath(&RelPath::ROOT)
    }

    /// Takes the directory for this handle as long as it is held; false when another one has it.
    pub(super) fn lock(&self) -> io::Result<bool> {
        uninterrupted(|| self.0.lock())
    }

    /// The directory of this system that it is, if it is one.
    pub(super) fn system(&self) -> Option<&SystemDir> {
        self.0.as_any().downcast_ref()
    }

    /// Makes a directory, durably; false when the name was taken. One that may not last is removed again, as whoever finds
    /// it takes it for durable.
    fn make_dir(&self, name: &Name, mode: u32) -> io::Result<bool> {
        let new = self.make_dir_for_now(name, mode)?;
        if new && let Err(error) = self.sync() {
            // Where that fails too, the first error tells more.
            let _ = uninterrupted(|| self.0.remove_dir(name));
            return Err(error);
        }
        Ok(new)
    }

    /// Opens a directory beneath it, no link being followed.
    pub(super) fn dir_beneath(&self, path: &RelPath) -> io::Result<Self> {
        Ok(Self(uninterrupted(|| self.0.dir_beneath(path))?))
    }

    /// Opens a directory in it.
    pub(super) fn open_dir(&self, name: &Name) -> io::Result<Self> {
        Ok(Self(uninterrupted(|| self.0.open_dir(name))?))
    }
}

impl Trouble {
    /// The fault at this path, for the peer.
    pub(super) fn at(self, path: &RelPath) -> StorageFault {
        match self {
            Self::System(error) => system_fault(path, &error),
            Self::Reserved => fault(FaultKind::NotFound, path, self),
            Self::Symlink => fault(FaultKind::Denied, path, self),
            Self::Directory | Self::NotDirectory | Self::NotFile => fault(FaultKind::WrongKind, path, self),
        }
    }

    /// True for what the system says, not for what stands there.
    pub(super) fn is_of_system(&self) -> bool {
        matches!(self, Self::System(_))
    }

    /// True when nothing stands there.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::System(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// What is wrong, without where.
impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reserved => "No such file or directory",
            Self::Symlink => "symbolic links are not followed",
            Self::Directory => "is a directory",
            Self::NotDirectory => "not a directory",
            Self::NotFile => "not a regular file",
            Self::System(error) => return error.fmt(f),
        })
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
        if is(Errno::LOOP) {
            Self::Symlink
        } else if is(Errno::NOTDIR) {
            Self::NotDirectory
        } else {
            Self::System(error)
        }
    }
}

/// What a path is, for a listing.
pub(super) fn entry_kind(stat: &DiskStat) -> EntryKind {
    match stat.kind {
        DiskKind::File => EntryKind::File,
        DiskKind::Directory => EntryKind::Directory,
        DiskKind::Symlink | DiskKind::Other => EntryKind::Other,
    }
}

/// The name of a file staged beside its target: hidden, and unlike any other by `number`.
pub(super) fn staged_name(target: &Name, number: u32) -> Name {
    let tail = format!("{}{number:08x}", String::from_utf8_lossy(STAGED));
    let room = Name::MAX - 1 - tail.len();
    let target = target.as_bytes();
    let name = [b".", &target[..target.len().min(room)], tail.as_bytes()].concat();
    Name::new(name).expect("a part of a name with letters around it is a name")
}

/// True for what [`staged_name`] makes.
pub(super) fn is_staged(name: &[u8]) -> bool {
    name.len().checked_sub(8).and_then(|at| name.split_at_checked(at)).is_some_and(|(start, digits)| {
        name[0] == b'.' && start.ends_with(STAGED) && digits.iter().all(u8::is_ascii_hexdigit)
    })
}
