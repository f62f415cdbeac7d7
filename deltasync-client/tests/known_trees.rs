//! What pushes of directories remember, seen from outside: the program, a server behind a relay that counts, and a state
//! directory.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Scratch, Server, deltasync, noise};
use serde_json::Value;

/// All paths below a directory with their times and contents.
fn see(directory: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let (mut left, mut seen) = (vec![directory.to_owned()], BTreeMap::new());
    while let Some(at) = left.pop() {
        let is = fs::symlink_metadata(&at).expect("it is there");
        let content = if is.is_dir() { Vec::new() } else { fs::read(&at).expect("readable") };
        if is.is_dir() {
            left.extend(fs::read_dir(&at).expect("readable").map(|entry| entry.expect("an entry").path()));
        }
        let path = at.strip_prefix(directory).expect("below").to_owned();
        seen.insert(path, (is.modified().expect("known"), content));
    }
    seen
}

/// 300 files in some directories, and `large` ones that go by themselves.
fn make_tree(dir: &Scratch, large: u64) {
    for sub in 0..10 {
        dir.mkdir(&format!("tree/{sub}"));
    }
    (0..300).for_each(|i| dir.write(&format!("tree/{}/{i}", i % 10), &noise(i, 1000)));
    (0..large).for_each(|i| dir.write(&format!("tree/{}/large{i}", i % 10), &noise(1000 + i, 100_000)));
}

/// An edit of a few bytes, a second later than the last.
fn edit(dir: &Scratch, name: &str, time: u64) {
    let mut bytes = dir.read(name);
    bytes.iter_mut().skip(500).take(5).for_each(|byte| *byte ^= 0x55);
    dir.write(name, &bytes);
    let modified = UNIX_EPOCH + Duration::new(1_700_000_000 + time, 7);
    File::options().write(true).open(dir.join(name)).and_then(|file| file.set_modified(modified)).expect("ours");
}

/// Pushes `tree`, remembering in `state`, and sees that it arrives.
#[track_caller]
fn push(dir: &Scratch, server: &Server, more: &[&str]) -> Value {
    let url = server.url("tree");
    server.carried();
    let args = [&["push", "tree", &url, "--state", "state", "--json"], more].concat();
    let summary = deltasync(dir.path(), &args).fine().json();
    let wire = ["wire_sent", "wire_received"].map(|key| summary[key].as_u64().expect("a number"));
    assert_eq!((wire[0], wire[1]), server.carried(), "{summary}");
    let (here, there) = (see(&dir.join("tree")), see(&server.dir.join("tree")));
    assert!(here.iter().all(|(path, node)| there.get(path) == Some(node)), "{summary}");
    summary
}

/// All bytes on the wire, and round trips.
fn cost(summary: &Value) -> (u64, u64) {
    let number = |key: &str| summary[key].as_u64().expect("a number");
    assert!(number("round_trips") > 1 || number("known") == 1, "{summary}");
    (number("wire_sent") + number("wire_received"), number("round_trips"))
}

#[test]
fn an_edit_in_a_remembered_tree_costs_one_round_trip() {
    for keep in ["auto", "copy", "sums"] {
        let (dir, server) = (Scratch::new(), Server::start());
        make_tree(&dir, 0);
        push(&dir, &server, &["--keep", keep]);
        for time in 0..3 {
            edit(&dir, "tree/3/33", time);
            let (wire, round_trips) = cost(&push(&dir, &server, &["--keep", keep]));
            assert!(wire < 500 && round_trips == 1, "{keep}: {wire} bytes, {round_trips} round trips");
        }
        let (wire, round_trips) = cost(&push(&dir, &server, &["--keep", keep]));
        assert!(wire < 200 && round_trips == 1, "{keep}, unchanged: {wire} bytes, {round_trips} round trips");
    }
}

#[test]
fn files_that_go_by_themselves_are_remembered_with_their_tree() {
    let (dir, server) = (Scratch::new(), Server::start());
    make_tree(&dir, 5);
    let first = push(&dir, &server, &[]);
    assert_eq!(first["members"], 5, "{first}");
    let (wire, round_trips) = cost(&push(&dir, &server, &[]));
    assert!(wire < 200 && round_trips == 1, "unchanged: {wire} bytes, {round_trips} round trips");
    edit(&dir, "tree/2/large2", 1);
    edit(&dir, "tree/2/2", 1);
    let summary = push(&dir, &server, &[]);
    // The tree with the file beside it, and that it is complete.
    let (wire, round_trips) = cost(&summary);
    assert!(wire < 500 && round_trips == 2, "{wire} bytes, {round_trips} round trips");
    assert_eq!((&summary["members"], &summary["repairs"]), (&1.into(), &0.into()), "{summary}");
}

#[test]
fn where_the_server_has_more_nothing_is_presumed_that_would_be_wrong() {
    let (dir, server) = (Scratch::new(), Server::start());
    make_tree(&dir, 0);
    push(&dir, &server, &[]);
    fs::remove_file(dir.join("tree/4/44")).expect("there");
    assert_eq!(cost(&push(&dir, &server, &[])).1, 1, "it knew what was there");
    edit(&dir, "tree/5/55", 1);
    assert_eq!(cost(&push(&dir, &server, &[])).1, 2, "as if nothing were remembered");
    push(&dir, &server, &["--delete"]);
    assert!(!server.dir.join("tree/4/44").exists());
    edit(&dir, "tree/5/55", 2);
    assert_eq!(cost(&push(&dir, &server, &[])).1, 1);
}

/// Carries two connections, and gives what the second client sent.
fn record(to: SocketAddr) -> (SocketAddr, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let carry = move || {
        let mut sent = Vec::new();
        for _ in 0..2 {
            let (mut client, _) = listener.accept().expect("it connects");
            let mut server = TcpStream::connect(to).expect("it listens");
            let (mut answers, mut back) = (server.try_clone().expect("open"), client.try_clone().expect("open"));
            let down = thread::spawn(move || {
                // How it ends is for the client to say.
                let _ = std::io::copy(&mut answers, &mut back);
                let _ = back.shutdown(Shutdown::Write);
            });
            sent.clear();
            let mut piece = [0; 4096];
            while let Ok(got @ 1..) = client.read(&mut piece) {
                sent.extend_from_slice(&piece[..got]);
                server.write_all(&piece[..got]).expect("carried");
            }
            let _ = server.shutdown(Shutdown::Write);
            down.join().expect("carried");
        }
        sent
    };
    (address, thread::spawn(carry))
}

/// A first flight brings A to B at once. Once somebody has brought B back to A, it publishes nothing, though all is as it
/// was when it was sent.
#[test]
fn a_recording_of_a_first_flight_publishes_nothing() {
    let (dir, server) = (Scratch::new(), Server::start());
    make_tree(&dir, 0);
    edit(&dir, "tree/1/1", 1);
    let (address, recorded) = record(server.address);
    let url = format!("deltasync://{address}/tree");
    let push_recorded = || deltasync(dir.path(), &["push", "tree", &url, "--state", "relayed", "--json"]).fine().json();
    push_recorded();
    let before = see(&server.dir.join("tree"));
    edit(&dir, "tree/1/1", 2);
    let summary = push_recorded();
    assert_eq!(summary["round_trips"], 1, "{summary}");
    let flight = recorded.join().expect("carried");
    let after = see(&server.dir.join("tree"));
    assert_ne!(before, after);

    let replay = || {
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        stream.write_all(&flight).expect("sent");
        stream.shutdown(Shutdown::Write).expect("open");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        assert!(!answer.is_empty());
    };
    replay();
    assert!(see(&server.dir.join("tree")) == after, "it is there already");
    // The same edit once more undoes it.
    edit(&dir, "tree/1/1", 1);
    push(&dir, &server, &[]);
    assert!(see(&server.dir.join("tree")) == before, "it is brought back");
    replay();
    assert!(see(&server.dir.join("tree")) == before, "a recording has undone that");
}
