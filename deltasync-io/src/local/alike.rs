//! Which published files resemble others: the features of each by its path, and the paths of each feature.
//!
//! They are noted as whoever pushes a file tells them, and again when the file has been described: a hint that nobody has to
//! believe, for a file that is opened for the sake of one is a basis like any other, and what it lacks is sent. Notes of a
//! file that is gone are removed when it is looked for. There are at most [`MOST`] files; of further ones nothing is noted.

use std::collections::BTreeMap;

use deltasync_core::{Malformed, Reader, RelPath, Resemblance};
use redb::{ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::index::Index;
use crate::checked;

/// The most files of which something is noted; each takes about 500 bytes.
const MOST: u64 = 1 << 17;

/// At most so many files are looked at for each feature: what very many share tells nothing.
const SHARED: usize = 32;

/// The features of a path.
const FEATURES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("features");

/// The paths of each feature.
const BY_FEATURE: TableDefinition<'_, (u32, &[u8]), ()> = TableDefinition::new("files by feature");

impl Index {
    /// Notes what the file at a path resembles, or is about to.
    pub(super) fn note_features(&self, path: &RelPath, resembles: &Resemblance) {
        let at = path.as_bytes();
        let noted = self.read(|transaction| {
            let found = transaction.open_table(FEATURES)?.get(at)?;
            Ok(found.is_some_and(|bytes| decode(at, bytes.value()) == Ok(*resembles)))
        });
        if noted == Some(true) {
            return;
        }
        self.note(|transaction| {
            forget(transaction, at)?;
            let mut features = transaction.open_table(FEATURES)?;
            if features.len()? < MOST {
                features.insert(at, &encode(at, resembles)[..])?;
                let mut by_feature = transaction.open_table(BY_FEATURE)?;
                for feature in resembles.features() {
                    by_feature.insert((*feature, at), ())?;
                }
            }
            Ok(())
        });
    }

    /// Forgets what was noted of a path.
    pub(super) fn forget_features(&self, path: &RelPath) {
        self.note(|transaction| forget(transaction, path.as_bytes()));
    }

    /// At most `most` paths of files that have features in common with another, those with the most first.
    pub(super) fn alike(&self, resembles: &Resemblance, most: usize) -> Vec<RelPath> {
        let votes = self.read(|transaction| {
            let by_feature = transaction.open_table(BY_FEATURE)?;
            let mut votes = BTreeMap::<Vec<u8>, usize>::new();
            for feature in resembles.features() {
                for entry in by_feature.range((*feature, &b""[..])..)?.take(SHARED) {
                    let (key, _) = entry?;
                    let (found, at) = key.value();
                    if found != *feature {
                        break;
                    }
                    *votes.entry(at.to_vec()).or_default() += 1;
                }
            }
            Ok(votes)
        });
        let mut votes: Vec<_> = votes.unwrap_or_default().into_iter().collect();
        votes.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
        votes.into_iter().filter_map(|(at, _)| RelPath::new(at).ok()).take(most).collect()
    }
}

/// Makes the tables that are not there.
#[allow(clippy::result_large_err)]
pub(super) fn open_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(FEATURES)?;
    transaction.open_table(BY_FEATURE)?;
    Ok(())
}

#[allow(clippy::result_large_err)]
fn forget(transaction: &WriteTransaction, at: &[u8]) -> Result<(), redb::Error> {
    let noted = transaction.open_table(FEATURES)?.remove(at)?.map(|bytes| decode(at, bytes.value()));
    let Some(Ok(noted)) = noted else { return Ok(()) };
    let mut by_feature = transaction.open_table(BY_FEATURE)?;
    for feature in noted.features() {
        by_feature.remove((*feature, at))?;
    }
    Ok(())
}

fn encode(at: &[u8], resembles: &Resemblance) -> Vec<u8> {
    checked::close(at, <[u8; 32]>::from(*resembles).to_vec())
}

fn decode(at: &[u8], bytes: &[u8]) -> Result<Resemblance, Malformed> {
    let mut reader = Reader::new(checked::open(at, bytes)?);
    let resembles = Resemblance::from(reader.array::<32>()?);
    reader.finish()?;
    Ok(resembles)
}

#[cfg(test)]
mod tests {
    use deltasync_core::{Algorithm, ByteLen, Cutter};
    use deltasync_proto::{Answer, Ask, Place, RootId};
    use tempfile::TempDir;

    use super::super::index::tests::open;
    use super::*;
    use crate::{BlockingStorage, LocalOptions, LocalStorage};

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("valid")
    }

    fn of(features: [u32; 8]) -> Resemblance {
        let mut bytes = [0; 32];
        for (bytes, feature) in bytes.chunks_mut(4).zip(features) {
            bytes.copy_from_slice(&feature.to_le_bytes());
        }
        bytes.into()
    }

    #[test]
    fn those_with_the_most_in_common_come_first_also_after_a_restart() {
        let directory = TempDir::new().expect("a temporary directory");
        let index = open(&directory);
        index.note_features(&path("few"), &of([1, 2, 13, 14, 15, 16, 17, 18]));
        index.note_features(&path("most"), &of([1, 2, 3, 4, 5, 6, 7, 28]));
        index.note_features(&path("none"), &of([31, 32, 33, 34, 35, 36, 37, u32::MAX]));
        drop(index);
        let index = open(&directory);
        let sought = of([1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(index.alike(&sought, 4), [path("most"), path("few")]);
        assert_eq!(index.alike(&sought, 1), [path("most")]);
        // It becomes another file, or goes.
        index.note_features(&path("most"), &of([91; 8]));
        assert_eq!(index.alike(&sought, 4), [path("few")]);
        index.forget_features(&path("few"));
        assert_eq!(index.alike(&sought, 4), []);
        assert_eq!(index.alike(&of([91; 8]), 4), [path("most")]);
        assert_eq!(index.alike(&of([u32::MAX; 8]), 4), [path("none")]);
    }

    #[test]
    fn what_does_not_come_is_not_noted() {
        let directory = TempDir::new().expect("a temporary directory");
        let storage = LocalStorage::serve(directory.path(), LocalOptions::default()).expect("it can be served");
        let (resembles, path) = (of([1, 2, 3, 4, 5, 6, 7, 8]), path("to/come"));
        let place = Place { root: RootId::new(0), path: path.clone() };
        let noted = || storage.served.as_ref().expect("it is served").index.alike(&resembles, 4);
        for (comes, expected) in [(false, vec![]), (true, vec![path.clone()])] {
            let (place, cutter) = (place.clone(), Cutter::for_len(ByteLen::new(100_000)));
            let ask = Ask::Alike { place, cutter, algorithm: Algorithm::Blake3, resembles, comes };
            assert!(matches!(storage.answer(ask), Ok(Answer::Alike(None))), "nothing is there");
            assert_eq!(noted(), expected);
        }
    }

    #[test]
    fn a_note_of_another_path_or_with_another_bit_is_none() {
        let resembles = of([1, 2, 3, 4, 5, 6, 7, 8]);
        let encoded = encode(b"path", &resembles);
        assert_eq!(decode(b"path", &encoded), Ok(resembles));
        assert!(decode(b"other", &encoded).is_err());
        for bit in 0..encoded.len() * 8 {
            let mut damaged = encoded.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(b"path", &damaged).is_err(), "bit {bit}");
        }
    }
}
