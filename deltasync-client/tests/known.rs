//! What pushes remember, seen from outside: the program, a server behind a relay that counts, and a state directory.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::{Scratch, Server, command, deltasync, noise};
use serde_json::Value;

const LEN: usize = 10 << 20;

/// Runs a push or pull that has nothing to complain about, and whose count is that of the relay.
#[track_caller]
fn run(dir: &Scratch, server: &Server, args: &[&str]) -> Value {
    server.carried();
    let summary = deltasync(dir.path(), &[args, &["--json"]].concat()).fine().json();
    let wire = ["wire_sent", "wire_received"].map(|key| summary[key].as_u64().expect("a number"));
    assert_eq!((wire[0], wire[1]), server.carried(), "{summary}");
    summary
}

/// Pushes `file`, remembering in `state`, and sees that it arrives.
#[track_caller]
fn push(dir: &Scratch, server: &Server, more: &[&str]) -> Value {
    let url = server.url("");
    let summary = run(dir, server, &[&["push", "file", &url, "--state", "state"], more].concat());
    assert_eq!(server.dir.read("file"), dir.read("file"), "{summary}");
    summary
}

/// All bytes on the wire, round trips, and whether the basis was known.
fn cost(summary: &Value) -> (u64, u64, bool) {
    let number = |key: &str| summary[key].as_u64().expect("a number");
    (number("wire_sent") + number("wire_received"), number("round_trips"), number("known") == 1)
}

/// An edit of a few bytes.
fn edit(dir: &Scratch, at: usize) {
    let mut file = dir.read("file");
    file.iter_mut().skip(at).take(5).for_each(|byte| *byte ^= 0x55);
    dir.write("file", &file);
}

fn check_the_second_push_is_one_round_trip(keep: &str) {
    let (dir, server) = (Scratch::new(), Server::start());
    dir.write("file", &noise(1, LEN));
    let (_, _, known) = cost(&push(&dir, &server, &["--keep", keep]));
    assert!(!known, "{keep}");
    for at in [5_000_000, 0, LEN - 3] {
        edit(&dir, at);
        let (wire, round_trips, known) = cost(&push(&dir, &server, &["--keep", keep]));
        assert!(wire < 5000, "{keep}, an edit at {at}: {wire} bytes");
        assert_eq!((round_trips, known), (1, true), "{keep}, an edit at {at}");
    }
    let (wire, round_trips, known) = cost(&push(&dir, &server, &["--keep", keep]));
    assert!(wire < 200, "{keep}, unchanged: {wire} bytes");
    assert_eq!((round_trips, known), (1, true), "{keep}, unchanged");
}

#[test]
fn an_edit_of_a_remembered_file_costs_one_round_trip() {
    check_the_second_push_is_one_round_trip("auto");
}

#[test]
fn so_it_does_where_only_a_copy_or_only_sums_are_kept() {
    check_the_second_push_is_one_round_trip("copy");
    check_the_second_push_is_one_round_trip("sums");
}

#[test]
fn without_state_nothing_is_used_and_nothing_is_kept() {
    let (dir, server) = (Scratch::new(), Server::start());
    dir.write("file", &noise(1, LEN));
    push(&dir, &server, &[]);
    edit(&dir, 5_000_000);
    let url = server.url("");
    let (_, round_trips, known) = cost(&run(&dir, &server, &["push", "file", &url, "--no-state"]));
    assert_eq!((round_trips, known), (2, false));

    // What was remembered is not what the server has now: that is noticed, and the next push knows again.
    edit(&dir, 7_000_000);
    let (wire, _, known) = cost(&push(&dir, &server, &[]));
    assert!(!known && wire < 20_000, "{wire} bytes");
    edit(&dir, 1_000_000);
    assert_eq!(cost(&push(&dir, &server, &[])).1, 1);
}

#[test]
fn the_state_lies_where_the_environment_says() {
    let (dir, server) = (Scratch::new(), Server::start());
    dir.write("file", &noise(1, 300_000));
    let url = server.url("");
    let kept = |at: &str| fs::read_dir(dir.join(at).join("kept")).map_or(0, Iterator::count);
    for (variable, value, at) in [
        ("HOME", "home", "home/.local/state/deltasync"),
        ("XDG_STATE_HOME", "xdg", "xdg/deltasync"),
        ("DELTASYNC_STATE", "own", "own"),
    ] {
        let push = |destination: &str, more: &[&str]| {
            let mut command = command(dir.path());
            command.env(variable, dir.join(value)).args(["push", "-q", "file", destination]).args(more);
            assert!(command.status().expect("the program starts").success());
        };
        push("copy", &[]);
        push(&url, &["--no-state"]);
        assert!(!dir.join(value).exists(), "{variable}: nothing to remember");
        push(&url, &["--state", "elsewhere"]);
        assert!(!dir.join(value).exists(), "{variable}: the option goes before");
        push(&url, &[]);
        assert_eq!(kept(at), 2, "{variable}");
        let mode = fs::metadata(dir.join(at)).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{variable}: for the user alone");
    }
    // With none of them.
    deltasync(dir.path(), &["push", "file", &url]).fine();
}

#[test]
fn the_quota_holds() {
    let (dir, server) = (Scratch::new(), Server::start());
    dir.write("file", &noise(1, 1 << 20));
    push(&dir, &server, &["--state-quota", "0"]);
    let held = || -> u64 {
        let kept = fs::read_dir(dir.join("state/kept")).expect("made");
        kept.map(|entry| entry.expect("readable").metadata().expect("there").len()).sum()
    };
    assert_eq!(held(), 0);
    push(&dir, &server, &["--state-quota", "200000"]);
    assert!((1..=200_000).contains(&held()), "{} bytes", held());
    edit(&dir, 500_000);
    assert!(cost(&push(&dir, &server, &["--state-quota", "200000"])).2, "sums are enough");
}

/// Pushes, does harm to what is remembered, pushes an edit, and an edit once more after `heal`.
#[track_caller]
fn check_harm_is_only_forgotten<T>(harm: impl Fn(&Path) -> T, heal: impl Fn(&Path, T)) {
    for keep in ["copy", "sums"] {
        let (dir, server) = (Scratch::new(), Server::start());
        dir.write("file", &noise(1, 1 << 20));
        push(&dir, &server, &["--keep", keep]);
        let state = dir.join("state");
        let harmed = harm(&state);
        edit(&dir, 300_000);
        push(&dir, &server, &["--keep", keep]);
        heal(&state, harmed);
        // Damage may be noticed by the first push and gone after it.
        for at in [400_000, 500_000] {
            edit(&dir, at);
            push(&dir, &server, &["--keep", keep]);
        }
        edit(&dir, 600_000);
        let (_, round_trips, known) = cost(&push(&dir, &server, &["--keep", keep]));
        assert_eq!((round_trips, known), (1, true), "{keep}");
    }
}

#[test]
fn a_state_that_was_deleted_is_begun_again() {
    check_harm_is_only_forgotten(|state| fs::remove_dir_all(state).expect("ours"), |_, ()| {});
    check_harm_is_only_forgotten(|state| fs::remove_dir_all(state.join("kept")).expect("ours"), |_, ()| {});
    check_harm_is_only_forgotten(|state| fs::remove_file(state.join("known.redb")).expect("ours"), |_, ()| {});
}

#[test]
fn a_state_that_cannot_be_written_is_no_failure() {
    let mode = |state: &Path, mode| {
        for path in [state.to_owned(), state.join("kept"), state.join("new"), state.join("known.redb")] {
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
        }
    };
    check_harm_is_only_forgotten(|state| mode(state, 0o500), |state, ()| mode(state, 0o700));
    // For root too, who may write everything that can be written.
    let file = |state: &Path| {
        fs::rename(state, state.with_extension("away")).expect("ours");
        fs::write(state, b"a file").expect("space");
    };
    let back = |state: &Path, ()| {
        assert_eq!(fs::read(state).expect("there"), b"a file");
        fs::remove_file(state).expect("ours");
        fs::rename(state.with_extension("away"), state).expect("ours");
    };
    check_harm_is_only_forgotten(file, back);
}

#[test]
fn a_state_that_another_process_has_open_is_no_failure() {
    let lock = |state: &Path| {
        let index = File::options().read(true).write(true).open(state.join("known.redb")).expect("there");
        index.try_lock().expect("nobody has it open");
        index
    };
    check_harm_is_only_forgotten(lock, |_, index| drop(index));
}

#[test]
fn a_state_that_was_damaged_is_noticed_without_a_word() {
    let files = |state: &Path| -> Vec<_> {
        let kept = fs::read_dir(state.join("kept")).expect("there").map(|entry| entry.expect("readable").path());
        kept.chain([state.join("known.redb")]).collect()
    };
    let every = |bytes: &mut Vec<u8>, n: usize| bytes.iter_mut().step_by(n).for_each(|byte| *byte ^= 0x10);
    let damage = |f: &dyn Fn(&mut Vec<u8>)| {
        let harm = |state: &Path| {
            for path in files(state) {
                let mut bytes = fs::read(&path).expect("there");
                f(&mut bytes);
                fs::write(&path, bytes).expect("ours");
            }
        };
        check_harm_is_only_forgotten(harm, |_, ()| {});
    };
    damage(&|bytes| every(bytes, 1000));
    damage(&|bytes| every(bytes, 1));
    damage(&|bytes| bytes.truncate(bytes.len() / 2));
    damage(&|bytes| bytes.clear());
    damage(&|bytes| *bytes = noise(3, 5000));
    // Only within the pages of the index, whose header stays.
    damage(&|bytes| bytes.iter_mut().skip(4096).step_by(16).for_each(|byte| *byte = !*byte));
}

#[test]
fn what_one_server_has_says_nothing_of_another() {
    let (dir, one, two) = (Scratch::new(), Server::start(), Server::start());
    let old = noise(1, LEN);
    dir.write("file", &old);
    push(&dir, &one, &[]);
    two.dir.write("file", &old);
    edit(&dir, 5_000_000);
    let (wire, round_trips, known) = cost(&push(&dir, &two, &[]));
    assert_eq!((round_trips, known), (2, false));
    assert!(wire < 10_000, "{wire} bytes: it is not sent for a basis that it has not");
    assert!(cost(&push(&dir, &one, &[])).2, "the first is still known");
}

#[test]
fn who_has_an_old_version_pulls_the_new_one_in_one_round_trip() {
    let (writer, reader, server) = (Scratch::new(), Scratch::new(), Server::start());
    writer.write("file", &noise(1, LEN));
    push(&writer, &server, &[]);
    let pull = || {
        let summary = run(&reader, &server, &["pull", &server.url("file"), "copy"]);
        assert_eq!(reader.read("copy"), writer.read("file"));
        cost(&summary)
    };
    pull();
    for at in [3_000_000, 6_000_000] {
        edit(&writer, at);
        push(&writer, &server, &[]);
    }
    let (wire, round_trips, known) = pull();
    assert!(wire < 5000, "{wire} bytes");
    assert_eq!((round_trips, known), (1, true), "two versions behind");
    let (wire, round_trips, known) = pull();
    assert!(wire < 300, "{wire} bytes");
    assert_eq!((round_trips, known), (1, true), "up to date");
}

#[test]
fn content_that_the_server_has_under_another_name_does_not_move() {
    let (dir, server) = (Scratch::new(), Server::start());
    dir.write("file", &noise(1, LEN));
    push(&dir, &server, &[]);
    fs::rename(dir.join("file"), dir.join("renamed")).expect("one directory");
    let url = server.url("");
    let summary = run(&dir, &server, &["push", "renamed", &url, "--state", "state"]);
    assert_eq!(server.dir.read("renamed"), dir.read("renamed"));
    let (wire, round_trips, _) = cost(&summary);
    assert!(wire < 500, "{summary}");
    assert_eq!((round_trips, &summary["bytes_literal"]), (1, &0.into()), "{summary}");
    assert!(server.dir.join("file").exists(), "it is another file of its own");
}

#[test]
fn the_account_says_whether_the_basis_was_known() {
    let (dir, server) = (Scratch::new(), Server::start());
    dir.write("file", &noise(1, 100_000));
    let url = server.url("");
    let account = || deltasync(dir.path(), &["push", "-v", "file", &url, "--state", "state"]).fine().stdout;
    assert!(account().contains("\n  basis      not known beforehand\n"));
    let account = account();
    assert!(account.contains("\n  basis      known beforehand"), "{account}");
}
