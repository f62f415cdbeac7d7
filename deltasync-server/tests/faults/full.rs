//! Full and broken roots: a disk without space or inodes, one that has become read-only or is gone, a directory of
//! somebody else's. A push is refused with the reason, the old file stays whole, what was taken is given back, other
//! clients are served, and when the trouble is over a push works again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use deltasync_proto::{RefusalCode, TransferError};
use deltasync_testkit::Rng;
use tempfile::TempDir;

use crate::client::{Client, path};
use crate::killed::check_staging;
use crate::ledger::names;
use crate::mounted::{Mounted, run};
use crate::served::{Served, command};

fn noise(seed: u64, len: usize) -> Vec<u8> {
    Rng::new(seed).bytes(len)
}

/// The bytes that are free.
fn free(at: &Path) -> u64 {
    let stat = rustix::fs::statvfs(at).expect("it can be asked");
    stat.f_bavail * stat.f_frsize
}

fn staged(root: &Path) -> Vec<String> {
    names(&root.join(".deltasync/staging"))
}

/// Before anything is sent, or by the system.
#[track_caller]
fn check_full<T: std::fmt::Debug>(result: Result<T, TransferError>) {
    match result {
        Err(TransferError::Refused(refusal)) => {
            assert_eq!(refusal.code, RefusalCode::Full, "{refusal:?}");
            let says = ["No space left on device", "no room for"];
            assert!(says.iter().any(|says| refusal.message.contains(says)), "{refusal:?}");
        }
        result => panic!("{result:?}"),
    }
}

#[track_caller]
fn check_refused<T: std::fmt::Debug>(result: Result<T, TransferError>, code: RefusalCode, says: &str) {
    match result {
        Err(TransferError::Refused(refusal)) => {
            assert_eq!(refusal.code, code, "{refusal:?}");
            assert!(refusal.message.contains(says), "{refusal:?}");
        }
        result => panic!("{result:?}"),
    }
}

/// Waits for what happens soon after an answer.
async fn soon(what: &str, good: impl Fn() -> bool) {
    for _ in 0..200 {
        if good() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants root"]
async fn a_full_disk_refuses_a_delta_before_it_moves_and_gives_the_space_back() {
    let disk = Mounted::in_memory("size=8m");
    let server = Served::start_with(disk.path(), &["--history", "0"]);
    let mut client = Client::connect(server.address).await.expect("it listens");
    let mut bytes = noise(1, 3 << 20);
    client.push(&path("file"), bytes.clone()).await.expect("it is taken");
    let old = bytes.clone();
    fs::write(disk.path().join("ballast"), noise(2, 7 << 19)).expect("it fits");
    let before = free(disk.path());
    bytes[1_000_000] ^= 1;
    check_full(client.push(&path("file"), bytes.clone()).await);
    assert_eq!(fs::read(disk.path().join("file")).expect("it is there"), old);
    soon("what was taken is given back", || staged(disk.path()).is_empty() && free(disk.path()) >= before).await;
    // Others are served, and what fits is taken.
    assert_eq!(client.pull(&path("file")).await.expect("it is served"), old);
    client.push(&path("small"), noise(3, 1000)).await.expect("it fits");
    fs::remove_file(disk.path().join("ballast")).expect("it is there");
    client.push(&path("file"), bytes.clone()).await.expect("there is room");
    assert_eq!(fs::read(disk.path().join("file")).expect("it is there"), bytes);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants root"]
async fn a_disk_that_becomes_full_in_the_middle_refuses_the_rest() {
    // Without extents the system sets no space aside, so that it runs out under the writes.
    let disk = Mounted::on_loop(&["mkfs.ext4", "-q", "-F", "-O", "^extents,^64bit", "-m", "0"], 32, "defaults");
    let server = Served::start_with(disk.path(), &["--history", "0"]);
    let mut client = Client::connect(server.address).await.expect("it listens");
    let old = noise(1, 4 << 20);
    client.push(&path("file"), old.clone()).await.expect("it is taken");
    for round in 0..6 {
        // It would fit, and then somebody else comes.
        let ballast = disk.path().join("ballast");
        let filling = tokio::task::spawn_blocking(move || {
            std::thread::sleep(std::time::Duration::from_millis(1 + round));
            let _ = fs::write(ballast, vec![7; 32 << 20]);
        });
        check_full(client.push(&path("file"), noise(2 + round, 16 << 20)).await);
        filling.await.expect("no panic");
        assert_eq!(fs::read(disk.path().join("file")).expect("it is there"), old);
        fs::remove_file(disk.path().join("ballast")).expect("it is there");
        check_staging(disk.path());
    }
    let new = noise(4, 4 << 20);
    client.push(&path("file"), new.clone()).await.expect("it fits, whatever was left");
    assert_eq!(fs::read(disk.path().join("file")).expect("it is there"), new);
    let most = noise(5, 20 << 20);
    client.push(&path("other"), most.clone()).await.expect("what was left gives way");
    assert_eq!(fs::read(disk.path().join("other")).expect("it is there"), most);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants root"]
async fn a_disk_that_is_filled_by_others_at_any_moment_leaves_old_or_new() {
    let disk = Mounted::in_memory("size=12m");
    let server = Served::start_with(disk.path(), &["--history", "0"]);
    let mut client = Client::connect(server.address).await.expect("it listens");
    let mut old = noise(1, 3 << 20);
    client.push(&path("file"), old.clone()).await.expect("it is taken");
    let (mut rng, mut done) = (Rng::new(2), 0);
    for round in 0..40 {
        let mut new = old.clone();
        let at = rng.below(new.len());
        new[at] ^= 0xff;
        let (delay, ballast) =
            (std::time::Duration::from_micros(rng.below(20_000) as u64), disk.path().join("ballast"));
        let filling = tokio::task::spawn_blocking(move || {
            std::thread::sleep(delay);
            // As much as there is.
            let _ = fs::write(ballast, vec![7; 16 << 20]);
        });
        let result = client.push(&path("file"), new.clone()).await;
        filling.await.expect("no panic");
        let is = fs::read(disk.path().join("file")).expect("it is there");
        match result {
            Ok(_) => {
                assert!(is == new, "round {round}: told done");
                done += 1;
            }
            Err(TransferError::Refused(refusal)) => {
                assert_eq!(refusal.code, RefusalCode::Full, "round {round}: {refusal:?}");
                assert!(is == old || is == new, "round {round}");
            }
            Err(error) => panic!("round {round}: {error}"),
        }
        old = is;
        fs::remove_file(disk.path().join("ballast")).expect("it is there");
    }
    println!("filled 40 times: {done} pushes were done, {} refused", 40 - done);
    let new = noise(9, 3 << 20);
    client.push(&path("file"), new.clone()).await.expect("there is room");
    assert_eq!(fs::read(disk.path().join("file")).expect("it is there"), new);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants root"]
async fn a_disk_without_inodes_refuses_new_files_until_there_are_some() {
    let disk = Mounted::in_memory("size=16m,nr_inodes=40");
    let server = Served::start_with(disk.path(), &["--history", "0"]);
    let mut client = Client::connect(server.address).await.expect("it listens");
    let mut taken = 0;
    let refused = loop {
        match client.push(&path(&format!("dir/{taken}")), noise(taken, 1000)).await {
            Ok(_) => taken += 1,
            refused => break refused,
        }
        assert!(taken < 40, "there are no more inodes than that");
    };
    check_refused(refused, RefusalCode::Full, "No space left on device");
    for i in 0..taken {
        assert_eq!(fs::read(disk.path().join(format!("dir/{i}"))).expect("it is there"), noise(i, 1000));
    }
    assert_eq!(staged(disk.path()), Vec::<String>::new());
    // A file below directories that are not there needs several; none of them stays half made.
    fs::remove_file(disk.path().join("dir/0")).expect("it is there");
    let deep = client.push(&path("a/b/c/d"), noise(1, 1000)).await;
    check_refused(deep, RefusalCode::Full, "No space left on device");
    fs::remove_file(disk.path().join("dir/1")).expect("it is there");
    for i in 2..7 {
        fs::remove_file(disk.path().join(format!("dir/{i}"))).expect("it is there");
    }
    client.push(&path("a/b/c/d"), noise(1, 1000)).await.expect("there is room");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants root"]
async fn a_disk_that_turns_read_only_is_still_read() {
    let disk = Mounted::on_loop(&["mkfs.ext4", "-q", "-F"], 32, "errors=remount-ro");
    let server = Served::start(disk.path());
    let mut client = Client::connect(server.address).await.expect("it listens");
    let bytes = noise(1, 1 << 20);
    client.push(&path("file"), bytes.clone()).await.expect("it is taken");
    let device = disk.device().trim_start_matches("/dev/");
    fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), b"a test").expect("it can be asked for");
    for (name, new) in [("file", noise(2, 1 << 20)), ("other", noise(3, 1000)), ("new/dir/file", noise(4, 1000))] {
        check_refused(client.push(&path(name), new).await, RefusalCode::Denied, "Read-only file system");
        assert_eq!(client.pull(&path("file")).await.expect("it is served"), bytes);
    }
    assert_eq!(client.list(&path("")).await.expect("it is listed").len(), 2, "file, and lost+found");
    // A server that could not keep its promises does not start, and says why.
    server.kill();
    let Err((status, log)) = Served::try_start(&mut command(disk.path())) else { panic!("it started") };
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("Read-only file system"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_moved_is_served_where_it_is_and_one_that_is_removed_refuses() {
    let directory = TempDir::new().expect("a directory");
    let (root, moved) = (directory.path().join("root"), directory.path().join("moved"));
    fs::create_dir(&root).expect("made");
    let mut server = Served::start(&root);
    let mut client = Client::connect(server.address).await.expect("it listens");
    client.push(&path("file"), noise(1, 300_000)).await.expect("it is taken");
    fs::rename(&root, &moved).expect("moved");
    // Somebody else's now.
    fs::create_dir(&root).expect("made");
    fs::write(root.join("file"), b"not served").expect("written");
    client.push(&path("file"), noise(2, 300_000)).await.expect("the directory is still there");
    client.push(&path("a/b"), noise(3, 1000)).await.expect("the directory is still there");
    assert_eq!(fs::read(moved.join("file")).expect("it is there"), noise(2, 300_000));
    assert_eq!(names(&root), ["file"]);
    assert_eq!(fs::read(root.join("file")).expect("it is there"), b"not served");

    fs::remove_dir_all(&moved).expect("removed");
    for name in ["file", "other", "new/file"] {
        let error = client.push(&path(name), noise(4, 1000)).await.expect_err("there is no directory any more");
        assert!(error.to_string().contains("No such file or directory"), "{error}");
    }
    check_refused(client.pull(&path("file")).await, RefusalCode::NotFound, "No such file or directory");
    assert!(server.runs(), "{}", server.log());
    let (status, log) = server.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(names(directory.path()), ["root"]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants root"]
async fn a_root_that_is_unmounted_or_loses_its_disk() {
    let disk = Mounted::on_loop(&["mkfs.ext4", "-q", "-F"], 32, "defaults");
    let mut server = Served::start(disk.path());
    let mut client = Client::connect(server.address).await.expect("it listens");
    let bytes = noise(1, 1 << 20);
    client.push(&path("file"), bytes.clone()).await.expect("it is taken");
    // What is held stays; nothing comes into the directory underneath.
    run(&["umount", "--lazy", disk.path().to_str().expect("UTF-8")]);
    client.push(&path("file"), noise(2, 1 << 20)).await.expect("the disk is still there");
    assert_eq!(names(disk.path()), Vec::<String>::new());
    assert_eq!(client.pull(&path("file")).await.expect("it is served"), noise(2, 1 << 20));
    assert!(server.runs(), "{}", server.log());
    let (status, log) = server.stop();
    assert_eq!(status.code(), Some(0), "{log}");

    let disk = Mounted::on_loop(&["mkfs.ext4", "-q", "-F"], 32, "defaults");
    let mut server = Served::start(disk.path());
    let mut client = Client::connect(server.address).await.expect("it listens");
    client.push(&path("file"), bytes.clone()).await.expect("it is taken");
    disk.cut();
    for name in ["file", "other", "new/file"] {
        check_refused(client.push(&path(name), noise(3, 1000)).await, RefusalCode::Storage, "Input/output error");
    }
    assert!(server.runs(), "{}", server.log());
    server.kill();
    disk.remount();
    assert_eq!(fs::read(disk.path().join("file")).expect("it is there"), bytes);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "wants root and setpriv"]
async fn what_the_server_may_not_write_it_refuses_and_what_it_may_not_read_it_does_not_show() {
    let directory = TempDir::new().expect("a directory");
    let root = directory.path();
    for (name, mode) in [("", 0o755), ("mine", 0o755), ("locked", 0o700), ("open", 0o777)] {
        fs::create_dir_all(root.join(name)).expect("made");
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).expect("ours");
        let file = root.join(name).join("file");
        fs::write(&file, noise(1, 100_000)).expect("written");
    }
    fs::write(root.join("mine/secret"), b"secret").expect("written");
    fs::set_permissions(root.join("mine/secret"), fs::Permissions::from_mode(0o600)).expect("ours");
    let nobody = || {
        // Nobody may not get at the place where the program was built.
        let program = directory.path().join("mine/server");
        let plain = command(root);
        fs::copy(plain.get_program(), &program).expect("copied");
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(plain.get_args());
        command
    };
    let Err((status, log)) = Served::try_start(&mut nobody()) else { panic!("it started") };
    assert!(status.code() == Some(1) && log.contains("Permission denied"), "{log}");

    fs::create_dir(root.join(".deltasync")).expect("made");
    std::os::unix::fs::chown(root.join(".deltasync"), Some(65534), Some(65534)).expect("we are root");
    let server = Served::try_start(&mut nobody()).unwrap_or_else(|(status, log)| panic!("{status}: {log}"));
    let mut client = Client::connect(server.address).await.expect("it listens");
    for name in ["file", "mine/file", "mine/other", "mine/new/file", "locked/file", "locked/other"] {
        check_refused(client.push(&path(name), noise(2, 1000)).await, RefusalCode::Denied, "Permission denied");
    }
    check_refused(client.pull(&path("locked/file")).await, RefusalCode::Denied, "Permission denied");
    check_refused(client.pull(&path("mine/secret")).await, RefusalCode::Denied, "Permission denied");
    check_refused(client.list(&path("locked")).await, RefusalCode::Denied, "Permission denied");
    assert_eq!(client.pull(&path("mine/file")).await.expect("it may be read"), noise(1, 100_000));
    client.push(&path("open/other"), noise(3, 1000)).await.expect("it may be written");
    for name in ["file", "mine/file", "locked/file"] {
        assert_eq!(fs::read(root.join(name)).expect("we are root"), noise(1, 100_000), "{name}");
    }
    assert_eq!(staged(root), Vec::<String>::new());
}
