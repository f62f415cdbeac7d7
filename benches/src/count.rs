//! Counts what a push costs on the wire: real sessions in memory, a link of 25 ms each way on a virtual clock.
//!
//! Three columns, see [`Column`]. Where the old file is known, it was pushed before by another pair of sessions over the
//! same storages, and what those remembered of it is all that the second pair has.

use std::sync::Arc;
use std::time::Duration;

use deltasync_io::{KeepForm, MemoryStorage};
use deltasync_proto::{Config, RootId};
use deltasync_testkit::{Link, Pair, Ran, file, push as push_command};

use crate::{Column, Files};

/// What a push cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Bytes on the wire, both ways, everything above TCP.
    pub bytes: u64,
    /// How often the client waited for an answer.
    pub round_trips: u32,
}

/// Why nothing could be counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CountError {
    /// A transfer failed.
    #[error("the transfer failed: {0}")]
    Failed(String),
    /// The transfer said it was done, and what is there is not the new file.
    #[error("what was published is not the new file")]
    Differs,
}

/// Pushes the new file over the old one and counts. One seed is one run.
///
/// # Errors
///
/// [`CountError`]: a bug in what is counted.
pub fn push(files: &Files, column: Column, seed: u64) -> Result<Counted, CountError> {
    let (local, remote) = (Arc::new(MemoryStorage::new()), Arc::new(MemoryStorage::new()));
    match column {
        Column::Cold => remote.insert(RootId::new(0), file(), files.old.clone()),
        Column::Sums | Column::Copy => {
            keep(&local, column);
            local.insert(RootId::new(0), file(), files.old.clone());
            run(seed ^ 1 << 32, &local, &remote)?;
        }
    }
    local.insert(RootId::new(0), file(), files.new.clone());
    let ran = run(seed, &local, &remote)?;
    if remote.get(RootId::new(0), &file()).as_ref() != Some(&files.new) {
        return Err(CountError::Differs);
    }
    Ok(Counted { bytes: ran.wire(), round_trips: ran.round_trips() })
}

/// Has a storage keep what `column` says of the files that both ends have.
fn keep(storage: &MemoryStorage, column: Column) {
    storage.keep(match column {
        Column::Sums => KeepForm::Sums,
        Column::Cold | Column::Copy => KeepForm::Copy,
    });
}

fn run(seed: u64, local: &Arc<MemoryStorage>, remote: &Arc<MemoryStorage>) -> Result<Ran, CountError> {
    let link = Link::perfect().delay(Duration::from_millis(25));
    let ran = Pair::new(seed)
        .over(local.clone(), remote.clone())
        .link(link)
        .client_config(Config::default().remember(true))
        .command(push_command(file(), file()))
        .run_to_end();
    let failed = |error: &dyn std::error::Error| CountError::Failed(error.to_string());
    ran.client.as_ref().map_err(|error| failed(error))?;
    ran.server.as_ref().map_err(|error| failed(error))?;
    ran.outcomes[0].as_ref().map_err(|error| failed(error))?;
    Ok(ran)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    fn files(shape: Shape) -> Files {
        let case = shape.case(1, 1 << 20);
        Files { old: case.basis.into(), new: case.target.into(), floor: 0 }
    }

    #[test]
    fn what_is_counted_is_what_a_push_costs() {
        let same = push(&files(Shape::Identical), Column::Cold, 1).expect("an honest run");
        assert_eq!(same.round_trips, 1);
        assert!((100..20_000).contains(&same.bytes), "{same:?}");
        let unrelated = push(&files(Shape::Unrelated), Column::Cold, 1).expect("an honest run");
        assert!(((1 << 20)..(1 << 20) + 20_000).contains(&unrelated.bytes), "{unrelated:?}");
    }

    #[test]
    fn a_count_is_its_seed() {
        let files = files(Shape::ScatteredEdits);
        assert_eq!(push(&files, Column::Cold, 7), push(&files, Column::Cold, 7));
    }
}
