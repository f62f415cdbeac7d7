//! Which chunks two ends share, and in which order the basis has them.
//!
//! Comparing sets tells each end which of its elements the other lacks; what is left, the *shared* elements, both know by
//! the same tags. A set has no order, so the receiver sends a hash of the shared tags in the order of its basis. When the
//! sender's hash is another, blocks have moved, and the ends compare a second set: the *edges*, each a hash of two tags
//! that follow each other. The edges of the basis that the sender has not are where its order breaks; named as pairs of
//! ranks among the sorted shared tags, they let the sender walk its own order with jumps, which is that of the basis.
//! A receiver with much to say sends a sketch of its edges at once; from that a sender finds the pairs by trying: what
//! its own broken edges have on their left is followed by what others have on their right.
//!
//! Invariant: a walk visits each shared element once, or there is none; both ends compute the same edges and ranks.
//!
//! Cost: O(n log n) in the elements.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::{Differences, Elements, Sketch, Tag, TagKey};

/// The runs of a chunk list that the other end has too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// In the order of the list.
    runs: Vec<u32>,
    /// The same in the order of their tags.
    sorted: Vec<(Tag, u32)>,
}

/// What follows what where the order of the basis breaks, as ranks among the sorted shared tags; `None` is the start or
/// the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// What stands before.
    pub left: Option<u32>,
    /// What follows it in the basis.
    pub right: Option<u32>,
}

impl Shared {
    /// All elements but those that the other end lacks.
    pub fn all_but(elements: &Elements, missing: &[Tag]) -> Self {
        let mut shared = vec![true; elements.runs()];
        missing.iter().filter_map(|tag| elements.run_of(*tag)).for_each(|run| shared[run as usize] = false);
        Self::of(elements, |run| shared[run as usize])
    }

    /// The elements whose ranks are not in `missing`; ranks are in ascending order.
    pub fn all_but_ranks(elements: &Elements, missing: &[u32]) -> Self {
        let mut shared = vec![true; elements.runs()];
        missing.iter().filter_map(|rank| elements.run_at(*rank)).for_each(|run| shared[run as usize] = false);
        Self::of(elements, |run| shared[run as usize])
    }

    fn of(elements: &Elements, is_shared: impl Fn(u32) -> bool) -> Self {
        let mut sorted: Vec<(Tag, u32)> = Vec::new();
        for tag in elements.tags() {
            let run = elements.run_of(tag).expect("an element has a run");
            if is_shared(run) {
                sorted.push((tag, run));
            }
        }
        let mut runs: Vec<u32> = sorted.iter().map(|(_, run)| *run).collect();
        runs.sort_unstable();
        Self { runs, sorted }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// True when nothing is shared.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The runs in the order of the list.
    pub fn runs(&self) -> &[u32] {
        &self.runs
    }

    /// The ranks of elements that only the other end has, in ascending order, among all that it has.
    pub fn ranks_of(&self, theirs: &[Tag]) -> Vec<u32> {
        let mut before = self.sorted.iter().map(|(tag, _)| *tag).peekable();
        let mut passed = 0;
        let rank = |(index, tag): (u32, &Tag)| {
            while before.next_if(|shared| shared < tag).is_some() {
                passed += 1;
            }
            index + passed
        };
        (0..).zip(theirs).map(rank).collect()
    }

    /// The tag of the order of these elements.
    pub fn order(&self, elements: &Elements, key: &TagKey) -> Tag {
        key.sequence(self.runs.iter().map(|run| elements.tag_of_run(*run)))
    }

    /// The edges between elements that follow each other, the start and the end of the file included: as a set, and the
    /// same for each place before, between and behind the runs, in order.
    pub fn edges(&self, elements: &Elements, key: &TagKey) -> (Elements, Vec<Tag>) {
        let tag = |index: usize| self.runs.get(index).map(|run| elements.tag_of_run(*run));
        let edge = |place: usize| edge_tag(key, place.checked_sub(1).and_then(tag), tag(place));
        let edges: Vec<Tag> = (0..=self.runs.len()).map(edge).collect();
        (Elements::of_tags(edges.clone()), edges)
    }

    /// Where the order breaks for an end that lacks the edges `missing`; edges that are no elements count as lacking.
    pub fn breaks(&self, elements: &Elements, key: &TagKey, missing: &[Tag]) -> Vec<Break> {
        let (set, edges) = self.edges(elements, key);
        let broken = |edge: &Tag| missing.binary_search(edge).is_ok() || !set.contains(*edge);
        let places = edges.iter().enumerate().filter(|(_, edge)| broken(edge)).map(|(place, _)| place);
        let rank = |index: usize| self.runs.get(index).map(|run| self.rank(elements.tag_of_run(*run)));
        places.map(|place| Break { left: place.checked_sub(1).and_then(rank), right: rank(place) }).collect()
    }

    /// Where the order of the basis breaks ours, found from a sketch of its edges: what only it has joins what our broken
    /// edges have left and right. `None` when the sketch is too short, or there are too many breaks to try all pairs.
    ///
    /// # Security
    ///
    /// The sketch may be hostile: at most a million pairs are tried, and what comes out is for [`Shared::walk`] to check.
    pub fn breaks_from(&self, elements: &Elements, key: &TagKey, theirs: &Sketch) -> Option<Vec<Break>> {
        let (set, edges) = self.edges(elements, key);
        let own = Sketch::of(theirs.key(), theirs.range(), set.tags());
        let differences = Differences::between(&own, theirs).ok()?;
        let broken = |edge: &Tag| differences.ours().binary_search(edge).is_ok() || !set.contains(*edge);
        let places: Vec<usize> = (0..edges.len()).filter(|place| broken(&edges[*place])).collect();
        if places.len() > PAIRS_MAX.isqrt() || places.len() != differences.theirs().len() {
            return None;
        }
        let tag = |index: usize| self.runs.get(index).map(|run| elements.tag_of_run(*run));
        let lefts = places.iter().map(|place| place.checked_sub(1).and_then(tag));
        let rights: Vec<Option<Tag>> = places.iter().map(|place| tag(*place)).collect();
        let mut breaks = Vec::new();
        for left in lefts {
            let follows =
                |right: &&Option<Tag>| differences.theirs().binary_search(&edge_tag(key, left, **right)).is_ok();
            let right = *rights.iter().find(follows)?;
            breaks.push(Break { left: left.map(|tag| self.rank(tag)), right: right.map(|tag| self.rank(tag)) });
        }
        Some(breaks)
    }

    /// The runs in the order of the basis, given where that breaks ours; `None` when the breaks make no order of all.
    ///
    /// # Security
    ///
    /// Breaks may be hostile: ranks are looked up, and the walk ends after as many steps as there are elements.
    pub fn walk(&self, breaks: &[Break]) -> Option<Vec<u32>> {
        // Places among our runs, shifted by one; 0 is the start.
        let mut place_of = BTreeMap::new();
        let named = breaks.iter().flat_map(|broken| [broken.left, broken.right]).flatten();
        for rank in named {
            let run = self.sorted.get(rank as usize)?.1;
            place_of.insert(rank, self.runs.binary_search(&run).ok()? + 1);
        }
        let mut jumps = BTreeMap::new();
        for broken in breaks {
            let left = broken.left.map_or(0, |rank| place_of[&rank]);
            jumps.insert(left, broken.right.map(|rank| place_of[&rank]));
        }
        let mut order = Vec::with_capacity(self.runs.len());
        let mut visited = vec![false; self.runs.len() + 1];
        let mut at = 0;
        loop {
            let ours = (at < self.runs.len()).then_some(at + 1);
            let Some(next) = jumps.get(&at).copied().unwrap_or(ours) else { break };
            if core::mem::replace(&mut visited[next], true) {
                return None;
            }
            order.push(self.runs[next - 1]);
            at = next;
        }
        (order.len() == self.runs.len()).then_some(order)
    }

    /// The rank of a shared tag.
    fn rank(&self, tag: Tag) -> u32 {
        let rank = self.sorted.binary_search_by_key(&tag, |(tag, _)| *tag).expect("the tag of a shared element");
        u32::try_from(rank).expect("no more elements than 2^31")
    }
}

/// So many pairs of what may follow each other are tried at most.
const PAIRS_MAX: usize = 1 << 20;

/// The edge between two elements, or the start or the end of the file.
fn edge_tag(key: &TagKey, left: Option<Tag>, right: Option<Tag>) -> Tag {
    let mut bytes = [0; 13];
    bytes[..6].copy_from_slice(&left.map_or([0; 6], Tag::to_bytes));
    bytes[6..12].copy_from_slice(&right.map_or([0; 6], Tag::to_bytes));
    bytes[12] = u8::from(left.is_none()) | u8::from(right.is_none()) << 1;
    key.tag_of(&bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::SketchKey;

    fn key() -> TagKey {
        TagKey::new(&[1; 16], 1)
    }

    fn elements(numbers: &[u64]) -> Elements {
        let tag = |number: &u64| Tag::of_number((number + 1).wrapping_mul(0xda94_2042_e4dd_58b5) >> 16);
        Elements::of_tags(numbers.iter().map(tag).collect())
    }

    /// The sender finds the order in which the basis has what both have; returns how many breaks that took.
    fn check_the_order_is_found(basis: &[u64], target: &[u64]) -> usize {
        let (ours, theirs) = (elements(basis), elements(target));
        let differences = Differences::of_sorted(ours.tags(), theirs.tags());
        let receiver = Shared::all_but(&ours, differences.ours());
        let sender = Shared::all_but_ranks(&theirs, &receiver.ranks_of(differences.theirs()));
        assert_eq!(sender, Shared::all_but(&theirs, differences.theirs()));
        assert_eq!(receiver.len(), sender.len());
        let edges =
            Differences::of_sorted(receiver.edges(&ours, &key()).0.tags(), sender.edges(&theirs, &key()).0.tags());
        let breaks = receiver.breaks(&ours, &key(), edges.ours());
        let order = sender.walk(&breaks).expect("honest breaks");
        let cells = Sketch::of(SketchKey::of_edges(&[1; 16], 1), 0..400, receiver.edges(&ours, &key()).0.tags());
        let found = sender.breaks_from(&theirs, &key(), &cells).expect("cells enough");
        assert_eq!(sender.walk(&found).as_ref(), Some(&order), "the same from a sketch of the edges");
        let expected: Vec<Tag> = receiver.runs().iter().map(|run| ours.tag_of_run(*run)).collect();
        assert_eq!(order.iter().map(|run| theirs.tag_of_run(*run)).collect::<Vec<_>>(), expected);
        let alike = receiver.order(&ours, &key()) == sender.order(&theirs, &key());
        assert_eq!(alike, order == sender.runs(), "the hash of the order");
        assert_eq!(alike, breaks.is_empty());
        breaks.len()
    }

    #[test]
    fn the_order_is_found_whatever_moved() {
        let numbers = |range: core::ops::Range<u64>| range.collect::<Vec<u64>>();
        assert_eq!(check_the_order_is_found(&[], &[]), 0);
        assert_eq!(check_the_order_is_found(&numbers(0..9), &numbers(0..9)), 0);
        assert_eq!(check_the_order_is_found(&numbers(0..9), &numbers(20..29)), 0);
        let swapped = [numbers(50..100), numbers(0..50)].concat();
        assert_eq!(check_the_order_is_found(&numbers(0..100), &swapped), 3);
        let reversed: Vec<u64> = (0..30).rev().collect();
        check_the_order_is_found(&numbers(0..30), &reversed);
        check_the_order_is_found(&[0, 1, 2, 3, 4], &[3, 9, 0, 8, 4, 2, 1]);
    }

    #[test]
    fn hostile_breaks_make_no_order() {
        let elements = elements(&[0, 1, 2, 3]);
        let shared = Shared::all_but(&elements, &[]);
        for breaks in [
            vec![Break { left: Some(4), right: None }],
            vec![Break { left: None, right: None }],
            vec![Break { left: None, right: Some(u32::MAX) }],
            vec![Break { left: Some(0), right: Some(0) }],
            vec![Break { left: Some(3), right: Some(0) }, Break { left: Some(0), right: Some(3) }],
        ] {
            assert_eq!(shared.walk(&breaks), None, "{breaks:?}");
        }
        assert_eq!(shared.walk(&[]).as_deref(), Some(shared.runs()));
    }

    proptest! {
        #[test]
        fn the_order_is_found(basis in Just((0..40u64).collect::<Vec<_>>()).prop_shuffle(), kept in 0usize..40,
            target in Just((10..60u64).collect::<Vec<_>>()).prop_shuffle()) {
            check_the_order_is_found(&basis[..kept], &target);
        }
    }
}
