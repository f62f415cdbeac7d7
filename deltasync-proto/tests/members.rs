//! Files of a tree: what one gets beside its content, also when that is there already.

use bytes::Bytes;
use deltasync_core::{Algorithm, Attributes, ByteLen, ChunkList, Cutter, Elements, TagKey};
use deltasync_proto::{Config, Content, Message, Offer, SetPart, TransferMessage, Wish};
use deltasync_testkit::{Due, Raw, Rng, file};

const NONCE: [u8; 16] = [7; 16];

fn is_adorning(due: &Due) -> bool {
    due.name() == "Adorn"
}

fn offer(list: &ChunkList, content: Content) -> TransferMessage {
    let attributes = Attributes::new(0o640, 7, 8).expect("in range");
    TransferMessage::Offer(Offer {
        to: Some(Wish { attributes: Some(attributes), ..Wish::exactly(file()) }),
        len: list.len(),
        root: list.root(),
        algorithm: list.algorithm(),
        cutter: list.cutter(),
        attempt: 0,
        content,
    })
}

fn list(bytes: &[u8]) -> ChunkList {
    ChunkList::of(bytes, Cutter::for_len(ByteLen::of(bytes)), Algorithm::Blake3)
}

/// The set of a target that is there already may come after that was found out.
#[test]
fn a_file_that_is_there_gets_its_attributes_before_the_sender_is_told() {
    let bytes = Rng::new(1).bytes(100_000);
    let list = list(&bytes);
    let elements = Elements::of(&list, &TagKey::new(&NONCE, 1));
    let mut tags = Vec::new();
    elements.encode(0..elements.len(), &mut tags);
    let count = elements.len() as u32;
    let mut server = Raw::server(Config::default()).file("file", bytes).hold(is_adorning);
    server.greet().say(1, offer(&list, Content::Set { elements: count }));
    assert!(server.due().any(is_adorning));
    server.say(1, TransferMessage::Tags(SetPart { start: 0, count, bytes: Bytes::from(tags) }));
    let is_same = |message: &Message| matches!(message, Message::Transfer(_, TransferMessage::Same(_)));
    assert!(!server.messages().iter().any(is_same), "not before it is so");
    server.release();
    let told = server.messages();
    assert!(told.iter().any(is_same), "{told:?}");
    assert!(server.finished().is_none());
}

/// What is staged gets them before it is published.
#[test]
fn a_file_that_is_sent_gets_its_attributes_before_it_is_committed() {
    let bytes = Rng::new(2).bytes(500);
    let list = list(&bytes);
    let mut server = Raw::server(Config::default()).hold(is_adorning);
    server.greet().say(1, offer(&list, Content::Whole));
    let ops = [deltasync_core::Op::Literal { len: list.len() }].into_iter().collect();
    let literals = deltasync_proto::Literals::Raw(Bytes::from(bytes.clone()));
    server.say(1, TransferMessage::Delta(deltasync_proto::Delta { last: true, ops, literals }));
    assert!(server.due().any(is_adorning));
    assert_eq!(server.content("file"), None);
    server.release();
    assert_eq!(server.content("file").as_deref(), Some(&bytes[..]));
}
