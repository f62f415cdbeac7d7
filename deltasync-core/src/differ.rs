//! Finds the blocks of a signature in a target, at any byte offset, and emits the delta between the two.
//!
//! Where a block matches, those that follow it in the basis are compared one after another with what follows in the
//! target, many at once; where that ends, the search begins. It looks only at the positions of the target at which an
//! [`Anchor`](crate::anchor::Anchor) may stand: one whose key some block has says where that block would begin. The weak
//! sum of all of it makes a candidate, the strong sum a copy. Blocks without an anchor are looked for by a window that
//! rolls over the stretches where no anchor stands in any window; with a signature that has no anchors that is the whole
//! target. What is left over is literal. Of several equal blocks the one that keeps the shift of the last copy is taken,
//! else the first. The shorter last block is looked for behind its predecessor and at the end of the target.
//!
//! Cost: for a byte that matches, one weak and one strong sum in SIMD lanes, in a long [`Run`] only the strong one, without
//! a copy of the byte; for one that does not, one hash in SIMD lanes and sixteen probes of a filter a block, or two
//! multiplications and a probe a byte where the window rolls. Sums taken in vain are rationed, see [`Ration`], so that
//! equal keys and weak sums cost matches and not time. Memory: the index, a window of at most two blocks and [`STEP`], and
//! the pieces that have not been taken.
//!
//! Invariants: any split of the target gives the same pieces, each `Literal` and `Copy` stands for bytes pushed, and no
//! literal holds a whole full block of the basis, unless the ration is spent.
//!
//! Source: A. Tridgell, "Efficient Algorithms for Sorting and Synchronization" (1999), chapter 3.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::anchor::{AnchorRule, key};
use crate::index::{anchored_order, mix, of_weak, place, rolled_order};
use crate::piece::Pieces;
use crate::ration::Ration;
use crate::rolled::{PERIOD, roll_on, same_windows};
use crate::rolling::weak_sum;
use crate::run::Run;
use crate::table::{Entry, equal_range};
use crate::{ByteLen, DeltaPiece, DeltaSummary, Digest, Limits, RollingSum, Signature, SignatureIndex};

/// How much of a long push is searched before what is decided leaves the window, in bytes.
const STEP: usize = 64 << 10;
/// A shorter last block that does not follow its predecessor is left to the literals below this, in bytes: a copy would
/// cost as much.
const WORTHWHILE: usize = 8;
/// How many positions are looked at together behind a copy, where a match is near, and how many at most.
const STRIDES: core::ops::RangeInclusive<usize> = 512..=16 << 10;

/// Makes a delta from a signature and the bytes of a target, pushed in any split.
#[derive(Clone, Debug)]
pub struct Differ {
    index: Arc<SignatureIndex>,
    rule: AnchorRule,
    pieces: Pieces,
    /// The end of the target so far, from `base` on.
    window: Vec<u8>,
    /// Where the window starts in the target.
    base: u64,
    /// Where in the window that begins which has been handed over neither as a literal nor as a copy.
    literal: usize,
    /// The block that may stand at `literal`, behind the copy of its predecessor.
    next: Option<usize>,
    run: Run,
    last: LastCopy,
    scan: Scan,
    roll: Roll,
    ration: Ration,
}

/// How far the window has been searched for anchors.
#[derive(Clone, Debug)]
struct Scan {
    /// Where that ends.
    end: usize,
    /// Positions before `end` at which an anchor may stand; those before `taken` have been looked up.
    found: Vec<u32>,
    taken: usize,
    /// How many positions are looked at together.
    stride: usize,
    /// No anchor stands from here up to the next of `found`, or to `end`.
    free: usize,
}

/// Where the window of the weak sum is.
#[derive(Clone, Copy, Debug)]
struct Roll {
    at: usize,
    /// The sum of the block at `at`, once it has been computed.
    sum: Option<RollingSum>,
    /// The block at `at` has been looked up.
    looked: bool,
    /// How many windows, of which the last is at `at`, are known not to match.
    vain: usize,
}

impl Roll {
    /// A window at `at` of which nothing is known.
    const fn new(at: usize) -> Self {
        Self { at, sum: None, looked: false, vain: 0 }
    }
}

/// The ration did not allow a lookup.
struct Refused;

/// Where the last copy ended. Nothing copied yet counts as a copy of nothing at the start of both.
#[derive(Clone, Copy, Debug)]
struct LastCopy {
    in_basis: u64,
    in_target: u64,
}

/// Blocks of the basis, one after another, that stand in the window.
#[derive(Clone, Copy, Debug)]
struct Match {
    at: usize,
    block: usize,
    count: usize,
}

/// What came of a lookup.
enum Looked {
    Found(Match),
    Nothing,
    /// More of the target is needed to decide.
    Wait,
}

impl Differ {
    /// A differ against the basis behind `index`; its pieces keep within `limits`.
    pub fn new(index: impl Into<Arc<SignatureIndex>>, limits: &Limits) -> Self {
        let index = index.into();
        let rule = index.signature().rule();
        Self {
            rule,
            pieces: Pieces::new(limits),
            window: Vec::new(),
            base: 0,
            literal: 0,
            next: Some(0),
            run: Run::new(),
            last: LastCopy { in_basis: 0, in_target: 0 },
            scan: Scan { end: 0, found: Vec::new(), taken: 0, stride: *STRIDES.start(), free: 0 },
            roll: Roll::new(0),
            ration: Ration::new(index.signature().block_len(), rule),
            index,
        }
    }

    /// Takes in the next bytes of the target, in time proportional to their number; then
    /// [`next_piece`](Self::next_piece) has what is decided.
    pub fn push(&mut self, target: &[u8]) {
        let mut rest = target;
        loop {
            rest = self.run_on(rest);
            if rest.is_empty() {
                break;
            }
            let (part, after) = rest.split_at(rest.len().min(STEP));
            self.window.extend_from_slice(part);
            self.search(false, &after[..after.len().min(STEP)]);
            self.settle();
            rest = after;
        }
    }

    /// The next complete piece of the delta, `None` when more of the target is needed.
    pub fn next_piece(&mut self) -> Option<DeltaPiece> {
        self.pieces.next()
    }

    /// The pieces that are left and what the delta came to, once the whole target has been pushed.
    ///
    /// `root` is the digest of the target, by the algorithm of the signature: whoever reads the target computes it, on
    /// another thread if there is one, since it costs as much as the search.
    pub fn finish(mut self, root: Digest) -> (Vec<DeltaPiece>, DeltaSummary) {
        self.search(true, &[]);
        let tail = self.index.signature().tail_len();
        let start = self.window.len().saturating_sub(tail);
        if tail >= WORTHWHILE && start >= self.literal && self.is_tail(start) {
            let block = self.index.signature().full_blocks();
            self.take(Match { at: start, block, count: 1 });
        }
        self.pieces.literal(&self.window[self.literal..]);
        self.pieces.close();
        let summary = DeltaSummary { copied: self.pieces.copied_len(), literal: self.pieces.literal_len(), root };
        (core::iter::from_fn(|| self.pieces.next()).collect(), summary)
    }

    /// Copies as many blocks as go on with the last copy, and yields what is left of `target`, which comes behind the
    /// window. Only what completes a block whose begin is in the window comes into it.
    fn run_on<'a>(&mut self, mut target: &'a [u8]) -> &'a [u8] {
        let index = Arc::clone(&self.index);
        let signature = index.signature();
        let block_len = signature.block_len();
        while let Some(block) = self.next.filter(|block| *block < signature.full_blocks()) {
            let held = self.window.len() - self.literal;
            let Some((head, rest)) = target.split_at_checked(block_len - held) else { return target };
            let first = match held {
                0 => head,
                _ => {
                    self.window.extend_from_slice(head);
                    &self.window[self.literal..]
                }
            };
            let most = self.run.blocks(signature, block);
            let blocks: Vec<&[u8]> = core::iter::once(first).chain(rest.chunks_exact(block_len)).take(most).collect();
            let mut ahead = &rest[(blocks.len() - 1) * block_len..];
            let position = self.base + self.literal as u64;
            let count = self.run.equal(signature, position, &blocks, block, &mut ahead);
            if count == 0 {
                return if held == 0 { target } else { rest };
            }
            self.take(Match { at: self.literal, block, count });
            target = &rest[(count - 1) * block_len..];
            // All of the window has been decided.
            self.base += self.literal as u64;
            self.window.clear();
            self.literal = 0;
            self.rescan_from(0);
            self.scan.free = 0;
            self.roll = Roll::new(0);
        }
        target
    }

    /// Decides as much as the bytes at hand allow; when the target has `ended`, those are all. What comes `ahead` of them is
    /// fetched into the cache while digests are computed.
    fn search(&mut self, ended: bool, mut ahead: &[u8]) {
        loop {
            while let Some(block) = self.next {
                match self.follow(block, ended, &mut ahead) {
                    Looked::Found(found) => self.take(found),
                    Looked::Nothing => self.next = None,
                    Looked::Wait => return,
                }
            }
            match self.seek(ended, &mut ahead) {
                Looked::Found(found) => self.take(found),
                Looked::Nothing | Looked::Wait => return,
            }
        }
    }

    /// Looks for `block` and those behind it at the end of the last copy.
    fn follow(&mut self, block: usize, ended: bool, ahead: &mut &[u8]) -> Looked {
        let index = Arc::clone(&self.index);
        let signature = index.signature();
        let at = self.literal;
        let rest = self.window.len() - at;
        if block == signature.full_blocks() {
            return match signature.tail_len() {
                0 => Looked::Nothing,
                tail if rest < tail && !ended => Looked::Wait,
                _ if self.is_tail(at) => Looked::Found(Match { at, block, count: 1 }),
                _ => Looked::Nothing,
            };
        }
        if rest < signature.block_len() {
            return if ended { Looked::Nothing } else { Looked::Wait };
        }
        match self.equal(signature, at, block, ahead) {
            0 => Looked::Nothing,
            count => Looked::Found(Match { at, block, count }),
        }
    }

    /// How many of the blocks from `block` on stand at `at`, one after another, as far as they are compared at once.
    fn equal(&mut self, signature: &Signature, at: usize, block: usize, ahead: &mut &[u8]) -> usize {
        let most = self.run.blocks(signature, block);
        let blocks: Vec<&[u8]> = self.window[at..].chunks_exact(signature.block_len()).take(most).collect();
        self.run.equal(signature, self.base + at as u64, &blocks, block, ahead)
    }

    /// Moves on to the next match.
    fn seek(&mut self, ended: bool, ahead: &mut &[u8]) -> Looked {
        let index = Arc::clone(&self.index);
        let places = self.rule.places();
        // From each position on there are as many bytes as behind the anchor of a block.
        let most = (self.window.len() + places).saturating_sub(index.signature().block_len());
        loop {
            while let Some(at) = self.scan.found.get(self.scan.taken) {
                let at = *at as usize;
                if at >= self.scan.free + places
                    && let Some(found) = self.roll_up_to(&index, at)
                {
                    return Looked::Found(found);
                }
                let key = key(&self.window[at..]);
                if index.anchored.may_hold(key) {
                    match self.look_at_anchor(&index, at, key, ended) {
                        Looked::Found(found) => return Looked::Found(found),
                        Looked::Nothing => {}
                        Looked::Wait => {
                            self.rescan_from(at);
                            self.scan.stride = *STRIDES.start();
                            return Looked::Wait;
                        }
                    }
                }
                self.scan.taken += 1;
                self.scan.free = at + 1;
            }
            if let Some(found) = self.roll_up_to(&index, self.scan.end) {
                return Looked::Found(found);
            }
            let start = self.scan.end;
            self.rescan_from(start);
            if start >= most {
                return Looked::Nothing;
            }
            self.scan.end = most.min(start + self.scan.stride);
            self.scan.stride = (self.scan.stride * 2).min(*STRIDES.end());
            let (next, after) = ahead.split_at(ahead.len().min(self.scan.end - start));
            *ahead = after;
            self.rule.positions(&self.window, start..self.scan.end, next, &mut self.scan.found);
        }
    }

    /// Forgets what has been found from `at` on.
    fn rescan_from(&mut self, at: usize) {
        self.scan.end = at;
        self.scan.found.clear();
        self.scan.taken = 0;
    }

    /// Looks up the blocks whose anchor may stand at `at`.
    fn look_at_anchor(&mut self, index: &SignatureIndex, at: usize, key: u32, ended: bool) -> Looked {
        let signature = index.signature();
        let block_len = signature.block_len();
        let position = self.base + at as u64;
        let len = self.window.len();
        let is_ahead = |start: usize| !ended && start + block_len > len;
        // A block at the shift of the last copy is not rationed: that is one look in the length of a block.
        let aligned = self.aligned(position).filter(|(block, offset)| {
            let anchor = signature.anchor(*block);
            anchor.is_some_and(|anchor| anchor.key == key && anchor.at as usize == *offset)
                && *offset <= at - self.literal
        });
        if let Some((block, offset)) = aligned {
            if is_ahead(at - offset) {
                return Looked::Wait;
            }
            if let Some(count) = self.confirm(signature, at - offset, block) {
                return Looked::Found(Match { at: at - offset, block, count });
            }
        }
        // Asked before the lookup, which is long where many blocks share the key.
        if !self.ration.allows(position) {
            return Looked::Nothing;
        }
        let mut entries = index.anchored.with_key(key);
        // Those that would begin before the end of the last copy.
        let early = entries.partition_point(|entry| place(entry) > at - self.literal);
        entries = &entries[early..];
        if entries.last().is_some_and(|latest| is_ahead(at - place(latest))) {
            return Looked::Wait;
        }
        let searched = entries.len();
        while let Some(first) = entries.first() {
            let offset = place(first);
            let same = equal_range(entries, |entry| offset.cmp(&place(entry)));
            entries = &entries[same.len()..];
            let start = at - offset;
            let Some(bytes) = self.window.get(start..start + block_len) else { break };
            if !self.ration.allows(position) {
                break;
            }
            let weak = weak_sum(bytes);
            let of_weak = of_weak(same, weak);
            let order = |strong: &[u8]| anchored_order(offset as u32, weak, strong);
            if of_weak.is_empty() {
                self.ration.spend_weak(block_len);
            } else if let Some(found) = self.confirm_one(index, start, of_weak, order) {
                return Looked::Found(found);
            } else {
                self.ration.spend_strong(block_len);
            }
            self.ration.spend_search(same.len());
        }
        self.ration.spend_search(searched);
        Looked::Nothing
    }

    /// How many blocks from `block` on stand at `at`, if that one does.
    fn confirm(&mut self, signature: &Signature, at: usize, block: usize) -> Option<usize> {
        Some(self.equal(signature, at, block, &mut &[][..])).filter(|equal| *equal > 0)
    }

    /// The one of `entries`, which have the weak sum of the block at `at`, that is equal to it, and how many of those
    /// behind it are equal, too. With the strong sum of the block it would have this `order` among them.
    fn confirm_one(
        &mut self,
        index: &SignatureIndex,
        at: usize,
        entries: &[Entry],
        order: impl Fn(&[u8]) -> u64,
    ) -> Option<Match> {
        let signature = index.signature();
        let first = entries.first()?.block as usize;
        let most = self.run.blocks(signature, first);
        let blocks: Vec<&[u8]> = self.window[at..].chunks_exact(signature.block_len()).take(most).collect();
        let digest = self.run.first(signature, self.base + at as u64, &blocks, first)?;
        let strong = &digest.as_bytes()[..signature.strong_len()];
        let Some(block) = index.find(entries, order(strong), strong) else {
            self.run.refuse(signature);
            return None;
        };
        let count = self.run.equal_digests(signature, block);
        Some(Match { at, block, count })
    }

    /// The full block that is at `position` of the target if the shift of the last copy still holds, and where in it.
    fn aligned(&self, position: u64) -> Option<(usize, usize)> {
        let signature = self.index.signature();
        let offset = self.last.in_basis.checked_add(position - self.last.in_target)?;
        let block_len = signature.block_len() as u64;
        let block = usize::try_from(offset / block_len).ok()?;
        (block < signature.full_blocks()).then_some((block, (offset % block_len) as usize))
    }

    /// Rolls over the windows that hold no anchor and end before one at `end` could be theirs, on to the next match.
    fn roll_up_to(&mut self, index: &SignatureIndex, end: usize) -> Option<Match> {
        let end = (end + 1).saturating_sub(self.rule.places());
        let start = self.scan.free.max(self.literal);
        if self.roll.at < start {
            self.roll = Roll::new(start);
        }
        if index.rolled.is_empty() {
            return None;
        }
        let block_len = index.signature().block_len();
        while self.roll.at < end {
            let at = self.roll.at;
            let block = &self.window[at..at + block_len];
            let mut sum = self.roll.sum.unwrap_or_else(|| RollingSum::of(block));
            self.roll.sum = Some(sum);
            if !self.roll.looked {
                self.roll.vain = match self.look_at_window(index, at, sum.value()) {
                    Ok(Some(found)) => return Some(found),
                    Ok(None) => 1,
                    Err(Refused) => 0,
                };
                self.roll.looked = true;
            }
            let most = end - at - 1;
            if most == 0 {
                return None;
            }
            let bytes = &self.window[at..at + block_len + most];
            let same = same_windows(&self.window[..at + bytes.len()], at, block_len, self.roll.vain);
            if same > 0 {
                self.roll.at += same;
                self.roll.sum = None;
                continue;
            }
            let mut hits = Vec::new();
            roll_on(&index.rolled, &mut sum, bytes, block_len, &mut hits);
            let mut vain = self.roll.vain + most;
            for (start, weak) in hits {
                match self.look_at_window(index, at + start, weak) {
                    Ok(Some(found)) => return Some(found),
                    Ok(None) => {}
                    Err(Refused) => vain = most - start,
                }
            }
            self.roll = Roll { at: at + most, sum: Some(sum), looked: true, vain };
        }
        None
    }

    /// Looks up the window at `at` among the blocks without an anchor.
    fn look_at_window(&mut self, index: &SignatureIndex, at: usize, weak: u32) -> Result<Option<Match>, Refused> {
        if !index.rolled.may_hold(mix(weak)) {
            return Ok(None);
        }
        let signature = index.signature();
        let position = self.base + at as u64;
        // As with anchors.
        let aligned = self.aligned(position).filter(|(block, offset)| *offset == 0 && signature.weak(*block) == weak);
        if let Some((block, _)) = aligned
            && let Some(count) = self.confirm(signature, at, block)
        {
            return Ok(Some(Match { at, block, count }));
        }
        // Up to here anchors have been looked up, so that positions never go back.
        if !self.ration.allows(position + self.rule.places() as u64 - 1) {
            return Err(Refused);
        }
        let entries = index.rolled.with_key(mix(weak));
        if entries.is_empty() {
            return Ok(None);
        }
        let found = self.confirm_one(index, at, entries, rolled_order);
        if found.is_none() {
            self.ration.spend_search(entries.len());
            self.ration.spend_strong(signature.block_len());
        }
        Ok(found)
    }

    /// True when the shorter last block of the basis stands at `start` in the window.
    fn is_tail(&self, start: usize) -> bool {
        let signature = self.index.signature();
        let Some(bytes) = self.window[start..].get(..signature.tail_len()) else { return false };
        let tail = signature.full_blocks();
        weak_sum(bytes) == signature.weak(tail)
            && signature.algorithm().digest(bytes).as_bytes().starts_with(signature.strong(tail))
    }

    /// Makes copies of what has been found.
    fn take(&mut self, found: Match) {
        let Match { at, block, count } = found;
        self.pieces.literal(&self.window[self.literal..at]);
        let signature = self.index.signature();
        let is_tail = block == signature.full_blocks();
        let len = if is_tail { signature.tail_len() } else { count * signature.block_len() };
        let from = signature.start(block);
        self.pieces.copy(from, ByteLen::new(len as u64));
        self.literal = at + len;
        self.last =
            LastCopy { in_basis: (from + ByteLen::new(len as u64)).get(), in_target: self.base + self.literal as u64 };
        self.next = (!is_tail).then_some(block + count);
        self.rescan_from(self.literal);
        self.scan.free = self.literal;
        self.scan.stride = *STRIDES.start();
        self.roll = Roll::new(self.literal);
    }

    /// Hands over the literals that no block can claim any more and, once half of the window is decided, drops that half.
    fn settle(&mut self) {
        let decided = self.scan.end.saturating_sub(self.rule.places()).max(self.literal);
        self.pieces.literal(&self.window[self.literal..decided]);
        self.literal = decided;
        if decided > self.window.len() / 2 {
            // Behind a window that rolls stay the bytes that tell whether it repeats itself, in any split.
            let rolls = self.roll.at >= decided;
            let dropped = if rolls { decided.min(self.roll.at.saturating_sub(PERIOD)) } else { decided };
            self.window.drain(..dropped);
            self.base += dropped as u64;
            self.literal -= dropped;
            self.scan.end -= dropped;
            self.scan.free = self.scan.free.saturating_sub(dropped);
            self.roll = match self.roll.at.checked_sub(dropped) {
                Some(at) => Roll { at, ..self.roll },
                // It stood before a gap that has been left.
                None => Roll::new(0),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::anchor::Anchor;
    use crate::signature::Shape;
    use crate::{Algorithm, Op, Ops, Signature, reference};

    fn index_of(basis: &[u8], block_len: usize) -> Arc<SignatureIndex> {
        let builder = Signature::builder(ByteLen::of(basis)).block_len(block_len);
        let mut signer = builder.build(&Limits::default()).expect("in range");
        signer.push(basis);
        Arc::new(SignatureIndex::new(signer.finish().expect("as long as announced")))
    }

    fn diff(index: &Arc<SignatureIndex>, target: &[u8], split: usize, limits: &Limits) -> Vec<DeltaPiece> {
        let mut differ = Differ::new(Arc::clone(index), limits);
        let mut pieces = Vec::new();
        for part in target.chunks(split) {
            differ.push(part);
            pieces.extend(core::iter::from_fn(|| differ.next_piece()));
        }
        let (last, summary) = differ.finish(Algorithm::Blake3.digest(target));
        pieces.extend(last);
        let ops = joined(&pieces);
        assert_eq!((summary.literal, summary.copied), (ops.literal_len(), ops.copied_len()));
        assert_eq!(summary.root, Algorithm::Blake3.digest(target));
        pieces
    }

    fn joined(pieces: &[DeltaPiece]) -> Ops {
        pieces.iter().flat_map(|piece| piece.ops.as_slice().iter().copied()).collect()
    }

    /// The laws, with and without anchors.
    fn check_diff(basis: &[u8], target: &[u8], block_len: usize, split: usize) -> Ops {
        let index = index_of(basis, block_len);
        let rolling = Signature { anchors: None, ..index.signature().clone() };
        check_index(&Arc::new(SignatureIndex::new(rolling)), basis, target, split, |rolled, naive| {
            assert_eq!(rolled.literal_len(), naive.literal_len(), "literal bytes of a basis of {}", basis.len());
        });
        check_index(&index, basis, target, split, |_, _| {})
    }

    /// The laws: the delta makes the target, any split makes the same pieces, and no literal holds a whole block. Where two
    /// blocks overlap in the target, which of them becomes a copy depends on where their anchors stand, so that there may be
    /// some more or fewer literals than a matcher makes that takes the first.
    fn check_index(
        index: &Arc<SignatureIndex>,
        basis: &[u8],
        target: &[u8],
        split: usize,
        check: impl Fn(&Ops, &Ops),
    ) -> Ops {
        let limits = Limits::default().piece(4096).ops(64);
        let pieces = diff(index, target, usize::MAX, &limits);
        assert_eq!(diff(index, target, split, &limits), pieces, "split every {split}");
        let literals: Vec<u8> = pieces.iter().flat_map(|piece| piece.literals.iter().copied()).collect();
        let ops = joined(&pieces);
        assert_eq!(reference::patch(basis, &ops, &literals), target);
        let block_len = index.signature().block_len();
        let mut blocks: Vec<&[u8]> = basis.chunks_exact(block_len).collect();
        blocks.sort_unstable();
        let mut rest = &literals[..];
        for op in ops.as_slice() {
            if let Op::Literal { len } = op {
                let (literal, after) = rest.split_at(len.get() as usize);
                let missed = literal.windows(block_len).position(|window| blocks.binary_search(&window).is_ok());
                assert_eq!(missed, None, "a block of {block_len} within a literal");
                rest = after;
            }
        }
        check(&ops, &reference::diff(basis, target, block_len));
        ops
    }

    fn random(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(step).collect()
    }

    fn text(len: usize) -> Vec<u8> {
        let words: [&[u8]; 8] = [b"the ", b"basis ", b"and ", b"target ", b"of ", b"a ", b"sync\n", b"are "];
        let picks = random(len, 11);
        picks.iter().flat_map(|pick| words[usize::from(pick % 8)]).copied().take(len).collect()
    }

    #[test]
    fn an_identical_target_is_one_copy() {
        for len in [1, 63, 64, 65, 20_000] {
            let basis = random(len, 1);
            let ops = check_diff(&basis, &basis, 64, 7);
            assert_eq!(ops.as_slice(), [Op::Copy { from: crate::Offset::ZERO, len: ByteLen::of(&basis) }], "{len}");
        }
        assert!(check_diff(&[], &[], 64, 7).is_empty());
    }

    #[test]
    fn lengths_around_a_block() {
        let data = random(300, 2);
        for basis in [0, 1, 63, 64, 65, 127, 128, 129] {
            for target in [0, 1, 63, 64, 65, 127, 128, 129] {
                check_diff(&data[..basis], &data[..target], 64, 1);
                check_diff(&data[..basis], &data[5..5 + target], 64, 13);
                check_diff(&data[100..100 + basis], &data[..target], 64, 64);
            }
        }
    }

    #[test]
    fn one_byte_changed_costs_one_block() {
        let basis = random(20_000, 3);
        let mut target = basis.clone();
        target[9_999] ^= 1;
        assert_eq!(check_diff(&basis, &target, 128, 1000).literal_len().get(), 128);
    }

    #[test]
    fn an_insertion_at_the_front_costs_what_was_inserted() {
        let basis = random(20_000, 4);
        let target = [b"new", &basis[..]].concat();
        let ops = check_diff(&basis, &target, 128, 777);
        assert_eq!((ops.literal_len().get(), ops.len()), (3, 2));
    }

    #[test]
    fn moved_regions_are_found_where_they_went() {
        let basis = random(30_000, 5);
        let target = [&basis[20_000..], &basis[5_000..9_000], &basis[..7_000]].concat();
        let ops = check_diff(&basis, &target, 128, 4096);
        assert!(ops.literal_len().get() < 128 * 6, "{}", ops.literal_len());
    }

    #[test]
    fn unrelated_data_is_all_literal() {
        let ops = check_diff(&random(20_000, 6), &random(20_000, 7), 128, 100);
        assert_eq!(ops.literal_len().get(), 20_000);
    }

    #[test]
    fn zeros_of_any_length_are_copies() {
        for (basis, target) in [(10_000, 10_000), (10_000, 30_001), (128, 5000), (130, 5000), (20_000, 77)] {
            let ops = check_diff(&vec![0; basis], &vec![0; target], 128, 999);
            assert!(ops.literal_len().get() < 128, "{basis} to {target}: {}", ops.literal_len());
        }
    }

    #[test]
    fn edits_within_text() {
        let basis = text(30_000);
        let mut target = basis.clone();
        target.splice(10_000..10_010, *b"something else");
        target.drain(20_000..20_100);
        target.splice(25_000..25_000, random(50, 8));
        let ops = check_diff(&basis, &target, 64, 555);
        assert!(ops.literal_len().get() < 600, "{}", ops.literal_len());
    }

    #[test]
    fn a_block_that_repeats_itself_is_found_behind_a_byte_that_does_not() {
        let basis = b"abcd{fg".repeat(100);
        for edited in [0, 1, 40, 49, 100] {
            let mut target = basis[4..].to_vec();
            target[edited] = b'-';
            for split in [1, 6, 128, 1000] {
                let ops = check_diff(&basis, &target, 518, split);
                assert!(ops.copied_len().get() >= 518, "edited at {edited}, split every {split}: {ops:?}");
            }
        }
    }

    #[test]
    fn of_equal_blocks_the_one_that_keeps_the_shift_is_taken() {
        let block = random(64, 9);
        let basis = block.repeat(100);
        let mut target = basis.clone();
        target[64 * 50] ^= 1;
        let ops = check_diff(&basis, &target, 64, 100);
        assert_eq!(ops.len(), 3, "copy, literal, copy at the same shift: {ops:?}");
    }

    /// Blocks of equal weak sums: a Thue-Morse word or its complement in each of `bits`, between random bytes.
    fn collide(bits: &[u8], seed: u64) -> Vec<u8> {
        let block = |bit: u8| (0..1024u32).map(move |i| (i.count_ones() as u8 & 1) ^ bit);
        let mut data: Vec<u8> = bits.iter().copied().flat_map(block).collect();
        data.extend(random(100, seed));
        data
    }

    #[test]
    fn different_blocks_of_equal_weak_sums_are_told_apart() {
        let basis = collide(&[0, 1, 1, 0, 1], 1);
        check_diff(&basis, &collide(&[1, 0, 0, 1, 1, 1, 0], 2), 1024, 1000);
    }

    #[test]
    fn a_target_of_nothing_but_vain_candidates_makes_the_same_pieces_in_any_split() {
        // Every window at a multiple of 128 has the weak sum of every block, and few are a block.
        let word = |k: u8| (0..4096u32).map(move |i| if i.count_ones() & 1 == 0 { 100 - k } else { 100 + k });
        let basis: Vec<u8> = (1..=20).flat_map(word).collect();
        let signature = Signature { anchors: None, ..index_of(&basis, 4096).signature().clone() };
        let index = Arc::new(SignatureIndex::new(signature));
        assert_eq!(index.rolled.with_key(mix(weak_sum(&[100; 4096]))).len(), 20);
        // Once the burst is used up, which of these blocks are found depends on what was spent before each.
        let mut target = Vec::new();
        for i in 0..100 {
            let vain = (0..4).flat_map(|j| word(21 + (i + j) % 70));
            target.extend(vain.take(2 * 4096 + usize::from(i) * 13 % 60 * 128));
            target.extend(word(1 + i % 20));
        }
        let whole = diff(&index, &target, usize::MAX, &Limits::default());
        let copied = joined(&whole).copied_len().get() / 4096;
        assert!((10..90).contains(&copied), "{copied} of 100 blocks found");
        for split in [1, 50, 4096, 99_999] {
            assert_eq!(diff(&index, &target, split, &Limits::default()), whole, "split every {split}");
        }
    }

    /// Of the bytes of `target` at most `most` times as many are hashed, beside the first million, for a signature of
    /// `blocks` blocks of 256 bytes that says of each what `block` does, and lies about its strong sum, but for the first.
    fn check_a_lie_is_bounded(
        target: &[u8],
        blocks: usize,
        most: usize,
        block: impl Fn(usize) -> (u32, Option<Anchor>),
    ) {
        let first = index_of(&target[..256], 256);
        let (weak, anchors): (Vec<u32>, Vec<Option<Anchor>>) = (0..blocks).map(block).unzip();
        let mut strong = random(blocks * 8, 13);
        strong[..8].copy_from_slice(&first.signature().strong(0)[..8]);
        let any = anchors.iter().any(Option::is_some);
        let shape = Shape { basis: ByteLen::new(blocks as u64 * 256), strong_len: 8, ..first.signature().shape };
        let signature = Signature { shape, weak, strong, anchors: any.then_some(anchors) };
        let mut differ = Differ::new(SignatureIndex::new(signature), &Limits::default());
        for part in target.chunks(100_000) {
            differ.push(part);
            while differ.next_piece().is_some() {}
        }
        let bound = target.len() * most + (1 << 20) + (64 << 10);
        assert!(differ.run.hashed <= bound, "{} hashed of {}, {blocks} blocks", differ.run.hashed, target.len());
        assert!(differ.run.hashed > 64 << 10, "some are looked at");
    }

    #[test]
    fn lies_under_one_weak_sum_cost_a_bounded_number_of_digests() {
        let word = |k: u8| (0..128u32).map(move |i| if i.count_ones() & 1 == 0 { 100 - k } else { 100 + k });
        let target: Vec<u8> = random(1 << 15, 12).iter().flat_map(|k| word(k % 100)).collect();
        let weak = weak_sum(&target[..256]);
        check_a_lie_is_bounded(&target, 100_000, 8, |_| (weak, None));
        // The last one makes a signature with anchors of it: all but that one roll all the same.
        let last = Anchor { at: 0, key: 1 };
        check_a_lie_is_bounded(&target, 100_000, 2, |i| (weak, (i == 99_999).then_some(last)));
    }

    #[test]
    fn lies_under_true_anchors_cost_a_bounded_number_of_digests() {
        let part = random(256 << 10, 15);
        let target = part.repeat(16);
        let (rule, mut places) = (AnchorRule::new(256), Vec::new());
        rule.positions(&part, 256..part.len() - 256, &[], &mut places);
        // Under one key at all places of it, then under many, then where a copy of the first block would go on.
        let lie = |place: usize, at: usize| {
            let anchor = Anchor { at: at as u32, key: key(&part[place..]) };
            (weak_sum(&part[place - at..][..256]), Some(anchor))
        };
        check_a_lie_is_bounded(&target, 100_000, 2, |i| lie(places[i % 8] as usize, i % 225));
        check_a_lie_is_bounded(&target, 100_000, 2, |i| lie(places[i % places.len()] as usize, i / places.len() % 225));
        let there = |block: usize| &target[block * 256..][..256];
        check_a_lie_is_bounded(&target, 16 << 10, 2, |i| (weak_sum(there(i)), rule.of(there(i))));
    }

    #[test]
    fn a_window_keeps_no_more_than_two_blocks_and_a_step() {
        let basis = random(100_000, 10);
        let mut differ = Differ::new(index_of(&basis, 4096), &Limits::default());
        for part in random(3_000_000, 11).chunks(1_000_000) {
            differ.push(part);
            assert!(differ.window.len() <= 2 * 4096, "{}", differ.window.len());
            assert!(differ.window.capacity() <= 4 * STEP, "{}", differ.window.capacity());
            while differ.next_piece().is_some() {}
        }
    }

    proptest! {
        #[test]
        fn edited_targets(
            (basis, target) in edited(),
            block_len in prop_oneof![16usize..64, 64usize..300],
            split in 1usize..500,
        ) {
            check_diff(&basis, &target, block_len, split);
        }
    }

    /// A basis over an alphabet of 2 to 256 letters, and a target of some ranges of it between some new bytes.
    fn edited() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let part = (any::<prop::sample::Index>(), 0usize..600, vec(any::<u8>(), 0..40));
        (0u32..8, vec(any::<u8>(), 1..2000), vec(part, 0..8)).prop_map(|(shift, mut basis, parts)| {
            basis.iter_mut().for_each(|byte| *byte >>= shift);
            let mut target = Vec::new();
            for (start, len, new) in parts {
                let start = start.index(basis.len());
                target.extend_from_slice(&basis[start..(start + len).min(basis.len())]);
                target.extend(new);
            }
            (basis, target)
        })
    }
}
