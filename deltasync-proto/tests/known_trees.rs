//! Pushes of trees where the client remembers what the server has.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use common::random;
use deltasync_core::{Generation, RelPath};
use deltasync_io::{BlockingStorage, KeepForm, KnownFiles, LocalOptions, LocalStorage, TreeMember, members_to_send};
use deltasync_proto::{
    Answer, Ask, Command, Condition, Config, Event, EventKind, Extra, Outcome, Place, RootId, StorageFault, TransferId,
    TreeOptions,
};
use deltasync_testkit::{Link, Pair, Ran};
use tempfile::TempDir;

const FORMS: [KeepForm; 2] = [KeepForm::Copy, KeepForm::Sums];

/// So many files, each of so many bytes.
const FILES: u64 = 200;
const LEN: usize = 2000;

/// Pushes a file of the tree that is at this path at both ends.
fn push_member(tree: &RelPath, member: TreeMember) -> Command {
    let path = tree.below(&member.path).expect("short");
    let source = Place { root: RootId::new(0), path: path.clone() };
    Command::PushMember { source, path, attributes: member.attributes, atomic: false }
}

/// Directories of a client and a server over which several pushes go, and what the client remembers.
struct Trees {
    local: TempDir,
    remote: TempDir,
    state: TempDir,
    form: KeepForm,
    seed: u64,
}

impl Trees {
    /// Neither end has anything.
    fn empty(seed: u64, form: KeepForm) -> Self {
        let directory = || TempDir::new().expect("a temporary directory");
        Self { local: directory(), remote: directory(), state: directory(), form, seed }
    }

    /// Both ends have the tree, and the client remembers it.
    fn knowing(seed: u64, form: KeepForm) -> Self {
        let mut trees = Self::empty(seed, form);
        for number in 0..FILES {
            let name = format!("dir{}/file{number}", number % 7);
            trees.write(&name, &random(number + 1, LEN));
        }
        trees.push();
        trees
    }

    fn here(&self, name: &str) -> PathBuf {
        self.local.path().join("tree").join(name)
    }

    fn there(&self, name: &str) -> PathBuf {
        self.remote.path().join("tree").join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.here(name);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    /// Changes a few bytes of a file, and its time.
    fn edit(&self, number: u64) {
        let path = self.here(&format!("dir{}/file{number}", number % 7));
        let mut bytes = fs::read(&path).expect("there");
        bytes[1000..1010].fill(b'!');
        fs::write(&path, bytes).expect("written");
        let time = UNIX_EPOCH + Duration::new(1_700_000_000 + number, 5);
        File::options().write(true).open(&path).and_then(|file| file.set_modified(time)).expect("set");
    }

    /// Somebody was at work in the server's tree, and left it as it was.
    fn touch_there(&self) {
        let before = fs::metadata(self.there("")).and_then(|is| is.modified()).expect("there");
        fs::write(self.there("stranger"), b"").expect("written");
        fs::remove_file(self.there("stranger")).expect("there");
        File::open(self.there("")).and_then(|top| top.set_modified(before)).expect("set");
    }

    fn client(&self) -> Arc<dyn BlockingStorage> {
        let known = KnownFiles::new(self.state.path().join("known"), "server").form(self.form);
        let options = LocalOptions::default().known(known);
        Arc::new(LocalStorage::roots(vec![self.local.path().to_owned()], options).expect("it can be opened"))
    }

    fn server(&self) -> Arc<dyn BlockingStorage> {
        Arc::new(LocalStorage::serve(self.remote.path(), LocalOptions::default()).expect("it can be served"))
    }

    /// Pushes the tree, by a client that does as it is told by `storage`; afterwards both ends have it.
    #[track_caller]
    fn push_with(&mut self, storage: Arc<dyn BlockingStorage>) -> Ran {
        self.seed += 1;
        let path = || RelPath::new(*b"tree").expect("a plain name");
        let source = Place { root: RootId::new(0), path: path() };
        let extra = Extra::Delete { most: None };
        let command = Command::PushTree {
            source,
            path: path(),
            options: TreeOptions::default().extra(extra),
            condition: Condition::Any,
        };
        let config = Config::default().remember(true);
        let link = Link::perfect().delay(Duration::from_millis(20));
        let pair = Pair::new(self.seed).config(config).link(link).command(command);
        let ran = pair.storages(storage, self.server()).run_to_end();
        ran.outcome();
        assert_eq!(see(&self.here("")), see(&self.there("")), "the server has something else");
        ran
    }

    #[track_caller]
    fn push(&mut self) -> Ran {
        self.push_with(self.client())
    }

    /// Pushes the tree with the files that do not travel with it; afterwards both ends have all.
    #[track_caller]
    fn push_with_members(&mut self) -> Ran {
        self.push_with_members_by(Config::default(), Link::perfect().delay(Duration::from_millis(20)))
    }

    #[track_caller]
    fn push_with_members_by(&mut self, config: Config, link: Link) -> Ran {
        self.seed += 1;
        let path = RelPath::new(*b"tree").expect("a plain name");
        let place = |path| Place { root: RootId::new(0), path };
        let (options, condition) = (TreeOptions::default(), Condition::Any);
        let command = Command::PushTree { source: place(path.clone()), path: path.clone(), options, condition };
        let tree = TransferId::new(1);
        let (mut moving, mut next) = (0, 2);
        let answering = move |event: &Event| match &event.kind {
            EventKind::Differs { tree, ranges } => {
                let push = |member| push_member(&path, member);
                let members = members_to_send(tree, ranges);
                moving += members.len();
                let commands = (next..).map(TransferId::new).zip(members.into_iter().map(push)).collect::<Vec<_>>();
                next += commands.len() as u32;
                if commands.is_empty() { vec![(event.transfer, Command::Complete)] } else { commands }
            }
            EventKind::Ended(_) if event.transfer != tree => {
                moving -= 1;
                if moving == 0 { vec![(tree, Command::Complete)] } else { Vec::new() }
            }
            _ => Vec::new(),
        };
        let pair = Pair::new(self.seed).config(config.remember(true)).link(link);
        let pair = pair.command(command).answering(answering);
        let ran = pair.storages(self.client(), self.server()).run_to_end();
        assert!(ran.outcomes.iter().all(Result::is_ok), "{:?}", ran.outcomes);
        assert_eq!(see(&self.here("")), see(&self.there("")), "the server has something else");
        let ended = |transfer| {
            let is_it = |event: &Event| event.transfer == transfer && matches!(event.kind, EventKind::Ended(_));
            ran.server_events.iter().position(is_it).expect("it ended")
        };
        let members = (2..=ran.outcomes.len() as u32).map(TransferId::new);
        assert!(members.clone().all(|member| ended(member) < ended(tree)), "the tree waits for all of them");
        ran
    }
}

/// All files below a directory with their times and contents, and all directories.
fn see(directory: &Path) -> Vec<(PathBuf, std::time::SystemTime, Vec<u8>)> {
    let (mut left, mut seen) = (vec![directory.to_owned()], Vec::new());
    while let Some(at) = left.pop() {
        let is = fs::symlink_metadata(&at).expect("it is there");
        let content = if is.is_dir() { Vec::new() } else { fs::read(&at).expect("readable") };
        if is.is_dir() {
            left.extend(fs::read_dir(&at).expect("readable").map(|entry| entry.expect("an entry").path()));
        }
        seen.push((at.strip_prefix(directory).expect("below").to_owned(), is.modified().expect("known"), content));
    }
    seen.sort();
    seen
}

#[test]
fn a_tree_that_is_remembered_takes_one_round_trip() {
    for form in FORMS {
        let mut trees = Trees::knowing(10, form);
        for number in [3, 50, 120] {
            trees.edit(number);
            let ran = trees.push();
            assert_eq!((ran.round_trips(), ran.outcome().repairs, ran.outcome().known), (1, 0, true), "{form:?}");
            // A round trip by the clock too, and not one more for a sign that the hello was seen.
            assert!(ran.elapsed < Duration::from_millis(60), "{:?}", ran.elapsed);
            assert!(ran.wire() < 700, "{} bytes ({form:?})", ran.wire());
            assert!(ran.outcome().generation.is_some_and(|generation| generation > Generation::ZERO));
        }
        let same = trees.push();
        assert_eq!((same.round_trips(), same.outcome().generation), (1, None));
        assert!(same.wire() < 200, "{} bytes for nothing", same.wire());
    }
}

#[test]
fn files_come_and_go_in_a_tree_that_is_remembered() {
    for form in FORMS {
        let mut trees = Trees::knowing(20, form);
        trees.write("new/file", &random(1000, 300));
        trees.write("dir3/another", b"short");
        fs::remove_file(trees.here("dir1/file1")).expect("there");
        fs::remove_dir_all(trees.here("dir5")).expect("there");
        fs::rename(trees.here("dir2"), trees.here("moved")).expect("renamed");
        let ran = trees.push();
        assert_eq!((ran.round_trips(), ran.outcome().repairs), (1, 0), "{form:?}");
        assert_eq!(trees.push().round_trips(), 1);
    }
}

#[test]
fn what_else_has_changed_at_the_server_is_found_out_and_costs_the_first_delta() {
    for form in FORMS {
        for seed in 0..2 {
            let mut trees = Trees::knowing(100 * seed, form);
            fs::write(trees.there("dir1/file8"), b"of somebody else").expect("written");
            trees.edit(40);
            let ran = trees.push();
            // Stale, then the set, of which more may be asked for, then the delta.
            assert!((3..=4).contains(&ran.round_trips()), "{form:?}: {}", ran.round_trips());
            assert!(ran.wire() < 10_000, "{}", ran.wire());
            trees.edit(41);
            assert_eq!(trees.push().round_trips(), 1, "the new one is remembered");
        }
    }
}

/// The server has the very tree, but nobody knows by which commit: a recording could say so much too.
#[test]
fn a_tree_of_no_known_commit_is_not_changed_unasked() {
    for form in FORMS {
        let mut trees = Trees::knowing(30, form);
        trees.touch_there();
        trees.edit(70);
        let ran = trees.push();
        assert!((3..=4).contains(&ran.round_trips()), "{form:?}: {}", ran.round_trips());
        trees.edit(71);
        assert_eq!(trees.push().round_trips(), 1);
        // What is there as it is wanted counts as published.
        trees.touch_there();
        assert_eq!(trees.push().outcome().generation, None);
        trees.edit(72);
        assert_eq!(trees.push().round_trips(), 1);
    }
}

#[test]
fn a_large_delta_waits_until_the_tree_is_known_to_be_there() {
    for form in FORMS {
        let mut trees = Trees::knowing(40, form);
        (0..20).for_each(|number| trees.write(&format!("large/{number}"), &random(5000 + number, 10_000)));
        let ran = trees.push();
        assert_eq!((ran.round_trips(), ran.outcome().repairs), (2, 0), "the offer, then the delta");
        assert!(ran.wire() < 210_000, "{}", ran.wire());
    }
}

/// A client whose memory lets `change` be done to each thing it answers.
struct Changed<F>(Arc<dyn BlockingStorage>, F);

impl<F: Fn(&Ask, Result<Answer, StorageFault>) -> Result<Answer, StorageFault> + Send + Sync + 'static> BlockingStorage
    for Changed<F>
{
    fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
        let asked = ask.clone();
        (self.1)(&asked, self.0.answer(ask))
    }
}

/// The offer names no generation: the delta waits until the server has said that the tree is there.
#[test]
fn a_delta_for_a_tree_of_no_known_commit_is_no_first_flight() {
    let trees = Trees::knowing(50, KeepForm::Copy);
    trees.edit(9);
    let unnamed = |_: &Ask, answer| match answer {
        Ok(Answer::Recalled(Some(mut remembered))) => {
            remembered.generation = Generation::ZERO;
            Ok(Answer::Recalled(Some(remembered)))
        }
        answer => answer,
    };
    // Neither does the server know of one.
    struct Uncounted(Arc<dyn BlockingStorage>);
    impl BlockingStorage for Uncounted {
        fn answer(&self, ask: Ask) -> Result<Answer, StorageFault> {
            match self.0.answer(ask)? {
                Answer::Basis { place, file: Some(mut file), twin, partial } => {
                    file.generation = Generation::ZERO;
                    Ok(Answer::Basis { place, file: Some(file), twin, partial })
                }
                answer => Ok(answer),
            }
        }
    }
    let path = || RelPath::new(*b"tree").expect("a plain name");
    let source = Place { root: RootId::new(0), path: path() };
    let command =
        Command::PushTree { source, path: path(), options: TreeOptions::default(), condition: Condition::Any };
    let (client, server) = (Arc::new(Changed(trees.client(), unnamed)), Arc::new(Uncounted(trees.server())));
    let pair = Pair::new(51).config(Config::default().remember(true)).command(command);
    let ran = pair.storages(client, server).run_to_end();
    assert!(ran.outcome().known);
    assert_eq!(ran.round_trips(), 2);
    assert_eq!(see(&trees.here("")), see(&trees.there("")));
}

#[test]
fn a_memory_that_is_damaged_is_none() {
    for form in FORMS {
        let mut trees = Trees::knowing(60, form);
        for kept in fs::read_dir(trees.state.path().join("known/kept")).expect("it remembers") {
            let kept = kept.expect("an entry").path();
            let mut bytes = fs::read(&kept).expect("readable");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(kept, bytes).expect("written");
        }
        trees.edit(11);
        let ran = trees.push();
        assert_eq!((ran.outcome().known, ran.outcome().repairs), (false, 0), "{form:?}");
        trees.edit(12);
        assert_eq!(trees.push().round_trips(), 1, "and then it remembers again");
    }
}

#[test]
fn files_that_go_by_themselves_are_named_by_what_is_remembered() {
    let trees = Trees::knowing(70, KeepForm::Copy);
    trees.write("dir1/large", &random(7, 100_000));
    let path = RelPath::new(*b"tree").expect("a plain name");
    let source = Place { root: RootId::new(0), path: path.clone() };
    let command = Command::PushTree { source, path, options: TreeOptions::default(), condition: Condition::Any };
    trees.edit(13);
    let pair = Pair::new(71).config(Config::default().remember(true)).command(command);
    let ran = pair.storages(trees.client(), trees.server()).run_to_end();
    assert!(ran.outcome().known);
    let named = ran.events.iter().find_map(|event| match &event.kind {
        EventKind::Differs { tree, ranges } => Some(members_to_send(tree, ranges)),
        _ => None,
    });
    let named: Vec<String> =
        named.expect("it says what differs").iter().map(|member| member.path.to_string()).collect();
    assert_eq!(named, ["dir1/large"]);
}

/// The delta and all that is said of it may come before it is known that the tree is there already.
#[test]
fn a_tree_that_somebody_has_brought_up_to_date_is_there() {
    for seed in 0..20 {
        let mut trees = Trees::knowing(9000 + 10 * seed, KeepForm::Copy);
        trees.edit(13);
        let old = trees.state.path().join("known");
        let kept = trees.state.path().join("kept");
        let copy = |from: &Path, to: &Path| {
            fs::create_dir_all(to.join("kept")).expect("made");
            for entry in fs::read_dir(from.join("kept")).expect("it remembers") {
                let entry = entry.expect("an entry");
                fs::copy(entry.path(), to.join("kept").join(entry.file_name())).expect("copied");
            }
            fs::copy(from.join("known.redb"), to.join("known.redb")).expect("copied");
        };
        copy(&old, &kept);
        trees.push();
        fs::remove_dir_all(&old).expect("there");
        copy(&kept, &old);
        let ran = trees.push();
        assert_eq!((ran.round_trips(), ran.outcome().generation), (1, None), "{seed}: it was there");
    }
}

/// All of it is remembered: what is sent beside the tree does not make it another one before it was looked at.
#[test]
fn files_that_go_by_themselves_go_beside_the_tree_that_waits_for_them() {
    for seed in 0..12 {
        let mut trees = Trees::knowing(100 * seed, KeepForm::Copy);
        let large = |edit| {
            let mut bytes = random(7, 100_000);
            bytes[50_000..50_010].fill(edit);
            bytes
        };
        trees.write("dir1/large", &large(1));
        trees.write("dir2/larger", &random(8, 200_000));
        let first = trees.push_with_members();
        assert_eq!((first.outcomes.len(), first.outcomes[0].as_ref().is_ok_and(|tree| tree.known)), (3, true));
        trees.edit(13);
        trees.write("dir1/large", &large(2));
        let second = trees.push_with_members();
        let known = |outcome: &Result<Outcome, _>| outcome.as_ref().is_ok_and(|outcome| outcome.known);
        assert!(second.outcomes.len() == 2 && second.outcomes.iter().all(known), "{seed}: {:?}", second.outcomes);
        assert!(second.round_trips() <= 3, "{seed}: {}", second.round_trips());
        let more = trees.push_with_members();
        assert_eq!((more.outcomes.len(), more.round_trips()), (1, 1), "{seed}: the tree is remembered with them");
    }
}

/// Nothing is heard of the tree while its only file goes, for longer than a transfer may be silent.
#[test]
fn a_tree_that_waits_is_not_given_up() {
    let mut trees = Trees::knowing(5000, KeepForm::Copy);
    trees.write("dir1/large", &random(9, 200_000));
    let short = Config::default().silence(Duration::from_secs(3), Duration::from_secs(15));
    let ran = trees.push_with_members_by(short, Link::perfect().delay(Duration::from_secs(4)));
    assert!(ran.elapsed > Duration::from_secs(20), "{:?}", ran.elapsed);
}

/// A tree that waits takes no place from its files, whatever else is to be done: another tree stands before them.
#[test]
fn trees_that_wait_leave_room_for_their_files() {
    for transfers in [1, 2, 3] {
        let trees = Trees::empty(6000, KeepForm::Copy);
        let names = ["one", "two", "three", "four"];
        for name in names {
            trees.write(&format!("{name}/short"), b"short");
            (0..3).for_each(|n| trees.write(&format!("{name}/large{n}"), &random(n, 100_000)));
        }
        let place = |path: &RelPath| Place { root: RootId::new(0), path: path.clone() };
        let (options, condition) = (TreeOptions::default(), Condition::Any);
        let roots = names.map(|name| RelPath::new(format!("tree/{name}")).expect("a plain name"));
        let push = |path: &RelPath| Command::PushTree {
            source: place(path),
            path: path.clone(),
            options: options.clone(),
            condition,
        };
        let config = Config::default().transfers(transfers);
        let mut pair = Pair::new(6000).client_config(config);
        for root in &roots {
            pair = pair.command(push(root));
        }
        // Which tree each file is of, and how many of each are on their way.
        let (mut of, mut moving, mut next) = (BTreeMap::new(), BTreeMap::new(), 1 + names.len() as u32);
        let answering = move |event: &Event| match &event.kind {
            EventKind::Differs { tree, ranges } => {
                let root = &roots[event.transfer.get() as usize - 1];
                let members = members_to_send(tree, ranges).into_iter().map(|member| push_member(root, member));
                let commands: Vec<_> = (next..).map(TransferId::new).zip(members).collect();
                next += commands.len() as u32;
                of.extend(commands.iter().map(|(id, _)| (*id, event.transfer)));
                moving.insert(event.transfer, commands.len());
                commands
            }
            EventKind::Ended(result) => {
                assert!(result.is_ok(), "{result:?}");
                let Some(tree) = of.get(&event.transfer) else { return Vec::new() };
                let left = moving.get_mut(tree).expect("it is on its way");
                *left -= 1;
                if *left == 0 { vec![(*tree, Command::Complete)] } else { Vec::new() }
            }
            _ => Vec::new(),
        };
        let ran = pair.answering(answering).storages(trees.client(), trees.server()).run_to_end();
        assert_eq!(ran.outcomes.len(), 4 + 12);
        names.iter().for_each(|name| assert_eq!(see(&trees.here(name)), see(&trees.there(name))));
    }
}

/// The lists of a tree that waits take memory: where that is short it does not wait, whoever never says that it may end.
#[test]
fn a_tree_that_is_too_large_to_wait_ends_without_its_files() {
    let trees = Trees::knowing(8000, KeepForm::Copy);
    (0..5000).for_each(|number| trees.write(&format!("more/{number}"), b"short"));
    trees.write("dir1/large", &random(7, 100_000));
    let path = RelPath::new(*b"tree").expect("a plain name");
    let source = Place { root: RootId::new(0), path: path.clone() };
    let command = Command::PushTree { source, path, options: TreeOptions::default(), condition: Condition::Any };
    let (short, long) = (Config::default().memory(2 << 20), Config::default());
    // Either end may be the one that is short of it.
    for (client, server) in [(short.clone(), long.clone()), (long, short)] {
        std::fs::remove_dir_all(trees.there("")).expect("there");
        let pair = Pair::new(8001).client_config(client).server_config(server).command(command.clone());
        let ran = pair.answering(|_| Vec::new()).storages(trees.client(), trees.server()).run_to_end();
        ran.outcome();
        assert!(trees.there("more/4999").exists() && !trees.there("dir1/large").exists());
    }
}

/// What is remembered under a name was a file then, and is a directory now.
#[test]
fn a_file_that_became_a_tree_is_pushed_as_one() {
    let mut trees = Trees::knowing(80, KeepForm::Copy);
    let was_a_file = |ask: &Ask, answer| match (ask, answer) {
        (Ask::Recall { .. }, Ok(Answer::Recalled(Some(mut remembered)))) => {
            let bytes = random(8, 10_000);
            let cutter = deltasync_core::Cutter::for_len(deltasync_core::ByteLen::of(&bytes));
            let chunks = deltasync_core::ChunkList::of(&bytes, cutter, deltasync_core::Algorithm::Blake3);
            remembered.chunks = Arc::new(chunks);
            Ok(Answer::Recalled(Some(remembered)))
        }
        (_, answer) => answer,
    };
    trees.edit(14);
    let ran = trees.push_with(Arc::new(Changed(trees.client(), was_a_file)));
    assert!(!ran.outcome().known);
    assert_eq!(ran.round_trips(), 2);
}
