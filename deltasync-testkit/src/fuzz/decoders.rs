//! The decoders of the wire: what they accept is the same after encoding and decoding it again.

use bytes::Bytes;
use deltasync_core::{
    Algorithm, BitWriter, Break, ByteLen, ChunkList, Cutter, Digest, Elements, FineShape, Generation, Limits,
    LiteralPacker, Name, Offset, OldContent, OldPiece, Op, Reader, RelPath, Sketch, SketchKey, Survey, Tag, TagKey,
    pack_ops, read_tags, rice_for, unpack_ops,
};
use deltasync_proto::{
    AskRoot, Close, CloseCode, Content, Delta, Edges, Entry, EntryKind, Filter, Frame, FrameDecoder, Hello,
    InvalidMessage, List, Listing, Literals, MakeDirectory, Message, MessageKind, More, Offer, Omits, Omitted, Order,
    Prefix, Pull, Refusal, RefusalCode, Remove, Rename, Repair, RootIs, Scope, SetPart, TransferId, TransferMessage,
    Unsupported, VERSION, Version, Want, Why, Wish, encode_header, our_algorithms,
};

use super::take::{Split, Take};
use crate::{Rng, Seed};

/// Payloads longer than this are refused, so that the refusal is reached by short inputs.
const PAYLOAD_MAX: usize = 4096;

fn limits() -> Limits {
    Limits::default().file(ByteLen::new(1 << 30)).chunks(1 << 16).ops(1 << 12).piece(1 << 16)
}

/// A split, then a stream of frames.
pub(super) fn frame(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let split = take.split();
    let stream = take.rest();
    let whole = frames(stream, Split::WHOLE);
    assert_eq!(frames(stream, split), whole, "any split gives the same frames");
    let mut again = Vec::new();
    for frame in &whole.0 {
        encode_header(&mut again, frame.kind, frame.transfer, frame.payload.len());
        again.extend_from_slice(&frame.payload);
    }
    assert!(stream.starts_with(&again), "a header has one form");
}

fn frames(stream: &[u8], split: Split) -> (Vec<Frame>, Option<InvalidMessage>) {
    let mut decoder = FrameDecoder::new(PAYLOAD_MAX);
    let (mut frames, mut left) = (Vec::new(), 0);
    for piece in split.pieces(stream) {
        decoder.push(piece);
        left += piece.len();
        loop {
            assert!(decoder.buffered() <= left, "it holds no more than it was given");
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    left -= frame.payload.len();
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

pub(super) fn frame_seeds() -> Vec<Seed> {
    let stream = |messages: &[Message]| messages.iter().flat_map(bytes_of).collect::<Vec<u8>>();
    let all: Vec<_> = messages().into_iter().map(|(_, message)| message).collect();
    let mut seeds = Vec::new();
    for (name, split) in [("whole", 255), ("bytes", 0), ("sevens", 6)] {
        seeds.push(Seed::new(format!("all-{name}"), [&[split][..], &stream(&all)].concat()));
    }
    let mut header = |name: &str, bytes: &[u8]| seeds.push(Seed::new(name, [&[255][..], bytes].concat()));
    header("empty", &[]);
    header("ping", &bytes_of(&Message::Ping));
    header("two-pings", &stream(&[Message::Ping, Message::Pong]));
    header("length-of-2-63", &[0x14, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]);
    header("length-over-the-limit", &[0x14, 1, 0x81, 0x20]);
    header("longest-payload", &[&[0x14, 1, 0x80, 0x20][..], &[7; PAYLOAD_MAX]].concat());
    header("transfer-of-33-bits", &[0x12, 0x80, 0x80, 0x80, 0x80, 0x20, 0]);
    header("varint-not-shortest", &[0x12, 0x81, 0x00, 0]);
    header("header-cut", &[0x12, 0x81]);
    seeds
}

/// A stream of frames, each a message.
pub(super) fn message(bytes: &[u8]) {
    for frame in frames(bytes, Split::WHOLE).0 {
        check_message(&frame);
    }
}

fn check_message(frame: &Frame) {
    let Ok(message) = Message::decode(frame, &limits()) else { return };
    let encoded = message.encode();
    assert_eq!(
        encoded.payload,
        [encoded.head.len(), encoded.tail.len()].iter().sum::<usize>() - header_len(&encoded.head)
    );
    let mut decoder = FrameDecoder::new(1 << 20);
    decoder.push(&encoded.head);
    decoder.push(&encoded.tail);
    let again = decoder.next_frame().expect("our own header").expect("whole");
    assert_eq!(decoder.buffered(), 0);
    assert_eq!((again.kind, again.transfer), (frame.kind, frame.transfer));
    assert_eq!(Message::decode(&again, &limits()).as_ref(), Ok(&message), "encoded and decoded again");
}

/// Kind, transfer and length of a frame: all but the first end at a byte below 128.
fn header_len(head: &[u8]) -> usize {
    let ends = head.iter().enumerate().skip(1).filter(|(_, byte)| **byte < 0x80);
    1 + ends.map(|(at, _)| at).nth(1).expect("two numbers")
}

pub(super) fn message_seeds() -> Vec<Seed> {
    messages().into_iter().map(|(name, message)| Seed::new(name, bytes_of(&message))).collect()
}

/// A flag, then the payload of a hello or of an answer to one.
pub(super) fn hello(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let is_hello = take.byte() & 1 == 0;
    let payload = take.rest();
    let mut again = Vec::new();
    if is_hello {
        let Ok(hello) = Hello::decode(payload) else { return };
        hello.encode(&mut again);
        assert_eq!(Hello::decode(&again), Ok(hello));
    } else {
        let Ok(unsupported) = Unsupported::decode(payload) else { return };
        unsupported.encode(&mut again);
        assert_eq!(Unsupported::decode(&again), Ok(unsupported));
    }
    assert!(payload.starts_with(&again), "only what a later version appends is ignored");
}

pub(super) fn hello_seeds() -> Vec<Seed> {
    let hello = |change: &dyn Fn(&mut Hello)| {
        let mut hello = Hello::ours(VERSION, [7; 16]);
        change(&mut hello);
        let mut bytes = vec![0];
        hello.encode(&mut bytes);
        bytes
    };
    let answer = |max| {
        let mut bytes = vec![1];
        Unsupported { min: VERSION, max, algorithms: our_algorithms() }.encode(&mut bytes);
        bytes
    };
    let ours = hello(&|_| {});
    vec![
        Seed::new("ours", ours.clone()),
        Seed::new("version-1", hello(&|hello| (hello.min, hello.max) = (1, 1))),
        Seed::new("with-proof", hello(&|hello| hello.auth = Bytes::from_static(b"a token"))),
        Seed::new("longest-proof", hello(&|hello| hello.auth = vec![3; 1024].into())),
        Seed::new("proof-too-long", hello(&|hello| hello.auth = vec![3; 1025].into())),
        Seed::new("later-version", hello(&|hello| hello.max = 9)),
        Seed::new("versions-backwards", hello(&|hello| (hello.min, hello.max) = (3, 2))),
        Seed::new("version-zero", hello(&|hello| hello.min = 0)),
        Seed::new("all-bits", hello(&|hello| hello.algorithms = u64::MAX)),
        Seed::new("appended-to", [&ours[..], b"later"].concat()),
        Seed::new("cut", &ours[..ours.len() - 1]),
        Seed::new("other-magic", &b"\x00sink\x01\x01"[..]),
        Seed::new("unsupported", answer(VERSION)),
        Seed::new("unsupported-later", answer(200)),
    ]
}

/// The bulk frames, in the order of the first byte of an input; behind them the layouts inside.
const BULK: [MessageKind; 7] = [
    MessageKind::Tags,
    MessageKind::Cells,
    MessageKind::Edges,
    MessageKind::Want,
    MessageKind::Order,
    MessageKind::Delta,
    MessageKind::Repair,
];
const SURVEY: u8 = BULK.len() as u8;
const TAGS: u8 = SURVEY + 1;
const CELLS: u8 = SURVEY + 2;
const COLUMNS: u8 = SURVEY + 3;

/// Which of the payloads, then the payload.
pub(super) fn bulk(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let which = take.byte() % (COLUMNS + 1);
    match which {
        SURVEY => check_survey(take.short() as u64, take.rest()),
        TAGS => check_tags(&mut take),
        CELLS => check_cells(&mut take),
        COLUMNS => check_columns(take.rest()),
        frame => check_message(&Frame {
            kind: BULK[usize::from(frame)].code(),
            transfer: TransferId::new(1),
            payload: Bytes::copy_from_slice(take.rest()),
        }),
    }
}

fn check_survey(elements: u64, bytes: &[u8]) {
    let edges = SketchKey::of_edges(&[1; 16], 1);
    let Ok(survey) = Survey::decode(bytes, elements, edges, &limits()) else { return };
    assert!(survey.missing.is_sorted_by(|a, b| a < b) && survey.missing.iter().all(|rank| u64::from(*rank) < elements));
    assert!(survey.pieces.is_sorted_by_key(|piece| piece.before));
    let mut again = Vec::new();
    survey.encode(elements, &mut again);
    assert_eq!(Survey::decode(&again, elements, edges, &limits()), Ok(survey), "encoded and decoded again");
}

/// How many elements the set has, how many tags are read, how many stand before them; then their bytes.
fn check_tags(take: &mut Take<'_>) {
    let (elements, count, before) = (take.short(), take.short(), usize::from(take.byte()));
    let bytes = take.rest();
    let mut tags: Vec<Tag> = (0..before).map(|i| tag(i as u64 * 999)).collect();
    let read = read_tags(bytes, count, elements, &mut tags);
    assert!(tags.is_sorted_by(|a, b| a < b), "tags ascend");
    let Ok(()) = read else { return };
    assert_eq!(tags.len(), before + count);
    let rice = rice_for(1 << (8 * Tag::LEN), elements as u64);
    let mut again = Vec::new();
    let mut writer = BitWriter::new(&mut again);
    let mut least = before.checked_sub(1).map_or(0, |last| number(tags[last]) + 1);
    for tag in &tags[before..] {
        writer.rice(number(*tag) - least, rice);
        least = number(*tag) + 1;
    }
    writer.finish();
    assert_eq!(again, bytes, "a list has one form");
}

fn tag(number: u64) -> Tag {
    let [a, b, c, d, e, f, ..] = number.to_le_bytes();
    Tag::from_bytes([a, b, c, d, e, f])
}

fn number(tag: Tag) -> u64 {
    let [a, b, c, d, e, f] = tag.to_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// How many elements, the first cell and how many; then their bytes.
fn check_cells(take: &mut Take<'_>) {
    let (elements, start, count) = (take.short() as u64, take.short(), take.short());
    let bytes = take.rest();
    let mut reader = Reader::new(bytes);
    let key = SketchKey::new(&[7; 16], 1);
    let Ok(sketch) = Sketch::decode(key, start..start + count, elements, &mut reader, &limits()) else { return };
    assert_eq!((sketch.range(), u64::from(sketch.elements())), (start..start + count, elements));
    let mut again = Vec::new();
    sketch.encode(&mut again);
    assert_eq!(again, bytes[..bytes.len() - reader.rest().len()], "cells have one form");
}

fn check_columns(bytes: &[u8]) {
    let Ok(ops) = unpack_ops(&mut Reader::new(bytes), &limits()) else { return };
    assert!(ops.len() <= limits().ops, "no more operations than allowed");
    for level in [1, 9] {
        let mut again = Vec::new();
        pack_ops(&ops, level, &mut again);
        let mut reader = Reader::new(&again);
        assert_eq!(unpack_ops(&mut reader, &limits()).as_ref(), Ok(&ops), "packed and unpacked again");
        assert!(reader.rest().is_empty());
    }
}

pub(super) fn bulk_seeds() -> Vec<Seed> {
    let bulk = messages().into_iter().filter_map(|(name, message)| {
        let kind = BULK.iter().position(|kind| *kind == message.kind())?;
        let encoded = message.encode();
        let payload = [&encoded.head[header_len(&encoded.head)..], &encoded.tail].concat();
        Some(Seed::new(name, [&[kind as u8][..], &payload].concat()))
    });
    let mut seeds: Vec<_> = bulk.collect();
    let short = |number: u16| number.to_le_bytes();
    for (name, survey) in surveys() {
        let mut bytes = [&[SURVEY][..], &short(100)].concat();
        survey.encode(100, &mut bytes);
        seeds.push(Seed::new(name, bytes));
    }
    let list = ChunkList::of(&Rng::new(4).bytes(3000), Cutter::MinCdc { average: 64 }, Algorithm::Blake3);
    let elements = Elements::of(&list, &TagKey::new(&[7; 16], 1));
    let count = elements.len() as u16;
    let mut bytes = [&[TAGS][..], &short(count), &short(count), &[0]].concat();
    elements.encode(0..elements.len(), &mut bytes);
    seeds.push(Seed::new("sorted-tags", bytes));
    let mut bytes = [&[CELLS][..], &short(count), &short(5), &short(20)].concat();
    Sketch::of(SketchKey::new(&[7; 16], 1), 5..25, elements.tags()).encode(&mut bytes);
    seeds.push(Seed::new("cells-of-a-set", bytes));
    let op = |i: u64| match i % 2 {
        0 => Op::Literal { len: ByteLen::new(7 + i % 5) },
        _ => Op::Copy { from: Offset::new(i * 100), len: ByteLen::new(93) },
    };
    for (name, count) in [("columns-plain", 3), ("columns-packed", 90)] {
        let mut bytes = vec![COLUMNS];
        pack_ops(&(0..count).map(op).collect(), 9, &mut bytes);
        seeds.push(Seed::new(name, bytes));
    }
    seeds
}

/// Surveys for a sender that has 100 elements.
fn surveys() -> Vec<(&'static str, Survey)> {
    let piece = |before, content| OldPiece { before, content };
    let len = ByteLen::new;
    let shape = FineShape::new(64, 17).expect("in range");
    let none = Survey {
        basis: len(5000),
        order: tag(77),
        missing: Vec::new(),
        pieces: Vec::new(),
        shape: None,
        sums: Vec::new(),
        edges: None,
    };
    let run = OldContent::Run { tag: tag(5), len: 3072, count: 900 };
    let pieces = vec![piece(0, OldContent::Bytes(len(9))), piece(0, run), piece(99, OldContent::Bytes(len(1 << 33)))];
    let summed = vec![
        piece(3, OldContent::Summed(len(200))),
        piece(3, OldContent::Bytes(len(1_000_000))),
        piece(40, OldContent::Summed(len(64))),
    ];
    let sums = (0..5).map(|i| i * 31 % (1 << 17)).collect();
    vec![
        ("survey-nothing-missing", none.clone()),
        ("survey-of-pieces", Survey { pieces, ..none.clone() }),
        ("survey-with-sums", Survey { missing: vec![0, 1, 50, 99], pieces: summed, shape: Some(shape), sums, ..none }),
    ]
}

fn bytes_of(message: &Message) -> Vec<u8> {
    let encoded = message.encode();
    [&encoded.head[..], &encoded.tail].concat()
}

/// Every kind of message, the ones with choices in several forms.
fn messages() -> Vec<(String, Message)> {
    let mut rng = Rng::new(1);
    let root = Algorithm::Blake3.digest(b"root");
    let path = |path: &str| RelPath::new(path).expect("a plain path");
    let name = |name: &str| Name::new(name).expect("a plain name");
    let offer = |to: Option<Wish>, content| {
        let cutter = Cutter::MinCdc { average: 2048 };
        TransferMessage::Offer(Offer {
            to,
            len: ByteLen::new(123_456),
            root,
            algorithm: Algorithm::Blake3,
            cutter,
            attempt: 0,
            content,
        })
    };
    let filter = Filter::default().exclude("*.o").and_then(|filter| filter.include("/keep/**/x[a-z].o"));
    let filter = filter.expect("valid").ignore_files(true);
    let wish = Wish { name: name("file"), directory: true, dry: true, ..Wish::exactly(path("some/where")) };
    let mut part = |start, count, len| SetPart { start, count, bytes: Bytes::from(rng.bytes(len)) };
    let survey = |last, bytes: &'static [u8]| TransferMessage::Want(Want::Survey { last, bytes: bytes.into() });
    let copy = |from, len| Op::Copy { from: Offset::new(from), len: ByteLen::new(len) };
    let literal = |len| Op::Literal { len: ByteLen::new(len) };
    let text = b"text that packs ".repeat(20);
    let packer = LiteralPacker::new(b"", ByteLen::of(&text), 3);
    let packed: Bytes = packer.and_then(|mut packer| packer.push(&text, true)).expect("repetitions pack").into();
    let packed = |prefix| Literals::Packed { prefix, bytes: packed.clone(), raw_len: text.len() };
    let delta = |last, ops: &[Op], literals| {
        TransferMessage::Delta(Delta { last, ops: ops.iter().copied().collect(), literals })
    };
    let entry =
        |entry: &str, kind, len| Entry { name: name(entry), kind, len: ByteLen::new(len), modified: 1_700_000_000 };
    let entries =
        vec![entry("a", EntryKind::File, 5), entry("d", EntryKind::Directory, 0), entry("l", EntryKind::Other, 0)];
    let refusal = |code, current| TransferMessage::Refused(Refusal { code, message: String::from("no"), current });
    let omitted = [
        ("d", Why::Unlisted(String::from("no"))),
        ("p", Why::NotKept(String::from("a pipe"))),
        ("f", Why::Unreadable(String::from("no"))),
        ("l", Why::Changed),
    ];
    let omitted = omitted.into_iter().map(|(at, why)| Omitted { path: path(at), why }).collect();
    let transfers = [
        ("offer-set", offer(Some(wish.clone()), Content::Set { elements: 60 })),
        (
            "offer-delta",
            offer(
                None,
                Content::Delta { basis: root, len: ByteLen::new(99), generation: Generation::ZERO, follows: true },
            ),
        ),
        ("offer-whole", offer(Some(wish), Content::Whole)),
        ("offer-known", offer(None, Content::Known)),
        ("tags", TransferMessage::Tags(part(0, 6, 36))),
        ("tags-none", TransferMessage::Tags(part(0, 0, 0))),
        ("cells", TransferMessage::Cells(part(32, 4, 40))),
        ("edges", TransferMessage::Edges(Edges { elements: 9, cells: part(0, 4, 40) })),
        ("more-cells", TransferMessage::More(More::Cells(700))),
        ("more-tags", TransferMessage::More(More::Tags(1000))),
        ("more-edges", TransferMessage::More(More::Edges(64))),
        (
            "order",
            TransferMessage::Order(Order {
                breaks: vec![Break { left: None, right: Some(7) }, Break { left: Some(3), right: None }],
            }),
        ),
        ("current", TransferMessage::Current),
        ("stale", TransferMessage::Stale),
        ("same", TransferMessage::Same(Generation::ZERO)),
        ("want", survey(true, b"\x05basis1\x00\x00")),
        ("want-all", TransferMessage::Want(Want::All)),
        ("want-part", survey(false, b"part")),
        (
            "delta-raw",
            delta(false, &[literal(5), copy(0, 4096), copy(8192, 1)], Literals::Raw(Bytes::from_static(b"hello"))),
        ),
        ("delta-copies", delta(true, &[copy(u64::MAX, 7), copy(3, 1 << 40)], Literals::Raw(Bytes::new()))),
        ("delta-nothing", delta(true, &[], Literals::Raw(Bytes::new()))),
        ("delta-packed", delta(true, &[literal(320)], packed(Prefix::None))),
        ("delta-behind", delta(false, &[literal(320)], packed(Prefix::Around))),
        ("done", TransferMessage::Done(Generation::new(300))),
        ("repair", TransferMessage::Repair(Repair { made: 9000, range: 4096, sums: vec![1, u64::MAX, 3] })),
        ("repair-all", TransferMessage::Repair(Repair::ALL)),
        ("changed", TransferMessage::Changed),
        ("refused", refusal(RefusalCode::NotFound, None)),
        ("refused-current", refusal(RefusalCode::Changed, Some(Version { generation: Generation::new(4), root }))),
        ("cancel", TransferMessage::Cancel),
        ("credit", TransferMessage::Credit(1 << 20)),
        ("working", TransferMessage::Working),
        (
            "pull",
            TransferMessage::Pull(Pull {
                path: path("a/b"),
                algorithm: Algorithm::Sha256,
                have: None,
                scope: Scope::default(),
            }),
        ),
        (
            "pull-have",
            TransferMessage::Pull(Pull {
                path: path("a"),
                algorithm: Algorithm::Blake3,
                have: Some((root, ByteLen::new(7))),
                scope: Scope { hard_links: true, headers_only: true, ..filter.into() },
            }),
        ),
        ("list", TransferMessage::List(List { path: RelPath::ROOT, after: Some(name("m")) })),
        ("listing", TransferMessage::Listing(Listing { entries, more: true })),
        ("ask-root", TransferMessage::AskRoot(AskRoot { path: path("f"), algorithm: Algorithm::Blake3 })),
        ("root-is", TransferMessage::RootIs(RootIs { len: ByteLen::new(9), root: Digest::from_bytes([9; 32]) })),
        ("make-directory", TransferMessage::MakeDirectory(MakeDirectory { path: path("d/new") })),
        ("rename", TransferMessage::Rename(Rename { from: path("f"), to: path("d/f") })),
        ("remove", TransferMessage::Remove(Remove { path: path("d"), recursive: true })),
        ("altered", TransferMessage::Altered),
        ("complete", TransferMessage::Complete),
        ("omits", TransferMessage::Omits(Omits { entries: omitted, more: 2 })),
    ];
    let close = Close { code: CloseCode::Limit, message: String::from("file length of 9 is over the limit of 8") };
    let connection = [
        ("hello", Message::Hello(Hello::ours(VERSION, [5; 16]))),
        ("unsupported", Message::Unsupported(Unsupported { min: VERSION, max: VERSION, algorithms: our_algorithms() })),
        ("close", Message::Close(close)),
        ("ping", Message::Ping),
        ("pong", Message::Pong),
    ];
    let transfers = transfers.into_iter().map(|(name, message)| (name, Message::Transfer(TransferId::new(3), message)));
    connection.into_iter().chain(transfers).map(|(name, message)| (name.to_owned(), message)).collect()
}
