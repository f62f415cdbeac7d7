//! How every byte format of ours that lies in a file begins: four bytes of magic, a version, a hash algorithm.
//!
//! | field | bytes | |
//! |---|---|---|
//! | magic | 4 | says signature, delta or chunk list; its first byte is no ASCII, so text is never taken for one |
//! | version | 1 | 1 |
//! | algorithm | 1 | 0 BLAKE3, 1 SHA-256 |

use alloc::vec::Vec;

use crate::{Algorithm, Malformed, Reader};

/// The version this build writes, and the only one it reads.
const VERSION: u8 = 1;

/// Which format an opening announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFormat {
    /// The sums of a basis.
    Signature,
    /// The operations and literals that make a target.
    Delta,
    /// The chunks of a file.
    Chunks,
}

impl FileFormat {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::Signature => *b"\xd5sig",
            Self::Delta => *b"\xd5dlt",
            Self::Chunks => *b"\xd5chk",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Delta => "delta",
            Self::Chunks => "chunk list",
        }
    }
}

/// Why bytes do not begin as one of our formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOpening {
    /// Another kind of file.
    #[error("not a {} of deltasync", .0.name())]
    Magic(FileFormat),
    /// A version this build does not read.
    #[error("{} of version {version}, this build reads {VERSION}", .format.name())]
    Version {
        /// Which format.
        format: FileFormat,
        /// Its version.
        version: u8,
    },
    /// A hash algorithm this build does not know.
    #[error("hash algorithm {0} is not known")]
    Algorithm(u8),
    /// The bytes end too early.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Appends the opening of `format`.
pub(crate) fn write_opening(format: FileFormat, algorithm: Algorithm, out: &mut Vec<u8>) {
    out.extend_from_slice(&format.magic());
    out.push(VERSION);
    out.push(match algorithm {
        Algorithm::Blake3 => 0,
        Algorithm::Sha256 => 1,
    });
}

/// Reads an opening off the front.
pub(crate) fn read_opening(format: FileFormat, reader: &mut Reader<'_>) -> Result<Algorithm, InvalidOpening> {
    if reader.array()? != format.magic() {
        return Err(InvalidOpening::Magic(format));
    }
    match reader.byte()? {
        VERSION => {}
        version => return Err(InvalidOpening::Version { format, version }),
    }
    match reader.byte()? {
        0 => Ok(Algorithm::Blake3),
        1 => Ok(Algorithm::Sha256),
        other => Err(InvalidOpening::Algorithm(other)),
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn an_opening_names_its_algorithm() {
        for algorithm in Algorithm::ALL {
            let mut bytes = Vec::new();
            write_opening(FileFormat::Delta, algorithm, &mut bytes);
            let mut reader = Reader::new(&bytes);
            assert_eq!(read_opening(FileFormat::Delta, &mut reader), Ok(algorithm));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn another_file_is_refused_by_name() {
        let refused = |bytes: &[u8]| {
            read_opening(FileFormat::Signature, &mut Reader::new(bytes)).expect_err("not a signature").to_string()
        };
        assert_eq!(refused(b"#!/bin/sh"), "not a signature of deltasync");
        assert_eq!(refused(b"\xd5dlt\x01\x00"), "not a signature of deltasync");
        assert_eq!(refused(b"\xd5sig\x02\x00"), "signature of version 2, this build reads 1");
        assert_eq!(refused(b"\xd5sig\x01\x07"), "hash algorithm 7 is not known");
        assert_eq!(refused(b"\xd5sig\x01"), "bytes end within a value");
    }
}
