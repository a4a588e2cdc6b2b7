//! `GET /static/{file}`: the browser client and the explorer's files, which are part of the program.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use xxhash_rust::xxh3::xxh3_64;

use super::answer;
use super::extract::Segment;
use super::problem::{ApiError, Code};

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! files {
    ($($name:literal: $kind:ident),* $(,)?) => {
        &[$(($name, $kind, include_str!(concat!("../../static/", $name)))),*]
    };
}

/// The files, each with its type and text.
const FILES: &[(&str, &str, &str)] = files! {
    "diorama.js": SCRIPT,
    "dom.js": SCRIPT,
    "events.js": SCRIPT,
    "explorer.css": STYLE,
    "explorer.js": SCRIPT,
    "grid.js": SCRIPT,
    "operations.js": SCRIPT,
    "overview.js": SCRIPT,
    "query.js": SCRIPT,
    "record.js": SCRIPT,
    "resource.js": SCRIPT,
    "session.js": SCRIPT,
    "webhooks.js": SCRIPT,
};

/// Gives a file. They hold nothing that is not public: nobody is asked for a token, which a page cannot send with them.
pub(super) async fn asset(Segment(file): Segment<1>, headers: HeaderMap) -> Result<Response, ApiError> {
    let Some((_, kind, text)) = FILES.iter().find(|(name, ..)| *name == file) else {
        let names: Vec<_> = FILES.iter().map(|(name, ..)| *name).collect();
        let error = ApiError::new(Code::NotFound, format!("there is no file {file:?}"));
        return Err(error.hint(format!("files are {}", names.join(", "))));
    };
    let etag = answer::text(format!("\"{:x}\"", xxh3_64(text.as_bytes())));
    let mut response = match answer::is_known(&headers, &etag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, *kind)], *text).into_response(),
    };
    response.headers_mut().insert(header::ETAG, etag);
    // The next version of the program has them under the same names.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}
