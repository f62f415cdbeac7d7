//! What both ends have is remembered after a push, and that is nobody else's matter.

use std::time::Duration;

use deltasync_core::Generation;
use deltasync_proto::{
    Close, CloseCode, Command, Config, Message, Outcome, SessionError, TransferError, TransferMessage,
};
use deltasync_testkit::{Pair, Raw, Rng, file, push};

/// A client whose push the server has just finished, and whose storage takes long to remember it.
fn remembering() -> Raw {
    let mut raw = Raw::client(Config::default().remember(true)).file("file", Rng::new(1).bytes(10_000));
    raw.greet();
    raw = raw.hold(|due| due.name() == "Remember").command(1, push(file(), file()));
    raw.say(1, TransferMessage::Done(Generation::new(7)));
    assert_eq!(raw.due().count(), 1, "it is remembering");
    assert_eq!(raw.ended(1), None);
    raw
}

/// However the transfer ends now, it went well.
#[track_caller]
fn check_it_went_well(raw: &Raw) {
    let Some(Ok(Outcome { generation, .. })) = raw.ended(1) else { panic!("{:?}", raw.ended(1)) };
    assert_eq!(*generation, Some(Generation::new(7)));
}

#[test]
fn remembering_ends_the_push() {
    let mut raw = remembering();
    raw.release();
    check_it_went_well(&raw);
}

#[test]
fn a_peer_that_goes_meanwhile_is_no_failure() {
    let mut raw = remembering();
    raw.close();
    check_it_went_well(&raw);
    assert!(matches!(raw.finished(), Some(Ok(_))), "{:?}", raw.finished());

    let mut raw = remembering();
    raw.send(&Message::Close(Close { code: CloseCode::ShuttingDown, message: String::new() }));
    check_it_went_well(&raw);
    assert!(matches!(raw.finished(), Some(Err(SessionError::ClosedByPeer { .. }))), "{:?}", raw.finished());
}

#[test]
fn a_peer_that_says_nothing_more_is_no_failure() {
    let mut raw = remembering();
    for _ in 0..100 {
        raw.advance(Duration::from_secs(1)).send(&Message::Pong);
    }
    assert_eq!(raw.ended(1), None, "it still remembers");
    raw.release();
    check_it_went_well(&raw);
    let mut raw = remembering();
    raw.advance(Duration::from_secs(100));
    check_it_went_well(&raw);
}

#[test]
fn what_is_cancelled_too_late_went_well() {
    check_it_went_well(&remembering().command(1, Command::Cancel));
    let mut raw = remembering();
    raw.say(1, TransferMessage::Cancel);
    check_it_went_well(&raw);
}

#[test]
fn a_transfer_that_is_not_done_is_lost_with_the_connection() {
    let mut raw = remembering().command(2, push(file(), file()));
    raw.close();
    check_it_went_well(&raw);
    assert!(matches!(raw.ended(2), Some(Err(TransferError::ConnectionLost(_)))), "{:?}", raw.ended(2));
    assert_eq!(raw.finished(), Some(&Err(SessionError::ConnectionLost { open: 1 })));
}

#[test]
fn an_outcome_tells_whether_the_basis_was_known() {
    let same = Rng::new(4).bytes(300_000);
    let pushed = Pair::new(4).basis(same.clone()).target(same.clone()).run_to_end();
    assert!(!pushed.outcome().known, "the ends compared");
    let pulled = Pair::new(4).basis(same.clone()).pulled_onto(Some(same)).run_to_end();
    assert!(pulled.outcome().known, "the receiver said what it has");
}
