//! Deltas that fit neither their basis nor their announcement.

use super::*;

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
