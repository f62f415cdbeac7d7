//! Which chunks of a target the basis has, and which old bytes stand where the others are wanted.
//!
//! The target is walked once. A chunk continues the last match where it can, whatever was inserted before it; else its
//! tag is looked up in the sorted tags of the basis, so that moved runs are found wherever they went. A chunk that the
//! basis has several times takes the place before its right neighbour's, or the next one after the last match.
//! Runs are matched whole: a run longer than any of the basis reuses the longest. What lies between matches is a gap.
//! It is paired with the runs of the basis around the same place whose tags the target has not at all.
//!
//! Invariant: the segments cover the target exactly and in order, and a common segment pairs equal tags. Work is
//! O(n log n) in the number of runs at both ends, however many chunks a run has. Tags may collide: the root tells.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

use crate::gap::{TargetGap, pair};
use crate::{Tag, TagRun};

/// A part of the target; positions and counts are in chunks from the start of either file, runs expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Chunks that the basis has in the same order.
    Common {
        /// The first of them in the basis.
        basis: u64,
        /// The first of them in the target.
        target: u64,
        /// How many.
        count: u64,
    },
    /// Chunks that must be asked for.
    Gap {
        /// Where they are in the target, at least one.
        target: Range<u64>,
        /// The chunks of the basis that probably were there before, none of them in the target; the range may be
        /// empty, and those of two gaps share no chunk.
        basis: Range<u64>,
    },
}

impl Segment {
    /// The first chunk of the target in it.
    const fn start(&self) -> u64 {
        match self {
            Self::Common { target, .. } => *target,
            Self::Gap { target, .. } => target.start,
        }
    }
}

/// How a target is made of chunks of a basis and of gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    segments: Vec<Segment>,
    common: u64,
}

/// Beside one for each run, at most so many segments are spent on runs that are longer than any in the basis.
const REUSES: usize = 4096;

impl Alignment {
    /// Aligns the chunks of a target with those of a basis.
    ///
    /// # Security
    ///
    /// Either list may be hostile: time and memory follow the number of runs, not their counts. A run of the target
    /// that is thousands of times longer than any in the basis becomes a gap in part.
    pub fn of(basis: &[TagRun], target: &[TagRun]) -> Self {
        let index = Index::of(basis);
        let mut walk = Walk {
            matches: Vec::new(),
            used: basis.iter().map(|run| run.count == 0).collect(),
            at: 0,
            reuses: REUSES + basis.len() + target.len(),
            index: &index,
        };
        let mut next = 0;
        for (i, run) in target.iter().enumerate().filter(|(_, run)| run.count > 0) {
            match index.place(run.tag, next, target.get(i + 1)) {
                Some(place) => {
                    walk.take(run, place);
                    next = place.run + 1;
                }
                None => walk.at += u64::from(run.count),
            }
        }
        let Walk { matches, used, at: target_len, .. } = walk;
        let common = matches.iter().map(|found| found.count).sum();
        let gaps = gaps_between(&matches, basis.len(), target_len);
        let paired = pair(&gaps, &index.gaps(used));
        let gaps = gaps.into_iter().zip(paired).map(|(gap, runs)| Segment::Gap {
            target: gap.target,
            basis: index.starts[runs.start]..index.starts[runs.end],
        });
        let mut segments: Vec<Segment> = matches.iter().map(Match::segment).chain(gaps).collect();
        segments.sort_by_key(Segment::start);
        Self { segments, common }
    }

    /// The parts of the target in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// How many chunks of the target are in the basis.
    pub const fn common(&self) -> u64 {
        self.common
    }
}

/// The runs of the basis by tag.
struct Index<'a> {
    basis: &'a [TagRun],
    /// The first chunk of each run, and the number of chunks.
    starts: Vec<u64>,
    /// Tags in order with their runs, those of one tag in order.
    sorted: Vec<(Tag, usize)>,
    /// The longest run of each tag that occurs more than once.
    longest: BTreeMap<Tag, usize>,
}

/// Where in the basis a run of the target is found.
#[derive(Clone, Copy)]
struct Place {
    run: usize,
    /// It continues the match before it, rather than leading up to the one after it.
    continues: bool,
}

impl<'a> Index<'a> {
    fn of(basis: &'a [TagRun]) -> Self {
        let mut starts = Vec::with_capacity(basis.len() + 1);
        let mut chunks = 0;
        starts.push(chunks);
        starts.extend(basis.iter().map(|run| {
            chunks += u64::from(run.count);
            chunks
        }));
        let runs = basis.iter().enumerate().filter(|(_, run)| run.count > 0);
        let mut sorted: Vec<_> = runs.map(|(i, run)| (run.tag, i)).collect();
        sorted.sort_unstable();
        let repeated = sorted.chunk_by(|(a, _), (b, _)| a == b).filter(|same| same.len() > 1);
        let longest = repeated.filter_map(|same| {
            let (tag, run) = same.iter().max_by_key(|(_, run)| basis[*run].count)?;
            Some((*tag, *run))
        });
        Self { basis, starts, longest: longest.collect(), sorted }
    }

    /// The runs with this tag, in order.
    fn runs(&self, tag: Tag) -> &[(Tag, usize)] {
        let start = self.sorted.partition_point(|(other, _)| *other < tag);
        let rest = &self.sorted[start..];
        // Most tags occur once: look before searching for the end.
        match rest.get(1) {
            Some((other, _)) if *other == tag => &rest[..rest.partition_point(|(other, _)| *other == tag)],
            _ => &rest[..rest.first().is_some_and(|(other, _)| *other == tag).into()],
        }
    }

    /// The run to match with a run of the target: `next` stands after the last match, `follower` after the run itself.
    fn place(&self, tag: Tag, next: usize, follower: Option<&TagRun>) -> Option<Place> {
        if self.basis.get(next).is_some_and(|run| run.tag == tag && run.count > 0) {
            return Some(Place { run: next, continues: true });
        }
        let runs = self.runs(tag);
        let run = match runs {
            [] => return None,
            [(_, only)] => *only,
            [(_, first), ..] => self.before(tag, follower).unwrap_or_else(|| {
                runs.get(runs.partition_point(|(_, run)| *run < next)).map_or(*first, |(_, nearest)| *nearest)
            }),
        };
        Some(Place { run, continues: false })
    }

    /// The run with this tag that stands before the only place of `follower`, or before the end of the file.
    fn before(&self, tag: Tag, follower: Option<&TagRun>) -> Option<usize> {
        let after = match follower.map(|run| self.runs(run.tag)) {
            None => self.basis.len(),
            Some([(_, only)]) => *only,
            Some(_) => return None,
        };
        let run = after.checked_sub(1)?;
        (self.basis[run].tag == tag && self.basis[run].count > 0).then_some(run)
    }

    /// The ranges of runs whose tags the target has not, given which runs were matched.
    fn gaps(&self, mut used: Vec<bool>) -> Vec<Range<usize>> {
        for same in self.sorted.chunk_by(|(a, _), (b, _)| a == b).filter(|same| same.len() > 1) {
            if same.iter().any(|(_, run)| used[*run]) {
                same.iter().for_each(|(_, run)| used[*run] = true);
            }
        }
        let mut gaps: Vec<Range<usize>> = Vec::new();
        for run in (0..used.len()).filter(|run| !used[*run]) {
            match gaps.last_mut() {
                Some(gap) if gap.end == run => gap.end += 1,
                _ => gaps.push(run..run + 1),
            }
        }
        gaps
    }
}

/// Chunks found in the basis, and the runs of the basis they lie in.
struct Match {
    basis: u64,
    target: u64,
    count: u64,
    runs: Range<usize>,
}

impl Match {
    const fn segment(&self) -> Segment {
        Segment::Common { basis: self.basis, target: self.target, count: self.count }
    }
}

/// The walk over the target.
struct Walk<'a> {
    index: &'a Index<'a>,
    matches: Vec<Match>,
    /// Which runs of the basis were matched.
    used: Vec<bool>,
    /// The chunk of the target that is next.
    at: u64,
    /// How many more segments may reuse a run of the basis.
    reuses: usize,
}

impl Walk<'_> {
    /// Matches a run of the target with one of the basis, and with the longest of its tag where that is too short.
    fn take(&mut self, run: &TagRun, place: Place) {
        let here = self.index.basis[place.run].count.min(run.count);
        let rest = u64::from(run.count - here);
        self.used[place.run] = true;
        if place.continues {
            self.push(place.run, 0, here.into());
            self.reuse(run.tag, place.run, rest);
        } else {
            self.reuse(run.tag, place.run, rest);
            self.push(place.run, self.index.basis[place.run].count - here, here.into());
        }
    }

    fn reuse(&mut self, tag: Tag, run: usize, mut rest: u64) {
        let longest = self.index.longest.get(&tag).copied().unwrap_or(run);
        let len = u64::from(self.index.basis[longest].count);
        while rest > 0 && self.reuses > 0 {
            self.reuses -= 1;
            let count = rest.min(len);
            self.push(longest, 0, count);
            rest -= count;
        }
        self.at += rest;
    }

    /// Appends a match of `count` chunks from chunk `skip` of a run on, joined to the last one where both continue it.
    fn push(&mut self, run: usize, skip: u32, count: u64) {
        let (basis, target) = (self.index.starts[run] + u64::from(skip), self.at);
        self.at += count;
        match self.matches.last_mut() {
            Some(last) if last.basis + last.count == basis && last.target + last.count == target => {
                last.count += count;
                last.runs.end = run + 1;
            }
            _ => self.matches.push(Match { basis, target, count, runs: run..run + 1 }),
        }
    }
}

/// What lies between the matches, and after the last.
fn gaps_between(matches: &[Match], basis_runs: usize, target_len: u64) -> Vec<TargetGap> {
    let mut gaps = Vec::new();
    let (mut at, mut left) = (0, 0);
    let ends = matches.iter().map(|found| (found.target, found.count, found.runs.clone()));
    for (target, count, runs) in ends.chain([(target_len, 0, basis_runs..basis_runs)]) {
        if at < target {
            gaps.push(TargetGap { target: at..target, left, right: runs.start });
        }
        (at, left) = (target + count, runs.end);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::cut::tests::{SMALL, random};
    use crate::{Algorithm, ChunkList, TagKey, tag_runs};

    fn run(tag: u8, count: u32) -> TagRun {
        TagRun { tag: Tag::from_bytes([tag, 0, 0, 0, 0, 0]), count }
    }

    /// One run a byte, all different.
    fn unique(tags: Range<u8>) -> Vec<TagRun> {
        tags.map(|tag| run(tag, 1)).collect()
    }

    fn common(basis: u64, target: u64, count: u64) -> Segment {
        Segment::Common { basis, target, count }
    }

    fn gap(target: Range<u64>, basis: Range<u64>) -> Segment {
        Segment::Gap { target, basis }
    }

    fn expand(runs: &[TagRun]) -> Vec<Tag> {
        runs.iter().flat_map(|run| core::iter::repeat_n(run.tag, run.count as usize)).collect()
    }

    /// Judges an alignment chunk by chunk: the least that must be sent is what the basis has nowhere.
    fn check_against_expanded(basis: &[TagRun], target: &[TagRun]) -> Alignment {
        let alignment = Alignment::of(basis, target);
        let (basis, target) = (expand(basis), expand(target));
        let (in_basis, in_target): (BTreeSet<_>, BTreeSet<_>) =
            (basis.iter().copied().collect(), target.iter().copied().collect());
        let (mut at, mut found) = (0, 0);
        let mut old_gaps: Vec<Range<u64>> = Vec::new();
        for segment in alignment.segments() {
            assert_eq!(segment.start(), at, "{:?}", alignment.segments());
            match segment.clone() {
                Segment::Common { basis: from, target: to, count } => {
                    assert!(count > 0);
                    let (from, to, len) = (from as usize, to as usize, count as usize);
                    assert_eq!(basis[from..from + len], target[to..to + len]);
                    found += count;
                    at += count;
                }
                Segment::Gap { target: new, basis: old } => {
                    assert!(!new.is_empty());
                    assert!(target[new.start as usize..new.end as usize].iter().all(|tag| !in_basis.contains(tag)));
                    assert!(basis[old.start as usize..old.end as usize].iter().all(|tag| !in_target.contains(tag)));
                    at = new.end;
                    old_gaps.extend((!old.is_empty()).then_some(old));
                }
            }
        }
        old_gaps.sort_by_key(|old| old.start);
        assert!(old_gaps.windows(2).all(|pair| pair[0].end <= pair[1].start), "{old_gaps:?}");
        assert_eq!((at, found), (target.len() as u64, alignment.common()));
        assert_eq!(found, target.iter().filter(|tag| in_basis.contains(tag)).count() as u64);
        alignment
    }

    fn check_segments(basis: &[TagRun], target: &[TagRun], expected: &[Segment]) {
        assert_eq!(check_against_expanded(basis, target).segments(), expected);
    }

    #[test]
    fn nothing_on_either_side_is_no_common_chunk() {
        check_segments(&[], &[], &[]);
        check_segments(&unique(0..3), &[], &[]);
        check_segments(&[], &unique(0..3), &[gap(0..3, 0..0)]);
        check_segments(&unique(0..3), &unique(5..7), &[gap(0..2, 0..3)]);
    }

    #[test]
    fn equal_lists_are_one_segment() {
        let mut runs = unique(0..10);
        runs[5].count = 7;
        check_segments(&runs, &runs, &[common(0, 0, 16)]);
    }

    #[test]
    fn a_replaced_chunk_is_a_gap_beside_the_one_it_replaced() {
        let basis = unique(0..10);
        let mut target = basis.clone();
        target[4] = run(100, 1);
        check_segments(&basis, &target, &[common(0, 0, 4), gap(4..5, 4..5), common(5, 5, 5)]);
        target[0] = run(101, 1);
        target[9] = run(102, 1);
        let (front, back) = ([gap(0..1, 0..1), common(1, 1, 3), gap(4..5, 4..5)], [common(5, 5, 4), gap(9..10, 9..10)]);
        check_segments(&basis, &target, &[&front[..], &back].concat());
    }

    #[test]
    fn inserted_and_deleted_chunks_have_nothing_beside_them() {
        let basis = unique(0..6);
        let inserted = [unique(0..3), unique(50..52), unique(3..6)].concat();
        check_segments(&basis, &inserted, &[common(0, 0, 3), gap(3..5, 3..3), common(3, 5, 3)]);
        check_segments(&inserted, &basis, &[common(0, 0, 3), common(5, 3, 3)]);
    }

    #[test]
    fn moved_halves_are_found() {
        let swapped = [unique(10..20), unique(0..10)].concat();
        check_segments(&unique(0..20), &swapped, &[common(10, 0, 10), common(0, 10, 10)]);
    }

    #[test]
    fn a_gap_whose_left_neighbour_moved_pairs_by_its_right_and_the_rest_in_order() {
        // Basis: 0 a 1 2 b 3; the target moves 2 to the front and replaces a and b.
        let basis = [run(0, 1), run(100, 1), run(1, 1), run(2, 1), run(101, 1), run(3, 1)];
        let by_right = [run(2, 1), run(0, 1), run(1, 1), run(200, 1), run(3, 1)];
        let segments = [common(3, 0, 1), common(0, 1, 1), common(2, 2, 1), gap(3..4, 4..5), common(5, 4, 1)];
        check_segments(&basis, &by_right, &segments);
        let pooled = [run(1, 1), run(200, 1), run(0, 1), run(201, 1), run(2, 1)];
        let segments = [common(2, 0, 1), gap(1..2, 4..6), common(0, 2, 1), gap(3..4, 1..2), common(3, 4, 1)];
        check_segments(&basis, &pooled, &segments);
    }

    #[test]
    fn longer_and_shorter_runs_of_zeros_are_common() {
        let file = |zeros| [run(1, 1), run(0, zeros), run(2, 1)];
        let longer = [common(0, 0, 601), common(1, 601, 400), common(601, 1001, 1)];
        check_segments(&file(600), &file(1000), &longer);
        check_segments(&file(1000), &file(600), &[common(0, 0, 601), common(1001, 601, 1)]);
        // After a gap the match leads up to what follows.
        let behind = [run(1, 1), run(9, 1), run(0, 600), run(2, 1)];
        check_segments(
            &file(1000),
            &behind,
            &[common(0, 0, 1), gap(1..2, 1..1), common(1, 2, 600), common(1001, 602, 1)],
        );
    }

    #[test]
    fn repeated_chunks_continue_the_match_before_them_or_lead_up_to_the_one_behind() {
        // 0 z 1 z 2 z 3: every z keeps its neighbours.
        let basis = [run(0, 1), run(9, 1), run(1, 1), run(9, 1), run(2, 1), run(9, 1), run(3, 1)];
        check_segments(&basis, &basis, &[common(0, 0, 7)]);
        let cut = [run(100, 1), run(9, 1), run(2, 1), run(9, 1), run(3, 1)];
        check_segments(&basis, &cut, &[gap(0..1, 0..1), common(3, 1, 4)]);
    }

    #[test]
    fn runs_of_billions_cost_a_segment() {
        let huge = [run(0, u32::MAX), run(0, u32::MAX), run(1, 1)];
        let alignment = Alignment::of(&huge, &huge);
        assert_eq!(alignment.segments(), [common(0, 0, 2 * u64::from(u32::MAX) + 1)]);
        // One zero in the basis serves many in the target, but not billions.
        let alignment = Alignment::of(&[run(0, 1)], &huge);
        assert!(alignment.segments().len() < REUSES + 10 && alignment.common() >= REUSES as u64);
        let covered = alignment.segments().iter().fold(0, |at, segment| match segment {
            Segment::Common { target, count, .. } => (*target == at).then_some(at + count).expect("in order"),
            Segment::Gap { target, .. } => (target.start == at).then_some(target.end).expect("in order"),
        });
        assert_eq!(covered, 2 * u64::from(u32::MAX) + 1);
    }

    #[test]
    fn runs_without_chunks_change_nothing() {
        let target = [run(0, 0), run(1, 2), run(2, 0), run(3, 1)];
        check_segments(&[run(0, 0), run(1, 2), run(3, 0), run(2, 5)], &target, &[common(0, 0, 2), gap(2..3, 2..7)]);
    }

    #[test]
    fn many_repeated_runs_take_little_time() {
        let pattern = |counts: [u32; 2]| -> Vec<TagRun> {
            (0..100_000).flat_map(|_| [run(0, counts[0]), run(1, counts[1])]).collect()
        };
        for (old, new) in [([1, 1], [1, 1]), ([1, 1], [1000, 1000]), ([1000, 1], [1, 1000])] {
            let alignment = Alignment::of(&pattern(old), &pattern(new));
            assert!(alignment.segments().len() <= 3 * 400_000 + REUSES);
        }
    }

    #[test]
    fn an_edited_file_loses_only_the_chunks_around_its_edits() {
        let old = random(30, 100_000);
        let mut new = old.clone();
        new.splice(20_000..20_000, [1, 2, 3]);
        new[70_000] ^= 1;
        let key = TagKey::new(&[3; 16], 1);
        let tags = |bytes: &[u8]| tag_runs(&ChunkList::of(bytes, SMALL, Algorithm::Blake3), &key);
        let (old, new) = (tags(&old), tags(&new));
        let alignment = check_against_expanded(&old, &new);
        assert!(new.len() as u64 - alignment.common() < 12, "{:?}", alignment.segments());
        assert_eq!(alignment.segments().len(), 5);
    }

    proptest! {
        #[test]
        fn segments_cover_the_target_and_find_all_that_is_there(
            basis in prop::collection::vec((0u8..20, 0u32..4), 0..40),
            target in prop::collection::vec((0u8..24, 0u32..6), 0..40),
        ) {
            let runs = |list: &[(u8, u32)]| list.iter().map(|(tag, count)| run(*tag, *count)).collect::<Vec<_>>();
            check_against_expanded(&runs(&basis), &runs(&target));
        }

        #[test]
        fn cut_and_moved_pieces_are_all_found(
            kinds in 2u8..200,
            pieces in prop::collection::vec((0usize..300, 0usize..60), 1..8),
            seed: u64,
        ) {
            let basis: Vec<_> = random(seed, 300).into_iter().map(|byte| run(byte % kinds, 1)).collect();
            let piece = |(start, len): (usize, usize)| basis[start..].iter().take(len).copied();
            let target: Vec<_> = pieces.iter().copied().flat_map(piece).collect();
            let alignment = check_against_expanded(&basis, &target);
            prop_assert_eq!(alignment.common(), target.len() as u64);
        }
    }
}
