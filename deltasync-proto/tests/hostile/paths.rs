//! Paths and names that climb out or are none.

use super::*;

/// Bytes as postcard writes them.
fn counted(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

/// Paths that no peer of ours sends, and what is said of each.
fn hostile_paths() -> Vec<(Vec<u8>, &'static str)> {
    let dots = "path has a component `.` or `..`";
    let empty = "path has an empty component";
    let plain: [(&[u8], &str); 12] = [
        (b"..", dots),
        (b".", dots),
        (b"../file", dots),
        (b"a/../file", dots),
        (b"a/..", dots),
        (b"./file", dots),
        (b"/etc/passwd", "path is absolute"),
        (b"/", "path is absolute"),
        (b"//", "path is absolute"),
        (b"a//b", empty),
        (b"a/", empty),
        (b"a\0b", "path has a NUL"),
    ];
    let mut paths: Vec<_> = plain.map(|(path, reason)| (path.to_vec(), reason)).into();
    let long = [&[b'a'; 255][..], b"/"].concat().repeat(17);
    paths.extend([
        (vec![b'x'; 256], "path has a component of over 255 bytes"),
        ([b"a/", &[b'x'; 256][..]].concat(), "path has a component of over 255 bytes"),
        (long[..4097].to_vec(), "path has over 4096 bytes"),
    ]);
    paths
}

/// What is said of a name, and of a number that stands for nothing.
const NOT_ALLOWED: &str = "a name that is not allowed or a code that this version lacks";

#[test]
fn paths_that_climb_out_or_are_too_long_are_refused_in_every_request() {
    for (path, reason) in hostile_paths() {
        let path = counted(&path);
        let digest = [0; 32];
        let offer = |path: &[u8], name: &[u8]| {
            // A wish, over anything, of no tree, no attributes, no features; length 0; root; BLAKE3; MinCDC of 2048; the first offer; whole.
            [&[1], path, name, &[0; 9], &digest[..], &[0, 0, 0x80, 0x10, 0, 1]].concat()
        };
        for (kind, payload, reason) in [
            (MessageKind::Offer, offer(&path, &counted(b"file")), reason),
            (MessageKind::Offer, offer(&counted(b"file"), &path), NOT_ALLOWED),
            (MessageKind::Pull, [&path[..], &[0; 4]].concat(), reason),
            (MessageKind::List, [&path[..], &[0]].concat(), reason),
            (MessageKind::List, [&counted(b"dir")[..], &[1], &path].concat(), NOT_ALLOWED),
            (MessageKind::AskRoot, [&path[..], &[0]].concat(), reason),
            (MessageKind::MakeDirectory, path.clone(), reason),
            (MessageKind::Rename, [&path[..], &counted(b"new")].concat(), reason),
            (MessageKind::Rename, [&counted(b"file")[..], &path].concat(), reason),
            (MessageKind::Rename, [&path[..], &path].concat(), reason),
            (MessageKind::Remove, [&path[..], &[1]].concat(), reason),
        ] {
            let mut raw = server();
            raw.frame(kind.code(), 1, &payload);
            check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: {kind:?}: {reason}"));
        }
        let mut raw = server();
        raw.frame(MessageKind::Offer.code(), 1, &offer(&counted(b"file"), &counted(b"file")));
        assert!(raw.finished().is_none(), "the payload is only refused for its path");
    }
}

#[test]
fn codes_of_no_meaning_and_fields_that_are_none_are_refused() {
    for (kind, payload, reason) in [
        (MessageKind::AskRoot, &b"\x04file\x02"[..], NOT_ALLOWED),
        (MessageKind::Refused, b"\x0e\x00\x00", NOT_ALLOWED),
        (MessageKind::List, b"\x03dir\x02", "not the fields of this message"),
        (MessageKind::Listing, b"\x00\x02", "not the fields of this message"),
        (MessageKind::Refused, b"\x00\x01\xff\x00", "not the fields of this message"),
        (MessageKind::Remove, b"\x03dir\x02", "not the fields of this message"),
        (MessageKind::Rename, b"\x04file", "bytes end within a value"),
        (MessageKind::Rename, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01file", "bytes end within a value"),
        (MessageKind::List, b"\x04dir", "bytes end within a value"),
        (MessageKind::List, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01dir", "bytes end within a value"),
        (MessageKind::Credit, b"\x81\x00", "varint is not in its shortest form or passes 64 bits"),
    ] {
        let mut raw = server();
        raw.frame(kind.code(), 1, payload);
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: {kind:?}: {reason}"));
    }
}

#[test]
fn a_name_with_a_slash_is_no_name() {
    for payload in [&b"\x03dir\x01\x03a/b"[..], b"\x03dir\x01\x00"] {
        let mut raw = server();
        raw.frame(MessageKind::List.code(), 1, payload);
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: List: {NOT_ALLOWED}"));
    }
}

#[test]
fn a_listing_with_hostile_names_is_refused() {
    let mut names: Vec<_> = hostile_paths().into_iter().map(|(path, _)| path).collect();
    names.extend([b"".to_vec(), b"a/b".to_vec()]);
    for name in names {
        let mut raw = client().command(1, Command::List { path: RelPath::ROOT, after: None });
        raw.take();
        // One entry: a name, a file, its length, its time; and no more.
        raw.frame(MessageKind::Listing.code(), 1, &[&[1], &counted(&name)[..], &[0, 5, 0, 0]].concat());
        check_refused(&mut raw, CloseCode::Invalid, &format!("invalid message: Listing: {NOT_ALLOWED}"));
        assert!(matches!(raw.ended(1), Some(Err(TransferError::ConnectionLost(_)))));
    }
    let mut raw = client().command(1, Command::List { path: RelPath::ROOT, after: None });
    let entry = Entry { name: name(), kind: EntryKind::File, len: ByteLen::new(5), modified: -1 };
    raw.say(1, TransferMessage::Listing(Listing { entries: vec![entry], more: false }));
    assert!(matches!(raw.ended(1), Some(Ok(_))));
}

#[test]
fn a_listing_that_could_go_on_for_ever_is_refused() {
    let entry = |label: &str| {
        let name = Name::new(label.as_bytes()).expect("a plain name");
        Entry { name, kind: EntryKind::File, len: ByteLen::ZERO, modified: 0 }
    };
    for labels in [&["m"][..], &["a"], &["n", "n"], &["o", "n"], &[]] {
        let after = Some(Name::new(*b"m").expect("a plain name"));
        let mut raw = client().command(1, Command::List { path: RelPath::ROOT, after });
        raw.take();
        let entries = labels.iter().map(|label| entry(label)).collect();
        raw.say(1, TransferMessage::Listing(Listing { entries, more: true }));
        let text = "invalid message: Listing: page of a listing is out of order, or empty with more to come";
        check_refused(&mut raw, CloseCode::Invalid, text);
    }
}
