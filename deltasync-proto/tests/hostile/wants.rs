//! Answers that do not fit the offer.

use super::*;

#[test]
fn a_survey_that_does_not_fit_the_offer_is_refused() {
    let elements = elements_of(&basis()).len() as u32;
    let honest = survey();
    let piece = |before, content| vec![OldPiece { before, content }];
    for (survey, text) in [
        (Survey { missing: vec![elements], ..honest.clone() }, "rank past the last element"),
        (Survey { missing: vec![0, u32::MAX - 1], ..honest.clone() }, "rank past the last element"),
        (Survey { missing: (0..=elements).collect(), ..honest.clone() }, "more elements are missing than there are"),
        (
            Survey { pieces: piece(elements + 1, OldContent::Bytes(ByteLen::new(1))), ..honest.clone() },
            "an old gap behind the last shared element",
        ),
        (Survey { pieces: piece(0, OldContent::Bytes(ByteLen::ZERO)), ..honest.clone() }, "a piece of no bytes"),
        (Survey { pieces: piece(0, OldContent::Summed(ByteLen::new(5))), ..honest.clone() }, "sums without a shape"),
        (
            Survey {
                pieces: piece(0, OldContent::Summed(ByteLen::new(5000))),
                shape: FineShape::new(32, 8).ok(),
                ..honest.clone()
            },
            "bytes end within a value",
        ),
    ] {
        let mut raw = offering();
        raw.say(1, surveys(&survey));
        check_refused(
            &mut raw,
            CloseCode::Invalid,
            &format!("invalid message: survey of the basis is damaged: {text}"),
        );
    }
}

/// The fields of a survey before its ranks: basis, order, no edges, missing, pieces, and with pieces the shape of the sums.
fn header(missing: u64, pieces: u64, block: u64, bits: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_varint(&mut bytes, 10_000);
    bytes.extend_from_slice(&[0; 7]);
    [missing, pieces, block].into_iter().for_each(|number| write_varint(&mut bytes, number));
    bytes.extend_from_slice(&[bits, 3]);
    bytes
}

#[test]
fn a_survey_with_numbers_that_it_cannot_hold_is_refused() {
    let most = Survey::pieces_max(elements_of(&basis()).len() as u64);
    let damaged = |cause: &str| (CloseCode::Invalid, format!("survey of the basis is damaged: {cause}"));
    let limit = |text: String| (CloseCode::Limit, text);
    for (bytes, (code, text)) in [
        (header(0, 1, 0, 8), limit("shortest fine block of 16 is over the limit of 0".into())),
        (header(0, 1, 15, 8), limit("shortest fine block of 16 is over the limit of 15".into())),
        (header(0, 1, (1 << 24) + 1, 8), limit("fine block of 16777217 is over the limit of 16777216".into())),
        (header(0, 1, 1 << 40, 8), limit("fine block of 4294967295 is over the limit of 16777216".into())),
        (header(0, 1, 32, 57), limit("bits of a fine sum of 56 is over the limit of 55".into())),
        (header(0, 1, 32, 0), damaged("blocks without sums")),
        (header(0, most, 32, 8), damaged("bytes end within a value")),
        (header(0, most + 1, 32, 8), limit(format!("pieces of old gaps of {} is over the limit of {most}", most + 1))),
        (header(0, u64::MAX, 32, 8), limit(format!("pieces of old gaps of {} is over the limit of {most}", u64::MAX))),
        (header(u64::MAX, 0, 0, 0), damaged("more elements are missing than there are")),
        (Vec::new(), damaged("bytes end within a value")),
    ] {
        let mut raw = offering();
        raw.say(1, TransferMessage::Want(Want::Survey { last: true, bytes: bytes.into() }));
        check_refused(&mut raw, code, &format!("invalid message: {text}"));
    }
}

#[test]
fn a_survey_without_end_is_refused_at_a_limit() {
    let limits = Limits::default().chunks(1000);
    let mut raw = Raw::server(Config::default().limits(limits)).file("file", basis());
    raw.greet();
    raw.say(1, pulls(other())).take();
    for _ in 0..2 {
        raw.say(1, TransferMessage::Want(Want::Survey { last: false, bytes: vec![0; 8000].into() }));
        assert!(raw.finished().is_none());
    }
    raw.say(1, TransferMessage::Want(Want::Survey { last: false, bytes: vec![0; 1].into() }));
    check_refused(&mut raw, CloseCode::Limit, "invalid message: bytes of a survey of 16001 is over the limit of 16000");
}

#[test]
fn a_false_survey_costs_only_the_receiver() {
    // What cannot be true of any basis is answered by the whole file.
    let run = OldContent::Run { tag: Tag::from_bytes([9; 6]), len: 1, count: u32::MAX };
    let summed = OldContent::Summed(ByteLen::new(40));
    let honest = survey();
    let pieces = |content| vec![OldPiece { before: 0, content }];
    let shape = FineShape::new(32, 8).ok();
    for survey in [
        Survey { basis: ByteLen::ZERO, ..honest.clone() },
        Survey { basis: Limits::default().file, ..honest.clone() },
        Survey { pieces: Vec::new(), ..honest.clone() },
        Survey { missing: vec![0], pieces: pieces(OldContent::Bytes(ByteLen::new(5))), ..honest.clone() },
        Survey { pieces: pieces(OldContent::Bytes(ByteLen::new(u64::MAX >> 1))), ..honest.clone() },
        Survey { pieces: vec![OldPiece { before: 0, content: run }; 100], ..honest.clone() },
        Survey { pieces: pieces(summed), shape, sums: vec![1, 2], ..honest.clone() },
    ] {
        let mut raw = offering();
        raw.say(1, surveys(&survey));
        let mut messages = raw.messages();
        if matches!(messages[..], [Message::Transfer(_, TransferMessage::Edges(_))]) {
            // Lacking a chunk makes another order: that is asked for first.
            raw.say(1, TransferMessage::Order(Order { breaks: Vec::new() }));
            messages = raw.messages();
        }
        assert_eq!(literal_bytes(&messages), 10_000, "{survey:?}");
        check_healthy(&mut raw);
    }
    // An honest one costs nothing.
    let mut raw = offering();
    raw.say(1, surveys(&honest));
    assert_eq!(literal_bytes(&raw.messages()), 0);
}

#[test]
fn damaged_wants_are_refused() {
    for (payload, cause) in [
        (&[][..], "bytes end within a value"),
        (&[2], "unknown flags of a want"),
        (&[4], "unknown flags of a want"),
        (&[3, 0], "unknown flags of a want"),
    ] {
        let mut raw = offering();
        raw.frame(MessageKind::Want.code(), 1, payload);
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: Want: {cause}"));
    }
}

/// A server that has been told of a basis with another order and has sent its edges.
fn ordering() -> Raw {
    let mut raw = offering();
    raw.say(1, surveys(&Survey { order: Tag::from_bytes([1; 6]), ..survey() }));
    assert!(matches!(raw.messages()[..], [Message::Transfer(_, TransferMessage::Edges(_))]));
    raw
}

#[test]
fn breaks_that_make_no_order_cost_only_the_receiver() {
    let elements = elements_of(&basis()).len() as u32;
    let breaks = |ends: &[(Option<u32>, Option<u32>)]| {
        TransferMessage::Order(Order { breaks: ends.iter().map(|&(left, right)| Break { left, right }).collect() })
    };
    for order in [
        breaks(&[(None, None)]),
        breaks(&[(Some(elements), None)]),
        breaks(&[(None, Some(u32::MAX))]),
        breaks(&[(Some(0), Some(0))]),
        breaks(&[(Some(0), Some(1)), (Some(1), Some(0))]),
        breaks(&vec![(Some(0), Some(0)); 10_000]),
    ] {
        let mut raw = ordering();
        raw.say(1, order.clone());
        assert_eq!(literal_bytes(&raw.messages()), 10_000, "{order:?} {:?}", raw.finished());
        check_healthy(&mut raw);
    }
    let mut raw = ordering();
    raw.say(1, want_all());
    assert_eq!(literal_bytes(&raw.messages()), 10_000);
    // No breaks: the hash of the order was false.
    let mut raw = ordering();
    raw.say(1, breaks(&[]));
    assert_eq!(literal_bytes(&raw.messages()), 0);
}

#[test]
fn an_order_of_more_breaks_than_there_may_be_is_refused() {
    let mut raw = ordering();
    raw.say(1, TransferMessage::Order(Order { breaks: vec![Break { left: None, right: None }; 100_001] }));
    let text = "invalid message: breaks of an order of 100001 is over the limit of 100000";
    check_refused(&mut raw, CloseCode::Limit, text);
}

#[test]
fn damaged_orders_are_refused() {
    for (payload, cause) in [
        (&[][..], "bytes end within a value"),
        (&[1], "bytes end within a value"),
        (&[1, 4], "bytes end within a value"),
        (&[1, 34, 0, 0, 0, 0, 0, 0, 0, 0, 0], "bytes end within a value"),
        (&[1, 33, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03], "a number passes 32 bits"),
        (&[1, 4, 0, 0], "1 bytes left over after the last value"),
    ] {
        let mut raw = ordering();
        raw.frame(MessageKind::Order.code(), 1, payload);
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: Order: {cause}"));
    }
}
