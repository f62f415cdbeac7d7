//! The checking of stored files while a server runs: slowly in the background, and at once when its user asks.
//!
//! There is one pass at a time. One in the background goes through everything once in a while, at a rate that transfers do
//! not feel; where it was stopped it goes on, after a restart too. When the user asks for one, that in the background steps
//! aside and goes on afterwards. What they do and find is on the board and in the log.
//!
//! A pass runs on a thread of its own, since it waits for a disk, and looks between any two pieces of its work whether it
//! should stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deltasync_io::{Finding, FindingKind, LocalStorage, Scrub, ScrubEvent, ScrubOptions, ScrubReport};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::shared::unix_now;
use crate::text::{PATH_MAX, visible};
use crate::{FindingState, PassState, SharedBoard};

/// How a server checks the files that it stores, see [`ServerConfig::scrub`](crate::ServerConfig::scrub).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scrubbing {
    /// The files, as the server's storage has them.
    pub storage: Arc<LocalStorage>,
    /// The time from the end of one pass in the background to the start of the next (default 30 days); `None` for none.
    pub interval: Option<Duration>,
    /// The most bytes that one in the background reads in a second (default 16 MiB).
    pub rate: u64,
}

impl Scrubbing {
    /// Checks these files once in 30 days.
    pub fn new(storage: Arc<LocalStorage>) -> Self {
        Self { storage, interval: Some(Duration::from_secs(30 * 86_400)), rate: 16 << 20 }
    }

    /// Sets the time from the end of one pass in the background to the start of the next.
    #[must_use]
    pub fn interval(mut self, interval: Option<Duration>) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the most bytes that one in the background reads in a second.
    #[must_use]
    pub fn rate(mut self, rate: u64) -> Self {
        self.rate = rate;
        self
    }
}

/// What a pass tells, and how a server answers its user: one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum ScrubLine {
    /// Another one that was asked for runs.
    Waiting,
    /// It is at this file, and has done so much.
    Progress { position: String, pass: PassState },
    /// It has found something.
    Finding(FindingState),
    /// It has gone through everything.
    End { pass: PassState, damage: bool },
    /// It could not.
    Error { message: String },
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    All,
    /// `tell` had enough.
    Stopped,
}

/// How often a pass tells its progress.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// After the start of a server, the first pass waits so long, and after one that failed, the next.
const FIRST: Duration = Duration::from_secs(60);

/// How often notes are made durable.
const FLUSH_EVERY: Duration = Duration::from_secs(10);

/// How long the end of a server waits for each of a pass to stop and the last notes to be durable.
const PATIENCE: Duration = Duration::from_secs(2);

/// Goes through the files until the end, or until `tell` answers false. It is asked at every step; mostly there is nothing
/// to be told.
pub(crate) fn pass(
    storage: &LocalStorage,
    options: ScrubOptions,
    mut tell: impl FnMut(Option<ScrubLine>) -> bool,
) -> io::Result<Ended> {
    let mut scrub = storage.scrub(options)?;
    let mut told: Option<Instant> = None;
    loop {
        let line = match scrub.step()? {
            Some(ScrubEvent::Found(finding)) => Some(ScrubLine::Finding(FindingState::from(finding))),
            Some(_) if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) => {
                told = Some(Instant::now());
                Some(progress(&scrub))
            }
            Some(_) => None,
            None => {
                tell(Some(progress(&scrub)));
                let report = scrub.report();
                tell(Some(ScrubLine::End { pass: report.into(), damage: report.is_damaged() }));
                return Ok(Ended::All);
            }
        };
        if !tell(line) {
            return Ok(Ended::Stopped);
        }
    }
}

fn progress(scrub: &Scrub<'_>) -> ScrubLine {
    let position = scrub.position().map(|path| visible(&path.to_string(), PATH_MAX)).unwrap_or_default();
    ScrubLine::Progress { position, pass: scrub.report().into() }
}

impl From<ScrubReport> for PassState {
    fn from(report: ScrubReport) -> Self {
        Self {
            files: report.files,
            bytes: report.bytes,
            damaged: report.found(FindingKind::Damaged),
            unreadable: report.found(FindingKind::Unreadable),
            changed: report.found(FindingKind::Changed),
            gone: report.found(FindingKind::Gone),
            old_versions: report.found(FindingKind::OldVersion),
        }
    }
}

impl PassState {
    fn each(&mut self) -> [&mut u64; 7] {
        let Self { files, bytes, damaged, unreadable, changed, gone, old_versions } = self;
        [files, bytes, damaged, unreadable, changed, gone, old_versions]
    }

    /// Adds what has come since `before`.
    fn add_since(&mut self, mut before: Self, mut now: Self) {
        for ((sum, before), now) in self.each().into_iter().zip(before.each()).zip(now.each()) {
            *sum = sum.saturating_add(now.saturating_sub(*before));
        }
    }
}

impl From<Finding> for FindingState {
    fn from(finding: Finding) -> Self {
        let (kind, path) = (finding.kind.name().to_owned(), finding.path.to_string());
        Self { number: 0, time: unix_now(), kind, path, message: finding.message }.bound()
    }
}

/// The one who checks the files of a server.
#[derive(Debug)]
pub(crate) struct Scrubber {
    scrubbing: Scrubbing,
    board: Arc<SharedBoard>,
    /// Held by the thread of the pass that runs.
    turn: Arc<Semaphore>,
    /// How many are asked for that have not ended.
    asked: AtomicUsize,
    /// No pass goes on.
    ended: AtomicBool,
}

/// Stops a pass when it is dropped, as what waited for it is.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts one that is asked for, however it ends.
struct Asked<'a>(&'a AtomicUsize);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Scrubber {
    pub(crate) fn new(scrubbing: Scrubbing, board: Arc<SharedBoard>) -> Arc<Self> {
        let (turn, asked) = (Arc::new(Semaphore::new(1)), AtomicUsize::new(0));
        Arc::new(Self { scrubbing, board, turn, asked, ended: AtomicBool::new(false) })
    }

    /// Checks in the background for as long as it is polled.
    pub(crate) async fn in_background(self: Arc<Self>) {
        let begun = Instant::now();
        let first = self.scrubbing.interval.map_or(FIRST, |interval| interval.min(FIRST));
        loop {
            let Some(wait) = self.wait().await else { return };
            // Also after a pass that was asked for, which counts.
            let wait = wait.max(first.saturating_sub(begun.elapsed()));
            if !wait.is_zero() {
                sleep(wait.min(FIRST)).await;
                continue;
            }
            let turn = self.turn().await;
            let options = ScrubOptions::default().rate(self.scrubbing.rate).resume(true);
            let aside = self.clone();
            let tell = move |_| aside.asked.load(Ordering::Acquire) == 0;
            let ended = self.run("background", turn, options, tell).await;
            if let Err(error) = ended {
                tracing::warn!(%error, "stored files could not be checked; trying again later");
                sleep(FIRST).await;
            }
        }
    }

    /// Checks everything now, and tells how it goes until `tell` answers false.
    pub(crate) async fn at_once(
        self: &Arc<Self>,
        rate: Option<u64>,
        tell: impl Fn(ScrubLine) -> bool + Send + 'static,
    ) -> io::Result<Ended> {
        self.asked.fetch_add(1, Ordering::AcqRel);
        let _asked = Asked(&self.asked);
        let turn = match self.turn.clone().try_acquire_owned() {
            Ok(turn) => turn,
            Err(_) if !tell(ScrubLine::Waiting) => return Ok(Ended::Stopped),
            Err(_) => self.turn().await,
        };
        let options = rate.into_iter().fold(ScrubOptions::default(), ScrubOptions::rate);
        self.run("asked", turn, options, move |line| line.is_none_or(&tell)).await
    }

    /// Makes durable, once in a while, what the storage has noted, for as long as it is polled.
    pub(crate) async fn keep_notes(self: Arc<Self>) {
        loop {
            sleep(FLUSH_EVERY).await;
            let storage = self.scrubbing.storage.clone();
            let _ = tokio::task::spawn_blocking(move || storage.flush()).await;
        }
    }

    /// Stops the pass that runs, so that it leaves behind where it is, and makes that durable.
    pub(crate) async fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        // A disk that hangs must not hold up the end.
        let _ = timeout(PATIENCE, self.turn()).await;
        let storage = self.scrubbing.storage.clone();
        let _ = timeout(PATIENCE, tokio::task::spawn_blocking(move || storage.flush())).await;
    }

    async fn turn(&self) -> OwnedSemaphorePermit {
        self.turn.clone().acquire_owned().await.expect("it is never closed")
    }

    /// How long it is until the next pass in the background; `None` when there is to be none.
    async fn wait(&self) -> Option<Duration> {
        let interval = self.scrubbing.interval?;
        let storage = self.scrubbing.storage.clone();
        let last = tokio::task::spawn_blocking(move || storage.last_scrub()).await.ok()?.ok()?;
        let finished = last.finished.unwrap_or(UNIX_EPOCH);
        let due = if last.unfinished { UNIX_EPOCH } else { finished.checked_add(interval)? };
        let wait = due.duration_since(SystemTime::now()).unwrap_or_default();
        self.board.with(|board, _| {
            let scrub = board.scrub();
            scrub.finished = since_1970(finished);
            scrub.due = unix_now().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        });
        Some(wait)
    }

    /// Runs a pass on a thread, shows it, and hands on what it tells.
    async fn run(
        self: &Arc<Self>,
        name: &'static str,
        turn: OwnedSemaphorePermit,
        options: ScrubOptions,
        tell: impl Fn(Option<ScrubLine>) -> bool + Send + 'static,
    ) -> io::Result<Ended> {
        let scrubber = self.clone();
        let stopped = Arc::new(AtomicBool::new(false));
        let _stop = StopOnDrop(stopped.clone());
        let run = move || {
            let _turn = turn;
            let (storage, board) = (&scrubber.scrubbing.storage, &scrubber.board);
            board.with(|board, _| {
                let scrub = board.scrub();
                scrub.running = name.to_owned();
                scrub.pass = PassState::default();
            });
            tracing::info!(kind = name, "checking stored files");
            let ended = pass(storage, options, |line| {
                let line = line.map(|line| show(board, line));
                tell(line) && ![&stopped, &scrubber.ended].iter().any(|stop| stop.load(Ordering::Relaxed))
            });
            let finished = storage.last_scrub().ok().and_then(|last| last.finished);
            board.with(|board, _| {
                let scrub = board.scrub();
                scrub.running.clear();
                scrub.position.clear();
                scrub.finished = finished.map_or(scrub.finished, since_1970);
            });
            ended
        };
        let ended = tokio::task::spawn_blocking(run).await;
        ended.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// Puts what a pass tells on the board and into the log; a finding gets its number.
fn show(board: &SharedBoard, line: ScrubLine) -> ScrubLine {
    board.with(|board, _| match line {
        ScrubLine::Progress { position, pass } => {
            let scrub = board.scrub();
            scrub.total.add_since(scrub.pass, pass);
            scrub.position.clone_from(&position);
            scrub.pass = pass;
            ScrubLine::Progress { position, pass }
        }
        ScrubLine::Finding(finding) => {
            let finding = board.found(finding);
            let FindingState { kind, path, message, .. } = &finding;
            if FindingKind::ALL.into_iter().any(|known| known.name() == kind && known.is_damage()) {
                tracing::error!(path, kind, "{message}");
            } else {
                tracing::info!(path, kind, "{message}");
            }
            ScrubLine::Finding(finding)
        }
        ScrubLine::End { pass, damage } => {
            tracing::info!(files = pass.files, bytes = pass.bytes, damage, "checked stored files");
            ScrubLine::End { pass, damage }
        }
        line @ (ScrubLine::Waiting | ScrubLine::Error { .. }) => line,
    })
}

fn since_1970(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
