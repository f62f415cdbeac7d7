//! The signature of a basis: what the holder of the target needs to find out which blocks it shares.
//!
//! The basis is cut into blocks of one length (the last may be shorter), and of each block the signature holds the weak
//! sum and a truncated digest, the strong sum. Neither grows with the content, so a signature is about (4 + strong
//! length) / block length of the basis: 1 GiB has one of 480 KiB by default.
//!
//! Defaults: blocks of about the square root of the basis, which balances the size of the signature against the literals
//! that an edit costs, rounded up to 64 bytes and at least 512; strong sums of log2(basis) + log2(blocks) + 40 bits, so
//! that a pair of different blocks with equal strong sums turns up once in 2^40 transfers (8 to 14 bytes). Longer ones
//! are for content that others may have made to collide; even then a false match is found when the target's root is
//! verified, and never published.
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
//! Invariant: any split of the basis gives the same signature, and `decode(encode(signature)) == signature`.
//!
//! Source: A. Tridgell, "Efficient Algorithms for Sorting and Synchronization" (1999), chapter 3.

use alloc::vec::Vec;

use crate::opening::{read_opening, write_opening};
use crate::{Algorithm, ByteLen, Digest, FileFormat, InvalidOpening, LimitExceeded, Limits, Malformed, Offset};
use crate::{Reader, RollingSum, write_varint};

/// The weak and strong sums of all blocks of a basis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    shape: Shape,
    weak: Vec<u32>,
    /// The strong sums one after another, each `shape.strong_len` bytes.
    strong: Vec<u8>,
}

/// What does not depend on the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    algorithm: Algorithm,
    basis: ByteLen,
    block_len: usize,
    strong_len: usize,
}

impl Signature {
    /// The shortest and longest block, in bytes.
    pub const BLOCK_LENS: core::ops::RangeInclusive<usize> = 16..=1 << 24;
    /// The shortest and longest strong sum, in bytes.
    pub const STRONG_LENS: core::ops::RangeInclusive<usize> = 8..=Digest::LEN;

    /// Settings for the signature of a basis of `basis` bytes.
    pub const fn builder(basis: ByteLen) -> SignatureBuilder {
        SignatureBuilder { basis, algorithm: Algorithm::Blake3, block_len: None, strong_len: None }
    }

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
    fn check(&self, limits: &Limits) -> Result<usize, InvalidShape> {
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

/// The settings of a signature, each with a default that suits the length of the basis.
#[derive(Clone, Debug)]
pub struct SignatureBuilder {
    basis: ByteLen,
    algorithm: Algorithm,
    block_len: Option<usize>,
    strong_len: Option<usize>,
}

impl SignatureBuilder {
    /// Sets the hash function of the strong sums and of the target's root (default BLAKE3).
    #[must_use]
    pub const fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Sets the length of a block in bytes, 16 to 2^24 (default: about the square root of the basis).
    #[must_use]
    pub const fn block_len(mut self, block_len: usize) -> Self {
        self.block_len = Some(block_len);
        self
    }

    /// Sets the length of a strong sum in bytes, 8 to 32 (default: by the length of the basis, see the module).
    #[must_use]
    pub const fn strong_len(mut self, strong_len: usize) -> Self {
        self.strong_len = Some(strong_len);
        self
    }

    /// A signer that waits for the bytes of the basis.
    ///
    /// # Errors
    ///
    /// [`InvalidShape`] when a setting is out of its range or the basis is larger than `limits` allow.
    pub fn build(self, limits: &Limits) -> Result<Signer, InvalidShape> {
        let block_len = self.block_len.unwrap_or_else(|| default_block_len(self.basis));
        let strong_len = self.strong_len.unwrap_or_else(|| default_strong_len(self.basis, block_len));
        let shape = Shape { algorithm: self.algorithm, basis: self.basis, block_len, strong_len };
        let blocks = shape.check(limits)?;
        Ok(Signer {
            shape,
            pushed: ByteLen::ZERO,
            partial: Vec::new(),
            weak: Vec::with_capacity(blocks),
            strong: Vec::with_capacity(blocks * strong_len),
        })
    }
}

/// About the square root of the basis, in steps of 64 bytes, at least 512.
fn default_block_len(basis: ByteLen) -> usize {
    let longest = *Signature::BLOCK_LENS.end() as u64;
    basis.get().isqrt().next_multiple_of(64).clamp(512, longest) as usize
}

/// log2(basis) + log2(blocks) + 40 bits, rounded up to bytes.
fn default_strong_len(basis: ByteLen, block_len: usize) -> usize {
    let bits = |count: u64| (u64::BITS - count.leading_zeros()) as usize;
    let blocks = basis.get().div_ceil(block_len.max(1) as u64);
    let wanted = (bits(basis.get()) + bits(blocks) + 40).div_ceil(8);
    wanted.clamp(*Signature::STRONG_LENS.start(), *Signature::STRONG_LENS.end())
}

/// Makes a signature from the bytes of a basis, pushed in any split.
#[derive(Clone, Debug)]
pub struct Signer {
    shape: Shape,
    pushed: ByteLen,
    /// The start of a block whose end has not come.
    partial: Vec<u8>,
    weak: Vec<u32>,
    strong: Vec<u8>,
}

impl Signer {
    /// Takes in the next bytes of the basis; works in proportion to their number and keeps less than a block of them.
    pub fn push(&mut self, mut basis: &[u8]) {
        self.pushed += ByteLen::of(basis);
        let block_len = self.shape.block_len;
        if !self.partial.is_empty() {
            let (head, rest) = basis.split_at(basis.len().min(block_len - self.partial.len()));
            self.partial.extend_from_slice(head);
            basis = rest;
            if self.partial.len() == block_len {
                let block = core::mem::take(&mut self.partial);
                self.add(&block);
                self.partial = block;
                self.partial.clear();
            }
        }
        let mut blocks = basis.chunks_exact(block_len);
        blocks.by_ref().for_each(|block| self.add(block));
        self.partial.extend_from_slice(blocks.remainder());
    }

    /// The signature, once the whole basis has been pushed.
    ///
    /// # Errors
    ///
    /// [`BasisChanged`] when the bytes pushed are more or fewer than announced.
    pub fn finish(mut self) -> Result<Signature, BasisChanged> {
        if self.pushed != self.shape.basis {
            return Err(BasisChanged { announced: self.shape.basis, pushed: self.pushed });
        }
        if !self.partial.is_empty() {
            let tail = core::mem::take(&mut self.partial);
            self.add(&tail);
        }
        Ok(Signature { shape: self.shape, weak: self.weak, strong: self.strong })
    }

    fn add(&mut self, block: &[u8]) {
        // More blocks than announced are an error in the end: they need not be kept.
        if (self.weak.len() as u64) < self.shape.basis.get().div_ceil(self.shape.block_len as u64) {
            self.weak.push(RollingSum::of(block).value());
            let strong = self.shape.algorithm.digest(block);
            self.strong.extend_from_slice(&strong.as_bytes()[..self.shape.strong_len]);
        }
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

/// The basis has another length than was announced: it changed while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("basis of {announced} bytes turned out to have {pushed}")]
pub struct BasisChanged {
    /// The length it was announced with.
    pub announced: ByteLen,
    /// The bytes that came.
    pub pushed: ByteLen,
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
    use alloc::string::ToString;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::reference;

    fn sign(basis: &[u8], block_len: usize, split: usize) -> Signature {
        let mut signer =
            Signature::builder(ByteLen::of(basis)).block_len(block_len).build(&Limits::default()).expect("in range");
        basis.chunks(split).for_each(|part| signer.push(part));
        signer.finish().expect("as long as announced")
    }

    fn check_sums_are_those_of_the_blocks(basis: &[u8], block_len: usize, split: usize) {
        let signature = sign(basis, block_len, split);
        assert_eq!(signature.len(), basis.len().div_ceil(block_len));
        for (i, block) in basis.chunks(block_len).enumerate() {
            assert_eq!(signature.weak(i), reference::weak_sum(block), "block {i}");
            let digest = Algorithm::Blake3.digest(block);
            assert_eq!(signature.strong(i), &digest.as_bytes()[..signature.strong_len()], "block {i}");
            assert_eq!(signature.start(i).get(), (i * block_len) as u64);
        }
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
    fn sums_around_a_block() {
        let basis: Vec<u8> = (0..200u32).map(|i| (i * i) as u8).collect();
        for len in [0, 1, 63, 64, 65, 127, 128, 129] {
            for split in [1, 63, 64, 65, 200] {
                check_sums_are_those_of_the_blocks(&basis[..len], 64, split);
            }
            check_round_trip(&sign(&basis[..len], 64, 64));
        }
    }

    #[test]
    fn defaults_follow_the_length_of_the_basis() {
        let shape = |basis: u64| {
            let signer = Signature::builder(ByteLen::new(basis)).build(&Limits::default()).expect("within the limits");
            (signer.shape.block_len, signer.shape.strong_len)
        };
        assert_eq!(shape(0), (512, 8));
        assert_eq!(shape(512 * 512), (512, 9));
        assert_eq!(shape(10 << 20), (3264, 10));
        assert_eq!(shape(1 << 30), (32768, 11));
        // 2^44 bytes in 2^22 blocks: the most that the default limits allow. Nothing is read here.
        assert_eq!(default_block_len(ByteLen::new(16 << 40)), 1 << 22);
        assert_eq!(default_strong_len(ByteLen::new(16 << 40), 1 << 22), 14);
    }

    #[test]
    fn a_basis_that_changed_while_it_was_read_is_reported() {
        let mut signer = Signature::builder(ByteLen::new(100)).build(&Limits::default()).expect("in range");
        signer.push(&[0; 99]);
        let error = signer.clone().finish().expect_err("one byte short");
        assert_eq!(error.to_string(), "basis of 100 bytes turned out to have 99");
        signer.push(&[0; 100_000]);
        assert_eq!(signer.weak.len(), 1, "what is too much is not kept");
        assert!(signer.finish().is_err());
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let build = |builder: SignatureBuilder| builder.build(&Limits::default()).map(|_| ());
        let builder = || Signature::builder(ByteLen::new(1 << 20));
        assert_eq!(build(builder().block_len(15)), Err(InvalidShape::BlockLen(15)));
        assert_eq!(build(builder().block_len(usize::MAX)), Err(InvalidShape::BlockLen(usize::MAX)));
        assert_eq!(build(builder().strong_len(7)), Err(InvalidShape::StrongLen(7)));
        assert_eq!(build(builder().strong_len(33)), Err(InvalidShape::StrongLen(33)));
        let many = build(Signature::builder(ByteLen::new(16 << 40)).block_len(16)).expect_err("2^40 blocks");
        assert_eq!(many.to_string(), "number of blocks of 1099511627776 is over the limit of 4194304");
        let long = build(Signature::builder(ByteLen::new(1 << 63))).expect_err("2^63 bytes");
        assert_eq!(long.to_string(), "file length of 9223372036854775808 is over the limit of 17592186044416");
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
        fn any_split_gives_the_sums_of_the_blocks(
            basis in vec(any::<u8>(), 0..600),
            block_len in 16usize..80,
            split in 1usize..200,
        ) {
            check_sums_are_those_of_the_blocks(&basis, block_len, split);
            check_round_trip(&sign(&basis, block_len, split));
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
