//! What was found in a served directory when it was opened, and put right.

use std::fmt;

use deltasync_core::Generation;

/// What [`LocalStorage::serve`](crate::LocalStorage::serve) had to put right. Displayed, it is a line for each thing that an
/// operator should know of, and nothing when all was well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Why the index was set aside and an empty one begun: the generations of all files are unknown until they are
    /// published again, which costs who remembers one a second trip, and what was kept of replaced files is gone.
    pub index_rebuilt: Option<String>,
    /// Why there is no index for now. It is tried again later.
    pub index_unavailable: Option<String>,
    /// Where the count of commits goes on, when its mark was lost with the index: numbers after this one may have been
    /// given before.
    pub count_lost: Option<Generation>,
    /// How many stages an earlier server left, which were removed.
    pub stages_removed: u64,
    /// How many replaced files nobody knew of any more, or had no room, which were removed.
    pub history_removed: u64,
}

impl Recovery {
    /// True when all was as a server leaves it.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        if let Some(why) = &self.index_rebuilt {
            lines.push(format!("the index was damaged and is begun anew, generations are unknown at first: {why}"));
        }
        if let Some(why) = &self.index_unavailable {
            lines.push(format!("the index cannot be used for now: {why}"));
        }
        if let Some(last) = self.count_lost {
            lines.push(format!("the count of commits was lost, it goes on from {last}"));
        }
        if self.stages_removed > 0 {
            lines.push(format!("removed {} unfinished files of an earlier server", self.stages_removed));
        }
        if self.history_removed > 0 {
            lines.push(format!("removed {} replaced files that nobody knew of", self.history_removed));
        }
        f.write_str(&lines.join("\n"))
    }
}
