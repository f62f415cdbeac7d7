//! Times pushes of whole programs over a slow link, deltasync's beside rsync's.
//!
//! `slow [--only W1,W4,W9] [--reps 5] [--seed N] [--delay-ms 25] [--rate-mbit 20]`. Each push has a server of its own on
//! loopback, `deltasync-server` or an rsync daemon, which holds the old file, and reaches it through a relay that delays
//! each way and limits the rate. The peers take turns, so that whatever else the machine does meets all of them. What is
//! timed is the client's process from its start to its end; then the file at the server is compared with the new one.
//!
//! The programs are looked for beside this one, so build them first: `cargo build --release --workspace`. Where rsync is
//! not installed its columns stay empty.

use std::error::Error;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime};

use deltasync_benches::{Files, Server, Workload, beside, grouped, run_client, workload};
use deltasync_testkit::{Direction, Relay};

const USAGE: &str = "usage: slow [--only W1,W4,W9] [--reps 5] [--seed N] [--delay-ms 25] [--rate-mbit 20]";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Args {
    only: Vec<&'static Workload>,
    reps: usize,
    seed: u64,
    delay: Duration,
    /// Bytes a second.
    rate: u64,
}

#[derive(Clone, Copy, Debug)]
enum Peer {
    Deltasync,
    Rsync,
    RsyncZ,
}

/// One push: how long it took, and what the relay carried both ways.
#[derive(Clone, Copy, Debug)]
struct Push {
    seconds: f64,
    bytes: u64,
}

fn main() -> ExitCode {
    let Some(args) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slow: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let has_rsync = Command::new("rsync").arg("--version").stdout(Stdio::null()).status().is_ok();
    println!(
        "Median of {} pushes, fastest to slowest, bytes both ways; {} ms each way, {} Mbit/s.\n",
        args.reps,
        args.delay.as_millis(),
        args.rate * 8 / 1_000_000
    );
    println!("| case | deltasync | rsync | rsync -z |\n|---|--:|--:|--:|");
    for workload in &args.only {
        let files = match workload.files(args.seed) {
            Ok(files) => files,
            Err(error) => {
                eprintln!("{}: skipped: {error}", workload.name);
                continue;
            }
        };
        let mut pushes = Peer::ALL.map(|_| Vec::new());
        for _ in 0..args.reps {
            for (peer, pushes) in Peer::ALL.into_iter().zip(&mut pushes) {
                if has_rsync || matches!(peer, Peer::Deltasync) {
                    pushes.push(push(peer, &files, args)?);
                }
            }
        }
        println!("| {}: {} | {} |", workload.name, workload.what, pushes.map(cell).join(" | "));
    }
    Ok(())
}

/// Pushes the new file onto the old one, with a fresh server and a fresh home.
fn push(peer: Peer, files: &Files, args: &Args) -> Result<Push> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    for name in ["served", "home"] {
        fs::create_dir(at(name))?;
    }
    put(&at("data"), &files.new)?;
    put(&at("served/data"), &files.old)?;
    // rsync takes a file of the same length and time for the same.
    let earlier = SystemTime::now() - Duration::from_secs(3600);
    File::options().append(true).open(at("served/data"))?.set_modified(earlier)?;
    let server = peer.serve(dir.path(), &at("served"))?;
    let relay = Relay::start(server.address(), args.delay, args.rate)?;
    let mut client = peer.client(&at("data"), relay.address())?;
    client.env("HOME", at("home")).env("XDG_STATE_HOME", at("home")).env("XDG_CACHE_HOME", at("home"));
    let (_, took) = run_client(&mut client)?;
    let seconds = took.as_secs_f64();
    if fs::read(at("served/data"))? != files.new {
        return Err(format!("{peer:?}: what is at the server is not the new file").into());
    }
    Ok(Push { seconds, bytes: relay.carried(Direction::Up) + relay.carried(Direction::Down) })
}

/// Writes a file through to the disk, so that no push pays for it.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes)?;
    Ok(File::open(path)?.sync_all()?)
}

impl Peer {
    const ALL: [Self; 3] = [Self::Deltasync, Self::Rsync, Self::RsyncZ];

    fn serve(self, dir: &Path, served: &Path) -> Result<Server> {
        Ok(match self {
            Self::Deltasync => Server::deltasync(&mut Server::deltasync_command(served)?)?,
            Self::Rsync | Self::RsyncZ => Server::rsync(dir, served)?,
        })
    }

    fn client(self, file: &Path, server: SocketAddr) -> Result<Command> {
        let mut command;
        match self {
            Self::Deltasync => {
                command = Command::new(beside("deltasync")?);
                command.args(["push", "--quiet"]).arg(file).arg(format!("deltasync://{server}/data"));
            }
            Self::Rsync | Self::RsyncZ => {
                command = Command::new("rsync");
                command.arg(if matches!(self, Self::Rsync) { "-a" } else { "-az" });
                command.arg(file).arg(format!("rsync://{server}/mod/"));
            }
        }
        Ok(command)
    }
}

fn cell(mut pushes: Vec<Push>) -> String {
    pushes.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let (Some(first), Some(last)) = (pushes.first(), pushes.last()) else { return "-".to_owned() };
    let median = pushes[pushes.len() / 2];
    let spread = format!("{:.2} to {:.2}", first.seconds, last.seconds);
    format!("{:.2} s ({spread}), {} B", median.seconds, grouped(median.bytes))
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Args> {
    let mut parsed = Args {
        only: ["W1", "W4", "W9"].into_iter().map(workload).collect::<Option<_>>()?,
        reps: 5,
        seed: 1,
        delay: Duration::from_millis(25),
        rate: 20_000_000 / 8,
    };
    while let Some(option) = args.next() {
        let value = args.next()?;
        match option.as_str() {
            "--only" => parsed.only = value.split(',').map(workload).collect::<Option<_>>()?,
            "--reps" => parsed.reps = value.parse().ok().filter(|reps| *reps > 0)?,
            "--seed" => parsed.seed = value.parse().ok()?,
            "--delay-ms" => parsed.delay = Duration::from_millis(value.parse().ok()?),
            "--rate-mbit" => parsed.rate = value.parse::<u64>().ok()?.checked_mul(1_000_000 / 8)?,
            _ => return None,
        }
    }
    Some(parsed)
}
