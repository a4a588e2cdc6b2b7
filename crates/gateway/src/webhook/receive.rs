//! `POST /webhooks/{hook}`. A delivery is checked in this order: credentials in the head, size, signature over the raw bytes,
//! rate limit, decoding. Then its changes are applied.

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
use super::work::{Acknowledgement, ApplyingGuard, Job, delivery_batch, new_delivery, undecodable};
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

/// Approximate size of a stored delivery without its request, in bytes.
const OVERHEAD: u64 = 512;
/// `Retry-After` for a sender whose earlier attempt is still being applied.
const AGAIN: Duration = Duration::from_secs(2);

/// Receives a delivery.
pub(crate) async fn receive(
    State(gateway): State<Arc<GatewayState>>,
    Segment(name): Segment<1>,
    OriginalUri(uri): OriginalUri,
    request: Request,
) -> Result<Response, ApiError> {
    let (at, hook) = find(&gateway, &name)?;
    let (Parts { method, headers, extensions, .. }, body) = request.into_parts();
    let bounds = gateway.bounds(&extensions);
    let outcome = take(&gateway, hook, (&method, &uri, &headers), &bounds, body).await;
    // Medium on which an accepted delivery is durable; a volatile journal is lost on exit.
    let durable = gateway.resource_of(hook).is_ok_and(|resource| resource.dio.is_durable());
    let reporter = Reporter { gateway: &gateway, at, hook, headers: &headers };
    match &outcome {
        Ok(DeliveryOutcome::Reply(reply)) => reporter.record_reply(reply),
        Ok(DeliveryOutcome::Delivery(delivery, _)) => reporter.record_delivery(delivery),
        Err(error) => reporter.record_refusal(error),
    }
    outcome.map(|outcome| outcome.answer(durable))
}

/// Result of a request by a verified sender.
enum DeliveryOutcome {
    /// Reply to a handshake, which has no changes.
    Reply(Reply),
    /// Result of the delivery so far, and the reply that its sender requires instead of the result.
    Delivery(Box<Delivery>, Option<Reply>),
}

impl DeliveryOutcome {
    fn answer(self, durable: bool) -> Response {
        match self {
            DeliveryOutcome::Reply(reply) => plain(reply),
            DeliveryOutcome::Delivery(delivery, shown) => {
                let mut response = match shown {
                    Some(reply) => plain(reply),
                    None => respond(&delivery),
                };
                let durable = HeaderValue::from_static(if durable { "disk" } else { "memory" });
                response.headers_mut().insert(DURABLE, durable);
                response
            }
        }
    }
}

fn respond(delivery: &Delivery) -> Response {
    let mut response = response::json(&Received::of(delivery));
    if matches!(delivery.state, DeliveryState::Received | DeliveryState::Undecodable) {
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    response
}

/// Result of a delivery, in the response to its sender.
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
    let dio = &gateway.resource_of(hook)?.dio;
    let head =
        inbound::Request { method, path: uri.path(), query: uri.query(), headers, body: &[], now: Timestamp::now() };
    if let Some(reply) = hook.inbound.answer_before_verifying(&head) {
        return Ok(DeliveryOutcome::Reply(reply));
    }
    let (check, body) = read(gateway, hook, dio, bounds, &head, body).await?;
    // A proof in the body requires parsing it before it is verified, so memory is leased first.
    let mut memory = bounds.lease_delivery(body.len())?;
    check.check(&body).map_err(|reason| unproven(hook, reason))?;
    let request = inbound::Request { body: &body, ..head };
    // A body that cannot be decompressed fails at decoding below.
    if let Ok(length) = hook.inbound.length(&request) {
        memory.grow_for_delivery(length, 0)?;
    }
    if let Some(reply) = hook.inbound.answer_before_decoding(&request) {
        return Ok(DeliveryOutcome::Reply(reply));
    }
    if gateway.closing.is_cancelled() {
        return Err(Error::Closed.into());
    }
    if let Err(wait) = hook.intake.bucket.take(Instant::now()) {
        let detail = format!("webhook {:?} accepts at most {} deliveries a second", hook.name, hook.options.rate);
        return Err(ApiError::new(Code::RateLimited, detail).retry_after(Some(wait.max(Duration::from_secs(1)))));
    }
    check_ready(dio).map_err(|error| error.retry_after(Some(Duration::from_secs(5))))?;
    let decoded = hook.inbound.decode(&request, &dio.schema());
    let shown = hook.inbound.acknowledgement(&request);
    let (raw, delivery) = received_delivery(hook, uri, headers, &body);
    drop(body);
    let delivery = match decoded {
        Ok(decoded) => {
            memory.grow_for_delivery(0, decoded.changes.len())?;
            apply(hook, dio, delivery, raw, (decoded, memory)).await?
        }
        Err(error) => park(hook, dio, delivery, raw, &error).await?,
    };
    Ok(DeliveryOutcome::Delivery(Box::new(delivery), shown))
}

/// Reads the body of a delivery after checking its head, and verifies the signature meanwhile.
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

/// Creates the record of a delivery that is not decoded yet, and its stored request.
fn received_delivery(hook: &Hook, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> (RawRequest, Delivery) {
    let raw = raw::keep(hook, uri, headers, body);
    let delivery = Delivery { size: raw.size() + OVERHEAD, ..new_delivery(hook) };
    (raw, delivery)
}

/// Stores a delivery that cannot be decoded, for inspection. The sender gets no error, because many senders disable a webhook
/// after errors.
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
        return Err(decode_error(error));
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
    let Ok(permit) = Arc::clone(&hook.intake.permits).try_acquire_owned() else {
        let detail = format!("webhook {:?} is already applying {} deliveries", hook.name, hook.options.in_hand);
        return Err(ApiError::new(Code::QueueFull, detail).retry_after(Some(Duration::from_secs(5))));
    };
    let body = raw.body.clone();
    let batch = delivery_batch(hook, Delivery { key, ..delivery }, (Some(raw), &body), decoded, false);
    let received = queued_delivery(&batch);
    let acknowledgement = Arc::new(Acknowledgement::default());
    let (hook, owner) = (Arc::clone(hook), dio.clone());
    let (patience, reject) = (hook.options.answer_within, hook.options.reject_undecodable);
    let job = Job {
        dio: owner,
        hook,
        batch,
        acknowledgement: Arc::clone(&acknowledgement),
        permit: Some(permit),
        applying,
        memory: Some(memory),
    };
    // The Dio owns the task and waits for it when it closes.
    let mut task = dio.run(job.run());
    let done = match tokio::time::timeout(patience, &mut task).await {
        Ok(done) => done,
        Err(_) if dio.inbox().room && acknowledgement.acknowledge() => {
            dio.keep_delivery(received.clone()).await?;
            match (&mut task).now_or_never() {
                Some(done) => done,
                None => return Ok(received.delivery),
            }
        }
        Err(_) if acknowledgement.has_ended() => task.await,
        Err(_) => {
            let detail = "too many deliveries wait to be applied; this one is still being applied";
            return Err(ApiError::new(Code::InboxFull, detail));
        }
    };
    let delivery = task_result(done)?;
    if delivery.state == DeliveryState::Undecodable && reject {
        let detail = delivery.detail.unwrap_or_default();
        return Err(ApiError::new(Code::UndecodableEvent, detail));
    }
    Ok(delivery)
}

/// Returns the delivery in the form in which it is stored until it is applied.
fn queued_delivery(batch: &DeliveryBatch) -> StoredDelivery {
    let mut delivery = batch.delivery.clone();
    delivery.changes.received += batch.changes.len() as u64;
    StoredDelivery { delivery, raw: batch.raw.clone() }
}

/// Converts the result of a task. A task that was aborted because the server stops is reported as closed.
pub(super) fn task_result(
    done: Result<Option<DioResult<Delivery>>, tokio::task::JoinError>,
) -> Result<Delivery, ApiError> {
    match done {
        Ok(Some(done)) => done.map_err(delivery_error),
        Ok(None) => Err(Error::Closed.into()),
        Err(error) => Err(ApiError::new(Code::Internal, "internal error").cause(error.to_string())),
    }
}

/// Converts an error of applying a delivery. It is never a client error, because the delivery itself is valid.
fn delivery_error(error: Error) -> ApiError {
    let answer = ApiError::from(error);
    if !answer.code().status().is_client_error() {
        return answer;
    }
    let cause = answer.detail().to_string();
    ApiError::new(Code::DeliveryFailed, "the delivery was understood and could not be applied").cause(cause)
}

/// Error for a delivery whose id is in progress.
pub(super) fn in_progress() -> ApiError {
    ApiError::new(Code::InProgress, "the same delivery is being applied").retry_after(Some(AGAIN))
}

/// Error for a delivery that cannot be decoded and is not stored.
pub(super) fn decode_error(error: &DecodeError) -> ApiError {
    match error {
        DecodeError::MediaType(_) => ApiError::new(Code::UnsupportedMediaType, error.to_string())
            .hint("send application/json or application/x-ndjson"),
        DecodeError::Coding => ApiError::new(Code::UnsupportedMediaType, error.to_string())
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, identity")),
        DecodeError::TooMany | DecodeError::TooLarge(_) => ApiError::new(Code::PayloadTooLarge, error.to_string()),
        _ => ApiError::new(Code::UndecodableEvent, error.to_string()),
    }
}
