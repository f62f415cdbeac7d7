//! How many files and sockets this process may have open: as many as it can get, and enough for its connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not connections: the root, the index, opened files of some transfers, the dashboard, the log.
const BESIDE: u64 = 512;

/// Raises the soft limit of open descriptors to the hard one, and returns it; `None` when there is none.
pub fn raise_descriptors() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
        return current;
    }
    maximum
}

/// How many connections `descriptors` are enough for, of so many that are wanted.
pub(crate) fn connections_within(descriptors: Option<u64>, wanted: usize) -> usize {
    let Some(descriptors) = descriptors else { return wanted };
    // Each may have a file open, and the half of a small limit is better than none.
    let most = descriptors.saturating_sub(BESIDE).max(descriptors / 2);
    wanted.min(usize::try_from(most).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_files() {
        assert_eq!(connections_within(None, 9000), 9000);
        assert_eq!(connections_within(Some(1 << 20), 9000), 9000);
        assert_eq!(connections_within(Some(2048), 9000), 1536);
        assert_eq!(connections_within(Some(100), 9000), 50);
    }
}
