//! What the tests of the program share: scratch directories, content from a seed, the program itself, a server.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod program;
pub mod snapshot;

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deltasync_io::{BlockingStorage, LocalOptions, LocalStorage, Threads};
use deltasync_server::{Listeners, ServerConfig, Shutdown, Stopper, run};
use deltasync_testkit::Rng;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// The program with its arguments, run in a scratch directory.
pub fn deltasync(dir: &Path, args: &[&str]) -> Ran {
    let output = command(dir).args(args).output().expect("the program starts");
    Ran::new(output)
}

/// The program, its arguments yet to come. It remembers nothing, and has no config file, unless it is told where.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltasync"));
    command.current_dir(dir);
    for name in ["DELTASYNC_STATE", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "HOME"] {
        command.env_remove(name);
    }
    command
}

/// What a run of the program left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program prints text");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The run succeeded, and had nothing to complain about.
    #[track_caller]
    pub fn fine(self) -> Self {
        assert_eq!((self.code, self.said()), (Some(0), vec![]), "{self:?}");
        self
    }

    /// The lines on the standard error, but for what it waited for: a machine may be slow.
    pub fn said(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| !line.starts_with("deltasync: waiting ")).collect()
    }

    /// The run failed so, with a message that has this in it.
    #[track_caller]
    pub fn failed(self, code: i32, message: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.starts_with("deltasync: "), "{self:?}");
        assert!(self.stderr.contains(message), "{self:?}");
        self
    }

    /// The one object on the standard output.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A directory that goes away with the test.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("space for a scratch directory"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn join(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.0.path().join(name.as_ref())
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.join(name), bytes).expect("space");
    }

    pub fn mkdir(&self, name: &str) {
        fs::create_dir_all(self.join(name)).expect("space");
    }

    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The names in a directory, sorted.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.join(dir)).expect("a directory");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// Bytes that compress to nothing, from a seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    Rng::new(seed).bytes(len)
}

/// A server over TCP in this process, behind a relay that counts every byte. It stops with the test.
pub struct Server {
    /// Holds the threads of all that runs here.
    _runtime: Runtime,
    stopper: Stopper,
    pub dir: Scratch,
    pub address: SocketAddr,
    to_server: Arc<AtomicU64>,
    to_client: Arc<AtomicU64>,
    /// Directions of connections that have not ended.
    open: Arc<AtomicU64>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(ServerConfig::default(), |storage| storage)
    }

    /// With another configuration, and something between the server and its storage.
    pub fn with<S: BlockingStorage>(config: ServerConfig, around: impl FnOnce(LocalStorage) -> S) -> Self {
        let runtime = Runtime::new().expect("threads to be had");
        let dir = Scratch::new();
        let storage = LocalStorage::serve(dir.path(), LocalOptions::default()).expect("a directory of ours");
        let storage = Arc::new(Threads::new(Arc::new(around(storage)), Threads::for_this_machine()));
        let (stopper, shutdown) = Shutdown::channel();
        let (relay, listeners) = runtime.block_on(async {
            let relay = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            (relay, Listeners::bind("127.0.0.1:0", None).await.expect("a free port"))
        });
        let (address, behind) = (relay.local_addr().expect("bound"), listeners.clients().expect("bound"));
        let (to_server, to_client) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        runtime.spawn(run(listeners, storage, config, shutdown));
        let open = Arc::<AtomicU64>::default();
        runtime.spawn(relay_all(relay, behind, Arc::clone(&to_server), Arc::clone(&to_client), Arc::clone(&open)));
        Self { _runtime: runtime, stopper, dir, address, to_server, to_client, open }
    }

    /// A place at this server; `path` is written as it comes.
    pub fn url(&self, path: &str) -> String {
        format!("deltasync://{}/{path}", self.address)
    }

    /// Bytes that clients have sent and received since the last call. All of them have to be gone, or about to.
    pub fn carried(&self) -> (u64, u64) {
        // A client does not wait for its last word to be heard.
        let until = Instant::now() + Duration::from_secs(20);
        while self.open.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < until, "connections stay open");
            std::thread::sleep(Duration::from_millis(1));
        }
        (self.to_server.swap(0, Ordering::SeqCst), self.to_client.swap(0, Ordering::SeqCst))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopper.stop();
    }
}

async fn relay_all(
    listener: TcpListener,
    behind: SocketAddr,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
    open: Arc<AtomicU64>,
) {
    while let Ok((client, _)) = listener.accept().await {
        open.fetch_add(2, Ordering::SeqCst);
        let server = TcpStream::connect(behind).await.expect("the server listens");
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        for (from, to, count) in [(from_client, to_server, &up), (from_server, to_client, &down)] {
            let (count, open) = (Arc::clone(count), Arc::clone(&open));
            tokio::spawn(async move {
                relay(from, to, count).await;
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }
}

/// Counts what was read, before it is passed on: when the client has it, it is counted.
async fn relay(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    count: Arc<AtomicU64>,
) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(got @ 1..) = from.read(&mut piece).await {
        count.fetch_add(got as u64, Ordering::SeqCst);
        if to.write_all(&piece[..got]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
