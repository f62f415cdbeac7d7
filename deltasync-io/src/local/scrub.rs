//! Stored files against what was published: what a disk has lost is found before somebody needs it.
//!
//! The index of a served directory records the root of each published file and how it looked. A [`Scrub`] goes through the
//! records in the order of their paths, reads each file and compares. A file that looks as recorded but has another root is
//! *damaged*: it is marked, and no peer gets it until its content is right again or somebody has pushed the right one. A
//! file that looks otherwise was written by another program on purpose, and its record is dropped; where only the times
//! changed, or it was copied to another disk, and the root is right, the record follows. Then come the old versions in the
//! history: one that is not what it was is thrown away.
//!
//! It looks the same when inode, length and time of modification do. The device is left out, since its number may be
//! another one after a restart; the time of the last change too, as a new name counts there.
//!
//! The work comes in steps of at most 256 KiB, at a rate that the caller sets, so a scrub can be stopped between any two.
//! The bytes are read from the disk and not from the memory of the system, where it allows that. Files can be pushed and
//! pulled meanwhile: what a verdict rests on is looked at again under the lock of a commit.
//!
//! Invariant: a file is marked only while the record that it contradicts stands, and a mark goes with its record.

use std::collections::VecDeque;
use std::io;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deltasync_core::{Chunker, Digest, Hasher, RelPath};
use deltasync_proto::{FaultKind, OpenedFile, StorageFault, Version};
use redb::{TableDefinition, WriteTransaction};

use super::history::Replaced;
use super::index::set_counter;
use super::recorded::Recorded;
use super::root::{Root, Trouble};
use super::{LocalStorage, Served, opened};
use crate::disk::AnyFile;
use crate::fault::fault;
use crate::source::{Looks, with_buffer};

/// How to go through the files of a served directory. The defaults read as fast as the disk does, from the start.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ScrubOptions {
    /// The most bytes to read in a second.
    pub rate: Option<u64>,
    /// Goes on where an earlier scrub with this option was stopped, and leaves behind where this one is.
    pub resume: bool,
}

impl ScrubOptions {
    /// Sets the most bytes to read in a second, at least one.
    #[must_use]
    pub fn rate(mut self, rate: u64) -> Self {
        self.rate = Some(rate.max(1));
        self
    }

    /// Sets whether it goes on where an earlier one was stopped.
    #[must_use]
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }
}

/// What a step of a [`Scrub`] has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScrubEvent {
    /// It has got on, or waited for its rate; at most 256 KiB were read, and at most 100 ms waited.
    Progress,
    /// Something is not as it should be.
    Found(Finding),
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// The file.
    pub path: RelPath,
    /// The root that it should have.
    pub recorded: Digest,
    /// The root that it has, where it could be read.
    pub found: Option<Digest>,
    /// The same for people, without the path.
    pub message: String,
}

/// The kinds of things that a scrub finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// A file looks as it was published and is not. It is marked.
    Damaged,
    /// The disk does not give a file back. It is marked.
    Unreadable,
    /// Another program has written a file. Its record is dropped.
    Changed,
    /// Another program has removed a file. Its record is dropped.
    Gone,
    /// A kept old version was not what it was. It is thrown away.
    OldVersion,
}

impl FindingKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Damaged, Self::Unreadable, Self::Changed, Self::Gone, Self::OldVersion];

    /// The word for it in logs and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Unreadable => "unreadable",
            Self::Changed => "changed",
            Self::Gone => "gone",
            Self::OldVersion => "old-version",
        }
    }

    /// True when a disk has lost something, rather than someone done something.
    pub const fn is_damage(self) -> bool {
        matches!(self, Self::Damaged | Self::Unreadable | Self::OldVersion)
    }
}

/// What a [`Scrub`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubReport {
    /// Files that were checked, old versions among them.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    found: [u64; FindingKind::ALL.len()],
}

impl ScrubReport {
    /// How many things of a kind were found.
    pub fn found(&self, kind: FindingKind) -> u64 {
        self.found[kind as usize]
    }

    /// True when a disk has lost something.
    pub fn is_damaged(&self) -> bool {
        FindingKind::ALL.into_iter().any(|kind| kind.is_damage() && self.found(kind) > 0)
    }
}

/// What is known of the scrubs of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastScrub {
    /// When the last one ended that went through everything.
    pub finished: Option<SystemTime>,
    /// One that can be resumed was stopped on its way.
    pub unfinished: bool,
}

/// A check of all that is stored in a served directory against what was published. It gets on by [`step`](Self::step), and
/// is stopped by being dropped.
#[derive(Debug)]
pub struct Scrub<'a> {
    storage: &'a LocalStorage,
    served: &'a Served,
    root: &'a Root,
    options: ScrubOptions,
    /// What has been dealt with.
    done: Position,
    /// The same with what is being read.
    at: Position,
    /// What comes next.
    page: VecDeque<RelPath>,
    checking: Option<Checking>,
    pace: Pace,
    saved: Instant,
    report: ScrubReport,
}

/// How far it has got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Position {
    /// All files up to this one.
    Files(Option<RelPath>),
    /// All files, and all old versions up to this one.
    Versions(u64),
    End,
}

/// A file that is being read.
#[derive(Debug)]
struct Checking {
    subject: Subject,
    file: AnyFile,
    looks: Looks,
    at: u64,
}

#[derive(Debug)]
enum Subject {
    File { path: RelPath, recorded: Recorded, hasher: Hasher, tries: u32 },
    Version { number: u64, path: RelPath, replaced: Replaced, chunker: Box<Chunker> },
}

/// What a file has turned out to be.
enum Verdict {
    Sound,
    Damaged(Digest),
    Unreadable(io::Error),
    Changed(&'static str),
    Gone,
}

/// Where a scrub that can be resumed has got to.
const POSITION: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("scrub");
const AT: &str = "position";

/// When the last scrub ended, in seconds since 1970: a counter of the index.
const FINISHED: &str = "scrub finished";

/// How many records are read at a time.
const PAGE: usize = 256;

/// How often a file is read that changes meanwhile.
const TRIES: u32 = 3;

/// How often the position is noted; what a crash takes with it is read again.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// The longest that a step waits for its rate.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a file is marked with that cannot be read.
const UNREADABLE: Digest = Digest::from_bytes([0; 32]);

impl LocalStorage {
    /// Begins to check all that is stored in a served directory. See [`Scrub`].
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] for directories that are not served: nothing is recorded of them.
    pub fn scrub(&self, options: ScrubOptions) -> io::Result<Scrub<'_>> {
        let served = self.served.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let root = self.roots.first().expect("a served directory is a root");
        let done = if options.resume { served.scrub_position() } else { None };
        let done = done.unwrap_or(Position::Files(None));
        Ok(Scrub {
            storage: self,
            served,
            root,
            options,
            at: done.clone(),
            done,
            page: VecDeque::new(),
            checking: None,
            pace: Pace { rate: options.rate, free: Instant::now() },
            saved: Instant::now(),
            report: ScrubReport::default(),
        })
    }

    /// What is known of earlier scrubs.
    ///
    /// # Errors
    ///
    /// As for [`scrub`](Self::scrub).
    pub fn last_scrub(&self) -> io::Result<LastScrub> {
        let served = self.served.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let finished = served.index.counter(FINISHED).map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        Ok(LastScrub { finished, unfinished: served.scrub_position().is_some() })
    }
}

impl Scrub<'_> {
    /// Does the next piece of work; `None` when all is done.
    ///
    /// # Errors
    ///
    /// When there is no index to be read just now. What is wrong with a file is no error.
    pub fn step(&mut self) -> io::Result<Option<ScrubEvent>> {
        if !self.pace.wait() {
            return Ok(Some(ScrubEvent::Progress));
        }
        let found = match self.checking.take() {
            Some(checking) => self.read_on(checking),
            None => match self.begin_next()? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        if self.checking.is_none() {
            self.done.clone_from(&self.at);
            self.save(false);
        }
        let Some(finding) = found else { return Ok(Some(ScrubEvent::Progress)) };
        self.report.found[finding.kind as usize] += 1;
        Ok(Some(ScrubEvent::Found(finding)))
    }

    /// What it has done so far, since it was begun or resumed.
    pub fn report(&self) -> ScrubReport {
        self.report
    }

    /// The file that it is at or was at last.
    pub fn position(&self) -> Option<&RelPath> {
        match (&self.checking, &self.at) {
            (Some(Checking { subject: Subject::Version { path, .. }, .. }), _) => Some(path),
            (_, Position::Files(path)) => path.as_ref(),
            _ => None,
        }
    }

    /// Opens what comes next; `None` at the end.
    fn begin_next(&mut self) -> io::Result<Option<Option<Finding>>> {
        if let Position::Files(after) = &self.at {
            if self.page.is_empty() {
                let page = self.served.index.files(after.as_ref(), PAGE)?;
                self.page = page.into_iter().map(|(path, _)| path).collect();
            }
            match self.page.pop_front() {
                Some(path) => return Ok(Some(self.begin_file(path, 1))),
                None => self.at = Position::Versions(0),
            }
        }
        if let Position::Versions(after) = self.at {
            let next = self.served.history.next_version(after, &self.served.index, &self.storage.limits)?;
            if let Some((number, path, replaced)) = next {
                return Ok(Some(self.begin_version(number, path, replaced)));
            }
            self.at = Position::End;
            self.done = Position::End;
            self.save(true);
        }
        Ok(None)
    }

    fn begin_file(&mut self, path: RelPath, tries: u32) -> Option<Finding> {
        self.at = Position::Files(Some(path.clone()));
        // As it is now: the page may be old.
        let recorded = self.served.index.recorded(&path)?;
        let file = match self.root.file(&path) {
            Ok(file) => file,
            Err(trouble) if trouble.is_absent() => return self.settle(&path, &recorded, None, Verdict::Gone),
            Err(Trouble::System(error)) => {
                return self.settle(&path, &recorded, None, Verdict::Unreadable(error));
            }
            Err(_) => return self.settle(&path, &recorded, None, Verdict::Changed("it is no file any more")),
        };
        let looks = match Looks::of(&file) {
            Ok(looks) => looks,
            Err(error) => return self.settle(&path, &recorded, None, Verdict::Unreadable(error)),
        };
        if looks.len != recorded.looks.len {
            return self.settle(&path, &recorded, Some(&looks), Verdict::Changed("another program has written it"));
        }
        drop_from_memory(&file);
        let hasher = recorded.algorithm.hasher();
        self.checking = Some(Checking { subject: Subject::File { path, recorded, hasher, tries }, file, looks, at: 0 });
        None
    }

    fn begin_version(&mut self, number: u64, path: RelPath, replaced: io::Result<Replaced>) -> Option<Finding> {
        self.at = Position::Versions(number);
        let begin = |replaced: Replaced| -> io::Result<Checking> {
            let looks = Looks::of(&replaced.file)?;
            drop_from_memory(&replaced.file);
            let (cutter, algorithm) = (replaced.chunks.cutter(), replaced.chunks.algorithm());
            let chunker = Box::new(Chunker::new(cutter, algorithm, &self.storage.limits));
            let file = replaced.file.clone();
            let subject = Subject::Version { number, path: path.clone(), replaced, chunker };
            Ok(Checking { subject, file, looks, at: 0 })
        };
        match replaced.and_then(begin) {
            Ok(checking) => {
                self.checking = Some(checking);
                None
            }
            Err(error) => self.throw_away(number, &path, None, &error.to_string()),
        }
    }

    /// Reads the next piece of a file, and judges it at its end.
    fn read_on(&mut self, mut checking: Checking) -> Option<Finding> {
        let read = with_buffer(|buffer| -> io::Result<u64> {
            let most = usize::try_from(checking.looks.len - checking.at).unwrap_or(usize::MAX).min(buffer.len());
            let read = if most == 0 { 0 } else { checking.file.read_at(&mut buffer[..most], checking.at)? };
            match &mut checking.subject {
                Subject::File { hasher, .. } => hasher.update(&buffer[..read]),
                Subject::Version { chunker, .. } => chunker.push(&buffer[..read]).map_err(io::Error::other)?,
            }
            Ok(read as u64)
        });
        match read {
            Ok(read) => {
                checking.at += read;
                self.report.bytes += read;
                self.pace.spend(read);
                if read > 0 && checking.at < checking.looks.len {
                    self.checking = Some(checking);
                    return None;
                }
                drop_from_memory(&checking.file);
                self.judge(checking)
            }
            Err(error) => match checking.subject {
                Subject::File { path, recorded, .. } => {
                    self.settle(&path, &recorded, Some(&checking.looks), Verdict::Unreadable(error))
                }
                Subject::Version { number, path, .. } => self.throw_away(number, &path, None, &error.to_string()),
            },
        }
    }

    fn judge(&mut self, checking: Checking) -> Option<Finding> {
        self.report.files += 1;
        let Checking { subject, file, looks, at } = checking;
        let still = at == looks.len && Looks::of(&file).is_ok_and(|now| looks.under_any_name().still(&now));
        match subject {
            Subject::File { path, tries, .. } if !still => {
                // Who keeps on writing to it changes what is published.
                if tries < TRIES { self.begin_file(path, tries + 1) } else { None }
            }
            Subject::File { path, recorded, hasher, .. } => {
                let verdict = match hasher.finish() {
                    root if root == recorded.root => Verdict::Sound,
                    root if recorded.seems(&looks) => Verdict::Damaged(root),
                    _ => Verdict::Changed("another program has written it"),
                };
                self.settle(&path, &recorded, Some(&looks), verdict)
            }
            Subject::Version { number, path, replaced, chunker } => match chunker.finish() {
                Ok(chunks) if still && chunks == replaced.chunks => None,
                Ok(chunks) => {
                    let what =
                        if chunks.root() == replaced.chunks.root() { "its chunk list differs" } else { "it differs" };
                    self.throw_away(number, &path, Some(chunks.root()), what)
                }
                Err(error) => self.throw_away(number, &path, None, &error.to_string()),
            },
        }
    }

    /// Takes the consequences of a verdict, if it is still about what is there: no commit comes in between. `looks` is how
    /// the file looked that was read.
    fn settle(&self, path: &RelPath, recorded: &Recorded, looks: Option<&Looks>, verdict: Verdict) -> Option<Finding> {
        let index = &self.served.index;
        let _committing = self.served.committing();
        if index.recorded(path).as_ref() != Some(recorded) {
            return None;
        }
        let now = match (self.root.stat(path), &verdict) {
            (Ok(is), _) => is.as_ref().map(Looks::of_stat),
            // What cannot be looked at just now is no news but one.
            (Err(Trouble::System(_)), Verdict::Sound | Verdict::Damaged(_) | Verdict::Changed(_) | Verdict::Gone) => {
                return None;
            }
            (Err(_), _) => None,
        };
        let same = || looks.zip(now).is_none_or(|(looks, now)| looks.under_any_name().still(&now));
        let (kind, found, message) = match verdict {
            Verdict::Sound => {
                if let Some(looks) = looks.filter(|_| same()) {
                    self.served.is_sound(path, recorded, looks);
                }
                return None;
            }
            Verdict::Damaged(found) => {
                if !same() || !self.served.mark(path, recorded, found) {
                    return None;
                }
                let message = format!("it should be {} and is {found}", recorded.root);
                (FindingKind::Damaged, Some(found), message)
            }
            Verdict::Unreadable(error) => {
                if !same() {
                    return None;
                }
                if is_loss(&error) {
                    self.served.mark(path, recorded, UNREADABLE);
                }
                (FindingKind::Unreadable, None, error.to_string())
            }
            Verdict::Changed(message) => {
                if now.is_some_and(|now| recorded.seems(&now)) {
                    return None;
                }
                index.forget(path, recorded);
                (FindingKind::Changed, None, message.to_owned())
            }
            Verdict::Gone => {
                if now.is_some() {
                    return None;
                }
                index.forget(path, recorded);
                (FindingKind::Gone, None, "another program has removed it".to_owned())
            }
        };
        Some(Finding { kind, path: path.clone(), recorded: recorded.root, found, message })
    }

    /// Throws an old version away, if that has not happened meanwhile.
    fn throw_away(&self, number: u64, path: &RelPath, found: Option<Digest>, message: &str) -> Option<Finding> {
        let recorded = self.served.history.throw_away(number, &self.served.index)?;
        let message = format!("old version {number}, thrown away: {message}");
        Some(Finding { kind: FindingKind::OldVersion, path: path.clone(), recorded, found, message })
    }

    /// Notes how far it has got, now and then; at the end that it has ended.
    fn save(&mut self, ended: bool) {
        if ended {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            self.served.index.note_durably(|transaction| {
                transaction.open_table(POSITION)?.remove(AT)?;
                set_counter(transaction, FINISHED, now)
            });
        } else if self.options.resume && self.saved.elapsed() >= SAVE_EVERY {
            self.keep_position();
        }
    }

    fn keep_position(&mut self) {
        self.saved = Instant::now();
        let bytes = self.done.encode();
        self.served.index.note(|transaction| {
            transaction.open_table(POSITION)?.insert(AT, &bytes[..])?;
            Ok(())
        });
    }
}

impl Drop for Scrub<'_> {
    fn drop(&mut self) {
        // A file that is half read is read again.
        if self.options.resume && self.done != Position::End {
            self.keep_position();
        }
    }
}

impl Served {
    /// The fault that a peer is told instead of getting this file: it should have another content.
    pub(super) fn check(&self, root: &Root, path: &RelPath, file: &OpenedFile) -> Result<(), StorageFault> {
        let Some(recorded) = self.index.recorded(path) else { return Ok(()) };
        let looks = opened(&file.file)?.looks();
        if !recorded.seems(&looks) {
            return Ok(());
        }
        // By another digest it is not read once more.
        if file.chunks.algorithm() != recorded.algorithm {
            return match self.index.damaged(path) {
                Some(_) => Err(damaged(path, &recorded)),
                None => Ok(()),
            };
        }
        let found = file.chunks.root();
        let is_sound = found == recorded.root;
        let marked = self.index.damaged(path).map(|damaged| damaged.found);
        if marked != (!is_sound).then_some(found) {
            let _committing = self.committing();
            let now = root.stat(path).ok().flatten().as_ref().map(Looks::of_stat);
            let still = now.is_some_and(|now| looks.under_any_name().still(&now));
            if still && self.index.recorded(path) == Some(recorded) {
                if is_sound {
                    self.is_sound(path, &recorded, &looks);
                } else {
                    self.mark(path, &recorded, found);
                }
            }
        }
        if is_sound { Ok(()) } else { Err(damaged(path, &recorded)) }
    }

    /// What a peer is told of a file that cannot be described: that it is damaged, when it is marked so.
    pub(super) fn explain(&self, path: &RelPath, fault: StorageFault) -> StorageFault {
        let marked = if fault.kind == FaultKind::Other { self.index.damaged(path) } else { None };
        marked.map_or(fault, |marked| damaged(path, &marked.recorded))
    }

    /// A file is what was published: its mark goes, and its record follows it to another disk or time. To be called under
    /// the lock of a commit.
    fn is_sound(&self, path: &RelPath, recorded: &Recorded, looks: &Looks) {
        if self.index.damaged(path).is_some() || !recorded.looks.under_any_name().still(looks) {
            self.index.publish(path, &Recorded { looks: *looks, ..*recorded });
        }
    }

    /// Marks a file, unless it is; false when that was not possible. To be called under the lock of a commit.
    fn mark(&self, path: &RelPath, recorded: &Recorded, found: Digest) -> bool {
        let marked = self.index.damaged(path).is_some_and(|damaged| damaged.found == found);
        marked || self.index.mark_damaged(path, recorded, found)
    }

    fn scrub_position(&self) -> Option<Position> {
        let bytes: Option<Option<Vec<u8>>> = self
            .index
            .read(|transaction| Ok(transaction.open_table(POSITION)?.get(AT)?.map(|bytes| bytes.value().to_vec())));
        Position::decode(&bytes??)
    }
}

/// Makes the table that is not there.
#[allow(clippy::result_large_err)]
pub(super) fn open_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(POSITION)?;
    Ok(())
}

fn damaged(path: &RelPath, recorded: &Recorded) -> StorageFault {
    let current = Version { generation: recorded.generation, root: recorded.root };
    let message = "the stored file is damaged; whoever has it may push it again";
    fault(FaultKind::Damaged, path, message).with_current(current)
}

impl Recorded {
    /// True when a file looks as it did when it was published, whatever names it got and whatever its disk is called now.
    fn seems(&self, now: &Looks) -> bool {
        (self.looks.inode, self.looks.len, self.looks.modified) == (now.inode, now.len, now.modified)
    }
}

impl Position {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Files(None) | Self::End => vec![0],
            Self::Files(Some(path)) => [&[1], path.as_bytes()].concat(),
            Self::Versions(number) => [&[2][..], &number.to_le_bytes()].concat(),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (0, []) => Some(Self::Files(None)),
            (1, path) => Some(Self::Files(Some(RelPath::new(path.to_vec()).ok()?))),
            (2, number) => Some(Self::Versions(u64::from_le_bytes(number.try_into().ok()?))),
            _ => None,
        }
    }
}

/// True when an error says that the disk does not give the bytes back, rather than that we cannot ask just now.
fn is_loss(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let says = |errno: &Errno| error.raw_os_error() == Some(errno.raw_os_error());
    // The last two are what file systems say whose own structures or sums do not add up.
    [Errno::IO, Errno::NODATA, Errno::BADMSG].iter().any(says) || is_corrupt(error)
}

#[cfg(target_os = "linux")]
fn is_corrupt(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::UCLEAN.raw_os_error())
}

#[cfg(not(target_os = "linux"))]
fn is_corrupt(_: &io::Error) -> bool {
    false
}

/// A rate that is kept to: never more at a time than one piece, and nothing is saved up.
#[derive(Debug)]
struct Pace {
    rate: Option<u64>,
    free: Instant,
}

impl Pace {
    /// Waits for the time of the next piece, but not for long; false when it has not come.
    fn wait(&self) -> bool {
        let wait = self.free.saturating_duration_since(Instant::now());
        thread::sleep(wait.min(PATIENCE));
        wait <= PATIENCE
    }

    fn spend(&mut self, bytes: u64) {
        if let Some(rate) = self.rate {
            let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
            let now = Instant::now();
            self.free = self.free.max(now).checked_add(takes).unwrap_or(now);
        }
    }
}

/// Has the system forget what it holds of a file, so that the disk is asked, and so that what others read stays in memory.
fn drop_from_memory(file: &AnyFile) {
    #[cfg(target_os = "linux")]
    if let Some(file) = file.as_system_file() {
        // It is advice: a system that does not take it reads from memory.
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

#[cfg(test)]
mod tests;
