//! Two ends driven over a stream in memory: whole transfers, and every way a connection can end.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use deltasync_core::{Name, RelPath};
use deltasync_io::{
    BlockingStorage, Control, DriveError, LocalOptions, LocalStorage, MemoryStorage, Reply, Report, Storage, Threads,
    drive, entropy,
};
use deltasync_proto::{
    Ask, Command, Config, Destination, Event, EventKind, Outcome, Place, RootId, Session, SessionError, Stats,
    TransferError, TransferId,
};
use deltasync_testkit::Rng;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Far more than any of these takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One end that runs, and what it reported so far.
struct End {
    controls: UnboundedSender<Control>,
    reports: Arc<Mutex<Vec<Report>>>,
    task: JoinHandle<Result<Stats, DriveError>>,
}

impl End {
    fn start(
        session: Session,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        storage: Arc<dyn Storage>,
    ) -> Self {
        Self::start_with(session, stream, storage, &[])
    }

    /// With these transfers, numbered from 1, waiting from the first moment.
    fn start_with(
        session: Session,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        storage: Arc<dyn Storage>,
        transfers: &[Command],
    ) -> Self {
        let (controls, commands) = unbounded_channel();
        for (transfer, command) in (1..).map(TransferId::new).zip(transfers.iter().cloned()) {
            controls.send(Control::Command { transfer, command }).expect("we hold the receiver");
        }
        let reports: Arc<Mutex<Vec<Report>>> = Arc::default();
        let seen = Arc::clone(&reports);
        let report = move |report| seen.lock().expect("no panic").push(report);
        let task = tokio::spawn(drive(session, stream, storage, commands, report));
        Self { controls, reports, task }
    }

    fn client(stream: DuplexStream, storage: &Arc<impl BlockingStorage>) -> Self {
        let session = Session::client(Config::default(), entropy().expect("the system has randomness"));
        Self::start(session, stream, Arc::new(Threads::new(Arc::clone(storage), 4)))
    }

    fn server(stream: DuplexStream, storage: &Arc<impl BlockingStorage>) -> Self {
        let session = Session::server(Config::default(), entropy().expect("the system has randomness"));
        Self::start(session, stream, Arc::new(Threads::new(Arc::clone(storage), 4)))
    }

    fn command(&self, transfer: u32, command: Command) {
        let transfer = TransferId::new(transfer);
        self.controls.send(Control::Command { transfer, command }).expect("the end runs");
    }

    fn finish(&self) {
        self.controls.send(Control::Finish).expect("the end runs");
    }

    fn reports(&self) -> Vec<Report> {
        self.reports.lock().expect("no panic").clone()
    }

    /// How each transfer ended, in the order of their numbers.
    fn outcomes(&self) -> Vec<(u32, Result<Outcome, TransferError>)> {
        let mut outcomes = Vec::new();
        for report in self.reports() {
            if let Report::Event(Event { transfer, kind: EventKind::Ended(outcome) }) = report {
                outcomes.push((transfer.get(), outcome));
            }
        }
        outcomes.sort_by_key(|(transfer, _)| *transfer);
        outcomes
    }

    async fn end(&mut self) -> Result<Stats, DriveError> {
        timeout(PATIENCE, &mut self.task).await.expect("it ends in time").expect("it does not panic")
    }
}

/// Waits until `done`.
async fn until(done: impl Fn() -> bool) {
    let looking = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, looking).await.expect("it happens in time");
}

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("a valid path")
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a valid name")
}

fn place(text: &str) -> Place {
    Place { root: RootId::new(0), path: path(text) }
}

fn push(text: &str) -> Command {
    Command::Push {
        source: place(text),
        path: path(text),
        name: name("source"),
        directory: false,
        condition: deltasync_proto::Condition::Any,
    }
}

fn pull(text: &str) -> Command {
    let destination = Destination { place: place(text), name: name("source"), directory: false };
    Command::Pull { path: path(text), destination, condition: deltasync_proto::Condition::Any }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    Rng::new(seed).bytes(len)
}

fn memory(files: &[(&str, &[u8])]) -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new();
    files.iter().for_each(|(at, bytes)| storage.insert(RootId::new(0), path(at), bytes.to_vec()));
    Arc::new(storage)
}

fn content(storage: &MemoryStorage, at: &str) -> Option<Vec<u8>> {
    storage.get(RootId::new(0), &path(at)).map(|bytes| bytes.to_vec())
}

/// Pushes one file and pulls another over a stream that takes `room` bytes at a time; both edited by a byte in front.
async fn check_both_ways(len: usize, room: usize) {
    let (up, down) = (noise(len, 1), noise(len, 2));
    let edited = |bytes: &[u8]| [b"x", bytes].concat();
    let ours = memory(&[("up", &edited(&up)), ("down", &down)]);
    let theirs = memory(&[("up", &up), ("down", &edited(&down))]);
    let (here, there) = duplex(room);
    let (mut client, mut server) = (End::client(here, &ours), End::server(there, &theirs));
    client.command(1, push("up"));
    client.command(2, pull("down"));
    client.finish();
    let (sent, served) = (client.end().await.expect("a good end"), server.end().await.expect("a good end"));
    assert!(content(&theirs, "up") == Some(edited(&up)), "{len} bytes, {room} at a time");
    assert!(content(&ours, "down") == Some(edited(&down)), "{len} bytes, {room} at a time");
    assert_eq!((sent.wire_sent, sent.wire_received), (served.wire_received, served.wire_sent));
    for end in [&client, &server] {
        let outcomes = end.outcomes();
        assert!(matches!(outcomes[..], [(1, Ok(_)), (2, Ok(_))]), "{outcomes:?}");
    }
    assert_eq!(client.reports().last(), Some(&Report::Stats(sent)), "the end is told by what was carried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_and_a_pull_at_once_make_equal_files() {
    for (len, room) in [(0, 1 << 16), (100, 1 << 16), (100_000, 1 << 16), (3_000_000, 1 << 20), (300_000, 999)] {
        check_both_ways(len, room).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_one_byte_at_a_time_is_as_good() {
    check_both_ways(9_000, 1).await;
}

#[tokio::test]
async fn one_thread_is_enough() {
    check_both_ways(300_000, 1 << 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_files_on_disks_travel_on_one_connection() {
    let (ours, theirs) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let files: Vec<_> = (0..40u32).map(|i| (format!("file-{i}"), noise(17_000 * i as usize, i.into()))).collect();
    files.iter().for_each(|(name, bytes)| std::fs::write(ours.path().join(name), bytes).expect("written"));
    let client = LocalStorage::roots(vec![ours.path().to_owned()], LocalOptions::default()).expect("opened");
    let server = LocalStorage::serve(theirs.path(), LocalOptions::default()).expect("opened");
    let (here, there) = duplex(1 << 16);
    let (mut client, mut server) = (End::client(here, &Arc::new(client)), End::server(there, &Arc::new(server)));
    (1..).zip(&files).for_each(|(number, (name, _))| client.command(number, push(name)));
    client.finish();
    client.end().await.expect("a good end");
    server.end().await.expect("a good end");
    for (name, bytes) in &files {
        assert!(std::fs::read(theirs.path().join(name)).expect("pushed") == *bytes, "{name}");
    }
    let generation = |outcome: Result<Outcome, _>| outcome.expect("a good end").generation.expect("counted").get();
    let mut generations: Vec<_> = client.outcomes().into_iter().map(|(_, outcome)| generation(outcome)).collect();
    generations.sort_unstable();
    assert_eq!(generations, (1..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn dropping_the_sender_of_controls_is_finish() {
    let (ours, theirs) = (memory(&[("file", b"content")]), memory(&[]));
    let (here, there) = duplex(1 << 16);
    let (client, mut server) = (End::client(here, &ours), End::server(there, &theirs));
    client.command(1, push("file"));
    let End { controls, task, .. } = client;
    drop(controls);
    let ended = timeout(PATIENCE, task).await.expect("in time").expect("no panic");
    ended.expect("a good end");
    server.end().await.expect("a good end");
    assert_eq!(content(&theirs, "file").as_deref(), Some(&b"content"[..]));
}

/// Never answers a request that applies a plan.
struct Stuck {
    inner: Threads,
    held: Mutex<Vec<Reply>>,
}

impl Storage for Stuck {
    fn submit(&self, ask: Ask, reply: Reply) {
        match ask {
            Ask::Apply { .. } => self.held.lock().expect("no panic").push(reply),
            ask => self.inner.submit(ask, reply),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_future_in_the_middle_leaves_no_stage_and_no_socket() {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("file"), b"old").expect("written");
    let local = LocalStorage::serve(directory.path(), LocalOptions::default()).expect("opened");
    let stuck = Arc::new(Stuck { inner: Threads::new(Arc::new(local), 4), held: Mutex::default() });
    let ours = memory(&[("file", &noise(3_000_000, 1))]);
    let (here, there) = duplex(1 << 16);
    let session = Session::server(Config::default(), entropy().expect("randomness"));
    let (mut client, server) = (End::client(here, &ours), End::start(session, there, stuck.clone()));
    client.command(1, push("file"));
    let staging = directory.path().join(".deltasync/staging");
    let staged = || std::fs::read_dir(&staging).expect("there").count();
    until(|| !stuck.held.lock().expect("no panic").is_empty()).await;
    assert_eq!(staged(), 1);
    server.task.abort();
    let error = client.end().await.expect_err("the server is gone");
    assert!(matches!(error, DriveError::Session(SessionError::ConnectionLost { .. }) | DriveError::Io(_)), "{error}");
    let outcomes = client.outcomes();
    assert!(matches!(outcomes[..], [(1, Err(TransferError::ConnectionLost(_)))]), "{outcomes:?}");
    until(|| staged() == 0).await;
    assert_eq!(std::fs::read(directory.path().join("file")).expect("there"), b"old");
    // Answers that come after all are dropped.
    stuck.held.lock().expect("no panic").clear();
}

/// A stream that fails after so many bytes in one direction.
struct Failing {
    stream: DuplexStream,
    reads: Option<usize>,
    writes: Option<usize>,
}

/// How many of `len` bytes may still pass.
fn allowed(budget: Option<usize>, len: usize) -> io::Result<usize> {
    match budget {
        Some(0) => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the test cut the line")),
        budget => Ok(len.min(budget.unwrap_or(len))),
    }
}

impl AsyncRead for Failing {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut bytes = vec![0; allowed(self.reads, buf.remaining().min(512))?];
        let mut part = ReadBuf::new(&mut bytes);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        self.reads = self.reads.map(|left| left - part.filled().len());
        buf.put_slice(part.filled());
        polled
    }
}

impl AsyncWrite for Failing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let len = allowed(self.writes, bytes.len())?;
        let polled = Pin::new(&mut self.stream).poll_write(cx, &bytes[..len]);
        if let Poll::Ready(Ok(written)) = polled {
            self.writes = self.writes.map(|left| left - written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn check_cut(cut: usize, reading: bool) {
    let ours = memory(&[("up", &noise(400_000, 1)), ("down", b"old")]);
    let theirs = memory(&[("up", b"old"), ("down", &noise(400_000, 2))]);
    let (here, there) = duplex(1 << 14);
    let (reads, writes) = if reading { (Some(cut), None) } else { (None, Some(cut)) };
    let session = Session::client(Config::default(), entropy().expect("randomness"));
    let storage = Arc::new(Threads::new(ours.clone(), 4));
    let stream = Failing { stream: here, reads, writes };
    let mut client = End::start_with(session, stream, storage, &[push("up"), pull("down")]);
    let mut server = End::server(there, &theirs);
    let error = client.end().await.expect_err("the line breaks");
    let DriveError::Io(cause) = error else { panic!("cut at {cut}: {error}") };
    assert_eq!(cause.kind(), io::ErrorKind::ConnectionReset);
    let outcomes = client.outcomes();
    // Where the line breaks at once, they may never have begun; later the push may have gone well before it broke.
    assert!(outcomes.len() == 2 || cut < 1_000, "cut at {cut}: {outcomes:?}");
    let pushed = outcomes.iter().any(|(transfer, outcome)| *transfer == 1 && outcome.is_ok());
    assert!(outcomes.iter().all(|(transfer, outcome)| *transfer == 1 || outcome.is_err()), "cut at {cut}");
    // The other end sees the end of the stream, at which it may have nothing to do.
    let _ = server.end().await;
    // A push may also be done and its answer lost; there is nothing between the old file and the new one.
    let up = content(&theirs, "up").expect("it is always there");
    let new = reading && up == noise(400_000, 1);
    assert!(new || !pushed && up == b"old", "cut at {cut}: {} bytes", up.len());
    assert_eq!(content(&ours, "down").expect("it is always there").len(), 3, "cut at {cut}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_whose_reading_breaks_ends_every_transfer_and_keeps_the_old_files() {
    for cut in [0, 1, 20, 100, 1_000, 30_000, 100_000] {
        check_cut(cut, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_whose_writing_breaks_ends_every_transfer_and_keeps_the_old_files() {
    for cut in [0, 1, 20, 100] {
        check_cut(cut, false).await;
    }
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up_in_time() {
    let config = Config::default().handshake(Duration::from_millis(50));
    let (_here, there) = duplex(1 << 16);
    let session = Session::server(config, entropy().expect("randomness"));
    let mut server = End::start(session, there, Arc::new(Threads::new(memory(&[]), 4)));
    let error = server.end().await.expect_err("nobody speaks");
    assert!(matches!(error, DriveError::Session(SessionError::TimedOut { .. })), "{error}");
}

#[tokio::test]
async fn a_peer_that_takes_nothing_does_not_hold_the_end_up() {
    // There is not even room for the closing frame.
    let config = Config::default().handshake(Duration::from_millis(50));
    let (_here, there) = duplex(1);
    let session = Session::client(config, entropy().expect("randomness"));
    let start = Instant::now();
    let mut client = End::start(session, there, Arc::new(Threads::new(memory(&[]), 4)));
    client.end().await.expect_err("nobody speaks");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn what_was_carried_is_reported_as_it_changes_but_not_too_often() {
    let (ours, theirs) = (memory(&[("file", &noise(8 << 20, 1))]), memory(&[]));
    let (here, there) = duplex(1 << 12);
    let (mut client, mut server) = (End::client(here, &ours), End::server(there, &theirs));
    let start = Instant::now();
    client.command(1, push("file"));
    until(|| !client.outcomes().is_empty()).await;
    client.finish();
    client.end().await.expect("a good end");
    server.end().await.expect("a good end");
    let told = client.reports().iter().filter(|report| matches!(report, Report::Stats(_))).count() as u128;
    assert!((2..=start.elapsed().as_millis() / 100 + 2).contains(&told), "{told} times in {:?}", start.elapsed());
}

#[tokio::test]
async fn a_mistake_of_the_embedder_is_told_as_one() {
    let (_here, there) = duplex(1 << 16);
    let mut server = End::server(there, &memory(&[]));
    server.command(1, push("file"));
    let error = server.end().await.expect_err("a server starts no transfers");
    assert!(matches!(error, DriveError::Misuse(_)), "{error}");
}

/// Counts what it is asked and what it answers.
struct Counting {
    inner: Threads,
    asked: AtomicUsize,
    answered: Arc<AtomicUsize>,
}

impl Storage for Counting {
    fn submit(&self, ask: Ask, reply: Reply) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answered = Arc::clone(&self.answered);
        let counted = Reply::new(move |answer| {
            answered.fetch_add(1, Ordering::SeqCst);
            reply.send(answer);
        });
        self.inner.submit(ask, counted);
    }
}

#[tokio::test]
async fn a_storage_of_the_embedders_own_is_asked_and_answers() {
    let (ours, theirs) = (memory(&[]), memory(&[("file", b"content")]));
    let inner = Threads::new(theirs, 4);
    let counting = Arc::new(Counting { inner, asked: AtomicUsize::new(0), answered: Arc::default() });
    let (here, there) = duplex(1 << 16);
    let session = Session::server(Config::default(), entropy().expect("randomness"));
    let (mut client, mut server) = (End::client(here, &ours), End::start(session, there, counting.clone()));
    client.command(1, pull("file"));
    client.finish();
    client.end().await.expect("a good end");
    server.end().await.expect("a good end");
    let asked = counting.asked.load(Ordering::SeqCst);
    assert!(asked > 0 && asked == counting.answered.load(Ordering::SeqCst), "{asked} asked");
    assert_eq!(content(&ours, "file").as_deref(), Some(&b"content"[..]));
}
