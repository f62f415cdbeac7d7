//! Carrying out a delta in memory, with the verification of the root.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use deltasync_benches::{Case, size_name};
use deltasync_core::{ByteLen, DeltaHeader, DeltaSummary, DeltaWriter, Differ, Limits, PatchRequest, Patcher};
use deltasync_core::{Signature, SignatureIndex};

/// As much as a driver reads at once.
const READ: usize = 256 << 10;

fn delta(basis: &[u8], target: &[u8]) -> Vec<u8> {
    let limits = Limits::default();
    let mut signer = Signature::builder(ByteLen::of(basis)).build(&limits).expect("defaults are in range");
    signer.push(basis);
    let index = SignatureIndex::new(signer.finish().expect("as long as announced"));
    let mut out = Vec::new();
    let algorithm = index.signature().algorithm();
    let header = DeltaHeader { algorithm, basis: ByteLen::of(basis), target: ByteLen::of(target) };
    let mut writer = DeltaWriter::new(header, &mut out);
    let mut differ = Differ::new(index, &limits);
    differ.push(target);
    while let Some(piece) = differ.next_piece() {
        writer.piece(&piece, &mut out);
    }
    let (pieces, summary) = differ.finish(algorithm.digest(target));
    pieces.iter().for_each(|piece| writer.piece(piece, &mut out));
    writer.finish(summary.root, &mut out).expect("as long as announced");
    out
}

fn patch(basis: &[u8], delta: &[u8]) -> DeltaSummary {
    let mut patcher = Patcher::new(ByteLen::of(basis), &Limits::default());
    let mut parts = delta.chunks(READ);
    loop {
        match patcher.poll().expect("made above") {
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
    patcher.finish().expect("made above")
}

fn patch_and_verify(c: &mut Criterion) {
    let mut group = c.benchmark_group("patch");
    for len in [1 << 20, 64 << 20] {
        let size = size_name(len);
        for Case { shape, basis, target } in Case::all(1, len) {
            let delta = delta(&basis, &target);
            let name = shape.name();
            println!("patch/{name}/{size}: {} bytes of delta, {} literal", delta.len(), patch(&basis, &delta).literal);
            group.throughput(Throughput::Bytes(target.len() as u64)).sample_size(10);
            group.bench_function(format!("{name}/{size}"), |b| b.iter(|| patch(&basis, &delta)));
        }
    }
    group.finish();
}

criterion_group!(benches, patch_and_verify);
criterion_main!(benches);
