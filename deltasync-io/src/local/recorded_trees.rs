//! What the index says of each tree that was published: its root, its generation, and how its directory looked after that.
//!
//! A tree is what was published as long as it has that root and its directory looks so. The root tells names, lengths,
//! permissions and times of all that is in it. That all of these are as they once were, though the tree was another one
//! meanwhile, shows by the directory, which every commit of the tree touches last. What is published in it by another
//! name, or around it, touches no more than that; so such a commit forgets the tree, durably.

use std::ops::Bound::{Excluded, Unbounded};

use deltasync_core::RelPath;
use redb::{TableDefinition, WriteTransaction};

use super::index::Index;
use super::recorded::{Recorded, Records};

/// Records by the path of the directory.
const TREES: Records = TableDefinition::new("trees");

impl Index {
    /// Notes that a tree was published at this path.
    pub(super) fn publish_tree(&self, path: &RelPath, recorded: &Recorded) {
        let at = path.as_bytes();
        self.note(|transaction| {
            transaction.open_table(TREES)?.insert(at, &recorded.encode(at)[..])?;
            Ok(())
        });
    }

    /// What was published last as a tree at this path.
    pub(super) fn recorded_tree(&self, path: &RelPath) -> Option<Recorded> {
        self.recorded_in(TREES, path)
    }

    /// Forgets the tree at this path.
    pub(super) fn forget_tree(&self, path: &RelPath) {
        if self.recorded_tree(path).is_some() {
            self.note_durably(|transaction| {
                transaction.open_table(TREES)?.remove(path.as_bytes())?;
                Ok(())
            });
        }
    }

    /// Forgets the trees that something has changed which was published at this path: those that it lies in, and those
    /// that lie in it.
    pub(super) fn forget_trees_around(&self, path: &RelPath) {
        let at = path.as_bytes();
        let changed = self.read(|transaction| {
            let trees = transaction.open_table(TREES)?;
            let mut changed = Vec::new();
            let mut above = path.split_last();
            while let Some((parent, _)) = above {
                if trees.get(parent.as_bytes())?.is_some() {
                    changed.push(parent.as_bytes().to_vec());
                }
                above = parent.split_last();
            }
            // Of the root that is everything else.
            let start = if path.is_root() { Vec::new() } else { [at, b"/"].concat() };
            for tree in trees.range::<&[u8]>((Excluded(&start[..]), Unbounded))? {
                let (key, _) = tree?;
                if !key.value().starts_with(&start) {
                    break;
                }
                changed.push(key.value().to_vec());
            }
            Ok(changed)
        });
        if let Some(changed) = changed.filter(|changed| !changed.is_empty()) {
            self.note_durably(|transaction| {
                let mut trees = transaction.open_table(TREES)?;
                for at in &changed {
                    trees.remove(&at[..])?;
                }
                Ok(())
            });
        }
    }
}

/// Makes the table if it is not there.
#[allow(clippy::result_large_err)]
pub(super) fn open_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(TREES)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use deltasync_core::{Algorithm, Generation};
    use tempfile::TempDir;

    use super::super::recovery::Recovery;
    use super::super::root::Root;
    use super::*;
    use crate::disk::SystemDir;
    use crate::source::Looks;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).expect("valid")
    }

    fn recorded(generation: u64) -> Recorded {
        let algorithm = Algorithm::Blake3;
        let looks = Looks { device: 1, inode: 2, len: 3, modified: (4, 5), changed: Some((6, 7)) };
        Recorded { root: algorithm.digest(b"tree"), algorithm, generation: Generation::new(generation), looks }
    }

    #[test]
    fn what_is_published_forgets_the_trees_above_and_below_and_no_other() {
        const ALL: [&str; 7] = ["", "a", "a/b", "a/b/c", "a/b/c/d", "a/b-", "a/bc"];
        for (at, kept) in [
            ("a/b", &["a/b", "a/b-", "a/bc"][..]),
            ("", &[""]),
            ("a/b/c/d/file", &["a/b-", "a/bc"]),
            ("a/x", &["a/b", "a/b/c", "a/b/c/d", "a/b-", "a/bc"]),
            ("a/b-", &["a/b", "a/b/c", "a/b/c/d", "a/b-", "a/bc"]),
        ] {
            let directory = TempDir::new().expect("a temporary directory");
            let start = SystemDir::start(directory.path(), false).expect("it is there");
            let private = Root::new(Arc::new(start)).reserve().expect("it can be made");
            let index = Index::open(Arc::new(private), &mut Recovery::default());
            for (generation, tree) in (1..).zip(ALL) {
                index.publish_tree(&path(tree), &recorded(generation));
            }
            index.forget_trees_around(&path(at));
            for (generation, tree) in (1..).zip(ALL) {
                let expected = kept.contains(&tree).then(|| recorded(generation));
                assert_eq!(index.recorded_tree(&path(tree)), expected, "{tree:?} after {at:?}");
            }
        }
    }
}
