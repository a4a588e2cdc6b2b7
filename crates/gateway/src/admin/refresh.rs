//! `POST /{dio}/_refresh`: the master is read now.

use axum::extract::RawQuery;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::rows::extract::PathScope;
use diorama_core::vista::{Error, ErrorKind};

/// Outcome of a refresh.
#[derive(Serialize, ToSchema)]
pub(crate) struct Refreshed {
    #[schema(required)]
    position: Option<String>,
    inserted: u64,
    changed: u64,
    removed: u64,
    undecodable: u64,
    seconds: f64,
}

/// Refreshes, or joins the refresh under way, and says what changed.
pub(crate) async fn refresh(PathScope(scope): PathScope, RawQuery(raw): RawQuery) -> Result<Response, ApiError> {
    let refreshed = match raw.as_deref().unwrap_or_default() {
        "" | "allow_shrink=false" => scope.dio.refresh().await,
        "allow_shrink=true" => scope.dio.refresh_allowing_shrink().await,
        _ => {
            let error = ApiError::new(Code::UnknownParameter, "a refresh takes no such parameter");
            return Err(error.hint("there is one: allow_shrink=true, for a source that lost most of its rows"));
        }
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
        Error::Suspicious { .. } => ApiError::from(error)
            .hint("if the source really shrank: POST /{dio}/_refresh?allow_shrink=true, or allow_shrink = true in its settings"),
        // Whoever asks for a refresh is there to find out why it fails.
        Error::Source { message, kind, retry_after, .. } => {
            let (code, what) = match kind {
                ErrorKind::Unknown => (Code::UpstreamTimeout, "the source did not answer"),
                ErrorKind::Transient | ErrorKind::Permanent => (Code::RefreshFailed, "the source could not be read"),
            };
            ApiError::new(code, format!("{what}: {message}; the rows are as they were")).retry_after(retry_after)
        }
        other => other.into(),
    }
}
