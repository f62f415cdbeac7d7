//! Repairs that make no sense.

use super::*;

/// A server that has sent its file of 10,000 bytes, all of it.
fn delivered() -> Raw {
    let mut raw = server();
    raw.say(1, pulls(None)).take();
    raw
}

fn repair(made: u64, range: u64, sums: usize) -> TransferMessage {
    TransferMessage::Repair(Repair { made, range, sums: vec![5; sums] })
}

#[test]
fn sums_that_do_not_cover_what_was_made_are_refused() {
    for repair in [
        repair(10_000, 4096, 2),
        repair(10_000, 4096, 4),
        repair(10_000, 4096, 0),
        repair(0, 4096, 1),
        repair(0, 0, 1),
        repair(10_000, 0, 0),
        repair(10_000, 0, 1),
        repair(u64::MAX, 1 << 22, 1),
    ] {
        let mut raw = delivered();
        raw.say(1, repair);
        check_refused(&mut raw, CloseCode::Invalid, "invalid message: Repair: sums do not cover what was made");
    }
    let mut raw = delivered();
    raw.frame(MessageKind::Repair.code(), 1, &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    check_refused(&mut raw, CloseCode::Invalid, "invalid message: Repair: sums do not cover what was made");
}

#[test]
fn ranges_that_no_receiver_sums_are_refused() {
    for repair in [
        repair(10_001, 4096, 3),
        repair(1 << 40, 1 << 40, 1),
        repair(10_000, 4095, 3),
        repair(10_000, 1 << 23, 1),
        repair(u64::MAX, u64::MAX, 1),
    ] {
        let mut raw = delivered();
        raw.say(1, repair);
        check_refused(&mut raw, CloseCode::Invalid, "invalid message: Repair: ranges that no receiver sums");
    }
}

#[test]
fn any_sums_of_what_was_made_are_answered_by_what_is_missing() {
    for (made, range, sums) in [(10_000, 4096, 3), (9_999, 1, 9_999), (10_000, 4 << 20, 1), (0, 4096, 0), (0, 0, 0)] {
        let mut raw = delivered();
        raw.say(1, repair(made, range, sums));
        assert_eq!(literal_bytes(&raw.messages()), 10_000, "no sum is right");
        check_healthy(&mut raw);
    }
}

#[test]
fn a_third_repair_is_refused() {
    let mut raw = delivered();
    for _ in 0..2 {
        raw.say(1, repair(10_000, 4096, 3));
        assert_eq!(literal_bytes(&raw.messages()), 10_000);
    }
    raw.say(1, TransferMessage::Repair(Repair::ALL));
    let text = "peer misbehaved: Repair came while waiting for the receiver to finish (transfer 1)";
    check_refused(&mut raw, CloseCode::Misbehaved, text);
}
