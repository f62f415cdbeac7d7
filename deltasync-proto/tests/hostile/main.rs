//! Peers that break the rules: each ends in an error with a name, the peer is told why, and no file has changed.

mod anything;
mod deltas;
mod floods;
mod lengths;
mod order;
mod paths;
mod strangers;
mod wants;

use std::time::Duration;

use bytes::Bytes;
use deltasync_core::{
    Algorithm, ByteLen, ChunkList, Cutter, Digest, Generation, Limits, Name, Offset, Op, Ops, RelPath, Tag, TagKey,
    TagRun, pack, tag_runs, write_varint,
};
use deltasync_proto::{
    AskRoot, Close, CloseCode, Command, Config, Content, Delta, Entry, EntryKind, Hello, List, Listing, Literals,
    Message, MessageKind, Offer, PeerMisbehaved, Pull, Refusal, RefusalCode, RootIs, SessionError, TransferError,
    TransferId, TransferMessage, Unsupported, VERSION, Want, WantRun, Wish, encode_header,
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

fn tags_of(bytes: &[u8]) -> Vec<TagRun> {
    tag_runs(&list_of(bytes), &TagKey::new(&NONCE, 1))
}

fn in_tags(bytes: &[u8]) -> Content {
    Content::Tags { runs: list_of(bytes).runs().len() as u32 }
}

fn offer_of(bytes: &[u8], content: Content) -> Offer {
    let list = list_of(bytes);
    let wish = Wish { path: file(), name: name(), directory: false };
    Offer {
        to: Some(wish),
        len: list.len(),
        root: list.root(),
        algorithm: list.algorithm(),
        cutter: list.cutter(),
        changes: 0,
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

const fn run(missing: u64, have: u64, from: u64) -> WantRun {
    WantRun { missing, have, from: Offset::new(from) }
}

fn want(basis: u64, runs: &[WantRun]) -> TransferMessage {
    TransferMessage::Want(Want { last: true, basis, runs: runs.to_vec() })
}

fn pulls(have: Option<Digest>) -> TransferMessage {
    TransferMessage::Pull(Pull { path: file(), algorithm: Algorithm::Blake3, have })
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

fn hello(min: u8, max: u8) -> Message {
    Message::Hello(Hello { min, max, ..Hello::ours(VERSION, NONCE) })
}
