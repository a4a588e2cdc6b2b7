//! Conversion of all errors to refusals: those of the HTTP steps, of the query language and of the core library.

use axum::http::header::{self, HeaderValue};

use crate::http::body::BodyError;
use crate::http::budget::BudgetError;
use crate::http::coding::CodedBody;
use crate::http::limits::HeadError;
use crate::http::negotiate::NotAcceptable;
use crate::http::origin::OriginError;
use crate::http::prefer::UnclearPreference;
use crate::http::problem::{ApiError, Code};
use crate::http::spool::SpoolError;
use diorama_core::vista::query::url::{ParamCode, ParamError};
use diorama_core::vista::{Error, ErrorKind};

impl From<OriginError> for ApiError {
    fn from(error: OriginError) -> ApiError {
        use OriginError::{NoHost, NoHostInUrl, NotAHost, OtherHost, OtherOrigin, OtherSite, Page, SeveralHosts};
        let detail = error.to_string();
        match error {
            SeveralHosts | NotAHost | NoHost => {
                ApiError::new(Code::InvalidHeader, detail).hint("send one header Host with a host and an optional port")
            }
            NoHostInUrl => ApiError::new(Code::InvalidParameter, detail),
            OtherHost(_) => ApiError::new(Code::MisdirectedHost, detail)
                .hint("the server binds loopback: use localhost or 127.0.0.1, or configure a public address"),
            Page(_) | OtherSite => {
                ApiError::new(Code::OriginNotAllowed, detail).hint("add the origin to cors in [server]")
            }
            OtherOrigin => ApiError::new(Code::OriginNotAllowed, detail).hint("use the command line"),
        }
    }
}

impl From<HeadError> for ApiError {
    fn from(error: HeadError) -> ApiError {
        let detail = error.to_string();
        match error {
            HeadError::Uri(_) => ApiError::new(Code::UriTooLong, detail)
                .hint("send the query as the body of QUERY {resource} or POST {resource}/_query"),
            HeadError::Headers(_) => ApiError::new(Code::HeadersTooLarge, detail),
        }
    }
}

impl From<BudgetError> for ApiError {
    fn from(error: BudgetError) -> ApiError {
        let (code, key) = match error {
            BudgetError::Share { key, .. } => (Code::RateLimited, key),
            BudgetError::All { key, .. } => (Code::Busy, key),
            BudgetError::Limit { key, .. } => {
                return ApiError::new(Code::RateLimited, error.to_string()).hint(format!(
                    "close one of them, or wait; {key} of a [[limit]] in the configuration sets the number"
                ));
            }
        };
        ApiError::new(code, error.to_string())
            .hint(format!("repeat after Retry-After; server.limits.{key} sets the limit"))
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> ApiError {
        let detail = error.to_string();
        match error {
            BodyError::TooLarge(_) => ApiError::new(Code::PayloadTooLarge, detail)
                .hint("send rows in bulk as application/x-ndjson, one per line"),
            BodyError::TooSlow => ApiError::new(Code::RequestTimeout, detail),
            BodyError::Broken(_) => ApiError::new(Code::MalformedBody, detail),
            BodyError::Budget(error) => error.into(),
        }
    }
}

impl From<CodedBody> for ApiError {
    fn from(error: CodedBody) -> ApiError {
        ApiError::new(Code::UnsupportedMediaType, error.to_string())
            .hint("send the body without a Content-Encoding")
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
    }
}

impl From<NotAcceptable> for ApiError {
    fn from(error: NotAcceptable) -> ApiError {
        let name = |value: HeaderValue| value.to_str().unwrap_or_default().to_string();
        let names: Vec<_> = error.formats.iter().map(|format| name(format.content_type())).collect();
        ApiError::new(Code::NotAcceptable, error.to_string())
            .hint(format!("the supported formats are {}", names.join(", ")))
    }
}

impl From<UnclearPreference> for ApiError {
    fn from(error: UnclearPreference) -> ApiError {
        ApiError::new(Code::InvalidHeader, error.to_string()).hint(
            "the preferences are respond-async, wait=SECONDS, return=minimal|representation, handling=strict|lenient and \
             max-affected=ROWS",
        )
    }
}

impl From<SpoolError> for ApiError {
    fn from(error: SpoolError) -> ApiError {
        let detail = error.to_string();
        match error {
            SpoolError::File(source) => ApiError::new(Code::InsufficientStorage, detail).cause(source.to_string()),
            SpoolError::Dio(error) => error.into(),
        }
    }
}

impl From<ParamError> for ApiError {
    fn from(error: ParamError) -> ApiError {
        let code = match error.code {
            ParamCode::UnknownColumn => Code::UnknownColumn,
            ParamCode::UnknownParameter => Code::UnknownParameter,
            ParamCode::InvalidParameter => Code::InvalidParameter,
            ParamCode::LimitTooLarge => Code::LimitTooLarge,
        };
        let problem = ApiError::new(code, error.to_string()).errors([(error.parameter, error.detail)].into());
        match error.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> ApiError {
        let detail = error.to_string();
        let plain = |code| ApiError::new(code, detail.clone());
        match error {
            Error::Unsupported { what: "insert" | "update" | "delete", .. } => plain(Code::Unsupported).hint(
                "files, views and tables that the database user may only read take no writes: `write` in a [dio] sends them to \
                 a table elsewhere; GET {resource}/_schema lists the supported operations",
            ),
            Error::Unsupported { .. } => {
                plain(Code::Unsupported).hint("GET {resource}/_schema lists the supported operations")
            }
            Error::NotFound { .. } => plain(Code::NotFound),
            Error::Conflict { .. } => plain(Code::Conflict),
            Error::Precondition { .. } => {
                plain(Code::PreconditionFailed).hint("read the row again and repeat the change with its ETag")
            }
            Error::Forbidden { .. } => plain(Code::Forbidden),
            Error::Invalid { fields, .. } => plain(Code::ValidationFailed).errors(fields),
            Error::Replayed { .. } => plain(Code::Conflict),
            Error::KeyReused { .. } => plain(Code::IdempotencyKeyReused).hint("use a new key for a new request"),
            Error::QueueFull => plain(Code::QueueFull).hint(
                "nothing was accepted; repeat after Retry-After; parked writes count too: GET /operations?state=parked",
            ),
            Error::Busy => {
                plain(Code::Busy).hint("repeat after Retry-After; server.limits.heavy_queries sets the limit")
            }
            Error::ClaimsFull => plain(Code::Busy).hint(
                "nothing was accepted; repeat after Retry-After; keys expire after one day, ids of deliveries after seven; \
                 lens.inbox.claims sets the limit",
            ),
            Error::QueryTime { .. } => plain(Code::QueryTimeout).hint(
                "read fewer rows with an indexed filter (explain=true shows which index would help); server.limits.query_time \
                 sets the limit",
            ),
            Error::QueryMemory { .. } => plain(Code::LimitTooLarge)
                .hint("filter the rows, group by fewer values or read a page; server.limits.query_memory sets the limit"),
            Error::NotReady { .. } => plain(Code::NotReady),
            Error::Closed => ApiError::new(Code::ShuttingDown, "the server is stopping"),
            Error::Storage { full: true, .. } => {
                ApiError::new(Code::InsufficientStorage, "the disk is full; nothing was accepted").cause(detail)
            }
            Error::Storage { full: false, .. } => {
                ApiError::new(Code::StoreUnavailable, "the journal cannot be written; nothing was accepted").cause(detail)
            }
            Error::OutcomeUnknown { operation } => {
                ApiError::new(Code::StoreUnavailable, "it is not known yet whether the write was stored").hint(format!(
                    "GET /operations/{operation} shows the outcome; repeat the request only with an Idempotency-Key"
                ))
            }
            Error::Source { kind: ErrorKind::Unknown, retry_after, .. } => {
                ApiError::new(Code::UpstreamTimeout, "the source did not answer in time").retry_after(retry_after).cause(detail)
            }
            Error::Source { retry_after, .. } => {
                ApiError::new(Code::UpstreamError, "the source failed").retry_after(retry_after).cause(detail)
            }
            Error::Suspicious { .. } => plain(Code::RefreshSuspicious),
            // Errors of the program itself, which no request can cause: `Reentrant`, `Config`, and future ones.
            _ => ApiError::new(Code::Internal, "internal server error; the log has the cause").cause(detail),
        }
    }
}
