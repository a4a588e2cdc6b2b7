//! Document that describes the gateway, in the form that is sent.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use xxhash_rust::xxh3::xxh3_64;

use crate::http::response;

/// Encoded document with its ETag.
#[derive(Clone, Debug, Default)]
pub struct Document {
    json: Bytes,
    etag: Option<HeaderValue>,
}

impl Document {
    pub(crate) fn new(mut json: String) -> Document {
        json.push('\n');
        let etag = response::text(format!("\"{:x}\"", xxh3_64(json.as_bytes())));
        Document { json: json.into(), etag: Some(etag) }
    }

    pub(crate) fn json(&self) -> Bytes {
        self.json.clone()
    }
}

pub(super) fn serve(document: &Document, headers: &HeaderMap) -> Response {
    let Document { json, etag } = document.clone();
    let etag = etag.unwrap_or(HeaderValue::from_static("\"\""));
    let mut response = match response::is_known(headers, &etag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
    };
    response.headers_mut().insert(header::ETAG, etag);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
