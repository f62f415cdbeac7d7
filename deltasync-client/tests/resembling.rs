//! Large files of a directory that resemble others at the server: renamed, copied or moved, and edited.

mod common;

use std::fs;

use common::{Scratch, Server, deltasync, noise};

/// Pushes `tree`; what that sent of each file is there.
#[track_caller]
fn push(dir: &Scratch, server: &Server) -> u64 {
    push_with(dir, server, &[])
}

#[track_caller]
fn push_with(dir: &Scratch, server: &Server, options: &[&str]) -> u64 {
    let url = server.url("tree");
    let options = [&["push", "tree", &url, "--no-state", "--json"], options].concat();
    let summary = deltasync(dir.path(), &options).fine().json();
    summary["wire_sent"].as_u64().expect("a number") + summary["wire_received"].as_u64().expect("a number")
}

#[track_caller]
fn check_there(dir: &Scratch, server: &Server, name: &str) {
    let there = fs::read(server.dir.join("tree").join(name)).expect("it is there");
    assert!(there == dir.read(&format!("tree/{name}")), "{name}");
}

fn edited(bytes: &[u8], at: usize) -> Vec<u8> {
    [&bytes[..at], b"inserted", &bytes[at..]].concat()
}

#[test]
fn a_file_that_was_renamed_and_edited_is_a_delta_against_what_it_was() {
    let (dir, server) = (Scratch::new(), Server::start());
    dir.mkdir("tree/old");
    dir.mkdir("tree/new");
    let release = noise(1, 2_000_000);
    dir.write("tree/old/lib-1.2.so", &release);
    // Of which nothing is to be taken.
    (2..12).for_each(|seed| dir.write(&format!("tree/old/other{seed}"), &noise(seed, 300_000)));
    assert!(push(&dir, &server) > 5_000_000);

    // Elsewhere, under another name, the old one gone.
    fs::remove_file(dir.join("tree/old/lib-1.2.so")).expect("removed");
    dir.write("tree/new/lib-1.3.so", &edited(&release, 1_000_000));
    let wire = push(&dir, &server);
    assert!(wire < 20_000, "{wire}");
    check_there(&dir, &server, "new/lib-1.3.so");

    // What was made of a delta is found too, also for two at once.
    dir.write("tree/new/lib-1.4.so", &edited(&dir.read("tree/new/lib-1.3.so"), 500_000));
    dir.write("tree/new/copy", &edited(&dir.read("tree/new/lib-1.3.so"), 1_900_000));
    fs::remove_file(dir.join("tree/new/lib-1.3.so")).expect("removed");
    let wire = push(&dir, &server);
    assert!(wire < 30_000, "{wire}");
    ["new/lib-1.4.so", "new/copy"].iter().for_each(|name| check_there(&dir, &server, name));

    // Only others are left: all is sent.
    let only = noise(77, 1_000_000);
    dir.write("tree/only", &only);
    assert!(push(&dir, &server) > 1_000_000);
    check_there(&dir, &server, "only");
}

#[test]
fn what_is_to_be_deleted_is_a_help_before_it_goes() {
    let (dir, server) = (Scratch::new(), Server::start());
    dir.mkdir("tree");
    let release = noise(1, 1_000_000);
    dir.write("tree/lib-1.2.so", &release);
    (2..12).for_each(|seed| dir.write(&format!("tree/other{seed}"), &noise(seed, 3000)));
    push(&dir, &server);
    for (old, new) in [("lib-1.2.so", "lib-1.3.so"), ("lib-1.3.so", "lib-1.4.so")] {
        let now = edited(&dir.read(&format!("tree/{old}")), 300_000);
        fs::remove_file(dir.join(format!("tree/{old}"))).expect("removed");
        dir.write(&format!("tree/{new}"), &now);
        let wire = push_with(&dir, &server, &["--delete"]);
        assert!(wire < 20_000, "{wire}");
        check_there(&dir, &server, new);
        assert!(!server.dir.join("tree").join(old).exists(), "{old} is gone");
    }
}

#[test]
fn what_resembled_it_and_is_something_else_by_now_or_gone_is_no_help_and_no_harm() {
    let (dir, server) = (Scratch::new(), Server::start());
    dir.mkdir("tree");
    let release = noise(1, 1_000_000);
    dir.write("tree/a", &release);
    dir.write("tree/b", &edited(&release, 10_000));
    push(&dir, &server);
    fs::write(server.dir.join("tree/a"), noise(2, 500)).expect("written");
    fs::remove_file(server.dir.join("tree/b")).expect("removed");
    fs::remove_file(dir.join("tree/a")).expect("removed");
    fs::rename(dir.join("tree/b"), dir.join("tree/c")).expect("renamed");
    dir.write("tree/c", &edited(&release, 20_000));
    assert!(push(&dir, &server) > 1_000_000);
    check_there(&dir, &server, "c");
}

#[test]
fn a_small_file_that_is_a_copy_of_another_is_not_sent() {
    let (dir, server) = (Scratch::new(), Server::start());
    ["tree", "tree/a", "tree/b"].iter().for_each(|at| dir.mkdir(at));
    (0..60).for_each(|seed| dir.write(&format!("tree/a/{seed}"), &noise(seed, 4000)));
    push(&dir, &server);
    // Under its own name elsewhere; under another one with its time; and one that only looks like another.
    (0..20).for_each(|seed| dir.write(&format!("tree/b/{seed}"), &noise(seed, 4000)));
    for seed in 20..40 {
        let (from, to) = (dir.join(format!("tree/a/{seed}")), dir.join(format!("tree/b/copy{seed}")));
        fs::copy(&from, &to).expect("copied");
        let time = fs::metadata(&from).and_then(|is| is.modified()).expect("known");
        fs::File::options().write(true).open(&to).and_then(|file| file.set_modified(time)).expect("ours");
    }
    dir.write("tree/b/40", &noise(99, 4000));
    let wire = push(&dir, &server);
    assert!((4000..4000 + 41 * 100).contains(&wire), "{wire}");
    (0..20).for_each(|seed| check_there(&dir, &server, &format!("b/{seed}")));
    (20..40).for_each(|seed| check_there(&dir, &server, &format!("b/copy{seed}")));
    check_there(&dir, &server, "b/40");
    // What the server has of the first is not what it says by now: the copy is right all the same.
    let (there, is) = (server.dir.join("tree/a/50"), fs::metadata(server.dir.join("tree/a/50")).expect("there"));
    fs::write(&there, noise(100, 4000)).expect("written");
    fs::File::options().write(true).open(&there).and_then(|file| file.set_modified(is.modified()?)).expect("ours");
    dir.write("tree/b/50", &noise(50, 4000));
    push(&dir, &server);
    check_there(&dir, &server, "b/50");
}
