//! Offers for a basis that is not there, and what comes behind them.

use super::*;

fn delta_for(bytes: &[u8], follows: bool) -> Content {
    Content::Delta {
        basis: Algorithm::Blake3.digest(bytes),
        len: ByteLen::of(bytes),
        generation: Generation::ZERO,
        follows,
    }
}

fn says(message: TransferMessage) -> Message {
    Message::Transfer(TransferId::new(1), message)
}

#[test]
fn an_offer_of_what_is_not_there_is_stale_and_its_delta_passes_by() {
    let mut raw = server();
    raw.say(1, offer(&target(), delta_for(b"something else", true)));
    assert_eq!(raw.messages(), [says(TransferMessage::Stale)]);
    for _ in 0..100 {
        raw.say(1, raw_delta(false, &[copy(u64::MAX, 9), literal(50_000)], &[1; 50_000]));
    }
    raw.say(1, raw_delta(true, &[], b""));
    check_healthy(&mut raw);
    let again = Offer { attempt: 1, ..offer_of(&target(), in_set(&target())) };
    raw.say(1, TransferMessage::Offer(again)).say(1, tags_of(&target())).take();
    raw.say(1, raw_delta(true, &[copy(0, 5000), literal(7000)], &target()[5000..]));
    assert!(matches!(raw.ended(1), Some(Ok(_))), "{:?}", raw.ended(1));
    assert_eq!(raw.content("file"), Some(target().into()));
}

#[test]
fn an_offer_that_is_stale_again_and_again_is_only_looked_at() {
    let mut raw = server();
    for attempt in 0..200 {
        let content = if attempt % 2 == 0 { Content::Known } else { delta_for(b"something else", false) };
        raw.say(1, TransferMessage::Offer(Offer { attempt, ..offer_of(&target(), content) }));
        assert_eq!(raw.messages(), [says(TransferMessage::Stale)]);
    }
    check_healthy(&mut raw);
}

#[test]
fn a_basis_of_another_length_is_another_basis() {
    let mut raw = server();
    let content = Content::Delta {
        basis: Algorithm::Blake3.digest(&basis()),
        len: ByteLen::new(9_999),
        generation: Generation::ZERO,
        follows: false,
    };
    raw.say(1, offer(&target(), content));
    assert_eq!(raw.messages(), [says(TransferMessage::Stale)]);
}

#[test]
fn a_delta_waits_for_its_basis_to_be_found() {
    // Before the answer a delta that was announced to wait is none that may come.
    let mut raw = server().hold(|due| named(due, "Basis"));
    raw.say(1, offer(&target(), delta_for(&basis(), false))).say(1, raw_delta(false, &[copy(0, 1)], b""));
    check_refused(&mut raw, CloseCode::Misbehaved, "peer misbehaved: Delta came while opening the basis (transfer 1)");
    let mut raw = server();
    raw.say(1, offer(&target(), delta_for(&basis(), false)));
    assert_eq!(raw.messages(), [says(TransferMessage::Current)]);
    raw.say(1, raw_delta(true, &[copy(5001, 5000)], b""));
    let text = "invalid message: copy of 5000 bytes at offset 5001 runs past the basis (10000 bytes)";
    check_refused(&mut raw, CloseCode::Invalid, text);
}

#[test]
fn the_neighbours_of_gaps_that_were_never_told_are_none() {
    let mut raw = server();
    raw.say(1, offer(&target(), delta_for(&basis(), true)));
    let mut packer = LiteralPacker::new(&[], ByteLen::new(7000), 3).expect("this build packs");
    let bytes = packer.push(&target()[5000..], true).expect("packs").into();
    let literals = Literals::Packed { prefix: Prefix::Neighbours, bytes, raw_len: 7000 };
    let ops = [copy(0, 5000), literal(7000)].into_iter().collect();
    raw.say(1, TransferMessage::Delta(Delta { last: true, ops, literals })).say(1, replace_basis());
    assert!(matches!(raw.messages()[..], [_, Message::Transfer(_, TransferMessage::Done(_))]));
}

#[test]
fn a_basis_over_the_limit_is_refused() {
    let longest = Limits::default().file.get();
    for len in [longest + 1, u64::MAX] {
        let mut raw = server();
        let content = Content::Delta {
            basis: Digest::default(),
            len: ByteLen::new(len),
            generation: Generation::ZERO,
            follows: false,
        };
        raw.say(1, offer(&target(), content));
        let text = format!("invalid message: file length of {len} is over the limit of {longest}");
        check_refused(&mut raw, CloseCode::Limit, &text);
    }
}

#[test]
fn a_server_that_calls_any_basis_current_or_stale_when_it_was_not_asked_is_refused() {
    for message in [TransferMessage::Current, TransferMessage::Stale] {
        let kind = message.kind();
        let mut raw = client().command(1, push(file(), file()));
        raw.take();
        raw.say(1, message);
        let text = format!("peer misbehaved: {kind:?} came while waiting for the receiver's answer (transfer 1)");
        check_refused(&mut raw, CloseCode::Misbehaved, &text);
    }
}
