//! What a push costs on the wire stays within the bounds of the workloads, for several seeds.
//!
//! The bounds are those of `deltasync_benches::WORKLOADS`; `cargo run --release -p deltasync-benches --bin wire` prints
//! the figures beside them.

use deltasync_benches::{Column, push, workload};

/// Every column of a workload keeps its bound.
#[track_caller]
fn check_bounds(name: &str, seeds: impl IntoIterator<Item = u64>) {
    let workload = workload(name).expect("a workload of the table");
    let mut over = Vec::new();
    for seed in seeds {
        let files = workload.files(seed).unwrap_or_else(|error| panic!("{name}: {error}"));
        for column in Column::ALL {
            let Some(bound) = workload.bound(column) else { continue };
            match push(&files, column, seed) {
                Ok(counted) if bound.allows(counted) => {
                    // What is below the floor was counted wrongly: content cannot get lost.
                    assert!(counted.bytes > files.floor, "{name}, seed {seed}: {counted:?} below {}", files.floor);
                }
                Ok(counted) => over.push(format!("seed {seed}, {}: {counted:?} over {bound:?}", column.name())),
                Err(error) => over.push(format!("seed {seed}, {}: {error}", column.name())),
            }
        }
    }
    assert!(over.is_empty(), "{name}, {}:\n{}", workload.what, over.join("\n"));
}

#[test]
fn a_replaced_block_costs_its_bytes_and_little_more() {
    check_bounds("W1", 1..=3);
}

#[test]
fn a_changed_byte_costs_hundreds_of_bytes() {
    check_bounds("W2", 1..=3);
}

#[test]
fn a_byte_at_the_front_costs_hundreds_of_bytes() {
    check_bounds("W3", 1..=3);
}

#[test]
fn scattered_edits_cost_their_bytes_and_some_for_each_place() {
    check_bounds("W4", 1..=2);
}

#[test]
#[ignore = "needs half a minute and 4 GiB of memory: run .ci/run"]
fn overwrites_in_a_gibibyte_cost_their_bytes_and_some_for_each_place() {
    check_bounds("W5", 1..=1);
}

#[test]
fn an_unchanged_file_costs_a_sketch_at_most() {
    check_bounds("W6", 1..=2);
}

#[test]
fn an_appended_mebibyte_costs_itself() {
    check_bounds("W7", 1..=2);
}

#[test]
fn swapped_halves_cost_the_order_of_chunks_and_no_content() {
    check_bounds("W8", 1..=3);
}

#[test]
#[ignore = "needs half a minute: run .ci/run"]
fn edited_rows_cost_their_text_and_some_for_each_place() {
    check_bounds("W9", 1..=2);
}

#[test]
#[ignore = "needs python3: run .ci/run"]
fn statements_in_a_database_cost_the_pages_they_touch() {
    check_bounds("W10", 1..=1);
}

#[test]
#[ignore = "needs python3, pip and a package registry: run .ci/run"]
fn a_release_costs_what_changed_since_the_last_one() {
    check_bounds("W11", 1..=1);
}

#[test]
#[ignore = "needs half a minute: run .ci/run"]
fn unrelated_files_cost_the_new_one_and_no_signature() {
    check_bounds("W14", 1..=2);
}

#[test]
fn bytes_in_zeros_cost_hundreds_of_bytes() {
    check_bounds("W15a", 1..=2);
}

#[test]
fn edits_in_a_pattern_cost_their_bytes_and_some_for_each_place() {
    check_bounds("W15b", 1..=2);
}
