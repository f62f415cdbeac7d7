//! What the benches share: the cases of the testkit and how they are named, and the workloads whose bytes are counted.
//!
//! Benches are named `stage/workload/size`, give their throughput in bytes of the target (or of the only input), and
//! print beside the time what it buys.
//!
//! A [`Workload`] is a pair of whole files as users have them and what a push of one over the other may cost. [`push`]
//! runs it between two sessions in memory and counts; the program `wire` prints all of it, `tests/wire.rs` holds it to
//! the bounds, and the program `slow` times pushes over a slow link, beside rsync's.

pub use deltasync_testkit::{Case, Shape};

mod files;
pub use files::{Files, MakeError, PLACE};

mod rows;

mod fetched;

mod sizes;
pub use sizes::{ExactSizes, exact_delta};

mod workload;
pub use workload::{Bound, Column, WORKLOADS, Workload, workload};

mod count;
pub use count::{CountError, Counted, push};

mod programs;
pub use programs::{Server, Used, beside, fresh_file, run_client};

mod engine;
pub use engine::{delta, diff, patch, sign};

mod grouped;
pub use grouped::grouped;

/// `len` bytes that do not compress, the same for the same seed.
pub fn random(len: usize, seed: u64) -> Vec<u8> {
    deltasync_testkit::Rng::new(seed).bytes(len)
}

/// The contents that users have, `len` bytes each, by name: bytes that do not compress, zeros, rows of text, an archive.
pub fn contents(len: usize, seed: u64) -> [(&'static str, Vec<u8>); 4] {
    let basis = |shape: Shape| shape.case(seed, len).basis;
    [
        ("random", random(len, seed)),
        ("zeros", vec![0; len]),
        ("text", basis(Shape::RowsEdited)),
        ("tar", basis(Shape::ArchiveWithNewHeaders)),
    ]
}

/// A size as it stands at the end of a bench's name.
pub fn size_name(len: usize) -> String {
    match len {
        0..1024 => format!("{len} B"),
        1024..0x10_0000 => format!("{} KiB", len >> 10),
        _ => format!("{} MiB", len >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_named_in_their_own_unit() {
        assert_eq!([10, 4096, 64 << 20].map(size_name), ["10 B", "4 KiB", "64 MiB"]);
    }
}
