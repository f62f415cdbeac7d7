//! Bytes that are kept with a check, so that damage shows: the first 8 bytes of a BLAKE3 of their key and of them.
//!
//! It is against disks, not against people: who can write the bytes can write the check.
//!
//! Invariant: what [`open`] returns was [`closed`](close) under the same key, but for one chance in 2^64.

use deltasync_core::{Algorithm, Malformed};

/// Appends the check to bytes that are kept under `key`.
pub(crate) fn close(key: &[u8], mut content: Vec<u8>) -> Vec<u8> {
    let check = check_of(key, &content);
    content.extend_from_slice(&check);
    content
}

/// The bytes without their check.
///
/// # Errors
///
/// [`Malformed`] when they are damaged, or were kept under another key.
pub(crate) fn open<'a>(key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (content, check) = bytes.split_last_chunk().ok_or(Malformed::Truncated)?;
    if check_of(key, content) == *check { Ok(content) } else { Err(Malformed::Value("check of a record differs")) }
}

fn check_of(key: &[u8], content: &[u8]) -> [u8; 8] {
    let mut hasher = Algorithm::Blake3.hasher();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(content);
    *hasher.finish().as_bytes().first_chunk().expect("a digest is longer")
}
