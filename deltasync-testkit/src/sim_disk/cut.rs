//! What a power cut leaves of a simulated disk: what was synced, and of the rest some, drawn from a seed.
//!
//! - Of the changes of names in one directory any prefix, whatever happened to those of others; but a file that is moved
//!   does not lose its old name and not get its new one.
//! - Of each page of 4 KiB of a file any of its states since the sync, the last write to it torn at any byte; of its
//!   lengths any.
//! - Of the times of a file those it had at the last sync, or those it has.
//!
//! So is what ext4 and xfs may do, and somewhat more.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::image::{Body, Change, DirBody, FileBody, Image, Inode, Locks, PAGE, Pending, TOP};
use crate::Rng;

impl Image {
    /// What a power cut leaves.
    pub(super) fn power_cut(&self, rng: &mut Rng) -> Self {
        let kept = self.kept_changes(rng);
        let mut left = self.clone();
        for (inode, node) in &mut left.nodes {
            (node.names, node.open, node.locks) = (0, 0, Locks::default());
            if rng.below(2) == 0 {
                node.times = node.synced_times;
            }
            match &mut node.body {
                Body::File(file) => {
                    let bytes = file.after_cut(rng);
                    *file = FileBody { now: bytes.clone(), synced: bytes, ..FileBody::default() };
                }
                Body::Dir(dir) => {
                    let mut names = std::mem::take(&mut dir.synced);
                    dir.pending[..kept[inode]].iter().for_each(|pending| pending.what.apply(&mut names));
                    *dir = DirBody { now: names.clone(), synced: names, pending: Vec::new() };
                }
                Body::Symlink => {}
            }
            node.synced_times = node.times;
        }
        left.count_names();
        left.nodes.retain(|_, node| node.names > 0);
        left
    }

    /// How many of its pending changes each directory keeps.
    fn kept_changes(&self, rng: &mut Rng) -> BTreeMap<Inode, usize> {
        let dirs = || self.nodes.iter().filter_map(|(inode, node)| Some((*inode, node.as_dir()?)));
        let mut kept: BTreeMap<_, _> = dirs().map(|(inode, dir)| (inode, some_of(dir.pending.len(), rng))).collect();
        loop {
            let mut changed = false;
            for (inode, dir) in dirs() {
                for (other, tick) in dir.pending[..kept[&inode]].iter().filter_map(|pending| pending.what.after) {
                    let pending = self.nodes[&other].as_dir().map_or(&[][..], |dir| &dir.pending);
                    let least = pending.iter().position(|pending| pending.what.tick == tick).map_or(0, |at| at + 1);
                    if let Some(count) = kept.get_mut(&other).filter(|count| **count < least) {
                        (*count, changed) = (least, true);
                    }
                }
            }
            if !changed {
                return kept;
            }
        }
    }

    fn count_names(&mut self) {
        self.node_mut(TOP).names = 1;
        let mut dirs = vec![TOP];
        while let Some(dir) = dirs.pop() {
            let inodes: Vec<_> =
                self.nodes[&dir].as_dir().into_iter().flat_map(|dir| dir.now.values().copied()).collect();
            for inode in inodes {
                let node = self.node_mut(inode);
                node.names += 1;
                if node.names == 1 && node.as_dir().is_some() {
                    dirs.push(inode);
                }
            }
        }
    }
}

impl FileBody {
    fn after_cut(&self, rng: &mut Rng) -> Vec<u8> {
        let mut lens = vec![self.synced.len()];
        let mut pages = BTreeSet::new();
        for Pending { what, .. } in &self.pending {
            let last = lens[lens.len() - 1];
            let (len, touched) = match what {
                Change::Write { at, bytes } => (last.max(at + bytes.len()), *at..at + bytes.len()),
                Change::Len(len) => (*len, *len..last.max(*len)),
            };
            lens.push(len);
            pages.extend(touched.start / PAGE..touched.end.div_ceil(PAGE));
        }
        let longest = lens.iter().copied().max().expect("one at least");
        let mut bytes = self.synced.clone();
        bytes.resize(longest, 0);
        for page in pages {
            let range = page * PAGE..((page + 1) * PAGE).min(longest);
            let touching: Vec<_> = self.pending.iter().filter(|pending| pending.what.touches(range.clone())).collect();
            let kept = some_of(touching.len(), rng);
            let torn = rng.below(4) == 0;
            let mut content = bytes[range.clone()].to_vec();
            for (n, Pending { what, .. }) in touching[..kept].iter().enumerate() {
                let until = if torn && n + 1 == kept { range.start + rng.below(range.len() + 1) } else { range.end };
                what.apply_within(&mut content, range.start, until);
            }
            bytes[range].copy_from_slice(&content);
        }
        bytes.resize(lens[some_of(lens.len() - 1, rng)], 0);
        bytes
    }
}

impl Change {
    fn touches(&self, range: Range<usize>) -> bool {
        match self {
            Self::Write { at, bytes } => *at < range.end && at + bytes.len() > range.start,
            Self::Len(len) => *len < range.end,
        }
    }

    /// Applies it to the part of a file that starts at `start`, up to the byte before `until`.
    fn apply_within(&self, part: &mut [u8], start: usize, until: usize) {
        let until = until.min(start + part.len());
        match self {
            Self::Write { at, bytes } => {
                let (from, to) = ((*at).max(start), (at + bytes.len()).min(until));
                if from < to {
                    part[from - start..to - start].copy_from_slice(&bytes[from - at..to - at]);
                }
            }
            Self::Len(len) => part[(*len).max(start).min(until) - start..until - start].fill(0),
        }
    }
}

/// A number up to `all`: often none, often all.
fn some_of(all: usize, rng: &mut Rng) -> usize {
    match rng.below(3) {
        0 => 0,
        1 => all,
        _ => rng.below(all + 1),
    }
}
