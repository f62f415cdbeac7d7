//! The classic way in one call each: signature, diff, delta, patch, with files in memory and pushed as a driver pushes them.

use std::hint::black_box;
use std::sync::Arc;

use deltasync_core::{
    ByteLen, DeltaHeader, DeltaPiece, DeltaSummary, DeltaWriter, Differ, Digest, Limits, PatchRequest, Patcher,
    Signature, SignatureIndex,
};

/// As much as a driver reads at once, in bytes.
const READ: usize = 256 << 10;

/// The signature of a basis, with blocks of so many bytes or of the length that suits it.
pub fn sign(basis: &[u8], block_len: Option<usize>) -> Signature {
    let mut builder = Signature::builder(ByteLen::of(basis));
    if let Some(block_len) = block_len {
        builder = builder.block_len(block_len);
    }
    let mut signer = builder.build(&Limits::default()).expect("in range");
    for part in basis.chunks(READ) {
        signer.push(part);
    }
    signer.finish().expect("as long as announced")
}

/// Finds the blocks behind `index` in a target and hands each piece to `take`. The root is the caller's, who has it from
/// elsewhere or needs none: it is no part of the search.
pub fn diff(
    index: &Arc<SignatureIndex>,
    target: &[u8],
    root: Digest,
    mut take: impl FnMut(DeltaPiece),
) -> DeltaSummary {
    let mut differ = Differ::new(Arc::clone(index), &Limits::default());
    for part in target.chunks(READ) {
        differ.push(part);
        while let Some(piece) = differ.next_piece() {
            take(piece);
        }
    }
    let (pieces, summary) = differ.finish(root);
    pieces.into_iter().for_each(take);
    summary
}

/// The encoded delta that makes `target` of `basis`.
pub fn delta(basis: &[u8], target: &[u8], block_len: Option<usize>) -> Vec<u8> {
    let index = Arc::new(SignatureIndex::new(sign(basis, block_len)));
    let algorithm = index.signature().algorithm();
    let header = DeltaHeader { algorithm, basis: ByteLen::of(basis), target: ByteLen::of(target) };
    let mut out = Vec::new();
    let mut writer = DeltaWriter::new(header, &mut out);
    let summary = diff(&index, target, algorithm.digest(target), |piece| writer.piece(&piece, &mut out));
    writer.finish(summary.root, &mut out).expect("as long as announced");
    out
}

/// Carries out a delta whose copies are of bytes in memory, and verifies the root; what it makes goes nowhere.
pub fn patch(basis: &[u8], delta: &[u8]) -> DeltaSummary {
    let mut patcher = Patcher::new(ByteLen::of(basis), &Limits::default());
    let mut parts = delta.chunks(READ);
    loop {
        match patcher.poll().expect("a delta of ours") {
            PatchRequest::Delta => match parts.next() {
                Some(part) => patcher.push(part),
                None => break,
            },
            PatchRequest::Write(bytes) => {
                black_box(bytes);
            }
            PatchRequest::Copy { from, len } => {
                let start = from.to_usize().expect("within a slice");
                patcher.copied(&basis[start..start + len]).expect("asked for");
            }
            PatchRequest::Done => break,
        }
    }
    patcher.finish().expect("a delta of ours")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    #[test]
    fn a_delta_makes_its_target() {
        let case = Shape::ScatteredEdits.case(1, 300_000);
        let delta = delta(&case.basis, &case.target, Some(1024));
        let summary = patch(&case.basis, &delta);
        assert_eq!(summary.target(), ByteLen::of(&case.target));
        assert_eq!(summary.root, deltasync_core::Algorithm::Blake3.digest(&case.target));
        assert!(summary.literal < ByteLen::new(10_000) && summary.literal > ByteLen::ZERO, "{summary:?}");
    }
}
