//! What takes part, and what becomes of what does not.

use super::*;

/// The paths of what takes part, but for the top.
fn listed(ground: &Ground) -> Vec<String> {
    let tree = ground.describe();
    let list = &tree.file.downcast_ref::<Tree>().expect("ours").list;
    list.entries().skip(1).map(|entry| entry.path.to_string()).collect()
}

pub(super) fn excluding(patterns: &[&str]) -> Filter {
    let add = |filter: Filter, pattern: &&str| filter.exclude(pattern).expect("a line");
    patterns.iter().fold(Filter::default(), add)
}

#[test]
fn what_a_filter_excludes_is_not_looked_at() {
    let mut ground = Ground::new(true);
    for path in ["a", "a.x", "b/a", "b/y/z", "b/y.x/deep/z", "c"] {
        ground.put(path, b"content");
    }
    symlink("a", ground.at("link.x")).expect("made");
    rustix::fs::mknodat(CWD, ground.at("pipe.x"), FileType::Fifo, Mode::RUSR, 0).expect("made");
    assert_eq!(ground.describe().omitted.len(), 1);
    ground.scope.filter = excluding(&["*.x", "/b/y"]);
    assert_eq!(listed(&ground), ["a", "b", "b/a", "c"]);
    assert!(ground.describe().omitted.is_empty(), "what is excluded is not named");
    let whole = ground.describe().chunks.root();
    ground.put("b/y/z", b"changed");
    assert_eq!(ground.describe().chunks.root(), whole);
}

#[test]
fn an_ignore_file_is_a_short_file_of_the_tree_itself() {
    let mut ground = Ground::new(true);
    let outside = TempDir::new().expect("a temporary directory");
    fs::write(outside.path().join("all"), b"*").expect("made");
    ground.put("a/x", b"x");
    ground.put("b/x", b"x");
    symlink(outside.path().join("all"), ground.at(".gitignore")).expect("made");
    fs::create_dir(ground.at(".deltasyncignore")).expect("made");
    fs::write(ground.directory.path().join(".gitignore"), b"*").expect("above the tree");
    ground.scope.filter = Filter::default().ignore_files(true);
    assert_eq!(listed(&ground), [".deltasyncignore", ".gitignore", "a", "a/x", "b", "b/x"]);
    ground.put("a/.gitignore", b"x");
    assert_eq!(listed(&ground), [".deltasyncignore", ".gitignore", "a", "a/.gitignore", "b", "b/x"]);
    let too_long = vec![b'#'; filtering::FILE_MAX as usize + 1];
    ground.put("b/.deltasyncignore", &too_long[1..]);
    assert_eq!(listed(&ground).len(), 7);
    ground.put("b/.deltasyncignore", &too_long);
    let (place, cutting) = (place(), Cutting::Tree(ground.scope.clone()));
    let ask = Ask::Describe { place, cutting, algorithm: Algorithm::Blake3, remember: None };
    let fault = ground.storage.answer(ask).expect_err("too long");
    assert_eq!(fault.kind, FaultKind::TooLarge);
    assert!(fault.message.starts_with("t/b/.deltasyncignore: bytes of an ignore file"), "{fault}");
}

#[test]
fn a_pattern_that_means_nothing_is_refused_by_its_name() {
    let ground = Ground::new(true);
    ground.put("a", b"x");
    let (place, cutting) = (place(), Cutting::ByKind(excluding(&["*.o", "[z-a]"]).into()));
    let ask = Ask::Describe { place, cutting, algorithm: Algorithm::Blake3, remember: None };
    let fault = ground.storage.answer(ask).expect_err("no pattern");
    assert!(fault.message.starts_with("t: the pattern \"[z-a]\" is not valid: "), "{fault}");
}

#[test]
fn a_directory_that_holds_what_is_excluded_stays_and_does_not_count() {
    let (from, mut to) = (Ground::new(false), Ground::new(true));
    from.put("kept", b"kept");
    for path in ["gone/in/a", "gone/in/b.x", "gone/c", "plain/d"] {
        to.put(path, b"there");
    }
    to.scope.filter = excluding(&["*.x"]);
    // Of what is listed these go: a, c, and plain with d.
    let (_, refused) = bring(&from, &to, Extra::Delete { most: Some(3) }, 1 << 20);
    assert!(refused.expect_err("too much").message.contains("4 of 6 entries would be deleted"));
    let (_, done) = bring(&from, &to, Extra::Delete { most: Some(4) }, 1 << 20);
    done.expect("few enough");
    let there: Vec<_> = to.see().into_keys().map(|path| String::from_utf8(path).expect("plain")).collect();
    assert_eq!(there, ["", "gone", "gone/in", "gone/in/b.x", "kept"]);
}
