//! The files beside the index, for each remembered file: its chunk list, what is kept of its bytes, and where that is a layer
//! the copy below it, which the records of several versions have in turn.
//!
//! They are written below `new/` and moved to `kept/` once the index knows them, and they go before the index forgets
//! them. So whatever is cut short leaves a record without its blobs, which is noticed, or a draft, which is removed after
//! a day; never a blob that nobody knows. Only files with the names of blobs are ever removed: the user may have named a
//! directory that holds something else. When a file was last used is the time of its chunk list.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::disk::AnyFile;

/// A directory of blobs. Every error is for the caller to take as "not there".
#[derive(Clone, Debug)]
pub(super) struct Blobs {
    directory: PathBuf,
}

/// One of the blobs of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Chunks,
    Bytes,
    /// The copy below a layer.
    Base,
}

impl Part {
    /// That of a chunk list comes last, and goes last.
    const ALL: [Self; 3] = [Self::Base, Self::Bytes, Self::Chunks];

    fn name(self) -> &'static str {
        match self {
            Self::Chunks => "chunks",
            Self::Bytes => "bytes",
            Self::Base => "base",
        }
    }
}

/// The blobs of a file in the making; dropped, they are removed.
#[derive(Debug)]
pub(super) struct Draft {
    blobs: Blobs,
    id: u64,
}

/// How long the longest transfer of a file that is to be remembered could take.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const NEW: &str = "new";
const KEPT: &str = "kept";

impl Blobs {
    pub(super) fn below(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Makes the directories, for the user alone, and removes what was left in the making.
    pub(super) fn prepare(&self) -> io::Result<()> {
        for name in [NEW, KEPT] {
            DirBuilder::new().recursive(true).mode(0o700).create(self.directory.join(name))?;
        }
        let old = |entry: &fs::DirEntry| {
            let modified = entry.metadata().and_then(|is| is.modified());
            modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > DAY))
        };
        for entry in fs::read_dir(self.directory.join(NEW))?.flatten().filter(is_blob).filter(old) {
            let _ = fs::remove_file(entry.path());
        }
        Ok(())
    }

    /// Begins the blobs of a file, under a new id.
    pub(super) fn draft(&self) -> io::Result<Draft> {
        Ok(Draft { blobs: self.clone(), id: getrandom::u64()? })
    }

    pub(super) fn open(&self, id: u64, part: Part) -> io::Result<AnyFile> {
        Ok(File::open(self.path(KEPT, id, part))?.into())
    }

    /// Removes the blobs of a file, as far as they are there.
    pub(super) fn remove(&self, id: u64) {
        for part in Part::ALL {
            let _ = fs::remove_file(self.path(KEPT, id, part));
        }
    }

    /// Removes all, as no index knows them.
    pub(super) fn clear(&self) {
        for entry in fs::read_dir(self.directory.join(KEPT)).into_iter().flatten().flatten().filter(is_blob) {
            let _ = fs::remove_file(entry.path());
        }
    }

    /// Notes that a file is used now.
    pub(super) fn touch(&self, id: u64) {
        let file = OpenOptions::new().write(true).open(self.path(KEPT, id, Part::Chunks));
        let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// When a file was used last; long ago when its blobs are not there.
    pub(super) fn used(&self, id: u64) -> SystemTime {
        let modified = fs::metadata(self.path(KEPT, id, Part::Chunks)).and_then(|is| is.modified());
        modified.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn path(&self, below: &str, id: u64, part: Part) -> PathBuf {
        self.directory.join(below).join(format!("{id:016x}.{}", part.name()))
    }
}

/// True for the name of a blob.
fn is_blob(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let Some((id, part)) = name.to_str().and_then(|name| name.split_once('.')) else { return false };
    id.len() == 16 && u64::from_str_radix(id, 16).is_ok() && Part::ALL.iter().any(|known| known.name() == part)
}

impl Draft {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Makes one of the blobs, to be written and read.
    pub(super) fn create(&self, part: Part) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        options.open(self.blobs.path(NEW, self.id, part))
    }

    /// Takes over the copy of a file that is kept, as the one below a layer: that, or the one below its own.
    pub(super) fn take_base(&self, id: u64) -> io::Result<()> {
        let link = |part| fs::hard_link(self.blobs.path(KEPT, id, part), self.blobs.path(NEW, self.id, Part::Base));
        match link(Part::Base) {
            Err(error) if error.kind() == ErrorKind::NotFound => link(Part::Bytes),
            linked => linked,
        }
    }

    /// Makes one of the blobs with this content.
    pub(super) fn write(&self, part: Part, bytes: &[u8]) -> io::Result<()> {
        self.create(part)?.write_all(bytes)
    }

    /// Puts the blobs where [`Blobs::open`] finds them.
    pub(super) fn publish(&self) -> io::Result<()> {
        for part in Part::ALL {
            match fs::rename(self.blobs.path(NEW, self.id, part), self.blobs.path(KEPT, self.id, part)) {
                Err(error) if part == Part::Base && error.kind() == ErrorKind::NotFound => {}
                renamed => renamed?,
            }
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for part in Part::ALL {
            // Nothing is there once it was published.
            let _ = fs::remove_file(self.blobs.path(NEW, self.id, part));
        }
    }
}
