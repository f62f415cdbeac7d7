//! The delta as bytes: what a [`Differ`](crate::Differ) found, in a form that a `Patcher` can carry out piece by piece.
//!
//! | field | bytes | |
//! |---|---|---|
//! | opening | 6 | `D5 'd' 'l' 't'`, version, algorithm of the root |
//! | basis length | varint | in bytes; the delta fits no basis of another length |
//! | target length | varint | in bytes |
//!
//! then pieces, each of
//!
//! | field | bytes | |
//! |---|---|---|
//! | kind | 1 | 0: literals follow raw, 1: packed |
//! | operations length | varint | in bytes |
//! | literals length | varint | in bytes, unpacked |
//! | packed length | varint | in bytes, only when packed; less than the literals length |
//! | operations | | columns, as [`encode_ops`] writes them |
//! | literals | | raw, or one zstd frame |
//!
//! and the end, which is written last because the root is known last:
//!
//! | field | bytes | |
//! |---|---|---|
//! | kind | 1 | 2 |
//! | root | 32 | the digest of the whole target |
//!
//! The writer is a machine without I/O: it appends to a buffer of the caller's, who may send and clear it at any time.
//!
//! Invariant: what the writer wrote a [`DeltaReader`](crate::DeltaReader) reads back.

use alloc::vec::Vec;

use crate::opening::write_opening;
use crate::{Algorithm, ByteLen, DeltaPiece, Digest, FileFormat, Op, encode_ops, pack, write_varint};

/// The kind of a piece whose literals are raw.
pub(crate) const RAW: u8 = 0;
/// The kind of a piece whose literals are packed.
pub(crate) const PACKED: u8 = 1;
/// The kind of the end.
pub(crate) const END: u8 = 2;

/// What a delta says before its first piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaHeader {
    /// Which hash function makes the root of the target.
    pub algorithm: Algorithm,
    /// The length of the basis it copies from.
    pub basis: ByteLen,
    /// The length of the target it makes.
    pub target: ByteLen,
}

/// What a whole delta came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaSummary {
    /// The bytes of the target that come from the basis.
    pub copied: ByteLen,
    /// The bytes of the target that were sent.
    pub literal: ByteLen,
    /// The digest of the whole target.
    pub root: Digest,
}

impl DeltaSummary {
    /// The length of the target.
    pub fn target(&self) -> ByteLen {
        self.copied + self.literal
    }
}

/// Writes a delta into buffers of the caller's.
#[derive(Clone, Debug)]
pub struct DeltaWriter {
    header: DeltaHeader,
    made: ByteLen,
    level: i32,
}

impl DeltaWriter {
    /// Appends the header to `out` and waits for pieces.
    pub fn new(header: DeltaHeader, out: &mut Vec<u8>) -> Self {
        write_opening(FileFormat::Delta, header.algorithm, out);
        write_varint(out, header.basis.get());
        write_varint(out, header.target.get());
        Self { header, made: ByteLen::ZERO, level: 3 }
    }

    /// Sets the level at which literals are packed, as for [`pack`](crate::pack()) (default 3).
    #[must_use]
    pub const fn level(mut self, level: i32) -> Self {
        self.level = level;
        self
    }

    /// Appends a piece to `out`; its literals are packed when that makes them smaller.
    pub fn piece(&mut self, piece: &DeltaPiece, out: &mut Vec<u8>) {
        let mut columns = Vec::new();
        encode_ops(&piece.ops, &mut columns);
        let packed = pack(&piece.literals, self.level);
        out.push(if packed.is_some() { PACKED } else { RAW });
        write_varint(out, columns.len() as u64);
        write_varint(out, piece.literals.len() as u64);
        if let Some(packed) = &packed {
            write_varint(out, packed.len() as u64);
        }
        out.extend_from_slice(&columns);
        out.extend_from_slice(packed.as_deref().unwrap_or(&piece.literals));
        self.made += piece.ops.as_slice().iter().map(Op::len).sum();
    }

    /// Appends the end to `out`.
    ///
    /// # Errors
    ///
    /// [`TargetChanged`] when the pieces make more or fewer bytes than the header says; `out` is left as it was.
    pub fn finish(self, root: Digest, out: &mut Vec<u8>) -> Result<(), TargetChanged> {
        if self.made != self.header.target {
            return Err(TargetChanged { announced: self.header.target, made: self.made });
        }
        out.push(END);
        out.extend_from_slice(root.as_bytes());
        Ok(())
    }
}

/// The target has another length than was announced: it changed while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("target of {announced} bytes turned out to have {made}")]
pub struct TargetChanged {
    /// The length in the header.
    pub announced: ByteLen,
    /// What the pieces make.
    pub made: ByteLen,
}

/// One part of a delta, as it comes off the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeltaPart {
    /// The first part.
    Header(DeltaHeader),
    /// Operations and literals; not yet checked against a basis, a [`Planner`](crate::Planner) does that.
    Piece(DeltaPiece),
    /// The last part.
    End {
        /// The digest of the whole target.
        root: Digest,
    },
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;
    use crate::{ByteLen, Ops};

    const ROOT: Digest = Digest::from_bytes([7; 32]);

    fn literal(len: usize) -> DeltaPiece {
        let ops: Ops = [Op::Literal { len: ByteLen::new(len as u64) }].into_iter().collect();
        DeltaPiece { ops, literals: vec![0; len] }
    }

    fn begin(target: u64, out: &mut Vec<u8>) -> DeltaWriter {
        let (basis, target) = (ByteLen::new(1000), ByteLen::new(target));
        DeltaWriter::new(DeltaHeader { algorithm: Algorithm::Sha256, basis, target }, out)
    }

    #[test]
    fn a_delta_is_laid_out_as_drawn() {
        let mut out = Vec::new();
        let mut writer = begin(3, &mut out);
        let ops =
            [Op::Literal { len: ByteLen::new(1) }, Op::Copy { from: crate::Offset::new(9), len: ByteLen::new(2) }];
        writer.piece(&DeltaPiece { ops: ops.into_iter().collect(), literals: vec![b'x'] }, &mut out);
        writer.finish(ROOT, &mut out).expect("whole");
        let header = b"\xd5dlt\x01\x01\xe8\x07\x03";
        let piece = b"\x00\x04\x01\x01\x01\x02\x12x";
        assert_eq!(out, [&header[..], &piece[..], &[2], &[7; 32]].concat());
    }

    #[test]
    fn a_target_that_changed_while_it_was_read_is_reported() {
        let mut out = Vec::new();
        let mut writer = begin(100, &mut out);
        writer.piece(&literal(99), &mut out);
        let before = out.len();
        let error = writer.finish(ROOT, &mut out).expect_err("one byte short");
        assert_eq!(error.to_string(), "target of 100 bytes turned out to have 99");
        assert_eq!(out.len(), before);
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn literals_are_packed_when_that_pays() {
        let mut out = Vec::new();
        begin(100_000, &mut out).piece(&literal(100_000), &mut out);
        assert!(out.len() < 100, "{}", out.len());
    }
}
