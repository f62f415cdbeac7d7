//! The tokio driver of a session: it moves bytes, answers and time in and out, and decides nothing.
//!
//! The socket is split between two tasks, so that both directions move at once: one reads ahead one piece of up
//! to 256 KiB while the session wants bytes, the other writes what is queued, many small frames in one call, and tells
//! how much has left. Storage answers and finished jobs come by channel. The loop itself only ever waits for the first
//! of these, a command, or the session's deadline.
//!
//! Jobs of all sessions in the process share as many places as there are cores and two more, first come first served, so
//! that a thousand transfers do not start a thousand threads.
//!
//! Dropping the future leaks nothing: the tasks are aborted, the session goes and with it every opened file and stage; a
//! storage request under way ends for itself and its answer is dropped.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::io::{self, IoSlice};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::thread::available_parallelism;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use deltasync_proto::{
    Answer, ApiMisuse, Command, Computed, Event, Input, Job, JobId, Output, Request, RequestId, Session, SessionError,
    Stats, StorageFault, Timestamp, TransferId,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinError, JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{Reply, Storage};

/// What an embedder tells a connection while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// Start a transfer, or stop one.
    Command {
        /// Which transfer; see [`Input::Command`].
        transfer: TransferId,
        /// What to do.
        command: Command,
    },
    /// Take no more transfers and end when those that run have ended. Dropping the sender means the same.
    Finish,
}

/// What an embedder hears of a connection while it runs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Report {
    /// Something happened to a transfer.
    Event(Event),
    /// What the connection has carried so far: at most every 100 ms while it changes, and once at the end.
    Stats(Stats),
}

/// How a connection fails. Each transfer has told its own end by an event before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriveError {
    /// The session ended with an error.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The socket failed.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    /// A command or a storage's answer was not allowed: a mistake in the embedding code.
    #[error("session misused: {0}")]
    Misuse(#[from] ApiMisuse),
}

/// Reports of what a connection carried are at least this far apart.
const STATS_EVERY: Duration = Duration::from_millis(100);
/// How long the last bytes may take to leave, and a peer that was told of an error to close.
const CLOSING: Duration = Duration::from_secs(2);
/// The least and the most that one read asks for, in bytes: an idle connection holds the least.
const READ: (usize, usize) = (16 << 10, 256 << 10);
/// The most pieces that one call writes.
const PIECES: usize = 64;

/// Runs a session over a stream until it ends, and returns what the connection carried.
///
/// A server reports the transfers that its peer starts; a client starts them through `controls`. `report` is called from
/// within this future and must not block. Runs on a tokio runtime with time enabled.
///
/// # Errors
///
/// [`DriveError`] when the session ends with an error or the stream fails before the session has ended.
///
/// # Security
///
/// The peer may send anything and at any pace; what is held for it is bounded by the session's configuration and half a
/// megabyte read ahead.
pub async fn drive<S>(
    session: Session,
    stream: S,
    storage: Arc<dyn Storage>,
    mut controls: UnboundedReceiver<Control>,
    report: impl FnMut(Report) + Send,
) -> Result<Stats, DriveError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (read_half, write_half) = tokio::io::split(stream);
    let (piece, mut received) = mpsc::channel(1);
    let _reader = Task(tokio::spawn(read(read_half, piece)));
    let (outgoing, queue) = mpsc::unbounded_channel();
    let left = Arc::new(Left::default());
    let mut writer = Task(tokio::spawn(write(write_half, queue, Arc::clone(&left))));
    let (answer, mut answers) = mpsc::unbounded_channel();
    let started = Instant::now();
    let mut driver = Driver {
        session,
        started,
        storage,
        answer,
        outgoing,
        jobs: JoinSet::new(),
        report,
        reported: Stats::default(),
        report_next: started,
    };
    let (mut reading, mut writing, mut finishing) = (true, true, false);
    // The first thing that went wrong with the stream, and until when we read on: the peer may have said why.
    let mut broken: Option<io::Error> = None;
    let mut read_until = started;

    let outcome = loop {
        let deadline = match driver.drain() {
            Drained::Finished(outcome) => break Some(outcome),
            Drained::Wait(_) if broken.is_some() && !reading => break None,
            Drained::Wait(deadline) => deadline,
        };
        tokio::select! {
            piece = received.recv(), if reading && driver.session.wants_bytes() => {
                match piece {
                    Some(Ok(bytes)) => driver.input(Input::Received(bytes))?,
                    failed_or_ended => {
                        broken = broken.or(failed_or_ended.and_then(Result::err));
                        reading = false;
                        driver.input(Input::EndOfStream)?;
                    }
                }
            }
            written = left.taken() => driver.input(Input::Written(written))?,
            result = &mut writer, if writing => {
                writing = false;
                broken = broken.or(result.err());
                read_until = Instant::now() + CLOSING;
            }
            () = sleep_until(read_until), if reading && !writing => {
                reading = false;
                driver.input(Input::EndOfStream)?;
            }
            Some((id, answer)) = answers.recv() => driver.input(Input::Answered { id, answer })?,
            Some(done) = driver.jobs.join_next(), if !driver.jobs.is_empty() => {
                let (id, result) = sound(done).await;
                driver.input(Input::Computed { id, result })?;
            }
            control = controls.recv(), if !finishing => match control {
                Some(Control::Command { transfer, command }) => driver.input(Input::Command { transfer, command })?,
                Some(Control::Finish) | None => {
                    finishing = true;
                    driver.input(Input::Finish)?;
                }
            },
            () = until(started, deadline) => driver.input(Input::DeadlineReached)?,
            () = sleep_until(driver.report_next), if driver.stats_changed() => driver.report_stats(),
        }
    };

    let Driver { session, outgoing, mut report, .. } = driver;
    report(Report::Stats(session.stats()));
    let told = matches!(outcome, Some(Err(_)));
    drop((session, outgoing));
    let close = async {
        if writing {
            // The session ended as it did; that the last bytes did not leave changes nothing.
            let _ = (&mut writer).await;
        }
        // Bytes left unread would make the system reset the connection, and the peer might never read why it ended.
        while told && reading && matches!(received.recv().await, Some(Ok(_))) {}
    };
    // Too late is too late: the tasks are aborted.
    let _ = timeout(CLOSING, close).await;
    match (outcome, broken) {
        (Some(Ok(stats)), _) => Ok(stats),
        (None | Some(Err(SessionError::ConnectionLost { .. })), Some(error)) => Err(error.into()),
        (Some(Err(error)), _) => Err(error.into()),
        (None, None) => unreachable!("the loop ends without an outcome only when the stream is broken"),
    }
}

/// What is behind the loop.
struct Driver<R> {
    session: Session,
    started: Instant,
    storage: Arc<dyn Storage>,
    answer: UnboundedSender<(RequestId, Result<Answer, StorageFault>)>,
    outgoing: UnboundedSender<Bytes>,
    jobs: JoinSet<(JobId, Computed)>,
    report: R,
    reported: Stats,
    report_next: Instant,
}

enum Drained {
    Wait(Option<Timestamp>),
    Finished(Result<Stats, SessionError>),
}

impl<R: FnMut(Report) + Send> Driver<R> {
    fn input(&mut self, input: Input) -> Result<(), ApiMisuse> {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.session.handle_input(Timestamp::new(now), input)
    }

    fn drain(&mut self) -> Drained {
        loop {
            match self.session.poll_output() {
                // When the writer has failed, nobody takes it; the session hears of that as the end of the stream.
                Output::Transmit(bytes) => drop(self.outgoing.send(bytes)),
                Output::Storage(Request { id, ask }) => {
                    let answers = self.answer.clone();
                    // When we are gone, the answer is dropped, and with it what it holds open.
                    self.storage.submit(ask, Reply::new(move |answer| drop(answers.send((id, answer)))));
                }
                Output::Compute(job) => drop(self.jobs.spawn(compute(job))),
                Output::Event(event) => (self.report)(Report::Event(event)),
                Output::Wait { deadline } => return Drained::Wait(deadline),
                Output::Finished(outcome) => return Drained::Finished(outcome),
            }
        }
    }

    fn stats_changed(&self) -> bool {
        self.session.stats() != self.reported
    }

    fn report_stats(&mut self) {
        self.reported = self.session.stats();
        self.report_next = Instant::now() + STATS_EVERY;
        (self.report)(Report::Stats(self.reported));
    }
}

/// Passes at a deadline of the session, or never when there is none.
async fn until(started: Instant, deadline: Option<Timestamp>) {
    match deadline.and_then(|deadline| started.checked_add(Duration::from_nanos(deadline.get()))) {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// One job on a blocking thread, once there is a place for it.
async fn compute(job: Job) -> (JobId, Computed) {
    static PLACES: LazyLock<Semaphore> =
        LazyLock::new(|| Semaphore::new(available_parallelism().map_or(4, |n| n.get() + 2)));
    let place = PLACES.acquire().await.expect("the semaphore is never closed");
    let run = move || {
        // Held here, so that the place stays taken when we are aborted.
        let _place = place;
        (job.id, job.run())
    };
    sound(spawn_blocking(run).await).await
}

/// The result of a task that nobody aborts; its panic is ours.
async fn sound<T>(result: Result<T, JoinError>) -> T {
    match result.map_err(JoinError::try_into_panic) {
        Ok(value) => value,
        Err(Ok(panic)) => resume_unwind(panic),
        // The runtime is shutting down, and takes us with it.
        Err(Err(_cancelled)) => pending().await,
    }
}

/// A task that ends with its owner.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for Task<io::Result<T>> {
    type Output = io::Result<T>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        Pin::new(&mut self.0).poll(cx).map(|result| result.unwrap_or_else(|error| Err(error.into())))
    }
}

/// Bytes that have left and were not yet told to the session.
#[derive(Default)]
struct Left {
    bytes: AtomicUsize,
    more: Notify,
}

impl Left {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.more.notify_one();
    }

    async fn taken(&self) -> usize {
        loop {
            match self.bytes.swap(0, Ordering::AcqRel) {
                0 => self.more.notified().await,
                bytes => return bytes,
            }
        }
    }
}

/// Reads pieces until the stream ends or nobody takes them; asks for more when much comes at once.
async fn read(mut half: impl AsyncRead + Unpin, pieces: mpsc::Sender<io::Result<Bytes>>) {
    let (least, most) = READ;
    let mut wanted = least;
    let mut buffer = BytesMut::new();
    while let Ok(place) = pieces.reserve().await {
        if !(wanted / 2..=2 * wanted).contains(&buffer.capacity()) {
            buffer = BytesMut::with_capacity(wanted);
        }
        let room = buffer.capacity();
        match half.read_buf(&mut buffer).await {
            Ok(0) => return,
            Ok(len) if len == room => wanted = (2 * wanted).min(most),
            Ok(len) if len < wanted / 4 => wanted = (wanted / 2).max(least),
            Ok(_) => {}
            Err(error) => return place.send(Err(error)),
        }
        place.send(Ok(buffer.split().freeze()));
    }
}

/// Writes what is queued, in order, until the queue closes; then shuts the direction down.
async fn write(
    mut half: impl AsyncWrite + Unpin,
    mut queue: UnboundedReceiver<Bytes>,
    left: Arc<Left>,
) -> io::Result<()> {
    let mut pieces: VecDeque<Bytes> = VecDeque::with_capacity(PIECES);
    while let Some(piece) = queue.recv().await {
        pieces.push_back(piece);
        while !pieces.is_empty() {
            while pieces.len() < PIECES
                && let Ok(piece) = queue.try_recv()
            {
                pieces.push_back(piece);
            }
            let mut slices = [IoSlice::new(&[]); PIECES];
            pieces.iter().zip(&mut slices).for_each(|(piece, slice)| *slice = IoSlice::new(piece));
            let written = half.write_vectored(&slices[..pieces.len()]).await?;
            if written == 0 && pieces.iter().any(|piece| !piece.is_empty()) {
                return Err(io::ErrorKind::WriteZero.into());
            }
            advance(&mut pieces, written);
            left.add(written);
        }
        half.flush().await?;
    }
    half.shutdown().await
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
