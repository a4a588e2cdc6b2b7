//! Headers that all responses from one snapshot share: position, age, cache status.

use std::sync::{Arc, Weak};

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::http::negotiate::Format;
use crate::http::request_id::REQUEST_ID;
use crate::http::response::{POSITION, TOTAL, text};
use diorama_core::dio::Freshness;
use diorama_core::state::State;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Kind of a response, which determines its headers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Row,
    List,
    NotModified,
}

/// Headers that all responses from one [`State`] share within a second, built once.
///
/// Headers with a value of their own in each response are present with an empty value: replacing one costs half of adding it.
#[derive(Debug)]
pub(crate) struct CommonHeaders {
    /// The State. The weak reference keeps its allocation, so no other State can have the same address.
    state: Weak<State>,
    freshness: (Option<u64>, bool, bool),
    pub(super) kinds: [HeaderMap; 3],
}

impl CommonHeaders {
    pub(super) fn of(state: &Arc<State>, freshness: &Freshness, ttl: Option<u64>) -> CommonHeaders {
        let kinds = [Kind::Row, Kind::List, Kind::NotModified].map(|kind| headers(kind, state, freshness, ttl));
        CommonHeaders { state: Arc::downgrade(state), freshness: freshness_key(freshness), kinds }
    }

    pub(super) fn is_of(&self, state: &Arc<State>, freshness: &Freshness) -> bool {
        std::ptr::eq(self.state.as_ptr(), Arc::as_ptr(state)) && self.freshness == freshness_key(freshness)
    }
}

fn freshness_key(freshness: &Freshness) -> (Option<u64>, bool, bool) {
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

/// Initial capacity of the header map: the headers of a read response, including those that the server adds.
const MOST_HEADERS: usize = 24;
