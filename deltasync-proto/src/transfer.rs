//! One transfer of a session: its flow and whichever machine carries it.

use deltasync_core::{Name, RelPath};

use crate::asking::{Answering, Asking};
use crate::context::{Answered, Context, Trouble};
use crate::flow::Flow;
use crate::job::Product;
use crate::receiving::{Ours, Receiving};
use crate::sending::{OMITS_MAX, Origin, Sending};
use crate::{
    Ask, AskRoot, Command, Condition, Cutting, Destination, FaultKind, JobId, Known, List, MakeDirectory, Outcome,
    Place, Pull, Refusal, RefusalCode, Remove, Rename, RequestId, RootId, TransferError, TransferMessage, TreeOptions,
    Verb, Wish,
};

/// A transfer that has not ended.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub(crate) flow: Flow,
    pub(crate) machine: Machine,
    /// What started it, on a client, which may have to start it again for a server of another version.
    pub(crate) command: Option<Command>,
}

/// The machines; handlers consume one and return the next.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are as many as transfers, and most of those are of the larger kinds"
)]
pub(crate) enum Machine {
    Sending(Sending),
    Receiving(Receiving),
    Asking(Asking),
    Answering(Answering),
}

impl Machine {
    /// The machine for a command of our embedder.
    pub(crate) fn start(command: Command, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        Self::begin(command, false, cx)
    }

    fn begin(command: Command, dry: bool, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        let algorithm = cx.config.algorithm;
        Ok(match command {
            Command::Predict { push } => return Self::begin(*push, true, cx),
            Command::Push { source, path, name, directory, condition } => {
                let key = Known { path: path.clone(), name: Some(name.clone()) };
                let wish = Wish { name, directory, dry, condition, ..Wish::exactly(path) };
                Self::push(source, wish, key, Cutting::ByContent, cx)
            }
            Command::PushTree { source, path, options, condition } => {
                let key = Known { path: path.clone(), name: None };
                let cutting = Cutting::Tree(options.scope.clone());
                let wish = Wish { dry, tree: options, condition, ..Wish::exactly(path) };
                Self::push(source, wish, key, cutting, cx)
            }
            Command::PushMember { source, path, attributes, atomic } => {
                let key = Known { path: path.clone(), name: None };
                let tree = TreeOptions::default().atomic(atomic);
                let wish = Wish { dry, tree, attributes: Some(attributes), ..Wish::exactly(path) };
                Self::push(source, wish, key, Cutting::ByContent, cx)
            }
            Command::Pull { path, destination, condition } => {
                let ours = Ours { destination, condition, tree: None, attributes: None };
                Self::Receiving(Receiving::pull(path, ours, cx))
            }
            Command::PullTree { path, place, options, condition } => {
                let destination = Destination::exactly(place.beside_if(options.atomic));
                let ours = Ours { destination, condition, tree: Some(options), attributes: None };
                cx.flow.may_omit = OMITS_MAX;
                Self::Receiving(Receiving::pull(path, ours, cx))
            }
            Command::PullMember { path, place, attributes, atomic } => {
                let (destination, condition) = (Destination::exactly(place.beside_if(atomic)), Condition::Any);
                let ours = Ours { destination, condition, tree: None, attributes: Some(attributes) };
                Self::Receiving(Receiving::pull(path, ours, cx))
            }
            Command::List { path, after } => Self::Asking(Asking::list(List { path, after }, cx)),
            Command::Root { path } => Self::Asking(Asking::root(AskRoot { path, algorithm }, cx)),
            Command::MakeDirectory { path } => {
                Self::Asking(Asking::alter(TransferMessage::MakeDirectory(MakeDirectory { path }), cx))
            }
            Command::Rename { from, to } => {
                Self::Asking(Asking::alter(TransferMessage::Rename(Rename { from, to }), cx))
            }
            Command::Remove { path, recursive } => {
                Self::Asking(Asking::alter(TransferMessage::Remove(Remove { path, recursive }), cx))
            }
            // Of one that has not begun.
            Command::Complete | Command::Cancel => return Err(TransferError::Cancelled.into()),
        })
    }

    /// The machine of a push.
    fn push(place: Place, to: Wish, key: Known, cutting: Cutting, cx: &mut Context<'_>) -> Self {
        let (to, algorithm) = (Some(to), cx.config.algorithm);
        Self::Sending(Sending::begin(Origin { place, to, have: None, algorithm, key, cutting }, cx))
    }

    /// The machine for the first message of a peer's transfer, if it is one that begins a transfer. An offer is not
    /// taken in: the new machine gets it as its first message.
    pub(crate) fn serve(message: TransferMessage, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        match message {
            TransferMessage::Offer(_) => Receiving::push().on_message(message, cx).map(Self::Receiving),
            TransferMessage::Pull(Pull { path, algorithm, have, scope }) => {
                let key = Known { path: path.clone(), name: None };
                let place = Place { root: RootId::new(0), path };
                let cutting = Cutting::ByKind(scope);
                Ok(Self::Sending(Sending::begin(Origin { place, to: None, have, algorithm, key, cutting }, cx)))
            }
            TransferMessage::List(list) => Ok(Self::Answering(Answering::list(list, cx))),
            TransferMessage::AskRoot(ask) => Ok(Self::Answering(Answering::root(ask, cx))),
            TransferMessage::MakeDirectory(MakeDirectory { path }) => {
                Ok(Self::Answering(Answering::alter(Ask::MakeDirectory { place: served(path) }, cx)))
            }
            TransferMessage::Rename(Rename { from, to }) => {
                Ok(Self::Answering(Answering::alter(Ask::Rename { from: served(from), to }, cx)))
            }
            TransferMessage::Remove(Remove { path, recursive }) => {
                Ok(Self::Answering(Answering::alter(Ask::Remove { place: served(path), recursive }, cx)))
            }
            TransferMessage::Tags(_)
            | TransferMessage::Cells(_)
            | TransferMessage::More(_)
            | TransferMessage::Same(_)
            | TransferMessage::Confirm(_)
            | TransferMessage::Replace(_)
            | TransferMessage::Current
            | TransferMessage::Stale
            | TransferMessage::Want(_)
            | TransferMessage::Edges(_)
            | TransferMessage::Order(_)
            | TransferMessage::Delta(_)
            | TransferMessage::Done(_)
            | TransferMessage::Repair(_)
            | TransferMessage::Changed
            | TransferMessage::Refused(_)
            | TransferMessage::Cancel
            | TransferMessage::Credit(_)
            | TransferMessage::Working
            | TransferMessage::Listing(_)
            | TransferMessage::RootIs(_)
            | TransferMessage::Altered
            | TransferMessage::Complete
            | TransferMessage::Omits(_) => {
                Err(crate::PeerMisbehaved::UnknownTransfer { got: message.kind(), transfer: cx.id }.into())
            }
        }
    }

    pub(crate) fn on_message(self, message: TransferMessage, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        Ok(match self {
            Self::Sending(machine) => Self::Sending(machine.on_message(message, cx)?),
            Self::Receiving(machine) => Self::Receiving(machine.on_message(message, cx)?),
            Self::Asking(machine) => Self::Asking(machine.on_message(message, cx)?),
            Self::Answering(machine) => Self::Answering(machine.on_message(&message, cx)?),
        })
    }

    pub(crate) fn on_answer(self, id: RequestId, answer: Answered, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        Ok(match self {
            Self::Sending(machine) => Self::Sending(machine.on_answer(id, answer, cx)?),
            Self::Receiving(machine) => Self::Receiving(machine.on_answer(id, answer, cx)?),
            Self::Answering(machine) => Self::Answering(machine.on_answer(id, answer, cx)?),
            Self::Asking(_) => self,
        })
    }

    pub(crate) fn on_computed(self, id: JobId, product: Product, cx: &mut Context<'_>) -> Result<Self, Trouble> {
        Ok(match self {
            Self::Sending(machine) => Self::Sending(machine.on_computed(id, product, cx)?),
            Self::Receiving(machine) => Self::Receiving(machine.on_computed(id, product, cx)?),
            Self::Asking(_) | Self::Answering(_) => self,
        })
    }

    pub(crate) fn pump(self, cx: &mut Context<'_>) -> Self {
        match self {
            Self::Sending(machine) => Self::Sending(machine.pump(cx)),
            other => other,
        }
    }

    /// The peer has seen our hello.
    pub(crate) fn on_seen(self, cx: &mut Context<'_>) -> Self {
        match self {
            Self::Receiving(machine) => Self::Receiving(machine.on_seen(cx)),
            Self::Answering(machine) => Self::Answering(machine.on_seen(cx)),
            other => other,
        }
    }

    /// The embedder has sent what does not travel with this tree.
    pub(crate) fn complete(self, cx: &mut Context<'_>) -> Self {
        match self {
            Self::Sending(machine) => Self::Sending(machine.complete(cx)),
            other => other,
        }
    }

    /// The tree at our end that is being looked at for a peer, before anything of it is changed.
    pub(crate) fn opens_tree(&self) -> Option<&RelPath> {
        match self {
            Self::Receiving(machine) => machine.opens_tree(),
            Self::Sending(_) | Self::Asking(_) | Self::Answering(_) => None,
        }
    }

    /// True at either end of a tree that is there but for its members.
    pub(crate) fn waits_for_members(&self) -> bool {
        match self {
            Self::Receiving(machine) => machine.waits_for_members(),
            Self::Sending(machine) => machine.waits_for_members(),
            Self::Asking(_) | Self::Answering(_) => false,
        }
    }

    /// How it went, once it has ended well.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Sending(Sending::Ended(outcome))
            | Self::Receiving(Receiving::Ended(outcome))
            | Self::Asking(Asking::Ended(outcome))
            | Self::Answering(Answering::Ended(outcome)) => Some(*outcome),
            Self::Sending(_) | Self::Receiving(_) | Self::Asking(_) | Self::Answering(_) => None,
        }
    }
}

impl Transfer {
    /// How it went, once the peer has no more part in it: our storage may still be remembering that.
    pub(crate) fn settled(&self) -> Option<Outcome> {
        match &self.machine {
            Machine::Sending(Sending::Remembering(outcome, _)) => Some(*outcome),
            machine => machine.outcome(),
        }
    }
}

/// A path that a peer names.
fn served(path: RelPath) -> Place {
    Place { root: RootId::new(0), path }
}

/// What a message that begins a transfer asks for, and of which path.
pub(crate) fn verb_of_message(message: &TransferMessage) -> Option<(Verb, RelPath)> {
    match message {
        TransferMessage::Offer(offer) => {
            let wish = offer.to.as_ref()?;
            Some((Verb::Push, pushed_path(&wish.path, &wish.name, wish.directory)))
        }
        TransferMessage::Pull(pull) => Some((Verb::Pull, pull.path.clone())),
        TransferMessage::List(list) => Some((Verb::List, list.path.clone())),
        TransferMessage::AskRoot(ask) => Some((Verb::Root, ask.path.clone())),
        TransferMessage::MakeDirectory(make) => Some((Verb::MakeDirectory, make.path.clone())),
        TransferMessage::Rename(rename) => Some((Verb::Rename, rename.from.clone())),
        TransferMessage::Remove(remove) => Some((Verb::Remove, remove.path.clone())),
        _ => None,
    }
}

/// What a command asks for, and of which path at the server.
pub(crate) fn verb_of_command(command: &Command) -> Option<(Verb, RelPath)> {
    match command {
        Command::Push { path, name, directory, .. } => Some((Verb::Push, pushed_path(path, name, *directory))),
        Command::PushTree { path, .. } | Command::PushMember { path, .. } => Some((Verb::Push, path.clone())),
        Command::Pull { path, .. } | Command::PullTree { path, .. } | Command::PullMember { path, .. } => {
            Some((Verb::Pull, path.clone()))
        }
        Command::Predict { push } => verb_of_command(push),
        Command::List { path, .. } => Some((Verb::List, path.clone())),
        Command::Root { path } => Some((Verb::Root, path.clone())),
        Command::MakeDirectory { path } => Some((Verb::MakeDirectory, path.clone())),
        Command::Rename { from, .. } => Some((Verb::Rename, from.clone())),
        Command::Remove { path, .. } => Some((Verb::Remove, path.clone())),
        Command::Complete | Command::Cancel => None,
    }
}

/// Where a push goes, as far as its own words tell: what is there already may still be a directory.
fn pushed_path(path: &RelPath, name: &Name, directory: bool) -> RelPath {
    let inside = if directory { path.join(name).ok() } else { None };
    inside.unwrap_or_else(|| path.clone())
}

/// What to tell the peer about a transfer that failed on our side; `None` when the peer knows.
pub(crate) fn refusal(error: &TransferError) -> Option<TransferMessage> {
    let code = match error {
        TransferError::Refused(_) | TransferError::CancelledByPeer | TransferError::ConnectionLost(_) => return None,
        TransferError::Cancelled => return Some(TransferMessage::Cancel),
        TransferError::Storage(fault) => match fault.kind {
            FaultKind::NotFound => RefusalCode::NotFound,
            FaultKind::Denied => RefusalCode::Denied,
            FaultKind::WrongKind => RefusalCode::WrongKind,
            FaultKind::Full => RefusalCode::Full,
            FaultKind::TooLarge => RefusalCode::Limit,
            FaultKind::Changed => RefusalCode::Changed,
            FaultKind::Conflict => RefusalCode::Conflict,
            FaultKind::Damaged => RefusalCode::Damaged,
            FaultKind::Exists => RefusalCode::Exists,
            FaultKind::NotEmpty => RefusalCode::NotEmpty,
            FaultKind::Other => RefusalCode::Storage,
        },
        TransferError::Integrity { .. } => RefusalCode::Integrity,
        TransferError::Changed { .. } => RefusalCode::Changed,
        TransferError::Conflict { .. } => RefusalCode::Conflict,
        TransferError::Stalled { .. } => RefusalCode::Stalled,
        TransferError::Memory { .. } => RefusalCode::Busy,
    };
    let message = crate::message::bounded_text(alloc::format!("{error}"));
    let current = match error {
        TransferError::Storage(fault) => fault.current,
        TransferError::Conflict { current } => *current,
        _ => None,
    };
    Some(TransferMessage::Refused(Refusal { code, message, current }))
}
