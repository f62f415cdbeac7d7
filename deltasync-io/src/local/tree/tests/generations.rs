//! By which commit a tree became what it is.

use super::*;

#[test]
fn a_tree_that_is_brought_back_is_another_generation() {
    let (from, to) = (Ground::new(false), Ground::new(true));
    let bring_version = |bytes: &[u8]| {
        from.put("d/file", bytes);
        for path in ["d/file", "d", ""] {
            set_time(&from.at(path), 1_000 + bytes.len() as u64, 0);
        }
        bring(&from, &to, ALL, 1 << 20).1.expect("made");
        (to.generation(), to.basis().expect("there").chunks.root())
    };
    let (first, old) = bring_version(b"old");
    let (second, new) = bring_version(b"newer");
    let (third, back) = bring_version(b"old");
    assert!(0 < first && first < second && second < third, "{first}, {second}, {third}");
    assert!(old == back && old != new);
    assert_eq!(to.generation(), third, "as long as nothing happens");
    // Also when the server is another one meanwhile.
    let Ground { storage, directory, scope, atomic } = to;
    drop(storage);
    let storage = LocalStorage::serve(directory.path(), LocalOptions::default()).expect("it can be served");
    assert_eq!(Ground { storage, directory, scope, atomic }.generation(), third);
}

#[test]
fn a_tree_that_others_have_changed_is_of_no_known_commit() {
    let (from, to) = (Ground::new(false), Ground::new(true));
    from.put("d/file", b"file");
    from.put("other", b"other");
    let again = || {
        bring(&from, &to, ALL, 1 << 20).1.expect("made");
        assert_ne!(to.generation(), 0);
    };
    again();
    fs::write(to.at("d/file"), b"changed").expect("written");
    assert_eq!(to.generation(), 0);
    again();
    fs::write(to.at("more"), b"more").expect("written");
    assert_eq!(to.generation(), 0);
    again();
    // By the server itself, under another name: the tree is not what its own commit made even once it looks so again.
    let before = to.describe().chunks.root();
    let is = fs::metadata(to.at("other")).expect("there");
    to.publish("t/other", b"OTHER");
    to.publish("t/other", b"other");
    set_time(&to.at("other"), is.mtime() as u64, is.mtime_nsec() as u32);
    fs::set_permissions(to.at("other"), Permissions::from_mode(is.mode())).expect("ours");
    assert_eq!(to.describe().chunks.root(), before);
    assert_eq!(to.generation(), 0);
    again();
}

#[test]
fn a_tree_that_is_there_as_it_is_wanted_is_counted_as_published() {
    let to = Ground::new(true);
    to.put("file", b"made by somebody else");
    assert_eq!(to.generation(), 0);
    let target = to.describe();
    let destination = Destination { place: place(), name: deltasync_core::Name::any(), directory: false };
    let (algorithm, cutting) = (Algorithm::Blake3, Cutting::Tree(Scope::default()));
    let wanted = |root| {
        let wanted = Some((root, target.chunks.len()));
        let ask = Ask::Basis { destination: destination.clone(), cutting: cutting.clone(), algorithm, wanted };
        let Ok(Answer::Basis { file: Some(file), .. }) = to.storage.answer(ask) else { panic!("it is there") };
        file.generation.get()
    };
    assert_eq!(wanted(algorithm.digest(b"another")), 0);
    let generation = wanted(target.chunks.root());
    assert_ne!(generation, 0);
    assert_eq!((wanted(target.chunks.root()), to.generation()), (generation, generation), "once");
}

/// Then a tree is what it should be as soon as the last of them is there.
#[test]
fn a_file_of_a_tree_that_goes_by_itself_leaves_the_time_of_its_directory() {
    let to = Ground::new(true);
    to.put("d/file", b"file");
    set_time(&to.at("d"), 1_234_567, 890);
    to.publish("t/d/large", &noise(100_000, 1));
    to.publish("t/d/file", b"another");
    let is = fs::metadata(to.at("d")).expect("there");
    assert_eq!((is.mtime(), is.mtime_nsec()), (1_234_567, 890));
    assert_eq!(fs::read(to.at("d/file")).expect("there"), b"another");
}
