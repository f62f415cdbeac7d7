//! A sender that has offered the set of its chunks: serves more of it, takes the receiver's survey in, and lays its own
//! chunks out over what that says of the basis; where blocks have moved it tells the edges between what both have.
//!
//! # Security
//!
//! A receiver may ask for more only as long as that grows by a quarter, since each time is a pass over the set; a survey
//! is bounded by the chunks that could have been offered. What it takes to use one is known from its first fields: they are
//! checked, and room is asked for, before any of it is decoded.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use deltasync_core::{Break, Elements, LIST_AT_ONCE, LimitExceeded, Sketch, Survey};

use crate::bulk::{Edges, SetPart, Want};
use crate::context::{Context, Trouble};
use crate::delivering::Delivering;
use crate::job::{Laid, Lay, NEIGHBOURS_MAX, Work};
use crate::search::Source;
use crate::searching::Searching;
use crate::sending::{Common, End, Sending, ended};
use crate::{Content, InvalidMessage, JobId, More, OpenedFile, PeerMisbehaved, Phase, TransferMessage};

/// A set was offered.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) common: Common,
    pub(crate) target: OpenedFile,
    pub(crate) elements: Arc<Elements>,
    /// Cells and tags that were sent or are being made.
    pub(crate) sent: (usize, usize),
    pub(crate) making: Option<(JobId, bool)>,
    pub(crate) survey: Vec<u8>,
}

/// The receiver's answer is whole.
#[derive(Debug)]
pub(crate) struct Laying {
    pub(crate) common: Common,
    pub(crate) target: OpenedFile,
    pub(crate) elements: Arc<Elements>,
    pub(crate) survey: Bytes,
}

/// Edges were sent, or are being made.
#[derive(Debug)]
pub(crate) struct Ordering {
    pub(crate) edges: Arc<Elements>,
    pub(crate) sent: usize,
    pub(crate) making: Option<JobId>,
}

impl Offered {
    pub(crate) fn begin(
        mut common: Common,
        target: OpenedFile,
        elements: Arc<Elements>,
        cx: &mut Context<'_>,
    ) -> Sending {
        let count = elements.len();
        common.offer(&target, Content::Set { elements: count as u32 }, cx);
        let mut state = Self { common, target, elements, sent: (0, 0), making: None, survey: Vec::new() };
        if count <= LIST_AT_ONCE {
            state.make_tags(count, cx);
        } else {
            let cells = match state.target.is_tree() {
                true => Sketch::first_flight_of_tree(count as u64),
                false => Sketch::first_flight(count as u64),
            };
            state.make_cells(cells, cx);
        }
        Sending::Offered(Box::new(state))
    }

    fn make_cells(&mut self, end: usize, cx: &mut Context<'_>) {
        let (elements, key) = (self.elements.clone(), cx.sketch_key());
        let cells = self.sent.0..end;
        self.sent.0 = end;
        self.making = Some((cx.compute(Work::Sketch { elements, key, cells }), false));
    }

    fn make_tags(&mut self, end: usize, cx: &mut Context<'_>) {
        let ranks = self.sent.1..end;
        self.sent.1 = end;
        self.making = Some((cx.compute(Work::Tags { elements: self.elements.clone(), ranks }), true));
    }

    pub(crate) fn send(&mut self, id: JobId, parts: Vec<SetPart>, cx: &mut Context<'_>) {
        if let Some((_, is_tags)) = self.making.take_if(|(job, _)| *job == id) {
            let message = if is_tags { TransferMessage::Tags } else { TransferMessage::Cells };
            parts.into_iter().for_each(|part| cx.send(message(part)));
        }
    }

    pub(crate) fn on_message(
        mut self: Box<Self>,
        message: TransferMessage,
        cx: &mut Context<'_>,
    ) -> Result<Sending, Trouble> {
        let too_much = || Trouble::from(PeerMisbehaved::TooMuch { transfer: cx.id });
        match message {
            TransferMessage::Same(generation) => Ok(ended(&self.common, &self.target, End::Same(generation), cx)),
            // It had the content under another name.
            TransferMessage::Done(generation) => Ok(ended(&self.common, &self.target, End::Done(generation, None), cx)),
            TransferMessage::More(more) => {
                if self.making.is_some() {
                    return Err(too_much());
                }
                match more {
                    More::Cells(end) if grows(self.sent.0, end as usize) => {
                        self.make_cells(end as usize, cx);
                    }
                    More::Tags(end) if (self.sent.1 + 1..=self.elements.len()).contains(&(end as usize)) => {
                        self.make_tags(end as usize, cx);
                    }
                    _ => return Err(too_much()),
                }
                Ok(Sending::Offered(self))
            }
            TransferMessage::Want(Want::All) => {
                cx.used(cx.payload);
                // What still waits of the set is of no use to a receiver that has answered.
                cx.flow.clear();
                Ok(Delivering::whole(self.common, self.target, cx))
            }
            TransferMessage::Want(Want::Survey { last, bytes }) => {
                cx.used(cx.payload);
                cx.keep(bytes.len());
                let len = (self.survey.len() + bytes.len()) as u64;
                LimitExceeded::check("bytes of a survey", len, cx.config.survey_max()).map_err(InvalidMessage::from)?;
                self.survey.extend_from_slice(&bytes);
                if !last {
                    return Ok(Sending::Offered(self));
                }
                cx.flow.clear();
                let Self { common, target, elements, survey, .. } = *self;
                let cost = Survey::cost(&survey, elements.len() as u64, &cx.config.limits);
                cx.surveyed(cost.map_err(InvalidMessage::from)?);
                let answered = Laying { common, target, elements, survey: survey.into() };
                Ok(Box::new(answered).lay(None, cx))
            }
            other => Err(cx.unexpected(&other, "waiting for the receiver's answer")),
        }
    }
}

impl Laying {
    pub(crate) fn lay(self: Box<Self>, breaks: Option<Vec<Break>>, cx: &mut Context<'_>) -> Sending {
        cx.phase(Phase::Matching);
        let job = cx.compute(Work::Lay(Box::new(Lay {
            chunks: self.target.chunks.clone(),
            elements: self.elements.clone(),
            key: cx.tag_key(),
            edge_key: cx.edge_key(),
            fine: cx.fine_key(),
            survey: self.survey.clone(),
            limits: cx.config.limits.clone(),
            breaks,
            most: NEIGHBOURS_MAX,
        })));
        Sending::Laying(self, job)
    }

    pub(crate) fn on_laid(self: Box<Self>, laid: Laid, cx: &mut Context<'_>) -> Result<Sending, Trouble> {
        match laid {
            Laid::Moved { edges } => {
                let state = Ordering { edges, sent: 0, making: None };
                let end = Sketch::first_flight(state.edges.len() as u64);
                Ok(Sending::Ordering(self, state.more(end, cx)?))
            }
            Laid::Script { script, index, neighbours } => {
                let Self { common, target, .. } = *self;
                Ok(Searching::begin(common, target, script, Source::Sums(index), Some(neighbours), cx))
            }
            Laid::Unfit => {
                let Self { common, target, .. } = *self;
                Ok(Delivering::whole(common, target, cx))
            }
        }
    }
}

impl Ordering {
    pub(crate) fn more(mut self, end: usize, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        if self.making.is_some() || !grows(self.sent, end) {
            return Err(PeerMisbehaved::TooMuch { transfer: cx.id }.into());
        }
        let (elements, key, cells) = (self.edges.clone(), cx.edge_key(), self.sent..end);
        self.making = Some(cx.compute(Work::Sketch { elements, key, cells }));
        self.sent = end;
        Ok(self)
    }

    pub(crate) fn send(&mut self, id: JobId, parts: Vec<SetPart>, cx: &mut Context<'_>) {
        if self.making.take_if(|job| *job == id).is_some() {
            let elements = self.edges.len() as u32;
            parts.into_iter().for_each(|cells| cx.send(TransferMessage::Edges(Edges { elements, cells })));
            cx.phase(Phase::Waiting);
        }
    }
}

/// True for more cells than were sent, by a quarter at least: each time they are made takes a pass over the set.
fn grows(sent: usize, end: usize) -> bool {
    end > sent && end <= Sketch::CELLS_MAX && (end >= sent + sent / 4 || end == Sketch::CELLS_MAX)
}
