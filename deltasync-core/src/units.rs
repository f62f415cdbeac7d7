//! Quantities whose type is their unit, so that a length is never added to an index by accident.
//!
//! Invariant: arithmetic that can come from a peer goes through the `checked_` methods; the plain operators are for
//! values that are known to fit, and panic on overflow in every build.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Nothing, or the beginning.
            pub const ZERO: Self = Self(0);

            /// The quantity of `value` units.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The bare number of units.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number of units as an index into memory, if it fits the address space.
            pub fn to_usize(self) -> Option<usize> {
                usize::try_from(self.0).ok()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

quantity! {
    /// A position in a file, in bytes from its start.
    Offset
}
quantity! {
    /// A number of bytes.
    ByteLen
}
quantity! {
    /// A position in a sequence of blocks of one size, in blocks from its start.
    BlockIndex
}
quantity! {
    /// A count of the commits in a served directory; a larger one is newer.
    Generation
}

impl ByteLen {
    /// The length of a slice in memory.
    pub const fn of(slice: &[u8]) -> Self {
        Self(slice.len() as u64)
    }

    /// The sum, or `None` where it passes 2^64 - 1.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` where it would be negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl Offset {
    /// The position `len` bytes further on, or `None` where it passes 2^64 - 1.
    pub fn checked_add(self, len: ByteLen) -> Option<Self> {
        self.0.checked_add(len.0).map(Self)
    }

    /// The bytes from the start of the file to here.
    pub const fn to_len(self) -> ByteLen {
        ByteLen(self.0)
    }
}

impl Add<ByteLen> for Offset {
    type Output = Offset;
    fn add(self, len: ByteLen) -> Offset {
        Offset(self.0.checked_add(len.0).expect("a position in a file fits 64 bits"))
    }
}

impl AddAssign<ByteLen> for Offset {
    fn add_assign(&mut self, len: ByteLen) {
        *self = *self + len;
    }
}

impl Sub for Offset {
    type Output = ByteLen;
    fn sub(self, start: Offset) -> ByteLen {
        ByteLen(self.0.checked_sub(start.0).expect("the end of a range is not before its start"))
    }
}

impl Add for ByteLen {
    type Output = ByteLen;
    fn add(self, other: ByteLen) -> ByteLen {
        ByteLen(self.0.checked_add(other.0).expect("a sum of lengths fits 64 bits"))
    }
}

impl AddAssign for ByteLen {
    fn add_assign(&mut self, other: ByteLen) {
        *self = *self + other;
    }
}

impl Sub for ByteLen {
    type Output = ByteLen;
    fn sub(self, other: ByteLen) -> ByteLen {
        ByteLen(self.0.checked_sub(other.0).expect("a part is not longer than its whole"))
    }
}

impl core::iter::Sum for ByteLen {
    fn sum<I: Iterator<Item = ByteLen>>(lengths: I) -> ByteLen {
        lengths.fold(ByteLen::ZERO, Add::add)
    }
}

impl Generation {
    /// The generation of the next commit.
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("2^64 commits do not happen"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checked_sums_stop_at_the_last_byte_of_the_address_space() {
        let last = Offset::new(u64::MAX);
        assert_eq!(last.checked_add(ByteLen::ZERO), Some(last));
        assert_eq!(last.checked_add(ByteLen::new(1)), None);
        assert_eq!(ByteLen::new(1).checked_sub(ByteLen::new(2)), None);
    }

    #[test]
    #[should_panic(expected = "not before its start")]
    fn a_range_that_runs_backwards_is_a_bug() {
        let _ = Offset::new(1) - Offset::new(2);
    }
}
