//! What a served directory remembers: how many commits there have been, what they published, and what they replaced.
//!
//! The generation is kept in an embedded database (redb) and counted up, durably, before a commit becomes visible: after
//! a crash a number may be missing, but none is given twice. All else is only ever a help, and is noted without a sync of
//! its own: it lasts from the next commit on, and what a crash takes with it is not missed.
//!
//! What was published where is found by its root, as long as the file looks as it did after its commit. There is one note
//! for each path, so notes are as many as the paths that were ever published and not looked for in vain.

use std::fs::File;
use std::io;

use deltasync_core::{Digest, Generation, Malformed, Reader, RelPath, write_varint};
use redb::backends::FileBackend;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::source::Looks;

/// The index of a served directory.
#[derive(Debug)]
pub(super) struct Index {
    database: Database,
}

/// A file as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) path: RelPath,
    pub(super) generation: Generation,
    pub(super) looks: Looks,
}

const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const GENERATION: &str = "generation";

/// What was published last under each root.
const PUBLISHED: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("published");

/// The root of what was published last at each path.
const ROOTS: TableDefinition<'_, &[u8], &[u8; 32]> = TableDefinition::new("roots");

/// The pages kept in memory, in bytes: the index is small.
const CACHE: usize = 1 << 20;

impl Index {
    /// Opens the index in a file, and begins one when the file is empty.
    pub(super) fn open(file: File) -> io::Result<Self> {
        let backend = FileBackend::new(file).map_err(io::Error::other)?;
        let database = Database::builder().set_cache_size(CACHE).create_with_backend(backend);
        let index = Self { database: database.map_err(|error| io::Error::other(format!("index: {error}")))? };
        // So that who reads finds the tables there.
        let tables = |transaction: &WriteTransaction| {
            transaction.open_table(PUBLISHED)?;
            transaction.open_table(ROOTS)?;
            Ok(())
        };
        index.note(tables).map_err(io::Error::other)?;
        Ok(index)
    }

    /// Counts up, and returns the number once a power cut can no longer undo it.
    // An error of redb is large, and rare.
    #[allow(clippy::result_large_err)]
    pub(super) fn next(&self) -> Result<Generation, redb::Error> {
        let transaction = self.database.begin_write()?;
        let mut counters = transaction.open_table(COUNTERS)?;
        let last = counters.get(GENERATION)?.map_or(0, |count| count.value());
        let next = Generation::new(last).next();
        counters.insert(GENERATION, next.get())?;
        drop(counters);
        transaction.commit()?;
        Ok(next)
    }

    /// Notes that a file with this root was published.
    #[allow(clippy::result_large_err)]
    pub(super) fn publish(&self, root: Digest, published: &Published) -> Result<(), redb::Error> {
        self.note(|transaction| {
            let mut roots = transaction.open_table(ROOTS)?;
            let mut by_root = transaction.open_table(PUBLISHED)?;
            let path = published.path.as_bytes();
            let replaced = roots.insert(path, root.as_bytes())?.map(|replaced| *replaced.value());
            if let Some(replaced) = replaced {
                remove_at(&mut by_root, &replaced, path)?;
            }
            by_root.insert(root.as_bytes(), &published.encode()[..])?;
            Ok(())
        })
    }

    /// What was published last with this root.
    #[allow(clippy::result_large_err)]
    pub(super) fn published(&self, root: Digest) -> Result<Option<Published>, redb::Error> {
        let found = self.read()?.open_table(PUBLISHED)?.get(root.as_bytes())?;
        Ok(found.and_then(|bytes| Published::decode(bytes.value()).ok()))
    }

    /// Forgets that a file with this root was published at this path.
    #[allow(clippy::result_large_err)]
    pub(super) fn forget(&self, root: Digest, path: &RelPath) -> Result<(), redb::Error> {
        self.note(|transaction| {
            remove_at(&mut transaction.open_table(PUBLISHED)?, root.as_bytes(), path.as_bytes())?;
            let mut roots = transaction.open_table(ROOTS)?;
            let last = roots.get(path.as_bytes())?.is_some_and(|last| last.value() == root.as_bytes());
            if last {
                roots.remove(path.as_bytes())?;
            }
            Ok(())
        })
    }

    /// Changes tables without waiting for a disk.
    #[allow(clippy::result_large_err)]
    pub(super) fn note<T>(
        &self,
        f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::None)?;
        let done = f(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// Reads tables.
    #[allow(clippy::result_large_err)]
    pub(super) fn read(&self) -> Result<ReadTransaction, redb::Error> {
        Ok(self.database.begin_read()?)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // Makes durable what was noted since the last commit; if it cannot, that is forgotten.
        if let Ok(transaction) = self.database.begin_write() {
            let _ = transaction.commit();
        }
    }
}

/// Removes the note of a root, when it is about this path.
#[allow(clippy::result_large_err)]
fn remove_at(
    published: &mut redb::Table<'_, &'static [u8; 32], &'static [u8]>,
    root: &[u8; 32],
    path: &[u8],
) -> Result<(), redb::Error> {
    let noted = published.get(root)?.and_then(|bytes| Published::decode(bytes.value()).ok());
    if noted.is_some_and(|noted| noted.path.as_bytes() == path) {
        published.remove(root)?;
    }
    Ok(())
}

impl Published {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, self.generation.get());
        self.looks.write(&mut out);
        out.extend_from_slice(self.path.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let generation = Generation::new(reader.varint()?);
        let looks = Looks::read(&mut reader)?;
        let path = RelPath::new(reader.rest()).map_err(|_| Malformed::Value("not a path"))?;
        Ok(Self { path, generation, looks })
    }
}
