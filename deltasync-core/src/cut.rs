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

use crate::ByteLen;

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
        let (Self::MinCdc { average: len } | Self::Fixed { size: len }) = self;
        let valid = len.is_power_of_two() && (Self::SHORTEST..=Self::LONGEST).contains(&len);
        if valid { Ok(self) } else { Err(InvalidCutter { len }) }
    }

    /// The shortest chunk but for the last, in bytes. Cutters that are not valid behave as the nearest that can work.
    pub fn min_len(self) -> usize {
        match self {
            Self::MinCdc { average } => (average.clamp(2 * WINDOW as u32, Self::LONGEST) / 2) as usize,
            Self::Fixed { size } => size.clamp(1, Self::LONGEST) as usize,
        }
    }

    /// The longest chunk, in bytes.
    pub fn max_len(self) -> usize {
        match self {
            Self::MinCdc { .. } => 3 * self.min_len(),
            Self::Fixed { .. } => self.min_len(),
        }
    }

    /// The length of the first chunk of `bytes`, in bytes, or `None` while more of them are needed to decide: as many as
    /// [`Cutter::max_len`], unless `last` says that nothing follows. No bytes have no first chunk.
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
            Self::Fixed { .. } => min,
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
