//! What takes long or starts over is not given up, and what stands still is.

use std::time::Duration;

use bytes::Bytes;
use deltasync_core::{Algorithm, ByteLen, Digest, RelPath};
use deltasync_proto::{
    Config, Delta, Message, MessageKind, Pull, SessionError, TransferError, TransferId, TransferMessage, Want,
};
use deltasync_testkit::{Due, Raw, Rng, file, push};

fn content() -> Vec<u8> {
    Rng::new(1).bytes(10_000)
}

fn client() -> Raw {
    let mut raw = Raw::client(Config::default()).file("file", content());
    raw.greet();
    raw
}

/// So many seconds of a peer that answers pings and says nothing else.
fn wait(raw: &mut Raw, seconds: u64) {
    for _ in 0..seconds {
        raw.advance(Duration::from_secs(1)).send(&Message::Pong);
    }
}

fn kinds(raw: &mut Raw) -> Vec<MessageKind> {
    raw.messages().iter().map(Message::kind).collect()
}

#[test]
fn a_peer_has_its_time_to_answer_however_long_we_took_to_ask() {
    let mut raw = client().hold(|due| due.name() == "Describe").command(1, push(file(), file()));
    wait(&mut raw, 69);
    assert!(kinds(&mut raw).contains(&MessageKind::Working));
    raw.release();
    wait(&mut raw, 15);
    assert_eq!(raw.ended(1), None, "the offer left only just now");
    wait(&mut raw, 40);
    assert_eq!(raw.ended(1), Some(&Err(TransferError::Stalled { after: Duration::from_secs(30) })));
}

#[test]
fn a_slow_link_is_not_a_silent_peer() {
    let target = Rng::new(2).bytes(8 << 20);
    let mut raw = client().file("large", target).without_writing();
    let large = RelPath::new(*b"large").expect("a plain name");
    raw = raw.command(1, push(large, file()));
    raw.say(1, TransferMessage::Want(Want { last: true, basis: 0, runs: Vec::new() }));
    raw.say(1, TransferMessage::Credit(1 << 40));
    for _ in 0..100 {
        raw.write(10_000);
        wait(&mut raw, 1);
    }
    assert!(raw.unwritten() > 1 << 20);
    assert_eq!(raw.ended(1), None, "the link still moves");
    wait(&mut raw, 100);
    assert_eq!(raw.ended(1), Some(&Err(TransferError::Stalled { after: Duration::from_secs(30) })), "it does not");
}

#[test]
fn a_transfer_of_which_nothing_is_heard_is_not_kept_alive_by_pings() {
    let mut raw = client().command(1, push(file(), file()));
    for _ in 0..50 {
        raw.advance(Duration::from_secs(1)).send(&Message::Ping);
    }
    assert!(matches!(raw.ended(1), Some(Err(TransferError::Stalled { .. }))));
    assert!(raw.finished().is_none());
    raw.advance(Duration::from_secs(31));
    let error = SessionError::TimedOut { what: "sign of life", after: Duration::from_secs(30) };
    assert_eq!(raw.finished(), Some(&Err(error)));
}

/// A server whose file is being pulled by a peer that has something else.
fn served(hold: fn(&Due) -> bool) -> Raw {
    let mut raw = Raw::server(Config::default()).file("file", content()).hold(hold);
    raw.greet();
    let have = Some(Digest::default());
    raw.say(1, TransferMessage::Pull(Pull { path: file(), algorithm: Algorithm::Blake3, have }));
    raw
}

fn want_all() -> TransferMessage {
    TransferMessage::Want(Want { last: true, basis: 0, runs: Vec::new() })
}

fn replace(raw: &Raw, bytes: impl Into<Bytes>) {
    raw.storage.insert(deltasync_proto::RootId::new(0), file(), bytes);
}

#[test]
fn each_offer_may_be_repaired_once() {
    let mut raw = served(|_| false);
    raw.say(1, want_all()).take();
    raw.say(1, TransferMessage::Repair);
    assert!(kinds(&mut raw).contains(&MessageKind::Delta));
    // It changes before the repair has left.
    let mut raw = served(|_| false);
    raw.say(1, want_all());
    raw = raw.hold(|due| due.name() == "Recheck");
    raw.say(1, TransferMessage::Repair).take();
    replace(&raw, &b"changed"[..]);
    raw.release();
    let expected = [MessageKind::Changed, MessageKind::Offer, MessageKind::Tags];
    assert_eq!(kinds(&mut raw), expected);
    raw.say(1, want_all()).say(1, TransferMessage::Repair);
    assert!(raw.finished().is_none(), "{:?}", raw.finished());
    assert_eq!(kinds(&mut raw), [MessageKind::Delta, MessageKind::Delta]);
    raw.say(1, TransferMessage::Repair);
    let text = "peer misbehaved: Repair came while waiting for the receiver to finish (transfer 1)";
    assert_eq!(raw.finished().and_then(|result| result.as_ref().err()).map(ToString::to_string).as_deref(), Some(text));
}

#[test]
fn a_read_that_fails_after_the_restart_it_caused_is_no_second_change() {
    let long = Rng::new(3).bytes(2 << 20);
    let mut raw = Raw::server(Config::default()).file("file", long);
    raw.greet();
    // Content that was asked for whole is read ahead, several pieces at once.
    raw = raw.hold(|due| due.name() == "Read");
    let pull = Pull { path: file(), algorithm: Algorithm::Blake3, have: None };
    raw.say(1, TransferMessage::Pull(pull)).take();
    let reads: Vec<_> = raw.due().filter_map(Due::request).collect();
    assert_eq!(reads.len(), 4);
    let changed = || Err(deltasync_proto::StorageFault::new(deltasync_proto::FaultKind::Changed, "shorter"));
    raw.answer(reads[0], changed());
    // The new description is there before the other reads have failed.
    assert_eq!(kinds(&mut raw)[..2], [MessageKind::Changed, MessageKind::Offer]);
    reads[1..].iter().for_each(|id| raw.answer(*id, changed()));
    assert_eq!(kinds(&mut raw), []);
    raw.release();
    assert_eq!(raw.ended(1), None);
    raw.say(1, TransferMessage::Credit(4 << 20));
    let sent: u64 = raw.messages().iter().map(literal_bytes).sum();
    assert_eq!(sent, 2 << 20);
}

fn literal_bytes(message: &Message) -> u64 {
    match message {
        Message::Transfer(_, TransferMessage::Delta(Delta { ops, .. })) => ops.literal_len().get(),
        _ => ByteLen::ZERO.get(),
    }
}

#[test]
fn a_file_that_changes_three_times_is_given_up_and_the_peer_hears_why() {
    let mut raw = served(|due| due.name() == "Recheck");
    for round in 0..3u8 {
        raw.say(1, want_all());
        replace(&raw, vec![round; 5000]);
        raw.release();
        raw = raw.hold(|due| due.name() == "Recheck");
    }
    assert_eq!(raw.ended(1), Some(&Err(TransferError::Changed { times: 3 })));
    let last = raw.messages().pop();
    let refused = |message: &Message| match message {
        Message::Transfer(id, TransferMessage::Refused(refusal)) => {
            assert_eq!(*id, TransferId::new(1));
            refusal.message.clone()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(last.as_ref().map(refused).as_deref(), Some("source changed while it was read, 3 times in a row"));
}
