//! Copies that nobody comes back for.
//!
//! A served directory notes in its own one which trees have a copy beside them, each in a file: the tree's path, and by its
//! time when a transfer last took the copy. A server that starts removes the copies that nobody has taken for a week. A
//! note that cannot be written, or that a power cut takes, leaves a copy that stays until the next transfer of its tree.

use std::io;
use std::sync::Arc;

use deltasync_core::{Algorithm, Name, RelPath};
use deltasync_proto::{Place, RootId};

use super::{Found, TreeCopy, remove_all};
use crate::local::root::{Dir, Root};

/// The directory of the notes.
const NOTES: &[u8] = b"copies";

/// How long a copy is kept, in seconds.
const AGE_MAX: i64 = 7 * 24 * 60 * 60;

/// Notes that a transfer has taken the copy of a tree.
pub(in crate::local) fn note(private: &Dir, path: &RelPath) -> io::Result<()> {
    let notes = private.own_dir(&Name::new(NOTES).map_err(io::Error::other)?)?;
    let file = notes.open_own(&name(path))?;
    file.set_len(0)?;
    file.write_all_at(path.as_bytes(), 0)
}

/// The tree has no copy any more.
pub(in crate::local) fn forget(private: &Dir, path: &RelPath) -> io::Result<()> {
    private.open_dir(&Name::new(NOTES).map_err(io::Error::other)?)?.remove(&name(path))
}

/// Removes what has been left for too long, as far as that can be; `now` is in seconds since 1970.
pub(in crate::local) fn remove_old(private: &Dir, root: &Arc<Root>, now: i64) -> io::Result<()> {
    let notes = Name::new(NOTES).map_err(io::Error::other)?;
    if private.stat(&notes)?.is_none() {
        return Ok(());
    }
    let notes = private.open_dir(&notes)?;
    let names = notes.names()?.collect::<io::Result<Vec<_>>>()?;
    for note in names {
        let file = notes.open_file(&note)?;
        let is = file.stat()?;
        if now.saturating_sub(is.modified.0) <= AGE_MAX {
            continue;
        }
        let mut path = vec![0; usize::try_from(is.len).unwrap_or(usize::MAX).min(RelPath::MAX)];
        file.read_exact_at(&mut path, 0)?;
        let path = RelPath::new(path).ok().filter(|path| name(path) == note);
        let copy = path.map(|path| TreeCopy::open(root, &Place { root: RootId::new(0), path }, false));
        match copy {
            Some(Ok(Found::Copy(copy))) if remove_all(&copy.parent, &copy.hidden).is_err() => continue,
            Some(Ok(Found::Busy) | Err(_)) => continue,
            Some(Ok(Found::Copy(_) | Found::Nothing)) | None => {}
        }
        notes.remove(&note)?;
    }
    Ok(())
}

/// The name of the note of a tree.
fn name(path: &RelPath) -> Name {
    let hash = Algorithm::Blake3.digest(&[b"deltasync copy of ", path.as_bytes()].concat());
    let hex: String = hash.as_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    Name::new(hex).expect("digits are a name")
}
