//! Small files that a server keeps for itself in the directory that is ours, each replaced as a whole.
//!
//! What the dashboard remembers over a restart lies in one. A new version is written beside the old one, made durable and
//! renamed over it, so that a crash at any step leaves the one or the other, whole.

use std::io;

use deltasync_core::Name;

use super::{LocalStorage, Served, own};
use crate::disk::DiskSpace;

impl LocalStorage {
    /// How much room the disk of a served directory has; `None` where that is not known. Waits for the disk.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn space(&self) -> io::Result<Option<DiskSpace>> {
        match &self.served {
            Some(served) => served.private.space(),
            None => Ok(None),
        }
    }

    /// Keeps `bytes` under a name of the server's own, in place of what was kept there. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] when no directory is served; what the system says.
    pub fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let private = &self.served()?.private;
        let (name, new) = (kept(name), kept(&format!("{name}.new")));
        let file = private.open_own(&new)?;
        file.set_len(0)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        private.rename(&new, private, &name)
    }

    /// What was kept under a name; `None` when nothing was. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Unsupported`] when no directory is served, [`io::ErrorKind::FileTooLarge`] for more than `most`
    /// bytes; what the system says.
    pub fn kept(&self, name: &str, most: usize) -> io::Result<Option<Vec<u8>>> {
        let (private, name) = (&self.served()?.private, kept(name));
        let Some(is) = private.stat(&name)? else { return Ok(None) };
        let len = usize::try_from(is.len).ok().filter(|&len| len <= most).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        private.open_file(&name)?.read_exact_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    }

    fn served(&self) -> io::Result<&Served> {
        self.served.as_ref().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// The file of a name: its ending keeps it apart from what else is ours.
fn kept(name: &str) -> Name {
    own(&format!("{name}.kept"))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::LocalOptions;

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_has_a_bound() {
        let directory = TempDir::new().expect("a temporary directory");
        let serve = || LocalStorage::serve(directory.path(), LocalOptions::default()).expect("a directory");
        let storage = serve();
        assert_eq!(storage.kept("board", 10).expect("nothing is fine"), None);
        storage.keep("board", b"a longer version").expect("room");
        storage.keep("board", b"short").expect("room");
        drop(storage);
        // As a crash in the middle leaves it.
        std::fs::write(directory.path().join(".deltasync/board.new.kept"), b"half of the ne").expect("room");
        let storage = serve();
        assert_eq!(storage.kept("board", 5).expect("readable").as_deref(), Some(&b"short"[..]));
        let error = storage.kept("board", 4).expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        storage.keep("board", b"next").expect("room");
        assert_eq!(storage.kept("board", 5).expect("readable").as_deref(), Some(&b"next"[..]));
        let space = storage.space().expect("Linux tells").expect("Linux tells");
        assert!(space.total >= space.free && space.total > 0);
    }

    #[test]
    fn nothing_is_kept_where_nothing_is_served() {
        let storage = LocalStorage::roots(Vec::new(), LocalOptions::default()).expect("no directory to fail");
        assert_eq!(storage.keep("board", b"x").expect_err("no place").kind(), io::ErrorKind::Unsupported);
        assert_eq!(storage.kept("board", 5).expect_err("no place").kind(), io::ErrorKind::Unsupported);
        assert_eq!(storage.space().expect("nothing to ask"), None);
    }
}
