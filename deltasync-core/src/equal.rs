//! How far two slices are equal, from their starts or from their ends.
//!
//! Words first, as most comparisons end soon, then blocks of 128 bytes, which the compiler compares in vectors.
//!
//! Invariant: the bytes counted are equal, and the next ones differ or do not exist.

/// How many bytes are equal at the start of both.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    let (a_words, b_words) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let mut words = 0;
    // Most comparisons end within a word or two; long ones run by larger blocks.
    while words < a_words.len() {
        let differing = u64::from_le_bytes(a_words[words]) ^ u64::from_le_bytes(b_words[words]);
        if differing != 0 {
            return words * 8 + differing.trailing_zeros() as usize / 8;
        }
        words += 1;
        if words.is_multiple_of(8) {
            let blocks = a_words[words..].as_chunks::<16>().0.iter().zip(b_words[words..].as_chunks::<16>().0);
            words += 16 * blocks.take_while(|(a, b)| a == b).count();
        }
    }
    let start = words * 8;
    start + a[start..].iter().zip(&b[start..]).take_while(|(a, b)| a == b).count()
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
        for len in [0, 1, 7, 8, 9, 63, 64, 65, 191, 192, 193, 1000] {
            let a: Vec<u8> = (0..len).map(|i| ((i * i) >> 3) as u8).collect();
            assert_eq!((common_prefix(&a, &a), common_suffix(&a, &a)), (len, len));
            for differing in [0, 1, 8, 64, 100, 200].into_iter().filter(|differing| *differing < len) {
                let mut b = a.clone();
                b[differing] ^= 1;
                assert_eq!((common_prefix(&a, &b), common_suffix(&a, &b)), (differing, len - 1 - differing));
                assert_eq!(common_suffix(&a, &b[1..]), if differing == 0 { len - 1 } else { len - 1 - differing });
            }
        }
    }
}
