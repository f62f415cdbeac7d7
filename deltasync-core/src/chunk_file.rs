//! A chunk list as bytes in a file, for who remembers how a file looked.
//!
//! | field | bytes | |
//! |---|---|---|
//! | opening | 6 | `D5 'c' 'h' 'k'`, version, algorithm |
//! | cutter | 2 | 0 MinCDC or 1 fixed, and the power of two that is its average or size |
//! | length | varint | of the file, in bytes |
//! | root | 32 | |
//! | runs | varint | how many |
//! | lengths | varints | per run twice the length of a chunk in bytes, one more where the run has several, then how many |
//! | digests | 32 a run | |
//! | check | 16 | of the BLAKE3 of all before, in its first bytes |
//!
//! A chunk costs about 34 bytes. The check tells damage; it is no secret, so who can write the file can write any list.
//! Who acts on one that lies makes a delta that does not verify.
//!
//! Invariant: `decode(encode(list)) == list`, and what decodes has chunks as its cutter makes them, whose lengths sum to
//! the length of the file.

use alloc::vec::Vec;

use crate::opening::{read_opening, write_opening};
use crate::{Algorithm, ByteLen, ChunkList, ChunkRun, Cutter, Digest, FileFormat, InvalidCutter, InvalidOpening};
use crate::{LimitExceeded, Limits, Malformed, Reader, write_varint};

/// The length of the check, in bytes.
const CHECK: usize = 16;

impl ChunkList {
    /// The longest encoding that `limits` allow, in bytes: who reads one from a file may stop there.
    pub fn longest_encoding(limits: &Limits) -> ByteLen {
        // A length of 4 bytes at most with its bit takes 5, a count 5.
        let run = Digest::LEN as u64 + 10;
        ByteLen::new(run.saturating_mul(limits.chunks as u64).saturating_add(128))
    }

    /// Appends the bytes that [`decode`](Self::decode) reads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.reserve(self.runs().len() * (Digest::LEN + 3) + 128);
        write_opening(FileFormat::Chunks, self.algorithm(), out);
        let (kind, len) = match self.cutter() {
            Cutter::MinCdc { average } => (0, average),
            Cutter::Fixed { size } => (1, size),
            Cutter::Entries => (2, 1),
        };
        out.extend_from_slice(&[kind, len.trailing_zeros() as u8]);
        write_varint(out, self.len().get());
        out.extend_from_slice(self.root().as_bytes());
        write_varint(out, self.runs().len() as u64);
        for run in self.runs() {
            let several = run.count > 1;
            write_varint(out, u64::from(run.len) << 1 | u64::from(several));
            if several {
                write_varint(out, run.count.into());
            }
        }
        self.runs().iter().for_each(|run| out.extend_from_slice(run.digest.as_bytes()));
        let check = check_of(&out[start..]);
        out.extend_from_slice(&check);
    }

    /// Reads a list that [`encode`](Self::encode) wrote; it must end where the bytes end.
    ///
    /// # Errors
    ///
    /// [`InvalidChunkFile`] when the bytes are no chunk list, are damaged, or hold more than `limits` allow.
    ///
    /// # Security
    ///
    /// Takes hostile bytes: counts meet the limits and the bytes at hand before anything is allocated.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self, InvalidChunkFile> {
        let mut reader = Reader::new(bytes);
        let algorithm = read_opening(FileFormat::Chunks, &mut reader)?;
        let (content, check) = bytes.split_last_chunk::<CHECK>().ok_or(Malformed::Truncated)?;
        if check_of(content) != *check {
            return Err(InvalidChunkFile::Check);
        }
        let mut reader = Reader::new(&content[bytes.len() - reader.rest().len()..]);
        let list = Self::decode_content(algorithm, &mut reader, limits)?;
        reader.finish()?;
        Ok(list)
    }

    fn decode_content(
        algorithm: Algorithm,
        reader: &mut Reader<'_>,
        limits: &Limits,
    ) -> Result<Self, InvalidChunkFile> {
        let [kind, log] = reader.array()?;
        let len = 1u32.checked_shl(log.into()).unwrap_or(0);
        let cutter = match kind {
            0 => Cutter::MinCdc { average: len },
            1 => Cutter::Fixed { size: len },
            2 if len == 1 => Cutter::Entries,
            _ => return Err(Malformed::Value("cutter is not known").into()),
        };
        let cutter = cutter.validate()?;
        let file = reader.varint()?;
        LimitExceeded::check("file length", file, limits.file.get())?;
        let root = Digest::from_bytes(reader.array()?);
        let count = reader.varint()?;
        LimitExceeded::check("number of chunks", count, limits.chunks as u64)?;
        // A run has at least a digest and a byte of length.
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > reader.rest().len() / (Digest::LEN + 1) {
            return Err(Malformed::Truncated.into());
        }
        let mut runs = Vec::with_capacity(count);
        let mut total = 0u64;
        for _ in 0..count {
            let value = reader.varint()?;
            let times = if value & 1 == 0 { 1 } else { reader.varint()? };
            let (len, count) = (u32::try_from(value >> 1), u32::try_from(times));
            let (Ok(len @ 1..), Ok(count @ 1..)) = (len, count) else {
                return Err(Malformed::Value("a chunk has a length, and a run has chunks").into());
            };
            if len as usize > cutter.max_len() {
                return Err(Malformed::Value("a chunk is longer than its cutter makes them").into());
            }
            // Both factors are below 2^32.
            total = total.saturating_add(u64::from(len) * u64::from(count));
            runs.push(ChunkRun { digest: Digest::default(), len, count });
        }
        if total != file {
            return Err(Malformed::Value("the chunks are not as long as the file").into());
        }
        for run in &mut runs {
            run.digest = Digest::from_bytes(reader.array()?);
        }
        Ok(Self::new(cutter, algorithm, root, runs))
    }
}

fn check_of(content: &[u8]) -> [u8; CHECK] {
    let digest = Algorithm::Blake3.digest(content);
    *digest.as_bytes().first_chunk().expect("a digest is longer")
}

/// Why bytes are no chunk list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidChunkFile {
    /// They do not begin as one.
    #[error(transparent)]
    Opening(#[from] InvalidOpening),
    /// They are not what was written.
    #[error("chunk list is damaged: its check differs")]
    Check,
    /// Its cutter is out of range.
    #[error(transparent)]
    Cutter(#[from] InvalidCutter),
    /// The file is too long, or has too many chunks.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// The bytes do not hold together.
    #[error("chunk list is damaged: {0}")]
    Malformed(#[from] Malformed),
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    const SMALL: Cutter = Cutter::MinCdc { average: Cutter::SHORTEST };

    fn encoded(list: &ChunkList) -> Vec<u8> {
        let mut bytes = Vec::new();
        list.encode(&mut bytes);
        bytes
    }

    fn check_round_trip(bytes: &[u8], cutter: Cutter, algorithm: Algorithm) {
        let list = ChunkList::of(bytes, cutter, algorithm);
        let limits = Limits::default().chunks(list.runs().len()).file(list.len());
        let encoded = encoded(&list);
        assert!(ByteLen::of(&encoded) <= ChunkList::longest_encoding(&limits));
        assert_eq!(ChunkList::decode(&encoded, &limits).as_ref(), Ok(&list), "{} bytes", bytes.len());
    }

    #[test]
    fn lists_round_trip_around_a_chunk() {
        let bytes: Vec<u8> = (0..20_000u32).map(|i| ((i * i) >> 7) as u8).collect();
        for algorithm in Algorithm::ALL {
            for len in [0, 1, 511, 512, 513, 1535, 1536, 1537, 4095, 4096, 4097, 20_000] {
                check_round_trip(&bytes[..len], SMALL, algorithm);
                check_round_trip(&bytes[..len], Cutter::FIXED_4096, algorithm);
            }
            check_round_trip(&vec![0; 1 << 20], SMALL, algorithm);
        }
        assert!(encoded(&ChunkList::of(&vec![0; 1 << 20], SMALL, Algorithm::Blake3)).len() < 200, "a run is one");
    }

    #[test]
    fn any_damage_is_noticed() {
        let list = ChunkList::of(&[7; 5000], Cutter::FIXED_4096, Algorithm::Sha256);
        let bytes = encoded(&list);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(ChunkList::decode(&damaged, &Limits::default()).is_err(), "byte {at}");
            assert!(ChunkList::decode(&bytes[..at], &Limits::default()).is_err(), "cut at {at}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(ChunkList::decode(&longer, &Limits::default()), Err(InvalidChunkFile::Check));
    }

    #[test]
    fn a_list_over_the_limits_is_refused() {
        let list = ChunkList::of(&(0..5000u32).map(|i| i as u8).collect::<Vec<_>>(), SMALL, Algorithm::Blake3);
        let bytes = encoded(&list);
        let refused = |limits: &Limits| matches!(ChunkList::decode(&bytes, limits), Err(InvalidChunkFile::Limit(_)));
        assert!(!refused(&Limits::default()));
        assert!(refused(&Limits::default().file(ByteLen::new(4999))));
        assert!(refused(&Limits::default().chunks(list.runs().len() - 1)));
    }

    /// A list with a right check, whatever it says.
    fn hostile(kind: u8, log: u8, file: u64, count: u64, lengths: &[u64], digests: usize) -> InvalidChunkFile {
        let mut bytes = Vec::new();
        write_opening(FileFormat::Chunks, Algorithm::Blake3, &mut bytes);
        bytes.extend_from_slice(&[kind, log]);
        write_varint(&mut bytes, file);
        bytes.extend_from_slice(&[0; 32]);
        write_varint(&mut bytes, count);
        lengths.iter().for_each(|len| write_varint(&mut bytes, *len));
        bytes.resize(bytes.len() + 32 * digests, 0);
        let check = check_of(&bytes);
        bytes.extend_from_slice(&check);
        ChunkList::decode(&bytes, &Limits::default()).expect_err("it lies")
    }

    #[test]
    fn hostile_counts_are_refused_before_anything_is_allocated() {
        use InvalidChunkFile as E;
        assert!(matches!(hostile(2, 12, 0, 0, &[], 0), E::Malformed(Malformed::Value(_))));
        for log in [9, 25, 32, 255] {
            assert!(matches!(hostile(0, log, 0, 0, &[], 0), E::Cutter(_)), "2^{log}");
        }
        assert!(matches!(hostile(0, 12, 1 << 63, 0, &[], 0), E::Limit(_)));
        assert!(matches!(hostile(0, 12, 1, u64::MAX, &[], 0), E::Limit(_)));
        assert_eq!(hostile(0, 12, 1, 1 << 22, &[], 0), E::Malformed(Malformed::Truncated));
        for (file, lengths) in [(0, &[0][..]), (0, &[1, 0]), (0, &[2 << 1 | 1, 0]), (1, &[4]), (6145, &[6145 << 1])] {
            assert!(matches!(hostile(0, 12, file, 1, lengths, 1), E::Malformed(Malformed::Value(_))), "{lengths:?}");
        }
        assert_eq!(hostile(0, 12, 2, 1, &[4], 2), E::Malformed(Malformed::Trailing(32)));
    }

    proptest! {
        #[test]
        fn lists_round_trip(bytes in prop::collection::vec(0u8..3, 0..9000)) {
            check_round_trip(&bytes, SMALL, Algorithm::Blake3);
        }

        #[test]
        fn any_bytes_decode_or_fail(mut bytes in prop::collection::vec(any::<u8>(), 0..200), opened: bool) {
            if opened {
                bytes.splice(..0, *b"\xd5chk\x01\x00");
                let check = check_of(&bytes);
                bytes.extend_from_slice(&check);
            }
            let _ = ChunkList::decode(&bytes, &Limits::default());
        }
    }
}
