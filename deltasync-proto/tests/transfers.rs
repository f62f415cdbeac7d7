//! Two ends in memory: whole transfers, told as stories.

use std::time::Duration;

use deltasync_core::{Algorithm, RelPath};
use deltasync_proto::{
    Config, EventKind, Input, Output, RefusalCode, RootId, Session, SessionError, Timestamp, TransferError, TransferId,
    Verb,
};
use deltasync_testkit::{Direction, Link, Pair, Ran, Rng, file, pull, push};
use proptest::prelude::*;

const KIB: usize = 1 << 10;

fn random(seed: u64, len: usize) -> Vec<u8> {
    Rng::new(seed).bytes(len)
}

/// Pushes `target` over `basis`, then pulls `basis` over `target`: equal files, and a bound on the literals of each.
#[track_caller]
fn check_both_ways(basis: Option<&[u8]>, target: &[u8], literal: usize, link: Link, config: &Config) {
    let pair = Pair::new(1).link(link.clone()).config(config.clone());
    let pair = match basis {
        Some(basis) => pair.basis(basis),
        None => pair,
    };
    let remote = pair.remote.clone();
    let pushed = pair.target(target).run_to_end();
    check(&pushed, target, remote.get(RootId::new(0), &file()).as_deref(), literal);

    let pair = Pair::new(2).link(link).config(config.clone()).basis(target).pulled_onto(basis.map(<[u8]>::to_vec));
    let local = pair.local.clone();
    let pulled = pair.run_to_end();
    check(&pulled, target, local.get(RootId::new(0), &file()).as_deref(), literal);
}

#[track_caller]
fn check(ran: &Ran, target: &[u8], made: Option<&[u8]>, literal: usize) {
    let outcome = ran.outcome();
    assert!(made == Some(target), "the result differs from the target");
    let progress = outcome.progress;
    assert_eq!(progress.copied + progress.literal, outcome.len, "every byte came from somewhere");
    assert!(progress.literal.get() <= literal as u64, "{} literal bytes, over {literal}", progress.literal);
    let (client, server) = (ran.client.clone().expect("client ends well"), ran.server.clone().expect("server too"));
    assert_eq!((client.wire_sent, client.wire_received), (ran.up, ran.down), "the count is the wire's");
    assert_eq!((server.wire_sent, server.wire_received), (ran.down, ran.up));
}

#[test]
fn a_replaced_block_costs_its_chunks_and_one_round_trip_more_than_nothing() {
    let basis = random(1, 1 << 20);
    let mut target = basis.clone();
    target[500_000..504_096].copy_from_slice(&random(2, 4096));
    check_both_ways(Some(&basis), &target, 16 * KIB, Link::perfect(), &Config::default());
    let ran = Pair::new(3).basis(basis).target(target).run_to_end();
    assert_eq!(ran.client.expect("ends well").round_trips, 2);
}

#[test]
fn a_byte_in_front_costs_a_chunk() {
    let basis = random(3, 1 << 20);
    let target = [b"x", &basis[..]].concat();
    check_both_ways(Some(&basis), &target, 8 * KIB, Link::split_randomly(5000), &Config::default());
}

#[test]
fn equal_files_move_nothing() {
    let same = random(4, 300_000);
    check_both_ways(Some(&same), &same, 0, Link::perfect(), &Config::default());
    let ran = Pair::new(4).basis(same.clone()).target(same).run_to_end();
    assert_eq!(ran.outcome().generation, None, "nothing was published");
    assert!(ran.outcome().progress.wire.get() > 300, "the tags are counted");
    assert_eq!(ran.client.expect("ends well").round_trips, 1);
}

#[test]
fn moved_halves_are_copied() {
    let basis = random(5, 1 << 20);
    let target = [&basis[700_000..], &basis[..700_000]].concat();
    check_both_ways(Some(&basis), &target, 16 * KIB, Link::perfect(), &Config::default());
}

#[test]
fn without_a_basis_everything_is_sent_and_a_pull_takes_one_round_trip() {
    let target = random(6, 3 << 20);
    check_both_ways(None, &target, target.len(), Link::perfect(), &Config::default());
    let ran = Pair::new(6).basis(target).pulled_onto(None).run_to_end();
    assert_eq!(ran.client.expect("ends well").round_trips, 1);
}

#[test]
fn a_tiny_file_goes_in_one_round_trip() {
    let ran = Pair::new(7).target(&b"tiny"[..]).run_to_end();
    assert_eq!(ran.client.clone().expect("ends well").round_trips, 1);
    assert!(ran.up + ran.down < 200, "{} bytes", ran.up + ran.down);
    assert!(ran.outcome().generation.is_some());
}

#[test]
fn an_empty_file_replaces_a_full_one_and_is_not_waited_for() {
    let basis = random(4, 50_000);
    check_both_ways(Some(&basis), b"", 0, Link::perfect(), &Config::default());
}

#[test]
fn lengths_around_every_boundary_arrive() {
    let piece = Config::default().piece;
    let around = |len: usize| [len.saturating_sub(1), len, len + 1];
    let lengths = [0, 1, 4096, 8192, 16 * KIB, 64 * KIB, piece, 2 * piece].into_iter().flat_map(around);
    for len in lengths {
        let target = random(len as u64, len);
        let basis = random(len as u64 + 1, len / 2);
        check_both_ways(None, &target, len, Link::perfect(), &Config::default());
        check_both_ways(Some(&basis), &target, len, Link::perfect(), &Config::default());
        check_both_ways(Some(&target), &target, if len <= 4096 { len } else { 0 }, Link::perfect(), &Config::default());
    }
}

#[test]
fn a_link_that_delivers_single_bytes_changes_nothing() {
    let basis = random(8, 40_000);
    let target = [&basis[..20_000], b"inserted", &basis[20_000..]].concat();
    check_both_ways(Some(&basis), &target, 8 * KIB, Link::split_every(1), &Config::default());
}

#[test]
fn sha256_roots_travel_too() {
    let basis = random(9, 100_000);
    let target = [&basis[..], b"more"].concat();
    let config = Config::default().algorithm(Algorithm::Sha256);
    check_both_ways(Some(&basis), &target, 8 * KIB, Link::perfect(), &config);
    let ran = Pair::new(9).config(config).target(target.clone()).run_to_end();
    assert_eq!(ran.outcome().root, Algorithm::Sha256.digest(&target));
}

#[test]
fn a_piece_larger_than_the_first_credit_does_not_stop_a_transfer() {
    for piece in [0, 1000, 64 << 20] {
        let mut config = Config::default().level(0);
        config.piece = piece;
        let target = random(22, if piece == 0 { 300 } else { 3 << 20 });
        check_both_ways(None, &target, target.len(), Link::perfect(), &config);
    }
}

#[test]
fn text_is_compressed_on_its_way() {
    let text: Vec<u8> = (0..40_000).flat_map(|row: u32| format!("row {row} of a table\n").into_bytes()).collect();
    let ran = Pair::new(10).target(text.clone()).run_to_end();
    assert!(ran.up < text.len() as u64 / 3, "{} bytes for {}", ran.up, text.len());
    let raw = Pair::new(10).config(Config::default().level(0)).target(text.clone()).run_to_end();
    assert!(raw.up > text.len() as u64);
}

#[test]
fn zeros_cost_next_to_nothing_to_describe() {
    let basis = vec![0; 8 << 20];
    let mut target = basis.clone();
    target[4 << 20..][..100].fill(7);
    let ran = Pair::new(11).basis(basis).target(target).run_to_end();
    assert!(ran.up + ran.down < 1000, "{} bytes", ran.up + ran.down);
}

#[test]
fn many_transfers_share_a_connection_and_none_waits_for_another() {
    let mut pair = Pair::new(12).link(Link::split_randomly(9000));
    let (local, remote) = (pair.local.clone(), pair.remote.clone());
    let path = |i: u64| RelPath::new(format!("dir/{i}").into_bytes()).expect("a plain path");
    let content = |i: u64| random(i, (i as usize * 7919) % 200_000);
    for i in 0..100 {
        local.insert(RootId::new(0), path(i), content(i));
        pair = pair.command(push(path(i), path(i)));
    }
    let ran = pair.run_to_end();
    assert!(ran.outcomes.iter().all(Result::is_ok));
    for i in 0..100 {
        assert_eq!(remote.get(RootId::new(0), &path(i)).as_deref(), Some(&content(i)[..]), "file {i}");
    }
    let small_before_large =
        ran.events.iter().position(|event| event.transfer.get() == 1 && matches!(event.kind, EventKind::Ended(Ok(_))));
    assert!(small_before_large.is_some());
}

#[test]
fn a_pull_of_nothing_is_refused_and_the_connection_goes_on() {
    let missing = RelPath::new(*b"missing").expect("a plain name");
    let target = random(13, 10_000);
    let pair = Pair::new(13).command(pull(missing.clone(), missing));
    let remote = pair.remote.clone();
    let ran = pair.target(target.clone()).run_to_end();
    match &ran.outcomes[0] {
        Err(TransferError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::NotFound),
        other => panic!("{other:?}"),
    }
    assert!(ran.outcomes[1].is_ok());
    assert_eq!(remote.get(RootId::new(0), &file()).as_deref(), Some(&target[..]));
}

#[test]
fn a_source_that_is_not_there_fails_without_the_server_hearing_of_it() {
    let missing = RelPath::new(*b"missing").expect("a plain name");
    let ran = Pair::new(14).command(push(missing.clone(), missing)).run_to_end();
    assert!(matches!(&ran.outcomes[0], Err(TransferError::Storage(_))), "{:?}", ran.outcomes);
    assert!(ran.server_events.is_empty());
}

#[test]
fn an_older_server_is_met_in_its_own_version() {
    let target = random(15, 100_000);
    let pair = Pair::new(15).client_config(Config::default().version(deltasync_proto::VERSION + 1));
    let remote = pair.remote.clone();
    let ran = pair.target(target.clone()).run_to_end();
    assert_eq!(ran.outcome().len.get(), target.len() as u64);
    assert_eq!(remote.get(RootId::new(0), &file()).as_deref(), Some(&target[..]));
}

#[test]
fn a_server_that_stops_answering_is_given_up() {
    let link = Link::perfect().stall(Direction::Down, 30);
    let ran = Pair::new(16).link(link).basis(random(1, 200_000)).target(random(2, 200_000)).run_to_end();
    assert!(matches!(ran.client, Err(SessionError::TimedOut { .. })), "{:?}", ran.client);
    assert!(ran.elapsed <= Duration::from_secs(70), "{:?}", ran.elapsed);
    assert!(matches!(&ran.outcomes[0], Err(TransferError::ConnectionLost(_))));
}

#[test]
fn a_transfer_of_which_the_peer_says_nothing_fails_and_the_connection_goes_on() {
    // One bit of the offer's transfer number arrives wrong: the server carries out a transfer nobody waits for.
    // Before it go a hello of 28 bytes, a Seen of 11 and the kind.
    let number = 40;
    let link = Link::perfect().flip(Direction::Up, number);
    let ran = Pair::new(3).link(link).target(random(19, 200)).run_to_end();
    assert!(matches!(&ran.outcomes[0], Err(TransferError::Stalled { .. })), "{:?}", ran.outcomes);
    assert!(ran.elapsed < Duration::from_secs(60), "{:?}", ran.elapsed);
    assert!(ran.client.is_ok());
}

#[test]
fn a_client_that_describes_for_long_says_so_before_it_has_offered_anything() {
    let (mut client, mut server) =
        (Session::client(Config::default(), [1; 32]), Session::server(Config::default(), [2; 32]));
    let command = push(file(), file());
    let started = Input::Command { transfer: TransferId::new(1), command };
    client.handle_input(Timestamp::new(0), started).expect("a push");
    let mut said = Vec::new();
    for seconds in (0..120).step_by(5) {
        let now = Timestamp::new(0).after(Duration::from_secs(seconds));
        let ends = [&mut client, &mut server];
        for index in [0, 1, 0, 1] {
            let mut sent = Vec::new();
            ends[index].handle_input(now, Input::DeadlineReached).expect("time passes");
            loop {
                match ends[index].poll_output() {
                    Output::Transmit(bytes) => {
                        ends[index].handle_input(now, Input::Written(bytes.len())).expect("it has left");
                        sent.push(bytes);
                    }
                    Output::Event(event) => said.push(event),
                    Output::Finished(result) => panic!("after {seconds} s: {result:?}"),
                    Output::Storage(_) | Output::Compute(_) => {}
                    Output::Wait { .. } => break,
                }
            }
            for bytes in sent {
                ends[1 - index].handle_input(now, Input::Received(bytes)).expect("bytes");
            }
        }
    }
    assert!(!said.iter().any(|event| matches!(event.kind, EventKind::Ended(_))), "{said:?}");
}

#[test]
fn the_server_hears_of_every_transfer_once() {
    let ran = Pair::new(17).basis(random(1, 9000)).target(random(2, 9000)).pulled_onto(None).run_to_end();
    let started = ran.server_events.iter().filter_map(|event| match &event.kind {
        EventKind::Started { verb, .. } => Some(*verb),
        _ => None,
    });
    let mut verbs: Vec<_> = started.collect();
    verbs.sort();
    assert_eq!(verbs, [Verb::Push, Verb::Pull]);
    let ended = ran.server_events.iter().filter(|event| matches!(event.kind, EventKind::Ended(_)));
    assert_eq!(ended.count(), 2);
}

/// The link fails after each number of bytes in turn: the old file or the new one, whole, and a named error.
#[test]
fn a_cut_at_any_byte_leaves_the_old_file_or_the_new_one() {
    let basis = random(18, 30_000);
    let target = [&basis[..10_000], &random(19, 3000), &basis[12_000..]].concat();
    let whole = Pair::new(18).basis(basis.clone()).target(target.clone()).run_to_end();
    for (direction, len) in [(Direction::Up, whole.up), (Direction::Down, whole.down)] {
        for at in (0..len).step_by(if direction == Direction::Up { 13 } else { 1 }) {
            let pair = Pair::new(at).link(Link::split_randomly(2000).cut(direction, at)).basis(basis.clone());
            let remote = pair.remote.clone();
            let ran = pair.target(target.clone()).run_to_end();
            let left = remote.get(RootId::new(0), &file()).expect("some file is there");
            match &ran.outcomes[0] {
                Ok(_) => assert!(left == target, "cut at {at}: acknowledged, but not there"),
                Err(TransferError::ConnectionLost(_)) => assert!(left == basis || left == target, "cut at {at}"),
                Err(error) => panic!("cut at {at}: {error}"),
            }
        }
    }
}

/// Damage anywhere is found: by a message that is refused, or by the root.
#[test]
fn a_flipped_bit_anywhere_never_makes_a_wrong_file() {
    let basis = random(20, 30_000);
    let target = [&basis[..10_000], &random(21, 3000), &basis[12_000..]].concat();
    let whole = Pair::new(20).basis(basis.clone()).target(target.clone()).run_to_end();
    for (direction, len) in [(Direction::Up, whole.up), (Direction::Down, whole.down)] {
        for at in (0..len).step_by(if direction == Direction::Up { 17 } else { 1 }) {
            let pair = Pair::new(at).link(Link::perfect().flip(direction, at)).basis(basis.clone());
            let remote = pair.remote.clone();
            let _ = pair.target(target.clone()).run_to_end();
            let left = remote.get(RootId::new(0), &file()).expect("some file is there");
            assert!(left == basis || left == target, "flip at {at} {direction:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_edits_arrive(
        seed: u64,
        len in 0usize..300_000,
        edits in prop::collection::vec((any::<u32>(), 0usize..5000, 0usize..5000), 0..8),
        split in 1usize..20_000,
    ) {
        let basis = random(seed, len);
        let mut target = basis.clone();
        for (at, removed, inserted) in edits {
            let at = at as usize % (target.len() + 1);
            let end = (at + removed).min(target.len());
            target.splice(at..end, random(seed ^ at as u64, inserted));
        }
        let link = Link::split_randomly(split);
        check_both_ways(Some(&basis), &target, target.len(), link, &Config::default());
    }
}

#[test]
fn a_set_without_elements_is_not_waited_for() {
    // An empty file has no chunks, and a tag that two chunks share is no element.
    let basis = random(18, 300_000);
    let ran = Pair::new(18).basis(Vec::new()).pulled_onto(Some(basis.clone())).run_to_end();
    assert_eq!(ran.outcome().len.get(), 0);
    let config = Config::default().tag_bits(1);
    let ran = Pair::new(18).config(config).basis(basis).target(random(19, 300_000)).run_to_end();
    assert_eq!(ran.outcome().progress.literal.get(), 300_000);
}
