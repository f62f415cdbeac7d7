//! What a board says, told by stories and judged by plain sums.

use deltasync_core::{ByteLen, RelPath};
use deltasync_proto::{FaultKind, Phase, StorageFault};
use proptest::prelude::*;

use super::*;
use crate::Ended;

const PEER: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 5000));

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn board() -> Board {
    Board::new("1.2.3", "127.0.0.1:7440", 1_000_000)
}

fn event(transfer: u32, kind: EventKind) -> Event {
    Event { transfer: TransferId::new(transfer), kind }
}

fn started(transfer: u32, path: &[u8]) -> Event {
    event(transfer, EventKind::Started { verb: Verb::Push, path: RelPath::new(path).expect("a path") })
}

fn progress(total: u64, copied: u64, literal: u64) -> Progress {
    let len = ByteLen::new;
    Progress { total: len(total), copied: len(copied), literal: len(literal), wire: len(literal + 7) }
}

fn done(total: u64, literal: u64) -> EventKind {
    let progress = progress(total, total - literal, literal);
    EventKind::Ended(Ok(Outcome { len: ByteLen::new(total), progress, ..Outcome::default() }))
}

fn full() -> TransferError {
    TransferError::Storage(StorageFault::new(FaultKind::Full, "big.iso: no space left"))
}

const FINE: Result<(), &str> = Ok(());

#[test]
fn a_push_is_seen_from_its_start_to_the_history() {
    let mut board = board();
    let client = board.connected(at(0), PEER);
    board.event(at(1_000), client, started(1, b"docs/a.txt"));
    board.event(at(1_100), client, event(1, EventKind::Phase(Phase::Moving)));
    board.event(at(2_000), client, event(1, EventKind::Progress(progress(1000, 500, 10))));
    let state = board.snapshot(at(2_000));
    let [transfer] = &state.transfers[..] else { panic!("one transfer: {state:?}") };
    assert_eq!((transfer.path.as_str(), transfer.phase.as_str()), ("docs/a.txt", "moving"));
    assert_eq!((transfer.total, transfer.copied, transfer.literal, transfer.wire), (1000, 500, 10, 17));
    assert_eq!((transfer.started, transfer.rate, state.server.now), (1_001_000, 510, 1_002_000));
    assert_eq!((state.server.running, state.clients[0].running), (1, 1));

    board.event(at(3_500), client, event(1, done(1000, 20)));
    board.carried(at(3_600), client, Stats { wire_sent: 40, wire_received: 60, round_trips: 2 });
    board.disconnected(at(3_700), client, FINE);
    board.tick(at(4_000));
    let state = board.snapshot(at(4_000));
    let [ended] = &state.history[..] else { panic!("one ended: {state:?}") };
    assert_eq!((ended.result.as_str(), ended.duration, ended.total), ("done", 2_500, 1000));
    assert_eq!((ended.copied, ended.literal, ended.wire), (980, 20, 27));
    assert_eq!((state.totals.file_bytes, state.totals.copied, state.totals.literal), (1000, 980, 20));
    assert_eq!((state.totals.wire_sent, state.totals.wire_received, state.totals.round_trips), (40, 60, 2));
    assert_eq!((state.totals.sessions, state.totals.sessions_failed), (1, 0));
    assert_eq!((state.server.clients, state.server.running, state.totals.push.done), (0, 0, 1));
    assert_eq!(state.throughput.file, [0, 0, 510, 490]);
    assert_eq!(state.throughput.wire, [0, 0, 0, 100]);
    assert!(state.errors.is_empty());
}

#[test]
fn a_file_that_was_already_there_counts_as_reused() {
    let mut board = board();
    let client = board.connected(at(0), PEER);
    board.event(at(0), client, started(1, b"same"));
    let same = Outcome { len: ByteLen::new(500), ..Outcome::default() };
    board.event(at(10), client, event(1, EventKind::Ended(Ok(same))));
    let state = board.snapshot(at(10));
    assert_eq!((state.history[0].total, state.history[0].copied, state.history[0].literal), (500, 500, 0));
}

#[test]
fn failures_are_told_apart_from_cancellations() {
    let mut board = board();
    let client = board.connected(at(0), PEER);
    for (transfer, error) in [(1, full()), (2, TransferError::Cancelled), (3, TransferError::CancelledByPeer)] {
        board.event(at(0), client, started(transfer, b"big.iso"));
        board.event(at(5), client, event(transfer, EventKind::Ended(Err(error))));
    }
    let state = board.snapshot(at(5));
    assert_eq!(state.totals.push, Ended { done: 0, failed: 1, cancelled: 2 });
    let results: Vec<_> = state.history.iter().map(|ended| ended.result.as_str()).collect();
    assert_eq!(results, ["cancelled", "cancelled", "failed"]);
    let [error] = &state.errors[..] else { panic!("one error: {state:?}") };
    assert_eq!((error.verb.as_deref(), error.path.as_deref()), (Some("push"), Some("big.iso")));
    assert_eq!(error.message, "big.iso: no space left");
}

#[test]
fn a_lost_connection_fails_what_it_leaves_behind() {
    let mut board = board();
    let (one, other) = (board.connected(at(0), PEER), board.connected(at(0), PEER));
    board.event(at(0), one, started(1, b"a"));
    board.event(at(0), other, started(1, b"b"));
    board.disconnected(at(10), one, Err("connection reset"));
    let state = board.snapshot(at(10));
    assert_eq!((state.totals.push.failed, state.totals.sessions_failed), (1, 1));
    assert_eq!(state.transfers.len(), 1);
    assert_eq!(state.transfers[0].path, "b");
    assert_eq!(state.errors[0].message, "connection reset");
    assert_eq!(state.errors[0].verb, None);
}

#[test]
fn events_of_nobody_change_nothing() {
    let mut board = board();
    let gone = board.connected(at(0), PEER);
    board.disconnected(at(0), gone, FINE);
    let before = board.snapshot(at(0));
    board.event(at(0), gone, started(1, b"a"));
    board.event(at(0), gone, event(1, done(5, 5)));
    board.event(at(0), gone, event(9, EventKind::Progress(progress(1, 1, 0))));
    board.carried(at(0), gone, Stats { wire_sent: 9, ..Stats::default() });
    board.disconnected(at(0), gone, Err("again"));
    assert_eq!(board.snapshot(at(0)), before);
}

#[test]
fn a_hostile_name_stays_one_harmless_line_of_valid_json() {
    let mut board = board();
    let client = board.connected(at(0), PEER);
    let name = "<script>alert(1)</script>\"\\\n\r\u{202e}gpj\u{2028}\u{7}".as_bytes();
    board.event(at(0), client, started(1, name));
    board.event(at(0), client, started(2, &[0xff; 200]));
    board.event(at(1), client, event(1, EventKind::Ended(Err(full()))));
    let json = serde_json::to_string(&board.snapshot(at(1))).expect("plain data");
    assert!(!json.chars().any(|c| c.is_control() || matches!(c, '\u{202e}' | '\u{2028}')), "{json}");
    let back: State = serde_json::from_str(&json).expect("valid");
    assert!(back.history[0].path.starts_with("<script>alert(1)</script>\"\\"), "{}", back.history[0].path);
}

#[test]
fn memory_is_bounded_whatever_peers_do() {
    let mut board = board();
    let path = [b"\x01".repeat(255), b"\x02".repeat(255), b"\x03".repeat(255)].join(&b'/');
    for round in 0..3u64 {
        let client = board.connected(at(round), PEER);
        for transfer in 0..3_000 {
            board.event(at(round), client, started(transfer, &path));
        }
        if round == 0 {
            board.disconnected(at(round), client, Err("y".repeat(100_000)));
        }
    }
    let state = board.snapshot(at(10));
    assert_eq!((state.server.running, state.transfers.len()), (6_000, LISTED_MAX));
    assert_eq!((state.history.len(), state.errors.len()), (HISTORY_MAX, ERRORS_MAX));
    assert!(state.errors.iter().all(|error| error.message.len() <= MESSAGE_MAX));
    let kept: usize = board.running.values().map(|running| running.path.len()).sum();
    assert!(kept <= DETAILED * PATH_MAX + 6_000 * PATH_SHORT, "{kept}");
}

#[derive(Clone, Debug)]
enum Step {
    Start(u32),
    Progress(u32, u64, u64),
    Done(u32, u64, u64),
    Fail(u32),
    Carried(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        (0u32..6).prop_map(Step::Start),
        (0u32..6, 0u64..500, 0u64..500).prop_map(|(id, copied, literal)| Step::Progress(id, copied, literal)),
        (0u32..6, 0u64..500, 0u64..500).prop_map(|(id, copied, literal)| Step::Done(id, copied, literal)),
        (0u32..6).prop_map(Step::Fail),
        (0u64..100, 0u64..100).prop_map(|(sent, received)| Step::Carried(sent, received)),
    ];
    prop::collection::vec((0u64..700, step), 0..100)
}

/// Totals equal what a plain list of the same steps says.
fn check_totals(steps: &[(u64, Step)]) {
    let mut board = board();
    let client = board.connected(at(0), PEER);
    let (mut now, mut stats, mut open) = (0, Stats::default(), std::collections::BTreeSet::new());
    let (mut files, mut literals, mut ok, mut failed, mut begun) = (0, 0, 0, 0, 0);
    for (wait, step) in steps {
        now += wait;
        match *step {
            Step::Start(id) => {
                board.event(at(now), client, started(id, b"x"));
                begun += u64::from(open.insert(id));
            }
            Step::Progress(id, copied, literal) => {
                board.event(at(now), client, event(id, EventKind::Progress(progress(1000, copied, literal))));
            }
            Step::Done(id, copied, literal) => {
                board.event(at(now), client, event(id, done(copied + literal, literal)));
                if open.remove(&id) {
                    (ok, files, literals) = (ok + 1, files + copied + literal, literals + literal);
                }
            }
            Step::Fail(id) => {
                board.event(at(now), client, event(id, EventKind::Ended(Err(full()))));
                failed += u64::from(open.remove(&id));
            }
            Step::Carried(sent, received) => {
                stats.wire_sent += sent;
                stats.wire_received += received;
                board.carried(at(now), client, stats);
            }
        }
        let state = board.snapshot(at(now));
        assert_eq!(state.server.running, open.len() as u64);
        assert_eq!(state.totals.push.done + state.totals.push.failed + state.server.running, begun);
    }
    board.disconnected(at(now), client, FINE);
    board.tick(at(now + 1_000));
    let state = board.snapshot(at(now + 1_000));
    let Totals { file_bytes, copied, literal, wire_sent, wire_received, .. } = state.totals;
    assert_eq!((file_bytes, literal, copied), (files, literals, files - literals));
    assert_eq!((wire_sent, wire_received), (stats.wire_sent, stats.wire_received));
    assert_eq!((state.totals.push.done, state.totals.push.failed), (ok, failed + open.len() as u64));
    assert_eq!(state.throughput.wire.iter().sum::<u64>(), wire_sent + wire_received);
    assert!(state.throughput.file.iter().sum::<u64>() >= files);
    assert_eq!((state.server.clients, state.server.running, state.transfers.len()), (0, 0, 0));
    assert_eq!(state.totals.failures.storage + state.totals.failures.lost, state.totals.push.failed);
    assert_eq!((state.spread.push.seconds.count(), state.spread.push.file_bytes.sum), (ok, files as f64));
    let day = state.savings.day;
    assert_eq!((day.done, day.failed, day.wire), (ok, failed + open.len() as u64, wire_sent + wire_received));
    assert!(day.copied >= copied && day.file >= files);
    // The next server goes on from there.
    let mut next = Board::new("1.2.4", "127.0.0.1:7440", 1_000_000 + now + 1_000);
    next.restore(board.keep());
    let restored = next.snapshot(at(0));
    assert_eq!((restored.history, restored.errors, restored.savings.day), (state.history, state.errors, day));
    assert_eq!(restored.totals, Totals::default());
    let client = next.connected(at(0), PEER);
    next.event(at(0), client, started(1, b"x"));
    let ended = next.event(at(0), client, event(1, done(1, 1))).expect("it has ended");
    assert_eq!(ended.number, ok + failed + open.len() as u64 + 1);
}

proptest! {
    #[test]
    fn totals_are_the_sums_of_what_ended(steps in steps()) {
        check_totals(&steps);
    }
}
