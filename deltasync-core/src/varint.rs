//! Unsigned integers in 7-bit groups, least significant first (LEB128), as every varint of ours is written.
//!
//! One to ten bytes for 64 bits; the top bit of a byte says that another follows. Signed values are zigzagged first
//! (0, -1, 1, -2 become 0, 1, 2, 3). Only the shortest form is accepted, so that equal values have equal bytes.

use alloc::vec::Vec;

/// Appends `value`.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed value, zigzagged.
pub fn write_signed(out: &mut Vec<u8>, value: i64) {
    write_varint(out, (value << 1 ^ value >> 63) as u64);
}

/// Why bytes are not what a reader expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The bytes end within a value.
    #[error("bytes end within a value")]
    Truncated,
    /// A varint is longer than its shortest form, or passes 64 bits.
    #[error("varint is not in its shortest form or passes 64 bits")]
    Varint,
    /// Bytes are left over after the last value.
    #[error("{0} bytes left over after the last value")]
    Trailing(usize),
    /// A value that must not stand here; the text says which.
    #[error("{0}")]
    Value(&'static str),
}

/// Reads values off the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True when everything has been read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed::Truncated`] when fewer are left.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    ///
    /// [`Malformed::Truncated`] when fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next byte.
    ///
    /// # Errors
    ///
    /// [`Malformed::Truncated`] when none is left.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    /// The next varint.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when the bytes end within it or it is not in its shortest form.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 || shift > 0 && byte == 0 {
                return Err(Malformed::Varint);
            }
            value |= group << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint)
    }

    /// The next signed varint.
    ///
    /// # Errors
    ///
    /// As [`Reader::varint`].
    pub fn signed(&mut self) -> Result<i64, Malformed> {
        self.varint().map(|raw| (raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// `Ok` when everything has been read.
    ///
    /// # Errors
    ///
    /// [`Malformed::Trailing`] otherwise.
    pub const fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing(self.rest.len())) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_round_trip(value: u64) {
        let mut bytes = Vec::new();
        write_varint(&mut bytes, value);
        write_signed(&mut bytes, value as i64);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.varint(), Ok(value));
        assert_eq!(reader.signed(), Ok(value as i64));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn values_round_trip_at_every_length() {
        for bits in 0..64 {
            check_round_trip((1 << bits) - 1);
            check_round_trip(1 << bits);
        }
        check_round_trip(u64::MAX);
    }

    #[test]
    fn only_the_shortest_form_is_read() {
        assert_eq!(Reader::new(&[0x80, 0]).varint(), Err(Malformed::Varint));
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(Malformed::Varint));
        assert_eq!(Reader::new(&[0x80; 3]).varint(), Err(Malformed::Truncated));
        let two_to_64 = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2];
        assert_eq!(Reader::new(&two_to_64).varint(), Err(Malformed::Varint));
    }

    proptest! {
        #[test]
        fn any_value_round_trips(value: u64) {
            check_round_trip(value);
        }
    }
}
