//! Connections that are cut, refused, late or silent: what was to be done is done in the end, or it is said why not.

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{Scratch, Server, command, deltasync, noise};
use deltasync_client::{ExitStatus, Options, Place, Retries, Retry, Summary, Update, pull, push, verify};
use deltasync_io::{BlockingStorage, LocalStorage};
use deltasync_proto::{Answer, Ask, Config, EventKind, StorageFault};
use deltasync_server::{ServerConfig, ServerLimits};
use deltasync_testkit::{Cut, CuttingRelay, Direction, Relay};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// As the program, but without the patience that people have.
fn quick(most: u32) -> Options {
    let (first, longest) = (Duration::from_millis(10), Duration::from_millis(100));
    Options::default().retries(Retries { most, first, longest })
}

fn place(address: SocketAddr, path: &str) -> Place {
    Place::parse(format!("deltasync://{address}/{path}").as_ref()).expect("a place")
}

/// What a verb came to, and what it told.
#[derive(Debug)]
struct Story {
    summary: Summary,
    retries: Vec<Retry>,
    ends: usize,
}

fn tell<T>(verb: impl AsyncFnOnce(&mut dyn FnMut(Update)) -> T) -> (T, Vec<Retry>, usize) {
    let (mut retries, mut ends) = (Vec::new(), 0);
    let result = Runtime::new().expect("threads to be had").block_on(verb(&mut |update| match update {
        Update::Retrying(retry) => retries.push(retry),
        Update::File { kind: EventKind::Ended(_), .. } => ends += 1,
        _ => {}
    }));
    (result, retries, ends)
}

fn push_to(file: &Path, place: &Place, options: &Options) -> Story {
    let never = CancellationToken::new();
    let (summary, retries, ends) =
        tell(async |report| push(&[file.to_owned()], place, options, &never, report).await.expect("a sound call"));
    Story { summary, retries, ends }
}

fn pull_from(place: &Place, file: &Path, options: &Options) -> Story {
    let never = CancellationToken::new();
    let (summary, retries, ends) = tell(async |report| {
        pull(std::slice::from_ref(place), file, options, &never, report).await.expect("a sound call")
    });
    Story { summary, retries, ends }
}

/// Cuts a transfer at `points` points of either direction. `transfer` runs one under its number through an address, and
/// checks what came of it. Where nothing is cut it carries (up, down) bytes.
fn check_cuts(server: &Server, (up, down): (u64, u64), transfer: impl Fn(usize, SocketAddr) -> Story + Sync) {
    const POINTS: usize = 60;
    let next = AtomicUsize::new(0);
    let retried = AtomicUsize::new(0);
    // Each of them mostly waits.
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let point @ 0..POINTS = next.fetch_add(1, Ordering::SeqCst) {
                    // From the first byte to the last, in turn on the way up and on the way down.
                    let (direction, bytes) = if point % 2 == 0 { (Direction::Up, up) } else { (Direction::Down, down) };
                    let cut = Cut { direction, after: (bytes - 1) * (point as u64 / 2) / (POINTS as u64 / 2 - 1) };
                    let relay = CuttingRelay::start(server.address, [cut]).expect("a free port");
                    let story = transfer(point, relay.address());
                    assert_eq!(story.summary.status(), ExitStatus::Done, "{cut:?}: {story:?}");
                    assert_eq!(story.ends, 1, "{cut:?}: {story:?}");
                    assert_eq!(story.retries.len(), story.summary.retried as usize, "{cut:?}: {story:?}");
                    assert_eq!(relay.accepted(), 1 + story.retries.len(), "{cut:?}: {story:?}");
                    assert!(story.retries.len() <= relay.cut(), "{cut:?}: {story:?}");
                    retried.fetch_add(story.retries.len(), Ordering::SeqCst);
                }
            });
        }
    });
    // The last bytes of a connection are its end, with which nothing is lost.
    let retried = retried.into_inner();
    println!("{retried} of {POINTS} cuts needed a second connection; {up} and {down} bytes without one");
    assert!(retried >= POINTS * 9 / 10, "{retried} of {POINTS}");
}

#[test]
fn a_push_cut_anywhere_is_right_in_the_end() {
    let (server, dir) = (Server::start(), Scratch::new());
    let old = noise(1, 1 << 20);
    // Each has content of its own: what the server has under another name would not move.
    let new = |point: usize| [&old[..], &noise(2 + point as u64, 1 << 20)].concat();
    dir.write("whole", &new(1000));
    server.dir.write("whole", &old);
    push_to(&dir.join("whole"), &place(server.address, "whole"), &quick(0));
    let carried = server.carried();
    assert!(carried.0 > 1 << 20 && carried.0 < 3 << 19, "half of it moves: {carried:?}");
    check_cuts(&server, carried, |point, address| {
        let path = format!("file{point}");
        server.dir.write(&path, &old);
        dir.write(&path, &new(point));
        let story = push_to(&dir.join(&path), &place(address, &path), &quick(2));
        assert!(server.dir.read(&path) == new(point), "point {point}");
        story
    });
}

#[test]
fn a_pull_cut_anywhere_is_right_in_the_end() {
    let (server, dir) = (Server::start(), Scratch::new());
    let new = [&noise(1, 1 << 20)[..], &noise(2, 1 << 20)].concat();
    server.dir.write("file", &new);
    let old = &new[..1 << 20];
    dir.write("whole", old);
    pull_from(&place(server.address, "file"), &dir.join("whole"), &quick(0));
    let carried = server.carried();
    assert!(carried.1 > 1 << 20 && carried.1 < 3 << 19, "half of it moves: {carried:?}");
    check_cuts(&server, carried, |point, address| {
        let path = format!("file{point}");
        dir.write(&path, old);
        let story = pull_from(&place(address, "file"), &dir.join(&path), &quick(2));
        assert!(dir.read(&path) == new, "point {point}");
        story
    });
}

#[test]
fn a_connection_that_is_cut_again_and_again_carries_a_file_to_its_end() {
    let (server, dir) = (Server::start(), Scratch::new());
    server.dir.write("file", &noise(1, 2 << 20));
    // A try goes on where the one before was cut, by a piece of 256 KiB, if the machine has used it before the cut comes.
    let slow = Relay::start(server.address, Duration::ZERO, 1_000_000).expect("a free port");
    let cuts = [Cut { direction: Direction::Down, after: 350_000 }; 100];
    let relay = CuttingRelay::start(slow.address(), cuts).expect("a free port");
    let story = pull_from(&place(relay.address(), "file"), &dir.join("file"), &quick(3));
    let retries = story.retries.len();
    assert_eq!((story.summary.status(), relay.cut()), (ExitStatus::Done, retries), "{story:?}");
    // Cuts 350 kB behind each other leave five times something to do in 2 MiB: more than the tries in a row.
    assert!(retries >= 5, "{story:?}");
    assert!(dir.read("file") == noise(1, 2 << 20));
}

#[test]
fn a_connection_that_is_cut_at_the_same_byte_each_time_is_given_up() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.write("file", &noise(1, 2 << 20));
    let relay =
        CuttingRelay::start(server.address, [Cut { direction: Direction::Up, after: 20 }; 100]).expect("a free port");
    let place = place(relay.address(), "file");
    for most in [0, 3] {
        let before = relay.accepted();
        let story = push_to(&dir.join("file"), &place, &quick(most));
        assert_eq!(story.summary.status(), ExitStatus::Failed, "{story:?}");
        assert_eq!(relay.accepted() - before, 1 + most as usize);
        let numbers: Vec<_> = story.retries.iter().map(|retry| (retry.number, retry.of)).collect();
        assert_eq!(numbers, (1..=most).map(|number| (number, most)).collect::<Vec<_>>());
        assert_eq!((story.ends, story.summary.errors().count()), (1, 1), "said once: {story:?}");
        let why = story.retries.first().map_or("connection", |retry| &retry.why);
        assert!(why.starts_with("connection") && !why.contains('\n'), "{why}");
    }
    assert!(!server.dir.join("file").exists());
}

/// Looks at the basis of `file7` when seven other files are committed.
struct LargeLast {
    storage: LocalStorage,
    done: Mutex<usize>,
    more: Condvar,
}

impl BlockingStorage for LargeLast {
    fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
        let last = match &ask {
            Ask::Basis { destination, .. } => destination.name.as_bytes() == b"file7",
            _ => false,
        };
        let commit = matches!(ask, Ask::Commit { .. });
        if last {
            let done = self.done.lock().expect("no panic");
            drop(self.more.wait_while(done, |done| *done < 7).expect("no panic"));
        }
        let answer = self.storage.answer(ask);
        if commit {
            *self.done.lock().expect("no panic") += 1;
            self.more.notify_all();
        }
        answer
    }
}

#[test]
fn of_many_files_only_those_that_had_not_ended_are_asked_again() {
    let server = Server::with(ServerConfig::default(), |storage| LargeLast {
        storage,
        done: Mutex::default(),
        more: Condvar::new(),
    });
    let dir = Scratch::new();
    let names: Vec<String> = (0..8).map(|i| format!("file{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        dir.write(name, &noise(i as u64, if i == 7 { 4 << 20 } else { 1000 }));
    }
    let files: Vec<_> = names.iter().map(|name| dir.join(name)).collect();
    let cut = Cut { direction: Direction::Up, after: 3 << 20 };
    let relay = CuttingRelay::start(server.address, [cut]).expect("a free port");
    let (options, never, destination) = (quick(2), CancellationToken::new(), place(relay.address(), "all/"));
    let log = Mutex::new(Vec::new());
    let ((summary, ..), started) = {
        let told = tell(async |report| {
            let report = |update: Update| {
                if let Update::File { index, kind: EventKind::Started { .. } } = &update {
                    log.lock().expect("no panic").push(*index);
                }
                report(update);
            };
            push(&files, &destination, &options, &never, report).await.expect("a sound call")
        });
        (told, log.lock().expect("no panic").clone())
    };
    assert_eq!((summary.status(), summary.retried), (ExitStatus::Done, 1), "{summary:?}");
    let (first, again) = started.split_at(8);
    assert_eq!(first, [0, 1, 2, 3, 4, 5, 6, 7]);
    // The end of the last small one may just have been on its way.
    assert!(again.contains(&7) && again.len() <= 2, "{again:?}");
    names.iter().for_each(|name| assert!(server.dir.read(&format!("all/{name}")) == dir.read(name), "{name}"));
}

#[test]
fn listings_and_roots_are_asked_again() {
    let (server, dir) = (Server::start(), Scratch::new());
    server.dir.mkdir("many");
    (0..450).for_each(|i| server.dir.write(&format!("many/f{i:03}"), b"x"));
    server.dir.write("file", b"x");
    dir.write("file", b"x");
    let down = |after| Cut { direction: Direction::Down, after };
    let relay = CuttingRelay::start(server.address, [down(0), down(5000), down(100)]).expect("a free port");
    let url = format!("deltasync://{}/many", relay.address());
    let ran = deltasync(dir.path(), &["ls", &url]);
    assert_eq!((ran.code, relay.cut()), (Some(0), 3), "{ran:?}");
    let names: Vec<_> = ran.stdout.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(names, (0..450).map(|i| format!("f{i:03}")).collect::<Vec<_>>(), "each once");
    assert!(ran.stderr.contains("; trying again in 0."), "{ran:?}");

    let relay = CuttingRelay::start(server.address, [down(30), down(60)]).expect("a free port");
    let (place, never) = (place(relay.address(), "file"), CancellationToken::new());
    let (verified, retries, _) =
        tell(async |report| verify(&dir.join("file"), &place, &quick(2), &never, report).await);
    assert!(verified.expect("asked again").equal());
    assert_eq!((retries.len(), relay.accepted()), (2, 3));
}

#[test]
fn a_server_that_comes_three_seconds_late_is_waited_for() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.write("file", &noise(1, 100_000));
    let late = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let begun = Instant::now();
    let behind = server.address;
    let coming = thread::spawn(move || {
        thread::sleep(Duration::from_secs(3));
        let listener = TcpListener::bind(late).expect("still free");
        let (mut client, _) = listener.accept().expect("the program comes");
        let mut server = TcpStream::connect(behind).expect("the server listens");
        let (mut from, mut to) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
        let up = thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
        let _ = std::io::copy(&mut server, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Both);
        up.join().expect("it ends");
    });
    let ran = deltasync(dir.path(), &["push", "file", &format!("deltasync://{late}/"), "--retries=12", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(begun.elapsed() >= Duration::from_secs(3));
    coming.join().expect("it ends");
    assert_eq!(server.dir.read("file"), dir.read("file"));
    let tries: Vec<_> = ran.said().into_iter().filter(|line| line.contains("; trying again in ")).collect();
    assert_eq!(ran.json()["retries"], tries.len());
    // Of 0.25 s, 0.5 s and so on at least half is waited, so five bring it over 3 s at the latest, and two do not.
    assert!((3..=6).contains(&tries.len()), "{ran:?}");
    assert!(tries[0].starts_with(&format!("deltasync: cannot connect to {late}: Connection refused")), "{ran:?}");
    assert!(tries[0].ends_with("(1 of 12)") && tries[1].ends_with("(2 of 12)"), "{ran:?}");
}

/// Accepts every connection, says nothing, and keeps them until it is dropped.
struct Silent {
    address: SocketAddr,
    accepted: Arc<Mutex<Vec<TcpStream>>>,
    ending: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Silent {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (accepted, ending) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (streams, end) = (Arc::clone(&accepted), Arc::clone(&ending));
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                streams.lock().expect("no panic").push(stream);
            }
        });
        Self { address, accepted, ending, acceptor: Some(acceptor) }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        drop(self.acceptor.take().map(JoinHandle::join));
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up_after_the_handshake_deadline_of_each_try() {
    let silent = Silent::start();
    let dir = Scratch::new();
    dir.write("file", b"x");
    let options = quick(2).config(Config::default().handshake(Duration::from_millis(200)));
    let begun = Instant::now();
    let story = push_to(&dir.join("file"), &place(silent.address, "file"), &options);
    let took = begun.elapsed();
    assert_eq!((story.summary.status(), story.retries.len()), (ExitStatus::Failed, 2), "{story:?}");
    assert_eq!(silent.accepted.lock().expect("no panic").len(), 3);
    assert!(took >= Duration::from_millis(600) && took < Duration::from_secs(10), "{took:?}");
    assert!(story.retries[0].why.ends_with("no hello from the peer within 200ms"), "{story:?}");
}

#[test]
fn a_server_without_a_place_is_asked_again_until_it_has_one() {
    let mut limits = ServerLimits::default();
    limits.connections = 1;
    let server = Server::with(ServerConfig::default().limits(limits), |storage| storage);
    let dir = Scratch::new();
    // More than goes with an offer, so that no try gets any further.
    let target = noise(1, 100_000);
    dir.write("file", &target);
    // It takes the only place, once it has been let in.
    let mut guest = TcpStream::connect(server.address).expect("the server listens");
    server.dir.write("file", b"y");
    let refused = push_to(&dir.join("file"), &place(server.address, "file"), &quick(1));
    assert_eq!((refused.summary.status(), refused.retries.len()), (ExitStatus::Refused, 1), "{refused:?}");
    assert!(refused.retries[0].why.contains("all 1 connections of this server are taken"), "{refused:?}");
    assert_eq!(server.dir.read("file"), b"y");
    let leaving = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        guest.shutdown(std::net::Shutdown::Write).expect("still open");
        guest.read_to_end(&mut Vec::new()).expect("the server closes");
    });
    let story = push_to(&dir.join("file"), &place(server.address, "file"), &quick(1000));
    assert_eq!(story.summary.status(), ExitStatus::Done, "{story:?}");
    assert!(!story.retries.is_empty(), "{story:?}");
    assert_eq!(server.dir.read("file"), target);
    leaving.join().expect("it ends");
}

/// The program while it runs; ended with the test.
struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = command(dir);
        let mut child = command.args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, stderr }
    }

    /// The lines of its standard error up to one that has `text` in it.
    fn until(&mut self, text: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while !lines.last().is_some_and(|line| line.contains(text)) {
            let mut line = String::new();
            assert!(self.stderr.read_line(&mut line).expect("text") > 0, "{lines:?}");
            lines.push(line);
        }
        lines
    }

    /// Interrupts it, and tells its status and what it said from then on.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let kill = std::process::Command::new("sh").args(["-c", &format!("kill -INT {}", self.child.id())]).status();
        assert!(kill.expect("a shell").success());
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("our child").code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ctrl_c_ends_a_wait_at_once() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let dir = Scratch::new();
    dir.write("file", b"x");
    let url = format!("deltasync://{nobody}/");
    let mut running = Running::start(dir.path(), &["push", "file", &url, "--retries=9"]);
    // The sixth wait is 4 s at least.
    let lines = running.until("(6 of 9)");
    assert_eq!(lines.iter().filter(|line| line.contains("; trying again in ")).count(), 6, "{lines:?}");
    let begun = Instant::now();
    assert_eq!(running.interrupt(), (Some(130), "deltasync: interrupted\n".into()));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn without_a_terminal_a_line_says_what_it_waits_for() {
    let silent = Silent::start();
    let dir = Scratch::new();
    let begun = Instant::now();
    let mut running = Running::start(dir.path(), &["pull", &format!("deltasync://{}/x", silent.address), "file"]);
    let lines = running.until("waiting ");
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(
        line.starts_with("deltasync: waiting ")
            && line.ends_with(&format!(" s for the first word of {}\n", silent.address)),
        "{line}"
    );
    assert_eq!(running.interrupt().0, Some(130));
}

#[test]
fn a_quiet_run_says_nothing_but_how_it_ended() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let dir = Scratch::new();
    dir.write("file", b"x");
    let ran = deltasync(dir.path(), &["push", "-q", "file", &format!("deltasync://{nobody}/"), "--retries=2"]);
    let ran = ran.failed(3, "cannot connect");
    assert_eq!(ran.stderr.lines().count(), 2, "an error and its hint: {ran:?}");
}
