//! The hashes of many positions at once, for anchors: which is the least, and which lie below a limit.
//!
//! Vectors loaded at four successive bytes have the halves of the words at twice as many positions as they have lanes:
//! the first and the third those at even positions, the second and the fourth those at odd ones. The least hash is
//! sought stretch by stretch, and only the stretch that has it is looked through for its place.
//!
//! Invariant: the same as [`AnchorHash::of`] does one position after another.
#![allow(unsafe_code)]

use alloc::vec::Vec;
use core::arch::x86_64::*;
use core::ops::Range;

use super::Lanes;
use crate::anchor::AnchorHash;

/// How many positions are looked at together.
const STRETCH: usize = 256;

/// The least hash of the first `places` positions and the leftmost that has it; behind the last of them `bytes` has three
/// more. None without lanes, or with too few places for them.
pub(crate) fn least(lanes: Lanes, bytes: &[u8], places: usize, hash: AnchorHash) -> Option<(u16, usize)> {
    assert!(places + 3 <= bytes.len(), "a position is four bytes");
    if places < STRETCH {
        return None;
    }
    match lanes {
        Lanes::Portable => None,
        // SAFETY: the processor has these lanes; the words of the first `places` positions lie within `bytes`.
        Lanes::Avx2 => Some(unsafe { least_avx2(bytes, places, hash) }),
        // SAFETY: as above.
        Lanes::Avx512 => Some(unsafe { least_avx512(bytes, places, hash) }),
    }
}

/// Appends to `found` the positions of `range` whose hash is less than `limit`, and yields the rest of `range`, at which
/// nothing has been looked. Behind the last position `bytes` has three more. As much of `ahead` is fetched into the cache.
pub(crate) fn positions_below(
    lanes: Lanes,
    bytes: &[u8],
    range: Range<usize>,
    hash: AnchorHash,
    limit: u16,
    ahead: &[u8],
    found: &mut Vec<u32>,
) -> Range<usize> {
    assert!(range.is_empty() || range.end + 3 <= bytes.len(), "a position is four bytes");
    match lanes {
        Lanes::Portable => range,
        // SAFETY: the processor has these lanes; the words of all positions in `range` lie within `bytes`.
        Lanes::Avx2 => unsafe { below_avx2(bytes, range, hash, limit, ahead, found) },
        // SAFETY: as above.
        Lanes::Avx512 => unsafe { below_avx512(bytes, range, hash, limit, ahead, found) },
    }
}

/// The body of `least` in terms of the vectors of one instruction set.
macro_rules! least {
    ($bytes:ident, $places:ident, $hash:ident, $lanes:literal, $hashes:ident, $set:ident, $min:ident, $any_less:path,
     $reduce:path, $equal:path) => {{
        let (mut best, mut best_lanes, mut stretch) = (u16::MAX, $set(-1), 0);
        let mut start = 0;
        loop {
            let mut least = [$set(-1); 2];
            for at in (start..start + STRETCH).step_by(2 * $lanes) {
                let [even, odd] = $hashes($bytes.as_ptr().add(at), $hash);
                least = [$min(least[0], even), $min(least[1], odd)];
            }
            let least = $min(least[0], least[1]);
            if $any_less(least, best_lanes) {
                best = $reduce(least);
                best_lanes = $set(best as i16);
                stretch = start;
            }
            if start + STRETCH == $places {
                break;
            }
            // The last stretch overlaps the one before it: what was found there first stays the leftmost.
            start = (start + STRETCH).min($places - STRETCH);
        }
        let mut at = stretch;
        loop {
            // The least is among the hashes of the stretch.
            let [even, odd] = $hashes($bytes.as_ptr().add(at), $hash);
            let equal = $equal(even, odd, best_lanes);
            if equal != 0 {
                break (best, at + equal.trailing_zeros() as usize);
            }
            at += 2 * $lanes;
        }
    }};
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn least_avx512(bytes: &[u8], places: usize, hash: AnchorHash) -> (u16, usize) {
    // SAFETY: a stretch ends at `places` at most, three bytes before the end.
    unsafe {
        least!(
            bytes,
            places,
            hash,
            32,
            hashes_512,
            _mm512_set1_epi16,
            _mm512_min_epu16,
            any_less_512,
            reduce_512,
            equal_512
        )
    }
}

#[target_feature(enable = "avx2")]
unsafe fn least_avx2(bytes: &[u8], places: usize, hash: AnchorHash) -> (u16, usize) {
    // SAFETY: a stretch ends at `places` at most, three bytes before the end.
    unsafe {
        least!(
            bytes,
            places,
            hash,
            16,
            hashes_256,
            _mm256_set1_epi16,
            _mm256_min_epu16,
            any_less_256,
            reduce_256,
            equal_256
        )
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn any_less_512(a: __m512i, b: __m512i) -> bool {
    _mm512_cmplt_epu16_mask(a, b) != 0
}

#[target_feature(enable = "avx2")]
fn any_less_256(a: __m256i, b: __m256i) -> bool {
    let not_less = _mm256_cmpeq_epi16(_mm256_max_epu16(a, b), a);
    _mm256_movemask_epi8(not_less) != -1
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn reduce_512(x: __m512i) -> u16 {
    reduce_256(_mm256_min_epu16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64::<1>(x)))
}

#[target_feature(enable = "avx2")]
fn reduce_256(x: __m256i) -> u16 {
    let x = _mm_min_epu16(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    _mm_cvtsi128_si32(_mm_minpos_epu16(x)) as u16
}

/// A bit for each position, of which `even` and `odd` have the hashes, whose hash is `value`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn equal_512(even: __m512i, odd: __m512i, value: __m512i) -> u64 {
    spread(_mm512_cmpeq_epi16_mask(even, value)) | spread(_mm512_cmpeq_epi16_mask(odd, value)) << 1
}

/// A bit for each position, of which `even` and `odd` have the hashes, whose hash is `value`.
#[target_feature(enable = "avx2")]
fn equal_256(even: __m256i, odd: __m256i, value: __m256i) -> u32 {
    interleave(_mm256_cmpeq_epi16(even, value), _mm256_cmpeq_epi16(odd, value))
}

/// A bit for each position, of two vectors whose lanes are all ones or zeros.
#[target_feature(enable = "avx2")]
fn interleave(even: __m256i, odd: __m256i) -> u32 {
    _mm256_movemask_epi8(_mm256_blendv_epi8(even, odd, _mm256_set1_epi16(0xff00_u16 as i16))) as u32
}

/// The hashes of the 32 even and the 32 odd positions from `at` on, of which 67 bytes are read.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn hashes_512(at: *const u8, hash: AnchorHash) -> [__m512i; 2] {
    let [first, second] = hash.factors.map(|factor| _mm512_set1_epi16(factor as i16));
    let addend = _mm512_set1_epi16(hash.addend as i16);
    // SAFETY: the caller's.
    let halves: [__m512i; 4] = core::array::from_fn(|k| unsafe { _mm512_loadu_si512(at.add(k).cast()) });
    let of = |k: usize| {
        let sum = _mm512_add_epi16(_mm512_mullo_epi16(halves[k], first), _mm512_mullo_epi16(halves[k + 2], second));
        _mm512_add_epi16(sum, addend)
    };
    [of(0), of(1)]
}

/// The hashes of the 16 even and the 16 odd positions from `at` on, of which 35 bytes are read.
#[target_feature(enable = "avx2")]
unsafe fn hashes_256(at: *const u8, hash: AnchorHash) -> [__m256i; 2] {
    let [first, second] = hash.factors.map(|factor| _mm256_set1_epi16(factor as i16));
    let addend = _mm256_set1_epi16(hash.addend as i16);
    // SAFETY: the caller's.
    let halves: [__m256i; 4] = core::array::from_fn(|k| unsafe { _mm256_loadu_si256(at.add(k).cast()) });
    let of = |k: usize| {
        let sum = _mm256_add_epi16(_mm256_mullo_epi16(halves[k], first), _mm256_mullo_epi16(halves[k + 2], second));
        _mm256_add_epi16(sum, addend)
    };
    [of(0), of(1)]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn below_avx512(
    bytes: &[u8],
    range: Range<usize>,
    hash: AnchorHash,
    limit: u16,
    mut ahead: &[u8],
    found: &mut Vec<u32>,
) -> Range<usize> {
    let limit = _mm512_set1_epi16(limit as i16);
    let mut rows = Rows::new();
    let mut at = range.start;
    while at + 64 <= range.end {
        // SAFETY: the words of 64 positions are 67 bytes.
        let hashes = unsafe { hashes_512(bytes.as_ptr().add(at), hash) };
        let [even, odd] = hashes.map(|hashes| u64::from(_mm512_cmplt_epu16_mask(hashes, limit)));
        super::fetch(&mut ahead, 64);
        if rows.add(even | odd << 32, at) {
            rows.drain(|row| spread(row as u32) | spread((row >> 32) as u32) << 1, found);
        }
        at += 64;
    }
    rows.drain(|row| spread(row as u32) | spread((row >> 32) as u32) << 1, found);
    at..range.end
}

#[target_feature(enable = "avx2")]
unsafe fn below_avx2(
    bytes: &[u8],
    range: Range<usize>,
    hash: AnchorHash,
    limit: u16,
    mut ahead: &[u8],
    found: &mut Vec<u32>,
) -> Range<usize> {
    // Unsigned numbers are less when nothing is left after as much as may be is taken away, unless nothing may be less.
    let Some(most) = limit.checked_sub(1) else { return range.end..range.end };
    let most = _mm256_set1_epi16(most as i16);
    let mut rows = Rows::new();
    let mut at = range.start;
    while at + 32 <= range.end {
        // SAFETY: the words of 32 positions are 35 bytes.
        let hashes = unsafe { hashes_256(bytes.as_ptr().add(at), hash) };
        let [even, odd] =
            hashes.map(|hashes| _mm256_cmpeq_epi16(_mm256_subs_epu16(hashes, most), _mm256_setzero_si256()));
        super::fetch(&mut ahead, 32);
        if rows.add(u64::from(interleave(even, odd)), at) {
            rows.drain(|row| row, found);
        }
        at += 32;
    }
    rows.drain(|row| row, found);
    at..range.end
}

/// Rows of positions of which some are wanted. Whether a row has one is known to nobody beforehand, so that asking would
/// cost more than writing it down.
struct Rows {
    rows: [(u64, u32); 64],
    len: usize,
}

impl Rows {
    const fn new() -> Self {
        Self { rows: [(0, 0); 64], len: 0 }
    }

    /// Adds the row that starts at `at` if it has a bit; true when there is no room for another.
    #[inline]
    fn add(&mut self, row: u64, at: usize) -> bool {
        self.rows[self.len] = (row, at as u32);
        self.len += usize::from(row != 0);
        self.len == self.rows.len()
    }

    /// Appends the positions that have a bit, once `order` has put the bits of a row in order.
    #[inline]
    fn drain(&mut self, order: impl Fn(u64) -> u64, found: &mut Vec<u32>) {
        for (row, at) in &self.rows[..self.len] {
            let mut positions = order(*row);
            while positions != 0 {
                found.push(at + positions.trailing_zeros());
                positions &= positions - 1;
            }
        }
        self.len = 0;
    }
}

/// Puts the bits two apart.
const fn spread(bits: u32) -> u64 {
    let bits = bits as u64;
    let bits = (bits | bits << 16) & 0x0000_ffff_0000_ffff;
    let bits = (bits | bits << 8) & 0x00ff_00ff_00ff_00ff;
    let bits = (bits | bits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let bits = (bits | bits << 2) & 0x3333_3333_3333_3333;
    (bits | bits << 1) & 0x5555_5555_5555_5555
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const HASH: AnchorHash = AnchorHash { factors: [0x9155, 0x2493], addend: 12_345 };

    fn hashes(bytes: &[u8]) -> Vec<u16> {
        (0..bytes.len() - 3).map(|at| HASH.of(bytes, at)).collect()
    }

    fn check_least(bytes: &[u8]) {
        let hashes = hashes(bytes);
        let places = hashes.len();
        let slow = (0..places).map(|at| (hashes[at], at)).min();
        for lanes in Lanes::all() {
            let found = least(lanes, bytes, places, HASH);
            if lanes == Lanes::Portable || places < STRETCH {
                assert_eq!(found, None);
            } else {
                assert_eq!(found, slow, "{lanes:?}, {places} places");
            }
        }
    }

    fn check_below(bytes: &[u8], start: usize, limit: u16) {
        let hashes = hashes(bytes);
        let range = start.min(hashes.len())..hashes.len();
        for lanes in Lanes::all() {
            let mut found = Vec::new();
            let rest = positions_below(lanes, bytes, range.clone(), HASH, limit, bytes, &mut found);
            assert_eq!(rest.end, range.end);
            assert!(lanes == Lanes::Portable || rest.len() < 64, "{lanes:?}");
            let slow = (range.start..rest.start).filter(|at| hashes[*at] < limit).map(|at| at as u32);
            assert_eq!(found, slow.collect::<Vec<u32>>(), "{lanes:?} {range:?}");
        }
    }

    fn noise(len: usize) -> Vec<u8> {
        (0..len as u64)
            .map(|i| (i.wrapping_mul(i ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
            .collect()
    }

    #[test]
    fn the_same_in_all_lanes_around_their_widths() {
        let bytes = noise(1500);
        for len in (4..140).chain(255..325).chain([511, 512, 513, 514, 515, 516, 771, 772, 1027, 1500]) {
            check_least(&bytes[..len]);
            check_below(&bytes[..len], len % 7, 1 << 13);
        }
        check_below(&bytes, 0, 0);
        check_below(&bytes, 0, u16::MAX);
    }

    #[test]
    fn of_equal_hashes_the_leftmost_is_taken() {
        for period in [1, 2, 3, 7, 64, 255, 256, 257, 300] {
            check_least(&noise(period).repeat(900 / period + 1));
        }
    }

    #[test]
    fn bits_are_spread_in_their_order() {
        for bit in 0..32 {
            assert_eq!(spread(1 << bit), 1 << (2 * bit));
        }
        assert_eq!(spread(u32::MAX), 0x5555_5555_5555_5555);
    }

    proptest! {
        #[test]
        fn the_same_in_all_lanes(bytes in vec(any::<u8>(), 4..1200), start in 0usize..1200, limit: u16, shift in 0u32..8) {
            let bytes: Vec<u8> = bytes.iter().map(|byte| byte >> shift).collect();
            check_least(&bytes);
            check_below(&bytes, start, limit);
        }
    }
}
