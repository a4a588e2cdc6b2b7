//! Headers and bodies that answers are made of.

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

/// Whether `If-None-Match` names this version (compared weakly, as RFC 9110 says). Only who was given the answer knows its tag: the
/// request is one that can be answered.
pub(crate) fn is_named(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|value| value == etag || tags(value).any(|tag| tag == etag.as_bytes()))
}

/// [`is_named`], or any version will do (`*`), which may be said of a request that cannot be answered.
pub(crate) fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    is_named(headers, etag) || headers.get_all(header::IF_NONE_MATCH).iter().flat_map(tags).any(|tag| tag == b"*")
}

/// The tags in a value of `If-None-Match`, without the mark of weak ones, which says nothing there.
pub(crate) fn tags(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let tags = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tags.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
}

/// A position as a header.
pub(crate) fn position(position: &Position) -> HeaderValue {
    text(position.to_string())
}

/// A header value made of our own characters; what a name from outside puts in it that no header can hold is left out.
pub(crate) fn text(text: impl Into<String>) -> HeaderValue {
    let text = text.into();
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}

/// A header's value being put together, without the machinery of `fmt`, which costs more than a row.
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

    /// In decimal.
    pub(crate) fn number(&mut self, number: u64) -> &mut HeaderBuilder {
        self.in_base::<10>(number)
    }

    /// In lower-case hexadecimal.
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

    /// As [`text`] has it.
    pub(crate) fn value(self) -> HeaderValue {
        HeaderValue::from_maybe_shared(bytes::Bytes::from(self.0)).unwrap_or(HeaderValue::from_static(""))
    }
}

impl AsRef<[u8]> for HeaderBuilder {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// `body` as JSON. Its members are in the order of the alphabet, whatever the order of the fields.
pub(crate) fn document(body: &impl Serialize) -> Value {
    serde_json::to_value(body).unwrap_or_default()
}

/// 200 with a document.
pub(crate) fn json(body: &impl Serialize) -> Response {
    let mut response = Response::new(Body::from(document(body).to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, Format::Json.content_type());
    response
}

/// Unix milliseconds as RFC 3339.
pub(crate) fn moment(milliseconds: u64) -> Option<String> {
    let milliseconds = i64::try_from(milliseconds).ok()?;
    Some(jiff::Timestamp::from_millisecond(milliseconds).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_fmt() {
        for number in [0, 7, 10, 255, 1_000_007, u64::MAX] {
            let mut line = HeaderBuilder::with_capacity(0);
            line.put("a").number(number).put("-").hex(number);
            assert_eq!(line.value(), format!("a{number}-{number:x}"));
        }
    }
}
