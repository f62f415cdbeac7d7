//! Writes the seeds of the fuzz targets anew: `cargo run -p deltasync-testkit --example seeds`.
//!
//! To be run after a change of a format. What fuzzers have found lies beside the seeds, named by its hash, and is left
//! alone.

use std::fs;
use std::path::Path;

use deltasync_testkit::FuzzTarget;

fn main() -> std::io::Result<()> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for target in FuzzTarget::ALL {
        let corpus = corpora.join(target.name());
        fs::create_dir_all(&corpus)?;
        let (mut count, mut len) = (0, 0);
        for seed in target.seeds() {
            fs::write(corpus.join(&seed.name), &seed.bytes)?;
            (count, len) = (count + 1, len + seed.bytes.len());
        }
        println!("{}: {count} seeds, {len} bytes", target.name());
    }
    Ok(())
}
