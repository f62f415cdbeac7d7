//! What the index says of a remembered file.
//!
//! | field | bytes | |
//! |---|---|---|
//! | version | 1 | 2 |
//! | id | 8 | names its blobs |
//! | generation, length, disk | varints | the file's generation and length, and what its blobs take in bytes |
//! | root | 32 | |
//! | looks | varints | how the file looked when it was described |
//! | form | 1 | 0 shared, 1 packed, 2 sums, 3 layered |
//! | of the form | 16, 48, 32 or varints | the check, then the secret of sums, or the check of the copy below; or how the copy looks |
//! | check | 8 | of the BLAKE3 of the key and all before |
//!
//! Invariant: a record decodes only under the key it was encoded for.

use deltasync_core::{ByteLen, Digest, Generation, Malformed, Reader, write_varint};

use crate::checked;
use crate::source::Looks;

const VERSION: u8 = 2;

/// The digest of a blob, in its first bytes.
pub(super) type Check = [u8; 16];

/// A remembered file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: u64,
    pub(super) generation: Generation,
    pub(super) root: Digest,
    pub(super) looks: Looks,
    pub(super) len: ByteLen,
    /// What its blobs take, in bytes.
    pub(super) bytes: u64,
    pub(super) form: Form,
}

/// What is kept of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A copy that shares its blocks with the file, under whatever name.
    Shared(Looks),
    /// A packed copy.
    Packed { check: Check },
    /// A layer over the packed copy of an older version.
    Layered { check: Check, base: Check },
    /// Sums under a secret.
    Sums { check: Check, secret: [u8; 32] },
}

impl Record {
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.id.to_le_bytes());
        [self.generation.get(), self.len.get(), self.bytes].iter().for_each(|value| write_varint(&mut out, *value));
        out.extend_from_slice(self.root.as_bytes());
        self.looks.write(&mut out);
        match &self.form {
            Form::Shared(looks) => {
                out.push(0);
                looks.write(&mut out);
            }
            Form::Packed { check } => {
                out.push(1);
                out.extend_from_slice(check);
            }
            Form::Layered { check, base } => {
                out.push(3);
                out.extend_from_slice(check);
                out.extend_from_slice(base);
            }
            Form::Sums { check, secret } => {
                out.push(2);
                out.extend_from_slice(check);
                out.extend_from_slice(secret);
            }
        }
        checked::close(key, out)
    }

    /// # Errors
    ///
    /// [`Malformed`] when the bytes are damaged, or were encoded for another key or by another version.
    pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(checked::open(key, bytes)?);
        if reader.byte()? != VERSION {
            return Err(Malformed::Value("record of another version"));
        }
        let id = u64::from_le_bytes(reader.array()?);
        let (generation, len) = (Generation::new(reader.varint()?), ByteLen::new(reader.varint()?));
        let bytes = reader.varint()?;
        let root = Digest::from_bytes(reader.array()?);
        let looks = Looks::read(&mut reader)?;
        let form = match reader.byte()? {
            0 => Form::Shared(Looks::read(&mut reader)?),
            1 => Form::Packed { check: reader.array()? },
            3 => Form::Layered { check: reader.array()?, base: reader.array()? },
            2 => Form::Sums { check: reader.array()?, secret: reader.array()? },
            _ => return Err(Malformed::Value("form is not known")),
        };
        reader.finish()?;
        Ok(Self { id, generation, root, looks, len, bytes, form })
    }
}

#[cfg(test)]
mod tests {
    use deltasync_core::Algorithm;

    use super::*;

    #[test]
    fn records_round_trip_under_their_own_key_and_any_damage_is_noticed() {
        let looks = Looks { device: 64769, inode: 1 << 40, len: 0, modified: (-5, 999), changed: None };
        let (check, secret) = ([7; 16], [9; 32]);
        for form in [
            Form::Shared(looks),
            Form::Packed { check },
            Form::Layered { check, base: [8; 16] },
            Form::Sums { check, secret },
        ] {
            let (root, bytes) = (Algorithm::Blake3.digest(b"file"), u64::MAX);
            let (generation, len) = (Generation::new(3), ByteLen::new(7));
            let record = Record { id: 5, generation, root, looks, len, bytes, form };
            let encoded = record.encode(b"key");
            assert_eq!(Record::decode(b"key", &encoded), Ok(record));
            assert!(Record::decode(b"other", &encoded).is_err());
            for at in 0..encoded.len() {
                let mut damaged = encoded.clone();
                damaged[at] ^= 0x10;
                assert!(Record::decode(b"key", &damaged).is_err(), "byte {at}");
                assert!(Record::decode(b"key", &encoded[..at]).is_err(), "cut at {at}");
            }
        }
    }
}
