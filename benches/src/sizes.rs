//! What the exact delta between two files comes to, part by part.

use deltasync_core::{
    ByteLen, DeltaPiece, ExactDiffer, History, Limits, LiteralPacker, LiteralUnpacker, history_level, pack_ops,
};

/// The level at which columns are packed: they are small.
const COLUMNS: i32 = 19;

/// The parts of an exact delta, in bytes where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExactSizes {
    /// How many operations it has.
    pub ops: usize,
    /// The operations in columns, packed.
    pub columns: usize,
    /// The literal bytes.
    pub literals: usize,
    /// The same, packed behind the history.
    pub packed: usize,
    /// The bytes of the basis beside the edits, which literals are packed behind.
    pub history: usize,
}

impl ExactSizes {
    /// The parts of the exact delta from `basis` to `target`.
    pub fn of(basis: &[u8], target: &[u8]) -> Self {
        let pieces: Vec<_> = ExactDiffer::new(basis, target, &Limits::default()).collect();
        Self::of_pieces(basis, &pieces)
    }

    /// The parts of a delta that is there already.
    ///
    /// # Panics
    ///
    /// When what was packed is not unpacked to the same, a bug.
    pub fn of_pieces(basis: &[u8], pieces: &[DeltaPiece]) -> Self {
        let parts = Parts::of(basis, pieces);
        if let Some(packed) = &parts.packed {
            let literals = LiteralUnpacker::new(&parts.history)
                .and_then(|mut unpacker| unpacker.push(packed, parts.literals.len()));
            assert_eq!(literals.as_ref(), Ok(&parts.literals));
        }
        Self {
            ops: pieces.iter().map(|piece| piece.ops.len()).sum(),
            columns: parts.columns.len(),
            literals: parts.literals.len(),
            packed: parts.literals().len(),
            history: parts.history.len(),
        }
    }

    /// The whole delta: columns and packed literals.
    pub fn len(&self) -> usize {
        self.columns + self.packed
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The exact delta from `basis` to `target`, as long as one that is sent: columns, and packed literals behind them.
pub fn exact_delta(basis: &[u8], target: &[u8]) -> Vec<u8> {
    let pieces: Vec<_> = ExactDiffer::new(basis, target, &Limits::default()).collect();
    let parts = Parts::of(basis, &pieces);
    [&parts.columns, parts.literals()].concat()
}

/// The same in bytes.
struct Parts {
    columns: Vec<u8>,
    literals: Vec<u8>,
    /// The literals, where packing makes them shorter.
    packed: Option<Vec<u8>>,
    history: Vec<u8>,
}

impl Parts {
    fn of(basis: &[u8], pieces: &[DeltaPiece]) -> Self {
        let mut history = History::new(ByteLen::of(basis));
        let mut columns = Vec::new();
        let mut literals = Vec::new();
        for piece in pieces {
            history.push(&piece.ops);
            pack_ops(&piece.ops, COLUMNS, &mut columns);
            literals.extend_from_slice(&piece.literals);
        }
        let ranges = history.finish();
        let old: Vec<&[u8]> =
            ranges.iter().map(|range| &basis[range.start.get() as usize..range.end.get() as usize]).collect();
        let history = old.concat();
        let level = history_level(literals.len() + history.len());
        let packer = LiteralPacker::new(&history, ByteLen::of(&literals), level);
        let packed = packer.and_then(|mut packer| packer.push(&literals, true));
        let packed = packed.filter(|packed| packed.len() < literals.len());
        Self { columns, literals, packed, history }
    }

    /// As they are sent.
    fn literals(&self) -> &[u8] {
        self.packed.as_ref().unwrap_or(&self.literals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    #[test]
    fn a_delta_is_the_content_and_a_few_bytes_a_place() {
        let case = Shape::OneBlockReplaced.case(1, 1 << 20);
        let sizes = ExactSizes::of(&case.basis, &case.target);
        assert!((4080..=4096).contains(&sizes.literals), "{sizes:?}");
        assert!((4080..4130).contains(&sizes.len()), "{sizes:?}");
        assert_eq!(exact_delta(&case.basis, &case.target).len(), sizes.len());
        assert!(ExactSizes::of(&case.basis, &case.basis).len() < 30);
    }
}
