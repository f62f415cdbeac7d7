//! The operations of a delta in columns, packed where that pays.
//!
//! | field | bytes | |
//! |---|---|---|
//! | pairs and kind | varint | twice the pairs of literal and copy, and 1 more when the columns are packed |
//! | raw length | varint | only when packed: the bytes of all columns |
//! | packed length | varint | only when packed |
//! | three columns | | literal lengths, copy lengths, changes of offset |
//!
//! The columns are varints, as [`encode_ops`](crate::encode_ops) writes them, or one frame of those, as a
//! [`LiteralPacker`] packs them.
//!
//! Like compresses with like: the lengths of an edited table repeat, and so do the distances of its rows. The frame holds
//! each column in blocks of its own, or all in one where they are short; the reader need not know. A handful of
//! operations, which is most deltas, is not packed and as long as [`encode_ops`](crate::encode_ops) would write it, from
//! 64 pairs on one byte longer.
//!
//! Invariant: `unpack_ops(pack_ops(ops)) == ops`, for as many operations as the limits allow.

use alloc::vec::Vec;

use crate::op::{columns_of, decode_columns};
use crate::{
    ByteLen, InvalidOps, LimitExceeded, Limits, LiteralPacker, LiteralUnpacker, Malformed, Ops, Reader, UnpackError,
    write_varint,
};

/// The longest that the varints of a pair become, in bytes.
const LONGEST: u64 = 3 * 10;
/// From this many bytes on, columns resemble themselves more than each other.
const LONG: usize = 16 << 10;
/// Below this many bytes nothing packs.
const WORTHWHILE: usize = 12;

/// Appends the columns of `ops`, packed at `level` (as for [`pack`](crate::pack()); 0: not at all) where that makes them
/// smaller.
pub fn pack_ops(ops: &Ops, level: i32, out: &mut Vec<u8>) {
    let (pairs, columns) = columns_of(ops);
    let start = out.len();
    write_varint(out, pairs * 2);
    columns.iter().for_each(|column| out.extend_from_slice(column));
    let raw_len: usize = columns.iter().map(Vec::len).sum();
    if raw_len < WORTHWHILE || level == 0 {
        return;
    }
    let apart = pack_blocks(&columns.each_ref().map(Vec::as_slice), level);
    let together = (raw_len < LONG).then(|| pack_blocks(&[&columns.concat()], level)).flatten();
    let Some(packed) = apart.into_iter().chain(together).min_by_key(Vec::len) else {
        return;
    };
    let mut all = Vec::with_capacity(packed.len() + 3 * 10);
    [pairs * 2 + 1, raw_len as u64, packed.len() as u64].into_iter().for_each(|number| write_varint(&mut all, number));
    all.extend_from_slice(&packed);
    if all.len() < out.len() - start {
        out.truncate(start);
        out.append(&mut all);
    }
}

/// One frame, each part in blocks of its own.
fn pack_blocks(parts: &[&[u8]], level: i32) -> Option<Vec<u8>> {
    let total = parts.iter().map(|part| ByteLen::of(part)).sum();
    let mut packer = LiteralPacker::new(&[], total, level)?;
    let mut packed = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        packed.append(&mut packer.push(part, i + 1 == parts.len())?);
    }
    Some(packed)
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
/// Takes hostile bytes: packed columns become at most 30 bytes for each pair that `limits` allow, in a window no larger
/// than they need; offsets and lengths are only numbers until a [`Planner`](crate::Planner) has checked them.
pub fn unpack_ops(reader: &mut Reader<'_>, limits: &Limits) -> Result<Ops, InvalidColumns> {
    let head = reader.varint()?;
    let (pairs, packed) = (head / 2, head % 2 == 1);
    if !packed {
        return Ok(decode_columns(reader, pairs, limits)?);
    }
    // At most two operations for each pair, as for plain columns.
    LimitExceeded::check("operations in a piece", pairs.saturating_mul(2), limits.ops as u64)?;
    let raw_len = reader.varint()?;
    LimitExceeded::check("bytes in the columns of operations", raw_len, pairs.saturating_mul(LONGEST))?;
    let packed_len = usize::try_from(reader.varint()?).map_err(|_| Malformed::Truncated)?;
    let packed = reader.bytes(packed_len)?;
    let plain = LiteralUnpacker::for_total(&[], ByteLen::new(raw_len))?.push(packed, raw_len as usize)?;
    let mut plain = Reader::new(&plain);
    let ops = decode_columns(&mut plain, pairs, limits)?;
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
    fn a_handful_of_operations_is_as_short_as_plain() {
        for pairs in 0..64 {
            let few = ops((0..pairs).map(|i| (i * i * 31 % 200, i * i * i * 7919, 1 + i * 977)));
            let (mut plain, mut packed) = (Vec::new(), Vec::new());
            encode_ops(&few, &mut plain);
            pack_ops(&few, 19, &mut packed);
            assert!(packed.len() <= plain.len(), "{pairs} pairs: {} of {}", packed.len(), plain.len());
        }
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn columns_that_would_unpack_to_more_than_the_operations_need_is_refused() {
        let bomb = pack_blocks(&[&alloc::vec![1; 1 << 20]], 19).expect("packs");
        for raw_len in [1 << 20, 30] {
            let mut bytes = alloc::vec![3];
            write_varint(&mut bytes, raw_len);
            write_varint(&mut bytes, bomb.len() as u64);
            bytes.extend_from_slice(&bomb);
            let refused = unpack_ops(&mut Reader::new(&bytes), &Limits::default());
            match raw_len {
                30 => assert_eq!(refused, Err(InvalidColumns::Packed(UnpackError::Damaged))),
                _ => assert!(matches!(refused, Err(InvalidColumns::Ops(InvalidOps::Limit(_)))), "{refused:?}"),
            }
        }
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn columns_that_are_longer_than_their_values_are_refused() {
        let packed = pack_blocks(&[&[2, 1, 4, 0]], 19).expect("packs");
        let mut bytes = alloc::vec![3, 4, packed.len() as u8];
        bytes.extend_from_slice(&packed);
        assert_eq!(unpack_ops(&mut Reader::new(&bytes), &Limits::default()), Err(Malformed::Trailing(1).into()));
    }

    #[test]
    fn more_pairs_than_the_bytes_can_hold_are_refused() {
        let refused = unpack_ops(&mut Reader::new(&[200, 1, 1]), &Limits::default());
        assert_eq!(refused, Err(Malformed::Truncated.into()));
        let mut many = Vec::new();
        for kind in [0, 1] {
            many.clear();
            write_varint(&mut many, (1 << 62) + kind);
            let refused = unpack_ops(&mut Reader::new(&many), &Limits::default());
            assert!(matches!(refused, Err(InvalidColumns::Ops(InvalidOps::Limit(_)))), "{refused:?}");
        }
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
