//! Makes the signature of a basis from its bytes, pushed in any split.
//!
//! Defaults: blocks of about the square root of the basis, which balances the size of the signature against the literals
//! that an edit costs, rounded up to 64 bytes and at least 512; strong sums of log2(basis) + log2(blocks) + 40 bits, so
//! that a pair of different blocks with equal strong sums turns up once in 2^40 transfers (8 to 14 bytes). Longer ones
//! are for content that others may have made to collide; even then a false match is found when the target's root is
//! verified, and never published.
//!
//! Cost: one weak sum, one hash for the anchor and one strong sum of each byte, all in SIMD lanes, the strong sums of many
//! blocks at once. Memory: the sums, and at most a block or [`BATCH`] of the basis.
//!
//! Invariant: any split of the basis gives the same signature.

use alloc::vec::Vec;

use crate::anchor::{Anchor, AnchorRule};
use crate::rolling::weak_sum;
use crate::signature::Shape;
use crate::{Algorithm, ByteLen, Digest, InvalidShape, Limits, Signature};

/// How much of the basis is worked on at once, in bytes: enough to fill the lanes, and little enough for the cache.
const BATCH: usize = 64 << 10;

impl Signature {
    /// Settings for the signature of a basis of `basis` bytes.
    pub const fn builder(basis: ByteLen) -> SignatureBuilder {
        SignatureBuilder { basis, algorithm: Algorithm::Blake3, block_len: None, strong_len: None }
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
        let rule = AnchorRule::new(block_len);
        Ok(Signer {
            shape,
            rule,
            batch: (BATCH / block_len).max(1) * block_len,
            pushed: ByteLen::ZERO,
            partial: Vec::new(),
            weak: Vec::with_capacity(blocks),
            strong: Vec::with_capacity(blocks * strong_len),
            anchors: Vec::with_capacity(if rule.any() { blocks } else { 0 }),
            digests: Vec::new(),
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
    rule: AnchorRule,
    /// How much is worked on at once, in bytes: whole blocks.
    batch: usize,
    pushed: ByteLen,
    /// The start of a batch whose end has not come.
    partial: Vec<u8>,
    weak: Vec<u32>,
    strong: Vec<u8>,
    anchors: Vec<Option<Anchor>>,
    /// Empty between calls.
    digests: Vec<Digest>,
}

impl Signer {
    /// Takes in the next bytes of the basis; works in proportion to their number and keeps at most a block or 64 KiB of
    /// them.
    pub fn push(&mut self, mut basis: &[u8]) {
        self.pushed += ByteLen::of(basis);
        while !basis.is_empty() {
            let wanted = self.batch - self.partial.len();
            let (head, rest) = basis.split_at(basis.len().min(wanted));
            basis = rest;
            if head.len() == self.batch {
                self.add(head, &rest[..rest.len().min(self.batch)]);
                continue;
            }
            self.partial.extend_from_slice(head);
            if head.len() == wanted {
                let batch = core::mem::take(&mut self.partial);
                self.add(&batch, &rest[..rest.len().min(self.batch)]);
                self.partial = batch;
                self.partial.clear();
            }
        }
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
            self.add(&tail, &[]);
        }
        let anchors = self.rule.any().then_some(self.anchors);
        Ok(Signature { shape: self.shape, weak: self.weak, strong: self.strong, anchors })
    }

    /// Adds some blocks, of which only the last may be shorter; `ahead` is what comes next.
    fn add(&mut self, bytes: &[u8], ahead: &[u8]) {
        let Shape { algorithm, basis, block_len, strong_len } = self.shape;
        let blocks = basis.get().div_ceil(block_len as u64);
        // More blocks than announced are an error in the end: they need not be kept.
        let wanted = usize::try_from(blocks - self.weak.len() as u64).unwrap_or(usize::MAX);
        let blocks: Vec<&[u8]> = bytes.chunks(block_len).take(wanted).collect();
        for block in &blocks {
            self.weak.push(weak_sum(block));
            if self.rule.any() && block.len() == block_len {
                self.anchors.push(self.rule.of(block));
            }
        }
        algorithm.digest_all_ahead(&blocks, ahead, &mut self.digests);
        for digest in self.digests.drain(..) {
            self.strong.extend_from_slice(&digest.as_bytes()[..strong_len]);
        }
    }
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
            if block.len() == block_len {
                assert_eq!(signature.anchor(i), AnchorRule::new(block_len).of(block), "block {i}");
            }
        }
    }

    #[test]
    fn sums_around_a_block() {
        let basis: Vec<u8> = (0..200u32).map(|i| (i * i) as u8).collect();
        for len in [0, 1, 63, 64, 65, 127, 128, 129] {
            for split in [1, 63, 64, 65, 200] {
                check_sums_are_those_of_the_blocks(&basis[..len], 64, split);
            }
        }
    }

    #[test]
    fn sums_around_a_batch() {
        let basis: Vec<u8> = (0..3 * BATCH as u32).map(|i| (i.wrapping_mul(i ^ 0x5bd1) >> 5) as u8).collect();
        for block_len in [4096, BATCH - 1, BATCH, BATCH + 1] {
            for split in [1000, BATCH - 1, BATCH, BATCH + 1, usize::MAX] {
                check_sums_are_those_of_the_blocks(&basis, block_len, split);
            }
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

    proptest! {
        #[test]
        fn any_split_gives_the_sums_of_the_blocks(
            basis in vec(any::<u8>(), 0..600),
            block_len in 16usize..150,
            split in 1usize..200,
        ) {
            check_sums_are_those_of_the_blocks(&basis, block_len, split);
        }
    }
}
