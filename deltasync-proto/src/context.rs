//! What a transfer's state machine can do: queue messages, ask the storage, hand out work, tell what happened.
//!
//! The machines only see this; where their requests are routed back to, and when frames leave, is the session's.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use deltasync_core::{ByteLen, FineKey, MendKey, Offset, Placed, SketchKey, TagKey};

use crate::flow::Flow;
use crate::job::Work;
use crate::memory::Memory;
use crate::{
    Answer, Ask, Config, Event, EventKind, Job, JobId, Message, MessageKind, Output, PeerMisbehaved, Phase, Progress,
    Request, RequestId, SessionError, StorageFault, TransferError, TransferId, TransferMessage,
};

/// What a storage says to a request.
pub(crate) type Answered = Result<Answer, StorageFault>;

/// Why a handler could not go on: the transfer ends, or the whole session.
#[derive(Debug)]
pub(crate) enum Trouble {
    Transfer(TransferError),
    Session(SessionError),
}

impl From<TransferError> for Trouble {
    fn from(error: TransferError) -> Self {
        Self::Transfer(error)
    }
}

impl From<StorageFault> for Trouble {
    fn from(fault: StorageFault) -> Self {
        Self::Transfer(fault.into())
    }
}

impl From<PeerMisbehaved> for Trouble {
    fn from(error: PeerMisbehaved) -> Self {
        Self::Session(error.into())
    }
}

impl From<crate::InvalidMessage> for Trouble {
    fn from(error: crate::InvalidMessage) -> Self {
        Self::Session(error.into())
    }
}

/// What the machines of all transfers have asked for and the session has not yet put out.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) control: VecDeque<(MessageKind, crate::Encoded)>,
    pub(crate) control_bytes: usize,
    /// What transfers have asked for that wait for memory, or for what goes first.
    held_back: BTreeMap<TransferId, VecDeque<Output>>,
    requests: BTreeMap<RequestId, TransferId>,
    jobs: BTreeMap<JobId, TransferId>,
    next: u64,
}

impl Effects {
    /// Queues a message that goes before all transfers' own.
    pub(crate) fn send(&mut self, message: &Message) {
        self.send_encoded(message.kind(), message.encode());
    }

    pub(crate) fn send_encoded(&mut self, kind: MessageKind, frame: crate::Encoded) {
        self.control_bytes += control_cost(&frame);
        self.control.push_back((kind, frame));
    }

    pub(crate) fn event(&mut self, transfer: TransferId, kind: EventKind) {
        self.outputs.push_back(Output::Event(Event { transfer, kind }));
    }

    /// Which transfer waits for the answer; asked once.
    pub(crate) fn take_request(&mut self, id: RequestId) -> Option<TransferId> {
        self.requests.remove(&id)
    }

    /// Which transfer waits for the result; asked once.
    pub(crate) fn take_job(&mut self, id: JobId) -> Option<TransferId> {
        self.jobs.remove(&id)
    }

    /// True while our storage or a job has something of this transfer to do.
    pub(crate) fn is_working(&self, transfer: TransferId) -> bool {
        self.requests.values().chain(self.jobs.values()).any(|id| *id == transfer)
    }

    /// Puts out what was held back of a transfer.
    pub(crate) fn let_go(&mut self, transfer: TransferId) {
        self.outputs.extend(self.held_back.remove(&transfer).unwrap_or_default());
    }

    /// Forgets what was held back of a transfer.
    pub(crate) fn drop_held_back(&mut self, transfer: TransferId) {
        for output in self.held_back.remove(&transfer).unwrap_or_default() {
            match output {
                Output::Storage(request) => drop(self.requests.remove(&request.id)),
                Output::Compute(job) => drop(self.jobs.remove(&job.id)),
                _ => {}
            }
        }
    }

    fn put_out(&mut self, transfer: TransferId, waits: bool, output: Output) {
        match waits {
            true => self.held_back.entry(transfer).or_default().push_back(output),
            false => self.outputs.push_back(output),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// What a queued control frame costs: a tiny one takes more room here than on the wire.
pub(crate) fn control_cost(frame: &crate::Encoded) -> usize {
    frame.head.len() + crate::flow::FRAME_COST as usize
}

/// What one transfer's machine works with.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) id: TransferId,
    pub(crate) config: &'a Config,
    /// The client's nonce, which keys the tags.
    pub(crate) nonce: &'a [u8; 16],
    /// The server's nonce, once it is known.
    pub(crate) server_nonce: &'a [u8; 16],
    /// The peer is no recording: it has shown that it has seen our hello. Always true at a client, which has begun.
    pub(crate) live: bool,
    /// The peer has said that it can unpack.
    pub(crate) may_pack: bool,
    /// The payload bytes of the message that is being handled.
    pub(crate) payload: usize,
    pub(crate) flow: &'a mut Flow,
    pub(crate) effects: &'a mut Effects,
    pub(crate) memory: &'a mut Memory,
}

impl Context<'_> {
    pub(crate) fn send(&mut self, message: TransferMessage) {
        self.flow.queue(self.id, message, self.may_pack);
    }

    /// Sends a message before all that waits to leave, also when this transfer ends now.
    pub(crate) fn send_first(&mut self, message: TransferMessage) {
        self.effects.send(&Message::Transfer(self.id, message));
    }

    /// How many bytes a message would take, its frame's header left out.
    pub(crate) fn len_of(&self, message: TransferMessage) -> u64 {
        Message::Transfer(self.id, message).encode_for(self.may_pack).payload as u64
    }

    pub(crate) fn ask(&mut self, ask: Ask) -> RequestId {
        let id = RequestId::new(self.effects.number());
        self.effects.requests.insert(id, self.id);
        self.effects.put_out(self.id, self.flow.waits(), Output::Storage(Request { id, ask }));
        id
    }

    pub(crate) fn compute(&mut self, work: Work) -> JobId {
        let id = JobId::new(self.effects.number());
        self.effects.jobs.insert(id, self.id);
        self.effects.put_out(self.id, self.flow.waits(), Output::Compute(Job { id, work }));
        id
    }

    pub(crate) fn event(&mut self, kind: EventKind) {
        self.effects.event(self.id, kind);
    }

    pub(crate) fn phase(&mut self, phase: Phase) {
        self.event(EventKind::Phase(phase));
    }

    /// Tells how far the transfer is, and what of the target that concerns.
    pub(crate) fn progress(&mut self, progress: &mut Progress, ranges: Vec<Placed>) {
        if !ranges.is_empty() {
            self.event(EventKind::Placed { total: progress.total, ranges });
        }
        progress.wire = ByteLen::new(self.flow.wire);
        self.event(EventKind::Progress(*progress));
    }

    /// Nothing of a target had to move.
    pub(crate) fn all_there(&mut self, len: ByteLen) {
        if len > ByteLen::ZERO {
            self.event(EventKind::Placed { total: len, ranges: vec![Placed::copied(Offset::ZERO, len)] });
        }
    }

    /// Received bulk payload of `len` bytes is used up.
    pub(crate) fn used(&mut self, len: usize) {
        let credit = self.flow.used(len);
        self.give(credit);
    }

    /// Received bytes, `len` of them, stay here until the transfer ends.
    pub(crate) fn keep(&mut self, len: usize) {
        self.flow.keep(len);
    }

    /// The receiver's survey has come, and to use it takes so many bytes: what is asked and computed from now on waits until
    /// there is room.
    pub(crate) fn surveyed(&mut self, cost: u64) {
        self.flow.sizes.survey = cost;
        let price = self.flow.sizes.to_send(self.config);
        self.flow.grant = self.memory.want(self.id, self.flow.grant, price);
        if let Some(grant) = self.memory.granted_at_once(self.id) {
            self.flow.grant = grant;
        }
    }

    /// This transfer waits for others, which may wait for memory themselves: it gives back what it was granted, and keeps so many
    /// bytes. False when there is no room for those: then it must not wait.
    #[must_use]
    pub(crate) fn rest(&mut self, bytes: u64) -> bool {
        let may = self.memory.may_keep(bytes);
        if may {
            self.flow.keep(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.flow.grant = self.memory.give_back(self.id, self.flow.grant);
        }
        may
    }

    /// This transfer is large: its window may widen.
    pub(crate) fn widen(&mut self) {
        let credit = self.flow.widen();
        self.give(credit);
    }

    fn give(&mut self, credit: Option<u64>) {
        if let Some(credit) = credit {
            self.effects.send(&Message::Transfer(self.id, TransferMessage::Credit(credit)));
        }
    }

    /// The key of this transfer's tags.
    pub(crate) fn tag_key(&self) -> TagKey {
        TagKey::new(self.nonce, self.id.get()).with_bits(self.config.tag_bits)
    }

    /// The key of the sketch of this transfer's chunks.
    pub(crate) fn sketch_key(&self) -> SketchKey {
        SketchKey::new(self.nonce, self.id.get())
    }

    /// The key of the sketch of the edges between them.
    pub(crate) fn edge_key(&self) -> SketchKey {
        SketchKey::of_edges(self.nonce, self.id.get())
    }

    /// The key of this transfer's fine sums. Both hellos have come when they are used.
    pub(crate) fn fine_key(&self) -> FineKey {
        FineKey::new(self.nonce, self.server_nonce, self.id.get())
    }

    /// The key of the sums of a repair's ranges.
    pub(crate) fn mend_key(&self, repair: u32) -> MendKey {
        MendKey::new(self.nonce, self.server_nonce, self.id.get(), repair)
    }

    /// The error for a message that must not come now.
    pub(crate) fn unexpected(&self, got: &TransferMessage, state: &'static str) -> Trouble {
        PeerMisbehaved::Unexpected { got: got.kind(), state, transfer: self.id }.into()
    }
}

/// The fault of a storage whose answer is of another kind than its request.
pub(crate) fn wrong_answer() -> Trouble {
    StorageFault::new(crate::FaultKind::Other, "storage gave an answer of another kind than its request").into()
}
