//! A session of 256 transfers that all hold as much as they can stays within its budget.
//!
//! Measured from outside, as the most memory the process has ever had, so that what the packer's own library allocates
//! counts too. Each scenario has a process of its own, since what an earlier one has given back would not be counted again.

use std::collections::BTreeSet;
use std::process::Command;
use std::thread;
use std::{env, fs};

use bytes::Bytes;
use deltasync_core::{
    Algorithm, ByteLen, ChunkList, Cutter, Digest, Elements, FineShape, OldContent, OldPiece, Op, Ops, RelPath, Shared,
    Survey, TagKey,
};
use deltasync_proto::{
    Config, Content, Delta, Event, EventKind, Literals, Message, MessageKind, Offer, Pull, Scope, SetPart,
    TransferError, TransferId, TransferMessage, Want, Wish,
};
use deltasync_testkit::{Due, Raw, Rng, file};

/// The budget of the session under test, in bytes.
const BUDGET: u64 = 64 << 20;
/// What the session may take beside its budget: buffers of the connection, and what it keeps of each transfer.
const BESIDE: u64 = 16 << 20;
const TRANSFERS: u32 = 256;

/// Names to a process of this test the scenario that it is for.
const SCENARIO: &str = "DELTASYNC_BUDGET_SCENARIO";

/// A field of /proc/self/status, in bytes.
fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with(field)).expect("it is there");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

/// How much more than before the process had at most until a session stands as `scenario` leaves it.
fn peak(scenario: fn() -> Raw) -> u64 {
    // Forgets the earlier maximum.
    fs::write("/proc/self/clear_refs", "5").expect("Linux forgets");
    let before = status("VmRSS");
    let raw = scenario();
    let most = status("VmHWM") - before;
    drop(raw);
    most
}

fn server(memory: u64, files: &[(&str, Bytes)], hold: fn(&Due) -> bool) -> Raw {
    let mut raw = Raw::server(Config::default().memory(memory)).hold(hold);
    for (path, bytes) in files {
        raw = raw.file(path, bytes.clone());
    }
    raw.greet();
    raw
}

fn offer(len: u64, content: Content) -> TransferMessage {
    let list = ChunkList::of(b"nothing", Cutter::for_len(ByteLen::new(len)), Algorithm::Blake3);
    TransferMessage::Offer(Offer {
        to: Some(Wish::exactly(file())),
        len: ByteLen::new(len),
        root: list.root(),
        algorithm: list.algorithm(),
        cutter: list.cutter(),
        attempt: 0,
        content,
    })
}

fn encoded(id: u32, message: TransferMessage) -> Vec<u8> {
    let frame = Message::Transfer(TransferId::new(id), message).encode_for(true);
    [&frame.head[..], &frame.tail].concat()
}

/// Sends to each transfer frames made by `frame`, each so many times at once, until its credit is used up, it has ended, or
/// 4,000 were made.
fn fill(raw: &mut Raw, times: usize, frame: impl Fn(u32, u32) -> Vec<u8>) {
    for id in 1..=TRANSFERS {
        let mut left = 1i64 << 20;
        for i in 0..4000 {
            let bytes = frame(id, i);
            left -= (times * (bytes.len() + 64)) as i64;
            if left < 0 || raw.ended(id).is_some() {
                break;
            }
            raw.feed(bytes.repeat(times));
        }
        assert!(raw.finished().is_none(), "{:?}", raw.finished());
    }
    raw.take();
}

fn refused(events: &[Event]) -> usize {
    let memory = |event: &&Event| matches!(event.kind, EventKind::Ended(Err(TransferError::Memory { .. })));
    events.iter().filter(memory).count()
}

fn delta(ops: &[Op], literals: &[u8]) -> TransferMessage {
    let ops: Ops = ops.iter().copied().collect();
    TransferMessage::Delta(Delta { last: false, ops, literals: Literals::Raw(Bytes::copy_from_slice(literals)) })
}

/// The message of a part of a set.
type OfPart = fn(SetPart) -> TransferMessage;

const LEN: u64 = 64 << 20;

fn basis_held(due: &Due) -> bool {
    due.name() == "Basis"
}

type Scenario = (&'static str, fn() -> Raw);

const SCENARIOS: [Scenario; 11] = [
    ("literals of 256 pushes before their basis is open", literals),
    ("operations of 256 pushes, packed 1:1000", operations),
    ("tiny parts of 256 pushes, 120 kB of pongs between", parts_between_pongs),
    ("tags of 256 sets of 24,000", sets),
    ("256 pulls of new 1 MiB of text that nobody takes", || pulls(None)),
    ("256 pulls of known 1 MiB of text that nobody takes", || pulls(OTHER)),
    ("surveys of 256 pulls that never end", surveys),
    ("surveys of 256 pulls, of as many pieces and sums of few bits as there may be", costly_surveys),
    ("large parts of tags of 256 pushes before their basis is open", || parts(TransferMessage::Tags, 60_000, 1)),
    ("large parts of cells of 256 pushes before their basis is open", || parts(TransferMessage::Cells, 60_000, 1)),
    ("tiny parts of 256 pushes before their basis is open", || parts(TransferMessage::Tags, 1, 5_000)),
];

/// The nonce of the hello that [`Raw::greet`] sends.
const NONCE: [u8; 16] = [7; 16];

/// What a peer says it has that has something else.
const OTHER: Option<(Digest, ByteLen)> = Some((Digest::from_bytes([0; 32]), ByteLen::new(3)));

/// A session in which 256 pushes were offered whose basis is not open yet.
fn offered(content: Content) -> Raw {
    let mut raw = server(BUDGET, &[], basis_held);
    (1..=TRANSFERS).for_each(|id| {
        raw.say(id, offer(LEN, content));
    });
    raw
}

/// Literals that wait for a storage that does not answer.
fn literals() -> Raw {
    let noise = Rng::new(1).bytes(200 << 10);
    let mut raw = offered(Content::Whole);
    fill(&mut raw, 1, |id, _| encoded(id, delta(&[Op::Literal { len: ByteLen::of(&noise) }], &noise)));
    assert!(refused(raw.events()) > 100, "{}", refused(raw.events()));
    raw
}

/// Few bytes that are many operations.
fn operations() -> Raw {
    let ops = [Op::Copy { from: deltasync_core::Offset::ZERO, len: ByteLen::new(1) }; 32_000];
    let mut raw = offered(Content::Whole);
    let body = Message::Transfer(TransferId::new(1), delta(&ops, b"")).encode_for(true);
    let payload = [&body.head[body.head.len() + body.tail.len() - body.payload..], &body.tail].concat();
    fill(&mut raw, 1, |id, _| {
        let mut frame = Vec::new();
        deltasync_proto::encode_header(&mut frame, MessageKind::Delta.code(), TransferId::new(id), payload.len());
        frame.extend_from_slice(&payload);
        frame
    });
    raw
}

/// Many tiny parts, each between bytes that are not kept.
fn parts_between_pongs() -> Raw {
    let pongs = Message::Pong.encode().head.repeat(40_000);
    let mut raw = offered(Content::Set { elements: 100_000 });
    for round in 0..8u32 {
        for id in 1..=TRANSFERS {
            let part = SetPart { start: round, count: 1, bytes: vec![1; 8].into() };
            raw.feed([&pongs[..], &encoded(id, TransferMessage::Tags(part))].concat());
        }
    }
    assert!(raw.finished().is_none(), "{:?}", raw.finished());
    raw
}

/// Lists of tags that never end.
fn sets() -> Raw {
    let theirs = {
        let list = ChunkList::of(&Rng::new(4).bytes(24 << 20), Cutter::MinCdc { average: 1024 }, Algorithm::Blake3);
        Elements::of(&list, &TagKey::new(&[7; 16], 1))
    };
    let elements = theirs.len() as u32;
    assert!(elements > 20_000, "{elements}");
    let mut raw = server(BUDGET, &[("file", Bytes::from_static(b"basis"))], |_| false);
    (1..=TRANSFERS).for_each(|id| drop(raw.say(id, offer(LEN, Content::Set { elements })).take()));
    for start in (0..elements - 5_000).step_by(5_000) {
        let mut bytes = Vec::new();
        theirs.encode(start as usize..start as usize + 5_000, &mut bytes);
        let part = SetPart { start, count: 5_000, bytes: bytes.into() };
        for id in (1..=TRANSFERS).filter(|id| raw.ended(*id).is_none()).collect::<Vec<_>>() {
            raw.say(id, TransferMessage::Tags(part.clone()));
        }
        raw.take();
    }
    assert!(raw.finished().is_none(), "{:?}", raw.finished());
    assert!(refused(raw.events()) > 0);
    raw
}

/// A MiB of text.
fn text() -> Bytes {
    let words = Rng::new(2).bytes(1 << 20);
    words.iter().map(|byte| b"etaoinsh rdlucmf"[usize::from(byte % 16)]).collect()
}

/// A server that has it.
fn server_with_text() -> Raw {
    server(BUDGET, &[("file", text())], |_| false)
}

/// Begins a pull of it; true when it was offered at once.
fn pull(raw: &mut Raw, id: u32, have: Option<(Digest, ByteLen)>) -> bool {
    raw.say(
        id,
        TransferMessage::Pull(Pull { path: file(), algorithm: Algorithm::Blake3, have, scope: Scope::default() }),
    );
    let offered = |message: &Message| matches!(message, Message::Transfer(_, TransferMessage::Offer(_)));
    raw.messages().iter().any(offered)
}

/// Pulls that are never read: pieces, packers and what stands before them.
fn pulls(have: Option<(Digest, ByteLen)>) -> Raw {
    let mut raw = server_with_text();
    for id in 1..=TRANSFERS {
        if pull(&mut raw, id, have) && have.is_some() {
            raw.say(id, TransferMessage::Want(Want::All));
        }
        raw.take();
    }
    assert!(raw.finished().is_none(), "{:?}", raw.finished());
    raw
}

/// Surveys that never end.
fn surveys() -> Raw {
    let mut raw = server_with_text();
    for id in 1..=TRANSFERS {
        let offered = pull(&mut raw, id, OTHER);
        for _ in 0..20 {
            if offered && raw.ended(id).is_none() {
                raw.say(id, TransferMessage::Want(Want::Survey { last: false, bytes: vec![0; 500_000].into() }));
            }
        }
        raw.take();
    }
    raw
}

/// Surveys of few bytes that take much to use, and are used until what comes of them is read, which nobody does.
fn costly_surveys() -> Raw {
    let mut raw = server_with_text();
    (1..=TRANSFERS).filter(|id| pull(&mut raw, *id, OTHER)).collect::<Vec<_>>().into_iter().for_each(|id| {
        raw.say(id, costly_survey(id)).take();
        assert!(raw.finished().is_none(), "{:?}", raw.finished());
    });
    raw
}

/// A survey for a sender of the text, as costly as can be: all but one element is missing.
fn costly_survey(id: u32) -> TransferMessage {
    let list = ChunkList::of(&text(), Cutter::for_len(ByteLen::new(1 << 20)), Algorithm::Blake3);
    let elements = Elements::of(&list, &TagKey::new(&NONCE, 1)).len() as u64;
    let (most, sums) = (Survey::pieces_max(elements), Survey::sums_max(elements));
    let shape = FineShape::new(16, 2).expect("a shape");
    let each = (sums + most) / most;
    let key = TagKey::new(&NONCE, id);
    let elements = Elements::of(&list, &key);
    let missing: Vec<u32> = (1..elements.len() as u32).collect();
    let shared = Shared::all_but_ranks(&elements, &missing);
    let common: u64 = shared.runs().iter().map(|run| list.runs()[*run as usize].bytes().get()).sum();
    let piece = OldPiece { before: 0, content: OldContent::Summed(ByteLen::new(16 * each)) };
    let survey = Survey {
        basis: ByteLen::new(common + 16 * each * most),
        order: shared.order(&elements, &key),
        missing,
        pieces: vec![piece; most as usize],
        shape: Some(shape),
        sums: (0..each * most).map(|i| i.wrapping_mul(0x9e37_79b9) >> 7 & 3).collect(),
        edges: None,
    };
    let mut bytes = Vec::new();
    survey.encode(elements.len() as u64, &mut bytes);
    assert!(bytes.len() < 200_000, "{}", bytes.len());
    TransferMessage::Want(Want::Survey { last: true, bytes: bytes.into() })
}

/// Parts that wait for the basis: some of them large, or as many tiny ones as there is credit for.
fn parts(message: OfPart, part_len: usize, times: usize) -> Raw {
    let mut raw = offered(Content::Set { elements: 100_000 });
    let part = SetPart { start: 0, count: 1, bytes: vec![1; part_len].into() };
    fill(&mut raw, times, |id, _| encoded(id, message(part.clone())));
    assert!(refused(raw.events()) > 100, "{}", refused(raw.events()));
    raw
}

#[test]
fn a_hostile_session_stays_within_its_budget() {
    const NAME: &str = "a_hostile_session_stays_within_its_budget";
    if let Ok(scenario) = env::var(SCENARIO) {
        let (name, scenario) = SCENARIOS[scenario.parse::<usize>().expect("its index")];
        let most = peak(scenario);
        println!("| {name} | {:.1} MiB |", most as f64 / f64::from(1 << 20));
        assert!(most <= BUDGET + BESIDE, "{name}: {most} bytes");
        return;
    }
    let run = |index: usize| {
        let mut own = Command::new(env::current_exe().expect("it runs"));
        let ran = own.args(["--exact", NAME, "--nocapture"]).env(SCENARIO, index.to_string()).output();
        let ran = ran.expect("it runs again");
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
        let row = said.lines().find_map(|line| line.find('|').map(|at| line[at..].to_owned()));
        row.expect("the scenario has run")
    };
    // Each is a process of its own, so that two can be measured at once.
    let halves = [0, 1].map(|first| (first..SCENARIOS.len()).step_by(2));
    let rows = thread::scope(|scope| {
        let threads = halves.map(|half| scope.spawn(move || half.map(run).collect::<Vec<_>>()));
        threads.map(|thread| thread.join().expect("each stays within its budget"))
    });
    rows.concat().iter().for_each(|row| println!("{row}"));
}

/// To how many of 20 transfers something of this kind is said, while nothing of it is read.
fn at_once(raw: &mut Raw, is_answer: fn(&TransferMessage) -> bool, begin: impl Fn(&mut Raw, u32)) -> usize {
    let mut answered = BTreeSet::new();
    for id in 1..=20 {
        begin(raw, id);
        for message in raw.messages() {
            if let Message::Transfer(id, message) = message
                && is_answer(&message)
            {
                answered.insert(id);
            }
        }
    }
    assert!(raw.finished().is_none(), "{:?}", raw.finished());
    answered.len()
}

#[test]
fn no_more_transfers_work_at_once_than_have_room() {
    let text = text();
    let server = |mib: u64, level| {
        let config = Config::default().memory(mib << 21).level(level);
        let mut raw = Raw::server(config).file("file", text.clone());
        raw.greet();
        raw
    };
    let is_delta = |message: &TransferMessage| matches!(message, TransferMessage::Delta(_));
    let is_said = |message: &TransferMessage| matches!(message, TransferMessage::Want(_) | TransferMessage::More(_));
    // Sender: a packer takes 42 MiB for so much, and all but that is what the target is read, packed and searched in.
    for (mib, level, most) in [(4, 3, 1), (100, 3, 2), (150, 3, 3), (4, 0, 1), (32, 0, 10)] {
        let pull = Pull { path: file(), algorithm: Algorithm::Blake3, have: None, scope: Scope::default() };
        let begin = |raw: &mut Raw, id| {
            raw.say(id, TransferMessage::Pull(pull.clone()));
        };
        assert_eq!(at_once(&mut server(mib, level), is_delta, begin), most, "{mib} MiB, level {level}");
    }
    // The same with surveys of as many pieces and sums as there may be.
    for (mib, most) in [(32, 1), (64, 3)] {
        let begin = |raw: &mut Raw, id| {
            if pull(raw, id, OTHER) {
                raw.say(id, costly_survey(id));
            }
        };
        assert_eq!(at_once(&mut server(mib, 0), is_delta, begin), most, "{mib} MiB");
    }
    // Receiver: the unpacker with its prefix, operations, literals, what is summed.
    let list = ChunkList::of(&text, Cutter::for_len(ByteLen::of(&text)), Algorithm::Blake3);
    for (mib, most) in [(16, 1), (64, 4)] {
        let begin = |raw: &mut Raw, id| {
            let elements = Elements::of(&list, &TagKey::new(&NONCE, id));
            let mut bytes = Vec::new();
            elements.encode(1..elements.len(), &mut bytes);
            let content = Content::Set { elements: elements.len() as u32 - 1 };
            raw.say(id, offer(1 << 20, content));
            let count = elements.len() as u32 - 1;
            raw.say(id, TransferMessage::Tags(SetPart { start: 0, count, bytes: bytes.into() }));
        };
        assert_eq!(at_once(&mut server(mib, 0), is_said, begin), most, "{mib} MiB");
    }
}

#[test]
fn transfers_that_wait_for_memory_all_get_their_turn() {
    // Each needs most of the half, so they run one by one.
    let names: Vec<String> = (0..20).map(|n| format!("file{n}")).collect();
    let mut raw = Raw::server(Config::default().memory(8 << 20));
    for (seed, name) in (0..).zip(&names) {
        raw = raw.file(name, Rng::new(seed).bytes(1 << 20));
    }
    raw.greet();
    for (id, name) in (1..).zip(&names) {
        let path = RelPath::new(name.as_bytes()).expect("a plain name");
        raw.say(
            id,
            TransferMessage::Pull(Pull { path, algorithm: Algorithm::Blake3, have: None, scope: Scope::default() }),
        );
    }
    let mut done = Vec::new();
    for _ in 0..40 {
        for message in raw.messages() {
            if let Message::Transfer(id, TransferMessage::Delta(delta)) = message {
                raw.say(id.get(), TransferMessage::Credit(1 << 20));
                if delta.last {
                    raw.say(id.get(), TransferMessage::Done(deltasync_core::Generation::new(1)));
                    done.push(id.get());
                }
            }
        }
    }
    done.sort_unstable();
    assert_eq!(done, (1..=20).collect::<Vec<_>>());
    assert_eq!(raw.events().iter().filter(|event| matches!(event.kind, EventKind::Ended(Ok(_)))).count(), 20);
}
