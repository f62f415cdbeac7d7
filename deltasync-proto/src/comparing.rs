//! A receiver that finds out how the sender's set of chunks differs from its own.
//!
//! Cells or tags come; when as many are here as were asked for they are compared on another thread, and what comes of it
//! is a survey of the basis, a request for more, or that nothing is common.
//!
//! # Security
//!
//! What is held follows what we asked for, and that the size of both sets: a part that does not continue what is here, or
//! goes beyond what was asked for, ends the connection.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use deltasync_core::{Elements, Malformed, Received, Wanted, read_tags};

use crate::bulk::{DISCONTINUED, SetPart, Want};
use crate::context::{Context, Trouble};
use crate::job::{Product, Verdict, Work};
use crate::patching::Patching;
use crate::receiving::{Receiving, Task};
use crate::surveying::Surveying;
use crate::{Content, InvalidMessage, JobId, MessageKind, More, OpenedFile, Phase, TransferMessage};

/// Waits for parts of the sender's set.
#[derive(Debug)]
pub(crate) struct Comparing {
    task: Task,
    basis: OpenedFile,
    /// Ours, once they were computed.
    elements: Option<Arc<Elements>>,
    received: Option<Received>,
    /// What we asked for; nothing at first, when the sender chooses.
    asked: Option<Wanted>,
    job: Option<JobId>,
}

impl Comparing {
    pub(crate) fn begin(task: Task, basis: OpenedFile) -> Self {
        Self { task, basis, elements: None, received: None, asked: None, job: None }
    }

    pub(crate) fn on_part(
        mut self: Box<Self>,
        is_tags: bool,
        part: SetPart,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        let kind = if is_tags { MessageKind::Tags } else { MessageKind::Cells };
        let damaged = |cause| InvalidMessage::Payload { kind, cause };
        let Content::Set { elements } = self.task.offer.content else {
            return Err(damaged(Malformed::Value("parts of a set that was not offered")).into());
        };
        if self.job.is_some() {
            return Err(damaged(Malformed::Value("more of a set than was asked for")).into());
        }
        cx.used(cx.payload);
        let end = match (self.asked, is_tags) {
            (Some(Wanted::Cells(end)), false) | (Some(Wanted::Tags(end)), true) => end,
            (None, true) => elements as usize,
            (None, false) => part.end(),
            (Some(_), _) => return Err(damaged(Malformed::Value("other parts of a set than were asked for")).into()),
        };
        if part.end() > end {
            return Err(damaged(Malformed::Value("more of a set than was asked for")).into());
        }
        let start = part.start as usize;
        let have = match is_tags {
            true => {
                let mut tags = match self.received.take() {
                    Some(Received::Tags { tags, .. }) => tags,
                    _ => Vec::new(),
                };
                if tags.len() != start {
                    return Err(damaged(DISCONTINUED).into());
                }
                read_tags(&part.bytes, part.count as usize, elements as usize, &mut tags).map_err(damaged)?;
                let have = tags.len();
                self.received = Some(Received::Tags { tags, elements: elements as usize });
                have
            }
            false => {
                let have = match self.received.take() {
                    Some(Received::Cells(sketch)) => Some(sketch),
                    None => None,
                    Some(Received::Tags { .. }) => return Err(damaged(DISCONTINUED).into()),
                };
                let sketch = part.cells(have, cx.sketch_key(), elements, kind, &cx.config.limits)?;
                let have = sketch.range().end;
                self.received = Some(Received::Cells(sketch));
                have
            }
        };
        // A tag takes 8 bytes, a cell 24.
        cx.keep(have.saturating_sub(start) * if is_tags { 8 } else { 24 });
        if have >= end
            && let Some(received) = self.received.take()
        {
            cx.phase(Phase::Matching);
            let (chunks, elements) = (self.basis.chunks.clone(), self.elements.take());
            let (key, edge_key) = (cx.tag_key(), cx.edge_key());
            self.job = Some(cx.compute(Work::Compare { chunks, elements, key, edge_key, received }));
        }
        Ok(Receiving::Comparing(self))
    }

    pub(crate) fn on_computed(
        mut self: Box<Self>,
        id: JobId,
        product: Product,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        let Product::Compared { elements, received, verdict } = product else { return Ok(Receiving::Comparing(self)) };
        if self.job.take_if(|job| *job == id).is_none() {
            return Ok(Receiving::Comparing(self));
        }
        match verdict {
            Verdict::More(wanted) => {
                self.received = match (wanted, received) {
                    (Wanted::Tags(_), Received::Cells(_)) => None,
                    (_, received) => Some(received),
                };
                let number = |end: usize| u32::try_from(end).expect("positions in a set are far below 2^32");
                cx.send(TransferMessage::More(match wanted {
                    Wanted::Cells(end) => More::Cells(number(end)),
                    Wanted::Tags(end) => More::Tags(number(end)),
                }));
                cx.phase(Phase::Waiting);
                (self.elements, self.asked) = (Some(elements), Some(wanted));
                Ok(Receiving::Comparing(self))
            }
            Verdict::Nothing => {
                cx.send(TransferMessage::Want(Want::All));
                Patching::begin(self.task, None, cx)
            }
            Verdict::Surveyed(surveyed) => Surveying::begin(self.task, self.basis, surveyed, cx),
        }
    }
}
