//! Counts how often a transfer needs a repair: random files and edits, pushed by real sessions in memory.
//!
//! `repairs [TRANSFERS] [SEED]`: 5,000 and 1 unless told otherwise. Prints how many transfers had a false match of short
//! sums, and fails when one ended in another file.

use std::process::ExitCode;

use deltasync_proto::RootId;
use deltasync_testkit::{Link, Pair, Rng, Shape, file};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>().ok());
    let (Some(transfers), Some(seed)) = (args.next().unwrap_or(Some(5000)), args.next().unwrap_or(Some(1))) else {
        eprintln!("usage: repairs [TRANSFERS] [SEED]");
        return ExitCode::from(2);
    };
    let mut rng = Rng::new(seed);
    let (mut repaired, mut repairs, mut bytes) = (0, 0, 0);
    for transfer in 0..transfers {
        let (old, new) = pair(&mut rng);
        let wanted = new.clone();
        let run = Pair::new(seed << 32 | transfer).link(Link::perfect()).basis(old).target(new);
        let remote = run.remote.clone();
        let ran = run.run_to_end();
        if remote.get(RootId::new(0), &file()).as_deref() != Some(&wanted[..]) {
            eprintln!("transfer {transfer} of seed {seed} ended in another file");
            return ExitCode::FAILURE;
        }
        let of_this = ran.outcome().repairs;
        repaired += u32::from(of_this > 0);
        repairs += of_this;
        bytes += ran.wire();
    }
    println!("{transfers} transfers, {bytes} bytes on the wire: {repaired} were repaired, by {repairs} repairs");
    ExitCode::SUCCESS
}

/// A shape of the testkit, or edits at random places of random bytes, text or rows.
fn pair(rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
    let len = 2000 + rng.below(300_000);
    let shapes = Shape::ALL;
    let case = shapes[rng.below(shapes.len())].case(rng.below(1 << 30) as u64, len);
    if rng.below(3) == 0 {
        return (case.basis, case.target);
    }
    let old = case.basis;
    let mut new = old.clone();
    for _ in 0..=rng.below(12) {
        let at = rng.below(new.len() + 1);
        let gone = rng.below(600).min(new.len() - at);
        let fresh = rng.below(600);
        let fresh = rng.bytes(fresh);
        new.splice(at..at + gone, fresh);
    }
    (old, new)
}
