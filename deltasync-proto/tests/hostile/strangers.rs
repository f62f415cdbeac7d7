//! Ends that speak something else, another version, or nothing.

use super::*;

#[test]
fn an_http_request_is_told_that_it_is_no_hello() {
    let mut raw = stranger();
    raw.feed(&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..]);
    check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO);
    let mut raw = stranger();
    raw.feed(&b"\x16"[..]);
    check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO);
}

#[test]
fn half_a_hello_and_then_silence_is_given_up_in_time() {
    let mut hello = Message::Hello(Hello::ours(VERSION, NONCE)).encode().head;
    hello.truncate(hello.len() / 2);
    for bytes in [&b""[..], &hello] {
        let mut raw = stranger();
        raw.feed(bytes.to_vec()).advance(Duration::from_millis(9_999));
        assert!(raw.finished().is_none());
        raw.advance(Duration::from_millis(1));
        check_refused(&mut raw, CloseCode::TimedOut, "no hello from the peer within 10s");
    }
    // A byte now and then does not help.
    let mut raw = stranger();
    for byte in hello.chunks(1) {
        raw.feed(byte.to_vec()).advance(Duration::from_secs(3));
    }
    check_refused(&mut raw, CloseCode::TimedOut, "no hello from the peer within 10s");
}

#[test]
fn a_hello_too_long_is_refused_at_its_header() {
    let mut raw = stranger();
    let mut header = Vec::new();
    encode_header(&mut header, MessageKind::Hello.code(), TransferId::new(0), (64 << 10) + 1);
    raw.feed(header);
    check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO);
}

#[test]
fn damaged_hellos_are_no_hellos() {
    let good = {
        let mut payload = Vec::new();
        Hello::ours(VERSION, NONCE).encode(&mut payload);
        payload
    };
    for (at, byte) in [(0, b'S'), (4, 0), (4, VERSION + 1), (24, 0xff), (24, 1)] {
        let mut damaged = good.clone();
        damaged[at] = byte;
        let mut raw = stranger();
        raw.frame(MessageKind::Hello.code(), 0, &damaged);
        check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO);
    }
    let mut raw = stranger();
    raw.frame(MessageKind::Hello.code(), 1, &good);
    check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO);
}

#[test]
fn a_client_of_another_version_hears_which_ones_there_are() {
    let mut raw = stranger();
    raw.send(&hello(9, 9));
    let answers = raw.messages();
    assert!(matches!(&answers[0], Message::Hello(Hello { min: VERSION, max: VERSION, .. })), "{answers:?}");
    assert_eq!(answers[1..], [Message::Unsupported(Unsupported { min: VERSION, max: VERSION, algorithms: 3 })]);
    // Its first flight passes by, whatever it means there.
    raw.frame(0x77, 5, b"of version nine").frame(MessageKind::Offer.code(), 1, b"another offer");
    assert_eq!(raw.messages(), []);
    // Only a second hello of that kind is an error.
    let mut again = stranger();
    again.send(&hello(9, 9)).take();
    again.send(&hello(9, 9));
    let text = "no version or hash in common: peer speaks versions 9 to 9, we speak 3";
    check_refused(&mut again, CloseCode::Unsupported, text);
    raw.advance(Duration::from_secs(10));
    check_refused(&mut raw, CloseCode::TimedOut, "no hello from the peer within 10s");
}

#[test]
fn a_client_that_comes_down_to_our_version_is_served() {
    let mut raw = stranger();
    raw.send(&hello(VERSION, 9)).frame(MessageKind::Offer.code(), 1, b"of version nine").take();
    raw.send(&hello(VERSION, VERSION)).say(1, TransferMessage::List(List { path: RelPath::ROOT, after: None }));
    assert!(matches!(raw.messages()[..], [Message::Transfer(_, TransferMessage::Listing(_))]));
}

#[test]
fn a_server_that_knows_no_version_of_ours_ends_the_client() {
    let mut raw = client();
    raw.send(&Message::Unsupported(Unsupported { min: 7, max: 9, algorithms: 1 }));
    let text = "no version or hash in common: peer speaks versions 7 to 9, we speak 3";
    check_refused(&mut raw, CloseCode::Unsupported, text);
    let mut raw = Raw::client(Config::default().version(VERSION + 1)).file("file", basis());
    raw.greet().send(&Message::Unsupported(Unsupported { min: VERSION, max: VERSION, algorithms: 3 }));
    assert!(matches!(raw.messages()[..], [Message::Hello(Hello { min: VERSION, max: VERSION, .. })]));
    raw.send(&Message::Unsupported(Unsupported { min: VERSION, max: VERSION, algorithms: 3 }));
    let text = "no version or hash in common: peer speaks versions 3 to 3, we speak 3";
    check_refused(&mut raw, CloseCode::Unsupported, text);
}

#[test]
fn a_server_that_is_no_server_of_ours_ends_the_client() {
    let mut raw = Raw::client(Config::default()).file("file", basis());
    raw.take();
    raw.feed(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]);
    check_refused(&mut raw, CloseCode::Misbehaved, NO_HELLO);
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_waited_for(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut raw = stranger();
        raw.feed(bytes).advance(Duration::from_secs(10));
        prop_assert!(matches!(raw.finished(), Some(Err(_))));
        let mut raw = Raw::client(Config::default());
        raw.feed(&b"\xd5\0"[..]).advance(Duration::from_secs(10));
        prop_assert!(matches!(raw.finished(), Some(Err(_))));
    }

    #[test]
    fn random_bytes_behind_a_hello_are_refused_or_waited_for(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        for mut raw in [server(), client()] {
            raw.feed(bytes.clone()).advance(Duration::from_secs(40));
            prop_assert!(matches!(raw.finished(), Some(Err(_))));
            prop_assert_eq!(raw.content("file"), Some(basis().into()));
        }
    }
}
