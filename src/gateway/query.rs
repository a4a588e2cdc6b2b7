//! `QUERY /{dio}` and `POST /{dio}/_query`: the query of a list as a JSON body.

use axum::response::Response;

use super::answer::{self, View};
use super::extract::On;
use super::list;
use super::negotiate;
use super::problem::{ApiError, Code};
use super::write::Change;
use crate::vista::{Error, Query};

/// Lists what the body asks for.
pub(super) async fn query(On(at): On, change: Change) -> Result<Response, ApiError> {
    let format = negotiate::of_list(&change.headers)?;
    let mut query = Query::from_json(&change.value()?, &at.schema).map_err(wrong)?;
    match query.limit {
        None if !format.is_streamed() => query.limit = Some(at.options.default_limit),
        Some(limit) if limit > at.options.max_limit => {
            return Err(ApiError::new(Code::LimitTooLarge, format!("limit: at most {}", at.options.max_limit)));
        }
        _ => {}
    }
    let view = View::of(&at.dio);
    let etag = view.list_etag(&change.body, format);
    if answer::is_known(&change.headers, &etag) {
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
