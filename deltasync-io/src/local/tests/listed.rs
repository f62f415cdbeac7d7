//! Chunk lists that are kept for the next push: when there is one, when there is none, and when it is not believed.

use deltasync_core::{ChunkList, Cutter};
use deltasync_testkit::Rng;

use super::*;

/// Long enough to be listed.
const LEN: usize = 700_000;

fn looks_of(bench: &Bench, at: &str) -> Looks {
    let path = RelPath::new(at.as_bytes()).expect("valid");
    Looks::of(&bench.storage.roots[0].file(&path).expect("it is there")).expect("it is open")
}

/// What the index has of a file as it looks now.
fn listed(bench: &Bench, at: &str) -> Option<ChunkList> {
    let looks = looks_of(bench, at);
    let cutter = Cutter::for_len(ByteLen::new(looks.len));
    let index = &bench.storage.served.as_ref().expect("it is served").index;
    index.list_of(&looks, cutter, Algorithm::Blake3, &Limits::default())
}

fn note(bench: &Bench, at: &str, list: &ChunkList) {
    bench.storage.served.as_ref().expect("it is served").index.note_list(&looks_of(bench, at), list);
}

fn list_of(bytes: &[u8]) -> ChunkList {
    ChunkList::of(bytes, Cutter::for_len(ByteLen::of(bytes)), Algorithm::Blake3)
}

/// What a session gets that is about to push this content.
fn basis_for(bench: &Bench, at: &str, wanted: &[u8]) -> Option<OpenedFile> {
    let place = Place { root: deltasync_proto::RootId::new(0), path: RelPath::new(at.as_bytes()).expect("valid") };
    let (_, name) = place.path.split_last().expect("it has a name");
    let destination = Destination { place, name, directory: false };
    let wanted = Some((Algorithm::Blake3.digest(wanted), ByteLen::of(wanted)));
    let ask = Ask::Basis { destination, cutting: Cutting::ByContent, algorithm: Algorithm::Blake3, wanted };
    match bench.storage.answer(ask) {
        Ok(Answer::Basis { file, .. }) => file,
        other => panic!("asked for a basis, got {other:?}"),
    }
}

/// Pushes a version that differs from what is there in bytes `edit..edit + 100`, as a session does; returns whether the
/// stage had the root that was announced.
fn push_edit(bench: &Bench, at: &str, new: &[u8], edit: usize) -> bool {
    let storage = bench.storage();
    let file = basis_for(bench, at, new).expect("it is there");
    let (place, algorithm) = (crate::laws::place(at), Algorithm::Blake3);
    let ask = Ask::Stage { place, len: ByteLen::of(new), algorithm, root: algorithm.digest(new) };
    let Ok(Answer::Staged(staged)) = storage.answer(ask) else { panic!("no stage") };
    let copy = |from: usize, len: usize| Op::Copy { from: Offset::new(from as u64), len: ByteLen::new(len as u64) };
    let ops = [copy(0, edit), Op::Literal { len: ByteLen::new(100) }, copy(edit + 100, new.len() - edit - 100)];
    let plan = plan(new.len() as u64, &ops);
    // In portions, as a long one comes.
    for portion in plan.portions(ByteLen::new(300_000)) {
        apply(storage, &staged, Some(&file.file), portion, &new[edit..edit + 100]).expect("applied");
    }
    let Ok(Answer::Sealed { root: made, .. }) = storage.answer(Ask::Seal { stage: staged.clone() }) else {
        panic!("no seal")
    };
    if made != algorithm.digest(new) {
        return false;
    }
    commit_over(storage, &staged, Replaces::File(file.file)).expect("published");
    assert!(bench.get(at).as_deref() == Some(new));
    true
}

fn edited(old: &[u8], edit: usize, seed: u64) -> Vec<u8> {
    let mut new = old.to_vec();
    new[edit..edit + 100].copy_from_slice(&Rng::new(seed).bytes(100));
    new
}

/// A served file that was pushed over once, its content, and the index's list of it.
fn pushed() -> (Bench, Vec<u8>) {
    let bench = Bench::new(true, false, Limits::default());
    let old = Rng::new(1).bytes(LEN);
    bench.put("file", &old);
    let new = edited(&old, 200_000, 2);
    assert!(push_edit(&bench, "file", &new, 200_000));
    (bench, new)
}

#[test]
fn a_push_leaves_the_list_of_what_it_published() {
    let (mut bench, mut content) = pushed();
    for (round, edit) in [(1, 0), (2, LEN - 100), (3, 400_000), (4, 400_000)] {
        assert_eq!(listed(&bench, "file").as_ref(), Some(&list_of(&content)), "round {round}");
        if round == 3 {
            bench = bench.restart(LocalOptions::default());
        }
        content = edited(&content, edit, round);
        assert!(push_edit(&bench, "file", &content, edit));
    }
    assert_eq!(listed(&bench, "file"), Some(list_of(&content)));
    let file = describe(bench.storage(), "file").expect("it is there");
    assert_eq!(*file.chunks, list_of(&content));
}

#[test]
fn a_list_is_used_until_the_file_looks_otherwise() {
    let (bench, content) = pushed();
    // A list of other bytes shows that no byte is read.
    let other = list_of(&Rng::new(9).bytes(LEN));
    note(&bench, "file", &other);
    let used = basis_for(&bench, "file", b"wanted").expect("it is there");
    assert_eq!(*used.chunks, other);
    thread::sleep(Duration::from_millis(30));
    bench.put("file", &content);
    let used = basis_for(&bench, "file", b"wanted").expect("it is there");
    assert_eq!(*used.chunks, list_of(&content), "written since");
    assert_eq!(listed(&bench, "file"), None, "it was written a moment ago");
}

#[test]
fn that_a_file_has_the_wanted_root_is_not_said_for_the_sake_of_a_list() {
    let (bench, content) = pushed();
    let other = Rng::new(9).bytes(LEN);
    note(&bench, "file", &list_of(&other));
    let file = basis_for(&bench, "file", &other).expect("it is there");
    assert_eq!(*file.chunks, list_of(&content));
    // Nor is a peer that reads it told.
    assert_eq!(*describe(bench.storage(), "file").expect("it is there").chunks, list_of(&content));
}

#[test]
fn a_list_of_which_another_root_came_is_forgotten() {
    let (bench, content) = pushed();
    let other = edited(&content, 600_000, 9);
    note(&bench, "file", &list_of(&other));
    // The peer believes that the file is the other one.
    let new = edited(&other, 100_000, 3);
    assert!(!push_edit(&bench, "file", &new, 100_000), "it has other bytes at 600,000");
    assert_eq!(listed(&bench, "file"), None);
    assert!(bench.get("file").as_deref() == Some(&content[..]));
    let file = basis_for(&bench, "file", &new).expect("it is there");
    assert_eq!(*file.chunks, list_of(&content));
}

#[test]
fn a_file_that_is_marked_as_damaged_is_read() {
    let (bench, content) = pushed();
    note(&bench, "file", &list_of(&Rng::new(9).bytes(LEN)));
    let (index, path) = (&bench.storage.served.as_ref().expect("it is served").index, RelPath::new(b"file"));
    let path = path.expect("valid");
    let recorded = index.recorded(&path).expect("it was published");
    assert!(index.mark_damaged(&path, &recorded, Digest::default()));
    let file = basis_for(&bench, "file", b"wanted").expect("it is there");
    assert_eq!(*file.chunks, list_of(&content));
}

#[test]
fn a_file_that_was_settled_when_it_was_read_is_listed() {
    let bench = Bench::new(true, false, Limits::default());
    let bytes = Rng::new(4).bytes(LEN);
    bench.put("file", &bytes);
    basis_for(&bench, "file", b"wanted").expect("it is there");
    assert_eq!(listed(&bench, "file"), None, "it was written a moment ago");
    let patience = Instant::now() + Duration::from_secs(20);
    while listed(&bench, "file").is_none() {
        assert!(Instant::now() < patience, "it is never listed");
        thread::sleep(Duration::from_millis(200));
        basis_for(&bench, "file", b"wanted").expect("it is there");
    }
    assert_eq!(listed(&bench, "file"), Some(list_of(&bytes)));
}

/// Whatever a plan is made of, on one thread or two, the stage is the target and its list is that of it.
#[test]
fn long_plans_of_every_kind_make_the_target() {
    let bench = Bench::new(true, false, Limits::default());
    let basis = Rng::new(5).bytes(6 << 20);
    bench.put("file", &basis);
    let literals = Rng::new(6).bytes(1 << 20);
    let mut zeros = basis.clone();
    zeros[1_000_000..4_000_000].fill(0);
    bench.put("zeros", &zeros);
    for (name, basis) in [("file", &basis), ("zeros", &zeros)] {
        let mut ops: Vec<Op> = Vec::new();
        let (mut target, mut used) = (Vec::new(), 0);
        for (n, (from, len, literal)) in [
            (0, 1 << 20, 10),
            (1 << 20, 5 << 20, 300_000),
            (3_000_000, 300_000, 262_144),
            (7, 70_000, 1),
            (0, 3 << 20, 0),
        ]
        .into_iter()
        .enumerate()
        {
            ops.push(Op::Copy { from: Offset::new(from as u64), len: ByteLen::new(len as u64) });
            target.extend_from_slice(&basis[from..from + len]);
            if literal > 0 {
                ops.push(Op::Literal { len: ByteLen::new(literal as u64) });
                target.extend_from_slice(&literals[used..used + literal]);
                used += literal;
            }
            assert!(n < 5);
        }
        let plan = plan(basis.len() as u64, &ops);
        for most in [1 << 30, 9_000_000, 5 << 20, 300_000] {
            let storage = bench.storage();
            let file = basis_for(&bench, name, &target).expect("it is there");
            let (len, root) = (ByteLen::of(&target), Algorithm::Blake3.digest(&target));
            let ask = Ask::Stage { place: crate::laws::place("made"), len, algorithm: Algorithm::Blake3, root };
            let Ok(Answer::Staged(staged)) = storage.answer(ask) else { panic!("no stage") };
            for portion in plan.clone().portions(ByteLen::new(most)) {
                apply(storage, &staged, Some(&file.file), portion, &literals[..used]).expect("applied");
            }
            assert_eq!(crate::laws::seal(storage, &staged), Ok(*root.as_bytes()), "{name} by {most}");
            commit_over(storage, &staged, there(storage, "made")).expect("published");
            assert!(bench.get("made").as_deref() == Some(&target[..]), "{name} by {most}");
            let cutter = file.chunks.cutter();
            let served = bench.storage.served.as_ref().expect("it is served");
            let list = served.index.list_of(&looks_of(&bench, "made"), cutter, Algorithm::Blake3, &Limits::default());
            assert_eq!(list, Some(ChunkList::of(&target, cutter, Algorithm::Blake3)), "{name} by {most}");
        }
    }
}

/// A target takes no more of the disk than what is not zeros in it, and is as long as it should be.
#[test]
fn zeros_become_holes() {
    let bench = Bench::new(true, false, Limits::default());
    let mut target = vec![0; 40 << 20];
    target[20 << 20..][..100_000].copy_from_slice(&Rng::new(7).bytes(100_000));
    let staged = stage(bench.storage(), "file", target.len() as u64).expect("there is room");
    target.chunks(1 << 20).for_each(|piece| append(bench.storage(), &staged, piece).expect("applied"));
    commit(bench.storage(), &staged).expect("published");
    assert!(bench.get("file").as_deref() == Some(&target[..]));
    assert_eq!(*describe(bench.storage(), "file").expect("it is there").chunks, list_of(&target));
    let is = fs::metadata(bench.at("file")).expect("it is there");
    assert!(is.blocks() * 512 < 1 << 20, "{} blocks", is.blocks());
    // Also when what is copied lies elsewhere in the basis, and comes in parts of any length.
    let Ok((_, Some(basis))) = basis(bench.storage(), "file", false) else { panic!("it is there") };
    let (head, len) = (ByteLen::new(12_345), ByteLen::of(&target));
    let plan = plan(len.get(), &[Op::Literal { len: head }, Op::Copy { from: Offset::ZERO, len }]);
    let staged = stage(bench.storage(), "moved", (head + len).get()).expect("there is room");
    for portion in plan.portions(ByteLen::new(5_000_001)) {
        apply(bench.storage(), &staged, Some(&basis.file), portion, &[1; 12_345]).expect("applied");
    }
    commit(bench.storage(), &staged).expect("published");
    assert!(bench.get("moved").is_some_and(|moved| moved == [&[1; 12_345], &target[..]].concat()));
    let is = fs::metadata(bench.at("moved")).expect("it is there");
    assert!(is.blocks() * 512 < 3 << 20, "{} blocks", is.blocks());
    let staged = stage(bench.storage(), "left", 1 << 20).expect("there is room");
    append(bench.storage(), &staged, &target[..1 << 19]).expect("applied");
    let Ok(Answer::Reopened(file)) = bench.storage.answer(Ask::Reopen { stage: staged }) else { panic!("not open") };
    assert!(read(bench.storage(), &file, &[(0, 1 << 19)]).expect("zeros").iter().all(|byte| *byte == 0));
}
