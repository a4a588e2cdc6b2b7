//! `POST /webhooks/{hook}`: what an upstream system says has changed.
//!
//! In this order: size, signature over the raw bytes, meaning, then one change after the other through `handle_event`. The
//! answer comes after that, so a 2xx means applied (or known already) and durable.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;

use super::extract::Segment;
use super::limits::Limits;
use super::pipeline::request_id;
use super::problem::{ApiError, Code};
use super::state::Shared;
use crate::dio::{Dio, Inbound, Reconciled};
use crate::hot::Origin;
use crate::inbound::{Change, DecodeError, Format, Scheme, decode};

/// Bytes of one delivery, at most.
const MOST_BYTES: usize = 8 << 20;

/// A webhook.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Its name, as in `/webhooks/{name}`.
    pub name: String,
    /// The Dio it feeds.
    pub dio: String,
    /// How senders prove who they are.
    pub scheme: Scheme,
    /// The header with the delivery's id, where the scheme does not name it.
    pub delivery: Option<HeaderName>,
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
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Received>, ApiError> {
    let (at, hook) = find(&shared, &name)?;
    let mut received = Received::default();
    let taken = take(&shared, hook, &headers, body, &mut received).await;
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
    headers: &HeaderMap,
    body: Body,
    received: &mut Received,
) -> Result<(), ApiError> {
    let dio = &shared.dio(&hook.dio)?.dio;
    let format = format_of(headers)?;
    let limits = Limits { body: MOST_BYTES, ..shared.limits };
    let body = limits.read(headers, body).await?;
    hook.verify(headers, &body)?;
    if !dio.is_ready() {
        return Err(ApiError::new(Code::NotReady, format!("the first copy of {} is still being read", hook.dio)));
    }
    let changes = decode(&body, format).map_err(|error| undecodable(&error))?;
    apply(dio, hook, hook.delivery_id(headers), changes, received).await
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
    fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), ApiError> {
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        self.scheme.verify(headers, body, now).map_err(|reason| {
            let error = ApiError::new(Code::SignatureInvalid, "the delivery is not signed as this webhook needs it")
                .cause(reason.to_string());
            match self.scheme {
                Scheme::Bearer(_) => error.header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
                Scheme::Standard(_) | Scheme::Hmac(_) | Scheme::None => error,
            }
        })
    }

    fn delivery_id<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let configured = || headers.get(self.delivery.as_ref()?)?.to_str().ok();
        self.scheme.delivery(headers).or_else(configured).filter(|id| !id.is_empty() && id.len() <= 256)
    }
}

fn format_of(headers: &HeaderMap) -> Result<Format, ApiError> {
    let refuse = |what: &'static str| {
        Err(ApiError::new(Code::UnsupportedMediaType, what).hint("send application/json or application/x-ndjson"))
    };
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return refuse("deliveries are signed as they are: they must not be compressed");
    }
    let given = headers.get(header::CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(Format::Json),
        essence if essence.ends_with("+json") => Ok(Format::Json),
        "application/x-ndjson" | "application/ndjson" => Ok(Format::Ndjson),
        _ => refuse("the body's type is not understood"),
    }
}

fn undecodable(error: &DecodeError) -> ApiError {
    match error {
        DecodeError::Syntax(_) => ApiError::new(Code::MalformedBody, error.to_string()),
        DecodeError::TooMany => ApiError::new(Code::PayloadTooLarge, error.to_string()),
        DecodeError::Shape { .. } => ApiError::new(Code::UndecodableEvent, error.to_string())
            .hint(r#"a change looks like {"op":"update","id":"7","new":{..}}"#),
    }
}
