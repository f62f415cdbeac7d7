//! A window of the weak sum on its way over bytes: where a block may stand, and how far the bytes only repeat themselves.
//!
//! Several windows roll side by side over parts of the bytes, since each step of one needs the step before it. Of bytes with
//! a short period every window is one of those at its start, so that none of the others need be looked at.
//!
//! Cost: two multiplications and a probe of a filter a byte; where bytes repeat themselves, a comparison.

use alloc::vec::Vec;

use crate::RollingSum;
use crate::index::mix;
use crate::table::Table;

/// How many windows roll side by side: one alone would wait for its multiplications.
const STREAMS: usize = 4;

/// Rolls `sum`, that of the first `len` of `bytes`, on to the last window, and appends to `hits` where a block may have the
/// sum, and the sum. The first window is not looked at.
pub(crate) fn roll_on(table: &Table, sum: &mut RollingSum, bytes: &[u8], len: usize, hits: &mut Vec<(usize, u32)>) {
    let most = bytes.len() - len;
    let mut each = most / STREAMS;
    // Each stream but the first begins with a fresh sum.
    if each < len / 4 {
        each = 0;
    }
    if each > 0 {
        let fresh = |stream: usize| if stream == 0 { *sum } else { RollingSum::of(&bytes[stream * each..][..len]) };
        let mut sums: [RollingSum; STREAMS] = core::array::from_fn(fresh);
        let leaving: [&[u8]; STREAMS] = core::array::from_fn(|stream| &bytes[stream * each..][..each]);
        let entering: [&[u8]; STREAMS] = core::array::from_fn(|stream| &bytes[stream * each + len..][..each]);
        let mut of_streams: [Vec<(usize, u32)>; STREAMS] = Default::default();
        for i in 0..each {
            for stream in 0..STREAMS {
                sums[stream].roll(leaving[stream][i], entering[stream][i]);
                if table.may_hold(mix(sums[stream].value())) {
                    of_streams[stream].push((stream * each + i + 1, sums[stream].value()));
                }
            }
        }
        of_streams.iter().for_each(|of_stream| hits.extend_from_slice(of_stream));
        *sum = sums[STREAMS - 1];
    }
    let rest = STREAMS * each;
    let mut rolling = *sum;
    for (i, (old, new)) in bytes[rest..].iter().zip(&bytes[rest + len..]).enumerate() {
        rolling.roll(*old, *new);
        if table.may_hold(mix(rolling.value())) {
            hits.push((rest + i + 1, rolling.value()));
        }
    }
    *sum = rolling;
}

/// The longest period that is noticed, in bytes.
pub(crate) const PERIOD: usize = 16;

/// How many windows of `len` bytes, one after another behind that at `at`, are the same as one of the `looked` that end with
/// it, because `bytes` repeat themselves: from the start of the first of those that are as many as the period is long.
pub(crate) fn same_windows(bytes: &[u8], at: usize, len: usize, looked: usize) -> usize {
    let end = at + len;
    let repeats = |period: &usize| {
        bytes[end - 1] == bytes[end - 1 - period] && bytes[at + 1..end] == bytes[at + 1 - period..end - period]
    };
    let longest = PERIOD.min(looked).min(len - 1).min(at + 1);
    let Some(period) = (1..=longest).find(repeats) else { return 0 };
    // All of it is compared at once, since such runs are long.
    let (next, before) = (&bytes[end..], &bytes[end - period..bytes.len() - period]);
    if next == before {
        next.len()
    } else {
        next.iter().zip(before).take_while(|(next, before)| next == before).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cut::tests::random;
    use crate::rolling::weak_sum;
    use crate::table::Entry;

    #[test]
    fn windows_of_bytes_that_repeat_themselves_are_skipped_as_far_as_they_do() {
        for period in [1, 2, 3, 7, 16, 17] {
            let mut bytes = random(12, period).repeat(600 / period);
            let (len, at) = (bytes.len(), period - 1);
            bytes[len - 10] ^= 1;
            let skipped = if period <= PERIOD { len - 10 - 100 - at } else { 0 };
            assert_eq!(same_windows(&bytes, at, 100, period), skipped, "a period of {period}");
            assert_eq!(same_windows(&bytes, at, 100, period - 1), 0, "a window of a period of {period} is new");
            if period > 1 {
                assert_eq!(same_windows(&bytes[1..], at - 1, 100, period), 0, "where one begins is not there");
            }
            if period <= PERIOD {
                // The first of those that were looked at, which the next one would be the same as.
                bytes[0] ^= 1;
                assert_eq!(
                    same_windows(&bytes, at, 100, period),
                    0,
                    "a window of a period of {period} that was another"
                );
            }
        }
    }

    fn check_rolling_hits(bytes: &[u8], len: usize) {
        let entry = |at: usize| Entry { key: mix(weak_sum(&bytes[at..at + len])), block: at as u32, order: 0 };
        let windows = bytes.len() - len;
        let entries = (0..=windows).step_by(37).map(entry).collect();
        let size = crate::table::FilterSize { an_entry: 6, most: 25 };
        let table = Table::new(entries, size, |_, _| core::cmp::Ordering::Equal);
        let (mut sum, mut hits) = (RollingSum::of(&bytes[..len]), Vec::new());
        roll_on(&table, &mut sum, bytes, len, &mut hits);
        assert_eq!(sum, RollingSum::of(&bytes[windows..]));
        let sums = (1..=windows).map(|at| (at, weak_sum(&bytes[at..at + len])));
        let slow: Vec<(usize, u32)> = sums.filter(|(_, sum)| table.may_hold(mix(*sum))).collect();
        assert!(windows < 37 || !slow.is_empty());
        assert_eq!(hits, slow, "{} bytes, windows of {len}", bytes.len());
    }

    #[test]
    fn windows_that_roll_side_by_side_hit_what_one_alone_does() {
        let bytes = random(13, 3000);
        for windows in [1, 2, 3, 4, 5, 15, 16, 17, 100, 1023, 2000] {
            check_rolling_hits(&bytes[..64 + windows], 64);
            check_rolling_hits(&bytes[..windows + 16], 16);
        }
    }
}
