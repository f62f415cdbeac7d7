//! What a driver and a session say to each other: one way in, one way out.

use bytes::Bytes;

use crate::{
    Answer, Command, Computed, Event, Job, JobId, Request, RequestId, SessionError, StorageFault, Timestamp, TransferId,
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
