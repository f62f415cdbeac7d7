//! Tags: the 48 bits that travel for a chunk instead of its digest.
//!
//! A tag is the start of a keyed BLAKE3 of the digest. The key comes from a nonce of the connection and the number of
//! the transfer, so nobody can prepare content whose tags collide, and a tag says nothing to who does not hold the
//! digest and the key. Among 2^20 chunks at either end, two different ones share a tag once in 256 transfers; the root
//! finds that out, and the repair is keyed anew.
//!
//! Invariant: equal chunks have equal tags under one key, and both ends compute the same tags on every machine.
//!
//! Source: BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020), keyed and key-derivation modes.

use alloc::vec::Vec;
use core::fmt;

use crate::{ChunkList, Digest};

/// The secret that turns digests into tags, for one transfer.
#[derive(Clone)]
pub struct TagKey {
    key: [u8; 32],
    bits: u32,
}

impl TagKey {
    /// The key of transfer number `transfer` on a connection whose client drew `nonce`.
    pub fn new(nonce: &[u8; 16], transfer: u32) -> Self {
        let mut material = [0; 20];
        material[..16].copy_from_slice(nonce);
        material[16..].copy_from_slice(&transfer.to_le_bytes());
        Self { key: blake3::derive_key("deltasync 2025 chunk tags v1", &material), bits: Tag::BITS }
    }

    /// Keeps only `bits` bits of each tag (1 to 48), so that tests see collisions and their repair.
    #[doc(hidden)]
    #[must_use]
    pub fn with_bits(self, bits: u32) -> Self {
        Self { bits: bits.clamp(1, Tag::BITS), ..self }
    }

    /// The tag of a chunk with this digest.
    pub fn tag(&self, digest: &Digest) -> Tag {
        self.tag_of(digest.as_bytes())
    }

    /// The tag of an entry of a tree, by its chunk's digest, of which the first half is that of its path: so is the upper
    /// part of the tag, and who has two entries of one path sees that they are.
    pub(crate) fn tag_of_entry(&self, digest: &Digest) -> Tag {
        let path = self.tag_of(&digest.as_bytes()[..Digest::LEN / 2]);
        let whole = self.tag(digest);
        let number = path.0 << Tag::ENTRY_BITS | whole.0 & ((1 << Tag::ENTRY_BITS) - 1);
        Tag(number & ((1 << self.bits) - 1))
    }

    /// The tag of a sequence of tags.
    pub(crate) fn sequence(&self, tags: impl Iterator<Item = Tag>) -> Tag {
        let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key("deltasync 2026 order of tags v2", &self.key));
        for tag in tags {
            hasher.update(&tag.to_bytes());
        }
        self.start_of(&hasher.finalize())
    }

    /// The tag of any bytes. Those of other lengths than a digest make other kinds of tags.
    pub(crate) fn tag_of(&self, bytes: &[u8]) -> Tag {
        self.start_of(&blake3::keyed_hash(&self.key, bytes))
    }

    fn start_of(&self, hash: &blake3::Hash) -> Tag {
        let (start, _) = hash.as_bytes().split_first_chunk().expect("a hash of 32 bytes has 6");
        Tag(Tag::from_bytes(*start).0 & ((1 << self.bits) - 1))
    }
}

/// Without the key itself.
impl fmt::Debug for TagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TagKey").field("bits", &self.bits).finish_non_exhaustive()
    }
}

/// 48 bits that stand for a chunk within one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u64);

impl Tag {
    /// The length of a tag, in bytes.
    pub const LEN: usize = 6;

    /// The length of a tag, in bits.
    pub(crate) const BITS: u32 = 8 * Self::LEN as u32;

    /// How many of them, the lower ones, stand for all of an entry of a tree; the others for its path.
    const ENTRY_BITS: u32 = 28;

    /// What stands for the path in the tag of an entry of a tree.
    pub(crate) const fn path_part(self) -> u64 {
        self.0 >> Self::ENTRY_BITS
    }

    /// The tag as it travels, least significant byte first.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let [a, b, c, d, e, f, ..] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// The tag as a number below 2^48.
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    /// The tag of a number below 2^48.
    pub(crate) const fn of_number(number: u64) -> Self {
        Self(number)
    }

    /// A tag that travelled; any bytes are one.
    pub fn from_bytes([a, b, c, d, e, f]: [u8; Self::LEN]) -> Self {
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

/// Chunks in a row that have one tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagRun {
    /// The tag of each.
    pub tag: Tag,
    /// How many there are.
    pub count: u32,
}

/// The tags of a chunk list: one entry for each of its runs, at the same index.
pub fn tag_runs(list: &ChunkList, key: &TagKey) -> Vec<TagRun> {
    list.runs().iter().map(|run| TagRun { tag: key.tag(&run.digest), count: run.count }).collect()
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use crate::cut::tests::{SMALL, random};
    use crate::{Algorithm, Digest};

    fn digest() -> Digest {
        Algorithm::Blake3.digest(b"a chunk")
    }

    #[test]
    fn golden_tags() {
        assert_eq!(TagKey::new(&[0; 16], 0).tag(&digest()).to_bytes(), [134, 48, 111, 119, 153, 80]);
        assert_eq!(TagKey::new(&[7; 16], 1).tag(&digest()).to_bytes(), [208, 195, 208, 156, 17, 180]);
    }

    #[test]
    fn nonce_and_transfer_both_make_the_key() {
        let tag = |nonce: u8, transfer: u32| TagKey::new(&[nonce; 16], transfer).tag(&digest());
        assert_eq!(tag(1, 1), tag(1, 1));
        assert_ne!(tag(1, 1), tag(2, 1));
        assert_ne!(tag(1, 1), tag(1, 2));
    }

    #[test]
    fn tags_round_trip_and_short_ones_keep_their_low_bits() {
        let key = TagKey::new(&[1; 16], 1);
        let tag = key.tag(&digest());
        assert_eq!(Tag::from_bytes(tag.to_bytes()), tag);
        assert_eq!(key.clone().with_bits(8).tag(&digest()).to_bytes(), [tag.to_bytes()[0], 0, 0, 0, 0, 0]);
        assert_eq!(key.clone().with_bits(99).tag(&digest()), tag);
        assert_eq!(Tag::from_bytes([0xff; 6]).to_bytes(), [0xff; 6]);
    }

    #[test]
    fn tags_stand_at_the_index_of_their_run() {
        let mut bytes = random(20, 5000);
        bytes[1000..3000].fill(0);
        let list = ChunkList::of(&bytes, SMALL, Algorithm::Blake3);
        let key = TagKey::new(&[1; 16], 1);
        let tags = tag_runs(&list, &key);
        assert_eq!(tags.len(), list.runs().len());
        for (tag, run) in tags.iter().zip(list.runs()) {
            assert_eq!(*tag, TagRun { tag: key.tag(&run.digest), count: run.count });
        }
    }

    #[test]
    fn golden_tags_of_entries_tell_their_path() {
        let key = TagKey::new(&[7; 16], 1);
        let half = |byte: u8| [byte; 16];
        let tag = |path: u8, rest: u8| {
            let digest = [half(path), half(rest)].concat().try_into().expect("two halves");
            key.tag_of_entry(&Digest::from_bytes(digest))
        };
        assert_eq!(tag(1, 2).path_part(), tag(1, 3).path_part());
        assert_ne!(tag(1, 2), tag(1, 3));
        assert_ne!(tag(1, 2).path_part(), tag(2, 2).path_part());
        assert!(tag(1, 2).path_part() < 1 << 20);
        assert_eq!(tag(1, 2).to_bytes(), [104, 227, 100, 221, 252, 125]);
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", TagKey::new(&[1; 16], 1)), "TagKey { bits: 48, .. }");
    }
}
