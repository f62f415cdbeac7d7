//! Both ends tell where each range of a target comes from, and tell the same.

use deltasync_core::{BlockMap, ByteLen, Origin};
use deltasync_proto::{Command, Event, EventKind, Progress};

use deltasync_testkit::{Pair, Ran, Rng, file, push};

/// What an end told: the map, and how much of the file is copied and sent by the ranges and by the last progress.
fn told(events: &[Event], len: usize) -> (Vec<(u64, u64, Origin)>, Progress) {
    let mut map = BlockMap::new(ByteLen::new(len as u64), 100);
    let (mut at, mut copied, mut last) = (0, 0, Progress::default());
    for event in events {
        match &event.kind {
            EventKind::Placed { total, ranges } => {
                assert_eq!(total.get(), len as u64);
                for range in ranges {
                    assert_eq!(range.at.get(), at, "in order, without gaps");
                    at += range.len.get();
                    copied += range.copied.get();
                    map.place(range);
                }
            }
            EventKind::Progress(progress) => {
                assert!(copied <= progress.copied.get() && at <= progress.made().get(), "nothing is told too early");
                last = *progress;
            }
            EventKind::Ended(Ok(outcome)) => last = outcome.progress,
            _ => {}
        }
    }
    assert_eq!(at, len as u64, "all of it");
    assert_eq!((last.copied.get(), last.made().get()), (copied, at));
    (map.runs().iter().map(|run| (run.at.get(), run.len.get(), run.origin)).collect(), last)
}

fn both(ran: &Ran, len: usize) -> Vec<(u64, u64, Origin)> {
    let (ours, theirs) = (told(&ran.events, len), told(&ran.server_events, len));
    assert_eq!(ours.0, theirs.0);
    ours.0
}

#[test]
fn a_replaced_piece_stands_where_it_lies() {
    const LEN: usize = 1 << 20;
    let basis = Rng::new(1).bytes(LEN);
    let mut target = basis.clone();
    let at = LEN / 100 * 37;
    target[at..at + 8192].copy_from_slice(&Rng::new(2).bytes(8192));
    for seed in 0..8 {
        let runs = both(&Pair::new(seed).basis(basis.clone()).target(target.clone()).run_to_end(), LEN);
        let [before, changed, after] = runs[..] else { panic!("{runs:?}") };
        assert_eq!((before.2, after.2), (Origin::Copied, Origin::Copied));
        assert!(changed.2 == Origin::Mixed && changed.0 <= at as u64 && changed.0 + changed.1 >= at as u64 + 8192);
        assert!(changed.1 <= 3 * LEN as u64 / 100);
        let pulled = both(&Pair::new(seed).basis(target.clone()).pulled_onto(Some(basis.clone())).run_to_end(), LEN);
        assert_eq!(pulled, runs);
    }
}

#[test]
fn what_is_sent_is_told_as_it_goes() {
    let bytes = Rng::new(6).bytes(3_000_000);
    let ran = Pair::new(1).target(bytes.clone()).run_to_end();
    both(&ran, bytes.len());
    for events in [&ran.events, &ran.server_events] {
        let ranges = events.iter().filter(|event| matches!(event.kind, EventKind::Placed { .. })).count();
        assert!(ranges >= 3_000_000 / 300_000, "{ranges}");
    }
}

#[test]
fn a_first_copy_is_sent_and_an_equal_file_copied_whole() {
    let bytes = Rng::new(3).bytes(300_000);
    assert_eq!(both(&Pair::new(1).target(bytes.clone()).run_to_end(), bytes.len()), [(0, 300_000, Origin::Sent)]);
    let again = Pair::new(1).basis(bytes.clone()).target(bytes.clone()).run_to_end();
    assert_eq!(both(&again, bytes.len()), [(0, 300_000, Origin::Copied)]);
    assert!(both(&Pair::new(1).target([]).run_to_end(), 0).is_empty());
}

#[test]
fn a_dry_run_tells_what_the_push_would() {
    let basis = Rng::new(4).bytes(500_000);
    let target = [&basis[..200_000], &Rng::new(5).bytes(30_000), &basis[200_000..]].concat();
    let pair = |command: Command| {
        let pair = Pair::new(9).basis(basis.clone()).command(command);
        pair.local.insert(deltasync_proto::RootId::new(0), file(), target.clone());
        pair.run_to_end()
    };
    let pushed = both(&pair(push(file(), file())), target.len());
    let predicted = told(&pair(Command::Predict { push: Box::new(push(file(), file())) }).events, target.len());
    assert_eq!(predicted.0, pushed);
}
