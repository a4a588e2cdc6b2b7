//! `QUERY /{dio}` and `POST /{dio}/_query`: the query of a list as a JSON body.
//!
//! With `"after"` in the body, the `Link` header has the URL of the next page. The client repeats the request to that URL; its
//! cursor takes precedence over the one in the body.

use std::sync::Arc;

use axum::extract::{OriginalUri, Request, State};
use axum::response::Response;

use crate::http::bounds::Bounds;
use crate::http::negotiate;
use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::rows::extract::PathScope;
use crate::rows::list;
use crate::rows::record;
use crate::rows::snapshot::Snapshot;
use crate::state::GatewayState;
use diorama_core::plan::Page;
use diorama_core::vista::query::Cursor;
use diorama_core::vista::{Error, Query};

/// Lists the rows that the query in the body selects.
pub(crate) async fn query(
    bounds: Bounds,
    PathScope(scope): PathScope,
    OriginalUri(uri): OriginalUri,
    State(gateway): State<Arc<GatewayState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let (headers, raw) = (&parts.headers, parts.uri.query().unwrap_or_default());
    let format = negotiate::of_list(headers)?;
    let media = record::media(headers)?;
    let body = gateway.body(&parts, body).await?;
    let value = record::value(media, &body, &gateway.limits)?;
    let schema = Arc::clone(&scope.schema);
    let read = bounds.read(scope.dio.workers(), &body, move || Query::from_json(&value, &schema));
    let mut query = read.await?.map_err(invalid)?;
    if !raw.is_empty() {
        let Some(after) = raw.strip_prefix("after=") else {
            return Err(ApiError::new(Code::UnknownParameter, "the only parameter of this URL is after")
                .hint("put the query into the body"));
        };
        query.after = Some(Cursor::parse(after).map_err(invalid)?);
        query.validate(&scope.schema).map_err(invalid)?;
    }
    match query.limit {
        None if !format.is_streamed() => query.limit = Some(scope.options.limit_of(&query, &scope.schema)),
        Some(limit) if limit > scope.options.max_limit => {
            return Err(ApiError::new(Code::LimitTooLarge, format!("limit: at most {}", scope.options.max_limit)));
        }
        _ => {}
    }
    let (page, starts) = (Page::of(&query), query.after.is_some());
    let view = Snapshot::of(&scope);
    let etag = view.list_etag(&[raw.as_bytes(), &body].join(&b'\n'), format);
    if scope.dio.is_complete() && response::is_known(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let mut list = list::find(&scope, &view, &scope.rows.prepare(query), page, format, &bounds).await?;
    let etag = list.etag.take().unwrap_or(etag);
    if response::is_known(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let links = starts.then(|| list.cursor_links(&format!("{}?", uri.path())));
    Ok(list.respond(&view, etag, format, links))
}

fn invalid(error: Error) -> ApiError {
    match error {
        Error::Invalid { detail, fields } => ApiError::new(Code::InvalidParameter, detail).errors(fields),
        other => other.into(),
    }
}
