//! `POST /{dio}` and `POST /{dio}/{id}`: new rows.

use std::sync::Arc;

use axum::extract::{FromRequest as _, Request, State};
use axum::response::Response;

use crate::http::extract::{OnRow, Prefix, Writable};
use crate::http::problem::{ApiError, Code};
use crate::rows::bulk;
use crate::rows::record::{self, Media};
use crate::rows::write::{self, Change};
use crate::state::{Mounted, Shared};
use diorama_core::record::{CborValue, Record, id_from_value};
use diorama_core::vista::{Shape, WriteOp};

/// Adds a row whose id is in its id column, or is chosen here or by the master; or many rows.
pub(crate) async fn insert(
    Writable(at): Writable,
    State(shared): State<Arc<Shared>>,
    Prefix(prefix): Prefix,
    request: Request,
) -> Result<Response, ApiError> {
    if record::media(request.headers())? == Media::Ndjson {
        return bulk::lines(&at, request, &prefix, &shared).await;
    }
    let change = Change::from_request(request, &shared).await?;
    match change.value()? {
        CborValue::Array(rows) => bulk::array(&at, &change, rows).await,
        value => one(&at, &change, value).await,
    }
}

async fn one(at: &Mounted, change: &Change, value: CborValue) -> Result<Response, ApiError> {
    let (id, row) = new(at, value)?;
    match id {
        Some(id) => write::accept(at, change, WriteOp::Insert { id, record: row }).await,
        None => master_assigned(at, change, row).await,
    }
}

/// Adds a row under the id of the path.
pub(crate) async fn insert_at(row: OnRow, change: Change) -> Result<Response, ApiError> {
    let OnRow { at, id } = row;
    let record = change.row(&at, &id)?;
    write::accept(&at, &change, WriteOp::Insert { id, record }).await
}

/// A new row, and its id unless the master has to choose it.
pub(crate) fn new(at: &Mounted, value: CborValue) -> Result<(Option<String>, Record), ApiError> {
    let row = record::row(value, at, Shape::Whole, None)?;
    // What is there can be an id: that was checked.
    let id = row.get(at.schema.id_column()).and_then(id_from_value).or_else(|| minted_id(at));
    if let Some(id) = &id {
        write::check_id(at, id)?;
    }
    Ok((id, row))
}

/// A new id, where ids are text; whole numbers are the master's to give.
fn minted_id(at: &Mounted) -> Option<String> {
    (!at.schema.layout().integer_id()).then(|| uuid::Uuid::now_v7().to_string())
}

/// The master makes the row and says which id it has; nothing is queued.
async fn master_assigned(at: &Mounted, change: &Change, row: Record) -> Result<Response, ApiError> {
    if change.key.is_some() {
        return Err(no_key());
    }
    Ok(write::made(at, change, at_master(at, &row).await?))
}

/// Refuses a key for a row that the master names: nobody could say later whether it is the same.
pub(crate) fn no_key() -> ApiError {
    let detail = "an Idempotency-Key cannot be kept for a row whose id the source chooses";
    ApiError::new(Code::InvalidHeader, detail).hint("give the row an id, or leave the key out")
}

/// Has the master make a row; gives the id that it chose.
pub(crate) async fn at_master(at: &Mounted, row: &Record) -> Result<String, ApiError> {
    let vista = at.dio.vista();
    match tokio::time::timeout(write::LONGEST_INSERT, vista.insert_return_id(row)).await {
        Ok(id) => id.map_err(|error| at.refusal(error)),
        Err(_) => Err(ApiError::new(
            Code::UpstreamTimeout,
            "the source did not say which id it chose, in time; nothing is queued",
        )),
    }
}
