//! `GET /{dio}/_aggregate`: counts, sums, means and extremes of the rows that pass the filters, by groups.
//!
//! `select` holds functions and the columns to group by; columns alone give their distinct values. Filters are those of a list;
//! order, limit and offset are about the groups, by the names of the results. With `live` it is a live query (`events/live`).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use crate::events::{self, LiveSubscription};
use crate::http::budget::Bounds;
use crate::http::extract::{Segment, check_ready};
use crate::http::negotiate;
use crate::http::problem::{ApiError, Code};
use crate::http::response::{self, Snapshot};
use crate::rows::format::Writer;
use crate::rows::list::ListPage;
use crate::state::{GatewayState, Resource};
use diorama_core::dio::GroupIter;
use diorama_core::record::{Body, Record};
use diorama_core::vista::query::url::{self, ParamOptions, percent_decoded};
use diorama_core::vista::query::{AggregateItem, Aggregation, Meter, Path, numbered};
use diorama_core::vista::{Error, Query, Schema};

/// Items of one select, at most.
const MAX_ITEMS: usize = 50;
/// Parameters about the groups; all others are about the rows.
const OF_GROUPS: [&str; 10] =
    ["order", "limit", "offset", "_sort", "_order", "_page", "_limit", "_per_page", "_start", "_end"];

/// Sums up rows.
pub(crate) async fn aggregate(
    State(gateway): State<Arc<GatewayState>>,
    Segment(dio): Segment<0>,
    request: Request,
) -> Result<Response, ApiError> {
    let resource = Arc::clone(gateway.dio(&dio)?);
    let bounds = Bounds::of(&gateway, request.extensions());
    let raw = request.uri().query().unwrap_or_default().to_string();
    let (owner, text) = (Arc::clone(&resource), raw.clone());
    let live = bounds.read(&resource, raw.as_bytes(), move || LiveSubscription::parse_groups(&text, &owner)).await??;
    if let Some(asked) = live {
        return events::live_groups(&gateway, &resource, bounds, asked, request).await;
    }
    check_ready(&resource.dio)?;
    let headers = request.headers();
    let format = negotiate::of_list(headers)?;
    let view = Snapshot::of(&resource);
    let etag = view.list_etag(&[b"_aggregate?", raw.as_bytes()].concat(), format);
    if response::is_named(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let (owner, text) = (Arc::clone(&resource), raw.clone());
    let asked = bounds.read(&resource, raw.as_bytes(), move || AggregateRequest::read(&text, &owner)).await??;
    if response::is_known(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let (state, meter) = (Arc::clone(&view.state), &bounds.meter);
    let writer = Writer::new(format, &Query::default(), &asked.schema)?;
    let (rows, aggregation, offset) = (asked.rows.clone(), Arc::clone(&asked.aggregation), asked.groups.offset);
    let page = move |groups: GroupIter<'_>, meter: &Meter| page(groups, &asked, &writer, meter);
    let page = resource.dio.aggregate(state, &rows, &aggregation, &resource.schema, meter, page).await?;
    let (body, shown, total) = page;
    Ok(ListPage::new(bounds.answer(body)?, offset, shown, total).respond(&view, etag, format, None))
}

/// The page of `groups` that is asked for, written; how many it shows, and how many there are.
fn page(
    groups: GroupIter<'_>,
    asked: &AggregateRequest,
    writer: &Writer,
    meter: &Meter,
) -> Result<(Vec<u8>, u64, u64), Error> {
    let Query { offset, limit, .. } = asked.groups;
    let mut failed = Ok(());
    let page = asked.groups.prepare(&asked.schema).top_within(numbered(groups, &mut failed), offset, limit, meter);
    failed?;
    Ok((write(writer, &asked.schema, &page.rows), page.rows.len() as u64, page.total))
}

fn write(writer: &Writer, schema: &Schema, groups: &[(String, Record)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 * groups.len());
    writer.begin(Some(groups.len()), &mut out);
    for (number, (_, group)) in groups.iter().enumerate() {
        writer.row(&Body::encode_plain(group, schema.layout()), number == 0, &mut out);
    }
    writer.end(Some(groups.len()), &mut out);
    out
}

/// What the URL asks for.
pub(crate) struct AggregateRequest {
    pub(crate) aggregation: Arc<Aggregation>,
    pub(crate) rows: Query,
    pub(crate) groups: Query,
    /// The results.
    schema: Schema,
}

impl AggregateRequest {
    pub(crate) fn read(raw: &str, resource: &Resource) -> Result<AggregateRequest, ApiError> {
        let of_groups = |piece: &&str| {
            let key = piece.split('=').next().unwrap_or_default();
            let value = piece.get(key.len() + 1..).unwrap_or_default();
            let key = percent_decoded(key, true).unwrap_or_default();
            // simple-rest's are JSON; otherwise these are names of columns.
            let json =
                matches!(&*key, "sort" | "range") && percent_decoded(value, true).is_some_and(|v| v.starts_with('['));
            OF_GROUPS.contains(&&*key) || json
        };
        let (of_groups, of_rows): (Vec<&str>, Vec<&str>) = raw.split('&').partition(of_groups);
        // What is not to be live may say so.
        let options = ParamOptions { max_limit: resource.options.max_limit, extra: &["select", "live"] };
        let mut asked = url::parse(&of_rows.join("&"), &resource.schema, &options)?;
        if asked.query.after.is_some() {
            return Err(ApiError::new(Code::InvalidParameter, "after: groups are paged with limit and offset"));
        }
        asked.extra.retain(|(name, _)| name == "select");
        let aggregation = compile(&asked.extra, &resource.schema)?;
        let schema = aggregation.schema();
        let options = ParamOptions { max_limit: resource.options.max_limit, extra: &[] };
        let groups = url::parse(&of_groups.join("&"), &schema, &options)?.query;
        Ok(AggregateRequest { aggregation: Arc::new(aggregation), rows: asked.query, groups, schema })
    }
}

fn compile(selects: &[(String, String)], schema: &Schema) -> Result<Aggregation, ApiError> {
    let hint = "write select=category,count(),sum(price): columns group, functions sum up";
    let [(_, select)] = selects else {
        let detail = if selects.is_empty() { "select: it is missing" } else { "select: it is given twice" };
        return Err(ApiError::new(Code::InvalidParameter, detail).hint(hint));
    };
    let items = url::split_outside_quotes(select).map(AggregateItem::parse).collect::<Result<Vec<_>, Error>>();
    let items = items.map_err(wrong)?;
    if items.len() > MAX_ITEMS {
        return Err(ApiError::new(Code::LimitTooLarge, format!("select: at most {MAX_ITEMS} results")));
    }
    for column in items.iter().filter_map(|item| item.column.as_deref()) {
        Path::checked(column, schema)
            .map_err(|detail| ApiError::new(Code::UnknownColumn, format!("select: {detail}")))?;
    }
    Aggregation::new(&items, schema).map_err(wrong)
}

fn wrong(error: Error) -> ApiError {
    match error {
        Error::Invalid { detail, .. } => ApiError::new(Code::InvalidParameter, format!("select: {detail}")),
        other => other.into(),
    }
}
