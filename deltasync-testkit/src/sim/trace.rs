//! What a run did, as one number and, when asked, as lines for people.
//!
//! Everything that happens is folded into the number in the order in which it happens: the moment, what it was, and the
//! bytes that crossed a link. Two runs of one seed have the same number, or something in them was drawn from elsewhere.

use std::fmt::Write as _;

/// The record of a run.
#[derive(Debug)]
pub(super) struct Trace {
    number: u64,
    lines: Option<String>,
}

impl Trace {
    /// An empty record; with `lines` one that people can read too.
    pub(super) fn new(lines: bool) -> Self {
        Self { number: 0xcbf2_9ce4_8422_2325, lines: lines.then(String::new) }
    }

    /// Something happened at a moment, in nanoseconds; `say` tells it to people.
    pub(super) fn note(&mut self, now: u64, what: &str, details: [u64; 2], say: impl FnOnce() -> String) {
        self.fold(now);
        self.fold_bytes(what.as_bytes());
        details.into_iter().for_each(|detail| self.fold(detail));
        if let Some(lines) = &mut self.lines {
            writeln!(lines, "{:>12.6} s  {what}: {}", now as f64 / 1e9, say()).expect("a string takes everything");
        }
    }

    /// Bytes crossed a link.
    pub(super) fn fold_bytes(&mut self, bytes: &[u8]) {
        self.fold(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.fold(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.fold(u64::from(*byte)));
    }

    fn fold(&mut self, word: u64) {
        self.number = (self.number ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    pub(super) fn finish(self) -> (u64, Option<String>) {
        (self.number, self.lines)
    }
}
