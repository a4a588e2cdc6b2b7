//! `QUERY /{dio}` and `POST /{dio}/_query`: the query of a list as a JSON body.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::answer::{self, View};
use super::extract::On;
use super::list;
use super::negotiate;
use super::problem::{ApiError, Code};
use super::record;
use super::state::Shared;
use crate::vista::{Error, Query};

/// Lists what the body asks for.
pub(super) async fn query(
    On(at): On,
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let format = negotiate::of_list(&headers)?;
    let media = record::media(&headers)?;
    let body = shared.limits.read(&headers, body).await?;
    let value = record::value(media, &body, &shared.limits)?;
    let mut query = Query::from_json(&value, &at.schema).map_err(wrong)?;
    match query.limit {
        None if !format.is_streamed() => query.limit = Some(at.options.default_limit),
        Some(limit) if limit > at.options.max_limit => {
            return Err(ApiError::new(Code::LimitTooLarge, format!("limit: at most {}", at.options.max_limit)));
        }
        _ => {}
    }
    let view = View::of(&at.dio);
    let etag = view.list_etag(&body, format);
    if answer::is_known(&headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    Ok(list::find(&at, &view, &query, format).await?.respond(&view, etag, format))
}

fn wrong(error: Error) -> ApiError {
    match error {
        Error::Invalid { detail, fields } => ApiError::new(Code::InvalidParameter, detail).errors(fields),
        other => other.into(),
    }
}
