//! The chunk list of a target that is being made from a basis: what was copied is not digested again.
//!
//! A [`Rechunker`] takes the bytes of the target as they are written, with where in the basis they came from. Inside of a
//! copied range the cut points of target and basis fall together again after a chunk or two, since a cut depends on
//! nothing that stands before its chunk; from there on whole chunks of the basis are taken over, as the numbers they are.
//! Only what was sent, and the chunks around the borders of copies, are cut and digested.
//!
//! A cut depends on what follows, up to the longest chunk. So a chunk of the basis is taken over only when so many bytes
//! from its start on are copied, or when the copy reaches the end of both files.
//!
//! Cost: for a few edits in a large file next to nothing. Memory: the runs, and less than two of the longest chunks.
//!
//! Invariant: the list equals [`ChunkList::of`] the target, if that of the basis does. Nothing here can tell when it does
//! not; the root is whatever the caller has computed from the bytes themselves.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::chunk::{BATCH, Batch, Runs};
use crate::{Algorithm, ByteLen, ChunkList, ChunkRun, Cutter, Digest, LimitExceeded, Limits, Offset};

/// Makes the chunk list of a target from that of its basis and the bytes that pass by.
#[derive(Clone, Debug)]
pub struct Rechunker {
    cutter: Cutter,
    algorithm: Algorithm,
    longest: ByteLen,
    /// The list of the basis, where it was cut and digested as the target is.
    basis: Option<Arc<ChunkList>>,
    /// The chunk of the basis that is taken over next, if the copy goes on: the index of its run, how many chunks of that
    /// stand before it, and its offset.
    next: Option<(usize, u32, u64)>,
    len: ByteLen,
    runs: Runs,
    /// The start of a chunk whose end is not decided, shorter than the longest chunk.
    pending: Vec<u8>,
    /// How many bytes up to the last one were copied from one range of the basis, and where that ends.
    copied: u64,
    copy_end: u64,
    /// Empty: room for the digests of a batch.
    digests: Vec<Digest>,
}

impl Rechunker {
    /// A rechunker at the start of a target that is cut by `cutter`; a basis that was cut or digested otherwise is of no
    /// use to it.
    pub fn new(basis: Option<Arc<ChunkList>>, cutter: Cutter, algorithm: Algorithm, limits: &Limits) -> Self {
        let basis = basis.filter(|list| list.cutter() == cutter && list.algorithm() == algorithm);
        Self {
            cutter,
            algorithm,
            longest: limits.file,
            basis,
            next: None,
            len: ByteLen::ZERO,
            runs: Runs::new(limits),
            pending: Vec::new(),
            copied: 0,
            copy_end: 0,
            digests: Vec::new(),
        }
    }

    /// Takes in the next bytes of the target; `from` is where in the basis they were copied from, if they were.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] when the target is longer or has more chunks than the limits allow. The rechunker is of no use
    /// afterwards.
    pub fn push(&mut self, bytes: &[u8], from: Option<Offset>) -> Result<(), LimitExceeded> {
        let len = self.len.get().saturating_add(bytes.len() as u64);
        LimitExceeded::check("file length", len, self.longest.get())?;
        self.len = ByteLen::new(len);
        let more = bytes.len() as u64;
        (self.copied, self.copy_end) = match from.map(Offset::get) {
            Some(at) if self.copied > 0 && at == self.copy_end => (self.copied + more, at.saturating_add(more)),
            Some(at) => (more, at.saturating_add(more)),
            None => (0, 0),
        };
        let used = self.advance_pending(bytes)?;
        let rest = &bytes[used..];
        let done = self.advance(rest, 0, rest.len())?;
        self.pending.extend_from_slice(&rest[done..]);
        Ok(())
    }

    /// The chunk list of the bytes so far, which are the whole target and have this root.
    ///
    /// # Errors
    ///
    /// [`LimitExceeded`] when its last chunks pass the limit.
    pub fn finish(mut self, root: Digest) -> Result<ChunkList, LimitExceeded> {
        let pending = core::mem::take(&mut self.pending);
        let mut at = 0;
        while at < pending.len() {
            let left = (pending.len() - at) as u64;
            let to_both_ends = self.basis.as_ref().is_some_and(|basis| basis.len().get() == self.copy_end);
            if to_both_ends && let Some((run, before, _)) = self.chunk_at(left) {
                let basis = self.basis.clone().expect("it has a chunk");
                for (n, run) in basis.runs()[run..].iter().enumerate() {
                    let count = if n == 0 { run.count - before } else { run.count };
                    self.runs.add(ChunkRun { count, ..*run })?;
                }
                break;
            }
            let len = self.cutter.cut(&pending[at..], true).expect("there are bytes");
            let chunk = &pending[at..at + len];
            self.runs.add(ChunkRun::of(chunk, self.algorithm))?;
            at += len;
        }
        Ok(ChunkList::new(self.cutter, self.algorithm, root, self.runs.into_vec()))
    }

    /// Goes over the chunks that start in the pending bytes, completing them from `bytes`; returns how many of `bytes` are
    /// used up. Either nothing is pending afterwards, or all of them are used up.
    fn advance_pending(&mut self, bytes: &[u8]) -> Result<usize, LimitExceeded> {
        let before = self.pending.len();
        if before == 0 {
            return Ok(0);
        }
        // Enough to decide on every chunk that starts before `before`.
        let more = bytes.len().min(self.cutter.max_len());
        let mut pending = core::mem::take(&mut self.pending);
        pending.extend_from_slice(&bytes[..more]);
        let start = self.advance(&pending, (bytes.len() - more) as u64, before)?;
        if start >= before {
            pending.clear();
            self.pending = pending;
            return Ok(start - before);
        }
        // Where a chunk is undecided, less than a longest one follows its start, and `bytes` are part of that.
        pending.drain(..start);
        self.pending = pending;
        Ok(bytes.len())
    }

    /// Goes over the chunks that start before `stop` in `bytes`, as far as they are decided; `after` bytes that are copied
    /// if these are come behind them. Returns where the next chunk starts, which may be among the latter.
    fn advance(&mut self, bytes: &[u8], after: u64, stop: usize) -> Result<usize, LimitExceeded> {
        let mut batch = Batch::default();
        let (mut at, mut digested) = (0, 0);
        while at < stop {
            let left = (bytes.len() - at) as u64 + after;
            if let Some(chunk) = self.chunk_at(left) {
                let taken = self.take(chunk, left, &mut batch)?;
                if taken == 0 {
                    break;
                }
                at += usize::try_from(taken).expect("no more than bytes that are there");
                digested = at;
                continue;
            }
            let Some(len) = self.cutter.cut(&bytes[at..], false) else { break };
            batch.add(&bytes[at..at + len]);
            at += len;
            if at - digested >= BATCH {
                self.add_all(&mut batch)?;
                digested = at;
            }
        }
        self.add_all(&mut batch)?;
        Ok(at)
    }

    /// The chunk of the basis that starts where the last `left` bytes of the target do, if those were copied: as in
    /// `next`.
    fn chunk_at(&self, left: u64) -> Option<(usize, u32, u64)> {
        let basis = self.basis.as_ref()?;
        let at = self.copy_end.checked_sub(left).filter(|_| left <= self.copied)?;
        if self.copy_end > basis.len().get() {
            return None;
        }
        if let Some(next) = self.next.filter(|(_, _, offset)| *offset == at) {
            return Some(next);
        }
        let (run, before) = basis.chunk_at(Offset::new(at))?;
        Some((run, before, at))
    }

    /// Takes over chunks of one run of the basis, as many as are decided with `left` copied bytes from the first on; returns
    /// how many bytes they have.
    fn take(
        &mut self,
        (run, before, at): (usize, u32, u64),
        left: u64,
        batch: &mut Batch<'_>,
    ) -> Result<u64, LimitExceeded> {
        let runs = self.basis.as_ref().map_or(&[][..], |basis| basis.runs());
        let ChunkRun { digest, len, count } = runs[run];
        let Some(beyond) = left.checked_sub(self.cutter.max_len() as u64) else { return Ok(0) };
        let most = u32::try_from(beyond / u64::from(len) + 1).unwrap_or(u32::MAX);
        let taken = most.min(count - before);
        let bytes = u64::from(len) * u64::from(taken);
        let more_of_it = before + taken < count;
        self.next = if more_of_it {
            Some((run, before + taken, at + bytes))
        } else {
            (run + 1 < runs.len()).then_some((run + 1, 0, at + bytes))
        };
        self.add_all(batch)?;
        self.runs.add(ChunkRun { digest, len, count: taken })?;
        Ok(bytes)
    }

    fn add_all(&mut self, batch: &mut Batch<'_>) -> Result<(), LimitExceeded> {
        self.runs.add_all(batch, self.algorithm, &mut self.digests)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::cut::tests::{SMALL, random};

    const CUTTERS: [Cutter; 3] = [SMALL, Cutter::MinCdc { average: 256 }, Cutter::Fixed { size: 128 }];

    /// A part of a target: bytes of its own, or a range of the basis.
    #[derive(Clone, Debug)]
    enum Part {
        New(Vec<u8>),
        Copy(usize, usize),
    }

    use Part::{Copy, New};

    /// The list that is made equals that of the target, however its bytes are handed over; returns how many bytes were taken
    /// over.
    fn check_list_is_that_of_the_target(basis: &[u8], parts: &[Part], cutter: Cutter, pieces: &[usize]) {
        let algorithm = Algorithm::Blake3;
        let list = Arc::new(ChunkList::of(basis, cutter, algorithm));
        let mut rechunker = Rechunker::new(Some(list), cutter, algorithm, &Limits::default());
        let mut target = Vec::new();
        let mut pieces = pieces.iter().cycle();
        for part in parts {
            let (bytes, from) = match part {
                New(bytes) => (&bytes[..], None),
                Copy(from, len) => (&basis[*from..from + len], Some(*from)),
            };
            target.extend_from_slice(bytes);
            let mut at = 0;
            while at < bytes.len() {
                let end = bytes.len().min(at + pieces.next().expect("there are some"));
                let from = from.map(|from| Offset::new((from + at) as u64));
                rechunker.push(&bytes[at..end], from).expect("within the limits");
                assert!(rechunker.pending.len() < cutter.max_len());
                at = end;
            }
        }
        let made = rechunker.finish(algorithm.digest(&target)).expect("within the limits");
        assert_eq!(made, ChunkList::of(&target, cutter, algorithm), "{} of {} bytes", target.len(), basis.len());
    }

    fn check_with_every_cutter_and_split(basis: &[u8], parts: &[Part]) {
        for cutter in CUTTERS {
            for pieces in [&[1][..], &[95, 96, 97], &[1000, 3], &[1 << 20]] {
                check_list_is_that_of_the_target(basis, parts, cutter, pieces);
            }
        }
    }

    fn basis() -> Vec<u8> {
        let mut basis = random(21, 20_000);
        basis[7000..12_000].fill(0);
        basis
    }

    #[test]
    fn every_edit_gives_the_list_of_the_target() {
        let basis = basis();
        let len = basis.len();
        let new = |seed, len| New(random(seed, len));
        for parts in [
            vec![],
            vec![Copy(0, len)],
            vec![new(1, 3000)],
            vec![Copy(0, 5000), new(2, 100), Copy(5100, len - 5100)],
            vec![new(3, 1), Copy(0, len)],
            vec![Copy(0, len), new(4, 1)],
            vec![Copy(0, len), new(4, 700)],
            vec![Copy(1, len - 1)],
            vec![Copy(0, len - 1)],
            vec![Copy(10_000, len - 10_000), Copy(0, 10_000)],
            vec![Copy(0, len), Copy(0, len)],
            vec![Copy(0, 9000), new(5, 50), Copy(9000, len - 9000)],
            vec![Copy(0, 9000), New(vec![0; 4000]), Copy(9000, len - 9000)],
            vec![Copy(6900, 5200), Copy(6900, 5200)],
            vec![Copy(500, 40), Copy(900, 40), Copy(1300, 40), Copy(1340, 40)],
            vec![Copy(0, 300), new(6, 1), Copy(301, 300), new(7, 1), Copy(602, len - 602)],
            vec![New(vec![0; 9000]), Copy(7000, 5000), new(8, 10)],
        ] {
            check_with_every_cutter_and_split(&basis, &parts);
        }
    }

    #[test]
    fn a_copy_that_ends_anywhere_near_a_cut_point_gives_the_list_of_the_target() {
        let basis = random(22, 1500);
        for end in 1000..1500 {
            for cutter in CUTTERS {
                check_list_is_that_of_the_target(&basis, &[Copy(0, end), New(random(23, 300))], cutter, &[4096]);
                check_list_is_that_of_the_target(&basis, &[Copy(end - 1000, 1000)], cutter, &[4096]);
                check_list_is_that_of_the_target(&basis, &[New(vec![7; 5]), Copy(1500 - end, end)], cutter, &[700]);
            }
        }
    }

    /// A basis whose list is not its own: what was taken over shows, and what was cut anew is right.
    #[test]
    fn only_what_is_beside_an_edit_is_digested() {
        let bytes = random(24, 100_000);
        let list = ChunkList::of(&bytes, SMALL, Algorithm::Blake3);
        let mark = |n: usize| Digest::from_bytes([n as u8 + 1; 32]);
        let runs = list.runs().iter().enumerate().map(|(n, run)| ChunkRun { digest: mark(n % 200), ..*run });
        let marked = Arc::new(ChunkList::new(SMALL, Algorithm::Blake3, list.root(), runs.collect()));
        let mut rechunker = Rechunker::new(Some(marked), SMALL, Algorithm::Blake3, &Limits::default());
        rechunker.push(&bytes[..50_000], Some(Offset::ZERO)).expect("within the limits");
        rechunker.push(&[1; 10], None).expect("within the limits");
        rechunker.push(&bytes[50_010..], Some(Offset::new(50_010))).expect("within the limits");
        let made = rechunker.finish(Digest::default()).expect("within the limits");
        let marks = |run: &&ChunkRun| run.digest.as_bytes().iter().all(|byte| *byte == run.digest.as_bytes()[0]);
        let digested = made.runs().iter().filter(|run| !marks(run)).count();
        assert!((1..=6).contains(&digested), "{digested} of {}", made.runs().len());
        assert_eq!((made.root(), made.len()), (Digest::default(), ByteLen::of(&bytes)));
    }

    #[test]
    fn a_basis_that_was_cut_otherwise_is_not_used() {
        let bytes = random(25, 5000);
        for (cutter, algorithm) in [(CUTTERS[1], Algorithm::Blake3), (SMALL, Algorithm::Sha256)] {
            let list = Arc::new(ChunkList::of(&bytes, SMALL, Algorithm::Blake3));
            let mut rechunker = Rechunker::new(Some(list), cutter, algorithm, &Limits::default());
            rechunker.push(&bytes, Some(Offset::ZERO)).expect("within the limits");
            let made = rechunker.finish(algorithm.digest(&bytes)).expect("within the limits");
            assert_eq!(made, ChunkList::of(&bytes, cutter, algorithm));
        }
    }

    #[test]
    fn a_target_that_passes_a_limit_is_refused() {
        let list = Arc::new(ChunkList::of(&random(26, 5000), SMALL, Algorithm::Blake3));
        let limits = Limits::default().file(ByteLen::new(4000)).chunks(3);
        let mut rechunker = Rechunker::new(Some(list), SMALL, Algorithm::Blake3, &limits);
        rechunker.push(&[0; 4000], None).expect("one run");
        assert_eq!(rechunker.clone().push(&[0], None).map_err(|error| error.what), Err("file length"));
        let mut rechunker = Rechunker::new(None, SMALL, Algorithm::Blake3, &limits);
        assert_eq!(rechunker.push(&random(27, 1000), None).map_err(|error| error.what), Err("chunks of a file"));
    }

    fn part(len: usize) -> impl Strategy<Value = Part> {
        let range = (0..=len, 0..=len).prop_map(|(a, b)| Copy(a.min(b), a.abs_diff(b)));
        let new = (any::<u64>(), 0usize..400, any::<bool>())
            .prop_map(|(seed, len, zeros)| New(if zeros { vec![0; len] } else { random(seed, len) }));
        prop_oneof![3 => range, 2 => new]
    }

    proptest! {
        #[test]
        fn any_edits_give_the_list_of_the_target(
            seed: u64,
            zeros in (0usize..3000, 0usize..1000),
            parts in prop::collection::vec(part(4000), 0..8),
            pieces in prop::collection::vec(1usize..500, 1..5),
            cutter in 0..CUTTERS.len(),
        ) {
            let mut basis = random(seed, 4000);
            basis[zeros.0..zeros.0 + zeros.1].fill(0);
            check_list_is_that_of_the_target(&basis, &parts, CUTTERS[cutter], &pieces);
        }
    }
}
