//! What is left of versions 1 and 2, which were never released: the kinds of version 1 whose bytes are the same, and that
//! clients of either are told which versions there are.

use deltasync_core::Limits;
use deltasync_proto::{Config, EventKind, Hello, Message, MessageKind, TransferMessage, Unsupported, VERSION};
use deltasync_testkit::{Raw, Rng};

use crate::{check_every_file_is_used, check_kind, check_later, file_name, frame_of, read};

/// The kinds of version 1 that no later version changed.
const UNCHANGED: [MessageKind; 15] = [
    MessageKind::Hello,
    MessageKind::Unsupported,
    MessageKind::Close,
    MessageKind::Ping,
    MessageKind::Pong,
    MessageKind::Done,
    MessageKind::Changed,
    MessageKind::Refused,
    MessageKind::Cancel,
    MessageKind::Credit,
    MessageKind::Working,
    MessageKind::List,
    MessageKind::Listing,
    MessageKind::AskRoot,
    MessageKind::RootIs,
];

const CONVERSATIONS: [&str; 2] = ["conversation_first_push", "conversation_push_with_delta"];

#[test]
fn every_kind_that_did_not_change_has_its_bytes() {
    for kind in UNCHANGED {
        check_kind(1, kind);
    }
}

#[test]
fn every_file_of_version_1_is_used() {
    let kinds = UNCHANGED.map(file_name).into_iter();
    let others = CONVERSATIONS.into_iter().chain(["later"]).map(str::to_owned);
    check_every_file_is_used(1, kinds.chain(others).collect());
}

#[test]
fn what_a_later_version_appended_to_the_handshake_is_ignored() {
    check_later(1);
}

/// The frames that the client sends before it has heard the server: all until the server's first.
fn first_flight(version: u8, name: &str) -> Vec<Vec<u8>> {
    let said = read(version, name).into_iter();
    said.take_while(|(name, _)| name.starts_with("client")).map(|(_, bytes)| bytes).collect()
}

/// The server says which versions it speaks, lets the whole flight pass by, and then serves one that it speaks.
#[track_caller]
fn check_is_told_and_may_begin_again(version: u8, name: &str) {
    let basis = Rng::new(2).bytes(9000);
    let mut server = Raw::server(Config::default()).file("file", basis.clone());
    for frame in first_flight(version, name) {
        server.feed(frame);
    }
    let (min, max, algorithms) = (VERSION, VERSION, 3);
    let expected =
        [Message::Hello(Hello::ours(VERSION, [0x5e; 16])), Message::Unsupported(Unsupported { min, max, algorithms })];
    assert_eq!(server.messages(), expected);
    assert!(!server.events().iter().any(|event| matches!(event.kind, EventKind::Started { .. })), "nothing began");
    assert_eq!(server.content("file").as_deref(), Some(&basis[..]));
    assert_eq!(server.finished(), None);

    for frame in first_flight(VERSION, CONVERSATIONS[0]) {
        server.feed(frame);
    }
    let Some(Message::Transfer(id, TransferMessage::Confirm(confirm))) = server.messages().pop() else {
        panic!("it replaces a file, which its client has to confirm");
    };
    server.send(&Message::Transfer(id, TransferMessage::Replace(confirm.current)));
    let messages = server.messages();
    assert!(matches!(messages[..], [Message::Transfer(_, TransferMessage::Done(_))]), "{messages:?}");
    assert_eq!(server.content("file").as_deref(), Some(&Rng::new(1).bytes(100)[..]));
}

#[test]
fn a_client_of_an_earlier_version_is_told_and_may_begin_again() {
    CONVERSATIONS.into_iter().for_each(|name| check_is_told_and_may_begin_again(1, name));
    check_is_told_and_may_begin_again(2, CONVERSATIONS[0]);
}

/// What a server of version 1 answered ends a client of today, with a reason.
#[test]
fn a_server_of_version_1_is_left() {
    let command = deltasync_testkit::push(deltasync_testkit::file(), deltasync_testkit::file());
    let mut client = Raw::client(Config::default()).file("file", Rng::new(1).bytes(100)).command(1, command);
    let (_, hello) =
        read(1, CONVERSATIONS[0]).into_iter().find(|(name, _)| name == "server says hello").expect("it does");
    let (_, unsupported) = read(1, "unsupported").remove(0);
    assert!(Message::decode(&frame_of(&hello), &Limits::default()).is_ok());
    client.take();
    client.feed(hello).feed(unsupported);
    assert!(matches!(client.closing(), Some((deltasync_proto::CloseCode::Unsupported, _))));
    assert!(matches!(client.ended(1), Some(Err(_))));
}
