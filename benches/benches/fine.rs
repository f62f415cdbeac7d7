//! The fine level: summing old gaps, and finding what new ones have of them.
//!
//! Beside the times it prints what they buy: the bytes of the sums that travel, and the literal bytes that are left.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use deltasync_benches::{random, size_name};
use deltasync_core::{ByteLen, FineIndex, FineKey, FineShape, FineSummer, Offset, OldStretch, Pairing};

/// The length of all gaps together, in bytes.
const SIZE: usize = 8 << 20;
/// The length of a gap with one edit, in bytes.
const GAP: usize = 4096;
/// How many bytes an edit inserts, and as many others it overwrites.
const EDIT: usize = 20;

fn key() -> FineKey {
    FineKey::new(&[1; 16], &[2; 16], 0)
}

fn sums_of(old: &[u8], gap: usize, shape: FineShape) -> Vec<u64> {
    let mut summer = FineSummer::new(key(), shape);
    for gap in old.chunks(gap) {
        summer.push(gap);
        summer.end();
    }
    summer.finish()
}

fn index_of(old: &[u8], gap: usize, shape: FineShape) -> FineIndex {
    let stretch = |(number, bytes): (usize, &[u8])| OldStretch {
        from: Offset::new((number * gap) as u64),
        len: ByteLen::of(bytes),
    };
    let stretches = old.chunks(gap).enumerate().map(stretch).collect();
    FineIndex::new(key(), shape, stretches, sums_of(old, gap, shape)).expect("summed as asked")
}

fn sum(c: &mut Criterion) {
    let mut group = c.benchmark_group("fine-sum");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(20);
    let old = random(SIZE, 1);
    for gap in [GAP, SIZE] {
        let shape = FineShape::for_gaps((SIZE / gap) as u64, SIZE as u64, 1024);
        let bytes = sums_of(&old, gap, shape).len() * shape.bits() as usize / 8;
        println!("fine-sum/gaps of {}: {shape:?}, {bytes} bytes", size_name(gap));
        group.bench_function(BenchmarkId::new(format!("gaps of {}", size_name(gap)), size_name(SIZE)), |b| {
            b.iter(|| sums_of(black_box(&old), gap, shape));
        });
    }
    let shape = FineShape::for_gaps((SIZE / GAP) as u64, SIZE as u64, 1024);
    group.bench_function(BenchmarkId::new("indexed", size_name(SIZE)), |b| {
        let sums = sums_of(&old, SIZE, shape);
        let stretch = OldStretch { from: Offset::ZERO, len: ByteLen::of(&old) };
        b.iter(|| FineIndex::new(key(), shape, vec![stretch], black_box(sums.clone())));
    });
}

fn find(c: &mut Criterion) {
    let mut group = c.benchmark_group("fine-find");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(20);
    let old = random(SIZE, 1);
    let edited: Vec<Vec<u8>> = (old.chunks(GAP).zip(random(SIZE, 2).chunks(GAP)))
        .map(|(old, new)| [&old[..1500], &new[..EDIT], &old[1500..2500], &new[..EDIT], &old[2500 + EDIT..]].concat())
        .collect();
    let halves = [&old[SIZE / 2..], &old[..SIZE / 2]].concat();
    for (name, old, targets, gap) in [
        ("an edit each 4 KiB", &old, edited.clone(), GAP),
        ("an edit each 4 KiB, in one gap", &old, vec![edited.concat()], SIZE),
        ("swapped halves", &old, vec![halves], SIZE),
        ("unrelated", &old, vec![random(SIZE, 3)], SIZE),
        ("zeros", &vec![0; SIZE], vec![vec![0; SIZE - 1]], SIZE),
        ("zeros in noise", &old, vec![vec![0; SIZE]], SIZE),
    ] {
        let shape = FineShape::for_gaps(targets.len() as u64, SIZE as u64, 1024);
        // The blocks of one large gap are longer, which suits one edit and not many.
        let shape = FineShape::new((shape.block() as u32).min(256), shape.bits()).expect("in range");
        let index = index_of(old, gap, shape);
        let all = || {
            let paired = targets.iter().enumerate();
            paired.map(|(stretch, target)| index.find(target, Some(Pairing { stretch, left: true, right: true })))
        };
        let literals: ByteLen = all().map(|ops| ops.literal_len()).sum();
        println!("fine-find/{name}: {shape:?}, {literals} literal bytes");
        group.bench_function(BenchmarkId::new(name, size_name(SIZE)), |b| {
            b.iter(|| all().for_each(|ops| drop(black_box(ops))));
        });
    }
}

criterion_group!(benches, sum, find);
criterion_main!(benches);
