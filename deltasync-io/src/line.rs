//! A stream with both directions polled by one task: what is to be written to it, and what it is read into.
//!
//! Where the bandwidth is limited, both directions draw from one [`Bucket`]. They take turns, so that a direction in which
//! much moves does not keep the other silent.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::Bandwidth;
use crate::bandwidth::Bucket;
use crate::buffers::Buffer;

/// The least and the most that one read asks for, in bytes: an idle connection holds the least.
const READ: (usize, usize) = (16 << 10, 256 << 10);
/// The most pieces that one call writes.
const PIECES: usize = 64;

/// The stream with what is to be written to it, and what it is read into.
pub(crate) struct Line<S> {
    stream: S,
    pub(crate) outgoing: VecDeque<Bytes>,
    /// Bytes were written since the last flush.
    unflushed: bool,
    /// How much the next read asks for, in bytes.
    wanted: usize,
    buffer: Option<Buffer>,
    limit: Option<Limit>,
}

/// How much may move, and when.
struct Limit {
    bucket: Bucket,
    /// Until there is room.
    waiting: Option<Pin<Box<Sleep>>>,
    /// The last that moved was written: the next turn to move is reading's.
    wrote: bool,
}

/// What a stream has done.
pub(crate) enum Moved {
    Written(usize),
    WriteFailed(io::Error),
    Received(Bytes),
    /// It ended, or failed.
    ReadEnded(Option<io::Error>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// The next that it does of what it may. What is written is told first, so that there is more to write.
    pub(crate) async fn next(&mut self, reading: bool, writing: bool) -> Moved {
        poll_fn(|cx| {
            let room = ready!(self.poll_room(cx));
            let reads_first = self.limit.as_ref().is_some_and(|limit| limit.wrote);
            if reading
                && reads_first
                && let Poll::Ready(moved) = self.poll_read(cx, room)
            {
                return Poll::Ready(moved);
            }
            if writing {
                match self.poll_write(cx, room) {
                    Poll::Ready(Ok(len)) => return Poll::Ready(Moved::Written(len)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Moved::WriteFailed(error)),
                    Poll::Pending => {}
                }
            }
            if reading && !reads_first { self.poll_read(cx, room) } else { Poll::Pending }
        })
        .await
    }

    /// How many bytes may move now, once there are any.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let Some(limit) = &mut self.limit else { return Poll::Ready(usize::MAX) };
        loop {
            if let Some(waiting) = &mut limit.waiting {
                ready!(waiting.as_mut().poll(cx));
                limit.waiting = None;
            }
            match limit.bucket.room(Instant::now()) {
                Ok(room) => return Poll::Ready(room),
                Err(moment) => limit.waiting = Some(Box::pin(sleep_until(moment))),
            }
        }
    }

    /// Writes as much as the stream takes at once of `room` bytes; pending when all is written and flushed.
    fn poll_write(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let mut all = 0;
        while !self.outgoing.is_empty() && all < room {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let (mut left, mut count) = (room - all, 0);
            for (piece, slice) in self.outgoing.iter().zip(&mut slices) {
                let len = piece.len().min(left);
                *slice = IoSlice::new(&piece[..len]);
                (left, count) = (left - len, count + 1);
                if left == 0 {
                    break;
                }
            }
            let pieces = &slices[..count];
            let written = match Pin::new(&mut self.stream).poll_write_vectored(cx, pieces) {
                Poll::Ready(Ok(0)) if pieces.iter().any(|piece| !piece.is_empty()) => {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(written) => written?,
                Poll::Pending => break,
            };
            advance(&mut self.outgoing, written);
            self.unflushed = true;
            all += written;
        }
        if all > 0 {
            self.moved(all, true);
            return Poll::Ready(Ok(all));
        }
        if self.unflushed && self.outgoing.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Pending
    }

    /// Reads a piece of at most `room` bytes; asks for more the next time when much came at once.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Moved> {
        let (least, most) = READ;
        let mut buffer = self.buffer.take().filter(|buffer| buffer.len() == self.wanted);
        let filled = {
            let buffer = buffer.get_or_insert_with(|| Buffer::new(self.wanted));
            let most = buffer.len().min(room);
            let mut into = ReadBuf::new(&mut buffer[..most]);
            Pin::new(&mut self.stream).poll_read(cx, &mut into).map_ok(|()| into.filled().len())
        };
        let len = match filled {
            Poll::Pending => {
                // An idle connection holds the least.
                self.buffer = buffer.filter(|buffer| buffer.len() == least);
                return Poll::Pending;
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Moved::ReadEnded(Some(error))),
            Poll::Ready(Ok(0)) => return Poll::Ready(Moved::ReadEnded(None)),
            Poll::Ready(Ok(len)) => len,
        };
        self.moved(len, false);
        match len {
            len if len == self.wanted => self.wanted = (2 * self.wanted).min(most),
            len if len < self.wanted / 4 => self.wanted = (self.wanted / 2).max(least),
            _ => {}
        }
        Poll::Ready(Moved::Received(buffer.map_or_else(Bytes::new, |buffer| buffer.freeze(len))))
    }

    /// Writes what is left and shuts that direction down, where writing still works; then, where that is asked for, reads
    /// to the end.
    pub(crate) async fn close(&mut self, writing: bool, reading: bool) {
        if writing {
            while !self.outgoing.is_empty() || self.unflushed {
                let moved = poll_fn(|cx| match self.poll_write(cx, usize::MAX) {
                    Poll::Pending if self.outgoing.is_empty() && !self.unflushed => Poll::Ready(Ok(0)),
                    moved => moved,
                });
                if moved.await.is_err() {
                    break;
                }
            }
            let _ = self.stream.shutdown().await;
        }
        while reading && matches!(poll_fn(|cx| self.poll_read(cx, usize::MAX)).await, Moved::Received(_)) {}
    }
}

impl<S> Line<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, outgoing: VecDeque::new(), unflushed: false, wanted: READ.0, buffer: None, limit: None }
    }

    /// Moves no more than this from now on.
    pub(crate) fn limit(&mut self, bandwidth: Option<Bandwidth>) {
        self.limit = bandwidth.map(|bandwidth| Limit {
            bucket: Bucket::new(bandwidth, Instant::now()),
            waiting: None,
            wrote: false,
        });
    }

    fn moved(&mut self, len: usize, wrote: bool) {
        if let Some(limit) = &mut self.limit {
            limit.bucket.take(Instant::now(), len);
            limit.wrote = wrote;
        }
    }
}

/// Takes `written` bytes, and pieces without any, off the front.
fn advance(pieces: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = pieces.front_mut() {
        if first.len() > written {
            return first.advance(written);
        }
        written -= first.len();
        pieces.pop_front();
    }
}
