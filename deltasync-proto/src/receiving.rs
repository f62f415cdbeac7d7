//! The end of a transfer that has the basis and publishes the result.
//!
//! ```text
//! pull: Preparing ──► Requested ◄───────────── changed, stale ──────────────────────────────┐
//!                         │ Offer                                                           │
//! push: ──── Offer ──► Opening ──Set──► Comparing ──► Surveying ──► Patching ──► Verifying ──► Committing ──► ended
//!                         │ same root      └ nothing in common ───────► ▲            │ root differs, twice at most
//!                         └──► ended (or Draining first)                └─ Repairing ◄┘
//! ```
//!
//! What arrives before it can be used waits in the transfer's credit. The basis stays open from the first look to the
//! commit, so copies come from the very bytes that were cut, whatever happens to the name meanwhile. Nothing becomes
//! visible before the staged bytes have the announced root.

use alloc::boxed::Box;
use alloc::vec::Vec;

use deltasync_core::{Algorithm, Attributes, ByteLen, Cutter, Generation, Malformed, RelPath};

use crate::bulk::{Delta, SetPart, Want};
use crate::committing::{Committing, replaces};
use crate::comparing::Comparing;
use crate::context::{Answered, Context, Trouble, wrong_answer};
use crate::job::Product;
use crate::patching::{Basis, Patching};
use crate::repairing::Repairing;
use crate::surveying::Surveying;
use crate::{
    Adorned, Answer, Ask, Condition, Content, Cutting, Destination, EventKind, Extra, FaultKind, FileHandle,
    InvalidMessage, JobId, MessageKind, Offer, Omits, OpenedFile, Outcome, Phase, Place, Progress, Pull, Replaces,
    RequestId, RootId, Scope, StageHandle, StorageFault, TransferError, TransferMessage, TreeOptions, Version,
};

/// How often a result may be repaired: first the ranges that differ, then everything.
pub(crate) const REPAIRS_MAX: u32 = 2;

/// The receiver's states.
#[derive(Debug)]
pub(crate) enum Receiving {
    Preparing(Preparing),
    Requested(Requested),
    Opening(Box<Opening>),
    Comparing(Box<Comparing>),
    Surveying(Box<Surveying>),
    Draining(Box<Draining>),
    Patching(Box<Patching>),
    Verifying(Box<Verifying>),
    Repairing(Box<Repairing>),
    Committing(Box<Committing>),
    /// What is there already gets its permissions and time.
    Adorning(Adorning),
    Ended(Outcome),
}

/// The target is there, published as this generation: the sender is told so when it has its permissions and time.
#[derive(Debug)]
pub(crate) struct Adorning {
    request: RequestId,
    generation: Generation,
    outcome: Outcome,
}

/// Where the target goes: in a pull our own wish, in a push the sender's.
#[derive(Clone, Debug)]
pub(crate) enum Aim {
    Ours(Ours),
    Theirs,
}

/// What our own user wants.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    pub(crate) destination: Destination,
    pub(crate) condition: Condition,
    /// For a tree, how.
    pub(crate) tree: Option<TreeOptions>,
    /// What the file gets beside its content.
    pub(crate) attributes: Option<Attributes>,
}

/// What is to be made, and where.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) aim: Aim,
    pub(crate) offer: Offer,
    pub(crate) place: Place,
    /// What was there when the basis was opened, and what the commit will replace.
    pub(crate) replaces: Replaces,
    /// That, as a version.
    pub(crate) current: Option<Version>,
    pub(crate) intent: Intent,
    /// The sender has said that the members of this tree are there.
    pub(crate) complete: bool,
}

/// How we know that whoever sends a target means to replace what was there when we opened the basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// The offer names its generation.
    Named,
    /// The delta answers what we said of it.
    Answers,
    /// We do not: the content came with the offer, or we have it elsewhere.
    Unknown,
}

/// A pull looks at what it has.
#[derive(Debug)]
pub(crate) struct Preparing {
    ours: Ours,
    path: RelPath,
    algorithm: Algorithm,
    request: RequestId,
}

/// Waits for an offer.
#[derive(Debug)]
pub(crate) struct Requested {
    aim: Aim,
    /// What was found before: by a pull that asked, or for an offer that proved stale.
    found: Option<Found>,
    /// The delta of an offer that proved stale may still be on its way.
    stale: bool,
}

/// The place of the target and what is there.
#[derive(Debug)]
struct Found {
    place: Place,
    file: Option<OpenedFile>,
    twin: Option<FileHandle>,
    /// What an earlier transfer has left, which is a better basis for a set than the file alone.
    partial: Option<OpenedFile>,
    /// The sender knows of this file, by a pull.
    told: bool,
}

/// The storage opens the basis; what follows the offer waits.
#[derive(Debug)]
pub(crate) struct Opening {
    aim: Aim,
    offer: Offer,
    request: RequestId,
    early: Early,
    /// What the storage has found, while it looks for a file that resembles the target.
    found: Option<Found>,
}

/// What came behind an offer before it could be used, each with its payload's length.
#[derive(Debug, Default)]
pub(crate) struct Early {
    pub(crate) parts: Vec<(bool, SetPart, usize)>,
    pub(crate) pieces: Vec<(Delta, usize)>,
    /// The members of the tree are there.
    pub(crate) complete: bool,
}

/// The content that came with the offer is here already: it only has to pass by.
#[derive(Debug)]
pub(crate) struct Draining {
    aim: Aim,
    offer: Offer,
    place: Place,
    file: Option<OpenedFile>,
}

/// The storage tells what root the staged bytes have.
#[derive(Debug)]
pub(crate) struct Verifying {
    pub(crate) task: Task,
    pub(crate) stage: StageHandle,
    pub(crate) request: RequestId,
    pub(crate) progress: Progress,
    pub(crate) repairs: u32,
    /// What came behind the offer while a twin was copied.
    pub(crate) twin: Option<Early>,
}

impl Receiving {
    /// Starts a pull by looking at what we have.
    pub(crate) fn pull(path: RelPath, ours: Ours, cx: &mut Context<'_>) -> Self {
        cx.phase(Phase::Describing);
        let algorithm = cx.config.algorithm;
        let cutting = match &ours.tree {
            Some(options) => Cutting::Tree(options.scope.clone()),
            None => Cutting::ByContent,
        };
        let destination = ours.destination.clone();
        let request = cx.ask(Ask::Basis { destination, cutting, algorithm, wanted: None });
        Self::Preparing(Preparing { ours, path, algorithm, request })
    }

    /// Starts a push at the server: an offer comes next.
    pub(crate) fn push() -> Self {
        Self::Requested(Requested { aim: Aim::Theirs, found: None, stale: false })
    }

    pub(crate) fn on_message(self, message: TransferMessage, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match (self, message) {
            (state, TransferMessage::Complete) => state.on_complete(cx),
            (state, TransferMessage::Omits(omits)) => state.on_omits(omits, cx),
            (Self::Requested(state), TransferMessage::Offer(offer)) => state.on_offer(offer, cx),
            (Self::Requested(state), TransferMessage::Delta(_)) if state.stale => {
                cx.used(cx.payload);
                Ok(Self::Requested(state))
            }
            (Self::Requested(state), TransferMessage::Changed) if state.stale => Ok(restart(state.aim, cx)),
            (Self::Opening(mut state), message) => match message {
                TransferMessage::Tags(part) if state.offer.content.is_set() => {
                    state.early.parts.push((true, part, cx.payload));
                    Ok(Self::Opening(state))
                }
                TransferMessage::Cells(part) if state.offer.content.is_set() => {
                    state.early.parts.push((false, part, cx.payload));
                    Ok(Self::Opening(state))
                }
                TransferMessage::Delta(delta) if state.offer.content.has_delta() => {
                    state.early.pieces.push((delta, cx.payload));
                    Ok(Self::Opening(state))
                }
                TransferMessage::Changed if state.offer.content.has_delta() => {
                    state.early.give_back(cx);
                    Ok(restart(state.aim, cx))
                }
                other => Err(cx.unexpected(&other, "opening the basis")),
            },
            (Self::Comparing(state), TransferMessage::Tags(part)) => state.on_part(true, part, cx),
            (Self::Comparing(state), TransferMessage::Cells(part)) => state.on_part(false, part, cx),
            (Self::Draining(state), TransferMessage::Delta(delta)) => {
                cx.used(cx.payload);
                if !delta.last {
                    return Ok(Self::Draining(state));
                }
                let Draining { aim, offer, place, file } = *state;
                Ok(there(&aim, &offer, place, file.as_ref(), cx))
            }
            (Self::Draining(state), TransferMessage::Changed) => Ok(restart(state.aim, cx)),
            (Self::Patching(state), TransferMessage::Changed) => {
                let Task { aim, .. } = state.give_back(cx);
                Ok(restart(aim, cx))
            }
            (Self::Patching(state), message) => state.on_message(message, cx),
            // Sent before our answer to the offer arrived, to a receiver that has a twin of the target.
            (Self::Verifying(mut state), TransferMessage::Tags(part)) if state.twin.is_some() => {
                state.twin.get_or_insert_default().parts.push((true, part, cx.payload));
                Ok(Self::Verifying(state))
            }
            (Self::Verifying(mut state), TransferMessage::Cells(part)) if state.twin.is_some() => {
                state.twin.get_or_insert_default().parts.push((false, part, cx.payload));
                Ok(Self::Verifying(state))
            }
            (Self::Committing(state), message) => state.on_message(message, cx),
            // Sent before our answer to the offer arrived.
            (state @ Self::Adorning(_), TransferMessage::Tags(_) | TransferMessage::Cells(_)) => {
                cx.used(cx.payload);
                Ok(state)
            }
            (state, message) => Err(cx.unexpected(&message, state.name())),
        }
    }

    /// The members of a tree are there, or as many of them as there will be. That comes after the last piece of its delta.
    fn on_complete(mut self, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        let complete = match &mut self {
            // What it is of was called stale.
            Self::Requested(state) if state.stale => return Ok(self),
            // All of it came before our storage had answered, and the tree is there already.
            Self::Ended(_) => return Ok(self),
            Self::Opening(state) if state.offer.cutter == Cutter::Entries && state.early.is_all() => {
                Some(&mut state.early.complete)
            }
            Self::Patching(state) => state.sent().and_then(Task::completes),
            Self::Repairing(state) => state.task.completes(),
            Self::Verifying(state) => state.task.completes(),
            Self::Committing(state) => state.task.completes(),
            Self::Preparing(_)
            | Self::Requested(_)
            | Self::Opening(_)
            | Self::Comparing(_)
            | Self::Surveying(_)
            | Self::Draining(_)
            | Self::Adorning(_) => None,
        };
        match complete {
            Some(complete) => *complete = true,
            None => return Err(cx.unexpected(&TransferMessage::Complete, self.name())),
        }
        if let Self::Committing(state) = &mut self {
            state.on_complete(cx);
        }
        Ok(self)
    }

    /// Of the tree that we have asked for, this is not sent as it is.
    fn on_omits(mut self, omits: Omits, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        cx.flow.may_omit = match cx.flow.may_omit.checked_sub(1) {
            Some(left) if !matches!(self, Self::Preparing(_)) => left,
            _ => return Err(cx.unexpected(&TransferMessage::Omits(omits), self.name())),
        };
        if let Self::Requested(Requested { aim: Aim::Ours(Ours { tree: Some(options), .. }), .. }) = &mut self
            && omits.hides()
        {
            // What we have of that is not extra.
            options.extra = Extra::Keep;
        }
        cx.event(EventKind::Omits(omits));
        Ok(self)
    }

    /// The tree that is being looked at for a peer.
    pub(crate) fn opens_tree(&self) -> Option<&RelPath> {
        let Self::Opening(state) = self else { return None };
        let wish = state.offer.to.as_ref().filter(|_| state.offer.cutter == Cutter::Entries)?;
        Some(&wish.path)
    }

    /// True for a tree that is there but for members that come by themselves.
    pub(crate) fn waits_for_members(&self) -> bool {
        matches!(self, Self::Committing(state) if state.waits_for_members())
    }

    pub(crate) fn on_answer(self, id: RequestId, answer: Answered, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match self {
            Self::Preparing(state) if state.request == id => state.on_basis(answer?, cx),
            Self::Opening(state) if state.request == id => state.on_answer(answer, cx),
            Self::Surveying(state) => state.on_answer(id, answer, cx),
            Self::Patching(state) => state.on_answer(id, answer, cx),
            Self::Repairing(state) => state.on_answer(id, answer, cx),
            Self::Verifying(state) if state.request == id => state.on_sealed(answer?, cx),
            Self::Committing(state) => state.on_answer(id, answer, cx),
            Self::Adorning(Adorning { request, generation, outcome }) if request == id => match answer? {
                Answer::Adorned => {
                    cx.send(TransferMessage::Same(generation));
                    Ok(Self::Ended(outcome))
                }
                _ => Err(wrong_answer()),
            },
            // Asked for before the transfer started over.
            other => Ok(other),
        }
    }

    pub(crate) fn on_computed(self, id: JobId, product: Product, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match self {
            Self::Comparing(state) => state.on_computed(id, product, cx),
            Self::Surveying(state) => state.on_computed(id, product, cx),
            Self::Patching(state) => state.on_computed(id, product, cx),
            Self::Repairing(state) => state.on_computed(id, product, cx),
            // Computed for a state that a changed source has ended.
            other => Ok(other),
        }
    }

    /// The peer has seen our hello: what it says is no recording.
    pub(crate) fn on_seen(self, cx: &mut Context<'_>) -> Self {
        match self {
            Self::Committing(state) => state.on_seen(cx),
            other => other,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Preparing(_) => "looking at the basis",
            Self::Requested(_) => "waiting for an offer",
            Self::Opening(_) => "opening the basis",
            Self::Comparing(_) => "comparing",
            Self::Surveying(_) => "summing the old gaps",
            Self::Draining(_) => "letting known content pass",
            Self::Patching(_) => "patching",
            Self::Verifying(_) => "verifying",
            Self::Repairing(_) => "summing what was made",
            Self::Committing(_) | Self::Adorning(_) => "committing",
            Self::Ended(_) => "ended",
        }
    }
}

impl Content {
    /// The sender knew what we have.
    pub(crate) const fn is_of_known(&self) -> bool {
        matches!(self, Self::Known | Self::Delta { .. })
    }

    /// It says of which commit what it replaces is, if it replaces anything.
    pub(crate) fn is_named(&self) -> bool {
        match self {
            Self::Known => true,
            Self::Whole | Self::Set { .. } => false,
            Self::Delta { generation, .. } => *generation != Generation::ZERO,
        }
    }

    pub(crate) const fn is_set(&self) -> bool {
        matches!(self, Self::Set { .. })
    }

    /// A delta may come before the receiver has answered.
    const fn has_delta(&self) -> bool {
        matches!(self, Self::Whole | Self::Delta { follows: true, .. })
    }
}

impl Early {
    /// The delta is all here.
    fn is_all(&self) -> bool {
        self.pieces.last().is_some_and(|(delta, _)| delta.last)
    }

    fn give_back(self, cx: &mut Context<'_>) {
        let parts = self.parts.into_iter().map(|(_, _, payload)| payload);
        parts.chain(self.pieces.into_iter().map(|(_, payload)| payload)).for_each(|payload| cx.used(payload));
    }
}

/// The source changed while it was read: another offer follows.
fn restart(aim: Aim, cx: &mut Context<'_>) -> Receiving {
    cx.event(EventKind::Restarted);
    Receiving::Requested(Requested { aim, found: None, stale: false })
}

/// The target is there already.
pub(crate) fn there(
    aim: &Aim,
    offer: &Offer,
    place: Place,
    file: Option<&OpenedFile>,
    cx: &mut Context<'_>,
) -> Receiving {
    let generation = file.map_or(Generation::ZERO, |file| file.generation);
    let outcome = same(offer, cx);
    match (attributes(aim, offer), file) {
        (Some(attributes), Some(file)) if !is_dry(offer) => {
            let file = Adorned::There(place, file.file.clone());
            let request = cx.ask(Ask::Adorn { file, attributes });
            Receiving::Adorning(Adorning { request, generation, outcome })
        }
        _ => {
            cx.send(TransferMessage::Same(generation));
            Receiving::Ended(outcome)
        }
    }
}

/// What the target gets beside its content, if it is a file of a tree.
pub(crate) fn attributes(aim: &Aim, offer: &Offer) -> Option<Attributes> {
    match aim {
        Aim::Ours(ours) => ours.attributes,
        Aim::Theirs => offer.to.as_ref().filter(|_| offer.cutter != Cutter::Entries)?.attributes,
    }
}

/// Nothing is to be changed here: the sender only wants to know what it would have to send.
pub(crate) fn is_dry(offer: &Offer) -> bool {
    offer.to.as_ref().is_some_and(|wish| wish.dry)
}

fn same(offer: &Offer, cx: &mut Context<'_>) -> Outcome {
    cx.all_there(offer.len);
    let wire = ByteLen::new(cx.flow.wire);
    let progress = Progress { total: offer.len, copied: offer.len, wire, ..Progress::default() };
    let known = offer.content.is_of_known();
    Outcome { len: offer.len, root: offer.root, generation: None, progress, repairs: 0, known }
}

impl Task {
    /// What may be replaced.
    pub(crate) fn condition(&self) -> Condition {
        condition(&self.aim, &self.offer)
    }

    /// For a tree: how.
    pub(crate) fn tree_options(&self) -> Option<TreeOptions> {
        let options = || tree_options(&self.aim, &self.offer).cloned().unwrap_or_default();
        (self.offer.cutter == Cutter::Entries).then(options)
    }

    /// Where it is noted that the members of a tree are there.
    pub(crate) fn completes(&mut self) -> Option<&mut bool> {
        (self.offer.cutter == Cutter::Entries).then_some(&mut self.complete)
    }

    /// True for a tree that replaces another one at a peer's word, file by file, before a commit, and does not name the
    /// generation of that.
    pub(crate) fn publishes_unasked(&self) -> bool {
        let replaces = matches!(self.replaces, Replaces::File(_)) && matches!(self.aim, Aim::Theirs);
        replaces && self.offer.cutter == Cutter::Entries && self.intent != Intent::Named
    }

    /// What seemed to be a twin of the target is none: begins as if there had been none.
    pub(crate) fn without_twin(self, early: Early, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let Self { aim, offer, place, .. } = self;
        let request = open(&aim, Destination::exactly(place), &offer, false, cx);
        Ok(Receiving::Opening(Box::new(Opening { aim, offer, request, early, found: None })))
    }
}

impl Opening {
    fn on_answer(mut self: Box<Self>, answer: Answered, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let found = match self.found.take() {
            None => {
                let Answer::Basis { place, file, twin, partial } = answer? else { return Err(wrong_answer()) };
                if let Some(wish) = self.offer.to.as_ref().filter(|wish| wish.attributes.is_some()) {
                    check_exactly(&wish.path, &place)?;
                }
                let found = Found { place, file, twin, partial, told: false };
                if let Some(ask) = alike_to(&self.offer, &found) {
                    self.request = cx.ask(ask);
                    self.found = Some(found);
                    return Ok(Receiving::Opening(self));
                }
                found
            }
            // It is only a help: where the storage knows none, all is sent.
            Some(found) => match answer {
                Ok(Answer::Alike(partial)) => {
                    Found { partial: partial.filter(|file| alike(file, &self.offer)), ..found }
                }
                _ => found,
            },
        };
        decide(self.aim, self.offer, found, self.early, cx)
    }
}

/// Asks for a file that resembles the target of an offer, where nothing better was found.
fn alike_to(offer: &Offer, found: &Found) -> Option<Ask> {
    let resembles = offer.to.as_ref()?.resembles.filter(|_| offer.content.is_set())?;
    let is_bare = found.file.is_none() && found.twin.is_none() && found.partial.is_none();
    let (place, cutter, algorithm) = (found.place.clone(), offer.cutter, offer.algorithm);
    is_bare.then_some(Ask::Alike { place, cutter, algorithm, resembles, comes: !is_dry(offer) })
}

impl Preparing {
    fn on_basis(self, answer: Answer, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let Answer::Basis { place, file, partial, .. } = answer else { return Err(wrong_answer()) };
        if self.ours.attributes.is_some() {
            check_exactly(&self.ours.destination.place.path, &place)?;
        }
        // What an earlier pull has left is what we have: so a set comes, and not everything.
        let have = partial.as_ref().or(file.as_ref()).map(|file| (file.chunks.root(), file.chunks.len()));
        let scope = self.ours.tree.as_ref().map_or_else(Scope::default, |options| options.scope.clone());
        cx.send(TransferMessage::Pull(Pull { path: self.path, algorithm: self.algorithm, have, scope }));
        cx.phase(Phase::Waiting);
        let found = Some(Found { place, file, twin: None, partial, told: true });
        Ok(Receiving::Requested(Requested { aim: Aim::Ours(self.ours), found, stale: false }))
    }
}

/// A file of a tree goes nowhere else: not into a directory that is still to make way for it.
fn check_exactly(wanted: &RelPath, place: &Place) -> Result<(), StorageFault> {
    if *wanted == place.path {
        return Ok(());
    }
    Err(StorageFault::new(FaultKind::WrongKind, "is a directory"))
}

impl Requested {
    fn on_offer(self, offer: Offer, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let destination = match (&self.aim, &offer.to) {
            (Aim::Ours(ours), None) if ours.tree.is_some() != (offer.cutter == Cutter::Entries) => {
                let what = if ours.tree.is_some() { "not a directory" } else { "is a directory" };
                return Err(StorageFault::new(FaultKind::WrongKind, what).into());
            }
            (Aim::Ours(ours), None) => ours.destination.clone(),
            (Aim::Theirs, Some(wish)) => {
                let is_of_a_tree = offer.cutter == Cutter::Entries || wish.attributes.is_some();
                let place = Place { root: RootId::new(0), path: wish.path.clone() };
                Destination {
                    place: place.beside_if(is_of_a_tree && wish.tree.atomic),
                    name: wish.name.clone(),
                    directory: wish.directory,
                }
            }
            (Aim::Ours(_), Some(_)) | (Aim::Theirs, None) => {
                let cause = Malformed::Value("only a pushed target names where it goes");
                return Err(InvalidMessage::Payload { kind: MessageKind::Offer, cause }.into());
            }
        };
        if let Some(found) = self.found
            && found.file.as_ref().is_none_or(|file| usable(file, &offer))
            && found.partial.as_ref().is_none_or(|partial| !offer.content.is_set() || alike(partial, &offer))
        {
            return decide(self.aim, offer, found, Early::default(), cx);
        }
        cx.phase(Phase::Describing);
        let request = open(&self.aim, destination, &offer, true, cx);
        Ok(Receiving::Opening(Box::new(Opening {
            aim: self.aim,
            offer,
            request,
            early: Early::default(),
            found: None,
        })))
    }
}

/// Opens the basis, and perhaps a twin of the target.
fn open(aim: &Aim, destination: Destination, offer: &Offer, twin: bool, cx: &mut Context<'_>) -> RequestId {
    let (cutting, algorithm) = (cutting(aim, offer), offer.algorithm);
    let wanted = twin.then_some((offer.root, offer.len));
    cx.ask(Ask::Basis { destination, cutting, algorithm, wanted })
}

/// As the target of an offer was cut.
pub(crate) fn cutting(aim: &Aim, offer: &Offer) -> Cutting {
    let options = tree_options(aim, offer);
    Cutting::by(offer.cutter, options.map(|options| options.scope.clone()).unwrap_or_default())
}

/// How a tree is transferred, as whoever wants it says.
fn tree_options<'a>(aim: &'a Aim, offer: &'a Offer) -> Option<&'a TreeOptions> {
    match aim {
        Aim::Ours(ours) => ours.tree.as_ref(),
        Aim::Theirs => offer.to.as_ref().map(|wish| &wish.tree),
    }
}

/// True when a basis that was cut before the offer came need not be cut again.
fn usable(file: &OpenedFile, offer: &Offer) -> bool {
    let equal = file.chunks.root() == offer.root;
    file.chunks.algorithm() == offer.algorithm && (equal || !offer.content.is_set()) || alike(file, offer)
}

/// True when a basis was cut as the target is.
fn alike(file: &OpenedFile, offer: &Offer) -> bool {
    file.chunks.algorithm() == offer.algorithm && file.chunks.cutter() == offer.cutter
}

/// What may be replaced.
fn condition(aim: &Aim, offer: &Offer) -> Condition {
    match aim {
        Aim::Ours(ours) => ours.condition,
        Aim::Theirs => offer.to.as_ref().map_or(Condition::Any, |wish| wish.condition),
    }
}

/// The offer and the basis are both known: what now?
fn decide(aim: Aim, offer: Offer, found: Found, early: Early, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
    let Found { place, file, twin, partial, told } = found;
    let dry = is_dry(&offer);
    let is = |root, len| file.as_ref().is_some_and(|file| file.chunks.root() == root && file.chunks.len() == len);
    let equal = is(offer.root, offer.len);
    let current = file.as_ref().map(OpenedFile::version);
    let generation = current.map_or(Generation::ZERO, |version| version.generation);
    // The delta of a dry run does not come.
    if equal && (dry || !offer.content.has_delta()) {
        early.give_back(cx);
        return Ok(there(&aim, &offer, place, file.as_ref(), cx));
    }
    if !equal && !condition(&aim, &offer).holds(current.as_ref()) {
        return Err(TransferError::Conflict { current }.into());
    }
    // Of our own files no commits are counted, and whoever asked for them is here.
    let is_it = |named| named == generation || matches!(aim, Aim::Ours(_));
    let replaces = replaces(file.as_ref());
    match offer.content {
        // The sender may be about to take its offer back: that is known when its delta has come.
        Content::Whole | Content::Delta { follows: true, .. } if equal => {
            replay(Receiving::Draining(Box::new(Draining { aim, offer, place, file })), early, cx)
        }
        // What was opened again may have changed since, and a part that is all of it may have been called our own: as a set
        // it is found to be.
        Content::Known if told && partial.is_none() => {
            let cause = Malformed::Value("an offer of a root that we do not have as one that we have");
            Err(InvalidMessage::Payload { kind: MessageKind::Offer, cause }.into())
        }
        Content::Delta { basis, len, generation, follows } if is(basis, len) && is_it(generation) => {
            if !follows || dry {
                cx.send(TransferMessage::Current);
            }
            let basis = file.map(Basis::of);
            let intent = match (offer.content.is_named(), follows) {
                (true, _) => Intent::Named,
                (false, true) => Intent::Unknown,
                (false, false) => Intent::Answers,
            };
            let task = Task { aim, offer, place, replaces, current, intent, complete: false };
            let patching = Patching::begin(task, basis, cx)?;
            replay(patching, early, cx)
        }
        Content::Known | Content::Delta { .. } => {
            early.give_back(cx);
            cx.send(TransferMessage::Stale);
            // Whoever asked for it has told now.
            let told = matches!(aim, Aim::Ours(_));
            let found = Some(Found { place, file, twin, partial, told });
            Ok(Receiving::Requested(Requested { aim, found, stale: true }))
        }
        Content::Whole => {
            if dry {
                cx.send(TransferMessage::Current);
            }
            let task = Task { aim, offer, place, replaces, current, intent: Intent::Unknown, complete: false };
            replay(Patching::begin(task, None, cx)?, early, cx)
        }
        Content::Set { elements } => {
            if twin.is_some() && dry {
                early.give_back(cx);
                cx.send(TransferMessage::Done(Generation::ZERO));
                return Ok(Receiving::Ended(same(&offer, cx)));
            }
            let task = |intent| Task { aim, offer, place, replaces, current, intent, complete: false };
            if let Some(twin) = twin {
                return Patching::of_twin(task(Intent::Unknown), twin, early, cx);
            }
            match partial.or(file) {
                // Of an empty set no part need be waited for.
                Some(basis) if !basis.chunks.is_empty() && elements > 0 => {
                    let state = Comparing::begin(task(Intent::Answers), basis);
                    let parts = early.parts.into_iter();
                    let mut state = Receiving::Comparing(Box::new(state));
                    for (is_tags, part, payload) in parts {
                        cx.payload = payload;
                        let message = if is_tags { TransferMessage::Tags(part) } else { TransferMessage::Cells(part) };
                        state = state.on_message(message, cx)?;
                    }
                    Ok(state)
                }
                // Nothing to compare: the set need not be waited for, and an empty one would not come.
                Some(_) | None => {
                    early.give_back(cx);
                    cx.send(TransferMessage::Want(Want::All));
                    Patching::begin(task(Intent::Answers), None, cx)
                }
            }
        }
    }
}

/// Hands over the pieces that came early.
fn replay(mut state: Receiving, early: Early, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
    for (delta, payload) in early.pieces {
        cx.payload = payload;
        state = state.on_message(TransferMessage::Delta(delta), cx)?;
    }
    if early.complete { state.on_complete(cx) } else { Ok(state) }
}

impl Verifying {
    fn on_sealed(self, answer: Answer, cx: &mut Context<'_>) -> Result<Receiving, Trouble> {
        let Answer::Sealed { root: made, members } = answer else { return Err(wrong_answer()) };
        let Self { task, stage, progress, repairs, twin, .. } = self;
        if made == task.offer.root {
            twin.unwrap_or_default().give_back(cx);
            if task.offer.cutter == Cutter::Entries {
                cx.event(EventKind::Made { stage: stage.clone() });
            }
            return Ok(Committing::begin(task, stage, (progress, repairs), members, cx));
        }
        if let Some(early) = twin {
            return task.without_twin(early, cx);
        }
        if repairs >= REPAIRS_MAX {
            return Err(TransferError::Integrity { announced: task.offer.root, made }.into());
        }
        Repairing::begin(task, stage, progress.made(), repairs, cx)
    }
}
