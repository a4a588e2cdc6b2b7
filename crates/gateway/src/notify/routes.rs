//! `/_notify`: the notifications with their states, their deliveries, and sending again.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::schema::ObjectBuilder;

use super::{Notification, NotifyState};
use crate::access::{Principal, Verb};
use crate::audit::trail::AuditTrail;
use crate::http::extract::{Prefix, QueryParameters, Segment, parameters};
use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::http::schemas::{text, words};
use crate::scope::Scope;
use crate::state::{GatewayState, Resource};
use crate::webhook::deliveries::{self, DeliveryFilter};
use diorama_core::journal::{AuditAction, Delivery, DeliveryId, DeliveryQuery, DeliveryState, RawRequest};
use diorama_core::vista::query::url::segment;

/// State of a notification.
#[derive(Serialize, ToSchema)]
#[schema(as = Notification)]
pub(crate) struct NotificationBody {
    name: String,
    dio: String,
    /// URL of the receiver, without credentials and query.
    url: String,
    #[schema(schema_with = notification_states)]
    state: &'static str,
    /// Reason why nothing is sent.
    #[schema(required)]
    detail: Option<String>,
    /// Position up to which every event is delivered or stored as a delivery.
    #[schema(required, schema_with = text)]
    position: Option<String>,
    /// Number of events after the position.
    behind: u64,
    /// Number of deliveries that are queued, with those that have failed.
    waiting: usize,
    /// Number of messages that were delivered since the start.
    delivered: u64,
    /// Number of attempts that have failed since the start.
    failed_attempts: u64,
    /// Number of deliveries that were given up since the start.
    given_up: u64,
    #[schema(required, schema_with = text)]
    last_delivered: Option<String>,
    #[schema(required, inline)]
    last_failure: Option<LastFailure>,
}

#[derive(Serialize, ToSchema)]
struct LastFailure {
    #[schema(required, schema_with = text)]
    at: Option<String>,
    detail: String,
}

fn notification_states() -> ObjectBuilder {
    words(["starting", "active", "resting", "full", "disabled"])
}

impl NotificationBody {
    pub(crate) fn of(notification: &Notification, resource: &Resource) -> NotificationBody {
        let status = notification.status();
        let detail = match &status.state {
            NotifyState::Disabled(detail) => Some(detail.clone()),
            NotifyState::Resting(until) => {
                response::moment(*until).map(|until| format!("the receiver fails; it is tried again at {until}"))
            }
            NotifyState::Full => Some("the outbox is full of deliveries that have failed; see lens.outbox".into()),
            NotifyState::Starting | NotifyState::Active => None,
        };
        // Entries without an event are behind nobody.
        let behind =
            status.position.as_ref().map_or(0, |own| resource.dio.log().ring().tail().seq.saturating_sub(own.seq));
        NotificationBody {
            name: notification.name.clone(),
            dio: notification.dio.clone(),
            url: notification.receiver.url().to_string(),
            state: status.state.as_str(),
            detail,
            position: status.position.map(|position| position.to_string()),
            behind,
            waiting: status.waiting,
            delivered: status.delivered,
            failed_attempts: status.failed_attempts,
            given_up: status.given_up,
            last_delivered: status.last_delivered.and_then(response::moment),
            last_failure: status.last_failure.map(|(at, detail)| LastFailure { at: response::moment(at), detail }),
        }
    }
}

/// Delivery of a notification, without its message.
#[derive(Serialize, ToSchema)]
#[schema(as = Notice)]
pub(crate) struct NoticeBody {
    #[schema(schema_with = deliveries::id)]
    id: String,
    #[schema(schema_with = states)]
    state: DeliveryState,
    notification: String,
    dio: String,
    /// Value of `webhook-id`: the position of the event.
    #[schema(required)]
    key: Option<String>,
    /// Id of the row that the event is about.
    #[schema(required)]
    row: Option<String>,
    /// Reason of the last failure.
    #[schema(required)]
    detail: Option<String>,
    attempts: u32,
    /// Time of the event.
    #[schema(required, schema_with = text)]
    at: Option<String>,
    #[schema(required, schema_with = text)]
    updated: Option<String>,
    /// Time of the next attempt, if it is pending.
    #[schema(required, schema_with = text)]
    next_attempt: Option<String>,
    size: u64,
    #[schema(inline)]
    links: NoticeLinks,
}

#[derive(Serialize, ToSchema)]
struct NoticeLinks {
    #[serde(rename = "self")]
    own: String,
    replay: String,
}

/// Delivery of a notification with its message.
#[derive(Serialize, ToSchema)]
pub(crate) struct NoticeSent {
    #[serde(flatten)]
    #[schema(inline)]
    delivery: NoticeBody,
    url: String,
    /// The message.
    #[schema(value_type = Object)]
    message: Option<Box<RawValue>>,
}

fn states() -> ObjectBuilder {
    words(DeliveryState::SENT.map(DeliveryState::as_str))
}

impl NoticeBody {
    fn of(delivery: &Delivery, prefix: &str) -> NoticeBody {
        let own = format!("{prefix}/_notify/{}/deliveries/{}", segment(&delivery.hook), delivery.id);
        let outgoing = delivery.outgoing.clone().unwrap_or_default();
        let pending = delivery.state == DeliveryState::Pending;
        NoticeBody {
            id: delivery.id.to_string(),
            state: delivery.state,
            notification: delivery.hook.to_string(),
            dio: delivery.dio.to_string(),
            key: delivery.key.clone(),
            row: outgoing.row.map(|row| row.to_string()),
            detail: delivery.detail.clone(),
            attempts: delivery.attempts,
            at: response::moment(delivery.received),
            updated: response::moment(delivery.updated),
            next_attempt: response::moment(outgoing.due).filter(|_| pending),
            size: delivery.size,
            links: NoticeLinks { replay: format!("{own}/replay"), own },
        }
    }
}

impl NoticeSent {
    fn of(delivery: &Delivery, raw: &RawRequest, prefix: &str) -> NoticeSent {
        let message = std::str::from_utf8(&raw.body).ok().and_then(|text| RawValue::from_string(text.into()).ok());
        NoticeSent { delivery: NoticeBody::of(delivery, prefix), url: raw.uri.clone(), message }
    }
}

/// Lists the notifications that the caller may see.
pub(crate) async fn notifications(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
) -> Result<Response, ApiError> {
    let visible = gateway.notifications.values().filter_map(|own| visible(&gateway, &principal, own).ok());
    Ok(uncached(response::json(
        &visible.map(|(own, resource)| NotificationBody::of(own, &resource)).collect::<Vec<_>>(),
    )))
}

/// Returns one notification.
pub(crate) async fn notification(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    Segment(name): Segment<1>,
) -> Result<Response, ApiError> {
    let (notification, resource) = find(&gateway, &principal, &name)?;
    Ok(uncached(response::json(&NotificationBody::of(notification, &resource))))
}

/// Continues a notification whose receiver has said that it is gone, or tries one that rests at once.
pub(crate) async fn enable(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    Segment(name): Segment<1>,
    trail: AuditTrail,
) -> Result<Response, ApiError> {
    let (notification, resource) = find(&gateway, &principal, &name)?;
    let job = async {
        notification.enable().await?;
        Ok(uncached(response::json(&NotificationBody::of(notification, &resource))))
    };
    trail.record(AuditAction::EnableNotification, Some(&notification.dio), Some(name), job).await
}

/// Lists the deliveries of a notification, newest first.
pub(crate) async fn list(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    Segment(name): Segment<1>,
    OriginalUri(uri): OriginalUri,
    query: QueryParameters<DeliveryFilter>,
    Prefix(prefix): Prefix,
) -> Result<Response, ApiError> {
    let (notification, resource) = find(&gateway, &principal, &name)?;
    let page = parameters(query)?;
    let query =
        DeliveryQuery { hook: Some(notification.name.clone()), outgoing: true, ..page.query(&DeliveryState::SENT)? };
    page.answer(&resource.dio, &query, uri.path(), |delivery| NoticeBody::of(delivery, &prefix)).await
}

/// Returns one delivery with its message.
pub(crate) async fn delivery(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    Segment(name): Segment<1>,
    Segment(id): Segment<3>,
    Prefix(prefix): Prefix,
) -> Result<Response, ApiError> {
    let (notification, resource) = find(&gateway, &principal, &name)?;
    let (delivery, raw) = one(notification, &resource, &id).await?;
    Ok(uncached(response::json(&NoticeSent::of(&delivery, &raw, &prefix))))
}

/// Sends a delivery again, after those of its row that wait; one that waits is sent at once. Returns it as it is stored then.
pub(crate) async fn replay(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    Segment(name): Segment<1>,
    Segment(id): Segment<3>,
    Prefix(prefix): Prefix,
    trail: AuditTrail,
) -> Result<Response, ApiError> {
    let (notification, resource) = find(&gateway, &principal, &name)?;
    let (delivery, _) = one(notification, &resource, &id).await?;
    let job = async {
        notification.replay(delivery).await?;
        let (delivery, _) = one(notification, &resource, &id).await?;
        Ok(uncached(response::json(&NoticeBody::of(&delivery, &prefix))))
    };
    trail.record(AuditAction::Replay, Some(&notification.dio), Some(id.clone()), job).await
}

async fn one(notification: &Notification, resource: &Resource, id: &str) -> Result<(Delivery, RawRequest), ApiError> {
    let unknown = || {
        ApiError::new(Code::NotFound, format!("delivery {id:?} of notification {:?} was not found", notification.name))
            .hint(format!("GET /_notify/{}/deliveries lists the stored deliveries", segment(&notification.name)))
    };
    let id: DeliveryId = id.parse().map_err(|()| unknown())?;
    let found = resource.dio.delivery(id).await?;
    found
        .filter(|(delivery, _)| delivery.outgoing.is_some() && *delivery.hook == *notification.name)
        .ok_or_else(unknown)
}

/// Returns the notification `name` if the caller may see its deliveries.
///
/// # Errors
/// 404 for one that does not exist or whose resource the caller does not see, 403 if it may not see deliveries.
fn find<'a>(
    gateway: &'a GatewayState,
    principal: &Principal,
    name: &str,
) -> Result<(&'a Arc<Notification>, Arc<Resource>), ApiError> {
    let unknown = || {
        ApiError::new(Code::NotFound, format!("notification {name:?} was not found")).hint("GET /_notify lists them")
    };
    let notification = gateway.notifications.get(name).ok_or_else(unknown)?;
    visible(gateway, principal, notification).map_err(|error| match error.code() {
        Code::DioNotFound => unknown(),
        _ => error,
    })
}

fn visible<'a>(
    gateway: &GatewayState,
    principal: &Principal,
    notification: &'a Arc<Notification>,
) -> Result<(&'a Arc<Notification>, Arc<Resource>), ApiError> {
    Scope::of(gateway, &notification.dio, principal, Verb::Webhooks)?;
    let (resource, _) = Scope::find(gateway, &notification.dio, principal)?;
    Ok((notification, resource))
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
