//! What transfers that were cut off have left in a tree under names of ours.
//!
//! The short files of a tree are made under hidden names, a few hundred at a time, and are in place moments later. Where a
//! process is killed in between they stay, where nobody but the owner of the directory sees them; the next transfer that
//! changes the tree removes them.
//!
//! # Security
//!
//! Others may write in the directory, and another transfer may be on its way there. What is removed has a name of ours, is a
//! file or a symbolic link that nothing has changed for an hour by the disk's own clock, is locked by nobody, and is no
//! partial from which a large file could still go on.

use std::collections::BTreeSet;
use std::io;

use deltasync_core::{Name, RelPath};
use deltasync_proto::Place;

use super::below;
use super::making::hidden;
use crate::disk::DiskKind;
use crate::local::root::{Dir, Root, is_staged};
use crate::local::staging::{AGE_MAX, LEAST};

/// For how long nothing may have changed what is removed, in seconds.
const UNTOUCHED: i64 = 60 * 60;

/// How many are noted at most: others have their turn another time.
const NOTED: usize = 4096;

/// Names of ours in a tree, each with its directory.
#[derive(Debug, Default)]
pub(super) struct Leftovers(Vec<(RelPath, Name)>);

impl Leftovers {
    /// Notes a name that was met in a directory of the tree, if it is one of ours.
    pub(super) fn meet(&mut self, directory: &RelPath, name: &Name) {
        if self.0.len() < NOTED && is_staged(name.as_bytes()) {
            self.0.push((directory.clone(), name.clone()));
        }
    }

    /// Removes those that nobody wants any more, and tells which directories of the tree that has changed. What cannot be
    /// removed stays.
    pub(super) fn sweep(&self, root: &Root, place: &Place) -> BTreeSet<RelPath> {
        let Some((directory, name)) = self.0.first() else { return BTreeSet::new() };
        let Some(Ok(now)) = open(root, place, directory).map(|dir| clock_of(&dir, name)) else {
            return BTreeSet::new();
        };
        let mut swept = self.sweep_at(root, place, now);
        // In it the clock was read.
        swept.insert(directory.clone());
        swept
    }

    fn sweep_at(&self, root: &Root, place: &Place, now: i64) -> BTreeSet<RelPath> {
        let mut swept = BTreeSet::new();
        for (directory, name) in &self.0 {
            let Some(dir) = open(root, place, directory) else { continue };
            if is_unwanted(&dir, name, now).unwrap_or(false) && dir.remove(name).is_ok() {
                swept.insert(directory.clone());
            }
        }
        swept
    }
}

fn open(root: &Root, place: &Place, directory: &RelPath) -> Option<Dir> {
    below(&place.path, directory).ok().and_then(|at| root.directory(&at).ok())
}

fn is_unwanted(dir: &Dir, name: &Name, now: i64) -> io::Result<bool> {
    let Some(is) = dir.stat(name)? else { return Ok(false) };
    if now.saturating_sub(is.changed.0) < UNTOUCHED {
        return Ok(false);
    }
    match is.kind {
        DiskKind::File if is.len >= LEAST && now.saturating_sub(is.modified.0) <= AGE_MAX => Ok(false),
        DiskKind::File | DiskKind::Symlink => dir.is_nobodys(name, is.kind),
        DiskKind::Directory | DiskKind::Other => Ok(false),
    }
}

/// What the clock of the disk shows that a directory is on, in seconds since 1970.
fn clock_of(dir: &Dir, name: &Name) -> io::Result<i64> {
    hidden(name, |hidden| dir.now_by(hidden)).map(|(_, now)| now)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::os::unix::fs::symlink;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use deltasync_proto::RootId;

    use super::*;
    use crate::disk::SystemDir;

    #[test]
    fn only_what_nobody_can_want_any_more_goes() {
        let ground = tempfile::tempdir().expect("room");
        let at = |name: &str| ground.path().join("tree").join(name);
        fs::create_dir_all(at("sub")).expect("room");
        let ours = |name: &str| format!("{name}.deltasync-0123abcd");
        let write = |name: &str, len: usize| {
            fs::write(at(name), vec![7; len]).expect("room");
        };
        write("file", 1);
        write(&ours(".short"), 100);
        write(&ours("sub/.other"), 0);
        symlink("anywhere", at(&ours(".link"))).expect("room");
        fs::create_dir(at(&ours(".directory"))).expect("room");
        let large = LEAST as usize;
        write(&ours(".partial"), large);
        write(&ours(".old"), large);
        let week = SystemTime::now() - Duration::from_secs(1 + AGE_MAX as u64);
        let old = File::options().write(true).open(at(&ours(".old"))).expect("it is there");
        old.set_times(FileTimes::new().set_modified(week)).expect("it is ours");
        write(&ours(".held"), 100);
        let held = File::open(at(&ours(".held"))).expect("it is there");
        held.lock().expect("nobody else has it");

        let root = Root::new(Arc::new(SystemDir::start(ground.path(), false).expect("it is there")));
        let place = Place { root: RootId::new(0), path: RelPath::new(b"tree").expect("a path") };
        let mut leftovers = Leftovers::default();
        for directory in ["", "sub"] {
            let path = RelPath::new(directory.as_bytes()).unwrap_or_default();
            for entry in fs::read_dir(at(directory)).expect("readable") {
                let name = entry.expect("an entry").file_name();
                leftovers.meet(&path, &Name::new(name.as_encoded_bytes()).expect("a name"));
            }
        }
        let names = || {
            let mut names: Vec<_> =
                ["", "sub"].into_iter().flat_map(|dir| fs::read_dir(at(dir)).expect("readable")).collect();
            names.drain(..).map(|entry| entry.expect("an entry").file_name().into_string().expect("letters")).collect()
        };
        let before: BTreeSet<String> = names();
        assert_eq!(before.len(), 9, "{before:?}");

        // All is new by the disk's clock.
        assert_eq!(leftovers.sweep(&root, &place).len(), 1, "the clock was read somewhere");
        assert_eq!(names(), before);

        let dir = open(&root, &place, &RelPath::ROOT).expect("it is there");
        let soon = clock_of(&dir, &Name::new(b"x").expect("a name")).expect("it can be read") + UNTOUCHED + 1;
        let swept = leftovers.sweep_at(&root, &place, soon);
        assert_eq!(swept, [RelPath::ROOT, RelPath::new(b"sub").expect("a path")].into());
        let left = [ours(".directory"), ours(".held"), ours(".partial"), "file".to_owned(), "sub".to_owned()];
        assert_eq!(names(), left.into());
        drop(held);
        assert_eq!(leftovers.sweep_at(&root, &place, soon), [RelPath::ROOT].into(), "what was held, and no more");
        assert_eq!(leftovers.sweep_at(&root, &place, soon), BTreeSet::new());
    }
}
