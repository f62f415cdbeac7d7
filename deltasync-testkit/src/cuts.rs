//! A relay on loopback that cuts connections after a given number of bytes, to see what becomes of a transfer.
//!
//! Each connection in turn takes the next [`Cut`] from a list; when the list is used up, connections are carried whole. A cut
//! lets exactly so many bytes of its direction through, then closes both sides, so what it cuts is the same each time,
//! whatever the timing. The other direction carries what had come until then.
//!
//! Cost: two threads a connection. Invariant: when the relay is dropped its connections are closed and its threads have
//! ended.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::Direction;

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Whose bytes are counted: those of the connecting side (up) or of the other (down).
    pub direction: Direction,
    /// How many of them get through, in bytes.
    pub after: u64,
}

/// A listening relay.
#[derive(Debug)]
pub struct CuttingRelay {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cuts: VecDeque<Cut>,
    accepted: usize,
    cut: usize,
    /// All that was opened, to be shut down at the end.
    streams: Vec<TcpStream>,
}

impl CuttingRelay {
    /// Listens on a free port of loopback and carries what comes to `to`, the first connections as far as `cuts` say.
    ///
    /// # Errors
    ///
    /// When no port can be listened on.
    pub fn start(to: SocketAddr, cuts: impl IntoIterator<Item = Cut>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = State { cuts: cuts.into_iter().collect(), accepted: 0, cut: 0, streams: Vec::new() };
        let shared = Arc::new(Shared { to, closed: AtomicBool::new(false), state: Mutex::new(state) });
        let acceptor = thread::spawn({
            let shared = shared.clone();
            move || shared.accept(&listener)
        });
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections came.
    pub fn accepted(&self) -> usize {
        self.shared.state().accepted
    }

    /// How many of them were cut; one that ended before its cut was not.
    pub fn cut(&self) -> usize {
        self.shared.state().cut
    }
}

impl Drop for CuttingRelay {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        for stream in self.shared.state().streams.drain(..) {
            // One that is closed already needs nothing.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // A last connection wakes the acceptor.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            // A thread that panicked has said so.
            drop(acceptor.join());
        }
    }
}

impl Shared {
    /// Takes connections until the end; returns when all their threads have ended.
    fn accept(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            for client in listener.incoming() {
                if self.closed.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(client) = client else { continue };
                let cut = {
                    let mut state = self.state();
                    state.accepted += 1;
                    state.cuts.pop_front()
                };
                // What fails here is the end of this connection, which both sides see.
                scope.spawn(move || drop(self.carry(&client, cut)));
            }
        });
    }

    fn carry(&self, client: &TcpStream, cut: Option<Cut>) -> io::Result<()> {
        let server = TcpStream::connect(self.to).inspect_err(|_| drop(client.shutdown(Shutdown::Both)))?;
        for stream in [client, &server] {
            stream.set_nodelay(true)?;
            self.register(stream)?;
        }
        let after = |direction| cut.filter(|cut| cut.direction == direction).map(|cut| cut.after);
        thread::scope(|scope| {
            scope.spawn(|| self.pass(&server, client, after(Direction::Down)));
            self.pass(client, &server, after(Direction::Up));
        });
        Ok(())
    }

    /// Passes bytes on until the end of a stream, which is passed on too, or until it is to be cut.
    fn pass(&self, mut from: &TcpStream, mut to: &TcpStream, after: Option<u64>) {
        let mut left = after.unwrap_or(u64::MAX);
        let mut piece = [0; 16 << 10];
        while left > 0 {
            let most = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            match from.read(&mut piece[..most]) {
                Ok(got @ 1..) if to.write_all(&piece[..got]).is_ok() => left -= got as u64,
                _ => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
            }
        }
        self.state().cut += 1;
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn register(&self, stream: &TcpStream) -> io::Result<()> {
        let mut state = self.state();
        if self.closed.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.streams.push(stream.try_clone()?);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever panicked, each change under the lock is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts one connection, sends it 1000 bytes, and tells how many came.
    fn server() -> (SocketAddr, JoinHandle<usize>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the relay comes");
            stream.write_all(&[2; 1000]).expect("a buffer takes it");
            let mut came = Vec::new();
            let _ = stream.read_to_end(&mut came);
            came.len()
        });
        (address, served)
    }

    /// What gets through of 1000 bytes each way: up and down.
    fn through(cut: Option<Cut>) -> (usize, usize) {
        let (address, served) = server();
        let relay = CuttingRelay::start(address, cut).expect("a free port");
        let mut stream = TcpStream::connect(relay.address()).expect("the relay listens");
        let mut first = [0; 1];
        // The other direction has had its time before the bytes that are counted.
        let got = if cut.is_none_or(|cut| cut.direction == Direction::Up) { stream.read(&mut first) } else { Ok(0) };
        let got = got.expect("1000 bytes come");
        let _ = stream.write_all(&[1; 1000]);
        if cut.is_none() {
            stream.shutdown(Shutdown::Write).expect("still open");
        }
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let up = served.join().expect("it ends");
        assert_eq!((relay.accepted(), relay.cut()), (1, usize::from(cut.is_some())));
        (up, got + rest.len())
    }

    #[test]
    fn exactly_so_many_bytes_of_its_direction_get_through() {
        assert_eq!(through(None), (1000, 1000));
        for after in [0, 1, 999, 1000] {
            let (up, _) = through(Some(Cut { direction: Direction::Up, after }));
            assert_eq!(up as u64, after);
            let (_, down) = through(Some(Cut { direction: Direction::Down, after }));
            assert_eq!(down as u64, after);
        }
    }

    #[test]
    fn dropping_it_ends_connections_that_nobody_uses() {
        let (address, served) = server();
        let relay = CuttingRelay::start(address, []).expect("a free port");
        let stream = TcpStream::connect(relay.address()).expect("the relay listens");
        (&stream).read_exact(&mut [0; 1000]).expect("it carries");
        drop(relay);
        assert!(matches!((&stream).read(&mut [0]), Ok(0) | Err(_)));
        served.join().expect("its connection is gone too");
    }
}
