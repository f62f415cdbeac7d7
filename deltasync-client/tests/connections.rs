//! Several connections at once: what there is to move is shared out, and all that holds for one holds for several.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::program::Program;
use common::snapshot::assert_equal;
use common::{Scratch, Server, deltasync, noise};
use deltasync_testkit::{Cut, CuttingRelay, Direction};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// A relay that gives each connection a rate of its own, towards the server.
struct Each {
    _runtime: Runtime,
    address: String,
    accepted: Arc<AtomicUsize>,
}

impl Each {
    fn start(to: &str, rate: usize) -> Self {
        let runtime = Runtime::new().expect("threads to be had");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let (accepted, to) = (Arc::<AtomicUsize>::default(), to.to_owned());
        let count = Arc::clone(&accepted);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(&to).await.expect("the server listens");
                let ((mut up, mut back), (mut down, mut on)) = (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut down, &mut back).await });
                tokio::spawn(async move {
                    let mut piece = vec![0; rate / 50];
                    while let Ok(got @ 1..) = up.read(&mut piece).await {
                        tokio::time::sleep(Duration::from_secs_f64(got as f64 / rate as f64)).await;
                        if on.write_all(&piece[..got]).await.is_err() {
                            return;
                        }
                    }
                    let _ = on.shutdown().await;
                });
            }
        });
        Self { _runtime: runtime, address, accepted }
    }

    fn accepted(&self) -> usize {
        self.accepted.swap(0, Ordering::SeqCst)
    }
}

/// A tree with so many large files of so many bytes, and a small one.
fn make_tree(dir: &Scratch, name: &str, members: u64, len: usize) {
    dir.mkdir(name);
    dir.write(&format!("{name}/small"), b"small");
    (0..members).for_each(|i| dir.write(&format!("{name}/large{i}"), &noise(members * 1000 + i, len)));
}

#[test]
fn several_connections_share_the_large_files_of_a_tree_and_several_sources() {
    let (root, dir) = (Scratch::new(), Scratch::new());
    let server = Program::start(root.path());
    let relay = Each::start(&server.address, 2_000_000);
    let url = |path: &str| format!("deltasync://{}/{path}", relay.address);
    for (connections, most) in [("1", 1), ("4", 4)] {
        // Content that is there under another name would not move.
        make_tree(&dir, "tree", if most == 1 { 23 } else { 24 }, 200_000);
        let to = format!("tree{connections}");
        let args = ["push", "tree", &url(&to), "--no-state", "--json", "--connections", connections];
        let json = deltasync(dir.path(), &args).fine().json();
        assert_eq!(relay.accepted(), most);
        assert_equal(&dir.join("tree"), &root.join(&to));
        let sent = json["wire_sent"].as_u64().expect("a number");
        assert!((4_600_000..5_000_000).contains(&sent), "{json}");
        assert!(json["members"].as_u64() >= Some(23), "{json}");
        let pulled = format!("pulled{connections}");
        deltasync(dir.path(), &["pull", &url(&format!("{to}/")), &pulled, "--connections", connections]).fine();
        assert_eq!(relay.accepted(), most);
        assert_equal(&dir.join("tree"), &dir.join(&pulled));
    }
    // Nothing that could be shared: one connection.
    deltasync(dir.path(), &["push", "tree", &url("tree4"), "--no-state", "--connections=8"]).fine();
    assert_eq!(relay.accepted(), 1);
    let sources: Vec<String> = (0..5).map(|i| format!("tree/large{i}")).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    deltasync(dir.path(), &[&["push", "--no-state", "--connections=3"], &sources[..], &[&url("files/")]].concat())
        .fine();
    assert_eq!(relay.accepted(), 3);
    assert_eq!(root.names("files").len(), 5);
    deltasync(dir.path(), &["push", "tree", "within", "--connections=4"]).fine();
    assert_equal(&dir.join("tree"), &dir.join("within"));
}

#[test]
fn connections_that_are_cut_leave_their_work_to_those_that_are_not() {
    let (server, dir) = (Server::start(), Scratch::new());
    for (round, cuts) in [[900_000, 300_000, 500_000], [50, 400_000, 10], [2_000_000, 1, 1]].into_iter().enumerate() {
        make_tree(&dir, &format!("tree{round}"), 20 + round as u64, 200_000);
        let cuts = cuts.map(|after| Cut { direction: Direction::Up, after });
        let relay = CuttingRelay::start(server.address, cuts).expect("a free port");
        let (name, url) = (format!("tree{round}"), format!("deltasync://{}/tree{round}", relay.address()));
        let ran = deltasync(dir.path(), &["push", &name, &url, "--no-state", "--connections=4", "--retries=8"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(relay.cut() > 0, "{cuts:?}");
        assert_equal(&dir.join(&name), &server.dir.join(&name));
    }
}

#[test]
fn all_connections_together_keep_to_one_bandwidth() {
    let (server, dir) = (Server::start(), Scratch::new());
    make_tree(&dir, "tree", 10, 200_000);
    let begun = Instant::now();
    let args = ["push", "tree", &server.url("tree"), "--no-state", "--connections=4", "--bwlimit=1M"];
    deltasync(dir.path(), &args).fine();
    let (sent, _) = server.carried();
    let least = (sent as f64 - 150_000.0) / (1 << 20) as f64;
    assert!(begun.elapsed().as_secs_f64() > least, "{sent} bytes in {:?}", begun.elapsed());
    assert_equal(&dir.join("tree"), &server.dir.join("tree"));
}

/// Prints what it gains; each connection is held to a rate.
/// More than may run at once: each waits for its large file.
#[test]
fn many_trees_leave_room_for_their_large_files() {
    for connections in ["1", "3"] {
        let (server, dir) = (Server::start(), Scratch::new());
        let names: Vec<String> = (0..50).map(|n| format!("tree{n}")).collect();
        for name in &names {
            dir.mkdir(name);
            dir.write(&format!("{name}/small"), name.as_bytes());
            dir.write(&format!("{name}/large"), &name.as_bytes().repeat(20_000));
        }
        let url = server.url("");
        let mut args = vec!["push", "--connections", connections];
        args.extend(names.iter().map(String::as_str));
        args.push(&url);
        deltasync(dir.path(), &args).fine();
        for name in &names {
            let large = format!("{name}/large");
            assert_eq!(server.dir.read(&large), dir.read(&large));
        }
    }
}

#[test]
#[ignore = "takes half a minute"]
fn four_connections_take_a_quarter_of_the_time_where_each_is_slow() {
    let (root, dir) = (Scratch::new(), Scratch::new());
    let server = Program::start(root.path());
    let mut took = Vec::new();
    for connections in ["1", "4"] {
        make_tree(&dir, "tree", if connections == "1" { 200 } else { 201 }, 1 << 20);
        let relay = Each::start(&server.address, 15 << 20);
        let (to, begun) = (format!("tree{connections}"), Instant::now());
        let url = format!("deltasync://{}/{to}", relay.address);
        deltasync(dir.path(), &["push", "tree", &url, "--no-state", "--connections", connections]).fine();
        took.push(begun.elapsed().as_secs_f64());
        println!("some 200 files of 1 MiB, 15 MiB/s each, {connections} connections: {:.1} s", took[took.len() - 1]);
    }
    assert!(took[1] < 0.6 * took[0], "{took:?}");
}
