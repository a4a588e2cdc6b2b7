//! `GET /{dio}/_schema`: columns, relations, limits, and the capabilities of source and copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::ObjectBuilder;

use crate::access::{Grant, Principal, Verb};
use crate::http::extract::Segment;
use crate::http::problem::ApiError;
use crate::http::response;
use crate::http::schemas::words;
use crate::rows::related::reverse_references;
use crate::scope::Scope;
use crate::state::{GatewayState, Resource};
use diorama_core::vista::{Capabilities, Column, ColumnType, Flag, Inferred, Reference};

/// Describes a resource, also while its first copy is being read.
pub(crate) async fn schema(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    Segment(dio): Segment<0>,
) -> Result<Response, ApiError> {
    let (resource, grant) = Scope::find(&gateway, &dio, &principal)?;
    let policy = gateway.policy.load();
    let sees = |target: &str| {
        let target = gateway.dios.get_key_value(target);
        target.is_some_and(|(name, other)| !policy.grant(name, &other.schema, &principal).verbs().is_empty())
    };
    let mut description = describe(&resource, &grant, sees);
    let reverse = reverse_references(&gateway, &resource, &grant.schema(&resource.schema), &principal);
    description.references.extend(reverse.iter().map(DescribedReference::of));
    Ok(response::json(&description))
}

/// Description of a resource.
#[derive(Serialize, ToSchema)]
pub(crate) struct Description {
    name: String,
    id: String,
    #[schema(inline)]
    columns: Vec<DescribedColumn>,
    #[schema(inline)]
    references: Vec<DescribedReference>,
    #[schema(inline)]
    capabilities: DescribedCapabilities,
    #[schema(inline)]
    limits: DescribedLimits,
    /// Properties that were inferred from the source: separator, encoding, id, unexpected types; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(inline)]
    inferred: Vec<Guess>,
    /// Columns with cells of the source that do not match their type, since the start; absent if there are none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(inline)]
    mismatches: BTreeMap<String, Mismatch>,
    /// Unknown columns of upstream events, which were dropped, since the start; absent if there are none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(inline)]
    dropped_columns: BTreeMap<String, Dropped>,
}

#[derive(Serialize, ToSchema)]
struct DescribedColumn {
    name: String,
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    ty: ColumnType,
    original_type: String,
    #[schema(value_type = Vec<String>)]
    flags: Vec<Flag>,
    /// IANA name of the time zone of its dates and times that have no offset; absent for UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    timezone: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct DescribedReference {
    relation: String,
    target: String,
    column: String,
    #[schema(schema_with = DescribedReference::kinds)]
    kind: &'static str,
}

impl DescribedReference {
    fn of(reference: &Reference) -> DescribedReference {
        DescribedReference {
            relation: reference.relation.clone(),
            target: reference.target.clone(),
            column: reference.column.clone(),
            kind: if reference.many { "many" } else { "one" },
        }
    }

    fn kinds() -> ObjectBuilder {
        words(["one", "many"])
    }
}

#[derive(Serialize, ToSchema)]
struct DescribedLimits {
    default_limit: u64,
    max_limit: u64,
    max_affected: u64,
}

/// Capabilities of the source, those that the copy adds, and those that are refused.
#[derive(Serialize, ToSchema)]
struct DescribedCapabilities {
    native: Vec<&'static str>,
    cached: Vec<&'static str>,
    refused: Vec<&'static str>,
}

#[derive(Serialize, ToSchema)]
struct Guess {
    what: String,
    value: String,
    because: String,
    /// Configuration key that overrides the inferred value.
    key: String,
    doubtful: bool,
}

#[derive(Serialize, ToSchema)]
struct Mismatch {
    rows: u64,
    first: String,
    expected: &'static str,
}

#[derive(Serialize, ToSchema)]
struct Dropped {
    rows: u64,
    first: String,
}

/// Describes what the caller sees of a resource. Facts about the source are for callers to whom no rule applies, and
/// references for callers who see their target.
fn describe(resource: &Resource, grant: &Grant, sees: impl Fn(&str) -> bool) -> Description {
    let (dio, options) = (&resource.dio, &resource.options);
    let schema = grant.schema(&resource.schema);
    let column = |column: &Column| DescribedColumn {
        name: column.name.to_string(),
        ty: column.ty,
        original_type: column.original_type.clone(),
        flags: column.flags.clone(),
        timezone: column.timezone.as_deref().map(str::to_string),
    };
    let shown = |reference: &&Reference| grant.is_unrestricted() || sees(&reference.target);
    let guess = |it: Inferred| Guess {
        what: it.what,
        value: it.value,
        because: it.because,
        key: it.key,
        doubtful: it.is_doubtful,
    };
    let all = |column: &str| {
        grant.is_unrestricted() || schema.column(column).is_some() && grant.view(Verb::Read).is_everything()
    };
    let mismatches = dio.mismatches().into_iter().filter(|it| all(&it.column));
    let dropped = dio.dropped_columns().into_iter().filter(|_| grant.is_unrestricted());
    let inferred = dio.inferred().into_iter().filter(|_| grant.is_unrestricted());
    Description {
        name: dio.name().to_string(),
        id: schema.id_column().to_string(),
        columns: schema.columns().iter().map(column).collect(),
        references: schema.references().iter().filter(shown).map(DescribedReference::of).collect(),
        capabilities: capabilities(dio.source_capabilities(), permitted(dio.capabilities(), grant)),
        limits: DescribedLimits {
            default_limit: options.default_limit,
            max_limit: options.max_limit,
            max_affected: options.max_affected,
        },
        inferred: inferred.map(guess).collect(),
        mismatches: mismatches
            .map(|it| (it.column, Mismatch { rows: it.rows, first: it.first, expected: it.expected }))
            .collect(),
        dropped_columns: dropped.map(|it| (it.column, Dropped { rows: it.rows, first: it.first })).collect(),
    }
}

/// Returns the capabilities without those that the caller may not use.
fn permitted(mut all: Capabilities, grant: &Grant) -> Capabilities {
    let can = |verb| grant.verbs().has(verb);
    all.can_insert &= can(Verb::Insert);
    all.can_update &= can(Verb::Update);
    all.can_delete &= can(Verb::Delete);
    all.can_delete_all &= can(Verb::Delete) && grant.is_unrestricted();
    all
}

fn capabilities(master: Capabilities, ours: Capabilities) -> DescribedCapabilities {
    let named = |caps: Capabilities| {
        [
            ("filter", caps.can_filter),
            ("order", caps.can_order),
            ("search", caps.can_search),
            ("count", caps.can_count),
            ("fetch_page", caps.can_fetch_page),
            ("set_page_size", caps.can_set_page_size),
            ("fetch_next", caps.can_fetch_next),
            ("insert", caps.can_insert),
            ("update", caps.can_update),
            ("delete", caps.can_delete),
            ("delete_all", caps.can_delete_all),
        ]
    };
    let all = || named(master).into_iter().zip(named(ours)).map(|((name, native), (_, can))| (name, native, can));
    let names = |is: fn(bool, bool) -> bool| -> Vec<_> {
        all().filter(|(_, native, can)| is(*native, *can)).map(|(name, ..)| name).collect()
    };
    DescribedCapabilities {
        native: names(|native, can| native && can),
        cached: names(|native, can| can && !native),
        refused: names(|_, can| !can),
    }
}
