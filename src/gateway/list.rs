//! `GET /{dio}`: rows by filter, order and page.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{OriginalUri, Request};
use axum::http::{HeaderValue, header};
use axum::response::Response;

use xxhash_rust::xxh3::xxh3_64;

use super::answer::{self, Digits, TOTAL, View};
use super::explain;
use super::export;
use super::extract::On;
use super::format::Writer;
use super::negotiate::{self, Format};
use super::params::{self, ListQuery, ParamOptions};
use super::problem::{ApiError, Code};
use super::state::Mounted;
use crate::hot::plan::{Picked, cursor, natural_start};
use crate::record::Rows;
use crate::vista::Query;

/// Lists rows.
pub(super) async fn list(On(at): On, request: Request) -> Result<Response, ApiError> {
    let (raw, headers) = (request.uri().query().unwrap_or_default(), request.headers());
    let format = negotiate::of_list(headers)?;
    let view = View::of(&at.dio);
    let etag = view.list_etag(raw.as_bytes(), format);
    // Of a part, the master may have changed without our knowing.
    if at.dio.0.core.is_complete() && answer::is_named(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let options = ParamOptions { max_limit: at.options.max_limit, extra: &[explain::EXPLAIN] };
    let mut asked = params::parse(raw, &at.schema, &options)?;
    if asked.query.limit.is_none() && !format.is_streamed() {
        asked.query.limit = Some(at.options.default_limit);
    }
    if explain::is_asked(&asked)? {
        return explain::explain(&at, &view, &asked).await;
    }
    let mut found = find(&at, &view, &asked.query, format).await?;
    let etag = found.etag.take().unwrap_or(etag);
    if answer::is_known(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    // Links begin where the client began, outside of all that the gateway is nested in.
    let path = request.extensions().get::<OriginalUri>().map_or(request.uri(), |uri| &uri.0).path();
    let links = match (asked.query.limit, &asked.query.after) {
        (None, _) => None,
        (Some(limit), None) => Some(found.links(path, &asked, limit)),
        (Some(limit), Some(_)) => {
            let and = if asked.without_paging.is_empty() { "" } else { "&" };
            Some(found.cursor_links(&format!("{path}?{}{and}limit={limit}&", asked.without_paging)))
        }
    };
    let mut response = found.respond(&view, etag, format);
    if let Some(links) = links {
        response.headers_mut().insert(header::LINK, links);
    }
    Ok(response)
}

/// Rows that room is made for before they are seen.
const MOST_AT_ONCE: usize = 1_000;

/// What a query found, encoded.
pub(super) struct Found {
    body: Body,
    offset: u64,
    shown: u64,
    /// How many match in all, if that is known.
    total: Option<u64>,
    /// The place to go on from, if the query began at one and has not come to the end.
    next: Option<String>,
    /// Its own version, if it is not that of our rows.
    pub(super) etag: Option<HeaderValue>,
}

/// Characters of a cursor, at most: it has to fit into a URL.
const MOST_CURSOR: usize = 4_096;

/// The rows that `query` asks for, in `format`.
pub(super) async fn find(at: &Mounted, view: &View, query: &Query, format: Format) -> Result<Found, ApiError> {
    let writer = Writer::new(format, query, &at.schema)?;
    if !at.dio.0.core.is_complete() {
        return at_master(at, query, &writer, format).await;
    }
    let table = view.state.table();
    let natural = query.is_unfiltered() && query.order.is_empty();
    if let (true, true, Format::Json, Some(limit)) = (natural, query.select.is_empty(), format, query.limit) {
        let offset = natural_start(table, query).saturating_add(as_len(query.offset));
        let mut body = Vec::with_capacity(256 * as_len(limit).min(MOST_AT_ONCE));
        body.push(b'[');
        let shown = table.natural_page_into(offset, as_len(limit), &mut body);
        body.push(b']');
        let end = offset.saturating_add(shown);
        let last = table.natural(end.saturating_sub(1)).next().filter(|_| shown > 0 && end < table.len());
        let next = last.filter(|_| query.after.is_some()).map(|row| cursor(&row, query, &at.schema).to_string());
        let total = Some(table.len() as u64);
        return Ok(Found { body: body.into(), offset: offset as u64, shown: shown as u64, total, next, etag: None });
    }
    let (picked, _) = at.dio.0.core.pick(&view.state, query, &at.schema).await?;
    let next = query.after.as_ref().and_then(|_| picked.next(table, query, &at.schema)).map(|next| next.to_string());
    if next.as_ref().is_some_and(|next| next.len() > MOST_CURSOR) {
        return Err(ApiError::new(Code::InvalidParameter, "after: a value that the rows are ordered by is too long")
            .hint("order by other columns, or page with offset"));
    }
    let Picked { slots, before, total, .. } = picked;
    let shown = slots.len() as u64;
    let body = export::body(&at.dio, Arc::clone(&view.state), slots, writer, (query, &at.schema)).await?;
    Ok(Found { body, offset: before, shown, total: Some(total), next, etag: None })
}

/// Rows of a Dio that holds a part of them only: the master answers, if it can.
async fn at_master(at: &Mounted, query: &Query, writer: &Writer, format: Format) -> Result<Found, ApiError> {
    let vista = at.dio.vista();
    let rows: Rows = vista.shell().list(query).await?;
    let total = match vista.capabilities().can_count {
        true => Some(vista.shell().count(query).await?),
        false => None,
    };
    let body = writer.all(&rows);
    let hash = Digits::hex(xxh3_64(&body));
    let etag = Some(answer::text(["\"m-", &hash, format.suffix(), "\""].concat()));
    Ok(Found { body: body.into(), offset: query.offset, shown: rows.len() as u64, total, next: None, etag })
}

impl Found {
    /// What was found in one piece.
    pub(super) fn new(body: impl Into<Body>, offset: u64, shown: u64, total: u64) -> Found {
        Found { body: body.into(), offset, shown, total: Some(total), next: None, etag: None }
    }

    /// 200 with the rows and their numbers.
    pub(super) fn respond(self, view: &View, etag: HeaderValue, format: Format) -> Response {
        let mut response = view.ok(etag, format, self.body);
        let total = self.total.map(Digits::of);
        let total = total.as_ref().map_or("*", |total| total);
        let range = match self.shown {
            0 => ["*/", total].concat(),
            shown => [&Digits::of(self.offset), "-", &Digits::of(self.offset + shown - 1), "/", total].concat(),
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_RANGE, answer::text(range));
        if let Some(total) = self.total {
            headers.insert(TOTAL, HeaderValue::from(total));
        }
        response
    }

    /// Where the first page and the next are, in steps from row to row; `url` ends where the cursor is to stand.
    pub(super) fn cursor_links(&self, url: &str) -> HeaderValue {
        let first = format!("<{url}after=>; rel=\"first\"");
        answer::text(match &self.next {
            Some(next) => format!("{first}, <{url}after={next}>; rel=\"next\""),
            None => first,
        })
    }

    /// Where the pages around this one are.
    fn links(&self, path: &str, asked: &ListQuery, limit: u64) -> HeaderValue {
        let (kept, size) = (asked.without_paging.as_str(), Digits::of(limit));
        let mut links = String::with_capacity(4 * (path.len() + kept.len() + 64));
        let mut link = |offset: u64, rel: &str| {
            let comma = if links.is_empty() { "<" } else { ", <" };
            let and = if kept.is_empty() { "" } else { "&" };
            links.extend([comma, path, "?", kept, and, "limit=", &size]);
            if offset > 0 {
                links.extend(["&offset=", &Digits::of(offset)]);
            }
            links.extend([">; rel=\"", rel, "\""]);
        };
        link(0, "first");
        if self.offset > 0 {
            link(self.offset.saturating_sub(limit), "prev");
        }
        let end = self.offset.saturating_add(self.shown);
        if limit > 0 && self.shown > 0 && self.total.is_none_or(|total| end < total) {
            link(end, "next");
        }
        if let (Some(total), true) = (self.total, limit > 0) {
            link(total.saturating_sub(1) / limit * limit, "last");
        }
        answer::text(links)
    }
}

fn as_len(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
