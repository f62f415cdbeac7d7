//! The laws of every storage on real files, served and as a client's roots, walked by the kernel and by components; and
//! what only files can do.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use deltasync_core::{Algorithm, ByteLen, Offset, Op};
use deltasync_proto::EntryKind;
use rustix::fs::{CWD, FileType};
use tempfile::TempDir;

use super::*;
use crate::laws::altering::altering_laws;
use crate::laws::recalls::{assert_kept, known, recall, replacing_laws, twin};
use crate::laws::swaps::swapping_laws;
use crate::laws::{
    Fixture, append, apply, assert_fault, basis, commit, commit_over, describe, is_unchanged, laws, list, noise, plan,
    publish, read, stage, there,
};

mod altering;
mod listed;
mod resuming;

/// A directory, a storage over it, and the way it was opened.
struct Bench {
    storage: LocalStorage,
    directory: TempDir,
}

impl Bench {
    fn new(served: bool, components: bool, limits: Limits) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let options = LocalOptions::default().limits(limits).components(components);
        let storage = if served {
            LocalStorage::serve(directory.path(), options)
        } else {
            LocalStorage::roots(vec![directory.path().to_owned()], options)
        };
        Self { storage: storage.expect("it can be opened"), directory }
    }

    /// Served and as a client's root, walked both ways.
    fn all() -> [Self; 4] {
        [(true, false), (true, true), (false, false), (false, true)]
            .map(|(served, components)| Self::new(served, components, Limits::default()))
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }
}

impl Fixture for Bench {
    fn storage(&self) -> &dyn BlockingStorage {
        &self.storage
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    fn get(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.at(path)).ok()
    }

    fn make_directory(&self, path: &str) {
        fs::create_dir_all(self.at(path)).expect("made");
    }

    fn leftovers(&self) -> Vec<String> {
        let names = |path: PathBuf| {
            let entries = fs::read_dir(path).into_iter().flatten();
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        };
        let mut left: Vec<_> = names(self.at("")).filter(|name| name != ".deltasync").collect();
        left.extend(names(self.at(".deltasync/staging")));
        left.sort();
        left
    }

    fn generation(&self, n: u64) -> Generation {
        if self.storage.served.is_some() { Generation::new(n) } else { Generation::ZERO }
    }
}

impl Bench {
    /// The names in the history.
    fn kept(&self) -> Vec<String> {
        let names = fs::read_dir(self.at(".deltasync/history")).into_iter().flatten();
        let mut names: Vec<_> =
            names.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    /// Publishes as a session does, which looks at the basis first.
    fn replace(&self, at: &str, bytes: &[u8]) {
        basis(&self.storage, at, false).expect("it can go there");
        publish(&self.storage, at, bytes).expect("published");
    }

    fn recall(&self, at: &str, bytes: &[u8]) -> Option<deltasync_proto::Remembered> {
        recall(&self.storage, known(at), Some(Algorithm::Blake3.digest(bytes)))
    }

    /// Served again, by another process.
    fn restart(self, options: LocalOptions) -> Self {
        drop(self.storage);
        let storage = LocalStorage::serve(self.directory.path(), options).expect("served again");
        Self { storage, directory: self.directory }
    }
}

/// Tells the other thread of a test to end, also when this one panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

mod served {
    use super::*;
    laws! { |limits| Bench::new(true, false, limits) }
    altering_laws! { |limits| Bench::new(true, false, limits) }
    swapping_laws! { |limits| Bench::new(true, false, limits) }
    replacing_laws! { |limits| Bench::new(true, false, limits) }
}

mod served_by_components {
    use super::*;
    laws! { |limits| Bench::new(true, true, limits) }
    altering_laws! { |limits| Bench::new(true, true, limits) }
    swapping_laws! { |limits| Bench::new(true, true, limits) }
    replacing_laws! { |limits| Bench::new(true, true, limits) }
}

mod roots {
    use super::*;
    laws! { |limits| Bench::new(false, false, limits) }
    altering_laws! { |limits| Bench::new(false, false, limits) }
    swapping_laws! { |limits| Bench::new(false, false, limits) }
}

mod roots_by_components {
    use super::*;
    laws! { |limits| Bench::new(false, true, limits) }
    altering_laws! { |limits| Bench::new(false, true, limits) }
    swapping_laws! { |limits| Bench::new(false, true, limits) }
}

#[test]
fn the_kernel_walks_where_it_can() {
    let bench = Bench::new(true, false, Limits::default());
    assert!(format!("{:?}", bench.storage).contains("way: Kernel"), "this machine has openat2");
    let bench = Bench::new(true, true, Limits::default());
    assert!(format!("{:?}", bench.storage).contains("way: Components"));
}

#[test]
fn links_are_not_followed_to_read_or_to_write() {
    let outside = TempDir::new().expect("a temporary directory");
    fs::write(outside.path().join("secret"), b"secret").expect("written");
    for bench in Bench::all() {
        let storage = bench.storage();
        bench.put("dir/real", b"real");
        bench.put("real", b"real");
        symlink(outside.path().join("secret"), bench.at("file-out")).expect("linked");
        symlink(outside.path(), bench.at("dir-out")).expect("linked");
        symlink("real", bench.at("file-in")).expect("linked");
        symlink("dir", bench.at("dir-in")).expect("linked");
        symlink("dangling", bench.at("nowhere")).expect("linked");
        for at in ["file-out", "file-in", "nowhere", "dir-out", "dir-out/secret", "dir-in", "dir-in/real"] {
            let names = format!("{at}: symbolic links are not followed");
            assert_fault(describe(storage, at), FaultKind::Denied, &names);
            assert_fault(stage(storage, at, 1), FaultKind::Denied, &names);
        }
        for at in ["file-out", "dir-out", "dir-out/secret", "dir-out/new"] {
            assert_fault(basis(storage, at, false), FaultKind::Denied, at);
        }
        assert_fault(stage(storage, "dir-out/deep/new", 1), FaultKind::Denied, "dir-out/deep/new: ");
        assert_fault(list(storage, "dir-out/x", None, 10), FaultKind::Denied, "dir-out/x: ");
        let (entries, _) = list(storage, "", None, 10).expect("the root");
        let links = entries.iter().filter(|entry| entry.kind == EntryKind::Other).count();
        assert_eq!(links, 5, "{entries:?}");
    }
    assert_eq!(fs::read_dir(outside.path()).expect("there").count(), 1);
    assert_eq!(fs::read(outside.path().join("secret")).expect("there"), b"secret");
}

#[test]
fn a_link_to_the_root_itself_is_the_users_own() {
    let outside = TempDir::new().expect("a temporary directory");
    for served in [true, false] {
        let bench = Bench::new(served, false, Limits::default());
        drop(bench.storage);
        let link = outside.path().join(format!("link-{served}"));
        symlink(bench.directory.path(), &link).expect("linked");
        let options = LocalOptions::default();
        let storage =
            if served { LocalStorage::serve(link, options) } else { LocalStorage::roots(vec![link], options) };
        let storage = storage.expect("the path of a root may have links");
        publish(&storage, "file", b"content").expect("published");
        assert_eq!(fs::read(bench.directory.path().join("file")).expect("there"), b"content");
    }
}

/// For a second, a directory is exchanged for a link to another place again and again, while files are read, staged and
/// committed through it: what is outside stays untouched and unread.
#[test]
fn a_directory_that_flips_into_a_link_leads_nowhere() {
    for components in [false, true] {
        let outside = TempDir::new().expect("a temporary directory");
        fs::write(outside.path().join("file"), b"secret").expect("written");
        let bench = Bench::new(true, components, Limits::default());
        bench.put("flip/file", b"inside");
        symlink(outside.path(), bench.at("link")).expect("linked");
        let done = AtomicBool::new(false);
        let (mut inside, mut refused) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (flip, link) = (bench.at("flip"), bench.at("link"));
                while !done.load(Ordering::Relaxed) {
                    let exchange = rustix::fs::RenameFlags::EXCHANGE;
                    rustix::fs::renameat_with(CWD, &flip, CWD, &link, exchange).expect("exchanged");
                    thread::yield_now();
                }
            });
            let _stop = Stop(&done);
            let start = Instant::now();
            for round in 0u32.. {
                let elapsed = start.elapsed();
                if elapsed > Duration::from_secs(1) && inside > 0 && refused > 0 || elapsed > Duration::from_secs(30) {
                    break;
                }
                match describe(bench.storage(), "flip/file") {
                    Ok(file) => {
                        let bytes = read(bench.storage(), &file.file, &[(0, 6)]).expect("it is open");
                        assert_eq!(bytes, b"inside"[..]);
                        inside += 1;
                    }
                    Err(fault) => {
                        // By components, what stood in the way may be a directory again when we look at it.
                        assert!(matches!(fault.kind, FaultKind::Denied | FaultKind::WrongKind), "{fault}");
                        refused += 1;
                    }
                }
                if round % 64 == 0 {
                    let _ = publish(bench.storage(), "flip/file", b"inside");
                    let _ = publish(bench.storage(), "flip/deep/new", b"inside");
                }
            }
        });
        assert!(inside > 0 && refused > 0, "{inside} reads inside, {refused} refused");
        assert_eq!(fs::read(outside.path().join("file")).expect("there"), b"secret");
        assert_eq!(fs::read_dir(outside.path()).expect("there").count(), 1);
    }
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    for bench in Bench::all() {
        let pipe = bench.at("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).expect("made");
        let _socket = std::os::unix::net::UnixListener::bind(bench.at("socket")).expect("bound");
        for at in ["pipe", "socket"] {
            let names = format!("{at}: not a regular file");
            assert_fault(describe(bench.storage(), at), FaultKind::WrongKind, &names);
            assert_fault(basis(bench.storage(), at, false), FaultKind::WrongKind, &names);
            assert_fault(stage(bench.storage(), at, 1), FaultKind::WrongKind, &names);
        }
    }
}

#[test]
fn our_own_directory_does_not_exist_for_peers() {
    for components in [false, true] {
        let bench = Bench::new(true, components, Limits::default());
        let storage = bench.storage();
        for at in [".deltasync", ".deltasync/index", ".deltasync/staging/x", ".DeltaSync/index"] {
            assert_fault(describe(storage, at), FaultKind::NotFound, at);
            assert_fault(basis(storage, at, false), FaultKind::NotFound, at);
            assert_fault(basis(storage, at, true), FaultKind::NotFound, at);
            assert_fault(stage(storage, at, 1), FaultKind::NotFound, at);
            assert_fault(list(storage, at, None, 10), FaultKind::NotFound, at);
        }
        assert_eq!(list(storage, "", None, 10), Ok((Vec::new(), false)));
        publish(storage, "sub/.deltasync", b"fine").expect("only at the top is it ours");
    }
}

#[test]
fn a_source_called_like_our_own_directory_does_not_get_in() {
    let bench = Bench::new(true, false, Limits::default());
    let destination =
        Destination { place: crate::laws::place(""), name: crate::laws::name(".deltasync"), directory: true };
    let ask = Ask::Basis {
        destination,
        cutting: deltasync_proto::Cutting::ByContent,
        algorithm: deltasync_core::Algorithm::Blake3,
        wanted: None,
    };
    assert_fault(bench.storage.answer(ask), FaultKind::NotFound, ".deltasync: ");
}

#[test]
fn names_of_staged_files_are_reserved_and_fit() {
    let long = "n".repeat(255);
    let bench = Bench::new(false, false, Limits::default());
    let staged = stage(bench.storage(), &long, 1).expect("a long name has room too");
    let [beside] = &bench.leftovers()[..] else { panic!("one staged file") };
    assert!(beside.len() == 255 && beside.starts_with(".nnn"), "{beside}");
    assert_fault(describe(bench.storage(), beside), FaultKind::NotFound, ".nnn");
    assert_eq!(list(bench.storage(), "", None, 10), Ok((Vec::new(), false)));
    drop(staged);
    bench.put(".file.deltasync-notes", b"of the user");
    describe(bench.storage(), ".file.deltasync-notes").expect("only our form is reserved");
}

#[test]
fn a_second_server_of_a_directory_is_told() {
    let bench = Bench::new(true, false, Limits::default());
    let second = LocalStorage::serve(bench.directory.path(), LocalOptions::default()).expect_err("it is taken");
    assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
    assert!(second.to_string().ends_with(": another server is serving this directory"), "{second}");
    drop(bench.storage);
    LocalStorage::serve(bench.directory.path(), LocalOptions::default()).expect("it is free again");
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = LocalStorage::serve("/nonexistent/directory", LocalOptions::default()).expect_err("not there");
    assert!(error.to_string().starts_with("/nonexistent/directory: "), "{error}");
    let error = LocalStorage::roots(vec!["/nonexistent".into()], LocalOptions::default()).expect_err("not there");
    assert!(error.to_string().starts_with("/nonexistent: "), "{error}");
}

#[test]
fn a_restart_sweeps_staging_and_counts_on() {
    let bench = Bench::new(true, false, Limits::default());
    assert_eq!(publish(bench.storage(), "file", b"one"), Ok(Generation::new(1)));
    assert_eq!(publish(bench.storage(), "file", b"two"), Ok(Generation::new(2)));
    drop(bench.storage);
    fs::write(bench.directory.path().join(".deltasync/staging/.file.deltasync-00000000"), b"left").expect("written");
    let storage = LocalStorage::serve(bench.directory.path(), LocalOptions::default()).expect("served again");
    let bench = Bench { storage, ..bench };
    assert_eq!(bench.leftovers(), ["file"]);
    assert_eq!(publish(bench.storage(), "file", b"three"), Ok(Generation::new(3)));
}

#[test]
fn the_mode_of_the_replaced_file_stays_but_never_its_setuid_bit() {
    for bench in Bench::all() {
        let mode = |path: &str| fs::metadata(bench.at(path)).expect("there").mode() & 0o7777;
        for (old, new) in [(0o600, 0o600), (0o755, 0o755), (0o4755, 0o755), (0o2755, 0o755), (0o444, 0o444)] {
            bench.put("file", b"old");
            fs::set_permissions(bench.at("file"), fs::Permissions::from_mode(old)).expect("set");
            publish(bench.storage(), "file", b"new").expect("published");
            assert_eq!(mode("file"), new, "{old:o}");
            fs::remove_file(bench.at("file")).expect("removed");
        }
        bench.put("plain", b"made by the process itself");
        publish(bench.storage(), "new", b"new").expect("published");
        assert_eq!(mode("new"), mode("plain"));
    }
}

#[test]
fn a_file_that_shrinks_is_a_change_not_an_error_of_the_system() {
    for bench in Bench::all() {
        let storage = bench.storage();
        bench.put("file", &noise(10_000, 1));
        let file = describe(storage, "file").expect("it is there").file;
        fs::OpenOptions::new().write(true).open(bench.at("file")).and_then(|f| f.set_len(5_000)).expect("cut");
        assert!(!is_unchanged(storage, &file));
        assert_eq!(read(storage, &file, &[(0, 5_000)]).expect("still there").len(), 5_000);
        assert_fault(read(storage, &file, &[(4_000, 2_000)]), FaultKind::Changed, "file: ");
        let staged = stage(storage, "new", 2_000).expect("there is room");
        let copy = Op::Copy { from: Offset::new(4_000), len: ByteLen::new(2_000) };
        assert_fault(apply(storage, &staged, Some(&file), plan(10_000, &[copy]), b""), FaultKind::Changed, "file: ");
    }
}

#[test]
fn a_file_that_never_stands_still_is_a_fault_in_the_end() {
    let bench = Bench::new(true, false, Limits::default());
    bench.put("file", &noise(8 << 20, 1));
    let done = AtomicBool::new(false);
    let mut changed = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::OpenOptions::new().append(true).open(bench.at("file")).expect("there");
            while !done.load(Ordering::Relaxed) {
                io::Write::write_all(&mut &file, b"more").expect("appended");
            }
        });
        let _stop = Stop(&done);
        let start = Instant::now();
        while changed == 0 && start.elapsed() < Duration::from_secs(30) {
            match describe(bench.storage(), "file") {
                Ok(_) => {}
                Err(fault) => {
                    assert_eq!(fault.kind, FaultKind::Changed, "{fault}");
                    changed += 1;
                }
            }
        }
    });
    assert!(changed > 0);
}

/// Two contents of one letter each and of different lengths replace each other while readers read: what a reader gets is
/// one of them, whole.
#[test]
fn a_reader_never_sees_half_a_file() {
    for bench in Bench::all() {
        let contents = [vec![b'a'; 300_000], vec![b'b'; 500_001]];
        bench.put("file", &contents[0]);
        let done = AtomicBool::new(false);
        let reads = AtomicU32::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let bytes = fs::read(bench.at("file")).expect("it is always there");
                    assert!(contents.contains(&bytes), "{} bytes", bytes.len());
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
            let _stop = Stop(&done);
            let start = Instant::now();
            for round in 0.. {
                let enough = round >= 40 && reads.load(Ordering::Relaxed) >= 40;
                if enough || start.elapsed() > Duration::from_secs(30) {
                    break;
                }
                publish(bench.storage(), "file", &contents[(round + 1) % 2]).expect("published");
            }
        });
        assert!(reads.into_inner() > 0);
    }
}

#[test]
fn a_commit_that_fails_leaves_the_old_file() {
    for bench in Bench::all() {
        let storage = bench.storage();
        bench.put("dir/file", b"old");
        let staged = stage(storage, "dir/file", 3).expect("there is room");
        append(storage, &staged, b"new").expect("applied");
        // Someone replaces the target by a directory that is not empty.
        fs::rename(bench.at("dir/file"), bench.at("dir/kept")).expect("moved");
        bench.put("dir/file/inside", b"x");
        assert_fault(commit(storage, &staged), FaultKind::WrongKind, "dir/file: ");
        assert_fault(commit(storage, &staged), FaultKind::Other, "dir/file: ");
        drop(staged);
        assert_eq!(bench.get("dir/kept").as_deref(), Some(&b"old"[..]));
        assert_eq!(fs::read_dir(bench.at("dir")).expect("there").count(), 2);
    }
}

/// Two programs pull into one directory: what one of them saw is not replaced by the other unseen.
#[test]
fn two_programs_take_turns_in_one_directory() {
    let bench = Bench::new(false, false, Limits::default());
    let other = LocalStorage::roots(vec![bench.directory.path().to_owned()], LocalOptions::default()).expect("opened");
    for round in 0..100 {
        let at = ["file".to_owned(), round.to_string()];
        let turns = std::sync::Barrier::new(4);
        let outcomes: Vec<_> = thread::scope(|scope| {
            let write = |storage: &dyn BlockingStorage, at: &str| {
                let seen = there(storage, at);
                let staged = stage(storage, at, 1000).expect("there is room");
                append(storage, &staged, &noise(1000, round)).expect("applied");
                turns.wait();
                commit_over(storage, &staged, seen)
            };
            let writers = [(bench.storage(), 0), (&other, 0), (bench.storage(), 1), (&other, 1)];
            let threads = writers.map(|(storage, n)| {
                scope.spawn({
                    let at = &at;
                    move || write(storage, &at[n])
                })
            });
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        });
        for pair in outcomes.chunks(2) {
            assert_eq!(pair.iter().filter(|outcome| outcome.is_ok()).count(), 1, "round {round}: {outcomes:?}");
            let lost = pair.iter().find_map(|outcome| outcome.as_ref().err()).expect("one of two");
            assert_eq!(lost.kind, FaultKind::Conflict, "{lost}");
        }
    }
}

/// Who keeps the directory locked for ever stops no pull.
#[test]
fn a_lock_that_is_kept_is_not_waited_for_for_ever() {
    let bench = Bench::new(false, false, Limits::default());
    let directory = fs::File::open(bench.directory.path()).expect("it is there");
    rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive).expect("nobody has it");
    let start = Instant::now();
    publish(bench.storage(), "file", b"new").expect("published");
    assert!(start.elapsed() > Duration::from_millis(500), "it waited for a while");
}

/// A program that knows nothing of us makes a file at the moment when we commit: one of both is told that something is there.
#[test]
fn a_strangers_new_file_is_never_replaced() {
    const ROUNDS: usize = 200;
    for served in [true, false] {
        let bench = Bench::new(served, false, Limits::default());
        let staged = |at: &str| {
            let staged = stage(bench.storage(), at, 3).expect("there is room");
            append(bench.storage(), &staged, b"new").expect("applied");
            staged
        };
        let turns = std::sync::Barrier::new(2);
        let (mut ours, mut theirs) = (0, 0);
        // In nanoseconds; it closes in on the moment of the rename.
        let delay = AtomicU32::new(1 << 20);
        thread::scope(|scope| {
            let stranger = scope.spawn(|| {
                let make = |round: usize| {
                    turns.wait();
                    let (start, delay) = (Instant::now(), delay.load(Ordering::SeqCst));
                    while start.elapsed() < Duration::from_nanos(delay.into()) {
                        std::hint::spin_loop();
                    }
                    let made = fs::OpenOptions::new().write(true).create_new(true).open(bench.at(&round.to_string()));
                    made.is_ok()
                };
                (0..ROUNDS).map(make).collect::<Vec<_>>()
            });
            let commit = |round: usize| {
                let at = round.to_string();
                let staged = staged(&at);
                turns.wait();
                let won = match commit(bench.storage(), &staged) {
                    Ok(_) => true,
                    Err(fault) if fault.kind == FaultKind::Conflict => false,
                    Err(fault) => panic!("{fault}"),
                };
                let now = delay.load(Ordering::SeqCst);
                delay.store(if won { now - now / 8 } else { now + now / 8 }, Ordering::SeqCst);
                won
            };
            let won: Vec<_> = (0..ROUNDS).map(commit).collect();
            for (round, (we, they)) in won.into_iter().zip(stranger.join().expect("it does not panic")).enumerate() {
                assert!(we != they, "round {round}: we {we}, they {they}");
                let len = fs::metadata(bench.at(&round.to_string())).expect("there").len();
                assert_eq!(len, if we { 3 } else { 0 });
                (ours, theirs) = (ours + u32::from(we), theirs + u32::from(they));
            }
        });
        assert!(ours > 0 && theirs > 0, "we {ours}, they {theirs}");
    }
}

#[test]
fn a_commit_goes_into_the_directory_that_was_looked_at() {
    for bench in Bench::all() {
        bench.make_directory("dir");
        let staged = stage(bench.storage(), "dir/file", 3).expect("there is room");
        append(bench.storage(), &staged, b"new").expect("applied");
        fs::rename(bench.at("dir"), bench.at("moved")).expect("moved");
        bench.make_directory("dir");
        commit(bench.storage(), &staged).expect("published");
        assert_eq!(bench.get("moved/file").as_deref(), Some(&b"new"[..]));
        assert_eq!(bench.get("dir/file"), None);
    }
}

#[test]
fn directories_made_for_a_dropped_stage_go_unless_something_came_into_them() {
    let bench = Bench::new(false, false, Limits::default());
    let staged = stage(bench.storage(), "a/b/new", 1).expect("there is room");
    bench.put("a/other", b"x");
    drop(staged);
    assert!(bench.at("a").is_dir() && !bench.at("a/b").exists());
}

#[test]
fn a_thousand_names_come_in_small_pages() {
    let bench = Bench::new(true, false, Limits::default());
    let names: Vec<_> = (0..1000).map(|i| format!("{i:03}")).collect();
    names.iter().for_each(|name| bench.put(name, b""));
    let mut got = Vec::new();
    loop {
        let after = got.last().cloned();
        let (page, more) = list(bench.storage(), "", after.as_deref(), 97).expect("the root");
        got.extend(page.iter().map(|entry| entry.name.to_string()));
        if !more {
            break;
        }
    }
    assert_eq!(got, names);
}

#[test]
fn a_reopened_stage_of_a_client_is_a_file() {
    crate::laws::recalls::a_reopened_stage_is_a_file(&Bench::new(false, false, Limits::default()));
}

#[test]
fn a_client_keeps_no_history() {
    let bench = Bench::new(false, false, Limits::default());
    bench.put("file", b"old");
    bench.replace("file", b"new");
    assert!(bench.recall("file", b"old").is_none());
    assert_eq!(bench.leftovers(), ["file"]);
    assert!(!bench.at(".deltasync").exists());
}

#[test]
fn history_outlasts_a_restart_and_what_is_not_known_is_swept() {
    let bench = Bench::new(true, false, Limits::default());
    let versions = [noise(20_000, 1), noise(30_000, 2), noise(10_000, 3)];
    versions.iter().for_each(|version| bench.replace("file", version));
    bench.put(".deltasync/history/00000000000000ff.file", b"left by a crash");
    bench.put(".deltasync/history/other", b"left by nobody");
    let bench = bench.restart(LocalOptions::default());
    assert_eq!(bench.kept().len(), 4);
    for version in &versions[..2] {
        assert_kept(&bench.storage, &bench.recall("file", version).expect("it was replaced"), version);
    }
    let found = twin(&bench.storage, "file", &versions[0]).expect("it was here once");
    assert_eq!(read(&bench.storage, &found, &[(0, 20_000)]).expect("all"), versions[0]);
    let bench = bench.restart(LocalOptions::default().history(ByteLen::ZERO));
    assert_eq!(bench.kept(), [""; 0]);
    assert!(bench.recall("file", &versions[0]).is_none());
    bench.replace("file", b"another");
    assert_eq!(bench.kept(), [""; 0]);
}

#[test]
fn history_keeps_to_its_quota_and_the_oldest_go_first() {
    let quota = 1 << 19;
    let bench =
        Bench::new(true, false, Limits::default()).restart(LocalOptions::default().history(ByteLen::new(quota)));
    let versions: Vec<_> = (0..8).map(|n| noise(150_000, n)).collect();
    for version in &versions {
        bench.replace("file", version);
        let sizes = bench.kept().into_iter().map(|name| fs::metadata(bench.at(".deltasync/history").join(name)));
        assert!(sizes.map(|is| is.expect("there").len()).sum::<u64>() <= quota);
    }
    let stay: Vec<_> = (0..8).filter(|n| bench.recall("file", &versions[*n]).is_some()).collect();
    assert_eq!(stay, [4, 5, 6]);
    // What is larger than all of it is not kept, and nothing goes for it.
    bench.replace("large", &noise(1_000_000, 1));
    bench.replace("large", b"small");
    assert_eq!(bench.kept().len(), 6);
}

#[test]
fn a_version_that_comes_back_is_kept_once() {
    let bench = Bench::new(true, false, Limits::default());
    for _ in 0..3 {
        bench.replace("file", b"one");
        bench.replace("file", b"other");
    }
    assert_eq!(bench.kept().len(), 4);
    for version in [b"one".as_slice(), b"other"] {
        assert_kept(&bench.storage, &bench.recall("file", version).expect("it was replaced"), version);
    }
}

#[test]
fn what_was_not_described_as_it_is_now_is_not_kept() {
    let bench = Bench::new(true, false, Limits::default());
    bench.put("file", b"old");
    let (_, file) = basis(&bench.storage, "file", false).expect("it is there");
    let staged = stage(&bench.storage, "file", 3).expect("there is room");
    append(&bench.storage, &staged, b"new").expect("applied");
    thread::sleep(Duration::from_millis(30));
    // It is the same file, of the same length and time, and looks otherwise.
    fs::set_permissions(bench.at("file"), fs::Permissions::from_mode(0o640)).expect("ours");
    let replaced = Replaces::File(file.expect("it is there").file);
    assert_fault(commit_over(&bench.storage, &staged, replaced), FaultKind::Conflict, "file: ");
    commit_over(&bench.storage, &staged, there(&bench.storage, "file")).expect("published");
    assert!(bench.recall("file", b"old").is_some());
}

#[test]
fn a_name_that_comes_or_goes_meanwhile_is_no_conflict() {
    for served in [true, false] {
        let bench = Bench::new(served, false, Limits::default());
        bench.put("file", b"old");
        let replace = |new: &[u8], meanwhile: &dyn Fn()| {
            let (_, file) = basis(&bench.storage, "file", false).expect("it is there");
            let staged = stage(&bench.storage, "file", 3).expect("there is room");
            append(&bench.storage, &staged, new).expect("applied");
            thread::sleep(Duration::from_millis(30));
            meanwhile();
            let replaced = Replaces::File(file.expect("it is there").file);
            commit_over(&bench.storage, &staged, replaced)
        };
        replace(b"one", &|| fs::hard_link(bench.at("file"), bench.at("link")).expect("linked")).expect("published");
        fs::hard_link(bench.at("file"), bench.at("other")).expect("linked");
        replace(b"two", &|| fs::remove_file(bench.at("other")).expect("there")).expect("published");
        assert_eq!(fs::read(bench.at("file")).expect("there"), b"two");
        // Another file by that name is one, whatever it is.
        let other = || {
            fs::remove_file(bench.at("file")).expect("there");
            fs::write(bench.at("file"), b"two").expect("space");
        };
        assert_fault(replace(b"new", &other), FaultKind::Conflict, "file: ");
    }
}

#[test]
fn a_version_that_was_harmed_is_removed() {
    for (harmed, other) in [("file", "chunks"), ("chunks", "file")] {
        for harm in [None, Some(&b""[..]), Some(b"OLD"), Some(b"something longer")] {
            let bench = Bench::new(true, false, Limits::default());
            bench.put("file", b"old");
            bench.replace("file", b"new");
            assert!(bench.recall("file", b"old").is_some());
            thread::sleep(Duration::from_millis(30));
            let path = |part: &str| bench.at(&format!(".deltasync/history/{:016x}.{part}", 1));
            assert!(path(other).exists());
            match harm {
                None => fs::remove_file(path(harmed)).expect("it was there"),
                Some(bytes) => fs::write(path(harmed), bytes).expect("it was there"),
            }
            assert!(bench.recall("file", b"old").is_none(), "{harmed} {harm:?}");
            assert_eq!(bench.kept(), [""; 0]);
            bench.replace("file", b"newest");
            assert_kept(&bench.storage, &bench.recall("file", b"new").expect("it was replaced"), b"new");
        }
    }
}

#[test]
fn a_commit_that_fails_keeps_nothing() {
    let bench = Bench::new(true, false, Limits::default());
    bench.put("dir/file", b"old");
    basis(&bench.storage, "dir/file", false).expect("it is there");
    let staged = stage(bench.storage(), "dir/file", 3).expect("there is room");
    append(bench.storage(), &staged, b"new").expect("applied");
    // Nobody can rename what somebody removed.
    let staging =
        fs::read_dir(bench.at(".deltasync/staging")).expect("there").next().expect("staged").expect("an entry");
    fs::remove_file(staging.path()).expect("it was there");
    let seen = there(bench.storage(), "dir/file");
    assert_fault(commit_over(bench.storage(), &staged, seen), FaultKind::NotFound, "dir/file: ");
    assert_eq!(bench.get("dir/file").as_deref(), Some(&b"old"[..]));
    assert_eq!(bench.kept(), [""; 0]);
    bench.replace("dir/file", b"new");
    assert!(bench.recall("dir/file", b"old").is_some());
}

#[test]
fn a_twin_that_is_no_longer_what_was_published_is_none() {
    for components in [false, true] {
        let bench = Bench::new(true, components, Limits::default());
        let outside = TempDir::new().expect("a temporary directory");
        fs::write(outside.path().join("one"), b"content").expect("written");
        let changes: [&dyn Fn(); 5] = [
            &|| bench.put("dir/one", b"CONTENT"),
            &|| bench.put("dir/one", b"longer content"),
            &|| fs::remove_file(bench.at("dir/one")).expect("it was there"),
            &|| {
                fs::rename(bench.at("dir/one"), bench.at("dir/two")).expect("it was there");
                symlink(outside.path().join("one"), bench.at("dir/one")).expect("linked");
            },
            &|| {
                fs::rename(bench.at("dir"), bench.at("moved")).expect("it was there");
                symlink(outside.path(), bench.at("dir")).expect("linked");
            },
        ];
        for change in changes {
            let _ = fs::remove_file(bench.at("dir/one"));
            publish(&bench.storage, "dir/one", b"content").expect("published");
            assert!(twin(&bench.storage, "new", b"content").is_some());
            thread::sleep(Duration::from_millis(30));
            change();
            assert!(twin(&bench.storage, "new", b"content").is_none());
        }
    }
}

#[test]
fn twins_outlast_a_restart() {
    let bench = Bench::new(true, false, Limits::default());
    publish(&bench.storage, "dir/one", b"content").expect("published");
    let bench = bench.restart(LocalOptions::default());
    let found = twin(&bench.storage, "new", b"content").expect("it lies at dir/one");
    assert_eq!(read(&bench.storage, &found, &[(0, 7)]).expect("all"), b"content"[..]);
    assert!(is_unchanged(&bench.storage, &found));
}

/// A file system of 2 MiB that sets room aside, mounted for one test.
struct Small(TempDir);

impl Small {
    fn mount() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let (image, at) = (directory.path().join("image"), directory.path().join("mounted"));
        fs::File::create(&image).and_then(|file| file.set_len(2 << 20)).expect("an image");
        fs::create_dir(&at).expect("a directory");
        let run = |command: &mut std::process::Command| {
            assert!(command.status().expect("it runs").success(), "it needs root and e2fsprogs: {command:?}");
        };
        run(std::process::Command::new("mkfs.ext4").args(["-q", "-m", "0", "-O", "^has_journal"]).arg(&image));
        run(std::process::Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at));
        let small = Self(directory);
        fs::create_dir(small.root()).expect("a directory");
        small
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("mounted/root")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path().join("mounted")).status();
    }
}

#[test]
#[ignore = "needs root to mount a file system: run .ci/run"]
fn a_full_disk_is_told_before_anything_is_sent() {
    let small = Small::mount();
    let storage = LocalStorage::roots(vec![small.root()], LocalOptions::default()).expect("opened");
    publish(&storage, "file", &noise(100_000, 1)).expect("it fits");
    assert_fault(stage(&storage, "file", 3 << 20), FaultKind::Full, "file: ");
    assert_eq!(fs::read(small.root().join("file")).expect("there"), noise(100_000, 1));
    assert_eq!(fs::read_dir(small.root()).expect("there").count(), 1);
    // Space is set aside once bytes come, and what is given back can be used.
    let first = stage(&storage, "first", 1_000_000).expect("it fits");
    append(&storage, &first, b"x").expect("it fits");
    assert_fault(stage(&storage, "second", 1_000_000), FaultKind::Full, "second: ");
    drop(first);
    publish(&storage, "second", &noise(1_000_000, 2)).expect("it fits now");
}
