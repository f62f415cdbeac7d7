//! One session whose peer is the test itself, byte by byte: for bytes that no session of ours would send.
//!
//! Everything happens in one fixed order: storage and jobs are answered first come, first served, and time stands still
//! until [`Raw::advance`] moves it. So what a run transmits is the same each time and can be compared with a recording.
//! [`Raw::hold`] keeps chosen answers back, which stops a transfer in the state that waits for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltasync_core::{Limits, RelPath};
use deltasync_io::{BlockingStorage, MemoryStorage};
use deltasync_proto::{
    Answer, Ask, Close, CloseCode, Command, Config, Event, EventKind, Frame, FrameDecoder, Hello, Input, Job, Message,
    Outcome, Output, Request, RequestId, RootId, Session, SessionError, Stats, StorageFault, Timestamp, TransferError,
    TransferId, TransferMessage, encode_header,
};

/// What a session has asked its driver for.
#[derive(Debug)]
pub enum Due {
    /// An answer of the storage.
    Storage(Request),
    /// The result of a job.
    Job(Job),
}

/// One session, its files in memory, and whatever the test sends it.
pub struct Raw {
    session: Session,
    is_client: bool,
    /// The session's files, below root 0.
    pub storage: Arc<MemoryStorage>,
    now: Timestamp,
    deadline: Option<Timestamp>,
    due: VecDeque<Due>,
    hold: fn(&Due) -> bool,
    /// What was transmitted and not yet taken by the test.
    transmitted: Vec<u8>,
    unwritten: usize,
    writes: bool,
    events: Vec<Event>,
    finished: Option<Result<Stats, SessionError>>,
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raw").field("session", &self.session).field("finished", &self.finished).finish_non_exhaustive()
    }
}

impl Raw {
    /// The entropy of each client, so that its transmissions can be recorded.
    pub const CLIENT_ENTROPY: [u8; 32] = [0xc1; 32];
    /// The entropy of each server.
    pub const SERVER_ENTROPY: [u8; 32] = [0x5e; 32];

    /// A server without files.
    pub fn server(config: Config) -> Self {
        Self::server_with(config, Self::SERVER_ENTROPY)
    }

    /// A server without files, and with entropy of its own.
    pub fn server_with(config: Config, entropy: [u8; 32]) -> Self {
        Self::new(Session::server(config, entropy), false)
    }

    /// A client without files.
    pub fn client(config: Config) -> Self {
        Self::new(Session::client(config, Self::CLIENT_ENTROPY), true)
    }

    fn new(session: Session, is_client: bool) -> Self {
        let mut raw = Self {
            session,
            is_client,
            storage: Arc::default(),
            now: Timestamp::new(0),
            deadline: None,
            due: VecDeque::new(),
            hold: |_| false,
            transmitted: Vec::new(),
            unwritten: 0,
            writes: true,
            events: Vec::new(),
            finished: None,
        };
        raw.run();
        raw
    }

    /// Puts a file there.
    #[must_use]
    pub fn file(self, path: &str, bytes: impl Into<Bytes>) -> Self {
        let path = RelPath::new(path.as_bytes()).expect("a plain path");
        self.storage.insert(RootId::new(0), path, bytes);
        self
    }

    /// Keeps back the answers to what `hold` chooses, until [`Raw::release`].
    #[must_use]
    pub fn hold(mut self, hold: fn(&Due) -> bool) -> Self {
        self.hold = hold;
        self
    }

    /// Lets the transmitted bytes lie: none is ever reported written.
    #[must_use]
    pub fn without_writing(mut self) -> Self {
        self.writes = false;
        self
    }

    /// Starts a transfer; clients only.
    #[must_use]
    pub fn command(mut self, transfer: u32, command: Command) -> Self {
        self.input(Input::Command { transfer: TransferId::new(transfer), command });
        self
    }

    /// Sends bytes to the session, as one piece.
    pub fn feed(&mut self, bytes: impl Into<Bytes>) -> &mut Self {
        self.input(Input::Received(bytes.into()));
        self
    }

    /// Sends a frame to the session whose payload may be anything.
    pub fn frame(&mut self, kind: u8, transfer: u32, payload: &[u8]) -> &mut Self {
        let mut bytes = Vec::new();
        encode_header(&mut bytes, kind, TransferId::new(transfer), payload.len());
        bytes.extend_from_slice(payload);
        self.feed(bytes)
    }

    /// Sends a message to the session.
    pub fn send(&mut self, message: &Message) -> &mut Self {
        let frame = message.encode();
        self.feed([&frame.head[..], &frame.tail].concat())
    }

    /// Sends a message of a transfer to the session.
    pub fn say(&mut self, transfer: u32, message: TransferMessage) -> &mut Self {
        self.send(&Message::Transfer(TransferId::new(transfer), message))
    }

    /// Sends a hello of this build, shows a server that its own was seen, and forgets what the session has transmitted so
    /// far.
    pub fn greet(&mut self) -> &mut Self {
        self.send(&Message::Hello(Hello::ours(deltasync_proto::VERSION, [7; 16])));
        if !self.is_client() {
            let [a, b, c, d, e, f, g, h, ..] = Self::SERVER_ENTROPY;
            self.send(&Message::Seen(u64::from_le_bytes([a, b, c, d, e, f, g, h])));
        }
        self.take();
        self
    }

    /// The peer closes its direction.
    pub fn close(&mut self) -> &mut Self {
        self.input(Input::EndOfStream);
        self
    }

    /// Tells the session to end when its transfers have.
    pub fn finish(&mut self) -> &mut Self {
        self.input(Input::Finish);
        self
    }

    /// So many of the transmitted bytes leave the driver, for a session that was told [`Raw::without_writing`].
    pub fn write(&mut self, len: usize) -> &mut Self {
        let len = len.min(self.unwritten);
        self.unwritten -= len;
        self.input(Input::Written(len));
        self
    }

    /// Answers one request that was held back, as the test likes.
    pub fn answer(&mut self, id: RequestId, answer: Result<Answer, StorageFault>) {
        self.due.retain(|due| due.request() != Some(id));
        self.input(Input::Answered { id, answer });
    }

    /// Answers what was held back.
    pub fn release(&mut self) -> &mut Self {
        self.hold = |_| false;
        self.run();
        self
    }

    /// Lets time pass; every deadline on the way is met.
    pub fn advance(&mut self, time: Duration) -> &mut Self {
        let end = self.now.after(time);
        while let Some(deadline) = self.deadline.filter(|deadline| *deadline <= end && self.finished.is_none()) {
            self.now = self.now.max(deadline);
            self.input(Input::DeadlineReached);
            // A session that asks to be woken at once, again and again, would keep us here.
            assert!(self.deadline != Some(deadline) || self.finished.is_some(), "deadline {deadline:?} did nothing");
        }
        self.now = end;
        self
    }

    /// What the session has transmitted since this was last asked.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.transmitted)
    }

    /// The same as messages.
    ///
    /// # Panics
    ///
    /// When the session has transmitted something that is no message.
    pub fn messages(&mut self) -> Vec<Message> {
        let limits = Limits::default();
        self.frames().iter().map(|frame| Message::decode(frame, &limits).expect("ours decode")).collect()
    }

    /// The same as frames.
    ///
    /// # Panics
    ///
    /// When the session has transmitted something that is no whole number of frames.
    pub fn frames(&mut self) -> Vec<Frame> {
        let mut decoder = FrameDecoder::new(8 << 20);
        decoder.push(&self.take());
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next_frame().expect("ours are sound") {
            frames.push(frame);
        }
        assert_eq!(decoder.buffered(), 0, "only whole frames are transmitted");
        frames
    }

    /// The reason of the closing frame among the messages that were transmitted since this was last asked.
    pub fn closing(&mut self) -> Option<(CloseCode, String)> {
        self.messages().into_iter().find_map(|message| match message {
            Message::Close(Close { code, message }) => Some((code, message)),
            _ => None,
        })
    }

    /// True when the session is a client's, and so the test a server.
    pub fn is_client(&self) -> bool {
        self.is_client
    }

    /// How the session ended, if it has.
    pub fn finished(&self) -> Option<&Result<Stats, SessionError>> {
        self.finished.as_ref()
    }

    /// How a transfer ended, if it has.
    pub fn ended(&self, transfer: u32) -> Option<&Result<Outcome, TransferError>> {
        self.events.iter().find_map(|event| match &event.kind {
            EventKind::Ended(result) if event.transfer == TransferId::new(transfer) => Some(result),
            _ => None,
        })
    }

    /// What has happened so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The requests and jobs that are held back.
    pub fn due(&self) -> impl Iterator<Item = &Due> {
        self.due.iter()
    }

    /// How many bytes were transmitted and not reported written.
    pub fn unwritten(&self) -> usize {
        self.unwritten
    }

    /// False when the session asks to be given no more bytes now.
    pub fn wants_bytes(&self) -> bool {
        self.session.wants_bytes()
    }

    /// What a file holds.
    pub fn content(&self, path: &str) -> Option<Bytes> {
        self.storage.get(RootId::new(0), &RelPath::new(path.as_bytes()).expect("a plain path"))
    }

    fn input(&mut self, input: Input) {
        if self.finished.is_none() {
            self.session.handle_input(self.now, input).expect("the test uses its session as it should");
            self.run();
        }
    }

    /// Drains the session and answers what it asks for, in order.
    fn run(&mut self) {
        loop {
            match self.session.poll_output() {
                Output::Transmit(bytes) => {
                    self.transmitted.extend_from_slice(&bytes);
                    self.unwritten += bytes.len();
                }
                Output::Storage(request) => self.due.push_back(Due::Storage(request)),
                Output::Compute(job) => self.due.push_back(Due::Job(job)),
                Output::Event(event) => self.events.push(event),
                Output::Finished(result) => {
                    self.finished = Some(result);
                    return;
                }
                Output::Wait { deadline } => {
                    self.deadline = deadline;
                    let Some(input) = self.next_answer() else { return };
                    self.session.handle_input(self.now, input).expect("answers are of their request's kind");
                }
            }
        }
    }

    fn next_answer(&mut self) -> Option<Input> {
        if self.writes && self.unwritten > 0 {
            return Some(Input::Written(std::mem::take(&mut self.unwritten)));
        }
        let hold = self.hold;
        let index = self.due.iter().position(|due| !hold(due))?;
        Some(match self.due.remove(index)? {
            Due::Storage(Request { id, ask }) => Input::Answered { id, answer: self.storage.answer(ask) },
            Due::Job(job) => Input::Computed { id: job.id, result: job.run() },
        })
    }
}

impl Due {
    /// The number of the storage request, if it is one.
    pub fn request(&self) -> Option<RequestId> {
        match self {
            Self::Storage(request) => Some(request.id),
            Self::Job(_) => None,
        }
    }

    /// The name of what is due: of the [`Ask`], or `Job`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Job(_) => "Job",
            Self::Storage(Request { ask, .. }) => match ask {
                Ask::Describe { .. } => "Describe",
                Ask::Basis { .. } => "Basis",
                Ask::Alike { .. } => "Alike",
                Ask::Refine { .. } => "Refine",
                Ask::Read { .. } => "Read",
                Ask::Recheck { .. } => "Recheck",
                Ask::Stage { .. } => "Stage",
                Ask::Apply { .. } => "Apply",
                Ask::Seal { .. } => "Seal",
                Ask::Commit { .. } => "Commit",
                Ask::List { .. } => "List",
                Ask::Recall { .. } => "Recall",
                Ask::Remember { .. } => "Remember",
                Ask::StageTree { .. } => "StageTree",
                Ask::Adorn { .. } => "Adorn",
                Ask::MakeDirectory { .. } => "MakeDirectory",
                Ask::Rename { .. } => "Rename",
                Ask::Remove { .. } => "Remove",
                _ => "another request",
            },
        }
    }
}
