//! Buffers of bulk data that are used again: fresh memory of this size is mapped page by page, which takes longer than to
//! fill it.
//!
//! Invariant: at most [`KEPT`] buffers of [`LEN`] bytes wait in the process. What a buffer held is in it until it is
//! overwritten; it is only ever seen through the part that was filled.

use std::mem::take;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// The length of the buffers that are kept, in bytes: that of a piece.
pub(crate) const LEN: usize = 256 << 10;
/// How many are kept.
const KEPT: usize = 16;
/// Shorter ones come cheap.
const LEAST: usize = 32 << 10;

static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Some bytes to be filled, and given on as [`Bytes`].
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Longer than `len` where it is one of those that are kept.
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` bytes, with any content.
    pub(crate) fn new(len: usize) -> Self {
        if !(LEAST..=LEN).contains(&len) {
            return Self { bytes: vec![0; len], len };
        }
        let kept = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { bytes: kept.unwrap_or_else(|| vec![0; LEN]), len }
    }

    /// Its first `len` bytes.
    ///
    /// # Panics
    ///
    /// When it has fewer.
    pub(crate) fn freeze(mut self, len: usize) -> Bytes {
        assert!(len <= self.len, "{len} bytes of a buffer of {}", self.len);
        self.len = len;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() == LEN {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            if free.len() < KEPT {
                free.push(take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_holds_what_was_put_in(len: usize) {
        for byte in [1, 2] {
            let mut buffer = Buffer::new(len);
            assert_eq!(buffer.len(), len);
            buffer.fill(byte);
            let part = len / 3;
            assert_eq!(buffer.freeze(part), vec![byte; part]);
            let mut another = Buffer::new(len);
            another.fill(byte + 1);
            let bytes = another.freeze(len);
            assert_eq!((bytes.slice(len / 2..), bytes.len()), (vec![byte + 1; len - len / 2].into(), len));
        }
    }

    #[test]
    fn any_length_holds_what_was_put_in() {
        for len in [0, 1, LEAST - 1, LEAST, LEAST + 1, LEN - 1, LEN, LEN + 1, 3 * LEN] {
            check_holds_what_was_put_in(len);
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let many: Vec<_> = (0..4 * KEPT).map(|_| Buffer::new(LEN)).collect();
        drop(many);
        assert!(FREE.lock().expect("no test panics under it").len() <= KEPT);
    }
}
