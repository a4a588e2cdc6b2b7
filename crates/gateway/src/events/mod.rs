//! Routes of events and live queries, over WebSocket, as server-sent events or by long polling.
//!
//! Events: `GET /{dio}/events`, `/{dio}/{id}/events` and `/events`. Live queries: `GET /{dio}/live` and live aggregates.
//!
//! `request.rs` parses requests, `view.rs` makes frames (`frame.rs`) of events for all subscribers with the same view,
//! `dispatch.rs` finds the subscribers that an event can concern, `cursor.rs` is one subscription, `live/` is one to a live query, and `subscriptions.rs` has those of one connection.
//! `session.rs` (with `command.rs`) and `stream.rs` send the frames to clients.

#[cfg(test)]
mod access_tests;
mod command;
mod cursor;
pub(crate) mod dispatch;
pub(crate) mod frame;
pub(crate) mod live;
mod request;
mod session;
pub(crate) mod sockets;
mod stream;
mod subscriptions;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod view;

pub(crate) use request::{ConnectionOptions, LiveSubscription, MOST_ROWS};
pub use sockets::Sockets;

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRequestParts as _, Query, RawQuery, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::response::Response;

use self::frame::Encoding;
use self::request::{StartPoint, Subscription};
use self::session::{MOST_MESSAGE, Session};
use self::sockets::SocketPermit;
use self::stream::Transport;
use self::subscriptions::{MOST_SUBS, Subscriptions, find_live_scope, find_scope};
use crate::access::Verb;
use crate::http::bounds::Bounds;
use crate::http::extract::{Segment, check_ready};
use crate::http::negotiate::{self, Format};
use crate::http::problem::{ApiError, Code};
use crate::rows::aggregate;
use crate::scope::Scope;
use crate::state::GatewayState;
use diorama_core::dio::Position;

/// Supported subprotocols, the preferred one first. A client that offers none gets the preferred one.
const SUBPROTOCOLS: [(&str, Encoding); 2] = [("diorama.v1+json", Encoding::Json), ("diorama.v1+cbor", Encoding::Cbor)];
/// Maximum number of bytes in the write buffer of a slow socket.
const WRITE_BUFFER: usize = 1 << 20;
/// Header with the last position of a browser's event source before a reconnect.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Subscribes to a Dio's events.
pub(crate) async fn subscribe(
    State(gateway): State<Arc<GatewayState>>,
    Segment(dio): Segment<0>,
    RawQuery(raw): RawQuery,
    bounds: Bounds,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let (subscription, connection) = parse(&gateway, &dio, raw, &bounds).await?;
    one(&gateway, &dio, bounds, subscription, connection, &headers, upgrade).await
}

/// Subscribes to the events of one row.
pub(crate) async fn subscribe_one(
    State(gateway): State<Arc<GatewayState>>,
    Segment(dio): Segment<0>,
    Segment(id): Segment<1>,
    RawQuery(raw): RawQuery,
    bounds: Bounds,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let (subscription, connection) = parse(&gateway, &dio, raw, &bounds).await?;
    let subscription = Subscription { ids: Some([id].into()), ..subscription };
    one(&gateway, &dio, bounds, subscription, connection, &headers, upgrade).await
}

/// Parses the query string of one resource's events.
async fn parse(
    gateway: &GatewayState,
    dio: &str,
    raw: Option<String>,
    bounds: &Bounds,
) -> Result<(Subscription, ConnectionOptions), ApiError> {
    let (scope, raw) = (find_scope(gateway, dio, &bounds.principal)?, raw.unwrap_or_default());
    let (schema, text) = (Arc::clone(&scope.schema), raw.clone());
    bounds.read(scope.dio.workers(), raw.as_bytes(), move || request::parse(&text, &schema)).await?
}

/// Follows the rows of a list.
pub(crate) async fn live(
    State(gateway): State<Arc<GatewayState>>,
    Segment(dio): Segment<0>,
    RawQuery(raw): RawQuery,
    bounds: Bounds,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let (scope, raw) = (find_live_scope(&gateway, &dio, &bounds.principal)?, raw.unwrap_or_default());
    let (owner, text) = (scope.clone(), raw.clone());
    let request = bounds
        .read(scope.dio.workers(), raw.as_bytes(), move || {
            LiveSubscription::parse(&text, &owner.schema, &owner.options)
        })
        .await??;
    follow(&gateway, &scope, bounds, request, &headers, upgrade).await
}

/// Aggregates rows, or subscribes to the groups of a live aggregate.
pub(crate) async fn aggregate(
    State(gateway): State<Arc<GatewayState>>,
    Segment(dio): Segment<0>,
    bounds: Bounds,
    request: Request,
) -> Result<Response, ApiError> {
    let scope = Scope::of(&gateway, &dio, &bounds.principal, Verb::Read)?;
    let raw = request.uri().query().unwrap_or_default().to_string();
    let Some(mut live) = parse_groups(&scope, &raw, &bounds).await? else {
        return aggregate::aggregate(&scope, &bounds, &raw, request.headers()).await;
    };
    let followed = find_live_scope(&gateway, &dio, &bounds.principal)?;
    if followed.rows.id() != scope.rows.id() {
        // Fewer columns may be visible live than in a single answer.
        let again = parse_groups(&followed, &raw, &bounds).await?;
        live = again.ok_or_else(|| ApiError::new(Code::InvalidParameter, "live must be true"))?;
    }
    let scope = followed;
    let (mut parts, _) = request.into_parts();
    let upgrade = Upgrade::from_request_parts(&mut parts, &()).await.unwrap_or_else(|never| match never {});
    follow(&gateway, &scope, bounds, live, &parts.headers, upgrade).await
}

/// Parses the query string of an aggregate; `None` if it is not live.
async fn parse_groups(
    scope: &Scope,
    raw: &str,
    bounds: &Bounds,
) -> Result<Option<(LiveSubscription, ConnectionOptions)>, ApiError> {
    let (owner, text) = (scope.clone(), raw.to_string());
    let read = move || LiveSubscription::parse_groups(&text, &owner.schema, &owner.options);
    bounds.read(scope.dio.workers(), raw.as_bytes(), read).await?
}

/// Subscribes to the events of several Dios.
pub(crate) async fn subscribe_many(
    State(gateway): State<Arc<GatewayState>>,
    Query(parameters): Query<Vec<(String, String)>>,
    bounds: Bounds,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let carrier = Carrier::of(&headers, upgrade)?;
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).filter(|_| carrier.is_sse());
    let many = request::parse_many(&parameters, last)?;
    if many.subs.len() > MOST_SUBS {
        return Err(ApiError::new(Code::LimitTooLarge, format!("dio names more than {MOST_SUBS} resources")));
    }
    if many.subs.is_empty() && !carrier.is_socket() {
        return Err(ApiError::new(Code::InvalidParameter, "dio is missing: it names the resources to subscribe to")
            .hint("GET /events?dio=a,b; a WebSocket may subscribe later"));
    }
    let permit = permit(&gateway, &bounds)?;
    let principal = bounds.principal.clone();
    let mut subs = Subscriptions::new(carrier.encoding(), many.connection.heartbeat, bounds);
    let wanted = many
        .subs
        .into_iter()
        .map(|(name, subscription)| Ok((find_scope(&gateway, &name, &principal)?, name, subscription)));
    let wanted = wanted.collect::<Result<Vec<_>, ApiError>>()?;
    let scopes: Vec<&Scope> = wanted.iter().map(|(scope, ..)| scope).collect();
    if let Err(error) = carrier.wait(&gateway, &scopes, many.connection, &permit).await {
        return carrier.not_ready(error);
    }
    for (scope, name, subscription) in wanted {
        subs.add(Some(&name), &scope, subscription).await?;
    }
    Ok(carrier.carry(subs, many.connection, permit, Some(&gateway)))
}

async fn one(
    gateway: &Arc<GatewayState>,
    dio: &str,
    bounds: Bounds,
    mut subscription: Subscription,
    connection: ConnectionOptions,
    headers: &HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let carrier = Carrier::of(headers, upgrade)?;
    if let Some(last) = headers.get(LAST_EVENT_ID).filter(|_| carrier.is_sse()) {
        // A browser does not reconnect after an error, so an invalid position is treated as one of another epoch.
        let since = last.to_str().ok().and_then(request::since);
        subscription.since = Some(since.unwrap_or_else(|| StartPoint::Position(Position { epoch: "".into(), seq: 0 })));
    }
    let (permit, scope) = (permit(gateway, &bounds)?, find_scope(gateway, dio, &bounds.principal)?);
    if let Err(error) = carrier.wait(gateway, &[&scope], connection, &permit).await {
        return carrier.not_ready(error);
    }
    let mut subs = Subscriptions::new(carrier.encoding(), connection.heartbeat, bounds);
    subs.add(None, &scope, subscription).await?;
    Ok(carrier.carry(subs, connection, permit, None))
}

async fn follow(
    gateway: &Arc<GatewayState>,
    scope: &Scope,
    bounds: Bounds,
    (mut subscription, connection): (LiveSubscription, ConnectionOptions),
    headers: &HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let carrier = Carrier::of(headers, upgrade)?;
    if let Some(last) = headers.get(LAST_EVENT_ID).filter(|_| carrier.is_sse()) {
        // An invalid position is ignored, and the rows are sent.
        subscription.since = last.to_str().ok().and_then(request::since);
    }
    let permit = permit(gateway, &bounds)?;
    if let Err(error) = carrier.wait(gateway, &[scope], connection, &permit).await {
        return carrier.not_ready(error);
    }
    let mut subs = Subscriptions::new(carrier.encoding(), connection.heartbeat, bounds);
    subs.add_live(None, scope, subscription).await?;
    Ok(carrier.carry(subs, connection, permit, None))
}

fn permit(gateway: &GatewayState, bounds: &Bounds) -> Result<SocketPermit, ApiError> {
    let permit = gateway.sockets.permit(bounds.lease_socket()?);
    permit.ok_or_else(|| ApiError::new(Code::RateLimited, "too many event sockets and streams are open"))
}

/// Transport of the frames to the client.
enum Carrier {
    Socket(WebSocketUpgrade, Encoding),
    Body(Transport),
}

impl Carrier {
    fn of(headers: &HeaderMap, upgrade: Upgrade) -> Result<Carrier, ApiError> {
        let handshake = [header::UPGRADE, header::SEC_WEBSOCKET_KEY, header::SEC_WEBSOCKET_VERSION];
        match upgrade {
            Ok(upgrade) => {
                let offered =
                    |name: &str| upgrade.requested_protocols().any(|offer| offer.as_bytes() == name.as_bytes());
                let chosen = SUBPROTOCOLS.iter().find(|(name, _)| offered(name));
                let encoding = chosen.map_or(Encoding::Json, |(_, encoding)| *encoding);
                Ok(Carrier::Socket(upgrade, encoding))
            }
            Err(_) if handshake.iter().any(|name| headers.contains_key(name)) => Err(invalid_handshake()),
            Err(_) => transport(headers).map(Carrier::Body),
        }
    }

    fn is_sse(&self) -> bool {
        matches!(self, Carrier::Body(Transport::Sse))
    }

    fn is_socket(&self) -> bool {
        matches!(self, Carrier::Socket(..))
    }

    fn encoding(&self) -> Encoding {
        match self {
            Carrier::Socket(_, encoding) => *encoding,
            Carrier::Body(_) => Encoding::Json,
        }
    }

    /// Waits until the resources have their first copy. Sockets and streams wait for up to `start_wait`, polls for up to their
    /// own waiting time.
    async fn wait(
        &self,
        gateway: &GatewayState,
        scopes: &[&Scope],
        connection: ConnectionOptions,
        permit: &SocketPermit,
    ) -> Result<(), ApiError> {
        let patience = match self {
            Carrier::Socket(..) | Carrier::Body(Transport::Sse) => gateway.limits.start_wait,
            Carrier::Body(Transport::Array | Transport::Lines) => connection.wait(),
        };
        let ready = async {
            for scope in scopes {
                // A resource that was closed meanwhile is refused below.
                let _ = scope.dio.ready().await;
            }
        };
        tokio::select! {
            biased;
            () = ready => {}
            () = tokio::time::sleep(patience) => {}
            () = permit.stopping() => {}
        }
        scopes.iter().try_for_each(|scope| check_ready(&scope.dio))
    }

    /// Builds the response if the first copy is not ready. An event source gets an empty stream, because it reconnects after
    /// the end of a stream but not after an error.
    fn not_ready(self, error: ApiError) -> Result<Response, ApiError> {
        if self.is_sse() && error.code() == Code::NotReady { Ok(stream::retry_later()) } else { Err(error) }
    }

    /// Responds with the events of `subs`. With `gateway`, the client may subscribe to more resources.
    fn carry(
        self,
        subs: Subscriptions,
        connection: ConnectionOptions,
        permit: SocketPermit,
        gateway: Option<&Arc<GatewayState>>,
    ) -> Response {
        let upgrade = match self {
            Carrier::Socket(upgrade, _) => upgrade,
            Carrier::Body(transport) => return stream::respond(subs, connection, transport, permit),
        };
        let upgrade = upgrade
            .protocols(SUBPROTOCOLS.map(|(name, _)| name))
            .read_buffer_size(1 << 10)
            .write_buffer_size(32 << 10)
            .max_write_buffer_size(WRITE_BUFFER)
            .max_message_size(MOST_MESSAGE)
            .max_frame_size(MOST_MESSAGE);
        let session = Session::new(subs, connection, gateway.map(Arc::downgrade));
        upgrade.on_upgrade(move |socket| async move {
            session.run(socket, &permit).await;
        })
    }
}

/// Selects the format of a response other than a socket: NDJSON, unless `Accept` names another format.
fn transport(headers: &HeaderMap) -> Result<Transport, ApiError> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let names: Vec<String> = accepted
        .flat_map(|value| value.split(','))
        .map(negotiate::range)
        .filter(|(_, quality)| *quality > 0.0)
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    if names.iter().any(|name| name == "text/event-stream") {
        return Ok(Transport::Sse);
    }
    let by_name = names.iter().any(|name| name == "application/json");
    Ok(match negotiate::of_log(headers)? {
        Format::Json if by_name => Transport::Array,
        _ => Transport::Lines,
    })
}

/// Error for an invalid WebSocket handshake.
fn invalid_handshake() -> ApiError {
    ApiError::new(Code::UpgradeRequired, "the request is not a valid handshake of WebSocket version 13")
        .hint("connect with a WebSocket client, for example: websocat ws://HOST/RESOURCE/events")
        .header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .header(HeaderName::from_static("sec-websocket-version"), HeaderValue::from_static("13"))
}
