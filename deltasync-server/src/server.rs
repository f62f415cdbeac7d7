//! The server: a listener whose every connection is a session of its own, and a dashboard beside it.
//!
//! Each connection is a task. What goes wrong in one, a panic too, ends that one. Stopping has two steps: the listener
//! closes and every session is told to finish what runs; what has not ended within the limit, or at the second request,
//! is cut off, which leaves old files whole.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use deltasync_io::{LocalStorage, Storage};
use deltasync_proto::Config;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::accept::accept;
use crate::access::Access;
use crate::connection;
use crate::control;
use crate::descriptors::connections_within;
use crate::feed::Publisher;
use crate::http::{self, Site};
use crate::kept::{Keeper, Kept};
use crate::limits::Origins;
use crate::refusal::Refusals;
use crate::scrub::Scrubber;
use crate::shared::Attached;
use crate::viewer::PACE;
use crate::{Guard, Scrubbing, ServerLimits, SharedBoard, Shutdown, raise_descriptors};

/// Settings of a server. `ServerConfig::default()` suits a machine of its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// How sessions behave; what is also among the limits is taken from there.
    pub session: Config,
    /// What peers may take.
    pub limits: ServerLimits,
    /// How long running transfers may take to end when the server stops (default 30 s).
    pub shutdown: Duration,
    /// Names under which the dashboard may be reached besides its address and loopback, with or without a port.
    pub dashboard_hosts: Vec<String>,
    /// Whom the dashboard lets in (default: who is on this machine).
    pub dashboard_guard: Guard,
    /// The directory that is served: the dashboard's history is kept in its `.deltasync/`, and the room on its disk is shown
    /// (default: neither).
    pub directory: Option<Arc<LocalStorage>>,
    /// How stored files are checked, and the server answers its user (default: not at all).
    pub scrub: Option<Scrubbing>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            session: Config::default(),
            limits: ServerLimits::default(),
            shutdown: Duration::from_secs(30),
            dashboard_hosts: Vec::new(),
            dashboard_guard: Guard::default(),
            directory: None,
            scrub: None,
        }
    }
}

impl ServerConfig {
    /// Sets how sessions behave.
    #[must_use]
    pub fn session(mut self, session: Config) -> Self {
        self.session = session;
        self
    }

    /// Sets what peers may take.
    #[must_use]
    pub fn limits(mut self, limits: ServerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how long running transfers may take to end when the server stops.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Duration) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Sets names under which the dashboard may be reached.
    #[must_use]
    pub fn dashboard_hosts(mut self, hosts: Vec<String>) -> Self {
        self.dashboard_hosts = hosts;
        self
    }

    /// Sets whom the dashboard lets in.
    #[must_use]
    pub fn dashboard_guard(mut self, guard: Guard) -> Self {
        self.dashboard_guard = guard;
        self
    }

    /// Sets the directory in which the dashboard's history is kept, and the room on whose disk it shows.
    #[must_use]
    pub fn directory(mut self, directory: Arc<LocalStorage>) -> Self {
        self.directory = Some(directory);
        self
    }

    /// Sets how stored files are checked, and lets the server's own user ask for it at once.
    #[must_use]
    pub fn scrub(mut self, scrub: Scrubbing) -> Self {
        self.scrub = Some(scrub);
        self
    }
}

/// The sockets of a server, open and listening.
#[derive(Debug)]
pub struct Listeners {
    clients: TcpListener,
    dashboard: Option<TcpListener>,
}

impl Listeners {
    /// A server on these sockets, without a dashboard when there is none for it.
    pub fn new(clients: TcpListener, dashboard: Option<TcpListener>) -> Self {
        Self { clients, dashboard }
    }

    /// Opens the sockets at `HOST:PORT`; a port of 0 takes a free one.
    ///
    /// # Errors
    ///
    /// When an address is not one of this machine or is in use; the message names it.
    pub async fn bind(clients: &str, dashboard: Option<&str>) -> io::Result<Self> {
        let clients = bind(clients).await?;
        let dashboard = match dashboard {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self { clients, dashboard })
    }

    /// Where clients connect.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn clients(&self) -> io::Result<SocketAddr> {
        self.clients.local_addr()
    }

    /// Where the dashboard is.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn dashboard(&self) -> io::Result<Option<SocketAddr>> {
        self.dashboard.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Takes them off their runtime.
    ///
    /// # Errors
    ///
    /// When the system does not let go of them.
    pub fn detach(self) -> io::Result<DetachedListeners> {
        let dashboard = self.dashboard.map(TcpListener::into_std).transpose()?;
        Ok(DetachedListeners { clients: self.clients.into_std()?, dashboard })
    }
}

/// The sockets of a server, open and listening, on no runtime: to open them on one runtime and serve on another, as a
/// program does that enters its [`Sandbox`](crate::Sandbox) in between.
#[derive(Debug)]
pub struct DetachedListeners {
    clients: std::net::TcpListener,
    dashboard: Option<std::net::TcpListener>,
}

impl DetachedListeners {
    /// Puts them on the runtime that this is called on.
    ///
    /// # Errors
    ///
    /// When the system does not take them.
    pub fn attach(self) -> io::Result<Listeners> {
        let clients = TcpListener::from_std(self.clients)?;
        Ok(Listeners { clients, dashboard: self.dashboard.map(TcpListener::from_std).transpose()? })
    }
}

/// Opens one socket.
pub(crate) async fn bind(address: &str) -> io::Result<TcpListener> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    TcpListener::bind(address).await.map_err(failed)
}

/// Serves `storage` to all who connect, until `shutdown`. Raises the process's limit of open files to what it may be.
///
/// # Errors
///
/// When the system does not say where the sockets are, or the guard does not allow the dashboard's ([`Guard::allows`]). What a client causes never ends the server.
pub async fn run(
    listeners: Listeners,
    storage: Arc<dyn Storage>,
    config: ServerConfig,
    shutdown: Shutdown,
) -> io::Result<()> {
    let address = listeners.clients()?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "clients can connect from other machines, and there is no authentication yet");
    }
    let mut beside = JoinSet::new();
    let (board, keeper) = match config.directory.clone() {
        None => (SharedBoard::new(address), None),
        Some(directory) => {
            let board = SharedBoard::restored(address, Kept::load(&directory));
            let (stop, stopped) = oneshot::channel::<()>();
            let keeper = Keeper::new(directory, board.clone());
            let keeping = tokio::spawn(keeper.run(async { drop(stopped.await) }));
            (board, Some((stop, keeping)))
        }
    };
    if let Some(listener) = listeners.dashboard {
        let address = listener.local_addr()?;
        let access = Access::new(address, &config.dashboard_hosts, &config.dashboard_guard)?;
        config.dashboard_guard.warn(address);
        beside.spawn(serve_dashboard(listener, board.clone(), access));
    }
    let scrubber = config.scrub.clone().map(|scrubbing| {
        let listener = scrubbing.storage.control();
        let scrubber = Scrubber::new(scrubbing, board.clone());
        beside.spawn(scrubber.clone().in_background());
        beside.spawn(scrubber.clone().keep_notes());
        match listener {
            Ok(listener) => drop(beside.spawn(control::serve(listener, scrubber.clone()))),
            Err(error) => tracing::warn!(%error, "nobody can ask this server for a scrub"),
        }
        scrubber
    });
    let sessions = take_clients(listeners.clients, &board, storage, &config, shutdown.clone()).await;
    finish(sessions, config.shutdown, shutdown).await;
    beside.shutdown().await;
    if let Some(scrubber) = scrubber {
        scrubber.end().await;
    }
    if let Some((stop, keeping)) = keeper {
        drop(stop);
        log_panic(keeping.await);
    }
    tracing::info!("stopped");
    Ok(())
}

/// Takes connections until `shutdown` asks to finish; what it returns still runs.
async fn take_clients(
    listener: TcpListener,
    board: &Arc<SharedBoard>,
    storage: Arc<dyn Storage>,
    config: &ServerConfig,
    mut shutdown: Shutdown,
) -> JoinSet<()> {
    let mut sessions = JoinSet::new();
    let wanted = config.limits.connections;
    let connections = connections_within(raise_descriptors(), wanted);
    if connections < wanted {
        tracing::warn!(wanted, most = connections, "fewer connections are taken: the limit of open files is too low");
    }
    let free = Arc::new(Semaphore::new(connections));
    let origins = Origins::new(&config.limits);
    let mut refusals = Refusals::default();
    let for_sessions = shutdown.clone();
    let session = config.limits.session(config.session.clone());
    loop {
        let (stream, peer) = tokio::select! {
            connection = accept(&listener, "clients") => connection,
            Some(ended) = sessions.join_next() => {
                log_panic(ended);
                continue;
            }
            () = shutdown.finishing() => break,
        };
        let accepted = Instant::now();
        let turned_away = match (free.clone().try_acquire_owned(), origins.place(peer.ip())) {
            (Ok(permit), Some(place)) => {
                let attached = Attached::new(board.clone(), peer);
                let (storage, config, shutdown) = (storage.clone(), session.clone(), for_sessions.clone());
                sessions.spawn(async move {
                    connection::serve(stream, peer, accepted, place, attached, storage, config, shutdown).await;
                    drop(permit);
                });
                continue;
            }
            (Err(_), _) => format!("all {connections} connections of this server are taken, try again later"),
            (Ok(_), None) => {
                let most = config.limits.connections_per_address;
                format!("all {most} connections of your address are taken, try again later")
            }
        };
        board.with(|board, _| board.refused());
        tracing::warn!(%peer, reason = turned_away, "client turned away");
        refusals.turn_away(stream, peer, connection::busy(turned_away));
    }
    tracing::info!(sessions = sessions.len(), "stopping: no more clients are taken, running transfers end");
    board.with(|board, _| board.finishing());
    sessions
}

/// Waits for the sessions to end, and cuts off those that take too long.
async fn finish(mut sessions: JoinSet<()>, limit: Duration, mut shutdown: Shutdown) {
    let until = Instant::now() + limit;
    loop {
        tokio::select! {
            ended = sessions.join_next() => match ended {
                Some(ended) => log_panic(ended),
                None => return,
            },
            () = sleep_until(until) => break,
            () = shutdown.ended() => break,
        }
    }
    tracing::warn!(sessions = sessions.len(), "cut off sessions that had not ended");
    sessions.shutdown().await;
}

/// Serves the dashboard of a board for as long as it is polled: for embedders that drive sessions by themselves. The
/// board is rendered when it has changed, at most five times a second, once for all viewers.
pub async fn serve_dashboard(listener: TcpListener, board: Arc<SharedBoard>, access: Access) {
    let mut publisher = Publisher::new();
    board.news().into_iter().for_each(|state| publisher.publish_state(state));
    let site = Site { access: Arc::new(access), feed: publisher.feed() };
    let publish = async {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            board.news().into_iter().for_each(|state| publisher.publish_state(state));
        }
    };
    tokio::select! {
        () = http::serve(listener, site) => {}
        () = publish => {}
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task ended by a fault of the server; others go on");
    }
}
