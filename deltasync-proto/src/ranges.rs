//! Ranges of a file that are to be read, a bounded number of bytes at a time.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use deltasync_core::{ByteLen, Offset};

/// What is still to be read, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges(VecDeque<(Offset, ByteLen)>);

/// What is to be read next.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// The ranges.
    pub(crate) ranges: Vec<(Offset, ByteLen)>,
    /// How many bytes they are.
    pub(crate) len: u64,
    /// Where among these bytes each range ends that was taken to its end.
    pub(crate) ends: Vec<usize>,
}

impl Ranges {
    /// Appends a range.
    pub(crate) fn push(&mut self, start: Offset, len: ByteLen) {
        self.0.push_back((start, len));
    }

    /// True when nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges that are left.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &(Offset, ByteLen)> {
        self.0.iter()
    }

    /// Takes `most` bytes off the front, or what is left; the last range in part, where it is longer.
    pub(crate) fn take(&mut self, most: u64) -> Taken {
        let mut taken = Taken::default();
        while taken.len < most
            && let Some((start, len)) = self.0.front_mut()
        {
            let part = len.get().min(most - taken.len);
            taken.ranges.push((*start, ByteLen::new(part)));
            taken.len += part;
            if part == len.get() {
                taken.ends.push(usize::try_from(taken.len).expect("so much is read into memory"));
                self.0.pop_front();
            } else {
                *start += ByteLen::new(part);
                *len = *len - ByteLen::new(part);
            }
        }
        taken
    }
}

impl FromIterator<(Offset, ByteLen)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (Offset, ByteLen)>>(ranges: I) -> Self {
        Self(ranges.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn ranges_are_taken_in_order_and_in_part() {
        let range = |start, len| (Offset::new(start), ByteLen::new(len));
        let mut ranges: Ranges = [range(100, 10), range(200, 5), range(300, 20)].into_iter().collect();
        let first = ranges.take(17);
        assert_eq!(first.ranges, vec![range(100, 10), range(200, 5), range(300, 2)]);
        assert_eq!((first.len, first.ends), (17, vec![10, 15]));
        let rest = ranges.take(100);
        assert_eq!((rest.ranges, rest.len, rest.ends), (vec![range(302, 18)], 18, vec![18]));
        assert!(ranges.is_empty() && ranges.take(5).ranges.is_empty());
    }
}
