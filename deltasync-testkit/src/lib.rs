//! What the tests of deltasync share.
//!
//! [`Pair`] joins two sessions by a seeded [`Link`] under a virtual clock, so that a test reads as a story; [`Shape`] makes
//! old and new files as users have them:
//!
//! ```
//! use deltasync_testkit::{Link, Pair, Shape};
//!
//! let case = Shape::InsertionAtTheFront.case(1, 100_000);
//! let ran = Pair::new(1).basis(case.basis).target(case.target).link(Link::split_every(3)).run_to_end();
//! assert_eq!(ran.outcome().len.get(), 100_001);
//! assert!(ran.outcome().progress.literal.get() < 5_000);
//! ```
//!
//! [`SimDisk`] is a file system in memory that fails and forgets, for the real storage to run over. [`Relay`] is a slow link
//! for real sockets, [`CuttingRelay`] one that cuts connections. [`FuzzTarget`] holds the bodies of the fuzz targets, which
//! the programs in `fuzz/` wrap.

mod rng;
pub use rng::Rng;

mod corpus;
pub use corpus::{Case, Shape, scattered_edits};

mod link;
pub use link::{Direction, Link};

mod pair;
pub use pair::{Pair, Ran, file, pull, push};

mod sim_disk;
pub use sim_disk::{SimCall, SimDisk, SimFault};

mod relay;
pub use relay::Relay;

mod cuts;
pub use cuts::{Cut, CuttingRelay};

mod fuzz;
pub use fuzz::{FuzzTarget, Seed};

mod raw;
pub use raw::{Due, Raw};

mod sim;
pub use sim::{Seen, Simulated, Tally, simulate};
