//! Pushes and pulls of directories, by the program itself, with a server over TCP and within this machine.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use common::snapshot::{assert_equal, assert_holds, snapshot};
use common::{Scratch, Server, deltasync, noise};
use deltasync_client::{ExitStatus, Options, Pace, Place, Retries, Summary, TreeProgress, Update, pull, push};
use deltasync_proto::{EventKind, TreeOptions};
use deltasync_testkit::{Cut, CuttingRelay, Direction, Rng};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

fn at(root: &Path, name: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(name))
}

fn set_time(path: &Path, seconds: u64, nanoseconds: u32) {
    let time = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
    File::open(path).and_then(|file| file.set_times(FileTimes::new().set_modified(time))).expect("ours");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

/// Names that something is likely to get wrong.
const ODD: [&[u8]; 9] = [
    b"\xff\xfe\x80",
    b"new\nline",
    b"tab\tand space ",
    b"-rf",
    b"back\\slash",
    b"*?[",
    "\u{fc}\u{202e}".as_bytes(),
    b"...",
    b"~",
];

/// Lengths around what travels with a tree.
const LENGTHS: [usize; 8] = [0, 1, 100, 4096, 65_535, 65_536, 65_537, 300 << 10];

/// A tree from a seed: directories, some of them empty, links, files of all lengths, odd names, modes and times.
fn make_tree(root: &Path, seed: u64) {
    let mut rng = Rng::new(seed);
    fs::create_dir(root).expect("new");
    let mut dirs = vec![root.to_owned()];
    for i in 0..12 {
        let parent = dirs[rng.below(dirs.len())].clone();
        let odd = ODD[..4].get(i).map(|name| name.to_vec());
        let name = odd.unwrap_or_else(|| format!("dir{i}").into_bytes());
        let dir = at(&parent, &name);
        fs::create_dir(&dir).expect("new");
        dirs.push(dir);
    }
    // The last one stays empty.
    let full = dirs.len() - 1;
    for i in 0..60 {
        let parent = dirs[rng.below(full)].clone();
        let name = if i < ODD.len() { [ODD[i], b".f"].concat() } else { format!("file{i}").into_bytes() };
        let path = at(&parent, &name);
        if i % 10 == 9 {
            let target: &[u8] = [&b"nowhere"[..], b"../file1", b"/etc/passwd", b"\xff\n", b"."][i / 10 % 5];
            symlink(OsStr::from_bytes(target), &path).expect("new");
            continue;
        }
        fs::write(&path, noise(seed * 1000 + i as u64, LENGTHS[i % LENGTHS.len()])).expect("space");
        set_mode(&path, [0o644, 0o600, 0o755, 0o444][i % 4]);
        set_time(&path, 1_000_000_000 + rng.below(700_000_000) as u64, rng.below(1_000_000_000) as u32);
    }
    fs::write(at(root, &[b'n'; 255]), b"a long name").expect("space");
    for (i, dir) in dirs.iter().enumerate().rev() {
        set_mode(dir, [0o755, 0o700, 0o750, 0o711][i % 4]);
        set_time(dir, 1_200_000_000 + rng.below(400_000_000) as u64, rng.below(1_000_000_000) as u32);
    }
}

/// A smaller tree whose paths are known, for changes of each kind.
fn make_known(root: &Path) {
    fs::create_dir(root).expect("new");
    for dir in ["stays", "goes/deep", "moves", "empty", "becomes-file", "becomes-large/sub", "chmod-dir"] {
        fs::create_dir_all(root.join(dir)).expect("new");
    }
    for (i, name) in ["small", "touched", "chmodded", "removed", "renamed", "becomes-dir", "becomes-link", "grows"]
        .into_iter()
        .chain(["stays/a", "stays/b", "goes/deep/x", "moves/y", "stays/c", "stays/d", "stays/e", "stays/f"])
        .enumerate()
    {
        fs::write(root.join(name), noise(i as u64 + 1, 5000)).expect("space");
    }
    for (i, name) in
        ["large", "large-touched", "large-chmodded", "stays/large-removed", "shrinks"].into_iter().enumerate()
    {
        fs::write(root.join(name), noise(100 + i as u64, 200_000)).expect("space");
    }
    fs::write(root.join("becomes-large/sub/file"), noise(105, 3000)).expect("space");
    let ends_in_a_hole = File::create(root.join("sparse")).expect("new");
    ends_in_a_hole.write_all_at(&noise(106, 5000), 1 << 20).expect("space");
    ends_in_a_hole.set_len(3 << 20).expect("space");
    symlink("small", root.join("link")).expect("new");
    symlink("small", root.join("link-becomes-file")).expect("new");
}

/// Changes of each kind; with `clearing` also such as take something away to make way.
fn change(root: &Path, clearing: bool) {
    let path = |name: &str| root.join(name);
    let edit = |name: &str| {
        let mut bytes = fs::read(path(name)).expect("there");
        let middle = bytes.len() / 2;
        bytes[middle..middle + 100].copy_from_slice(&noise(77, 100));
        fs::write(path(name), bytes).expect("space");
    };
    ["small", "large", "stays/a"].into_iter().for_each(edit);
    set_time(&path("touched"), 1_111_111_111, 123_456_789);
    set_time(&path("large-touched"), 1_111_111_112, 1);
    set_mode(&path("chmodded"), 0o751);
    set_mode(&path("large-chmodded"), 0o600);
    set_mode(&path("chmod-dir"), 0o700);
    fs::remove_file(path("removed")).expect("there");
    fs::remove_file(path("stays/large-removed")).expect("there");
    fs::remove_dir_all(path("goes")).expect("there");
    fs::rename(path("renamed"), path("renamed-to")).expect("there");
    fs::rename(path("moves"), path("moved")).expect("there");
    fs::create_dir(path("new-dir")).expect("new");
    fs::write(path("new-dir/new"), b"new").expect("space");
    fs::write(path("new-dir/new-large"), noise(55, 150_000)).expect("space");
    fs::remove_file(path("becomes-dir")).expect("there");
    fs::create_dir(path("becomes-dir")).expect("new");
    fs::write(path("becomes-dir/large"), noise(56, 100_000)).expect("space");
    fs::remove_dir(path("empty")).expect("empty");
    fs::write(path("empty"), b"a file now").expect("space");
    fs::remove_file(path("becomes-link")).expect("there");
    symlink("stays", path("becomes-link")).expect("new");
    fs::remove_file(path("link-becomes-file")).expect("there");
    fs::write(path("link-becomes-file"), noise(57, 70_000)).expect("space");
    fs::remove_file(path("link")).expect("there");
    symlink("large", path("link")).expect("new");
    fs::write(path("grows"), noise(58, 90_000)).expect("space");
    fs::write(path("shrinks"), b"short").expect("space");
    if clearing {
        fs::remove_dir(path("becomes-file")).expect("empty");
        fs::write(path("becomes-file"), b"file").expect("space");
        fs::remove_dir_all(path("becomes-large")).expect("there");
        fs::write(path("becomes-large"), noise(59, 90_000)).expect("space");
        fs::remove_dir_all(path("stays")).expect("there");
        symlink("small", path("stays")).expect("new");
    }
}

const QUIET: &str = "--no-state";

#[test]
fn a_pushed_tree_is_equal_and_again_moves_nothing() {
    let server = Server::start();
    let dir = Scratch::new();
    for seed in 1..=3 {
        let (name, url) = (format!("tree{seed}"), server.url(&format!("at/tree{seed}")));
        make_tree(&dir.join(&name), seed);
        let ran = deltasync(dir.path(), &["push", &name, &url, QUIET]).fine();
        assert!(ran.stdout.starts_with("pushed 1 tree with "), "{ran:?}");
        assert_equal(&dir.join(&name), &server.dir.join(format!("at/{name}")));
        server.carried();
        let again = deltasync(dir.path(), &["push", &name, &url, QUIET, "--json"]).fine().json();
        let (sent, received) = server.carried();
        assert!(sent + received < 2000, "{sent} + {received}");
        assert_eq!((&again["bytes_literal"], &again["files"]), (&0.into(), &1.into()), "{again}");
        assert_equal(&dir.join(&name), &server.dir.join(format!("at/{name}")));
    }
}

#[test]
fn a_pulled_tree_is_equal_and_again_moves_nothing() {
    let server = Server::start();
    let dir = Scratch::new();
    make_tree(&server.dir.join("tree"), 4);
    for (url, to) in [("tree", "plain"), ("tree/", "slash"), ("tree/", "both/"), ("tree", "into/"), ("tree", "plain")] {
        deltasync(dir.path(), &["pull", &server.url(url), to]).fine();
        let at = if to == "into/" { dir.join("into/tree") } else { dir.join(to) };
        assert_equal(&server.dir.join("tree"), &at);
    }
    server.carried();
    deltasync(dir.path(), &["pull", &server.url("tree/"), "plain", "--delete"]).fine();
    let (sent, received) = server.carried();
    assert!(sent + received < 2000, "{sent} + {received}");
}

/// Transfers, changes the source, transfers again; `go` gets the options.
fn check_changes(source: &Path, target: &Path, go: impl Fn(&[&str])) {
    make_known(source);
    go(&[]);
    assert_equal(source, target);
    let before = snapshot(target);
    change(source, false);
    go(&[]);
    assert_holds(&snapshot(source), &snapshot(target), &before);
    go(&["--delete"]);
    assert_equal(source, target);

    fs::remove_dir_all(source).expect("ours");
    make_known(source);
    go(&["--delete"]);
    assert_equal(source, target);
    change(source, true);
    go(&["--delete"]);
    assert_equal(source, target);
}

/// How a tree becomes visible: file by file, or as one change.
const WAYS: [&[&str]; 2] = [&[], &["--atomic"]];

#[test]
fn changes_of_each_kind_are_pushed() {
    for way in WAYS {
        let server = Server::start();
        let dir = Scratch::new();
        check_changes(&dir.join("tree"), &server.dir.join("tree"), |more| {
            let url = server.url("tree");
            deltasync(dir.path(), &[&["push", "tree", &url, QUIET], way, more].concat()).fine();
        });
        assert_eq!(server.dir.names("."), [".deltasync", "tree"], "nothing else is left");
    }
}

#[test]
fn changes_of_each_kind_are_pulled() {
    for way in WAYS {
        let server = Server::start();
        let dir = Scratch::new();
        check_changes(&server.dir.join("tree"), &dir.join("tree"), |more| {
            let url = server.url("tree/");
            deltasync(dir.path(), &[&["pull", &url, "tree"], way, more].concat()).fine();
        });
        assert_eq!(dir.names("."), ["tree"], "nothing else is left");
    }
}

#[test]
fn changes_of_each_kind_go_within_this_machine() {
    for (verb, way) in ["push", "pull"].into_iter().flat_map(|verb| WAYS.map(|way| (verb, way))) {
        let dir = Scratch::new();
        check_changes(&dir.join("a"), &dir.join("b"), |more| {
            deltasync(dir.path(), &[&[verb, "a", "b"], way, more].concat()).fine();
        });
        make_tree(&dir.join("random"), 5);
        for to in ["copy", "copy/../copy"] {
            deltasync(dir.path(), &[&[verb, "random", to], way].concat()).fine();
            assert_equal(&dir.join("random"), &dir.join("copy"));
        }
        deltasync(dir.path(), &[&[verb, "random/", "copy/", "--delete"], way].concat()).fine();
        assert_equal(&dir.join("random"), &dir.join("copy"));
        assert_eq!(dir.names("."), ["a", "b", "copy", "random"], "nothing else is kept");
    }
}

#[test]
fn names_and_slashes_say_where_a_tree_goes() {
    let server = Server::start();
    let dir = Scratch::new();
    dir.mkdir("tree/sub");
    dir.write("tree/sub/file", b"content");
    dir.write("file", b"beside");
    let push = |args: &[&str]| deltasync(dir.path(), &[&["push", QUIET], args].concat()).fine();
    push(&["tree", &server.url("new")]);
    push(&["tree", &server.url("new")]);
    assert_eq!(server.dir.names("new"), ["sub"]);
    push(&["tree", &server.url("new/")]);
    assert_eq!(server.dir.names("new"), ["sub", "tree"]);
    push(&["tree/", &server.url("other/")]);
    assert_eq!(server.dir.names("other"), ["sub"]);
    push(&["tree/sub", "file", &server.url("mixed")]);
    assert_eq!(server.dir.names("mixed"), ["file", "sub"]);
    push(&["tree/", &server.url("")]);
    assert_eq!(server.dir.read("sub/file"), b"content");

    dir.mkdir("out");
    push(&["tree", "out/"]);
    push(&["tree", "file", "many"]);
    push(&["tree", "self"]);
    push(&["tree", "self"]);
    assert_eq!((dir.names("out"), dir.names("many"), dir.names("self")), {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        (names(&["tree"]), names(&["file", "tree"]), names(&["sub"]))
    });
    // The current directory has no name of its own: a tree goes into it.
    deltasync(&dir.join("out"), &["push", "../tree/sub", "."]).fine();
    assert_eq!(dir.names("out"), ["sub", "tree"]);

    let pull = |args: &[&str]| deltasync(dir.path(), &[&["pull"], args].concat()).fine();
    pull(&[&server.url("new"), &server.url("mixed/file"), "pulled"]);
    assert_eq!(dir.names("pulled"), ["file", "new"]);
    let all = pull(&[&server.url(""), "all", "--json"]).json();
    assert_eq!(all["files"], 1);
    assert_eq!(dir.names("all"), ["mixed", "new", "other", "sub"], "what is the server's own is not seen");
}

#[test]
fn what_cannot_work_is_refused_before_anything_moves() {
    let dir = Scratch::new();
    dir.mkdir("a/b");
    dir.mkdir("c");
    dir.write("file", b"x");
    let run = |args: &[&str]| deltasync(dir.path(), args);
    run(&["push", "a/", "c/", "out"]).failed(2, "a/ means what is in that directory");
    run(&["push", "a", "file"]).failed(2, "file is not a directory");
    run(&["push", "a", "a/b/"]).failed(2, "a and a/b/a lie in each other");
    run(&["push", "a/b/", "a", "--delete"]).failed(2, "a/b/ and a lie in each other");
    run(&["push", "a", "a"]).failed(2, "lie in each other");
    run(&["push", "file", "out", "--delete"]).failed(2, "none is given");
    run(&["push", "a", "out", "--force"]).failed(2, "--delete");
    run(&["push", "/dev/null", "out"]).failed(2, "/dev/null is neither a regular file nor a directory");
    run(&["push", "a", "missing/x/out"]).failed(1, "cannot write to missing/x/out");
    run(&["verify", "a", "file"]).failed(2, "a is a directory");
    assert_eq!(dir.names("."), ["a", "c", "file"]);
    assert_eq!((dir.names("a"), dir.names("a/b").len()), (vec!["b".to_owned()], 0));
}

#[test]
fn a_server_that_has_something_else_there_says_so() {
    let server = Server::start();
    let dir = Scratch::new();
    server.dir.mkdir("tree/sub");
    server.dir.write("file", b"there");
    dir.mkdir("tree");
    dir.write("file", b"here");
    deltasync(dir.path(), &["push", "tree", &server.url("file"), QUIET]).failed(4, "not a directory");
    deltasync(dir.path(), &["pull", &server.url("file"), "tree", "--delete"]).failed(1, "not a directory");
    deltasync(dir.path(), &["pull", &server.url("file/"), "x"]).failed(1, "not a directory");
    deltasync(dir.path(), &["pull", &server.url("tree"), "file"]).failed(1, "is a directory");
    deltasync(dir.path(), &["pull", &server.url("missing/"), "x"]).failed(4, "refused by the peer");
    assert_eq!((server.dir.read("file"), dir.read("file")), (b"there".to_vec(), b"here".to_vec()));
}

#[test]
fn what_is_left_out_is_named_and_all_else_goes() {
    let server = Server::start();
    let dir = Scratch::new();
    dir.mkdir("tree/sub");
    dir.write("tree/sub/file", b"x");
    dir.write("tree/large", &noise(1, 100_000));
    let made = Command::new("mkfifo").arg(dir.join("tree/sub/pipe")).status().expect("there is mkfifo");
    assert!(made.success());
    let ran = deltasync(dir.path(), &["push", "tree", &server.url("tree"), QUIET, "--json"]);
    let json = ran.failed(1, "tree/sub/pipe -> ").json();
    assert_eq!((&json["files"], &json["exit_code"], &json["members"]), (&1.into(), &1.into(), &1.into()), "{json}");
    assert_eq!(json["failed"][0]["source"], "tree/sub/pipe", "{json}");
    assert_eq!(server.dir.names("tree"), ["large", "sub"]);
    assert_eq!(server.dir.names("tree/sub"), ["file"]);
}

#[test]
fn no_more_is_deleted_than_is_said() {
    let server = Server::start();
    let dir = Scratch::new();
    dir.mkdir("tree");
    (0..10).for_each(|i| dir.write(&format!("tree/{i}"), b"x"));
    let url = server.url("tree");
    let push = |more: &[&str]| deltasync(dir.path(), &[&["push", "tree", &url, QUIET], more].concat());
    push(&[]).fine();
    (0..8).for_each(|i| fs::remove_file(dir.join(format!("tree/{i}"))).expect("there"));
    assert_ne!(push(&["--delete"]).code, Some(0));
    assert_ne!(push(&["--delete", "--max-delete", "7"]).code, Some(0));
    assert_eq!(server.dir.names("tree").len(), 10);
    push(&["--delete", "--max-delete", "8"]).fine();
    assert_equal(&dir.join("tree"), &server.dir.join("tree"));
    fs::remove_file(dir.join("tree/8")).expect("there");
    fs::remove_file(dir.join("tree/9")).expect("there");
    push(&["--delete", "--force"]).fine();
    assert_equal(&dir.join("tree"), &server.dir.join("tree"));
}

/// Runs a verb with little patience; what it tells of the tree must hold together.
fn told(atomic: bool, verb: impl AsyncFnOnce(&Options, &mut dyn FnMut(Update)) -> Summary) -> Summary {
    let wait = Duration::from_millis(10);
    let options = Options::default().retries(Retries { most: 3, first: wait, longest: wait });
    let options = options.tree(TreeOptions::default().atomic(atomic));
    let (mut ends, mut last, mut pace) = (0, TreeProgress::default(), Pace::default());
    let mut report = |update| match update {
        Update::File { index: 0, kind: EventKind::Ended(_) } => ends += 1,
        Update::Tree { index: 0, progress } => {
            assert!(progress.made >= last.made && progress.members >= last.members, "{last:?}, then {progress:?}");
            assert!(progress.members_done >= last.members_done, "{last:?}, then {progress:?}");
            assert!(last.total.is_none() || last.total == progress.total, "{last:?}, then {progress:?}");
            assert!(progress.total.is_none_or(|total| progress.made <= total), "{progress:?}");
            assert!(progress.looked.entries >= last.looked.entries, "{last:?}, then {progress:?}");
            assert!(
                progress.files >= last.files && progress.files_done >= last.files_done,
                "{last:?}, then {progress:?}"
            );
            assert!(progress.files_done <= progress.files, "{progress:?}");
            last = progress;
        }
        Update::Pace(told) => pace = told,
        _ => {}
    };
    let summary = Runtime::new().expect("threads to be had").block_on(verb(&options, &mut report));
    assert_eq!((ends, last.total), (1, Some(last.made)), "{last:?}");
    assert!(last.files > 15 && last.looked.entries > 15, "{last:?}");
    assert_eq!((pace.total, pace.made), (last.total, last.made), "{pace:?}");
    assert_eq!((pace.files, pace.files_done, pace.looked), (last.files, last.files, last.looked), "{pace:?}");
    summary
}

/// Cuts a transfer once, somewhere; `go` runs one under its number through an address, and checks what came of it. Where
/// nothing is cut it carries (up, down) bytes.
fn check_cuts(server: &Server, (up, down): (u64, u64), go: impl Fn(u64, &str) -> Summary) {
    const POINTS: u64 = 10;
    let mut retried = 0;
    for point in 0..2 * POINTS {
        let (direction, bytes) = if point % 2 == 0 { (Direction::Up, up) } else { (Direction::Down, down) };
        let cut = Cut { direction, after: bytes * (point / 2) / POINTS };
        let relay = CuttingRelay::start(server.address, [cut]).expect("a free port");
        let summary = go(point, &format!("deltasync://{}", relay.address()));

        assert_eq!(summary.status(), ExitStatus::Done, "{cut:?}: {summary:?}");
        retried += summary.retried;
    }
    assert!(u64::from(retried) > POINTS, "{retried} cuts needed a second connection");
}

#[test]
fn a_push_cut_anywhere_is_right_in_the_end() {
    for atomic in [false, true] {
        check_push_cut(atomic);
    }
}

fn check_push_cut(atomic: bool) {
    let (server, dir, never) = (Server::start(), Scratch::new(), CancellationToken::new());
    make_known(&dir.join("tree"));
    let push_to = |url: String| {
        let place = Place::parse(url.as_ref()).expect("a place");
        told(atomic, async |options, report| {
            push(&[dir.join("tree")], &place, options, &never, report).await.expect("sound")
        })
    };
    push_to(server.url("whole"));
    let carried = server.carried();
    check_cuts(&server, carried, |point, address| {
        // Content that is there under another name would not move.
        fs::remove_dir_all(dir.join("tree")).expect("ours");
        make_known(&dir.join("tree"));
        for (i, name) in
            ["large", "large-touched", "large-chmodded", "stays/large-removed", "shrinks"].iter().enumerate()
        {
            fs::write(dir.join(format!("tree/{name}")), noise(1000 + 10 * point + i as u64, 200_000)).expect("space");
        }
        let summary = push_to(format!("{address}/tree{point}"));
        assert_equal(&dir.join("tree"), &server.dir.join(format!("tree{point}")));
        summary
    });
}

#[test]
fn a_tree_is_replaced_only_where_it_is_what_was_named() {
    let (server, dir) = (Server::start(), Scratch::new());
    make_known(&dir.join("tree"));
    let url = server.url("tree");
    let push = |condition: &str| {
        deltasync(dir.path(), &["push", "tree", &url, "--no-state", "--json", "--if-match", condition])
    };
    let first = push("absent").fine().json()["root"].as_str().expect("a root").to_owned();
    let before = snapshot(&server.dir.join("tree"));
    change(&dir.join("tree"), false);
    push("absent").failed(4, "what is there now is not what was to be replaced");
    push(&"0".repeat(64)).failed(4, "what is there now is not what was to be replaced");
    assert_eq!(snapshot(&server.dir.join("tree")), before, "also of what is large nothing has come");
    push(&first).fine();
    assert_ne!(snapshot(&server.dir.join("tree")), before);
}

#[test]
fn a_pull_cut_anywhere_is_right_in_the_end() {
    for atomic in [false, true] {
        check_pull_cut(atomic);
    }
}

fn check_pull_cut(atomic: bool) {
    let (server, dir, never) = (Server::start(), Scratch::new(), CancellationToken::new());
    make_known(&server.dir.join("tree"));
    let pull_from = |url: String, name: &str| {
        let place = [Place::parse(url.as_ref()).expect("a place")];
        told(atomic, async |options, report| {
            pull(&place, &dir.join(name), options, &never, report).await.expect("sound")
        })
    };
    pull_from(server.url("tree/"), "whole");
    let carried = server.carried();
    check_cuts(&server, carried, |point, address| {
        let name = format!("tree{point}");
        let summary = pull_from(format!("{address}/tree/"), &name);
        assert_equal(&server.dir.join("tree"), &dir.join(name));
        summary
    });
}
