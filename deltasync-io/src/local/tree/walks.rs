//! What is to be told of a tree while it is listed, which the answers of a storage come too late for.
//!
//! To list a tree of a million entries takes seconds, and is one answer. Whoever opens a storage may hand it [`Walks`] and look
//! there, at any time and from any thread, how far a list has got.
//!
//! Cost: an entry adds to two counters, without a lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use deltasync_core::{ByteLen, RelPath};
use deltasync_proto::{Place, RootId};

use crate::lock::lock;

/// How far the trees of a storage were listed. A clone tells the same.
#[derive(Clone, Debug, Default)]
pub struct Walks(Arc<Mutex<Counts>>);

type Counts = BTreeMap<(RootId, RelPath), Arc<Count>>;

/// How far a tree was listed the last time; while that goes on, how far it has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Entries that were looked at.
    pub entries: u64,
    /// The bytes of the files among them.
    pub len: ByteLen,
}

/// One tree.
#[derive(Debug, Default)]
pub(super) struct Count {
    entries: AtomicU64,
    len: AtomicU64,
}

impl Walks {
    /// How far the tree at a place was listed; nothing where none ever was.
    pub fn walked(&self, place: &Place) -> Walked {
        let Some(count) = self.get(place) else { return Walked::default() };
        let len = ByteLen::new(count.len.load(Ordering::Relaxed));
        Walked { entries: count.entries.load(Ordering::Relaxed), len }
    }

    /// The counters of the tree at a place, which is listed from its beginning now.
    pub(super) fn begin(&self, place: &Place) -> Arc<Count> {
        let count = Arc::clone(lock(&self.0).entry(key(place)).or_default());
        count.entries.store(0, Ordering::Relaxed);
        count.len.store(0, Ordering::Relaxed);
        count
    }

    fn get(&self, place: &Place) -> Option<Arc<Count>> {
        lock(&self.0).get(&key(place)).cloned()
    }
}

/// A tree and its copy beside it are one.
fn key(place: &Place) -> (RootId, RelPath) {
    (place.root.itself(), place.path.clone())
}

impl Count {
    /// One more entry was looked at, with so many bytes.
    pub(super) fn count(&self, len: u64) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.len.fetch_add(len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_counted_from_its_beginning() {
        let walks = Walks::default();
        let place = |root| Place { root: RootId::new(root), path: RelPath::ROOT };
        assert_eq!(walks.clone().walked(&place(0)), Walked::default());
        for lens in [&[10, 20, 30][..], &[7]] {
            let count = walks.begin(&place(0));
            lens.iter().for_each(|len| count.count(*len));
            let walked = Walked { entries: lens.len() as u64, len: ByteLen::new(lens.iter().sum()) };
            assert_eq!(walks.clone().walked(&place(0)), walked);
        }
        assert_eq!(walks.walked(&place(1)), Walked::default());
    }
}
