//! One session and a peer that says anything.
//!
//! The seeds are what the other end really sent: two sessions over the same files, recorded. So a fuzzer starts from
//! exchanges that go all the way and damages them.

use std::sync::Arc;

use deltasync_core::{Algorithm, ByteLen, Cutter, Offset, Op, Reader, Tag, TagRun};
use deltasync_io::MemoryStorage;
use deltasync_proto::{
    Command, Content, Delta, Hello, Input, Literals, Message, Offer, TransferId, TransferMessage, Wish,
};

use super::solo::{Role, SERVED, Solo, limits};
use super::take::{Split, Take};
use crate::{Rng, Seed, file, pull, push};

/// Flags, split, order of answers; then what the client says.
pub(super) fn server(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let flags = Flags(take.byte());
    let split = take.split();
    let mut server = Solo::new(Role::Server, server_files(), take.byte().into(), flags.writes());
    if flags.greets() {
        server.receive(&frame(&Message::Hello(Hello::ours(1, [1; 16]))));
    }
    for piece in flags.pieces(split, take.rest()) {
        server.receive(piece);
        if flags.ages() {
            server.pass_deadline();
        }
    }
    server.end(flags.ends_by_stream());
}

/// Flags, split, order of answers, commands; then what the server says.
pub(super) fn client(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let flags = Flags(take.byte());
    let split = take.split();
    let mut client = Solo::new(Role::Client, client_files(), take.byte().into(), flags.writes());
    for (number, command) in (1..).zip(commands(take.byte())) {
        client.input(Input::Command { transfer: TransferId::new(number), command });
    }
    if flags.greets() {
        client.receive(&frame(&Message::Hello(Hello::ours(1, [2; 16]))));
    }
    for piece in flags.pieces(split, take.rest()) {
        client.receive(piece);
        if flags.ages() {
            client.pass_deadline();
        }
    }
    client.end(flags.ends_by_stream());
}

/// What the harness does beside handing over bytes.
#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    /// The usual: a socket that writes, a stream that ends, and frames that come one by one, as who waits for answers
    /// sends them.
    const USUAL: Self = Self(0b1_0110);

    fn greets(self) -> bool {
        self.0 & 1 != 0
    }

    fn writes(self) -> bool {
        self.0 & 2 != 0
    }

    fn ends_by_stream(self) -> bool {
        self.0 & 4 != 0
    }

    fn ages(self) -> bool {
        self.0 & 8 != 0
    }

    fn pieces(self, split: Split, stream: &[u8]) -> Vec<&[u8]> {
        match self.0 & 16 {
            0 => split.pieces(stream).collect(),
            _ => split_frames(stream),
        }
    }
}

/// The frames of a stream, each in one piece; what is none stays whole.
fn split_frames(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    let len = |stream: &[u8]| {
        let mut reader = Reader::new(stream);
        let _ = (reader.byte().ok()?, reader.varint().ok()?);
        let payload = usize::try_from(reader.varint().ok()?).ok()?;
        (stream.len() - reader.rest().len()).checked_add(payload).filter(|len| *len <= stream.len())
    };
    while let Some(len) = len(stream) {
        let (frame, rest) = stream.split_at(len);
        frames.push(frame);
        stream = rest;
    }
    frames.push(stream);
    frames
}

fn path(path: &str) -> deltasync_core::RelPath {
    deltasync_core::RelPath::new(path).expect("a plain path")
}

fn server_files() -> Arc<MemoryStorage> {
    let storage = MemoryStorage::with_limits(limits());
    storage.insert(SERVED, file(), Rng::new(1).bytes(9000));
    storage.insert(SERVED, path("rows"), b"1,2,3\n".repeat(500));
    storage.insert(SERVED, path("directory/small"), "small");
    storage.insert(SERVED, path("empty"), "");
    Arc::new(storage)
}

fn client_files() -> Arc<MemoryStorage> {
    let storage = MemoryStorage::with_limits(limits());
    let mut edited = Rng::new(1).bytes(9000);
    edited.splice(4000..4001, *b"edited");
    storage.insert(SERVED, file(), edited);
    storage.insert(SERVED, path("rows"), b"1,2,3\n".repeat(400));
    storage.insert(SERVED, path("new"), b"new content ".repeat(300));
    storage.insert(SERVED, path("tiny"), "tiny");
    Arc::new(storage)
}

/// What a client is told to do: one command for each bit. What is pulled keeps its path, as the harness expects.
fn commands(mask: u8) -> Vec<Command> {
    let all = [
        push(file(), file()),
        pull(file(), file()),
        push(path("new"), path("directory")),
        pull(path("rows"), path("rows")),
        pull(path("directory/small"), path("directory/small")),
        Command::List { path: path("directory"), after: None },
        Command::Root { path: file() },
        push(path("tiny"), path("made/tiny")),
    ];
    all.into_iter().enumerate().filter(|(bit, _)| mask >> bit & 1 != 0).map(|(_, command)| command).collect()
}

fn frame(message: &Message) -> Vec<u8> {
    let encoded = message.encode();
    [&encoded.head[..], &encoded.tail].concat()
}

/// What a client and a server say while the client carries out commands.
fn record(mask: u8) -> (Vec<u8>, Vec<u8>) {
    let mut client = Solo::new(Role::Client, client_files(), 0, true);
    let mut server = Solo::new(Role::Server, server_files(), 0, true);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let mut to_server = Vec::new();
    for (number, command) in (1..).zip(commands(mask)) {
        to_server.extend(client.input(Input::Command { transfer: TransferId::new(number), command }));
    }
    to_server.extend(client.input(Input::Finish));
    while !to_server.is_empty() {
        let to_client = server.receive(&to_server);
        up.append(&mut to_server);
        to_server = client.receive(&to_client);
        down.extend(to_client);
    }
    assert!(matches!(client.finished, Some(Ok(_))), "the recorded run ends well: {:?}", client.finished);
    (up, down)
}

/// Commands for the recorded seeds.
const RECORDED: [(&str, u8); 9] = [
    ("push", 1),
    ("pull", 2),
    ("push-into-directory", 4),
    ("pull-shorter", 8),
    ("pull-small", 16),
    ("list", 32),
    ("root", 64),
    ("push-tiny", 128),
    ("all", 255),
];

pub(super) fn server_seeds() -> Vec<Seed> {
    let seed =
        |name: &str, flags: u8, split: u8, stream: &[u8]| Seed::new(name, [&[flags, split, 0][..], stream].concat());
    let usual = Flags::USUAL.0;
    let mut seeds: Vec<_> = RECORDED.iter().map(|(name, mask)| seed(name, usual, 255, &record(*mask).0)).collect();
    let push = record(1).0;
    seeds.push(seed("push-in-small-pieces", 0b110, 20, &push));
    seeds.push(seed("push-at-once", 0b110, 255, &push));
    seeds.push(seed("push-cut", usual, 255, &push[..push.len() / 2]));
    seeds.push(seed("push-and-silence", 0b1_1010, 255, &push[..push.len() / 2]));
    seeds.push(seed("push-to-one-who-does-not-read", 0b1_0100, 255, &push));
    seeds.push(seed("http", usual, 255, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    let later = frame(&Message::Hello(Hello { min: 9, ..Hello::ours(9, [1; 16]) }));
    seeds.push(seed("later-version", usual, 255, &later));
    for (name, stream) in hostile() {
        seeds.push(seed(name, usual | 1, 255, &stream));
    }
    seeds
}

/// Well-formed pushes that no client of ours makes.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let wish = || Some(Wish { path: file(), name: file().split_last().expect("a name").1, directory: false });
    let offer = |len: u64, content| Offer {
        to: wish(),
        len: ByteLen::new(len),
        root: Algorithm::Blake3.digest(b"something else"),
        algorithm: Algorithm::Blake3,
        cutter: Cutter::MinCdc { average: 2048 },
        changes: 0,
        content,
    };
    let stream = |messages: Vec<TransferMessage>| -> Vec<u8> {
        let message = |message| frame(&Message::Transfer(TransferId::new(1), message));
        messages.into_iter().flat_map(message).collect()
    };
    let tag = TagRun { tag: Tag::from_bytes([1; 6]), count: 1 };
    let ops = |op: Op| [op].into_iter().collect();
    let raw = |bytes: &'static [u8]| Literals::Raw(bytes.into());
    let copy = Op::Copy { from: Offset::new(8999), len: ByteLen::new(2) };
    let literal = Op::Literal { len: ByteLen::new(9) };
    let whole = |op, literals| {
        let delta = TransferMessage::Delta(Delta { last: true, ops: ops(op), literals });
        stream(vec![TransferMessage::Offer(offer(9, Content::Whole)), delta])
    };
    let mut climbs = stream(vec![TransferMessage::Offer(offer(9, Content::Whole))]);
    // The first field of the payload is the path: "file".
    let at = climbs.windows(4).position(|window| window == b"file").expect("the path");
    climbs[at..at + 4].copy_from_slice(b"../x");
    let offered = TransferMessage::Offer(offer(2, Content::Tags { runs: 1 }));
    let past = TransferMessage::Delta(Delta { last: true, ops: ops(copy), literals: raw(b"") });
    vec![
        ("copy-past-the-basis", stream(vec![offered.clone(), TransferMessage::Tags(vec![tag]), past])),
        ("tags-twice", stream(vec![offered, TransferMessage::Tags(vec![tag, tag])])),
        ("other-root", whole(literal, raw(b"123456789"))),
        ("literals-missing", whole(literal, raw(b"1234"))),
        ("no-frame-of-zstd", whole(literal, Literals::Packed { bytes: b"12345678".as_slice().into(), raw_len: 9 })),
        ("length-over-the-limit", stream(vec![TransferMessage::Offer(offer(1 << 63, Content::Whole))])),
        ("path-that-climbs", climbs),
        (
            "delta-without-offer",
            stream(vec![TransferMessage::Delta(Delta { last: true, ops: ops(literal), literals: raw(b"") })]),
        ),
    ]
}

pub(super) fn client_seeds() -> Vec<Seed> {
    let seed = |name: &str, flags: u8, split: u8, mask: u8, stream: &[u8]| {
        Seed::new(name, [&[flags, split, 0, mask][..], stream].concat())
    };
    let usual = Flags::USUAL.0;
    let mut seeds: Vec<_> =
        RECORDED.iter().map(|(name, mask)| seed(name, usual, 255, *mask, &record(*mask).1)).collect();
    let pull = record(2).1;
    seeds.push(seed("pull-in-small-pieces", 0b110, 20, 2, &pull));
    seeds.push(seed("pull-at-once", 0b110, 255, 2, &pull));
    seeds.push(seed("pull-cut", usual, 255, 2, &pull[..pull.len() / 2]));
    seeds.push(seed("pull-and-silence", 0b1_1010, 255, 2, &pull[..pull.len() / 2]));
    seeds.push(seed("answer-to-another-question", usual, 255, 16, &pull));
    seeds.push(seed("nothing-asked", usual, 255, 0, &pull));
    seeds.push(seed("silence", 0b1_1011, 255, 255, b""));
    seeds.push(seed("ssh", usual, 255, 1, b"SSH-2.0-OpenSSH_9.6\r\n"));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_served_again_as_it_was() {
        for (name, mask) in RECORDED {
            let (up, down) = record(mask);
            let mut server = Solo::new(Role::Server, server_files(), 0, true);
            let again: usize = split_frames(&up).into_iter().map(|frame| server.receive(frame).len()).sum();
            server.end(true);
            assert_eq!((again, server.finished.is_some_and(|result| result.is_ok())), (down.len(), true), "{name}");

            let mut client = Solo::new(Role::Client, client_files(), 0, true);
            for (number, command) in (1..).zip(commands(mask)) {
                client.input(Input::Command { transfer: TransferId::new(number), command });
            }
            client.input(Input::Finish);
            split_frames(&down).into_iter().for_each(|frame| drop(client.receive(frame)));
            assert!(matches!(client.finished, Some(Ok(_))), "{name}: {:?}", client.finished);
        }
    }
}
