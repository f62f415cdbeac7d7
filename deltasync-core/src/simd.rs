//! Work in SIMD lanes: which instructions this processor has, and, below, the only `unsafe` code of the engine.
//!
//! Every function here has a safe twin that does the same one piece at a time, is compared with it by tests, and serves
//! where the instructions are missing: on other processors, and without `std`, which is what asks the processor.

use std::arch::is_x86_feature_detected;

pub(crate) mod blake3;

/// The widest lanes that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lanes {
    /// None that we use: the safe twins serve.
    Portable,
    /// 256 bits: AVX2.
    Avx2,
    /// 512 bits: AVX-512 F, BW and VL.
    Avx512,
}

impl Lanes {
    /// Asks the processor; the answer is remembered by the standard library.
    #[inline]
    pub(crate) fn detect() -> Self {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
        {
            Self::Avx512
        } else if is_x86_feature_detected!("avx2") {
            Self::Avx2
        } else {
            Self::Portable
        }
    }

    /// All that this processor has, so that tests compare each with the safe twin.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().filter(|lanes| *lanes <= Self::detect())
    }
}
