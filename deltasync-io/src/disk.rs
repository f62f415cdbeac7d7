//! What a storage needs of a file system, and no more: so that another one can stand below it, one that fails on demand.
//!
//! A [`DiskDir`] is a directory handle: it opens what lies beneath it, by [`RelPath`] and without following a symbolic
//! link, and works on the single [`Name`]s in it. A [`DiskFile`] is an open file. Each method is one step of a disk, such
//! as the system's calls are: it may fail with any of the system's errors, be interrupted, or write less than it was given.
//! `system` makes both of the operating system, and is the one module with calls that open by path.
//!
//! What is made of such steps (a write that goes on until all is written, a call that is repeated when a signal came
//! between) is made here, above the traits, so that a disk that fails on demand tests it too. An interrupted sync is
//! repeated like any other call, as the standard library does; one that failed otherwise never is.
//!
//! Cost: a virtual call for each of the system's.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use deltasync_core::{Name, RelPath};

#[expect(clippy::disallowed_methods, reason = "this is what opens files")]
mod system;
pub(crate) use system::SystemDir;

/// The names in a directory, or what the disk says while they are read.
pub type Names<'a> = Box<dyn Iterator<Item = io::Result<Name>> + 'a>;

/// A directory of some disk, held open: [`LocalStorage::serve_on`](crate::LocalStorage::serve_on) takes one.
///
/// All errors are such as the operating system has; those that are told apart carry its number
/// ([`io::Error::from_raw_os_error`]).
///
/// # Security
///
/// A [`RelPath`] comes from a peer. Nothing outside of this directory is opened, and no symbolic link is followed, on the
/// way or at its end, also when someone puts it there meanwhile: the error is `ELOOP` then. A [`Name`] is looked up in this
/// directory itself, and a link that has it is not followed either.
pub trait DiskDir: DiskXattrs + fmt::Debug + Send + Sync + 'static {
    /// Opens what stands at a path for reading, and does not wait whatever that is. The caller looks at its kind.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR` and `ELOOP`, `ENXIO` for a socket; what the disk says.
    fn file_beneath(&self, path: &RelPath) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens the directory at a path.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR` and `ELOOP`; what the disk says.
    fn dir_beneath(&self, path: &RelPath) -> io::Result<Arc<dyn DiskDir>>;

    /// What stands at a path.
    ///
    /// # Errors
    ///
    /// `ENOENT`; `ENOTDIR` and `ELOOP` on the way; what the disk says.
    fn stat_beneath(&self, path: &RelPath) -> io::Result<DiskStat>;

    /// Makes a file with these permission bits, as far as the process gives them to new files, for writing and reading.
    ///
    /// # Errors
    ///
    /// `EEXIST` when the name is taken; what the disk says.
    fn create(&self, name: &Name, mode: u32) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// `ENOENT` and `ELOOP`; what the disk says.
    fn open(&self, name: &Name) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for writing and reading, and makes it with these permission bits if it is not there.
    ///
    /// # Errors
    ///
    /// `ELOOP`; what the disk says.
    fn open_own(&self, name: &Name, mode: u32) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a directory in it.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTDIR` and `ELOOP`; what the disk says.
    fn open_dir(&self, name: &Name) -> io::Result<Arc<dyn DiskDir>>;

    /// Makes a directory with these permission bits, as far as the process gives them to new directories.
    ///
    /// # Errors
    ///
    /// `EEXIST` when the name is taken; what the disk says.
    fn make_dir(&self, name: &Name, mode: u32) -> io::Result<()>;

    /// What has a name.
    ///
    /// # Errors
    ///
    /// `ENOENT`; what the disk says.
    fn stat(&self, name: &Name) -> io::Result<DiskStat>;

    /// Looks whether a file in it may be read, without opening it, or a directory listed and what is in it looked at.
    ///
    /// # Errors
    ///
    /// `EACCES` when it may not; what the disk says.
    fn may_read(&self, _name: &Name, _directory: bool) -> io::Result<()> {
        Ok(())
    }

    /// The names in it, in no order, without `.` and `..`, and without what cannot be a [`Name`].
    ///
    /// # Errors
    ///
    /// What the disk says, at once or at any of them.
    fn names(&self) -> io::Result<Names<'_>>;

    /// The same of a directory that was opened just now, which costs less once: what has come since it was opened may be
    /// missing.
    ///
    /// # Errors
    ///
    /// As [`names`](Self::names).
    fn names_as_opened(&self) -> io::Result<Names<'_>> {
        self.names()
    }

    /// Moves a file to a name in this or another directory of the same disk, in one step: over what has that name, or, if
    /// `vacant`, only when nothing has it.
    ///
    /// # Errors
    ///
    /// `EEXIST` when the name is not vacant, `EXDEV` when the other directory is of another disk, `EINVAL` when this one
    /// cannot look and move in one step; what the disk says.
    fn rename(&self, from: &Name, into: &dyn DiskDir, to: &Name, vacant: bool) -> io::Result<()>;

    /// Lets two names in it change places, in one step, whatever has them.
    ///
    /// # Errors
    ///
    /// `ENOENT`; what the disk says, also when it cannot do that in one step.
    fn exchange(&self, _one: &Name, _other: &Name) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Gives a file another name in this or another directory of the same disk.
    ///
    /// # Errors
    ///
    /// `EEXIST` when the name is taken, `EXDEV` when the other directory is of another disk; what the disk says.
    fn link(&self, from: &Name, into: &dyn DiskDir, to: &Name) -> io::Result<()>;

    /// Takes a name from a file.
    ///
    /// # Errors
    ///
    /// `ENOENT`; what the disk says.
    fn remove(&self, name: &Name) -> io::Result<()>;

    /// Removes a directory that is empty.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `ENOTEMPTY`; what the disk says.
    fn remove_dir(&self, name: &Name) -> io::Result<()>;

    /// Makes the names in it durable.
    ///
    /// # Errors
    ///
    /// What the disk says: the names may then be lost at a power cut, whatever a later sync says.
    fn sync(&self) -> io::Result<()>;

    /// Takes the directory for this handle as long as that is held; false when another one has it.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn lock(&self) -> io::Result<bool>;

    /// Where a symbolic link points.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EINVAL` when it is no link; what the disk says, also when it has no links.
    fn read_symlink(&self, _name: &Name) -> io::Result<Vec<u8>> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    ///
    /// `EEXIST` when the name is taken; what the disk says, also when it has no links.
    fn make_symlink(&self, _name: &Name, _target: &[u8]) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Sets when a symbolic link was modified, in seconds and nanoseconds since 1970.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn set_symlink_modified(&self, _name: &Name, _modified: (i64, u32)) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Sets its own permission bits.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn set_mode(&self, _mode: u32) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Sets when it was modified itself, in seconds and nanoseconds since 1970.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn set_modified(&self, _modified: (i64, u32)) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Makes all that was written to this disk durable, the names too; false when that cannot be done at once.
    ///
    /// # Errors
    ///
    /// What the disk says: what was written since the last sync may then be lost, whatever a later sync says.
    fn sync_disk(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// How much room the disk has for us; `None` where that is not known.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn space(&self) -> io::Result<Option<DiskSpace>> {
        Ok(None)
    }

    /// Itself, for the methods that take another directory of the same disk.
    fn as_any(&self) -> &dyn Any;
}

/// What a file or directory of some disk has beside its bytes or names, by name. A disk need not have such.
pub trait DiskXattrs {
    /// The names of its extended attributes, with their namespaces, in no order; a disk may keep some to itself.
    ///
    /// # Errors
    ///
    /// `ENOTSUP` when the disk has none; what it says.
    fn xattrs(&self) -> io::Result<Vec<Vec<u8>>> {
        Err(ErrorKind::Unsupported.into())
    }

    /// The value of an extended attribute, whose name has its namespace; `None` when it has none of this name.
    ///
    /// # Errors
    ///
    /// `ENOTSUP` when the disk has none; what it says.
    fn xattr(&self, _name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Sets an extended attribute, or removes it, which is there.
    ///
    /// # Errors
    ///
    /// `ENOTSUP` when the disk has none, `ENOSPC` when it has no room for it; what it says.
    fn set_xattr(&self, _name: &[u8], _value: Option<&[u8]>) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// A file of some disk, held open.
pub trait DiskFile: DiskXattrs + fmt::Debug + Send + Sync + 'static {
    /// Reads at offset `at`, at least one byte where there is one; returns how many.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes from offset `at` on, at least one byte where there is one; returns how many.
    ///
    /// # Errors
    ///
    /// What the disk says; a part may be written then.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Makes its bytes and its length durable; not its names.
    ///
    /// # Errors
    ///
    /// What the disk says: what was written since the last sync may then be lost, whatever a later sync says.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts it, or makes it longer by zeros.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Sets the permission bits.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn set_mode(&self, mode: u32) -> io::Result<()>;

    /// Sets when its bytes changed last, in seconds and nanoseconds since 1970.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn set_modified(&self, _modified: (i64, u32)) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Sets space aside for `len` bytes, if the disk can and it makes writing faster, and leaves the length as it is.
    ///
    /// # Errors
    ///
    /// `ENOSPC`; what the disk says.
    fn set_aside(&self, len: u64) -> io::Result<()>;

    /// What it is.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn stat(&self) -> io::Result<DiskStat>;

    /// Where the first bytes at or behind offset `at` are that may be other than zeros; `None` when there are none.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        Ok(Some(at))
    }

    /// Locks it for this handle as long as that is open: alone, or shared with others who share; false when others are in
    /// the way. A disk that only one process uses need not.
    ///
    /// # Errors
    ///
    /// What the disk says, also when it has no locks.
    fn lock(&self, _shared: bool) -> io::Result<bool> {
        Ok(true)
    }

    /// True when it belongs to the user that this process runs as.
    ///
    /// # Errors
    ///
    /// What the disk says.
    fn is_ours(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// The file of the operating system that it is, if it is one.
    fn as_system_file(&self) -> Option<&File> {
        None
    }
}

/// What a disk says of a file, a directory or whatever else has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskStat {
    /// What it is.
    pub kind: DiskKind,
    /// The permission bits, those above them among them (07777).
    pub mode: u32,
    /// The disk it lies on.
    pub device: u64,
    /// Its number there, which no other has as long as it has a name or is open.
    pub inode: u64,
    /// How many names it has.
    pub links: u64,
    /// In bytes.
    pub len: u64,
    /// What it takes on the disk, in pieces of 512 bytes.
    pub blocks: u64,
    /// When its bytes changed last, in seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// When anything about it changed last, its names too.
    pub changed: (i64, i64),
}

/// How much room a disk has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// What we may still write.
    pub free: u64,
    /// What there is in all.
    pub total: u64,
}

/// What has a name on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, a socket or the like.
    Other,
}

/// A file of any disk, and what is made of its steps.
#[derive(Clone, Debug)]
pub(crate) struct AnyFile(Arc<dyn DiskFile>);

/// Calls until no signal comes between.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

impl AnyFile {
    /// Reads at least one byte where there is one.
    pub(crate) fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        uninterrupted(|| self.0.read_at(buffer, at))
    }

    /// Fills `piece` from offset `at` on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnexpectedEof`] when there are fewer bytes; what the disk says.
    pub(crate) fn read_exact_at(&self, mut piece: &mut [u8], mut at: u64) -> io::Result<()> {
        while !piece.is_empty() {
            match self.read_at(piece, at)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                len => (piece, at) = (&mut piece[len..], at + len as u64),
            }
        }
        Ok(())
    }

    /// Writes all from offset `at` on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WriteZero`] when the disk takes nothing and says nothing; what it says.
    pub(crate) fn write_all_at(&self, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match uninterrupted(|| self.0.write_at(bytes, at))? {
                0 => return Err(ErrorKind::WriteZero.into()),
                len => (bytes, at) = (&bytes[len..], at + len as u64),
            }
        }
        Ok(())
    }

    /// Makes its bytes and its length durable. Once it has failed it must not be tried again.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        uninterrupted(|| self.0.sync_data())
    }

    /// Cuts it, or makes it longer by zeros.
    pub(crate) fn set_len(&self, len: u64) -> io::Result<()> {
        uninterrupted(|| self.0.set_len(len))
    }

    /// Sets the permission bits.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        uninterrupted(|| self.0.set_mode(mode))
    }

    /// Sets when its bytes changed last, in seconds and nanoseconds since 1970.
    pub(crate) fn set_modified(&self, modified: (i64, u32)) -> io::Result<()> {
        uninterrupted(|| self.0.set_modified(modified))
    }

    /// Its extended attributes.
    pub(crate) fn attributed(&self) -> &dyn DiskXattrs {
        &*self.0
    }

    /// Sets space aside for `len` bytes, where that can be done.
    pub(crate) fn set_aside(&self, len: u64) -> io::Result<()> {
        uninterrupted(|| self.0.set_aside(len))
    }

    /// As [`read_exact_at`](Self::read_exact_at), of a file that has holes, which are not read.
    pub(crate) fn read_exact_or_hole_at(&self, piece: &mut [u8], at: u64) -> io::Result<()> {
        if self.is_hole(at, piece.len() as u64) {
            piece.fill(0);
            return Ok(());
        }
        self.read_exact_at(piece, at)
    }

    /// True when there are so many bytes from offset `at` on, and the disk knows without looking that they are zeros.
    pub(crate) fn is_hole(&self, at: u64, len: u64) -> bool {
        let Some(end) = at.checked_add(len) else { return false };
        match self.0.next_data(at) {
            Ok(Some(next)) => next >= end,
            Ok(None) => self.len().is_ok_and(|len| end <= len),
            // Who reads it is told.
            Err(_) => false,
        }
    }

    /// True when it takes less of the disk than it is long, so that it has holes.
    pub(crate) fn is_sparse(&self) -> bool {
        self.0.stat().is_ok_and(|is| is.blocks.saturating_mul(512) < is.len)
    }

    /// What it is.
    pub(crate) fn stat(&self) -> io::Result<DiskStat> {
        uninterrupted(|| self.0.stat())
    }

    /// Locks it as long as it is open; false when others are in the way.
    pub(crate) fn lock(&self, shared: bool) -> io::Result<bool> {
        uninterrupted(|| self.0.lock(shared))
    }

    /// True when it belongs to the user that this process runs as.
    pub(crate) fn is_ours(&self) -> io::Result<bool> {
        uninterrupted(|| self.0.is_ours())
    }

    /// In bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.stat()?.len)
    }

    /// The file of the operating system that it is, if it is one.
    pub(crate) fn as_system_file(&self) -> Option<&File> {
        self.0.as_system_file()
    }
}

impl From<Arc<dyn DiskFile>> for AnyFile {
    fn from(file: Arc<dyn DiskFile>) -> Self {
        Self(file)
    }
}

impl From<File> for AnyFile {
    fn from(file: File) -> Self {
        Self(Arc::new(file))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A file in memory that does as little as it may: every second call is interrupted, and the others move up to 3 bytes.
    #[derive(Debug, Default)]
    struct Lazy(Mutex<(Vec<u8>, u32)>);

    impl Lazy {
        fn step<T>(&self, f: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
            let mut state = self.0.lock().expect("no test panics in between");
            state.1 += 1;
            if state.1 % 2 == 1 { Err(ErrorKind::Interrupted.into()) } else { Ok(f(&mut state.0)) }
        }
    }

    impl DiskXattrs for Lazy {}

    impl DiskFile for Lazy {
        fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
            self.step(|bytes| {
                let rest = &bytes[bytes.len().min(at as usize)..];
                let len = rest.len().min(buffer.len()).min(3);
                buffer[..len].copy_from_slice(&rest[..len]);
                len
            })
        }
        fn write_at(&self, piece: &[u8], at: u64) -> io::Result<usize> {
            self.step(|bytes| {
                let len = piece.len().min(3);
                bytes.resize(bytes.len().max(at as usize + len), 0);
                bytes[at as usize..at as usize + len].copy_from_slice(&piece[..len]);
                // It is full at 10.
                if at >= 10 { 0 } else { len }
            })
        }
        fn sync_data(&self) -> io::Result<()> {
            self.step(|_| ())
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.step(|bytes| bytes.resize(len as usize, 0))
        }
        fn set_mode(&self, _: u32) -> io::Result<()> {
            self.step(|_| ())
        }
        fn set_aside(&self, _: u64) -> io::Result<()> {
            self.step(|_| ())
        }
        fn stat(&self) -> io::Result<DiskStat> {
            File::open("/")?.stat()
        }
    }

    #[test]
    fn short_and_interrupted_calls_are_continued() {
        let file = AnyFile::from(Arc::new(Lazy::default()) as Arc<dyn DiskFile>);
        file.write_all_at(b"0123456789", 0).expect("all is written");
        for at in 0..=10 {
            for len in 0..=10 - at {
                let mut piece = vec![0; len];
                file.read_exact_at(&mut piece, at as u64).expect("all is there");
                assert_eq!(piece, b"0123456789"[at..at + len]);
            }
        }
        let error = |result: io::Result<()>| result.expect_err("it cannot").kind();
        assert_eq!(error(file.read_exact_at(&mut [0; 2], 9)), ErrorKind::UnexpectedEof);
        assert_eq!(error(file.read_exact_at(&mut [0; 1], 10)), ErrorKind::UnexpectedEof);
        assert_eq!(error(file.write_all_at(b"x", 10)), ErrorKind::WriteZero);
        for result in [file.sync_data(), file.set_len(3), file.set_mode(0o600), file.set_aside(10)] {
            result.expect("a signal is no failure");
        }
    }
}
