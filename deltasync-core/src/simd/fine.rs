//! The fine sums of whole blocks as scalar products: what each byte of a block is worth depends on its place alone.
//!
//! A block b[0..n] sums to the sum of (b[i] + 1) w[i] with w[i] = k^(n-1-i). Each w[i] has 61 bits and is kept as five limbs
//! of 13 bits, so that a limb times a byte fits 21 bits and the products of a limb over a block of up to 512 bytes fit 30:
//! five scalar products of small integers, each an instruction for 16 bytes, and one reduction for all of them.
//!
//! Cost: an eighth of a nanosecond a byte, where word by word takes more than twice that. The limbs take 10 bytes for each byte
//! of a block.
//!
//! Invariant: a sum equals [`Polynomial::fresh`](crate::fine::Polynomial::fresh) of the same block, its safe twin.
#![allow(unsafe_code)]

use alloc::boxed::Box;
use core::arch::x86_64::*;

use super::Lanes;
use crate::fine::{FineShape, multiply, reduce};

/// The longest block that is summed this way, in bytes.
const LONGEST: usize = 512;
/// The bits of a limb.
const BITS: u32 = 13;
/// The limbs of a number of the field.
const LIMBS: usize = 5;
/// The bytes that are taken at once.
const AT_ONCE: usize = 16;

/// What the bytes of a block are worth, by their places.
#[derive(Clone, Debug)]
pub(crate) struct BlockSums {
    /// The limbs of so many bytes after one another; of those behind the block they are zero.
    worths: Box<[[[i16; AT_ONCE]; LIMBS]]>,
    /// The sum of a block of zeros.
    zeros: u64,
}

impl BlockSums {
    /// The worths of blocks of this shape at a point; `None` where the blocks are too long or the lanes too narrow.
    pub(crate) fn new(lanes: Lanes, point: u64, shape: FineShape) -> Option<Self> {
        let block = shape.block();
        if block > LONGEST || lanes < Lanes::Avx2 {
            return None;
        }
        let mut worths: Box<_> = (0..block.div_ceil(AT_ONCE)).map(|_| [[0; AT_ONCE]; LIMBS]).collect();
        let (mut worth, mut zeros) = (1, 0);
        for place in (0..block).rev() {
            for (limb, shift) in worths[place / AT_ONCE].iter_mut().zip((0..).step_by(BITS as usize)) {
                limb[place % AT_ONCE] = (worth >> shift) as i16 & ((1 << BITS) - 1);
            }
            zeros = reduce(u128::from(zeros) + u128::from(worth));
            worth = multiply(worth, point);
        }
        Some(Self { worths, zeros })
    }

    /// Hands out the whole sum of each block of `blocks`, which are `block` bytes each.
    pub(crate) fn each(&self, blocks: &[u8], block: usize, out: impl FnMut(u64)) {
        debug_assert_eq!(block.div_ceil(AT_ONCE), self.worths.len());
        // SAFETY: this was made, so the processor has AVX2.
        unsafe { self.each_avx2(blocks, block, out) }
    }

    #[target_feature(enable = "avx2")]
    fn each_avx2(&self, blocks: &[u8], block: usize, mut out: impl FnMut(u64)) {
        for block in blocks.chunks_exact(block) {
            let (groups, rest) = block.as_chunks::<AT_ONCE>();
            let mut lanes = [_mm256_setzero_si256(); LIMBS];
            for (group, worths) in groups.iter().zip(&self.worths) {
                add(&mut lanes, group, worths);
            }
            if !rest.is_empty()
                && let Some(worths) = self.worths.last()
            {
                let mut group = [0; AT_ONCE];
                group[..rest.len()].copy_from_slice(rest);
                add(&mut lanes, &group, worths);
            }
            let [a, b, c, d, e] = lanes;
            let [four, one] = [_mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d)), e];
            let [ab, cd] = [halves(four), halves(one)].map(words);
            let dots = [ab[0], ab[1], ab[2], ab[3], cd[0] + cd[1] + cd[2] + cd[3]];
            let wide = dots.iter().rev().fold(0, |wide: u128, dot| (wide << BITS) + u128::from(*dot));
            out(reduce(wide + u128::from(self.zeros)));
        }
    }
}

/// Adds what some bytes are worth.
#[inline]
#[target_feature(enable = "avx2")]
fn add(lanes: &mut [__m256i; LIMBS], bytes: &[u8; AT_ONCE], worths: &[[i16; AT_ONCE]; LIMBS]) {
    // SAFETY: the array has the 16 bytes that are read.
    let bytes = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) });
    for (lane, worths) in lanes.iter_mut().zip(worths) {
        // SAFETY: the array has the 32 bytes that are read.
        let worths = unsafe { _mm256_loadu_si256(worths.as_ptr().cast()) };
        *lane = _mm256_add_epi32(*lane, _mm256_madd_epi16(bytes, worths));
    }
}

/// The sums of the upper and the lower four.
#[inline]
#[target_feature(enable = "avx2")]
fn halves(eight: __m256i) -> __m128i {
    _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight))
}

fn words(four: __m128i) -> [u32; 4] {
    // SAFETY: both are 16 bytes without padding, and any bytes are words.
    unsafe { core::mem::transmute(four) }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::fine::{FineKey, Polynomial};

    fn check_blocks_equal_the_twin(data: &[u8], block: u32) {
        let shape = FineShape::new(block, 56).expect("in range");
        let key = FineKey::kept(&[block as u8; 32]);
        let polynomial = Polynomial::new(key, shape);
        let expected: Vec<u64> = data.chunks_exact(block as usize).map(|block| polynomial.fresh(block)).collect();
        for lanes in Lanes::all() {
            let Some(sums) = polynomial.block_sums(lanes) else { continue };
            let mut found = Vec::new();
            sums.each(data, block as usize, |sum| found.push(sum));
            assert_eq!(found, expected, "{lanes:?}, blocks of {block}, {} bytes", data.len());
        }
    }

    #[test]
    fn blocks_equal_the_twin_at_the_edges_of_a_load_and_on_the_largest_bytes() {
        let data: Vec<u8> = (0..3000u32).map(|i| (i * 151 + i / 256) as u8).collect();
        for block in [16, 17, 31, 32, 33, 95, 96, 97, 511, 512] {
            for data in [&data[..], &data[1..=block as usize], &[255; 1100], &[0; 600], &[]] {
                check_blocks_equal_the_twin(data, block);
            }
        }
        let none = Polynomial::new(FineKey::kept(&[0; 32]), FineShape::new(513, 20).expect("in range"));
        assert!(Lanes::all().all(|lanes| none.block_sums(lanes).is_none()), "products would pass 31 bits");
    }

    proptest! {
        #[test]
        fn blocks_equal_the_twin(data in prop::collection::vec(any::<u8>(), 0..2000), block in 16u32..=512) {
            check_blocks_equal_the_twin(&data, block);
        }
    }
}
