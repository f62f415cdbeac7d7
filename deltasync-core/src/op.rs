//! The operations of a delta and their columns on the wire.
//!
//! A delta is the ordered literals and copies that make a target. They are written as three columns, so that like
//! stands beside like: for each pair "literal, then copy" its literal length, its copy length, and how far the copy
//! starts from where the copy before it ended. The unchanged stretches of an edited file continue the last copy at a
//! small shift, so most entries of the third column are a byte. The literal bytes travel beside the columns.
//!
//! Invariant: `decode_ops(encode_ops(ops)) == ops` for any list; neighbours that could be one operation are joined by
//! [`Ops::push`], unless their length together would pass 64 bits.

use alloc::vec::Vec;

use crate::{ByteLen, LimitExceeded, Limits, Malformed, Offset, Reader, write_signed, write_varint};

/// One operation: bytes of the target from the literals, or from the basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The next `len` literal bytes.
    Literal {
        /// How many.
        len: ByteLen,
    },
    /// `len` bytes of the basis from `from` on.
    Copy {
        /// Where in the basis.
        from: Offset,
        /// How many.
        len: ByteLen,
    },
}

impl Op {
    /// How many bytes of the target this makes.
    pub const fn len(&self) -> ByteLen {
        match *self {
            Self::Literal { len } | Self::Copy { len, .. } => len,
        }
    }

    /// True for an operation that makes nothing.
    pub const fn is_empty(&self) -> bool {
        self.len().get() == 0
    }
}

/// A list of operations in which no two neighbours could be one and none is empty. Literals in a row must add up to less
/// than 2^64 bytes; [`decode_ops`] takes none in a row from a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ops(Vec<Op>);

impl Ops {
    /// No operations.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends an operation, joined to the last one where the two are adjacent.
    pub fn push(&mut self, op: Op) {
        if op.is_empty() {
            return;
        }
        match (self.0.last_mut(), op) {
            (Some(Op::Literal { len }), Op::Literal { len: more }) => *len += more,
            (Some(Op::Copy { from, len }), Op::Copy { from: next, len: more })
                if from.checked_add(*len) == Some(next) && len.checked_add(more).is_some() =>
            {
                *len += more;
            }
            _ => self.0.push(op),
        }
    }

    /// The operations in order.
    pub fn as_slice(&self) -> &[Op] {
        &self.0
    }

    /// How many operations.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that come from literals; 2^64 - 1 where unchecked operations name more.
    pub fn literal_len(&self) -> ByteLen {
        saturating_sum(self.0.iter().filter_map(|op| if let Op::Literal { len } = op { Some(len) } else { None }))
    }

    /// The bytes that come from the basis; 2^64 - 1 where unchecked operations name more.
    pub fn copied_len(&self) -> ByteLen {
        saturating_sum(self.0.iter().filter_map(|op| if let Op::Copy { len, .. } = op { Some(len) } else { None }))
    }
}

fn saturating_sum<'a>(lengths: impl Iterator<Item = &'a ByteLen>) -> ByteLen {
    ByteLen::new(lengths.fold(0, |sum: u64, len| sum.saturating_add(len.get())))
}

impl FromIterator<Op> for Ops {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> Self {
        let mut list = Self::new();
        ops.into_iter().for_each(|op| list.push(op));
        list
    }
}

/// Appends the columns of `ops`: their number of pairs, then literal lengths, copy lengths, changes of offset.
pub fn encode_ops(ops: &Ops, out: &mut Vec<u8>) {
    let (pairs, columns) = columns_of(ops);
    write_varint(out, pairs);
    columns.iter().for_each(|column| out.extend_from_slice(column));
}

/// The number of pairs, and their literal lengths, copy lengths and changes of offset.
pub(crate) fn columns_of(ops: &Ops) -> (u64, [Vec<u8>; 3]) {
    let mut pairs: Vec<(ByteLen, Option<(Offset, ByteLen)>)> = Vec::new();
    for op in ops.as_slice() {
        match (*op, pairs.last_mut()) {
            (Op::Literal { len }, _) => pairs.push((len, None)),
            (Op::Copy { from, len }, Some((_, copy @ None))) => *copy = Some((from, len)),
            (Op::Copy { from, len }, _) => pairs.push((ByteLen::ZERO, Some((from, len)))),
        }
    }
    let (mut literals, mut copies, mut changes) = (Vec::new(), Vec::new(), Vec::new());
    let mut expected = Offset::ZERO;
    for (literal, copy) in &pairs {
        write_varint(&mut literals, literal.get());
        write_varint(&mut copies, copy.map_or(0, |(_, len)| len.get()));
        if let Some((from, len)) = *copy {
            write_signed(&mut changes, from.get().wrapping_sub(expected.get()) as i64);
            expected = from.checked_add(len).unwrap_or(Offset::ZERO);
        }
    }
    (pairs.len() as u64, [literals, copies, changes])
}

/// Reads columns that [`encode_ops`] wrote.
///
/// # Errors
///
/// [`InvalidOps`] when the bytes are damaged or hold more operations than `limits` allow.
///
/// # Security
///
/// Takes hostile bytes: allocates at most what the bytes at hand can fill, and offsets and lengths are only numbers
/// until a [`Planner`](crate::Planner) has checked them against a basis.
pub fn decode_ops(reader: &mut Reader<'_>, limits: &Limits) -> Result<Ops, InvalidOps> {
    let pairs = reader.varint()?;
    decode_columns(reader, pairs, limits)
}

/// The same of columns whose number of pairs was read already.
pub(crate) fn decode_columns(reader: &mut Reader<'_>, pairs: u64, limits: &Limits) -> Result<Ops, InvalidOps> {
    // Each pair is at most two operations and at least two bytes.
    LimitExceeded::check("operations in a piece", pairs.saturating_mul(2), limits.ops as u64)?;
    if pairs > reader.rest().len() as u64 / 2 {
        return Err(Malformed::Truncated.into());
    }
    let column = |reader: &mut Reader<'_>| (0..pairs).map(|_| reader.varint()).collect::<Result<Vec<_>, _>>();
    let literals = column(reader)?;
    let copies = column(reader)?;
    let mut ops = Ops::new();
    let mut expected = Offset::ZERO;
    for (pair, (literal, copy)) in (1..).zip(literals.into_iter().zip(copies)) {
        if copy == 0 && (literal == 0 || pair < pairs) {
            return Err(Malformed::Value("a pair without a copy is empty or not the last").into());
        }
        ops.push(Op::Literal { len: ByteLen::new(literal) });
        if copy > 0 {
            let from = Offset::new(expected.get().wrapping_add(reader.signed()? as u64));
            let len = ByteLen::new(copy);
            expected = from.checked_add(len).unwrap_or(Offset::ZERO);
            ops.push(Op::Copy { from, len });
        }
    }
    Ok(ops)
}

/// Why bytes are no list of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOps {
    /// The bytes are damaged.
    #[error("operations are damaged: {0}")]
    Malformed(#[from] Malformed),
    /// There are too many.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn literal(len: u64) -> Op {
        Op::Literal { len: ByteLen::new(len) }
    }

    pub(crate) fn copy(from: u64, len: u64) -> Op {
        Op::Copy { from: Offset::new(from), len: ByteLen::new(len) }
    }

    fn check_round_trip(ops: &Ops) {
        let mut bytes = Vec::new();
        encode_ops(ops, &mut bytes);
        let mut reader = Reader::new(&bytes);
        assert_eq!(decode_ops(&mut reader, &Limits::default()).as_ref(), Ok(ops));
        assert!(reader.is_empty());
    }

    #[test]
    fn adjacent_operations_join() {
        let ops: Ops = [literal(1), literal(2), copy(0, 4), copy(4, 4), copy(9, 1), literal(0)].into_iter().collect();
        assert_eq!(ops.as_slice(), [literal(3), copy(0, 8), copy(9, 1)]);
        assert_eq!((ops.literal_len().get(), ops.copied_len().get()), (3, 9));
    }

    #[test]
    fn columns_round_trip_at_the_edges() {
        for ops in [vec![], vec![literal(1)], vec![copy(0, 1)], vec![copy(u64::MAX, u64::MAX), copy(0, 5), literal(2)]]
        {
            check_round_trip(&ops.into_iter().collect());
        }
    }

    #[test]
    fn a_count_of_operations_that_the_bytes_cannot_hold_is_refused_before_anything_is_allocated() {
        let mut bytes = Vec::new();
        write_varint(&mut bytes, 1 << 62);
        let wanted = decode_ops(&mut Reader::new(&bytes), &Limits::default());
        assert!(matches!(wanted, Err(InvalidOps::Limit(_))), "{wanted:?}");
        let short = decode_ops(&mut Reader::new(&[200, 1, 1]), &Limits::default());
        assert_eq!(short, Err(InvalidOps::Malformed(Malformed::Truncated)));
    }

    #[test]
    fn literals_whose_sum_passes_64_bits_do_not_panic() {
        let mut bytes = Vec::new();
        [2, u64::MAX, u64::MAX, 0, 0].into_iter().for_each(|value| write_varint(&mut bytes, value));
        let refused = decode_ops(&mut Reader::new(&bytes), &Limits::default());
        assert!(matches!(refused, Err(InvalidOps::Malformed(Malformed::Value(_)))), "{refused:?}");
        let mut bytes = Vec::new();
        [2, u64::MAX, u64::MAX, 1, 0, 0].into_iter().for_each(|value| write_varint(&mut bytes, value));
        let ops =
            decode_ops(&mut Reader::new(&bytes), &Limits::default()).expect("numbers only, until they are planned");
        assert_eq!(ops.literal_len().get(), u64::MAX);
    }

    proptest! {
        #[test]
        fn columns_round_trip(parts in prop::collection::vec((any::<bool>(), any::<u64>(), 1u64..1 << 40), 0..50)) {
            let ops = parts.into_iter().map(|(is_copy, from, len)| if is_copy { copy(from, len) } else { literal(len) });
            check_round_trip(&ops.collect());
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_ops(&mut Reader::new(&bytes), &Limits::default());
        }
    }
}
