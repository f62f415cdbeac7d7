//! The values that the vectors of each kind stand for, in the order of their cases.

use bytes::Bytes;
use deltasync_core::{
    Algorithm, Break, ByteLen, Cutter, Digest, Generation, MendKey, Name, Offset, Op, RelPath, Sketch, SketchKey, Tag,
};
use deltasync_proto::{
    AskRoot, Capabilities, Close, CloseCode, Condition, Confirm, Content, Delta, Edges, Entry, EntryKind, Extra,
    Filter, Hello, List, Listing, Literals, MakeDirectory, Message, MessageKind, More, Offer, Omits, Omitted, Order,
    Prefix, Pull, Refusal, RefusalCode, Remove, Rename, Repair, RootIs, Scope, SetPart, TransferId, TransferMessage,
    TreeOptions, Unsupported, Version, Want, Why, Wish,
};

/// The nonces in the vectors.
pub(crate) const CLIENT: [u8; 16] = *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f";
pub(crate) const SERVER: [u8; 16] = *b"\x20\x21\x22\x23\x24\x25\x26\x27\x28\x29\x2a\x2b\x2c\x2d\x2e\x2f";

/// What the file of a kind must hold in this version, in order.
pub(crate) fn cases(kind: MessageKind, version: u8) -> Vec<(&'static str, Message)> {
    match kind {
        MessageKind::Hello => {
            let (auth, capabilities) = (Bytes::from_static(b"proof"), Capabilities::from_bits(0x81));
            let later = Hello { max: 9, capabilities, algorithms: 7, auth, ..hello(version) };
            vec![
                ("of this version", Message::Hello(hello(version))),
                ("of a later version, with a proof of identity", Message::Hello(later)),
            ]
        }
        MessageKind::Unsupported => {
            let (min, max, algorithms) = (version, version, 3);
            vec![("of this version", Message::Unsupported(Unsupported { min, max, algorithms }))]
        }
        MessageKind::Close => closes(),
        MessageKind::Ping => vec![("the only one", Message::Ping)],
        MessageKind::Pong => vec![("the only one", Message::Pong)],
        MessageKind::Seen => {
            let sum = u64::from_le_bytes(*SERVER.first_chunk().expect("8 of 16 bytes"));
            vec![("of the nonce in the vectors", Message::Seen(sum))]
        }
        MessageKind::Offer => offers(),
        MessageKind::Tags => tags(),
        MessageKind::Cells => cells(),
        MessageKind::More => mores(),
        MessageKind::Same => vec![
            ("of no known generation", of(1, TransferMessage::Same(Generation::ZERO))),
            ("of the last generation", of(1, TransferMessage::Same(Generation::new(u64::MAX)))),
        ],
        MessageKind::Confirm => {
            let confirm = |current, since| of(1, TransferMessage::Confirm(Confirm { current, since }));
            vec![("a version", confirm(Some(version_300()), false)), ("nothing is there any more", confirm(None, true))]
        }
        MessageKind::Replace => vec![
            ("a version", of(1, TransferMessage::Replace(Some(version_300())))),
            ("nothing is there", of(1, TransferMessage::Replace(None))),
        ],
        MessageKind::Want => wants(),
        MessageKind::Edges => edges(),
        MessageKind::Order => orders(),
        MessageKind::Current => vec![("of transfer 1", of(1, TransferMessage::Current))],
        MessageKind::Stale => vec![("of transfer 1", of(1, TransferMessage::Stale))],
        MessageKind::Delta => deltas(),
        MessageKind::Done => vec![
            ("the first generation", of(1, TransferMessage::Done(Generation::new(1)))),
            ("the last one", of(1, TransferMessage::Done(Generation::new(u64::MAX)))),
        ],
        MessageKind::Repair => repairs(),
        MessageKind::Changed => vec![("of transfer 127", of(127, TransferMessage::Changed))],
        MessageKind::Refused => refusals(version),
        MessageKind::Cancel => vec![("of transfer 128", of(128, TransferMessage::Cancel))],
        MessageKind::Credit => vec![
            ("a portion", of(1, TransferMessage::Credit(1 << 18))),
            ("as much as can be said", of(1, TransferMessage::Credit(u64::MAX))),
        ],
        MessageKind::Working => vec![("of transfer 4294967295", of(u32::MAX, TransferMessage::Working))],
        MessageKind::Pull => pulls(),
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
            vec![("in BLAKE3", ask(Algorithm::Blake3)), ("in SHA-256", ask(Algorithm::Sha256))]
        }
        MessageKind::RootIs => {
            let root = RootIs { len: ByteLen::new(10_000), root: digest(0) };
            vec![("of a file of 10,000 bytes", of(1, TransferMessage::RootIs(root)))]
        }
        MessageKind::MakeDirectory => {
            let make = MakeDirectory { path: path(b"dir/new") };
            vec![("in another directory", of(1, TransferMessage::MakeDirectory(make)))]
        }
        MessageKind::Rename => {
            let rename = Rename { from: path(b"file"), to: path(b"dir/file") };
            vec![("a file into a directory", of(1, TransferMessage::Rename(rename)))]
        }
        MessageKind::Remove => {
            let remove = |path, recursive| of(1, TransferMessage::Remove(Remove { path, recursive }));
            vec![
                ("a file, or a directory that is empty", remove(path(b"file"), false)),
                ("a directory with all that is in it", remove(path(b"dir"), true)),
            ]
        }
        MessageKind::Altered => vec![("of transfer 1", of(1, TransferMessage::Altered))],
        MessageKind::Complete => vec![("of transfer 2", of(2, TransferMessage::Complete))],
        MessageKind::Omits => {
            let omitted = |at, why| Omitted { path: path(at), why };
            let entries = vec![
                omitted(b"dir", Why::Unlisted("no".into())),
                omitted(b"pipe", Why::NotKept("a pipe".into())),
                omitted(b"file", Why::Unreadable("no".into())),
                omitted(b"log", Why::Changed),
            ];
            vec![("one of each kind, and two more", of(1, TransferMessage::Omits(Omits { entries, more: 2 })))]
        }
        other => panic!("no vectors of {other:?}"),
    }
}

/// A hello of this version alone.
pub(crate) fn hello(version: u8) -> Hello {
    let (min, max, capabilities, algorithms) = (version, version, Capabilities::ZSTD, 3);
    Hello { min, max, capabilities, algorithms, nonce: CLIENT, auth: Bytes::new() }
}

/// The tags of a hundred numbers' digests.
pub(crate) fn hundred() -> impl Iterator<Item = Tag> {
    (0..100u32).map(|number| {
        let digest = Algorithm::Blake3.digest(&number.to_le_bytes());
        Tag::from_bytes(*digest.as_bytes().first_chunk().expect("32 bytes have 6"))
    })
}

/// The digest whose first byte is this, and each other one more than the byte before.
fn digest(first: u8) -> Digest {
    Digest::from_bytes(core::array::from_fn(|at| at as u8 + first))
}

fn offer(to: Option<Wish>, len: u64, content: Content) -> Offer {
    let cutter = Cutter::MinCdc { average: 2048 };
    let (len, root, algorithm) = (ByteLen::new(len), digest(0), Algorithm::Blake3);
    Offer { to, len, root, algorithm, cutter, attempt: 0, content }
}

fn offers() -> Vec<(&'static str, Message)> {
    let wish = |at, label, directory| Some(Wish { name: name(label), directory, ..Wish::exactly(path(at)) });
    let changed = Offer {
        algorithm: Algorithm::Sha256,
        cutter: Cutter::FIXED_4096,
        attempt: 1,
        ..offer(wish(b"dir", "été", true), 1 << 40, Content::Set { elements: 1 << 22 })
    };
    let known = Offer { cutter: Cutter::MinCdc { average: 16 << 20 }, ..offer(None, 0, Content::Known) };
    let longest = Offer { attempt: 2, ..offer(None, 16 << 40, Content::Set { elements: 0 }) };
    let delta = |len, generation, follows| {
        let (basis, len, generation) = (digest(0x80), ByteLen::new(len), Generation::new(generation));
        offer(wish(b"file", "file", false), 9003, Content::Delta { basis, len, generation, follows })
    };
    let whole = offer(wish(b"dir/file", "file", false), 1000, Content::Whole);
    let conditional = |condition| {
        let to = wish(b"file", "file", false).map(|wish| Wish { condition, ..wish });
        of(1, TransferMessage::Offer(offer(to, 1000, Content::Whole)))
    };
    let scope = Scope { filter: Filter::default().ignore_files(true), xattrs: true, ..Scope::default() };
    let tree = TreeOptions { extra: Extra::Delete { most: None }, scope, atomic: true };
    let to = Some(Wish { tree, ..Wish::exactly(path(b"tree")) });
    let tree = Offer { cutter: Cutter::Entries, ..offer(to, 1000, Content::Set { elements: 6 }) };
    let dry = wish(b"file", "file", true).map(|wish| Wish { dry: true, ..wish });
    let dry = offer(dry, 1000, Content::Whole);
    let waits = Offer { attempt: 255, ..delta(16 << 40, 300, false) };
    vec![
        ("a push that carries its content", of(1, TransferMessage::Offer(whole))),
        ("a push of a set into a directory, the second offer", of(300, TransferMessage::Offer(changed))),
        ("a pull of what is there already", of(2, TransferMessage::Offer(known))),
        ("a pull, of the longest file, the third offer", of(2, TransferMessage::Offer(longest))),
        ("a delta that follows", of(1, TransferMessage::Offer(delta(9000, 0, true)))),
        ("a delta that waits, after many offers", of(1, TransferMessage::Offer(waits))),
        ("a push to where nothing is", conditional(Condition::Absent)),
        ("a push over a version", conditional(Condition::Root(digest(0x80)))),
        ("a push of a tree, by its ignore files", of(1, TransferMessage::Offer(tree))),
        ("a dry run", of(1, TransferMessage::Offer(dry))),
    ]
}

fn part(start: u32, count: u32, bytes: &[u8]) -> SetPart {
    SetPart { start, count, bytes: Bytes::copy_from_slice(bytes) }
}

/// Four tags in ascending order.
pub(crate) fn four() -> [Tag; 4] {
    [5, 6, 1 << 40, (1 << 48) - 1].map(|number: u64| {
        let [a, b, c, d, e, f, ..] = number.to_le_bytes();
        Tag::from_bytes([a, b, c, d, e, f])
    })
}

fn tags() -> Vec<(&'static str, Message)> {
    // What they mean is read in `computed.rs`.
    let all = *b"\x0a\0\0\0\0\0\0\0\0\0\0\x20\xff\xff\xff\xff\x1f\xfc\xf9\xff\xff\xff\xff\x7b";
    let last = *b"\xf2\xff\xff\xff\xff\xc1\x9f\xff\xff\xff\xff\xbf\x07";
    let tags = |start, count, bytes: &[u8]| of(1, TransferMessage::Tags(part(start, count, bytes)));
    vec![
        ("none of none", tags(0, 0, &[])),
        ("all of a set of 4", tags(0, 4, &all)),
        ("the last two of them", tags(2, 2, &last)),
        ("the greatest rank", tags(u32::MAX - 1, 1, &[1, 2, 3])),
    ]
}

fn sketched(key: SketchKey, tags: impl IntoIterator<Item = Tag>, start: u32, end: u32) -> SetPart {
    let mut bytes = Vec::new();
    Sketch::of(key, start as usize..end as usize, tags).encode(&mut bytes);
    part(start, end - start, &bytes)
}

fn cells() -> Vec<(&'static str, Message)> {
    let key = SketchKey::new(&CLIENT, 1);
    let late = sketched(key, hundred(), 63, 65);
    vec![
        ("the first three of a set of 4", of(1, TransferMessage::Cells(sketched(key, four(), 0, 3)))),
        ("of a set of 100, where check sums become shorter", of(1, TransferMessage::Cells(late))),
    ]
}

fn mores() -> Vec<(&'static str, Message)> {
    vec![
        ("of the cells", of(1, TransferMessage::More(More::Cells(64)))),
        ("of the tags", of(1, TransferMessage::More(More::Tags(1000)))),
        ("of the edges", of(1, TransferMessage::More(More::Edges(u32::MAX)))),
    ]
}

fn wants() -> Vec<(&'static str, Message)> {
    let survey = |last, bytes| of(1, TransferMessage::Want(Want::Survey { last, bytes: Bytes::from_static(bytes) }));
    vec![
        ("all is missing", of(1, TransferMessage::Want(Want::All))),
        ("a part of a survey", survey(false, &[1, 2, 3])),
        ("the last part", survey(true, &[4])),
    ]
}

fn edges() -> Vec<(&'static str, Message)> {
    let cells = sketched(SketchKey::of_edges(&CLIENT, 1), four(), 0, 2);
    vec![("two cells of 4 edges", of(1, TransferMessage::Edges(Edges { elements: 4, cells })))]
}

fn orders() -> Vec<(&'static str, Message)> {
    let order = |breaks: &[(Option<u32>, Option<u32>)]| {
        let breaks = breaks.iter().map(|(left, right)| Break { left: *left, right: *right }).collect();
        of(1, TransferMessage::Order(Order { breaks }))
    };
    vec![
        ("as it is", order(&[])),
        ("two blocks have changed places", order(&[(None, Some(6)), (Some(11), Some(2)), (Some(4), None)])),
        ("the greatest rank", order(&[(Some(u32::MAX), None)])),
    ]
}

fn deltas() -> Vec<(&'static str, Message)> {
    let literal = |len| Op::Literal { len: ByteLen::new(len) };
    let copy = |from, len| Op::Copy { from: Offset::new(from), len: ByteLen::new(len) };
    let delta = |last, ops: &[Op], literals| {
        of(1, TransferMessage::Delta(Delta { last, ops: ops.iter().copied().collect(), literals }))
    };
    let raw = |bytes: &'static [u8]| Literals::Raw(Bytes::from_static(bytes));
    let packed =
        |prefix, bytes: &'static [u8], raw_len| Literals::Packed { prefix, bytes: Bytes::from_static(bytes), raw_len };
    let run = |prefix| packed(prefix, b"\0\0\x43\x06\0a", 200);
    let in_turn = [copy(0, 4096), literal(3), copy(4099, 8000), literal(2), copy(100, 50), literal(1)];
    let huge = [literal(1 << 40), copy(1 << 63, (1 << 63) + 5)];
    let begun = packed(Prefix::Replaced, b"\0\0\x18\0\0abc", 3);
    vec![
        ("nothing at all, the end", delta(true, &[], raw(b""))),
        ("literals alone", delta(true, &[literal(5)], raw(b"hello"))),
        ("copies and literals in turn", delta(false, &in_turn, raw(b"abcdef"))),
        ("literals of earlier operations", delta(false, &[], raw(b"later"))),
        ("operations whose literals follow", delta(false, &huge, raw(b""))),
        ("packed", delta(true, &[literal(200)], run(Prefix::None))),
        ("packed behind the neighbours", delta(true, &[], run(Prefix::Neighbours))),
        ("packed behind what is replaced, not the last", delta(false, &[literal(9)], begun)),
        ("packed behind what is around", delta(true, &[literal(200)], run(Prefix::Around))),
    ]
}

fn repairs() -> Vec<(&'static str, Message)> {
    let made: Vec<u8> = (0..10_000u64).map(|at| (at * at % 251) as u8).collect();
    let sums = MendKey::new(&CLIENT, &SERVER, 1, 1).sums(&made, 4096);
    let ranges = Repair { made: made.len() as u64, range: 4096, sums };
    vec![
        ("of ranges", of(1, TransferMessage::Repair(ranges))),
        ("of everything", of(1, TransferMessage::Repair(Repair::ALL))),
    ]
}

fn pulls() -> Vec<(&'static str, Message)> {
    let filter = Filter::default();
    let part = filter.clone().exclude("*.o").and_then(|filter| filter.include("keep.o")).expect("valid");
    let pull = |path, algorithm, have| Pull { path, algorithm, have, scope: filter.clone().into() };
    let of_part = Pull { scope: part.into(), ..pull(path(b"tree"), Algorithm::Blake3, None) };
    let scope = Scope { headers_only: true, ..Scope::default() };
    let of_list = Pull { scope, ..pull(path(b"tree"), Algorithm::Blake3, None) };
    let of_file = pull(path(b"dir/file"), Algorithm::Blake3, None);
    let of_there = pull(path(b"\xff"), Algorithm::Sha256, Some((digest(0), ByteLen::new(10_000))));
    vec![
        ("of a file that the receiver has not", of(1, TransferMessage::Pull(of_file))),
        ("of one that it has", of(1, TransferMessage::Pull(of_there))),
        ("of a tree, but for a part of it", of(1, TransferMessage::Pull(of_part))),
        ("of the list of a tree alone", of(1, TransferMessage::Pull(of_list))),
    ]
}

fn version_300() -> Version {
    Version { generation: Generation::new(300), root: digest(0) }
}

fn refusals(version: u8) -> Vec<(&'static str, Message)> {
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
        ("conflict", RefusalCode::Conflict),
        ("damaged", RefusalCode::Damaged),
        ("there already", RefusalCode::Exists),
        ("not empty", RefusalCode::NotEmpty),
    ];
    let codes = &codes[..if version < 3 { 10 } else { 14 }];
    let refused = |code, message: String, current| of(1, TransferMessage::Refused(Refusal { code, message, current }));
    let mut cases: Vec<_> =
        codes.iter().map(|(name, code)| (*name, refused(*code, format!("it is {name}"), None))).collect();
    let current = Some(version_300());
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

fn path(path: &[u8]) -> RelPath {
    RelPath::new(path).expect("a path")
}

fn name(name: &str) -> Name {
    Name::new(name.as_bytes()).expect("a name")
}

fn of(transfer: u32, message: TransferMessage) -> Message {
    Message::Transfer(TransferId::new(transfer), message)
}
