//! The chunk list of a file: what its chunks are, in order, and the root of the whole.
//!
//! A [`Chunker`] takes the bytes as they come, cuts them, digests each chunk and keeps the root, in one pass. Equal
//! chunks in a row are one [`ChunkRun`], so that a sparse file of any length costs a few entries; a chunk that equals
//! the one before it byte for byte is compared, not digested again; the others are digested many at once.
//!
//! Invariant: any split of the input gives the same list, and the lengths of the chunks sum to the length of the file.
//! Memory is 40 bytes a run, and in the chunker at most one chunk of the input.

use alloc::vec::Vec;

use crate::{Algorithm, ByteLen, Cutter, Digest, Hasher, LimitExceeded, Limits, Offset};

/// Equal chunks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRun {
    /// The digest of each.
    pub digest: Digest,
    /// The length of each, in bytes.
    pub len: u32,
    /// How many there are, at least one.
    pub count: u32,
}

impl ChunkRun {
    /// One chunk.
    pub(crate) fn of(chunk: &[u8], algorithm: Algorithm) -> Self {
        Self { digest: algorithm.digest(chunk), len: chunk_len(chunk), count: 1 }
    }

    /// The length of the whole run.
    pub fn bytes(&self) -> ByteLen {
        ByteLen::new(u64::from(self.len) * u64::from(self.count))
    }
}

/// The chunks of a file in order, runs of equal ones kept as runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkList {
    cutter: Cutter,
    algorithm: Algorithm,
    root: Digest,
    runs: Vec<ChunkRun>,
    /// Where the first run of each group of `GROUP` runs starts, and where the list ends.
    marks: Vec<Mark>,
}

/// A place between two chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    chunk: u64,
    offset: Offset,
}

/// Runs between two marks: a mark then costs a quarter of a byte a run.
const GROUP: usize = 64;

impl ChunkList {
    /// The chunk list of bytes in memory, of any length.
    pub fn of(bytes: &[u8], cutter: Cutter, algorithm: Algorithm) -> Self {
        let unlimited = Limits::default().file(ByteLen::new(u64::MAX)).chunks(usize::MAX);
        let mut chunker = Chunker::new(cutter, algorithm, &unlimited);
        let list = chunker.push(bytes).and_then(|()| chunker.finish());
        list.expect("without limits none is passed")
    }

    /// What cut the file.
    pub const fn cutter(&self) -> Cutter {
        self.cutter
    }

    /// What made the digests.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The length of the file.
    pub fn len(&self) -> ByteLen {
        self.end().offset.to_len()
    }

    /// True for a file without bytes, which has no chunks.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The digest of all bytes of the file.
    pub const fn root(&self) -> Digest {
        self.root
    }

    /// The chunks in order.
    pub fn runs(&self) -> &[ChunkRun] {
        &self.runs
    }

    /// How many chunks there are, each one of a run counted.
    pub fn chunk_count(&self) -> u64 {
        self.end().chunk
    }

    /// Where chunk `index` starts, in bytes; the index after the last chunk gives the length of the file. Takes
    /// logarithmic time.
    ///
    /// # Panics
    ///
    /// When `index` is greater than [`ChunkList::chunk_count`].
    pub fn offset_of(&self, index: u64) -> Offset {
        assert!(index <= self.chunk_count(), "chunk {index} of {}", self.chunk_count());
        let group = self.marks.partition_point(|mark| mark.chunk <= index) - 1;
        let Mark { mut chunk, mut offset } = self.marks[group];
        for run in self.runs.iter().skip(group * GROUP) {
            let within = index - chunk;
            if within < u64::from(run.count) {
                return offset + ByteLen::new(within * u64::from(run.len));
            }
            chunk += u64::from(run.count);
            offset += run.bytes();
        }
        offset
    }

    /// The chunk that starts at this offset, if one does: the index of its run, and how many chunks of that stand before it.
    /// Takes logarithmic time.
    pub(crate) fn chunk_at(&self, offset: Offset) -> Option<(usize, u32)> {
        let group = self.marks.partition_point(|mark| mark.offset <= offset) - 1;
        let mut at = self.marks[group].offset;
        for (index, run) in self.runs.iter().enumerate().skip(group * GROUP) {
            let within = (offset.get() - at.get()) / u64::from(run.len);
            if within < u64::from(run.count) {
                let starts = at + ByteLen::new(within * u64::from(run.len)) == offset;
                return starts.then(|| (index, u32::try_from(within).expect("fewer than the run has")));
            }
            at += run.bytes();
        }
        None
    }

    pub(crate) fn new(cutter: Cutter, algorithm: Algorithm, root: Digest, runs: Vec<ChunkRun>) -> Self {
        let mut marks = Vec::with_capacity(runs.len() / GROUP + 2);
        let mut at = Mark::default();
        marks.push(at);
        for group in runs.chunks(GROUP) {
            at.chunk += group.iter().map(|run| u64::from(run.count)).sum::<u64>();
            at.offset += group.iter().map(ChunkRun::bytes).sum();
            marks.push(at);
        }
        Self { cutter, algorithm, root, runs, marks }
    }

    fn end(&self) -> Mark {
        *self.marks.last().expect("there is a mark at the end of the list")
    }
}

/// Makes the chunk list of bytes that come in pieces.
#[derive(Clone, Debug)]
pub struct Chunker {
    cutter: Cutter,
    algorithm: Algorithm,
    longest: ByteLen,
    len: ByteLen,
    root: Hasher,
    runs: Runs,
    /// The start of a chunk whose end is not decided, shorter than the longest chunk.
    pending: Vec<u8>,
    /// Empty: room for the digests of a batch.
    digests: Vec<Digest>,
}

/// Chunks are digested when there are so many bytes of them: enough to fill the lanes, and few enough that the root and
/// the digests find in the cache what the cut has read.
pub(crate) const BATCH: usize = 128 << 10;

/// The root is hashed in multiples of this, so that each is a whole subtree of BLAKE3, in lanes from end to end.
const SUBTREE: usize = 64 << 10;

impl Chunker {
    /// A chunker at the start of a file.
    pub fn new(cutter: Cutter, algorithm: Algorithm, limits: &Limits) -> Self {
        Self {
            cutter,
            algorithm,
            longest: limits.file,
            len: ByteLen::ZERO,
            root: algorithm.hasher(),
            runs: Runs::new(limits),
            pending: Vec::new(),
            digests: Vec::new(),
        }
    }

    /// Takes in the next bytes of the file.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] when the file is longer or has more chunks than the limits allow. The chunker is of no use
    /// afterwards.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LimitExceeded> {
        let len = self.len.get().saturating_add(bytes.len() as u64);
        LimitExceeded::check("file length", len, self.longest.get())?;
        self.len = ByteLen::new(len);
        let mut at = self.cut_pending(bytes)?;
        let mut batch = Batch::default();
        let mut hashed = 0;
        while let Some(len) = self.cutter.cut(&bytes[at..], false) {
            batch.add(&bytes[at..at + len]);
            at += len;
            if at - hashed >= BATCH {
                let whole = at - at % SUBTREE;
                self.root.update(&bytes[hashed..whole]);
                hashed = whole;
                self.add_all(&mut batch)?;
            }
        }
        self.root.update(&bytes[hashed..]);
        self.add_all(&mut batch)?;
        self.pending.extend_from_slice(&bytes[at..]);
        Ok(())
    }

    /// The chunk list of the bytes so far, which are the whole file.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] when its last chunks pass the limit.
    pub fn finish(mut self) -> Result<ChunkList, LimitExceeded> {
        let pending = core::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        while let Some(len) = self.cutter.cut(rest, true) {
            self.runs.add(ChunkRun::of(&rest[..len], self.algorithm))?;
            rest = &rest[len..];
        }
        Ok(ChunkList::new(self.cutter, self.algorithm, self.root.finish(), self.runs.into_vec()))
    }

    /// Cuts the chunks that start in the pending bytes, completing them from `bytes`; returns how many of `bytes` are
    /// used up. Either nothing is pending afterwards, or `bytes` did not suffice and all of them are.
    fn cut_pending(&mut self, bytes: &[u8]) -> Result<usize, LimitExceeded> {
        let before = self.pending.len();
        if before == 0 {
            return Ok(0);
        }
        // Enough to decide on every chunk that starts before `before`.
        let more = bytes.len().min(self.cutter.max_len());
        let mut pending = core::mem::take(&mut self.pending);
        pending.extend_from_slice(&bytes[..more]);
        let mut start = 0;
        while start < before {
            let Some(len) = self.cutter.cut(&pending[start..], false) else { break };
            self.runs.add(ChunkRun::of(&pending[start..start + len], self.algorithm))?;
            start += len;
        }
        // Where a chunk is undecided, less than a longest one follows its start, and `bytes` are part of that.
        let undecided = start < before;
        pending.drain(..if undecided { start } else { pending.len() });
        self.pending = pending;
        Ok(if undecided { bytes.len() } else { start - before })
    }

    fn add_all(&mut self, batch: &mut Batch<'_>) -> Result<(), LimitExceeded> {
        self.runs.add_all(batch, self.algorithm, &mut self.digests)
    }
}

/// Chunks in order that wait to be digested together, equal neighbours once.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    chunks: Vec<&'a [u8]>,
    counts: Vec<u32>,
}

impl<'a> Batch<'a> {
    pub(crate) fn add(&mut self, chunk: &'a [u8]) {
        match (self.chunks.last(), self.counts.last_mut()) {
            (Some(last), Some(count)) if *last == chunk => *count += 1,
            _ => {
                self.chunks.push(chunk);
                self.counts.push(1);
            }
        }
    }

    /// How many runs there are.
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Hands the runs to `each`, and is empty afterwards, as `digests` is before and after: they are lent for their room.
    pub(crate) fn digest(&mut self, algorithm: Algorithm, digests: &mut Vec<Digest>, mut each: impl FnMut(ChunkRun)) {
        algorithm.digest_all(&self.chunks, digests);
        for (digest, (chunk, count)) in digests.drain(..).zip(self.chunks.drain(..).zip(self.counts.drain(..))) {
            each(ChunkRun { digest, len: chunk_len(chunk), count });
        }
    }
}

/// The runs of a file in order, no more than the limits allow.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    runs: Vec<ChunkRun>,
    most: usize,
}

impl Runs {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { runs: Vec::new(), most: limits.chunks }
    }

    /// Appends a run, which may go on with the last one.
    pub(crate) fn add(&mut self, mut new: ChunkRun) -> Result<(), LimitExceeded> {
        if let Some(run) = self.runs.last_mut().filter(|run| (run.digest, run.len) == (new.digest, new.len)) {
            let more = new.count.min(u32::MAX - run.count);
            run.count += more;
            new.count -= more;
        }
        if new.count > 0 {
            LimitExceeded::check("chunks of a file", self.runs.len() as u64 + 1, self.most as u64)?;
            self.runs.push(new);
        }
        Ok(())
    }

    /// Digests and appends the chunks of a batch, which is empty afterwards; `digests` are lent for their room.
    pub(crate) fn add_all(
        &mut self,
        batch: &mut Batch<'_>,
        algorithm: Algorithm,
        digests: &mut Vec<Digest>,
    ) -> Result<(), LimitExceeded> {
        let mut result = Ok(());
        batch.digest(algorithm, digests, |run| {
            if result.is_ok() {
                result = self.add(run);
            }
        });
        result
    }

    pub(crate) fn into_vec(self) -> Vec<ChunkRun> {
        self.runs
    }
}

fn chunk_len(chunk: &[u8]) -> u32 {
    u32::try_from(chunk.len()).expect("the longest chunk is 24 MiB")
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::cut::tests::{SMALL, random};

    /// Cut, digested and joined one chunk at a time.
    fn reference(mut bytes: &[u8], cutter: Cutter, algorithm: Algorithm) -> Vec<ChunkRun> {
        let mut runs: Vec<ChunkRun> = Vec::new();
        while let Some(len) = cutter.cut(bytes, true) {
            let digest = algorithm.digest(&bytes[..len]);
            match runs.last_mut() {
                Some(run) if run.digest == digest => run.count += 1,
                _ => runs.push(ChunkRun { digest, len: len as u32, count: 1 }),
            }
            bytes = &bytes[len..];
        }
        runs
    }

    fn check_list(bytes: &[u8], cutter: Cutter, algorithm: Algorithm) -> ChunkList {
        let list = ChunkList::of(bytes, cutter, algorithm);
        assert_eq!(list.runs(), reference(bytes, cutter, algorithm));
        assert_eq!((list.len(), list.root()), (ByteLen::of(bytes), algorithm.digest(bytes)));
        assert_eq!((list.cutter(), list.algorithm(), list.is_empty()), (cutter, algorithm, bytes.is_empty()));
        let mut start = 0;
        let mut index = 0;
        for (position, run) in list.runs().iter().enumerate() {
            for before in 0..run.count {
                assert_eq!(list.offset_of(index), Offset::new(start));
                assert_eq!(list.chunk_at(Offset::new(start)), Some((position, before)));
                assert!(run.len < 2 || list.chunk_at(Offset::new(start + 1)).is_none());
                index += 1;
                start += u64::from(run.len);
            }
        }
        assert_eq!((list.chunk_count(), list.offset_of(index).to_len()), (index, ByteLen::of(bytes)));
        assert_eq!(list.chunk_at(Offset::new(start)), None, "the end");
        list
    }

    fn check_any_split_gives_the_same_list(bytes: &[u8], cutter: Cutter, pieces: &[usize]) {
        let mut chunker = Chunker::new(cutter, Algorithm::Blake3, &Limits::default());
        let mut rest = bytes;
        for piece in pieces.iter().cycle().take_while(|_| !pieces.is_empty()) {
            let (head, tail) = rest.split_at((*piece).min(rest.len()));
            chunker.push(head).expect("within the limits");
            assert!(chunker.pending.len() < cutter.max_len());
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!(chunker.finish().expect("within the limits"), ChunkList::of(bytes, cutter, Algorithm::Blake3));
    }

    #[test]
    fn lists_are_right_at_every_length_around_the_bounds_of_a_chunk() {
        for cutter in [SMALL, Cutter::Fixed { size: 64 }] {
            let bytes = random(10, 2 * cutter.max_len() + 2);
            for len in 0..bytes.len() {
                check_list(&bytes[..len], cutter, Algorithm::Blake3);
            }
        }
        check_list(&random(11, 20_000), Cutter::FIXED_4096, Algorithm::Sha256);
    }

    #[test]
    fn positions_are_right_across_many_marks() {
        let mut bytes = random(12, 40_000);
        bytes[5000..9000].fill(0);
        bytes[20_000..20_500].fill(9);
        let list = check_list(&bytes, SMALL, Algorithm::Blake3);
        assert!(list.runs().len() > 4 * GROUP && list.chunk_count() > list.runs().len() as u64);
    }

    #[test]
    #[should_panic(expected = "chunk 2 of 1")]
    fn a_position_behind_the_end_is_a_bug() {
        ChunkList::of(&[1; 5], SMALL, Algorithm::Blake3).offset_of(2);
    }

    #[test]
    fn a_file_of_zeros_is_one_run_and_its_end() {
        let bytes = vec![0; (4 << 20) + 5];
        let list = ChunkList::of(&bytes, Cutter::MinCdc { average: 8192 }, Algorithm::Blake3);
        let lens: Vec<(u32, u32)> = list.runs().iter().map(|run| (run.len, run.count)).collect();
        assert_eq!(lens, [(4096, 1024), (5, 1)]);
    }

    #[test]
    fn splits_of_every_kind_give_the_same_list() {
        let mut bytes = random(13, 400_000);
        bytes[100_000..250_000].fill(0);
        for pieces in [&[1][..], &[31, 32, 33], &[95, 96, 97], &[0, 500], &[65_536], &[131_073, 7], &[1 << 20]] {
            check_any_split_gives_the_same_list(&bytes, SMALL, pieces);
            check_any_split_gives_the_same_list(&bytes, Cutter::FIXED_4096, pieces);
        }
    }

    #[test]
    fn a_file_that_passes_a_limit_is_refused_with_its_numbers() {
        let limits = Limits::default().file(ByteLen::new(1000)).chunks(2);
        let mut chunker = Chunker::new(Cutter::Fixed { size: 64 }, Algorithm::Blake3, &limits);
        chunker.push(&[0; 900]).expect("one run of zeros");
        let long = LimitExceeded { what: "file length", wanted: 1001, allowed: 1000 };
        assert_eq!(chunker.clone().push(&[0; 101]), Err(long));
        let many = LimitExceeded { what: "chunks of a file", wanted: 3, allowed: 2 };
        chunker.push(&random(14, 100)).expect("a second run and a start");
        assert_eq!(chunker.finish(), Err(many));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_list(
            seed: u64,
            len in 0usize..3000,
            zeros in (0usize..3000, 0usize..1000),
            pieces in prop::collection::vec(1usize..400, 1..20),
        ) {
            let mut bytes = random(seed, len);
            let zeros = zeros.0.min(len)..(zeros.0 + zeros.1).min(len);
            bytes[zeros].fill(0);
            check_list(&bytes, SMALL, Algorithm::Blake3);
            check_any_split_gives_the_same_list(&bytes, SMALL, &pieces);
        }
    }
}
