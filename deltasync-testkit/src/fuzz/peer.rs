//! One session and a peer that says anything.
//!
//! The seeds are what the other end really sent: two sessions over the same files, recorded. So a fuzzer starts from
//! exchanges that go all the way and damages them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use deltasync_core::{Algorithm, ByteLen, Cutter, Generation, Offset, Op, Reader};
use deltasync_io::{BlockingStorage, KeepForm, MemoryStorage};
use deltasync_proto::{
    Answer, Ask, Command, Content, Cutting, Delta, Hello, Input, Known, Literals, Message, Offer, Place, Prefix,
    SetPart, TransferId, TransferMessage, VERSION, Wish,
};

use super::solo::{Role, SERVED, Solo, config, limits};
use super::take::{Split, Take};
use crate::{Rng, Seed, file, pull, push};

/// Flags, split, order of answers; then what the client says.
pub(super) fn server(bytes: &[u8]) {
    let mut take = Take::new(bytes);
    let flags = Flags(take.byte());
    let split = take.split();
    let mut server = flags.solo(Role::Server, take.byte());
    if flags.greets() {
        server.receive(&frame(&Message::Hello(Hello::ours(VERSION, [1; 16]))));
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
    let mut client = flags.solo(Role::Client, take.byte());
    for (number, command) in (1..).zip(commands(take.short() as u16)) {
        client.input(Input::Command { transfer: TransferId::new(number), command });
    }
    if flags.greets() {
        client.receive(&frame(&Message::Hello(Hello::ours(VERSION, [2; 16]))));
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
    /// Tags and sums of few bits, so that results are repaired.
    const SHORT: u8 = 32;
    /// The client remembers sums instead of bytes.
    const SUMS: u8 = 64;
    /// What the client remembers of a file is no longer so.
    const STALE: u8 = 128;

    fn solo(self, role: Role, order: u8) -> Solo {
        let config = if self.0 & Self::SHORT != 0 { config().tag_bits(8) } else { config() };
        let files = match role {
            Role::Client => client_files(self),
            Role::Server => server_files(),
        };
        Solo::new(role, files, config, order.into(), self.writes())
    }

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

/// The contents that the two ends share, made once: runs are many and short.
struct Contents {
    random: Bytes,
    /// Long enough for cells.
    large: Bytes,
    edited: Bytes,
    /// The large one with its parts in another order.
    moved: Bytes,
    /// Its beginning, so that most of the large one is no part of it.
    beginning: Bytes,
    /// Rows that pack well, and the same in which many places differ.
    rows: Bytes,
    rows_edited: Bytes,
}

fn contents() -> &'static Contents {
    static CONTENTS: OnceLock<Contents> = OnceLock::new();
    CONTENTS.get_or_init(|| {
        let random = Rng::new(1).bytes(9000);
        let large = Rng::new(2).bytes(260_000);
        let edit = |bytes: &[u8], at: usize| {
            let mut edited = bytes.to_vec();
            edited.splice(at..at + 1, *b"edited");
            edited
        };
        let moved = [&large[120_000..], &large[..40_000], &large[80_000..120_000], &large[40_000..80_000]].concat();
        let row = |row: usize, shift: usize| format!("{row},{}\n", (row + shift) % 7).into_bytes();
        // Every so many rows one is another.
        let rows = |shift| (0..12_000).flat_map(|i| row(i, if i % 900 == 7 { shift } else { 0 })).collect::<Vec<u8>>();
        Contents {
            edited: edit(&large, 70_000).into(),
            beginning: large[..180_000].to_vec().into(),
            random: random.into(),
            moved: moved.into(),
            large: large.into(),
            rows: rows(0).into(),
            rows_edited: rows(2).into(),
        }
    })
}

fn server_files() -> Arc<MemoryStorage> {
    let storage = MemoryStorage::with_limits(limits());
    let Contents { random, large, rows, .. } = contents();
    storage.insert(SERVED, file(), random.clone());
    storage.insert(SERVED, path("rows"), b"1,2,3\n".repeat(500));
    storage.insert(SERVED, path("directory/small"), "small");
    storage.insert(SERVED, path("empty"), "");
    storage.insert(SERVED, path("large"), large.clone());
    storage.insert(SERVED, path("table"), rows.clone());
    // What stood there before is remembered.
    storage.insert(SERVED, path("history"), large.slice(..30_000));
    remember(&storage, "history", None);
    storage.insert(SERVED, path("history"), large.slice(500..31_000));
    Arc::new(storage)
}

fn client_files(flags: Flags) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::with_limits(limits());
    let Contents { random, large, edited, moved, beginning, rows_edited, .. } = contents();
    let mut near = random.to_vec();
    near.splice(4000..4001, *b"edited");
    storage.insert(SERVED, file(), near);
    storage.insert(SERVED, path("rows"), b"1,2,3\n".repeat(400));
    storage.insert(SERVED, path("new"), b"new content ".repeat(300));
    storage.insert(SERVED, path("tiny"), "tiny");
    storage.insert(SERVED, path("large"), edited.clone());
    storage.insert(SERVED, path("moved"), moved.clone());
    storage.insert(SERVED, path("beginning"), beginning.clone());
    storage.insert(SERVED, path("table"), rows_edited.clone());
    storage.insert(SERVED, path("copy"), random.clone());
    storage.insert(SERVED, path("history"), large.slice(..30_000));
    if flags.0 & Flags::SUMS != 0 {
        storage.keep(KeepForm::Sums);
    }
    // That the server's large file is our large one before its edit.
    storage.insert(SERVED, path("known"), if flags.0 & Flags::STALE != 0 { beginning } else { large }.clone());
    remember(&storage, "known", Some("large"));
    storage.insert(SERVED, path("known"), edited.clone());
    Arc::new(storage)
}

/// Lets a storage remember a file of its own as what is at `at`, or under its own name.
fn remember(storage: &MemoryStorage, name: &str, at: Option<&str>) {
    let place = Place { root: SERVED, path: path(name) };
    let describe = Ask::Describe { place, cutting: Cutting::ByContent, algorithm: Algorithm::Blake3, remember: None };
    let Ok(Answer::Described(file)) = storage.answer(describe) else { panic!("{name} is there") };
    let known = path(at.unwrap_or(name));
    let key = Known { path: known, name: at.map(|_| path(name).split_last().expect("a name").1) };
    let remembered = storage.answer(Ask::Remember { key, generation: Generation::ZERO, file });
    assert!(matches!(remembered, Ok(Answer::Remembered)), "{remembered:?}");
}

/// What a client is told to do: one command for each bit. What is pulled keeps its path, as the harness expects.
fn commands(mask: u16) -> Vec<Command> {
    let all = [
        push(file(), file()),
        pull(file(), file()),
        push(path("new"), path("directory")),
        pull(path("rows"), path("rows")),
        pull(path("directory/small"), path("directory/small")),
        Command::List { path: path("directory"), after: None },
        Command::Root { path: file() },
        push(path("tiny"), path("made/tiny")),
        push(path("large"), path("large")),
        pull(path("large"), path("large")),
        push(path("moved"), path("large")),
        push(path("beginning"), path("large")),
        push(path("copy"), path("copied")),
        pull(path("history"), path("history")),
        push(path("known"), path("large")),
        push(path("table"), path("table")),
    ];
    all.into_iter().enumerate().filter(|(bit, _)| mask >> bit & 1 != 0).map(|(_, command)| command).collect()
}

fn frame(message: &Message) -> Vec<u8> {
    let encoded = message.encode();
    [&encoded.head[..], &encoded.tail].concat()
}

/// What a client and a server say while the client carries out commands.
fn record(flags: Flags, mask: u16) -> (Vec<u8>, Vec<u8>) {
    let mut client = flags.solo(Role::Client, 0);
    let mut server = flags.solo(Role::Server, 0);
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

/// Flags and commands for the recorded seeds.
const RECORDED: [(&str, u8, u16); 20] = [
    ("push", 0, 1),
    ("pull", 0, 2),
    ("push-into-directory", 0, 4),
    ("pull-shorter", 0, 8),
    ("pull-small", 0, 16),
    ("list", 0, 32),
    ("root", 0, 64),
    ("push-tiny", 0, 128),
    ("all-of-these", 0, 255),
    ("push-by-cells", 0, 1 << 8),
    ("pull-by-cells", 0, 1 << 9),
    ("push-moved", 0, 1 << 10),
    ("push-with-more", 0, 1 << 11),
    ("push-of-a-twin", 0, 1 << 12),
    ("pull-with-history", 0, 1 << 13),
    ("push-known", 0, 1 << 14),
    ("push-known-by-sums", Flags::SUMS, 1 << 14),
    ("push-known-stale", Flags::STALE, 1 << 14),
    ("push-table", 0, 1 << 15),
    // As the second transfer, whose key lets some collide.
    ("push-repaired", Flags::SHORT, 1 << 15 | 64),
];

pub(super) fn server_seeds() -> Vec<Seed> {
    let seed =
        |name: &str, flags: u8, split: u8, stream: &[u8]| Seed::new(name, [&[flags, split, 0][..], stream].concat());
    let usual = Flags::USUAL.0;
    let mut seeds: Vec<_> = RECORDED
        .iter()
        .map(|(name, flags, mask)| seed(name, usual | flags, 255, &record(Flags(usual | flags), *mask).0))
        .collect();
    let push = record(Flags::USUAL, 1).0;
    seeds.push(seed("push-in-small-pieces", 0b110, 20, &push));
    seeds.push(seed("push-at-once", 0b110, 255, &push));
    seeds.push(seed("push-cut", usual, 255, &push[..push.len() / 2]));
    seeds.push(seed("push-and-silence", 0b1_1010, 255, &push[..push.len() / 2]));
    seeds.push(seed("push-to-one-who-does-not-read", 0b1_0100, 255, &push));
    seeds.push(seed("http", usual, 255, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    let first = frame(&Message::Hello(Hello { min: 1, ..Hello::ours(1, [1; 16]) }));
    seeds.push(seed("version-1", usual, 255, &first));
    let later = frame(&Message::Hello(Hello { min: 9, ..Hello::ours(9, [1; 16]) }));
    seeds.push(seed("later-version", usual, 255, &later));
    for (name, stream) in hostile() {
        seeds.push(seed(name, usual | 1, 255, &stream));
    }
    seeds
}

/// Well-formed pushes that no client of ours makes.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let wish = || Some(Wish::exactly(file()));
    let offer = |len: u64, content| Offer {
        to: wish(),
        len: ByteLen::new(len),
        root: Algorithm::Blake3.digest(b"something else"),
        algorithm: Algorithm::Blake3,
        cutter: Cutter::MinCdc { average: 2048 },
        attempt: 0,
        content,
    };
    let stream = |messages: Vec<TransferMessage>| -> Vec<u8> {
        let message = |message| frame(&Message::Transfer(TransferId::new(1), message));
        messages.into_iter().flat_map(message).collect()
    };
    let tags = |start, count| TransferMessage::Tags(SetPart { start, count, bytes: vec![1; 6].into() });
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
    let offered = TransferMessage::Offer(offer(2, Content::Set { elements: 1 }));
    let past = TransferMessage::Delta(Delta { last: true, ops: ops(copy), literals: raw(b"") });
    vec![
        ("copy-past-the-basis", stream(vec![offered.clone(), tags(0, 1), past])),
        ("tags-twice", stream(vec![offered, tags(0, 1), tags(0, 1)])),
        ("other-root", whole(literal, raw(b"123456789"))),
        ("literals-missing", whole(literal, raw(b"1234"))),
        (
            "no-frame-of-zstd",
            whole(literal, Literals::Packed { prefix: Prefix::None, bytes: b"12345678".as_slice().into(), raw_len: 9 }),
        ),
        ("length-over-the-limit", stream(vec![TransferMessage::Offer(offer(1 << 63, Content::Whole))])),
        ("path-that-climbs", climbs),
        (
            "delta-without-offer",
            stream(vec![TransferMessage::Delta(Delta { last: true, ops: ops(literal), literals: raw(b"") })]),
        ),
    ]
}

pub(super) fn client_seeds() -> Vec<Seed> {
    let seed = |name: &str, flags: u8, split: u8, mask: u16, stream: &[u8]| {
        Seed::new(name, [&[flags, split, 0][..], &mask.to_le_bytes(), stream].concat())
    };
    let usual = Flags::USUAL.0;
    let mut seeds: Vec<_> = RECORDED
        .iter()
        .map(|(name, flags, mask)| seed(name, usual | flags, 255, *mask, &record(Flags(usual | flags), *mask).1))
        .collect();
    let pull = record(Flags::USUAL, 2).1;
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
    use deltasync_proto::MessageKind;

    use super::*;

    #[test]
    fn what_was_recorded_is_served_again_as_it_was() {
        for (name, flags, mask) in RECORDED {
            let flags = Flags(Flags::USUAL.0 | flags);
            let (up, down) = record(flags, mask);
            let mut server = flags.solo(Role::Server, 0);
            let again: usize = split_frames(&up).into_iter().map(|frame| server.receive(frame).len()).sum();
            server.end(true);
            assert_eq!((again, server.finished.is_some_and(|result| result.is_ok())), (down.len(), true), "{name}");

            let mut client = flags.solo(Role::Client, 0);
            for (number, command) in (1..).zip(commands(mask)) {
                client.input(Input::Command { transfer: TransferId::new(number), command });
            }
            client.input(Input::Finish);
            split_frames(&down).into_iter().for_each(|frame| drop(client.receive(frame)));
            assert!(matches!(client.finished, Some(Ok(_))), "{name}: {:?}", client.finished);
        }
    }

    /// The kinds of the messages in a stream.
    fn kinds(stream: &[u8]) -> Vec<MessageKind> {
        let frames = split_frames(stream).into_iter().filter_map(|frame| frame.first().copied());
        frames.map(|kind| MessageKind::from_code(kind).expect("ours")).collect()
    }

    #[test]
    fn what_was_recorded_has_what_it_was_recorded_for() {
        for (name, flags, mask) in RECORDED {
            let (up, down) = record(Flags(Flags::USUAL.0 | flags), mask);
            println!("{name}: {} {:?} {} {:?}", up.len(), kinds(&up), down.len(), kinds(&down));
        }
        let has = |name: &str, kind: MessageKind| {
            let (_, flags, mask) = RECORDED.iter().find(|(other, ..)| *other == name).expect("recorded");
            let (up, down) = record(Flags(Flags::USUAL.0 | flags), *mask);
            assert!([kinds(&up), kinds(&down)].concat().contains(&kind), "{name} has no {kind:?}");
        };
        has("push", MessageKind::Tags);
        has("push-by-cells", MessageKind::Cells);
        has("pull-by-cells", MessageKind::Cells);
        has("push-moved", MessageKind::Edges);
        has("push-moved", MessageKind::Order);
        has("push-with-more", MessageKind::More);
        has("push-known-stale", MessageKind::Stale);
        has("push-repaired", MessageKind::Repair);
    }
}
