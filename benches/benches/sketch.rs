//! Making the cells of a set, and taking the differences of two sets out of them.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use deltasync_benches::random;
use deltasync_core::{Differences, Estimate, Sketch, SketchKey, Tag};

/// As many chunks as a file of about 1 GiB has.
const ELEMENTS: usize = 131_072;

fn tags(len: usize, seed: u64) -> Vec<Tag> {
    let bytes = random(Tag::LEN * len, seed);
    bytes.chunks_exact(Tag::LEN).map(|tag| Tag::from_bytes(tag.try_into().expect("so long"))).collect()
}

fn key() -> SketchKey {
    SketchKey::new(&[7; 16], 1)
}

fn making(c: &mut Criterion) {
    let mut group = c.benchmark_group("sketch");
    let tags = tags(ELEMENTS, 1);
    group.throughput(Throughput::Elements(ELEMENTS as u64)).sample_size(20);
    for cells in [32, 655, 10_000] {
        let make = |cells| Sketch::of(key(), cells, tags.iter().copied());
        let mut bytes = Vec::new();
        make(0..cells).encode(&mut bytes);
        println!("sketch/{ELEMENTS} elements/{cells} cells: {} bytes", bytes.len());
        group.bench_function(BenchmarkId::new("make", format!("{cells} cells")), |b| b.iter(|| make(0..cells)));
        group.bench_function(BenchmarkId::new("continue", format!("{cells} cells")), |b| {
            b.iter(|| make(cells..2 * cells));
        });
    }
    group.finish();
}

fn peeling(c: &mut Criterion) {
    let mut group = c.benchmark_group("sketch");
    for differences in [8, 200, 2000, 100_000] {
        let (ours, theirs) = (tags(differences / 2, 2), tags(differences / 2, 3));
        let cells = Estimate::cells_for(differences as u64);
        let [ours, theirs] = [ours, theirs].map(|tags| Sketch::of(key(), 0..cells, tags));
        group.throughput(Throughput::Elements(differences as u64)).sample_size(20);
        group.bench_function(BenchmarkId::new("peel", format!("{differences} differences")), |b| {
            b.iter(|| Differences::between(&ours, &theirs).expect("enough cells"));
        });
    }
    group.finish();
}

criterion_group!(benches, making, peeling);
criterion_main!(benches);
