//! What the index says of each published file: its root, its generation, and how it looked after its commit.
//!
//! There is one record for each path, and one entry for each root and path, so that a file which is to be stored again is
//! found where it is already. Records are as many as the paths that were ever published and not yet found gone: who looks
//! for a file in vain has its record removed.
//!
//! Whether the file is still what was published is for the caller to find out: it may have been changed by other means
//! (then it looks otherwise), or have been damaged unseen (then it looks as it did). The latter is marked, until the path
//! is published again.

use std::io;
use std::ops::Bound::{self, Excluded, Included, Unbounded};

use deltasync_core::{Algorithm, Digest, Generation, Malformed, Reader, RelPath, write_varint};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::index::Index;
use crate::checked;
use crate::source::Looks;

/// A file as it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) root: Digest,
    /// Which digest the root is.
    pub(super) algorithm: Algorithm,
    pub(super) generation: Generation,
    pub(super) looks: Looks,
}

/// A file that is not what was published, though it looks so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged {
    /// What was published.
    pub(super) recorded: Recorded,
    /// The root that was found.
    pub(super) found: Digest,
}

/// A table of records by path.
pub(super) type Records = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Those of files.
const FILES: Records = TableDefinition::new("files");

/// The paths of each root.
const BY_ROOT: TableDefinition<'_, (&[u8; 32], &[u8]), ()> = TableDefinition::new("files by root");

/// What was found in place of what was published.
const DAMAGED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("damaged files");

impl Index {
    /// Notes that a file was published, in place of what was at this path.
    pub(super) fn publish(&self, path: &RelPath, recorded: &Recorded) {
        let at = path.as_bytes();
        self.note(|transaction| {
            let encoded = recorded.encode(at);
            let replaced = transaction.open_table(FILES)?.insert(at, &encoded[..])?.map(|old| root_of(at, old.value()));
            let mut by_root = transaction.open_table(BY_ROOT)?;
            if let Some(Some(replaced)) = replaced.filter(|replaced| *replaced != Some(recorded.root)) {
                by_root.remove((replaced.as_bytes(), at))?;
            }
            by_root.insert((recorded.root.as_bytes(), at), ())?;
            transaction.open_table(DAMAGED)?.remove(at)?;
            Ok(())
        });
    }

    /// What was published last at this path.
    pub(super) fn recorded(&self, path: &RelPath) -> Option<Recorded> {
        self.recorded_in(FILES, path)
    }

    /// The record of a path in this table.
    pub(super) fn recorded_in(&self, table: Records, path: &RelPath) -> Option<Recorded> {
        let at = path.as_bytes();
        self.read(|transaction| {
            let found = transaction.open_table(table)?.get(at)?;
            Ok(found.and_then(|bytes| Recorded::decode(at, bytes.value()).ok()))
        })
        .flatten()
    }

    /// At most `most` records in the order of the bytes of their paths, from the first one after `after` on; empty at the
    /// end.
    ///
    /// # Errors
    ///
    /// When there is no index to be read just now.
    pub(super) fn files(&self, after: Option<&RelPath>, most: usize) -> io::Result<Vec<(RelPath, Recorded)>> {
        self.page(after.map_or(Unbounded, |after| Excluded(after.as_bytes())), most)
    }

    /// As [`files`](Self::files), of those below a directory.
    ///
    /// # Errors
    ///
    /// As there.
    pub(super) fn files_below(
        &self,
        path: &RelPath,
        after: Option<&RelPath>,
        most: usize,
    ) -> io::Result<Vec<(RelPath, Recorded)>> {
        let start = if path.is_root() { Vec::new() } else { [path.as_bytes(), b"/"].concat() };
        let mut page = self.page(after.map_or(Included(&start[..]), |after| Excluded(after.as_bytes())), most)?;
        page.retain(|(path, _)| path.as_bytes().starts_with(&start));
        Ok(page)
    }

    fn page(&self, start: Bound<&[u8]>, most: usize) -> io::Result<Vec<(RelPath, Recorded)>> {
        let page = self.read(|transaction| {
            let files = transaction.open_table(FILES)?;
            let mut page = Vec::new();
            for entry in files.range::<&[u8]>((start, Unbounded))? {
                if page.len() >= most {
                    break;
                }
                let (at, bytes) = entry?;
                let at = at.value();
                if let (Ok(path), Ok(recorded)) = (RelPath::new(at), Recorded::decode(at, bytes.value())) {
                    page.push((path, recorded));
                }
            }
            Ok(page)
        });
        page.ok_or_else(|| io::Error::other("there is no index just now"))
    }

    /// At most `most` paths at which a file with this root was published last.
    pub(super) fn paths_of(&self, root: Digest, most: usize) -> Vec<RelPath> {
        let page = self.read(|transaction| {
            let by_root = transaction.open_table(BY_ROOT)?;
            let mut page = Vec::new();
            for entry in by_root.range::<(&[u8; 32], &[u8])>((root.as_bytes(), &b""[..])..)?.take(most) {
                let (key, _) = entry?;
                let (found, at) = key.value();
                if found != root.as_bytes() {
                    break;
                }
                page.extend(RelPath::new(at).ok());
            }
            Ok(page)
        });
        page.unwrap_or_default()
    }

    /// Forgets a file that is gone, unless another one was published at its path meanwhile.
    pub(super) fn forget(&self, path: &RelPath, recorded: &Recorded) {
        self.forget_all(&[(path.clone(), *recorded)]);
    }

    /// Forgets files that are gone, each unless another one was published at its path meanwhile.
    pub(super) fn forget_all(&self, gone: &[(RelPath, Recorded)]) {
        if gone.is_empty() {
            return;
        }
        self.note(|transaction| {
            let (mut files, mut by_root) = (transaction.open_table(FILES)?, transaction.open_table(BY_ROOT)?);
            let mut damaged = transaction.open_table(DAMAGED)?;
            for (path, recorded) in gone {
                let at = path.as_bytes();
                let same = files.get(at)?.is_some_and(|now| now.value() == recorded.encode(at));
                if same {
                    files.remove(at)?;
                    by_root.remove((recorded.root.as_bytes(), at))?;
                    damaged.remove(at)?;
                }
            }
            Ok(())
        });
    }

    /// Forgets that a file with this root is at this path, where another one is; its record stays.
    pub(super) fn forget_root(&self, path: &RelPath, root: Digest) {
        self.note(|transaction| {
            transaction.open_table(BY_ROOT)?.remove((root.as_bytes(), path.as_bytes()))?;
            Ok(())
        });
    }

    /// Marks a file as damaged, durably: it looks as it was `recorded`, but has the root `found`. False when another one
    /// was published at its path meanwhile, or when it could not be noted.
    pub(super) fn mark_damaged(&self, path: &RelPath, recorded: &Recorded, found: Digest) -> bool {
        let at = path.as_bytes();
        let marked = self.note_durably(|transaction| {
            let same = transaction.open_table(FILES)?.get(at)?.is_some_and(|now| now.value() == recorded.encode(at));
            if same {
                let bytes = checked::close(at, found.as_bytes().to_vec());
                transaction.open_table(DAMAGED)?.insert(at, &bytes[..])?;
            }
            Ok(same)
        });
        marked.unwrap_or(false)
    }

    /// What a path was marked with, since it was published.
    pub(super) fn damaged(&self, path: &RelPath) -> Option<Damaged> {
        let at = path.as_bytes();
        let (recorded, found) = self
            .read(|transaction| {
                let Some(found) = transaction.open_table(DAMAGED)?.get(at)? else { return Ok(None) };
                let recorded = transaction.open_table(FILES)?.get(at)?;
                let recorded = recorded.and_then(|bytes| Recorded::decode(at, bytes.value()).ok());
                let found = checked::open(at, found.value()).and_then(|bytes| Reader::new(bytes).array());
                Ok(recorded.zip(found.ok()))
            })
            .flatten()?;
        Some(Damaged { recorded, found: Digest::from_bytes(found) })
    }
}

/// Makes the tables that are not there.
#[allow(clippy::result_large_err)]
pub(super) fn open_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(FILES)?;
    transaction.open_table(BY_ROOT)?;
    transaction.open_table(DAMAGED)?;
    Ok(())
}

impl Recorded {
    pub(super) fn encode(&self, at: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(&mut out, self.generation.get());
        out.push(code_of(self.algorithm));
        out.extend_from_slice(self.root.as_bytes());
        self.looks.write(&mut out);
        checked::close(at, out)
    }

    pub(super) fn decode(at: &[u8], bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(checked::open(at, bytes)?);
        let generation = Generation::new(reader.varint()?);
        let code = reader.byte()?;
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| code_of(*algorithm) == code);
        let algorithm = algorithm.ok_or(Malformed::Value("digest is not known"))?;
        let root = Digest::from_bytes(reader.array()?);
        let looks = Looks::read(&mut reader)?;
        reader.finish()?;
        Ok(Self { root, algorithm, generation, looks })
    }
}

fn code_of(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Blake3 => 0,
        Algorithm::Sha256 => 1,
        // One that this build cannot make either.
        _ => u8::MAX,
    }
}

fn root_of(at: &[u8], bytes: &[u8]) -> Option<Digest> {
    Recorded::decode(at, bytes).ok().map(|recorded| recorded.root)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use tempfile::TempDir;

    use super::super::index::tests::open;
    use super::*;

    fn path(n: u8) -> RelPath {
        // Some are the start of others, and the order is not that of the numbers.
        RelPath::new(["b", "b/c", "a", "b-", "long/way/down", "\u{f6}"][usize::from(n) % 6].as_bytes()).expect("valid")
    }

    fn root(n: u8) -> Digest {
        Algorithm::Sha256.digest(&[n % 4])
    }

    fn recorded(n: u8, generation: u64) -> Recorded {
        let looks = Looks { device: 1, inode: n.into(), len: 5, modified: (-2, 3), changed: Some((4, 5)) };
        let algorithm = if n.is_multiple_of(2) { Algorithm::Sha256 } else { Algorithm::Blake3 };
        Recorded { root: root(n), algorithm, generation: Generation::new(generation), looks }
    }

    /// Whatever is published, forgotten and marked, the notes say what a map would; also when the index is opened again.
    fn check_notes_are_a_map(steps: &[(u8, u8, u8)]) {
        let directory = TempDir::new().expect("a temporary directory");
        let mut index = open(&directory);
        let mut model = BTreeMap::<RelPath, (Recorded, Option<Digest>)>::new();
        for (generation, &(kind, at, n)) in (1..).zip(steps) {
            let (path, known) = (path(at), model.get(&path(at)).map(|(recorded, _)| *recorded));
            match (kind % 6, known) {
                (0 | 1, _) => {
                    index.publish(&path, &recorded(n, generation));
                    model.insert(path, (recorded(n, generation), None));
                }
                (2, Some(known)) => {
                    index.forget(&path, &known);
                    model.remove(&path);
                }
                (3, Some(known)) => {
                    assert!(index.mark_damaged(&path, &known, root(n)));
                    model.get_mut(&path).expect("it is known").1 = Some(root(n));
                }
                (4, _) => {
                    drop(index);
                    index = open(&directory);
                }
                _ => {
                    // About another version than is there: nothing happens.
                    index.forget(&path, &recorded(n, 0));
                    assert!(!index.mark_damaged(&path, &recorded(n, 0), root(n)));
                }
            }
        }
        let all: Vec<_> = model.iter().map(|(path, (recorded, _))| (path.clone(), *recorded)).collect();
        for most in 1..=7 {
            let (mut got, mut after) = (Vec::new(), None);
            loop {
                let page = index.files(after.as_ref(), most).expect("there is an index");
                assert!(page.len() <= most);
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                got.extend(page);
            }
            assert_eq!(got, all, "in pages of {most}");
        }
        for n in 0..6 {
            let known = model.get(&path(n));
            assert_eq!(index.recorded(&path(n)), known.map(|(recorded, _)| *recorded));
            let damaged = known.and_then(|(recorded, found)| Some(Damaged { recorded: *recorded, found: (*found)? }));
            assert_eq!(index.damaged(&path(n)), damaged);
            let same = |(_, recorded): &&(RelPath, Recorded)| recorded.root == root(n);
            let paths: Vec<_> = all.iter().filter(same).map(|(path, _)| path.clone()).collect();
            assert_eq!(index.paths_of(root(n), 10), paths);
            assert_eq!(index.paths_of(root(n), 1), paths[..paths.len().min(1)]);
        }
    }

    #[test]
    fn notes_are_a_map_when_a_content_moves_from_path_to_path() {
        check_notes_are_a_map(&[]);
        check_notes_are_a_map(&[(0, 0, 1), (0, 1, 1), (0, 0, 2), (4, 0, 0), (0, 1, 1), (2, 1, 0)]);
        check_notes_are_a_map(&[(0, 0, 1), (3, 0, 2), (4, 0, 0), (3, 0, 3), (0, 1, 1), (0, 0, 1)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn notes_are_a_map(steps in proptest::collection::vec((0..6u8, 0..6u8, 0..6u8), 0..30)) {
            check_notes_are_a_map(&steps);
        }
    }

    #[test]
    fn a_note_of_another_path_or_with_another_bit_is_none() {
        for n in 0..2 {
            let noted = recorded(n, 1 << 40);
            let encoded = noted.encode(b"path");
            assert_eq!(Recorded::decode(b"path", &encoded), Ok(noted));
            assert!(Recorded::decode(b"other", &encoded).is_err());
            for bit in 0..encoded.len() * 8 {
                let mut damaged = encoded.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(Recorded::decode(b"path", &damaged).is_err(), "bit {bit}");
            }
            (0..encoded.len()).for_each(|len| assert!(Recorded::decode(b"path", &encoded[..len]).is_err()));
        }
    }
}
