//! A session of 256 transfers that all hold as much as they can stays within its budget.
//!
//! Measured from outside, as the most memory the process has ever had, so that what the packer's own library allocates
//! counts too.

use std::fs;
use std::sync::Mutex;

use bytes::Bytes;
use deltasync_core::{Algorithm, ByteLen, ChunkList, Cutter, Digest, Elements, Op, Ops, RelPath, TagKey};
use deltasync_proto::{
    Config, Content, Delta, Event, EventKind, Filter, Literals, Message, MessageKind, Offer, Pull, SetPart,
    TransferError, TransferId, TransferMessage, Want, Wish,
};
use deltasync_testkit::{Due, Raw, Rng, file};

/// The budget of the session under test, in bytes.
const BUDGET: u64 = 64 << 20;
/// What the session may take beside its budget: buffers of the connection, and what it keeps of each transfer.
const BESIDE: u64 = 16 << 20;
const TRANSFERS: u32 = 256;

/// The tests take turns, since what is measured is of the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// A field of /proc/self/status, in bytes.
fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with(field)).expect("it is there");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

/// How much more than before the process had at most during `work`; what `work` yields is dropped only afterwards.
fn peak<T>(work: impl FnOnce() -> T) -> u64 {
    // Forgets the earlier maximum.
    fs::write("/proc/self/clear_refs", "5").expect("Linux forgets");
    let before = status("VmRSS");
    let result = work();
    let most = status("VmHWM") - before;
    drop(result);
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

#[test]
fn a_hostile_session_stays_within_its_budget() {
    let _turn = TURN.lock();
    let basis_held: fn(&Due) -> bool = |due| due.name() == "Basis";
    let len = 64 << 20;
    let mut rows = Vec::new();
    let mut row = |name: &str, most: u64| {
        println!("| {name} | {:.1} MiB |", most as f64 / f64::from(1 << 20));
        rows.push((name.to_owned(), most));
    };

    // Literals that wait for a storage that does not answer.
    let noise = Rng::new(1).bytes(200 << 10);
    let most = peak(|| {
        let mut raw = server(BUDGET, &[], basis_held);
        (1..=TRANSFERS).for_each(|id| {
            raw.say(id, offer(len, Content::Whole));
        });
        fill(&mut raw, 1, |id, _| encoded(id, delta(&[Op::Literal { len: ByteLen::of(&noise) }], &noise)));
        assert!(refused(raw.events()) > 100, "{}", refused(raw.events()));
        raw
    });
    row("literals of 256 pushes before their basis is open", most);

    // Few bytes that are many operations.
    let ops = [Op::Copy { from: deltasync_core::Offset::ZERO, len: ByteLen::new(1) }; 32_000];
    let most = peak(|| {
        let mut raw = server(BUDGET, &[], basis_held);
        (1..=TRANSFERS).for_each(|id| {
            raw.say(id, offer(len, Content::Whole));
        });
        let body = Message::Transfer(TransferId::new(1), delta(&ops, b"")).encode_for(true);
        let payload = [&body.head[body.head.len() + body.tail.len() - body.payload..], &body.tail].concat();
        fill(&mut raw, 1, |id, _| {
            let mut frame = Vec::new();
            deltasync_proto::encode_header(&mut frame, MessageKind::Delta.code(), TransferId::new(id), payload.len());
            frame.extend_from_slice(&payload);
            frame
        });
        raw
    });
    row("operations of 256 pushes, packed 1:1000", most);

    // Many tiny parts, each between bytes that are not kept.
    let pongs = Message::Pong.encode().head.repeat(40_000);
    let most = peak(|| {
        let mut raw = server(BUDGET, &[], basis_held);
        (1..=TRANSFERS).for_each(|id| {
            raw.say(id, offer(len, Content::Set { elements: 100_000 }));
        });
        for round in 0..8u32 {
            for id in 1..=TRANSFERS {
                let part = SetPart { start: round, count: 1, bytes: vec![1; 8].into() };
                raw.feed([&pongs[..], &encoded(id, TransferMessage::Tags(part))].concat());
            }
        }
        assert!(raw.finished().is_none(), "{:?}", raw.finished());
        raw
    });
    row("tiny parts of 256 pushes, 120 kB of pongs between", most);

    // Lists of tags that never end.
    let theirs = {
        let list = ChunkList::of(&Rng::new(4).bytes(24 << 20), Cutter::MinCdc { average: 1024 }, Algorithm::Blake3);
        Elements::of(&list, &TagKey::new(&[7; 16], 1))
    };
    let elements = theirs.len() as u32;
    assert!(elements > 20_000, "{elements}");
    let most = peak(|| {
        let mut raw = server(BUDGET, &[("file", Bytes::from_static(b"basis"))], |_| false);
        (1..=TRANSFERS).for_each(|id| drop(raw.say(id, offer(len, Content::Set { elements })).take()));
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
    });
    row("tags of 256 sets of 24,000", most);

    // Pulls that are never read: pieces, packers and what stands before them.
    let text: Bytes = {
        let words = Rng::new(2).bytes(1 << 20);
        words.iter().map(|byte| b"etaoinsh rdlucmf"[usize::from(byte % 16)]).collect()
    };
    let files = [("file", text.clone())];
    for (name, have) in [("new", None), ("known", Some((Digest::default(), ByteLen::new(3))))] {
        let most = peak(|| {
            let mut raw = server(BUDGET, &files, |_| false);
            for id in 1..=TRANSFERS {
                raw.say(
                    id,
                    TransferMessage::Pull(Pull {
                        path: file(),
                        algorithm: Algorithm::Blake3,
                        have,
                        filter: Filter::default(),
                    }),
                );
                let offered = |message: &Message| matches!(message, Message::Transfer(_, TransferMessage::Offer(_)));
                if have.is_some() && raw.messages().iter().any(offered) {
                    raw.say(id, TransferMessage::Want(Want::All));
                }
                raw.take();
            }
            assert!(raw.finished().is_none(), "{:?}", raw.finished());
            raw
        });
        row(&format!("256 pulls of {name} 1 MiB of text that nobody takes"), most);
    }

    // Surveys that never end.
    let most = peak(|| {
        let mut raw = server(BUDGET, &files, |_| false);
        for id in 1..=TRANSFERS {
            let have = Some((Digest::default(), ByteLen::new(3)));
            raw.say(
                id,
                TransferMessage::Pull(Pull {
                    path: file(),
                    algorithm: Algorithm::Blake3,
                    have,
                    filter: Filter::default(),
                }),
            );
            let offered = |message: &Message| matches!(message, Message::Transfer(_, TransferMessage::Offer(_)));
            let offered = raw.messages().iter().any(offered);
            for _ in 0..20 {
                if offered && raw.ended(id).is_none() {
                    raw.say(id, TransferMessage::Want(Want::Survey { last: false, bytes: vec![0; 500_000].into() }));
                }
            }
            raw.take();
        }
        raw
    });
    row("surveys of 256 pulls that never end", most);

    // Parts that wait for the basis: some of them large, or as many tiny ones as there is credit for.
    let parts: [(&str, OfPart, usize, usize); 3] = [
        ("large parts of tags", TransferMessage::Tags, 60_000, 1),
        ("large parts of cells", TransferMessage::Cells, 60_000, 1),
        ("tiny parts", TransferMessage::Tags, 1, 5_000),
    ];
    for (name, message, part_len, times) in parts {
        let most = peak(|| {
            let mut raw = server(BUDGET, &[], basis_held);
            (1..=TRANSFERS).for_each(|id| {
                raw.say(id, offer(len, Content::Set { elements: 100_000 }));
            });
            let part = SetPart { start: 0, count: 1, bytes: vec![1; part_len].into() };
            fill(&mut raw, times, |id, _| encoded(id, message(part.clone())));
            assert!(refused(raw.events()) > 100, "{name}: {}", refused(raw.events()));
            raw
        });
        row(&format!("{name} of 256 pushes before their basis is open"), most);
    }

    for (name, most) in rows {
        assert!(most <= BUDGET + BESIDE, "{name}: {most} bytes");
    }
}

#[test]
fn transfers_that_wait_for_memory_all_get_their_turn() {
    let _turn = TURN.lock();
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
            TransferMessage::Pull(Pull { path, algorithm: Algorithm::Blake3, have: None, filter: Filter::default() }),
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
