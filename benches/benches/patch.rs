//! Carrying out a delta in memory, with the verification of the root.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use deltasync_benches::{Case, delta, patch, size_name};

fn patch_and_verify(c: &mut Criterion) {
    let mut group = c.benchmark_group("patch");
    for len in [1 << 20, 64 << 20] {
        let size = size_name(len);
        for Case { shape, basis, target } in Case::all(1, len) {
            let delta = delta(&basis, &target, None);
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
