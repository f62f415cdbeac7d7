//! The dashboard as a program of its own, over the state of one or several servers.
//!
//! Each server is asked once a second, by a task of its own, so that one that hangs delays no other. What it last said
//! stays on show, marked as old, while it does not answer.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::access::Access;
use crate::feed::{Draft, Publisher, render};
use crate::http::{self, Site};
use crate::poll::poll;
use crate::text::{MESSAGE_MAX, visible};
use crate::viewer::PACE;
use crate::{FORMAT, Fleet, FleetServer, Guard, Shutdown, Token, metrics};

/// Settings of a dashboard over several servers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DashboardConfig {
    /// The dashboard addresses of the servers, `HOST:PORT` each.
    pub servers: Vec<String>,
    /// Names under which this dashboard may be reached besides its address and loopback, with or without a port.
    pub hosts: Vec<String>,
    /// Whom this dashboard lets in (default: who is on this machine).
    pub guard: Guard,
    /// What lets this dashboard see the servers, the same for all of them; every one of them learns it.
    pub token: Option<Token>,
    /// The time between two questions to a server (default 1 s).
    pub interval: Duration,
}

impl DashboardConfig {
    /// A dashboard over the servers whose own dashboards are at these addresses.
    pub fn new(servers: Vec<String>) -> Self {
        Self { servers, hosts: Vec::new(), guard: Guard::default(), token: None, interval: Duration::from_secs(1) }
    }

    /// Sets names under which this dashboard may be reached.
    #[must_use]
    pub fn hosts(mut self, hosts: Vec<String>) -> Self {
        self.hosts = hosts;
        self
    }

    /// Sets whom this dashboard lets in.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guard = guard;
        self
    }

    /// Sets what lets this dashboard see the servers.
    #[must_use]
    pub fn token(mut self, token: Option<Token>) -> Self {
        self.token = token;
        self
    }

    /// Sets the time between two questions to a server.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }
}

/// Opens the socket of a dashboard at `HOST:PORT`.
///
/// # Errors
///
/// When the address is not one of this machine or is in use; the message names it.
pub async fn bind_dashboard(address: &str) -> io::Result<TcpListener> {
    crate::server::bind(address).await
}

/// Shows the servers until `shutdown`.
///
/// # Errors
///
/// When the system does not say where the socket is, or the guard does not allow it ([`Guard::allows`]). What a server or a viewer causes never ends the dashboard.
pub async fn run_dashboard(listener: TcpListener, config: DashboardConfig, mut shutdown: Shutdown) -> io::Result<()> {
    let address = listener.local_addr()?;
    let access = Arc::new(Access::new(address, &config.hosts, &config.guard)?);
    config.guard.warn(address);
    let unheard = |address: &String| FleetServer {
        address: address.clone(),
        error: Some("not asked yet".to_owned()),
        ..FleetServer::default()
    };
    let fleet = Fleet { format: FORMAT, servers: config.servers.iter().map(unheard).collect() };
    let shared = Arc::new(Shared { fleet: Mutex::new(fleet), changed: Notify::new() });
    let mut publisher = Publisher::new();
    shared.publish(&mut publisher);
    let mut tasks = JoinSet::new();
    tasks.spawn(http::serve(listener, Site { access, feed: publisher.feed() }));
    for (at, server) in config.servers.into_iter().enumerate() {
        tasks.spawn(watch(shared.clone(), at, server, config.token.clone(), config.interval));
    }
    tasks.spawn(async move {
        loop {
            shared.changed.notified().await;
            shared.publish(&mut publisher);
            sleep(PACE).await;
        }
    });
    shutdown.finishing().await;
    tasks.shutdown().await;
    Ok(())
}

struct Shared {
    fleet: Mutex<Fleet>,
    changed: Notify,
}

impl Shared {
    fn publish(&self, publisher: &mut Publisher) {
        let fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let servers = fleet.servers.iter().map(render).collect();
        let fields = vec![("format", Draft::Value(render(&fleet.format))), ("servers", Draft::Row(servers))];
        publisher.publish(fields, metrics::of_fleet(&fleet));
    }
}

/// Asks one server again and again.
async fn watch(shared: Arc<Shared>, at: usize, address: String, token: Option<Token>, interval: Duration) {
    let mut was_reachable = None;
    loop {
        let answer = poll(&address, token.as_ref()).await;
        if was_reachable.replace(answer.is_ok()) != Some(answer.is_ok()) {
            match &answer {
                Ok(state) => tracing::info!(address, version = state.server.version, "server answers"),
                Err(error) => tracing::warn!(address, %error, "server does not answer"),
            }
        }
        {
            let mut fleet = shared.fleet.lock().unwrap_or_else(PoisonError::into_inner);
            let server = &mut fleet.servers[at];
            server.reachable = answer.is_ok();
            match answer {
                Ok(state) => {
                    server.error = None;
                    server.state = Some(state);
                }
                Err(error) => server.error = Some(visible(&error.to_string(), MESSAGE_MAX)),
            }
        }
        shared.changed.notify_one();
        sleep(interval).await;
    }
}
