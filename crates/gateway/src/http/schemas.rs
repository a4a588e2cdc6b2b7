//! Schemas of members that utoipa cannot derive from their Rust types: words, and texts of a certain form.

use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};

pub(crate) fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// One of `words`.
pub(crate) fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    text().enum_values(Some(words))
}

/// One or several of `words`, separated by commas.
pub(crate) fn list_of<'a>(words: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    let any = words.into_iter().collect::<Vec<_>>().join("|");
    text().pattern(Some(format!("^({any})(,({any}))*$")))
}

pub(crate) fn moment() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

/// `parameters`, of which those named in `own` have these schemas: derived ones know neither words nor forms that are made at run time.
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
