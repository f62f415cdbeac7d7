//! Work in SIMD lanes: which instructions this processor has, and, below, the only `unsafe` code of the engine.
//!
//! Every function here has a safe twin that does the same one piece at a time, is compared with it by tests, and serves
//! where the instructions are missing: on other processors, and without `std`, which is what asks the processor.

#![allow(unsafe_code)]

use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
use std::arch::is_x86_feature_detected;

pub(crate) mod anchor;
pub(crate) mod blake3;
pub(crate) mod fine;
pub(crate) mod weak;

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
    /// Asks the processor; the answer is remembered by the standard library. Built with `--cfg deltasync_no_avx512` it has
    /// AVX2 at most, so that one machine measures both.
    #[inline]
    pub(crate) fn detect() -> Self {
        if !cfg!(deltasync_no_avx512)
            && is_x86_feature_detected!("avx512f")
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

/// Fetches the next `len` bytes of `ahead` into the second-level cache, and takes them off. The safe twin is to do nothing:
/// a fetch changes nothing but when memory answers, and it answers while lanes are busy that would wait for it later.
#[inline]
pub(crate) fn fetch(ahead: &mut &[u8], len: usize) {
    let (next, rest) = ahead.split_at(ahead.len().min(len));
    next.chunks(64).for_each(fetch_line);
    *ahead = rest;
}

/// Fetches the line in which `bytes` begin.
#[inline]
pub(crate) fn fetch_line(bytes: &[u8]) {
    // SAFETY: a hint; every processor of this architecture has it.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(bytes.as_ptr().cast()) };
}
