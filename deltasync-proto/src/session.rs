//! One end of a connection as a state machine without I/O.

use bytes::Bytes;

use crate::{
    Answer, ApiMisuse, Command, Computed, Config, Event, Job, JobId, Request, RequestId, SessionError, StorageFault,
    Timestamp, TransferId,
};

/// What comes into a session.
#[derive(Debug)]
pub enum Input {
    /// Bytes from the peer, split anywhere.
    Received(Bytes),
    /// This many bytes of earlier [`Output::Transmit`]s have left the driver: there is room for more.
    Written(usize),
    /// Start a transfer under a number larger than all before it, or steer one; its events carry the same id.
    Command {
        /// Which transfer.
        transfer: TransferId,
        /// What to do.
        command: Command,
    },
    /// The answer to one [`Output::Storage`] request; answers may come in any order.
    Answered {
        /// The request's.
        id: RequestId,
        /// What the storage says.
        answer: Result<Answer, StorageFault>,
    },
    /// The result of one [`Output::Compute`] job; results may come in any order.
    Computed {
        /// The job's.
        id: JobId,
        /// What `Job::run` gave.
        result: Computed,
    },
    /// The deadline of the last [`Output::Wait`] has passed.
    DeadlineReached,
    /// Take no more transfers and end when those that run have ended.
    Finish,
    /// The peer has closed its direction.
    EndOfStream,
}

/// What comes out of a session.
#[derive(Debug)]
#[must_use]
pub enum Output {
    /// Send these bytes, in this order.
    Transmit(Bytes),
    /// Describe a path, read a range, stage, commit: data for the driver to act on.
    Storage(Request),
    /// Owned work for another thread.
    Compute(Job),
    /// Something happened to a transfer.
    Event(Event),
    /// Drained: come back with input, or at `deadline`.
    Wait {
        /// When to come back without any, if ever.
        deadline: Option<Timestamp>,
    },
    /// The last output, after any closing frame: how the connection ended. A transfer ends by its own event.
    Finished(Result<Stats, SessionError>),
}

/// What a connection carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes transmitted, everything counted.
    pub wire_sent: u64,
    /// Bytes received, everything counted.
    pub wire_received: u64,
    /// How often this end sent something and then had to wait for the peer's answer to it.
    pub round_trips: u32,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// The end that starts transfers. `entropy` is the only randomness the session uses.
    pub fn client(_config: Config, _entropy: [u8; 32]) -> Self {
        unimplemented!()
    }
    /// The end that serves them.
    pub fn server(_config: Config, _entropy: [u8; 32]) -> Self {
        unimplemented!()
    }
    /// Takes in one input.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse`] when the embedding code is wrong; the session is as before.
    pub fn handle_input(&mut self, _now: Timestamp, _input: Input) -> Result<(), ApiMisuse> {
        unimplemented!()
    }
    /// The next output.
    pub fn poll_output(&mut self) -> Output {
        unimplemented!()
    }
    /// False while enough is buffered; the driver then leaves bytes in the socket.
    pub fn wants_bytes(&self) -> bool {
        unimplemented!()
    }
    /// What the connection has carried so far.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }
}
