//! What a running server does when its own user asks, by the socket in its directory.
//!
//! A connection is one question, a JSON object on a line, and its answer, lines of JSON until the server closes. There is
//! one question: `{"scrub":{}}`, or `{"scrub":{"rate":N}}` with the most bytes to read in a second. Its answer are the lines
//! of a pass over the stored files ([`ScrubLine`]); who closes early stops it.
//!
//! Who can connect is the server's own user or root, by the modes of the socket and its directory, and by what the system
//! says of the peer. Even so a line has a bound, a question a deadline, and there are few connections.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::scrub::{ScrubLine, Scrubber};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Question {
    /// Check all stored files now.
    Scrub {
        /// The most bytes to read in a second.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate: Option<u64>,
    },
}

/// The longest line of a question, in bytes.
const QUESTION_MAX: u64 = 4096;

/// How long a question may take to come, and one line of an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most connections at a time.
const MOST: usize = 8;

/// Answers for as long as it is polled.
pub(crate) async fn serve(listener: StdListener, scrubber: Arc<Scrubber>) {
    let listener = match listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "nobody can ask this server for anything");
            return;
        }
    };
    let free = Arc::new(Semaphore::new(MOST));
    let mut answering = JoinSet::new();
    loop {
        while answering.try_join_next().is_some() {}
        let permit = free.clone().acquire_owned().await.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, _)) if is_ours(&stream) => {
                let scrubber = scrubber.clone();
                answering.spawn(async move {
                    if let Err(error) = answer(stream, &scrubber).await {
                        tracing::info!(%error, "who asked has gone");
                    }
                    drop(permit);
                });
            }
            Ok(_) => tracing::warn!("another user was turned away from the control socket"),
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the control socket");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// True for our own user and for root.
fn is_ours(stream: &UnixStream) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == ours || peer.uid() == 0)
}

async fn answer(stream: UnixStream, scrubber: &Arc<Scrubber>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(QUESTION_MAX));
    let read = timeout(PATIENCE, reader.read_line(&mut line)).await;
    read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let asked = if line.ends_with('\n') {
        serde_json::from_str(&line).map_err(|error| error.to_string())
    } else {
        Err(format!("a question is one line of less than {QUESTION_MAX} bytes"))
    };
    let (sender, mut lines) = mpsc::channel(16);
    let ask = async move {
        let failed = match asked {
            Ok(Question::Scrub { rate }) => {
                let tell = sender.clone();
                let tell = move |line| match tell.try_send(line) {
                    // The next one tells it too.
                    Ok(()) | Err(TrySendError::Full(ScrubLine::Progress { .. })) => true,
                    Err(TrySendError::Full(line)) => tell.blocking_send(line).is_ok(),
                    Err(TrySendError::Closed(_)) => false,
                };
                scrubber.at_once(rate, tell).await.err().map(|error| error.to_string())
            }
            Err(message) => Some(message),
        };
        if let Some(message) = failed {
            let _ = sender.send(ScrubLine::Error { message }).await;
        }
        drop(sender);
    };
    let tell = async move {
        // Dropping the receiver stops the pass.
        while let Some(line) = lines.recv().await {
            let mut bytes = serde_json::to_vec(&line).map_err(io::Error::other)?;
            bytes.push(b'\n');
            let written = timeout(PATIENCE, writer.write_all(&bytes)).await;
            written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        }
        writer.shutdown().await
    };
    let ((), told) = tokio::join!(ask, tell);
    told
}
