//! The end of a transfer that has the target.
//!
//! ```text
//! Recalling ──► Describing ──Whole──────────────────────────────────────► Delivering ──► Delivered ── Done, Same ──► ended
//!                │  │   └──── Known ──► Proposed ── Same ──► ended           ▲  ▲  │ changed       │ Repair
//!                │  └─ remembered ► Aligning ► Searching ► Preparing ─Delta──┘  │  └► Describing   ▼
//!                │                                              └► Proposed ─ Current ──┘   ▲    Mending
//!                └──► Listing ──Set──► Offered ── Want ──► Laying ──► Searching ────────────┘       │
//!                        ▲               └► More           │  ▲ Order                            ranges
//!                        └── Stale ── Proposed, Delivering └──► Ordering
//! ```
//!
//! What a receiver is remembered to have makes the offer: the same root, or a delta for it that was found without asking.
//! Otherwise the offer is the set of our chunks' tags, and what the receiver says of its basis is searched. The file is
//! read in pieces as the link takes them, a few ahead, and looked at again before the last one leaves: when it changed
//! meanwhile, the transfer starts over.

use alloc::boxed::Box;
use alloc::vec::Vec;

use deltasync_core::{
    Algorithm, ByteLen, Cutter, Digest, FineKey, FineShape, Generation, Offset, Resemblance, TreeList,
};

use crate::bulk::Want;
use crate::committing::CONFIRMS_MAX;
use crate::context::{Answered, Context, Trouble, wrong_answer};
use crate::delivering::Delivering;
use crate::delivery::Delivery;
use crate::job::{Product, Work};
use crate::mending::{Mended, Mending};
use crate::offering::{Laying, Offered, Ordering};
use crate::recalling::{Aligning, aligned, prepare};
use crate::rehearsing::Unsent;
use crate::search::{Reads, Source};
use crate::searching::Searching;
use crate::{
    Answer, Ask, Condition, Confirm, Content, Cutting, EventKind, Extra, FaultKind, JobId, Kept, Known, More, Offer,
    Omits, Omitted, OpenedFile, Outcome, Phase, Place, Progress, Remembered, Repair, RequestId, StorageFault,
    TransferError, TransferMessage, Wish,
};

/// A pushed file of at most this many bytes goes with its offer: it is cheaper than the round trip it saves.
const TINY: ByteLen = ByteLen::new(1024);
/// How often a source may change before we give up.
const CHANGES_MAX: u8 = 3;
/// How often we say at most what of a tree is not sent as it is: whenever it was listed, and when it could not be read so.
pub(crate) const OMITS_MAX: u8 = 2 * CHANGES_MAX;
/// How often a receiver may ask for a repair.
const REPAIRS_MAX: u32 = 2;

/// What is being sent, enough to start over.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) place: Place,
    /// Where it should go, in a push.
    pub(crate) to: Option<Wish>,
    /// What the receiver said it has, in a pull.
    pub(crate) have: Option<(Digest, ByteLen)>,
    pub(crate) algorithm: Algorithm,
    /// The name under which the receiver's file is remembered.
    pub(crate) key: Known,
    /// How it is cut where no earlier version says how: whether it is a file, a tree, or whichever is there.
    pub(crate) cutting: Cutting,
}

/// The sender's states.
#[derive(Debug)]
pub(crate) enum Sending {
    /// Our storage tells how the receiver's file is remembered.
    Recalling(Common, RequestId),
    /// Our storage opens, cuts and hashes the file.
    Describing(Common, RequestId),
    /// The elements of our chunk list are computed.
    Listing(Common, OpenedFile, JobId),
    /// The receiver compares.
    Offered(Box<Offered>),
    /// The receiver's survey is laid out over our chunks.
    Laying(Box<Laying>, JobId),
    /// The receiver tells where its order breaks ours.
    Ordering(Box<Laying>, Ordering),
    /// What is remembered of the receiver's file is aligned with ours.
    Aligning(Common, OpenedFile, Box<Remembered>, Aligning),
    /// Gaps are searched.
    Searching(Common, OpenedFile, Box<Searching>),
    /// A delta is prepared before it is offered.
    Preparing(Common, OpenedFile, Box<Delivery>),
    /// The receiver looks whether it has what we think it has; a delta may wait for that.
    Proposed(Common, OpenedFile, Option<Box<Delivery>>),
    /// The delta is on its way.
    Delivering(Box<Delivering>),
    /// All is sent; the receiver verifies, waits for the members of a tree, and commits.
    Delivered(Common, OpenedFile, Progress),
    /// What the receiver has made is compared with the file.
    Mending(Common, Box<Mending>),
    /// Our storage remembers what both ends have now.
    Remembering(Outcome, RequestId),
    Ended(Outcome),
}

/// What all states know.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) origin: Origin,
    /// Offers so far.
    pub(crate) attempt: u8,
    pub(crate) changes: u8,
    pub(crate) repairs: u32,
    /// How often we said that what is there is to be replaced.
    pub(crate) confirmed: u32,
    /// How the receiver's file is remembered, until that proved wrong.
    pub(crate) remembered: Option<Box<Remembered>>,
    /// The receiver may still say that it has not what we thought.
    pub(crate) presumed: bool,
    /// It may still say so of an offer that we have taken back.
    pub(crate) retracted: bool,
    /// An offer has been made and not taken back.
    pub(crate) standing: bool,
    /// The last offer was made for what we knew of the receiver.
    pub(crate) known: bool,
    /// It replaces nothing, or a version that it names the generation of.
    pub(crate) named: bool,
    /// What a dry run has not sent.
    pub(crate) unsent: Unsent,
    /// Ranges of a tree that the receiver lacks if it has what is remembered of it.
    pub(crate) lacks: Vec<(Offset, ByteLen)>,
    /// The members of a tree have ended.
    pub(crate) complete: bool,
}

impl Sending {
    /// Starts by recalling what the receiver has, where it can have something.
    pub(crate) fn begin(origin: Origin, cx: &mut Context<'_>) -> Self {
        let root = origin.have.map(|(root, _)| root);
        let may_have = origin.to.is_some() || root.is_some();
        let recall = may_have.then(|| cx.ask(Ask::Recall { key: origin.key.clone(), root }));
        let common = Common {
            origin,
            attempt: 0,
            changes: 0,
            repairs: 0,
            confirmed: 0,
            remembered: None,
            presumed: false,
            retracted: false,
            standing: false,
            known: false,
            named: false,
            unsent: Unsent::default(),
            lacks: Vec::new(),
            complete: false,
        };
        match recall {
            Some(request) => Self::Recalling(common, request),
            None => Self::describe(common, cx),
        }
    }

    fn describe(common: Common, cx: &mut Context<'_>) -> Self {
        cx.phase(Phase::Describing);
        let (place, algorithm) = (common.origin.place.clone(), common.origin.algorithm);
        let like = common.remembered.as_ref().map(|remembered| remembered.chunks.cutter());
        let cutting = match (&common.origin.cutting, like) {
            (cutting @ Cutting::Tree(_), _) | (cutting, None) => cutting.clone(),
            (_, Some(cutter)) => Cutting::Like(cutter),
        };
        let may_be = cx.config.remember && common.origin.to.is_some() && !common.is_dry();
        let remember = may_be.then(|| common.origin.key.clone());
        let request = cx.ask(Ask::Describe { place, cutting, algorithm, remember });
        Self::Describing(common, request)
    }

    /// The file is no longer what was offered.
    pub(crate) fn start_over(mut common: Common, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        common.changes += 1;
        // The receiver counts repairs afresh with each offer.
        common.repairs = 0;
        if core::mem::take(&mut common.presumed) {
            // It may be stale: what the receiver has is not guessed twice, so that it says so once at most.
            common.retracted = true;
            common.remembered = None;
        }
        if common.changes >= CHANGES_MAX {
            return Err(TransferError::Changed { times: common.changes.into() }.into());
        }
        if core::mem::take(&mut common.standing) {
            cx.send(TransferMessage::Changed);
        }
        cx.event(EventKind::Restarted);
        Ok(Self::describe(common, cx))
    }

    /// Offers the set of our chunks, whatever is remembered.
    pub(crate) fn list(mut common: Common, target: OpenedFile, cx: &mut Context<'_>) -> Self {
        common.remembered = None;
        common.presumed = false;
        let job = cx.compute(Work::List { chunks: target.chunks.clone(), key: cx.tag_key() });
        Self::Listing(common, target, job)
    }

    pub(crate) fn on_message(mut self, message: TransferMessage, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        if message == TransferMessage::Stale
            && self.common_mut().is_some_and(|common| core::mem::take(&mut common.retracted))
        {
            return Ok(self);
        }
        if let TransferMessage::Confirm(confirm) = message
            && self.may_confirm(confirm)
        {
            return self.on_confirm(confirm, cx);
        }
        match (self, message) {
            (Self::Offered(state), message) => state.on_message(message, cx),
            (Self::Ordering(answered, state), TransferMessage::More(More::Edges(end))) => {
                state.more(end as usize, cx).map(|state| Self::Ordering(answered, state))
            }
            (Self::Ordering(answered, _), TransferMessage::Want(Want::All)) => {
                cx.used(cx.payload);
                let Laying { common, target, .. } = *answered;
                Ok(Delivering::whole(common, target, cx))
            }
            (Self::Ordering(answered, _), TransferMessage::Order(order)) => {
                cx.used(cx.payload);
                Ok(answered.lay(Some(order.breaks), cx))
            }
            (Self::Proposed(common, target, delivery), message) if common.unsent.is_ahead() => {
                common.unsent_ahead(message, target, delivery, cx)
            }
            (Self::Proposed(common, target, delivery), message) => match (message, delivery) {
                (TransferMessage::Same(generation), _) => Ok(ended(&common, &target, End::Same(generation), cx)),
                // It had the content under another name.
                (TransferMessage::Done(generation), _) => Ok(ended(&common, &target, End::Done(generation, None), cx)),
                (TransferMessage::Stale, _) => Ok(Self::list(common, target, cx)),
                (TransferMessage::Current, Some(delivery)) => Ok(Delivering::begin(common, target, *delivery, cx)),
                (other, _) => Err(cx.unexpected(&other, "waiting for the receiver to look at its basis")),
            },
            (Self::Delivering(state), TransferMessage::Stale) if state.common.presumed => {
                cx.flow.clear();
                Ok(Self::list(state.common, state.target, cx))
            }
            (Self::Delivered(common, target, progress), message) => match message {
                TransferMessage::Done(generation) => {
                    Ok(ended(&common, &target, End::Done(generation, Some(progress)), cx))
                }
                TransferMessage::Same(generation) => Ok(ended(&common, &target, End::Same(generation), cx)),
                TransferMessage::Stale if common.presumed => Ok(Self::list(common, target, cx)),
                TransferMessage::Repair(repair) if common.repairs < REPAIRS_MAX => {
                    cx.used(cx.payload);
                    Self::mend(common, target, repair, cx)
                }
                other => Err(cx.unexpected(&other, "waiting for the receiver to finish")),
            },
            (state @ (Self::Remembering(..) | Self::Ended(_)), _) => Ok(state),
            (Self::Recalling(..) | Self::Describing(..) | Self::Listing(..), message) => {
                Err(cx.unexpected(&message, "describing the source"))
            }
            (Self::Laying(..) | Self::Aligning(..) | Self::Searching(..) | Self::Preparing(..), message) => {
                Err(cx.unexpected(&message, "searching the gaps"))
            }
            (Self::Ordering(..), message) => Err(cx.unexpected(&message, "waiting for the order of the basis")),
            (Self::Delivering(_), message) => Err(cx.unexpected(&message, "sending the delta")),
            (Self::Mending(..), message) => Err(cx.unexpected(&message, "comparing what was made")),
        }
    }

    /// The receiver may be about to commit, over what our condition names.
    fn may_confirm(&mut self, confirm: Confirm) -> bool {
        let waits = matches!(self, Self::Offered(_) | Self::Proposed(..) | Self::Delivered(..));
        let wish = self.common_mut().and_then(|common| common.origin.to.as_ref());
        waits && wish.is_some_and(|wish| wish.condition.holds(confirm.current.as_ref()))
    }

    /// What is there is to be replaced. Where somebody has published it since we offered ours: ours is what our user wants,
    /// and no conflict where it is the version that our user has named.
    fn on_confirm(mut self, confirm: Confirm, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        let Confirm { current, since } = confirm;
        let mut named = false;
        if let Some(common) = self.common_mut() {
            named = common.origin.to.as_ref().is_some_and(|wish| wish.condition != Condition::Any);
            common.confirmed += 1;
            if common.confirmed > CONFIRMS_MAX {
                return Err(TransferError::Conflict { current }.into());
            }
        }
        if since && !named {
            cx.event(EventKind::Conflict { current });
        }
        cx.send(TransferMessage::Replace(current));
        Ok(self)
    }

    pub(crate) fn on_answer(mut self, id: RequestId, answer: Answered, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        let changed = matches!(&answer, Err(fault) if fault.kind == FaultKind::Changed);
        if let Err(StorageFault { omitted, .. }) = &answer
            && let Some(common) = self.common_mut()
        {
            common.omits(omitted, cx);
        }
        match self {
            Self::Recalling(mut common, request) if request == id => {
                // What cannot be recalled is not remembered.
                if let Ok(Answer::Recalled(Some(remembered))) = answer {
                    common.remembered = Some(Box::new(remembered));
                }
                Ok(Self::describe(common, cx))
            }
            Self::Describing(common, request) if request == id => {
                let Answer::Described(target) = answer? else { return Err(wrong_answer()) };
                described(common, target, cx)
            }
            Self::Aligning(common, target, remembered, Aligning::Sums(script, request)) if request == id => {
                let Ok(Answer::Read(sums)) = answer else { return Ok(Self::list(common, target, cx)) };
                let Kept::Sums { secret, .. } = &remembered.kept else { return Ok(Self::list(common, target, cx)) };
                let (key, stretches) = (FineKey::kept(secret), script.stretches().to_vec());
                let job = cx.compute(Work::Index { key, stretches, sums });
                Ok(Self::Aligning(common, target, remembered, Aligning::Index(script, job)))
            }
            Self::Searching(common, target, state) if state.refines(id) => {
                Ok(state.on_refined(answer, common, target, cx))
            }
            Self::Searching(common, target, mut state) => {
                match state.search.reads(id) {
                    Some(Reads::Target) if changed => return Self::start_over(common, cx),
                    // What is kept is damaged or gone.
                    Some(Reads::Basis) if answer.is_err() => return Ok(Self::list(common, target, cx)),
                    Some(_) => state.search.on_answer(id, answer, cx)?,
                    None => {}
                }
                Ok(state.go_on(common, target, cx))
            }
            Self::Preparing(common, target, mut delivery) => {
                if delivery.waits_for(id) {
                    match answer {
                        Err(_) if changed => return Self::start_over(common, cx),
                        // The prefix cannot be read.
                        Err(_) => return Ok(Self::list(common, target, cx)),
                        answer => delivery.on_answer(id, answer, cx)?,
                    }
                }
                Ok(prepare(common, target, delivery, cx))
            }
            Self::Delivering(state) => state.on_answer(id, answer, cx),
            Self::Mending(common, state) if state.waits_for(id) => {
                if changed {
                    return Self::start_over(common, cx);
                }
                let mended = state.on_answer(answer, cx)?;
                Self::mended(common, mended, cx)
            }
            Self::Remembering(outcome, request) if request == id => Ok(Self::Ended(outcome)),
            // Asked for before the transfer started over.
            other => Ok(other),
        }
    }

    pub(crate) fn on_computed(self, id: JobId, product: Product, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match (self, product) {
            (Self::Listing(common, target, job), Product::Listed(elements)) if job == id => {
                Ok(Offered::begin(common, target, elements, cx))
            }
            (Self::Offered(mut state), Product::Parts(parts)) => {
                state.send(id, parts, cx);
                Ok(Self::Offered(state))
            }
            (Self::Ordering(answered, mut state), Product::Parts(parts)) => {
                state.send(id, parts, cx);
                Ok(Self::Ordering(answered, state))
            }
            (Self::Laying(answered, job), Product::Laid(laid)) if job == id => answered.on_laid(laid?, cx),
            (Self::Aligning(common, target, remembered, Aligning::Lists(job)), Product::Aligned(script))
                if job == id =>
            {
                Ok(aligned(common, target, remembered, script, cx))
            }
            (Self::Aligning(common, target, remembered, Aligning::Index(script, job)), Product::Indexed(index))
                if job == id =>
            {
                let Some(index) = index else { return Ok(Self::list(common, target, cx)) };
                let common = Common { remembered: Some(remembered), ..common };
                Ok(Searching::begin(common, target, script, Source::Sums(index), None, cx))
            }
            (Self::Searching(common, target, mut state), product) => {
                state.search.on_computed(id, product);
                Ok(state.go_on(common, target, cx))
            }
            (Self::Preparing(common, target, mut delivery), product) => {
                delivery.on_computed(id, product, cx);
                Ok(prepare(common, target, delivery, cx))
            }
            (Self::Delivering(mut state), product) => {
                state.delivery.on_computed(id, product, cx);
                Ok(Self::Delivering(state))
            }
            (Self::Mending(common, state), Product::Ranges(sums)) => {
                let mended = state.on_sums(id, sums, cx);
                Self::mended(common, mended, cx)
            }
            // Computed for a state that a quick receiver or a change of the file has ended.
            (other, _) => Ok(other),
        }
    }

    /// The delta is sent. That of a tree which is pushed waits for its members now.
    pub(crate) fn delivered(mut common: Common, target: OpenedFile, progress: Progress, cx: &mut Context<'_>) -> Self {
        if target.is_tree() && common.origin.to.is_some() {
            let kept = target.chunks.runs().len() as u64 * TreeList::ENTRY_MEMORY;
            common.complete = common.complete || !cx.rest(kept);
            if common.complete {
                cx.send(TransferMessage::Complete);
            }
        }
        Self::Delivered(common, target, progress)
    }

    /// The members of a tree have ended: the receiver is told as soon as it has the tree's delta.
    pub(crate) fn complete(mut self, cx: &mut Context<'_>) -> Self {
        let delivered = matches!(&self, Self::Delivered(_, target, _) if target.is_tree());
        if let Some(common) = self.common_mut()
            && !core::mem::replace(&mut common.complete, true)
            && delivered
        {
            cx.send(TransferMessage::Complete);
        }
        self
    }

    /// True for a tree that is pushed, whose delta is sent, and that waits for its members.
    pub(crate) fn waits_for_members(&self) -> bool {
        let Self::Delivered(common, target, _) = self else { return false };
        target.is_tree() && common.origin.to.is_some() && !common.complete
    }

    /// Prepares and queues more while there is room.
    pub(crate) fn pump(self, cx: &mut Context<'_>) -> Self {
        match self {
            Self::Delivering(state) => state.pump(cx),
            other => other,
        }
    }

    /// True for a push whose standing offer does not name the generation of what it replaces: the receiver replaces
    /// nothing for it before it knows that we have seen its hello.
    pub(crate) fn is_unnamed(&self) -> bool {
        let unnamed = |common: &Common| common.origin.to.is_some() && common.standing && !common.named;
        match self {
            Self::Offered(state) => unnamed(&state.common),
            Self::Laying(state, _) | Self::Ordering(state, _) => unnamed(&state.common),
            Self::Delivering(state) => unnamed(&state.common),
            Self::Searching(common, ..)
            | Self::Proposed(common, ..)
            | Self::Delivered(common, ..)
            | Self::Mending(common, _) => unnamed(common),
            Self::Recalling(..)
            | Self::Describing(..)
            | Self::Listing(..)
            | Self::Aligning(..)
            | Self::Preparing(..)
            | Self::Remembering(..)
            | Self::Ended(_) => false,
        }
    }

    fn common_mut(&mut self) -> Option<&mut Common> {
        match self {
            Self::Recalling(common, _)
            | Self::Describing(common, _)
            | Self::Listing(common, ..)
            | Self::Aligning(common, ..)
            | Self::Searching(common, ..)
            | Self::Preparing(common, ..)
            | Self::Proposed(common, ..)
            | Self::Delivered(common, ..)
            | Self::Mending(common, _) => Some(common),
            Self::Offered(state) => Some(&mut state.common),
            Self::Laying(state, _) | Self::Ordering(state, _) => Some(&mut state.common),
            Self::Delivering(state) => Some(&mut state.common),
            Self::Remembering(..) | Self::Ended(_) => None,
        }
    }

    /// The receiver's result is not the target: what of it is not?
    fn mend(mut common: Common, target: OpenedFile, repair: Repair, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        common.repairs += 1;
        cx.event(EventKind::Repairing);
        cx.phase(Phase::Describing);
        let cutting = Cutting::by(target.chunks.cutter(), common.origin.cutting.scope());
        let place = common.origin.place.clone();
        let state = Mending::begin((place, cutting), target, repair, common.repairs, cx)?;
        Ok(Self::Mending(common, Box::new(state)))
    }

    fn mended(common: Common, mended: Mended, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match mended {
            Mended::Going(state) => Ok(Self::Mending(common, state)),
            Mended::Changed => Self::start_over(common, cx),
            Mended::Ready(target, ops) => {
                let delivery = Delivery::raw(target.file.clone(), ops);
                Ok(Delivering::begin(common, target, delivery, cx))
            }
        }
    }
}

/// The file is described: what to offer?
fn described(mut common: Common, target: OpenedFile, cx: &mut Context<'_>) -> Result<Sending, Trouble> {
    common.omits(&target.omitted, cx);
    if let Some(wish) = common.origin.to.as_mut().filter(|_| target.omitted.iter().any(Omitted::is_unlisted)) {
        // What the receiver has of that is not extra.
        wish.tree.extra = Extra::Keep;
    }
    let chunks = &target.chunks;
    let same = |root: Digest, len: ByteLen| root == chunks.root() && len == chunks.len();
    // Not where it may still call an offer stale that we have taken back: that would be taken for this one.
    if !common.retracted && common.origin.have.is_some_and(|(root, len)| same(root, len)) {
        common.offer(&target, Content::Known, cx);
        return Ok(Sending::Proposed(common, target, None));
    }
    if let Some(remembered) = common.remembered.take() {
        let basis = &remembered.chunks;
        let is_of_a_tree = basis.cutter() == Cutter::Entries;
        if basis.algorithm() == chunks.algorithm() && is_of_a_tree == target.is_tree() {
            if same(basis.root(), basis.len()) {
                common.offer(&target, Content::Known, cx);
                common.presumed = true;
                common.remembered = Some(remembered);
                return Ok(Sending::Proposed(common, target, None));
            }
            let block = matches!(remembered.kept, Kept::Sums { .. }).then(|| FineShape::KEPT.block() as u64);
            let job = cx.compute(Work::Align { basis: basis.clone(), target: chunks.clone(), block });
            return Ok(Sending::Aligning(common, target, remembered, Aligning::Lists(job)));
        }
    }
    let is_pull = common.origin.to.is_none();
    let whole = if is_pull { common.origin.have.is_none() } else { chunks.len() <= TINY && !target.is_tree() };
    if whole {
        common.offer(&target, Content::Whole, cx);
        if common.is_dry() {
            common.unsent.go_ahead(0);
            return Ok(Sending::Proposed(common, target, None));
        }
        return Ok(Delivering::whole(common, target, cx));
    }
    Ok(Sending::list(common, target, cx))
}

impl Common {
    /// What the receiver of a tree lacks is known, perhaps once more.
    pub(crate) fn differs(&mut self, target: &OpenedFile, ranges: Vec<(Offset, ByteLen)>, cx: &mut Context<'_>) {
        self.complete = false;
        cx.event(EventKind::Differs { tree: target.file.clone(), ranges });
    }

    /// Tells what of a tree is not sent as it is. A receiver that is asked for nothing else need not know.
    fn omits(&self, entries: &[Omitted], cx: &mut Context<'_>) {
        if entries.is_empty() {
            return;
        }
        let omits = Omits::of(entries);
        if self.origin.to.is_none() {
            cx.send_first(TransferMessage::Omits(omits.clone()));
        }
        cx.event(EventKind::Omits(omits));
    }

    pub(crate) fn offer(&mut self, target: &OpenedFile, content: Content, cx: &mut Context<'_>) {
        self.known = content.is_of_known();
        self.named = content.is_named();
        let mut to = self.origin.to.clone();
        if let Some(wish) = to.as_mut().filter(|wish| wish.attributes.is_some() && content.is_set()) {
            wish.resembles = Resemblance::of(&target.chunks);
        }
        cx.send(TransferMessage::Offer(Offer {
            to,
            len: target.chunks.len(),
            root: target.chunks.root(),
            algorithm: target.chunks.algorithm(),
            cutter: target.chunks.cutter(),
            attempt: self.attempt,
            content,
        }));
        self.attempt = self.attempt.saturating_add(1);
        self.standing = true;
        cx.phase(Phase::Waiting);
    }
}

/// How the receiver says that it went well.
pub(crate) enum End {
    /// The target was there already, published as this generation.
    Same(Generation),
    /// It is there now.
    Done(Generation, Option<Progress>),
}

/// The transfer went well: it is over once our storage has remembered what the receiver has now.
pub(crate) fn ended(common: &Common, target: &OpenedFile, end: End, cx: &mut Context<'_>) -> Sending {
    let len = target.chunks.len();
    let (generation, made, progress) = match end {
        End::Same(generation) => {
            if target.is_tree() {
                cx.event(EventKind::Differs { tree: target.file.clone(), ranges: Vec::new() });
            }
            (generation, None, None)
        }
        End::Done(generation, progress) => (generation, (!common.is_dry()).then_some(generation), progress),
    };
    let mut progress = progress.unwrap_or_else(|| {
        cx.all_there(len);
        Progress { total: len, copied: len, ..Progress::default() }
    });
    progress.wire = ByteLen::new(cx.flow.wire) + common.unsent.bytes();
    let Common { repairs, known, .. } = *common;
    let outcome = Outcome { len, root: target.chunks.root(), generation: made, progress, repairs, known };
    let is_remembered = common
        .remembered
        .as_ref()
        .is_some_and(|remembered| remembered.chunks.root() == outcome.root && remembered.generation == generation);
    if !cx.config.remember || common.origin.to.is_none() || is_remembered || common.is_dry() {
        return Sending::Ended(outcome);
    }
    let key = common.origin.key.clone();
    let request = cx.ask(Ask::Remember { key, generation, file: target.clone() });
    Sending::Remembering(outcome, request)
}

impl Common {
    /// The root and length of the basis that is remembered.
    pub(crate) fn basis(&self) -> Option<(Digest, ByteLen)> {
        self.remembered.as_ref().map(|remembered| (remembered.chunks.root(), remembered.chunks.len()))
    }
}
