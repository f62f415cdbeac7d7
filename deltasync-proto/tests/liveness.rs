//! What takes long or starts over is not given up, and what stands still is.

use std::time::Duration;

use bytes::Bytes;
use deltasync_core::{
    Algorithm, ByteLen, ChunkList, Cutter, Digest, Elements, Generation, Name, OldContent, OldPiece, RelPath, Shared,
    Sketch, SketchKey, Survey, Tag, TagKey,
};
use deltasync_io::{BlockingStorage, MemoryStorage};
use deltasync_proto::{
    Answer, Ask, CloseCode, Config, Content, Cutting, Delta, Known, List, Literals, Message, MessageKind, More, Offer,
    Place, Pull, Rate, Repair, RootId, Scope, SessionError, SetPart, TransferError, TransferId, TransferMessage, Want,
    Wish,
};
use deltasync_testkit::{Due, Raw, Rng, file, pull, push};

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
    raw.say(1, want_all());
    raw.say(1, TransferMessage::Credit(1 << 40));
    for _ in 0..100 {
        raw.write(10_000);
        wait(&mut raw, 1);
    }
    assert!(raw.unwritten() > 1 << 20);
    assert_eq!(raw.ended(1), None, "the link still moves");
    wait(&mut raw, 28);
    assert_eq!(raw.finished(), None);
    wait(&mut raw, 2);
    assert_eq!(raw.finished(), Some(&Err(late("room for what we send"))), "it does not");
}

fn late(what: &'static str) -> SessionError {
    SessionError::TimedOut { what, after: Duration::from_secs(30) }
}

/// Both ends with a transfer that waits for the peer, and no more to say.
fn both_ends() -> [Raw; 2] {
    let mut ends = [client().command(1, push(file(), file())), served(|_| false)];
    ends.iter_mut().for_each(|raw| drop(raw.take()));
    ends
}

/// A frame that has begun comes at `rate` bytes every `every` seconds: returns after how many seconds it was given up.
fn trickled(raw: &mut Raw, len: usize, rate: usize, every: u64) -> Option<u64> {
    let delta = Message::Transfer(TransferId::new(1), whole(len)).encode();
    let bytes = [&delta.head[..], &delta.tail].concat();
    let mut seconds = 0;
    for piece in bytes[..bytes.len() - 1].chunks_exact(rate) {
        raw.feed(piece.to_vec());
        for _ in 0..every {
            raw.advance(Duration::from_secs(1));
            seconds += 1;
            if raw.finished().is_some() {
                return Some(seconds);
            }
        }
    }
    None
}

fn whole(len: usize) -> TransferMessage {
    let ops = [deltasync_core::Op::Literal { len: ByteLen::new(len as u64) }].into_iter().collect();
    TransferMessage::Delta(Delta { last: true, ops, literals: Literals::Raw(vec![1; len].into()) })
}

#[test]
fn a_frame_that_trickles_is_given_up_in_time_at_both_ends() {
    for (rate, every) in [(1, 1), (1, 9), (1, 29), (100, 1), (500, 1), (16_000, 29)] {
        for mut raw in both_ends() {
            // The clock starts with the first byte and stops with the last step of 16 KiB.
            let after = trickled(&mut raw, 40_000, rate, every);
            assert_eq!(after, Some(30), "{rate} bytes in {every} s");
            assert_eq!(raw.finished(), Some(&Err(late("rest of a frame"))));
            let told = raw.closing().expect("the peer is told");
            assert_eq!(told, (CloseCode::TimedOut, "no rest of a frame from the peer within 30s".into()));
            assert!(matches!(raw.ended(1), Some(Err(TransferError::ConnectionLost(_)))), "and so is the user");
        }
    }
}

#[test]
fn a_slow_frame_that_moves_on_is_waited_for() {
    // A kibibyte a second is slow; so is a lump of 16 KiB each 29 seconds.
    for (rate, every) in [(1 << 10, 1), (16 << 10, 29)] {
        for mut raw in both_ends() {
            assert_eq!(trickled(&mut raw, 900 << 10, rate, every), None);
            assert_eq!(raw.finished(), None);
            assert_eq!(raw.ended(1), None, "what comes may well be of this transfer");
        }
    }
}

#[test]
fn whole_frames_are_no_unfinished_one_however_slowly_they_come() {
    for mut raw in both_ends() {
        let ping = Message::Ping.encode().head;
        // Each piece ends one frame and begins the next.
        let stream = ping.repeat(20);
        raw.feed(stream[..1].to_vec());
        for piece in stream[1..].chunks(ping.len()) {
            raw.advance(Duration::from_secs(20)).feed(piece.to_vec());
        }
        assert_eq!(raw.finished(), None);
    }
}

/// A peer takes `rate` bytes every `every` seconds of what we send: returns after how many seconds it was given up.
fn sipped(raw: &mut Raw, rate: usize, every: u64, seconds: u64) -> Option<u64> {
    for second in 1..=seconds {
        raw.advance(Duration::from_secs(1)).send(&Message::Pong);
        if second % every == 0 {
            raw.write(rate);
        }
        if raw.finished().is_some() {
            return Some(second);
        }
    }
    None
}

#[test]
fn a_peer_that_sips_is_given_up_in_time_at_both_ends() {
    let bytes = Rng::new(2).bytes(4 << 20);
    for (rate, every, after) in
        [(1, 1, Some(30)), (1, 59, Some(30)), (500, 1, Some(30)), (600, 1, None), (16 << 10, 29, None)]
    {
        let large = RelPath::new(*b"large").expect("a plain name");
        let pulled = || {
            let mut raw = Raw::server(Config::default()).file("large", bytes.clone()).without_writing();
            raw.greet();
            let pull = Pull { path: large.clone(), algorithm: Algorithm::Blake3, have: None, scope: Scope::default() };
            raw.say(1, TransferMessage::Pull(pull));
            raw
        };
        let pushed = || {
            let mut raw = Raw::client(Config::default()).file("large", bytes.clone()).without_writing();
            raw.greet();
            let mut raw = raw.command(1, push(large.clone(), file()));
            raw.say(1, want_all());
            raw
        };
        for mut raw in [pulled(), pushed()] {
            raw.say(1, TransferMessage::Credit(1 << 40));
            assert!(raw.unwritten() > 1 << 20);
            assert_eq!(sipped(&mut raw, rate, every, 300), after, "{rate} bytes in {every} s: {:?}", raw.finished());
            if after.is_some() {
                assert_eq!(raw.finished(), Some(&Err(late("room for what we send"))));
                assert!(raw.closing().is_some_and(|(code, _)| code == CloseCode::TimedOut));
            }
        }
    }
}

#[test]
fn both_ends_ask_for_a_sign_of_life_and_give_one() {
    for mut raw in both_ends() {
        raw.advance(Duration::from_millis(9_999));
        assert!(!kinds(&mut raw).contains(&MessageKind::Ping));
        raw.advance(Duration::from_millis(1));
        assert!(kinds(&mut raw).contains(&MessageKind::Ping));
        raw.send(&Message::Ping);
        assert_eq!(kinds(&mut raw), [MessageKind::Pong]);
        raw.advance(Duration::from_millis(29_999));
        assert_eq!(raw.finished(), None);
        raw.advance(Duration::from_millis(1));
        assert_eq!(raw.finished(), Some(&Err(late("sign of life"))));
        assert!(raw.closing().is_some_and(|(code, _)| code == CloseCode::TimedOut));
    }
}

#[test]
fn a_connection_without_transfers_is_ended_when_it_has_been_idle() {
    let idle = Duration::from_secs(600);
    let hold: fn(&Due) -> bool = |due| due.name() == "Describe";
    let mut raw = Raw::server(Config::default().idle(Some(idle))).file("file", content()).hold(hold);
    raw.greet();
    wait(&mut raw, 500);
    raw.say(
        1,
        TransferMessage::Pull(Pull { path: file(), algorithm: Algorithm::Blake3, have: None, scope: Scope::default() }),
    );
    // As long as one runs it is not idle.
    wait(&mut raw, 2000);
    raw.release().say(1, TransferMessage::Same(deltasync_core::Generation::ZERO));
    assert!(matches!(raw.ended(1), Some(Ok(_))), "{:?}", raw.ended(1));
    wait(&mut raw, 599);
    assert_eq!(raw.finished(), None);
    raw.take();
    wait(&mut raw, 1);
    let error = SessionError::TimedOut { what: "transfer", after: idle };
    assert_eq!(raw.finished(), Some(&Err(error)));
    let told = raw.closing().expect("the peer is told");
    assert_eq!(told, (CloseCode::TimedOut, "no transfer from the peer within 600s".into()));
}

#[test]
fn requests_above_the_rate_are_taken_later_and_none_is_lost() {
    let rate = Rate { per_second: 10, burst: 5 };
    let mut raw = Raw::server(Config::default().requests(Some(rate))).file("file", content());
    raw.greet();
    let mut bytes = Vec::new();
    for id in 1..=25 {
        let list = TransferMessage::List(List { path: RelPath::ROOT, after: None });
        bytes.extend_from_slice(&Message::Transfer(TransferId::new(id), list).encode().head);
    }
    raw.feed(bytes);
    assert_eq!(raw.messages().len(), 5);
    assert!(!raw.wants_bytes());
    raw.advance(Duration::from_millis(99));
    assert_eq!(raw.messages().len(), 0);
    raw.advance(Duration::from_millis(1));
    assert_eq!(raw.messages().len(), 1);
    raw.advance(Duration::from_secs(1));
    assert_eq!(raw.messages().len(), 10);
    assert!(!raw.wants_bytes());
    raw.advance(Duration::from_secs(1));
    assert!(raw.wants_bytes());
    assert_eq!(raw.messages().iter().filter(|message| matches!(message, Message::Transfer(..))).count(), 9);
    assert_eq!(raw.finished(), None);
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
    let have = Some((Digest::default(), ByteLen::new(3)));
    raw.say(
        1,
        TransferMessage::Pull(Pull { path: file(), algorithm: Algorithm::Blake3, have, scope: Scope::default() }),
    );
    raw
}

fn want_all() -> TransferMessage {
    TransferMessage::Want(Want::All)
}

fn repair() -> TransferMessage {
    TransferMessage::Repair(Repair::ALL)
}

fn replace(raw: &Raw, bytes: impl Into<Bytes>) {
    raw.storage.insert(deltasync_proto::RootId::new(0), file(), bytes);
}

#[test]
fn each_offer_may_be_repaired_twice() {
    let mut raw = served(|_| false);
    raw.say(1, want_all()).take();
    raw.say(1, repair());
    assert!(kinds(&mut raw).contains(&MessageKind::Delta));
    // It changes before the repair has left.
    let mut raw = served(|_| false);
    raw.say(1, want_all());
    raw = raw.hold(|due| due.name() == "Recheck");
    raw.say(1, repair()).take();
    replace(&raw, &b"changed"[..]);
    raw.release();
    let expected = [MessageKind::Changed, MessageKind::Offer, MessageKind::Tags];
    assert_eq!(kinds(&mut raw), expected);
    raw.say(1, want_all()).say(1, repair()).say(1, repair());
    assert!(raw.finished().is_none(), "{:?}", raw.finished());
    assert_eq!(kinds(&mut raw), [MessageKind::Delta; 3]);
    raw.say(1, repair());
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
    let pull = Pull { path: file(), algorithm: Algorithm::Blake3, have: None, scope: Scope::default() };
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
        Message::Transfer(_, TransferMessage::Delta(Delta { literals, .. })) => literals.raw_len().get(),
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

/// The nonce of the hello that [`Raw::greet`] sends.
const NONCE: [u8; 16] = [7; 16];

fn list_of(bytes: &[u8]) -> ChunkList {
    ChunkList::of(bytes, Cutter::for_len(ByteLen::of(bytes)), Algorithm::Blake3)
}

fn offer(bytes: &[u8], content: Content) -> TransferMessage {
    let list = list_of(bytes);
    TransferMessage::Offer(Offer {
        to: Some(Wish::exactly(file())),
        len: list.len(),
        root: list.root(),
        algorithm: list.algorithm(),
        cutter: list.cutter(),
        attempt: 0,
        content,
    })
}

/// Cells or tags of the set of `bytes` in the first transfer of a client of [`NONCE`].
fn part(bytes: &[u8], is_tags: bool) -> TransferMessage {
    let elements = Elements::of(&list_of(bytes), &TagKey::new(&NONCE, 1));
    let mut encoded = Vec::new();
    if is_tags {
        elements.encode(0..elements.len(), &mut encoded);
        let count = elements.len() as u32;
        return TransferMessage::Tags(SetPart { start: 0, count, bytes: encoded.into() });
    }
    Sketch::of(SketchKey::new(&NONCE, 1), 0..32, elements.tags()).encode(&mut encoded);
    TransferMessage::Cells(SetPart { start: 0, count: 32, bytes: encoded.into() })
}

fn set_of(bytes: &[u8]) -> Content {
    Content::Set { elements: Elements::of(&list_of(bytes), &TagKey::new(&NONCE, 1)).len() as u32 }
}

/// Puts `bytes` there and remembers them as what the peer has.
fn remember(storage: &MemoryStorage, bytes: &[u8]) {
    storage.insert(RootId::new(0), file(), bytes.to_vec());
    let place = Place { root: RootId::new(0), path: file() };
    let describe = Ask::Describe { place, cutting: Cutting::ByContent, algorithm: Algorithm::Blake3, remember: None };
    let Ok(Answer::Described(described)) = storage.answer(describe) else { panic!("it is there") };
    let key = Known { path: file(), name: Name::new(*b"file").ok() };
    let generation = deltasync_core::Generation::new(1);
    storage.answer(Ask::Remember { key, generation, file: described }).expect("memory remembers");
}

/// A client that pushes [`content`] to a peer that it remembers to have `known`.
fn knowing(known: &[u8]) -> Raw {
    let raw = Raw::client(Config::default());
    remember(&raw.storage, known);
    let mut raw = raw.file("file", content());
    raw.greet();
    raw.command(1, push(file(), file()))
}

/// A survey of a basis that has the chunks of [`content`] in another order.
fn moved() -> TransferMessage {
    let elements = Elements::of(&list_of(&content()), &TagKey::new(&NONCE, 1));
    let pieces = vec![OldPiece { before: 0, content: OldContent::Bytes(ByteLen::new(1)) }];
    assert_ne!(Shared::all_but(&elements, &[]).order(&elements, &TagKey::new(&NONCE, 1)), Tag::from_bytes([1; 6]));
    let basis = ByteLen::new(10_001);
    let survey = Survey {
        basis,
        order: Tag::from_bytes([1; 6]),
        missing: Vec::new(),
        pieces,
        shape: None,
        sums: Vec::new(),
        edges: None,
    };
    let mut bytes = Vec::new();
    survey.encode(elements.len() as u64, &mut bytes);
    TransferMessage::Want(Want::Survey { last: true, bytes: bytes.into() })
}

/// A server that receives what a peer says, onto [`content`].
fn receiving(said: &[TransferMessage]) -> Raw {
    let mut raw = Raw::server(Config::default()).file("file", content());
    raw.greet();
    for message in said {
        raw.say(1, message.clone());
    }
    raw
}

/// A server that sends [`content`] to a peer that says this.
fn sending(said: &[TransferMessage]) -> Raw {
    let mut raw = served(|_| false);
    for message in said {
        raw.say(1, message.clone());
    }
    raw
}

/// A peer stops here and only answers pings: the transfer is given up, not before its time and not long after.
#[track_caller]
fn check_given_up(state: &str, last: MessageKind, mut raw: Raw) {
    assert!(raw.finished().is_none() && raw.ended(1).is_none(), "{state}: {:?} {:?}", raw.finished(), raw.ended(1));
    let said = raw.messages();
    let transfers = said.iter().filter(|message| matches!(message, Message::Transfer(..)));
    let kinds: Vec<_> = transfers.map(Message::kind).filter(|kind| *kind != MessageKind::Credit).collect();
    assert_eq!(kinds.last(), Some(&last), "{state} is not reached: {kinds:?}");
    wait(&mut raw, 29);
    assert_eq!(raw.ended(1), None, "{state}");
    wait(&mut raw, 12);
    assert_eq!(raw.ended(1), Some(&Err(TransferError::Stalled { after: Duration::from_secs(30) })), "{state}");
    let told = raw.messages().into_iter().any(|message| {
        matches!(message, Message::Transfer(_, TransferMessage::Refused(refusal)) if !refusal.message.is_empty())
    });
    assert!(told, "{state}: the peer is told why");
    assert!(raw.finished().is_none(), "{state}: the connection goes on");
}

#[test]
fn a_receiver_that_stops_is_given_up_in_every_state() {
    use MessageKind as K;
    let all = || TransferMessage::Want(Want::All);
    check_given_up("offered a set", K::Tags, sending(&[]));
    let more = TransferMessage::More(More::Cells(40));
    check_given_up("offered more of it", K::Cells, sending(&[more]));
    check_given_up("asked for the order", K::Edges, sending(&[moved()]));
    let more = TransferMessage::More(More::Edges(100));
    check_given_up("offered more edges", K::Edges, sending(&[moved(), more]));
    check_given_up("sent everything", K::Delta, sending(&[all()]));
    check_given_up("repaired", K::Delta, sending(&[all(), repair()]));
    check_given_up("offered what it has", K::Offer, knowing(&content()));
    check_given_up("offered a delta at once", K::Delta, knowing(&content()[..9_000]));
    let stale = || {
        let mut raw = knowing(&content()[..9_000]);
        raw.say(1, TransferMessage::Stale);
        raw
    };
    check_given_up("offered anew", K::Tags, stale());
    let large = || {
        let raw = Raw::client(Config::default());
        remember(&raw.storage, &content());
        let mut raw = raw.file("file", Rng::new(9).bytes(4 << 20));
        raw.greet();
        raw.command(1, push(file(), file()))
    };
    check_given_up("offered a large delta", K::Offer, large());
    let mut current = large();
    current.say(1, TransferMessage::Current);
    check_given_up("out of credit", K::Delta, current);
}

#[test]
fn a_sender_that_stops_is_given_up_in_every_state() {
    use MessageKind as K;
    let long = Rng::new(4).bytes(600_000);
    let piece = |last| {
        let literals = Literals::Raw(vec![1; 10].into());
        let ops = [deltasync_core::Op::Literal { len: ByteLen::new(10) }].into_iter().collect();
        TransferMessage::Delta(Delta { last, ops, literals })
    };
    let target = [&content()[..5000], b"something else"].concat();
    let set = || vec![offer(&target, set_of(&target)), part(&target, true)];
    check_given_up("comparing", K::More, receiving(&[offer(&long, set_of(&long)), part(&long, false)]));
    check_given_up("told of its basis", K::Want, receiving(&set()));
    check_given_up("told where its order breaks", K::Order, receiving(&[&set()[..], &[edges(&target)]].concat()));
    check_given_up("amid the delta", K::Want, receiving(&[&set()[..], &[piece(false)]].concat()));
    check_given_up("told that it is stale", K::Stale, receiving(&[offer(&target, Content::Known)]));
    let basis = Content::Delta {
        basis: list_of(&content()).root(),
        len: ByteLen::new(10_000),
        generation: Generation::ZERO,
        follows: false,
    };
    check_given_up("told that it is current", K::Current, receiving(&[offer(&target, basis)]));
    let ten = vec![1; 10];
    let wrong = offer(&[2; 10], Content::Whole);
    assert_ne!(ten, [2; 10]);
    check_given_up("asked for a repair", K::Repair, receiving(&[wrong.clone(), piece(true)]));
    check_given_up("asked for another", K::Repair, receiving(&[wrong, piece(true), piece(true)]));
    let pulling = || client().command(1, pull(file(), file()));
    check_given_up("asked for a file", K::Pull, pulling());
}

fn edges(bytes: &[u8]) -> TransferMessage {
    let TransferMessage::Cells(_) = part(bytes, false) else { panic!("cells") };
    let elements = Elements::of(&list_of(bytes), &TagKey::new(&NONCE, 1));
    let mut encoded = Vec::new();
    Sketch::of(SketchKey::of_edges(&NONCE, 1), 0..32, elements.tags()).encode(&mut encoded);
    let cells = SetPart { start: 0, count: 32, bytes: encoded.into() };
    TransferMessage::Edges(deltasync_proto::Edges { elements: elements.len() as u32, cells })
}
