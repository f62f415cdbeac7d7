//! The operations of a delta in columns that are packed apart.
//!
//! | field | bytes | |
//! |---|---|---|
//! | pairs | varint | how many pairs of literal and copy |
//! | three columns | | literal lengths, copy lengths, changes of offset |
//!
//! and each column is
//!
//! | field | bytes | |
//! |---|---|---|
//! | length and kind | varint | twice the bytes that follow, and 1 more when they are packed |
//! | raw length | varint | only when packed |
//! | values | | varints, as [`encode_ops`](crate::encode_ops) writes them, or one zstd frame of them |
//!
//! Like compresses with like: the lengths of an edited table repeat, and so do the distances of its rows. For a handful
//! of operations nothing packs, and this is a few bytes longer than [`encode_ops`](crate::encode_ops).
//!
//! Invariant: `unpack_ops(pack_ops(ops)) == ops`, for as many operations as the limits allow.

use alloc::vec::Vec;

use crate::op::columns_of;
use crate::{
    InvalidOps, LimitExceeded, Limits, Malformed, Ops, Reader, UnpackError, decode_ops, pack, unpack, write_varint,
};

/// The longest varint, in bytes.
const LONGEST: usize = 10;

/// Appends the columns of `ops`, each packed at `level` (as for [`pack`](crate::pack())) where that makes it smaller.
pub fn pack_ops(ops: &Ops, level: i32, out: &mut Vec<u8>) {
    let (pairs, columns) = columns_of(ops);
    write_varint(out, pairs);
    for column in columns {
        match pack(&column, level) {
            Some(packed) => {
                write_varint(out, packed.len() as u64 * 2 + 1);
                write_varint(out, column.len() as u64);
                out.extend_from_slice(&packed);
            }
            None => {
                write_varint(out, column.len() as u64 * 2);
                out.extend_from_slice(&column);
            }
        }
    }
}

/// Reads columns that [`pack_ops`] wrote.
///
/// # Errors
///
/// [`InvalidColumns`] when the bytes are damaged, packed in a build that cannot unpack, or hold more operations than
/// `limits` allow.
///
/// # Security
///
/// Takes hostile bytes: a column becomes at most ten bytes for each operation that `limits` allow, whatever it was
/// packed to; offsets and lengths are only numbers until a [`Planner`](crate::Planner) has checked them.
pub fn unpack_ops(reader: &mut Reader<'_>, limits: &Limits) -> Result<Ops, InvalidColumns> {
    let pairs = reader.varint()?;
    LimitExceeded::check("operations in a piece", pairs.saturating_mul(2), limits.ops as u64)?;
    let most = (pairs as usize).saturating_mul(LONGEST);
    let mut plain = Vec::new();
    write_varint(&mut plain, pairs);
    for _ in 0..3 {
        let head = reader.varint()?;
        let packed = head & 1 == 1;
        let raw_len = if packed { reader.varint()? } else { head / 2 };
        LimitExceeded::check("bytes in a column of operations", raw_len, most as u64)?;
        let bytes = reader.bytes(usize::try_from(head / 2).map_err(|_| Malformed::Truncated)?)?;
        if packed {
            plain.extend_from_slice(&unpack(bytes, raw_len as usize)?);
        } else {
            plain.extend_from_slice(bytes);
        }
    }
    let mut plain = Reader::new(&plain);
    let ops = decode_ops(&mut plain, limits)?;
    plain.finish()?;
    Ok(ops)
}

/// Why bytes are no packed operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidColumns {
    /// A column did not unpack.
    #[error("a column of operations does not unpack: {0}")]
    Packed(#[from] UnpackError),
    /// What came out are no operations.
    #[error(transparent)]
    Ops(#[from] InvalidOps),
}

impl From<Malformed> for InvalidColumns {
    fn from(error: Malformed) -> Self {
        Self::Ops(error.into())
    }
}

impl From<LimitExceeded> for InvalidColumns {
    fn from(error: LimitExceeded) -> Self {
        Self::Ops(error.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::encode_ops;
    use crate::{ByteLen, Offset, Op};

    fn ops(parts: impl IntoIterator<Item = (u64, u64, u64)>) -> Ops {
        let pair = |(literal, from, len)| {
            [Op::Literal { len: ByteLen::new(literal) }, Op::Copy { from: Offset::new(from), len: ByteLen::new(len) }]
        };
        parts.into_iter().flat_map(pair).collect()
    }

    fn check_round_trip(ops: &Ops) {
        let mut bytes = Vec::new();
        pack_ops(ops, 19, &mut bytes);
        let mut reader = Reader::new(&bytes);
        assert_eq!(unpack_ops(&mut reader, &Limits::default()).as_ref(), Ok(ops));
        assert!(reader.is_empty());
    }

    #[test]
    fn columns_round_trip_at_the_edges() {
        check_round_trip(&Ops::new());
        check_round_trip(&ops([(u64::MAX, u64::MAX, u64::MAX)]));
        check_round_trip(&[Op::Literal { len: ByteLen::new(5) }].into_iter().collect());
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn an_edited_table_packs_to_a_fraction() {
        let table = ops((0..1000).map(|i| (4, i * 100, 96)));
        let (mut plain, mut packed) = (Vec::new(), Vec::new());
        encode_ops(&table, &mut plain);
        pack_ops(&table, 19, &mut packed);
        assert!(packed.len() * 20 < plain.len(), "{} of {}", packed.len(), plain.len());
        check_round_trip(&table);
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn a_column_that_would_unpack_to_more_than_the_operations_need_is_refused() {
        let bomb = pack(&alloc::vec![1; 1 << 20], 19).expect("packs");
        let mut bytes = alloc::vec![1];
        write_varint(&mut bytes, bomb.len() as u64 * 2 + 1);
        write_varint(&mut bytes, 1 << 20);
        bytes.extend_from_slice(&bomb);
        let refused = unpack_ops(&mut Reader::new(&bytes), &Limits::default());
        assert!(matches!(refused, Err(InvalidColumns::Ops(InvalidOps::Limit(_)))), "{refused:?}");
    }

    #[test]
    fn a_column_that_is_longer_than_its_values_is_refused() {
        let refused = unpack_ops(&mut Reader::new(&[1, 2, 1, 2, 1, 4, 0, 0]), &Limits::default());
        assert_eq!(refused, Err(Malformed::Trailing(1).into()));
    }

    proptest! {
        #[test]
        fn columns_round_trip(parts in vec((0u64..300, any::<u64>(), 1u64..300), 0..200)) {
            check_round_trip(&ops(parts));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in vec(any::<u8>(), 0..200)) {
            let limits = Limits::default().ops(100);
            if let Ok(ops) = unpack_ops(&mut Reader::new(&bytes), &limits) {
                prop_assert!(ops.len() <= 100);
            }
        }
    }
}
