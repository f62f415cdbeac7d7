//! The index of what is remembered: an embedded database that is open only for one step.
//!
//! A recall opens it for reading, which many processes may do at once and which writes nothing. A change opens it alone,
//! has every page of it checked, and makes room: the files used longest ago go until the new one fits. When another
//! process has it the step is left out. A database that is damaged is removed, and a new one begun by the next change.
//!
//! Cost: a change checks all pages and syncs a few times, some milliseconds; records are about 200 bytes, and at most
//! [`MOST`] are kept.

use std::cmp::Reverse;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use redb::backends::FileBackend;
use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::blobs::Blobs;
use super::record::Record;
use crate::contained::contained;
use crate::database::{Trouble, builder};

/// The most files that are remembered.
pub(super) const MOST: usize = 1 << 14;

/// The pages kept in memory, in bytes.
const CACHE: usize = 1 << 20;

const FILES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("files");

/// Where the index is.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    path: PathBuf,
}

impl Ledger {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The record of a key.
    pub(super) fn get(&self, key: &[u8], blobs: &Blobs) -> Option<Record> {
        let record = self.guard(blobs, || {
            let file = File::open(&self.path)?;
            if file.metadata()?.len() == 0 {
                // Another process is about to begin it.
                return Ok(None);
            }
            let mut database = redb::Builder::new();
            let database = database.set_cache_size(CACHE).open_read_only_with_backend(FileBackend::new(file)?)?;
            let transaction = database.begin_read()?;
            let files = match transaction.open_table(FILES) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                files => files?,
            };
            let found = files.get(key)?;
            Ok(found.and_then(|bytes| Record::decode(key, bytes.value()).ok()))
        });
        record.flatten()
    }

    /// Adds a record in place of the one with this key, within `quota` bytes, removing what has to go for it, and calls
    /// `publish` once it is there. Does nothing when it cannot fit. True when it is there.
    pub(super) fn put(
        &self,
        key: &[u8],
        record: &Record,
        quota: u64,
        blobs: &Blobs,
        publish: impl FnOnce() -> io::Result<()>,
    ) -> bool {
        let Some(room) = quota.checked_sub(record.bytes) else { return false };
        let done = self.guard(blobs, || {
            let add = |files: &mut Files<'_>| {
                make_room(files, key, room, blobs)?;
                files.insert(key, &record.encode(key)[..])?;
                Ok(())
            };
            self.change(blobs, add, publish)
        });
        done.is_some()
    }

    /// Puts another record of the same blobs in place of one, unless there is another one under its key by now. True when
    /// it is there.
    pub(super) fn renew(&self, key: &[u8], record: &Record, renewed: &Record, blobs: &Blobs) -> bool {
        let mut there = false;
        let done = self.guard(blobs, || {
            let renew = |files: &mut Files<'_>| {
                there = files.get(key)?.is_some_and(|now| now.value() == record.encode(key));
                if there {
                    files.insert(key, &renewed.encode(key)[..])?;
                }
                Ok(())
            };
            self.change(blobs, renew, || Ok(()))
        });
        done.is_some() && there
    }

    /// Removes a record that turned out damaged, unless there is another one under its key by now.
    pub(super) fn remove(&self, key: &[u8], record: &Record, blobs: &Blobs) {
        blobs.remove(record.id);
        self.guard(blobs, || {
            let forget = |files: &mut Files<'_>| {
                let same = files.get(key)?.is_some_and(|now| now.value() == record.encode(key));
                if same {
                    files.remove(key)?;
                }
                Ok(())
            };
            self.change(blobs, forget, || Ok(()))
        });
    }

    /// Opens the index alone, changes it durably, and calls `then` before another process may have it.
    fn change(
        &self,
        blobs: &Blobs,
        f: impl FnOnce(&mut Files<'_>) -> Result<(), Trouble>,
        then: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Trouble> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        let database = builder(CACHE).create_with_backend(FileBackend::new(file)?)?;
        let transaction = database.begin_write()?;
        if transaction.list_tables()?.next().is_none() {
            // It is new: whatever lies there, nobody knows it.
            blobs.clear();
        }
        f(&mut transaction.open_table(FILES)?)?;
        transaction.commit()?;
        then()?;
        drop(database);
        Ok(())
    }

    /// Does a step; `None` when it had to be left out. An index that turns out damaged is removed, and all blobs with it.
    fn guard<T>(&self, blobs: &Blobs, step: impl FnOnce() -> Result<T, Trouble>) -> Option<T> {
        // A damaged database may be found so in any place, and some of them panic.
        match contained(step) {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(Trouble::Unavailable(_) | Trouble::Unreadable(_))) => {}
            Ok(Err(Trouble::Damaged(_))) | Err(_) => {
                let _ = fs::remove_file(&self.path);
                blobs.clear();
            }
        }
        None
    }
}

/// Removes the record of a key, all that are damaged, and those that were used longest ago until the others take at most
/// `room` bytes.
fn make_room(files: &mut Files<'_>, key: &[u8], room: u64, blobs: &Blobs) -> Result<(), Trouble> {
    let (mut staying, mut going) = (Vec::new(), Vec::new());
    for entry in files.iter()? {
        let (other, bytes) = entry?;
        let (other, old) = (other.value().to_vec(), Record::decode(other.value(), bytes.value()).ok());
        match old {
            Some(old) if other != key => staying.push((other, old)),
            old => going.push((other, old)),
        }
    }
    let mut total: u64 = staying.iter().map(|(_, old)| old.bytes).sum();
    if total > room || staying.len() >= MOST {
        staying.sort_by_cached_key(|(_, old)| Reverse(blobs.used(old.id)));
        while (total > room || staying.len() >= MOST)
            && let Some((other, oldest)) = staying.pop()
        {
            total -= oldest.bytes;
            going.push((other, Some(oldest)));
        }
    }
    for (other, old) in going {
        // The blobs first: a record without them is noticed, and blobs without a record are not.
        old.iter().for_each(|old| blobs.remove(old.id));
        files.remove(&other[..])?;
    }
    Ok(())
}

type Files<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;
