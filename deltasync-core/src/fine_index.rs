//! The short sums of old stretches, and where three of them stand in a row.
//!
//! A short sum says little by itself, so what is looked up at any offset of a target are three blocks in a row at once: a
//! key is mixed from their three sums, and only places of a stretch are indexed at which three whole blocks with three
//! different sums begin. So what is the same over and over, such as zeros, is not in the index at all, and a million
//! equal sums cost nothing. A bitmap of the keys answers first, 64 to 128 bits a place and at most 4 MiB; behind it the
//! places stand sorted by key, then position, in buckets of about one. A lookup is a search in one bucket, O(log places)
//! at worst, and takes a look at [`LOOKS`] places at most.
//!
//! Cost: O(sums log sums) to make, and about 40 bytes a sum.
//!
//! Invariants: every stretch lies below 2^64; a triple that is found has the sums asked for, all in one stretch.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::fine::Polynomial;
use crate::{ByteLen, FineKey, FineShape, LimitExceeded, Offset};

/// How many places with one key are looked at.
const LOOKS: usize = 16;
/// The most bits in the bitmap, as a power of two: 4 MiB.
const MOST_FILTER_BITS: u32 = 25;

/// A stretch of the basis whose blocks were summed one after another from its start, the last of which may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldStretch {
    /// Where it starts in the basis.
    pub from: Offset,
    /// How many bytes it has.
    pub len: ByteLen,
}

/// Finds the blocks of old stretches by their sums. Read-only, so that several threads can share one.
///
/// ```
/// use deltasync_core::{ByteLen, FineIndex, FineKey, FineShape, FineSummer, Offset, OldStretch, Pairing};
///
/// let old: Vec<u8> = (0..2000u32).flat_map(|row| row.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
/// let new = [&old[..5000], b"a byte more or two", &old[5000..]].concat();
///
/// let (key, shape) = (FineKey::new(&[1; 16], &[2; 16], 0), FineShape::for_gaps(1, 8000, 1024));
/// let mut summer = FineSummer::new(key, shape);
/// summer.push(&old);
/// let stretch = OldStretch { from: Offset::new(0), len: ByteLen::new(8000) };
/// let index = FineIndex::new(key, shape, vec![stretch], summer.finish())?;
/// let ops = index.find(&new, Some(Pairing { stretch: 0, left: true, right: true }));
/// assert!(ops.literal_len().get() <= 18 + 2 * shape.block() as u64);
/// # Ok::<(), deltasync_core::InvalidStretches>(())
/// ```
pub struct FineIndex {
    polynomial: Polynomial,
    stretches: Vec<Stretch>,
    sums: Vec<u64>,
    /// One bit for each value of the top bits of a key, set when a place has it.
    filter: Vec<u64>,
    filter_shift: u32,
    /// A key, and below it the number of the sum at which its place begins, in order.
    entries: Vec<u64>,
    /// Where the entries begin whose key has the top bits i; one more than there are buckets.
    buckets: Vec<u32>,
    bucket_shift: u32,
}

/// A stretch, and which of all sums are its own.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) from: Offset,
    /// At most 2^56, as each sum is of at most 2^24 bytes.
    pub(crate) len: u64,
    pub(crate) sums: Range<usize>,
}

impl FineIndex {
    /// Indexes the sums of all stretches, one stretch after another.
    ///
    /// # Errors
    ///
    /// [`InvalidStretches`] when a stretch passes 2^64, the sums are not as many as the stretches have blocks, or there
    /// are 2^32 of them or more.
    ///
    /// # Security
    ///
    /// Takes stretches and sums of a peer as they are, and allocates in proportion to the sums at hand. Whether a
    /// stretch lies in the basis is for the caller to check, or for the [`Planner`](crate::Planner) later.
    pub fn new(
        key: FineKey,
        shape: FineShape,
        stretches: Vec<OldStretch>,
        sums: Vec<u64>,
    ) -> Result<Self, InvalidStretches> {
        let count = sums.len() as u64;
        LimitExceeded::check("fine sums", count, u32::MAX.into())?;
        let mut blocks = 0u64;
        let stretches = stretches.into_iter().map(|OldStretch { from, len }| -> Result<_, InvalidStretches> {
            from.checked_add(len).ok_or(InvalidStretches::TooFar { from, len })?;
            let start = blocks;
            blocks = blocks.saturating_add(shape.sums_of(len.get()));
            let sums = usize::try_from(start).unwrap_or(usize::MAX)..usize::try_from(blocks).unwrap_or(usize::MAX);
            Ok(Stretch { from, len: len.get(), sums })
        });
        let stretches = stretches.collect::<Result<Vec<_>, _>>()?;
        if blocks != count {
            return Err(InvalidStretches::Count { sums: count, blocks });
        }
        let entries = places(&stretches, &sums, shape);

        let bucket_bits = (entries.len() as u64).next_power_of_two().trailing_zeros().clamp(1, 31);
        let filter_bits = (bucket_bits + 6).clamp(6, MOST_FILTER_BITS);
        let (bucket_shift, filter_shift) = (u32::BITS - bucket_bits, u32::BITS - filter_bits);
        let mut filter = vec![0; 1 << (filter_bits - 6)];
        let mut buckets = vec![0u32; (1 << bucket_bits) + 1];
        for entry in &entries {
            let key = (entry >> 32) as u32;
            let bit = key >> filter_shift;
            filter[(bit / 64) as usize] |= 1u64 << (bit % 64);
            buckets[(key >> bucket_shift) as usize + 1] += 1;
        }
        let mut before = 0;
        for bucket in &mut buckets {
            before += *bucket;
            *bucket = before;
        }
        let polynomial = Polynomial::new(key, shape);
        Ok(Self { polynomial, stretches, sums, filter, filter_shift, entries, buckets, bucket_shift })
    }

    /// How the blocks were summed.
    pub const fn shape(&self) -> FineShape {
        self.polynomial.shape()
    }

    pub(crate) const fn polynomial(&self) -> &Polynomial {
        &self.polynomial
    }

    pub(crate) fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    pub(crate) fn sums(&self) -> &[u64] {
        &self.sums
    }

    /// True when no triple can be found.
    pub(crate) const fn has_no_triples(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first place at which three blocks in a row may have a triple with these first, second and third sums.
    pub(crate) fn next_candidate(&self, first: &[u64], second: &[u64], third: &[u64]) -> Option<usize> {
        /// So many places are looked up before one branch.
        const AT_ONCE: usize = 8;
        let (filter, shift) = (self.filter.as_slice(), self.filter_shift);
        let hit = |triple| {
            let bit = triple_key(triple) >> shift;
            filter[(bit / 64) as usize] >> (bit % 64) & 1
        };
        let ((first, firsts), (second, seconds)) = (first.as_chunks::<AT_ONCE>(), second.as_chunks::<AT_ONCE>());
        let (third, thirds) = third.as_chunks::<AT_ONCE>();
        for (chunk, ((first, second), third)) in first.iter().zip(second).zip(third).enumerate() {
            let mut hits = 0;
            for i in 0..AT_ONCE {
                hits |= hit([first[i], second[i], third[i]]) << i;
            }
            if hits != 0 {
                return Some(chunk * AT_ONCE + hits.trailing_zeros() as usize);
            }
        }
        let rest = firsts.iter().zip(seconds).zip(thirds).position(|((a, b), c)| hit([*a, *b, *c]) != 0);
        rest.map(|i| first.len() * AT_ONCE + i)
    }

    /// The number of a sum at which these three begin in one stretch: the next one from `near` on among those of
    /// `home`, else any of `home`, else any at all.
    pub(crate) fn triple(&self, triple: [u64; 3], home: &Range<usize>, near: usize) -> Option<usize> {
        let candidates = self.candidates(triple_key(triple));
        let from = |block: usize| &candidates[candidates.partition_point(|entry| block_of(*entry) < block)..];
        let at_home = |entry: &&u64| home.contains(&block_of(**entry));
        let in_order = from(near).iter().take_while(at_home);
        let in_order = in_order.chain(from(home.start).iter().take_while(at_home)).chain(candidates);
        in_order.take(LOOKS).map(|entry| block_of(*entry)).find(|block| self.sums[*block..].starts_with(&triple))
    }

    /// The stretch that this sum belongs to.
    pub(crate) fn stretch_of(&self, block: usize) -> usize {
        // Of stretches that start with the same sum all but the last are empty.
        self.stretches.partition_point(|stretch| stretch.sums.start <= block) - 1
    }

    /// The entries with this key, sorted by position.
    fn candidates(&self, key: u32) -> &[u64] {
        let bucket = (key >> self.bucket_shift) as usize;
        let bucket = &self.entries[self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize];
        let start = bucket.partition_point(|entry| (entry >> 32) < u64::from(key));
        let len = bucket[start..].partition_point(|entry| entry >> 32 == u64::from(key));
        &bucket[start..start + len]
    }
}

/// Its sizes only.
impl core::fmt::Debug for FineIndex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (stretches, sums) = (self.stretches.len(), self.sums.len());
        f.debug_struct("FineIndex").field("stretches", &stretches).field("sums", &sums).finish_non_exhaustive()
    }
}

/// The key of three sums in a row. Up to 21 bits a sum nothing is lost before the multiplication.
#[inline]
const fn triple_key([first, second, third]: [u64; 3]) -> u32 {
    let mixed = first ^ second.rotate_left(21) ^ third.rotate_left(42);
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}

/// The entries of all places at which three whole blocks of one stretch begin whose sums all differ.
fn places(stretches: &[Stretch], sums: &[u64], shape: FineShape) -> Vec<u64> {
    let mut entries = Vec::new();
    for stretch in stretches {
        let shorter = !stretch.len.is_multiple_of(shape.block() as u64);
        let whole = &sums[stretch.sums.start..stretch.sums.end - usize::from(shorter)];
        for (block, triple) in (stretch.sums.start..).zip(whole.windows(3)) {
            let triple = [triple[0], triple[1], triple[2]];
            if triple[0] != triple[1] && triple[1] != triple[2] && triple[0] != triple[2] {
                entries.push(u64::from(triple_key(triple)) << 32 | block as u64);
            }
        }
    }
    entries.sort_unstable();
    entries
}

const fn block_of(entry: u64) -> usize {
    entry as u32 as usize
}

/// Why stretches and sums do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStretches {
    /// A stretch ends past 2^64 - 1.
    #[error("a stretch of {len} bytes at offset {from} runs past the longest file")]
    TooFar {
        /// Where it starts.
        from: Offset,
        /// How long it is.
        len: ByteLen,
    },
    /// There are more or fewer sums than blocks.
    #[error("{sums} sums for stretches of {blocks} blocks")]
    Count {
        /// How many sums came.
        sums: u64,
        /// How many blocks the stretches have.
        blocks: u64,
    },
    /// There are too many.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec as vec_of;
    use proptest::prelude::*;

    use super::*;

    const SHAPE: FineShape = FineShape::KEPT;
    const NOWHERE: u64 = 1 << 40;

    fn index_of(lens: &[u64], sums: &[u64]) -> Result<FineIndex, InvalidStretches> {
        let stretches = lens.iter().map(|len| OldStretch { from: Offset::new(7), len: ByteLen::new(*len) });
        FineIndex::new(FineKey::kept(&[1; 32]), SHAPE, stretches.collect(), sums.to_vec())
    }

    fn check_triples_are_found_where_they_stand(lens: &[u64], sums: &[u64]) {
        let index = index_of(lens, sums).expect("as many sums as blocks");
        let mut found = 0;
        for (number, stretch) in index.stretches().iter().enumerate() {
            let whole = stretch.len as usize / SHAPE.block();
            for block in stretch.sums.clone() {
                assert_eq!(index.stretch_of(block), number, "block {block}");
                let at = block - stretch.sums.start;
                let Some(&[a, b, c]) = (at + 3 <= whole).then(|| &sums[block..block + 3]) else { continue };
                let distinct = a != b && b != c && a != c;
                found += usize::from(distinct);
                // Behind eleven that are nowhere, so in the rest of a chunk, or none before it.
                for before in [0, 8, 11] {
                    let mut columns = [a, b, c].map(|sum| vec![sum; before + 9]);
                    columns[0][..before].fill(NOWHERE);
                    let next = index.next_candidate(&columns[0], &columns[1], &columns[2]);
                    assert!(!distinct || next.is_some_and(|next| next <= before), "behind {before}: {next:?}");
                }
                let first = index.triple([a, b, c], &stretch.sums, block);
                assert_eq!(first, distinct.then_some(block), "from where it stands");
                let any = index.triple([a, b, c], &(0..0), 0);
                assert_eq!(any.map(|any| &sums[any..any + 3]), distinct.then_some(&[a, b, c][..]), "anywhere");
            }
        }
        assert_eq!(index.entries.len(), found);
        assert_eq!(index.triple([NOWHERE, NOWHERE + 1, NOWHERE + 2], &(0..sums.len()), 0), None);
    }

    #[test]
    fn triples_do_not_pass_the_end_of_a_stretch_or_hold_its_shorter_block() {
        check_triples_are_found_where_they_stand(
            &[96 * 3, 96 * 2, 0, 1, 0, 96 * 3 + 1],
            &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        );
        check_triples_are_found_where_they_stand(&[96 * 3 - 1], &[1, 2, 3]);
        check_triples_are_found_where_they_stand(&[], &[]);
    }

    #[test]
    fn equal_sums_are_not_indexed() {
        let index = index_of(&[96 * 100_000], &vec![5; 100_000]).expect("as many sums as blocks");
        assert!(index.has_no_triples());
    }

    #[test]
    fn only_so_many_places_with_one_key_are_looked_at() {
        // The key of a triple is the same when bits move from one sum to the place that the rotation gives another.
        let twin = [1 << 21, 0, 4];
        assert_eq!(triple_key(twin), triple_key([0, 1, 4]));
        let mut sums: Vec<u64> = [0, 1, 4].repeat(LOOKS);
        sums.extend(twin);
        let index = index_of(&[96 * 3 * LOOKS as u64, 96 * 3], &sums).expect("as many sums as blocks");
        assert_eq!(index.triple(twin, &(0..3), 0), None, "behind {LOOKS} others");
        assert_eq!(index.triple(twin, &(3 * LOOKS..3 * LOOKS + 3), 0), Some(3 * LOOKS), "at home");
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        assert_eq!(index_of(&[97], &[1]).err(), Some(InvalidStretches::Count { sums: 1, blocks: 2 }));
        assert_eq!(index_of(&[], &[1]).err(), Some(InvalidStretches::Count { sums: 1, blocks: 0 }));
        let (from, len) = (Offset::new(7), ByteLen::new(u64::MAX));
        assert_eq!(index_of(&[u64::MAX], &[1]).err(), Some(InvalidStretches::TooFar { from, len }));
        let many = index_of(&vec![u64::MAX - 7; 100], &[1; 99]).err();
        assert!(matches!(many, Some(InvalidStretches::Count { sums: 99, .. })), "{many:?}");
    }

    proptest! {
        #[test]
        fn triples_are_found_where_they_stand(
            lens in vec_of(0u64..1000, 0..20),
            values in vec_of(0u64..6, 300),
        ) {
            let blocks: u64 = lens.iter().map(|len| SHAPE.sums_of(*len)).sum();
            check_triples_are_found_where_they_stand(&lens, &values[..blocks as usize]);
        }
    }
}
