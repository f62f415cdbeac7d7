//! The push of a tree, killed again and again at either end: it goes on where it was, and what it sends in all is bounded.

mod common;

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

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

#[test]
#[ignore = "takes half a minute"]
fn a_tree_whose_push_is_killed_at_either_end_goes_on_and_sends_little_again() {
    let (root, dir, mut rng) = (Scratch::new(), Scratch::new(), Rng::new(7));
    let all = make_tree(&dir);
    let mut server = Program::start(root.path());
    let address = server.address.clone();
    let relay = Relay::start(address.parse().expect("an address"), Duration::ZERO, RATE).expect("a free port");
    let url = format!("deltasync://{}/tree", relay.address());
    let push = || -> Child {
        let mut push = command(dir.path());
        push.args(["push", "tree", &url, "--state", "state", "--retries=1000", "--quiet"]);
        push.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
    };
    let mut client = push();
    let (mut killed, mut ended) = ([0, 0], 0);
    for kill in 0..KILLS {
        sleep(Duration::from_millis(50 + rng.below(500) as u64));
        if client.try_wait().expect("our child").is_some() {
            ended += 1;
        }
        if kill % 2 == 0 {
            let _ = client.kill();
            let _ = client.wait();
            client = push();
        } else {
            server.kill();
            server = Program::start_at(&address, root.path());
        }
        killed[kill as usize % 2] += 1;
    }
    assert!(client.wait().expect("our child").success());
    let sent = relay.carried(Direction::Up);
    println!(
        "{all} bytes in a tree; {} kills of the client and {} of the server, {ended} when all was done: {sent} bytes sent, \
         {:.2} times as many",
        killed[0],
        killed[1],
        sent as f64 / all as f64,
    );
    let mut target = snapshot(&root.join("tree"));
    // What a killed server was about to put in place stays under hidden names, which are nobody's.
    target.retain(|path, _| !String::from_utf8_lossy(path).contains(".deltasync-"));
    assert_holds(&snapshot(&dir.join("tree")), &target, &BTreeMap::new());
    assert!(ended <= 5, "it was over too soon");
    // A kill costs what was on its way, and small files that were to share a sync: 2 MiB at this rate.
    assert!(sent < all + KILLS * (2 << 20), "{sent} bytes for {all}");
}
