//! Fine sums: short hashes of the small blocks of an old gap, that roll and confirm in one.
//!
//! A block b[0..n] is summed as a polynomial over the field of 2^61 - 1 elements, at a point that is secret until the
//! bytes are fixed: the sum of (b[i] + 1) k^(n-1-i). Two different blocks of one length have equal sums with a
//! probability of n / 2^61 over the choice of k, whoever made them; what travels are the low bits of a sum, and two
//! different blocks share those about once in 2^bits. Sliding by a byte is one multiplication. So one number is both weak
//! and strong sum, and may be as short as the place where it is compared allows, see [`FineShape::for_gaps`].
//!
//! Cost: a quarter of a nanosecond a byte afresh, an eighth for whole short blocks in SIMD lanes, one to two rolling, and
//! some microseconds for the tables of a key.
//!
//! Invariant: any split of a stretch gives the same sums, and rolling gives what summing afresh gives.
//!
//! Source: R. M. Karp, M. O. Rabin, "Efficient randomized pattern-matching algorithms" (1987), over a Mersenne prime.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::bits::{BitReader, BitWriter};
#[cfg(all(target_arch = "x86_64", feature = "std"))]
use crate::simd::{Lanes, fine::BlockSums};
use crate::{LimitExceeded, Malformed};

/// The order of the field, 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

/// The secret point at which blocks are summed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FineKey {
    point: u64,
}

impl FineKey {
    /// The key of transfer number `transfer` on a connection whose ends drew these nonces.
    pub fn new(client: &[u8; 16], server: &[u8; 16], transfer: u32) -> Self {
        let mut material = [0; 36];
        material[..16].copy_from_slice(client);
        material[16..32].copy_from_slice(server);
        material[32..].copy_from_slice(&transfer.to_le_bytes());
        Self::of(&blake3::derive_key("deltasync 2026 fine sums v2", &material))
    }

    /// The key for sums that are kept, from a secret that is kept with them.
    pub fn kept(secret: &[u8; 32]) -> Self {
        Self::of(&blake3::derive_key("deltasync 2026 kept sums v1", secret))
    }

    fn of(bytes: &[u8; 32]) -> Self {
        let (words, _) = bytes.as_chunks();
        // Far from 0 and 1, at which a sum would say little.
        Self { point: u64::from_le_bytes(words[0]) % (PRIME - (1 << 32)) + (1 << 32) }
    }
}

/// Without the point itself.
impl core::fmt::Debug for FineKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FineKey").finish_non_exhaustive()
    }
}

/// How the blocks of a transfer are summed: how long they are, and how many bits of a sum travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FineShape {
    block: u32,
    bits: u32,
}

impl FineShape {
    /// The shortest block, in bytes.
    pub const SHORTEST: u32 = 16;
    /// The longest block, in bytes.
    pub const LONGEST: u32 = 1 << 24;
    /// The most bits of a sum.
    pub const BITS_MAX: u32 = 56;

    /// The shape of sums that are kept beside a file: 4 bytes for 96.
    pub const KEPT: Self = Self { block: 96, bits: 32 };

    /// Blocks of `block` bytes of whose sums `bits` bits travel.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] when the block is not from [`FineShape::SHORTEST`] to [`FineShape::LONGEST`] or the bits are
    /// not from 1 to [`FineShape::BITS_MAX`].
    pub fn new(block: u32, bits: u32) -> Result<Self, LimitExceeded> {
        let check = |what, wanted: u32, most: u32| LimitExceeded::check(what, wanted.into(), most.into());
        check("shortest fine block", Self::SHORTEST, block)?;
        check("fine block", block, Self::LONGEST)?;
        check("bits of a fine sum", bits.wrapping_sub(1), Self::BITS_MAX - 1)?;
        Ok(Self { block, bits })
    }

    /// The shape that costs the fewest bytes for `gaps` gaps of `bytes` bytes in all, when literals compress to `ratio`
    /// 1024ths.
    ///
    /// A gap of G bytes costs bits/8 G/block for sums and about a block of literals where its edit begins and ends, so
    /// the best block is the root of G bits/8 over the ratio. The bits are chosen so that fewer than one transfer in a
    /// thousand takes a false match: a gap offers about two places where a single sum decides (behind the last true
    /// match on either side), every block one where two in a row do, every pair of offset and block one for three.
    pub fn for_gaps(gaps: u64, bytes: u64, ratio: u32) -> Self {
        let (gaps, bytes) = (gaps.max(1), bytes.max(1));
        let log = |value: u64| u64::BITS - value.saturating_sub(1).leading_zeros();
        // A long gap may hold many edits.
        let ones = log(gaps.max(bytes / 16_384)) + 13;
        // As if blocks were the shortest: a few bits too many, never too few.
        let blocks = log(bytes / u64::from(Self::SHORTEST)).max(1);
        let bits = ones.max((blocks + 11).div_ceil(2)).max((blocks + log(bytes) + 11).div_ceil(3));
        let bits = bits.min(Self::BITS_MAX);
        let square = u128::from(bytes / gaps) * u128::from(bits) * 128 / u128::from(ratio.clamp(32, 4096));
        let block = u64::try_from(square).unwrap_or(u64::MAX).isqrt();
        Self { block: block.clamp(32, Self::LONGEST.into()) as u32, bits }
    }

    /// The same bits of blocks so long that `bytes` bytes have no more than `sums` of them, not counting those that are cut
    /// short, where a block can be so long.
    #[must_use]
    pub fn with_sums_at_most(self, sums: u64, bytes: u64) -> Self {
        let block = bytes.div_ceil(sums.max(1)).min(Self::LONGEST.into()) as u32;
        Self { block: self.block.max(block), ..self }
    }

    /// The same blocks with at most `bits` bits of each sum, so that tests see false matches and their repair.
    #[doc(hidden)]
    #[must_use]
    pub fn with_bits_at_most(self, bits: u32) -> Self {
        Self { bits: self.bits.min(bits.max(1)), ..self }
    }

    /// The length of a block, in bytes.
    pub const fn block(self) -> usize {
        self.block as usize
    }

    /// How many bits of a sum travel.
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// How many sums a stretch of `len` bytes has: its last block may be shorter.
    pub const fn sums_of(self, len: u64) -> u64 {
        len.div_ceil(self.block as u64)
    }

    const fn mask(self) -> u64 {
        (1 << self.bits) - 1
    }
}

/// Sums blocks under one key and shape, afresh or rolling.
#[derive(Clone, Debug)]
pub(crate) struct Polynomial {
    shape: FineShape,
    point: u64,
    /// k to the powers 8, 16, 24 and 32.
    steps: [u64; 4],
    /// For each place in a word of 8 bytes, and each byte there, what it adds: a look-up is cheaper than a wide product.
    worth: Box<[[u64; 256]; 8]>,
    /// For each byte what its leaving a rolling window adds, and the 1 that belongs to the byte that enters.
    leaving: Box<[u64; 256]>,
}

impl Polynomial {
    pub(crate) fn new(key: FineKey, shape: FineShape) -> Self {
        let power = |exponent| power(key.point, exponent);
        let worth = core::array::from_fn(|i| {
            let power = power(7 - i);
            core::array::from_fn(|byte| multiply(power, byte as u64 + 1))
        });
        let first = power(shape.block());
        let leaving = core::array::from_fn(|byte| PRIME - multiply(first, byte as u64 + 1) + 1);
        let steps = [8, 16, 24, 32].map(power);
        Self { shape, point: key.point, steps, worth: Box::new(worth), leaving: Box::new(leaving) }
    }

    pub(crate) const fn shape(&self) -> FineShape {
        self.shape
    }

    /// The same sums of whole blocks in lanes, where that can be.
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    pub(crate) fn block_sums(&self, lanes: Lanes) -> Option<BlockSums> {
        BlockSums::new(lanes, self.point, self.shape)
    }

    /// The whole sum of any bytes, before it is cut to its bits.
    pub(crate) fn fresh(&self, bytes: &[u8]) -> u64 {
        self.append(0, bytes)
    }

    /// The whole sum of bytes whose start has the whole sum `sum`.
    pub(crate) fn append(&self, sum: u64, bytes: &[u8]) -> u64 {
        let (words, rest) = bytes.as_chunks::<8>();
        let (fours, words) = words.as_chunks::<4>();
        let [step, step2, step3, step4] = self.steps.map(u128::from);
        let mut sum = sum;
        // One reduction after another is what takes time, so there is one for four words.
        for [a, b, c, d] in fours {
            let [a, b, c, d] = [a, b, c, d].map(|word| u128::from(self.word(word)));
            sum = reduce(u128::from(sum) * step4 + (a * step3 + b * step2 + (c * step + d)));
        }
        for word in words {
            sum = reduce(u128::from(sum) * step + u128::from(self.word(word)));
        }
        rest.iter().fold(sum, |sum, byte| reduce(u128::from(sum) * u128::from(self.point) + u128::from(*byte) + 1))
    }

    /// Appends what travels of the sums of all windows of a block in `bytes`, of which there is at least one.
    pub(crate) fn roll_over(&self, bytes: &[u8], out: &mut Vec<u64>) {
        let block = self.shape.block();
        let count = bytes.len() - block + 1;
        let done = out.len();
        out.resize(done + count, 0);
        // Each sum waits for the one before it, so four stretches of windows take turns where that is worth their starts.
        let lane = if count < 4 * block { 0 } else { count / 4 };
        let (lanes, last) = out[done..].split_at_mut(4 * lane);
        if lane > 0 {
            let (ab, cd) = lanes.split_at_mut(2 * lane);
            let ((a, b), (c, d)) = (ab.split_at_mut(lane), cd.split_at_mut(lane));
            self.roll_lanes(bytes, [a, b, c, d]);
        }
        let bytes = &bytes[4 * lane..];
        if let Some((first, last)) = last.split_first_mut() {
            let (start, entering) = bytes.split_at(block);
            let mut sum = self.fresh(start);
            *first = self.cut(sum);
            for (out, (leaving, entering)) in last.iter_mut().zip(bytes.iter().zip(entering)) {
                sum = self.roll_lazily(sum, *leaving, *entering);
                *out = self.cut(canonical(sum));
            }
        }
    }

    /// Fills four stretches of one length, one after another, with the sums of the windows in `bytes`.
    fn roll_lanes(&self, bytes: &[u8], [a, b, c, d]: [&mut [u64]; 4]) {
        let (block, lane) = (self.shape.block(), a.len());
        let windows = |nth: usize| &bytes[nth * lane..nth * lane + lane - 1 + block];
        let start = |nth: usize| self.fresh(&windows(nth)[..block]);
        let old = |nth: usize| &windows(nth)[..lane - 1];
        let new = |nth: usize| &windows(nth)[block..];
        // As single variables, which stay in registers.
        let (mut sum_a, mut sum_b, mut sum_c, mut sum_d) = (start(0), start(1), start(2), start(3));
        let [(a, last_a), (b, last_b), (c, last_c), (d, last_d)] = [a, b, c, d].map(|out| out.split_at_mut(lane - 1));
        let put = |sum: u64| self.cut(canonical(sum));
        let from_a = a.iter_mut().zip(old(0)).zip(new(0));
        let from_b = b.iter_mut().zip(old(1)).zip(new(1));
        let from_c = c.iter_mut().zip(old(2)).zip(new(2));
        let from_d = d.iter_mut().zip(old(3)).zip(new(3));
        for (((a, b), c), d) in from_a.zip(from_b).zip(from_c).zip(from_d) {
            let step = |out: &mut u64, sum: u64, old: u8, new: u8| {
                *out = put(sum);
                self.roll_lazily(sum, old, new)
            };
            sum_a = step(a.0.0, sum_a, *a.0.1, *a.1);
            sum_b = step(b.0.0, sum_b, *b.0.1, *b.1);
            sum_c = step(c.0.0, sum_c, *c.0.1, *c.1);
            sum_d = step(d.0.0, sum_d, *d.0.1, *d.1);
        }
        for (out, sum) in [(last_a, sum_a), (last_b, sum_b), (last_c, sum_c), (last_d, sum_d)] {
            out[0] = put(sum);
        }
    }

    /// The whole sum of the window one byte further on.
    #[cfg(test)]
    fn roll(&self, sum: u64, leaving: u8, entering: u8) -> u64 {
        canonical(self.roll_lazily(sum, leaving, entering))
    }

    /// What travels of a whole sum.
    #[inline]
    pub(crate) const fn cut(&self, sum: u64) -> u64 {
        sum & self.shape.mask()
    }

    /// A number at most 3 above the field that stands for the sum of the window one byte further on; so may `sum` be.
    #[inline]
    fn roll_lazily(&self, sum: u64, leaving: u8, entering: u8) -> u64 {
        // Shifted so that what is above 2^61 is the upper word.
        let wide = u128::from(sum) * u128::from(self.point << 3);
        let change = self.leaving[usize::from(leaving)] + u64::from(entering);
        let sum = (wide >> 64) as u64 + (wide as u64 >> 3) + change;
        (sum & PRIME) + (sum >> 61)
    }

    /// What a word adds, at most 7 above the field.
    #[inline]
    fn word(&self, word: &[u8; 8]) -> u64 {
        // Eight numbers of the field fit 64 bits.
        let sum = word.iter().zip(self.worth.iter()).fold(0, |sum, (byte, worth)| sum + worth[usize::from(*byte)]);
        (sum & PRIME) + (sum >> 61)
    }
}

/// Sums the blocks of one stretch after another.
#[derive(Clone, Debug)]
pub struct FineSummer {
    polynomial: Polynomial,
    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    blocks: Option<BlockSums>,
    sums: Vec<u64>,
    sum: u64,
    /// How many bytes of the open block are in `sum`.
    filled: usize,
}

impl FineSummer {
    /// A summer at the start of a stretch.
    pub fn new(key: FineKey, shape: FineShape) -> Self {
        let polynomial = Polynomial::new(key, shape);
        Self {
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            blocks: polynomial.block_sums(Lanes::detect()),
            polynomial,
            sums: Vec::new(),
            sum: 0,
            filled: 0,
        }
    }

    /// Takes in the next bytes of the stretch.
    pub fn push(&mut self, mut bytes: &[u8]) {
        let block = self.polynomial.shape().block();
        while !bytes.is_empty() {
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            if let Some(blocks) = &self.blocks
                && self.filled == 0
                && bytes.len() >= block
            {
                let (whole, rest) = bytes.split_at(bytes.len() / block * block);
                blocks.each(whole, block, |sum| self.sums.push(self.polynomial.cut(sum)));
                bytes = rest;
                continue;
            }
            let (head, rest) = bytes.split_at(bytes.len().min(block - self.filled));
            self.sum = self.polynomial.append(self.sum, head);
            self.filled += head.len();
            bytes = rest;
            if self.filled == block {
                self.end();
            }
        }
    }

    /// Ends the stretch; its last block may be shorter.
    pub fn end(&mut self) {
        if self.filled > 0 {
            self.sums.push(self.polynomial.cut(self.sum));
            (self.sum, self.filled) = (0, 0);
        }
    }

    /// Ends the stretch and gives away the sums since they were last taken, each the number of bits of the shape.
    pub fn take(&mut self) -> Vec<u64> {
        self.end();
        core::mem::take(&mut self.sums)
    }

    /// The sums of all stretches that were not taken, each the number of bits of the shape.
    pub fn finish(mut self) -> Vec<u64> {
        self.take()
    }
}

/// Appends sums as they travel, `shape.bits()` bits each.
pub fn write_sums(sums: &[u64], shape: FineShape, out: &mut Vec<u8>) {
    let mut writer = BitWriter::new(out);
    sums.iter().for_each(|sum| writer.bits(*sum, shape.bits()));
    writer.finish();
}

/// Reads `count` sums, and returns what follows them.
///
/// # Errors
///
/// [`Malformed`] when the bytes do not hold them.
///
/// # Security
///
/// Allocates 8 bytes for each sum that the bytes at hand can hold.
pub fn read_sums(bytes: &[u8], count: u64, shape: FineShape) -> Result<(Vec<u64>, &[u8]), Malformed> {
    let mut reader = BitReader::new(bytes);
    if count > (reader.left() / shape.bits() as usize) as u64 {
        return Err(Malformed::Truncated);
    }
    let sums = (0..count).map(|_| reader.bits(shape.bits())).collect::<Result<_, _>>()?;
    Ok((sums, reader.finish()?))
}

/// The product, in the field.
pub(crate) fn multiply(a: u64, b: u64) -> u64 {
    reduce(u128::from(a) * u128::from(b))
}

/// The power, in the field.
fn power(base: u64, exponent: usize) -> u64 {
    // From the highest bit down.
    let bits = (0..usize::BITS - exponent.leading_zeros()).rev().map(|bit| exponent >> bit & 1);
    bits.fold(1, |power, bit| {
        let square = multiply(power, power);
        if bit == 1 { multiply(square, base) } else { square }
    })
}

/// A number below 3 * 2^123, in the field.
#[inline]
pub(crate) const fn reduce(wide: u128) -> u64 {
    let folded = (wide as u64 & PRIME) + (wide >> 61) as u64;
    canonical((folded & PRIME) + (folded >> 61))
}

/// A number below twice the order, in the field.
#[inline]
const fn canonical(sum: u64) -> u64 {
    if sum >= PRIME { sum - PRIME } else { sum }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn key() -> FineKey {
        FineKey::new(&[1; 16], &[2; 16], 3)
    }

    /// The sum by its definition.
    fn naive(key: FineKey, bytes: &[u8]) -> u64 {
        let times = |sum: u64| u128::from(sum) * u128::from(key.point) % u128::from(PRIME);
        bytes.iter().fold(0, |sum, byte| ((times(sum) + u128::from(*byte) + 1) % u128::from(PRIME)) as u64)
    }

    fn check_fresh_equals_definition(bytes: &[u8]) {
        let polynomial = Polynomial::new(key(), FineShape::KEPT);
        assert_eq!(polynomial.fresh(bytes), naive(key(), bytes), "{} bytes", bytes.len());
    }

    fn check_rolling_equals_fresh(data: &[u8], block: u32) {
        let polynomial = Polynomial::new(key(), FineShape::new(block, 20).expect("in range"));
        let len = block as usize;
        let mut sum = polynomial.fresh(&data[..len]);
        for start in 1..=data.len() - len {
            sum = polynomial.roll(sum, data[start - 1], data[start + len - 1]);
            assert_eq!(sum, polynomial.fresh(&data[start..start + len]), "start={start}");
        }
        let windows: Vec<u64> = data.windows(len).map(|window| polynomial.cut(polynomial.fresh(window))).collect();
        let mut rolled = vec![7];
        polynomial.roll_over(data, &mut rolled);
        assert_eq!((rolled[0], &rolled[1..]), (7, &windows[..]));
    }

    /// What a summer gives, by whichever way it goes, is the definition of each block.
    fn check_blocks_equal_definition(data: &[u8], shape: FineShape) {
        let mut summer = FineSummer::new(key(), shape);
        summer.push(data);
        let expected: Vec<u64> = data.chunks(shape.block()).map(|block| naive(key(), block) & shape.mask()).collect();
        assert_eq!(summer.finish(), expected, "{shape:?}, {} bytes", data.len());
    }

    fn check_any_split_sums_alike(data: &[u8], cuts: &[usize], shape: FineShape) {
        let whole = {
            let mut summer = FineSummer::new(key(), shape);
            summer.push(data);
            summer.finish()
        };
        assert_eq!(whole.len() as u64, shape.sums_of(data.len() as u64));
        let mut summer = FineSummer::new(key(), shape);
        let mut at = 0;
        for cut in cuts {
            let end = data.len().min(at + cut);
            summer.push(&data[at..end]);
            at = end;
        }
        summer.push(&data[at..]);
        assert_eq!(summer.finish(), whole);
        let mut bytes = vec![];
        write_sums(&whole, shape, &mut bytes);
        assert_eq!(bytes.len(), (whole.len() * shape.bits() as usize).div_ceil(8));
        bytes.push(7);
        assert_eq!(read_sums(&bytes, whole.len() as u64, shape), Ok((whole, &[7][..])));
    }

    #[test]
    fn fresh_equals_definition_around_a_word_and_on_the_largest_bytes() {
        let data: Vec<u8> = (0..100u32).map(|i| (i * 151 + 7) as u8).collect();
        for len in [0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 63, 64, 100] {
            check_fresh_equals_definition(&data[..len]);
            check_fresh_equals_definition(&vec![255; len]);
        }
        check_rolling_equals_fresh(&[255; 300], 64);
        for len in (16..150).chain([300, 301, 302, 303]) {
            check_rolling_equals_fresh(&data.repeat(4)[..len], 16);
        }
    }

    #[test]
    fn blocks_equal_definition_around_the_longest_in_lanes_and_on_the_largest_bytes() {
        let data: Vec<u8> = (0..3000u32).map(|i| (i * 151 + i / 256) as u8).collect();
        for block in [16, 17, 31, 96, 97, 511, 512, 513] {
            let shape = FineShape::new(block, 56).expect("in range");
            for data in [&data[..], &data[..block as usize], &[255; 1100], &[]] {
                check_blocks_equal_definition(data, shape);
            }
        }
    }

    #[test]
    fn bits_grow_with_what_is_compared_and_blocks_with_what_they_cost() {
        let one = FineShape::for_gaps(1, 10_000, 1024);
        assert_eq!((one.bits(), one.block()), (13, 127));
        let many = FineShape::for_gaps(200, 200 * 9000, 1024);
        assert_eq!((many.bits(), many.block()), (21, 153));
        assert!(FineShape::for_gaps(200, 200 * 9000, 256).block() > 2 * many.block() - 20, "what compresses is cheap");
        let huge = FineShape::for_gaps(1, 1 << 40, 1024);
        assert!(huge.bits() >= 28 && huge.block() > 1 << 20, "{huge:?}");
        let _ = FineShape::for_gaps(0, 0, 0);
        let _ = FineShape::for_gaps(u64::MAX, u64::MAX, u32::MAX);
    }

    #[test]
    fn a_shape_out_of_range_is_refused() {
        for (block, bits) in [(0, 20), (15, 20), ((1 << 24) + 1, 20), (64, 0), (64, 57)] {
            assert!(FineShape::new(block, bits).is_err(), "{block}, {bits}");
        }
        assert!(FineShape::new(16, 1).is_ok() && FineShape::new(1 << 24, 56).is_ok());
        assert_eq!(read_sums(&[0; 10], 5, FineShape::new(16, 20).expect("valid")), Err(Malformed::Truncated));
    }

    #[test]
    fn keys_differ_by_all_they_are_made_of() {
        let keys = [
            FineKey::new(&[1; 16], &[2; 16], 3),
            FineKey::new(&[2; 16], &[1; 16], 3),
            FineKey::new(&[1; 16], &[2; 16], 4),
            FineKey::kept(&[1; 32]),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b), "key {i}");
        }
    }

    proptest! {
        #[test]
        fn fresh_equals_definition(bytes in vec(any::<u8>(), 0..300)) {
            check_fresh_equals_definition(&bytes);
        }

        #[test]
        fn rolling_equals_fresh(data in vec(any::<u8>(), 64..512), block in 16u32..64) {
            check_rolling_equals_fresh(&data, block);
        }

        #[test]
        fn blocks_equal_definition(data in vec(any::<u8>(), 0..2000), block in 16u32..600, bits in 1u32..57) {
            check_blocks_equal_definition(&data, FineShape::new(block, bits).expect("in range"));
        }

        #[test]
        fn any_split_sums_alike(
            data in vec(any::<u8>(), 0..600),
            cuts in vec(0usize..200, 0..6),
            block in 16u32..100,
            bits in 1u32..57,
        ) {
            check_any_split_sums_alike(&data, &cuts, FineShape::new(block, bits).expect("in range"));
        }
    }
}
