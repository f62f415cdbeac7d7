//! Trees that are replaced as one change, by the programs themselves: killed at any moment, what is there is the old tree or
//! the new one, whole.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::program::Program;
use common::snapshot::{assert_equal, snapshot};
use common::{Scratch, Server, command, deltasync, noise};
use deltasync_testkit::Rng;

const KILLS: u64 = 24;

/// A tree in which every file is of one version, some of them too large to travel with it.
fn make(root: &Path, version: u64) {
    let _ = fs::remove_dir_all(root);
    for at in 0..30 {
        let dir = root.join(format!("d{}", at % 4));
        fs::create_dir_all(&dir).expect("space");
        let len = if at % 10 == 0 { 150_000 } else { 2000 };
        fs::write(dir.join(format!("{at}")), noise(version * 100 + at, len)).expect("space");
    }
    fs::create_dir_all(root.join(format!("only-{}", version % 3))).expect("space");
}

/// Kills one of the two programs some time before or after the push would end; true when it had ended well.
fn killed(dir: &Scratch, args: &[&str], server: &mut Program, of_server: bool, moment: Duration) -> bool {
    let mut child =
        command(dir.path()).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    std::thread::sleep(moment);
    if of_server {
        server.kill();
    } else {
        let _ = child.kill();
    }
    child.wait().expect("it ends").success()
}

#[test]
fn whoever_is_killed_leaves_the_old_tree_or_the_new_one() {
    let (dir, root) = (Scratch::new(), Scratch::new());
    let mut server = Program::start(root.path());
    let (source, target) = (dir.join("tree"), root.join("tree"));
    let args = |server: &Program, more: &[&str]| {
        let url = server.url("tree");
        let all = ["push", "tree", &url, "--atomic", "--delete", "--force", "--no-state", "--quiet"];
        all.iter().chain(more).map(|arg| (*arg).to_owned()).collect::<Vec<_>>()
    };
    fn refs(args: &[String]) -> Vec<&str> {
        args.iter().map(String::as_str).collect()
    }
    make(&source, 0);
    let begun = Instant::now();
    deltasync(dir.path(), &refs(&args(&server, &[]))).fine();
    let usual = begun.elapsed();
    let (mut rng, mut old, mut phases) = (Rng::new(7), snapshot(&source), [0, 0]);
    for run in 1..=KILLS {
        make(&source, run);
        let new = snapshot(&source);
        let moment = usual.mul_f64(rng.below(120) as f64 / 100.0);
        let args_now = args(&server, &["--retries", "0"]);
        let done = killed(&dir, &refs(&args_now), &mut server, run % 2 == 0, moment);
        if run % 2 == 1 {
            // The server may still be at it, and whoever looks while the two trees are exchanged sees some of each.
            server.stop();
        }
        server = Program::start(root.path());
        let is = snapshot(&target);
        assert!(is == old || is == new, "run {run}: a mixture of two trees");
        assert!(!done || is == new, "run {run}: it was told to be done");
        phases[usize::from(is == new)] += 1;
        old = is;
        if run % 3 == 0 {
            // Another one than the one that was cut.
            make(&source, 1000 + run);
            deltasync(dir.path(), &refs(&args(&server, &[]))).fine();
            assert_equal(&source, &target);
            assert_eq!(root.names("."), [".deltasync", "tree"], "run {run}: what killed ones had left");
            old = snapshot(&source);
        }
    }
    println!("{KILLS} killed: {phases:?} old and new");
    assert!(phases[0] > 0, "all came too late");
}

#[test]
fn what_cannot_be_one_change_changes_nothing() {
    let (server, dir) = (Server::start(), Scratch::new());
    make(&dir.join("tree"), 1);
    let push = |to: &str| deltasync(dir.path(), &["push", "tree/", &server.url(to), "--atomic", "--no-state"]);
    push("").failed(4, "the whole directory cannot be replaced as one change");
    assert_eq!(server.dir.names("."), [".deltasync"]);
    push("deep/down/tree").fine();
    assert_equal(&dir.join("tree"), &server.dir.join("deep/down/tree"));
    // A file that cannot be sent keeps all others from being seen.
    let before = snapshot(&server.dir.join("deep/down/tree"));
    make(&dir.join("tree"), 2);
    let unreadable = dir.join("tree/d0/0");
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o000)).expect("ours");
    if fs::read(&unreadable).is_err() {
        assert_ne!(push("deep/down/tree").code, Some(0));
        assert!(snapshot(&server.dir.join("deep/down/tree")) == before);
    }
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o644)).expect("ours");
    push("deep/down/tree").fine();
    assert_eq!(server.dir.names("deep/down"), ["tree"]);
}
