//! Results that are not the target: found out, and made right for little.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use common::{Ends, content, meddling, put, random};
use deltasync_core::{Algorithm, ByteLen, Plan, Step};
use deltasync_io::{BlockingStorage, KeepForm};
use deltasync_proto::{Answer, Ask, Config, EventKind};
use deltasync_testkit::{Case, Pair, Ran, Rng, Shape, file};

/// How often something was repaired over many runs.
#[derive(Clone, Copy, Debug, Default)]
struct Repairs {
    runs: u32,
    none: u32,
    once: u32,
    twice: u32,
    /// Once, and far from everything was sent again.
    ranged: u32,
}

impl Repairs {
    /// Takes in a run whose result is right.
    #[track_caller]
    fn take(&mut self, ran: &Ran, target: &[u8], made: Option<&[u8]>) {
        let outcome = ran.outcome();
        assert!(made == Some(target), "the result differs from the target");
        let told = ran.server_events.iter().filter(|event| matches!(event.kind, EventKind::Repairing)).count();
        assert_eq!(told, outcome.repairs as usize, "each is told of");
        self.runs += 1;
        match outcome.repairs {
            0 => self.none += 1,
            1 => self.once += 1,
            2 => self.twice += 1,
            more => panic!("{more} repairs"),
        }
        self.ranged += u32::from(outcome.repairs == 1 && ran.wire() < target.len() as u64 / 2);
    }
}

/// Edits at random places: a basis and a target that have much in common.
fn edited(seed: u64, len: usize) -> Case {
    let mut rng = Rng::new(seed);
    let basis = rng.bytes(len);
    let mut target = basis.clone();
    for _ in 0..1 + rng.below(30) {
        let at = rng.below(target.len());
        let end = target.len().min(at + rng.below(3000));
        let new = rng.below(3000);
        target.splice(at..end, rng.bytes(new));
    }
    Case { shape: Shape::ScatteredEdits, basis, target }
}

fn check_many(config: &Config, runs: u64) -> Repairs {
    let mut repairs = Repairs::default();
    for seed in 0..runs {
        let shape = Shape::ALL[seed as usize % Shape::ALL.len()];
        let case = match seed % 3 {
            0 => shape.case(seed, 10_000 + 1000 * (seed as usize % 100)),
            _ => edited(seed, 20_000 + 1000 * (seed as usize % 300)),
        };
        let pair = Pair::new(seed).config(config.clone()).basis(case.basis);
        let remote = pair.remote.clone();
        let ran = pair.target(case.target.clone()).run_to_end();
        repairs.take(&ran, &case.target, content(&remote).as_deref());
    }
    repairs
}

#[test]
fn short_tags_collide_and_every_result_is_repaired() {
    let repairs = check_many(&Config::default().tag_bits(8), 500);
    println!("{repairs:?}");
    assert!(repairs.none > 0 && repairs.once > 0 && repairs.ranged > 0, "{repairs:?}");
}

#[test]
fn tags_of_their_length_do_not_collide() {
    let repairs = check_many(&Config::default(), 300);
    println!("{repairs:?}");
    assert_eq!(repairs.none, repairs.runs, "{repairs:?}");
}

#[test]
fn short_tags_of_many_chunks_leave_nothing_to_compare_and_the_file_arrives() {
    for len in [2 << 20, 8 << 20] {
        for bits in [1, 8] {
            let (basis, config) = (random(1, len), Config::default().tag_bits(bits));
            let target = [&basis[..len / 2], b"new", &basis[len / 2..]].concat();
            let pair = Pair::new(len as u64).config(config).basis(basis);
            let remote = pair.remote.clone();
            pair.target(target.clone()).run_to_end().outcome();
            assert!(content(&remote).as_deref() == Some(&target[..]));
        }
    }
}

/// A server that stages some of what it is told wrongly: the `wrong`-th bytes of what it applies, so many times.
fn clumsy(ends: &Ends, wrong: &'static [u64], times: u32) -> Arc<dyn BlockingStorage> {
    let stages = AtomicU32::new(0);
    meddling(&ends.remote, move |memory, ask| match ask {
        Ask::Stage { .. } => {
            stages.fetch_add(1, Ordering::Relaxed);
            memory.answer(ask)
        }
        Ask::Apply { stage, basis, plan, literals } if stages.load(Ordering::Relaxed) <= times => {
            let (plan, literals) = damaged(&plan, &literals, wrong);
            memory.answer(Ask::Apply { stage, basis, plan, literals })
        }
        other => memory.answer(other),
    })
}

/// The same literals with bits flipped at these places.
fn damaged(plan: &Plan, literals: &Bytes, wrong: &[u64]) -> (Plan, Bytes) {
    let mut bytes = literals.to_vec();
    let literal = plan.steps().iter().any(|step| matches!(step, Step::Literal { .. }));
    for at in wrong.iter().filter(|_| literal) {
        if let Some(byte) = bytes.get_mut(*at as usize) {
            *byte ^= 1;
        }
    }
    (plan.clone(), bytes.into())
}

fn target() -> Vec<u8> {
    random(7, 3 << 20)
}

#[test]
fn a_byte_that_was_staged_wrongly_costs_its_range() {
    for seed in 0..5 {
        let mut ends = Ends::forgetful(seed);
        ends.config = Config::default().level(0);
        let remote = clumsy(&ends, &[100], 1);
        let local = ends.local.clone();
        let ran = ends.pair().storages(local, remote).target(target()).run_to_end();
        assert!(content(&ends.remote) == Some(target()));
        let outcome = ran.outcome();
        // Every piece had a wrong byte: 256 KiB each, and ranges of 8 KiB.
        assert_eq!(outcome.repairs, 1);
        let beyond = ran.wire() - target().len() as u64;
        println!("{beyond} bytes beyond the content");
        assert!(beyond < 13 * (8 << 10) + 6_000, "{beyond}");
    }
}

#[test]
fn a_wrong_byte_among_copies_costs_little_more_than_the_delta() {
    let basis = target();
    let mut new = basis.clone();
    new[1_000_000..1_000_200].fill(3);
    let whole = {
        let mut ends = Ends::forgetful(1);
        put(&ends.remote, &file(), &basis);
        ends.push(&new).wire()
    };
    let mut ends = Ends::forgetful(1);
    put(&ends.remote, &file(), &basis);
    let remote = clumsy(&ends, &[1], 1);
    let local = ends.local.clone();
    let ran = ends.pair().storages(local, remote).target(new.clone()).run_to_end();
    assert!(content(&ends.remote) == Some(new));
    assert_eq!(ran.outcome().repairs, 1);
    println!("{} bytes, {whole} without", ran.wire());
    // 384 sums, and one range of 8 KiB.
    assert!(ran.wire() < whole + 384 * 8 + (8 << 10) + 500, "{} over {whole}", ran.wire());
}

#[test]
fn what_is_wrong_after_a_repair_is_sent_whole() {
    let mut ends = Ends::forgetful(2);
    put(&ends.remote, &file(), &[&target()[..1 << 20], b"else"].concat());
    let remote = clumsy(&ends, &[0], 2);
    let local = ends.local.clone();
    let ran = ends.pair().storages(local, remote).target(target()).run_to_end();
    assert!(content(&ends.remote) == Some(target()));
    assert_eq!(ran.outcome().repairs, 2);
    assert_eq!(ran.outcome().progress.copied.get(), 0);
    assert!(ran.wire() < 2 * target().len() as u64, "{}", ran.wire());
}

#[test]
fn a_server_that_never_stages_what_it_is_told_publishes_nothing() {
    let mut ends = Ends::forgetful(3);
    put(&ends.remote, &file(), b"what was there");
    let remote = clumsy(&ends, &[0], u32::MAX);
    let local = ends.local.clone();
    let ran = ends.pair().storages(local, remote).target(target()).run_to_end();
    let error = ran.outcomes[0].clone().expect_err("it cannot become right").to_string();
    assert!(error.contains("also after a repair"), "{error}");
    assert_eq!(content(&ends.remote).as_deref(), Some(&b"what was there"[..]));
    let told = ran.server_events.iter().filter(|event| matches!(event.kind, EventKind::Repairing)).count();
    assert_eq!(told, 2, "the ranges, then everything");
}

/// A server that reads something else than it has where it looks for what stands before the literals.
#[test]
fn a_stream_behind_another_history_is_repaired() {
    let (mut undecodable, mut wrong) = (0, 0);
    for seed in 0..20 {
        let mut ends = Ends::remembering(100 * seed, KeepForm::Copy);
        let rows = Shape::RowsEdited.case(seed, 100_000);
        ends.push(&rows.basis);
        // What is staged anew before anything was sealed did not unpack.
        let (sealed, read) = (AtomicU32::new(0), AtomicU32::new(0));
        let broken = Arc::new(AtomicU32::new(0));
        let count = broken.clone();
        let remote = meddling(&ends.remote, move |memory, ask| {
            let is_first = match ask {
                Ask::Read { .. } => read.fetch_add(1, Ordering::Relaxed) == 0,
                _ => false,
            };
            match ask {
                Ask::Seal { .. } => drop(sealed.fetch_add(1, Ordering::Relaxed)),
                Ask::Reopen { .. } if sealed.load(Ordering::Relaxed) == 0 => {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
            match memory.answer(ask) {
                // Of another length a history cannot be followed, else it makes other bytes.
                Ok(Answer::Read(_)) if is_first && seed % 2 == 0 => Ok(Answer::Read(Bytes::new())),
                Ok(Answer::Read(bytes)) if is_first => Ok(Answer::Read(bytes.iter().map(|byte| byte ^ 0x20).collect())),
                other => other,
            }
        });
        let local = ends.local.clone();
        let ran = ends.pair().storages(local, remote).target(rows.target.clone()).run_to_end();
        assert!(content(&ends.remote) == Some(rows.target.clone()), "seed {seed}");
        let broken = broken.load(Ordering::Relaxed);
        undecodable += broken;
        wrong += ran.outcome().repairs - broken;
        assert!(ran.outcome().repairs < 2, "what was made is read rightly");
    }
    println!("{undecodable} streams that did not unpack, {wrong} that made other bytes");
    assert!(undecodable > 0 && wrong > 0);
}

#[test]
fn a_pull_is_repaired_as_a_push_is() {
    let mut ends = Ends::forgetful(5);
    ends.config = Config::default().level(0);
    put(&ends.remote, &file(), &target());
    let stages = AtomicU32::new(0);
    let local = meddling(&ends.local, move |memory, ask| match ask {
        Ask::Stage { .. } => {
            stages.fetch_add(1, Ordering::Relaxed);
            memory.answer(ask)
        }
        Ask::Apply { stage, basis, plan, literals } if stages.load(Ordering::Relaxed) == 1 => {
            let (plan, literals) = damaged(&plan, &literals, &[5]);
            memory.answer(Ask::Apply { stage, basis, plan, literals })
        }
        other => memory.answer(other),
    });
    let remote = ends.remote.clone();
    let ran = ends.pair().storages(local, remote).pulled_onto(None).run_to_end();
    assert_eq!(ran.outcome().repairs, 1);
    assert_eq!(ran.outcome().root, Algorithm::Blake3.digest(&target()));
    assert_eq!(ran.outcome().len, ByteLen::of(&target()));
    assert!(content(&ends.local) == Some(target()));
    assert!(ran.wire() < target().len() as u64 + 120_000);
}
