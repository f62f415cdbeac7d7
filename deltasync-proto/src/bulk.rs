//! The payloads with fixed layouts: tags, wanted runs and pieces of a delta.
//!
//! They carry most of the bytes, so they are packed by hand where the small control messages are postcard. `WIRE.md`
//! draws each of them.

use alloc::vec::Vec;

use bytes::Bytes;
use deltasync_core::{
    LimitExceeded, Limits, Malformed, Offset, Ops, Reader, Tag, TagRun, decode_ops, encode_ops, write_signed,
    write_varint,
};

use crate::InvalidMessage;

/// One maximal run in a receiver's answer: so many offered chunks it lacks, then so many it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WantRun {
    /// Chunks to send.
    pub missing: u64,
    /// Chunks that the basis has one after the other.
    pub have: u64,
    /// Where the first of them starts in the basis, in bytes. Zero when there are none.
    pub from: Offset,
}

/// A part of a receiver's answer to the offered tags. No runs at all, in the last part, means all chunks are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// No further part follows.
    pub last: bool,
    /// How long the basis is, in bytes.
    pub basis: u64,
    /// Runs in the order of the target.
    pub runs: Vec<WantRun>,
}

/// A piece of a delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// No further piece follows.
    pub last: bool,
    /// The operations of the piece.
    pub ops: Ops,
    /// Its literal bytes.
    pub literals: Literals,
}

/// Literal bytes as they travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literals {
    /// As they are.
    Raw(Bytes),
    /// One zstd frame.
    Packed {
        /// The frame.
        bytes: Bytes,
        /// How many bytes it must make.
        raw_len: usize,
    },
}

const LAST: u8 = 1;
const PACKED: u8 = 2;

/// Appends the payload of a frame of tags: their number, 6 bytes each, then for each run of more than one chunk how
/// many entries lie between it and the one before, and its count less 1.
pub(crate) fn encode_tags(runs: &[TagRun], out: &mut Vec<u8>) {
    write_varint(out, runs.len() as u64);
    runs.iter().for_each(|run| out.extend_from_slice(&run.tag.to_bytes()));
    let mut next = 0;
    for (index, run) in runs.iter().enumerate().filter(|(_, run)| run.count > 1) {
        write_varint(out, (index - next) as u64);
        write_varint(out, u64::from(run.count - 1));
        next = index + 1;
    }
}

/// Reads a payload of tags.
///
/// # Errors
///
/// [`Malformed`] when it is damaged.
///
/// # Security
///
/// Allocates no more than the payload's own length calls for.
pub(crate) fn decode_tags(payload: &[u8]) -> Result<Vec<TagRun>, Malformed> {
    let mut reader = Reader::new(payload);
    let count = reader.varint()?;
    if count > (reader.rest().len() / Tag::LEN) as u64 {
        return Err(Malformed::Truncated);
    }
    let tag = |reader: &mut Reader<'_>| Ok(TagRun { tag: Tag::from_bytes(reader.array()?), count: 1 });
    let mut runs = (0..count).map(|_| tag(&mut reader)).collect::<Result<Vec<_>, Malformed>>()?;
    let mut next = 0u64;
    while !reader.is_empty() {
        let index = next.checked_add(reader.varint()?).filter(|index| *index < count);
        let index = index.ok_or(Malformed::Value("run of tags past the last tag"))?;
        let more = u32::try_from(reader.varint()?).ok().filter(|more| *more > 0);
        let more = more.ok_or(Malformed::Value("run of no tags or of 2^32"))?;
        runs[index as usize].count = more.checked_add(1).ok_or(Malformed::Value("run of no tags or of 2^32"))?;
        next = index + 1;
    }
    Ok(runs)
}

impl Want {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(if self.last { LAST } else { 0 });
        write_varint(out, self.basis);
        let mut expected = 0u64;
        for run in &self.runs {
            write_varint(out, run.missing);
            write_varint(out, run.have);
            if run.have > 0 {
                write_signed(out, run.from.get().wrapping_sub(expected) as i64);
                expected = run.from.get();
            }
        }
    }

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it is damaged.
    ///
    /// # Security
    ///
    /// Counts and offsets are only numbers until the sender has checked them against its chunk list.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let last = match reader.byte()? {
            0 => false,
            LAST => true,
            _ => return Err(Malformed::Value("unknown flags of a want")),
        };
        let basis = reader.varint()?;
        let mut runs = Vec::new();
        let mut expected = 0u64;
        while !reader.is_empty() {
            let (missing, have) = (reader.varint()?, reader.varint()?);
            if missing == 0 && have == 0 {
                return Err(Malformed::Value("a run of no chunks"));
            }
            if have > 0 {
                expected = expected.wrapping_add(reader.signed()? as u64);
            }
            runs.push(WantRun { missing, have, from: Offset::new(if have > 0 { expected } else { 0 }) });
        }
        Ok(Self { last, basis, runs })
    }
}

impl Delta {
    /// Appends the payload but for the bytes of the literals, which end it: they are returned so as not to be copied.
    pub fn encode(&self, out: &mut Vec<u8>) -> Bytes {
        let packed = if matches!(self.literals, Literals::Packed { .. }) { PACKED } else { 0 };
        out.push(packed | if self.last { LAST } else { 0 });
        encode_ops(&self.ops, out);
        match &self.literals {
            Literals::Raw(bytes) => bytes.clone(),
            Literals::Packed { bytes, raw_len } => {
                write_varint(out, *raw_len as u64);
                bytes.clone()
            }
        }
    }

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage`] when it is damaged or passes `limits`.
    ///
    /// # Security
    ///
    /// The length that packed literals announce is checked against `limits` here; operations are only numbers until a
    /// planner has checked them.
    pub fn decode(payload: &Bytes, limits: &Limits) -> Result<Self, InvalidMessage> {
        let damaged = |cause| InvalidMessage::Payload { kind: crate::MessageKind::Delta, cause };
        let mut reader = Reader::new(payload);
        let flags = reader.byte().map_err(damaged)?;
        if flags & !(LAST | PACKED) != 0 {
            return Err(damaged(Malformed::Value("unknown flags of a delta")));
        }
        let ops = decode_ops(&mut reader, limits)?;
        let raw_len = if flags & PACKED != 0 { Some(reader.varint().map_err(damaged)?) } else { None };
        let rest = reader.rest();
        let bytes = payload.slice_ref(rest);
        LimitExceeded::check("literal bytes in a piece", raw_len.unwrap_or(rest.len() as u64), limits.piece as u64)?;
        let literals = match raw_len {
            Some(raw_len) => Literals::Packed { bytes, raw_len: raw_len as usize },
            None => Literals::Raw(bytes),
        };
        Ok(Self { last: flags & LAST != 0, ops, literals })
    }
}

#[cfg(test)]
mod tests {
    use deltasync_core::{ByteLen, Op};
    use proptest::prelude::*;

    use super::*;

    fn check_tags_round_trip(runs: &[TagRun]) {
        let mut payload = Vec::new();
        encode_tags(runs, &mut payload);
        assert_eq!(decode_tags(&payload).as_deref(), Ok(runs));
    }

    fn check_want_round_trip(want: &Want) {
        let mut payload = Vec::new();
        want.encode(&mut payload);
        assert_eq!(Want::decode(&payload).as_ref(), Ok(want));
    }

    fn check_delta_round_trip(delta: &Delta) {
        let mut payload = Vec::new();
        let tail = delta.encode(&mut payload);
        payload.extend_from_slice(&tail);
        assert_eq!(Delta::decode(&payload.into(), &Limits::default()).as_ref(), Ok(delta));
    }

    #[test]
    fn a_number_of_tags_that_the_payload_cannot_hold_is_refused() {
        let mut payload = Vec::new();
        write_varint(&mut payload, 1 << 60);
        payload.extend_from_slice(&[0; 60]);
        assert_eq!(decode_tags(&payload), Err(Malformed::Truncated));
        assert_eq!(
            decode_tags(&[1, 0, 0, 0, 0, 0, 0, 1, 1]),
            Err(Malformed::Value("run of tags past the last tag")),
            "the run's index is past the one tag"
        );
    }

    #[test]
    fn packed_literals_may_not_announce_more_than_a_piece() {
        let mut payload = Vec::new();
        let literals = Literals::Packed { bytes: Bytes::from_static(b"x"), raw_len: usize::MAX };
        let tail = Delta { last: true, ops: Ops::new(), literals }.encode(&mut payload);
        payload.extend_from_slice(&tail);
        let error = Delta::decode(&payload.into(), &Limits::default()).expect_err("too long");
        assert!(matches!(error, InvalidMessage::Limit(_)), "{error}");
    }

    proptest! {
        #[test]
        fn tags_round_trip(tags in prop::collection::vec((any::<[u8; 6]>(), 1u32..5), 0..100)) {
            let runs: Vec<_> = tags.into_iter().map(|(t, count)| TagRun { tag: Tag::from_bytes(t), count }).collect();
            check_tags_round_trip(&runs);
        }

        #[test]
        fn wants_round_trip(
            last: bool, basis: u64, runs in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..50),
        ) {
            let run = |(missing, have, from)| match have {
                0 => WantRun { missing: missing | 1, have, from: Offset::ZERO },
                _ => WantRun { missing, have, from: Offset::new(from) },
            };
            check_want_round_trip(&Want { last, basis, runs: runs.into_iter().map(run).collect() });
        }

        #[test]
        fn deltas_round_trip(last: bool, packed: bool, copies in prop::collection::vec((any::<u64>(), 1u64..9), 0..20),
            literals in prop::collection::vec(any::<u8>(), 0..100)) {
            let len = ByteLen::of(&literals);
            let copy = |(from, len)| Op::Copy { from: Offset::new(from), len: ByteLen::new(len) };
            let ops = core::iter::once(Op::Literal { len }).chain(copies.into_iter().map(copy)).collect();
            let bytes = Bytes::from(literals);
            let literals = if packed { Literals::Packed { bytes, raw_len: 7 } } else { Literals::Raw(bytes) };
            check_delta_round_trip(&Delta { last, ops, literals });
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_tags(&bytes);
            let _ = Want::decode(&bytes);
            let _ = Delta::decode(&bytes.into(), &Limits::default());
        }
    }
}
