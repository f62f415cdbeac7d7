//! Walks a receiver's answer over the target's chunks and cuts the delta into pieces of bounded size.
//!
//! Invariant: the pieces' operations, in order, make the whole target; every copy lies within the basis that the
//! receiver announced. A pair of chunks whose short tags collide can have different lengths, so a copy that would run
//! past the basis becomes a literal; what else a collision spoils, the root finds out.

use alloc::sync::Arc;
use alloc::vec::Vec;

use deltasync_core::{ByteLen, ChunkList, Offset, Op, Ops};

use crate::{PeerMisbehaved, WantRun};

/// Fewer operations than the default limit of a receiver, so that a piece of ours is never refused.
const OPS_MAX: usize = 4096;

/// Where in the delta we are.
#[derive(Debug)]
pub(crate) struct DeltaCursor {
    chunks: Arc<ChunkList>,
    basis: ByteLen,
    runs: alloc::vec::IntoIter<WantRun>,
    /// Chunks of the target that earlier runs cover.
    covered: u64,
    /// Literal bytes of the target that are due.
    literal: core::ops::Range<u64>,
    /// The copy that is due after them.
    copy: Option<(Offset, core::ops::Range<u64>)>,
    ended: bool,
}

/// One piece: operations, and which ranges of the target its literals are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) ops: Ops,
    pub(crate) ranges: Vec<(Offset, ByteLen)>,
    pub(crate) last: bool,
}

impl DeltaCursor {
    /// A cursor over runs that must cover the target's chunks.
    pub(crate) fn new(chunks: Arc<ChunkList>, basis: ByteLen, runs: Vec<WantRun>) -> Result<Self, PeerMisbehaved> {
        let offered = chunks.chunk_count();
        let counts = runs.iter().flat_map(|run| [run.missing, run.have]);
        let got = counts.fold(0, u64::saturating_add);
        if got != offered {
            return Err(PeerMisbehaved::WantCoverage { got, offered });
        }
        Ok(Self { chunks, basis, runs: runs.into_iter(), covered: 0, literal: 0..0, copy: None, ended: false })
    }

    /// A cursor that sends everything as literals.
    pub(crate) fn whole(chunks: Arc<ChunkList>) -> Self {
        let literal = 0..chunks.len().get();
        let covered = chunks.chunk_count();
        Self { chunks, basis: ByteLen::ZERO, runs: Vec::new().into_iter(), covered, literal, copy: None, ended: false }
    }

    /// The next piece, of at most `most` literal bytes; `None` after the last.
    pub(crate) fn next_piece(&mut self, most: usize) -> Option<Piece> {
        if self.ended {
            return None;
        }
        let mut piece = Piece { ops: Ops::new(), ranges: Vec::new(), last: false };
        let mut room = most as u64;
        while piece.ops.len() < OPS_MAX {
            if !self.literal.is_empty() {
                if room == 0 {
                    return Some(piece);
                }
                let len = room.min(self.literal.end - self.literal.start);
                piece.ops.push(Op::Literal { len: ByteLen::new(len) });
                piece.ranges.push((Offset::new(self.literal.start), ByteLen::new(len)));
                self.literal.start += len;
                room -= len;
            } else if let Some((from, range)) = self.copy.take() {
                let len = ByteLen::new(range.end - range.start);
                if from.checked_add(len).is_some_and(|end| end.to_len() <= self.basis) {
                    piece.ops.push(Op::Copy { from, len });
                } else {
                    self.literal = range;
                }
            } else if let Some(run) = self.runs.next() {
                self.literal = self.bytes_of(run.missing);
                let have = self.bytes_of(run.have);
                self.copy = (!have.is_empty()).then_some((run.from, have));
            } else {
                self.ended = true;
                piece.last = true;
                break;
            }
        }
        Some(piece)
    }

    /// The bytes of the next `count` chunks.
    fn bytes_of(&mut self, count: u64) -> core::ops::Range<u64> {
        let start = self.chunks.offset_of(self.covered).get();
        self.covered += count;
        start..self.chunks.offset_of(self.covered).get()
    }
}

#[cfg(test)]
mod tests {
    use deltasync_core::{Algorithm, Cutter};
    use proptest::prelude::*;

    use super::*;

    fn list(len: usize) -> Arc<ChunkList> {
        let bytes: Vec<u8> = (0..len).map(|i| (i / 4096 + i % 7) as u8).collect();
        Arc::new(ChunkList::of(&bytes, Cutter::FIXED_4096, Algorithm::Blake3))
    }

    fn run(missing: u64, have: u64, from: u64) -> WantRun {
        WantRun { missing, have, from: Offset::new(from) }
    }

    fn pieces(mut cursor: DeltaCursor, most: usize) -> Vec<Piece> {
        core::iter::from_fn(|| cursor.next_piece(most)).collect()
    }

    fn check_pieces(pieces: &[Piece], target: u64, basis: u64, most: usize) {
        let mut at = 0;
        for piece in pieces {
            let literal: u64 = piece.ranges.iter().map(|(_, len)| len.get()).sum();
            assert_eq!(piece.ops.literal_len().get(), literal);
            assert!(literal <= most as u64);
            let mut ranges = piece.ranges.iter();
            for op in piece.ops.as_slice() {
                match *op {
                    Op::Literal { len } => {
                        let mut left = len.get();
                        while left > 0 {
                            let (start, len) = ranges.next().expect("a range for each literal");
                            assert_eq!(start.get(), at);
                            (at, left) = (at + len.get(), left - len.get());
                        }
                    }
                    Op::Copy { from, len } => {
                        assert!(from.get() + len.get() <= basis);
                        at += len.get();
                    }
                }
            }
        }
        assert_eq!(at, target, "the pieces make the whole target");
        assert_eq!(pieces.iter().filter(|piece| piece.last).count(), 1);
        assert!(pieces.last().is_some_and(|piece| piece.last));
    }

    #[test]
    fn an_empty_target_is_one_empty_last_piece() {
        let pieces = pieces(DeltaCursor::whole(list(0)), 100);
        assert_eq!(pieces, [Piece { ops: Ops::new(), ranges: Vec::new(), last: true }]);
    }

    #[test]
    fn copies_that_run_past_the_basis_are_sent_instead() {
        let cursor = DeltaCursor::new(list(8192), ByteLen::new(5000), alloc::vec![run(0, 2, 0)]).expect("covers");
        let pieces = pieces(cursor, 1 << 20);
        check_pieces(&pieces, 8192, 5000, 1 << 20);
        assert_eq!(pieces[0].ops.literal_len().get(), 8192);
    }

    #[test]
    fn runs_that_do_not_cover_the_target_are_refused() {
        for runs in [alloc::vec![run(1, 0, 0)], alloc::vec![run(2, 1, 0)], alloc::vec![run(u64::MAX, 4, 0)]] {
            let refused = DeltaCursor::new(list(8192), ByteLen::new(8192), runs);
            assert!(matches!(refused, Err(PeerMisbehaved::WantCoverage { offered: 2, .. })));
        }
    }

    proptest! {
        #[test]
        fn pieces_make_the_target(
            runs in prop::collection::vec((0u64..5, 0u64..5, 0u64..60_000), 1..20), most in 1usize..20_000,
        ) {
            let chunks: u64 = runs.iter().map(|(missing, have, _)| missing + have).sum();
            let target = list(chunks as usize * 4096);
            let runs = runs.into_iter().map(|(missing, have, from)| run(missing, have, from)).collect();
            let cursor = DeltaCursor::new(target, ByteLen::new(50_000), runs).expect("covers");
            check_pieces(&pieces(cursor, most), chunks * 4096, 50_000, most);
        }
    }
}
