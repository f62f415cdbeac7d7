//! Prints what the exact delta between two files comes to, part by part, and what it cost.
//!
//! `exact_sizes [--xdelta3] OLD NEW...`: pairs of paths. With `--xdelta3` the program of that name is run beside it, if
//! it is there. Times are of the processor, from the kernel's accounts, with the files in memory already.

use std::process::Command;
use std::time::Instant;

use deltasync_benches::ExactSizes;
use deltasync_core::{
    Algorithm, Alignment, ByteLen, ChunkList, CommonRange, Cutter, DeltaPiece, ExactDiffer, Limits, Op, Planner,
    TagKey, tag_runs,
};

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

/// Seconds of the processor that this process has used, or its children.
fn cpu(children: bool) -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    let first = if children { 13 } else { 11 };
    (ticks(first) + ticks(first + 1)) / 100.0
}

fn xdelta3(old: &str, new: &str, window: usize) -> Option<(usize, f64)> {
    let out = std::env::temp_dir().join(format!("exact_sizes.{}", std::process::id()));
    let before = cpu(true);
    let window = window.next_power_of_two().max(1 << 20).to_string();
    let arguments = ["-9", "-S", "djw", "-e", "-f", "-B", &window, "-s", old, new];
    let status = Command::new("xdelta3").args(arguments).arg(&out).status().ok()?;
    let len = std::fs::metadata(&out).ok()?.len() as usize;
    std::fs::remove_file(&out).ok()?;
    status.success().then(|| (len, cpu(true) - before))
}

fn main() {
    let mut paths: Vec<String> = std::env::args().skip(1).collect();
    let compare = paths.first().is_some_and(|first| first == "--xdelta3");
    if compare {
        paths.remove(0);
    }
    for pair in paths.chunks_exact(2) {
        let [basis, target] = [&pair[0], &pair[1]].map(|path| std::fs::read(path).expect("readable"));
        println!("{} -> {} ({} bytes)", pair[0], pair[1], target.len());
        for hints in [false, true] {
            let ranges = if hints { common(&basis, &target) } else { Vec::new() };
            let (start, used) = (Instant::now(), cpu(false));
            let mut differ = ExactDiffer::new(&basis, &target, &Limits::default()).common(ranges);
            let pieces: Vec<DeltaPiece> = differ.by_ref().collect();
            let (found, found_cpu) = (start.elapsed(), cpu(false) - used);
            let sizes = ExactSizes::of_pieces(&basis, &pieces);
            let all = start.elapsed();
            check(&basis, &target, &pieces);
            println!(
                "  {}: {} bytes: columns {} of {} operations, literals {} of {} (history {}); cpu {:.2} s, wall {:.3} s \
                 search, {:.3} s in all; work {} %",
                if hints { "with common ranges" } else { "without hints" },
                sizes.len(),
                sizes.columns,
                sizes.ops,
                sizes.packed,
                sizes.literals,
                sizes.history,
                found_cpu,
                found.as_secs_f64(),
                all.as_secs_f64(),
                differ.work() * 100 / (basis.len() + target.len()).max(1) as u64,
            );
        }
        if compare && let Some((len, seconds)) = xdelta3(&pair[0], &pair[1], basis.len()) {
            println!("  xdelta3: {len} bytes; cpu {seconds:.2} s");
        }
    }
}
