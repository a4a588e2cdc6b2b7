//! What readers are told beside the rows: position, age, version. And the answer for who has that version already.

use std::sync::{Arc, Weak};

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::xxh3_64;

use crate::http::negotiate::Format;
use crate::http::pipeline::REQUEST_ID;
use crate::state::Resource;
use diorama_core::dio::{Freshness, Position};
use diorama_core::state::State;
use diorama_core::table::RowRef;

pub(crate) const POSITION: HeaderName = HeaderName::from_static("dio-position");
pub(crate) const OPERATION: HeaderName = HeaderName::from_static("dio-operation");
pub(crate) const DURABLE: HeaderName = HeaderName::from_static("dio-durable");
pub(crate) const TOTAL: HeaderName = HeaderName::from_static("x-total-count");
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
pub(crate) const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What an answer is, which decides the headers that it has.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Row,
    List,
    NotModified,
}

/// The headers that all answers from one State have within a second, made once. Those that are each answer's own stand in it
/// empty: to fill one costs half of adding it.
#[derive(Debug)]
pub(crate) struct CommonHeaders {
    /// Of which State: nothing else can be where one was, as long as this points there.
    state: Weak<State>,
    freshness: (Option<u64>, bool, bool),
    kinds: [HeaderMap; 3],
}

impl CommonHeaders {
    fn of(state: &Arc<State>, freshness: &Freshness, ttl: Option<u64>) -> CommonHeaders {
        let kinds = [Kind::Row, Kind::List, Kind::NotModified].map(|kind| headers(kind, state, freshness, ttl));
        CommonHeaders { state: Arc::downgrade(state), freshness: seen(freshness), kinds }
    }

    fn is_of(&self, state: &Arc<State>, freshness: &Freshness) -> bool {
        std::ptr::eq(self.state.as_ptr(), Arc::as_ptr(state)) && self.freshness == seen(freshness)
    }
}

fn seen(freshness: &Freshness) -> (Option<u64>, bool, bool) {
    (freshness.age.map(|age| age.as_secs()), freshness.stale, freshness.refresh_failed)
}

fn headers(kind: Kind, state: &State, freshness: &Freshness, ttl: Option<u64>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(MOST_HEADERS);
    let empty = HeaderValue::from_static("");
    if !matches!(kind, Kind::NotModified) {
        headers.insert(header::CONTENT_TYPE, Format::Json.content_type());
    }
    headers.insert(header::ETAG, empty.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(POSITION, text([state.epoch(), ":", &state.seq().to_string()].concat()));
    if let Some(age) = freshness.age {
        headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    }
    headers.insert(CACHE_STATUS, cache_status(freshness, ttl));
    if matches!(kind, Kind::List) {
        for name in [header::CONTENT_RANGE, TOTAL, header::LINK] {
            headers.insert(name, empty.clone());
        }
    }
    headers.insert(REQUEST_ID, empty);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
}

fn cache_status(freshness: &Freshness, ttl: Option<u64>) -> HeaderValue {
    let detail = match (freshness.refresh_failed, freshness.stale) {
        (true, _) => "; detail=refresh-failed",
        (false, true) => "; detail=stale",
        (false, false) => "",
    };
    match (ttl, freshness.age) {
        (Some(ttl), Some(age)) => {
            let left = i128::from(ttl) - i128::from(age.as_secs());
            text(format!("diorama; hit; ttl={left}{detail}"))
        }
        _ => text(format!("diorama; hit{detail}")),
    }
}

/// Headers of one answer to a reader, with those that the server adds: room for them is made once.
const MOST_HEADERS: usize = 24;

/// One consistent look at a Dio, from which one answer is made.
pub(crate) struct Snapshot {
    pub(crate) state: Arc<State>,
    common: Arc<CommonHeaders>,
}

impl Snapshot {
    /// The Dio as it is now. Rows older than they should be are refreshed in the background.
    pub(crate) fn of(resource: &Resource) -> Snapshot {
        let freshness = resource.dio.freshness();
        if freshness.stale {
            resource.dio.refresh_if_stale();
        }
        let state = resource.dio.state();
        let known = resource.common_headers.load_full().filter(|common| common.is_of(&state, &freshness));
        let common = known.unwrap_or_else(|| {
            let ttl = resource.dio.cache_ttl().map(|ttl| ttl.as_secs());
            let common = Arc::new(CommonHeaders::of(&state, &freshness, ttl));
            resource.common_headers.store(Some(Arc::clone(&common)));
            common
        });
        Snapshot { state, common }
    }

    /// The version of a list: any change of any row makes another.
    pub(crate) fn list_etag(&self, query: &[u8], format: Format) -> HeaderValue {
        let mut line = HeaderBuilder::with_capacity(80);
        line.put("\"").put(&**self.state.epoch()).put(".").number(self.state.rows_seq()).put("-").hex(xxh3_64(query));
        line.put(format.suffix()).put("\"");
        line.value()
    }

    /// The version of one row, shown by `query`.
    pub(crate) fn record_etag(row: &RowRef<'_>, query: &str, format: Format) -> HeaderValue {
        let mut hash = [0; 24];
        let length = URL_SAFE_NO_PAD.encode_slice(row.hash().to_be_bytes(), &mut hash).unwrap_or_default();
        let mut line = HeaderBuilder::with_capacity(48);
        line.put("\"").put(&hash[..length]);
        if !query.is_empty() {
            line.put("-").hex(xxh3_64(query.as_bytes()));
        }
        line.put(format.suffix()).put("\"");
        line.value()
    }

    /// 200 with `body`, which is one row or what stands for one.
    pub(crate) fn ok(&self, etag: HeaderValue, format: Format, body: impl Into<Body>) -> Response {
        self.answer(Kind::Row, etag, format, body.into())
    }

    /// 200 with rows. The headers `Content-Range`, `X-Total-Count` and `Link` are there and empty: fill them, or take them out.
    pub(crate) fn ok_list(&self, etag: HeaderValue, format: Format, body: impl Into<Body>) -> Response {
        self.answer(Kind::List, etag, format, body.into())
    }

    /// 304: what the client has is what there is.
    pub(crate) fn not_modified(&self, etag: HeaderValue) -> Response {
        let mut response = self.answer(Kind::NotModified, etag, Format::Json, Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    }

    fn answer(&self, kind: Kind, etag: HeaderValue, format: Format, body: Body) -> Response {
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        *headers = self.common.kinds[kind as usize].clone();
        headers.insert(header::ETAG, etag);
        if format != Format::Json {
            headers.insert(header::CONTENT_TYPE, format.content_type());
        }
        response
    }
}

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

/// 200 with a document.
pub(crate) fn json(body: &serde_json::Value) -> Response {
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
            let mut line = HeaderBuilder::with_capacity(0);
            line.put("a").number(number).put("-").hex(number);
            assert_eq!(line.value(), format!("a{number}-{number:x}"));
        }
    }
}
