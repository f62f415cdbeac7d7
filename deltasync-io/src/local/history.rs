//! The files that commits replaced, kept so that who still has one can pull the newest as a delta, in one trip.
//!
//! The replaced file itself is kept: just before the new one is renamed over it, it gets a second name below
//! `.deltasync/history/`. So a commit stays the one rename that it was, durable as it was, and reads and copies nothing.
//! Its chunk list, which somebody had described as a basis, is written beside it after the commit. What cannot be kept
//! (another file system, no description, no space) is not, and no commit fails for it.
//!
//! The index notes each version by its root and path; a version's number is the generation of the commit that replaced
//! it. The oldest go first when all together pass the quota. The notes are not synced: after a crash, files that no note
//! knows are removed at the start, and notes whose files are gone or look otherwise are removed when they are met.
//!
//! Invariant: a version that is recalled looks as it did when it was replaced.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deltasync_core::{ByteLen, ChunkList, Digest, Generation, Limits, Malformed, Name, Reader, RelPath, write_varint};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::index::{Index, counter_in, set_counter};
use super::root::Dir;
use crate::checked;
use crate::disk::AnyFile;
use crate::source::{Looks, read_blob};

/// The directory of replaced files.
#[derive(Debug)]
pub(super) struct History {
    directory: Dir,
    /// What all of them may take, in bytes.
    quota: u64,
    /// Of which opening of the index the directory holds just what it knows.
    epoch: AtomicU64,
}

/// A file that has its second name, and is about to be replaced.
#[derive(Debug)]
pub(super) struct Aside {
    number: u64,
    looks: Looks,
    /// What it takes on the disk, in bytes.
    bytes: u64,
    generation: Generation,
    chunks: Arc<ChunkList>,
}

/// A version that was replaced.
#[derive(Debug)]
pub(super) struct Replaced {
    pub(super) generation: Generation,
    pub(super) chunks: ChunkList,
    pub(super) file: AnyFile,
}

/// What the index says of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    path: RelPath,
    root: Digest,
    looks: Looks,
    bytes: u64,
    generation: Generation,
}

/// Versions by number.
const VERSIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("checked versions");

/// Their numbers by root and path.
const BY_ROOT: TableDefinition<'_, (&[u8; 32], &[u8]), u64> = TableDefinition::new("versions by root");

/// What all versions take, in bytes, and how many there are: counters of the index.
const BYTES: &str = "history bytes";
const COUNT: &str = "history versions";

/// The most versions that are kept.
const MOST: u64 = 1 << 16;

impl History {
    /// Takes over a directory of replaced files, and removes what the index does not know; all of it for a quota of
    /// zero. Also returns how many files were removed.
    pub(super) fn open(directory: Dir, quota: u64, index: &Index) -> io::Result<(Self, u64)> {
        let history = Self { directory, quota, epoch: AtomicU64::new(0) };
        let removed = history.sweep(index)?;
        Ok((history, removed))
    }

    /// Removes what an index that was opened does not know. Nothing is known of an index that cannot be opened, and nothing
    /// removed.
    fn sweep(&self, index: &Index) -> io::Result<u64> {
        let epoch = index.epoch();
        if epoch == self.epoch.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let names: Vec<_> = self.directory.names()?.collect::<io::Result<_>>()?;
        let unknown = index.note(|transaction| {
            set_totals(transaction)?;
            self.make_room(transaction, 0, &mut Vec::new())?;
            let versions = transaction.open_table(VERSIONS)?;
            let mut unknown = Vec::new();
            for name in names {
                let known = match number_of(&name) {
                    Some(number) => versions.get(number)?.is_some(),
                    None => false,
                };
                if !known {
                    unknown.push(name);
                }
            }
            Ok(unknown)
        });
        let Some(unknown) = unknown else { return Ok(0) };
        self.epoch.store(epoch, Ordering::Relaxed);
        for name in &unknown {
            self.directory.remove(name)?;
        }
        Ok(unknown.len() as u64)
    }

    /// The number of the last version that has a file in such a directory.
    pub(super) fn last(directory: &Dir) -> io::Result<u64> {
        let mut last = 0;
        for name in directory.names()? {
            // There are not as many commits as to reach the others.
            let number = number_of(&name?).filter(|number| *number < 1 << 62);
            last = last.max(number.unwrap_or(0));
        }
        Ok(last)
    }

    /// Gives a file that is to be replaced its second name, when it looks as it was described; `generation` is that of
    /// the commit that published it, and `number` that of the one that replaces it.
    pub(super) fn set_aside(
        &self,
        parent: &Dir,
        name: &Name,
        chunks: Arc<ChunkList>,
        (looks, bytes): (Looks, u64),
        generation: Generation,
        number: Generation,
    ) -> Option<Aside> {
        let aside = Aside { number: number.get(), looks, bytes, generation, chunks };
        if self.quota == 0 || aside.takes() > self.quota {
            return None;
        }
        parent.link(name, &self.directory, &file_name(aside.number)).ok()?;
        // Someone may have changed it in between, or put another in its place.
        let is = self.looks(aside.number).ok().flatten();
        if is.is_some_and(|now| looks.under_any_name().still(&now)) {
            return Some(aside);
        }
        self.discard(&aside);
        None
    }

    /// Takes the second name away again, as the file was not replaced.
    pub(super) fn discard(&self, aside: &Aside) {
        self.remove(aside.number);
    }

    /// Keeps a file that has been replaced at `path`; where that cannot be done, removes it.
    pub(super) fn keep(&self, aside: &Aside, path: &RelPath, index: &Index) {
        let number = aside.number;
        let kept = self.write_chunks(aside).and_then(|()| {
            // Its last name but this one has gone, and so it looks as it will from now on.
            let looks = self.looks(number)?.filter(|now| aside.looks.under_any_name().still(now));
            let looks = looks.ok_or_else(|| io::Error::other("it changed"))?;
            let bytes = aside.takes();
            let note =
                Note { path: path.clone(), root: aside.chunks.root(), looks, bytes, generation: aside.generation };
            let mut going = Vec::new();
            let noted = index.note(|transaction| {
                let again = transaction.open_table(BY_ROOT)?.get(note.key())?.map(|number| number.value());
                if let Some(again) = again {
                    self.forget(transaction, again)?;
                    going.push(again);
                }
                self.make_room(transaction, bytes, &mut going)?;
                transaction.open_table(VERSIONS)?.insert(number, &note.encode(number)[..])?;
                transaction.open_table(BY_ROOT)?.insert(note.key(), number)?;
                add_to_totals(transaction, bytes.cast_signed(), 1)
            });
            going.iter().for_each(|number| self.remove(*number));
            noted.ok_or_else(|| io::Error::other("there is no index just now"))
        });
        if kept.is_err() {
            self.discard(aside);
        }
        // The index may be another one by now; what others are about to note is not kept then.
        let _ = self.sweep(index);
    }

    /// The version that had this root at this path.
    pub(super) fn recall(&self, path: &RelPath, root: Digest, index: &Index, limits: &Limits) -> Option<Replaced> {
        let found = index.read(|transaction| {
            let number = transaction.open_table(BY_ROOT)?.get((root.as_bytes(), path.as_bytes()))?;
            let Some(number) = number.map(|number| number.value()) else { return Ok(None) };
            let note = transaction.open_table(VERSIONS)?.get(number)?;
            Ok(Some((number, note.and_then(|bytes| Note::decode(number, bytes.value()).ok()))))
        });
        let (number, note) = found.flatten()?;
        let opened = note.and_then(|note| self.open_version(number, &note, limits).ok());
        if opened.is_none() {
            let _ = index.note(|transaction| self.forget(transaction, number));
            self.remove(number);
        }
        opened
    }

    /// The first version whose number is above `after`, opened if it is what was kept, and its path.
    ///
    /// # Errors
    ///
    /// When there is no index to be read just now.
    pub(super) fn next_version(
        &self,
        after: u64,
        index: &Index,
        limits: &Limits,
    ) -> io::Result<Option<(u64, RelPath, io::Result<Replaced>)>> {
        let found = index.read(|transaction| {
            let versions = transaction.open_table(VERSIONS)?;
            for entry in versions.range(after.saturating_add(1)..)? {
                let (number, bytes) = entry?;
                let number = number.value();
                if let Ok(note) = Note::decode(number, bytes.value()) {
                    return Ok(Some((number, note)));
                }
            }
            Ok(None)
        });
        let found = found.ok_or_else(|| io::Error::other("there is no index just now"))?;
        Ok(found.map(|(number, note)| {
            let opened = self.open_version(number, &note, limits);
            (number, note.path, opened)
        }))
    }

    /// Throws a version away; returns the root that it had, unless it was gone before.
    pub(super) fn throw_away(&self, number: u64, index: &Index) -> Option<Digest> {
        let root = index.note(|transaction| {
            let note = transaction.open_table(VERSIONS)?.get(number)?.map(|note| Note::decode(number, note.value()));
            self.forget(transaction, number)?;
            Ok(note.and_then(Result::ok).map(|note| note.root))
        });
        let root = root.flatten()?;
        self.remove(number);
        Some(root)
    }

    fn open_version(&self, number: u64, note: &Note, limits: &Limits) -> io::Result<Replaced> {
        let file = self.directory.open_file(&file_name(number))?;
        if Looks::of(&file)? != note.looks {
            return Err(io::Error::other("it changed"));
        }
        let chunks = self.directory.open_file(&chunks_name(number))?;
        let chunks = read_blob(&chunks, ChunkList::longest_encoding(limits))?;
        let chunks = ChunkList::decode(&chunks, limits).map_err(io::Error::other)?;
        if (chunks.root(), chunks.len()) != (note.root, ByteLen::new(note.looks.len)) {
            return Err(io::Error::other("the chunks of another file"));
        }
        Ok(Replaced { generation: note.generation, chunks, file })
    }

    fn write_chunks(&self, aside: &Aside) -> io::Result<()> {
        let mut bytes = Vec::new();
        aside.chunks.encode(&mut bytes);
        self.directory.create(&chunks_name(aside.number), 0o600)?.write_all_at(&bytes, 0)
    }

    /// Forgets the oldest versions until `bytes` more fit; their files are for the caller to remove.
    #[allow(clippy::result_large_err)]
    fn make_room(&self, transaction: &WriteTransaction, bytes: u64, going: &mut Vec<u64>) -> Result<(), redb::Error> {
        let room = self.quota.saturating_sub(bytes);
        loop {
            let (used, count) = (counter_in(transaction, BYTES)?, counter_in(transaction, COUNT)?);
            if used <= room && count < MOST && self.quota > 0 {
                return Ok(());
            }
            let oldest = transaction.open_table(VERSIONS)?.first()?.map(|(number, _)| number.value());
            let Some(oldest) = oldest else { return Ok(()) };
            self.forget(transaction, oldest)?;
            going.push(oldest);
        }
    }

    /// Removes the notes of a version.
    #[allow(clippy::result_large_err)]
    fn forget(&self, transaction: &WriteTransaction, number: u64) -> Result<(), redb::Error> {
        let removed = transaction.open_table(VERSIONS)?.remove(number)?.map(|note| Note::decode(number, note.value()));
        let Some(note) = removed else { return Ok(()) };
        let Ok(note) = note else { return set_totals(transaction) };
        add_to_totals(transaction, note.bytes.cast_signed().saturating_neg(), -1)?;
        let mut by_root = transaction.open_table(BY_ROOT)?;
        let same = by_root.get(note.key())?.is_some_and(|found| found.value() == number);
        if same {
            by_root.remove(note.key())?;
        }
        Ok(())
    }

    fn looks(&self, number: u64) -> io::Result<Option<Looks>> {
        Ok(self.directory.stat(&file_name(number))?.as_ref().map(Looks::of_stat))
    }

    fn remove(&self, number: u64) {
        for name in [file_name(number), chunks_name(number)] {
            let _ = self.directory.remove(&name);
        }
    }
}

impl Aside {
    /// What it and its chunk list take, in bytes.
    fn takes(&self) -> u64 {
        self.bytes.saturating_add(40 * self.chunks.runs().len() as u64)
    }
}

/// Makes the tables that are not there.
#[allow(clippy::result_large_err)]
pub(super) fn open_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(VERSIONS)?;
    transaction.open_table(BY_ROOT)?;
    Ok(())
}

/// Counts what all versions take.
#[allow(clippy::result_large_err)]
fn set_totals(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let (mut bytes, mut count) = (0u64, 0);
    for entry in transaction.open_table(VERSIONS)?.iter()? {
        let (number, note) = entry?;
        count += 1;
        bytes = bytes.saturating_add(Note::decode(number.value(), note.value()).map_or(0, |note| note.bytes));
    }
    set_counter(transaction, BYTES, bytes)?;
    set_counter(transaction, COUNT, count)
}

#[allow(clippy::result_large_err)]
fn add_to_totals(transaction: &WriteTransaction, bytes: i64, count: i64) -> Result<(), redb::Error> {
    for (name, more) in [(BYTES, bytes), (COUNT, count)] {
        let total = counter_in(transaction, name)?;
        set_counter(transaction, name, total.saturating_add_signed(more))?;
    }
    Ok(())
}

fn file_name(number: u64) -> Name {
    named(format!("{number:016x}.file"))
}

fn chunks_name(number: u64) -> Name {
    named(format!("{number:016x}.chunks"))
}

fn named(text: String) -> Name {
    Name::new(text).expect("digits and letters are a name")
}

/// The number of the version that a file belongs to.
fn number_of(name: &Name) -> Option<u64> {
    let text = std::str::from_utf8(name.as_bytes()).ok()?;
    let (digits, _) = text.split_once('.')?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    [file_name(number), chunks_name(number)].contains(name).then_some(number)
}

impl Note {
    fn key(&self) -> (&[u8; 32], &[u8]) {
        (self.root.as_bytes(), self.path.as_bytes())
    }

    fn encode(&self, number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, self.generation.get());
        write_varint(&mut out, self.bytes);
        self.looks.write(&mut out);
        out.extend_from_slice(self.root.as_bytes());
        out.extend_from_slice(self.path.as_bytes());
        checked::close(&number.to_le_bytes(), out)
    }

    fn decode(number: u64, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(checked::open(&number.to_le_bytes(), bytes)?);
        let generation = Generation::new(reader.varint()?);
        let bytes = reader.varint()?;
        let looks = Looks::read(&mut reader)?;
        let root = Digest::from_bytes(reader.array()?);
        let path = RelPath::new(reader.rest()).map_err(|_| Malformed::Value("not a path"))?;
        Ok(Self { path, root, looks, bytes, generation })
    }
}
