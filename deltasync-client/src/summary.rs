//! What a push or pull came to: one line for people, an account of each file, one object for scripts.
//!
//! Bytes of files are counted by file, bytes on the wire by connection, since the handshake and the closing belong to no
//! file. `wire_sent` and `wire_received` are everything above TCP; between two ends in this process they are what the
//! connection in memory carried.

use std::fmt::{self, Write as _};
use std::time::Duration;

use deltasync_core::{Digest, Generation, Stats as Sums};
use deltasync_proto::{EventKind, Outcome, Stats, TransferError, Verb, Version};
use serde::Serialize;

use crate::shown::{Counted, Grouped, Percent, Size, Span, There};
use crate::transfer::whole;
use crate::{ClientError, ExitStatus};

/// What a push or pull came to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Which of the two.
    pub verb: Verb,
    /// Each source, in the order they were given; at least one.
    pub files: Vec<FileReport>,
    /// What all connections carried.
    pub carried: Stats,
    /// How often connections were tried again, and transfers that no connection had failed.
    pub retried: u32,
    /// Why connections failed, and that the verb was interrupted.
    pub failures: Vec<ClientError>,
    /// How long it took, connecting included.
    pub elapsed: Duration,
}

/// What became of one source. Both names are safe to print.
#[derive(Debug)]
pub struct FileReport {
    /// The source as it was written.
    pub source: String,
    /// Where it went, as far as this end knows: a place at a server may turn out to be a directory.
    pub target: String,
    /// How it ended.
    pub result: Result<Outcome, ClientError>,
    /// What other writers published there while this transfer ran; `None` when they had removed the file. When the transfer
    /// is done, it has replaced that.
    pub replaced: Vec<Option<Version>>,
    /// The server's copy had lost this content, and was repaired from ours.
    pub restored: Option<Digest>,
    /// What the outcome does not say of a tree. Its bytes and root are those of the tree as one target: names, permissions,
    /// times and small files; the bytes have those of its large files added.
    pub tree: Option<TreeReport>,
}

/// What became of a tree.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct TreeReport {
    /// How many large files were transferred, each by itself.
    pub members: usize,
    /// How often the tree was compared: once where nothing but itself had to be transferred.
    pub rounds: u32,
    /// What is in the source and could not be transferred; each has its error.
    pub failed: Vec<FileReport>,
}

impl FileReport {
    /// The report of a transfer that has not begun.
    pub(crate) fn new(source: String, target: String) -> Self {
        let result = Err(TransferError::Cancelled.into());
        Self { source, target, result, replaced: Vec::new(), restored: None, tree: None }
    }

    /// Takes in what happened to the transfer.
    pub(crate) fn take(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Conflict { current } if self.replaced.last() != Some(current) => self.replaced.push(*current),
            EventKind::Ended(result) => self.result = result.clone().map(whole).map_err(ClientError::from),
            _ => {}
        }
    }

    /// What a person should know of a transfer that is done.
    fn notes(&self) -> impl Iterator<Item = String> {
        let replaced = self.replaced.iter().filter(|_| self.result.is_ok()).map(|version| match version {
            Some(version) => format!("replaced {}, which another writer had published meanwhile", There(Some(version))),
            None => "another writer had removed the file meanwhile; it is there again".to_owned(),
        });
        let restored =
            self.restored.map(|root| format!("the server's copy was damaged; repaired from ours, root {root}"));
        replaced.chain(restored)
    }
}

impl Summary {
    /// The outcomes of the files that are done.
    pub fn done(&self) -> impl Iterator<Item = &Outcome> {
        self.files.iter().filter_map(|file| file.result.as_ref().ok())
    }

    /// All that went wrong: connections first, then files with what they are, without those that only lost a connection
    /// that is named already.
    pub fn errors<'a>(&'a self) -> impl Iterator<Item = (Option<&'a FileReport>, &'a ClientError)> {
        let explained = !self.failures.is_empty();
        let lost = move |error: &ClientError| {
            let lost =
                |error: &TransferError| matches!(error, TransferError::ConnectionLost(_) | TransferError::Cancelled);
            explained && matches!(error, ClientError::Transfer(error) if lost(error))
        };
        let of_tree = |file: &'a FileReport| file.tree.iter().flat_map(|tree| &tree.failed);
        let files = self.files.iter().flat_map(move |file| std::iter::once(file).chain(of_tree(file)));
        let files = files.filter_map(|file| file.result.as_ref().err().map(|error| (Some(file), error)));
        self.failures.iter().map(|error| (None, error)).chain(files.filter(move |(_, error)| !lost(error)))
    }

    /// The greatest status of all that went wrong.
    pub fn status(&self) -> ExitStatus {
        self.errors().map(|(_, error)| ExitStatus::from(error)).max().unwrap_or_default()
    }

    /// What a person should know of files that are done: that others wrote there too, or that a damaged copy was repaired.
    pub fn notes(&self) -> impl Iterator<Item = (&FileReport, String)> {
        self.files.iter().flat_map(|file| file.notes().map(move |note| (file, note)))
    }

    /// The bytes of all files that are done, added up.
    pub fn sums(&self) -> Sums {
        let sums = |outcome: &Outcome| Sums {
            target: outcome.len,
            copied: outcome.progress.copied,
            literal: outcome.progress.literal,
            repairs: outcome.repairs,
        };
        self.done().map(sums).sum()
    }

    /// One line for people, such as `pushed 1 file, 10.0 MiB: 5.8 KiB sent and 15.1 KiB received (99.8 % reused), 2
    /// round trips, 0.12 s`.
    pub fn line(&self) -> String {
        let past = if self.verb == Verb::Pull { "pulled" } else { "pushed" };
        let sums = self.sums();
        let repairs = match sums.repairs {
            0 => String::new(),
            repairs => format!(", {}", Counted(repairs.into(), "repair")),
        };
        format!(
            "{past} {}, {}: {} sent and {} received ({} reused), {}{repairs}, {}",
            self.what(),
            Size(sums.target.get()),
            Size(self.carried.wire_sent),
            Size(self.carried.wire_received),
            Percent(sums.reused()),
            Counted(self.carried.round_trips.into(), "round trip"),
            Span(self.elapsed),
        )
    }

    /// What is done, such as `1 file`, or `2 files and 1 tree with 3 large files`.
    fn what(&self) -> String {
        let done = || self.files.iter().filter(|file| file.result.is_ok());
        let trees = done().filter(|file| file.tree.is_some()).count();
        let members = self.members();
        let large =
            if members > 0 { format!(" with {}", Counted(members as u64, "large file")) } else { String::new() };
        let (files, trees) = ((done().count() - trees) as u64, trees as u64);
        match (files, trees) {
            (files, 0) => Counted(files, "file").to_string(),
            (0, trees) => format!("{}{large}", Counted(trees, "tree")),
            (files, trees) => format!("{} and {}{large}", Counted(files, "file"), Counted(trees, "tree")),
        }
    }

    /// How many large files of trees were transferred.
    fn members(&self) -> usize {
        self.files.iter().filter_map(|file| file.tree.as_ref()).map(|tree| tree.members).sum()
    }

    /// Where the bytes went: a few lines for each file that is done, then what the connections add.
    pub fn account(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            if let Ok(outcome) = &file.result {
                let _ = write!(text, "{}", Account { file, outcome });
            }
        }
        let files: u64 = self.done().map(|outcome| outcome.progress.wire.get()).sum();
        let wire = self.carried.wire_sent + self.carried.wire_received;
        let _ = writeln!(text, "all connections");
        let mut row = |name: &str, bytes: u64, what: &str| {
            let _ = writeln!(text, "  {name:<10} {:>17} bytes {what}", Grouped(bytes).to_string());
        };
        row("sent", self.carried.wire_sent, "");
        row("received", self.carried.wire_received, "");
        row("overhead", wire.saturating_sub(files), "of these are frame headers, handshake and closing");
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// One JSON object on one line, without a line end; the keys are drawn in the help of the program.
    pub fn to_json(&self) -> String {
        let sums = self.sums();
        let roots: Vec<_> =
            self.files.iter().map(|file| file.result.as_ref().ok().map(|o| o.root.to_string())).collect();
        let single = self.files.len() == 1;
        let error = self.errors().map(|(_, error)| chain(error)).next();
        let current = self.errors().find_map(|(_, error)| current_of(error));
        let done = || self.files.iter().filter(|file| file.result.is_ok());
        let trees = || self.files.iter().filter_map(|file| file.tree.as_ref());
        let replaced = done().flat_map(|file| &file.replaced).map(|version| version.map(JsonVersion::from)).collect();
        let object = Object {
            files: self.done().count(),
            bytes_target: sums.target.get(),
            bytes_copied: sums.copied.get(),
            bytes_literal: sums.literal.get(),
            wire_sent: self.carried.wire_sent,
            wire_received: self.carried.wire_received,
            round_trips: self.carried.round_trips,
            repairs: sums.repairs,
            known: self.done().filter(|outcome| outcome.known).count(),
            elapsed_ms: u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            root: roots.first().filter(|_| single).cloned().flatten(),
            roots: (!single).then_some(roots),
            retries: self.retried,
            restored: done().filter(|file| file.restored.is_some()).count(),
            members: self.members(),
            failed: trees().flat_map(|tree| &tree.failed).map(JsonFailure::from).collect(),
            replaced,
            exit_code: error.is_some().then(|| self.status().code()),
            error,
            current,
        };
        serde_json::to_string(&object).expect("numbers and text serialize")
    }
}

/// What is there, or should be, where that is the error.
fn current_of(error: &ClientError) -> Option<Option<JsonVersion>> {
    match error {
        ClientError::Conflict { current } | ClientError::Damaged { published: current, .. } => {
            Some(current.map(JsonVersion::from))
        }
        _ => None,
    }
}

/// The summary of a verb that could not begin: nothing moved, and why.
pub(crate) fn json_of_failure(error: &ClientError) -> String {
    let object =
        Object { error: Some(chain(error)), exit_code: Some(ExitStatus::from(error).code()), ..Object::default() };
    serde_json::to_string(&object).expect("numbers and text serialize")
}

/// An error and its causes on one line, each said once.
pub(crate) fn chain(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            let _ = write!(text, ": {said}");
        }
        cause = error.source();
    }
    text
}

/// The object that `--json` prints. The first eleven keys are always there.
#[derive(Default, Serialize)]
struct Object {
    files: usize,
    bytes_target: u64,
    bytes_copied: u64,
    bytes_literal: u64,
    wire_sent: u64,
    wire_received: u64,
    round_trips: u32,
    repairs: u32,
    known: usize,
    elapsed_ms: u64,
    root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roots: Option<Vec<Option<String>>>,
    #[serde(skip_serializing_if = "is_zero")]
    retries: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<Option<JsonVersion>>,
    #[serde(skip_serializing_if = "is_zero")]
    restored: usize,
    #[serde(skip_serializing_if = "is_zero")]
    members: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<JsonFailure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Option<JsonVersion>>,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// Something in a tree that could not be transferred.
#[derive(Serialize)]
struct JsonFailure {
    source: String,
    error: String,
}

impl From<&FileReport> for JsonFailure {
    fn from(file: &FileReport) -> Self {
        Self { source: file.source.clone(), error: file.result.as_ref().err().map(chain).unwrap_or_default() }
    }
}

/// A version of a file; the generation is null where it is not known.
#[derive(Serialize)]
struct JsonVersion {
    root: String,
    generation: Option<u64>,
}

impl From<Version> for JsonVersion {
    fn from(Version { generation, root }: Version) -> Self {
        let known = (generation != Generation::ZERO).then_some(generation.get());
        Self { root: root.to_string(), generation: known }
    }
}

/// Where the bytes of one file came from.
struct Account<'a> {
    file: &'a FileReport,
    outcome: &'a Outcome,
}

impl fmt::Display for Account<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { len, root, generation, progress, repairs, known } = self.outcome;
        writeln!(f, "{} -> {}", self.file.source, self.file.target)?;
        let mut row = |name: &str, bytes: u64, what: &str| {
            writeln!(f, "  {name:<10} {:>17} bytes {what}", Grouped(bytes).to_string())
        };
        row("target", len.get(), "")?;
        row("copied", progress.copied.get(), "taken from the basis")?;
        row("literal", progress.literal.get(), "sent, before compression")?;
        row("wire", progress.wire.get(), "both ways for this file: literals, operations and hashes")?;
        writeln!(f, "  {:<10} {:>17}", "repairs", Grouped((*repairs).into()).to_string())?;
        if let Some(tree) = &self.file.tree {
            let (members, rounds) = (tree.members as u64, Counted(tree.rounds.into(), "time"));
            writeln!(f, "  {:<10} {:>17} transferred by themselves", "large files", Grouped(members).to_string())?;
            return writeln!(f, "  {:<10} {root} of names, permissions and small files; compared {rounds}", "root");
        }
        let known = if *known { "known beforehand: nothing had to be compared" } else { "not known beforehand" };
        writeln!(f, "  {:<10} {known}", "basis")?;
        writeln!(f, "  {:<10} {root}", "root")?;
        match generation {
            None => writeln!(f, "  {:<10} nothing had to be published", "generation"),
            Some(Generation::ZERO) => {
                writeln!(f, "  {:<10} published; generations are not counted there", "generation")
            }
            Some(generation) => writeln!(f, "  {:<10} {:>17}", "generation", Grouped(generation.get()).to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use deltasync_core::{ByteLen, Digest};
    use deltasync_proto::{FaultKind, Progress, Refusal, RefusalCode, StorageFault};

    use super::*;

    fn outcome(target: u64, literal: u64, wire: u64) -> Outcome {
        let len = ByteLen::new;
        let progress =
            Progress { total: len(target), copied: len(target - literal), literal: len(literal), wire: len(wire) };
        let root = Digest::from_bytes([0xab; 32]);
        Outcome { len: len(target), root, generation: Some(Generation::new(1234)), progress, repairs: 0, known: false }
    }

    fn file(name: &str, result: Result<Outcome, ClientError>) -> FileReport {
        FileReport { result, ..FileReport::new(name.into(), format!("deltasync://h/{name}")) }
    }

    fn summary(files: Vec<FileReport>) -> Summary {
        let carried = Stats { wire_sent: 5939, wire_received: 15_462, round_trips: 2 };
        Summary {
            verb: Verb::Push,
            files,
            carried,
            retried: 0,
            failures: Vec::new(),
            elapsed: Duration::from_millis(123),
        }
    }

    #[test]
    fn the_line_says_what_was_saved() {
        let mut one = summary(vec![file("a", Ok(outcome(10 << 20, 20_000, 21_000)))]);
        let line = "pushed 1 file, 10.0 MiB: 5.8 KiB sent and 15.1 KiB received (99.8 % reused), 2 round trips, 0.12 s";
        assert_eq!(one.line(), line);
        one.verb = Verb::Pull;
        one.files.push(file("b", Ok(Outcome { repairs: 1, ..outcome(0, 0, 0) })));
        assert!(one.line().starts_with("pulled 2 files"), "{}", one.line());
        assert!(one.line().contains("2 round trips, 1 repair, 0.12 s"), "{}", one.line());
    }

    #[test]
    fn a_tree_counts_as_one_and_names_what_has_failed() {
        let error = ClientError::LeftOut { reason: "a pipe".into() };
        let tree = TreeReport { members: 3, rounds: 2, failed: vec![file("tree/pipe", Err(error))] };
        let tree = FileReport { tree: Some(tree), ..file("tree", Ok(outcome(100, 30, 50))) };
        let summary = summary(vec![tree, file("a", Ok(outcome(1, 0, 0)))]);
        assert!(
            summary.line().starts_with("pushed 1 file and 1 tree with 3 large files, 101 B: "),
            "{}",
            summary.line()
        );
        assert_eq!(summary.status(), ExitStatus::Failed);
        let errors: Vec<_> = summary.errors().map(|(file, _)| file.map(|file| file.source.as_str())).collect();
        assert_eq!(errors, [Some("tree/pipe")]);
        let failed =
            r#""members":3,"failed":[{"source":"tree/pipe","error":"left out: a pipe"}],"error":"left out: a pipe""#;
        assert!(summary.to_json().contains(failed), "{}", summary.to_json());
        assert!(summary.account().contains("compared 2 times"), "{}", summary.account());
    }

    #[test]
    fn the_object_has_eleven_keys_and_the_root_of_a_single_file() {
        let root = "ab".repeat(32);
        let one = summary(vec![file("a", Ok(outcome(100, 30, 50)))]);
        let head = r#"{"files":1,"bytes_target":100,"bytes_copied":70,"bytes_literal":30,"wire_sent":5939,"#;
        let rest = r#""wire_received":15462,"round_trips":2,"repairs":0,"known":0,"elapsed_ms":123,"root":"#;
        assert_eq!(one.to_json(), format!("{head}{rest}\"{root}\"}}"));

        let refusal = Refusal { code: RefusalCode::Denied, message: "a \"b\"".into(), current: None };
        let refused = Err(TransferError::Refused(refusal).into());
        let two = summary(vec![file("a", Ok(outcome(100, 30, 50))), file("b", refused)]);
        let tail =
            format!(r#""root":null,"roots":["{root}",null],"error":"refused by the peer: a \"b\"","exit_code":4}}"#);
        assert!(two.to_json().ends_with(&tail), "{}", two.to_json());
    }

    fn version(byte: u8, generation: u64) -> Version {
        Version { root: Digest::from_bytes([byte; 32]), generation: Generation::new(generation) }
    }

    #[test]
    fn a_conflict_tells_what_is_there_to_people_and_scripts() {
        let digits = "cd".repeat(32);
        for (current, there, json) in [
            (
                Some(version(0xcd, 7)),
                format!("root {digits}, generation 7"),
                format!(r#"{{"root":"{digits}","generation":7}}"#),
            ),
            (Some(version(0xcd, 0)), format!("root {digits}"), format!(r#"{{"root":"{digits}","generation":null}}"#)),
            (None, "no file".into(), "null".into()),
        ] {
            let refusal = Refusal { code: RefusalCode::Conflict, message: "x".into(), current };
            let one = summary(vec![file("a", Err(TransferError::Refused(refusal).into()))]);
            let error = format!("what is there now is not what was to be replaced: {there}");
            assert_eq!(one.errors().next().map(|(_, error)| error.to_string()), Some(error.clone()));
            let tail = format!(r#","error":"{error}","exit_code":4,"current":{json}}}"#);
            assert!(one.to_json().ends_with(&tail), "{}", one.to_json());
        }
    }

    #[test]
    fn what_was_replaced_or_restored_is_noted_once_it_is_done() {
        let mut report = file("a", Err(TransferError::Cancelled.into()));
        for current in [Some(version(0xcd, 7)), Some(version(0xcd, 7)), None] {
            report.take(&EventKind::Conflict { current });
        }
        assert_eq!(summary(vec![file("b", Ok(outcome(1, 1, 1)))]).notes().count(), 0);
        let mut one = summary(vec![report]);
        assert_eq!(one.notes().count(), 0, "it has replaced nothing yet");
        assert!(!one.to_json().contains("replaced"), "{}", one.to_json());
        one.files[0].take(&EventKind::Ended(Ok(outcome(10, 10, 10))));
        one.files[0].restored = Some(Digest::from_bytes([0xef; 32]));
        one.retried = 3;
        let (cd, ef) = ("cd".repeat(32), "ef".repeat(32));
        let notes: Vec<_> = one.notes().map(|(_, note)| note).collect();
        assert_eq!(
            notes,
            [
                format!("replaced root {cd}, generation 7, which another writer had published meanwhile"),
                "another writer had removed the file meanwhile; it is there again".into(),
                format!("the server's copy was damaged; repaired from ours, root {ef}"),
            ]
        );
        let tail = format!(r#""retries":3,"replaced":[{{"root":"{cd}","generation":7}},null],"restored":1}}"#);
        assert!(one.to_json().ends_with(&tail), "{}", one.to_json());
    }

    #[test]
    fn a_verb_that_could_not_begin_has_the_eleven_keys_too() {
        let json = json_of_failure(&ClientError::file("read", "x".as_ref())(std::io::ErrorKind::NotFound.into()));
        let value: serde_json::Value = serde_json::from_str(&json).expect("one object");
        let keys: Vec<_> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 13, "{keys:?}");
        assert_eq!((&value["files"], &value["root"]), (&0.into(), &serde_json::Value::Null));
        assert_eq!((&value["exit_code"], &value["error"]), (&1.into(), &"cannot read x: entity not found".into()));
    }

    #[test]
    fn a_lost_connection_is_named_once() {
        let lost = || Err(TransferError::ConnectionLost("gone".into()).into());
        let full = Err(TransferError::Storage(StorageFault::new(FaultKind::Full, "full")).into());
        let mut summary = summary(vec![file("a", lost()), file("b", full), file("c", lost())]);
        assert_eq!(summary.errors().count(), 3);
        summary.failures.push(ClientError::Interrupted);
        let errors: Vec<_> =
            summary.errors().map(|(file, error)| (file.map(|f| &*f.source), error.to_string())).collect();
        assert_eq!(errors, [(None, "interrupted".into()), (Some("b"), "full".into())]);
        assert_eq!(summary.status(), ExitStatus::Interrupted);
    }

    #[test]
    fn the_account_adds_up() {
        let account = summary(vec![file("a", Ok(outcome(100_000, 30, 21_000)))]).account();
        for row in [
            "copied                99,970 bytes",
            "wire                  21,000 bytes",
            "overhead                 401 bytes",
        ] {
            assert!(account.contains(row), "{account}");
        }
        assert!(account.contains("\n  generation             1,234\n"), "{account}");
    }
}
