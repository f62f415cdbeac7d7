//! Pushes that only tell what they would move: nothing changes at either end, and it is what the push then moves.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::{Ends, content, meddling, put, random};
use deltasync_core::{Attributes, RelPath};
use deltasync_io::{BlockingStorage, KeepForm, KnownFiles, LocalOptions, LocalStorage, compared_lists, tree_list};
use deltasync_proto::{
    ApiMisuse, Ask, Command, Condition, Config, EventKind, Input, Outcome, Place, RootId, Scope, Session, Timestamp,
    TransferError, TransferId, TreeOptions,
};
use deltasync_testkit::{Pair, Ran, file, pull, push};
use tempfile::TempDir;

/// What the receiver says last is not counted, nor that it has room for more (some bytes for each 256 KiB), nor how it asks whether a version may be replaced that it was not told the
/// generation of.
const LAST_WORD: u64 = 4;
/// Tags are keyed anew by each connection, and take a byte more or less.
const TAGS: u64 = 20;
const ASKED: u64 = 90;

fn predict(push: Command) -> Command {
    Command::Predict { push: Box::new(push) }
}

fn path(path: &str) -> RelPath {
    RelPath::new(path).expect("valid")
}

/// True for what changes something.
fn changes(ask: &Ask) -> bool {
    matches!(
        ask,
        Ask::Stage { .. }
            | Ask::StageTree { .. }
            | Ask::Apply { .. }
            | Ask::Adorn { .. }
            | Ask::Commit { .. }
            | Ask::Remember { .. }
    )
}

/// A dry run of a push over these ends: neither storage is asked for anything that changes it.
#[track_caller]
fn rehearse(ends: &mut Ends, push: Command) -> Ran {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let watched = |memory| {
        let asked = asked.clone();
        meddling(memory, move |memory, ask| {
            if changes(&ask) {
                asked.lock().expect("no panic").push(format!("{ask:?}"));
            }
            memory.answer(ask)
        }) as Arc<dyn BlockingStorage>
    };
    let (local, remote) = (watched(&ends.local), watched(&ends.remote));
    let ran = ends.pair().command(predict(push)).storages(local, remote).run_to_end();
    assert_eq!(*asked.lock().expect("no panic"), [""; 0]);
    assert!(ran.client.is_ok() && ran.server.is_ok(), "{ran:?}");
    ran
}

#[track_caller]
fn close(predicted: Outcome, real: Outcome, more: u64) {
    close_but_for(0, predicted, real, more);
}

/// The same where so many bytes, of a delta that turns out to be of no use, may be on their way by then or not.
#[track_caller]
fn close_but_for(useless: u64, predicted: Outcome, real: Outcome, more: u64) {
    let (said, was) = (predicted.progress.wire.get(), real.progress.wire.get());
    let room = was / (64 << 10);
    assert!(said <= was + TAGS + useless && was <= said + TAGS + more + room, "{said} predicted, {was} moved");
    assert_eq!(predicted.progress.literal, real.progress.literal);
    assert_eq!(predicted.progress.copied, real.progress.copied);
    assert_eq!((predicted.len, predicted.root, predicted.known), (real.len, real.root, real.known));
    assert_eq!(predicted.generation, None);
}

/// A dry run, then the push.
#[track_caller]
fn check(ends: &mut Ends, bytes: &[u8], more: u64) -> (Ran, Ran) {
    put(&ends.local, &file(), bytes);
    let before = content(&ends.remote);
    let dry = rehearse(ends, push(file(), file()));
    assert!(content(&ends.remote) == before, "the server's file has changed");
    let real = ends.push(bytes);
    close(dry.outcome(), real.outcome(), more);
    (dry, real)
}

fn edited(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 200].copy_from_slice(&random(99, 200));
    bytes
}

#[test]
fn a_first_push_is_told() {
    for len in [0, 1, 1024, 1025, 100_000, 3 << 20] {
        let (dry, real) = check(&mut Ends::forgetful(len as u64), &random(1, len), LAST_WORD);
        assert!(dry.up < 2000 || dry.up < real.up / 2, "{} of {}", dry.up, real.up);
    }
    let text: Vec<u8> = (0..200_000u32).flat_map(|i| (i / 3).to_string().into_bytes()).collect();
    check(&mut Ends::forgetful(7), &text, LAST_WORD);
}

#[test]
fn an_edited_file_is_told() {
    for len in [2000, 100_000, 3 << 20] {
        let mut ends = Ends::forgetful(len as u64);
        let old = random(2, len);
        ends.push(&old);
        let (dry, _) = check(&mut ends, &edited(&old), LAST_WORD);
        assert_eq!(dry.round_trips(), 1);
        let again = rehearse(&mut ends, push(file(), file())).outcome();
        assert_eq!((again.progress.literal.get(), again.progress.copied), (0, again.len));
        assert!(again.progress.wire.get() < 600, "{again:?}");
    }
}

#[test]
fn a_tiny_file_over_another_one_is_told_but_for_a_question() {
    let mut ends = Ends::forgetful(3);
    ends.push(b"something else");
    check(&mut ends, b"tiny", LAST_WORD + ASKED);
    let ran = rehearse(&mut ends, push(file(), file()));
    assert_eq!(ran.outcome().progress.literal.get(), 4, "it goes with its offer, whatever is there");
}

#[test]
fn a_file_that_is_remembered_is_told() {
    for form in [KeepForm::Copy, KeepForm::Sums] {
        let old = random(4, 200_000);
        let large = [&random(5, 200_000)[..], &old].concat();
        for new in [old.clone(), edited(&old), large] {
            let mut ends = Ends::remembering(new.len() as u64, form);
            ends.push(&old);
            let (dry, real) = check(&mut ends, &new, LAST_WORD + ASKED);
            assert!(dry.outcome().known && dry.wire() < 2500, "{}", dry.wire());
            assert!(real.outcome().known);
        }
        // The server has lost it: what would go in vain is counted too.
        let mut ends = Ends::remembering(6, form);
        ends.push(&old);
        put(&ends.remote, &file(), &random(8, 100_000));
        check(&mut ends, &edited(&old), LAST_WORD + ASKED);
    }
}

#[test]
fn what_the_server_has_under_another_name_stays_there_alone() {
    let mut ends = Ends::forgetful(9);
    let bytes = random(9, 300_000);
    ends.push(&bytes);
    put(&ends.local, &path("other"), &bytes);
    let command = || push(path("other"), path("other"));
    let dry = rehearse(&mut ends, command());
    assert_eq!(ends.remote.get(RootId::new(0), &path("other")), None);
    let real = ends.pair().command(command()).run_to_end();
    assert!(ends.remote.get(RootId::new(0), &path("other")).is_some());
    close(dry.outcome(), real.outcome(), LAST_WORD);
    assert_eq!(dry.outcome().progress.literal.get(), 0);
}

#[test]
fn a_condition_is_told_to_fail() {
    let mut ends = Ends::forgetful(10);
    ends.push(&random(1, 5000));
    for bytes in [&b"tiny"[..], &random(2, 5000)] {
        put(&ends.local, &file(), bytes);
        let Command::Push { source, path, name, directory, .. } = push(file(), file()) else { unreachable!() };
        let command = Command::Push { source, path, name, directory, condition: Condition::Absent };
        let ran = rehearse(&mut ends, command);
        assert!(
            matches!(&ran.outcomes[0], Err(TransferError::Refused(refusal)) if refusal.current.is_some()),
            "{ran:?}"
        );
    }
}

#[test]
fn a_file_of_a_tree_that_only_gets_its_time_stays_as_it_is() {
    let mut ends = Ends::forgetful(11);
    ends.push(&random(1, 100_000));
    let source = Place { root: RootId::new(0), path: file() };
    let attributes = Attributes::new(0o600, 1, 2).expect("in range");
    let ran = rehearse(&mut ends, Command::PushMember { source, path: file(), attributes, atomic: false });
    assert_eq!(ran.outcome().progress.literal.get(), 0);
}

#[test]
fn only_a_push_is_predicted() {
    let mut session = Session::client(Config::default(), [1; 32]);
    let command = predict(pull(file(), file()));
    let input = Input::Command { transfer: TransferId::new(1), command };
    assert_eq!(session.handle_input(Timestamp::new(0), input), Err(ApiMisuse::NotAPush));
}

/// Directories of a client and a server.
struct Trees {
    dir: TempDir,
    seed: u64,
}

impl Trees {
    fn new(seed: u64) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        for name in ["local/tree", "remote"] {
            fs::create_dir_all(dir.path().join(name)).expect("new");
        }
        let trees = Self { dir, seed };
        for number in 0..60 {
            trees.write(&format!("dir{}/file{number}", number % 7), &random(number, 1500));
        }
        trees.write("large", &random(100, 200_000));
        trees
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.dir.path().join("local/tree").join(name);
        fs::create_dir_all(path.parent().expect("in a directory")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    fn run(&mut self, remember: bool, command: Command) -> Ran {
        self.seed += 1;
        let mut options = LocalOptions::default();
        if remember {
            options = options.known(KnownFiles::new(self.dir.path().join("known"), "server"));
        }
        let local = LocalStorage::roots(vec![self.dir.path().join("local")], options).expect("there");
        let remote = LocalStorage::serve(self.dir.path().join("remote"), LocalOptions::default()).expect("there");
        let pair = Pair::new(self.seed).config(Config::default().remember(remember)).command(command);
        pair.storages(Arc::new(local), Arc::new(remote)).run_to_end()
    }

    fn push(options: TreeOptions) -> Command {
        let source = Place { root: RootId::new(0), path: path("tree") };
        Command::PushTree { source, path: path("tree"), options, condition: Condition::Any }
    }

    /// All that is in the server's directory and in what is remembered, with the times of the last change.
    fn see(&self) -> Vec<String> {
        let mut seen = Vec::new();
        let times = |is: &fs::Metadata| format!("{} {} {}", is.ino(), is.ctime(), is.ctime_nsec());
        for name in ["local", "remote/tree"] {
            see(&self.dir.path().join(name), &times, &mut seen);
        }
        // That it was of use again is noted.
        see(&self.dir.path().join("known"), &|is| format!("{} {}", is.ino(), is.len()), &mut seen);
        seen.sort();
        seen
    }
}

fn see(path: &Path, looks: &dyn Fn(&fs::Metadata) -> String, seen: &mut Vec<String>) {
    let Ok(is) = fs::symlink_metadata(path) else { return };
    seen.push(format!("{} {}", path.display(), looks(&is)));
    if is.is_dir() {
        let entries = fs::read_dir(path).expect("readable");
        entries.for_each(|entry| see(&entry.expect("readable").path(), looks, seen));
    }
}

#[track_caller]
fn assert_same(before: &[String], after: &[String]) {
    let differ: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    assert!(differ.is_empty() && before.len() == after.len(), "{differ:?}, {} and {}", before.len(), after.len());
}

#[test]
fn a_tree_is_told_and_stays_as_it_is() {
    for remember in [false, true] {
        let mut trees = Trees::new(50);
        for round in 0..4u64 {
            match round {
                0 => {}
                1 => {}
                2 => trees.write("dir3/file3", &random(200, 1500)),
                _ => trees.write("dir1/new", &random(201, 3000)),
            }
            let before = trees.see();
            let dry = trees.run(remember, predict(Trees::push(TreeOptions::default())));
            assert_same(&before, &trees.see());
            let real = trees.run(remember, Trees::push(TreeOptions::default()));
            let useless = if remember { dry.outcome().progress.literal.get() } else { 0 };
            close_but_for(useless, dry.outcome(), real.outcome(), LAST_WORD);
            let differs = |ran: &Ran| {
                let kinds = ran.events.iter().map(|event| event.kind.clone());
                let told = kinds.filter_map(|kind| match kind {
                    EventKind::Differs { tree, ranges, .. } => Some((tree_list(&tree).map(|list| list.len()), ranges)),
                    _ => None,
                });
                told.collect::<Vec<_>>()
            };
            assert_eq!(differs(&dry), differs(&real));
        }
    }
}

#[test]
fn the_list_of_a_tree_comes_without_its_contents_and_makes_nothing() {
    let mut trees = Trees::new(80);
    trees.run(false, Trees::push(TreeOptions::default())).outcome();
    trees.write("dir1/new", &random(201, 30_000));
    let ask = |path| {
        let scope = Scope { headers_only: true, ..Scope::default() };
        let place = Place { root: RootId::new(0), path };
        let options = TreeOptions::default().scope(scope);
        Command::PullTree { path: self::path("tree"), place, options, condition: Condition::Any }
    };
    for (there, of_ours) in [("tree", Some(70)), ("nothing", None)] {
        let before = trees.see();
        let ran = trees.run(false, ask(path(there)));
        ran.outcome();
        assert_same(&before, &trees.see());
        assert!(ran.wire() < 6000, "{}", ran.wire());
        let made = ran.events.iter().find_map(|event| match &event.kind {
            EventKind::Made { stage } => compared_lists(stage),
            _ => None,
        });
        let (ours, theirs) = made.expect("the list came");
        assert_eq!(ours.map(|list| list.len()), of_ours);
        assert!(theirs.len() >= 68 && theirs.find(&path("dir1/new")).is_none(), "{}", theirs.len());
    }
}
