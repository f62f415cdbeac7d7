//! What only directories of a file system can do when names in them change.

use super::*;
use crate::laws::altering::{make, remove, rename};
use crate::laws::{path, place};

#[test]
fn links_are_moved_and_removed_themselves_and_never_followed() {
    for bench in Bench::all() {
        let storage = bench.storage();
        let outside = TempDir::new().expect("a temporary directory");
        fs::write(outside.path().join("file"), b"outside").expect("written");
        fs::create_dir_all(bench.at("dir/deep")).expect("made");
        for link in ["link", "dir/link", "dir/deep/link"] {
            symlink(outside.path(), bench.at(link)).expect("linked");
        }
        symlink(outside.path().join("file"), bench.at("dir/to-file")).expect("linked");
        for at in ["link/file", "dir/link/file", "link/new"] {
            assert_fault(remove(storage, at, true), FaultKind::Denied, &format!("{at}: "));
            assert_fault(make(storage, at), FaultKind::Denied, &format!("{at}: "));
            assert_fault(rename(storage, at, "new"), FaultKind::Denied, &format!("{at}: "));
        }
        assert_fault(rename(storage, "dir/deep", "link/deep"), FaultKind::Denied, "link/deep: ");
        assert_fault(rename(storage, "dir/deep", "link"), FaultKind::Exists, "link: ");
        assert_fault(make(storage, "link"), FaultKind::Exists, "link: ");
        rename(storage, "link", "dir/moved").expect("a link");
        assert_eq!(fs::read_link(bench.at("dir/moved")).expect("a link"), outside.path());
        remove(storage, "dir/moved", false).expect("a link to a directory that is not empty");
        remove(storage, "dir", true).expect("with all links in it");
        assert!(!bench.at("dir").exists());
        assert_eq!(fs::read(outside.path().join("file")).expect("it is still there"), b"outside");
    }
}

#[test]
fn names_of_ours_are_not_there() {
    const STAGED: &str = ".x.deltasync-0123abcd";
    for bench in Bench::all() {
        let storage = bench.storage();
        bench.put("file", b"content");
        bench.put(STAGED, b"staged");
        let mut ours = vec![STAGED.to_owned(), format!("{STAGED}/below"), format!("dir/{STAGED}")];
        if bench.storage.served.is_some() {
            ours.extend([".deltasync", ".deltasync/index", ".DELTASYNC"].map(str::to_owned));
        }
        for at in &ours {
            assert_fault(make(storage, at), FaultKind::NotFound, &format!("{at}: "));
            assert_fault(remove(storage, at, true), FaultKind::NotFound, &format!("{at}: "));
            assert_fault(rename(storage, at, "new"), FaultKind::NotFound, &format!("{at}: "));
            assert_fault(rename(storage, "file", at), FaultKind::NotFound, &format!("{at}: "));
        }
        assert_eq!(bench.get(STAGED).as_deref(), Some(&b"staged"[..]));
        assert_eq!(bench.get("file").as_deref(), Some(&b"content"[..]));
        // In a directory it is in nobody's way.
        bench.put(&format!("dir/{STAGED}"), b"staged");
        remove(storage, "dir", false).expect("there is nothing in it that anybody sees");
        bench.put(&format!("dir/{STAGED}/copied/file"), b"of the copy of a tree");
        assert_fault(remove(storage, "dir", false), FaultKind::NotEmpty, "dir: ");
        remove(storage, "dir", true).expect("with all that is in it");
        assert!(!bench.at("dir").exists());
    }
}

#[test]
fn deep_wide_and_locked_directories_are_removed() {
    for bench in Bench::all() {
        let storage = bench.storage();
        fs::create_dir_all(bench.at(&"d/".repeat(300))).expect("made");
        for n in 0..1500 {
            fs::write(bench.at(&format!("d/d/{n}")), b"").expect("written");
            fs::create_dir(bench.at(&format!("d/{n}"))).expect("made");
        }
        fs::set_permissions(bench.at("d/7"), fs::Permissions::from_mode(0o500)).expect("set");
        fs::write(bench.at("kept"), b"kept").expect("written");
        remove(storage, "d", true).expect("with all that is in it");
        assert_eq!(bench.leftovers(), ["kept"]);
    }
}

#[test]
fn a_directory_in_which_something_is_being_made_is_not_moved() {
    for bench in Bench::all() {
        let storage = bench.storage();
        bench.put("a/tree/file", b"content");
        bench.put("b/file", b"content");
        for held in ["a", "a/tree", "a/tree/deep", ""] {
            let _held = bench.storage.copies.change(&place(held));
            assert_fault(rename(storage, "a/tree", "new"), FaultKind::Denied, "a/tree: ");
            rename(storage, "a/tree/file", "a/tree/other").expect("a file has no names in it");
            rename(storage, "a/tree/other", "a/tree/file").expect("and back");
            if !held.is_empty() {
                rename(storage, "b", "c").expect("it is another one");
                rename(storage, "c", "b").expect("and back");
            }
        }
        rename(storage, "a/tree", "new").expect("nobody is at it now");
        assert_eq!(bench.get("new/file").as_deref(), Some(&b"content"[..]));
    }
}

#[test]
fn the_index_forgets_what_is_not_there_any_more() {
    let bench = Bench::new(true, false, Limits::default());
    let index = &bench.storage.served.as_ref().expect("it is served").index;
    let recorded = || -> Vec<String> {
        let files = index.files(None, 100).expect("there is an index");
        files.iter().map(|(path, _)| path.to_string()).collect()
    };
    for at in ["a", "a-", "d/one", "d/deep/two", "d-/three"] {
        publish(bench.storage(), at, at.as_bytes()).expect("published");
    }
    let tree = describe(bench.storage(), "a").expect("it is there").chunks;
    let note_trees = || {
        for at in ["", "d", "d/deep", "d-"] {
            let looks = Looks { device: 1, inode: 2, len: 0, modified: (0, 0), changed: None };
            let (root, algorithm) = (tree.root(), tree.algorithm());
            index.publish_tree(&path(at), &Recorded { root, algorithm, generation: Generation::new(9), looks });
        }
    };
    let trees = || ["", "d", "d/deep", "d-"].map(|at| index.recorded_tree(&path(at)).is_some());
    note_trees();
    remove(bench.storage(), "a", false).expect("it is there");
    assert_eq!(recorded(), ["a-", "d-/three", "d/deep/two", "d/one"]);
    assert_eq!(trees(), [false, true, true, true]);
    note_trees();
    rename(bench.storage(), "d/deep", "d/moved").expect("it is there");
    assert_eq!(recorded(), ["a-", "d-/three", "d/one"]);
    assert_eq!(trees(), [false, false, false, true]);
    note_trees();
    remove(bench.storage(), "d", true).expect("it is there");
    assert_eq!(recorded(), ["a-", "d-/three"]);
    assert_eq!(trees(), [false, false, false, true]);
    note_trees();
    make(bench.storage(), "d-/new").expect("nothing is there");
    assert_eq!(trees(), [false, true, true, false]);
    // What was found elsewhere once is not looked for in vain.
    assert_eq!(twin(bench.storage(), "new", b"d/deep/two"), None);
}

/// Ends the threads of a test, also when this one panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The files in a directory that was `here` when they were published there, each with its own path as its content, and how
/// many names anybody sees in it.
fn count_of_moved(bench: &Bench, at: &str) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(bench.at(at)).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        if root::is_staged(name.as_bytes()) {
            continue;
        }
        count += 1;
        let was = format!("{at}/{name}").replacen("there", "here", 1);
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            assert_eq!(fs::read(entry.path()).expect("readable"), was.as_bytes());
        }
    }
    count
}

/// While directories are moved away and removed, pushes to them end at their paths or fail.
#[test]
fn pushes_and_changes_at_once_keep_to_their_paths() {
    for bench in Bench::all() {
        let storage = bench.storage();
        let (stop, told) = (AtomicBool::new(false), AtomicU32::new(0));
        thread::scope(|scope| {
            let _stop = Stop(&stop);
            for n in 0..2_u8 {
                let (stop, told) = (&stop, &told);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        for at in [format!("here/{n}"), format!("here/deep/{n}")] {
                            told.fetch_add(u32::from(publish(storage, &at, at.as_bytes()).is_ok()), Ordering::Relaxed);
                        }
                    }
                });
            }
            let (until, mut changed) = (Instant::now() + Duration::from_secs(20), [0; 3]);
            while changed.iter().any(|count| *count < 5) {
                assert!(Instant::now() < until, "{changed:?}");
                changed[0] += u32::from(rename(storage, "here", "there").is_ok());
                let count = || count_of_moved(&bench, "there") + count_of_moved(&bench, "there/deep");
                let before = count();
                thread::sleep(Duration::from_millis(2));
                // A push that fails takes away what it made.
                assert!(count() <= before, "nobody pushes there");
                changed[1] += u32::from(remove(storage, "there", true).is_ok());
                changed[2] += u32::from(remove(storage, "here/deep", true).is_ok());
            }
        });
        assert!(told.load(Ordering::Relaxed) > 0);
        for at in ["here", "there"] {
            let _ = remove(storage, at, true);
        }
        assert!(bench.leftovers().is_empty(), "{:?}", bench.leftovers());
    }
}
