//! The transfers of a session: how each begins, takes a step and ends, and what it may hold meanwhile.

use alloc::format;
use alloc::string::String;

use bytes::Bytes;
use deltasync_core::{CAN_PACK, Cutter};

use super::leaving::is_answer;
use super::{Link, Role, Session};
use crate::context::{Context, Trouble};
use crate::flow::Flow;
use crate::memory::Sizes;
use crate::transfer::{Machine, Transfer, refusal, verb_of_command, verb_of_message};
use crate::{
    Answer, ApiMisuse, Capabilities, Command, EventKind, Message, Offer, OpenedFile, Outcome, PeerMisbehaved, Refusal,
    RefusalCode, SessionError, TransferError, TransferId, TransferMessage,
};

/// The most transfers a client runs at once.
const CLIENT_TRANSFERS: usize = 32;

/// What may begin.
struct Room {
    /// A tree.
    tree: bool,
    /// Anything else.
    other: bool,
}

impl Session {
    pub(super) fn on_command(&mut self, id: TransferId, command: Command) -> Result<(), ApiMisuse> {
        if command == Command::Cancel {
            if self.transfers.contains_key(&id) {
                self.fail(id, TransferError::Cancelled);
            } else if let Some(index) = self.waiting.iter().position(|(waiting, _)| *waiting == id) {
                self.waiting.remove(index);
                self.effects.event(id, EventKind::Ended(Err(TransferError::Cancelled)));
            }
            // Otherwise it has just ended by itself.
            return Ok(());
        }
        if self.role == Role::Server {
            return Err(ApiMisuse::NotAClient);
        }
        if command == Command::Complete {
            self.step(id, 0, |machine, cx| Ok(machine.complete(cx)));
            return Ok(());
        }
        if id <= self.highest {
            return Err(ApiMisuse::TransferNumber(id));
        }
        if let Command::Predict { push } = &command
            && !matches!(**push, Command::Push { .. } | Command::PushTree { .. } | Command::PushMember { .. })
        {
            return Err(ApiMisuse::NotAPush);
        }
        self.highest = id;
        self.waiting.push_back((id, command));
        Ok(())
    }

    /// Starts a command that waits, if there is one and room for it.
    pub(super) fn start_waiting(&mut self) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let room = self.room(self.config.transfers.min(CLIENT_TRANSFERS));
        // Those that trees wait for may stand behind further trees.
        let may_start = |(_, command): &(TransferId, Command)| match command {
            Command::PushTree { .. } => room.tree,
            _ => room.other,
        };
        let next = if room.other { self.waiting.iter().position(may_start) } else { None };
        let Some((id, command)) = next.and_then(|next| self.waiting.remove(next)) else { return false };
        if let Some((verb, path)) = verb_of_command(&command) {
            self.effects.event(id, EventKind::Started { verb, path });
        }
        let mut flow = Flow::new(self.now);
        let started = Machine::start(command.clone(), &mut self.context(id, 0, &mut flow));
        self.keep(id, flow, started, Some(command));
        true
    }

    /// Whether another transfer may begin where `most` may run. Trees that only wait for their members do not count: else as
    /// many of them would wait for ever. A tree itself needs room beside them, so that there are never more than twice as many.
    fn room(&self, most: usize) -> Room {
        let waits = |transfer: &&Transfer| transfer.machine.waits_for_members();
        let tree = self.transfers.len() < most;
        let other = tree || self.transfers.len() - self.transfers.values().filter(waits).count() < most;
        Room { tree, other }
    }

    /// Keeps a transfer whose machine has taken a step, or ends it.
    pub(super) fn keep(
        &mut self,
        id: TransferId,
        flow: Flow,
        stepped: Result<Machine, Trouble>,
        command: Option<Command>,
    ) {
        match stepped {
            Ok(machine) => match machine.outcome() {
                Some(outcome) => self.conclude(id, flow, Ok(outcome)),
                None => {
                    if self.transfers.is_empty() {
                        self.looked = self.looked.max(flow.heard);
                    }
                    let opens = machine.opens_tree().is_some();
                    self.transfers.insert(id, Transfer { flow, machine, command });
                    if !opens {
                        self.let_members_go(id);
                    }
                }
            },
            Err(Trouble::Transfer(error)) => self.conclude(id, flow, Err(error)),
            Err(Trouble::Session(error)) => {
                self.release(id, &flow);
                let why = TransferError::ConnectionLost(format!("{error}"));
                self.effects.event(id, EventKind::Ended(Err(why)));
                self.end(Err(error));
            }
        }
    }

    pub(super) fn on_transfer_message(
        &mut self,
        id: TransferId,
        message: TransferMessage,
        payload: &Bytes,
    ) -> Result<(), SessionError> {
        match self.transfers.get_mut(&id) {
            Some(transfer) => {
                transfer.flow.heard = self.now;
                transfer.flow.received(id, message.kind(), payload)?;
                let before = transfer.flow.held();
                transfer.flow.decoded(&message);
                if !self.memory.hold(before, transfer.flow.held()) {
                    self.fail(id, TransferError::Memory { most: self.memory.half() });
                    return Ok(());
                }
                if matches!(message, TransferMessage::Offer(_)) {
                    self.on_offered(id);
                }
            }
            None if begins(&message) && self.role == Role::Server => return self.serve(id, message, payload),
            // It ended here while this was on its way, or the client has not asked for anything yet.
            None if id <= self.highest || may_come_first(&message) => return Ok(()),
            None => return Err(PeerMisbehaved::UnknownTransfer { got: message.kind(), transfer: id }.into()),
        }
        if is_answer(message.kind()) && core::mem::take(&mut self.awaiting) {
            self.stats.round_trips += 1;
        }
        match message {
            TransferMessage::Credit(bytes) => {
                if let Some(transfer) = self.transfers.get_mut(&id) {
                    transfer.flow.credited(bytes);
                }
            }
            TransferMessage::Refused(refusal) => self.fail(id, TransferError::Refused(refusal)),
            TransferMessage::Cancel => self.fail(id, TransferError::CancelledByPeer),
            TransferMessage::Working => {}
            message => self.step(id, payload.len(), |machine, cx| machine.on_message(message, cx)),
        }
        Ok(())
    }

    /// A peer begins a transfer.
    pub(super) fn serve(
        &mut self,
        id: TransferId,
        message: TransferMessage,
        payload: &Bytes,
    ) -> Result<(), SessionError> {
        let Some((verb, path)) = verb_of_message(&message) else {
            return Err(PeerMisbehaved::UnknownTransfer { got: message.kind(), transfer: id }.into());
        };
        self.highest = self.highest.max(id);
        if let Some(rate) = self.config.requests {
            self.pace.count(rate, self.now);
        }
        // One that has ended while its work has not is still a burden.
        let room = self.room(self.config.transfers.saturating_sub(self.memory.leaving()));
        let has_room = match &message {
            TransferMessage::Offer(offer) if offer.cutter == Cutter::Entries => room.tree,
            _ => room.other,
        };
        if self.finishing || !has_room {
            let code = RefusalCode::Busy;
            let message = match self.finishing {
                true => String::from("server is shutting down"),
                false => format!("{} transfers run on this connection already", self.config.transfers),
            };
            let refusal = Refusal { code, message, current: None };
            self.effects.event(id, EventKind::Refused { verb });
            self.effects.send(&Message::Transfer(id, TransferMessage::Refused(refusal)));
            return Ok(());
        }
        self.effects.event(id, EventKind::Started { verb, path });
        let mut flow = Flow::new(self.now);
        flow.received(id, message.kind(), payload)?;
        flow.decoded(&message);
        if let Some(tree) = self.tree_of(&message) {
            flow.behind = true;
            self.behind.entry(tree).or_default().push(id);
        }
        let started = Machine::serve(message, &mut self.context(id, payload.len(), &mut flow));
        self.keep(id, flow, started, None);
        Ok(())
    }

    /// The tree that is being looked at and of which this is a member: what is published in it now would make it another
    /// than its sender took it for.
    fn tree_of(&self, message: &TransferMessage) -> Option<TransferId> {
        let TransferMessage::Offer(Offer { to: Some(wish), cutter, .. }) = message else { return None };
        if wish.attributes.is_none() || *cutter == Cutter::Entries {
            return None;
        }
        let holds = |transfer: &Transfer| transfer.machine.opens_tree().is_some_and(|tree| tree.holds(&wish.path));
        self.transfers.iter().find(|(_, transfer)| holds(transfer)).map(|(id, _)| *id)
    }

    /// A tree was looked at, or has ended: its members go on.
    fn let_members_go(&mut self, tree: TransferId) {
        for id in self.behind.remove(&tree).unwrap_or_default() {
            if let Some(transfer) = self.transfers.get_mut(&id) {
                transfer.flow.behind = false;
                self.effects.let_go(id);
            }
        }
    }

    /// What the machine of one transfer works with.
    pub(super) fn context<'a>(&'a mut self, id: TransferId, payload: usize, flow: &'a mut Flow) -> Context<'a> {
        // In a first flight nothing is known of the peer: most can unpack, and who cannot asks for a repair.
        let may_pack = match &self.link {
            Link::Open { peer } => peer.capabilities.has(Capabilities::ZSTD),
            _ => CAN_PACK,
        };
        let live = self.seen || self.role == Role::Client;
        let Self { role, config, nonce, own_nonce, link, effects, memory, .. } = self;
        let server_nonce = match (role, link) {
            (Role::Client, Link::Open { peer }) => &peer.nonce,
            _ => own_nonce,
        };
        Context { id, config, nonce, server_nonce, live, may_pack, payload, flow, effects, memory }
    }

    /// Hands something to a transfer's machine, if it has not ended.
    pub(super) fn step(
        &mut self,
        id: TransferId,
        payload: usize,
        handler: impl FnOnce(Machine, &mut Context<'_>) -> Result<Machine, Trouble>,
    ) {
        let Some(Transfer { mut flow, machine, command }) = self.transfers.remove(&id) else { return };
        let held = flow.held();
        let stepped = handler(machine, &mut self.context(id, payload, &mut flow));
        let fits = self.memory.hold(held, flow.held());
        let stepped = stepped.and_then(|machine| match fits {
            true => Ok(machine),
            false => Err(TransferError::Memory { most: self.memory.half() }.into()),
        });
        self.keep(id, flow, stepped, command);
    }

    /// Ends a transfer badly, unless it has gone well already and is only being remembered.
    pub(super) fn fail(&mut self, id: TransferId, error: TransferError) {
        if let Some(transfer) = self.transfers.remove(&id) {
            let result = transfer.settled().ok_or(error);
            self.conclude(id, transfer.flow, result);
        }
    }

    /// A transfer is over: its last words leave, also to tell a peer that does not know.
    pub(super) fn conclude(&mut self, id: TransferId, mut flow: Flow, result: Result<Outcome, TransferError>) {
        self.release(id, &flow);
        self.let_members_go(id);
        self.watch.active(self.now);
        if self.transfers.is_empty() {
            self.decoder.rest();
        }
        if let Err(error) = &result {
            flow.clear();
            if let Some(message) = refusal(error) {
                // Its last words have nothing to pack.
                flow.queue(id, message, false);
            }
        }
        for (kind, frame) in flow.into_control() {
            self.effects.send_encoded(kind, frame);
        }
        self.effects.event(id, EventKind::Ended(result));
    }

    /// The storage has looked at our file: what will this transfer hold?
    pub(super) fn on_looked(&mut self, id: TransferId, answer: &Answer) {
        let Some(flow) = self.transfers.get_mut(&id).map(|transfer| &mut transfer.flow) else { return };
        let sizes = |file: &OpenedFile| (file.chunks.len().get(), file.chunks.runs().len() as u64);
        match answer {
            Answer::Described(file) => {
                let ours = sizes(file);
                flow.sizes = Sizes { target: ours.0, ours: Some(ours), survey: 0, ..flow.sizes };
                let price = flow.sizes.to_send(&self.config);
                self.want(id, price);
            }
            Answer::Basis { file, .. } => {
                flow.sizes.ours = Some(file.as_ref().map_or((0, 0), sizes));
                // A pull looks at what it has before it knows what it gets.
                if flow.offered {
                    let price = flow.sizes.to_receive(&self.config);
                    self.want(id, price);
                }
            }
            _ => {}
        }
    }

    /// An offer has come: what will this transfer hold, if we have looked at our file already?
    pub(super) fn on_offered(&mut self, id: TransferId) {
        let Some(transfer) = self.transfers.get(&id) else { return };
        if transfer.flow.sizes.ours.is_some() {
            let price = transfer.flow.sizes.to_receive(&self.config);
            self.want(id, price);
        }
    }

    pub(super) fn want(&mut self, id: TransferId, price: u64) {
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.flow.grant = self.memory.want(id, transfer.flow.grant, price);
            self.grant();
        }
    }

    /// Lets those go on for whom there is room; true when one does.
    pub(super) fn grant(&mut self) -> bool {
        let mut any = false;
        while let Some((id, grant)) = self.memory.next_granted() {
            self.transfers.get_mut(&id).expect("only transfers that run wait for memory").flow.grant = grant;
            self.effects.let_go(id);
            any = true;
        }
        any
    }

    /// A transfer has ended: gives back what it held, or will when the last of its work has come back.
    pub(super) fn release(&mut self, id: TransferId, flow: &Flow) {
        self.effects.drop_held_back(id);
        self.memory.leave(id, flow.grant, flow.held(), self.effects.is_working(id));
    }

    /// Something that a transfer has asked for has come back.
    pub(super) fn came_back(&mut self, id: TransferId) {
        if !self.transfers.contains_key(&id) && !self.effects.is_working(id) {
            self.memory.left(id);
        }
    }
}

/// True for a message that begins a transfer.
fn begins(message: &TransferMessage) -> bool {
    match message {
        // A second offer is of a transfer that has ended here.
        TransferMessage::Offer(offer) => offer.attempt == 0,
        TransferMessage::Pull(_)
        | TransferMessage::List(_)
        | TransferMessage::AskRoot(_)
        | TransferMessage::MakeDirectory(_)
        | TransferMessage::Rename(_)
        | TransferMessage::Remove(_) => true,
        _ => false,
    }
}

/// True for what a client may say of a transfer before it has asked for anything: it is at work, or gave up.
fn may_come_first(message: &TransferMessage) -> bool {
    matches!(message, TransferMessage::Working | TransferMessage::Refused(_) | TransferMessage::Cancel)
}
