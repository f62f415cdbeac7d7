//! The differ on every shape, beside a naive one that rolls over every byte and compares bytes.

use std::collections::HashMap;
use std::sync::Arc;

use deltasync_core::{Algorithm, ByteLen, DeltaPiece, Differ, Limits, Op, Signature, SignatureIndex};
use deltasync_testkit::{Case, Rng, Shape};

/// A weak sum that is none of the engine's.
const BASE: u64 = 0x0000_0100_0000_01b3;

/// How many literal bytes a differ leaves that slides a window over every byte, and takes the first block that is there.
fn naive_literals(basis: &[u8], target: &[u8], block_len: usize) -> usize {
    let hash =
        |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum.wrapping_mul(BASE).wrapping_add(u64::from(*byte)));
    let leaving = (0..block_len).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut blocks: HashMap<u64, Vec<&[u8]>> = HashMap::new();
    for block in basis.chunks_exact(block_len) {
        let same = blocks.entry(hash(block)).or_default();
        if !same.contains(&block) {
            same.push(block);
        }
    }
    let tail = &basis[basis.len() / block_len * block_len..];
    let (mut at, mut literals, mut sum) = (0, 0, None);
    while let Some(window) = target.get(at..at + block_len) {
        let now = sum.unwrap_or_else(|| hash(window));
        if blocks.get(&now).is_some_and(|same| same.contains(&window)) {
            (at, sum) = (at + block_len, None);
            continue;
        }
        let next = target.get(at + block_len).copied().unwrap_or_default();
        let out = u64::from(target[at]).wrapping_mul(leaving);
        sum = Some(now.wrapping_mul(BASE).wrapping_add(u64::from(next)).wrapping_sub(out));
        (at, literals) = (at + 1, literals + 1);
    }
    let rest = &target[at..];
    literals + if !tail.is_empty() && rest.ends_with(tail) { rest.len() - tail.len() } else { rest.len() }
}

fn sign(basis: &[u8], block_len: usize) -> Signature {
    let builder = Signature::builder(ByteLen::of(basis)).block_len(block_len);
    let mut signer = builder.build(&Limits::default()).expect("in range");
    signer.push(basis);
    signer.finish().expect("as long as announced")
}

/// The signature as a version that had no anchors wrote it.
fn without_anchors(signature: &Signature) -> Signature {
    let mut bytes = Vec::new();
    signature.encode(&mut bytes);
    let blocks = signature.len();
    let head = 7 + [signature.basis().get(), signature.block_len() as u64].map(varint_len).iter().sum::<usize>();
    bytes.truncate(head + blocks * (4 + signature.strong_len()));
    bytes[4] = 1;
    Signature::decode(&bytes, &Limits::default()).expect("the first version is read")
}

fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// How many literal bytes the differ leaves, once its delta has made the target.
fn literals(signature: Signature, basis: &[u8], target: &[u8]) -> usize {
    let mut differ = Differ::new(Arc::new(SignatureIndex::new(signature)), &Limits::default());
    let mut pieces: Vec<DeltaPiece> = Vec::new();
    for part in target.chunks(100_000) {
        differ.push(part);
        pieces.extend(std::iter::from_fn(|| differ.next_piece()));
    }
    let (rest, summary) = differ.finish(Algorithm::Blake3.digest(target));
    pieces.extend(rest);
    let mut made = Vec::new();
    for piece in &pieces {
        let mut new = &piece.literals[..];
        for op in piece.ops.as_slice() {
            match *op {
                Op::Literal { len } => {
                    let (head, rest) = new.split_at(len.get() as usize);
                    made.extend_from_slice(head);
                    new = rest;
                }
                Op::Copy { from, len } => made.extend_from_slice(&basis[from.get() as usize..][..len.get() as usize]),
            }
        }
    }
    assert!(made == target, "the delta makes the target");
    summary.literal.get() as usize
}

fn check_literals_are_those_of_a_naive_differ(name: &str, basis: &[u8], target: &[u8], block_len: usize) {
    let signature = sign(basis, block_len);
    let naive = naive_literals(basis, target, block_len);
    let most = naive + naive / 100;
    let rolling = literals(without_anchors(&signature), basis, target);
    assert!(rolling <= most, "{name}, blocks of {block_len}: {rolling} rolling, {naive} naive");
    let anchored = literals(signature, basis, target);
    assert!(anchored <= most, "{name}, blocks of {block_len}: {anchored} by anchors, {naive} naive");
    println!("{name}, blocks of {block_len}: {anchored} by anchors, {rolling} rolling, {naive} naive");
}

#[test]
fn literals_of_every_shape_are_within_a_hundredth_of_a_naive_differ() {
    for seed in [1, 2] {
        for Case { shape, basis, target } in Case::all(seed, 1 << 20) {
            for block_len in [512, 2048, 4096] {
                check_literals_are_those_of_a_naive_differ(shape.name(), &basis, &target, block_len);
            }
        }
    }
}

#[test]
fn literals_of_bytes_with_little_in_them_are_within_a_hundredth_of_a_naive_differ() {
    // Few letters, so few anchors, or none at all.
    for letters in [2, 3, 4, 16] {
        let mut rng = Rng::new(letters);
        let basis: Vec<u8> = rng.bytes(400_000).iter().map(|byte| (u64::from(*byte) % letters) as u8).collect();
        let mut target = basis.clone();
        target.splice(100_000..100_000, [1]);
        target.drain(250_000..250_007);
        target.rotate_left(77_777);
        check_literals_are_those_of_a_naive_differ(&format!("{letters} letters"), &basis, &target, 1024);
    }
}

#[test]
fn anchors_cost_six_bytes_a_block() {
    let Case { basis, .. } = Shape::RowsEdited.case(3, 100_000);
    let signature = sign(&basis, 1024);
    let old = without_anchors(&signature);
    let len = |signature: &Signature| signature.encoded_len();
    assert!(len(&old) < len(&signature) && len(&signature) <= len(&old) + 6 * signature.len());
}
