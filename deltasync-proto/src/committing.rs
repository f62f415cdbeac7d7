//! The end of a receiver's work: the target is staged and right, and becomes the file, if that replaces what it should.
//!
//! ```text
//!         lacking, unseen ────┐
//! Verifying ──┼───────────► Storing ── done ──► ended
//!             │               │ another file is there
//!             │               ▼
//!             │             Looking ── the target is there ──► ended
//!             │               │
//!             └───────────────┴──Confirm──► Asked ── Replace ──► Storing
//! ```
//!
//! A pushed tree that lacks members when its own delta is there is *lacking*: they come by transfers beside it, and it is
//! committed when the sender says that they have ended, so that their directories get their times once, and nothing need be
//! compared again. One that becomes visible as one change is not: its storage refuses it, and members come after it.
//!
//! A commit names what it replaces: the very file that was there when the basis was opened. When another one is there by
//! then, somebody has published in between. A late commit must not undo that unseen, so the sender is told what is there
//! and has to say that it is to be replaced; only a live one can, also where a condition names that version again. When a
//! condition does not hold, or the target is our own user's, the transfer fails instead.
//!
//! Bytes may also be late themselves, when their sender has long given the connection up and published something newer by
//! another, or they are a recording of a connection that once was. So nothing is replaced for a sender that has not
//! named the generation of that, nor answered what we said of it and seen this connection's hello: it is asked too. The
//! files of a tree are published before its commit; so it is its delta that must not come sooner, see
//! [`Task::publishes_unasked`].

use alloc::boxed::Box;

use deltasync_core::{ByteLen, Generation};

use crate::context::{Answered, Context, Trouble, wrong_answer};
use crate::receiving::{Aim, Intent, Receiving, Task, attributes, cutting, there};
use crate::{
    Adorned, Answer, Ask, Condition, Confirm, Destination, FaultKind, OpenedFile, Outcome, Phase, Progress, Replaces,
    RequestId, StageHandle, TransferError, TransferMessage, Version,
};

/// How often a sender is asked whether it means to replace what is there, before a transfer is given up.
pub(crate) const CONFIRMS_MAX: u32 = 256;

/// The storage makes the target durable and publishes it.
#[derive(Debug)]
pub(crate) struct Committing {
    pub(crate) task: Task,
    stage: StageHandle,
    progress: Progress,
    repairs: u32,
    confirms: u32,
    adorned: bool,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Members of the tree are still to come.
    Lacking,
    /// The peer may be a recording, until it shows that it has seen our hello.
    Unseen,
    /// The staged file gets its permissions and time.
    Adorning(RequestId),
    /// The storage commits.
    Storing(RequestId),
    /// Something else is there: what?
    Looking(RequestId),
    /// This is there; is it to be replaced?
    Asked(Option<Version>, Replaces),
}

impl Committing {
    pub(crate) fn begin(
        task: Task,
        stage: StageHandle,
        (progress, repairs): (Progress, u32),
        members: Option<ByteLen>,
        cx: &mut Context<'_>,
    ) -> Receiving {
        let mut state = Self { task, stage, progress, repairs, confirms: 0, adorned: false, step: Step::Lacking };
        let waits = !state.task.complete && matches!(state.task.aim, Aim::Theirs);
        match members.filter(|_| waits) {
            Some(bytes) if cx.rest(bytes.get()) => cx.phase(Phase::Waiting),
            Some(_) | None => state.go_on(cx),
        }
        Receiving::Committing(Box::new(state))
    }

    fn go_on(&mut self, cx: &mut Context<'_>) {
        cx.phase(Phase::Committing);
        self.step = Step::Unseen;
        let replaces = self.task.replaces.clone();
        match (&self.task.aim, &replaces, self.task.intent) {
            (Aim::Ours(_), _, _) | (_, Replaces::Nothing, _) | (_, _, Intent::Named) => self.store(cx),
            (Aim::Theirs, Replaces::File(_), Intent::Answers) => {
                if cx.live {
                    self.store(cx);
                }
            }
            (Aim::Theirs, Replaces::File(_), Intent::Unknown) => {
                self.confirm(Confirm { current: self.task.current, since: false }, replaces, cx);
            }
        }
    }

    /// The members of the tree are there.
    pub(crate) fn on_complete(&mut self, cx: &mut Context<'_>) {
        if self.waits_for_members() {
            self.go_on(cx);
        }
    }

    /// Members of the tree are still to come.
    pub(crate) fn waits_for_members(&self) -> bool {
        matches!(self.step, Step::Lacking)
    }

    /// The peer has seen our hello.
    pub(crate) fn on_seen(mut self: Box<Self>, cx: &mut Context<'_>) -> Receiving {
        if matches!(self.step, Step::Unseen) {
            self.store(cx);
        }
        Receiving::Committing(self)
    }

    pub(crate) fn on_message(
        mut self: Box<Self>,
        message: TransferMessage,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        match (message, self.step) {
            // Sent before our answer to the offer arrived.
            (TransferMessage::Tags(_) | TransferMessage::Cells(_), step) => {
                cx.used(cx.payload);
                self.step = step;
            }
            (TransferMessage::Replace(agreed), Step::Asked(current, replaces)) => {
                if agreed != current {
                    return Err(TransferError::Conflict { current }.into());
                }
                self.task.replaces = replaces;
                self.step = Step::Unseen;
                cx.phase(Phase::Committing);
                self.store(cx);
            }
            (other, _) => return Err(cx.unexpected(&other, "committing")),
        }
        Ok(Receiving::Committing(self))
    }

    pub(crate) fn on_answer(
        self: Box<Self>,
        id: RequestId,
        answer: Answered,
        cx: &mut Context<'_>,
    ) -> Result<Receiving, Trouble> {
        match self.step {
            Step::Adorning(request) if request == id => {
                let Answer::Adorned = answer? else { return Err(wrong_answer()) };
                let mut state = self;
                state.adorned = true;
                state.store(cx);
                Ok(Receiving::Committing(state))
            }
            Step::Storing(request) if request == id => self.on_stored(answer, cx),
            Step::Looking(request) if request == id => match answer? {
                Answer::Basis { file, .. } => self.on_looked(file, cx),
                _ => Err(wrong_answer()),
            },
            // Asked for before the transfer started over.
            _ => Ok(Receiving::Committing(self)),
        }
    }

    fn confirm(&mut self, confirm: Confirm, replaces: Replaces, cx: &mut Context<'_>) {
        cx.send(TransferMessage::Confirm(confirm));
        cx.phase(Phase::Waiting);
        self.step = Step::Asked(confirm.current, replaces);
    }

    fn store(&mut self, cx: &mut Context<'_>) {
        let stage = self.stage.clone();
        if let Some(attributes) = attributes(&self.task.aim, &self.task.offer)
            && !self.adorned
        {
            self.step = Step::Adorning(cx.ask(Ask::Adorn { file: Adorned::Staged(stage), attributes }));
            return;
        }
        let replaces = self.task.replaces.clone();
        self.step = Step::Storing(cx.ask(Ask::Commit { stage, replaces }));
    }

    fn on_stored(mut self: Box<Self>, answer: Answered, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        match answer {
            Ok(Answer::Committed(generation)) => {
                cx.send(TransferMessage::Done(generation));
                Ok(Receiving::Ended(self.outcome(generation, cx)))
            }
            Ok(_) => Err(wrong_answer()),
            Err(fault) if fault.kind == FaultKind::Conflict => {
                let place = self.task.place.clone();
                let offer = &self.task.offer;
                let (cutting, algorithm) = (cutting(&self.task.aim, offer), offer.algorithm);
                let destination = Destination::exactly(place);
                let wanted = Some((offer.root, offer.len));
                self.step = Step::Looking(cx.ask(Ask::Basis { destination, cutting, algorithm, wanted }));
                Ok(Receiving::Committing(self))
            }
            Err(fault) => Err(fault.into()),
        }
    }

    fn on_looked(mut self: Box<Self>, file: Option<OpenedFile>, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let current = file.as_ref().map(OpenedFile::version);
        if current.is_some_and(|version| version.root == self.task.offer.root) {
            // Somebody has published the same.
            let Task { aim, offer, place, .. } = self.task;
            return Ok(there(&aim, &offer, place, file.as_ref(), cx));
        }
        self.confirms += 1;
        let replaces = replaces(file.as_ref());
        if self.confirms > CONFIRMS_MAX || !self.task.condition().holds(current.as_ref()) {
            return Err(TransferError::Conflict { current }.into());
        }
        match (&self.task.aim, self.task.condition()) {
            (Aim::Theirs, _) => self.confirm(Confirm { current, since: true }, replaces, cx),
            // Our user has changed the file.
            (Aim::Ours(_), Condition::Any) => return Err(TransferError::Conflict { current }.into()),
            // It is the version that was meant, by another commit or with other times.
            (Aim::Ours(_), Condition::Absent | Condition::Root(_)) => {
                self.task.replaces = replaces;
                self.store(cx);
            }
        }
        Ok(Receiving::Committing(self))
    }

    fn outcome(&self, generation: Generation, cx: &Context<'_>) -> Outcome {
        let mut progress = self.progress;
        progress.wire = ByteLen::new(cx.flow.wire);
        let offer = &self.task.offer;
        let known = offer.content.is_of_known();
        let (len, root) = (offer.len, offer.root);
        Outcome { len, root, generation: Some(generation), progress, repairs: self.repairs, known }
    }
}

/// What a commit replaces that follows this look at the place.
pub(crate) fn replaces(file: Option<&OpenedFile>) -> Replaces {
    file.map_or(Replaces::Nothing, |file| Replaces::File(file.file.clone()))
}

impl Condition {
    /// True when this may be replaced.
    pub fn holds(&self, current: Option<&Version>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Root(root) => current.is_some_and(|version| version.root == *root),
        }
    }
}
