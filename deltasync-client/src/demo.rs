//! What deltasync does, shown on this machine: a server of its own, a file that is pushed, edited and pushed again.
//!
//! The server is the program that stands beside this one, on free ports of loopback, with a folder for temporary files that
//! nobody else has. However this ends, by itself, by an error or by a signal, the server ends and the folder goes: both are
//! values that clean up when they are dropped.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use deltasync_core::ByteLen;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::run::print;
use crate::shown::{Counted, Percent, Size, Span};
use crate::{ClientError, Options, Place, Shown, State, Summary, push};

/// The length of the file that is pushed.
const LEN: usize = 10 << 20;
/// How much of it is overwritten.
const EDIT: usize = 4 << 10;
/// How long the server may take to start.
const START: Duration = Duration::from_secs(20);
/// How far apart looks at whether the server still runs are.
const LOOK: Duration = Duration::from_millis(250);

const DEMO_HELP: &str = "\
It needs the program deltasync-server beside this one, and nothing else: the server listens on free ports of this machine
alone, and all that is made is in a temporary folder that goes at the end.";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = DEMO_HELP)]
pub(crate) struct DemoArgs {
    /// End when all is shown, instead of leaving the dashboard open until Ctrl-C
    #[arg(long)]
    once: bool,
}

/// Shows it all; Ctrl-C is how it ends once all is shown.
pub(crate) async fn demo(args: &DemoArgs, cancel: &CancellationToken) -> Result<(), ClientError> {
    let ended = ended_by_signal(cancel);
    let temporary = std::env::temp_dir();
    let folder = tempfile::Builder::new().prefix("deltasync-demo-").tempdir();
    let folder = folder.map_err(ClientError::file("make a folder in", &temporary))?;
    let mut server = tokio::select! {
        server = Server::start(folder.path()) => server?,
        () = ended.cancelled() => return Err(ClientError::Interrupted),
    };
    let (dashboard, at) = (server.dashboard.clone(), Shown::path(folder.path()));
    print(format!(
        "A server of its own listens on {}; all it has is in {at}.\nIts dashboard: {dashboard}\n",
        server.clients
    ));
    show(folder.path(), &server, &ended).await?;
    if !args.once {
        print(format!("\nThe dashboard stays open until Ctrl-C: {dashboard}\n"));
        while !ended.is_cancelled() {
            if let Some(status) = server.child.try_wait().map_err(ClientError::file("watch", &server.program))? {
                let why = io::Error::other(format!("it ended ({status})"));
                return Err(ClientError::file("go on with", &server.program)(why));
            }
            tokio::select! {
                () = ended.cancelled() => {}
                () = sleep(LOOK) => {}
            }
        }
    }
    drop(server);
    let path = folder.path().to_owned();
    folder.close().map_err(ClientError::file("remove", &path))?;
    print(format!("{}The server has ended, and the folder is gone.\n", if args.once { "\n" } else { "" }));
    Ok(())
}

/// Cancelled also when the terminal goes away, which would end the program at once.
fn ended_by_signal(cancel: &CancellationToken) -> CancellationToken {
    let ended = cancel.child_token();
    if let Ok(mut hangup) = signal(SignalKind::hangup()) {
        let ended = ended.clone();
        tokio::spawn(async move {
            hangup.recv().await;
            ended.cancel();
        });
    }
    ended
}

/// Pushes, edits and pushes again, and says each time what travelled.
async fn show(folder: &Path, server: &Server, ended: &CancellationToken) -> Result<(), ClientError> {
    let path = folder.join("disk.img");
    let destination = format!("deltasync://{}/disk.img", server.clients);
    let destination = Place::parse(destination.as_ref()).expect("a server tells an address");
    // What is remembered of the pushes is the demo's own, too.
    let options = Options::default().state(State::new(folder.join("state")));
    let mut file = noise(1, LEN);
    for (number, step) in [Step::Cold, Step::Overwritten, Step::Inserted].into_iter().enumerate() {
        match step {
            Step::Cold => {}
            Step::Overwritten => file[LEN / 2..][..EDIT].copy_from_slice(&noise(2, EDIT)),
            Step::Inserted => file.insert(0, b'!'),
        }
        fs::write(&path, &file).map_err(ClientError::file("write", &path))?;
        print(format!("\n{}. {}\n", number + 1, step.words()));
        let summary = push(std::slice::from_ref(&path), &destination, &options, ended, |_| {}).await?;
        print(format!("   {}\n", travelled(&summary)));
        let failed = summary.failures.into_iter().chain(summary.files.into_iter().filter_map(|file| file.result.err()));
        failed.into_iter().next().map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// What happens to the file before a push.
#[derive(Clone, Copy, Debug)]
enum Step {
    Cold,
    Overwritten,
    Inserted,
}

impl Step {
    fn words(self) -> String {
        match self {
            Self::Cold => format!("A file of {} is pushed that the server does not have:", Size(LEN as u64)),
            Self::Overwritten => {
                format!("{} in its middle are overwritten, and it is pushed again:", Size(EDIT as u64))
            }
            Self::Inserted => {
                "A byte is put at its front, so that all others move by one, and it is pushed again:".into()
            }
        }
    }
}

/// What a push moved, beside what there is.
fn travelled(summary: &Summary) -> String {
    let outcomes = || summary.files.iter().filter_map(|file| file.result.as_ref().ok());
    let len: ByteLen = outcomes().map(|outcome| outcome.len).sum();
    let copied: ByteLen = outcomes().map(|outcome| outcome.progress.copied).sum();
    let carried = summary.carried.wire_sent + summary.carried.wire_received;
    let reused = match copied.get() {
        0 => "nothing of it was there".to_owned(),
        copied => format!("{} of it was there already", Percent(copied as f64 / len.get().max(1) as f64)),
    };
    format!(
        "{} travelled for a file of {}: {reused}. {}, {}.",
        Size(carried),
        Size(len.get()),
        Counted(summary.carried.round_trips.into(), "round trip"),
        Span(summary.elapsed),
    )
}

/// The server program while it runs; it ends with the value.
#[derive(Debug)]
struct Server {
    child: Child,
    program: PathBuf,
    clients: String,
    dashboard: String,
    /// Nobody reads on, but the server must not find it closed.
    _stdout: Option<BufReader<ChildStdout>>,
}

impl Server {
    async fn start(folder: &Path) -> Result<Self, ClientError> {
        let here = std::env::current_exe().map_err(ClientError::file("find", "this program".as_ref()))?;
        let program = here.with_file_name("deltasync-server");
        if !program.exists() {
            return Err(ClientError::NoServer { path: Shown::path(&program).to_string() });
        }
        let (served, log) = (folder.join("served"), folder.join("server.log"));
        fs::create_dir(&served).map_err(ClientError::file("make", &served))?;
        let said = File::create(&log).map_err(ClientError::file("write", &log))?;
        let mut command = Command::new(&program);
        command.arg("--root").arg(&served).args(["--listen", "127.0.0.1:0", "--dashboard", "127.0.0.1:0"]);
        // In a group of its own: Ctrl-C is for this program, which then ends the server.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said).process_group(0);
        let mut child = command.spawn().map_err(ClientError::file("start", &program))?;
        let stdout = child.stdout.take().map(BufReader::new);
        // From here on it ends with the value.
        let mut server = Self { child, program, clients: String::new(), dashboard: String::new(), _stdout: None };
        let ready = tokio::task::spawn_blocking(move || ready(stdout));
        let ready = timeout(START, ready).await.ok().and_then(Result::ok).flatten();
        let Some((clients, dashboard, stdout)) = ready else {
            let why = fs::read_to_string(&log).unwrap_or_default();
            let why = why.lines().last().unwrap_or("it said nothing").to_owned();
            return Err(ClientError::file("start", &server.program)(io::Error::other(why)));
        };
        (server.clients, server.dashboard, server._stdout) = (clients, dashboard, Some(stdout));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing it has is to be kept.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the server says when it is ready.
fn ready(stdout: Option<BufReader<ChildStdout>>) -> Option<(String, String, BufReader<ChildStdout>)> {
    let mut stdout = stdout?;
    let mut line = |start: &str| {
        let mut line = String::new();
        stdout.read_line(&mut line).ok()?;
        Some(line.trim_end().strip_prefix(start)?.to_owned())
    };
    Some((line("listening on ")?, line("dashboard on ")?, stdout))
}

/// Bytes that compress to nothing, from a seed.
///
/// Source: G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators" (2014).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(len.div_ceil(8)).flatten().collect();
    bytes.truncate(len);
    bytes
}
