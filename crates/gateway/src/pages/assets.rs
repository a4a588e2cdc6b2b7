//! `GET /static/{file}`: the browser client and the files of the pages, which are part of the program, or of a folder.

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

/// The files, each with its type and text.
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
    "operations.js": SCRIPT,
    "overview.js": SCRIPT,
    "query.js": SCRIPT,
    "record.js": SCRIPT,
    "resource.js": SCRIPT,
    "row.js": SCRIPT,
    "session.js": SCRIPT,
    "webhooks.js": SCRIPT,
    "written.js": SCRIPT,
};

/// The files of Swagger UI that `/docs` needs, with their types.
const VIEWER: [(&str, &str); 2] = [("swagger-ui-bundle.js", SCRIPT), ("swagger-ui.css", STYLE)];
/// They are in the program as gzip, and unpacked when the first is asked for.
static UNPACKED: [OnceCell<Bytes>; VIEWER.len()] = [const { OnceCell::const_new() }; VIEWER.len()];

/// Those that are no part of the explorer: a folder that has none of the name does not hide them.
const COMMON: [&str; 3] = ["diorama.js", "docs.css", "docs.js"];

/// Gives a file. They hold nothing that is not public: nobody is asked for a token, which a page cannot send with them.
pub(crate) async fn asset(
    State(gateway): State<Arc<GatewayState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let path = uri.path().split_once("static/").map_or("", |(_, path)| path);
    let (kind, body) = match &gateway.explorer {
        Explorer::Folder(folder) => theirs(folder, path).await?,
        Explorer::Own | Explorer::Off => own(path, |_| true).await?,
    };
    let etag = response::text(format!("\"{:x}\"", xxh3_64(&body)));
    let mut response = match response::is_known(&headers, &etag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, kind)], body).into_response(),
    };
    response.headers_mut().insert(header::ETAG, etag);
    // The next version of the program has them under the same names.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if matches!(gateway.explorer, Explorer::Folder(_)) {
        // Whatever the folder has, it is not let do more than the page.
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    }
    Ok(response)
}

/// A file of the folder, else one that is no part of the explorer.
async fn theirs(folder: &Path, path: &str) -> Result<(&'static str, Bytes), ApiError> {
    let parts = path.split('/').map(decoded).collect::<Result<Vec<_>, _>>()?;
    let parts: Vec<&str> = parts.iter().map(|part| &**part).collect();
    match explorer::read(folder, &parts).await? {
        Some(body) => Ok((explorer::kind(path), body)),
        None => own(path, |name| COMMON.contains(&name)).await,
    }
}

/// A file of the program, if it `fits` or is one of the OpenAPI viewer's.
async fn own(file: &str, fits: impl Fn(&str) -> bool) -> Result<(&'static str, Bytes), ApiError> {
    let files = || FILES.iter().filter(|(name, ..)| fits(name));
    if let Some((_, kind, text)) = files().find(|(name, ..)| *name == file) {
        return Ok((kind, Bytes::from_static(text.as_bytes())));
    }
    let known = VIEWER.iter().zip(&UNPACKED).find(|((name, _), _)| *name == file);
    let Some(((_, kind), place)) = known else {
        let names = files().map(|(name, ..)| *name).chain(VIEWER.map(|(name, _)| name));
        let error = ApiError::new(Code::NotFound, format!("there is no file {file:?}"));
        return Err(error.hint(format!("files are {}", names.collect::<Vec<_>>().join(", "))));
    };
    let body = place.get_or_try_init(|| unpack(file)).await;
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
    async fn the_viewer_has_the_files_that_its_page_names() {
        for (name, start) in [("swagger-ui-bundle.js", "/*!"), ("swagger-ui.css", ".swagger-ui")] {
            let (_, body) = own(name, |_| false).await.unwrap();
            assert!(body.len() > 100_000 && body.starts_with(start.as_bytes()), "{:?}", &body[..20]);
        }
    }
}
