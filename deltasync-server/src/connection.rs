//! One client's connection: a session, driven over its socket, told on the board and in the log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use deltasync_io::{Control, Report, Storage, drive, entropy};
use deltasync_proto::{Close, CloseCode, Config, Event, Message, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::shared::Attached;
use crate::{EndedState, Shutdown};

/// How long turning a client away may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How many bytes of a client that is turned away are read and thrown away, so that it gets to read the reason.
const REFUSAL_DRAIN: usize = 64 << 10;

/// Serves one client until its connection ends, or until what runs has ended after `shutdown`.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    attached: Attached,
    storage: Arc<dyn Storage>,
    config: Config,
    mut shutdown: Shutdown,
) {
    tracing::info!(%peer, "client connected");
    let entropy = match entropy() {
        Ok(entropy) => entropy,
        Err(error) => {
            tracing::error!(%peer, %error, "no randomness from the system");
            return attached.end(Err(format!("no randomness from the system: {error}")));
        }
    };
    let (steer, controls) = mpsc::unbounded_channel();
    let report = |report| match report {
        Report::Event(event) => note(&attached, peer, event),
        Report::Stats(stats) => attached.carried(stats),
        // The enum may grow; what we do not know does not change the board.
        _ => {}
    };
    let session = Session::server(config, entropy);
    let driven = {
        let mut driving = std::pin::pin!(drive(session, stream, storage, controls, report));
        tokio::select! {
            driven = &mut driving => driven,
            () = shutdown.finishing() => {
                // It fails when the session has just ended by itself.
                let _ = steer.send(Control::Finish);
                driving.await
            }
        }
    };
    match driven {
        Ok(stats) => {
            attached.carried(stats);
            let (sent, received, round_trips) = (stats.wire_sent, stats.wire_received, stats.round_trips);
            tracing::info!(%peer, sent, received, round_trips, "client done");
            attached.end(Ok(()));
        }
        Err(error) => {
            tracing::warn!(%peer, %error, "connection failed");
            attached.end(Err(error.to_string()));
        }
    }
}

fn note(attached: &Attached, peer: SocketAddr, event: Event) {
    let Some(ended) = attached.event(event) else { return };
    let EndedState { verb, path, total, literal, wire, duration, repairs, error, .. } = ended;
    match error {
        None if ended.result == "done" => {
            tracing::info!(%peer, verb, path, total, literal, wire, repairs, ms = duration, "transfer done");
        }
        None => tracing::info!(%peer, verb, path, ms = duration, "transfer cancelled"),
        Some(error) => tracing::warn!(%peer, verb, path, error, ms = duration, "transfer failed"),
    }
}

/// Tells a client that there are too many, and lets it go.
pub(crate) async fn turn_away(mut stream: TcpStream, peer: SocketAddr, most: usize) {
    let message = format!("all {most} connections of this server are taken, try again later");
    let close = Message::Close(Close { code: CloseCode::Busy, message }).encode();
    let talk = async {
        stream.write_all(&close.head).await?;
        stream.write_all(&close.tail).await?;
        stream.shutdown().await?;
        // Closing with unread bytes would reset the connection, and the reason could be lost on its way.
        let mut left = REFUSAL_DRAIN;
        let mut buffer = [0; 4096];
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        std::io::Result::Ok(())
    };
    let result = tokio::time::timeout(REFUSAL_TIMEOUT, talk).await;
    tracing::warn!(%peer, most, ?result, "client turned away: too many connections");
}
