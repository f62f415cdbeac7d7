//! Two writers of one path: a commit replaces what it named, and nothing else.

use std::time::Duration;

use bytes::Bytes;
use deltasync_core::{Algorithm, Digest, Generation};
use deltasync_proto::{
    Command, Condition, Config, Confirm, EventKind, FaultKind, Message, PeerMisbehaved, RefusalCode, RootId,
    SessionError, TransferError, TransferMessage, Version,
};
use deltasync_testkit::{Due, Raw, Rng, file, pull, push};

/// A client and a server, and every byte that the client has sent.
struct Talk {
    client: Raw,
    server: Raw,
    sent: Vec<Bytes>,
}

fn put(raw: &Raw, bytes: &[u8]) {
    raw.storage.insert(RootId::new(0), file(), bytes.to_vec());
}

fn root(bytes: &[u8]) -> Digest {
    Algorithm::Blake3.digest(bytes)
}

/// What was put there by other means, which counts as no commit.
fn uncounted(bytes: &[u8]) -> Version {
    Version { generation: Generation::ZERO, root: root(bytes) }
}

fn conditional(condition: Condition) -> Command {
    match push(file(), file()) {
        Command::Push { source, path, name, directory, .. } => {
            Command::Push { source, path, name, directory, condition }
        }
        other => panic!("{other:?}"),
    }
}

/// Versions of one file, each an edit of the first.
fn version(number: u64) -> Vec<u8> {
    let mut bytes = Rng::new(1).bytes(20_000);
    bytes[10_000..10_008].copy_from_slice(&number.to_le_bytes());
    bytes
}

impl Talk {
    fn new(ours: &[u8], theirs: Option<&[u8]>) -> Self {
        Self::with(Config::default(), ours, theirs)
    }

    fn with(config: Config, ours: &[u8], theirs: Option<&[u8]>) -> Self {
        let (client, server) = (Raw::client(config.clone()), Raw::server(config));
        put(&client, ours);
        if let Some(theirs) = theirs {
            put(&server, theirs);
        }
        Self { client, server, sent: Vec::new() }
    }

    fn command(mut self, transfer: u32, command: Command) -> Self {
        self.client = self.client.command(transfer, command);
        self
    }

    /// Carries bytes to and fro until neither end says anything; `before` sees what the client is about to send.
    fn carry(&mut self, mut before: impl FnMut(&Message, &Raw)) {
        loop {
            let up = self.client.frames();
            if up.is_empty() {
                return;
            }
            for frame in up {
                let message = Message::decode(&frame, &Config::default().limits).expect("ours");
                before(&message, &self.server);
                let encoded = message.encode();
                let bytes = Bytes::from([&encoded.head[..], &encoded.tail].concat());
                self.sent.push(bytes.clone());
                self.server.feed(bytes);
                let down = self.server.take();
                if !down.is_empty() {
                    self.client.feed(down);
                }
            }
        }
    }

    /// Somebody else publishes these at the server just before the last of our delta arrives.
    fn carry_and_publish(&mut self, bytes: &[u8]) {
        self.carry(|message, server| {
            if matches!(message, Message::Transfer(_, TransferMessage::Delta(delta)) if delta.last) {
                put(server, bytes);
            }
        });
    }

    fn conflicts(&self) -> Vec<Option<Version>> {
        let conflict = |kind: &EventKind| match kind {
            EventKind::Conflict { current } => Some(*current),
            _ => None,
        };
        self.client.events().iter().filter_map(|event| conflict(&event.kind)).collect()
    }

    #[track_caller]
    fn check_done(&self, bytes: &[u8]) {
        assert!(matches!(self.client.ended(1), Some(Ok(_))), "{:?}", self.client.ended(1));
        assert!(matches!(self.server.ended(1), Some(Ok(_))), "{:?}", self.server.ended(1));
        assert_eq!(self.server.content("file").as_deref(), Some(bytes));
    }

    #[track_caller]
    fn check_refused(&self, current: Option<Version>, there: Option<&[u8]>) {
        match self.client.ended(1) {
            Some(Err(TransferError::Refused(refusal))) => {
                assert_eq!((refusal.code, refusal.current), (RefusalCode::Conflict, current), "{}", refusal.message);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(self.server.ended(1), Some(&Err(TransferError::Conflict { current })));
        assert_eq!(self.server.content("file").as_deref(), there);
    }
}

#[test]
fn who_comes_second_is_told_and_says_that_its_version_is_to_replace_the_other() {
    let mut talk = Talk::new(&version(1), Some(&version(0))).command(1, push(file(), file()));
    talk.carry_and_publish(&version(2));
    talk.check_done(&version(1));
    assert_eq!(talk.conflicts(), [Some(uncounted(&version(2)))]);
}

#[test]
fn a_file_that_appeared_meanwhile_is_told_too() {
    let mut talk = Talk::new(&version(1), None).command(1, push(file(), file()));
    talk.carry_and_publish(&version(2));
    talk.check_done(&version(1));
    assert_eq!(talk.conflicts(), [Some(uncounted(&version(2)))]);
}

#[test]
fn a_condition_is_kept_at_the_start_and_at_the_commit() {
    for (condition, theirs) in [
        (Condition::Root(root(&version(9))), Some(version(0))),
        (Condition::Root(root(&version(9))), None),
        (Condition::Absent, Some(version(0))),
    ] {
        let mut talk = Talk::new(&version(1), theirs.as_deref()).command(1, conditional(condition));
        talk.carry(|_, _| {});
        talk.check_refused(theirs.as_deref().map(uncounted), theirs.as_deref());
    }
    for (condition, theirs) in [(Condition::Root(root(&version(0))), Some(version(0))), (Condition::Absent, None)] {
        let start = || Talk::new(&version(1), theirs.as_deref()).command(1, conditional(condition));
        let mut talk = start();
        talk.carry(|_, _| {});
        talk.check_done(&version(1));
        let mut talk = start();
        talk.carry_and_publish(&version(2));
        talk.check_refused(Some(uncounted(&version(2))), Some(&version(2)));
        assert_eq!(talk.conflicts(), []);
    }
}

/// The answer to an earlier try may have been lost: what is there already needs no condition.
#[test]
fn a_target_that_is_there_needs_no_replacing() {
    for condition in [Condition::Absent, Condition::Root(root(&version(0)))] {
        let mut talk = Talk::new(&version(1), Some(&version(1))).command(1, conditional(condition));
        talk.carry(|_, _| {});
        talk.check_done(&version(1));
    }
    let mut talk =
        Talk::new(&version(1), Some(&version(0))).command(1, conditional(Condition::Root(root(&version(0)))));
    talk.carry_and_publish(&version(1));
    talk.check_done(&version(1));
    assert_eq!(talk.client.ended(1).expect("it has").as_ref().expect("well").generation, None, "another's commit");
}

/// Only the times of the file are others: it is the version that was meant. The sender is asked all the same, see below.
#[test]
fn the_same_version_once_more_is_replaced_under_its_condition() {
    let mut talk =
        Talk::new(&version(1), Some(&version(0))).command(1, conditional(Condition::Root(root(&version(0)))));
    let mut agreed = 0;
    talk.carry(|message, server| match message {
        Message::Transfer(_, TransferMessage::Delta(delta)) if delta.last => put(server, &version(0)),
        Message::Transfer(_, TransferMessage::Replace(_)) => agreed += 1,
        _ => {}
    });
    talk.check_done(&version(1));
    assert_eq!((agreed, talk.conflicts()), (1, vec![]));
}

/// All that a connection has sent arrives after it was given up, and others have published something else and then again
/// the version that its condition names.
#[test]
fn bytes_that_come_late_do_not_replace_what_their_condition_names_again() {
    let condition = Condition::Root(root(&version(0)));
    let mut talk = Talk::new(&version(1), Some(&version(0))).command(1, conditional(condition));
    talk.server = std::mem::replace(&mut talk.server, Raw::server(Config::default())).hold(|due| is(due, "Commit"));
    talk.carry(|_, _| {});
    for number in [2, 0] {
        put(&talk.server, &version(number));
    }
    talk.server.release();
    let confirm = Confirm { current: Some(uncounted(&version(0))), since: true };
    let told = talk.server.messages();
    assert!(
        matches!(&told[..], [Message::Transfer(_, TransferMessage::Confirm(told))] if *told == confirm),
        "{told:?}"
    );
    talk.server.close();
    assert_eq!(talk.server.content("file").as_deref(), Some(&version(0)[..]));
}

#[test]
fn a_sender_does_not_agree_to_what_its_condition_does_not_name() {
    for (named, agrees) in [(0, true), (2, false)] {
        for since in [false, true] {
            let condition = Condition::Root(root(&version(0)));
            let mut talk = Talk::new(&version(1), Some(&version(0))).command(1, conditional(condition));
            talk.server =
                std::mem::replace(&mut talk.server, Raw::server(Config::default())).hold(|due| is(due, "Commit"));
            talk.carry(|_, _| {});
            let current = Some(uncounted(&version(named)));
            talk.client.say(1, TransferMessage::Confirm(Confirm { current, since }));
            let answered = talk.client.messages();
            assert_eq!(
                matches!(answered[..], [Message::Transfer(_, TransferMessage::Replace(_))]),
                agrees,
                "{answered:?}"
            );
            assert_eq!(talk.client.finished().is_none(), agrees, "{:?}", talk.client.finished());
        }
    }
}

#[test]
fn a_pull_replaces_what_its_condition_names_again() {
    let Command::Pull { path, destination, .. } = pull(file(), file()) else { panic!("a pull") };
    let condition = Condition::Root(root(&version(0)));
    let mut talk = Talk::new(&version(0), Some(&version(1))).command(1, Command::Pull { path, destination, condition });
    talk.client = std::mem::replace(&mut talk.client, Raw::client(Config::default())).hold(|due| is(due, "Commit"));
    talk.carry(|_, _| {});
    put(&talk.client, &version(0));
    talk.client.release();
    talk.carry(|_, _| {});
    assert!(matches!(talk.client.ended(1), Some(Ok(_))), "{:?}", talk.client.ended(1));
    assert_eq!(talk.client.content("file").as_deref(), Some(&version(1)[..]));
}

#[test]
fn a_pull_does_not_replace_what_its_user_wrote_meanwhile() {
    let mut talk = Talk::new(&version(0), Some(&version(1))).command(1, pull(file(), file()));
    talk.client = std::mem::replace(&mut talk.client, Raw::client(Config::default())).hold(|due| is(due, "Seal"));
    talk.carry(|_, _| {});
    put(&talk.client, &version(7));
    talk.client.release();
    talk.carry(|_, _| {});
    let current = Some(uncounted(&version(7)));
    assert_eq!(talk.client.ended(1), Some(&Err(TransferError::Conflict { current })));
    assert_eq!(talk.client.content("file").as_deref(), Some(&version(7)[..]));
}

fn is(due: &Due, name: &str) -> bool {
    due.name() == name
}

#[test]
fn another_version_than_the_one_that_was_told_is_not_agreed_to() {
    let mut talk = Talk::new(&version(1), Some(&version(0))).command(1, push(file(), file()));
    talk.server = std::mem::replace(&mut talk.server, Raw::server(Config::default())).hold(|due| is(due, "Commit"));
    talk.carry(|_, _| {});
    put(&talk.server, &version(2));
    talk.server.release();
    let told = talk.server.messages();
    assert!(
        matches!(told[..], [Message::Transfer(_, TransferMessage::Confirm(Confirm { current: Some(_), since: true }))]),
        "{told:?}"
    );
    talk.server.say(1, TransferMessage::Replace(Some(uncounted(&version(3)))));
    let current = Some(uncounted(&version(2)));
    assert_eq!(talk.server.ended(1), Some(&Err(TransferError::Conflict { current })));
    assert_eq!(talk.server.content("file").as_deref(), Some(&version(2)[..]));
}

/// Somebody publishes before every one of our commits.
#[test]
fn whoever_always_comes_second_gives_up() {
    let mut talk = Talk::new(&version(1), Some(&version(0))).command(1, push(file(), file()));
    let mut next = 2;
    talk.carry(|message, server| {
        let commits = match message {
            Message::Transfer(_, TransferMessage::Delta(delta)) => delta.last,
            Message::Transfer(_, message) => matches!(message, TransferMessage::Replace(_)),
            _ => false,
        };
        if commits {
            put(server, &version(next));
            next += 1;
        }
    });
    assert!(matches!(talk.client.ended(1), Some(Err(TransferError::Refused(_) | TransferError::Conflict { .. }))));
    assert_eq!(talk.conflicts().len(), 256);
    assert_eq!(talk.server.content("file").as_deref(), Some(&version(next - 1)[..]));
}

/// What a connection once sent to a server whose file was `before`, sent again to one whose file is `before` once more.
#[track_caller]
fn check_replay(config: Config, pushes: &[&[u8]], before: &[u8], generations: u64) -> Raw {
    let mut talk = Talk::with(config.clone(), pushes[0], Some(before));
    for (number, bytes) in (1..).zip(pushes) {
        put(&talk.client, bytes);
        talk = talk.command(number, push(file(), file()));
        talk.carry(|_, _| {});
        assert!(matches!(talk.client.ended(number), Some(Ok(_))), "{:?}", talk.client.ended(number));
    }
    // Other connections bring the file back to what it was; their commits are counted too.
    let mut server = Raw::server_with(config, [0x77; 32]);
    server.storage = talk.server.storage.clone();
    for _ in 0..generations {
        let mut back = Talk::new(before, None);
        back.server.storage = server.storage.clone();
        let mut back = back.command(1, push(file(), file()));
        back.carry(|_, _| {});
        back.check_done(before);
    }
    assert_eq!(server.content("file").as_deref(), Some(before));
    for bytes in talk.sent {
        server.feed(bytes);
        server.take();
    }
    server.advance(Duration::from_secs(100));
    assert_eq!(server.content("file").as_deref(), Some(before), "the recording has replaced it");
    server
}

#[test]
fn a_recording_of_a_push_replaces_nothing() {
    let server = check_replay(Config::default(), &[&version(1)], &version(0), 1);
    let recorded = SessionError::PeerMisbehaved(PeerMisbehaved::Recorded);
    assert_eq!(server.finished(), Some(&Err(recorded)));
    let tiny = |byte| vec![byte; 100];
    let server = check_replay(Config::default(), &[&tiny(1)], &tiny(0), 1);
    assert!(server.finished().is_some(), "it was not seen in time, or wrongly");
}

/// The second push is one first flight, a delta for what is remembered, and names the generation of that.
#[test]
fn a_recording_of_a_first_flight_replaces_nothing_either() {
    let config = Config::default().remember(true);
    let mut talk = Talk::with(config.clone(), &version(1), None);
    talk = talk.command(1, push(file(), file()));
    talk.carry(|_, _| {});
    let (ours, theirs) = (talk.client.storage.clone(), talk.server.storage.clone());
    let connect = |entropy: u8, bytes: &[u8]| {
        let mut talk = Talk::with(config.clone(), bytes, None);
        talk.client.storage = ours.clone();
        talk.server = Raw::server_with(config.clone(), [entropy; 32]);
        talk.server.storage = theirs.clone();
        put(&talk.client, bytes);
        let mut talk = talk.command(1, push(file(), file()));
        talk.carry(|_, _| {});
        talk.check_done(bytes);
        talk
    };
    let recorded = connect(0x61, &version(2));
    assert!(recorded.client.ended(1).is_some_and(|end| end.as_ref().is_ok_and(|outcome| outcome.known)));
    assert!(!recorded.sent.iter().any(|bytes| bytes[0] == 0x05), "one flight, which says nothing of having seen");
    connect(0x62, &version(1));
    let mut server = Raw::server_with(config.clone(), [0x63; 32]);
    server.storage = theirs.clone();
    for bytes in &recorded.sent {
        server.feed(bytes.clone());
    }
    assert_eq!(server.content("file").as_deref(), Some(&version(1)[..]));
    assert!(server.messages().iter().any(|message| matches!(message, Message::Transfer(_, TransferMessage::Stale))));
}

/// The bytes of a connection that its client gave up arrive after it has published something newer by another: whole
/// content, and content that the server has elsewhere, which both need no answer of the client's.
#[test]
fn bytes_that_come_late_do_not_undo_a_newer_commit() {
    let tiny = |number: u8| vec![number; 100];
    for (old, late, newer) in [(tiny(0), tiny(1), tiny(2)), (version(0), version(1), version(2))] {
        let mut talk = Talk::new(&late, Some(&old));
        // Only where it has the late content under another name does it need no answer for that.
        talk.server.storage.insert(
            RootId::new(0),
            deltasync_core::RelPath::new(*b"other").expect("plain"),
            late.clone(),
        );
        // The hellos have passed when the offer is made.
        talk.carry(|_, _| {});
        let mut talk = talk.command(1, push(file(), file()));
        let on_the_way: Vec<_> = talk.client.frames();
        let mut other = Talk::new(&newer, None);
        other.server.storage = talk.server.storage.clone();
        let mut other = other.command(1, push(file(), file()));
        other.carry(|_, _| {});
        other.check_done(&newer);
        for frame in on_the_way {
            talk.server.frame(frame.kind, frame.transfer.get(), &frame.payload);
        }
        let told = talk.server.messages();
        assert!(
            told.iter().any(|message| matches!(
                message,
                Message::Transfer(_, TransferMessage::Confirm(Confirm { since: false, .. }))
            )),
            "{told:?}"
        );
        talk.server.close();
        assert_eq!(talk.server.content("file").as_deref(), Some(&newer[..]));
    }
}

/// It is asked, says so, and nobody calls that a conflict.
#[test]
fn a_tiny_file_over_another_is_confirmed_unseen() {
    for condition in [Condition::Any, Condition::Root(root(b"tiny old"))] {
        let mut talk = Talk::new(b"tiny new", Some(b"tiny old")).command(1, conditional(condition));
        let mut confirmed = 0;
        talk.carry(|message, _| {
            confirmed += u32::from(matches!(message, Message::Transfer(_, TransferMessage::Replace(_))));
        });
        talk.check_done(b"tiny new");
        assert_eq!((confirmed, talk.conflicts()), (1, vec![]));
    }
}

#[test]
fn a_fault_of_another_kind_is_no_conflict() {
    let mut talk = Talk::new(&version(1), Some(&version(0))).command(1, push(file(), file()));
    talk.server = std::mem::replace(&mut talk.server, Raw::server(Config::default())).hold(|due| is(due, "Commit"));
    talk.carry(|_, _| {});
    let id = talk.server.due().find_map(Due::request).expect("it commits");
    talk.server.answer(id, Err(deltasync_proto::StorageFault::new(FaultKind::Full, "file: no space")));
    assert!(matches!(talk.server.ended(1), Some(Err(TransferError::Storage(fault))) if fault.kind == FaultKind::Full));
    assert_eq!(talk.server.content("file").as_deref(), Some(&version(0)[..]));
}
