//! The payloads with fixed layouts: cells and lists of sets, answers to them, orders, pieces of a delta, sums of ranges.
//!
//! They carry most of the bytes, so they are packed by hand where the small control messages are postcard. `WIRE.md`
//! draws each of them. What needs a key, a chunk list or the other end's numbers to be understood stays bytes here: the
//! machine that waits for it reads it.

use alloc::vec::Vec;

use bytes::Bytes;
use deltasync_core::{
    BitReader, BitWriter, Break, ByteLen, LimitExceeded, Limits, Malformed, Ops, Reader, Sketch, SketchKey, pack_ops,
    unpack_ops, write_varint,
};

use crate::{InvalidMessage, MessageKind};

/// Cells of a sketch, or tags of a sorted list: `count` of them from position `start` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetPart {
    /// Cells or tags before these.
    pub start: u32,
    /// How many.
    pub count: u32,
    /// As [`Sketch::encode`](deltasync_core::Sketch::encode) or [`Elements::encode`](deltasync_core::Elements::encode)
    /// write them.
    pub bytes: Bytes,
}

/// Cells of the sketch of the edges between the chunks that both ends have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edges {
    /// How many edges the set has.
    pub elements: u32,
    /// Some of its cells.
    pub cells: SetPart,
}

/// A part of a receiver's answer to an offered set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Everything is missing: nothing, or next to nothing, is known.
    All,
    /// The next bytes of a survey, see [`Survey`](deltasync_core::Survey).
    Survey {
        /// No further part follows.
        last: bool,
        /// The bytes.
        bytes: Bytes,
    },
}

/// The order in which a basis has the shared chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Where it differs from the sender's.
    pub breaks: Vec<Break>,
}

/// A piece of a delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// No further piece follows.
    pub last: bool,
    /// The next operations; their literals may follow in later pieces.
    pub ops: Ops,
    /// The next bytes of the literals of all operations so far.
    pub literals: Literals,
}

/// Literal bytes as they travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literals {
    /// As they are.
    Raw(Bytes),
    /// The next part of the transfer's zstd frame.
    Packed {
        /// What the frame has as its history.
        prefix: Prefix,
        /// The part.
        bytes: Bytes,
        /// How many bytes it makes.
        raw_len: usize,
    },
}

/// What stands before the literals of a transfer when they are packed: bytes that both ends have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Prefix {
    /// Nothing.
    #[default]
    None,
    /// The chunks beside the old gaps that the receiver's survey told of.
    Neighbours,
    /// The bytes around and under each literal, see [`History`](deltasync_core::History).
    Replaced,
    /// The bytes of the copies beside each literal.
    Around,
}

/// What a receiver has made of a delta that did not become the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// How many bytes it has made.
    pub made: u64,
    /// The length of the ranges that are summed, in bytes; 0 asks for everything anew.
    pub range: u64,
    /// The sum of each range of what was made.
    pub sums: Vec<u64>,
}

/// The most breaks of an order: where there are more the receiver asks for everything.
pub(crate) const BREAKS_MAX: usize = 100_000;

/// What is wrong with a part of a set that does not follow those before it.
pub(crate) const DISCONTINUED: Malformed = Malformed::Value("a part that does not continue the set");

const LAST: u8 = 1;
const ALL: u8 = 2;

const OPS: u8 = 2;
const PACKED: u8 = 4;
const PREFIX_SHIFT: u32 = 3;

/// The level at which the columns of operations are packed.
const COLUMNS_LEVEL: i32 = 19;

impl SetPart {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.start.into());
        write_varint(out, self.count.into());
        out.extend_from_slice(&self.bytes);
    }

    fn read(mut reader: Reader<'_>, payload: &Bytes) -> Result<Self, Malformed> {
        let mut number = || narrow(reader.varint()?);
        let (start, count) = (number()?, number()?);
        if start.checked_add(count).is_none() {
            return Err(Malformed::Value("positions pass 32 bits"));
        }
        Ok(Self { start, count, bytes: payload.slice_ref(reader.rest()) })
    }

    /// Reads a payload of cells or tags.
    pub(crate) fn decode(payload: &Bytes) -> Result<Self, Malformed> {
        Self::read(Reader::new(payload), payload)
    }

    /// The cells that are here already with these behind them, which came in a message of the given kind.
    ///
    /// # Security
    ///
    /// The part may be hostile: what it allocates follows its bytes, and it must continue what is here.
    pub(crate) fn cells(
        &self,
        have: Option<Sketch>,
        key: SketchKey,
        elements: u32,
        kind: MessageKind,
        limits: &Limits,
    ) -> Result<Sketch, InvalidMessage> {
        let damaged = |cause| InvalidMessage::Payload { kind, cause };
        let start = self.start as usize;
        let mut reader = Reader::new(&self.bytes);
        let next = Sketch::decode(key, start..self.end(), elements.into(), &mut reader, limits)?;
        reader.finish().map_err(damaged)?;
        match have {
            Some(mut sketch) if sketch.range().end == start && sketch.elements() == elements => {
                sketch.append(next);
                Ok(sketch)
            }
            None if start == 0 => Ok(next),
            _ => Err(damaged(DISCONTINUED)),
        }
    }

    /// The position behind the last.
    pub(crate) const fn end(&self) -> usize {
        self.start as usize + self.count as usize
    }
}

impl Edges {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.elements.into());
        self.cells.encode(out);
    }

    pub(crate) fn decode(payload: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let elements = narrow(reader.varint()?)?;
        Ok(Self { elements, cells: SetPart::read(reader, payload)? })
    }
}

impl Want {
    /// Appends the payload but for the bytes of the survey, which end it.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Bytes {
        match self {
            Self::All => {
                out.push(LAST | ALL);
                Bytes::new()
            }
            Self::Survey { last, bytes } => {
                out.push(if *last { LAST } else { 0 });
                bytes.clone()
            }
        }
    }

    pub(crate) fn decode(payload: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let flags = reader.byte()?;
        let bytes = payload.slice_ref(reader.rest());
        match flags {
            0 | LAST => Ok(Self::Survey { last: flags == LAST, bytes }),
            _ if flags == LAST | ALL && bytes.is_empty() => Ok(Self::All),
            _ => Err(Malformed::Value("unknown flags of a want")),
        }
    }
}

impl Order {
    /// Appends the payload: how many breaks, how many bits a rank takes, then for each what stands left and right of it.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let ends = self.breaks.iter().flat_map(|broken| [broken.left, broken.right]);
        let number = |rank: Option<u32>| rank.map_or(0, |rank| u64::from(rank) + 1);
        // Also what names nothing takes a bit, so that a reader can bound how many there are.
        let bits = ends.clone().map(|end| u64::BITS - number(end).max(1).leading_zeros()).max().unwrap_or(0);
        write_varint(out, self.breaks.len() as u64);
        out.push(bits as u8);
        let mut writer = BitWriter::new(out);
        ends.for_each(|end| writer.bits(number(end), bits));
        writer.finish();
    }

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage`] when it is damaged or has more than [`BREAKS_MAX`] breaks.
    ///
    /// # Security
    ///
    /// A break may be two bits, and is 16 bytes here: so their number has a limit of its own.
    pub(crate) fn decode(payload: &Bytes) -> Result<Self, InvalidMessage> {
        let damaged = |cause| InvalidMessage::Payload { kind: MessageKind::Order, cause };
        let mut reader = Reader::new(payload);
        let count = reader.varint().map_err(damaged)?;
        LimitExceeded::check("breaks of an order", count, BREAKS_MAX as u64)?;
        Self::read(count, reader).map_err(damaged)
    }

    fn read(count: u64, mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let bits = u32::from(reader.byte()?);
        let mut reader = BitReader::new(reader.rest());
        if bits > 33 || count.saturating_mul(2 * u64::from(bits.max(1))) > reader.left() as u64 {
            return Err(Malformed::Truncated);
        }
        let mut rank = || -> Result<Option<u32>, Malformed> {
            let number = reader.bits(bits)?;
            number.checked_sub(1).map(narrow).transpose()
        };
        let breaks =
            (0..count).map(|_| Ok(Break { left: rank()?, right: rank()? })).collect::<Result<_, Malformed>>()?;
        match reader.finish()? {
            [] => Ok(Self { breaks }),
            rest => Err(Malformed::Trailing(rest.len())),
        }
    }
}

impl Literals {
    /// How many bytes of the target they are.
    pub fn raw_len(&self) -> ByteLen {
        match self {
            Self::Raw(bytes) => ByteLen::of(bytes),
            Self::Packed { raw_len, .. } => ByteLen::new(*raw_len as u64),
        }
    }

    /// How many bytes they are as they travel.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Raw(bytes) | Self::Packed { bytes, .. } => bytes.len(),
        }
    }
}

impl Prefix {
    const ALL: [Self; 4] = [Self::None, Self::Neighbours, Self::Replaced, Self::Around];

    const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Neighbours => 1,
            Self::Replaced => 2,
            Self::Around => 3,
        }
    }
}

impl Delta {
    /// Appends the payload but for the bytes of the literals, which end it: they are returned so as not to be copied. The
    /// operations are packed where the peer can unpack them.
    pub fn encode(&self, unpacks: bool, out: &mut Vec<u8>) -> Bytes {
        let mut flags = if self.last { LAST } else { 0 };
        if !self.ops.is_empty() {
            flags |= OPS;
        }
        if let Literals::Packed { prefix, .. } = &self.literals {
            flags |= PACKED | prefix.code() << PREFIX_SHIFT;
        }
        out.push(flags);
        if !self.ops.is_empty() {
            pack_ops(&self.ops, if unpacks { COLUMNS_LEVEL } else { 0 }, out);
        }
        match &self.literals {
            Literals::Raw(bytes) => bytes.clone(),
            Literals::Packed { bytes, raw_len, .. } => {
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
        let damaged = |cause| InvalidMessage::Payload { kind: MessageKind::Delta, cause };
        let mut reader = Reader::new(payload);
        let flags = reader.byte().map_err(damaged)?;
        let prefix = flags >> PREFIX_SHIFT;
        if usize::from(prefix) >= Prefix::ALL.len() || prefix != 0 && flags & PACKED == 0 {
            return Err(damaged(Malformed::Value("unknown flags of a delta")));
        }
        let mut ops = Ops::new();
        if flags & OPS != 0 {
            ops = unpack_ops(&mut reader, limits)?;
            if ops.is_empty() {
                return Err(damaged(Malformed::Value("operations are announced and there are none")));
            }
        }
        let raw_len = if flags & PACKED != 0 { Some(reader.varint().map_err(damaged)?) } else { None };
        let rest = reader.rest();
        let bytes = payload.slice_ref(rest);
        LimitExceeded::check("literal bytes in a piece", raw_len.unwrap_or(rest.len() as u64), limits.piece as u64)?;
        let literals = match raw_len {
            Some(raw_len) => {
                Literals::Packed { prefix: Prefix::ALL[usize::from(prefix)], bytes, raw_len: raw_len as usize }
            }
            None => Literals::Raw(bytes),
        };
        Ok(Self { last: flags & LAST != 0, ops, literals })
    }
}

impl Repair {
    /// Asks for everything anew.
    pub const ALL: Self = Self { made: 0, range: 0, sums: Vec::new() };

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        write_varint(out, self.made);
        write_varint(out, self.range);
        self.sums.iter().for_each(|sum| out.extend_from_slice(&sum.to_le_bytes()));
    }

    pub(crate) fn decode(payload: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let (made, range) = (reader.varint()?, reader.varint()?);
        let (sums, rest) = reader.rest().as_chunks();
        let sums: Vec<u64> = sums.iter().map(|sum| u64::from_le_bytes(*sum)).collect();
        // Without ranges nothing can have been made: who sums would divide by their length.
        let wanted = if range == 0 { (made == 0).then_some(0) } else { Some(made.div_ceil(range)) };
        if !rest.is_empty() || wanted != Some(sums.len() as u64) {
            return Err(Malformed::Value("sums do not cover what was made"));
        }
        Ok(Self { made, range, sums })
    }
}

fn narrow(number: u64) -> Result<u32, Malformed> {
    u32::try_from(number).map_err(|_| Malformed::Value("a number passes 32 bits"))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn check_order(breaks: Vec<Break>) {
        let order = Order { breaks };
        let mut bytes = Vec::new();
        order.encode(&mut bytes);
        assert_eq!(Order::decode(&Bytes::from(bytes)), Ok(order));
    }

    #[test]
    fn an_order_of_breaks_between_start_and_end_alone_is_read_back() {
        check_order(vec![]);
        check_order(vec![Break { left: None, right: None }]);
        check_order(vec![Break { left: None, right: None }; 20]);
        check_order(vec![Break { left: Some(0), right: None }, Break { left: Some(u32::MAX), right: Some(7) }]);
    }
}
