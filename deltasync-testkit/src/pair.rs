//! Two sessions in memory, joined by a seeded link, under a virtual clock.
//!
//! One seed is one run: the order in which storage answers and results come back, how the link splits the bytes and
//! when they arrive are drawn from it. So a run that failed is run again by its seed alone, and thousands take seconds.

use std::sync::Arc;

use deltasync_core::{Name, RelPath};
use deltasync_io::{BlockingStorage, MemoryStorage};
use deltasync_proto::{
    Command, Condition, Config, Destination, Event, EventKind, Input, Outcome, Output, Place, Request, RootId, Session,
    SessionError, Stats, Timestamp, TransferError, TransferId,
};

use crate::link::Pipe;
use crate::{Direction, Link, Rng};

/// More steps than any honest run takes: a run that passes them goes in circles.
const STEPS_MAX: usize = 2_000_000;

/// A client and a server that are about to run.
pub struct Pair {
    rng: Rng,
    link: Link,
    client: Config,
    server: Config,
    /// The client's files, below root 0.
    pub local: Arc<MemoryStorage>,
    /// The server's files, below root 0.
    pub remote: Arc<MemoryStorage>,
    commands: Vec<Command>,
    storages: Option<(Arc<dyn BlockingStorage>, Arc<dyn BlockingStorage>)>,
    answering: Answering,
}

/// What the client's embedder commands when it is told an event.
type Answering = Box<dyn FnMut(&Event) -> Vec<(TransferId, Command)>>;

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("link", &self.link).field("commands", &self.commands).finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    /// How each transfer ended at the client, in the order of its number.
    pub outcomes: Vec<Result<Outcome, TransferError>>,
    /// How the client's session ended.
    pub client: Result<Stats, SessionError>,
    /// How the server's session ended.
    pub server: Result<Stats, SessionError>,
    /// All events of the client.
    pub events: Vec<Event>,
    /// All events of the server.
    pub server_events: Vec<Event>,
    /// Bytes that crossed the link from the client to the server.
    pub up: u64,
    /// Bytes that crossed the link from the server to the client.
    pub down: u64,
    /// How long it took on the virtual clock.
    pub elapsed: std::time::Duration,
}

impl Ran {
    /// The outcome of the only transfer.
    ///
    /// # Panics
    ///
    /// When it failed or there were several.
    #[track_caller]
    pub fn outcome(&self) -> Outcome {
        assert_eq!(self.outcomes.len(), 1, "one transfer: {:?}", self.outcomes);
        match &self.outcomes[0] {
            Ok(outcome) => *outcome,
            Err(error) => panic!("the transfer failed: {error}"),
        }
    }

    /// Bytes that crossed the link, both ways.
    pub fn wire(&self) -> u64 {
        self.up + self.down
    }

    /// How often the client had to wait for an answer; 0 when its session failed.
    pub fn round_trips(&self) -> u32 {
        self.client.as_ref().map_or(0, |stats| stats.round_trips)
    }
}

/// The path that the shorthands of [`Pair`] use at both ends.
pub fn file() -> RelPath {
    RelPath::new(*b"file").expect("a plain name")
}

impl Pair {
    /// A pair whose every chance is drawn from `seed`; without commands it only shakes hands.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            link: Link::perfect(),
            client: Config::default(),
            server: Config::default(),
            local: Arc::default(),
            remote: Arc::default(),
            commands: Vec::new(),
            storages: None,
            // The files of a tree that do not travel with it are not sent.
            answering: Box::new(|event| match event.kind {
                EventKind::Differs { .. } => vec![(event.transfer, Command::Complete)],
                _ => Vec::new(),
            }),
        }
    }

    /// Puts `bytes` at the server and, with [`Pair::target`], makes the run a push onto them.
    #[must_use]
    pub fn basis(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.remote.insert(RootId::new(0), file(), bytes.into());
        self
    }

    /// Pushes `bytes` from the client.
    #[must_use]
    pub fn target(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.local.insert(RootId::new(0), file(), bytes.into());
        self.commands.push(push(file(), file()));
        self
    }

    /// Turns the run round: what [`Pair::basis`] put at the server is pulled onto `bytes` at the client.
    #[must_use]
    pub fn pulled_onto(mut self, bytes: Option<Vec<u8>>) -> Self {
        if let Some(bytes) = bytes {
            self.local.insert(RootId::new(0), file(), bytes);
        }
        self.commands.push(pull(file(), file()));
        self
    }

    /// Adds a command of the client; they are numbered from 1.
    #[must_use]
    pub fn command(mut self, command: Command) -> Self {
        self.commands.push(command);
        self
    }

    /// Sets the link.
    #[must_use]
    pub fn link(mut self, link: Link) -> Self {
        self.link = link;
        self
    }

    /// Sets the configuration of both ends.
    #[must_use]
    pub fn config(self, config: Config) -> Self {
        self.client_config(config.clone()).server_config(config)
    }

    /// Sets the client's configuration.
    #[must_use]
    pub fn client_config(mut self, config: Config) -> Self {
        self.client = config;
        self
    }

    /// Sets the server's configuration.
    #[must_use]
    pub fn server_config(mut self, config: Config) -> Self {
        self.server = config;
        self
    }

    /// Runs over memories that other runs have used, the client's first: what those left and remembered is there.
    #[must_use]
    pub fn over(mut self, local: Arc<MemoryStorage>, remote: Arc<MemoryStorage>) -> Self {
        (self.local, self.remote) = (local, remote);
        self
    }

    /// Puts other storages in place of the memory, the client's first.
    #[must_use]
    pub fn storages(mut self, local: Arc<dyn BlockingStorage>, remote: Arc<dyn BlockingStorage>) -> Self {
        self.storages = Some((local, remote));
        self
    }

    /// Sets what the client's embedder commands when it is told an event. Transfers that it starts have the numbers behind
    /// those of the commands, without a gap.
    #[must_use]
    pub fn answering(mut self, answering: impl FnMut(&Event) -> Vec<(TransferId, Command)> + 'static) -> Self {
        self.answering = Box::new(answering);
        self
    }

    /// Runs until both ends have finished.
    ///
    /// # Panics
    ///
    /// When the run goes in circles, when both ends wait for each other without a deadline, or when a session is misused:
    /// each a bug in what is tested.
    pub fn run_to_end(mut self) -> Ran {
        let (local, remote) = self
            .storages
            .take()
            .unwrap_or_else(|| (self.local.clone() as Arc<dyn BlockingStorage>, self.remote.clone() as _));
        let mut entropy = || {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(&self.rng.bytes(32));
            bytes
        };
        let (client, server) = (entropy(), entropy());
        let mut client = End::new(Session::client(self.client.clone(), client), local);
        let mut server = End::new(Session::server(self.server.clone(), server), remote);
        let mut up = Pipe::new(&self.link, Direction::Up);
        let mut down = Pipe::new(&self.link, Direction::Down);
        let mut transfers = self.commands.len() as u32;
        let mut now = Timestamp::new(0);
        for (number, command) in (1..).zip(self.commands) {
            client.input(now, Input::Command { transfer: TransferId::new(number), command });
        }
        client.input(now, Input::Finish);
        let mut told = 0;
        for _ in 0..STEPS_MAX {
            let cut = client.drain(now, &mut up, &mut self.rng) | server.drain(now, &mut down, &mut self.rng);
            client.cut |= cut;
            server.cut |= cut;
            let mut commands = Vec::new();
            for event in &client.events[told..] {
                commands.extend((self.answering)(event));
            }
            told = client.events.len();
            if !commands.is_empty() && client.finished.is_none() {
                for (transfer, command) in commands {
                    transfers = transfers.max(transfer.get());
                    client.input(now, Input::Command { transfer, command });
                }
                continue;
            }
            if client.finished.is_some() && server.finished.is_some() {
                return Ran::new(client, server, transfers, &up, &down, now);
            }
            let worked = match self.rng.below(4) {
                0 => client.work(now, &mut self.rng) || server.work(now, &mut self.rng),
                1 => server.work(now, &mut self.rng) || client.work(now, &mut self.rng),
                2 => server.receive(now, &mut up) || client.receive(now, &mut down),
                _ => client.receive(now, &mut down) || server.receive(now, &mut up),
            };
            let worked = worked
                || client.work(now, &mut self.rng)
                || server.work(now, &mut self.rng)
                || server.receive(now, &mut up)
                || client.receive(now, &mut down)
                || server.hear_the_end(now, client.finished.is_some(), &up)
                || client.hear_the_end(now, server.finished.is_some(), &down);
            if !worked {
                let deadlines = [client.deadline, server.deadline, up.next(), down.next()];
                now = deadlines.into_iter().flatten().min().expect("both ends wait without a deadline").max(now);
                client.pass_deadline(now);
                server.pass_deadline(now);
            }
        }
        panic!(
            "the run goes in circles: at {now:?}, client {:?} {:?}, server {:?} {:?}",
            client.finished, client.deadline, server.finished, server.deadline
        );
    }
}

/// A push of a local path to a remote one.
pub fn push(source: RelPath, path: RelPath) -> Command {
    let (_, name) = source.split_last().expect("a file has a name");
    Command::Push {
        source: Place { root: RootId::new(0), path: source },
        path,
        name,
        directory: false,
        condition: Condition::Any,
    }
}

/// A pull of a remote path to a local one.
pub fn pull(path: RelPath, to: RelPath) -> Command {
    let name: Name = path.split_last().expect("a file has a name").1;
    let place = Place { root: RootId::new(0), path: to };
    Command::Pull { path, destination: Destination { place, name, directory: false }, condition: Condition::Any }
}

impl Ran {
    fn new(client: End, server: End, transfers: u32, up: &Pipe, down: &Pipe, now: Timestamp) -> Self {
        let ended = |id| {
            let mut ends = client.events.iter().filter(|event| event.transfer == TransferId::new(id));
            let mut ended = ends.by_ref().filter_map(|event| match &event.kind {
                EventKind::Ended(result) => Some(result.clone()),
                _ => None,
            });
            let first = ended.next().expect("every transfer ends");
            assert!(ended.next().is_none(), "transfer {id} ended twice");
            first
        };
        Self {
            outcomes: (1..=transfers).map(ended).collect(),
            client: client.finished.expect("it ran to its end"),
            server: server.finished.expect("it ran to its end"),
            events: client.events,
            server_events: server.events,
            up: up.carried(),
            down: down.carried(),
            elapsed: std::time::Duration::from_nanos(now.get()),
        }
    }
}

/// One end: its session, its storage, and what it has asked for.
struct End {
    session: Session,
    storage: Arc<dyn BlockingStorage>,
    due: Vec<Due>,
    unwritten: usize,
    deadline: Option<Timestamp>,
    finished: Option<Result<Stats, SessionError>>,
    events: Vec<Event>,
    cut: bool,
    heard: bool,
}

enum Due {
    Storage(Request),
    Job(deltasync_proto::Job),
}

impl End {
    fn new(session: Session, storage: Arc<dyn BlockingStorage>) -> Self {
        Self {
            session,
            storage,
            due: Vec::new(),
            unwritten: 0,
            deadline: None,
            finished: None,
            events: Vec::new(),
            cut: false,
            heard: false,
        }
    }

    fn input(&mut self, now: Timestamp, input: Input) {
        self.session.handle_input(now, input).expect("the pair uses its sessions as it should");
    }

    /// Polls until the session waits; true when the link was cut by what it sent.
    fn drain(&mut self, now: Timestamp, pipe: &mut Pipe, rng: &mut Rng) -> bool {
        let mut cut = false;
        loop {
            match self.session.poll_output() {
                Output::Transmit(bytes) => {
                    self.unwritten += bytes.len();
                    if !self.cut {
                        cut |= pipe.send(now, bytes, rng);
                    }
                }
                Output::Storage(request) => self.due.push(Due::Storage(request)),
                Output::Compute(job) => self.due.push(Due::Job(job)),
                Output::Event(event) => self.events.push(event),
                Output::Wait { deadline } => {
                    self.deadline = deadline.filter(|_| self.finished.is_none());
                    return cut;
                }
                Output::Finished(result) => self.finished = Some(result),
            }
        }
    }

    /// Answers one of what is due, in any order.
    fn work(&mut self, now: Timestamp, rng: &mut Rng) -> bool {
        if self.unwritten > 0 && (self.due.is_empty() || rng.below(2) == 0) {
            let written = 1 + rng.below(self.unwritten);
            self.unwritten -= written;
            self.input(now, Input::Written(written));
            return true;
        }
        if self.due.is_empty() {
            return false;
        }
        let index = rng.below(self.due.len());
        match self.due.swap_remove(index) {
            Due::Storage(Request { id, ask }) => {
                let answer = self.storage.answer(ask);
                self.input(now, Input::Answered { id, answer });
            }
            Due::Job(job) => {
                let id = job.id;
                let result = job.run();
                self.input(now, Input::Computed { id, result });
            }
        }
        true
    }

    fn receive(&mut self, now: Timestamp, pipe: &mut Pipe) -> bool {
        if !self.session.wants_bytes() {
            return false;
        }
        let Some(bytes) = pipe.receive(now) else { return false };
        self.input(now, Input::Received(bytes));
        true
    }

    /// The other end is gone, or the link is: what was on its way has arrived.
    fn hear_the_end(&mut self, now: Timestamp, other_finished: bool, pipe: &Pipe) -> bool {
        if self.heard || !(other_finished || self.cut) || pipe.next().is_some() {
            return false;
        }
        self.heard = true;
        self.input(now, Input::EndOfStream);
        true
    }

    fn pass_deadline(&mut self, now: Timestamp) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.input(now, Input::DeadlineReached);
        }
    }
}
