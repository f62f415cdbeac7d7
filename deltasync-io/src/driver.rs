//! The tokio driver of a session: it moves bytes, answers and time in and out, and decides nothing.
//!
//! One task polls both directions of the socket, so that nobody is woken between a byte and the session: it reads pieces
//! of up to 256 KiB while the session wants bytes, and writes what is queued, many frames in one call. Storage answers and
//! finished jobs come by channel. The loop itself only ever waits for the first of these, a command, or the session's
//! deadline.
//!
//! Jobs of all sessions in the process share as many places as there are cores and two more, first come first served, so
//! that a thousand transfers do not start a thousand threads.
//!
//! Dropping the future leaks nothing: the session goes and with it every opened file and stage; a storage request under
//! way ends for itself and its answer is dropped.

use std::future::pending;
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;
use std::time::Duration;

use deltasync_proto::{
    Answer, ApiMisuse, Command, Computed, Event, Input, Job, JobId, Output, Request, RequestId, Session, SessionError,
    Stats, StorageFault, Timestamp, TransferId,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::line::{Line, Moved};
use crate::{Bandwidth, Reply, Storage};

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
    /// Carry no more than this from now on, both directions together; `None` for no limit. Told before the first command, it
    /// holds for all but the hello and the last words.
    Limit(Option<Bandwidth>),
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
/// The peer may send anything and at any pace; what is held for it is bounded by the session's configuration and one
/// piece of at most 256 KiB.
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
    let (answer, mut answers) = mpsc::unbounded_channel();
    let started = Instant::now();
    let mut driver = Driver {
        session,
        started,
        storage,
        answer,
        line: Line::new(stream),
        jobs: JoinSet::new(),
        report,
        reported: Stats::default(),
        report_next: started,
    };
    let (mut reading, mut writing, mut finishing) = (true, true, false);
    // The first thing that went wrong with the stream, and until when we read on: the peer may have said why.
    let mut broken: Option<io::Error> = None;
    let mut read_until = started;
    let mut alarm = Alarm::default();

    let outcome = loop {
        let deadline = match driver.drain() {
            Drained::Finished(outcome) => break Some(outcome),
            Drained::Wait(_) if broken.is_some() && !reading => break None,
            Drained::Wait(deadline) => deadline,
        };
        let may_read = reading && driver.session.wants_bytes();
        tokio::select! {
            moved = driver.line.next(may_read, writing) => match moved {
                Moved::Written(len) => driver.input(Input::Written(len))?,
                Moved::Received(bytes) => driver.input(Input::Received(bytes))?,
                Moved::ReadEnded(error) => {
                    broken = broken.or(error);
                    reading = false;
                    driver.input(Input::EndOfStream)?;
                }
                Moved::WriteFailed(error) => {
                    broken = broken.or(Some(error));
                    writing = false;
                    read_until = Instant::now() + CLOSING;
                }
            },
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
                Some(Control::Limit(bandwidth)) => driver.line.limit(bandwidth),
                Some(Control::Finish) | None => {
                    finishing = true;
                    driver.input(Input::Finish)?;
                }
            },
            () = alarm.at(started, deadline) => driver.input(Input::DeadlineReached)?,
            () = sleep_until(driver.report_next), if driver.stats_changed() => driver.report_stats(),
        }
    };

    let Driver { session, mut line, mut report, .. } = driver;
    report(Report::Stats(session.stats()));
    let told = matches!(outcome, Some(Err(_)));
    drop(session);
    // The session ended as it did; that the last bytes did not leave changes nothing. Bytes left unread would make the
    // system reset the connection, and the peer might never read why it ended. Too late is too late.
    let _ = timeout(CLOSING, line.close(writing, told && reading)).await;
    match (outcome, broken) {
        (Some(Ok(stats)), _) => Ok(stats),
        (None | Some(Err(SessionError::ConnectionLost { .. })), Some(error)) => Err(error.into()),
        (Some(Err(error)), _) => Err(error.into()),
        (None, None) => unreachable!("the loop ends without an outcome only when the stream is broken"),
    }
}

/// What is behind the loop.
struct Driver<S, R> {
    session: Session,
    started: Instant,
    storage: Arc<dyn Storage>,
    answer: UnboundedSender<(RequestId, Result<Answer, StorageFault>)>,
    line: Line<S>,
    jobs: JoinSet<(JobId, Computed)>,
    report: R,
    reported: Stats,
    report_next: Instant,
}

enum Drained {
    Wait(Option<Timestamp>),
    Finished(Result<Stats, SessionError>),
}

impl<S, R: FnMut(Report) + Send> Driver<S, R> {
    fn input(&mut self, input: Input) -> Result<(), ApiMisuse> {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.session.handle_input(Timestamp::new(now), input)
    }

    fn drain(&mut self) -> Drained {
        loop {
            match self.session.poll_output() {
                // When writing has failed, nobody takes it; the session hears of that as the end of the stream.
                Output::Transmit(bytes) => self.line.outgoing.push_back(bytes),
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

/// Passes at a deadline of the session. Deadlines move with every byte: one that has become later is looked at again when
/// the earlier one has passed, and costs nothing until then.
#[derive(Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    async fn at(&mut self, started: Instant, deadline: Option<Timestamp>) {
        let after = deadline.map(|deadline| Duration::from_nanos(deadline.get()));
        let Some(deadline) = after.and_then(|after| started.checked_add(after)) else { return pending().await };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            sleep.as_mut().await;
            if sleep.deadline() >= deadline {
                break;
            }
            sleep.as_mut().reset(deadline);
        }
        self.sleep = None;
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
