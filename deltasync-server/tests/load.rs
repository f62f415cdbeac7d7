//! Many clients at once against the real program: those that work, those that wait, and those that want to be in the way.
//!
//! All connections come from this machine, by addresses of 127.0.0.0/8, and the server holds loopback to its limits by
//! address. What the machine can do is measured in the same run, so that only ratios count.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deltasync_core::{Limits, Name, RelPath};
use deltasync_io::{Control, MemoryStorage, Report, Threads, drive, entropy};
use deltasync_proto::{
    Command, Condition, Config, Event, EventKind, FrameDecoder, Hello, Message, Place, RootId, Session, TransferId,
    VERSION,
};
use deltasync_server::raise_descriptors;
use deltasync_testkit::Rng;
use support::{Server, get};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

const ACTIVE: u32 = 256;
const IDLE: u32 = 5000;
const SLOW: u32 = 2000;
/// The bytes of each active client's file.
const FILE: usize = 1 << 20;
/// How long pushes are counted.
const WINDOW: Duration = Duration::from_secs(8);
/// The server's deadlines, in seconds.
const HANDSHAKE: u64 = 10;
const IDLE_TIMEOUT: u64 = 40;
/// How late a deadline may be kept on a busy machine, in seconds.
const LATE: u64 = 6;
/// The most that an idle connection may take of the server's memory, in bytes.
const IDLE_MEMORY: u64 = 32 << 10;
/// The most that the server may take in all, in bytes: what all that wait may take, and of each active client its whole
/// file twice, as it comes and on its way to the disk. That many are in flight at once when the machine is slow: without
/// optimisation 340 to 600 MiB were measured, less the faster they end.
const MEMORY: u64 = (IDLE + SLOW) as u64 * IDLE_MEMORY + ACTIVE as u64 * 2 * FILE as u64;

/// Connects from an address of its own for each 60 connections of a kind.
async fn connect(server: SocketAddr, kind: u8, number: u32) -> TcpStream {
    let group = number / 60;
    let from = Ipv4Addr::new(127, kind, (group / 200) as u8, (group % 200) as u8 + 1);
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((from, 0))).expect("loopback is a whole network");
    socket.connect(server).await.expect("it listens")
}

fn hello() -> Vec<u8> {
    Message::Hello(Hello::ours(VERSION, [7; 16])).encode().head
}

/// Pushes of its own file, again and again, each time with a few bytes changed, until it is told to stop.
async fn work(server: SocketAddr, number: u32, threads: Arc<Threads>, files: Arc<MemoryStorage>, shared: Arc<Shared>) {
    let path = RelPath::new(format!("file{number}").as_bytes()).expect("a plain name");
    let place = Place { root: RootId::new(1), path: path.clone() };
    let mut rng = Rng::new(number.into());
    let mut bytes = rng.bytes(FILE);
    let stream = connect(server, 1, number).await;
    let (controls, steered) = mpsc::unbounded_channel();
    let (sender, mut ended) = mpsc::unbounded_channel();
    let report = move |report| {
        if let Report::Event(Event { kind: EventKind::Ended(result), .. }) = report {
            let _ = sender.send(result.map(drop));
        }
    };
    let session = Session::client(Config::default(), entropy().expect("the system has some"));
    let driven = tokio::spawn(drive(session, stream, threads, steered, report));
    for round in 1.. {
        if shared.stop.load(Ordering::Acquire) {
            break;
        }
        for _ in 0..3 {
            let at = rng.bytes(4).iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte)) % (FILE - 64);
            bytes[at..at + 64].copy_from_slice(&rng.bytes(64));
        }
        files.insert(place.root, path.clone(), bytes.clone());
        let command = Command::Push {
            source: place.clone(),
            path: path.clone(),
            name: Name::new(*b"unused").expect("a name"),
            directory: false,
            condition: Condition::Any,
        };
        controls.send(Control::Command { transfer: TransferId::new(round), command }).expect("it runs");
        match ended.recv().await {
            Some(Ok(())) => drop(shared.pushed.fetch_add(1, Ordering::AcqRel)),
            other => {
                shared.failed.fetch_add(1, Ordering::AcqRel);
                eprintln!("active client {number}: {other:?}");
                break;
            }
        }
        if round == 1 {
            shared.ready.fetch_add(1, Ordering::AcqRel);
        }
    }
    drop(controls);
    driven.await.expect("no panic").expect("an honest client is never dropped");
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    ready: AtomicUsize,
    pushed: AtomicU64,
    failed: AtomicU64,
}

/// How many pushes there are in a second.
async fn rate(shared: &Shared) -> f64 {
    let (before, begin) = (shared.pushed.load(Ordering::Acquire), Instant::now());
    tokio::time::sleep(WINDOW).await;
    (shared.pushed.load(Ordering::Acquire) - before) as f64 / begin.elapsed().as_secs_f64()
}

/// Says hello and answers pings, nothing else: returns how long it lasted since its hello, and what it was told.
async fn idle(server: SocketAddr, number: u32, places: Arc<Semaphore>, open: Arc<AtomicUsize>) -> (Duration, String) {
    let place = places.acquire_owned().await.expect("never closed");
    let mut stream = connect(server, 2, number).await;
    stream.write_all(&hello()).await.expect("it reads");
    let begin = Instant::now();
    let mut decoder = FrameDecoder::new(1 << 16);
    let mut place = Some(place);
    let mut buffer = [0; 256];
    loop {
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return (begin.elapsed(), "closed without a word".to_owned());
        }
        decoder.push(&buffer[..read]);
        while let Some(frame) = decoder.next_frame().expect("the server's frames are sound") {
            match Message::decode(&frame, &Limits::default()).expect("the server's messages are sound") {
                Message::Hello(_) => {
                    drop(place.take());
                    open.fetch_add(1, Ordering::AcqRel);
                }
                Message::Ping => stream.write_all(&Message::Pong.encode().head).await.expect("it reads"),
                Message::Close(close) => return (begin.elapsed(), format!("{:?}: {}", close.code, close.message)),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Sends a byte of a hello now and then, never the whole: returns how long it lasted and what it was told.
async fn slow(server: SocketAddr, number: u32, places: Arc<Semaphore>) -> (Duration, String) {
    let place = places.acquire_owned().await.expect("never closed");
    let stream = connect(server, 3, number).await;
    drop(place);
    let begin = Instant::now();
    let (mut read, mut write) = stream.into_split();
    let trickle = tokio::spawn(async move {
        for byte in hello().into_iter().take(20) {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
    });
    let mut bytes = Vec::new();
    let ended = read.read_to_end(&mut bytes).await;
    let lasted = begin.elapsed();
    trickle.abort();
    let mut decoder = FrameDecoder::new(1 << 16);
    decoder.push(&bytes);
    let told = match decoder.next_frame() {
        Ok(Some(frame)) => format!("{:?}", Message::decode(&frame, &Limits::default())),
        other => format!("{other:?}, {ended:?}"),
    };
    (lasted, told)
}

#[test]
#[ignore = "takes a minute and 7,500 descriptors: run .ci/run"]
fn honest_clients_keep_half_of_their_speed_among_thousands_that_wait_or_are_in_the_way() {
    assert!(raise_descriptors().is_none_or(|most| most > 8000), "too few descriptors for this test");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime starts").block_on(load());
}

async fn load() {
    let (handshake, idle_timeout) = (HANDSHAKE.to_string(), IDLE_TIMEOUT.to_string());
    let server = Server::start_logging(
        "error",
        &["--limit-loopback", "--handshake-timeout", &handshake, "--idle-timeout", &idle_timeout, "--history", "0"],
    );
    let at = server.clients;
    let files = Arc::new(MemoryStorage::new());
    let threads = Arc::new(Threads::new(files.clone(), Threads::FEWEST));
    let shared = Arc::new(Shared::default());
    let mut active = JoinSet::new();
    for number in 0..ACTIVE {
        active.spawn(work(at, number, threads.clone(), files.clone(), shared.clone()));
    }
    let begin = Instant::now();
    while shared.ready.load(Ordering::Acquire) < ACTIVE as usize {
        assert!(
            begin.elapsed() < Duration::from_secs(40),
            "{} of {ACTIVE} are ready",
            shared.ready.load(Ordering::Acquire)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ready = begin.elapsed();
    let alone = rate(&shared).await;

    let before = server.memory("VmRSS");
    let (places, open) = (Arc::new(Semaphore::new(200)), Arc::new(AtomicUsize::new(0)));
    let (mut idlers, mut slowpokes) = (JoinSet::new(), JoinSet::new());
    let opening = Instant::now();
    for number in 0..IDLE {
        idlers.spawn(idle(at, number, places.clone(), open.clone()));
    }
    while open.load(Ordering::Acquire) < IDLE as usize {
        assert!(opening.elapsed() < Duration::from_secs(20), "{} of {IDLE} are open", open.load(Ordering::Acquire));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let opened = opening.elapsed();
    let each = server.memory("VmRSS").saturating_sub(before) / u64::from(IDLE);
    for number in 0..SLOW {
        slowpokes.spawn(slow(at, number, places.clone()));
    }
    let loaded = rate(&shared).await;
    assert!(idlers.try_join_next().is_none(), "an idle connection was dropped before its time");

    let mut slowest = Duration::ZERO;
    while let Some(result) = slowpokes.join_next().await {
        let (lasted, told) = result.expect("no panic");
        assert!(told.contains("TimedOut") && told.contains("no hello from the peer within"), "{told}");
        let range = Duration::from_millis(1000 * HANDSHAKE - 500)..Duration::from_secs(HANDSHAKE + LATE);
        assert!(range.contains(&lasted), "a slow connection lasted {lasted:?}");
        slowest = slowest.max(lasted);
    }
    // Again without those, in case the machine was busier at first.
    let after = rate(&shared).await;
    shared.stop.store(true, Ordering::Release);
    while let Some(result) = active.join_next().await {
        result.expect("no panic");
    }
    let mut longest = Duration::ZERO;
    while let Some(result) = idlers.join_next().await {
        let (lasted, told) = result.expect("no panic");
        assert!(told.starts_with("TimedOut: no transfer from the peer within"), "{told}");
        let range = Duration::from_millis(1000 * IDLE_TIMEOUT - 500)..Duration::from_secs(IDLE_TIMEOUT + 2 * LATE);
        assert!(range.contains(&lasted), "an idle connection lasted {lasted:?}");
        longest = longest.max(lasted);
    }
    let most = server.memory("VmHWM");
    let metrics = tokio::task::spawn_blocking({
        let dashboard = server.dashboard.expect("it has one");
        move || {
            std::thread::sleep(Duration::from_millis(1500));
            get(dashboard, "/metrics").body
        }
    });
    let metrics = metrics.await.expect("no panic");
    println!(
        "ready after {ready:.1?}; {alone:.0} pushes/s alone, {loaded:.0} among {IDLE} idle and {SLOW} slow connections, \
         {after:.0} among the idle ones; {IDLE} opened in {opened:.1?}, {} KiB each; slow ones lasted at most {slowest:.1?}, \
         idle ones {longest:.1?}; the server had at most {} MiB",
        each >> 10,
        most >> 20,
    );
    assert_eq!(shared.failed.load(Ordering::Acquire), 0);
    assert!(loaded >= alone.min(2.0 * after) / 2.0, "{loaded:.0} of {alone:.0} pushes a second");
    assert!(each <= IDLE_MEMORY, "{each} bytes for an idle connection");
    assert!(most <= MEMORY, "{most} bytes");
    let timed_out = format!("deltasync_sessions_timed_out_total {}", IDLE + SLOW);
    assert!(metrics.lines().any(|line| line == timed_out), "{timed_out} in\n{metrics}");
}
