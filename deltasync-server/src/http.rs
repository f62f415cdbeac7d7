//! The dashboard's HTTP: a page, a state, a stream of changes, metrics. It reads, and changes nothing.
//!
//! | path | answer |
//! |---|---|
//! | `/` and what the page names, see [`assets`](crate::assets) | the page, from the binary |
//! | `/api/state` | the state as JSON, see [`State`](crate::State) and [`Fleet`](crate::Fleet) |
//! | `/api/events` | server-sent events, see [`viewer`](crate::viewer) |
//! | `/metrics` | the metrics for Prometheus |
//! | `/healthz` | `ok` |
//!
//! A `Host` that is not ours is 421, any other path is 404, any method but GET and HEAD is 405. Where the dashboard has a
//! token, who does not know it gets 401 for all but `/healthz`, which says nothing. Headers have a deadline
//! and a bound, bodies are not read, an answer that nobody takes has a deadline, and a connection above the bound is turned
//! away with 503.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::accept::accept;
use crate::access::Access;
use crate::feed::Published;
use crate::prompt::Prompt;
use crate::refusal::Refusals;
use crate::{assets, metrics, viewer};

/// The most connections at a time.
const CONNECTIONS_MAX: usize = 256;
/// How long a peer may take for the headers of a request, or be idle between two.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a peer may take nothing of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// The most bytes of the headers of a request.
const HEADER_MAX: usize = 16 << 10;
/// The answer to a connection above the bound.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\nretry-after: 5\r\n\r\n";

/// Nothing comes from elsewhere, nothing runs that is not in our own files, nobody frames the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) type Body = Either<Full<Bytes>, Channel<Bytes, Infallible>>;

/// What is served.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) access: Arc<Access>,
    pub(crate) feed: watch::Receiver<Arc<Published>>,
}

/// Serves the dashboard for as long as it is polled; dropping it closes every connection.
pub(crate) async fn serve(listener: TcpListener, site: Site) {
    let mut connections = JoinSet::new();
    let mut refusals = Refusals::default();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            (stream, peer) = accept(&listener, "dashboard") => match connections.len() < CONNECTIONS_MAX {
                true => {
                    connections.spawn(serve_connection(stream, peer, site.clone()));
                }
                false => refusals.turn_away(stream, peer, Bytes::from_static(TOO_MANY)),
            },
        }
    }
}

/// One connection of a browser, until it ends or a viewer on it has fallen asleep.
pub(crate) async fn serve_connection<S>(stream: S, peer: SocketAddr, site: Site)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asleep = Arc::new(Notify::new());
    let service = service_fn(|request| {
        let response = respond(&request, &site, &asleep);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_MAX)
        .serve_connection(TokioIo::new(Prompt::new(stream, WRITE_TIMEOUT)), service);
    tokio::select! {
        result = connection => if let Err(error) = result {
            tracing::debug!(%peer, %error, "dashboard connection failed");
        },
        () = asleep.notified() => tracing::debug!(%peer, "dashboard viewer takes nothing, cut off"),
    }
}

fn respond(request: &Request<Incoming>, site: &Site, asleep: &Arc<Notify>) -> Response<Body> {
    let mut response = answer(request, site, asleep);
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    response
}

fn answer(request: &Request<Incoming>, site: &Site, asleep: &Arc<Notify>) -> Response<Body> {
    if !names_us(request, &site.access) {
        let text = "this dashboard does not go by that name: start it with --dashboard-host NAME\n";
        return plain(StatusCode::MISDIRECTED_REQUEST, text);
    }
    let path = request.uri().path();
    if path != "/healthz" && !site.access.admits(request.headers()) {
        let mut response =
            plain(StatusCode::UNAUTHORIZED, "this dashboard has a token, and wants it as the password\n");
        let challenge = HeaderValue::from_static("Basic realm=\"deltasync dashboard\", charset=\"UTF-8\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    let asset = assets::at(path);
    if asset.is_none() && !["/api/state", "/api/events", "/metrics", "/healthz"].contains(&path) {
        return plain(StatusCode::NOT_FOUND, "nothing is here\n");
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if let Some((content_type, text)) = asset {
        return with_type(content_type, text.into());
    }
    let published = || site.feed.borrow().clone();
    match path {
        "/api/state" => with_type("application/json", published().whole()),
        "/metrics" => with_type(metrics::CONTENT_TYPE, published().metrics()),
        "/api/events" if request.method() == Method::GET => {
            let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
            let seen = last.map(|id| published().seen(id)).unwrap_or_default();
            let events = viewer::start(site.feed.clone(), seen, asleep.clone());
            typed("text/event-stream", Either::Right(events))
        }
        "/api/events" => with_type("text/event-stream", Bytes::new()),
        _ => plain(StatusCode::OK, "ok\n"),
    }
}

/// Every name in the request is one of ours, and there is one.
fn names_us(request: &Request<Incoming>, access: &Access) -> bool {
    let headers = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().ok());
    let target = request.uri().authority().map(|authority| Some(authority.as_str()));
    let mut names = headers.chain(target).peekable();
    names.peek().is_some() && names.all(|name| name.is_some_and(|name| access.hosts.accept(name)))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = with_type("text/plain; charset=utf-8", text.into());
    *response.status_mut() = status;
    response
}

fn with_type(content_type: &'static str, bytes: Bytes) -> Response<Body> {
    typed(content_type, Either::Left(Full::new(bytes)))
}

fn typed(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
