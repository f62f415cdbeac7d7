//! Reads a delta back from bytes that come in any split.
//!
//! The format is drawn in `delta.rs`. A [`DeltaReader`] holds the head of a part, at most some 40 bytes, or the body of
//! one piece, and yields each part as soon as it is whole. What it yields is well-formed, and its literals are as many as
//! its operations use; whether the operations fit a basis is for a [`Planner`](crate::Planner) to say.
//!
//! Cost: linear in the bytes. Memory: one piece, bounded by [`Limits`].
//!
//! Invariant: any split yields the same parts, and bytes that no writer wrote are an error or a well-formed delta.

use alloc::vec::Vec;

use crate::delta::{END, PACKED};
use crate::opening::read_opening;
use crate::{ByteLen, DeltaHeader, DeltaPart, DeltaPiece, Digest, FileFormat, InvalidOpening, InvalidOps};
use crate::{LimitExceeded, Limits, Malformed, Op, Reader, UnpackError, decode_ops, unpack};

/// Reads a delta from bytes that come in any split.
#[derive(Clone, Debug)]
pub struct DeltaReader {
    limits: Limits,
    state: State,
    /// The start of what is being read: the head of a part, or its body.
    held: Vec<u8>,
}

/// ```text
/// Opening ──header──► Head ──kind, lengths──► Body ──operations, literals──► Head
///                      └────end, root────► Ended
/// ```
#[derive(Clone, Copy, Debug)]
enum State {
    Opening,
    Head,
    Body(Lengths),
    Ended,
}

/// The lengths in the head of a piece, in bytes, all within the limits.
#[derive(Clone, Copy, Debug)]
struct Lengths {
    columns: usize,
    literals: usize,
    /// `None` when the literals are raw.
    packed: Option<usize>,
}

impl DeltaReader {
    /// A reader at the start of a delta.
    pub fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), state: State::Opening, held: Vec::new() }
    }

    /// Takes bytes off the front of `input` until a part is whole; `None` when all are taken and more are needed.
    ///
    /// # Errors
    ///
    /// [`InvalidDelta`] when the bytes are no delta, are damaged or hold more than the limits allow. The reader is of no
    /// use afterwards.
    ///
    /// # Security
    ///
    /// Takes hostile bytes: holds at most one piece, whose lengths met the limits before anything was allocated, and
    /// unpacks literals only when the operations use exactly as many.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<DeltaPart>, InvalidDelta> {
        loop {
            match self.state {
                State::Opening => match self.read_head(input, read_header)? {
                    None => return Ok(None),
                    Some(header) => {
                        LimitExceeded::check("file length", header.basis.get(), self.limits.file.get())?;
                        LimitExceeded::check("file length", header.target.get(), self.limits.file.get())?;
                        self.state = State::Head;
                        return Ok(Some(DeltaPart::Header(header)));
                    }
                },
                State::Head => match self.read_head(input, Head::read)? {
                    None => return Ok(None),
                    Some(Head::Piece(lengths)) => {
                        lengths.check(&self.limits)?;
                        self.state = State::Body(lengths);
                    }
                    Some(Head::End { root }) => {
                        self.state = State::Ended;
                        return Ok(Some(DeltaPart::End { root }));
                    }
                },
                State::Body(lengths) => {
                    let missing = lengths.body() - self.held.len();
                    let (head, rest) = input.split_at(missing.min(input.len()));
                    *input = rest;
                    self.held.extend_from_slice(head);
                    if head.len() < missing {
                        return Ok(None);
                    }
                    let piece = read_body(&self.held, lengths, &self.limits)?;
                    self.held.clear();
                    self.state = State::Head;
                    return Ok(Some(DeltaPart::Piece(piece)));
                }
                State::Ended if input.is_empty() => return Ok(None),
                State::Ended => return Err(Malformed::Trailing(input.len()).into()),
            }
        }
    }

    /// `Ok` when the delta has been read to its end.
    ///
    /// # Errors
    ///
    /// [`InvalidDelta::Malformed`] when the bytes so far stop short of it.
    pub fn finish(&self) -> Result<(), InvalidDelta> {
        match self.state {
            State::Ended => Ok(()),
            State::Opening | State::Head | State::Body(_) => Err(Malformed::Truncated.into()),
        }
    }

    /// Takes byte after byte, since a head is at most some 40 bytes and only its own fields say how many.
    fn read_head<T>(
        &mut self,
        input: &mut &[u8],
        read: impl Fn(&mut Reader<'_>) -> Result<T, InvalidDelta>,
    ) -> Result<Option<T>, InvalidDelta> {
        while let Some((byte, rest)) = input.split_first() {
            *input = rest;
            self.held.push(*byte);
            match read(&mut Reader::new(&self.held)) {
                Err(error) if error.is_truncated() => {}
                Err(error) => return Err(error),
                Ok(head) => {
                    self.held.clear();
                    return Ok(Some(head));
                }
            }
        }
        Ok(None)
    }
}

fn read_header(reader: &mut Reader<'_>) -> Result<DeltaHeader, InvalidDelta> {
    let algorithm = read_opening(FileFormat::Delta, reader)?;
    let basis = ByteLen::new(reader.varint()?);
    let target = ByteLen::new(reader.varint()?);
    Ok(DeltaHeader { algorithm, basis, target })
}

/// What stands before the body of a part.
enum Head {
    Piece(Lengths),
    End { root: Digest },
}

impl Head {
    fn read(reader: &mut Reader<'_>) -> Result<Self, InvalidDelta> {
        let kind = reader.byte()?;
        if kind == END {
            return Ok(Self::End { root: Digest::from_bytes(reader.array()?) });
        }
        if kind > END {
            return Err(Malformed::Value("a part of no known kind").into());
        }
        let len = |reader: &mut Reader<'_>| reader.varint().map(|len| usize::try_from(len).unwrap_or(usize::MAX));
        let (columns, literals) = (len(reader)?, len(reader)?);
        let packed = if kind == PACKED { Some(len(reader)?) } else { None };
        Ok(Self::Piece(Lengths { columns, literals, packed }))
    }
}

impl Lengths {
    fn check(&self, limits: &Limits) -> Result<(), InvalidDelta> {
        // A pair of operations takes at most three varints of ten bytes, and their number one.
        let columns = (limits.ops as u64 / 2).saturating_mul(30).saturating_add(10);
        LimitExceeded::check("length of operations", self.columns as u64, columns)?;
        LimitExceeded::check("literal bytes in a piece", self.literals as u64, limits.piece as u64)?;
        if self.packed.is_some_and(|packed| packed >= self.literals) {
            return Err(Malformed::Value("packed literals are not shorter than raw ones").into());
        }
        Ok(())
    }

    /// The bytes of operations and literals together; each has met its limit.
    fn body(&self) -> usize {
        self.columns.saturating_add(self.packed.unwrap_or(self.literals))
    }
}

fn read_body(body: &[u8], lengths: Lengths, limits: &Limits) -> Result<DeltaPiece, InvalidDelta> {
    let (columns, literals) = body.split_at(lengths.columns);
    let mut reader = Reader::new(columns);
    let ops = decode_ops(&mut reader, limits)?;
    reader.finish()?;
    if ops.is_empty() {
        return Err(Malformed::Value("a piece makes nothing").into());
    }
    let literal = |op: &Op| if let Op::Literal { len } = op { *len } else { ByteLen::ZERO };
    let wanted = ops.as_slice().iter().map(literal).try_fold(ByteLen::ZERO, ByteLen::checked_add);
    if wanted != Some(ByteLen::new(lengths.literals as u64)) {
        return Err(Malformed::Value("operations use another number of literal bytes than came").into());
    }
    let literals = match lengths.packed {
        None => literals.to_vec(),
        Some(_) => unpack(literals, lengths.literals)?,
    };
    Ok(DeltaPiece { ops, literals })
}

/// Why bytes are no delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDelta {
    /// They do not begin as one.
    #[error(transparent)]
    Opening(#[from] InvalidOpening),
    /// A piece's operations cannot be read.
    #[error(transparent)]
    Ops(#[from] InvalidOps),
    /// A piece's literals do not unpack.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Something in it is larger than we allow.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// The bytes are damaged.
    #[error("delta is damaged: {0}")]
    Malformed(#[from] Malformed),
}

impl InvalidDelta {
    fn is_truncated(&self) -> bool {
        matches!(
            self,
            Self::Malformed(Malformed::Truncated) | Self::Opening(InvalidOpening::Malformed(Malformed::Truncated))
        )
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::delta::RAW;
    use crate::{Algorithm, DeltaWriter, Offset, write_varint};

    const ROOT: Digest = Digest::from_bytes([7; 32]);

    fn copy(from: u64, len: u64) -> Op {
        Op::Copy { from: Offset::new(from), len: ByteLen::new(len) }
    }

    /// A piece that writes `literal` and then copies `len` bytes.
    fn piece(literal: &[u8], from: u64, len: u64) -> DeltaPiece {
        let ops = [Op::Literal { len: ByteLen::of(literal) }, copy(from, len)];
        DeltaPiece { ops: ops.into_iter().collect(), literals: literal.to_vec() }
    }

    fn parts(pieces: &[DeltaPiece]) -> Vec<DeltaPart> {
        let target = pieces.iter().flat_map(|piece| piece.ops.as_slice()).map(Op::len).sum();
        let header = DeltaHeader { algorithm: Algorithm::Blake3, basis: ByteLen::new(1000), target };
        let mut parts = vec![DeltaPart::Header(header)];
        parts.extend(pieces.iter().cloned().map(DeltaPart::Piece));
        parts.push(DeltaPart::End { root: ROOT });
        parts
    }

    fn write(parts: &[DeltaPart]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = None;
        for part in parts {
            match part {
                DeltaPart::Header(header) => writer = Some(DeltaWriter::new(*header, &mut out)),
                DeltaPart::Piece(piece) => writer.as_mut().expect("begun").piece(piece, &mut out),
                DeltaPart::End { root } => writer.take().expect("begun").finish(*root, &mut out).expect("whole"),
            }
        }
        out
    }

    fn read(bytes: &[u8], limits: &Limits, split: usize) -> Result<Vec<DeltaPart>, InvalidDelta> {
        let mut reader = DeltaReader::new(limits);
        let mut parts = Vec::new();
        for mut input in bytes.chunks(split) {
            while let Some(part) = reader.read(&mut input)? {
                parts.push(part);
            }
            assert!(input.is_empty(), "all is taken when more is needed");
        }
        reader.finish().map(|()| parts)
    }

    fn check_round_trip(pieces: &[DeltaPiece], split: usize) {
        let parts = parts(pieces);
        let bytes = write(&parts);
        assert_eq!(read(&bytes, &Limits::default(), split), Ok(parts));
        for cut in [0, 1, 7, bytes.len() / 2, bytes.len() - 1] {
            let error = read(&bytes[..cut], &Limits::default(), split).expect_err("cut");
            assert!(error.is_truncated(), "cut at {cut}: {error}");
        }
        let longer = [bytes, vec![0]].concat();
        assert_eq!(read(&longer, &Limits::default(), split), Err(Malformed::Trailing(1).into()));
    }

    #[test]
    fn parts_round_trip_in_any_split() {
        let pieces = [piece(b"some words", 3, 900), piece(&[0; 5000], 0, 1), piece(b"", 999, 1)];
        for split in [1, 2, 3, 64, 1 << 20] {
            check_round_trip(&pieces, split);
            check_round_trip(&[], split);
        }
    }

    /// An opening and header, then `bytes`.
    fn with_header(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let lens = ByteLen::new(1000);
        DeltaWriter::new(DeltaHeader { algorithm: Algorithm::Blake3, basis: lens, target: lens }, &mut out);
        [&out, bytes].concat()
    }

    fn head(kind: u8, lens: &[u64]) -> Vec<u8> {
        let mut head = vec![kind];
        lens.iter().for_each(|len| write_varint(&mut head, *len));
        head
    }

    #[test]
    fn hostile_lengths_are_refused_in_the_head() {
        let refused = |bytes: &[u8]| read(&with_header(bytes), &Limits::default(), 1 << 20).expect_err("hostile");
        assert!(matches!(refused(&head(RAW, &[1 << 62, 1])), InvalidDelta::Limit(_)));
        assert!(matches!(refused(&head(RAW, &[u64::MAX, u64::MAX])), InvalidDelta::Limit(_)));
        let error = refused(&head(RAW, &[1, (1 << 20) + 1]));
        assert_eq!(error.to_string(), "literal bytes in a piece of 1048577 is over the limit of 1048576");
        assert_eq!(
            refused(&head(PACKED, &[1, 10, 10])).to_string(),
            "delta is damaged: packed literals are not shorter than raw ones"
        );
        assert_eq!(refused(&[3]).to_string(), "delta is damaged: a part of no known kind");
        assert_eq!(refused(&[0, 0x80, 0]), Malformed::Varint.into());
    }

    #[test]
    fn lengths_in_the_header_meet_the_limit_on_files() {
        for (basis, target) in [(1 << 63, 0), (0, 1 << 63)] {
            let header =
                DeltaHeader { algorithm: Algorithm::Blake3, basis: ByteLen::new(basis), target: ByteLen::new(target) };
            let mut out = Vec::new();
            DeltaWriter::new(header, &mut out);
            assert!(matches!(read(&out, &Limits::default(), 64), Err(InvalidDelta::Limit(_))));
        }
    }

    #[test]
    fn pieces_that_contradict_themselves_are_refused() {
        let refused = |columns: &[u8], literals: &[u8]| {
            let lens = [columns.len() as u64, literals.len() as u64];
            let bytes = [&head(RAW, &lens), columns, literals].concat();
            read(&with_header(&bytes), &Limits::default(), 1 << 20).expect_err("contradicts itself").to_string()
        };
        assert_eq!(refused(&[0], b""), "delta is damaged: a piece makes nothing");
        let other = "delta is damaged: operations use another number of literal bytes than came";
        assert_eq!(refused(&[1, 2, 0], b"abc"), other);
        assert_eq!(refused(&[1, 4, 0], b"abc"), other);
        assert_eq!(refused(&[1, 3, 0, 0], b"abc"), "delta is damaged: 1 bytes left over after the last value");
        assert_eq!(refused(&[200], b"abc"), "operations are damaged: bytes end within a value");
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn a_small_piece_cannot_grow_past_what_it_announced() {
        let bomb = crate::pack(&[0; 1 << 20], 3).expect("zeros pack");
        let columns = head(1, &[1000, 0]);
        let lens = [columns.len() as u64, 1000, bomb.len() as u64];
        let bytes = with_header(&[head(PACKED, &lens), columns, bomb].concat());
        assert_eq!(read(&bytes, &Limits::default(), 1 << 20), Err(UnpackError::Damaged.into()));
    }

    proptest! {
        #[test]
        fn parts_round_trip(
            pieces in vec((vec(any::<u8>(), 0..300), 0u64..1 << 40, 1u64..1 << 40), 0..6),
            split in 1usize..400,
        ) {
            let pieces: Vec<_> = pieces.iter().map(|(literal, from, len)| piece(literal, *from, *len)).collect();
            check_round_trip(&pieces, split);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in vec(any::<u8>(), 0..200), opened: bool, split in 1usize..50) {
            let bytes = if opened { with_header(&bytes) } else { bytes };
            let whole = read(&bytes, &Limits::default(), bytes.len().max(1));
            // Which error it is may depend on where the split falls only in how many bytes are left over.
            let parts = read(&bytes, &Limits::default(), split);
            prop_assert_eq!(whole.is_ok(), parts.is_ok());
        }

        #[test]
        fn a_damaged_delta_decodes_or_fails(literal in vec(any::<u8>(), 0..300), at: usize, bit in 0u32..8) {
            let mut bytes = write(&parts(&[piece(&literal, 5, 50), piece(b"x", 0, 7)]));
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let _ = read(&bytes, &Limits::default(), 1 << 20);
        }
    }
}
