//! What a served directory remembers, when it is damaged, lost, or cannot be written: over a simulated disk.

use deltasync_core::{Algorithm, ByteLen, ChunkList, Cutter, Digest, Generation, Offset, Op};
use deltasync_io::{BlockingStorage, KeepForm, LocalOptions, LocalStorage};
use deltasync_proto::{Answer, Ask, Cutting, Destination, FaultKind, Replaces, StorageFault};
use deltasync_testkit::{FuzzTarget, Rng, SimCall, SimDisk, SimFault};

#[path = "../src/laws.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "most of them are for other tests")]
mod laws;

use laws::{assert_fault, basis, describe, publish};

const INDEX: &str = ".deltasync/index";
const MARK: &str = ".deltasync/generation";

/// How many commits count without a disk.
const BLOCK: u64 = 1024;

const EIO: i32 = 5;

fn serve(disk: &SimDisk) -> LocalStorage {
    LocalStorage::serve_on(disk.root(), LocalOptions::default()).expect("it is served")
}

/// Publishes the number of the round at one of a few paths, as a session does: it looks at the basis first.
fn commit(storage: &LocalStorage, round: u64) -> Result<Generation, StorageFault> {
    let at = format!("file-{}", round % 5);
    basis(storage, &at, false)?;
    publish(storage, &at, &round.to_le_bytes())
}

/// The names of what was set aside.
fn set_aside(disk: &SimDisk) -> Vec<String> {
    disk.tree().into_keys().filter(|path| path.contains("damaged")).collect()
}

/// Two thousand kinds of damage: bits, pages and lengths of the index, with and without the mark beside it.
#[test]
fn a_server_starts_and_knows_nothing_wrong_whatever_is_damaged() {
    let mut rng = Rng::new(1);
    for run in 0..2000 {
        let mut bytes = vec![rng.below(8) as u8];
        if bytes[0] >> 1 == 3 {
            // Which bits of the mark.
            bytes.extend(rng.bytes(2));
        }
        for _ in 0..1 + run % 3 {
            // Half of them do not touch the header or the length: a bit or a page where a small database has its pages.
            let (harm, at) = if run % 2 == 0 {
                ([0, 3, 4][rng.below(3)], 4096 + rng.below(100 << 10))
            } else {
                (rng.below(6) as u8, rng.below(2 << 20))
            };
            bytes.push(harm);
            bytes.extend_from_slice(&at.to_le_bytes()[..3]);
            bytes.extend(rng.bytes(3));
        }
        FuzzTarget::Index.run(&bytes);
    }
}

/// The chunk list of what was pushed is in the index: whatever is damaged there, what a session is told is right.
#[test]
fn a_list_in_a_damaged_index_is_right_or_none() {
    let content = laws::noise(400_000, 1);
    let (len, root) = (ByteLen::of(&content), Algorithm::Blake3.digest(&content));
    let disk = SimDisk::new();
    let storage = serve(&disk);
    disk.put("file", &content);
    let Ok((_, Some(there))) = basis(&storage, "file", false) else { panic!("it is there") };
    let ask = Ask::Stage { place: laws::place("file"), len, algorithm: Algorithm::Blake3, root };
    let Ok(Answer::Staged(stage)) = storage.answer(ask) else { panic!("no stage") };
    let plan = laws::plan(len.get(), &[Op::Copy { from: Offset::ZERO, len }]);
    laws::apply(&storage, &stage, Some(&there.file), plan, &[]).expect("applied");
    laws::commit_over(&storage, &stage, Replaces::File(there.file)).expect("published");
    drop(storage);
    let right = ChunkList::of(&content, Cutter::for_len(len), Algorithm::Blake3);
    // As a session asks that is about to push something else; also returns whether the file was read.
    let told = |disk: &SimDisk| {
        let storage = serve(disk);
        let place = laws::place("file");
        let (_, name) = place.path.split_last().expect("it has a name");
        let destination = Destination { place, name, directory: false };
        let (cutting, algorithm, wanted) = (Cutting::ByContent, Algorithm::Blake3, Some((Digest::default(), len)));
        let before = disk.calls().len();
        let answer = storage.answer(Ask::Basis { destination, cutting, algorithm, wanted });
        let Ok(Answer::Basis { file: Some(file), .. }) = answer else { panic!("it is there") };
        let calls = disk.calls_to().split_off(before);
        (file.chunks, calls.iter().filter(|(call, at)| *call == SimCall::Read && at == "file").count() > 1)
    };
    let (chunks, was_read) = told(&disk.copy());
    assert!(*chunks == right && !was_read, "it is listed");
    let index = disk.get(INDEX).expect("it is there");
    let mut rng = Rng::new(2);
    let mut read = 0;
    for run in 0..400 {
        let disk = disk.copy();
        let mut damaged = index.clone();
        let at = rng.below(damaged.len());
        match run % 4 {
            0 => damaged[at] ^= 1 << rng.below(8),
            1 => damaged[at / 4096 * 4096..].iter_mut().take(4096).for_each(|byte| *byte = 0),
            2 => damaged.copy_within(at / 4096 * 4096..(at / 4096 * 4096 + 4096).min(index.len()), 0),
            _ => damaged.truncate(at),
        }
        disk.put(INDEX, &damaged);
        let (chunks, was_read) = told(&disk);
        assert!(*chunks == right, "run {run}");
        read += u32::from(was_read);
    }
    assert!(read > 100, "{read} of 400 were read");
}

/// Every bit of the mark, and every length: the index knows the count too.
#[test]
fn a_damaged_mark_is_made_up_for_by_the_index() {
    let disk = SimDisk::new();
    let storage = serve(&disk);
    let mut last = Generation::ZERO;
    for round in 0..10 {
        last = commit(&storage, round).expect("published");
    }
    let crashed = disk.copy();
    drop(storage);
    for (disk, exact) in [(disk, true), (crashed, false)] {
        let mark = disk.get(MARK).expect("it is there");
        let flipped = (0..mark.len() * 8).map(|bit| {
            let mut mark = mark.clone();
            mark[bit / 8] ^= 1 << (bit % 8);
            mark
        });
        for damaged in flipped.chain((0..mark.len()).map(|len| mark[..len].to_vec())) {
            let disk = disk.copy();
            disk.put(MARK, &damaged);
            let storage = serve(&disk);
            let next = commit(&storage, 10).expect("published");
            let wanted = if exact { last.next() } else { Generation::new(BLOCK + 1) };
            assert_eq!(next, wanted, "{damaged:?}");
            let recovery = storage.recovery();
            assert_eq!((&recovery.index_rebuilt, recovery.count_lost), (&None, None), "{recovery}");
        }
    }
}

#[test]
fn a_count_that_is_lost_twice_goes_on_from_the_history() {
    let disk = SimDisk::new();
    let storage = serve(&disk);
    (0..12).for_each(|round| assert!(commit(&storage, round).is_ok()));
    // It replaces nothing.
    assert_eq!(publish(&storage, "new", b"new"), Ok(Generation::new(13)));
    drop(storage);
    disk.rename(INDEX, "gone");
    disk.rename(MARK, "gone too");
    let storage = serve(&disk);
    assert_eq!(storage.recovery().count_lost, Some(Generation::new(12)));
    assert!(storage.recovery().history_removed > 0);
    assert_eq!(describe(&storage, "file-1").expect("it is there").generation, Generation::ZERO);
    assert_eq!(commit(&storage, 13), Ok(Generation::new(13)));
}

/// Crashes at every call of a server's life, one after the other, each with two power cuts: no number is given twice.
#[test]
fn no_number_is_given_twice_whenever_the_power_is_cut() {
    let lives = |disk: &SimDisk, given: &mut Vec<Generation>| {
        let Ok(storage) = LocalStorage::serve_on(disk.root(), LocalOptions::default()) else { return };
        for round in 0..4 {
            given.extend(commit(&storage, round).ok());
            if round == 2 {
                storage.flush();
            }
        }
    };
    let mut start = SimDisk::new();
    let mut given = Vec::new();
    lives(&start, &mut given);
    let calls = start.calls().len();
    let mut runs = 0;
    for n in 1..=calls as u64 + 50 {
        let mut after = None;
        for cut in 0..2 {
            let (disk, mut given) = (start.copy(), given.clone());
            disk.fail(n, None, SimFault::Crash);
            lives(&disk, &mut given);
            let disk = disk.power_cut(&mut Rng::new(n * 2 + cut));
            lives(&disk, &mut given);
            // The count never goes back.
            assert!(given.windows(2).all(|pair| pair[0] < pair[1]), "crash at {n}, cut {cut}: {given:?}");
            let last = describe(&serve(&disk), "file-3").expect("it is there").generation;
            assert!(last == Generation::ZERO || last == given[given.len() - 1], "{last} of {given:?}");
            after = Some((disk, given));
            runs += 1;
        }
        // The next life starts where this one ended.
        (start, given) = after.map(|(disk, given)| (disk.copy(), given)).expect("it was cut");
    }
    println!("{runs} power cuts, {calls} calls in a life");
}

/// The same around the moment when the next block of numbers is reserved.
#[test]
fn no_number_is_given_twice_when_a_reservation_is_cut_off() {
    let until_reserved = |disk: &SimDisk| {
        let storage = serve(disk);
        let rounds = BLOCK / 2 + 1;
        let last = (0..rounds).map(|round| commit(&storage, round).expect("published")).last();
        assert_eq!(last, Some(Generation::new(rounds)));
        storage
    };
    let clean = SimDisk::new();
    let storage = until_reserved(&clean);
    let before = clean.calls().len();
    commit(&storage, 0).expect("published");
    let calls = clean.calls()[before..].to_vec();
    assert!(calls.iter().filter(|call| **call == SimCall::SyncData).count() >= 3, "{calls:?}");
    for n in (1..=calls.len() as u64).step_by(2) {
        let disk = SimDisk::new();
        let storage = until_reserved(&disk);
        disk.fail(n, None, SimFault::Crash);
        let last = commit(&storage, 0).unwrap_or(Generation::new(BLOCK / 2 + 1));
        for seed in 0..3 {
            let disk = disk.power_cut(&mut Rng::new(seed));
            let next = commit(&serve(&disk), 1).expect("published");
            assert!(next > last, "{next} after {last}, call {n}");
        }
    }
}

/// What stands in the way of the mark costs nothing until the reserved numbers are used up; then commits fail, and say why.
#[test]
fn no_number_beyond_the_mark_is_given() {
    let disk = SimDisk::new();
    let storage = serve(&disk);
    disk.make_dir(".deltasync/generation.new");
    for round in 0..BLOCK {
        assert_eq!(commit(&storage, round), Ok(Generation::new(round + 1)));
    }
    let old = disk.get("file-4");
    assert_fault(commit(&storage, BLOCK), FaultKind::WrongKind, "file-4: ");
    assert_eq!(disk.get("file-4"), old);
    disk.rename(".deltasync/generation.new", "moved");
    assert_eq!(commit(&storage, BLOCK), Ok(Generation::new(BLOCK + 1)));
}

/// A disk that fails once while the index is written costs notes, and no commit; it is opened again.
#[test]
fn an_index_that_cannot_be_written_for_a_while_costs_no_commit() {
    for errno in [EIO, 28] {
        for call in [SimCall::Write, SimCall::SyncData, SimCall::SetLen] {
            let disk = SimDisk::new();
            let storage = serve(&disk);
            (0..20).for_each(|round| assert!(commit(&storage, round).is_ok()));
            disk.fail(1, Some(call), SimFault::Errno(errno));
            storage.flush();
            for round in 20..40 {
                assert_eq!(commit(&storage, round), Ok(Generation::new(round + 1)), "{call:?} {errno}");
            }
            let newest = describe(&storage, "file-4").expect("it is there").generation;
            assert_eq!(newest, Generation::new(40), "{call:?} {errno}");
            drop(storage);
            assert_eq!(commit(&serve(&disk), 40), Ok(Generation::new(41)));
        }
    }
}

/// Somebody writes over the index while it is used.
#[test]
fn an_index_that_is_damaged_under_a_server_stops_no_transfer() {
    for (n, damage) in [&b""[..], b"not an index", &[0; 300_000], &[0xff; 8192]].iter().enumerate() {
        let disk = SimDisk::new();
        let mut storage = serve(&disk);
        let mut last = Generation::ZERO;
        for life in 0..3 {
            for round in 0..100 {
                let next = commit(&storage, round).expect("published");
                assert!(next > last, "{next} after {last}");
                last = next;
                if round % 30 == 10 {
                    disk.put(INDEX, damage);
                }
                if round % 10 == 5 {
                    storage.flush();
                }
                let file = describe(&storage, &format!("file-{}", round % 5)).expect("it is there");
                assert!([Generation::ZERO, last].contains(&file.generation), "{}", file.generation);
            }
            drop(storage);
            storage = serve(&disk);
            assert!(storage.recovery().index_unavailable.is_none(), "damage {n}, life {life}");
            assert!(set_aside(&disk).len() <= 1, "{:?}", set_aside(&disk));
        }
    }
}

#[test]
fn of_damaged_indexes_only_the_last_is_kept() {
    let disk = SimDisk::new();
    drop(serve(&disk));
    for n in 1..5 {
        disk.put(INDEX, format!("damaged for the {n}. time").as_bytes());
        let storage = serve(&disk);
        let why = storage.recovery().index_rebuilt.clone();
        assert!(why.is_some(), "it was damaged");
        assert_eq!(set_aside(&disk), [format!(".deltasync/index.damaged-{n}")]);
        assert!(storage.recovery().to_string().starts_with("the index was damaged and is begun anew"));
    }
}
