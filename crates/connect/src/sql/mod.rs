//! What databases that speak SQL share: quoted names, and the part of a query that they answer.

mod plan;

pub(crate) use plan::{Dialect, Plan};

/// A name as standard SQL takes it, whatever is in it.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
