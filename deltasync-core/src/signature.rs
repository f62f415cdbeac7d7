//! The signature of a basis: what the holder of the target needs to find out which blocks it shares.
//!
//! The basis is cut into blocks of one length (the last may be shorter), and of each block the signature holds the weak
//! sum and a truncated digest, the strong sum; of each full block also where its anchor is, see [`AnchorRule`], and a key
//! of the bytes there. None grows with the content, so a signature is about (10 + strong length) / block length of the
//! basis: 1 GiB has one of 672 KiB by default.
//!
//! | field | bytes | |
//! |---|---|---|
//! | opening | 6 | `D5 's' 'i' 'g'`, version, algorithm |
//! | strong length | 1 | in bytes, 8 to 32 |
//! | basis length | varint | in bytes |
//! | block length | varint | in bytes, 16 to 2^24 |
//! | weak sums | 4 a block | little-endian |
//! | strong sums | strong length a block | |
//! | anchors | 2 a full block, 3 where blocks are longer than 2^16 | version 2; little-endian: the position in the block, at most block length - 32; all ones: none |
//! | keys | 4 an anchor | version 2; little-endian |
//!
//! Version 2 has anchors, in blocks of 64 bytes or more; version 1 ends before them and serves as well, only slower. The
//! limit under which the hash of an anchor lies, the hash, and the key are parts of the format.
//!
//! Invariant: `decode(encode(signature)) == signature`, and a signature has one strong and one weak sum for each block.
//!
//! Source: A. Tridgell, "Efficient Algorithms for Sorting and Synchronization" (1999), chapter 3.

use alloc::vec::Vec;

use crate::anchor::{Anchor, AnchorRule};
use crate::opening::{read_version, write_version};
use crate::{Algorithm, ByteLen, Digest, FileFormat, InvalidOpening, LimitExceeded, Limits, Malformed, Offset};
use crate::{Reader, write_varint};

/// The weak and strong sums of all blocks of a basis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub(crate) shape: Shape,
    pub(crate) weak: Vec<u32>,
    /// The strong sums one after another, each `shape.strong_len` bytes.
    pub(crate) strong: Vec<u8>,
    /// The anchors of the full blocks; `None` in version 1.
    pub(crate) anchors: Option<Vec<Option<Anchor>>>,
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
        let block = 4 + Digest::LEN as u64 + 3 + 4;
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

    /// The anchor of a full block, if it has one and the signature says where.
    pub(crate) fn anchor(&self, block: usize) -> Option<Anchor> {
        self.anchors.as_ref().and_then(|anchors| anchors[block])
    }

    /// By which rule anchors are looked for.
    pub(crate) fn rule(&self) -> AnchorRule {
        if self.anchors.is_some() { AnchorRule::new(self.shape.block_len) } else { AnchorRule::none() }
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
        let anchors = self.anchors.as_deref().unwrap_or_default();
        let keys = anchors.iter().flatten().count();
        head.len() + 4 * self.weak.len() + self.strong.len() + self.shape.place_len() * anchors.len() + 4 * keys
    }

    /// Appends the bytes that [`decode`](Self::decode) reads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        self.encode_head(out);
        self.weak.iter().for_each(|weak| out.extend_from_slice(&weak.to_le_bytes()));
        out.extend_from_slice(&self.strong);
        let anchors = self.anchors.as_deref().unwrap_or_default();
        for anchor in anchors {
            let place = anchor.map_or(u32::MAX, |anchor| anchor.at);
            out.extend_from_slice(&place.to_le_bytes()[..self.shape.place_len()]);
        }
        anchors.iter().flatten().for_each(|anchor| out.extend_from_slice(&anchor.key.to_le_bytes()));
    }

    fn encode_head(&self, out: &mut Vec<u8>) {
        let version = if self.anchors.is_some() { 2 } else { 1 };
        write_version(FileFormat::Signature, version, self.shape.algorithm, out);
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
    /// numbers. A signature that lies about its basis or its anchors makes a delta that does not verify, or a longer one.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, InvalidSignature> {
        let mut reader = Reader::new(bytes);
        let (version, algorithm) = read_version(FileFormat::Signature, &mut reader)?;
        let strong_len = usize::from(reader.byte()?);
        let basis = ByteLen::new(reader.varint()?);
        let block_len = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        let shape = Shape { algorithm, basis, block_len, strong_len };
        let blocks = shape.check(limits)?;
        // At most 2^32 blocks, so neither product passes 64 bits.
        let column = |bytes: u64| usize::try_from(bytes).map_err(|_| Malformed::Truncated);
        let weak = reader.bytes(column(blocks as u64 * 4)?)?;
        let strong = reader.bytes(column(blocks as u64 * strong_len as u64)?)?;
        let full = blocks - usize::from(!basis.get().is_multiple_of(block_len as u64));
        let anchors = if version == 1 { None } else { Some(shape.read_anchors(&mut reader, full)?) };
        reader.finish()?;
        let weak = weak.as_chunks().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        Ok(Self { shape, weak, strong: strong.to_vec(), anchors })
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

    /// How long a position in a block is where it is written down, in bytes.
    const fn place_len(&self) -> usize {
        if self.block_len <= 1 << 16 { 2 } else { 3 }
    }

    /// Reads the anchors of `full` blocks.
    fn read_anchors(&self, reader: &mut Reader<'_>, full: usize) -> Result<Vec<Option<Anchor>>, Malformed> {
        let rule = AnchorRule::new(self.block_len);
        if !rule.any() {
            return Err(Malformed::Value("anchors in blocks that are too short for them"));
        }
        let len = self.place_len();
        let none = (1 << (8 * len)) - 1;
        let places = reader.bytes(full.checked_mul(len).ok_or(Malformed::Truncated)?)?;
        let place = |bytes: &[u8]| bytes.iter().rev().fold(0, |place, byte| place << 8 | u32::from(*byte));
        let count = places.chunks(len).filter(|bytes| place(bytes) != none).count();
        let mut keys = reader.bytes(count.checked_mul(4).ok_or(Malformed::Truncated)?)?.as_chunks().0.iter();
        let anchor = |bytes: &[u8]| {
            let at = place(bytes);
            if at == none {
                return Ok(None);
            }
            if at as usize >= rule.places() {
                return Err(Malformed::Value("an anchor that does not lie in its block"));
            }
            let key = u32::from_le_bytes(*keys.next().expect("one was read for each anchor"));
            Ok(Some(Anchor { at, key }))
        };
        places.chunks(len).map(anchor).collect()
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
    use alloc::vec;

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
            write_version(FileFormat::Signature, 2, Algorithm::Blake3, &mut bytes);
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

    /// Noise and a run of equal bytes: blocks with an anchor and without one.
    fn mixed(len: usize) -> Vec<u8> {
        let noise = |i: usize| (i.wrapping_mul(i ^ 0x5bd1).wrapping_mul(0x9e37_79b9) >> 16) as u8;
        (0..len).map(|i| if i / 200 % 2 == 0 { noise(i) } else { 7 }).collect()
    }

    #[test]
    fn a_version_without_anchors_is_read_and_written_as_it_is() {
        let mut signature = sign(&mixed(3000), 100);
        assert!(signature.anchors.iter().flatten().any(Option::is_some));
        assert!(signature.anchors.iter().flatten().any(Option::is_none));
        check_round_trip(&signature);
        signature.anchors = None;
        check_round_trip(&signature);
        let mut bytes = Vec::new();
        signature.encode(&mut bytes);
        assert_eq!(bytes[4], 1);
        assert!(!Signature::decode(&bytes, &Limits::default()).expect("encoded above").rule().any());
    }

    #[test]
    fn positions_in_long_blocks_are_longer() {
        for (block_len, bytes) in [(1 << 16, 2), ((1 << 16) + 1, 3)] {
            let signature = sign(&mixed(2 * block_len), block_len);
            assert_eq!((signature.shape.place_len(), signature.full_blocks()), (bytes, 2));
            check_round_trip(&signature);
        }
    }

    #[test]
    fn anchors_that_lie_outside_their_block_are_refused() {
        let mut signature = sign(&mixed(3000), 100);
        let decoded = |signature: &Signature| {
            let mut bytes = Vec::new();
            signature.encode(&mut bytes);
            Signature::decode(&bytes, &Limits::default()).map(|_| ())
        };
        let anchors = |at| Some(vec![Some(Anchor { at, key: 1 }); 30]);
        signature.anchors = anchors(68);
        assert_eq!(decoded(&signature), Ok(()));
        signature.anchors = anchors(69);
        let outside = Malformed::Value("an anchor that does not lie in its block");
        assert_eq!(decoded(&signature), Err(InvalidSignature::Malformed(outside)));
        let mut short = sign(&mixed(630), 63);
        assert_eq!(short.anchors, None);
        short.anchors = Some(vec![None; 10]);
        assert!(matches!(decoded(&short), Err(InvalidSignature::Malformed(Malformed::Value(_)))));
    }

    /// The format: what stands here may never read otherwise.
    #[test]
    fn golden_bytes_of_both_versions() {
        // Opening, strong length, basis length, block length; weak sums; strong sums; anchors and none; keys.
        const NEW: &[&str] = &[
            "d57369670200 08 de02 64",
            "f67deba4 38ecd128 84a8d551 aad90426",
            "0abf8844ea0fccae b52995b7efdf7837 065e9dc90a3ebac4 aab46770e4fb5b5b",
            "ffff 0f00 ffff",
            "c33f7768",
        ];
        let hex = |signature: &Signature| {
            let mut bytes = Vec::new();
            signature.encode(&mut bytes);
            bytes.iter().map(|byte| alloc::format!("{byte:02x}")).collect::<alloc::string::String>()
        };
        let mut signature = sign(&mixed(350), 100);
        assert_eq!(hex(&signature), NEW.concat().replace(' ', ""));
        signature.anchors = None;
        let old = NEW[..3].concat().replace(' ', "").replacen("d573696702", "d573696701", 1);
        assert_eq!(hex(&signature), old);
    }

    proptest! {
        #[test]
        fn signatures_round_trip(basis in vec(any::<u8>(), 0..600), block_len in 16usize..150) {
            check_round_trip(&sign(&basis, block_len));
        }

        #[test]
        fn any_bytes_decode_or_fail(mut bytes in vec(any::<u8>(), 0..200), version in 0u8..3) {
            if version > 0 {
                bytes.splice(..0, [0xd5, b's', b'i', b'g', version, 0]);
            }
            let _ = Signature::decode(&bytes, &Limits::default());
        }
    }
}
