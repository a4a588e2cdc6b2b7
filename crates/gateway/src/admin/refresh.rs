//! `POST /{dio}/_refresh`: reads the master now.

use axum::extract::RawQuery;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::audit::trail::AuditTrail;
use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::rows::extract::PathScope;
use crate::scope::Scope;
use diorama_core::journal::AuditAction;
use diorama_core::vista::{Error, ErrorKind};

/// Outcome of a refresh.
#[derive(Serialize, ToSchema)]
pub(crate) struct Refreshed {
    /// Position after the refresh.
    #[schema(required)]
    position: Option<String>,
    /// Number of new rows.
    inserted: u64,
    /// Number of changed rows.
    changed: u64,
    /// Number of removed rows.
    removed: u64,
    /// Number of rows of the source that could not be decoded.
    undecodable: u64,
    /// Duration of the refresh in seconds.
    seconds: f64,
}

/// Refreshes, or joins a refresh in progress, and returns the numbers of changes.
pub(crate) async fn refresh(
    PathScope(scope): PathScope,
    trail: AuditTrail,
    RawQuery(raw): RawQuery,
) -> Result<Response, ApiError> {
    let allow_shrink = match raw.as_deref().unwrap_or_default() {
        "" | "allow_shrink=false" => false,
        "allow_shrink=true" => true,
        _ => {
            let error = ApiError::new(Code::UnknownParameter, "the query has an unknown parameter");
            return Err(error.hint("the only parameter is allow_shrink=true, for a source that lost most of its rows"));
        }
    };
    let target = allow_shrink.then(|| "allow_shrink".to_string());
    trail.record(AuditAction::Refresh, Some(scope.dio.name()), target, read(&scope, allow_shrink)).await
}

async fn read(scope: &Scope, allow_shrink: bool) -> Result<Response, ApiError> {
    let refreshed = match allow_shrink {
        false => scope.dio.refresh().await,
        true => scope.dio.refresh_allowing_shrink().await,
    };
    let report = refreshed.map_err(failed)?;
    Ok(response::json(&Refreshed {
        position: report.position.map(|position| position.to_string()),
        inserted: report.inserted,
        changed: report.changed,
        removed: report.removed,
        undecodable: report.undecodable,
        seconds: report.took.as_secs_f64(),
    }))
}

fn failed(error: Error) -> ApiError {
    match error {
        Error::Suspicious { .. } => ApiError::from(error).hint(
            "if the list is correct: POST /{dio}/_refresh?allow_shrink=true, or allow_shrink = true in its settings",
        ),
        // The source's own message is sent, because the caller of a refresh has to find out why it fails.
        Error::Source { message, kind, retry_after, .. } => {
            let (code, failure) = match kind {
                ErrorKind::Unknown => (Code::UpstreamTimeout, "the source did not answer in time"),
                ErrorKind::Transient | ErrorKind::Permanent => (Code::RefreshFailed, "the source could not be read"),
            };
            ApiError::new(code, format!("{failure}: {message}; the rows are unchanged")).retry_after(retry_after)
        }
        other => other.into(),
    }
}
