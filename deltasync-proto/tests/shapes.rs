//! Every shape of edit, cold and where the basis is known, both ways: what it costs, and that it arrives.

mod common;

use common::{Ends, random};
use deltasync_io::KeepForm;
use deltasync_proto::Config;
use deltasync_testkit::{Case, Pair, Shape};

/// How the sender knows the basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knows {
    Nothing,
    Copy,
    Sums,
}

/// The bytes of the wire and the round trips of one run.
#[derive(Clone, Copy, Debug)]
struct Cost {
    wire: u64,
    round_trips: u32,
}

/// Pushes the basis, then the target over it; and pulls both. The cost of the target each way.
#[track_caller]
fn check_both_ways(case: &Case, knows: Knows) -> [Cost; 2] {
    let ends = |seed| match knows {
        Knows::Nothing => Ends::forgetful(seed),
        Knows::Copy => Ends::remembering(seed, KeepForm::Copy),
        Knows::Sums => Ends::remembering(seed, KeepForm::Sums),
    };
    let cost = |ran: deltasync_testkit::Ran| {
        let outcome = ran.outcome();
        let progress = outcome.progress;
        assert_eq!(progress.copied + progress.literal, outcome.len, "every byte came from somewhere");
        assert_eq!(outcome.repairs, 0, "{case:?}", case = case.shape);
        Cost { wire: ran.wire(), round_trips: ran.round_trips() }
    };
    let mut pushed = ends(1);
    pushed.push(&case.basis);
    let push = cost(pushed.push(&case.target));
    let mut pulled = ends(2);
    // The server keeps what a commit replaces; without that it knows nothing of the client's version.
    if knows == Knows::Nothing {
        common::put(&pulled.local, &deltasync_testkit::file(), &case.basis);
        common::put(&pulled.remote, &deltasync_testkit::file(), &case.target);
    } else {
        pulled.push(&case.basis);
        let mut other = Ends::forgetful(3);
        other.remote = pulled.remote.clone();
        other.push(&case.target);
    }
    let pull = cost(pulled.pull());
    [push, pull]
}

/// The most bytes that a shape of this length may cost on the wire, cold, hellos and all.
fn bound(shape: Shape, len: usize) -> u64 {
    let chunks = len as u64 / 2048;
    let all = len as u64 + len as u64 / 50 + 2500;
    let description = 700 + chunks * 2;
    let edits = match shape {
        // It goes with its offer, whatever is there.
        _ if len <= 1024 => return all,
        Shape::Identical => 0,
        Shape::OneByteChanged | Shape::InsertionAtTheFront => 600,
        // A tenth of the chunks are differences of the sets.
        Shape::Deletion => 600 + chunks * 8,
        Shape::OneBlockReplaced => 4096 + 700,
        Shape::ScatteredEdits => 3 * 700 + len as u64 / 200_000 * 700,
        Shape::Appended => len as u64 / 10 + 700 + chunks * 8,
        Shape::MovedHalves => 1200,
        Shape::MovedRegions => 3000,
        Shape::ZerosEdited | Shape::PatternEdited => 1500,
        Shape::RowsEdited => len as u64 / 8,
        Shape::ArchiveWithNewHeaders => 16 * 1024 + len as u64 / 8,
        Shape::Unrelated => return all,
    };
    all.min(description + edits)
}

#[test]
fn every_shape_arrives_both_ways_for_what_it_should_cost() {
    for len in [0, 1, 900, 5_000, 70_000, 600_000] {
        for case in Case::all(len as u64 + 1, len) {
            let [cold, cold_pull] = check_both_ways(&case, Knows::Nothing);
            let bound = bound(case.shape, len);
            let known = [Knows::Copy, Knows::Sums].map(|knows| check_both_ways(&case, knows));
            println!("{len:7} {:24} {cold:?} {cold_pull:?} of {bound}, known {known:?}", case.shape.name());
            for cost in [cold, cold_pull] {
                assert!(cost.wire <= bound, "{} of {len}: {cost:?}, over {bound}", case.shape.name());
                assert!(cost.round_trips <= 5);
            }
            for cost in known.iter().flatten() {
                // What is known is never worth less than nothing.
                assert!(cost.wire <= cold.wire + 300, "{} of {len}: {cost:?}, cold {cold:?}", case.shape.name());
                assert!(cost.round_trips <= 2, "{} of {len}: {cost:?}", case.shape.name());
            }
        }
    }
}

#[test]
fn moved_halves_take_a_round_trip_for_the_order_and_little_else() {
    let basis = random(5, 4 << 20);
    let target = [&basis[2_700_000..], &basis[..2_700_000]].concat();
    let ran = Pair::new(5).basis(basis).target(target).run_to_end();
    assert_eq!(ran.round_trips(), 3, "the set, the order, the delta");
    assert!(ran.outcome().progress.literal.get() < 5_000, "{:?}", ran.outcome());
    assert!(ran.wire() < 8_000, "{}", ran.wire());
}

/// Members of an archive in another order: more breaks than are worth a sketch.
#[test]
fn a_shuffled_archive_is_copied() {
    let members: Vec<Vec<u8>> = (0..400).map(|i| random(i, 3000 + (i as usize * 977) % 6000)).collect();
    let basis = members.concat();
    let mut order: Vec<usize> = (0..members.len()).collect();
    let mut rng = deltasync_testkit::Rng::new(9);
    (1..order.len()).rev().for_each(|i| order.swap(i, rng.below(i + 1)));
    let target: Vec<u8> = order.iter().flat_map(|member| members[*member].clone()).collect();
    for seed in 0..3 {
        let ran = Pair::new(seed).basis(basis.clone()).target(target.clone()).run_to_end();
        println!("{} of {} bytes, {} round trips", ran.wire(), target.len(), ran.round_trips());
        assert!(ran.wire() < target.len() as u64 / 6, "{} of {}", ran.wire(), target.len());
        assert!(ran.round_trips() <= 5, "{}", ran.round_trips());
        assert_eq!(ran.outcome().repairs, 0);
    }
}

#[test]
fn nothing_in_common_costs_little_beyond_the_content() {
    for (len, old) in [(3_000, 3_000), (200_000, 300_000), (8 << 20, 8 << 20), (8 << 20, 10_000), (50_000, 8 << 20)] {
        let raw = Config::default().level(0);
        let ran = Pair::new(6).config(raw).basis(random(7, old)).target(random(8, len)).run_to_end();
        let beyond = ran.wire() - len as u64;
        println!("{len} over {old}: {beyond} beyond, {} round trips", ran.round_trips());
        assert!(beyond < 1_500 + len as u64 / 100, "{beyond} bytes beyond {len}");
        assert!(ran.round_trips() <= 4);
    }
}

#[test]
fn an_empty_file_replaces_and_is_replaced() {
    for (basis, target) in [(vec![], random(1, 5000)), (random(1, 5000), vec![]), (vec![], vec![])] {
        for shape in [Knows::Nothing, Knows::Copy, Knows::Sums] {
            let case = Case { shape: Shape::Unrelated, basis: basis.clone(), target: target.clone() };
            check_both_ways(&case, shape);
        }
    }
}
