//! `PUT /{dio}/{id}`: the whole row, new or not.

use axum::response::Response;

use crate::http::extract::OnRow;
use crate::http::problem::ApiError;
use crate::rows::write::{self, Change};
use diorama_core::vista::WriteOp;

/// Puts the row. A body that says another id than the path is refused.
pub(crate) async fn replace(row: OnRow, change: Change) -> Result<Response, ApiError> {
    let OnRow { at, id } = row;
    let record = change.row(&at, &id)?;
    write::accept(&at, &change, WriteOp::Replace { id, record }).await
}
