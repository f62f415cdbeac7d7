//! Which chunks of a target the basis has, and which old bytes stand where the others are wanted.
//!
//! The target is walked once. A chunk continues the last match where it can, whatever was inserted before it; else its
//! tag is looked up in the sorted tags of the basis, so that moved runs are found wherever they went. A chunk that the
//! basis has several times takes the place before its right neighbour's, or the next one after the last match.
//! Runs are matched whole: a run longer than any of the basis reuses the longest. What lies between matches is a gap.
//! Gaps of the target pair with those of the basis (runs whose tags the target has not at all) by their left common
//! neighbour, else by their right, else in order; the two ends of a file are common.
//!
//! Invariant: the segments cover the target exactly and in order, and a common segment pairs equal tags. Work is
//! O(n log n) in the number of runs at both ends, however many chunks a run has. Tags may collide: the root tells.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

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
        /// The chunks of the basis that probably were there before, not found in the target; each is in one gap at most,
        /// and the range may be empty.
        basis: Range<u64>,
    },
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
    /// Either list may be hostile: time and memory follow the number of runs, not their counts. A run of the target that
    /// is thousands of times longer than any in the basis becomes a gap in part.
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
        let gaps = pair(&index, target_gaps(&matches, basis.len(), target_len), &index.gaps(used));
        let mut segments = Vec::with_capacity(matches.len() + gaps.len());
        let mut gaps = gaps.into_iter().peekable();
        for found in matches {
            while let Some(gap) =
                gaps.next_if(|gap| matches!(gap, Segment::Gap { target, .. } if target.start < found.target))
            {
                segments.push(gap);
            }
            segments.push(Segment::Common { basis: found.basis, target: found.target, count: found.count });
        }
        segments.extend(gaps);
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

    fn chunks(&self, runs: &Range<usize>) -> Range<u64> {
        self.starts[runs.start]..self.starts[runs.end]
    }
}

/// Chunks found in the basis, and the runs of the basis they lie in.
struct Match {
    basis: u64,
    target: u64,
    count: u64,
    runs: Range<usize>,
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

    /// Appends a match of `count` chunks from chunk `skip` of a run on, joined to the last one where the two are adjacent.
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

/// Chunks of the target that were not found, and the runs of the basis its neighbours end before and start at.
struct TargetGap {
    target: Range<u64>,
    left: usize,
    right: usize,
}

fn target_gaps(matches: &[Match], basis_runs: usize, target_len: u64) -> Vec<TargetGap> {
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

/// Gives each gap of the target at most one of the basis.
fn pair(index: &Index<'_>, wanted: Vec<TargetGap>, old: &[Range<usize>]) -> Vec<Segment> {
    let mut paired: Vec<Option<usize>> = vec![None; wanted.len()];
    let mut free = vec![true; old.len()];
    let by_left = |gap: &TargetGap| old.binary_search_by_key(&gap.left, |old| old.start).ok();
    let by_right = |gap: &TargetGap| old.binary_search_by_key(&gap.right, |old| old.end).ok();
    for neighbour in [&by_left as &dyn Fn(&TargetGap) -> Option<usize>, &by_right] {
        for (gap, paired) in wanted.iter().zip(&mut paired).filter(|(_, paired)| paired.is_none()) {
            *paired = neighbour(gap).filter(|old| core::mem::take(&mut free[*old]));
        }
    }
    let mut pool = (0..old.len()).filter(|old| free[*old]);
    let gaps = wanted.into_iter().zip(paired).map(|(gap, paired)| {
        let runs = paired.or_else(|| pool.next()).map_or(gap.left..gap.left, |i| old[i].clone());
        Segment::Gap { target: gap.target, basis: index.chunks(&runs) }
    });
    gaps.collect()
}
