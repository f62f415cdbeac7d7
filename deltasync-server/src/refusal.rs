//! Turning connections away with a reason that arrives.
//!
//! Closing a socket that holds unread bytes resets the connection, and the peer may never see what was written before. So
//! the reason is written, our direction is closed, and what the peer says is thrown away, up to a bound and a deadline.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The most peers at a time that are told why; more are just disconnected.
const REFUSALS_MAX: usize = 64;
/// How long telling one may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How many bytes of a peer are thrown away.
const REFUSAL_DRAIN: usize = 64 << 10;

/// Connections that are being turned away; dropping it ends them.
#[derive(Debug, Default)]
pub(crate) struct Refusals(JoinSet<()>);

impl Refusals {
    /// Sends `reason` and closes, without keeping the caller.
    pub(crate) fn turn_away(&mut self, stream: TcpStream, peer: SocketAddr, reason: Bytes) {
        while self.0.try_join_next().is_some() {}
        if self.0.len() < REFUSALS_MAX {
            self.0.spawn(async move {
                let told = timeout(REFUSAL_TIMEOUT, tell(stream, reason)).await;
                tracing::debug!(%peer, ?told, "turned away");
            });
        }
    }
}

async fn tell(mut stream: TcpStream, reason: Bytes) -> std::io::Result<()> {
    stream.write_all(&reason).await?;
    stream.shutdown().await?;
    let mut left = REFUSAL_DRAIN;
    let mut buffer = [0; 4096];
    while left > 0 {
        match stream.read(&mut buffer).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_talks_first_still_reads_the_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        for said in [0, 1, 10_000] {
            let mut peer = TcpStream::connect(address).await.expect("it listens");
            peer.write_all(&vec![b'x'; said]).await.expect("it is taken");
            let (stream, from) = listener.accept().await.expect("it connected");
            let mut refusals = Refusals::default();
            refusals.turn_away(stream, from, Bytes::from_static(b"full"));
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).await.expect("no reset");
            assert_eq!(heard, b"full");
        }
    }
}
