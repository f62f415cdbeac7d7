//! What leaves a session: control frames first, then one frame of each transfer in turn, many in one transmission.

use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;

use super::{Link, Session};
use crate::context::control_cost;
use crate::{Encoded, MessageKind, Output};

/// What is transmitted but not yet written stays below about this, in bytes.
const UNWRITTEN_MAX: usize = 2 << 20;
/// Small frames are gathered into transmissions of about this size, in bytes.
const GATHER: usize = 256 << 10;
/// Literal bytes from this length on are transmitted without being copied.
const COPY_MAX: usize = 16 << 10;

impl Session {
    /// Moves frames into the outputs; false when none may leave now.
    pub(super) fn transmit(&mut self) -> bool {
        self.say_seen();
        let open = !matches!(self.link, Link::Ending(_) | Link::Finished);
        if open && self.unwritten >= UNWRITTEN_MAX {
            return false;
        }
        let mut gathered = Vec::new();
        while let Some((kind, frame)) = self.effects.control.pop_front() {
            self.effects.control_bytes -= control_cost(&frame);
            self.count(kind);
            gathered.extend_from_slice(&frame.head);
        }
        let mut tail = Bytes::new();
        while open && gathered.len() < GATHER {
            let Some((kind, frame)) = self.next_frame() else { break };
            self.count(kind);
            gathered.extend_from_slice(&frame.head);
            if frame.tail.len() > COPY_MAX {
                tail = frame.tail;
                break;
            }
            gathered.extend_from_slice(&frame.tail);
        }
        // A transfer's machine may also have asked for something.
        let asked = !self.effects.outputs.is_empty();
        let mut sent = false;
        for bytes in [Bytes::from(gathered), tail].into_iter().filter(|bytes| !bytes.is_empty()) {
            self.watch.transmitted(self.now);
            self.unwritten += bytes.len();
            self.stats.wire_sent += bytes.len() as u64;
            self.effects.outputs.push_back(Output::Transmit(bytes));
            sent = true;
        }
        sent || asked
    }

    pub(super) fn count(&mut self, kind: MessageKind) {
        self.awaiting |= is_answer(kind);
    }

    /// The next frame of a transfer, each transfer in turn.
    pub(super) fn next_frame(&mut self) -> Option<(MessageKind, Encoded)> {
        let after = self.transfers.range((Bound::Excluded(self.served), Bound::Unbounded));
        let ids: Vec<_> = after.chain(self.transfers.range(..=self.served)).map(|(id, _)| *id).collect();
        for id in ids {
            self.step(id, 0, |machine, cx| Ok(machine.pump(cx)));
            if let Some(frame) = self.transfers.get_mut(&id).and_then(|transfer| transfer.flow.pop()) {
                self.served = id;
                return Some(frame);
            }
        }
        None
    }
}

/// True for the messages that are steps of a transfer, of which round trips are made. Whoever cancels waits for nothing.
pub(super) fn is_answer(kind: MessageKind) -> bool {
    !kind.is_connection() && !matches!(kind, MessageKind::Credit | MessageKind::Working | MessageKind::Cancel)
}
