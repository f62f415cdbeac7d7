//! Pushes and pulls of one file, by deltasync and by rsync.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use deltasync_benches::{Server, beside, run_client};

use crate::table::{Cost, Of, Row};
use crate::{Measuring, installed, pairs};

/// One way to bring a file to where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    peer: Peer,
    transfer: Transfer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Deltasync,
    Rsync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    /// The new file over the old one, of which the server knows nothing.
    Push,
    /// The same, where another client has pushed the old one to a server that has ended since.
    PushCached,
    /// The new file to where there is none.
    Upload,
    /// The new file from the server to where there is none.
    Download,
}

/// What rsync takes for "send all of it".
const WHOLE: &str = "-aW";
const MEMORY: u64 = 64;

/// W5: a GiB with 200 small edits.
pub(crate) fn edited(on: &Measuring) -> io::Result<Vec<Row>> {
    let [cold, cached, rsync] =
        in_turn(on, "W5", [ours(Transfer::Push), ours(Transfer::PushCached), theirs(Transfer::Push)])?;
    let row = |what, costs| Row::new(what, Of::Cpu, costs).beside("rsync", &rsync).most_memory(MEMORY, on.small);
    Ok(vec![row("push W5, cold", cold).most(1.0), row("push W5, chunk lists cached", cached).most(0.7)])
}

/// W6: the same content with a new time.
pub(crate) fn unchanged(on: &Measuring) -> io::Result<Vec<Row>> {
    let [cold, cached, rsync] =
        in_turn(on, "W6", [ours(Transfer::Push), ours(Transfer::PushCached), theirs(Transfer::Push)])?;
    let row = |what, costs| Row::new(what, Of::Cpu, costs).beside("rsync", &rsync);
    Ok(vec![row("push W6, cold", cold).most(1.0), row("push W6, chunk lists cached", cached)])
}

/// W14: nothing in common.
pub(crate) fn unrelated(on: &Measuring) -> io::Result<Vec<Row>> {
    let [ours, rsync] = in_turn(on, "W14", [ours(Transfer::Push), theirs(Transfer::Push)])?;
    Ok(vec![Row::new("push W14, cold", Of::Cpu, ours).beside("rsync", &rsync).most(0.7)])
}

/// A first upload.
pub(crate) fn upload(on: &Measuring) -> io::Result<Vec<Row>> {
    let [ours, rsync] = in_turn(on, "W5", [ours(Transfer::Upload), theirs(Transfer::Upload)])?;
    let row = |of| Row::new("first upload of W5", of, ours.clone()).beside("rsync -W", &rsync);
    Ok(vec![row(Of::Wall).most(1.0).most_memory(MEMORY, on.small), row(Of::Cpu)])
}

/// A full download.
pub(crate) fn download(on: &Measuring) -> io::Result<Vec<Row>> {
    let [ours, rsync] = in_turn(on, "W5", [ours(Transfer::Download), theirs(Transfer::Download)])?;
    let row = |of| Row::new("full download of W5", of, ours.clone()).beside("rsync -W", &rsync);
    Ok(vec![row(Of::Wall).most_memory(MEMORY, on.small), row(Of::Cpu)])
}

/// Prints where the time went, of each profile in a directory.
pub(crate) fn list_profiles(dir: &Path) -> io::Result<()> {
    let mut profiles: Vec<_> =
        fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    profiles.retain(|path| path.extension().is_some_and(|extension| extension == "data"));
    profiles.sort();
    for path in profiles {
        println!("\n{}:", path.display());
        let mut report = Command::new("perf");
        report.args([
            "report",
            "--stdio",
            "--no-children",
            "-g",
            "none",
            "--percent-limit",
            "1",
            "--sort",
            "symbol",
            "-i",
        ]);
        let report = report.arg(&path).output()?;
        let text = String::from_utf8_lossy(&report.stdout);
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            println!("{}", line.trim_end_matches([' ', '-']));
        }
    }
    Ok(())
}

fn ours(transfer: Transfer) -> Way {
    Way { peer: Peer::Deltasync, transfer }
}

fn theirs(transfer: Transfer) -> Way {
    Way { peer: Peer::Rsync, transfer }
}

/// Runs the ways in turn over the files of a workload; no costs of a peer that is not installed.
fn in_turn<const N: usize>(on: &Measuring, workload: &str, ways: [Way; N]) -> io::Result<[Vec<Cost>; N]> {
    let files = tempfile::tempdir_in(&on.dir)?;
    pairs::prepare(on, workload, files.path())?;
    let has_rsync = installed("rsync", "--version");
    let mut costs = ways.map(|_| Vec::new());
    for _ in 0..on.rounds {
        for (way, costs) in ways.into_iter().zip(&mut costs) {
            if has_rsync || way.peer == Peer::Deltasync {
                costs.push(way.once(on, workload, files.path())?);
            }
        }
    }
    Ok(costs)
}

impl Way {
    /// One transfer with fresh directories, a fresh server and a fresh home.
    fn once(self, on: &Measuring, workload: &str, files: &Path) -> io::Result<Cost> {
        let dir = tempfile::tempdir_in(&on.dir)?;
        let at = |name: &str| dir.path().join(name);
        for name in ["served", "home", "other home"] {
            fs::create_dir(at(name))?;
        }
        let (served, local) = (at("served/data"), at("local"));
        match self.transfer {
            Transfer::Push => {
                put(&files.join("old"), &served)?;
                // rsync takes a file of the same length and time for the same.
                let earlier = SystemTime::now() - Duration::from_secs(3600);
                File::options().append(true).open(&served)?.set_modified(earlier)?;
            }
            Transfer::PushCached => {
                let server = Server::deltasync(&mut Server::deltasync_command(&at("served"))?)?;
                // A first upload leaves no chunk list, a push over another version does.
                for version in ["old", "new", "old"] {
                    let mut client = self.client(on, &files.join(version), server.address(), Transfer::Push)?;
                    run_client(at_home(&mut client, &at("other home")))?;
                }
                server.end()?;
            }
            Transfer::Upload => {}
            Transfer::Download => put(&files.join("new"), &served)?,
        }
        let profile = |command: Command, end: &str| match &on.perf {
            Some(perf) if self.peer == Peer::Deltasync => {
                profiled(command, &perf.join(format!("{workload}-{:?}-{end}.data", self.transfer)))
            }
            Some(_) | None => command,
        };
        let server = match self.peer {
            Peer::Deltasync => Server::deltasync(&mut profile(Server::deltasync_command(&at("served"))?, "server"))?,
            Peer::Rsync => Server::rsync(dir.path(), &at("served"))?,
        };
        let file = if self.transfer == Transfer::Download { &local } else { &files.join("new") };
        let mut client = profile(self.client(on, file, server.address(), self.transfer)?, "client");
        let client = run_client(at_home(&mut client, &at("home")))?;
        let cost = Cost::new(client, Some(server.end()?));
        let result = if self.transfer == Transfer::Download { &local } else { &served };
        if !equal(result, &files.join("new"))? {
            return Err(io::Error::other(format!("{self:?}: what came out is not the new file")));
        }
        Ok(cost)
    }

    fn client(self, on: &Measuring, file: &Path, server: SocketAddr, transfer: Transfer) -> io::Result<Command> {
        let mut command;
        match self.peer {
            Peer::Deltasync => {
                command = Command::new(beside("deltasync")?);
                let place = format!("deltasync://{server}/data");
                match transfer {
                    Transfer::Download => command.args(["pull", "--quiet"]).arg(place).arg(file),
                    _ => command.args(["push", "--quiet"]).arg(file).arg(place),
                };
            }
            Peer::Rsync => {
                command = Command::new("rsync");
                let place = format!("rsync://{server}/mod/data");
                command.arg(if matches!(transfer, Transfer::Push) { "-a" } else { WHOLE });
                if on.fsync {
                    command.arg("--fsync");
                }
                match transfer {
                    Transfer::Download => command.arg(place).arg(file),
                    _ => command.arg(file).arg(place),
                };
            }
        }
        Ok(command)
    }
}

/// The client of somebody of whom nothing is remembered.
fn at_home<'a>(client: &'a mut Command, home: &Path) -> &'a mut Command {
    client.env("HOME", home).env("XDG_STATE_HOME", home).env("XDG_CACHE_HOME", home).env_remove("DELTASYNC_STATE")
}

/// The same command, recorded.
fn profiled(command: Command, out: &Path) -> Command {
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-F", "1999", "-g", "-o"]).arg(out).arg("--");
    perf.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => perf.env(name, value),
            None => perf.env_remove(name),
        };
    }
    perf
}

/// Copies a file and writes it through to the disk, so that no transfer pays for it.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

/// True when two files hold the same.
fn equal(one: &Path, other: &Path) -> io::Result<bool> {
    const PIECE: usize = 1 << 20;
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let len = one.metadata()?.len();
    if len != other.metadata()?.len() {
        return Ok(false);
    }
    let mut pieces = [vec![0; PIECE], vec![0; PIECE]];
    let mut left = len;
    while left > 0 {
        let piece = left.min(PIECE as u64) as usize;
        one.read_exact(&mut pieces[0][..piece])?;
        other.read_exact(&mut pieces[1][..piece])?;
        if pieces[0][..piece] != pieces[1][..piece] {
            return Ok(false);
        }
        left -= piece as u64;
    }
    Ok(true)
}
