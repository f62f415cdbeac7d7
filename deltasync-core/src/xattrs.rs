//! The extended attributes of a file or a directory, those of the namespace of users.
//!
//! A name here is what stands behind `user.`: so no bytes of a peer can name an attribute that the system goes by, such as
//! `security.capability` or an access control list. All are held as they are encoded, each a name and a value behind their
//! lengths, in the order of the names.
//!
//! Invariant: names ascend, have 1 to [`Xattrs::NAME_MAX`] bytes and no NUL; all together take [`Xattrs::MAX`] bytes at most.

use alloc::vec::Vec;

use crate::{LimitExceeded, Malformed, Reader, write_varint};

/// Extended attributes of the namespace of users, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xattrs {
    encoded: Vec<u8>,
    /// Where the last name stands in that.
    last: (usize, usize),
}

impl Xattrs {
    /// How many bytes those of one entry take at most, names, values and their lengths.
    pub const MAX: usize = 64 << 10;

    /// The longest name, in bytes: with `user.` before it there are 255.
    pub const NAME_MAX: usize = 250;

    /// Adds one, behind those that are there.
    ///
    /// # Errors
    ///
    /// [`InvalidXattr`] when the name is none, does not stand behind the last one, or all would take too many bytes. They
    /// are as before then.
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), InvalidXattr> {
        self.check(name)?;
        let start = self.encoded.len();
        write_varint(&mut self.encoded, name.len() as u64);
        let at = self.encoded.len();
        self.encoded.extend_from_slice(name);
        write_varint(&mut self.encoded, value.len() as u64);
        let len = self.encoded.len() as u64 + value.len() as u64;
        if let Err(error) = LimitExceeded::check(WHAT, len, Self::MAX as u64) {
            self.encoded.truncate(start);
            return Err(error.into());
        }
        self.encoded.extend_from_slice(value);
        self.last = (at, name.len());
        Ok(())
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut reader = Reader::new(&self.encoded);
        core::iter::from_fn(move || {
            (!reader.rest().is_empty()).then(|| next(&mut reader).expect("they were encoded here"))
        })
    }

    /// As they are encoded.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// Reads what was encoded, at least one, whole.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, InvalidXattr> {
        let mut reader = Reader::new(bytes);
        let mut xattrs = Self { encoded: Vec::with_capacity(bytes.len()), last: (0, 0) };
        while !reader.rest().is_empty() {
            // Cut off within what is there whole: there is nothing to wait for.
            let (name, value) = next(&mut reader).map_err(|_| BROKEN)?;
            xattrs.push(name, value)?;
        }
        if xattrs.is_empty() { Err(BROKEN.into()) } else { Ok(xattrs) }
    }

    fn check(&self, name: &[u8]) -> Result<(), InvalidXattr> {
        let (at, len) = self.last;
        if name.is_empty() || name.len() > Self::NAME_MAX || name.contains(&0) {
            return Err(Malformed::Value("name of an extended attribute is empty, too long, or has a NUL").into());
        }
        if name <= &self.encoded[at..at + len] {
            return Err(Malformed::Value("extended attributes are not in order").into());
        }
        Ok(())
    }
}

const WHAT: &str = "extended attributes of an entry, in bytes";
const BROKEN: Malformed = Malformed::Value("extended attributes are none, or cut off");

fn next<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    let mut bytes = || {
        let len = usize::try_from(reader.varint()?).map_err(|_| Malformed::Truncated)?;
        reader.bytes(len)
    };
    Ok((bytes()?, bytes()?))
}

/// Why something is no extended attribute, or one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidXattr {
    /// A name is none, or out of order, or bytes are damaged.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// They take too many bytes.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn xattrs(of: &[(&[u8], &[u8])]) -> Xattrs {
        let mut xattrs = Xattrs::default();
        of.iter().for_each(|(name, value)| xattrs.push(name, value).expect("in order"));
        xattrs
    }

    #[test]
    fn only_names_in_order_are_taken() {
        let mut xattrs = xattrs(&[(b"b", b"1"), (b"bc", b"")]);
        let before = xattrs.clone();
        for name in [&b""[..], b"a", b"b", b"bc", b"bb\xff", b"x\0y", &[b'x'; 251]] {
            assert!(matches!(xattrs.push(name, b"2"), Err(InvalidXattr::Malformed(_))), "{name:?}");
            assert_eq!(xattrs, before);
        }
        xattrs.push(&[b'x'; 250], b"2").expect("as long as may be");
        assert_eq!(xattrs.iter().count(), 3);
    }

    #[test]
    fn no_entry_has_more_than_64_kib_of_them() {
        // A name of one byte, and lengths of one and three.
        let most = vec![7; Xattrs::MAX - 5];
        let full = xattrs(&[(b"a", &most)]);
        assert_eq!((full.as_bytes().len(), Xattrs::decode(full.as_bytes())), (Xattrs::MAX, Ok(full.clone())));
        let mut one_more = full.clone();
        assert!(matches!(one_more.push(b"b", b""), Err(InvalidXattr::Limit(_))));
        assert_eq!(one_more, full);
        assert!(matches!(Xattrs::default().push(b"a", &[most, vec![7]].concat()), Err(InvalidXattr::Limit(_))));
    }

    #[test]
    fn what_is_damaged_is_refused() {
        for bytes in [
            &[][..],
            &[0, 0],
            &[1, b'b', 0, 1, b'a', 0],
            &[1, b'a', 0, 1, b'a', 0],
            &[1, b'a'],
            &[1, b'a', 2, b'x'],
            &[1, 0, 0],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, b'a'],
        ] {
            // Nothing of it is waited for.
            let Err(InvalidXattr::Malformed(Malformed::Value(_))) = Xattrs::decode(bytes) else {
                panic!("{bytes:?} is refused")
            };
        }
    }

    proptest! {
        #[test]
        fn they_are_what_is_decoded(of in btree_map(vec(1u8.., 1..20), vec(any::<u8>(), 0..300), 1..20)) {
            let mut xattrs = Xattrs::default();
            of.iter().for_each(|(name, value)| xattrs.push(name, value).expect("in order"));
            let decoded = Xattrs::decode(xattrs.as_bytes()).expect("encoded");
            prop_assert_eq!(&decoded, &xattrs);
            prop_assert!(decoded.iter().eq(of.iter().map(|(name, value)| (&name[..], &value[..]))));
        }
    }
}
