//! Cuts the bytes of a fuzz target into parameters: any bytes mean something, and a change of one changes little.

use crate::Rng;

/// A named input for a fuzz target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// A short name, good for a file.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

impl Seed {
    pub(crate) fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), bytes: bytes.into() }
    }
}

/// Takes values off the front of the bytes; where none are left they are zeros.
#[derive(Clone, Debug)]
pub(crate) struct Take<'a> {
    rest: &'a [u8],
}

impl<'a> Take<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// At most `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        head
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// Two bytes, least significant first.
    pub(crate) fn short(&mut self) -> usize {
        usize::from(self.byte()) | usize::from(self.byte()) << 8
    }

    /// A length made to a splitting: a byte, where 255 means no split.
    pub(crate) fn split(&mut self) -> Split {
        let byte = self.byte();
        Split { most: if byte == u8::MAX { usize::MAX } else { 1 + usize::from(byte) } }
    }

    /// The bytes that `recipe` makes from what `basis` has: a byte below 128 takes so many of its own bytes and one more, any
    /// other copies a range of the basis, given by two numbers of two bytes.
    pub(crate) fn derived(&mut self, basis: &[u8], most: usize) -> Vec<u8> {
        let mut made = Vec::new();
        while !self.is_empty() && made.len() < most {
            match self.byte() {
                literal @ 0..128 => made.extend_from_slice(self.bytes(1 + usize::from(literal))),
                _ => {
                    let (from, len) = (self.short(), self.short());
                    let from = &basis[from.min(basis.len())..];
                    made.extend_from_slice(&from[..len.min(from.len())]);
                }
            }
        }
        made.truncate(most);
        made
    }
}

/// Writes what [`Take::derived`] reads: the target as literals and copies of the basis.
#[derive(Debug, Default)]
pub(crate) struct Recipe(pub(crate) Vec<u8>);

impl Recipe {
    pub(crate) fn literal(mut self, bytes: &[u8]) -> Self {
        for part in bytes.chunks(128) {
            self.0.push((part.len() - 1) as u8);
            self.0.extend_from_slice(part);
        }
        self
    }

    pub(crate) fn copy(mut self, from: u16, len: u16) -> Self {
        self.0.push(128);
        self.0.extend_from_slice(&from.to_le_bytes());
        self.0.extend_from_slice(&len.to_le_bytes());
        self
    }
}

/// How bytes are cut into pieces: the lengths vary up to `most`, always in the same way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    most: usize,
}

impl Split {
    pub(crate) const WHOLE: Self = Self { most: usize::MAX };

    pub(crate) fn pieces(self, mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        let mut rng = Rng::new(self.most as u64);
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let len = if self.most < bytes.len() { 1 + rng.below(self.most) } else { bytes.len() };
            let (piece, rest) = bytes.split_at(len.min(bytes.len()));
            bytes = rest;
            Some(piece)
        })
    }
}
