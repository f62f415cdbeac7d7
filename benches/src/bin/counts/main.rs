//! Counts the instructions of each hot path, and compares them with the counts in `benches/counts.txt`.
//!
//! `counts [--check] [--record] [--only PART] [--margin 5]`. A table of counts and their ratios to the recorded ones; with
//! `--check` it fails when one is more than `--margin` percent above, or not recorded. `--record` writes the file anew.
//! Counts hardly depend on what else the machine does, so they show a regression where times do not.
//!
//! Each path is a process of its own under callgrind, which counts while [`measured`] runs and nothing before. It needs
//! `valgrind` and no more: gungraun compares with its last run on the same machine or with limits in the source, and a
//! baseline in the repository is what a fresh clone has; what it would do besides is this file.
//!
//! Valgrind has a processor of its own making: with AVX2 where the machine has it, never with AVX-512. So the AVX2 paths
//! are what is counted. Another compiler or another processor counts differently: then nothing is a regression, and the
//! table says why.

mod paths;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use deltasync_benches::grouped;

const USAGE: &str = "usage: counts [--check] [--record] [--only PART] [--margin 5]";

/// What opens the file of counts.
const HEAD: &str = "# Instructions of the hot paths, written by: cargo run --release -p deltasync-benches --bin counts -- \
                    --record\n";

struct Args {
    check: bool,
    record: bool,
    only: String,
    /// Percent.
    margin: f64,
}

/// Counts, and under what they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// The compiler and the processor: counts under different ones say nothing of each other.
    under: String,
    counts: BTreeMap<String, u64>,
}

/// What is counted is what this does.
#[inline(never)]
fn measured(run: &mut dyn FnMut()) {
    run();
    // So that the call above is no jump, which callgrind would take for the end.
    black_box(());
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--one", name] => match paths::PATHS.iter().find(|path| path.0 == name) {
            Some((_, prepare)) => {
                measured(&mut *prepare());
                ExitCode::SUCCESS
            }
            None => ExitCode::from(2),
        },
        ["--processor"] => {
            println!("{}", processor());
            ExitCode::SUCCESS
        }
        _ => match parse(args.into_iter()).map(|args| run(&args)) {
            Some(Ok(true)) => ExitCode::SUCCESS,
            Some(Ok(false)) => ExitCode::FAILURE,
            Some(Err(error)) => {
                eprintln!("counts: {error}");
                ExitCode::FAILURE
            }
            None => {
                eprintln!("{USAGE}");
                ExitCode::from(2)
            }
        },
    }
}

/// Counts and reports; false when something is too far above what was recorded.
fn run(args: &Args) -> io::Result<bool> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("counts.txt");
    let before = std::fs::read_to_string(&file).map(|text| Counts::read(&text)).unwrap_or_default();
    let mut now = Counts { under: under()?, counts: BTreeMap::new() };
    for (name, _) in paths::PATHS.iter().filter(|path| path.0.contains(&args.only)) {
        now.counts.insert((*name).to_owned(), count(name)?);
    }
    let (table, within) = now.compared(&before, args.margin);
    print!("{table}");
    if args.record {
        // With `--only`, the others stay as they are.
        let mut all = if before.under == now.under { before.counts } else { BTreeMap::new() };
        all.append(&mut now.counts);
        std::fs::write(&file, Counts { under: now.under, counts: all }.written())?;
        println!("\nRecorded in {}.", file.display());
        return Ok(true);
    }
    Ok(within || !args.check)
}

/// The instructions of one path.
fn count(name: &str) -> io::Result<u64> {
    let options = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counts*measured*"];
    let text = valgrind(&options, &["--one", name])?;
    let count = text.lines().find_map(|line| line.split_once("Collected :")?.1.split_whitespace().next()?.parse().ok());
    count
        .filter(|count| *count > 0)
        .ok_or_else(|| io::Error::other(format!("{name}: callgrind counted nothing: {text}")))
}

/// The compiler, and the processor that valgrind makes.
fn under() -> io::Result<String> {
    let rustc = Command::new("rustc").arg("--version").output()?;
    let processor = valgrind(&["--tool=none", "-q"], &["--processor"])?;
    Ok(format!("{}, {}", String::from_utf8_lossy(&rustc.stdout).trim(), processor.trim()))
}

/// Everything that this program writes when it is run with `args` under valgrind.
fn valgrind(options: &[&str], args: &[&str]) -> io::Result<String> {
    let program = std::env::current_exe()?;
    let started = Command::new("valgrind").args(options).arg(program).args(args).output();
    let output = started.map_err(|error| io::Error::other(format!("cannot run valgrind: {error}")))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() { Ok(text) } else { Err(io::Error::other(format!("{args:?} failed: {text}"))) }
}

/// What matters of the processor that this runs on.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = std::arch::is_x86_feature_detected!("avx2");
        let avx512 = std::arch::is_x86_feature_detected!("avx512f");
        format!("x86_64{}{}", if avx2 { " avx2" } else { "" }, if avx512 { " avx512" } else { "" })
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH.to_owned()
}

impl Counts {
    /// What [`written`](Self::written) wrote; lines of another form are passed over.
    fn read(text: &str) -> Self {
        let mut lines = text.lines().filter(|line| !line.starts_with('#'));
        let under = lines.next().unwrap_or_default().to_owned();
        let count = |line: &str| {
            let (name, count) = line.rsplit_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        Self { under, counts: lines.filter_map(count).collect() }
    }

    fn written(&self) -> String {
        let mut text = format!("{HEAD}{}\n", self.under);
        for (name, count) in &self.counts {
            writeln!(text, "{name} {count}").expect("a string takes all");
        }
        text
    }

    /// The table beside what was recorded, and whether everything is within the margin, in percent.
    fn compared(&self, before: &Self, margin: f64) -> (String, bool) {
        let comparable = self.under == before.under;
        let mut table =
            format!("{}\n\n| path | instructions | recorded | ratio | |\n|---|--:|--:|--:|---|\n", self.under);
        let mut failed = 0;
        for (name, now) in &self.counts {
            let recorded = before.counts.get(name);
            let ratio = recorded.map(|before| *now as f64 / *before as f64);
            let says = match ratio {
                None => "not recorded",
                Some(ratio) if ratio > 1.0 + margin / 100.0 => "**more**",
                Some(ratio) if ratio < 1.0 - margin / 100.0 => "less",
                Some(_) => "",
            };
            failed += usize::from(matches!(says, "not recorded" | "**more**"));
            let (recorded, ratio) = (recorded.map(|count| grouped(*count)), ratio.map(|ratio| format!("{ratio:.3}")));
            let (recorded, ratio) = (recorded.unwrap_or_default(), ratio.unwrap_or_default());
            writeln!(table, "| {name} | {} | {recorded} | {ratio} | {says} |", grouped(*now))
                .expect("a string takes all");
        }
        if !comparable {
            writeln!(table, "\nRecorded under another compiler or processor, so no regression: {:?}", before.under)
                .expect("a string takes all");
        } else if failed > 0 {
            let what = "\nWhere this is meant, say why in the commit that records the counts anew:";
            writeln!(table, "{what} counts -- --record").expect("a string takes all");
        }
        (table, failed == 0 || !comparable)
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Args> {
    let mut parsed = Args { check: false, record: false, only: String::new(), margin: 5.0 };
    while let Some(option) = args.next() {
        match option.as_str() {
            "--check" => parsed.check = true,
            "--record" => parsed.record = true,
            "--only" => parsed.only = args.next()?,
            "--margin" => parsed.margin = args.next()?.parse().ok().filter(|margin| *margin >= 0.0)?,
            _ => return None,
        }
    }
    Some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(under: &str, counts: &[(&str, u64)]) -> Counts {
        Counts {
            under: under.to_owned(),
            counts: counts.iter().map(|(name, count)| ((*name).into(), *count)).collect(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let all = counts("rustc 1, x86_64 avx2", &[("cut/random/4 MiB", 12), ("sketch", 3)]);
        assert_eq!(Counts::read(&all.written()), all);
    }

    #[test]
    fn more_than_the_margin_fails_and_less_does_not() {
        let before = counts("one", &[("a", 1000)]);
        for (now, within) in [(1050, true), (1051, false), (100, true)] {
            assert_eq!(counts("one", &[("a", now)]).compared(&before, 5.0).1, within, "{now}");
        }
        assert!(!counts("one", &[("new", 1)]).compared(&before, 5.0).1);
    }

    #[test]
    fn another_compiler_is_reported_and_fails_nothing() {
        let before = counts("one", &[("a", 1000)]);
        let (table, within) = counts("two", &[("a", 9000)]).compared(&before, 5.0);
        assert!(within && table.contains("\"one\"") && table.contains("9.000"), "{table}");
    }

    #[test]
    fn paths_have_names_of_their_own_and_can_be_run() {
        let mut names: Vec<_> = paths::PATHS.iter().map(|path| path.0).collect();
        let len = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), len);
        for (_, prepare) in &paths::PATHS {
            prepare()();
        }
    }
}
