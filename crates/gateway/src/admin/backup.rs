//! `POST /_backup`: cache and journal of one moment as a tar file, while everything goes on.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::Semaphore;

use crate::http::origin;
use crate::http::problem::{ApiError, Code};
use crate::state::GatewayState;
use diorama_core::vista::Result;

/// A backup that is ready to be sent.
pub struct Archive {
    /// Bytes of all pieces.
    pub length: u64,
    /// A tar file.
    pub pieces: BoxStream<'static, io::Result<Bytes>>,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("length", &self.length).finish_non_exhaustive()
    }
}

type Make = dyn Fn() -> BoxFuture<'static, Result<Archive>> + Send + Sync;

/// Makes backups, one at a time.
#[derive(Clone)]
pub struct Backup {
    make: Arc<Make>,
    turn: Arc<Semaphore>,
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup").finish_non_exhaustive()
    }
}

impl Backup {
    /// Backups as `make` makes them.
    pub fn new(make: impl Fn() -> BoxFuture<'static, Result<Archive>> + Send + Sync + 'static) -> Backup {
        Backup { make: Arc::new(make), turn: Arc::new(Semaphore::new(1)) }
    }
}

/// Sends a backup. No page of another origin gets one, whatever it may do otherwise.
pub(crate) async fn backup(State(gateway): State<Arc<GatewayState>>, headers: HeaderMap) -> Result<Response, ApiError> {
    origin::check_own(&headers)?;
    let Some(backup) = &gateway.backup else {
        return Err(ApiError::new(Code::NotFound, "rows and writes are in memory: there is nothing to back up"));
    };
    let Ok(turn) = Arc::clone(&backup.turn).try_acquire_owned() else {
        return Err(ApiError::new(Code::Busy, "another backup is under way")
            .hint("one is made at a time: come again when it has been sent"));
    };
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
