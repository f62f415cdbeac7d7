//! The program against the real server over real TCP.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Ran, Scratch, Server, command, deltasync, noise};

#[test]
fn push_edit_push_and_pull_cost_what_the_wire_shows() {
    let server = Server::start();
    let dir = Scratch::new();
    let mut file = noise(1, 10 << 20);
    let mut before = 0;
    for round in ["cold", "block replaced", "byte in front", "unchanged"] {
        match round {
            "block replaced" => file[5_000_000..5_004_096].copy_from_slice(&noise(2, 4096)),
            "byte in front" => file.insert(0, 7),
            _ => {}
        }
        dir.write("file", &file);
        server.carried();
        let summary = deltasync(dir.path(), &["push", "file", &server.url(""), "--json"]).fine().json();
        assert_eq!(server.dir.read("file"), file, "{round}");
        assert_eq!(carried(&summary), server.carried(), "{round}: {summary}");
        let wire = carried(&summary).0 + carried(&summary).1;
        assert!(if round == "cold" { wire > 10 << 20 } else { wire < 60_000 }, "{round}: {summary}");
        assert!(summary["round_trips"].as_u64() <= Some(2), "{round}: {summary}");
        before = wire;
    }
    assert!(before < 20_000, "unchanged: {before} bytes");

    dir.write("copy", &file[..9 << 20]);
    let summary = deltasync(dir.path(), &["pull", &server.url("file"), "copy", "--json"]).fine().json();
    assert_eq!(dir.read("copy"), file);
    assert_eq!(carried(&summary), server.carried(), "{summary}");
    assert!(carried(&summary).1 < 2 << 20, "{summary}");
}

/// What the program says it sent and received.
fn carried(summary: &serde_json::Value) -> (u64, u64) {
    let number = |key: &str| summary[key].as_u64().unwrap_or_else(|| panic!("{key}: {summary}"));
    (number("wire_sent"), number("wire_received"))
}

#[test]
fn thirty_two_clients_at_once_push_different_files() {
    let server = Server::start();
    let dirs: Vec<Scratch> = (0..32).map(|_| Scratch::new()).collect();
    for round in 0..2 {
        let mut clients: Vec<(usize, Child)> = Vec::new();
        for (i, dir) in dirs.iter().enumerate() {
            let mut file = noise(i as u64, 500_000 + 1000 * i);
            file[round * 300_000] ^= 1;
            dir.write("file", &file);
            let mut command = command(dir.path());
            command.args(["push", "file", &server.url(&format!("client%20{i}")), "--json"]);
            let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
            clients.push((i, client));
        }
        for (i, client) in clients {
            let ran = Ran::new(client.wait_with_output().expect("it ends")).fine();
            assert_eq!(server.dir.read(&format!("client {i}")), dirs[i].read("file"), "client {i}");
            let summary = ran.json();
            assert!(round == 0 || summary["bytes_literal"].as_u64() < Some(30_000), "client {i}: {summary}");
        }
    }
}

#[test]
fn many_files_share_one_connection() {
    let server = Server::start();
    let dir = Scratch::new();
    let names: Vec<String> = (0..40).map(|i| format!("file {i:02}")).collect();
    for (i, name) in names.iter().enumerate() {
        dir.write(name, &noise(i as u64, 40_000 * (i % 4)));
    }
    let url = server.url("a/b/");
    let mut args = vec!["push", "--json"];
    args.extend(names.iter().map(String::as_str));
    args.push(&url);
    let summary = deltasync(dir.path(), &args).fine().json();
    assert_eq!(summary["files"], 40);
    assert_eq!(carried(&summary), server.carried());
    assert!(summary["round_trips"].as_u64() < Some(40), "they do not wait for each other: {summary}");
    assert_eq!(server.dir.names("a/b"), names);

    let urls: Vec<String> = names.iter().map(|name| server.url(&format!("a/b/{}", name.replace(' ', "%20")))).collect();
    let mut args = vec!["pull", "--json"];
    args.extend(urls.iter().map(String::as_str));
    args.push("back");
    let summary = deltasync(dir.path(), &args).fine().json();
    assert_eq!(summary["files"], 40);
    for name in &names {
        assert_eq!(dir.read(&format!("back/{name}")), dir.read(name), "{name}");
    }
}

#[test]
fn a_pull_takes_from_several_servers() {
    let (one, two) = (Server::start(), Server::start());
    one.dir.write("x", b"from one");
    two.dir.write("y", b"from two");
    let dir = Scratch::new();
    dir.write("z", b"from here");
    let summary = deltasync(dir.path(), &["pull", &one.url("x"), &two.url("y"), "z", "out/", "--json"]).fine().json();
    assert_eq!(dir.names("out"), ["x", "y", "z"]);
    assert_eq!(dir.read("out/y"), b"from two");
    assert_eq!(summary["files"], 3);
}

#[test]
fn a_listing_goes_on_to_its_end() {
    let server = Server::start();
    let dir = Scratch::new();
    server.dir.mkdir("many/sub");
    let mut names: Vec<String> = (0..450).map(|i| format!("f{i:03}")).collect();
    names.push("odd \u{1b}%\u{e9}".into());
    names.iter().for_each(|name| server.dir.write(&format!("many/{name}"), name.as_bytes()));
    let lines = deltasync(dir.path(), &["ls", "--json", &server.url("many")]).fine().stdout;
    let entries: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let listed: Vec<&str> = entries.iter().filter_map(|entry| entry["name"].as_str()).collect();
    names.push("sub".into());
    assert_eq!(listed, names);
    assert_eq!((&entries[0]["kind"], &entries[0]["size"]), (&"file".into(), &4.into()));
    let odd = &entries[450]["encoded"];
    assert_eq!(odd, "odd%20%1B%25%C3%A9");
    let url = server.url(&format!("many/{}", odd.as_str().expect("text")));
    deltasync(dir.path(), &["pull", &url, "odd"]).fine();

    let text = deltasync(dir.path(), &["ls", &server.url("many")]).fine().stdout;
    assert!(text.lines().nth(450).is_some_and(|line| line.ends_with("  odd \\u{1b}%\u{e9}")), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.ends_with("  sub/") && line.contains(" directory ")), "{text}");
    let root = deltasync(dir.path(), &["ls", &server.url("")]).fine().stdout;
    assert_eq!(root.lines().count(), 1, "what the server keeps for itself is not listed: {root}");
    deltasync(dir.path(), &["ls", &server.url("missing")]).failed(4, "refused by the peer");
}

#[test]
fn verify_compares_roots() {
    let server = Server::start();
    let dir = Scratch::new();
    dir.write("file", &noise(1, 300_000));
    server.dir.write("same", &noise(1, 300_000));
    server.dir.write("other", &noise(2, 300_000));
    let root = deltasync_core::Algorithm::Blake3.digest(&noise(1, 300_000));
    let same = server.url("same");
    let equal = deltasync(dir.path(), &["verify", "file", &same]).fine();
    assert_eq!(equal.stdout, format!("{root}  file\n{root}  {same}\n"));
    let differ = deltasync(dir.path(), &["verify", "file", &server.url("other")]).failed(5, "files differ");
    assert_eq!(differ.stdout.lines().count(), 2);
    let json = deltasync(dir.path(), &["verify", "--json", "file", &server.url("other")]).failed(5, "differ").json();
    assert_eq!((&json["equal"], &json["local"]["root"]), (&false.into(), &root.to_string().into()));
    deltasync(dir.path(), &["verify", "file", &server.url("missing")]).failed(4, "refused by the peer");
    assert!(server.carried().0 < 2000, "no content moves");
}

#[test]
fn a_refusal_names_its_reason_and_the_others_go_on() {
    let server = Server::start();
    let dir = Scratch::new();
    server.dir.mkdir("dir/a");
    dir.write("a", b"a");
    dir.write("b", b"b");
    let ran = deltasync(dir.path(), &["push", "a", "b", &server.url("dir"), "--json"]).failed(4, "refused by the peer");
    assert_eq!(ran.json()["files"], 1);
    assert_eq!(server.dir.read("dir/b"), b"b");
    deltasync(dir.path(), &["pull", &server.url("missing"), "x"]).failed(4, "`deltasync ls` shows what is there");
    deltasync(dir.path(), &["push", "a", &server.url(".deltasync/x")]).failed(4, "refused by the peer");
    assert!(!dir.join("x").exists());
}

#[test]
fn nobody_listening_is_status_3() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let dir = Scratch::new();
    dir.write("file", b"x");
    let url = format!("deltasync://{address}/");
    let ran = deltasync(dir.path(), &["push", "file", &url, "--json", "--retries=0"]);
    let ran = ran.failed(3, &format!("cannot connect to {address}: Connection refused"));
    assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("deltasync: ")).count(), 1, "said once: {ran:?}");
    assert_eq!(ran.json()["exit_code"], 3);
    deltasync(dir.path(), &["ls", &url, "--retries=0"]).failed(3, "check that deltasync-server runs there");
    deltasync(dir.path(), &["verify", "file", &url.replace("127.0.0.1", "host.invalid")]).failed(3, "host.invalid");
}

#[test]
fn a_port_of_something_else_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the program connects");
        stream.write_all(b"SSH-2.0-Something_else\r\n").expect("it reads");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let dir = Scratch::new();
    dir.write("file", b"x");
    let ran = deltasync(dir.path(), &["push", "file", &format!("deltasync://{address}/")]);
    ran.failed(1, "check that it is a deltasync-server that listens there");
    other.join().expect("it ends");
}

#[test]
fn ctrl_c_cancels_within_two_seconds() {
    // It accepts and says nothing, so the transfer waits.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let dir = Scratch::new();
    dir.write("file", &noise(1, 1000));
    let mut command = command(dir.path());
    command.args(["pull", &format!("deltasync://{address}/x"), "file", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let _connection = listener.accept().expect("the program connects");
    let begun = Instant::now();
    let kill = std::process::Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(kill.expect("a shell").success());
    let ran = Ran::new(child.wait_with_output().expect("it ends")).failed(130, "deltasync: interrupted\n");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(ran.json()["exit_code"], 130);
    assert_eq!(dir.read("file"), noise(1, 1000));
    assert_eq!(dir.names("."), ["file"]);
}
