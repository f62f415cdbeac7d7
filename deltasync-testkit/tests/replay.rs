//! Every input that was worth keeping, through the body of its fuzz target.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use deltasync_testkit::FuzzTarget;

/// All corpora together, in bytes: they travel with every clone.
const CORPORA_MAX: u64 = 1 << 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name().into_string();
    entries.map(|entry| name(entry).expect("names in ASCII")).collect()
}

/// Targets whose bodies are in crates above this one, which replay their corpora themselves.
const ELSEWHERE: [&str; 1] = ["http"];

fn targets() -> BTreeSet<String> {
    FuzzTarget::ALL.iter().map(|target| target.name()).chain(ELSEWHERE).map(str::to_owned).collect()
}

#[test]
fn every_committed_input_passes() {
    for target in FuzzTarget::ALL {
        let corpus = fuzz().join("corpus").join(target.name());
        let inputs = names(&corpus);
        assert!(!inputs.is_empty(), "{} has no corpus", target.name());
        for input in inputs {
            // Shown when this one panics.
            println!("{}/{input}", target.name());
            target.run(&fs::read(corpus.join(&input)).expect("a readable input"));
        }
    }
}

#[test]
fn every_seed_passes() {
    for target in FuzzTarget::ALL {
        let mut seen = BTreeSet::new();
        for seed in target.seeds() {
            println!("{}/{}", target.name(), seed.name);
            assert!(seen.insert(seed.name), "named twice");
            target.run(&seed.bytes);
        }
        target.run(b"");
    }
}

#[test]
fn every_target_has_a_wrapper_and_a_corpus_and_no_other_has() {
    assert_eq!(names(&fuzz().join("corpus")), targets());
    let wrappers = names(&fuzz().join("fuzz_targets"));
    assert_eq!(wrappers.iter().map(|file| file.trim_end_matches(".rs").to_owned()).collect::<BTreeSet<_>>(), targets());
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("a manifest");
    for name in targets() {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml lacks {name}");
    }
}

#[test]
fn the_corpora_stay_small() {
    let len = |target: &FuzzTarget| -> u64 {
        let corpus = fuzz().join("corpus").join(target.name());
        let file_len = |name: &String| fs::metadata(corpus.join(name)).expect("metadata").len();
        names(&corpus).iter().map(file_len).sum()
    };
    let total: u64 = FuzzTarget::ALL.iter().map(len).sum();
    assert!(total < CORPORA_MAX, "{total} bytes");
}
