//! What the benches share: the cases of the testkit, and how they are named.
//!
//! Benches are named `stage/workload/size`, give their throughput in bytes of the target (or of the only input), and
//! print beside the time what it buys.

pub use deltasync_testkit::{Case, Shape};

/// `len` bytes that do not compress, the same for the same seed.
pub fn random(len: usize, seed: u64) -> Vec<u8> {
    deltasync_testkit::Rng::new(seed).bytes(len)
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
