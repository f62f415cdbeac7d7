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

use deltasync_proto::{Event, EventKind, Outcome, Progress, RefusalCode, Stats, TransferError, TransferId, Verb};

use crate::kept::Kept;
use crate::meter::Meter;
use crate::ring::Ring;
use crate::running::Running;
use crate::state::{ERRORS_MAX, FINDINGS_MAX, FORMAT, HISTORY_MAX, LISTED_MAX};
use crate::text::{MESSAGE_MAX, PATH_MAX, visible};
use crate::{
    ClientState, EndedState, ErrorState, Failures, FindingState, Moved, ScrubState, ServerState, Spreads, State,
    Totals, TransferState,
};

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
    spread: Spreads,
    scrub: Scrubbed,
    /// Free and in all, in bytes.
    disk: (u64, u64),
}

/// What is known of the checking of files.
#[derive(Debug)]
struct Scrubbed {
    /// Without the findings.
    state: ScrubState,
    findings: Ring<FindingState>,
    last_finding: u64,
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
            meter: Meter::new(started),
            spread: Spreads::default(),
            disk: (0, 0),
            scrub: Scrubbed { state: ScrubState::default(), findings: Ring::new(FINDINGS_MAX), last_finding: 0 },
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

    /// A connection is being ended because its peer was too slow, silent or idle.
    pub fn timed_out(&mut self) {
        self.totals.sessions_timed_out += 1;
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
        let wire = sent.saturating_add(received);
        self.meter.add(self.unix(now), Moved { wire, ..Moved::default() });
    }

    /// Something happened to a transfer of a connection; comes back with the whole story when that was its end.
    pub fn event(&mut self, now: Duration, id: ClientId, event: Event) -> Option<EndedState> {
        let key = (id, event.transfer);
        match event.kind {
            EventKind::Started { verb, path } => {
                let client = self.clients.get_mut(&id)?;
                let most = if self.running.len() < DETAILED { PATH_MAX } else { PATH_SHORT };
                let path = visible(&path.to_string(), most);
                let mapped = self.running.len() < LISTED_MAX;
                if self.running.insert(key, Running::new(now, verb, path, mapped)).is_none() {
                    client.running += 1;
                }
            }
            EventKind::Phase(phase) => self.with(key, |running| running.phase = phase),
            EventKind::Placed { total, ranges } => self.with(key, |running| running.place(total, &ranges)),
            EventKind::Progress(progress) => self.progress(now, key, progress),
            EventKind::Repairing => {
                self.totals.repairs += 1;
                self.with(key, |running| running.repairs = running.repairs.saturating_add(1));
            }
            EventKind::Refused { .. } => self.totals.transfers_refused += 1,
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
            self.error(now, client.peer, None, "connection", &error);
        }
    }

    /// What is told of the checking of files; the findings are added by [`found`](Self::found).
    pub fn scrub(&mut self) -> &mut ScrubState {
        &mut self.scrub.state
    }

    /// A check of files has found something; returns it with its number.
    pub fn found(&mut self, finding: FindingState) -> FindingState {
        self.scrub.last_finding += 1;
        let finding = FindingState { number: self.scrub.last_finding, ..finding }.bound();
        self.scrub.findings.push(finding.clone());
        finding
    }

    /// Closes the seconds of the throughput that are over; true when one was.
    pub fn tick(&mut self, now: Duration) -> bool {
        self.meter.tick(self.unix(now))
    }

    /// How much room the disk of the served directory has: free and in all, in bytes.
    pub fn disk(&mut self, free: u64, total: u64) {
        self.disk = (free, total);
    }

    /// What outlives a restart of the server.
    pub(crate) fn keep(&self) -> Kept {
        Kept {
            history: self.history.iter().cloned().collect(),
            errors: self.errors.iter().cloned().collect(),
            findings: self.scrub.findings.iter().cloned().collect(),
            meter: self.meter.keep(),
        }
    }

    /// Grows whenever there is something new to be kept.
    pub(crate) fn news(&self) -> [u64; 5] {
        let Totals { wire_sent, wire_received, .. } = self.totals;
        [self.last_ended, self.last_error, self.scrub.last_finding, wire_sent, wire_received]
    }

    /// Goes on from what was kept, before anything has happened.
    pub(crate) fn restore(&mut self, kept: Kept) {
        let Kept { history, errors, findings, meter } = kept.bound();
        self.last_ended = history.first().map_or(0, |ended| ended.number);
        self.last_error = errors.first().map_or(0, |error| error.number);
        self.scrub.last_finding = findings.first().map_or(0, |finding| finding.number);
        history.into_iter().rev().for_each(|ended| self.history.push(ended));
        errors.into_iter().rev().for_each(|error| self.errors.push(error));
        findings.into_iter().rev().for_each(|finding| self.scrub.findings.push(finding));
        self.meter.restore(meter);
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
                disk_free: self.disk.0,
                disk_total: self.disk.1,
            },
            totals: self.totals.clone(),
            clients: self.clients.iter().take(LISTED_MAX).map(|(&id, client)| self.client_state(id, client)).collect(),
            transfers: self.transfer_states(now),
            history: self.history.iter().cloned().collect(),
            errors: self.errors.iter().cloned().collect(),
            throughput: self.meter.throughput(),
            hour: self.meter.hour(),
            day: self.meter.day(),
            savings: self.meter.savings(),
            spread: self.spread.clone(),
            scrub: ScrubState { findings: self.scrub.findings.iter().cloned().collect(), ..self.scrub.state.clone() },
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
            blocks: running.blocks(),
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
        self.meter.add(self.unix(now), more);
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
            Verb::MakeDirectory | Verb::Rename | Verb::Remove => &mut self.totals.alter,
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
            kind: String::new(),
        };
        let mut moved = Moved::default();
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
                    moved.file = ended.total.saturating_sub(running.counted);
                    moved.copied = ended.copied.saturating_sub(running.counted_copied);
                    moved.done = 1;
                    let spread = if running.verb == Verb::Push { &mut self.spread.push } else { &mut self.spread.pull };
                    spread.observe(ended.duration as f64 / 1000.0, ended.total, ended.wire);
                }
            }
            Err(TransferError::Cancelled | TransferError::CancelledByPeer) => count.cancelled += 1,
            Err(error) => {
                count.failed += 1;
                moved.failed = u64::from(moves);
                let (kind, count) = failure(&error, &mut self.totals.failures);
                *count += 1;
                ended.kind = kind.to_owned();
                self.totals.transfers_refused += u64::from(matches!(error, TransferError::Memory { .. }));
                ended.error = Some(visible(&error.to_string(), MESSAGE_MAX));
                self.error(now, peer, Some((running.verb, running.path)), kind, &error);
            }
        }
        self.meter.add(self.unix(now), moved);
        if moves {
            self.last_ended += 1;
            ended.number = self.last_ended;
            self.history.push(ended.clone());
        }
        Some(ended)
    }

    fn error(
        &mut self,
        now: Duration,
        peer: SocketAddr,
        transfer: Option<(Verb, String)>,
        kind: &str,
        message: &impl Display,
    ) {
        self.last_error += 1;
        let (verb, path) = transfer.map(|(verb, path)| (verb.name().to_owned(), path)).unzip();
        self.errors.push(ErrorState {
            number: self.last_error,
            time: self.unix(now),
            peer: peer.to_string(),
            verb,
            path,
            message: visible(&message.to_string(), MESSAGE_MAX),
            kind: kind.to_owned(),
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

/// Why a transfer failed, in one word, and where that is counted.
fn failure<'a>(error: &TransferError, failures: &'a mut Failures) -> (&'static str, &'a mut u64) {
    let refused = |code| matches!(error, TransferError::Refused(refusal) if refusal.code == code);
    match error {
        TransferError::Conflict { .. } => ("conflict", &mut failures.conflict),
        _ if refused(RefusalCode::Conflict) => ("conflict", &mut failures.conflict),
        TransferError::Integrity { .. } => ("integrity", &mut failures.integrity),
        _ if refused(RefusalCode::Integrity) => ("integrity", &mut failures.integrity),
        TransferError::Changed { .. } => ("changed", &mut failures.changed),
        _ if refused(RefusalCode::Changed) => ("changed", &mut failures.changed),
        TransferError::Storage(_) => ("storage", &mut failures.storage),
        TransferError::Stalled { .. } => ("stalled", &mut failures.stalled),
        TransferError::ConnectionLost(_) => ("lost", &mut failures.lost),
        _ => ("refused", &mut failures.refused),
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
mod tests;
