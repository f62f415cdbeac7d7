//! The push of a tree, killed again and again at either end: it goes on where it was, and what it sends in all is bounded.
//!
//! `DELTASYNC_RELEASES` may name a directory with two trees, `old` and `new`, to push in place of those that are made here.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::program::Program;
use common::snapshot::{assert_holds, snapshot};
use common::{Scratch, command, noise};
use deltasync_testkit::{Direction, Relay, Rng};

/// How often something is killed.
const KILLS: u64 = 20;
/// Bytes a second between the two: a push takes some seconds.
const RATE: u64 = 8_000_000;

/// Some thousand small files and some large ones, of content that compresses to nothing; their bytes.
fn make_tree(dir: &Scratch) -> u64 {
    let mut all = 0;
    let mut write = |name: String, seed: u64, len: usize| {
        dir.write(&name, &noise(seed, len));
        all += len as u64;
    };
    for i in 0..3000_u64 {
        let at = format!("tree/dir{}/sub{}", i % 13, i % 7);
        if i < 100 {
            dir.mkdir(&at);
        }
        write(format!("{at}/file{i}"), i, 500 + (i as usize * 37) % 8000);
    }
    (0..5).for_each(|i| write(format!("tree/large{i}"), 10_000 + i, 4_000_000));
    all
}

/// A push that is killed again and again, of a directory to one of the same name below the root of a server.
struct Killed<'a> {
    dir: &'a Path,
    tree: &'a str,
    root: &'a Path,
    delay: Duration,
    rate: u64,
}

impl Killed<'_> {
    /// Kills client and server in turn, at random moments so far apart, and lets the push end. The bytes that were sent in
    /// all, and how often it was over before something was killed.
    fn run(&self, apart: std::ops::Range<Duration>, rng: &mut Rng) -> (u64, u32) {
        let mut server = Program::start(self.root);
        let address = server.address.clone();
        let relay = Relay::start(address.parse().expect("an address"), self.delay, self.rate).expect("a free port");
        let url = format!("deltasync://{}/{}", relay.address(), self.tree);
        let push = || -> Child {
            let mut push = command(self.dir);
            push.args([
                "push",
                self.tree,
                &url,
                "--state",
                "state",
                "--retries=1000",
                "--quiet",
                "--delete",
                "--force",
            ]);
            push.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
        };
        let mut client = push();
        let (mut killed, mut ended) = ([0, 0], 0);
        let span = (apart.end - apart.start).as_millis() as usize;
        for kill in 0..KILLS {
            sleep(apart.start + Duration::from_millis(rng.below(span) as u64));
            if client.try_wait().expect("our child").is_some() {
                ended += 1;
            }
            if kill % 2 == 0 {
                let _ = client.kill();
                let _ = client.wait();
                client = push();
            } else {
                server.kill();
                server = Program::start_at(&address, self.root);
            }
            killed[kill as usize % 2] += 1;
        }
        assert!(client.wait().expect("our child").success());
        println!("{} kills of the client and {} of the server, {ended} when all was done", killed[0], killed[1]);
        (relay.carried(Direction::Up), ended)
    }
}

/// A release of a package: some thousand text files in a hundred directories.
fn make_release(dir: &Scratch, name: &str, edition: u64) {
    let words = |seed: u64, lines: usize| -> Vec<u8> {
        let mut rng = Rng::new(seed);
        let mut word =
            || ["def ", "return ", "self.", "value", "name", "(", "):\n    ", " = ", "import ", "\n"][rng.below(10)];
        (0..lines * 8).map(|_| word()).collect::<String>().into_bytes()
    };
    for i in 0..2000_u64 {
        // Of a hundred files 8 are edited, 1 is new and 1 gone.
        let (is_edited, is_of) = (i % 100 < 8, [i % 100 != 98, i % 100 != 99][edition as usize]);
        if !is_of {
            continue;
        }
        let at = format!("{name}/part{}/sub{}", i % 17, i % 6);
        dir.mkdir(&at);
        let mut content = words(i, 5 + (i as usize * 7) % 400);
        if is_edited && edition == 1 {
            let middle = content.len() / 2;
            content.splice(middle..middle + 20, noise(i, 60));
        }
        dir.write(&format!("{at}/module{i}.py"), &content);
        let time =
            std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000 + if is_edited { edition * 1000 } else { i });
        let file = std::fs::File::open(dir.join(format!("{at}/module{i}.py"))).expect("ours");
        file.set_times(std::fs::FileTimes::new().set_modified(time)).expect("ours");
    }
}

#[test]
#[ignore = "takes half a minute"]
fn a_release_whose_push_is_killed_at_either_end_sends_little_more_than_one_that_is_not() {
    let (dir, mut rng) = (Scratch::new(), Rng::new(8));
    let (delay, rate) = (Duration::from_millis(5), 60_000);
    let made = std::env::var_os("DELTASYNC_RELEASES");
    for (edition, name) in [(0, "old"), (1, "new")] {
        match &made {
            None => make_release(&dir, name, edition),
            Some(releases) => std::os::unix::fs::symlink(Path::new(releases).join(name), dir.join(name)).expect("new"),
        }
    }
    // The old release is there, pushed in one go.
    let prepare = |root: &Scratch| {
        let server = Program::start(root.path());
        let mut push = command(dir.path());
        let args = ["push", "old/", &server.url("new"), "--no-state", "--quiet"];
        assert!(push.args(args).status().expect("the program starts").success());
    };
    let (undisturbed, takes) = {
        let root = Scratch::new();
        prepare(&root);
        let server = Program::start(root.path());
        let relay = Relay::start(server.address.parse().expect("an address"), delay, rate).expect("a free port");
        let url = format!("deltasync://{}/new", relay.address());
        let mut push = command(dir.path());
        let args = ["push", "new/", &url, "--no-state", "--quiet", "--delete", "--force"];
        let begun = Instant::now();
        assert!(push.args(args).status().expect("the program starts").success());
        println!("undisturbed: {} bytes sent in {:.1} s", relay.carried(Direction::Up), begun.elapsed().as_secs_f64());
        (relay.carried(Direction::Up), begun.elapsed())
    };
    let root = Scratch::new();
    prepare(&root);
    let push = Killed { dir: dir.path(), tree: "new", root: root.path(), delay, rate };
    let (sent, ended) = push.run(takes / 16..takes / 4, &mut rng);
    println!("{sent} bytes sent in all, {:.2} times as many", sent as f64 / undisturbed as f64);
    let mut target = snapshot(&root.join("new"));
    target.retain(|path, _| !String::from_utf8_lossy(path).contains(".deltasync-"));
    assert_holds(&snapshot(&std::fs::canonicalize(dir.join("new")).expect("there")), &target, &BTreeMap::new());
    assert!(ended <= 10, "it was over too soon");
    // Each time the two are compared anew, and what was on its way is sent again: less than half of all.
    assert!(sent < (1 + KILLS / 2) * undisturbed, "{sent} bytes, and {undisturbed} undisturbed");
}

#[test]
#[ignore = "takes half a minute"]
fn a_tree_whose_push_is_killed_at_either_end_goes_on_and_sends_little_again() {
    let (root, dir, mut rng) = (Scratch::new(), Scratch::new(), Rng::new(7));
    let all = make_tree(&dir);
    let push = Killed { dir: dir.path(), tree: "tree", root: root.path(), delay: Duration::ZERO, rate: RATE };
    let (sent, ended) = push.run(Duration::from_millis(50)..Duration::from_millis(550), &mut rng);
    println!("{all} bytes in a tree: {sent} bytes sent, {:.2} times as many", sent as f64 / all as f64);
    let mut target = snapshot(&root.join("tree"));
    // What a killed server was about to put in place stays under hidden names, which are nobody's.
    target.retain(|path, _| !String::from_utf8_lossy(path).contains(".deltasync-"));
    assert_holds(&snapshot(&dir.join("tree")), &target, &BTreeMap::new());
    assert!(ended <= 5, "it was over too soon");
    // A kill costs what was on its way, and small files that were to share a sync: 2 MiB at this rate.
    assert!(sent < all + KILLS * (2 << 20), "{sent} bytes for {all}");
}
