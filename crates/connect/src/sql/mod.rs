//! Code shared by SQL databases: quoted names, and the translation of queries.

mod plan;

pub(crate) use plan::{Dialect, Plan};

/// Quotes any name as an identifier of standard SQL.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
