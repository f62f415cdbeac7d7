//! What was pushed where and what of it was acknowledged, and the promise that is checked against it: each file is one
//! of its versions, byte for byte, and none older than the last that was acknowledged; there is no other file.
//!
//! Versions follow each other: most are the one before with a few edits, some are quite other bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use deltasync_core::{Algorithm, Digest, Generation};
use deltasync_proto::Outcome;
use deltasync_testkit::Rng;

/// All that was pushed to one directory.
pub(crate) struct Ledger {
    rng: Rng,
    files: BTreeMap<String, Versions>,
    /// The highest generation that was told.
    highest: Generation,
    /// The power is being cut: what is told from now on need not last. A directory's sync that meets the shutdown of a file
    /// system may find nothing left to do, and say that all is well.
    cutting: bool,
}

#[derive(Default)]
struct Versions {
    /// The roots of all that were tried, in order.
    roots: Vec<Digest>,
    newest: Vec<u8>,
    acknowledged: Option<usize>,
}

/// A push that is on its way.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) path: String,
    pub(crate) bytes: Bytes,
    version: usize,
    /// Every generation that was told before it began.
    floor: Generation,
}

impl Ledger {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), files: BTreeMap::new(), highest: Generation::ZERO, cutting: false }
    }

    /// From here on nothing counts as acknowledged, until the files are looked at again.
    pub(crate) fn cut(&mut self) {
        self.cutting = true;
    }

    /// The next version of a file: as long as it was, or of about `len` bytes when it is new or made anew.
    pub(crate) fn attempt(&mut self, path: &str, len: usize) -> Attempt {
        let Self { rng, files, highest, .. } = self;
        let file = files.entry(path.to_owned()).or_default();
        if file.newest.is_empty() || rng.below(5) == 0 {
            file.newest = rng.bytes(len - rng.clone().below(len / 4 + 1));
        }
        for _ in 0..1 + rng.below(8) {
            let at = rng.below(file.newest.len());
            let edit = rng.bytes(8);
            let end = (at + 8).min(file.newest.len());
            file.newest[at..end].copy_from_slice(&edit[..end - at]);
        }
        if rng.below(3) == 0 {
            let at = rng.below(file.newest.len());
            file.newest.insert(at, 7);
        }
        file.roots.push(root_of(&file.newest));
        let version = file.roots.len() - 1;
        Attempt { path: path.to_owned(), bytes: file.newest.clone().into(), version, floor: *highest }
    }

    /// The server said that it is done.
    pub(crate) fn acknowledge(&mut self, attempt: &Attempt, outcome: &Outcome) {
        let file = self.files.get_mut(&attempt.path).expect("it was tried");
        assert_eq!(outcome.root, file.roots[attempt.version], "{}", attempt.path);
        if self.cutting {
            return;
        }
        file.acknowledged = file.acknowledged.max(Some(attempt.version));
        if let Some(generation) = outcome.generation {
            assert!(generation > attempt.floor, "{}: {generation} came after {}", attempt.path, attempt.floor);
            self.highest = self.highest.max(generation);
        }
    }

    /// The files with versions that were tried and not acknowledged.
    pub(crate) fn open(&self) -> impl Iterator<Item = (&str, u64)> {
        let open = |file: &Versions| file.acknowledged != Some(file.roots.len() - 1);
        self.files.iter().filter(move |(_, file)| open(file)).map(|(path, file)| (&**path, file.newest.len() as u64))
    }

    /// Checks every file below a served directory. Returns how many hold a version that nobody was told of.
    #[track_caller]
    pub(crate) fn check(&self, root: &Path) -> usize {
        let mut told_nobody = 0;
        let mut found = BTreeMap::new();
        for path in files_below(root) {
            let name = path.strip_prefix(root).expect("below it").to_str().expect("our names").to_owned();
            let bytes = fs::read(&path).expect("it can be read");
            let file = self.files.get(&name).unwrap_or_else(|| panic!("{name} was never pushed"));
            let root = root_of(&bytes);
            let version = file.roots.iter().rposition(|version| *version == root);
            let version = version.unwrap_or_else(|| panic!("{name}: {} bytes are none of its versions", bytes.len()));
            let newer = Some(version) >= file.acknowledged;
            assert!(newer, "{name}: version {version} is there, {:?} was acknowledged", file.acknowledged);
            told_nobody += usize::from(Some(version) > file.acknowledged);
            found.insert(name, version);
        }
        for (name, file) in &self.files {
            let lost = file.acknowledged.is_some() && !found.contains_key(name);
            assert!(!lost, "{name}: version {:?} was acknowledged, and nothing is there", file.acknowledged);
        }
        told_nobody
    }

    /// What stands in a served directory now is what its next versions are made from, and must not be lost again.
    pub(crate) fn adopt(&mut self, root: &Path) {
        self.cutting = false;
        for (name, file) in &mut self.files {
            let Ok(bytes) = fs::read(root.join(name)) else { continue };
            let is = root_of(&bytes);
            file.acknowledged = file.roots.iter().rposition(|version| *version == is);
        }
    }

    /// The files that were acknowledged.
    pub(crate) fn paths(&self) -> Vec<String> {
        let acknowledged = self.files.iter().filter(|(_, file)| file.acknowledged.is_some());
        acknowledged.map(|(path, _)| path.clone()).collect()
    }
}

/// The names in a directory, sorted; none when it is not there.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

/// The files below a served directory, without what is the server's own.
fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("it can be listed") {
            let entry = entry.expect("an entry");
            let kind = entry.file_type().expect("it has one");
            if kind.is_dir()
                && !(directory == root && (entry.file_name() == ".deltasync" || entry.file_name() == "lost+found"))
            {
                directories.push(entry.path());
            } else if !kind.is_dir() {
                files.push(entry.path());
            }
        }
    }
    files
}

fn root_of(bytes: &[u8]) -> Digest {
    Algorithm::Blake3.digest(bytes)
}
