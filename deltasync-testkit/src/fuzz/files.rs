//! The formats in files, operations, paths and digests, and the patcher that carries out a hostile delta.

use deltasync_core::{
    Algorithm, ByteLen, DeltaHeader, DeltaPart, DeltaPiece, DeltaReader, DeltaSummary, DeltaWriter, Differ, Digest,
    InvalidDelta, Limits, Name, Offset, Op, Ops, PatchError, PatchRequest, Patcher, Planner, Reader, RelPath,
    Signature, SignatureIndex, Step, decode_ops, encode_ops, pack_ops, unpack_ops,
};

use super::take::{Split, Take};
use crate::{Rng, Seed};

/// Small enough that a delta of a few bytes cannot keep a run busy.
fn limits() -> Limits {
    Limits::default().file(ByteLen::new(1 << 20)).chunks(1 << 12).ops(1 << 10).piece(1 << 16)
}

/// A signature file; what decodes is diffed against a fixed target.
pub(super) fn signature(bytes: &[u8]) {
    let Ok(signature) = Signature::decode(bytes, &limits()) else { return };
    let mut again = Vec::new();
    signature.encode(&mut again);
    assert_eq!((again.len(), again.as_slice()), (signature.encoded_len(), bytes), "a signature has one form");
    assert!(bytes.len() as u64 <= Signature::longest(&limits()).get());
    let target = target();
    let (basis, algorithm) = (signature.basis(), signature.algorithm());
    let mut differ = Differ::new(SignatureIndex::new(signature), &limits());
    differ.push(&target);
    let (pieces, summary) = differ.finish(algorithm.digest(&target));
    assert_eq!((summary.target(), summary.root), (ByteLen::of(&target), algorithm.digest(&target)));
    let mut planner = Planner::new(basis, ByteLen::of(&target), &limits()).expect("a short target");
    for piece in &pieces {
        planner.plan(&piece.ops, ByteLen::of(&piece.literals)).expect("copies lie within the basis that was announced");
    }
    planner.finish().expect("the pieces make the target");
}

/// What the seeds' signatures are diffed against.
fn target() -> Vec<u8> {
    Rng::new(5).bytes(3000)
}

pub(super) fn signature_seeds() -> Vec<Seed> {
    let encode = |basis: &[u8], block_len: usize, strong_len: usize, algorithm| {
        let builder = Signature::builder(ByteLen::of(basis)).algorithm(algorithm).block_len(block_len);
        let mut signer = builder.strong_len(strong_len).build(&limits()).expect("in range");
        signer.push(basis);
        let mut bytes = Vec::new();
        signer.finish().expect("as long as announced").encode(&mut bytes);
        bytes
    };
    let target = target();
    let mut edited = target.clone();
    edited.splice(1000..1001, [1, 2, 3]);
    let whole = encode(&target, 64, 8, Algorithm::Blake3);
    let mut lying = whole.clone();
    // The basis length, a varint of two bytes.
    lying[7..9].copy_from_slice(&[0xff, 0x7f]);
    vec![
        Seed::new("empty-basis", encode(b"", 512, 8, Algorithm::Blake3)),
        Seed::new("one-byte", encode(b"x", 16, 32, Algorithm::Sha256)),
        Seed::new("cut", &whole[..whole.len() - 1]),
        Seed::new("same", whole),
        Seed::new("lying", lying),
        Seed::new("edited", encode(&edited, 64, 9, Algorithm::Sha256)),
        Seed::new("one-block", encode(&target, 4096, 16, Algorithm::Blake3)),
        Seed::new("exact-blocks", encode(&target[..2048], 256, 8, Algorithm::Blake3)),
        Seed::new("zeros", encode(&[0; 1000], 100, 8, Algorithm::Blake3)),
        Seed::new("other-file", &b"\xd5dlt\x01\x00"[..]),
        Seed::new("length-of-2-63", &b"\xd5sig\x01\x00\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x80\x20"[..]),
    ]
}

/// A split, then a delta file.
pub(super) fn delta(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let split = take.split();
    let delta = take.rest();
    let whole = parts(delta, Split::WHOLE);
    let in_parts = parts(delta, split);
    assert_eq!(whole.is_ok(), in_parts.is_ok(), "{whole:?} or {in_parts:?}");
    let Ok(parts) = whole else { return };
    assert_eq!(Some(&parts), in_parts.as_ref().ok(), "any split is the same");
    let Some((header, pieces, root)) = sorted(&parts) else { unreachable!("a whole delta begins and ends") };
    let lens = pieces.iter().flat_map(|piece| piece.ops.as_slice()).map(Op::len);
    if lens.clone().try_fold(ByteLen::ZERO, ByteLen::checked_add) == Some(header.target) {
        assert_eq!(self::parts(&write(header, &pieces, root), Split::WHOLE), Ok(parts), "written and read again");
    }
}

fn parts(delta: &[u8], split: Split) -> Result<Vec<DeltaPart>, InvalidDelta> {
    let mut reader = DeltaReader::new(&limits());
    let mut parts = Vec::new();
    for mut piece in split.pieces(delta) {
        while let Some(part) = reader.read(&mut piece)? {
            parts.push(part);
        }
        assert!(piece.is_empty(), "all is taken when more is needed");
    }
    reader.finish().map(|()| parts)
}

fn sorted(parts: &[DeltaPart]) -> Option<(DeltaHeader, Vec<DeltaPiece>, Digest)> {
    let [DeltaPart::Header(header), pieces @ .., DeltaPart::End { root }] = parts else { return None };
    let piece = |part: &DeltaPart| if let DeltaPart::Piece(piece) = part { Some(piece.clone()) } else { None };
    Some((*header, pieces.iter().map(piece).collect::<Option<_>>()?, *root))
}

fn write(header: DeltaHeader, pieces: &[DeltaPiece], root: Digest) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = DeltaWriter::new(header, &mut bytes);
    pieces.iter().for_each(|piece| writer.piece(piece, &mut bytes));
    writer.finish(root, &mut bytes).expect("as long as announced");
    bytes
}

/// Limits on a plan, then the columns of operations.
pub(super) fn ops(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let (basis, target) = (ByteLen::new(take.short() as u64), ByteLen::new(take.short() as u64));
    let most = ByteLen::new(1 + take.short() as u64);
    let mut reader = Reader::new(take.rest());
    let Ok(ops) = decode_ops(&mut reader, &limits()) else { return };
    let mut again = Vec::new();
    encode_ops(&ops, &mut again);
    assert_eq!(decode_ops(&mut Reader::new(&again), &limits()), Ok(ops.clone()));
    let mut packed = Vec::new();
    pack_ops(&ops, 3, &mut packed);
    assert!(packed.len() <= again.len() + 1, "packing costs a byte at most");
    assert_eq!(unpack_ops(&mut Reader::new(&packed), &limits()), Ok(ops.clone()), "packed and unpacked again");
    // What the operations want, and also too little of it.
    for literals in [ops.literal_len(), ByteLen::new(1)] {
        let mut planner = Planner::new(basis, target, &limits()).expect("a short target");
        let Ok(plan) = planner.plan(&ops, literals) else { continue };
        assert!(planner.made() <= target && plan.len() == planner.made());
        for step in plan.steps() {
            match *step {
                Step::Copy { from, len } => assert!(from.get() + len.get() <= basis.get()),
                Step::Literal { start, len } => assert!((start + len) as u64 <= literals.get()),
            }
        }
        let whole = plan.len();
        // A portion of one byte would make as many of them as the target has.
        let most = most.max(ByteLen::new(whole.get() / 64));
        let portions = plan.portions(most);
        assert!(portions.iter().all(|portion| !portion.is_empty() && portion.len() <= most));
        assert_eq!(portions.iter().map(deltasync_core::Plan::len).sum::<ByteLen>(), whole);
    }
}

pub(super) fn ops_seeds() -> Vec<Seed> {
    let literal = |len| Op::Literal { len: ByteLen::new(len) };
    let copy = |from, len| Op::Copy { from: Offset::new(from), len: ByteLen::new(len) };
    let fits = [literal(5), copy(0, 4096), literal(1), copy(8192, 100), copy(0, 1)];
    let cases: [(&str, &[Op]); 8] = [
        ("none", &[]),
        ("one-literal", &[literal(1)]),
        ("one-copy", &[copy(0, 1)]),
        ("fits", &fits),
        ("past-the-basis", &[copy(60_000, 60_000)]),
        ("past-64-bits", &[copy(u64::MAX, u64::MAX)]),
        ("backwards", &[copy(50_000, 1), copy(40_000, 1), copy(30_000, 1)]),
        ("many", &[[copy(5, 1), literal(1)]; 100].concat()),
    ];
    let header = [0x00, 0xa0, 0x00, 0xa0, 0x40, 0x00];
    let mut seeds: Vec<_> = cases
        .into_iter()
        .map(|(name, ops)| {
            let mut bytes = header.to_vec();
            encode_ops(&ops.iter().copied().collect(), &mut bytes);
            Seed::new(name, bytes)
        })
        .collect();
    let mut raw = |name, columns: &[u8]| seeds.push(Seed::new(name, [&header[..], columns].concat()));
    raw("too-many", &[0xff, 0xff, 0x7f]);
    raw("makes-nothing", &[1, 0, 0]);
    raw("literal-after-literal", &[2, 3, 4, 0, 0]);
    let half = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    raw("literals-past-64-bits", &[&[2][..], &half, &half, &[0, 0]].concat());
    raw("copies-past-64-bits", &[&[2, 0, 0][..], &half, &half, &[0, 2]].concat());
    seeds
}

/// A flag, then a path, a name or a digest.
pub(super) fn names(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let kind = take.byte();
    let bytes = take.rest();
    match kind % 3 {
        0 => {
            let Ok(path) = RelPath::new(bytes) else { return };
            assert_eq!(path.as_bytes(), bytes);
            assert!(!bytes.starts_with(b"/") && !bytes.contains(&0) && bytes.len() <= RelPath::MAX);
            let mut joined = RelPath::ROOT;
            for name in path.components() {
                assert!(![&b"."[..], b"..", b""].contains(&name.as_bytes()) && !name.as_bytes().contains(&b'/'));
                joined = joined.join(&name).expect("no longer than the whole");
            }
            assert_eq!(joined, path);
            if let Some((parent, name)) = path.split_last() {
                assert_eq!(parent.join(&name), Ok(path.clone()));
            }
            assert!(path.to_string().chars().all(|c| !c.is_control()), "safe to show");
        }
        1 => {
            let Ok(name) = Name::new(bytes) else { return };
            assert_eq!(RelPath::ROOT.join(&name).map(Vec::from), Ok(bytes.to_vec()));
        }
        _ => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            let Ok(digest) = text.parse::<Digest>() else { return };
            assert_eq!(digest.to_string(), text.to_ascii_lowercase());
        }
    }
}

pub(super) fn names_seeds() -> Vec<Seed> {
    let long = [b'a'; Name::MAX + 1];
    let deep = b"d/".repeat(2047);
    let mut seeds = Vec::new();
    let mut seed = |name: &str, kind: u8, bytes: &[u8]| seeds.push(Seed::new(name, [&[kind][..], bytes].concat()));
    seed("path", 0, b"some/where/file.txt");
    seed("root", 0, b"");
    seed("absolute", 0, b"/etc/passwd");
    seed("climbs-out", 0, b"a/../../b");
    seed("dots-in-names", 0, b"..a/.b/c..");
    seed("empty-component", 0, b"a//b");
    seed("slash-at-the-end", 0, b"a/");
    seed("nul", 0, b"a\0b");
    seed("control-characters", 0, b"a\x1b[31m/\xff\n");
    seed("longest-component", 0, &long[..Name::MAX]);
    seed("component-too-long", 0, &long);
    seed("deep", 0, &[&deep[..], b"ee"].concat());
    seed("too-deep", 0, &[&deep[..], b"eee"].concat());
    seed("name", 1, b"file");
    seed("name-with-slash", 1, b"a/b");
    seed("digest", 2, Algorithm::Blake3.digest(b"x").to_string().as_bytes());
    seed("digest-upper-case", 2, Algorithm::Sha256.digest(b"x").to_string().to_uppercase().as_bytes());
    seed("digest-short", 2, &[b'0'; 63]);
    seeds
}

/// A split, the length of the basis, whether to append an end with the right root; then a delta file.
pub(super) fn patcher(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let split = take.split();
    let basis = basis(take.short());
    let complete = take.byte() & 1 == 1;
    let mut delta = take.rest().to_vec();
    if complete {
        end_with_the_right_root(&mut delta, &basis);
    }
    let made = patch(&delta, &basis, split);
    match naive(&delta, &basis) {
        Some(naive) => {
            let (target, summary) = made.expect("a good delta is carried out");
            assert!(target == naive, "the target is what the operations make");
            assert_eq!(summary.target(), ByteLen::of(&target));
            assert!(delta.ends_with(summary.root.as_bytes()), "the root is the announced one");
        }
        None => assert!(made.is_err(), "a bad delta is refused: {:?}", made.map(|(_, summary)| summary)),
    }
}

fn basis(len: usize) -> Vec<u8> {
    Rng::new(9).bytes(len)
}

/// Lets the patcher come to its end: no fuzzer guesses a digest.
fn end_with_the_right_root(delta: &mut Vec<u8>, basis: &[u8]) {
    let mut reader = DeltaReader::new(&limits());
    let mut input = &delta[..];
    let mut parts = Vec::new();
    while let Ok(Some(part)) = reader.read(&mut input) {
        parts.push(part);
    }
    let Some((DeltaPart::Header(header), pieces)) = parts.split_first() else { return };
    let mut made = Vec::new();
    for part in pieces {
        let DeltaPart::Piece(piece) = part else { return };
        if apply(piece, basis, &mut made).is_none() {
            return;
        }
    }
    delta.push(2);
    delta.extend_from_slice(header.algorithm.digest(&made).as_bytes());
}

/// What a delta makes, read in the plainest way; `None` when it is not a good one for this basis.
fn naive(delta: &[u8], basis: &[u8]) -> Option<Vec<u8>> {
    let (header, pieces, root) = sorted(&parts(delta, Split::WHOLE).ok()?)?;
    let mut made = Vec::new();
    pieces.iter().try_for_each(|piece| apply(piece, basis, &mut made))?;
    let good = header.basis == ByteLen::of(basis) && header.target == ByteLen::of(&made);
    (good && header.algorithm.digest(&made) == root).then_some(made)
}

fn apply(piece: &DeltaPiece, basis: &[u8], made: &mut Vec<u8>) -> Option<()> {
    let mut literals = &piece.literals[..];
    for op in piece.ops.as_slice() {
        match *op {
            Op::Literal { len } => made.extend_from_slice(literals.split_off(..len.to_usize()?)?),
            Op::Copy { from, len } => {
                let end = from.checked_add(len)?.to_usize()?;
                made.extend_from_slice(basis.get(from.to_usize()?..end)?);
            }
        }
        if made.len() as u64 > limits().file.get() {
            return None;
        }
    }
    Some(())
}

/// What the patcher makes; it gets the basis in pieces too.
pub(super) fn patch(delta: &[u8], basis: &[u8], split: Split) -> Result<(Vec<u8>, DeltaSummary), PatchError> {
    let mut patcher = Patcher::new(ByteLen::of(basis), &limits());
    let mut delta = split.pieces(delta);
    let mut target = Vec::new();
    loop {
        match patcher.poll()? {
            PatchRequest::Write(bytes) => target.extend_from_slice(bytes),
            PatchRequest::Copy { from, len } => {
                let start = from.to_usize().expect("within the basis");
                let piece = split.pieces(&basis[start..start + len]).next().expect("a copy of something");
                target.extend_from_slice(piece);
                patcher.copied(piece)?;
            }
            // Done, too: what stands behind the end of a delta is an error.
            PatchRequest::Delta | PatchRequest::Done => match delta.next() {
                Some(piece) => patcher.push(piece),
                None => return patcher.finish().map(|summary| (target, summary)),
            },
        }
    }
}

/// Deltas for a basis of 1000 bytes, by name.
fn deltas() -> Vec<(&'static str, Vec<u8>)> {
    let basis = basis(1000);
    let header = |target| DeltaHeader { algorithm: Algorithm::Blake3, basis: ByteLen::of(&basis), target };
    let good = |pieces: &[(&[Op], &[u8])]| {
        let piece = |(ops, literals): &(&[Op], &[u8])| DeltaPiece {
            ops: ops.iter().copied().collect::<Ops>(),
            literals: literals.to_vec(),
        };
        let pieces: Vec<_> = pieces.iter().map(piece).collect();
        let mut made = Vec::new();
        // A copy past the basis ends what is made; the root then does not matter.
        let _ = pieces.iter().try_for_each(|piece| apply(piece, &basis, &mut made));
        let target = pieces.iter().flat_map(|piece| piece.ops.as_slice()).map(Op::len).sum();
        write(header(target), &pieces, Algorithm::Blake3.digest(&made))
    };
    let literal = |len| Op::Literal { len: ByteLen::new(len) };
    let copy = |from, len| Op::Copy { from: Offset::new(from), len: ByteLen::new(len) };
    let text = b"text that packs ".repeat(10);
    let mixed = good(&[(&[literal(5), copy(0, 500), copy(700, 300)], b"hello"), (&[copy(0, 1000)], b"")]);
    let mut other_root = mixed.clone();
    *other_root.last_mut().expect("a root") ^= 1;
    let mut without_end = mixed.clone();
    without_end.truncate(mixed.len() - 33);
    vec![
        ("empty-target", good(&[])),
        ("literal", good(&[(&[literal(5)], b"hello")])),
        ("copy", good(&[(&[copy(0, 1000)], b"")])),
        ("packed", good(&[(&[literal(160), copy(10, 10)], &text)])),
        ("many-copies", good(&[(&[[copy(500, 9), literal(1)]; 60].concat(), &[b'-'; 60])])),
        ("past-the-basis", good(&[(&[copy(999, 2)], b"")])),
        ("other-root", other_root),
        ("without-end", without_end),
        ("trailing", [&mixed[..], b"x"].concat()),
        ("cut", mixed[..mixed.len() / 2].to_vec()),
        ("header-only", mixed[..10].to_vec()),
        ("mixed", mixed),
        ("target-of-2-63", b"\xd5dlt\x01\x00\xe8\x07\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01".to_vec()),
    ]
}

pub(super) fn delta_seeds() -> Vec<Seed> {
    let seed = |(i, (name, delta)): (usize, (&str, Vec<u8>))| {
        let split = if i % 2 == 0 { 255 } else { i as u8 };
        Seed::new(name, [&[split][..], &delta].concat())
    };
    deltas().into_iter().enumerate().map(seed).collect()
}

pub(super) fn patcher_seeds() -> Vec<Seed> {
    let seed = |(i, (name, delta)): (usize, (&str, Vec<u8>))| {
        let split = if i % 2 == 0 { 255 } else { 7 };
        let complete = u8::from(name == "without-end");
        Seed::new(name, [&[split, 0xe8, 0x03, complete][..], &delta].concat())
    };
    deltas().into_iter().enumerate().map(seed).collect()
}
