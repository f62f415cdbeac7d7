//! The laws of a storage that remembers on real files, and all that can go wrong beside it.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use deltasync_core::{Algorithm, Cutter};
use deltasync_proto::{Answer, Ask, Cutting, Kept, OpenedFile, Remembered, Scope};
use redb::Database;
use tempfile::TempDir;

use super::*;
use crate::laws::recalls::{assert_kept, assert_kept_of, known, recall, remember, remembering_laws};
use crate::laws::{Fixture, describe, noise, place};
use crate::{BlockingStorage, LocalOptions, LocalStorage};

/// A client's files, and what it remembers.
struct Bench {
    storage: LocalStorage,
    files: TempDir,
    state: TempDir,
}

impl Bench {
    fn new(form: KeepForm, quota: u64) -> Self {
        Self::with("server", form, quota, TempDir::new().expect("a temporary directory"))
    }

    fn with(server: &str, form: KeepForm, quota: u64, state: TempDir) -> Self {
        let files = TempDir::new().expect("a temporary directory");
        let known = KnownFiles::new(state.path().join("known"), server).quota(ByteLen::new(quota)).form(form);
        let options = LocalOptions::default().known(known);
        let storage = LocalStorage::roots(vec![files.path().to_owned()], options).expect("it can be opened");
        Self { storage, files, state }
    }

    /// The same files, remembered as by another process.
    fn again(self) -> Self {
        let known = KnownFiles::new(self.state.path().join("known"), "server");
        let options = LocalOptions::default().known(known);
        let storage = LocalStorage::roots(vec![self.files.path().to_owned()], options).expect("it can be opened");
        Self { storage, ..self }
    }

    fn remember(&self, at: &str, bytes: &[u8]) {
        self.put(at, bytes);
        remember(&self.storage, known(at), 1, describe(&self.storage, at).expect("it is there"));
    }

    fn recall(&self, at: &str) -> Option<Remembered> {
        recall(&self.storage, known(at), None)
    }

    fn directory(&self) -> PathBuf {
        self.state.path().join("known")
    }

    fn blobs(&self) -> Vec<PathBuf> {
        paths(&self.directory().join("kept"))
    }

    fn disk(&self) -> u64 {
        let blobs = [paths(&self.directory().join("new")), self.blobs()].concat();
        blobs.iter().map(|path| fs::metadata(path).expect("there").len()).sum()
    }
}

fn paths(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

impl Fixture for Bench {
    fn storage(&self) -> &dyn BlockingStorage {
        &self.storage
    }

    fn put(&self, at: &str, bytes: &[u8]) {
        fs::write(self.files.path().join(at), bytes).expect("written");
    }

    fn get(&self, at: &str) -> Option<Vec<u8>> {
        fs::read(self.files.path().join(at)).ok()
    }

    fn make_directory(&self, at: &str) {
        fs::create_dir(self.files.path().join(at)).expect("made");
    }

    fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }

    fn generation(&self, _: u64) -> Generation {
        Generation::ZERO
    }
}

remembering_laws! { |form| Bench::new(form, 1 << 30) }

#[test]
fn another_process_recalls_it_and_another_server_is_another_name() {
    let bench = Bench::new(KeepForm::Auto, 1 << 30);
    let bytes = noise(300_000, 1);
    bench.remember("file", &bytes);
    let bench = bench.again();
    assert_kept(&bench.storage, &bench.recall("file").expect("it was remembered"), &bytes);
    let other = Bench::with("other server", KeepForm::Auto, 1 << 30, bench.state);
    assert!(other.recall("file").is_none());
}

#[test]
fn all_of_it_is_for_the_user_alone() {
    let bench = Bench::new(KeepForm::Auto, 1 << 30);
    bench.remember("file", b"content");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&bench.directory()), 0o700);
    assert_eq!(mode(&bench.directory().join("known.redb")), 0o600);
    assert_eq!(bench.blobs().len(), 2);
    bench.blobs().iter().for_each(|blob| assert_eq!(mode(blob), 0o600));
    assert_eq!(paths(&bench.directory().join("new")), [] as [PathBuf; 0]);
}

#[test]
fn files_that_are_not_ours_stay() {
    let bench = Bench::new(KeepForm::Auto, 1 << 30);
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(1_000_000);
    let put = |below: &str, name: &str| {
        let path = bench.directory().join(below).join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("space");
        fs::write(&path, b"mine").expect("space");
        fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(long_ago)).expect("ours");
        path
    };
    let names = ["letter.txt", "0123456789abcdef", "0123456789abcdef.txt", "letters of mine.bytes"];
    let theirs: Vec<_> = names.iter().flat_map(|name| [put("new", name), put("kept", name)]).collect();
    let ours = [put("new", "0123456789abcdef.bytes"), put("kept", "0123456789abcdef.chunks")];
    // The index is a new one.
    bench.remember("file", b"content");
    assert!(bench.recall("file").is_some());
    theirs.iter().for_each(|path| assert_eq!(fs::read(path).expect("it stays"), b"mine"));
    ours.iter().for_each(|path| assert!(!path.exists(), "{}", path.display()));
}

#[test]
fn small_files_are_copied_and_large_ones_summed() {
    // Where blocks cannot be shared; else the copies take more.
    let bench = Bench::new(KeepForm::Auto, 1 << 20);
    let is_copy = |bytes: &[u8]| {
        bench.remember("file", bytes);
        bench.recall("file").map(|found| {
            assert_kept(&bench.storage, &found, bytes);
            matches!(found.kept, Kept::Copy(_))
        })
    };
    assert_eq!(is_copy(&noise(100_000, 1)), Some(true), "a tenth of the quota");
    assert_eq!(is_copy(&vec![7; 200_000]), Some(true), "packs well");
    assert_eq!(is_copy(&noise(600_000, 1)), Some(false), "half of it");
    assert_eq!(is_copy(&vec![7; 600_000]), Some(false), "too long to try");
    assert_eq!(is_copy(&noise(3 << 20, 1)), Some(false), "three times the quota");
    assert_eq!(is_copy(&noise(8 << 20, 1)), None, "even the sums are too many");
}

/// Describes a file as one that may be remembered.
fn describe_to_remember(bench: &Bench, at: &str) -> OpenedFile {
    let (cutting, algorithm, remember) = (Cutting::ByContent, Algorithm::Blake3, Some(known(at)));
    match bench.storage.answer(Ask::Describe { place: place(at), cutting, algorithm, remember }) {
        Ok(Answer::Described(file)) => file,
        other => panic!("asked to describe, got {other:?}"),
    }
}

fn drafts(bench: &Bench) -> usize {
    paths(&bench.directory().join("new")).len()
}

#[test]
fn a_large_file_is_summed_while_it_is_described_and_not_read_again() {
    for (threads, len) in [(1, SUMMED_AT_ONCE), (2, SUMMED_AT_ONCE + 95), (4, SUMMED_AT_ONCE + (1 << 20) + 96)] {
        let mut bench = Bench::new(KeepForm::Sums, 1 << 30);
        let known_files = KnownFiles::new(bench.directory(), "server").form(KeepForm::Sums);
        let options = LocalOptions::default().known(known_files).chunking_threads(threads);
        bench.storage = LocalStorage::roots(vec![bench.files.path().to_owned()], options).expect("it can be opened");
        let bytes = noise(len as usize, len);
        bench.put("file", &bytes);
        let described = describe_to_remember(&bench, "file");
        // As what is remembered is what was described, whatever has become of it.
        bench.put("file", &bytes[1..]);
        remember(&bench.storage, known("file"), 3, described);
        let found = bench.recall("file").expect("it was remembered");
        assert!(matches!(found.kept, Kept::Sums { .. }), "{len} bytes");
        assert_kept(&bench.storage, &found, &bytes);
        assert_eq!(drafts(&bench), 0);
    }
}

#[test]
fn sums_are_made_only_of_what_may_need_them() {
    let bench = Bench::new(KeepForm::Auto, 1 << 30);
    let long = 17 << 20;
    let is_summed = |bytes: &[u8]| {
        bench.put("file", bytes);
        let described = describe_to_remember(&bench, "file");
        let begun = drafts(&bench) > 0;
        drop(described);
        assert_eq!(drafts(&bench), 0, "what is not remembered leaves nothing");
        begun
    };
    let dense = noise(long, 1);
    let can_share = {
        bench.put("file", &dense);
        remember(&bench.storage, known("shared?"), 1, describe(&bench.storage, "file").expect("it is there"));
        matches!(recall(&bench.storage, known("shared?"), None).expect("kept").kept, Kept::Copy(_))
    };
    assert_eq!(is_summed(&dense), !can_share);
    assert!(!is_summed(&dense[..SUMMED_AT_ONCE as usize - 1]), "short");
    assert!(!is_summed(&dense[..SUMMED_AT_ONCE as usize]), "a copy is made of it");
    assert!(!is_summed(&vec![7; long]), "packs well");
    // What looks as it did when it was remembered.
    let bench = Bench::new(KeepForm::Sums, 1 << 30);
    bench.put("file", &dense);
    let again = |expected| {
        let described = describe_to_remember(&bench, "file");
        assert_eq!(drafts(&bench) > 0, expected);
        remember(&bench.storage, known("file"), 5, described);
        assert_kept(&bench.storage, &bench.recall("file").expect("it was remembered"), &dense);
    };
    again(true);
    again(false);
    let file = fs::File::options().append(true).open(bench.files.path().join("file")).expect("there");
    file.set_modified(std::time::UNIX_EPOCH).expect("it is ours");
    again(true);
    again(false);
}

#[test]
fn a_draft_that_is_cut_is_not_kept() {
    let bench = Bench::new(KeepForm::Sums, 1 << 30);
    let bytes = noise(SUMMED_AT_ONCE as usize, 2);
    bench.put("file", &bytes);
    let described = describe_to_remember(&bench, "file");
    for draft in paths(&bench.directory().join("new")) {
        fs::remove_file(draft).expect("it is there");
    }
    remember(&bench.storage, known("file"), 1, described);
    assert!(bench.recall("file").is_none());
    bench.remember("file", &bytes);
    assert_kept(&bench.storage, &bench.recall("file").expect("it was remembered"), &bytes);
}

#[test]
fn the_quota_holds_and_what_was_used_longest_ago_goes() {
    let bench = Bench::new(KeepForm::Copy, 1 << 20);
    let bytes = |n: u64| noise(200_000, n);
    let tick = || std::thread::sleep(std::time::Duration::from_millis(30));
    for n in 0..4 {
        bench.remember(&n.to_string(), &bytes(n));
        tick();
    }
    // Used, so that it stays.
    assert!(bench.recall("0").is_some());
    tick();
    for n in 4..7 {
        bench.remember(&n.to_string(), &bytes(n));
        tick();
        assert!(bench.disk() <= 1 << 20, "{} bytes", bench.disk());
    }
    let stay: Vec<_> = (0..7).filter(|n| bench.recall(&n.to_string()).is_some()).collect();
    assert_eq!(stay, [0, 3, 4, 5, 6]);
    for n in stay {
        assert_kept(&bench.storage, &bench.recall(&n.to_string()).expect("it stays"), &bytes(n));
    }
    bench.remember("large", &noise(1 << 20, 9));
    assert!(bench.recall("large").is_none(), "it and its chunks do not fit");
    assert!(bench.recall("6").is_some(), "and nothing went for it");
}

#[test]
fn an_index_that_another_has_open_is_no_help_and_no_harm() {
    let bench = Bench::new(KeepForm::Auto, 1 << 30);
    bench.remember("file", b"content");
    let index = Database::open(bench.directory().join("known.redb")).expect("it is closed between steps");
    assert!(bench.recall("file").is_none());
    bench.remember("other", b"other");
    assert_eq!(bench.blobs().len(), 2);
    drop(index);
    assert!(bench.recall("file").is_some());
    assert!(bench.recall("other").is_none());
    bench.remember("other", b"other");
    assert!(bench.recall("other").is_some());
}

#[test]
fn a_file_that_changed_is_not_remembered() {
    // The longer one is hashed beside.
    for len in [10_000, 5 << 20] {
        check_a_changed_file_is_not_remembered(len);
    }
}

fn check_a_changed_file_is_not_remembered(len: usize) {
    let bench = Bench::new(KeepForm::Auto, 1 << 30);
    bench.put("file", &noise(len, 1));
    let described = describe(&bench.storage, "file").expect("it is there");
    std::thread::sleep(std::time::Duration::from_millis(30));
    bench.put("file", &noise(len, 2));
    remember(&bench.storage, known("file"), 1, described.clone());
    assert!(bench.recall("file").is_none());
    // Even if it looks the same, its root tells.
    let other = ChunkList::of(b"other", Cutter::FIXED_4096, Algorithm::Blake3);
    let file = describe(&bench.storage, "file").expect("it is there").file;
    for form in [KeepForm::Copy, KeepForm::Sums] {
        let chunks = ChunkList::of(&noise(len, 1), Cutter::FIXED_4096, Algorithm::Blake3);
        let storage = Bench::with("server", form, 1 << 30, TempDir::new().expect("a temporary directory")).storage;
        for chunks in [&chunks, &other] {
            let file = deltasync_proto::OpenedFile {
                file: file.clone(),
                chunks: Arc::new(chunks.clone()),
                generation: Generation::ZERO,
                omitted: Arc::default(),
            };
            remember(&storage, known("file"), 1, file);
            assert!(recall(&storage, known("file"), None).is_none());
        }
    }
}

/// Somebody has brought it back to what it was: that is another commit of the same bytes, and they are not kept anew.
#[test]
fn of_a_file_that_is_remembered_only_the_generation_changes() {
    for form in [KeepForm::Auto, KeepForm::Copy, KeepForm::Sums] {
        let bench = Bench::new(form, 1 << 30);
        bench.remember("file", &noise(10_000, 1));
        let kept = bench.blobs();
        remember(&bench.storage, known("file"), 3, describe(&bench.storage, "file").expect("it is there"));
        assert_eq!(bench.recall("file").map(|found| found.generation), Some(Generation::new(3)));
        assert_eq!(bench.blobs(), kept);
        bench.remember("file", &noise(10_000, 2));
        assert_eq!(bench.recall("file").map(|found| found.generation), Some(Generation::new(1)));
        assert_ne!(bench.blobs(), kept);
    }
}

/// Does something to each file of what is remembered, and sees that nothing wrong comes of it.
fn check_harm_is_noticed(form: KeepForm, harm: impl Fn(&Path)) {
    let bytes = noise(20_000, 1);
    let bench = Bench::new(form, 1 << 30);
    bench.remember("file", &bytes);
    let files = bench.blobs().len() + 1;
    drop(bench);
    for n in 0..files {
        let bench = Bench::new(form, 1 << 30);
        bench.remember("file", &bytes);
        bench.remember("other", &bytes);
        let mut paths = bench.blobs();
        paths.truncate(2);
        paths.push(bench.directory().join("known.redb"));
        harm(&paths[n]);
        // What is recalled is right, or cannot be read.
        let well = ["file", "other"].map(|at| {
            let found = bench.recall(at)?;
            let copy = if let Kept::Copy(copy) = &found.kept { Some(copy) } else { None };
            let readable = |copy| crate::laws::read(&bench.storage, copy, &[(0, bytes.len() as u64)]).is_ok();
            copy.is_none_or(readable).then(|| assert_kept(&bench.storage, &found, &bytes))
        });
        // One of the two lies in the first blobs.
        let index = n == paths.len() - 1;
        assert!(index || well.iter().flatten().count() == 1, "{form:?} {:?}", paths[n]);
        // And all goes on: what is damaged is replaced.
        for at in ["file", "other"] {
            bench.remember(at, &bytes);
            if index {
                // A damaged index may be noticed only now, and is removed.
                bench.remember(at, &bytes);
            }
            assert_kept(&bench.storage, &bench.recall(at).expect("remembered again"), &bytes);
        }
        assert!(bench.disk() > 0 && bench.blobs().len().is_multiple_of(2));
    }
}

#[test]
fn harm_to_any_file_is_noticed() {
    for form in [KeepForm::Copy, KeepForm::Sums] {
        check_harm_is_noticed(form, |path| fs::remove_file(path).expect("it was there"));
        check_harm_is_noticed(form, |path| fs::write(path, b"").expect("it was there"));
        check_harm_is_noticed(form, |path| fs::write(path, noise(5000, 3)).expect("it was there"));
        check_harm_is_noticed(form, |path| {
            let file = fs::OpenOptions::new().write(true).open(path).expect("it was there");
            let len = file.metadata().expect("open").len();
            file.set_len(len - 1).expect("cut");
        });
        for (of, byte) in [(2, 0x80), (3, 1), (1000, 0xff)] {
            check_harm_is_noticed(form, |path| {
                let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("it was there");
                let at = file.metadata().expect("open").len() / of;
                let mut piece = [0];
                file.read_exact_at(&mut piece, at).expect("within");
                file.write_all_at(&[piece[0] ^ byte], at).expect("within");
            });
        }
    }
}

/// Flips bytes all over the index, where its pages are in use.
#[test]
fn a_damaged_index_never_gives_wrong_bytes() {
    let bytes = noise(5000, 1);
    let bench = Bench::new(KeepForm::Auto, 1 << 30);
    for n in 0..20 {
        bench.remember(&n.to_string(), &bytes);
    }
    let path = bench.directory().join("known.redb");
    let whole = fs::read(&path).expect("it is closed");
    let used: Vec<_> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    for at in used.iter().step_by(used.len() / 60) {
        let mut damaged = whole.clone();
        damaged[*at] ^= 0xff;
        fs::write(&path, &damaged).expect("it is closed");
        for n in 0..3 {
            if let Some(found) = bench.recall(&n.to_string()) {
                assert_kept(&bench.storage, &found, &bytes);
            }
        }
        // The second time it is a new one, where the first found it damaged.
        bench.remember("next", &bytes);
        bench.remember("next", &bytes);
        assert!(bench.recall("next").is_some(), "byte {at}");
        fs::write(&path, &whole).expect("it is closed");
    }
}

#[test]
fn many_processes_at_once_lose_what_they_must_and_leave_nothing() {
    // Room for two of the three files.
    let first = Bench::new(KeepForm::Copy, 50_000);
    let bytes = |generation: u64| noise(20_000, generation);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let first = &first;
            scope.spawn(move || {
                let files = TempDir::new().expect("a temporary directory");
                let known_files = KnownFiles::new(first.directory(), "server").quota(ByteLen::new(50_000));
                let options = LocalOptions::default().known(known_files.form(KeepForm::Copy));
                let storage = LocalStorage::roots(vec![files.path().to_owned()], options).expect("it can be opened");
                for round in 0..60 {
                    let (key, generation) = ((round % 3).to_string(), 100 * n + round);
                    fs::write(files.path().join("file"), bytes(generation)).expect("written");
                    remember(&storage, known(&key), generation, describe(&storage, "file").expect("it is there"));
                    if let Some(found) = recall(&storage, known(&key), None) {
                        assert_kept(&storage, &found, &bytes(found.generation.get()));
                    }
                }
            });
        }
    });
    first.remember("alone", b"now that all others are gone");
    assert!(first.disk() <= 50_000);
    assert!(first.recall("alone").is_some());
    let recalled = 1 + (0..3).filter(|key| first.recall(&key.to_string()).is_some()).count();
    assert_eq!(first.blobs().len(), 2 * recalled, "each blob is known");
    assert_eq!(paths(&first.directory().join("new")), [] as [PathBuf; 0]);
}

#[test]
fn the_directory_may_go_at_any_time() {
    let bench = Bench::new(KeepForm::Auto, 1 << 30);
    bench.remember("file", b"content");
    let found = bench.recall("file").expect("it was remembered");
    fs::remove_dir_all(bench.directory()).expect("it was there");
    assert_kept(&bench.storage, &found, b"content");
    assert!(bench.recall("file").is_none());
    bench.remember("file", b"content");
    assert!(bench.recall("file").is_some());
    // And where it cannot be made, nothing is remembered.
    fs::remove_dir_all(bench.directory()).expect("it was there");
    fs::write(bench.directory(), b"a file in its place").expect("written");
    bench.remember("file", b"content");
    assert!(bench.recall("file").is_none());
}

#[test]
fn without_a_directory_nothing_is_remembered() {
    let files = TempDir::new().expect("a temporary directory");
    let storage = LocalStorage::roots(vec![files.path().to_owned()], LocalOptions::default()).expect("opened");
    fs::write(files.path().join("file"), b"content").expect("written");
    remember(&storage, known("file"), 1, describe(&storage, "file").expect("it is there"));
    assert!(recall(&storage, known("file"), None).is_none());
    let listed = storage.answer(deltasync_proto::Ask::List { place: place(""), after: None, most: 10 });
    assert!(matches!(listed, Ok(Answer::Listed { entries, .. }) if entries.len() == 1));
}

/// A file system that can share blocks, mounted for one test.
struct Sharing(TempDir);

impl Sharing {
    fn mount() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let image = directory.path().join("image");
        fs::File::create(&image).and_then(|image| image.set_len(400 << 20)).expect("made");
        let at = directory.path().join("mounted");
        fs::create_dir(&at).expect("made");
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let done = std::process::Command::new(program).args(args).status().expect("it is installed");
            assert!(done.success(), "{program} needs root");
        };
        run("mkfs.xfs", &["-q".as_ref(), image.as_ref()]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), at.as_ref()]);
        Self(directory)
    }

    fn directory(&self) -> TempDir {
        TempDir::new_in(self.0.path().join("mounted")).expect("a temporary directory")
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path().join("mounted")).status();
    }
}

#[test]
#[ignore = "needs root to mount an xfs: run .ci/run"]
fn a_copy_shares_its_blocks_where_it_can() {
    let sharing = Sharing::mount();
    let (files, state) = (sharing.directory(), sharing.directory());
    let known_files = KnownFiles::new(state.path().join("known"), "server");
    let options = LocalOptions::default().known(known_files);
    let storage = LocalStorage::roots(vec![files.path().to_owned()], options).expect("it can be opened");
    let bench = Bench { storage, files, state };
    let free = || rustix::fs::statvfs(bench.directory().as_path()).expect("mounted").f_bfree;
    bench.remember("small", b"makes the index");
    let before = free();
    // Too long for a packed copy.
    let bytes = noise(100 << 20, 1);
    bench.put("file", &bytes);
    fs::File::open(bench.files.path().join("file")).and_then(|file| file.sync_all()).expect("synced");
    let written = free();
    remember(&bench.storage, known("file"), 1, describe(&bench.storage, "file").expect("it is there"));
    rustix::fs::sync();
    assert!(before - written > 20_000 && written - free() < 2_000, "{before} {written} {}", free());
    let found = bench.recall("file").expect("it was remembered");
    assert!(matches!(found.kept, Kept::Copy(_)));
    bench.put("file", &noise(1000, 2));
    assert_eq!(found.chunks.len(), ByteLen::of(&bytes));
    let Kept::Copy(file) = &found.kept else { panic!("a copy") };
    let middle = crate::laws::read(&bench.storage, file, &[(50 << 20, 1000)]).expect("it stays");
    assert!(middle == bytes[50 << 20..][..1000]);
    // Who writes to the copy is noticed.
    let copy =
        bench.blobs().into_iter().max_by_key(|path| fs::metadata(path).expect("there").len()).expect("two files");
    std::thread::sleep(std::time::Duration::from_millis(30));
    let copy = fs::OpenOptions::new().write(true).open(copy).expect("it is there");
    copy.write_all_at(b"x", 50 << 20).expect("written");
    assert!(bench.recall("file").is_none());
}

/// The tree below `tree`, described.
fn tree(bench: &Bench) -> OpenedFile {
    let (place, cutting, algorithm) = (place("tree"), Cutting::Tree(Scope::default()), Algorithm::Blake3);
    match bench.storage.answer(Ask::Describe { place, cutting, algorithm, remember: None }) {
        Ok(Answer::Described(tree)) => tree,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_archive_of_a_tree_is_remembered_as_a_file_is() {
    for form in [KeepForm::Auto, KeepForm::Copy, KeepForm::Sums] {
        let bench = Bench::new(form, 1 << 30);
        ["tree", "tree/0", "tree/1", "tree/2"].iter().for_each(|at| bench.make_directory(at));
        for number in 0..100u8 {
            bench.put(&format!("tree/{}/{number}", number % 3), &noise(usize::from(number) * 500, number.into()));
        }
        let described = tree(&bench);
        let (len, chunks) = (described.chunks.len(), described.chunks.clone());
        let ranges = vec![(deltasync_core::Offset::ZERO, len)];
        let Ok(Answer::Read(archive)) = bench.storage.answer(Ask::Read { file: described.file.clone(), ranges }) else {
            panic!("it can be read")
        };
        remember(&bench.storage, known("tree"), 5, described);
        bench.put("tree/0/0", b"changed since");
        let bench = bench.again();
        let found = bench.recall("tree").expect("it was remembered");
        assert_eq!((found.generation.get(), &found.chunks), (5, &chunks), "{form:?}");
        assert_eq!(matches!(found.kept, Kept::Sums { .. }), form == KeepForm::Sums);
        assert_kept_of(&bench.storage, &found, &archive);
    }
}

#[test]
fn a_tree_that_has_changed_since_is_not_remembered_nor_what_it_was_before() {
    let bench = Bench::new(KeepForm::Auto, 1 << 30);
    bench.make_directory("tree");
    bench.put("tree/file", &noise(5000, 1));
    remember(&bench.storage, known("tree"), 1, tree(&bench));
    assert!(bench.recall("tree").is_some());
    bench.put("tree/file", &noise(6000, 1));
    let described = tree(&bench);
    bench.put("tree/file", &noise(7000, 1));
    remember(&bench.storage, known("tree"), 2, described);
    assert!(bench.recall("tree").is_none());
}

/// A tree of files of which little changes from one version to the next.
fn much(bench: &Bench) {
    ["tree", "tree/0", "tree/1", "tree/2"].iter().for_each(|at| bench.make_directory(at));
    for number in 0..200u8 {
        bench.put(&format!("tree/{}/{number}", number % 3), &noise(20_000, number.into()));
    }
}

fn archive(bench: &Bench, tree: &OpenedFile) -> Vec<u8> {
    let ranges = vec![(deltasync_core::Offset::ZERO, tree.chunks.len())];
    match bench.storage.answer(Ask::Read { file: tree.file.clone(), ranges }) {
        Ok(Answer::Read(bytes)) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_the_next_version_of_a_tree_only_what_is_new_is_kept() {
    let bench = Bench::new(KeepForm::Auto, 1 << 30);
    much(&bench);
    remember(&bench.storage, known("tree"), 1, tree(&bench));
    let of_one = bench.disk();
    let mut bench = bench;
    for version in 2..8u32 {
        for number in [version, version + 40] {
            bench.put(
                &format!("tree/{}/{number}", number % 3),
                &noise(10_000 + version as usize, 1000 + u64::from(version)),
            );
        }
        bench.put(&format!("tree/new{version}"), b"new");
        let described = tree(&bench);
        let bytes = archive(&bench, &described);
        // It is not looked at again.
        let elsewhere = bench.files.path().join("elsewhere");
        fs::rename(bench.files.path().join("tree/0/198"), &elsewhere).expect("moved");
        remember(&bench.storage, known("tree"), version.into(), described);
        fs::rename(elsewhere, bench.files.path().join("tree/0/198")).expect("moved");
        assert_eq!(bench.blobs().len(), 3, "a layer over the first version");
        assert!(bench.disk() < of_one + 300_000, "{} of {of_one}", bench.disk());
        bench = bench.again();
        let found = bench.recall("tree").expect("it was remembered");
        assert_eq!(found.generation.get(), u64::from(version));
        assert_kept_of(&bench.storage, &found, &bytes);
    }
    // Much is new: a copy of its own.
    for number in 0..100u8 {
        bench.put(&format!("tree/{}/{number}", number % 3), &noise(20_000, 5000 + u64::from(number)));
    }
    let described = tree(&bench);
    let bytes = archive(&bench, &described);
    remember(&bench.storage, known("tree"), 9, described);
    assert_eq!(bench.blobs().len(), 2);
    assert_kept_of(&bench.storage, &bench.recall("tree").expect("it was remembered"), &bytes);
}

#[test]
fn damage_of_a_layer_or_of_the_copy_below_is_noticed() {
    for part in ["base", "bytes", "chunks"] {
        for gone in [false, true] {
            let bench = Bench::new(KeepForm::Auto, 1 << 30);
            much(&bench);
            remember(&bench.storage, known("tree"), 1, tree(&bench));
            bench.put("tree/0/0", b"new");
            remember(&bench.storage, known("tree"), 2, tree(&bench));
            let blob = bench.blobs().into_iter().find(|path| path.extension().is_some_and(|is| is == part));
            let blob = blob.expect("one of three");
            if gone {
                fs::remove_file(&blob).expect("removed");
            } else {
                let file = fs::OpenOptions::new().write(true).open(&blob).expect("there");
                file.write_all_at(b"damaged", 20).expect("written");
            }
            let described = tree(&bench);
            let found = bench.recall("tree").filter(|found| {
                let Kept::Copy(copy) = &found.kept else { panic!("a copy") };
                crate::laws::read(&bench.storage, copy, &[(0, described.chunks.len().get())]).is_ok()
            });
            assert!(found.is_none(), "{part}");
            remember(&bench.storage, known("tree"), 3, tree(&bench));
            assert_kept_of(&bench.storage, &bench.recall("tree").expect("again"), &archive(&bench, &described));
            assert_eq!(bench.blobs().len(), 2, "a copy of its own");
        }
    }
}
