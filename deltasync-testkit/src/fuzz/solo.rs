//! One session alone with its storage: what it asks is answered at once, and what it reports is checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltasync_core::{Algorithm, ByteLen, Limits, RelPath};
use deltasync_io::{BlockingStorage, MemoryStorage};
use deltasync_proto::{
    Answer, Ask, Config, EventKind, Input, Job, Outcome, Output, Place, Request, RootId, Session, SessionError, Stats,
    Timestamp, TransferId, Verb,
};

use crate::Rng;

/// More than any input of a fuzzer asks for: a run that passes it goes in circles.
const STEPS_MAX: usize = 1_000_000;
/// A session holds back what is not written from about 2 MiB on, in bytes.
const UNWRITTEN_MAX: usize = 4 << 20;

/// The directory that peers see.
pub(super) const SERVED: RootId = RootId::new(0);

/// Limits that short inputs can reach.
pub(super) fn limits() -> Limits {
    Limits::default().file(ByteLen::new(1 << 20)).chunks(1 << 12)
}

pub(super) fn config() -> Config {
    Config::default().limits(limits()).transfers(4).remember(true)
}

/// Which end a session is, and so which verbs write into its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// A session with its storage.
#[derive(Debug)]
pub(super) struct Solo {
    role: Role,
    session: Session,
    storage: Arc<MemoryStorage>,
    rng: Rng,
    now: Timestamp,
    deadline: Option<Timestamp>,
    due: Vec<Due>,
    /// Whether what is transmitted is told to have been written.
    writes: bool,
    unwritten: usize,
    running: BTreeMap<TransferId, (Verb, RelPath)>,
    steps: usize,
    pub(super) finished: Option<Result<Stats, SessionError>>,
}

#[derive(Debug)]
enum Due {
    Storage(Request),
    Job(Job),
}

impl Solo {
    pub(super) fn new(role: Role, storage: Arc<MemoryStorage>, config: Config, order: u64, writes: bool) -> Self {
        let session = match role {
            Role::Client => Session::client(config, [1; 32]),
            Role::Server => Session::server(config, [2; 32]),
        };
        Self {
            role,
            session,
            storage,
            rng: Rng::new(order),
            now: Timestamp::new(0),
            deadline: None,
            due: Vec::new(),
            writes,
            unwritten: 0,
            running: BTreeMap::new(),
            steps: 0,
            finished: None,
        }
    }

    /// Hands the session an input and answers until it waits; returns what it transmits.
    pub(super) fn input(&mut self, input: Input) -> Vec<u8> {
        self.session.handle_input(self.now, input).expect("it is used as it should be");
        let mut sent = Vec::new();
        loop {
            self.poll(&mut sent);
            if self.due.is_empty() {
                assert!(self.unwritten <= UNWRITTEN_MAX, "{} bytes wait to be written", self.unwritten);
                return sent;
            }
            let index = self.rng.below(self.due.len());
            let input = match self.due.swap_remove(index) {
                Due::Storage(Request { id, ask }) => Input::Answered { id, answer: self.storage.answer(ask) },
                Due::Job(job) => Input::Computed { id: job.id, result: job.run() },
            };
            self.session.handle_input(self.now, input).expect("an answer to what was asked");
        }
    }

    /// Hands over received bytes, if the session wants any.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self.finished.is_none() && self.session.wants_bytes() {
            true => self.input(Input::Received(Bytes::copy_from_slice(bytes))),
            false => Vec::new(),
        }
    }

    /// Lets the session's next deadline pass, if it has one.
    pub(super) fn pass_deadline(&mut self) {
        if let Some(deadline) = self.deadline {
            self.now = self.now.max(deadline).after(Duration::from_nanos(1));
            self.input(Input::DeadlineReached);
        }
    }

    /// Ends the stream, or lets time pass until the session ends by itself; then checks that all is over.
    pub(super) fn end(&mut self, by_stream: bool) {
        if self.finished.is_none() && by_stream {
            self.input(Input::EndOfStream);
        }
        // Nothing may have come so far, so that it was never asked for its deadline.
        self.poll(&mut Vec::new());
        for _ in 0..100 {
            if self.finished.is_some() {
                break;
            }
            self.pass_deadline();
        }
        assert!(self.finished.is_some(), "it ends when nothing more comes");
        assert!(self.running.is_empty(), "every transfer ends: {:?}", self.running);
    }

    fn poll(&mut self, sent: &mut Vec<u8>) {
        loop {
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "it goes in circles");
            match self.session.poll_output() {
                Output::Transmit(bytes) => {
                    sent.extend_from_slice(&bytes);
                    match self.writes {
                        true => self.session.handle_input(self.now, Input::Written(bytes.len())).expect("just sent"),
                        false => self.unwritten += bytes.len(),
                    }
                }
                Output::Storage(request) => self.due.push(Due::Storage(request)),
                Output::Compute(job) => self.due.push(Due::Job(job)),
                Output::Event(event) => self.on_event(event.transfer, event.kind),
                Output::Wait { deadline } => {
                    self.deadline = deadline;
                    return;
                }
                Output::Finished(result) => {
                    assert!(self.finished.is_none(), "it finishes once");
                    self.finished = Some(result);
                }
            }
        }
    }

    fn on_event(&mut self, transfer: TransferId, event: EventKind) {
        match event {
            EventKind::Started { verb, path } => {
                // A client starts again when the server speaks another version.
                let before = self.running.insert(transfer, (verb, path));
                assert!(before.is_none() || self.role == Role::Client, "{transfer} started twice");
            }
            EventKind::Ended(result) => {
                // A transfer that never had its turn ends without having started.
                let begun = self.running.remove(&transfer);
                match (result, begun) {
                    (Ok(outcome), Some((verb, path))) => self.check_published(verb, &path, &outcome),
                    (Ok(_), None) => panic!("{transfer} went well without having started"),
                    (Err(error), _) => assert!(!error.to_string().is_empty()),
                }
            }
            _ => {}
        }
    }

    /// What was published has the root that was reported.
    fn check_published(&self, verb: Verb, path: &RelPath, outcome: &Outcome) {
        let receives = match self.role {
            Role::Client => verb == Verb::Pull,
            Role::Server => verb == Verb::Push,
        };
        if !receives || outcome.generation.is_none() {
            return;
        }
        let right = |path: &RelPath| {
            let bytes = self.storage.get(SERVED, path);
            bytes.is_some_and(|bytes| Algorithm::ALL.iter().any(|algorithm| algorithm.digest(&bytes) == outcome.root))
        };
        let listed = self.storage.answer(Ask::List {
            place: Place { root: SERVED, path: path.clone() },
            after: None,
            most: usize::MAX,
        });
        let inside = match listed {
            Ok(Answer::Listed { entries, .. }) => entries,
            _ => Vec::new(),
        };
        let mut inside = inside.into_iter().filter_map(|entry| path.join(&entry.name).ok());
        assert!(right(path) || inside.any(|path| right(&path)), "no file at {path} has the root {}", outcome.root);
    }
}
