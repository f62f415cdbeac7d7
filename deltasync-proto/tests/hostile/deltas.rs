//! Deltas that fit neither their basis nor their announcement.

use super::*;

/// A server that has offered its basis of 10,000 bytes to a target of 12,000 and waits for the delta.
fn patching() -> Raw {
    let mut raw = server();
    raw.say(1, offer(&target(), in_set(&target()))).say(1, tags_of(&target()));
    let answers = raw.messages();
    let [Message::Transfer(_, TransferMessage::Want(Want::Survey { last: true, bytes }))] = &answers[..] else {
        panic!("{answers:?}");
    };
    let elements = elements_of(&target()).len() as u64;
    let survey = Survey::decode(bytes, elements, SketchKey::of_edges(&[0xc1; 16], 1), &Limits::default())
        .expect("a server's survey");
    assert_eq!(survey.basis.get(), 10_000);
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
        // More than is due is refused as it comes; what is due and does not come, at the end.
        (raw_delta(true, &[literal(3)], b"four"), "operations want 3 literal bytes, 4 came with them"),
        (raw_delta(true, &[literal(5)], b"four"), "operations want 1 literal bytes, 0 came with them"),
        (raw_delta(true, &[copy(0, 5000), literal(7000)], b""), "operations want 7000 literal bytes, 0 came with them"),
        (raw_delta(true, &[], b"four"), "operations want 0 literal bytes, 4 came with them"),
        (raw_delta(true, &[copy(0, 5)], b"x"), "operations want 0 literal bytes, 1 came with them"),
    ] {
        let mut raw = patching();
        raw.say(1, delta);
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: {text}"));
    }
}

/// Whoever says that nothing is to be changed cannot have it changed all the same.
#[test]
fn the_delta_of_a_dry_run_is_refused() {
    for (content, answers) in [(Content::Whole, 1), (in_set(&target()), 1)] {
        let TransferMessage::Offer(mut dry) = offer(&target(), content) else { unreachable!() };
        dry.to = dry.to.map(|wish| Wish { dry: true, ..wish });
        let mut raw = server();
        raw.say(1, TransferMessage::Offer(dry));
        if content != Content::Whole {
            raw.say(1, tags_of(&target()));
        }
        assert_eq!(raw.messages().len(), answers);
        raw.say(1, whole(&target()));
        check_refused(&mut raw, CloseCode::Misbehaved, "peer misbehaved: Delta came while patching (transfer 1)");
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
        let mut payload = vec![3];
        values.iter().for_each(|value| write_varint(&mut payload, *value));
        payload
    };
    for (payload, code, text) in [
        (columns(&[]), CloseCode::Invalid, "operations are damaged: bytes end within a value"),
        (
            columns(&[2, 0, 0]),
            CloseCode::Invalid,
            "operations are damaged: a pair without a copy is empty or not the last",
        ),
        // Two literals in a row whose sum passes 64 bits.
        (
            columns(&[4, u64::MAX, u64::MAX, 0, 0]),
            CloseCode::Invalid,
            "operations are damaged: a pair without a copy is empty or not the last",
        ),
        (
            columns(&[2, u64::MAX, u64::MAX, 0]),
            CloseCode::Invalid,
            "operations want 18446744073709551615 literal bytes, 0 came with them",
        ),
        (columns(&[2, 0, u64::MAX, 0]), CloseCode::Invalid, "delta makes more than the announced 12000 bytes"),
        (columns(&[0]), CloseCode::Invalid, "Delta: operations are announced and there are none"),
        // Packed: how many pairs, what they become, how long they are.
        (columns(&[3, 31, 0]), CloseCode::Limit, "bytes in the columns of operations of 31 is over the limit of 30"),
        (columns(&[3, 5, 100]), CloseCode::Invalid, "operations are damaged: bytes end within a value"),
        (
            columns(&[3, 5, 2, 0x7f, 0x7f]),
            CloseCode::Invalid,
            "a column of operations does not unpack: packed literals make 0 bytes, not the announced 5",
        ),
        (columns(&[1, 0, 0]), CloseCode::Invalid, "Delta: operations are announced and there are none"),
        (
            columns(&[1 << 63]),
            CloseCode::Limit,
            "operations in a piece of 9223372036854775808 is over the limit of 65536",
        ),
        (columns(&[65_538]), CloseCode::Limit, "operations in a piece of 65538 is over the limit of 65536"),
        (columns(&[65_536]), CloseCode::Invalid, "operations are damaged: bytes end within a value"),
        // A prefix of what is not packed, and one of a number that this version lacks.
        (vec![8], CloseCode::Invalid, "Delta: unknown flags of a delta"),
        (vec![4 | 4 << 3, 0], CloseCode::Invalid, "Delta: unknown flags of a delta"),
        (vec![], CloseCode::Invalid, "Delta: bytes end within a value"),
    ] {
        let mut raw = patching();
        raw.frame(MessageKind::Delta.code(), 1, &payload);
        check_refused(&mut raw, code, &format!("invalid message: {text}"));
    }
}

pub(crate) fn packed(prefix: Prefix, bytes: &Bytes, raw_len: usize) -> TransferMessage {
    let ops: Ops = [literal(raw_len as u64)].into_iter().collect();
    let literals = Literals::Packed { prefix, bytes: bytes.clone(), raw_len };
    TransferMessage::Delta(Delta { last: true, ops, literals })
}

/// Ten million zeros.
pub(crate) fn bomb() -> Bytes {
    let zeros = vec![0; 10 << 20];
    let mut packer = LiteralPacker::new(&[], ByteLen::of(&zeros), 3).expect("this build packs");
    packer.push(&zeros, true).expect("zeros pack").into()
}

#[test]
fn packed_literals_that_do_not_unpack_are_asked_for_again() {
    assert!(bomb().len() < 2000);
    for bytes in [bomb(), Bytes::from_static(b"no frame"), Bytes::new(), Bytes::from_static(&[0xff; 100])] {
        for prefix in [Prefix::None, Prefix::Neighbours, Prefix::Replaced, Prefix::Around] {
            let mut raw = patching();
            raw.say(1, packed(prefix, &bytes, 12_000));
            let repair = Message::Transfer(TransferId::new(1), TransferMessage::Repair(Repair::ALL));
            assert_eq!(raw.messages(), [repair], "nothing of it was made");
            assert_eq!(raw.content("file"), Some(basis().into()));
            raw.say(1, whole(&target()));
            assert!(matches!(raw.messages()[..], [Message::Transfer(_, TransferMessage::Done(_))]));
            assert_eq!(raw.content("file"), Some(target().into()));
        }
    }
}

#[test]
fn what_comes_behind_a_stream_that_does_not_unpack_passes_by() {
    let mut raw = patching();
    let ops: Ops = [copy(0, 5000), literal(7000)].into_iter().collect();
    let literals = Literals::Packed { prefix: Prefix::None, bytes: Bytes::from_static(b"damaged"), raw_len: 3000 };
    raw.say(1, TransferMessage::Delta(Delta { last: false, ops, literals }));
    assert_eq!(raw.messages(), [], "the sender still sends");
    for _ in 0..100 {
        raw.say(1, raw_delta(false, &[literal(70_000)], &[1; 70_000]));
    }
    raw.say(1, raw_delta(true, &[copy(u64::MAX, 7)], b""));
    let messages = raw.messages();
    let Some(Message::Transfer(_, TransferMessage::Repair(Repair { made: 5000, range: 4096, sums }))) = messages.last()
    else {
        panic!("{messages:?}");
    };
    assert_eq!(sums.len(), 2);
    check_healthy(&mut raw);
}

#[test]
fn a_sender_whose_repairs_do_not_unpack_either_is_refused() {
    let mut raw = patching();
    let junk = |ops: &[Op]| {
        let literals = Literals::Packed { prefix: Prefix::None, bytes: Bytes::from_static(b"junk"), raw_len: 7000 };
        TransferMessage::Delta(Delta { last: true, ops: ops.iter().copied().collect(), literals })
    };
    raw.say(1, junk(&[copy(0, 5000), literal(7000)]));
    let messages = raw.messages();
    assert!(matches!(messages.last(), Some(Message::Transfer(_, TransferMessage::Repair(Repair { made: 5000, .. })))));
    raw.say(1, junk(&[copy(0, 5000), literal(7000)]));
    assert_eq!(raw.messages(), [Message::Transfer(TransferId::new(1), TransferMessage::Repair(Repair::ALL))]);
    raw.say(1, junk(&[literal(7000)]));
    let text = "invalid message: Delta: literals of the last repair do not unpack";
    check_refused(&mut raw, CloseCode::Invalid, text);
}

#[test]
fn packed_literals_over_the_limit_are_refused_before_they_are_unpacked() {
    let limit = Limits::default().piece;
    for raw_len in [limit + 1, 1 << 32, 1 << 63] {
        let mut raw = patching();
        raw.say(1, packed(Prefix::None, &bomb(), raw_len));
        let text = format!("invalid message: literal bytes in a piece of {raw_len} is over the limit of {limit}");
        check_refused(&mut raw, CloseCode::Limit, &text);
    }
}

#[test]
fn a_prefix_where_there_is_no_basis_is_refused() {
    for prefix in [Prefix::Neighbours, Prefix::Replaced, Prefix::Around] {
        let mut raw = server();
        raw.say(1, offer(&target(), Content::Whole)).say(1, packed(prefix, &bomb(), 12_000));
        let text = "invalid message: Delta: literals packed behind a basis that is not there";
        check_refused(&mut raw, CloseCode::Invalid, text);
    }
}

#[test]
fn operations_without_their_literals_are_held_only_up_to_a_limit() {
    let mut raw = patching();
    let ops: Vec<Op> = (0..60_000).map(|i| if i % 2 == 0 { literal(1) } else { copy(i, 1) }).collect();
    for _ in 0..4 {
        raw.say(1, raw_delta(false, &ops, b""));
        assert!(raw.finished().is_none());
    }
    raw.say(1, raw_delta(false, &ops, b""));
    let text = "invalid message: operations that wait of 300000 is over the limit of 262144";
    check_refused(&mut raw, CloseCode::Limit, text);
}

#[test]
fn content_that_is_not_the_announced_one_is_never_published() {
    let mut raw = server();
    raw.say(1, offer(&target(), Content::Whole)).say(1, whole(&[b'x'; 12_000]));
    let messages = raw.messages();
    let Some(Message::Transfer(_, TransferMessage::Repair(Repair { made: 12_000, range: 4096, sums }))) =
        messages.last()
    else {
        panic!("{messages:?}");
    };
    assert_eq!(sums.len(), 3);
    raw.say(1, raw_delta(true, &[copy(0, 12_000)], b""));
    let all = Message::Transfer(TransferId::new(1), TransferMessage::Repair(Repair::ALL));
    assert_eq!(raw.messages(), [all]);
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
fn a_repair_copies_only_from_what_was_made() {
    let mut raw = server();
    raw.say(1, offer(&target(), Content::Whole)).say(1, whole(&[b'x'; 12_000]));
    raw.say(1, raw_delta(true, &[copy(11_999, 2)], b""));
    raw.take();
    let error = raw.finished().cloned().expect("ended").expect_err("badly");
    assert_eq!(error.to_string(), "invalid message: copy of 2 bytes at offset 11999 runs past the basis (12000 bytes)");
}

#[test]
fn a_client_that_pulls_trusts_no_server_either() {
    let mut raw = client().command(1, pull(file(), file()));
    raw.take();
    raw.say(1, served(&target(), in_set(&target()))).say(1, tags_of(&target()));
    raw.say(1, raw_delta(true, &[copy(8192, 4096)], b""));
    raw.frames();
    let error = raw.finished().cloned().expect("ended").expect_err("badly");
    assert_eq!(
        error.to_string(),
        "invalid message: copy of 4096 bytes at offset 8192 runs past the basis (10000 bytes)"
    );
    assert_eq!(raw.content("file"), Some(basis().into()));
}
