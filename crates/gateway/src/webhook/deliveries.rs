//! `/webhooks/{hook}/deliveries`: stored deliveries, their results, and replay.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::find::find;
use super::hook::Hook;
use super::receive::{in_progress, task_result};
use super::work::{Acknowledgement, ApplyingGuard, Job, decode_kept, delivery_batch, undecodable};
use crate::http::bounds::Bounds;
use crate::http::extract::{Prefix, QueryParameters, Segment, parameters};
use crate::http::problem::{ApiError, Code};
use crate::http::response::{self, TOTAL};
use crate::state::GatewayState;
use diorama_core::dio::Dio;
use diorama_core::journal::{Changes, Delivery, DeliveryId, DeliveryQuery, DeliveryState, RawRequest, StoredDelivery};
use diorama_core::vista::query::url::segment;

/// Maximum number of deliveries in one response.
const MOST: usize = 1_000;
/// Default number of deliveries in one response.
const USUAL: usize = 100;

/// Filter and page of the list of deliveries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeliveryFilter {
    state: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

impl DeliveryFilter {
    fn query(&self, hook: &Hook) -> Result<DeliveryQuery, ApiError> {
        let limit = self.limit.unwrap_or(USUAL);
        if limit > MOST {
            let detail = format!("limit={limit} is more than the maximum of {MOST}");
            return Err(ApiError::new(Code::LimitTooLarge, detail).hint("get the next page with after="));
        }
        let after = self.after.as_deref().filter(|after| !after.is_empty()).map(str::parse::<DeliveryId>).transpose();
        let wrong = |()| ApiError::new(Code::InvalidParameter, "after must be the id of a delivery, like dlv_0197..");
        Ok(DeliveryQuery { hook: Some(hook.name.clone()), states: self.states()?, after: after.map_err(wrong)?, limit })
    }

    fn states(&self) -> Result<Vec<DeliveryState>, ApiError> {
        let words = self.state.as_deref().unwrap_or_default().split(',').filter(|word| !word.is_empty());
        let read = |word: &str| {
            let known = DeliveryState::ALL.into_iter().find(|state| state.as_str() == word);
            known.ok_or_else(|| {
                let all: Vec<_> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
                let error = ApiError::new(Code::InvalidParameter, format!("state: {word:?} is not a valid state"));
                error.hint(format!("use one of {}, or several with commas", all.join(", ")))
            })
        };
        words.map(read).collect()
    }
}

/// Lists the deliveries of a webhook, newest first.
pub(crate) async fn list(
    State(gateway): State<Arc<GatewayState>>,
    Segment(name): Segment<1>,
    OriginalUri(uri): OriginalUri,
    query: QueryParameters<DeliveryFilter>,
    Prefix(prefix): Prefix,
) -> Result<Response, ApiError> {
    let (_, hook) = find(&gateway, &name)?;
    let narrowed = parameters(query)?;
    let query = narrowed.query(hook)?;
    let dio = &gateway.dio(&hook.dio)?.dio;
    // One delivery more than the page tells if there is a next page.
    let more = DeliveryQuery { limit: query.limit.saturating_add(1), ..query.clone() };
    let (mut found, total) = dio.deliveries(&more).await?;
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    let mut response = response::json(&found.iter().map(|delivery| describe(delivery, &prefix)).collect());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(TOTAL, HeaderValue::from(total));
    if let Some(last) = found.last().filter(|_| more) {
        let state = narrowed.state.as_deref().map(|state| format!("state={}&", segment(state)));
        let (path, limit) = (uri.path(), query.limit);
        let next = format!("<{path}?{}limit={limit}&after={}>; rel=\"next\"", state.unwrap_or_default(), last.id);
        headers.insert(header::LINK, response::text(next));
    }
    Ok(response)
}

/// Returns one delivery with its request.
pub(crate) async fn delivery(
    State(gateway): State<Arc<GatewayState>>,
    Segment(name): Segment<1>,
    Segment(id): Segment<3>,
    Prefix(prefix): Prefix,
) -> Result<Response, ApiError> {
    let (_, hook) = find(&gateway, &name)?;
    let (delivery, raw) = one(hook, &gateway.dio(&hook.dio)?.dio, &id).await?;
    let mut response = response::json(&describe_whole(&delivery, &raw, &prefix));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Applies a delivery again with the current configuration of the webhook, even if it was applied before. Returns the result.
pub(crate) async fn replay(
    State(gateway): State<Arc<GatewayState>>,
    Segment(name): Segment<1>,
    Segment(id): Segment<3>,
    Prefix(prefix): Prefix,
    bounds: Bounds,
) -> Result<Response, ApiError> {
    let (_, hook) = find(&gateway, &name)?;
    let dio = &gateway.dio(&hook.dio)?.dio;
    let (delivery, raw) = one(hook, dio, &id).await?;
    if delivery.state == DeliveryState::Received {
        return Err(in_progress());
    }
    let applying = match &delivery.key {
        Some(key) => Some(ApplyingGuard::begin(hook, key).ok_or_else(in_progress)?),
        None => None,
    };
    let mut memory = bounds.lease_delivery(raw.body.len())?;
    let delivery = Delivery { changes: Changes::default(), detail: None, ..delivery };
    let done = match decode_kept(hook, dio, &raw) {
        Ok(decoded) => {
            memory.grow_for_delivery(0, decoded.changes.len())?;
            let batch = delivery_batch(hook, delivery, (None, &raw.body), decoded, true);
            let (hook, owner, acknowledgement) = (Arc::clone(hook), dio.clone(), Arc::new(Acknowledgement::default()));
            task_result(
                dio.run(
                    Job { dio: owner, hook, batch, acknowledgement, permit: None, applying, memory: Some(memory) }
                        .run(),
                )
                .await,
            )?
        }
        Err(error) => {
            let delivery = undecodable(Delivery { attempts: delivery.attempts.saturating_add(1), ..delivery }, &error);
            dio.keep_delivery(StoredDelivery { delivery: delivery.clone(), raw: None }).await?;
            delivery
        }
    };
    Ok(response::json(&describe(&done, &prefix)))
}

async fn one(hook: &Hook, dio: &Dio, id: &str) -> Result<(Delivery, RawRequest), ApiError> {
    let unknown = || {
        ApiError::new(Code::NotFound, format!("delivery {id:?} of webhook {:?} was not found", hook.name))
            .hint(format!("GET /webhooks/{}/deliveries lists the stored deliveries", segment(&hook.name)))
    };
    let found = dio.delivery(id.parse().map_err(|()| unknown())?).await?;
    found.filter(|(delivery, _)| *delivery.hook == *hook.name).ok_or_else(unknown)
}

/// Converts a delivery with its request to JSON. Links begin with `prefix`.
pub fn describe_whole(delivery: &Delivery, raw: &RawRequest, prefix: &str) -> Value {
    let mut shown = describe(delivery, prefix);
    if let Some(members) = shown.as_object_mut() {
        members.extend(describe_raw(raw));
    }
    shown
}

/// Converts a delivery to JSON. Links begin with `prefix`.
fn describe(delivery: &Delivery, prefix: &str) -> Value {
    let own = format!("{prefix}/webhooks/{}/deliveries/{}", segment(&delivery.hook), delivery.id);
    json!({
        "id": delivery.id.to_string(),
        "hook": &*delivery.hook,
        "dio": &*delivery.dio,
        "key": delivery.key,
        "state": delivery.state,
        "changes": delivery.changes,
        "detail": delivery.detail,
        "attempts": delivery.attempts,
        "received": response::moment(delivery.received),
        "updated": response::moment(delivery.updated),
        "size": delivery.size,
        "links": { "self": own, "replay": format!("{own}/replay") },
    })
}

/// Converts the request of a delivery to JSON members. The body is text, or base64 if it is not valid UTF-8.
fn describe_raw(raw: &RawRequest) -> Vec<(String, Value)> {
    let headers = raw.headers.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    let (text, base64) = match std::str::from_utf8(&raw.body) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(&raw.body))),
    };
    vec![
        ("uri".into(), raw.uri.as_str().into()),
        ("headers".into(), headers.collect()),
        ("body".into(), json!(text)),
        ("body_base64".into(), json!(base64)),
    ]
}
