//! Refusals and their form, RFC 9457's problem+json. `http/refusals.rs` makes them of errors.
//!
//! A handler returns an [`ApiError`]; it travels in the response's extensions to the pipeline, which knows the request's id and
//! writes the body. So every refusal has the same form, whoever made it.

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
        /// What kind of refusal it is: a word that is part of the HTTP contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// Its word.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $slug,)* }
            }

            /// Its status.
            pub fn status(self) -> StatusCode {
                match self { $(Code::$name => StatusCode::$status,)* }
            }

            /// Its meaning in a few words.
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
    InvalidParameter = "invalid-parameter", BAD_REQUEST, "A parameter cannot be read";
    UnknownParameter = "unknown-parameter", BAD_REQUEST, "There is no such parameter";
    UnknownColumn = "unknown-column", BAD_REQUEST, "There is no such column";
    LimitTooLarge = "limit-too-large", BAD_REQUEST, "More is asked for than is allowed";
    MaxAffected = "max-affected", BAD_REQUEST, "The write touches too many rows";
    InvalidHeader = "invalid-header", BAD_REQUEST, "A header cannot be read";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Say who you are";
    SignatureInvalid = "signature-invalid", UNAUTHORIZED, "The signature does not fit";
    Forbidden = "forbidden", FORBIDDEN, "Not allowed";
    OriginNotAllowed = "origin-not-allowed", FORBIDDEN, "Pages of this origin are not allowed";
    NotFound = "not-found", NOT_FOUND, "There is no such thing";
    DioNotFound = "dio-not-found", NOT_FOUND, "There is no such resource";
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "The method does not fit the path";
    Unsupported = "unsupported", METHOD_NOT_ALLOWED, "The source cannot do that";
    NotAcceptable = "not-acceptable", NOT_ACCEPTABLE, "No format that is accepted can be sent";
    RequestTimeout = "request-timeout", REQUEST_TIMEOUT, "The request did not arrive in time";
    AlreadyExists = "already-exists", CONFLICT, "There is such a row already";
    IdMismatch = "id-mismatch", CONFLICT, "The body has another id than the path";
    ReservedId = "reserved-id", CONFLICT, "The id is a word of the URL";
    Conflict = "conflict", CONFLICT, "It contradicts what is there";
    InProgress = "in-progress", CONFLICT, "The same delivery is being applied";
    RefreshSuspicious = "refresh-suspicious", CONFLICT, "The source lists suspiciously few rows";
    HookRetired = "hook-retired", GONE, "The webhook is retired";
    PreconditionFailed = "precondition-failed", PRECONDITION_FAILED, "The row is another version";
    PayloadTooLarge = "payload-too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    UriTooLong = "uri-too-long", URI_TOO_LONG, "The URL is too long";
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The body's type is not understood";
    MisdirectedHost = "misdirected-host", MISDIRECTED_REQUEST, "Another host was meant";
    ValidationFailed = "validation-failed", UNPROCESSABLE_ENTITY, "The body has the wrong shape";
    UndecodableEvent = "undecodable-event", UNPROCESSABLE_ENTITY, "The event cannot be understood";
    IdempotencyKeyReused = "idempotency-key-reused", UNPROCESSABLE_ENTITY, "The key was used for another request";
    DuplicateKey = "duplicate-key", UNPROCESSABLE_ENTITY, "An id stands twice";
    UpgradeRequired = "upgrade-required", UPGRADE_REQUIRED, "This needs a WebSocket";
    PreconditionRequired = "precondition-required", PRECONDITION_REQUIRED, "Say which version is meant";
    RateLimited = "rate-limited", TOO_MANY_REQUESTS, "Too many requests";
    DeliveryFailed = "delivery-failed", INTERNAL_SERVER_ERROR, "The delivery could not be applied";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something is wrong inside";
    UpstreamError = "upstream-error", BAD_GATEWAY, "The source failed";
    WriteFailed = "write-failed", BAD_GATEWAY, "The source did not take the write";
    RefreshFailed = "refresh-failed", BAD_GATEWAY, "The source could not be read";
    Busy = "busy", SERVICE_UNAVAILABLE, "Too much is under way";
    QueryTimeout = "query-timeout", SERVICE_UNAVAILABLE, "The query takes too long";
    NotReady = "not-ready", SERVICE_UNAVAILABLE, "The first copy is still being read";
    QueueFull = "queue-full", SERVICE_UNAVAILABLE, "Too many writes wait";
    InboxFull = "inbox-full", SERVICE_UNAVAILABLE, "Too many deliveries wait";
    TooManyViews = "too-many-views", SERVICE_UNAVAILABLE, "Subscribers have too many different filters";
    ShuttingDown = "shutting-down", SERVICE_UNAVAILABLE, "The server is stopping";
    StoreUnavailable = "store-unavailable", SERVICE_UNAVAILABLE, "The journal cannot be written";
    UpstreamTimeout = "upstream-timeout", GATEWAY_TIMEOUT, "The source did not answer in time";
    InsufficientStorage = "insufficient-storage", INSUFFICIENT_STORAGE, "The disk is full";
}

/// A refusal (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    #[schema(schema_with = Problem::reference)]
    kind: String,
    title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    detail: Cow<'static, str>,
    #[schema(schema_with = Problem::code)]
    code: &'static str,
    /// The same as `detail`.
    message: Cow<'static, str>,
    /// Advice to the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<String>,
    /// Mistakes per column or parameter.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: BTreeMap<String, String>,
}

impl Problem {
    fn reference() -> ObjectBuilder {
        text().format(Some(SchemaFormat::Custom("uri-reference".into())))
    }

    fn code() -> ObjectBuilder {
        let codes = Code::ALL.iter().map(|code| code.as_str());
        words(codes).description(Some("Kind of the refusal; stable."))
    }
}

/// A refusal, on its way to be a problem+json.
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
    /// For the log only.
    cause: Option<String>,
}

impl ApiError {
    /// A refusal with what is wrong, in words for the caller.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> ApiError {
        let retry_after = match code {
            Code::NotReady | Code::QueueFull | Code::StoreUnavailable | Code::Busy => Some(Duration::from_secs(1)),
            Code::ShuttingDown
            | Code::RateLimited
            | Code::InboxFull
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

    /// What the caller can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> ApiError {
        self.0.hint = Some(hint.into());
        self
    }

    /// What is wrong per field.
    #[must_use]
    pub fn errors(mut self, errors: BTreeMap<String, String>) -> ApiError {
        self.0.errors = errors;
        self
    }

    /// When to come again.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> ApiError {
        self.0.retry_after = wait.or(self.0.retry_after);
        self
    }

    /// A header of the answer.
    #[must_use]
    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> ApiError {
        self.0.headers.insert(name, value);
        self
    }

    /// What is wrong in words for the log only.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> ApiError {
        self.0.cause = Some(cause.into());
        self
    }

    /// What kind it is.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// A header that the refusal brings.
    pub(crate) fn own_header(&self, name: &header::HeaderName) -> Option<&HeaderValue> {
        self.0.headers.get(name)
    }

    /// What is wrong.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What the caller can do.
    pub(crate) fn tip(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The problem, for the request of this id.
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

    /// What the log is to know beside the detail.
    pub(crate) fn because(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The answer, now that the request's id is known.
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

/// The whole answer, head and body, to a request that could not be read, in place of the bare one with `status` that the HTTP
/// library has for it. `None` for any other status.
pub fn unreadable(status: u16) -> Option<Vec<u8>> {
    let error = match status {
        400 => {
            ApiError::new(Code::MalformedRequest, "the request cannot be read: its first line or a header is not valid")
                .hint("in a URL, write \" as %22, < as %3C, > as %3E and a space as %20")
        }
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
    fn every_code_has_a_word_of_its_own() {
        let words: std::collections::HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
    }

    #[test]
    fn a_refusal_that_passes_by_itself_says_when_to_come_again() {
        for code in Code::ALL.iter().filter(|code| matches!(code.status().as_u16(), 429 | 503 | 507)) {
            let answer = ApiError::new(*code, "").render("");
            assert!(answer.headers().contains_key(header::RETRY_AFTER), "{code:?}");
        }
    }

    #[test]
    fn internals_do_not_leave() {
        let error = ApiError::from(Error::permanent("password=hunter2 at /srv/db"));
        assert!(!document(&error.problem(None)).to_string().contains("hunter2"));
        assert_eq!(error.code(), Code::UpstreamError);
    }
}
