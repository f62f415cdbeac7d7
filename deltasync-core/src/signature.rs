//! The signature of a basis: what the holder of the target needs to find out which blocks it shares.
//!
//! The basis is cut into blocks of one length (the last may be shorter), and of each block the signature holds the weak
//! sum and a truncated digest, the strong sum. Neither grows with the content, so a signature is about (4 + strong
//! length) / block length of the basis: 1 GiB has one of 480 KiB by default.
//!
//! | field | bytes | |
//! |---|---|---|
//! | opening | 6 | `D5 's' 'i' 'g'`, version, algorithm |
//! | strong length | 1 | in bytes, 8 to 32 |
//! | basis length | varint | in bytes |
//! | block length | varint | in bytes, 16 to 2^24 |
//! | weak sums | 4 a block | little-endian |
//! | strong sums | strong length a block | |
//!
//! Invariant: `decode(encode(signature)) == signature`, and a signature has one strong and one weak sum for each block.
//!
//! Source: A. Tridgell, "Efficient Algorithms for Sorting and Synchronization" (1999), chapter 3.

use alloc::vec::Vec;

use crate::opening::{read_opening, write_opening};
use crate::{Algorithm, ByteLen, Digest, FileFormat, InvalidOpening, LimitExceeded, Limits, Malformed, Offset};
use crate::{Reader, write_varint};

/// The weak and strong sums of all blocks of a basis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub(crate) shape: Shape,
    pub(crate) weak: Vec<u32>,
    /// The strong sums one after another, each `shape.strong_len` bytes.
    pub(crate) strong: Vec<u8>,
}

/// What does not depend on the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) algorithm: Algorithm,
    pub(crate) basis: ByteLen,
    pub(crate) block_len: usize,
    pub(crate) strong_len: usize,
}

impl Signature {
    /// The shortest and longest block, in bytes.
    pub const BLOCK_LENS: core::ops::RangeInclusive<usize> = 16..=1 << 24;
    /// The shortest and longest strong sum, in bytes.
    pub const STRONG_LENS: core::ops::RangeInclusive<usize> = 8..=Digest::LEN;

    /// The longest encoding that `limits` allow, in bytes: who reads one from a file may stop there.
    pub fn longest(limits: &Limits) -> ByteLen {
        let block = 4 + Digest::LEN as u64;
        ByteLen::new(block.saturating_mul(limits.chunks as u64).saturating_add(32))
    }

    /// Which hash function made the strong sums.
    pub const fn algorithm(&self) -> Algorithm {
        self.shape.algorithm
    }

    /// The length of the basis.
    pub const fn basis(&self) -> ByteLen {
        self.shape.basis
    }

    /// The length of every block but the last, in bytes.
    pub const fn block_len(&self) -> usize {
        self.shape.block_len
    }

    /// The length of a strong sum, in bytes.
    pub const fn strong_len(&self) -> usize {
        self.shape.strong_len
    }

    /// How many blocks the basis has, a shorter last one counted.
    pub const fn len(&self) -> usize {
        self.weak.len()
    }

    /// True for the signature of an empty basis.
    pub const fn is_empty(&self) -> bool {
        self.weak.is_empty()
    }

    /// The weak sum of a block.
    pub(crate) fn weak(&self, block: usize) -> u32 {
        self.weak[block]
    }

    /// The strong sum of a block.
    pub(crate) fn strong(&self, block: usize) -> &[u8] {
        &self.strong[block * self.shape.strong_len..][..self.shape.strong_len]
    }

    /// Where a block starts in the basis.
    pub(crate) fn start(&self, block: usize) -> Offset {
        Offset::new(block as u64 * self.shape.block_len as u64)
    }

    /// How many blocks have the full length.
    pub(crate) fn full_blocks(&self) -> usize {
        self.weak.len() - usize::from(self.tail_len() > 0)
    }

    /// The length of the shorter last block; zero when there is none.
    pub(crate) const fn tail_len(&self) -> usize {
        // Less than a block, which is a usize.
        (self.shape.basis.get() % self.shape.block_len as u64) as usize
    }

    /// How long [`encode`](Self::encode) makes it, in bytes.
    pub fn encoded_len(&self) -> usize {
        let mut head = Vec::new();
        self.encode_head(&mut head);
        head.len() + 4 * self.weak.len() + self.strong.len()
    }

    /// Appends the bytes that [`decode`](Self::decode) reads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        self.encode_head(out);
        self.weak.iter().for_each(|weak| out.extend_from_slice(&weak.to_le_bytes()));
        out.extend_from_slice(&self.strong);
    }

    fn encode_head(&self, out: &mut Vec<u8>) {
        write_opening(FileFormat::Signature, self.shape.algorithm, out);
        out.push(self.shape.strong_len as u8);
        write_varint(out, self.shape.basis.get());
        write_varint(out, self.shape.block_len as u64);
    }

    /// Reads a signature that [`encode`](Self::encode) wrote; it must end where the bytes end.
    ///
    /// # Errors
    ///
    /// [`InvalidSignature`] when the bytes are no signature, are damaged, or hold more than `limits` allow.
    ///
    /// # Security
    ///
    /// Takes hostile bytes: counts meet the limits and the bytes at hand before anything is allocated, and sums are only
    /// numbers. A signature that lies about its basis makes a delta that does not verify.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, InvalidSignature> {
        let mut reader = Reader::new(bytes);
        let algorithm = read_opening(FileFormat::Signature, &mut reader)?;
        let strong_len = usize::from(reader.byte()?);
        let basis = ByteLen::new(reader.varint()?);
        let block_len = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let shape = Shape { algorithm, basis, block_len, strong_len };
        let blocks = shape.check(limits)?;
        // At most 2^32 blocks, so neither product passes 64 bits.
        let column = |bytes: u64| usize::try_from(bytes).map_err(|_| Malformed::Truncated);
        let weak = reader.bytes(column(blocks as u64 * 4)?)?;
        let strong = reader.bytes(column(blocks as u64 * strong_len as u64)?)?;
        reader.finish()?;
        let weak = weak.as_chunks().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        Ok(Self { shape, weak, strong: strong.to_vec() })
    }
}

impl Shape {
    /// The number of blocks, when everything lies within its range.
    pub(crate) fn check(&self, limits: &Limits) -> Result<usize, InvalidShape> {
        if !Signature::BLOCK_LENS.contains(&self.block_len) {
            return Err(InvalidShape::BlockLen(self.block_len));
        }
        if !Signature::STRONG_LENS.contains(&self.strong_len) {
            return Err(InvalidShape::StrongLen(self.strong_len));
        }
        LimitExceeded::check("file length", self.basis.get(), limits.file.get())?;
        let blocks = self.basis.get().div_ceil(self.block_len as u64);
        let allowed = u32::try_from(limits.chunks).unwrap_or(u32::MAX);
        LimitExceeded::check("number of blocks", blocks, u64::from(allowed))?;
        Ok(usize::try_from(blocks).expect("at most limits.chunks, a usize"))
    }
}

/// The settings or the announced lengths of a signature do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidShape {
    /// Blocks are too short or too long.
    #[error("block length of {0} bytes is not within 16 and 16777216")]
    BlockLen(usize),
    /// Strong sums are too short or too long.
    #[error("strong sum of {0} bytes is not within 8 and 32")]
    StrongLen(usize),
    /// The basis is too long, or has too many blocks.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

/// Why bytes are no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSignature {
    /// They do not begin as one.
    #[error(transparent)]
    Opening(#[from] InvalidOpening),
    /// Its lengths are out of range, or over the limits.
    #[error(transparent)]
    Shape(#[from] InvalidShape),
    /// The bytes are damaged.
    #[error("signature is damaged: {0}")]
    Malformed(#[from] Malformed),
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn sign(basis: &[u8], block_len: usize) -> Signature {
        let builder = Signature::builder(ByteLen::of(basis)).block_len(block_len);
        let mut signer = builder.build(&Limits::default()).expect("in range");
        signer.push(basis);
        signer.finish().expect("as long as announced")
    }

    fn check_round_trip(signature: &Signature) {
        let mut bytes = Vec::new();
        signature.encode(&mut bytes);
        assert_eq!(bytes.len(), signature.encoded_len());
        assert_eq!(Signature::decode(&bytes, &Limits::default()).as_ref(), Ok(signature));
        for cut in [0, 5, bytes.len() / 2, bytes.len() - 1] {
            assert!(Signature::decode(&bytes[..cut], &Limits::default()).is_err(), "cut at {cut}");
        }
        bytes.push(0);
        let trailing = InvalidSignature::Malformed(Malformed::Trailing(1));
        assert_eq!(Signature::decode(&bytes, &Limits::default()), Err(trailing));
    }

    #[test]
    fn signatures_round_trip_around_a_block() {
        for len in [0, 1, 63, 64, 65, 127, 128, 129] {
            check_round_trip(&sign(&[3; 129][..len], 64));
        }
    }

    #[test]
    fn hostile_counts_are_refused_before_anything_is_allocated() {
        let hostile = |basis: u64, block_len: u64| {
            let mut bytes = Vec::new();
            write_opening(FileFormat::Signature, Algorithm::Blake3, &mut bytes);
            bytes.push(8);
            write_varint(&mut bytes, basis);
            write_varint(&mut bytes, block_len);
            Signature::decode(&bytes, &Limits::default()).expect_err("nothing follows")
        };
        assert!(matches!(hostile(1 << 63, 4096), InvalidSignature::Shape(InvalidShape::Limit(_))));
        assert!(matches!(hostile(1 << 40, 16), InvalidSignature::Shape(InvalidShape::Limit(_))));
        assert!(matches!(hostile(1 << 30, 0), InvalidSignature::Shape(InvalidShape::BlockLen(0))));
        assert!(matches!(hostile(1 << 30, u64::MAX), InvalidSignature::Shape(InvalidShape::BlockLen(_))));
        assert_eq!(hostile(1 << 30, 4096), InvalidSignature::Malformed(Malformed::Truncated));
    }

    proptest! {
        #[test]
        fn signatures_round_trip(basis in vec(any::<u8>(), 0..600), block_len in 16usize..80) {
            check_round_trip(&sign(&basis, block_len));
        }

        #[test]
        fn any_bytes_decode_or_fail(mut bytes in vec(any::<u8>(), 0..200), opened: bool) {
            if opened {
                bytes.splice(..0, *b"\xd5sig\x01\x00");
            }
            let _ = Signature::decode(&bytes, &Limits::default());
        }
    }
}
