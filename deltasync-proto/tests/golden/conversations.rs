//! Whole conversations, recorded frame by frame.

use deltasync_core::RelPath;
use deltasync_proto::{
    Command, Config, Delta, Frame, Literals, Message, MessageKind, Prefix, RootId, TransferMessage, VERSION,
};
use deltasync_testkit::{Raw, Rng, file, pull, push};

use crate::{decode, encode, frame_of, read};

pub(crate) const FILES: [&str; 12] = [
    "conversation_first_push",
    "conversation_push_with_delta",
    "conversation_remembered",
    "conversation_unchanged_push",
    "conversation_stale",
    "conversation_cells",
    "conversation_more",
    "conversation_moved_blocks",
    "conversation_pull",
    "conversation_pull_of_an_empty_file",
    "conversation_copied_under_another_name",
    "conversation_packed",
];

/// Two ends, and what they say to each other.
struct Talk {
    client: Raw,
    server: Raw,
    said: Vec<(&'static str, Frame)>,
}

impl Talk {
    fn new(config: Config) -> Self {
        Self { client: Raw::client(config.clone()), server: Raw::server(config), said: Vec::new() }
    }

    fn put(raw: &Raw, bytes: &[u8]) {
        raw.storage.insert(RootId::new(0), file(), bytes.to_vec());
    }

    /// Runs a transfer to its end, which must be a good one, after which both ends have these bytes.
    #[track_caller]
    fn run(mut self, transfer: u32, command: Command, bytes: &[u8]) -> Self {
        self.client = self.client.command(transfer, command);
        loop {
            let up = self.client.frames();
            if up.is_empty() {
                break;
            }
            for frame in up {
                self.server.frame(frame.kind, frame.transfer.get(), &frame.payload);
                self.said.push(("client", frame));
            }
            for frame in self.server.frames() {
                self.client.frame(frame.kind, frame.transfer.get(), &frame.payload);
                self.said.push(("server", frame));
            }
        }
        assert!(matches!(self.client.ended(transfer), Some(Ok(_))), "{:?}", self.client.ended(transfer));
        assert_eq!(self.client.content("file").as_deref(), Some(bytes));
        assert_eq!(self.server.content("file").as_deref(), Some(bytes));
        self
    }

    /// Compares every frame with the recording.
    #[track_caller]
    fn check(self, name: &str) {
        let recorded = read(VERSION, name);
        for ((who, frame), (name, bytes)) in self.said.iter().zip(&recorded) {
            assert!(name.starts_with(who), "{name}: said by the {who}");
            assert_eq!(*frame, frame_of(bytes), "{name}");
            assert_eq!(encode(&decode(bytes)), *bytes, "{name}");
        }
        assert_eq!(self.said.len(), recorded.len());
    }
}

fn push_file() -> Command {
    push(file(), file())
}

fn edited() -> (Vec<u8>, Vec<u8>) {
    let basis = Rng::new(2).bytes(9000);
    let target = [&basis[..4500], b"INSERTED HERE", &basis[4510..]].concat();
    (basis, target)
}

#[track_caller]
fn check_push(name: &str, basis: Option<&[u8]>, target: &[u8]) {
    let talk = Talk::new(Config::default());
    Talk::put(&talk.client, target);
    if let Some(basis) = basis {
        Talk::put(&talk.server, basis);
    }
    talk.run(1, push_file(), target).check(name);
}

#[test]
fn a_first_push_is_these_bytes() {
    check_push("conversation_first_push", None, &Rng::new(1).bytes(100));
}

#[test]
fn a_push_with_a_delta_is_these_bytes() {
    let (basis, target) = edited();
    check_push("conversation_push_with_delta", Some(&basis), &target);
}

#[test]
fn an_unchanged_push_is_these_bytes() {
    let (basis, _) = edited();
    check_push("conversation_unchanged_push", Some(&basis), &basis);
}

/// A push that is remembered, one whose delta comes with its offer, and one of which nothing has changed since.
#[test]
fn pushes_of_a_remembered_file_are_these_bytes() {
    let (basis, target) = edited();
    let talk = Talk::new(Config::default().remember(true));
    Talk::put(&talk.client, &basis);
    Talk::put(&talk.server, &basis);
    let talk = talk.run(1, push_file(), &basis);
    Talk::put(&talk.client, &target);
    let talk = talk.run(2, push_file(), &target);
    talk.run(3, push_file(), &target).check("conversation_remembered");
}

/// What is remembered is no longer there: the offer of a delta is stale, and one of a set follows.
#[test]
fn a_push_of_what_is_remembered_wrongly_is_these_bytes() {
    let (basis, target) = edited();
    let talk = Talk::new(Config::default().remember(true));
    Talk::put(&talk.client, &basis);
    Talk::put(&talk.server, &basis);
    let talk = talk.run(1, push_file(), &basis);
    Talk::put(&talk.client, &target);
    Talk::put(&talk.server, &basis[..8000]);
    talk.run(2, push_file(), &target).check("conversation_stale");
}

/// So many bytes at irregular places are others than in the basis, of 200,000.
fn scattered(edits: u64) -> (Vec<u8>, Vec<u8>) {
    let basis = Rng::new(4).bytes(200_000);
    let mut target = basis.clone();
    for edit in 1..=edits {
        target[(edit * edit * 7919 % 199_999) as usize] ^= 1;
    }
    (basis, target)
}

#[test]
fn a_push_with_cells_is_these_bytes() {
    let (basis, target) = scattered(2);
    check_push("conversation_cells", Some(&basis), &target);
}

#[test]
fn a_push_that_needs_more_is_these_bytes() {
    let (basis, target) = scattered(9);
    check_push("conversation_more", Some(&basis), &target);
}

#[test]
fn a_push_of_moved_blocks_is_these_bytes() {
    let basis = Rng::new(3).bytes(60_000);
    let target = [&basis[20_000..40_000], &basis[..20_000], &basis[40_000..]].concat();
    check_push("conversation_moved_blocks", Some(&basis), &target);
}

#[test]
fn a_push_of_what_is_there_under_another_name_is_these_bytes() {
    let (basis, target) = edited();
    let talk = Talk::new(Config::default());
    Talk::put(&talk.client, &target);
    Talk::put(&talk.server, &basis);
    let elsewhere = RelPath::new(*b"other").expect("a plain name");
    talk.server.storage.insert(RootId::new(0), elsewhere, target.clone());
    talk.run(1, push_file(), &target).check("conversation_copied_under_another_name");
}

#[test]
fn a_pull_is_these_bytes() {
    let (basis, target) = edited();
    let talk = Talk::new(Config::default());
    Talk::put(&talk.client, &basis);
    Talk::put(&talk.server, &target);
    talk.run(1, pull(file(), file()), &target).check("conversation_pull");
}

/// A part of none is sent of its set, and the receiver does not wait for that.
#[test]
fn a_pull_of_an_empty_file_is_these_bytes() {
    let talk = Talk::new(Config::default());
    Talk::put(&talk.client, &Rng::new(1).bytes(100));
    Talk::put(&talk.server, b"");
    talk.run(1, pull(file(), file()), b"").check("conversation_pull_of_an_empty_file");
}

/// A table of 300 rows in which every row that `edited` names has other words.
fn table(edited: &[usize]) -> Vec<u8> {
    let row = |row| match edited.contains(&row) {
        true => format!("row {row}: whoever reads the {row}th row finds that it was edited\n"),
        false => format!("row {row}: {} and {}\n", row * row, row * row * row % 1009),
    };
    (0..300).map(row).collect::<String>().into_bytes()
}

/// The table when the two ends begin, and after each of three pushes.
fn tables() -> [Vec<u8>; 4] {
    [table(&[]), table(&[100, 101]), table(&[100, 101, 50, 200]), table(&[100, 101, 50, 200, 210])]
}

fn prefix(message: &Message) -> Option<Prefix> {
    match message {
        Message::Transfer(_, TransferMessage::Delta(Delta { literals: Literals::Packed { prefix, .. }, .. })) => {
            Some(*prefix)
        }
        _ => None,
    }
}

/// Three pushes with packed literals, each behind another kind of prefix, as they were recorded: whatever a library makes
/// of the same literals today, a server makes the same files of these.
#[test]
fn literals_that_were_packed_unpack() {
    let tables = tables();
    let recorded = read(VERSION, "conversation_packed");
    let mut server = Raw::server(Config::default()).file("file", tables[0].clone());
    let mut prefixes = Vec::new();
    for (name, bytes) in recorded.iter().filter(|(name, _)| name.starts_with("client")) {
        let message = decode(bytes);
        prefixes.extend(prefix(&message));
        server.feed(bytes.clone());
        if prefix(&message).is_some() {
            let expected = &tables[prefixes.len()];
            assert_eq!(server.content("file").as_deref(), Some(&expected[..]), "{name}");
        }
    }
    assert_eq!(prefixes, [Prefix::Neighbours, Prefix::Replaced, Prefix::Around]);
    assert_eq!(server.finished(), None);
    // Only how long summed blocks are depends on how well a sample packs.
    let said = server.frames().into_iter().filter(|frame| frame.kind != MessageKind::Want.code());
    let expected = recorded.iter().filter(|(name, _)| name.starts_with("server")).map(|(_, bytes)| frame_of(bytes));
    let expected = expected.filter(|frame| frame.kind != MessageKind::Want.code());
    assert_eq!(said.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

/// The hex in `WIRE.md` is the recorded conversation.
#[test]
fn the_push_that_is_drawn_is_the_one_that_was_recorded() {
    let hex =
        |text: &str| !text.is_empty() && text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (_, drawn) = include_str!("../../WIRE.md").split_once("## 15. A push").expect("the section is there");
    let fences = drawn.split("```").skip(1).step_by(2).flat_map(str::lines);
    let digits: String = fences.flat_map(|line| line.split_whitespace().take_while(|word| hex(word))).collect();
    let frames = read(VERSION, "conversation_push_with_delta").into_iter().flat_map(|(_, bytes)| bytes);
    let recorded: String = frames.map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digits, recorded);
}
