//! How a verb behaves: what an embedder may set, with defaults that work.

use std::time::Duration;

use deltasync_core::Algorithm;
use deltasync_io::{Bandwidth, BandwidthTooLow};
use deltasync_proto::{Condition, Config, TreeOptions};

use crate::{Retries, State};

/// Settings of all verbs that talk to a server or run the engine in the process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The settings of each session.
    pub config: Config,
    /// How long connecting to a server may take, the look-up of its name included (default 10 s).
    pub connect_timeout: Duration,
    /// Where pushes to servers are remembered, so that the next one needs less; `None` (the default) for nowhere.
    pub state: Option<State>,
    /// How often and how patiently a connection to a server is tried again (default 5 times in a row).
    pub retries: Retries,
    /// How many bytes a second a verb may move over its connections, both ways together (default: any number). As many
    /// transfers run at once as [`Bandwidth::transfers`] says.
    pub bandwidth: Option<Bandwidth>,
    /// How many connections to one server a push or pull may use at once, 1 to [`Options::CONNECTIONS_MAX`] (default 1). Those
    /// beyond the first are made once there is something for them: another file, or large files of a directory.
    pub connections: usize,
    /// How a directory is transferred (default: all of it takes part, and what only the destination has stays).
    pub tree: TreeOptions,
    /// What a push or pull of a single file or directory may replace (default [`Condition::Any`]: whatever is there). A root is in the
    /// algorithm of the session. Other verbs replace nothing.
    pub condition: Condition,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: Config::default(),
            connect_timeout: Duration::from_secs(10),
            state: None,
            retries: Retries::default(),
            bandwidth: None,
            connections: 1,
            tree: TreeOptions::default(),
            condition: Condition::Any,
        }
    }
}

impl Options {
    /// The most connections to one server.
    pub const CONNECTIONS_MAX: usize = 16;

    /// Sets the settings of each session.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets which digest roots are announced, asked for and compared in.
    #[must_use]
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.config = self.config.algorithm(algorithm);
        self
    }

    /// Sets how long connecting to a server may take.
    #[must_use]
    pub fn connect_timeout(mut self, within: Duration) -> Self {
        self.connect_timeout = within;
        self
    }

    /// Sets where pushes to servers are remembered.
    #[must_use]
    pub fn state(mut self, state: State) -> Self {
        self.state = Some(state);
        self
    }

    /// Sets how often and how patiently a connection is tried again.
    #[must_use]
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// Sets how many bytes a second a verb may move.
    #[must_use]
    pub fn bandwidth(mut self, bandwidth: Bandwidth) -> Self {
        self.bandwidth = Some(bandwidth);
        self
    }

    /// Sets how many connections to one server may be used at once.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, Self::CONNECTIONS_MAX);
        self
    }

    /// With an equal share of the bandwidth for each of so many connections.
    pub(crate) fn shared(&self, connections: usize) -> Result<Self, BandwidthTooLow> {
        let mut options = self.clone();
        if let Some(bandwidth) = self.bandwidth {
            options.bandwidth = Some(Bandwidth::new(bandwidth.bytes() / connections.max(1) as u64)?);
        }
        Ok(options)
    }

    /// Sets how a directory is transferred.
    #[must_use]
    pub fn tree(mut self, tree: TreeOptions) -> Self {
        self.tree = tree;
        self
    }

    /// Sets what a push or pull of a single file or directory may replace.
    #[must_use]
    pub fn condition(mut self, condition: Condition) -> Self {
        self.condition = condition;
        self
    }
}
