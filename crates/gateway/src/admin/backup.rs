//! `POST /_backup`: a consistent copy of cache and journal as a tar file, made while the server runs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use tokio::sync::OwnedSemaphorePermit;

use crate::access::{Principal, Verb};
use crate::admin::archive::Backup;
use crate::audit::trail::AuditTrail;
use crate::http::origin;
use crate::http::problem::{ApiError, Code};
use crate::scope::require_everywhere;
use crate::state::GatewayState;
use diorama_core::journal::AuditAction;

/// Sends a backup. Pages of other origins are refused, even allowed ones.
pub(crate) async fn backup(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    trail: AuditTrail,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    require_everywhere(&gateway, &principal, Verb::Admin)?;
    origin::check_own(&headers)?;
    let Some(backup) = &gateway.backup else {
        return Err(ApiError::new(Code::NotFound, "there is nothing to back up: rows and writes are in memory only"));
    };
    let Ok(turn) = Arc::clone(&backup.turn).try_acquire_owned() else {
        return Err(ApiError::new(Code::Busy, "another backup is in progress")
            .hint("one backup is made at a time: repeat when it has been sent"));
    };
    trail.record(AuditAction::Backup, None, None, make(backup, turn)).await
}

/// Makes the backup of `turn`.
async fn make(backup: &Backup, turn: OwnedSemaphorePermit) -> Result<Response, ApiError> {
    let archive = (backup.make)().await?;
    let pieces = archive.pieces.map(move |piece| {
        let _turn = &turn;
        piece
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(archive.length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
