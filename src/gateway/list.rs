//! `GET /{dio}`: rows by filter, order and page.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, Request};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;

use super::answer::{self, Digits, TOTAL, View};
use super::extract::On;
use super::format::Writer;
use super::negotiate::{self, Format};
use super::params::{self, ListQuery, ParamOptions};
use super::problem::{ApiError, Code};
use super::state::Mounted;
use crate::dio::{cost, pick};
use crate::hot::{Slot, State};
use crate::record::Rows;
use crate::vista::Query;

/// Lists rows.
pub(super) async fn list(On(at): On, request: Request) -> Result<Response, ApiError> {
    let (raw, headers) = (request.uri().query().unwrap_or_default(), request.headers());
    let format = negotiate::of_list(headers)?;
    let view = View::of(&at.dio);
    let etag = view.list_etag(raw.as_bytes(), format);
    if answer::is_known(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let mut asked = parse(raw, &at)?;
    if asked.query.limit.is_none() && !format.is_streamed() {
        asked.query.limit = Some(at.options.default_limit);
    }
    let found = find(&at, &view, &asked.query, format).await?;
    // Links begin where the client began, outside of all that the gateway is nested in.
    let path = request.extensions().get::<OriginalUri>().map_or(request.uri(), |uri| &uri.0).path();
    let links = asked.query.limit.map(|limit| found.links(path, &asked, limit));
    let mut response = found.respond(&view, etag, format);
    if let Some(links) = links {
        response.headers_mut().insert(header::LINK, links);
    }
    Ok(response)
}

/// The query string of a list.
pub(super) fn parse(raw: &str, at: &Mounted) -> Result<ListQuery, ApiError> {
    let options = ParamOptions { max_limit: at.options.max_limit, extra: &[] };
    let asked = params::parse(raw, &at.schema, &options)?;
    if asked.after.is_some() {
        return Err(ApiError::new(Code::InvalidParameter, "after: cursors are not served yet").hint("page with offset"));
    }
    Ok(asked)
}

/// Rows from which an answer is sent piece by piece.
const MOST_AT_ONCE: usize = 1_000;
/// Rows of one piece.
const PIECE: usize = 256;

/// What a query found, encoded.
pub(super) struct Found {
    body: Body,
    offset: u64,
    shown: u64,
    /// How many match in all, if that is known.
    total: Option<u64>,
}

/// The rows that `query` asks for, in `format`.
pub(super) async fn find(at: &Mounted, view: &View, query: &Query, format: Format) -> Result<Found, ApiError> {
    let writer = Writer::new(format, query, &at.schema)?;
    if !at.dio.0.core.is_complete() {
        return at_master(at, query, &writer).await;
    }
    let table = view.state.table();
    let natural = query.is_unfiltered() && query.order.is_empty();
    if let (true, true, Format::Json, Some(limit)) = (natural, query.select.is_empty(), format, query.limit) {
        let mut body = Vec::with_capacity(256 * as_len(limit).min(MOST_AT_ONCE));
        body.push(b'[');
        let shown = table.natural_page_into(as_len(query.offset), as_len(limit), &mut body) as u64;
        body.push(b']');
        return Ok(Found { body: body.into(), offset: query.offset, shown, total: Some(table.len() as u64) });
    }
    let (state, schema, asked) = (Arc::clone(&view.state), Arc::clone(&at.schema), query.clone());
    let picking = move || pick(state.table(), &asked, &schema);
    let (slots, total) = at.dio.0.core.heavy(cost(table, query), picking).await?;
    let shown = slots.len() as u64;
    let body = body(Arc::clone(&view.state), slots, writer);
    Ok(Found { body, offset: query.offset, shown, total: Some(total) })
}

/// Rows of a Dio that holds a part of them only: the master answers, if it can.
async fn at_master(at: &Mounted, query: &Query, writer: &Writer) -> Result<Found, ApiError> {
    let vista = at.dio.vista();
    let rows: Rows = vista.shell().list(query).await?;
    let total = match vista.capabilities().can_count {
        true => Some(vista.shell().count(query).await?),
        false => None,
    };
    let body = writer.all(&rows);
    Ok(Found { body: body.into(), offset: query.offset, shown: rows.len() as u64, total })
}

/// The rows in `slots` as a body; long ones are made while they are sent.
fn body(state: Arc<State>, slots: Vec<Slot>, writer: Writer) -> Body {
    let mut head = Vec::new();
    writer.begin(slots.len(), &mut head);
    if slots.len() <= MOST_AT_ONCE {
        write(&state, &slots, 0, &writer, &mut head);
        writer.end(&mut head);
        return head.into();
    }
    let pieces = stream::unfold((0, head), move |(at, mut piece)| {
        let end = (at + PIECE).min(slots.len());
        if at == slots.len() {
            return std::future::ready(None);
        }
        write(&state, &slots[at..end], at, &writer, &mut piece);
        if end == slots.len() {
            writer.end(&mut piece);
        }
        std::future::ready(Some((Ok::<_, std::convert::Infallible>(Bytes::from(piece)), (end, Vec::new()))))
    });
    Body::from_stream(pieces)
}

/// Appends the rows in `slots`, of which the first is number `at` of the answer.
fn write(state: &State, slots: &[Slot], at: usize, writer: &Writer, out: &mut Vec<u8>) {
    for (number, row) in slots.iter().filter_map(|slot| state.table().at(*slot)).enumerate() {
        writer.row(&row, at + number == 0, out);
    }
}

impl Found {
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
