//! How much the transfers of one connection may hold together, and which of them wait until there is room.
//!
//! The budget of a session has two halves. The first is for what a peer has sent and we have not used up: each transfer
//! may send as much as its credit says, so what all of them send is counted, and the transfer that passes the half is
//! refused as busy. The second is for work: buffers, tables and windows. What a transfer can need of it follows from the
//! lengths of target and basis, so it is reserved whole when those are known, before the first step that needs it; a
//! transfer that finds no room waits in line, its requests and jobs are held back, and the peer hears that we are at work.
//!
//! A tree that waits for the files beside it gives back what it was granted, for they may need that; what it keeps, its lists,
//! counts as received. Where there is no room for that it does not wait.
//!
//! Since a transfer never asks for more while it holds something, none waits for another that waits. A price above the
//! whole half is cut to it: such a transfer runs alone. What has ended keeps its reservation until the last request and
//! job of it has come back.
//!
//! Invariant: what is reserved is at most half of the budget, and what is held of received bytes at most the other half.

use alloc::collections::{BTreeMap, VecDeque};

use crate::{Config, TransferId};

/// What one transfer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Grant {
    /// What it needs is not known; it needs next to nothing until then.
    #[default]
    Unpriced,
    /// It waits for room for so many bytes.
    Waiting(u64),
    /// It holds so many bytes.
    Granted(u64),
}

/// The budget of a session.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Half of the budget.
    most: u64,
    /// Received and not used up, of all transfers.
    received: u64,
    reserved: u64,
    waiting: VecDeque<(TransferId, u64)>,
    /// Transfers that have ended and of which something still comes back.
    leaving: BTreeMap<TransferId, u64>,
}

/// What a transfer works with, as far as its needs follow from that.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    /// Bytes of the target.
    pub(crate) target: u64,
    /// Chunks of it that were announced.
    pub(crate) elements: u64,
    /// Bytes and chunks of what we have: at a sender the target, at a receiver the basis, once that was looked for.
    pub(crate) ours: Option<(u64, u64)>,
    /// What it takes a sender to use the receiver's survey, once that has come, in bytes.
    pub(crate) survey: u64,
}

const MIB: u64 = 1 << 20;
/// What every transfer needs, in bytes.
const LEAST: u64 = 64 << 10;
/// Tags, ranks, cells and places of one chunk, in bytes.
const CHUNK: u64 = 64;
/// What stands before literals at most, in bytes.
const PREFIX: u64 = 8 * MIB;

impl Sizes {
    /// What the end that has the target needs, in bytes: pieces that are read and packed ahead, the packer with its
    /// prefix, slices that are searched, what is known of the other end's chunks, and of its old gaps once that is told.
    pub(crate) fn to_send(self, config: &Config) -> u64 {
        let (_, chunks) = self.ours.unwrap_or_default();
        let pieces = self.target.min(8 * config.piece as u64);
        let packer = match config.level {
            0 => 0,
            // Measured: 10 MB for 230 kB at level 19, 42 MB for 2 MB at level 12, 30 MB for 10 MB at level 9.
            _ => MIB / 2 + self.target.saturating_mul(48).min(42 * MIB) + 2 * self.target.min(PREFIX),
        };
        let searched = self.target.min(4 * MIB).saturating_mul(2);
        LEAST + pieces + packer + searched + chunks.saturating_mul(CHUNK).saturating_add(self.survey)
    }

    /// What the end that has the basis needs, in bytes: the window and the prefix of the unpacker, operations and
    /// unpacked literals that wait, slices of the basis that are summed.
    pub(crate) fn to_receive(self, config: &Config) -> u64 {
        let (basis, chunks) = self.ours.unwrap_or_default();
        let unpacker = self.target.min(PREFIX) + 2 * basis.min(PREFIX);
        let operations = self.target.min(4 * config.limits.ops as u64) * 32;
        let literals = self.target.min(3 * MIB);
        let summed = basis.min(8 * MIB);
        LEAST + unpacker + operations + literals + summed + chunks.saturating_add(self.elements).saturating_mul(CHUNK)
    }
}

impl Memory {
    pub(crate) fn new(budget: u64) -> Self {
        let (waiting, leaving) = (VecDeque::new(), BTreeMap::new());
        Self { most: budget / 2, received: 0, reserved: 0, waiting, leaving }
    }

    /// Half of the budget, in bytes.
    pub(crate) const fn half(&self) -> u64 {
        self.most
    }

    /// Counts what a transfer holds of received bytes, before and now; false when that is too much for all.
    #[must_use]
    pub(crate) fn hold(&mut self, before: u64, now: u64) -> bool {
        self.received = self.received - before + now;
        now <= before || self.received <= self.most
    }

    /// A transfer needs so many bytes: where that is more than it was granted, it begins to wait, with nothing.
    pub(crate) fn want(&mut self, id: TransferId, grant: Grant, price: u64) -> Grant {
        let price = price.min(self.most);
        if matches!(grant, Grant::Granted(bytes) if bytes >= price) {
            return grant;
        }
        self.take_back(id, grant);
        self.waiting.push_back((id, price));
        Grant::Waiting(price)
    }

    /// The next of those that wait, if there is room for it, and what it holds from now on.
    pub(crate) fn next_granted(&mut self) -> Option<(TransferId, Grant)> {
        let &(id, price) = self.waiting.front()?;
        if self.reserved + price > self.most {
            return None;
        }
        self.waiting.pop_front();
        self.reserved += price;
        Some((id, Grant::Granted(price)))
    }

    /// What this one holds from now on, if it is the first of those that wait and there is room for it.
    pub(crate) fn granted_at_once(&mut self, id: TransferId) -> Option<Grant> {
        let is_first = self.waiting.front().is_some_and(|(first, _)| *first == id);
        is_first.then(|| self.next_granted()).flatten().map(|(_, grant)| grant)
    }

    /// True when so many bytes may be kept beside what is received.
    pub(crate) fn may_keep(&self, bytes: u64) -> bool {
        self.received.saturating_add(bytes) <= self.most / 2
    }

    /// A transfer needs nothing of what it was granted any more.
    pub(crate) fn give_back(&mut self, id: TransferId, grant: Grant) -> Grant {
        self.take_back(id, grant);
        Grant::Unpriced
    }

    /// A transfer has ended that held this; `working` when something of it still comes back.
    pub(crate) fn leave(&mut self, id: TransferId, grant: Grant, held: u64, working: bool) {
        self.received -= held;
        match grant {
            Grant::Granted(bytes) if working => *self.leaving.entry(id).or_default() += bytes,
            grant => {
                if working {
                    self.leaving.entry(id).or_default();
                }
                self.take_back(id, grant);
            }
        }
    }

    /// The last of a transfer that has ended has come back.
    pub(crate) fn left(&mut self, id: TransferId) {
        self.reserved -= self.leaving.remove(&id).unwrap_or(0);
    }

    /// How many transfers have ended of which something still comes back.
    pub(crate) fn leaving(&self) -> usize {
        self.leaving.len()
    }

    fn take_back(&mut self, id: TransferId, grant: Grant) {
        match grant {
            Grant::Unpriced => {}
            Grant::Waiting(_) => self.waiting.retain(|(waiting, _)| *waiting != id),
            Grant::Granted(bytes) => self.reserved -= bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Transfers come, grow and go in any order: the bound holds, and everybody gets a turn in the end.
    fn check_budget(steps: &[(u32, u8, u64)]) {
        let mut memory = Memory::new(2000);
        let mut grants: BTreeMap<TransferId, (Grant, u64)> = BTreeMap::new();
        for &(id, what, bytes) in steps {
            let id = TransferId::new(id);
            match what {
                0 => {
                    let entry = grants.entry(id).or_default();
                    entry.0 = memory.want(id, entry.0, bytes);
                }
                1 => {
                    let entry = grants.entry(id).or_default();
                    if !memory.hold(entry.1, bytes) {
                        assert!(memory.hold(bytes, entry.1));
                    } else {
                        entry.1 = bytes;
                    }
                }
                _ => {
                    if let Some((grant, held)) = grants.remove(&id) {
                        memory.leave(id, grant, held, bytes % 2 == 0);
                        memory.left(id);
                    }
                }
            }
            while let Some((id, grant)) = memory.next_granted() {
                grants.get_mut(&id).expect("only those that are there wait").0 = grant;
            }
            let granted = |(grant, _): &(Grant, u64)| if let Grant::Granted(bytes) = grant { *bytes } else { 0 };
            assert_eq!(memory.reserved, grants.values().map(granted).sum::<u64>());
            assert_eq!(memory.received, grants.values().map(|(_, held)| held).sum::<u64>());
            assert!(memory.reserved <= 1000 && memory.received <= 1000, "{memory:?}");
        }
        while let Some((id, (grant, held))) = grants.pop_first() {
            memory.leave(id, grant, held, false);
            while let Some((id, grant)) = memory.next_granted() {
                grants.get_mut(&id).expect("only those that are there wait").0 = grant;
            }
        }
        assert!(memory.waiting.is_empty() && memory.reserved == 0 && memory.received == 0, "{memory:?}");
    }

    #[test]
    fn one_that_needs_more_than_all_runs_alone() {
        let mut memory = Memory::new(200);
        let [a, b] = [1, 2].map(TransferId::new);
        memory.want(a, Grant::Unpriced, u64::MAX);
        memory.want(b, Grant::Unpriced, 1);
        assert_eq!(memory.next_granted(), Some((a, Grant::Granted(100))));
        assert_eq!(memory.next_granted(), None);
        memory.leave(a, Grant::Granted(100), 0, true);
        assert_eq!(memory.next_granted(), None, "its last job still runs");
        memory.left(a);
        assert_eq!(memory.next_granted(), Some((b, Grant::Granted(1))));
    }

    #[test]
    fn what_is_kept_leaves_room_for_what_comes() {
        let mut memory = Memory::new(200);
        let id = TransferId::new(1);
        memory.want(id, Grant::Unpriced, 70);
        let (_, grant) = memory.next_granted().expect("there is room");
        assert!(memory.may_keep(50) && !memory.may_keep(51));
        assert!(memory.hold(0, 30));
        assert!(memory.may_keep(20) && !memory.may_keep(21) && !memory.may_keep(u64::MAX));
        assert_eq!((memory.give_back(id, grant), memory.reserved), (Grant::Unpriced, 0));
    }

    proptest! {
        #[test]
        fn the_bound_holds_in_any_order(steps in prop::collection::vec((0u32..6, 0u8..3, 0u64..1500), 0..80)) {
            check_budget(&steps);
        }
    }
}
