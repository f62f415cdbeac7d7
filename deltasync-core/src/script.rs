//! What is known of a target before its bytes are read: which of it the basis has, chunk by chunk, and which gaps are
//! left to be searched.
//!
//! A script comes from a receiver's [`Survey`], or from the chunk lists of both files where they are at hand. Its copies
//! are whole chunks; a gap is what lies between, with the *old stretch* that stands at the same place of the basis: the
//! one that starts where the copy before the gap ends, or ends where the copy behind it starts. Chunks that the basis
//! lacks at that place are looked for by digest among those that it has elsewhere: repeated ones need not be sent.
//!
//! Searching the gaps gives operations for each; [`Script::ops`] puts everything together.
//!
//! Invariant: the parts make the target exactly and in order, and copies lie within the basis.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::{
    Alignment, ByteLen, ChunkList, ChunkRun, Digest, Offset, OldContent, OldStretch, Op, Ops, Pairing, Segment, Shared,
    Survey, Tag, TagKey, tag_runs,
};

/// The parts of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    parts: Vec<Part>,
    stretches: Vec<OldStretch>,
}

/// A part of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Chunks that the basis has.
    Copy {
        /// Where in the basis.
        from: Offset,
        /// How many bytes.
        len: ByteLen,
    },
    /// What is to be searched.
    Gap(Gap),
}

/// A range of the target of which only the neighbours are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where in the target.
    pub at: Offset,
    /// How many bytes.
    pub len: ByteLen,
    /// What stands there in the basis.
    pub pair: Option<Pairing>,
}

/// So many copies may be spent on repeating runs that are shorter in the basis.
const REUSES: u64 = 4096;

/// Where the basis has something, repeated.
#[derive(Clone, Copy)]
struct Place {
    from: Offset,
    count: u32,
}

impl Script {
    /// The script for a receiver whose basis is as its survey says; `order` are the shared runs of our list in the order
    /// of the basis. `None` when survey and list do not make up a basis of the length it says: tags have collided, or
    /// the survey is false.
    ///
    /// # Security
    ///
    /// The survey may be hostile: all sums are checked, work is O(n log n) in its length and that of the list.
    pub fn of_survey(list: &ChunkList, shared: &Shared, order: &[u32], survey: &Survey, key: &TagKey) -> Option<Self> {
        let runs = list.runs();
        let mut from: Vec<Option<Offset>> = vec![None; runs.len()];
        let mut stretches = Vec::new();
        let mut repeated: BTreeMap<Tag, (Place, u32)> = BTreeMap::new();
        let mut pieces = survey.pieces.iter().peekable();
        let mut at = Offset::ZERO;
        for place in 0..=order.len() {
            while let Some(piece) = pieces.next_if(|piece| piece.before as usize == place) {
                match piece.content {
                    OldContent::Bytes(_) => {}
                    OldContent::Summed(len) => stretches.push(OldStretch { from: at, len }),
                    OldContent::Run { tag, len, count } => {
                        repeated.entry(tag).or_insert((Place { from: at, count }, len));
                    }
                }
                at = at.checked_add(piece.content.len())?;
            }
            if let Some(run) = order.get(place) {
                from[*run as usize] = Some(at);
                at = at.checked_add(runs[*run as usize].bytes())?;
            }
        }
        if at.to_len() != survey.basis || pieces.next().is_some() {
            return None;
        }
        let of_digest = places_of_missing(list, shared, &from);
        let place = |run: &ChunkRun| {
            of_digest.get(&run.digest).copied().or_else(|| {
                let (place, len) = *repeated.get(&key.tag(&run.digest))?;
                (len == run.len).then_some(place)
            })
        };
        let mut script = Self { parts: Vec::new(), stretches };
        let (mut start, mut reuses) = (Offset::ZERO, REUSES);
        for (run, from) in runs.iter().zip(&from) {
            match (from, place(run)) {
                (Some(from), _) => script.copy(*from, run.bytes()),
                (None, Some(place)) => script.repeat(run, place, start, &mut reuses),
                (None, None) => script.gap(start, run.bytes()),
            }
            start += run.bytes();
        }
        script.pair_gaps(survey.basis);
        Some(script)
    }

    /// The script for a basis whose chunk list is at hand, cut and digested like the target's. Its stretches are all that
    /// the copies leave of the basis.
    pub fn between(basis: &ChunkList, target: &ChunkList) -> Self {
        // Nobody else sees these tags.
        let key = TagKey::new(&[0; 16], 0);
        let alignment = Alignment::of(&tag_runs(basis, &key), &tag_runs(target, &key));
        let mut script = Self { parts: Vec::new(), stretches: Vec::new() };
        let mut covered = Vec::new();
        for segment in alignment.segments() {
            match segment {
                Segment::Common { basis: from, target: at, count } => {
                    let from = basis.offset_of(*from);
                    let len = target.offset_of(at + count) - target.offset_of(*at);
                    // Where tags collide lengths may differ: the copy must stay within the basis.
                    if from.checked_add(len).is_some_and(|end| end.to_len() <= basis.len()) {
                        covered.push(from..from + len);
                        script.copy(from, len);
                    } else {
                        script.gap(target.offset_of(*at), len);
                    }
                }
                Segment::Gap { target: chunks, .. } => {
                    let start = target.offset_of(chunks.start);
                    script.gap(start, target.offset_of(chunks.end) - start);
                }
            }
        }
        covered.sort_unstable_by_key(|range| range.start);
        let mut at = Offset::ZERO;
        let end = Offset::new(basis.len().get());
        for range in covered.into_iter().chain([end..end]) {
            if range.start > at {
                script.stretches.push(OldStretch { from: at, len: range.start - at });
            }
            at = at.max(range.end);
        }
        script.pair_gaps(basis.len());
        script
    }

    /// The same with all stretches widened to whole blocks of `block` bytes of a basis of `basis` bytes, and gaps by what
    /// that takes from their neighbours: for sums of blocks that were counted from the start of the file.
    #[must_use]
    pub fn widened(mut self, block: u64, basis: ByteLen) -> Self {
        let mut before = Vec::with_capacity(self.stretches.len());
        for stretch in &mut self.stretches {
            let end = stretch.from + stretch.len;
            let start = Offset::new(stretch.from.get() / block * block);
            let end_of_block = Offset::new(end.get().next_multiple_of(block).min(basis.get()));
            before.push((stretch.from - start, end_of_block - end));
            *stretch = OldStretch { from: start, len: end_of_block - start };
        }
        for i in 0..self.parts.len() {
            let Part::Gap(Gap { pair: Some(pair), .. }) = self.parts[i] else { continue };
            let (left, right) = before[pair.stretch];
            if pair.left && left > ByteLen::ZERO && !self.move_border(i, left) {
                self.unpair(i, true);
            }
            if pair.right && right > ByteLen::ZERO && !self.move_end(i, right) {
                self.unpair(i, false);
            }
        }
        self
    }

    /// The parts in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The gaps in order.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> + Clone + '_ {
        self.parts.iter().filter_map(|part| if let Part::Gap(gap) = part { Some(*gap) } else { None })
    }

    /// The stretches of the basis that the sums or bytes at hand are of; [`Pairing`]s name them by index.
    pub fn stretches(&self) -> &[OldStretch] {
        &self.stretches
    }

    /// The operations that make the target, given those that make each gap.
    ///
    /// # Panics
    ///
    /// When there are fewer than gaps.
    pub fn ops(&self, found: impl IntoIterator<Item = Ops>) -> Ops {
        let mut found = found.into_iter();
        let mut ops = Ops::new();
        for part in &self.parts {
            match *part {
                Part::Copy { from, len } => ops.push(Op::Copy { from, len }),
                Part::Gap(gap) => {
                    let inner = found.next().expect("operations for each gap");
                    debug_assert_eq!(inner.literal_len() + inner.copied_len(), gap.len);
                    inner.as_slice().iter().for_each(|op| ops.push(*op));
                }
            }
        }
        ops
    }

    fn copy(&mut self, from: Offset, len: ByteLen) {
        match self.parts.last_mut() {
            Some(Part::Copy { from: last, len: so_far }) if last.checked_add(*so_far) == Some(from) => *so_far += len,
            _ => self.parts.push(Part::Copy { from, len }),
        }
    }

    fn gap(&mut self, at: Offset, len: ByteLen) {
        match self.parts.last_mut() {
            Some(Part::Gap(gap)) => gap.len += len,
            _ => self.parts.push(Part::Gap(Gap { at, len, pair: None })),
        }
    }

    /// A run that the basis has elsewhere, perhaps fewer times.
    fn repeat(&mut self, run: &ChunkRun, place: Place, at: Offset, reuses: &mut u64) {
        let bytes = |count: u32| ByteLen::new(u64::from(count) * u64::from(run.len));
        let mut rest = run.count;
        while rest > 0 && *reuses > 0 {
            let count = rest.min(place.count);
            self.copy(place.from, bytes(count));
            rest -= count;
            *reuses -= 1;
        }
        if rest > 0 {
            self.gap(at + bytes(run.count - rest), bytes(rest));
        }
    }

    fn pair_gaps(&mut self, basis: ByteLen) {
        let starts: BTreeMap<Offset, usize> = self.stretches.iter().map(|stretch| stretch.from).zip(0..).collect();
        let ends = self.stretches.iter().map(|stretch| stretch.from + stretch.len);
        let ends: BTreeMap<Offset, usize> = ends.zip(0..).collect();
        for i in 0..self.parts.len() {
            let left = match i.checked_sub(1).map(|i| self.parts[i]) {
                None => starts.get(&Offset::ZERO),
                Some(Part::Copy { from, len }) => starts.get(&(from + len)),
                Some(Part::Gap(_)) => None,
            };
            let right = match self.parts.get(i + 1) {
                None => ends.get(&Offset::new(basis.get())),
                Some(Part::Copy { from, .. }) => ends.get(from),
                Some(Part::Gap(_)) => None,
            };
            if let Part::Gap(gap) = &mut self.parts[i] {
                gap.pair = left.or(right).map(|stretch| Pairing {
                    stretch: *stretch,
                    left: left == Some(stretch),
                    right: right == Some(stretch),
                });
            }
        }
    }

    /// Lets gap `i` begin `by` bytes earlier; false when what stands before cannot give them.
    fn move_border(&mut self, i: usize, by: ByteLen) -> bool {
        let Some(Part::Copy { len, .. }) = i.checked_sub(1).map(|i| &mut self.parts[i]) else { return false };
        if *len <= by {
            return false;
        }
        *len = *len - by;
        if let Part::Gap(gap) = &mut self.parts[i] {
            gap.at = Offset::new(gap.at.get() - by.get());
            gap.len += by;
        }
        true
    }

    /// Lets gap `i` end `by` bytes later; false when what stands behind cannot give them.
    fn move_end(&mut self, i: usize, by: ByteLen) -> bool {
        let Some(Part::Copy { from, len }) = self.parts.get_mut(i + 1) else { return false };
        if *len <= by {
            return false;
        }
        *from += by;
        *len = *len - by;
        if let Part::Gap(gap) = &mut self.parts[i] {
            gap.len += by;
        }
        true
    }

    fn unpair(&mut self, i: usize, left: bool) {
        if let Part::Gap(Gap { pair: Some(pair), .. }) = &mut self.parts[i] {
            *(if left { &mut pair.left } else { &mut pair.right }) = false;
        }
    }
}

/// Where the basis has chunks that are missing at their place: those that are shared at another.
fn places_of_missing(list: &ChunkList, shared: &Shared, from: &[Option<Offset>]) -> BTreeMap<Digest, Place> {
    let runs = list.runs();
    let missing = runs.iter().zip(from).filter(|(_, from)| from.is_none());
    let mut wanted: Vec<Digest> = missing.map(|(run, _)| run.digest).collect();
    wanted.sort_unstable();
    let mut places: BTreeMap<Digest, Place> = BTreeMap::new();
    for run in shared.runs() {
        let ChunkRun { digest, count, .. } = runs[*run as usize];
        if wanted.binary_search(&digest).is_ok()
            && let Some(from) = from[*run as usize]
            && places.get(&digest).is_none_or(|place| place.count < count)
        {
            places.insert(digest, Place { from, count });
        }
    }
    places
}

/// The chunks beside the old gaps of a basis, in its order, as ranges of the file whose list this is: what both ends have
/// for certain and literals may resemble. At most `most` bytes.
///
/// `order` are the shared runs of the list in the order of the basis, `places` the numbers of shared elements before each
/// old gap, ascending.
pub fn neighbours(
    list: &ChunkList,
    order: &[u32],
    places: impl IntoIterator<Item = u32>,
    most: ByteLen,
) -> Vec<(Offset, ByteLen)> {
    let mut starts = Vec::with_capacity(list.runs().len());
    let mut at = Offset::ZERO;
    for run in list.runs() {
        starts.push(at);
        at += run.bytes();
    }
    let mut ranges: Vec<(Offset, ByteLen)> = Vec::new();
    let (mut room, mut next) = (most, 0);
    let mut last = None;
    for place in places {
        if last.replace(place) == Some(place) {
            continue;
        }
        let place = place as usize;
        let first = place.saturating_sub(1).max(next);
        for run in order.iter().take(place + 1).skip(first).map(|run| *run as usize) {
            let len = ByteLen::new(list.runs()[run].len.into());
            let Some(left) = room.checked_sub(len) else { return ranges };
            room = left;
            match ranges.last_mut() {
                Some((start, so_far)) if *start + *so_far == starts[run] => *so_far += len,
                _ => ranges.push((starts[run], len)),
            }
        }
        next = next.max(order.len().min(place + 1));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cut::tests::{SMALL, random};
    use crate::{Algorithm, Differences, Elements, FineShape, old_pieces};

    fn key() -> TagKey {
        TagKey::new(&[1; 16], 1)
    }

    fn list(bytes: &[u8]) -> ChunkList {
        ChunkList::of(bytes, SMALL, Algorithm::Blake3)
    }

    /// A range of bytes, checked to lie within them.
    fn slice(bytes: &[u8], from: Offset, len: ByteLen) -> &[u8] {
        &bytes[from.get() as usize..][..len.get() as usize]
    }

    /// Copies are of equal bytes, parts follow each other to the end, and what pairs say of neighbours is so.
    fn check_parts(script: &Script, basis: &[u8], target: &[u8]) {
        let mut at = 0;
        for (i, part) in script.parts().iter().enumerate() {
            match *part {
                Part::Copy { from, len } => {
                    assert_eq!(slice(basis, from, len), &target[at..][..len.get() as usize], "copy at {at}");
                    at += len.get() as usize;
                }
                Part::Gap(gap) => {
                    assert_eq!(gap.at.get() as usize, at);
                    at += gap.len.get() as usize;
                    let Some(pair) = gap.pair else { continue };
                    let stretch = script.stretches()[pair.stretch];
                    let before = i.checked_sub(1).map(|i| script.parts()[i]);
                    match before {
                        Some(Part::Copy { from, len }) if pair.left => assert_eq!(from + len, stretch.from),
                        _ => assert!(!pair.left || stretch.from == Offset::ZERO),
                    }
                    match script.parts().get(i + 1) {
                        Some(Part::Copy { from, .. }) if pair.right => assert_eq!(stretch.from + stretch.len, *from),
                        _ => assert!(!pair.right || (stretch.from + stretch.len).get() == basis.len() as u64),
                    }
                }
            }
        }
        assert_eq!(at, target.len());
    }

    /// The script of a survey, as both ends make it; checked, and its neighbours too. Returns the bytes of its gaps.
    fn check_survey(basis: &[u8], target: &[u8]) -> u64 {
        let (ours, theirs) = (list(basis), list(target));
        let (receiver, sender) = (Elements::of(&ours, &key()), Elements::of(&theirs, &key()));
        let differences = Differences::of_sorted(receiver.tags(), sender.tags());
        let shared = Shared::all_but(&receiver, differences.ours());
        let missing = shared.ranks_of(differences.theirs());
        let pieces = old_pieces(&ours, &shared, &key(), missing.len() as u64);
        let places = || pieces.iter().map(|(piece, _)| piece.before);
        let survey = Survey {
            basis: ours.len(),
            order: shared.order(&receiver, &key()),
            missing,
            pieces: pieces.iter().map(|(piece, _)| *piece).collect(),
            shape: Some(FineShape::KEPT),
            sums: Vec::new(),
            edges: None,
        };
        let at_sender = Shared::all_but_ranks(&sender, &survey.missing);
        let edges =
            Differences::of_sorted(shared.edges(&receiver, &key()).0.tags(), at_sender.edges(&sender, &key()).0.tags());
        let order = at_sender.walk(&shared.breaks(&receiver, &key(), edges.ours())).expect("an honest order");
        let script = Script::of_survey(&theirs, &at_sender, &order, &survey, &key()).expect("an honest survey");
        check_parts(&script, basis, target);
        for most in [ByteLen::ZERO, ByteLen::new(3000), ByteLen::new(u64::MAX)] {
            let bytes = |file: &[u8], ranges: Vec<(Offset, ByteLen)>| {
                ranges.into_iter().flat_map(|(from, len)| slice(file, from, len).to_vec()).collect::<Vec<u8>>()
            };
            let of_basis = bytes(basis, neighbours(&ours, shared.runs(), places(), most));
            let of_target = bytes(target, neighbours(&theirs, &order, places(), most));
            assert_eq!(of_basis, of_target, "both ends have the same beside the gaps");
            assert!(of_basis.len() as u64 <= most.get());
        }
        let short = Survey { basis: ByteLen::new(ours.len().get() + 1), ..survey };
        assert_eq!(Script::of_survey(&theirs, &at_sender, &order, &short, &key()), None, "another length");
        script.gaps().map(|gap| gap.len.get()).sum()
    }

    fn check_between(basis: &[u8], target: &[u8]) {
        let script = Script::between(&list(basis), &list(target));
        check_parts(&script, basis, target);
        let covered = script.parts().iter().filter(|part| matches!(part, Part::Copy { .. })).count();
        assert!(covered > 0 || script.stretches().len() <= 1);
        for block in [1, 96, 1000] {
            let widened = script.clone().widened(block, ByteLen::of(basis));
            for stretch in widened.stretches() {
                let end = stretch.from + stretch.len;
                assert!(stretch.from.get() % block == 0 && (end.get() % block == 0 || end.get() == basis.len() as u64));
            }
            let mut at = 0;
            for part in widened.parts() {
                if let Part::Gap(Gap { len, pair: Some(pair), .. }) = part {
                    let stretch = widened.stretches()[pair.stretch];
                    let aligned = |from: Offset, at: u64| {
                        let same = ByteLen::new(block.min(stretch.len.get()).min(len.get()).min(16));
                        (slice(basis, from, same).to_vec(), slice(target, Offset::new(at), same).to_vec())
                    };
                    // What a gap was widened by is what its neighbour in the basis has.
                    if pair.left && script.stretches()[pair.stretch].from != stretch.from {
                        let (old, new) = aligned(stretch.from, at);
                        assert_eq!(old[0], new[0]);
                    }
                }
                at += match part {
                    Part::Copy { len, .. } => len.get(),
                    Part::Gap(gap) => gap.len.get(),
                };
            }
            assert_eq!(at, target.len() as u64);
        }
    }

    fn check(basis: &[u8], target: &[u8]) -> u64 {
        check_between(basis, target);
        check_survey(basis, target)
    }

    #[test]
    fn gaps_are_what_edits_touch() {
        let basis = random(1, 60_000);
        let mut target = basis.clone();
        target[30_000] ^= 1;
        assert!(check(&basis, &target) <= 3 * SMALL.max_len() as u64);
        assert_eq!(check(&basis, &basis), 0);
        assert_eq!(check(&[], &basis), 60_000);
        assert_eq!(check(&basis, &[]), 0);
        let swapped = [&basis[30_000..], &basis[..30_000]].concat();
        assert!(check(&basis, &swapped) <= 4 * SMALL.max_len() as u64);
    }

    #[test]
    fn repeated_chunks_are_copied_from_wherever_the_basis_has_them() {
        let zeros = vec![0; 100 * SMALL.min_len()];
        let basis = [random(1, 9000), zeros.clone(), random(2, 9000)].concat();
        let mut edited = basis.clone();
        edited[9000 + 50 * SMALL.min_len()] = 1;
        assert!(check_survey(&basis, &edited) <= 4 * SMALL.max_len() as u64, "a run with an edit in it");
        let longer = [&basis[..], &zeros, &zeros, &random(3, 500)].concat();
        assert!(
            check_survey(&basis, &longer) <= 500 + 4 * SMALL.max_len() as u64,
            "a run that is elsewhere, and longer"
        );
    }

    proptest! {
        #[test]
        fn any_edits_make_the_target(
            seed in 0u64..1000,
            edits in proptest::collection::vec((0usize..20_000, 0usize..600, 0usize..600), 0..6),
            moved: bool,
        ) {
            let basis = random(seed, 20_000);
            let mut target = basis.clone();
            for (at, gone, new) in edits {
                let at = at.min(target.len());
                let end = target.len().min(at + gone);
                target.splice(at..end, random(seed + 1, new));
            }
            if moved {
                let half = target.len() / 2;
                target.rotate_left(half);
            }
            check(&basis, &target);
        }
    }
}
