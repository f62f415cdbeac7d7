//! Pushes and pulls of a part of a directory: what is excluded is neither sent, nor replaced or deleted.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use common::{Ran, Scratch, Server, deltasync, noise};

const QUIET: &str = "--no-state";

/// All files below a directory, with what they hold; directories end in `/`, links are as they read.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).expect("readable") {
            let path = entry.expect("readable").path();
            let name =
                String::from_utf8_lossy(path.strip_prefix(root).expect("below").as_os_str().as_bytes()).into_owned();
            if path.is_symlink() {
                found.insert(name, fs::read_link(&path).expect("a link").into_os_string().into_vec());
            } else if path.is_dir() {
                found.insert(name + "/", Vec::new());
                left.push(path);
            } else {
                found.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    found.remove(".deltasync/");
    found
}

fn names(root: &Path) -> Vec<String> {
    files(root).into_keys().collect()
}

fn write(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("in a directory")).expect("space");
    fs::write(path, bytes).expect("space");
}

/// A way to bring `to` up to date with `from`, by these options.
type Go<'a> = dyn Fn(&[&str]) -> Ran + 'a;

/// The same for a push, a pull and within this machine, each with directories of its own.
fn each_way(check: impl Fn(&Path, &Path, &Go<'_>)) {
    let (server, dir) = (Server::start(), Scratch::new());
    let url = server.url("pushed");
    check(&dir.join("push"), &server.dir.join("pushed"), &|more| {
        deltasync(dir.path(), &[&["push", "push", &url, QUIET], more].concat())
    });
    let url = server.url("pulled");
    check(&server.dir.join("pulled"), &dir.join("pull"), &|more| {
        deltasync(dir.path(), &[&["pull", &url, "pull"], more].concat())
    });
    check(&dir.join("a"), &dir.join("b"), &|more| deltasync(dir.path(), &[&["push", "a", "b"], more].concat()));
}

#[test]
fn what_is_excluded_neither_goes_nor_is_replaced_or_deleted() {
    each_way(|from, to, go| {
        for name in ["main.c", "main.o", "lib/x.o", "lib/keep.o", "lib/x.c", "build/out", "build/deep/out", "sub/build"]
        {
            write(from, name, name.as_bytes());
        }
        write(from, "large.o", &noise(1, 100_000));
        write(from, "large.c", &noise(2, 100_000));
        std::os::unix::fs::symlink("main.c", from.join("link.o")).expect("new");
        write(from, "extra.c", b"extra");
        write(from, "gone/only.c", b"gone");
        let rules = ["--exclude", "*.o", "--include", "keep.o", "--exclude", "/build/"];
        go(&rules).fine();
        let expected = [
            "extra.c",
            "gone/",
            "gone/only.c",
            "large.c",
            "lib/",
            "lib/keep.o",
            "lib/x.c",
            "main.c",
            "sub/",
            "sub/build",
        ];
        assert_eq!(names(to), expected);

        // What the destination has of what is excluded stays as it is, and so do directories that hold some of it.
        for name in ["main.o", "lib/x.o", "build/theirs", "gone/theirs.o", "large.o"] {
            write(to, name, b"theirs");
        }
        fs::remove_file(from.join("extra.c")).expect("there");
        fs::remove_dir_all(from.join("gone")).expect("there");
        write(from, "main.c", b"edited");
        go(&[&rules[..], &["--delete", "--max-delete", "2"]].concat()).fine();
        let there = files(to);
        let expected = [
            "build/",
            "build/theirs",
            "gone/",
            "gone/theirs.o",
            "large.c",
            "large.o",
            "lib/",
            "lib/keep.o",
            "lib/x.c",
            "lib/x.o",
            "main.c",
            "main.o",
            "sub/",
            "sub/build",
        ];
        assert_eq!(there.keys().map(String::as_str).collect::<Vec<_>>(), expected);
        for name in ["main.o", "lib/x.o", "build/theirs", "gone/theirs.o", "large.o"] {
            assert_eq!(there[name], b"theirs", "{name}");
        }
        assert_eq!(there["main.c"], b"edited");

        // Only what is selected counts for what is too much.
        for i in 0..100 {
            write(to, &format!("cache/{i}.o"), b"theirs");
        }
        for name in ["large.c", "lib/keep.o", "lib/x.c", "main.c"] {
            fs::remove_file(from.join(name)).expect("there");
        }
        assert_ne!(go(&[&rules[..], &["--delete", "--max-delete", "3"]].concat()).code, Some(0));
        go(&[&rules[..], &["--delete", "--max-delete", "4"]].concat()).fine();
        assert_eq!(files(to).len(), expected.len() + 101 - 4);
        // Without the rules all is as it is at the source.
        go(&["--delete", "--force"]).fine();
        assert_eq!(files(to), files(from));
    });
}

#[test]
fn ignore_files_count_at_each_depth_and_only_when_they_are_to() {
    each_way(|from, to, go| {
        write(from, ".gitignore", b"*.log\n/target/\n# comment\n!important.log\n");
        write(from, "sub/.gitignore", b"!*.log\nsecret\n");
        write(from, "sub/.deltasyncignore", b"noisy.log\n");
        write(from, "other/.deltasyncignore", b"*\n!/.deltasyncignore\n");
        for name in
            ["a", "a.log", "important.log", "target/x", "sub/target/x", "sub/b.log", "sub/noisy.log", "sub/secret"]
        {
            write(from, name, name.as_bytes());
        }
        write(from, "other/x", b"x");
        write(from, "secret", b"not below sub");
        go(&["--ignore-files", "--exclude", "a"]).fine();
        let expected = [
            ".gitignore",
            "important.log",
            "other/",
            "other/.deltasyncignore",
            "secret",
            "sub/",
            "sub/.deltasyncignore",
            "sub/.gitignore",
            "sub/b.log",
            "sub/target/",
            "sub/target/x",
        ];
        assert_eq!(names(to), expected);
        // What they say protects at the destination too.
        write(to, "target/theirs", b"theirs");
        write(to, "sub/secret", b"theirs");
        write(to, "other/theirs", b"theirs");
        go(&["--ignore-files", "--exclude", "a", "--delete"]).fine();
        for name in ["target/theirs", "sub/secret", "other/theirs"] {
            assert_eq!(fs::read(to.join(name)).expect("it stays"), b"theirs");
        }
        // The command line comes first.
        go(&["--ignore-files", "--include", "a.log", "--include", "/target/"]).fine();
        assert_eq!(fs::read(to.join("a.log")).expect("it came"), b"a.log");
        assert_eq!(fs::read(to.join("target/x")).expect("it came"), b"target/x");
        go(&["--delete", "--force"]).fine();
        assert_eq!(files(to), files(from));
    });
}

#[test]
fn what_only_the_destination_ignores_comes_all_the_same() {
    each_way(|from, to, go| {
        write(from, "small", b"new");
        write(from, "large", &noise(3, 100_000));
        write(from, "dir/in", b"new");
        for name in ["small", "large", "dir/in", "theirs"] {
            write(to, name, b"old");
        }
        write(to, ".gitignore", b"/small\n/large\n/dir\n/theirs\n");
        for _ in 0..2 {
            go(&["--ignore-files", "--delete", "--force", "--exclude", ".gitignore"]).fine();
            let mut expected = files(from);
            expected.insert(".gitignore".into(), b"/small\n/large\n/dir\n/theirs\n".to_vec());
            expected.insert("theirs".into(), b"old".to_vec());
            assert_eq!(files(to), expected);
        }
    });
}

#[test]
fn names_of_any_bytes_are_matched() {
    each_way(|from, to, go| {
        fs::create_dir(from).expect("new");
        for name in [&b"\xff\xfe.o"[..], b"\xff\xfe.c", b"new\nline.o", b"caf\xe9", b"caff"] {
            fs::write(from.join(OsStr::from_bytes(name)), b"x").expect("space");
        }
        go(&["--exclude", "*.o", "--exclude", "caf?"]).fine();
        assert_eq!(names(to), ["\u{fffd}\u{fffd}.c"]);
    });
}

#[test]
fn what_is_in_the_way_and_holds_what_is_excluded_stays() {
    each_way(|from, to, go| {
        write(from, "way", b"a file");
        write(from, "rest", b"a file");
        for name in ["way/x.c", "way/deep/y.o"] {
            write(to, name, b"theirs");
        }
        let ran = go(&["--exclude", "*.o", "--delete", "--force"]);
        assert!(ran.code != Some(0) && ran.stderr.contains("excluded"), "{ran:?}");
        assert_eq!(names(to), ["rest", "way/", "way/deep/", "way/deep/y.o", "way/x.c"]);
    });
}

#[test]
fn patterns_that_cannot_be_used_end_the_call_before_anything_is_done() {
    let dir = Scratch::new();
    dir.mkdir("tree");
    dir.write("file", b"x");
    // Nobody listens there.
    let url = "deltasync://127.0.0.1:1/tree";
    for (option, pattern) in
        [("--exclude", "[z-a]"), ("--include", "[z-a]"), ("--exclude", "# comment"), ("--exclude", "/")]
    {
        deltasync(dir.path(), &["push", "tree", url, option, pattern]).failed(2, "the pattern ");
        deltasync(dir.path(), &["pull", url, "tree", option, pattern]).failed(2, "the pattern ");
    }
    let many: Vec<_> = (0..1001).flat_map(|_| ["--exclude", "x"]).collect();
    for more in [&["--exclude", ""][..], &["--exclude", "!x"], &["--exclude", &"x".repeat(5000)], &many] {
        let ran = deltasync(dir.path(), &[&["push", "tree", url], more].concat());
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains("cannot be used"), "{ran:?}");
    }
    deltasync(dir.path(), &["push", "file", url, "--exclude", "x"]).failed(2, "none is given");
    deltasync(dir.path(), &["push", "file", "out", "--ignore-files"]).failed(2, "none is given");
}

#[test]
fn lines_of_ignore_files_that_mean_nothing_are_named() {
    let dir = Scratch::new();
    dir.mkdir("tree/sub");
    dir.write("tree/sub/.gitignore", b"*.o\n[z-a]\n");
    dir.write("tree/sub/a.o", b"x");
    dir.write("tree/sub/b", b"x");
    let ran = deltasync(dir.path(), &["push", "tree", "out", "--ignore-files"]);
    ran.failed(1, "tree/sub/.gitignore -> out/sub/.gitignore").failed(1, "line 2 is no pattern");
    assert_eq!(names(&dir.join("out")), ["sub/", "sub/.gitignore", "sub/b"]);
}
