//! One viewer of the dashboard: a stream of server-sent events.
//!
//! The first event, `snapshot`, is the whole state; each `update` after it holds the fields that have changed, of `history`
//! and `errors` the new entries, newest first, and of several servers those that have changed, by their index. Each has an
//! id; a viewer that comes again and names the last one in `Last-Event-ID` gets an `update` from there, unless the server is
//! another one by now. At most five events go out in a second. While nothing changes, a comment every fifteen seconds keeps
//! the connection open.
//!
//! At most two events of a viewer are in memory; a viewer that takes none for half a minute is cut off.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::feed::{Published, Seen};

/// The time between two events.
pub(crate) const PACE: Duration = Duration::from_millis(200);
/// How long nothing is said.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long a viewer may leave an event lying.
const ASLEEP: Duration = Duration::from_secs(30);

/// Starts the stream for who has seen so much; `asleep` is told when the viewer takes nothing, and its connection should be
/// cut.
pub(crate) fn start(
    feed: watch::Receiver<Arc<Published>>,
    seen: Seen,
    asleep: Arc<Notify>,
) -> Channel<Bytes, Infallible> {
    let (sender, body) = Channel::new(1);
    tokio::spawn(stream(feed, seen, sender, asleep));
    body
}

async fn stream(
    mut feed: watch::Receiver<Arc<Published>>,
    mut seen: Seen,
    mut sender: Sender<Bytes, Infallible>,
    asleep: Arc<Notify>,
) {
    loop {
        let published = feed.borrow_and_update().clone();
        let piece = match published.event(&mut seen) {
            Some(event) => event,
            None => match timeout(KEEPALIVE, feed.changed()).await {
                Ok(Ok(())) => continue,
                // The server has ended.
                Ok(Err(_)) => return,
                Err(_) => Bytes::from_static(b":\n\n"),
            },
        };
        // What the viewer does not take is not to hold a state that others have left behind.
        drop(published);
        match timeout(ASLEEP, sender.send_data(piece)).await {
            Ok(Ok(())) => sleep(PACE).await,
            Ok(Err(_)) => return,
            Err(_) => return asleep.notify_one(),
        }
    }
}
