//! The deltasync server and its dashboard.
//!
//! A server is [`run`]: it takes connections, drives a session of `deltasync-proto` over each by `deltasync-io`, and puts
//! everything that these report on a [`Board`]. The dashboard shows the board's [`State`] over HTTP: a page, the same as
//! JSON, a stream of changes, metrics. [`run_dashboard`] serves that page over the states of several servers, a [`Fleet`].
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use deltasync_io::{LocalOptions, LocalStorage, Threads};
//! use deltasync_server::{Listeners, ServerConfig, Shutdown, run};
//!
//! # async fn serve() -> std::io::Result<()> {
//! let files = LocalStorage::serve("/srv/files", LocalOptions::default())?;
//! let storage = Arc::new(Threads::new(Arc::new(files), Threads::for_this_machine()));
//! let listeners = Listeners::bind("127.0.0.1:7440", Some("127.0.0.1:7441")).await?;
//! run(listeners, storage, ServerConfig::default(), Shutdown::on_signals()?).await
//! # }
//! ```
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod text;

mod ring;

mod spread;
pub use spread::{Histogram, Spread, Spreads};

mod state;
pub use state::{
    BlockState, ClientState, Ended, EndedState, ErrorState, FORMAT, Failures, FindingState, Moved, PassState, Savings,
    ScrubState, ServerState, State, Throughput, Totals, TransferState,
};

mod meter;

mod running;

mod board;
pub use board::{Board, ClientId};

mod shared;
pub use shared::SharedBoard;

mod kept;

mod fleet;
pub use fleet::{Fleet, FleetServer};

mod metrics;

mod feed;

mod viewer;

mod host;
pub use host::Hosts;

mod access;
pub use access::{Access, Guard, Token};

mod limits;
pub use limits::ServerLimits;

mod descriptors;
pub use descriptors::raise_descriptors;

mod paced;

mod accept;

mod refusal;

mod prompt;

mod assets;

mod http;

mod fuzz;
#[doc(hidden)]
pub use fuzz::fuzz_http;

mod shutdown;
pub use shutdown::{Shutdown, Stopper};

mod connection;

mod scrub;
pub use scrub::Scrubbing;

mod control;

mod scrub_command;
pub use scrub_command::{Scrubbed, scrub_directory};

mod server;
pub use server::{DetachedListeners, Listeners, ServerConfig, run, serve_dashboard};

mod poll;

mod dashboard;
pub use dashboard::{DashboardConfig, bind_dashboard, run_dashboard};

mod log;
pub use log::LogFormat;

mod sandbox;
pub use sandbox::{Sandbox, SandboxError};

mod program;
pub use program::run_program;
