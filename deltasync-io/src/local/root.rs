//! The one module that opens files: a directory handle that nothing climbs out of.
//!
//! A [`Root`] takes only [`RelPath`]s, and the kernel walks them beneath the handle without following a symbolic link
//! (`openat2`, Linux 5.6); where that is missing, each component is opened by itself from the one before it, which gives
//! the same. A [`Dir`] is a directory that was reached so, and takes only single [`Name`]s, which cannot leave it. So a
//! directory that someone turns into a link while we run makes an open fail, or the open has happened before; it is never
//! followed.
//!
//! What is opened for reading is a regular file: others are refused without waiting on them. Names that belong to this
//! back end (its own directory in a served one, staged files anywhere) do not exist for a path.
//!
//! Sources: openat2(2), "Root to leaf without symlinks" flags `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use deltasync_core::{Name, RelPath};
use deltasync_proto::{EntryKind, FaultKind, StorageFault};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::fault::{fault, system_fault};

/// A directory that paths lie below.
#[derive(Debug)]
pub(super) struct Root {
    handle: OwnedFd,
    way: Way,
    /// [`PRIVATE`] is ours in here.
    served: bool,
}

/// How a path is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    #[cfg(target_os = "linux")]
    Kernel,
    Components,
}

/// A directory below a root, open for reading.
#[derive(Debug)]
pub(super) struct Dir(OwnedFd);

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

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A handle that only serves as a starting point; needs no permission to read the directory.
#[cfg(target_os = "linux")]
const START: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const START: OFlags = DIRECTORY;

impl Root {
    /// A root at a path of this machine, which may itself lead through symbolic links. `components` walks as where
    /// `openat2` is missing.
    pub(super) fn open(path: &Path, components: bool) -> io::Result<Self> {
        let handle = rustix::fs::open(path, START, Mode::empty())?;
        let way = if components { Way::Components } else { Way::known_to(&handle)? };
        Ok(Self { handle, way, served: false })
    }

    /// Makes the directory that is ours in a served root, if it is not there, and hides it from paths.
    pub(super) fn reserve(&mut self) -> io::Result<Dir> {
        let root = Dir(rustix::fs::openat(&self.handle, ".", DIRECTORY, Mode::empty())?);
        self.served = true;
        root.make_dir(PRIVATE, Mode::RWXU)?;
        root.open_dir(PRIVATE)
    }

    /// Opens a regular file for reading. Does not wait, whatever stands there.
    pub(super) fn file(&self, path: &RelPath) -> Result<File, Trouble> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let handle = self.open_at(path, flags).map_err(|trouble| match trouble {
            // What open says of a socket.
            Trouble::System(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => Trouble::NotFile,
            trouble => trouble,
        })?;
        match kind_of(&rustix::fs::fstat(&handle)?) {
            FileType::RegularFile => Ok(handle.into()),
            FileType::Directory => Err(Trouble::Directory),
            _ => Err(Trouble::NotFile),
        }
    }

    /// Opens a directory.
    pub(super) fn directory(&self, path: &RelPath) -> Result<Dir, Trouble> {
        self.open_at(path, DIRECTORY).map(Dir)
    }

    /// Opens a directory; makes it and those on the way there that are missing, each durable in the one that holds it.
    /// Also returns what was made, the deepest last.
    pub(super) fn make_directory(&self, path: &RelPath) -> Result<(Dir, Vec<(Dir, Name)>), Trouble> {
        match self.directory(path) {
            Err(Trouble::System(error)) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found.map(|dir| (dir, Vec::new())),
        }
        let mut dir = self.directory(&RelPath::ROOT)?;
        let mut made = Vec::new();
        for name in path.components() {
            let new = dir.make_dir(name.as_bytes(), Mode::from_raw_mode(0o777))?;
            let next = dir.open_dir(name.as_bytes()).map_err(|error| dir.trouble(name.as_bytes(), error))?;
            let parent = std::mem::replace(&mut dir, next);
            if new {
                made.push((parent, name));
            }
        }
        Ok((dir, made))
    }

    /// What stands at a path, links not followed; `None` when nothing does.
    pub(super) fn stat(&self, path: &RelPath) -> Result<Option<Stat>, Trouble> {
        let Some((parent, name)) = path.split_last() else {
            return Ok(Some(rustix::fs::fstat(&self.handle)?));
        };
        self.check(path)?;
        let found = self
            .open_at(&parent, START)
            .and_then(|parent| Ok(rustix::fs::statat(&parent, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?));
        match found {
            Err(trouble) if trouble.is_absent() => Ok(None),
            found => found.map(Some),
        }
    }

    /// True for a name that a listing of this directory leaves out.
    pub(super) fn hides(&self, directory: &RelPath, name: &[u8]) -> bool {
        // Without regard to case, for file systems that have none.
        is_staged(name) || self.served && directory.is_root() && name.eq_ignore_ascii_case(PRIVATE)
    }

    fn check(&self, path: &RelPath) -> Result<(), Trouble> {
        let mut components = path.components();
        let first = components.next();
        let reserved = first.is_some_and(|name| self.hides(&RelPath::ROOT, name.as_bytes()))
            || components.any(|name| is_staged(name.as_bytes()));
        if reserved { Err(Trouble::Reserved) } else { Ok(()) }
    }

    fn open_at(&self, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Trouble> {
        self.check(path)?;
        match self.way {
            #[cfg(target_os = "linux")]
            Way::Kernel => kernel(&self.handle, path, flags).map_err(Trouble::from),
            Way::Components => components(&self.handle, path, flags),
        }
    }
}

impl Way {
    /// The better way that this system knows.
    #[cfg(target_os = "linux")]
    fn known_to(handle: &OwnedFd) -> io::Result<Self> {
        match kernel(handle, &RelPath::ROOT, START) {
            Ok(_) => Ok(Self::Kernel),
            // Older systems lack it, and some sandboxes forbid what they do not know.
            Err(Errno::NOSYS | Errno::PERM) => Ok(Self::Components),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn known_to(_: &OwnedFd) -> io::Result<Self> {
        Ok(Self::Components)
    }
}

#[cfg(target_os = "linux")]
fn kernel(root: &OwnedFd, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;
    let path = if path.is_root() { b"." } else { path.as_bytes() };
    let confined = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), confined) {
            // A rename elsewhere came between, or a signal.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}

fn components(root: &OwnedFd, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Trouble> {
    let Some((parent, last)) = path.split_last() else {
        return Ok(rustix::fs::openat(root, ".", flags, Mode::empty())?);
    };
    let mut dir = Dir(rustix::fs::openat(root, ".", START, Mode::empty())?);
    let step = |dir: &Dir, name: &Name, flags| {
        let opened = rustix::fs::openat(&dir.0, name.as_bytes(), flags | OFlags::NOFOLLOW, Mode::empty());
        opened.map_err(|error| dir.trouble(name.as_bytes(), error.into()))
    };
    for name in parent.components() {
        dir = Dir(step(&dir, &name, START)?);
    }
    step(&dir, &last, flags)
}

impl Dir {
    /// Makes a file for writing and reading; fails when the name is taken.
    pub(super) fn create(&self, name: &Name, mode: Mode) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name.as_bytes(), flags, mode)?.into())
    }

    /// Opens a file for reading; a link is not followed.
    pub(super) fn open_file(&self, name: &Name) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name.as_bytes(), flags, Mode::empty())?.into())
    }

    /// Opens a file of ours for reading and writing, and makes it if it is not there.
    pub(super) fn open_own(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Opens a directory of ours, and makes it if it is not there.
    pub(super) fn own_dir(&self, name: &str) -> io::Result<Self> {
        self.make_dir(name.as_bytes(), Mode::RWXU)?;
        self.open_dir(name.as_bytes())
    }

    /// What has this name, links not followed; `None` when nothing has.
    pub(super) fn stat(&self, name: &Name) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.0, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The device this directory lies on.
    pub(super) fn device(&self) -> io::Result<u64> {
        #[allow(clippy::unnecessary_cast, reason = "it has another type on other systems")]
        Ok(rustix::fs::fstat(&self.0)?.st_dev as u64)
    }

    /// The names in it, in no order, without `.` and `..`, and without what cannot be a [`Name`].
    pub(super) fn names(&self) -> io::Result<impl Iterator<Item = io::Result<Name>>> {
        let entries = rustix::fs::Dir::read_from(&self.0)?;
        Ok(entries.filter_map(|entry| match entry {
            Ok(entry) => Name::new(entry.file_name().to_bytes()).ok().map(Ok),
            Err(error) => Some(Err(error.into())),
        }))
    }

    /// Moves a file to a name in this or another directory, in one step, over what has that name.
    pub(super) fn rename(&self, from: &Name, into: &Self, to: &Name) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from.as_bytes(), &into.0, to.as_bytes())?)
    }

    /// Gives a file another name in this or another directory, unless that is taken. Of a link it is the link itself.
    pub(super) fn link(&self, from: &Name, into: &Self, to: &Name) -> io::Result<()> {
        Ok(rustix::fs::linkat(&self.0, from.as_bytes(), &into.0, to.as_bytes(), AtFlags::empty())?)
    }

    /// Removes a file.
    pub(super) fn remove(&self, name: &Name) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name.as_bytes(), AtFlags::empty())?)
    }

    /// Removes a directory that is empty.
    pub(super) fn remove_dir(&self, name: &Name) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name.as_bytes(), AtFlags::REMOVEDIR)?)
    }

    /// Makes the names in it durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    /// Takes the directory for this process as long as it is held; false when another one has it.
    pub(super) fn lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a directory, durably; false when the name was taken.
    fn make_dir(&self, name: &[u8], mode: Mode) -> io::Result<bool> {
        match rustix::fs::mkdirat(&self.0, name, mode) {
            Ok(()) => self.sync().map(|()| true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Self> {
        Ok(Self(rustix::fs::openat(&self.0, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?))
    }

    /// Tells a link from what else may stand in the way, which an open with `NOFOLLOW` does not always.
    fn trouble(&self, name: &[u8], error: io::Error) -> Trouble {
        let stat = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW);
        match stat {
            Ok(stat) if kind_of(&stat) == FileType::Symlink => Trouble::Symlink,
            _ => error.into(),
        }
    }
}

impl Trouble {
    /// The fault at this path, for the peer.
    pub(super) fn at(self, path: &RelPath) -> StorageFault {
        match self {
            Self::Reserved => fault(FaultKind::NotFound, path, "No such file or directory"),
            Self::Symlink => fault(FaultKind::Denied, path, "symbolic links are not followed"),
            Self::Directory => fault(FaultKind::WrongKind, path, "is a directory"),
            Self::NotDirectory => fault(FaultKind::WrongKind, path, "not a directory"),
            Self::NotFile => fault(FaultKind::WrongKind, path, "not a regular file"),
            Self::System(error) => system_fault(path, &error),
        }
    }

    /// True when nothing stands there.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::System(error) if error.kind() == io::ErrorKind::NotFound)
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

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

/// What a path is, for a listing.
pub(super) fn entry_kind(stat: &Stat) -> EntryKind {
    match kind_of(stat) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        _ => EntryKind::Other,
    }
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
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
fn is_staged(name: &[u8]) -> bool {
    name.len().checked_sub(8).and_then(|at| name.split_at_checked(at)).is_some_and(|(start, digits)| {
        name[0] == b'.' && start.ends_with(STAGED) && digits.iter().all(u8::is_ascii_hexdigit)
    })
}
