//! A look at a few bytes that tells whether packing them can pay.
//!
//! What is packed, encrypted or random already has all bytes equally often and nothing twice. So 64 short stretches all over
//! a piece are counted, and the sum of the squares of the counts is compared with what even bytes give: of n even bytes it
//! is n^2 / 256 + n within sqrt(n^2 / 128), and a saving of one part in 400 shows. One longer stretch is searched for
//! groups of four bytes that come twice, which shows short patterns whose bytes are even. What repeats over longer
//! distances shows in neither: that is for the caller to know, from the chunks.
//!
//! Cost: some microseconds for a piece of any length.
//!
//! Invariant: only a look: whatever it says, what is packed and what is not both come back the same.

use crate::{ByteLen, ChunkList};

/// The stretches that are counted, and the bytes of each.
const STRETCHES: usize = 64;
const STRETCH: usize = 64;
/// Sums of squares up to this are those of even bytes, 5 deviations above what is expected.
const EVEN: u32 = {
    let n = (STRETCHES * STRETCH) as u32;
    n * n / 256 + n + 5 * n / 11
};
/// The bytes that are searched for groups that come twice.
const SEARCHED: usize = 4 << 10;
/// As many groups come twice by chance less than once in a billion pieces.
const TWICE: u32 = 3;
/// In a list without repeats at most one chunk in so many is like another.
const REPEATS: u64 = 64;

/// True when bytes look as if nothing could pack them by themselves; false for short ones, which are no matter.
pub fn is_dense(bytes: &[u8]) -> bool {
    bytes.len() >= 2 * SEARCHED && is_even(bytes) && !has_groups_twice(&bytes[bytes.len() / 2..][..SEARCHED])
}

/// True when hardly any chunks of a target come twice.
pub fn is_unrepeated(chunks: &ChunkList) -> bool {
    let mut starts: alloc::vec::Vec<u64> = chunks
        .runs()
        .iter()
        .map(|run| u64::from_le_bytes(*run.digest.as_bytes().first_chunk().expect("a digest has 32 bytes")))
        .collect();
    let runs = starts.len() as u64;
    starts.sort_unstable();
    starts.dedup();
    chunks.chunk_count() - starts.len() as u64 <= runs / REPEATS && chunks.len() > ByteLen::ZERO
}

fn is_even(bytes: &[u8]) -> bool {
    let mut counts = [0u32; 256];
    let step = (bytes.len() - STRETCH) / (STRETCHES - 1);
    for stretch in 0..STRETCHES {
        bytes[stretch * step..][..STRETCH].iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    }
    counts.iter().map(|count| count * count).sum::<u32>() <= EVEN
}

fn has_groups_twice(bytes: &[u8]) -> bool {
    // The last group of each hash, with a bit that says that there was one.
    let mut seen = [0u64; 2 * SEARCHED];
    let mut twice = 0;
    for group in bytes.windows(4) {
        let group = u32::from_le_bytes(*group.first_chunk().expect("windows of four bytes"));
        let place = &mut seen[(group.wrapping_mul(0x9e37_79b1) >> 19) as usize];
        twice += u32::from(*place == u64::from(group) | 1 << 32);
        *place = u64::from(group) | 1 << 32;
    }
    twice >= TWICE
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::{Algorithm, Cutter};

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn chunks(bytes: &[u8]) -> ChunkList {
        ChunkList::of(bytes, Cutter::for_len(ByteLen::of(bytes)), Algorithm::Blake3)
    }

    #[test]
    fn noise_is_dense_and_what_packs_is_not() {
        for len in [8 << 10, (8 << 10) + 1, 100_000, 256 << 10] {
            assert!(is_dense(&noise(len, 1)), "{len}");
            assert!(!is_dense(&vec![7; len]));
            let text: Vec<u8> = b"the quick brown fox; ".iter().copied().cycle().take(len).collect();
            assert!(!is_dense(&text));
            // Even bytes in a short pattern.
            let pattern: Vec<u8> = noise(1000, 2).into_iter().cycle().take(len).collect();
            assert!(!is_dense(&pattern), "{len}");
            // Only letters and digits, as in base64: a quarter can be saved.
            let letters: Vec<u8> = noise(len, 3).into_iter().map(|byte| b'0' + byte % 64).collect();
            assert!(!is_dense(&letters));
        }
        assert!(!is_dense(&noise(100, 1)) && !is_dense(&[]), "short ones are no matter");
    }

    #[test]
    fn an_island_of_text_is_seen() {
        let text: Vec<u8> = b"the quick brown fox jumps over it; ".iter().copied().cycle().take(20_000).collect();
        for at in [0, 5000, 100_000, (256 << 10) - 20_000] {
            let mut bytes = noise(256 << 10, 4);
            bytes[at..at + text.len()].copy_from_slice(&text);
            assert!(!is_dense(&bytes), "{at}");
        }
    }

    #[test]
    fn what_repeats_over_a_distance_shows_in_the_chunks() {
        let once = noise(1 << 20, 5);
        assert!(is_unrepeated(&chunks(&once)));
        assert!(!is_unrepeated(&chunks(&once.repeat(2))));
        assert!(!is_unrepeated(&chunks(&vec![0; 1 << 20])));
        assert!(!is_unrepeated(&chunks(&[])));
    }

    proptest! {
        #[test]
        fn noise_is_dense(seed in any::<u64>()) {
            prop_assert!(is_dense(&noise(64 << 10, seed)));
        }
    }
}
