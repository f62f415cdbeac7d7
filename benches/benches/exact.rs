//! Finding what a target has of a basis when both are at hand.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use deltasync_benches::{Case, random, size_name};
use deltasync_core::{ByteLen, ExactDiffer, History, Limits, LiteralPacker, history_level, pack_ops};

fn diff(basis: &[u8], target: &[u8]) -> ByteLen {
    ExactDiffer::new(basis, target, &Limits::default()).map(|piece| ByteLen::of(&piece.literals)).sum()
}

/// How many bytes the columns and the literals of a delta pack to.
fn packed(basis: &[u8], target: &[u8]) -> (usize, usize) {
    let mut history = History::new(ByteLen::of(basis));
    let (mut columns, mut literals) = (Vec::new(), Vec::new());
    for piece in ExactDiffer::new(basis, target, &Limits::default()) {
        history.push(&piece.ops);
        pack_ops(&piece.ops, 19, &mut columns);
        literals.extend_from_slice(&piece.literals);
    }
    let ranges = history.finish();
    let old: Vec<u8> =
        ranges.iter().flat_map(|range| &basis[range.start.get() as usize..range.end.get() as usize]).copied().collect();
    let level = history_level(old.len() + literals.len());
    let packed = LiteralPacker::new(&old, ByteLen::of(&literals), level).and_then(|mut all| all.push(&literals, true));
    (columns.len(), packed.map_or(literals.len(), |packed| packed.len()))
}

/// Pairs made so that much is found, and given up or taken bit by bit: none may cost more than a few times what
/// unrelated data costs.
fn adversaries(len: usize) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let basis = random(len, 4);
    let edited = |every: usize, edit: usize| {
        let mut target = basis.clone();
        target.chunks_mut(every).for_each(|part| part.iter_mut().take(edit).for_each(|byte| *byte ^= 0x55));
        target
    };
    let zeros = |seed: u64| {
        let mut zeros = vec![0; len];
        zeros.iter_mut().zip(random(len, seed)).step_by(17).for_each(|(zero, byte)| *zero = byte | 1);
        zeros
    };
    let inserted: Vec<u8> = basis.chunks(64).flat_map(|part| [part, &[7]].concat()).collect();
    // What is wanted stands there twice: at the shift of the start but for 25 bytes in 1,600, and whole.
    let beside = [&random(408, 5)[..], &edited(1600, 25), &basis].concat();
    let wanted = [&random(408, 6)[..], &basis].concat();
    vec![
        ("half overwritten in 50s", basis.clone(), edited(100, 50)),
        ("a byte changed in 64", basis.clone(), edited(64, 1)),
        ("a byte inserted in 64", basis.clone(), inserted),
        ("zeros with bytes", zeros(7), zeros(8)),
        ("a whole beside an edited one", beside, wanted),
    ]
}

fn exact(c: &mut Criterion) {
    let mut group = c.benchmark_group("exact");
    let mut bench = |workload: &str, basis: &[u8], target: &[u8]| {
        let size = size_name(basis.len());
        let (columns, literals) = packed(basis, target);
        let mut differ = ExactDiffer::new(basis, target, &Limits::default());
        differ.by_ref().for_each(drop);
        let work = differ.work();
        println!("exact/{workload}/{size}: {columns} bytes of columns, {literals} of literals; {work} units of work");
        group.throughput(Throughput::Bytes(target.len() as u64)).sample_size(10);
        group.bench_function(format!("{workload}/{size}"), |b| b.iter(|| diff(basis, target)));
    };
    for len in [1 << 20, 64 << 20] {
        for Case { shape, basis, target } in Case::all(1, len) {
            bench(shape.name(), &basis, &target);
        }
        bench("zeros to unrelated", &vec![0; len], &random(len, 1));
    }
    // A million equal windows, none of which goes on as in the basis.
    let windows = |seed| random(8 << 20, seed).chunks(8).flat_map(|new| [&[9; 56], new].concat()).collect::<Vec<_>>();
    bench("equal windows", &windows(2), &windows(3));
    for (name, basis, target) in adversaries(8 << 20) {
        bench(name, &basis, &target);
    }
    group.finish();
}

criterion_group!(benches, exact);
criterion_main!(benches);
