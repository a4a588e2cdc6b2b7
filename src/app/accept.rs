//! Accept loop: bounds connections in total and per address, limits the time for headers, and lets running requests finish on
//! shutdown. Connections are plain HTTP/1.1, or TLS with HTTP/1.1 or HTTP/2 as the client prefers.
//!
//! Own code because `axum::serve` does not let hyper's connections be built with these timeouts and bounds.

mod activity;
mod body;
mod handshake;
mod http2;
mod stream;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use self::handshake::{Encrypted, handshake};
use self::stream::{CountedStream, Http1Stream};
use super::proxies::Proxies;
use super::tls::Tls;
use crate::config::LimitsSpec;
use diorama_core::dio::Backoff;
use diorama_core::vista::LogLimit;
use diorama_gateway::auth::Https;
use diorama_gateway::{Budget, Caller, ClientCertificate, GatewayService};

/// Maximum number of concurrent refusals with a response; more connections are closed without one.
const MAX_REFUSALS: usize = 64;
/// Timeout for sending the response of a refusal.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// hyper's default limit for headers, which is cheaper than setting the same limit.
const HYPER_HEADERS: usize = 100;
/// Maximum pause after a failed accept.
const MAX_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

/// Current responder, which may be replaced while connections are open.
pub(super) type Current = Arc<ArcSwap<Responder>>;

/// Responder to requests.
#[derive(Clone)]
pub(super) enum Responder {
    /// Responder until the resources are open.
    Starting(Router),
    Gateway(GatewayService),
}

impl Responder {
    async fn answer(self, mut request: Request<Incoming>, caller: Caller, https: bool) -> Response {
        request.extensions_mut().insert(caller);
        if https {
            request.extensions_mut().insert(Https);
        }
        // Most requests have no body; an empty one avoids its cost.
        let request = request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(body) });
        match self {
            Responder::Starting(mut router) => match router.call(request).await {
                Ok(answer) => answer,
                Err(never) => match never {},
            },
            Responder::Gateway(gateway) => gateway.answer(request).await,
        }
    }
}

/// Settings and state that all connections share.
pub(super) struct Frontend {
    current: Current,
    limits: LimitsSpec,
    proxies: Proxies,
    tls: Option<Arc<Tls>>,
    closing: CancellationToken,
    http1: http1::Builder,
    /// Streams of HTTP/2, of which an address may have as many as connections.
    streams: Arc<Budget>,
}

impl Frontend {
    pub(super) fn new(
        current: Current,
        limits: LimitsSpec,
        proxies: Proxies,
        tls: Option<Arc<Tls>>,
        closing: CancellationToken,
    ) -> Frontend {
        let streams = Budget::new("streams", "per_address", usize::MAX, limits.per_address);
        Frontend { current, http1: http1(&limits), limits, proxies, tls, closing, streams }
    }

    /// Returns the current responder.
    fn responder(&self) -> Responder {
        Responder::clone(&self.current.load())
    }
}

/// Accepts connections until the frontend closes. They continue in `connections` until each has answered its requests.
pub(super) async fn accept(listener: TcpListener, front: Arc<Frontend>, connections: TaskTracker) {
    let (limits, proxies) = (&front.limits, &front.proxies);
    let permits = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let addresses = Budget::new("connections", "per_address", usize::MAX, limits.per_address);
    let lines = LogLimit::default();
    let mut backoff = Backoff::new(Duration::from_millis(10), MAX_PAUSE);
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = front.closing.cancelled() => return,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { return };
        match accepted {
            Ok((stream, peer)) => {
                backoff.reset();
                let share = if proxies.trust(peer.ip()) { 0 } else { 1 };
                if let Ok(lease) = addresses.take(Caller::new(peer.ip()), share) {
                    // Responses are written in one piece, so Nagle's algorithm would only delay them.
                    let _ = stream.set_nodelay(true);
                    let stream = CountedStream::new(stream, limits.write_timeout, permit, lease);
                    let (peer, front) = (Peer { address: peer.ip() }, Arc::clone(&front));
                    match front.tls.clone() {
                        None => connections.spawn(serve(Http1Stream::new(stream), peer, None, front)),
                        Some(tls) => connections.spawn(serve_encrypted(stream, tls, peer, front)),
                    };
                } else if let (None, Ok(turn)) = (&front.tls, Arc::clone(&refusals).try_acquire_owned()) {
                    tracing::debug!(%peer, "too many connections from one address");
                    connections.spawn(async move {
                        let _ = timeout(REFUSAL_TIME, refuse(stream)).await;
                        drop(turn);
                    });
                }
            }
            Err(error) => {
                // The usual cause is a lack of file descriptors, which is resolved when other connections close.
                if let Some(left_out) = lines.pass(()) {
                    tracing::warn!(%error, left_out, "a connection could not be accepted");
                }
                sleep(backoff.rest()).await;
            }
        }
    }
}

fn http1(limits: &LimitsSpec) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(limits.gateway.header_bytes);
    if limits.headers != HYPER_HEADERS {
        http.max_headers(limits.headers);
    }
    http
}

/// Head of the response to a connection beyond the limit of its address.
const REFUSAL_HEAD: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\nRetry-After: 5\r\n\
     Connection: close\r\n\r\n";
/// Body of the response to a connection or stream beyond the limit of its address.
const REFUSAL_BODY: &str = "{\"type\":\"/problems/rate-limited\",\"title\":\"Too many requests\",\"status\":429,\
     \"detail\":\"this address has too many connections open\",\"code\":\"rate-limited\",\
     \"message\":\"this address has too many connections open\"}";

/// Sends the refusal and waits until the client has read it: closing with unread input would reset the connection and discard the
/// response.
async fn refuse(mut stream: TcpStream) {
    let sending = async {
        stream.write_all(REFUSAL_HEAD.as_bytes()).await?;
        stream.write_all(REFUSAL_BODY.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = sending.await;
}

/// Peer of a connection, which may be a proxy.
struct Peer {
    address: IpAddr,
}

/// Serves a connection of HTTP/1.1 until it ends.
async fn serve<S>(stream: Http1Stream<S>, peer: Peer, certificate: Option<ClientCertificate>, front: Arc<Frontend>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (http, closing) = (front.http1.clone(), front.closing.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let responder = front.responder();
        let caller = Caller::new(front.proxies.origin(peer.address, request.headers()));
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        let https = front.tls.is_some() || front.proxies.is_https(peer.address, request.headers());
        async move { Ok::<_, Infallible>(responder.answer(request, caller, https).await) }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Serves a connection of TLS until it ends.
async fn serve_encrypted(stream: CountedStream, tls: Arc<Tls>, peer: Peer, front: Arc<Frontend>) {
    let shaken = tokio::select! {
        shaken = Box::pin(handshake(stream, &tls, front.limits.header_timeout)) => shaken,
        () = front.closing.cancelled() => return,
    };
    match shaken {
        Ok(Encrypted { stream, is_http2: true, certificate }) => {
            Box::pin(http2::serve(stream, peer, certificate, front)).await;
        }
        Ok(Encrypted { stream, is_http2: false, certificate }) => {
            Box::pin(serve(Http1Stream::new(stream), peer, certificate, front)).await;
        }
        Err(error) => tracing::debug!(%error, peer = %peer.address, "a TLS handshake failed"),
    }
}
