//! A slow link for real sockets: a TCP relay on loopback with a delay and a rate in each direction.
//!
//! What a connection sends is read into a queue, stamped with the moment at which a link of that rate and delay would
//! deliver it, and written when that moment has come: piece by piece, each at
//! `max(now, end of the piece before) + length / rate + delay`. The rate is the link's, so connections share it. A new
//! connection reaches the other side three delays late and may send after two, as behind a handshake of TCP. What a
//! queue holds is what is on its way and [`WAITING`] bytes more; then its sender is left waiting.
//!
//! Not modelled: packets and their headers, loss, and how TCP feels its way to the rate. So times are those of a
//! connection that is warm.
//!
//! Cost: three threads a connection. Invariant: nothing arrives before its moment. When the relay is dropped its
//! connections are closed and its threads have ended.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Direction;

/// The bytes of one direction that wait for the link at most, beside those on their way: as much as a router holds.
const WAITING: usize = 256 << 10;
/// The bytes that are read at once at most: they arrive together, so they are few.
const PIECE: usize = 4 << 10;

/// A listening relay.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    link: Arc<SlowLink>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct SlowLink {
    delay: Duration,
    rate: u64,
    state: Mutex<State>,
    /// Rung when a queue has changed, and at the end.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    closed: bool,
    /// When the last byte taken in has left, by direction.
    free: [Instant; 2],
    carried: [u64; 2],
    /// All that was opened, to be shut down at the end.
    streams: Vec<TcpStream>,
    queues: Vec<Queue>,
}

/// One direction of one connection.
#[derive(Debug, Default)]
struct Queue {
    /// With the moment of arrival; an empty piece is the end.
    pieces: VecDeque<(Instant, Vec<u8>)>,
    len: usize,
    /// Nobody takes from it any more.
    abandoned: bool,
}

impl Relay {
    /// Listens on a free port of loopback and carries what comes to `to`, with `delay` and `rate` (bytes a second, at
    /// least 1) in each direction.
    ///
    /// # Errors
    ///
    /// When no port can be listened on.
    pub fn start(to: SocketAddr, delay: Duration, rate: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = State {
            closed: false,
            free: [Instant::now(); 2],
            carried: [0; 2],
            streams: Vec::new(),
            queues: Vec::new(),
        };
        let link = Arc::new(SlowLink { delay, rate: rate.max(1), state: Mutex::new(state), changed: Condvar::new() });
        let acceptor = thread::spawn({
            let link = link.clone();
            move || link.accept(&listener, to)
        });
        Ok(Self { address, link, acceptor: Some(acceptor) })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many bytes were taken in from the connecting side (up) or from the other (down).
    pub fn carried(&self, direction: Direction) -> u64 {
        self.link.state().carried[direction as usize]
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.link.close();
        // A last connection wakes the acceptor.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            // A thread that panicked has said so.
            drop(acceptor.join());
        }
    }
}

impl SlowLink {
    /// Takes connections until the end; returns when all their threads have ended.
    fn accept(self: &Arc<Self>, listener: &TcpListener, to: SocketAddr) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        for stream in listener.incoming() {
            if self.state().closed {
                break;
            }
            threads.retain(|thread| !thread.is_finished());
            let Ok(stream) = stream else { continue };
            let link = self.clone();
            threads.push(thread::spawn(move || {
                // What fails here is the end of this connection, which both sides see.
                let _ = link.carry(&stream, to);
                let _ = stream.shutdown(Shutdown::Both);
            }));
        }
        for thread in threads {
            drop(thread.join());
        }
    }

    /// Carries one connection to its end, both ways.
    fn carry(&self, client: &TcpStream, to: SocketAddr) -> io::Result<()> {
        let accepted = Instant::now();
        let (up, down) = self.enter(client)?;
        client.set_nodelay(true)?;
        thread::scope(|scope| {
            scope.spawn(|| {
                self.sleep_until(accepted + 2 * self.delay);
                self.take_in(client, up, Direction::Up);
            });
            self.sleep_until(accepted + 3 * self.delay);
            let server = self.connect(to).inspect_err(|_| {
                self.abandon(up);
                let _ = client.shutdown(Shutdown::Both);
            })?;
            thread::scope(|scope| {
                scope.spawn(|| self.take_in(&server, down, Direction::Down));
                scope.spawn(|| self.deliver(down, client, &server));
                self.deliver(up, &server, client);
            });
            Ok(())
        })
    }

    fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let server = TcpStream::connect(to)?;
        server.set_nodelay(true)?;
        self.register(&server, &mut self.state())?;
        Ok(server)
    }

    /// Two queues for a new connection, up and down.
    fn enter(&self, client: &TcpStream) -> io::Result<(usize, usize)> {
        let mut state = self.state();
        self.register(client, &mut state)?;
        let up = state.queues.len();
        state.queues.extend([Queue::default(), Queue::default()]);
        Ok((up, up + 1))
    }

    fn register(&self, stream: &TcpStream, state: &mut State) -> io::Result<()> {
        if state.closed {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.streams.push(stream.try_clone()?);
        Ok(())
    }

    /// Reads until the end of a stream, as far ahead as the queue has room.
    fn take_in(&self, mut from: &TcpStream, queue: usize, direction: Direction) {
        let on_its_way = self.delay.as_secs_f64() * self.rate as f64;
        let most = WAITING + on_its_way as usize;
        let mut buffer = vec![0; PIECE];
        loop {
            let full = |state: &mut State| {
                let queue = &state.queues[queue];
                !state.closed && !queue.abandoned && queue.len >= most
            };
            let state = self.changed.wait_while(self.state(), full).unwrap_or_else(PoisonError::into_inner);
            if state.closed || state.queues[queue].abandoned {
                return;
            }
            drop(state);
            // A broken stream ends the other one, as a closed one does.
            let len = from.read(&mut buffer).unwrap_or(0);
            let now = Instant::now();
            let mut state = self.state();
            let free = &mut state.free[direction as usize];
            *free = now.max(*free) + Duration::from_secs_f64(len as f64 / self.rate as f64);
            let arrival = *free + self.delay;
            state.carried[direction as usize] += len as u64;
            let queue = &mut state.queues[queue];
            queue.len += len;
            queue.pieces.push_back((arrival, buffer[..len].to_vec()));
            drop(state);
            self.changed.notify_all();
            if len == 0 {
                return;
            }
        }
    }

    /// Writes what a queue holds, each piece at its moment, and passes on the end; `source` is where it comes from.
    fn deliver(&self, queue: usize, mut to: &TcpStream, source: &TcpStream) {
        while let Some((arrival, piece)) = self.next(queue) {
            self.sleep_until(arrival);
            if piece.is_empty() {
                let _ = to.shutdown(Shutdown::Write);
                break;
            }
            if to.write_all(&piece).is_err() {
                // Nobody listens: the sender is told by the end of its own connection.
                let _ = source.shutdown(Shutdown::Both);
                break;
            }
        }
        self.abandon(queue);
    }

    /// Takes the next piece of a queue, and waits for one; `None` when the relay ends.
    fn next(&self, queue: usize) -> Option<(Instant, Vec<u8>)> {
        let empty = |state: &mut State| !state.closed && state.queues[queue].pieces.is_empty();
        let mut state = self.changed.wait_while(self.state(), empty).unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return None;
        }
        let queue = &mut state.queues[queue];
        let next = queue.pieces.pop_front();
        queue.len -= next.as_ref().map_or(0, |(_, piece)| piece.len());
        drop(state);
        self.changed.notify_all();
        next
    }

    fn abandon(&self, queue: usize) {
        self.state().queues[queue] = Queue { abandoned: true, ..Queue::default() };
        self.changed.notify_all();
    }

    /// Sleeps, but not beyond the relay's end.
    fn sleep_until(&self, moment: Instant) {
        let mut state = self.state();
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        for stream in state.streams.drain(..) {
            // One that is closed already needs nothing.
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whatever panicked, each change under the lock is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(20);
    const FAST: u64 = 1 << 30;

    /// Serves connections until its listener fails, sending back what comes.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        address
    }

    fn connect(relay: &Relay) -> TcpStream {
        let stream = TcpStream::connect(relay.address()).expect("the relay listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket takes a timeout");
        stream
    }

    /// Sends `bytes`, reads as many back, and tells how long that took.
    fn exchange(mut stream: &TcpStream, bytes: &[u8]) -> Duration {
        let begun = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| (&*stream).write_all(bytes).expect("the relay reads"));
            let mut back = vec![0; bytes.len()];
            stream.read_exact(&mut back).expect("the echo answers");
            assert!(back == bytes, "the relay changed what it carried");
        });
        begun.elapsed()
    }

    #[test]
    fn a_byte_takes_a_delay_each_way_and_the_first_a_handshake_more() {
        let relay = Relay::start(echo(), DELAY, FAST).expect("a free port");
        let stream = connect(&relay);
        let first = exchange(&stream, b"x");
        assert!(first >= 4 * DELAY, "{first:?}");
        let times: Vec<_> = (0..5).map(|_| exchange(&stream, b"x")).collect();
        assert!(times.iter().all(|time| *time >= 2 * DELAY), "{times:?}");
        // A busy machine delays some, not all.
        assert!(times.iter().any(|time| *time < 4 * DELAY), "{times:?}");
    }

    #[test]
    fn a_rate_is_kept_each_way_and_shared_by_connections() {
        const LEN: usize = 200_000;
        let relay = Relay::start(echo(), Duration::ZERO, 1_000_000).expect("a free port");
        let alone = exchange(&connect(&relay), &[7; LEN]);
        assert!((190..1000).contains(&alone.as_millis()), "{alone:?} for 200 ms of bytes");
        assert_eq!([Direction::Up, Direction::Down].map(|way| relay.carried(way)), [LEN as u64; 2]);
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| exchange(&connect(&relay), &[8; LEN]));
            }
        });
        assert!(begun.elapsed().as_millis() >= 390, "{:?} for 400 ms of bytes", begun.elapsed());
    }

    #[test]
    fn a_sender_waits_while_nobody_takes_what_it_sent() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let relay = Relay::start(listener.local_addr().expect("bound"), Duration::ZERO, 1).expect("a free port");
        let mut stream = connect(&relay);
        stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a socket takes a timeout");
        let piece = vec![0; 1 << 20];
        // The kernel's own buffers take some megabytes.
        assert!((0..100).any(|_| stream.write_all(&piece).is_err()), "the relay took 100 MiB");
        let held = relay.carried(Direction::Up);
        // One piece over the brim, and one that has left the queue and waits to be written.
        assert!((WAITING as u64..=(WAITING + 2 * PIECE) as u64).contains(&held), "{held}");
    }

    #[test]
    fn the_end_of_one_direction_arrives_after_all_its_bytes() {
        let relay = Relay::start(echo(), DELAY, FAST).expect("a free port");
        let mut stream = connect(&relay);
        stream.write_all(&[9; 100_000]).expect("the relay reads");
        stream.shutdown(Shutdown::Write).expect("still open");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("the echo answers and closes");
        assert!(back == [9; 100_000], "{} bytes came back", back.len());
    }

    #[test]
    fn a_server_that_is_not_there_ends_the_connection() {
        let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port").local_addr().expect("bound");
        let relay = Relay::start(nobody, DELAY, FAST).expect("a free port");
        assert!(matches!(connect(&relay).read(&mut [0]), Ok(0) | Err(_)));
    }

    #[test]
    fn dropping_it_closes_what_runs_and_waits_for_nothing_long() {
        let relay = Relay::start(echo(), Duration::from_secs(3600), FAST).expect("a free port");
        let (address, mut stream) = (relay.address(), connect(&relay));
        stream.write_all(b"never to arrive").expect("the relay listens");
        thread::sleep(Duration::from_millis(50));
        let begun = Instant::now();
        drop(relay);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        assert!(TcpStream::connect(address).is_err());
    }
}
