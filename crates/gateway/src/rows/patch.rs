//! `PATCH /{dio}/{id}` and `PATCH /{dio}` by filter: RFC 7396 merge patches.

use axum::extract::RawQuery;
use axum::response::Response;

use crate::http::extract::{OnRow, Writable};
use crate::http::problem::ApiError;
use crate::rows::by_filter;
use crate::rows::write::{self, Change};
use diorama_core::vista::WriteOp;

/// Merges the body into the row.
pub(crate) async fn patch(row: OnRow, change: Change) -> Result<Response, ApiError> {
    let OnRow { at, id } = row;
    let record = change.part(&at, Some(&id))?;
    write::same_id(&at, &id, &record)?;
    write::accept(&at, &change, WriteOp::Patch { id, record }).await
}

/// Merges the body into every row that the filter lets through.
pub(crate) async fn patch_many(
    Writable(at): Writable,
    RawQuery(raw): RawQuery,
    change: Change,
) -> Result<Response, ApiError> {
    let mut record = change.part(&at, None)?;
    let ids = by_filter::targets(&at, &change, raw.as_deref().unwrap_or_default()).await?;
    // Which is refused unless the filter found that one row.
    for id in &ids {
        write::same_id(&at, id, &record)?;
    }
    record.remove(at.schema.id_column());
    let ops = ids.into_iter().map(|id| WriteOp::Patch { id, record: record.clone() });
    by_filter::write(&at, &change, ops.collect()).await
}
