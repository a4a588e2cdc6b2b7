//! A new row, and who gives it its id: the client, the gateway or the master.

use crate::http::problem::{ApiError, Code};
use crate::rows::record;
use crate::rows::write;
use crate::scope::Scope;
use diorama_core::record::{CborValue, Record, id_from_value};
use diorama_core::vista::Shape;

/// A new row, and its id unless the master has to choose it.
pub(super) fn new_row(scope: &Scope, value: CborValue) -> Result<(Option<String>, Record), ApiError> {
    let row = record::row(value, scope, Shape::Whole, None)?;
    // What is there can be an id: that was checked.
    let id = row.get(scope.schema.id_column()).and_then(id_from_value).or_else(|| minted_id(scope));
    if let Some(id) = &id {
        write::check_id(scope, id)?;
    }
    Ok((id, row))
}

/// A new id, where ids are text; whole numbers are the master's to give.
fn minted_id(scope: &Scope) -> Option<String> {
    (!scope.schema.layout().integer_id()).then(|| uuid::Uuid::now_v7().to_string())
}

/// Refuses a key for a row that the master names: nobody could say later whether it is the same.
pub(super) fn no_key() -> ApiError {
    let detail = "an Idempotency-Key cannot be kept for a row whose id the source chooses";
    ApiError::new(Code::InvalidHeader, detail).hint("give the row an id, or leave the key out")
}

/// Has the master make a row; gives the id that it chose.
pub(super) async fn at_master(scope: &Scope, row: &Record) -> Result<String, ApiError> {
    let vista = scope.rows.vista()?;
    match tokio::time::timeout(write::LONGEST_INSERT, vista.insert_return_id(row)).await {
        Ok(id) => id.map_err(|error| scope.refusal(error)),
        Err(_) => Err(ApiError::new(
            Code::UpstreamTimeout,
            "the source did not say which id it chose, in time; nothing is queued",
        )),
    }
}
