//! The chunk lists of large files, kept in the index by how the files looked, so that they need not be read again.
//!
//! A list is found again as long as its file looks as it did: device, inode, length and both times. What is written into a
//! file within one tick of the clock that stamps it does not show. So the list of a file that was read is kept only when
//! its last change is some seconds back by the clock of its disk, and that of a file that we published only when its bytes
//! were stamped before the rename that showed it to others, see [`is_settled`] and [`is_told_apart`].
//!
//! A list is a help and no proof: what a disk lost unseen looks as before. A target that is made with a wrong list has
//! another root, is repaired, and the list forgotten; and nobody is told that a file has a root for the sake of a list
//! alone. A list that does not have its check, or not the length of its file, is none.
//!
//! Cost: about 35 bytes a chunk, 5 MB for a GiB, written and read in a few milliseconds. All together take at most
//! [`MOST_PARTS`] pieces of 32 KiB, 256 MiB, for at most [`MOST`] files; what was noted first goes first. Files below
//! [`LEAST`] bytes are read faster than looked up. As all notes these are not synced: a crash takes the last ones.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deltasync_core::{Algorithm, ChunkList, Cutter, Limits, Malformed, Reader, write_varint};
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::index::Index;
use crate::checked;
use crate::disk::DiskStat;
use crate::source::Looks;

/// The list of a shorter file is not kept, in bytes.
pub(super) const LEAST: u64 = 256 << 10;

/// The most files.
const MOST: u64 = 1 << 16;

/// The most parts of all lists together.
const MOST_PARTS: u64 = 1 << 13;

/// The longest part, in bytes: it fits a page of 32 KiB with what the database adds.
const PART: usize = (32 << 10) - 512;

/// How far back a change is that a later one shows beside, in seconds: some file systems stamp by twos.
const SETTLED: i64 = 3;

/// A clock of the system ticks at least so often.
const TICK: Duration = Duration::from_millis(12);

/// What is known of the list of a file, by its device and inode.
const LISTS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("chunk lists");

/// Whose list a number is. The first is the oldest.
const BY_AGE: TableDefinition<'_, u64, (u64, u64)> = TableDefinition::new("chunk lists by age");

/// Encoded lists in parts, by their numbers and in order.
const PARTS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("parts of chunk lists");

impl Index {
    /// The list of the file that looked so, if it was cut and digested in this way.
    pub(super) fn list_of(
        &self,
        looks: &Looks,
        cutter: Cutter,
        algorithm: Algorithm,
        limits: &Limits,
    ) -> Option<ChunkList> {
        if looks.len < LEAST {
            return None;
        }
        let key = key_of(looks);
        let bytes = self.read(|transaction| {
            let noted = transaction.open_table(LISTS)?.get(key)?.map(|bytes| Noted::decode(key, bytes.value()));
            let Some(Ok(noted)) = noted.filter(|noted| noted.as_ref().is_ok_and(|noted| noted.looks == *looks)) else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            for part in transaction.open_table(PARTS)?.range((noted.number, 0)..=(noted.number, u32::MAX))? {
                bytes.extend_from_slice(part?.1.value());
            }
            Ok(Some(bytes))
        });
        let list = ChunkList::decode(&bytes.flatten()?, limits).ok()?;
        let suits = (list.cutter(), list.algorithm(), list.len().get()) == (cutter, algorithm, looks.len);
        suits.then_some(list)
    }

    /// Keeps the list of a file that looks so, in place of another one of it.
    pub(super) fn note_list(&self, looks: &Looks, list: &ChunkList) {
        let mut bytes = Vec::new();
        list.encode(&mut bytes);
        let parts = bytes.len().div_ceil(PART) as u64;
        if looks.len < LEAST || parts > MOST_PARTS {
            return;
        }
        let key = key_of(looks);
        self.note(|transaction| {
            forget(transaction, key)?;
            make_room(transaction, parts)?;
            let mut by_age = transaction.open_table(BY_AGE)?;
            let number = by_age.last()?.map_or(0, |(last, _)| last.value().saturating_add(1));
            by_age.insert(number, key)?;
            let noted = Noted { number, looks: *looks }.encode(key);
            transaction.open_table(LISTS)?.insert(key, &noted[..])?;
            let mut table = transaction.open_table(PARTS)?;
            for (n, part) in (0..).zip(bytes.chunks(PART)) {
                table.insert((number, n), part)?;
            }
            Ok(())
        });
    }

    /// Forgets the list of a file, whatever it looks like.
    pub(super) fn forget_list(&self, looks: &Looks) {
        let key = key_of(looks);
        let known = self.read(|transaction| Ok(transaction.open_table(LISTS)?.get(key)?.is_some()));
        if known == Some(true) {
            self.note(|transaction| forget(transaction, key));
        }
    }
}

/// True when a file that looks so will look otherwise after any later write; `now` is what the clock of its disk has passed,
/// in seconds since 1970.
pub(super) fn is_settled(looks: &Looks, now: i64) -> bool {
    let last = looks.changed.unwrap_or(looks.modified).0.max(looks.modified.0);
    last.saturating_add(SETTLED) <= now
}

/// Waits until what is stamped from now on is stamped later than the last write of a file was, if that is not long.
pub(super) fn outwait(is: &DiskStat) {
    let (seconds, nanoseconds) = is.modified;
    let then = u64::try_from(seconds).ok().zip(u32::try_from(nanoseconds).ok());
    let then = then.map(|(seconds, nanoseconds)| UNIX_EPOCH + Duration::new(seconds, nanoseconds));
    if let Some(Ok(since)) = then.map(|then| SystemTime::now().duration_since(then))
        && let Some(left) = TICK.checked_sub(since)
    {
        std::thread::sleep(left);
    }
}

/// True when a file that was stamped as `before` while only we had it, and looks so since others have, holds what it held
/// then, and will look otherwise after any later write.
pub(super) fn is_told_apart(before: &DiskStat, looks: &Looks) -> bool {
    let same = (before.device, before.inode, before.len, before.modified)
        == (looks.device, looks.inode, looks.len, looks.modified);
    same && looks.changed.is_some_and(|changed| looks.modified < changed)
}

/// Makes the tables that are not there.
#[allow(clippy::result_large_err)]
pub(super) fn open_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(LISTS)?;
    transaction.open_table(BY_AGE)?;
    transaction.open_table(PARTS)?;
    Ok(())
}

/// The entry of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted {
    number: u64,
    looks: Looks,
}

impl Noted {
    fn encode(&self, key: (u64, u64)) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, self.number);
        self.looks.write(&mut out);
        checked::close(&check_key(key), out)
    }

    fn decode(key: (u64, u64), bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(checked::open(&check_key(key), bytes)?);
        let noted = Self { number: reader.varint()?, looks: Looks::read(&mut reader)? };
        reader.finish()?;
        Ok(noted)
    }
}

fn key_of(looks: &Looks) -> (u64, u64) {
    (looks.device, looks.inode)
}

fn check_key((device, inode): (u64, u64)) -> [u8; 16] {
    (u128::from(device) << 64 | u128::from(inode)).to_le_bytes()
}

/// Forgets the oldest lists until so many parts of another one fit.
#[allow(clippy::result_large_err)]
fn make_room(transaction: &WriteTransaction, parts: u64) -> Result<(), redb::Error> {
    loop {
        let (count, used) = (transaction.open_table(BY_AGE)?.len()?, transaction.open_table(PARTS)?.len()?);
        if count < MOST && used.saturating_add(parts) <= MOST_PARTS {
            return Ok(());
        }
        let oldest = transaction.open_table(BY_AGE)?.first()?.map(|(number, key)| (number.value(), key.value()));
        match oldest {
            Some((number, key)) => remove(transaction, number, key)?,
            // Parts that belong to nothing.
            None => transaction.open_table(PARTS)?.retain(|_, _| false)?,
        }
    }
}

/// Forgets the list of a file, if there is one.
#[allow(clippy::result_large_err)]
fn forget(transaction: &WriteTransaction, key: (u64, u64)) -> Result<(), redb::Error> {
    let noted = transaction.open_table(LISTS)?.remove(key)?.map(|bytes| Noted::decode(key, bytes.value()));
    match noted {
        Some(Ok(noted)) => remove(transaction, noted.number, key),
        // Its number goes when its turn comes.
        Some(Err(_)) | None => Ok(()),
    }
}

/// Forgets a list by its number; `key` is whose it is.
#[allow(clippy::result_large_err)]
fn remove(transaction: &WriteTransaction, number: u64, key: (u64, u64)) -> Result<(), redb::Error> {
    transaction.open_table(BY_AGE)?.remove(number)?;
    transaction.open_table(PARTS)?.retain_in((number, 0)..=(number, u32::MAX), |_, _| false)?;
    let mut lists = transaction.open_table(LISTS)?;
    let its = lists.get(key)?.is_some_and(|bytes| Noted::decode(key, bytes.value()).is_ok_and(|n| n.number == number));
    if its {
        lists.remove(key)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use tempfile::TempDir;

    use super::super::index::tests::open;
    use super::*;
    use crate::disk::DiskKind;

    fn looks(inode: u64, len: u64) -> Looks {
        Looks { device: 1, inode, len, modified: (1, 2), changed: Some((3, 4)) }
    }

    const FIXED: Cutter = Cutter::Fixed { size: 1024 };

    /// A list of so many different chunks.
    fn list(seed: u64, chunks: u64) -> ChunkList {
        let bytes: Vec<u8> = (0..chunks).flat_map(|n| [(seed << 32 | n).to_le_bytes(); 128].concat()).collect();
        ChunkList::of(&bytes, FIXED, Algorithm::Blake3)
    }

    fn found(index: &Index, looks: &Looks) -> Option<ChunkList> {
        index.list_of(looks, FIXED, Algorithm::Blake3, &Limits::default())
    }

    #[test]
    fn a_file_that_looks_or_is_cut_otherwise_is_another() {
        let directory = TempDir::new().expect("a temporary directory");
        let index = open(&directory);
        let list = list(1, 5000);
        let is = looks(7, list.len().get());
        index.note_list(&is, &list);
        assert_eq!(found(&index, &is), Some(list.clone()));
        for other in [
            Looks { device: 2, ..is },
            Looks { inode: 8, ..is },
            Looks { len: is.len + 1, ..is },
            Looks { modified: (1, 3), ..is },
            Looks { changed: Some((3, 5)), ..is },
            is.under_any_name(),
        ] {
            assert_eq!(found(&index, &other), None, "{other:?}");
        }
        assert_eq!(index.list_of(&is, Cutter::FIXED_4096, Algorithm::Blake3, &Limits::default()), None);
        assert_eq!(index.list_of(&is, FIXED, Algorithm::Sha256, &Limits::default()), None);
        assert_eq!(index.list_of(&is, FIXED, Algorithm::Blake3, &Limits::default().chunks(4999)), None);
        drop(index);
        let index = open(&directory);
        assert_eq!(found(&index, &is), Some(list), "after a restart");
        index.forget_list(&is.under_any_name());
        assert_eq!(found(&index, &is), None);
    }

    /// Whatever is noted and forgotten, lists are found as in a map.
    fn check_lists_are_a_map(steps: &[(u8, u64, u64)]) {
        let directory = TempDir::new().expect("a temporary directory");
        let mut index = open(&directory);
        let mut model = VecDeque::<(Looks, ChunkList)>::new();
        for (n, &(kind, inode, chunks)) in (0..).zip(steps) {
            let list = list(n, 256 + chunks);
            let is = looks(inode, list.len().get());
            match kind % 5 {
                0..3 => {
                    index.note_list(&is, &list);
                    model.retain(|(other, _)| other.inode != inode);
                    model.push_back((is, list));
                }
                3 => {
                    index.forget_list(&is);
                    model.retain(|(other, _)| other.inode != inode);
                }
                _ => {
                    drop(index);
                    index = open(&directory);
                }
            }
            for (is, list) in &model {
                assert_eq!(found(&index, is).as_ref(), Some(list));
            }
            let counts = index.read(|transaction| {
                let lists = (transaction.open_table(LISTS)?.len()?, transaction.open_table(BY_AGE)?.len()?);
                Ok((lists, transaction.open_table(PARTS)?.len()?))
            });
            let parts = |list: &ChunkList| {
                let mut bytes = Vec::new();
                list.encode(&mut bytes);
                bytes.len().div_ceil(PART) as u64
            };
            let (lists, all) = (model.len() as u64, model.iter().map(|(_, list)| parts(list)).sum());
            assert_eq!(counts, Some(((lists, lists), all)), "nothing is left behind");
        }
    }

    #[test]
    fn lists_are_a_map_when_one_takes_the_place_of_another() {
        check_lists_are_a_map(&[(0, 1, 0), (0, 1, 2000), (4, 0, 0), (0, 2, 5), (0, 1, 1), (3, 2, 0), (3, 2, 0)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn lists_are_a_map(steps in proptest::collection::vec((0..5u8, 0..4u64, 0..3000u64), 0..12)) {
            check_lists_are_a_map(&steps);
        }
    }

    #[test]
    fn what_was_noted_first_goes_first_when_there_are_too_many_parts() {
        let directory = TempDir::new().expect("a temporary directory");
        let index = open(&directory);
        // 33 bytes and 2 of its length for each chunk.
        let list = list(1, MOST_PARTS / 4 * PART as u64 / 40);
        let is = |inode| looks(inode, list.len().get());
        (0..6).for_each(|inode| index.note_list(&is(inode), &list));
        let there: Vec<_> = (0..6).filter(|inode| found(&index, &is(*inode)).is_some()).collect();
        assert_eq!(there, [2, 3, 4, 5]);
        let used = index.read(|transaction| Ok(transaction.open_table(PARTS)?.len()?)).expect("there is an index");
        assert!(used <= MOST_PARTS);
        // One that is short is not worth an entry.
        index.note_list(&looks(9, LEAST - 1), &list);
        assert_eq!(found(&index, &looks(9, LEAST - 1)), None);
        assert_eq!(index.read(|transaction| Ok(transaction.open_table(LISTS)?.len()?)), Some(4));
    }

    #[test]
    fn a_note_with_another_bit_or_of_another_file_is_none() {
        let noted = Noted { number: 1 << 40, looks: looks(5, 1 << 20) };
        let encoded = noted.encode((1, 5));
        assert_eq!(Noted::decode((1, 5), &encoded), Ok(noted));
        assert!(Noted::decode((1, 6), &encoded).is_err() && Noted::decode((2, 5), &encoded).is_err());
        for bit in 0..encoded.len() * 8 {
            let mut damaged = encoded.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Noted::decode((1, 5), &damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_part_that_is_missing_or_another_makes_no_list() {
        let directory = TempDir::new().expect("a temporary directory");
        let index = open(&directory);
        let list = list(1, 4000);
        let is = looks(7, list.len().get());
        for harm in 0..3 {
            index.note_list(&is, &list);
            assert!(found(&index, &is).is_some());
            index.note(|transaction| {
                let mut parts = transaction.open_table(PARTS)?;
                let (number, last) = parts.last()?.expect("it has parts").0.value();
                let bytes = parts.get((number, last))?.expect("it is there").value().to_vec();
                match harm {
                    0 => drop(parts.remove((number, last))?),
                    1 => drop(parts.insert((number, last), &[&bytes[1..], &[0]].concat()[..])?),
                    _ => drop(parts.insert((number, last + 1), &b"more"[..])?),
                }
                Ok(())
            });
            assert_eq!(found(&index, &is), None, "harm {harm}");
        }
    }

    #[test]
    fn a_file_is_settled_when_its_last_change_is_seconds_back() {
        let is = |modified, changed| Looks { modified: (modified, 9), changed: Some((changed, 9)), ..looks(1, 5) };
        assert!(is_settled(&is(100, 97), 103) && is_settled(&is(97, 100), 103));
        assert!(!is_settled(&is(101, 97), 103) && !is_settled(&is(97, 101), 103));
        assert!(!is_settled(&is(97, i64::MAX), 103), "of the future");
    }

    #[test]
    fn a_published_file_is_told_apart_when_its_bytes_are_older_than_its_name() {
        let (kind, mode, blocks) = (DiskKind::File, 0o644, 8);
        let before =
            DiskStat { kind, mode, device: 1, inode: 7, links: 1, len: 5, blocks, modified: (3, 4), changed: (3, 4) };
        let after = Looks { device: 1, inode: 7, len: 5, modified: (3, 4), changed: Some((3, 5)) };
        assert!(is_told_apart(&before, &after));
        assert!(!is_told_apart(&before, &Looks { changed: Some((3, 4)), ..after }), "the same tick");
        assert!(!is_told_apart(&before, &Looks { modified: (3, 5), changed: Some((3, 6)), ..after }), "written since");
        assert!(!is_told_apart(&before, &Looks { len: 6, ..after }), "longer since");
    }
}
