//! The chunk list of a file whose length is known, in sections that may be digested on different threads.
//!
//! Where a chunk ends depends on where it starts, so a [`SectionCutter`] cuts the sections one after the other, which is
//! the cheap part. What is dear, the digests of the chunks that end in a [`Section`] and the BLAKE3 subtree of its bytes,
//! needs nothing but the section: [`Section::hash`] can run anywhere, and a [`SectionJoiner`] takes the results in any
//! order. A section is a power of two of leaves and starts at a multiple of its length, so its value is a node of the
//! tree of the whole file. The bytes of a chunk that is begun in one section and ends in another are copied to the latter,
//! and so are those of a block whose sum is kept, [`Section::blocks`].
//!
//! SHA-256 is a chain, so with it the cutter computes the root, while others digest the chunks.
//!
//! Cost: a copy of the bytes between the last cut point of a section and its end. Memory: a section holds 256 KiB, or four
//! chunks of the average if those are more, and before them room for the longest chunk; the joiner holds 40 bytes a run.
//!
//! Invariant: the list is that of [`Chunker`](crate::Chunker), whatever the length of a section and the order of the
//! results.
//!
//! Source: BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020), section 2.1; the crate's module `hazmat`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::chunk::{Batch, Runs};
use crate::{
    Algorithm, ByteLen, ChunkList, ChunkRun, Cutter, Digest, FineShape, Hasher, LimitExceeded, Limits, Offset,
};

/// The length of a section, in bytes: it stays in the cache between the cut and the digests, and keeps a thread busy for
/// a hundred times as long as it takes to hand it over.
const SECTION: usize = 256 << 10;

/// The most bytes of a block that stand before the section in which it ends.
const BEFORE: usize = FineShape::KEPT.block() - 1;

/// Cuts a file of known length, one section after the other.
#[derive(Debug)]
pub struct SectionCutter {
    cutter: Cutter,
    algorithm: Algorithm,
    len: u64,
    section: usize,
    at: u64,
    index: u64,
    /// The last bytes that were cut, as far as the next section needs them.
    tail: Vec<u8>,
    /// How many of them are the start of a chunk whose end is not decided, fewer than the longest chunk has.
    begun: usize,
    /// Of what cannot be hashed in parts.
    chain: Option<Hasher>,
}

impl SectionCutter {
    /// A cutter at the start of a file of `len` bytes.
    pub fn new(cutter: Cutter, algorithm: Algorithm, len: ByteLen) -> Self {
        let four = match cutter {
            Cutter::MinCdc { .. } => 8 * cutter.min_len(),
            Cutter::Fixed { .. } | Cutter::Entries => 4 * cutter.min_len(),
        };
        Self::with_sections_of(four.next_power_of_two().max(SECTION), cutter, algorithm, len)
    }

    fn with_sections_of(section: usize, cutter: Cutter, algorithm: Algorithm, len: ByteLen) -> Self {
        assert!(section.is_power_of_two() && section >= blake3::CHUNK_LEN, "a section is a subtree");
        let chain = (algorithm != Algorithm::Blake3).then(|| algorithm.hasher());
        Self { cutter, algorithm, len: len.get(), section, at: 0, index: 0, tail: Vec::new(), begun: 0, chain }
    }

    /// Lets `fill` write the bytes of the next section, which start at the offset it is given, and cuts them. False at the
    /// end of the file: then `fill` has not been called. What `section` held before is lost, but for its memory.
    ///
    /// # Errors
    ///
    /// What `fill` says; the same bytes are asked for again the next time.
    pub fn next<E>(
        &mut self,
        section: &mut Section,
        fill: impl FnOnce(&mut [u8], Offset) -> Result<(), E>,
    ) -> Result<bool, E> {
        let len = usize::try_from(self.len - self.at).map_or(self.section, |left| left.min(self.section));
        if len == 0 {
            return Ok(false);
        }
        let begin = self.cutter.max_len().max(BEFORE);
        // As long as it will ever be, so that no byte is set to zero twice.
        section.bytes.resize(begin + self.section, 0);
        (section.begin, section.end) = (begin, begin + len);
        fill(&mut section.bytes[begin..section.end], Offset::new(self.at))?;
        if let Some(chain) = &mut self.chain {
            chain.update(&section.bytes[begin..section.end]);
        }
        let tail = begin - self.tail.len();
        section.bytes[tail..begin].copy_from_slice(&self.tail);
        section.first = begin - self.begun;
        section.ends.clear();
        let last = self.at + len as u64 == self.len;
        let mut at = section.first;
        while let Some(len) = self.cutter.cut(&section.bytes[at..section.end], last) {
            at += len;
            section.ends.push(at);
        }
        self.begun = section.end - at;
        let tail = tail.max(section.end - self.begun.max(BEFORE));
        self.tail.clear();
        self.tail.extend_from_slice(&section.bytes[tail..section.end]);
        (section.algorithm, section.index, section.at) = (self.algorithm, self.index, self.at);
        section.is_whole = len as u64 == self.len;
        section.is_last = last;
        self.at += len as u64;
        self.index += 1;
        Ok(true)
    }
}

/// The next bytes of a file, and where its chunks end in them.
#[derive(Debug, Default)]
pub struct Section {
    algorithm: Algorithm,
    bytes: Vec<u8>,
    /// Where its first chunk starts in `bytes`, where its own bytes start, and where they end.
    first: usize,
    begin: usize,
    end: usize,
    /// Where chunks end in `bytes`.
    ends: Vec<usize>,
    index: u64,
    /// Where it starts in the file.
    at: u64,
    /// There is no other.
    is_whole: bool,
    /// There is none behind it.
    is_last: bool,
}

impl Section {
    /// Digests the chunks that end in it and its own bytes, which is nearly all the work there is.
    pub fn hash(&self) -> HashedSection {
        let mut batch = Batch::default();
        let mut at = self.first;
        for &end in &self.ends {
            batch.add(&self.bytes[at..end]);
            at = end;
        }
        let mut runs = Vec::with_capacity(batch.len());
        batch.digest(self.algorithm, &mut Vec::new(), |run| runs.push(run));
        let own = &self.bytes[self.begin..self.end];
        let node = match self.algorithm {
            Algorithm::Blake3 if self.is_whole => Node::Root(self.algorithm.digest(own)),
            Algorithm::Blake3 => {
                Node::Inner(blake3::Hasher::new().set_input_offset(self.at).update(own).finalize_non_root())
            }
            Algorithm::Sha256 => Node::None,
        };
        HashedSection { index: self.index, runs, node }
    }

    /// The blocks of [`FineShape::KEPT`] that end in it, and where in the file the first of them starts. They go on where
    /// those of the section before it end; the last block of a file may be shorter.
    pub fn blocks(&self) -> (Offset, &[u8]) {
        let block = FineShape::KEPT.block();
        let before = (self.at % block as u64) as usize;
        let len = before + self.end - self.begin;
        let whole = if self.is_last { len } else { len - len % block };
        let start = self.begin - before;
        (Offset::new(self.at - before as u64), &self.bytes[start..start + whole])
    }
}

/// What a section adds to the list of its file.
#[derive(Debug)]
pub struct HashedSection {
    index: u64,
    runs: Vec<ChunkRun>,
    node: Node,
}

/// What a section is in the tree of its file.
#[derive(Debug)]
enum Node {
    Root(Digest),
    Inner(ChainingValue),
    /// Its file has no tree.
    None,
}

/// Joins what comes of the sections, in any order.
#[derive(Debug)]
pub struct SectionJoiner {
    runs: Runs,
    tree: Tree,
    next: u64,
    /// Those that came before one that stands before them.
    early: BTreeMap<u64, HashedSection>,
}

impl SectionJoiner {
    /// A joiner for one file.
    pub fn new(limits: &Limits) -> Self {
        Self { runs: Runs::new(limits), tree: Tree::default(), next: 0, early: BTreeMap::new() }
    }

    /// Takes in a section.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] when the file has more chunks than the limits allow. The joiner is of no use afterwards.
    pub fn add(&mut self, section: HashedSection) -> Result<(), LimitExceeded> {
        self.early.insert(section.index, section);
        while let Some(section) = self.early.remove(&self.next) {
            self.next += 1;
            section.runs.into_iter().try_for_each(|run| self.runs.add(run))?;
            self.tree.add(section.node);
        }
        Ok(())
    }

    /// The chunk list of the file that `cutter` has cut.
    ///
    /// # Panics
    ///
    /// When the cutter is not at the end of the file, or not all of its sections have been added.
    pub fn finish(self, cutter: SectionCutter) -> ChunkList {
        assert_eq!((cutter.at, self.next), (cutter.len, cutter.index), "sections are missing");
        let root = match cutter.chain {
            Some(chain) => chain.finish(),
            None => self.tree.root().unwrap_or_else(|| cutter.algorithm.digest(&[])),
        };
        ChunkList::new(cutter.cutter, cutter.algorithm, root, self.runs.into_vec())
    }
}

/// The tree of a file from its nodes at one level, which are complete but for the last.
#[derive(Debug, Default)]
struct Tree {
    root: Option<Digest>,
    /// Complete subtrees, each longer than the next one, and behind them the last node, which may have a sibling there: it
    /// is not known whether what joins them is the root.
    inner: Vec<ChainingValue>,
    count: u64,
}

impl Tree {
    fn add(&mut self, node: Node) {
        match node {
            Node::Root(digest) => self.root = Some(digest),
            Node::Inner(value) => {
                while self.inner.len() > self.count.count_ones() as usize {
                    self.join();
                }
                self.inner.push(value);
                self.count += 1;
            }
            Node::None => {}
        }
    }

    /// Puts the last two subtrees under one.
    fn join(&mut self) {
        if let (Some(right), Some(left)) = (self.inner.pop(), self.inner.pop()) {
            self.inner.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }

    fn root(mut self) -> Option<Digest> {
        while self.inner.len() > 2 {
            self.join();
        }
        match self.inner.as_slice() {
            [left, right] => Some(Digest::from_bytes(*merge_subtrees_root(left, right, Mode::Hash).as_bytes())),
            _ => self.root,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::cut::tests::{SMALL, random};

    /// A section in these tests, in bytes: two leaves.
    const SHORT: usize = 2048;

    /// The list by sections of `section` bytes, whose results come in the order that `turn` makes of it.
    fn list(
        bytes: &[u8],
        section: usize,
        cutter: Cutter,
        algorithm: Algorithm,
        turn: impl FnOnce(&mut Vec<HashedSection>),
    ) -> ChunkList {
        let mut cutter = SectionCutter::with_sections_of(section, cutter, algorithm, ByteLen::of(bytes));
        let mut hashed = Vec::new();
        let mut reused = Section::default();
        let mut summed = 0;
        let fill = |room: &mut [u8], at: Offset| {
            let at = at.get() as usize;
            room.copy_from_slice(&bytes[at..at + room.len()]);
            Ok::<(), Infallible>(())
        };
        while cutter.next(&mut reused, fill) == Ok(true) {
            hashed.push(reused.hash());
            let (start, blocks) = reused.blocks();
            assert_eq!(start.get(), summed);
            assert!(blocks == &bytes[summed as usize..][..blocks.len()]);
            summed += blocks.len() as u64;
            assert!(summed.is_multiple_of(FineShape::KEPT.block() as u64) || summed == bytes.len() as u64);
        }
        assert_eq!(summed, bytes.len() as u64, "blocks");
        turn(&mut hashed);
        let mut joiner = SectionJoiner::new(&Limits::default());
        hashed.into_iter().for_each(|section| joiner.add(section).expect("within the limits"));
        joiner.finish(cutter)
    }

    fn check_list(bytes: &[u8], section: usize, cutter: Cutter, algorithm: Algorithm) {
        let expected = ChunkList::of(bytes, cutter, algorithm);
        let name = (bytes.len(), section, cutter, algorithm);
        assert_eq!(list(bytes, section, cutter, algorithm, |_| ()), expected, "{name:?}");
        assert_eq!(list(bytes, section, cutter, algorithm, |all| all.reverse()), expected, "{name:?}, reversed");
        let turn = |all: &mut Vec<HashedSection>| {
            let middle = all.len() / 3;
            all.rotate_left(middle);
        };
        assert_eq!(list(bytes, section, cutter, algorithm, turn), expected, "{name:?}, rotated");
    }

    #[test]
    fn every_length_around_so_many_sections() {
        let bytes = random(1, 35 * SHORT);
        let around = |sections: usize| {
            let len = sections * SHORT;
            [len.saturating_sub(1), len, len + 1, len + 1023, len + 1024, len + 1025]
        };
        for len in (0..=34).flat_map(around) {
            check_list(&bytes[..len], SHORT, SMALL, Algorithm::Blake3);
        }
        for len in [0, 1, 2, 3, 16].into_iter().flat_map(around) {
            check_list(&bytes[..len], SHORT, Cutter::Fixed { size: 64 }, Algorithm::Sha256);
        }
    }

    #[test]
    fn chunks_longer_than_sections_go_through_many() {
        let bytes = random(2, 200_000);
        for len in [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 200_000] {
            for cutter in [Cutter::Fixed { size: 65_536 }, Cutter::MinCdc { average: 16_384 }] {
                Algorithm::ALL.into_iter().for_each(|algorithm| check_list(&bytes[..len], SHORT, cutter, algorithm));
            }
        }
    }

    #[test]
    fn runs_go_on_from_one_section_to_the_next() {
        let mut bytes = random(3, 100 * SHORT);
        bytes[5000..90 * SHORT].fill(0);
        check_list(&bytes, SHORT, SMALL, Algorithm::Blake3);
        bytes.fill(0);
        let list = list(&bytes, SHORT, Cutter::Fixed { size: 64 }, Algorithm::Blake3, |_| ());
        assert_eq!(list.runs().len(), 1);
    }

    #[test]
    fn sections_of_the_usual_length() {
        let mut bytes = random(4, 9 * SECTION + 77);
        bytes[SECTION + 9..3 * SECTION].fill(7);
        for len in [SECTION - 1, SECTION, SECTION + 1, 4 * SECTION, bytes.len()] {
            for cutter in [Cutter::FIXED_4096, Cutter::MinCdc { average: 8192 }, Cutter::MinCdc { average: 1 << 18 }] {
                let expected = ChunkList::of(&bytes[..len], cutter, Algorithm::Blake3);
                let (mut reused, mut joiner) = (Section::default(), SectionJoiner::new(&Limits::default()));
                let mut cutter = SectionCutter::new(cutter, Algorithm::Blake3, ByteLen::new(len as u64));
                let fill = |room: &mut [u8], at: Offset| {
                    room.copy_from_slice(&bytes[at.get() as usize..][..room.len()]);
                    Ok::<(), Infallible>(())
                };
                while cutter.next(&mut reused, fill) == Ok(true) {
                    joiner.add(reused.hash()).expect("within the limits");
                }
                assert_eq!(joiner.finish(cutter), expected, "{len}");
            }
        }
    }

    #[test]
    fn what_could_not_be_read_is_asked_for_again() {
        let bytes = random(5, 3 * SHORT);
        let len = ByteLen::of(&bytes);
        let mut cutter = SectionCutter::with_sections_of(SHORT, SMALL, Algorithm::Sha256, len);
        let (mut section, mut joiner) = (Section::default(), SectionJoiner::new(&Limits::default()));
        for at in [0, SHORT, 2 * SHORT] {
            let failed = cutter.next(&mut section, |room, offset| {
                room.fill(1);
                Err(offset.get())
            });
            assert_eq!(failed, Err(at as u64));
            let read = cutter.next(&mut section, |room, _| {
                room.copy_from_slice(&bytes[at..at + SHORT]);
                Ok::<(), u64>(())
            });
            assert_eq!(read, Ok(true));
            joiner.add(section.hash()).expect("within the limits");
        }
        assert_eq!(joiner.finish(cutter), ChunkList::of(&bytes, SMALL, Algorithm::Sha256));
    }

    #[test]
    fn a_file_of_too_many_chunks_is_refused() {
        let bytes = [[1; 64], [2; 64], [3; 64]].concat();
        let mut cutter = SectionCutter::new(Cutter::Fixed { size: 64 }, Algorithm::Blake3, ByteLen::of(&bytes));
        let mut section = Section::default();
        let fill = |room: &mut [u8], _| {
            room.copy_from_slice(&bytes);
            Ok::<(), Infallible>(())
        };
        assert_eq!(cutter.next(&mut section, fill), Ok(true));
        let mut joiner = SectionJoiner::new(&Limits::default().chunks(2));
        let many = LimitExceeded { what: "chunks of a file", wanted: 3, allowed: 2 };
        assert_eq!(joiner.add(section.hash()), Err(many));
    }

    #[test]
    #[should_panic(expected = "sections are missing")]
    fn a_list_without_all_sections_is_a_bug() {
        let cutter = SectionCutter::new(SMALL, Algorithm::Blake3, ByteLen::new(1));
        SectionJoiner::new(&Limits::default()).finish(cutter);
    }

    proptest! {
        #[test]
        fn any_file_in_any_sections_in_any_order(
            seed: u64,
            len in 0usize..40_000,
            zeros in (0usize..40_000, 0usize..10_000),
            section in 10u32..14,
            order in prop::collection::vec(any::<u32>(), 40),
        ) {
            let mut bytes = random(seed, len);
            let zeros = zeros.0.min(len)..(zeros.0 + zeros.1).min(len);
            bytes[zeros].fill(0);
            for (cutter, algorithm) in [(SMALL, Algorithm::Blake3), (Cutter::FIXED_4096, Algorithm::Sha256)] {
                let turn = |all: &mut Vec<HashedSection>| all.sort_by_key(|section| order[section.index as usize]);
                let found = list(&bytes, 1 << section, cutter, algorithm, turn);
                prop_assert_eq!(found, ChunkList::of(&bytes, cutter, algorithm));
            }
        }
    }
}
