//! Bytes to read at any place, wherever they lie: a file as it is, or a packed copy of one.
//!
//! Beside it, how a file looks from outside: device, inode, length and times, by which it is known again. They are taken
//! before the first byte is read and compared after the last one, or whenever it matters whether a file is still what it
//! was. A rename and a new link change the last of the times and no byte, so it can be left out.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};

use deltasync_core::{ByteLen, Malformed, Reader, write_signed, write_varint};
use rustix::fs::Stat;

use crate::known::PackedFile;

/// Where bytes are read from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file as it is.
    File(File),
    /// A copy of a file in frames.
    Packed(PackedFile),
}

impl Source {
    /// The number of bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Packed(packed) => Ok(packed.len()),
        }
    }

    /// Fills `piece` from offset `at` on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnexpectedEof`] when there are fewer bytes; what the system says.
    pub(crate) fn read_exact_at(&self, piece: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(piece, at),
            Self::Packed(packed) => packed.read_exact_at(piece, at),
        }
    }

    /// How the file looks now.
    pub(crate) fn looks(&self) -> io::Result<Looks> {
        match self {
            Self::File(file) => Looks::of(file),
            Self::Packed(packed) => Looks::of(packed.file()),
        }
    }

    /// The file itself, when the bytes lie there as they are.
    pub(crate) fn as_file(&self) -> Option<&File> {
        match self {
            Self::File(file) => Some(file),
            Self::Packed(_) => None,
        }
    }
}

/// How a file looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looks {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) len: u64,
    /// Seconds and nanoseconds since 1970.
    pub(crate) modified: (i64, i64),
    /// The same, of the inode; `None` where a change of names is not to count.
    pub(crate) changed: Option<(i64, i64)>,
}

impl Looks {
    /// How an open file looks.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let is = file.metadata()?;
        Ok(Self {
            device: is.dev(),
            inode: is.ino(),
            len: is.len(),
            modified: (is.mtime(), is.mtime_nsec()),
            changed: Some((is.ctime(), is.ctime_nsec())),
        })
    }

    /// How a file looks by what the system says of its name.
    #[allow(clippy::unnecessary_cast, reason = "they have other types on other systems")]
    pub(crate) fn of_stat(is: &Stat) -> Self {
        Self {
            device: is.st_dev as u64,
            inode: is.st_ino as u64,
            len: is.st_size as u64,
            modified: (is.st_mtime as i64, is.st_mtime_nsec as i64),
            changed: Some((is.st_ctime as i64, is.st_ctime_nsec as i64)),
        }
    }

    /// Appends the bytes that [`read`](Self::read) reads.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        [self.device, self.inode, self.len].iter().for_each(|value| write_varint(out, *value));
        out.push(self.changed.is_some().into());
        for (seconds, nanoseconds) in [Some(self.modified), self.changed].into_iter().flatten() {
            write_signed(out, seconds);
            write_signed(out, nanoseconds);
        }
    }

    /// Reads what [`write`](Self::write) wrote.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (device, inode, len) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let named = reader.byte()? != 0;
        let mut time = || Ok((reader.signed()?, reader.signed()?));
        let modified = time()?;
        let changed = named.then(time).transpose()?;
        Ok(Self { device, inode, len, modified, changed })
    }

    /// The same whatever names the file has or gets.
    pub(crate) fn under_any_name(self) -> Self {
        Self { changed: None, ..self }
    }

    /// True when a file that looked so may be what it was when it looks like `now`.
    pub(crate) fn still(&self, now: &Self) -> bool {
        let changed = now.changed.filter(|_| self.changed.is_some());
        Self { changed, ..*now } == *self
    }
}

/// The piece in which files are read and written, in bytes.
const PIECE: usize = 256 << 10;

/// Lends the buffer of this thread, so that there are as many as threads and not as many as transfers.
pub(crate) fn with_buffer<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PIECE, 0);
        f(buffer)
    })
}

/// Reads at least one byte where there is one.
pub(crate) fn read_piece(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, at) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Reads a whole file of at most `longest` bytes.
pub(crate) fn read_blob(mut file: &File, longest: ByteLen) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    if len > longest.get() {
        return Err(ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).map_err(io::Error::other)?);
    file.by_ref().take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_names_counts_unless_it_is_left_out() {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let path = directory.path().join("file");
        std::fs::write(&path, b"content").expect("written");
        let file = File::open(&path).expect("there");
        let before = Looks::of(&file).expect("it is open");
        let stat = rustix::fs::stat(&path).expect("there");
        assert_eq!(Looks::of_stat(&stat), before);
        assert!(before.still(&before) && before.under_any_name().still(&before));
        // The clock that stamps files ticks every few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(30));
        std::fs::hard_link(&path, directory.path().join("link")).expect("linked");
        let after = Looks::of(&file).expect("it is open");
        for looks in [after, after.under_any_name()] {
            let mut bytes = Vec::new();
            looks.write(&mut bytes);
            assert_eq!(Looks::read(&mut Reader::new(&bytes)), Ok(looks));
        }
        assert!(!before.still(&after) && before.under_any_name().still(&after));
        std::fs::write(&path, b"CONTENT").expect("written");
        let after = Looks::of(&file).expect("it is open");
        assert!(!before.under_any_name().still(&after));
    }
}
