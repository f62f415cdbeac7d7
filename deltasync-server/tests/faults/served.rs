//! The program `deltasync-server` over a directory that outlives it: started, killed and started again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

/// A server that runs, killed when dropped.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: SocketAddr,
    log: NamedTempFile,
}

impl Served {
    /// Serves a directory.
    pub(crate) fn start(root: &Path) -> Self {
        Self::start_with(root, &[])
    }

    pub(crate) fn start_with(root: &Path, more: &[&str]) -> Self {
        Self::try_start(command(root).args(more)).unwrap_or_else(|(status, log)| panic!("{status}: {log}"))
    }

    /// Starts it by a command of one's own; or says how it ended, and what it had logged.
    pub(crate) fn try_start(command: &mut Command) -> Result<Self, (ExitStatus, String)> {
        let log = NamedTempFile::new().expect("space for a log");
        let mut child = Self::spawn(command, &log);
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        out.read_line(&mut line).expect("it can be read");
        match line.strip_prefix("listening on ") {
            Some(address) => Ok(Self { child, address: address.trim_end().parse().expect("an address"), log }),
            None => Err((child.wait().expect("it ends"), read(&log))),
        }
    }

    /// Starts it and does not wait until it is ready.
    pub(crate) fn begin(root: &Path) -> Child {
        Self::spawn(&mut command(root), &NamedTempFile::new().expect("space for a log"))
    }

    fn spawn(command: &mut Command, log: &NamedTempFile) -> Child {
        let file: File = log.reopen().expect("it is there");
        command.stdout(Stdio::piped()).stderr(file).spawn().expect("the program starts")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, at once.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs or has ended");
        self.child.wait().expect("it ends");
    }

    /// Stops it as an administrator would; returns how it ended and what it had logged.
    pub(crate) fn stop(mut self) -> (ExitStatus, String) {
        let kill = Command::new("kill").args(["-s", "TERM", &self.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
        let until = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return (status, self.log());
            }
            assert!(Instant::now() < until, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// True while it runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_none()
    }

    /// True when it ends within a moment.
    pub(crate) fn ends(&mut self) -> bool {
        let until = Instant::now() + Duration::from_secs(5);
        while self.runs() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        !self.runs()
    }

    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program over a directory, on a free port, without a dashboard.
pub(crate) fn command(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltasync-server"));
    command.args(["--listen", "127.0.0.1:0", "--dashboard", "off", "--root"]).arg(root).env("RUST_LOG", "warn");
    command
}

fn read(log: &NamedTempFile) -> String {
    fs::read_to_string(log.path()).unwrap_or_default()
}
