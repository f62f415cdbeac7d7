//! Which cells of a sketch hold an element, and the element's check sum.
//!
//! An element, a tag, stands in cell 0 and in each cell i after it with probability 1/(1 + i/2) = 2/(i + 2). From a
//! cell i that holds it the next one is found in one step: that it lies behind j has the probability (i + 1)(i + 2) /
//! ((j + 1)(j + 2)), so for a number r below 2^24 drawn from the element's own generator the next cell is the least j
//! with (j + 1)(j + 2) r >= (i + 1)(i + 2) 2^24, and there is none when r = 0. That is exact in integers and the same
//! on every machine. An element stands in 2 (H(m + 1) - 1) of the first m cells on average, H being the harmonic
//! number: 6 of 32, 13 of 1,024.
//!
//! With M(x) the finalizer of SplitMix64 and two secret words a and b, h = M(tag ^ a) seeds the generator (multiply by
//! `STEP` modulo 2^64, r is the top 24 bits) and the top 24 bits of M(h ^ b) are the check sum. Tags are keyed hashes
//! already; the words keep who can choose tags, but not the key, from choosing where they fall.
//!
//! Source: Yang, Gilad, Alizadeh, "Practical Rateless Set Reconciliation" (SIGCOMM 2024), section 4.2, there in
//! floating point; SplitMix64: Steele, Lea, Flood (2014); `STEP`: Steele, Vigna, "Computationally easy, spectrally good
//! multipliers" (2022).

use core::fmt;

use crate::Tag;

/// The secret that places the elements of a sketch, for one transfer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SketchKey {
    place: u64,
    check: u64,
}

impl SketchKey {
    /// The key of transfer number `transfer` on a connection whose client drew `nonce`.
    pub fn new(nonce: &[u8; 16], transfer: u32) -> Self {
        Self::derive("deltasync 2025 sketch v1", nonce, transfer)
    }

    /// The key of the same transfer for the sketch of the edges between what both ends share.
    pub fn of_edges(nonce: &[u8; 16], transfer: u32) -> Self {
        Self::derive("deltasync 2026 sketch of edges v2", nonce, transfer)
    }

    fn derive(context: &str, nonce: &[u8; 16], transfer: u32) -> Self {
        let mut material = [0; 20];
        material[..16].copy_from_slice(nonce);
        material[16..].copy_from_slice(&transfer.to_le_bytes());
        let key = blake3::derive_key(context, &material);
        let (words, _) = key.as_chunks();
        Self { place: u64::from_le_bytes(words[0]), check: u64::from_le_bytes(words[1]) }
    }

    /// The check sum of an element, 24 bits, and the cells below `end` that hold it.
    pub(crate) fn place(&self, tag: Tag, end: usize) -> (u32, Cells) {
        let [a, b, c, d, e, f] = tag.to_bytes();
        let hash = mix(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) ^ self.place);
        let check = (mix(hash ^ self.check) >> 40) as u32;
        let end = end as u64;
        // An odd state keeps the period of the generator at 2^62.
        (check, Cells { next: (end > 0).then_some(0), state: hash | 1, end, bound: end.saturating_mul(end + 1) })
    }
}

/// Without the key itself.
impl fmt::Debug for SketchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SketchKey").finish_non_exhaustive()
    }
}

/// Sketches have fewer cells than this, so that the squares of their positions leave 24 bits free.
pub(crate) const POSITIONS: usize = 1 << 19;

const STEP: u64 = 0xda94_2042_e4dd_58b5;

/// The cells that hold an element, in order.
#[derive(Clone, Debug)]
pub(crate) struct Cells {
    next: Option<u64>,
    state: u64,
    end: u64,
    /// (j + 1)(j + 2) for the last cell j before the end.
    bound: u64,
}

impl Iterator for Cells {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let here = self.next?;
        self.state = self.state.wrapping_mul(STEP);
        let drawn = self.state >> 40;
        let least = ((here + 1) * (here + 2)) << 24;
        // Most elements end here, before the division and the root.
        self.next = (self.bound * drawn >= least).then(|| {
            let product = least.div_ceil(drawn);
            // The least j with (2 j + 3)^2 >= 4 * product + 1.
            ((4 * product).isqrt() - 1) / 2
        });
        debug_assert!(self.next.is_none_or(|next| here < next && next < self.end));
        Some(here as usize)
    }
}

/// The finalizer of SplitMix64: a permutation in which every bit depends on every other.
const fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn tag(value: u64) -> Tag {
        let [a, b, c, d, e, f, ..] = value.to_le_bytes();
        Tag::from_bytes([a, b, c, d, e, f])
    }

    /// The next cell by its definition, one by one.
    fn next_by_search(here: u64, drawn: u64, end: u64) -> Option<u64> {
        (here + 1..end).find(|next| (next + 1) * (next + 2) * drawn >= ((here + 1) * (here + 2)) << 24)
    }

    fn check_a_step_is_its_definition(here: u64, state: u64, end: u64) {
        let mut cells = Cells { next: Some(here), state, end, bound: end * (end + 1) };
        assert_eq!(cells.next(), Some(here as usize));
        assert_eq!(cells.next, next_by_search(here, cells.state >> 40, end), "from {here} by {state:#x} below {end}");
    }

    /// The state from which `drawn` is drawn.
    fn before(drawn: u64) -> u64 {
        // The inverse modulo 2^64, by Newton's steps.
        let inverse = (0..6).fold(STEP, |x, _| x.wrapping_mul(2u64.wrapping_sub(STEP.wrapping_mul(x))));
        (drawn << 40 | 1).wrapping_mul(inverse)
    }

    #[test]
    fn golden_places() {
        let key = SketchKey::new(&[7; 16], 1);
        let placed = |key: SketchKey, element| {
            let (check, cells) = key.place(tag(element), 1000);
            (check, cells.collect::<Vec<_>>())
        };
        assert_eq!(placed(key, 1), (8_553_712, [0, 1, 2, 18, 34, 97, 185, 200, 357, 411, 458].into()));
        assert_eq!(
            placed(SketchKey::new(&[7; 16], 2), 0),
            (8_255_643, [0, 1, 9, 11, 17, 23, 25, 29, 36, 37, 68, 216, 911].into())
        );
    }

    #[test]
    fn steps_at_the_ends_of_their_range() {
        let top = (1 << 24) - 1;
        for drawn in [0, 1, 2, 3, top / 2, top - 1, top] {
            for (here, end) in [(0, 1), (0, 2), (0, 5000), (1, 2), (4998, 5000), (4999, 5000)] {
                check_a_step_is_its_definition(here, before(drawn), end);
            }
        }
        let end = POSITIONS as u64 - 1;
        for drawn in [1, 100, top] {
            check_a_step_is_its_definition(end - 1, before(drawn), end);
            check_a_step_is_its_definition(end - 1000, before(drawn), end);
        }
    }

    #[test]
    fn a_cell_holds_as_many_elements_as_it_should() {
        const ELEMENTS: u64 = 20_000;
        let key = SketchKey::new(&[1; 16], 1);
        let mut held = [0u64; 2000];
        for element in 0..ELEMENTS {
            key.place(tag(element), held.len()).1.for_each(|cell| held[cell] += 1);
        }
        assert_eq!(held[0], ELEMENTS);
        for (cell, held) in held.iter().enumerate().skip(1) {
            let share = 2.0 / (cell as f64 + 2.0);
            let (mean, variance) = (share * ELEMENTS as f64, share * (1.0 - share) * ELEMENTS as f64);
            let off = *held as f64 - mean;
            assert!(off * off < 25.0 * variance, "cell {cell} holds {held}, not about {mean:.0}");
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", SketchKey::new(&[1; 16], 1)), "SketchKey { .. }");
    }

    proptest! {
        #[test]
        fn a_step_is_its_definition(here in 0u64..3000, more in 1u64..3000, state: u64) {
            check_a_step_is_its_definition(here, state | 1, here + more);
        }

        #[test]
        fn a_nearer_end_only_cuts_the_cells(element: u64, ends in (0usize..2000, 0usize..2000)) {
            let key = SketchKey::new(&[1; 16], 1);
            let (near, far) = (ends.0.min(ends.1), ends.0.max(ends.1));
            let cut: Vec<_> = key.place(tag(element), far).1.filter(|cell| *cell < near).collect();
            prop_assert_eq!(key.place(tag(element), near).1.collect::<Vec<_>>(), cut);
        }
    }
}
