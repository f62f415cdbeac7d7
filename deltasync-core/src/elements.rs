//! The set that two ends compare to find out which chunks both have.
//!
//! Each run of a chunk list has a context tag; the tags that occur once in the list are its *elements*. A tag that two
//! runs share, which short tags make likely and 48 bits do not, belongs to neither end's set: such runs are missing to
//! the other end whatever it has, and the set stays one.
//!
//! A whole set travels as a sorted list, each tag as its distance from the one before in a Rice code: log2(2^48 / n) + 2
//! bits for each of n, 36 instead of 48 for 16,384. A list can be asked for in parts, lowest tags first; as tags are
//! hashes, the first thousand are a sample that tells how much is common.
//!
//! Invariant: elements differ, and are in ascending order; equal lists have equal elements under one key.

use alloc::vec::Vec;

use crate::bits::{BitReader, BitWriter, rice_for};
use crate::{ChunkList, Cutter, Malformed, Tag, TagKey, context_tags};

/// The elements of a chunk list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elements {
    /// In the order of tags, each with its run.
    sorted: Vec<(Tag, u32)>,
    /// The tag of each run.
    tags: Vec<Tag>,
}

impl Elements {
    /// The elements of a list under a key.
    pub fn of(list: &ChunkList, key: &TagKey) -> Self {
        Self::of_tags(match list.cutter() {
            Cutter::Entries => list.runs().iter().map(|run| key.tag_of_entry(&run.digest)).collect(),
            Cutter::MinCdc { .. } | Cutter::Fixed { .. } => context_tags(list, key),
        })
    }

    pub(crate) fn of_tags(tags: Vec<Tag>) -> Self {
        let mut sorted: Vec<(Tag, u32)> = tags.iter().copied().zip(0..).collect();
        sorted.sort_unstable();
        let alone = |i: usize, tag: Tag| {
            let differs = |other: Option<&(Tag, u32)>| other.is_none_or(|(other, _)| *other != tag);
            differs(i.checked_sub(1).and_then(|i| sorted.get(i))) && differs(sorted.get(i + 1))
        };
        let sorted = sorted.iter().enumerate().filter(|(i, (tag, _))| alone(*i, *tag)).map(|(_, pair)| *pair).collect();
        Self { sorted, tags }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The tags in ascending order.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = Tag> + Clone + '_ {
        self.sorted.iter().map(|(tag, _)| *tag)
    }

    /// True for a tag in the set.
    pub fn contains(&self, tag: Tag) -> bool {
        self.run_of(tag).is_some()
    }

    /// The run of an element.
    pub(crate) fn run_of(&self, tag: Tag) -> Option<u32> {
        let index = self.sorted.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        Some(self.sorted[index].1)
    }

    /// The run of the element with this rank among the sorted.
    pub(crate) fn run_at(&self, rank: u32) -> Option<u32> {
        self.sorted.get(rank as usize).map(|(_, run)| *run)
    }

    /// The tag of a run, whether it is an element or not.
    pub(crate) fn tag_of_run(&self, run: u32) -> Tag {
        self.tags[run as usize]
    }

    /// How many runs the list has.
    pub(crate) fn runs(&self) -> usize {
        self.tags.len()
    }

    /// Appends the tags of these ranks as they travel.
    ///
    /// # Panics
    ///
    /// When the ranks are not within the set.
    pub fn encode(&self, ranks: core::ops::Range<usize>, out: &mut Vec<u8>) {
        let rice = rice(self.len());
        // The distance from the tag before the first, which the other end has.
        let mut least = ranks.start.checked_sub(1).map_or(0, |before| self.sorted[before].0.number() + 1);
        let mut writer = BitWriter::new(out);
        for (tag, _) in &self.sorted[ranks] {
            writer.rice(tag.number() - least, rice);
            least = tag.number() + 1;
        }
        writer.finish();
    }
}

fn rice(elements: usize) -> u32 {
    rice_for(1 << Tag::BITS, elements as u64)
}

/// Reads `count` tags of a set of `elements`, which follow those `before`, and appends them.
///
/// # Errors
///
/// [`Malformed`] when the bytes are damaged.
///
/// # Security
///
/// Takes hostile bytes: allocates 8 bytes for each tag that the bytes at hand can hold. What comes is in ascending order.
pub fn read_tags(bytes: &[u8], count: usize, elements: usize, before: &mut Vec<Tag>) -> Result<(), Malformed> {
    let rice = rice(elements);
    let mut reader = BitReader::new(bytes);
    // Each takes at least the bit that ends its quotient.
    if count > reader.left() / (rice as usize + 1) {
        return Err(Malformed::Truncated);
    }
    before.reserve(count);
    for _ in 0..count {
        let least = before.last().map_or(0, |tag| tag.number() + 1);
        let number = least.checked_add(reader.rice(rice)?).filter(|number| *number < 1 << Tag::BITS);
        before.push(Tag::of_number(number.ok_or(Malformed::Value("a tag of more than 48 bits"))?));
    }
    match reader.finish()? {
        [] => Ok(()),
        rest => Err(Malformed::Trailing(rest.len())),
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn tags(numbers: &[u64]) -> Vec<Tag> {
        numbers.iter().map(|number| Tag::of_number(number % (1 << Tag::BITS))).collect()
    }

    fn check_elements_are_what_occurs_once(numbers: &[u64]) -> Elements {
        let tags = tags(numbers);
        let elements = Elements::of_tags(tags.clone());
        let mut counts = BTreeMap::new();
        tags.iter().for_each(|tag| *counts.entry(*tag).or_insert(0) += 1);
        let once: Vec<Tag> = counts.iter().filter(|(_, count)| **count == 1).map(|(tag, _)| *tag).collect();
        assert_eq!(elements.tags().collect::<Vec<_>>(), once);
        for tag in counts.keys() {
            assert_eq!(elements.run_of(*tag).map(|run| tags[run as usize]), once.contains(tag).then_some(*tag));
        }
        elements
    }

    fn check_a_list_is_read_back_in_parts(elements: &Elements, parts: &[usize]) {
        let mut read = Vec::new();
        let mut at = 0;
        for part in parts.iter().copied().chain([elements.len()]) {
            let end = elements.len().min(at + part);
            let mut bytes = Vec::new();
            elements.encode(at..end, &mut bytes);
            read_tags(&bytes, end - at, elements.len(), &mut read).expect("as written");
            at = end;
        }
        assert!(read.iter().copied().eq(elements.tags()));
    }

    #[test]
    fn what_occurs_twice_is_no_element() {
        let elements = check_elements_are_what_occurs_once(&[5, 3, 5, 9, 3, 3, 1]);
        assert_eq!(elements.len(), 2);
        check_elements_are_what_occurs_once(&[]);
        check_elements_are_what_occurs_once(&[7, 7]);
    }

    #[test]
    fn a_list_costs_less_than_its_tags() {
        let numbers: Vec<u64> = (1..=16_384u64).map(|i| i.wrapping_mul(0xda94_2042_e4dd_58b5) >> 16).collect();
        let elements = Elements::of_tags(tags(&numbers));
        let mut bytes = Vec::new();
        elements.encode(0..elements.len(), &mut bytes);
        assert!(bytes.len() * 8 < 37 * elements.len(), "{} bytes for {}", bytes.len(), elements.len());
    }

    #[test]
    fn damaged_lists_are_refused() {
        let mut read = vec![];
        assert_eq!(read_tags(&[], 1, 1, &mut read), Err(Malformed::Truncated));
        assert_eq!(read_tags(&[0; 20], 1, 1, &mut read), Err(Malformed::Trailing(14)));
        assert!(matches!(read_tags(&[0xff; 16], 1, 1, &mut vec![]), Err(Malformed::Value(_))));
        let mut highest = tags(&[(1 << 48) - 1]);
        assert!(matches!(read_tags(&[0; 7], 1, 2, &mut highest), Err(Malformed::Value(_))));
    }

    proptest! {
        #[test]
        fn elements_are_what_occurs_once(numbers in vec(0u64..200, 0..100)) {
            check_elements_are_what_occurs_once(&numbers);
        }

        #[test]
        fn a_list_is_read_back(numbers in vec(any::<u64>(), 0..100), parts in vec(0usize..40, 0..5)) {
            check_a_list_is_read_back_in_parts(&Elements::of_tags(tags(&numbers)), &parts);
        }
    }
}
