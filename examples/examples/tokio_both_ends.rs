//! Both ends on tokio, over a real socket: a server of a directory, and a client that pushes from memory and pulls back.
//!
//! `cargo run --release --example tokio_both_ends`. `drive` runs a session over any `AsyncRead + AsyncWrite`; commands go in
//! by a channel, events come out by a callback.

use std::error::Error;
use std::sync::Arc;

use deltasync_core::RelPath;
use deltasync_io::{Control, LocalOptions, LocalStorage, MemoryStorage, Report, Threads, drive, entropy};
use deltasync_proto::{Command, Condition, Config, Destination, EventKind, Place, RootId, Session, Stats, TransferId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::unbounded_channel;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Serves each connection in a task of its own.
async fn serve(listener: TcpListener, storage: Arc<Threads>) -> Result<()> {
    loop {
        let (socket, peer) = listener.accept().await?;
        let session = Session::server(Config::default(), entropy()?);
        let storage = Arc::clone(&storage);
        tokio::spawn(async move {
            // Keeping the sender keeps the session open: dropping it means to take no more transfers.
            let (_controls, control) = unbounded_channel();
            let report = |report| {
                if let Report::Event(event) = report
                    && let EventKind::Started { verb, path } = event.kind
                {
                    println!("server: {} of {path}", verb.name());
                }
            };
            if let Err(error) = drive(session, socket, storage, control, report).await {
                println!("server: {peer}: {error}");
            }
        });
    }
}

/// Carries out one command over a connection of its own.
async fn run(command: Command, listener: std::net::SocketAddr, storage: Arc<Threads>) -> Result<Stats> {
    let session = Session::client(Config::default(), entropy()?);
    let (controls, control) = unbounded_channel();
    controls.send(Control::Command { transfer: TransferId::new(1), command })?;
    controls.send(Control::Finish)?;
    let mut ended = None;
    let report = |report| {
        if let Report::Event(event) = report
            && let EventKind::Ended(result) = event.kind
        {
            ended = Some(result);
        }
    };
    let stats = drive(session, TcpStream::connect(listener).await?, storage, control, report).await?;
    let outcome = ended.ok_or("every transfer ends")??;
    let wire = stats.wire_sent + stats.wire_received;
    println!("client: {} bytes, {} copied, {wire} on the wire", outcome.len, outcome.progress.copied);
    Ok(stats)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let served = LocalStorage::serve(directory.path(), LocalOptions::default())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        let storage = Arc::new(Threads::new(Arc::new(served), Threads::FEWEST));
        // Ends only with the program, or when the listener fails.
        serve(listener, storage).await.map_err(|error| error.to_string())
    });

    let root = RootId::new(0);
    let (path, copy) = (RelPath::new("numbers")?, RelPath::new("copy")?);
    let name = path.split_last().ok_or("a file has a name")?.1;
    let files = Arc::new(MemoryStorage::new());
    let threads = Arc::new(Threads::new(Arc::clone(&files), Threads::FEWEST));
    let place = |path: &RelPath| Place { root, path: path.clone() };
    let push = || Command::Push {
        source: place(&path),
        path: path.clone(),
        name: name.clone(),
        directory: false,
        condition: Condition::Any,
    };
    let mut numbers: Vec<u8> = (0..500_000u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes()).collect();
    files.insert(root, path.clone(), numbers.clone());
    run(push(), address, Arc::clone(&threads)).await?;
    numbers.splice(1_000_000..1_000_010, *b"other bytes");
    files.insert(root, path.clone(), numbers.clone());
    let again = run(push(), address, Arc::clone(&threads)).await?;
    assert!(again.wire_sent < 100_000);
    let destination = Destination { place: place(&copy), name: name.clone(), directory: false };
    run(Command::Pull { path: path.clone(), destination, condition: Condition::Any }, address, threads).await?;

    assert!(std::fs::read(directory.path().join("numbers"))? == numbers);
    assert_eq!(files.get(root, &copy).as_deref(), Some(&numbers[..]));
    serving.abort();
    Ok(())
}
