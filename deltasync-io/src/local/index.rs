//! What a served directory remembers: an embedded database (redb) that is a help and never needed.
//!
//! What was published where, as which generation, and what it replaced is noted after each commit, without a sync of its
//! own: [`flush`](Index::flush) makes all of it durable, now and then. A crash takes the last notes with it; files without
//! a note are of no known generation until they are published again.
//!
//! Every page is checked when the index is opened, and every note has a check of its own. What is no index any more is set
//! aside as `index.damaged-N`, of which one is kept, and an empty one begun; no file is read for that. While we run,
//! whatever redb says or panics about closes the index, and it is opened again before a later note: so a full disk or a
//! bad one costs notes, and no commit.
//!
//! Changes are made one at a time, in memory. Only a flush, and what is to be durable by itself, waits for a disk; changes
//! that come meanwhile wait for it, reads do not.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use deltasync_core::{Malformed, Name, Reader};
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::pages::Pages;
use super::recovery::Recovery;
use super::root::Dir;
use crate::checked;
use crate::contained::contained;
use crate::database::{Trouble, builder};

/// The index of a served directory.
#[derive(Debug)]
pub(super) struct Index {
    /// Where its file is.
    directory: Arc<Dir>,
    state: RwLock<State>,
    /// Held by who changes it, so that nobody waits inside of redb.
    changing: Mutex<()>,
    /// There are notes that a crash would take.
    unsynced: AtomicBool,
    /// How many notes were lost since it was closed.
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    database: Option<Database>,
    /// Counts how often it was opened.
    epoch: u64,
}

/// Counts of any kind by name, with a check.
const COUNTERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("checked counters");

const FILE: &str = "index";

/// What a damaged index is called, before its number.
const DAMAGED: &[u8] = b"index.damaged-";

/// The pages kept in memory, in bytes: what is large in the index is read once at a time.
const CACHE: usize = 1 << 20;

/// Once in so many lost notes it is tried whether the index can be opened again.
const TRY_EVERY: u64 = 64;

impl Index {
    /// Opens the index in our directory, or begins one. Also notes why what was there is not used, if it is not.
    pub(super) fn open(directory: Arc<Dir>, recovery: &mut Recovery) -> Self {
        let index = Self {
            directory,
            state: RwLock::default(),
            changing: Mutex::default(),
            unsynced: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        };
        let trouble = index.reopen();
        let opened = index.epoch() > 0;
        *(if opened { &mut recovery.index_rebuilt } else { &mut recovery.index_unavailable }) = trouble;
        index
    }

    /// Changes tables without waiting for a disk; `None` when that was not possible.
    pub(super) fn note<T>(&self, f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Option<T> {
        let done = self.change(Durability::None, f);
        self.unsynced.store(true, Ordering::Release);
        done
    }

    /// Changes tables so that a power cut does not undo it, nor any note before it; `None` when that was not possible.
    pub(super) fn note_durably<T>(&self, f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Option<T> {
        self.unsynced.store(false, Ordering::Release);
        self.change(Durability::Immediate, f)
    }

    /// Makes durable what was noted.
    pub(super) fn flush(&self) {
        if self.unsynced.load(Ordering::Acquire) {
            self.note_durably(|_| Ok(()));
        }
    }

    /// Reads tables; `None` when that was not possible.
    pub(super) fn read<T>(&self, f: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Option<T> {
        self.with(|database| f(&database.begin_read()?))
    }

    /// How often it was opened, so that who has seen to its content can tell whether it is still the same.
    pub(super) fn epoch(&self) -> u64 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).epoch
    }

    /// A count; `None` when it was never set, or is lost.
    pub(super) fn counter(&self, name: &str) -> Option<u64> {
        self.read(|transaction| {
            Ok(transaction.open_table(COUNTERS)?.get(name)?.map(|bytes| decode(name, bytes.value())))
        })
        .flatten()?
        .ok()
    }

    fn change<T>(
        &self,
        durability: Durability,
        f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Option<T> {
        let _alone = self.changing();
        let closed = self.state.read().unwrap_or_else(PoisonError::into_inner).database.is_none();
        if closed && self.lost.fetch_add(1, Ordering::Relaxed).is_multiple_of(TRY_EVERY) {
            self.reopen();
        }
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(durability)?;
            let done = f(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
    }

    fn with<T>(&self, f: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Option<T> {
        let (epoch, done) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let database = state.database.as_ref()?;
            (state.epoch, contained(|| f(database)))
        };
        let trouble = match done {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(error)) => error.into(),
            Err(_) => panicked(),
        };
        self.close(epoch, &trouble);
        None
    }

    /// Closes the database that was opened as the `epoch`-th; a damaged one is set aside.
    fn close(&self, epoch: u64, trouble: &Trouble) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.epoch == epoch
            && let Some(database) = state.database.take()
        {
            if matches!(trouble, Trouble::Damaged(_)) {
                let _ = set_aside(&self.directory);
            }
            // It may find out more while it is closed.
            let _ = contained(|| drop(database));
            self.lost.store(0, Ordering::Relaxed);
        }
    }

    /// Opens the database; a damaged one is set aside, and a new one begun. Returns what the trouble was.
    fn reopen(&self) -> Option<String> {
        let opened = match open(&self.directory) {
            Ok(database) => Ok((database, None)),
            Err(Trouble::Unavailable(message)) => Err(message),
            Err(Trouble::Unreadable(message) | Trouble::Damaged(message)) => {
                let again = set_aside(&self.directory).map_err(Trouble::from).and_then(|()| open(&self.directory));
                again.map(|database| (database, Some(message))).map_err(Trouble::into_message)
            }
        };
        match opened {
            Ok((database, trouble)) => {
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                state.epoch += 1;
                state.database = Some(database);
                trouble
            }
            Err(message) => Some(message),
        }
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.flush();
        let database = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).database.take();
        let _ = contained(|| drop(database));
    }
}

/// A count within a change.
#[allow(clippy::result_large_err)]
pub(super) fn counter_in(transaction: &WriteTransaction, name: &str) -> Result<u64, redb::Error> {
    let counters = transaction.open_table(COUNTERS)?;
    Ok(counters.get(name)?.and_then(|bytes| decode(name, bytes.value()).ok()).unwrap_or(0))
}

/// Sets a count.
#[allow(clippy::result_large_err)]
pub(super) fn set_counter(transaction: &WriteTransaction, name: &str, count: u64) -> Result<(), redb::Error> {
    let bytes = checked::close(name.as_bytes(), count.to_le_bytes().to_vec());
    transaction.open_table(COUNTERS)?.insert(name, &bytes[..])?;
    Ok(())
}

fn decode(name: &str, bytes: &[u8]) -> Result<u64, Malformed> {
    Ok(u64::from_le_bytes(Reader::new(checked::open(name.as_bytes(), bytes)?).array()?))
}

fn open(directory: &Dir) -> Result<Database, Trouble> {
    let database = contained(|| -> Result<Database, Trouble> {
        let file = directory.open_own(&named(FILE))?;
        let database = builder(CACHE).create_with_backend(Pages::new(file)?)?;
        // So that who reads finds the tables there.
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::None).map_err(redb::Error::from)?;
        transaction.open_table(COUNTERS)?;
        super::recorded::open_tables(&transaction)?;
        super::recorded_trees::open_tables(&transaction)?;
        super::history::open_tables(&transaction)?;
        super::scrub::open_tables(&transaction)?;
        super::listed::open_tables(&transaction)?;
        super::alike::open_tables(&transaction)?;
        transaction.commit()?;
        Ok(database)
    });
    database.unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Trouble {
    Trouble::Damaged("it is damaged where nobody expected it".into())
}

/// Renames the index, in place of one that was set aside before.
fn set_aside(directory: &Dir) -> io::Result<()> {
    let mut last = 0;
    for name in directory.names()? {
        let name = name?;
        if let Some(digits) = name.as_bytes().strip_prefix(DAMAGED) {
            let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            last = last.max(number.unwrap_or(0u64));
            directory.remove(&name)?;
        }
    }
    let aside = [DAMAGED, last.saturating_add(1).to_string().as_bytes()].concat();
    directory.rename(&named(FILE), directory, &named(aside))
}

fn named(text: impl AsRef<[u8]>) -> Name {
    Name::new(text.as_ref()).expect("letters and digits are a name")
}

#[cfg(test)]
pub(super) mod tests {
    use tempfile::TempDir;

    use super::super::root::Root;
    use super::*;
    use crate::disk::SystemDir;

    /// An index in a directory, for the tests of what is noted there.
    pub(in crate::local) fn open(directory: &TempDir) -> Index {
        let start = SystemDir::start(directory.path(), false).expect("it is there");
        let private = Root::new(Arc::new(start)).reserve().expect("it can be made");
        Index::open(Arc::new(private), &mut Recovery::default())
    }
}
