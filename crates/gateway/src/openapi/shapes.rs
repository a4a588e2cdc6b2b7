//! Schemas that are the same whatever is served, and short words for making schemas.

use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};

use super::Api;
use crate::http::problem::Code;

/// A schema, or where it is.
pub(super) type Shape = RefOr<Schema>;

/// A value of one type.
pub(super) fn of(ty: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(ty)
}

pub(super) fn text() -> ObjectBuilder {
    of(Type::String)
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

pub(super) fn moment() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

/// One of `words`.
pub(super) fn word(words: &[&str]) -> ObjectBuilder {
    text().enum_values(Some(words.iter().copied()))
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

/// What every route but a Dio's own sends or takes.
pub(super) fn add(api: &mut Api) {
    api.schema("Problem", problem());
    api.schema("Operation", operation());
    api.schema("BulkResult", bulk_result());
    let retried = object([("id", text().into()), ("status", count().into())]);
    let retried = retried.description(Some("What became of one parked operation: a new one, or a problem."));
    api.schema("Retried", retried.property("operation", named("Operation")).property("problem", named("Problem")));
    let operations = array(text());
    let affected = object([("affected", count().into()), ("operations", operations.into())]);
    let results = array(named("FilterResult")).description(Some("How each stands, where the source was waited for."));
    api.schema("Affected", affected.property("results", results));
    let result = object([
        ("id", or_null(Type::String).into()),
        ("status", of(Type::Integer).into()),
        ("operation", text().into()),
    ]);
    api.schema("FilterResult", result.property("problem", named("Problem")));
    api.schema("Refreshed", refreshed());
    api.schema("Purge", purge());
    api.schema("Purged", purged());
    api.schema("Explained", explained());
    api.schema("Query", query());
    api.schema("Filter", filter());
    api.schema("Description", description());
}

/// What `explain=true` gives instead of rows.
fn explained() -> ObjectBuilder {
    let plan = object([("access", text().into()), ("estimate", count().into())]);
    let index = object([("index", text().into()), ("bytes", count().into()), ("uses", count().into())]);
    object([
        ("plan", plan.into()),
        ("rows", count().into()),
        ("examined", count().into()),
        ("matched", count().into()),
        ("returned", count().into()),
        ("microseconds", count().into()),
        ("indexes", array(index).into()),
    ])
    .description(Some("How the list is answered, for `explain=true`."))
}

fn problem() -> ObjectBuilder {
    let errors = ObjectBuilder::new().additional_properties(Some(Schema::from(text().build())));
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    object([
        ("type", text().format(Some(SchemaFormat::Custom("uri-reference".into()))).into()),
        ("title", text().into()),
        ("status", of(Type::Integer).minimum(Some(400)).maximum(Some(599)).into()),
        ("detail", text().into()),
        ("code", word(&codes).description(Some("What kind of refusal it is; stable.")).into()),
        ("message", text().description(Some("The same as `detail`.")).into()),
    ])
    .property("hint", text().description(Some("What can be done about it.")))
    .property("request_id", text())
    .property("errors", errors.description(Some("What is wrong per column or parameter.")))
    .description(Some("A refusal (RFC 9457)."))
}

fn operation() -> ObjectBuilder {
    let error = object([("code", text().into()), ("detail", text().into())])
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]));
    let states = ["queued", "running", "unknown", "applied", "failed", "parked", "discarded"];
    object([
        ("id", text().pattern(Some("^op_[0-9A-Z]{26}$")).into()),
        ("dio", text().description(Some("The resource.")).into()),
        ("record", or_null(Type::String).description(Some("The row, null for all of them.")).into()),
        ("op", word(&["insert", "replace", "patch", "delete", "delete_all"]).into()),
        ("state", word(&states).into()),
        ("attempts", count().into()),
        ("next_attempt", or_null(Type::String).into()),
        ("error", error.into()),
        ("position", count().into()),
        ("created", moment().into()),
        ("updated", moment().into()),
        ("retry_of", or_null(Type::String).into()),
        ("links", object([("self", text().into()), ("record", or_null(Type::String).into())]).into()),
    ])
    .description(Some("An accepted write on its way to the source."))
}

fn bulk_result() -> ObjectBuilder {
    object([
        ("line", count().description(Some("Of the body, from 1.")).into()),
        ("status", of(Type::Integer).into()),
        ("id", or_null(Type::String).into()),
    ])
    .property("operation", text())
    .property("problem", named("Problem"))
    .property("replayed", flag().description(Some("Whether it was taken before, under the same Idempotency-Key.")))
    .description(Some("What became of one row of a bulk insert."))
}

fn refreshed() -> ObjectBuilder {
    object([
        ("position", or_null(Type::String).into()),
        ("inserted", count().into()),
        ("changed", count().into()),
        ("removed", count().into()),
        ("undecodable", count().into()),
        ("seconds", of(Type::Number).into()),
    ])
}

fn purge() -> ObjectBuilder {
    let ids = array(text()).min_items(Some(1)).max_items(Some(diorama_core::dio::MOST_IDS));
    object([("ids", ids.build().into())]).additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

fn purged() -> ObjectBuilder {
    let gone = |what: &str| count().description(Some(what.to_string()));
    let ids = |what: &str| array(text()).description(Some(what.to_string()));
    let left = ids("Ids that the source still has; null if it was not asked or did not answer.")
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]));
    object([
        ("position", text().into()),
        ("rows", gone("Rows that were removed from what readers see.").into()),
        ("entries", gone("Entries of the log that were rewritten.").into()),
        ("operations", gone("Settled writes whose values were erased.").into()),
        ("deliveries", gone("Kept deliveries that named one of the rows and were dropped.").into()),
        ("returned", ids("Ids that readers see again.").build().into()),
    ])
    .property("in_source", left)
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

fn description() -> ObjectBuilder {
    let names = || array(text());
    let capabilities = object([("native", names().into()), ("cached", names().into()), ("refused", names().into())]);
    let column = object([
        ("name", text().into()),
        ("type", text().into()),
        ("original_type", text().into()),
        ("flags", names().into()),
    ]);
    let limits =
        object([("default_limit", count().into()), ("max_limit", count().into()), ("max_affected", count().into())]);
    let mismatch = object([("rows", count().into()), ("first", text().into()), ("expected", text().into())]);
    let mismatches = by_name(mismatch).description(Some(
        "Columns in which rows of the source hold something else than their type says, since the start; absent if there are none.",
    ));
    let dropped = by_name(object([("rows", count().into()), ("first", text().into())])).description(Some(
        "Columns that upstream events brought and that were left out, since the start; absent if there are none.",
    ));
    let guess = object([
        ("what", text().into()),
        ("value", text().into()),
        ("because", text().into()),
        ("key", text().description(Some("The key of the configuration that settles it.")).into()),
        ("doubtful", of(Type::Boolean).into()),
    ]);
    let inferred = array(guess).description(Some(
        "What was found out by looking at the source: separator, encoding, id, types that may surprise; absent if nothing was.",
    ));
    object([
        ("name", text().into()),
        ("id", text().into()),
        ("columns", array(column).into()),
        ("references", array(ObjectBuilder::new()).into()),
        ("capabilities", capabilities.into()),
        ("limits", limits.into()),
    ])
    .property("inferred", inferred)
    .property("mismatches", mismatches)
    .property("dropped_columns", dropped)
}

/// An object whose members have names of columns.
fn by_name(member: ObjectBuilder) -> ObjectBuilder {
    ObjectBuilder::new().additional_properties(Some(AdditionalProperties::RefOr(member.into())))
}
