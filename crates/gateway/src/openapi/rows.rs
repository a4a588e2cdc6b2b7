//! Schemas of one Dio's rows: as they are read, inserted, replaced, patched, and told by events.

use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type,
};

use utoipa::openapi::Schema;

use super::Api;
use super::frames::frame_of;
use super::shapes::{Shape, any, array, moment, named, object, text, word};
use crate::state::Resource;
use diorama_core::vista::{Column, ColumnType, Flag, UnknownColumns};

/// The rows that a list gives: whole ones, or what `select` leaves of them.
pub(super) fn list(title: &str) -> ArrayBuilder {
    array(shown(title))
}

/// One row, whole or what `select` leaves of it.
pub(super) fn shown(title: &str) -> AnyOfBuilder {
    AnyOfBuilder::new().item(named(format!("{title}Row"))).item(named(format!("{title}Part")))
}

/// The schemas of `at`, whose names begin with `title`.
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
    let about = "What `select` leaves of a row.";
    api.schema(format!("{title}Part"), part.additional_properties(Some(open)).description(Some(about)));

    let can = resource.dio.capabilities();
    if can.can_insert || can.can_update {
        bodies(api, title, resource, &own);
    }
    events(api, title);
}

/// What writes take.
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
        // Where the path has an id, a body may repeat it; a schema cannot say that both must be the same.
        let schema: Shape = if column.has(Flag::Id) { id(column) } else { schema }.into();
        insert = insert.property(name, schema.clone());
        replace = replace.property(name, schema.clone());
        patch = patch.property(name, schema);
    }
    let minted = !resource.schema.layout().integer_id();
    let about = match minted {
        true => "A new row; without an id it gets one.",
        false => "A new row; without an id the source chooses one.",
    };
    let finish =
        |object: ObjectBuilder, about: &str| object.additional_properties(Some(own.clone())).description(Some(about));
    api.schema(format!("{title}Insert"), finish(insert, about));
    api.schema(format!("{title}Replace"), finish(replace, "A whole row; its id is the path's."));
    api.schema(format!("{title}Patch"), finish(patch, "Columns to change (RFC 7396); null takes a value away."));
}

/// Frames that carry rows.
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

/// Whether every row that is read has a value there.
fn is_certain(column: &Column) -> bool {
    column.has(Flag::Id) || column.has(Flag::Mandatory)
}

/// An id in a body: ids are text, and whole numbers are taken for their text.
fn id(column: &Column) -> ObjectBuilder {
    match column.ty {
        ColumnType::Integer => typed(column, &[Type::Integer, Type::Null]),
        _ => ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Integer, Type::Null]))
            .min_length(Some(1))
            .pattern(Some(ID)),
    }
}

/// Words of the URL are no ids, nor is what a URL cannot show.
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
