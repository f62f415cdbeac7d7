//! What a push or pull would do: a line for each change, an account of the bytes, one object for scripts.
//!
//! Of a push the bytes are what the engine would send, counted where it would send them; of a pull only the server could
//! tell, so they are bounded by the length of all that would come.

use std::fmt::Write as _;
use std::time::Duration;

use deltasync_core::{Attributes, ByteLen, ChangeReason, Digest, RelPath, TreeChange, TreeEntry, TreeKind};
use deltasync_proto::{Stats, Verb};
use percent_encoding::percent_encode;
use serde::Serialize;

use crate::place::ENCODED;
use crate::shown::{Counted, Moment, Size, Span};
use crate::summary::chain;
use crate::{ClientError, ExitStatus, FileReport, Shown};

/// What a push or pull would do.
#[derive(Debug)]
#[non_exhaustive]
pub struct Prediction {
    /// Which of the two.
    pub verb: Verb,
    /// Each source, in the order they were given; at least one.
    pub files: Vec<Predicted>,
    /// A condition was given; it lets the transfer of what is told begin.
    pub has_condition: bool,
    /// What all connections have carried to find that out.
    pub carried: Stats,
    /// Why connections failed, and that it was interrupted.
    pub failures: Vec<ClientError>,
    /// How long it took to find out, connecting included.
    pub elapsed: Duration,
}

/// What would become of one source. Both names are safe to print.
#[derive(Debug)]
#[non_exhaustive]
pub struct Predicted {
    /// The source as it was written.
    pub source: String,
    /// Where it would go.
    pub target: String,
    /// It is a directory.
    pub is_tree: bool,
    /// What would change, in the order of the tree; one for a file, or none.
    pub changes: Vec<PredictedChange>,
    /// What would be refused, and why, though all else would be done.
    pub refusals: Vec<String>,
    /// What is in the source and would be left out; each has its error.
    pub left_out: Vec<FileReport>,
    /// The bytes on the wire, without handshake and closing: about so many for a push, at most about so many for a pull.
    pub wire: ByteLen,
    /// What is there was known beforehand, from an earlier push.
    pub known: bool,
    /// Whether it could be told, and the transfer would begin: not where what is there must not be replaced.
    pub result: Result<(), ClientError>,
}

/// One path that would change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PredictedChange {
    /// The path below the target; the target itself is [`RelPath::ROOT`].
    pub path: RelPath,
    /// How it would change.
    pub change: Change,
    /// In what it differs.
    pub reasons: Vec<ChangeReason>,
    /// The length of what would be sent of its content, or of which a part would be.
    pub content: ByteLen,
    /// The change in words, safe to print.
    pub text: String,
}

/// How a path would change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is not there yet.
    New,
    /// It is there, and something else is wanted.
    Changed,
    /// It is only there, and would be deleted.
    Deleted,
}

impl Change {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        }
    }

    const fn mark(self) -> char {
        match self {
            Self::New => '+',
            Self::Changed => '~',
            Self::Deleted => '-',
        }
    }
}

impl PredictedChange {
    pub(crate) fn of(change: &TreeChange) -> Self {
        let moves = change.moves_content();
        let content = match &change.new {
            Some(TreeEntry { kind: TreeKind::File { len, .. }, .. }) if moves => *len,
            _ => ByteLen::ZERO,
        };
        let kind = match (&change.old, &change.new) {
            (None, _) => Change::New,
            (Some(_), Some(_)) => Change::Changed,
            (Some(_), None) => Change::Deleted,
        };
        let reasons = change.reasons();
        let text = text(change, &reasons, moves);
        Self { path: change.path().clone(), change: kind, reasons, content, text }
    }

    /// The change of a single file, of which only length and root are known; `None` where it is equal.
    pub(crate) fn of_file(old: Option<(ByteLen, Digest)>, new: (ByteLen, Digest)) -> Option<Self> {
        let (change, reasons, text) = match old {
            Some(old) if old == new => return None,
            None => (Change::New, vec![ChangeReason::New], format!("{}  new", Size(new.0.get()))),
            Some((len, _)) if len != new.0 => {
                let text = format!("content: length {} -> {}", len.get(), new.0.get());
                (Change::Changed, vec![ChangeReason::Length, ChangeReason::Content], text)
            }
            Some(_) => (Change::Changed, vec![ChangeReason::Content], "content: root differs".to_owned()),
        };
        Some(Self { path: RelPath::ROOT, change, reasons, content: new.0, text })
    }

    /// One line, with this for a name.
    fn line(&self, name: &str) -> String {
        format!("{} {name}  {}\n", self.change.mark(), self.text)
    }
}

/// The change in words.
fn text(change: &TreeChange, reasons: &[ChangeReason], moves: bool) -> String {
    let (old, new) = match (&change.old, &change.new) {
        (Some(old), Some(new)) => (old, new),
        (None, Some(new)) => return format!("{}new", of_kind(&new.kind)),
        (_, None) => return "deleted".to_owned(),
    };
    let time = |attributes: &Attributes| Moment(attributes.modified().0).to_string();
    let times = || match (time(&old.attributes), time(&new.attributes)) {
        (old, new) if old == new => format!("time {new}, by less than a second"),
        (old, new) => format!("time {old} -> {new}"),
    };
    let mut said: Vec<String> = Vec::new();
    for reason in reasons {
        said.push(match (reason, &old.kind, &new.kind) {
            (ChangeReason::Kind, old, new) => format!("kind: {} -> {}", kind(old), kind(new)),
            (ChangeReason::Length, TreeKind::File { len, .. }, TreeKind::File { len: new, .. }) => {
                format!("length {} -> {}", len.get(), new.get())
            }
            (ChangeReason::Content, ..) => "root differs".to_owned(),
            (ChangeReason::Target, TreeKind::Symlink { target }, TreeKind::Symlink { target: new }) => {
                format!("target {} -> {}", Shown(target), Shown(new))
            }
            (ChangeReason::Permissions, ..) => {
                format!("permissions {:03o} -> {:03o}", old.attributes.mode(), new.attributes.mode())
            }
            (ChangeReason::Time, ..) => times(),
            (reason, ..) => reason.name().to_owned(),
        });
    }
    let said = said.join(", ");
    let is_pair = !reasons.contains(&ChangeReason::Kind);
    if moves && is_pair { format!("content: {said}") } else { said }
}

fn kind(kind: &TreeKind) -> &'static str {
    match kind {
        TreeKind::Directory => "directory",
        TreeKind::File { .. } => "file",
        TreeKind::Symlink { .. } => "symbolic link",
        TreeKind::HardLink { .. } => "hard link",
    }
}

/// What stands before `new`.
fn of_kind(kind: &TreeKind) -> String {
    match kind {
        TreeKind::Directory => String::new(),
        TreeKind::File { len, .. } => format!("{}  ", Size(len.get())),
        TreeKind::Symlink { target } => format!("-> {}  ", Shown(target)),
        TreeKind::HardLink { to, .. } => format!("= {}  ", Shown(to.as_bytes())),
    }
}

impl Predicted {
    pub(crate) fn new(report: FileReport) -> Self {
        let FileReport { source, target, .. } = report;
        let (changes, refusals, left_out) = (Vec::new(), Vec::new(), Vec::new());
        let wire = ByteLen::ZERO;
        Self { source, target, is_tree: false, changes, refusals, left_out, wire, known: false, result: Ok(()) }
    }

    fn count(&self, change: Change) -> usize {
        self.changes.iter().filter(|one| one.change == change).count()
    }
}

impl Prediction {
    /// All that went wrong: connections first, then what could not be told of sources, with what they are.
    pub fn errors(&self) -> impl Iterator<Item = (Option<&Predicted>, &ClientError)> {
        let files = self.files.iter().filter_map(|file| file.result.as_ref().err().map(|error| (Some(file), error)));
        let explained = !self.failures.is_empty();
        let lost = move |error: &ClientError| {
            use deltasync_proto::TransferError::{Cancelled, ConnectionLost};
            explained && matches!(error, ClientError::Transfer(ConnectionLost(_) | Cancelled))
        };
        self.failures.iter().map(|error| (None, error)).chain(files.filter(move |(_, error)| !lost(error)))
    }

    /// The greatest status of all that went wrong.
    pub fn status(&self) -> ExitStatus {
        self.errors().map(|(_, error)| ExitStatus::from(error)).max().unwrap_or_default()
    }

    fn told(&self) -> impl Iterator<Item = &Predicted> {
        self.files.iter().filter(|file| file.result.is_ok())
    }

    /// The bytes on the wire that all would take, without handshake and closing: about so many for a push, at most about so
    /// many for a pull.
    pub fn wire(&self) -> ByteLen {
        self.told().map(|file| file.wire).sum()
    }

    /// What people read: [`Self::lines`], then [`Self::line`] if anything could be told.
    pub fn text(&self) -> String {
        let end = if self.told().next().is_some() { self.line() + "\n" } else { String::new() };
        self.lines() + &end
    }

    /// A line for each change and refusal, each with its line end.
    pub fn lines(&self) -> String {
        let mut text = String::new();
        let single = self.files.len() == 1;
        for file in &self.files {
            for change in &file.changes {
                let _ = write!(text, "{}", change.line(&name(file, change, single)));
            }
            for refusal in &file.refusals {
                let _ = writeln!(text, "! {refusal}");
            }
        }
        text
    }

    /// One line for people, such as `would push 1 tree: 3 new, 2 changed, 1 deleted; about 4.2 KiB on the wire; the dry
    /// run itself moved 1.2 KiB, 1 round trip, 0.05 s`.
    pub fn line(&self) -> String {
        let (verb, bound) = if self.verb == Verb::Pull { ("pull", "at most about") } else { ("push", "about") };
        let count = |change| self.told().map(|file| file.count(change)).sum::<usize>();
        let counts: Vec<String> = [Change::New, Change::Changed, Change::Deleted]
            .into_iter()
            .filter_map(|change| Some(count(change)).filter(|n| *n > 0).map(|n| format!("{n} {}", change.name())))
            .collect();
        let counts = if counts.is_empty() { "nothing to change".to_owned() } else { counts.join(", ") };
        let condition = match self.has_condition && self.told().next().is_some() {
            true => "; the condition lets it begin",
            false => "",
        };
        format!(
            "would {verb} {}: {counts}{condition}; {bound} {} on the wire; the dry run itself moved {}, {}, {}",
            self.what(),
            Size(self.wire().get()),
            Size(self.carried.wire_sent + self.carried.wire_received),
            Counted(self.carried.round_trips.into(), "round trip"),
            Span(self.elapsed),
        )
    }

    fn what(&self) -> String {
        let trees = self.told().filter(|file| file.is_tree).count() as u64;
        let files = self.told().count() as u64 - trees;
        match (files, trees) {
            (files, 0) => Counted(files, "file").to_string(),
            (0, trees) => Counted(trees, "tree").to_string(),
            (files, trees) => format!("{} and {}", Counted(files, "file"), Counted(trees, "tree")),
        }
    }

    /// One JSON object on one line, without a line end; the keys are drawn in the help of the program.
    pub fn to_json(&self) -> String {
        let all = |of: fn(&Predicted) -> &[PredictedChange]| {
            self.files.iter().flat_map(move |file| of(file).iter().map(move |change| (file, change)))
        };
        let changes = all(|file| &file.changes).map(|(file, change)| JsonChange {
            target: &file.target,
            path: String::from_utf8_lossy(change.path.as_bytes()).into_owned(),
            encoded: encoded(&change.path),
            change: change.change.name(),
            reasons: change.reasons.iter().map(|reason| reason.name()).collect(),
            bytes: change.content.get(),
            text: &change.text,
        });
        let left_out = self.files.iter().flat_map(|file| &file.left_out).map(|file| JsonLeftOut {
            source: &file.source,
            error: file.result.as_ref().err().map(chain).unwrap_or_default(),
        });
        let error = self.errors().map(|(_, error)| chain(error)).next();
        let object = Object {
            dry_run: true,
            files: self.told().count(),
            changes: changes.collect(),
            wire_predicted: self.wire().get(),
            at_most: self.verb == Verb::Pull,
            condition: self.has_condition.then(|| !self.errors().any(|(_, error)| is_conflict(error))),
            wire_sent: self.carried.wire_sent,
            wire_received: self.carried.wire_received,
            round_trips: self.carried.round_trips,
            elapsed_ms: u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            refusals: self.files.iter().flat_map(|file| &file.refusals).map(String::as_str).collect(),
            left_out: left_out.collect(),
            exit_code: error.is_some().then(|| self.status().code()),
            error,
        };
        serde_json::to_string(&object).expect("numbers and text serialize")
    }
}

/// What a change is called in a line.
fn name(file: &Predicted, change: &PredictedChange, single: bool) -> String {
    if !file.is_tree {
        return file.target.clone();
    }
    let path = Shown(change.path.as_bytes()).to_string();
    match (single, change.path.is_root()) {
        (true, true) => "./".to_owned(),
        (true, false) => path,
        (false, true) => file.target.clone(),
        (false, false) => format!("{}/{path}", file.target.trim_end_matches('/')),
    }
}

fn is_conflict(error: &ClientError) -> bool {
    matches!(error, ClientError::Conflict { .. })
}

fn encoded(path: &RelPath) -> String {
    let names: Vec<_> = path.components().map(|name| percent_encode(name.as_bytes(), ENCODED).to_string()).collect();
    names.join("/")
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct Object<'a> {
    dry_run: bool,
    files: usize,
    changes: Vec<JsonChange<'a>>,
    wire_predicted: u64,
    at_most: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<bool>,
    wire_sent: u64,
    wire_received: u64,
    round_trips: u32,
    elapsed_ms: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refusals: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<JsonLeftOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
}

#[derive(Serialize)]
struct JsonChange<'a> {
    target: &'a str,
    path: String,
    encoded: String,
    change: &'static str,
    reasons: Vec<&'static str>,
    bytes: u64,
    text: &'a str,
}

#[derive(Serialize)]
struct JsonLeftOut<'a> {
    source: &'a str,
    error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: TreeKind, mode: u16, seconds: i64, nanoseconds: u32) -> TreeEntry {
        let attributes = Attributes::new(mode, seconds, nanoseconds).expect("in range");
        TreeEntry::new(RelPath::new("a\nb").expect("valid"), kind, attributes)
    }

    fn file(len: u64) -> TreeKind {
        TreeKind::File { len: ByteLen::new(len), root: None }
    }

    #[track_caller]
    fn says(old: Option<TreeEntry>, new: Option<TreeEntry>, line: &str) {
        let change = PredictedChange::of(&TreeChange { old, new });
        let name = Shown(change.path.as_bytes()).to_string();
        assert_eq!(change.line(&name), format!("{line}\n"));
    }

    #[test]
    fn each_change_is_a_line() {
        let was = || Some(entry(file(10), 0o644, 0, 0));
        says(None, Some(entry(file(4096), 0o644, 0, 0)), "+ a\\nb  4.0 KiB  new");
        says(None, Some(entry(TreeKind::Directory, 0o755, 0, 0)), "+ a\\nb  new");
        let link = |target: &[u8]| TreeKind::Symlink { target: target.to_vec() };
        says(None, Some(entry(link(b"x\ty"), 0o777, 0, 0)), "+ a\\nb  -> x\\ty  new");
        says(was(), None, "- a\\nb  deleted");
        says(was(), Some(entry(file(12), 0o644, 0, 0)), "~ a\\nb  content: length 10 -> 12");
        says(
            was(),
            Some(entry(file(10), 0o600, 60, 0)),
            "~ a\\nb  content: permissions 644 -> 600, time 1970-01-01 00:00:00 -> 1970-01-01 00:01:00",
        );
        says(
            was(),
            Some(entry(file(10), 0o644, 0, 5)),
            "~ a\\nb  content: time 1970-01-01 00:00:00, by less than a second",
        );
        says(was(), Some(entry(file(10), 0o600, 0, 0)), "~ a\\nb  permissions 644 -> 600");
        says(was(), Some(entry(link(b"x"), 0o777, 0, 0)), "~ a\\nb  kind: file -> symbolic link");
        let (old, new) = (entry(link(b"x"), 0o777, 0, 0), entry(link(b"y"), 0o777, 0, 0));
        says(Some(old), Some(new), "~ a\\nb  target x -> y");
    }

    #[test]
    fn a_file_is_new_or_other_or_equal() {
        let root = |byte| Digest::from_bytes([byte; 32]);
        let is = |len, byte| (ByteLen::new(len), root(byte));
        let text = |old, new| PredictedChange::of_file(old, new).map(|change| change.text);
        assert_eq!(text(None, is(3, 1)).as_deref(), Some("3 B  new"));
        assert_eq!(text(Some(is(2, 1)), is(3, 2)).as_deref(), Some("content: length 2 -> 3"));
        assert_eq!(text(Some(is(3, 1)), is(3, 2)).as_deref(), Some("content: root differs"));
        assert_eq!(text(Some(is(3, 1)), is(3, 1)), None);
    }
}
