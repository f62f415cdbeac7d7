//! One direction of a faulty link, on a virtual clock.
//!
//! What is sent is cut into pieces that arrive in order, later: after the latency of the link, the time its rate takes,
//! and perhaps a pause. One fault may strike at any byte: the link is cut (what is under way arrives, is lost, or arrives
//! long after), the direction falls silent and nobody is told, a byte is flipped, doubled or left out, or all that was sent
//! at once is lost. A sender hears that bytes have left when they have, or, over a link without buffers, when they have
//! arrived.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{MILLISECOND, SECOND};
use crate::Rng;

/// How a link treats what is sent over it.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    /// In nanoseconds.
    pub(super) latency: u64,
    /// The longest piece that arrives at once, in bytes.
    pub(super) piece: usize,
    /// Nanoseconds for each byte.
    pub(super) pace: u64,
    /// Bytes count as written once they have arrived.
    pub(super) unbuffered: bool,
    /// So many pieces come after a pause, each of the first with a chance of one in eight.
    pub(super) pauses: usize,
    pub(super) fault: Option<Fault>,
}

/// What goes wrong, and at which byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) at: u64,
    pub(super) kind: FaultOf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultOf {
    /// Both directions end, and what is under way is lost.
    Cut,
    /// Both directions end, and what is under way arrives.
    CutSoftly,
    /// Both directions end for the sender; what it sent before arrives long after.
    CutLate,
    /// Nothing more arrives, and nobody is told.
    Silence,
    Flip,
    Double,
    Drop,
    /// All that was sent at once is lost, and what follows arrives.
    Lose,
}

impl FaultOf {
    pub(super) fn ends(self) -> bool {
        matches!(self, Self::Cut | Self::CutSoftly | Self::CutLate)
    }

    pub(super) fn damages(self) -> bool {
        matches!(self, Self::Flip | Self::Double | Self::Drop | Self::Lose)
    }
}

/// One direction while it runs.
#[derive(Debug)]
pub(super) struct Wire {
    manner: Manner,
    queue: VecDeque<(u64, Bytes)>,
    sent: u64,
    last: u64,
    silent: bool,
    /// Nothing more is taken.
    pub(super) closed: bool,
}

/// What came of sending something.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// When pieces arrive.
    pub(super) arrivals: Vec<u64>,
    /// When how many bytes have left.
    pub(super) written: Vec<(u64, usize)>,
    /// What went wrong by it.
    pub(super) struck: Option<FaultOf>,
    /// How much later than on a perfect link the last byte arrives for reasons of the link, in nanoseconds.
    pub(super) delayed: u64,
}

impl Wire {
    pub(super) fn new(manner: Manner) -> Self {
        Self { manner, queue: VecDeque::new(), sent: 0, last: 0, silent: false, closed: false }
    }

    pub(super) fn send(&mut self, now: u64, bytes: &Bytes, rng: &mut Rng) -> Sent {
        let mut sent = Sent::default();
        if self.closed {
            return sent;
        }
        let mut bytes = bytes.clone();
        let lost = bytes.len();
        if let Some(Fault { at, kind }) = self.manner.fault
            && at < self.sent + bytes.len() as u64
        {
            self.manner.fault = None;
            sent.struck = Some(kind);
            let index = (at - self.sent) as usize;
            let mut damaged = bytes.to_vec();
            match kind {
                FaultOf::Flip => damaged[index] ^= 1 << rng.below(8),
                FaultOf::Double => damaged.insert(index, bytes[index]),
                FaultOf::Drop => drop(damaged.remove(index)),
                FaultOf::Lose => damaged.clear(),
                FaultOf::Cut | FaultOf::CutSoftly | FaultOf::CutLate | FaultOf::Silence => damaged.truncate(index),
            }
            bytes = damaged.into();
            self.silent |= kind == FaultOf::Silence;
            self.enqueue(now, bytes, &mut sent, rng);
            self.closed |= kind.ends() || self.silent;
        } else {
            self.enqueue(now, bytes, &mut sent, rng);
        }
        self.sent += lost as u64;
        // The sender counts its own bytes, whatever became of them; into a dead link only as many as a buffer takes.
        let counted: usize = sent.written.iter().map(|(_, len)| len).sum();
        if counted > lost {
            let mut surplus = counted - lost;
            for (_, len) in sent.written.iter_mut().rev() {
                let less = surplus.min(*len);
                *len -= less;
                surplus -= less;
            }
        } else if counted < lost {
            // What was lost alone has left like all before and after it.
            let lost_alone = sent.struck.is_some_and(FaultOf::damages);
            if lost_alone || !self.manner.unbuffered && lost - counted < 64 << 10 {
                sent.written.push((now + MILLISECOND, lost - counted));
            }
        }
        sent.written.retain(|(_, len)| *len > 0);
        sent
    }

    fn enqueue(&mut self, now: u64, mut bytes: Bytes, sent: &mut Sent, rng: &mut Rng) {
        let begun = self.last.max(now + self.manner.latency);
        let mut at = begun;
        while !bytes.is_empty() {
            let len = (1 + rng.below(self.manner.piece)).min(bytes.len());
            at += len as u64 * self.manner.pace;
            if self.manner.pauses > 0 && rng.below(8) == 0 {
                self.manner.pauses -= 1;
                at += rng.below(8) as u64 * SECOND;
            }
            self.queue.push_back((at, bytes.split_to(len)));
            sent.arrivals.push(at);
            let left = if self.manner.unbuffered { at } else { at.saturating_sub(self.manner.latency).max(now) };
            sent.written.push((left, len));
        }
        self.last = at;
        sent.delayed = at - begun;
    }

    /// What arrives next, if it has arrived by now.
    pub(super) fn receive(&mut self, now: u64) -> Option<Bytes> {
        let (at, _) = self.queue.front()?;
        if *at > now {
            return None;
        }
        self.queue.pop_front().map(|(_, bytes)| bytes)
    }

    /// When the last of what is under way arrives.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What is under way is lost.
    pub(super) fn lose(&mut self) {
        self.queue.clear();
    }

    /// What is under way arrives later by this; returns when.
    pub(super) fn delay(&mut self, by: u64) -> Vec<u64> {
        self.queue.iter_mut().for_each(|(at, _)| *at += by);
        self.last += by;
        self.queue.iter().map(|(at, _)| *at).collect()
    }
}
