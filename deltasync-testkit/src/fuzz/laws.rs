//! The laws of the engine, on files that the input describes: the basis as bytes, the target as a recipe.

use deltasync_core::{
    Algorithm, Alignment, ByteLen, ChunkList, Chunker, Cutter, DeltaHeader, DeltaPiece, DeltaWriter, Differ, Limits,
    Segment, Signature, SignatureIndex, TagKey, TagRun, tag_runs,
};

use super::files::patch;
use super::take::{Recipe, Split, Take};
use crate::{Case, Rng, Seed, Shape};

/// No file of a run is longer, in bytes.
const LEN_MAX: usize = 1 << 14;

fn algorithm(byte: u8) -> Algorithm {
    Algorithm::ALL[usize::from(byte) % Algorithm::ALL.len()]
}

/// Split, algorithm, lengths of block and strong sum, a limit on pieces; then the files.
pub(super) fn sign_diff_patch(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let split = take.split();
    let algorithm = algorithm(take.byte());
    let block_len = 16 + take.short() % 2048;
    let strong_len = 8 + usize::from(take.byte()) % 25;
    let limits = Limits::default().file(ByteLen::new(LEN_MAX as u64)).ops(2 + take.short() % 512);
    let (basis, target) = files(&mut take);

    let sign = |split: Split| {
        let builder = Signature::builder(ByteLen::of(&basis)).algorithm(algorithm);
        let builder = builder.block_len(block_len).strong_len(strong_len);
        let mut signer = builder.build(&limits).expect("in range");
        split.pieces(&basis).for_each(|piece| signer.push(piece));
        signer.finish().expect("as long as announced")
    };
    let signature = sign(split);
    assert_eq!(signature, sign(Split::WHOLE), "any split gives the same signature");

    let index = std::sync::Arc::new(SignatureIndex::new(signature));
    let diff = |split: Split| {
        let mut differ = Differ::new(std::sync::Arc::clone(&index), &limits);
        let mut pieces: Vec<DeltaPiece> = Vec::new();
        for piece in split.pieces(&target) {
            differ.push(piece);
            pieces.extend(std::iter::from_fn(|| differ.next_piece()));
        }
        let (rest, summary) = differ.finish(algorithm.digest(&target));
        pieces.extend(rest);
        (pieces, summary)
    };
    let (pieces, summary) = diff(split);
    assert_eq!(diff(Split::WHOLE), (pieces.clone(), summary), "any split gives the same pieces");
    assert_eq!((summary.target(), summary.root), (ByteLen::of(&target), algorithm.digest(&target)));
    if basis == target && basis.len() >= 8 {
        assert_eq!(summary.literal, ByteLen::ZERO, "equal files are copied");
    }

    let mut delta = Vec::new();
    let header = DeltaHeader { algorithm, basis: ByteLen::of(&basis), target: ByteLen::of(&target) };
    let mut writer = DeltaWriter::new(header, &mut delta);
    pieces.iter().for_each(|piece| writer.piece(piece, &mut delta));
    writer.finish(summary.root, &mut delta).expect("as long as announced");
    let (made, patched) = patch(&delta, &basis, split).expect("our own delta");
    assert!(made == target, "the target comes out");
    assert_eq!(patched, summary);
}

/// The basis, which may be repeated, and the target.
fn files(take: &mut Take<'_>) -> (Vec<u8>, Vec<u8>) {
    let (len, times) = (take.short(), 1 + usize::from(take.byte()));
    let once = take.bytes(len);
    let basis: Vec<u8> = once.iter().copied().cycle().take((once.len() * times).min(LEN_MAX)).collect();
    let target = take.derived(&basis, LEN_MAX);
    (basis, target)
}

/// Split, average, algorithm, bits of a tag; then the files.
pub(super) fn chunker(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let split = take.split();
    let shape = take.byte();
    // Not all are allowed in a session: chunks of some bytes make long lists of short files.
    let size = 8 << (shape % 12);
    let cutter = if shape & 0x80 == 0 { Cutter::MinCdc { average: size } } else { Cutter::Fixed { size } };
    let algorithm = algorithm(take.byte());
    let key = TagKey::new(&[7; 16], 1).with_bits(1 + u32::from(take.byte()) % 48);
    let (basis, target) = files(&mut take);
    let lists = [&basis, &target].map(|file| check_chunks(file, cutter, algorithm, split));
    let [basis, target] = lists.map(|list| tag_runs(&list, &key));
    check_alignment(&basis, &target);
}

fn check_chunks(file: &[u8], cutter: Cutter, algorithm: Algorithm, split: Split) -> ChunkList {
    let list = ChunkList::of(file, cutter, algorithm);
    let mut chunker = Chunker::new(cutter, algorithm, &Limits::default());
    split.pieces(file).for_each(|piece| chunker.push(piece).expect("a short file"));
    assert_eq!(chunker.finish().as_ref(), Ok(&list), "any split gives the same chunks");
    assert_eq!((list.len(), list.root()), (ByteLen::of(file), algorithm.digest(file)));
    let (mut at, mut index) = (0, 0);
    for run in list.runs() {
        assert!((1..=cutter.max_len()).contains(&(run.len as usize)) && run.count > 0);
        for _ in 0..run.count {
            assert_eq!(list.offset_of(index).get(), at as u64);
            let chunk = &file[at..at + run.len as usize];
            assert_eq!(algorithm.digest(chunk), run.digest);
            (at, index) = (at + chunk.len(), index + 1);
            assert!(chunk.len() >= cutter.min_len() || at == file.len(), "only the last is short");
        }
    }
    assert_eq!((at, index), (file.len(), list.chunk_count()));
    list
}

fn check_alignment(basis: &[TagRun], target: &[TagRun]) {
    let expand = |runs: &[TagRun]| -> Vec<_> {
        runs.iter().flat_map(|run| std::iter::repeat_n(run.tag, run.count as usize)).collect()
    };
    let alignment = Alignment::of(basis, target);
    let (basis, target) = (expand(basis), expand(target));
    let (mut at, mut common) = (0, 0);
    for segment in alignment.segments() {
        match segment {
            Segment::Common { basis: from, target: to, count } => {
                assert_eq!(*to, at);
                let old = &basis[*from as usize..][..*count as usize];
                assert_eq!(old, &target[at as usize..][..*count as usize], "equal tags");
                (at, common) = (at + count, common + count);
            }
            Segment::Gap { target: range, basis: old } => {
                assert!(range.start == at && range.start < range.end);
                assert!(old.start <= old.end && old.end <= basis.len() as u64);
                at = range.end;
            }
        }
    }
    assert_eq!((at, common), (target.len() as u64, alignment.common()), "the target is covered");
    if basis == target {
        assert_eq!(common, at, "equal lists have all in common");
    }
}

pub(super) fn sign_diff_patch_seeds() -> Vec<Seed> {
    // Split, algorithm, block of 64 bytes, strong sums of 12, 256 operations.
    let mut seeds = law_seeds(&[255, 0, 48, 0, 4, 0xfe, 0]);
    // The same in single bytes, other hash, shortest blocks, fewest operations.
    seeds.extend(
        law_seeds(&[0, 1, 0, 0, 0, 0, 0])
            .into_iter()
            .step_by(3)
            .map(|seed| Seed { name: format!("{}-tight", seed.name), ..seed }),
    );
    seeds
}

pub(super) fn chunker_seeds() -> Vec<Seed> {
    // Split, an average of 64 bytes, algorithm, 48 bits.
    let mut seeds = law_seeds(&[255, 3, 0, 47]);
    let collide = law_seeds(&[3, 2, 1, 2]).into_iter().step_by(3);
    seeds.extend(collide.map(|seed| Seed { name: format!("{}-collide", seed.name), ..seed }));
    let fixed = law_seeds(&[10, 0x82, 0, 47]).into_iter().step_by(4);
    seeds.extend(fixed.map(|seed| Seed { name: format!("{}-fixed", seed.name), ..seed }));
    seeds
}

fn law_seeds(parameters: &[u8]) -> Vec<Seed> {
    let seed = |name: &str, basis: &[u8], times: u8, recipe: Recipe| {
        let len = (basis.len() as u16).to_le_bytes();
        let bytes = [parameters, &len, &[times - 1], basis, &recipe.0].concat();
        Seed::new(name.replace(' ', "-"), bytes)
    };
    let random = Rng::new(3).bytes(1000);
    let mut seeds = vec![
        seed("empty", b"", 1, Recipe::default()),
        seed("no-basis", b"", 1, Recipe::default().literal(b"new")),
        seed("no-target", &random[..50], 1, Recipe::default()),
        seed("same", &random, 1, Recipe::default().copy(0, 1000)),
        seed("insertion", &random, 1, Recipe::default().literal(b"x").copy(0, 1000)),
        seed("moved", &random, 1, Recipe::default().copy(500, 500).copy(0, 500)),
        seed("edited", &random, 1, Recipe::default().copy(0, 300).literal(b"other").copy(305, 695)),
        seed("tail-alone", &random, 1, Recipe::default().literal(b"before").copy(960, 40)),
        seed("zeros", &[0], 250, Recipe::default().copy(0, 100).literal(&[1]).copy(0, 250).copy(0, 250)),
        seed("pattern", b"abcdefg", 100, Recipe::default().copy(3, 300).literal(b"-").copy(0, 690)),
    ];
    for shape in [Shape::RowsEdited, Shape::Unrelated] {
        let Case { basis, target, .. } = shape.case(1, 700);
        seeds.push(seed(shape.name(), &basis, 1, Recipe::default().literal(&target)));
    }
    seeds
}
