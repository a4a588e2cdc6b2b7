//! Request of an aggregate: the functions, the rows that they apply to, and the page of groups to show.

use std::sync::Arc;

use crate::http::problem::{ApiError, Code};
use crate::options::MountOptions;
use diorama_core::vista::query::url::{self, ParamOptions, percent_decoded};
use diorama_core::vista::query::{AggregateItem, Aggregation, Path};
use diorama_core::vista::{Error, Query, Schema};

/// Maximum number of items in one `select`.
const MAX_ITEMS: usize = 50;
/// Parameters that apply to the groups; all others apply to the rows.
const GROUP_PARAMETERS: [&str; 10] =
    ["order", "limit", "offset", "_sort", "_order", "_page", "_limit", "_per_page", "_start", "_end"];

/// Aggregate request, read from the URL.
pub(crate) struct AggregateRequest {
    pub(crate) aggregation: Arc<Aggregation>,
    pub(crate) rows: Query,
    pub(crate) groups: Query,
    /// Columns of the results.
    pub(crate) schema: Schema,
}

impl AggregateRequest {
    pub(crate) fn read(raw: &str, rows: &Schema, options: &MountOptions) -> Result<AggregateRequest, ApiError> {
        let of_groups = |piece: &&str| {
            let key = piece.split('=').next().unwrap_or_default();
            let value = piece.get(key.len() + 1..).unwrap_or_default();
            let key = percent_decoded(key, true).unwrap_or_default();
            // In the simple-rest dialect these values are JSON arrays; otherwise they are names of columns.
            let json =
                matches!(&*key, "sort" | "range") && percent_decoded(value, true).is_some_and(|v| v.starts_with('['));
            GROUP_PARAMETERS.contains(&&*key) || json
        };
        let (of_groups, of_rows): (Vec<&str>, Vec<&str>) = raw.split('&').partition(of_groups);
        // `live=false` is allowed.
        let parameters = ParamOptions { max_limit: options.max_limit, extra: &["select", "live"], holes: false };
        let mut parsed = url::parse(&of_rows.join("&"), rows, &parameters)?;
        if parsed.query.after.is_some() {
            return Err(ApiError::new(Code::InvalidParameter, "after: groups are paged with limit and offset"));
        }
        parsed.extra.retain(|(name, _)| name == "select");
        let aggregation = compile(&parsed.extra, rows)?;
        let schema = aggregation.schema();
        let parameters = ParamOptions { max_limit: options.max_limit, extra: &[], holes: false };
        let groups = url::parse(&of_groups.join("&"), &schema, &parameters)?.query;
        Ok(AggregateRequest { aggregation: Arc::new(aggregation), rows: parsed.query, groups, schema })
    }
}

fn compile(selects: &[(String, String)], schema: &Schema) -> Result<Aggregation, ApiError> {
    let hint = "write select=category,count(),sum(price): columns group, functions sum up";
    let [(_, select)] = selects else {
        let detail = if selects.is_empty() { "select is missing" } else { "select is given twice" };
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
