//! A push of a sparse file that is far longer than memory and disk, for the memory of both ends.
//!
//! A server takes no file for which the disk has no room, though this one hardly takes any: `--dir` has to be on a file
//! system with so much free space. Where the server writes zeros instead of leaving holes, it is given up when it has
//! written [`SPACE`], and the row says so.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use deltasync_benches::{Server, Used, beside};
use rustix::fs::statvfs;
use wait4::Wait4 as _;

use crate::Measuring;
use crate::table::{Cost, Of, Row};

/// How much of the space may go before it is given up, in bytes.
const SPACE: u64 = 4 << 30;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often one looks.
const TICK: Duration = Duration::from_millis(50);
/// The length of a stretch of content, in bytes, and how many there are.
const CONTENT: usize = 1 << 20;
const STRETCHES: u64 = 8;

/// 64 GiB with eight stretches of content, one of which has been edited.
pub(crate) fn edited(on: &Measuring) -> io::Result<Vec<Row>> {
    let gib: u64 = if on.small { 1 } else { 64 };
    let what = format!("push of a sparse file of {gib} GiB");
    let free = || -> io::Result<u64> {
        let space = statvfs(&on.dir)?;
        Ok(space.f_bavail * space.f_frsize)
    };
    let before = free()?;
    if before < (gib << 30) + SPACE / 4 {
        eprintln!("{what}: left out, {} has {} GiB of free space", on.dir.display(), before >> 30);
        return Ok(Vec::new());
    }
    let dir = tempfile::tempdir_in(&on.dir)?;
    let at = |name: &str| dir.path().join(name);
    for name in ["served", "home"] {
        fs::create_dir(at(name))?;
    }
    make(&at("served/data"), gib << 30, on.seed, false)?;
    make(&at("new"), gib << 30, on.seed, true)?;
    let server = Server::deltasync(&mut Server::deltasync_command(&at("served"))?)?;
    let mut client = Command::new(beside("deltasync")?);
    client.args(["push", "--quiet", "--retries", "0"]).arg(at("new"));
    client
        .arg(format!("deltasync://{}/data", server.address()))
        .env("HOME", at("home"))
        .env("XDG_STATE_HOME", at("home"));
    let begun = Instant::now();
    let mut client = client.stdin(Stdio::null()).spawn()?;
    let mut watch = || loop {
        let ended = client.try_wait4()?;
        if ended.is_some() || before.saturating_sub(free()?) > SPACE || begun.elapsed() > PATIENCE {
            return Ok::<_, io::Error>(ended);
        }
        thread::sleep(TICK);
    };
    let watched = watch();
    let wall = begun.elapsed();
    let (finished, client) = match watched {
        Ok(Some(ended)) => (ended.status.success(), Used::of(&ended)),
        Ok(None) | Err(_) => {
            client.kill()?;
            (false, Used::of(&client.wait4()?))
        }
    };
    if !finished {
        let taken = before.saturating_sub(free()?) >> 20;
        eprintln!("{what}: no end after {} s, when {taken} MiB of space were taken", wall.as_secs());
    }
    let row = Row::new(&what, Of::Cpu, vec![Cost::new((client, wall), Some(server.end()?))]);
    let row = row.most_memory(192, on.small);
    Ok(vec![if finished { row } else { row.unfinished() }])
}

fn make(path: &Path, len: u64, seed: u64, edited: bool) -> io::Result<()> {
    let file = File::create_new(path)?;
    file.set_len(len)?;
    for stretch in 0..STRETCHES {
        let mut content = deltasync_benches::random(CONTENT, seed + stretch);
        if edited && stretch == STRETCHES / 2 {
            content[CONTENT / 2] ^= 1;
        }
        file.write_all_at(&content, stretch * (len / STRETCHES))?;
    }
    Ok(())
}
