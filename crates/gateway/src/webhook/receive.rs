//! `POST /webhooks/{hook}`: in this order what the head proves, size, signature over the raw bytes, rate, meaning, and then the
//! changes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, Request, State};
use axum::http::header::{self, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::body::IncomingBody;
use super::deliveries::ChangeCounts;
use super::find::find;
use super::handshake::plain;
use super::hook::Hook;
use super::raw;
use super::report::{Reporter, unproven};
use super::work::{Acknowledgement, ApplyingGuard, Job, parcel, undecodable, unkept};
use crate::http::bounds::Bounds;
use crate::http::budget::Lease;
use crate::http::extract::{Segment, check_ready};
use crate::http::problem::{ApiError, Code};
use crate::http::response::{self, DURABLE};
use crate::state::GatewayState;
use diorama_core::dio::{DeliveryBatch, Dio};
use diorama_core::journal::{Changes, Delivery, DeliveryState, RawRequest, StoredDelivery};
use diorama_core::vista::{Error, Result as DioResult};
use diorama_inbound::{self as inbound, BodyCheck, DecodeError, DecodedDelivery, Reply};

/// Bytes that keeping a delivery takes beside what was sent, about.
const OVERHEAD: u64 = 512;
/// When a sender is to come again whose earlier attempt is still being applied.
const AGAIN: Duration = Duration::from_secs(2);

/// Takes a delivery.
pub(crate) async fn receive(
    State(gateway): State<Arc<GatewayState>>,
    Segment(name): Segment<1>,
    OriginalUri(uri): OriginalUri,
    request: Request,
) -> Result<Response, ApiError> {
    let (at, hook) = find(&gateway, &name)?;
    let (Parts { method, headers, extensions, .. }, body) = request.into_parts();
    let bounds = gateway.bounds(&extensions);
    let taken = take(&gateway, hook, (&method, &uri, &headers), &bounds, body).await;
    // Where what was answered 2xx is safe: with a volatile journal it ends with the process.
    let durable = gateway.dio(&hook.dio).is_ok_and(|resource| resource.dio.is_durable());
    let reporter = Reporter { gateway: &gateway, at, hook, headers: &headers };
    match &taken {
        Ok(DeliveryOutcome::Asked(reply)) => reporter.asked(reply),
        Ok(DeliveryOutcome::Delivery(delivery, _)) => reporter.taken(delivery),
        Err(error) => reporter.refused(error),
    }
    taken.map(|taken| taken.answer(durable))
}

/// What there is to say to a sender who is believed.
enum DeliveryOutcome {
    /// It only wanted to know whether anybody is there.
    Asked(Reply),
    /// Outcome of the delivery so far, and the answer that its sender needs instead of it.
    Delivery(Delivery, Option<Reply>),
}

impl DeliveryOutcome {
    fn answer(self, durable: bool) -> Response {
        match self {
            DeliveryOutcome::Asked(reply) => plain(reply),
            DeliveryOutcome::Delivery(delivery, shown) => {
                let mut response = match shown {
                    Some(reply) => plain(reply),
                    None => said(&delivery),
                };
                let durable = HeaderValue::from_static(if durable { "disk" } else { "memory" });
                response.headers_mut().insert(DURABLE, durable);
                response
            }
        }
    }
}

fn said(delivery: &Delivery) -> Response {
    let mut response = response::json(&Received::of(delivery));
    if matches!(delivery.state, DeliveryState::Received | DeliveryState::Undecodable) {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    response
}

/// Outcome of a delivery, as its sender is told.
#[derive(Serialize, ToSchema)]
pub(crate) struct Received {
    #[schema(schema_with = super::deliveries::id)]
    delivery: String,
    #[schema(schema_with = super::deliveries::states)]
    state: DeliveryState,
    duplicate: bool,
    #[serde(flatten)]
    #[schema(inline)]
    changes: ChangeCounts,
    /// Changes that are still to be applied.
    queued: u64,
    detail: Option<String>,
}

impl Received {
    fn of(delivery: &Delivery) -> Received {
        let Changes { received, ignored, skipped, .. } = delivery.changes;
        Received {
            delivery: delivery.id.to_string(),
            state: delivery.state,
            duplicate: delivery.state == DeliveryState::Duplicate,
            changes: delivery.changes.into(),
            queued: if delivery.state == DeliveryState::Received { received - ignored - skipped } else { 0 },
            detail: delivery.detail.clone(),
        }
    }
}

async fn take(
    gateway: &GatewayState,
    hook: &Arc<Hook>,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    bounds: &Bounds,
    body: Body,
) -> Result<DeliveryOutcome, ApiError> {
    let dio = &gateway.dio(&hook.dio)?.dio;
    let head =
        inbound::Request { method, path: uri.path(), query: uri.query(), headers, body: &[], now: Timestamp::now() };
    if let Some(reply) = hook.inbound.answer_before_verifying(&head) {
        return Ok(DeliveryOutcome::Asked(reply));
    }
    let (check, body) = read(gateway, hook, dio, bounds, &head, body).await?;
    // What stands in the body is read before it is proven, so this has its bound as well.
    let mut memory = bounds.lease_delivery(body.len())?;
    check.check(&body).map_err(|reason| unproven(hook, reason))?;
    let request = inbound::Request { body: &body, ..head };
    // What cannot be decompressed is not decoded either.
    if let Ok(length) = hook.inbound.length(&request) {
        memory.grow_for_delivery(length, 0)?;
    }
    if let Some(reply) = hook.inbound.answer_before_decoding(&request) {
        return Ok(DeliveryOutcome::Asked(reply));
    }
    if gateway.closing.is_cancelled() {
        return Err(Error::Closed.into());
    }
    if let Err(wait) = hook.intake.bucket.take(Instant::now()) {
        let detail = format!("webhook {:?} takes {} deliveries a second", hook.name, hook.options.rate);
        return Err(ApiError::new(Code::RateLimited, detail).retry_after(Some(wait.max(Duration::from_secs(1)))));
    }
    check_ready(dio).map_err(|error| error.retry_after(Some(Duration::from_secs(5))))?;
    let decoded = hook.inbound.decode(&request, &dio.schema());
    let shown = hook.inbound.acknowledgement(&request);
    let (raw, delivery) = arrived(hook, uri, headers, &body);
    drop(body);
    let delivery = match decoded {
        Ok(decoded) => {
            memory.grow_for_delivery(0, decoded.changes.len())?;
            apply(hook, dio, delivery, raw, (decoded, memory)).await?
        }
        Err(error) => park(hook, dio, delivery, raw, &error).await?,
    };
    Ok(DeliveryOutcome::Delivery(delivery, shown))
}

/// Reads a delivery whose head is not refused, and checks its signature meanwhile.
async fn read<'a>(
    gateway: &GatewayState,
    hook: &'a Hook,
    dio: &Dio,
    bounds: &Bounds,
    head: &inbound::Request<'a>,
    body: Body,
) -> Result<(BodyCheck<'a>, Bytes), ApiError> {
    let mut verifier = hook.inbound.begin(head).map_err(|reason| unproven(hook, reason))?;
    let mut arriving = IncomingBody::new(dio, bounds, hook.inbound.most_bytes())?;
    let read = arriving.read(head.headers, body, &mut verifier);
    match tokio::time::timeout(gateway.limits.body_timeout, read).await {
        Ok(read) => read?,
        Err(_) => return Err(ApiError::new(Code::RequestTimeout, "the delivery did not arrive in time")),
    }
    let check = verifier.finish().map_err(|reason| unproven(hook, reason))?;
    Ok((check, arriving.into_bytes().await?))
}

/// A delivery of which nothing is known but that it is here.
fn arrived(hook: &Hook, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> (RawRequest, Delivery) {
    let raw = raw::keep(hook, uri, headers, body);
    let delivery = Delivery { size: raw.size() + OVERHEAD, ..unkept(hook) };
    (raw, delivery)
}

/// What cannot be understood is kept for a person to see, and the sender is not asked to send it again: many would give the
/// webhook up.
async fn park(
    hook: &Hook,
    dio: &Dio,
    delivery: Delivery,
    raw: RawRequest,
    error: &DecodeError,
) -> Result<Delivery, ApiError> {
    if matches!(error, DecodeError::MediaType(_) | DecodeError::Coding | DecodeError::TooLarge(_))
        || hook.options.reject_undecodable
    {
        return Err(refused(error));
    }
    let delivery = undecodable(delivery, error);
    dio.keep_delivery(StoredDelivery { delivery: delivery.clone(), raw: Some(raw) }).await?;
    Ok(delivery)
}

async fn apply(
    hook: &Arc<Hook>,
    dio: &Dio,
    delivery: Delivery,
    raw: RawRequest,
    (decoded, memory): (DecodedDelivery, Lease),
) -> Result<Delivery, ApiError> {
    let key = decoded.delivery.clone();
    let applying = match &key {
        Some(key) => Some(ApplyingGuard::begin(hook, key).ok_or_else(in_progress)?),
        None => None,
    };
    let Ok(hand) = Arc::clone(&hook.intake.hands).try_acquire_owned() else {
        let detail = format!("webhook {:?} has {} deliveries in hand", hook.name, hook.options.in_hand);
        return Err(ApiError::new(Code::QueueFull, detail).retry_after(Some(Duration::from_secs(5))));
    };
    let body = raw.body.clone();
    let parcel = parcel(hook, Delivery { key, ..delivery }, (Some(raw), &body), decoded, false);
    let received = waiting(&parcel);
    let told = Arc::new(Acknowledgement::default());
    let (hook, owner) = (Arc::clone(hook), dio.clone());
    let (patience, reject) = (hook.options.answer_within, hook.options.reject_undecodable);
    let job =
        Job { dio: owner, hook, parcel, told: Arc::clone(&told), hand: Some(hand), applying, memory: Some(memory) };
    // The Dio owns the task: it waits for it when it is closed.
    let mut task = dio.run(job.run());
    let done = match tokio::time::timeout(patience, &mut task).await {
        Ok(done) => done,
        Err(_) if dio.inbox().room && told.acknowledge() => {
            dio.keep_delivery(received.clone()).await?;
            match (&mut task).now_or_never() {
                Some(done) => done,
                None => return Ok(received.delivery),
            }
        }
        Err(_) if told.has_ended() => task.await,
        Err(_) => {
            let detail = "too many deliveries wait to be applied; this one is still being applied";
            return Err(ApiError::new(Code::InboxFull, detail));
        }
    };
    let delivery = ended(done)?;
    if delivery.state == DeliveryState::Undecodable && reject {
        let detail = delivery.detail.unwrap_or_default();
        return Err(ApiError::new(Code::UndecodableEvent, detail));
    }
    Ok(delivery)
}

/// The delivery as it is kept until it is applied.
fn waiting(parcel: &DeliveryBatch) -> StoredDelivery {
    let mut delivery = parcel.delivery.clone();
    delivery.changes.received += parcel.changes.len() as u64;
    StoredDelivery { delivery, raw: parcel.raw.clone() }
}

/// What a task said; one that was given up because the server stops said nothing.
pub(super) fn ended(done: Result<Option<DioResult<Delivery>>, tokio::task::JoinError>) -> Result<Delivery, ApiError> {
    match done {
        Ok(Some(done)) => done.map_err(failed),
        Ok(None) => Err(Error::Closed.into()),
        Err(error) => Err(ApiError::new(Code::Internal, "something is wrong inside").cause(error.to_string())),
    }
}

/// What went wrong is never the sender's fault: the delivery was understood.
fn failed(error: Error) -> ApiError {
    let answer = ApiError::from(error);
    if !answer.code().status().is_client_error() {
        return answer;
    }
    let cause = answer.detail().to_string();
    ApiError::new(Code::DeliveryFailed, "the delivery was understood and could not be applied").cause(cause)
}

/// Says that a delivery with the same id is being applied.
pub(super) fn in_progress() -> ApiError {
    ApiError::new(Code::InProgress, "the same delivery is being applied").retry_after(Some(AGAIN))
}

/// A delivery that is not understood, where it is not kept.
pub(super) fn refused(error: &DecodeError) -> ApiError {
    match error {
        DecodeError::MediaType(_) => ApiError::new(Code::UnsupportedMediaType, error.to_string())
            .hint("send application/json or application/x-ndjson"),
        DecodeError::Coding => ApiError::new(Code::UnsupportedMediaType, error.to_string())
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, identity")),
        DecodeError::TooMany | DecodeError::TooLarge(_) => ApiError::new(Code::PayloadTooLarge, error.to_string()),
        _ => ApiError::new(Code::UndecodableEvent, error.to_string()),
    }
}
