//! One viewer of the dashboard: a stream of server-sent events.
//!
//! The first event, `snapshot`, is the whole state; each `update` after it holds the fields that have changed and of
//! `history` and `errors` the new entries, newest first. At most five events go out in a second. While nothing changes, a
//! comment every fifteen seconds keeps the connection open.
//!
//! At most two events of a viewer are in memory; a viewer that takes none for half a minute is cut off.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
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

/// Starts the stream; `asleep` is told when the viewer takes nothing, and its connection should be cut.
pub(crate) fn start(feed: watch::Receiver<Arc<Published>>, asleep: Arc<Notify>) -> Channel<Bytes, Infallible> {
    let (sender, body) = Channel::new(1);
    tokio::spawn(stream(feed, sender, asleep));
    body
}

async fn stream(mut feed: watch::Receiver<Arc<Published>>, mut sender: Sender<Bytes, Infallible>, asleep: Arc<Notify>) {
    let mut seen = Seen::default();
    let mut name = "snapshot";
    loop {
        let published = feed.borrow_and_update().clone();
        if let Some(json) = published.since(&mut seen) {
            match timeout(ASLEEP, sender.send_data(event(name, &json))).await {
                Ok(Ok(())) => name = "update",
                Ok(Err(_)) => return,
                Err(_) => return asleep.notify_one(),
            }
            sleep(PACE).await;
        }
        match timeout(KEEPALIVE, feed.changed()).await {
            Ok(Ok(())) => {}
            // The server has ended.
            Ok(Err(_)) => return,
            Err(_) => match timeout(ASLEEP, sender.send_data(Bytes::from_static(b":\n\n"))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => return asleep.notify_one(),
            },
        }
    }
}

/// JSON of ours has no line breaks, so one `data` line holds it.
fn event(name: &str, json: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(json.len() + 32);
    event.put_slice(b"event: ");
    event.put_slice(name.as_bytes());
    event.put_slice(b"\ndata: ");
    event.put_slice(json);
    event.put_slice(b"\n\n");
    event.freeze()
}
