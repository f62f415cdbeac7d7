//! Calls the C library librsync 2.3, with everything in memory: signature, index, delta.
//!
//! Only what the comparison needs of `librsync.h`. A job reads its whole input from one slice and writes to a buffer that
//! is emptied into a vector, as its own whole-file functions do with files.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// Blocks by a Rabin-Karp sum, confirmed by BLAKE2: the library's default.
const RK_BLAKE2_MAGIC: c_int = 0x7273_0147;
const DONE: c_int = 0;
const BLOCKED: c_int = 1;
/// As much output as is taken at once, in bytes.
const OUTPUT: usize = 256 << 10;

#[repr(C)]
struct Buffers {
    next_in: *const c_char,
    avail_in: usize,
    eof_in: c_int,
    next_out: *mut c_char,
    avail_out: usize,
}

#[link(name = "rsync")]
unsafe extern "C" {
    fn rs_sig_begin(block_len: usize, strong_len: usize, magic: c_int) -> *mut c_void;
    fn rs_loadsig_begin(signature: *mut *mut c_void) -> *mut c_void;
    fn rs_build_hash_table(signature: *mut c_void) -> c_int;
    fn rs_delta_begin(signature: *mut c_void) -> *mut c_void;
    fn rs_job_iter(job: *mut c_void, buffers: *mut Buffers) -> c_int;
    fn rs_job_free(job: *mut c_void) -> c_int;
    fn rs_free_sumset(signature: *mut c_void);
}

/// The encoded signature of `basis`, with strong sums of full length.
pub(crate) fn signature(basis: &[u8], block_len: usize) -> Vec<u8> {
    // SAFETY: takes no pointers.
    let job = unsafe { rs_sig_begin(block_len, 0, RK_BLAKE2_MAGIC) };
    let mut out = Vec::new();
    run(job, basis, &mut out);
    out
}

/// A signature that was read and indexed.
pub(crate) struct Index(*mut c_void);

impl Index {
    /// Reads and indexes an encoded signature.
    pub(crate) fn new(encoded: &[u8]) -> Self {
        let mut signature = ptr::null_mut();
        // SAFETY: the library stores the signature's address there before the job ends, which `run` waits for; the
        // variable outlives the call.
        let job = unsafe { rs_loadsig_begin(&raw mut signature) };
        run(job, encoded, &mut Vec::new());
        // SAFETY: `signature` was made by the finished job above.
        let result = unsafe { rs_build_hash_table(signature) };
        assert_eq!(result, DONE, "librsync cannot index its own signature");
        Self(signature)
    }

    /// The encoded delta that makes `target` of the basis.
    pub(crate) fn delta(&self, target: &[u8], out: &mut Vec<u8>) {
        // SAFETY: the signature is indexed, and lives as long as `self`, longer than the job.
        let job = unsafe { rs_delta_begin(self.0) };
        run(job, target, out);
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // SAFETY: made by the library, freed once, and no job holds it any more.
        unsafe { rs_free_sumset(self.0) };
    }
}

/// Runs a job over the whole of `input` to its end, and frees it.
fn run(job: *mut c_void, input: &[u8], out: &mut Vec<u8>) {
    assert!(!job.is_null(), "librsync has no memory for a job");
    let mut room = vec![0u8; OUTPUT];
    let (mut next_in, mut avail_in) = (input.as_ptr().cast(), input.len());
    loop {
        let next_out = room.as_mut_ptr().cast();
        let mut buffers = Buffers { next_in, avail_in, eof_in: 1, next_out, avail_out: OUTPUT };
        // SAFETY: `job` is live; `next_in` and `avail_in` name what is left of `input`, which the library reads only, and
        // `next_out` and `avail_out` the whole of `room`.
        let result = unsafe { rs_job_iter(job, &raw mut buffers) };
        (next_in, avail_in) = (buffers.next_in, buffers.avail_in);
        out.extend_from_slice(&room[..OUTPUT - buffers.avail_out]);
        match result {
            DONE => break,
            BLOCKED => {}
            error => panic!("librsync failed with {error}"),
        }
    }
    // SAFETY: `job` is live and not used again.
    unsafe { rs_job_free(job) };
}
