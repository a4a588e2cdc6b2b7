//! Schemas of members that utoipa cannot derive from their Rust types: enumerations, and strings of a certain form.

use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};

pub(crate) fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// Returns the schema of a string that is one of `words`.
pub(crate) fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    text().enum_values(Some(words))
}

/// Returns the schema of a list of `words`, separated by commas.
pub(crate) fn list_of<'a>(words: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    let any = words.into_iter().collect::<Vec<_>>().join("|");
    text().pattern(Some(format!("^({any})(,({any}))*$")))
}

/// Returns the schema of an RFC 3339 timestamp.
pub(crate) fn moment() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

/// Replaces the schemas of the parameters named in `own`. Derived schemas cannot have enumerations and patterns that are known at run
/// time only.
pub(crate) fn with_schemas<const N: usize>(
    mut parameters: Vec<Parameter>,
    own: [(&str, ObjectBuilder); N],
) -> Vec<Parameter> {
    for (name, schema) in own {
        let schema: RefOr<Schema> = schema.into();
        for parameter in parameters.iter_mut().filter(|parameter| parameter.name == name) {
            parameter.schema = Some(schema.clone());
        }
    }
    parameters
}
