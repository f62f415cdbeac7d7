//! A tree that is made on a simulated disk of which every call fails in turn, and whose power is cut at each: every file is
//! the old one or the new one, whole, and a tree that was acknowledged is there as a whole.

use std::collections::BTreeMap;

use deltasync_core::{
    Algorithm, Attributes, ByteLen, Limits, Name, Op, Ops, Planner, RelPath, TreeEntry, TreeKind, TreeLister,
    content_check,
};
use deltasync_io::{BlockingStorage, LocalOptions, LocalStorage};
use deltasync_proto::{
    Answer, Ask, Cutting, Destination, Extra, Place, Replaces, RootId, Scope, StorageFault, TreeOptions,
};
use deltasync_testkit::{Rng, SimDisk, SimFault};
use rustix::io::Errno;

/// What a tree has: the content of files, `None` for directories.
type Tree = BTreeMap<&'static str, Option<&'static [u8]>>;

fn old() -> Tree {
    BTreeMap::from([
        ("a", Some(&b"old"[..])),
        ("d", None),
        ("d/changed", Some(&[1; 9000])),
        ("d/extra", Some(b"goes")),
        ("d/same", Some(&[2; 5000])),
        ("gone", None),
        ("gone/file", Some(b"goes too")),
        ("turns", Some(b"a file that becomes a directory")),
    ])
}

fn new() -> Tree {
    BTreeMap::from([
        ("a", Some(&b"new"[..])),
        ("d", None),
        ("d/changed", Some(&[3; 12_000])),
        ("d/deep", None),
        ("d/deep/new", Some(b"has come")),
        ("d/same", Some(&[2; 5000])),
        ("turns", None),
        ("turns/in", Some(b"a directory that was a file")),
    ])
}

fn serve(disk: &SimDisk) -> Result<LocalStorage, String> {
    LocalStorage::serve_on(disk.root(), LocalOptions::default()).map_err(|error| error.to_string())
}

/// How a tree becomes visible.
#[derive(Clone, Copy, PartialEq)]
enum As {
    Files,
    OneChange,
}

/// Makes this tree of `t`.
fn push(disk: &SimDisk, tree: &Tree, way: As) -> Result<(), String> {
    make(&serve(disk)?, tree, way).map_err(|fault| fault.to_string())
}

fn make(server: &LocalStorage, tree: &Tree, way: As) -> Result<(), StorageFault> {
    let path = |path: &str| RelPath::new(path.as_bytes()).expect("a path");
    let (algorithm, attributes) = (Algorithm::Blake3, Attributes::new(0o755, 7, 0).expect("in range"));
    let mut lister = TreeLister::new(algorithm, &Limits::default());
    let entry = |at: &str, kind| TreeEntry::new(path(at), kind, attributes);
    lister.push(&entry("", TreeKind::Directory)).expect("the first");
    for (at, content) in tree {
        let file = |content| TreeKind::File { len: ByteLen::of(content), root: None };
        lister.push(&entry(at, content.map_or(TreeKind::Directory, file))).expect("in order");
    }
    let list = lister.finish();
    let mut archive = list.header(0).to_vec();
    for (index, content) in (1..).zip(tree.values()) {
        archive.extend_from_slice(list.header(index));
        if let Some(content) = content {
            archive.extend_from_slice(&content_check(content));
            archive.extend_from_slice(content);
        }
    }
    let atomic = way == As::OneChange;
    let place = Place { root: RootId::new(0), path: path("t") }.beside_if(atomic);
    let wanted = Some((list.chunks().root(), list.chunks().len()));
    let destination = Destination { place: place.clone(), name: Name::any(), directory: false };
    let ask = Ask::Basis { destination, cutting: Cutting::Tree(Scope::default()), algorithm, wanted };
    let Answer::Basis { file: basis, .. } = server.answer(ask)? else { panic!("a basis was asked for") };
    if basis.as_ref().is_some_and(|basis| basis.chunks.root() == list.chunks().root()) {
        return Ok(());
    }
    let basis_len = basis.as_ref().map_or(ByteLen::ZERO, |basis| basis.chunks.len());
    let (basis, len) = (basis.map(|basis| basis.file), ByteLen::of(&archive));
    let extra = Extra::Delete { most: Some(9) };
    let options = TreeOptions::default().extra(extra).atomic(atomic);
    let ask = Ask::StageTree { place, len, algorithm, basis: basis.clone(), options };
    let Answer::Staged(stage) = server.answer(ask)? else { panic!("a stage was asked for") };
    let ops: Ops = [Op::Literal { len }].into_iter().collect();
    let mut planner = Planner::new(basis_len, len, &Limits::default()).expect("within the limits");
    let plan = planner.plan(&ops, ops.literal_len()).expect("it fits");
    server.answer(Ask::Apply { stage: stage.clone(), basis, plan, literals: archive.into() })?;
    server.answer(Ask::Seal { stage: stage.clone() })?;
    server.answer(Ask::Commit { stage, replaces: Replaces::Nothing }).map(drop)
}

/// What a user sees of the tree.
fn seen(disk: &SimDisk) -> BTreeMap<String, Option<Vec<u8>>> {
    let below = |(path, bytes): (String, _)| Some((path.strip_prefix("t/")?.to_owned(), bytes));
    disk.tree().into_iter().filter_map(below).filter(|(path, _)| !path.contains(".deltasync-")).collect()
}

fn whole(tree: &Tree) -> BTreeMap<String, Option<Vec<u8>>> {
    tree.iter().map(|(path, content)| ((*path).to_owned(), content.map(<[u8]>::to_vec))).collect()
}

/// Each path has what it had, or what it is to have, and nothing else is there; as one change it is all of one of them.
fn check_each(disk: &SimDisk, before: &Tree, after: &Tree, way: As, case: &str) {
    let (before, after, seen) = (whole(before), whole(after), seen(disk));
    assert!(way == As::Files || seen == before || seen == after, "{case}: a mixture: {:?}", seen.keys());
    for path in before.keys().chain(after.keys()).chain(seen.keys()) {
        let is = seen.get(path);
        // What becomes something else, a directory of a file, is away for a moment.
        let turns = before.get(path).map(Option::is_some) != after.get(path).map(Option::is_some);
        let right = is == before.get(path) || is == after.get(path) || is.is_none() && turns;
        assert!(right, "{case}: {path} has {:?} bytes", is.map(|is| is.as_ref().map(Vec::len)));
    }
}

fn check_all(disk: &SimDisk, tree: &Tree, case: &str) {
    assert!(seen(disk) == whole(tree), "{case}: done, and not all there, but {:?}", seen(disk).keys());
}

fn check_faults(before: &Tree, after: &Tree, way: As) {
    let disk = SimDisk::new();
    push(&disk, before, way).expect("made");
    assert_eq!(seen(&disk), whole(before));
    let disk = disk.power_cut(&mut Rng::new(0));
    assert_eq!(seen(&disk), whole(before), "an acknowledged tree is there after a power cut");
    let calls = {
        let clean = disk.copy();
        push(&clean, after, way).expect("made");
        assert_eq!(seen(&clean), whole(after));
        clean.calls_to()
    };
    let errors =
        [Errno::IO, Errno::NOSPC, Errno::ACCESS, Errno::INTR].map(|errno| SimFault::Errno(errno.raw_os_error()));
    let (mut done, mut failed) = (0, 0);
    for n in 1..=calls.len() {
        for fault in errors.into_iter().chain([SimFault::Crash]) {
            let (call, at) = &calls[n - 1];
            let case = format!("call {n} of {}, {call:?} {at:?}: {fault:?}", calls.len());
            let ran = disk.copy();
            ran.fail(n as u64, None, fault);
            let server = serve(&ran);
            let attempt =
                || make(server.as_ref().map_err(String::clone)?, after, way).map_err(|fault| fault.to_string());
            let result = attempt();
            *(if result.is_ok() { &mut done } else { &mut failed }) += 1;
            check_each(&ran.copy(), before, after, way, &case);
            // Whoever tries again finds what is there, and is told that all of it lasts.
            if result.is_err() && fault != SimFault::Crash && attempt().is_ok() {
                (0..20).for_each(|seed| check_all(&ran.power_cut(&mut Rng::new(seed)), after, &case));
                continue;
            }
            for seed in 0..3 {
                let left = ran.power_cut(&mut Rng::new(n as u64 * 10 + seed));
                check_each(&left, before, after, way, &case);
                if result.is_ok() {
                    check_all(&left, after, &case);
                }
                if fault == SimFault::Crash || seed == 0 {
                    push(&left, after, way).unwrap_or_else(|error| panic!("{case}: a second attempt: {error}"));
                    check_all(&left, after, &case);
                }
            }
        }
    }
    println!("{} calls; {failed} runs failed, {done} were done", calls.len());
    assert!(failed > 50 && done > 10);
}

#[test]
fn a_tree_over_another_is_old_or_new_file_by_file_and_lasts_when_it_is_done() {
    check_faults(&old(), &new(), As::Files);
}

#[test]
fn a_tree_where_none_was_lasts_when_it_is_done() {
    check_faults(&Tree::new(), &new(), As::Files);
}

#[test]
fn a_tree_that_is_replaced_as_one_change_is_old_or_new_and_lasts_when_it_is_done() {
    check_faults(&old(), &new(), As::OneChange);
}

#[test]
fn a_tree_that_comes_as_one_change_is_there_or_not_and_lasts_when_it_is_done() {
    check_faults(&Tree::new(), &new(), As::OneChange);
}
