//! The connection of a session: its hellos, its frames as they come, its deadlines, and how it ends.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Link, Role, Session};
use crate::asking::Asking;
use crate::message::bounded_text;
use crate::transfer::{Machine, Transfer};
use crate::watch::{Due, Stage};
use crate::{
    Close, CloseCode, EventKind, Frame, Hello, InvalidMessage, Message, MessageKind, PeerMisbehaved, SessionError,
    Timestamp, TransferError, TransferId, TransferMessage, Unsupported, VERSION, our_algorithms,
};

/// The longest payload of any frame: a piece of literals, its operations and some room.
const PAYLOAD_MAX: usize = 4 << 20;

impl Session {
    pub(super) fn greet(&mut self, version: u8) {
        self.effects.send(&Message::Hello(Hello::ours(version, self.own_nonce)));
    }

    pub(super) fn on_received(&mut self, bytes: &[u8]) {
        self.stats.wire_received += bytes.len() as u64;
        self.watch.received(self.now);
        self.decoder.push(bytes);
        self.take_frames(bytes.len(), false);
    }

    /// Takes the whole frames that are here, of which the last `len` bytes have come just now, until the peer must wait;
    /// `at_once` when it may not.
    pub(super) fn take_frames(&mut self, len: usize, at_once: bool) {
        let mut frames = 0;
        while !matches!(self.link, Link::Ending(_) | Link::Finished) && (at_once || !self.is_paused()) {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => {
                    frames += 1;
                    if let Err(error) = self.on_frame(&frame) {
                        self.end(Err(error));
                    }
                }
                Ok(None) => {
                    self.check_first_bytes();
                    self.watch.taken(self.now, len, frames, self.decoder.buffered() > 0);
                    return;
                }
                Err(error) => self.end(Err(self.blame(error))),
            }
        }
        // What waits here is whole, or not known to be late.
        self.watch.taken(self.now, len, frames, false);
    }

    /// True while the peer has to wait before it may begin another transfer.
    pub(super) fn is_paused(&self) -> bool {
        self.role == Role::Server && self.config.requests.is_some_and(|rate| self.pace.next(rate) > self.now)
    }

    /// Before the hello any damage means that this is no peer of ours.
    pub(super) fn blame(&self, error: InvalidMessage) -> SessionError {
        match self.link {
            Link::Greeting => PeerMisbehaved::NoHello.into(),
            _ => error.into(),
        }
    }

    /// What does not begin like a hello is refused without waiting for a whole frame of it.
    pub(super) fn check_first_bytes(&mut self) {
        let stranger = |first| first != MessageKind::Hello.code() && first != MessageKind::Close.code();
        if matches!(self.link, Link::Greeting) && self.decoder.first_byte().is_some_and(stranger) {
            self.end(Err(PeerMisbehaved::NoHello.into()));
        }
    }

    pub(super) fn on_frame(&mut self, frame: &Frame) -> Result<(), SessionError> {
        if let Link::Greeting = self.link
            && ![MessageKind::Hello, MessageKind::Close].map(MessageKind::code).contains(&frame.kind)
        {
            return Err(PeerMisbehaved::NoHello.into());
        }
        if matches!(self.link, Link::Skipping) && frame.kind != MessageKind::Hello.code() {
            return Ok(());
        }
        let message = Message::decode(frame, &self.config.limits).map_err(|error| self.blame(error))?;
        match message {
            Message::Hello(hello) => self.on_hello(hello),
            Message::Unsupported(unsupported) => self.on_unsupported(unsupported),
            Message::Close(Close { code, message }) => Err(SessionError::ClosedByPeer { code, message }),
            Message::Ping => {
                self.effects.send(&Message::Pong);
                Ok(())
            }
            Message::Pong => Ok(()),
            Message::Seen(sum) => self.on_seen(sum),
            Message::Transfer(id, message) => self.on_transfer_message(id, message, &frame.payload),
        }
    }

    /// The client has seen our hello, so that what it sends is no recording of an earlier connection.
    pub(super) fn on_seen(&mut self, sum: u64) -> Result<(), SessionError> {
        let (got, transfer) = (MessageKind::Seen, TransferId::new(0));
        if self.role == Role::Client || !matches!(self.link, Link::Open { .. }) {
            return Err(PeerMisbehaved::Unexpected { got, state: "not waiting for it", transfer }.into());
        }
        if sum != seen_of(&self.own_nonce) {
            return Err(PeerMisbehaved::Recorded.into());
        }
        self.seen = true;
        let ids: Vec<_> = self.transfers.keys().copied().collect();
        for id in ids {
            self.step(id, 0, |machine, cx| Ok(machine.on_seen(cx)));
        }
        Ok(())
    }

    /// A client that pushes says once that it has seen the server's hello.
    pub(super) fn say_seen(&mut self) {
        let Link::Open { peer } = &self.link else { return };
        let wanted = |transfer: &Transfer| match &transfer.machine {
            Machine::Sending(sending) => sending.is_unnamed(),
            machine => matches!(machine, Machine::Asking(Asking::Altering)),
        };
        if self.role == Role::Client && !self.seen && self.transfers.values().any(wanted) {
            self.seen = true;
            self.effects.send(&Message::Seen(seen_of(&peer.nonce)));
        }
    }

    pub(super) fn on_hello(&mut self, hello: Hello) -> Result<(), SessionError> {
        self.decoder.set_longest(PAYLOAD_MAX);
        let unexpected =
            || PeerMisbehaved::Unexpected { got: MessageKind::Hello, state: "open", transfer: TransferId::new(0) };
        match (self.role, &self.link) {
            (_, Link::Open { .. } | Link::Ending(_) | Link::Finished) => Err(unexpected().into()),
            (Role::Client, _) => {
                self.link = Link::Open { peer: hello };
                Ok(())
            }
            (Role::Server, link) => {
                let skipping = matches!(link, Link::Skipping);
                if !skipping {
                    self.greet(self.config.version);
                }
                if (VERSION..=self.config.version).contains(&hello.max) {
                    self.nonce = hello.nonce;
                    self.link = Link::Open { peer: hello };
                    return Ok(());
                }
                if skipping {
                    return Err(self.unsupported(hello.min, hello.max));
                }
                let (min, max, algorithms) = (VERSION, self.config.version, our_algorithms());
                self.effects.send(&Message::Unsupported(Unsupported { min, max, algorithms }));
                self.link = Link::Skipping;
                Ok(())
            }
        }
    }

    /// The server does not know our version: once, start again in one that both know.
    pub(super) fn on_unsupported(&mut self, theirs: Unsupported) -> Result<(), SessionError> {
        let common = self.config.version.min(theirs.max);
        let ours = self.config.version;
        let first = matches!(&self.link, Link::Open { .. }) && self.role == Role::Client && ours > common;
        if !first || common < VERSION.max(theirs.min) {
            return Err(self.unsupported(theirs.min, theirs.max));
        }
        self.config.version = common;
        self.greet(common);
        for (id, transfer) in core::mem::take(&mut self.transfers).into_iter().rev() {
            self.release(id, &transfer.flow);
            let command = transfer.command.expect("every transfer of a client has its command");
            self.waiting.push_front((id, command));
        }
        Ok(())
    }

    pub(super) fn unsupported(&self, peer_min: u8, peer_max: u8) -> SessionError {
        SessionError::Unsupported { peer_min, peer_max, ours: self.config.version }
    }

    pub(super) fn on_deadline(&mut self) {
        // The peer may have waited until now.
        self.take_frames(0, false);
        match self.watch.due(self.now, self.stage(), &self.config) {
            Some(Due::End(error)) => return self.end(Err(error)),
            Some(Due::Ping) => self.effects.send(&Message::Ping),
            None => {}
        }
        if !self.transfers.is_empty() && self.now >= self.looked.after(self.config.keepalive) {
            self.look_for_stalls();
        }
    }

    pub(super) fn stage(&self) -> Stage {
        let open = !matches!(self.link, Link::Greeting | Link::Skipping);
        Stage { open, busy: self.is_busy() }
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.transfers.is_empty() || !self.waiting.is_empty()
    }

    /// Tells the peer which transfers we are at work on, and ends those of which it should have told us something.
    pub(super) fn look_for_stalls(&mut self) {
        self.looked = self.now;
        // A slow link that still moves is nobody's fault: what we sent may not have arrived, nor the answer be due. One
        // that does not move ends the connection.
        let backlog = self.unwritten > 0;
        // On a slow link one frame may take longer than a transfer may be silent, and others wait behind it.
        let receiving = self.watch.is_receiving();
        let ids: Vec<_> = self.transfers.keys().copied().collect();
        for id in ids {
            let Some(transfer) = self.transfers.get_mut(&id) else { continue };
            // The sender of a tree's members is told that we still wait for them.
            let waits = self.role == Role::Server && transfer.machine.waits_for_members();
            if backlog || self.effects.is_working(id) || waits {
                transfer.flow.heard = self.now;
                self.effects.send(&Message::Transfer(id, TransferMessage::Working));
            } else if receiving {
                transfer.flow.heard = self.now;
            } else if self.now >= transfer.flow.heard.after(self.config.silence) {
                self.fail(id, TransferError::Stalled { after: self.config.silence });
            }
        }
    }

    /// When to come back without input.
    pub(super) fn deadline(&self) -> Timestamp {
        let mut deadline = self.watch.next(self.stage(), &self.config);
        if !self.transfers.is_empty() {
            deadline = deadline.min(self.looked.after(self.config.keepalive));
        }
        if let Some(rate) = self.config.requests.filter(|_| self.is_paused()) {
            deadline = deadline.min(self.pace.next(rate));
        }
        deadline
    }

    pub(super) fn on_end_of_stream(&mut self) {
        self.take_frames(0, true);
        if matches!(self.link, Link::Ending(_)) {
            return;
        }
        let settled = self.transfers.values().filter(|transfer| transfer.settled().is_some()).count();
        let open = self.transfers.len() - settled + self.waiting.len();
        let greeted = matches!(self.link, Link::Open { .. });
        let result = if open == 0 && (greeted || self.role == Role::Server && self.stats.wire_received == 0) {
            Ok(())
        } else {
            Err(SessionError::ConnectionLost { open })
        };
        self.end(result);
    }

    /// Ends the session: closing frame for the peer, an event for each transfer.
    pub(super) fn end(&mut self, result: Result<(), SessionError>) {
        if let Err(error) = &result
            && let Some(code) = error.close_code()
        {
            let message = bounded_text(format!("{error}"));
            self.effects.send(&Message::Close(Close { code, message }));
        }
        let why = match &result {
            Ok(()) => String::from("it was closed"),
            Err(error) => format!("{error}"),
        };
        let lost = || TransferError::ConnectionLost(why.clone());
        for (id, transfer) in core::mem::take(&mut self.transfers) {
            self.release(id, &transfer.flow);
            self.effects.event(id, EventKind::Ended(transfer.settled().ok_or_else(lost)));
        }
        for (id, _) in core::mem::take(&mut self.waiting) {
            self.effects.event(id, EventKind::Ended(Err(lost())));
        }
        self.link = Link::Ending(result);
    }

    pub(super) fn end_when_finished(&mut self) {
        if self.role == Role::Server {
            let message = String::from("server is shutting down");
            self.effects.send(&Message::Close(Close { code: CloseCode::ShuttingDown, message }));
        }
        self.end(Ok(()));
    }
}

/// What shows that a hello with this nonce was seen.
fn seen_of(nonce: &[u8; 16]) -> u64 {
    u64::from_le_bytes(*nonce.first_chunk().expect("8 of 16 bytes"))
}
