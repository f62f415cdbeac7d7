//! The handshake: who speaks which versions, can do what, and the nonces.
//!
//! Both ends send one hello; the client does not wait for the server's, its first requests follow at once. The layout is
//! as unchanging as the frame header: a later version may only append to it, so any version can read any hello.
//!
//! Two ends speak the highest version both know. The client writes its first flight in its own highest version; a server
//! that does not know it, or the hash in an offer, answers [`Unsupported`] and skips frames until the next hello.

use alloc::vec::Vec;

use bytes::Bytes;
use deltasync_core::{Algorithm, CAN_PACK, Malformed, Reader, write_varint};

/// The version this build speaks. A change of one byte on the wire is a new version.
pub const VERSION: u8 = 3;

/// The first bytes of the payload of a hello, behind a frame kind that no text protocol begins with.
const MAGIC: &[u8; 4] = b"sync";

/// The longest proof of identity a hello can carry, in bytes. None is defined yet; longer ones are refused.
const AUTH_MAX: usize = 1024;

/// The opening message of either end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest version this end speaks.
    pub min: u8,
    /// The highest version this end speaks; a client's first flight is written in it.
    pub max: u8,
    /// What this end can do.
    pub capabilities: Capabilities,
    /// Which hashes this end knows, as [`algorithm_bit`]s.
    pub algorithms: u64,
    /// Fresh randomness of this end; the client's keys the tags.
    pub nonce: [u8; 16],
    /// Room for a proof of identity; empty in this version.
    pub auth: Bytes,
}

/// What an end can do beyond the minimum: a set of bits, unknown ones are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Can unpack zstd literals.
    pub const ZSTD: Self = Self(1);

    /// What this build can do.
    pub const OURS: Self = Self(if CAN_PACK { Self::ZSTD.0 } else { 0 });

    /// The set with these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits of the set.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// True when all of `other` is in this set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The bit that stands for a hash in [`Hello::algorithms`] and [`Unsupported::algorithms`].
pub const fn algorithm_bit(algorithm: Algorithm) -> u64 {
    match algorithm {
        Algorithm::Blake3 => 1,
        Algorithm::Sha256 => 2,
        // `Algorithm` may grow before the wire knows the new member.
        _ => 0,
    }
}

/// The hashes of this build, as bits.
pub fn our_algorithms() -> u64 {
    Algorithm::ALL.into_iter().map(algorithm_bit).fold(0, |bits, bit| bits | bit)
}

impl Hello {
    /// Our hello, for an end that speaks up to `max`.
    pub fn ours(max: u8, nonce: [u8; 16]) -> Self {
        Self {
            min: VERSION.min(max),
            max,
            capabilities: Capabilities::OURS,
            algorithms: our_algorithms(),
            nonce,
            auth: Bytes::new(),
        }
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[self.min, self.max]);
        write_varint(out, self.capabilities.bits());
        write_varint(out, self.algorithms);
        out.extend_from_slice(&self.nonce);
        write_varint(out, self.auth.len() as u64);
        out.extend_from_slice(&self.auth);
    }

    /// Reads a payload; what a later version may have appended is ignored.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it is not a hello.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        if reader.array()? != *MAGIC {
            return Err(Malformed::Value("no hello of deltasync"));
        }
        let [min, max] = reader.array()?;
        if min > max || min == 0 {
            return Err(Malformed::Value("versions run backwards or from 0"));
        }
        let capabilities = Capabilities::from_bits(reader.varint()?);
        let algorithms = reader.varint()?;
        let nonce = reader.array()?;
        let auth = reader.varint()?;
        if auth > AUTH_MAX as u64 {
            return Err(Malformed::Value("proof of identity is over 1024 bytes"));
        }
        let auth = Bytes::copy_from_slice(reader.bytes(auth as usize)?);
        Ok(Self { min, max, capabilities, algorithms, nonce, auth })
    }
}

/// The answer of a server that does not know the version or the hash of what came: what it does know. The client may
/// say hello once more and start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The lowest version the server speaks.
    pub min: u8,
    /// The highest version the server speaks.
    pub max: u8,
    /// Which hashes it knows, as [`algorithm_bit`]s.
    pub algorithms: u64,
}

impl Unsupported {
    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.min, self.max]);
        write_varint(out, self.algorithms);
    }

    /// Reads a payload; what a later version may have appended is ignored.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it is too short.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        let [min, max] = reader.array()?;
        Ok(Self { min, max, algorithms: reader.varint()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_with_more_at_its_end_is_still_read() {
        let hello = Hello::ours(VERSION, [7; 16]);
        let mut payload = Vec::new();
        hello.encode(&mut payload);
        assert_eq!(payload.len(), 25);
        payload.extend_from_slice(b"what a later version says");
        assert_eq!(Hello::decode(&payload), Ok(hello));
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        assert_eq!(Hello::decode(b"GET / HTTP/1.1\r\n\r\n"), Err(Malformed::Value("no hello of deltasync")));
        assert_eq!(Hello::decode(b"syn"), Err(Malformed::Truncated));
        let backwards = [b"sync\x02\x01\x00\x01".as_slice(), &[0; 17]].concat();
        assert_eq!(Hello::decode(&backwards), Err(Malformed::Value("versions run backwards or from 0")));
    }
}
