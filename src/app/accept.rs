//! Accept loop: bounds connections in total and per address, limits the time for headers, and lets running requests finish on
//! shutdown.
//!
//! Own code because `axum::serve` does not let hyper's connections be built with these timeouts and bounds.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
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
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::proxies::Proxies;
use crate::config::LimitsSpec;
use diorama_core::dio::Backoff;
use diorama_core::vista::LogLimit;
use diorama_gateway::auth::Https;
use diorama_gateway::{Budget, Caller, GatewayService, Lease, unreadable};

/// Maximum number of concurrent refusals with a response; more connections are closed without one.
const MAX_REFUSALS: usize = 64;
/// Timeout for sending the response of a refusal.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// hyper's default limit for headers, which is cheaper than setting the same limit.
const HYPER_HEADERS: usize = 100;
/// Upper bound on the size of responses that hyper generates itself.
const MAX_BARE_RESPONSE: usize = 256;
/// Maximum pause after a failed accept.
const MAX_PAUSE: Duration = Duration::from_secs(1);

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

/// Accepts connections until `closing`. They continue in `connections` until each has answered its requests.
pub(super) async fn accept(
    listener: TcpListener,
    current: Current,
    limits: LimitsSpec,
    proxies: Proxies,
    closing: CancellationToken,
    connections: TaskTracker,
) {
    let permits = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let addresses = Budget::new("connections", "per_address", usize::MAX, limits.per_address);
    let http = http(&limits);
    let lines = LogLimit::default();
    let mut backoff = Backoff::new(Duration::from_millis(10), MAX_PAUSE);
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = closing.cancelled() => return,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { return };
        match accepted {
            Ok((stream, peer)) => {
                backoff.reset();
                let share = if proxies.trust(peer.ip()) { 0 } else { 1 };
                if let Ok(lease) = addresses.take(Caller::new(peer.ip()), share) {
                    let (write_timeout, stalled, refusal) = (limits.write_timeout, None, None);
                    let stream =
                        CountedConnection { stream, write_timeout, stalled, refusal, _place: permit, _lease: lease };
                    let peer = Peer { address: peer.ip(), proxies: proxies.clone() };
                    connections.spawn(serve(stream, peer, http.clone(), Arc::clone(&current), closing.clone()));
                } else if let Ok(turn) = Arc::clone(&refusals).try_acquire_owned() {
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

fn http(limits: &LimitsSpec) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(limits.gateway.header_bytes);
    if limits.headers != HYPER_HEADERS {
        http.max_headers(limits.headers);
    }
    http
}

/// Response to a connection beyond the limit of its address.
const REFUSAL: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\nRetry-After: 5\r\n\
     Connection: close\r\n\r\n{\"type\":\"/problems/rate-limited\",\"title\":\"Too many requests\",\"status\":429,\
     \"detail\":\"this address has too many connections open\",\"code\":\"rate-limited\",\
     \"message\":\"this address has too many connections open\"}";

/// Sends the refusal and waits until the client has read it: closing with unread input would reset the connection and discard the
/// response.
async fn refuse(mut stream: TcpStream) {
    let sending = async {
        stream.write_all(REFUSAL.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    let _ = sending.await;
}

/// A connection with its permits, which count it until it is closed, even after an upgrade. A client that reads nothing for too
/// long is disconnected, be it a response, a stream or a socket.
struct CountedConnection {
    stream: TcpStream,
    /// Maximum time for which the client may read nothing.
    write_timeout: Duration,
    /// Timer of that time; `None` while the client reads.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Response that replaces a bare refusal by hyper, and the number of bytes written of it.
    refusal: Option<(Vec<u8>, usize)>,
    _place: OwnedSemaphorePermit,
    _lease: Lease,
}

impl CountedConnection {
    fn track_stall(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if write.is_ready() {
            self.stalled = None;
            return write;
        }
        let write_timeout = self.write_timeout;
        let over = self.stalled.get_or_insert_with(|| Box::pin(sleep(write_timeout)));
        over.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Returns the status of a response that hyper generates itself for an unreadable request. Such a response has no body, and the
/// connection ends with it.
fn bare_refusal(written: &[u8]) -> Option<u16> {
    if !written.starts_with(b"HTTP/1.1 4") {
        return None;
    }
    let head = std::str::from_utf8(written).ok()?.strip_prefix("HTTP/1.1 ")?;
    // All other responses have that header.
    let bare =
        head.contains("\r\ncontent-length: 0\r\n") && head.ends_with("\r\n\r\n") && !head.contains("x-request-id");
    head.get(..3).filter(|_| bare)?.parse().ok()
}

impl AsyncRead for CountedConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountedConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.refusal.is_none() && buf.len() < MAX_BARE_RESPONSE {
            self.refusal = bare_refusal(buf).and_then(unreadable).map(|refusal| (refusal, 0));
        }
        while let CountedConnection { stream, refusal: Some((refusal, at)), .. } = &mut *self
            && *at < refusal.len()
        {
            let write = Pin::new(stream).poll_write(cx, &refusal[*at..]);
            match ready!(self.track_stall(cx, write)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.refusal.iter_mut().for_each(|(_, at)| *at += written),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if self.refusal.is_some() {
            return Poll::Ready(Ok(buf.len()));
        }
        let write = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.track_stall(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.track_stall(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Peer of a connection, which may be a proxy.
struct Peer {
    address: IpAddr,
    proxies: Proxies,
}

async fn serve(
    stream: CountedConnection,
    peer: Peer,
    http: http1::Builder,
    current: Current,
    closing: CancellationToken,
) {
    // Responses are written in one piece, so Nagle's algorithm would only delay them.
    let _ = stream.stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let front = Responder::clone(&current.load());
        let caller = Caller::new(peer.proxies.origin(peer.address, request.headers()));
        let https = peer.proxies.is_https(peer.address, request.headers());
        async move { Ok::<_, Infallible>(front.answer(request, caller, https).await) }
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
