//! The chunk list: cutting alone, the list with digests and root, and the alignment of two lists.
//!
//! Beside the times it prints what they buy: chunks, and how many bytes of the target lie in chunks that the basis has
//! not.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Mutex;
use std::thread;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use deltasync_benches::{Case, contents, random, size_name};
use deltasync_core::{
    Algorithm, Alignment, ByteLen, ChunkList, Cutter, Limits, Section, SectionCutter, SectionJoiner, Segment, TagKey,
    TagRun, tag_runs,
};

/// The length of every input, in bytes.
const SIZE: usize = 64 << 20;

fn cut(c: &mut Criterion) {
    let mut group = c.benchmark_group("cut");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(20);
    for (name, bytes) in contents(SIZE, 1) {
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
    let contents = contents(SIZE, 1);
    let cutter = Cutter::for_len(ByteLen::new(SIZE as u64));
    let usual = contents.iter().map(|(name, bytes)| ((*name).to_owned(), bytes, cutter, Algorithm::Blake3));
    let (name, bytes) = &contents[0];
    let others = [
        (format!("{name}-fixed"), bytes, Cutter::FIXED_4096, Algorithm::Blake3),
        (format!("{name}-sha256"), bytes, cutter, Algorithm::Sha256),
    ];
    for (name, bytes, cutter, algorithm) in usual.chain(others) {
        let list = ChunkList::of(bytes, cutter, algorithm);
        println!("chunk-list/{name}: {} chunks in {} runs", list.chunk_count(), list.runs().len());
        group.bench_function(BenchmarkId::new(name, size_name(SIZE)), |b| {
            b.iter(|| ChunkList::of(black_box(bytes), cutter, algorithm));
        });
    }
}

/// The list by sections on so many threads, as the storage makes that of a long file, but for the reads: a copy.
fn list_on(threads: usize, bytes: &[u8], cutter: Cutter) -> ChunkList {
    let cutter = Mutex::new(SectionCutter::new(cutter, Algorithm::Blake3, ByteLen::of(bytes)));
    let joiner = Mutex::new(SectionJoiner::new(&Limits::default()));
    let next = |section: &mut Section| {
        let mut cutter = cutter.lock().expect("no panic");
        let read = cutter.next(section, |room, at| {
            let at = at.to_len().to_usize().expect("a length in memory");
            room.copy_from_slice(&bytes[at..at + room.len()]);
            Ok::<(), Infallible>(())
        });
        read == Ok(true)
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut section = Section::default();
                while next(&mut section) {
                    let hashed = section.hash();
                    joiner.lock().expect("no panic").add(hashed).expect("within the limits");
                }
            });
        }
    });
    let (cutter, joiner) = (cutter.into_inner().expect("no panic"), joiner.into_inner().expect("no panic"));
    joiner.finish(cutter)
}

fn list_on_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk-list-on");
    group.throughput(Throughput::Bytes(SIZE as u64)).sample_size(10);
    let bytes = random(SIZE, 1);
    let cutter = Cutter::for_len(ByteLen::of(&bytes));
    assert_eq!(list_on(2, &bytes, cutter), ChunkList::of(&bytes, cutter, Algorithm::Blake3));
    for threads in [1, 2] {
        let name = format!("random-{threads}-threads");
        group.bench_function(BenchmarkId::new(name, size_name(SIZE)), |b| {
            b.iter(|| list_on(threads, black_box(&bytes), cutter));
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

criterion_group!(benches, cut, list, list_on_threads, align);
criterion_main!(benches);
