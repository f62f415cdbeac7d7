//! Slow, obvious versions of what this crate does fast: the judges of its tests.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::{ByteLen, Offset, Op, Ops, RollingSum};

/// The weak sum by its definition.
pub(crate) fn weak_sum(window: &[u8]) -> u32 {
    let mut sum = 0u32;
    for (i, byte) in window.iter().enumerate() {
        let worth = RollingSum::MULTIPLIER.wrapping_pow((window.len() - 1 - i) as u32);
        sum = sum.wrapping_add(u32::from(*byte).wrapping_mul(worth));
    }
    sum
}

/// The delta a greedy matcher finds when it compares bytes instead of sums: at each offset the block that continues the
/// last copy, else any equal block, else a literal byte; the shorter last block also at the end of the target.
pub(crate) fn diff(basis: &[u8], target: &[u8], block_len: usize) -> Ops {
    let mut ops = Ops::new();
    let literal = |ops: &mut Ops, len: usize| ops.push(Op::Literal { len: ByteLen::new(len as u64) });
    let copy = |ops: &mut Ops, from: usize, len: usize| {
        ops.push(Op::Copy { from: Offset::new(from as u64), len: ByteLen::new(len as u64) });
    };
    let full = basis.len() / block_len * block_len;
    let tail = &basis[full..];
    let mut blocks = BTreeMap::new();
    for start in (0..full).step_by(block_len) {
        blocks.entry(&basis[start..start + block_len]).or_insert(start);
    }
    let mut at = 0;
    // Where a copy that continues the last one would start.
    let mut next = Some(0);
    while at < target.len() {
        let rest = &target[at..];
        let follows = |next: usize| next < full && rest.starts_with(&basis[next..next + block_len]);
        if next == Some(full) && !tail.is_empty() && rest.starts_with(tail) {
            copy(&mut ops, full, tail.len());
            (at, next) = (at + tail.len(), None);
        } else if let Some(start) = next.filter(|next| follows(*next)).or_else(|| {
            let window = rest.get(..block_len)?;
            blocks.get(window).copied()
        }) {
            copy(&mut ops, start, block_len);
            (at, next) = (at + block_len, Some(start + block_len));
        } else if rest == tail && tail.len() >= 8 {
            copy(&mut ops, full, tail.len());
            at = target.len();
        } else {
            literal(&mut ops, 1);
            (at, next) = (at + 1, None);
        }
    }
    ops
}

/// The target that operations make from a basis and literal bytes.
pub(crate) fn patch(basis: &[u8], ops: &Ops, mut literals: &[u8]) -> Vec<u8> {
    let mut target = Vec::new();
    for op in ops.as_slice() {
        match *op {
            Op::Literal { len } => {
                let (head, rest) = literals.split_at(len.to_usize().expect("fits memory"));
                target.extend_from_slice(head);
                literals = rest;
            }
            Op::Copy { from, len } => {
                let (from, len) = (from.to_usize().expect("fits memory"), len.to_usize().expect("fits memory"));
                target.extend_from_slice(&basis[from..from + len]);
            }
        }
    }
    assert!(literals.is_empty(), "{} literal bytes left over", literals.len());
    target
}
