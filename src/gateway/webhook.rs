//! `POST /webhooks/{hook}`: what an upstream system says has changed.
//!
//! In this order: size, signature over the raw bytes, meaning, then one change after the other through `handle_event`. The
//! answer comes after that, so a 2xx means applied (or known already) and durable.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{OriginalUri, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde::Serialize;

use super::extract::Segment;
use super::limits::Limits;
use super::pipeline::request_id;
use super::problem::{ApiError, Code};
use super::state::Shared;
use crate::dio::{Dio, Inbound, Reconciled};
use crate::hot::Origin;
use crate::inbound::{self, Change, DecodeError, Proof};

/// Bytes of one delivery, at most.
const MOST_BYTES: usize = 8 << 20;

/// A webhook.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Its name, as in `/webhooks/{name}`.
    pub name: String,
    /// The Dio it feeds.
    pub dio: String,
    /// How its deliveries are verified and what they mean.
    pub inbound: inbound::Hook,
}

/// What became of the changes of one delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Received {
    /// They changed something.
    pub applied: u64,
    /// Everything was so already.
    pub unchanged: u64,
    /// They will be applied once the rows were read from the source.
    pub deferred: u64,
    /// They were older than what is known.
    pub stale: u64,
    /// They had been applied before.
    pub duplicate: u64,
}

/// Takes a delivery.
pub(super) async fn receive(
    State(shared): State<Arc<Shared>>,
    Segment(name): Segment<1>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Received>, ApiError> {
    let (at, hook) = find(&shared, &name)?;
    let mut received = Received::default();
    let taken = take(&shared, hook, (&method, &uri, &headers), body, &mut received).await;
    if let Some(counts) = shared.metrics.hooks.get(at) {
        counts.count(&received, taken.as_ref().err());
        // Our own fault is in the log with the request.
        if let Some(error) = taken.as_ref().err().filter(|error| error.code().status().is_client_error())
            && let Some(refused) = counts.worth_a_line()
        {
            let (code, detail, cause) = (error.code().as_str(), error.detail(), error.because());
            tracing::warn!(
                webhook = hook.name,
                dio = hook.dio,
                request.id = request_id(&headers),
                code,
                detail,
                cause,
                refused,
                "a delivery was refused"
            );
        }
    }
    taken.map(|()| Json(received))
}

async fn take(
    shared: &Shared,
    hook: &Hook,
    (method, uri, headers): (&Method, &Uri, &HeaderMap),
    body: Body,
    received: &mut Received,
) -> Result<(), ApiError> {
    let dio = &shared.dio(&hook.dio)?.dio;
    let limits = Limits { body: MOST_BYTES, ..shared.limits };
    let body = limits.read(headers, body).await?;
    let now = Timestamp::now();
    let request = inbound::Request { method, path: uri.path(), query: uri.query(), headers, body: &body, now };
    hook.verify(&request)?;
    if !dio.is_ready() {
        return Err(ApiError::new(Code::NotReady, format!("the first copy of {} is still being read", hook.dio)));
    }
    let decoded = hook.inbound.decode(&request, &dio.schema()).map_err(|error| undecodable(&error))?;
    let changes: Result<Vec<Change>, _> = decoded.changes.into_iter().collect();
    let changes = changes.map_err(|error| undecodable(&DecodeError::Item(error)))?;
    apply(dio, hook, decoded.delivery.as_deref(), changes, received).await
}

/// Says how deliveries are made.
pub(super) async fn options(
    State(shared): State<Arc<Shared>>,
    Segment(name): Segment<1>,
) -> Result<impl IntoResponse, ApiError> {
    find(&shared, &name)?;
    let accept = (HeaderName::from_static("accept-post"), "application/json, application/x-ndjson");
    Ok((StatusCode::NO_CONTENT, [(header::ALLOW, "POST, OPTIONS"), accept]))
}

/// The hook `name` and its number.
fn find<'a>(shared: &'a Shared, name: &str) -> Result<(usize, &'a Arc<Hook>), ApiError> {
    let unknown = || ApiError::new(Code::NotFound, format!("there is no webhook {name:?}"));
    shared.hooks.get_full(name).map(|(at, _, hook)| (at, hook)).ok_or_else(unknown)
}

async fn apply(
    dio: &Dio,
    hook: &Hook,
    delivery: Option<&str>,
    changes: Vec<Change>,
    received: &mut Received,
) -> Result<(), ApiError> {
    let several = changes.len() > 1;
    for (at, change) in changes.into_iter().enumerate() {
        let delivery = match (&change.delivery, delivery) {
            (Some(own), _) => Some(format!("{}:{own}", hook.name)),
            (None, Some(all)) if several => Some(format!("{}:{all}#{at}", hook.name)),
            (None, Some(all)) => Some(format!("{}:{all}", hook.name)),
            (None, None) => None,
        };
        let Change { event, version, partial, .. } = change;
        let inbound = Inbound { event, version, partial, delivery, origin: Origin::Webhook };
        // One that fails stops the rest: the sender comes again, and those before it are known then.
        received.count(dio.handle_event(inbound).await?);
    }
    Ok(())
}

impl Received {
    /// How many had each result.
    pub(super) fn results(&self) -> [(&'static str, u64); 5] {
        [
            ("applied", self.applied),
            ("unchanged", self.unchanged),
            ("deferred", self.deferred),
            ("stale", self.stale),
            ("duplicate", self.duplicate),
        ]
    }

    fn count(&mut self, outcome: Reconciled) {
        *match outcome {
            Reconciled::Applied => &mut self.applied,
            Reconciled::Unchanged => &mut self.unchanged,
            Reconciled::Deferred => &mut self.deferred,
            Reconciled::Stale => &mut self.stale,
            Reconciled::Duplicate => &mut self.duplicate,
        } += 1;
    }
}

impl Hook {
    /// Every refusal looks the same from outside; the log knows the reason.
    fn verify(&self, request: &inbound::Request<'_>) -> Result<(), ApiError> {
        self.inbound.verify(request).map_err(|reason| {
            let error = ApiError::new(Code::SignatureInvalid, "the delivery is not signed as this webhook needs it")
                .cause(reason.to_string());
            match self.inbound.scheme().proof() {
                Proof::Bearer => error.header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
                Proof::Basic => error.header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic")),
                Proof::Headers(_) | Proof::Nothing => error,
            }
        })
    }
}

fn undecodable(error: &DecodeError) -> ApiError {
    match error {
        DecodeError::MediaType(_) => ApiError::new(Code::UnsupportedMediaType, error.to_string())
            .hint("send application/json or application/x-ndjson"),
        DecodeError::Syntax(_) => ApiError::new(Code::MalformedBody, error.to_string()),
        DecodeError::TooMany => ApiError::new(Code::PayloadTooLarge, error.to_string()),
        DecodeError::Item(_) => ApiError::new(Code::UndecodableEvent, error.to_string())
            .hint(r#"a change looks like {"op":"update","id":"7","new":{..}}"#),
    }
}
