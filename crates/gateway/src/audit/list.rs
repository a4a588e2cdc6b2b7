//! `GET /_audit`: the entries of the audit log.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::{IntoParams, ToSchema};

use super::AuditLog;
use crate::access::{Principal, Verb};
use crate::http::extract::{QueryParameters, parameters};
use crate::http::negotiate::{self, Format};
use crate::http::origin;
use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::http::schemas::{list_of, moment, with_schemas, words};
use crate::scope::require_everywhere;
use crate::state::GatewayState;
use diorama_core::journal::{AuditAction, AuditEntry, AuditQuery, JournalError};
use diorama_core::vista::query::url::segment;

/// Maximum number of entries in one answer, and in one piece of NDJSON.
const MOST: usize = 1_000;
/// Number of entries in an answer without a `limit`.
const USUAL: usize = 100;

/// Entry of the audit log.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(crate) struct AuditBody {
    /// Number of the entry. Numbers are consecutive.
    seq: u64,
    #[schema(required, schema_with = moment)]
    time: Option<String>,
    #[schema(schema_with = AuditBody::actions)]
    action: AuditAction,
    /// Name of the principal; null for an anonymous caller and for the server itself.
    #[schema(required)]
    principal: Option<String>,
    /// Role of the principal; null for the server itself.
    #[schema(required)]
    role: Option<String>,
    /// Address of the caller; of an IPv6 address its /64 network.
    #[schema(required)]
    address: Option<String>,
    /// Id of the request. The entries of one action have the same.
    #[schema(required)]
    request_id: Option<String>,
    /// Name of the resource.
    #[schema(required)]
    resource: Option<String>,
    /// Ids of operations or deliveries, or hashes of the ids of rows, separated by commas.
    #[schema(required)]
    target: Option<String>,
    /// `started`, then the status of the answer, `disconnected` or the code of the problem.
    #[schema(required)]
    outcome: Option<String>,
    /// Number of events that the entry stands for: of `dropped` the entries, of refusals those after the first one in a minute.
    count: u64,
}

impl AuditBody {
    fn actions() -> ObjectBuilder {
        words(AuditAction::ALL.iter().map(|action| action.as_str()))
    }

    fn of(entry: AuditEntry) -> AuditBody {
        AuditBody {
            seq: entry.seq,
            time: response::moment(entry.time),
            action: entry.action,
            principal: entry.principal,
            role: entry.role,
            address: entry.address,
            request_id: entry.request,
            resource: entry.resource,
            target: entry.target,
            outcome: Some(entry.outcome).filter(|outcome| !outcome.is_empty()),
            count: entry.count,
        }
    }
}

/// Returns an entry as the JSON that is sent.
pub fn describe(entry: AuditEntry) -> Value {
    response::document(&AuditBody::of(entry))
}

/// Filter and page of the audit log.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditFilter {
    /// Only this action, or one of these, separated by commas.
    #[param(nullable = false)]
    action: Option<String>,
    /// Only actions of this principal.
    #[param(nullable = false)]
    principal: Option<String>,
    /// Only actions on this resource.
    #[param(nullable = false)]
    resource: Option<String>,
    /// Only entries since this time.
    #[param(nullable = false)]
    since: Option<String>,
    /// `desc` for the newest entries first, `asc` for the oldest.
    #[param(default = "desc", nullable = false)]
    order: Option<String>,
    /// Maximum number of entries. NDJSON without a limit has all.
    #[param(maximum = 1_000, default = 100, nullable = false)]
    limit: Option<usize>,
    /// Number of an entry; only those that follow it in this order are returned.
    #[param(nullable = false)]
    after: Option<u64>,
}

impl AuditFilter {
    /// Returns the parameters for the OpenAPI document.
    pub(crate) fn parameters() -> Vec<Parameter> {
        let actions = list_of(AuditAction::ALL.iter().map(|action| action.as_str()));
        let own = [("action", actions), ("since", moment()), ("order", words(["asc", "desc"]))];
        with_schemas(AuditFilter::into_params(|| None), own)
    }

    fn query(&self, usual: usize) -> Result<AuditQuery, ApiError> {
        let invalid = |detail: String| ApiError::new(Code::InvalidParameter, detail);
        let since = self.since.as_deref().map(|since| {
            let time: jiff::Timestamp = since.parse().map_err(|_| {
                invalid(format!("since: {since:?} is not a valid time")).hint("write it like 2026-11-30T12:00:00Z")
            })?;
            Ok::<_, ApiError>(u64::try_from(time.as_millisecond()).unwrap_or(0))
        });
        if self.after.is_some_and(|after| i64::try_from(after).is_err()) {
            return Err(invalid(format!("after: at most {}", i64::MAX)).hint("after is the seq of an entry"));
        }
        if self.limit.is_some_and(|limit| limit > MOST) {
            let error = ApiError::new(Code::LimitTooLarge, format!("limit: at most {MOST}"));
            return Err(error.hint("read further pages with after; NDJSON without a limit has all entries"));
        }
        Ok(AuditQuery {
            actions: self.actions()?,
            principal: self.principal.clone(),
            resource: self.resource.clone(),
            since: since.transpose()?,
            after: self.after,
            oldest_first: match self.order.as_deref() {
                None | Some("desc") => false,
                Some("asc") => true,
                Some(other) => return Err(invalid(format!("order: {other:?} is neither asc nor desc"))),
            },
            limit: self.limit.unwrap_or(usual),
        })
    }

    fn actions(&self) -> Result<Vec<AuditAction>, ApiError> {
        let words = self.action.iter().flat_map(|actions| actions.split(',')).map(str::trim);
        let read = |word: &str| {
            let known = AuditAction::ALL.iter().find(|action| action.as_str() == word).copied();
            known.ok_or_else(|| {
                let all: Vec<_> = AuditAction::ALL.iter().map(|action| action.as_str()).collect();
                let error = ApiError::new(Code::InvalidParameter, format!("action: {word:?} is not a valid action"));
                error.hint(format!("the actions are {}; separate several by commas", all.join(", ")))
            })
        };
        words.map(read).collect()
    }

    fn next_page(&self, path: &str, limit: usize, last: u64) -> HeaderValue {
        let filters = [
            ("action", &self.action),
            ("principal", &self.principal),
            ("resource", &self.resource),
            ("since", &self.since),
            ("order", &self.order),
        ];
        let filters =
            filters.iter().filter_map(|(name, value)| Some(format!("{name}={}&", segment(value.as_deref()?))));
        response::text(format!("<{path}?{}limit={limit}&after={last}>; rel=\"next\"", filters.collect::<String>()))
    }
}

/// Lists entries. Pages of other origins are refused, even allowed ones.
pub(crate) async fn audit(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    OriginalUri(uri): OriginalUri,
    query: QueryParameters<AuditFilter>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    require_everywhere(&gateway, &principal, Verb::Admin)?;
    origin::check_own(&headers)?;
    let log = gateway.audit.as_ref().ok_or_else(|| {
        ApiError::new(Code::NotFound, "there is no audit log")
            .hint("it requires a journal on disk, and is switched off by audit.enabled = false")
    })?;
    let filter = parameters(query)?;
    let format = negotiate::of_log(&headers)?;
    let query = filter.query(if format == Format::Ndjson { usize::MAX } else { USUAL })?;
    let mut response = match format {
        Format::Ndjson => Response::new(lines(log.clone(), query)),
        _ => {
            // One entry more than the page tells if there is a next page.
            let more = AuditQuery { limit: query.limit.saturating_add(1), ..query.clone() };
            let mut entries = log.read(&more).await.map_err(unreadable)?;
            let more = entries.len() > query.limit;
            entries.truncate(query.limit);
            let next = entries.last().filter(|_| more).map(|last| filter.next_page(uri.path(), query.limit, last.seq));
            let mut response = response::json(&entries.into_iter().map(AuditBody::of).collect::<Vec<_>>());
            response.headers_mut().extend(next.map(|next| (header::LINK, next)));
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, format.content_type());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// Returns entries as NDJSON, read piece by piece while they are sent.
fn lines(log: AuditLog, query: AuditQuery) -> Body {
    let pieces = stream::try_unfold((log, query), |(log, mut query)| async move {
        let piece = AuditQuery { limit: query.limit.min(MOST), ..query.clone() };
        let entries = if piece.limit == 0 { Vec::new() } else { log.read(&piece).await? };
        let Some(last) = entries.last() else { return Ok::<_, JournalError>(None) };
        query.after = Some(last.seq);
        query.limit -= entries.len();
        let lines = entries.into_iter().map(|entry| describe(entry).to_string() + "\n").collect::<String>();
        Ok(Some((lines, (log, query))))
    });
    Body::from_stream(pieces)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn unreadable(error: JournalError) -> ApiError {
    ApiError::new(Code::StoreUnavailable, "the audit log cannot be read").cause(error.to_string())
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;
    use crate::Gateway;
    use crate::access::{Allow, Verbs};
    use crate::events::testing::small_dio;
    use diorama_core::journal::{AuditLimits, MemoryJournal};

    #[tokio::test]
    async fn only_callers_who_may_administer_every_resource_see_the_log() {
        for (verb, dio, status) in [
            (Verb::Admin, "*", StatusCode::OK),
            (Verb::Admin, "products", StatusCode::OK),
            (Verb::Operations, "*", StatusCode::FORBIDDEN),
        ] {
            let log = AuditLog::new(Arc::new(MemoryJournal::new()), AuditLimits::default());
            let (role, can, dio) = ("anonymous".to_string(), Verbs::from_iter([verb]), dio.to_string());
            let rule = Allow { role, dio, can, filter: String::new(), check: None, columns: None };
            let gateway = Gateway::new().mount(small_dio().await).audit(Some(log)).try_allow(&[rule]).unwrap();
            let request = Request::get("/_audit").body(Body::empty()).unwrap();
            assert_eq!(gateway.into_router().oneshot(request).await.unwrap().status(), status, "{verb}");
        }
    }
}
