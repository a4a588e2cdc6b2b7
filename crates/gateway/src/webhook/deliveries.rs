//! `/webhooks/{hook}/deliveries`: stored deliveries, their results, and replay.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::{IntoParams, ToSchema};

use super::find::find_visible;
use super::hook::Hook;
use super::receive::{in_progress, task_result};
use super::work::{Acknowledgement, ApplyingGuard, Job, decode_kept, delivery_batch, undecodable};
use crate::access::Principal;
use crate::audit::trail::AuditTrail;
use crate::http::bounds::Bounds;
use crate::http::extract::{Prefix, QueryParameters, Segment, parameters};
use crate::http::problem::{ApiError, Code};
use crate::http::response::{self, TOTAL};
use crate::http::schemas::{list_of, text, with_schemas, words};
use crate::state::GatewayState;
use diorama_core::dio::Dio;
use diorama_core::journal::{
    AuditAction, Changes, Delivery, DeliveryId, DeliveryQuery, DeliveryState, RawRequest, StoredDelivery,
};
use diorama_core::vista::query::url::segment;

/// Maximum number of deliveries in one response.
const MOST: usize = 1_000;
/// Default number of deliveries in one response.
const USUAL: usize = 100;

/// Delivery without its request.
#[derive(Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(crate) struct DeliveryBody {
    #[schema(schema_with = id)]
    id: String,
    #[schema(schema_with = states)]
    state: DeliveryState,
    hook: String,
    dio: String,
    /// Id that the sender gave the delivery.
    #[schema(required)]
    key: Option<String>,
    #[schema(inline)]
    changes: ChangeCounts,
    #[schema(required)]
    detail: Option<String>,
    attempts: u32,
    #[schema(required, schema_with = text)]
    received: Option<String>,
    #[schema(required, schema_with = text)]
    updated: Option<String>,
    size: u64,
    #[schema(inline)]
    links: DeliveryLinks,
}

/// Numbers of the changes of a delivery, by their results.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChangeCounts {
    received: u64,
    applied: u64,
    unchanged: u64,
    deferred: u64,
    stale: u64,
    duplicates: u64,
    ignored: u64,
    skipped: u64,
}

impl From<Changes> for ChangeCounts {
    fn from(changes: Changes) -> ChangeCounts {
        let Changes { received, applied, unchanged, deferred, stale, duplicates, ignored, skipped } = changes;
        ChangeCounts { received, applied, unchanged, deferred, stale, duplicates, ignored, skipped }
    }
}

/// URLs of a delivery.
#[derive(Serialize, ToSchema)]
struct DeliveryLinks {
    #[serde(rename = "self")]
    own: String,
    replay: String,
}

/// Delivery with its request.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeliverySent {
    #[serde(flatten)]
    #[schema(inline)]
    delivery: DeliveryBody,
    uri: String,
    #[schema(inline)]
    headers: Vec<SentHeader>,
    /// The body, if it is text.
    body: Option<String>,
    /// The body in base64, if it is not text.
    body_base64: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct SentHeader {
    name: String,
    value: String,
}

/// Schema of a delivery's id.
pub(crate) fn id() -> ObjectBuilder {
    text().pattern(Some("^dlv_[0-9a-f]{32}$"))
}

pub(super) fn states() -> ObjectBuilder {
    words(DeliveryState::RECEIVED.map(DeliveryState::as_str))
}

/// Filter and page of a list of deliveries, received or sent.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeliveryFilter {
    /// Only in this state, or in one of these, separated by commas.
    #[param(nullable = false)]
    state: Option<String>,
    /// Maximum number of deliveries.
    #[param(maximum = 1_000, default = 100, nullable = false)]
    limit: Option<usize>,
    /// Only older than this delivery.
    #[param(nullable = false)]
    after: Option<String>,
}

impl DeliveryFilter {
    /// Parameters of a list of deliveries in `states`.
    pub(crate) fn parameters<const N: usize>(states: [DeliveryState; N]) -> Vec<Parameter> {
        let states = list_of(states.map(DeliveryState::as_str));
        with_schemas(DeliveryFilter::into_params(|| None), [("state", states), ("after", id())])
    }
    /// Returns the query for this page of received deliveries. `known` are the states that they can be in.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub(crate) fn query(&self, known: &[DeliveryState]) -> Result<DeliveryQuery, ApiError> {
        let limit = self.limit.unwrap_or(USUAL);
        if limit > MOST {
            let detail = format!("limit={limit} is more than the maximum of {MOST}");
            return Err(ApiError::new(Code::LimitTooLarge, detail).hint("get the next page with after="));
        }
        let after = self.after.as_deref().filter(|after| !after.is_empty()).map(str::parse::<DeliveryId>).transpose();
        let wrong = |()| ApiError::new(Code::InvalidParameter, "after must be the id of a delivery, like dlv_0197..");
        Ok(DeliveryQuery {
            states: self.states(known)?,
            after: after.map_err(wrong)?,
            limit,
            ..DeliveryQuery::default()
        })
    }

    fn states(&self, known: &[DeliveryState]) -> Result<Vec<DeliveryState>, ApiError> {
        let words = self.state.as_deref().unwrap_or_default().split(',').filter(|word| !word.is_empty());
        let read = |word: &str| {
            known.iter().copied().find(|state| state.as_str() == word).ok_or_else(|| {
                let all: Vec<_> = known.iter().map(|state| state.as_str()).collect();
                let error = ApiError::new(Code::InvalidParameter, format!("state: {word:?} is not a valid state"));
                error.hint(format!("use one of {}, or several with commas", all.join(", ")))
            })
        };
        words.map(read).collect()
    }

    /// Answers with the deliveries of `query`, and a link to the next page at `path`.
    ///
    /// # Errors
    /// 503 if the journal cannot be read.
    pub(crate) async fn answer<T: Serialize>(
        &self,
        dio: &Dio,
        query: &DeliveryQuery,
        path: &str,
        body: impl Fn(&Delivery) -> T,
    ) -> Result<Response, ApiError> {
        // One delivery more than the page tells if there is a next page.
        let more = DeliveryQuery { limit: query.limit.saturating_add(1), ..query.clone() };
        let (mut found, total) = dio.deliveries(&more).await?;
        let more = found.len() > query.limit;
        found.truncate(query.limit);
        let mut response = response::json(&found.iter().map(body).collect::<Vec<_>>());
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(TOTAL, HeaderValue::from(total));
        if let Some(last) = found.last().filter(|_| more) {
            let state = self.state.as_deref().map(|state| format!("state={}&", segment(state))).unwrap_or_default();
            let next = format!("<{path}?{state}limit={}&after={}>; rel=\"next\"", query.limit, last.id);
            headers.insert(header::LINK, response::text(next));
        }
        Ok(response)
    }
}

/// Lists the deliveries of a webhook, newest first.
pub(crate) async fn list(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    Segment(name): Segment<1>,
    OriginalUri(uri): OriginalUri,
    query: QueryParameters<DeliveryFilter>,
    Prefix(prefix): Prefix,
) -> Result<Response, ApiError> {
    let hook = find_visible(&gateway, &principal, &name)?;
    let page = parameters(query)?;
    let query = DeliveryQuery { hook: Some(hook.name.clone()), ..page.query(&DeliveryState::RECEIVED)? };
    let dio = &gateway.resource_of(hook)?.dio;
    page.answer(dio, &query, uri.path(), |delivery| DeliveryBody::of(delivery, &prefix)).await
}

/// Returns one delivery with its request.
pub(crate) async fn delivery(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    Segment(name): Segment<1>,
    Segment(id): Segment<3>,
    Prefix(prefix): Prefix,
) -> Result<Response, ApiError> {
    let hook = find_visible(&gateway, &principal, &name)?;
    let (delivery, raw) = one(hook, &gateway.resource_of(hook)?.dio, &id).await?;
    let mut response = response::json(&DeliverySent::of(&delivery, &raw, &prefix));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Applies a delivery again with the current configuration of the webhook, even if it was applied before. Returns the result.
pub(crate) async fn replay(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    Segment(name): Segment<1>,
    Segment(id): Segment<3>,
    Prefix(prefix): Prefix,
    bounds: Bounds,
    trail: AuditTrail,
) -> Result<Response, ApiError> {
    let hook = find_visible(&gateway, &principal, &name)?;
    let dio = &gateway.resource_of(hook)?.dio;
    let (delivery, raw) = one(hook, dio, &id).await?;
    let target = Some(delivery.id.to_string());
    let job = apply_again(hook, dio, delivery, raw, &bounds, &prefix);
    trail.record(AuditAction::Replay, Some(&hook.dio), target, job).await
}

async fn apply_again(
    hook: &Arc<Hook>,
    dio: &Dio,
    delivery: Delivery,
    raw: RawRequest,
    bounds: &Bounds,
    prefix: &str,
) -> Result<Response, ApiError> {
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
    Ok(response::json(&DeliveryBody::of(&done, prefix)))
}

async fn one(hook: &Hook, dio: &Dio, id: &str) -> Result<(Delivery, RawRequest), ApiError> {
    let unknown = || {
        ApiError::new(Code::NotFound, format!("delivery {id:?} of webhook {:?} was not found", hook.name))
            .hint(format!("GET /webhooks/{}/deliveries lists the stored deliveries", segment(&hook.name)))
    };
    let found = dio.delivery(id.parse().map_err(|()| unknown())?).await?;
    found.filter(|(delivery, _)| delivery.outgoing.is_none() && *delivery.hook == *hook.name).ok_or_else(unknown)
}

/// Converts a delivery with its request to JSON. Links begin with `prefix`.
pub fn describe_whole(delivery: &Delivery, raw: &RawRequest, prefix: &str) -> Value {
    response::document(&DeliverySent::of(delivery, raw, prefix))
}

impl DeliveryBody {
    /// Creates the document of `delivery`. Links begin with `prefix`.
    fn of(delivery: &Delivery, prefix: &str) -> DeliveryBody {
        let own = format!("{prefix}/webhooks/{}/deliveries/{}", segment(&delivery.hook), delivery.id);
        DeliveryBody {
            id: delivery.id.to_string(),
            state: delivery.state,
            hook: delivery.hook.to_string(),
            dio: String::from(&*delivery.dio),
            key: delivery.key.clone(),
            changes: delivery.changes.into(),
            detail: delivery.detail.clone(),
            attempts: delivery.attempts,
            received: response::moment(delivery.received),
            updated: response::moment(delivery.updated),
            size: delivery.size,
            links: DeliveryLinks { replay: format!("{own}/replay"), own },
        }
    }
}

impl DeliverySent {
    fn of(delivery: &Delivery, raw: &RawRequest, prefix: &str) -> DeliverySent {
        let header = |(name, value): &(String, String)| SentHeader { name: name.clone(), value: value.clone() };
        let text = std::str::from_utf8(&raw.body).ok().map(str::to_string);
        let body_base64 = text.is_none().then(|| STANDARD.encode(&raw.body));
        DeliverySent {
            delivery: DeliveryBody::of(delivery, prefix),
            uri: raw.uri.clone(),
            headers: raw.headers.iter().map(header).collect(),
            body: text,
            body_base64,
        }
    }
}
