//! `GET /{dio}`: rows by filter, order and page.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{OriginalUri, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;

use xxhash_rust::xxh3::xxh3_64;

use crate::http::bounds::Bounds;
use crate::http::negotiate::{self, Format};
use crate::http::problem::{ApiError, Code};
use crate::http::response::{self, HeaderBuilder, POSITION, TOTAL};
use crate::rows::explain;
use crate::rows::export;
use crate::rows::extract::PathScope;
use crate::rows::format::Writer;
use crate::rows::query_cache::ParsedQuery;
use crate::rows::related::{self, Embedded, Reading, Related};
use crate::rows::snapshot::Snapshot;
use crate::scope::Scope;
use crate::state::GatewayState;
use diorama_core::plan::{Page, PreparedQuery, Selection, cursor, natural_start};
use diorama_core::record::Rows;
use diorama_core::vista::query::url::ParamOptions;
use diorama_core::vista::{Error, Filter, Query};

/// Lists rows.
pub(crate) async fn list(
    bounds: Bounds,
    PathScope(scope): PathScope,
    State(gateway): State<Arc<GatewayState>>,
    request: Request,
) -> Result<Response, ApiError> {
    list_within(&gateway, &scope, &bounds, None, request).await
}

/// Lists rows, those that meet the condition `within`.
pub(crate) async fn list_within(
    gateway: &Arc<GatewayState>,
    scope: &Scope,
    bounds: &Bounds,
    within: Option<Filter>,
    request: Request,
) -> Result<Response, ApiError> {
    let (raw, headers) = (request.uri().query().unwrap_or_default(), request.headers());
    let format = negotiate::of_list(headers)?;
    let view = Snapshot::of(scope);
    // Links use the original path, including the prefix of an outer router.
    let path = request.extensions().get::<OriginalUri>().map_or(request.uri(), |uri| &uri.0).path();
    let (related, own) = Related::read(gateway, scope, raw, bounds).await?.unzip();
    let mut related = related.map(|related| (Reading::of(scope, &view, &related), related));
    let etag = match &related {
        Some((reading, related)) => view.list_etag(&related.identity(path, raw, reading), format),
        None if within.is_some() => view.list_etag(&[path.as_bytes(), raw.as_bytes()].join(&b'?'), format),
        None => view.list_etag(raw.as_bytes(), format),
    };
    let position = related.as_ref().map(|(reading, _)| reading.position());
    let positioned = |mut response: Response| {
        if let Some(position) = &position {
            response.headers_mut().insert(POSITION, position.clone());
        }
        response
    };
    // In a partial copy, rows that are not cached may have changed at the master without notice.
    if scope.dio.is_complete() && response::is_named(headers, &etag) {
        return Ok(positioned(view.not_modified(etag)));
    }
    let (parsed, mut page) = parse(scope, own.as_deref().unwrap_or(raw), bounds).await?;
    if page.limit.is_none() && !format.is_streamed() {
        page.limit = Some(scope.options.limit_of(parsed.query.query(), &scope.schema));
    }
    let query = match (&mut related, within) {
        (None, None) => Arc::clone(&parsed.query),
        (related, within) => {
            let (mut filter, mut select) = (within.unwrap_or_default(), None);
            if let Some((reading, related)) = related {
                filter.and(related.filter(scope.schema.id_column(), reading, bounds).await?);
                select = related.select.clone();
            }
            scope.rows.restrict(&parsed.query, filter, select)
        }
    };
    if explain::is_asked(&parsed.extra)? {
        return explain::explain(scope, &view, &paged(&query, page), bounds).await;
    }
    let embeds = related.as_mut().filter(|(_, related)| !related.embeds.is_empty());
    let mut list = match embeds {
        Some((reading, related)) => find_with(scope, &view, &query, page, (related, reading), (format, bounds)).await?,
        None => find(scope, &view, &query, page, format, bounds).await?,
    };
    let etag = list.etag.take().unwrap_or(etag);
    if response::is_known(headers, &etag) {
        return Ok(positioned(view.not_modified(etag)));
    }
    let kept = match &related {
        None => Cow::Borrowed(&*parsed.without_paging),
        Some((_, related)) if parsed.without_paging.is_empty() => Cow::Borrowed(&*related.rest),
        Some((_, related)) => Cow::Owned(format!("{}&{}", parsed.without_paging, related.rest)),
    };
    let links = match (page.limit, &query.query().after) {
        (None, _) => None,
        (Some(limit), None) => Some(list.links(path, &kept, limit)),
        (Some(limit), Some(_)) => {
            let and = if kept.is_empty() { "" } else { "&" };
            Some(list.cursor_links(&format!("{path}?{kept}{and}limit={limit}&")))
        }
    };
    Ok(positioned(list.respond(&view, etag, format, links)))
}

/// Parses the query string, or takes it from the cache.
async fn parse(scope: &Scope, raw: &str, bounds: &Bounds) -> Result<(Arc<ParsedQuery>, Page), ApiError> {
    let (owner, text) = (scope.clone(), raw.to_string());
    let read = move || {
        let options = ParamOptions { max_limit: owner.options.max_limit, extra: &[explain::EXPLAIN], holes: false };
        owner.query_cache.read(&owner.rows, &text, &options)
    };
    Ok(bounds.read(scope.dio.workers(), raw.as_bytes(), read).await??)
}

/// Maximum number of rows that are copied without a worker thread, and that buffer space is reserved for in advance.
const MOST_AT_ONCE: usize = 1_000;

/// Encoded page of a list.
pub(crate) struct ListPage {
    body: Body,
    offset: u64,
    shown: u64,
    /// Number of all matching rows, if it is known.
    total: Option<u64>,
    /// Cursor of the next page; `None` if the query has no cursor or the list has ended.
    next: Option<String>,
    /// ETag of the page itself, if it was read from the master; `None` if the snapshot's applies.
    pub(crate) etag: Option<HeaderValue>,
}

/// Maximum length of a cursor, which has to fit into a URL.
const MOST_CURSOR: usize = 4_096;

/// Returns `query` with the limit and offset of `page`.
fn paged(query: &PreparedQuery, page: Page) -> Query {
    Query { limit: page.limit, offset: page.offset, ..query.query().clone() }
}

/// Reads one page of a query's rows, encoded in `format`.
pub(crate) async fn find(
    scope: &Scope,
    view: &Snapshot,
    prepared: &Arc<PreparedQuery>,
    page: Page,
    format: Format,
    bounds: &Bounds,
) -> Result<ListPage, ApiError> {
    let query = prepared.query();
    let writer = Writer::new(format, query, &scope.schema)?;
    if !scope.dio.is_complete() {
        return at_master(scope, &paged(prepared, page), &writer, format, bounds).await;
    }
    let table = view.state().table();
    let natural = query.is_unfiltered() && query.order.is_empty();
    if let (true, true, Format::Json, Some(limit)) = (natural, query.select.is_empty(), format, page.limit) {
        let offset = natural_start(table, query).saturating_add(as_len(page.offset));
        let (state, limit) = (Arc::clone(view.state()), as_len(limit));
        let copy = move || {
            let mut body = Vec::with_capacity(256 * limit.min(MOST_AT_ONCE));
            body.push(b'[');
            let shown = state.table().natural_page_into(offset, limit, &mut body);
            body.push(b']');
            (body, shown)
        };
        let many = table.len().saturating_sub(offset).min(limit) > MOST_AT_ONCE;
        let (body, shown) = if many { bounds.run(scope.dio.workers(), copy).await? } else { copy() };
        let end = offset.saturating_add(shown);
        let last = table.natural(end.saturating_sub(1)).next().filter(|_| shown > 0 && end < table.len());
        let next = last.filter(|_| query.after.is_some()).map(|row| cursor(&row, query, &scope.schema).to_string());
        let (body, total) = (bounds.answer(body)?, Some(table.len() as u64));
        return Ok(ListPage { body: body.into(), offset: offset as u64, shown: shown as u64, total, next, etag: None });
    }
    let (selection, next) = select(scope, view, prepared, page, bounds).await?;
    let Selection { slots, before, total, .. } = selection;
    let shown = slots.len() as u64;
    let what = (query, page.limit.is_some(), &**scope.rows.full_schema());
    let body = export::body(scope, Arc::clone(view.state()), slots, writer, what, bounds).await?;
    Ok(ListPage { body, offset: before, shown, total: Some(total), next, etag: None })
}

/// Reads one page of a query's rows with those that are embedded in them.
async fn find_with(
    scope: &Scope,
    view: &Snapshot,
    prepared: &Arc<PreparedQuery>,
    page: Page,
    (related, reading): (&Related, &mut Reading),
    (format, bounds): (Format, &Bounds),
) -> Result<ListPage, ApiError> {
    if page.limit.is_none() {
        return Err(ApiError::new(Code::InvalidParameter, "an export of all rows embeds no others")
            .hint(format!("set a limit of {} at most", scope.options.max_limit)));
    }
    let mut writer = Writer::new(format, prepared.query(), &scope.schema)?;
    writer.add_columns(related.shows_own, related.embeds.iter().map(|embed| &*embed.key));
    let (selection, next) = select(scope, view, prepared, page, bounds).await?;
    let Selection { slots, before, total, .. } = selection;
    let embedded = related::select(related, view.state(), &slots, reading, bounds).await?;
    let mut body = Vec::with_capacity(512 * slots.len().min(MOST_AT_ONCE));
    writer.begin(Some(slots.len()), &mut body);
    for (index, slot) in slots.iter().enumerate() {
        if index % MOST_AT_ONCE == MOST_AT_ONCE - 1 {
            bounds.meter.check()?;
            tokio::task::yield_now().await;
        }
        if let Some(row) = view.state().table().at(*slot) {
            writer.row_with((&row).into(), &Embedded::of(related, &embedded, index), index == 0, &mut body);
        }
    }
    writer.end(Some(slots.len()), &mut body);
    let body = bounds.answer(body)?.into();
    Ok(ListPage { body, offset: before, shown: slots.len() as u64, total: Some(total), next, etag: None })
}

/// Selects one page, and makes the cursor of the next one.
async fn select(
    scope: &Scope,
    view: &Snapshot,
    prepared: &Arc<PreparedQuery>,
    page: Page,
    bounds: &Bounds,
) -> Result<(Selection, Option<String>), ApiError> {
    let query = prepared.query();
    let selection = scope.rows.select_prepared(view.state(), prepared, page, &bounds.meter).await?;
    let next = query.after.as_ref().and_then(|_| selection.next(view.state().table(), query, &scope.schema));
    let next = next.map(|next| next.to_string());
    if next.as_ref().is_some_and(|next| next.len() > MOST_CURSOR) {
        return Err(ApiError::new(Code::InvalidParameter, "after: a value that the rows are ordered by is too long")
            .hint("order by other columns, or page with offset"));
    }
    Ok((selection, next))
}

/// Reads a page from the master, for a Dio with a partial copy.
async fn at_master(
    scope: &Scope,
    query: &Query,
    writer: &Writer,
    format: Format,
    bounds: &Bounds,
) -> Result<ListPage, ApiError> {
    if query.search.is_some() && !scope.rows.has_all_columns() {
        let what = "search the columns that this caller sees (its rows are only partly cached)";
        return Err(Error::Unsupported { vista: scope.dio.name().into(), what }.into());
    }
    let vista = scope.rows.vista()?;
    let rows: Rows = vista.shell().list(query).await?;
    let total = match vista.capabilities().can_count {
        true => Some(vista.shell().count(query).await?),
        false => None,
    };
    let body = writer.all(&rows);
    let mut etag = HeaderBuilder::with_capacity(32);
    etag.put("\"m-").hex(xxh3_64(&body)).put(format.suffix()).put("\"");
    let (etag, body) = (Some(etag.value()), bounds.answer(body)?);
    Ok(ListPage { body: body.into(), offset: query.offset, shown: rows.len() as u64, total, next: None, etag })
}

impl ListPage {
    /// Creates a page without a cursor, of which all counts are known.
    pub(crate) fn new(body: impl Into<Body>, offset: u64, shown: u64, total: u64) -> ListPage {
        ListPage { body: body.into(), offset, shown, total: Some(total), next: None, etag: None }
    }

    /// Builds the 200 response with the rows, `Content-Range`, the total and the links.
    pub(crate) fn respond(
        self,
        view: &Snapshot,
        etag: HeaderValue,
        format: Format,
        links: Option<HeaderValue>,
    ) -> Response {
        let mut range = HeaderBuilder::with_capacity(48);
        match self.shown {
            0 => range.put("*"),
            shown => range.number(self.offset).put("-").number(self.offset + shown - 1),
        };
        range.put("/");
        match self.total {
            Some(total) => range.number(total),
            None => range.put("*"),
        };
        let mut response = view.ok_list(etag, format, self.body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_RANGE, range.value());
        for (name, value) in [(TOTAL, self.total.map(HeaderValue::from)), (header::LINK, links)] {
            match value {
                Some(value) => headers.insert(name, value),
                None => headers.remove(name),
            };
        }
        response
    }

    /// Builds the `Link` header for paging by cursor. `url` ends before the parameter `after`.
    pub(crate) fn cursor_links(&self, url: &str) -> HeaderValue {
        let first = format!("<{url}after=>; rel=\"first\"");
        response::text(match &self.next {
            Some(next) => format!("{first}, <{url}after={next}>; rel=\"next\""),
            None => first,
        })
    }

    /// Builds the `Link` header for paging by offset: first, previous, next and last page.
    fn links(&self, path: &str, kept: &str, limit: u64) -> HeaderValue {
        // Common part of all links.
        let mut url = HeaderBuilder::with_capacity(path.len() + kept.len() + 32);
        url.put(path).put("?").put(kept).put(if kept.is_empty() { "limit=" } else { "&limit=" }).number(limit);
        let mut links = HeaderBuilder::with_capacity(4 * (path.len() + kept.len() + 72));
        let mut link = |offset: u64, rel: &str| {
            links.put(if links.is_empty() { "<" } else { ", <" }).put(&url);
            if offset > 0 {
                links.put("&offset=").number(offset);
            }
            links.put(">; rel=\"").put(rel).put("\"");
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
        links.value()
    }
}

fn as_len(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
