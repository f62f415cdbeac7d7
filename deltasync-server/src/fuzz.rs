//! The body of the fuzz target `http`: any bytes as what a browser says to the dashboard.
//!
//! They come whole or in pieces; the dashboard answers or closes, in time, and never panics. What it says begins like an
//! answer of HTTP, and none of it is a success unless the request names us.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

use crate::feed::Publisher;
use crate::http::{self, Site};
use crate::{Access, Guard, State};

/// The first byte says in what pieces the rest is sent.
///
/// # Panics
///
/// When the dashboard panics, says something that is no answer, or neither answers nor closes.
#[doc(hidden)]
pub fn fuzz_http(bytes: &[u8]) {
    let Some((&piece, request)) = bytes.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let answer = runtime.block_on(async {
        let mut publisher = Publisher::new();
        publisher.publish_state(State::default());
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 7441));
        let access = Access::new(address, &[], &Guard::Loopback).expect("loopback is always fine");
        let site = Site { access: Arc::new(access), feed: publisher.feed() };
        // Enough for any answer: nobody reads before all is said.
        let (browser, server) = duplex(1 << 20);
        let serving = tokio::spawn(http::serve_connection(server, address, site));
        let (mut read, mut write) = tokio::io::split(browser);
        let talk = async {
            for piece in request.chunks(usize::from(piece).max(1) * 16) {
                // It may have heard enough.
                if write.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let _ = write.shutdown().await;
            let mut answer = Vec::new();
            // A stream of events ends only when its viewer has gone.
            while read.read_buf(&mut answer).await.is_ok_and(|len| len > 0) && !is_stream(&answer) {}
            answer
        };
        let answer = timeout(Duration::from_secs(5), talk).await.expect("it answers or closes");
        match is_stream(&answer) {
            true => serving.abort(),
            false => serving.await.expect("it does not panic"),
        }
        answer
    });
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
    let said = String::from_utf8_lossy(request).to_ascii_lowercase();
    let named = ["localhost", "127.", "[::1]", "::"].iter().any(|name| said.contains(name));
    assert!(named || !answer.starts_with(b"HTTP/1.1 200"), "it goes by another name");
}

fn is_stream(answer: &[u8]) -> bool {
    let kind = b"text/event-stream";
    answer.windows(kind.len()).any(|window| window == kind)
}
