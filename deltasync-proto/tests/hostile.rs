//! Peers that break the rules: each ends in an error with a name, the peer is told why, and no file has changed.

use std::time::Duration;

use bytes::Bytes;
use deltasync_core::{
    Algorithm, ByteLen, ChunkList, Cutter, Digest, Generation, Limits, Name, Offset, Op, Ops, RelPath, Tag, TagKey,
    TagRun, pack, tag_runs, write_varint,
};
use deltasync_proto::{
    AskRoot, Close, CloseCode, Command, Config, Content, Delta, Entry, EntryKind, Hello, List, Listing, Literals,
    Message, MessageKind, Offer, PeerMisbehaved, Pull, Refusal, RefusalCode, RootIs, SessionError, TransferError,
    TransferId, TransferMessage, Unsupported, VERSION, Want, WantRun, Wish, encode_header,
};
use deltasync_testkit::{Due, Raw, Rng, file, pull, push};
use proptest::prelude::*;

/// The nonce of the hello that [`Raw::greet`] sends.
const NONCE: [u8; 16] = [7; 16];

fn basis() -> Vec<u8> {
    Rng::new(1).bytes(10_000)
}

fn target() -> Vec<u8> {
    [&basis()[..5000], &Rng::new(2).bytes(7000)].concat()
}

/// A server with a basis, before any hello.
fn stranger() -> Raw {
    Raw::server(Config::default()).file("file", basis())
}

/// The same after the hellos.
fn server() -> Raw {
    let mut raw = stranger();
    raw.greet();
    raw
}

/// A client with a file to push, after the hellos.
fn client() -> Raw {
    let mut raw = Raw::client(Config::default()).file("file", basis());
    raw.greet();
    raw
}

fn list_of(bytes: &[u8]) -> ChunkList {
    ChunkList::of(bytes, Cutter::for_len(ByteLen::of(bytes)), Algorithm::Blake3)
}

fn tags_of(bytes: &[u8]) -> Vec<TagRun> {
    tag_runs(&list_of(bytes), &TagKey::new(&NONCE, 1))
}

fn in_tags(bytes: &[u8]) -> Content {
    Content::Tags { runs: list_of(bytes).runs().len() as u32 }
}

fn offer_of(bytes: &[u8], content: Content) -> Offer {
    let list = list_of(bytes);
    let wish = Wish { path: file(), name: name(), directory: false };
    Offer {
        to: Some(wish),
        len: list.len(),
        root: list.root(),
        algorithm: list.algorithm(),
        cutter: list.cutter(),
        changes: 0,
        content,
    }
}

fn offer(bytes: &[u8], content: Content) -> TransferMessage {
    TransferMessage::Offer(offer_of(bytes, content))
}

/// The offer of a server, in a pull.
fn served(bytes: &[u8], content: Content) -> TransferMessage {
    TransferMessage::Offer(Offer { to: None, ..offer_of(bytes, content) })
}

fn name() -> Name {
    Name::new(*b"file").expect("a plain name")
}

fn raw_delta(last: bool, ops: &[Op], literals: &[u8]) -> TransferMessage {
    let literals = Literals::Raw(Bytes::copy_from_slice(literals));
    TransferMessage::Delta(Delta { last, ops: ops.iter().copied().collect(), literals })
}

fn whole(bytes: &[u8]) -> TransferMessage {
    raw_delta(true, &[literal(bytes.len() as u64)], bytes)
}

const fn literal(len: u64) -> Op {
    Op::Literal { len: ByteLen::new(len) }
}

const fn copy(from: u64, len: u64) -> Op {
    Op::Copy { from: Offset::new(from), len: ByteLen::new(len) }
}

const fn run(missing: u64, have: u64, from: u64) -> WantRun {
    WantRun { missing, have, from: Offset::new(from) }
}

fn want(basis: u64, runs: &[WantRun]) -> TransferMessage {
    TransferMessage::Want(Want { last: true, basis, runs: runs.to_vec() })
}

fn pulls(have: Option<Digest>) -> TransferMessage {
    TransferMessage::Pull(Pull { path: file(), algorithm: Algorithm::Blake3, have })
}

/// The session has ended with this error, has told it to the peer, and the basis is what it was.
#[track_caller]
fn check_refused(raw: &mut Raw, code: CloseCode, text: &str) {
    match raw.finished() {
        Some(Err(error)) => assert_eq!(error.to_string(), text),
        other => panic!("not refused, but {other:?}"),
    }
    assert_eq!(raw.closing(), Some((code, text.into())), "the peer is told");
    assert_eq!(raw.content("file").as_deref(), Some(&basis()[..]), "nothing has changed");
}

#[track_caller]
fn check_healthy(raw: &mut Raw) {
    assert!(raw.finished().is_none(), "{:?}", raw.finished());
    raw.take();
    raw.send(&Message::Ping);
    assert_eq!(raw.messages(), [Message::Pong], "it still answers");
    assert_eq!(raw.content("file").as_deref(), Some(&basis()[..]), "nothing has changed");
}

// ---- strangers ----

const NO_HELLO: &str = "peer misbehaved: the first bytes are no hello of deltasync";

#[test]
fn an_http_request_is_told_that_it_is_no_hello() {
    let mut raw = stranger();
    raw.feed(&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..]);
    check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO);
    let mut raw = stranger();
    raw.feed(&b"\x16"[..]);
    check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO);
}

#[test]
fn half_a_hello_and_then_silence_is_given_up_in_time() {
    let mut hello = Message::Hello(Hello::ours(VERSION, NONCE)).encode().head;
    hello.truncate(hello.len() / 2);
    for bytes in [&b""[..], &hello] {
        let mut raw = stranger();
        raw.feed(bytes.to_vec()).advance(Duration::from_millis(9_999));
        assert!(raw.finished().is_none());
        raw.advance(Duration::from_millis(1));
        check_refused(&mut raw, CloseCode::TimedOut, "no hello from the peer within 10s");
    }
    // A byte now and then does not help.
    let mut raw = stranger();
    for byte in hello.chunks(1) {
        raw.feed(byte.to_vec()).advance(Duration::from_secs(3));
    }
    check_refused(&mut raw, CloseCode::TimedOut, "no hello from the peer within 10s");
}

#[test]
fn a_hello_too_long_is_refused_at_its_header() {
    let mut raw = stranger();
    let mut header = Vec::new();
    encode_header(&mut header, MessageKind::Hello.code(), TransferId::new(0), (64 << 10) + 1);
    raw.feed(header);
    check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO);
}

#[test]
fn damaged_hellos_are_no_hellos() {
    let good = {
        let mut payload = Vec::new();
        Hello::ours(VERSION, NONCE).encode(&mut payload);
        payload
    };
    for (at, byte) in [(0, b'S'), (4, 0), (4, 2), (24, 0xff), (24, 1)] {
        let mut damaged = good.clone();
        damaged[at] = byte;
        let mut raw = stranger();
        raw.frame(MessageKind::Hello.code(), 0, &damaged);
        check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO);
    }
    let mut raw = stranger();
    raw.frame(MessageKind::Hello.code(), 1, &good);
    check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO);
}

fn hello(min: u8, max: u8) -> Message {
    Message::Hello(Hello { min, max, ..Hello::ours(VERSION, NONCE) })
}

#[test]
fn a_client_of_another_version_hears_which_ones_there_are() {
    let mut raw = stranger();
    raw.send(&hello(9, 9));
    let answers = raw.messages();
    assert!(matches!(&answers[0], Message::Hello(Hello { min: 1, max: VERSION, .. })), "{answers:?}");
    assert_eq!(answers[1..], [Message::Unsupported(Unsupported { min: 1, max: VERSION, algorithms: 3 })]);
    // Its first flight passes by, whatever it means there.
    raw.frame(0x77, 5, b"of version nine").frame(MessageKind::Offer.code(), 1, b"another offer");
    assert_eq!(raw.messages(), []);
    // Only a second hello of that kind is an error.
    let mut again = stranger();
    again.send(&hello(9, 9)).take();
    again.send(&hello(9, 9));
    let text = "no version or hash in common: peer speaks versions 9 to 9, we speak 1";
    check_refused(&mut again, CloseCode::Unsupported, text);
    raw.advance(Duration::from_secs(10));
    check_refused(&mut raw, CloseCode::TimedOut, "no hello from the peer within 10s");
}

#[test]
fn a_client_that_comes_down_to_our_version_is_served() {
    let mut raw = stranger();
    raw.send(&hello(1, 9)).frame(MessageKind::Offer.code(), 1, b"of version nine").take();
    raw.send(&hello(1, 1)).say(1, TransferMessage::List(List { path: RelPath::ROOT, after: None }));
    assert!(matches!(raw.messages()[..], [Message::Transfer(_, TransferMessage::Listing(_))]));
}

#[test]
fn a_server_that_knows_no_version_of_ours_ends_the_client() {
    let mut raw = client();
    raw.send(&Message::Unsupported(Unsupported { min: 7, max: 9, algorithms: 1 }));
    let text = "no version or hash in common: peer speaks versions 7 to 9, we speak 1";
    check_refused(&mut raw, CloseCode::Unsupported, text);
    let mut raw = Raw::client(Config::default().version(2)).file("file", basis());
    raw.greet().send(&Message::Unsupported(Unsupported { min: 1, max: 1, algorithms: 3 }));
    assert!(matches!(raw.messages()[..], [Message::Hello(Hello { min: 1, max: 1, .. })]));
    raw.send(&Message::Unsupported(Unsupported { min: 1, max: 1, algorithms: 3 }));
    let text = "no version or hash in common: peer speaks versions 1 to 1, we speak 1";
    check_refused(&mut raw, CloseCode::Unsupported, text);
}

#[test]
fn a_server_that_is_no_server_of_ours_ends_the_client() {
    let mut raw = Raw::client(Config::default()).file("file", basis());
    raw.take();
    raw.feed(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]);
    check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO);
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_waited_for(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut raw = stranger();
        raw.feed(bytes).advance(Duration::from_secs(10));
        prop_assert!(matches!(raw.finished(), Some(Err(_))));
        let mut raw = Raw::client(Config::default());
        raw.feed(&b"\xd5\0"[..]).advance(Duration::from_secs(10));
        prop_assert!(matches!(raw.finished(), Some(Err(_))));
    }

    #[test]
    fn random_bytes_behind_a_hello_are_refused_or_waited_for(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        for mut raw in [server(), client()] {
            raw.feed(bytes.clone()).advance(Duration::from_secs(40));
            prop_assert!(matches!(raw.finished(), Some(Err(_))));
            prop_assert_eq!(raw.content("file"), Some(basis().into()));
        }
    }
}

// ---- messages out of order ----

/// One valid message of each kind, as the given end could send it.
fn sample(kind: MessageKind, from_client: bool) -> Message {
    let target = target();
    let message = match kind {
        MessageKind::Hello => return hello(1, 1),
        MessageKind::Unsupported => {
            return Message::Unsupported(Unsupported { min: 1, max: VERSION, algorithms: 3 });
        }
        MessageKind::Close => return Message::Close(Close { code: CloseCode::Busy, message: "full".into() }),
        MessageKind::Ping => return Message::Ping,
        MessageKind::Pong => return Message::Pong,
        MessageKind::Offer if from_client => offer(&target, in_tags(&target)),
        MessageKind::Offer => served(&target, in_tags(&target)),
        MessageKind::Tags => TransferMessage::Tags(tags_of(&target)[..1].to_vec()),
        MessageKind::Same => TransferMessage::Same,
        MessageKind::Want => want(0, &[]),
        MessageKind::Delta => raw_delta(false, &[literal(3)], b"abc"),
        MessageKind::Done => TransferMessage::Done(Generation::new(1)),
        MessageKind::Repair => TransferMessage::Repair,
        MessageKind::Changed => TransferMessage::Changed,
        MessageKind::Refused => TransferMessage::Refused(refusal("no")),
        MessageKind::Cancel => TransferMessage::Cancel,
        MessageKind::Credit => TransferMessage::Credit(1000),
        MessageKind::Working => TransferMessage::Working,
        MessageKind::Pull => pulls(None),
        MessageKind::List => TransferMessage::List(List { path: RelPath::ROOT, after: None }),
        MessageKind::Listing => TransferMessage::Listing(Listing { entries: Vec::new(), more: false }),
        MessageKind::AskRoot => TransferMessage::AskRoot(AskRoot { path: file(), algorithm: Algorithm::Blake3 }),
        MessageKind::RootIs => TransferMessage::RootIs(RootIs { len: ByteLen::ZERO, root: Digest::default() }),
        other => panic!("no sample of {other:?}"),
    };
    Message::Transfer(TransferId::new(1), message)
}

fn refusal(message: &str) -> Refusal {
    Refusal { code: RefusalCode::Denied, message: message.into(), current: None }
}

/// Kinds that a transfer takes in any state.
const ALWAYS: [MessageKind; 4] = [MessageKind::Refused, MessageKind::Cancel, MessageKind::Credit, MessageKind::Working];

/// Sends each kind to a session whose transfer 1 is in a state that takes only `allowed`.
#[track_caller]
fn check_state(build: impl Fn() -> Raw, state: &str, allowed: &[MessageKind]) {
    let from_client = !build().is_client();
    for kind in MessageKind::ALL.iter().copied() {
        let mut raw = build();
        assert!(raw.finished().is_none() && raw.ended(1).is_none(), "{state} is not reached");
        raw.take();
        raw.send(&sample(kind, from_client));
        match kind {
            MessageKind::Hello => {
                let text = "peer misbehaved: Hello came while open (transfer 0)";
                check_refused(&mut raw, CloseCode::Misbehaved, text);
            }
            MessageKind::Unsupported => {
                let text = "no version or hash in common: peer speaks versions 1 to 1, we speak 1";
                check_refused(&mut raw, CloseCode::Unsupported, text);
            }
            MessageKind::Close => {
                let error = SessionError::ClosedByPeer { code: CloseCode::Busy, message: "full".into() };
                assert_eq!(raw.finished(), Some(&Err(error)));
                assert_eq!(raw.closing(), None, "nobody is there to be told");
            }
            MessageKind::Refused => {
                assert_eq!(raw.ended(1), Some(&Err(TransferError::Refused(refusal("no")))), "{state}");
                check_healthy(&mut raw);
            }
            MessageKind::Cancel => {
                assert_eq!(raw.ended(1), Some(&Err(TransferError::CancelledByPeer)), "{state}");
                check_healthy(&mut raw);
            }
            kind if kind.is_connection() || ALWAYS.contains(&kind) => check_healthy(&mut raw),
            kind if allowed.contains(&kind) => {
                let unexpected = |error: &SessionError| {
                    matches!(error, SessionError::PeerMisbehaved(PeerMisbehaved::Unexpected { .. }))
                };
                assert!(!matches!(raw.finished(), Some(Err(error)) if unexpected(error)), "{kind:?} in {state}");
                assert_eq!(raw.content("file"), Some(basis().into()));
            }
            kind => {
                let text = format!("peer misbehaved: {kind:?} came while {state} (transfer 1)");
                check_refused(&mut raw, CloseCode::Misbehaved, &text);
            }
        }
    }
}

fn named(due: &Due, name: &str) -> bool {
    due.name() == name
}

#[test]
fn a_server_takes_no_message_out_of_order_when_it_receives() {
    use MessageKind as K;
    let offered = |hold: fn(&Due) -> bool, content: Content| {
        let mut raw = server().hold(hold);
        raw.say(1, offer(&target(), content));
        raw
    };
    let tagged = |hold| {
        let mut raw = offered(hold, in_tags(&target()));
        raw.say(1, TransferMessage::Tags(tags_of(&target())));
        raw
    };
    let sent = |hold| {
        let mut raw = offered(hold, Content::Whole);
        raw.say(1, whole(&target()));
        raw
    };
    check_state(|| offered(|due| named(due, "Basis"), in_tags(&target())), "opening the basis", &[K::Tags]);
    let early = &[K::Delta, K::Changed];
    // Tags are refused there as more than were announced: none.
    let late = &[K::Delta, K::Changed, K::Tags];
    check_state(|| offered(|due| named(due, "Basis"), Content::Whole), "opening the basis", late);
    check_state(|| offered(|_| false, in_tags(&target())), "collecting tags", &[K::Tags]);
    check_state(|| tagged(|due| named(due, "Job")), "matching", &[]);
    check_state(|| tagged(|_| false), "patching", &[K::Delta, K::Tags, K::Changed]);
    let known = || {
        let mut raw = server();
        raw.say(1, offer(&basis(), Content::Whole));
        raw
    };
    check_state(known, "letting known content pass", early);
    check_state(|| sent(|due| named(due, "Seal")), "verifying", &[]);
    check_state(|| sent(|due| named(due, "Commit")), "committing", &[]);
    let changed = || {
        let mut raw = tagged(|_| false);
        raw.say(1, TransferMessage::Changed);
        raw
    };
    check_state(changed, "waiting for an offer", &[K::Offer]);
}

#[test]
fn a_server_takes_no_message_out_of_order_when_it_sends_or_answers() {
    use MessageKind as K;
    let asked = |hold: fn(&Due) -> bool, message: TransferMessage| {
        let mut raw = server().hold(hold);
        raw.say(1, message);
        raw
    };
    check_state(|| asked(|due| named(due, "Describe"), pulls(None)), "describing the source", &[]);
    let other = Some(Digest::default());
    check_state(|| asked(|_| false, pulls(other)), "waiting for the receiver's answer", &[K::Same, K::Want]);
    check_state(|| asked(|due| named(due, "Read"), pulls(None)), "sending the delta", &[]);
    let finish = &[K::Done, K::Same, K::Repair];
    check_state(|| asked(|_| false, pulls(None)), "waiting for the receiver to finish", finish);
    let list = || TransferMessage::List(List { path: RelPath::ROOT, after: None });
    check_state(|| asked(|due| named(due, "List"), list()), "answering a request", &[]);
    let root = || TransferMessage::AskRoot(AskRoot { path: file(), algorithm: Algorithm::Blake3 });
    check_state(|| asked(|due| named(due, "Describe"), root()), "answering a request", &[]);
}

#[test]
fn a_client_takes_no_message_out_of_order() {
    use MessageKind as K;
    let told =
        |hold: fn(&Due) -> bool, command: Command| client().file("other", &b"tiny"[..]).hold(hold).command(1, command);
    let other = || RelPath::new(*b"other").expect("a plain name");
    let pushes = |hold| told(hold, push(file(), file()));
    let pulls = |hold| told(hold, pull(file(), file()));
    check_state(|| pushes(|due| named(due, "Describe")), "describing the source", &[]);
    check_state(|| pushes(|_| false), "waiting for the receiver's answer", &[K::Same, K::Want]);
    let wanted = || {
        let mut raw = pushes(|due| named(due, "Read"));
        raw.say(1, want(0, &[]));
        raw
    };
    check_state(wanted, "sending the delta", &[]);
    let tiny = || told(|_| false, push(other(), other()));
    check_state(tiny, "waiting for the receiver to finish", &[K::Done, K::Same, K::Repair]);
    check_state(|| pulls(|due| named(due, "Basis")), "looking at the basis", &[]);
    check_state(|| pulls(|_| false), "waiting for an offer", &[K::Offer]);
    let collecting = || {
        let mut raw = pulls(|_| false);
        raw.say(1, served(&target(), in_tags(&target())));
        raw
    };
    check_state(collecting, "collecting tags", &[K::Tags]);
    let patching = || {
        let mut raw = collecting();
        raw.say(1, TransferMessage::Tags(tags_of(&target())));
        raw
    };
    check_state(patching, "patching", &[K::Delta, K::Tags, K::Changed]);
    let asks = || told(|_| false, Command::List { path: RelPath::ROOT, after: None });
    check_state(asks, "waiting for an answer", &[K::Listing]);
    check_state(|| told(|_| false, Command::Root { path: file() }), "waiting for an answer", &[K::RootIs]);
}

#[test]
fn nothing_but_a_hello_or_a_reason_comes_first() {
    for kind in MessageKind::ALL.iter().copied() {
        let mut raw = stranger();
        raw.send(&sample(kind, true));
        match kind {
            MessageKind::Hello => check_healthy(&mut raw),
            MessageKind::Close => assert!(matches!(raw.finished(), Some(Err(SessionError::ClosedByPeer { .. })))),
            _ => check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO),
        }
    }
}

#[test]
fn a_transfer_that_was_never_begun_is_not_talked_about() {
    for from_client in [true, false] {
        for kind in MessageKind::ALL.iter().copied().filter(|kind| !kind.is_connection()) {
            let mut raw = if from_client { server() } else { client() };
            raw.send(&sample(kind, from_client));
            let begins = matches!(
                kind,
                MessageKind::Offer | MessageKind::Pull | MessageKind::List | MessageKind::AskRoot if from_client
            );
            // A client may be at work on it or give it up before it has asked for anything.
            if begins || matches!(kind, MessageKind::Refused | MessageKind::Cancel | MessageKind::Working) {
                check_healthy(&mut raw);
            } else {
                let text = format!("peer misbehaved: {kind:?} for transfer 1, which was never begun");
                check_refused(&mut raw, CloseCode::Misbehaved, &text);
            }
        }
    }
}

#[test]
fn what_comes_for_a_transfer_that_has_ended_is_dropped() {
    for kind in MessageKind::ALL.iter().copied().filter(|kind| !kind.is_connection()) {
        let mut raw = server();
        raw.say(1, offer(&basis(), in_tags(&basis())));
        assert!(matches!(raw.ended(1), Some(Ok(_))));
        raw.take();
        raw.send(&sample(kind, true));
        check_healthy(&mut raw);
    }
}

#[test]
fn an_offer_that_starts_over_what_was_never_begun_is_refused() {
    let mut raw = server();
    let again = Offer { changes: 1, ..offer_of(&target(), Content::Whole) };
    raw.say(1, TransferMessage::Offer(again));
    let text = "peer misbehaved: Offer for transfer 1, which was never begun";
    check_refused(&mut raw, CloseCode::Misbehaved, text);
}

#[test]
fn transfer_0_is_the_connection_and_no_other_number_is() {
    for kind in MessageKind::ALL.iter().copied() {
        let frame = sample(kind, true).encode();
        let bytes = [&frame.head[..], &frame.tail].concat();
        let wrong = if kind.is_connection() { 1 } else { 0 };
        let mut raw = server();
        // Every header here is kind, transfer and length in one or two bytes.
        let payload = &bytes[bytes.len() - frame.payload..];
        raw.frame(kind.code(), wrong, payload);
        let text = format!("invalid message: {kind:?}: transfer number does not go with the kind");
        check_refused(&mut raw, CloseCode::Invalid, &text);
    }
}

#[test]
fn unknown_kinds_and_damaged_headers_are_refused() {
    let mut raw = server();
    raw.frame(0x7f, 1, b"");
    check_refused(&mut raw, CloseCode::Invalid, "invalid message: unknown frame kind 0x7f");
    let mut raw = server();
    raw.feed(&b"\x10\x80\x00\x00"[..]);
    let text = "invalid message: frame header: varint is not in its shortest form or passes 64 bits";
    check_refused(&mut raw, CloseCode::Invalid, text);
    let mut raw = server();
    raw.feed(&b"\x10\x80\x80\x80\x80\x10\x00"[..]);
    let text = "invalid message: frame header: transfer number passes 32 bits";
    check_refused(&mut raw, CloseCode::Invalid, text);
}

#[test]
fn payloads_where_none_belong_and_bytes_left_over_are_refused() {
    for kind in
        [MessageKind::Same, MessageKind::Repair, MessageKind::Changed, MessageKind::Cancel, MessageKind::Working]
    {
        let mut raw = server();
        raw.frame(kind.code(), 1, b"x");
        let text = format!("invalid message: {kind:?}: 1 bytes left over after the last value");
        check_refused(&mut raw, CloseCode::Invalid, &text);
    }
    let mut raw = server();
    raw.frame(MessageKind::List.code(), 1, &[0, 0, 9]);
    check_refused(&mut raw, CloseCode::Invalid, "invalid message: List: 1 bytes left over after the last value");
}

// ---- lengths ----

#[test]
fn a_frame_over_the_limit_is_refused_at_its_header() {
    let longest = 4u64 << 20;
    for len in [longest + 1, 1 << 32, 1 << 63, u64::MAX] {
        let mut raw = server();
        let mut header = vec![MessageKind::Delta.code(), 1];
        write_varint(&mut header, len);
        raw.feed(header);
        let text = format!("invalid message: frame payload of {len} is over the limit of {longest}");
        check_refused(&mut raw, CloseCode::Limit, &text);
    }
    let mut raw = server();
    let mut header = vec![MessageKind::Delta.code(), 1];
    write_varint(&mut header, longest);
    raw.feed(header);
    assert!(raw.finished().is_none(), "the longest frame is waited for");
    let mut raw = server();
    raw.frame(MessageKind::Offer.code(), 1, &[0; (64 << 10) + 1]);
    let text = "invalid message: control payload of 65537 is over the limit of 65536";
    check_refused(&mut raw, CloseCode::Limit, text);
}

#[test]
fn a_file_over_the_limit_is_refused_and_one_at_it_is_not() {
    let longest = Limits::default().file.get();
    for len in [longest + 1, 1 << 63, u64::MAX] {
        let mut raw = server();
        let offer = Offer { len: ByteLen::new(len), ..offer_of(&target(), Content::Whole) };
        raw.say(1, TransferMessage::Offer(offer));
        let text = format!("invalid message: file length of {len} is over the limit of {longest}");
        check_refused(&mut raw, CloseCode::Limit, &text);
    }
    for len in [0, 1 << 32, longest] {
        let mut raw = server();
        let offer = Offer { len: ByteLen::new(len), ..offer_of(&target(), Content::Whole) };
        raw.say(1, TransferMessage::Offer(offer));
        check_healthy(&mut raw);
    }
}

#[test]
fn more_tags_than_the_limit_or_than_announced_are_refused() {
    let most = Limits::default().chunks as u32;
    let mut raw = server();
    raw.say(1, offer(&target(), Content::Tags { runs: most + 1 }));
    let text = format!("invalid message: offered tag runs of {} is over the limit of {most}", most + 1);
    check_refused(&mut raw, CloseCode::Limit, &text);
    for hold in [(|due| named(due, "Basis")) as fn(&Due) -> bool, |_| false] {
        let mut raw = server().hold(hold);
        let tags = tags_of(&target());
        raw.say(1, offer(&target(), Content::Tags { runs: tags.len() as u32 - 1 }));
        raw.say(1, TransferMessage::Tags(tags));
        let text = "invalid message: Tags: more tags than the offer announced";
        check_refused(&mut raw, CloseCode::Invalid, text);
    }
}

#[test]
fn tags_whose_number_the_frame_cannot_hold_are_refused() {
    for (payload, cause) in [
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1][..], "bytes end within a value"),
        (&[1, 1, 2, 3, 4, 5], "bytes end within a value"),
        (&[1, 1, 2, 3, 4, 5, 6, 1, 1], "run of tags past the last tag"),
        (&[1, 1, 2, 3, 4, 5, 6, 0, 0], "run of no tags or of 2^32"),
        (&[1, 1, 2, 3, 4, 5, 6, 0, 0xff, 0xff, 0xff, 0xff, 0x0f], "run of no tags or of 2^32"),
    ] {
        let mut raw = server();
        raw.say(1, offer(&target(), Content::Tags { runs: 1 }));
        raw.frame(MessageKind::Tags.code(), 1, payload);
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: Tags: {cause}"));
    }
    // The longest run there is stands for 2^32 - 1 chunks, and is only a number.
    let mut raw = server();
    raw.say(1, offer(&target(), Content::Tags { runs: 1 }));
    raw.say(1, TransferMessage::Tags(vec![TagRun { tag: Tag::from_bytes([1; 6]), count: u32::MAX }]));
    check_healthy(&mut raw);
}

#[test]
fn texts_and_cutters_and_roots_that_do_not_fit_are_refused() {
    let text = "invalid message: text of 513 is over the limit of 512";
    let mut raw = server();
    raw.say(1, TransferMessage::Refused(refusal(&"x".repeat(513))));
    check_refused(&mut raw, CloseCode::Limit, text);
    let mut raw = server();
    raw.send(&Message::Close(Close { code: CloseCode::Busy, message: "x".repeat(513) }));
    check_refused(&mut raw, CloseCode::Limit, text);
    let mut raw = server();
    let cutter = Cutter::MinCdc { average: 1000 };
    raw.say(1, TransferMessage::Offer(Offer { cutter, ..offer_of(&target(), Content::Whole) }));
    check_refused(&mut raw, CloseCode::Invalid, "invalid message: Offer: cutter outside its range");
    let mut raw = server();
    raw.say(1, offer(&target(), Content::Known));
    let text = "invalid message: Offer: an offer of a root that we do not have as one that we have";
    check_refused(&mut raw, CloseCode::Invalid, text);
    // An offer that a pull has asked for does not say where it goes.
    let mut raw = client().command(1, pull(file(), file()));
    raw.take();
    raw.say(1, offer(&target(), Content::Whole));
    let text = "invalid message: Offer: only a pushed target names where it goes";
    check_refused(&mut raw, CloseCode::Invalid, text);
}

// ---- paths ----

/// Bytes as postcard writes them.
fn counted(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

/// Paths that no peer of ours sends, and what is said of each.
fn hostile_paths() -> Vec<(Vec<u8>, &'static str)> {
    let dots = "path has a component `.` or `..`";
    let empty = "path has an empty component";
    let plain: [(&[u8], &str); 12] = [
        (b"..", dots),
        (b".", dots),
        (b"../file", dots),
        (b"a/../file", dots),
        (b"a/..", dots),
        (b"./file", dots),
        (b"/etc/passwd", "path is absolute"),
        (b"/", "path is absolute"),
        (b"//", "path is absolute"),
        (b"a//b", empty),
        (b"a/", empty),
        (b"a\0b", "path has a NUL"),
    ];
    let mut paths: Vec<_> = plain.map(|(path, reason)| (path.to_vec(), reason)).into();
    let long = [&[b'a'; 255][..], b"/"].concat().repeat(17);
    paths.extend([
        (vec![b'x'; 256], "path has a component of over 255 bytes"),
        ([b"a/", &[b'x'; 256][..]].concat(), "path has a component of over 255 bytes"),
        (long[..4097].to_vec(), "path has over 4096 bytes"),
    ]);
    paths
}

/// What is said of a name, and of a number that stands for nothing.
const NOT_ALLOWED: &str = "a name that is not allowed or a code that this version lacks";

#[test]
fn paths_that_climb_out_or_are_too_long_are_refused_in_every_request() {
    for (path, reason) in hostile_paths() {
        let path = counted(&path);
        let digest = [0; 32];
        let offer = |path: &[u8], name: &[u8]| {
            // A wish; length 0; root; BLAKE3; MinCDC of 2048; no changes; whole.
            [&[1], path, name, &[0, 0], &digest[..], &[0, 0, 0x80, 0x10, 0, 1]].concat()
        };
        for (kind, payload, reason) in [
            (MessageKind::Offer, offer(&path, &counted(b"file")), reason),
            (MessageKind::Offer, offer(&counted(b"file"), &path), NOT_ALLOWED),
            (MessageKind::Pull, [&path[..], &[0, 0]].concat(), reason),
            (MessageKind::List, [&path[..], &[0]].concat(), reason),
            (MessageKind::List, [&counted(b"dir")[..], &[1], &path].concat(), NOT_ALLOWED),
            (MessageKind::AskRoot, [&path[..], &[0]].concat(), reason),
        ] {
            let mut raw = server();
            raw.frame(kind.code(), 1, &payload);
            check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: {kind:?}: {reason}"));
        }
        let mut raw = server();
        raw.frame(MessageKind::Offer.code(), 1, &offer(&counted(b"file"), &counted(b"file")));
        assert!(raw.finished().is_none(), "the payload is only refused for its path");
    }
}

#[test]
fn codes_of_no_meaning_and_fields_that_are_none_are_refused() {
    for (kind, payload, reason) in [
        (MessageKind::AskRoot, &b"\x04file\x02"[..], NOT_ALLOWED),
        (MessageKind::Refused, b"\x0a\x00\x00", NOT_ALLOWED),
        (MessageKind::List, b"\x03dir\x02", "not the fields of this message"),
        (MessageKind::Listing, b"\x00\x02", "not the fields of this message"),
        (MessageKind::Refused, b"\x00\x01\xff\x00", "not the fields of this message"),
        (MessageKind::List, b"\x04dir", "bytes end within a value"),
        (MessageKind::List, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01dir", "bytes end within a value"),
        (MessageKind::Credit, b"\x81\x00", "varint is not in its shortest form or passes 64 bits"),
    ] {
        let mut raw = server();
        raw.frame(kind.code(), 1, payload);
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: {kind:?}: {reason}"));
    }
}

#[test]
fn a_name_with_a_slash_is_no_name() {
    for payload in [&b"\x03dir\x01\x03a/b"[..], b"\x03dir\x01\x00"] {
        let mut raw = server();
        raw.frame(MessageKind::List.code(), 1, payload);
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: List: {NOT_ALLOWED}"));
    }
}

#[test]
fn a_listing_with_hostile_names_is_refused() {
    let mut names: Vec<_> = hostile_paths().into_iter().map(|(path, _)| path).collect();
    names.extend([b"".to_vec(), b"a/b".to_vec()]);
    for name in names {
        let mut raw = client().command(1, Command::List { path: RelPath::ROOT, after: None });
        raw.take();
        // One entry: a name, a file, its length, its time; and no more.
        raw.frame(MessageKind::Listing.code(), 1, &[&[1], &counted(&name)[..], &[0, 5, 0, 0]].concat());
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: Listing: {NOT_ALLOWED}"));
        assert!(matches!(raw.ended(1), Some(Err(TransferError::ConnectionLost(_)))));
    }
    let mut raw = client().command(1, Command::List { path: RelPath::ROOT, after: None });
    let entry = Entry { name: name(), kind: EntryKind::File, len: ByteLen::new(5), modified: -1 };
    raw.say(1, TransferMessage::Listing(Listing { entries: vec![entry], more: false }));
    assert!(matches!(raw.ended(1), Some(Ok(_))));
}

#[test]
fn a_listing_that_could_go_on_for_ever_is_refused() {
    let entry = |label: &str| {
        let name = Name::new(label.as_bytes()).expect("a plain name");
        Entry { name, kind: EntryKind::File, len: ByteLen::ZERO, modified: 0 }
    };
    for labels in [&["m"][..], &["a"], &["n", "n"], &["o", "n"], &[]] {
        let after = Some(Name::new(*b"m").expect("a plain name"));
        let mut raw = client().command(1, Command::List { path: RelPath::ROOT, after });
        raw.take();
        let entries = labels.iter().map(|label| entry(label)).collect();
        raw.say(1, TransferMessage::Listing(Listing { entries, more: true }));
        let text = "invalid message: Listing: page of a listing is out of order, or empty with more to come";
        check_refused(&mut raw, CloseCode::Invalid, text);
    }
}

// ---- deltas ----

/// A server that has offered its basis of 10,000 bytes to a target of 12,000 and waits for the delta.
fn patching() -> Raw {
    let mut raw = server();
    raw.say(1, offer(&target(), in_tags(&target()))).say(1, TransferMessage::Tags(tags_of(&target())));
    let answers = raw.messages();
    assert!(matches!(&answers[..], [Message::Transfer(_, TransferMessage::Want(Want { basis: 10_000, .. }))]));
    raw
}

#[test]
fn a_delta_that_does_not_fit_is_refused_with_its_numbers() {
    let long = Rng::new(3).bytes(12_001);
    for (delta, text) in [
        (
            raw_delta(true, &[copy(8192, 4096)], b""),
            "copy of 4096 bytes at offset 8192 runs past the basis (10000 bytes)",
        ),
        (raw_delta(true, &[copy(10_000, 1)], b""), "copy of 1 bytes at offset 10000 runs past the basis (10000 bytes)"),
        (
            raw_delta(true, &[copy(u64::MAX, 1)], b""),
            "copy of 1 bytes at offset 18446744073709551615 runs past the basis (10000 bytes)",
        ),
        (raw_delta(true, &[copy(1, u64::MAX)], b""), "delta makes more than the announced 12000 bytes"),
        (raw_delta(false, &[copy(0, 10_000), copy(0, 2001)], b""), "delta makes more than the announced 12000 bytes"),
        (whole(&long), "delta makes more than the announced 12000 bytes"),
        (whole(b"seven b"), "delta makes 7 of the announced 12000 bytes"),
        (raw_delta(true, &[], b""), "delta makes 0 of the announced 12000 bytes"),
        (raw_delta(true, &[literal(3)], b"four"), "operations want 3 literal bytes, 4 came with them"),
        (raw_delta(true, &[literal(5)], b"four"), "operations want 5 literal bytes, 4 came with them"),
        (raw_delta(true, &[copy(0, 5)], b"x"), "operations want 0 literal bytes, 1 came with them"),
    ] {
        let mut raw = patching();
        raw.say(1, delta);
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: {text}"));
    }
}

#[test]
fn a_copy_where_there_is_no_basis_is_refused() {
    let mut raw = server();
    raw.say(1, offer(&target(), Content::Whole)).say(1, raw_delta(true, &[copy(0, 1)], b""));
    let text = "invalid message: copy of 1 bytes at offset 0 runs past the basis (0 bytes)";
    check_refused(&mut raw, CloseCode::Invalid, text);
}

#[test]
fn damaged_operations_are_refused() {
    let columns = |values: &[u64]| {
        let mut payload = vec![1];
        values.iter().for_each(|value| write_varint(&mut payload, *value));
        payload
    };
    for (payload, code, text) in [
        (columns(&[]), CloseCode::Invalid, "operations are damaged: bytes end within a value"),
        (
            columns(&[1, 0, 0]),
            CloseCode::Invalid,
            "operations are damaged: a pair without a copy is empty or not the last",
        ),
        // Two literals in a row whose sum passes 64 bits.
        (
            columns(&[2, u64::MAX, u64::MAX, 0, 0]),
            CloseCode::Invalid,
            "operations are damaged: a pair without a copy is empty or not the last",
        ),
        (columns(&[1, u64::MAX, u64::MAX, 0]), CloseCode::Invalid, "delta makes more than the announced 12000 bytes"),
        (
            columns(&[1 << 62]),
            CloseCode::Limit,
            "operations in a piece of 9223372036854775808 is over the limit of 65536",
        ),
        (columns(&[32_769]), CloseCode::Limit, "operations in a piece of 65538 is over the limit of 65536"),
        (columns(&[32_768]), CloseCode::Invalid, "operations are damaged: bytes end within a value"),
        (vec![4, 0], CloseCode::Invalid, "Delta: unknown flags of a delta"),
        (vec![], CloseCode::Invalid, "Delta: bytes end within a value"),
    ] {
        let mut raw = patching();
        raw.frame(MessageKind::Delta.code(), 1, &payload);
        check_refused(&mut raw, code, &format!("invalid message: {text}"));
    }
}

#[test]
fn packed_literals_make_what_they_announce_and_no_more() {
    let bomb: Bytes = pack(&vec![0; 10 << 20], 3).expect("zeros pack").into();
    assert!(bomb.len() < 2000);
    let packed = |bytes: &Bytes, raw_len: usize| {
        let ops: Ops = [literal(raw_len as u64)].into_iter().collect();
        let literals = Literals::Packed { bytes: bytes.clone(), raw_len };
        TransferMessage::Delta(Delta { last: true, ops, literals })
    };
    let damaged = "invalid message: Delta: packed literals are damaged or of another length than announced";
    for delta in
        [packed(&bomb, 12_000), packed(&Bytes::from_static(b"no frame"), 12_000), packed(&Bytes::new(), 12_000)]
    {
        let mut raw = patching();
        raw.say(1, delta);
        check_refused(&mut raw, CloseCode::Invalid, damaged);
    }
    let limit = Limits::default().piece;
    for raw_len in [limit + 1, 1 << 32, 1 << 63] {
        let mut raw = patching();
        raw.say(1, packed(&bomb, raw_len));
        let text = format!("invalid message: literal bytes in a piece of {raw_len} is over the limit of {limit}");
        check_refused(&mut raw, CloseCode::Limit, &text);
    }
}

#[test]
fn content_that_is_not_the_announced_one_is_never_published() {
    let mut raw = server();
    raw.say(1, offer(&target(), Content::Whole)).say(1, whole(&[b'x'; 12_000]));
    assert_eq!(raw.messages().last(), Some(&Message::Transfer(TransferId::new(1), TransferMessage::Repair)));
    raw.say(1, whole(&[b'y'; 12_000]));
    assert!(matches!(raw.ended(1), Some(Err(TransferError::Integrity { .. }))), "{:?}", raw.ended(1));
    let refusals = raw.messages();
    assert!(
        matches!(
            &refusals[..],
            [Message::Transfer(_, TransferMessage::Refused(Refusal { code: RefusalCode::Integrity, .. }))]
        ),
        "{refusals:?}"
    );
    check_healthy(&mut raw);
}

#[test]
fn a_client_that_pulls_trusts_no_server_either() {
    let mut raw = client().command(1, pull(file(), file()));
    raw.take();
    raw.say(1, served(&target(), in_tags(&target()))).say(1, TransferMessage::Tags(tags_of(&target())));
    raw.say(1, raw_delta(true, &[copy(8192, 4096)], b""));
    raw.frames();
    let error = raw.finished().cloned().expect("ended").expect_err("badly");
    assert_eq!(
        error.to_string(),
        "invalid message: copy of 4096 bytes at offset 8192 runs past the basis (10000 bytes)"
    );
    assert_eq!(raw.content("file"), Some(basis().into()));
}

// ---- wants ----

#[test]
fn a_want_that_does_not_cover_the_offer_is_refused() {
    let chunks = list_of(&basis()).chunk_count();
    for (runs, got) in [
        (vec![run(chunks - 1, 0, 0)], chunks - 1),
        (vec![run(chunks, 1, 0)], chunks + 1),
        (vec![run(u64::MAX, u64::MAX, 0)], u64::MAX),
        (vec![run(u64::MAX, 0, 0), run(chunks + 1, 0, 0)], u64::MAX),
        (vec![run(1, 0, 0); chunks as usize + 1], chunks + 1),
    ] {
        let mut raw = server();
        raw.say(1, pulls(Some(Digest::default()))).take();
        raw.say(1, want(10_000, &runs));
        let text = format!("peer misbehaved: want covers {got} of {chunks} offered chunks");
        check_refused(&mut raw, CloseCode::Misbehaved, &text);
    }
}

#[test]
fn a_want_from_anywhere_costs_only_the_receiver() {
    // Copies that a liar asked for are the liar's loss: those past the basis it announced are sent instead.
    let chunks = list_of(&basis()).chunk_count();
    for (basis, from) in [(u64::MAX, u64::MAX), (u64::MAX, 0), (0, 0), (5, u64::MAX - 3)] {
        let mut raw = server();
        raw.say(1, pulls(Some(Digest::default()))).take();
        raw.say(1, want(basis, &[run(0, chunks, from)]));
        check_healthy(&mut raw);
    }
}

#[test]
fn damaged_wants_are_refused() {
    for (payload, cause) in [
        (&[][..], "bytes end within a value"),
        (&[2, 0], "unknown flags of a want"),
        (&[1, 0, 0, 0], "a run of no chunks"),
        (&[1, 0, 0, 5], "bytes end within a value"),
    ] {
        let mut raw = server();
        raw.say(1, pulls(Some(Digest::default()))).take();
        raw.frame(MessageKind::Want.code(), 1, payload);
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: Want: {cause}"));
    }
}

// ---- credit and floods ----

#[test]
fn credit_beyond_counting_is_just_much() {
    let mut raw = server().hold(|due| named(due, "Describe"));
    raw.say(1, pulls(None));
    raw.say(1, TransferMessage::Credit(u64::MAX)).say(1, TransferMessage::Credit(u64::MAX));
    raw.release();
    let sent = raw.messages();
    assert!(sent.iter().any(|message| matches!(message, Message::Transfer(_, TransferMessage::Delta(_)))));
    check_healthy(&mut raw);
}

#[test]
fn bulk_beyond_the_credit_is_refused() {
    let piece = |len: usize| raw_delta(false, &[literal(len as u64)], &vec![1; len]);
    let mut raw = server().hold(|due| named(due, "Basis"));
    raw.say(1, offer(&[0; 4 << 20], Content::Whole));
    // Flags, one pair, a literal length of three bytes and no copy, the literals, and 64 for the frame.
    let cost = 1 + 1 + 3 + 1 + (255 << 10) + 64;
    for _ in 0..4 {
        raw.say(1, piece(255 << 10));
        assert!(raw.finished().is_none());
    }
    let by = 5 * cost - (1 << 20);
    raw.say(1, piece(255 << 10));
    let text = format!("peer misbehaved: transfer 1 sent {by} bytes more than it had credit for");
    check_refused(&mut raw, CloseCode::Misbehaved, &text);
}

#[test]
fn a_million_empty_frames_run_into_the_credit_when_they_are_kept() {
    let mut raw = server().hold(|due| named(due, "Basis"));
    raw.say(1, offer(&target(), Content::Whole));
    let frame = Message::Transfer(TransferId::new(1), raw_delta(false, &[], b"")).encode();
    raw.feed(frame.head.repeat(1_000_000));
    let text = "peer misbehaved: transfer 1 sent 32 bytes more than it had credit for";
    check_refused(&mut raw, CloseCode::Misbehaved, text);
}

#[test]
fn a_million_empty_frames_are_worked_off_when_they_are_not() {
    let frame = Message::Transfer(TransferId::new(1), raw_delta(false, &[], b"")).encode();
    for content in [basis(), target()] {
        let mut raw = server();
        raw.say(1, offer(&content, Content::Whole));
        for _ in 0..100 {
            raw.feed(frame.head.repeat(10_000));
        }
        check_healthy(&mut raw);
    }
}

#[test]
fn pings_to_a_peer_that_reads_nothing_stop_being_taken() {
    let mut raw = server().without_writing();
    let pings = Message::Ping.encode().head.repeat(10_000);
    for _ in 0..1000 {
        if raw.wants_bytes() {
            raw.feed(pings.clone());
        }
    }
    assert!(!raw.wants_bytes());
    assert!(raw.unwritten() < 3 << 20, "{}", raw.unwritten());
    // Somebody who says nothing more is given up, room or not.
    raw.advance(Duration::from_secs(31));
    assert!(matches!(raw.finished(), Some(Err(SessionError::TimedOut { .. }))));
}

#[test]
fn more_transfers_than_a_server_runs_are_refused_and_the_others_go_on() {
    let mut raw = Raw::server(Config::default().transfers(3)).file("file", basis()).hold(|_| true);
    raw.greet();
    for id in 1..=4 {
        raw.say(id, pulls(None));
    }
    let text = "3 transfers run on this connection already".to_owned();
    let refusal = Refusal { code: RefusalCode::Busy, message: text, current: None };
    let busy = Message::Transfer(TransferId::new(4), TransferMessage::Refused(refusal));
    assert_eq!(raw.messages(), [busy]);
    check_healthy(&mut raw);
    raw.release();
    check_healthy(&mut raw);
}

// ---- anything at all ----

#[derive(Clone, Debug)]
enum Step {
    Send(Message),
    Wait(Duration),
    Release,
}

fn any_path() -> impl Strategy<Value = RelPath> {
    prop::sample::select(vec!["", "new", "dir", "dir/new", "file/below"])
        .prop_map(|path| RelPath::new(path.as_bytes()).expect("a plain path"))
}

fn any_root() -> impl Strategy<Value = Digest> {
    let known = [b"".to_vec(), b"abc".to_vec(), basis()].map(|bytes| Algorithm::Blake3.digest(&bytes));
    prop_oneof![prop::sample::select(known.to_vec()), any::<[u8; 32]>().prop_map(Digest::from_bytes)]
}

fn any_ops() -> impl Strategy<Value = Ops> {
    let op = prop_oneof![
        (1u64..5).prop_map(literal),
        (0u64..12_000, 1u64..5000).prop_map(|(from, len)| copy(from, len)),
        (any::<u64>(), 1u64..=u64::MAX).prop_map(|(from, len)| copy(from, len)),
    ];
    prop::collection::vec(op, 0..4).prop_map(|ops| ops.into_iter().collect())
}

fn any_delta() -> impl Strategy<Value = TransferMessage> {
    let fitting = (any::<bool>(), any_ops()).prop_map(|(last, ops)| {
        let literals = Literals::Raw(vec![b'a'; ops.literal_len().get() as usize].into());
        Delta { last, ops, literals }
    });
    let other = (any::<bool>(), any_ops(), prop::collection::vec(any::<u8>(), 0..100), any::<bool>(), 0usize..200);
    let other = other.prop_map(|(last, ops, bytes, packed, raw_len)| {
        let bytes = Bytes::from(bytes);
        let literals = if packed { Literals::Packed { bytes, raw_len } } else { Literals::Raw(bytes) };
        Delta { last, ops, literals }
    });
    prop_oneof![3 => fitting, 1 => other].prop_map(TransferMessage::Delta)
}

fn any_offer(pushed: bool) -> impl Strategy<Value = TransferMessage> {
    let content = prop_oneof![
        1 => Just(Content::Known),
        3 => Just(Content::Whole),
        3 => (0u32..8).prop_map(|runs| Content::Tags { runs }),
    ];
    let cutter = prop::sample::select(vec![Cutter::FIXED_4096, Cutter::MinCdc { average: 2048 }]);
    let algorithm = prop::sample::select(Algorithm::ALL.to_vec());
    (any_path(), any::<bool>(), 0u64..20_000, any_root(), algorithm, cutter, 0u8..3, content).prop_map(
        move |(path, directory, len, root, algorithm, cutter, changes, content)| {
            let to = pushed.then(|| Wish { path, name: Name::new(*b"new").expect("a plain name"), directory });
            TransferMessage::Offer(Offer { to, len: ByteLen::new(len), root, algorithm, cutter, changes, content })
        },
    )
}

fn any_message(from_client: bool) -> impl Strategy<Value = TransferMessage> {
    let tag = (any::<[u8; 6]>(), 1u32..3).prop_map(|(tag, count)| TagRun { tag: Tag::from_bytes(tag), count });
    let run = (0u64..5, 1u64..5, 0u64..10_000).prop_map(|(missing, have, from)| run(missing, have, from));
    let runs = prop_oneof![Just(Vec::new()), prop::collection::vec(run, 0..4)];
    let algorithm = prop::sample::select(Algorithm::ALL.to_vec());
    let questions = prop_oneof![
        (any_path(), algorithm.clone(), prop::option::of(any_root()))
            .prop_map(|(path, algorithm, have)| TransferMessage::Pull(Pull { path, algorithm, have })),
        Just(pulls(None)),
        Just(pulls(Some(Digest::default()))),
        any_path().prop_map(|path| TransferMessage::List(List { path, after: None })),
        (any_path(), algorithm).prop_map(|(path, algorithm)| TransferMessage::AskRoot(AskRoot { path, algorithm })),
    ];
    let plain = prop::sample::select(vec![
        TransferMessage::Same,
        TransferMessage::Repair,
        TransferMessage::Changed,
        TransferMessage::Cancel,
        TransferMessage::Working,
        TransferMessage::Done(Generation::new(1)),
        TransferMessage::Refused(refusal("no")),
        TransferMessage::Listing(Listing { entries: Vec::new(), more: true }),
        TransferMessage::RootIs(RootIs { len: ByteLen::ZERO, root: Digest::default() }),
    ]);
    prop_oneof![
        4 => any_offer(from_client),
        4 => prop::collection::vec(tag, 0..8).prop_map(TransferMessage::Tags),
        3 => (any::<bool>(), any::<u16>(), runs)
            .prop_map(|(last, basis, runs)| TransferMessage::Want(Want { last, basis: basis.into(), runs })),
        6 => any_delta(),
        2 => any::<u64>().prop_map(TransferMessage::Credit),
        4 => questions,
        3 => plain,
    ]
}

/// Transfers as an honest peer carries them out, but for what one of them needs to know of the other's answers.
fn scripts(from_client: bool) -> Vec<Vec<TransferMessage>> {
    let target = target();
    let list = list_of(&target);
    let tags = |id: u32| TransferMessage::Tags(tag_runs(&list, &TagKey::new(&NONCE, id)));
    let wish = Wish { path: RelPath::new(*b"old").expect("a plain name"), name: name(), directory: false };
    let offer =
        |content| TransferMessage::Offer(Offer { to: from_client.then(|| wish.clone()), ..offer_of(&target, content) });
    let again = Offer { to: from_client.then(|| wish.clone()), changes: 1, ..offer_of(&target, Content::Whole) };
    let chunks = list_of(&basis()).chunk_count();
    let done = TransferMessage::Done(Generation::new(5));
    let mut scripts = vec![
        vec![offer(Content::Whole), whole(&target)],
        vec![offer(Content::Whole), raw_delta(false, &[], b""), whole(&target), whole(&target)],
        vec![offer(Content::Whole), whole(&[1; 12_000]), whole(&target)],
        vec![offer(in_tags(&target)), tags(1), raw_delta(true, &[copy(0, 5000), literal(7000)], &target[5000..])],
        vec![offer(in_tags(&target)), tags(1), TransferMessage::Changed, TransferMessage::Offer(again), whole(&target)],
    ];
    let answers = [
        vec![want(10_000, &[run(1, chunks - 1, 3)]), done.clone()],
        vec![want(0, &[]), TransferMessage::Repair, TransferMessage::Credit(1 << 20), done.clone()],
        vec![TransferMessage::Same],
        vec![done],
    ];
    if from_client {
        let asks = [pulls(Some(Digest::default())), pulls(None)];
        let asked = asks.iter().flat_map(|ask| answers.iter().map(|answer| [&[ask.clone()][..], answer].concat()));
        scripts.extend(asked);
    } else {
        scripts.extend(answers);
    }
    scripts
}

/// Three scripts in step with each other, and a few other messages in between.
fn any_scripted(from_client: bool) -> impl Strategy<Value = Vec<Step>> {
    let script = prop::sample::select(scripts(from_client));
    let order = prop::collection::vec(0usize..3, 0..20);
    let others = prop::collection::vec((any::<prop::sample::Index>(), any_step(from_client)), 0..3);
    (prop::collection::vec(script, 3), order, others).prop_map(|(scripts, order, others)| {
        let mut scripts: Vec<_> = scripts.into_iter().map(Vec::into_iter).collect();
        let next = order.into_iter().filter_map(|index| {
            let message = scripts[index].next()?;
            Some(Step::Send(Message::Transfer(TransferId::new(index as u32 + 1), message)))
        });
        let mut steps: Vec<_> = next.collect();
        for (index, step) in others {
            steps.insert(index.index(steps.len() + 1), step);
        }
        steps
    })
}

fn any_step(from_client: bool) -> impl Strategy<Value = Step> {
    let message =
        (1u32..4, any_message(from_client)).prop_map(|(id, message)| Message::Transfer(TransferId::new(id), message));
    prop_oneof![
        20 => message.prop_map(Step::Send),
        1 => prop::sample::select(vec![Message::Ping, Message::Pong]).prop_map(Step::Send),
        1 => (0u64..12).prop_map(|seconds| Step::Wait(Duration::from_secs(seconds))),
        1 => Just(Step::Release),
    ]
}

fn any_steps(from_client: bool) -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![prop::collection::vec(any_step(from_client), 0..60), any_scripted(from_client),]
}

/// Whatever comes, the session goes on or ends with a reason that the peer is told; it holds little and changes nothing.
#[track_caller]
fn check_any_order(mut raw: Raw, steps: Vec<Step>) {
    raw.take();
    for step in steps {
        match step {
            Step::Send(message) if raw.wants_bytes() => raw.send(&message),
            Step::Send(_) => &mut raw,
            Step::Wait(time) => raw.advance(time),
            Step::Release => raw.release(),
        };
        assert!(raw.unwritten() < 4 << 20, "{} bytes wait to leave", raw.unwritten());
        assert!(raw.due().count() < 64, "{} requests", raw.due().count());
        assert_eq!(raw.content("file"), Some(basis().into()));
        if let Some(result) = raw.finished().cloned() {
            let error = result.expect_err("nobody has told it to end");
            assert_eq!(raw.closing().map(|(code, _)| code), error.close_code());
            return;
        }
    }
    raw.close();
    let result = raw.finished().expect("the stream has ended").clone();
    assert!(matches!(result, Ok(_) | Err(SessionError::ConnectionLost { .. })), "{result:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_server_takes_any_messages_in_any_order(
        steps in any_steps(true), hold in prop::sample::select(vec!["", "Basis", "Describe", "Job", "Apply", "Seal"]),
        writes: bool,
    ) {
        let raw = server().file("old", basis()).hold(match hold {
            "Basis" => |due| named(due, "Basis"),
            "Describe" => |due| named(due, "Describe"),
            "Job" => |due| named(due, "Job"),
            "Apply" => |due| named(due, "Apply"),
            "Seal" => |due| named(due, "Seal"),
            _ => |_| false,
        });
        check_any_order(if writes { raw } else { raw.without_writing() }, steps);
    }

    #[test]
    fn a_client_takes_any_messages_in_any_order(steps in any_steps(false), writes: bool, shuffle in 0usize..3) {
        let new = RelPath::new(*b"new").expect("a plain name");
        let mut commands = [push(file(), file()), pull(file(), new), Command::List { path: RelPath::ROOT, after: None }];
        commands.rotate_left(shuffle);
        let mut raw = client();
        if !writes {
            raw = raw.without_writing();
        }
        for (id, command) in (1..).zip(commands) {
            raw = raw.command(id, command);
        }
        check_any_order(raw, steps);
    }
}
