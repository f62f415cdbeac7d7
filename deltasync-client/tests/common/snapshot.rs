//! All that is in a directory, to compare it with another one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is at one path: kind, permissions, time, content or target.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    kind: char,
    mode: u32,
    modified: (i64, i64),
    content: Vec<u8>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, mode, modified: (seconds, nanoseconds), content } = self;
        write!(f, "{kind} {mode:o} {seconds}.{nanoseconds:09} {} bytes", content.len())
    }
}

pub type Snapshot = BTreeMap<Vec<u8>, Node>;

/// All that is at a path and below it; the path itself is the empty one.
pub fn snapshot(root: &Path) -> Snapshot {
    let mut all = Snapshot::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let kind = meta.file_type();
        let (kind, content) = if kind.is_symlink() {
            ('l', fs::read_link(&path).expect("a link").into_os_string().as_bytes().to_vec())
        } else if kind.is_dir() {
            left.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("readable").path()));
            ('d', Vec::new())
        } else if kind.is_file() {
            ('f', fs::read(&path).expect("readable"))
        } else {
            ('?', Vec::new())
        };
        let mode = if kind == 'l' { 0 } else { meta.mode() & 0o7777 };
        let node = Node { kind, mode, modified: (meta.mtime(), meta.mtime_nsec()), content };
        let name = path.strip_prefix(root).expect("below").as_os_str().as_bytes().to_vec();
        all.insert(name, node);
    }
    all
}

/// The target has what the source has, and nothing else.
#[track_caller]
pub fn assert_equal(source: &Path, target: &Path) {
    assert_holds(&snapshot(source), &snapshot(target), &Snapshot::new());
}

/// The target has what the source has, and beyond that what is in `extra`.
#[track_caller]
pub fn assert_holds(source: &Snapshot, target: &Snapshot, extra: &Snapshot) {
    let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let mut wrong: Vec<String> = Vec::new();
    for (path, node) in source {
        match target.get(path) {
            Some(there) if there == node => {}
            there => wrong.push(format!("{:?}: {node:?}, but there {there:?}", shown(path))),
        }
    }
    for (path, node) in target.iter().filter(|(path, _)| !source.contains_key(*path)) {
        if extra.get(path) != Some(node) {
            wrong.push(format!("{:?}: nothing, but there {node:?}", shown(path)));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), source.len(), wrong.join("\n"));
}
