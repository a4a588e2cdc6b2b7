//! Code shared by SQL databases: quoted names, and the translation of queries.

#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) mod key;
pub(crate) mod operations;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod plan;

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) use plan::{Dialect, Plan};

/// Returns the foreign key `column` as a reference, named by its column without `_id`. It must refer to the key of `target`.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) fn reference(column: String, target: String) -> diorama_core::vista::Reference {
    let relation = column.strip_suffix("_id").filter(|name| !name.is_empty()).unwrap_or(&column).to_string();
    diorama_core::vista::Reference { relation, target, column, many: false }
}

/// Quotes any name as an identifier of standard SQL.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
