//! Golden vectors: the bytes of version 3, which no later change may alter, and what is left of earlier ones.
//!
//! Each file in `vectors/v3` holds frames in hex with their fields named. They were written by a second implementation,
//! after `WIRE.md`; here each is decoded, compared with the value it stands for, and encoded back to the same bytes. The
//! files `computed_*` hold what both ends compute alike; the files `conversation_*` whole conversations, which are had
//! again. Literals there are random, so that nothing in them depends on how well a library packs; one is of text, and
//! there only the receiver is played again.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use deltasync_core::Limits;
use deltasync_proto::{Frame, FrameDecoder, Message, MessageKind, VERSION};

#[path = "golden/cases.rs"]
mod cases;
#[path = "golden/computed.rs"]
mod computed;
#[path = "golden/conversations.rs"]
mod conversations;
#[path = "golden/earlier.rs"]
mod earlier;

use cases::cases;

fn directory(version: u8) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/v{version}"))
}

/// The cases of a file: their names and bytes.
fn read(version: u8, name: &str) -> Vec<(String, Vec<u8>)> {
    let path = directory(version).join(name).with_extension("hex");
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

/// The file of a kind holds its cases in order, and each is its value, there and back.
#[track_caller]
fn check_kind(version: u8, kind: MessageKind) {
    let (written, expected) = (read(version, &file_name(kind)), cases(kind, version));
    let names: Vec<_> = written.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, expected.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "cases of {kind:?}");
    for ((name, bytes), (_, message)) in written.iter().zip(&expected) {
        assert_eq!(bytes[0], kind.code(), "{kind:?}, {name}");
        assert_eq!(message.kind(), kind, "{kind:?}, {name}");
        assert_eq!(decode(bytes), *message, "{kind:?}, {name}");
        assert_eq!(encode(message), *bytes, "{kind:?}, {name}");
    }
}

#[track_caller]
fn check_every_file_is_used(version: u8, known: BTreeSet<String>) {
    let entries = fs::read_dir(directory(version)).expect("the vectors are there");
    let found: BTreeSet<_> = entries
        .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, known);
}

/// What a later version appends to the handshake is ignored; `later.hex` has some.
#[track_caller]
fn check_later(version: u8) {
    use deltasync_proto::{Hello, Unsupported};
    let hello = Hello { min: version, max: 9, ..cases::hello(version) };
    let unsupported = Unsupported { min: version, max: 9, algorithms: 3 };
    let expected = [Message::Hello(hello), Message::Unsupported(unsupported)];
    let decoded: Vec<_> = read(version, "later").iter().map(|(_, bytes)| decode(bytes)).collect();
    assert_eq!(decoded, expected);
}

#[test]
fn every_kind_has_its_bytes() {
    for kind in MessageKind::ALL.iter().copied() {
        check_kind(VERSION, kind);
    }
}

#[test]
fn every_file_is_used() {
    let kinds = MessageKind::ALL.iter().map(|kind| file_name(*kind));
    let others = computed::FILES.into_iter().chain(conversations::FILES).chain(["later"]).map(str::to_owned);
    check_every_file_is_used(VERSION, kinds.chain(others).collect());
}

#[test]
fn what_a_later_version_appends_to_the_handshake_is_ignored() {
    check_later(VERSION);
}

/// It was taken for one, and the sender divided by the length of the ranges.
#[test]
fn a_repair_of_made_bytes_in_no_ranges_is_refused() {
    let frame = frame_of(&[&[0x16, 1, 10, 5, 0][..], &[0; 8]].concat());
    assert!(Message::decode(&frame, &Limits::default()).is_err());
}
