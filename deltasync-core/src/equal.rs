//! How far two slices are equal, from their starts or from their ends.
//!
//! The first word decides most comparisons, where they are made. What goes on is compared in words, then in blocks of
//! 128 bytes and of 1 KiB, each of which the library compares as fast as memory is read.
//!
//! Invariant: the bytes counted are equal, and the next ones differ or do not exist.

/// How many bytes are equal at the start of both.
#[inline]
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    match (a.first_chunk(), b.first_chunk()) {
        (Some(a), Some(b)) if a != b => equal_bytes(a, b),
        _ => long_prefix(a, b),
    }
}

/// How many of the first bytes of two words are equal that differ.
const fn equal_bytes(a: &[u8; 8], b: &[u8; 8]) -> usize {
    (u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b)).trailing_zeros() as usize / 8
}

fn long_prefix(a: &[u8], b: &[u8]) -> usize {
    /// So much is compared in words first: most comparisons end there.
    const SHORT: usize = 64;
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    let mut at = 0;
    while at < SHORT
        && let (Some(a), Some(b)) = (a[at..].first_chunk(), b[at..].first_chunk())
    {
        if a != b {
            return at + equal_bytes(a, b);
        }
        at += 8;
    }
    at += equal_blocks::<128>(&a[at..len.min(1024)], &b[at..len.min(1024)]);
    at += equal_blocks::<1024>(&a[at..], &b[at..]);
    at += equal_blocks::<128>(&a[at..], &b[at..]);
    at += equal_blocks::<8>(&a[at..], &b[at..]);
    at + a[at..].iter().zip(&b[at..]).take_while(|(a, b)| a == b).count()
}

/// How many bytes the first blocks of this length have that are equal.
fn equal_blocks<const LEN: usize>(a: &[u8], b: &[u8]) -> usize {
    let blocks = a.as_chunks::<LEN>().0.iter().zip(b.as_chunks::<LEN>().0);
    LEN * blocks.take_while(|(a, b)| a == b).count()
}

/// How many bytes are equal at the end of both.
pub(crate) fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let (a_words, b_words) = (a.as_rchunks::<8>().1.iter().rev(), b.as_rchunks::<8>().1.iter().rev());
    let words = a_words.zip(b_words).take_while(|(a, b)| a == b).count() * 8;
    let (a, b) = (&a[..a.len() - words], &b[..b.len() - words]);
    words + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn long_runs_are_compared_whole() {
        for len in [0, 1, 7, 8, 9, 63, 64, 65, 191, 192, 193, 1000, 1023, 1024, 1025, 1100, 5000] {
            let a: Vec<u8> = (0..len).map(|i| ((i * i) >> 3) as u8).collect();
            assert_eq!((common_prefix(&a, &a), common_suffix(&a, &a)), (len, len));
            for differing in
                [0, 1, 7, 8, 63, 64, 100, 200, 1023, 1024, 2300, 4990].into_iter().filter(|differing| *differing < len)
            {
                let mut b = a.clone();
                b[differing] ^= 1;
                assert_eq!((common_prefix(&a, &b), common_suffix(&a, &b)), (differing, len - 1 - differing));
                assert_eq!(common_suffix(&a, &b[1..]), if differing == 0 { len - 1 } else { len - 1 - differing });
            }
        }
    }
}
