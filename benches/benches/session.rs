//! Whole transfers between two sessions in memory: protocol, chunk lists and patching, without sockets and disks.
//!
//! Both ends run in one thread, so a time is the work of both. Beside it stands what it buys: all bytes on the wire, both
//! ways, and the literal bytes of the target.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use deltasync_benches::{Case, random, size_name};
use deltasync_core::RelPath;
use deltasync_proto::RootId;
use deltasync_testkit::{Pair, push};

fn pushes(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    for len in [1 << 20, 16 << 20] {
        let size = size_name(len);
        group.throughput(Throughput::Bytes(len as u64)).sample_size(10);
        for Case { shape, basis, target } in Case::all(1, len) {
            let name = shape.name();
            let pair = || Pair::new(1).basis(basis.clone()).target(target.clone());
            let ran = pair().run_to_end();
            let (wire, literal, trips) = (ran.wire(), ran.outcome().progress.literal, ran.round_trips());
            println!("session/{name}/{size}: {wire} bytes on the wire, {literal} literal, {trips} round trips");
            group.bench_function(format!("{name}/{size}"), |b| {
                b.iter_batched(pair, Pair::run_to_end, BatchSize::PerIteration);
            });
        }
        let target = random(len, 1);
        let pair = || Pair::new(1).target(target.clone());
        let ran = pair().run_to_end();
        println!("session/no basis/{size}: {} bytes on the wire", ran.wire());
        group.bench_function(format!("no basis/{size}"), |b| {
            b.iter_batched(pair, Pair::run_to_end, BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Many small files on one connection: what a transfer costs beside its bytes.
fn small_files(c: &mut Criterion) {
    const FILES: usize = 256;
    const LEN: usize = 4096;
    let pair = || {
        let path = |file: usize| RelPath::new(format!("file-{file}")).expect("a plain name");
        (0..FILES).fold(Pair::new(1), |pair, file| {
            pair.local.insert(RootId::new(0), path(file), random(LEN, file as u64));
            pair.command(push(path(file), path(file)))
        })
    };
    let ran = pair().run_to_end();
    println!("session/{FILES} small files: {} bytes on the wire for {} of content", ran.wire(), FILES * LEN);
    let mut group = c.benchmark_group("session");
    group.throughput(Throughput::Elements(FILES as u64)).sample_size(10);
    group.bench_function(format!("{FILES} small files/{}", size_name(LEN)), |b| {
        b.iter_batched(pair, Pair::run_to_end, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, pushes, small_files);
criterion_main!(benches);
