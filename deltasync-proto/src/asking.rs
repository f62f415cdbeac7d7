//! Requests that move no file: a page of a listing, the root of a file, and a change of what is there under which path.
//!
//! The client asks, the server answers from its storage; both are one message long, and a page is cut so that it fits. A
//! change waits until the client has shown that it is no recording: a removal is not to be done a second time.

use alloc::boxed::Box;
use alloc::vec::Vec;

use deltasync_core::{ByteLen, Malformed, Name};

use crate::context::{Answered, Context, Trouble, wrong_answer};
use crate::{
    Answer, Ask, AskRoot, Cutting, Entry, EventKind, InvalidMessage, List, Listing, MessageKind, Outcome, Phase, Place,
    RequestId, RootId, RootIs, TransferMessage,
};

/// Entries in one page: 200 of the longest names fit a control message.
const PAGE: usize = 200;

/// The client's side.
#[derive(Debug)]
pub(crate) enum Asking {
    /// Only names after this one may come.
    List(Option<Name>),
    Root,
    Altering,
    Ended(Outcome),
}

/// The server's side.
#[derive(Debug)]
pub(crate) enum Answering {
    Listing(RequestId),
    Describing(RequestId),
    /// The peer has not shown yet that it has seen our hello.
    Unseen(Box<Ask>),
    Altering(RequestId),
    Ended(Outcome),
}

impl Asking {
    pub(crate) fn list(list: List, cx: &mut Context<'_>) -> Self {
        let after = list.after.clone();
        cx.send(TransferMessage::List(list));
        cx.phase(Phase::Waiting);
        Self::List(after)
    }

    pub(crate) fn root(ask: AskRoot, cx: &mut Context<'_>) -> Self {
        cx.send(TransferMessage::AskRoot(ask));
        cx.phase(Phase::Waiting);
        Self::Root
    }

    /// Asks for a change.
    pub(crate) fn alter(message: TransferMessage, cx: &mut Context<'_>) -> Self {
        cx.send(message);
        cx.phase(Phase::Waiting);
        Self::Altering
    }

    pub(crate) fn on_message(self, message: TransferMessage, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match (self, message) {
            (Self::List(mut after), TransferMessage::Listing(Listing { entries, more })) => {
                // Out of order, a listing of many pages could go on for ever.
                let mut in_order = |entry: &Entry| after.replace(entry.name.clone()) < Some(entry.name.clone());
                if !entries.iter().all(&mut in_order) || more && entries.is_empty() {
                    let cause = Malformed::Value("page of a listing is out of order, or empty with more to come");
                    return Err(InvalidMessage::Payload { kind: MessageKind::Listing, cause }.into());
                }
                cx.event(EventKind::Listed { entries, more });
                Ok(Self::Ended(Outcome::default()))
            }
            (Self::Root, TransferMessage::RootIs(RootIs { len, root })) => {
                cx.event(EventKind::Root { len, root });
                Ok(Self::Ended(Outcome { len, root, ..Outcome::default() }))
            }
            (Self::Altering, TransferMessage::Altered) => Ok(Self::Ended(Outcome::default())),
            (_, message) => Err(cx.unexpected(&message, "waiting for an answer")),
        }
    }
}

impl Answering {
    pub(crate) fn list(list: List, cx: &mut Context<'_>) -> Self {
        let place = Place { root: RootId::new(0), path: list.path };
        Self::Listing(cx.ask(Ask::List { place, after: list.after, most: PAGE }))
    }

    pub(crate) fn root(ask: AskRoot, cx: &mut Context<'_>) -> Self {
        let place = Place { root: RootId::new(0), path: ask.path };
        cx.phase(Phase::Describing);
        Self::Describing(cx.ask(Ask::Describe {
            place,
            cutting: Cutting::ByContent,
            algorithm: ask.algorithm,
            remember: None,
        }))
    }

    pub(crate) fn alter(ask: Ask, cx: &mut Context<'_>) -> Self {
        if cx.live { Self::do_it(ask, cx) } else { Self::Unseen(Box::new(ask)) }
    }

    /// The peer has seen our hello.
    pub(crate) fn on_seen(self, cx: &mut Context<'_>) -> Self {
        match self {
            Self::Unseen(ask) => Self::do_it(*ask, cx),
            other => other,
        }
    }

    fn do_it(ask: Ask, cx: &mut Context<'_>) -> Self {
        cx.phase(Phase::Committing);
        Self::Altering(cx.ask(ask))
    }

    pub(crate) fn on_answer(self, id: RequestId, answer: Answered, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match self {
            Self::Listing(request) if request == id => {
                let Answer::Listed { entries, more } = answer? else { return Err(wrong_answer()) };
                let cut = entries.len() > PAGE;
                let entries: Vec<Entry> = entries.into_iter().take(PAGE).collect();
                cx.send(TransferMessage::Listing(Listing { entries, more: more || cut }));
                Ok(Self::Ended(Outcome::default()))
            }
            Self::Describing(request) if request == id => {
                let Answer::Described(file) = answer? else { return Err(wrong_answer()) };
                let (len, root): (ByteLen, _) = (file.chunks.len(), file.chunks.root());
                cx.send(TransferMessage::RootIs(RootIs { len, root }));
                Ok(Self::Ended(Outcome { len, root, ..Outcome::default() }))
            }
            Self::Altering(request) if request == id => {
                let Answer::Altered = answer? else { return Err(wrong_answer()) };
                cx.send(TransferMessage::Altered);
                Ok(Self::Ended(Outcome::default()))
            }
            other => Ok(other),
        }
    }

    pub(crate) fn on_message(self, message: &TransferMessage, cx: &Context<'_>) -> Result<Self, Trouble> {
        Err(cx.unexpected(message, "answering a request"))
    }
}
