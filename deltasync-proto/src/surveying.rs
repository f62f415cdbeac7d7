//! A receiver that sums the blocks of its old gaps and tells the sender of its basis.
//!
//! A sample of the gaps tells first how well they compress, since that decides how long blocks should be. Then the gaps
//! are read in pieces of bounded size, one after the other, and summed on another thread. Where that comes to more than a
//! sender takes, everything is asked for.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use deltasync_core::{ByteLen, FineShape, FineSummer, OldContent, Survey};

use crate::bulk::Want;
use crate::context::{Answered, Context, Trouble, wrong_answer};
use crate::job::{Product, Surveyed, Work};
use crate::patching::{Basis, Patching};
use crate::ranges::{Ranges, Taken};
use crate::receiving::{Receiving, Task};
use crate::{Answer, Ask, JobId, OpenedFile, RequestId, TransferMessage};

/// The most places of which a sample is taken, and the bytes at each.
const SAMPLES: (usize, u64) = (16, 4 << 10);
/// The bytes that are read and summed at once.
const PIECE: u64 = 4 << 20;
/// The bytes of a survey in one frame.
const FRAME: usize = 256 << 10;

/// The old gaps are being summed.
#[derive(Debug)]
pub(crate) struct Surveying {
    task: Task,
    basis: OpenedFile,
    surveyed: Arc<Surveyed>,
    /// What is to be summed, in order; the front may be partly done.
    left: Ranges,
    shape: Option<FineShape>,
    state: State,
}

#[derive(Debug)]
enum State {
    Sampling(RequestId),
    Rating(JobId),
    Reading { request: RequestId, summer: Box<FineSummer>, ends: Vec<usize> },
    Summing(JobId),
}

impl Surveying {
    pub(crate) fn begin(
        task: Task,
        basis: OpenedFile,
        surveyed: Arc<Surveyed>,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        let summed = surveyed.pieces.iter().filter_map(|(piece, at)| match piece.content {
            OldContent::Summed(len) => Some((*at, len)),
            _ => None,
        });
        let left: Ranges = summed.collect();
        if left.is_empty() {
            return tell(task, basis, surveyed, None, Vec::new(), cx);
        }
        let (places, bytes) = SAMPLES;
        let sample = left.iter().step_by(left.iter().len().div_ceil(places));
        let ranges = sample.map(|(at, len)| (*at, ByteLen::new(len.get().min(bytes)))).collect();
        let request = cx.ask(Ask::Read { file: basis.file.clone(), ranges });
        let state = State::Sampling(request);
        Ok(Receiving::Surveying(Box::new(Self { task, basis, surveyed, left, shape: None, state })))
    }

    pub(crate) fn on_answer(
        mut self: Box<Self>,
        id: RequestId,
        answer: Answered,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        match self.state {
            State::Sampling(request) if request == id => {
                let Answer::Read(sample) = answer? else { return Err(wrong_answer()) };
                self.state = State::Rating(cx.compute(Work::Ratio { sample }));
            }
            State::Reading { request, summer, ends } if request == id => {
                let Answer::Read(bytes) = answer? else { return Err(wrong_answer()) };
                if ends.last().is_some_and(|end| *end > bytes.len()) {
                    return Err(wrong_answer());
                }
                self.state = State::Summing(cx.compute(Work::Sum { summer, bytes, ends }));
            }
            _ => {}
        }
        Ok(Receiving::Surveying(self))
    }

    pub(crate) fn on_computed(
        mut self: Box<Self>,
        id: JobId,
        product: Product,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        match (&self.state, product) {
            (State::Rating(job), Product::Ratio(ratio)) if *job == id => {
                let bytes = self.left.iter().map(|(_, len)| len.get()).sum();
                let shape = FineShape::for_gaps(self.left.iter().len() as u64, bytes, ratio);
                let shape = shape.with_sums_at_most(Survey::sums_max(self.surveyed.theirs()), bytes);
                let shape =
                    shape.with_bits_at_most(if cx.config.tag_bits < 48 { cx.config.tag_bits } else { u32::MAX });
                self.shape = Some(shape);
                self.read(Box::new(FineSummer::new(cx.fine_key(), shape)), cx)
            }
            (State::Summing(job), Product::Summed(summer)) if *job == id => self.read(summer, cx),
            _ => Ok(Receiving::Surveying(self)),
        }
    }

    /// Reads the next gaps, or tells the sender when all are summed.
    fn read(mut self: Box<Self>, summer: Box<FineSummer>, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let Taken { ranges, ends, .. } = self.left.take(PIECE);
        if ranges.is_empty() {
            let Self { task, basis, surveyed, shape, .. } = *self;
            return tell(task, basis, surveyed, shape, summer.finish(), cx);
        }
        let request = cx.ask(Ask::Read { file: self.basis.file.clone(), ranges });
        self.state = State::Reading { request, summer, ends };
        Ok(Receiving::Surveying(self))
    }
}

/// Sends the survey and waits for the delta.
fn tell(
    task: Task,
    basis: OpenedFile,
    surveyed: Arc<Surveyed>,
    shape: Option<FineShape>,
    sums: Vec<u64>,
    cx: &mut Context<'_>,
) -> Result<Receiving, Trouble> {
    let survey = Survey {
        basis: basis.chunks.len(),
        order: surveyed.order,
        missing: surveyed.missing.clone(),
        pieces: surveyed.pieces.iter().map(|(piece, _)| *piece).collect(),
        shape,
        sums,
        edges: surveyed.edges.clone(),
    };
    let most = Survey::sums_max(surveyed.theirs()) + survey.pieces.len() as u64;
    let mut bytes = Vec::new();
    survey.encode(surveyed.theirs(), &mut bytes);
    let bytes = Bytes::from(bytes);
    if bytes.len() as u64 > cx.config.survey_max() || survey.sums.len() as u64 > most {
        cx.send(TransferMessage::Want(Want::All));
        return Patching::begin(task, None, cx);
    }
    for start in (0..bytes.len()).step_by(FRAME) {
        let end = bytes.len().min(start + FRAME);
        let last = end == bytes.len();
        cx.send(TransferMessage::Want(Want::Survey { last, bytes: bytes.slice(start..end) }));
    }
    Patching::after_survey(task, Basis::of(basis), surveyed, cx)
}
