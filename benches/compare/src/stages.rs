//! What is compared, stage by stage: what is set up before, and what each entrant does.
//!
//! Blocks have 4 KiB for all, whatever their defaults. Signatures are indexed before a diff is timed, which is the search
//! alone, since the others compute no root of the target. Everything is in memory but for the file that is cut and hashed,
//! and those of a patch, which are read and written 256 KiB at a time.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use deltasync_benches::{delta, diff as diff_of, fresh_file, sign};
use deltasync_core::{Algorithm, ByteLen, Cutter, Digest, Limits, PatchRequest, Patcher, RelPath, SignatureIndex};
use deltasync_io::{BlockingStorage as _, LocalOptions, LocalStorage};
use deltasync_proto::{Answer, Ask, Cutting, Place, RootId};
use deltasync_testkit::{Rng, Shape, scattered_edits};
use fast_rsync::SignatureOptions;

use crate::contest::{Entrant, Measured, contest};
use crate::data::{self, Pair};
use crate::delta_len::literal_bytes;
use crate::librsync;
use crate::table::{Clock, Row};

/// The length of a block for all, in bytes.
const BLOCK: usize = 4096;
/// As much as is read or written at once, in bytes.
const PIECE: usize = 256 << 10;

/// What all stages are measured over.
#[derive(Clone, Debug)]
pub(crate) struct Measuring<'a> {
    /// The length of what is in memory, in bytes.
    pub(crate) len: usize,
    /// The length of what is a file, in bytes.
    pub(crate) file_len: u64,
    pub(crate) rounds: usize,
    pub(crate) seed: u64,
    /// Where files are made.
    pub(crate) dir: &'a Path,
}

/// A stage: its name on the command line, and what measures it.
pub(crate) type Stage = (&'static str, fn(&Measuring<'_>) -> io::Result<Vec<Row>>);

/// All of them, in the order of the table.
pub(crate) const STAGES: [Stage; 6] = [
    ("chunks", chunks),
    ("cut", cut),
    ("signature", signature),
    ("diff", diff),
    ("patch", patch),
    ("adversarial", adversarial),
];

/// The chunk list of a file in the page cache, beside its BLAKE3, and on two threads beside one.
fn chunks(on: &Measuring<'_>) -> io::Result<Vec<Row>> {
    let path = on.dir.join("chunks");
    data::write_random(&mut File::create_new(&path)?, on.file_len, on.seed)?;
    let file = File::open(&path)?;
    let list = |threads| {
        let options = LocalOptions::default().chunking_threads(threads);
        let storage = LocalStorage::roots(vec![on.dir.to_owned()], options).expect("a directory of ours");
        let place = Place { root: RootId::new(0), path: RelPath::new(*b"chunks").expect("a plain name") };
        let algorithm = Algorithm::Blake3;
        let described = storage.answer(Ask::Describe { place, cutting: Cutting::ByContent, algorithm, remember: None });
        let Ok(Answer::Described(described)) = described else { panic!("not described: {described:?}") };
        described.chunks.chunk_count()
    };
    let whole = || {
        let mut hasher = blake3::Hasher::new();
        read(&file, |piece| {
            hasher.update(piece);
        });
        black_box(hasher.finalize());
        on.file_len
    };
    let measured = contest(
        on.rounds,
        vec![
            Entrant::new("deltasync", || list(1)),
            Entrant::new("blake3::Hasher", whole),
            Entrant::new("deltasync on two", || list(2)),
        ],
    );
    std::fs::remove_file(&path)?;
    let [one, theirs, two] = measured.try_into().expect("as many as entrants");
    let one_of_two = Measured { name: "on one", ..one.clone() };
    let row = Row::new("chunk list of a file", on.file_len, one, theirs);
    let on_two = Row::new("chunk list of a file on two threads", on.file_len, two, one_of_two);
    Ok(vec![row.least(0.33), on_two.by(Clock::Wall).least(1.6)])
}

/// Cutting alone.
fn cut(on: &Measuring<'_>) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let random = Rng::new(on.seed).bytes(on.len);
    for (name, bytes) in [("random", random), ("text", data::text(on.len, on.seed).basis), ("zeros", vec![0; on.len])] {
        let cutter = Cutter::for_len(ByteLen::of(&bytes));
        let average = 2 * cutter.min_len();
        let ours = || {
            let (mut rest, mut chunks) = (bytes.as_slice(), 0);
            while let Some(len) = cutter.cut(rest, true) {
                rest = &rest[len..];
                chunks += 1;
            }
            chunks
        };
        let fastcdc = || fastcdc::v2020::FastCDC::new(&bytes, average / 4, average, 4 * average).count() as u64;
        let [ours, theirs] = two(on, Entrant::new("deltasync", ours), Entrant::new("fastcdc", fastcdc));
        rows.push(Row::new(&format!("cut, {name}"), on.len as u64, ours, theirs));
    }
    Ok(rows)
}

/// Signing.
fn signature(on: &Measuring<'_>) -> io::Result<Vec<Row>> {
    let basis = Rng::new(on.seed).bytes(on.len);
    let measured = contest(
        on.rounds,
        vec![
            Entrant::new("deltasync", || sign(&basis, Some(BLOCK)).len() as u64),
            Entrant::new("fast_rsync", || fast_signature(&basis).serialized().len() as u64),
            Entrant::new("librsync", || librsync::signature(&basis, BLOCK).len() as u64).slow(),
        ],
    );
    let [ours, fast, slow] = measured.try_into().expect("as many as entrants");
    let row = |theirs| Row::new("signature", on.len as u64, ours.clone(), theirs);
    Ok(vec![row(fast).least(0.9), row(slow).least(7.0)])
}

/// Finding the blocks of a basis in a target.
fn diff(on: &Measuring<'_>) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let shape = |shape: Shape| {
        let case = shape.case(on.seed, on.len);
        (shape.name(), Pair { basis: case.basis, target: case.target })
    };
    // Bars: against fast_rsync, against librsync, and how many times its literals at most.
    type Bars = (Option<f64>, Option<f64>, Option<f64>);
    const NONE: Bars = (None, None, None);
    type Make<'a> = &'a dyn Fn() -> (&'static str, Pair);
    let makers: [(Make<'_>, Bars); 9] = [
        (&|| shape(Shape::Identical), (Some(4.0), Some(10.0), None)),
        (&|| shape(Shape::OneByteChanged), NONE),
        (&|| shape(Shape::ScatteredEdits), NONE),
        (&|| shape(Shape::InsertionAtTheFront), (Some(4.0), Some(10.0), None)),
        (&|| shape(Shape::MovedRegions), NONE),
        (&|| shape(Shape::Unrelated), (Some(40.0), Some(40.0), None)),
        (&|| shape(Shape::ZerosEdited), NONE),
        (&|| ("text", data::text(on.len, on.seed)), NONE),
        (&|| ("tar, an edit every 200 kB", data::edited_tar(on.len, on.seed)), (Some(3.0), None, Some(1.02))),
    ];
    for (make, (against_fast, against_slow, literals)) in makers {
        let (name, Pair { basis, target }) = make();
        let index = Arc::new(SignatureIndex::new(sign(&basis, Some(BLOCK))));
        let fast_signature = fast_signature(&basis);
        let fast_index = fast_signature.index();
        let slow_index = librsync::Index::new(&librsync::signature(&basis, BLOCK));
        let measured = contest(
            on.rounds,
            vec![
                Entrant::new("deltasync", || ours(&index, &target)),
                Entrant::new("fast_rsync", || {
                    let mut delta = Vec::new();
                    fast_rsync::diff(&fast_index, &target, &mut delta).expect("an index of its own");
                    literal_bytes(&delta)
                }),
                Entrant::new("librsync", || {
                    let mut delta = Vec::new();
                    slow_index.delta(&target, &mut delta);
                    literal_bytes(&delta)
                })
                .slow(),
            ],
        );
        let [ours, fast, slow] = measured.try_into().expect("as many as entrants");
        let row = |theirs| Row::new(&format!("diff, {name}"), target.len() as u64, ours.clone(), theirs);
        rows.push(row(fast).bars(against_fast, literals));
        rows.push(row(slow).bars(against_slow, None));
    }
    Ok(rows)
}

/// Carrying out a delta to a fresh file and verifying the root, beside a copy of the same bytes.
fn patch(on: &Measuring<'_>) -> io::Result<Vec<Row>> {
    let paths = ["basis", "patched", "copied"].map(|name| on.dir.join(name));
    let mut rng = Rng::new(on.seed);
    let bytes = rng.bytes(on.file_len as usize);
    let target = scattered_edits(&bytes, &mut rng);
    std::fs::write(&paths[0], &bytes)?;
    let delta = delta(&bytes, &target, Some(BLOCK));
    let len = target.len() as u64;
    drop((bytes, target));
    let basis = File::open(&paths[0])?;
    let out = |path: &Path| {
        // Gone first: a fresh file is what a sync writes.
        let _ = std::fs::remove_file(path);
        fresh_file(path, len).expect("a directory of ours")
    };
    let patch = || {
        let mut patcher = Patcher::new(ByteLen::new(on.file_len), &Limits::default());
        let (mut file, mut parts) = (out(&paths[1]), delta.chunks(PIECE));
        let mut piece = vec![0; PIECE];
        loop {
            match patcher.poll().expect("made above") {
                PatchRequest::Delta => match parts.next() {
                    Some(part) => patcher.push(part),
                    None => break,
                },
                PatchRequest::Write(bytes) => file.write_all(bytes).expect("there is room"),
                PatchRequest::Copy { from, len } => {
                    let piece = &mut piece[..len];
                    basis.read_exact_at(piece, from.get()).expect("within the basis");
                    file.write_all(piece).expect("there is room");
                    patcher.copied(piece).expect("asked for");
                }
                PatchRequest::Done => break,
            }
        }
        patcher.finish().expect("verified").target().get()
    };
    let copy = || {
        let mut file = out(&paths[2]);
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < len {
            // The basis again where the target is longer: what is copied does not matter.
            let wanted = (len - at).min(PIECE as u64).min(on.file_len);
            let piece = &mut piece[..wanted as usize];
            basis.read_exact_at(piece, at.min(on.file_len - wanted)).expect("within the basis");
            file.write_all(piece).expect("there is room");
            at += wanted;
        }
        at
    };
    let [ours, theirs] = two(on, Entrant::new("deltasync", patch), Entrant::new("pwrite copy", copy));
    for path in &paths {
        std::fs::remove_file(path)?;
    }
    let row = Row::new("patch and verify a file", len, ours, theirs);
    Ok(vec![row.clone().least(0.6), row.by(Clock::Wall)])
}

/// Content that is made or happens to be hard, beside random data through the same differ.
fn adversarial(on: &Measuring<'_>) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let len = on.len;
    let random = Rng::new(on.seed).bytes(len);
    let unrelated = Rng::new(on.seed + 1).bytes(len);
    let index_of = |basis: &[u8], block| Arc::new(SignatureIndex::new(sign(basis, Some(block))));
    let pattern = |seed| {
        let pattern = Rng::new(seed).bytes(1000);
        pattern.into_iter().cycle().take(len).collect::<Vec<_>>()
    };
    let mut against = |what: &str, ours: Entrant<'_>, theirs: Entrant<'_>| {
        let [ours, theirs] = two(on, ours, theirs);
        rows.push(Row::new(what, len as u64, ours, theirs).least(1.0 / 3.0));
    };
    let random_index = index_of(&random, BLOCK);
    let same = || Entrant::new("random, identical", || ours(&random_index, &random));
    let zeros = vec![0; len];
    let zeros_index = index_of(&zeros, BLOCK);
    against("diff, zeros in zeros", Entrant::new("deltasync", || ours(&zeros_index, &zeros)), same());
    let patterned = pattern(on.seed);
    let pattern_index = index_of(&patterned, BLOCK);
    against("diff, a pattern in itself", Entrant::new("deltasync", || ours(&pattern_index, &patterned)), same());

    let other = || Entrant::new("random, unrelated", || ours(&random_index, &unrelated));
    against("diff, zeros in random", Entrant::new("deltasync", || ours(&random_index, &zeros)), other());
    against("diff, random in zeros", Entrant::new("deltasync", || ours(&zeros_index, &unrelated)), other());
    let other_pattern = pattern(on.seed + 1);
    against("diff, a pattern in another", Entrant::new("deltasync", || ours(&pattern_index, &other_pattern)), other());
    drop((zeros_index, pattern_index, random_index));

    // As many blocks with one weak sum as fit: a million in 256 MiB.
    let block = data::COLLIDING_BLOCK;
    let (colliding, others) = (data::colliding(len, on.seed), data::colliding(len, on.seed + 1));
    let (colliding_index, random_index) = (index_of(&colliding, block), index_of(&random, block));
    let other = || Entrant::new("random, unrelated", || ours(&random_index, &unrelated));
    let blocks = len / block;
    let what = format!("diff, {blocks} blocks of one weak sum: unrelated blocks of that sum");
    against(&what, Entrant::new("deltasync", || ours(&colliding_index, &others)), other());
    let what = format!("diff, {blocks} blocks of one weak sum: that sum at every offset");
    let constant = vec![100; len];
    against(&what, Entrant::new("deltasync", || ours(&colliding_index, &constant)), other());
    Ok(rows)
}

/// Reads a file of ours from its start to its end.
fn read(file: &File, mut take: impl FnMut(&[u8])) {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    loop {
        let len = file.read_at(&mut piece, at).expect("a file of ours can be read");
        if len == 0 {
            break;
        }
        take(&piece[..len]);
        at += len as u64;
    }
}

/// Measures two entrants.
fn two(on: &Measuring<'_>, ours: Entrant<'_>, theirs: Entrant<'_>) -> [Measured; 2] {
    contest(on.rounds, vec![ours, theirs]).try_into().expect("as many as entrants")
}

fn fast_signature(basis: &[u8]) -> fast_rsync::Signature {
    fast_rsync::Signature::calculate(basis, SignatureOptions { block_size: BLOCK as u32, crypto_hash_size: 16 })
}

/// Our diff; gives back its literal bytes.
fn ours(index: &Arc<SignatureIndex>, target: &[u8]) -> u64 {
    diff_of(index, target, Digest::default(), |piece| drop(black_box(piece))).literal.get()
}
