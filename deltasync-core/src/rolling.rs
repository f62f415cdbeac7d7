//! The rolling weak sum that finds candidate matches at every byte offset.
//!
//! A window `x[0..n]` is a polynomial in [`RollingSum::MULTIPLIER`] = m, modulo 2^32: the sum of `x[i] * m^(n-1-i)`.
//! Sliding the window by one byte costs two multiplications whatever its length: s' = s * m + entering - leaving * m^n.
//! Summing afresh is O(n), in SIMD lanes.
//!
//! m is odd and 5 modulo 8, so its powers repeat only after 2^30 bytes. The low k bits of a sum depend on the low k bits
//! of the bytes alone, so whoever indexes by it mixes first. Anyone can make windows of equal weak sums: a match makes a
//! candidate, the strong sum decides.
//!
//! Invariant: after any sequence of `roll` calls the state equals `RollingSum::of(window)`.
//!
//! Source: R. Karp, M. Rabin, "Efficient randomized pattern-matching algorithms" (1987).

/// How many partial sums run side by side where there are no SIMD lanes.
const LANES: usize = 16;

/// The weak sum of a window of fixed length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollingSum {
    sum: u32,
    /// m^n: what the oldest byte is worth once the window has moved past it.
    leaving: u32,
}

impl RollingSum {
    /// The base of the polynomial: 2^32 divided by the golden ratio, rounded to 5 modulo 8.
    pub const MULTIPLIER: u32 = 0x9E37_79B5;

    /// The sum of a window, in time proportional to its length. The empty window sums to zero.
    pub fn of(window: &[u8]) -> Self {
        Self { sum: weak_sum(window), leaving: power(window.len()) }
    }

    /// Slides the window by one byte: `leaving` is its first byte, `entering` the one behind its last.
    #[inline]
    pub fn roll(&mut self, leaving: u8, entering: u8) {
        self.sum = self
            .sum
            .wrapping_mul(Self::MULTIPLIER)
            .wrapping_add(u32::from(entering))
            .wrapping_sub(u32::from(leaving).wrapping_mul(self.leaving));
    }

    /// The sum as a number, as it stands in a signature.
    #[inline]
    pub const fn value(self) -> u32 {
        self.sum
    }
}

/// The sum of a window that does not roll on: what `RollingSum::of(window).value()` is.
pub(crate) fn weak_sum(window: &[u8]) -> u32 {
    let horner = |sum: u32, next: u32| sum.wrapping_mul(RollingSum::MULTIPLIER).wrapping_add(next);
    let (sum, rest) = sum_of_rows(window);
    rest.iter().fold(sum, |sum, byte| horner(sum, u32::from(*byte)))
}

/// The sum of the rows that a window begins with, and what is left of it.
fn sum_of_rows(window: &[u8]) -> (u32, &[u8]) {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    if let Some((sum, len)) = crate::simd::weak::sum_of_rows(crate::simd::Lanes::detect(), window) {
        return (sum, &window[len..]);
    }
    const STRIDE: u32 = RollingSum::MULTIPLIER.wrapping_pow(LANES as u32);
    let (rows, rest) = window.as_chunks::<LANES>();
    let mut lanes = [0u32; LANES];
    for row in rows {
        for (lane, byte) in lanes.iter_mut().zip(row) {
            *lane = lane.wrapping_mul(STRIDE).wrapping_add(u32::from(*byte));
        }
    }
    let horner = |sum: u32, next: u32| sum.wrapping_mul(RollingSum::MULTIPLIER).wrapping_add(next);
    (lanes.into_iter().fold(0, horner), rest)
}

/// m^`exponent`. The order of m divides 2^30, so the exponent may be reduced by it.
const fn power(exponent: usize) -> u32 {
    RollingSum::MULTIPLIER.wrapping_pow((exponent as u64 % (1 << 30)) as u32)
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::reference;

    fn check_fresh_equals_definition(window: &[u8]) {
        assert_eq!(RollingSum::of(window).value(), reference::weak_sum(window), "{} bytes", window.len());
    }

    fn check_rolling_equals_fresh(data: &[u8], window: usize) {
        let mut rolled = RollingSum::of(&data[..window]);
        for start in 1..=data.len() - window {
            rolled.roll(data[start - 1], data[start + window - 1]);
            assert_eq!(rolled, RollingSum::of(&data[start..start + window]), "start={start}");
        }
    }

    #[test]
    fn fresh_equals_definition_around_the_lanes() {
        let data: Vec<u8> = (0..100u32).map(|i| (i * 151 + 7) as u8).collect();
        for len in [0, 1, 15, 16, 17, 31, 32, 33, 100] {
            check_fresh_equals_definition(&data[..len]);
        }
    }

    #[test]
    fn rolling_equals_fresh_on_the_largest_bytes() {
        check_rolling_equals_fresh(&[255; 300], 64);
        check_rolling_equals_fresh(&[0, 255, 0, 255, 1], 1);
    }

    #[test]
    fn powers_repeat_after_two_to_thirty() {
        assert_eq!(RollingSum::MULTIPLIER.wrapping_pow(1 << 30), 1);
        assert_ne!(RollingSum::MULTIPLIER.wrapping_pow(1 << 29), 1);
    }

    #[test]
    fn equal_weak_sums_of_different_windows_can_be_made() {
        // The Thue-Morse word and its complement collide modulo 2^32 for any odd multiplier.
        let word: Vec<u8> = (0..1024u32).map(|i| (i.count_ones() & 1) as u8).collect();
        let complement: Vec<u8> = word.iter().map(|bit| 1 - bit).collect();
        assert_ne!(word, complement);
        assert_eq!(RollingSum::of(&word), RollingSum::of(&complement));
        assert_ne!(RollingSum::of(&word), RollingSum::of(&vec![0; 1024]));
    }

    proptest! {
        #[test]
        fn fresh_equals_definition(window in vec(any::<u8>(), 0..300)) {
            check_fresh_equals_definition(&window);
        }

        #[test]
        fn rolling_equals_fresh(data in vec(any::<u8>(), 64..512), window in 1usize..64) {
            check_rolling_equals_fresh(&data, window);
        }
    }
}
