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

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deltasync_core::{ByteLen, ChunkList, Digest, Generation, Limits, Malformed, Name, Reader, RelPath, write_varint};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::index::Index;
use super::root::Dir;
use crate::source::{Looks, read_blob};

/// The directory of replaced files.
#[derive(Debug)]
pub(super) struct History {
    directory: Dir,
    /// What all of them may take, in bytes.
    quota: u64,
    totals: Mutex<Totals>,
}

/// What all versions that the index knows take. It changes only with the index.
#[derive(Debug, Default)]
struct Totals {
    bytes: u64,
    count: u64,
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
    pub(super) file: File,
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
const VERSIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("versions");

/// Their numbers by root and path.
const BY_ROOT: TableDefinition<'_, (&[u8; 32], &[u8]), u64> = TableDefinition::new("versions by root");

/// The most versions that are kept.
const MOST: u64 = 1 << 16;

impl History {
    /// Takes over a directory of replaced files, and removes what the index does not know; all of it for a quota of
    /// zero.
    pub(super) fn open(directory: Dir, quota: u64, index: &Index) -> io::Result<Self> {
        let history = Self { directory, quota, totals: Mutex::default() };
        let names: io::Result<Vec<_>> = history.directory.names().and_then(Iterator::collect);
        let names = names?;
        let unknown = index.note(|transaction| {
            transaction.open_table(BY_ROOT)?;
            *history.totals() = Totals::of(&transaction.open_table(VERSIONS)?)?;
            history.make_room(transaction, 0, &mut Vec::new())?;
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
        for name in unknown.map_err(io::Error::other)? {
            history.directory.remove(&name)?;
        }
        Ok(history)
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
                transaction.open_table(VERSIONS)?.insert(number, &note.encode()[..])?;
                transaction.open_table(BY_ROOT)?.insert(note.key(), number)?;
                let mut totals = self.totals();
                totals.bytes += bytes;
                totals.count += 1;
                Ok(())
            });
            going.iter().for_each(|number| self.remove(*number));
            noted.map_err(io::Error::other)
        });
        if kept.is_err() {
            self.discard(aside);
        }
    }

    /// The version that had this root at this path.
    pub(super) fn recall(&self, path: &RelPath, root: Digest, index: &Index, limits: &Limits) -> Option<Replaced> {
        let read = || -> Result<_, redb::Error> {
            let transaction = index.read()?;
            let number = transaction.open_table(BY_ROOT)?.get((root.as_bytes(), path.as_bytes()))?;
            let Some(number) = number.map(|number| number.value()) else { return Ok(None) };
            let note = transaction.open_table(VERSIONS)?.get(number)?;
            Ok(Some((number, note.and_then(|bytes| Note::decode(bytes.value()).ok()))))
        };
        let (number, note) = read().ok().flatten()?;
        let opened = note.and_then(|note| self.open_version(number, &note, limits).ok());
        if opened.is_none() {
            let _ = index.note(|transaction| self.forget(transaction, number));
            self.remove(number);
        }
        opened
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
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        self.directory.create(&chunks_name(aside.number), mode)?.write_all(&bytes)
    }

    /// Forgets the oldest versions until `bytes` more fit; their files are for the caller to remove.
    #[allow(clippy::result_large_err)]
    fn make_room(&self, transaction: &WriteTransaction, bytes: u64, going: &mut Vec<u64>) -> Result<(), redb::Error> {
        let room = self.quota.saturating_sub(bytes);
        loop {
            let fits = |totals: &Totals| totals.bytes <= room && totals.count < MOST && self.quota > 0;
            if fits(&self.totals()) {
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
        let Some(note) = transaction.open_table(VERSIONS)?.remove(number)?.map(|note| Note::decode(note.value()))
        else {
            return Ok(());
        };
        let mut totals = self.totals();
        totals.count = totals.count.saturating_sub(1);
        let Ok(note) = note else { return Ok(()) };
        totals.bytes = totals.bytes.saturating_sub(note.bytes);
        let mut by_root = transaction.open_table(BY_ROOT)?;
        let same = by_root.get(note.key())?.is_some_and(|found| found.value() == number);
        if same {
            by_root.remove(note.key())?;
        }
        Ok(())
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Totals {
    #[allow(clippy::result_large_err)]
    fn of(versions: &impl ReadableTable<u64, &'static [u8]>) -> Result<Self, redb::Error> {
        let mut totals = Self::default();
        for entry in versions.iter()? {
            totals.count += 1;
            totals.bytes += Note::decode(entry?.1.value()).map_or(0, |note| note.bytes);
        }
        Ok(totals)
    }
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

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, self.generation.get());
        write_varint(&mut out, self.bytes);
        self.looks.write(&mut out);
        out.extend_from_slice(self.root.as_bytes());
        out.extend_from_slice(self.path.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let generation = Generation::new(reader.varint()?);
        let bytes = reader.varint()?;
        let looks = Looks::read(&mut reader)?;
        let root = Digest::from_bytes(reader.array()?);
        let path = RelPath::new(reader.rest()).map_err(|_| Malformed::Value("not a path"))?;
        Ok(Self { path, root, looks, bytes, generation })
    }
}
