//! Pushes and pulls within this machine, by the program itself: the same engine, no server.

mod common;

use common::{Ran, Scratch, command, deltasync, noise};

#[test]
fn a_second_push_sends_only_what_changed() {
    let dir = Scratch::new();
    dir.mkdir("out");
    let mut file = noise(1, 3 << 20);
    dir.write("file", &file);
    let first = deltasync(dir.path(), &["push", "file", "out"]).fine();
    assert!(first.stdout.starts_with("pushed 1 file, 3.0 MiB: 3.0 MiB sent and "), "{first:?}");
    assert_eq!(dir.read("out/file"), file);

    file[1_000_000..1_004_096].copy_from_slice(&noise(2, 4096));
    dir.write("file", &file);
    let second = deltasync(dir.path(), &["push", "file", "out/", "--json"]).fine().json();
    assert_eq!(dir.read("out/file"), file);
    assert_eq!((&second["files"], &second["bytes_target"]), (&1.into(), &(3 << 20).into()));
    let number = |key: &str| second[key].as_u64().unwrap_or_else(|| panic!("{key}: {second}"));
    assert_eq!(number("bytes_copied") + number("bytes_literal"), 3 << 20);
    assert!((4096..20_000).contains(&number("bytes_literal")), "{second}");
    assert!(number("wire_sent") + number("wire_received") < 60_000, "{second}");
    assert_eq!(second["root"], root(&file), "{second}");
    assert_eq!(dir.names("out"), ["file"], "nothing else is kept there");

    let third = deltasync(dir.path(), &["push", "file", "out/file"]).fine();
    assert!(third.stdout.contains("(100.0 % reused), 1 round trip, "), "{third:?}");
}

fn root(bytes: &[u8]) -> serde_json::Value {
    deltasync_core::Algorithm::Blake3.digest(bytes).to_string().into()
}

#[test]
fn the_empty_file_and_the_edges_of_a_chunk_arrive() {
    let dir = Scratch::new();
    for len in [0, 1, 1023, 1024, 1025, 3071, 3072, 3073, 262_143, 262_144, 262_145] {
        let file = noise(len as u64, len);
        dir.write("file", &file);
        let summary = deltasync(dir.path(), &["push", "--json", "file", "copy"]).fine().json();
        assert_eq!(summary["bytes_target"], len, "{summary}");
        assert_eq!(summary["root"], root(&file));
        assert_eq!(dir.read("copy"), file);
        // The other way round, over what the last length left.
        deltasync(dir.path(), &["pull", "copy", "back"]).fine();
        assert_eq!(dir.read("back"), file);
    }
}

#[test]
fn a_directory_takes_files_by_their_names() {
    let dir = Scratch::new();
    for name in ["a", "b", "sub/c"] {
        dir.mkdir("sub");
        dir.write(name, name.as_bytes());
    }
    std::os::unix::fs::symlink("sub/c", dir.join("link")).expect("new");
    dir.mkdir("out");
    let summary = deltasync(dir.path(), &["push", "a", "b", "link", "out", "--json"]).fine().json();
    assert_eq!(dir.names("out"), ["a", "b", "link"]);
    assert_eq!(dir.read("out/link"), b"sub/c");
    assert_eq!((&summary["files"], &summary["root"]), (&3.into(), &serde_json::Value::Null));
    assert_eq!(summary["roots"], serde_json::json!([root(b"a"), root(b"b"), root(b"sub/c")]));

    // Several sources, or a slash, make the directory.
    deltasync(dir.path(), &["push", "a", "b", "made"]).fine();
    deltasync(dir.path(), &["pull", "a", "sub/c", "pulled"]).fine();
    deltasync(dir.path(), &["push", "a", "slashed/"]).fine();
    assert_eq!(dir.names("made"), ["a", "b"]);
    assert_eq!(dir.names("pulled"), ["a", "c"]);
    assert_eq!(dir.names("slashed"), ["a"]);
}

#[test]
fn what_cannot_work_is_refused_before_anything_moves() {
    let dir = Scratch::new();
    dir.mkdir("sub");
    dir.mkdir("sub2");
    for name in ["file", "sub/x", "sub2/x"] {
        dir.write(name, b"content");
    }
    let run = |args: &[&str]| deltasync(dir.path(), args);
    run(&["push", "missing", "out"]).failed(1, "cannot read missing: No such file");
    run(&["push", "/dev/null", "out"]).failed(2, "/dev/null is neither a regular file nor a directory");
    run(&["push", "file", "missing/out"]).failed(1, "cannot write to missing/out: No such file");
    run(&["push", "file", "file/"]).failed(2, "file/ is not a directory");
    run(&["push", "file", "sub/x", "file"]).failed(2, "file is not a directory");
    run(&["push", "sub/x", "sub2/x", "sub"]).failed(2, "sub/x and sub2/x would both be written to sub/x");
    run(&["push", "deltasync://h/x", "out"]).failed(2, "use `pull`");
    run(&["pull", "file", "deltasync://h/x"]).failed(2, "use `push`");
    run(&["push", "http://h/x", "out"]).failed(2, "`http://` is not a scheme of deltasync");
    run(&["push", "file", "deltasync://h/../x"]).failed(2, "a component `.` or `..`");
    run(&["push", "file", "deltasync://h/%2e%2e/x"]).failed(2, "a component `.` or `..`");
    run(&["push", "file", "deltasync://h//etc/passwd"]).failed(2, "path is absolute");
    run(&["push", "file"]).failed(2, "required");
    run(&["frobnicate"]).failed(2, "unrecognized");
    assert_eq!(dir.names("."), ["file", "sub", "sub2"]);
    assert_eq!(dir.names("sub"), ["x"]);
}

#[test]
fn a_failure_is_in_the_summary_too() {
    let dir = Scratch::new();
    let ran = deltasync(dir.path(), &["push", "missing", "out", "--json"]).failed(1, "cannot read missing");
    let summary = ran.json();
    assert_eq!((&summary["files"], &summary["exit_code"]), (&0.into(), &1.into()));
    assert_eq!(summary["error"], "cannot read missing: No such file or directory (os error 2)");
}

#[test]
fn a_file_where_a_directory_is_wanted_fails_that_file_only() {
    let dir = Scratch::new();
    dir.write("a", b"a");
    dir.write("b", b"b");
    dir.mkdir("out/a");
    let ran = deltasync(dir.path(), &["push", "a", "b", "out", "--json"]).failed(1, "a -> out/a: ");
    let summary = ran.json();
    assert_eq!((&summary["files"], &summary["exit_code"]), (&1.into(), &1.into()), "{summary}");
    assert_eq!(summary["roots"], serde_json::json!([null, root(b"b")]));
    assert_eq!(dir.read("out/b"), b"b");
    assert!(dir.names("out/a").is_empty());
}

#[test]
fn names_cannot_steer_the_terminal() {
    let dir = Scratch::new();
    let ran = deltasync(dir.path(), &["push", "red\u{1b}[31m\n", "out"]).failed(1, "cannot read red\\u{1b}[31m\\n: ");
    assert!(!ran.stderr.contains('\u{1b}'));
}

#[test]
fn collisions_of_short_tags_are_repaired() {
    let dir = Scratch::new();
    let old = noise(7, 4 << 20);
    let mut file = old.clone();
    for at in (0..file.len()).step_by(10_000) {
        file[at] ^= 1;
    }
    dir.write("file", &file);
    // Each run has tags of its own, and about every second has a repair.
    let mut repairs = 0;
    for _ in 0..50 {
        dir.write("copy", &old);
        let summary = deltasync(dir.path(), &["push", "file", "copy", "--json", "--tag-bits", "8"]).fine().json();
        assert_eq!(dir.read("copy"), file);
        repairs += summary["repairs"].as_u64().expect("a number");
        if repairs > 0 {
            return;
        }
    }
    panic!("no repair in 50 runs");
}

#[test]
fn every_byte_has_its_place_in_the_account() {
    let dir = Scratch::new();
    dir.write("file", &noise(3, 100_000));
    let verbose = deltasync(dir.path(), &["push", "-v", "file", "copy"]).fine().stdout;
    for row in [
        "file -> copy\n",
        "  target               100,000 bytes\n",
        "  repairs                    0\n",
        "  root       ",
    ] {
        assert!(verbose.contains(row), "{verbose}");
    }
    assert_eq!(deltasync(dir.path(), &["push", "-q", "file", "other"]).fine().stdout, "");
}

#[test]
fn sha256_roots_are_what_sha256sum_prints() {
    let dir = Scratch::new();
    dir.write("file", b"");
    let summary = deltasync(dir.path(), &["push", "--hash", "sha256", "--json", "file", "copy"]).fine().json();
    assert_eq!(summary["root"], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    dir.write("file", b"more");
    let algorithm = deltasync_core::Algorithm::Sha256;
    let summary = deltasync(dir.path(), &["push", "--hash", "sha256", "--json", "file", "copy"]).fine().json();
    assert_eq!(summary["root"], algorithm.digest(b"more").to_string());
    let verified = deltasync(dir.path(), &["verify", "--hash", "sha256", "file", "copy", "--json"]).fine().json();
    assert_eq!((&verified["equal"], &verified["algorithm"]), (&true.into(), &"sha256".into()));
}

#[test]
fn help_documents_places_statuses_and_keys() {
    let dir = Scratch::new();
    let help = deltasync(dir.path(), &["--help"]).fine().stdout;
    for text in ["deltasync://HOST[:PORT]/PATH", "3  cannot connect", "5  integrity", "130  interrupted"] {
        assert!(help.contains(text), "{help}");
    }
    let help = deltasync(dir.path(), &["push", "--help"]).fine().stdout;
    let keys = ["files", "bytes_target", "bytes_copied", "bytes_literal", "wire_sent", "wire_received", "round_trips"];
    for key in keys.into_iter().chain(["repairs", "known", "elapsed_ms", "root", "roots", "error", "exit_code"]) {
        assert!(help.contains(key), "{key}: {help}");
    }
    for text in ["--state", "--no-state", "--state-quota", "--keep", "$DELTASYNC_STATE", "~/.local/state/deltasync"] {
        assert!(help.contains(text), "{text}: {help}");
    }
    assert!(!help.contains("tag-bits"));
    assert!(!deltasync(dir.path(), &["pull", "--help"]).fine().stdout.contains("--state"), "it is for pushes");
    deltasync(dir.path(), &["--version"]).fine();
}

#[test]
fn a_closed_standard_output_is_no_failure() {
    let dir = Scratch::new();
    dir.write("file", b"x");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output =
        command(dir.path()).args(["push", "file", "copy"]).stdout(writer).output().expect("the program starts");
    Ran::new(output).fine();
    assert_eq!(dir.read("copy"), b"x");
}
