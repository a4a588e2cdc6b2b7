//! `DELETE /{dio}/{id}` and `DELETE /{dio}` by filter, or `?all=true`.

use axum::extract::RawQuery;
use axum::response::Response;

use crate::http::problem::ApiError;
use crate::rows::by_filter;
use crate::rows::extract::{PathRow, WritableScope};
use crate::rows::write::{self, Change};
use diorama_core::vista::WriteOp;

/// Deletes the row; the response has its last state.
pub(crate) async fn delete(row: PathRow, change: Change) -> Result<Response, ApiError> {
    let PathRow { scope, id } = row;
    write::accept(&scope, &change, WriteOp::Delete { id }).await
}

/// Deletes every row that passes the filter.
pub(crate) async fn delete_many(
    WritableScope(scope): WritableScope,
    RawQuery(raw): RawQuery,
    change: Change,
) -> Result<Response, ApiError> {
    let raw = raw.unwrap_or_default();
    let ids = by_filter::targets(&scope, &change, &raw).await?;
    if raw == "all=true" && scope.rows.may_delete_all() && scope.dio.capabilities().can_delete_all {
        return by_filter::delete_all(&scope, &change, ids.len()).await;
    }
    by_filter::write(&scope, &change, ids.into_iter().map(|id| WriteOp::Delete { id }).collect()).await
}
