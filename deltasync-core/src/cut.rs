//! Where a file is cut into chunks: by content, so that an insertion moves the cut points along with the bytes, or
//! every so many bytes.
//!
//! MinCDC: of all the places where a chunk may end, between half and one and a half times the average from its start,
//! it ends where the last 4 bytes have the smallest hash, the first such place in a tie. A decision needs the bytes up
//! to the longest chunk and nothing that stands before the chunk, so cut points settle again after an edit. The hash is
//! a multiplication and an addition modulo 2^32. With the feature `std` the search is the SIMD of the crate `mincdc`,
//! 16 to 28 GB/s a core; without it a scalar search, about ten times slower.
//!
//! Invariant: both searches, and every split of the input, give the same cut points on every machine: they are part of
//! the protocol, pinned by the golden vectors below. Runs of one byte are cut at the shortest chunk.
//!
//! Source: O. Peters, "MinCDC" (2025), the crate `mincdc` 0.1 and its constants.

use serde::{Deserialize, Serialize};

use crate::{ByteLen, TreeEntry};

/// A way to cut a file into chunks; lengths in bytes.
///
/// # Security
///
/// One that was deserialized is whatever the peer wrote: see [`Cutter::validate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cutter {
    /// Content-defined chunks between half and one and a half times `average`.
    MinCdc {
        /// The average length: a power of two from [`Cutter::SHORTEST`] to [`Cutter::LONGEST`].
        average: u32,
    },
    /// Chunks of one size; the last may be shorter.
    Fixed {
        /// The length: a power of two from [`Cutter::SHORTEST`] to [`Cutter::LONGEST`].
        size: u32,
    },
    /// Not a file but a tree, a chunk for each of its entries, see [`TreeList`](crate::TreeList).
    Entries,
}

impl Cutter {
    /// The least average or size, in bytes.
    pub const SHORTEST: u32 = 1 << 10;

    /// The greatest average or size, in bytes.
    pub const LONGEST: u32 = 16 << 20;

    /// Blocks of 4096 bytes.
    pub const FIXED_4096: Self = Self::Fixed { size: 4096 };

    /// The content-defined cutter for a file of `len` bytes: 2 KiB chunks up to 4 MiB, 4 KiB up to 256 MiB, 8 KiB up to
    /// 8 GiB, from there on so long that there are about 2^20 of them.
    pub fn for_len(len: ByteLen) -> Self {
        const MIB: u64 = 1 << 20;
        let average = match len.get() {
            len if len <= 4 * MIB => 2 << 10,
            len if len <= 256 * MIB => 4 << 10,
            len => len.div_ceil(1 << 20).clamp(8 << 10, Self::LONGEST.into()).next_power_of_two(),
        };
        Self::MinCdc { average: u32::try_from(average).expect("at most LONGEST") }
    }

    /// The cutter for a file of `len` bytes that starts with `start` (100 bytes or more tell all there is to tell): by its
    /// pages for a database that keeps them in place, which is where its edits begin and end; otherwise as
    /// [`Cutter::for_len`].
    ///
    /// Source: "Database File Format" of SQLite, section 1.3, for its header and the page size in it.
    pub fn for_file(len: ByteLen, start: &[u8]) -> Self {
        let usual = Self::for_len(len);
        let Self::MinCdc { average } = usual else { return usual };
        match start {
            [
                b'S',
                b'Q',
                b'L',
                b'i',
                b't',
                b'e',
                b' ',
                b'f',
                b'o',
                b'r',
                b'm',
                b'a',
                b't',
                b' ',
                b'3',
                0,
                high,
                low,
                ..,
            ] => {
                // 65536 is written as 1.
                let page = match u16::from_be_bytes([*high, *low]) {
                    1 => 1 << 16,
                    page => u32::from(page),
                };
                let pages =
                    Self::Fixed { size: page.max(Self::SHORTEST).max(if average > 8 << 10 { average } else { 0 }) };
                pages.validate().unwrap_or(usual)
            }
            _ => usual,
        }
    }

    /// True when a file of `len` bytes that was cut so before may go on being cut so: its chunks are at most twice as long
    /// or as short as [`Cutter::for_len`] would make them. A file that grows past a border keeps its cut points for a
    /// while, and what is remembered of it stays of use.
    pub fn suits(self, len: ByteLen) -> bool {
        match (self, Self::for_len(len)) {
            (Self::MinCdc { average }, Self::MinCdc { average: usual }) => {
                average <= usual.saturating_mul(2) && usual <= average.saturating_mul(2)
            }
            (Self::Fixed { .. }, _) | (_, Self::Fixed { .. }) => true,
            (Self::Entries, _) | (_, Self::Entries) => false,
        }
    }

    /// The cutter itself, once its average or size is known to be a power of two in range.
    ///
    /// # Errors
    ///
    /// [`InvalidCutter`] naming the length otherwise.
    ///
    /// # Security
    ///
    /// Call it on every cutter from a peer: a tiny average would make us hold a chunk for every few bytes of the basis.
    pub fn validate(self) -> Result<Self, InvalidCutter> {
        let (Self::MinCdc { average: len } | Self::Fixed { size: len }) = self else { return Ok(self) };
        let valid = len.is_power_of_two() && (Self::SHORTEST..=Self::LONGEST).contains(&len);
        if valid { Ok(self) } else { Err(InvalidCutter { len }) }
    }

    /// The shortest chunk but for the last, in bytes. Cutters that are not valid behave as the nearest that can work.
    pub fn min_len(self) -> usize {
        match self {
            Self::MinCdc { average } => (average.clamp(2 * WINDOW as u32, Self::LONGEST) / 2) as usize,
            Self::Fixed { size } => size.clamp(1, Self::LONGEST) as usize,
            // Bytes are no entries; should somebody cut a file so, it is cut.
            Self::Entries => TreeEntry::LONGEST,
        }
    }

    /// The longest chunk, in bytes.
    pub fn max_len(self) -> usize {
        match self {
            Self::MinCdc { .. } => 3 * self.min_len(),
            Self::Fixed { .. } | Self::Entries => self.min_len(),
        }
    }

    /// The length of the first chunk of `bytes`, in bytes, or `None` while more of them are needed to decide: as many
    /// as [`Cutter::max_len`], unless `last` says that nothing follows. No bytes have no first chunk.
    pub fn cut(self, bytes: &[u8], last: bool) -> Option<usize> {
        let (min, max) = (self.min_len(), self.max_len());
        if bytes.is_empty() || bytes.len() < max && !last {
            return None;
        }
        if bytes.len() <= min {
            return Some(bytes.len());
        }
        Some(match self {
            Self::MinCdc { .. } => min + least_window(&bytes[min - WINDOW..bytes.len().min(max)]),
            Self::Fixed { .. } | Self::Entries => min,
        })
    }
}

/// A cutter whose average or size is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk length of {len} bytes is not a power of two from 1024 to 16777216")]
pub struct InvalidCutter {
    /// The average or size, in bytes.
    pub len: u32,
}

/// The bytes before a cut point that decide on it.
const WINDOW: usize = 4;

/// Where the first window with the smallest hash starts; `bytes` hold at least one.
#[cfg(feature = "std")]
fn least_window(bytes: &[u8]) -> usize {
    use mincdc::Cdc;
    mincdc::MinCdcHash4::new().best_splitpoint(bytes) - WINDOW
}

#[cfg(not(feature = "std"))]
use scalar::least_window;

/// The search without SIMD of its own: the least hash first, then where it stands.
#[cfg(any(test, not(feature = "std")))]
mod scalar {
    use super::WINDOW;

    const MULTIPLIER: u32 = 0x915f_77f5;
    const ADDEND: u32 = 0x3463_6463;

    pub(super) fn least_window(bytes: &[u8]) -> usize {
        let hashes = || {
            bytes.windows(WINDOW).map(|window| {
                let window = window.try_into().expect("windows are 4 bytes");
                u32::from_le_bytes(window).wrapping_mul(MULTIPLIER).wrapping_add(ADDEND)
            })
        };
        let least = hashes().min();
        hashes().position(|hash| Some(hash) == least).unwrap_or(0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec;
    use alloc::vec::Vec;
    use core::fmt::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::Algorithm;

    /// `len` bytes that follow from `seed` (the generator SplitMix64).
    pub(crate) fn random(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let words = (0..len.div_ceil(8)).flat_map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ mixed >> 31).to_le_bytes()
        });
        words.take(len).collect()
    }

    pub(crate) const SMALL: Cutter = Cutter::MinCdc { average: 64 };

    fn cut_points(cutter: Cutter, bytes: &[u8]) -> Vec<usize> {
        let mut points = Vec::new();
        let mut at = 0;
        while let Some(len) = cutter.cut(&bytes[at..], true) {
            at += len;
            points.push(at);
        }
        points
    }

    #[test]
    fn a_database_is_cut_by_its_pages() {
        let start = |high, low| [&b"SQLite format 3\0"[..], &[high, low], &[0; 82]].concat();
        let cutter = |len, start: &[u8]| Cutter::for_file(ByteLen::new(len), start);
        assert_eq!(cutter(90 << 20, &start(0x10, 0)), Cutter::Fixed { size: 4096 });
        assert_eq!(cutter(90 << 20, &start(0, 1)), Cutter::Fixed { size: 65536 });
        assert_eq!(cutter(90 << 20, &start(2, 0)), Cutter::Fixed { size: 1024 }, "pages of 512 by twos");
        assert_eq!(cutter(64 << 30, &start(0x10, 0)), Cutter::Fixed { size: 65536 }, "about 2^20 of them");
        for (other, why) in
            [(start(0x10, 1), "no page size"), (vec![], "nothing"), (start(0x10, 0)[..17].to_vec(), "cut off")]
        {
            assert_eq!(cutter(90 << 20, &other), Cutter::for_len(ByteLen::new(90 << 20)), "{why}");
        }
    }

    #[test]
    fn golden_cut_points_of_a_short_file() {
        let points = cut_points(SMALL, &random(1, 500));
        assert_eq!(points, [84, 159, 240, 274, 319, 367, 441, 485, 500]);
    }

    #[test]
    fn golden_cut_points_of_long_files() {
        let text: Vec<u8> =
            (0..200_000u32).flat_map(|i| (u64::from(i) * u64::from(i) % 10_007).to_string().into_bytes()).collect();
        let mut sparse = random(3, 1 << 20);
        sparse[100_000..900_000].fill(0);
        for (name, bytes, average, count, digest) in [
            ("random", random(2, 1 << 20), 2048, 495, "2770e820267454ee"),
            ("random", random(2, 1 << 20), 8192, 122, "87e46514243548de"),
            ("random", random(2, 1 << 20), 65_536, 18, "01358e1a06b2b394"),
            ("text", text, 4096, 181, "381a5172b4a0dd4f"),
            ("sparse", sparse, 4096, 451, "12006bb0b4291f46"),
            ("period", (0..300_000u32).map(|i| (i % 251) as u8).collect(), 4096, 133, "0cfe000935151ba7"),
        ] {
            let points = cut_points(Cutter::MinCdc { average }, &bytes);
            let mut list = String::new();
            points.iter().for_each(|point| writeln!(list, "{point}").expect("writing to a string"));
            let listed = Algorithm::Sha256.digest(list.as_bytes()).to_string();
            assert_eq!((points.len(), &listed[..16]), (count, digest), "{name} {average}");
        }
    }

    #[test]
    fn chunks_keep_their_bounds_at_every_length_around_them() {
        for cutter in [SMALL, Cutter::Fixed { size: 64 }] {
            let bytes = random(4, 3 * cutter.max_len() + 2);
            for len in 0..bytes.len() {
                let points = cut_points(cutter, &bytes[..len]);
                assert_eq!(points.last().copied().unwrap_or(0), len);
                let starts = [0].iter().chain(&points);
                let lens: Vec<usize> = points.iter().zip(starts).map(|(end, start)| end - start).collect();
                for (i, chunk) in lens.iter().enumerate() {
                    assert!(*chunk <= cutter.max_len() && *chunk > 0, "{cutter:?} {len}: {lens:?}");
                    assert!(*chunk >= cutter.min_len() || i + 1 == lens.len(), "{cutter:?} {len}: {lens:?}");
                }
            }
        }
    }

    #[test]
    fn a_cut_is_decided_at_the_longest_chunk_and_not_before() {
        let bytes = random(5, 200);
        for cutter in [SMALL, Cutter::Fixed { size: 64 }] {
            let max = cutter.max_len();
            assert_eq!(cutter.cut(&[], true), None);
            assert_eq!(cutter.cut(&bytes[..max - 1], false), None);
            assert_eq!(cutter.cut(&bytes[..max], false), cutter.cut(&bytes, true));
            assert_eq!(cutter.cut(&bytes[..1], true), Some(1));
        }
    }

    #[test]
    fn runs_of_one_byte_are_cut_at_the_shortest_chunk() {
        for byte in [0, 1, 0xff] {
            assert_eq!(SMALL.cut(&vec![byte; 1000], false), Some(SMALL.min_len()));
        }
    }

    #[test]
    fn the_average_grows_with_the_file() {
        let average = |len: u64| match Cutter::for_len(ByteLen::new(len)).validate() {
            Ok(Cutter::MinCdc { average }) => average >> 10,
            other => panic!("{other:?}"),
        };
        let (mib, gib) = (1u64 << 20, 1u64 << 30);
        for (len, kib) in [
            (0, 2),
            (4 * mib, 2),
            (4 * mib + 1, 4),
            (256 * mib, 4),
            (256 * mib + 1, 8),
            (8 * gib, 8),
            (8 * gib + 1, 16),
            (16 * gib, 16),
            (1024 * gib, 1024),
            (16 * 1024 * gib, 16 * 1024),
            (u64::MAX, 16 * 1024),
        ] {
            assert_eq!(average(len), kib, "{len}");
        }
    }

    #[test]
    fn a_cutter_out_of_range_is_refused_and_still_harmless() {
        for len in [0, 1, 512, 1023, 1025, 3 << 10, (16 << 20) + 1, 32 << 20, u32::MAX] {
            for cutter in [Cutter::MinCdc { average: len }, Cutter::Fixed { size: len }] {
                assert_eq!(cutter.validate(), Err(InvalidCutter { len }));
                assert!((1..=cutter.max_len()).contains(&cutter.min_len()) && cutter.max_len() <= 24 << 20);
                assert!(cutter.cut(&[7; 100], true).is_some_and(|len| (1..=100).contains(&len)));
            }
        }
        let message = InvalidCutter { len: 1000 }.to_string();
        assert_eq!(message, "chunk length of 1000 bytes is not a power of two from 1024 to 16777216");
        assert_eq!(Cutter::FIXED_4096.validate(), Ok(Cutter::FIXED_4096));
    }

    /// Inserts `inserted` at `at`: the cut points behind it must be the old ones, moved, before 40 chunks have passed.
    fn check_cut_points_settle(bytes: &[u8], at: usize, inserted: &[u8]) {
        let edited = [&bytes[..at], inserted, &bytes[at..]].concat();
        let (old, new) = (cut_points(SMALL, bytes), cut_points(SMALL, &edited));
        let settled = at + 40 * SMALL.max_len();
        let moved = old.iter().map(|point| point + inserted.len()).filter(|point| *point > settled);
        assert!(new.iter().copied().filter(|point| *point > settled).eq(moved), "at={at}");
        assert!(new.iter().filter(|point| **point + SMALL.max_len() <= at).all(|point| old.contains(point)), "at={at}");
    }

    #[cfg(feature = "std")]
    fn check_equals_the_crate(bytes: &[u8]) {
        assert_eq!(least_window(bytes), scalar::least_window(bytes));
        let chunks = mincdc::SliceChunker::new(bytes, SMALL.min_len(), SMALL.max_len(), mincdc::MinCdcHash4::new());
        let ends: Vec<usize> = chunks.map(|chunk| chunk.offset() + chunk.len()).collect();
        assert_eq!(cut_points(SMALL, bytes), ends);
    }

    proptest! {
        #[test]
        fn cut_points_settle_after_an_insertion(
            seed: u64,
            at in 0usize..8000,
            inserted in prop::collection::vec(any::<u8>(), 1..200),
        ) {
            check_cut_points_settle(&random(seed, 16_000), at, &inserted);
        }

        #[cfg(feature = "std")]
        #[test]
        fn scalar_and_simd_cut_alike(seed: u64, len in 4usize..2000) {
            check_equals_the_crate(&random(seed, len));
        }

        #[cfg(feature = "std")]
        #[test]
        fn scalar_and_simd_break_ties_alike(bytes in prop::collection::vec(0u8..2, 4..1000)) {
            check_equals_the_crate(&bytes);
        }
    }
}
