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
use crate::message::bounded_text;
use crate::transfer::{Machine, Transfer, refusal, verb_of_command, verb_of_message};
use crate::{
    ApiMisuse, CONTROL_MAX, Capabilities, Close, CloseCode, Command, Config, Encoded, EventKind, Frame, FrameDecoder,
    Hello, Input, InvalidMessage, Message, MessageKind, Outcome, Output, PeerMisbehaved, Refusal, RefusalCode,
    SessionError, Stats, Timestamp, TransferError, TransferId, TransferMessage, Unsupported, VERSION, our_algorithms,
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
    /// When bytes last left the driver, or began to wait for it.
    written: Timestamp,
    stats: Stats,
    /// We sent something that the peer has to answer.
    awaiting: bool,
    last_received: Timestamp,
    pinged: bool,
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
        let nonce = *entropy.first_chunk().expect("16 of 32 bytes");
        Self {
            role,
            nonce,
            own_nonce: nonce,
            link: Link::Greeting,
            // A stranger gets no more room than a hello needs.
            decoder: FrameDecoder::new(CONTROL_MAX),
            effects: Effects::default(),
            transfers: BTreeMap::new(),
            waiting: VecDeque::new(),
            highest: TransferId::new(0),
            served: TransferId::new(0),
            unwritten: 0,
            written: Timestamp::new(0),
            stats: Stats::default(),
            awaiting: false,
            last_received: Timestamp::new(0),
            pinged: false,
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
        match input {
            Input::Received(bytes) => self.on_received(&bytes),
            Input::Written(len) => {
                self.unwritten = self.unwritten.checked_sub(len).ok_or(ApiMisuse::Written)?;
                self.written = self.now;
            }
            Input::Command { transfer, command } => self.on_command(transfer, command)?,
            Input::Answered { id, answer } => {
                if let Some(transfer) = self.effects.take_request(id) {
                    self.step(transfer, 0, |machine, cx| machine.on_answer(id, answer, cx));
                }
            }
            Input::Computed { id, result } => {
                if let Some(transfer) = self.effects.take_job(id) {
                    self.step(transfer, 0, |machine, cx| machine.on_computed(id, result.0, cx));
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
            if self.transmit() {
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

    /// False while enough is buffered; the driver then leaves bytes in the socket.
    pub fn wants_bytes(&self) -> bool {
        self.effects.control_bytes < CONTROL_MAX_QUEUED
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
        self.last_received = self.now;
        self.pinged = false;
        self.decoder.push(bytes);
        while !matches!(self.link, Link::Ending(_) | Link::Finished) {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => {
                    if let Err(error) = self.on_frame(&frame) {
                        self.end(Err(error));
                    }
                }
                Ok(None) => {
                    self.check_first_bytes();
                    return;
                }
                Err(error) => self.end(Err(self.blame(error))),
            }
        }
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
            Message::Transfer(id, message) => self.on_transfer_message(id, message, &frame.payload),
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
            let command = transfer.command.expect("every transfer of a client has its command");
            self.waiting.push_front((id, command));
        }
        Ok(())
    }

    fn unsupported(&self, peer_min: u8, peer_max: u8) -> SessionError {
        SessionError::Unsupported { peer_min, peer_max, ours: self.config.version }
    }

    fn on_deadline(&mut self) {
        if self.now >= self.link_deadline() {
            if matches!(self.link, Link::Greeting | Link::Skipping) {
                return self.end(Err(SessionError::TimedOut { what: "hello", after: self.config.handshake }));
            }
            if self.pinged {
                return self.end(Err(SessionError::TimedOut { what: "sign of life", after: self.config.silence }));
            }
            self.pinged = true;
            self.effects.send(&Message::Ping);
        }
        if !self.transfers.is_empty() && self.now >= self.looked.after(self.config.keepalive) {
            self.look_for_stalls();
        }
    }

    /// Tells the peer which transfers we are at work on, and ends those of which it should have told us something.
    fn look_for_stalls(&mut self) {
        self.looked = self.now;
        // A slow link that still moves is nobody's fault: what we sent may not have arrived, nor the answer be due.
        let backlog = self.unwritten > 0 && self.now < self.written.after(self.config.silence);
        let ids: Vec<_> = self.transfers.keys().copied().collect();
        for id in ids {
            let Some(transfer) = self.transfers.get_mut(&id) else { continue };
            if backlog || self.effects.is_working(id) {
                transfer.flow.heard = self.now;
                self.effects.send(&Message::Transfer(id, TransferMessage::Working));
            } else if self.now >= transfer.flow.heard.after(self.config.silence) {
                self.fail(id, TransferError::Stalled { after: self.config.silence });
            }
        }
    }

    /// When to come back without input.
    fn deadline(&self) -> Timestamp {
        match self.transfers.is_empty() {
            true => self.link_deadline(),
            false => self.link_deadline().min(self.looked.after(self.config.keepalive)),
        }
    }

    /// When the hello is due, or a sign of life, or its absence is the end.
    fn link_deadline(&self) -> Timestamp {
        match self.link {
            Link::Greeting | Link::Skipping => Timestamp::new(0).after(self.config.handshake),
            _ if self.pinged => self.last_received.after(self.config.silence),
            _ => self.last_received.after(self.config.keepalive),
        }
    }

    fn on_end_of_stream(&mut self) {
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
        if self.finishing || self.transfers.len() >= self.config.transfers {
            let code = RefusalCode::Busy;
            let message = match self.finishing {
                true => String::from("server is shutting down"),
                false => format!("{} transfers run on this connection already", self.transfers.len()),
            };
            let refusal = Refusal { code, message, current: None };
            self.effects.send(&Message::Transfer(id, TransferMessage::Refused(refusal)));
            return Ok(());
        }
        self.effects.event(id, EventKind::Started { verb, path });
        let mut flow = Flow::new(self.now);
        flow.received(id, message.kind(), payload)?;
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
        let Self { role, config, nonce, own_nonce, link, effects, .. } = self;
        let server_nonce = match (role, link) {
            (Role::Client, Link::Open { peer }) => &peer.nonce,
            _ => own_nonce,
        };
        Context { id, config, nonce, server_nonce, may_pack, payload, flow, effects }
    }

    /// Hands something to a transfer's machine, if it has not ended.
    fn step(
        &mut self,
        id: TransferId,
        payload: usize,
        handler: impl FnOnce(Machine, &mut Context<'_>) -> Result<Machine, Trouble>,
    ) {
        let Some(Transfer { mut flow, machine, command }) = self.transfers.remove(&id) else { return };
        let stepped = handler(machine, &mut self.context(id, payload, &mut flow));
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

    // ---- what leaves ----

    /// Moves frames into the outputs; false when none may leave now.
    fn transmit(&mut self) -> bool {
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
            if self.unwritten == 0 {
                self.written = self.now;
            }
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
