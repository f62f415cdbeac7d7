//! A file of ours that may stand in for a damaged copy at the server.
//!
//! A server that finds its copy damaged refuses to send it and tells what it was published as. The file that a pull would
//! bring up to date often has just that content: it is hashed, and if so it is pushed back. Nothing of ours changes.
//!
//! What is pushed back must not undo what another writer publishes meanwhile. So it is first pushed on the condition that
//! the published content is there: either it is again, and all is well, or the server tells what is there instead. What
//! no commit has published is the damaged content, and just that is replaced then. What a commit has published is newer,
//! and is pulled.
//!
//! Cost: one more pass over our file, and two pushes, of which one moves no content.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use deltasync_core::{Algorithm, Digest, Generation, RelPath};
use deltasync_proto::{
    Command, Condition, Destination, EventKind, Outcome, Place, Refusal, RefusalCode, RootId, TransferError, Version,
};
use tokio_util::sync::CancellationToken;

use crate::ClientError;
use crate::exchange::Batch;
use crate::link::{LinkPlan, Peer};
use crate::verify::root_of;

/// What a pull would bring up to date, and with what.
#[derive(Clone, Debug)]
pub(crate) struct Spare {
    /// Who has the copy that may be damaged.
    pub(crate) peer: Peer,
    /// The path there.
    pub(crate) remote: RelPath,
    /// The directory of ours that `target` is in.
    pub(crate) root: PathBuf,
    /// Our file.
    pub(crate) target: Destination,
    /// What may be replaced of ours.
    pub(crate) condition: Condition,
}

/// The end of a pull whose source is damaged.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    /// The verb's number of the transfer.
    pub(crate) index: usize,
    refusal: Refusal,
    published: Version,
}

/// What to do next about a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Push ours, to replace the content with this root.
    Push(Digest),
    /// Pull again.
    Pull,
}

impl Damage {
    /// The damage that a transfer ended with, if that is how it ended and what should be there is known.
    pub(crate) fn of(index: usize, kind: &EventKind) -> Option<Self> {
        match kind {
            EventKind::Ended(Err(TransferError::Refused(refusal))) if refusal.code == RefusalCode::Damaged => {
                let published = refusal.current?;
                Some(Self { index, refusal: refusal.clone(), published })
            }
            _ => None,
        }
    }

    /// The root of what should be there.
    pub(crate) fn published(&self) -> Digest {
        self.published.root
    }

    /// How the transfer ended.
    pub(crate) fn error(&self) -> TransferError {
        TransferError::Refused(self.refusal.clone())
    }

    /// The same, when our copy was pushed and that failed so.
    pub(crate) fn unrepaired(&self, error: TransferError) -> ClientError {
        ClientError::Damaged { published: Some(self.published), repair: Some(Box::new(error)) }
    }

    /// What to do after a step that ended so; `None` when that is the end.
    pub(crate) fn after(&self, step: Repair, result: &Result<Outcome, TransferError>) -> Option<Repair> {
        let (Repair::Push(replaced), Err(TransferError::Refused(refusal))) = (step, result) else { return None };
        if refusal.code != RefusalCode::Conflict {
            return None;
        }
        match refusal.current {
            Some(Version { generation: Generation::ZERO, root }) if replaced == self.published.root => {
                Some(Repair::Push(root))
            }
            _ => Some(Repair::Pull),
        }
    }
}

impl Spare {
    /// True when our file has the content that the server's should have.
    pub(crate) async fn is_whole(&self, damage: &Damage, algorithm: Algorithm, cancel: &CancellationToken) -> bool {
        let Some(path) = self.path() else { return false };
        let ours = self.root.join(OsStr::from_bytes(path.as_bytes()));
        let (token, published) = (cancel.clone(), damage.published.root);
        let equal = move || {
            // The server may have published it in another algorithm than we ask for.
            let other = Algorithm::ALL.into_iter().filter(|other| *other != algorithm);
            let mut algorithms = [algorithm].into_iter().chain(other);
            algorithms.any(|algorithm| root_of(&ours, algorithm, &token).is_ok_and(|(_, root)| root == published))
        };
        tokio::task::spawn_blocking(equal).await.unwrap_or(false)
    }

    /// The transfer that does a step.
    pub(crate) fn batch(&self, index: usize, step: Repair) -> Batch {
        let command = match step {
            Repair::Push(root) => Command::Push {
                source: Place { root: RootId::new(0), path: self.path().unwrap_or(RelPath::ROOT) },
                path: self.remote.clone(),
                name: self.target.name.clone(),
                directory: false,
                condition: Condition::Root(root),
            },
            Repair::Pull => {
                Command::Pull { path: self.remote.clone(), destination: self.target.clone(), condition: self.condition }
            }
        };
        let link = LinkPlan {
            peer: self.peer.clone(),
            roots: vec![self.root.clone()],
            known: None,
            walks: deltasync_io::Walks::default(),
        };
        Batch { link, commands: vec![(index, command)] }
    }

    /// Our file, below `root`.
    fn path(&self) -> Option<RelPath> {
        let Destination { place, name, directory } = &self.target;
        if *directory { place.path.join(name).ok() } else { Some(place.path.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: RefusalCode, current: Option<Version>) -> TransferError {
        TransferError::Refused(Refusal { code, message: "no".into(), current })
    }

    fn version(byte: u8, generation: u64) -> Version {
        Version { root: Digest::from_bytes([byte; 32]), generation: Generation::new(generation) }
    }

    #[test]
    fn only_what_no_commit_has_published_is_replaced() {
        let (published, lost) = (version(1, 7), version(2, 0));
        let ended = |error| EventKind::Ended(Err(error));
        let damage = Damage::of(3, &ended(refused(RefusalCode::Damaged, Some(published)))).expect("it is");
        let first = Repair::Push(published.root);
        let after = |step, current| damage.after(step, &Err(refused(RefusalCode::Conflict, current)));
        assert_eq!(after(first, Some(lost)), Some(Repair::Push(lost.root)));
        assert_eq!(after(first, Some(version(3, 8))), Some(Repair::Pull), "somebody has published it");
        assert_eq!(after(first, None), Some(Repair::Pull), "somebody has removed it");
        let second = Repair::Push(lost.root);
        for current in [Some(version(3, 8)), Some(version(4, 0)), None] {
            assert_eq!(after(second, current), Some(Repair::Pull), "it changed under our hands");
            assert_eq!(after(Repair::Pull, current), None, "that is the end");
        }
        assert_eq!(damage.after(first, &Ok(Outcome::default())), None);
        assert_eq!(damage.after(first, &Err(refused(RefusalCode::Full, None))), None);
    }

    #[test]
    fn what_is_not_said_to_be_damaged_or_not_what_it_should_be_is_no_damage_to_repair() {
        for error in [refused(RefusalCode::Damaged, None), refused(RefusalCode::Conflict, Some(version(1, 7)))] {
            assert!(Damage::of(0, &EventKind::Ended(Err(error))).is_none());
        }
        assert!(Damage::of(0, &EventKind::Ended(Ok(Outcome::default()))).is_none());
    }
}
