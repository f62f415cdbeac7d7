//! How every byte format of ours that lies in a file begins: four bytes of magic, a version, a hash algorithm.
//!
//! | field | bytes | |
//! |---|---|---|
//! | magic | 4 | says signature, delta or chunk list; its first byte is no ASCII, so text is never taken for one |
//! | version | 1 | 1; 2 for a signature with anchors |
//! | algorithm | 1 | 0 BLAKE3, 1 SHA-256 |

use alloc::vec::Vec;

use crate::{Algorithm, Malformed, Reader};

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

    /// The newest version, which this build reads as all before it.
    const fn newest(self) -> u8 {
        match self {
            Self::Signature => 2,
            Self::Delta | Self::Chunks => 1,
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
    #[error("{} of version {version}, this build reads up to {}", .format.name(), .format.newest())]
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

/// Appends the opening of `format` in its first version.
pub(crate) fn write_opening(format: FileFormat, algorithm: Algorithm, out: &mut Vec<u8>) {
    write_version(format, 1, algorithm, out);
}

/// Appends the opening of `format` in one of its versions.
pub(crate) fn write_version(format: FileFormat, version: u8, algorithm: Algorithm, out: &mut Vec<u8>) {
    out.extend_from_slice(&format.magic());
    out.push(version);
    out.push(match algorithm {
        Algorithm::Blake3 => 0,
        Algorithm::Sha256 => 1,
    });
}

/// Reads the opening of a format with one version off the front.
pub(crate) fn read_opening(format: FileFormat, reader: &mut Reader<'_>) -> Result<Algorithm, InvalidOpening> {
    read_version(format, reader).map(|(_, algorithm)| algorithm)
}

/// Reads an opening off the front, and says of which version it is.
pub(crate) fn read_version(format: FileFormat, reader: &mut Reader<'_>) -> Result<(u8, Algorithm), InvalidOpening> {
    if reader.array()? != format.magic() {
        return Err(InvalidOpening::Magic(format));
    }
    let version = reader.byte()?;
    if version == 0 || version > format.newest() {
        return Err(InvalidOpening::Version { format, version });
    }
    match reader.byte()? {
        0 => Ok((version, Algorithm::Blake3)),
        1 => Ok((version, Algorithm::Sha256)),
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
        assert_eq!(refused(b"\xd5sig\x03\x00"), "signature of version 3, this build reads up to 2");
        assert_eq!(refused(b"\xd5sig\x00\x00"), "signature of version 0, this build reads up to 2");
        assert_eq!(refused(b"\xd5sig\x01\x07"), "hash algorithm 7 is not known");
        assert_eq!(refused(b"\xd5sig\x01"), "bytes end within a value");
        let delta = read_opening(FileFormat::Delta, &mut Reader::new(b"\xd5dlt\x02\x00")).expect_err("too new");
        assert_eq!(delta.to_string(), "delta of version 2, this build reads up to 1");
    }
}
