//! `--bwlimit`, by the program itself.

mod common;

use std::time::{Duration, Instant};

use common::{Scratch, Server, deltasync, noise};

#[test]
fn a_limited_push_and_pull_take_their_time() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.mkdir("tree");
    dir.write("tree/small", &noise(1, 30_000));
    dir.write("tree/large", &noise(2, 300_000));
    server.dir.write("file", &noise(3, 330_000));
    let (push, pull) = (server.url("tree"), server.url("file"));
    for args in [["push", "tree", &push, "--bwlimit=128"], ["pull", &pull, "file", "--bwlimit=0.125M"]] {
        server.carried();
        let begun = Instant::now();
        deltasync(dir.path(), &args).fine();
        let (took, (sent, received)) = (begun.elapsed(), server.carried());
        // A tenth of a second may go at once, and what the systems hold counts when it has moved.
        let least = Duration::from_secs_f64((sent + received) as f64 / f64::from(128 << 10)) * 9 / 10;
        assert!(took >= least, "{args:?}: {took:?} for {sent} and {received} bytes, {least:?} at least");
    }
    assert_eq!(server.dir.read("tree/large"), dir.read("tree/large"));
    deltasync(dir.path(), &["pull", &pull, "file", "--bwlimit=31"]).failed(2, "32768 are the least");
}

/// A tree waits for its large files, and they find room beside it however little there is.
#[test]
fn a_tree_with_large_files_goes_at_the_lowest_rate() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.mkdir("tree");
    for name in ["one", "two", "three"] {
        dir.write(&format!("tree/{name}"), &name.as_bytes().repeat(50_000));
    }
    deltasync(dir.path(), &["push", "tree", &server.url("tree"), "--bwlimit=32", "--retries=0"]).fine();
    for name in ["one", "two", "three"] {
        assert_eq!(server.dir.read(&format!("tree/{name}")), dir.read(&format!("tree/{name}")));
    }
}
