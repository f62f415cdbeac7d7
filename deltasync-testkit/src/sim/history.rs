//! What has happened to each path of a storage, as whoever watches it from outside must see it.
//!
//! Every commit that the storage answers is entered with what it claimed to replace and what really was there. From that
//! follow the promises: the history of a path is a line (each commit replaced exactly the version before it), generations
//! only grow, a version holds bytes that some client had as a whole file, and a recording of an earlier connection never
//! replaces a version that is newer than what it repeats.

use std::collections::{BTreeMap, BTreeSet};

use deltasync_core::{Digest, RelPath};

/// One state of a path.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// 0 for what was put there by other means.
    pub(super) generation: u64,
    /// `None` when a power cut has left nothing there.
    pub(super) root: Option<Digest>,
    /// When it came, on the virtual clock.
    pub(super) at: u64,
    /// Which connection committed it.
    pub(super) connection: Option<usize>,
    /// What was there before.
    pub(super) replaced: Option<Digest>,
    /// Its stage was refused before, as another version was there.
    pub(super) contested: bool,
    /// How many versions of any path came before.
    serial: usize,
}

/// What a commit says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Commit {
    pub(super) generation: u64,
    pub(super) root: Digest,
    pub(super) at: u64,
    pub(super) connection: usize,
    pub(super) contested: bool,
    /// When what it repeats was said, as a [`History::serial`], if it comes of a recording.
    pub(super) repeats: Option<usize>,
}

/// All versions of all paths.
#[derive(Debug, Default)]
pub(super) struct History {
    paths: BTreeMap<RelPath, Vec<Version>>,
    whole: BTreeSet<Digest>,
    generation: u64,
    serial: usize,
}

impl History {
    /// Some client has a file with this root: it may come to be here.
    pub(super) fn allow(&mut self, root: Digest) {
        self.whole.insert(root);
    }

    /// A file was put there by other means.
    pub(super) fn put(&mut self, path: &RelPath, root: Digest, at: u64) {
        self.allow(root);
        let commit = Commit { generation: 0, root, at, connection: 0, contested: false, repeats: None };
        self.add(path, commit, None);
    }

    /// A power cut has left this, or a commit that failed.
    pub(super) fn leave(&mut self, path: &RelPath, root: Option<Digest>, at: u64) {
        let (replaced, serial) = (self.root(path), self.serial);
        let version = Version { generation: 0, root, at, connection: None, replaced, contested: false, serial };
        self.serial += 1;
        self.paths.entry(path.clone()).or_default().push(version);
    }

    /// How many versions there have been: what comes later is newer.
    pub(super) fn serial(&self) -> usize {
        self.serial
    }

    /// The version that is there, and its number on this path.
    pub(super) fn current(&self, path: &RelPath) -> Option<(usize, &Version)> {
        let versions = self.paths.get(path)?;
        Some((versions.len() - 1, versions.last()?))
    }

    /// The number of the version that is there, if any is.
    pub(super) fn number(&self, path: &RelPath) -> Option<usize> {
        self.current(path).filter(|(_, version)| version.root.is_some()).map(|(number, _)| number)
    }

    /// The root of what is there.
    pub(super) fn root(&self, path: &RelPath) -> Option<Digest> {
        self.current(path)?.1.root
    }

    /// True when a version has come since that count.
    pub(super) fn is_newer(&self, path: &RelPath, serial: usize) -> bool {
        self.current(path).is_some_and(|(_, version)| version.serial >= serial)
    }

    /// How many versions of any path came before the latest of this path with this root.
    pub(super) fn latest(&self, path: &RelPath, root: Digest) -> Option<usize> {
        let versions = self.paths.get(path)?;
        versions.iter().rev().find(|version| version.root == Some(root)).map(|version| version.serial)
    }

    /// The latest moment at which a connection can have said that this root is to be put at a path, where `first` is when
    /// it first pushed there, or last found there what it brought: before it published that; else it may have been after
    /// the last that it published there, since pushes to one path follow each other and may name what the one before came
    /// to.
    pub(super) fn said(&self, path: &RelPath, connection: usize, root: Digest, first: usize) -> usize {
        let versions = self.paths.get(path).map_or(&[][..], Vec::as_slice);
        let own = || versions.iter().rev().filter(|version| version.connection == Some(connection));
        match own().find(|version| version.root == Some(root)) {
            Some(published) => published.serial,
            None => own().next().map_or(first, |last| last.serial + 1).max(first),
        }
    }

    /// The version of a path that was published as this generation.
    pub(super) fn published(&self, path: &RelPath, generation: u64) -> Option<&Version> {
        self.paths.get(path)?.iter().find(|version| version.generation == generation)
    }

    /// True when this root was there at some moment of that time.
    pub(super) fn was_there(&self, path: &RelPath, root: Digest, from: u64, to: u64) -> bool {
        let versions = self.paths.get(path).map_or(&[][..], Vec::as_slice);
        let ends = versions.iter().skip(1).map(|next| next.at).chain([u64::MAX]);
        versions.iter().zip(ends).any(|(version, end)| version.root == Some(root) && version.at <= to && end >= from)
    }

    /// True when nothing was there at some moment from then on.
    pub(super) fn was_absent(&self, path: &RelPath, from: u64) -> bool {
        let versions = self.paths.get(path).map_or(&[][..], Vec::as_slice);
        let ends = versions.iter().skip(1).map(|next| next.at).chain([u64::MAX]);
        let gone = versions.iter().zip(ends).any(|(version, end)| version.root.is_none() && end >= from);
        gone || versions.first().is_none_or(|first| first.at >= from)
    }

    /// True for the root of a file that some client, or the server, has or had.
    pub(super) fn is_known(&self, root: Digest) -> bool {
        self.whole.contains(&root)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &RelPath> {
        self.paths.keys()
    }

    /// Enters a commit that succeeded, which claimed to replace the version of this number.
    ///
    /// # Errors
    ///
    /// Which promise it broke.
    pub(super) fn commit(&mut self, path: &RelPath, commit: Commit, claimed: Option<usize>) -> Result<(), String> {
        let there = self.number(path);
        let Commit { generation, root, repeats, .. } = commit;
        let wrong = if claimed != there {
            Some(format!("it claimed to replace version {claimed:?} and replaced {there:?}: two writers saw the same"))
        } else if generation <= self.generation {
            Some(format!("its generation is not above {}", self.generation))
        } else if !self.whole.contains(&root) {
            Some("nobody ever had such a file".to_owned())
        } else if repeats.is_some_and(|said| self.is_newer(path, said)) {
            Some(format!("what it repeats was said before {there:?} came: a recording undid a newer commit"))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(format!("commit {generation} of {path} with root {root}: {wrong}"));
        }
        self.generation = generation;
        self.add(path, commit, Some(commit.connection));
        Ok(())
    }

    fn add(&mut self, path: &RelPath, commit: Commit, connection: Option<usize>) {
        let replaced = self.root(path);
        let Commit { generation, root, at, contested, .. } = commit;
        let root = Some(root);
        let version = Version { generation, root, at, connection, replaced, contested, serial: self.serial };
        self.serial += 1;
        self.paths.entry(path.clone()).or_default().push(version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connection 1 publishes A, then connection `other` publishes B; a recording of connection 1 brings `again`.
    fn check_recording(other: usize, again: &[u8], is_undone: bool) {
        let path = RelPath::new(b"file").expect("a path");
        let root = |bytes: &[u8]| deltasync_core::Algorithm::Blake3.digest(bytes);
        let mut history = History::default();
        [b"A", b"B", b"C"].iter().for_each(|bytes| history.allow(root(*bytes)));
        let commit = |generation, bytes: &[u8], connection, repeats| Commit {
            generation,
            root: root(bytes),
            at: generation,
            connection,
            contested: false,
            repeats,
        };
        let first = history.serial();
        history.commit(&path, commit(1, b"A", 1, None), history.number(&path)).expect("the first");
        history.commit(&path, commit(2, b"B", other, None), history.number(&path)).expect("the second");
        let said = history.said(&path, 1, root(again), first);
        let repeated = history.commit(&path, commit(3, again, 3, Some(said)), history.number(&path));
        assert_eq!(repeated.is_err(), is_undone, "{repeated:?}");
    }

    #[test]
    fn a_recording_undoes_what_came_after_its_words_and_nothing_that_came_before() {
        check_recording(1, b"A", true);
        check_recording(2, b"A", true);
        check_recording(2, b"C", true);
        // It was never published, and may name what the push before it came to.
        check_recording(1, b"C", false);
    }

    /// Another connection publishes B; connection 1 finds it there, and then C fails: what repeats C may come after B.
    #[test]
    fn what_a_connection_found_there_its_next_push_may_name() {
        let path = RelPath::new(b"file").expect("a path");
        let root = |bytes: &[u8]| deltasync_core::Algorithm::Blake3.digest(bytes);
        let mut history = History::default();
        history.put(&path, root(b"A"), 0);
        let first = history.serial();
        history.put(&path, root(b"B"), 1);
        assert!(history.is_newer(&path, history.said(&path, 1, root(b"C"), first)));
        let found = history.latest(&path, root(b"B")).expect("it is there");
        assert!(!history.is_newer(&path, history.said(&path, 1, root(b"C"), found + 1)));
        assert_eq!(history.latest(&path, root(b"C")), None);
    }
}
