//! `POST /{dio}/_purge`: erases all stored data of rows, except at the source.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::audit::trail::{AuditTrail, hash, targets};
use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::rows::extract::PathScope;
use crate::rows::write::Change;
use crate::scope::Scope;
use diorama_core::dio::MOST_IDS;
use diorama_core::journal::AuditAction;
use diorama_core::record::CborValue;
use diorama_core::vista::Error;

/// Outcome of a purge.
#[derive(Serialize, ToSchema)]
pub(crate) struct Purged {
    position: String,
    /// Number of rows that were removed.
    rows: u64,
    /// Number of entries of the log that were rewritten.
    entries: u64,
    /// Number of ended operations whose values were erased.
    operations: u64,
    /// Number of kept deliveries that named one of the rows and were dropped.
    deliveries: u64,
    /// Ids that readers see again, because an event, a read or a write has brought the row back meanwhile.
    returned: Vec<String>,
    /// Ids that the source still has; null if it was not asked or did not answer.
    in_source: Option<Vec<String>>,
}

/// Erases the rows with the ids in the body.
pub(crate) async fn purge(
    PathScope(scope): PathScope,
    trail: AuditTrail,
    change: Change,
) -> Result<Response, ApiError> {
    let ids = ids(change.value()?)?;
    let target = targets(ids.iter().map(|id| hash(id)));
    trail.record(AuditAction::Purge, Some(scope.dio.name()), Some(target), erase(&scope, ids)).await
}

async fn erase(scope: &Scope, ids: Vec<String>) -> Result<Response, ApiError> {
    let purged = scope.dio.purge(ids).await.map_err(refusal)?;
    Ok(response::json(&Purged {
        position: purged.position.to_string(),
        rows: purged.rows,
        entries: purged.entries,
        operations: purged.operations,
        deliveries: purged.deliveries,
        returned: purged.returned,
        in_source: purged.in_source,
    }))
}

/// Parses the body, `{"ids": ["42", ..]}`.
fn ids(body: CborValue) -> Result<Vec<String>, ApiError> {
    let invalid = |detail: &str| {
        let error = ApiError::new(Code::ValidationFailed, detail.to_string());
        error.hint(format!("send {{\"ids\": [\"42\"]}} with 1 to {MOST_IDS} ids, each a string as in the row's URL"))
    };
    let CborValue::Map(members) = body else { return Err(invalid("the body is not an object")) };
    let mut members = members.into_iter();
    let (Some((CborValue::Text(name), CborValue::Array(ids))), None) = (members.next(), members.next()) else {
        return Err(invalid("the body must have one member \"ids\", an array"));
    };
    if name != "ids" {
        return Err(invalid("the body must have one member \"ids\", an array"));
    }
    if ids.is_empty() || ids.len() > MOST_IDS {
        return Err(invalid(&format!("the array \"ids\" has {} ids", ids.len())));
    }
    let text = |id| match id {
        CborValue::Text(id) => Ok(id),
        _ => Err(invalid("an id is not a string")),
    };
    ids.into_iter().map(text).collect()
}

fn refusal(error: Error) -> ApiError {
    match error {
        Error::Conflict { .. } => ApiError::from(error).hint(
            "nothing was erased: wait until the write or the delivery is applied, or discard a parked write \
             (GET /operations?record=ID, DELETE /operations/ID), then repeat",
        ),
        Error::Unsupported { .. } => {
            ApiError::from(error).hint("nothing was erased: use a journal that supports the erasure of rows")
        }
        Error::Storage { ref detail, full: false } => {
            let detail = detail.clone();
            let error = ApiError::new(Code::StoreUnavailable, "the purge could not be completed");
            error.cause(detail).hint("repeat the purge; otherwise the next purge or start completes it")
        }
        other => other.into(),
    }
}
