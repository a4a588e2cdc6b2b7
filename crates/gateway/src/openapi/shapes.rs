//! Schemas that do not depend on the resources, and helpers for building schemas. Those of responses are derived from the types that
//! handlers send.

use utoipa::PartialSchema;
use utoipa::openapi::schema::{AdditionalProperties, AnyOfBuilder, ArrayBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};

use super::Api;
use crate::admin::operations::{OperationBody, Retried};
use crate::admin::purge::Purged;
use crate::admin::refresh::Refreshed;
use crate::http::problem::Problem;
use crate::http::schemas;
pub(super) use crate::http::schemas::{moment, text};
use crate::rows::bulk::BulkResult;
use crate::rows::by_filter::{Affected, FilterResult};
use crate::rows::explain::Explained;
use crate::rows::schema::Description;

/// Schema, or a reference to one.
pub(super) type Shape = RefOr<Schema>;

/// Returns the schema of a value of one type.
pub(super) fn of(ty: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(ty)
}

/// Returns the schema of a non-negative integer.
pub(super) fn count() -> ObjectBuilder {
    of(Type::Integer).minimum(Some(0))
}

pub(super) fn flag() -> ObjectBuilder {
    of(Type::Boolean)
}

/// Returns the schema of any value.
pub(super) fn any() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue)
}

/// Returns the schema of a string that is one of `words`.
pub(super) fn word(words: &[&str]) -> ObjectBuilder {
    schemas::words(words.iter().copied())
}

/// Returns the schema of a value of this type or null.
pub(super) fn or_null(ty: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([ty, Type::Null]))
}

/// Returns a reference to the component `name`.
pub(super) fn named(name: impl Into<String>) -> Ref {
    Ref::from_schema_name(name)
}

/// Returns the schema of an object with the required `members`, which may have more.
pub(super) fn object<const N: usize>(members: [(&str, Shape); N]) -> ObjectBuilder {
    let all = members.into_iter();
    all.fold(ObjectBuilder::new(), |object, (name, schema)| object.property(name, schema).required(name))
}

pub(super) fn array(items: impl Into<Shape>) -> ArrayBuilder {
    let items: Shape = items.into();
    ArrayBuilder::new().items(items)
}

/// Returns the derived schema of `T`, merged with those of its flattened fields into one object.
pub(super) fn derived<T: PartialSchema>() -> Shape {
    let RefOr::T(Schema::AllOf(parts)) = T::schema() else { return T::schema() };
    let mut whole = of(Type::Object);
    whole = whole.description(parts.description);
    for part in parts.items {
        let RefOr::T(Schema::Object(part)) = part else { return T::schema() };
        whole = part.properties.into_iter().fold(whole, |whole, (name, schema)| whole.property(name, schema));
        whole = part.required.into_iter().fold(whole, ObjectBuilder::required);
    }
    whole.into()
}

/// Adds the schemas that do not depend on the resources.
pub(super) fn add(api: &mut Api) {
    api.derived::<Problem>();
    api.derived::<OperationBody>();
    api.derived::<BulkResult>();
    api.derived::<Retried>();
    api.derived::<Affected>();
    api.derived::<FilterResult>();
    api.derived::<Refreshed>();
    api.schema("Purge", purge());
    api.derived::<Purged>();
    api.derived::<Explained>();
    api.schema("Query", query());
    api.schema("Filter", filter());
    api.derived::<Description>();
}

fn purge() -> ObjectBuilder {
    let ids = array(text()).min_items(Some(1)).max_items(Some(diorama_core::dio::MOST_IDS));
    object([("ids", ids.build().into())]).additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

fn filter() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Object, Type::Null])).description(Some(
        "Filter of rows, such as `{\"and\": [{\"price\": {\"gte\": 100}}, {\"not\": {\"name\": {\"like\": \"a*\"}}}]}`. A member is a \
         column, or `and`, `or` (arrays of filters) or `not` (a filter). The value of a column is a value (equality), an array (in), \
         null (is null) or an object of operators. All members of an object must match.",
    ))
}

fn query() -> ObjectBuilder {
    let term = object([("column", text().into())])
        .property("desc", flag())
        .property("nulls", word(&["first", "last"]))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let order = array(AnyOfBuilder::new().item(text()).item(term));
    ObjectBuilder::new()
        .property("where", named("Filter"))
        .property("order", order.schema_type(SchemaType::from_iter([Type::Array, Type::Null])))
        .property("select", array(text()).schema_type(SchemaType::from_iter([Type::Array, Type::Null])))
        .property("limit", or_null(Type::Integer).minimum(Some(0)))
        .property("offset", or_null(Type::Integer).minimum(Some(0)))
        .property(
            "after",
            or_null(Type::String)
                .description(Some("Cursor from the `Link` of an earlier response; empty for the first page.")),
        )
        .property("q", or_null(Type::String))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        .description(Some("Query of a list."))
}
