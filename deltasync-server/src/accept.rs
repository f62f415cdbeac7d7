//! Taking connections from a listener through whatever the system says.
//!
//! A failed accept is mostly the failure of one connection, or a passing lack of descriptors or memory. Neither ends the
//! program, and neither makes it spin: it waits, longer each time in a row, up to a second.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// The first wait after a failure.
const WAIT_MIN: Duration = Duration::from_millis(10);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The next connection. Safe to drop at any time: no connection is lost.
pub(crate) async fn accept(listener: &TcpListener, what: &str) -> (TcpStream, SocketAddr) {
    let mut wait = WAIT_MIN;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
                }
                return (stream, peer);
            }
            Err(error) if of_one_connection(&error) => {
                tracing::debug!(%error, what, "connection ended before it began")
            }
            Err(error) => {
                tracing::warn!(%error, what, wait_ms = wait.as_millis() as u64, "cannot take connections");
                tokio::time::sleep(wait).await;
                wait = (2 * wait).min(WAIT_MAX);
            }
        }
    }
}

fn of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
