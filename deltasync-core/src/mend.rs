//! Sums of ranges, by which a receiver whose result is not the target finds out which of it is.
//!
//! The ranges are summed with 64 bits of BLAKE3 under a key that is fresh for each repair and was not known when the
//! content was made, so that what deceived shorter sums does not deceive these.
//!
//! Source: BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020), keyed mode.

use alloc::vec::Vec;

use crate::ByteLen;

/// The secret under which the ranges of one repair are summed.
#[derive(Clone)]
pub struct MendKey([u8; 32]);

impl MendKey {
    /// The longest range, in bytes: what is read at once of this length holds whole ranges, whatever theirs is.
    pub const LONGEST: u64 = 4 << 20;

    /// The key of repair number `repair` of transfer number `transfer` on a connection whose ends drew these nonces.
    pub fn new(client: &[u8; 16], server: &[u8; 16], transfer: u32, repair: u32) -> Self {
        let mut material = [0; 40];
        material[..16].copy_from_slice(client);
        material[16..32].copy_from_slice(server);
        material[32..36].copy_from_slice(&transfer.to_le_bytes());
        material[36..].copy_from_slice(&repair.to_le_bytes());
        Self(blake3::derive_key("deltasync 2026 sums of ranges v2", &material))
    }

    /// The sums of the ranges of `range` bytes that `bytes` hold, the last of which may be shorter.
    ///
    /// # Panics
    ///
    /// When `range` is 0.
    pub fn sums(&self, bytes: &[u8], range: usize) -> Vec<u64> {
        let sum = |range: &[u8]| {
            let hash = blake3::keyed_hash(&self.0, range);
            let (words, _) = hash.as_bytes().as_chunks();
            u64::from_le_bytes(words[0])
        };
        bytes.chunks(range).map(sum).collect()
    }

    /// The length of ranges, in bytes, that suits a file of `len` bytes: a power of two, for which the sums and the range
    /// around one wrong place cost about the same; 4 KiB to 4 MiB.
    pub fn range_for(len: ByteLen) -> u64 {
        len.get().saturating_mul(8).isqrt().clamp(4 << 10, Self::LONGEST).next_power_of_two()
    }
}

/// Without the key itself.
impl core::fmt::Debug for MendKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MendKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_summed_apart_and_by_the_key() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i * i) as u8).collect();
        let key = MendKey::new(&[1; 16], &[2; 16], 3, 0);
        let sums = key.sums(&bytes, 4096);
        assert_eq!(sums.len(), 3);
        assert_eq!(sums[2], key.sums(&bytes[8192..], 4096)[0]);
        let mut changed = bytes.clone();
        changed[5000] ^= 1;
        let same: Vec<bool> = key.sums(&changed, 4096).iter().zip(&sums).map(|(a, b)| a == b).collect();
        assert_eq!(same, [true, false, true]);
        assert_ne!(MendKey::new(&[1; 16], &[2; 16], 3, 1).sums(&bytes, 4096), sums);
        assert!(key.sums(&[], 4096).is_empty());
    }

    #[test]
    fn ranges_are_powers_of_two_within_their_bounds() {
        for (len, range) in [(0, 4 << 10), (10 << 20, 16 << 10), (1 << 40, 4 << 20), (u64::MAX, 4 << 20)] {
            assert_eq!(MendKey::range_for(ByteLen::new(len)), range, "{len}");
        }
    }
}
