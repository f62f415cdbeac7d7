//! Compression of literals: one zstd frame for a piece, kept only when it is smaller.
//!
//! Decompression yields exactly the length that was announced or fails, so a small piece cannot grow into a large
//! allocation. Without the feature `zstd` nothing is packed and packed input is refused; the peers agree on it in the
//! handshake.
//!
//! Source: RFC 8878 (Zstandard).

use alloc::vec::Vec;

/// Below this many bytes a frame's own header eats what it saves.
#[cfg(feature = "zstd")]
const WORTHWHILE: usize = 64;

/// Packs `raw` at `level` (1 fastest, 3 usual, 19 smallest); `None` when that would not make it smaller.
#[cfg(feature = "zstd")]
pub fn pack(raw: &[u8], level: i32) -> Option<Vec<u8>> {
    if raw.len() < WORTHWHILE {
        return None;
    }
    let mut packed = Vec::with_capacity(zstd_safe::compress_bound(raw.len()));
    zstd_safe::compress(&mut packed, raw, level).ok()?;
    packed.shrink_to_fit();
    (packed.len() < raw.len()).then_some(packed)
}

/// Packs nothing: this build has no compression.
#[cfg(not(feature = "zstd"))]
pub fn pack(_raw: &[u8], _level: i32) -> Option<Vec<u8>> {
    None
}

/// Unpacks what must become exactly `raw_len` bytes.
///
/// # Errors
///
/// [`UnpackError`] when the frame is damaged, makes another length, or this build has no compression.
///
/// # Security
///
/// Allocates `raw_len` bytes, which the caller has checked against its limits, and never more.
#[cfg(feature = "zstd")]
pub fn unpack(packed: &[u8], raw_len: usize) -> Result<Vec<u8>, UnpackError> {
    let mut raw = Vec::with_capacity(raw_len);
    let made = zstd_safe::decompress(&mut raw, packed).map_err(|_| UnpackError::Damaged)?;
    if made != raw_len {
        return Err(UnpackError::Length { wanted: raw_len, made });
    }
    Ok(raw)
}

/// Refuses: this build has no compression.
///
/// # Errors
///
/// Always [`UnpackError::Unsupported`].
#[cfg(not(feature = "zstd"))]
pub fn unpack(_packed: &[u8], _raw_len: usize) -> Result<Vec<u8>, UnpackError> {
    Err(UnpackError::Unsupported)
}

/// True when this build can pack and unpack.
pub const CAN_PACK: bool = cfg!(feature = "zstd");

/// Why packed bytes did not unpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// Not a zstd frame, or one that makes more than was announced.
    #[error("packed literals are damaged or longer than announced")]
    Damaged,
    /// The frame makes fewer bytes than was announced.
    #[error("packed literals make {made} bytes, not the announced {wanted}")]
    Length {
        /// The announced length.
        wanted: usize,
        /// What the frame makes.
        made: usize,
    },
    /// This build has no compression.
    #[error("packed literals, but this build has no compression")]
    Unsupported,
}

#[cfg(all(test, feature = "zstd"))]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn packing_pays_or_is_left_out() {
        assert_eq!(pack(&[], 3), None);
        assert_eq!(pack(&[7; 10], 3), None, "too small to pay");
        let zeros = vec![0; 1 << 18];
        let packed = pack(&zeros, 3).expect("zeros pack");
        assert!(packed.len() < 100, "{}", packed.len());
        assert_eq!(unpack(&packed, zeros.len()), Ok(zeros));
    }

    #[test]
    fn another_length_than_announced_is_refused() {
        let packed = pack(&[1; 1000], 3).expect("packs");
        assert_eq!(unpack(&packed, 999), Err(UnpackError::Damaged));
        assert_eq!(unpack(&packed, 1001), Err(UnpackError::Length { wanted: 1001, made: 1000 }));
        assert_eq!(unpack(b"no frame at all", 10), Err(UnpackError::Damaged));
    }
}
