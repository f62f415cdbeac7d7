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

mod text;

mod ring;

mod state;
pub use state::{
    ClientState, Ended, EndedState, ErrorState, FORMAT, ServerState, State, Throughput, Totals, TransferState,
};

mod meter;

mod running;

mod board;
pub use board::{Board, ClientId};

mod shared;
pub use shared::SharedBoard;

mod fleet;
pub use fleet::{Fleet, FleetServer};

mod metrics;

mod feed;

mod viewer;

mod host;
pub use host::Hosts;

mod accept;

mod refusal;

mod http;

mod shutdown;
pub use shutdown::{Shutdown, Stopper};

mod connection;

mod server;
pub use server::{Listeners, ServerConfig, run, serve_dashboard};

mod poll;

mod dashboard;
pub use dashboard::{DashboardConfig, bind_dashboard, run_dashboard};

mod log;
pub use log::LogFormat;

mod program;
pub use program::run_program;
