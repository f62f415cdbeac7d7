//! Prints what the exact delta between two files comes to, part by part, and what it cost.
//!
//! `exact_sizes [--xdelta3 REPEATS] OLD NEW...`: pairs of paths, or names of workloads (`W9`), each of which is a pair.
//! With `--xdelta3` two whole programs are run in turn, so many times: this one, which reads both files, finds and
//! packs the delta and writes it; and the program of that name, with a window of the size of the file, if it is there.
//! Files are in the page cache by then. Times are of the processor, user and system, from the kernel's accounts: the
//! median, the least and the most.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use deltasync_benches::{ExactSizes, workload};
use deltasync_core::{
    Algorithm, Alignment, ByteLen, ChunkList, CommonRange, Cutter, DeltaPiece, ExactDiffer, History, Limits,
    LiteralPacker, Op, Planner, TagKey, history_level, pack_ops, tag_runs,
};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

fn common(basis: &[u8], target: &[u8]) -> Vec<CommonRange> {
    let cutter = Cutter::for_len(ByteLen::of(target));
    let [basis, target] = [basis, target].map(|bytes| ChunkList::of(bytes, cutter, Algorithm::Blake3));
    let key = TagKey::new(&[7; 16], 1);
    CommonRange::of(&Alignment::of(&tag_runs(&basis, &key), &tag_runs(&target, &key)), &basis, &target)
}

fn check(basis: &[u8], target: &[u8], pieces: &[DeltaPiece]) {
    let mut planner = Planner::new(ByteLen::of(basis), ByteLen::of(target), &Limits::default()).expect("not too long");
    let mut at = 0;
    for piece in pieces {
        planner.plan(&piece.ops, ByteLen::of(&piece.literals)).expect("fits");
        let mut literals = piece.literals.as_slice();
        for op in piece.ops.as_slice() {
            let len = op.len().get() as usize;
            let made = match *op {
                Op::Literal { .. } => {
                    let (head, rest) = literals.split_at(len);
                    literals = rest;
                    head
                }
                Op::Copy { from, .. } => &basis[from.get() as usize..][..len],
            };
            assert!(target[at..].starts_with(made), "differs behind {at}");
            at += len;
        }
    }
    planner.finish().expect("whole");
}

/// The whole delta as it would be stored: the columns of each piece, then the literals behind their history.
fn delta(basis: &[u8], target: &[u8]) -> Vec<u8> {
    let mut history = History::new(ByteLen::of(basis));
    let (mut delta, mut literals) = (Vec::new(), Vec::new());
    for piece in ExactDiffer::new(basis, target, &Limits::default()) {
        history.push(&piece.ops);
        pack_ops(&piece.ops, 19, &mut delta);
        literals.extend_from_slice(&piece.literals);
    }
    let parts = history.finish();
    let old = parts.iter().map(|part| &basis[part.start.get() as usize..part.end.get() as usize]).collect::<Vec<_>>();
    let old = old.concat();
    let packer = LiteralPacker::new(&old, ByteLen::of(&literals), history_level(old.len() + literals.len()));
    let packed = packer.and_then(|mut packer| packer.push(&literals, true));
    delta.extend(packed.filter(|packed| packed.len() < literals.len()).unwrap_or(literals));
    delta
}

/// Seconds of the processor that a process has used in its first thread; the number of one that has ended stays until
/// it is waited for.
fn cpu(process: &str) -> f64 {
    // The account of a process that runs is brought up to date when it stops running.
    std::thread::yield_now();
    let account = fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
    account.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Runs a program to its end: the seconds it used and the bytes it left in `out`.
fn run(command: &mut Command, out: &Path) -> Option<(f64, u64)> {
    let mut child = command.stdout(Stdio::null()).spawn().ok()?;
    waitid(WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).ok()?;
    let seconds = cpu(&child.id().to_string());
    let status = child.wait().ok()?;
    let len = fs::metadata(out).ok()?.len();
    status.success().then_some((seconds, len))
}

fn ours(old: &Path, new: &Path, out: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("it runs"));
    command.arg("--write").args([old, new, out]);
    command
}

fn xdelta3(old: &Path, new: &Path, out: &Path) -> Command {
    let window = fs::metadata(old).map_or(0, |file| file.len()).next_power_of_two().max(1 << 20);
    let mut command = Command::new("xdelta3");
    command.args(["-9", "-S", "djw", "-e", "-f", "-B", &window.to_string(), "-s"]).args([old, new, out]);
    command
}

fn compare(old: &Path, new: &Path, repeats: usize, dir: &Path) {
    type Program = fn(&Path, &Path, &Path) -> Command;
    let programs: [(&str, Program); 2] = [("this program", ours), ("xdelta3", xdelta3)];
    let mut seconds = [const { Vec::new() }; 2];
    let mut lens = [0; 2];
    let out = dir.join("out");
    for _ in 0..repeats {
        for (i, (_, program)) in programs.iter().enumerate() {
            let Some((used, len)) = run(&mut program(old, new, &out), &out) else { continue };
            seconds[i].push(used);
            lens[i] = len;
        }
    }
    let _ = fs::remove_file(&out);
    let mut medians = [0.0; 2];
    for (i, (name, _)) in programs.iter().enumerate() {
        let all = &mut seconds[i];
        all.sort_by(f64::total_cmp);
        let Some(median) = all.get(all.len() / 2) else { return println!("  {name} cannot be run") };
        medians[i] = *median;
        println!("  {name}: {} bytes; cpu {median:.3} s ({:.3} to {:.3})", lens[i], all[0], all[all.len() - 1]);
    }
    let [time, len] = [medians[0] / medians[1], lens[0] as f64 / lens[1] as f64];
    println!("  ratios: time {time:.3}, length {len:.3}");
}

/// Prints the parts, found with and without hints.
fn parts(old: &Path, new: &Path) {
    let [basis, target] = [old, new].map(|path| fs::read(path).expect("readable"));
    println!("{} -> {} ({} bytes)", old.display(), new.display(), target.len());
    for hints in [false, true] {
        let ranges = if hints { common(&basis, &target) } else { Vec::new() };
        let start = cpu("self");
        let mut differ = ExactDiffer::new(&basis, &target, &Limits::default()).common(ranges);
        let pieces: Vec<DeltaPiece> = differ.by_ref().collect();
        let found = cpu("self");
        let sizes = ExactSizes::of_pieces(&basis, &pieces);
        let packed = cpu("self");
        check(&basis, &target, &pieces);
        println!(
            "  {}: {} bytes: columns {} of {} operations, literals {} of {} (history {}); cpu {:.3} s search, {:.3} s \
             packing and unpacking; work {} %",
            if hints { "with common ranges" } else { "without hints" },
            sizes.len(),
            sizes.columns,
            sizes.ops,
            sizes.packed,
            sizes.literals,
            sizes.history,
            found - start,
            packed - found,
            differ.work() * 100 / (basis.len() + target.len()).max(1) as u64,
        );
    }
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [write, old, new, out] = arguments.as_slice()
        && write == "--write"
    {
        let [basis, target] = [old, new].map(|path| fs::read(path).expect("readable"));
        return fs::write(out, delta(&basis, &target)).expect("writable");
    }
    let mut repeats = 0;
    if arguments.first().is_some_and(|first| first == "--xdelta3") {
        repeats = arguments.get(1).and_then(|repeats| repeats.parse().ok()).expect("--xdelta3 REPEATS");
        arguments.drain(..2);
    }
    let dir = tempfile::tempdir().expect("a directory for what is made");
    let mut arguments = arguments.into_iter();
    while let Some(old) = arguments.next() {
        let (old, new) = match workload(&old) {
            Some(workload) => {
                let files = workload.files(1).expect("its makers are there");
                let paths = ["old", "new"].map(|name| dir.path().join(name));
                paths
                    .iter()
                    .zip([&files.old, &files.new])
                    .for_each(|(path, bytes)| fs::write(path, bytes).expect("room"));
                println!("{}: {}", workload.name, workload.what);
                paths.into()
            }
            None => (PathBuf::from(old), PathBuf::from(arguments.next().expect("pairs of paths"))),
        };
        parts(&old, &new);
        if repeats > 0 {
            compare(&old, &new, repeats, dir.path());
        }
    }
}
