//! Schemas of one Dio's rows, for reads, inserts, replacements, patches and events.

use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type,
};

use utoipa::openapi::Schema;

use super::Api;
use super::frames::frame_of;
use super::shapes::{Shape, any, array, moment, named, object, text, word};
use crate::state::Resource;
use diorama_core::vista::{Column, ColumnType, Flag, UnknownColumns};

/// Returns the schema of a list of whole rows, or of rows with selected columns.
pub(super) fn list(title: &str) -> ArrayBuilder {
    array(shown(title))
}

/// Returns the schema of a whole row, or of one with selected columns.
pub(super) fn shown(title: &str) -> AnyOfBuilder {
    AnyOfBuilder::new().item(named(format!("{title}Row"))).item(named(format!("{title}Part")))
}

/// Adds the schemas of `resource`, whose names begin with `title`.
pub(super) fn add(api: &mut Api, title: &str, resource: &Resource) {
    let columns = resource.schema.columns();
    let open = AdditionalProperties::FreeForm(true);
    let own = AdditionalProperties::FreeForm(resource.dio.unknown_columns() == UnknownColumns::Keep);

    let mut row = ObjectBuilder::new();
    let mut part = ObjectBuilder::new();
    for column in columns {
        row = row.property(&*column.name, value(column, is_certain(column)));
        part = part.property(&*column.name, value(column, is_certain(column)));
        if is_certain(column) {
            row = row.required(&*column.name);
        }
    }
    api.schema(format!("{title}Row"), row.additional_properties(Some(own.clone())).description(Some("A row.")));
    let about = "The columns of a row that `select` names.";
    api.schema(format!("{title}Part"), part.additional_properties(Some(open)).description(Some(about)));

    let can = resource.dio.capabilities();
    if can.can_insert || can.can_update {
        bodies(api, title, resource, &own);
    }
    events(api, title);
}

/// Adds the schemas of the bodies of writes.
fn bodies(api: &mut Api, title: &str, resource: &Resource, own: &AdditionalProperties<Schema>) {
    let columns = resource.schema.columns();
    let (mut insert, mut replace, mut patch) = (ObjectBuilder::new(), ObjectBuilder::new(), ObjectBuilder::new());
    for column in columns {
        let name = &*column.name;
        let mandatory = column.has(Flag::Mandatory) && !column.has(Flag::Id);
        let schema = value(column, mandatory);
        if mandatory {
            (insert, replace) = (insert.required(name), replace.required(name));
        }
        // With an id in the path, the body may repeat it. A schema cannot express that both must be equal.
        let schema: Shape = if column.has(Flag::Id) { id(column) } else { schema }.into();
        insert = insert.property(name, schema.clone());
        replace = replace.property(name, schema.clone());
        patch = patch.property(name, schema);
    }
    let minted = resource.dio.mints_ids();
    let about = match minted {
        true => "A new row. If it has no id, the server assigns one.",
        false => "A new row. If it has no id, the source assigns one.",
    };
    let finish =
        |object: ObjectBuilder, about: &str| object.additional_properties(Some(own.clone())).description(Some(about));
    api.schema(format!("{title}Insert"), finish(insert, about));
    api.schema(format!("{title}Replace"), finish(replace, "A whole row. Its id is that of the path."));
    api.schema(format!("{title}Patch"), finish(patch, "Columns to change (RFC 7396). Null removes a value."));
}

/// Adds the frames that carry rows.
fn events(api: &mut Api, title: &str) {
    let names = ["RecordInserted", "RecordChanged"].map(|kind| (kind, format!("{title}{kind}Frame")));
    for (kind, name) in &names {
        let frame =
            object([("type", word(&[kind]).into()), ("seq", super::shapes::count().into()), ("id", text().into())]);
        let frame = frame.property("origin", text()).property("at", moment());
        let frame = frame.property("entered", super::shapes::flag()).property("conflated", super::shapes::flag());
        let frame = frame.property("record", named(format!("{title}Row"))).property("etag", text());
        let frame = frame.property("op", text()).property("changed", array(text()));
        api.schema(name.clone(), frame);
    }
    let [(_, inserted), (_, changed)] = &names;
    api.schema(format!("{title}Frame"), frame_of([inserted, changed]));
}

/// Returns true if every row has a value in this column.
fn is_certain(column: &Column) -> bool {
    column.has(Flag::Id) || column.has(Flag::Mandatory)
}

/// Returns the schema of an id in a body. Ids are strings, and integers are accepted as their decimal digits.
fn id(column: &Column) -> ObjectBuilder {
    match column.ty {
        ColumnType::Integer => typed(column, &[Type::Integer, Type::Null]),
        _ => ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Integer, Type::Null]))
            .min_length(Some(1))
            .pattern(Some(ID)),
    }
}

/// Pattern of valid ids, which excludes reserved words of the URL and control characters.
pub(super) const ID: &str = r"^(?!_|events$|live$)[^\x00-\x1f\x7f-\x9f]+$";

fn value(column: &Column, certain: bool) -> ObjectBuilder {
    let ty = match column.ty {
        ColumnType::Integer => Type::Integer,
        ColumnType::Number => Type::Number,
        ColumnType::Boolean => Type::Boolean,
        ColumnType::Json => return any(),
        _ => Type::String,
    };
    if certain { typed(column, &[ty]) } else { typed(column, &[ty, Type::Null]) }
}

fn typed(column: &Column, types: &[Type]) -> ObjectBuilder {
    let schema = match types {
        [one] => ObjectBuilder::new().schema_type(one.clone()),
        several => ObjectBuilder::new().schema_type(SchemaType::from_iter(several.iter().cloned())),
    };
    let known = |format| Some(SchemaFormat::KnownFormat(format));
    match column.ty {
        ColumnType::Integer => {
            schema.format(known(KnownFormat::Int64)).minimum(Some(isize::MIN)).maximum(Some(isize::MAX))
        }
        ColumnType::Number => schema.format(known(KnownFormat::Double)),
        ColumnType::Decimal => schema.format(Some(SchemaFormat::Custom("decimal".into()))),
        ColumnType::Date => schema.format(known(KnownFormat::Date)),
        ColumnType::Datetime => schema.format(known(KnownFormat::DateTime)),
        ColumnType::Uuid => schema.format(Some(SchemaFormat::Custom("uuid".into()))),
        ColumnType::Bytes => schema.content_encoding("base64url"),
        ColumnType::String | ColumnType::Boolean | ColumnType::Json => schema,
    }
}
