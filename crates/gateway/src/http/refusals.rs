//! The one mapping from errors to HTTP: each layer's own error, the query language's and the library's.

use axum::http::header::{self, HeaderValue};

use crate::http::auth::AuthError;
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
        let said = error.to_string();
        match error {
            SeveralHosts | NotAHost | NoHost => {
                ApiError::new(Code::InvalidHeader, said).hint("send one header Host with a host and perhaps a port")
            }
            NoHostInUrl => ApiError::new(Code::InvalidParameter, said),
            OtherHost(_) => ApiError::new(Code::MisdirectedHost, said)
                .hint("it binds loopback: use localhost or 127.0.0.1, or configure a public address"),
            Page(_) | OtherSite => {
                ApiError::new(Code::OriginNotAllowed, said).hint("list the origin under [server] cors")
            }
            OtherOrigin => ApiError::new(Code::OriginNotAllowed, said).hint("use the command line"),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> ApiError {
        let said = error.to_string();
        match error {
            AuthError::Several => ApiError::new(Code::InvalidHeader, said).hint("send one"),
            AuthError::NotBearer | AuthError::Missing | AuthError::Unknown => {
                ApiError::new(Code::Unauthenticated, said).hint(
                    "send the header Authorization: Bearer TOKEN; a browser's WebSocket offers the subprotocols \
                     diorama.v1+json and bearer.TOKEN",
                )
            }
        }
    }
}

impl From<HeadError> for ApiError {
    fn from(error: HeadError) -> ApiError {
        let said = error.to_string();
        match error {
            HeadError::Uri(_) => ApiError::new(Code::UriTooLong, said)
                .hint("QUERY {resource} and POST {resource}/_query take the query as a body"),
            HeadError::Headers(_) => ApiError::new(Code::HeadersTooLarge, said),
        }
    }
}

impl From<BudgetError> for ApiError {
    fn from(error: BudgetError) -> ApiError {
        let (code, key) = match error {
            BudgetError::Share { key, .. } => (Code::RateLimited, key),
            BudgetError::All { key, .. } => (Code::Busy, key),
        };
        ApiError::new(code, error.to_string())
            .hint(format!("come again after Retry-After; server.limits.{key} is the bound"))
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> ApiError {
        let said = error.to_string();
        match error {
            BodyError::TooLarge(_) => ApiError::new(Code::PayloadTooLarge, said)
                .hint("send rows in bulk as application/x-ndjson, one per line"),
            BodyError::TooSlow => ApiError::new(Code::RequestTimeout, said),
            BodyError::Broken(_) => ApiError::new(Code::MalformedBody, said),
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
        ApiError::new(Code::NotAcceptable, error.to_string()).hint(format!("formats are {}", names.join(", ")))
    }
}

impl From<UnclearPreference> for ApiError {
    fn from(error: UnclearPreference) -> ApiError {
        ApiError::new(Code::InvalidHeader, error.to_string()).hint(
            "respond-async, wait=SECONDS, return=minimal|representation, handling=strict|lenient, max-affected=ROWS",
        )
    }
}

impl From<SpoolError> for ApiError {
    fn from(error: SpoolError) -> ApiError {
        let said = error.to_string();
        match error {
            SpoolError::File(source) => ApiError::new(Code::InsufficientStorage, said).cause(source.to_string()),
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
        let said = error.to_string();
        let plain = |code| ApiError::new(code, said.clone());
        match error {
            Error::Unsupported { what: "insert" | "update" | "delete", .. } => plain(Code::Unsupported).hint(
                "files are read only: a SQLite table takes writes, and `write` in a [dio] sends them elsewhere; \
                 GET {resource}/_schema says what can be done",
            ),
            Error::Unsupported { .. } => plain(Code::Unsupported).hint("GET {resource}/_schema says what it can do"),
            Error::NotFound { .. } => plain(Code::NotFound),
            Error::Conflict { .. } => plain(Code::Conflict),
            Error::Precondition { .. } => {
                plain(Code::PreconditionFailed).hint("read the row again and repeat the change with its ETag")
            }
            Error::Invalid { fields, .. } => plain(Code::ValidationFailed).errors(fields),
            Error::Replayed { .. } => plain(Code::Conflict),
            Error::KeyReused { .. } => plain(Code::IdempotencyKeyReused).hint("a new request needs a new key"),
            Error::QueueFull => plain(Code::QueueFull).hint(
                "come again after Retry-After; nothing was accepted; parked writes wait too: GET /operations?state=parked",
            ),
            Error::Busy => plain(Code::Busy).hint("come again after Retry-After; server.limits.heavy_queries is the bound"),
            Error::ClaimsFull => plain(Code::Busy).hint(
                "come again after Retry-After; nothing was accepted; keys expire after a day, ids of deliveries after seven; \
                 lens.inbox.claims is the bound",
            ),
            Error::QueryTime { .. } => plain(Code::QueryTimeout).hint(
                "ask for fewer rows by an indexed filter (explain=true says which index would help); server.limits.query_time \
                 is the bound",
            ),
            Error::QueryMemory { .. } => plain(Code::LimitTooLarge)
                .hint("filter the rows, group by fewer values or take a page; server.limits.query_memory is the bound"),
            Error::NotReady { .. } => plain(Code::NotReady),
            Error::Closed => ApiError::new(Code::ShuttingDown, "the server is stopping"),
            Error::Storage { full: true, .. } => {
                ApiError::new(Code::InsufficientStorage, "there is no room for the write; nothing was accepted")
                    .cause(said)
            }
            Error::Storage { full: false, .. } => {
                ApiError::new(Code::StoreUnavailable, "the journal cannot be written; nothing was accepted").cause(said)
            }
            Error::OutcomeUnknown { operation } => {
                ApiError::new(Code::StoreUnavailable, "it is not known yet whether the write was stored").hint(format!(
                    "GET /operations/{operation} will tell; repeating the request needs an Idempotency-Key"
                ))
            }
            Error::Source { kind: ErrorKind::Unknown, retry_after, .. } => {
                ApiError::new(Code::UpstreamTimeout, "the source did not answer").retry_after(retry_after).cause(said)
            }
            Error::Source { retry_after, .. } => {
                ApiError::new(Code::UpstreamError, "the source failed").retry_after(retry_after).cause(said)
            }
            Error::Suspicious { .. } => plain(Code::RefreshSuspicious),
            // Errors of the program itself, which no request can cause: `Reentrant`, `Config`, and what comes later.
            _ => ApiError::new(Code::Internal, "something is wrong inside").cause(said),
        }
    }
}
