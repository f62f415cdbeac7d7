//! A stream that is not read while its peer's address begins transfers faster than it may.
//!
//! What is not read stays with the peer: nobody is refused for being fast, and nothing is queued here. The time that a
//! peer waits is short, since a connection runs a bounded number of transfers and is paced by itself, so its pings are
//! answered before it despairs.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::limits::Place;

/// The longest wait at a time.
const WAIT_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Paced<S> {
    stream: S,
    place: Arc<Place>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, place: Arc<Place>) -> Self {
        Self { stream, place, waiting: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            match self.place.wait() {
                Some(wait) => self.waiting = Some(Box::pin(sleep(wait.min(WAIT_MAX)))),
                None => return Pin::new(&mut self.stream).poll_read(cx, buf),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::time::Instant;

    use super::*;
    use crate::ServerLimits;
    use crate::limits::Origins;

    #[tokio::test]
    async fn an_overdrawn_address_is_read_later_and_whole() {
        let limits = ServerLimits { requests_per_address: 20, ..ServerLimits::default() };
        let place = Origins::new(&limits).place([192, 0, 2, 1].into()).expect("a place");
        let place = Arc::new(place);
        let mut paced = Paced::new(&b"all of it"[..], place.clone());
        let mut first = [0; 4];
        paced.read_exact(&mut first).await.expect("at once");
        (0..44).for_each(|_| place.count());
        let begin = Instant::now();
        let mut rest = Vec::new();
        paced.read_to_end(&mut rest).await.expect("later");
        assert_eq!([&first[..], &rest].concat(), b"all of it");
        assert!(begin.elapsed() >= Duration::from_millis(200), "{:?}", begin.elapsed());
    }
}
