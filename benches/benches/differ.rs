//! Finding the blocks of a basis in a target.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use deltasync_benches::{Case, random, size_name};
use deltasync_core::{ByteLen, DeltaSummary, Differ, Digest, Limits, Signature, SignatureIndex};
use deltasync_testkit::Rng;

/// As much as a driver reads at once.
const READ: usize = 256 << 10;

/// Bytes whose hash as an anchor is zero at their start, so that they are the anchor of every block that holds them.
const ANCHOR: [u8; 32] = *b"CAcI, and what follows an anchor";

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
    // As in the client: the root is not part of the search.
    differ.finish(Digest::default()).1
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
    // By the Thue-Morse word, different blocks of one weak sum, which every 128th window of the target has, too.
    let word = |rng: &mut Rng| {
        let turned = rng.below(2) as u32;
        (0..128u32).map(move |i| if i.count_ones() & 1 == turned { 99 } else { 101 })
    };
    let words = |seed: u64| {
        let mut rng = Rng::new(seed);
        (0..8 << 10).flat_map(|_| word(&mut rng)).collect::<Vec<u8>>()
    };
    bench("made to collide", &words(1), &words(2));
    // The place of an anchor over and over, so that blocks share their key at different places.
    let keys = |seed: u64| {
        let mut data = random(1 << 20, seed);
        let mut rng = Rng::new(seed);
        data.chunks_exact_mut(128).for_each(|part| part[rng.below(96)..][..32].copy_from_slice(&ANCHOR));
        data
    };
    bench("made to share anchors", &keys(1), &keys(2));
    group.finish();
}

criterion_group!(benches, differ);
criterion_main!(benches);
