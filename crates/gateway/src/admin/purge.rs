//! `POST /{dio}/_purge`: everything that is kept of some rows goes, except at the source.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::rows::extract::PathScope;
use crate::rows::write::Change;
use diorama_core::dio::MOST_IDS;
use diorama_core::record::CborValue;
use diorama_core::vista::Error;

/// Outcome of a purge.
#[derive(Serialize, ToSchema)]
pub(crate) struct Purged {
    position: String,
    /// Rows that were removed from what readers see.
    rows: u64,
    /// Entries of the log that were rewritten.
    entries: u64,
    /// Settled writes whose values were erased.
    operations: u64,
    /// Kept deliveries that named one of the rows and were dropped.
    deliveries: u64,
    /// Ids that readers see again.
    returned: Vec<String>,
    /// Ids that the source still has; null if it was not asked or did not answer.
    in_source: Option<Vec<String>>,
}

/// Erases the rows whose ids the body has, and says what that did.
pub(crate) async fn purge(PathScope(scope): PathScope, change: Change) -> Result<Response, ApiError> {
    let purged = scope.dio.purge(ids(change.value()?)?).await.map_err(refused)?;
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

/// The ids in `{"ids": ["42", ..]}`.
fn ids(body: CborValue) -> Result<Vec<String>, ApiError> {
    let wrong = |detail: &str| {
        let error = ApiError::new(Code::ValidationFailed, detail.to_string());
        error.hint(format!("send {{\"ids\": [\"42\"]}} with 1 to {MOST_IDS} ids, each a text as in the row's URL"))
    };
    let CborValue::Map(members) = body else { return Err(wrong("the body is not an object")) };
    let mut members = members.into_iter();
    let (Some((CborValue::Text(name), CborValue::Array(ids))), None) = (members.next(), members.next()) else {
        return Err(wrong("the body does not have the one member \"ids\", a list"));
    };
    if name != "ids" {
        return Err(wrong("the body does not have the one member \"ids\", a list"));
    }
    if ids.is_empty() || ids.len() > MOST_IDS {
        return Err(wrong(&format!("there are {} ids", ids.len())));
    }
    let text = |id| match id {
        CborValue::Text(id) => Ok(id),
        _ => Err(wrong("an id is not a text")),
    };
    ids.into_iter().map(text).collect()
}

fn refused(error: Error) -> ApiError {
    match error {
        Error::Conflict { .. } => ApiError::from(error).hint(
            "nothing was erased: wait until the write or the delivery is applied, or settle it (GET /operations?record=ID; \
             DELETE /operations/ID discards a parked one), then ask again",
        ),
        Error::Unsupported { .. } => ApiError::from(error).hint("nothing was erased: the journal has to be one that can"),
        Error::Storage { ref detail, full: false } => {
            let detail = detail.clone();
            let error = ApiError::new(Code::StoreUnavailable, "the purge could not be finished now");
            error.cause(detail).hint("what has begun is finished by the next purge or the next start; ask again to be sure")
        }
        other => other.into(),
    }
}
