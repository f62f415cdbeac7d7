//! Finding the blocks of a basis in a target.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use deltasync_benches::{Case, random, size_name};
use deltasync_core::{ByteLen, DeltaSummary, Differ, Limits, Signature, SignatureIndex};

/// As much as a driver reads at once.
const READ: usize = 256 << 10;

fn index_of(basis: &[u8]) -> Arc<SignatureIndex> {
    let mut signer = Signature::builder(ByteLen::of(basis)).build(&Limits::default()).expect("defaults are in range");
    signer.push(basis);
    Arc::new(SignatureIndex::new(signer.finish().expect("as long as announced")))
}

fn diff(index: &Arc<SignatureIndex>, target: &[u8]) -> DeltaSummary {
    let mut differ = Differ::new(Arc::clone(index), &Limits::default());
    for part in target.chunks(READ) {
        differ.push(part);
        while differ.next_piece().is_some() {}
    }
    differ.finish().1
}

fn differ(c: &mut Criterion) {
    let mut group = c.benchmark_group("differ");
    let mut bench = |workload: &str, basis: &[u8], target: &[u8]| {
        let size = size_name(basis.len());
        let index = index_of(basis);
        let literal = diff(&index, target).literal;
        let signature = index.signature().encoded_len();
        println!("differ/{workload}/{size}: {literal} literal bytes, {signature} of signature");
        group.throughput(Throughput::Bytes(target.len() as u64)).sample_size(10);
        group.bench_function(format!("{workload}/{size}"), |b| b.iter(|| diff(&index, target)));
    };
    for len in [1 << 20, 64 << 20] {
        for Case { shape, basis, target } in Case::all(1, len) {
            bench(shape.name(), &basis, &target);
        }
        bench("zeros to unrelated", &vec![0; len], &random(len, 1));
    }
    // A constant and, by the Thue-Morse word, blocks of the same weak sum that are none: every offset is a candidate.
    let word = |k: u8| (0..1024u32).map(move |i| if i.count_ones() & 1 == 0 { 100 - k } else { 100 + k });
    let basis: Vec<u8> = (1..=64u8).cycle().take(1024).flat_map(word).collect();
    let target = vec![100; basis.len()];
    bench("made to collide", &basis, &target);
    group.finish();
}

criterion_group!(benches, differ);
criterion_main!(benches);
