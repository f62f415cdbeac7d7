//! How a sender finds what its gaps have of the basis: reads them in batches, searches each batch on another thread, and
//! puts the operations of the whole target together.
//!
//! What is searched in is either short sums of the old gaps ([`Source::Sums`]), which the receiver sent or a storage
//! kept, or their bytes ([`Source::Bytes`]), where a copy of the basis is at hand. Batches are bounded, and so is what is
//! under way: memory follows the number of gaps, not their length. A gap longer than a batch is searched in slices.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use deltasync_core::{ByteLen, FineIndex, Gap, Offset, OldStretch, Op, Ops, Pairing, Script};

use crate::context::{Answered, Context, Trouble, wrong_answer};
use crate::job::{Product, Work};
use crate::{Answer, Ask, FileHandle, JobId, RequestId};

/// Where to look.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Among these sums.
    Sums(Arc<FineIndex>),
    /// In the bytes of this file.
    Bytes(FileHandle),
}

/// The most bytes of the target in one batch where sums are searched.
const BATCH: u64 = 4 << 20;
/// The most bytes of the target, and about the most of the basis, in one batch where bytes are searched.
const BATCH_EXACT: u64 = 32 << 20;
/// Batches under way at once.
const AHEAD: usize = 2;

/// What a request of a search reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// The target, which may have changed.
    Target,
    /// What is kept of the basis.
    Basis,
}

/// A search under way.
#[derive(Debug)]
pub(crate) struct Search {
    script: Script,
    source: Source,
    target: FileHandle,
    /// What has not been begun.
    waiting: VecDeque<Slice>,
    running: Vec<Batch>,
    /// The operations of each batch that is done, by its number.
    found: BTreeMap<usize, Vec<(usize, Ops)>>,
    next: usize,
}

/// A gap or a part of one.
#[derive(Clone, Copy, Debug)]
struct Slice {
    /// The number of the gap.
    gap: usize,
    at: Offset,
    len: u64,
    pair: Option<Pairing>,
}

#[derive(Debug)]
struct Batch {
    number: usize,
    slices: Vec<Slice>,
    state: State,
}

#[derive(Debug)]
enum State {
    Reading(RequestId),
    /// The new bytes are here, the old ones are being read.
    ReadingOld {
        request: RequestId,
        new: Bytes,
        seams: Vec<(Offset, ByteLen)>,
    },
    Searching(JobId),
}

impl Search {
    pub(crate) fn begin(script: Script, source: Source, target: FileHandle) -> Self {
        let most = match source {
            Source::Sums(_) => BATCH,
            Source::Bytes(_) => BATCH_EXACT,
        };
        let slices = script.gaps().enumerate().flat_map(|(number, gap)| slices_of(number, gap, most));
        let waiting = slices.collect();
        Self { script, source, target, waiting, running: Vec::new(), found: BTreeMap::new(), next: 0 }
    }

    /// Begins what there is room for; the operations of the whole target once nothing is left.
    pub(crate) fn go_on(&mut self, cx: &mut Context<'_>) -> Option<Ops> {
        while self.running.len() < AHEAD && !self.waiting.is_empty() {
            let most = match self.source {
                Source::Sums(_) => BATCH,
                Source::Bytes(_) => BATCH_EXACT,
            };
            let (mut slices, mut len) = (Vec::new(), 0);
            while let Some(slice) = self.waiting.pop_front_if(|slice| len == 0 || len + slice.len <= most) {
                len += slice.len;
                slices.push(slice);
            }
            let ranges = slices.iter().map(|slice| (slice.at, ByteLen::new(slice.len))).collect();
            let request = cx.ask(Ask::Read { file: self.target.clone(), ranges });
            self.running.push(Batch { number: self.next, slices, state: State::Reading(request) });
            self.next += 1;
        }
        self.running.is_empty().then(|| self.finish())
    }

    /// Which file a request of ours reads, if it is one.
    pub(crate) fn reads(&self, id: RequestId) -> Option<Reads> {
        self.running.iter().find_map(|batch| match &batch.state {
            State::Reading(request) if *request == id => Some(Reads::Target),
            State::ReadingOld { request, .. } if *request == id => Some(Reads::Basis),
            _ => None,
        })
    }

    /// Takes the answer to a request that is ours.
    pub(crate) fn on_answer(&mut self, id: RequestId, answer: Answered, cx: &mut Context<'_>) -> Result<(), Trouble> {
        let waits = |batch: &&mut Batch| match &batch.state {
            State::Reading(request) | State::ReadingOld { request, .. } => *request == id,
            State::Searching(_) => false,
        };
        let Some(batch) = self.running.iter_mut().find(waits) else { return Ok(()) };
        let Answer::Read(bytes) = answer? else { return Err(wrong_answer()) };
        let len = |ranges: &mut dyn Iterator<Item = u64>| ranges.sum::<u64>();
        match &mut batch.state {
            State::Reading(_) => {
                if bytes.len() as u64 != len(&mut batch.slices.iter().map(|slice| slice.len)) {
                    return Err(wrong_answer());
                }
                batch.state = match &self.source {
                    Source::Sums(index) => {
                        let slices = batch.slices.iter().map(|slice| (slice.len as usize, slice.pair)).collect();
                        State::Searching(cx.compute(Work::Find { index: index.clone(), bytes, slices }))
                    }
                    Source::Bytes(file) => {
                        let seams = seams_for(&batch.slices, &self.script);
                        let request = cx.ask(Ask::Read { file: file.clone(), ranges: seams.clone() });
                        State::ReadingOld { request, new: bytes, seams }
                    }
                };
            }
            State::ReadingOld { new, seams, .. } => {
                if bytes.len() as u64 != len(&mut seams.iter().map(|(_, len)| len.get())) {
                    return Err(wrong_answer());
                }
                let slices = batch.slices.iter().map(|slice| slice.len as usize).collect();
                let work = Work::Exact { old: bytes, seams: core::mem::take(seams), new: core::mem::take(new), slices };
                batch.state = State::Searching(cx.compute(work));
            }
            State::Searching(_) => {}
        }
        Ok(())
    }

    pub(crate) fn on_computed(&mut self, id: JobId, product: Product) {
        let waits = |batch: &Batch| matches!(batch.state, State::Searching(job) if job == id);
        if let Some(index) = self.running.iter().position(waits)
            && let Product::Found(ops) = product
        {
            let batch = self.running.swap_remove(index);
            let gaps = batch.slices.iter().map(|slice| slice.gap);
            self.found.insert(batch.number, gaps.zip(ops).collect());
        }
    }

    fn finish(&mut self) -> Ops {
        let mut of_gaps: Vec<Ops> = Vec::new();
        for (gap, ops) in core::mem::take(&mut self.found).into_values().flatten() {
            if of_gaps.len() == gap {
                of_gaps.push(ops);
            } else if let Some(last) = of_gaps.last_mut() {
                ops.as_slice().iter().for_each(|op: &Op| last.push(*op));
            }
        }
        self.script.ops(of_gaps)
    }
}

/// A gap in slices of at most `most` bytes: only the first knows what stands to its left, only the last to its right.
fn slices_of(number: usize, gap: Gap, most: u64) -> impl Iterator<Item = Slice> {
    let len = gap.len.get();
    (0..len.div_ceil(most)).map(move |part| {
        let start = part * most;
        let end = len.min(start + most);
        let pair = gap.pair.map(|pair| Pairing {
            stretch: pair.stretch,
            left: pair.left && start == 0,
            right: pair.right && end == len,
        });
        Slice { gap: number, at: gap.at + ByteLen::new(start), len: end - start, pair }
    })
}

/// The ranges of the basis in which these slices are searched: all old stretches where those are few, else the ones that
/// stand at the same places.
fn seams_for(slices: &[Slice], script: &Script) -> Vec<(Offset, ByteLen)> {
    let range = |stretch: &OldStretch| (stretch.from, stretch.len);
    let all: u64 = script.stretches().iter().map(|stretch| stretch.len.get()).sum();
    if all <= BATCH_EXACT {
        return script.stretches().iter().map(range).collect();
    }
    let mut room = BATCH_EXACT;
    let mut seams: Vec<(Offset, ByteLen)> = Vec::new();
    let gaps: Vec<Gap> = script.gaps().collect();
    for slice in slices {
        let Some(pair) = slice.pair else { continue };
        let stretch = &script.stretches()[pair.stretch];
        let end = stretch.from + stretch.len;
        // A part of a gap stands at about the same part of the stretch.
        let within = slice.at - gaps[slice.gap].at;
        let start = stretch.from.checked_add(within).filter(|start| *start < end).unwrap_or(stretch.from);
        let start = seams.last().map_or(start, |(last, len)| start.max(*last + *len));
        if start >= end || room == 0 {
            continue;
        }
        let len = (end - start).get().min(slice.len.saturating_mul(2).saturating_add(64 << 10)).min(room);
        room -= len;
        seams.push((start, ByteLen::new(len)));
    }
    seams
}
