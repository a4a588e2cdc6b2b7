//! New rows, whose id is chosen by the client, the gateway or the master.

use crate::http::problem::{ApiError, Code};
use crate::rows::record;
use crate::rows::write;
use crate::scope::Scope;
use diorama_core::record::{CborValue, Record, id_from_value};
use diorama_core::vista::Shape;

/// Reads a new row and its id; the id is `None` if the master has to choose it.
pub(super) fn new_row(scope: &Scope, value: CborValue) -> Result<(Option<String>, Record), ApiError> {
    let row = record::row(value, scope, Shape::Whole, None)?;
    // A value in the id column is a valid id: `record::row` has checked it.
    let id = row.get(scope.schema.id_column()).and_then(id_from_value).or_else(|| minted_id(scope));
    if let Some(id) = &id {
        write::check_id(scope, id)?;
    }
    Ok((id, row))
}

/// Returns a new UUID, unless the master chooses ids.
fn minted_id(scope: &Scope) -> Option<String> {
    scope.dio.mints_ids().then(|| uuid::Uuid::now_v7().to_string())
}

/// Error for an idempotency key with a row whose id the master chooses: a repetition could not be recognized.
pub(super) fn no_key() -> ApiError {
    let detail = "Idempotency-Key is not supported for a row whose id the source chooses";
    ApiError::new(Code::InvalidHeader, detail).hint("give the row an id, or leave the key out")
}

/// Inserts a row at the master and returns the id that it chose.
pub(super) async fn at_master(scope: &Scope, row: &Record) -> Result<String, ApiError> {
    match tokio::time::timeout(write::LONGEST_INSERT, scope.rows.insert_at_master(row)).await {
        Ok(id) => id.map_err(|error| scope.refusal(error)),
        Err(_) => Err(ApiError::new(
            Code::UpstreamTimeout,
            "the source did not return the id of the new row in time; nothing is queued",
        )),
    }
}
