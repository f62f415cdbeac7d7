//! Prints what a push costs on the wire, for each workload and by what both ends know before.
//!
//! `wire [--only W1,W4] [--seed N] [--columns cold,sums,copy]`. Two sessions in memory, so the figures are exact and the
//! same on every machine. `!` marks a figure over its bound, `-` what cannot be counted yet.

use std::process::ExitCode;

use deltasync_benches::{Bound, Column, CountError, WORKLOADS, Workload, grouped, push, workload};

const USAGE: &str = "usage: wire [--only W1,W4] [--seed N] [--columns cold,sums,copy]";

struct Args {
    only: Vec<&'static Workload>,
    seed: u64,
    columns: Vec<Column>,
}

fn main() -> ExitCode {
    let Some(args) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    println!("Bytes both ways (round trips) / bound; seed {}.\n", args.seed);
    let columns: Vec<_> = args.columns.iter().map(|column| title(*column)).collect();
    println!("| case | floor | {} | rsync, default / best | xdelta3 |", columns.join(" | "));
    println!("|---|--:|{}--:|--:|", "--:|".repeat(columns.len()));
    let mut wrong = false;
    for workload in args.only {
        let files = match workload.files(args.seed) {
            Ok(files) => files,
            Err(error) => {
                eprintln!("{}: skipped: {error}", workload.name);
                continue;
            }
        };
        let cells: Vec<_> = args
            .columns
            .iter()
            .map(|column| match (workload.bound(*column), || push(&files, *column, args.seed)) {
                (None, _) => String::new(),
                (Some(bound), count) => cell(bound, count()).unwrap_or_else(|error| {
                    eprintln!("{}: {}: {error}", workload.name, column.name());
                    wrong = true;
                    "failed".to_owned()
                }),
            })
            .collect();
        let [default, best] = workload.rsync.map(grouped);
        println!(
            "| {}: {} | {} | {} | {default} / {best} | {} |",
            workload.name,
            workload.what,
            grouped(files.floor),
            cells.join(" | "),
            grouped(workload.xdelta3)
        );
    }
    ExitCode::from(u8::from(wrong))
}

fn title(column: Column) -> &'static str {
    match column {
        Column::Cold => "no shared state",
        Column::Sums => "known, sums kept",
        Column::Copy => "known, copy kept",
    }
}

fn cell(bound: Bound, counted: Result<deltasync_benches::Counted, CountError>) -> Result<String, CountError> {
    let allowed = match bound.round_trips {
        Some(trips) => format!("{} ({trips})", grouped(bound.bytes)),
        None => grouped(bound.bytes),
    };
    match counted {
        Ok(counted) => {
            let mark = if bound.allows(counted) { "" } else { " !" };
            Ok(format!("{} ({}){mark} / {allowed}", grouped(counted.bytes), counted.round_trips))
        }
        Err(error) => Err(error),
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Args> {
    let mut parsed = Args { only: WORKLOADS.iter().collect(), seed: 1, columns: Column::ALL.to_vec() };
    while let Some(option) = args.next() {
        let value = args.next()?;
        match option.as_str() {
            "--only" => parsed.only = value.split(',').map(workload).collect::<Option<_>>()?,
            "--seed" => parsed.seed = value.parse().ok()?,
            "--columns" => parsed.columns = value.split(',').map(Column::named).collect::<Option<_>>()?,
            _ => return None,
        }
    }
    Some(parsed)
}
