//! The pieces a delta is cut into, so that neither end holds more than one at a time.
//!
//! A piece has its operations and the literal bytes they use, both bounded by [`Limits`]. [`Pieces`] collects operations
//! as they are found and closes a piece when the next byte or operation would not fit it any more.
//!
//! Invariant: where pieces end depends on the sequence of operations alone, not on how their bytes were handed over.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::{ByteLen, Limits, Offset, Op, Ops};

/// From how many literal bytes on a piece has room for all that it may hold.
const LONG: usize = 64 << 10;

/// Some operations of a delta with their literal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaPiece {
    /// The operations, in the order in which they make the target.
    pub ops: Ops,
    /// The bytes of the literal operations, one after another.
    pub literals: Vec<u8>,
}

/// Collects operations into pieces.
#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    most_ops: usize,
    most_literals: usize,
    open: DeltaPiece,
    closed: VecDeque<DeltaPiece>,
    literal: ByteLen,
    copied: ByteLen,
}

impl Pieces {
    /// No operations yet.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            // A reader counts two operations for each pair of literal and copy.
            most_ops: (limits.ops / 2).max(1),
            most_literals: limits.piece.max(1),
            open: DeltaPiece::default(),
            closed: VecDeque::new(),
            literal: ByteLen::ZERO,
            copied: ByteLen::ZERO,
        }
    }

    /// Appends bytes that are sent as they are.
    pub(crate) fn literal(&mut self, mut bytes: &[u8]) {
        self.literal += ByteLen::of(bytes);
        while !bytes.is_empty() {
            let continues = matches!(self.open.ops.as_slice().last(), Some(Op::Literal { .. }));
            let full = self.open.ops.len() >= self.most_ops && !continues;
            if full || self.open.literals.len() >= self.most_literals {
                self.close();
            }
            let (head, rest) = bytes.split_at(bytes.len().min(self.most_literals - self.open.literals.len()));
            if self.open.literals.len() + head.len() > LONG && self.open.literals.capacity() < self.most_literals {
                // It will be full soon: growing by and by would copy all of it again.
                self.open.literals.reserve_exact(self.most_literals - self.open.literals.len());
            }
            self.open.literals.extend_from_slice(head);
            self.open.ops.push(Op::Literal { len: ByteLen::of(head) });
            bytes = rest;
        }
    }

    /// Appends a range of the basis.
    pub(crate) fn copy(&mut self, from: Offset, len: ByteLen) {
        self.copied += len;
        let continues = matches!(self.open.ops.as_slice().last(),
            Some(Op::Copy { from: last, len }) if last.checked_add(*len) == Some(from));
        if self.open.ops.len() >= self.most_ops && !continues {
            self.close();
        }
        self.open.ops.push(Op::Copy { from, len });
    }

    /// Ends the open piece, whatever it holds.
    pub(crate) fn close(&mut self) {
        if !self.open.ops.is_empty() {
            self.closed.push_back(core::mem::take(&mut self.open));
        }
    }

    /// The oldest piece that is complete.
    pub(crate) fn next(&mut self) -> Option<DeltaPiece> {
        self.closed.pop_front()
    }

    /// All bytes that were appended as literals.
    pub(crate) const fn literal_len(&self) -> ByteLen {
        self.literal
    }

    /// All bytes that come from the basis.
    pub(crate) const fn copied_len(&self) -> ByteLen {
        self.copied
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A literal of so many bytes, or a copy from so many bytes on.
    type Part = (bool, usize);

    fn collect(parts: &[Part], limits: &Limits, split: usize) -> Vec<DeltaPiece> {
        let mut pieces = Pieces::new(limits);
        for (is_copy, n) in parts {
            if *is_copy {
                pieces.copy(Offset::new(*n as u64), ByteLen::new(5));
            } else {
                let bytes: Vec<u8> = (0..*n).map(|i| i as u8).collect();
                bytes.chunks(split).for_each(|part| pieces.literal(part));
            }
        }
        pieces.close();
        core::iter::from_fn(|| pieces.next()).collect()
    }

    fn check_pieces_keep_the_limits_and_the_operations(parts: &[Part], limits: &Limits) {
        let pieces = collect(parts, limits, usize::MAX);
        for piece in &pieces {
            assert!(piece.literals.len() <= limits.piece, "{} literal bytes", piece.literals.len());
            assert!(piece.ops.len() <= limits.ops / 2, "{} operations", piece.ops.len());
            assert_eq!(piece.ops.literal_len(), ByteLen::of(&piece.literals));
        }
        let unlimited = collect(parts, &Limits::default(), usize::MAX);
        let ops = |pieces: &[DeltaPiece]| pieces.iter().flat_map(|p| p.ops.as_slice().to_vec()).collect::<Ops>();
        let literals = |pieces: &[DeltaPiece]| pieces.iter().flat_map(|p| p.literals.clone()).collect::<Vec<u8>>();
        assert_eq!(ops(&pieces), ops(&unlimited));
        assert_eq!(literals(&pieces), literals(&unlimited));
        for split in [1, 3] {
            assert_eq!(collect(parts, limits, split), pieces, "split every {split}");
        }
    }

    #[test]
    fn a_literal_at_the_limit_is_one_piece_and_one_byte_more_is_two() {
        let limits = Limits::default().piece(8);
        assert_eq!(collect(&[(false, 8)], &limits, 8).len(), 1);
        assert_eq!(collect(&[(false, 9)], &limits, 8).len(), 2);
        assert_eq!(collect(&[], &limits, 8).len(), 0);
        check_pieces_keep_the_limits_and_the_operations(&[(false, 17), (true, 3), (true, 8), (false, 1)], &limits);
    }

    proptest! {
        #[test]
        fn pieces_keep_the_limits_and_the_operations(
            parts in prop::collection::vec((any::<bool>(), 0usize..40), 0..40),
            piece in 1usize..50,
            ops in 2usize..9,
        ) {
            check_pieces_keep_the_limits_and_the_operations(&parts, &Limits::default().piece(piece).ops(ops));
        }
    }
}
