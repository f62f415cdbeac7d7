//! Heavy work as data: what a session wants computed on another thread.
//!
//! A [`Job`] owns all it needs and its `run` is a pure function of the engine, so a driver may run jobs in parallel, in
//! any order, or at once in its own loop; the result goes back with the job's id.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;
use deltasync_core::{
    Break, ByteLen, ChunkList, Compared, Cutter, Differences, Elements, Estimate, FineIndex, FineKey, FineSummer,
    Limits, LiteralPacker, LiteralUnpacker, MendKey, Offset, OldPiece, OldStretch, Ops, Pairing, Received, Script,
    Shared, Sketch, SketchKey, Survey, Tag, TagKey, Undecided, UnpackError, Wanted, is_unrepeated, neighbours,
    old_entries, old_pieces, pack,
};

use crate::exact::exact;
use crate::{InvalidMessage, JobId, SetPart};

/// Owned work for another thread.
#[derive(Debug)]
pub struct Job {
    /// To be given back with the result.
    pub id: JobId,
    pub(crate) work: Work,
}

#[derive(Debug)]
pub(crate) enum Work {
    /// Compute the elements of our chunk list.
    List { chunks: Arc<ChunkList>, key: TagKey },
    /// Make some cells of the sketch of our set.
    Sketch { elements: Arc<Elements>, key: SketchKey, cells: Range<usize> },
    /// Write some of the sorted tags of our set.
    Tags { elements: Arc<Elements>, ranks: Range<usize> },
    /// Compare our basis with what came of the other's set, and look at its gaps once it is told.
    Compare {
        chunks: Arc<ChunkList>,
        elements: Option<Arc<Elements>>,
        key: TagKey,
        edge_key: SketchKey,
        received: Received,
    },
    /// Find out where the order of our basis breaks theirs.
    Break { surveyed: Arc<Surveyed>, key: TagKey, edges: Sketch },
    /// How well do these bytes compress?
    Ratio { sample: Bytes },
    /// Sum the next bytes of old gaps; stretches end at `ends`.
    Sum { summer: Box<FineSummer>, bytes: Bytes, ends: Vec<usize> },
    /// Lay our chunks out over what a receiver says of its basis.
    Lay(Box<Lay>),
    /// Align our chunks with those of a basis that is remembered.
    Align { basis: Arc<ChunkList>, target: Arc<ChunkList>, block: Option<u64> },
    /// Make the index of sums that are kept beside a remembered basis.
    Index { key: FineKey, stretches: Vec<OldStretch>, sums: Bytes },
    /// Find slices of the target among summed blocks.
    Find { index: Arc<FineIndex>, bytes: Bytes, slices: Vec<(usize, Option<Pairing>)> },
    /// Find slices of the target among old bytes that are at hand.
    Exact { old: Bytes, seams: Vec<(Offset, ByteLen)>, new: Bytes, slices: Vec<usize> },
    /// Begin to pack literals; those of a whole target are looked at through its chunks.
    Packer { prefix: Bytes, total: ByteLen, level: i32, whole: Option<Arc<ChunkList>> },
    /// Pack the next literals.
    Pack { packer: Box<LiteralPacker>, raw: Bytes, last: bool },
    /// Begin to unpack literals.
    Unpacker { prefix: Bytes },
    /// Unpack the next literals to a length that was checked against the limits.
    Unpack { unpacker: Box<LiteralUnpacker>, packed: Bytes, raw_len: usize },
    /// Sum the ranges of some bytes.
    Ranges { key: MendKey, bytes: Bytes, range: usize },
}

/// What it takes to lay our chunks out.
#[derive(Debug)]
pub(crate) struct Lay {
    pub(crate) chunks: Arc<ChunkList>,
    pub(crate) elements: Arc<Elements>,
    pub(crate) key: TagKey,
    pub(crate) edge_key: SketchKey,
    pub(crate) fine: FineKey,
    pub(crate) survey: Bytes,
    pub(crate) limits: Limits,
    /// Where the receiver's order breaks ours, once it has told.
    pub(crate) breaks: Option<Vec<Break>>,
    /// How many bytes of neighbours may stand before the literals.
    pub(crate) most: ByteLen,
}

/// The result of a [`Job`].
#[derive(Debug)]
pub struct Computed(pub(crate) Product);

#[derive(Debug)]
pub(crate) enum Product {
    Listed(Arc<Elements>),
    Parts(Vec<SetPart>),
    Compared {
        elements: Arc<Elements>,
        received: Received,
        verdict: Verdict,
    },
    Broken(Broken),
    Ratio(u32),
    Summed(Box<FineSummer>),
    Laid(Result<Laid, InvalidMessage>),
    Aligned(Script),
    Indexed(Option<Arc<FineIndex>>),
    Found(Vec<Ops>),
    Packer {
        packer: Option<Box<LiteralPacker>>,
        /// What looks dense does not pack either behind what came before it.
        unrepeated: bool,
    },
    /// The raw bytes come back too, for when packing did not pay.
    Packed {
        packer: Box<LiteralPacker>,
        raw: Bytes,
        packed: Option<Bytes>,
    },
    Unpacker(Option<Box<LiteralUnpacker>>),
    Unpacked {
        unpacker: Box<LiteralUnpacker>,
        result: Result<Bytes, UnpackError>,
    },
    Ranges(Vec<u64>),
}

/// What a receiver makes of a set.
#[derive(Debug)]
pub(crate) enum Verdict {
    More(Wanted),
    Nothing,
    Surveyed(Arc<Surveyed>),
}

/// What a receiver has to say of its basis, but for the sums.
#[derive(Debug)]
pub(crate) struct Surveyed {
    pub(crate) elements: Arc<Elements>,
    pub(crate) shared: Shared,
    /// Ranks of what we lack among the sender's elements.
    pub(crate) missing: Vec<u32>,
    pub(crate) order: Tag,
    pub(crate) pieces: Vec<(OldPiece, Offset)>,
    /// The chunks beside the old gaps.
    pub(crate) neighbours: Vec<(Offset, ByteLen)>,
    /// Cells of the edges between what is shared, where there is so much to say that they cost next to nothing.
    pub(crate) edges: Option<Sketch>,
}

impl Surveyed {
    /// How many elements the sender has.
    pub(crate) fn theirs(&self) -> u64 {
        (self.shared.len() + self.missing.len()) as u64
    }
}

/// What a receiver says to a sketch of edges.
#[derive(Debug)]
pub(crate) enum Broken {
    /// More cells are needed, below this position.
    More {
        edges: Sketch,
        end: usize,
    },
    Breaks(Vec<Break>),
}

/// What a sender makes of a survey.
#[derive(Debug)]
pub(crate) enum Laid {
    /// The basis has another order: the edges of what is shared.
    Moved { edges: Arc<Elements> },
    /// Where to search.
    Script { script: Script, index: Arc<FineIndex>, neighbours: Vec<(Offset, ByteLen)> },
    /// Nothing fits: everything must be sent.
    Unfit,
}

/// The most bytes of neighbours before the literals of a transfer.
pub(crate) const NEIGHBOURS_MAX: ByteLen = ByteLen::new(8 << 20);
/// Cells or tags in one frame.
const PART: usize = 24 << 10;
/// From so many old gaps on the edges go with the survey: a cell for eight gaps, at most so many.
const EDGES_FROM: usize = 256;
const EDGES_MAX: usize = 1024;
/// With more breaks than one in so many, they are listed without asking for more cells.
const BREAKS: usize = 8;

impl Job {
    /// Does the work. Takes milliseconds to seconds; blocks on nothing.
    pub fn run(self) -> Computed {
        Computed(match self.work {
            Work::List { chunks, key } => Product::Listed(Arc::new(Elements::of(&chunks, &key))),
            Work::Sketch { elements, key, cells } => Product::Parts(sketched(&elements, key, cells)),
            Work::Tags { elements, ranks } => Product::Parts(listed(&elements, ranks)),
            Work::Compare { chunks, elements, key, edge_key, received } => {
                compare(&chunks, elements, &key, edge_key, received)
            }
            Work::Break { surveyed, key, edges } => Product::Broken(breaks(&surveyed, &key, edges)),
            Work::Ratio { sample } => {
                let packed = pack(&sample, 3).map_or(sample.len(), |packed| packed.len());
                Product::Ratio((packed * 1280).checked_div(sample.len()).unwrap_or(1024) as u32)
            }
            Work::Sum { mut summer, bytes, ends } => {
                let mut at = 0;
                for end in ends {
                    summer.push(&bytes[at..end]);
                    summer.end();
                    at = end;
                }
                summer.push(&bytes[at..]);
                Product::Summed(summer)
            }
            Work::Lay(lay) => Product::Laid(lay.run()),
            Work::Align { basis, target, block } => {
                let script = Script::between(&basis, &target);
                Product::Aligned(match block {
                    Some(block) => script.widened(block, basis.len()),
                    None => script,
                })
            }
            Work::Index { key, stretches, sums } => {
                let (sums, _) = sums.as_chunks();
                let sums = sums.iter().map(|sum| u64::from(u32::from_le_bytes(*sum))).collect();
                let index = FineIndex::new(key, deltasync_core::FineShape::KEPT, stretches, sums);
                Product::Indexed(index.ok().map(Arc::new))
            }
            Work::Find { index, bytes, slices } => {
                let mut rest = &bytes[..];
                let find = |(len, pair)| {
                    let (slice, behind) = rest.split_at(len);
                    rest = behind;
                    index.find(slice, pair)
                };
                Product::Found(slices.into_iter().map(find).collect())
            }
            Work::Exact { old, seams, new, slices } => Product::Found(exact(&old, &seams, &new, &slices)),
            Work::Packer { prefix, total, level, whole } => Product::Packer {
                packer: LiteralPacker::new(&prefix, total, level).map(Box::new),
                unrepeated: whole.is_some_and(|chunks| is_unrepeated(&chunks)),
            },
            Work::Pack { mut packer, raw, last } => {
                let packed = packer.push(&raw, last).map(Bytes::from);
                Product::Packed { packer, raw, packed }
            }
            Work::Unpacker { prefix } => Product::Unpacker(LiteralUnpacker::new(&prefix).ok().map(Box::new)),
            Work::Unpack { mut unpacker, packed, raw_len } => {
                let result = unpacker.push(&packed, raw_len).map(Bytes::from);
                Product::Unpacked { unpacker, result }
            }
            Work::Ranges { key, bytes, range } => Product::Ranges(key.sums(&bytes, range)),
        })
    }
}

fn parts(range: Range<usize>, bytes: impl Fn(Range<usize>) -> Vec<u8>) -> Vec<SetPart> {
    let number = |position: usize| u32::try_from(position).expect("positions in a set are far below 2^32");
    let part = |start: usize| {
        let end = range.end.min(start + PART);
        SetPart { start: number(start), count: number(end - start), bytes: bytes(start..end).into() }
    };
    // A set without elements is told by a part of none: whoever compares waits for one.
    let none = range.is_empty().then_some(range.start);
    range.clone().step_by(PART).chain(none).map(part).collect()
}

/// Some cells of a set, in frames.
fn sketched(elements: &Elements, key: SketchKey, cells: Range<usize>) -> Vec<SetPart> {
    parts(cells, |cells| {
        let mut bytes = Vec::new();
        Sketch::of(key, cells, elements.tags()).encode(&mut bytes);
        bytes
    })
}

fn listed(elements: &Elements, ranks: Range<usize>) -> Vec<SetPart> {
    parts(ranks, |ranks| {
        let mut bytes = Vec::new();
        elements.encode(ranks, &mut bytes);
        bytes
    })
}

fn compare(
    chunks: &ChunkList,
    elements: Option<Arc<Elements>>,
    key: &TagKey,
    edge_key: SketchKey,
    received: Received,
) -> Product {
    let elements = elements.unwrap_or_else(|| Arc::new(Elements::of(chunks, key)));
    let verdict = match Compared::of(&elements, &received) {
        Compared::More(wanted) => Verdict::More(wanted),
        Compared::Nothing => Verdict::Nothing,
        Compared::Differences(differences) => {
            Verdict::Surveyed(Arc::new(survey(chunks, elements.clone(), &differences, key, edge_key)))
        }
    };
    Product::Compared { elements, received, verdict }
}

fn survey(
    chunks: &ChunkList,
    elements: Arc<Elements>,
    differences: &Differences,
    key: &TagKey,
    edge_key: SketchKey,
) -> Surveyed {
    let shared = Shared::all_but(&elements, differences.ours());
    let missing = shared.ranks_of(differences.theirs());
    let pieces = match chunks.cutter() {
        Cutter::Entries => old_entries(chunks, &shared, &elements, differences.theirs()),
        Cutter::MinCdc { .. } | Cutter::Fixed { .. } => old_pieces(chunks, &shared, key, missing.len() as u64),
    };
    let places = pieces.iter().map(|(piece, _)| piece.before);
    let neighbours = neighbours(chunks, shared.runs(), places, NEIGHBOURS_MAX);
    let edges = (pieces.len() >= EDGES_FROM).then(|| {
        let cells = (pieces.len() / 8).min(EDGES_MAX);
        Sketch::of(edge_key, 0..cells, shared.edges(&elements, key).0.tags())
    });
    Surveyed { order: shared.order(&elements, key), elements, shared, missing, pieces, neighbours, edges }
}

fn breaks(surveyed: &Surveyed, key: &TagKey, edges: Sketch) -> Broken {
    let (own, all) = surveyed.shared.edges(&surveyed.elements, key);
    let ours = Sketch::of(edges.key(), edges.range(), own.tags());
    let missing = match Differences::between(&ours, &edges) {
        Ok(differences) => differences.ours().to_vec(),
        Err(Undecided::TooFew(Estimate { differences, cells }))
            if cells > edges.range().end && (differences as usize) < all.len() / BREAKS =>
        {
            return Broken::More { edges, end: cells };
        }
        // All of them: a list of the order.
        Err(_) => own.tags().collect(),
    };
    Broken::Breaks(surveyed.shared.breaks(&surveyed.elements, key, &missing))
}

impl Lay {
    fn run(self) -> Result<Laid, InvalidMessage> {
        let survey = Survey::decode(&self.survey, self.elements.len() as u64, self.edge_key, &self.limits)?;
        let shared = Shared::all_but_ranks(&self.elements, &survey.missing);
        let order = match &self.breaks {
            None if shared.order(&self.elements, &self.key) == survey.order => Some(shared.runs().to_vec()),
            None => {
                let breaks =
                    survey.edges.as_ref().and_then(|edges| shared.breaks_from(&self.elements, &self.key, edges));
                let Some(order) = breaks.and_then(|breaks| shared.walk(&breaks)) else {
                    let (edges, _) = shared.edges(&self.elements, &self.key);
                    return Ok(Laid::Moved { edges: Arc::new(edges) });
                };
                Some(order)
            }
            Some(breaks) => shared.walk(breaks),
        };
        let Some(order) = order else { return Ok(Laid::Unfit) };
        let Some(script) = Script::of_survey(&self.chunks, &shared, &order, &survey, &self.key) else {
            return Ok(Laid::Unfit);
        };
        let places = survey.pieces.iter().map(|piece| piece.before);
        let neighbours = neighbours(&self.chunks, &order, places, self.most);
        let shape = survey.shape.unwrap_or(deltasync_core::FineShape::KEPT);
        let Ok(index) = FineIndex::new(self.fine, shape, script.stretches().to_vec(), survey.sums) else {
            return Ok(Laid::Unfit);
        };
        Ok(Laid::Script { script, index: Arc::new(index), neighbours })
    }
}
