//! What a list tells of files and directories only when it is asked for: the digest of a content, and extended attributes.
//! Each is opened for it, and files are read, by two threads where there are several.

use std::io::{self, ErrorKind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use deltasync_core::{Algorithm, Digest, RelPath, TreeEntry, TreeKind, Xattrs};
use deltasync_proto::{Place, Scope, StorageFault, Why};

use super::{below, xattrs};
use crate::disk::AnyFile;
use crate::local::root::Root;
use crate::lock::lock;
use crate::source::with_buffer;

/// So many entries are asked for at a time.
pub(super) const TOGETHER: usize = 256;

/// What reads files.
const THREADS: usize = 2;

/// What is told of one entry.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) root: Option<Digest>,
    pub(super) xattrs: Xattrs,
    /// What is not kept of it, and why.
    pub(super) omitted: Vec<Why>,
}

/// True when something is told of such entries that takes a look at them.
pub(super) fn is_asked_of(kind: &TreeKind, scope: &Scope) -> bool {
    match kind {
        TreeKind::File { .. } => scope.checksum || scope.xattrs,
        TreeKind::Directory => scope.xattrs,
        TreeKind::HardLink { .. } | TreeKind::Symlink { .. } => false,
    }
}

/// What is told of each of these entries.
pub(super) fn ask(
    root: &Root,
    place: &Place,
    entries: &[&TreeEntry],
    scope: &Scope,
    algorithm: Algorithm,
) -> Result<Vec<Told>, StorageFault> {
    let paths: Vec<_> = entries.iter().map(|entry| below(&place.path, &entry.path)).collect::<Result<_, _>>()?;
    let told: Mutex<Vec<Told>> = Mutex::new(entries.iter().map(|_| Told::default()).collect());
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(entry) = entries.get(index) else { return };
            if is_asked_of(&entry.kind, scope) {
                let one = tell(root, &paths[index], entry, scope, algorithm);
                lock(&told)[index] = one;
            }
        }
    };
    let is_file = |entry: &&&TreeEntry| matches!(entry.kind, TreeKind::File { .. });
    if scope.checksum && entries.iter().filter(is_file).nth(1).is_some() {
        thread::scope(|threads| (0..THREADS).for_each(|_| drop(threads.spawn(work))));
    } else {
        work();
    }
    Ok(told.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn tell(root: &Root, path: &RelPath, entry: &TreeEntry, scope: &Scope, algorithm: Algorithm) -> Told {
    let mut told = Told::default();
    let Told { root: digest, xattrs, omitted } = &mut told;
    let mut look = || -> io::Result<()> {
        if entry.kind == TreeKind::Directory {
            let dir = root.directory(path).map_err(|trouble| io::Error::other(trouble.to_string()))?;
            *xattrs = xattrs::read(dir.attributed(), |what| omitted.push(Why::NotKept(what)))?;
            return Ok(());
        }
        let file = match root.file(path) {
            Ok(file) => file,
            // It is gone, or something else now: who wants it finds that.
            Err(trouble) if trouble.is_absent() || !trouble.is_of_system() => return Ok(()),
            Err(trouble) => return Err(io::Error::other(trouble.to_string())),
        };
        if scope.checksum {
            *digest = Some(digest_of(&file, algorithm)?);
        }
        if scope.xattrs {
            *xattrs = xattrs::read(file.attributed(), |what| omitted.push(Why::NotKept(what)))?;
        }
        Ok(())
    };
    if let Err(error) = look() {
        told.omitted.push(Why::Unreadable(error.to_string()));
    }
    told
}

/// The digest of what a file holds. One that changes meanwhile has that of what came: its transfer finds that.
fn digest_of(file: &AnyFile, algorithm: Algorithm) -> io::Result<Digest> {
    let len = file.stat()?.len;
    let sparse = file.is_sparse();
    let mut hasher = algorithm.hasher();
    with_buffer(|buffer| {
        let mut at = 0;
        while at < len {
            let piece = (len - at).min(buffer.len() as u64);
            let piece = &mut buffer[..usize::try_from(piece).expect("no longer than the buffer")];
            let read = if sparse { file.read_exact_or_hole_at(piece, at) } else { file.read_exact_at(piece, at) };
            match read {
                Ok(()) => hasher.update(piece),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
            at += piece.len() as u64;
        }
        Ok(hasher.finish())
    })
}
