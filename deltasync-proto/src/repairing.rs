//! A receiver whose result is not the target tells what it has made, so that only what is wrong of it comes again.
//!
//! The staged bytes are reopened, read in pieces and summed range by range; the sums go to the sender, and the staged
//! bytes are the basis of the delta that follows. When that fails too, everything is asked for anew.

use alloc::boxed::Box;
use alloc::vec::Vec;

use deltasync_core::{ByteLen, MendKey, Offset};

use crate::bulk::Repair;
use crate::context::{Answered, Context, Trouble, wrong_answer};
use crate::job::{Product, Work};
use crate::patching::{Basis, Patching};
use crate::receiving::{Receiving, Task};
use crate::{Answer, Ask, EventKind, FileHandle, JobId, Phase, RequestId, StageHandle, TransferMessage};

/// More sums than fit a frame: then everything is asked for.
const SUMS_MAX: u64 = 100_000;

/// The staged bytes are being summed.
#[derive(Debug)]
pub(crate) struct Repairing {
    pub(crate) task: Task,
    made: ByteLen,
    range: u64,
    repairs: u32,
    key: MendKey,
    sums: Vec<u64>,
    state: State,
}

#[derive(Debug)]
enum State {
    Reopening {
        request: RequestId,
        // Dropping it would throw the stage away before the storage has reopened it.
        _stage: StageHandle,
    },
    Reading(FileHandle, RequestId),
    Summing(FileHandle, JobId),
}

impl Repairing {
    /// `made` bytes are staged and are not the target.
    pub(crate) fn begin(
        task: Task,
        stage: StageHandle,
        made: ByteLen,
        repairs: u32,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        cx.event(EventKind::Repairing);
        let repairs = repairs + 1;
        let range = MendKey::range_for(task.offer.len);
        if repairs > 1 || made == ByteLen::ZERO || made.get() / range > SUMS_MAX {
            cx.send(TransferMessage::Repair(Repair::ALL));
            return Patching::again(task, None, repairs.max(2), cx);
        }
        cx.phase(Phase::Verifying);
        let request = cx.ask(Ask::Reopen { stage: stage.clone() });
        let (key, sums) = (cx.mend_key(repairs), Vec::new());
        let state = State::Reopening { request, _stage: stage };
        Ok(Receiving::Repairing(Box::new(Self { task, made, range, repairs, key, sums, state })))
    }

    pub(crate) fn on_answer(
        mut self: Box<Self>,
        id: RequestId,
        answer: Answered,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        match self.state {
            State::Reopening { request, .. } if request == id => {
                let Answer::Reopened(file) = answer? else { return Err(wrong_answer()) };
                self.read(file, cx)
            }
            State::Reading(file, request) if request == id => {
                let Answer::Read(bytes) = answer? else { return Err(wrong_answer()) };
                let range = usize::try_from(self.range).expect("at most a piece");
                let job = cx.compute(Work::Ranges { key: self.key.clone(), bytes, range });
                self.state = State::Summing(file, job);
                Ok(Receiving::Repairing(self))
            }
            _ => Ok(Receiving::Repairing(self)),
        }
    }

    pub(crate) fn on_computed(
        mut self: Box<Self>,
        id: JobId,
        product: Product,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        match (&self.state, product) {
            (State::Summing(file, job), Product::Ranges(sums)) if *job == id => {
                let file = file.clone();
                self.sums.extend(sums);
                self.read(file, cx)
            }
            _ => Ok(Receiving::Repairing(self)),
        }
    }

    /// Reads the next piece, or tells the sender when all are summed.
    fn read(mut self: Box<Self>, file: FileHandle, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let at = self.sums.len() as u64 * self.range;
        if at < self.made.get() {
            let len = ByteLen::new(MendKey::LONGEST.min(self.made.get() - at));
            let request = cx.ask(Ask::Read { file: file.clone(), ranges: [(Offset::new(at), len)].into() });
            self.state = State::Reading(file, request);
            return Ok(Receiving::Repairing(self));
        }
        let Self { task, made, range, repairs, sums, .. } = *self;
        cx.send(TransferMessage::Repair(Repair { made: made.get(), range, sums }));
        Patching::again(task, Some(Basis { file, len: made }), repairs, cx)
    }
}
