//! The decoders of the wire: what they accept is the same after encoding and decoding it again.

use bytes::Bytes;
use deltasync_core::{Algorithm, ByteLen, Cutter, Digest, Generation, Limits, Name, Offset, Op, RelPath, Tag, TagRun};
use deltasync_proto::{
    AskRoot, Close, CloseCode, Content, Delta, Entry, EntryKind, Frame, FrameDecoder, Hello, InvalidMessage, List,
    Listing, Literals, Message, MessageKind, Offer, Pull, Refusal, RefusalCode, RootIs, TransferId, TransferMessage,
    Unsupported, Want, WantRun, Wish, encode_header, our_algorithms,
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
        let mut hello = Hello::ours(1, [7; 16]);
        change(&mut hello);
        let mut bytes = vec![0];
        hello.encode(&mut bytes);
        bytes
    };
    let answer = |max| {
        let mut bytes = vec![1];
        Unsupported { min: 1, max, algorithms: our_algorithms() }.encode(&mut bytes);
        bytes
    };
    let ours = hello(&|_| {});
    vec![
        Seed::new("ours", ours.clone()),
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
        Seed::new("unsupported", answer(1)),
        Seed::new("unsupported-later", answer(200)),
    ]
}

/// Which of the payloads, then the payload.
pub(super) fn bulk(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let kinds = [MessageKind::Tags, MessageKind::Want, MessageKind::Delta];
    let kind = kinds[usize::from(take.byte()) % kinds.len()];
    check_message(&Frame {
        kind: kind.code(),
        transfer: TransferId::new(1),
        payload: Bytes::copy_from_slice(take.rest()),
    });
}

pub(super) fn bulk_seeds() -> Vec<Seed> {
    let bulk = messages().into_iter().filter(|(_, message)| message.kind().is_bulk());
    bulk.map(|(name, message)| {
        let encoded = message.encode();
        let payload = [&encoded.head[header_len(&encoded.head)..], &encoded.tail].concat();
        let kind = match message.kind() {
            MessageKind::Tags => 0,
            MessageKind::Want => 1,
            _ => 2,
        };
        Seed::new(name, [&[kind][..], &payload].concat())
    })
    .collect()
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
            changes: 0,
            content,
        })
    };
    let wish = Wish { path: path("some/where"), name: name("file"), directory: true };
    let mut tag = |count| TagRun { tag: Tag::from_bytes(rng.bytes(6).try_into().expect("6 bytes")), count };
    let tags = vec![tag(1), tag(1), tag(1000), tag(2), tag(1), tag(u32::MAX)];
    let run = |missing, have, from| WantRun { missing, have, from: Offset::new(from) };
    let want = |last, runs| TransferMessage::Want(Want { last, basis: 100_000, runs });
    let copy = |from, len| Op::Copy { from: Offset::new(from), len: ByteLen::new(len) };
    let literal = |len| Op::Literal { len: ByteLen::new(len) };
    let text = b"text that packs ".repeat(20);
    let packed = deltasync_core::pack(&text, 3).expect("repetitions pack");
    let delta = |last, ops: &[Op], literals| {
        TransferMessage::Delta(Delta { last, ops: ops.iter().copied().collect(), literals })
    };
    let entry =
        |entry: &str, kind, len| Entry { name: name(entry), kind, len: ByteLen::new(len), modified: 1_700_000_000 };
    let entries =
        vec![entry("a", EntryKind::File, 5), entry("d", EntryKind::Directory, 0), entry("l", EntryKind::Other, 0)];
    let refusal = |code, current| TransferMessage::Refused(Refusal { code, message: String::from("no"), current });
    let transfers = [
        ("offer-tags", offer(Some(wish.clone()), Content::Tags { runs: 60 })),
        ("offer-whole", offer(Some(wish), Content::Whole)),
        ("offer-known", offer(None, Content::Known)),
        ("tags", TransferMessage::Tags(tags)),
        ("tags-none", TransferMessage::Tags(Vec::new())),
        ("same", TransferMessage::Same),
        ("want", want(true, vec![run(1, 20, 4096), run(2, 5, 0), run(0, 7, 90_000), run(3, 0, 0)])),
        ("want-all", want(true, Vec::new())),
        ("want-part", want(false, vec![run(0, 1, u64::MAX), run(u64::MAX, 0, 0)])),
        (
            "delta-raw",
            delta(false, &[literal(5), copy(0, 4096), copy(8192, 1)], Literals::Raw(Bytes::from_static(b"hello"))),
        ),
        ("delta-copies", delta(true, &[copy(u64::MAX, 7), copy(3, 1 << 40)], Literals::Raw(Bytes::new()))),
        ("delta-nothing", delta(true, &[], Literals::Raw(Bytes::new()))),
        ("delta-packed", delta(true, &[literal(320)], Literals::Packed { bytes: packed.into(), raw_len: text.len() })),
        ("done", TransferMessage::Done(Generation::new(300))),
        ("repair", TransferMessage::Repair),
        ("changed", TransferMessage::Changed),
        ("refused", refusal(RefusalCode::NotFound, None)),
        ("refused-current", refusal(RefusalCode::Changed, Some((Generation::new(4), root)))),
        ("cancel", TransferMessage::Cancel),
        ("credit", TransferMessage::Credit(1 << 20)),
        ("working", TransferMessage::Working),
        ("pull", TransferMessage::Pull(Pull { path: path("a/b"), algorithm: Algorithm::Sha256, have: None })),
        ("pull-have", TransferMessage::Pull(Pull { path: path("a"), algorithm: Algorithm::Blake3, have: Some(root) })),
        ("list", TransferMessage::List(List { path: RelPath::ROOT, after: Some(name("m")) })),
        ("listing", TransferMessage::Listing(Listing { entries, more: true })),
        ("ask-root", TransferMessage::AskRoot(AskRoot { path: path("f"), algorithm: Algorithm::Blake3 })),
        ("root-is", TransferMessage::RootIs(RootIs { len: ByteLen::new(9), root: Digest::from_bytes([9; 32]) })),
    ];
    let close = Close { code: CloseCode::Limit, message: String::from("file length of 9 is over the limit of 8") };
    let connection = [
        ("hello", Message::Hello(Hello::ours(1, [5; 16]))),
        ("unsupported", Message::Unsupported(Unsupported { min: 1, max: 1, algorithms: our_algorithms() })),
        ("close", Message::Close(close)),
        ("ping", Message::Ping),
        ("pong", Message::Pong),
    ];
    let transfers = transfers.into_iter().map(|(name, message)| (name, Message::Transfer(TransferId::new(3), message)));
    connection.into_iter().chain(transfers).map(|(name, message)| (name.to_owned(), message)).collect()
}
