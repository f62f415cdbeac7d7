//! Anchors: places in a block that its content chooses, so that an equal block is found at whatever offset it stands.
//!
//! Each position has a hash of the four bytes there: two numbers of 16 bits, each times a factor, modulo 2^16, so that a
//! SIMD lane of 16 bits serves a position. The anchor of a block is the leftmost of the positions with the
//! least hash, provided that the hash lies under a limit that about [`PER_BLOCK`] positions of a block pass. Whoever
//! looks for blocks in a target looks up only the positions under the limit, by a key of the [`Anchor::SPAN`] bytes
//! there; an equal block has its anchor among them, whatever surrounds it, so none is missed. Blocks in which no hash
//! lies under the limit, a few of a hundred in text and programs and none in random bytes, have no anchor and are left
//! to the rolling sum.
//!
//! The factors and the addend of the hash are chosen so that a run of equal bytes has none: there every position would
//! be one.
//!
//! Cost: two multiplications of 16 bits a position, in SIMD lanes.
//!
//! Invariant: the anchor of a block is a function of its bytes and its length alone.
//!
//! Source: the least hash as a content-chosen place: S. Schleimer, D. Wilkerson, A. Aiken, "Winnowing: local algorithms
//! for document fingerprinting" (2003).

use alloc::vec::Vec;

#[cfg(all(feature = "std", target_arch = "x86_64"))]
use crate::simd::{Lanes, anchor as lanes};

/// How many positions of a block lie under the limit, on average.
const PER_BLOCK: u64 = 16;
/// The highest limit: below it lies no run of equal bytes.
const MOST: u16 = 1 << 11;

/// The hash of a position.
const HASH: AnchorHash = AnchorHash { factors: [0xa285, 0xea3b], addend: 0x4a60 };

/// What the hash of four bytes, as two little-endian numbers of 16 bits, is made with: the sum of each times its factor
/// and of the addend, modulo 2^16.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnchorHash {
    pub(crate) factors: [u16; 2],
    pub(crate) addend: u16,
}

impl AnchorHash {
    /// The hash of the four bytes at `at`.
    #[inline]
    pub(crate) fn of(self, bytes: &[u8], at: usize) -> u16 {
        let [a, b, c, d] = *bytes[at..].first_chunk().expect("four bytes are at a position");
        let first = u16::from_le_bytes([a, b]).wrapping_mul(self.factors[0]);
        let second = u16::from_le_bytes([c, d]).wrapping_mul(self.factors[1]);
        first.wrapping_add(second).wrapping_add(self.addend)
    }
}

/// Where the anchor of a block is, and a hash of the bytes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// Where in the block, at least [`SPAN`](Self::SPAN) before its end.
    pub(crate) at: u32,
    pub(crate) key: u32,
}

/// What makes an anchor in blocks of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnchorRule {
    /// What the hash of an anchor is less than; zero for none at all.
    limit: u16,
    /// How many positions of a block, from its start on, may be its anchor.
    places: usize,
}

impl Anchor {
    /// How many bytes its key is made of.
    pub(crate) const SPAN: usize = 32;
    /// The shortest block that has one.
    pub(crate) const SHORTEST: usize = 64;
}

impl AnchorRule {
    /// The rule for blocks of `block_len` bytes; those below [`Anchor::SHORTEST`] have no anchors.
    pub(crate) const fn new(block_len: usize) -> Self {
        if block_len < Anchor::SHORTEST {
            return Self::none();
        }
        let limit = (PER_BLOCK << 16) / block_len as u64;
        let limit = if limit < MOST as u64 { limit as u16 } else { MOST };
        // The longest blocks have more than they need.
        let limit = if limit == 0 { 1 } else { limit };
        Self { limit, places: block_len - Anchor::SPAN + 1 }
    }

    /// The rule by which no block has an anchor: then its first byte is all that is asked for.
    pub(crate) const fn none() -> Self {
        Self { limit: 0, places: 1 }
    }

    /// False when no block can have an anchor.
    pub(crate) const fn any(self) -> bool {
        self.limit > 0
    }

    /// How many positions of a block, from its start on, may be its anchor.
    pub(crate) const fn places(self) -> usize {
        self.places
    }

    /// The anchor of a full block.
    pub(crate) fn of(self, block: &[u8]) -> Option<Anchor> {
        if !self.any() {
            return None;
        }
        let (hash, at) = least(block, self.places);
        (hash < self.limit).then(|| Anchor { at: at as u32, key: key(&block[at..]) })
    }

    /// Appends to `found`, in order, the positions of `range` at which an anchor may stand; from each of them on, `bytes`
    /// has at least [`Anchor::SPAN`] bytes.
    /// As much of `ahead`, which is looked at next, is fetched into the cache meanwhile.
    #[cfg_attr(not(all(feature = "std", target_arch = "x86_64")), expect(unused_variables))]
    pub(crate) fn positions(self, bytes: &[u8], range: core::ops::Range<usize>, ahead: &[u8], found: &mut Vec<u32>) {
        if !self.any() {
            return;
        }
        debug_assert!(range.is_empty() || range.end - 1 + Anchor::SPAN <= bytes.len());
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        let range = lanes::positions_below(Lanes::detect(), bytes, range, HASH, self.limit, ahead, found);
        found.extend(range.filter(|at| HASH.of(bytes, *at) < self.limit).map(|at| at as u32));
    }
}

/// The least hash of the first `places` positions, and the leftmost of those that have it.
fn least(bytes: &[u8], places: usize) -> (u16, usize) {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    if let Some(found) = lanes::least(Lanes::detect(), bytes, places, HASH) {
        return found;
    }
    (0..places).map(|at| (HASH.of(bytes, at), at)).min().expect("a block has a position")
}

/// A hash of the first [`Anchor::SPAN`] bytes.
#[inline]
pub(crate) fn key(bytes: &[u8]) -> u32 {
    let span: &[u8; Anchor::SPAN] = bytes.first_chunk().expect("at least a span lies behind a position");
    let word = |i: usize| {
        let eight = span[8 * i..].first_chunk().expect("four words");
        u64::from_le_bytes(*eight)
    };
    let folded = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let left = folded(word(0) ^ 0x9e37_79b9_7f4a_7c15, word(1) ^ 0xbf58_476d_1ce4_e5b9);
    let right = folded(word(2) ^ 0x94d0_49bb_1331_11eb, word(3) ^ 0xd6e8_feb8_6659_fd93);
    ((left ^ right) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// By the definition, one position after another.
    fn slow_anchor(block: &[u8]) -> Option<u32> {
        let rule = AnchorRule::new(block.len());
        let hashes: Vec<u16> = (0..=block.len() - Anchor::SPAN).map(|at| HASH.of(block, at)).collect();
        let least = *hashes.iter().min().expect("a block has a position");
        let leftmost = hashes.iter().position(|hash| *hash == least).expect("it is one of them");
        (least < rule.limit).then_some(leftmost as u32)
    }

    fn check_anchor(block: &[u8]) {
        let anchor = AnchorRule::new(block.len()).of(block);
        assert_eq!(anchor.map(|anchor| anchor.at), slow_anchor(block), "{} bytes", block.len());
        if let Some(anchor) = anchor {
            assert_eq!(anchor.key, key(&block[anchor.at as usize..]));
        }
    }

    fn check_positions(bytes: &[u8], rule: AnchorRule, range: core::ops::Range<usize>) {
        let mut found = Vec::new();
        rule.positions(bytes, range.clone(), &[], &mut found);
        let slow: Vec<u32> = range.filter(|at| HASH.of(bytes, *at) < rule.limit).map(|at| at as u32).collect();
        assert_eq!(found, slow);
    }

    fn noise(len: usize) -> Vec<u8> {
        (0..len as u64)
            .map(|i| (i.wrapping_mul(i ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
            .collect()
    }

    #[test]
    fn anchors_of_blocks_around_the_width_of_the_lanes() {
        let bytes = noise(5000);
        for len in (64..400).chain([511, 512, 513, 575, 576, 1023, 1024, 1025, 4096, 5000]) {
            check_anchor(&bytes[..len]);
        }
        check_anchor(&b"ab".repeat(3000));
        check_anchor(&b"a longer pattern of bytes".repeat(300));
    }

    #[test]
    fn a_run_of_equal_bytes_has_no_anchor() {
        for byte in 0..=255 {
            for len in [64, 512, 4096] {
                assert_eq!(AnchorRule::new(len).of(&vec![byte; len]), None, "{len} times {byte}");
            }
        }
    }

    #[test]
    fn blocks_too_short_for_a_key_have_no_anchor() {
        assert!(!AnchorRule::new(Anchor::SHORTEST - 1).any() && AnchorRule::new(Anchor::SHORTEST).any());
        assert_eq!(AnchorRule::new(16).of(&noise(16)), None);
        let mut found = Vec::new();
        AnchorRule::none().positions(&noise(10_000), 0..9968, &[], &mut found);
        assert!(found.is_empty());
    }

    #[test]
    fn about_sixteen_positions_of_a_block_may_be_its_anchor() {
        let bytes = noise(1 << 20);
        for len in [1024, 4096, 32 << 10] {
            let mut found = Vec::new();
            AnchorRule::new(len).positions(&bytes, 0..bytes.len() - Anchor::SPAN, &[], &mut found);
            let a_block = found.len() * len / bytes.len();
            assert!((12..20).contains(&a_block), "{a_block} in a block of {len}");
        }
    }

    proptest! {
        #[test]
        fn an_anchor_is_the_leftmost_least(block in vec(any::<u8>(), 64..700), shift in 0u32..8) {
            check_anchor(&block.iter().map(|byte| byte >> shift).collect::<Vec<u8>>());
        }

        #[test]
        fn positions_are_those_under_the_limit(bytes in vec(any::<u8>(), 32..900), start in 0usize..900, block_len in 64usize..3000) {
            let end = bytes.len() - Anchor::SPAN + 1;
            check_positions(&bytes, AnchorRule::new(block_len), start.min(end)..end);
        }
    }
}
