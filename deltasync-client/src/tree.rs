//! A tree on its way: its own transfer, those of its large files, and the look whether all is well.
//!
//! The transfer of a tree makes all of it but the files that are too large to travel with it, its members. Which of them
//! the receiver lacks, the sender learns from [`EventKind::Differs`] and the receiver from [`EventKind::Made`]. Each of them
//! gets a transfer of its own, as many at a time as a session runs: a sender begins at once, beside the tree's, unless a
//! condition has to hold first, a receiver when the tree's has ended.
//!
//! The tree's own transfer waits for those beside it, and then gives directories their times: where all of them went well,
//! and each still looks as it was listed, that was all. What ends after the tree's own gives its directory another time,
//! in a pull the source may have changed, and what has failed may have been in the way of something: then the tree is
//! compared once more, which costs little where little differs, until no member is left to transfer.
//!
//! A member that has failed is not tried again, unless what the tree's own transfer makes may have been in its way; it is an
//! error as long as the comparison names it. What changes faster than it can be sent ends as such after [`ROUNDS`]
//! comparisons; a small file that does, or that cannot be read, is left out, and named ([`Omissions`]).
//!
//! Where the tree is to become visible as one change, its own transfer fails as long as members are missing, so all of them
//! come after it, and a comparison after them.
//!
//! Invariant: no number of the progress it tells ever becomes less.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use deltasync_core::{ByteLen, InvalidPath, Offset, RelPath};
use deltasync_io::{TreeMember, Walks, files_made, files_to_send, members_to_fetch, members_to_send};
use deltasync_proto::{
    Command, Condition, EventKind, Extra, FaultKind, Outcome, Place, Progress, RefusalCode, TransferError, TreeOptions,
};

use crate::omissions::Omissions;
use crate::route::Start;
use crate::{ClientError, FileReport, Options, Shown, TreeProgress, TreeReport, Update, UsageError};

/// How often a tree is compared at most.
const ROUNDS: u32 = 3;

/// Between which directories a tree is transferred.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// From ours to the peer's.
    Push {
        source: Place,
        /// What the source is, here.
        directory: PathBuf,
        path: RelPath,
    },
    /// From the peer's to ours.
    Pull { path: RelPath, place: Place },
}

impl Way {
    /// The tree at our end.
    fn place(&self) -> &Place {
        match self {
            Self::Push { source: place, .. } | Self::Pull { place, .. } => place,
        }
    }
}

/// The transfer of a tree under one number of the verb, those of its members under others.
#[derive(Debug)]
pub(crate) struct Tree {
    index: usize,
    way: Way,
    options: TreeOptions,
    condition: Condition,
    /// How far our end has listed it.
    walks: Walks,
    /// Source and destination, as they are shown.
    shown: (String, String),
    /// It was first taken for a file, and this came of it.
    no_file: Option<TransferError>,
    /// Which comparison it is, from 1; 0 before the first.
    round: u32,
    /// The tree's own transfer of this round.
    own: Own,
    /// How far that has got.
    own_progress: Progress,
    /// The members that this comparison names.
    named: BTreeSet<RelPath>,
    /// Those of them that wait for a transfer.
    waiting: Vec<TreeMember>,
    /// One of them got a transfer.
    has_moved: bool,
    /// What one of them has come to is not what the tree's own transfer has ended with.
    is_late: bool,
    /// The tree's own transfer does not wait for members any more.
    completed: bool,
    /// Those that are on their way, by the verb's number.
    moving: BTreeMap<usize, Moving>,
    failed: BTreeMap<RelPath, ClientError>,
    omissions: Omissions,
    /// Members that are done, and their bytes.
    done: (usize, ByteLen),
    /// As what each of them is done.
    moved: BTreeMap<RelPath, TreeMember>,
    /// The last of its own transfers, with what all transfers together have moved.
    outcome: Outcome,
    first: First,
    /// Where each small file ends in the archive that is to be sent.
    small: Vec<Offset>,
    small_done: u64,
    progress: TreeProgress,
    told: Option<TreeProgress>,
}

/// What the first round has to move, and has moved.
#[derive(Clone, Copy, Debug, Default)]
struct First {
    own_len: Option<ByteLen>,
    own_made: ByteLen,
    members_len: Option<ByteLen>,
    members_made: ByteLen,
}

/// A member that is on its way.
#[derive(Debug)]
struct Moving {
    member: TreeMember,
    /// How far it has got.
    made: ByteLen,
    /// It began while the tree's own transfer was on its way.
    is_beside: bool,
}

/// How a tree's own transfer of a round has gone.
#[derive(Debug)]
enum Own {
    Moving,
    Compared,
    Failed(TransferError),
}

/// What became of an event.
#[derive(Debug)]
pub(crate) enum Step {
    /// It goes on; these are to be started now.
    Start(Start),
    /// The tree has ended.
    Ended(Result<Outcome, TransferError>),
}

impl Tree {
    /// A tree among the sources. Its own transfer has the number `index`.
    pub(crate) fn new(index: usize, way: Way, options: &Options, walks: Walks, shown: (String, String)) -> Self {
        Self {
            index,
            way,
            options: options.tree.clone(),
            condition: options.condition,
            walks,
            shown,
            no_file: None,
            round: 0,
            own: Own::Moving,
            own_progress: Progress::default(),
            named: BTreeSet::new(),
            waiting: Vec::new(),
            has_moved: false,
            is_late: false,
            completed: false,
            moving: BTreeMap::new(),
            failed: BTreeMap::new(),
            omissions: Omissions::default(),
            done: (0, ByteLen::ZERO),
            moved: BTreeMap::new(),
            outcome: Outcome::default(),
            first: First::default(),
            small: Vec::new(),
            small_done: 0,
            progress: TreeProgress::default(),
            told: None,
        }
    }

    /// True once the source is known to be one.
    pub(crate) fn has_begun(&self) -> bool {
        self.round > 0
    }

    /// Compares the tree.
    pub(crate) fn begin(&mut self) -> (usize, Command) {
        self.round += 1;
        (self.has_moved, self.is_late) = (false, false);
        self.compare()
    }

    fn compare(&mut self) -> (usize, Command) {
        (self.own, self.own_progress) = (Own::Moving, Progress::default());
        self.forget_named();
        self.omissions.forget();
        let options = self.options.clone();
        // What is replaced from the second round on is what the first has made, if that is visible.
        let first = self.round == 1 || options.atomic;
        let condition = if first { self.condition } else { Condition::Any };
        let command = match self.way.clone() {
            Way::Push { source, path, .. } => Command::PushTree { source, path, options, condition },
            Way::Pull { path, place } => Command::PullTree { path, place, options, condition },
        };
        (self.index, command)
    }

    /// Begins where the source was taken for a file, if what came of it may mean that it is none.
    pub(crate) fn begin_after(&mut self, ended: &EventKind) -> Option<(usize, Command)> {
        let EventKind::Ended(Err(error)) = ended else { return None };
        if !is_wrong_kind(error) {
            return None;
        }
        self.no_file = Some(error.clone());
        Some(self.begin())
    }

    /// Takes in what happened to its own transfer, or to that of a member; `next` is the next number that is free.
    pub(crate) fn take(
        &mut self,
        number: usize,
        kind: EventKind,
        next: &mut usize,
        report: &mut impl FnMut(Update),
    ) -> Step {
        // That it is a tree is told first.
        self.tell(report);
        let step = match number == self.index {
            true => self.on_own(kind, next, report),
            false => self.on_member(number, kind, next, report),
        };
        self.count();
        self.tell(report);
        step
    }

    /// Tells what our end has looked at since it was told last.
    pub(crate) fn look(&mut self, report: &mut impl FnMut(Update)) {
        self.count();
        self.tell(report);
    }

    /// Where it went, and what became of it beyond the outcome.
    pub(crate) fn into_report(self) -> (String, TreeReport) {
        let (source, target) = self.shown;
        let omitted = self.omissions.into_errors(self.options.extra != Extra::Keep);
        let failed = self.failed.into_iter().chain(omitted);
        let failed = failed.map(|(path, error)| failed_below(&source, &target, &path, error)).collect();
        (target, TreeReport { members: self.done.0, rounds: self.round, failed })
    }

    fn on_own(&mut self, kind: EventKind, next: &mut usize, report: &mut impl FnMut(Update)) -> Step {
        match kind {
            EventKind::Differs { tree, ranges } => {
                self.name_small(files_to_send(&tree, &ranges));
                self.name(members_to_send(&tree, &ranges));
                self.completed = false;
                // Where all becomes visible as one change, what they come into is made by the tree's own transfer.
                let at_once = !self.options.atomic && (self.round > 1 || self.condition == Condition::Any);
                // Else they come after it.
                let mut start = if at_once { self.start_members(next) } else { Start::new() };
                start.extend(self.complete());
                return Step::Start(start);
            }
            EventKind::Omits(omits) => self.omissions.take(omits),
            EventKind::Made { stage } => {
                let made = files_made(&stage);
                self.small_done = self.small_done.max(made);
                self.name(members_to_fetch(&stage));
            }
            EventKind::Ended(Ok(outcome)) => return self.on_compared(outcome, next),
            EventKind::Ended(Err(error)) => return self.on_failed(error, next),
            kind => {
                match &kind {
                    EventKind::Started { .. } | EventKind::Restarted => self.forget_named(),
                    EventKind::Progress(progress) => {
                        self.own_progress = *progress;
                        if self.round == 1 {
                            self.first.own_len.get_or_insert(progress.total);
                            self.first.own_made = self.first.own_made.max(progress.made());
                        }
                    }
                    _ => {}
                }
                report(Update::File { index: self.index, kind });
            }
        }
        Step::Start(Vec::new())
    }

    fn name_small(&mut self, ends: Vec<Offset>) {
        if self.round == 1 && self.small.is_empty() {
            self.small = ends;
        }
    }

    fn name(&mut self, members: Vec<TreeMember>) {
        if self.round == 1 && self.first.members_len.is_none() {
            self.first.members_len = Some(members.iter().map(|member| member.len).sum());
            self.progress.members = members.len() as u64;
        }
        self.named = members.iter().map(|member| member.path.clone()).collect();
        self.waiting = members;
    }

    fn forget_named(&mut self) {
        self.named.clear();
        self.waiting.clear();
    }

    /// Its own transfer has failed. Where that is for the sake of some entries, all other members can be transferred.
    fn on_failed(&mut self, error: TransferError, next: &mut usize) -> Step {
        // It is neither, or the destination cannot be: the first attempt said which.
        if let Some(first) = self.no_file.take().filter(|_| is_wrong_kind(&error)) {
            return Step::Ended(Err(first));
        }
        if !is_of_entries(&error) {
            self.waiting.clear();
        } else if self.options.atomic {
            // It says so as long as members are missing, and has moved what it has.
            self.outcome.progress.literal += self.own_progress.literal;
            self.outcome.progress.wire += self.own_progress.wire;
        }
        self.own = Own::Failed(error);
        self.go_on(next)
    }

    /// Its own transfer has ended well.
    fn on_compared(&mut self, outcome: Outcome, next: &mut usize) -> Step {
        self.no_file = None;
        self.add(&outcome);
        (self.outcome.len, self.outcome.root) = (outcome.len, outcome.root);
        self.outcome.generation = outcome.generation.or(self.outcome.generation);
        if self.round == 1 {
            self.outcome.known = outcome.known;
            self.first.own_len.get_or_insert(outcome.len);
            self.first.own_made = outcome.len;
            self.first.members_len.get_or_insert(ByteLen::ZERO);
        }
        self.own = Own::Compared;
        self.go_on(next)
    }

    /// Its own transfer of this round has ended: its members come next, then another round, or nothing.
    fn go_on(&mut self, next: &mut usize) -> Step {
        let start = self.start_members(next);
        if !start.is_empty() || !self.moving.is_empty() {
            return Step::Start(start);
        }
        // What is not named any more is there by now, or gone from the source.
        let named = &self.named;
        self.failed.retain(|path, _| named.contains(path));
        if self.leave_out() {
            return Step::Start(vec![self.compare()]);
        }
        match &self.own {
            Own::Failed(error) if !self.has_moved || !is_of_entries(error) => Step::Ended(Err(error.clone())),
            Own::Compared if !self.is_late => Step::Ended(Ok(self.total())),
            Own::Moving | Own::Compared | Own::Failed(_) => Step::Start(vec![self.begin()]),
        }
    }

    /// Where its own transfer has failed since small files cannot be read as they were listed: leaves these out.
    fn leave_out(&mut self) -> bool {
        let Own::Failed(error) = &self.own else { return false };
        self.omissions.leave_out_after(error, &mut self.options.scope.filter)
    }

    /// The transfers of the members that wait, but for those that have failed already.
    fn start_members(&mut self, next: &mut usize) -> Start {
        let moving: BTreeSet<RelPath> = self.moving.values().map(|moving| moving.member.path.clone()).collect();
        let mut start = Vec::new();
        for member in std::mem::take(&mut self.waiting) {
            // One that is done is named again where the receiver's list does not show it: it takes no part there.
            let is_done = self.moved.get(&member.path) == Some(&member);
            if is_done || moving.contains(&member.path) || self.failed.contains_key(&member.path) {
                continue;
            }
            if self.round == ROUNDS {
                self.failed.insert(member.path, TransferError::Changed { times: ROUNDS }.into());
                continue;
            }
            match self.member_command(&member) {
                Ok(command) => {
                    start.push((*next, command));
                    let is_beside = matches!(self.own, Own::Moving);
                    self.moving.insert(*next, Moving { member, made: ByteLen::ZERO, is_beside });
                    *next += 1;
                }
                Err(cause) => {
                    let path = Shown(member.path.as_bytes()).to_string();
                    self.failed.insert(member.path, UsageError::Path { path, cause }.into());
                }
            }
        }
        self.has_moved |= !start.is_empty();
        let known = self.progress.members_done + self.moving.len() as u64;
        self.progress.members = self.progress.members.max(known);
        start
    }

    fn member_command(&self, member: &TreeMember) -> Result<Command, InvalidPath> {
        let (attributes, atomic) = (member.attributes, self.options.atomic);
        let join = |path: &RelPath| path.below(&member.path);
        let at = |place: &Place| Ok(Place { root: place.root, path: join(&place.path)? });
        Ok(match &self.way {
            Way::Push { source, path, .. } => {
                Command::PushMember { source: at(source)?, path: join(path)?, attributes, atomic }
            }
            Way::Pull { path, place } => {
                Command::PullMember { path: join(path)?, place: at(place)?, attributes, atomic }
            }
        })
    }

    fn on_member(&mut self, number: usize, kind: EventKind, next: &mut usize, report: &mut impl FnMut(Update)) -> Step {
        let Some(Moving { member, made, .. }) = self.moving.get_mut(&number) else { return Step::Start(Vec::new()) };
        let path = member.path.clone();
        let reached = match &kind {
            EventKind::Progress(progress) => progress.made().min(member.len),
            EventKind::Ended(_) => member.len,
            _ => *made,
        };
        if self.round == 1 && reached > *made {
            self.first.members_made += reached - *made;
            *made = reached;
        }
        report(Update::Member { index: self.index, path, kind: kind.clone() });
        if let EventKind::Ended(result) = kind
            && let Some(Moving { member, is_beside, .. }) = self.moving.remove(&number)
        {
            self.progress.members_done += 1;
            let in_time = result.is_ok() && matches!(self.own, Own::Moving) && self.is_as_listed(&member);
            self.is_late |= !in_time;
            match result {
                Ok(outcome) => {
                    self.done = (self.done.0 + 1, self.done.1 + outcome.len);
                    self.add(&outcome);
                    self.moved.insert(member.path.clone(), member);
                }
                // Its directory may not have been made yet, or something have stood in its place.
                Err(_) if is_beside && !self.has_failed() => self.waiting.push(member),
                Err(error) => drop(self.failed.insert(member.path, error.into())),
            }
            if !matches!(self.own, Own::Moving) && self.moving.is_empty() {
                return self.go_on(next);
            }
        }
        Step::Start(self.complete())
    }

    /// Lets the tree's own transfer go on, once, when nothing is on its way that it waits for.
    fn complete(&mut self) -> Start {
        let is_due = matches!(self.own, Own::Moving) && self.moving.is_empty() && !self.completed;
        self.completed |= is_due;
        is_due.then_some((self.index, Command::Complete)).into_iter().collect()
    }

    /// True when what has come of a member is what was listed of it.
    fn is_as_listed(&self, member: &TreeMember) -> bool {
        match &self.way {
            Way::Push { directory, .. } => is_still_in(directory, member).unwrap_or(false),
            // Only the peer knows.
            Way::Pull { .. } => true,
        }
    }

    /// Whether its own transfer has failed as a whole.
    fn has_failed(&self) -> bool {
        match &self.own {
            Own::Moving | Own::Compared | Own::Failed(TransferError::Changed { .. }) => false,
            Own::Failed(error) => !is_of_entries(error) && !self.omissions.may_explain(error),
        }
    }

    /// Adds what a transfer has moved.
    fn add(&mut self, outcome: &Outcome) {
        let all = &mut self.outcome;
        all.progress.literal += outcome.progress.literal;
        all.progress.wire += outcome.progress.wire;
        all.repairs += outcome.repairs;
    }

    /// The outcome of all transfers together: what was not sent was there.
    fn total(&self) -> Outcome {
        let mut outcome = self.outcome;
        outcome.len += self.done.1;
        let literal = outcome.progress.literal.min(outcome.len);
        outcome.progress = Progress { total: outcome.len, copied: outcome.len - literal, literal, ..outcome.progress };
        outcome
    }

    fn tell(&mut self, report: &mut impl FnMut(Update)) {
        if self.told != Some(self.progress) {
            self.told = Some(self.progress);
            report(Update::Tree { index: self.index, progress: self.progress });
        }
    }

    fn count(&mut self) {
        let First { own_len, own_made, members_len, members_made } = self.first;
        let progress = &mut self.progress;
        if let (None, Some(own), Some(members)) = (progress.total, own_len, members_len) {
            progress.total = Some(own + members);
        }
        let made = (own_made + members_made).min(progress.total.unwrap_or(ByteLen::new(u64::MAX)));
        progress.made = progress.made.max(made);
        let is_made = |end: &Offset| end.to_len() <= own_made;
        self.small_done = self.small_done.max(self.small.partition_point(is_made) as u64);
        progress.files_done = progress.files_done.max(self.small_done + progress.members_done);
        let small = self.small_done.max(self.small.len() as u64);
        progress.files = progress.files.max(small + progress.members).max(progress.files_done);
        let looked = self.walks.walked(self.way.place());
        // From the second comparison on it is listed again.
        progress.looked.entries = progress.looked.entries.max(looked.entries);
        progress.looked.len = progress.looked.len.max(looked.len);
    }
}

fn is_wrong_kind(error: &TransferError) -> bool {
    matches!(error, TransferError::Storage(fault) if fault.kind == FaultKind::WrongKind)
}

/// Whether the storage failed for the sake of some entries: it names them, and made all others. Or one has changed of what it
/// was to copy from: as a small file does in whose place a large one came beside the tree.
pub(crate) fn is_of_entries(error: &TransferError) -> bool {
    match error {
        TransferError::Storage(fault) => matches!(fault.kind, FaultKind::Other | FaultKind::Changed),
        TransferError::Refused(refusal) => matches!(refusal.code, RefusalCode::Storage | RefusalCode::Changed),
        _ => false,
    }
}

/// True when a file below the directory of its tree looks as it was listed.
fn is_still_in(directory: &Path, member: &TreeMember) -> io::Result<bool> {
    let is = directory.join(OsStr::from_bytes(member.path.as_bytes())).symlink_metadata()?;
    let TreeMember { len, attributes, .. } = member;
    let same_time = attributes.modified() == (is.mtime(), is.mtime_nsec() as u32);
    Ok(is.is_file() && is.len() == len.get() && is.mode() & 0o777 == u32::from(attributes.mode()) & 0o777 && same_time)
}

/// What is at `path` below a directory that is shown like this.
pub(crate) fn below(directory: &str, path: &RelPath) -> String {
    let slash = if directory.ends_with('/') { "" } else { "/" };
    format!("{directory}{slash}{}", Shown(path.as_bytes()))
}

/// What failed at `path` below two directories that are shown like this.
pub(crate) fn failed_below(source: &str, target: &str, path: &RelPath, error: ClientError) -> FileReport {
    FileReport { result: Err(error), ..FileReport::new(below(source, path), below(target, path)) }
}

#[cfg(test)]
mod tests {
    use deltasync_core::{Digest, Generation};
    use deltasync_proto::{Omits, Omitted, Refusal, RootId, StorageFault, Why};

    use super::*;

    const OWN: usize = 3;
    /// Stands for what lets the tree's own transfer go on.
    const COMPLETE: usize = 0;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("valid")
    }

    fn tree() -> Tree {
        let place = Place { root: RootId::new(2), path: RelPath::ROOT };
        let way = Way::Push { source: place, directory: "nowhere".into(), path: path("at") };
        Tree::new(OWN, way, &Options::default(), Walks::default(), ("src/".into(), "dst".into()))
    }

    fn member(name: &str, len: u64) -> TreeMember {
        let attributes = deltasync_core::Attributes::new(0o644, 7, 8).expect("in range");
        TreeMember { path: path(name), len: ByteLen::new(len), attributes }
    }

    fn outcome(len: u64, literal: u64) -> Outcome {
        let (len, literal) = (ByteLen::new(len), ByteLen::new(literal));
        let progress = Progress { total: len, copied: len - literal, literal, wire: literal };
        let (root, generation) = (Digest::from_bytes([len.get() as u8; 32]), Some(Generation::new(1)));
        Outcome { len, root, generation, progress, ..Outcome::default() }
    }

    fn ended(len: u64, literal: u64) -> EventKind {
        EventKind::Ended(Ok(outcome(len, literal)))
    }

    fn made(total: u64, made: u64) -> EventKind {
        let len = ByteLen::new;
        EventKind::Progress(Progress { total: len(total), copied: len(made), ..Progress::default() })
    }

    /// A tree that is told events, and all it told of its progress.
    struct Told {
        tree: Tree,
        next: usize,
        progress: Vec<TreeProgress>,
    }

    impl Told {
        fn new() -> Self {
            let mut tree = tree();
            assert!(matches!(tree.begin(), (OWN, Command::PushTree { condition: Condition::Any, .. })));
            Self { tree, next: 10, progress: Vec::new() }
        }

        /// The numbers that are started, or how it ended.
        fn take(&mut self, number: usize, kind: EventKind) -> Result<Vec<usize>, Result<Outcome, TransferError>> {
            let progress = &mut self.progress;
            let mut report = |update| {
                if let Update::Tree { progress: told, .. } = update {
                    progress.push(told);
                }
            };
            match self.tree.take(number, kind, &mut self.next, &mut report) {
                Step::Start(start) => Ok(start
                    .into_iter()
                    .map(|(number, command)| if command == Command::Complete { COMPLETE } else { number })
                    .collect()),
                Step::Ended(result) => Err(result),
            }
        }

        #[track_caller]
        fn check_progress(&self) {
            for two in self.progress.windows(2) {
                let (a, b) = (two[0], two[1]);
                assert!(a.made <= b.made && a.members <= b.members && a.members_done <= b.members_done, "{two:?}");
                assert!(a.files <= b.files && a.files_done <= b.files_done, "{two:?}");
                assert!(a.total.is_none() || a.total == b.total, "{two:?}");
            }
            assert!(self.progress.iter().all(|told| told.total.is_none_or(|total| told.made <= total)));
        }
    }

    #[test]
    fn members_follow_the_tree_and_then_it_is_compared_again() {
        let mut told = Told::new();
        assert_eq!(told.take(OWN, made(100, 40)), Ok(vec![]));
        told.tree.name(vec![member("large", 1000), member("sub/larger", 5000)]);
        assert_eq!(told.take(OWN, made(100, 60)), Ok(vec![]));
        assert_eq!(told.take(OWN, ended(100, 30)), Ok(vec![10, 11]));
        assert_eq!(told.take(11, made(5000, 2000)), Ok(vec![]));
        assert_eq!(told.take(11, ended(5000, 50)), Ok(vec![]));
        // It is tried again from its beginning.
        assert_eq!(told.take(10, made(1000, 500)), Ok(vec![]));
        assert_eq!(told.take(10, made(1000, 100)), Ok(vec![]));
        assert_eq!(told.take(10, ended(1000, 7)), Ok(vec![OWN]));
        assert_eq!(told.take(OWN, made(100, 0)), Ok(vec![]));
        let Err(Ok(all)) = told.take(OWN, ended(100, 3)) else { panic!("it is over") };
        assert_eq!((all.len.get(), all.progress.literal.get(), all.progress.copied.get()), (6100, 90, 6010));
        assert_eq!(all.root, Digest::from_bytes([100; 32]));
        told.check_progress();
        let last = told.progress.last().expect("it told");
        assert_eq!((last.total, last.made), (Some(ByteLen::new(6100)), ByteLen::new(6100)));
        let (target, report) = told.tree.into_report();
        assert_eq!((target.as_str(), report.members, report.rounds, report.failed.len()), ("dst", 2, 2, 0));
    }

    #[test]
    fn members_that_begin_beside_the_tree_are_waited_for() {
        let mut told = Told::new();
        told.tree.name(vec![member("short", 1000), member("long", 5000)]);
        assert_eq!(told.tree.start_members(&mut told.next).len(), 2);
        assert_eq!(told.take(10, ended(1000, 10)), Ok(vec![]), "the tree's own transfer goes on");
        assert_eq!(told.take(OWN, ended(100, 100)), Ok(vec![]), "a member goes on");
        assert_eq!(told.take(11, ended(5000, 20)), Ok(vec![OWN]));
        let Err(Ok(all)) = told.take(OWN, ended(100, 1)) else { panic!("it is over") };
        assert_eq!(all.progress.literal.get(), 131);
        told.check_progress();
    }

    /// Two files in a directory, as members of it.
    fn two_files() -> (tempfile::TempDir, Vec<TreeMember>) {
        let directory = tempfile::TempDir::new().expect("made");
        let listed = |name: &str| {
            std::fs::write(directory.path().join(name), [7; 1000]).expect("written");
            let is = std::fs::metadata(directory.path().join(name)).expect("there");
            let (mode, nanoseconds) = ((is.mode() & 0o7777) as u16, is.mtime_nsec() as u32);
            let attributes = deltasync_core::Attributes::new(mode, is.mtime(), nanoseconds).expect("in range");
            TreeMember { attributes, ..member(name, 1000) }
        };
        let members = ["a", "b"].map(listed).into();
        (directory, members)
    }

    #[test]
    fn where_all_members_went_beside_the_tree_it_is_not_compared_again() {
        for changes in [false, true] {
            let (directory, members) = two_files();
            let mut told = Told::new();
            if let Way::Push { directory: of_way, .. } = &mut told.tree.way {
                *of_way = directory.path().to_owned();
            }
            told.tree.name(members);
            assert_eq!(told.tree.start_members(&mut told.next).len(), 2);
            assert_eq!(told.take(11, ended(1000, 10)), Ok(vec![]));
            if changes {
                std::fs::write(directory.path().join("a"), [8; 1000]).expect("written");
                let file = std::fs::File::options().write(true).open(directory.path().join("a")).expect("there");
                file.set_modified(std::time::UNIX_EPOCH).expect("set");
            }
            assert_eq!(told.take(10, ended(1000, 10)), Ok(vec![COMPLETE]), "once");
            match told.take(OWN, ended(100, 1)) {
                Err(Ok(all)) => assert_eq!((changes, all.progress.literal.get(), all.len.get()), (false, 21, 2100)),
                other => assert_eq!((changes, other), (true, Ok(vec![OWN])), "what is there is not what was listed"),
            }
            told.check_progress();
        }
    }

    #[test]
    fn a_member_that_fails_beside_the_tree_is_tried_again_after_it() {
        let denied = || EventKind::Ended(Err(StorageFault::new(FaultKind::WrongKind, "in the way").into()));
        let mut told = Told::new();
        told.tree.name(vec![member("dir/new", 1000)]);
        assert_eq!(told.tree.start_members(&mut told.next).len(), 1);
        assert_eq!(told.take(10, denied()), Ok(vec![COMPLETE]));
        assert_eq!(told.take(OWN, ended(100, 100)), Ok(vec![11]));
        assert_eq!(told.take(11, denied()), Ok(vec![OWN]));
        told.tree.name(vec![member("dir/new", 1000)]);
        assert_eq!(told.tree.start_members(&mut told.next).len(), 0, "twice is enough");
        assert!(matches!(told.take(OWN, ended(100, 0)), Err(Ok(_))));
        told.check_progress();
        let (_, report) = told.tree.into_report();
        assert_eq!(report.failed.len(), 1);
    }

    #[test]
    fn a_member_that_began_beside_the_tree_and_fails_after_it_is_tried_again_too() {
        let denied = || EventKind::Ended(Err(StorageFault::new(FaultKind::WrongKind, "in the way").into()));
        let mut told = Told::new();
        told.tree.name(vec![member("late", 1000)]);
        assert_eq!(told.tree.start_members(&mut told.next).len(), 1);
        assert_eq!(told.take(OWN, ended(100, 100)), Ok(vec![]), "a member goes on");
        assert_eq!(told.take(10, denied()), Ok(vec![11]));
        assert_eq!(told.take(11, ended(1000, 1000)), Ok(vec![OWN]));
        assert!(matches!(told.take(OWN, ended(100, 0)), Err(Ok(_))));
        told.check_progress();
        assert_eq!(told.tree.into_report().1.failed.len(), 0);
    }

    #[test]
    fn where_the_whole_tree_fails_what_moves_beside_it_is_waited_for() {
        let lost = || EventKind::Ended(Err(TransferError::Cancelled));
        let mut told = Told::new();
        told.tree.name(vec![member("a", 1000), member("b", 1000)]);
        assert_eq!(told.tree.start_members(&mut told.next).len(), 2);
        assert_eq!(told.take(10, lost()), Ok(vec![]));
        assert_eq!(told.take(OWN, lost()), Ok(vec![]));
        assert_eq!(told.take(11, ended(1000, 1)), Err(Err(TransferError::Cancelled)));
    }

    #[test]
    fn what_has_failed_counts_only_while_it_is_named() {
        let mut told = Told::new();
        told.tree.name(vec![member("gone", 1000), member("denied", 1000)]);
        assert_eq!(told.take(OWN, ended(100, 100)), Ok(vec![10, 11]));
        for number in [10, 11] {
            let _ = told.take(number, EventKind::Ended(Err(StorageFault::new(FaultKind::Denied, "no").into())));
        }
        told.tree.name(vec![member("denied", 1000)]);
        assert!(matches!(told.take(OWN, ended(100, 0)), Err(Ok(_))), "it is not tried again");
        let (_, report) = told.tree.into_report();
        let failed: Vec<_> = report.failed.iter().map(|file| (file.source.as_str(), file.target.as_str())).collect();
        assert_eq!(failed, [("src/denied", "dst/denied")]);
    }

    #[test]
    fn what_the_receiver_does_not_list_is_sent_once() {
        let mut told = Told::new();
        told.tree.name(vec![member("excluded-there", 1000)]);
        assert_eq!(told.take(OWN, ended(100, 100)), Ok(vec![10]));
        assert_eq!(told.take(10, ended(1000, 1000)), Ok(vec![OWN]));
        told.tree.name(vec![member("excluded-there", 1000)]);
        assert!(matches!(told.take(OWN, ended(100, 0)), Err(Ok(_))), "it is done");
        told.check_progress();
        let (_, report) = told.tree.into_report();
        assert_eq!((report.members, report.failed.len()), (1, 0));
    }

    #[test]
    fn what_changes_all_the_time_ends_so() {
        let mut told = Told::new();
        for round in 0..3 {
            told.tree.name(vec![member("log", 1000 + round)]);
            match told.take(OWN, ended(100, 0)) {
                Ok(started) => assert_eq!(told.take(started[0], ended(1000 + round, 1)), Ok(vec![OWN])),
                Err(result) => assert!(round == 2 && result.is_ok(), "{result:?}"),
            }
        }
        told.check_progress();
        let (_, report) = told.tree.into_report();
        let error = report.failed[0].result.as_ref().expect_err("it failed");
        assert!(matches!(error, ClientError::Transfer(TransferError::Changed { times: 3 })), "{error:?}");
    }

    #[test]
    fn where_some_entries_fail_the_members_are_transferred_and_the_error_stays() {
        let mut told = Told::new();
        told.tree.name(vec![member("large", 1000)]);
        let refusal = Refusal { code: RefusalCode::Storage, message: "not all".into(), current: None };
        let refused = || EventKind::Ended(Err(TransferError::Refused(refusal.clone())));
        assert_eq!(told.take(OWN, refused()), Ok(vec![10]));
        assert_eq!(told.take(10, ended(1000, 1000)), Ok(vec![OWN]));
        assert_eq!(told.take(OWN, refused()), Err(Err(TransferError::Refused(refusal.clone()))));

        let mut told = Told::new();
        told.tree.name(vec![member("large", 1000)]);
        assert_eq!(told.take(OWN, EventKind::Ended(Err(TransferError::Cancelled))), Err(Err(TransferError::Cancelled)));
    }

    #[test]
    fn a_small_file_that_cannot_be_read_is_left_out_and_its_tree_begins_anew() {
        let why = Why::Unreadable("a bad disk".into());
        let omits = || Omits { entries: vec![Omitted { path: path("bad"), why: why.clone() }], more: 0 };
        let refusal = Refusal { code: RefusalCode::Storage, message: "bad: a bad disk".into(), current: None };
        let refused = || EventKind::Ended(Err(TransferError::Refused(refusal.clone())));
        let mut told = Told::new();
        told.tree.name(vec![member("large", 1000)]);
        assert_eq!(told.tree.start_members(&mut told.next).len(), 1);
        assert_eq!(told.take(OWN, EventKind::Omits(omits())), Ok(vec![]));
        assert_eq!(told.take(OWN, refused()), Ok(vec![]), "a member goes on");
        assert_eq!(told.take(10, ended(1000, 1000)), Ok(vec![OWN]));
        assert_eq!(told.tree.options.scope.filter.patterns(), ["/bad"]);
        assert_eq!(told.take(OWN, ended(100, 100)), Ok(vec![OWN]), "one came after its own transfer had ended");
        assert!(matches!(told.take(OWN, ended(100, 0)), Err(Ok(_))));
        let (_, report) = told.tree.into_report();
        let failed: Vec<_> = report.failed.iter().map(|file| file.source.as_str()).collect();
        assert_eq!((failed, report.members), (vec!["src/bad"], 1));
        // An error that nothing explains ends it.
        let mut told = Told::new();
        assert_eq!(told.take(OWN, refused()), Err(Err(TransferError::Refused(refusal.clone()))));
    }

    #[test]
    fn what_is_neither_a_file_nor_a_tree_ends_as_a_file() {
        let fault = |what| TransferError::Storage(StorageFault::new(FaultKind::WrongKind, what));
        let mut tree = tree();
        assert!(!tree.has_begun());
        assert!(tree.begin_after(&EventKind::Ended(Err(TransferError::Cancelled))).is_none());
        assert!(tree.begin_after(&EventKind::Ended(Err(fault("first")))).is_some());
        let step = tree.take(OWN, EventKind::Ended(Err(fault("second"))), &mut 10, &mut |_| {});
        assert!(matches!(step, Step::Ended(Err(error)) if error == fault("first")));
    }
}
