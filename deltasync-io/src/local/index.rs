//! What a served directory remembers: how many commits there have been.
//!
//! The generation is kept in an embedded database (redb) and counted up, durably, before a commit becomes visible: after
//! a crash a number may be missing, but none is given twice.

use std::fs::File;
use std::io;

use deltasync_core::Generation;
use redb::backends::FileBackend;
use redb::{Database, ReadableTable, TableDefinition};

/// The index of a served directory.
#[derive(Debug)]
pub(super) struct Index {
    database: Database,
}

const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const GENERATION: &str = "generation";

/// The pages kept in memory, in bytes: the index is small.
const CACHE: usize = 1 << 20;

impl Index {
    /// Opens the index in a file, and begins one when the file is empty.
    pub(super) fn open(file: File) -> io::Result<Self> {
        let backend = FileBackend::new(file).map_err(io::Error::other)?;
        let database = Database::builder().set_cache_size(CACHE).create_with_backend(backend);
        Ok(Self { database: database.map_err(|error| io::Error::other(format!("index: {error}")))? })
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
}
