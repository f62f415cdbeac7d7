//! Transfers of real files that are cut, and go on: what the second one sends.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deltasync_core::{Algorithm, ByteLen, Limits, Name, Op, Ops, Planner, RelPath};
use deltasync_io::{BlockingStorage, Control, LocalOptions, LocalStorage, Report, Threads, drive, entropy};
use deltasync_proto::{
    Answer, Ask, Command, Condition, Config, Destination, Event, EventKind, Outcome, Place, RootId, Session,
    TransferError, TransferId,
};
use deltasync_testkit::Rng;
use tempfile::TempDir;
use tokio::io::duplex;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Far more than any of these takes.
const PATIENCE: Duration = Duration::from_secs(120);

const LEN: usize = 32 << 20;

/// Two directories, one of them served.
struct Ends {
    client: TempDir,
    server: TempDir,
}

/// What is to be moved: the client's `file` to the server, or the server's to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Push,
    Pull,
}

/// How a transfer ended, and how many bytes its wire carried both ways; `None` when it was cut.
type Ended = Option<(Result<Outcome, TransferError>, u64)>;

impl Ends {
    fn new() -> Self {
        let directory = || TempDir::new().expect("a temporary directory");
        Self { client: directory(), server: directory() }
    }

    fn source(&self, way: Way) -> &TempDir {
        if way == Way::Push { &self.client } else { &self.server }
    }

    fn target(&self, way: Way) -> &TempDir {
        if way == Way::Push { &self.server } else { &self.client }
    }

    /// One connection with processes of its own at both ends; both are gone once the receiver has made `cut` bytes.
    async fn run(&self, way: Way, cut: Option<u64>) -> Ended {
        let place = Place { root: RootId::new(0), path: RelPath::new(*b"file").expect("a path") };
        let name = Name::new(*b"file").expect("a name");
        let (path, condition) = (place.path.clone(), Condition::Any);
        let command = match way {
            Way::Push => Command::Push { source: place, path, name, directory: false, condition },
            Way::Pull => {
                let destination = Destination { place, name, directory: false };
                Command::Pull { path, destination, condition }
            }
        };
        let options = LocalOptions::default();
        let server = LocalStorage::serve(self.server.path(), options.clone()).expect("served");
        let client = LocalStorage::roots(vec![self.client.path().to_owned()], options).expect("opened");
        let storages = [Arc::new(client), Arc::new(server)];
        let entropy = || entropy().expect("the system has randomness");
        let sessions = [Session::client(Config::default(), entropy()), Session::server(Config::default(), entropy())];
        let (near, far) = duplex(64 << 10);
        let made = Arc::new(Mutex::new(0));
        let ended = Arc::new(Mutex::new(None));
        let gone = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        let mut controls = Vec::new();
        for ((session, stream), (storage, is_client)) in
            sessions.into_iter().zip([near, far]).zip(storages.iter().zip([true, false]))
        {
            let (control, commands) = unbounded_channel();
            controls.push(control);
            let receives = is_client == (way == Way::Pull);
            let (made, ended, gone) = (Arc::clone(&made), Arc::clone(&ended), Arc::clone(&gone));
            let report = move |report| match report {
                Report::Event(Event { kind: EventKind::Progress(progress), .. }) if receives => {
                    let so_far = progress.copied.get() + progress.literal.get();
                    *made.lock().expect("no panic") = so_far;
                    // It makes no more while it is being cut.
                    while cut.is_some_and(|cut| so_far >= cut) && !gone.load(Ordering::Acquire) {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }
                Report::Event(Event { kind: EventKind::Ended(outcome), .. }) if is_client => {
                    *ended.lock().expect("no panic") = Some(outcome);
                }
                _ => {}
            };
            let threads = Arc::new(Threads::new(Arc::clone(storage), 4));
            tasks.push(tokio::spawn(drive(session, stream, threads, commands, report)));
        }
        controls[0].send(Control::Command { transfer: TransferId::new(1), command }).expect("the client runs");
        let start = Instant::now();
        let outcome = loop {
            if let Some(outcome) = ended.lock().expect("no panic").take() {
                break Some(outcome);
            }
            if cut.is_some_and(|cut| *made.lock().expect("no panic") >= cut) {
                break None;
            }
            assert!(start.elapsed() < PATIENCE, "{way:?}: {} bytes were made", made.lock().expect("no panic"));
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let ended = match outcome {
            Some(outcome) => {
                controls[0].send(Control::Finish).expect("the client runs");
                let stats =
                    timeout(PATIENCE, tasks.remove(0)).await.expect("in time").expect("no panic").expect("well");
                Some((outcome, stats.wire_sent + stats.wire_received))
            }
            None => None,
        };
        tasks.iter().for_each(JoinHandle::abort);
        gone.store(true, Ordering::Release);
        for task in tasks {
            let _ = task.await;
        }
        // What still runs on the threads holds its storage.
        while storages.iter().any(|storage| Arc::strong_count(storage) > 1) {
            assert!(start.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ended
    }
}

/// A transfer is cut at four fifths, the next one sends less than a quarter, and one more sends next to nothing.
async fn check_goes_on(way: Way, old: Option<&[u8]>) {
    let ends = Ends::new();
    let content = Rng::new(1).bytes(LEN);
    fs::write(ends.source(way).path().join("file"), &content).expect("written");
    if let Some(old) = old {
        fs::write(ends.target(way).path().join("file"), old).expect("written");
    }
    assert!(ends.run(way, Some(LEN as u64 / 5 * 4)).await.is_none(), "it is cut");
    let there = fs::read(ends.target(way).path().join("file")).ok();
    assert!(there.as_deref() == old, "the old file stays");

    let (outcome, wire) = ends.run(way, None).await.expect("it ends");
    let outcome = outcome.expect("it goes well");
    println!("{way:?}, {} bytes before: {wire} bytes the second time", old.map_or(0, <[u8]>::len));
    assert!(fs::read(ends.target(way).path().join("file")).expect("there") == content);
    assert!(wire < LEN as u64 / 4, "{wire} bytes, {outcome:?}");
    assert!(outcome.progress.literal.get() > LEN as u64 / 10, "{outcome:?}");

    let (outcome, wire) = ends.run(way, None).await.expect("it ends");
    assert!(outcome.is_ok() && wire < 4096, "{wire} bytes, {outcome:?}");
    let left = |directory: std::path::PathBuf| fs::read_dir(directory).expect("there").count();
    assert_eq!(left(ends.client.path().to_owned()), 1);
    assert_eq!(left(ends.server.path().join(".deltasync/staging")), 0);
}

/// A pull that was cut just before its commit has all of the target, and says so; the server has nothing to send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_has_everything_but_the_commit_goes_on() {
    let ends = Ends::new();
    let content = Rng::new(3).bytes(1 << 20);
    fs::write(ends.server.path().join("file"), &content).expect("written");
    let client = LocalStorage::roots(vec![ends.client.path().to_owned()], LocalOptions::default()).expect("opened");
    let (len, algorithm) = (ByteLen::of(&content), Algorithm::Blake3);
    let place = Place { root: RootId::new(0), path: RelPath::new(*b"file").expect("a path") };
    let root = algorithm.digest(&content);
    let staged = client.answer(Ask::Stage { place, len, algorithm, root });
    let Ok(Answer::Staged(stage)) = staged else { panic!("{staged:?}") };
    let ops: Ops = [Op::Literal { len }].into_iter().collect();
    let mut planner = Planner::new(ByteLen::ZERO, len, &Limits::default()).expect("within the limits");
    let plan = planner.plan(&ops, len).expect("it fits");
    let applied = client.answer(Ask::Apply { stage, basis: None, plan, literals: content.clone().into() });
    assert!(matches!(applied, Ok(Answer::Applied)), "{applied:?}");

    let (outcome, wire) = ends.run(Way::Pull, None).await.expect("it ends");
    let outcome = outcome.expect("it goes well");
    assert!(fs::read(ends.client.path().join("file")).expect("there") == content);
    assert!(wire < 8192 && outcome.progress.literal == ByteLen::ZERO, "{wire} bytes, {outcome:?}");
    assert_eq!(fs::read_dir(ends.client.path()).expect("there").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_goes_on() {
    check_goes_on(Way::Push, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_over_another_file_goes_on() {
    check_goes_on(Way::Push, Some(&Rng::new(2).bytes(3 << 20))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_goes_on() {
    check_goes_on(Way::Pull, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_over_another_file_goes_on() {
    check_goes_on(Way::Pull, Some(&Rng::new(2).bytes(3 << 20))).await;
}
