//! One connection and the session on it, running as a task: to a server over TCP, or to this very process.
//!
//! Where both ends of a transfer are on this machine, the other end is a second session over a duplex in memory, with a
//! storage of its own: the same engine, the same frames, no server. What happens comes out as [`LinkEvent`]s on one
//! channel that several links share; [`LinkEvent::Closed`] is the last of a link, and there is always one, unless the
//! link is dropped.

use std::path::PathBuf;
use std::sync::Arc;

use deltasync_io::{
    Bandwidth, Control, DriveError, KnownFiles, LocalOptions, LocalStorage, Report, Storage, Threads, Walks, drive,
    entropy,
};
use deltasync_proto::{
    Command, Config, Event, EventKind, FaultKind, RefusalCode, Session, Stats, StorageFault, TransferError, TransferId,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::connect::connect;
use crate::route::LinkId;
use crate::{ClientError, Options, Server, Shown};

/// How much one direction of a connection in memory holds, in bytes: a few pieces of a delta.
const DUPLEX: usize = 4 << 20;

/// The other end of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A server, over TCP.
    Server(Server),
    /// A directory of this machine, in this process.
    Directory(PathBuf),
}

/// What a link is made of.
#[derive(Clone, Debug)]
pub(crate) struct LinkPlan {
    /// The other end.
    pub(crate) peer: Peer,
    /// The directories of our end; `RootId` i is the i-th.
    pub(crate) roots: Vec<PathBuf>,
    /// Where our end remembers what it pushes.
    pub(crate) known: Option<KnownFiles>,
    /// Where our end tells how far it has listed trees.
    pub(crate) walks: Walks,
}

/// What happens on a link.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A connection to a server is being made.
    Connecting,
    /// It is there.
    Connected,
    /// Something happened to a transfer.
    Transfer(Event),
    /// What the link has carried so far.
    Carried(Stats),
    /// It is over.
    Closed(Result<(), ClientError>),
}

/// A running link. Dropping it ends it at once.
#[derive(Debug)]
pub(crate) struct Link {
    /// `None` once it was told to finish.
    controls: Option<UnboundedSender<Control>>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts a link; its events come through `events` with `id`. While it connects, `cancel` ends it.
    pub(crate) fn open(
        id: LinkId,
        plan: LinkPlan,
        options: Options,
        cancel: CancellationToken,
        events: UnboundedSender<(LinkId, LinkEvent)>,
    ) -> Self {
        let (controls, received) = unbounded_channel();
        if options.bandwidth.is_some() {
            let _ = controls.send(Control::Limit(options.bandwidth));
        }
        let task = tokio::spawn(async move {
            // Where nobody listens any more, nobody misses an event.
            let tell = |event| drop(events.send((id, event)));
            let closed = run(plan, &options, &cancel, received, &tell).await;
            tell(LinkEvent::Closed(closed));
        });
        Self { controls: Some(controls), task }
    }

    /// Starts or steers a transfer. A link that is over has told so: the command is dropped.
    pub(crate) fn command(&self, transfer: TransferId, command: Command) {
        if let Some(controls) = &self.controls {
            let _ = controls.send(Control::Command { transfer, command });
        }
    }

    /// Bounds what the link moves from now on.
    pub(crate) fn limit(&self, bandwidth: Bandwidth) {
        if let Some(controls) = &self.controls {
            let _ = controls.send(Control::Limit(Some(bandwidth)));
        }
    }

    /// Lets the link end once all its transfers have.
    pub(crate) fn finish(&mut self) {
        self.controls = None;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    plan: LinkPlan,
    options: &Options,
    cancel: &CancellationToken,
    controls: UnboundedReceiver<Control>,
    tell: &(impl Fn(LinkEvent) + Sync),
) -> Result<(), ClientError> {
    let mut config = options.config.clone().remember(plan.known.is_some());
    if let Some(bandwidth) = options.bandwidth {
        config.transfers = config.transfers.min(bandwidth.transfers());
    }
    let storage = open_storage(plan.roots, plan.known, Some(plan.walks))?;
    match plan.peer {
        Peer::Server(server) => {
            tell(LinkEvent::Connecting);
            let stream = tokio::select! {
                stream = connect(&server, options) => stream?,
                () = cancel.cancelled() => return Err(ClientError::Interrupted),
            };
            tell(LinkEvent::Connected);
            let session = Session::client(config, seed()?);
            let outcome = carry(session, stream, storage, controls, tell, |event| event).await;
            outcome.map_err(|source| ClientError::Connection { peer: server.to_string(), source })
        }
        Peer::Directory(directory) => {
            let shown = Shown::path(&directory).to_string();
            let (ours, theirs) = tokio::io::duplex(DUPLEX);
            let server = serve(theirs, directory, options.config.clone())?;
            let session = Session::client(config, seed()?);
            let outcome = carry(session, ours, storage, controls, tell, localize).await;
            // It ends by itself when our direction closes, having given up what it had staged.
            drop(server.open);
            let _ = server.task.await;
            outcome.map_err(|source| ClientError::Connection { peer: shown, source })
        }
    }
}

/// The other end, in this process.
struct Served {
    /// It takes transfers until this is dropped.
    open: UnboundedSender<Control>,
    task: JoinHandle<Result<Stats, DriveError>>,
}

fn serve(stream: DuplexStream, directory: PathBuf, config: Config) -> Result<Served, ClientError> {
    let session = Session::server(config, seed()?);
    let storage = open_storage(vec![directory], None, None)?;
    let (open, controls) = unbounded_channel();
    let task = tokio::spawn(drive(session, stream, storage, controls, |_| {}));
    Ok(Served { open, task })
}

async fn carry<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    session: Session,
    stream: S,
    storage: Arc<dyn Storage>,
    controls: UnboundedReceiver<Control>,
    tell: &(impl Fn(LinkEvent) + Sync),
    adapt: impl Fn(Event) -> Event + Sync,
) -> Result<(), DriveError> {
    let report = |report| match report {
        Report::Event(event) => tell(LinkEvent::Transfer(adapt(event))),
        Report::Stats(stats) => tell(LinkEvent::Carried(stats)),
        _ => {}
    };
    let stats = drive(session, stream, storage, controls, report).await?;
    tell(LinkEvent::Carried(stats));
    Ok(())
}

fn open_storage(
    roots: Vec<PathBuf>,
    known: Option<KnownFiles>,
    walks: Option<Walks>,
) -> Result<Arc<dyn Storage>, ClientError> {
    let first = roots.first().cloned().unwrap_or_default();
    let mut local = LocalOptions::default();
    (local.known, local.walks) = (known, walks);
    let storage = LocalStorage::roots(roots, local).map_err(ClientError::file("open", &first))?;
    Ok(Arc::new(Threads::new(Arc::new(storage), Threads::for_this_machine())))
}

fn seed() -> Result<[u8; 32], ClientError> {
    entropy().map_err(ClientError::file("read", "the system's random numbers".as_ref()))
}

/// When the other end is this process too, what its storage refuses is a fault of our own storage, not of a peer.
fn localize(event: Event) -> Event {
    let EventKind::Ended(Err(TransferError::Refused(refusal))) = &event.kind else { return event };
    let kind = match refusal.code {
        RefusalCode::NotFound => FaultKind::NotFound,
        RefusalCode::Denied => FaultKind::Denied,
        RefusalCode::WrongKind => FaultKind::WrongKind,
        RefusalCode::Full => FaultKind::Full,
        RefusalCode::Limit => FaultKind::TooLarge,
        RefusalCode::Changed => FaultKind::Changed,
        RefusalCode::Storage => FaultKind::Other,
        RefusalCode::Conflict => FaultKind::Conflict,
        RefusalCode::Damaged => FaultKind::Damaged,
        RefusalCode::Exists => FaultKind::Exists,
        RefusalCode::NotEmpty => FaultKind::NotEmpty,
        // Not the storage's doing.
        _ => return event,
    };
    let mut fault = StorageFault::new(kind, refusal.message.clone());
    fault.current = refusal.current;
    Event { transfer: event.transfer, kind: EventKind::Ended(Err(fault.into())) }
}
