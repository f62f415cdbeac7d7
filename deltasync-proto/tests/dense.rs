//! What cannot be packed passes by the packer, and whatever passes by and whatever does not makes the target.

use std::collections::VecDeque;

use deltasync_io::{BlockingStorage, MemoryStorage};
use deltasync_proto::{Config, Input, Output, RootId, Session, Timestamp, TransferId};
use deltasync_testkit::{Rng, file, push};

const MIB: usize = 1 << 20;

/// Pushes `target` to a server that has `basis`, and returns how many pieces were packed, and how many bytes travelled.
fn packed_in_push(basis: Option<&[u8]>, target: &[u8]) -> (usize, usize) {
    let storages = [MemoryStorage::new(), MemoryStorage::new()];
    storages[0].insert(RootId::new(0), file(), target.to_vec());
    if let Some(basis) = basis {
        storages[1].insert(RootId::new(0), file(), basis.to_vec());
    }
    let mut sessions = [Session::client(Config::default(), [1; 32]), Session::server(Config::default(), [2; 32])];
    let now = Timestamp::new(0);
    let mut inputs: [VecDeque<Input>; 2] = Default::default();
    inputs[0].push_back(Input::Command { transfer: TransferId::new(1), command: push(file(), file()) });
    inputs[0].push_back(Input::Finish);
    let (mut packed, mut sent, mut open) = (0, 0, [true; 2]);
    let mut end = 0;
    while open.contains(&true) {
        assert!(inputs.iter().any(|inputs| !inputs.is_empty()), "both ends wait");
        end = if open[end] && !inputs[end].is_empty() { end } else { 1 - end };
        if !open[end] {
            inputs[end].clear();
            continue;
        }
        if let Some(input) = inputs[end].pop_front() {
            sessions[end].handle_input(now, input).expect("used as it may be");
        }
        loop {
            match sessions[end].poll_output() {
                Output::Transmit(bytes) => {
                    sent += bytes.len();
                    inputs[end].push_back(Input::Written(bytes.len()));
                    inputs[1 - end].push_back(Input::Received(bytes));
                }
                Output::Storage(request) => {
                    let answer = storages[end].answer(request.ask);
                    inputs[end].push_back(Input::Answered { id: request.id, answer });
                }
                Output::Compute(job) => {
                    packed += usize::from(format!("{job:?}").contains("work: Pack {"));
                    inputs[end].push_back(Input::Computed { id: job.id, result: job.run() });
                }
                Output::Event(_) => {}
                Output::Wait { .. } => break,
                Output::Finished(outcome) => {
                    outcome.expect("ends well");
                    open[end] = false;
                    inputs[1 - end].push_back(Input::EndOfStream);
                    break;
                }
            }
        }
    }
    assert!(storages[1].get(RootId::new(0), &file()).as_deref() == Some(target), "the result differs");
    (packed, sent)
}

#[test]
fn a_dense_target_is_never_packed() {
    let target = Rng::new(1).bytes(6 * MIB);
    let (packed, sent) = packed_in_push(None, &target);
    assert_eq!(packed, 0);
    assert!(sent < target.len() + target.len() / 100, "{sent} bytes");
}

#[test]
fn what_packs_is_packed_between_what_does_not() {
    let text = b"INSERT INTO orders VALUES (17,'alpha bravo',42.50,'pending'); ".repeat(2 * MIB / 62);
    let target = [&Rng::new(2).bytes(3 * MIB)[..], &text, &Rng::new(3).bytes(2 * MIB), &text].concat();
    let (packed, sent) = packed_in_push(None, &target);
    assert!((16..=40).contains(&packed), "{packed} pieces");
    assert!(sent < 5 * MIB + MIB / 2, "{sent} bytes");
}

#[test]
fn what_repeats_over_a_distance_is_packed() {
    let once = Rng::new(4).bytes(MIB);
    let (packed, sent) = packed_in_push(None, &once.repeat(8));
    assert!(packed > 16, "{packed} pieces");
    assert!(sent < 4 * MIB, "{sent} bytes");
}

#[test]
fn dense_literals_behind_a_basis_are_tried_now_and_then() {
    let basis = Rng::new(5).bytes(2 * MIB);
    let target = [&basis[..MIB], &Rng::new(6).bytes(8 * MIB), &basis[MIB..]].concat();
    let (packed, _) = packed_in_push(Some(&basis), &target);
    assert!(packed <= 12, "{packed} of 33 pieces");
}
