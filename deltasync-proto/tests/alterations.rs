//! Directories that are made, and what is renamed and removed at a server: one message each way, for a live client only.

use std::sync::Arc;

use deltasync_core::RelPath;
use deltasync_io::MemoryStorage;
use deltasync_proto::{
    Command, Config, EventKind, Hello, Message, PeerMisbehaved, RefusalCode, Remove, RootId, SessionError,
    TransferError, TransferId, TransferMessage, VERSION, Verb,
};
use deltasync_testkit::{Link, Pair, Ran, Raw};

const ROOT: RootId = RootId::new(0);

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("a path")
}

/// A server with `dir/file`, `dir/other`, `last` and an empty directory.
fn remote() -> Arc<MemoryStorage> {
    let storage = MemoryStorage::new();
    for at in ["dir/file", "dir/other", "last"] {
        storage.insert(ROOT, path(at), at.as_bytes().to_vec());
    }
    storage.make_directory(ROOT, path("empty"));
    Arc::new(storage)
}

fn run(remote: &Arc<MemoryStorage>, seed: u64, command: Command) -> Ran {
    let pair = Pair::new(seed).over(Arc::default(), Arc::clone(remote)).link(Link::split_randomly(7));
    pair.command(command).run_to_end()
}

fn make(at: &str) -> Command {
    Command::MakeDirectory { path: path(at) }
}

fn rename(from: &str, to: &str) -> Command {
    Command::Rename { from: path(from), to: path(to) }
}

fn remove(at: &str, recursive: bool) -> Command {
    Command::Remove { path: path(at), recursive }
}

#[test]
fn each_is_done_in_one_round_trip() {
    let remote = remote();
    let get = |at: &str| remote.get(ROOT, &path(at)).map(|bytes| bytes.to_vec());
    for (command, verb, at) in [
        (make("new"), Verb::MakeDirectory, "new"),
        (make("new/inner"), Verb::MakeDirectory, "new/inner"),
        (rename("dir/file", "new/inner/file"), Verb::Rename, "dir/file"),
        (rename("new/inner", "moved"), Verb::Rename, "new/inner"),
        (remove("empty", false), Verb::Remove, "empty"),
        (remove("new", false), Verb::Remove, "new"),
        (remove("dir", true), Verb::Remove, "dir"),
    ] {
        let ran = run(&remote, 1, command);
        ran.outcome();
        assert_eq!(ran.round_trips(), 1, "{at}");
        assert!(ran.wire() < 200, "{at}: {} bytes", ran.wire());
        for events in [&ran.events, &ran.server_events] {
            let started = EventKind::Started { verb, path: path(at) };
            assert!(events.iter().any(|event| event.kind == started), "{events:?}");
        }
    }
    assert_eq!(get("moved/file").as_deref(), Some(&b"dir/file"[..]));
    assert_eq!(get("last").as_deref(), Some(&b"last"[..]));
    assert_eq!((get("dir/file"), get("dir/other")), (None, None));
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    for (command, code, message) in [
        (make("last"), RefusalCode::Exists, "last: something is there already"),
        (make(""), RefusalCode::Exists, "/: something is there already"),
        (make("none/new"), RefusalCode::NotFound, "none/new: nothing is there"),
        (make("last/new"), RefusalCode::WrongKind, "last/new: not a directory"),
        (rename("none", "new"), RefusalCode::NotFound, "none: nothing is there"),
        (rename("last", "dir/file"), RefusalCode::Exists, "dir/file: something is there already"),
        (rename("dir", "dir/deep"), RefusalCode::Denied, "dir: it cannot be moved into itself"),
        (rename("", "new"), RefusalCode::Denied, "/: the whole directory can be neither moved nor removed"),
        (remove("none", true), RefusalCode::NotFound, "none: nothing is there"),
        (remove("dir", false), RefusalCode::NotEmpty, "dir: the directory is not empty"),
        (remove("", true), RefusalCode::Denied, "/: the whole directory can be neither moved nor removed"),
    ] {
        let remote = remote();
        let ran = run(&remote, 2, command.clone());
        match &ran.outcomes[..] {
            [Err(TransferError::Refused(refusal))] => {
                assert_eq!((refusal.code, refusal.message.as_str()), (code, message), "{command:?}");
            }
            other => panic!("{command:?}: {other:?}"),
        }
        assert!(ran.client.is_ok() && ran.server.is_ok(), "the connection goes on");
        for at in ["dir/file", "dir/other", "last"] {
            assert!(remote.get(ROOT, &path(at)).is_some(), "{command:?} took {at}");
        }
    }
}

fn removal() -> Message {
    let remove = Remove { path: path("file"), recursive: false };
    Message::Transfer(TransferId::new(1), TransferMessage::Remove(remove))
}

#[test]
fn nothing_is_done_before_the_client_has_shown_that_it_is_there() {
    let mut server = Raw::server(Config::default()).file("file", &b"content"[..]);
    server.send(&Message::Hello(Hello::ours(VERSION, [7; 16]))).send(&removal());
    assert_eq!(server.content("file").as_deref(), Some(&b"content"[..]));
    assert!(server.ended(1).is_none());
    server.take();
    server.send(&Message::Seen(u64::from_le_bytes([0x5e; 8])));
    assert_eq!(server.content("file"), None);
    assert_eq!(server.messages(), [Message::Transfer(TransferId::new(1), TransferMessage::Altered)]);
}

#[test]
fn a_recording_of_a_removal_removes_nothing() {
    let mut server = Raw::server(Config::default()).file("file", &b"content"[..]);
    let mut client = Raw::client(Config::default()).command(1, remove("file", false));
    let mut recorded = Vec::new();
    for _ in 0..4 {
        let said = client.take();
        recorded.extend_from_slice(&said);
        server.feed(said);
        client.feed(server.take());
    }
    assert!(matches!(client.ended(1), Some(Ok(_))), "{:?}", client.ended(1));
    assert_eq!(server.content("file"), None);

    let mut server = Raw::server_with(Config::default(), [0x77; 32]).file("file", &b"content"[..]);
    server.feed(recorded);
    assert_eq!(server.finished(), Some(&Err(SessionError::PeerMisbehaved(PeerMisbehaved::Recorded))));
    assert_eq!(server.content("file").as_deref(), Some(&b"content"[..]));
}
