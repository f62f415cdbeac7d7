//! What a stage that came to nothing leaves, where it is found again, and what staging may take.

use deltasync_core::{ChunkList, Cutter};
use deltasync_proto::{Cutting, OpenedFile};
use rustix::fs::Timespec;

use super::*;
use crate::laws::{commit_over, name, place, there};

/// The answer to a look at the basis of this content.
fn look(storage: &dyn BlockingStorage, at: &str, wanted: Option<&[u8]>) -> (Option<OpenedFile>, Option<OpenedFile>) {
    let destination = Destination { place: place(at), name: name("source"), directory: false };
    let wanted = wanted.map(|wanted| (Algorithm::Blake3.digest(wanted), ByteLen::of(wanted)));
    let cutting = Cutting::Exactly(Cutter::FIXED_4096);
    match storage.answer(Ask::Basis { destination, cutting, algorithm: Algorithm::Blake3, wanted }) {
        Ok(Answer::Basis { file, partial, .. }) => (file, partial),
        other => panic!("asked for a basis, got {other:?}"),
    }
}

fn partial(storage: &dyn BlockingStorage, at: &str, wanted: &[u8]) -> Option<OpenedFile> {
    look(storage, at, Some(wanted)).1
}

/// Begins a stage of this content, and appends its first bytes.
fn begin(storage: &dyn BlockingStorage, at: &str, content: &[u8], first: usize) -> StageHandle {
    let (len, root) = (ByteLen::of(content), Algorithm::Blake3.digest(content));
    let ask = Ask::Stage { place: place(at), len, algorithm: Algorithm::Blake3, root };
    let Ok(Answer::Staged(stage)) = storage.answer(ask) else { panic!("it cannot be staged") };
    append(storage, &stage, &content[..first]).expect("appended");
    stage
}

#[track_caller]
fn assert_is(storage: &dyn BlockingStorage, found: Option<&OpenedFile>, bytes: &[u8]) {
    let found = found.expect("it is there");
    assert!(*found.chunks == ChunkList::of(bytes, Cutter::FIXED_4096, Algorithm::Blake3), "{:?}", found.chunks.len());
    assert!(read(storage, &found.file, &[(0, bytes.len() as u64)]).expect("all") == bytes);
    let across = (bytes.len() as u64 / 2, bytes.len() as u64 / 4);
    assert!(read(storage, &found.file, &[across]).expect("a part") == bytes[across.0 as usize..][..across.1 as usize]);
}

/// The files that stages have left, published ones left out.
fn left(bench: &Bench, published: &[&str]) -> Vec<String> {
    bench.leftovers().into_iter().filter(|name| !published.contains(&name.as_str())).collect()
}

/// Both kinds of storage, and what is at the place before.
fn benches() -> impl Iterator<Item = (Bench, Option<Vec<u8>>)> {
    [true, false].into_iter().flat_map(|served| {
        [None, Some(noise(300_001, 1))].map(|old| (Bench::new(served, false, Limits::default()), old))
    })
}

#[test]
fn what_a_cut_stage_has_left_is_the_basis_of_the_next() {
    for (bench, old) in benches() {
        let storage = bench.storage();
        old.iter().for_each(|old| bench.put("dir/file", old));
        bench.make_directory("dir");
        let target = noise(1_000_000, 2);
        let stage = begin(storage, "dir/file", &target, 700_001);
        assert!(partial(storage, "dir/file", &target).is_none(), "somebody writes it");
        drop(stage);
        let old = old.unwrap_or_default();
        let together = [&target[..700_001], &old].concat();
        let (file, found) = look(storage, "dir/file", Some(&target));
        assert_eq!(file.is_some(), !old.is_empty());
        file.iter().for_each(|file| assert_eq!(file.chunks.root(), Algorithm::Blake3.digest(&old)));
        assert_is(storage, found.as_ref(), &together);
        // Who does not know the root yet, or wants another by now, gets it as well; and no other place does.
        assert_is(storage, look(storage, "dir/file", None).1.as_ref(), &together);
        assert_is(storage, partial(storage, "dir/file", b"another").as_ref(), &together);
        assert!(partial(storage, "dir/other", &target).is_none() && partial(storage, "file", &target).is_none());
        let (entries, _) = list(storage, "dir", None, 10).expect("the directory");
        assert_eq!(entries.len(), usize::from(!old.is_empty()), "nobody sees it");

        let found = found.expect("it is there");
        let stage = begin(storage, "dir/file", &target, 0);
        let copied = Op::Copy { from: Offset::ZERO, len: ByteLen::new(700_001) };
        let rest = Op::Literal { len: ByteLen::new(299_999) };
        let both = plan(together.len() as u64, &[copied, rest]);
        apply(storage, &stage, Some(&found.file), both, &target[700_001..]).expect("applied");
        commit_over(storage, &stage, there(storage, "dir/file")).expect("published");
        assert!(bench.get("dir/file").expect("there") == target);
        assert!(left(&bench, &["dir"]).is_empty() && fs::read_dir(bench.at("dir")).expect("there").count() == 1);
        assert!(partial(storage, "dir/file", b"yet another").is_none());
        assert!(read(storage, &found.file, &[(0, 700_001)]).expect("still open") == target[..700_001]);
    }
}

#[test]
fn the_longest_part_of_a_target_stays() {
    for (bench, _) in benches() {
        let (storage, target) = (bench.storage(), noise(1_000_000, 3));
        // Two at once, that end in either order.
        for lens in [[500_000, 600_000], [700_000, 550_000]] {
            let stages = lens.map(|len| begin(storage, "file", &target, len));
            stages.into_iter().for_each(drop);
            let longest = *lens.iter().max().expect("two");
            assert_is(storage, partial(storage, "file", &target).as_ref(), &target[..longest]);
            assert_eq!(left(&bench, &[]).len(), 1);
        }
        drop(begin(storage, "file", &target, 65_535));
        drop(begin(storage, "small", &target, 65_535));
        assert!(partial(storage, "small", &target).is_none());
        assert_is(storage, partial(storage, "file", &target).as_ref(), &target[..700_000]);
        drop(begin(storage, "small", &target, 65_536));
        assert_is(storage, partial(storage, "small", &target).as_ref(), &target[..65_536]);
    }
}

#[test]
fn of_one_place_the_part_of_the_wanted_target_is_taken() {
    let bench = Bench::new(true, false, Limits::default());
    let (storage, targets) = (bench.storage(), [4, 5, 6].map(|seed| noise(200_000, seed)));
    for target in &targets {
        drop(begin(storage, "file", target, 150_000));
        // The clock that stamps files ticks every few milliseconds.
        thread::sleep(Duration::from_millis(30));
    }
    for target in &targets {
        assert_is(storage, partial(storage, "file", target).as_ref(), &target[..150_000]);
    }
    assert_is(storage, look(storage, "file", None).1.as_ref(), &targets[2][..150_000]);
    // What is there needs no partial.
    publish(storage, "file", &targets[2]).expect("published");
    assert!(partial(storage, "file", &targets[2]).is_none());
    assert_eq!(left(&bench, &["file"]).len(), 3, "published without being named as the target");
}

/// Of a connection that was lost, while the next one made the target.
#[test]
fn a_stage_that_comes_to_nothing_after_its_target_was_published_leaves_nothing() {
    for old in [None, Some(b"old")] {
        let bench = Bench::new(false, false, Limits::default());
        let (storage, target) = (bench.storage(), noise(200_000, 3));
        old.iter().for_each(|old| bench.put("file", *old));
        let late = begin(storage, "file", &target, 150_000);
        publish(storage, "file", &target).expect("published");
        assert_eq!(left(&bench, &["file"]).len(), 1, "what is being written stays");
        drop(late);
        assert!(left(&bench, &["file"]).is_empty());
    }
}

#[test]
fn what_was_in_conflict_is_kept() {
    let bench = Bench::new(true, false, Limits::default());
    let (storage, target) = (bench.storage(), noise(100_000, 7));
    bench.put("file", b"old");
    let stage = begin(storage, "file", &target, 100_000);
    assert_fault(commit(storage, &stage), FaultKind::Conflict, "file: ");
    drop(stage);
    assert_is(storage, partial(storage, "file", &target).as_ref(), &[&target[..], b"old"].concat());
}

/// A client that is killed leaves its file without a lock.
#[test]
fn what_a_killed_client_has_left_is_found_by_its_name() {
    let bench = Bench::new(false, false, Limits::default());
    let (storage, target) = (bench.storage(), noise(300_000, 8));
    let kill = |stage: StageHandle| {
        let [name] = &left(&bench, &[])[..] else { panic!("one stage") };
        let kept = fs::read(bench.at(name)).expect("there");
        drop(stage);
        let _ = fs::remove_file(bench.at(name));
        fs::write(bench.at(name), kept).expect("written");
        name.clone()
    };
    let first = kill(begin(storage, "file", &target, 200_000));
    let adopted = partial(storage, "file", &target);
    assert_is(storage, adopted.as_ref(), &target[..200_000]);
    // The next one takes another name, and is killed earlier: the longer one is gone on from, and the other goes.
    let stage = begin(storage, "file", &target, 100_000);
    let second = left(&bench, &[&first]);
    assert_eq!(second.len(), 1);
    assert_is(storage, partial(storage, "file", &target).as_ref(), &target[..200_000]);
    assert_eq!(left(&bench, &[]).len(), 2, "what is being written stays");
    drop(stage);
    assert_is(storage, partial(storage, "file", &target).as_ref(), &target[..200_000]);
    assert_eq!(left(&bench, &[]), std::slice::from_ref(&first));
    // What is too short is of no use to anybody, and neither is what is old.
    fs::write(bench.at(&first), &target[..1000]).expect("written");
    assert!(partial(storage, "file", &target).is_none() && left(&bench, &[]).is_empty());
    fs::write(bench.at(&first), &target[..200_000]).expect("written");
    age(&bench.at(&first), 8);
    assert!(partial(storage, "file", &target).is_none() && left(&bench, &[]).is_empty());
}

#[test]
fn what_others_put_under_such_a_name_is_left_alone() {
    let outside = TempDir::new().expect("a temporary directory");
    let secret = noise(200_000, 9);
    fs::write(outside.path().join("secret"), &secret).expect("written");
    let bench = Bench::new(false, false, Limits::default());
    let (storage, target) = (bench.storage(), noise(300_000, 8));
    drop(begin(storage, "file", &target, 100_000));
    let [slot] = &left(&bench, &[])[..] else { panic!("one is left") };
    fs::remove_file(bench.at(slot)).expect("removed");
    symlink(outside.path().join("secret"), bench.at(slot)).expect("linked");
    assert!(partial(storage, "file", &target).is_none());
    let stage = begin(storage, "file", &target, 300_000);
    fs::remove_file(bench.at(slot)).expect("removed");
    rustix::fs::mknodat(CWD, bench.at(slot), FileType::Fifo, rustix::fs::Mode::RUSR, 0).expect("a pipe");
    assert!(partial(storage, "file", &target).is_none());
    commit(storage, &stage).expect("published");
    assert!(bench.get("file").expect("there") == target && bench.at(slot).exists());
    assert!(fs::read(outside.path().join("secret")).expect("there") == secret);
}

fn age(path: &std::path::Path, days: i64) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let then = Timespec { tv_sec: now.as_secs() as i64 - days * 24 * 60 * 60, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: then, last_modification: then };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::empty()).expect("set");
}

/// As after a kill or a power cut: the stage is never dropped, and another server opens the directory.
#[test]
fn a_server_that_was_killed_goes_on_from_what_it_had_staged() {
    let bench = Bench::new(true, false, Limits::default());
    let target = noise(300_000, 10);
    std::mem::forget(begin(bench.storage(), "file", &target, 200_000));
    std::mem::forget(begin(bench.storage(), "short", &target, 65_535));
    fs::write(bench.at(".deltasync/staging/.file.deltasync-00000000"), noise(100_000, 1)).expect("written");
    let bench = bench.restart(LocalOptions::default());
    assert_is(bench.storage(), partial(bench.storage(), "file", &target).as_ref(), &target[..200_000]);
    let [name] = &left(&bench, &[])[..] else { panic!("all else is swept: {:?}", left(&bench, &[])) };
    assert_eq!(bench.storage.recovery().stages_removed, 2);
    age(&bench.at(".deltasync/staging").join(name), 6);
    let bench = bench.restart(LocalOptions::default());
    let [name] = &left(&bench, &[])[..] else { panic!("younger than a week") };
    age(&bench.at(".deltasync/staging").join(name), 8);
    let bench = bench.restart(LocalOptions::default());
    assert!(left(&bench, &[]).is_empty());
}

#[test]
fn partials_give_way_to_stages_and_stages_to_nobody() {
    let bench = Bench::new(true, false, Limits::default());
    let bench = bench.restart(LocalOptions::default().staging(ByteLen::new(1_000_000)));
    let storage = bench.storage();
    assert_fault(stage(storage, "file", 1_000_001), FaultKind::Full, "file: 1000001 bytes are more than may be staged");
    let parts = [1, 2, 3].map(|seed| noise(400_000, seed));
    for (number, part) in parts.iter().enumerate() {
        drop(begin(storage, &format!("part{number}"), part, 300_000));
        thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(left(&bench, &[]).len(), 3);
    // A stage claims room as bytes come: the oldest goes for it.
    let first = begin(storage, "first", &noise(600_000, 4), 0);
    assert_eq!(left(&bench, &[]).len(), 4);
    append(storage, &first, b"x").expect("there is room");
    assert!(partial(storage, "part0", &parts[0]).is_none() && partial(storage, "part1", &parts[1]).is_none());
    assert_is(storage, partial(storage, "part2", &parts[2]).as_ref(), &parts[2][..300_000]);
    let second = begin(storage, "second", &noise(600_000, 5), 0);
    assert_fault(append(storage, &second, b"x"), FaultKind::Full, "second: ");
    append(storage, &first, b"y").expect("the first one goes on");
    // What was too much for one is there for it when the other has gone.
    drop(first);
    append(storage, &second, b"x").expect("there is room now");
    assert!(partial(storage, "part2", &parts[2]).is_some());
    let bench = {
        drop(second);
        bench.restart(LocalOptions::default().staging(ByteLen::new(100_000)))
    };
    assert!(left(&bench, &[]).is_empty(), "a smaller quota holds at once");
}

#[test]
fn an_announced_length_sets_nothing_aside() {
    for (bench, _) in benches() {
        let storage = bench.storage();
        let free = rustix::fs::statvfs(bench.directory.path()).map(|is| is.f_bavail * is.f_frsize).expect("known");
        let taken = || {
            let all = [bench.at(""), bench.at(".deltasync/staging")];
            let files = all.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten());
            let files = files.map(|file| file.expect("an entry").metadata().expect("it stays"));
            files.filter(|file| file.is_file()).map(|file| file.blocks() * 512).sum::<u64>()
        };
        let staged = stage(storage, "file", (free / 2).min(100 << 30)).expect("it would fit");
        assert_eq!(taken(), 0);
        append(storage, &staged, b"x").expect("appended");
        assert!(taken() <= (64 << 20) + 4096, "{}", taken());
        let names = "file: no room for ";
        assert_fault(stage(storage, "file", free.saturating_add(1 << 30).min(1 << 39)), FaultKind::Full, names);
    }
}
