//! Golden vectors: the bytes of version 1, which no later change may alter.
//!
//! Each file in `vectors/v1` holds frames in hex with their fields named. They were written by a second implementation,
//! after `WIRE.md`; here each is decoded, compared with the value it stands for, and encoded back to the same bytes.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use deltasync_core::{
    Algorithm, ByteLen, Cutter, Digest, Generation, Limits, Name, Offset, Op, RelPath, Tag, TagRun, unpack,
};
use deltasync_proto::{
    AskRoot, Capabilities, Close, CloseCode, Config, Content, Delta, Entry, EntryKind, Frame, FrameDecoder, Hello,
    List, Listing, Literals, Message, MessageKind, Offer, Pull, Refusal, RefusalCode, RootIs, TransferId,
    TransferMessage, Unsupported, Want, WantRun, Wish,
};
use deltasync_testkit::{Raw, Rng, file, push};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/v1")
}

/// The cases of a file: their names and bytes.
fn read(name: &str) -> Vec<(String, Vec<u8>)> {
    let path = directory().join(name).with_extension("hex");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("@ ") {
            cases.push((name.to_owned(), Vec::new()));
            continue;
        }
        let digits: String = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        let bytes = (0..digits.len()).step_by(2).map(|at| {
            u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or_else(|error| panic!("{name}: {line}: {error}"))
        });
        let bytes: Vec<u8> = bytes.collect();
        match cases.last_mut() {
            Some((_, case)) => case.extend(bytes),
            None => assert!(bytes.is_empty(), "{name}: bytes before the first case"),
        }
    }
    cases
}

fn frame_of(bytes: &[u8]) -> Frame {
    let mut decoder = FrameDecoder::new(4 << 20);
    decoder.push(bytes);
    let frame = decoder.next_frame().expect("a sound header").expect("a whole frame");
    assert_eq!(decoder.buffered(), 0, "one frame and nothing behind it");
    frame
}

fn decode(bytes: &[u8]) -> Message {
    Message::decode(&frame_of(bytes), &Limits::default()).expect("a message of this version")
}

fn encode(message: &Message) -> Vec<u8> {
    let encoded = message.encode();
    [&encoded.head[..], &encoded.tail].concat()
}

/// `AskRoot` becomes `ask_root`.
fn file_name(kind: MessageKind) -> String {
    let mut name = String::new();
    for letter in format!("{kind:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

const CONVERSATIONS: [&str; 2] = ["conversation_first_push", "conversation_push_with_delta"];

#[test]
fn every_kind_has_its_bytes() {
    for kind in MessageKind::ALL.iter().copied() {
        let (written, expected) = (read(&file_name(kind)), cases(kind));
        let names: Vec<_> = written.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, expected.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "cases of {kind:?}");
        for ((name, bytes), (_, message)) in written.iter().zip(&expected) {
            assert_eq!(bytes[0], kind.code(), "{kind:?}, {name}");
            assert_eq!(message.kind(), kind, "{kind:?}, {name}");
            assert_eq!(decode(bytes), *message, "{kind:?}, {name}");
            assert_eq!(encode(message), *bytes, "{kind:?}, {name}");
        }
    }
}

#[test]
fn every_file_is_used() {
    let kinds = MessageKind::ALL.iter().map(|kind| file_name(*kind));
    let known: BTreeSet<_> = kinds.chain(CONVERSATIONS.map(str::to_owned)).chain(["later".to_owned()]).collect();
    let entries = fs::read_dir(directory()).expect("the vectors are there");
    let found: BTreeSet<_> = entries
        .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, known);
}

#[test]
fn what_a_later_version_appends_to_the_handshake_is_ignored() {
    let hello = Hello { min: 1, max: 9, ..hello() };
    let unsupported = Unsupported { min: 1, max: 9, algorithms: 3 };
    let expected = [Message::Hello(hello), Message::Unsupported(unsupported)];
    let decoded: Vec<_> = read("later").iter().map(|(_, bytes)| decode(bytes)).collect();
    assert_eq!(decoded, expected);
}

#[test]
fn packed_literals_are_a_zstd_frame() {
    let (_, bytes) = read("delta").pop().expect("the last case");
    match decode(&bytes) {
        Message::Transfer(_, TransferMessage::Delta(Delta { literals: Literals::Packed { bytes, raw_len }, .. })) => {
            assert_eq!(unpack(&bytes, raw_len), Ok(vec![b'a'; 200]))
        }
        other => panic!("{other:?}"),
    }
}

/// Runs a push of `target` over `basis` and compares every frame with the recording.
#[track_caller]
fn check_conversation(name: &str, basis: Option<Vec<u8>>, target: Vec<u8>) {
    let mut client = Raw::client(Config::default()).file("file", target.clone());
    let mut server = Raw::server(Config::default());
    if let Some(basis) = basis {
        server = server.file("file", basis);
    }
    client = client.command(1, push(file(), file()));
    let mut said = Vec::new();
    loop {
        let up = client.frames();
        if up.is_empty() {
            break;
        }
        for frame in up {
            server.frame(frame.kind, frame.transfer.get(), &frame.payload);
            said.push(("client", frame));
        }
        for frame in server.frames() {
            client.frame(frame.kind, frame.transfer.get(), &frame.payload);
            said.push(("server", frame));
        }
    }
    assert!(matches!(client.ended(1), Some(Ok(_))), "{:?}", client.ended(1));
    assert_eq!(server.content("file").as_deref(), Some(&target[..]));
    let recorded = read(name);
    for ((who, frame), (name, bytes)) in said.iter().zip(&recorded) {
        assert!(name.starts_with(who), "{name}: said by the {who}");
        assert_eq!(*frame, frame_of(bytes), "{name}");
        assert_eq!(encode(&decode(bytes)), *bytes, "{name}");
    }
    assert_eq!(said.len(), recorded.len());
}

#[test]
fn a_first_push_is_these_bytes() {
    check_conversation(CONVERSATIONS[0], None, Rng::new(1).bytes(100));
}

#[test]
fn a_push_with_a_delta_is_these_bytes() {
    let basis = Rng::new(2).bytes(9000);
    let target = [&basis[..4500], b"INSERTED HERE", &basis[4510..]].concat();
    check_conversation(CONVERSATIONS[1], Some(basis), target);
}

/// The hex in `WIRE.md`, of which literals are cut short by `...`, is the recorded conversation.
#[test]
fn the_push_that_is_drawn_is_the_one_that_was_recorded() {
    let hex =
        |text: &str| !text.is_empty() && text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (_, drawn) = include_str!("../WIRE.md").split_once("## 15.").expect("the section is there");
    let fences = drawn.split("```").skip(1).step_by(2).flat_map(str::lines);
    let digits: String = fences.flat_map(|line| line.split_whitespace().take_while(|word| hex(word))).collect();
    let frames = read(CONVERSATIONS[1]).into_iter().map(|(name, mut bytes)| {
        if name == "client sends the delta" {
            bytes.truncate(bytes.len() - 1932 + 4);
        }
        bytes
    });
    let recorded: String = frames.flatten().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digits, recorded);
}

fn digest() -> Digest {
    Digest::from_bytes(core::array::from_fn(|at| at as u8))
}

fn hello() -> Hello {
    Hello {
        min: 1,
        max: 1,
        capabilities: Capabilities::ZSTD,
        algorithms: 3,
        nonce: core::array::from_fn(|at| at as u8),
        auth: Bytes::new(),
    }
}

fn path(path: &[u8]) -> RelPath {
    RelPath::new(path).expect("a path")
}

fn name(name: &str) -> Name {
    Name::new(name.as_bytes()).expect("a name")
}

fn offer(to: Option<Wish>, len: u64, content: Content) -> Offer {
    let cutter = Cutter::MinCdc { average: 2048 };
    let (len, root, algorithm) = (ByteLen::new(len), digest(), Algorithm::Blake3);
    Offer { to, len, root, algorithm, cutter, changes: 0, content }
}

fn offers() -> Vec<(&'static str, Message)> {
    let file = Wish { path: path(b"dir/file"), name: name("file"), directory: false };
    let directory = Wish { path: path(b"dir"), name: name("été"), directory: true };
    let changed = Offer {
        algorithm: Algorithm::Sha256,
        cutter: Cutter::FIXED_4096,
        changes: 1,
        ..offer(Some(directory), 1 << 40, Content::Tags { runs: 1 << 22 })
    };
    let known = Offer { cutter: Cutter::MinCdc { average: 16 << 20 }, ..offer(None, 0, Content::Known) };
    let longest = Offer { changes: 2, ..offer(None, 16 << 40, Content::Tags { runs: 0 }) };
    vec![
        ("a push that carries its content", of(1, TransferMessage::Offer(offer(Some(file), 4096, Content::Whole)))),
        ("a push into a directory, after a change", of(300, TransferMessage::Offer(changed))),
        ("a pull of what is there already", of(2, TransferMessage::Offer(known))),
        ("a pull, of the longest file, changed twice", of(2, TransferMessage::Offer(longest))),
    ]
}

fn tags() -> Vec<(&'static str, Message)> {
    let run = |byte, count| TagRun { tag: Tag::from_bytes([byte; 6]), count };
    let one = TagRun { tag: Tag::from_bytes([1, 2, 3, 4, 5, 6]), count: 1 };
    let runs = vec![run(0xa0, 1), run(0xa1, 5), run(0xa2, 300), run(0xa3, 1), run(0xff, u32::MAX)];
    vec![
        ("no runs", of(1, TransferMessage::Tags(Vec::new()))),
        ("one chunk", of(1, TransferMessage::Tags(vec![one]))),
        ("runs of equal chunks", of(1, TransferMessage::Tags(runs))),
    ]
}

fn wants() -> Vec<(&'static str, Message)> {
    let run = |missing, have, from| WantRun { missing, have, from: Offset::new(from) };
    let runs = vec![run(0, 2, 0), run(1, 3, 8192), run(2, 1, 4096), run(4, 0, 0)];
    let greatest = vec![run(u64::MAX, u64::MAX, 3)];
    vec![
        ("all is missing", of(1, TransferMessage::Want(Want { last: true, basis: 0, runs: Vec::new() }))),
        (
            "runs, one of them from further back",
            of(1, TransferMessage::Want(Want { last: true, basis: 100_000, runs })),
        ),
        ("a part that is not the last", of(1, TransferMessage::Want(Want { last: false, basis: 5, runs: greatest }))),
    ]
}

fn deltas() -> Vec<(&'static str, Message)> {
    let literal = |len| Op::Literal { len: ByteLen::new(len) };
    let copy = |from, len| Op::Copy { from: Offset::new(from), len: ByteLen::new(len) };
    let delta = |last, ops: &[Op], literals| {
        of(1, TransferMessage::Delta(Delta { last, ops: ops.iter().copied().collect(), literals }))
    };
    let raw = |bytes: &'static [u8]| Literals::Raw(Bytes::from_static(bytes));
    let zstd = Bytes::from_static(b"\x28\xb5\x2f\xfd\x20\xc8\x43\x06\x00\x61");
    let in_turn = [copy(0, 4096), literal(3), copy(4099, 8000), literal(2), copy(100, 50), literal(1)];
    vec![
        ("nothing at all, the end", delta(true, &[], raw(b""))),
        ("literals alone", delta(true, &[literal(5)], raw(b"hello"))),
        ("copies and literals in turn", delta(false, &in_turn, raw(b"abcdef"))),
        ("packed", delta(true, &[literal(200)], Literals::Packed { bytes: zstd, raw_len: 200 })),
    ]
}

fn refusals() -> Vec<(&'static str, Message)> {
    let codes = [
        ("not found", RefusalCode::NotFound),
        ("denied", RefusalCode::Denied),
        ("wrong kind", RefusalCode::WrongKind),
        ("full", RefusalCode::Full),
        ("limit", RefusalCode::Limit),
        ("changed", RefusalCode::Changed),
        ("integrity", RefusalCode::Integrity),
        ("busy", RefusalCode::Busy),
        ("stalled", RefusalCode::Stalled),
        ("storage", RefusalCode::Storage),
    ];
    let refused = |code, message: String, current| of(1, TransferMessage::Refused(Refusal { code, message, current }));
    let mut cases: Vec<_> =
        codes.map(|(name, code)| (name, refused(code, format!("it is {name}"), None))).into_iter().collect();
    let current = Some((Generation::new(300), digest()));
    cases.push(("with what is there now", refused(RefusalCode::Denied, String::new(), current)));
    cases
}

fn closes() -> Vec<(&'static str, Message)> {
    let close = |code, message: &str| Message::Close(Close { code, message: message.to_owned() });
    vec![
        ("misbehaved", close(CloseCode::Misbehaved, "out of order")),
        ("invalid", close(CloseCode::Invalid, "damaged")),
        ("limit", close(CloseCode::Limit, "too long")),
        ("unsupported", close(CloseCode::Unsupported, "no version")),
        ("timed out", close(CloseCode::TimedOut, "")),
        ("shutting down", close(CloseCode::ShuttingDown, "until tomorrow")),
        ("busy", close(CloseCode::Busy, "full – try later")),
    ]
}

fn listings() -> Vec<(&'static str, Message)> {
    let entry = |label, kind, len, modified| Entry { name: name(label), kind, len: ByteLen::new(len), modified };
    let entries = vec![
        entry("a file", EntryKind::File, 10_000, 1_767_225_600),
        entry("dir", EntryKind::Directory, 0, -1),
        entry("🔗", EntryKind::Other, 0, 0),
    ];
    vec![
        ("an empty directory", of(1, TransferMessage::Listing(Listing { entries: Vec::new(), more: false }))),
        ("one of each kind, and more", of(1, TransferMessage::Listing(Listing { entries, more: true }))),
    ]
}

fn of(transfer: u32, message: TransferMessage) -> Message {
    Message::Transfer(TransferId::new(transfer), message)
}

/// What the file of a kind must hold, in order.
fn cases(kind: MessageKind) -> Vec<(&'static str, Message)> {
    let (blake3, sha256) = (Algorithm::Blake3, Algorithm::Sha256);
    match kind {
        MessageKind::Hello => {
            let auth = Bytes::from_static(b"proof");
            let later = Hello { max: 9, capabilities: Capabilities::from_bits(0x81), algorithms: 7, auth, ..hello() };
            vec![
                ("of this version", Message::Hello(hello())),
                ("of a later version, with a proof of identity", Message::Hello(later)),
            ]
        }
        MessageKind::Unsupported => {
            vec![("of this version", Message::Unsupported(Unsupported { min: 1, max: 1, algorithms: 3 }))]
        }
        MessageKind::Close => closes(),
        MessageKind::Ping => vec![("the only one", Message::Ping)],
        MessageKind::Pong => vec![("the only one", Message::Pong)],
        MessageKind::Offer => offers(),
        MessageKind::Tags => tags(),
        MessageKind::Same => vec![("of transfer 1", of(1, TransferMessage::Same))],
        MessageKind::Want => wants(),
        MessageKind::Delta => deltas(),
        MessageKind::Done => vec![
            ("the first generation", of(1, TransferMessage::Done(Generation::new(1)))),
            ("the last one", of(1, TransferMessage::Done(Generation::new(u64::MAX)))),
        ],
        MessageKind::Repair => vec![("of transfer 1", of(1, TransferMessage::Repair))],
        MessageKind::Changed => vec![("of transfer 127", of(127, TransferMessage::Changed))],
        MessageKind::Refused => refusals(),
        MessageKind::Cancel => vec![("of transfer 128", of(128, TransferMessage::Cancel))],
        MessageKind::Credit => vec![
            ("a portion", of(1, TransferMessage::Credit(1 << 18))),
            ("as much as can be said", of(1, TransferMessage::Credit(u64::MAX))),
        ],
        MessageKind::Working => vec![("of transfer 4294967295", of(u32::MAX, TransferMessage::Working))],
        MessageKind::Pull => {
            let pull = |path, algorithm, have| of(1, TransferMessage::Pull(Pull { path, algorithm, have }));
            vec![
                ("of a file that the receiver has not", pull(path(b"dir/file"), blake3, None)),
                ("of one that it has", pull(path(b"\xff"), sha256, Some(digest()))),
            ]
        }
        MessageKind::List => {
            let list = |path, after| of(1, TransferMessage::List(List { path, after }));
            vec![
                ("the first page of the root directory", list(RelPath::ROOT, None)),
                ("a later page", list(path(b"dir"), Some(name("name")))),
            ]
        }
        MessageKind::Listing => listings(),
        MessageKind::AskRoot => {
            let ask = |algorithm| of(1, TransferMessage::AskRoot(AskRoot { path: path(b"file"), algorithm }));
            vec![("in BLAKE3", ask(blake3)), ("in SHA-256", ask(sha256))]
        }
        MessageKind::RootIs => {
            let root = RootIs { len: ByteLen::new(10_000), root: digest() };
            vec![("of a file of 10,000 bytes", of(1, TransferMessage::RootIs(root)))]
        }
        other => panic!("no vectors of {other:?}"),
    }
}
