//! What a file resembles: a few of its chunks, by which another one that has many of the same is found.
//!
//! Of the digests of all chunks each of [`Resemblance::FEATURES`] permutations has a least one, and a part of that is a
//! feature. Two files have the same feature in so many places as the share of their chunks is that both have, among all of
//! either: by expectation, for each feature is one trial. So a file of which a renamed or copied version was edited is
//! found by a look-up of a few numbers.
//!
//! It is a hint: whoever goes by it finds out what the two have in common. Files whose lengths make cutters of different
//! averages share no chunks.
//!
//! Source: Broder, "On the resemblance and containment of documents", 1997.

use serde::{Deserialize, Serialize};

use crate::{ChunkList, Cutter, Digest};

/// The features of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u8; 32]", into = "[u8; 32]")]
pub struct Resemblance([u32; Self::FEATURES]);

impl From<[u8; 32]> for Resemblance {
    /// Four bytes for each feature, the least significant first.
    fn from(bytes: [u8; 32]) -> Self {
        let mut features = [0; Self::FEATURES];
        for (feature, bytes) in features.iter_mut().zip(bytes.as_chunks().0) {
            *feature = u32::from_le_bytes(*bytes);
        }
        Self(features)
    }
}

impl From<Resemblance> for [u8; 32] {
    fn from(resemblance: Resemblance) -> Self {
        let mut bytes = [0; 32];
        for (bytes, feature) in bytes.as_chunks_mut().0.iter_mut().zip(resemblance.0) {
            *bytes = feature.to_le_bytes();
        }
        bytes
    }
}

impl Resemblance {
    /// How many features there are.
    pub const FEATURES: usize = 8;

    /// Fewer chunks say nothing.
    const LEAST: usize = 4;

    /// The features of a file with these chunks; `None` for a tree, and where there are less than four runs of them.
    pub fn of(chunks: &ChunkList) -> Option<Self> {
        if chunks.cutter() == Cutter::Entries || chunks.runs().len() < Self::LEAST {
            return None;
        }
        let mut least = [(u64::MAX, 0); Self::FEATURES];
        for run in chunks.runs() {
            let (rank, feature) = parts(&run.digest);
            for (least, odd) in least.iter_mut().zip(ODD) {
                *least = (*least).min((rank.wrapping_mul(odd).swap_bytes().wrapping_mul(odd), feature));
            }
        }
        Some(Self(least.map(|(_, feature)| feature)))
    }

    /// Each feature stands for a chunk.
    pub const fn features(&self) -> &[u32; Self::FEATURES] {
        &self.0
    }
}

/// One for each permutation: the fractions of the square roots of the first primes, made odd.
const ODD: [u64; Resemblance::FEATURES] = [
    0x6a09_e667_f3bc_c909,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// What a digest is ranked by, and its feature: parts of it that have nothing to do with each other.
fn parts(digest: &Digest) -> (u64, u32) {
    let bytes = digest.as_bytes();
    let rank = u64::from_le_bytes(*bytes.first_chunk().expect("a digest is longer"));
    (rank, u32::from_le_bytes(*bytes.last_chunk().expect("a digest is longer")))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::{Algorithm, ByteLen, ChunkRun};

    fn list(numbers: impl Iterator<Item = u64>) -> ChunkList {
        let run = |n: u64| ChunkRun { digest: Algorithm::Blake3.digest(&n.to_le_bytes()), len: 1000, count: 1 };
        let runs: Vec<_> = numbers.map(run).collect();
        ChunkList::new(Cutter::for_len(ByteLen::new(1 << 20)), Algorithm::Blake3, Digest::default(), runs)
    }

    fn common(a: &ChunkList, b: &ChunkList) -> usize {
        let [a, b] = [a, b].map(|list| Resemblance::of(list).expect("enough chunks"));
        a.features().iter().zip(b.features()).filter(|(a, b)| a == b).count()
    }

    #[test]
    fn as_many_features_are_equal_as_chunks_are_common() {
        let mut equal = [0; 4];
        for round in 0..200 {
            let (start, other) = (round * 10_000, round * 10_000 + 5_000);
            let of = |same: u64| list((start..start + same).chain(other..other + 100 - same));
            for (equal, same) in equal.iter_mut().zip([0, 50, 90, 100]) {
                *equal += common(&of(100), &of(same));
            }
        }
        // Of 1,600; 50 of 150 different chunks are common, then 90 of 110.
        assert_eq!((equal[0], equal[3]), (0, 1600));
        assert!((430..640).contains(&equal[1]), "{equal:?}");
        assert!((1230..1390).contains(&equal[2]), "{equal:?}");
    }

    #[test]
    fn order_says_nothing_and_neither_do_few_chunks_or_trees() {
        let (forth, back) = (list(0..50), list((0..50).rev()));
        assert_eq!(common(&forth, &back), Resemblance::FEATURES);
        assert_eq!(Resemblance::of(&list(0..3)), None);
        let tree = ChunkList::new(Cutter::Entries, Algorithm::Blake3, Digest::default(), forth.runs().to_vec());
        assert_eq!(Resemblance::of(&tree), None);
    }
}
