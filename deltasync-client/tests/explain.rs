//! `deltasync explain`, by the program itself: what it says would be sent is what a push then sends.

mod common;

use common::{Ran, Scratch, Server, command, deltasync, noise};
use serde_json::Value;

const LEN: usize = 2 << 20;
const EDIT: std::ops::Range<usize> = 1_000_000..1_004_096;

/// A file that the server has, and its edited version here.
fn edited(server: &Server) -> Scratch {
    let dir = Scratch::new();
    let mut file = noise(1, LEN);
    dir.write("file", &file);
    deltasync(dir.path(), &["push", "file", &server.url("file"), "--state=state"]).fine();
    file[EDIT].copy_from_slice(&noise(2, EDIT.len()));
    dir.write("file", &file);
    dir
}

fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap_or_else(|| panic!("{key}: {object}"))
}

/// The runs cover the file one behind the other, and add up to what is said of the whole.
#[track_caller]
fn check_runs(object: &Value, len: usize) {
    let (mut at, mut copied) = (0, 0);
    for run in object["runs"].as_array().expect("a list") {
        assert_eq!(number(run, "at"), at, "{object}");
        let (len, of) = (number(run, "len"), number(run, "copied"));
        let origin = if of == 0 {
            "sent"
        } else if of == len {
            "copied"
        } else {
            "mixed"
        };
        assert_eq!(run["origin"], origin, "{run}");
        at += len;
        copied += of;
    }
    assert_eq!((at, number(object, "bytes")), (len as u64, len as u64), "{object}");
    assert_eq!((copied, number(object, "sent")), (number(object, "copied"), at - copied), "{object}");
}

#[test]
fn an_edit_is_where_it_was_made_and_costs_what_is_said() {
    for state in ["--no-state", "--state=state"] {
        let server = Server::start();
        let dir = edited(&server);
        let known = state != "--no-state";
        let explain = |more: &[&str]| {
            deltasync(dir.path(), &[&["explain", "file", &server.url("file"), state], more].concat()).fine()
        };
        let object = explain(&["--json"]).json();
        check_runs(&object, LEN);
        assert_eq!((&object["change"], &object["known"]), (&"changed".into(), &known.into()), "{object}");
        for run in object["runs"].as_array().expect("a list").iter().filter(|run| run["origin"] != "copied") {
            let (at, len) = (number(run, "at") as usize, number(run, "len") as usize);
            assert!(at + 70_000 > EDIT.start && at + len < EDIT.end + 70_000, "{run}");
        }
        let sent = number(&object, "sent") as usize;
        assert!((EDIT.len() - 64..EDIT.len() + 4096).contains(&sent), "{object}");

        let text = explain(&[]).stdout;
        let strip = text.lines().find(|line| line.starts_with("  ..")).unwrap_or_else(|| panic!("{text}")).trim();
        assert_eq!(strip.len(), 76, "{text}");
        let other = strip.find(|c| c != '.').expect("an edit");
        assert!((34..=37).contains(&other) && strip.trim_matches('.').len() <= 2, "{text}");
        assert!(text.contains(". there already, ") && text.contains("% reused"), "{text}");
        assert_eq!(text.contains("known from the last push"), known, "{text}");

        assert_eq!(server.dir.read("file"), noise(1, LEN), "nothing was changed");
        let push = deltasync(dir.path(), &["push", "file", &server.url("file"), state, "--json"]).fine().json();
        assert_eq!(number(&push, "bytes_literal") as usize, sent, "{push}");
        let wire = number(&push, "wire_sent") + number(&push, "wire_received");
        assert!(wire.abs_diff(number(&object, "wire_predicted")) < 200, "{wire}: {object}");
        assert!(push["round_trips"].as_u64() <= object["round_trips"].as_u64(), "{push} {object}");
        let after = explain(&["--json"]).json();
        check_runs(&after, LEN);
        assert_eq!((number(&after, "sent"), &after["change"]), (0, &Value::Null), "{after}");
    }
}

#[test]
fn a_new_file_is_sent_and_an_equal_one_is_not() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.write("file", &noise(1, 300_000));
    dir.write("empty", b"");
    let explain = |file: &str| deltasync(dir.path(), &["explain", file, &server.url("file")]).fine().stdout;
    let new = explain("file");
    assert!(new.contains("\n  no file is there: ") && new.contains(&format!("\n  {}\n", "#".repeat(76))), "{new}");
    assert!(new.contains("\n300,000 of 300,000 bytes would be sent, in 1 range (0.0 % reused)\n"), "{new}");
    deltasync(dir.path(), &["push", "file", &server.url("file")]).fine();
    let equal = explain("file");
    assert!(equal.contains("\n  unchanged: ") && equal.contains(&format!("\n  {}\n", ".".repeat(76))), "{equal}");
    assert!(equal.contains("\n0 of 300,000 bytes would be sent, in 0 ranges (100.0 % reused)\nabout "), "{equal}");
    assert!(explain("empty").contains("another version is there"), "{}", explain("empty"));
}

#[test]
fn many_edits_are_listed_by_size() {
    let server = Server::start();
    let dir = edited(&server);
    let mut file = dir.read("file");
    for (i, at) in (0..30).map(|i| (i, 20_000 + i * 60_000)) {
        file[at..][..100 + 50 * i].copy_from_slice(&noise(50 + i as u64, 100 + 50 * i));
    }
    dir.write("file", &file);
    let ran = deltasync(dir.path(), &["explain", "file", &server.url("file"), "--no-state"]).fine();
    let table: Vec<_> =
        ran.stdout.lines().skip_while(|line| !line.trim_start().starts_with("offset")).skip(1).collect();
    let rows: Vec<_> = table.iter().take_while(|line| line.starts_with("    ")).collect();
    assert_eq!(rows.len(), 11, "{ran:?}");
    assert!(rows[10].contains("smaller ones: "), "{ran:?}");
    let offset = |row: &str| row.split_whitespace().next().expect("a number").replace(',', "").parse::<u64>();
    let offsets: Vec<_> = rows[..10].iter().map(|row| offset(row).expect("a number")).collect();
    assert!(offsets.is_sorted(), "{offsets:?}");
}

fn uncoloured(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default();
    let rest = parts.map(|part| part.split_once('m').expect("a colour").1);
    std::iter::once(first).chain(rest).collect()
}

#[test]
fn colours_only_where_they_are_wanted() {
    let server = Server::start();
    let dir = edited(&server);
    let url = server.url("file");
    let explain = |more: &[&str], variables: &[(&str, &str)]| {
        let mut command = command(dir.path());
        command.args(["explain", "file", &url, "--no-state"]).args(more).envs(variables.iter().copied());
        Ran::new(command.output().expect("the program starts")).fine().stdout
    };
    let plain = explain(&[], &[("NO_COLOR", "1")]);
    assert!(!plain.contains('\x1b'));
    for coloured in [explain(&["--color=always"], &[]), explain(&[], &[("NO_COLOR", ""), ("CLICOLOR_FORCE", "1")])] {
        assert!(coloured.contains("\x1b[32m....") && coloured.contains("\x1b[0m"), "{coloured}");
        // All but the last line, which has what the dry run moved.
        let all =
            |text: &str| text.lines().filter(|line| !line.starts_with("about ")).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(all(&uncoloured(&coloured)), all(&plain));
    }
}

#[test]
fn what_cannot_be_explained_is_told() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.mkdir("tree");
    dir.write("file", b"x");
    server.dir.mkdir("dir");
    let explain = |file: &str, url: &str| deltasync(dir.path(), &["explain", file, url, "--retries=0"]);
    explain("tree", &server.url("")).failed(2, "tree is a directory, not a file");
    explain("none", &server.url("")).failed(1, "cannot ");
    let ran = explain("file", "deltasync://127.0.0.1:1/").failed(3, "cannot connect");
    assert!(ran.stderr.contains("\nhint: check that deltasync-server runs there"), "{ran:?}");
    assert!(explain("file", &server.url("dir")).fine().stdout.contains("no file is there"));
}
