//! The weak sum of a whole block at once.
//!
//! A vector of bytes is a row; in each lane four bytes are worth m^3, m^2, m and 1. Products of 8 and 32 bits come from
//! two of 16: the weights are taken apart into halves, pairs of products are added by one instruction, and the high
//! halves are shifted into place. Four rows have a sum each, so that none waits for the one before it, and in the end
//! each lane is multiplied by what its place is worth.
//!
//! Invariant: the same as the definition in [`RollingSum`].
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::Lanes;
use crate::RollingSum;

/// The weak sum of as many whole rows as `bytes` begins with, and how many bytes those are. None without lanes.
pub(crate) fn sum_of_rows(lanes: Lanes, bytes: &[u8]) -> Option<(u32, usize)> {
    // SAFETY: the processor has these lanes.
    match lanes {
        Lanes::Portable => None,
        Lanes::Avx2 => Some(unsafe { sum_avx2(bytes) }),
        Lanes::Avx512 => Some(unsafe { sum_avx512(bytes) }),
    }
}

/// The base of the polynomial to a power.
const fn power(exponent: usize) -> u32 {
    RollingSum::MULTIPLIER.wrapping_pow(exponent as u32)
}

/// The low 16 bits of a weight as a signed number.
const fn low(weight: u32) -> u32 {
    weight & 0xffff
}

/// What is left of a weight, in units of 2^16, when its low half is taken as a signed number.
const fn high(weight: u32) -> u32 {
    (weight >> 16).wrapping_add(weight >> 15 & 1) & 0xffff
}

/// The weights of two bytes, the one with the lower address in the low half.
const fn pair(first: u32, second: u32) -> i32 {
    (first | second << 16) as i32
}

/// What the lanes of a row are worth: powers of m, four bytes apart, the first the highest.
const fn places<const N: usize>() -> [u32; N] {
    let mut worth = [0; N];
    let mut lane = 0;
    while lane < N {
        worth[lane] = power(4 * (N - 1 - lane));
        lane += 1;
    }
    worth
}

macro_rules! sum {
    ($bytes:ident, $lanes:literal, $load:ident, $set:ident, $and:ident, $shift_right:ident, $shift_left:ident, $madd:ident,
     $add:ident, $mul:ident, $reduce:path) => {{
        const ROW: usize = 4 * $lanes;
        const CUBE: u32 = power(3);
        const SQUARE: u32 = power(2);
        const BASE: u32 = power(1);
        const WORTH: [u32; $lanes] = places::<$lanes>();
        let (even_low, even_high) = ($set(pair(low(CUBE), low(BASE))), $set(pair(high(CUBE), high(BASE))));
        let (odd_low, odd_high) = ($set(pair(low(SQUARE), low(1))), $set(pair(high(SQUARE), high(1))));
        let mask = $set(0x00ff_00ff);
        let row = |row: &[u8; ROW]| {
            let bytes = $load(row.as_ptr().cast());
            let (even, odd) = ($and(bytes, mask), $shift_right::<8>(bytes));
            let low = $add($madd(even, even_low), $madd(odd, odd_low));
            let high = $add($madd(even, even_high), $madd(odd, odd_high));
            $add(low, $shift_left::<16>(high))
        };
        let (rows, _) = $bytes.as_chunks::<ROW>();
        let (fours, rest) = rows.as_chunks::<4>();
        let stride = $set(power(4 * ROW) as i32);
        let mut sums = [$set(0); 4];
        for four in fours {
            for k in 0..4 {
                sums[k] = $add($mul(sums[k], stride), row(&four[k]));
            }
        }
        let one = $set(power(ROW) as i32);
        let mut sum = sums[0];
        for k in 1..4 {
            sum = $add($mul(sum, one), sums[k]);
        }
        for next in rest {
            sum = $add($mul(sum, one), row(next));
        }
        let sum = $reduce($mul(sum, $load(WORTH.as_ptr().cast())));
        (sum as u32, rows.len() * ROW)
    }};
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn sum_avx512(bytes: &[u8]) -> (u32, usize) {
    // SAFETY: every load is of 64 bytes of an array of as many.
    unsafe {
        sum!(
            bytes,
            16,
            _mm512_loadu_si512,
            _mm512_set1_epi32,
            _mm512_and_si512,
            _mm512_srli_epi16,
            _mm512_slli_epi32,
            _mm512_madd_epi16,
            _mm512_add_epi32,
            _mm512_mullo_epi32,
            _mm512_reduce_add_epi32
        )
    }
}

#[target_feature(enable = "avx2")]
unsafe fn sum_avx2(bytes: &[u8]) -> (u32, usize) {
    // SAFETY: every load is of 32 bytes of an array of as many.
    unsafe {
        sum!(
            bytes,
            8,
            _mm256_loadu_si256,
            _mm256_set1_epi32,
            _mm256_and_si256,
            _mm256_srli_epi16,
            _mm256_slli_epi32,
            _mm256_madd_epi16,
            _mm256_add_epi32,
            _mm256_mullo_epi32,
            reduce_add_256
        )
    }
}

#[target_feature(enable = "avx2")]
fn reduce_add_256(x: __m256i) -> i32 {
    let x = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
    let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x));
    _mm_cvtsi128_si32(x)
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::reference;

    fn check_sum(bytes: &[u8]) {
        for lanes in Lanes::all() {
            let Some((sum, len)) = sum_of_rows(lanes, bytes) else {
                assert_eq!(lanes, Lanes::Portable);
                continue;
            };
            assert!(bytes.len() - len < 64, "{lanes:?}");
            assert_eq!(sum, reference::weak_sum(&bytes[..len]), "{lanes:?}, {len} bytes");
        }
    }

    #[test]
    fn the_same_in_all_lanes_around_their_widths() {
        let bytes: Vec<u8> = (0..1100u32).map(|i| (i * 151 + i / 7) as u8).collect();
        for len in (0..=130).chain([255, 256, 257, 319, 320, 511, 512, 513, 1024, 1100]) {
            check_sum(&bytes[..len]);
        }
        check_sum(&vec![255; 1024]);
        check_sum(&vec![0; 1024]);
    }

    proptest! {
        #[test]
        fn the_same_in_all_lanes(bytes in vec(any::<u8>(), 0..1200)) {
            check_sum(&bytes);
        }
    }
}
