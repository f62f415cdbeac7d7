//! Lengths and counts at their limits and past them.

use super::*;

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
    raw.say(1, offer(&target(), Content::Set { elements: most + 1 }));
    let text = format!("invalid message: offered elements of {} is over the limit of {most}", most + 1);
    check_refused(&mut raw, CloseCode::Limit, &text);
    for hold in [(|due| named(due, "Basis")) as fn(&Due) -> bool, |_| false] {
        let mut raw = server().hold(hold);
        let elements = elements_of(&target()).len() as u32;
        raw.say(1, offer(&target(), Content::Set { elements: elements - 1 })).say(1, tags_of(&target())).release();
        let text = "invalid message: Tags: more of a set than was asked for";
        check_refused(&mut raw, CloseCode::Invalid, text);
    }
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
    let mut raw = client().command(1, pull(file(), file()));
    raw.take();
    raw.say(1, served(&target(), Content::Known));
    let text = "invalid message: Offer: an offer of a root that we do not have as one that we have";
    check_refused(&mut raw, CloseCode::Invalid, text);
    // An offer that a pull has asked for does not say where it goes.
    let mut raw = client().command(1, pull(file(), file()));
    raw.take();
    raw.say(1, offer(&target(), Content::Whole));
    let text = "invalid message: Offer: only a pushed target names where it goes";
    check_refused(&mut raw, CloseCode::Invalid, text);
}

#[test]
fn more_omitted_entries_or_longer_texts_than_are_told_are_refused() {
    let omitted = |text: usize| Omitted { path: RelPath::ROOT, why: Why::NotKept("x".repeat(text)) };
    let omits = |count, text| TransferMessage::Omits(Omits { entries: vec![omitted(text); count], more: 0 });
    // That nobody asked for a tree is found out behind that.
    let misbehaved = "peer misbehaved: Omits came while waiting for an offer (transfer 1)";
    for (message, code, text) in [
        (omits(1000, 9), CloseCode::Misbehaved, misbehaved),
        (omits(1001, 9), CloseCode::Limit, "invalid message: omitted entries of 1001 is over the limit of 1000"),
        (omits(1, 512), CloseCode::Misbehaved, misbehaved),
        (omits(1, 513), CloseCode::Limit, "invalid message: text of 513 is over the limit of 512"),
    ] {
        let mut raw = client().command(1, pull(file(), file()));
        raw.say(1, message);
        check_refused(&mut raw, code, text);
    }
}
