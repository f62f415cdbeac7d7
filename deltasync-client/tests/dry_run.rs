//! `push --dry-run` and `pull --dry-run`, by the program itself: what they name is what the same call without it changes,
//! and they change nothing.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use common::snapshot::{Snapshot, snapshot};
use common::{Ran, Scratch, Server, deltasync, noise};
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The odd name: what a terminal must not get, and no UTF-8.
const ODD: &[u8] = b"odd\n\x1b[31m\xff";

/// A tree whose paths are known, for changes of each kind.
fn make(root: &Path) {
    for dir in ["stays", "goes/deep", "empty", "becomes-file", "chmod-dir", "full-becomes-file"] {
        fs::create_dir_all(root.join(dir)).expect("new");
    }
    let files = ["small", "touched", "chmodded", "removed", "becomes-dir", "becomes-link", "grows", "equal"];
    let deep = ["stays/a", "stays/b", "goes/deep/x", "full-becomes-file/y"];
    for (i, name) in files.into_iter().chain(deep).enumerate() {
        fs::write(root.join(name), noise(i as u64 + 1, 5000)).expect("space");
    }
    for (i, name) in ["large", "large-touched", "large-chmodded", "large-removed", "shrinks"].into_iter().enumerate() {
        fs::write(root.join(name), noise(100 + i as u64, 200_000)).expect("space");
    }
    fs::write(root.join(OsStr::from_bytes(ODD)), b"odd").expect("space");
    symlink("small", root.join("link")).expect("new");
    symlink("small", root.join("link-becomes-file")).expect("new");
}

/// Changes of each kind; with `clearing` also such as need something deleted to make way.
fn change(root: &Path, clearing: bool) {
    let path = |name: &str| root.join(name);
    let set_time = |name: &str, seconds| {
        let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::new(seconds, 7));
        File::open(path(name)).and_then(|file| file.set_times(times)).expect("ours");
    };
    let set_mode = |name: &str, mode| fs::set_permissions(path(name), Permissions::from_mode(mode)).expect("ours");
    for name in ["small", "large", "stays/a"] {
        let mut bytes = fs::read(path(name)).expect("there");
        bytes[2000..2100].copy_from_slice(&noise(77, 100));
        fs::write(path(name), bytes).expect("space");
        set_time(name, 1_234_567_890);
    }
    set_time("touched", 1_111_111_111);
    set_time("large-touched", 1_111_111_112);
    set_mode("chmodded", 0o751);
    set_mode("large-chmodded", 0o600);
    set_mode("chmod-dir", 0o700);
    fs::remove_file(path("removed")).expect("there");
    fs::remove_file(path("large-removed")).expect("there");
    fs::remove_dir_all(path("goes")).expect("there");
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
    fs::write(path("new.o"), b"only where it is not excluded").expect("space");
    fs::remove_file(root.join(OsStr::from_bytes(ODD))).expect("there");
    fs::write(root.join(OsStr::from_bytes(&[ODD, b"2"].concat())), b"odd").expect("space");
    if clearing {
        fs::remove_dir_all(path("full-becomes-file")).expect("there");
        fs::write(path("full-becomes-file"), b"file").expect("space");
    }
}

/// All below a directory as the system sees it, with what changes when anything does.
fn strict(root: &Path) -> BTreeMap<Vec<u8>, [i64; 5]> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let is = fs::symlink_metadata(&path).expect("there");
        let seen = [is.ino() as i64, is.mtime(), is.mtime_nsec(), is.ctime(), is.ctime_nsec()];
        if is.is_dir() {
            left.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
        }
        // What the server keeps of its own.
        if !path.ends_with(".deltasync") && !path.components().any(|part| part.as_os_str() == ".deltasync") {
            all.insert(path.strip_prefix(root).expect("below").as_os_str().as_bytes().to_vec(), seen);
        }
    }
    all
}

type Named = BTreeSet<(String, Vec<u8>)>;

/// What a dry run names.
fn named(json: &Value) -> Named {
    let one = |change: &Value| {
        let path = percent_decode_str(change["encoded"].as_str().expect("text")).collect::<Vec<u8>>();
        (change["change"].as_str().expect("text").to_owned(), path)
    };
    json["changes"].as_array().expect("a list").iter().map(one).collect()
}

/// What has changed.
fn changed(before: &Snapshot, after: &Snapshot) -> Named {
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    let one = |path: Vec<u8>| match (before.get(&path), after.get(&path)) {
        (None, _) => Some(("new".to_owned(), path)),
        (Some(_), None) => Some(("deleted".to_owned(), path)),
        (old, new) => (old != new).then(|| ("changed".to_owned(), path)),
    };
    paths.into_iter().filter_map(one).collect()
}

/// A source, and a target that was equal, before both were changed.
struct Ends {
    dir: Scratch,
    server: Server,
}

impl Ends {
    fn new(clearing: bool) -> Self {
        let (dir, server) = (Scratch::new(), Server::start());
        make(&dir.join("here"));
        let there = server.dir.join("there");
        for target in [there.as_path(), &dir.join("other")] {
            deltasync(dir.path(), &["push", "here", target.to_str().expect("text"), "--no-state"]).fine();
            // Held there only by what takes no part.
            fs::create_dir_all(target.join("holds/deeper")).expect("new");
            fs::write(target.join("holds/deeper/kept.o"), b"kept").expect("space");
            fs::write(target.join("only-there"), b"extra").expect("space");
        }
        // What has gone from one end is there to be made at the other.
        change(&dir.join("here"), clearing);
        Self { dir, server }
    }

    fn see(&self) -> Vec<BTreeMap<Vec<u8>, [i64; 5]>> {
        vec![strict(&self.dir.join("here")), strict(&self.dir.join("other")), strict(self.server.dir.path())]
    }

    /// A dry run, then the same without: what is named is what changes at the target, and all before that is as it was.
    #[track_caller]
    fn check(&self, verb: &str, source: &str, target: &str, seen: &Path, options: &[&str]) -> (Value, Ran) {
        let mut args = vec![verb, source, target, "--json"];
        args.extend(options);
        let (looks, before) = (self.see(), snapshot(seen));
        let dry = deltasync(self.dir.path(), &[&args[..], &["--dry-run"]].concat());
        assert_eq!((dry.code, dry.said()), (Some(0), vec![]), "{dry:?}");
        assert!(self.see() == looks, "{args:?} changed something");
        let real = deltasync(self.dir.path(), &args);
        let (named, changed) = (named(&dry.json()), changed(&before, &snapshot(seen)));
        let only = |a: &Named, b: &Named| -> Vec<String> {
            a.difference(b).map(|(change, path)| format!("{change} {}", String::from_utf8_lossy(path))).collect()
        };
        let (more, less) = (only(&named, &changed), only(&changed, &named));
        // What is refused may end it before all else is done.
        let is_refused = dry.json().get("refusals").is_some();
        let as_named = more.is_empty() && less.is_empty();
        assert!(as_named || is_refused, "{args:?}: named alone {more:?}, changed alone {less:?}");
        (dry.json(), real)
    }
}

const OPTIONS: [&[&str]; 4] =
    [&[], &["--delete", "--force"], &["--exclude", "*.o", "--delete"], &["--delete", "--max-delete", "1"]];

fn check_way(way: impl Fn(&Ends, &[&str]) -> (Value, Ran)) {
    for options in OPTIONS {
        let clears = options.contains(&"--force");
        let ends = Ends::new(clears);
        let (dry, real) = way(&ends, options);
        let refuses = options.contains(&"--max-delete");
        assert_eq!(dry["refusals"].as_array().map(Vec::len), refuses.then_some(1), "{dry}");
        assert_eq!(real.code != Some(0), refuses, "{real:?}");
        assert!(dry["changes"].as_array().expect("a list").len() >= 20, "{dry}");
        if refuses {
            let told = dry["refusals"][0].as_str().expect("text");
            let says = |text: &str| text.split("entries would be deleted, over 1: none").count() == 2;
            assert!(says(told) && says(&real.stderr), "{told:?} {real:?}");
            assert!(!named(&dry).iter().any(|(change, _)| change == "deleted"), "{dry}");
            continue;
        }
        let again = way(&ends, options);
        assert_eq!(again.0["changes"], serde_json::json!([]), "{}", again.0);
    }
}

#[test]
fn a_dry_push_names_what_the_push_changes() {
    check_way(|ends, options| {
        let options = [options, &["--no-state"]].concat();
        let seen = ends.server.dir.join("there");
        ends.check("push", "here", &ends.server.url("there"), &seen, &options)
    });
}

#[test]
fn a_dry_push_within_this_machine_names_what_it_changes() {
    check_way(|ends, options| ends.check("push", "here", "other", &ends.dir.join("other"), options));
}

#[test]
fn a_dry_pull_names_what_the_pull_changes() {
    check_way(|ends, options| {
        // The server has what is new.
        let source = ends.dir.join("here");
        let served = ends.server.dir.join("fresh");
        if !served.exists() {
            let served = served.to_str().expect("text");
            deltasync(ends.dir.path(), &["push", source.to_str().expect("text"), served, "--no-state"]).fine();
        }
        ends.check("pull", &ends.server.url("fresh"), "other", &ends.dir.join("other"), options)
    });
}

#[test]
fn a_tree_that_is_not_there_is_all_new() {
    let ends = Ends::new(false);
    let none = Snapshot::new();
    for (verb, source, target, seen) in [
        ("push", "here".to_owned(), ends.server.url("deep/below"), ends.server.dir.join("deep/below")),
        ("pull", ends.server.url("there"), "pulled".to_owned(), ends.dir.join("pulled")),
    ] {
        let mut args = vec![verb, &source, &target, "--json"];
        if verb == "push" {
            args.push("--no-state");
        }
        let looks = ends.see();
        let dry = deltasync(ends.dir.path(), &[&args[..], &["-n"]].concat()).fine().json();
        assert!(!seen.exists() && (verb == "pull" || !ends.server.dir.join("deep").exists()));
        assert!(ends.see() == looks);
        deltasync(ends.dir.path(), &args).fine();
        assert_eq!(named(&dry), changed(&none, &snapshot(&seen)));
    }
}

/// Of a push what is told is near what then moves, large files and all; of a pull it is more.
#[test]
fn the_bytes_on_the_wire_are_told() {
    let ends = Ends::new(false);
    let total =
        |json: &Value| json["wire_sent"].as_u64().expect("a number") + json["wire_received"].as_u64().unwrap_or(0);
    let near = |dry: &Value, real: &Ran, slack: u64| {
        let (told, was) = (dry["wire_predicted"].as_u64().expect("a number"), total(&real.json()));
        assert!(told <= was + slack && was <= told + slack, "{told} told, {was} moved");
        assert!(total(dry) < was, "{} to find out about {was}", total(dry));
    };
    let state = ends.dir.join("state");
    let state = ["--state", state.to_str().expect("text"), "--keep=copy"];
    let (url, seen) = (ends.server.url("there"), ends.server.dir.join("there"));
    let (dry, real) = ends.check("push", "here", &url, &seen, &state);
    // Large files follow, each with its frames' headers and tags of which not all may leave, and then the tree is looked at
    // once more.
    near(&dry, &real, 2500);
    assert!(dry["wire_predicted"].as_u64() > Some(300_000), "{dry}");
    // Now it is remembered, but for what the server has beside it.
    fs::write(ends.dir.join("here/stays/b"), noise(500, 20_000)).expect("space");
    let (dry, real) = ends.check("push", "here", &url, &seen, &state);
    near(&dry, &real, 150);
    let (dry, real) = ends.check("pull", &url, "other", &ends.dir.join("other"), &[]);
    assert_eq!(dry["at_most"], true);
    assert!(dry["wire_predicted"].as_u64().expect("a number") + 2000 > total(&real.json()), "{dry} {real:?}");
}

#[test]
fn nothing_is_remembered_of_a_dry_run() {
    let ends = Ends::new(false);
    let state = ends.dir.join("state");
    let url = ends.server.url("there");
    let args = ["push", "here", &url, "-n", "--state", state.to_str().expect("text")];
    let ran = deltasync(ends.dir.path(), &args).fine();
    assert!(!state.exists() || strict(&state).len() <= 1, "{:?}", strict(&state).keys());
    assert!(ran.stdout.lines().last().is_some_and(|line| line.starts_with("would push 1 tree: ")), "{ran:?}");
}

#[test]
fn a_single_file_is_new_or_other_or_equal() {
    let (dir, server) = (Scratch::new(), Server::start());
    dir.write("file", &noise(1, 50_000));
    let url = server.url("file");
    let push = |more: &[&str]| deltasync(dir.path(), &[&["push", "file", &url, "--no-state"], more].concat());
    let pull = |more: &[&str]| deltasync(dir.path(), &[&["pull", &url, "copy"], more].concat());
    let first = push(&["-n"]).fine().stdout;
    assert!(first.starts_with(&format!("+ {url}  48.8 KiB  new\nwould push 1 file: 1 new; about 4")), "{first}");
    assert_eq!(server.dir.names("."), [".deltasync"]);
    push(&[]).fine();
    let equal = push(&["-n"]).fine().stdout;
    assert!(equal.starts_with("would push 1 file: nothing to change; about "), "{equal}");
    let new = pull(&["-n"]).fine().stdout;
    assert!(new.starts_with("+ copy  48.8 KiB  new\nwould pull 1 file: 1 new; at most about 48.8 KiB"), "{new}");
    assert!(!dir.join("copy").exists());
    pull(&[]).fine();
    assert!(pull(&["-n"]).fine().stdout.starts_with("would pull 1 file: nothing to change"));
    dir.write("file", &noise(2, 50_001));
    let other = push(&["-n"]).fine().stdout;
    assert!(other.starts_with(&format!("~ {url}  content: length 50000 -> 50001\n")), "{other}");
    dir.write("copy", &noise(2, 50_000));
    let other = pull(&["-n"]).fine().stdout;
    assert!(other.starts_with("~ copy  content: root differs\n"), "{other}");
    // Into a directory by its name, which only the server knows to be one.
    server.dir.mkdir("into");
    let into = server.url("into");
    let ran = deltasync(dir.path(), &["push", "file", &into, "-n", "--no-state", "--json"]).fine().json();
    assert_eq!((&ran["changes"][0]["change"], &ran["changes"][0]["bytes"]), (&"new".into(), &50_001.into()));
    assert_eq!(server.dir.names("into"), [""; 0]);
}

#[test]
fn a_condition_is_told_to_hold_or_not() {
    let ends = Ends::new(false);
    let (dir, url) = (ends.dir.path(), ends.server.url("there"));
    ends.dir.write("file", b"content");
    let file = ends.server.url("small-file");
    for (source, place) in [("here", &url), ("file", &file)] {
        let dry = |root: &str| deltasync(dir, &["push", source, place, "-n", "--no-state", "--if-match", root]);
        if source == "file" {
            let ran = dry("absent").fine();
            assert!(ran.stdout.contains("; the condition lets it begin; "), "{ran:?}");
            deltasync(dir, &["push", source, place, "--no-state"]).fine();
            ends.dir.write("file", b"other");
        }
        let looks = ends.see();
        dry("absent").failed(4, "what is there now is not what was to be replaced");
        dry(&"0".repeat(64)).failed(4, "what is there now is not what was to be replaced");
        assert!(ends.see() == looks);
    }
    let pull = |root: &str| deltasync(dir, &["pull", &file, "file", "-n", "--json", "--if-match", root]);
    assert_eq!(pull("absent").failed(4, "is not what was to be replaced").json()["condition"], false);
    let pull = deltasync(dir, &["pull", &url, "other", "-n", "--if-match", "absent"]);
    pull.failed(4, "is not what was to be replaced");
}

#[test]
fn names_are_shown_safely_and_what_is_left_out_is_named() {
    let ends = Ends::new(false);
    let fifo = ends.dir.join("here/pipe");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("there is mkfifo").success());
    let ran = deltasync(ends.dir.path(), &["push", "here", &ends.server.url("there"), "-n", "--no-state"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("here/pipe: left out: neither file, directory nor symbolic link"), "{ran:?}");
    assert!(ran.stdout.contains("+ odd\\n\\u{1b}[31m\u{fffd}2  3 B  new\n"), "{ran:?}");
    assert!(ran.stdout.contains("~ chmodded  permissions 644 -> 751\n"), "{ran:?}");
    assert!(ran.stdout.contains("~ link  target small -> large"), "{ran:?}");
    let watch = deltasync(ends.dir.path(), &["watch", "here", &ends.server.url("there"), "-n"]);
    watch.failed(2, "watch has no dry run");
}

#[test]
fn what_cannot_be_told_fails_as_the_run_would() {
    let (dir, server) = (Scratch::new(), Server::start());
    dir.write("file", b"x");
    dir.mkdir("tree");
    server.dir.write("file", b"x");
    let dry = |args: &[&str]| deltasync(dir.path(), &[args, &["-n"]].concat());
    dry(&["push", "file", "deltasync://127.0.0.1:1/file", "--retries", "0", "--no-state"]).failed(3, "cannot connect");
    let missing = server.url("missing");
    assert!(dry(&["pull", &missing, "copy", "--json"]).json()["exit_code"].as_u64() > Some(0));
    dry(&["push", "tree", &server.url("file"), "--no-state"]).failed(4, "file");
    dry(&["push", "missing", &missing, "--no-state"]).failed(1, "cannot read missing");
    assert_eq!(
        (dir.names("."), server.dir.names(".")),
        (vec!["file".into(), "tree".into()], vec![".deltasync".into(), "file".into()])
    );
}

#[test]
fn a_directory_in_the_way_stays_and_is_named() {
    let ends = Ends::new(true);
    let ran = deltasync(ends.dir.path(), &["push", "here", &ends.server.url("there"), "-n", "--no-state"]).fine();
    let told = "! full-becomes-file: a directory that is not empty stands there, and stays\n";
    assert!(ran.stdout.contains(told), "{ran:?}");
}

/// Needs `rsync`.
#[test]
#[ignore = "needs rsync"]
fn a_dry_run_names_what_rsync_names() {
    let ends = Ends::new(true);
    let (source, target) = (ends.dir.join("here"), ends.dir.join("other"));
    let mut rsync = Command::new("rsync");
    rsync.args(["-a", "--dry-run", "--itemize-changes", "--delete", "--8-bit-output", "--modify-window=-1"]);
    rsync.arg(source.join("")).arg(target.join(""));
    let output = rsync.output().expect("there is rsync");
    assert!(output.status.success(), "{output:?}");
    // Those of an odd name are left to the other tests: rsync writes them another way.
    let odd = |path: &[u8]| path.starts_with(b"odd");
    let mut theirs = BTreeSet::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((what, path)) = line.split_once(' ') else { continue };
        let path = path.trim_start();
        let path = path.split(" -> ").next().expect("the first").trim_end_matches('/');
        let path = if path == "." { "" } else { path };
        if path.starts_with("odd") {
            continue;
        }
        let is_there = |root: &Path| root.join(path).symlink_metadata().is_ok();
        let change = match what {
            "*deleting" => "deleted",
            _ if is_there(&target) => "changed",
            _ => "new",
        };
        theirs.insert((change.to_owned(), path.as_bytes().to_vec()));
    }
    // What is replaced by another kind rsync deletes first.
    let is_replaced = |(change, path): &&(String, Vec<u8>)| {
        change == "deleted" && theirs.contains(&("changed".to_owned(), path.clone()))
    };
    let replaced: Vec<_> = theirs.iter().filter(is_replaced).cloned().collect();
    theirs.retain(|one| !replaced.contains(one));
    let dry = deltasync(ends.dir.path(), &["push", "here", "other", "-n", "--json", "--delete", "--force"]).fine();
    let ours: Named = named(&dry.json()).into_iter().filter(|(_, path)| !odd(path)).collect();
    let shown = |named: &Named| -> Vec<String> {
        named.iter().map(|(change, path)| format!("{change} {}", String::from_utf8_lossy(path))).collect()
    };
    assert_eq!(shown(&ours), shown(&theirs));
}
