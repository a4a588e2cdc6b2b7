//! The accept loop: bounded connections, a bound on how long headers may take, and an end that waits for answers under way.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

/// How long a client may take to send a request's head.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Bytes read ahead of one connection, at most; a request's head must fit.
const READ_BUFFER: usize = 64 << 10;
/// The longest rest after a failed accept.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// What serves requests; may be exchanged while connections are open.
pub(super) type Current = Arc<ArcSwap<Router>>;

/// Accepts until `closing`; the connections go on in `connections`, until each has answered what it was asked.
pub(super) async fn accept(
    listener: TcpListener,
    current: Current,
    most: usize,
    closing: CancellationToken,
    connections: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let mut rest = Duration::from_millis(10);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = closing.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                rest = Duration::from_millis(10);
                let connection = serve(stream, Arc::clone(&current), closing.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: it passes when others close.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(rest).await;
                rest = (rest * 2).min(LONGEST_REST);
            }
        }
    }
}

async fn serve(stream: TcpStream, current: Current, closing: CancellationToken) {
    // Answers are written whole: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut router = Router::clone(&current.load());
        async move {
            let answer: Result<Response, Infallible> = router.call(request.map(Body::new)).await;
            answer
        }
    });
    // A request has at most 100 headers: hyper's own bound, which costs less than the same one set here.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(READ_BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
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
