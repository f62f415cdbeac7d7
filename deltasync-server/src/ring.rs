//! The last so many of something, newest first; what is older is forgotten.
//!
//! Invariant: holds at most `most` items, so what peers do cannot make it grow.

use std::collections::VecDeque;

#[derive(Debug)]
pub(crate) struct Ring<T> {
    items: VecDeque<T>,
    most: usize,
}

impl<T> Ring<T> {
    /// An empty one for `most` items.
    pub(crate) fn new(most: usize) -> Self {
        Self { items: VecDeque::new(), most }
    }

    /// Adds the newest, in place of the oldest when full.
    pub(crate) fn push(&mut self, item: T) {
        self.items.push_front(item);
        self.items.truncate(self.most);
    }

    /// From the newest to the oldest.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.items.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_stay() {
        let mut ring = Ring::new(3);
        (0..10).for_each(|n| ring.push(n));
        assert_eq!(ring.iter().copied().collect::<Vec<_>>(), [9, 8, 7]);
        let mut none = Ring::new(0);
        none.push(1);
        assert_eq!(none.iter().count(), 0);
    }
}
