//! Headers and bodies of answers.

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;

use crate::http::negotiate::Format;
use diorama_core::dio::Position;

pub(crate) const POSITION: HeaderName = HeaderName::from_static("dio-position");
pub(crate) const OPERATION: HeaderName = HeaderName::from_static("dio-operation");
pub(crate) const DURABLE: HeaderName = HeaderName::from_static("dio-durable");
pub(crate) const TOTAL: HeaderName = HeaderName::from_static("x-total-count");
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
pub(crate) const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Returns true if `If-None-Match` lists this tag, by weak comparison (RFC 9110). Only a client that has got the answer knows its tag,
/// so the request is known to be valid.
pub(crate) fn is_named(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|value| value == etag || tags(value).any(|tag| tag == etag.as_bytes()))
}

/// Returns true if [`is_named`] does, or if `If-None-Match` is `*`, which a request that is not valid may have too.
pub(crate) fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    is_named(headers, etag) || headers.get_all(header::IF_NONE_MATCH).iter().flat_map(tags).any(|tag| tag == b"*")
}

/// Splits a value of `If-None-Match` into its tags, without the prefix `W/`, which a weak comparison ignores.
pub(crate) fn tags(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let tags = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tags.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
}

/// Returns a position as a header value.
pub(crate) fn position(position: &Position) -> HeaderValue {
    text(position.to_string())
}

/// Returns `text` as a header value; an empty one if `text` has characters that a header cannot contain.
pub(crate) fn text(text: impl Into<String>) -> HeaderValue {
    let text = text.into();
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}

/// Builder of a header value that avoids `fmt`, which costs more than reading a row.
#[derive(Debug)]
pub(crate) struct HeaderBuilder(Vec<u8>);

impl HeaderBuilder {
    pub(crate) fn with_capacity(bytes: usize) -> HeaderBuilder {
        HeaderBuilder(Vec::with_capacity(bytes))
    }

    pub(crate) fn put(&mut self, text: impl AsRef<[u8]>) -> &mut HeaderBuilder {
        self.0.extend_from_slice(text.as_ref());
        self
    }

    /// Appends a number in decimal.
    pub(crate) fn number(&mut self, number: u64) -> &mut HeaderBuilder {
        self.in_base::<10>(number)
    }

    /// Appends a number in lower-case hexadecimal.
    pub(crate) fn hex(&mut self, number: u64) -> &mut HeaderBuilder {
        self.in_base::<16>(number)
    }

    fn in_base<const BASE: u64>(&mut self, mut number: u64) -> &mut HeaderBuilder {
        let (mut text, mut from) = ([b'0'; 20], 20);
        loop {
            from -= 1;
            text[from] = b"0123456789abcdef"[(number % BASE) as usize];
            number /= BASE;
            if number == 0 {
                self.0.extend_from_slice(&text[from..]);
                return self;
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value, as [`text`] does.
    pub(crate) fn value(self) -> HeaderValue {
        HeaderValue::from_maybe_shared(bytes::Bytes::from(self.0)).unwrap_or(HeaderValue::from_static(""))
    }
}

impl AsRef<[u8]> for HeaderBuilder {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Returns `body` as JSON. Its members are in alphabetical order, whatever the order of the fields.
pub(crate) fn document(body: &impl Serialize) -> Value {
    serde_json::to_value(body).unwrap_or_default()
}

/// Returns an answer 200 with `body` as JSON.
pub(crate) fn json(body: &impl Serialize) -> Response {
    let mut response = Response::new(Body::from(document(body).to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, Format::Json.content_type());
    response
}

/// Formats Unix milliseconds as an RFC 3339 timestamp; `None` if they are out of range.
pub(crate) fn moment(milliseconds: u64) -> Option<String> {
    let milliseconds = i64::try_from(milliseconds).ok()?;
    Some(jiff::Timestamp::from_millisecond(milliseconds).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_as_by_fmt() {
        for number in [0, 7, 10, 255, 1_000_007, u64::MAX] {
            let mut builder = HeaderBuilder::with_capacity(0);
            builder.put("a").number(number).put("-").hex(number);
            assert_eq!(builder.value(), format!("a{number}-{number:x}"));
        }
    }
}
