//! `PATCH /{dio}/{id}` and `PATCH /{dio}` by filter: RFC 7396 merge patches.

use axum::extract::RawQuery;
use axum::response::Response;

use crate::http::problem::ApiError;
use crate::rows::by_filter;
use crate::rows::extract::{PathRow, WritableScope};
use crate::rows::write::{self, Change};
use diorama_core::vista::{WriteKind, WriteOp};

/// Merges the body into the row.
pub(crate) async fn patch(row: PathRow, change: Change) -> Result<Response, ApiError> {
    let PathRow { scope, id } = row;
    let record = change.part(&scope, Some(&id))?;
    write::same_id(&scope, &id, &record)?;
    write::accept(&scope, &change, WriteOp::Patch { id, record }).await
}

/// Merges the body into every row that passes the filter.
pub(crate) async fn patch_many(
    WritableScope(scope): WritableScope,
    RawQuery(raw): RawQuery,
    change: Change,
) -> Result<Response, ApiError> {
    let mut record = change.part(&scope, None)?;
    // Before the rows are selected, so that the answer does not depend on them.
    scope.rows.check_columns(WriteKind::Patch, Some(&record))?;
    let ids = by_filter::targets(&scope, &change, raw.as_deref().unwrap_or_default(), WriteKind::Patch).await?;
    // An id in the body is allowed only if the filter matches that single row.
    for id in &ids {
        write::same_id(&scope, id, &record)?;
    }
    record.remove(scope.schema.id_column());
    let ops = ids.into_iter().map(|id| WriteOp::Patch { id, record: record.clone() });
    by_filter::write(&scope, &change, ops.collect()).await
}
