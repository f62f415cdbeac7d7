//! Parts of sets that do not continue, do not fit or were not asked for, and requests for more than there is.

use super::*;

/// A file whose set is no list.
fn long() -> Vec<u8> {
    Rng::new(5).bytes(600_000)
}

fn sketch_key() -> SketchKey {
    SketchKey::new(&NONCE, 1)
}

/// A server that has a set of `elements` offered, of which nothing has come yet.
fn comparing(elements: u32) -> Raw {
    let mut raw = server();
    raw.say(1, offer(&target(), Content::Set { elements }));
    raw
}

/// A server that was sent the first cells of the set of [`long`] and asks for its list.
fn asking() -> Raw {
    let mut raw = server();
    let elements = elements_of(&long());
    raw.say(1, offer(&long(), in_set(&long())));
    raw.say(1, TransferMessage::Cells(cells(sketch_key(), &elements, 0..32)));
    let more = TransferMessage::More(More::Tags(elements.len() as u32));
    assert_eq!(raw.messages(), [Message::Transfer(TransferId::new(1), more)]);
    raw
}

#[test]
fn damaged_parts_are_refused() {
    for (kind, payload, cause) in [
        (MessageKind::Tags, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1][..], "a number passes 32 bits"),
        (MessageKind::Tags, &[0, 0xff, 0xff, 0xff, 0xff, 0x1f], "a number passes 32 bits"),
        (MessageKind::Tags, &[1, 0xff, 0xff, 0xff, 0xff, 0x0f], "positions pass 32 bits"),
        (MessageKind::Tags, &[0, 0xff, 0xff, 0xff, 0xff, 0x0f], "more of a set than was asked for"),
        (MessageKind::Tags, &[], "bytes end within a value"),
        (MessageKind::Tags, &[0, 3], "more of a set than was asked for"),
        (MessageKind::Tags, &[0, 2], "bytes end within a value"),
        (MessageKind::Tags, &[1, 1, 0, 0, 0, 0, 0, 0], "a part that does not continue the set"),
        (MessageKind::Tags, &[0, 0, 1], "1 bytes left over after the last value"),
        (MessageKind::Cells, &[0xff, 0xff, 0xff, 0xff, 0x0f, 1], "positions pass 32 bits"),
        (MessageKind::Cells, &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "a part that does not continue the set"),
        (MessageKind::Cells, &[0, 0, 1], "1 bytes left over after the last value"),
    ] {
        let mut raw = comparing(2);
        raw.frame(kind.code(), 1, payload);
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: {kind:?}: {cause}"));
    }
}

#[test]
fn tags_past_48_bits_are_refused() {
    let mut raw = comparing(2);
    raw.say(1, TransferMessage::Tags(part(0, 1, &[0xff; 16])));
    check_refused(&mut raw, CloseCode::Invalid, "invalid message: Tags: a tag of more than 48 bits");
}

#[test]
fn cells_that_cannot_be_are_refused() {
    let cell = |count: u8| [&[0; 9][..], &[count]].concat();
    // The first cell holds the whole set: nothing more than is expected.
    for bytes in [cell(2), cell(1)] {
        let mut raw = comparing(2);
        raw.say(1, TransferMessage::Cells(part(0, 1, &bytes)));
        let text = "invalid message: cells are damaged: a cell holds a number of elements that it cannot";
        check_refused(&mut raw, CloseCode::Invalid, text);
    }
    let mut raw = comparing(2);
    raw.say(1, TransferMessage::Cells(part(0, 2, &cell(0))));
    let text = "invalid message: cells are damaged: bytes end within a value";
    check_refused(&mut raw, CloseCode::Invalid, text);
    for count in [Sketch::CELLS_MAX as u32 + 1, u32::MAX] {
        let mut raw = comparing(2);
        raw.say(1, TransferMessage::Cells(part(0, count, &[])));
        let text = format!("invalid message: cells of a sketch of {count} is over the limit of {}", Sketch::CELLS_MAX);
        check_refused(&mut raw, CloseCode::Limit, &text);
    }
    // So many may be, and so they are only missing.
    let mut raw = comparing(2);
    raw.say(1, TransferMessage::Cells(part(0, Sketch::CELLS_MAX as u32, &[])));
    check_refused(&mut raw, CloseCode::Invalid, "invalid message: cells are damaged: bytes end within a value");
}

#[test]
fn a_sketch_that_is_none_leads_to_a_list_or_to_everything() {
    for bytes in [[&[0; 9][..], &[0]].concat(), [&[7; 9][..], &[0]].concat()] {
        for elements in [1, 2, 1000, 4 << 20] {
            let mut raw = comparing(elements);
            raw.say(1, TransferMessage::Cells(part(0, 1, &bytes)));
            assert!(raw.finished().is_none(), "{:?}", raw.finished());
            let answers = raw.messages();
            let [Message::Transfer(_, TransferMessage::More(_) | TransferMessage::Want(_))] = answers[..] else {
                panic!("{answers:?}");
            };
        }
    }
}

#[test]
fn parts_of_no_cells_and_no_tags_do_no_harm() {
    for elements in [1, 2, 1000] {
        let mut raw = comparing(elements);
        for _ in 0..1000 {
            raw.say(1, TransferMessage::Tags(part(0, 0, b"")));
        }
        check_healthy(&mut raw);
        let mut raw = comparing(elements);
        raw.say(1, TransferMessage::Cells(part(0, 0, b"")));
        check_healthy(&mut raw);
    }
}

#[test]
fn an_empty_set_is_answered_at_once() {
    let mut raw = comparing(0);
    let answers = raw.messages();
    assert!(matches!(answers[..], [Message::Transfer(_, TransferMessage::Want(Want::All))]), "{answers:?}");
}

#[test]
fn what_was_not_asked_for_is_refused() {
    let elements = elements_of(&long());
    let count = elements.len();
    let mut raw = asking();
    raw.say(1, TransferMessage::Cells(cells(sketch_key(), &elements, 32..64)));
    let text = "invalid message: Cells: other parts of a set than were asked for";
    check_refused(&mut raw, CloseCode::Invalid, text);
    let mut raw = asking();
    raw.say(1, TransferMessage::Tags(tags(&elements, 1..count)));
    check_refused(&mut raw, CloseCode::Invalid, "invalid message: Tags: a part that does not continue the set");
    let mut raw = asking();
    raw.say(1, TransferMessage::Tags(tags(&elements, 0..100)));
    raw.say(1, TransferMessage::Tags(tags(&elements, 0..100)));
    check_refused(&mut raw, CloseCode::Invalid, "invalid message: Tags: a part that does not continue the set");
    // While it compares nothing is asked for.
    let mut raw = asking().hold(|due| named(due, "Job"));
    raw.say(1, TransferMessage::Tags(tags(&elements, 0..count)));
    raw.say(1, TransferMessage::Tags(part(0, 0, b"")));
    check_refused(&mut raw, CloseCode::Invalid, "invalid message: Tags: more of a set than was asked for");
    // What was asked for may come in parts.
    let mut raw = asking();
    raw.say(1, TransferMessage::Tags(tags(&elements, 0..100)));
    raw.say(1, TransferMessage::Tags(tags(&elements, 100..count)));
    assert!(matches!(raw.messages()[..], [Message::Transfer(_, TransferMessage::Want(_))]));
    check_healthy(&mut raw);
}

#[test]
fn a_receiver_that_asks_for_more_than_there_is_or_for_the_same_again_is_refused() {
    let count = elements_of(&basis()).len() as u32;
    let text = "peer misbehaved: more of a set was asked for than it has, or no more than was sent";
    for more in [
        More::Tags(0),
        More::Tags(count),
        More::Tags(count + 1),
        More::Tags(u32::MAX),
        More::Cells(0),
        More::Cells(Sketch::CELLS_MAX as u32 + 1),
        More::Cells(u32::MAX),
        More::Edges(1),
    ] {
        let mut raw = offering();
        raw.say(1, TransferMessage::More(more));
        check_refused(&mut raw, CloseCode::Misbehaved, text);
    }
    let mut raw = offering();
    raw.say(1, TransferMessage::More(More::Cells(32)));
    assert!(matches!(raw.messages()[..], [Message::Transfer(_, TransferMessage::Cells(SetPart { count: 32, .. }))]));
    raw.say(1, TransferMessage::More(More::Cells(32)));
    check_refused(&mut raw, CloseCode::Misbehaved, text);
    // Before what was asked for has been made.
    let mut raw = offering().hold(|due| named(due, "Job"));
    raw.say(1, TransferMessage::More(More::Cells(32))).say(1, TransferMessage::More(More::Cells(33)));
    check_refused(&mut raw, CloseCode::Misbehaved, text);
    // All there are: no more leave than there is credit for.
    let mut raw = offering();
    raw.say(1, TransferMessage::More(More::Cells(Sketch::CELLS_MAX as u32)));
    assert!(raw.take().len() < 1 << 20);
    check_healthy(&mut raw);
}

#[test]
fn damaged_requests_for_more_are_refused() {
    let lacking = "a name that is not allowed or a code that this version lacks";
    for (payload, cause) in [
        (&[3, 1][..], lacking),
        (&[0, 0xff, 0xff, 0xff, 0xff, 0x1f], "not the fields of this message"),
        (&[0], "bytes end within a value"),
        (&[0, 1, 1], "1 bytes left over after the last value"),
    ] {
        let mut raw = offering();
        raw.frame(MessageKind::More.code(), 1, payload);
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: More: {cause}"));
    }
}

/// A server that has told of its basis and waits for edges or the delta.
fn surveyed() -> Raw {
    let mut raw = server();
    raw.say(1, offer(&target(), in_set(&target()))).say(1, tags_of(&target())).take();
    raw
}

fn edges(elements: u32, cells: SetPart) -> TransferMessage {
    TransferMessage::Edges(Edges { elements, cells })
}

#[test]
fn edges_that_do_not_fit_are_refused() {
    let elements = elements_of(&target());
    let count = elements.len() as u32;
    let key = SketchKey::of_edges(&NONCE, 1);
    for (cells, text) in [
        (part(1, 1, &[0; 10]), "Edges: a part that does not continue the set"),
        (part(0, 1, b""), "cells are damaged: bytes end within a value"),
        (part(0, 0, b"x"), "Edges: 1 bytes left over after the last value"),
    ] {
        let mut raw = surveyed();
        raw.say(1, edges(count, cells));
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: {text}"));
    }
    let mut raw = surveyed();
    raw.say(1, edges(u32::MAX, part(0, 0, b"")));
    let most = Limits::default().chunks;
    let text = format!("invalid message: elements of a sketch of {} is over the limit of {most}", u32::MAX);
    check_refused(&mut raw, CloseCode::Limit, &text);
    // An order is told once.
    let mut raw = surveyed();
    raw.say(1, edges(count, cells(key, &elements, 0..32)));
    let answers = raw.messages();
    assert!(matches!(answers[..], [Message::Transfer(_, TransferMessage::Order(_))]), "{answers:?}");
    raw.say(1, edges(count, cells(key, &elements, 0..32)));
    check_refused(&mut raw, CloseCode::Misbehaved, "peer misbehaved: Edges came while patching (transfer 1)");
    // And not once the delta has begun.
    let mut raw = surveyed();
    raw.say(1, raw_delta(false, &[copy(0, 1)], b"")).say(1, edges(count, cells(key, &elements, 0..32)));
    check_refused(&mut raw, CloseCode::Misbehaved, "peer misbehaved: Edges came while patching (transfer 1)");
}

#[test]
fn edges_of_no_cells_or_of_no_meaning_are_answered() {
    for (elements, cells) in
        [(0, part(0, 0, b"")), (2, part(0, 0, b"")), (2, part(0, 1, &[0; 10])), (1000, part(0, 1, &[0; 10]))]
    {
        let mut raw = surveyed();
        raw.say(1, edges(elements, cells));
        assert!(raw.finished().is_none(), "{:?}", raw.finished());
        let answers = raw.messages();
        let [Message::Transfer(_, TransferMessage::Order(_) | TransferMessage::More(More::Edges(_)))] = answers[..]
        else {
            panic!("{answers:?}");
        };
        check_healthy(&mut raw);
    }
}

#[test]
fn more_edges_than_there_are_cells_are_refused() {
    let text = "peer misbehaved: more of a set was asked for than it has, or no more than was sent";
    for end in [0, 32, Sketch::CELLS_MAX as u32 + 1] {
        let mut raw = offering();
        raw.say(1, surveys(&Survey { order: Tag::from_bytes([1; 6]), ..survey() }));
        assert!(matches!(raw.messages()[..], [Message::Transfer(_, TransferMessage::Edges(_))]));
        raw.say(1, TransferMessage::More(More::Edges(end)));
        check_refused(&mut raw, CloseCode::Misbehaved, text);
    }
}
