//! The chunk list: cutting alone, the list with digests and root, and the alignment of two lists.
//!
//! Beside the times it prints what they buy: chunks, and how many bytes of the target lie in chunks that the basis has
//! not.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use deltasync_benches::{Case, random, size_name};
use deltasync_core::{Algorithm, Alignment, ByteLen, ChunkList, Cutter, Segment, TagKey, TagRun, tag_runs};

/// The length of every input, in bytes.
const SIZE: usize = 64 << 20;

fn cut(c: &mut Criterion) {
    let mut group = c.benchmark_group("cut");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(20);
    for (name, bytes) in [("random", random(SIZE, 1)), ("zeros", vec![0; SIZE])] {
        group.bench_function(BenchmarkId::new(name, size_name(SIZE)), |b| {
            b.iter(|| {
                let (mut rest, mut chunks) = (bytes.as_slice(), 0);
                while let Some(len) = Cutter::for_len(ByteLen::of(&bytes)).cut(rest, true) {
                    rest = &rest[len..];
                    chunks += 1;
                }
                black_box(chunks)
            });
        });
    }
}

fn list(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk-list");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(10);
    let (random, zeros) = (random(SIZE, 1), vec![0; SIZE]);
    for (name, bytes, cutter, algorithm) in [
        ("random", &random, Cutter::for_len(ByteLen::of(&random)), Algorithm::Blake3),
        ("zeros", &zeros, Cutter::for_len(ByteLen::of(&zeros)), Algorithm::Blake3),
        ("random-fixed", &random, Cutter::FIXED_4096, Algorithm::Blake3),
        ("random-sha256", &random, Cutter::for_len(ByteLen::of(&random)), Algorithm::Sha256),
    ] {
        let list = ChunkList::of(bytes, cutter, algorithm);
        println!("chunk-list/{name}: {} chunks in {} runs", list.chunk_count(), list.runs().len());
        group.bench_function(BenchmarkId::new(name, size_name(SIZE)), |b| {
            b.iter(|| ChunkList::of(black_box(bytes), cutter, algorithm));
        });
    }
}

fn align(c: &mut Criterion) {
    let cutter = Cutter::for_len(ByteLen::new(SIZE as u64));
    let key = TagKey::new(&[1; 16], 1);
    let tags = |bytes: &[u8]| -> (ChunkList, Vec<TagRun>) {
        let list = ChunkList::of(bytes, cutter, Algorithm::Blake3);
        let tags = tag_runs(&list, &key);
        (list, tags)
    };
    let mut group = c.benchmark_group("align");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(20);
    for Case { shape, basis, target } in Case::all(1, SIZE) {
        let name = shape.name();
        let (_, old) = tags(&basis);
        let (list, new) = tags(&target);
        let alignment = Alignment::of(&old, &new);
        let missing = alignment.segments().iter().map(|segment| match segment {
            Segment::Gap { target, .. } => list.offset_of(target.end) - list.offset_of(target.start),
            Segment::Common { .. } => ByteLen::ZERO,
        });
        println!("align/{name}: {} segments, {} bytes missing", alignment.segments().len(), missing.sum::<ByteLen>());
        group.bench_function(BenchmarkId::new(name, size_name(SIZE)), |b| {
            b.iter(|| Alignment::of(black_box(&old), &new))
        });
    }
}

criterion_group!(benches, cut, list, align);
criterion_main!(benches);
