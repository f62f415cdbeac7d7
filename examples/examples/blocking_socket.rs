//! A session over a plain socket, without a runtime: a server thread and a client in one program, one push.
//!
//! `cargo run --release --example blocking_socket`. One thread reads the socket into a channel; the other owns the session,
//! writes what it transmits, answers its storage at once, and sleeps in the channel until bytes come or the deadline
//! passes. That is the whole driver.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use deltasync_core::RelPath;
use deltasync_io::{BlockingStorage, MemoryStorage, entropy};
use deltasync_proto::{
    Command, Condition, Config, EventKind, Input, Output, Place, Request, RootId, Session, Stats, Timestamp, TransferId,
};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Runs a session over a socket until it ends.
fn run(mut session: Session, mut socket: TcpStream, storage: &dyn BlockingStorage, name: &str) -> Result<Stats> {
    let started = Instant::now();
    let now = || Timestamp::new(started.elapsed().as_nanos() as u64);
    // Without a bound: the session's credit bounds what can come while this thread writes, and a reader that waited for
    // this thread could make both ends wait for each other.
    let (send, received) = channel();
    let mut reader = socket.try_clone()?;
    thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while let Ok(len @ 1..) = reader.read(&mut buffer) {
            if send.send(Bytes::copy_from_slice(&buffer[..len])).is_err() {
                return;
            }
        }
    });
    loop {
        let input = match session.poll_output() {
            Output::Transmit(bytes) => {
                // When this fails, the end of the stream tells the session.
                let _ = socket.write_all(&bytes);
                Input::Written(bytes.len())
            }
            Output::Storage(Request { id, ask }) => Input::Answered { id, answer: storage.answer(ask) },
            Output::Compute(job) => Input::Computed { id: job.id, result: job.run() },
            Output::Event(event) => {
                if let EventKind::Ended(result) = event.kind {
                    let progress = result?.progress;
                    println!("{name}: {} bytes copied, {} sent", progress.copied, progress.literal);
                }
                continue;
            }
            Output::Wait { deadline } => {
                let patience = deadline.map_or(u64::MAX, |deadline| deadline.get().saturating_sub(now().get()));
                match received.recv_timeout(Duration::from_nanos(patience)) {
                    Ok(bytes) => Input::Received(bytes),
                    Err(RecvTimeoutError::Timeout) => Input::DeadlineReached,
                    Err(RecvTimeoutError::Disconnected) => Input::EndOfStream,
                }
            }
            Output::Finished(result) => {
                // Ends the reader, too; a peer that was faster has ended both.
                let _ = socket.shutdown(Shutdown::Both);
                return Ok(result?);
            }
        };
        session.handle_input(now(), input)?;
    }
}

fn main() -> Result<()> {
    let (root, path) = (RootId::new(0), RelPath::new("greetings")?);
    let (local, remote) = (MemoryStorage::new(), MemoryStorage::new());
    let old: Vec<u8> = (0..20_000).flat_map(|number| format!("greeting number {number}\n").into_bytes()).collect();
    let new = [b"hello\n", &old[..]].concat();
    remote.insert(root, path.clone(), old);
    local.insert(root, path.clone(), new.clone());

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut session = Session::client(Config::default(), entropy()?);
    let name = path.split_last().ok_or("a file has a name")?.1;
    let command = Command::Push {
        source: Place { root, path: path.clone() },
        path: path.clone(),
        name,
        directory: false,
        condition: Condition::Any,
    };
    session.handle_input(Timestamp::new(0), Input::Command { transfer: TransferId::new(1), command })?;
    session.handle_input(Timestamp::new(0), Input::Finish)?;
    let stats = thread::scope(|scope| {
        scope.spawn(|| {
            let socket = listener.accept()?.0;
            run(Session::server(Config::default(), entropy()?), socket, &remote, "server")
        });
        run(session, TcpStream::connect(listener.local_addr()?)?, &local, "client")
    })?;
    assert_eq!(remote.get(root, &path).as_deref(), Some(&new[..]));
    println!("a file of {} bytes took {} on the wire", new.len(), stats.wire_sent + stats.wire_received);
    Ok(())
}
