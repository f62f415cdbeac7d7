//! The end of a transfer that has the target.
//!
//! ```text
//!                 Describing ── Known, Tags ──► Offered ── Same ──► ended
//!                   ▲     └──── Whole ────┐        │ Want
//!       changed     │                     ▼        ▼
//!       (3 times)   └──────────────── Delivering ◄─┘◄──┐ Repair
//!                                         │ last piece │
//!                                         └──► Delivered ── Done, Same ──► ended
//! ```
//!
//! The file is read in pieces as the link takes them, a few ahead, and looked at again before the last one leaves: when
//! it changed meanwhile, the transfer starts over.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;
use deltasync_core::{Algorithm, ByteLen, Digest, Ops};

use crate::bulk::{Delta, Literals, Want, WantRun};
use crate::context::{Answered, Context, Trouble, wrong_answer};
use crate::cursor::{DeltaCursor, Piece};
use crate::job::{Product, Work};
use crate::{
    Answer, Ask, Content, Cutting, EventKind, FaultKind, FileHandle, JobId, Offer, OpenedFile, Outcome, Phase, Place,
    Progress, RequestId, TransferError, TransferMessage, Wish,
};

/// A pushed file of at most this many bytes goes with its offer: it is cheaper than the round trip it saves.
const TINY: ByteLen = ByteLen::new(4096);
/// How many pieces are read and packed ahead of the link.
const AHEAD: usize = 4;
/// Pieces are not prepared while this many bytes wait to leave.
const QUEUED_MAX: usize = 512 << 10;
/// Below this many bytes packing cannot pay.
const PACK_MIN: usize = 64;
/// How often a source may change before we give up.
const CHANGES_MAX: u8 = 3;
/// Tag runs in one frame.
const TAGS_A_FRAME: usize = 32 << 10;

/// What is being sent, enough to start over.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) place: Place,
    /// Where it should go, in a push.
    pub(crate) to: Option<Wish>,
    /// What the receiver said it has, in a pull.
    pub(crate) have: Option<Digest>,
    pub(crate) algorithm: Algorithm,
}

/// The sender's states.
#[derive(Debug)]
pub(crate) enum Sending {
    Describing(Describing),
    Offered(Offered),
    Delivering(Delivering),
    Delivered(Delivered),
    Ended(Outcome),
}

/// What all states know.
#[derive(Debug)]
struct Common {
    origin: Origin,
    changes: u8,
    repairs: u32,
}

/// Our storage opens, cuts and hashes the file.
#[derive(Debug)]
pub(crate) struct Describing {
    common: Common,
    request: RequestId,
}

/// The receiver compares.
#[derive(Debug)]
pub(crate) struct Offered {
    common: Common,
    target: OpenedFile,
    tagging: Option<JobId>,
    runs: Vec<WantRun>,
}

/// The delta is on its way.
#[derive(Debug)]
pub(crate) struct Delivering {
    common: Common,
    target: OpenedFile,
    cursor: DeltaCursor,
    pieces: VecDeque<Ahead>,
    recheck: Option<RequestId>,
    progress: Progress,
}

/// All is sent; the receiver verifies and commits.
#[derive(Debug)]
pub(crate) struct Delivered {
    common: Common,
    target: OpenedFile,
    progress: Progress,
}

/// A piece on its way from the file to the link.
#[derive(Debug)]
struct Ahead {
    ops: Ops,
    last: bool,
    literals: Preparing,
}

#[derive(Debug)]
enum Preparing {
    Reading(RequestId, ByteLen),
    Packing(JobId),
    Ready(Literals),
}

impl Sending {
    /// Starts by describing the file.
    pub(crate) fn begin(origin: Origin, cx: &mut Context<'_>) -> Self {
        Self::describe(Common { origin, changes: 0, repairs: 0 }, cx)
    }

    fn describe(common: Common, cx: &mut Context<'_>) -> Self {
        cx.phase(Phase::Describing);
        let (place, algorithm) = (common.origin.place.clone(), common.origin.algorithm);
        let request = cx.ask(Ask::Describe { place, cutting: Cutting::ByLength, algorithm });
        Self::Describing(Describing { common, request })
    }

    /// The file is no longer what was offered.
    fn start_over(mut common: Common, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        common.changes += 1;
        // The receiver counts repairs afresh with each offer.
        common.repairs = 0;
        if common.changes >= CHANGES_MAX {
            return Err(TransferError::Changed { times: common.changes.into() }.into());
        }
        cx.send(TransferMessage::Changed);
        cx.event(EventKind::Restarted);
        Ok(Self::describe(common, cx))
    }

    pub(crate) fn on_message(self, message: TransferMessage, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match self {
            Self::Describing(_) => Err(cx.unexpected(&message, "describing the source")),
            Self::Offered(state) => state.on_message(message, cx),
            Self::Delivering(_) => Err(cx.unexpected(&message, "sending the delta")),
            Self::Delivered(state) => state.on_message(message, cx),
            Self::Ended(_) => Ok(self),
        }
    }

    pub(crate) fn on_answer(self, id: RequestId, answer: Answered, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match self {
            Self::Describing(state) if state.request == id => state.on_described(answer?, cx),
            Self::Delivering(state) => state.on_answer(id, answer, cx),
            // Asked for before the transfer started over.
            Self::Describing(_) | Self::Offered(_) | Self::Delivered(_) | Self::Ended(_) => Ok(self),
        }
    }

    pub(crate) fn on_computed(mut self, id: JobId, product: Product, cx: &mut Context<'_>) -> Self {
        match (&mut self, product) {
            (Self::Offered(state), Product::Tagged(runs)) if state.tagging == Some(id) => {
                state.tagging = None;
                runs.chunks(TAGS_A_FRAME).for_each(|runs| cx.send(TransferMessage::Tags(runs.to_vec())));
                cx.phase(Phase::Waiting);
            }
            (Self::Delivering(state), Product::Packed { raw, packed }) => state.on_packed(id, raw, packed),
            // Computed for a state that a quick receiver or a change of the file has ended.
            _ => {}
        }
        self
    }

    /// Prepares and queues more while there is room.
    pub(crate) fn pump(self, cx: &mut Context<'_>) -> Self {
        match self {
            Self::Delivering(state) => state.pump(cx),
            other => other,
        }
    }
}

impl Describing {
    fn on_described(self, answer: Answer, cx: &mut Context<'_>) -> Result<Sending, Trouble> {
        let Answer::Described(target) = answer else { return Err(wrong_answer()) };
        let Common { origin, .. } = &self.common;
        let chunks = &target.chunks;
        let content = match (&origin.to, origin.have) {
            (None, Some(root)) if root == chunks.root() => Content::Known,
            (None, None) => Content::Whole,
            (Some(_), _) if chunks.len() <= TINY => Content::Whole,
            _ => match u32::try_from(chunks.runs().len()) {
                Ok(runs) => Content::Tags { runs },
                // More runs than a list can name: the receiver could not hold them either.
                Err(_) => Content::Whole,
            },
        };
        cx.send(TransferMessage::Offer(Offer {
            to: origin.to.clone(),
            len: chunks.len(),
            root: chunks.root(),
            algorithm: chunks.algorithm(),
            cutter: chunks.cutter(),
            changes: self.common.changes,
            content,
        }));
        let mut tagging = None;
        match content {
            Content::Whole => return Ok(Delivering::begin(self.common, target.clone(), whole(&target), cx)),
            Content::Tags { .. } => {
                tagging = Some(cx.compute(Work::Tag { chunks: chunks.clone(), key: cx.tag_key() }));
            }
            Content::Known => cx.phase(Phase::Waiting),
        }
        Ok(Sending::Offered(Offered { common: self.common, target, tagging, runs: Vec::new() }))
    }
}

fn whole(target: &OpenedFile) -> DeltaCursor {
    DeltaCursor::whole(target.chunks.clone())
}

impl Offered {
    fn on_message(mut self, message: TransferMessage, cx: &mut Context<'_>) -> Result<Sending, Trouble> {
        match message {
            TransferMessage::Same => Ok(Sending::Ended(same(&self.common, &self.target, cx))),
            TransferMessage::Want(want) => {
                self.take(&want, cx)?;
                if !want.last {
                    return Ok(Sending::Offered(self));
                }
                // Tags that still wait are of no use to a receiver that has answered.
                cx.flow.clear();
                let chunks = self.target.chunks.clone();
                let cursor = if self.runs.is_empty() {
                    DeltaCursor::whole(chunks)
                } else {
                    DeltaCursor::new(chunks, ByteLen::new(want.basis), self.runs)?
                };
                Ok(Delivering::begin(self.common, self.target, cursor, cx))
            }
            other => Err(cx.unexpected(&other, "waiting for the receiver's answer")),
        }
    }

    fn take(&mut self, want: &Want, cx: &mut Context<'_>) -> Result<(), Trouble> {
        // Every run covers a chunk at least, so more runs than chunks cannot be right.
        let (got, offered) = ((self.runs.len() + want.runs.len()) as u64, self.target.chunks.chunk_count());
        if got > offered {
            return Err(crate::PeerMisbehaved::WantCoverage { got, offered }.into());
        }
        self.runs.extend_from_slice(&want.runs);
        cx.used(cx.payload);
        Ok(())
    }
}

fn same(common: &Common, target: &OpenedFile, cx: &Context<'_>) -> Outcome {
    let len = target.chunks.len();
    let wire = ByteLen::new(cx.flow.wire);
    let progress = Progress { total: len, copied: len, wire, ..Progress::default() };
    Outcome { len, root: target.chunks.root(), generation: None, progress, repairs: common.repairs }
}

impl Delivering {
    fn begin(common: Common, target: OpenedFile, cursor: DeltaCursor, cx: &mut Context<'_>) -> Sending {
        cx.phase(Phase::Moving);
        let progress = Progress { total: target.chunks.len(), ..Progress::default() };
        let state = Self { common, target, cursor, pieces: VecDeque::new(), recheck: None, progress };
        Sending::Delivering(state)
    }

    fn pump(mut self, cx: &mut Context<'_>) -> Sending {
        while self.pieces.len() < AHEAD && cx.flow.queued() < QUEUED_MAX {
            let Some(Piece { ops, ranges, last }) = self.cursor.next_piece(cx.config.piece) else { break };
            let literals = if ranges.is_empty() {
                Preparing::Ready(Literals::Raw(Bytes::new()))
            } else {
                let file: FileHandle = self.target.file.clone();
                Preparing::Reading(cx.ask(Ask::Read { file, ranges }), ops.literal_len())
            };
            self.pieces.push_back(Ahead { ops, last, literals });
        }
        while let Some(Ahead { last: false, literals: Preparing::Ready(_), .. }) = self.pieces.front() {
            self.send_front(cx);
        }
        if let Some(Ahead { last: true, literals: Preparing::Ready(_), .. }) = self.pieces.front()
            && self.recheck.is_none()
        {
            self.recheck = Some(cx.ask(Ask::Recheck { file: self.target.file.clone() }));
        }
        Sending::Delivering(self)
    }

    fn send_front(&mut self, cx: &mut Context<'_>) {
        let Some(Ahead { ops, last, literals: Preparing::Ready(literals) }) = self.pieces.pop_front() else { return };
        self.progress.copied += ops.copied_len();
        self.progress.literal += ops.literal_len();
        cx.send(TransferMessage::Delta(Delta { last, ops, literals }));
        cx.progress(&mut self.progress);
    }

    fn on_answer(mut self, id: RequestId, answer: Answered, cx: &mut Context<'_>) -> Result<Sending, Trouble> {
        let reading = |piece: &Ahead| matches!(piece.literals, Preparing::Reading(request, _) if request == id);
        if self.recheck != Some(id) && !self.pieces.iter().any(reading) {
            // Asked for before the transfer started over.
            return Ok(Sending::Delivering(self));
        }
        if matches!(&answer, Err(fault) if fault.kind == FaultKind::Changed) {
            return Sending::start_over(self.common, cx);
        }
        if self.recheck == Some(id) {
            let Answer::Rechecked { unchanged } = answer? else { return Err(wrong_answer()) };
            if !unchanged {
                return Sending::start_over(self.common, cx);
            }
            self.send_front(cx);
            cx.phase(Phase::Waiting);
            let Self { common, target, progress, .. } = self;
            return Ok(Sending::Delivered(Delivered { common, target, progress }));
        }
        if let Some(piece) = self.pieces.iter_mut().find(|piece| reading(piece)) {
            let Answer::Read(raw) = answer? else { return Err(wrong_answer()) };
            if !matches!(piece.literals, Preparing::Reading(_, len) if len == ByteLen::of(&raw)) {
                return Err(wrong_answer());
            }
            let level = cx.config.level;
            piece.literals = if cx.may_pack && level != 0 && raw.len() >= PACK_MIN {
                Preparing::Packing(cx.compute(Work::Pack { raw, level }))
            } else {
                Preparing::Ready(Literals::Raw(raw))
            };
        }
        Ok(Sending::Delivering(self))
    }

    fn on_packed(&mut self, id: JobId, raw: Bytes, packed: Option<Bytes>) {
        let packing = |piece: &&mut Ahead| matches!(piece.literals, Preparing::Packing(job) if job == id);
        if let Some(piece) = self.pieces.iter_mut().find(packing) {
            piece.literals = Preparing::Ready(match packed {
                Some(bytes) => Literals::Packed { bytes, raw_len: raw.len() },
                None => Literals::Raw(raw),
            });
        }
    }
}

impl Delivered {
    fn on_message(mut self, message: TransferMessage, cx: &mut Context<'_>) -> Result<Sending, Trouble> {
        match message {
            TransferMessage::Done(generation) => {
                let mut outcome = same(&self.common, &self.target, cx);
                outcome.generation = Some(generation);
                outcome.progress = self.progress;
                outcome.progress.wire = ByteLen::new(cx.flow.wire);
                Ok(Sending::Ended(outcome))
            }
            TransferMessage::Same => Ok(Sending::Ended(same(&self.common, &self.target, cx))),
            TransferMessage::Repair if self.common.repairs == 0 => {
                self.common.repairs += 1;
                cx.event(EventKind::Repairing);
                let cursor = whole(&self.target);
                Ok(Delivering::begin(self.common, self.target, cursor, cx))
            }
            other => Err(cx.unexpected(&other, "waiting for the receiver to finish")),
        }
    }
}
