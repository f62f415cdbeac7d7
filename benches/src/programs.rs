//! Starts the programs that are measured, and ends them: clients, and servers that end with their owner.
//!
//! What a process used comes from the kernel as it is waited for, and holds that of its descendants for which it waited
//! itself: an rsync daemon has a process for each connection.
//!
//! The greatest memory of a process counts that of the one that started it, at the time of the start: whoever measures
//! memory keeps small himself, and has what needs memory done by a process of its own.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, fstatfs};
use rustix::process::{Pid, Signal, kill_process};
use wait4::{ResUse, Wait4 as _};

/// How long a server may take to listen, and to end once it was asked to.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often one looks.
const TICK: Duration = Duration::from_millis(10);

/// What a process and those for which it waited used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Time of the processor, in user mode and in the kernel.
    pub cpu: Duration,
    /// The most memory that one of them had, in bytes.
    pub peak: u64,
}

/// A server that ends with its owner.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    address: SocketAddr,
}

/// Runs a client to its end; what it used, and how long it took.
///
/// # Errors
///
/// When it cannot be started, or fails.
pub fn run_client(command: &mut Command) -> io::Result<(Used, Duration)> {
    let begun = Instant::now();
    let ended = command.stdin(Stdio::null()).spawn()?.wait4()?;
    let wall = begun.elapsed();
    if !ended.status.success() {
        return Err(io::Error::other(format!("{:?} ended with {}", command.get_program(), ended.status)));
    }
    Ok((Used::of(&ended), wall))
}

impl Used {
    /// What the kernel says of a process that has ended.
    pub fn of(ended: &ResUse) -> Self {
        Self { cpu: ended.rusage.utime + ended.rusage.stime, peak: ended.rusage.maxrss }
    }
}

impl Server {
    /// The command of a deltasync server for a directory, on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// When it is not built.
    pub fn deltasync_command(served: &Path) -> io::Result<Command> {
        let mut command = Command::new(beside("deltasync-server")?);
        command.args(["--listen", "127.0.0.1:0", "--dashboard", "off", "--root"]).arg(served);
        command.env("RUST_LOG", "error");
        Ok(command)
    }

    /// Starts what [`deltasync_command`](Self::deltasync_command) made and waits until it listens.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not listen.
    pub fn deltasync(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().expect("it is piped");
        let mut server = Self { child: Some(child), address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) };
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        server.address = address.ok_or_else(|| io::Error::other("the server does not listen"))?;
        Ok(server)
    }

    /// Starts an rsync daemon with a module `mod` for a directory on a free port of 127.0.0.1 and waits until it listens;
    /// its configuration is written to `dir`.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not listen.
    pub fn rsync(dir: &Path, served: &Path) -> io::Result<Self> {
        let config = dir.join("rsyncd.conf");
        // As root it would become nobody, who may not write here.
        let user = if std::fs::metadata(served)?.uid() == 0 { "uid = root\ngid = root\n" } else { "" };
        let module = format!("[mod]\npath = {}\nread only = no\n", served.display());
        std::fs::write(&config, format!("use chroot = no\nreverse lookup = no\n{user}{module}"))?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let child = Command::new("rsync")
            .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
            .args([format!("--port={}", address.port()), format!("--config={}", config.display())])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self { child: Some(child), address };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            thread::sleep(TICK);
        }
        Err(io::Error::other("the rsync daemon does not listen"))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until its processes for connections have ended, asks it to end, and says what it used.
    ///
    /// # Errors
    ///
    /// When it does not end; it is then killed.
    pub fn end(mut self) -> io::Result<Used> {
        let id = self.child.as_ref().expect("nothing takes it before").id();
        let begun = Instant::now();
        while has_children(id)? && begun.elapsed() < PATIENCE {
            thread::sleep(TICK);
        }
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).expect("the id of a process");
        // It has not been waited for, so the id is still its own.
        kill_process(pid, Signal::TERM)?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let child = self.child.as_mut().expect("nothing takes it before");
            if let Some(ended) = child.try_wait4()? {
                // Waited for: nothing is left to kill.
                self.child = None;
                return Ok(Used::of(&ended));
            }
            thread::sleep(TICK);
        }
        Err(io::Error::other("the server does not end"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already needs nothing.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program that was built with this one.
///
/// # Errors
///
/// When it is not there.
pub fn beside(name: &str) -> io::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        let message = format!("{} is not built: cargo build --release --workspace", path.display());
        return Err(io::Error::other(message));
    }
    Ok(path)
}

/// A fresh file for `len` bytes, with room for them where that makes writing faster: in memory it would fill them with
/// zeros first.
///
/// # Errors
///
/// When it cannot be made, or is there.
pub fn fresh_file(path: &Path, len: u64) -> io::Result<File> {
    const IN_MEMORY: u64 = 0x0102_1994;
    let file = File::create_new(path)?;
    if fstatfs(&file)?.f_type as u64 != IN_MEMORY {
        // Not every file system can.
        let _ = fallocate(&file, FallocateFlags::empty(), 0, len);
    }
    Ok(file)
}

/// True when some process has this one for its parent.
fn has_children(id: u32) -> io::Result<bool> {
    for entry in std::fs::read_dir("/proc")? {
        // Of a process that has ended meanwhile there is nothing to read.
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
        // `pid (name) state ppid`; a name may hold anything.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(&id.to_string()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_used_holds_what_it_waited_for() {
        let burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let shell = |script: &str| run_client(Command::new("sh").args(["-c", script])).expect("a shell").0;
        let (idle, own) = (shell("exit 0"), shell(burn));
        let waited = shell(&format!("({burn}); exit 0"));
        assert!(own.cpu > 3 * idle.cpu && waited.cpu * 2 > own.cpu, "{idle:?} {own:?} {waited:?}");
        assert!(own.peak > 100 << 10 && own.peak < 1 << 30, "{own:?}");
        assert!(run_client(Command::new("sh").args(["-c", "exit 3"])).is_err());
    }

    #[test]
    fn a_server_waits_for_its_processes_and_is_no_more_when_it_has_ended() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 0.3 & echo listening on 127.0.0.1:1; wait; exec sleep 60"]);
        let server = Server::deltasync(&mut command).expect("it says that it listens");
        let id = server.child.as_ref().expect("it runs").id();
        let begun = Instant::now();
        server.end().expect("it ends when asked");
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(200) && took < Duration::from_secs(20), "{took:?}");
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
