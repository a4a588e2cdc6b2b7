//! Snapshot of a resource, from which one response is built, and its ETags.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::xxh3_64;

use crate::access::ViewId;
use crate::http::negotiate::Format;
use crate::http::response::HeaderBuilder;
use crate::rows::common_headers::{CommonHeaders, Kind};
use crate::rows::scoped_rows::ScopedRows;
use crate::scope::Scope;
use diorama_core::state::State;
use diorama_core::table::RowRef;

/// Consistent snapshot of a Dio, from which one response is built.
pub(crate) struct Snapshot {
    state: Arc<State>,
    common: Arc<CommonHeaders>,
    rows: ScopedRows,
}

impl Snapshot {
    /// Takes a snapshot of the Dio. Stale rows are refreshed in the background.
    pub(crate) fn of(scope: &Scope) -> Snapshot {
        let freshness = scope.dio.freshness();
        if freshness.stale {
            scope.dio.refresh_if_stale();
        }
        let state = scope.rows.state();
        let known = scope.common_headers.load_full().filter(|common| common.is_of(&state, &freshness));
        let common = known.unwrap_or_else(|| {
            let ttl = scope.dio.cache_ttl().map(|ttl| ttl.as_secs());
            let common = Arc::new(CommonHeaders::of(&state, &freshness, ttl));
            scope.common_headers.store(Some(Arc::clone(&common)));
            common
        });
        Snapshot { state, common, rows: scope.rows.clone() }
    }

    /// Returns the row under `id`, if it is stored and in the scope.
    pub(crate) fn row(&self, id: &str) -> Option<RowRef<'_>> {
        self.state.get(id).filter(|row| self.rows.sees_row(row))
    }

    /// Returns all rows, in or out of the scope. Use it only for slots that a query of the scope selected.
    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Returns the ETag of a list in this scope; it changes with any change of any row.
    pub(crate) fn list_etag(&self, query: &[u8], format: Format) -> HeaderValue {
        let mut line = HeaderBuilder::with_capacity(80);
        line.put("\"").put(&**self.state.epoch()).put(".").number(self.state.rows_seq()).put("-").hex(xxh3_64(query));
        if self.rows.id() != ViewId::default() {
            let (high, low) = self.rows.id().halves();
            line.put("-").hex(high).hex(low);
        }
        line.put(format.suffix()).put("\"");
        line.value()
    }

    /// Returns the ETag of one row, as projected by `query`.
    pub(crate) fn record_etag(&self, row: &RowRef<'_>, query: &str, format: Format) -> HeaderValue {
        let mut hash = [0; 24];
        let length = URL_SAFE_NO_PAD.encode_slice(self.rows.version(row).to_be_bytes(), &mut hash).unwrap_or_default();
        let mut line = HeaderBuilder::with_capacity(48);
        line.put("\"").put(&hash[..length]);
        if !query.is_empty() {
            line.put("-").hex(xxh3_64(query.as_bytes()));
        }
        line.put(format.suffix()).put("\"");
        line.value()
    }

    /// Builds a 200 response with `body`, which is one row.
    pub(crate) fn ok(&self, etag: HeaderValue, format: Format, body: impl Into<Body>) -> Response {
        self.answer(Kind::Row, etag, format, body.into())
    }

    /// Builds a 200 response with rows. The headers `Content-Range`, `X-Total-Count` and `Link` are empty: set or remove them.
    pub(crate) fn ok_list(&self, etag: HeaderValue, format: Format, body: impl Into<Body>) -> Response {
        self.answer(Kind::List, etag, format, body.into())
    }

    /// Builds a 304 response: the client's version is current.
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
