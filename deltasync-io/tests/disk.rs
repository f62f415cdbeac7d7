//! The laws of every storage over a simulated disk, served and as a client's roots: so that what holds on it, with faults
//! or without, is worth something, it does what other disks do.

use deltasync_core::{Generation, Limits};
use deltasync_io::{BlockingStorage, KeepForm, LocalOptions, LocalStorage};
use deltasync_testkit::SimDisk;

#[path = "../src/laws.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "they are laws of other storages")]
mod laws;

use laws::recalls::replacing_laws;
use laws::swaps::swapping_laws;
use laws::{Fixture, assert_fault, describe, laws, list, publish, stage};

struct Bench {
    storage: LocalStorage,
    disk: SimDisk,
    served: bool,
}

impl Bench {
    fn new(served: bool, limits: Limits) -> Self {
        let disk = SimDisk::new();
        let options = LocalOptions::default().limits(limits);
        let storage = if served {
            LocalStorage::serve_on(disk.root(), options).expect("it can be opened")
        } else {
            LocalStorage::roots_on(vec![disk.root()], options)
        };
        Self { storage, disk, served }
    }
}

impl Fixture for Bench {
    fn storage(&self) -> &dyn BlockingStorage {
        &self.storage
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        self.disk.put(path, bytes);
    }

    fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.disk.get(path)
    }

    fn make_directory(&self, path: &str) {
        self.disk.make_dir(path);
    }

    fn leftovers(&self) -> Vec<String> {
        let left = |path: String| match path.strip_prefix(".deltasync/staging/") {
            Some(staged) => Some(staged.to_owned()),
            None => (path != ".deltasync" && !path.contains('/')).then_some(path),
        };
        let mut left: Vec<_> = self.disk.tree().into_keys().filter_map(left).collect();
        left.sort();
        left
    }

    fn generation(&self, n: u64) -> Generation {
        if self.served { Generation::new(n) } else { Generation::ZERO }
    }
}

mod served {
    use super::*;
    laws! { |limits| Bench::new(true, limits) }
    swapping_laws! { |limits| Bench::new(true, limits) }
    replacing_laws! { |limits| Bench::new(true, limits) }
}

mod roots {
    use super::*;
    laws! { |limits| Bench::new(false, limits) }
    swapping_laws! { |limits| Bench::new(false, limits) }
}

#[test]
fn links_are_not_followed_to_read_or_to_write() {
    for served in [true, false] {
        let bench = Bench::new(served, Limits::default());
        let storage = bench.storage();
        bench.disk.symlink("link");
        for at in ["link", "link/file", "link/deep/file"] {
            assert_fault(describe(storage, at), deltasync_proto::FaultKind::Denied, at);
            assert_fault(stage(storage, at, 1), deltasync_proto::FaultKind::Denied, at);
        }
        assert_fault(list(storage, "link/x", None, 10), deltasync_proto::FaultKind::Denied, "link/x: ");
    }
}

#[test]
fn one_disk_is_served_by_one_server_at_a_time() {
    let bench = Bench::new(true, Limits::default());
    publish(bench.storage(), "file", b"content").expect("published");
    let second = LocalStorage::serve_on(bench.disk.root(), LocalOptions::default()).expect_err("it is taken");
    assert_eq!(second.kind(), std::io::ErrorKind::WouldBlock);
    drop(bench.storage);
    LocalStorage::serve_on(bench.disk.root(), LocalOptions::default()).expect("it is free again");
}
