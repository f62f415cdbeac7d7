//! A TCP connection to a server, by whichever of its addresses answers first.
//!
//! The addresses of a name are tried in the order the system gives them; each gets an equal share of the time that is
//! left, so that a dead first address does not use it all up. Nagle's algorithm is off: every write is a whole flight.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use deltasync_io::Bandwidth;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::{Options, Server};

/// The least and the most that the system takes in for a connection of limited bandwidth, in bytes.
const RECEIVE_BUFFER: (u32, u32) = (64 << 10, 4 << 20);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name has no address, or nobody could be asked for it.
    #[error("cannot find the address of {host}")]
    Resolve {
        /// The name.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// None of the addresses answered.
    #[error("cannot connect to {server}{}", addresses(*.tried))]
    Connect {
        /// The server.
        server: Server,
        /// How many addresses were tried.
        tried: usize,
        /// What went wrong with the last one.
        source: io::Error,
    },
}

fn addresses(tried: usize) -> String {
    if tried > 1 { format!(" ({tried} addresses tried)") } else { String::new() }
}

/// Connects within the time that the options allow, which also covers the look-up of the name.
///
/// # Errors
///
/// [`ConnectError`] with the last address's cause; one that ran out of time has the kind [`io::ErrorKind::TimedOut`].
pub(crate) async fn connect(server: &Server, options: &Options) -> Result<TcpStream, ConnectError> {
    let within = options.connect_timeout;
    let deadline = Instant::now() + within;
    let resolve = |source| ConnectError::Resolve { host: server.host().to_owned(), source };
    let lookup = tokio::net::lookup_host((server.host(), server.port()));
    let found = timeout(within, lookup).await.unwrap_or_else(|_| Err(no_answer(within))).map_err(resolve)?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no addresses");
    for (i, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
        let attempt = timeout(share, open(*address, options.bandwidth)).await.unwrap_or_else(|_| Err(no_answer(share)));
        match attempt.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(ConnectError::Connect { server: server.clone(), tried: addresses.len(), source: last })
}

/// Where the bandwidth is limited, the system is not to take in more than we read in a moment: what it has taken in has
/// moved, and what waits there for long keeps the peer waiting for our word.
async fn open(address: SocketAddr, bandwidth: Option<Bandwidth>) -> io::Result<TcpStream> {
    let Some(bandwidth) = bandwidth else { return TcpStream::connect(address).await };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let (least, most) = RECEIVE_BUFFER;
    let len = u32::try_from(bandwidth.bytes() / 4).unwrap_or(u32::MAX);
    socket.set_recv_buffer_size(len.clamp(least, most))?;
    socket.connect(address).await
}

fn no_answer(within: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:.1} s", within.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use tokio::net::TcpListener;

    use super::*;
    use crate::Place;

    fn server(text: &str) -> Server {
        match Place::parse(OsStr::new(text)) {
            Ok(Place::Remote(place)) => place.server,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn patient() -> Options {
        Options::default().connect_timeout(Duration::from_secs(5))
    }

    #[tokio::test]
    async fn a_listening_server_is_reached_by_name_and_by_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("bound").port();
        for host in ["127.0.0.1", "localhost"] {
            let server = server(&format!("deltasync://{host}:{port}/"));
            for options in [patient(), patient().bandwidth(Bandwidth::LEAST)] {
                let stream = connect(&server, &options).await.expect("listening");
                assert_eq!(stream.peer_addr().expect("connected").port(), port);
            }
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_an_error_with_its_cause() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let server = server(&format!("deltasync://127.0.0.1:{port}/"));
        let error = connect(&server, &patient()).await.expect_err("nobody listens");
        assert_eq!(error.to_string(), format!("cannot connect to 127.0.0.1:{port}"));
        let ConnectError::Connect { source, .. } = error else { panic!("resolved") };
        assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_name_without_address_is_told_apart() {
        let error = connect(&server("deltasync://host.invalid/"), &patient()).await.expect_err("reserved");
        assert!(matches!(error, ConnectError::Resolve { .. }), "{error:?}");
    }
}
