//! Carries out a delta: turns a basis and delta bytes into the target, in small steps, and verifies the result.
//!
//! A [`Patcher`] is driven by whoever holds the files. It asks for one thing at a time: more delta bytes, a range of the
//! basis to copy, literal bytes to write. Each operation has been checked by a [`Planner`] before it is asked for, all
//! output is hashed as it is made, and only when its length and root are the ones the delta announces does the patcher
//! say that it is done.
//!
//! Cost: one pass of the hash over the target. Memory: the delta bytes pushed and one piece, bounded by [`Limits`].
//!
//! ```
//! use deltasync_core::{PatchError, PatchRequest, Patcher};
//!
//! fn patch(basis: &[u8], mut delta: &[u8], limits: &deltasync_core::Limits) -> Result<Vec<u8>, PatchError> {
//!     let mut target = Vec::new();
//!     let mut patcher = Patcher::new(deltasync_core::ByteLen::of(basis), limits);
//!     loop {
//!         match patcher.poll()? {
//!             PatchRequest::Delta if delta.is_empty() => break,
//!             PatchRequest::Delta => patcher.push(core::mem::take(&mut delta)),
//!             PatchRequest::Write(bytes) => target.extend_from_slice(bytes),
//!             PatchRequest::Copy { from, len } => {
//!                 let start = from.to_usize().expect("within the basis, a slice");
//!                 target.extend_from_slice(&basis[start..start + len]);
//!                 patcher.copied(&basis[start..start + len])?;
//!             }
//!             PatchRequest::Done => break,
//!         }
//!     }
//!     patcher.finish()?;
//!     Ok(target)
//! }
//! # assert!(patch(b"", b"no delta", &deltasync_core::Limits::default()).is_err());
//! ```

use alloc::vec::Vec;

use crate::{ByteLen, DeltaHeader, DeltaPart, DeltaPiece, DeltaReader, DeltaSummary, Digest, Hasher, InvalidDelta};
use crate::{Limits, Malformed, Offset, Plan, PlanError, Planner, Step};

/// The longest range of the basis that is asked for at once, in bytes.
const COPY_STEP: u64 = 256 << 10;

/// What a [`Patcher`] needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum PatchRequest<'a> {
    /// Push more bytes of the delta, or call [`Patcher::finish`] when there are none.
    Delta,
    /// Append these bytes to the output.
    Write(&'a [u8]),
    /// Append this range of the basis to the output, and hand its bytes to [`Patcher::copied`].
    Copy {
        /// Where in the basis.
        from: Offset,
        /// How many bytes, at most 256 KiB.
        len: usize,
    },
    /// The output is the target: its length and root have been verified.
    Done,
}

/// Rebuilds a target from a basis and a delta.
#[derive(Clone, Debug)]
pub struct Patcher {
    basis: ByteLen,
    limits: Limits,
    reader: DeltaReader,
    /// Delta bytes that were pushed; those before `taken` have been read.
    delta: Vec<u8>,
    taken: usize,
    state: State,
}

/// ```text
/// Opening ──header──► Patching ──end, length and root verified──► Done
///    └─────────error──────┴──────► Failed
/// ```
#[derive(Clone, Debug)]
enum State {
    Opening,
    Patching(Patching),
    Done(DeltaSummary),
    Failed(PatchError),
}

/// The state between header and end.
#[derive(Clone, Debug)]
struct Patching {
    planner: Planner,
    hasher: Hasher,
    plan: Plan,
    /// How many steps of the plan have been begun.
    begun: usize,
    literals: Vec<u8>,
    /// What is left of the copy that was begun.
    copy: Option<(Offset, ByteLen)>,
    copied: ByteLen,
    literal: ByteLen,
}

/// A request whose bytes are named by their place in the literals.
enum Next {
    Delta,
    Write(core::ops::Range<usize>),
    Copy { from: Offset, len: usize },
    Done,
}

impl Patcher {
    /// A patcher for a basis of `basis` bytes.
    pub fn new(basis: ByteLen, limits: &Limits) -> Self {
        Self {
            basis,
            limits: limits.clone(),
            reader: DeltaReader::new(limits),
            delta: Vec::new(),
            taken: 0,
            state: State::Opening,
        }
    }

    /// Takes in the next bytes of the delta and keeps them until [`poll`](Self::poll) has used them up; to bound them,
    /// push when it asks.
    pub fn push(&mut self, delta: &[u8]) {
        self.delta.drain(..self.taken);
        self.taken = 0;
        self.delta.extend_from_slice(delta);
    }

    /// Says what is needed next; each call does a bounded amount of work, that of one piece at most.
    ///
    /// # Errors
    ///
    /// [`PatchError`] when the delta is damaged, does not fit the basis, or made something else than it announces. What
    /// was written must then be thrown away; every further call yields the same error.
    ///
    /// # Security
    ///
    /// The delta may be hostile: it reads nothing outside the basis, makes at most the length it announced, and that is
    /// within the limits.
    pub fn poll(&mut self) -> Result<PatchRequest<'_>, PatchError> {
        let next = self.advance().inspect_err(|error| self.state = State::Failed(error.clone()))?;
        Ok(match (next, &self.state) {
            (Next::Write(range), State::Patching(patching)) => PatchRequest::Write(&patching.literals[range]),
            (Next::Delta | Next::Write(_), _) => PatchRequest::Delta,
            (Next::Copy { from, len }, _) => PatchRequest::Copy { from, len },
            (Next::Done, _) => PatchRequest::Done,
        })
    }

    /// Takes in bytes of the range that [`PatchRequest::Copy`] named; when they are fewer, the rest is asked for again.
    ///
    /// # Errors
    ///
    /// [`PatchError::BasisEnded`] for no bytes: the basis became shorter than it was. [`PatchError::Unasked`] for more
    /// than were asked for.
    pub fn copied(&mut self, bytes: &[u8]) -> Result<(), PatchError> {
        let copy = match &mut self.state {
            State::Patching(patching) => patching.copied(bytes),
            State::Failed(error) => Err(error.clone()),
            State::Opening | State::Done(_) => Err(PatchError::Unasked { given: bytes.len(), asked: 0 }),
        };
        copy.inspect_err(|error| self.state = State::Failed(error.clone()))
    }

    /// What the delta came to, once it is done.
    ///
    /// # Errors
    ///
    /// [`PatchError`] when the delta bytes stopped short of its end, went on behind it, or an earlier call failed.
    pub fn finish(self) -> Result<DeltaSummary, PatchError> {
        let left = self.delta.len() - self.taken;
        match self.state {
            State::Done(summary) if left == 0 => Ok(summary),
            State::Done(_) => Err(InvalidDelta::from(Malformed::Trailing(left)).into()),
            State::Opening | State::Patching(_) => Err(InvalidDelta::from(Malformed::Truncated).into()),
            State::Failed(error) => Err(error),
        }
    }

    fn advance(&mut self) -> Result<Next, PatchError> {
        loop {
            match &mut self.state {
                State::Failed(error) => return Err(error.clone()),
                State::Patching(patching) => {
                    if let Some(next) = patching.next() {
                        return Ok(next);
                    }
                }
                State::Opening | State::Done(_) => {}
            }
            let mut input = &self.delta[self.taken..];
            let part = self.reader.read(&mut input)?;
            self.taken = self.delta.len() - input.len();
            let Some(part) = part else {
                return Ok(if matches!(self.state, State::Done(_)) { Next::Done } else { Next::Delta });
            };
            self.on_part(part)?;
        }
    }

    fn on_part(&mut self, part: DeltaPart) -> Result<(), PatchError> {
        match (&mut self.state, part) {
            (State::Opening, DeltaPart::Header(header)) => {
                self.state = State::Patching(Patching::new(&header, self.basis, &self.limits)?);
                Ok(())
            }
            (State::Patching(patching), DeltaPart::Piece(piece)) => patching.begin(piece),
            (State::Patching(patching), DeltaPart::End { root }) => {
                self.state = State::Done(patching.verify(root)?);
                Ok(())
            }
            (State::Opening, DeltaPart::Piece(_) | DeltaPart::End { .. })
            | (State::Patching(_), DeltaPart::Header(_))
            | (State::Done(_) | State::Failed(_), _) => {
                unreachable!("a reader yields header, pieces, end in this order")
            }
        }
    }
}

impl Patching {
    fn new(header: &DeltaHeader, basis: ByteLen, limits: &Limits) -> Result<Self, PatchError> {
        if header.basis != basis {
            return Err(PatchError::OtherBasis { wanted: header.basis, given: basis });
        }
        Ok(Self {
            planner: Planner::new(basis, header.target, limits)?,
            hasher: header.algorithm.hasher(),
            plan: Plan::default(),
            begun: 0,
            literals: Vec::new(),
            copy: None,
            copied: ByteLen::ZERO,
            literal: ByteLen::ZERO,
        })
    }

    fn begin(&mut self, piece: DeltaPiece) -> Result<(), PatchError> {
        self.plan = self.planner.plan(&piece.ops, ByteLen::of(&piece.literals))?;
        self.begun = 0;
        self.literals = piece.literals;
        Ok(())
    }

    /// The next step of the piece, `None` when it is carried out.
    fn next(&mut self) -> Option<Next> {
        if self.copy.is_none() {
            let step = *self.plan.steps().get(self.begun)?;
            self.begun += 1;
            match step {
                Step::Copy { from, len } => self.copy = Some((from, len)),
                Step::Literal { start, len } => {
                    self.hasher.update(&self.literals[start..start + len]);
                    self.literal += ByteLen::new(len as u64);
                    return Some(Next::Write(start..start + len));
                }
            }
        }
        self.copy.map(|(from, len)| Next::Copy { from, len: len.get().min(COPY_STEP) as usize })
    }

    fn copied(&mut self, bytes: &[u8]) -> Result<(), PatchError> {
        let Some((from, len)) = self.copy else {
            return Err(PatchError::Unasked { given: bytes.len(), asked: 0 });
        };
        let asked = len.get().min(COPY_STEP) as usize;
        if bytes.len() > asked {
            return Err(PatchError::Unasked { given: bytes.len(), asked });
        }
        if bytes.is_empty() {
            return Err(PatchError::BasisEnded { at: from });
        }
        self.hasher.update(bytes);
        let made = ByteLen::of(bytes);
        self.copied += made;
        self.copy = (made < len).then(|| (from + made, len - made));
        Ok(())
    }

    fn verify(&mut self, announced: Digest) -> Result<DeltaSummary, PatchError> {
        self.planner.finish()?;
        let root = self.hasher.clone().finish();
        if root != announced {
            return Err(PatchError::OtherRoot { announced, made: root });
        }
        Ok(DeltaSummary { copied: self.copied, literal: self.literal, root })
    }
}

/// Why a delta could not be carried out, or made something else than it announces.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The delta cannot be read.
    #[error(transparent)]
    Delta(#[from] InvalidDelta),
    /// Its operations do not fit the basis or the announced length.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It was made for another basis.
    #[error("delta is for a basis of {wanted} bytes, this one has {given}")]
    OtherBasis {
        /// The length of the basis it was made for.
        wanted: ByteLen,
        /// The length of the one at hand.
        given: ByteLen,
    },
    /// The basis turned out shorter than it was at the start.
    #[error("basis ends at offset {at}, within a copy")]
    BasisEnded {
        /// Where the bytes ended.
        at: Offset,
    },
    /// The caller gave bytes of the basis that were not asked for.
    #[error("{given} bytes of the basis given, {asked} asked for")]
    Unasked {
        /// How many came.
        given: usize,
        /// How many were asked for.
        asked: usize,
    },
    /// The result is not the target: the basis is another one, or the delta is damaged.
    #[error("result has root {made}, the delta announces {announced}")]
    OtherRoot {
        /// What the delta says.
        announced: Digest,
        /// What came out.
        made: Digest,
    },
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::{Algorithm, DeltaWriter, Differ, Op, Signature, SignatureIndex};

    fn delta(basis: &[u8], target: &[u8], algorithm: Algorithm) -> Vec<u8> {
        let limits = Limits::default();
        let builder = Signature::builder(ByteLen::of(basis)).block_len(32).algorithm(algorithm);
        let mut signer = builder.build(&limits).expect("in range");
        signer.push(basis);
        let signature = signer.finish().expect("as long as announced");
        let mut differ = Differ::new(SignatureIndex::new(signature), &limits.piece(100));
        let mut out = Vec::new();
        let header = DeltaHeader { algorithm, basis: ByteLen::of(basis), target: ByteLen::of(target) };
        let mut writer = DeltaWriter::new(header, &mut out);
        differ.push(target);
        while let Some(piece) = differ.next_piece() {
            writer.piece(&piece, &mut out);
        }
        let (pieces, summary) = differ.finish(header.algorithm.digest(target));
        pieces.iter().for_each(|piece| writer.piece(piece, &mut out));
        writer.finish(summary.root, &mut out).expect("as long as announced");
        out
    }

    /// Patches with delta bytes in a split, and at most `read` bytes of the basis at a time.
    fn patch(basis: &[u8], delta: &[u8], split: usize, read: usize) -> Result<(Vec<u8>, DeltaSummary), PatchError> {
        let mut patcher = Patcher::new(ByteLen::of(basis), &Limits::default());
        let mut parts = delta.chunks(split);
        let mut target = Vec::new();
        loop {
            match patcher.poll()? {
                PatchRequest::Delta => match parts.next() {
                    Some(part) => patcher.push(part),
                    None => break,
                },
                PatchRequest::Write(bytes) => target.extend_from_slice(bytes),
                PatchRequest::Copy { from, len } => {
                    let bytes = &basis[from.to_usize().expect("fits memory")..][..len.min(read)];
                    target.extend_from_slice(bytes);
                    patcher.copied(bytes)?;
                }
                PatchRequest::Done => match parts.next() {
                    Some(part) => patcher.push(part),
                    None => break,
                },
            }
        }
        patcher.finish().map(|summary| (target, summary))
    }

    fn check_patch_makes_the_target(basis: &[u8], target: &[u8], split: usize, read: usize) {
        for algorithm in Algorithm::ALL {
            let (made, summary) = patch(basis, &delta(basis, target, algorithm), split, read).expect("a good delta");
            assert_eq!(made, target);
            assert_eq!((summary.target(), summary.root), (ByteLen::of(target), algorithm.digest(target)));
        }
    }

    fn sample() -> (Vec<u8>, Vec<u8>) {
        let basis: Vec<u8> = (0..2000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
        let target = [&basis[1000..], b"new bytes".as_slice(), &basis[..700]].concat();
        (basis, target)
    }

    #[test]
    fn patching_makes_the_target_at_the_edges() {
        let (basis, target) = sample();
        for (b, t) in [(0, 0), (0, 1), (1, 0), (1, 1), (31, 31), (32, 32), (33, 33), (2000, 1709), (0, 500)] {
            check_patch_makes_the_target(&basis[..b], &target[..t], 1, 1);
            check_patch_makes_the_target(&basis[..b], &target[..t], 1 << 20, 1 << 20);
        }
        check_patch_makes_the_target(&vec![5; 1 << 20], &vec![5; 1 << 20], 1000, 1 << 20);
    }

    #[test]
    fn a_basis_that_is_another_one_is_found_out() {
        let (mut basis, target) = sample();
        let delta = delta(&basis, &target, Algorithm::Blake3);
        let error = patch(&basis[1..], &delta, 64, 64).expect_err("another length");
        assert_eq!(error.to_string(), "delta is for a basis of 2000 bytes, this one has 1999");
        basis[1500] ^= 1;
        assert!(matches!(patch(&basis, &delta, 64, 64), Err(PatchError::OtherRoot { .. })));
    }

    #[test]
    fn a_delta_that_stops_short_or_goes_on_is_refused() {
        let (basis, target) = sample();
        let delta = delta(&basis, &target, Algorithm::Blake3);
        for cut in 0..delta.len() {
            let error = patch(&basis, &delta[..cut], 64, 4096).expect_err("cut");
            assert_eq!(error.to_string(), "delta is damaged: bytes end within a value", "cut at {cut}");
        }
        for split in [1, delta.len(), 1 << 20] {
            let error = patch(&basis, &[&delta[..], b"more"].concat(), split, 4096).expect_err("goes on");
            assert!(matches!(error, PatchError::Delta(InvalidDelta::Malformed(Malformed::Trailing(_)))), "{error}");
        }
    }

    #[test]
    fn bytes_pushed_behind_the_end_are_found_out_whether_polled_or_not() {
        let end = delta(&[], &[], Algorithm::Blake3);
        let mut patcher = Patcher::new(ByteLen::ZERO, &Limits::default());
        patcher.push(&end);
        assert_eq!(patcher.poll(), Ok(PatchRequest::Done));
        patcher.push(b"more");
        let trailing = PatchError::Delta(InvalidDelta::Malformed(Malformed::Trailing(4)));
        assert_eq!(patcher.clone().finish(), Err(trailing.clone()));
        assert_eq!(patcher.poll(), Err(trailing));
    }

    #[test]
    fn any_damaged_bit_of_a_delta_is_found_out() {
        let (basis, target) = sample();
        let delta = delta(&basis, &target, Algorithm::Blake3);
        for bit in 0..delta.len() * 8 {
            let mut damaged = delta.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let result = patch(&basis, &damaged, 64, 4096);
            assert!(result.is_err(), "bit {} of byte {}", bit % 8, bit / 8);
        }
    }

    #[test]
    fn a_copy_past_the_basis_is_refused_before_it_is_asked_for() {
        let header = DeltaHeader { algorithm: Algorithm::Blake3, basis: ByteLen::new(10), target: ByteLen::new(100) };
        let mut out = Vec::new();
        let mut writer = DeltaWriter::new(header, &mut out);
        let ops = [Op::Copy { from: Offset::new(5), len: ByteLen::new(6) }].into_iter().collect();
        writer.piece(&DeltaPiece { ops, literals: Vec::new() }, &mut out);
        let error = patch(&[0; 10], &out, 64, 64).expect_err("past the basis");
        assert_eq!(error.to_string(), "copy of 6 bytes at offset 5 runs past the basis (10 bytes)");
    }

    #[test]
    fn bytes_of_the_basis_are_taken_when_asked_for() {
        let (basis, target) = sample();
        let mut patcher = Patcher::new(ByteLen::of(&basis), &Limits::default());
        patcher.push(&delta(&basis, &target, Algorithm::Blake3));
        assert!(matches!(patcher.clone().copied(b"early"), Err(PatchError::Unasked { given: 5, asked: 0 })));
        while !matches!(patcher.poll().expect("a good delta"), PatchRequest::Copy { .. }) {}
        assert!(matches!(patcher.clone().copied(&[0; 1 << 20]), Err(PatchError::Unasked { .. })));
        let ended = patcher.copied(&[]).expect_err("the basis ended");
        assert!(matches!(ended, PatchError::BasisEnded { .. }), "{ended}");
        assert_eq!(patcher.poll().expect_err("stays failed"), ended);
        assert_eq!(patcher.finish().expect_err("stays failed"), ended);
    }

    proptest! {
        #[test]
        fn any_bytes_patch_or_fail(bytes in vec(any::<u8>(), 0..100), split in 1usize..20) {
            let mut delta = Vec::new();
            let len = ByteLen::new(50);
            DeltaWriter::new(DeltaHeader { algorithm: Algorithm::Blake3, basis: len, target: len }, &mut delta);
            delta.extend(bytes);
            prop_assert!(patch(&[1; 50], &delta, split, 7).is_err(), "no root is guessed");
        }

        #[test]
        fn patching_makes_the_target(
            basis in vec(0u8..3, 0..800),
            start: prop::sample::Index,
            new in vec(any::<u8>(), 0..200),
            split in 1usize..300,
            read in 1usize..300,
        ) {
            let start = start.index(basis.len() + 1);
            let target = [&basis[start..], &new, &basis[..start]].concat();
            check_patch_makes_the_target(&basis, &target, split, read);
        }
    }
}
