//! What one transfer may send and receive: its queue of frames and its credit in both directions.
//!
//! Bulk frames (tags, wants, pieces of a delta) are counted against a credit that the other end gives, so a slow disk
//! holds up its own transfer and no other, and a peer cannot make us buffer more than we offered. A frame costs its
//! payload and [`FRAME_COST`] more, so that many tiny frames are not cheaper to hold than they are to send.
//!
//! Invariant: the frames of one transfer leave in the order in which they were queued, and what was received but not
//! yet used up is at most the credit that was given.

use alloc::collections::VecDeque;

use bytes::Bytes;

use crate::memory::{Grant, Sizes};
use crate::{
    Content, Delta, Encoded, Message, MessageKind, PeerMisbehaved, Timestamp, TransferId, TransferMessage, Want,
};

/// The credit with which every transfer begins, in bytes, in both directions: what a first flight can hold.
pub(crate) const INITIAL_CREDIT: u64 = 1 << 20;
/// The credit of a transfer that turned out to be large, in bytes.
const WIDE_CREDIT: u64 = 4 << 20;
/// Credit is given back in portions of at least this many bytes.
const PORTION: u64 = 256 << 10;
/// What a bulk frame costs beside its payload, in bytes.
pub(crate) const FRAME_COST: u64 = 64;

/// The queue and the credit of one transfer.
#[derive(Debug)]
pub(crate) struct Flow {
    queue: VecDeque<Queued>,
    queued: usize,
    may_send: u64,
    may_receive: u64,
    used_up: u64,
    window: u64,
    /// What was received, was counted against the credit, and is not used up.
    unused: u64,
    /// How much of our memory that takes.
    held: u64,
    /// How much of our memory takes what was used up and is kept all the same.
    kept: u64,
    /// What of the session's memory it holds or waits for.
    pub(crate) grant: Grant,
    /// It waits until the tree that it belongs to was looked at.
    pub(crate) behind: bool,
    /// What is known of the target and the basis.
    pub(crate) sizes: Sizes,
    /// The peer has said what the target is.
    pub(crate) offered: bool,
    /// How often the peer may still say what its tree omits.
    pub(crate) may_omit: u8,
    /// Bytes of this transfer's frames so far, headers left out, both ways.
    pub(crate) wire: u64,
    /// When the peer last said something of this transfer, or was last not expected to.
    pub(crate) heard: Timestamp,
}

#[derive(Debug)]
struct Queued {
    kind: MessageKind,
    frame: Encoded,
}

impl Flow {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            queue: VecDeque::new(),
            queued: 0,
            may_send: INITIAL_CREDIT,
            may_receive: INITIAL_CREDIT,
            used_up: 0,
            window: INITIAL_CREDIT,
            unused: 0,
            held: 0,
            kept: 0,
            grant: Grant::Unpriced,
            behind: false,
            sizes: Sizes::default(),
            offered: false,
            may_omit: 0,
            wire: 0,
            heard: now,
        }
    }

    /// Queues a message behind those that wait, for a peer that can unpack or one that cannot.
    pub(crate) fn queue(&mut self, id: TransferId, message: TransferMessage, unpacks: bool) {
        let kind = message.kind();
        let frame = Message::Transfer(id, message).encode_for(unpacks);
        self.queued += frame.payload;
        self.queue.push_back(Queued { kind, frame });
    }

    /// What is asked and computed for this transfer is held back.
    pub(crate) fn waits(&self) -> bool {
        self.behind || matches!(self.grant, Grant::Waiting(_))
    }

    /// How many payload bytes wait to leave.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Throws away what waits to leave.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.queued = 0;
    }

    /// The next frame that may leave now.
    pub(crate) fn pop(&mut self) -> Option<(MessageKind, Encoded)> {
        let front = self.queue.front()?;
        if front.kind.is_bulk() {
            let cost = front.frame.payload as u64 + FRAME_COST;
            self.may_send = self.may_send.checked_sub(cost)?;
        }
        let Queued { kind, frame } = self.queue.pop_front()?;
        self.queued -= frame.payload;
        self.wire += frame.payload as u64;
        Some((kind, frame))
    }

    /// The control frames that still wait, for a transfer that has ended: bulk is of no use any more.
    pub(crate) fn into_control(self) -> impl Iterator<Item = (MessageKind, Encoded)> {
        self.queue.into_iter().filter(|queued| !queued.kind.is_bulk()).map(|queued| (queued.kind, queued.frame))
    }

    /// The peer has room for `bytes` more.
    pub(crate) fn credited(&mut self, bytes: u64) {
        self.may_send = self.may_send.saturating_add(bytes);
    }

    /// Counts a received frame.
    ///
    /// # Errors
    ///
    /// [`PeerMisbehaved::OverCredit`] when the peer had no credit for it.
    pub(crate) fn received(
        &mut self,
        id: TransferId,
        kind: MessageKind,
        payload: &Bytes,
    ) -> Result<(), PeerMisbehaved> {
        self.wire += payload.len() as u64;
        if kind.is_bulk() {
            let cost = payload.len() as u64 + FRAME_COST;
            self.may_receive = match self.may_receive.checked_sub(cost) {
                Some(left) => left,
                None => return Err(PeerMisbehaved::OverCredit { transfer: id, by: cost - self.may_receive }),
            };
            self.unused += cost;
        }
        Ok(())
    }

    /// A received message is there, decoded: how much it takes, and what it tells of the target.
    pub(crate) fn decoded(&mut self, message: &TransferMessage) {
        self.held += memory_of(message);
        if let TransferMessage::Offer(offer) = message {
            let elements = if let Content::Set { elements } = offer.content { u64::from(elements) } else { 0 };
            self.sizes = Sizes { target: offer.len.get(), elements, ..self.sizes };
            self.offered = true;
        }
    }

    /// How much of our memory takes what was received.
    pub(crate) fn held(&self) -> u64 {
        self.held + self.kept
    }

    /// Received bytes, `len` of them, are used up and stay here until the transfer ends.
    pub(crate) fn keep(&mut self, len: usize) {
        self.kept += len as u64;
    }

    /// Received bulk payload of `len` bytes is used up: returns the credit to give back now, if it is time.
    #[must_use]
    pub(crate) fn used(&mut self, len: usize) -> Option<u64> {
        let cost = len as u64 + FRAME_COST;
        // What is used up takes its part with it; which message was the large one is not worth knowing.
        let part = match self.unused {
            unused if unused <= cost => self.held,
            unused => u64::try_from(u128::from(self.held) * u128::from(cost) / u128::from(unused)).unwrap_or(self.held),
        };
        self.held -= part;
        self.unused = self.unused.saturating_sub(cost);
        self.used_up += cost;
        (self.used_up >= PORTION).then(|| self.give())
    }

    /// This transfer is large: returns the credit that widens its window, once.
    #[must_use]
    pub(crate) fn widen(&mut self) -> Option<u64> {
        (self.window < WIDE_CREDIT).then(|| {
            self.used_up += WIDE_CREDIT - self.window;
            self.window = WIDE_CREDIT;
            self.give()
        })
    }

    fn give(&mut self) -> u64 {
        let credit = core::mem::take(&mut self.used_up);
        self.may_receive += credit;
        credit
    }
}

/// How many bytes a message takes here until it is used up; control messages are used up at once.
fn memory_of(message: &TransferMessage) -> u64 {
    let bytes = match message {
        TransferMessage::Delta(Delta { ops, literals, .. }) => {
            // Operations may wait twice: as they came, and put together.
            2 * size_of_val(ops.as_slice()) + literals.len()
        }
        TransferMessage::Tags(part) | TransferMessage::Cells(part) => part.bytes.len(),
        TransferMessage::Edges(edges) => edges.cells.bytes.len(),
        TransferMessage::Want(Want::Survey { bytes, .. }) => bytes.len(),
        TransferMessage::Order(order) => size_of_val(&order.breaks[..]),
        TransferMessage::Offer(_)
        | TransferMessage::Pull(_)
        | TransferMessage::List(_)
        | TransferMessage::AskRoot(_)
        | TransferMessage::More(_)
        | TransferMessage::Same(_)
        | TransferMessage::Confirm(_)
        | TransferMessage::Replace(_)
        | TransferMessage::Current
        | TransferMessage::Stale
        | TransferMessage::Want(Want::All)
        | TransferMessage::Done(_)
        | TransferMessage::Repair(_)
        | TransferMessage::Changed
        | TransferMessage::Refused(_)
        | TransferMessage::Cancel
        | TransferMessage::Credit(_)
        | TransferMessage::Working
        | TransferMessage::Listing(_)
        | TransferMessage::RootIs(_)
        | TransferMessage::MakeDirectory(_)
        | TransferMessage::Rename(_)
        | TransferMessage::Remove(_)
        | TransferMessage::Altered
        | TransferMessage::Complete
        | TransferMessage::Omits(_) => return 0,
    };
    bytes as u64 + size_of::<TransferMessage>() as u64
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use deltasync_core::Ops;

    use super::*;
    use crate::{Delta, Literals, SetPart};

    const ID: TransferId = TransferId::new(1);

    fn piece(len: usize) -> TransferMessage {
        let literals = Literals::Raw(vec![0; len].into());
        TransferMessage::Delta(Delta { last: false, ops: Ops::new(), literals })
    }

    #[test]
    fn bulk_waits_for_credit_and_what_is_behind_it_keeps_its_place() {
        let mut flow = Flow::new(Timestamp::new(0));
        flow.queue(ID, piece(INITIAL_CREDIT as usize), true);
        flow.queue(ID, TransferMessage::Changed, true);
        assert!(flow.pop().is_none(), "the frame's own cost is over the credit");
        flow.credited(1 << 10);
        assert_eq!(flow.pop().map(|(kind, _)| kind), Some(MessageKind::Delta));
        assert_eq!(flow.pop().map(|(kind, _)| kind), Some(MessageKind::Changed));
        assert_eq!(flow.queued(), 0);
    }

    #[test]
    fn a_peer_that_sends_past_its_credit_is_caught() {
        let mut flow = Flow::new(Timestamp::new(0));
        let payload = Bytes::from(vec![0; (INITIAL_CREDIT - FRAME_COST) as usize]);
        assert_eq!(flow.received(ID, MessageKind::Delta, &payload), Ok(()));
        let empty = Bytes::new();
        let over = flow.received(ID, MessageKind::Tags, &empty);
        assert_eq!(over, Err(PeerMisbehaved::OverCredit { transfer: ID, by: FRAME_COST }));
        assert_eq!(flow.received(ID, MessageKind::Same, &empty), Ok(()), "control costs nothing");
    }

    #[test]
    fn credit_comes_back_in_portions_and_adds_up_to_what_was_used() {
        let (mut flow, mut given, mut used) = (Flow::new(Timestamp::new(0)), 0, 0);
        for _ in 0..1000 {
            let payload = Bytes::from(vec![0; 10_000]);
            flow.received(ID, MessageKind::Delta, &payload).expect("within the credit");
            used += 10_000 + FRAME_COST;
            given += flow.used(10_000).unwrap_or(0);
            assert!(used - given < PORTION);
        }
        assert_eq!(flow.widen(), Some(WIDE_CREDIT - INITIAL_CREDIT + used - given));
        assert_eq!(flow.widen(), None);
    }

    #[test]
    fn an_ended_transfer_keeps_only_its_last_words() {
        let mut flow = Flow::new(Timestamp::new(0));
        flow.queue(ID, TransferMessage::Tags(SetPart { start: 0, count: 0, bytes: Bytes::new() }), true);
        flow.queue(ID, TransferMessage::Cancel, true);
        let kinds: alloc::vec::Vec<_> = flow.into_control().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [MessageKind::Cancel]);
    }
}
