//! A receiver that makes the target: operations and literals come, are checked against basis and announced length, and
//! go to the stage.
//!
//! Literals that are packed are one stream: one unpacker, which travels with the jobs, takes them in order. What stands
//! before them in their stream is read from the basis when the first of them comes. When the stream does not unpack,
//! perhaps since short tags have collided and what stands before it is not what the sender has, that is no crime: the
//! rest of the delta passes by, and a repair follows.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use deltasync_core::{
    ByteLen, History, LimitExceeded, LiteralUnpacker, Malformed, Offset, Op, Ops, Placer, Plan, PlanError, Planner,
    Sketch, Step,
};

use crate::assembly::Assembly;
use crate::bulk::{BREAKS_MAX, Delta, Edges, Literals, Order, Prefix, Want};
use crate::context::{Answered, Context, Trouble, wrong_answer};
use crate::job::{Broken, Product, Surveyed, Work};
use crate::receiving::{Early, REPAIRS_MAX, Receiving, Task, Verifying, is_dry};
use crate::repairing::Repairing;
use crate::{
    Answer, Ask, FileHandle, InvalidMessage, JobId, MessageKind, More, OpenedFile, Phase, Progress, Replaces,
    RequestId, StageHandle, TransferMessage,
};

/// A copy is carried out in portions of this many bytes, so that progress shows and memory and time stay bounded.
const PORTION: ByteLen = ByteLen::new(64 << 20);
/// A target of more than this many bytes gets a wider window.
const LARGE: ByteLen = ByteLen::new(1 << 20);
/// No more is unpacked while so many literal bytes wait to be staged.
const UNPACKED_MAX: usize = 2 << 20;

/// What copies come from.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    pub(crate) file: FileHandle,
    pub(crate) len: ByteLen,
}

/// Makes the target.
#[derive(Debug)]
pub(crate) struct Patching {
    pub(crate) task: Task,
    basis: Option<Basis>,
    /// `None` in a dry run: nothing is made then.
    staging: Option<RequestId>,
    stage: Option<StageHandle>,
    planner: Planner,
    assembly: Assembly,
    /// Literals in the order in which they came, the packed ones still packed.
    incoming: VecDeque<Literals>,
    stream: Stream,
    /// The operations of the first piece, until it is known whether they say what stands before the literals.
    first: Option<Ops>,
    /// The portions of the last plan that are not applied yet, with its literals.
    portions: VecDeque<Plan>,
    literals: Bytes,
    applying: Option<(RequestId, Plan)>,
    last_seen: bool,
    progress: Progress,
    placer: Placer,
    repairs: u32,
    /// What our survey told, and what the sender may still ask about it.
    told: Option<Arc<Surveyed>>,
    asked: Option<Asked>,
    /// A file elsewhere is copied; what came behind the offer meanwhile.
    twin: Option<Early>,
}

/// The unpacker of the literals.
#[derive(Debug)]
enum Stream {
    /// None has been needed.
    Idle,
    Loading(RequestId),
    Making(JobId),
    Ready(Box<LiteralUnpacker>),
    Unpacking(JobId),
    /// The stream does not unpack.
    Broken,
}

/// The edges that came since our survey.
#[derive(Debug, Default)]
struct Asked {
    edges: Option<Sketch>,
    /// How many cells of the edges we asked for; at first the sender chooses.
    end: Option<usize>,
    job: Option<JobId>,
}

impl Basis {
    pub(crate) fn of(file: OpenedFile) -> Self {
        Self { len: file.chunks.len(), file: file.file }
    }
}

impl Patching {
    pub(crate) fn begin(task: Task, basis: Option<Basis>, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        Self::again(task, basis, 0, cx)
    }

    /// The sender has our survey, and may ask for the order of the basis.
    pub(crate) fn after_survey(
        task: Task,
        basis: Basis,
        surveyed: Arc<Surveyed>,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        let mut state = Self::new(task, Some(basis), 0, cx)?;
        (state.told, state.asked) = (Some(surveyed), Some(Asked::default()));
        Ok(Receiving::Patching(Box::new(state)))
    }

    /// The target is a copy of a file elsewhere, or so it seems.
    pub(crate) fn of_twin(
        task: Task,
        twin: FileHandle,
        early: Early,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        let len = task.offer.len;
        let mut state = Self::new(task, Some(Basis { file: twin, len }), 0, cx)?;
        let ops = [Op::Copy { from: Offset::ZERO, len }].into_iter().collect();
        state.assembly.frame(&ops, ByteLen::ZERO, 0).map_err(InvalidMessage::from)?;
        state.last_seen = true;
        state.twin = Some(early);
        Box::new(state).go_on(cx)
    }

    /// Begins once more, after a repair.
    pub(crate) fn again(
        task: Task,
        basis: Option<Basis>,
        repairs: u32,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        Self::new(task, basis, repairs, cx).map(|state| Receiving::Patching(Box::new(state)))
    }

    fn new(task: Task, basis: Option<Basis>, repairs: u32, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        cx.phase(Phase::Moving);
        if task.offer.len > LARGE {
            cx.widen();
        }
        let basis_len = basis.as_ref().map_or(ByteLen::ZERO, |basis| basis.len);
        let planner = Planner::new(basis_len, task.offer.len, &cx.config.limits).map_err(InvalidMessage::from)?;
        let (place, offer) = (task.place.clone(), &task.offer);
        let (len, algorithm, root) = (offer.len, offer.algorithm, offer.root);
        let ask = match task.tree_options() {
            Some(options) => {
                let basis = match &task.replaces {
                    Replaces::File(tree) => Some(tree.clone()),
                    Replaces::Nothing => None,
                };
                Ask::StageTree { place, len, algorithm, basis, options }
            }
            None => Ask::Stage { place, len, algorithm, root },
        };
        let staging = (!is_dry(offer)).then(|| cx.ask(ask));
        let progress = Progress { total: task.offer.len, ..Progress::default() };
        Ok(Self {
            task,
            basis,
            staging,
            stage: None,
            planner,
            assembly: Assembly::default(),
            incoming: VecDeque::new(),
            stream: Stream::Idle,
            first: None,
            portions: VecDeque::new(),
            literals: Bytes::new(),
            applying: None,
            last_seen: false,
            progress,
            placer: Placer::new(progress.total),
            repairs,
            told: None,
            asked: None,
            twin: None,
        })
    }

    /// What is made, once the sender has sent a delta of it.
    pub(crate) fn sent(&mut self) -> Option<&mut Task> {
        // What is said of one may have crossed our wish for a repair.
        (self.last_seen || self.repairs > 0).then_some(&mut self.task)
    }

    /// The delta that came is of no use any more.
    pub(crate) fn give_back(mut self: Box<Self>, cx: &mut Context<'_>) -> Task {
        self.assembly.clear(|payload| cx.used(payload));
        self.task
    }

    pub(crate) fn on_message(
        mut self: Box<Self>,
        message: TransferMessage,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        match message {
            TransferMessage::Delta(delta) if self.twin.is_none() && self.staging.is_some() => self.on_delta(delta, cx),
            TransferMessage::Edges(edges) => self.on_edges(edges, cx),
            TransferMessage::Tags(part) | TransferMessage::Cells(part) if self.twin.is_none() => {
                // Sent before our answer to the offer arrived.
                drop(part);
                cx.used(cx.payload);
                Ok(Receiving::Patching(self))
            }
            TransferMessage::Tags(part) => {
                self.twin.get_or_insert_default().parts.push((true, part, cx.payload));
                Ok(Receiving::Patching(self))
            }
            TransferMessage::Cells(part) => {
                self.twin.get_or_insert_default().parts.push((false, part, cx.payload));
                Ok(Receiving::Patching(self))
            }
            other => Err(cx.unexpected(&other, "patching")),
        }
    }

    fn on_delta(mut self: Box<Self>, delta: Delta, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        if self.last_seen {
            return Err(cx.unexpected(&TransferMessage::Delta(delta), "finishing after the last piece"));
        }
        if self.task.publishes_unasked() && !cx.live {
            // It may be a recording, and what is whole is published at once.
            return Err(cx.unexpected(&TransferMessage::Delta(delta), "waiting for a sign that our hello was seen"));
        }
        self.asked = None;
        self.last_seen = delta.last;
        if matches!(self.stream, Stream::Broken) {
            cx.used(cx.payload);
            return self.go_on(cx);
        }
        let waiting = (self.assembly.ops_len() + delta.ops.len()) as u64;
        LimitExceeded::check("operations that wait", waiting, 4 * cx.config.limits.ops as u64)
            .map_err(InvalidMessage::from)?;
        self.assembly.frame(&delta.ops, delta.literals.raw_len(), cx.payload).map_err(InvalidMessage::from)?;
        if let Literals::Packed { prefix, .. } = &delta.literals
            && matches!(self.stream, Stream::Idle)
        {
            let first = self.first.take().unwrap_or_else(|| delta.ops.clone());
            self.begin_stream(*prefix, &first, cx)?;
        } else if self.first.is_none() {
            self.first = Some(delta.ops);
        }
        self.incoming.push_back(delta.literals);
        self.go_on(cx)
    }

    /// The first packed literals have come: what stands before them?
    fn begin_stream(&mut self, prefix: Prefix, first: &Ops, cx: &mut Context<'_>) -> Result<(), Trouble> {
        let history = |mut history: History| -> Vec<(Offset, ByteLen)> {
            history.push(first);
            history.finish().into_iter().map(|range| (range.start, range.end - range.start)).collect()
        };
        let ranges = match (prefix, &self.basis) {
            (Prefix::None, _) => Vec::new(),
            (_, None) => {
                let cause = Malformed::Value("literals packed behind a basis that is not there");
                return Err(InvalidMessage::Payload { kind: MessageKind::Delta, cause }.into());
            }
            (Prefix::Neighbours, Some(_)) => self.neighbours(),
            (Prefix::Replaced, Some(basis)) => history(History::new(basis.len)),
            (Prefix::Around, Some(basis)) => history(History::around(basis.len)),
        };
        self.stream = match &self.basis {
            Some(basis) if !ranges.is_empty() => {
                Stream::Loading(cx.ask(Ask::Read { file: basis.file.clone(), ranges }))
            }
            _ => Stream::Making(cx.compute(Work::Unpacker { prefix: Bytes::new() })),
        };
        Ok(())
    }

    /// The chunks beside the old gaps that our survey told of.
    fn neighbours(&self) -> Vec<(Offset, ByteLen)> {
        self.told.as_ref().map_or_else(Vec::new, |surveyed| surveyed.neighbours.clone())
    }

    fn on_edges(mut self: Box<Self>, edges: Edges, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let damaged = |cause| Trouble::from(InvalidMessage::Payload { kind: MessageKind::Edges, cause });
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.job.is_none()) else {
            return Err(cx.unexpected(&TransferMessage::Edges(edges), "patching"));
        };
        cx.used(cx.payload);
        let Edges { elements, cells } = edges;
        let end = cells.end();
        if asked.end.is_some_and(|most| end > most) {
            return Err(damaged(Malformed::Value("more edges than were asked for")));
        }
        let have = asked.edges.take();
        let sketch = cells.cells(have, cx.edge_key(), elements, MessageKind::Edges, &cx.config.limits)?;
        if sketch.range().end < asked.end.unwrap_or(end) {
            asked.edges = Some(sketch);
            return Ok(Receiving::Patching(self));
        }
        let surveyed = self.told.clone().ok_or_else(wrong_answer)?;
        asked.job = Some(cx.compute(Work::Break { surveyed, key: cx.tag_key(), edges: sketch }));
        Ok(Receiving::Patching(self))
    }

    fn on_broken(&mut self, id: JobId, broken: Broken, cx: &mut Context<'_>) {
        let Some(asked) = self.asked.as_mut() else { return };
        if asked.job.take_if(|job| *job == id).is_none() {
            return;
        }
        match broken {
            Broken::More { edges, end } => {
                (asked.edges, asked.end) = (Some(edges), Some(end));
                let end = u32::try_from(end).expect("positions in a set are far below 2^32");
                cx.send(TransferMessage::More(More::Edges(end)));
            }
            Broken::Breaks(breaks) if breaks.len() > BREAKS_MAX => {
                self.asked = None;
                cx.send(TransferMessage::Want(Want::All));
            }
            Broken::Breaks(breaks) => {
                self.asked = None;
                cx.send(TransferMessage::Order(Order { breaks }));
            }
        }
    }

    pub(crate) fn on_answer(
        mut self: Box<Self>,
        id: RequestId,
        answer: Answered,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        if self.stage.is_none() && self.staging == Some(id) {
            let Answer::Staged(stage) = answer? else { return Err(wrong_answer()) };
            self.stage = Some(stage);
        } else if matches!(self.stream, Stream::Loading(request) if request == id) {
            let Answer::Read(prefix) = answer? else { return Err(wrong_answer()) };
            self.stream = Stream::Making(cx.compute(Work::Unpacker { prefix }));
        } else if let Some((_, plan)) = self.applying.take_if(|(request, _)| *request == id) {
            if answer.is_err()
                && let Some(early) = self.twin.take()
            {
                return self.task.without_twin(early, cx);
            }
            let Answer::Applied = answer? else { return Err(wrong_answer()) };
            let mut literal = ByteLen::ZERO;
            for step in plan.steps() {
                self.placer.push(step.len(), matches!(step, Step::Copy { .. }));
                match step {
                    Step::Literal { .. } => literal += step.len(),
                    Step::Copy { .. } => self.progress.copied += step.len(),
                }
            }
            self.progress.literal += literal;
            self.assembly.used(literal, |payload| cx.used(payload));
            cx.progress(&mut self.progress, self.placer.take());
        }
        self.go_on(cx)
    }

    pub(crate) fn on_computed(
        mut self: Box<Self>,
        id: JobId,
        product: Product,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        match product {
            Product::Unpacker(unpacker) if matches!(self.stream, Stream::Making(job) if job == id) => match unpacker {
                Some(unpacker) => self.stream = Stream::Ready(unpacker),
                None => self.break_stream(cx),
            },
            Product::Unpacked { unpacker, result } if matches!(self.stream, Stream::Unpacking(job) if job == id) => {
                match result {
                    Ok(raw) => {
                        self.assembly.literals(raw);
                        self.stream = Stream::Ready(unpacker);
                    }
                    Err(_) => self.break_stream(cx),
                }
            }
            Product::Broken(broken) => self.on_broken(id, broken, cx),
            _ => {}
        }
        self.go_on(cx)
    }

    /// What came is of no use, and neither is what still comes.
    fn break_stream(&mut self, cx: &mut Context<'_>) {
        self.stream = Stream::Broken;
        self.incoming.clear();
        self.assembly.clear(|payload| cx.used(payload));
    }

    /// Unpacks, applies the next portion, and seals the stage when all is applied.
    fn go_on(mut self: Box<Self>, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        self.unpack(cx);
        let Some(stage) = self.stage.clone() else { return Ok(Receiving::Patching(self)) };
        while self.applying.is_none() {
            let Some(plan) = self.portions.pop_front() else {
                let Some((ops, literals)) = self.assembly.next() else { break };
                let plan = self.planner.plan(&ops, ByteLen::of(&literals)).map_err(InvalidMessage::from)?;
                (self.portions, self.literals) = (plan.portions(PORTION).into(), literals);
                continue;
            };
            let basis = self.basis.as_ref().map(|basis| basis.file.clone());
            let ask = Ask::Apply { stage: stage.clone(), basis, plan: plan.clone(), literals: self.literals.clone() };
            self.applying = Some((cx.ask(ask), plan));
        }
        // Frames without literals need not wait for those of later ones.
        self.assembly.used(ByteLen::ZERO, |payload| cx.used(payload));
        if !self.last_seen || self.applying.is_some() || !self.incoming.is_empty() || self.is_unpacking() {
            return Ok(Receiving::Patching(self));
        }
        if matches!(self.stream, Stream::Broken) {
            let Self { task, planner, repairs, .. } = *self;
            if repairs >= REPAIRS_MAX {
                // A repair is not packed behind what may have been mistaken.
                let cause = Malformed::Value("literals of the last repair do not unpack");
                return Err(InvalidMessage::Payload { kind: MessageKind::Delta, cause }.into());
            }
            return Repairing::begin(task, stage, planner.made(), repairs, cx);
        }
        if !self.assembly.is_empty() {
            let (wanted, given) = self.assembly.missing();
            return Err(InvalidMessage::from(PlanError::Literals { wanted, given }).into());
        }
        self.planner.finish().map_err(InvalidMessage::from)?;
        cx.phase(Phase::Verifying);
        let request = cx.ask(Ask::Seal { stage: stage.clone() });
        let Self { task, progress, repairs, twin, .. } = *self;
        Ok(Receiving::Verifying(Box::new(Verifying { task, stage, request, progress, repairs, twin })))
    }

    /// Takes in literals that came, as far as they can be had.
    fn unpack(&mut self, cx: &mut Context<'_>) {
        while let Some(literals) = self.incoming.front() {
            match literals {
                Literals::Raw(_) if self.is_unpacking() => return,
                Literals::Raw(bytes) => self.assembly.literals(bytes.clone()),
                // What is packed well would fill the memory long before its credit is used up.
                Literals::Packed { .. } if self.assembly.held() >= UNPACKED_MAX => return,
                Literals::Packed { bytes, raw_len, .. } => {
                    if !matches!(self.stream, Stream::Ready(_)) {
                        return;
                    }
                    let Stream::Ready(unpacker) = core::mem::replace(&mut self.stream, Stream::Idle) else { return };
                    let work = Work::Unpack { unpacker, packed: bytes.clone(), raw_len: *raw_len };
                    self.stream = Stream::Unpacking(cx.compute(work));
                }
            }
            self.incoming.pop_front();
        }
    }

    /// Literals that came before those at the front of what comes are not here yet.
    const fn is_unpacking(&self) -> bool {
        matches!(self.stream, Stream::Unpacking(_))
    }
}
