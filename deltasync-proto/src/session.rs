//! One end of a connection as a state machine without I/O: the handshake, the transfers, and what leaves when.
//!
//! The session cuts received bytes into messages and hands them to the machine of their transfer, routes answers and
//! results back to whoever asked, and lets the transfers' frames leave in turn, so that none waits behind another. The
//! machines themselves are in `sending`, `receiving` and `asking`.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::context::Effects;
use crate::memory::Memory;
use crate::transfer::Transfer;
use crate::watch::Watch;
use crate::{
    ApiMisuse, CONTROL_MAX, Command, Config, FrameDecoder, Hello, Input, Output, Pace, SessionError, Stats, Timestamp,
    TransferId,
};

mod connection;
mod leaving;
mod transfers;

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
    /// Members of trees that wait until those were looked at, by the tree.
    behind: BTreeMap<TransferId, Vec<TransferId>>,
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

/// No more is taken from the peer while this many bytes of control frames wait to leave.
const CONTROL_MAX_QUEUED: usize = 1 << 20;
/// The most literal bytes that we put into one piece.
const PIECE_MAX: usize = 512 << 10;
/// The least that the transfers of a session may hold, in bytes.
const MEMORY_MIN: u64 = 2 << 20;

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
            behind: BTreeMap::new(),
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
}
