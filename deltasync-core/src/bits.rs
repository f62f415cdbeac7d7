//! Numbers of any number of bits, packed without padding, and Rice codes for numbers that are mostly small.
//!
//! Bits fill each byte from the least significant one on. A Rice code with parameter k writes n as n >> k ones, a zero,
//! and the low k bits; of numbers whose mean is m the best k is near log2(m), and each then takes about k + 2 bits. A
//! quotient of [`ESCAPE`] or more is written as that many ones and the whole number in 64 bits, so that no number takes
//! more than 88.
//!
//! Invariant: what was written is read back; the last byte's spare bits are zero, and others are refused, so that equal
//! numbers have equal bytes.
//!
//! Source: R. F. Rice, "Some practical universal noiseless coding techniques" (1979).

use alloc::vec::Vec;

use crate::Malformed;

/// The quotient from which on a number stands there whole.
const ESCAPE: u32 = 24;

/// Packs bits behind the bytes of a buffer.
#[derive(Debug)]
pub struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    held: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    /// Begins at the end of `out`, with a new byte.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, held: 0, count: 0 }
    }

    /// Appends the low `bits` bits of `value`.
    ///
    /// # Panics
    ///
    /// When `bits` is over 64.
    pub fn bits(&mut self, value: u64, bits: u32) {
        assert!(bits <= 64, "{bits} bits of 64");
        if bits > 32 {
            self.few(value & 0xffff_ffff, 32);
            self.few(value >> 32 & mask(bits - 32), bits - 32);
        } else {
            self.few(value & mask(bits), bits);
        }
    }

    /// Appends `value` as a Rice code with parameter `rice`, at most 63.
    pub fn rice(&mut self, value: u64, rice: u32) {
        let quotient = value >> rice;
        if quotient >= u64::from(ESCAPE) {
            self.few(mask(ESCAPE), ESCAPE);
            self.bits(value, 64);
        } else {
            let ones = quotient as u32;
            self.few(mask(ones), ones + 1);
            self.bits(value, rice);
        }
    }

    /// Fills the last byte with zeros.
    pub fn finish(mut self) {
        if self.count > 0 {
            self.out.push(self.held as u8);
            self.count = 0;
        }
    }

    /// At most 32 bits.
    fn few(&mut self, value: u64, bits: u32) {
        self.held |= value << self.count;
        self.count += bits;
        while self.count >= 8 {
            self.out.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }
}

/// The Rice parameter that suits numbers whose sum is `sum`, `count` of them: a table of no size, known to both ends.
pub fn rice_for(sum: u64, count: u64) -> u32 {
    let mean = sum.checked_div(count).unwrap_or(0);
    // The quotient then is 1 to 2 on average, a little less than the best for geometric numbers and never far off.
    (mean - mean / 4).checked_ilog2().unwrap_or(0)
}

/// Reads what a [`BitWriter`] packed.
#[derive(Clone, Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    /// Begins at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `bits` bits, at most 64.
    ///
    /// # Errors
    ///
    /// [`Malformed::Truncated`] when fewer are left.
    pub fn bits(&mut self, bits: u32) -> Result<u64, Malformed> {
        let end = self.at + bits as usize;
        if bits > 64 || end > self.bytes.len() * 8 {
            return Err(Malformed::Truncated);
        }
        let (mut value, mut got) = (0, 0);
        while got < bits {
            let within = self.at as u32 % 8;
            let take = (8 - within).min(bits - got);
            let part = u64::from(self.bytes[self.at / 8] >> within) & mask(take);
            value |= part << got;
            got += take;
            self.at += take as usize;
        }
        Ok(value)
    }

    /// The next number, written with parameter `rice`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when the bytes end within it, or it should have been written otherwise.
    pub fn rice(&mut self, rice: u32) -> Result<u64, Malformed> {
        let mut quotient = 0;
        while quotient < ESCAPE && self.bits(1)? == 1 {
            quotient += 1;
        }
        if quotient == ESCAPE {
            let value = self.bits(64)?;
            let shorter = value >> rice < u64::from(ESCAPE);
            return if shorter { Err(Malformed::Value("a number is not in its shortest form")) } else { Ok(value) };
        }
        Ok(u64::from(quotient) << rice | self.bits(rice)?)
    }

    /// What follows the byte that holds the last bit read.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when that byte's spare bits are not zero.
    pub fn finish(self) -> Result<&'a [u8], Malformed> {
        let spare = self.at % 8;
        if spare > 0 && self.bytes[self.at / 8] >> spare != 0 {
            return Err(Malformed::Value("spare bits are not zero"));
        }
        Ok(&self.bytes[self.at.div_ceil(8)..])
    }

    /// How many bits are left.
    pub const fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }
}

const fn mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn check_read_back(numbers: &[(u64, u32, bool)]) {
        let mut bytes = alloc::vec![7];
        let mut writer = BitWriter::new(&mut bytes);
        for (value, bits, is_rice) in numbers {
            if *is_rice { writer.rice(*value, *bits) } else { writer.bits(*value, *bits) }
        }
        writer.finish();
        bytes.push(9);
        let mut reader = BitReader::new(&bytes[1..]);
        for (value, bits, is_rice) in numbers {
            if *is_rice {
                assert_eq!(reader.rice(*bits), Ok(*value));
            } else {
                assert_eq!(reader.bits(*bits), Ok(*value & mask(*bits)));
            }
        }
        assert_eq!(reader.finish(), Ok(&[9][..]));
    }

    #[test]
    fn what_was_written_is_read_back_at_the_edges() {
        check_read_back(&[]);
        check_read_back(&[(u64::MAX, 64, false), (1, 1, false), (u64::MAX, 63, true), (u64::MAX, 0, true)]);
        check_read_back(&[(23, 0, true), (24, 0, true), (0, 0, false), (0, 63, true)]);
    }

    #[test]
    fn what_nobody_writes_is_refused() {
        assert_eq!(BitReader::new(&[]).bits(1), Err(Malformed::Truncated));
        let mut reader = BitReader::new(&[0b110]);
        assert_eq!(reader.bits(1), Ok(0));
        assert!(matches!(reader.finish(), Err(Malformed::Value(_))));
        let mut long = alloc::vec![0xff; 3];
        long.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(BitReader::new(&long).rice(3), Err(Malformed::Value(_))));
    }

    #[test]
    fn numbers_of_a_known_mean_take_little_more_than_their_entropy() {
        // Gaps between 1,000 places drawn among 1,000,000: their entropy is 11.4 bits each.
        let (mut state, mut gaps) = (1u64, Vec::new());
        for _ in 0..1000 {
            state = state.wrapping_mul(0xda94_2042_e4dd_58b5).wrapping_add(1);
            let unit = ((state >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
            // ln by its series is good enough to draw geometric numbers.
            let ln = (1..200).fold(0.0, |sum, n| sum - (1.0 - unit).powi(n) / f64::from(n));
            gaps.push((-ln * 1000.0) as u64);
        }
        let mut bytes = Vec::new();
        let mut writer = BitWriter::new(&mut bytes);
        let rice = rice_for(gaps.iter().sum(), 1000);
        gaps.iter().for_each(|gap| writer.rice(*gap, rice));
        writer.finish();
        assert!(bytes.len() < 1500, "{} bytes", bytes.len());
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(numbers in vec((any::<u64>(), 0u32..64, any::<bool>()), 0..50)) {
            check_read_back(&numbers);
        }
    }
}
