//! A sender whose delta is on its way: pieces leave as the link takes them, and before the last one the file is looked at
//! again.

use alloc::boxed::Box;

use deltasync_core::{ByteLen, Offset, Op, Placer};

use crate::context::{Answered, Context, Trouble};
use crate::delivery::{Delivery, Next};
use crate::sending::{Common, Sending};
use crate::{Answer, Ask, Delta, FaultKind, OpenedFile, Phase, Progress, RequestId, TransferMessage};

/// No more is prepared while this many bytes wait to leave.
const QUEUED_MAX: usize = 512 << 10;

/// The delta is on its way.
#[derive(Debug)]
pub(crate) struct Delivering {
    pub(crate) common: Common,
    pub(crate) target: OpenedFile,
    pub(crate) delivery: Delivery,
    pub(crate) recheck: Option<RequestId>,
    pub(crate) progress: Progress,
    pub(crate) placer: Placer,
    /// Literal bytes that have gone and are not placed yet.
    pub(crate) unplaced: ByteLen,
}

impl Delivering {
    /// Everything is sent.
    pub(crate) fn whole(mut common: Common, target: OpenedFile, cx: &mut Context<'_>) -> Sending {
        let len = target.chunks.len();
        if target.is_tree() {
            common.differs(&target, [(Offset::ZERO, len)].into(), cx);
        }
        let ops = [Op::Literal { len }].into_iter().collect();
        let delivery = Delivery::packed(target.file.clone(), ops, Some(target.chunks.clone()), |_| None, cx);
        Self::begin(common, target, delivery, cx)
    }

    pub(crate) fn begin(common: Common, target: OpenedFile, delivery: Delivery, cx: &mut Context<'_>) -> Sending {
        cx.phase(Phase::Moving);
        let total = target.chunks.len();
        let (progress, placer) = (Progress { total, ..Progress::default() }, Placer::new(total));
        Sending::Delivering(Box::new(Self {
            common,
            target,
            delivery,
            recheck: None,
            progress,
            placer,
            unplaced: ByteLen::ZERO,
        }))
    }

    pub(crate) fn pump(mut self: Box<Self>, cx: &mut Context<'_>) -> Sending {
        if cx.flow.queued() < QUEUED_MAX {
            self.delivery.go_on(cx.config.piece, cx);
        }
        while cx.flow.queued() < QUEUED_MAX {
            match self.delivery.next_ready() {
                Next::Piece(delta) => self.send(delta, cx),
                Next::Last => {
                    if self.recheck.is_none() {
                        self.recheck = Some(cx.ask(Ask::Recheck { file: self.target.file.clone() }));
                    }
                    break;
                }
                Next::Nothing => break,
            }
        }
        Sending::Delivering(self)
    }

    pub(crate) fn send(&mut self, delta: Delta, cx: &mut Context<'_>) {
        self.progress.copied += delta.ops.copied_len();
        self.progress.literal += delta.literals.raw_len();
        self.unplaced += delta.literals.raw_len();
        for op in delta.ops.as_slice() {
            self.placer.push(op.len(), matches!(op, Op::Copy { .. }));
        }
        let delta = TransferMessage::Delta(delta);
        match self.common.is_dry() {
            true => self.common.unsent.count(cx.len_of(delta)),
            false => cx.send(delta),
        }
        cx.progress(&mut self.progress, self.placer.take_within(&mut self.unplaced));
    }

    pub(crate) fn on_answer(
        mut self: Box<Self>,
        id: RequestId,
        answer: Answered,
        cx: &mut Context<'_>,
    ) -> Result<Sending, Trouble> {
        let changed = matches!(&answer, Err(fault) if fault.kind == FaultKind::Changed);
        if self.recheck == Some(id) {
            if changed || !matches!(answer?, Answer::Rechecked { unchanged: true }) {
                return Sending::start_over(self.common, cx);
            }
            if let Some(delta) = self.delivery.take_front() {
                self.send(delta, cx);
            }
            cx.phase(Phase::Waiting);
            let Self { common, target, progress, .. } = *self;
            if common.is_dry() {
                return Ok(common.rehearsed(&target, progress, cx));
            }
            return Ok(Sending::delivered(common, target, progress, cx));
        }
        if self.delivery.waits_for(id) {
            if changed {
                return Sending::start_over(self.common, cx);
            }
            self.delivery.on_answer(id, answer, cx)?;
        }
        Ok(Sending::Delivering(self))
    }
}
