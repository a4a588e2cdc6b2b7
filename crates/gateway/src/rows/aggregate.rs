//! `GET /{dio}/_aggregate`: counts, sums, means and extremes of the rows that pass the filters, by group.
//!
//! `select` lists the functions and the columns to group by; columns alone give their distinct values. Filters are those of a
//! list. Order, limit and offset apply to the groups and use the names of the results. With `live`, the request is a live
//! query (`events/live`).

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::response::Response;

use crate::http::bounds::Bounds;
use crate::http::extract::check_ready;
use crate::http::negotiate;
use crate::http::problem::ApiError;
use crate::http::response;
use crate::rows::aggregate_request::AggregateRequest;
use crate::rows::format::Writer;
use crate::rows::list::ListPage;
use crate::rows::snapshot::Snapshot;
use crate::scope::Scope;
use diorama_core::record::{Body, Record};
use diorama_core::vista::query::{Groups, Meter};
use diorama_core::vista::{Error, Query, Schema};

/// Aggregates rows.
pub(crate) async fn aggregate(
    scope: &Scope,
    bounds: &Bounds,
    raw: &str,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    check_ready(&scope.dio)?;
    let format = negotiate::of_list(headers)?;
    let view = Snapshot::of(scope);
    let etag = view.list_etag(&[b"_aggregate?", raw.as_bytes()].concat(), format);
    if response::is_named(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let (owner, text) = (scope.clone(), raw.to_string());
    let request = bounds
        .read(scope.dio.workers(), raw.as_bytes(), move || AggregateRequest::read(&text, &owner.schema, &owner.options))
        .await??;
    if response::is_known(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let writer = Writer::new(format, &Query::default(), &request.schema)?;
    let (rows, aggregation, offset) = (request.rows.clone(), Arc::clone(&request.aggregation), request.groups.offset);
    let page = move |groups: Groups<'_>, meter: &Meter| page(&groups, &request, &writer, meter);
    let page = scope.rows.aggregate(view.state(), &rows, &aggregation, &bounds.meter, page).await?;
    let (body, shown, total) = page;
    Ok(ListPage::new(bounds.answer(body)?, offset, shown, total).respond(&view, etag, format, None))
}

/// Writes the requested page of `groups`. Returns the body, the number of groups on the page and the number of all groups.
fn page(
    groups: &Groups<'_>,
    request: &AggregateRequest,
    writer: &Writer,
    meter: &Meter,
) -> Result<(Vec<u8>, u64, u64), Error> {
    let Query { offset, limit, .. } = request.groups;
    let page = groups.page(&request.groups.prepare(&request.schema), offset, limit, meter)?;
    Ok((write(writer, &request.schema, &page.groups), page.groups.len() as u64, page.total))
}

fn write(writer: &Writer, schema: &Schema, groups: &[Record]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 * groups.len());
    writer.begin(Some(groups.len()), &mut out);
    for (number, group) in groups.iter().enumerate() {
        writer.row(&Body::encode_plain(group, schema.layout()), number == 0, &mut out);
    }
    writer.end(Some(groups.len()), &mut out);
    out
}
