//! That something below a directory has changed, as the system tells it.
//!
//! Whoever listens is only told that it has: what it is shows when the trees are compared. So notices that come together are
//! one, and nothing of them is kept. Reading a file is no change, nor is what lies below a directory that is left out.
//!
//! On Linux (inotify) each directory has to be watched by itself. [`Notices::cover`] goes through all of them and watches
//! each before it lists it. What is made in a directory after that is told; what was made before is there for whoever looks
//! afterwards. A directory that is made or moved calls for covering again, before the next look. Elsewhere one watch covers
//! all.
//!
//! Invariant: a change that comes after [`Notices::cover`] began is seen by who looks when it has ended, or is told.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind};
use notify::{
    Config, Error, ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _, WatcherKind,
};
use tokio::sync::Notify;

use crate::Shown;

/// Listens to the changes below one directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Notices {
    root: PathBuf,
    watcher: RecommendedWatcher,
    told: Arc<Told>,
}

/// What the thread of the watcher has told.
#[derive(Debug, Default)]
struct Told {
    changed: Notify,
    /// A directory may be there that is not watched.
    uncovered: AtomicBool,
}

/// There are no notices to be had, and why, on one line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoNotices(pub(crate) String);

impl Notices {
    /// Begins to listen below `root`, an absolute path without symbolic links; nothing is covered yet. What happens below
    /// `left_out` is not told.
    pub(crate) fn new(root: PathBuf, left_out: Option<PathBuf>) -> Result<Self, NoNotices> {
        let told = Arc::new(Told::default());
        told.uncovered.store(true, Ordering::SeqCst);
        let teller = Arc::clone(&told);
        let take = move |event| teller.take(event, left_out.as_deref());
        let config = Config::default().with_follow_symlinks(false);
        let watcher = RecommendedWatcher::new(take, config).map_err(|error| no_notices(&error))?;
        Ok(Self { root, watcher, told })
    }

    /// Passes when something has changed since it last did.
    pub(crate) async fn changed(&self) {
        self.told.changed.notified().await;
    }

    /// Watches all directories there are, if there may be one that is not watched. Blocks while it lists them.
    ///
    /// # Errors
    ///
    /// [`NoNotices`] when the system cannot watch so many; then some changes are not told.
    pub(crate) fn cover(&mut self) -> Result<(), NoNotices> {
        if !self.told.uncovered.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        if RecommendedWatcher::kind() != WatcherKind::Inotify {
            return self.watcher.watch(&self.root, RecursiveMode::Recursive).map_err(|error| no_notices(&error));
        }
        let mut left = vec![self.root.clone()];
        while let Some(directory) = left.pop() {
            match self.watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                // That it went is told, and what may not be listed is named by the push.
                Err(error) if is_gone_or_denied(&error) => continue,
                Err(error) => return Err(no_notices(&error)),
            }
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
            left.extend(entries.flatten().filter(is_dir).map(|entry| entry.path()));
        }
        Ok(())
    }
}

impl Told {
    fn take(&self, event: notify::Result<Event>, left_out: Option<&Path>) {
        let uncovers = match event {
            // Others were lost.
            Ok(event) if event.need_rescan() => true,
            Err(_) => true,
            Ok(event) => {
                let in_it =
                    |left_out| !event.paths.is_empty() && event.paths.iter().all(|path| path.starts_with(left_out));
                if !is_change(&event.kind) || left_out.is_some_and(in_it) {
                    return;
                }
                may_be_new_directory(&event)
            }
        };
        if uncovers {
            self.uncovered.store(true, Ordering::SeqCst);
        }
        self.changed.notify_one();
    }
}

fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => *kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

fn may_be_new_directory(event: &Event) -> bool {
    match event.kind {
        EventKind::Create(kind) => kind != CreateKind::File,
        EventKind::Modify(ModifyKind::Name(_)) => {
            let is_dir = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
            event.paths.iter().any(is_dir)
        }
        _ => false,
    }
}

fn is_gone_or_denied(error: &Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
        ),
        _ => false,
    }
}

fn no_notices(error: &Error) -> NoNotices {
    let at = error.paths.first().map_or_else(String::new, |path| format!(" at {}", Shown::path(path)));
    NoNotices(match &error.kind {
        ErrorKind::MaxFilesWatch => format!(
            "there are more directories than this system lets a user watch{at}; fs.inotify.max_user_watches sets how many"
        ),
        ErrorKind::Io(error) if error.raw_os_error() == Some(EMFILE) => {
            "too many programs of this user watch files; fs.inotify.max_user_instances sets how many may".to_owned()
        }
        ErrorKind::Io(error) => format!("the system cannot tell of changes{at}: {error}"),
        kind => format!("the system cannot tell of changes{at}: {kind:?}"),
    })
}

/// What Linux answers to one inotify instance too many.
const EMFILE: i32 = 24;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use notify::event::{DataChange, Flag, RenameMode};
    use tokio::time::timeout;

    use super::*;

    async fn told(notices: &Notices) -> bool {
        timeout(Duration::from_secs(20), notices.changed()).await.is_ok()
    }

    /// Takes in what is still told of the past.
    async fn cover_until_quiet(notices: &mut Notices) {
        notices.cover().expect("few directories");
        while timeout(Duration::from_millis(200), notices.changed()).await.is_ok() {
            notices.cover().expect("few directories");
        }
    }

    fn notices(root: &Path, left_out: Option<PathBuf>) -> Notices {
        let mut notices = Notices::new(root.to_owned(), left_out).expect("watches to be had");
        notices.cover().expect("few directories");
        notices
    }

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let root = dir.path().canonicalize().expect("there");
        (dir, root)
    }

    #[tokio::test]
    async fn a_change_at_any_depth_is_told_also_in_directories_made_later() {
        let (_dir, root) = scratch();
        fs::create_dir_all(root.join("a/b/c")).expect("new");
        let mut notices = notices(&root, None);
        fs::write(root.join("a/b/c/file"), b"x").expect("space");
        assert!(told(&notices).await);
        fs::create_dir_all(root.join("a/new/deep/er")).expect("new");
        assert!(told(&notices).await);
        cover_until_quiet(&mut notices).await;
        fs::write(root.join("a/new/deep/er/file"), b"x").expect("space");
        assert!(told(&notices).await);
    }

    #[tokio::test]
    async fn a_directory_that_was_moved_is_covered_again() {
        let (_dir, root) = scratch();
        fs::create_dir_all(root.join("a/b")).expect("new");
        let mut notices = notices(&root, None);
        fs::rename(root.join("a"), root.join("moved")).expect("there");
        assert!(told(&notices).await);
        cover_until_quiet(&mut notices).await;
        fs::write(root.join("moved/b/file"), b"x").expect("space");
        assert!(told(&notices).await);
    }

    fn event(kind: EventKind, path: &str) -> notify::Result<Event> {
        Ok(Event::new(kind).add_path(path.into()))
    }

    /// Whether an event is told, and whether it calls for covering again.
    async fn taken(event: notify::Result<Event>, left_out: Option<&str>) -> (bool, bool) {
        let told = Told::default();
        told.take(event, left_out.map(Path::new));
        let changed = timeout(Duration::ZERO, told.changed.notified()).await.is_ok();
        (changed, told.uncovered.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn reading_and_what_is_left_out_is_no_change() {
        let write = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert_eq!(taken(event(open, "/r/a"), None).await, (false, false));
        assert_eq!(taken(event(closed, "/r/a"), None).await, (true, false));
        assert_eq!(taken(event(write, "/r/a"), None).await, (true, false));
        assert_eq!(taken(event(write, "/r/state/a"), Some("/r/state")).await, (false, false));
        assert_eq!(taken(event(write, "/r/statement"), Some("/r/state")).await, (true, false));
        let moved_out = Event::new(EventKind::Modify(ModifyKind::Name(RenameMode::Both)))
            .add_path("/r/state/a".into())
            .add_path("/r/b".into());
        assert_eq!(taken(Ok(moved_out), Some("/r/state")).await, (true, false));
    }

    #[tokio::test]
    async fn an_overflow_or_a_new_directory_calls_for_covering_again() {
        let folder = EventKind::Create(CreateKind::Folder);
        assert_eq!(taken(event(folder, "/r/a"), None).await, (true, true));
        assert_eq!(taken(event(EventKind::Create(CreateKind::File), "/r/a"), None).await, (true, false));
        let (_dir, root) = scratch();
        let moved = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        assert_eq!(taken(event(moved, root.to_str().expect("text")), None).await, (true, true));
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(taken(Ok(overflow), Some("/r")).await, (true, true));
        assert_eq!(taken(Err(Error::generic("broken")), None).await, (true, true));
    }

    #[test]
    fn too_few_watches_are_told_in_words() {
        let full = Error::new(ErrorKind::MaxFilesWatch).add_path("/r/a".into());
        let NoNotices(why) = no_notices(&full);
        assert!(why.contains("fs.inotify.max_user_watches") && why.contains("/r/a"), "{why}");
        let NoNotices(why) = no_notices(&Error::io(io::Error::from_raw_os_error(EMFILE)));
        assert!(why.contains("fs.inotify.max_user_instances"), "{why}");
    }
}
