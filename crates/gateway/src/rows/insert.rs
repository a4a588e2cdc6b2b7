//! `POST /{dio}` and `POST /{dio}/{id}`: new rows.

use std::sync::Arc;

use axum::extract::{FromRequest as _, Request, State};
use axum::response::Response;

use crate::http::extract::Prefix;
use crate::http::problem::ApiError;
use crate::rows::bulk;
use crate::rows::extract::{PathRow, WritableScope};
use crate::rows::new_row::{at_master, new_row, no_key};
use crate::rows::record::{self, Media};
use crate::rows::write::{self, Change};
use crate::scope::Scope;
use crate::state::GatewayState;
use diorama_core::record::{CborValue, Record};
use diorama_core::vista::WriteOp;

/// Inserts one row or many. An id that is missing from the id column is chosen by the gateway or the master.
pub(crate) async fn insert(
    WritableScope(scope): WritableScope,
    State(gateway): State<Arc<GatewayState>>,
    Prefix(prefix): Prefix,
    request: Request,
) -> Result<Response, ApiError> {
    if record::media(request.headers())? == Media::Ndjson {
        return bulk::lines(&scope, request, &prefix, &gateway).await;
    }
    let change = Change::from_request(request, &gateway).await?;
    match change.value()? {
        CborValue::Array(rows) => bulk::array(&scope, &change, rows).await,
        value => one(&scope, &change, value).await,
    }
}

async fn one(scope: &Scope, change: &Change, value: CborValue) -> Result<Response, ApiError> {
    let (id, row) = new_row(scope, value)?;
    match id {
        Some(id) => write::accept(scope, change, WriteOp::Insert { id, record: row }).await,
        None => master_assigned(scope, change, row).await,
    }
}

/// Inserts a row under the id in the path.
pub(crate) async fn insert_at(row: PathRow, change: Change) -> Result<Response, ApiError> {
    let PathRow { scope, id } = row;
    let record = change.row(&scope, &id)?;
    write::accept(&scope, &change, WriteOp::Insert { id, record }).await
}

/// Inserts a row at the master, which chooses its id; nothing is queued.
async fn master_assigned(scope: &Scope, change: &Change, row: Record) -> Result<Response, ApiError> {
    if change.key.is_some() {
        return Err(no_key());
    }
    Ok(write::created_at_master(scope, change, at_master(scope, &row).await?))
}
