//! One client's connection: a session, driven over its socket, told on the board and in the log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltasync_io::{Control, DriveError, Report, Storage, drive, entropy};
use deltasync_proto::{Close, CloseCode, Config, Event, EventKind, Message, NOTHING_TO_DO, Session, SessionError};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::limits::Place;
use crate::paced::Paced;
use crate::shared::Attached;
use crate::{EndedState, Shutdown};

/// Serves one client, whose connection was taken at `accepted`, until it ends, or until what runs has ended after
/// `shutdown`.
#[allow(clippy::too_many_arguments, reason = "all that one connection needs, once")]
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    accepted: Instant,
    place: Place,
    attached: Attached,
    storage: Arc<dyn Storage>,
    mut config: Config,
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
    let place = Arc::new(place);
    let stream = Paced::new(stream, place.clone());
    // The session counts from now on; what has passed since the accept is the peer's all the same.
    config.handshake = config.handshake.saturating_sub(accepted.elapsed()).max(Duration::from_millis(1));
    let report = |report| match report {
        Report::Event(event) => {
            if matches!(event.kind, EventKind::Started { .. }) {
                place.count();
            }
            note(&attached, peer, event);
        }
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
        Err(DriveError::Session(SessionError::TimedOut { what: NOTHING_TO_DO, after })) => {
            attached.timed_out();
            tracing::info!(%peer, ?after, "client ended: it was idle");
            attached.end(Ok(()));
        }
        Err(error) => {
            if matches!(error, DriveError::Session(SessionError::TimedOut { .. })) {
                attached.timed_out();
            }
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

/// The closing frame for a client for whom there is no place.
pub(crate) fn busy(message: String) -> Bytes {
    let frame = Message::Close(Close { code: CloseCode::Busy, message }).encode();
    [&frame.head[..], &frame.tail[..]].concat().into()
}
