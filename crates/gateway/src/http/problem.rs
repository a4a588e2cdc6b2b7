//! Refusals in the format of RFC 9457, `application/problem+json`. `http/refusals.rs` converts errors to refusals.
//!
//! A handler returns an [`ApiError`]. The pipeline takes it from the response's extensions and writes the body with the request's id,
//! so that all refusals have the same format.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, SchemaFormat};

use crate::http::response::document;
use crate::http::schemas::{text, words};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $status:ident, $title:literal;)*) => {
        /// Kind of a refusal. Its code is part of the HTTP contract and never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// Returns the code as it is sent, such as `not-found`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $slug,)* }
            }

            /// Returns the HTTP status.
            pub fn status(self) -> StatusCode {
                match self { $(Code::$name => StatusCode::$status,)* }
            }

            /// Returns a short description for people, the `title` of the problem.
            pub fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }
        }
    };
}

codes! {
    MalformedRequest = "malformed-request", BAD_REQUEST, "The request is not HTTP/1.1";
    HeadersTooLarge = "headers-too-large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too large";
    MalformedBody = "malformed-body", BAD_REQUEST, "The body cannot be read";
    InvalidParameter = "invalid-parameter", BAD_REQUEST, "A parameter is not valid";
    UnknownParameter = "unknown-parameter", BAD_REQUEST, "Unknown parameter";
    UnknownColumn = "unknown-column", BAD_REQUEST, "Unknown column";
    LimitTooLarge = "limit-too-large", BAD_REQUEST, "The request exceeds a limit";
    MaxAffected = "max-affected", BAD_REQUEST, "The write would change too many rows";
    InvalidHeader = "invalid-header", BAD_REQUEST, "A header is not valid";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Authentication required";
    SignatureInvalid = "signature-invalid", UNAUTHORIZED, "The signature is not valid";
    Forbidden = "forbidden", FORBIDDEN, "Not allowed";
    OriginNotAllowed = "origin-not-allowed", FORBIDDEN, "Pages of this origin are not allowed";
    NotFound = "not-found", NOT_FOUND, "Not found";
    DioNotFound = "dio-not-found", NOT_FOUND, "Resource not found";
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    Unsupported = "unsupported", METHOD_NOT_ALLOWED, "Not supported by the resource";
    NotAcceptable = "not-acceptable", NOT_ACCEPTABLE, "No accepted format is supported";
    RequestTimeout = "request-timeout", REQUEST_TIMEOUT, "The request did not arrive in time";
    AlreadyExists = "already-exists", CONFLICT, "The row already exists";
    IdMismatch = "id-mismatch", CONFLICT, "The ids in the body and in the path differ";
    ReservedId = "reserved-id", CONFLICT, "The id is reserved";
    Conflict = "conflict", CONFLICT, "Conflicts with the current state";
    InProgress = "in-progress", CONFLICT, "The same delivery is being applied";
    RefreshSuspicious = "refresh-suspicious", CONFLICT, "The source lists suspiciously few rows";
    HookRetired = "hook-retired", GONE, "The webhook is retired";
    PreconditionFailed = "precondition-failed", PRECONDITION_FAILED, "The row has another version";
    PayloadTooLarge = "payload-too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    UriTooLong = "uri-too-long", URI_TOO_LONG, "The URL is too long";
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The type of the body is not supported";
    MisdirectedHost = "misdirected-host", MISDIRECTED_REQUEST, "The host is not a name of this server";
    ValidationFailed = "validation-failed", UNPROCESSABLE_ENTITY, "The body is not valid for the resource";
    UndecodableEvent = "undecodable-event", UNPROCESSABLE_ENTITY, "The delivery cannot be decoded";
    IdempotencyKeyReused = "idempotency-key-reused", UNPROCESSABLE_ENTITY, "The idempotency key was used for another request";
    DuplicateKey = "duplicate-key", UNPROCESSABLE_ENTITY, "Duplicate id";
    UpgradeRequired = "upgrade-required", UPGRADE_REQUIRED, "A valid WebSocket handshake is required";
    PreconditionRequired = "precondition-required", PRECONDITION_REQUIRED, "The version of the row is required";
    RateLimited = "rate-limited", TOO_MANY_REQUESTS, "Too many requests";
    DeliveryFailed = "delivery-failed", INTERNAL_SERVER_ERROR, "The delivery could not be applied";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal server error";
    UpstreamError = "upstream-error", BAD_GATEWAY, "The source failed";
    WriteFailed = "write-failed", BAD_GATEWAY, "The source refused the write";
    RefreshFailed = "refresh-failed", BAD_GATEWAY, "The source could not be read";
    KeysUnavailable = "keys-unavailable", SERVICE_UNAVAILABLE, "The keys of the token's issuer are not available";
    Busy = "busy", SERVICE_UNAVAILABLE, "The server is busy";
    QueryTimeout = "query-timeout", SERVICE_UNAVAILABLE, "The query takes too long";
    NotReady = "not-ready", SERVICE_UNAVAILABLE, "The first copy is still being read";
    QueueFull = "queue-full", SERVICE_UNAVAILABLE, "The write queue is full";
    InboxFull = "inbox-full", SERVICE_UNAVAILABLE, "The inbox of deliveries is full";
    TooManyViews = "too-many-views", SERVICE_UNAVAILABLE, "Subscribers have too many different filters";
    ShuttingDown = "shutting-down", SERVICE_UNAVAILABLE, "The server is stopping";
    StoreUnavailable = "store-unavailable", SERVICE_UNAVAILABLE, "The journal cannot be written";
    UpstreamTimeout = "upstream-timeout", GATEWAY_TIMEOUT, "The source did not answer in time";
    InsufficientStorage = "insufficient-storage", INSUFFICIENT_STORAGE, "The disk is full";
}

/// Description of an error (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    #[schema(schema_with = Problem::reference)]
    kind: String,
    /// Short description of the code, for people. It may change.
    title: &'static str,
    /// HTTP status of the response.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// Description of this error, for people. It may change.
    detail: Cow<'static, str>,
    #[schema(schema_with = Problem::code)]
    code: &'static str,
    /// Same text as `detail`.
    message: Cow<'static, str>,
    /// Advice on how to avoid the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hint: Option<String>,
    /// Id of the request, which the server's log has too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<String>,
    /// Error of each column or parameter, by its name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<String, String>,
}

impl Problem {
    fn reference() -> ObjectBuilder {
        let about = "URL of the description of the code, relative to the server.";
        text().format(Some(SchemaFormat::Custom("uri-reference".into()))).description(Some(about))
    }

    fn code() -> ObjectBuilder {
        let codes = Code::ALL.iter().map(|code| code.as_str());
        words(codes).description(Some("Kind of the error, for programs. Codes never change."))
    }
}

/// Refusal of a request, which the pipeline sends as `application/problem+json`.
#[derive(Clone, Debug)]
pub struct ApiError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: Code,
    detail: Cow<'static, str>,
    hint: Option<String>,
    errors: BTreeMap<String, String>,
    retry_after: Option<Duration>,
    headers: HeaderMap,
    /// Cause of the error, which is logged and never sent.
    cause: Option<String>,
}

impl ApiError {
    /// Creates a refusal. `detail` describes the error to the caller.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> ApiError {
        let retry_after = match code {
            Code::NotReady | Code::QueueFull | Code::StoreUnavailable | Code::Busy => Some(Duration::from_secs(1)),
            Code::ShuttingDown
            | Code::RateLimited
            | Code::InboxFull
            | Code::KeysUnavailable
            | Code::TooManyViews
            | Code::QueryTimeout
            | Code::InsufficientStorage => Some(Duration::from_secs(5)),
            _ => None,
        };
        ApiError(Box::new(Inner {
            code,
            detail: detail.into(),
            hint: None,
            errors: BTreeMap::new(),
            retry_after,
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    /// Sets the advice to the caller.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> ApiError {
        self.0.hint = Some(hint.into());
        self
    }

    /// Sets the error of each column or parameter.
    #[must_use]
    pub fn errors(mut self, errors: BTreeMap<String, String>) -> ApiError {
        self.0.errors = errors;
        self
    }

    /// Sets the time for `Retry-After`. `None` keeps the time so far.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> ApiError {
        self.0.retry_after = wait.or(self.0.retry_after);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> ApiError {
        self.0.headers.insert(name, value);
        self
    }

    /// Sets the cause, which is logged and never sent.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> ApiError {
        self.0.cause = Some(cause.into());
        self
    }

    /// Returns the code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Returns a header that was added to the refusal.
    pub(crate) fn own_header(&self, name: &header::HeaderName) -> Option<&HeaderValue> {
        self.0.headers.get(name)
    }

    /// Returns the description for the caller.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Returns the advice to the caller.
    pub(crate) fn tip(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the body of the answer to the request with this id.
    pub(crate) fn problem(&self, request_id: Option<&str>) -> Problem {
        let Inner { code, detail, hint, errors, .. } = &*self.0;
        Problem {
            kind: format!("/problems/{}", code.as_str()),
            title: code.title(),
            status: code.status().as_u16(),
            detail: detail.clone(),
            code: code.as_str(),
            message: detail.clone(),
            hint: hint.clone(),
            request_id: request_id.map(str::to_string),
            errors: errors.clone(),
        }
    }

    /// Returns the cause, for the log.
    pub(crate) fn because(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// Returns the answer to the request with this id.
    pub(crate) fn render(&self, request_id: &str) -> Response {
        let inner = &*self.0;
        let mut response = (inner.code.status(), document(&self.problem(Some(request_id))).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = inner.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        if inner.code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        headers.extend(inner.headers.clone());
        response
    }
}

/// Returns the whole answer, head and body, to a request that the HTTP parser refused with `status`. It replaces the parser's own answer,
/// which has no body. `None` for statuses that the parser does not use.
pub fn unreadable(status: u16) -> Option<Vec<u8>> {
    let error = match status {
        400 => ApiError::new(
            Code::MalformedRequest,
            "the request is not valid HTTP/1.1: its first line or a header is malformed",
        )
        .hint("percent-encode URLs: \" as %22, < as %3C, > as %3E and a space as %20"),
        414 => ApiError::new(Code::UriTooLong, "the URL is too long"),
        431 => ApiError::new(Code::HeadersTooLarge, "the headers are too many or too large"),
        _ => return None,
    };
    let (body, status) = (document(&error.problem(None)).to_string(), error.code().status());
    let reason = status.canonical_reason().unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        status.as_u16(),
        body.len()
    );
    Some((head + &body).into_bytes())
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.0.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diorama_core::vista::Error;

    #[test]
    fn codes_are_unique() {
        let words: std::collections::HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
    }

    #[test]
    fn temporary_refusals_have_retry_after() {
        for code in Code::ALL.iter().filter(|code| matches!(code.status().as_u16(), 429 | 503 | 507)) {
            let answer = ApiError::new(*code, "").render("");
            assert!(answer.headers().contains_key(header::RETRY_AFTER), "{code:?}");
        }
    }

    #[test]
    fn internal_errors_are_not_sent_to_callers() {
        let error = ApiError::from(Error::permanent("password=hunter2 at /srv/db"));
        assert!(!document(&error.problem(None)).to_string().contains("hunter2"));
        assert_eq!(error.code(), Code::UpstreamError);
    }
}
