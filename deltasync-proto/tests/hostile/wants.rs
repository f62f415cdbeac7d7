//! Answers that do not cover the offer.

use super::*;

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
