//! The pure engine of deltasync.
//!
//! One sync, from the engine's side: the sender cuts its target into content-defined chunks and the receiver cuts its
//! basis likewise (`Chunker`, `ChunkList`); short keyed tags of the chunks travel, and the receiver aligns the two lists
//! (`Alignment`): runs that both have become copies, what lies between is asked for. The sender answers with a delta
//! ([`Ops`] and literal bytes), each piece of which is checked against basis, announced length and [`Limits`] by a
//! [`Planner`]; the [`Plan`] that comes out is carried out by whoever holds the files, and the result is published only
//! if its root, the digest of the whole file, is the one announced. Short hashes never decide what is right.
//!
//! Everything here is plain data and small push/pull machines over byte slices: no files, no sockets, no clock, no
//! runtime; `no_std` with `alloc` when the feature `std` is off.
//!
//! ```
//! use deltasync_core::{Algorithm, ByteLen, Limits, Offset, Op, Ops, Planner};
//!
//! let ops: Ops = [Op::Copy { from: Offset::new(0), len: ByteLen::new(6) }, Op::Literal { len: ByteLen::new(5) }]
//!     .into_iter()
//!     .collect();
//! let mut planner = Planner::new(ByteLen::new(11), ByteLen::new(11), &Limits::default())?;
//! let plan = planner.plan(&ops, ByteLen::new(5))?;
//! assert_eq!(plan.steps().len(), 2);
//! planner.finish()?;
//! # Ok::<(), deltasync_core::PlanError>(())
//! ```
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod units;
pub use units::{BlockIndex, ByteLen, Generation, Offset};

mod limits;
pub use limits::{LimitExceeded, Limits};

mod varint;
pub use varint::{Malformed, Reader, write_signed, write_varint};

mod path;
pub use path::{InvalidPath, Name, RelPath};

#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod simd;

mod digest;
pub use digest::{Algorithm, Digest, Hasher, InvalidDigest, UnknownAlgorithm};

mod anchor;

mod rolling;
pub use rolling::RollingSum;

mod opening;
pub use opening::{FileFormat, InvalidOpening};

mod signature;
pub use signature::{InvalidShape, InvalidSignature, Signature};

mod signer;
pub use signer::{BasisChanged, SignatureBuilder, Signer};

mod table;

mod index;
pub use index::SignatureIndex;

mod cut;
pub use cut::{Cutter, InvalidCutter};

mod chunk;
pub use chunk::{ChunkList, ChunkRun, Chunker};

mod section;
pub use section::{HashedSection, Section, SectionCutter, SectionJoiner};

mod chunk_file;
pub use chunk_file::InvalidChunkFile;

mod rechunk;
pub use rechunk::Rechunker;

mod xattrs;
pub use xattrs::{InvalidXattr, Xattrs};

mod tree;
pub use tree::{Attributes, InvalidTree, TreeEntry, TreeKind, TreeList, TreeLister, content_check, tree_order};

mod archive;
pub use archive::{ArchiveReader, ArchivedEntry};

mod tree_change;
pub use tree_change::{ChangeReason, TreeChange, tree_changes};

mod tag;
pub use tag::{Tag, TagKey, TagRun, tag_runs};

mod resemblance;
pub use resemblance::Resemblance;

mod context;
pub use context::context_tags;

mod sketch_key;
pub use sketch_key::SketchKey;

mod sketch;
pub use sketch::{InvalidSketch, Sketch};

mod estimate;
pub use estimate::Estimate;

mod peel;
pub use peel::{Differences, Undecided};

mod bits;
pub use bits::{BitReader, BitWriter, rice_for};

mod fine;
pub use fine::{FineKey, FineShape, FineSummer, read_sums, write_sums};

mod fine_index;
pub use fine_index::{FineIndex, InvalidStretches, OldStretch};

mod fine_match;
pub use fine_match::Pairing;

mod elements;
pub use elements::{Elements, read_tags};

mod shared;
pub use shared::{Break, Shared};

mod survey;
pub use survey::{InvalidSurvey, OldContent, OldPiece, Survey, old_entries, old_pieces};

mod reconcile;
pub use reconcile::{Compared, LIST_AT_ONCE, Received, Wanted};

mod gap;

mod align;
pub use align::{Alignment, Segment};

mod op;
pub use op::{InvalidOps, Op, Ops, decode_ops, encode_ops};

mod pack;
pub use pack::{CAN_PACK, UnpackError, pack, unpack};

mod block_map;
pub use block_map::{BlockMap, BlockRun, Origin, Placed, Placer};

mod sample;
pub use sample::{is_dense, is_unrepeated};

mod stream;
pub use stream::{LiteralPacker, LiteralUnpacker};

mod plan;
pub use plan::{Plan, PlanError, Planner, Step};

mod stats;
pub use stats::Stats;

mod piece;
pub use piece::DeltaPiece;

mod ration;

mod rolled;

mod run;

mod differ;
pub use differ::Differ;

mod delta;
pub use delta::{DeltaHeader, DeltaPart, DeltaSummary, DeltaWriter, TargetChanged};

mod delta_reader;
pub use delta_reader::{DeltaReader, InvalidDelta};

mod patch;
pub use patch::{PatchError, PatchRequest, Patcher};

mod script;
pub use script::{Gap, Part, Script, neighbours};

mod mend;
pub use mend::MendKey;

mod common;
pub use common::CommonRange;

mod equal;

mod window;

mod exact;
pub use exact::ExactDiffer;

mod columns;
pub use columns::{InvalidColumns, pack_ops, unpack_ops};

mod history;
pub use history::{History, history_level};

#[cfg(test)]
mod reference;
