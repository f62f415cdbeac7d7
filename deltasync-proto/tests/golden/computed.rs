//! What both ends compute alike, and the bytes that machines and not messages read: sets, surveys, sums, prefixes.

use deltasync_core::{
    Algorithm, ByteLen, ChunkList, Cutter, Elements, FineKey, FineShape, FineSummer, History, Limits, LiteralUnpacker,
    MendKey, Offset, OldContent, OldPiece, Op, Ops, Reader, Shared, Sketch, SketchKey, Survey, Tag, TagKey,
    context_tags, pack_ops, read_sums, read_tags, unpack_ops, write_sums,
};
use deltasync_proto::VERSION;

use crate::cases::{CLIENT, SERVER, four, hundred};
use crate::read;

pub(crate) const FILES: [&str; 8] = [
    "computed_elements",
    "computed_fine_sums",
    "computed_operations",
    "computed_order",
    "computed_prefix",
    "computed_ranges",
    "computed_sketch",
    "computed_survey",
];

/// The bytes of a case.
#[track_caller]
fn bytes_of(file: &str, case: &str) -> Vec<u8> {
    let found = read(VERSION, file).into_iter().find(|(name, _)| name == case);
    found.unwrap_or_else(|| panic!("{file}: no case {case:?}")).1
}

/// So many bytes that repeat little.
fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|at| (((at * at) >> 3) ^ at) as u8).collect()
}

fn tag_key() -> TagKey {
    TagKey::new(&CLIENT, 1)
}

/// Some chunks are there once, some in runs, some again.
fn file_of_repeated_chunks() -> ChunkList {
    let bytes: Vec<u8> = [1, 2, 2, 3, 2, 2, 4, 2, 3, 5, 5, 5].into_iter().flat_map(|letter| [letter; 1024]).collect();
    ChunkList::of(&bytes, Cutter::Fixed { size: 1024 }, Algorithm::Blake3)
}

fn concat(tags: impl IntoIterator<Item = Tag>) -> Vec<u8> {
    tags.into_iter().flat_map(Tag::to_bytes).collect()
}

#[test]
fn elements_are_these() {
    let file = "computed_elements";
    let list = file_of_repeated_chunks();
    assert_eq!(concat(context_tags(&list, &tag_key())), bytes_of(file, "context tags in the order of the file"));
    let elements = Elements::of(&list, &tag_key());
    for (case, ranks) in [("all elements", 0..8), ("the lowest three", 0..3), ("the other five", 3..8)] {
        let mut bytes = Vec::new();
        elements.encode(ranks, &mut bytes);
        assert_eq!(bytes, bytes_of(file, case), "{case}");
    }
    let mut tags = Vec::new();
    read_tags(&bytes_of(file, "the lowest three"), 3, 8, &mut tags).expect("three tags");
    read_tags(&bytes_of(file, "the other five"), 5, 8, &mut tags).expect("five more");
    assert_eq!(tags, elements.tags().collect::<Vec<_>>());
}

/// The lists in `tags.hex`: header of 3 bytes, start and count of 2, and the bit stream.
#[test]
fn the_lists_of_tags_are_read() {
    let (all, last) = (bytes_of("tags", "all of a set of 4"), bytes_of("tags", "the last two of them"));
    let mut tags = Vec::new();
    read_tags(&all[5..], 4, 4, &mut tags).expect("four tags");
    assert_eq!(tags, four());
    tags.truncate(2);
    read_tags(&last[5..], 2, 4, &mut tags).expect("two tags");
    assert_eq!(tags, four());
}

#[test]
fn cells_are_these() {
    let key = SketchKey::new(&CLIENT, 1);
    for (case, cells) in [("the first 70", 0..70), ("from 500 to 505", 500..505)] {
        let bytes = bytes_of("computed_sketch", case);
        let sketch = Sketch::of(key, cells.clone(), hundred());
        let mut encoded = Vec::new();
        sketch.encode(&mut encoded);
        assert_eq!(encoded, bytes, "{case}");
        let mut reader = Reader::new(&bytes);
        assert_eq!(Sketch::decode(key, cells, 100, &mut reader, &Limits::default()).as_ref(), Ok(&sketch), "{case}");
        assert!(reader.is_empty(), "{case}");
    }
}

#[test]
fn order_and_edges_are_these() {
    let (file, key) = ("computed_order", tag_key());
    let elements = Elements::of(&file_of_repeated_chunks(), &key);
    let missing: Vec<Tag> = [1, 4].into_iter().filter_map(|rank| elements.tags().nth(rank)).collect();
    let shared = Shared::all_but(&elements, &missing);
    assert_eq!(shared, Shared::all_but_ranks(&elements, &[1, 4]));
    assert_eq!(shared.order(&elements, &key).to_bytes()[..], bytes_of(file, "the tag of the order"));
    let (set, edges) = shared.edges(&elements, &key);
    assert_eq!(concat(edges), bytes_of(file, "edges in the order of the file"));
    let mut cells = Vec::new();
    Sketch::of(SketchKey::of_edges(&CLIENT, 1), 0..3, set.tags()).encode(&mut cells);
    assert_eq!(cells, bytes_of(file, "the first three cells of their sketch"));
}

fn survey(basis: u64, missing: &[u32], pieces: Vec<OldPiece>) -> Survey {
    let (basis, order, missing) = (ByteLen::new(basis), Tag::from_bytes([1, 2, 3, 4, 5, 6]), missing.to_vec());
    Survey { basis, order, missing, pieces, shape: None, sums: Vec::new(), edges: None }
}

fn shape(block: u32, bits: u32) -> Option<FineShape> {
    Some(FineShape::new(block, bits).expect("a shape"))
}

/// What the cases of the surveys say, and of how many elements.
fn surveys() -> [(Survey, u64); 4] {
    let piece = |before, content| OldPiece { before, content };
    let (plain, summed) = (|len| OldContent::Bytes(ByteLen::new(len)), |len| OldContent::Summed(ByteLen::new(len)));
    let run = OldContent::Run { tag: Tag::from_bytes([9, 8, 7, 6, 5, 4]), len: 4096, count: 300 };
    let each = [(0, summed(70)), (2, plain(5000)), (2, summed(33)), (3, run), (7, summed(32))];
    let each = each.map(|(before, content)| piece(before, content)).to_vec();
    let sums = (1..=6).map(|number| (number * 77_777) & 0xf_ffff).collect();
    let edges = Sketch::of(SketchKey::of_edges(&CLIENT, 1), 0..2, four());
    let mut many: Vec<OldPiece> = (0..40).map(|before| piece(before, plain(1))).collect();
    many.push(piece(40, plain(10_000)));
    [
        (survey(100_000, &[], Vec::new()), 10),
        (Survey { shape: shape(32, 20), sums, ..survey(1_300_000, &[0, 3, 4], each) }, 10),
        (
            Survey {
                shape: shape(64, 56),
                sums: vec![0x12_3456_789a_bcde],
                edges: Some(edges),
                ..survey(64, &[2], vec![piece(4, summed(64))])
            },
            5,
        ),
        (survey(10_040, &[49], many), 50),
    ]
}

#[test]
fn surveys_are_these() {
    let written = read(VERSION, "computed_survey");
    assert_eq!(written.len(), surveys().len());
    for ((name, bytes), (survey, elements)) in written.iter().zip(surveys()) {
        let key = SketchKey::of_edges(&CLIENT, 1);
        assert_eq!(Survey::decode(bytes, elements, key, &Limits::default()), Ok(survey.clone()), "{name}");
        let mut encoded = Vec::new();
        survey.encode(elements, &mut encoded);
        assert_eq!(encoded, *bytes, "{name}");
    }
}

#[test]
fn fine_sums_are_these() {
    let bytes = pattern(100);
    for (case, block, bits, count) in [("blocks of 32, 20 bits", 32, 20, 4), ("blocks of 16, 56 bits", 16, 56, 7)] {
        let shape = FineShape::new(block, bits).expect("a shape");
        let mut summer = FineSummer::new(FineKey::new(&CLIENT, &SERVER, 1), shape);
        summer.push(&bytes[..70]);
        summer.end();
        summer.push(&bytes[70..]);
        let sums = summer.finish();
        let mut encoded = Vec::new();
        write_sums(&sums, shape, &mut encoded);
        let written = bytes_of("computed_fine_sums", case);
        assert_eq!(encoded, written, "{case}");
        assert_eq!(read_sums(&written, count, shape), Ok((sums, &[][..])), "{case}");
    }
}

fn literal(len: u64) -> Op {
    Op::Literal { len: ByteLen::new(len) }
}

fn copy(from: u64, len: u64) -> Op {
    Op::Copy { from: Offset::new(from), len: ByteLen::new(len) }
}

#[track_caller]
fn check_operations_are_read(case: &str, ops: &Ops) -> Vec<u8> {
    let bytes = bytes_of("computed_operations", case);
    let mut reader = Reader::new(&bytes);
    assert_eq!(unpack_ops(&mut reader, &Limits::default()).as_ref(), Ok(ops), "{case}");
    assert!(reader.is_empty(), "{case}");
    bytes
}

#[test]
fn operations_are_these() {
    let in_turn = [copy(0, 4096), literal(3), copy(4099, 8000), literal(2), copy(100, 50), literal(1)];
    let in_turn: Ops = in_turn.into_iter().collect();
    let bytes = check_operations_are_read("as they are", &in_turn);
    let mut encoded = Vec::new();
    pack_ops(&in_turn, 19, &mut encoded);
    assert_eq!(encoded, bytes);
    let rows: Ops = (0..100).flat_map(|row| [literal(7), copy(1000 * row, 993)]).collect();
    let case = "packed: a hundred times a literal of 7 and a copy of 993 from the next thousand";
    check_operations_are_read(case, &rows);
}

#[track_caller]
fn check_prefix(case: &str, mut history: History) {
    let basis = pattern(6000);
    let copies = [copy(100, 1000), copy(1150, 50), copy(5000, 900), copy(40, 200)];
    let ops = [literal(10), copies[0], literal(5), copies[1], literal(300), copies[2], copies[3], literal(7)];
    // In any pieces.
    for op in ops {
        history.push(&[op].into_iter().collect());
    }
    let range = |range: std::ops::Range<Offset>| &basis[range.start.get() as usize..range.end.get() as usize];
    let prefix: Vec<u8> = history.finish().into_iter().flat_map(range).copied().collect();
    assert_eq!(prefix, bytes_of("computed_prefix", case), "{case}");
}

#[test]
fn prefixes_are_these() {
    check_prefix("replaced", History::new(ByteLen::new(6000)));
    check_prefix("around", History::around(ByteLen::new(6000)));
}

#[test]
fn a_prefix_that_begins_like_a_dictionary_is_none() {
    let file = "computed_prefix";
    let mut unpacker = LiteralUnpacker::new(&bytes_of(file, "a prefix that begins like a dictionary")).expect("zstd");
    for (case, literals) in [
        ("literals behind it, the first piece", &b"it begins like a dictionary, and "[..]),
        ("the second piece", b"is none: begins like a dictionary"),
    ] {
        assert_eq!(unpacker.push(&bytes_of(file, case), literals.len()).as_deref(), Ok(literals), "{case}");
    }
}

#[test]
fn sums_of_ranges_are_these() {
    for (case, repair) in [("in the first repair", 1), ("in the second repair", 2)] {
        let sums = MendKey::new(&CLIENT, &SERVER, 1, repair).sums(&pattern(10_000), 4096);
        let bytes: Vec<u8> = sums.into_iter().flat_map(u64::to_le_bytes).collect();
        assert_eq!(bytes, bytes_of("computed_ranges", case), "{case}");
    }
}
