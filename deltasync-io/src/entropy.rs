//! The randomness of a session, from the system.

use std::io;

/// 32 random bytes for [`Session::client`](deltasync_proto::Session::client) or `server`; draw them anew for each
/// session.
///
/// # Errors
///
/// What the system says when it has no randomness to give.
pub fn entropy() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
