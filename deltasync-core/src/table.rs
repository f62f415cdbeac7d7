//! A table of blocks under 32-bit keys, for lookups of which most find nothing.
//!
//! A bitmap of the top bits of the keys answers first; it is sized to stay in the cache. Behind it the entries stand
//! sorted by key, in buckets of about one, and those of one key in an order of the caller's, so that it can search among
//! them: a lookup is O(log blocks) at worst, however many blocks share a key. A number in each entry says most of that
//! order, so that a search seldom leaves the entries. Of entries that the order calls equal the first block stands for
//! all.
//!
//! Invariant: `with_key` yields all entries of a key, those that are equal only once.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// A block under its key, whose top bits should depend on everything that tells keys apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: u32,
    pub(crate) block: u32,
    /// Its place among those of its key.
    pub(crate) order: u64,
}

/// How many bits of the bitmap there are for an entry, and at most, both as powers of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FilterSize {
    pub(crate) an_entry: u32,
    pub(crate) most: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// One bit for each value of the top bits of a key, set when an entry has it.
    filter: Vec<u64>,
    filter_shift: u32,
    entries: Vec<Entry>,
    /// Where the entries begin whose key has the top bits i; one more than there are buckets.
    buckets: Vec<u32>,
    bucket_shift: u32,
}

impl Table {
    /// Sorts `entries`, those of one key by their order and where that is equal by `order`, in
    /// O(entries * log entries).
    pub(crate) fn new(mut entries: Vec<Entry>, size: FilterSize, order: impl Fn(&Entry, &Entry) -> Ordering) -> Self {
        let order = |a: &Entry, b: &Entry| (a.key, a.order).cmp(&(b.key, b.order)).then_with(|| order(a, b));
        entries.sort_unstable_by(|a, b| order(a, b).then(a.block.cmp(&b.block)));
        entries.dedup_by(|later, first| order(later, first).is_eq());

        let bucket_bits = (entries.len() as u64).next_power_of_two().trailing_zeros().clamp(1, 31);
        let filter_bits = (bucket_bits + size.an_entry).clamp(6, size.most);
        let (bucket_shift, filter_shift) = (u32::BITS - bucket_bits, u32::BITS - filter_bits);
        let mut filter = vec![0; 1 << (filter_bits - 6)];
        let mut buckets = vec![0u32; (1 << bucket_bits) + 1];
        for entry in &entries {
            let bit = entry.key >> filter_shift;
            filter[(bit / 64) as usize] |= 1u64 << (bit % 64);
            buckets[(entry.key >> bucket_shift) as usize + 1] += 1;
        }
        let mut before = 0;
        for bucket in &mut buckets {
            before += *bucket;
            *bucket = before;
        }
        Self { filter, filter_shift, entries, buckets, bucket_shift }
    }

    /// True when there are no entries.
    pub(crate) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// False when no entry has this key; true when one may have.
    #[inline]
    pub(crate) fn may_hold(&self, key: u32) -> bool {
        let bit = key >> self.filter_shift;
        self.filter[(bit / 64) as usize] >> (bit % 64) & 1 != 0
    }

    /// The entries with this key, in their order.
    pub(crate) fn with_key(&self, key: u32) -> &[Entry] {
        let bucket = (key >> self.bucket_shift) as usize;
        let bucket = &self.entries[self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize];
        match bucket {
            // Most often all of a bucket have one key, of a large one the more.
            [first, .., last] if first.key == key && last.key == key => bucket,
            _ => equal_range(bucket, |entry| entry.key.cmp(&key)),
        }
    }
}

/// The entries for which `order` says equal, of `entries` that are sorted by it.
pub(crate) fn equal_range(entries: &[Entry], mut order: impl FnMut(&Entry) -> Ordering) -> &[Entry] {
    let start = entries.partition_point(|entry| order(entry).is_lt());
    let len = entries[start..].partition_point(|entry| order(entry).is_eq());
    &entries[start..start + len]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: FilterSize = FilterSize { an_entry: 5, most: 12 };

    /// Blocks with these keys; those whose numbers are equal modulo 6 are equal.
    fn check_every_key_has_its_entries(keys: &[u32]) {
        let entry = |(key, block): (&u32, u32)| Entry { key: *key, block, order: u64::from(block % 2) };
        let entries: Vec<Entry> = keys.iter().zip(0..).map(entry).collect();
        let table = Table::new(entries.clone(), SIZE, |a, b| (a.block % 3).cmp(&(b.block % 3)));
        assert_eq!(table.is_empty(), keys.is_empty());
        for key in keys.iter().copied().chain(keys.iter().map(|key| key ^ 1)).chain([0, u32::MAX]) {
            let first = |rest: u32| entries.iter().find(|entry| entry.key == key && entry.block % 6 == rest);
            // The even ones first, and each by what is left modulo 3.
            let slow: Vec<Entry> = [0, 4, 2, 3, 1, 5].into_iter().filter_map(first).copied().collect();
            assert_eq!(table.with_key(key), slow, "{key:#x}");
            assert!(slow.is_empty() || table.may_hold(key));
        }
    }

    #[test]
    fn entries_are_found_around_the_sizes_of_the_table() {
        let keys: Vec<u32> = (0..130u32).map(|i| i.wrapping_mul(0x9e37_79b1)).collect();
        for len in [0, 1, 2, 3, 63, 64, 65, 130] {
            check_every_key_has_its_entries(&keys[..len]);
        }
        check_every_key_has_its_entries(&[5; 100]);
    }

    #[test]
    fn most_keys_that_are_not_there_are_not_looked_for() {
        let entries =
            (0..1000).map(|block| Entry { key: u32::wrapping_mul(block, 0x9e37_79b1), block, order: 0 }).collect();
        let table = Table::new(entries, FilterSize { an_entry: 5, most: 23 }, |_, _| Ordering::Equal);
        let passed = (0..100_000u32).filter(|i| table.may_hold(i.wrapping_mul(0x85eb_ca6b))).count();
        assert!(passed < 100_000 / 16, "{passed}");
    }

    proptest! {
        #[test]
        fn every_key_has_its_entries(keys in prop::collection::vec(prop_oneof![0u32..20, any::<u32>()], 0..200)) {
            check_every_key_has_its_entries(&keys);
        }
    }
}
