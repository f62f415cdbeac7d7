//! The hot paths: each is prepared, then run once while it is counted. Every one has its own seed and a MiB or so.

use std::hint::black_box;
use std::sync::Arc;

use deltasync_benches::{Case, Shape, delta, diff, exact_delta, patch, random, sign};
use deltasync_core::{
    Algorithm, Alignment, ByteLen, ChunkList, Cutter, Differences, Digest, ExactDiffer, FineIndex, FineKey, FineShape,
    FineSummer, Limits, Offset, OldStretch, Pairing, RollingSum, SignatureIndex, Sketch, SketchKey, Tag, TagKey,
    tag_runs,
};
use deltasync_testkit::Pair;

const MIB: usize = 1 << 20;

/// Sets up a path; the closure is what is counted.
type Prepare = fn() -> Box<dyn FnMut()>;

/// All of them, by name.
pub(crate) const PATHS: [(&str, Prepare); 32] = [
    ("cut/random/4 MiB", || cut(random(4 * MIB, 1))),
    ("cut/zeros/4 MiB", || cut(vec![0; 4 * MIB])),
    ("digest/pieces of 4 KiB/1 MiB", digest),
    ("chunk list/random/1 MiB", || chunk_list(random(MIB, 1))),
    ("chunk list/zeros/4 MiB", || chunk_list(vec![0; 4 * MIB])),
    ("align/scattered edits/4 MiB", align),
    ("rolling/every offset/1 MiB", rolling),
    ("signature/1 MiB", sign_random),
    ("index/4 MiB", index),
    ("differ/identical/1 MiB", || differ(Shape::Identical)),
    ("differ/insertion at the front/1 MiB", || differ(Shape::InsertionAtTheFront)),
    ("differ/scattered edits/1 MiB", || differ(Shape::ScatteredEdits)),
    ("differ/unrelated/1 MiB", || differ(Shape::Unrelated)),
    ("differ/zeros edited/1 MiB", || differ(Shape::ZerosEdited)),
    ("differ/rows edited/1 MiB", || differ(Shape::RowsEdited)),
    ("patch/scattered edits/1 MiB", || patched(Shape::ScatteredEdits)),
    ("patch/unrelated/1 MiB", || patched(Shape::Unrelated)),
    ("sketch/make/16384 elements, 655 cells", sketch),
    ("sketch/peel/200 differences", peel),
    ("fine/sum/1 MiB", fine_sum),
    ("fine/find/an edit each 4 KiB/1 MiB", fine_find),
    ("exact/identical/1 MiB", || exact(Shape::Identical)),
    ("exact/scattered edits/1 MiB", || exact(Shape::ScatteredEdits)),
    ("exact/rows edited/1 MiB", || exact(Shape::RowsEdited)),
    ("exact/unrelated/1 MiB", || exact(Shape::Unrelated)),
    ("exact/packed/rows edited/1 MiB", exact_packed),
    ("session/identical/1 MiB", || session(Shape::Identical)),
    ("session/one byte changed/1 MiB", || session(Shape::OneByteChanged)),
    ("session/scattered edits/1 MiB", || session(Shape::ScatteredEdits)),
    ("session/rows edited/1 MiB", || session(Shape::RowsEdited)),
    ("session/unrelated/1 MiB", || session(Shape::Unrelated)),
    ("session/no basis/1 MiB", first_upload),
];

fn cut(bytes: Vec<u8>) -> Box<dyn FnMut()> {
    let cutter = Cutter::for_len(ByteLen::of(&bytes));
    Box::new(move || {
        let mut rest = bytes.as_slice();
        while let Some(len) = cutter.cut(rest, true) {
            rest = &rest[len..];
        }
    })
}

fn digest() -> Box<dyn FnMut()> {
    let bytes = random(MIB, 2);
    let mut digests = Vec::with_capacity(MIB / 4096);
    Box::new(move || {
        let pieces: Vec<&[u8]> = bytes.chunks(4096).collect();
        Algorithm::Blake3.digest_all(&pieces, &mut digests);
    })
}

fn chunk_list(bytes: Vec<u8>) -> Box<dyn FnMut()> {
    let cutter = Cutter::for_len(ByteLen::of(&bytes));
    Box::new(move || drop(black_box(ChunkList::of(&bytes, cutter, Algorithm::Blake3))))
}

fn align() -> Box<dyn FnMut()> {
    let Case { basis, target, .. } = Shape::ScatteredEdits.case(3, 4 * MIB);
    let (cutter, key) = (Cutter::for_len(ByteLen::of(&basis)), TagKey::new(&[1; 16], 1));
    let [old, new] = [basis, target].map(|bytes| tag_runs(&ChunkList::of(&bytes, cutter, Algorithm::Blake3), &key));
    Box::new(move || drop(black_box(Alignment::of(&old, &new))))
}

fn rolling() -> Box<dyn FnMut()> {
    const BLOCK: usize = 4096;
    let bytes = random(MIB, 4);
    Box::new(move || {
        let mut sum = RollingSum::of(&bytes[..BLOCK]);
        for (leaving, entering) in bytes.iter().zip(&bytes[BLOCK..]) {
            sum.roll(*leaving, *entering);
            black_box(sum.value());
        }
    })
}

fn sign_random() -> Box<dyn FnMut()> {
    let basis = random(MIB, 5);
    Box::new(move || drop(black_box(sign(&basis, None))))
}

fn index() -> Box<dyn FnMut()> {
    let mut signature = Some(sign(&random(4 * MIB, 6), None));
    Box::new(move || drop(black_box(signature.take().map(SignatureIndex::new))))
}

fn differ(shape: Shape) -> Box<dyn FnMut()> {
    let Case { basis, target, .. } = shape.case(7, MIB);
    let index = Arc::new(SignatureIndex::new(sign(&basis, None)));
    Box::new(move || {
        black_box(diff(&index, &target, Digest::default(), |piece| drop(black_box(piece))));
    })
}

fn patched(shape: Shape) -> Box<dyn FnMut()> {
    let Case { basis, target, .. } = shape.case(8, MIB);
    let delta = delta(&basis, &target, None);
    Box::new(move || {
        black_box(patch(&basis, &delta));
    })
}

fn tags(len: usize, seed: u64) -> Vec<Tag> {
    let bytes = random(Tag::LEN * len, seed);
    bytes.chunks_exact(Tag::LEN).map(|tag| Tag::from_bytes(tag.try_into().expect("so long"))).collect()
}

fn sketch() -> Box<dyn FnMut()> {
    let tags = tags(16_384, 9);
    Box::new(move || drop(black_box(Sketch::of(SketchKey::new(&[7; 16], 1), 0..655, tags.iter().copied()))))
}

fn peel() -> Box<dyn FnMut()> {
    let cells = deltasync_core::Estimate::cells_for(200);
    let key = SketchKey::new(&[7; 16], 1);
    let [ours, theirs] = [10, 11].map(|seed| Sketch::of(key, 0..cells, tags(100, seed)));
    Box::new(move || drop(black_box(Differences::between(&ours, &theirs).expect("enough cells"))))
}

/// The length of a gap of the fine level, in bytes.
const GAP: usize = 4096;

fn fine_shape() -> FineShape {
    FineShape::for_gaps((MIB / GAP) as u64, MIB as u64, 1024)
}

fn fine_key() -> FineKey {
    FineKey::new(&[1; 16], &[2; 16], 0)
}

fn sums_of(old: &[u8]) -> Vec<u64> {
    let mut summer = FineSummer::new(fine_key(), fine_shape());
    for gap in old.chunks(GAP) {
        summer.push(gap);
        summer.end();
    }
    summer.finish()
}

fn fine_sum() -> Box<dyn FnMut()> {
    let old = random(MIB, 12);
    Box::new(move || drop(black_box(sums_of(&old))))
}

fn fine_find() -> Box<dyn FnMut()> {
    const EDIT: usize = 20;
    let (old, other) = (random(MIB, 13), random(MIB, 14));
    let stretch =
        |number: usize| OldStretch { from: Offset::new((number * GAP) as u64), len: ByteLen::new(GAP as u64) };
    let stretches = (0..MIB / GAP).map(stretch).collect();
    let index = FineIndex::new(fine_key(), fine_shape(), stretches, sums_of(&old)).expect("summed as asked");
    let edit = |(old, new): (&[u8], &[u8])| [&old[..1500], &new[..EDIT], &old[1500 + EDIT..]].concat();
    let targets: Vec<Vec<u8>> = old.chunks(GAP).zip(other.chunks(GAP)).map(edit).collect();
    Box::new(move || {
        for (stretch, target) in targets.iter().enumerate() {
            black_box(index.find(target, Some(Pairing { stretch, left: true, right: true })));
        }
    })
}

fn exact(shape: Shape) -> Box<dyn FnMut()> {
    let Case { basis, target, .. } = shape.case(15, MIB);
    Box::new(move || ExactDiffer::new(&basis, &target, &Limits::default()).for_each(|piece| drop(black_box(piece))))
}

fn exact_packed() -> Box<dyn FnMut()> {
    let Case { basis, target, .. } = Shape::RowsEdited.case(16, MIB);
    Box::new(move || drop(black_box(exact_delta(&basis, &target))))
}

fn session(shape: Shape) -> Box<dyn FnMut()> {
    let Case { basis, target, .. } = shape.case(17, MIB);
    ran(Pair::new(1).basis(basis).target(target))
}

fn first_upload() -> Box<dyn FnMut()> {
    ran(Pair::new(1).target(random(MIB, 18)))
}

fn ran(pair: Pair) -> Box<dyn FnMut()> {
    let mut pair = Some(pair);
    Box::new(move || {
        if let Some(pair) = pair.take() {
            black_box(pair.run_to_end().outcome());
        }
    })
}
