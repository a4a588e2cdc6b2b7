//! Code shared by SQL databases: quoted names, and the translation of queries.

#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) mod key;
pub(crate) mod operations;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod plan;

#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub(crate) use plan::{Dialect, Plan};

/// Quotes any name as an identifier of standard SQL.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
