//! How the bytes of a target get into its stage: one pass over pieces that are read, listed, written and hashed while they
//! are in the cache.
//!
//! Steps are appended through buffers of 256 KiB, so that many small ones cost one write. When the basis was described,
//! the target's chunk list is made from that of the basis on the way ([`Rechunker`]). The hash, which costs about as much
//! as the writing, is left to a thread of its own for a long plan, as long as there are cores that no other stage has
//! taken for that; else it comes right behind each write.
//!
//! Blocks of 64 KiB of zeros at such offsets are not written: they become holes where the file system has those, and a
//! sparse target stays sparse. Room is set aside ahead of the bytes, as much again as has come, until the first of them is
//! met.
//!
//! Invariant: the hash has taken in all that was written and not one byte more, also after a fault.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use deltasync_core::{ByteLen, ChunkList, Digest, Offset, Plan, Rechunker, Step};
use deltasync_proto::{FaultKind, StorageFault};

use super::{AHEAD, Stage, State};
use crate::fault::{fault, system_fault};
use crate::local::listed::LEAST;
use crate::local::opened::Opened;
use crate::source::{Looks, PIECE, give_back, take_buffer};

/// Zeros of this length, at a multiple of it, are left out.
const HOLE: usize = 64 << 10;

/// The least that is set aside ahead of what is written, in bytes.
const AHEAD_LEAST: u64 = 1 << 20;

/// A plan of so many bytes is worth a thread.
const LONG: u64 = 4 << 20;

/// How many buffers are on their way, one of them being filled and one being hashed.
const BUFFERS: usize = 3;

/// How many threads hash for stages now.
static HASHING: AtomicUsize = AtomicUsize::new(0);

/// The list of a target in the making.
#[derive(Debug)]
pub(super) struct Listing {
    rechunker: Rechunker,
    basis: Arc<ChunkList>,
    /// How the basis looked.
    pub(super) looks: Looks,
}

/// What goes to the hash.
enum Piece<'a> {
    Filled(Vec<u8>, usize),
    Lent(&'a [u8]),
}

/// Who hashes.
enum Hashing<'a> {
    /// We do.
    Here,
    /// Another thread, which gives the buffers back.
    There { pieces: SyncSender<Piece<'a>>, buffers: Receiver<Vec<u8>> },
}

/// The end of a stage that is written to.
struct Output<'a> {
    stage: &'a Stage,
    state: &'a mut State,
    hashing: Hashing<'a>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Stage {
    /// Appends the steps of a plan.
    pub(in crate::local) fn apply(
        &self,
        basis: Option<&Opened>,
        plan: &Plan,
        literals: &[u8],
    ) -> Result<(), StorageFault> {
        let mut state = self.open_state()?;
        let state = &mut *state;
        self.follow(state, basis);
        let taken = if plan.len() >= ByteLen::new(LONG) { Core::take() } else { None };
        let Some(_core) = taken else {
            let mut output = Output::new(self, state, Hashing::Here);
            return output.all(basis, plan, literals);
        };
        // The state keeps the hash as it was while the other thread has it.
        let mut hasher = state.hasher.clone();
        let (hashed, done) = thread::scope(|scope| {
            let (pieces, taken) = sync_channel(BUFFERS);
            let (give, buffers) = sync_channel(BUFFERS);
            (1..BUFFERS).for_each(|_| drop(give.try_send(Vec::new())));
            let hash = move || {
                for piece in taken {
                    match piece {
                        Piece::Filled(buffer, len) => {
                            hasher.update(&buffer[..len]);
                            // Nobody wants it back at the end.
                            let _ = give.try_send(buffer);
                        }
                        Piece::Lent(bytes) => hasher.update(bytes),
                    }
                }
                hasher
            };
            let hashing = thread::Builder::new().name("hash".into()).spawn_scoped(scope, hash);
            let (hashing, way) = match hashing {
                Ok(handle) => (Some(handle), Hashing::There { pieces, buffers }),
                Err(_) => (None, Hashing::Here),
            };
            let mut output = Output::new(self, state, way);
            let done = output.all(basis, plan, literals);
            drop(output);
            (hashing.map(|handle| handle.join().expect("a hash does not panic")), done)
        });
        if let Some(hasher) = hashed {
            state.hasher = hasher;
        }
        done
    }

    /// Begins or goes on with the target's list, as long as all copies come from one basis that was described.
    fn follow(&self, state: &mut State, basis: Option<&Opened>) {
        let described = basis.and_then(|basis| Some((basis, basis.chunks()?)));
        let same = match (&state.listing, described) {
            (Some(listing), Some((_, chunks))) => Arc::ptr_eq(&listing.basis, chunks),
            (None, _) => true,
            (Some(_), None) => basis.is_none(),
        };
        if !same {
            state.listing = None;
        }
        if let (0, Some(limits), Some((basis, chunks))) = (state.written, &self.listing, described)
            && self.len >= LEAST
        {
            let basis_list = Some(Arc::clone(chunks));
            let rechunker = Rechunker::new(basis_list, chunks.cutter(), self.algorithm, limits);
            state.listing = Some(Listing { rechunker, basis: Arc::clone(chunks), looks: basis.looks() });
        }
    }

    /// The chunk list of the target, when it has the root that was announced: a wrong list of the basis makes no other one.
    pub(super) fn finish_list(&self, state: &mut State, root: Digest) -> Option<Arc<ChunkList>> {
        if let Some(listing) = state.listing.take()
            && root == self.root
        {
            let list = listing.rechunker.finish(root).ok();
            state.list = list.filter(|list| list.len().get() == self.len).map(Arc::new);
        }
        state.list.clone()
    }

    /// Makes the file as long as what was appended, where its end was left out.
    pub(super) fn settle_len(&self, state: &mut State) -> std::io::Result<()> {
        if state.file_len < state.written {
            self.file.set_len(state.written)?;
            state.file_len = state.written;
        }
        Ok(())
    }

    /// Claims room for `len` more bytes and some beyond, and has the disk set it aside.
    fn claim(&self, state: &mut State, len: u64) -> Result<(), StorageFault> {
        let end = state.written + len;
        if end <= state.claimed {
            return Ok(());
        }
        let ahead = state.written.saturating_add(AHEAD).max(end).min(self.len);
        if let Some((staging, _)) = &self.ours {
            staging.claim(ahead - state.claimed).map_err(|error| fault(FaultKind::Full, &self.place.path, error))?;
        }
        state.claimed = ahead;
        Ok(())
    }

    /// Writes bytes behind those that were written, but for blocks of zeros.
    fn write(&self, state: &mut State, piece: &[u8]) -> Result<(), StorageFault> {
        if piece.len() as u64 > self.len - state.written {
            return Err(self.fault(format_args!("more than the announced {} bytes", self.len)));
        }
        self.claim(state, piece.len() as u64)?;
        let (mut rest, mut at) = (piece, state.written);
        while !rest.is_empty() {
            let (zeros, data) = split(rest, at);
            at += zeros as u64;
            state.sparse |= zeros > 0;
            rest = &rest[zeros..];
            if data > 0 {
                self.write_data(state, &rest[..data], at)?;
                at += data as u64;
                rest = &rest[data..];
                state.file_len = at;
            }
        }
        Ok(())
    }

    fn write_data(&self, state: &mut State, data: &[u8], at: u64) -> Result<(), StorageFault> {
        let end = at + data.len() as u64;
        // What comes in one piece is written at once.
        if end > state.aside && !state.sparse && (at > 0 || end < self.len) {
            // About as much as has come: so what is not needed, when zeros follow, is no more than that.
            let ahead = end.saturating_add(end.clamp(AHEAD_LEAST, AHEAD)).min(self.len);
            let aside = self.making_room(|| self.file.set_aside(ahead));
            aside.map_err(|error| system_fault(&self.place.path, &error))?;
            state.aside = ahead;
        }
        let written = self.making_room(|| self.file.write_all_at(data, at));
        written.map_err(|error| system_fault(&self.place.path, &error))
    }
}

impl<'a> Output<'a> {
    fn new(stage: &'a Stage, state: &'a mut State, hashing: Hashing<'a>) -> Self {
        Self { stage, state, hashing, buffer: take_buffer(), filled: 0 }
    }

    fn all(&mut self, basis: Option<&Opened>, plan: &Plan, literals: &'a [u8]) -> Result<(), StorageFault> {
        for step in plan.steps() {
            match *step {
                Step::Literal { start, len } => {
                    let end = start.checked_add(len);
                    let piece = end.and_then(|end| literals.get(start..end));
                    self.literal(piece.ok_or_else(|| self.stage.fault("fewer literals than the plan has"))?)?;
                }
                Step::Copy { from, len } => {
                    let basis = basis.ok_or_else(|| self.stage.fault("a copy without a basis"))?;
                    self.copy(basis, from, len)?;
                }
            }
        }
        self.flush()
    }

    fn literal(&mut self, mut piece: &'a [u8]) -> Result<(), StorageFault> {
        list(&mut self.state.listing, None, piece);
        if piece.len() >= PIECE {
            self.flush()?;
            self.stage.write(self.state, piece)?;
            self.state.written += piece.len() as u64;
            match &self.hashing {
                Hashing::Here => self.state.hasher.update(piece),
                Hashing::There { pieces, .. } => self.hand_over(pieces, Piece::Lent(piece))?,
            }
            return Ok(());
        }
        while !piece.is_empty() {
            let len = piece.len().min(self.room());
            let (now, later) = piece.split_at(len);
            self.buffer[self.filled..self.filled + len].copy_from_slice(now);
            self.filled += len;
            self.flush_if_full()?;
            piece = later;
        }
        Ok(())
    }

    fn copy(&mut self, basis: &Opened, mut from: Offset, mut left: ByteLen) -> Result<(), StorageFault> {
        while left > ByteLen::ZERO {
            let room = self.room();
            let len = left.to_usize().map_or(room, |left| left.min(room));
            let piece = &mut self.buffer[self.filled..self.filled + len];
            basis.read_exactly(piece, from.get())?;
            list(&mut self.state.listing, Some(from), piece);
            self.filled += len;
            self.flush_if_full()?;
            let len = ByteLen::new(len as u64);
            (from, left) = (from + len, left - len);
        }
        Ok(())
    }

    /// What the buffer has room for until it is written: up to where blocks begin, so that none is written in two parts.
    fn room(&self) -> usize {
        PIECE - (self.state.written % HOLE as u64) as usize - self.filled
    }

    fn flush_if_full(&mut self) -> Result<(), StorageFault> {
        if self.room() > 0 { Ok(()) } else { self.flush() }
    }

    /// Writes out what the buffer holds.
    fn flush(&mut self) -> Result<(), StorageFault> {
        let len = std::mem::take(&mut self.filled);
        if len == 0 {
            return Ok(());
        }
        self.stage.write(self.state, &self.buffer[..len])?;
        self.state.written += len as u64;
        match &self.hashing {
            Hashing::Here => self.state.hasher.update(&self.buffer[..len]),
            Hashing::There { pieces, buffers } => {
                let full = std::mem::take(&mut self.buffer);
                self.hand_over(pieces, Piece::Filled(full, len))?;
                self.buffer = buffers.recv().map_err(|_| self.stage.fault("nobody hashes"))?;
                self.buffer.resize(PIECE, 0);
            }
        }
        Ok(())
    }

    fn hand_over(&self, pieces: &SyncSender<Piece<'a>>, piece: Piece<'a>) -> Result<(), StorageFault> {
        pieces.send(piece).map_err(|_| self.stage.fault("nobody hashes"))
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.buffer));
    }
}

/// Goes on with a list, and gives up one that passes a limit.
fn list(listing: &mut Option<Listing>, from: Option<Offset>, piece: &[u8]) {
    if let Some(going) = listing
        && going.rechunker.push(piece, from).is_err()
    {
        *listing = None;
    }
}

/// A core that hashes for one stage.
struct Core;

impl Core {
    /// One that no stage has taken, besides that on which each of them writes.
    fn take() -> Option<Self> {
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores = *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from));
        let free = |taken: usize| (2 * (taken + 1) <= cores).then_some(taken + 1);
        HASHING.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).is_ok().then(|| Self)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        HASHING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How many bytes at the start, which stands at offset `at`, are whole blocks of zeros, and how many behind them are not.
fn split(bytes: &[u8], at: u64) -> (usize, usize) {
    let first = (HOLE - (at % HOLE as u64) as usize) % HOLE;
    if first > 0 {
        // Up to where blocks begin, and on to the first that is zeros.
        let start = first.min(bytes.len());
        return (0, start + data(&bytes[start..]));
    }
    let zeros = bytes.chunks_exact(HOLE).take_while(|block| is_zeros(block)).count() * HOLE;
    (zeros, data(&bytes[zeros..]))
}

/// How many bytes stand before the first whole block of zeros.
fn data(bytes: &[u8]) -> usize {
    let block = bytes.chunks_exact(HOLE).position(is_zeros);
    block.map_or(bytes.len(), |block| block * HOLE)
}

/// Looks at a few bytes first, since most blocks are not.
fn is_zeros(block: &[u8]) -> bool {
    let (start, rest) = block.split_at(64.min(block.len()));
    start.iter().all(|byte| *byte == 0) && rest.chunks(64).all(|part| part.iter().fold(0, |or, byte| or | byte) == 0)
}

/// The digest of a stage, and how the basis looked if the digest is not the announced one.
#[derive(Debug)]
pub(in crate::local) struct Sealed {
    pub(in crate::local) digest: Digest,
    /// Its list may be a wrong one.
    pub(in crate::local) doubtful: Option<Looks>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is left out is zeros in whole blocks, and all such blocks are.
    fn check_split(bytes: &[u8], start: u64) {
        let (mut rest, mut at) = (bytes, start);
        let mut left_out = 0;
        while !rest.is_empty() {
            let (zeros, data) = split(rest, at);
            assert!(zeros + data > 0 && (zeros == 0 || at.is_multiple_of(HOLE as u64)));
            assert!(zeros.is_multiple_of(HOLE) && rest[..zeros].iter().all(|byte| *byte == 0));
            left_out += zeros;
            rest = &rest[zeros + data..];
            at += (zeros + data) as u64;
        }
        let first = (HOLE - (start % HOLE as u64) as usize) % HOLE;
        let blocks = bytes.get(first..).unwrap_or_default().chunks_exact(HOLE);
        let all: usize = blocks.filter(|block| block.iter().all(|byte| *byte == 0)).map(<[u8]>::len).sum();
        assert_eq!(left_out, all, "{} bytes at {start}", bytes.len());
    }

    #[test]
    fn whole_blocks_of_zeros_are_left_out() {
        for len in [0, 1, HOLE - 1, HOLE, HOLE + 1, 4 * HOLE] {
            for start in [0, 1, HOLE as u64 - 1, HOLE as u64, 5 * HOLE as u64 + 7] {
                let mut bytes = vec![0; len];
                check_split(&bytes, start);
                for at in [0, 63, 64, len / 2, len.saturating_sub(1)] {
                    bytes.get_mut(at).into_iter().for_each(|byte| *byte = 1);
                    check_split(&bytes, start);
                    bytes.fill(0);
                }
                check_split(&vec![1; len], start);
            }
        }
    }

    proptest! {
        #[test]
        fn all_blocks_of_zeros_are_left_out(
            marks in prop::collection::vec(0usize..8 * HOLE, 0..6),
            len in 0usize..8 * HOLE,
            start in 0u64..2 * HOLE as u64,
        ) {
            let mut bytes = vec![0; len];
            marks.iter().for_each(|at| bytes.get_mut(*at).into_iter().for_each(|byte| *byte = 1));
            check_split(&bytes, start);
        }
    }

    #[test]
    fn half_of_the_cores_hash_at_once() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let taken: Vec<_> = std::iter::from_fn(Core::take).take(cores + 1).collect();
        assert!(taken.len() <= cores / 2);
    }
}
