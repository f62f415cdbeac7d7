//! The delta on its way from a sender's file to the link: operations and literals cut into pieces, read a few ahead,
//! and packed as one stream.
//!
//! The first piece carries as many operations as a receiver holds, in most deltas all of them, so that what they say of
//! the basis can stand before the literals as their history; later pieces carry some more. Literals are read when the
//! link is ready for them, and packed in order by one packer, which travels with the job. When all fit one piece and
//! packing does not pay they go as they are.
//!
//! Of many literals, pieces that look dense pass by the packer: all of them where nothing could stand before them that
//! they resemble, else while the dense ones before them did not pack either, the longer the more of those there were.
//!
//! Invariant: the pieces' operations, in order, make the whole target, and their literals come in order of the
//! operations, never before them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use deltasync_core::{ByteLen, ChunkList, LiteralPacker, Offset, Op, Ops, history_level, is_dense};

use crate::bulk::{Delta, Literals, Prefix};
use crate::context::{Answered, Context, Trouble, wrong_answer};
use crate::job::{Product, Work};
use crate::ranges::{Ranges, Taken};
use crate::{Answer, Ask, FileHandle, JobId, RequestId};

/// How many pieces are read ahead of the packer.
const AHEAD: usize = 4;
/// Below this many bytes packing cannot pay.
const PACK_MIN: u64 = 24;
/// So many literal bytes are packed in less time than it is worth to look at them.
const LOOK_FROM: ByteLen = ByteLen::new(4 << 20);
/// Packing a piece did not pay when it saves less than one part in so many.
const PAYS: usize = 64;
/// The most dense pieces in a row that pass by a packer that might know them.
const PASS_MAX: u32 = 16;
/// The most operations in the first piece.
const OPS_FIRST: usize = 48 << 10;
/// The most operations in each later piece, and the most literals that may be due before more operations follow.
const OPS_LATER: usize = 4 << 10;

/// Where the bytes of a prefix are read.
#[derive(Debug)]
pub(crate) struct Before {
    /// What the receiver calls it.
    pub(crate) prefix: Prefix,
    /// Which file of ours has it, and where.
    pub(crate) file: FileHandle,
    pub(crate) ranges: Vec<(Offset, ByteLen)>,
}

/// How literals are brought onto the wire.
#[derive(Debug)]
enum Stream {
    /// As they are.
    Raw,
    /// To be packed, once the prefix is read.
    Loading(RequestId),
    /// To be packed, once the packer is made.
    Making(JobId),
    /// To be packed: the packer is at hand, or with a job.
    Packing(Option<Box<LiteralPacker>>),
}

/// A piece on its way.
#[derive(Debug)]
struct Piece {
    ops: Ops,
    last: bool,
    literals: State,
}

#[derive(Debug)]
enum State {
    Reading(RequestId, u64),
    Read(Bytes),
    Packing(JobId),
    Ready(Literals),
}

/// Which pieces pass by the packer.
#[derive(Debug, Default)]
struct Passing {
    /// All that are dense.
    all: bool,
    /// How many dense pieces in a row did not pack.
    futile: u32,
    /// How many more dense pieces pass by.
    left: u32,
}

/// A delta being prepared.
#[derive(Debug)]
pub(crate) struct Delivery {
    file: FileHandle,
    ops: alloc::vec::IntoIter<Op>,
    /// Literals of operations that have been put into a piece, as ranges of the target that are not.
    due: Ranges,
    /// Where in the target the operations so far end.
    made: Offset,
    /// Literal bytes in all.
    literal: ByteLen,
    prefix: Prefix,
    stream: Stream,
    passing: Passing,
    pieces: VecDeque<Piece>,
    begun: bool,
    ended: bool,
    /// There was only one piece with literals, the first: it may go raw after all.
    alone: bool,
}

/// Where a delivery stands.
pub(crate) enum Next {
    /// The front piece, which is not the last.
    Piece(Delta),
    /// The front piece is ready, and the last.
    Last,
    /// Nothing is ready.
    Nothing,
}

impl Delivery {
    /// Everything is sent raw.
    pub(crate) fn raw(file: FileHandle, ops: Ops) -> Self {
        Self::new(file, ops, Prefix::None, Stream::Raw)
    }

    /// Literals are packed behind what `before` names, if the peer can unpack them and they may pay. When they are a
    /// whole target, `whole` are its chunks.
    pub(crate) fn packed(
        file: FileHandle,
        ops: Ops,
        whole: Option<Arc<ChunkList>>,
        before: impl FnOnce(&[Op]) -> Option<Before>,
        cx: &mut Context<'_>,
    ) -> Self {
        let total = ops.literal_len();
        if !cx.may_pack || cx.config.level == 0 || total.get() < PACK_MIN {
            return Self::raw(file, ops);
        }
        let first = &ops.as_slice()[..ops.len().min(OPS_FIRST)];
        let (prefix, stream) = match before(first).filter(|before| !before.ranges.is_empty()) {
            Some(Before { prefix, file, ranges }) => (prefix, Stream::Loading(cx.ask(Ask::Read { file, ranges }))),
            None => (Prefix::None, Stream::Making(packer(Bytes::new(), total, whole, cx))),
        };
        Self::new(file, ops, prefix, stream)
    }

    fn new(file: FileHandle, ops: Ops, prefix: Prefix, stream: Stream) -> Self {
        Self {
            file,
            literal: ops.literal_len(),
            ops: ops.as_slice().to_vec().into_iter(),
            due: Ranges::default(),
            made: Offset::ZERO,
            prefix,
            stream,
            passing: Passing::default(),
            pieces: VecDeque::new(),
            begun: false,
            ended: false,
            alone: false,
        }
    }

    /// How many bytes the whole delta takes, once it is known: `None` while pieces are being prepared, the largest number
    /// when there are more than are prepared ahead.
    pub(crate) fn size(&self) -> Option<usize> {
        let ready = self.pieces.iter().all(|piece| matches!(piece.literals, State::Ready(_)));
        if !ready || !self.ended && self.pieces.len() < AHEAD {
            return None;
        }
        if !self.ended {
            return Some(usize::MAX);
        }
        let size = |piece: &Piece| match &piece.literals {
            State::Ready(literals) => {
                let delta = Delta { last: piece.last, ops: piece.ops.clone(), literals: literals.clone() };
                let mut head = Vec::new();
                let tail = delta.encode(true, &mut head);
                head.len() + tail.len()
            }
            _ => 0,
        };
        Some(self.pieces.iter().map(size).sum())
    }

    /// Reads and packs ahead, at most `most` literal bytes a piece.
    pub(crate) fn go_on(&mut self, most: usize, cx: &mut Context<'_>) {
        while !self.ended && self.pieces.len() < AHEAD {
            self.begin_piece(most, cx);
        }
        self.pack(cx);
    }

    /// True for a request of ours.
    pub(crate) fn waits_for(&self, id: RequestId) -> bool {
        matches!(self.stream, Stream::Loading(request) if request == id)
            || self.pieces.iter().any(|piece| matches!(piece.literals, State::Reading(request, _) if request == id))
    }

    /// Takes the answer to a request of ours.
    pub(crate) fn on_answer(&mut self, id: RequestId, answer: Answered, cx: &mut Context<'_>) -> Result<(), Trouble> {
        let Answer::Read(bytes) = answer? else { return Err(wrong_answer()) };
        if matches!(self.stream, Stream::Loading(request) if request == id) {
            self.stream = Stream::Making(packer(bytes, self.literal, None, cx));
            return Ok(());
        }
        let reading = |piece: &&mut Piece| matches!(piece.literals, State::Reading(request, _) if request == id);
        if let Some(piece) = self.pieces.iter_mut().find(reading) {
            if !matches!(piece.literals, State::Reading(_, len) if len == bytes.len() as u64) {
                return Err(wrong_answer());
            }
            piece.literals = State::Read(bytes);
            self.pack(cx);
        }
        Ok(())
    }

    /// Takes the result of a job that may be ours.
    pub(crate) fn on_computed(&mut self, id: JobId, product: Product, cx: &mut Context<'_>) {
        match product {
            Product::Packer { packer, unrepeated } if matches!(self.stream, Stream::Making(job) if job == id) => {
                self.passing.all = unrepeated;
                // Where there is no packer after all, nothing is packed.
                self.stream = packer.map_or(Stream::Raw, |packer| Stream::Packing(Some(packer)));
            }
            Product::Packed { packer, raw, packed } => {
                let packing = |piece: &&mut Piece| matches!(piece.literals, State::Packing(job) if job == id);
                let Some(piece) = self.pieces.iter_mut().find(packing) else { return };
                let raw_len = raw.len();
                let pays = packed.as_ref().is_some_and(|packed| packed.len() < raw_len - raw_len / PAYS);
                self.passing.packed(pays);
                piece.literals = State::Ready(match packed {
                    Some(bytes) if !self.alone || bytes.len() < raw_len => {
                        Literals::Packed { prefix: self.prefix, bytes, raw_len }
                    }
                    _ => Literals::Raw(raw),
                });
                self.stream = Stream::Packing(Some(packer));
            }
            _ => return,
        }
        self.pack(cx);
    }

    /// The piece that is to leave next.
    pub(crate) fn next_ready(&mut self) -> Next {
        match self.pieces.front() {
            Some(Piece { literals: State::Ready(_), last: true, .. }) => Next::Last,
            Some(Piece { literals: State::Ready(_), .. }) => self.take_front().map_or(Next::Nothing, Next::Piece),
            _ => Next::Nothing,
        }
    }

    /// The front piece, which is ready.
    pub(crate) fn take_front(&mut self) -> Option<Delta> {
        let Piece { ops, last, literals: State::Ready(literals) } = self.pieces.pop_front()? else { return None };
        Some(Delta { last, ops, literals })
    }

    fn begin_piece(&mut self, most: usize, cx: &mut Context<'_>) {
        // A receiver holds operations until their literals come: they run ahead of them only so far.
        let most_ops = match self.begun {
            false => OPS_FIRST,
            true if self.due.iter().len() < OPS_LATER => OPS_LATER,
            true => 0,
        };
        let mut ops = Ops::new();
        for op in self.ops.by_ref().take(most_ops) {
            if let Op::Literal { len } = op {
                self.due.push(self.made, len);
            }
            self.made += op.len();
            ops.push(op);
        }
        let Taken { ranges, len, .. } = self.due.take(most as u64);
        let last = self.due.is_empty() && self.ops.len() == 0;
        self.alone = last && !self.begun;
        let literals = if ranges.is_empty() {
            State::Ready(Literals::Raw(Bytes::new()))
        } else {
            State::Reading(cx.ask(Ask::Read { file: self.file.clone(), ranges }), len)
        };
        self.begun = true;
        self.ended = last;
        self.pieces.push_back(Piece { ops, last, literals });
    }

    /// Hands the first piece that is not packed to the packer, or lets it go as it is.
    fn pack(&mut self, cx: &mut Context<'_>) {
        for piece in &mut self.pieces {
            match (&mut piece.literals, &mut self.stream) {
                (State::Ready(_), _) => {}
                (State::Read(raw), Stream::Raw) => {
                    piece.literals = State::Ready(Literals::Raw(core::mem::take(raw)));
                }
                (State::Read(raw), Stream::Packing(_))
                    if self.literal >= LOOK_FROM && is_dense(raw) && self.passing.pass() =>
                {
                    piece.literals = State::Ready(Literals::Raw(core::mem::take(raw)));
                }
                (State::Read(raw), Stream::Packing(packer)) => {
                    let Some(packer) = packer.take() else { return };
                    let work = Work::Pack { packer, raw: core::mem::take(raw), last: piece.last };
                    piece.literals = State::Packing(cx.compute(work));
                    return;
                }
                _ => return,
            }
        }
    }
}

impl Passing {
    /// True when a dense piece passes by.
    fn pass(&mut self) -> bool {
        let passes = self.all || self.left > 0;
        self.left = self.left.saturating_sub(1);
        passes
    }

    /// A piece was packed; did that pay?
    fn packed(&mut self, pays: bool) {
        self.futile = if pays { 0 } else { self.futile + 1 };
        self.left = if pays { 0 } else { (1 << self.futile.min(8)).min(PASS_MAX) };
    }
}

/// Of a whole target a high level saves little: level 19 makes a twentieth less of short files of text than this one, and
/// takes fifteen times as long.
const WHOLE_LEVEL: i32 = 9;

/// One from this length on, in bytes, is packed at the level of the configuration, for where the link is fast.
const WHOLE: usize = 2 << 20;

/// Begins to make the packer for so many literals behind a prefix.
fn packer(prefix: Bytes, total: ByteLen, whole: Option<Arc<ChunkList>>, cx: &mut Context<'_>) -> JobId {
    let together = total.to_usize().unwrap_or(usize::MAX).saturating_add(prefix.len());
    let level = match &whole {
        Some(_) if together >= WHOLE => cx.config.level,
        Some(_) => cx.config.level.max(WHOLE_LEVEL),
        None => cx.config.level.max(history_level(together)),
    };
    cx.compute(Work::Packer { prefix, total, level, whole })
}
