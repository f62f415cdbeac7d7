//! The one board that all sessions of a server write to and its dashboard reads, with the clock that it needs.
//!
//! Invariant: a connection that was put on the board leaves it however its task ends, since [`Attached`] takes it off
//! when it is dropped.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deltasync_proto::{Event, Stats};

use crate::kept::Kept;
use crate::{Board, ClientId, EndedState, State};

/// A [`Board`] for several tasks, and the clock for it.
#[derive(Debug)]
pub struct SharedBoard {
    board: Mutex<Board>,
    start: Instant,
    changed: AtomicBool,
}

impl SharedBoard {
    /// The board of a server that starts now and takes clients on `listen`.
    pub fn new(listen: SocketAddr) -> Arc<Self> {
        let board = Board::new(env!("CARGO_PKG_VERSION"), &listen.to_string(), unix_now());
        Arc::new(Self { board: Mutex::new(board), start: Instant::now(), changed: AtomicBool::new(true) })
    }

    /// The same, of one that goes on from what an earlier server kept.
    pub(crate) fn restored(listen: SocketAddr, kept: Kept) -> Arc<Self> {
        let board = Self::new(listen);
        board.with(|board, _| board.restore(kept));
        board
    }

    /// Reads or changes the board, at the present time.
    pub fn with<R>(&self, f: impl FnOnce(&mut Board, Duration) -> R) -> R {
        // A panic while the lock was held has left plain counts behind, at worst one of them short.
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let result = f(&mut board, self.start.elapsed());
        self.changed.store(true, Ordering::Release);
        result
    }

    /// The state, if anything has changed since the last call or a second is over.
    pub(crate) fn news(&self) -> Option<State> {
        let changed = self.changed.swap(false, Ordering::AcqRel);
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.start.elapsed();
        let ticked = board.tick(now);
        (changed || ticked).then(|| board.snapshot(now))
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A connection on the board.
#[derive(Debug)]
pub(crate) struct Attached {
    board: Arc<SharedBoard>,
    id: ClientId,
    result: Result<(), String>,
}

impl Attached {
    pub(crate) fn new(board: Arc<SharedBoard>, peer: SocketAddr) -> Self {
        let id = board.with(|board, now| board.connected(now, peer));
        Self { board, id, result: Err("session was cut off by the server".to_owned()) }
    }

    /// Something happened to a transfer; what it returns has ended.
    pub(crate) fn event(&self, event: Event) -> Option<EndedState> {
        self.board.with(|board, now| board.event(now, self.id, event))
    }

    pub(crate) fn carried(&self, stats: Stats) {
        self.board.with(|board, now| board.carried(now, self.id, stats));
    }

    pub(crate) fn timed_out(&self) {
        self.board.with(|board, _| board.timed_out());
    }

    /// Takes it off the board, with the way in which it ended.
    pub(crate) fn end(mut self, result: Result<(), String>) {
        self.result = result;
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        self.board.with(|board, now| board.disconnected(now, self.id, result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_session_takes_its_client_off_the_board() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let board = SharedBoard::new(peer);
        let attached = Attached::new(board.clone(), peer);
        let panicked = std::thread::spawn(move || {
            let _attached = attached;
            panic!("as it is meant to");
        });
        assert!(panicked.join().is_err());
        let state = board.news().expect("changed");
        assert_eq!((state.server.clients, state.totals.sessions_failed), (0, 1));
        assert_eq!(board.news(), None);
    }
}
