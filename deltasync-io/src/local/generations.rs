//! The count of commits in a served directory, which never goes back.
//!
//! A commit's number must not be given again after a crash, and a sync for each would double what a commit costs. So
//! numbers are reserved in blocks: a mark on the disk, durable before any number up to it is given. A commit just counts;
//! the next block is reserved when half of one is left, before the commit takes its turn. After a crash the count goes on
//! from the mark, and up to a block of numbers was never given.
//!
//! The mark is a file of its own, `generation`, 24 bytes with a check, replaced by a rename; and the index holds it too.
//! The larger one counts, so either may be lost. When both are, the count goes on from the largest number in the history,
//! that of the last commit that replaced something; numbers after that may be given a second time. A version is named by
//! its number and its root, so even then two are taken for one only when they are the same bytes.
//!
//! Cost: three syncs and those of the index for each [`BLOCK`] commits, and as many when the directory is no longer served,
//! to give back what was not used.
//!
//! Invariant: every number that was given is at most the mark, and the mark is durable.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltasync_core::{Generation, Malformed, Name, Reader};

use super::index::{Index, set_counter};
use super::root::Dir;
use crate::checked;

/// Gives out the numbers of commits.
#[derive(Debug)]
pub(super) struct Generations {
    /// Where the mark is.
    directory: Arc<Dir>,
    count: Mutex<Count>,
    /// Held by who writes the mark.
    reserving: Mutex<()>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    /// The last number that was given.
    last: u64,
    mark: u64,
}

/// The mark, where each is kept that was found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    file: Option<u64>,
    index: Option<u64>,
    /// No mark, but the best that is left when there is none.
    history: u64,
}

/// How many numbers are reserved at a time.
pub(super) const BLOCK: u64 = 1024;

/// The file of the mark, and what it is written as first.
const FILE: &str = "generation";
const NEW: &str = "generation.new";

/// Its counter in the index.
const COUNTER: &str = "generation";

/// What the file starts with.
const MAGIC: [u8; 8] = *b"dsyncgen";

impl Generations {
    /// Goes on from the marks that are found, and reserves the first block, if that can be done.
    ///
    /// # Errors
    ///
    /// What the system says of the file, when it is there and cannot be read.
    pub(super) fn open(directory: Arc<Dir>, index: &Index, history: u64) -> io::Result<(Self, Marks)> {
        let marks = Marks { file: read(&directory)?, index: index.counter(COUNTER), history };
        let last = marks.last();
        let count = Mutex::new(Count { last, mark: last });
        let generations = Self { directory, count, reserving: Mutex::default() };
        // If not, a commit will say so.
        let _ = generations.reserve(index);
        Ok((generations, marks))
    }

    /// Sees to it that commits have numbers for a while; who calls this waits for a disk now and then.
    pub(super) fn prepare(&self, index: &Index) {
        let Count { last, mark } = *self.count();
        if mark - last < BLOCK / 2
            && let Ok(reserving) = self.reserving.try_lock()
        {
            // If it cannot be done, a commit that finds none left will say so.
            let _ = self.reserve_alone(index, &reserving);
        }
    }

    /// The number of the next commit.
    ///
    /// # Errors
    ///
    /// When none is left, and no more can be reserved: what the system says.
    pub(super) fn next(&self, index: &Index) -> io::Result<Generation> {
        loop {
            {
                let mut count = self.count();
                if count.last < count.mark {
                    count.last += 1;
                    return Ok(Generation::new(count.last));
                }
            }
            self.reserve(index)?;
        }
    }

    /// Gives back what was reserved; nothing is counted after that.
    pub(super) fn release(&self, index: &Index) {
        let _reserving = self.reserving();
        let mut count = self.count();
        // In the index first: should only one of them be done, the count goes on from the other.
        index.note_durably(|transaction| set_counter(transaction, COUNTER, count.last));
        let _ = write(&self.directory, count.last);
        count.mark = count.last;
    }

    fn reserve(&self, index: &Index) -> io::Result<()> {
        self.reserve_alone(index, &self.reserving())
    }

    fn reserve_alone(&self, index: &Index, _: &MutexGuard<'_, ()>) -> io::Result<()> {
        let Count { last, mark } = *self.count();
        if mark - last >= BLOCK / 2 {
            // Somebody else did it meanwhile.
            return Ok(());
        }
        let mark = last.checked_add(BLOCK).ok_or_else(|| io::Error::other("no generation is left"))?;
        write(&self.directory, mark)?;
        self.count().mark = mark;
        index.note_durably(|transaction| set_counter(transaction, COUNTER, mark));
        Ok(())
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserving(&self) -> MutexGuard<'_, ()> {
        self.reserving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Marks {
    /// The number to go on from.
    pub(super) fn last(&self) -> u64 {
        self.file.max(self.index).unwrap_or(self.history)
    }

    /// True when both were lost, in a directory that has been served before.
    pub(super) fn are_lost(&self) -> bool {
        self.file.is_none() && self.index.is_none() && self.history > 0
    }
}

/// The mark in the file; `None` when it is not there or damaged.
fn read(directory: &Dir) -> io::Result<Option<u64>> {
    let file = match directory.open_file(&named(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; 24];
    // A disk that does not give it back has lost it.
    Ok(file.read_exact_at(&mut bytes, 0).ok().and_then(|()| decode(&bytes).ok()))
}

/// Makes a mark durable.
fn write(directory: &Dir, mark: u64) -> io::Result<()> {
    let new = named(NEW);
    match directory.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = directory.create(&new, 0o600)?;
    file.write_all_at(&encode(mark), 0)?;
    file.sync_data()?;
    directory.rename(&new, directory, &named(FILE))?;
    directory.sync()
}

fn encode(mark: u64) -> Vec<u8> {
    checked::close(FILE.as_bytes(), [MAGIC, mark.to_le_bytes()].concat())
}

fn decode(bytes: &[u8]) -> Result<u64, Malformed> {
    let mut reader = Reader::new(checked::open(FILE.as_bytes(), bytes)?);
    if reader.array()? != MAGIC {
        return Err(Malformed::Value("not a mark"));
    }
    Ok(u64::from_le_bytes(reader.array()?))
}

fn named(text: &str) -> Name {
    Name::new(text).expect("letters and a dot are a name")
}
