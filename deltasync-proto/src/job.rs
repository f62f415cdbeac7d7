//! Heavy work as data: what a session wants computed on another thread.
//!
//! A [`Job`] owns all it needs and its `run` is a pure function of the engine, so a driver may run jobs in parallel, in
//! any order, or at once in its own loop; the result goes back with the job's id.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use deltasync_core::{Alignment, ChunkList, Segment, TagKey, TagRun, UnpackError, pack, tag_runs, unpack};

use crate::{JobId, WantRun};

/// Owned work for another thread.
#[derive(Clone, Debug)]
pub struct Job {
    /// To be given back with the result.
    pub id: JobId,
    pub(crate) work: Work,
}

#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Compute the tags of a chunk list.
    Tag { chunks: Arc<ChunkList>, key: TagKey },
    /// Find the offered tags among those of the basis.
    Match { basis: Arc<ChunkList>, offered: Vec<TagRun>, key: TagKey },
    /// Compress literals.
    Pack { raw: Bytes, level: i32 },
    /// Decompress literals to a length that was checked against the limits.
    Unpack { packed: Bytes, raw_len: usize },
}

/// The result of a [`Job`].
#[derive(Clone, Debug, PartialEq)]
pub struct Computed(pub(crate) Product);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Product {
    Tagged(Vec<TagRun>),
    Matched(Vec<WantRun>),
    /// The raw bytes come back too, for when packing did not pay.
    Packed {
        raw: Bytes,
        packed: Option<Bytes>,
    },
    Unpacked(Result<Bytes, UnpackError>),
}

impl Job {
    /// Does the work. Takes milliseconds to seconds; blocks on nothing.
    pub fn run(self) -> Computed {
        Computed(match self.work {
            Work::Tag { chunks, key } => Product::Tagged(tag_runs(&chunks, &key)),
            Work::Match { basis, offered, key } => Product::Matched(find(&basis, &offered, &key)),
            Work::Pack { raw, level } => {
                let packed = pack(&raw, level).map(Bytes::from);
                Product::Packed { raw, packed }
            }
            Work::Unpack { packed, raw_len } => Product::Unpacked(unpack(&packed, raw_len).map(Bytes::from)),
        })
    }
}

/// Which offered chunks the basis has, and where.
fn find(basis: &ChunkList, offered: &[TagRun], key: &TagKey) -> Vec<WantRun> {
    let alignment = Alignment::of(&tag_runs(basis, key), offered);
    let mut runs: Vec<WantRun> = Vec::new();
    for segment in alignment.segments() {
        match segment {
            Segment::Gap { target, .. } => {
                runs.push(WantRun { missing: target.end - target.start, ..WantRun::default() });
            }
            Segment::Common { basis: index, count, .. } => {
                let from = basis.offset_of(*index);
                match runs.last_mut() {
                    Some(run) if run.have == 0 => (run.have, run.from) = (*count, from),
                    _ => runs.push(WantRun { missing: 0, have: *count, from }),
                }
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use deltasync_core::{Algorithm, Cutter, Offset};

    use super::*;

    #[test]
    fn chunks_of_the_basis_are_found_where_they_lie() {
        let mut target = Vec::new();
        (0..64u32).for_each(|i| target.extend_from_slice(&i.to_le_bytes().repeat(1024)));
        let mut basis = target.clone();
        basis[8 * 4096] ^= 1;
        let list = |bytes: &[u8]| ChunkList::of(bytes, Cutter::FIXED_4096, Algorithm::Blake3);
        let key = TagKey::new(&[1; 16], 1);
        let runs = find(&list(&basis), &tag_runs(&list(&target), &key), &key);
        let at = |missing, have, from| WantRun { missing, have, from: Offset::new(from) };
        assert_eq!(runs, [at(0, 8, 0), at(1, 55, 9 * 4096)]);
    }
}
