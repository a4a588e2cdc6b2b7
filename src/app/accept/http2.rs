//! Connections of HTTP/2, which TLS clients negotiate by ALPN.
//!
//! The bounds of HTTP/1.1 hold for HTTP/2 as well. Streams count as connections of their address. A connection without streams
//! ends after the time for a request's head, and one whose client takes nothing of its answers ends after the time for writes.
//! hyper answers a flood of resets or broken headers with GOAWAY.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

use super::activity::{Activity, Ending, OpenStream, Watch};
use super::body::TrackedBody;
use super::{Frontend, Peer, REFUSAL_BODY};
use crate::config::LimitsSpec;
use diorama_gateway::{Caller, ClientCertificate, unreadable};

/// Bytes of request bodies that a client may send before they are read: of one stream, and of all streams of a connection.
const WINDOW: u32 = 256 << 10;

/// Executor of the tasks of one connection's streams.
#[derive(Clone)]
struct StreamTasks(TaskTracker);

impl<F> Executor<F> for StreamTasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

fn builder(limits: &LimitsSpec, tasks: TaskTracker) -> http2::Builder<StreamTasks> {
    let bytes = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let mut http = http2::Builder::new(StreamTasks(tasks));
    // Resets are bounded by the defaults: 20 of streams that were not accepted yet, 1,024 for the client's own mistakes.
    http.timer(TokioTimer::new())
        .max_concurrent_streams(bytes(limits.streams))
        .max_header_list_size(bytes(limits.gateway.header_bytes))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(limits.write_timeout * 2)
        .keep_alive_timeout(limits.write_timeout);
    http
}

/// Serves a connection until it ends.
pub(super) async fn serve<S>(stream: S, peer: Peer, certificate: Option<ClientCertificate>, front: Arc<Frontend>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (tasks, activity) = (TaskTracker::new(), Arc::new(Activity::default()));
    let mut watch = Watch::new(Arc::clone(&activity), front.limits.header_timeout, front.limits.write_timeout);
    let (http, closing) = (builder(&front.limits, tasks.clone()), front.closing.clone());
    let service = service_fn(move |request| answer(request, &peer, certificate.as_ref(), &front, &activity));
    {
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let mut is_leaving = false;
        loop {
            let leave = tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    break;
                }
                () = closing.cancelled(), if !is_leaving => true,
                ending = watch.next() => match ending {
                    Ending::Idle => !is_leaving,
                    Ending::Stalled => false,
                },
            };
            if !leave {
                tracing::debug!("a connection ended because its client did not read or did not leave");
                break;
            }
            // GOAWAY; streams that are open are answered.
            is_leaving = true;
            watch.restart();
            connection.as_mut().graceful_shutdown();
        }
    }
    tasks.close();
    tasks.wait().await;
}

/// Answers a request on a stream of its own.
fn answer(
    mut request: Request<Incoming>,
    peer: &Peer,
    certificate: Option<&ClientCertificate>,
    front: &Frontend,
    activity: &Arc<Activity>,
) -> impl Future<Output = Result<Response<TrackedBody>, Infallible>> + Send + use<> {
    let (place, share) = (Caller::new(peer.address), if front.proxies.trust(peer.address) { 0 } else { 1 });
    let place = front.streams.take(place, share);
    let too_many_headers = request.headers().len() > front.limits.headers;
    let caller = Caller::new(front.proxies.origin(peer.address, request.headers()));
    let responder = front.responder();
    if let Some(certificate) = certificate {
        request.extensions_mut().insert(certificate.clone());
    }
    let (is_refused, place) = (place.is_err(), place.ok());
    let stream = Arc::new(OpenStream::new(Arc::clone(activity), place));
    async move {
        let response = match () {
            () if is_refused => too_many_streams(),
            () if too_many_headers => headers_too_many(),
            () => responder.answer(request, caller, true).await,
        };
        Ok(response.map(|body| TrackedBody::new(body, stream)))
    }
}

/// Returns the refusal of a stream beyond the number of one address.
fn too_many_streams() -> axum::response::Response {
    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, Body::from(REFUSAL_BODY));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

/// Returns the refusal of a request with more headers than are permitted.
fn headers_too_many() -> axum::response::Response {
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let text = unreadable(status.as_u16()).unwrap_or_default();
    let body = memchr::memmem::find(&text, b"\r\n\r\n").map(|at| text[at + 4..].to_vec()).unwrap_or_default();
    problem(status, Body::from(body))
}

fn problem(status: StatusCode, body: Body) -> axum::response::Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let media = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}
