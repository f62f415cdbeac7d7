//! System calls that fail, or in which the server is killed: each that a push makes, one after the other, with each of
//! three errors. The push fails with the system's message or has truly succeeded; the file is the old one or the new
//! one, whole; a sync that failed is never followed by a `Done`; and the next push succeeds.
//!
//! `strace` attaches itself to the running server, so that the count begins with the push. It counts in each thread by
//! itself; a push alone is served by one storage thread. The count goes up until a push needs no more such calls.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deltasync_core::Algorithm;
use deltasync_proto::{Outcome, TransferError};
use tempfile::{NamedTempFile, TempDir};

use crate::client::{Client, path};
use crate::killed::check_staging;
use crate::served::{Served, command};

/// What a push may need.
const CALLS: [&str; 11] = [
    "fdatasync",
    "fsync",
    "renameat,renameat2,rename",
    "pwrite64",
    "openat",
    "openat2",
    "fallocate",
    "mkdirat",
    "linkat",
    "unlinkat",
    "ftruncate",
];

/// What is injected, what the system says then, and whether it is into the push of a new file.
const FAILURES: [(&str, &str, bool); 6] = [
    ("error=EIO", "Input/output error", false),
    ("error=EIO", "Input/output error", true),
    ("error=ENOSPC", "No space left on device", false),
    ("error=EACCES", "Permission denied", true),
    (KILL, "", false),
    (KILL, "", true),
];

const KILL: &str = "signal=SIGKILL";

/// More calls of a kind than a push makes.
const MOST: usize = 60;

/// `strace`, attached to a server.
struct Tracer {
    child: Child,
    log: NamedTempFile,
}

impl Tracer {
    /// Injects into the n-th of these calls of a process, from now on.
    fn attach(process: u32, calls: &str, what: &str, n: usize) -> Self {
        let log = NamedTempFile::new().expect("space for a log");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-p", &process.to_string(), "-o"]).arg(log.path());
        strace.args(["-e", &format!("trace={calls},fdatasync,fsync,renameat")]);
        strace.args(["-e", &format!("inject={calls}:{what}:when={n}")]);
        let mut child = strace.stderr(Stdio::piped()).spawn().expect("strace starts");
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().expect("it is piped")).read_line(&mut line).expect("it can be read");
        assert!(line.contains("attached"), "{line}");
        Self { child, log }
    }

    /// Lets the server go; returns the calls that were traced.
    fn detach(mut self) -> Vec<String> {
        let kill =
            Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).stderr(Stdio::null()).status();
        kill.expect("kill runs");
        // It may wait for ever for the threads of a process that was killed under it.
        let until = Instant::now() + Duration::from_secs(1);
        while self.child.try_wait().expect("it can be waited for").is_none() {
            if Instant::now() > until {
                self.child.kill().expect("it runs or has ended");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let log = fs::read(self.log.path()).expect("it is there");
        String::from_utf8_lossy(&log).lines().map(str::to_owned).collect()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Count {
    runs: usize,
    /// The push was refused, with the old file in place.
    refused: usize,
    /// It was refused for a sync after the rename, and said so.
    unsure: usize,
    done: usize,
    killed: usize,
    /// The server took the next push without a restart.
    went_on: usize,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants strace and root, and takes a minute"]
async fn every_system_call_of_a_push_fails_in_turn() {
    let mut bench = Bench::new();
    let mut table = String::new();
    for calls in CALLS {
        let mut count = Count::default();
        for (what, says, new) in FAILURES {
            for n in 1..MOST {
                if !bench.check(calls, what, says, n, new, &mut count).await {
                    break;
                }
            }
        }
        let Count { runs, refused, unsure, done, killed, went_on } = count;
        let row = format!(
            "{calls:<28} {runs:>4} runs: {refused:>3} refused, {unsure:>2} refused in place, {done:>3} done, {killed:>3} \
             killed"
        );
        println!("{row}");
        assert_eq!(
            went_on + killed,
            runs,
            "{calls}: after a failure the server took no push until it was started again"
        );
        table += &(row + "\n");
    }
    let hit = table.lines().filter(|line| !line.contains("   0 runs")).count();
    assert!(hit >= 9, "some calls are not made any more:\n{table}");
}

/// A directory that stays, and what should be in it.
struct Bench {
    directory: TempDir,
    content: BTreeMap<String, Vec<u8>>,
    version: u64,
}

impl Bench {
    fn new() -> Self {
        Self { directory: TempDir::new().expect("a directory"), content: BTreeMap::new(), version: 0 }
    }

    /// The next version of a file: the one before with an edit.
    fn next(&mut self, name: &str) -> Vec<u8> {
        self.version += 1;
        let mut bytes =
            self.content.get(name).cloned().unwrap_or_else(|| deltasync_testkit::Rng::new(7).bytes(700_000));
        bytes[300_000..300_008].copy_from_slice(&self.version.to_le_bytes());
        bytes
    }

    fn on_disk(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.directory.path().join(name)).ok()
    }

    /// One push with one failure; false when there was none, as a push makes fewer such calls.
    async fn check(&mut self, calls: &str, what: &str, says: &str, n: usize, new: bool, count: &mut Count) -> bool {
        let at = format!("{calls}:{what}:when={n}, {}", if new { "a new file" } else { "a file replaced" });
        let name = if new { format!("new/{}/file", self.version) } else { "old/file".to_owned() };
        let root = self.directory.path().to_owned();
        let mut server = Served::start(&root);
        check_staging(&root);
        let mut client = Client::connect(server.address).await.expect("it listens");
        if !new && !self.content.contains_key(&name) {
            let first = self.next(&name);
            client.push(&path(&name), first.clone()).await.expect("it is taken");
            self.content.insert(name.clone(), first);
        }
        let (before, bytes) = (self.content.get(&name).cloned(), self.next(&name));
        let tracer = Tracer::attach(server.id(), calls, what, n);
        let result = client.push(&path(&name), bytes.clone()).await;
        let lost = matches!(result, Err(TransferError::ConnectionLost(_)));
        let killed = lost && server.ends();
        let traced = tracer.detach();
        let hit = killed || traced.iter().any(|line| line.contains("(INJECTED)"));
        let is = self.on_disk(&name);
        let (is_old, is_new) = (is == before, is.as_ref() == Some(&bytes));
        assert!(is_old || is_new, "{at}: neither the old file nor the new one: {result:?}");
        if hit {
            count.runs += 1;
        }
        match &result {
            Ok(outcome) => {
                assert!(is_new, "{at}: it was told to be done");
                assert_eq!(outcome.root, Algorithm::Blake3.digest(&bytes), "{at}");
                let matters = traced.iter().any(|line| is_failed_sync(line));
                assert!(!matters, "{at}: done after a sync that failed:\n{}", traced.join("\n"));
                count.done += usize::from(hit);
            }
            Err(_) if killed && what == KILL => count.killed += 1,
            Err(error) => {
                let text = error.to_string();
                assert!(hit && !says.is_empty() && text.contains(says), "{at}: {text}\n{}", traced.join("\n"));
                if is_new {
                    assert!(text.contains("in place, but it may not outlast a power cut"), "{at}: {text}");
                    count.unsure += 1;
                } else {
                    count.refused += 1;
                }
            }
        }
        if let Some(is) = is {
            self.content.insert(name.clone(), is);
        }
        if killed {
            drop(server);
        } else if self.push_clean(&name, &mut client).await.is_ok() {
            count.went_on += usize::from(hit);
            server.kill();
            return hit;
        } else {
            server.kill();
        }
        let server = Served::start(&root);
        let mut client = Client::connect(server.address).await.expect("it listens");
        self.push_clean(&name, &mut client).await.unwrap_or_else(|error| panic!("{at}: then a clean push: {error}"));
        server.kill();
        hit
    }

    async fn push_clean(&mut self, name: &str, client: &mut Client) -> Result<Outcome, TransferError> {
        let bytes = self.next(name);
        let outcome = client.push(&path(name), bytes.clone()).await?;
        assert_eq!(self.on_disk(name).as_ref(), Some(&bytes));
        self.content.insert(name.to_owned(), bytes);
        Ok(outcome)
    }
}

/// A sync of a staged file or of a directory that peers see; the index and the mark of the count are synced ahead of
/// need, and may fail for now.
fn is_failed_sync(line: &str) -> bool {
    let sync = line.contains("fdatasync(") || line.contains("fsync(");
    let own = line.contains("/.deltasync") && !line.contains("/.deltasync/staging/");
    line.contains("(INJECTED)") && sync && !own
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants strace and root"]
async fn every_system_call_of_a_start_fails_in_turn() {
    let directory = TempDir::new().expect("a directory");
    let root = directory.path();
    let server = Served::start(root);
    let mut client = Client::connect(server.address).await.expect("it listens");
    for version in 0..3u8 {
        client.push(&path("file"), vec![version; 300_000]).await.expect("it is taken");
    }
    let (file, mut count) = (fs::read(root.join("file")).expect("it is there"), BTreeMap::new());
    server.kill();
    for calls in ["openat", "openat2", "mkdirat", "fsync", "fdatasync", "pwrite64", "pread64", "unlinkat", "flock"] {
        for (what, says) in [("error=EIO", "Input/output error"), ("error=EACCES", "Permission denied"), (KILL, "")] {
            for n in 1..MOST {
                // What a killed server leaves, so that there is something to sweep.
                fs::write(root.join(".deltasync/staging/.file.deltasync-00000000"), b"half").expect("written");
                let log = NamedTempFile::new().expect("space for a log");
                let mut traced = Command::new("strace");
                traced.args(["-D", "-f", "-o"]).arg(log.path());
                traced.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{what}:when={n}")]);
                for own in ["", ".deltasync", ".deltasync/index", ".deltasync/staging", ".deltasync/history"] {
                    traced.arg("-P").arg(root.join(own).components().as_path());
                }
                let plain = command(root);
                traced.arg(plain.get_program()).args(plain.get_args()).env("RUST_LOG", "warn");
                let at = format!("{calls}:{what}:when={n}");
                let started = Served::try_start(&mut traced);
                let failed = started.as_ref().err().map(|(status, log)| (*status, log.clone()));
                drop(started);
                let traced = fs::read_to_string(log.path()).expect("it is there");
                let hit = if what == KILL { failed.is_some() } else { traced.contains("(INJECTED)") };
                if !hit {
                    break;
                }
                let told = if failed.is_some() { "refused to start" } else { "started" };
                if let Some((status, log)) = failed.filter(|_| what != KILL) {
                    assert_eq!(status.code(), Some(1), "{at}: {log}");
                    assert!(log.contains(says) && !log.contains("panic"), "{at}: {log}");
                }
                *count.entry((calls, if what == KILL { "was killed" } else { told })).or_insert(0) += 1;
                assert_eq!(fs::read(root.join("file")).expect("it is there"), file, "{at}");
            }
        }
    }
    println!("{count:?}");
    assert!(count.len() > 6, "{count:?}");
    let server = Served::start(root);
    check_staging(root);
    let mut client = Client::connect(server.address).await.expect("it listens");
    let outcome = client.push(&path("file"), vec![9; 300_000]).await.expect("it is taken");
    assert!(outcome.generation.is_some_and(|generation| generation.get() >= 4), "{outcome:?}");
}
