//! What a push or pull may replace, who else writes there, and copies that lost their content.

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use common::{Ran, Scratch, Server, deltasync, noise};
use deltasync_core::{Algorithm, Generation};
use deltasync_io::{BlockingStorage, LocalStorage};
use deltasync_proto::{Answer, Ask, FaultKind, StorageFault, Version};
use deltasync_server::ServerConfig;
use deltasync_testkit::{Cut, CuttingRelay, Direction};

fn root(bytes: &[u8]) -> String {
    Algorithm::Blake3.digest(bytes).to_string()
}

/// The run was refused by a condition, and says that this is there.
#[track_caller]
fn refused(ran: Ran, there: Option<&[u8]>) {
    let there = there.map(root);
    let said = there.as_ref().map_or("no file".into(), |root| format!("root {root}"));
    let message = format!("what is there now is not what was to be replaced: {said}");
    let ran = ran.failed(4, &message);
    let summary = ran.json();
    assert_eq!(summary["current"]["root"], serde_json::json!(there), "{summary}");
    assert_eq!((&summary["exit_code"], &summary["files"]), (&4.into(), &0.into()), "{summary}");
}

#[test]
fn a_push_replaces_only_what_it_is_told_to() {
    let (server, dir) = (Server::start(), Scratch::new());
    let (one, two, three) = (noise(1, 300_000), noise(2, 300_000), noise(3, 1000));
    for (name, bytes) in [("one", &one), ("two", &two), ("three", &three)] {
        dir.write(name, bytes);
    }
    let url = server.url("file");
    let push = |name, condition: &str| deltasync(dir.path(), &["push", name, &url, "--json", "--if-match", condition]);
    refused(push("one", &root(&two)), None);
    assert!(!server.dir.join("file").exists());
    push("one", "absent").fine();
    assert_eq!(server.dir.read("file"), one);
    refused(push("two", "absent"), Some(&one));
    refused(push("two", &root(&three)), Some(&one));
    assert_eq!(server.dir.read("file"), one);
    push("two", &root(&one)).fine();
    assert_eq!(server.dir.read("file"), two);
    // A replay of the very same command finds its own work.
    push("two", &root(&one)).fine();
    push("two", "absent").fine();
    // It comes late, and does not undo what is newer.
    refused(push("one", "absent"), Some(&two));
    assert_eq!(server.dir.read("file"), two);
    // The root that the summary of one push prints is what the next one names.
    let printed = deltasync(dir.path(), &["push", "three", &url, "--json"]).fine().json();
    push("one", printed["root"].as_str().expect("a root")).fine();
    assert_eq!(server.dir.read("file"), one);
}

#[test]
fn of_many_who_replace_the_same_root_one_wins_and_the_others_learn_its_root() {
    const WRITERS: usize = 6;
    let (server, dir) = (Server::start(), Scratch::new());
    let mut current = b"begin".to_vec();
    server.dir.write("file", &current);
    for round in 0..5 {
        let content = |writer: usize| noise((1000 + round * WRITERS + writer) as u64, 50_000);
        let (url, condition) = (server.url("file"), root(&current));
        let ran: Vec<Ran> = std::thread::scope(|scope| {
            let start = |writer: usize| {
                let name = format!("writer{writer}");
                dir.write(&name, &content(writer));
                let (dir, url, condition) = (dir.path(), &url, &condition);
                scope.spawn(move || deltasync(dir, &["push", &name, url, "--json", "--if-match", condition]))
            };
            let writers: Vec<_> = (0..WRITERS).map(start).collect();
            writers.into_iter().map(|writer| writer.join().expect("it ends")).collect()
        });
        let winners: Vec<usize> = (0..WRITERS).filter(|writer| ran[*writer].code == Some(0)).collect();
        let [winner] = winners[..] else { panic!("round {round}: {ran:?}") };
        current = content(winner);
        assert!(server.dir.read("file") == current, "round {round}");
        for (_, lost) in ran.into_iter().enumerate().filter(|(writer, _)| *writer != winner) {
            refused(lost, Some(&current));
        }
    }
}

#[test]
fn a_condition_is_in_the_algorithm_of_the_session() {
    let (server, dir) = (Server::start(), Scratch::new());
    server.dir.write("file", b"old");
    dir.write("new", b"new");
    let args = |root: String| {
        vec!["push".into(), "new".into(), server.url("file"), "--hash=sha256".into(), "--if-match".into(), root]
    };
    let run = |args: Vec<String>| deltasync(dir.path(), &args.iter().map(String::as_str).collect::<Vec<_>>());
    let sha = Algorithm::Sha256.digest(b"old").to_string();
    run(args(root(b"old"))).failed(4, &sha);
    run(args(sha)).fine();
    assert_eq!(server.dir.read("file"), b"new");
}

#[test]
fn a_pull_and_a_push_on_this_machine_replace_only_what_they_are_told_to() {
    let (server, dir) = (Server::start(), Scratch::new());
    let (one, two) = (noise(1, 300_000), noise(2, 300_000));
    server.dir.write("file", &one);
    dir.write("two", &two);
    let there = server.url("file");
    for source in [&*there, "one"] {
        dir.write("one", &one);
        let _ = fs::remove_file(dir.join("copy"));
        let verb = if source == "one" { "push" } else { "pull" };
        let copy =
            |source, condition: &str| deltasync(dir.path(), &[verb, source, "copy", "--json", "--if-match", condition]);
        refused(copy(source, &root(&two)), None);
        copy(source, "absent").fine();
        copy(source, "absent").fine();
        dir.write("copy", &two);
        refused(copy(source, "absent"), Some(&two));
        refused(copy(source, &root(&one)), Some(&two));
        assert_eq!(dir.read("copy"), two, "{verb}");
        copy(source, &root(&two)).fine();
        assert_eq!(dir.read("copy"), one, "{verb}");
    }
}

#[test]
fn a_condition_is_on_a_single_file() {
    let dir = Scratch::new();
    dir.write("a", b"a");
    dir.write("b", b"b");
    let ran = deltasync(dir.path(), &["push", "a", "b", "out/", "--if-match", "absent", "--json"]);
    let ran = ran.failed(2, "--if-match) can be said of a single file, 2 are given");
    assert_eq!(ran.json()["exit_code"], 2);
    deltasync(dir.path(), &["pull", "a", "b", "out/", "--if-match", "absent"]).failed(2, "2 are given");
    deltasync(dir.path(), &["push", "a", "out", "--if-match", "x"]).failed(2, "64 hexadecimal digits");
    assert!(!dir.join("out").exists());
}

#[test]
fn a_push_whose_last_word_was_lost_ends_as_being_there_also_under_its_condition() {
    let (server, dir) = (Server::start(), Scratch::new());
    dir.write("file", &noise(1, 1000));
    let push = |address: &str, name: &str| {
        let url = format!("deltasync://{address}/{name}");
        let ran = deltasync(dir.path(), &["push", "file", &url, "--json", "-v", "--if-match=absent"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran
    };
    push(&server.address.to_string(), "first");
    let (_, down) = server.carried();
    // Other content, so that the server does not have it under the first name.
    dir.write("file", &noise(2, 1000));
    let relay = CuttingRelay::start(server.address, [Cut { direction: Direction::Down, after: down - 1 }]);
    let relay = relay.expect("a free port");
    let ran = push(&relay.address().to_string(), "other");
    assert_eq!((relay.accepted(), &ran.json()["retries"]), (2, &1.into()), "{ran:?}");
    assert_eq!(ran.json()["bytes_literal"], 0, "it was there: {ran:?}");
    assert_eq!(server.dir.read("other"), dir.read("file"));
}

/// Another writer is faster: it publishes as the first commit comes.
struct Faster {
    storage: LocalStorage,
    writes: Arc<Mutex<Option<Write>>>,
}

/// Where it writes, and what; it removes the file when there is nothing to write.
type Write = (PathBuf, Option<Vec<u8>>);

impl BlockingStorage for Faster {
    fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
        if matches!(ask, Ask::Commit { .. })
            && let Some((path, bytes)) = self.writes.lock().expect("no panic").take()
        {
            match bytes {
                Some(bytes) => fs::write(path, bytes).expect("space"),
                None => fs::remove_file(path).expect("there"),
            }
            return Err(StorageFault::new(FaultKind::Conflict, "file: another version is there"));
        }
        self.storage.answer(ask)
    }
}

/// A server with a file, at which another writer publishes `bytes`, or removes it, as the first commit comes.
fn faster(old: &[u8], bytes: Option<&[u8]>) -> Server {
    let writes = Arc::<Mutex<Option<Write>>>::default();
    let server = Server::with(ServerConfig::default(), |storage| Faster { storage, writes: Arc::clone(&writes) });
    server.dir.write("file", old);
    *writes.lock().expect("no panic") = Some((server.dir.join("file"), bytes.map(<[u8]>::to_vec)));
    server
}

#[test]
fn a_push_that_goes_on_over_another_writer_says_so() {
    let (old, new) = (noise(1, 300_000), noise(2, 300_000));
    let theirs = [&old[..100_000], b"theirs", &old[100_000..]].concat();
    for others in [Some(&theirs), None] {
        let dir = Scratch::new();
        dir.write("new", &new);
        let server = faster(&old, others.map(|bytes| &bytes[..]));
        let ran = deltasync(dir.path(), &["push", "new", &server.url("file"), "--json"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let note = match others {
            Some(theirs) => format!("replaced root {}", root(theirs)),
            None => "another writer had removed the file meanwhile; it is there again".to_owned(),
        };
        let [said] = ran.said()[..] else { panic!("one line: {ran:?}") };
        assert!(said.starts_with(&format!("deltasync: new -> {}: {note}", server.url("file"))), "{said}");
        assert!(others.is_none() || said.ends_with(", which another writer had published meanwhile"), "{said}");
        let replaced = &ran.json()["replaced"];
        assert_eq!(replaced.as_array().map(Vec::len), Some(1), "{replaced}");
        assert_eq!(replaced[0]["root"], serde_json::json!(others.map(|theirs| root(theirs))), "{replaced}");
        assert_eq!(server.dir.read("file"), new);
    }
}

#[test]
fn a_push_on_a_condition_ends_when_another_writer_was_faster() {
    let (old, new, theirs) = (noise(1, 300_000), noise(2, 300_000), noise(3, 300_000));
    let dir = Scratch::new();
    dir.write("new", &new);
    let server = faster(&old, Some(&theirs));
    let push = || deltasync(dir.path(), &["push", "new", &server.url("file"), "--json", "--if-match", &root(&old)]);
    refused(push(), Some(&theirs));
    refused(push(), Some(&theirs));
    assert_eq!(server.dir.read("file"), theirs);
}

/// Knows that its file is not what it was published as, until something else is committed.
struct Damaged {
    storage: LocalStorage,
    published: Mutex<Option<Version>>,
    /// What another writer publishes as generation 8 when somebody was told of the damage.
    meanwhile: Arc<Mutex<Option<Write>>>,
}

impl BlockingStorage for Damaged {
    fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
        let commit = matches!(ask, Ask::Commit { .. });
        let published = *self.published.lock().expect("no panic");
        if matches!(ask, Ask::Describe { .. })
            && let Some(version) = published
        {
            let fault = StorageFault::new(FaultKind::Damaged, "file: the content is not what was published");
            if let Some((path, bytes)) = &*self.meanwhile.lock().expect("no panic") {
                fs::write(path, bytes.as_ref().expect("content")).expect("space");
                *self.published.lock().expect("no panic") = None;
            }
            return Err(fault.with_current(version));
        }
        let mut answer = self.storage.answer(ask);
        if let Ok(Answer::Basis { file: Some(file), .. }) = &mut answer
            && published.is_none()
            && self.meanwhile.lock().expect("no panic").is_some()
        {
            file.generation = Generation::new(8);
        }
        if commit && answer.is_ok() {
            *self.published.lock().expect("no panic") = None;
        }
        answer
    }
}

fn damaged(published: &[u8], algorithm: Algorithm, newer: Option<&[u8]>) -> Server {
    let version = Version { generation: Generation::new(7), root: algorithm.digest(published) };
    let writes = Arc::<Mutex<Option<Write>>>::default();
    let server = Server::with(ServerConfig::default(), |storage| Damaged {
        storage,
        published: Mutex::new(Some(version)),
        meanwhile: Arc::clone(&writes),
    });
    let mut lost = published.to_vec();
    lost[50_000..50_100].fill(0);
    server.dir.write("file", &lost);
    *writes.lock().expect("no panic") = newer.map(|bytes| (server.dir.join("file"), Some(bytes.to_vec())));
    server
}

#[test]
fn a_damaged_copy_is_repaired_by_who_has_the_content() {
    for algorithm in Algorithm::ALL {
        let good = noise(1, 300_000);
        let (server, dir) = (damaged(&good, algorithm, None), Scratch::new());
        dir.write("file", &good);
        let ran = deltasync(dir.path(), &["pull", &server.url("file"), ".", "--json"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let root = algorithm.digest(&good);
        let said = format!(
            "deltasync: {} -> ./file: the server's copy was damaged; repaired from ours, root {root}",
            server.url("file")
        );
        assert_eq!(ran.said(), [said]);
        let summary = ran.json();
        assert_eq!((&summary["restored"], &summary["files"]), (&1.into(), &1.into()), "{summary}");
        assert!(summary["bytes_literal"].as_u64() < Some(50_000), "what is lost moves, not all: {summary}");
        assert!(server.dir.read("file") == good && dir.read("file") == good);
        deltasync(dir.path(), &["pull", &server.url("file"), "other"]).fine();
        assert!(dir.read("other") == good);
    }
}

#[test]
fn a_damaged_copy_that_nobody_here_can_repair_is_status_5() {
    let good = noise(1, 300_000);
    let (server, dir) = (damaged(&good, Algorithm::Blake3, None), Scratch::new());
    let lost = server.dir.read("file");
    let there = format!("was published with: root {}, generation 7", root(&good));
    for ours in [None, Some(noise(2, 300_000))] {
        if let Some(bytes) = &ours {
            dir.write("file", bytes);
        }
        let ran = deltasync(dir.path(), &["pull", &server.url("file"), ".", "--json"]).failed(5, &there);
        assert_eq!(ran.json()["current"], serde_json::json!({ "root": root(&good), "generation": 7 }));
        assert_eq!(fs::read(dir.join("file")).ok(), ours);
        assert!(server.dir.read("file") == lost);
    }
}

#[test]
fn a_repair_does_not_undo_what_another_writer_publishes_meanwhile() {
    let (good, newer) = (noise(1, 300_000), noise(2, 300_000));
    for newer in [&newer, &good] {
        let (server, dir) = (damaged(&good, Algorithm::Blake3, Some(newer)), Scratch::new());
        dir.write("file", &good);
        let summary = deltasync(dir.path(), &["pull", &server.url("file"), ".", "--json"]).fine().json();
        assert!(server.dir.read("file") == *newer, "it is what the other has published");
        assert!(dir.read("file") == *newer, "and that is what was pulled");
        assert_eq!((&summary["files"], &summary["restored"]), (&1.into(), &serde_json::Value::Null), "{summary}");
    }
}
