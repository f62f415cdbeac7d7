//! Digests: 32 bytes that stand for the content of a chunk, a block or a whole file.
//!
//! BLAKE3-256 is the default, SHA-256 the option where a policy asks for it; both give 32 bytes, so everything
//! downstream holds a [`Digest`] and only the ends that compute one know the [`Algorithm`]. The *root* of a file is the
//! digest of all its bytes, the very value `b3sum` or `sha256sum` prints.
//!
//! Sources: BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020); FIPS 180-4.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// Which hash function makes the digests of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Algorithm {
    /// BLAKE3 with 256 bits of output.
    #[default]
    Blake3,
    /// SHA-256.
    Sha256,
}

impl Algorithm {
    /// All that this build knows, in the order of preference.
    pub const ALL: [Self; 2] = [Self::Blake3, Self::Sha256];

    /// The name used on command lines and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
        }
    }

    /// The digest of `bytes`.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        match self {
            Self::Blake3 => Digest(*blake3::hash(bytes).as_bytes()),
            Self::Sha256 => Digest(sha2::Sha256::digest(bytes).into()),
        }
    }

    /// Appends the digest of each of `pieces` to `digests`, in their order.
    ///
    /// BLAKE3 is computed in the SIMD lanes of the processor, of many pieces at once: several times faster than one by one
    /// where pieces have a few KiB. Batches of 64 to 256 KiB fill the lanes and stay in the cache.
    pub fn digest_all(self, pieces: &[&[u8]], digests: &mut alloc::vec::Vec<Digest>) {
        self.digest_all_ahead(pieces, &[], digests);
    }

    /// The same, while the bytes that are worked on next come into the cache: memory would stand still otherwise.
    #[cfg_attr(not(all(feature = "std", target_arch = "x86_64")), expect(unused_variables))]
    pub(crate) fn digest_all_ahead(self, pieces: &[&[u8]], ahead: &[u8], digests: &mut alloc::vec::Vec<Digest>) {
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        if self == Self::Blake3 {
            let lanes = crate::simd::Lanes::detect();
            if crate::simd::blake3::digests(lanes, pieces, ahead, |digest| digests.push(Digest(digest))) {
                return;
            }
        }
        digests.extend(pieces.iter().map(|piece| self.digest(piece)));
    }

    /// A hasher for bytes that come in pieces.
    pub fn hasher(self) -> Hasher {
        match self {
            Self::Blake3 => Hasher(State::Blake3(alloc::boxed::Box::new(blake3::Hasher::new()))),
            Self::Sha256 => Hasher(State::Sha256(sha2::Sha256::new())),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;
    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::ALL.into_iter().find(|a| a.name() == name).ok_or(UnknownAlgorithm)
    }
}

/// A name that is no hash algorithm of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a hash algorithm: expected blake3 or sha256")]
pub struct UnknownAlgorithm;

/// 32 bytes of BLAKE3 or SHA-256. Prints and parses as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The bytes of a digest, in bytes.
    pub const LEN: usize = 32;

    /// A digest that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest as bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(InvalidDigest);
        }
        let value = |digit: u8| (digit as char).to_digit(16).map(|v| v as u8).ok_or(InvalidDigest);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

/// Text that is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: expected 64 hexadecimal digits")]
pub struct InvalidDigest;

/// The running digest of bytes that come in pieces; any split gives the same digest.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    // Boxed: its state is 1.9 KiB, and hashers live inside enums that are moved.
    Blake3(alloc::boxed::Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
}

impl Hasher {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Blake3(hasher) => {
                hasher.update(bytes);
            }
            State::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all bytes so far.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Blake3(hasher) => Digest(*hasher.finalize().as_bytes()),
            State::Sha256(hasher) => Digest(hasher.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn digests_are_what_b3sum_and_sha256sum_print() {
        let blake3 = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Algorithm::Blake3.digest(b"").to_string(), blake3);
        assert_eq!(Algorithm::Sha256.digest(b"").to_string(), sha256);
        assert_eq!(sha256.parse(), Ok(Algorithm::Sha256.digest(b"")));
    }

    #[test]
    fn any_split_gives_the_same_digest() {
        let data: alloc::vec::Vec<u8> = (0..5000u32).map(|i| (i * 7) as u8).collect();
        for algorithm in Algorithm::ALL {
            for split in [0, 1, 63, 64, 1024, 4999, 5000] {
                let mut hasher = algorithm.hasher();
                hasher.update(&data[..split]);
                hasher.update(&data[split..]);
                assert_eq!(hasher.finish(), algorithm.digest(&data), "{algorithm} split at {split}");
            }
        }
    }

    #[test]
    fn text_that_is_no_digest_is_refused() {
        assert_eq!("ab".parse::<Digest>(), Err(InvalidDigest));
        assert_eq!("é".repeat(32).parse::<Digest>(), Err(InvalidDigest));
        assert_eq!("md5".parse::<Algorithm>(), Err(UnknownAlgorithm));
    }
}
