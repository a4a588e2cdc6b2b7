//! `PUT /{dio}/{id}`: inserts or replaces a whole row.

use axum::response::Response;

use crate::http::problem::ApiError;
use crate::rows::extract::PathRow;
use crate::rows::write::{self, Change};
use diorama_core::vista::WriteOp;

/// Inserts or replaces the row. A body with another id than the path is refused.
pub(crate) async fn replace(row: PathRow, change: Change) -> Result<Response, ApiError> {
    let PathRow { scope, id } = row;
    let record = change.row(&scope, &id)?;
    write::accept(&scope, &change, WriteOp::Replace { id, record }).await
}
