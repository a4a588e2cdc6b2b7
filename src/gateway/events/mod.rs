//! `GET /{dio}/events`: a Dio's events over WebSocket.
//!
//! `frame.rs` makes the frames, `session.rs` feeds one socket from the Dio's ring; here are the parameters and the bounds.

mod frame;
mod session;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use self::session::{MOST_MESSAGE, Session, Since, Wish};
use super::extract::Segment;
use super::problem::{ApiError, Code};
use super::state::{Mounted, Shared};

/// The one subprotocol: JSON text frames.
const SUBPROTOCOL: &str = "diorama.v1+json";
/// Ids in one subscription, at most.
const MOST_IDS: usize = 1_000;
/// Seconds between heartbeats if nobody says otherwise.
const HEARTBEAT: u64 = 25;
/// Bytes that wait for a slow socket, at most.
const WRITE_BUFFER: usize = 1 << 20;

type Parameters = Query<Vec<(String, String)>>;
type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Subscribes to a Dio's events.
pub(super) async fn subscribe(
    State(shared): State<Arc<Shared>>,
    Segment(dio): Segment<0>,
    Query(parameters): Parameters,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    open(&shared, &dio, parse(parameters)?, upgrade)
}

/// Subscribes to the events of one row.
pub(super) async fn subscribe_one(
    State(shared): State<Arc<Shared>>,
    Segment(dio): Segment<0>,
    Segment(id): Segment<1>,
    Query(parameters): Parameters,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let wish = Wish { ids: Some([id].into()), ..parse(parameters)? };
    open(&shared, &dio, wish, upgrade)
}

fn open(shared: &Shared, dio: &str, wish: Wish, upgrade: Upgrade) -> Result<Response, ApiError> {
    let mounted = shared.dio(dio)?;
    let upgrade = upgrade.map_err(|_| no_socket())?;
    if shared.closing.is_cancelled() {
        return Err(ApiError::new(Code::ShuttingDown, "the server is stopping"));
    }
    if !mounted.dio.is_ready() {
        return Err(ApiError::new(Code::NotReady, format!("the first copy of {dio} is still being read")));
    }
    let place = shared.sockets.place();
    let place = place.ok_or_else(|| ApiError::new(Code::RateLimited, "too many event sockets are open"))?;
    Ok(attach(mounted, wish, upgrade, place))
}

/// A plain GET, or a handshake that is none.
fn no_socket() -> ApiError {
    ApiError::new(Code::UpgradeRequired, "events are sent over a WebSocket")
        .hint("connect with a WebSocket client, for example: websocat ws://HOST/RESOURCE/events")
        .header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .header(HeaderName::from_static("sec-websocket-version"), HeaderValue::from_static("13"))
}

/// The open sockets of a server: how many there may be, and how they end. Clones share them.
#[derive(Clone, Debug)]
pub struct Sockets {
    places: Arc<Semaphore>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Default for Sockets {
    fn default() -> Sockets {
        Sockets::new(10_000)
    }
}

impl Sockets {
    /// At most `most` sockets.
    pub fn new(most: usize) -> Sockets {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Sockets { places, closing: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.tasks.len()
    }

    /// Closes all with code 1001, and those that still come; returns when they are gone.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A place for one more, `None` if all are taken.
    fn place(&self) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place { closing: self.closing.clone(), _permit: permit, _task: self.tasks.token() })
    }
}

/// A socket's right to be; given back when dropped.
struct Place {
    closing: CancellationToken,
    _permit: OwnedSemaphorePermit,
    _task: TaskTrackerToken,
}

/// Switches to WebSocket and feeds the events of `mounted` to it.
fn attach(mounted: &Mounted, wish: Wish, upgrade: WebSocketUpgrade, place: Place) -> Response {
    let (dio, counts) = (mounted.dio.clone(), Arc::clone(&mounted.sockets));
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(4 << 10)
        .write_buffer_size(32 << 10)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_message_size(MOST_MESSAGE)
        .max_frame_size(MOST_MESSAGE);
    upgrade.on_upgrade(move |socket| async move {
        let open = counts.enter();
        let session = Session::new(&dio, wish);
        // The ring is enough: a socket does not keep its Dio from closing.
        drop(dio);
        // The whole of it: a closure that names one field takes only that, and gives the place back at once.
        let place = place;
        open.closed(session.run(socket, place.closing.clone()).await);
    })
}

/// Reads the parameters of `/events`; nothing is ignored.
fn parse(parameters: Vec<(String, String)>) -> Result<Wish, ApiError> {
    let mut wish = Wish { since: Since::Now, records: true, ids: None, heartbeat: HEARTBEAT };
    for (name, value) in parameters {
        let bad = |detail: &str| ApiError::new(Code::InvalidParameter, format!("{name} {detail}"));
        match name.as_str() {
            "since" => wish.since = since(&value).ok_or_else(|| bad("is a position (EPOCH:SEQ), now or earliest"))?,
            "records" => wish.records = value.parse().map_err(|_| bad("is true or false"))?,
            "heartbeat" => {
                let seconds = value.parse().ok().filter(|seconds| (5..=60).contains(seconds));
                wish.heartbeat = seconds.ok_or_else(|| bad("is a number of seconds from 5 to 60"))?;
            }
            "ids" => {
                let ids = wish.ids.get_or_insert_with(HashSet::new);
                ids.extend(value.split(',').filter(|id| !id.is_empty()).map(str::to_string));
                if ids.is_empty() || ids.len() > MOST_IDS {
                    return Err(bad("takes 1 to 1000 ids, separated by commas"));
                }
            }
            "order" | "limit" | "offset" | "after" => {
                return Err(bad(
                    "makes no sense for events: they are a log, not a list; use GET on the resource itself",
                ));
            }
            _ => {
                let error = ApiError::new(Code::UnknownParameter, format!("{name} is not known here"));
                return Err(error.hint("events know since, records, ids and heartbeat"));
            }
        }
    }
    Ok(wish)
}

fn since(value: &str) -> Option<Since> {
    Some(match value {
        "now" => Since::Now,
        "earliest" => Since::Earliest,
        position => Since::Position(position.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Wish, ApiError> {
        let uri = format!("/products/events?{query}").parse().unwrap();
        parse(axum::extract::Query::try_from_uri(&uri).unwrap().0)
    }

    #[test]
    fn there_are_only_so_many_places() {
        let sockets = Sockets::new(1);
        let place = sockets.place();
        assert!(place.is_some() && sockets.place().is_none());
        assert_eq!(sockets.open(), 1);
        drop(place);
        assert!(sockets.place().is_some());
    }

    #[test]
    fn parameters_are_read_or_refused() {
        let wish = read("since=K3V9Q2M7XA:1042&records=false&ids=7,8&ids=muffin%20top&heartbeat=5").unwrap();
        assert_eq!(wish.since, Since::Position("K3V9Q2M7XA:1042".parse().unwrap()));
        assert!(!wish.records);
        assert_eq!(wish.ids, Some(["7", "8", "muffin top"].map(String::from).into()));
        assert_eq!(wish.heartbeat, 5);
        assert_eq!(read("").unwrap().since, Since::Now);
        for refused in ["since=yesterday", "records=maybe", "heartbeat=1", "ids=", "limit=5", "colour=red"] {
            let error = read(refused).unwrap_err();
            assert_eq!(error.code().as_str().starts_with("unknown"), refused.starts_with("colour"), "{refused}");
        }
    }
}
