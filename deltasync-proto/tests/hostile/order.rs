//! Well-formed messages that must not come now.

use super::*;

/// One valid message of each kind, as the given end could send it.
pub(crate) fn sample(kind: MessageKind, from_client: bool) -> Message {
    let target = target();
    let message = match kind {
        MessageKind::Hello => return hello(VERSION, VERSION),
        MessageKind::Unsupported => {
            return Message::Unsupported(Unsupported { min: 1, max: VERSION, algorithms: 3 });
        }
        MessageKind::Close => return Message::Close(Close { code: CloseCode::Busy, message: "full".into() }),
        MessageKind::Ping => return Message::Ping,
        MessageKind::Pong => return Message::Pong,
        MessageKind::Seen => return seen(),
        MessageKind::Offer if from_client => offer(&target, in_set(&target)),
        MessageKind::Offer => served(&target, in_set(&target)),
        MessageKind::Tags => TransferMessage::Tags(tags(&elements_of(&target), 0..1)),
        MessageKind::Cells => TransferMessage::Cells(cells(SketchKey::new(&NONCE, 1), &elements_of(&target), 0..32)),
        MessageKind::More => TransferMessage::More(More::Cells(32)),
        MessageKind::Same => TransferMessage::Same(Generation::ZERO),
        MessageKind::Confirm => TransferMessage::Confirm(Confirm { current: None, since: true }),
        MessageKind::Replace => TransferMessage::Replace(None),
        MessageKind::Want => want_all(),
        MessageKind::Edges => {
            let elements = elements_of(&target);
            let cells = cells(SketchKey::of_edges(&NONCE, 1), &elements, 0..32);
            TransferMessage::Edges(Edges { elements: elements.len() as u32, cells })
        }
        MessageKind::Order => TransferMessage::Order(Order { breaks: vec![Break { left: None, right: Some(0) }] }),
        MessageKind::Current => TransferMessage::Current,
        MessageKind::Stale => TransferMessage::Stale,
        MessageKind::Delta => raw_delta(false, &[literal(3)], b"abc"),
        MessageKind::Done => TransferMessage::Done(Generation::new(1)),
        MessageKind::Repair => TransferMessage::Repair(Repair::ALL),
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
        MessageKind::MakeDirectory => TransferMessage::MakeDirectory(MakeDirectory { path: new() }),
        MessageKind::Rename => TransferMessage::Rename(Rename { from: new(), to: new() }),
        MessageKind::Remove => TransferMessage::Remove(Remove { path: new(), recursive: false }),
        MessageKind::Altered => TransferMessage::Altered,
        MessageKind::Complete => TransferMessage::Complete,
        MessageKind::Omits => TransferMessage::Omits(Omits::default()),
        other => panic!("no sample of {other:?}"),
    };
    Message::Transfer(TransferId::new(1), message)
}

/// A path where nothing is.
fn new() -> RelPath {
    RelPath::new(*b"new").expect("a plain name")
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
                let text = "no version or hash in common: peer speaks versions 1 to 3, we speak 3";
                check_refused(&mut raw, CloseCode::Unsupported, text);
            }
            MessageKind::Seen if raw.is_client() => {
                let text = "peer misbehaved: Seen came while not waiting for it (transfer 0)";
                check_refused(&mut raw, CloseCode::Misbehaved, text);
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

#[test]
fn a_server_takes_no_message_out_of_order_when_it_receives() {
    use MessageKind as K;
    let offered = |hold: fn(&Due) -> bool, content: Content| {
        let mut raw = server().hold(hold);
        raw.say(1, offer(&target(), content));
        raw
    };
    let tagged = |hold| {
        let mut raw = offered(hold, in_set(&target()));
        raw.say(1, tags_of(&target()));
        raw
    };
    let sent = |hold| {
        let mut raw = offered(hold, Content::Whole);
        raw.say(1, whole(&target()));
        raw
    };
    let set = &[K::Tags, K::Cells];
    check_state(|| offered(|due| named(due, "Basis"), in_set(&target())), "opening the basis", set);
    let early = &[K::Delta, K::Changed];
    check_state(|| offered(|due| named(due, "Basis"), Content::Whole), "opening the basis", early);
    let follows = |follows| Content::Delta {
        basis: list_of(&basis()).root(),
        len: ByteLen::new(10_000),
        generation: Generation::ZERO,
        follows,
    };
    check_state(|| offered(|due| named(due, "Basis"), follows(true)), "opening the basis", early);
    check_state(|| offered(|due| named(due, "Basis"), follows(false)), "opening the basis", &[]);
    check_state(|| offered(|due| named(due, "Basis"), Content::Known), "opening the basis", &[]);
    check_state(|| offered(|_| false, in_set(&target())), "comparing", set);
    // More than was asked for is damage, whatever it is.
    check_state(|| tagged(|due| named(due, "Job")), "comparing", set);
    check_state(|| tagged(|due| named(due, "Read")), "summing the old gaps", &[]);
    let patch = &[K::Delta, K::Tags, K::Cells, K::Changed];
    check_state(|| tagged(|_| false), "patching", &[K::Delta, K::Tags, K::Cells, K::Edges, K::Changed]);
    check_state(|| offered(|_| false, Content::Whole), "patching", patch);
    check_state(|| offered(|_| false, follows(true)), "patching", patch);
    check_state(|| offered(|_| false, follows(false)), "patching", patch);
    let stale = || offered(|_| false, Content::Known);
    check_state(stale, "waiting for an offer", &[K::Offer, K::Delta, K::Changed, K::Complete]);
    let twin = |hold| {
        let mut raw = server().file("twin", target()).hold(hold);
        raw.say(1, offer(&target(), in_set(&target())));
        raw
    };
    check_state(|| twin(|due| named(due, "Apply")), "patching", &[K::Tags, K::Cells, K::Changed]);
    check_state(|| twin(|due| named(due, "Seal")), "verifying", set);
    let asked = &[K::Tags, K::Cells, K::Replace];
    check_state(|| twin(|_| false), "committing", asked);
    let agreed = |mut raw: Raw| {
        raw.say(1, replace_basis());
        raw
    };
    check_state(|| agreed(twin(|due| named(due, "Commit"))), "committing", set);
    let known = || {
        let mut raw = server();
        raw.say(1, offer(&basis(), Content::Whole));
        raw
    };
    check_state(known, "letting known content pass", early);
    check_state(|| sent(|due| named(due, "Seal")), "verifying", &[]);
    check_state(|| sent(|_| false), "committing", asked);
    check_state(|| agreed(sent(|due| named(due, "Commit"))), "committing", set);
    let wrong = |hold| {
        let mut raw = offered(hold, Content::Whole);
        raw.say(1, whole(&[1; 12_000]));
        raw
    };
    check_state(|| wrong(|due| named(due, "Read")), "summing what was made", &[]);
    check_state(|| wrong(|_| false), "patching", patch);
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
    check_state(|| asked(|due| named(due, "Job"), pulls(other())), "describing the source", &[]);
    let answers = &[K::Same, K::Want, K::Done, K::More];
    check_state(|| asked(|_| false, pulls(other())), "waiting for the receiver's answer", answers);
    let same = Some((list_of(&basis()).root(), ByteLen::new(10_000)));
    let looked = &[K::Same, K::Done, K::Stale];
    check_state(|| asked(|_| false, pulls(same)), "waiting for the receiver to look at its basis", looked);
    let surveyed = |hold: fn(&Due) -> bool, survey: Survey| {
        let mut raw = offering().hold(hold);
        raw.say(1, surveys(&survey));
        raw
    };
    check_state(|| surveyed(|due| named(due, "Job"), survey()), "searching the gaps", &[]);
    let moved = || Survey { order: Tag::from_bytes([1; 6]), ..survey() };
    let ordered = &[K::Want, K::Order];
    check_state(|| surveyed(|_| false, moved()), "waiting for the order of the basis", ordered);
    check_state(|| asked(|due| named(due, "Read"), pulls(None)), "sending the delta", &[]);
    let finish = &[K::Done, K::Same, K::Repair];
    check_state(|| asked(|_| false, pulls(None)), "waiting for the receiver to finish", finish);
    let mending = || {
        let mut raw = asked(|_| false, pulls(None)).hold(|due| named(due, "Describe"));
        raw.say(1, TransferMessage::Repair(Repair::ALL));
        raw
    };
    check_state(mending, "comparing what was made", &[]);
    let list = || TransferMessage::List(List { path: RelPath::ROOT, after: None });
    check_state(|| asked(|due| named(due, "List"), list()), "answering a request", &[]);
    let root = || TransferMessage::AskRoot(AskRoot { path: file(), algorithm: Algorithm::Blake3 });
    check_state(|| asked(|due| named(due, "Describe"), root()), "answering a request", &[]);
    let make = || TransferMessage::MakeDirectory(MakeDirectory { path: new() });
    check_state(|| asked(|due| named(due, "MakeDirectory"), make()), "answering a request", &[]);
    let rename = || TransferMessage::Rename(Rename { from: file(), to: new() });
    check_state(|| asked(|due| named(due, "Rename"), rename()), "answering a request", &[]);
    let remove = || TransferMessage::Remove(Remove { path: file(), recursive: false });
    check_state(|| asked(|due| named(due, "Remove"), remove()), "answering a request", &[]);
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
    let answers = &[K::Same, K::Want, K::Done, K::More, K::Confirm];
    check_state(|| pushes(|_| false), "waiting for the receiver's answer", answers);
    let wanted = || {
        let mut raw = pushes(|due| named(due, "Read"));
        raw.say(1, want_all());
        raw
    };
    check_state(wanted, "sending the delta", &[]);
    let tiny = || told(|_| false, push(other(), other()));
    check_state(tiny, "waiting for the receiver to finish", &[K::Done, K::Same, K::Repair, K::Confirm]);
    check_state(|| pulls(|due| named(due, "Basis")), "looking at the basis", &[]);
    check_state(|| pulls(|_| false), "waiting for an offer", &[K::Offer]);
    let collecting = || {
        let mut raw = pulls(|_| false);
        raw.say(1, served(&target(), in_set(&target())));
        raw
    };
    check_state(collecting, "comparing", &[K::Tags, K::Cells]);
    let patching = || {
        let mut raw = collecting();
        raw.say(1, tags_of(&target()));
        raw
    };
    check_state(patching, "patching", &[K::Delta, K::Tags, K::Cells, K::Edges, K::Changed]);
    let asks = || told(|_| false, Command::List { path: RelPath::ROOT, after: None });
    check_state(asks, "waiting for an answer", &[K::Listing]);
    check_state(|| told(|_| false, Command::Root { path: file() }), "waiting for an answer", &[K::RootIs]);
    for command in [
        Command::MakeDirectory { path: new() },
        Command::Rename { from: file(), to: new() },
        Command::Remove { path: file(), recursive: false },
    ] {
        check_state(|| told(|_| false, command.clone()), "waiting for an answer", &[K::Altered]);
    }
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
                MessageKind::Offer
                    | MessageKind::Pull
                    | MessageKind::List
                    | MessageKind::AskRoot
                    | MessageKind::MakeDirectory
                    | MessageKind::Rename
                    | MessageKind::Remove if from_client
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
        raw.say(1, offer(&basis(), in_set(&basis())));
        assert!(matches!(raw.ended(1), Some(Ok(_))));
        raw.take();
        raw.send(&sample(kind, true));
        check_healthy(&mut raw);
    }
}

#[test]
fn an_offer_that_starts_over_what_was_never_begun_is_refused() {
    let mut raw = server();
    let again = Offer { attempt: 1, ..offer_of(&target(), Content::Whole) };
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
    for kind in [
        MessageKind::Current,
        MessageKind::Stale,
        MessageKind::Changed,
        MessageKind::Cancel,
        MessageKind::Working,
        MessageKind::Altered,
        MessageKind::Complete,
    ] {
        let mut raw = server();
        raw.frame(kind.code(), 1, b"x");
        let text = format!("invalid message: {kind:?}: 1 bytes left over after the last value");
        check_refused(&mut raw, CloseCode::Invalid, &text);
    }
    let mut raw = server();
    raw.frame(MessageKind::List.code(), 1, &[0, 0, 9]);
    check_refused(&mut raw, CloseCode::Invalid, "invalid message: List: 1 bytes left over after the last value");
}

/// A client that is about to ask for a tree, and where it has none.
fn about_to_pull_a_tree() -> (Raw, Place) {
    let place = Place { root: RootId::new(0), path: new() };
    let (options, condition) = (TreeOptions::default(), Condition::Any);
    let command = Command::PullTree { path: new(), place: place.clone(), options, condition };
    (client().hold(|due| named(due, "Basis")).command(1, command), place)
}

#[test]
fn what_a_tree_omits_is_told_to_whoever_asked_for_it_and_not_without_end() {
    let omitted = Omitted { path: new(), why: Why::Changed };
    let omits = Omits { entries: vec![omitted], more: 1 };
    let text = |state| format!("peer misbehaved: Omits came while {state} (transfer 1)");
    let (mut raw, _) = about_to_pull_a_tree();
    raw.say(1, TransferMessage::Omits(omits.clone()));
    check_refused(&mut raw, CloseCode::Misbehaved, &text("looking at the basis"));
    let (mut raw, place) = about_to_pull_a_tree();
    let asked = raw.due().find_map(Due::request).expect("it looks");
    raw.answer(asked, Ok(Answer::Basis { place, file: None, twin: None, partial: None }));
    for _ in 0..6 {
        raw.say(1, TransferMessage::Omits(omits.clone()));
        check_healthy(&mut raw);
    }
    let told = raw.events().iter().filter(|event| event.kind == EventKind::Omits(omits.clone()));
    assert_eq!(told.count(), 6);
    raw.say(1, TransferMessage::Omits(omits));
    check_refused(&mut raw, CloseCode::Misbehaved, &text("waiting for an offer"));
}
