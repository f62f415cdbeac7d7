//! Tags that are all different: the elements of a sketch of a chunk list.
//!
//! A sketch is of a set, and a file may have a chunk many times. A run of equal chunks is one element. If no other run
//! has its digest, its tag is that of the digest, and where it is of several chunks their number is mixed in. If others
//! have it too, its number of chunks, the last run before it whose digest no other has, and the number of runs since
//! that one are mixed in: so an edit changes the tags of the repeated runs between it and the next unique one, and none
//! behind that. An occurrence number alone would change with every run that comes or goes anywhere before.
//!
//! A file in which nothing is unique for long, such as a pattern of several chunks, changes all its tags behind an
//! edit: there a list, whose repeated tags compress, is the shorter one.
//!
//! Invariant: tags differ within a list, but for collisions in 48 bits; the same list has the same tags everywhere.
//! Memory is 16 bytes a run while it works, and 8 in the end; time is O(n log n) in the runs, however long they are.

use alloc::vec::Vec;

use crate::{ChunkList, ChunkRun, Tag, TagKey};

/// The tags of the runs of a chunk list, at the same index, each different from the others.
pub fn context_tags(list: &ChunkList, key: &TagKey) -> Vec<Tag> {
    of_runs(list.runs(), key)
}

fn of_runs(runs: &[ChunkRun], key: &TagKey) -> Vec<Tag> {
    let mut tags: Vec<Tag> = runs.iter().map(|run| key.tag(&run.digest)).collect();
    let repeated = repeated(&tags);
    let mut place = Place { unique: None, since: 0 };
    for (tag, run) in tags.iter_mut().zip(runs) {
        if repeated.binary_search(tag).is_ok() {
            place.since += 1;
            *tag = key.tag_of(&place.mixed_with(*tag, run.count));
        } else {
            place = Place { unique: Some(*tag), since: 0 };
            if run.count > 1 {
                *tag = key.tag_of(&Place { unique: None, since: 0 }.mixed_with(*tag, run.count));
            }
        }
    }
    tags
}

/// The tags that occur more than once, in order.
fn repeated(tags: &[Tag]) -> Vec<Tag> {
    let mut sorted = tags.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).filter(|same| same.len() > 1).map(|same| same[0]).collect()
}

/// Where in a list a repeated run is.
struct Place {
    /// The tag of the digest of the last run before it that is unique.
    unique: Option<Tag>,
    /// Runs since that one, or since the start of the file, itself counted; 0 for one that is unique itself.
    since: u64,
}

impl Place {
    /// What makes the tag of a run: tag of the digest, chunks in the run, tag of the unique one (zeros if there is
    /// none), 1 if there is one, runs since. Shorter or longer than any digest.
    fn mixed_with(&self, tag: Tag, count: u32) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..6].copy_from_slice(&tag.to_bytes());
        bytes[6..10].copy_from_slice(&count.to_le_bytes());
        bytes[10..16].copy_from_slice(&self.unique.map_or([0; Tag::LEN], Tag::to_bytes));
        bytes[16] = self.unique.is_some().into();
        bytes[17..].copy_from_slice(&self.since.to_le_bytes());
        bytes
    }

    const LEN: usize = 25;
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::cut::tests::{SMALL, random};
    use crate::{Algorithm, Differences, Estimate, Sketch, SketchKey};

    fn key() -> TagKey {
        TagKey::new(&[7; 16], 1)
    }

    /// Runs of chunks that stand for letters: a letter's own chunk, so many times.
    fn runs(letters: &[(u8, u32)]) -> Vec<ChunkRun> {
        let run = |(letter, count): &(u8, u32)| ChunkRun {
            digest: Algorithm::Blake3.digest(&[*letter]),
            len: 64,
            count: *count,
        };
        letters.iter().map(run).collect()
    }

    fn tags(letters: &[(u8, u32)]) -> Vec<Tag> {
        of_runs(&runs(letters), &key())
    }

    fn differing(a: &[(u8, u32)], b: &[(u8, u32)]) -> usize {
        let [a, b] = [a, b].map(|letters| tags(letters).into_iter().collect::<BTreeSet<_>>());
        a.symmetric_difference(&b).count()
    }

    fn check_tags_differ(letters: &[(u8, u32)]) {
        let tags = tags(letters);
        assert_eq!(tags.len(), letters.len());
        assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len(), "{letters:?}");
    }

    #[test]
    fn golden_tags() {
        let bytes: Vec<_> = tags(&[(1, 1), (0, 2), (2, 3), (0, 2)]).into_iter().map(Tag::to_bytes).collect();
        assert_eq!(bytes[0], key().tag(&Algorithm::Blake3.digest(&[1])).to_bytes(), "a unique chunk has its own");
        let mixed = [[227, 195, 49, 51, 113, 69], [80, 180, 7, 22, 108, 57], [228, 137, 233, 26, 242, 101]];
        assert_eq!(bytes[1..], mixed);
    }

    #[test]
    fn the_same_run_differs_by_its_place_and_length() {
        check_tags_differ(&[]);
        check_tags_differ(&[(0, 1)]);
        check_tags_differ(&[(0, 1), (1, 1), (0, 1), (2, 1), (0, 1), (1, 1), (0, 5), (1, 5), (0, 5)]);
        check_tags_differ(&[(0, u32::MAX), (0, u32::MAX), (0, 1)]);
        assert_ne!(tags(&[(0, 2)]), tags(&[(0, 3)]));
    }

    #[test]
    fn an_edit_in_a_run_of_zeros_costs_a_few_tags() {
        let old = [(1, 1), (0, 25_600), (2, 1)];
        assert_eq!(differing(&old, &[(1, 1), (0, 12_000), (9, 1), (0, 13_599), (2, 1)]), 4);
        assert_eq!(differing(&old, &[(1, 1), (0, 25_601), (2, 1)]), 2);
    }

    #[test]
    fn an_edit_changes_repeated_runs_up_to_the_next_unique_one() {
        // Every second run is of zeros.
        let old: Vec<_> = (1..=100).flat_map(|letter| [(letter, 1), (0, 7)]).collect();
        let mut new = old.clone();
        new.splice(100..100, [(200, 1)]);
        assert_eq!(differing(&old, &new), 1);
        new.splice(50..50, [(0, 1), (201, 1), (0, 2)]);
        assert_eq!(differing(&old, &new), 4);
        new.remove(20);
        assert_eq!(differing(&old, &new), 4 + 2 + 1, "a unique one, and the zeros behind it there and here");
    }

    #[test]
    fn the_sketches_of_an_edited_file_tell_its_chunks() {
        let mut old = random(30, 100_000);
        old[40_000..60_000].fill(0);
        let mut new = old.clone();
        new.splice(20_000..20_000, [1, 2, 3]);
        new[50_000] = 1;
        let [old, new] = [old, new].map(|bytes| {
            let list = ChunkList::of(&bytes, SMALL, Algorithm::Blake3);
            context_tags(&list, &key())
        });
        let cells = Estimate::cells_for(20);
        let sketch = |tags: &[Tag]| Sketch::of(SketchKey::new(&[7; 16], 1), 0..cells, tags.iter().copied());
        let differences = Differences::between(&sketch(&old), &sketch(&new)).expect("enough cells");
        assert!((4..20).contains(&differences.len()), "{differences:?}");
        assert!(differences.ours().iter().all(|tag| old.contains(tag) && !new.contains(tag)));
        assert!(differences.theirs().iter().all(|tag| new.contains(tag) && !old.contains(tag)));
    }

    proptest! {
        #[test]
        fn tags_always_differ(letters in prop::collection::vec((0u8..20, 1u32..4), 0..100)) {
            check_tags_differ(&letters);
        }

        #[test]
        fn what_follows_a_unique_run_does_not_depend_on_what_stands_before(
            before in prop::collection::vec((0u8..5, 1u32..4), 0..30),
            other in prop::collection::vec((0u8..5, 1u32..4), 0..30),
            after in prop::collection::vec((0u8..5, 1u32..4), 0..30),
        ) {
            // Each letter is repeated everywhere.
            let all: Vec<_> = (0..5).map(|letter| (letter, 1)).collect();
            let file = |before: &[(u8, u32)]| [&all, &all, before, &[(100, 1)][..], &after].concat();
            let [a, b] = [tags(&file(&before)), tags(&file(&other))];
            prop_assert_eq!(&a[a.len() - after.len() - 1..], &b[b.len() - after.len() - 1..]);
        }
    }
}
