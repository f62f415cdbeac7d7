//! A link in memory: splits, delays, cuts and damages the bytes that cross it, by a seed.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use deltasync_proto::Timestamp;

use crate::Rng;

/// How a link treats the bytes of each direction.
#[derive(Clone, Debug, Default)]
pub struct Link {
    split: Split,
    delay: Duration,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Split {
    #[default]
    None,
    Every(usize),
    Random(usize),
}

/// What goes wrong, and after how many bytes of one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) direction: Direction,
    pub(crate) at: u64,
    pub(crate) kind: FaultOf,
}

/// What can go wrong with a link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FaultOf {
    /// Both directions end.
    Cut,
    /// Nothing more arrives, and nobody is told.
    Stall,
    /// One bit is flipped.
    Flip,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Link {
    /// A link that delivers at once what was sent.
    pub fn perfect() -> Self {
        Self::default()
    }

    /// A link that delivers pieces of `len` bytes.
    pub fn split_every(len: usize) -> Self {
        Self { split: Split::Every(len.max(1)), ..Self::default() }
    }

    /// A link that delivers pieces of random lengths up to `most` bytes.
    pub fn split_randomly(most: usize) -> Self {
        Self { split: Split::Random(most.max(1)), ..Self::default() }
    }

    /// Bytes arrive so much later.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Both directions end when `at` bytes have gone in `direction`.
    #[must_use]
    pub fn cut(self, direction: Direction, at: u64) -> Self {
        self.fault(direction, at, FaultOf::Cut)
    }

    /// Nothing more arrives when `at` bytes have gone in `direction`.
    #[must_use]
    pub fn stall(self, direction: Direction, at: u64) -> Self {
        self.fault(direction, at, FaultOf::Stall)
    }

    /// The byte number `at` of `direction` arrives with one bit flipped.
    #[must_use]
    pub fn flip(self, direction: Direction, at: u64) -> Self {
        self.fault(direction, at, FaultOf::Flip)
    }

    fn fault(mut self, direction: Direction, at: u64, kind: FaultOf) -> Self {
        self.fault = Some(Fault { direction, at, kind });
        self
    }
}

/// One direction while it runs.
#[derive(Debug)]
pub(crate) struct Pipe {
    link: Link,
    fault: Option<Fault>,
    queue: VecDeque<(Timestamp, Bytes)>,
    carried: u64,
    stalled: bool,
}

impl Pipe {
    pub(crate) fn new(link: &Link, direction: Direction) -> Self {
        let fault = link.fault.filter(|fault| fault.direction == direction);
        Self { link: link.clone(), fault, queue: VecDeque::new(), carried: 0, stalled: false }
    }

    /// Takes in sent bytes; true when the link is cut by them.
    pub(crate) fn send(&mut self, now: Timestamp, mut bytes: Bytes, rng: &mut Rng) -> bool {
        let mut cut = false;
        if let Some(Fault { at, kind, .. }) = self.fault
            && at < self.carried + bytes.len() as u64
        {
            let index = (at - self.carried) as usize;
            self.fault = None;
            match kind {
                FaultOf::Flip => {
                    let mut damaged = bytes.to_vec();
                    damaged[index] ^= 1 << rng.below(8);
                    bytes = damaged.into();
                }
                FaultOf::Cut => {
                    bytes.truncate(index);
                    cut = true;
                }
                FaultOf::Stall => {
                    bytes.truncate(index);
                    self.carried += index as u64;
                    self.enqueue(now, bytes, rng);
                    self.stalled = true;
                    return false;
                }
            }
        }
        if !self.stalled {
            self.carried += bytes.len() as u64;
            self.enqueue(now, bytes, rng);
        }
        cut
    }

    fn enqueue(&mut self, now: Timestamp, mut bytes: Bytes, rng: &mut Rng) {
        let arrival = now.after(self.link.delay);
        while !bytes.is_empty() {
            let len = match self.link.split {
                Split::None => bytes.len(),
                Split::Every(len) => len,
                Split::Random(most) => 1 + rng.below(most),
            };
            let piece = bytes.split_to(len.min(bytes.len()));
            self.queue.push_back((arrival, piece));
        }
    }

    /// When the next piece arrives.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.queue.front().map(|(arrival, _)| *arrival)
    }

    pub(crate) fn receive(&mut self, now: Timestamp) -> Option<Bytes> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop_front().map(|(_, bytes)| bytes)
    }

    /// How many bytes have gone through.
    pub(crate) fn carried(&self) -> u64 {
        self.carried
    }
}
