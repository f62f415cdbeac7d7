//! What the dashboard remembers over a restart: history, errors, findings, and what moved in the last hour and day.
//!
//! It is one small file of JSON in the served directory's own one, replaced as a whole a few seconds after something has
//! changed, and when the server ends: a crash takes the last seconds, never what was there before. It is written by a
//! thread of its own, from a copy, so that no transfer waits for it. A file that cannot be read costs the history, which
//! the log tells, and nothing else.
//!
//! Bounded like the lists themselves: 200 ended transfers, 100 errors, 100 findings, 157 samples; at most 1 MiB in all.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use deltasync_io::LocalStorage;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use crate::meter::KeptMeter;
use crate::state::{ERRORS_MAX, FINDINGS_MAX, HISTORY_MAX};
use crate::{EndedState, ErrorState, FindingState, SharedBoard};

/// The name of the file.
const NAME: &str = "dashboard";
/// The most bytes of it.
const BYTES_MAX: usize = 2 << 20;
/// How often it is looked whether there is something new, and how much room the disk has.
const EVERY: Duration = Duration::from_secs(5);
/// How long the end of a server waits for the last version to be written.
const PATIENCE: Duration = Duration::from_secs(2);

/// What outlives a restart; lists run from the newest to the oldest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    pub(crate) history: Vec<EndedState>,
    pub(crate) errors: Vec<ErrorState>,
    pub(crate) findings: Vec<FindingState>,
    pub(crate) meter: KeptMeter,
}

impl Kept {
    /// With lists of our lengths, in order, and texts made visible: a file may have been changed by hand.
    pub(crate) fn bound(self) -> Self {
        fn sorted<T>(mut list: Vec<T>, most: usize, number: fn(&T) -> u64, bound: fn(T) -> T) -> Vec<T> {
            list.sort_by_key(|item| std::cmp::Reverse(number(item)));
            list.dedup_by_key(|item| number(item));
            list.into_iter().take(most).map(bound).collect()
        }
        Self {
            history: sorted(self.history, HISTORY_MAX, |ended| ended.number, EndedState::bound),
            errors: sorted(self.errors, ERRORS_MAX, |error| error.number, ErrorState::bound),
            findings: sorted(self.findings, FINDINGS_MAX, |finding| finding.number, FindingState::bound),
            meter: self.meter,
        }
    }

    /// What an earlier server kept; nothing when there is none, or it cannot be read.
    pub(crate) fn load(storage: &LocalStorage) -> Self {
        let parse = |bytes: Option<Vec<u8>>| match bytes {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            None => Ok(Self::default()),
        };
        storage.kept(NAME, BYTES_MAX).and_then(parse).unwrap_or_else(|error| {
            tracing::warn!(%error, "the dashboard's history cannot be read and begins anew");
            Self::default()
        })
    }
}

/// Keeps what is on a board, and tells it how much room its disk has.
#[derive(Debug)]
pub(crate) struct Keeper {
    storage: Arc<LocalStorage>,
    board: Arc<SharedBoard>,
    /// What was on the board when it was kept last.
    news: [u64; 5],
}

impl Keeper {
    pub(crate) fn new(storage: Arc<LocalStorage>, board: Arc<SharedBoard>) -> Self {
        Self { storage, board, news: [0; 5] }
    }

    /// Does so until `ended`, and once more then.
    pub(crate) async fn run(mut self, ended: impl Future<Output = ()>) {
        let mut ended = std::pin::pin!(ended);
        loop {
            self.look_at_disk().await;
            tokio::select! {
                () = sleep(EVERY) => self.keep().await,
                () = &mut ended => break,
            }
        }
        // A disk that hangs must not hold up the end.
        let _ = timeout(PATIENCE, self.keep()).await;
    }

    /// Writes what is on the board, if there is something new.
    async fn keep(&mut self) {
        let news = self.board.with(|board, _| board.news());
        if news == self.news {
            return;
        }
        self.news = news;
        let kept = self.board.with(|board, _| board.keep());
        let storage = self.storage.clone();
        let write = move || storage.keep(NAME, &serde_json::to_vec(&kept).expect("plain data always becomes JSON"));
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(%error, "the dashboard's history cannot be kept");
        }
    }

    async fn look_at_disk(&self) {
        let storage = self.storage.clone();
        if let Ok(Ok(Some(space))) = tokio::task::spawn_blocking(move || storage.space()).await {
            self.board.with(|board, _| board.disk(space.free, space.total));
        }
    }
}

#[cfg(test)]
mod tests {
    use deltasync_io::LocalOptions;
    use tempfile::TempDir;

    use super::*;

    fn serve(directory: &TempDir) -> Arc<LocalStorage> {
        Arc::new(LocalStorage::serve(directory.path(), LocalOptions::default()).expect("a directory"))
    }

    #[test]
    fn what_is_no_history_is_none() {
        let directory = TempDir::new().expect("a temporary directory");
        let storage = serve(&directory);
        assert_eq!(Kept::load(&storage), Kept::default());
        for bad in [&b"{\"history\":[{\"number\":"[..], b"\0\0\0\0", b"", b"[]"] {
            storage.keep(NAME, bad).expect("room");
            assert_eq!(Kept::load(&storage), Kept::default());
        }
        storage.keep(NAME, &vec![b' '; BYTES_MAX + 1]).expect("room");
        assert_eq!(Kept::load(&storage), Kept::default());
    }

    #[test]
    fn a_history_changed_by_hand_is_put_in_order() {
        let ended = |number, path: &str| EndedState { number, path: path.to_owned(), ..EndedState::default() };
        let history = vec![ended(3, "c\u{202e}"), ended(9, "i"), ended(3, "again"), ended(4, "d")];
        let kept = Kept { history, ..Kept::default() }.bound();
        let paths: Vec<&str> = kept.history.iter().map(|ended| &ended.path[..]).collect();
        assert_eq!(paths, ["i", "d", "c\\u{202e}"]);
    }

    #[test]
    fn the_largest_history_fits_into_its_file() {
        let path = "\u{1f600}".repeat(400);
        let ended = EndedState { path: path.clone(), error: Some(path.clone()), ..EndedState::default() };
        let error = ErrorState { path: Some(path.clone()), message: path.clone(), ..ErrorState::default() };
        let finding = FindingState { path: path.clone(), message: path, ..FindingState::default() };
        let numbered = |number| EndedState { number, ..ended.clone() };
        let errors = (0..999).map(|number| ErrorState { number, ..error.clone() }).collect();
        let findings = (0..999).map(|number| FindingState { number, ..finding.clone() }).collect();
        let kept = Kept { history: (0..999).map(numbered).collect(), errors, findings, meter: KeptMeter::default() };
        let len = serde_json::to_vec(&kept.bound()).expect("plain data").len();
        assert!(len < BYTES_MAX / 2, "{len}");
    }
}
