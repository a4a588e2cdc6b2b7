//! Schemas that are the same whatever is served, and short words for making schemas. Those of answers are derived from the types
//! that handlers send.

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

/// A schema, or where it is.
pub(super) type Shape = RefOr<Schema>;

/// A value of one type.
pub(super) fn of(ty: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(ty)
}

/// A whole number, 0 or more.
pub(super) fn count() -> ObjectBuilder {
    of(Type::Integer).minimum(Some(0))
}

pub(super) fn flag() -> ObjectBuilder {
    of(Type::Boolean)
}

/// Any value.
pub(super) fn any() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue)
}

/// One of `words`.
pub(super) fn word(words: &[&str]) -> ObjectBuilder {
    schemas::words(words.iter().copied())
}

/// A value of this type, or null.
pub(super) fn or_null(ty: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([ty, Type::Null]))
}

/// The component `name`.
pub(super) fn named(name: impl Into<String>) -> Ref {
    Ref::from_schema_name(name)
}

/// An object that has all of `members`, and may have more.
pub(super) fn object<const N: usize>(members: [(&str, Shape); N]) -> ObjectBuilder {
    let all = members.into_iter();
    all.fold(ObjectBuilder::new(), |object, (name, schema)| object.property(name, schema).required(name))
}

pub(super) fn array(items: impl Into<Shape>) -> ArrayBuilder {
    let items: Shape = items.into();
    ArrayBuilder::new().items(items)
}

/// The schema that is derived for `T`, in one object with those of its flattened fields.
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

/// What every route but a Dio's own sends or takes.
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
        "`{\"and\": [{\"price\": {\"gte\": 100}}, {\"not\": {\"name\": {\"like\": \"a*\"}}}]}`: members are columns with a value (equality), an array (in), null (is null) or an object of operators, or `and`, `or` \
         (arrays of filters) and `not` (a filter). Members of one object must all hold.",
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
        .property("after", or_null(Type::String).description(Some("A cursor; empty for the first page.")))
        .property("q", or_null(Type::String))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        .description(Some("The query of a list as a document."))
}
