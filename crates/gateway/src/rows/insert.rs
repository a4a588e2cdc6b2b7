//! `POST /{dio}` and `POST /{dio}/{id}`: new rows.

use std::sync::Arc;

use axum::extract::{FromRequest as _, Request, State};
use axum::response::Response;

use crate::http::extract::Prefix;
use crate::http::problem::{ApiError, Code};
use crate::rows::bulk;
use crate::rows::extract::{PathRow, WritableResource};
use crate::rows::record::{self, Media};
use crate::rows::write::{self, Change};
use crate::state::{GatewayState, Resource};
use diorama_core::record::{CborValue, Record, id_from_value};
use diorama_core::vista::{Shape, WriteOp};

/// Adds a row whose id is in its id column, or is chosen here or by the master; or many rows.
pub(crate) async fn insert(
    WritableResource(resource): WritableResource,
    State(gateway): State<Arc<GatewayState>>,
    Prefix(prefix): Prefix,
    request: Request,
) -> Result<Response, ApiError> {
    if record::media(request.headers())? == Media::Ndjson {
        return bulk::lines(&resource, request, &prefix, &gateway).await;
    }
    let change = Change::from_request(request, &gateway).await?;
    match change.value()? {
        CborValue::Array(rows) => bulk::array(&resource, &change, rows).await,
        value => one(&resource, &change, value).await,
    }
}

async fn one(resource: &Resource, change: &Change, value: CborValue) -> Result<Response, ApiError> {
    let (id, row) = new(resource, value)?;
    match id {
        Some(id) => write::accept(resource, change, WriteOp::Insert { id, record: row }).await,
        None => master_assigned(resource, change, row).await,
    }
}

/// Adds a row under the id of the path.
pub(crate) async fn insert_at(row: PathRow, change: Change) -> Result<Response, ApiError> {
    let PathRow { resource, id } = row;
    let record = change.row(&resource, &id)?;
    write::accept(&resource, &change, WriteOp::Insert { id, record }).await
}

/// A new row, and its id unless the master has to choose it.
pub(crate) fn new(resource: &Resource, value: CborValue) -> Result<(Option<String>, Record), ApiError> {
    let row = record::row(value, resource, Shape::Whole, None)?;
    // What is there can be an id: that was checked.
    let id = row.get(resource.schema.id_column()).and_then(id_from_value).or_else(|| minted_id(resource));
    if let Some(id) = &id {
        write::check_id(resource, id)?;
    }
    Ok((id, row))
}

/// A new id, where ids are text; whole numbers are the master's to give.
fn minted_id(resource: &Resource) -> Option<String> {
    (!resource.schema.layout().integer_id()).then(|| uuid::Uuid::now_v7().to_string())
}

/// The master makes the row and says which id it has; nothing is queued.
async fn master_assigned(resource: &Resource, change: &Change, row: Record) -> Result<Response, ApiError> {
    if change.key.is_some() {
        return Err(no_key());
    }
    Ok(write::made(resource, change, at_master(resource, &row).await?))
}

/// Refuses a key for a row that the master names: nobody could say later whether it is the same.
pub(crate) fn no_key() -> ApiError {
    let detail = "an Idempotency-Key cannot be kept for a row whose id the source chooses";
    ApiError::new(Code::InvalidHeader, detail).hint("give the row an id, or leave the key out")
}

/// Has the master make a row; gives the id that it chose.
pub(crate) async fn at_master(resource: &Resource, row: &Record) -> Result<String, ApiError> {
    let vista = resource.dio.vista();
    match tokio::time::timeout(write::LONGEST_INSERT, vista.insert_return_id(row)).await {
        Ok(id) => id.map_err(|error| resource.refusal(error)),
        Err(_) => Err(ApiError::new(
            Code::UpstreamTimeout,
            "the source did not say which id it chose, in time; nothing is queued",
        )),
    }
}
