//! Connections of limited bandwidth, in virtual time: no second carries more than the rate, and nobody is given up for it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use deltasync_core::{Name, RelPath};
use deltasync_io::{Bandwidth, BlockingStorage, Control, MemoryStorage, Reply, Report, Storage, drive, entropy};
use deltasync_proto::{
    Ask, Command, Condition, Config, Destination, Event, EventKind, Place, RootId, Session, TransferId,
};
use deltasync_testkit::Rng;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::Mutex;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;

/// What the systems between two ends may hold, each way.
const BETWEEN: usize = 4 << 20;

/// Answers at once, so that time stands still meanwhile.
struct Inline(MemoryStorage);

impl Storage for Inline {
    fn submit(&self, ask: Ask, reply: Reply) {
        reply.send(self.0.answer(ask));
    }
}

/// When how many bytes have moved, both ways.
type Moves = Arc<std::sync::Mutex<Vec<(Instant, usize)>>>;

/// Notes what moves.
struct Metered(DuplexStream, Moves);

impl Metered {
    fn note(&self, len: usize) {
        self.1.lock().expect("no panic").push((Instant::now(), len));
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        self.note(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let len = ready!(Pin::new(&mut self.0).poll_write(cx, buf))?;
        self.note(len);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn place(number: usize) -> Place {
    Place { root: RootId::new(0), path: RelPath::new(format!("file{number}")).expect("a valid path") }
}

fn command(pushing: bool, number: usize) -> Command {
    let (at, name) = (place(number), Name::new("file").expect("a valid name"));
    let (path, condition) = (at.path.clone(), Condition::Any);
    if pushing {
        return Command::Push { source: at, path, name, directory: false, condition };
    }
    Command::Pull { path, destination: Destination { place: at, name, directory: false }, condition }
}

/// Jobs of all sessions in a process share their places, and virtual time does not stand still while one waits for a place
/// that another test has.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Moves so many files of so many bytes that compress to nothing at a rate; the answer is how long it took.
async fn check_moves_at(bandwidth: Bandwidth, pushing: bool, files: usize, len: usize) -> Duration {
    let [ours, theirs] = [(); 2].map(|()| Arc::new(Inline(MemoryStorage::new())));
    let from = if pushing { &ours } else { &theirs };
    let content = |number: usize| Rng::new(number as u64 + 1).bytes(len);
    (0..files).for_each(|number| from.0.insert(RootId::new(0), place(number).path, content(number)));
    let (near, far) = duplex(BETWEEN);
    let moves = Moves::default();
    let entropy = || entropy().expect("the system has randomness");
    let (open, no_controls) = unbounded_channel();
    let served = drive(Session::server(Config::default(), entropy()), far, theirs.clone(), no_controls, |_| {});
    let server = tokio::spawn(served);
    let (controls, received) = unbounded_channel();
    controls.send(Control::Limit(Some(bandwidth))).expect("we hold the receiver");
    for (transfer, number) in (1..).map(TransferId::new).zip(0..files) {
        let command = command(pushing, number);
        controls.send(Control::Command { transfer, command }).expect("we hold the receiver");
    }
    drop(controls);
    let ended = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&ended);
    let report = move |report| {
        if let Report::Event(Event { kind: EventKind::Ended(result), .. }) = report {
            seen.lock().expect("no panic").push(result);
        }
    };
    let session = Session::client(Config::default().transfers(bandwidth.transfers()), entropy());
    let begun = Instant::now();
    let stats =
        drive(session, Metered(near, moves.clone()), ours.clone(), received, report).await.expect("it goes well");
    let took = begun.elapsed();
    drop(open);
    server.await.expect("no panic").expect("it goes well");

    let ended = std::mem::take(&mut *ended.lock().expect("no panic"));
    assert!(ended.len() == files && ended.iter().all(Result::is_ok), "{ended:?}");
    let to = if pushing { &theirs } else { &ours };
    for number in 0..files {
        let is = to.0.get(RootId::new(0), &place(number).path);
        assert!(is.is_some_and(|is| is == content(number)), "file {number}");
    }
    let moves = moves.lock().expect("no panic");
    let wire = stats.wire_sent + stats.wire_received;
    assert_eq!(moves.iter().map(|(_, len)| *len as u64).sum::<u64>(), wire);
    let (mut first, mut within, mut most) = (0, 0, 0);
    for (at, len) in &*moves {
        within += len;
        while *at >= moves[first].0 + Duration::from_secs(1) {
            within -= moves[first].1;
            first += 1;
        }
        most = most.max(within);
    }
    // The hello leaves before there is a limit.
    assert!(most as u64 <= bandwidth.bytes() + 500, "{most} bytes in a second at {bandwidth}");
    let least = Duration::from_secs_f64(wire as f64 / bandwidth.bytes() as f64);
    assert!(took >= least - Duration::from_millis(100), "{took:?} for {wire} bytes at {bandwidth}");
    took
}

#[tokio::test(start_paused = true)]
async fn a_push_and_a_pull_keep_to_the_rate() {
    let _alone = ALONE.lock().await;
    for pushing in [true, false] {
        let bandwidth = Bandwidth::new(1 << 20).expect("enough");
        let took = check_moves_at(bandwidth, pushing, 3, 3_000_000).await;
        assert!(took < Duration::from_secs(11), "{took:?} for 9 MB at 1 MiB/s, pushing {pushing}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_least_rate_nobody_is_given_up() {
    let _alone = ALONE.lock().await;
    for pushing in [true, false] {
        let took = check_moves_at(Bandwidth::LEAST, pushing, 4, 2_000_000).await;
        assert!(took < Duration::from_secs(320), "{took:?} for 8 MB at 32 KiB/s, pushing {pushing}");
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_transfers_run_as_the_rate_allows_and_nobody_is_given_up() {
    let _alone = ALONE.lock().await;
    for pushing in [true, false] {
        let bandwidth = Bandwidth::new(8 * (32 << 10)).expect("enough");
        check_moves_at(bandwidth, pushing, 20, 1_500_000).await;
    }
}
