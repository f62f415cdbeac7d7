//! Signing a basis, encoding the signature and reading it back.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use deltasync_benches::{contents, size_name};
use deltasync_core::{Algorithm, ByteLen, Limits, Signature, SignatureIndex};

/// As much as a driver reads at once.
const READ: usize = 256 << 10;

fn sign(basis: &[u8], algorithm: Algorithm) -> Signature {
    let builder = Signature::builder(ByteLen::of(basis)).algorithm(algorithm);
    let mut signer = builder.build(&Limits::default()).expect("defaults are in range");
    basis.chunks(READ).for_each(|part| signer.push(part));
    signer.finish().expect("as long as announced")
}

fn signature(c: &mut Criterion) {
    let mut group = c.benchmark_group("signature");
    for len in [64 << 10, 1 << 20, 64 << 20] {
        let size = size_name(len);
        group.throughput(Throughput::Bytes(len as u64)).sample_size(20);
        let contents = contents(len, 1);
        for (name, basis) in &contents {
            group.bench_function(format!("{name}/{size}"), |b| b.iter(|| sign(basis, Algorithm::Blake3)));
        }
        let (name, basis) = &contents[0];
        group.bench_function(format!("{name} with sha256/{size}"), |b| b.iter(|| sign(basis, Algorithm::Sha256)));
        let signature = sign(basis, Algorithm::Blake3);
        let mut bytes = Vec::new();
        signature.encode(&mut bytes);
        println!(
            "signature/{size}: {} bytes, {} blocks of {}, strong sums of {}",
            bytes.len(),
            signature.len(),
            signature.block_len(),
            signature.strong_len()
        );
        group.bench_function(format!("decode and index/{size}"), |b| {
            b.iter(|| SignatureIndex::new(Signature::decode(&bytes, &Limits::default()).expect("encoded above")));
        });
    }
    group.finish();
}

criterion_group!(benches, signature);
criterion_main!(benches);
