//! The sandbox itself, in a thread that enters it and ends in it; and the real program inside it.
#![cfg(target_os = "linux")]

mod support;

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use deltasync_server::Sandbox;
use support::Server;
use tempfile::{TempDir, tempdir};

/// Enters the sandbox in a thread of its own, and runs `f` there: first with true before, then with false inside. What is
/// refused inside was possible before.
fn inside(directory: &Path, f: impl Fn(bool) + Send + Sync) {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                f(false);
                let status = Sandbox::On.enter(directory).expect("this kernel has it");
                assert!(status.starts_with("landlock"), "{status}");
                f(true);
            })
            .join()
            .expect("as it should be");
    });
}

fn check_refused<T>(inside: bool, done: io::Result<T>, what: &str) {
    match done {
        Ok(_) => assert!(!inside, "{what} works in the sandbox"),
        Err(error) => assert!(inside && error.kind() == ErrorKind::PermissionDenied, "{what}: {error}"),
    }
}

/// A directory to serve and one beside it that holds a file.
fn two() -> (TempDir, TempDir) {
    let (root, outside) = (tempdir().expect("made"), tempdir().expect("made"));
    fs::write(outside.path().join("secret"), "secret").expect("written");
    fs::write(root.path().join("file"), "content").expect("written");
    (root, outside)
}

#[test]
fn no_file_outside_is_read_written_made_or_removed() {
    let (root, outside) = two();
    symlink(outside.path(), root.path().join("link")).expect("linked");
    let secret = outside.path().join("secret");
    inside(root.path(), |inside| {
        check_refused(inside, File::open("/etc/passwd"), "/etc/passwd");
        check_refused(inside, File::open("/proc/self/status"), "/proc");
        check_refused(inside, File::open(&secret), "a file outside");
        check_refused(inside, File::open(root.path().join("link/secret")), "a file behind a link");
        check_refused(inside, fs::read_dir(outside.path()), "a directory outside");
        check_refused(inside, File::options().append(true).open(&secret), "to write outside");
        check_refused(inside, fs::write(outside.path().join("new"), ""), "to make a file outside");
        check_refused(
            inside,
            fs::create_dir(outside.path().join(format!("dir {inside}"))),
            "to make a directory outside",
        );
        let moved = root.path().join("file");
        if inside {
            // Between two places of which one is forbidden the kernel says that they are two devices.
            let error = fs::rename(&moved, outside.path().join("moved")).expect_err("out of the sandbox");
            assert!([ErrorKind::PermissionDenied, ErrorKind::CrossesDevices].contains(&error.kind()), "{error}");
            check_refused(inside, fs::remove_file(&secret), "to remove a file outside");
        } else {
            fs::rename(&moved, outside.path().join("moved")).expect("before");
            fs::rename(outside.path().join("moved"), &moved).expect("before");
        }
    });
    assert_eq!(fs::read(&secret).expect("still there"), b"secret");
}

#[test]
fn nothing_is_executed_bound_or_connected_and_no_pipe_is_made() {
    let (root, outside) = two();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let program = root.path().join("program");
    fs::copy("/bin/true", &program).expect("copied");
    inside(root.path(), |inside| {
        check_refused(inside, Command::new("/bin/true").status(), "/bin/true");
        check_refused(inside, Command::new(&program).status(), "a program inside");
        check_refused(inside, TcpListener::bind("127.0.0.1:0"), "to bind");
        check_refused(inside, TcpStream::connect(address), "to connect");
        // A tree has links, but they lead nowhere.
        let link = root.path().join(format!("link {inside}"));
        symlink("/etc/passwd", &link).expect("made below the root");
        check_refused(inside, File::open(&link), "what a link points to");
        let link = outside.path().join(format!("link {inside}"));
        check_refused(inside, symlink("/etc/passwd", link), "to make a link elsewhere");
        let pipe = root.path().join(format!("pipe {inside}"));
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let made = rustix::fs::mknodat(rustix::fs::CWD, pipe, rustix::fs::FileType::Fifo, mode, 0);
        check_refused(inside, made.map_err(std::io::Error::from), "to make a pipe");
    });
}

#[test]
fn what_a_server_does_works() {
    let (root, _outside) = two();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (connect, wanted) = std::sync::mpsc::channel();
    let outside =
        thread::spawn(move || wanted.iter().map(|()| TcpStream::connect(address)).filter(Result::is_ok).count());
    let at = |name: &str| root.path().join(name);
    inside(root.path(), |inside| {
        fs::create_dir_all(at("own/deep")).expect("made");
        fs::write(at("own/staged"), "staged").expect("written");
        fs::rename(at("own/staged"), at("own/deep/target")).expect("renamed");
        let _ = fs::remove_file(at("old"));
        fs::hard_link(at("own/deep/target"), at("old")).expect("linked");
        File::options().write(true).open(at("file")).expect("opened").set_len(3).expect("cut");
        assert_eq!(fs::read(at("own/deep/target")).expect("read"), b"staged");
        assert!(fs::read_dir(root.path()).expect("listed").count() >= 3);
        drop(UnixListener::bind(at("own/socket")).expect("bound"));
        fs::remove_file(at("own/socket")).expect("removed");
        fs::remove_dir_all(at("own")).expect("removed");
        // The socket was open before; who connects is outside.
        connect.send(()).expect("the other thread waits");
        listener.accept().unwrap_or_else(|error| panic!("to accept, inside: {inside}: {error}"));
    });
    drop(connect);
    assert_eq!(outside.join().expect("no panic"), 2);
}

#[test]
fn a_directory_that_is_not_there_is_an_error_and_off_restricts_nothing() {
    thread::spawn(|| {
        assert!(Sandbox::On.enter(Path::new("/nowhere/at/all")).is_err());
        Sandbox::Off.enter(Path::new("/nowhere/at/all")).expect("nothing to do");
        File::open("/etc/passwd").expect("not restricted");
    })
    .join()
    .expect("as it should be");
}

/// One line of what the system says of each thread of a process.
fn of_threads(process: u32, start: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let status = tasks.map(|task| fs::read_to_string(task.expect("listed").path().join("status")).expect("read"));
    let line = |status: String| status.lines().find(|line| line.starts_with(start)).expect("it is told").to_owned();
    status.map(line).collect()
}

#[test]
fn all_threads_of_the_program_are_inside() {
    for (more, privileges) in [(&["--sandbox", "on"][..], "NoNewPrivs:\t1"), (&["--sandbox", "off"], "NoNewPrivs:\t0")]
    {
        let server = Server::start(more);
        let threads = of_threads(server.id(), "NoNewPrivs:");
        assert!(threads.len() > 1 && threads.iter().all(|line| line == privileges), "{threads:?}");
        server.signal("TERM");
        let (status, log) = server.end();
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(log.contains("landlock, all rules"), more.contains(&"on"), "{log}");
    }
}
