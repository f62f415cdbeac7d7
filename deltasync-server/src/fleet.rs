//! The state of several servers, as `GET /api/state` of `deltasync-dashboard` answers it.

use serde::{Deserialize, Serialize};

use crate::State;

/// Several servers, in the order in which they were named.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// [`FORMAT`](crate::FORMAT).
    pub format: u32,
    /// The servers.
    pub servers: Vec<FleetServer>,
}

/// One server, as it was when it last answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetServer {
    /// The address that the dashboard was told.
    pub address: String,
    /// It answered the last time it was asked.
    pub reachable: bool,
    /// Why it did not.
    pub error: Option<String>,
    /// What it said when it last answered.
    pub state: Option<State>,
}
