//! What runs have been through, counted: a simulation proves nothing of what never happened in it.

use std::fmt;
use std::ops::AddAssign;

macro_rules! counted {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Something that can happen in a run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Seen {
            $($(#[$doc])* $name,)*
        }

        impl Seen {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The words for a report.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

counted! {
    /// A push has ended well, and published something.
    Pushed = "push published",
    /// A push found its target there.
    PushedSame = "push found its target there",
    /// A pull has ended well.
    Pulled = "pull ended well",
    /// A file was known to both ends, so that a delta went with the offer.
    Known = "delta against a remembered basis",
    /// A transfer ended as it was cancelled.
    Cancelled = "transfer cancelled",
    /// A transfer ended as a storage failed.
    StorageFailed = "transfer failed by a storage",
    /// A transfer ended as its connection did.
    Lost = "transfer lost with its connection",
    /// A transfer ended as the peer said nothing of it.
    Stalled = "transfer stalled",
    /// A transfer was refused as its condition did not hold.
    ConditionFailed = "condition did not hold",
    /// A pull failed as its local target had changed.
    LocalConflict = "pull found its local target changed",
    /// A transfer ended as the source kept changing, or changed at the peer.
    SourceChanged = "source kept changing",
    /// A transfer ended with the wrong root after all repairs.
    Integrity = "transfer failed by its root",
    /// Another refusal.
    Refused = "other refusal",
    /// A push with a condition has published.
    ConditionHeld = "push under a condition published",
    /// A transfer that was lost was started again and ended well.
    Retried = "lost transfer ended well when started again",
    /// All attempts at a transfer were lost.
    GivenUp = "transfer given up after all attempts",
    /// A commit was refused as another version was there.
    CommitConflict = "commit met another version",
    /// A sender heard of a conflict and went on.
    ConflictAgreed = "sender agreed to replace another version",
    /// A result was sent again, in part.
    Repair = "repair",
    /// A transfer started over as its source had changed.
    Restart = "transfer restarted, source changed",
    /// A link was cut, and what was under way lost.
    Cut = "link cut",
    /// A link was cut, and what was under way arrived.
    CutSoftly = "link cut after what was under way",
    /// A link was cut for one end; what was under way arrived long after.
    CutLate = "link cut, bytes arrived long after",
    /// A link was cut while the server had a commit under way for it.
    CutDuringCommit = "link cut during a commit",
    /// A direction fell silent.
    Silence = "direction fell silent",
    /// A byte was flipped.
    Flip = "byte flipped",
    /// A byte came twice.
    Double = "byte doubled",
    /// A byte was left out.
    Drop = "byte left out",
    /// What was sent at once was lost, and what followed came.
    Lose = "frames left out",
    /// A session gave up on a silent peer.
    TimedOut = "session timed out",
    /// A session found bytes of its peer invalid.
    Invalid = "session closed over damaged bytes",
    /// A recorded connection was played again.
    Replay = "recorded connection played again",
    /// It came to nothing, though its path had a newer version.
    ReplayRefused = "replay came to nothing, newer version kept",
    /// A replay committed, as nothing newer was there.
    ReplayHarmless = "replay committed, nothing newer there",
    /// The server died.
    Crash = "power cut",
    /// A commit was under way, and the new version survived.
    CrashNew = "power cut during a commit, new version left",
    /// A commit was under way, and the old version survived.
    CrashOld = "power cut during a commit, old version left",
    /// The server's files lay on a simulated disk, below the real storage.
    Disk = "runs over a simulated disk",
    /// A call to the disk went wrong.
    DiskFault = "disk call went wrong",
    /// The power was cut in the middle of a commit on a disk.
    Died = "disk died within a commit",
    /// A commit failed and was visible.
    CommitHalf = "commit failed and was visible",
    /// A power cut took back, or brought, what a failed commit had left open.
    TakenBack = "power cut decided over a failed commit",
    /// A storage failed a request.
    Fault = "storage fault",
    /// A commit was made and answered by a fault.
    FaultAfterCommit = "commit made, fault answered",
    /// A storage answered a conflict that was none.
    SpuriousConflict = "spurious conflict",
    /// A source was said to have changed when all but the last of it was sent.
    SaidChanged = "source said to have changed",
    /// Such a source was described anew.
    StartedOver = "changed source described anew",
    /// A storage gave wrong bytes.
    Rot = "bit rot",
    /// A storage took long.
    Slow = "slow storage",
    /// A source was changed while it was sent.
    Edited = "source edited while transfers run",
}

/// How often each thing happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally([u64; Seen::ALL.len()]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; Seen::ALL.len()])
    }
}

impl Tally {
    /// How often this happened.
    pub fn count(&self, seen: Seen) -> u64 {
        self.0[seen as usize]
    }

    /// What never happened, of what should.
    pub fn never(&self) -> Vec<&'static str> {
        Seen::ALL.iter().filter(|seen| self.count(**seen) == 0).map(|seen| seen.name()).collect()
    }

    pub(super) fn add(&mut self, seen: Seen) {
        self.0[seen as usize] += 1;
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Seen::ALL.iter().try_for_each(|seen| writeln!(f, "{:>12}  {}", self.count(*seen), seen.name()))
    }
}
