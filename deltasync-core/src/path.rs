//! Paths that cannot leave the directory they are relative to.
//!
//! A path from a peer or a URL is bytes; it becomes a [`RelPath`] only when it is free of everything that could climb
//! out or confuse: no absolute path, no `.` or `..`, no empty component, no NUL, bounded lengths. That the file system
//! holds no symbolic link on the way is for the storage to see to, since only the kernel can tell.
//!
//! Invariant: a `RelPath` is a sequence of valid [`Name`]s joined by `/`; the empty path is the root itself.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

/// A path below a root: bytes, components joined by `/`. The empty path is the root.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct RelPath(Vec<u8>);

/// One component of a path: 1 to 255 bytes, neither `.` nor `..`, without `/` and NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Name(Vec<u8>);

/// Why bytes are no path below a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPath {
    /// It starts with `/`.
    #[error("path is absolute")]
    Absolute,
    /// It holds `.` or `..`.
    #[error("path has a component `.` or `..`")]
    Dots,
    /// It holds `//`, ends in `/`, or a name is empty.
    #[error("path has an empty component")]
    EmptyComponent,
    /// It holds a NUL byte, or a name holds `/`.
    #[error("path has a NUL, or a name has a slash")]
    ForbiddenByte,
    /// A component is longer than [`Name::MAX`].
    #[error("path has a component of {0} bytes, over 255")]
    LongName(usize),
    /// The whole is longer than [`RelPath::MAX`].
    #[error("path has {0} bytes, over 4096")]
    Long(usize),
}

impl Name {
    /// The longest name, in bytes.
    pub const MAX: usize = 255;

    /// Checks one component.
    ///
    /// # Errors
    ///
    /// [`InvalidPath`] saying what is wrong with it.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidPath> {
        let bytes = bytes.into();
        check_component(&bytes)?;
        Ok(Self(bytes))
    }

    /// A name for where one must stand that means nothing: `-`.
    pub fn any() -> Self {
        Self(b"-".to_vec())
    }

    /// The name as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl RelPath {
    /// The longest path, in bytes.
    pub const MAX: usize = 4096;

    /// The root itself.
    pub const ROOT: Self = Self(Vec::new());

    /// Checks a whole path; no bytes at all is the root.
    ///
    /// # Errors
    ///
    /// [`InvalidPath`] saying what is wrong with it.
    ///
    /// # Security
    ///
    /// This is the only way in for a path from a peer.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidPath> {
        let bytes = bytes.into();
        if bytes.len() > Self::MAX {
            return Err(InvalidPath::Long(bytes.len()));
        }
        if bytes.first() == Some(&b'/') {
            return Err(InvalidPath::Absolute);
        }
        if !bytes.is_empty() {
            bytes.split(|&b| b == b'/').try_for_each(check_component)?;
        }
        Ok(Self(bytes))
    }

    /// The path as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components from the root on.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = Name> + '_ {
        let parts = (!self.0.is_empty()).then(|| self.0.split(|&b| b == b'/'));
        parts.into_iter().flatten().map(|part| Name(part.to_owned()))
    }

    /// The path of the directory that holds this one and the name in it, or `None` for the root.
    pub fn split_last(&self) -> Option<(RelPath, Name)> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|&b| b == b'/') {
            Some(slash) => (Self(self.0[..slash].to_owned()), Name(self.0[slash + 1..].to_owned())),
            None => (Self::ROOT, Name(self.0.clone())),
        })
    }

    /// True for a path below this one.
    pub fn holds(&self, path: &Self) -> bool {
        let below = path.0.strip_prefix(&self.0[..]);
        below.is_some_and(|below| if self.is_root() { !below.is_empty() } else { below.first() == Some(&b'/') })
    }

    /// The path of what `path` names below this one.
    ///
    /// # Errors
    ///
    /// [`InvalidPath::Long`] when the whole passes [`RelPath::MAX`].
    pub fn below(&self, path: &Self) -> Result<Self, InvalidPath> {
        if self.is_root() || path.is_root() {
            return Ok(if self.is_root() { path.clone() } else { self.clone() });
        }
        let bytes = [&self.0[..], b"/", &path.0].concat();
        if bytes.len() > Self::MAX { Err(InvalidPath::Long(bytes.len())) } else { Ok(Self(bytes)) }
    }

    /// This path with one more component.
    ///
    /// # Errors
    ///
    /// [`InvalidPath::Long`] when the whole passes [`RelPath::MAX`].
    pub fn join(&self, name: &Name) -> Result<Self, InvalidPath> {
        let mut bytes = self.0.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(&name.0);
        if bytes.len() > Self::MAX {
            return Err(InvalidPath::Long(bytes.len()));
        }
        Ok(Self(bytes))
    }
}

fn check_component(bytes: &[u8]) -> Result<(), InvalidPath> {
    match bytes {
        b"" => Err(InvalidPath::EmptyComponent),
        b"." | b".." => Err(InvalidPath::Dots),
        _ if bytes.len() > Name::MAX => Err(InvalidPath::LongName(bytes.len())),
        _ if bytes.iter().any(|&b| b == 0 || b == b'/') => Err(InvalidPath::ForbiddenByte),
        _ => Ok(()),
    }
}

macro_rules! bytes_like {
    ($name:ident) => {
        impl TryFrom<Vec<u8>> for $name {
            type Error = InvalidPath;
            fn try_from(bytes: Vec<u8>) -> Result<Self, InvalidPath> {
                Self::new(bytes)
            }
        }

        impl From<$name> for Vec<u8> {
            fn from(path: $name) -> Vec<u8> {
                path.0
            }
        }

        /// For people: bytes that are not UTF-8 are replaced, control characters escaped.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                String::from_utf8_lossy(&self.0).chars().try_for_each(|c| match c.is_control() {
                    true => write!(f, "{}", c.escape_default()),
                    false => write!(f, "{c}"),
                })
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), String::from_utf8_lossy(&self.0))
            }
        }
    };
}

bytes_like!(RelPath);
bytes_like!(Name);

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_climb_out_is_refused_by_name() {
        for (bytes, error) in [
            (&b"/etc/passwd"[..], InvalidPath::Absolute),
            (b"..", InvalidPath::Dots),
            (b"a/../b", InvalidPath::Dots),
            (b"a/.", InvalidPath::Dots),
            (b"a//b", InvalidPath::EmptyComponent),
            (b"a/", InvalidPath::EmptyComponent),
            (b"a\0b", InvalidPath::ForbiddenByte),
        ] {
            assert_eq!(RelPath::new(bytes), Err(error), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(RelPath::new([b'x'; 256]), Err(InvalidPath::LongName(256)));
        assert_eq!(RelPath::new([b'x'; 4097]), Err(InvalidPath::Long(4097)));
        assert_eq!(Name::new(*b"a/b"), Err(InvalidPath::ForbiddenByte));
    }

    #[test]
    fn names_that_only_look_odd_pass() {
        for bytes in [&b"..."[..], b"..a", b"a\nb", b"\xff\xfe", b" "] {
            let path = RelPath::new(bytes).expect("an odd name is a name");
            assert_eq!(path.as_bytes(), bytes);
        }
        assert_eq!(RelPath::new(*b"a\nb").expect("valid").to_string(), "a\\nb");
    }

    proptest! {
        #[test]
        fn joining_the_components_gives_the_path_back(bytes in "[a-c./]{0,20}") {
            if let Ok(path) = RelPath::new(bytes.into_bytes()) {
                let joined = path.components().try_fold(RelPath::ROOT, |p, name| p.join(&name));
                prop_assert_eq!(joined, Ok(path.clone()));
                let below = path.components().try_fold(RelPath::ROOT, |p, name| p.below(&RelPath(name.0)));
                prop_assert_eq!(below, Ok(path.clone()));
                if let Some((parent, name)) = path.split_last() {
                    prop_assert!(parent.holds(&path) && !path.holds(&parent) && !path.holds(&path));
                    prop_assert_eq!(parent.join(&name), Ok(path));
                }
            }
        }
    }
}
