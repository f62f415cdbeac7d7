//! Asking another server for its state: one small HTTP GET that trusts nothing it hears.
//!
//! # Security
//!
//! The server may be anyone's: connecting, the answer's head and its body share one deadline, head and body have a bound,
//! and what comes out is a [`State`] whose lists and texts are cut to the lengths of our own.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{FORMAT, State, Token};

/// How long one question may take in all.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of an answer.
const BODY_MAX: usize = 4 << 20;
/// The most bytes of an answer's head.
const HEADER_MAX: usize = 16 << 10;

/// Why a server's state is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PollError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("no whole answer within {TIMEOUT:?}")]
    TimedOut,
    #[error("it does not go by the name {0}: start it with --dashboard-host {0}")]
    Misdirected(String),
    #[error("it has a token, and not the one of this dashboard: start this one with --server-token-file FILE")]
    Unauthorized,
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer has more than {BODY_MAX} bytes")]
    Long,
    #[error("its answer is no HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("its answer is no state of a deltasync server: {0}")]
    Shape(serde_json::Error),
    #[error("its state has format {0}, this dashboard reads {FORMAT}")]
    Format(u32),
}

/// The state of the server whose dashboard is at `address`, `HOST:PORT`.
pub(crate) async fn poll(address: &str, token: Option<&Token>) -> Result<State, PollError> {
    timeout(TIMEOUT, ask(address, token)).await.unwrap_or(Err(PollError::TimedOut))
}

async fn ask(address: &str, token: Option<&Token>) -> Result<State, PollError> {
    let stream = TcpStream::connect(address).await.map_err(PollError::Connect)?;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(HEADER_MAX).handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get("/api/state").header(header::HOST, address);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token.header());
    }
    let request = request.body(Empty::<Bytes>::new());
    // The address has just been resolved, but what resolves need not be a header.
    let request = request.map_err(|_| PollError::Misdirected(address.to_owned()))?;
    let talk = async {
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::MISDIRECTED_REQUEST => return Err(PollError::Misdirected(address.to_owned())),
            StatusCode::UNAUTHORIZED => return Err(PollError::Unauthorized),
            status => return Err(PollError::Status(status)),
        }
        let body = Limited::new(response.into_body(), BODY_MAX).collect().await.map_err(|error| match error
            .downcast::<hyper::Error>()
        {
            Ok(error) => PollError::Http(*error),
            Err(error) => {
                debug_assert!(error.is::<LengthLimitError>());
                PollError::Long
            }
        })?;
        parse(&body.to_bytes())
    };
    let mut connection = std::pin::pin!(connection);
    let mut talk = std::pin::pin!(talk);
    // The connection moves the bytes, here and not in a task of its own, so that nothing outlives this question.
    tokio::select! {
        biased;
        state = &mut talk => state,
        result = &mut connection => match result {
            Ok(()) => talk.await,
            Err(error) => Err(error.into()),
        },
    }
}

fn parse(body: &[u8]) -> Result<State, PollError> {
    let state: State = serde_json::from_slice(body).map_err(PollError::Shape)?;
    if state.format != FORMAT {
        return Err(PollError::Format(state.format));
    }
    Ok(state.bound())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_is_named() {
        let later = crate::feed::render(&State { format: 7, ..State::default() });
        let error = parse(&later).expect_err("not ours");
        assert_eq!(error.to_string(), "its state has format 7, this dashboard reads 1");
        let error = parse(b"<html>").expect_err("no JSON");
        assert!(error.to_string().starts_with("its answer is no state of a deltasync server"), "{error}");
    }
}
