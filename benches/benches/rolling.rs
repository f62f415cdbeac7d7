//! The weak sum: of aligned blocks, and rolled over every offset.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use deltasync_benches::{random, size_name};
use deltasync_core::RollingSum;

fn rolling(c: &mut Criterion) {
    let data = random(16 << 20, 1);
    let mut group = c.benchmark_group("rolling");
    group.throughput(Throughput::Bytes(data.len() as u64));
    for block_len in [512, 4096, 32 << 10] {
        let size = size_name(block_len);
        group.bench_function(format!("aligned blocks/{size}"), |b| {
            b.iter(|| data.chunks(block_len).fold(0, |all, block| all ^ RollingSum::of(block).value()));
        });
        group.bench_function(format!("every offset/{size}"), |b| {
            b.iter(|| {
                let mut sum = RollingSum::of(&data[..block_len]);
                for (leaving, entering) in data.iter().zip(&data[block_len..]) {
                    sum.roll(*leaving, *entering);
                    black_box(sum.value());
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, rolling);
criterion_main!(benches);
