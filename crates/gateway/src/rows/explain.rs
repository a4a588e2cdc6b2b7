//! `GET /{dio}?...&explain=true`: the plan of a list, in place of its rows.

use std::time::Instant;

use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use crate::access::Verb;
use crate::http::bounds::Bounds;
use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::http::schemas::text;
use crate::rows::snapshot::Snapshot;
use crate::scope::Scope;
use diorama_core::plan::Explanation;
use diorama_core::table::Index;
use diorama_core::vista::Query;

/// Name of the parameter.
pub(crate) const EXPLAIN: &str = "explain";

/// Plan and counts of a list, for `explain=true`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Explained {
    #[schema(schema_with = Explained::plan)]
    plan: Explanation,
    rows: usize,
    examined: u64,
    matched: u64,
    returned: usize,
    microseconds: u64,
    #[schema(inline)]
    indexes: Vec<IndexInUse>,
    #[schema(inline)]
    columns: Vec<ColumnInUse>,
    /// Indexes that queries have asked for and that were not built; absent without any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(inline)]
    not_built: Vec<MissingIndex>,
}

/// Index that was not built.
#[derive(Serialize, ToSchema)]
struct MissingIndex {
    index: String,
    because: String,
}

/// Index of the rows.
#[derive(Serialize, ToSchema)]
struct IndexInUse {
    index: String,
    bytes: usize,
    uses: u64,
}

/// Column that scans keep.
#[derive(Serialize, ToSchema)]
struct ColumnInUse {
    column: String,
    bytes: usize,
}

impl Explained {
    /// Schema of the stable members of a plan; all others are informational.
    fn plan() -> ObjectBuilder {
        let estimate = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
        let plan = ObjectBuilder::new().property("access", text()).required("access");
        plan.property("estimate", estimate).required("estimate")
    }
}

/// Returns true if the plan is requested.
pub(crate) fn is_asked(extra: &[(String, String)]) -> Result<bool, ApiError> {
    match extra.iter().rev().find(|(name, _)| name == EXPLAIN).map(|(_, value)| value.as_str()) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ApiError::new(Code::InvalidParameter, "explain must be true or false")),
    }
}

/// Runs the query once and returns its plan, counts and time.
pub(crate) async fn explain(
    scope: &Scope,
    view: &Snapshot,
    query: &Query,
    bounds: &Bounds,
) -> Result<Response, ApiError> {
    if !scope.grant.is_unrestricted() && !scope.grant.verbs().has(Verb::Admin) {
        let detail = "a plan tells about all rows: explain is for administrators of the resource";
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    if !scope.dio.is_complete() {
        return Err(ApiError::new(
            Code::InvalidParameter,
            "explain is not supported: the rows are only partly cached, so the source answers lists",
        )
        .hint("ask the source for the plan of its query"));
    }
    let started = Instant::now();
    let (selection, plan) = scope.rows.select(view.state(), query, &bounds.meter).await?;
    let took = started.elapsed();
    let table = view.state().table();
    let index =
        |index: &Index| IndexInUse { index: index.spec().to_string(), bytes: index.bytes(), uses: index.uses() };
    let refused = scope.dio.refused_indexes().into_iter();
    let mut response = response::json(&Explained {
        plan: plan.explain(table, query),
        rows: table.len(),
        examined: selection.examined,
        matched: selection.total,
        returned: selection.slots.len(),
        microseconds: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        indexes: table.indexes().iter().map(index).collect(),
        columns: table.columns().kept().into_iter().map(|(column, bytes)| ColumnInUse { column, bytes }).collect(),
        not_built: refused.map(|(index, because)| MissingIndex { index, because }).collect(),
    });
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
