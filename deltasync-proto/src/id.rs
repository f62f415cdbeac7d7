//! The numbers by which a session and its driver name things to each other.

use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// The thing numbered `value`.
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The bare number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A transfer on one connection. The client numbers them from 1 upwards; 0 is the connection itself.
    TransferId(u32)
}
number! {
    /// One storage request of a session.
    RequestId(u64)
}
number! {
    /// One job of a session.
    JobId(u64)
}
number! {
    /// A directory that an embedder opened to its storage; what a peer names lies below number 0.
    RootId(u32)
}
number! {
    /// Time since the driver's epoch, in nanoseconds. Only differences have meaning.
    Timestamp(u64)
}

/// Of a [`RootId`]: beside its trees.
const BESIDE: u32 = 1 << 31;

impl RootId {
    /// What is being made beside the trees of this root, to take their places as one change each: a path leads into the
    /// tree in the making that it lies in, or that it is the place of.
    #[must_use]
    pub const fn beside(self) -> Self {
        Self(self.0 | BESIDE)
    }

    /// True for what [`beside`](Self::beside) returns.
    pub const fn is_beside(self) -> bool {
        self.0 & BESIDE != 0
    }

    /// The root itself.
    #[must_use]
    pub const fn itself(self) -> Self {
        Self(self.0 & !BESIDE)
    }
}

impl Timestamp {
    /// This time and `wait` more; stays at the end of time where that passes it.
    #[must_use]
    pub fn after(self, wait: core::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }
}
