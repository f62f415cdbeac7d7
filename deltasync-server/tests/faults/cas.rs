//! Many writers of one file. Under a condition exactly one of those who saw the same version wins, and the others learn
//! which one is there now; without one all get through in the end, and each is told of every version that it replaced
//! unseen. Either way the file's history is a line.

use std::sync::Arc;

use deltasync_core::{Algorithm, Digest};
use deltasync_proto::{Condition, RefusalCode, TransferError};
use tempfile::TempDir;
use tokio::sync::Barrier;

use crate::client::{Client, path};
use crate::ledger::names;
use crate::served::Served;

const CLIENTS: usize = 64;
const ROUNDS: usize = 200;

/// Says who wrote it, when, and over what.
fn content(round: usize, client: usize, replaced: Option<Digest>) -> Vec<u8> {
    let replaced = replaced.map_or_else(|| "nothing".to_owned(), |root| root.to_string());
    let mut bytes = format!("round {round} client {client} over {replaced}\n").into_bytes();
    // So that there is something to take from the basis.
    bytes.resize(3000, b'.');
    bytes
}

fn root_of(bytes: &[u8]) -> Digest {
    Algorithm::Blake3.digest(bytes)
}

fn condition(seen: Option<Digest>) -> Condition {
    seen.map_or(Condition::Absent, Condition::Root)
}

/// What a client got in each round, and over what.
enum Got {
    Won { made: Digest },
    Lost { now: Digest },
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute"]
async fn of_64_clients_that_swap_200_times_one_wins_each_round() {
    let directory = TempDir::new().expect("a directory");
    let server = Served::start_with(directory.path(), &["--history", "1000000"]);
    let barrier = Arc::new(Barrier::new(CLIENTS));
    let mut writers = Vec::new();
    for number in 0..CLIENTS {
        let (barrier, address) = (Arc::clone(&barrier), server.address);
        writers.push(tokio::spawn(async move {
            let mut client = Client::connect(address).await.expect("it listens");
            let at = path("one/file");
            let mut rounds = Vec::new();
            for round in 0..ROUNDS {
                let seen = match client.root(&at).await {
                    Ok(root) => Some(root),
                    Err(TransferError::Refused(refusal)) if refusal.code == RefusalCode::NotFound => None,
                    Err(error) => panic!("{error}"),
                };
                // All have seen the same, and begin at once.
                barrier.wait().await;
                let bytes = content(round, number, seen);
                let made = root_of(&bytes);
                let got = match client.push_if(&at, bytes, condition(seen)).await {
                    Ok(outcome) => {
                        assert_eq!(outcome.root, made);
                        Got::Won { made }
                    }
                    Err(TransferError::Refused(refusal)) => {
                        assert_eq!(refusal.code, RefusalCode::Conflict, "{refusal:?}");
                        Got::Lost { now: refusal.current.expect("the loser is told what is there").root }
                    }
                    Err(error) => panic!("round {round}: {error}"),
                };
                rounds.push((seen, got));
                barrier.wait().await;
            }
            client.finish().await;
            rounds
        }));
    }
    let mut rounds: Vec<Vec<(Option<Digest>, Got)>> = (0..ROUNDS).map(|_| Vec::new()).collect();
    for writer in writers {
        let got = writer.await.expect("nothing went wrong");
        rounds.iter_mut().zip(got).for_each(|(round, got)| round.push(got));
    }
    let mut last = None;
    for (number, round) in rounds.iter().enumerate() {
        let mut winners = round.iter().filter_map(|(_, got)| match got {
            Got::Won { made } => Some(*made),
            Got::Lost { .. } => None,
        });
        let winner = winners.next().unwrap_or_else(|| panic!("nobody won round {number}"));
        assert_eq!(winners.next(), None, "two won round {number}");
        for (seen, got) in round {
            assert_eq!(*seen, last, "round {number} began with another version");
            if let Got::Lost { now } = got {
                assert_eq!(*now, winner, "a loser of round {number} was told of another version");
            }
        }
        last = Some(winner);
    }
    let file = std::fs::read(directory.path().join("one/file")).expect("it is there");
    assert_eq!(Some(root_of(&file)), last);
    assert_eq!(names(&directory.path().join(".deltasync/staging")), Vec::<String>::new());
    println!("{CLIENTS} clients, {ROUNDS} rounds: {ROUNDS} winners, {} losers", ROUNDS * (CLIENTS - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_condition_all_get_through_and_each_is_told_what_it_replaced_unseen() {
    let directory = TempDir::new().expect("a directory");
    let server = Served::start(directory.path());
    let mut first = Client::connect(server.address).await.expect("it listens");
    first.push(&path("file"), content(0, 0, None)).await.expect("it is taken");
    let mut told_of = 0;
    for round in 1..6 {
        let barrier = Arc::new(Barrier::new(CLIENTS));
        let mut writers = Vec::new();
        for number in 0..CLIENTS {
            let (barrier, address) = (Arc::clone(&barrier), server.address);
            writers.push(tokio::spawn(async move {
                let mut client = Client::connect(address).await.expect("it listens");
                barrier.wait().await;
                let outcome = client.push(&path("file"), content(round, number, None)).await.expect("it gets through");
                let conflicts = client.told().conflicts();
                client.finish().await;
                let generation = outcome.generation.expect("each is a version of its own");
                (generation, outcome.root, conflicts)
            }));
        }
        let mut done = Vec::new();
        for writer in writers {
            done.push(writer.await.expect("nothing went wrong"));
        }
        done.sort_by_key(|(generation, ..)| *generation);
        assert!(done.windows(2).all(|pair| pair[0].0 < pair[1].0), "a generation was given twice");
        let file = std::fs::read(directory.path().join("file")).expect("it is there");
        assert_eq!(root_of(&file), done[CLIENTS - 1].1, "the last of the line is there");
        for (index, (generation, _, conflicts)) in done.iter().enumerate() {
            let told: Vec<_> = conflicts.iter().map(|current| current.expect("a file is there").root).collect();
            for root in &told {
                let of = done[..index].iter().any(|(_, other, _)| other == root);
                assert!(of, "generation {generation} was told of a version that did not come before it");
            }
            told_of += told.len();
        }
    }
    println!("5 rounds of {CLIENTS} pushes at once: {} versions, {told_of} conflicts told", 5 * CLIENTS);
    assert!(told_of > 0, "they never met");
}
