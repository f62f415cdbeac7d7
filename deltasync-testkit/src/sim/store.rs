//! A storage that is watched and fails: every request of a session goes through here to the real one.
//!
//! Handles are wrapped, so that the watcher knows which version a session has seen and how many handles live; each commit
//! is entered in the [`History`], with the bytes that are there afterwards, read past the session. By its weather a
//! request fails, takes long, or is answered with wrong bytes; a commit may also meet a conflict that is none, or be made
//! and yet answered by a fault, as when a directory cannot be synced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use deltasync_core::{Algorithm, ByteLen, Digest, RelPath};
use deltasync_proto::{
    Answer, Ask, FaultKind, FileHandle, Kept, OpenedFile, Remembered, Replaces, StageHandle, StorageFault,
};

use super::MILLISECOND;
use super::ground::Ground;
use super::history::{Commit, History};
use super::tally::{Seen, Tally};
use crate::Rng;

/// How often a storage does what; out of 1000 requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Weather {
    pub(super) fault: usize,
    pub(super) slow: usize,
    pub(super) rot: usize,
    /// After so many of the requests a call to the disk goes wrong, where there is one.
    pub(super) disk: usize,
    /// Of looks whether a source has changed.
    pub(super) changed: usize,
    /// Of commits.
    pub(super) conflict: usize,
    /// Of commits.
    pub(super) late_fault: usize,
    /// What a request usually takes at most, in nanoseconds; at least 1.
    pub(super) usual: usize,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) connection: usize,
    /// Since when the one who sends what is committed is gone, as a [`History::serial`].
    pub(super) gone: Option<usize>,
    /// Where a recording is played: what it repeats.
    pub(super) repeats: Option<Repeated>,
}

/// What a recording repeats.
#[derive(Clone, Debug)]
pub(super) struct Repeated {
    /// The connection that was recorded.
    pub(super) connection: usize,
    /// When each path was first pushed to on it, as a [`History::serial`].
    pub(super) said: BTreeMap<RelPath, usize>,
}

/// A storage with its history.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) ground: Ground,
    pub(super) history: History,
    pub(super) weather: Weather,
    /// What a power cut may leave at a path instead of what is there.
    unsettled: BTreeMap<RelPath, BTreeSet<Option<Digest>>>,
    /// Sources that were said to have changed, and on which connection: they are to be described anew.
    changed: BTreeSet<(usize, RelPath)>,
    live: Arc<AtomicUsize>,
}

/// Counts a handle as long as it lives.
struct Live(Arc<AtomicUsize>);

impl Live {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a [`FileHandle`] of ours holds.
struct Held {
    inner: FileHandle,
    /// Which version of its path it is, where it was opened as one.
    version: Option<usize>,
    /// Where it was described as a source, if it was.
    source: Option<RelPath>,
    len: ByteLen,
    _live: Live,
}

/// What a [`StageHandle`] of ours holds.
struct Staged {
    inner: StageHandle,
    path: RelPath,
    root: Digest,
    contested: AtomicBool,
    _live: Live,
}

impl Store {
    pub(super) fn new(ground: Ground, weather: Weather) -> Self {
        let (unsettled, changed) = (BTreeMap::new(), BTreeSet::new());
        Self { ground, history: History::default(), weather, unsettled, changed, live: Arc::default() }
    }

    /// How many handles live.
    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// A file is put there by its owner.
    pub(super) fn put(&mut self, path: &RelPath, bytes: &Bytes, now: u64) {
        self.ground.put(path, bytes.clone());
        self.history.put(path, Algorithm::Blake3.digest(bytes), now);
    }

    /// A client was told that this is there: it has to stay.
    pub(super) fn settle(&mut self, path: &RelPath, root: Digest) {
        if self.history.root(path) == Some(root) {
            self.unsettled.remove(path);
        }
    }

    /// The power is cut, and the storage starts again on what is left.
    ///
    /// # Errors
    ///
    /// What is not there any more and should be.
    pub(super) fn lose_power(&mut self, now: u64, rng: &mut Rng, tally: &mut Tally) -> Result<(), String> {
        self.ground.lose_power(rng)?;
        let unsettled = std::mem::take(&mut self.unsettled);
        let known: BTreeSet<_> = self.history.paths().chain(unsettled.keys()).cloned().collect();
        for path in known {
            let (left, had) = (self.ground.root(&path), self.history.root(&path));
            if left == had {
                continue;
            }
            if !unsettled.get(&path).is_some_and(|others| others.contains(&left)) {
                return Err(format!("{path} had root {had:?}, and a power cut left {left:?}"));
            }
            tally.add(Seen::TakenBack);
            self.history.leave(&path, left, now);
        }
        Ok(())
    }

    /// How long a request takes, in nanoseconds, and how much of that is more than usual.
    pub(super) fn takes(&self, rng: &mut Rng, tally: &mut Tally) -> (u64, u64) {
        let usual = rng.below(self.weather.usual) as u64;
        if chance(rng, self.weather.slow) {
            tally.add(Seen::Slow);
            let more = rng.below(45_000) as u64 * MILLISECOND;
            return (usual + more, more);
        }
        (usual, 0)
    }

    /// Carries out a request.
    ///
    /// # Errors
    ///
    /// Which promise was broken; what the storage says of the request is within.
    pub(super) fn answer(
        &mut self,
        ask: Ask,
        asker: &Asker,
        now: u64,
        rng: &mut Rng,
        tally: &mut Tally,
    ) -> Result<Result<Answer, StorageFault>, String> {
        if chance(rng, self.weather.fault) {
            tally.add(Seen::Fault);
            let kinds = [FaultKind::Other, FaultKind::Full, FaultKind::Denied];
            return Ok(Err(StorageFault::new(kinds[rng.below(3)], "the simulated storage failed")));
        }
        if chance(rng, self.weather.disk) {
            if self.ground.has_failed() {
                tally.add(Seen::DiskFault);
            }
            self.ground.fail_soon(rng);
        }
        let ask = match ask {
            Ask::Commit { stage, replaces } => return self.commit(&stage, &replaces, asker, now, rng, tally),
            Ask::Recheck { file } if chance(rng, self.weather.changed) => {
                tally.add(Seen::SaidChanged);
                self.changed.extend(held(&file).source.clone().map(|path| (asker.connection, path)));
                return Ok(Ok(Answer::Rechecked { unchanged: false }));
            }
            Ask::Stage { place, len, algorithm, root } => {
                let path = place.path.clone();
                let answer = self.ground.answer(Ask::Stage { place, len, algorithm, root });
                return Ok(answer.map(|answer| match answer {
                    Answer::Staged(inner) => {
                        let contested = AtomicBool::new(false);
                        let live = Live::new(&self.live);
                        Answer::Staged(StageHandle::new(Staged { inner, path, root, contested, _live: live }))
                    }
                    other => other,
                }));
            }
            Ask::Apply { stage, basis, plan, literals } => {
                let mut literals = literals;
                let mut basis = basis.map(|basis| (inner(&basis), held(&basis).len));
                if chance(rng, self.weather.rot) {
                    tally.add(Seen::Rot);
                    match &mut basis {
                        Some((file, len)) if *len > ByteLen::ZERO && rng.below(2) == 0 => {
                            if let Some(rotten) = self.ground.rotten(file, *len, rng) {
                                *file = rotten;
                            }
                        }
                        _ => literals = rotten(&literals, rng),
                    }
                }
                Ask::Apply { stage: staged(&stage).inner.clone(), basis: basis.map(|(file, _)| file), plan, literals }
            }
            Ask::Read { file, ranges } => Ask::Read { file: inner(&file), ranges },
            Ask::Recheck { file } => Ask::Recheck { file: inner(&file) },
            Ask::Seal { stage } => Ask::Seal { stage: staged(&stage).inner.clone() },
            Ask::Reopen { stage } => Ask::Reopen { stage: staged(&stage).inner.clone() },
            Ask::Remember { key, generation, file } => {
                let file = OpenedFile { file: inner(&file.file), ..file };
                Ask::Remember { key, generation, file }
            }
            other => other,
        };
        let source = if let Ask::Describe { place, .. } = &ask { Some(place.path.clone()) } else { None };
        if source.as_ref().is_some_and(|path| self.changed.remove(&(asker.connection, path.clone()))) {
            tally.add(Seen::StartedOver);
        }
        let answer = match self.ground.answer(ask) {
            Err(fault) => return Ok(Err(fault)),
            Ok(answer) => answer,
        };
        Ok(Ok(match answer {
            Answer::Described(file) => {
                Answer::Described(OpenedFile { file: self.described(file.file, source, file.chunks.len()), ..file })
            }
            Answer::Basis { place, file, twin, partial } => {
                let seen = file.as_ref().map(|file| file.chunks.root());
                let there = self.history.root(&place.path);
                // A flipped byte may have asked for the root in another hash.
                let is_ours = file.as_ref().is_none_or(|file| file.chunks.algorithm() == Algorithm::Blake3);
                if is_ours && seen != there {
                    return Err(format!("{} was opened with root {seen:?}, and has {there:?}", place.path));
                }
                let generation = self.history.current(&place.path).map_or(0, |(_, version)| version.generation);
                let said = file.as_ref().map_or(0, |file| file.generation.get());
                if said != generation && said > 0 && generation > 0 {
                    return Err(format!("{} has generation {generation}, and was opened with {said}", place.path));
                }
                let number = self.history.number(&place.path);
                let file = file.map(|file| self.opened(file, number));
                let twin = twin.map(|twin| self.wrap(twin, None, ByteLen::ZERO));
                let partial = partial.map(|partial| self.opened(partial, None));
                Answer::Basis { place, file, twin, partial }
            }
            Answer::Recalled(remembered) => Answer::Recalled(remembered.map(|remembered| {
                let kept = match remembered.kept {
                    Kept::Copy(file) => Kept::Copy(self.wrap(file, None, ByteLen::ZERO)),
                    Kept::Sums { file, secret } => Kept::Sums { file: self.wrap(file, None, ByteLen::ZERO), secret },
                };
                Remembered { kept, ..remembered }
            })),
            Answer::Reopened(file) => Answer::Reopened(self.wrap(file, None, ByteLen::ZERO)),
            Answer::Read(bytes) if chance(rng, self.weather.rot) => {
                tally.add(Seen::Rot);
                Answer::Read(rotten(&bytes, rng))
            }
            other => other,
        }))
    }

    fn commit(
        &mut self,
        stage: &StageHandle,
        replaces: &Replaces,
        asker: &Asker,
        now: u64,
        rng: &mut Rng,
        tally: &mut Tally,
    ) -> Result<Result<Answer, StorageFault>, String> {
        let staged = staged(stage);
        let path = &staged.path;
        if chance(rng, self.weather.conflict) {
            tally.add(Seen::SpuriousConflict);
            return Ok(Err(StorageFault::new(FaultKind::Conflict, "the simulated storage thinks so")));
        }
        let (claimed, replaces) = match replaces {
            Replaces::Nothing => (None, Replaces::Nothing),
            Replaces::File(file) => {
                let version = held(file).version;
                if version.is_none() {
                    return Err(format!("a commit of {path} replaces what was not opened there"));
                }
                (version, Replaces::File(inner(file)))
            }
        };
        let there = self.history.number(path);
        match self.ground.answer(Ask::Commit { stage: staged.inner.clone(), replaces }) {
            Ok(Answer::Committed(generation)) => {
                let root = self.ground.root(path).ok_or_else(|| format!("{path} is gone after its commit"))?;
                let commit = Commit {
                    generation: generation.get(),
                    root,
                    at: now,
                    connection: asker.connection,
                    contested: staged.contested.load(Ordering::Relaxed),
                    repeats: asker.repeats.as_ref().map(|repeated| {
                        let first = repeated.said.get(path).copied().unwrap_or_default();
                        self.history.said(path, repeated.connection, root, first)
                    }),
                };
                if asker.gone.is_some_and(|gone| self.history.is_newer(path, gone)) {
                    return Err(format!("a connection that was given up has replaced a newer version of {path}"));
                }
                self.history.commit(path, commit, claimed)?;
                self.unsettled.remove(path);
                if chance(rng, self.weather.late_fault) {
                    tally.add(Seen::FaultAfterCommit);
                    return Ok(Err(StorageFault::new(FaultKind::Other, "the simulated directory cannot be synced")));
                }
                Ok(Ok(Answer::Committed(generation)))
            }
            Ok(other) => Err(format!("a commit was answered by {other:?}")),
            Err(fault) if fault.kind == FaultKind::Conflict => {
                // A commit that failed on its way may have touched what it would have replaced.
                if claimed == there && self.weather.disk > 0 {
                    tally.add(Seen::SpuriousConflict);
                } else if claimed == there {
                    return Err(format!("a commit of {path} that replaces what is there was refused: {fault}"));
                }
                tally.add(Seen::CommitConflict);
                staged.contested.store(true, Ordering::Relaxed);
                Ok(Err(fault))
            }
            Err(fault) => {
                self.look_after(staged, now, tally)?;
                Ok(Err(fault))
            }
        }
    }

    /// A commit has failed: what is there?
    fn look_after(&mut self, staged: &Staged, now: u64, tally: &mut Tally) -> Result<(), String> {
        let Staged { path, root, .. } = staged;
        let (before, after) = (self.history.root(path), self.ground.root(path));
        let others = self.unsettled.entry(path.clone()).or_default();
        if after == before {
            // It may have been there for a moment.
            others.insert(Some(*root));
        } else if after == Some(*root) {
            tally.add(Seen::CommitHalf);
            others.insert(before);
            self.history.leave(path, after, now);
        } else {
            return Err(format!("a commit of {root} to {path} failed and left {after:?} of {before:?}"));
        }
        Ok(())
    }

    fn opened(&self, file: OpenedFile, version: Option<usize>) -> OpenedFile {
        let len = file.chunks.len();
        OpenedFile { file: self.wrap(file.file, version, len), ..file }
    }

    fn wrap(&self, inner: FileHandle, version: Option<usize>, len: ByteLen) -> FileHandle {
        FileHandle::new(Held { inner, version, source: None, len, _live: Live::new(&self.live) })
    }

    fn described(&self, inner: FileHandle, source: Option<RelPath>, len: ByteLen) -> FileHandle {
        FileHandle::new(Held { inner, version: None, source, len, _live: Live::new(&self.live) })
    }
}

/// True in so many of 1000 cases. Draws nothing when that is never.
fn chance(rng: &mut Rng, of_1000: usize) -> bool {
    of_1000 > 0 && rng.below(1000) < of_1000
}

/// The same with one byte flipped.
fn rotten(bytes: &Bytes, rng: &mut Rng) -> Bytes {
    let mut rotten = bytes.to_vec();
    if !rotten.is_empty() {
        let at = rng.below(rotten.len());
        rotten[at] ^= 1 << rng.below(8);
    }
    rotten.into()
}

fn held(file: &FileHandle) -> &Held {
    file.downcast_ref().expect("a session has handles of its own storage")
}

fn inner(file: &FileHandle) -> FileHandle {
    held(file).inner.clone()
}

fn staged(stage: &StageHandle) -> &Staged {
    stage.downcast_ref().expect("a session has stages of its own storage")
}
