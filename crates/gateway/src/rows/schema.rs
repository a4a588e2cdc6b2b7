//! `GET /{dio}/_schema`: columns, relations, limits, and the capabilities of source and copy.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::http::extract::Segment;
use crate::http::problem::ApiError;
use crate::http::response;
use crate::state::{GatewayState, Resource};
use diorama_core::dio::Dio;
use diorama_core::vista::Capabilities;

/// Describes a resource, also while its first copy is being read.
pub(crate) async fn schema(
    State(gateway): State<Arc<GatewayState>>,
    Segment(dio): Segment<0>,
) -> Result<Response, ApiError> {
    Ok(response::json(&describe(gateway.dio(&dio)?)))
}

fn describe(resource: &Resource) -> Value {
    let columns = resource.schema.columns().iter().map(|column| {
        let mut described = json!({
            "name": &*column.name, "type": column.ty, "original_type": column.original_type, "flags": column.flags
        });
        if let Some(zone) = &column.timezone {
            described["timezone"] = json!(&**zone);
        }
        described
    });
    let references = resource.schema.references().iter().map(|reference| {
        let many = if reference.many { "many" } else { "one" };
        json!({ "relation": reference.relation, "target": reference.target, "column": reference.column, "kind": many })
    });
    let mut described = json!({
        "name": resource.dio.name(),
        "id": resource.schema.id_column(),
        "columns": columns.collect::<Vec<_>>(),
        "references": references.collect::<Vec<_>>(),
        "capabilities": capabilities(resource.dio.source_capabilities(), resource.dio.capabilities()),
        "limits": {
            "default_limit": resource.options.default_limit,
            "max_limit": resource.options.max_limit,
            "max_affected": resource.options.max_affected,
        },
    });
    if let Some(members) = described.as_object_mut() {
        members.extend(inferred(&resource.dio));
        members.extend(differences(&resource.dio));
    }
    described
}

/// Facts that the driver inferred about its source, each with its reason and the configuration key that overrides it.
fn inferred(dio: &Dio) -> Option<(String, Value)> {
    let guesses = dio.inferred().into_iter();
    let guesses: Vec<Value> = guesses
        .map(|it| json!({ "what": it.what, "value": it.value, "because": it.because, "key": it.key, "doubtful": it.is_doubtful }))
        .collect();
    (!guesses.is_empty()).then(|| ("inferred".to_string(), guesses.into()))
}

/// Differences from the schema since the start: cells of the source that do not match, and unknown columns that were dropped.
fn differences(dio: &Dio) -> Vec<(String, Value)> {
    let mismatches: Map<String, Value> = dio
        .mismatches()
        .into_iter()
        .map(|it| (it.column, json!({ "rows": it.rows, "first": it.first, "expected": it.expected })))
        .collect();
    let dropped = dio.dropped_columns().into_iter();
    let dropped: Map<String, Value> =
        dropped.map(|it| (it.column, json!({ "rows": it.rows, "first": it.first }))).collect();
    let named = [("mismatches", mismatches), ("dropped_columns", dropped)];
    let some = named.into_iter().filter(|(_, columns)| !columns.is_empty());
    some.map(|(name, columns)| (name.to_string(), columns.into())).collect()
}

/// Capabilities by name: `native` to the source, added by the copy (`cached`), or `refused`.
fn capabilities(master: Capabilities, ours: Capabilities) -> Value {
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
    json!({
        "native": names(|native, can| native && can),
        "cached": names(|native, can| can && !native),
        "refused": names(|_, can| !can),
    })
}
