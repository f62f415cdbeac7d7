//! The verbs of deltasync as a library, and the program `deltasync` around them.
//!
//! The story of one [`push`]: each source is looked at, its directory becomes a root of the storage; one connection is
//! made to the server that the destination's [`Place`] names, or to a second session in this very process when it is a
//! path of this machine; every file is a transfer on that connection. A directory is one too, which moves all that is in
//! it but large files; each of these follows by a transfer of its own. What happens comes back as a stream of [`Update`]s
//! for whoever draws it ([`Bars`] does on a terminal). A connection that is lost is made again as often as [`Retries`]
//! says, and what had not ended is asked again; when nothing moves, [`Waits`] says what it waits for. At the end a
//! [`Summary`] tells for each file how it ended and where its bytes came from. A token cancels it. [`watch`] pushes a
//! directory whenever something in it has changed. [`Desk`] is a desktop client without its window.
//!
//! ```
//! use deltasync_client::{Options, Place, push};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(dir: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
//! let backup = Place::parse("deltasync://backup.example/photos/".as_ref())?;
//! # let backup = Place::Local(dir.join("backup/"));
//! let photo = dir.join("photo.raw");
//! # std::fs::write(&photo, [7; 100_000])?;
//! let options = Options::default();
//! let summary = push(&[photo], &backup, &options, &CancellationToken::new(), |_update| {}).await?;
//! println!("{}", summary.line());
//! # assert_eq!(summary.status(), deltasync_client::ExitStatus::Done, "{summary:?}");
//! # assert_eq!(std::fs::read(dir.join("backup/photo.raw"))?, [7; 100_000]);
//! # Ok(())
//! # }
//! # let dir = tempfile::tempdir().expect("a scratch directory");
//! # tokio::runtime::Runtime::new().expect("a runtime").block_on(example(dir.path())).expect("pushed");
//! ```

mod shown;
pub use shown::Shown;

mod place;
pub use place::{InvalidPlace, Place, RemotePlace, Server};

mod base;

mod state;
pub use state::State;

mod retries;
pub use retries::{Retries, Retry};

mod options;
pub use options::Options;

mod connect;
pub use connect::ConnectError;

mod error;
pub use error::{ChangedFile, ClientError, UsageError};

mod hint;

mod exit;
pub use exit::ExitStatus;

mod pace;
pub use pace::{Pace, TimeLeft};

mod update;
pub use update::{TreeProgress, Update};

mod waits;
pub use waits::{Wait, WaitingFor, Waits};

mod gauge;

mod exchange;
mod lanes;
mod link;
mod local;
mod route;

mod summary;
pub use summary::{FileReport, Summary, TreeReport};

mod omissions;
mod spare;
mod tree;

mod transfer;
pub use transfer::{pull, push};

mod prediction;
pub use prediction::{Change, Predicted, PredictedChange, Prediction};

mod predict;
pub use predict::{predict_pull, predict_push};

mod notices;

mod schedule;
pub use schedule::WatchOptions;

mod watch;
pub use watch::{WatchSummary, WatchUpdate, watch};

mod list;
pub use list::{list, root_at};

mod alter;
pub use alter::{make_directory, remove, rename};

mod verify;
pub use verify::{Verified, verify};

mod staged;

mod classic;
pub use classic::{delta, patch, signature};

mod terminal;

mod bars;
pub use bars::Bars;

mod desk;
pub use desk::{
    AddressBook, Alteration, Browser, Desk, DeskAction, DeskEffect, DeskExecutor, DeskFiles, DeskTold, History,
    HistoryEnd, HistoryEntry, Job, JobId, JobState, KeptText, Listing, Live, Moved, Report, RootState, SortBy, Task,
    Trouble, desk_address,
};

#[cfg(feature = "gui")]
mod window;
#[cfg(feature = "gui")]
pub use window::{WindowArgs, run_window};

mod face;

mod filter_args;

mod color;

mod completions;
mod demo;
mod explain;

mod args;
pub use args::Args;

mod config_file;

mod settings;
pub use settings::InvalidCall;

mod run;
pub use run::run;
