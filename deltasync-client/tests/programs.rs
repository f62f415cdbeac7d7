//! Both programs as an operator runs them: what they hold in memory, and what happens when the world fails.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use common::program::Program;
use common::{Ran, Scratch, Server, command, deltasync, noise};

/// The most memory that a process ever held, in bytes.
fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}

/// Runs the program to its end and tells the most memory that was seen in it, in bytes.
fn watched(dir: &Path, args: &[&str]) -> (Ran, u64) {
    let mut child =
        command(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut most = 0;
    while child.try_wait().expect("our child").is_none() {
        most = most.max(peak(child.id()).unwrap_or(0));
        thread::sleep(std::time::Duration::from_millis(20));
    }
    (Ran::new(child.wait_with_output().expect("it has ended")), most)
}

/// Lets one connection through, and cuts it when so many bytes have gone to the server.
fn cutting_relay(server: SocketAddr, after: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("the client comes");
        let mut server = TcpStream::connect(server).expect("the server listens");
        let (mut back, mut to_client) = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
        thread::spawn(move || std::io::copy(&mut back, &mut to_client));
        let mut piece = [0; 4096];
        let mut left = after;
        while left > 0 {
            let most = piece.len().min(left);
            let Ok(got @ 1..) = client.read(&mut piece[..most]) else { break };
            if server.write_all(&piece[..got]).is_err() {
                break;
            }
            left -= got;
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
    address
}

#[test]
fn a_connection_cut_in_the_middle_of_a_delta_changes_nothing_and_the_next_try_succeeds() {
    let (dir, server) = (Scratch::new(), Server::start());
    let old = noise(1, 2 << 20);
    server.dir.write("file", &old);
    let new = [&old[..1 << 20], &noise(2, 2 << 20)].concat();
    dir.write("file", &new);
    // The tags of 3 MiB are about 9 KB, so this is well into the 2 MiB of literals.
    let relay = cutting_relay(server.address, 1 << 20);
    let url = format!("deltasync://{relay}/file");
    deltasync(dir.path(), &["push", "file", &url, "--retries=0"]).failed(1, "connection");
    assert_eq!(server.dir.read("file"), old, "the old file is whole");
    assert_eq!(server.dir.names("."), [".deltasync", "file"]);
    deltasync(dir.path(), &["push", "file", &server.url("file"), "-q"]).fine();
    assert_eq!(server.dir.read("file"), new);
}

#[test]
#[ignore = "takes a minute and 8 GiB of disk: run .ci/run"]
fn a_sparse_file_of_4_gib_passes_within_128_mib_at_either_end() {
    const MOST: u64 = 128 << 20;
    let (dir, root) = (Scratch::new(), Scratch::new());
    let server = Program::start(root.path());
    let sparse = File::create(dir.join("sparse")).expect("space");
    sparse.set_len(4 << 30).expect("a sparse file");
    let (ran, first) = watched(dir.path(), &["push", "sparse", &server.url(""), "--json"]);
    assert_eq!(ran.fine().json()["bytes_target"], 4_u64 << 30);
    let mut sparse = File::options().write(true).open(dir.join("sparse")).expect("there");
    std::io::Seek::seek(&mut sparse, std::io::SeekFrom::Start(3 << 30)).expect("within the file");
    sparse.write_all(b"an edit").expect("space");
    let (ran, second) = watched(dir.path(), &["push", "sparse", &server.url(""), "--json"]);
    let summary = ran.fine().json();
    assert!(summary["wire_sent"].as_u64() < Some(10_000), "{summary}");
    let served = peak(server.child.id()).expect("the server runs");
    println!("peaks: {first}, {second} bytes in the client, {served} in the server");
    assert!(first.max(second) < MOST, "{first}, {second} bytes in the client");
    assert!(served < MOST, "{served} bytes in the server");
}

#[test]
#[ignore = "needs root to mount a tmpfs: run .ci/run"]
fn a_full_disk_is_told_and_the_old_file_stays() {
    let (dir, root) = (Scratch::new(), Scratch::new());
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=20m", "tmpfs"]).arg(root.path()).status();
    assert!(mounted.expect("mount starts").success(), "mounting needs root");
    let server = Program::start(root.path());
    let old = noise(3, 12 << 20);
    dir.write("file", &old);
    deltasync(dir.path(), &["push", "file", &server.url(""), "-q"]).fine();
    dir.write("file", &[&b"x"[..], &old].concat());
    deltasync(dir.path(), &["push", "file", &server.url("")]).failed(4, "no room for 12582913 bytes");
    assert_eq!(root.read("file"), old);
    assert_eq!(root.names(".deltasync/staging"), [""; 0]);
    drop(server);
    let unmounted = Command::new("umount").arg(root.path()).status();
    assert!(unmounted.expect("umount starts").success());
}

#[test]
#[ignore = "needs pip and a package registry: run .ci/run"]
fn the_next_release_of_a_package_costs_a_part_of_it() {
    let (dir, root) = (Scratch::new(), Scratch::new());
    let server = Program::start(root.path());
    for version in ["5.1.1", "5.1.2"] {
        let script = format!(
            "set -e; pip download -q --no-deps --disable-pip-version-check -d {version} django=={version}; \
             mkdir tree-{version}; cd tree-{version}; python3 -m zipfile -e ../{version}/*.whl .; \
             tar --sort=name -cf ../{version}.tar *"
        );
        let output = Command::new("sh").arg("-c").arg(script).current_dir(dir.path()).output().expect("a shell");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(dir.join(format!("{version}.tar")), dir.join("release.tar")).expect("one directory");
        let summary = deltasync(dir.path(), &["push", "release.tar", &server.url(""), "--json"]).fine().json();
        println!("{version}: {summary}");
        assert_eq!(root.read("release.tar"), dir.read("release.tar"));
        if version == "5.1.2" {
            let sent = summary["wire_sent"].as_u64().expect("a number");
            let whole = summary["bytes_target"].as_u64().expect("a number");
            assert!(sent * 10 < whole, "{sent} of {whole} bytes");
        }
    }
}
