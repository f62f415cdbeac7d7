//! Bytes to read at any place, wherever they lie: a file as it is, two behind each other, or a packed copy of one.
//!
//! Beside it, how a file looks from outside: device, inode, length and times, by which it is known again. They are taken
//! before the first byte is read and compared after the last one, or whenever it matters whether a file is still what it
//! was. A rename and a new link change the last of the times and no byte, so it can be left out.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind};

use deltasync_core::{ByteLen, Malformed, Reader, write_signed, write_varint};

use crate::disk::{AnyFile, DiskStat};
use crate::known::{LayeredFile, PackedFile};

/// Where bytes are read from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file as it is.
    File(AnyFile),
    /// A copy of a file in frames.
    Packed(PackedFile),
    /// Such a copy of an older version, and what is new over it.
    Layered(LayeredFile),
    /// So many bytes of one file, and so many of another behind them.
    Joined([(AnyFile, u64); 2]),
}

impl Source {
    /// The number of bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => file.len(),
            Self::Packed(packed) => Ok(packed.len()),
            Self::Layered(layered) => Ok(layered.len()),
            Self::Joined([(_, first), (_, second)]) => Ok(first + second),
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
            Self::Layered(layered) => layered.read_exact_at(piece, at),
            Self::Joined([(first, len), (second, more)]) => {
                let before = usize::try_from(len.saturating_sub(at)).map_or(piece.len(), |left| left.min(piece.len()));
                let (piece, rest) = piece.split_at_mut(before);
                let at_second = at.saturating_sub(*len);
                if rest.len() as u64 > more.saturating_sub(at_second) {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                first.read_exact_at(piece, at)?;
                second.read_exact_at(rest, at_second)
            }
        }
    }

    /// Makes a file durable that others have written.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync_data(),
            Self::Packed(_) | Self::Layered(_) | Self::Joined(_) => Ok(()),
        }
    }

    /// How the file looks now; the first of two.
    pub(crate) fn looks(&self) -> io::Result<Looks> {
        match self {
            Self::File(file) | Self::Joined([(file, _), _]) => Looks::of(file),
            Self::Packed(packed) => Looks::of(packed.file()),
            Self::Layered(layered) => Looks::of(layered.base().file()),
        }
    }

    /// The file, when the bytes lie there as they are.
    pub(crate) fn as_any_file(&self) -> Option<&AnyFile> {
        match self {
            Self::File(file) => Some(file),
            Self::Packed(_) | Self::Layered(_) | Self::Joined(_) => None,
        }
    }

    /// The file of this system itself, when the bytes lie there as they are.
    pub(crate) fn as_file(&self) -> Option<&File> {
        match self {
            Self::File(file) => file.as_system_file(),
            Self::Packed(_) | Self::Layered(_) | Self::Joined(_) => None,
        }
    }
}

/// What is to be kept: a file, or the archive of a tree.
pub(crate) trait Original {
    /// Fills `piece` from offset `at` on.
    ///
    /// # Errors
    ///
    /// What the system says; also when it is not what was described.
    fn read_exact_at(&self, piece: &mut [u8], at: u64) -> io::Result<()>;

    /// How it looks now.
    fn looks(&self) -> io::Result<Looks>;

    /// The file of this system itself, when the bytes lie there as they are.
    fn as_file(&self) -> Option<&File> {
        None
    }
}

impl Original for Source {
    fn read_exact_at(&self, piece: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(piece, at)
    }

    fn looks(&self) -> io::Result<Looks> {
        self.looks()
    }

    fn as_file(&self) -> Option<&File> {
        self.as_file()
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
    pub(crate) fn of(file: &AnyFile) -> io::Result<Self> {
        Ok(Self::of_stat(&file.stat()?))
    }

    /// How a file looks by what the disk says of it.
    pub(crate) fn of_stat(is: &DiskStat) -> Self {
        Self { device: is.device, inode: is.inode, len: is.len, modified: is.modified, changed: Some(is.changed) }
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
pub(crate) const PIECE: usize = 256 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the buffer of this thread, so that there are as many as threads and not as many as transfers.
pub(crate) fn with_buffer<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = take_buffer();
    let done = f(&mut buffer);
    give_back(buffer);
    done
}

/// The buffer of this thread, or a new one while it is lent.
pub(crate) fn take_buffer() -> Vec<u8> {
    let mut buffer = BUFFER.take();
    buffer.resize(PIECE, 0);
    buffer
}

/// Keeps a buffer for who needs one next on this thread.
pub(crate) fn give_back(buffer: Vec<u8>) {
    BUFFER.set(buffer);
}

/// Reads a whole file of at most `longest` bytes.
pub(crate) fn read_blob(file: &AnyFile, longest: ByteLen) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    if len > longest.get() {
        return Err(ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn two_files_read_as_one() {
        let file = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().expect("a temporary file");
            file.write_all(bytes).expect("written");
            AnyFile::from(file)
        };
        // No more of each than was said.
        let joined = Source::Joined([(file(b"0123xx"), 4), (file(b"456789yy"), 6)]);
        assert_eq!(joined.len().expect("known"), 10);
        for at in 0..=10 {
            for len in 0..=10 - at {
                let mut piece = vec![0; len];
                joined.read_exact_at(&mut piece, at as u64).expect("all is there");
                assert_eq!(piece, b"0123456789"[at..at + len]);
            }
            let past = joined.read_exact_at(&mut vec![0; 11 - at], at as u64).expect_err("past its end");
            assert_eq!(past.kind(), ErrorKind::UnexpectedEof);
        }
        assert!(joined.read_exact_at(&mut [0], u64::MAX).is_err());
    }

    #[test]
    fn a_change_of_names_counts_unless_it_is_left_out() {
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let path = directory.path().join("file");
        std::fs::write(&path, b"content").expect("written");
        let file = AnyFile::from(std::fs::File::open(&path).expect("there"));
        let before = Looks::of(&file).expect("it is open");
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
