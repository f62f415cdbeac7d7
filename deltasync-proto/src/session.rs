//! One end of a connection as a state machine without I/O: the handshake, the transfers, and what leaves when.
//!
//! The session cuts received bytes into messages and hands them to the machine of their transfer, routes answers and
//! results back to whoever asked, and lets the transfers' frames leave in turn, so that none waits behind another. The
//! machines themselves are in `sending`, `receiving` and `asking`.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;
use deltasync_core::CAN_PACK;

use crate::context::{Context, Effects, Trouble, control_cost};
use crate::flow::Flow;
use crate::memory::{Memory, Sizes};
use crate::message::bounded_text;
use crate::transfer::{Machine, Transfer, refusal, verb_of_command, verb_of_message};
use crate::watch::{Due, Stage, Watch};
use crate::{
    Answer, ApiMisuse, CONTROL_MAX, Capabilities, Close, CloseCode, Command, Config, Encoded, EventKind, Frame,
    FrameDecoder, Hello, Input, InvalidMessage, Message, MessageKind, OpenedFile, Outcome, Output, Pace,
    PeerMisbehaved, Refusal, RefusalCode, SessionError, Stats, Timestamp, TransferError, TransferId, TransferMessage,
    Unsupported, VERSION, our_algorithms,
};

/// One end of a connection.
///
/// The contract: after an input, call [`Session::poll_output`] until it yields [`Output::Wait`] or
/// [`Output::Finished`]; answering inside that loop is part of the loop. Time is counted from the moment the session was
/// made: that is the driver's epoch. What is transmitted but not yet `Written` is bounded, and so is what a transfer may
/// have in flight, so a slow socket or disk slows one transfer and stops none. An answer that comes after its transfer
/// has ended is dropped, not an error.
///
/// ```text
/// client: Greeting ──hello──► Open ──► Finished      server: Greeting ──hello──────────► Open ──► Finished
///                   unsupported └─► says hello again            └─unknown version─► Skipping ─hello─┘
/// ```
#[derive(Debug)]
pub struct Session {
    role: Role,
    config: Config,
    /// The client's nonce, once it is known.
    nonce: [u8; 16],
    own_nonce: [u8; 16],
    /// The client has shown that it has seen the server's hello.
    seen: bool,
    link: Link,
    decoder: FrameDecoder,
    effects: Effects,
    transfers: BTreeMap<TransferId, Transfer>,
    /// Commands of a client that wait for their turn.
    waiting: VecDeque<(TransferId, Command)>,
    /// The largest number a transfer was begun under.
    highest: TransferId,
    /// Which transfer had its turn to transmit last.
    served: TransferId,
    unwritten: usize,
    watch: Watch,
    memory: Memory,
    /// How often the peer begins transfers.
    pace: Pace,
    stats: Stats,
    /// We sent something that the peer has to answer.
    awaiting: bool,
    /// When we last looked whether a transfer stalls.
    looked: Timestamp,
    now: Timestamp,
    finishing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

/// The connection's states.
#[derive(Debug)]
enum Link {
    /// The peer's hello has not come.
    Greeting,
    /// A server lets the first flight of an unknown version pass by.
    Skipping,
    /// Both hellos are known.
    Open { peer: Hello },
    /// Over; the result is still to be put out.
    Ending(Result<(), SessionError>),
    /// Over.
    Finished,
}

/// What is transmitted but not yet written stays below about this, in bytes.
const UNWRITTEN_MAX: usize = 2 << 20;
/// Small frames are gathered into transmissions of about this size, in bytes.
const GATHER: usize = 256 << 10;
/// Literal bytes from this length on are transmitted without being copied.
const COPY_MAX: usize = 16 << 10;
/// No more is taken from the peer while this many bytes of control frames wait to leave.
const CONTROL_MAX_QUEUED: usize = 1 << 20;
/// The longest payload of any frame: a piece of literals, its operations and some room.
const PAYLOAD_MAX: usize = 4 << 20;
/// The most literal bytes that we put into one piece.
const PIECE_MAX: usize = 512 << 10;
/// The least that the transfers of a session may hold, in bytes.
const MEMORY_MIN: u64 = 2 << 20;
/// The most transfers a client runs at once.
const CLIENT_TRANSFERS: usize = 32;

impl Session {
    /// The end that starts transfers. `entropy` is the only randomness the session uses; it must be fresh.
    pub fn client(config: Config, entropy: [u8; 32]) -> Self {
        let mut session = Self::new(Role::Client, config, entropy);
        session.greet(session.config.version);
        session
    }

    /// The end that serves them. `entropy` is the only randomness the session uses; it must be fresh.
    pub fn server(config: Config, entropy: [u8; 32]) -> Self {
        Self::new(Role::Server, config, entropy)
    }

    fn new(role: Role, mut config: Config, entropy: [u8; 32]) -> Self {
        // A piece that passes the credit of a fresh transfer could never leave.
        config.piece = config.piece.clamp(1, PIECE_MAX);
        // One transfer's first credit must fit.
        config.memory = config.memory.max(MEMORY_MIN);
        let nonce = *entropy.first_chunk().expect("16 of 32 bytes");
        Self {
            role,
            nonce,
            own_nonce: nonce,
            seen: false,
            link: Link::Greeting,
            // A stranger gets no more room than a hello needs.
            decoder: FrameDecoder::new(CONTROL_MAX),
            effects: Effects::default(),
            transfers: BTreeMap::new(),
            waiting: VecDeque::new(),
            highest: TransferId::new(0),
            served: TransferId::new(0),
            unwritten: 0,
            watch: Watch::default(),
            memory: Memory::new(config.memory),
            pace: Pace::default(),
            stats: Stats::default(),
            awaiting: false,
            looked: Timestamp::new(0),
            now: Timestamp::new(0),
            finishing: false,
            config,
        }
    }

    /// Takes in one input.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse`] when the embedding code is wrong; the session is as before.
    ///
    /// # Security
    ///
    /// Received bytes may be hostile: whatever they hold ends in an output, never in a panic or in unbounded memory.
    pub fn handle_input(&mut self, now: Timestamp, input: Input) -> Result<(), ApiMisuse> {
        self.now = self.now.max(now);
        if matches!(self.link, Link::Ending(_) | Link::Finished) {
            return match input {
                Input::Command { .. } => Err(ApiMisuse::Finished),
                // What was on its way when the session ended.
                _ => Ok(()),
            };
        }
        if self.is_busy() {
            self.watch.active(self.now);
        }
        if !self.wants_bytes() {
            self.watch.held_up(self.now);
        }
        match input {
            Input::Received(bytes) => self.on_received(&bytes),
            Input::Written(len) => {
                self.unwritten = self.unwritten.checked_sub(len).ok_or(ApiMisuse::Written)?;
                self.watch.written(self.now, len, self.unwritten);
            }
            Input::Command { transfer, command } => self.on_command(transfer, command)?,
            Input::Answered { id, answer } => {
                if let Some(transfer) = self.effects.take_request(id) {
                    if let Ok(answer) = &answer {
                        self.on_looked(transfer, answer);
                    }
                    self.step(transfer, 0, |machine, cx| machine.on_answer(id, answer, cx));
                    self.came_back(transfer);
                }
            }
            Input::Computed { id, result } => {
                if let Some(transfer) = self.effects.take_job(id) {
                    self.step(transfer, 0, |machine, cx| machine.on_computed(id, result.0, cx));
                    self.came_back(transfer);
                }
            }
            Input::DeadlineReached => self.on_deadline(),
            Input::Finish => self.finishing = true,
            Input::EndOfStream => self.on_end_of_stream(),
        }
        Ok(())
    }

    /// The next output.
    pub fn poll_output(&mut self) -> Output {
        loop {
            if let Some(output) = self.effects.outputs.pop_front() {
                return output;
            }
            if self.grant() || self.transmit() {
                continue;
            }
            match core::mem::replace(&mut self.link, Link::Finished) {
                Link::Finished => return Output::Wait { deadline: None },
                // The closing frame may wait for room in the socket, but not for a peer that no longer reads.
                Link::Ending(result) => return Output::Finished(result.map(|()| self.stats)),
                link => self.link = link,
            }
            if !self.start_waiting() {
                if self.finishing && self.transfers.is_empty() && self.effects.control.is_empty() {
                    self.end_when_finished();
                    continue;
                }
                return Output::Wait { deadline: Some(self.deadline()) };
            }
        }
    }

    /// False while enough is buffered, or the peer begins transfers faster than it may; the driver then leaves bytes in
    /// the socket.
    pub fn wants_bytes(&self) -> bool {
        self.effects.control_bytes < CONTROL_MAX_QUEUED && !self.is_paused()
    }

    /// What the connection has carried so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    // ---- the connection ----

    fn greet(&mut self, version: u8) {
        self.effects.send(&Message::Hello(Hello::ours(version, self.own_nonce)));
    }

    fn on_received(&mut self, bytes: &[u8]) {
        self.stats.wire_received += bytes.len() as u64;
        self.watch.received(self.now);
        self.decoder.push(bytes);
        self.take_frames(bytes.len(), false);
    }

    /// Takes the whole frames that are here, of which the last `len` bytes have come just now, until the peer must wait;
    /// `at_once` when it may not.
    fn take_frames(&mut self, len: usize, at_once: bool) {
        let mut frames = 0;
        while !matches!(self.link, Link::Ending(_) | Link::Finished) && (at_once || !self.is_paused()) {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => {
                    frames += 1;
                    if let Err(error) = self.on_frame(&frame) {
                        self.end(Err(error));
                    }
                }
                Ok(None) => {
                    self.check_first_bytes();
                    self.watch.taken(self.now, len, frames, self.decoder.buffered() > 0);
                    return;
                }
                Err(error) => self.end(Err(self.blame(error))),
            }
        }
        // What waits here is whole, or not known to be late.
        self.watch.taken(self.now, len, frames, false);
    }

    /// True while the peer has to wait before it may begin another transfer.
    fn is_paused(&self) -> bool {
        self.role == Role::Server && self.config.requests.is_some_and(|rate| self.pace.next(rate) > self.now)
    }

    /// Before the hello any damage means that this is no peer of ours.
    fn blame(&self, error: InvalidMessage) -> SessionError {
        match self.link {
            Link::Greeting => PeerMisbehaved::NoHello.into(),
            _ => error.into(),
        }
    }

    /// What does not begin like a hello is refused without waiting for a whole frame of it.
    fn check_first_bytes(&mut self) {
        let stranger = |first| first != MessageKind::Hello.code() && first != MessageKind::Close.code();
        if matches!(self.link, Link::Greeting) && self.decoder.first_byte().is_some_and(stranger) {
            self.end(Err(PeerMisbehaved::NoHello.into()));
        }
    }

    fn on_frame(&mut self, frame: &Frame) -> Result<(), SessionError> {
        if let Link::Greeting = self.link
            && ![MessageKind::Hello, MessageKind::Close].map(MessageKind::code).contains(&frame.kind)
        {
            return Err(PeerMisbehaved::NoHello.into());
        }
        if matches!(self.link, Link::Skipping) && frame.kind != MessageKind::Hello.code() {
            return Ok(());
        }
        let message = Message::decode(frame, &self.config.limits).map_err(|error| self.blame(error))?;
        match message {
            Message::Hello(hello) => self.on_hello(hello),
            Message::Unsupported(unsupported) => self.on_unsupported(unsupported),
            Message::Close(Close { code, message }) => Err(SessionError::ClosedByPeer { code, message }),
            Message::Ping => {
                self.effects.send(&Message::Pong);
                Ok(())
            }
            Message::Pong => Ok(()),
            Message::Seen(sum) => self.on_seen(sum),
            Message::Transfer(id, message) => self.on_transfer_message(id, message, &frame.payload),
        }
    }

    /// The client has seen our hello, so that what it sends is no recording of an earlier connection.
    fn on_seen(&mut self, sum: u64) -> Result<(), SessionError> {
        let (got, transfer) = (MessageKind::Seen, TransferId::new(0));
        if self.role == Role::Client || !matches!(self.link, Link::Open { .. }) {
            return Err(PeerMisbehaved::Unexpected { got, state: "not waiting for it", transfer }.into());
        }
        if sum != seen_of(&self.own_nonce) {
            return Err(PeerMisbehaved::Recorded.into());
        }
        self.seen = true;
        let ids: Vec<_> = self.transfers.keys().copied().collect();
        for id in ids {
            self.step(id, 0, |machine, cx| Ok(machine.on_seen(cx)));
        }
        Ok(())
    }

    /// A client that pushes says once that it has seen the server's hello.
    fn say_seen(&mut self) {
        let Link::Open { peer } = &self.link else { return };
        let wanted =
            |transfer: &Transfer| matches!(&transfer.machine, Machine::Sending(sending) if sending.is_unnamed());
        if self.role == Role::Client && !self.seen && self.transfers.values().any(wanted) {
            self.seen = true;
            self.effects.send(&Message::Seen(seen_of(&peer.nonce)));
        }
    }

    fn on_hello(&mut self, hello: Hello) -> Result<(), SessionError> {
        self.decoder.set_longest(PAYLOAD_MAX);
        let unexpected =
            || PeerMisbehaved::Unexpected { got: MessageKind::Hello, state: "open", transfer: TransferId::new(0) };
        match (self.role, &self.link) {
            (_, Link::Open { .. } | Link::Ending(_) | Link::Finished) => Err(unexpected().into()),
            (Role::Client, _) => {
                self.link = Link::Open { peer: hello };
                Ok(())
            }
            (Role::Server, link) => {
                let skipping = matches!(link, Link::Skipping);
                if !skipping {
                    self.greet(self.config.version);
                }
                if (VERSION..=self.config.version).contains(&hello.max) {
                    self.nonce = hello.nonce;
                    self.link = Link::Open { peer: hello };
                    return Ok(());
                }
                if skipping {
                    return Err(self.unsupported(hello.min, hello.max));
                }
                let (min, max, algorithms) = (VERSION, self.config.version, our_algorithms());
                self.effects.send(&Message::Unsupported(Unsupported { min, max, algorithms }));
                self.link = Link::Skipping;
                Ok(())
            }
        }
    }

    /// The server does not know our version: once, start again in one that both know.
    fn on_unsupported(&mut self, theirs: Unsupported) -> Result<(), SessionError> {
        let common = self.config.version.min(theirs.max);
        let ours = self.config.version;
        let first = matches!(&self.link, Link::Open { .. }) && self.role == Role::Client && ours > common;
        if !first || common < VERSION.max(theirs.min) {
            return Err(self.unsupported(theirs.min, theirs.max));
        }
        self.config.version = common;
        self.greet(common);
        for (id, transfer) in core::mem::take(&mut self.transfers).into_iter().rev() {
            self.release(id, &transfer.flow);
            let command = transfer.command.expect("every transfer of a client has its command");
            self.waiting.push_front((id, command));
        }
        Ok(())
    }

    fn unsupported(&self, peer_min: u8, peer_max: u8) -> SessionError {
        SessionError::Unsupported { peer_min, peer_max, ours: self.config.version }
    }

    fn on_deadline(&mut self) {
        // The peer may have waited until now.
        self.take_frames(0, false);
        match self.watch.due(self.now, self.stage(), &self.config) {
            Some(Due::End(error)) => return self.end(Err(error)),
            Some(Due::Ping) => self.effects.send(&Message::Ping),
            None => {}
        }
        if !self.transfers.is_empty() && self.now >= self.looked.after(self.config.keepalive) {
            self.look_for_stalls();
        }
    }

    fn stage(&self) -> Stage {
        let open = !matches!(self.link, Link::Greeting | Link::Skipping);
        Stage { open, busy: self.is_busy() }
    }

    fn is_busy(&self) -> bool {
        !self.transfers.is_empty() || !self.waiting.is_empty()
    }

    /// Tells the peer which transfers we are at work on, and ends those of which it should have told us something.
    fn look_for_stalls(&mut self) {
        self.looked = self.now;
        // A slow link that still moves is nobody's fault: what we sent may not have arrived, nor the answer be due. One
        // that does not move ends the connection.
        let backlog = self.unwritten > 0;
        // On a slow link one frame may take longer than a transfer may be silent, and others wait behind it.
        let receiving = self.watch.is_receiving();
        let ids: Vec<_> = self.transfers.keys().copied().collect();
        for id in ids {
            let Some(transfer) = self.transfers.get_mut(&id) else { continue };
            if backlog || self.effects.is_working(id) {
                transfer.flow.heard = self.now;
                self.effects.send(&Message::Transfer(id, TransferMessage::Working));
            } else if receiving {
                transfer.flow.heard = self.now;
            } else if self.now >= transfer.flow.heard.after(self.config.silence) {
                self.fail(id, TransferError::Stalled { after: self.config.silence });
            }
        }
    }

    /// When to come back without input.
    fn deadline(&self) -> Timestamp {
        let mut deadline = self.watch.next(self.stage(), &self.config);
        if !self.transfers.is_empty() {
            deadline = deadline.min(self.looked.after(self.config.keepalive));
        }
        if let Some(rate) = self.config.requests.filter(|_| self.is_paused()) {
            deadline = deadline.min(self.pace.next(rate));
        }
        deadline
    }

    fn on_end_of_stream(&mut self) {
        self.take_frames(0, true);
        if matches!(self.link, Link::Ending(_)) {
            return;
        }
        let settled = self.transfers.values().filter(|transfer| transfer.settled().is_some()).count();
        let open = self.transfers.len() - settled + self.waiting.len();
        let greeted = matches!(self.link, Link::Open { .. });
        let result = if open == 0 && (greeted || self.role == Role::Server && self.stats.wire_received == 0) {
            Ok(())
        } else {
            Err(SessionError::ConnectionLost { open })
        };
        self.end(result);
    }

    /// Ends the session: closing frame for the peer, an event for each transfer.
    fn end(&mut self, result: Result<(), SessionError>) {
        if let Err(error) = &result
            && let Some(code) = error.close_code()
        {
            let message = bounded_text(format!("{error}"));
            self.effects.send(&Message::Close(Close { code, message }));
        }
        let why = match &result {
            Ok(()) => String::from("it was closed"),
            Err(error) => format!("{error}"),
        };
        let lost = || TransferError::ConnectionLost(why.clone());
        for (id, transfer) in core::mem::take(&mut self.transfers) {
            self.release(id, &transfer.flow);
            self.effects.event(id, EventKind::Ended(transfer.settled().ok_or_else(lost)));
        }
        for (id, _) in core::mem::take(&mut self.waiting) {
            self.effects.event(id, EventKind::Ended(Err(lost())));
        }
        self.link = Link::Ending(result);
    }

    fn end_when_finished(&mut self) {
        if self.role == Role::Server {
            let message = String::from("server is shutting down");
            self.effects.send(&Message::Close(Close { code: CloseCode::ShuttingDown, message }));
        }
        self.end(Ok(()));
    }

    // ---- the transfers ----

    fn on_command(&mut self, id: TransferId, command: Command) -> Result<(), ApiMisuse> {
        if command == Command::Cancel {
            if self.transfers.contains_key(&id) {
                self.fail(id, TransferError::Cancelled);
            } else if let Some(index) = self.waiting.iter().position(|(waiting, _)| *waiting == id) {
                self.waiting.remove(index);
                self.effects.event(id, EventKind::Ended(Err(TransferError::Cancelled)));
            }
            // Otherwise it has just ended by itself.
            return Ok(());
        }
        if self.role == Role::Server {
            return Err(ApiMisuse::NotAClient);
        }
        if id <= self.highest {
            return Err(ApiMisuse::TransferNumber(id));
        }
        self.highest = id;
        self.waiting.push_back((id, command));
        Ok(())
    }

    /// Starts a command that waits, if there is one and room for it.
    fn start_waiting(&mut self) -> bool {
        if self.transfers.len() >= self.config.transfers.min(CLIENT_TRANSFERS) {
            return false;
        }
        let Some((id, command)) = self.waiting.pop_front() else { return false };
        if let Some((verb, path)) = verb_of_command(&command) {
            self.effects.event(id, EventKind::Started { verb, path });
        }
        let mut flow = Flow::new(self.now);
        let started = Machine::start(command.clone(), &mut self.context(id, 0, &mut flow));
        self.keep(id, flow, started, Some(command));
        true
    }

    /// Keeps a transfer whose machine has taken a step, or ends it.
    fn keep(&mut self, id: TransferId, flow: Flow, stepped: Result<Machine, Trouble>, command: Option<Command>) {
        match stepped {
            Ok(machine) => match machine.outcome() {
                Some(outcome) => self.conclude(id, flow, Ok(outcome)),
                None => {
                    if self.transfers.is_empty() {
                        self.looked = self.looked.max(flow.heard);
                    }
                    self.transfers.insert(id, Transfer { flow, machine, command });
                }
            },
            Err(Trouble::Transfer(error)) => self.conclude(id, flow, Err(error)),
            Err(Trouble::Session(error)) => {
                self.release(id, &flow);
                let why = TransferError::ConnectionLost(format!("{error}"));
                self.effects.event(id, EventKind::Ended(Err(why)));
                self.end(Err(error));
            }
        }
    }

    fn on_transfer_message(
        &mut self,
        id: TransferId,
        message: TransferMessage,
        payload: &Bytes,
    ) -> Result<(), SessionError> {
        match self.transfers.get_mut(&id) {
            Some(transfer) => {
                transfer.flow.heard = self.now;
                transfer.flow.received(id, message.kind(), payload)?;
                let before = transfer.flow.held();
                transfer.flow.decoded(&message);
                if !self.memory.hold(before, transfer.flow.held()) {
                    self.fail(id, TransferError::Memory { most: self.memory.half() });
                    return Ok(());
                }
                if matches!(message, TransferMessage::Offer(_)) {
                    self.on_offered(id);
                }
            }
            None if begins(&message) && self.role == Role::Server => return self.serve(id, message, payload),
            // It ended here while this was on its way, or the client has not asked for anything yet.
            None if id <= self.highest || may_come_first(&message) => return Ok(()),
            None => return Err(PeerMisbehaved::UnknownTransfer { got: message.kind(), transfer: id }.into()),
        }
        if is_answer(message.kind()) && core::mem::take(&mut self.awaiting) {
            self.stats.round_trips += 1;
        }
        match message {
            TransferMessage::Credit(bytes) => {
                if let Some(transfer) = self.transfers.get_mut(&id) {
                    transfer.flow.credited(bytes);
                }
            }
            TransferMessage::Refused(refusal) => self.fail(id, TransferError::Refused(refusal)),
            TransferMessage::Cancel => self.fail(id, TransferError::CancelledByPeer),
            TransferMessage::Working => {}
            message => self.step(id, payload.len(), |machine, cx| machine.on_message(message, cx)),
        }
        Ok(())
    }

    /// A peer begins a transfer.
    fn serve(&mut self, id: TransferId, message: TransferMessage, payload: &Bytes) -> Result<(), SessionError> {
        let Some((verb, path)) = verb_of_message(&message) else {
            return Err(PeerMisbehaved::UnknownTransfer { got: message.kind(), transfer: id }.into());
        };
        self.highest = self.highest.max(id);
        if let Some(rate) = self.config.requests {
            self.pace.count(rate, self.now);
        }
        // One that has ended while its work has not is still a burden.
        if self.finishing || self.transfers.len() + self.memory.leaving() >= self.config.transfers {
            let code = RefusalCode::Busy;
            let message = match self.finishing {
                true => String::from("server is shutting down"),
                false => format!("{} transfers run on this connection already", self.config.transfers),
            };
            let refusal = Refusal { code, message, current: None };
            self.effects.event(id, EventKind::Refused { verb });
            self.effects.send(&Message::Transfer(id, TransferMessage::Refused(refusal)));
            return Ok(());
        }
        self.effects.event(id, EventKind::Started { verb, path });
        let mut flow = Flow::new(self.now);
        flow.received(id, message.kind(), payload)?;
        flow.decoded(&message);
        let started = Machine::serve(message, &mut self.context(id, payload.len(), &mut flow));
        self.keep(id, flow, started, None);
        Ok(())
    }

    /// What the machine of one transfer works with.
    fn context<'a>(&'a mut self, id: TransferId, payload: usize, flow: &'a mut Flow) -> Context<'a> {
        // In a first flight nothing is known of the peer: most can unpack, and who cannot asks for a repair.
        let may_pack = match &self.link {
            Link::Open { peer } => peer.capabilities.has(Capabilities::ZSTD),
            _ => CAN_PACK,
        };
        let live = self.seen || self.role == Role::Client;
        let Self { role, config, nonce, own_nonce, link, effects, .. } = self;
        let server_nonce = match (role, link) {
            (Role::Client, Link::Open { peer }) => &peer.nonce,
            _ => own_nonce,
        };
        Context { id, config, nonce, server_nonce, live, may_pack, payload, flow, effects }
    }

    /// Hands something to a transfer's machine, if it has not ended.
    fn step(
        &mut self,
        id: TransferId,
        payload: usize,
        handler: impl FnOnce(Machine, &mut Context<'_>) -> Result<Machine, Trouble>,
    ) {
        let Some(Transfer { mut flow, machine, command }) = self.transfers.remove(&id) else { return };
        let held = flow.held();
        let stepped = handler(machine, &mut self.context(id, payload, &mut flow));
        let fits = self.memory.hold(held, flow.held());
        let stepped = stepped.and_then(|machine| match fits {
            true => Ok(machine),
            false => Err(TransferError::Memory { most: self.memory.half() }.into()),
        });
        self.keep(id, flow, stepped, command);
    }

    /// Ends a transfer badly, unless it has gone well already and is only being remembered.
    fn fail(&mut self, id: TransferId, error: TransferError) {
        if let Some(transfer) = self.transfers.remove(&id) {
            let result = transfer.settled().ok_or(error);
            self.conclude(id, transfer.flow, result);
        }
    }

    /// A transfer is over: its last words leave, also to tell a peer that does not know.
    fn conclude(&mut self, id: TransferId, mut flow: Flow, result: Result<Outcome, TransferError>) {
        self.release(id, &flow);
        self.watch.active(self.now);
        if let Err(error) = &result {
            flow.clear();
            if let Some(message) = refusal(error) {
                // Its last words have nothing to pack.
                flow.queue(id, message, false);
            }
        }
        for (kind, frame) in flow.into_control() {
            self.effects.send_encoded(kind, frame);
        }
        self.effects.event(id, EventKind::Ended(result));
    }

    // ---- what transfers hold ----

    /// The storage has looked at our file: what will this transfer hold?
    fn on_looked(&mut self, id: TransferId, answer: &Answer) {
        let Some(flow) = self.transfers.get_mut(&id).map(|transfer| &mut transfer.flow) else { return };
        let sizes = |file: &OpenedFile| (file.chunks.len().get(), file.chunks.runs().len() as u64);
        match answer {
            Answer::Described(file) => {
                let ours = sizes(file);
                flow.sizes = Sizes { target: ours.0, ours: Some(ours), ..flow.sizes };
                let price = flow.sizes.to_send(&self.config);
                self.want(id, price);
            }
            Answer::Basis { file, .. } => {
                flow.sizes.ours = Some(file.as_ref().map_or((0, 0), sizes));
                // A pull looks at what it has before it knows what it gets.
                if flow.offered {
                    let price = flow.sizes.to_receive(&self.config);
                    self.want(id, price);
                }
            }
            _ => {}
        }
    }

    /// An offer has come: what will this transfer hold, if we have looked at our file already?
    fn on_offered(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(&id) else { return };
        if transfer.flow.sizes.ours.is_some() {
            let price = transfer.flow.sizes.to_receive(&self.config);
            self.want(id, price);
        }
    }

    fn want(&mut self, id: TransferId, price: u64) {
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.flow.grant = self.memory.want(id, transfer.flow.grant, price);
            self.grant();
        }
    }

    /// Lets those go on for whom there is room; true when one does.
    fn grant(&mut self) -> bool {
        let mut any = false;
        while let Some((id, grant)) = self.memory.next_granted() {
            self.transfers.get_mut(&id).expect("only transfers that run wait for memory").flow.grant = grant;
            self.effects.let_go(id);
            any = true;
        }
        any
    }

    /// A transfer has ended: gives back what it held, or will when the last of its work has come back.
    fn release(&mut self, id: TransferId, flow: &Flow) {
        self.effects.drop_held_back(id);
        self.memory.leave(id, flow.grant, flow.held(), self.effects.is_working(id));
    }

    /// Something that a transfer has asked for has come back.
    fn came_back(&mut self, id: TransferId) {
        if !self.transfers.contains_key(&id) && !self.effects.is_working(id) {
            self.memory.left(id);
        }
    }

    // ---- what leaves ----

    /// Moves frames into the outputs; false when none may leave now.
    fn transmit(&mut self) -> bool {
        self.say_seen();
        let open = !matches!(self.link, Link::Ending(_) | Link::Finished);
        if open && self.unwritten >= UNWRITTEN_MAX {
            return false;
        }
        let mut gathered = Vec::new();
        while let Some((kind, frame)) = self.effects.control.pop_front() {
            self.effects.control_bytes -= control_cost(&frame);
            self.count(kind);
            gathered.extend_from_slice(&frame.head);
        }
        let mut tail = Bytes::new();
        while open && gathered.len() < GATHER {
            let Some((kind, frame)) = self.next_frame() else { break };
            self.count(kind);
            gathered.extend_from_slice(&frame.head);
            if frame.tail.len() > COPY_MAX {
                tail = frame.tail;
                break;
            }
            gathered.extend_from_slice(&frame.tail);
        }
        // A transfer's machine may also have asked for something.
        let asked = !self.effects.outputs.is_empty();
        let mut sent = false;
        for bytes in [Bytes::from(gathered), tail].into_iter().filter(|bytes| !bytes.is_empty()) {
            self.watch.transmitted(self.now);
            self.unwritten += bytes.len();
            self.stats.wire_sent += bytes.len() as u64;
            self.effects.outputs.push_back(Output::Transmit(bytes));
            sent = true;
        }
        sent || asked
    }

    fn count(&mut self, kind: MessageKind) {
        self.awaiting |= is_answer(kind);
    }

    /// The next frame of a transfer, each transfer in turn.
    fn next_frame(&mut self) -> Option<(MessageKind, Encoded)> {
        let after = self.transfers.range((Bound::Excluded(self.served), Bound::Unbounded));
        let ids: Vec<_> = after.chain(self.transfers.range(..=self.served)).map(|(id, _)| *id).collect();
        for id in ids {
            self.step(id, 0, |machine, cx| Ok(machine.pump(cx)));
            if let Some(frame) = self.transfers.get_mut(&id).and_then(|transfer| transfer.flow.pop()) {
                self.served = id;
                return Some(frame);
            }
        }
        None
    }
}

/// What shows that a hello with this nonce was seen.
fn seen_of(nonce: &[u8; 16]) -> u64 {
    u64::from_le_bytes(*nonce.first_chunk().expect("8 of 16 bytes"))
}

/// True for a message that begins a transfer.
fn begins(message: &TransferMessage) -> bool {
    match message {
        // A second offer is of a transfer that has ended here.
        TransferMessage::Offer(offer) => offer.attempt == 0,
        TransferMessage::Pull(_) | TransferMessage::List(_) | TransferMessage::AskRoot(_) => true,
        _ => false,
    }
}

/// True for what a client may say of a transfer before it has asked for anything: it is at work, or gave up.
fn may_come_first(message: &TransferMessage) -> bool {
    matches!(message, TransferMessage::Working | TransferMessage::Refused(_) | TransferMessage::Cancel)
}

/// True for the messages that are steps of a transfer, of which round trips are made.
fn is_answer(kind: MessageKind) -> bool {
    !kind.is_connection() && !matches!(kind, MessageKind::Credit | MessageKind::Working)
}
