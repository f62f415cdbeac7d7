//! The world of a run: its clock, its agenda, and the connections on which sessions live.
//!
//! Nothing happens but what is on the agenda, ordered by moment and, within one, by a number drawn when it was entered.
//! Sessions are driven as their contract says; storages are asked at a moment of their own between a request and its
//! answer, so that requests overtake each other; every connection has the time of its own session.
//!
//! What is checked while it runs: a session is never misused by what happens to it, lets each transfer end once, and has
//! given up on a peer of which it has heard nothing by [`PATIENCE`]. What clients hear is checked in `judge`, what
//! storages do in `store`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use deltasync_core::RelPath;
use deltasync_proto::{
    Answer, Ask, Command, Event, EventKind, Input, Job, JobId, Output, Request, RequestId, Session, SessionError,
    Stats, StorageFault, Timestamp, TransferId,
};

use super::client::Client;
use super::ground::Ground;
use super::plan::{Moment, Plan};
use super::store::{Asker, Repeated, Store};
use super::tally::{Seen, Tally};
use super::trace::Trace;
use super::wire::{FaultOf, Manner, Wire};
use super::{MILLISECOND, SECOND};
use crate::Rng;

/// After so long without a byte from its peer a session must have ended: the configured silence, and a second of grace.
const PATIENCE: u64 = 31 * SECOND;
/// A connection that delays by this much may miss a deadline: a hello is due within 10 s.
const SLOW: u64 = 9 * SECOND;
/// Longer than any run takes on its own clock.
const HORIZON: u64 = 3 * 3600 * SECOND;
/// More steps than any run takes.
const STEPS_MAX: usize = 3_000_000;
/// Of each connection so many bytes are recorded, to be played again.
const RECORDED_MAX: usize = 64 << 10;

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Client,
    Server,
}

/// An end, by the number of its connection.
pub(super) type EndId = (usize, Side);

/// What is on the agenda.
#[derive(Debug)]
pub(super) enum Happening {
    /// Bytes arrive at an end.
    Arrive(EndId),
    Written(EndId, usize),
    /// An end hears that nothing more comes.
    Hangup(EndId),
    Deadline(EndId, u64),
    /// A storage carries out a request, and answers so much later.
    Execute(EndId, Request, u64),
    Answered(EndId, RequestId, Result<Answer, StorageFault>),
    Compute(EndId, Job),
    /// A client begins its next batch, or connects again.
    Go(usize),
    /// Of a client, over a connection.
    Cancel(usize, usize, TransferId),
    Edit(usize, RelPath, Bytes),
    Crash,
    Restart,
    Replay,
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct End {
    pub(super) session: Session,
    pub(super) finished: Option<Result<Stats, SessionError>>,
    deadline: Option<u64>,
    /// When bytes last came.
    last_heard: u64,
    hung_up: bool,
    /// Transfers that have begun and not ended.
    running: BTreeSet<TransferId>,
}

/// Two ends and what is between them.
#[derive(Debug)]
pub(super) struct Connection {
    /// `None` when it is a recording.
    pub(super) client: Option<usize>,
    begun: u64,
    pub(super) ends: BTreeMap<Side, End>,
    wires: [Wire; 2],
    /// Pieces that have arrived at an end that did not want them yet.
    arrived: [usize; 2],
    recorded: Vec<Bytes>,
    recorded_len: usize,
    /// When each path was first pushed to on it, or a push last found there what it brought, as a count of versions at the
    /// server.
    pub(super) said: BTreeMap<RelPath, usize>,
    /// The connection that it repeats.
    original: Option<usize>,
    /// When its client was gone, as a count of versions at the server.
    pub(super) gone: Option<usize>,
    /// A byte of it was not what was sent.
    pub(super) damaged: bool,
    /// A fault has struck it, or the server died, or it was slow.
    pub(super) troubled: bool,
    /// How much its wires have delayed, in nanoseconds.
    lag: u64,
    /// Commits that the server has under way for it.
    committing: usize,
}

/// Everything.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: u64,
    pub(super) rng: Rng,
    agenda: BTreeMap<(u64, u64), Happening>,
    entered: u64,
    pub(super) plan: Plan,
    pub(super) server: Store,
    server_up: bool,
    /// Commits that the server was asked for so far.
    commits: usize,
    pub(super) clients: Vec<Client>,
    pub(super) connections: Vec<Connection>,
    pub(super) tally: Tally,
    pub(super) trace: Trace,
    /// How much longer things took than they usually do, in nanoseconds.
    pub(super) excess: u64,
}

impl Side {
    fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// The wire that this end sends into.
    fn wire(self) -> usize {
        self as usize
    }
}

impl World {
    pub(super) fn new(seed: u64, lines: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let mut tally = Tally::default();
        if plan.disk {
            tally.add(Seen::Disk);
        }
        let ground = if plan.disk { Ground::disk() } else { Ground::memory() };
        let mut server = Store::new(ground, plan.weather.clone());
        plan.files.iter().for_each(|(path, bytes)| server.put(path, bytes, 0));
        server.ground.serve().expect("an empty disk can be served");
        let clients = plan.clients.iter().map(Client::new).collect();
        let mut world = Self {
            now: 0,
            rng,
            agenda: BTreeMap::new(),
            entered: 0,
            plan,
            server,
            server_up: true,
            commits: 0,
            clients,
            connections: Vec::new(),
            tally,
            trace: Trace::new(lines),
            excess: 0,
        };
        world.allow_contents();
        for client in 0..world.clients.len() {
            world.enter(0, Happening::Go(client));
        }
        for at in world.plan.replays.clone() {
            world.enter(at, Happening::Replay);
        }
        for moment in &world.plan.crashes.clone() {
            if let Moment::At(at) = moment {
                world.enter(*at, Happening::Crash);
            }
        }
        world
    }

    /// Runs until nothing is left to happen.
    ///
    /// # Errors
    ///
    /// Which promise was broken.
    pub(super) fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            let Some(((at, _), happening)) = self.agenda.pop_first() else {
                self.check_the_end()?;
                self.server.lose_power(self.now, &mut self.rng, &mut self.tally)?;
                return self.check_content();
            };
            self.now = self.now.max(at);
            if self.now > HORIZON {
                return Err(format!("the run does not end: {happening:?}"));
            }
            self.happen(happening)?;
        }
        Err("the run goes in circles".to_owned())
    }

    /// How many things have happened, or will.
    pub(super) fn steps(&self) -> u64 {
        self.entered
    }

    /// Puts something on the agenda.
    pub(super) fn enter(&mut self, at: u64, happening: Happening) {
        self.entered += 1;
        // Of one moment it is drawn what comes first.
        let tie = (self.rng.next_u64() & 0xffff) << 40 | self.entered;
        self.agenda.insert((at.max(self.now), tie), happening);
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Arrive(id) => self.on_arrival(id),
            Happening::Written(id, len) => self.input(id, Input::Written(len)),
            Happening::Hangup(id) => self.on_hangup(id),
            Happening::Deadline(id, at) => self.on_deadline(id, at),
            Happening::Execute(id, request, later) => self.execute(id, request, later),
            Happening::Answered(id, request, answer) => {
                self.note("answered", id, request.get(), || match &answer {
                    Ok(answer) => told(&format!("{request} {answer:?}")),
                    Err(fault) => format!("{request} {:?}: {fault}", fault.kind),
                });
                self.input(id, Input::Answered { id: request, answer })
            }
            Happening::Compute(id, job) => {
                if !self.is_open(id) {
                    return Ok(());
                }
                let job_id: JobId = job.id;
                let result = job.run();
                self.note("computed", id, job_id.get(), || job_id.to_string());
                self.input(id, Input::Computed { id: job_id, result })
            }
            Happening::Go(client) => self.go(client),
            Happening::Cancel(client, connection, transfer) => self.cancel(client, connection, transfer),
            Happening::Edit(client, path, bytes) => {
                self.tally.add(Seen::Edited);
                self.clients[client].store.put(&path, &bytes, self.now);
                Ok(())
            }
            Happening::Crash => self.crash(),
            Happening::Restart => {
                self.server_up = true;
                Ok(())
            }
            Happening::Replay => self.replay(),
        }
    }

    // ---- sessions ----

    fn end(&mut self, (connection, side): EndId) -> Option<&mut End> {
        self.connections[connection].ends.get_mut(&side)
    }

    fn is_open(&mut self, id: EndId) -> bool {
        self.end(id).is_some_and(|end| end.finished.is_none())
    }

    /// Hands something to a session and does what it says.
    pub(super) fn input(&mut self, id: EndId, input: Input) -> Result<(), String> {
        self.tell(id, input)?;
        self.drain(id)
    }

    /// Hands something to a session that is being drained.
    pub(super) fn tell(&mut self, id: EndId, input: Input) -> Result<(), String> {
        let now = Timestamp::new(self.now - self.connections[id.0].begun);
        // What comes to a session that is gone is for nobody.
        let Some(end) = self.end(id).filter(|end| end.finished.is_none()) else { return Ok(()) };
        end.session.handle_input(now, input).map_err(|misuse| format!("{id:?} was misused: {misuse}"))
    }

    fn drain(&mut self, id: EndId) -> Result<(), String> {
        loop {
            let Some(end) = self.end(id) else { return Ok(()) };
            match end.session.poll_output() {
                Output::Transmit(bytes) => self.send(id, &bytes),
                Output::Storage(request) => self.ask(id, request),
                Output::Compute(job) => {
                    let takes = self.rng.below(3_000_000) as u64;
                    self.enter(self.now + takes, Happening::Compute(id, job));
                }
                Output::Event(event) => self.on_event(id, event)?,
                Output::Wait { deadline } => {
                    self.on_wait(id, deadline)?;
                    if !self.feed(id)? {
                        return Ok(());
                    }
                }
                Output::Finished(result) => self.on_finished(id, result)?,
            }
        }
    }

    fn on_wait(&mut self, id: EndId, deadline: Option<Timestamp>) -> Result<(), String> {
        let begun = self.connections[id.0].begun;
        let Some(end) = self.end(id).filter(|end| end.finished.is_none()) else { return Ok(()) };
        let Some(deadline) = deadline else { return Err(format!("{id:?} waits without a deadline")) };
        let deadline = deadline.get() + begun;
        if end.deadline != Some(deadline) {
            end.deadline = Some(deadline);
            self.enter(deadline, Happening::Deadline(id, deadline));
        }
        Ok(())
    }

    fn on_deadline(&mut self, id: EndId, at: u64) -> Result<(), String> {
        let now = self.now;
        let Some(end) = self.end(id).filter(|end| end.finished.is_none() && end.deadline == Some(at)) else {
            return Ok(());
        };
        end.deadline = None;
        let last_heard = end.last_heard;
        self.note("deadline", id, at, String::new);
        self.input(id, Input::DeadlineReached)?;
        let stuck = now > last_heard + PATIENCE && self.is_open(id) && !self.has_unheard(id);
        if stuck { Err(format!("{id:?} has heard nothing since {last_heard} and still waits")) } else { Ok(()) }
    }

    fn has_unheard(&self, (connection, side): EndId) -> bool {
        self.connections[connection].arrived[side.peer().wire()] > 0
    }

    fn on_event(&mut self, id: EndId, event: Event) -> Result<(), String> {
        self.note("event", id, u64::from(event.transfer.get()), || {
            format!("{} {}", event.transfer, told(&format!("{:?}", event.kind)))
        });
        let Some(end) = self.end(id) else { return Ok(()) };
        let once = match &event.kind {
            // A client's transfer is entered when it is commanded.
            EventKind::Started { .. } => id.1 == Side::Client || end.running.insert(event.transfer),
            EventKind::Ended(_) => end.running.remove(&event.transfer),
            // It has not begun, and will not.
            EventKind::Refused { .. } => !end.running.contains(&event.transfer),
            _ => end.running.contains(&event.transfer),
        };
        if !once {
            return Err(format!("{id:?}: an event of a transfer that does not run: {event:?}"));
        }
        match event.kind {
            EventKind::Repairing => self.tally.add(Seen::Repair),
            EventKind::Restarted => self.tally.add(Seen::Restart),
            _ => {}
        }
        if id.1 == Side::Client { self.on_client_event(id.0, event) } else { Ok(()) }
    }

    fn on_finished(&mut self, id: EndId, result: Result<Stats, SessionError>) -> Result<(), String> {
        self.note("finished", id, 0, || match &result {
            Ok(_) => "well".to_owned(),
            Err(error) => error.to_string(),
        });
        match &result {
            Err(SessionError::TimedOut { .. }) => self.tally.add(Seen::TimedOut),
            Err(SessionError::InvalidMessage(_) | SessionError::PeerMisbehaved(_)) => {
                self.tally.add(Seen::Invalid);
                // Honest peers over a sound link have no quarrel.
                if !self.connections[id.0].damaged && self.connections[id.0].client.is_some() {
                    return Err(format!("{id:?} blames its peer: {result:?}"));
                }
            }
            _ => {}
        }
        let end = self.end(id).expect("it has just spoken");
        end.finished = Some(result);
        if !end.running.is_empty() {
            return Err(format!("{id:?} finished, and {:?} never ended", end.running));
        }
        self.close(id);
        match id.1 {
            Side::Client => self.on_client_finished(id.0),
            Side::Server => self.on_server_finished(id.0),
        }
    }

    /// A transfer was given to a client's session.
    pub(super) fn command(&mut self, connection: usize, transfer: TransferId, command: Command) -> Result<(), String> {
        let id = (connection, Side::Client);
        if let Some(end) = self.end(id) {
            end.running.insert(transfer);
        }
        self.tell(id, Input::Command { transfer, command })
    }

    // ---- storages ----

    fn ask(&mut self, id: EndId, request: Request) {
        self.note("asks", id, request.id.get(), || told(&format!("{} {:?}", request.id, request.ask)));
        let store = match (id.1, self.connections[id.0].client) {
            (Side::Client, Some(client)) => &self.clients[client].store,
            _ => &self.server,
        };
        let (takes, excess) = store.takes(&mut self.rng, &mut self.tally);
        self.excess += excess;
        let begins = self.rng.below(takes as usize + 1) as u64;
        if id.1 == Side::Server && matches!(request.ask, Ask::Commit { .. }) {
            self.connections[id.0].committing += 1;
            self.commits += 1;
            let dies = |moment: &Moment| matches!(moment, Moment::DuringCommit(n) if *n == self.commits);
            if self.plan.crashes.iter().any(dies) {
                let at = self.now + self.rng.below(takes as usize + 2) as u64;
                self.enter(at, Happening::Crash);
            }
        }
        self.enter(self.now + begins, Happening::Execute(id, request, takes - begins));
    }

    fn execute(&mut self, id: EndId, request: Request, later: u64) -> Result<(), String> {
        let (connection, side) = id;
        let is_commit = matches!(request.ask, Ask::Commit { .. });
        let asker = self.asker(id);
        let (now, rng, tally) = (self.now, &mut self.rng, &mut self.tally);
        let store = match (side, self.connections[connection].client) {
            (Side::Client, Some(client)) => &mut self.clients[client].store,
            _ => &mut self.server,
        };
        let answer = store.answer(request.ask, &asker, now, rng, tally)?;
        if is_commit && side == Side::Server {
            self.connections[connection].committing -= 1;
        }
        self.enter(self.now + later, Happening::Answered(id, request.id, answer));
        Ok(())
    }

    fn asker(&self, (connection, side): EndId) -> Asker {
        let Connection { original, said, gone, .. } = &self.connections[connection];
        let original = original.filter(|_| side == Side::Server);
        let repeats = original.map(|original| Repeated { connection: original, said: said.clone() });
        Asker { connection, gone: gone.filter(|_| side == Side::Server), repeats }
    }

    // ---- links ----

    fn send(&mut self, id: EndId, bytes: &Bytes) {
        let (number, side) = id;
        self.trace.fold_bytes(bytes);
        let connection = &mut self.connections[number];
        if side == Side::Client && connection.recorded_len < RECORDED_MAX {
            connection.recorded_len += bytes.len();
            connection.recorded.push(bytes.clone());
        }
        let sent = connection.wires[side.wire()].send(self.now, bytes, &mut self.rng);
        self.excess += sent.delayed;
        let connection = &mut self.connections[number];
        connection.lag += sent.delayed;
        connection.troubled |= connection.lag > SLOW;
        for at in sent.arrivals {
            self.enter(at, Happening::Arrive((number, side.peer())));
        }
        for (at, len) in sent.written {
            self.enter(at, Happening::Written(id, len));
        }
        if let Some(kind) = sent.struck {
            self.strike(number, side, kind);
        }
    }

    /// A fault of the link has struck what an end sent.
    fn strike(&mut self, number: usize, side: Side, kind: FaultOf) {
        self.note("struck", (number, side), kind as u64, || format!("{kind:?}"));
        self.tally.add(match kind {
            FaultOf::Cut => Seen::Cut,
            FaultOf::CutSoftly => Seen::CutSoftly,
            FaultOf::CutLate => Seen::CutLate,
            FaultOf::Silence => Seen::Silence,
            FaultOf::Flip => Seen::Flip,
            FaultOf::Double => Seen::Double,
            FaultOf::Drop => Seen::Drop,
            FaultOf::Lose => Seen::Lose,
        });
        let connection = &mut self.connections[number];
        connection.damaged |= kind.damages();
        connection.troubled = true;
        if !kind.ends() {
            return;
        }
        if connection.committing > 0 {
            self.tally.add(Seen::CutDuringCommit);
        }
        let connection = &mut self.connections[number];
        let mut arrivals = Vec::new();
        for direction in [Side::Client, Side::Server] {
            let wire = &mut connection.wires[direction.wire()];
            wire.closed = true;
            if kind == FaultOf::Cut || kind == FaultOf::CutLate && direction != side {
                wire.lose();
            }
            if kind == FaultOf::CutLate && direction == side {
                let by = SECOND + self.rng.below(90) as u64 * SECOND;
                arrivals = wire.delay(by);
            }
        }
        for at in arrivals {
            self.enter(at, Happening::Arrive((number, side.peer())));
        }
        for end in [Side::Client, Side::Server] {
            let wire = &self.connections[number].wires[end.peer().wire()];
            let last = if wire.is_empty() { self.now } else { wire.last() };
            // The end that did not lose its bytes hears of the cut only behind them.
            let unheard = self.rng.below(100) as u64 * MILLISECOND;
            self.enter(last + unheard, Happening::Hangup((number, end)));
        }
    }

    /// An end says nothing more: the other hears that behind the last of its bytes.
    fn close(&mut self, (number, side): EndId) {
        let wire = &mut self.connections[number].wires[side.wire()];
        if wire.closed {
            return;
        }
        wire.closed = true;
        let last = wire.last().max(self.now + MILLISECOND);
        self.enter(last, Happening::Hangup((number, side.peer())));
    }

    fn on_arrival(&mut self, id: EndId) -> Result<(), String> {
        let (number, side) = id;
        let wire = side.peer().wire();
        self.connections[number].arrived[wire] += 1;
        self.drain(id)
    }

    /// Gives a session what has arrived, as far as it wants it; true when it took something.
    fn feed(&mut self, id: EndId) -> Result<bool, String> {
        let (number, side) = id;
        let (now, wire) = (self.now, side.peer().wire());
        let connection = &mut self.connections[number];
        if connection.arrived[wire] == 0 {
            return Ok(false);
        }
        let Some(end) = connection.ends.get_mut(&side).filter(|end| end.finished.is_none()) else { return Ok(false) };
        if !end.session.wants_bytes() {
            return Ok(false);
        }
        connection.arrived[wire] -= 1;
        let Some(bytes) = connection.wires[wire].receive(now) else { return Ok(false) };
        end.last_heard = now;
        self.note("arrives", id, bytes.len() as u64, || format!("{} bytes", bytes.len()));
        self.tell(id, Input::Received(bytes))?;
        Ok(true)
    }

    fn on_hangup(&mut self, id: EndId) -> Result<(), String> {
        if self.has_unheard(id) && self.is_open(id) {
            // It has not taken yet what came before.
            self.enter(self.now + MILLISECOND, Happening::Hangup(id));
            return Ok(());
        }
        let Some(end) = self.end(id).filter(|end| !end.hung_up) else { return Ok(()) };
        end.hung_up = true;
        self.note("hears the end", id, 0, String::new);
        self.input(id, Input::EndOfStream)
    }

    // ---- connections ----

    /// Joins a client to the server; `None` when nobody listens.
    pub(super) fn connect(&mut self, client: usize) -> Option<usize> {
        if !self.server_up {
            return None;
        }
        let manners = self.plan.links.draw(&mut self.rng);
        let session = Session::client(self.clients[client].config.clone(), self.entropy());
        let number = self.join(Some(client), manners);
        let end = self.new_end(session);
        self.connections[number].ends.insert(Side::Client, end);
        Some(number)
    }

    fn join(&mut self, client: Option<usize>, manners: [Manner; 2]) -> usize {
        let session = Session::server(self.plan.server.clone(), self.entropy());
        let end = self.new_end(session);
        self.connections.push(Connection {
            client,
            begun: self.now,
            ends: BTreeMap::from([(Side::Server, end)]),
            wires: manners.map(Wire::new),
            arrived: [0; 2],
            recorded: Vec::new(),
            recorded_len: 0,
            said: BTreeMap::new(),
            original: None,
            gone: None,
            damaged: false,
            troubled: false,
            lag: 0,
            committing: 0,
        });
        self.connections.len() - 1
    }

    fn new_end(&self, session: Session) -> End {
        let (deadline, running) = (None, BTreeSet::new());
        End { session, finished: None, deadline, last_heard: self.now, hung_up: false, running }
    }

    /// A new session speaks first, or waits for its peer.
    pub(super) fn begin(&mut self, connection: usize) -> Result<(), String> {
        self.drain((connection, Side::Server))?;
        self.drain((connection, Side::Client))
    }

    fn entropy(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&self.rng.bytes(32));
        bytes
    }

    // ---- what happens to the server ----

    /// The server loses its power.
    fn crash(&mut self) -> Result<(), String> {
        if !self.server_up {
            return Ok(());
        }
        self.tally.add(Seen::Crash);
        self.trace.note(self.now, "the server dies", [0; 2], String::new);
        self.server_up = false;
        let of_server = |happening: &Happening| {
            matches!(happening, Happening::Execute((_, Side::Server), ..) | Happening::Answered((_, Side::Server), ..))
        };
        let due: Vec<_> = self.agenda.extract_if(.., |_, happening| of_server(happening)).collect();
        for (_, happening) in due {
            let Happening::Execute(id, Request { ask: ask @ Ask::Commit { .. }, .. }, _) = happening else { continue };
            // Whether its moment had come nobody can tell.
            if self.rng.below(2) == 0 {
                self.tally.add(Seen::CrashOld);
                continue;
            }
            self.tally.add(Seen::CrashNew);
            if self.plan.disk && self.rng.below(4) > 0 {
                self.tally.add(Seen::Died);
                self.server.ground.die_soon(&mut self.rng);
            }
            let asker = self.asker(id);
            drop(self.server.answer(ask, &asker, self.now, &mut self.rng, &mut self.tally)?);
        }
        // A host that is gone may not even say so.
        let silent = self.rng.below(3) == 0;
        for number in 0..self.connections.len() {
            let connection = &mut self.connections[number];
            (connection.committing, connection.troubled) = (0, true);
            if connection.ends.remove(&Side::Server).is_none() {
                continue;
            }
            let wire = &mut connection.wires[Side::Server.wire()];
            wire.closed = true;
            let unbuffered = wire.is_empty();
            if self.rng.below(2) == 0 {
                connection.wires[Side::Server.wire()].lose();
            }
            if !silent {
                let wire = &self.connections[number].wires[Side::Server.wire()];
                let at = if unbuffered { self.now } else { wire.last() };
                self.enter(at + 5 * MILLISECOND, Happening::Hangup((number, Side::Client)));
            }
        }
        if self.server.live() > 0 {
            return Err(format!("{} handles live in a dead server", self.server.live()));
        }
        self.server.lose_power(self.now, &mut self.rng, &mut self.tally)?;
        self.check_content()?;
        let downtime = self.rng.below(5_000) as u64 * MILLISECOND;
        self.enter(self.now + downtime, Happening::Restart);
        Ok(())
    }

    /// Somebody plays a recorded connection to the server again.
    fn replay(&mut self) -> Result<(), String> {
        let recorded: Vec<_> = (0..self.connections.len())
            .filter(|number| {
                let connection = &self.connections[*number];
                connection.client.is_some() && !connection.damaged && !connection.said.is_empty()
            })
            .collect();
        if recorded.is_empty() || !self.server_up {
            return Ok(());
        }
        let original = recorded[self.rng.below(recorded.len())];
        self.tally.add(Seen::Replay);
        let manners = self.plan.links.draw_sound(&mut self.rng);
        let number = self.join(None, manners);
        self.note("replays", (number, Side::Client), original as u64, || format!("connection {original}"));
        let Connection { recorded, said, .. } = &self.connections[original];
        let (recorded, said) = (recorded.clone(), said.clone());
        self.connections[number].said = said;
        self.connections[number].original = Some(original);
        self.drain((number, Side::Server))?;
        for bytes in recorded {
            self.send((number, Side::Client), &bytes);
        }
        // Sometimes it stays silent, and the server has to give up by itself.
        if self.rng.below(2) == 0 {
            let at = self.connections[number].wires[Side::Client.wire()].last() + self.rng.below(20) as u64 * SECOND;
            self.enter(at, Happening::Hangup((number, Side::Server)));
        }
        Ok(())
    }

    fn on_server_finished(&mut self, number: usize) -> Result<(), String> {
        let connection = &self.connections[number];
        if connection.client.is_none() {
            let committed = |path: &RelPath| {
                self.server.history.current(path).is_some_and(|(_, version)| version.connection == Some(number))
            };
            let newer = |(path, said): (&RelPath, &usize)| self.server.history.is_newer(path, *said);
            if connection.said.keys().any(committed) {
                self.tally.add(Seen::ReplayHarmless);
            } else if connection.said.iter().any(newer) {
                self.tally.add(Seen::ReplayRefused);
            }
        }
        Ok(())
    }

    // ---- for people ----

    pub(super) fn note(&mut self, what: &str, id: EndId, detail: u64, say: impl FnOnce() -> String) {
        let (number, side) = id;
        let who = (number as u64) << 1 | side as u64;
        self.trace.note(self.now, what, [who, detail], || format!("{side:?} {number}: {}", say()));
    }
}

/// A line of at most 200 characters.
fn told(text: &str) -> String {
    text.chars().take(200).collect()
}
