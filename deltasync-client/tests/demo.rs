//! `deltasync demo`, by the program itself: what it says, and that it leaves nothing behind, however it ends.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Ran, Scratch, command};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// The demo with its temporary folders in a directory.
fn start(dir: &Scratch, args: &[&str]) -> Child {
    dir.mkdir("tmp");
    let mut command = command(dir.path());
    command.env("TMPDIR", dir.join("tmp")).arg("demo").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

/// Processes that have this directory in their command line.
fn processes(dir: &Path) -> Vec<Pid> {
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw);
    let has = |pid: &Pid| {
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&*dir.to_string_lossy())
    };
    let all = fs::read_dir("/proc").expect("Linux").flatten().filter_map(number);
    all.filter(has).collect()
}

#[track_caller]
fn assert_gone(dir: &Scratch) {
    assert_eq!(dir.names("tmp"), [""; 0]);
    assert_eq!(processes(&dir.join("tmp")), []);
}

#[test]
fn it_says_what_travels_and_ends_with_all_it_made() {
    let dir = Scratch::new();
    let ran = Ran::new(start(&dir, &["--once"]).wait_with_output().expect("it ends")).fine();
    assert_gone(&dir);
    let travelled: Vec<_> =
        ran.stdout.lines().filter(|line| line.contains(" travelled for a file of 10.0 MiB")).collect();
    let [cold, overwritten, inserted] = &travelled[..] else { panic!("{ran:?}") };
    assert!(cold.contains("10.0 MiB travelled") && cold.contains("nothing of it was there"), "{ran:?}");
    assert!(overwritten.contains(" KiB travelled") && overwritten.contains("99.9 % of it was there"), "{ran:?}");
    assert!(inserted.contains(" B travelled") && inserted.contains("99.9 % of it was there"), "{ran:?}");
    assert!(ran.stdout.contains("dashboard: http://127.0.0.1:"), "{ran:?}");
}

#[test]
fn it_stays_until_a_signal_and_then_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let dir = Scratch::new();
        let mut child = start(&dir, &[]);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.by_ref().map(|line| line.expect("text")).find(|line| line.contains("stays open until Ctrl-C"));
        let line = line.expect("all is shown");
        let address = line.rsplit("http://").next().expect("an address").trim_end_matches('/').to_owned();
        std::net::TcpStream::connect(&address).expect("the dashboard is there");
        let servers = processes(&dir.join("tmp"));
        assert_eq!((servers.len(), dir.names("tmp").len()), (1, 1));
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        let rest: Vec<_> = lines.map(|line| line.expect("text")).collect();
        assert_eq!(rest.last().map(String::as_str), Some("The server has ended, and the folder is gone."));
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{signal:?}");
        assert_gone(&dir);
        assert!(test_kill_process(servers[0]).is_err());
    }
}

#[test]
fn it_leaves_nothing_when_it_is_interrupted_early() {
    for millis in [0, 30, 100, 250] {
        let dir = Scratch::new();
        let mut child = start(&dir, &[]);
        let mut first = [0; 1];
        // Once it has said something it has seen to signals.
        let mut stdout = child.stdout.take().expect("piped");
        stdout.read_exact(&mut first).expect("it says something");
        std::thread::sleep(Duration::from_millis(millis));
        kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
        let begun = Instant::now();
        let code = child.wait().expect("it ends").code();
        assert!(code == Some(130) || code == Some(0), "{millis}: {code:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_gone(&dir);
    }
}

#[test]
fn a_server_that_ends_or_is_not_there_is_told() {
    let dir = Scratch::new();
    let mut child = start(&dir, &[]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    lines.find(|line| line.as_ref().expect("text").contains("stays open")).expect("all is shown").expect("text");
    for server in processes(&dir.join("tmp")) {
        kill_process(server, Signal::KILL).expect("it runs");
    }
    Ran::new(child.wait_with_output().expect("it ends")).failed(1, "deltasync-server: it ended (signal: 9");
    assert_gone(&dir);

    fs::copy(env!("CARGO_BIN_EXE_deltasync"), dir.join("deltasync")).expect("space");
    let alone = std::process::Command::new(dir.join("deltasync")).arg("demo").env("TMPDIR", dir.join("tmp")).output();
    let ran = Ran::new(alone.expect("it starts")).failed(1, "there is no deltasync-server beside this program: ");
    assert!(ran.stderr.contains("hint: `cargo build --release`"), "{ran:?}");
    assert_gone(&dir);
}
