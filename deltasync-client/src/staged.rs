//! An output that appears only when it is whole.
//!
//! A regular file is written under another name beside its place, made durable, and renamed: whoever looks sees the old
//! file or the new one, and a verb that fails leaves the old one. What cannot be renamed over, the standard output (`-`),
//! a device or a pipe, is spooled and gets all bytes at the end.

use std::fs::{self, File, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// An output under way. Dropping it throws away what was written.
#[derive(Debug)]
pub(crate) struct Staged(Stage);

#[derive(Debug)]
enum Stage {
    /// To be renamed to the path.
    Beside(NamedTempFile, PathBuf),
    /// To be copied to the path, or to the standard output.
    Spooled(File, Option<PathBuf>),
}

impl Staged {
    /// Begins the output to `path`; `-` is the standard output.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self(Stage::Spooled(tempfile::tempfile()?, None)));
        }
        // A link stays one: its file is replaced. The mode of a file stays too.
        let (path, mode) = match fs::metadata(path) {
            Ok(meta) if meta.is_file() => (path.canonicalize()?, meta.permissions().mode() & 0o7777),
            Ok(meta) if meta.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => return Ok(Self(Stage::Spooled(tempfile::tempfile()?, Some(path.to_owned())))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), 0o666),
            Err(error) => return Err(error),
        };
        if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let beside = Builder::new()
            .prefix(".deltasync-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(parent(&path))?;
        Ok(Self(Stage::Beside(beside, path)))
    }

    /// Publishes what was written.
    pub(crate) fn publish(self) -> io::Result<()> {
        match self.0 {
            Stage::Beside(beside, path) => {
                beside.as_file().sync_data()?;
                beside.persist(&path)?;
                File::open(parent(&path))?.sync_all()
            }
            Stage::Spooled(mut spool, path) => {
                spool.seek(SeekFrom::Start(0))?;
                match path {
                    Some(path) => {
                        io::copy(&mut spool, &mut File::options().write(true).open(path)?)?;
                    }
                    None => {
                        let mut out = io::stdout().lock();
                        io::copy(&mut spool, &mut out)?;
                        out.flush()?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Stage::Beside(beside, _) => beside.write(bytes),
            Stage::Spooled(spool, _) => spool.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .expect("there")
            .map(|e| e.expect("readable").file_name().into_string().expect("ours"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_appears_before_it_is_published() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join("out");
        let mut staged = Staged::create(&path).expect("a directory to write in");
        staged.write_all(b"new").expect("space");
        assert!(!path.exists());
        drop(staged);
        assert!(names(dir.path()).is_empty(), "nothing is left behind");

        fs::write(&path, b"old").expect("space");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("ours");
        let mut staged = Staged::create(&path).expect("a directory to write in");
        staged.write_all(b"new").expect("space");
        assert_eq!(fs::read(&path).expect("there"), b"old");
        staged.publish().expect("space");
        assert_eq!(fs::read(&path).expect("there"), b"new");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn links_devices_and_directories_stay_what_they_are() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        fs::write(dir.path().join("file"), b"old").expect("space");
        symlink("file", dir.path().join("link")).expect("new");
        let mut staged = Staged::create(&dir.path().join("link")).expect("a link to a file");
        staged.write_all(b"new").expect("space");
        staged.publish().expect("space");
        assert!(dir.path().join("link").is_symlink());
        assert_eq!(fs::read(dir.path().join("file")).expect("there"), b"new");

        Staged::create(Path::new("/dev/null")).and_then(Staged::publish).expect("a device takes bytes");
        assert!(!fs::metadata("/dev/null").expect("there").is_file());
        assert!(Staged::create(dir.path()).is_err());
        assert!(Staged::create(&dir.path().join("missing/out")).is_err());
    }
}
