//! The chunk lists of files that were looked at lately, by how the files looked.
//!
//! A commit that replaces a file keeps it in the history only when it knows its chunks, and it reads no file to find out.
//! Whoever replaces a file has it described as a basis first, so the last descriptions are kept for that: as many as
//! transfers can be under way, bounded in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use deltasync_core::ChunkList;

use crate::source::Looks;

/// The last descriptions.
#[derive(Debug, Default)]
pub(super) struct Described {
    lists: Mutex<VecDeque<(Looks, Arc<ChunkList>)>>,
}

/// The most descriptions.
const MOST: usize = 1024;

/// The most runs of chunks in all but the last of them, 40 bytes each.
const MOST_RUNS: usize = 1 << 18;

impl Described {
    /// Adds a description, and forgets the oldest.
    pub(super) fn add(&self, looks: Looks, chunks: Arc<ChunkList>) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.retain(|(other, _)| (other.device, other.inode) != (looks.device, looks.inode));
        lists.push_back((looks, chunks));
        let runs = |lists: &VecDeque<(Looks, Arc<ChunkList>)>| -> usize {
            lists.iter().map(|(_, chunks)| chunks.runs().len()).sum()
        };
        let mut total = runs(&lists);
        while lists.len() > MOST || total > MOST_RUNS && lists.len() > 1 {
            total -= lists.pop_front().map_or(0, |(_, chunks)| chunks.runs().len());
        }
    }

    /// Takes the description of the file that looked so.
    pub(super) fn take(&self, looks: &Looks) -> Option<Arc<ChunkList>> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let at = lists.iter().position(|(other, _)| other == looks)?;
        lists.remove(at).map(|(_, chunks)| chunks)
    }
}

#[cfg(test)]
mod tests {
    use deltasync_core::{Algorithm, Cutter};

    use super::*;

    fn looks(inode: u64) -> Looks {
        Looks { device: 1, inode, len: 5, modified: (1, 2), changed: Some((3, 4)) }
    }

    fn list(chunks: usize) -> Arc<ChunkList> {
        let bytes: Vec<u8> = (0..chunks as u64).flat_map(|n| [n.to_le_bytes(); 128].concat()).collect();
        let list = ChunkList::of(&bytes, Cutter::Fixed { size: 1024 }, Algorithm::Blake3);
        assert_eq!(list.runs().len(), chunks);
        Arc::new(list)
    }

    #[test]
    fn a_file_that_looks_otherwise_is_another() {
        let described = Described::default();
        described.add(looks(1), list(1));
        assert!(described.take(&Looks { changed: Some((3, 5)), ..looks(1) }).is_none());
        described.add(looks(1), list(2));
        assert_eq!(described.take(&looks(1)).map(|chunks| chunks.chunk_count()), Some(2));
        assert!(described.take(&looks(1)).is_none(), "it is replaced only once");
    }

    #[test]
    fn memory_is_bounded_and_the_newest_stays() {
        let described = Described::default();
        (0..2000).for_each(|inode| described.add(looks(inode), list(1)));
        let stay = |inodes: std::ops::Range<u64>| inodes.filter(|n| described.take(&looks(*n)).is_some()).count();
        assert_eq!((stay(0..2000 - MOST as u64), stay(2000 - MOST as u64..2000)), (0, MOST));
        let large = list(MOST_RUNS / 2 - 1);
        (0..5).for_each(|inode| described.add(looks(inode), Arc::clone(&large)));
        assert_eq!(stay(0..5), 2);
        described.add(looks(1), list(1));
        described.add(looks(2), list(MOST_RUNS + 1));
        assert_eq!((stay(1..2), stay(2..3)), (0, 1));
    }
}
