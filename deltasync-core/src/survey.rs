//! What a receiver says of its basis: which elements of the sender it lacks, in what order it has the others, and what
//! stands between them.
//!
//! A maximal stretch of the basis that the sender has not is an *old gap*. It is told as pieces: bytes, with fine sums
//! where those may serve, and runs of equal chunks, by the tag of the chunk. With them and its own chunk list the sender
//! knows where in the basis every shared chunk and every summed block lies.
//!
//! | field | bytes | |
//! |---|---|---|
//! | basis length | varint | in bytes |
//! | order | 6 | the tag of the order of the shared elements |
//! | edges | varint | how many cells of the sketch of the edges stand at the end; then, if any, how many edges there are |
//! | missing | varint | how many elements the receiver lacks |
//! | pieces | varint | |
//! | block, bits | varint, 1 | only with pieces: the shape of the fine sums; bits 0 when there are none |
//! | length parameter | 1 | only with pieces: of the Rice codes of their lengths |
//! | ranks | bits | Rice codes: of each missing element, in ascending order, how many shared ones stand before it |
//! | piece, for each | bits | Rice code: shared elements since the piece before; 2 bits: kind; then the kind's fields |
//! | – 0 bytes, 1 summed bytes | bits | Rice code: length |
//! | – 2 run | 48, 25, 32 bits | tag of the chunk, its length, how many |
//! | fine sums | bits | those of all summed pieces in order |
//! | cells | | of the sketch of the edges, from the first on |
//!
//! Bits are packed as by [`BitWriter`](crate::BitWriter), ranks and pieces together, sums by themselves. The parameters
//! that are not written follow from numbers that both ends know: see `rice_for`.
//!
//! A piece of a few bits takes a hundred times as much here, so there is a limit to them, and to the sums, that follows
//! from what the sender itself has, see [`Survey::pieces_max`] and [`Survey::sums_max`]: no honest receiver needs more.
//!
//! Invariant: what was encoded is decoded; pieces are in the order of the basis.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::bits::{BitReader, BitWriter, rice_for};
use crate::{
    ByteLen, ChunkList, ChunkRun, Elements, FineShape, InvalidSketch, LimitExceeded, Limits, Malformed, Offset, Reader,
    Shared, Sketch, SketchKey, Tag, TagKey, read_sums, write_sums, write_varint,
};

/// What a receiver says of its basis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The length of the basis.
    pub basis: ByteLen,
    /// The tag of the order in which the basis has the shared elements.
    pub order: Tag,
    /// The ranks of the elements that the receiver lacks, among the sender's sorted ones, ascending.
    pub missing: Vec<u32>,
    /// The old gaps in order.
    pub pieces: Vec<OldPiece>,
    /// How blocks were summed; `None` when none were.
    pub shape: Option<FineShape>,
    /// The sums of all summed pieces.
    pub sums: Vec<u64>,
    /// Cells of the edges between shared elements from the first on, where the receiver chose to send some.
    pub edges: Option<Sketch>,
}

/// A part of an old gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldPiece {
    /// How many shared elements stand before it in the basis.
    pub before: u32,
    /// What it is.
    pub content: OldContent,
}

/// What a part of an old gap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldContent {
    /// Bytes of which nothing is said.
    Bytes(ByteLen),
    /// Bytes whose blocks are summed.
    Summed(ByteLen),
    /// Equal chunks.
    Run {
        /// The tag of each.
        tag: Tag,
        /// The length of each, in bytes.
        len: u32,
        /// How many.
        count: u32,
    },
}

impl OldContent {
    /// How long it is.
    pub fn len(self) -> ByteLen {
        match self {
            Self::Bytes(len) | Self::Summed(len) => len,
            Self::Run { len, count, .. } => ByteLen::new(u64::from(len) * u64::from(count)),
        }
    }

    /// True for nothing at all.
    pub fn is_empty(self) -> bool {
        self.len() == ByteLen::ZERO
    }
}

/// The bits of the length of a chunk.
const CHUNK_BITS: u32 = 25;
/// The most runs of equal chunks that are told.
const RUNS_MAX: usize = 4096;
/// The parts of a stretch of bytes, see [`summed`].
const PARTS: u64 = 3;
/// So many sums there may be for a sender of no elements, for each of its elements, and at most for those.
const SUMS: (u64, u64, u64) = (1 << 18, 32, 1 << 22);
/// What a piece takes until everything is laid out, in bytes: itself, its stretch, the maps of where stretches start and
/// end, what the index has of it. And a sum: itself, its place in the index, its part of the buckets and of the bitmap.
const COSTS: (u64, u64) = (160, 40);

/// The old gaps of a basis, each piece with where it starts.
///
/// `missing` is how many elements of the sender the receiver lacks: of an old gap that is far longer than those can be,
/// only the beginning and the end are summed, and nothing when there are none. Of more than 4,096 runs of equal chunks none
/// is told as such: they are bytes like others.
pub fn old_pieces(list: &ChunkList, shared: &Shared, key: &TagKey, missing: u64) -> Vec<(OldPiece, Offset)> {
    // What the sender has instead may be twice as long as it seems, as chunks are up to one and a half of the average.
    let reach = missing.saturating_mul(list.cutter().max_len() as u64).saturating_mul(2);
    let mut pieces: Vec<(OldPiece, Offset)> = Vec::new();
    let repeated = own_runs(list, shared).filter(|own| own.run.count > 1).take(RUNS_MAX + 1).count();
    for Own { before, run, at, .. } in own_runs(list, shared) {
        if run.count > 1 && repeated <= RUNS_MAX {
            let content = OldContent::Run { tag: key.tag(&run.digest), len: run.len, count: run.count };
            pieces.push((OldPiece { before, content }, at));
        } else {
            push_bytes(&mut pieces, before, at, run.bytes(), false);
        }
    }
    if missing == 0 {
        return pieces;
    }
    pieces.into_iter().flat_map(|(piece, at)| summed(piece, at, reach)).collect()
}

/// The old gaps of a tree, each piece with where it starts; `missing` are the elements that only the sender has.
///
/// Entries that both have, but not alike, are summed where that can be of use. Of what only the receiver has, the sender
/// may have a part under another name: that is summed too, but only where it is not much more than what only the sender
/// has, since whatever was deleted would be told otherwise.
pub fn old_entries(list: &ChunkList, shared: &Shared, elements: &Elements, missing: &[Tag]) -> Vec<(OldPiece, Offset)> {
    let part_of = |own: &Own<'_>| elements.tag_of_run(own.index).path_part();
    let theirs: BTreeSet<u64> = missing.iter().map(|tag| tag.path_part()).collect();
    let ours: BTreeSet<u64> = own_runs(list, shared).map(|own| part_of(&own)).collect();
    let gone = ours.difference(&theirs).count();
    let new = theirs.difference(&ours).count();
    let all = gone <= 2 * new;
    let mut pieces: Vec<(OldPiece, Offset)> = Vec::new();
    for own in own_runs(list, shared) {
        let len = own.run.bytes();
        let is_summed = (all || theirs.contains(&part_of(&own))) && len.get() >= ENTRY_LEAST;
        push_bytes(&mut pieces, own.before, own.at, len, is_summed);
    }
    pieces
}

/// A run that only the receiver has.
struct Own<'a> {
    /// How many shared elements stand before it.
    before: u32,
    index: u32,
    run: &'a ChunkRun,
    at: Offset,
}

/// The runs of a basis that are not shared, in order.
fn own_runs<'a>(list: &'a ChunkList, shared: &'a Shared) -> impl Iterator<Item = Own<'a>> {
    let mut shared_runs = shared.runs().iter().peekable();
    let (mut before, mut next) = (0, Offset::ZERO);
    (0..).zip(list.runs()).filter_map(move |(index, run)| {
        let at = next;
        next += run.bytes();
        if shared_runs.next_if(|shared| **shared == index).is_some() {
            before += 1;
            return None;
        }
        Some(Own { before, index, run, at })
    })
}

/// Adds bytes to the pieces, to the last of them where they go on with it alike.
fn push_bytes(pieces: &mut Vec<(OldPiece, Offset)>, before: u32, at: Offset, len: ByteLen, is_summed: bool) {
    let last = pieces.last_mut().map(|(piece, _)| piece).filter(|piece| piece.before == before);
    match (last.map(|piece| &mut piece.content), is_summed) {
        (Some(OldContent::Summed(last)), true) | (Some(OldContent::Bytes(last)), false) => *last += len,
        _ => {
            let content = if is_summed { OldContent::Summed(len) } else { OldContent::Bytes(len) };
            pieces.push((OldPiece { before, content }, at));
        }
    }
}

/// Of a shorter entry the sums would cost what it has: a header, and hardly any content.
const ENTRY_LEAST: u64 = 128;

/// The parts of a piece with those marked that are to be summed.
fn summed(piece: OldPiece, at: Offset, reach: u64) -> impl Iterator<Item = (OldPiece, Offset)> {
    let OldPiece { before, content } = piece;
    let parts = match content {
        OldContent::Bytes(len) if len.get() / 2 > reach => {
            let (ends, middle) = (ByteLen::new(reach), ByteLen::new(len.get() - 2 * reach));
            [Some(OldContent::Summed(ends)), Some(OldContent::Bytes(middle)), Some(OldContent::Summed(ends))]
        }
        OldContent::Bytes(len) => [Some(OldContent::Summed(len)), None, None],
        other => [Some(other), None, None],
    };
    let mut at = at;
    parts.into_iter().flatten().map(move |content| {
        let start = at;
        at += content.len();
        (OldPiece { before, content }, start)
    })
}

impl Survey {
    /// Appends the survey of a basis that shares `shared` elements with a sender who has `elements`.
    pub fn encode(&self, elements: u64, out: &mut Vec<u8>) {
        write_varint(out, self.basis.get());
        out.extend_from_slice(&self.order.to_bytes());
        write_varint(out, self.edges.as_ref().map_or(0, |edges| edges.range().end as u64));
        if let Some(edges) = &self.edges {
            write_varint(out, edges.elements().into());
        }
        write_varint(out, self.missing.len() as u64);
        write_varint(out, self.pieces.len() as u64);
        let shared = elements.saturating_sub(self.missing.len() as u64);
        let lengths = self.pieces.iter().filter_map(|piece| length(piece.content));
        let length_rice = rice_for(lengths.clone().fold(0, u64::saturating_add), lengths.count() as u64);
        if !self.pieces.is_empty() {
            write_varint(out, self.shape.map_or(0, |shape| shape.block() as u64));
            out.push(self.shape.map_or(0, |shape| shape.bits() as u8));
            out.push(length_rice as u8);
        }
        let mut writer = BitWriter::new(out);
        let (rank_rice, place_rice) = self.parameters(shared);
        let mut next = 0;
        for rank in &self.missing {
            writer.rice(u64::from(rank - next), rank_rice);
            next = rank + 1;
        }
        let mut before = 0;
        for piece in &self.pieces {
            writer.rice(u64::from(piece.before - before), place_rice);
            before = piece.before;
            writer.bits(kind(piece.content), 2);
            match piece.content {
                OldContent::Bytes(len) | OldContent::Summed(len) => writer.rice(len.get(), length_rice),
                OldContent::Run { tag, len, count } => {
                    writer.bits(tag.number(), Tag::BITS);
                    writer.bits(len.into(), CHUNK_BITS);
                    writer.bits(count.into(), 32);
                }
            }
        }
        writer.finish();
        if let Some(shape) = self.shape {
            write_sums(&self.sums, shape, out);
        }
        if let Some(edges) = &self.edges {
            edges.encode(out);
        }
    }

    /// Reads the survey of a receiver to whom we sent `elements`; `edges` is the key of the sketch of the edges.
    ///
    /// # Errors
    ///
    /// [`InvalidSurvey`] when the bytes are damaged or hold more than `limits` allow.
    ///
    /// # Security
    ///
    /// Takes hostile bytes: allocates at most [`Survey::cost`]. That pieces and shared chunks make up the basis is checked
    /// when they are laid out.
    pub fn decode(bytes: &[u8], elements: u64, edges: SketchKey, limits: &Limits) -> Result<Self, InvalidSurvey> {
        let mut reader = Reader::new(bytes);
        let Head { basis, order, cells, all_edges, missing, pieces, shape, length_rice } =
            Head::decode(&mut reader, elements, limits)?;
        let shared = elements - missing;
        let mut bits = BitReader::new(reader.rest());
        // Each rank takes a bit at least, each piece three.
        if missing.saturating_add(pieces.saturating_mul(3)) > bits.left() as u64 {
            return Err(Malformed::Truncated.into());
        }
        let (ranks, sums) = (Vec::new(), Vec::new());
        let mut survey = Self { basis, order, missing: ranks, pieces: Vec::new(), shape, sums, edges: None };
        survey.missing.reserve_exact(missing as usize);
        survey.pieces.reserve_exact(pieces as usize);
        let (rank_rice, place_rice) = parameters(missing, pieces, shared);
        let mut next = 0u64;
        for _ in 0..missing {
            let rank = next.checked_add(bits.rice(rank_rice)?).filter(|rank| *rank < elements);
            let rank = rank.ok_or(Malformed::Value("rank past the last element"))?;
            survey.missing.push(u32::try_from(rank).map_err(|_| Malformed::Value("rank past the last element"))?);
            next = rank + 1;
        }
        let (mut before, mut sums) = (0u64, 0u64);
        for _ in 0..pieces {
            let place = before.checked_add(bits.rice(place_rice)?).filter(|place| *place <= shared);
            before = place.ok_or(Malformed::Value("an old gap behind the last shared element"))?;
            let content = match bits.bits(2)? {
                0 => OldContent::Bytes(ByteLen::new(bits.rice(length_rice)?)),
                1 => OldContent::Summed(ByteLen::new(bits.rice(length_rice)?)),
                2 => OldContent::Run {
                    tag: Tag::of_number(bits.bits(Tag::BITS)?),
                    len: bits.bits(CHUNK_BITS)? as u32,
                    count: bits.bits(32)? as u32,
                },
                _ => return Err(Malformed::Value("unknown kind of an old gap").into()),
            };
            if content.is_empty() {
                return Err(Malformed::Value("a piece of no bytes").into());
            }
            if let OldContent::Summed(len) = content {
                let shape = shape.ok_or(Malformed::Value("sums without a shape"))?;
                sums = sums.saturating_add(shape.sums_of(len.get()));
                LimitExceeded::check("fine sums of a survey", sums, Self::sums_max(elements) + pieces)?;
            }
            let before = u32::try_from(before).map_err(|_| Malformed::Value("over 2^32 shared elements"))?;
            survey.pieces.push(OldPiece { before, content });
        }
        let mut rest = bits.finish()?;
        if let Some(shape) = shape {
            (survey.sums, rest) = read_sums(rest, sums, shape)?;
        }
        let mut rest = Reader::new(rest);
        if cells > 0 {
            let cells = usize::try_from(cells).unwrap_or(usize::MAX);
            survey.edges = Some(Sketch::decode(edges, 0..cells, all_edges, &mut rest, limits)?);
        }
        rest.finish()?;
        Ok(survey)
    }

    /// The most pieces of a survey for a sender of so many elements.
    ///
    /// In each of the places before, between and behind shared elements stands one stretch of bytes at most, in three parts
    /// when it is long, and each run of equal chunks that is told, of which there are 4,096 at most, divides one into two.
    /// A tree has no runs; what stands there alternates no more often than it has entries, which are told apart only where
    /// those that the sender lacks are at most twice those that only it has.
    pub const fn pieces_max(elements: u64) -> u64 {
        elements.saturating_add(1).saturating_mul(PARTS).saturating_add(RUNS_MAX as u64 * (1 + PARTS))
    }

    /// The most sums of a survey for a sender of so many elements, beside one for each piece. Who has more to sum takes longer
    /// blocks, see [`FineShape::with_sums_at_most`].
    pub fn sums_max(elements: u64) -> u64 {
        let (least, each, most) = SUMS;
        least + elements.saturating_mul(each).min(most)
    }

    /// How many bytes of memory it takes at most to decode and use the survey that these are, for a sender of so many
    /// elements: told by its first fields alone.
    ///
    /// # Errors
    ///
    /// [`InvalidSurvey`] when those are damaged or say more than `limits` allow.
    pub fn cost(bytes: &[u8], elements: u64, limits: &Limits) -> Result<u64, InvalidSurvey> {
        let mut reader = Reader::new(bytes);
        let Head { missing, pieces, shape, .. } = Head::decode(&mut reader, elements, limits)?;
        let bits = reader.rest().len() as u64 * 8;
        let sums = shape.map_or(0, |shape| (bits / u64::from(shape.bits())).min(Self::sums_max(elements) + pieces));
        let (piece, sum) = COSTS;
        Ok((missing * 4).saturating_add(pieces.min(bits / 3) * piece).saturating_add(sums * sum))
    }

    fn parameters(&self, shared: u64) -> (u32, u32) {
        parameters(self.missing.len() as u64, self.pieces.len() as u64, shared)
    }
}

/// What a survey begins with.
struct Head {
    basis: ByteLen,
    order: Tag,
    /// Cells of the sketch of the edges, and how many edges there are.
    cells: u64,
    all_edges: u64,
    /// At most as many as the sender has elements.
    missing: u64,
    pieces: u64,
    shape: Option<FineShape>,
    /// At most 63.
    length_rice: u32,
}

impl Head {
    fn decode(reader: &mut Reader<'_>, elements: u64, limits: &Limits) -> Result<Self, InvalidSurvey> {
        let basis = ByteLen::new(reader.varint()?);
        LimitExceeded::check("file length", basis.get(), limits.file.get())?;
        let order = Tag::from_bytes(reader.array()?);
        let cells = reader.varint()?;
        let all_edges = if cells > 0 { reader.varint()? } else { 0 };
        let (missing, pieces) = (reader.varint()?, reader.varint()?);
        if missing > elements {
            return Err(Malformed::Value("more elements are missing than there are").into());
        }
        let most = Survey::pieces_max(elements).min(limits.chunks as u64);
        LimitExceeded::check("pieces of old gaps", pieces, most)?;
        let (mut shape, mut length_rice) = (None, 0);
        if pieces > 0 {
            let (block, bits) = (reader.varint()?, reader.byte()?);
            if bits > 0 {
                shape = Some(FineShape::new(u32::try_from(block).unwrap_or(u32::MAX), bits.into())?);
            } else if block > 0 {
                return Err(Malformed::Value("blocks without sums").into());
            }
            length_rice = u32::from(reader.byte()?);
            if length_rice > 63 {
                return Err(Malformed::Value("Rice parameter over 63").into());
            }
        }
        Ok(Self { basis, order, cells, all_edges, missing, pieces, shape, length_rice })
    }
}

/// The Rice parameters of ranks and places.
fn parameters(missing: u64, pieces: u64, shared: u64) -> (u32, u32) {
    (rice_for(shared, missing), rice_for(shared, pieces))
}

fn length(content: OldContent) -> Option<u64> {
    match content {
        OldContent::Bytes(len) | OldContent::Summed(len) => Some(len.get()),
        OldContent::Run { .. } => None,
    }
}

const fn kind(content: OldContent) -> u64 {
    match content {
        OldContent::Bytes(_) => 0,
        OldContent::Summed(_) => 1,
        OldContent::Run { .. } => 2,
    }
}

/// Why bytes are no survey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSurvey {
    /// The bytes are damaged.
    #[error("survey of the basis is damaged: {0}")]
    Malformed(#[from] Malformed),
    /// The cells of the edges are.
    #[error(transparent)]
    Edges(#[from] InvalidSketch),
    /// There is too much of something.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::cut::tests::{SMALL, random};
    use crate::{Algorithm, Elements};

    fn survey(missing: Vec<u32>, pieces: Vec<OldPiece>, shape: Option<FineShape>) -> Survey {
        let lens = pieces.iter().filter_map(|piece| match piece.content {
            OldContent::Summed(len) => shape.map(|shape| shape.sums_of(len.get())),
            _ => None,
        });
        let count: u64 = lens.sum();
        let mask = shape.map_or(0, |shape| (1u64 << shape.bits()) - 1);
        let sums = (0..count).map(|i| (i + 1).wrapping_mul(0xda94_2042_e4dd_58b5) & mask).collect();
        let edges = missing.first().map(|_| Sketch::of(edge_key(), 0..40, (0..9).map(Tag::of_number)));
        Survey { basis: ByteLen::new(123_456), order: Tag::of_number(77), missing, pieces, shape, sums, edges }
    }

    fn edge_key() -> SketchKey {
        SketchKey::of_edges(&[1; 16], 1)
    }

    fn check_read_back(survey: &Survey, elements: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        survey.encode(elements, &mut bytes);
        assert_eq!(Survey::decode(&bytes, elements, edge_key(), &Limits::default()).as_ref(), Ok(survey));
        for len in 0..bytes.len() {
            assert!(Survey::decode(&bytes[..len], elements, edge_key(), &Limits::default()).is_err(), "cut at {len}");
        }
        bytes
    }

    fn piece(before: u32, content: OldContent) -> OldPiece {
        OldPiece { before, content }
    }

    #[test]
    fn surveys_are_read_back() {
        let shape = FineShape::new(64, 12).expect("in range");
        check_read_back(&survey(vec![], vec![], None), 0);
        check_read_back(&survey(vec![0, 1, 2], vec![], None), 3);
        let run = OldContent::Run { tag: Tag::of_number(5), len: 3 << 23, count: u32::MAX };
        let pieces = vec![
            piece(0, OldContent::Summed(ByteLen::new(1))),
            piece(0, run),
            piece(97, OldContent::Bytes(ByteLen::new(1 << 40))),
            piece(97, OldContent::Summed(ByteLen::new(64))),
        ];
        check_read_back(&survey(vec![3, 50, 99], pieces, Some(shape)), 100);
        check_read_back(&survey(vec![3], vec![piece(1, OldContent::Bytes(ByteLen::new(9)))], None), 100);
    }

    #[test]
    fn one_edit_of_a_file_of_many_chunks_costs_little() {
        let shape = FineShape::new(128, 12).expect("in range");
        let pieces = vec![piece(2000, OldContent::Summed(ByteLen::new(8000)))];
        let survey = Survey { edges: None, ..survey(vec![1234], pieces, Some(shape)) };
        let bytes = check_read_back(&survey, 25_600);
        assert!(bytes.len() <= 23 + 63 * 12 / 8 + 1, "{} bytes", bytes.len());
    }

    #[test]
    fn what_nobody_writes_is_refused() {
        let refuse = |bytes: &[u8], elements| {
            Survey::decode(bytes, elements, edge_key(), &Limits::default()).expect_err("hostile")
        };
        let head = [1, 0, 0, 0, 0, 0, 0, 0];
        assert!(matches!(refuse(&[&head[..], &[2, 0, 0]].concat(), 1), InvalidSurvey::Malformed(Malformed::Value(_))));
        let many = [&head[..], &[0, 0xff, 0xff, 0xff, 0x7f]].concat();
        assert!(matches!(refuse(&many, 9), InvalidSurvey::Limit(_)));
        let most = Survey::pieces_max(9);
        let survey = |pieces: u64, len: u64, shape| Survey {
            pieces: (0..pieces).map(|_| piece(0, OldContent::Summed(ByteLen::new(len)))).collect(),
            ..survey(vec![], vec![], shape)
        };
        let bytes = |survey: &Survey| {
            let mut bytes = Vec::new();
            survey.encode(9, &mut bytes);
            bytes
        };
        let limit = |bytes: &[u8]| match refuse(bytes, 9) {
            InvalidSurvey::Limit(LimitExceeded { what, wanted, allowed }) => (what, wanted, allowed),
            other => panic!("{other:?}"),
        };
        let shape = FineShape::new(16, 1).ok();
        assert_eq!(limit(&bytes(&survey(most + 1, 1, shape))), ("pieces of old gaps", most + 1, most));
        assert_eq!(refuse(&bytes(&survey(most, 1, shape)), 9), Malformed::Truncated.into(), "only the sums lack");
        let sums = Survey::sums_max(9) + 1;
        assert_eq!(limit(&bytes(&survey(1, 16 * sums + 1, shape))), ("fine sums of a survey", sums + 1, sums));
        assert_eq!(refuse(&bytes(&survey(1, 16 * sums, shape)), 9), Malformed::Truncated.into(), "only the sums lack");
        let long = [&[0xff; 9][..], &[1, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert!(matches!(refuse(&long, 9), InvalidSurvey::Limit(_)));
    }

    #[test]
    fn old_gaps_are_what_is_not_shared() {
        let bytes = [random(1, 3000), vec![0; 60 * SMALL.min_len()], random(2, 5000)].concat();
        let list = ChunkList::of(&bytes, SMALL, Algorithm::Blake3);
        let key = TagKey::new(&[1; 16], 1);
        let elements = Elements::of(&list, &key);
        let tags: Vec<Tag> = elements.tags().collect();
        for missing in [vec![], tags.clone(), tags[..1].to_vec(), tags[2..7].to_vec()] {
            let shared = Shared::all_but(&elements, &missing);
            let pieces = old_pieces(&list, &shared, &key, 3);
            let gaps: u64 = pieces.iter().map(|(piece, _)| piece.content.len().get()).sum();
            let common = shared.runs().iter().map(|run| list.runs()[*run as usize].bytes().get()).sum::<u64>();
            assert_eq!(gaps + common, bytes.len() as u64);
            let sorted = pieces.windows(2).all(|pair| {
                let end = pair[0].1 + pair[0].0.content.len();
                end <= pair[1].1 && (end == pair[1].1) >= (pair[0].0.before == pair[1].0.before)
            });
            assert!(sorted, "{pieces:?}");
        }
    }

    #[test]
    fn no_basis_has_more_pieces_than_a_survey_may_have() {
        // Chunks of which none is shared, and as many as there are runs between them.
        let run = |i: usize, count| ChunkRun { digest: Algorithm::Blake3.digest(&i.to_le_bytes()), len: 1000, count };
        let pieces = |shared_each: usize, runs: usize| {
            let all = (0..2 * runs).map(|i| run(i, if i % 2 == 0 { 1 } else { 2 })).collect();
            let list = ChunkList::new(SMALL, Algorithm::Blake3, crate::Digest::default(), all);
            let elements = Elements::of(&list, &TagKey::new(&[1; 16], 1));
            let missing: Vec<Tag> =
                elements.tags().enumerate().filter(|(i, _)| i % shared_each != 0).map(|(_, tag)| tag).collect();
            let shared = Shared::all_but(&elements, &missing);
            let pieces = old_pieces(&list, &shared, &TagKey::new(&[1; 16], 1), 1);
            let repeated = pieces.iter().filter(|(piece, _)| matches!(piece.content, OldContent::Run { .. })).count();
            let total: u64 = pieces.iter().map(|(piece, _)| piece.content.len().get()).sum();
            let common = shared.runs().iter().map(|run| list.runs()[*run as usize].bytes().get()).sum::<u64>();
            assert_eq!(total + common, list.len().get());
            let most = Survey::pieces_max(shared.len() as u64);
            assert!(pieces.len() as u64 <= most, "{} pieces, {repeated} runs, {most}", pieces.len());
            repeated
        };
        assert_eq!(pieces(usize::MAX, RUNS_MAX), RUNS_MAX - 1, "the element of rank 0 is shared");
        assert_eq!(pieces(usize::MAX, 10 * RUNS_MAX), 0);
        assert_eq!(pieces(5, 10 * RUNS_MAX), 0);
        assert!(pieces(5, 1000) > 700);
    }

    #[test]
    fn of_a_long_gap_the_ends_are_summed() {
        let bytes = random(1, 100_000);
        let list = ChunkList::of(&bytes, SMALL, Algorithm::Blake3);
        let key = TagKey::new(&[1; 16], 1);
        let elements = Elements::of(&list, &key);
        let none = Shared::all_but(&elements, &elements.tags().collect::<Vec<_>>());
        let contents = |missing| -> Vec<OldContent> {
            old_pieces(&list, &none, &key, missing).iter().map(|(piece, _)| piece.content).collect()
        };
        assert_eq!(contents(0), [OldContent::Bytes(ByteLen::new(100_000))]);
        assert!(
            matches!(contents(1)[..], [OldContent::Summed(a), OldContent::Bytes(_), OldContent::Summed(b)] if a == b)
        );
        assert_eq!(contents(1 << 20), [OldContent::Summed(ByteLen::new(100_000))]);
    }

    proptest! {
        #[test]
        fn any_survey_is_read_back(
            ranks in proptest::collection::btree_set(0u32..1000, 0..40),
            pieces in vec((0u32..20, 0u64..3, 1u64..100_000), 0..20),
            block in 16u32..500,
            bits in 1u32..40,
        ) {
            let mut before = 0;
            let pieces: Vec<OldPiece> = pieces.into_iter().map(|(skip, kind, len)| {
                before += skip;
                let content = match kind {
                    0 => OldContent::Bytes(ByteLen::new(len)),
                    1 => OldContent::Summed(ByteLen::new(len)),
                    _ => OldContent::Run { tag: Tag::of_number(len), len: len as u32, count: 2 },
                };
                piece(before, content)
            }).collect();
            let shape = (!pieces.is_empty()).then(|| FineShape::new(block, bits).expect("in range"));
            check_read_back(&survey(ranks.into_iter().collect(), pieces, shape), 1000);
        }

        #[test]
        fn any_bytes_end(bytes in vec(any::<u8>(), 0..200), elements in 0u64..300) {
            if let Ok(survey) = Survey::decode(&bytes, elements, edge_key(), &Limits::default()) {
                let mut again = Vec::new();
                survey.encode(elements, &mut again);
                prop_assert_eq!(Survey::decode(&again, elements, edge_key(), &Limits::default()), Ok(survey));
            }
        }
    }
}
