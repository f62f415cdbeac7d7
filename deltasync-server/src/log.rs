//! Where the log goes and how its lines look.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How the lines of the log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Sends the log of the whole process to standard error; `RUST_LOG` filters it, `info` unless set. Has no effect when
    /// a log is in place already.
    pub fn install(self) {
        let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
        // It fails only when an embedder's log is in place, which then is the one to use.
        let _ = match self {
            Self::Text => lines.with_ansi(stderr().is_terminal()).try_init(),
            Self::Json => lines.json().flatten_event(true).try_init(),
        };
    }
}
