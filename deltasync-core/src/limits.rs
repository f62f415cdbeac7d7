//! What a peer may make us hold or do, in one place.
//!
//! Every length, count and offset that comes from outside meets one of these before it reaches an allocation or a loop.
//! The defaults suit a server open to strangers; an embedder tightens or raises them through the setters.

use crate::ByteLen;

/// Bounds on input from outside. `Limits::default()` works for files up to 16 TiB.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest file we send, receive or patch, in bytes (default 16 TiB).
    pub file: ByteLen,
    /// The most chunks or blocks of one file, runs counted as one (default 2^22).
    pub chunks: usize,
    /// The most operations in one piece of a delta (default 65,536).
    pub ops: usize,
    /// The most literal bytes in one piece of a delta, after decompression (default 1 MiB).
    pub piece: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file: ByteLen::new(16 << 40), chunks: 1 << 22, ops: 1 << 16, piece: 1 << 20 }
    }
}

impl Limits {
    /// Sets the longest file, in bytes.
    #[must_use]
    pub fn file(mut self, file: ByteLen) -> Self {
        self.file = file;
        self
    }

    /// Sets the most chunks or blocks of one file.
    #[must_use]
    pub fn chunks(mut self, chunks: usize) -> Self {
        self.chunks = chunks;
        self
    }

    /// Sets the most operations in one piece of a delta.
    #[must_use]
    pub fn ops(mut self, ops: usize) -> Self {
        self.ops = ops;
        self
    }

    /// Sets the most literal bytes in one piece of a delta.
    #[must_use]
    pub fn piece(mut self, piece: usize) -> Self {
        self.piece = piece;
        self
    }
}

/// Something from outside is larger than we allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} of {wanted} is over the limit of {allowed}")]
pub struct LimitExceeded {
    /// Which quantity, as a noun: "file length", "operations in a piece".
    pub what: &'static str,
    /// What was asked for.
    pub wanted: u64,
    /// What is allowed.
    pub allowed: u64,
}

impl LimitExceeded {
    /// `Ok` when `wanted` is at most `allowed`.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] naming `what` otherwise.
    pub fn check(what: &'static str, wanted: u64, allowed: u64) -> Result<(), LimitExceeded> {
        if wanted <= allowed { Ok(()) } else { Err(LimitExceeded { what, wanted, allowed }) }
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn a_limit_is_inclusive_and_names_what_passed_it() {
        assert_eq!(LimitExceeded::check("file length", 8, 8), Ok(()));
        let error = LimitExceeded::check("file length", 9, 8).expect_err("9 is over 8");
        assert_eq!(error.to_string(), "file length of 9 is over the limit of 8");
    }
}
