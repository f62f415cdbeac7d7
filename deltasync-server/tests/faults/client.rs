//! A client in this process: a real session over TCP, its files in memory, and what it was told, moment by moment.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use deltasync_core::{Algorithm, Digest, Name, RelPath};
use deltasync_io::{Control, DriveError, MemoryStorage, Report, Threads, drive, entropy};
use deltasync_proto::{
    Command, Condition, Config, Destination, Entry, Event, EventKind, Outcome, Place, RootId, Session, Stats,
    TransferError, TransferId, Version,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No transfer takes so long unless something is wrong: a server must answer, refuse or go within its deadlines.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where pushed files lie in the client's memory, and where pulled ones go.
const PUSHED: RootId = RootId::new(1);
const PULLED: RootId = RootId::new(0);

pub(crate) struct Client {
    storage: Arc<MemoryStorage>,
    controls: UnboundedSender<Control>,
    ended: UnboundedReceiver<(TransferId, Result<Outcome, TransferError>)>,
    driven: JoinHandle<Result<Stats, DriveError>>,
    told: Arc<Told>,
    last: u32,
}

/// What a client was told so far.
#[derive(Default)]
pub(crate) struct Told {
    /// How often all of a target had been sent.
    sent: AtomicUsize,
    events: Mutex<Vec<Event>>,
}

impl Told {
    /// How often all of a target had been sent, so that its commit was next.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// The versions that transfers found published under them.
    pub(crate) fn conflicts(&self) -> Vec<Option<Version>> {
        let conflict = |event: &Event| match &event.kind {
            EventKind::Conflict { current } => Some(*current),
            _ => None,
        };
        self.events.lock().expect("no panic").iter().filter_map(conflict).collect()
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let storage: Arc<MemoryStorage> = Arc::default();
        let (controls, steered) = mpsc::unbounded_channel();
        let (end_sender, ended) = mpsc::unbounded_channel();
        let told: Arc<Told> = Arc::default();
        let seen = Arc::clone(&told);
        let report = move |report| {
            let Report::Event(event) = report else { return };
            match &event.kind {
                // Nobody may be listening any more.
                EventKind::Ended(result) => _ = end_sender.send((event.transfer, result.clone())),
                EventKind::Progress(progress) => {
                    if progress.made() == progress.total {
                        seen.sent.fetch_add(1, Ordering::SeqCst);
                    }
                    return;
                }
                _ => {}
            }
            seen.events.lock().expect("no panic").push(event);
        };
        let session = Session::client(Config::default(), entropy().expect("the system has some"));
        let threads = Arc::new(Threads::new(Arc::clone(&storage), Threads::FEWEST));
        let driven = tokio::spawn(drive(session, stream, threads, steered, report));
        Ok(Self { storage, controls, ended, driven, told, last: 0 })
    }

    pub(crate) fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told)
    }

    pub(crate) async fn push(&mut self, path: &RelPath, bytes: impl Into<Bytes>) -> Result<Outcome, TransferError> {
        self.push_if(path, bytes, Condition::Any).await
    }

    pub(crate) async fn push_if(
        &mut self,
        path: &RelPath,
        bytes: impl Into<Bytes>,
        condition: Condition,
    ) -> Result<Outcome, TransferError> {
        let id = self.begin_push(path, bytes, condition);
        self.end_of(id).await
    }

    /// Begins a push; [`Client::next_end`] tells its end.
    pub(crate) fn begin_push(&mut self, path: &RelPath, bytes: impl Into<Bytes>, condition: Condition) -> TransferId {
        let source = Place { root: PUSHED, path: kept_as(path) };
        self.storage.insert(source.root, source.path.clone(), bytes);
        let path = path.clone();
        self.begin(Command::Push { path, source, name: unused(), directory: false, condition })
    }

    /// Pulls a file, over what was pulled before.
    pub(crate) async fn pull(&mut self, path: &RelPath) -> Result<Bytes, TransferError> {
        let place = Place { root: PULLED, path: kept_as(path) };
        let destination = Destination { place, name: unused(), directory: false };
        let id = self.begin(Command::Pull { path: path.clone(), destination, condition: Condition::Any });
        self.end_of(id).await?;
        Ok(self.storage.get(PULLED, &kept_as(path)).expect("what was pulled is there"))
    }

    /// The root of a file at the server.
    pub(crate) async fn root(&mut self, path: &RelPath) -> Result<Digest, TransferError> {
        let id = self.begin(Command::Root { path: path.clone() });
        self.end_of(id).await?;
        let root = |event: &Event| match event.kind {
            EventKind::Root { root, .. } if event.transfer == id => Some(root),
            _ => None,
        };
        Ok(self.told.events.lock().expect("no panic").iter().find_map(root).expect("it was told before the end"))
    }

    /// One page of a listing.
    pub(crate) async fn list(&mut self, path: &RelPath) -> Result<Vec<Entry>, TransferError> {
        let id = self.begin(Command::List { path: path.clone(), after: None });
        self.end_of(id).await?;
        let entries = |event: &Event| match &event.kind {
            EventKind::Listed { entries, .. } if event.transfer == id => Some(entries.clone()),
            _ => None,
        };
        Ok(self.told.events.lock().expect("no panic").iter().find_map(entries).expect("it was told before the end"))
    }

    fn begin(&mut self, command: Command) -> TransferId {
        self.last += 1;
        let transfer = TransferId::new(self.last);
        // When the connection is gone, its end is waited for in vain, and that is said.
        let _ = self.controls.send(Control::Command { transfer, command });
        transfer
    }

    /// The next end of a transfer; `None` when the connection is gone and told no more.
    pub(crate) async fn next_end(&mut self) -> Option<(TransferId, Result<Outcome, TransferError>)> {
        timeout(PATIENCE, self.ended.recv()).await.expect("a transfer progresses, or fails with a reason")
    }

    async fn end_of(&mut self, id: TransferId) -> Result<Outcome, TransferError> {
        match self.next_end().await {
            Some((ended, result)) => {
                assert_eq!(ended, id, "one transfer at a time");
                result
            }
            None => Err(TransferError::ConnectionLost("the connection is gone".into())),
        }
    }

    pub(crate) async fn finish(mut self) {
        let _ = self.controls.send(Control::Finish);
        let _ = (&mut self.driven).await.expect("no panic");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driven.abort();
    }
}

/// Where the client keeps the file of a path: beside all others, whatever directories they are in.
fn kept_as(path: &RelPath) -> RelPath {
    RelPath::new(Algorithm::Blake3.digest(path.as_bytes()).to_string()).expect("one name")
}

fn unused() -> Name {
    Name::new(*b"unused").expect("a name")
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("a path")
}
