//! The end of a transfer that has the basis and publishes the result.
//!
//! ```text
//! pull: Preparing ──► Requested ◄──────────── changed ─────────────┐
//!                         │ Offer                                  │
//! push: ──── Offer ──► Opening ──► Collecting ──► Matching ──► Patching ──► Verifying ──► Committing ──► ended
//!                         │ same root      no basis, whole ───────►  ▲          │ root differs, once
//!                         └──► ended (or Draining first)             └──────────┘
//! ```
//!
//! What arrives before it can be used waits in the transfer's credit. The basis stays open from the first look to the
//! commit, so copies come from the very bytes that were cut, whatever happens to the name meanwhile. Nothing becomes
//! visible before the staged bytes have the announced root.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;
use deltasync_core::{Algorithm, ByteLen, Generation, Malformed, Ops, Plan, Planner, RelPath, TagRun};

use crate::bulk::{Delta, Literals, Want, WantRun};
use crate::context::{Answered, Context, Trouble, wrong_answer};
use crate::job::{Product, Work};
use crate::{
    Answer, Ask, Content, Cutting, Destination, EventKind, FileHandle, InvalidMessage, JobId, MessageKind, Offer,
    OpenedFile, Outcome, Phase, Place, Progress, Pull, RequestId, RootId, StageHandle, TransferError, TransferMessage,
};

/// How many pieces are unpacked ahead of the storage.
const AHEAD: usize = 4;
/// A copy is carried out in portions of this many bytes, so that progress shows and memory and time stay bounded.
const PORTION: ByteLen = ByteLen::new(64 << 20);
/// Wanted runs in one frame.
const RUNS_A_FRAME: usize = 16 << 10;
/// A target of more than this many bytes gets a wider window.
const LARGE: ByteLen = ByteLen::new(1 << 20);

/// The receiver's states.
#[derive(Debug)]
pub(crate) enum Receiving {
    Preparing(Preparing),
    Requested(Requested),
    Opening(Opening),
    Collecting(Collecting),
    Matching(Matching),
    Draining(Draining),
    Patching(Patching),
    Verifying(Verifying),
    Committing(Committing),
    Ended(Outcome),
}

/// Where the target goes: in a pull our own wish, in a push the sender's.
#[derive(Debug)]
pub(crate) enum Aim {
    Ours(Destination),
    Theirs,
}

/// A pull looks at what it has.
#[derive(Debug)]
pub(crate) struct Preparing {
    destination: Destination,
    path: RelPath,
    algorithm: Algorithm,
    request: RequestId,
}

/// Waits for an offer.
#[derive(Debug)]
pub(crate) struct Requested {
    aim: Aim,
    /// What a pull found before it asked.
    found: Option<Found>,
}

/// The place of the target and what is there.
#[derive(Debug)]
struct Found {
    place: Place,
    file: Option<OpenedFile>,
}

/// The storage opens the basis; what follows the offer waits.
#[derive(Debug)]
pub(crate) struct Opening {
    aim: Aim,
    offer: Offer,
    request: RequestId,
    early: Early,
}

/// What came behind an offer before it could be used.
#[derive(Debug, Default)]
struct Early {
    tags: Vec<TagRun>,
    pieces: Vec<(Delta, usize)>,
}

/// Waits for all tags.
#[derive(Debug)]
pub(crate) struct Collecting {
    aim: Aim,
    offer: Offer,
    place: Place,
    basis: OpenedFile,
    tags: Vec<TagRun>,
}

/// Looks for the offered chunks in the basis.
#[derive(Debug)]
pub(crate) struct Matching {
    aim: Aim,
    offer: Offer,
    place: Place,
    basis: OpenedFile,
    job: JobId,
}

/// The content that came with the offer is here already: it only has to pass by.
#[derive(Debug)]
pub(crate) struct Draining {
    aim: Aim,
    offer: Offer,
}

/// Applies the delta to a stage.
#[derive(Debug)]
pub(crate) struct Patching {
    aim: Aim,
    offer: Offer,
    place: Place,
    basis: Option<OpenedFile>,
    staging: RequestId,
    stage: Option<StageHandle>,
    planner: Planner,
    pieces: VecDeque<Waiting>,
    /// The portions of the front piece that are not applied yet.
    portions: VecDeque<Plan>,
    applying: Option<(RequestId, Plan)>,
    last_seen: bool,
    progress: Progress,
    repairs: u32,
}

/// A piece that waits for its turn.
#[derive(Debug)]
struct Waiting {
    ops: Ops,
    payload: usize,
    literals: Unpacking,
}

#[derive(Debug)]
enum Unpacking {
    Packed { bytes: Bytes, raw_len: usize },
    Running(JobId),
    Ready(Bytes),
}

/// The storage tells what root the staged bytes have.
#[derive(Debug)]
pub(crate) struct Verifying {
    aim: Aim,
    offer: Offer,
    place: Place,
    stage: StageHandle,
    request: RequestId,
    progress: Progress,
    repairs: u32,
}

/// The storage makes it durable.
#[derive(Debug)]
pub(crate) struct Committing {
    offer: Offer,
    request: RequestId,
    progress: Progress,
    repairs: u32,
    // Dropping it would throw the stage away before the storage has taken it.
    _stage: StageHandle,
}

impl Receiving {
    /// Starts a pull by looking at what we have.
    pub(crate) fn pull(path: RelPath, destination: Destination, cx: &mut Context<'_>) -> Self {
        cx.phase(Phase::Describing);
        let algorithm = cx.config.algorithm;
        let request = cx.ask(Ask::Basis { destination: destination.clone(), cutting: Cutting::ByLength, algorithm });
        Self::Preparing(Preparing { destination, path, algorithm, request })
    }

    /// Starts a push at the server: an offer comes next.
    pub(crate) fn push() -> Self {
        Self::Requested(Requested { aim: Aim::Theirs, found: None })
    }

    pub(crate) fn on_message(self, message: TransferMessage, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match (self, message) {
            (Self::Requested(state), TransferMessage::Offer(offer)) => state.on_offer(offer, cx),
            (Self::Opening(mut state), TransferMessage::Tags(tags)) => {
                take_tags(&mut state.early.tags, tags, &state.offer, cx)?;
                Ok(Self::Opening(state))
            }
            (Self::Opening(mut state), TransferMessage::Delta(delta)) if state.offer.content == Content::Whole => {
                state.early.pieces.push((delta, cx.payload));
                Ok(Self::Opening(state))
            }
            (Self::Collecting(mut state), TransferMessage::Tags(tags)) => {
                take_tags(&mut state.tags, tags, &state.offer, cx)?;
                Ok(state.go_on(cx))
            }
            (Self::Draining(state), TransferMessage::Delta(delta)) => {
                cx.used(cx.payload);
                if !delta.last {
                    return Ok(Self::Draining(state));
                }
                cx.send(TransferMessage::Same);
                Ok(Self::Ended(same(&state.offer, cx)))
            }
            (Self::Patching(state), TransferMessage::Delta(delta)) => state.on_delta(delta, cx.payload, cx),
            // Sent before our answer to the offer arrived.
            (Self::Patching(state), TransferMessage::Tags(_)) => {
                cx.used(cx.payload);
                Ok(Self::Patching(state))
            }
            (Self::Patching(state), TransferMessage::Changed) => {
                state.pieces.iter().for_each(|piece| cx.used(piece.payload));
                Ok(restart(state.aim, cx))
            }
            (Self::Opening(state), TransferMessage::Changed) if state.offer.content == Content::Whole => {
                state.early.pieces.iter().for_each(|(_, payload)| cx.used(*payload));
                Ok(restart(state.aim, cx))
            }
            (Self::Draining(state), TransferMessage::Changed) => Ok(restart(state.aim, cx)),
            (state, message) => Err(cx.unexpected(&message, state.name())),
        }
    }

    pub(crate) fn on_answer(self, id: RequestId, answer: Answered, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match self {
            Self::Preparing(state) if state.request == id => state.on_basis(answer?, cx),
            Self::Opening(state) if state.request == id => {
                let Answer::Basis { place, file } = answer? else { return Err(wrong_answer()) };
                decide(state.aim, state.offer, Found { place, file }, state.early, cx)
            }
            Self::Patching(state) => state.on_answer(id, answer, cx),
            Self::Verifying(state) if state.request == id => state.on_sealed(answer?, cx),
            Self::Committing(state) if state.request == id => state.on_committed(answer?, cx),
            // Asked for before the transfer started over.
            other => Ok(other),
        }
    }

    pub(crate) fn on_computed(self, id: JobId, product: Product, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match (self, product) {
            (Self::Matching(state), Product::Matched(runs)) if state.job == id => state.on_matched(runs, cx),
            (Self::Patching(state), Product::Unpacked(result)) => state.on_unpacked(id, result, cx),
            // Computed for a state that a changed source has ended.
            (other, _) => Ok(other),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Preparing(_) => "looking at the basis",
            Self::Requested(_) => "waiting for an offer",
            Self::Opening(_) => "opening the basis",
            Self::Collecting(_) => "collecting tags",
            Self::Matching(_) => "matching",
            Self::Draining(_) => "letting known content pass",
            Self::Patching(_) => "patching",
            Self::Verifying(_) => "verifying",
            Self::Committing(_) => "committing",
            Self::Ended(_) => "ended",
        }
    }
}

/// The source changed while it was read: another offer follows.
fn restart(aim: Aim, cx: &mut Context<'_>) -> Receiving {
    cx.event(EventKind::Restarted);
    Receiving::Requested(Requested { aim, found: None })
}

fn same(offer: &Offer, cx: &Context<'_>) -> Outcome {
    let wire = ByteLen::new(cx.flow.wire);
    let progress = Progress { total: offer.len, copied: offer.len, wire, ..Progress::default() };
    Outcome { len: offer.len, root: offer.root, generation: None, progress, repairs: 0 }
}

fn take_tags(held: &mut Vec<TagRun>, tags: Vec<TagRun>, offer: &Offer, cx: &mut Context<'_>) -> Result<(), Trouble> {
    let announced = match offer.content {
        Content::Tags { runs } => runs as usize,
        Content::Known | Content::Whole => 0,
    };
    if held.len() + tags.len() > announced {
        let cause = Malformed::Value("more tags than the offer announced");
        return Err(InvalidMessage::Payload { kind: MessageKind::Tags, cause }.into());
    }
    cx.used(cx.payload);
    held.extend(tags);
    Ok(())
}

impl Preparing {
    fn on_basis(self, answer: Answer, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let Answer::Basis { place, file } = answer else { return Err(wrong_answer()) };
        let have = file.as_ref().map(|file| file.chunks.root());
        cx.send(TransferMessage::Pull(Pull { path: self.path, algorithm: self.algorithm, have }));
        cx.phase(Phase::Waiting);
        let (aim, found) = (Aim::Ours(self.destination), Some(Found { place, file }));
        Ok(Receiving::Requested(Requested { aim, found }))
    }
}

impl Requested {
    fn on_offer(self, offer: Offer, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let destination = match (&self.aim, &offer.to) {
            (Aim::Ours(destination), None) => destination.clone(),
            (Aim::Theirs, Some(wish)) => Destination {
                place: Place { root: RootId::new(0), path: wish.path.clone() },
                name: wish.name.clone(),
                directory: wish.directory,
            },
            (Aim::Ours(_), Some(_)) | (Aim::Theirs, None) => {
                let cause = Malformed::Value("only a pushed target names where it goes");
                return Err(InvalidMessage::Payload { kind: MessageKind::Offer, cause }.into());
            }
        };
        if let Some(found) = self.found
            && found.file.as_ref().is_none_or(|file| usable(file, &offer))
        {
            return decide(self.aim, offer, found, Early::default(), cx);
        }
        let (cutting, algorithm) = (Cutting::Exactly(offer.cutter), offer.algorithm);
        cx.phase(Phase::Describing);
        let request = cx.ask(Ask::Basis { destination, cutting, algorithm });
        Ok(Receiving::Opening(Opening { aim: self.aim, offer, request, early: Early::default() }))
    }
}

/// True when a basis that was cut before the offer came need not be cut again.
fn usable(file: &OpenedFile, offer: &Offer) -> bool {
    let equal = file.chunks.root() == offer.root;
    let alike = file.chunks.cutter() == offer.cutter || !matches!(offer.content, Content::Tags { .. });
    file.chunks.algorithm() == offer.algorithm && (equal || alike)
}

/// The offer and the basis are both known: what now?
fn decide(aim: Aim, offer: Offer, found: Found, early: Early, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
    let Found { place, file } = found;
    let equal = file.as_ref().is_some_and(|file| file.chunks.root() == offer.root && file.chunks.len() == offer.len);
    match offer.content {
        Content::Known | Content::Tags { .. } if equal => {
            cx.send(TransferMessage::Same);
            Ok(Receiving::Ended(same(&offer, cx)))
        }
        Content::Known => {
            let cause = Malformed::Value("an offer of a root that we do not have as one that we have");
            Err(InvalidMessage::Payload { kind: MessageKind::Offer, cause }.into())
        }
        Content::Whole => {
            let mut state = match equal {
                true => Receiving::Draining(Draining { aim, offer }),
                false => Patching::begin(aim, offer, place, None, cx)?,
            };
            for (delta, payload) in early.pieces {
                cx.payload = payload;
                state = state.on_message(TransferMessage::Delta(delta), cx)?;
            }
            Ok(state)
        }
        Content::Tags { .. } => match file {
            Some(basis) if !basis.chunks.is_empty() => {
                Ok(Collecting { aim, offer, place, basis, tags: early.tags }.go_on(cx))
            }
            // Nothing to compare with: the tags need not be waited for.
            Some(_) | None => {
                cx.send(TransferMessage::Want(Want { last: true, basis: 0, runs: Vec::new() }));
                Patching::begin(aim, offer, place, None, cx)
            }
        },
    }
}

impl Collecting {
    /// Begins to match when all tags are here.
    fn go_on(self, cx: &mut Context<'_>) -> Receiving {
        let Content::Tags { runs } = self.offer.content else { return Receiving::Collecting(self) };
        if self.tags.len() < runs as usize {
            return Receiving::Collecting(self);
        }
        cx.phase(Phase::Matching);
        let Self { aim, offer, place, basis, tags } = self;
        let job = cx.compute(Work::Match { basis: basis.chunks.clone(), offered: tags, key: cx.tag_key() });
        Receiving::Matching(Matching { aim, offer, place, basis, job })
    }
}

impl Matching {
    fn on_matched(self, runs: Vec<WantRun>, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let basis = self.basis.chunks.len().get();
        let mut parts = runs.chunks(RUNS_A_FRAME).peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            cx.send(TransferMessage::Want(Want { last, basis, runs: part.to_vec() }));
        }
        if runs.is_empty() {
            cx.send(TransferMessage::Want(Want { last: true, basis, runs: Vec::new() }));
        }
        Patching::begin(self.aim, self.offer, self.place, Some(self.basis), cx)
    }
}

impl Patching {
    fn begin(
        aim: Aim,
        offer: Offer,
        place: Place,
        basis: Option<OpenedFile>,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        Self::again(aim, offer, place, basis, 0, cx)
    }

    fn again(
        aim: Aim,
        offer: Offer,
        place: Place,
        basis: Option<OpenedFile>,
        repairs: u32,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        cx.phase(Phase::Moving);
        if offer.len > LARGE {
            cx.widen();
        }
        let basis_len = basis.as_ref().map_or(ByteLen::ZERO, |basis| basis.chunks.len());
        let planner = Planner::new(basis_len, offer.len, &cx.config.limits).map_err(InvalidMessage::from)?;
        let staging = cx.ask(Ask::Stage { place: place.clone(), len: offer.len, algorithm: offer.algorithm });
        let progress = Progress { total: offer.len, ..Progress::default() };
        Ok(Receiving::Patching(Self {
            aim,
            offer,
            place,
            basis,
            staging,
            stage: None,
            planner,
            pieces: VecDeque::new(),
            portions: VecDeque::new(),
            applying: None,
            last_seen: false,
            progress,
            repairs,
        }))
    }

    fn on_delta(mut self, delta: Delta, payload: usize, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        if self.last_seen {
            return Err(cx.unexpected(&TransferMessage::Delta(delta), "finishing after the last piece"));
        }
        self.last_seen = delta.last;
        let literals = match delta.literals {
            Literals::Raw(bytes) => Unpacking::Ready(bytes),
            Literals::Packed { bytes, raw_len } => Unpacking::Packed { bytes, raw_len },
        };
        self.pieces.push_back(Waiting { ops: delta.ops, payload, literals });
        self.go_on(cx)
    }

    fn on_unpacked(
        mut self,
        id: JobId,
        result: Result<Bytes, deltasync_core::UnpackError>,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        let running = |piece: &&mut Waiting| matches!(piece.literals, Unpacking::Running(job) if job == id);
        if let Some(piece) = self.pieces.iter_mut().find(running) {
            let cause = Malformed::Value("packed literals are damaged or of another length than announced");
            let raw = result.map_err(|_| InvalidMessage::Payload { kind: MessageKind::Delta, cause })?;
            piece.literals = Unpacking::Ready(raw);
        }
        self.go_on(cx)
    }

    fn on_answer(mut self, id: RequestId, answer: Answered, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        if self.stage.is_none() && id == self.staging {
            let Answer::Staged(stage) = answer? else { return Err(wrong_answer()) };
            self.stage = Some(stage);
        } else if let Some((_, plan)) = self.applying.take_if(|(request, _)| *request == id) {
            let Answer::Applied = answer? else { return Err(wrong_answer()) };
            for step in plan.steps() {
                match step {
                    deltasync_core::Step::Literal { .. } => self.progress.literal += step.len(),
                    deltasync_core::Step::Copy { .. } => self.progress.copied += step.len(),
                }
            }
            if self.portions.is_empty() {
                self.front_is_done(cx);
            }
            cx.progress(&mut self.progress);
        }
        self.go_on(cx)
    }

    fn front_is_done(&mut self, cx: &mut Context<'_>) {
        if let Some(piece) = self.pieces.pop_front() {
            cx.used(piece.payload);
        }
    }

    /// Unpacks ahead, applies the next portion, and seals the stage when all is applied.
    fn go_on(mut self, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        for piece in self.pieces.iter_mut().take(AHEAD) {
            if let Unpacking::Packed { bytes, raw_len } = &piece.literals {
                let work = Work::Unpack { packed: bytes.clone(), raw_len: *raw_len };
                piece.literals = Unpacking::Running(cx.compute(work));
            }
        }
        let Some(stage) = self.stage.clone() else { return Ok(Receiving::Patching(self)) };
        while self.applying.is_none() {
            let Some(Waiting { ops, literals: Unpacking::Ready(literals), .. }) = self.pieces.front() else { break };
            let literals = literals.clone();
            if self.portions.is_empty() {
                let plan = self.planner.plan(ops, ByteLen::of(&literals)).map_err(InvalidMessage::from)?;
                if plan.is_empty() {
                    self.front_is_done(cx);
                    continue;
                }
                self.portions = plan.portions(PORTION).into();
            }
            let plan = self.portions.pop_front().expect("a plan that is not empty has portions");
            let basis: Option<FileHandle> = self.basis.as_ref().map(|basis| basis.file.clone());
            let ask = Ask::Apply { stage: stage.clone(), basis, plan: plan.clone(), literals };
            self.applying = Some((cx.ask(ask), plan));
        }
        if !self.last_seen || !self.pieces.is_empty() || self.applying.is_some() {
            return Ok(Receiving::Patching(self));
        }
        self.planner.finish().map_err(InvalidMessage::from)?;
        cx.phase(Phase::Verifying);
        let request = cx.ask(Ask::Seal { stage: stage.clone() });
        let Self { aim, offer, place, progress, repairs, .. } = self;
        Ok(Receiving::Verifying(Verifying { aim, offer, place, stage, request, progress, repairs }))
    }
}

impl Verifying {
    fn on_sealed(self, answer: Answer, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let Answer::Sealed(made) = answer else { return Err(wrong_answer()) };
        let Self { aim, offer, place, stage, progress, repairs, .. } = self;
        if made == offer.root {
            cx.phase(Phase::Committing);
            let request = cx.ask(Ask::Commit { stage: stage.clone() });
            return Ok(Receiving::Committing(Committing { offer, request, progress, repairs, _stage: stage }));
        }
        if repairs > 0 {
            return Err(TransferError::Integrity { announced: offer.root, made }.into());
        }
        cx.send(TransferMessage::Repair);
        cx.event(EventKind::Repairing);
        Patching::again(aim, offer, place, None, repairs + 1, cx)
    }
}

impl Committing {
    fn on_committed(self, answer: Answer, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let Answer::Committed(generation) = answer else { return Err(wrong_answer()) };
        cx.send(TransferMessage::Done(generation));
        Ok(Receiving::Ended(self.outcome(generation, cx)))
    }

    fn outcome(&self, generation: Generation, cx: &Context<'_>) -> Outcome {
        let mut progress = self.progress;
        progress.wire = ByteLen::new(cx.flow.wire);
        let Offer { len, root, .. } = self.offer;
        Outcome { len, root, generation: Some(generation), progress, repairs: self.repairs }
    }
}
