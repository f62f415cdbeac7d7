//! Peers that break the rules: each ends in an error with a name, the peer is told why, and no file has changed.

mod anything;
mod costs;
mod counting;
mod deltas;
mod floods;
mod lengths;
mod offers;
mod order;
mod paths;
mod repairs;
mod sets;
mod signatures;
mod strangers;
mod wants;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltasync_core::{
    Algorithm, Break, ByteLen, ChunkList, Cutter, Digest, Elements, FineShape, Generation, Limits, LiteralPacker, Name,
    Offset, OldContent, OldPiece, Op, Ops, RelPath, Shared, Sketch, SketchKey, Survey, Tag, TagKey, write_varint,
};
use deltasync_proto::{
    Answer, AskRoot, Close, CloseCode, Command, Condition, Config, Confirm, Content, Delta, Edges, Entry, EntryKind,
    EventKind, Hello, List, Listing, Literals, MakeDirectory, Message, MessageKind, More, Offer, Omits, Omitted, Order,
    PeerMisbehaved, Place, Prefix, Pull, Refusal, RefusalCode, Remove, Rename, Repair, RootId, RootIs, Scope,
    SessionError, SetPart, TransferError, TransferId, TransferMessage, TreeOptions, Unsupported, VERSION, Version,
    Want, Why, Wish, encode_header,
};
use deltasync_testkit::{Due, Raw, Rng, file, pull, push};
use proptest::prelude::*;

const NO_HELLO: &str = "peer misbehaved: the first bytes are no hello of deltasync";

/// The nonce of the hello that [`Raw::greet`] sends.
const NONCE: [u8; 16] = [7; 16];

fn basis() -> Vec<u8> {
    Rng::new(1).bytes(10_000)
}

fn target() -> Vec<u8> {
    [&basis()[..5000], &Rng::new(2).bytes(7000)].concat()
}

/// A server with a basis, before any hello.
fn stranger() -> Raw {
    Raw::server(Config::default()).file("file", basis())
}

/// The same after the hellos.
fn server() -> Raw {
    let mut raw = stranger();
    raw.greet();
    raw
}

/// A client with a file to push, after the hellos.
fn client() -> Raw {
    let mut raw = Raw::client(Config::default()).file("file", basis());
    raw.greet();
    raw
}

fn list_of(bytes: &[u8]) -> ChunkList {
    ChunkList::of(bytes, Cutter::for_len(ByteLen::of(bytes)), Algorithm::Blake3)
}

fn key() -> TagKey {
    TagKey::new(&NONCE, 1)
}

fn elements_of(bytes: &[u8]) -> Elements {
    Elements::of(&list_of(bytes), &key())
}

/// The tags of these ranks, as they travel.
fn tags(elements: &Elements, ranks: std::ops::Range<usize>) -> SetPart {
    let mut bytes = Vec::new();
    elements.encode(ranks.clone(), &mut bytes);
    SetPart { start: ranks.start as u32, count: ranks.len() as u32, bytes: bytes.into() }
}

/// These cells of the sketch of a set.
fn cells(key: SketchKey, elements: &Elements, cells: std::ops::Range<usize>) -> SetPart {
    let mut bytes = Vec::new();
    Sketch::of(key, cells.clone(), elements.tags()).encode(&mut bytes);
    SetPart { start: cells.start as u32, count: cells.len() as u32, bytes: bytes.into() }
}

/// The whole set of a file's elements in transfer 1.
fn tags_of(bytes: &[u8]) -> TransferMessage {
    let elements = elements_of(bytes);
    TransferMessage::Tags(tags(&elements, 0..elements.len()))
}

fn in_set(bytes: &[u8]) -> Content {
    Content::Set { elements: elements_of(bytes).len() as u32 }
}

/// A part of a set that says it holds what it likes.
fn part(start: u32, count: u32, bytes: &[u8]) -> SetPart {
    SetPart { start, count, bytes: Bytes::copy_from_slice(bytes) }
}

fn offer_of(bytes: &[u8], content: Content) -> Offer {
    let list = list_of(bytes);
    Offer {
        to: Some(Wish::exactly(file())),
        len: list.len(),
        root: list.root(),
        algorithm: list.algorithm(),
        cutter: list.cutter(),
        attempt: 0,
        content,
    }
}

fn offer(bytes: &[u8], content: Content) -> TransferMessage {
    TransferMessage::Offer(offer_of(bytes, content))
}

/// The offer of a server, in a pull.
fn served(bytes: &[u8], content: Content) -> TransferMessage {
    TransferMessage::Offer(Offer { to: None, ..offer_of(bytes, content) })
}

fn name() -> Name {
    Name::new(*b"file").expect("a plain name")
}

fn raw_delta(last: bool, ops: &[Op], literals: &[u8]) -> TransferMessage {
    let literals = Literals::Raw(Bytes::copy_from_slice(literals));
    TransferMessage::Delta(Delta { last, ops: ops.iter().copied().collect(), literals })
}

fn whole(bytes: &[u8]) -> TransferMessage {
    raw_delta(true, &[literal(bytes.len() as u64)], bytes)
}

const fn literal(len: u64) -> Op {
    Op::Literal { len: ByteLen::new(len) }
}

const fn copy(from: u64, len: u64) -> Op {
    Op::Copy { from: Offset::new(from), len: ByteLen::new(len) }
}

const fn want_all() -> TransferMessage {
    TransferMessage::Want(Want::All)
}

/// The survey that a receiver of [`basis`] would send whose own file has all of its chunks and some bytes behind them.
fn survey() -> Survey {
    let elements = elements_of(&basis());
    let order = Shared::all_but(&elements, &[]).order(&elements, &key());
    let before = elements.len() as u32;
    let pieces = vec![OldPiece { before, content: OldContent::Bytes(ByteLen::new(5)) }];
    Survey {
        basis: ByteLen::new(10_005),
        order,
        missing: Vec::new(),
        pieces,
        shape: None,
        sums: Vec::new(),
        edges: None,
    }
}

fn surveys(survey: &Survey) -> TransferMessage {
    let mut bytes = Vec::new();
    survey.encode(elements_of(&basis()).len() as u64, &mut bytes);
    TransferMessage::Want(Want::Survey { last: true, bytes: bytes.into() })
}

fn pulls(have: Option<(Digest, ByteLen)>) -> TransferMessage {
    TransferMessage::Pull(Pull { path: file(), algorithm: Algorithm::Blake3, have, scope: Scope::default() })
}

/// What a peer says it has that has something else.
fn other() -> Option<(Digest, ByteLen)> {
    Some((Digest::default(), ByteLen::new(3)))
}

/// A server that has offered [`basis`] as a set to a pull.
fn offering() -> Raw {
    let mut raw = server();
    raw.say(1, pulls(other())).take();
    raw
}

/// How many literal bytes of a target these messages carry.
fn literal_bytes(messages: &[Message]) -> u64 {
    let raw_len = |message: &Message| match message {
        Message::Transfer(_, TransferMessage::Delta(delta)) => delta.literals.raw_len().get(),
        _ => 0,
    };
    messages.iter().map(raw_len).sum()
}

/// The session has ended with this error, has told it to the peer, and the basis is what it was.
#[track_caller]
fn check_refused(raw: &mut Raw, code: CloseCode, text: &str) {
    match raw.finished() {
        Some(Err(error)) => assert_eq!(error.to_string(), text),
        other => panic!("not refused, but {other:?}"),
    }
    assert_eq!(raw.closing(), Some((code, text.into())), "the peer is told");
    assert_eq!(raw.content("file").as_deref(), Some(&basis()[..]), "nothing has changed");
}

#[track_caller]
fn check_healthy(raw: &mut Raw) {
    assert!(raw.finished().is_none(), "{:?}", raw.finished());
    raw.take();
    raw.send(&Message::Ping);
    assert_eq!(raw.messages(), [Message::Pong], "it still answers");
    assert_eq!(raw.content("file").as_deref(), Some(&basis()[..]), "nothing has changed");
}

fn refusal(message: &str) -> Refusal {
    Refusal { code: RefusalCode::Denied, message: message.into(), current: None }
}

fn named(due: &Due, name: &str) -> bool {
    due.name() == name
}

/// That the basis is meant to be replaced, which was put there and not committed.
fn replace_basis() -> TransferMessage {
    TransferMessage::Replace(Some(Version { generation: Generation::ZERO, root: list_of(&basis()).root() }))
}

/// That the hello of the server under test was seen.
fn seen() -> Message {
    Message::Seen(u64::from_le_bytes([0x5e; 8]))
}

fn hello(min: u8, max: u8) -> Message {
    Message::Hello(Hello { min, max, ..Hello::ours(VERSION, NONCE) })
}
