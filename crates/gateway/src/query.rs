//! `QUERY /{dio}` and `POST /{dio}/_query`: the query of a list as a JSON body.
//!
//! With `"after"` in the body, the `Link` header says where the next page is: the same request to that URL, whose cursor wins
//! over the body's.

use std::sync::Arc;

use axum::extract::{OriginalUri, Request, State};
use axum::response::Response;

use super::answer::{self, View};
use super::budget::Bounds;
use super::extract::On;
use super::list;
use super::negotiate;
use super::problem::{ApiError, Code};
use super::record;
use super::state::Shared;
use diorama_core::plan::{Page, Repeated};
use diorama_core::vista::query::Cursor;
use diorama_core::vista::{Error, Query};

/// Lists what the body asks for.
pub(super) async fn query(
    bounds: Bounds,
    On(at): On,
    OriginalUri(uri): OriginalUri,
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let (headers, raw) = (&parts.headers, parts.uri.query().unwrap_or_default());
    let format = negotiate::of_list(headers)?;
    let media = record::media(headers)?;
    let body = shared.body(&parts, body).await?;
    let value = record::value(media, &body, &shared.limits)?;
    let schema = Arc::clone(&at.schema);
    let read = bounds.read(&at, &body, move || Query::from_json(&value, &schema));
    let mut query = read.await?.map_err(wrong)?;
    if !raw.is_empty() {
        let Some(after) = raw.strip_prefix("after=") else {
            return Err(ApiError::new(Code::UnknownParameter, "this URL takes no parameter but after")
                .hint("put the query into the body"));
        };
        query.after = Some(Cursor::parse(after).map_err(wrong)?);
        query.validate(&at.schema).map_err(wrong)?;
    }
    match query.limit {
        None if !format.is_streamed() => query.limit = Some(at.options.limit_of(&query, &at.schema)),
        Some(limit) if limit > at.options.max_limit => {
            return Err(ApiError::new(Code::LimitTooLarge, format!("limit: at most {}", at.options.max_limit)));
        }
        _ => {}
    }
    let (page, starts) = (Page::of(&query), query.after.is_some());
    let view = View::of(&at);
    let etag = view.list_etag(&[raw.as_bytes(), &body].join(&b'\n'), format);
    if at.dio.is_complete() && answer::is_known(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let mut found = list::find(&at, &view, &Arc::new(Repeated::new(query)), page, format, &bounds).await?;
    let etag = found.etag.take().unwrap_or(etag);
    if answer::is_known(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let links = starts.then(|| found.cursor_links(&format!("{}?", uri.path())));
    Ok(found.respond(&view, etag, format, links))
}

fn wrong(error: Error) -> ApiError {
    match error {
        Error::Invalid { detail, fields } => ApiError::new(Code::InvalidParameter, detail).errors(fields),
        other => other.into(),
    }
}
