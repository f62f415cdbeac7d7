//! One client of a real server, which keeps its files in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use deltasync_core::{Name, RelPath};
use deltasync_io::{Bandwidth, Control, DriveError, MemoryStorage, Report, Threads, drive, entropy};
use deltasync_proto::{
    Command, Config, Destination, Event, EventKind, Outcome, Place, RootId, Session, Stats, TransferError, TransferId,
};
use deltasync_testkit::Rng;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinHandle;

fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).expect("a path")
}

/// Bytes that do not compress and do not repeat.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    Rng::new(seed).bytes(len)
}

/// One client, connected.
pub(crate) struct Client {
    pub(crate) storage: Arc<MemoryStorage>,
    controls: UnboundedSender<Control>,
    /// The bytes done so far, of any transfer.
    pub(crate) moved: mpsc::UnboundedReceiver<u64>,
    ended: mpsc::UnboundedReceiver<Result<Outcome, TransferError>>,
    pub(crate) driven: JoinHandle<Result<Stats, DriveError>>,
    last: u32,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, Arc::new(MemoryStorage::new())).await
    }

    pub(crate) async fn connect_with(address: SocketAddr, storage: Arc<MemoryStorage>) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let (controls, steered) = mpsc::unbounded_channel();
        let (move_sender, moved) = mpsc::unbounded_channel();
        let (end_sender, ended) = mpsc::unbounded_channel();
        // Nobody may be listening any more.
        let report = move |report| match report {
            Report::Event(Event { kind: EventKind::Progress(progress), .. }) => {
                let _ = move_sender.send(progress.literal.get());
            }
            Report::Event(Event { kind: EventKind::Ended(result), .. }) => {
                let _ = end_sender.send(result);
            }
            _ => {}
        };
        let session = Session::client(Config::default(), entropy().expect("the system has some"));
        let threads = Arc::new(Threads::new(storage.clone(), Threads::FEWEST));
        let driven = tokio::spawn(drive(session, stream, threads, steered, report));
        Self { storage, controls, moved, ended, driven, last: 0 }
    }

    pub(crate) fn push(&mut self, name: &str, bytes: Vec<u8>) {
        let source = Place { root: RootId::new(1), path: path(name) };
        self.storage.insert(source.root, source.path.clone(), bytes);
        self.last += 1;
        let name = Name::new(*b"unused").expect("a name");
        let command = Command::Push {
            path: source.path.clone(),
            source,
            name,
            directory: false,
            condition: deltasync_proto::Condition::Any,
        };
        let transfer = TransferId::new(self.last);
        self.controls.send(Control::Command { transfer, command }).expect("it runs");
    }

    /// Moves at most so many bytes a second from now on.
    pub(crate) fn limit(&self, bytes: u64) {
        let bandwidth = Bandwidth::new(bytes).expect("enough to move at all");
        self.controls.send(Control::Limit(Some(bandwidth))).expect("it runs");
    }

    pub(crate) fn pull(&mut self, name: &str) {
        let place = Place { root: RootId::new(0), path: path(name) };
        self.last += 1;
        let path = place.path.clone();
        let destination = Destination { place, name: Name::new(*b"unused").expect("a name"), directory: false };
        let command = Command::Pull { path, destination, condition: deltasync_proto::Condition::Any };
        let transfer = TransferId::new(self.last);
        self.controls.send(Control::Command { transfer, command }).expect("it runs");
    }

    pub(crate) async fn ended(&mut self) -> Result<Outcome, TransferError> {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.ended.recv()).await;
        ended.expect("a transfer ends").expect("its end is told")
    }

    pub(crate) async fn finish(self) -> Stats {
        self.controls.send(Control::Finish).expect("it runs");
        self.driven.await.expect("no panic").expect("it ends well")
    }
}
