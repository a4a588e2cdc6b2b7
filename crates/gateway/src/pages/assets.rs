//! `GET /static/{file}`: the browser client and the files of the pages, from the program or from a folder.

use std::path::Path;
use std::sync::Arc;

use async_compression::tokio::write::GzipDecoder;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::OnceCell;
use xxhash_rust::xxh3::xxh3_64;

use crate::http::extract::decoded;
use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::pages::explorer::{self, Explorer};
use crate::pages::index::POLICY;
use crate::state::GatewayState;

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! files {
    ($($name:literal: $kind:ident),* $(,)?) => {
        &[$(($name, $kind, include_str!(concat!("../../../../static/", $name)))),*]
    };
}

/// Files of the program, each with its name, type and text.
const FILES: &[(&str, &str, &str)] = files! {
    "cells.js": SCRIPT,
    "diorama.js": SCRIPT,
    "docs.css": STYLE,
    "docs.js": SCRIPT,
    "documents.js": SCRIPT,
    "dom.js": SCRIPT,
    "events.js": SCRIPT,
    "explorer.css": STYLE,
    "explorer.js": SCRIPT,
    "field.js": SCRIPT,
    "grid.js": SCRIPT,
    "json.js": SCRIPT,
    "notify.js": SCRIPT,
    "operations.js": SCRIPT,
    "overview.js": SCRIPT,
    "query.js": SCRIPT,
    "record.js": SCRIPT,
    "related.js": SCRIPT,
    "resource.js": SCRIPT,
    "row.js": SCRIPT,
    "session.js": SCRIPT,
    "sign-in.js": SCRIPT,
    "webhooks.js": SCRIPT,
    "written.js": SCRIPT,
};

/// Files of Swagger UI that `/docs` needs, with their types.
const VIEWER: [(&str, &str); 2] = [("swagger-ui-bundle.js", SCRIPT), ("swagger-ui.css", STYLE)];
/// Contents of the files of [`VIEWER`]. The program contains them as gzip; each is decompressed at its first use.
static UNPACKED: [OnceCell<Bytes>; VIEWER.len()] = [const { OnceCell::const_new() }; VIEWER.len()];

/// Files that are not part of the explorer. They are served also in place of a missing file of a folder.
const COMMON: [&str; 3] = ["diorama.js", "docs.css", "docs.js"];

/// Sends a file. All files are public and need no token, because a page cannot send one with such requests.
pub(crate) async fn asset(
    State(gateway): State<Arc<GatewayState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let path = uri.path().split_once("static/").map_or("", |(_, path)| path);
    let (kind, body) = match &gateway.explorer {
        Explorer::Folder(folder) => folder_file(folder, path).await?,
        Explorer::Own | Explorer::Off => program_file(path, |_| true).await?,
    };
    let etag = response::text(format!("\"{:x}\"", xxh3_64(&body)));
    let mut response = match response::is_known(&headers, &etag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, kind)], body).into_response(),
    };
    response.headers_mut().insert(header::ETAG, etag);
    // The next version of the program has other files under the same names.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if matches!(gateway.explorer, Explorer::Folder(_)) {
        // Files of the folder have the same policy as the page.
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    }
    Ok(response)
}

/// Reads a file of the folder, or else one of the program that is not part of the explorer.
async fn folder_file(folder: &Path, path: &str) -> Result<(&'static str, Bytes), ApiError> {
    let parts = path.split('/').map(decoded).collect::<Result<Vec<_>, _>>()?;
    let parts: Vec<&str> = parts.iter().map(|part| &**part).collect();
    match explorer::read(folder, &parts).await? {
        Some(body) => Ok((explorer::kind(path), body)),
        None => program_file(path, |name| COMMON.contains(&name)).await,
    }
}

/// Returns a file of the program whose name `fits`, or a file of Swagger UI.
async fn program_file(file: &str, fits: impl Fn(&str) -> bool) -> Result<(&'static str, Bytes), ApiError> {
    let files = || FILES.iter().filter(|(name, ..)| fits(name));
    if let Some((_, kind, text)) = files().find(|(name, ..)| *name == file) {
        return Ok((kind, Bytes::from_static(text.as_bytes())));
    }
    let viewer = VIEWER.iter().zip(&UNPACKED).find(|((name, _), _)| *name == file);
    let Some(((_, kind), cell)) = viewer else {
        let names = files().map(|(name, ..)| *name).chain(VIEWER.map(|(name, _)| name));
        let error = ApiError::new(Code::NotFound, format!("the file {file:?} does not exist"));
        return Err(error.hint(format!("the files are {}", names.collect::<Vec<_>>().join(", "))));
    };
    let body = cell.get_or_try_init(|| unpack(file)).await;
    body.cloned().map(|body| (*kind, body)).map_err(|error| ApiError::new(Code::Internal, error))
}

async fn unpack(file: &str) -> Result<Bytes, String> {
    let packed = utoipa_swagger_ui::serve(file, Arc::default()).map_err(|error| error.to_string())?;
    let packed = packed.ok_or_else(|| format!("Swagger UI has no file {file}"))?;
    let mut decoder = GzipDecoder::new(Vec::new());
    let done = async {
        decoder.write_all(&packed.bytes).await?;
        decoder.shutdown().await
    };
    done.await.map_err(|error| error.to_string())?;
    Ok(decoder.into_inner().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn swagger_ui_has_the_files_that_its_page_uses() {
        for (name, start) in [("swagger-ui-bundle.js", "/*!"), ("swagger-ui.css", ".swagger-ui")] {
            let (_, body) = program_file(name, |_| false).await.unwrap();
            assert!(body.len() > 100_000 && body.starts_with(start.as_bytes()), "{:?}", &body[..20]);
        }
    }
}
