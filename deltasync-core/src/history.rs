//! Which bytes that both ends have are the prefix of a delta's literals.
//!
//! What an edit puts in resembles what it replaced and what stands beside it: a row with one field changed, a page with
//! one cell more. So old bytes are laid before the literals as the prefix of their frame (see
//! [`LiteralPacker`](crate::LiteralPacker)) and never sent. [`History`] names them from the operations alone, in order
//! of the delta, so that sender and receiver name the same; there are two kinds.
//!
//! [`History::new`] is for a sender that has the basis: what stood where each literal stands, and 64 bytes on both sides.
//! [`History::around`] is for one that has not: the ends of the copies on both sides of each literal, up to 512 bytes
//! each. Those bytes stand in the target too, and the sender reads them there.
//!
//! Cost: O(1) for each operation.
//!
//! Invariant: the ranges lie within the basis and hold at most [`History::MOST`] bytes; none repeats what the range
//! before it has. Each range of a history of copies is as long as its counterpart in the target, and holds the same
//! bytes where the delta is right.

use alloc::vec::Vec;
use core::ops::Range;

use crate::{ByteLen, Offset, Op, Ops};

/// How many bytes on either side of what an edit replaces belong to its history.
const BESIDE: u64 = 64;
/// The most bytes of replaced history for one edit.
const MOST_FOR_ONE: u64 = 256 << 10;
/// How many bytes of the copy on either side of a literal belong to a history of copies.
const AROUND: u64 = 512;

/// Which ranges of the basis are the history of a delta's literals.
#[derive(Clone, Debug)]
pub struct History {
    kind: Kind,
    basis: u64,
    parts: Vec<Part>,
    /// The sum of their lengths.
    len: u64,
    /// The last copy.
    copied: Part,
    /// The length of the literal since then.
    literal: u64,
    /// How much of the target the operations make.
    made: u64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Replaced,
    Around,
}

/// A range of the basis, and where the same bytes begin in the target if they are known to stand there.
#[derive(Clone, Debug)]
struct Part {
    basis: Range<u64>,
    target: Option<u64>,
}

impl History {
    /// The most history of one delta, in bytes.
    pub const MOST: u64 = 8 << 20;

    /// No literals yet, of a delta for a basis of so many bytes that both ends have.
    pub const fn new(basis: ByteLen) -> Self {
        Self::of_kind(Kind::Replaced, basis)
    }

    /// No literals yet, of a delta for a basis of so many bytes, of which the sender has only what is copied.
    pub const fn around(basis: ByteLen) -> Self {
        Self::of_kind(Kind::Around, basis)
    }

    const fn of_kind(kind: Kind, basis: ByteLen) -> Self {
        let copied = Part { basis: 0..0, target: Some(0) };
        Self { kind, basis: basis.get(), parts: Vec::new(), len: 0, copied, literal: 0, made: 0 }
    }

    /// Takes in the next operations of the delta, in pieces of any size.
    ///
    /// # Security
    ///
    /// Operations may come from a peer, whether checked by a planner or not: the ranges lie within the basis, those of
    /// the target within what the operations make, and there are at most two for each operation.
    pub fn push(&mut self, ops: &Ops) {
        for op in ops.as_slice() {
            match *op {
                Op::Literal { len } => self.literal = self.literal.saturating_add(len.get()),
                Op::Copy { from, len } => {
                    let start = from.get().min(self.basis);
                    // What a copy has behind the end of the basis, or of all files, is not there.
                    let end = start + len.get().min(self.basis - start).min(u64::MAX - self.made);
                    let copy = Part { basis: start..end, target: Some(self.made) };
                    self.edited_until(&copy);
                    self.copied = copy;
                }
            }
            self.made = self.made.saturating_add(op.len().get());
        }
    }

    /// The ranges of the basis, in the order in which their bytes make the history; once all operations were pushed.
    pub fn finish(self) -> Vec<Range<Offset>> {
        self.finish_parts().into_iter().map(|part| offsets(part.basis)).collect()
    }

    /// The ranges of the target that hold the same bytes, each as long as its counterpart in [`History::finish`];
    /// `None` when some of the history is no copy, so that the target may not have it.
    pub fn finish_in_target(self) -> Option<Vec<Range<Offset>>> {
        self.finish_parts().into_iter().map(|part| part.target.map(|at| offsets(at..at + part.len()))).collect()
    }

    fn finish_parts(mut self) -> Vec<Part> {
        self.edited_until(&Part { basis: self.basis..self.basis, target: None });
        self.parts
    }

    /// Adds the history of the literal between the last copy and the next one.
    fn edited_until(&mut self, next: &Part) {
        let literal = core::mem::take(&mut self.literal);
        if literal == 0 {
            return;
        }
        match self.kind {
            Kind::Replaced => self.add_replaced(literal, self.copied.basis.end, next.basis.start),
            Kind::Around => {
                let before = self.copied.clone();
                self.add(before.slice(before.len().saturating_sub(AROUND)..before.len()));
                self.add(next.slice(0..next.len().min(AROUND)));
            }
        }
    }

    /// Adds the history of a literal in place of the bytes from `start` to `next`.
    fn add_replaced(&mut self, literal: u64, start: u64, next: u64) {
        let basis = self.basis;
        let mut add = |range: Range<u64>| self.add(Part { basis: range.start..range.end.min(basis), target: None });
        // A literal far shorter than the old bytes in its place resembles their beginning and end.
        let reach = literal.saturating_mul(2).saturating_add(2 * BESIDE).min(MOST_FOR_ONE / 2);
        let end = start.saturating_add(reach);
        add(start.saturating_sub(BESIDE)..end.min(next.max(start).saturating_add(BESIDE)));
        if next > end {
            add(next.saturating_sub(reach).max(end)..next.saturating_add(BESIDE));
        }
    }

    fn add(&mut self, part: Part) {
        let len = part.len();
        // What the last part has is not repeated.
        let had = match self.parts.last() {
            Some(last) if (last.basis.start..last.basis.end).contains(&part.basis.start) => {
                last.basis.end - part.basis.start
            }
            _ => 0,
        };
        if had >= len {
            return;
        }
        let part = part.slice(had..len.min(had + Self::MOST - self.len));
        self.len += part.len();
        match self.parts.last_mut() {
            Some(last) if last.slice(last.len()..last.len()).starts_where(&part) => last.basis.end = part.basis.end,
            _ if part.len() > 0 => self.parts.push(part),
            _ => {}
        }
    }
}

impl Part {
    const fn len(&self) -> u64 {
        self.basis.end.saturating_sub(self.basis.start)
    }

    fn slice(&self, range: Range<u64>) -> Self {
        let start = self.basis.start;
        Self { basis: start + range.start..start + range.end, target: self.target.map(|at| at + range.start) }
    }

    fn starts_where(&self, other: &Self) -> bool {
        (self.basis.start, self.target) == (other.basis.start, other.target)
    }
}

const fn offsets(range: Range<u64>) -> Range<Offset> {
    Offset::new(range.start)..Offset::new(range.end)
}

/// The level at which packing or unpacking so many bytes of history and literals stays within about a quarter of a
/// second, and what a higher one would save takes a link of 1.5 Mbit/s no longer than making it would.
pub const fn history_level(bytes: usize) -> i32 {
    match bytes {
        0..0x4_0000 => 19,
        0x4_0000..0x20_0000 => 12,
        0x20_0000..0x180_0000 => 9,
        0x180_0000..0x300_0000 => 6,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn literal(len: u64) -> Op {
        Op::Literal { len: ByteLen::new(len) }
    }

    const fn copy(from: u64, len: u64) -> Op {
        Op::Copy { from: Offset::new(from), len: ByteLen::new(len) }
    }

    /// Where ranges start and end.
    type Numbers = Vec<(u64, u64)>;

    fn numbers(ranges: Vec<Range<Offset>>) -> Numbers {
        ranges.into_iter().map(|range| (range.start.get(), range.end.get())).collect()
    }

    fn ranges(basis: u64, ops: &[Op]) -> Numbers {
        let mut history = History::new(ByteLen::new(basis));
        history.push(&ops.iter().copied().collect());
        numbers(history.finish())
    }

    /// The ranges around the literals, in the basis and in the target.
    fn around(basis: u64, ops: &[Op]) -> (Numbers, Numbers) {
        let mut history = History::around(ByteLen::new(basis));
        history.push(&ops.iter().copied().collect());
        let target = history.clone().finish_in_target().expect("all are copies");
        (numbers(history.finish()), numbers(target))
    }

    /// No range begins in the one before it, all lie within their file, and together they are not too many bytes.
    fn check_bounded(ranges: &[(u64, u64)], file: u64) {
        assert!(ranges.iter().all(|(start, end)| start < end && *end <= file));
        assert!(ranges.windows(2).all(|pair| !(pair[0].0..pair[0].1).contains(&pair[1].0)));
        assert!(ranges.iter().map(|(start, end)| end - start).sum::<u64>() <= History::MOST);
    }

    /// What is named in the basis and what is named in the target are the same bytes.
    fn check_same_bytes(basis: &[u8], ops: &[Op]) {
        let mut target = Vec::new();
        for op in ops {
            match *op {
                Op::Literal { len } => target.resize(target.len() + len.get() as usize, b'L'),
                Op::Copy { from, len } => target.extend_from_slice(&basis[from.get() as usize..][..len.get() as usize]),
            }
        }
        let (in_basis, in_target) = around(basis.len() as u64, ops);
        check_bounded(&in_basis, basis.len() as u64);
        assert_eq!(in_basis.len(), in_target.len());
        let bytes = |file: &[u8], (start, end): (u64, u64)| file[start as usize..end as usize].to_vec();
        for (old, new) in in_basis.into_iter().zip(in_target) {
            assert_eq!(bytes(basis, old), bytes(&target, new), "{old:?} and {new:?}");
        }
    }

    #[test]
    fn history_is_what_stood_where_the_literals_stand() {
        assert_eq!(ranges(10_000, &[copy(0, 10_000)]), []);
        assert_eq!(ranges(10_000, &[copy(0, 5000), literal(10), copy(5010, 4990)]), [(4936, 5074)]);
        assert_eq!(ranges(10_000, &[copy(0, 5000), literal(10), copy(5000, 5000)]), [(4936, 5064)], "an insertion");
        assert_eq!(ranges(10_000, &[literal(10)]), [(0, 148), (9852, 10_000)], "both ends of what is gone");
        assert_eq!(ranges(10_000, &[copy(9000, 1000), literal(10), copy(0, 9000)]), [(9936, 10_000)]);
        assert_eq!(ranges(0, &[literal(10)]), []);
        let near = [copy(0, 5000), literal(10), copy(5010, 20), literal(10), copy(5040, 4960)];
        assert_eq!(ranges(10_000, &near), [(4936, 5104)], "what two edits share is there once");
    }

    #[test]
    fn history_around_is_the_ends_of_copies_and_where_they_went() {
        let none = (Vec::new(), Vec::new());
        assert_eq!(around(10_000, &[copy(0, 10_000)]), none);
        assert_eq!(around(10_000, &[literal(10)]), none);
        let edit = [copy(0, 5000), literal(10), copy(5020, 4980)];
        let beside = (alloc::vec![(4488, 5000), (5020, 5532)], alloc::vec![(4488, 5000), (5010, 5522)]);
        assert_eq!(around(10_000, &edit), beside, "never what is replaced");
        let insertion = [copy(0, 5000), literal(10), copy(5000, 5000)];
        assert_eq!(around(10_000, &insertion).1, [(4488, 5000), (5010, 5522)]);
        let ends = [literal(10), copy(100, 9000), literal(1)];
        assert_eq!(around(10_000, &ends).0, [(100, 612), (8588, 9100)]);
        let near = [copy(0, 5000), literal(10), copy(5010, 700), literal(10), copy(5710, 4290)];
        assert_eq!(around(10_000, &near).0, [(4488, 5000), (5010, 5710), (5710, 6222)], "what two edits share");
        let short = [copy(0, 5000), literal(1), copy(6000, 3), literal(1), copy(7000, 3)];
        assert_eq!(around(10_000, &short).1, [(4488, 5000), (5001, 5004), (5005, 5008)]);
        let jump = [copy(0, 5000), copy(9000, 100), literal(1)];
        assert_eq!(around(10_000, &jump).0, [(9000, 9100)], "one copy on either side");
    }

    #[test]
    fn replaced_bytes_are_not_known_to_stand_in_the_target() {
        let mut history = History::new(ByteLen::new(10_000));
        assert_eq!(history.clone().finish_in_target(), Some(Vec::new()));
        history.push(&[copy(0, 5000), literal(10), copy(5010, 4990)].into_iter().collect());
        assert_eq!(history.finish_in_target(), None);
    }

    #[test]
    fn history_is_bounded_whatever_the_operations_say() {
        let ops: Vec<Op> = (0..200).flat_map(|i| [literal(1 << 30), copy(i << 24, 1)]).collect();
        let ranges = ranges(1 << 40, &ops);
        assert_eq!(ranges.iter().map(|(start, end)| end - start).sum::<u64>(), History::MOST);
        let ops: Vec<Op> = (0..20_000).flat_map(|i| [literal(1), copy(i << 24, 1024)]).collect();
        let (basis, target) = around(1 << 40, &ops);
        check_bounded(&basis, 1 << 40);
        for ranges in [basis, target] {
            assert_eq!(ranges.iter().map(|(start, end)| end - start).sum::<u64>(), History::MOST);
        }
    }

    proptest! {
        #[test]
        fn ranges_lie_within_the_basis(
            parts in prop::collection::vec((any::<bool>(), any::<u64>(), any::<u64>()), 0..20),
            basis: u64,
        ) {
            // As a decoder would yield them, before any check; literals in a row are one sum.
            for mut history in [History::new(ByteLen::new(basis)), History::around(ByteLen::new(basis))] {
                for (is_copy, from, len) in &parts {
                    let op = if *is_copy { copy(*from, *len) } else { literal(*len) };
                    history.push(&[op].into_iter().collect());
                }
                if let Some(target) = history.clone().finish_in_target() {
                    prop_assert!(target.iter().all(|range| range.start < range.end));
                }
                check_bounded(&numbers(history.finish()), basis);
            }
        }

        #[test]
        fn what_is_around_stands_in_both_files(
            parts in prop::collection::vec((0u64..40, 0u64..4000, 0u64..1500), 0..20),
        ) {
            let basis: Vec<u8> = (0..6000u32).map(|i| (i.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect();
            let ops = parts.into_iter().flat_map(|(new, from, len)| [literal(new), copy(from, len)]);
            check_same_bytes(&basis, ops.collect::<Ops>().as_slice());
        }
    }
}
