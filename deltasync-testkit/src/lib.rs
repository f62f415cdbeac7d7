//! What the tests of deltasync share.
//!
//! [`Pair`] joins two sessions by a seeded [`Link`] under a virtual clock, so that a test reads as a story:
//!
//! ```
//! use deltasync_testkit::{Link, Pair};
//!
//! let old = b"one two three".repeat(1000);
//! let new = [b"zero ", &old[..]].concat();
//! let ran = Pair::new(1).basis(old).target(new.clone()).link(Link::split_every(3)).run_to_end();
//! assert_eq!(ran.outcome().len.get(), new.len() as u64);
//! ```

mod rng;
pub use rng::Rng;

mod link;
pub use link::{Direction, Link};

mod pair;
pub use pair::{Pair, Ran, file, pull, push};
