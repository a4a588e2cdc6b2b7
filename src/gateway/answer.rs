//! What readers are told beside the rows: position, age, version. And the answer for who has that version already.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::xxh3_64;

use super::negotiate::Format;
use crate::dio::{Dio, Glance, Position};
use crate::hot::{RowRef, State};

pub(super) const POSITION: HeaderName = HeaderName::from_static("dio-position");
pub(super) const OPERATION: HeaderName = HeaderName::from_static("dio-operation");
pub(super) const DURABLE: HeaderName = HeaderName::from_static("dio-durable");
pub(super) const TOTAL: HeaderName = HeaderName::from_static("x-total-count");
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
pub(super) const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Headers of one answer to a reader, with those that the server adds: room for them is made once.
const MOST_HEADERS: usize = 24;

/// One consistent look at a Dio, from which one answer is made.
pub(super) struct View {
    pub(super) state: Arc<State>,
    glance: Glance,
    ttl: Option<u64>,
}

impl View {
    /// The Dio as it is now. Rows older than they should be are refreshed in the background.
    pub(super) fn of(dio: &Dio) -> View {
        let core = &dio.0.core;
        let glance = core.glance();
        if glance.stale {
            dio.0.refresh_if_stale();
        }
        View { state: core.state(), glance, ttl: core.settings.cache_ttl.map(|ttl| ttl.as_secs()) }
    }

    /// The version of a list: any change of any row makes another.
    pub(super) fn list_etag(&self, query: &[u8], format: Format) -> HeaderValue {
        let (seq, query) = (Digits::of(self.state.rows_seq()), Digits::hex(xxh3_64(query)));
        text(["\"", self.state.epoch(), ".", &seq, "-", &query, format.suffix(), "\""].concat())
    }

    /// The version of one row, shown by `query`.
    pub(super) fn record_etag(row: &RowRef<'_>, query: &str, format: Format) -> HeaderValue {
        let mut hash = [0; 24];
        let length = URL_SAFE_NO_PAD.encode_slice(row.hash().to_be_bytes(), &mut hash).unwrap_or_default();
        let hash = std::str::from_utf8(&hash[..length]).unwrap_or_default();
        let view = (!query.is_empty()).then(|| Digits::hex(xxh3_64(query.as_bytes())));
        let (dash, view) = view.as_ref().map_or(("", ""), |view| ("-", view));
        text(["\"", hash, dash, view, format.suffix(), "\""].concat())
    }

    /// 200 with `body`.
    pub(super) fn ok(&self, etag: HeaderValue, format: Format, body: impl Into<Body>) -> Response {
        let mut response = Response::new(body.into());
        *response.headers_mut() = HeaderMap::with_capacity(MOST_HEADERS);
        response.headers_mut().insert(header::CONTENT_TYPE, format.content_type());
        self.describe(etag, response.headers_mut());
        response
    }

    /// 304: what the client has is what there is.
    pub(super) fn not_modified(&self, etag: HeaderValue) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.headers_mut() = HeaderMap::with_capacity(MOST_HEADERS);
        self.describe(etag, response.headers_mut());
        response
    }

    fn describe(&self, etag: HeaderValue, headers: &mut HeaderMap) {
        headers.insert(header::ETAG, etag);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        headers.insert(POSITION, text([self.state.epoch(), ":", &Digits::of(self.state.seq())].concat()));
        if let Some(age) = self.glance.age {
            headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
        }
        headers.insert(CACHE_STATUS, self.cache_status());
    }

    fn cache_status(&self) -> HeaderValue {
        let detail = match (self.glance.refresh_failed, self.glance.stale) {
            (true, _) => "; detail=refresh-failed",
            (false, true) => "; detail=stale",
            (false, false) => "",
        };
        match (self.ttl, self.glance.age) {
            (Some(ttl), Some(age)) => {
                let left = i128::from(ttl) - i128::from(age.as_secs());
                text(format!("diorama; hit; ttl={left}{detail}"))
            }
            _ if detail.is_empty() => HeaderValue::from_static("diorama; hit"),
            _ => text(format!("diorama; hit{detail}")),
        }
    }
}

/// Whether `If-None-Match` names this version (compared weakly, as RFC 9110 says). Only who was given the answer knows its tag: the
/// request is one that can be answered.
pub(super) fn is_named(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|value| value == etag || tags(value).any(|tag| tag == etag.as_bytes()))
}

/// [`is_named`], or any version will do (`*`), which may be said of a request that cannot be answered.
pub(super) fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    is_named(headers, etag) || headers.get_all(header::IF_NONE_MATCH).iter().flat_map(tags).any(|tag| tag == b"*")
}

/// The tags in a value of `If-None-Match`, without the mark of weak ones, which says nothing there.
pub(super) fn tags(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let tags = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tags.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
}

/// A position as a header.
pub(super) fn position(position: &Position) -> HeaderValue {
    text(position.to_string())
}

/// A header value made of our own characters; what a name from outside puts in it that no header can hold is left out.
pub(super) fn text(text: impl Into<String>) -> HeaderValue {
    let text = text.into();
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}

/// A number as text, made without the machinery of `fmt`, which costs more than a row.
pub(super) struct Digits {
    text: [u8; 20],
    from: usize,
}

impl Digits {
    /// In decimal.
    pub(super) fn of(number: u64) -> Digits {
        Digits::in_base(number, 10)
    }

    /// In lower-case hexadecimal.
    pub(super) fn hex(number: u64) -> Digits {
        Digits::in_base(number, 16)
    }

    fn in_base(mut number: u64, base: u64) -> Digits {
        let (mut text, mut from) = ([b'0'; 20], 20);
        loop {
            from -= 1;
            text[from] = b"0123456789abcdef"[(number % base) as usize];
            number /= base;
            if number == 0 {
                return Digits { text, from };
            }
        }
    }
}

impl std::ops::Deref for Digits {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.text[self.from..]).unwrap_or_default()
    }
}

/// 200 with a document.
pub(super) fn json(body: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, Format::Json.content_type());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_fmt() {
        for number in [0, 7, 10, 255, 1_000_007, u64::MAX] {
            assert_eq!(*Digits::of(number), number.to_string());
            assert_eq!(*Digits::hex(number), format!("{number:x}"));
        }
    }
}
