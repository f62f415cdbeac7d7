//! A sender's part in a repair: the receiver has told the sums of ranges of what it made, and gets those again, raw, that
//! differ from the target.
//!
//! The file is described anew first: if its root is no longer the one that was offered, it changed in a way that its
//! looks did not show, and the transfer starts over instead.

use alloc::boxed::Box;
use alloc::vec::Vec;

use deltasync_core::{ByteLen, Malformed, MendKey, Offset, Op, Ops};

use crate::bulk::Repair;
use crate::context::{Answered, Context, Trouble, wrong_answer};
use crate::job::Work;
use crate::{Answer, Ask, Cutting, InvalidMessage, JobId, MessageKind, OpenedFile, Place, RequestId};

/// A repair being prepared.
#[derive(Debug)]
pub(crate) struct Mending {
    target: OpenedFile,
    repair: Repair,
    key: MendKey,
    state: State,
    /// Sums of our ranges so far.
    sums: Vec<u64>,
}

#[derive(Debug)]
enum State {
    Describing(RequestId),
    Reading(RequestId),
    Summing(JobId),
}

/// Where a repair stands.
pub(crate) enum Mended {
    Going(Box<Mending>),
    /// The file is no longer what was offered.
    Changed,
    /// What makes the target of what the receiver has made.
    Ready(OpenedFile, Ops),
}

impl Mending {
    pub(crate) fn begin(
        (place, cutting): (Place, Cutting),
        target: OpenedFile,
        repair: Repair,
        repairs: u32,
        cx: &mut Context<'_>,
    ) -> Result<Self, Trouble> {
        let usual = repair.range == 0 || repair.range.is_power_of_two() && repair.range <= MendKey::LONGEST;
        if repair.made > target.chunks.len().get() || !usual {
            let cause = Malformed::Value("ranges that no receiver sums");
            return Err(InvalidMessage::Payload { kind: MessageKind::Repair, cause }.into());
        }
        let algorithm = target.chunks.algorithm();
        let request = cx.ask(Ask::Describe { place, cutting, algorithm, remember: None });
        let key = cx.mend_key(repairs);
        Ok(Self { target, repair, key, state: State::Describing(request), sums: Vec::new() })
    }

    /// True for a request of ours.
    pub(crate) fn waits_for(&self, id: RequestId) -> bool {
        matches!(self.state, State::Describing(request) | State::Reading(request) if request == id)
    }

    /// Takes the answer to a request of ours.
    pub(crate) fn on_answer(mut self: Box<Self>, answer: Answered, cx: &mut Context<'_>) -> Result<Mended, Trouble> {
        match (&self.state, answer?) {
            (State::Describing(_), Answer::Described(file)) => {
                if file.chunks.root() != self.target.chunks.root() {
                    return Ok(Mended::Changed);
                }
                self.target = file;
                Ok(self.go_on(cx))
            }
            (State::Reading(_), Answer::Read(bytes)) => {
                let range = usize::try_from(self.repair.range).expect("at most a piece");
                self.state = State::Summing(cx.compute(Work::Ranges { key: self.key.clone(), bytes, range }));
                Ok(Mended::Going(self))
            }
            _ => Err(wrong_answer()),
        }
    }

    /// Takes the sums of the piece that was read.
    pub(crate) fn on_sums(mut self: Box<Self>, id: JobId, sums: Vec<u64>, cx: &mut Context<'_>) -> Mended {
        if !matches!(self.state, State::Summing(job) if job == id) {
            return Mended::Going(self);
        }
        self.sums.extend(sums);
        self.go_on(cx)
    }

    /// Reads the next piece, or compares when all are summed.
    fn go_on(mut self: Box<Self>, cx: &mut Context<'_>) -> Mended {
        let at = self.sums.len() as u64 * self.repair.range;
        if at < self.repair.made {
            let len = ByteLen::new(MendKey::LONGEST.min(self.repair.made - at));
            let (file, ranges) = (self.target.file.clone(), [(Offset::new(at), len)].into());
            self.state = State::Reading(cx.ask(Ask::Read { file, ranges }));
            return Mended::Going(self);
        }
        let ops = self.ops();
        Mended::Ready(self.target, ops)
    }

    /// Ranges that are right are copied from where they are, all others sent.
    fn ops(&self) -> Ops {
        let Repair { made, range, .. } = self.repair;
        let mut ops = Ops::new();
        let mut at = 0;
        for (ours, theirs) in self.sums.iter().zip(&self.repair.sums) {
            let len = ByteLen::new(range.min(made - at));
            match ours == theirs {
                true => ops.push(Op::Copy { from: Offset::new(at), len }),
                false => ops.push(Op::Literal { len }),
            }
            at += len.get();
        }
        ops.push(Op::Literal { len: ByteLen::new(self.target.chunks.len().get() - at) });
        ops
    }
}
