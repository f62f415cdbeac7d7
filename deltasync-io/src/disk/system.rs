//! The one module that opens files: a directory handle that nothing climbs out of.
//!
//! The kernel walks a path beneath the handle without following a symbolic link (`openat2`, Linux 5.6); where that is
//! missing, each component is opened by itself from the one before it, which gives the same. So a directory that someone
//! turns into a link while we run makes an open fail, or the open has happened before; it is never followed.
//!
//! Sources: openat2(2), "Root to leaf without symlinks" flags `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`.

use std::any::Any;
#[cfg(target_os = "linux")]
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deltasync_core::{Name, RelPath};
use rustix::fs::{Access, AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::{DiskDir, DiskFile, DiskKind, DiskSpace, DiskStat, DiskXattrs, Names};

/// A directory of the operating system.
#[derive(Debug)]
pub(crate) struct SystemDir {
    handle: OwnedFd,
    way: Way,
    /// Nobody has read it by its own handle, which does that once.
    unread: AtomicBool,
}

/// How a path is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    #[cfg(target_os = "linux")]
    Kernel,
    Components,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A handle that only serves as a starting point; needs no permission to read the directory.
#[cfg(target_os = "linux")]
const START: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const START: OFlags = DIRECTORY;

/// Reads, and waits for nobody.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// How many bytes of a directory are read at a time.
#[cfg(target_os = "linux")]
const NAMES: usize = 32 << 10;

/// What `fstatfs` calls a file system in memory.
#[cfg(target_os = "linux")]
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

impl SystemDir {
    /// A directory at a path of this machine, which may itself lead through symbolic links, as a starting point: what is
    /// to be read or synced is opened beneath it. `components` walks as where `openat2` is missing.
    pub(crate) fn start(path: &Path, components: bool) -> io::Result<Self> {
        let handle = rustix::fs::open(path, START, Mode::empty())?;
        let way = if components { Way::Components } else { Way::known_to(&handle)? };
        Ok(Self { handle, way, unread: AtomicBool::new(false) })
    }

    /// Listens on a socket of this name, in place of what has the name, for its own user.
    pub(crate) fn listen(&self, name: &Name) -> io::Result<UnixListener> {
        match rustix::fs::unlinkat(&self.handle, name.as_bytes(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let listener = UnixListener::bind(self.way_to(name)?)?;
        rustix::fs::chmodat(&self.handle, name.as_bytes(), bits(0o600), AtFlags::empty())?;
        Ok(listener)
    }

    /// Connects to the socket of this name.
    pub(crate) fn connect(&self, name: &Name) -> io::Result<UnixStream> {
        let is = rustix::fs::statat(&self.handle, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(is.st_mode) != FileType::Socket {
            return Err(io::Error::other("it is no socket"));
        }
        UnixStream::connect(self.way_to(name)?)
    }

    /// A path to a name in here that fits into a socket's address, and leads nowhere else.
    #[cfg(target_os = "linux")]
    fn way_to(&self, name: &Name) -> io::Result<PathBuf> {
        use std::os::fd::AsRawFd;
        Ok(Path::new("/proc/self/fd")
            .join(self.handle.as_raw_fd().to_string())
            .join(OsStr::from_bytes(name.as_bytes())))
    }

    #[cfg(not(target_os = "linux"))]
    fn way_to(&self, _: &Name) -> io::Result<PathBuf> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open_at(&self, path: &RelPath, flags: OFlags) -> io::Result<OwnedFd> {
        match self.way {
            #[cfg(target_os = "linux")]
            Way::Kernel => Ok(kernel(&self.handle, path, flags)?),
            Way::Components => components(&self.handle, path, flags),
        }
    }

    fn boxed(&self, handle: OwnedFd) -> Arc<dyn DiskDir> {
        Arc::new(Self { handle, way: self.way, unread: AtomicBool::new(true) })
    }
}

/// The names in a directory, read by its own handle.
#[cfg(target_os = "linux")]
struct NamesAsOpened<'a> {
    handle: &'a OwnedFd,
    buffer: Vec<u8>,
    /// Those of the last piece that were not given out.
    read: std::vec::IntoIter<io::Result<Name>>,
    ended: bool,
}

#[cfg(target_os = "linux")]
impl NamesAsOpened<'_> {
    fn read_more(&mut self) {
        self.buffer.reserve(NAMES);
        let mut entries = rustix::fs::RawDir::new(self.handle, self.buffer.spare_capacity_mut());
        let mut read = Vec::new();
        while !self.ended {
            match entries.next() {
                Some(Ok(entry)) => read.extend(Name::new(entry.file_name().to_bytes()).ok().map(Ok)),
                Some(Err(error)) => {
                    read.push(Err(error.into()));
                    self.ended = true;
                }
                None => self.ended = true,
            }
            if entries.is_buffer_empty() {
                break;
            }
        }
        self.read = read.into_iter();
    }
}

#[cfg(target_os = "linux")]
impl Iterator for NamesAsOpened<'_> {
    type Item = io::Result<Name>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(name) = self.read.next() {
                return Some(name);
            }
            if self.ended {
                return None;
            }
            self.read_more();
        }
    }
}

impl DiskXattrs for SystemDir {
    #[cfg(target_os = "linux")]
    fn xattrs(&self) -> io::Result<Vec<Vec<u8>>> {
        xattrs(&self.handle)
    }

    #[cfg(target_os = "linux")]
    fn xattr(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        xattr(&self.handle, name)
    }

    #[cfg(target_os = "linux")]
    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        set_xattr(&self.handle, name, value)
    }
}

impl DiskDir for SystemDir {
    fn file_beneath(&self, path: &RelPath) -> io::Result<Arc<dyn DiskFile>> {
        Ok(file(self.open_at(path, READ)?))
    }

    fn dir_beneath(&self, path: &RelPath) -> io::Result<Arc<dyn DiskDir>> {
        Ok(self.boxed(self.open_at(path, DIRECTORY)?))
    }

    fn stat_beneath(&self, path: &RelPath) -> io::Result<DiskStat> {
        let Some((parent, name)) = path.split_last() else { return Ok(stat_of(&rustix::fs::fstat(&self.handle)?)) };
        let parent = self.open_at(&parent, START)?;
        Ok(stat_of(&rustix::fs::statat(&parent, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn create(&self, name: &Name, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(file(rustix::fs::openat(&self.handle, name.as_bytes(), flags, bits(mode))?))
    }

    fn open(&self, name: &Name) -> io::Result<Arc<dyn DiskFile>> {
        Ok(file(rustix::fs::openat(&self.handle, name.as_bytes(), READ | OFlags::NOFOLLOW, Mode::empty())?))
    }

    fn open_own(&self, name: &Name, mode: u32) -> io::Result<Arc<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(file(rustix::fs::openat(&self.handle, name.as_bytes(), flags, bits(mode))?))
    }

    fn open_dir(&self, name: &Name) -> io::Result<Arc<dyn DiskDir>> {
        Ok(self.boxed(step(&self.handle, name, DIRECTORY)?))
    }

    fn make_dir(&self, name: &Name, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.handle, name.as_bytes(), bits(mode))?)
    }

    fn stat(&self, name: &Name) -> io::Result<DiskStat> {
        Ok(stat_of(&rustix::fs::statat(&self.handle, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn may_read(&self, name: &Name, directory: bool) -> io::Result<()> {
        let access = if directory { Access::READ_OK.union(Access::EXEC_OK) } else { Access::READ_OK };
        // `ENOSYS` before Linux 5.8: whoever reads finds out.
        let flags = AtFlags::EACCESS.union(AtFlags::SYMLINK_NOFOLLOW);
        Ok(rustix::fs::accessat(&self.handle, name.as_bytes(), access, flags)?)
    }

    fn names(&self) -> io::Result<Names<'_>> {
        let entries = rustix::fs::Dir::read_from(&self.handle)?;
        Ok(Box::new(entries.filter_map(|entry| match entry {
            Ok(entry) => Name::new(entry.file_name().to_bytes()).ok().map(Ok),
            Err(error) => Some(Err(error.into())),
        })))
    }

    #[cfg(target_os = "linux")]
    fn names_as_opened(&self) -> io::Result<Names<'_>> {
        if !self.unread.swap(false, Ordering::Relaxed) {
            return self.names();
        }
        Ok(Box::new(NamesAsOpened {
            handle: &self.handle,
            buffer: Vec::new(),
            read: Vec::new().into_iter(),
            ended: false,
        }))
    }

    fn rename(&self, from: &Name, into: &dyn DiskDir, to: &Name, vacant: bool) -> io::Result<()> {
        let (from, into, to) = (from.as_bytes(), handle_of(into)?, to.as_bytes());
        if !vacant {
            return Ok(rustix::fs::renameat(&self.handle, from, into, to)?);
        }
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        return Ok(rustix::fs::renameat_with(&self.handle, from, into, to, rustix::fs::RenameFlags::NOREPLACE)?);
        #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
        Err(Errno::INVAL.into())
    }

    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    fn exchange(&self, one: &Name, other: &Name) -> io::Result<()> {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        Ok(rustix::fs::renameat_with(&self.handle, one.as_bytes(), &self.handle, other.as_bytes(), flags)?)
    }

    fn link(&self, from: &Name, into: &dyn DiskDir, to: &Name) -> io::Result<()> {
        let into = handle_of(into)?;
        Ok(rustix::fs::linkat(&self.handle, from.as_bytes(), into, to.as_bytes(), AtFlags::empty())?)
    }

    fn remove(&self, name: &Name) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.handle, name.as_bytes(), AtFlags::empty())?)
    }

    fn remove_dir(&self, name: &Name) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.handle, name.as_bytes(), AtFlags::REMOVEDIR)?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.handle)?)
    }

    fn lock(&self) -> io::Result<bool> {
        flock(&self.handle, FlockOperation::NonBlockingLockExclusive)
    }

    fn space(&self) -> io::Result<Option<DiskSpace>> {
        let is = rustix::fs::fstatvfs(&self.handle)?;
        let bytes = |blocks: u64| blocks.saturating_mul(is.f_frsize);
        Ok(Some(DiskSpace { free: bytes(is.f_bavail), total: bytes(is.f_blocks) }))
    }

    fn read_symlink(&self, name: &Name) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.handle, name.as_bytes(), Vec::new())?.into_bytes())
    }

    fn make_symlink(&self, name: &Name, target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.handle, name.as_bytes())?)
    }

    fn set_symlink_modified(&self, name: &Name, modified: (i64, u32)) -> io::Result<()> {
        let times = times(modified);
        Ok(rustix::fs::utimensat(&self.handle, name.as_bytes(), &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.handle, bits(mode))?)
    }

    fn set_modified(&self, modified: (i64, u32)) -> io::Result<()> {
        Ok(rustix::fs::futimens(&self.handle, &times(modified))?)
    }

    #[cfg(target_os = "linux")]
    fn sync_disk(&self) -> io::Result<bool> {
        rustix::fs::syncfs(&self.handle)?;
        Ok(true)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl DiskXattrs for File {
    #[cfg(target_os = "linux")]
    fn xattrs(&self) -> io::Result<Vec<Vec<u8>>> {
        xattrs(self)
    }

    #[cfg(target_os = "linux")]
    fn xattr(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        xattr(self, name)
    }

    #[cfg(target_os = "linux")]
    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        set_xattr(self, name, value)
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(self, bits(mode))?)
    }

    fn set_modified(&self, modified: (i64, u32)) -> io::Result<()> {
        Ok(rustix::fs::futimens(self, &times(modified))?)
    }

    #[cfg(target_os = "linux")]
    fn set_aside(&self, len: u64) -> io::Result<()> {
        // In memory it only costs: measured 8 % of a copy, and nothing lies beside anything there.
        if len == 0 || rustix::fs::fstatfs(self).is_ok_and(|is| is.f_type == TMPFS) {
            return Ok(());
        }
        match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::KEEP_SIZE, 0, len) {
            // Not every file system can.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn set_aside(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        // It moves where this handle stands, which nobody reads from.
        match rustix::fs::seek(self, rustix::fs::SeekFrom::Data(at)) {
            Ok(next) => Ok(Some(next)),
            Err(Errno::NXIO) => Ok(None),
            Err(_) => Ok(Some(at)),
        }
    }

    fn stat(&self) -> io::Result<DiskStat> {
        Ok(stat_of(&rustix::fs::fstat(self)?))
    }

    fn lock(&self, shared: bool) -> io::Result<bool> {
        use FlockOperation::{NonBlockingLockExclusive, NonBlockingLockShared};
        flock(self, if shared { NonBlockingLockShared } else { NonBlockingLockExclusive })
    }

    fn is_ours(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstat(self)?.st_uid == rustix::process::geteuid().as_raw())
    }

    fn as_system_file(&self) -> Option<&File> {
        Some(self)
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

fn components(root: &OwnedFd, path: &RelPath, flags: OFlags) -> io::Result<OwnedFd> {
    let Some((parent, last)) = path.split_last() else {
        return Ok(rustix::fs::openat(root, ".", flags, Mode::empty())?);
    };
    let mut dir = rustix::fs::openat(root, ".", START, Mode::empty())?;
    for name in parent.components() {
        dir = step(&dir, &name, START)?;
    }
    step(&dir, &last, flags)
}

/// Opens what has a name, and tells a link from what else may stand in the way, which the system does not always.
fn step(dir: &OwnedFd, name: &Name, flags: OFlags) -> io::Result<OwnedFd> {
    rustix::fs::openat(dir, name.as_bytes(), flags | OFlags::NOFOLLOW, Mode::empty()).map_err(|error| {
        let stat = rustix::fs::statat(dir, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
        let link = stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
        if link { Errno::LOOP.into() } else { error.into() }
    })
}

fn flock(handle: &impl AsFd, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(handle, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// No list of names and no value is longer on this system, in bytes.
#[cfg(target_os = "linux")]
const XATTR_MAX: usize = 64 << 10;
/// Most are not longer than this.
#[cfg(target_os = "linux")]
const XATTR_USUAL: usize = 512;

/// What a call writes into a buffer, which is a long one only where a short one does not do.
#[cfg(target_os = "linux")]
fn in_short_or_long(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; XATTR_USUAL];
    let len = match call(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(XATTR_MAX, 0);
            call(&mut buffer)?
        }
        done => done?,
    };
    buffer.truncate(len);
    Ok(buffer)
}

#[cfg(target_os = "linux")]
fn xattrs(handle: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let names = in_short_or_long(|buffer| rustix::fs::flistxattr(&handle, buffer))?;
    Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

#[cfg(target_os = "linux")]
fn xattr(handle: impl AsFd, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    match in_short_or_long(|buffer| rustix::fs::fgetxattr(&handle, name, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(target_os = "linux")]
fn set_xattr(handle: impl AsFd, name: &[u8], value: Option<&[u8]>) -> io::Result<()> {
    match value {
        Some(value) => rustix::fs::fsetxattr(handle, name, value, rustix::fs::XattrFlags::empty())?,
        None => rustix::fs::fremovexattr(handle, name)?,
    }
    Ok(())
}

fn handle_of(dir: &dyn DiskDir) -> io::Result<impl AsFd> {
    let dir: Option<&SystemDir> = dir.as_any().downcast_ref();
    Ok(&dir.ok_or(Errno::XDEV)?.handle)
}

fn file(handle: OwnedFd) -> Arc<dyn DiskFile> {
    Arc::new(File::from(handle))
}

/// This time of modification, and the time of the last access as it is.
fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let omitted = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    Timestamps { last_access: omitted, last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() } }
}

fn bits(mode: u32) -> Mode {
    Mode::from_raw_mode(mode)
}

#[allow(clippy::unnecessary_cast, reason = "they have other types on other systems")]
fn stat_of(is: &Stat) -> DiskStat {
    let kind = match FileType::from_raw_mode(is.st_mode) {
        FileType::RegularFile => DiskKind::File,
        FileType::Directory => DiskKind::Directory,
        FileType::Symlink => DiskKind::Symlink,
        _ => DiskKind::Other,
    };
    DiskStat {
        kind,
        mode: is.st_mode as u32 & 0o7777,
        device: is.st_dev as u64,
        inode: is.st_ino as u64,
        links: is.st_nlink as u64,
        len: is.st_size as u64,
        blocks: is.st_blocks as u64,
        modified: (is.st_mtime as i64, is.st_mtime_nsec as i64),
        changed: (is.st_ctime as i64, is.st_ctime_nsec as i64),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// The modules of the storage, without their tests.
    fn modules(below: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(below).expect("the source is here") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "tests") {
                    modules(&path, found);
                }
            } else if path.file_name().is_some_and(|name| name != "tests.rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn names_are_the_same_however_they_are_read() {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        fs::create_dir(directory.path().join("d")).expect("made");
        let wanted: Vec<_> = (0..2000).map(|i| format!("{i:04} {}", "n".repeat(60)).into_bytes()).collect();
        for name in &wanted {
            fs::write(directory.path().join("d").join(OsStr::from_bytes(name)), b"").expect("written");
        }
        let start = SystemDir::start(directory.path(), false).expect("it is there");
        let sorted = |names: io::Result<Names<'_>>| {
            let names = names.and_then(Iterator::collect::<io::Result<Vec<_>>>).expect("it can be read");
            let mut names: Vec<_> = names.into_iter().map(|name| name.as_bytes().to_vec()).collect();
            names.sort();
            names
        };
        let dir = start.open_dir(&Name::new(*b"d").expect("a name")).expect("a directory");
        // Its own handle serves once, and not both at a time.
        let mut begun = dir.names_as_opened().expect("it can be read");
        let first = begun.next().expect("some").expect("a name").as_bytes().to_vec();
        assert_eq!(sorted(dir.names_as_opened()), wanted);
        let rest = sorted(Ok(begun));
        assert!(rest.len() == wanted.len() - 1 && !rest.contains(&first));
        assert_eq!((sorted(dir.names()), sorted(dir.names_as_opened())), (wanted.clone(), wanted));
    }

    /// Whoever adds a way to open files past this module is to think twice, and to have a reason that is written here.
    #[test]
    fn nothing_else_opens_by_path() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        modules(&source, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for path in found {
            let name = path.strip_prefix(&source).expect("it was found there").to_str().expect("ASCII").to_owned();
            let text = fs::read_to_string(&path).expect("readable");
            let code = text.split("mod tests").next().expect("the first part");
            for way in ["std::fs", "rustix::fs", "SystemDir", "OpenOptions", "std::process", "std::os::fd"] {
                let may = match (name.as_str(), way) {
                    ("disk/system.rs", _) => true,
                    // It says what a file of the system is, and gives one out to have its blocks shared.
                    ("disk.rs", "std::fs" | "SystemDir") => code.matches("use std::fs").count() == 1,
                    ("source.rs", "std::fs") => code.contains("use std::fs::File;") && !code.contains("File::"),
                    // It opens nothing: a page cache need not keep what a scrub has read.
                    ("local/scrub.rs", "rustix::fs") => {
                        code.matches("rustix::fs").count()
                            == code.matches("rustix::fs::fadvise").count() + code.matches("rustix::fs::Advice").count()
                    }
                    // The control socket lies in a directory of the system.
                    ("local/root.rs" | "local/control.rs", "SystemDir") => {
                        code.matches("SystemDir::start").count() <= 1
                    }
                    // The directories that the user names.
                    ("local.rs", "SystemDir") => code.matches("SystemDir::start").count() == 2,
                    // What a client remembers, under names of its own: no peer names a file there.
                    (known, "std::fs" | "rustix::fs" | "OpenOptions") => known.starts_with("known"),
                    _ => false,
                };
                assert!(may || !code.contains(way), "{name} uses {way}");
            }
        }
    }
}
