//! What the worst messages cost: each is refused, or does no harm, in under 100 ms of processor time and 16 MiB.
//!
//! The time is that of the thread, so a busy machine does not count. Printed as a table with `--nocapture`.

use rustix::time::{ClockId, clock_gettime};

use super::counting::peak;
use super::*;

const TIME_MAX: Duration = Duration::from_millis(100);
const MEMORY_MAX: usize = 16 << 20;

/// Any name that stands in the table, the time and the memory of its worst run, and how many runs there were.
struct Row {
    name: &'static str,
    time: Duration,
    memory: usize,
    runs: u32,
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self { name, time: Duration::ZERO, memory: 0, runs: 0 }
    }

    /// Runs one attack on a session that stands ready, and yields it.
    #[track_caller]
    fn attack(&mut self, mut raw: Raw, attack: impl FnOnce(&mut Raw)) -> Raw {
        let begin = thread_time();
        let ((), memory) = peak(|| attack(&mut raw));
        let time = thread_time() - begin;
        assert!(time < TIME_MAX && memory < MEMORY_MAX, "{}: {time:?}, {memory} bytes", self.name);
        assert_eq!(raw.content("file").as_deref(), Some(&basis()[..]), "nothing has changed");
        (self.time, self.memory, self.runs) = (self.time.max(time), self.memory.max(memory), self.runs + 1);
        raw
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let (name, time, kib, runs) = (self.name, self.time, self.memory >> 10, self.runs);
        println!("| {name} | {runs} | {:.1} ms | {kib} KiB |", time.as_secs_f64() * 1000.0);
    }
}

pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[track_caller]
fn check_over(raw: &Raw, what: &str) {
    let over = raw.finished().is_some() || matches!(raw.ended(1), Some(Err(_)));
    assert!(over, "{what} is taken: {:?}", raw.events());
}

/// A session in each of the states in which it takes most messages.
fn states() -> Vec<fn() -> Raw> {
    fn held(name: fn(&Due) -> bool, content: Content) -> Raw {
        let mut raw = server().hold(name);
        raw.say(1, offer(&target(), content));
        raw
    }
    vec![
        stranger,
        server,
        client,
        || client().command(1, push(file(), file())),
        || client().command(1, pull(file(), file())),
        offering,
        || held(|due| named(due, "Basis"), in_set(&target())),
        || held(|due| named(due, "Basis"), Content::Whole),
        || held(|_| false, in_set(&target())),
        || held(|_| false, Content::Whole),
        || {
            let mut raw = held(|_| false, in_set(&target()));
            raw.say(1, tags_of(&target()));
            raw
        },
        || {
            let mut raw = offering();
            raw.say(1, want_all());
            raw
        },
    ]
}

#[test]
fn any_kind_in_any_state() {
    let mut row = Row::new("every kind in every state");
    for state in states() {
        for kind in MessageKind::ALL.iter().copied() {
            let raw = state();
            let sample = order::sample(kind, !raw.is_client());
            row.attack(raw, |raw| {
                raw.send(&sample);
            });
        }
    }
}

/// The numbers to be tried wherever a length, a count or an offset can stand: the ends of every limit and of the types.
fn numbers() -> Vec<u64> {
    let limits = Limits::default();
    let most = [
        limits.file.get(),
        limits.chunks as u64,
        limits.ops as u64,
        limits.piece as u64,
        deltasync_proto::CONTROL_MAX as u64,
        4 << 20,
        Sketch::CELLS_MAX as u64,
        1 << 32,
        1 << 63,
    ];
    let around = most.into_iter().flat_map(|most| [most - 1, most, most + 1]);
    [0, 1, u64::MAX].into_iter().chain(around).collect()
}

#[test]
fn any_number_in_the_place_of_any_byte() {
    let mut row = Row::new("every length and count at 0, 1, each limit, one more");
    for state in states() {
        for kind in MessageKind::ALL.iter().copied() {
            let is_client = state().is_client();
            let encoded = order::sample(kind, !is_client).encode();
            let bytes = [&encoded.head[..], &encoded.tail].concat();
            let payload = &bytes[bytes.len() - encoded.payload..];
            let id = u32::from(!kind.is_connection());
            // What a message says of itself stands at its beginning; behind it are digests, tags and literals.
            for at in (0..payload.len().min(12)).chain((12..payload.len().min(90)).step_by(7)) {
                // The states that all kinds are sent to anyway need not see each number at each byte.
                for (i, number) in numbers().into_iter().enumerate() {
                    if (i + at) % 3 != 0 && at >= 12 {
                        continue;
                    }
                    let mut changed = payload[..at].to_vec();
                    write_varint(&mut changed, number);
                    changed.extend_from_slice(&payload[at + 1..]);
                    row.attack(state(), |raw| {
                        raw.frame(kind.code(), id, &changed);
                    });
                }
            }
        }
    }
}

#[test]
fn frames_of_every_announced_length() {
    let mut row = Row::new("every kind with a header that announces 0, 1, max, max + 1");
    for state in states() {
        for kind in MessageKind::ALL.iter().copied() {
            for len in numbers() {
                let mut header = vec![kind.code(), 1];
                write_varint(&mut header, len);
                let raw = row.attack(state(), |raw| {
                    raw.feed(header);
                });
                if len > 4 << 20 {
                    check_over(&raw, "a frame over the limit");
                }
            }
        }
    }
}

fn patching() -> Raw {
    let mut raw = server();
    raw.say(1, offer(&target(), in_set(&target()))).say(1, tags_of(&target()));
    raw
}

#[test]
fn bombs_of_literals_and_of_operations() {
    let mut row = Row::new("literals that unpack to 1000 times as much");
    let bomb = deltas::bomb();
    for raw_len in [0, 1, 12_000, 1 << 20] {
        for prefix in [Prefix::None, Prefix::Neighbours, Prefix::Replaced, Prefix::Around] {
            let message = deltas::packed(prefix, &bomb, raw_len);
            let raw = row.attack(patching(), |raw| {
                raw.say(1, message);
            });
            assert!(raw.finished().is_some() || raw.ended(1).is_none(), "nothing of it is published");
        }
    }
    let mut row = Row::new("a million operations, packed into a few hundred bytes each");
    let many: Vec<Op> = (0..32_000).map(|_| copy(0, 1)).collect();
    for content in [Content::Whole, in_set(&target())] {
        let mut raw = server().hold(|due| named(due, "Basis"));
        raw.say(1, offer(&target(), content));
        let frame = Message::Transfer(TransferId::new(1), raw_delta(false, &many, b"")).encode_for(true);
        let frame = [&frame.head[..], &frame.tail].concat();
        assert!(frame.len() < 2000, "{}", frame.len());
        raw = row.attack(raw, |raw| {
            raw.feed(frame.clone());
        });
        if content == Content::Whole {
            assert!(raw.finished().is_none(), "{:?}", raw.finished());
            // Of a thousand more none is held once the session holds what it may.
            row.attack(raw, |raw| {
                raw.feed(frame.repeat(5));
            });
            continue;
        }
        drop(raw);
    }
}

#[test]
fn a_delta_of_2_to_the_32_operations() {
    let mut row = Row::new("a delta that announces 2^32 operations");
    // Each pair is up to two operations. Packed, they announce how long they are besides.
    for pairs in [1u64 << 31, (1 << 31) - 1, (1 << 15) + 1, u64::MAX / 2] {
        for packed in [false, true] {
            let mut payload = vec![2];
            write_varint(&mut payload, 2 * pairs + u64::from(packed));
            if packed {
                [pairs.saturating_mul(30), 4096].into_iter().for_each(|len| write_varint(&mut payload, len));
            }
            payload.extend_from_slice(&[0x11; 4096]);
            let raw = row.attack(patching(), |raw| {
                raw.frame(MessageKind::Delta.code(), 1, &payload);
            });
            check_over(&raw, "2^32 operations");
        }
    }
}

#[test]
fn offsets_and_lengths_that_overflow() {
    let mut row = Row::new("copies whose offsets and lengths overflow");
    for from in [0, 9_999, 10_000, u64::MAX - 1, u64::MAX] {
        for len in [u64::MAX, u64::MAX - 1, 1 << 63, 12_001] {
            let raw = row.attack(patching(), |raw| {
                raw.say(1, raw_delta(true, &[copy(from, len)], b""));
            });
            check_over(&raw, "an overflow");
            let raw = row.attack(patching(), |raw| {
                raw.say(1, raw_delta(true, &[copy(0, 1), literal(1), copy(from, len)], b"x"));
            });
            check_over(&raw, "an overflow");
        }
    }
}

#[test]
fn sketches_that_do_not_peel() {
    let mut row = Row::new("60,000 cells that do not peel");
    for len in [3_000, 600_000, 3_000_000] {
        let theirs = elements_of(&Rng::new(5).bytes(len));
        for key in [SketchKey::new(&[9; 16], 1), SketchKey::of_edges(&NONCE, 1), SketchKey::new(&NONCE, 1)] {
            for announced in [theirs.len() as u32, 4 << 20] {
                let mut raw = server();
                raw.say(1, offer(&target(), Content::Set { elements: announced }));
                let cells = TransferMessage::Cells(cells(key, &theirs, 0..60_000));
                let mut raw = row.attack(raw, |raw| {
                    raw.say(1, cells);
                });
                let answers = raw.messages();
                let answered = |message: &Message| {
                    let Message::Transfer(_, message) = message else { return false };
                    matches!(message, TransferMessage::More(_) | TransferMessage::Want(_))
                };
                assert!(raw.finished().is_some() || answers.iter().any(answered), "{answers:?}");
            }
        }
    }
}

#[test]
fn as_many_equal_sums_as_there_may_be() {
    let mut row = Row::new("a survey of as many equal fine sums as there may be");
    let shape = FineShape::new(16, 8).expect("a shape");
    let most = Survey::sums_max(elements_of(&basis()).len() as u64);
    for sum in [0u64, 1, 0xff] {
        let len = ByteLen::new(most * 16);
        let pieces = vec![OldPiece { before: 0, content: OldContent::Summed(len) }];
        let survey = Survey {
            basis: len,
            missing: (0..elements_of(&basis()).len() as u32).collect(),
            pieces,
            shape: Some(shape),
            sums: vec![sum; most as usize],
            ..survey()
        };
        let raw = row.attack(offering(), |raw| {
            raw.say(1, surveys(&survey));
        });
        assert!(raw.finished().is_none(), "{:?}", raw.finished());
    }
}

#[test]
fn surveys_of_many_pieces_and_sums_of_few_bits() {
    let elements = elements_of(&basis()).len() as u64;
    let (most, sums) = (Survey::pieces_max(elements), Survey::sums_max(elements));
    let bytes = |len| OldContent::Bytes(ByteLen::new(len));
    let summed = |len| OldContent::Summed(ByteLen::new(len));
    let survey = |pieces: u64, content: OldContent, shape, sums: u64| Survey {
        basis: ByteLen::new(content.len().get() * pieces + 10_000),
        pieces: vec![OldPiece { before: 0, content }; pieces as usize],
        shape,
        sums: (0..sums).map(|i| i.wrapping_mul(0x9e37_79b9) >> 7 & 3).collect(),
        ..survey()
    };
    let shape = FineShape::new(16, 2).ok();
    let run = OldContent::Run { tag: Tag::from_bytes([9; 6]), len: 1, count: 1 };
    let mut row = Row::new("a survey of 500 KB of 800,000 pieces, or of one more than there may be");
    for survey in [
        survey(800_000, bytes(1), None, 0),
        survey(most + 1, bytes(1), None, 0),
        survey(most + 1, run, None, 0),
        survey(1, summed(16 * 2_000_000), shape, 2_000_000),
        survey(1, summed(16 * (sums + 2)), shape, sums + 2),
    ] {
        let message = surveys(&survey);
        let raw = row.attack(offering(), |raw| {
            raw.say(1, message);
        });
        check_over(&raw, "more than there may be");
    }
    let mut row = Row::new("a survey of as many pieces and sums of few bits as there may be");
    for survey in [
        survey(most, bytes(1), None, 0),
        survey(most, summed(1), shape, most),
        survey(most, run, None, 0),
        survey(1, summed(16 * (sums + 1)), shape, sums + 1),
        survey(most, summed(16 * ((sums + most) / most)), shape, (sums + most) / most * most),
    ] {
        let message = surveys(&survey);
        let raw = row.attack(offering(), |raw| {
            raw.say(1, message);
        });
        assert!(raw.finished().is_none(), "{:?}", raw.finished());
    }
}

#[test]
fn what_is_announced_and_not_sent_takes_no_memory() {
    let mut row = Row::new("cells, edges and operations that are announced and not sent");
    let cells = Sketch::CELLS_MAX as u64;
    for (kind, numbers) in [
        (MessageKind::Cells, &[0, cells][..]),
        (MessageKind::Tags, &[0, 4 << 20]),
        (MessageKind::Edges, &[cells, 0, cells]),
        (MessageKind::Order, &[100_000, 33]),
    ] {
        let mut payload = Vec::new();
        numbers.iter().for_each(|number| write_varint(&mut payload, *number));
        let mut comparing = server();
        comparing.say(1, offer(&target(), Content::Set { elements: 4 << 20 }));
        for raw in [comparing, client(), offering(), patching()] {
            row.attack(raw, |raw| {
                raw.frame(kind.code(), 1, &payload);
            });
        }
    }
    assert!(row.memory < 256 << 10, "{} bytes", row.memory);
}

#[test]
fn numbers_of_few_bits_as_many_as_a_frame_holds() {
    let mut row = Row::new("4 MiB of the shortest breaks, cells and tags");
    for state in [server, client, offering, patching] {
        for kind in [MessageKind::Order, MessageKind::Edges, MessageKind::Cells, MessageKind::Tags] {
            // Four breaks of no ends are a byte.
            for count in [100_000u64, 1 << 20, 4 << 20, (16 << 20) - 100] {
                let mut payload = Vec::new();
                match kind {
                    MessageKind::Order => {}
                    MessageKind::Edges => [count, 0].into_iter().for_each(|number| write_varint(&mut payload, number)),
                    _ => write_varint(&mut payload, 0),
                }
                write_varint(&mut payload, count);
                payload.push(1);
                payload.resize(payload.len() + count.div_ceil(4) as usize, 0);
                row.attack(state(), |raw| {
                    raw.frame(kind.code(), 1, &payload);
                });
            }
        }
    }
}

#[test]
fn floods_of_tiny_frames() {
    let mut row = Row::new("100,000 tiny frames");
    for kind in MessageKind::ALL.iter().copied() {
        for state in [server, offering, patching] {
            let frame = [kind.code(), u8::from(!kind.is_connection()), 0].repeat(10_000);
            row.attack(state(), |raw| {
                for _ in 0..10 {
                    if raw.wants_bytes() && raw.finished().is_none() {
                        raw.feed(frame.clone()).take();
                    }
                }
            });
        }
    }
}
