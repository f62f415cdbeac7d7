//! More than there is room for.

use super::*;

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
    let text = "peer misbehaved: transfer 1 sent 4 bytes more than it had credit for";
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
