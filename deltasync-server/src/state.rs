//! What `GET /api/state` answers: the state of a server as plain data, in a shape that programs may rely on.
//!
//! One JSON object; [`State`] and its parts name every field. Times are milliseconds since 1970, sizes are bytes, lists
//! run from the newest to the oldest unless said. `format` grows when a field changes its meaning or goes away; new
//! fields may appear at any time, and readers skip what they do not know.
//!
//! Texts that come from peers (paths, messages) hold no control, direction or invisible characters: those are written
//! out as `\u{202e}`. They may hold markup, and are cut to [`State::bound`]'s lengths.

use serde::{Deserialize, Serialize};

use crate::Spreads;
use crate::running::CELLS;
use crate::text::{MESSAGE_MAX, PATH_MAX, visible};

/// The number of the shape below.
pub const FORMAT: u32 = 1;

/// The most clients, and the most running transfers, that are listed one by one.
pub(crate) const LISTED_MAX: usize = 200;
/// The most ended transfers that are listed.
pub(crate) const HISTORY_MAX: usize = 200;
/// The most errors that are listed.
pub(crate) const ERRORS_MAX: usize = 100;
/// The most findings of a scrub that are listed.
pub(crate) const FINDINGS_MAX: usize = 100;

/// A server, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT`].
    pub format: u32,
    /// Who this is.
    pub server: ServerState,
    /// Sums since the start.
    pub totals: Totals,
    /// Who is connected; the longest connected first, at most 200 of them.
    pub clients: Vec<ClientState>,
    /// What runs; the oldest first, at most 200 of them.
    pub transfers: Vec<TransferState>,
    /// The last 200 pushes and pulls that ended.
    pub history: Vec<EndedState>,
    /// The last 100 things that went wrong.
    pub errors: Vec<ErrorState>,
    /// Bytes a second over the last five minutes.
    pub throughput: Throughput,
    /// Bytes a minute over the last hour, also over restarts.
    #[serde(default)]
    pub hour: Throughput,
    /// Bytes a quarter of an hour over the last day, also over restarts.
    #[serde(default)]
    pub day: Throughput,
    /// What moved in the last minute, hour and day.
    #[serde(default)]
    pub savings: Savings,
    /// How long transfers took, and how large they were.
    #[serde(default)]
    pub spread: Spreads,
    /// How the stored files are checked.
    #[serde(default)]
    pub scrub: ScrubState,
}

/// Who a server is and how it does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerState {
    /// The version of the program.
    pub version: String,
    /// Where it listens for clients.
    pub listen: String,
    /// When it started.
    pub started: u64,
    /// What its clock says now.
    pub now: u64,
    /// It is shutting down: running transfers end, nothing new is taken.
    pub finishing: bool,
    /// How many clients are connected, listed or not.
    pub clients: u64,
    /// How many transfers run, listed or not.
    pub running: u64,
    /// Bytes that may still be written to the disk of the served directory.
    #[serde(default)]
    pub disk_free: u64,
    /// Bytes of that disk in all; 0 while that is not known.
    #[serde(default)]
    pub disk_total: u64,
}

/// Sums since a server started. Files count when their transfer has ended well; the wire counts at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Bytes of all targets.
    pub file_bytes: u64,
    /// Bytes of them that did not have to be sent.
    pub copied: u64,
    /// Bytes of them that were sent, before compression.
    pub literal: u64,
    /// Bytes sent to clients, everything above TCP counted.
    pub wire_sent: u64,
    /// Bytes received from clients, everything above TCP counted.
    pub wire_received: u64,
    /// Round trips that the server waited for.
    pub round_trips: u64,
    /// Results that were not right at once and were sent again.
    pub repairs: u64,
    /// Connections that were taken.
    pub sessions: u64,
    /// Connections that ended by an error.
    pub sessions_failed: u64,
    /// Connections that were turned away because there were too many.
    pub sessions_refused: u64,
    /// Connections that ended because the peer was too slow or silent, among those that failed, or had no transfer.
    #[serde(default)]
    pub sessions_timed_out: u64,
    /// Transfers that were refused because too many ran, or held too much.
    #[serde(default)]
    pub transfers_refused: u64,
    /// Transfers to the server.
    pub push: Ended,
    /// Transfers from the server.
    pub pull: Ended,
    /// Directories listed.
    pub list: Ended,
    /// Roots asked for.
    pub root: Ended,
    /// Directories made, and what was renamed or removed.
    #[serde(default)]
    pub alter: Ended,
    /// Why transfers failed; together as many as failed.
    #[serde(default)]
    pub failures: Failures,
}

/// Why transfers failed, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failures {
    /// Another version was there than the one to be replaced.
    pub conflict: u64,
    /// The result was not what was announced, also after a repair.
    pub integrity: u64,
    /// The source changed each time it was read.
    pub changed: u64,
    /// The storage of this server could not.
    pub storage: u64,
    /// The peer said nothing for too long.
    pub stalled: u64,
    /// The connection ended first.
    pub lost: u64,
    /// The peer would not or could not, or there was no room in memory.
    pub refused: u64,
}

/// How the transfers of one kind ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// They did what they should.
    pub done: u64,
    /// They did not.
    pub failed: u64,
    /// Somebody ended them.
    pub cancelled: u64,
}

/// One connected client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientState {
    /// Its number on this server, from 1.
    pub id: u64,
    /// Its address.
    pub peer: String,
    /// When it connected.
    pub since: u64,
    /// Bytes sent to it.
    pub wire_sent: u64,
    /// Bytes received from it.
    pub wire_received: u64,
    /// Round trips that the server waited for.
    pub round_trips: u64,
    /// How many of its transfers run.
    pub running: u64,
}

/// One running transfer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TransferState {
    /// The client's number.
    pub client: u64,
    /// The transfer's number on that connection.
    pub id: u64,
    /// The client's address.
    pub peer: String,
    /// `push`, `pull`, `list`, `root`, `mkdir`, `rename` or `remove`.
    pub verb: String,
    /// The path below the served directory.
    pub path: String,
    /// What it does or waits for: `describing`, `waiting for the peer`, `matching`, `moving`, `verifying`, `committing`.
    pub phase: String,
    /// When it started.
    pub started: u64,
    /// The length of the target, 0 while it is not known.
    pub total: u64,
    /// Bytes of the target taken from the basis so far.
    pub copied: u64,
    /// Bytes of the target sent so far.
    pub literal: u64,
    /// Bytes on the wire for it so far.
    pub wire: u64,
    /// Bytes of the target a second, lately.
    pub rate: u64,
    /// How often the result had to be sent again.
    pub repairs: u32,
    /// How often it started over because its source changed.
    pub restarts: u32,
    /// Where in the target its bytes come from, in at most 200 cells of equal length, from its start to its end; empty while
    /// that is not known. It is kept for transfers that begin while fewer than 200 run.
    #[serde(default)]
    pub blocks: Vec<BlockState>,
}

/// Neighbouring cells of a target with one origin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockState {
    /// How many bytes they are.
    pub len: u64,
    /// `missing`: some of it is not there yet; `copied`: all of it was there already; `sent`: all of it was sent; `mixed`:
    /// some of it was there already, the rest was sent.
    pub origin: String,
}

/// One push or pull that has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndedState {
    /// Counts the entries of the history, from 1.
    pub number: u64,
    /// The client's address.
    pub peer: String,
    /// `push` or `pull`.
    pub verb: String,
    /// The path below the served directory.
    pub path: String,
    /// When it started.
    pub started: u64,
    /// How long it took, in milliseconds.
    pub duration: u64,
    /// The length of the target, as far as it was known.
    pub total: u64,
    /// Bytes of the target that did not have to be sent.
    pub copied: u64,
    /// Bytes of the target that were sent.
    pub literal: u64,
    /// Bytes on the wire for it.
    pub wire: u64,
    /// How often the result had to be sent again.
    pub repairs: u32,
    /// `done`, `failed` or `cancelled`.
    pub result: String,
    /// Why it failed.
    pub error: Option<String>,
    /// The same in one word, a field of [`Failures`]; empty when it did not fail.
    #[serde(default)]
    pub kind: String,
}

/// Something that went wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorState {
    /// Counts the errors, from 1.
    pub number: u64,
    /// When.
    pub time: u64,
    /// The client's address.
    pub peer: String,
    /// The verb of the transfer; `None` when the whole connection failed.
    pub verb: Option<String>,
    /// The path of the transfer.
    pub path: Option<String>,
    /// What went wrong.
    pub message: String,
    /// The same in one word, a field of [`Failures`]; `connection` when the whole connection failed.
    #[serde(default)]
    pub kind: String,
}

/// What moved in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Bytes of targets.
    pub file: u64,
    /// Those of them that did not have to be sent.
    pub copied: u64,
    /// Bytes on the wire, both ways.
    pub wire: u64,
    /// Pushes and pulls that ended well.
    pub done: u64,
    /// Pushes and pulls that failed.
    pub failed: u64,
}

/// What moved lately, also over restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Savings {
    /// In the last minute.
    pub minute: Moved,
    /// In the last hour.
    pub hour: Moved,
    /// In the last day.
    pub day: Moved,
}

/// Bytes per interval, oldest first; all lists have one length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// How long one sample is.
    pub interval_ms: u32,
    /// Bytes of targets.
    pub file: Vec<u64>,
    /// Bytes on the wire, both ways.
    pub wire: Vec<u64>,
    /// Bytes of targets that did not have to be sent.
    #[serde(default)]
    pub copied: Vec<u64>,
}

/// How the stored files are checked against what was published.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubState {
    /// What runs now: `background`, `asked` or, when nothing does, empty.
    pub running: String,
    /// The file that was checked last, in a pass that runs.
    pub position: String,
    /// What the pass that runs has done, or else the last one.
    pub pass: PassState,
    /// When the last pass ended that went through everything; 0 when none is known.
    pub finished: u64,
    /// When the next one in the background is due; 0 when none is planned.
    pub due: u64,
    /// Sums since the start, over all passes.
    pub total: PassState,
    /// The last 100 things that were found.
    pub findings: Vec<FindingState>,
}

/// What checking has come to, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassState {
    /// Files that were checked, old versions among them.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Files that are not what was published, though they look so.
    pub damaged: u64,
    /// Files that the disk does not give back.
    pub unreadable: u64,
    /// Files that another program has changed since they were published.
    pub changed: u64,
    /// Files that another program has removed.
    pub gone: u64,
    /// Kept old versions that were damaged and are thrown away.
    pub old_versions: u64,
}

/// Something that a scrub has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingState {
    /// Counts the findings, from 1.
    #[serde(default)]
    pub number: u64,
    /// When.
    pub time: u64,
    /// `damaged`, `unreadable`, `changed`, `gone` or `old-version`.
    pub kind: String,
    /// The path below the served directory.
    pub path: String,
    /// What is the matter.
    pub message: String,
}

impl State {
    /// This state with every list and text cut to the length that a server of ours gives it, for a state that came from
    /// elsewhere.
    #[must_use]
    pub(crate) fn bound(mut self) -> Self {
        let name = |text: &mut String| *text = visible(text, 64);
        let path = |text: &mut String| *text = visible(text, PATH_MAX);
        [&mut self.server.version, &mut self.server.listen].into_iter().for_each(name);
        self.clients.truncate(LISTED_MAX);
        self.clients.iter_mut().for_each(|client| name(&mut client.peer));
        self.transfers.truncate(LISTED_MAX);
        for transfer in &mut self.transfers {
            [&mut transfer.peer, &mut transfer.verb, &mut transfer.phase].into_iter().for_each(name);
            path(&mut transfer.path);
            transfer.blocks.truncate(CELLS);
            transfer.blocks.iter_mut().for_each(|block| block.origin = visible(&block.origin, 16));
        }
        self.history.truncate(HISTORY_MAX);
        self.history = self.history.into_iter().map(EndedState::bound).collect();
        self.errors.truncate(ERRORS_MAX);
        self.errors = self.errors.into_iter().map(ErrorState::bound).collect();
        self.spread = self.spread.bound();
        self.scrub = self.scrub.bound();
        for Throughput { file, wire, copied, .. } in [&mut self.throughput, &mut self.hour, &mut self.day] {
            [file, wire, copied].into_iter().for_each(|list| list.truncate(crate::meter::SAMPLES));
        }
        self
    }
}

impl EndedState {
    /// This one with its texts made visible and cut.
    pub(crate) fn bound(mut self) -> Self {
        for text in [&mut self.peer, &mut self.verb, &mut self.result, &mut self.kind] {
            *text = visible(text, 64);
        }
        self.path = visible(&self.path, PATH_MAX);
        self.error = self.error.map(|error| visible(&error, MESSAGE_MAX));
        self
    }
}

impl ErrorState {
    /// This one with its texts made visible and cut.
    pub(crate) fn bound(mut self) -> Self {
        self.peer = visible(&self.peer, 64);
        self.kind = visible(&self.kind, 64);
        self.verb = self.verb.map(|verb| visible(&verb, 64));
        self.path = self.path.map(|path| visible(&path, PATH_MAX));
        self.message = visible(&self.message, MESSAGE_MAX);
        self
    }
}

impl ScrubState {
    fn bound(mut self) -> Self {
        self.running = visible(&self.running, 64);
        self.position = visible(&self.position, PATH_MAX);
        self.findings.truncate(FINDINGS_MAX);
        self.findings = self.findings.into_iter().map(FindingState::bound).collect();
        self
    }
}

impl FindingState {
    /// This finding with its texts made visible and cut.
    pub(crate) fn bound(mut self) -> Self {
        self.kind = visible(&self.kind, 64);
        self.path = visible(&self.path, PATH_MAX);
        self.message = visible(&self.message, MESSAGE_MAX);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_from_elsewhere_is_cut_to_our_lengths() {
        let bad = "\u{202e}x".repeat(10_000);
        let error = ErrorState { message: bad.clone(), path: Some(bad.clone()), ..ErrorState::default() };
        let ended = EndedState { path: bad.clone(), error: Some(bad.clone()), ..EndedState::default() };
        let blocks = vec![BlockState { len: 1, origin: "\u{202e}x".repeat(10) }; 300];
        let transfer = TransferState { path: bad.clone(), phase: bad.clone(), blocks, ..TransferState::default() };
        let finding = FindingState { path: bad.clone(), message: bad.clone(), ..FindingState::default() };
        let scrub = ScrubState { position: bad.clone(), findings: vec![finding; 1000], ..ScrubState::default() };
        let state = State {
            scrub,
            errors: vec![error; 1000],
            history: vec![ended; 1000],
            transfers: vec![transfer; 1000],
            clients: vec![ClientState { peer: bad, ..ClientState::default() }; 1000],
            throughput: Throughput { interval_ms: 1, file: vec![1; 9999], wire: vec![1; 9999], copied: vec![1; 9999] },
            ..State::default()
        };
        let json = serde_json::to_string(&state.bound()).expect("plain data");
        assert!(json.len() < 4 << 20, "{} bytes", json.len());
        assert!(!json.contains('\u{202e}'));
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let mut json = serde_json::to_value(State { format: FORMAT, ..State::default() }).expect("plain data");
        json["colour"] = "blue".into();
        // And what an older server does not tell is nothing.
        for name in ["scrub", "hour", "day", "savings", "spread"] {
            json.as_object_mut().expect("an object").remove(name);
        }
        let state: State = serde_json::from_value(json).expect("still a state");
        assert_eq!(state, State { format: FORMAT, ..State::default() });
    }
}
