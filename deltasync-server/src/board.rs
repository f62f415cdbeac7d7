//! The state of a running server: who is connected, what moves, what has ended and how, kept as plain data.
//!
//! Sessions feed it their events and counts, the dashboard and the metrics take snapshots. It knows no clock and no
//! socket: every call says what time it is, as a duration since the start. An event costs O(log n) of what runs; a
//! snapshot costs what it lists.
//!
//! Always true, whatever peers do: the totals are the sums over ended transfers and the last counts of all connections;
//! memory is bounded by the number of connections and running transfers, and paths are kept at their displayed length.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use deltasync_proto::{Event, EventKind, Outcome, Progress, Stats, TransferError, TransferId, Verb};

use crate::meter::Meter;
use crate::ring::Ring;
use crate::running::Running;
use crate::state::{ERRORS_MAX, FORMAT, HISTORY_MAX, LISTED_MAX};
use crate::text::{MESSAGE_MAX, PATH_MAX, visible};
use crate::{ClientState, EndedState, ErrorState, ServerState, State, Totals, TransferState};

/// A connection, by the order in which they came, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

/// How many running transfers keep the path at full length; of those above it, only the first bytes are kept.
const DETAILED: usize = 4096;
/// How many bytes that is.
const PATH_SHORT: usize = 48;

/// The state of a running server.
#[derive(Debug)]
pub struct Board {
    version: String,
    listen: String,
    /// The start, in milliseconds since 1970.
    started: u64,
    finishing: bool,
    last_client: u64,
    clients: BTreeMap<ClientId, Client>,
    running: BTreeMap<(ClientId, TransferId), Running>,
    history: Ring<EndedState>,
    last_ended: u64,
    errors: Ring<ErrorState>,
    last_error: u64,
    totals: Totals,
    meter: Meter,
}

#[derive(Debug)]
struct Client {
    peer: SocketAddr,
    since: Duration,
    stats: Stats,
    running: u64,
}

impl Board {
    /// The state of a server that starts now: `started` is in milliseconds since 1970, `listen` is where clients connect.
    pub fn new(version: &str, listen: &str, started: u64) -> Self {
        Self {
            version: version.to_owned(),
            listen: listen.to_owned(),
            started,
            finishing: false,
            last_client: 0,
            clients: BTreeMap::new(),
            running: BTreeMap::new(),
            history: Ring::new(HISTORY_MAX),
            last_ended: 0,
            errors: Ring::new(ERRORS_MAX),
            last_error: 0,
            totals: Totals::default(),
            meter: Meter::default(),
        }
    }

    /// A client has connected.
    pub fn connected(&mut self, now: Duration, peer: SocketAddr) -> ClientId {
        self.last_client += 1;
        self.totals.sessions += 1;
        let id = ClientId(self.last_client);
        self.clients.insert(id, Client { peer, since: now, stats: Stats::default(), running: 0 });
        id
    }

    /// A client was turned away because there are too many.
    pub fn refused(&mut self) {
        self.totals.sessions_refused += 1;
    }

    /// The server takes no more transfers.
    pub fn finishing(&mut self) {
        self.finishing = true;
    }

    /// What a connection has carried so far.
    pub fn carried(&mut self, now: Duration, id: ClientId, stats: Stats) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let sent = stats.wire_sent.saturating_sub(client.stats.wire_sent);
        let received = stats.wire_received.saturating_sub(client.stats.wire_received);
        let trips = stats.round_trips.saturating_sub(client.stats.round_trips);
        client.stats = stats;
        add(&mut self.totals.wire_sent, sent);
        add(&mut self.totals.wire_received, received);
        add(&mut self.totals.round_trips, u64::from(trips));
        self.meter.add(now, 0, sent.saturating_add(received));
    }

    /// Something happened to a transfer of a connection; comes back with the whole story when that was its end.
    pub fn event(&mut self, now: Duration, id: ClientId, event: Event) -> Option<EndedState> {
        let key = (id, event.transfer);
        match event.kind {
            EventKind::Started { verb, path } => {
                let client = self.clients.get_mut(&id)?;
                let most = if self.running.len() < DETAILED { PATH_MAX } else { PATH_SHORT };
                let path = visible(&path.to_string(), most);
                if self.running.insert(key, Running::new(now, verb, path)).is_none() {
                    client.running += 1;
                }
            }
            EventKind::Phase(phase) => self.with(key, |running| running.phase = phase),
            EventKind::Progress(progress) => self.progress(now, key, progress),
            EventKind::Repairing => {
                self.totals.repairs += 1;
                self.with(key, |running| running.repairs = running.repairs.saturating_add(1));
            }
            EventKind::Restarted => self.with(key, Running::restart),
            EventKind::Ended(result) => return self.ended(now, key, result),
            EventKind::Listed { .. } | EventKind::Root { .. } => {}
            // The enum may grow; what we do not know does not change the state.
            _ => {}
        }
        None
    }

    /// A connection has ended, well or for the reason given. Transfers that it leaves behind have failed.
    pub fn disconnected<E: Display>(&mut self, now: Duration, id: ClientId, result: Result<(), E>) {
        let left: Vec<TransferId> = self.running.range(of_client(id)).map(|(&(_, transfer), _)| transfer).collect();
        for transfer in left {
            let lost = TransferError::ConnectionLost("it never ended".to_owned());
            self.ended(now, (id, transfer), Err(lost));
        }
        let Some(client) = self.clients.remove(&id) else { return };
        if let Err(error) = result {
            self.totals.sessions_failed += 1;
            self.error(now, client.peer, None, &error);
        }
    }

    /// Closes the seconds of the throughput that are over; true when one was.
    pub fn tick(&mut self, now: Duration) -> bool {
        self.meter.tick(now)
    }

    /// The state as it is now.
    pub fn snapshot(&self, now: Duration) -> State {
        State {
            format: FORMAT,
            server: ServerState {
                version: self.version.clone(),
                listen: self.listen.clone(),
                started: self.started,
                now: self.unix(now),
                finishing: self.finishing,
                clients: self.clients.len() as u64,
                running: self.running.len() as u64,
            },
            totals: self.totals.clone(),
            clients: self.clients.iter().take(LISTED_MAX).map(|(&id, client)| self.client_state(id, client)).collect(),
            transfers: self.transfer_states(now),
            history: self.history.iter().cloned().collect(),
            errors: self.errors.iter().cloned().collect(),
            throughput: self.meter.throughput(),
        }
    }

    fn client_state(&self, id: ClientId, client: &Client) -> ClientState {
        ClientState {
            id: id.0,
            peer: client.peer.to_string(),
            since: self.unix(client.since),
            wire_sent: client.stats.wire_sent,
            wire_received: client.stats.wire_received,
            round_trips: u64::from(client.stats.round_trips),
            running: client.running,
        }
    }

    fn transfer_states(&self, now: Duration) -> Vec<TransferState> {
        let mut oldest: Vec<_> = self.running.iter().collect();
        oldest.sort_by_key(|&(&key, running)| (running.since, key));
        let state = |(&(client, id), running): (&(ClientId, TransferId), &Running)| TransferState {
            client: client.0,
            id: u64::from(id.get()),
            peer: self.clients.get(&client).map(|client| client.peer.to_string()).unwrap_or_default(),
            verb: running.verb.name().to_owned(),
            path: running.path.clone(),
            phase: running.phase.name().to_owned(),
            started: self.unix(running.since),
            total: running.progress.total.get(),
            copied: running.progress.copied.get(),
            literal: running.progress.literal.get(),
            wire: running.progress.wire.get(),
            rate: running.rate(now),
            repairs: running.repairs,
            restarts: running.restarts,
        };
        oldest.into_iter().take(LISTED_MAX).map(state).collect()
    }

    fn with(&mut self, key: (ClientId, TransferId), change: impl FnOnce(&mut Running)) {
        if let Some(running) = self.running.get_mut(&key) {
            change(running);
        }
    }

    fn progress(&mut self, now: Duration, key: (ClientId, TransferId), progress: Progress) {
        let Some(running) = self.running.get_mut(&key) else { return };
        let more = running.advance(now, progress);
        self.meter.add(now, more, 0);
    }

    fn ended(
        &mut self,
        now: Duration,
        key: (ClientId, TransferId),
        result: Result<Outcome, TransferError>,
    ) -> Option<EndedState> {
        let running = self.running.remove(&key)?;
        let client = self.clients.get_mut(&key.0)?;
        client.running -= 1;
        let peer = client.peer;
        let count = match running.verb {
            Verb::Push => &mut self.totals.push,
            Verb::Pull => &mut self.totals.pull,
            Verb::List => &mut self.totals.list,
            Verb::Root => &mut self.totals.root,
        };
        let moves = matches!(running.verb, Verb::Push | Verb::Pull);
        let mut ended = EndedState {
            number: 0,
            peer: peer.to_string(),
            verb: running.verb.name().to_owned(),
            path: running.path.clone(),
            started: self.started.saturating_add(millis(running.since)),
            duration: millis(now.saturating_sub(running.since)),
            total: running.progress.total.get(),
            copied: running.progress.copied.get(),
            literal: running.progress.literal.get(),
            wire: running.progress.wire.get(),
            repairs: running.repairs,
            result: word(&result).to_owned(),
            error: None,
        };
        match result {
            Ok(outcome) => {
                count.done += 1;
                if moves {
                    ended.total = outcome.len.get();
                    ended.literal = outcome.progress.literal.get().min(ended.total);
                    ended.copied = ended.total - ended.literal;
                    ended.wire = outcome.progress.wire.get();
                    ended.repairs = outcome.repairs;
                    add(&mut self.totals.file_bytes, ended.total);
                    add(&mut self.totals.copied, ended.copied);
                    add(&mut self.totals.literal, ended.literal);
                    self.meter.add(now, ended.total.saturating_sub(running.counted), 0);
                }
            }
            Err(TransferError::Cancelled | TransferError::CancelledByPeer) => count.cancelled += 1,
            Err(error) => {
                count.failed += 1;
                ended.error = Some(visible(&error.to_string(), MESSAGE_MAX));
                self.error(now, peer, Some((running.verb, running.path)), &error);
            }
        }
        if moves {
            self.last_ended += 1;
            ended.number = self.last_ended;
            self.history.push(ended.clone());
        }
        Some(ended)
    }

    fn error(&mut self, now: Duration, peer: SocketAddr, transfer: Option<(Verb, String)>, message: &impl Display) {
        self.last_error += 1;
        let (verb, path) = transfer.map(|(verb, path)| (verb.name().to_owned(), path)).unzip();
        self.errors.push(ErrorState {
            number: self.last_error,
            time: self.unix(now),
            peer: peer.to_string(),
            verb,
            path,
            message: visible(&message.to_string(), MESSAGE_MAX),
        });
    }

    fn unix(&self, at: Duration) -> u64 {
        self.started.saturating_add(millis(at))
    }
}

fn word(result: &Result<Outcome, TransferError>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(TransferError::Cancelled | TransferError::CancelledByPeer) => "cancelled",
        Err(_) => "failed",
    }
}

fn of_client(id: ClientId) -> std::ops::RangeInclusive<(ClientId, TransferId)> {
    (id, TransferId::new(0))..=(id, TransferId::new(u32::MAX))
}

fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

/// Sums for people stay at the greatest value rather than pass it.
fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

#[cfg(test)]
mod tests {
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
    }

    proptest! {
        #[test]
        fn totals_are_the_sums_of_what_ended(steps in steps()) {
            check_totals(&steps);
        }
    }
}
