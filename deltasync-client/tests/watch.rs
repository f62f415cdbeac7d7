//! A directory that is watched: what changes in it is at the destination soon, whatever happens to the server.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::program::Program;
use common::snapshot::{assert_equal, snapshot};
use common::{Scratch, Server, command, deltasync, noise};
use deltasync_client::{ClientError, Options, Place, Retries, Update, WatchOptions, WatchSummary, WatchUpdate, watch};
use deltasync_proto::{Extra, TreeOptions};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Far more than any of these takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A watch that runs in a thread.
struct Watching {
    cancel: CancellationToken,
    told: Receiver<Told>,
    thread: JoinHandle<Result<WatchSummary, ClientError>>,
}

/// What a watch tells, as far as tests want to know.
#[derive(Debug)]
enum Told {
    /// Whether something has changed.
    Pushed(bool),
    Retrying,
    Other,
}

impl Watching {
    /// With --delete, little patience, and no comparison without a notice.
    fn start(source: &Path, url: &str) -> Self {
        let (source, place) = (source.to_owned(), Place::parse(url.as_ref()).expect("a place"));
        let (cancel, (tell, told)) = (CancellationToken::new(), channel());
        let token = cancel.clone();
        let thread = thread::spawn(move || {
            let (first, longest) = (Duration::from_millis(10), Duration::from_millis(100));
            let retries = Retries { most: 0, first, longest };
            let options = Options::default()
                .tree(TreeOptions::default().extra(Extra::Delete { most: Some(u64::MAX) }))
                .retries(retries);
            let mut watching = WatchOptions::default();
            (watching.settle, watching.every) = (Duration::from_millis(50), Duration::from_secs(86_400));
            let report = |update| {
                let told = match update {
                    WatchUpdate::Pushed { changed, .. } => Told::Pushed(changed),
                    WatchUpdate::Push(Update::Retrying(_)) => Told::Retrying,
                    _ => Told::Other,
                };
                let _ = tell.send(told);
            };
            let runtime = Runtime::new().expect("threads to be had");
            runtime.block_on(watch(&source, &place, &options, &watching, &token, report))
        });
        Self { cancel, told, thread }
    }

    /// Waits for a push after which this holds.
    #[track_caller]
    fn until(&self, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            loop {
                match self.told.recv_timeout(end.saturating_duration_since(Instant::now())) {
                    Ok(Told::Pushed(..)) => break,
                    Ok(_) => {}
                    Err(error) => panic!("{error}: no push has made it so"),
                }
            }
        }
    }

    #[track_caller]
    fn until_equal(&self, source: &Path, target: &Path) {
        self.until(|| target.exists() && snapshot(source) == snapshot(target));
    }

    /// Waits for something that is told.
    #[track_caller]
    fn told(&self, is_it: impl Fn(&Told) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.told.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(told) if is_it(&told) => return,
                Ok(_) => {}
                Err(error) => panic!("{error}: it has not told that"),
            }
        }
    }

    fn end(self) -> Result<WatchSummary, ClientError> {
        self.cancel.cancel();
        self.thread.join().expect("no panic")
    }
}

#[test]
fn whatever_changes_is_there_soon() {
    let (server, dir) = (Server::start(), Scratch::new());
    let (source, target) = (dir.join("tree"), server.dir.join("tree"));
    dir.mkdir("tree/a/b");
    dir.write("tree/a/file", &noise(1, 5000));
    dir.write("tree/large", &noise(2, 300_000));
    let watching = Watching::start(&source, &server.url("tree"));
    watching.until_equal(&source, &target);
    let steps: [&dyn Fn(); 11] = [
        &|| dir.write("tree/a/file", &noise(3, 6000)),
        &|| dir.write("tree/large", &noise(4, 300_000)),
        &|| fs::rename(dir.join("tree/a/file"), dir.join("tree/a/b/moved")).expect("there"),
        &|| fs::remove_file(dir.join("tree/large")).expect("there"),
        &|| dir.mkdir("tree/new/deep/er"),
        &|| dir.write("tree/new/deep/er/file", b"in a directory that was made later"),
        &|| fs::rename(dir.join("tree/new"), dir.join("tree/a/renamed")).expect("there"),
        &|| dir.write("tree/a/renamed/deep/er/file", b"in a directory that was moved"),
        &|| symlink("../nowhere", dir.join("tree/link")).expect("new"),
        &|| {
            let made = Command::new("chmod").arg("700").arg(dir.join("tree/a/b/moved")).status();
            assert!(made.expect("there is chmod").success());
        },
        &|| fs::remove_dir_all(dir.join("tree/a")).expect("there"),
    ];
    for step in steps {
        step();
        watching.until_equal(&source, &target);
    }
    let summary = watching.end().expect("it was cancelled");
    assert!(summary.changed >= 12 && summary.compared >= summary.changed, "{summary:?}");
    assert!(summary.carried.wire_sent > 600_000, "{summary:?}");
}

#[test]
fn a_directory_is_kept_equal_within_this_machine() {
    let dir = Scratch::new();
    dir.mkdir("tree/sub");
    let (source, target) = (dir.join("tree"), dir.join("copy"));
    let watching = Watching::start(&source, target.to_str().expect("text"));
    watching.until_equal(&source, &target);
    dir.write("tree/sub/file", b"new");
    watching.until_equal(&source, &target);
    watching.end().expect("it was cancelled");
}

#[test]
fn a_server_that_is_killed_and_comes_back_has_all_that_changed_meanwhile() {
    let (root, dir) = (Scratch::new(), Scratch::new());
    let (source, target) = (dir.join("tree"), root.join("tree"));
    dir.mkdir("tree/sub");
    dir.write("tree/sub/file", &noise(1, 5000));
    let mut server = Program::start(root.path());
    let watching = Watching::start(&source, &server.url("tree"));
    watching.until_equal(&source, &target);
    for round in 0..3 {
        server.kill();
        dir.write("tree/sub/file", &noise(10 + round, 5000));
        watching.told(|told| matches!(told, Told::Retrying));
        // It is at it, and what comes now is not what it began with.
        dir.mkdir(&format!("tree/new{round}/deep"));
        dir.write(&format!("tree/new{round}/deep/large"), &noise(20 + round, 200_000));
        if round == 2 {
            fs::remove_dir_all(dir.join("tree/new0")).expect("there");
        }
        server = Program::start_at(&server.address.clone(), root.path());
        watching.until_equal(&source, &target);
    }
    watching.end().expect("it was cancelled");
}

/// Writes, makes and deletes below a directory until it is told to stop.
fn churn(source: &Path, stop: &CancellationToken) -> JoinHandle<()> {
    let (source, stop) = (source.to_owned(), stop.clone());
    thread::spawn(move || {
        for i in 0_u64.. {
            fs::write(source.join("log"), noise(i, 100_000)).expect("space");
            fs::create_dir_all(source.join(format!("dir{}", i % 7))).expect("space");
            fs::write(source.join(format!("dir{}/{}", i % 7, i % 50)), noise(i, 3000)).expect("space");
            if i % 11 == 0 {
                let _ = fs::remove_dir_all(source.join(format!("dir{}", i % 5)));
            }
            if stop.is_cancelled() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    })
}

#[test]
fn what_changes_all_the_time_is_pushed_meanwhile_and_equal_in_the_end() {
    for quiet_at_first in [true, false] {
        let (server, dir) = (Server::start(), Scratch::new());
        let (source, target) = (dir.join("tree"), server.dir.join("tree"));
        dir.mkdir("tree");
        let stop = CancellationToken::new();
        let early = (!quiet_at_first).then(|| churn(&source, &stop));
        let watching = Watching::start(&source, &server.url("tree"));
        if quiet_at_first {
            watching.until_equal(&source, &target);
        }
        let writer = early.unwrap_or_else(|| churn(&source, &stop));
        // Nothing is ever quiet, so it does not wait for that.
        for _ in 0..3 {
            watching.told(|told| matches!(told, Told::Pushed(true)));
        }
        stop.cancel();
        writer.join().expect("no panic");
        watching.until_equal(&source, &target);
        watching.end().expect("it was cancelled");
    }
}

#[test]
fn a_directory_that_goes_or_is_replaced_ends_it() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.mkdir("tree");
    dir.write("tree/file", b"x");
    let watching = Watching::start(&dir.join("tree"), &server.url("tree"));
    watching.until_equal(&dir.join("tree"), &server.dir.join("tree"));
    fs::rename(dir.join("tree"), dir.join("gone")).expect("there");
    let error = watching.thread.join().expect("no panic").expect_err("it is not there any more");
    assert!(matches!(error, ClientError::File { doing: "watch", .. }), "{error:?}");

    // As deployments do: one link takes the place of another.
    let link = |to: &str| {
        symlink(to, dir.join("link")).expect("new");
        fs::rename(dir.join("link"), dir.join("current")).expect("there");
    };
    dir.mkdir("other");
    link("gone");
    let watching = Watching::start(&dir.join("current"), &server.url("tree"));
    watching.told(|told| matches!(told, Told::Pushed(..)));
    link("other");
    dir.write("gone/file", b"y");
    let error = watching.thread.join().expect("no panic").expect_err("it is another one");
    assert!(matches!(error, ClientError::Replaced { .. }), "{error:?}");
    assert_eq!(server.dir.read("tree/file"), b"x", "nothing was pushed of either");
}

#[test]
fn what_cannot_work_ends_it_at_the_start() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.mkdir("tree");
    dir.mkdir("other");
    dir.write("file", b"x");
    server.dir.write("there", b"a file");
    let run = |source: &str, path: &str| deltasync(dir.path(), &["watch", source, &server.url(path), "--no-state"]);
    run("file", "tree").failed(2, "file is not a directory");
    run("missing", "tree").failed(1, "cannot watch missing");
    run("tree", "there").failed(4, "not a directory");
    deltasync(dir.path(), &["watch", "tree", "other", "copy"]).failed(2, "2 sources are given");
    deltasync(dir.path(), &["watch", &server.url("x"), "copy"]).failed(2, "use `pull`");
    let nobody = "deltasync://host.invalid/x";
    deltasync(dir.path(), &["watch", "tree", nobody]).failed(3, "cannot find the address");
}

/// The program: a line for each push that changed something, and Ctrl-C.
#[test]
fn the_program_prints_what_it_pushed_and_ends_with_a_summary() {
    let (server, dir) = (Server::start(), Scratch::new());
    for json in [false, true] {
        let name = if json { "json" } else { "text" };
        dir.mkdir(name);
        dir.write(&format!("{name}/a"), b"x");
        let url = server.url(name);
        let more = if json { &["--json"][..] } else { &[] };
        let mut child = command(dir.path())
            .args([&["watch", name, &url, "--no-state", "--settle=20", "--delete", "--force"], more].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut line = || lines.next().expect("a line").expect("text");
        let first = line();
        dir.write(&format!("{name}/b"), b"y");
        let second = line();
        assert_equal(&dir.join(name), &server.dir.join(name));
        let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(interrupted.expect("there is kill").success());
        let last = line();
        assert_eq!(child.wait().expect("it ends").code(), Some(130));
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        assert!(said.lines().all(|line| line.starts_with("deltasync: waiting ")), "{said}");
        if json {
            let object = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("an object");
            assert_eq!((&object(&first)["files"], &object(&second)["files"]), (&1.into(), &1.into()));
            let last = object(&last);
            assert!(last["compared"].as_u64() >= Some(2) && last["changed"] == 2, "{last}");
        } else {
            assert!(first.starts_with("pushed 1 tree, ") && second.starts_with("pushed 1 tree, "), "{first}\n{second}");
            assert!(last.starts_with("compared ") && last.contains(" times, 2 of them with changes: "), "{last}");
        }
    }
}

fn git(dir: &Path, args: &[&str]) {
    let mut git = Command::new("git");
    git.current_dir(dir).args(["-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"]).args(args);
    for (name, value) in [("NAME", "T"), ("EMAIL", "t@example.com"), ("DATE", "2024-01-01T00:00:00Z")] {
        git.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
    }
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = git.output().expect("there is git");
    assert!(output.status.success(), "git {args:?}: {output:?}");
}

/// Needs `git`.
#[test]
#[ignore = "needs git"]
fn a_checkout_that_switches_between_two_tags_is_equal_each_time() {
    let (server, dir) = (Server::start(), Scratch::new());
    let (source, target) = (dir.join("repo"), server.dir.join("repo"));
    dir.mkdir("repo");
    git(&source, &["init", "-q", "-b", "main"]);
    for (version, seed) in [("v1", 100), ("v2", 200)] {
        // Some files stay, some change, some come and go with their directories.
        for i in 0..300_u64 {
            let at =
                if i % 4 == 0 { format!("repo/{version}/sub{}", i % 3) } else { format!("repo/src/part{}", i % 5) };
            dir.mkdir(&at);
            let content = noise(if i % 2 == 0 { seed + i } else { i }, 2000 + 37 * i as usize);
            dir.write(&format!("{at}/file{i}"), &content);
        }
        dir.write("repo/asset", &noise(seed, 200_000));
        git(&source, &["add", "-A"]);
        git(&source, &["commit", "-q", "-m", version]);
        git(&source, &["tag", version]);
        if version == "v1" {
            git(&source, &["rm", "-q", "-r", "v1"]);
        }
    }
    let watching = Watching::start(&source, &server.url("repo"));
    watching.until_equal(&source, &target);
    for round in 0..10 {
        let tag = if round % 2 == 0 { "v1" } else { "v2" };
        git(&source, &["checkout", "-q", tag]);
        watching.until_equal(&source, &target);
        assert!(target.join(tag).is_dir(), "round {round}");
    }
    let summary = watching.end().expect("it was cancelled");
    println!("10 checkouts: {}", summary.line());
}
