//! A sender that remembers what the receiver has: aligns its chunks with those of the remembered basis, makes ready what is
//! kept of its bytes, and prepares the delta until it is known whether it is small enough to go with the offer.

use alloc::boxed::Box;
use alloc::vec::Vec;

use deltasync_core::{ByteLen, FineShape, Generation, History, Offset, OldStretch, Op, Ops, Script};

use crate::bulk::Prefix;
use crate::context::Context;
use crate::delivering::Delivering;
use crate::delivery::{Before, Delivery};
use crate::search::Source;
use crate::searching::Searching;
use crate::sending::{Common, Sending};
use crate::{Ask, Content, FileHandle, JobId, Kept, OpenedFile, Remembered, RequestId};

/// A delta of at most this many bytes goes with its offer, that for a tree where it names the generation of that.
const DELTA_AT_ONCE: usize = 64 << 10;

/// With more kept sums than so many bytes, 200 MiB of old gaps, those would take more memory than they save bytes: the
/// receiver's, of longer blocks, do.
const SUMS_MAX: u64 = 8 << 20;

/// How the old gaps of a remembered basis are made ready.
#[derive(Debug)]
pub(crate) enum Aligning {
    Lists(JobId),
    Sums(Script, RequestId),
    Index(Script, JobId),
}

/// What is remembered is aligned: search in what is kept of it.
pub(crate) fn aligned(
    common: Common,
    target: OpenedFile,
    remembered: Box<Remembered>,
    script: Script,
    cx: &mut Context<'_>,
) -> Sending {
    match &remembered.kept {
        Kept::Copy(file) => {
            let source = Source::Bytes(file.clone());
            let common = Common { remembered: Some(remembered), ..common };
            Searching::begin(common, target, script, source, None, cx)
        }
        Kept::Sums { file, .. } => {
            let block = FineShape::KEPT.block() as u64;
            let range = |stretch: &OldStretch| {
                let start = stretch.from.get() / block * 4;
                (Offset::new(start), ByteLen::new(FineShape::KEPT.sums_of(stretch.len.get()) * 4))
            };
            let ranges: Vec<(Offset, ByteLen)> = script.stretches().iter().map(range).collect();
            if ranges.iter().map(|(_, len)| len.get()).sum::<u64>() > SUMS_MAX {
                return Sending::list(common, target, cx);
            }
            let request = cx.ask(Ask::Read { file: file.clone(), ranges });
            Sending::Aligning(common, target, remembered, Aligning::Sums(script, request))
        }
    }
}

/// What stands before the literals where the basis is remembered.
pub(crate) fn before_remembered(first: &[Op], remembered: &Remembered, target: &FileHandle) -> Option<Before> {
    let first: Ops = first.iter().copied().collect();
    let basis = remembered.chunks.len();
    let ranges = |ranges: Vec<core::ops::Range<Offset>>| -> Vec<(Offset, ByteLen)> {
        ranges.into_iter().map(|range| (range.start, range.end - range.start)).collect()
    };
    match &remembered.kept {
        Kept::Copy(file) => {
            let mut history = History::new(basis);
            history.push(&first);
            Some(Before { prefix: Prefix::Replaced, file: file.clone(), ranges: ranges(history.finish()) })
        }
        Kept::Sums { .. } => {
            let mut history = History::around(basis);
            history.push(&first);
            let ranges = ranges(history.finish_in_target()?);
            Some(Before { prefix: Prefix::Around, file: target.clone(), ranges })
        }
    }
}

/// Prepares a delta for a remembered basis until it is known how large it is, then offers it.
pub(crate) fn prepare(
    mut common: Common,
    target: OpenedFile,
    mut delivery: Box<Delivery>,
    cx: &mut Context<'_>,
) -> Sending {
    delivery.go_on(cx.config.piece, cx);
    let Some(size) = delivery.size() else { return Sending::Preparing(common, target, delivery) };
    let Some((basis, len)) = common.basis() else { return Sending::list(common, target, cx) };
    let remembered = common.remembered.as_ref().filter(|_| common.origin.to.is_some());
    let generation = remembered.map_or(Generation::ZERO, |remembered| remembered.generation);
    // What comes unasked to a tree that it does not name is refused: its files are published as they come.
    let follows = size <= DELTA_AT_ONCE && (generation != Generation::ZERO || !target.is_tree());
    common.offer(&target, Content::Delta { basis, len, generation, follows }, cx);
    common.presumed = true;
    if target.is_tree() {
        let lacks = core::mem::take(&mut common.lacks);
        common.differs(&target, lacks, cx);
    }
    if follows && common.is_dry() {
        common.unsent.go_ahead(size as u64);
        return Sending::Proposed(common, target, Some(delivery));
    }
    if follows {
        Delivering::begin(common, target, *delivery, cx)
    } else {
        Sending::Proposed(common, target, Some(delivery))
    }
}
